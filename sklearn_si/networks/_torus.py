"""The velocity on a product of circles and lines: a network of periodic features, with an exact divergence."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .._utils.names import registered
from ..interpolants import Interpolant
from ._fields import PreconditionedField
from ._perceptrons import FiLMNetwork

# Harmonics of each circular column that the network is given.
N_HARMONICS = 3


@registered("networks.TorusVelocity")
class TorusVelocity(PreconditionedField):
    """A network of periodic features of the circular columns, around a closed form of the others.

    b(t, x) = c_skip(t) * x + c_out(t) F(t, u),    u = (c_in x_j of lines; sin k x_j, cos k x_j of circles, k = 1, 2, 3)

    with c_skip = 0 on circles. The field is periodic, so that a density has no jump at the seam.

    Parameters
    ----------
    interpolant : TorusPath
    network : FiLMNetwork
        The network F, with as many inputs as there are features u.
    v1 : Tensor of shape (n_features,)
        Variances of the target; those of circular columns do not count.
    circular : sequence of int
        Positions of the circular columns.
    """

    straight: Tensor

    def __init__(self, interpolant: Interpolant, network: FiLMNetwork, v1: Tensor, circular: Sequence[int]) -> None:
        circles = list(circular)
        v1, straight = v1.clone(), torch.ones_like(v1)
        v1[circles], straight[circles] = 1.0, 0.0
        super().__init__(interpolant, network, "velocity", torch.ones_like(v1), v1)
        self.register_buffer("straight", straight)
        self.circles = circles
        self.lines = [j for j in range(len(v1)) if j not in circles]

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The coefficients c_skip, which is 0 on circles, c_out and 1 / c_in."""
        c_skip, c_out, sd = super().coefficients(t)
        return c_skip * self.straight, c_out, sd

    def preconditioning_at(self, coefficients: tuple[Tensor, ...], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The closed form, c_out, and the features u."""
        c_skip, c_out, sd = coefficients
        angles = [k * x[:, self.circles] for k in range(1, N_HARMONICS + 1)]
        features = [x[:, self.lines] / sd, *(f(angle) for angle in angles for f in (torch.sin, torch.cos))]
        return c_skip * x, c_out, torch.cat(features, 1)

    def velocity_and_divergence(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The field b(t, x) and its exact divergence, of shapes (n, d) and (n,)."""
        coefficients = c_skip, c_out, sd = self.coefficients(t)
        closed, _, u = self.preconditioning_at(coefficients, x)
        value, trace = self.network.value_and_divergence(t, u, condition, self._feature_slopes(x, sd))
        divergence = c_skip.expand(*c_skip.shape[:-1], x.shape[1]).sum(-1)
        return torch.addcmul(closed, c_out, value), divergence + c_out.squeeze(-1) * trace

    def _feature_slopes(self, x: Tensor, sd: Tensor) -> Tensor:
        """The derivative of each feature by each column, of shape (n, d, n_features)."""
        n_lines, n_circles = len(self.lines), len(self.circles)
        slopes = x.new_zeros((len(x), x.shape[1], n_lines + 2 * N_HARMONICS * n_circles))
        slopes[:, self.lines, range(n_lines)] = 1 / sd
        for k in range(1, N_HARMONICS + 1):
            angle, first = k * x[:, self.circles], n_lines + 2 * (k - 1) * n_circles
            slopes[:, self.circles, range(first, first + n_circles)] = k * torch.cos(angle)
            slopes[:, self.circles, range(first + n_circles, first + 2 * n_circles)] = -k * torch.sin(angle)
        return slopes


def torus_velocity(
    path: Interpolant,
    v1: Tensor,
    n_conditions: int,
    widths: Sequence[int],
    activation: str,
    generator: torch.Generator | None = None,
) -> TorusVelocity:
    """A velocity on the circles of a path, with a new network.

    Parameters
    ----------
    path : TorusPath
    v1 : Tensor of shape (n_features,)
        Variances of the target.
    n_conditions, widths, activation, generator
        As in `FiLMNetwork`.
    """
    n_inputs = len(v1) + (2 * N_HARMONICS - 1) * len(path.circular)
    network = FiLMNetwork(len(v1), n_conditions, widths, activation, generator, n_inputs)
    return TorusVelocity(path, network, v1, path.circular)
