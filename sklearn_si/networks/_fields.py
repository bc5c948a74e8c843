"""Fields f(t, x, condition) of shape (n, d) with an exact divergence: closed forms around networks."""

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .._utils.names import registered
from .._utils.tensors import column
from ..interpolants import Interpolant, Linear
from ._divergence import Field, as_field, velocity_and_divergence
from ._perceptrons import (
    ACTIVATIONS,
    MLP,
    FiLMNetwork,
    Modulation,
    TimeModulated,
)

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "ComposedVelocity",
    "DenoiserOfScore",
    "FiLMNetwork",
    "ForecastField",
    "GuidedField",
    "MixtureVelocity",
    "PreconditionedField",
    "velocity_and_divergence",
]

# Smallest variance of a component of a mixture along one of its axes, in scaled units.
_LEAST_VARIANCE = 1e-6

# Below this latent noise (in scaled units) the residual network of a denoiser has the scale of a score, above it that
# of the noise.
_NOISE_FLOOR = 0.05


@registered("networks.StraightScales")
class StraightScales(Linear):
    """A straight path with the gamma of a path that is not linear in space, from which a network takes its scales.

    Parameters
    ----------
    path : Interpolant
        The path whose gamma is used.
    """

    def __init__(self, path: Interpolant) -> None:
        super().__init__(path.noise, path.gamma_scale)
        self.path = path

    def gamma(self, t: Tensor) -> Tensor:
        """The gamma of the path."""
        return self.path.gamma(t)

    def gamma_gamma_dot(self, t: Tensor) -> Tensor:
        """The product gamma gamma_dot of the path."""
        return self.path.gamma_gamma_dot(t)

    @property
    def has_noise(self) -> bool:
        """Whether the gamma of the path is not identically zero."""
        return self.path.has_noise


