"""How the ratio of two densities is learned: by candidates that are blended on rows that none of them has seen."""

import dataclasses
import itertools
import time
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from .._model.ratio import (
    WITHOUT_PARTNER,
    Ratio,
    RatioMember,
    RatioUnits,
    mixture_log_density,
    network_inputs,
    quadratic_features,
    units_of,
    weights_report,
)
from .._utils.process import one_blas_thread, without_warnings
from .._utils.tensors import RATIO_STREAM, make_generator
from .._utils.weights import part_of_weights
from ..distributed import strided
from .mixture_init import Budget

# Folds of the rows: each has members that were learned from the others.
_FOLDS = 5
# Fewest rows of a sample of which folds are made.
_FEWEST = 10
# Newton steps of a logistic regression, and the change of its coefficients below which they end.
_NEWTON_STEPS = 30
_NEWTON_TOLERANCE = 1e-6
# Those that a regression takes, as foreseen, and the kinds of units of the columns.
_FORESEEN_NEWTON_STEPS = 8
_UNITS = 2
# Products of numbers in a second, and those that a row takes beside the squares of its features.
_PRODUCTS = 1e10
_PRODUCTS_BESIDE = 100
# Fewest rows of a sample that a limit of time leaves.
_FEWEST_IN_A_HURRY = 500
# Ridge penalties of the quadratic candidate that are tried, in rows.
_PENALTIES = (1.0, 10.0, 100.0)
# Components of the mixtures that are tried, and the floor of their variances in scaled units.
_COMPONENTS = (1, 2, 4, 8, 16)
_FLOOR = 1e-3
# Components by which the time that mixtures take is foreseen.
_FORESEEN_COMPONENTS = 4
# Rows of both samples below which the time is too short for mixtures.
_LEAST_ROWS = 1500
# Relative difference of weights that is rounding.
_ROUNDING = 1e-12
# Rows by which their number is chosen, at the most, and the share that judges.
_CHOICE_ROWS = 4000
_JUDGING_SHARE = 0.25
# Units of the hidden layers of a network, rows of either sample in its step, its learning rate and weight decay.
_WIDTH = 64
_BATCH = 128
_LEARNING_RATE = 3e-3
_WEIGHT_DECAY = 1e-2
# Memory of the moments of the gradients in Adam.
_BETAS = (0.9, 0.999)
# Memory of the mean of weights over steps.
_EMA = 0.98
# Steps between two looks at the rows of the other fold, and looks without gain after which training ends.
_STEPS_OF_LOOK = 25
_PATIENCE = 8
# Steps below which mixtures and networks are not tried.
_LEAST_STEPS = 50
# Effective rows of which a mean weight is believed by half.
_DOUBTED_ROWS = 100.0
# Largest change of a log-ratio by which weights are normalised.
_LARGEST_SHIFT = 0.3
# Largest log-ratio beyond those of the rows of the fit.
_MARGIN = 1.0


@dataclasses.dataclass(frozen=True)
class RatioEffort:
    """What learning a ratio may cost.

    Parameters
    ----------
    n_steps : int
        Largest number of steps of the networks; below 50 there are closed forms of second order alone.
    seconds : float or None, default=None
        Limit of the time.
    """

    n_steps: int
    seconds: float | None = None

    def share(self, seconds):
        """The share that half of the time is of what something would take, at most one."""
        return 1.0 if self.seconds is None else min(1.0, self.seconds / (2 * seconds))

    def some_of(self, X, weight):
        """As many rows of a sample, spread over all, as the quadratic candidates of both take half of the time for."""
        if self.seconds is None:
            return X, weight
        n_products = quadratic_features(np.zeros((1, X.shape[1]))).shape[1] ** 2 + _PRODUCTS_BESIDE
        of_row = _FOLDS * len(_PENALTIES) * _UNITS * _FORESEEN_NEWTON_STEPS * n_products / _PRODUCTS
        some = strided(len(X), max(_FEWEST_IN_A_HURRY, int(self.seconds / 2 / (2 * of_row))))
        return X[some], part_of_weights(weight, some)


