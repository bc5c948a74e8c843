"""Closed forms against which the numerics are tested (theory: Gaussian and Gaussian-mixture ends)."""

import dataclasses
import math

import numpy as np
import pandas as pd
import torch
from scipy.stats import multivariate_normal
from torch import nn

from sklearn_si._model import transport
from sklearn_si._model.fitted import FittedModel
from sklearn_si._model.levels import Level
from sklearn_si.couplings import as_coupling
from sklearn_si.interpolants import Linear, make_interpolant
from sklearn_si.preprocessing import AffineMap


class MixtureFields(nn.Module):
    """Exact fields of an interpolant between two independent Gaussian mixtures (2303.08797, App. A).

    With x_t | (i, j) normal of mean m_ij and covariance C_ij, weights w_ij(x), y = C^-1 (x - m):
    b = sum w (m_dot + H y), H = alpha alpha_dot C0 + beta beta_dot C1 + gamma gamma_dot I.
    """

    def __init__(self, interpolant, weights1, means1, covs1, weights0=None, means0=None, covs0=None, noise_cov=None):
        super().__init__()
        d = np.shape(means1)[1]
        noise_cov = np.eye(d) if noise_cov is None else noise_cov  # of gamma^2: D D^T in data units
        weights0, means0, covs0 = (
            (np.ones(1), np.zeros((1, d)), np.eye(d)[None]) if weights0 is None else (weights0, means0, covs0)
        )
        self.interpolant = interpolant
        pairs = [(i, j) for i in range(len(weights0)) for j in range(len(weights1))]
        i, j = np.array(pairs).T
        for name, value in {
            "log_p": np.log(np.asarray(weights0)[i]) + np.log(np.asarray(weights1)[j]),
            "m0": np.asarray(means0)[i],
            "m1": np.asarray(means1)[j],
            "c0": np.asarray(covs0)[i],
            "c1": np.asarray(covs1)[j],
            "noise_cov": noise_cov,
        }.items():
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float64))

    def parts(self, t, x):
        """The pieces of every field at one time t of shape ()."""
        it = self.interpolant
        a, b, g = it.alpha(t), it.beta(t), it.gamma(t)
        cov = a**2 * self.c0 + b**2 * self.c1 + g**2 * self.noise_cov
        factor = torch.linalg.cholesky(cov)
        u = x[:, None] - (a * self.m0 + b * self.m1)
        y = torch.cholesky_solve(u.permute(1, 2, 0), factor).permute(2, 0, 1)
        log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_w = self.log_p - 0.5 * (log_det + (u * y).sum(-1) + x.shape[1] * math.log(2 * math.pi))
        half = it.alpha_alpha_dot(t) * self.c0 + b * it.beta_dot(t) * self.c1 + it.gamma_gamma_dot(t) * self.noise_cov
        return log_w, torch.softmax(log_w, 1), y, half, factor

    def _mean_dot(self, t):
        it = self.interpolant
        # 0 * inf where alpha_dot is infinite: the base of a one-sided model has mean 0
        first = torch.where(self.m0 == 0, torch.zeros_like(self.m0), it.alpha_dot(t) * self.m0)
        return first + it.beta_dot(t) * self.m1

    @staticmethod
    def _mix(w, value):
        return (w[..., None] * value).sum(1)

    def _slow(self, t, x, function):
        """Times of shape (n,), the rows of one time together."""
        times, place = torch.unique(t, return_inverse=True)
        order = torch.argsort(place, stable=True)
        back = torch.argsort(order)
        counts = torch.bincount(place).tolist()
        parts = [function(s, r) for s, r in zip(times, x[order].split(counts), strict=True)]
        if isinstance(parts[0], tuple):
            return tuple(torch.cat(p)[back] for p in zip(*parts, strict=True))
        return torch.cat(parts)[back]

    def forward(self, t, x, condition=None):
        if t.ndim:
            return self._slow(t, x, self.forward)
        return self.velocity_and_divergence(t, x)[0]

    def velocity_and_divergence(self, t, x, condition=None):
        if t.ndim:
            return self._slow(t, x, self.velocity_and_divergence)
        _, w, y, half, factor = self.parts(t, x)
        speed = self._mean_dot(t) + torch.einsum("kab,nkb->nka", half, y)
        velocity = self._mix(w, speed)
        trace = torch.cholesky_solve(half, factor).diagonal(dim1=-2, dim2=-1).sum(-1)
        divergence = (w * (trace - (speed * y).sum(-1))).sum(1) + (velocity * self._mix(w, y)).sum(1)
        return velocity, divergence

    def log_density(self, t, x):
        return torch.logsumexp(self.parts(t, x)[0], 1)

    def score_function(self, t, x):
        _, w, y, *_ = self.parts(t, x)
        return -self._mix(w, y)

    def denoiser(self, t, x):
        """E[z | x_t]; z is the base itself for a Gaussian base."""
        it = self.interpolant
        scale = it.alpha(t) if it.path_type == "one-sided" else it.gamma(t)
        return -scale * self.score_function(t, x)

    def drift_without_noise(self, t, x):
        """v = E[dI/dt | x_t] = b + gamma gamma_dot s."""
        return self(t, x) + self.interpolant.gamma_gamma_dot(t) * self.score_function(t, x)

    def posterior_means(self, t, x):
        """E[x0 | x_t] and E[x1 | x_t]."""
        it = self.interpolant
        _, w, y, *_ = self.parts(t, x)
        e0 = self.m0 + it.alpha(t) * torch.einsum("kab,nkb->nka", self.c0, y)
        e1 = self.m1 + it.beta(t) * torch.einsum("kab,nkb->nka", self.c1, y)
        return self._mix(w, e0), self._mix(w, e1)


