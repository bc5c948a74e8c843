"""Interpolants that are learned together with the fields: general paths, or schedules alone."""

import itertools
import math

import torch
from torch import Tensor, nn

from .._utils.names import registered
from .._utils.tensors import FIT_STREAM, column, make_generator
from ._base import Interpolant
from ._gammas import Gamma

# Learning rate of a learned path.
_RATE = 5e-3
# Learning rate of learned schedules.
_SCHEDULE_RATE = 2e-2
# Fourier modes of a learned schedule.
_MODES = 7
# Units of a hidden layer of a learned path.
_UNITS = 64


@registered("interpolants.LearnedInterpolant")
class LearnedInterpolant(Interpolant):
    """A path that is learned by a network N: I = (1 - t) x0 + t x1 + t (1 - t) N(t, x0, x1).

    max over I min over v of  E[|v(t, x_t)|^2 / 2 - dI/dt . v(t, x_t)]

    (arXiv 2209.15571, equation (23)). The value is minus half the action of the path, so that the best path is that of
    optimal transport. With the brownian gamma and u = b + epsilon s, where epsilon = gamma_scale / 2, it is that of the
    Schroedinger bridge (arXiv 2303.08797, equation (3.39)). The fields are fitted to the path that results, so an
    imperfect path does not bias the model.

    Parameters
    ----------
    gamma, gamma_scale
        As in `Interpolant`.
    """

    def __init__(self, gamma: Gamma | str | None = None, gamma_scale: float = 1.0) -> None:
        super().__init__(gamma, gamma_scale)
        self.network: _PathNetwork | None = None

    def build(self, n_features: int, seed: int, device: torch.device) -> None:
        """Draw fresh weights, with which the path is straight."""
        generator = make_generator(seed, FIT_STREAM + 800)
        self.network = _PathNetwork(n_features, generator).to(device)

    def parameters(self) -> list:
        """The weights that are learned."""
        assert self.network is not None  # `build` comes first
        return list(self.network.parameters())

    is_learned = True
    rate = _RATE

    def mean(self, t: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """I(t, x0, x1)."""
        t = column(t, x0)
        straight = (1 - t) * x0 + t * x1
        if self.network is None:
            return straight
        return straight + t * (1 - t) * self.network(t, x0, x1)

    def mean_dot(self, t: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """dI/dt, in closed form: what torch needs for a derivative of its own takes seconds to load."""
        straight = (x1 - x0).expand(torch.broadcast_shapes(x0.shape, x1.shape))
        if self.network is None:
            return straight
        t = column(t, x0)
        value, slope = self.network.with_slope(t, x0, x1)
        return straight + (1 - 2 * t) * value + t * (1 - t) * slope


@registered("interpolants.PathNetwork")
class _PathNetwork(nn.Module):
    """A smooth function of (t, x0, x1), zero at the start."""

    def __init__(self, n_features: int, generator: torch.Generator) -> None:
        super().__init__()
        sizes = (2 * n_features + 1, _UNITS, _UNITS, n_features)
        # skip_init: initial weights would be drawn from the global generator
        layers = [nn.utils.skip_init(nn.Linear, n, m) for n, m in itertools.pairwise(sizes)]
        self.layers = nn.ModuleList(layers)
        for layer in layers:
            bound = math.sqrt(3 / layer.in_features)
            layer.weight.data.uniform_(-bound, bound, generator=generator)
            layer.bias.data.zero_()
        layers[-1].weight.data.zero_()

    def forward(self, t: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """N(t, x0, x1), of shape (n, d)."""
        h = torch.cat([t.expand(len(x0), 1), x0, x1], 1)
        for k, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Linear)
            h = h if k == 0 else nn.functional.silu(h)
            # The path is evaluated in single and in double precision: the weights follow the rows.
            h = nn.functional.linear(h, layer.weight.to(h), layer.bias.to(h))
        return h

    def with_slope(self, t: Tensor, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
        """N(t, x0, x1) and its derivative by t, both of shape (n, d)."""
        h = torch.cat([t.expand(len(x0), 1), x0, x1], 1)
        slope = torch.zeros_like(h)
        slope[:, 0] = 1.0
        for k, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Linear)
            if k > 0:
                gate = torch.sigmoid(h)
                h, slope = h * gate, slope * gate * (1 + h * (1 - gate))
            weight = layer.weight.to(h)
            h, slope = nn.functional.linear(h, weight, layer.bias.to(h)), slope @ weight.T
        return h, slope


@registered("interpolants.LearnedSchedule")
class LearnedSchedule(Interpolant):
    """A path that is linear in space and whose schedules alpha and beta are learned.

    alpha = cos(pi t / 2) + sum_m a_m sin(m pi t) / (m pi),    beta = sin(pi t / 2) + sum_m b_m sin(m pi t) / (m pi)

    (arXiv 2209.15571, appendix H). It has 14 weights where `LearnedInterpolant` has a network, and it learns by the
    same objective.

    Parameters
    ----------
    gamma, gamma_scale
        As in `Interpolant`.
    """

    is_learned = True
    rate = _SCHEDULE_RATE

    def __init__(self, gamma: Gamma | str | None = None, gamma_scale: float = 1.0) -> None:
        super().__init__(gamma, gamma_scale)
        self.coefficients = torch.zeros(2, _MODES)

    def build(self, n_features: int, seed: int, device: torch.device) -> None:
        """Start from trigonometric schedules."""
        self.coefficients = torch.zeros(2, _MODES, device=device)

    def parameters(self) -> list:
        """The weights that are learned."""
        return [self.coefficients]

    def _series(self, row: int, t: Tensor, derivative: bool) -> Tensor:
        m = math.pi * torch.arange(1, _MODES + 1, dtype=t.dtype, device=t.device)
        waves = m * torch.cos(m * t[..., None]) if derivative else torch.sin(m * t[..., None])
        return (waves * self.coefficients[row].to(t) / m).sum(-1)

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of x0."""
        return torch.sin(math.pi / 2 * (1 - t)) + self._series(0, t, derivative=False)

    def beta(self, t: Tensor) -> Tensor:
        """Weight of x1."""
        return torch.sin(math.pi / 2 * t) + self._series(1, t, derivative=False)

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Time derivative of alpha."""
        return -math.pi / 2 * torch.sin(math.pi / 2 * t) + self._series(0, t, derivative=True)

    def beta_dot(self, t: Tensor) -> Tensor:
        """Time derivative of beta."""
        return math.pi / 2 * torch.sin(math.pi / 2 * (1 - t)) + self._series(1, t, derivative=True)