class _Rows:
    """The pooled rows of both samples, their labels, weights and folds."""

    def __init__(self, X0, X1, weights, seed):
        rng = np.random.default_rng([seed, RATIO_STREAM])
        n = len(X0), len(X1)
        self.X = np.concatenate([X0, X1]).astype(np.float64)
        self.y = np.repeat([0.0, 1.0], n)
        given = [np.ones(m) if w is None else np.asarray(w, np.float64) for m, w in zip(n, weights, strict=True)]
        # both samples count the same, so that the logit is the log-ratio
        self.weight = np.concatenate([w / w.sum() for w in given]) * sum(n) / 2
        self.fold = np.concatenate([rng.permutation(np.arange(m) % min(_FOLDS, m)) for m in n])
        balanced = np.concatenate([rng.choice(m, max(n), p=w / w.sum()) + k * n[0] for k, (m, w) in
                                   enumerate(zip(n, given, strict=True))])  # fmt: skip
        self.units = RatioUnits.of(self.X[balanced])
        self.by_units = units_of(self.units, self.X)

    @property
    def n_folds(self):
        """Number of the folds."""
        return int(self.fold.max()) + 1

    def drawn(self, some, rng):
        """Numbers of some rows of one sample; drawn by weight where they have weights."""
        numbers, weight = np.flatnonzero(some), self.weight[some]
        equal = np.ptp(weight) <= _ROUNDING * weight.max()
        return numbers if equal else rng.choice(numbers, len(numbers), p=weight / weight.sum())

    def loss(self, log_ratio):
        """The mean logistic loss, both samples alike."""
        return float(np.average(np.logaddexp(0, np.where(self.y > 0, -log_ratio, log_ratio)), weights=self.weight))


def fit_ratio(X0, X1, seed, effort, weights=(None, None)):
    """Learn log rho_1(x) - log rho_0(x) from rows of both.

    argmin E_0 log(1 + e^r) + E_1 log(1 + e^-r),    r = log rho_1 - log rho_0

    (Sugiyama, Suzuki & Kanamori 2012, "Density ratio estimation in machine learning", chapter 4). The candidates are
    quadratic functions, differences of the log-densities of Gaussian mixtures, each in affine units and in normal
    scores, and a network that is added to them. Their blend is chosen by the loss of rows that they have not seen.

    Parameters
    ----------
    X0, X1 : ndarray of shape (n, d)
        Rows of base and target.
    seed : int
    effort : RatioEffort
    weights : tuple of (ndarray or None)
        Of the rows of both.

    Returns
    -------
    ratio : Ratio or None
        None where a sample has too few rows.
    """
    if min(len(X0), len(X1)) < _FEWEST:
        return None
    began = time.perf_counter()
    (X0, w0), (X1, w1) = (effort.some_of(X, w) for X, w in zip((X0, X1), weights, strict=True))

    def is_over():
        return effort.seconds is not None and time.perf_counter() - began > effort.seconds

    with one_blas_thread():  # two busy cores took fifty times as long
        rows = _Rows(X0, X1, (w0, w1), seed)
        members = _closed_forms(rows, seed, effort, is_over)
        forms = _out_of_fold(rows, lambda k, by_units: members[k].closed_forms(by_units))
        blend = _blended(rows, forms)
    base = blend[0] + blend[1:] @ forms
    left = None if effort.seconds is None else effort.seconds - (time.perf_counter() - began)
    share, networks = 0.0, None
    if effort.n_steps >= _LEAST_STEPS and (left is None or left > 0):
        share, networks, base = _with_networks(rows, members, blend, base, seed, (effort.n_steps, left))
    if networks is not None:
        members = [dataclasses.replace(m, layers=layers) for m, layers in zip(members, networks, strict=True)]
    report = _report(rows, base)
    shift = _normalising_shift(report)
    blend[0] += shift
    limit = float(np.abs(base + shift).max()) + _MARGIN
    return Ratio(rows.units, members, blend, share, limit, report)


def _normalising_shift(report):
    """What brings the mean weight of the base to one, as far as its rows tell it, and not far."""
    belief = report["effective_size"] / (report["effective_size"] + _DOUBTED_ROWS)
    return float(np.clip(-belief * np.log(report["mean_weight"]), -_LARGEST_SHIFT, _LARGEST_SHIFT))


