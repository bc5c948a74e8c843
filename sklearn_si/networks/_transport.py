"""A network around the optimal map between two normal distributions."""

import torch
from torch import Tensor

from .._utils.names import registered
from ..interpolants import Interpolant
from ._fields import ResidualField
from ._perceptrons import FiLMNetwork

__all__ = ["TransportVelocity"]

# Largest stretch of the optimal map along one of its axes, and one over the smallest.
_MOST_STRETCH = 1e3


@registered("networks.TransportVelocity")
class TransportVelocity(ResidualField):
    """A network around the velocity that moves one normal distribution to another along the optimal map.

    b(t, x) = c_dot(t) + Q diag[(alpha_dot + beta_dot a) / (alpha + beta a)] Q^T (x - c(t)) + c_out(t) F(t, y)

    with A = Q diag(a) Q^T the optimal map between the covariances, x1 = m1 + A (x0 - m0), c = alpha m0 + beta m1 and
    y = (x - c) / sd(x_t). Along the pairs of A the interpolant is x_t = c + (alpha + beta A) (x0 - m0), which gives the
    closed form. With F = 0 the model is the optimal map between the two normal distributions.

    Parameters
    ----------
    interpolant : Interpolant
        A path that is linear in space, without latent noise.
    network : FiLMNetwork
        The network F.
    means : Tensor of shape (2, d)
        Of base and target, in scaled units.
    matrix : Tensor of shape (d, d)
        A, symmetric and positive definite.
    variances : Tensor of shape (2,)
        Mean variance of a column at both ends.
    """

    means: Tensor
    axes: Tensor
    stretches: Tensor
    variances: Tensor

    def __init__(
        self, interpolant: Interpolant, network: FiLMNetwork, means: Tensor, matrix: Tensor, variances: Tensor
    ) -> None:
        super().__init__()
        self.interpolant, self.network = interpolant, network
        stretches, axes = (part.to(means.dtype) for part in torch.linalg.eigh(matrix.double()))
        self.register_buffer("means", means)
        self.register_buffer("axes", axes)
        self.register_buffer("stretches", stretches.clamp(1 / _MOST_STRETCH, _MOST_STRETCH))
        self.register_buffer("variances", variances)

    def output_scale(self, t: Tensor) -> Tensor:
        """The factor c_out, of the shape of t."""
        return self.interpolant.residual_scale(t, self.variances[0], self.variances[1])

    def time_coefficients(self, times: Tensor) -> tuple[Tensor, ...]:
        """The slopes along the axes, the centre and its rate, c_out and the standard deviation of x_t."""
        t, path = times[..., None], self.interpolant
        a, b, a_dot, b_dot = path.alpha(t), path.beta(t), path.alpha_dot(t), path.beta_dot(t)
        slopes = (a_dot + b_dot * self.stretches) / (a + b * self.stretches)
        centre, rate = a * self.means[0] + b * self.means[1], a_dot * self.means[0] + b_dot * self.means[1]
        v0, v1 = self.variances
        sd = (a * v0.sqrt() + b * v1.sqrt()).expand_as(t)
        return slopes, centre, rate, self.output_scale(times)[..., None], sd

    def preconditioning(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The velocity of the optimal map, c_out, and the centred x in units of its standard deviation."""
        return self.preconditioning_at(self.time_coefficients(t), x)

    def preconditioning_at(self, coefficients: tuple[Tensor, ...], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same as `preconditioning`, from the time coefficients."""
        slopes, centre, rate, c_out, sd = coefficients
        centred = x - centre
        return rate + (slopes * (centred @ self.axes)) @ self.axes.T, c_out, centred / sd

    def velocity_and_divergence(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The velocity b(t, x) and its exact divergence, of shapes (n, d) and (n,)."""
        slopes, _, _, _, sd = coefficients = self.time_coefficients(t)
        closed, c_out, y = self.preconditioning_at(coefficients, x)
        value, trace = self.network.value_and_trace(t, y, condition)
        return torch.addcmul(closed, c_out, value), slopes.sum(-1) + (c_out / sd).squeeze(-1) * trace