class Denoiser(nn.Module):
    """The exact denoiser of some fields, as a network."""

    def __init__(self, fields):
        super().__init__()
        self.fields = fields

    def forward(self, t, x, condition=None):
        if t.ndim:
            return self.fields._slow(t, x, self.fields.denoiser)
        return self.fields.denoiser(t, x)


def random_covariances(rng, n, d, low=0.1, high=1.0):
    """Covariances with eigenvalues between low and high and random axes."""
    q = np.linalg.qr(rng.normal(size=(n, d, d)))[0]
    return np.einsum("kab,kb,kcb->kac", q, rng.uniform(low, high, size=(n, d)), q)


def mixture(rng, n_components, d, spread=2.0, low=0.1):
    """Weights, means and covariances of a mixture."""
    weights = rng.dirichlet(np.full(n_components, 5.0))
    return weights, spread * rng.normal(size=(n_components, d)), random_covariances(rng, n_components, d, low)


def sample_mixture(rng, n, weights, means, covs):
    k = rng.choice(len(weights), size=n, p=weights)
    noise = rng.normal(size=(n, means.shape[1]))
    return means[k] + np.einsum("nab,nb->na", np.linalg.cholesky(covs)[k], noise)


def mixture_log_density(X, weights, means, covs):
    parts = [np.log(p) + multivariate_normal(m, c).logpdf(X) for p, m, c in zip(weights, means, covs, strict=True)]
    return np.logaddexp.reduce(parts, axis=0)


def moments(weights, means, covs):
    mean = weights @ means
    return mean, np.einsum("k,kab->ab", weights, covs) + np.einsum("k,ka,kb->ab", weights, means - mean, means - mean)


def exact_model(estimator, target, base=None, base_rows=None, base_density=None):
    """The fitted model of an estimator's path with exact fields in the networks' places, data units throughout."""
    d = target[1].shape[1]
    two = base is not None
    path = make_interpolant(
        estimator.interpolant, estimator.gamma, estimator.gamma_scale,
        two_samples=two, latent_noise=estimator._learns_denoiser,
    )  # fmt: skip
    fields = MixtureFields(path, *target, *(base or ()))
    identity = AffineMap(np.zeros(d), np.ones(d))
    return FittedModel(
        interpolant=path,
        learned={"velocity": fields},
        velocity=fields,
        denoiser=Denoiser(fields) if two and estimator._learns_denoiser else None,
        base_map=identity if two else None,
        target_map=identity,
        base_sample=base_rows,
        base_density=base_density,
        coupling=as_coupling(estimator.coupling),
        dtype=np.dtype(np.float64),
    )


def with_exact_fields(estimator, *args):
    """The estimator as if it had been fitted to such a model."""
    estimator.model_ = exact_model(estimator, *args)
    estimator.n_features_in_ = estimator.model_.n_features
    return estimator