def _report(rows, log_ratio):
    """What the rows of the fit say, each by the member that has not seen it, before the weights are normalised."""
    is_base = rows.y == 0
    weights = weights_report(log_ratio[is_base], rows.weight[is_base])
    base = np.average(log_ratio[is_base] < -WITHOUT_PARTNER, weights=rows.weight[is_base])
    target = np.average(log_ratio[~is_base] > WITHOUT_PARTNER, weights=rows.weight[~is_base])
    return weights | {"base_without_partners": float(base), "target_without_partners": float(target),
                      "log_loss": rows.loss(log_ratio)}  # fmt: skip


def _out_of_fold(rows, evaluate):
    """Values of shape (..., n) of each row by the member that has not seen it."""
    found: Any = None
    for k in range(rows.n_folds):
        held = rows.fold == k
        value = evaluate(k, {name: z[held] for name, z in rows.by_units.items()})
        found = np.empty((*value.shape[:-1], len(rows.y))) if found is None else found
        found[..., held] = value
    return found


# ------------------------------------------------------------------------------------------------ closed forms


def _closed_forms(rows, seed, effort, is_over):
    """The members of all folds, without networks; once the time is over, no further candidate is tried."""
    quadratics = {name: _quadratics(rows, z, is_over) for name, z in rows.by_units.items()}
    mixtures: dict = {}
    if effort.n_steps >= _LEAST_STEPS:
        most = int(len(rows.y) * effort.share(_mixture_seconds(rows)))
        if most >= min(_LEAST_ROWS, len(rows.y)):
            mixtures = {name: _mixtures(rows, z, seed, most) for name, z in rows.by_units.items() if not is_over()}
    return [
        RatioMember({name: w[k] for name, w in quadratics.items()}, {name: m[k] for name, m in mixtures.items()})
        for k in range(rows.n_folds)
    ]


def _quadratics(rows, z, is_over):
    """Coefficients of each fold, with the penalty of the lowest loss of the held-out rows."""
    features = quadratic_features(z)
    best: Any = None
    for penalty in _PENALTIES:
        if best is not None and is_over():
            break
        found = [_logistic(features[rows.fold != k], rows, rows.fold != k, penalty) for k in range(rows.n_folds)]
        held = np.concatenate([np.flatnonzero(rows.fold == k) for k in range(rows.n_folds)])
        value = np.empty(len(rows.y))
        value[held] = np.concatenate([features[rows.fold == k] @ w for k, w in enumerate(found)])
        loss = rows.loss(value)
        if best is None or loss < best[0]:
            best = loss, found
    return best[1]


def _logistic(features, rows, some, penalty, offset=None):
    """Coefficients of a logistic regression by Newton's method, with a ridge penalty on all but the first."""
    y, weight = rows.y[some], rows.weight[some]
    offset = np.zeros(len(y)) if offset is None else offset
    ridge = np.full(features.shape[1], penalty)
    ridge[0] = 1e-6
    w = np.zeros(features.shape[1])

    def objective(w):
        r = features @ w + offset
        return (weight * np.logaddexp(0, np.where(y > 0, -r, r))).sum() + 0.5 * (ridge * w**2).sum()

    value = objective(w)
    for _ in range(_NEWTON_STEPS):
        p = expit(features @ w + offset)
        gradient = features.T @ (weight * (p - y)) + ridge * w
        hessian = (features * (weight * p * (1 - p))[:, None]).T @ features + np.diag(ridge)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while objective(w - size * step) > value and size > 1e-4:
            size /= 2
        w, before = w - size * step, value
        value = objective(w)
        if before - value < _NEWTON_TOLERANCE * len(y):
            break
    return w


def _mixture_seconds(rows):
    """What the mixtures of all folds take, as foreseen, if they have few components."""
    return _FOLDS * len(rows.by_units) * (Budget.cost(_FORESEEN_COMPONENTS, *rows.X.shape) + 2 * Budget.cost(1, 0, 0))


