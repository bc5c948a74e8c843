"""Losses of the fields, laws of time, conversions between the fields: pure functions of tensors."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ._tensors import column
from .interpolants import Interpolant
from .networks import velocity_and_divergence

# Laws of t in training, as quantile functions. They move effort, not the minimiser.
TIME_LAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform": lambda u: u,
    # sigmoid(2 N(0, 1)): both ends, where the fields of a bridge are hardest
    "logit-normal": lambda u: torch.sigmoid(2 * torch.special.ndtri(u)),
    # sigmoid(1 + 2 N(0, 1)): the data end of a one-sided model (measured: +.5 nats over N(0, 1))
    "data-end": lambda u: torch.sigmoid(1 + 2 * torch.special.ndtri(u)),
    # bounded second moments of the velocity's target under the brownian gamma
    "arcsine": lambda u: torch.sin(math.pi / 2 * u) ** 2,
}

# The closest that training comes to an end: below it float32 differences of
# the two terms of x_t are all rounding.
_T_MARGIN = 1e-5


def draw_times(law: str, n: int, generator: torch.Generator, device) -> Tensor:
    """N stratified times, one in each n-th of the law's mass, within 1e-5 of neither end."""
    u = (torch.arange(n, device=device) + torch.rand(n, generator=generator, device=device)) / n
    return TIME_LAWS[law](u).clamp(_T_MARGIN, 1 - _T_MARGIN)


def velocity_loss(network, interpolant: Interpolant, t, x0, x1, z, condition=None) -> Tensor:
    """Mean of |b - dx_t/dt|^2 / c_out(t)^2 over rows and features (2303.08797, (2.13), weighted).

    The weight makes the regression target of the residual network of unit size. Where the target has
    a factor 1/gamma, the caller gives antithetic pairs, whose singular parts cancel.
    """
    xt = interpolant.point(t, x0, x1, z)
    residual = network(t, xt, condition) - interpolant.point_dot(t, x0, x1, z)
    if hasattr(network, "output_scale"):
        residual = residual / column(network.output_scale(t), xt)
    return residual.square().mean()


def denoiser_loss(network, interpolant: Interpolant, t, x0, x1, z, condition=None) -> Tensor:
    """Mean of |eta - z|^2 (2303.08797, (2.19)): bounded at both ends, unlike the loss of the score."""
    return (network(t, interpolant.point(t, x0, x1, z), condition) - z).square().mean()


def denoiser_from_velocity(interpolant, t, x, b) -> Tensor:
    """Eta = (beta_dot x - beta b) / W for a Gaussian base (2303.08797, (4.16)-(4.20))."""
    return column(interpolant.inverse_wronskian(t), x) * (
        column(interpolant.beta_dot(t), x) * x - column(interpolant.beta(t), x) * b
    )


class Fields:
    """The fields of one model on tensors, in scaled units and one dtype.

    Parameters
    ----------
    interpolant : Interpolant
        One-sided (a `GaussianBase`), where the velocity gives all, or two-sided.
    velocity, denoiser : Module
        The learned (or exact) fields; the denoiser may be None.
    condition : Tensor, default=None
        One row for each row of x.
    """

    def __init__(self, interpolant, velocity, denoiser=None, condition=None):
        self.interpolant, self.velocity_network, self.denoiser_network = interpolant, velocity, denoiser
        self.condition = condition

    def rows(self, rows: Tensor) -> "Fields":
        """The fields for some of the rows: the same networks, their part of the condition."""
        if self.condition is None:
            return self
        return Fields(self.interpolant, self.velocity_network, self.denoiser_network, self.condition[rows])

    def velocity(self, t: Tensor, x: Tensor) -> Tensor:
        """b(t, x)."""
        return self.velocity_network(t, x, self.condition)

    def velocity_and_divergence(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """b(t, x) and div b(t, x)."""
        return velocity_and_divergence(self.velocity_network, t, x, self.condition)

    @property
    def has_score(self) -> bool:
        """Whether the score function is known: from the velocity, or from a denoiser of its own."""
        return self.interpolant.kind == "one-sided" or self.denoiser_network is not None

    def latent_scale(self, t: Tensor) -> Tensor:
        """The factor of the Gaussian noise in x_t: alpha for a Gaussian base, else gamma."""
        return self.interpolant.alpha(t) if self.interpolant.kind == "one-sided" else self.interpolant.gamma(t)

    def denoiser(self, t: Tensor, x: Tensor, b: Tensor | None = None) -> Tensor:
        """eta(t, x) = E[z | x_t = x]; b saves an evaluation where it is known."""
        if self.interpolant.kind != "one-sided":
            return self.denoiser_network(t, x, self.condition)
        return denoiser_from_velocity(self.interpolant, t, x, self.velocity(t, x) if b is None else b)

    def sde(self, level: float, schedule: str, times: Tensor) -> tuple[Callable, Callable]:
        """The drift b +- epsilon s and epsilon(t) of the SDE along a grid, as `sdeint` takes them.

        epsilon = level * latent_scale ("gamma") or level ("constant"), and s = -eta / latent_scale. The fields
        are asked at times kept half a step inside the interval, so that nothing is divided by what
        vanishes at an end; under "gamma" the quotient epsilon / latent_scale is the level itself. It shifts
        one stage of one step by O(h): the steppers keep their order.
        """
        margins = (times[1:] - times[:-1]).abs() / 2
        sign = 1.0 if times[-1] > times[0] else -1.0
        inner = torch.stack([times[0] + sign * margins[0], times[-1] - sign * margins[-1]])
        low, high = inner.amin(), inner.amax()

        def epsilon(t):
            scale = self.latent_scale(t.clamp(low, high))
            return level * (scale if schedule == "gamma" else torch.ones_like(scale))

        def drift(t, x, e):
            t = t.clamp(low, high)
            b = self.velocity(t, x)
            return b - sign * e / self.latent_scale(t) * self.denoiser(t, x, b)

        return drift, epsilon