def with_parts(estimator, **parts):
    """The estimator with other parts in its fitted model."""
    estimator.model_ = dataclasses.replace(estimator.model_, **parts)
    return estimator


class MixtureDensity:
    """A density with closed form, as `base_density_`."""

    def __init__(self, *parameters):
        self.parameters = parameters

    def score_samples(self, X):
        return mixture_log_density(X, *self.parameters)


def gaussian_flow_map(cov0, cov1, path=None, n=2000):
    """M(1) of the exact ODE map x -> m1 + M (x - m0) between normal distributions with independent ends."""
    path = path or Linear()
    eye = np.eye(len(cov0))

    def rate(t):
        t = torch.tensor(t, dtype=torch.float64)
        a2, b2, g2 = (float(f(t)) ** 2 for f in (path.alpha, path.beta, path.gamma))
        half = (
            float(path.alpha_alpha_dot(t)) * cov0
            + float(path.beta(t) * path.beta_dot(t)) * cov1
            + float(path.gamma_gamma_dot(t)) * eye
        )
        return half @ np.linalg.inv(a2 * cov0 + b2 * cov1 + g2 * eye)

    m, h = eye, 1 / n
    for k in range(n):
        t = k * h
        k1 = rate(t) @ m
        k2 = rate(t + h / 2) @ (m + h / 2 * k1)
        k3 = rate(t + h / 2) @ (m + h / 2 * k2)
        k4 = rate(t + h) @ (m + h * k3)
        m = m + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return m


def column_kinds(rng, n):
    """One column of every kind, by name."""
    gaps = rng.uniform(size=n) < 0.3
    text = rng.choice(["a", "b", "ä c"], size=n).astype(object)
    dates = pd.Series(np.datetime64("2020-01-01", "s") + rng.integers(10**8, size=n).astype("m8[s]"))
    return {
        "constant": pd.Series(np.full(n, 7)),
        "all gaps": pd.Series(np.full(n, np.nan)),
        "all none": pd.Series([None] * n, dtype=object),
        "int64": pd.Series(rng.integers(-5, 10**6, size=n)),
        "int8": pd.Series(rng.integers(-5, 5, size=n).astype("int8")),
        "huge": pd.Series(2**60 + rng.integers(10**6, size=n)),
        "Int64": pd.Series(pd.array(np.where(gaps, 0, rng.integers(100, size=n)), dtype="Int64")).mask(gaps),
        "float64": pd.Series(rng.normal(size=n)),
        "float32": pd.Series(np.round(rng.normal(size=n), 1).astype("float32")),
        "decimals": pd.Series(np.round(rng.normal(size=n), 3)).mask(gaps),
        "Float64": pd.Series(pd.array(rng.normal(size=n).round(2), dtype="Float64")).mask(gaps),
        "zeros": pd.Series(np.where(rng.uniform(size=n) < 0.6, 0.0, rng.exponential(size=n))),
        "heavy": pd.Series(np.round(rng.standard_cauchy(size=n), 4)),
        "infinite": pd.Series(np.where(gaps, np.inf, rng.normal(size=n).round(3))),
        "bool": pd.Series(rng.uniform(size=n) < 0.5),
        "boolean": pd.Series(pd.array(rng.uniform(size=n) < 0.5, dtype="boolean")).mask(gaps),
        "object": pd.Series(np.where(gaps, None, text), dtype=object),
        "mixed": pd.Series([None, np.nan, "u", 3, True, (1, 2)] * n, dtype=object)[:n],
        "str": pd.Series(text, dtype="str").mask(gaps),
        "string": pd.Series(text, dtype="string").mask(gaps),
        "category": pd.Series(pd.Categorical(text, categories=["ä c", "z", "b", "a"], ordered=True)).mask(gaps),
        "dates": dates.mask(gaps),
        "zoned": dates.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo").mask(gaps),
        "days": pd.Series(dates.to_numpy().astype("M8[D]").astype("M8[ns]")),
        "spans": pd.Series(rng.integers(10**6, size=n).astype("m8[s]")),
    }


def limit_levels(patch, most):
    """Give up rows that no grid brings under the tolerance after so many doublings of the steps.

    Parameters
    ----------
    patch : MonkeyPatch
    most : int
        8 without it, which takes 4,608 steps.
    """
    patch.setattr(transport, "MAX_LEVEL", most)
    patch.setattr(Level.doublings, "__defaults__", (most,))