def _mixtures(rows, z, seed, most):
    """For each fold the mixtures of base and target, from a part of the rows where they are more than `most`."""
    rng, of_samples = np.random.default_rng([seed, RATIO_STREAM, 2]), []
    taken = rng.permutation(len(rows.y)) < most
    for label in (0.0, 1.0):
        some = taken & (rows.y == label)
        n_components = _n_components(z[rows.drawn(some, rng)], seed)
        drawn = [rows.drawn(some & (rows.fold != k), rng) for k in range(rows.n_folds)]
        of_samples.append([_parts(_mixture(z[numbers], n_components, seed)) for numbers in drawn])
    return list(zip(*of_samples, strict=True))


def _n_components(z, seed):
    """The number of components that is best for rows that were left out."""
    rng = np.random.default_rng([seed, RATIO_STREAM, 1])
    z = z[rng.permutation(len(z))[:_CHOICE_ROWS]]
    n = round(_JUDGING_SHARE * len(z))
    best, chosen = -np.inf, 1
    for n_components in _COMPONENTS:
        if n_components * (z.shape[1] + 1) * 3 > len(z) - n and n_components > 1:
            break
        score = mixture_log_density(z[:n], _parts(_mixture(z[n:], n_components, seed))).mean()
        if score <= best:
            break
        best, chosen = score, n_components
    return chosen


def _mixture(z, n_components, seed):
    mixture = GaussianMixture(n_components, reg_covar=_FLOOR, random_state=seed % 2**32, max_iter=50, tol=3e-3)
    with without_warnings(ConvergenceWarning):
        return mixture.fit(z)


def _parts(mixture):
    return np.log(mixture.weights_), mixture.means_, mixture.precisions_cholesky_


# ------------------------------------------------------------------------------------------------ blends


def _blended(rows, forms):
    """An intercept and coefficients that are not negative, of the lowest loss."""
    active = list(range(len(forms)))
    while True:
        features = np.column_stack([np.ones(len(rows.y)), *forms[active]])
        w = _logistic(features, rows, slice(None), 1.0)
        if (w[1:] >= 0).all() or len(active) == 1:
            break
        active.pop(int(np.argmin(w[1:])))
    blend = np.zeros(len(forms) + 1)
    blend[0], blend[1 + np.array(active)] = w[0], w[1:].clip(0)
    return blend


# ------------------------------------------------------------------------------------------------ networks


def _with_networks(rows, members, blend, base, seed, limits):
    """The share of the networks, their layers by fold, and the log-ratios of the rows with them."""
    inputs = torch.as_tensor(network_inputs(rows.by_units), dtype=torch.float32)
    offsets = np.stack([blend[0] + blend[1:] @ m.closed_forms(rows.by_units) for m in members])
    networks = _Networks(inputs, torch.as_tensor(offsets, dtype=torch.float32), rows, seed)
    best, layers = networks.train(*limits)
    if best is None:
        return 0.0, None, base
    share = _share(rows, base, best)
    return (share, layers, base + share * best) if share > 0 else (0.0, None, base)


def _share(rows, base, value):
    """The coefficient of the networks that has the lowest loss, between 0 and 1.2."""
    shares = np.linspace(0, 1.2, 13)
    return float(shares[np.argmin([rows.loss(base + s * value) for s in shares])])


