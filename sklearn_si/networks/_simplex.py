"""The velocity between many samples: one network for the means of all of them, read along any path of weights."""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.interpolate import CubicSpline
from torch import Tensor, nn

from .._utils.names import registered
from ._divergence import Field, jacobian_trace
from ._perceptrons import ACTIVATIONS, N_TIME_FEATURES, FiLMNetwork, Modulation

# Width of the features by which the network tells whether a sample is absent or alone, in weights.
_NEAR = 0.2
# Features of each weight.
_FEATURES = 3
# Share of the variance of a sample that is added to the part of it which x does not explain: rows on a curve need a
# scale where a straight line explains nearly all.
_FLOOR = 0.01
# Smallest variance of a column, in squared scaled units.
_LEAST_VARIANCE = 1e-6


def weight_features(alpha: Tensor) -> Tensor:
    """Smooth functions of the weights that change fastest where a sample is absent or alone, and a constant."""
    parts = [alpha, torch.exp(-((alpha / _NEAR) ** 2)), torch.exp(-(((alpha - 1) / _NEAR) ** 2))]
    return torch.cat([*parts, torch.ones_like(alpha[..., :1])], -1)


class WeightPath(nn.Module):
    """A path of weights alpha(s) with sum 1, for s from 0 to 1."""

    def weights(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """The weights alpha(s) and their derivatives, of shape (..., m) for s of shape (...,)."""
        raise NotImplementedError


class Chord(WeightPath):
    """The straight path between two sets of weights.

    Parameters
    ----------
    start, stop : array-like of shape (m,)
        The weights at s = 0 and at s = 1.
    """

    start: Tensor
    stop: Tensor

    def __init__(self, start: ArrayLike, stop: ArrayLike) -> None:
        super().__init__()
        self.register_buffer("start", torch.as_tensor(np.asarray(start, dtype=np.float64)))
        self.register_buffer("stop", torch.as_tensor(np.asarray(stop, dtype=np.float64)))

    def weights(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """The weights (1 - s) start + s stop."""
        rate = (self.stop - self.start).to(s)
        return self.start.to(s) + s[..., None] * rate, rate.expand(*s.shape, len(rate))


class SplinePath(WeightPath):
    """The weights of the natural cubic spline through snapshots, x(t) = sum_k alpha_k(t) x_k, between two times.

    Parameters
    ----------
    times : array-like of shape (m,)
        Times of the snapshots, increasing.
    start, stop : float
        The times at s = 0 and at s = 1.
    """

    knots: Tensor
    coefficients: Tensor
    ends: Tensor

    def __init__(self, times: ArrayLike, start: float, stop: float) -> None:
        super().__init__()
        times = np.asarray(times, dtype=np.float64)
        span = times[-1] - times[0]
        knots = (times - times[0]) / span
        self.register_buffer("knots", torch.as_tensor(knots))
        self.register_buffer("coefficients", torch.as_tensor(cardinal_splines(knots)))
        ends = (np.array([start, stop], dtype=np.float64) - times[0]) / span
        self.register_buffer("ends", torch.as_tensor(ends))

    def weights(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """The cardinal splines of the snapshots, and their derivatives by s."""
        start, stop = self.ends.to(s)
        t, knots = start + s * (stop - start), self.knots.to(s)
        piece = (torch.searchsorted(knots, t.contiguous(), right=True) - 1).clamp(0, len(knots) - 2)
        u = (t - knots[piece])[..., None]
        a, b, c, d = self.coefficients.to(s)[:, piece]
        return ((a * u + b) * u + c) * u + d, ((3 * a * u + 2 * b) * u + c) * (stop - start)


def cardinal_splines(knots: np.ndarray) -> np.ndarray:
    """Coefficients of the natural cubic splines that are 1 at one knot and 0 at the others, of shape (4, m - 1, m)."""
    m = len(knots)
    if m == 2:
        slope = np.array([-1.0, 1.0]) / (knots[1] - knots[0])
        return np.stack([np.zeros(2), np.zeros(2), slope, np.array([1.0, 0.0])])[:, None]
    return CubicSpline(knots, np.eye(m), bc_type="natural").c


@registered("networks.SimplexNetwork")
class SimplexNetwork(FiLMNetwork):
    """A perceptron of x with a head for each of m samples, whose layers are scaled and shifted by the weights alpha.

    F(alpha, e, x) = sum_k e_k F_k(alpha, x)

    The heads are read along a direction e of shape (m,), so that a loss learns what the directions in use need. The
    condition of a row is alpha and e, side by side.

    Parameters
    ----------
    n_features, n_samples : int
        d and m.
    hidden_layer_sizes, activation, generator
        As in `FiLMNetwork`.
    n_conditions : int, default=0
        Number of columns of a condition, which stand beside the direction.
    """

    def __init__(
        self,
        n_features: int,
        n_samples: int,
        hidden_layer_sizes: Sequence[int],
        activation: str,
        generator: torch.Generator | None = None,
        n_conditions: int = 0,
    ) -> None:
        # the features of the weights stand where other networks have those of time
        n_told = _FEATURES * n_samples - N_TIME_FEATURES + n_conditions
        heads = n_features * n_samples
        super().__init__(heads, n_told, hidden_layer_sizes, activation, generator, n_inputs=n_features)
        self.n_features, self.n_samples = n_features, n_samples

    @property
    def n_conditions(self) -> int:
        """Number of columns of a condition."""
        return self.modulation.shape[1] - _FEATURES * self.n_samples - 1

    def _told(self, alpha: Tensor, condition: Tensor | None = None) -> Tensor:
        """The features of the weights, and the condition (zeros for none) before the constant."""
        features = weight_features(alpha)
        if not self.n_conditions:
            return features
        none = torch.zeros_like(features[..., :1]).expand(*features.shape[:-1], self.n_conditions)
        return torch.cat([features[..., :-1], none if condition is None else condition, features[..., -1:]], -1)

    def prepare(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor | None, Tensor]:
        """The features of the weights, and x with the direction beside it."""
        assert condition is not None  # it holds the weights
        alpha, direction, own = condition.split([self.n_samples, self.n_samples, self.n_conditions], -1)
        return self._told(alpha, own), torch.cat([x, direction], 1)

    def _read(self, heads: Tensor, direction: Tensor) -> Tensor:
        return (heads.unflatten(1, (self.n_samples, -1)) * direction[..., None]).sum(1)

    def modulated(self, modulation: Modulation, h: Tensor) -> Tensor:
        """The sum of the heads along the directions that stand beside x."""
        x, direction = h.split([self.n_features, self.n_samples], 1)
        return self._read(super().modulated(modulation, x), direction)

    @torch.no_grad()
    def forward_with_cache(
        self, features: Tensor | None, inputs: Tensor, rows_per_time: int = 1
    ) -> tuple[Tensor, list]:
        """As in `Perceptron`."""
        x, direction = inputs.split([self.n_features, self.n_samples], 1)
        heads, cache = super().forward_with_cache(features, x.contiguous(), rows_per_time)
        return self._read(heads, direction), [*cache, direction]

    @torch.no_grad()
    def backward(self, cache: list, features: Tensor | None, gradient: Tensor, rows_per_time: int = 1) -> None:
        """As in `Perceptron`."""
        *cache, direction = cache
        of_heads = (direction[..., None] * gradient[:, None]).flatten(1)
        super().backward(cache, features, of_heads, rows_per_time)

    def at(self, alpha: Tensor) -> Modulation:
        """Scales and shifts of the layers at weights of shape (..., m)."""
        return self.modulate(self._told(alpha), alpha.dtype)

    def modulation_by(self, condition: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What rows of a condition add to the scales and shifts of each layer."""
        own = self.modulation[:, _FEATURES * self.n_samples : -1].to(condition.dtype)
        parts = (condition @ own.T).split(self.sides, -1)
        return list(zip(parts[::2], parts[1::2], strict=True))

    def given(self, modulation: Modulation, condition: Tensor | None) -> Modulation:
        """Scales and shifts at one set of weights, to which those of each row's condition are added."""
        if condition is None:
            return modulation
        layers = zip(modulation, self.modulation_by(condition), strict=True)
        return [(s + own_s, c + own_c) for (s, c), (own_s, own_c) in layers if s is not None]

    def readout(self, direction: Tensor) -> tuple[Tensor, Tensor]:
        """The matrix and the bias of the output along one direction."""
        matrix = torch.einsum("k,kdw->dw", direction, self.output.unflatten(0, (self.n_samples, -1)))
        return matrix, direction @ self.bias.unflatten(0, (self.n_samples, -1))

    def along(self, modulation: Modulation, readout: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        """F at one set of weights, along one direction."""
        act, h = ACTIVATIONS[self.activation][0], x
        for w, (s, c) in zip(self._matrices, modulation, strict=True):
            assert s is not None
            h = act(torch.addcmul(c, h @ w.T, s))
        return torch.addmm(readout[1], h, readout[0].T)

    def along_with_trace(
        self, modulation: Modulation, readout: tuple[Tensor, Tensor], x: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The same, and the exact trace of dF/dx."""
        act, h, slopes = ACTIVATIONS[self.activation][1], x, []
        for w, (s, c) in zip(self._matrices, modulation, strict=True):
            assert s is not None
            h, slope = act(torch.addcmul(c, h @ w.T, s))
            slopes.append(slope * s)
        matrix, bias = readout
        return torch.addmm(bias, h, matrix.T), jacobian_trace(self._matrices, matrix, slopes)


@registered("networks.SimplexVelocity")
class SimplexVelocity(nn.Module):
    """The velocities of x(alpha) = sum_k alpha_k x_k in all directions, around those of a normal distribution.

    b(alpha, c, x) = sum_k c_k g_k(alpha, x),    g_k = E[x_k | x(alpha) = x]

    (arXiv 2310.03695, equation (6)) for directions c with sum 0. In each column the closed form is that of jointly
    normal samples, g_k = m_k + (C alpha)_k / (alpha . C alpha) (x - m(alpha)). A network adds r_k F_k to it, where r_k
    is the standard deviation of x_k given x(alpha) under the same distribution, and keeps sum_k alpha_k g_k = x.

    Parameters
    ----------
    network : SimplexNetwork
    means : Tensor of shape (m, d)
        Means of the samples, in scaled units.
    covariances : Tensor of shape (d, m, m)
        Covariance of the samples in each column, under the coupling of training.
    """

    means: Tensor
    covariances: Tensor

    def __init__(self, network: SimplexNetwork, means: Tensor, covariances: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("means", means)
        least = torch.full_like(covariances[0, 0], _LEAST_VARIANCE)
        self.register_buffer("covariances", covariances + torch.diag(least))

    def coefficients(self, alpha: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        """What depends on weights and direction alone.

        Returns
        -------
        mean, rate, slope : Tensor of shape (..., d)
            The closed form is rate + slope (x - mean).
        sd : Tensor of shape (..., 1)
            Of x(alpha).
        direction : Tensor of shape (..., m)
            What the heads are multiplied by.
        size : Tensor of shape (..., 1)
            The standard deviation of what the closed form leaves, by which a loss divides.
        """
        ca = torch.einsum("dkl,...l->...dk", self.covariances, alpha)
        variance = (ca * alpha[..., None, :]).sum(-1).clamp(min=_LEAST_VARIANCE)
        slope = (ca * c[..., None, :]).sum(-1) / variance
        own = self.covariances.diagonal(dim1=1, dim2=2)
        left = (own - ca.square() / variance[..., None]).clamp(min=0).mean(-2)
        floor = _FLOOR * own.mean(0)
        r = (left + floor).sqrt()
        explained = slope.square() * variance
        total = torch.einsum("...k,dkl,...l->...d", c, self.covariances, c)
        size = ((total - explained).clamp(min=0).mean(-1) + (floor * c.square()).sum(-1)).sqrt()
        along, ours = r * c, r * alpha
        shift = (along * ours).sum(-1, keepdim=True) / ours.square().sum(-1, keepdim=True)
        sd = variance.mean(-1, keepdim=True).sqrt()
        return alpha @ self.means, c @ self.means, slope, sd, along - shift * ours, size[..., None]


class PathVelocity(Field):
    """The velocity along one path of weights: b(s, x) = sum_k alpha_k'(s) g_k(alpha(s), x).

    Parameters
    ----------
    of : SimplexVelocity
    path : WeightPath
    """

    def __init__(self, of: SimplexVelocity, path: WeightPath) -> None:
        super().__init__()
        self.of, self.path = of, path

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """The velocity, of shape (n, d); rows of one time stand together."""
        return _by_time(t, x, condition, lambda s, rows, own: self.instants(s[None], own)[0](rows))

    def velocity_and_divergence(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The velocity and its exact divergence."""
        both = _by_time(t, x, condition, lambda s, rows, own: torch.cat([*self._with_divergence(s, rows, own)], 1))
        return both[:, :-1], both[:, -1]

    def _with_divergence(self, s: Tensor, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        network, (alpha, c) = self.of.network, self.path.weights(s)
        mean, rate, slope, sd, direction, _ = self.of.coefficients(alpha, c)
        at, readout = network.given(network.at(alpha), condition), network.readout(direction)
        value, trace = network.along_with_trace(at, readout, (x - mean) / sd)
        return torch.addcmul(rate + value, slope, x - mean), (slope.sum() + trace / sd)[:, None]

    def instants(self, times: Tensor, condition: Tensor | None = None) -> list[Callable[[Tensor], Tensor]]:
        """The velocity at each of the times, as a function of x alone."""
        network, (alpha, c) = self.of.network, self.path.weights(times)
        *closed, direction, _ = self.of.coefficients(alpha, c)

        def at(closed: list[Tensor], modulation: Modulation, readout: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
            mean, rate, slope, sd = closed
            centred = x - mean
            own = network.given(modulation, condition)
            return torch.addcmul(rate + network.along(own, readout, centred / sd), slope, centred)

        known = zip(zip(*closed, strict=True), alpha, direction, strict=True)
        return [functools.partial(at, list(own), network.at(a), network.readout(e)) for own, a, e in known]


def _by_time(
    t: Tensor, x: Tensor, condition: Tensor | None, function: Callable[[Tensor, Tensor, Tensor | None], Tensor]
) -> Tensor:
    """A function of one time and rows with their conditions, for times of shape () or (n,)."""
    if t.ndim == 0:
        return function(t, x, condition)
    times, counts = torch.unique_consecutive(t, return_counts=True)
    sizes = counts.tolist()
    conditions = [None] * len(sizes) if condition is None else condition.split(sizes)
    pieces = zip(times, x.split(sizes), conditions, strict=True)
    return torch.cat([function(s, rows, own) for s, rows, own in pieces])