@registered("networks.ResidualField")
class ResidualField(Field):
    """A closed-form field g plus a network F that learns the remainder.

    f(t, x) = g(t, x) + c_out(t) F(t, c_in(t) x, condition)

    The names are those of Karras et al. (arXiv 2206.00364, equation (7)), where g(t, x) = c_skip(t) x.
    """

    network: FiLMNetwork

    def preconditioning(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The closed form g of shape (n, d), c_out of a shape that broadcasts with it, and the input c_in x of F."""
        raise NotImplementedError

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """The field f(t, x), of shape (n, d)."""
        closed, c_out, y = self.preconditioning(t, x)
        return torch.addcmul(closed, c_out, self.network(t, y, condition))

    def time_coefficients(self, times: Tensor) -> tuple[Tensor, ...]:
        """The part of `preconditioning` that depends on time alone: tensors whose first axes are those of the times."""
        raise NotImplementedError

    def preconditioning_at(self, coefficients: tuple[Tensor, ...], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same as `preconditioning`, from the time coefficients at one time."""
        raise NotImplementedError

    def instants(self, times: Tensor, condition: Tensor | None = None) -> list | None:
        """The field at each of the times as a function of x alone; what depends on time alone is computed once."""
        if not isinstance(self.network, TimeModulated):
            return None  # there is no network, or one in which time is an input like others
        coefficients = zip(*(values.unbind() for values in self.time_coefficients(times)), strict=True)
        modulated = self.network.modulated_given(condition)

        def at(coefficients: tuple[Tensor, ...], modulation: Modulation, x: Tensor) -> Tensor:
            closed, c_out, y = self.preconditioning_at(coefficients, x)
            return torch.addcmul(closed, c_out, modulated(modulation, y))

        modulations = self.network.modulations(times)
        return [functools.partial(at, *both) for both in zip(coefficients, modulations, strict=True)]


@registered("networks.PreconditionedField")
class PreconditionedField(ResidualField):
    """A network around the closed-form field between two Gaussian distributions.

    f(t, x) = c_skip(t) * x + c_out(t) F(t, c_in(t) x),    c_in = 1 / sd(x_t)

    (Karras et al., arXiv 2206.00364, equation (7)). With F = 0 the field is the exact one between Gaussian
    distributions with the given variances and covariance, so that training starts from the Gaussian maximum-likelihood
    model.

    Parameters
    ----------
    interpolant : Interpolant
        The path.
    network : FiLMNetwork
        The network F.
    target : {"velocity", "drift", "denoiser", "score"}
        Which field it is: the velocity b, the drift v = E[dI/dt | x_t], the denoiser eta or the score s.
    v0, v1, c : Tensor of shape (n_features,)
        Variance of each feature at t = 0 and at t = 1, in squared scaled units, and their covariance; None is 0.
    """

    v0: Tensor
    v1: Tensor
    c: Tensor | None

    def __init__(
        self,
        interpolant: Interpolant,
        network: FiLMNetwork,
        target: str,
        v0: Tensor,
        v1: Tensor,
        c: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.interpolant, self.network, self.target = interpolant, network, target
        self.register_buffer("v0", v0)
        self.register_buffer("v1", v1)
        self.register_buffer("c", c)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The coefficients c_skip of shape (..., d), c_out and 1 / c_in of shape (..., 1), for t of shape (...,)."""
        t, path = t[..., None], self.interpolant
        variance = path.variance(t, self.v0, self.v1, self.c)
        # The trace of the residual network has a closed form if c_in and c_out are the same for all features.
        sd = variance.mean(-1, keepdim=True).sqrt()
        if self.target in ("denoiser", "score"):
            # eta = -gamma s vanishes with gamma, so that the score is never a quotient of two small numbers.
            factor = path.gamma(t) if self.target == "denoiser" else -torch.ones_like(t)
            return factor / variance, factor / torch.sqrt(path.gamma(t) ** 2 + _NOISE_FLOOR**2), sd
        rate = path.covariance_dot(t, self.v0, self.v1, self.c)
        if self.target == "drift":
            rate = rate - path.gamma_gamma_dot(t)
        return rate / variance, self.output_scale(t), sd

    def output_scale(self, t: Tensor) -> Tensor:
        """The factor c_out of a velocity, of the shape of t."""
        return self.interpolant.residual_scale(t, self.v0.mean(), self.v1.mean())

    def closed_log_density(self, x: Tensor) -> Tensor:
        """The log-density at t = 1 of a velocity with F = 0, if the path is linear in space."""
        return -0.5 * (x.square() / self.v1 + (2 * math.pi * self.v1).log()).sum(1)

    def preconditioning(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The field between Gaussian ends, c_out, and x in units of its standard deviation."""
        return self.preconditioning_at(self.coefficients(t), x)

    def time_coefficients(self, times: Tensor) -> tuple[Tensor, ...]:
        """The coefficients c_skip, c_out and 1 / c_in."""
        return self.coefficients(times)

    def preconditioning_at(self, coefficients: tuple[Tensor, ...], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same as `preconditioning`, from the coefficients."""
        c_skip, c_out, sd = coefficients
        return c_skip * x, c_out, x / sd

    def velocity_and_divergence(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The field f(t, x) and its exact divergence, of shapes (n, d) and (n,)."""
        c_skip, c_out, sd = self.coefficients(t)
        value, trace = self.network.value_and_trace(t, x / sd, condition)
        divergence = c_skip.expand(*c_skip.shape[:-1], x.shape[1]).sum(-1) + (c_out / sd).squeeze(-1) * trace
        return torch.addcmul(c_skip * x, c_out, value), divergence

    def as_score(self) -> "PreconditionedField":
        """The score -eta / gamma of a denoiser field: the same weights with another factor, without a division."""
        return PreconditionedField(self.interpolant, self.network, "score", self.v0, self.v1, self.c)


@registered("networks.MixtureVelocity")
class MixtureVelocity(ResidualField):
    """A network around the exact velocity of a Gaussian mixture, from a standard normal base.

    b(t, x) = sum_k w_k(t, x) [beta_dot mu_k + H_k C_k^-1 (x - beta mu_k)] + c_out(t) F(t, c_in(t) x)

    (arXiv 2303.08797, appendix A) with C_k = alpha^2 I + beta^2 S_k, H_k half its time derivative, w_k the posterior
    weights of the components and c_in = 1 / sd(x_t). With F = 0 the model is the mixture itself.

    Parameters
    ----------
    interpolant : Interpolant
        A one-sided path (of a standard normal base).
    network : FiLMNetwork
        The network F.
    weights : Tensor of shape (n_components,)
        Weights of the components, with sum 1.
    means : Tensor of shape (n_components, n_features)
        Means mu_k, in scaled units.
    covariances : Tensor of shape (n_components, n_features, n_features)
        Covariances S_k, in squared scaled units.
    """

    log_weights: Tensor
    axes: Tensor
    centres: Tensor
    variances: Tensor
    v1: Tensor

    def __init__(
        self, interpolant: Interpolant, network: FiLMNetwork, weights: Tensor, means: Tensor, covariances: Tensor
    ) -> None:
        super().__init__()
        self.interpolant, self.network = interpolant, network
        # In double precision, because small variances may come out negative in single precision.
        variances, axes = (part.to(means.dtype) for part in torch.linalg.eigh(covariances.double()))
        variances = variances.clamp(min=_LEAST_VARIANCE)
        self.register_buffer("log_weights", weights.log())
        # coordinates along the axes of each component, side by side: (n_features, n_components * n_features)
        self.register_buffer("axes", axes.permute(1, 0, 2).flatten(1))
        self.register_buffer("centres", torch.einsum("kij,ki->kj", axes, means))
        self.register_buffer("variances", variances)
        mean = weights @ means
        total = torch.einsum("k,kj->j", weights, covariances.diagonal(dim1=1, dim2=2) + (means - mean) ** 2)
        self.register_buffer("v1", total.mean())

    def closed_log_density(self, x: Tensor) -> Tensor:
        """The log-density of the mixture, to which F = 0 leads at t = 1."""
        y = (x @ self.axes).unflatten(1, self.centres.shape) - self.centres
        logs = y.square() / self.variances + (2 * math.pi * self.variances).log()
        return torch.logsumexp(self.log_weights - 0.5 * logs.sum(2), 1)

    def output_scale(self, t: Tensor) -> Tensor:
        """The factor c_out, of the shape of t."""
        return self.interpolant.residual_scale(t, torch.ones_like(self.v1), self.v1)

    def time_coefficients(self, times: Tensor) -> tuple[Tensor, ...]:
        """The factors c_out and 1 / c_in; the variance, slope, centre, its rate and log-weight of each component."""
        t, path, one = times[..., None, None], self.interpolant, torch.ones_like(self.variances)
        variance = path.variance(t, one, self.variances)
        slope = path.covariance_dot(t, one, self.variances) / variance
        mass = self.log_weights - 0.5 * variance.log().sum(-1)
        sd = path.variance(times, torch.ones_like(self.v1), self.v1).sqrt()
        scales = self.output_scale(times)[..., None], sd[..., None]
        return *scales, variance, slope, path.beta(t) * self.centres, path.beta_dot(t) * self.centres, mass

    def _components(self, coefficients: tuple[Tensor, ...], x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Posterior weights (n, k), and along the axes: velocities and scores (n, k, d), and slopes H / C."""
        _, _, variance, slope, centre, rate, mass = coefficients
        y = (x @ self.axes).unflatten(1, self.centres.shape) - centre
        score = -y / variance
        w = torch.softmax(mass + 0.5 * (y * score).sum(-1), 1)
        return w, torch.addcmul(rate, slope, y), score, slope

    def _mean(self, w: Tensor, values: Tensor) -> Tensor:
        return (w[..., None] * values).flatten(1) @ self.axes.T

    def preconditioning(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The velocity of the mixture, c_out, and x in units of its standard deviation."""
        return self.preconditioning_at(self.time_coefficients(t), x)

    def preconditioning_at(self, coefficients: tuple[Tensor, ...], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same as `preconditioning`, from the time coefficients."""
        w, velocity, _, _ = self._components(coefficients, x)
        c_out, sd = coefficients[:2]
        return self._mean(w, velocity), c_out, x / sd

    def velocity_and_divergence(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The velocity b(t, x) and its exact divergence, of shapes (n, d) and (n,)."""
        coefficients = self.time_coefficients(t)
        c_out, sd = coefficients[:2]
        w, velocity, score, slope = self._components(coefficients, x)
        b = self._mean(w, velocity)
        divergence = (w * (slope + velocity * score).sum(-1)).sum(1) - (b * self._mean(w, score)).sum(1)
        value, trace = self.network.value_and_trace(t, x / sd, condition)
        return b + c_out * value, divergence + (c_out / sd).squeeze(-1) * trace


@registered("networks.ComposedVelocity")
class ComposedVelocity(Field):
    """The velocity from a learned score, with or without a learned drift.

    b = v - gamma gamma_dot s    (arXiv 2303.08797, equation (2.10))

    The product gamma gamma_dot is finite at t = 0 and 1, so that there is no division by 0. Without a drift v it is the
    velocity of the mirror interpolant, b = -gamma gamma_dot s.

    Parameters
    ----------
    interpolant : Interpolant
        The path.
    score : Module
        The score s.
    drift : Module or None
        The drift v = E[dI/dt | x_t].
    """

    def __init__(self, interpolant: Interpolant, score: nn.Module, drift: nn.Module | None = None) -> None:
        super().__init__()
        self.interpolant, self.score, self.drift = interpolant, score, drift

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """The velocity b(t, x), of shape (n, d)."""
        b = -column(self.interpolant.gamma_gamma_dot(t), x) * self.score(t, x, condition)
        return b if self.drift is None else b + self.drift(t, x, condition)

    def velocity_and_divergence(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The velocity b(t, x) and its exact divergence, of shapes (n, d) and (n,)."""
        factor = -self.interpolant.gamma_gamma_dot(t)
        s, trace = velocity_and_divergence(self.score, t, x, condition)
        b, divergence = column(factor, x) * s, factor * trace
        if self.drift is None:
            return b, divergence
        v, rest = velocity_and_divergence(self.drift, t, x, condition)
        return b + v, divergence + rest

    def instants(self, times: Tensor, condition: Tensor | None = None) -> list | None:
        """The field at each of the times as a function of x alone."""
        factors = -self.interpolant.gamma_gamma_dot(times)
        scores = as_field(self.score).instants(times, condition)
        drifts = None if self.drift is None else as_field(self.drift).instants(times, condition)
        if scores is None or (drifts is None and self.drift is not None):
            return None

        def at(factor: Tensor, score: Callable[[Tensor], Tensor], drift: Callable | None, x: Tensor) -> Tensor:
            return factor * score(x) if drift is None else factor * score(x) + drift(x)

        known: Sequence[Callable[[Tensor], Tensor] | None] = drifts or [None] * len(scores)
        both = zip(factors, scores, known, strict=True)
        return [functools.partial(at, *parts) for parts in both]


@registered("networks.DenoiserOfScore")
class DenoiserOfScore(Field):
    """The denoiser of a learned score: eta = -gamma s (arXiv 2303.08797, equation (2.17)).

    Parameters
    ----------
    interpolant : Interpolant
        The path.
    score : Module
        The score s.
    """

    def __init__(self, interpolant: Interpolant, score: nn.Module) -> None:
        super().__init__()
        self.interpolant, self.score = interpolant, score

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """The denoiser eta(t, x), of shape (n, d)."""
        return -column(self.interpolant.gamma(t), x) * self.score(t, x, condition)

    def as_score(self) -> nn.Module:
        """The score itself."""
        return self.score


@registered("networks.NormalTransition")
class NormalTransition(nn.Module):
    """The linear Gaussian distribution of a row given the one before it: x1 | x0 ~ N(c + A x0, S).

    Parameters
    ----------
    constant : Tensor of shape (d,)
        c, in scaled units.
    matrix : Tensor of shape (d, d)
        A.
    covariance : Tensor of shape (d, d)
        S, positive definite.
    """

    constant: Tensor
    matrix: Tensor
    axes: Tensor
    variances: Tensor

    def __init__(self, constant: Tensor, matrix: Tensor, covariance: Tensor) -> None:
        super().__init__()
        variances, axes = torch.linalg.eigh(covariance)
        self.register_buffer("constant", constant)
        self.register_buffer("matrix", matrix)
        self.register_buffer("axes", axes)
        self.register_buffer("variances", variances)

    def drift(self, t: Tensor, x: Tensor, x0: Tensor, a: float) -> Tensor:
        """The exact drift of the process from x0 that ends in this distribution.

        u = m - x0 + (S - 2a) [t S + 2a (1 - t)]^-1 (x - (1 - t) x0 - t m),    m = c + A x0
        """
        t = column(t, x)
        mean = self.constant + x0 @ self.matrix.T
        rest = (x - x0 - t * (mean - x0)) @ self.axes
        slope = (self.variances - 2 * a) / (t * self.variances + 2 * a * (1 - t))
        return mean - x0 + (slope * rest) @ self.axes.T


@registered("networks.ForecastField")
class ForecastField(ResidualField):
    """The drift u = b + a s of a process that starts from a given row (arXiv 2303.08797, section 3.1).

    u(t, x | x0) = g(t, x | x0) + c_out(t) F(t, x, x0),    c_out^2 = 1 + 2 a t / (1 - t + floor)

    The factor c_out is the size of the regression target d_t I - sqrt(2 a t / (1 - t)) z. The floor bounds it at t = 1,
    where u is bounded as well. With F = 0 the process draws from the linear Gaussian model of its transition.

    Parameters
    ----------
    network : FiLMNetwork
        The network F, with x0 as its condition.
    a : float
        The noise level, in scaled units.
    transition : NormalTransition or None, default=None
        What g belongs to; None is g = 0.
    """

    def __init__(self, network: FiLMNetwork, a: float, transition: NormalTransition | None = None) -> None:
        super().__init__()
        self.network, self.a, self.transition = network, a, transition

    def output_scale(self, t: Tensor) -> Tensor:
        """The factor c_out, of the shape of t."""
        return torch.sqrt(1 + 2 * self.a * t / (1 - t + _NOISE_FLOOR**2))

    def closed(self, t: Tensor, x: Tensor, x0: Tensor) -> Tensor:
        """The drift g of the linear Gaussian model."""
        return torch.zeros_like(x) if self.transition is None else self.transition.drift(t, x, x0, self.a)

    def preconditioning(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Zeros, since the closed form needs the start row as well, c_out, and x itself."""
        # the condition is the start row at t = 0: the network sees how far x has come from it
        return torch.zeros_like(x), column(self.output_scale(t), x), x

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """The drift u(t, x | x0), of shape (n, d)."""
        assert condition is not None  # the start row
        return self.closed(t, x, condition) + super().forward(t, x, condition)

    def instants(self, times: Tensor, condition: Tensor | None = None) -> None:
        """The start row is needed beside the times."""


class GuidedField(Field):
    """Classifier-free guidance: w f(t, x | condition) + (1 - w) f(t, x | no condition).

    (Ho & Salimans 2022, arXiv 2207.12598). The fields b, eta and s are affine in each other at fixed (t, x), so that
    all of them may be guided in the same way. "No condition" is a row of zeros with a one in its last column.

    Parameters
    ----------
    field : Module
        A field that was trained with some conditions dropped.
    weight : float
        The weight w; 1 is the conditional field itself.
    """

    def __init__(self, field: nn.Module, weight: float) -> None:
        super().__init__()
        self.field, self.weight = field, weight

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """The guided field, of shape (n, d)."""
        assert condition is not None  # there is nothing to guide without one
        plain = self.field(t, x, drop_condition(condition))
        return plain + self.weight * (self.field(t, x, condition) - plain)

    def velocity_and_divergence(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The guided field and its exact divergence, of shapes (n, d) and (n,)."""
        assert condition is not None
        w, dropped, field = self.weight, drop_condition(condition), as_field(self.field)
        (f, divergence), (plain, rest) = (field.velocity_and_divergence(t, x, c) for c in (condition, dropped))
        return w * f + (1 - w) * plain, w * divergence + (1 - w) * rest


def drop_condition(condition: Tensor) -> Tensor:
    """Rows that mean "no condition": zeros, and a one in the last column."""
    dropped = torch.zeros_like(condition)
    dropped[:, -1] = 1.0
    return dropped