class _Networks:
    """The networks of all folds, trained side by side."""

    def __init__(self, inputs, offsets, rows, seed):
        self.inputs, self.offsets, self.rows, self.k = inputs, offsets, rows, rows.n_folds
        self.generator = make_generator(seed, RATIO_STREAM)
        sizes = (inputs.shape[1], _WIDTH, _WIDTH, 1)
        self.weights = [self._start(n, m, last=m == 1) for n, m in itertools.pairwise(sizes)]
        self.biases = [torch.zeros(self.k, 1, m, requires_grad=True) for m in sizes[1:]]
        self.parameters = [*self.weights, *self.biases]
        self.means = [p.detach().clone() for p in self.parameters]
        self.moments = [[torch.zeros_like(p) for p in self.parameters] for _ in range(2)]
        self.draws = [self._draw_table(label) for label in (0.0, 1.0)]

    def _start(self, n, m, last):
        bound = 0.0 if last else (3 / n) ** 0.5
        values = (2 * torch.rand((self.k, n, m), generator=self.generator) - 1) * bound
        return values.requires_grad_(True)

    def _draw_table(self, label):
        """Row numbers of one sample outside each fold, and their weights."""
        rows = self.rows
        numbers = [np.flatnonzero((rows.y == label) & (rows.fold != k)) for k in range(self.k)]
        return [(torch.as_tensor(n), torch.as_tensor(rows.weight[n])) for n in numbers]

    def value(self, x, parameters):
        """Of shape (k, m), for inputs of shape (k, m, n)."""
        weights, biases = parameters[: len(self.weights)], parameters[len(self.weights) :]
        for w, b in zip(weights[:-1], biases[:-1], strict=True):
            x = torch.nn.functional.silu(torch.baddbmm(b, x, w))
        return torch.baddbmm(biases[-1], x, weights[-1])[..., 0]

    def _batch(self):
        parts = []
        for tables in self.draws:
            drawn = [n[torch.multinomial(w, _BATCH, True, generator=self.generator)] for n, w in tables]
            parts.append(torch.stack(drawn))
        return torch.cat(parts, 1)

    def train(self, n_steps, seconds):
        """Out-of-fold values and layers of the best look; None where none is better than no networks."""
        sign = torch.cat([torch.ones(_BATCH), -torch.ones(_BATCH)])
        began, stale = time.perf_counter(), 0
        base = self._out_of_fold(None)
        lowest, best, kept = self.rows.loss(base), None, None
        for step in range(1, n_steps + 1):
            numbers = self._batch()
            x = self.inputs[numbers]
            offset = self.offsets.gather(1, numbers)
            loss = torch.nn.functional.softplus(sign * (offset + self.value(x, self.parameters))).mean(1).sum()
            self._descend(torch.autograd.grad(loss, self.parameters), step)
            self._average(min(_EMA, step / (step + 10)))
            if step % _STEPS_OF_LOOK and step < n_steps:
                continue
            value = self._out_of_fold(self.means)
            score = self.rows.loss(base + value)
            stale += 1
            if score < lowest:
                lowest, best, stale = score, value, 0
                kept = [p.clone() for p in self.means]
            if stale >= _PATIENCE or (seconds is not None and time.perf_counter() - began > seconds):
                break
        return best, None if kept is None else self._layers(kept)

    @torch.no_grad()
    def _descend(self, gradients, step):
        """A step of Adam with decoupled weight decay (Loshchilov & Hutter 2019); torch's own takes seconds to load."""
        first, second = _BETAS
        for p, g, m, v in zip(self.parameters, gradients, *self.moments, strict=True):
            m.lerp_(g, 1 - first)
            v.lerp_(g * g, 1 - second)
            p.mul_(1 - _LEARNING_RATE * _WEIGHT_DECAY)
            p.addcdiv_(m / (1 - first**step), (v / (1 - second**step)).sqrt_().add_(1e-8), value=-_LEARNING_RATE)

    @torch.no_grad()
    def _average(self, memory):
        for mean, p in zip(self.means, self.parameters, strict=True):
            mean.lerp_(p, 1 - memory)

    @torch.no_grad()
    def _out_of_fold(self, parameters):
        """The offset (without parameters) or the value of each row by the network that has not seen it."""
        found = np.empty(len(self.rows.y))
        for k in range(self.k):
            held = torch.as_tensor(np.flatnonzero(self.rows.fold == k))
            if parameters is None:
                found[held.numpy()] = self.offsets[k, held].numpy()
                continue
            own = [p[k : k + 1] for p in parameters]
            found[held.numpy()] = self.value(self.inputs[held][None], own)[0].numpy()
        return found

    def _layers(self, parameters: list[Tensor]):
        n = len(self.weights)
        pairs = list(zip(parameters[:n], parameters[n:], strict=True))
        return [[(w[k].double().numpy(), b[k, 0].double().numpy()) for w, b in pairs] for k in range(self.k)]
