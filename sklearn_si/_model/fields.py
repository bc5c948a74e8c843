"""Losses of the fields as regressions, laws of time, conversions between the fields: pure functions of tensors."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeGuard, cast

import torch
from torch import Tensor

from .._utils.tensors import column
from ..interpolants import GaussianBase, Interpolant
from ..networks import velocity_and_divergence
from ..networks._fields import ResidualField
from ..solvers import Drift

# epsilon(t) for a noise level of one: a name, or a callable.
Schedule = str | Callable[[Tensor], Any]

# Laws of t in training, as quantile functions. They move effort, not the minimiser.
TIME_LAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform": lambda u: u,
    # sigmoid(2 N(0, 1)): both ends, where the fields of a bridge are hardest
    "logit-normal": lambda u: torch.sigmoid(2 * torch.special.ndtri(u)),
    # sigmoid(1 + 2 N(0, 1)): the data end of a one-sided model, where its field is hardest
    "data-end": lambda u: torch.sigmoid(1 + 2 * torch.special.ndtri(u)),
    # bounded second moments of the velocity's target under the brownian gamma
    "arcsine": lambda u: torch.sin(math.pi / 2 * u) ** 2,
    # Beta(1, 1/2), the law of 2209.15571 for tables: density (1 - t)^(-1/2) / 2
    "beta": lambda u: 1 - (1 - u) ** 2,
}

# The closest that training comes to an end: below it float32 differences of
# the two terms of x_t are all rounding.
_T_MARGIN = 1e-5


def draw_times(
    law: str, n: int, generator: torch.Generator, device: torch.device, batches: int = 1, group: int = 1
) -> Tensor:
    """Stratified times for each of some batches, of shape (batches * n,), within 1e-5 of neither end.

    In a batch there is one in each stratum of the law's mass, of which there are n / group: `group` rows share it.
    """
    strata = n // group
    u = torch.rand((batches, strata), generator=generator, device=device) + torch.arange(strata, device=device)
    t = TIME_LAWS[law](u / strata).clamp(_T_MARGIN, 1 - _T_MARGIN)
    return t.repeat_interleave(group, 1).flatten()


# Below this a scale is that of a field which vanishes.
_LEAST_SCALE = 1e-6


class Regression(NamedTuple):
    """A loss that is quadratic in the output F of a network: mean of r (r + 2 kick), r = offset + scale F(t, y, c).

    Nothing in it depends on the weights, so that the regressions of many batches are made at once.

    Parameters
    ----------
    t : Tensor of shape (n,)
    y : Tensor of shape (n, d)
    condition : Tensor or None
    offset : Tensor of shape (n, d)
    scale, kick : Tensor that broadcasts with it, or None for 1 and 0
    """

    t: Tensor
    y: Tensor
    condition: Tensor | None
    offset: Tensor
    scale: Tensor | None = None
    kick: Tensor | None = None

    def residual(self, output: Tensor) -> Tensor:
        """R."""
        return self.offset + output if self.scale is None else torch.addcmul(self.offset, self.scale, output)

    def loss(self, output: Tensor) -> Tensor:
        """The mean over rows and features, from F."""
        r = self.residual(output)
        return (r.square() if self.kick is None else r * (r + 2 * self.kick)).mean()

    def loss_and_gradient(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and its gradient with respect to F."""
        r = self.residual(output)
        pull = r if self.kick is None else r + self.kick
        loss = torch.dot(r.flatten(), (pull if self.kick is None else pull + self.kick).flatten()) / r.numel()
        pull = pull * (2 / r.numel())
        return loss, pull if self.scale is None else pull * self.scale

    def rows(self, rows: slice) -> "Regression":
        """The regression on some of the rows."""
        t, y, offset = self.t[rows], self.y[rows], self.offset[rows]
        condition, scale, kick = (
            None if part is None else part[rows] for part in (self.condition, self.scale, self.kick)
        )
        return Regression(t, y, condition, offset, scale, kick)


def learner(field: Any) -> Any:
    """What has the weights of a field: its network, or a field that is one."""
    return field.network if isinstance(field, ResidualField) else field


def _regression(
    field: Any, t: Tensor, x: Tensor, condition: Tensor | None, target: Tensor, *, weighted: bool = False,
    kick: Tensor | None = None,
) -> Regression:  # fmt: skip
    """The regression of a field f on a target: of its network F, where f = g + scale F, else of the field itself.

    With a weight the residual is divided by the field's `output_scale`.
    """
    closed, scale, y = field.parts(t, x) if isinstance(field, ResidualField) else (None, None, x)
    offset = -target if closed is None else closed - target
    if weighted and hasattr(field, "output_scale"):
        # on an encoding-decoding path nothing moves at t = 1/2: 0 / 0 there
        weight = 1 / column(field.output_scale(t), x).clamp(min=_LEAST_SCALE)
        offset, scale = offset * weight, weight if scale is None else scale * weight
    return Regression(t, y, condition, offset, scale, kick)


def velocity_regression(
    field: Any, path: Interpolant, t: Tensor, x0: Tensor, x1: Tensor, z: Tensor | None, condition: Tensor | None = None
) -> Regression:
    """Mean of |b - dx_t/dt|^2 / c_out(t)^2 over rows and features (2303.08797, (2.13), weighted).

    The weight makes the regression target of the residual network of unit size. Where the target has
    a factor 1/gamma, the caller gives antithetic pairs, whose singular parts cancel.
    """
    x = path.point(t, x0, x1, z)
    return _regression(field, t, x, condition, path.point_dot(t, x0, x1, z), weighted=True)


def drift_regression(
    field: Any, path: Interpolant, t: Tensor, x0: Tensor, x1: Tensor, z: Tensor | None, condition: Tensor | None = None
) -> Regression:
    """Mean of |v - dI/dt|^2 / c_out(t)^2 (2303.08797, (2.29), weighted)."""
    x = path.point(t, x0, x1, z)
    return _regression(field, t, x, condition, path.mean_dot(t, x0, x1), weighted=True)


def denoiser_regression(
    field: Any, path: Interpolant, t: Tensor, x0: Tensor, x1: Tensor, z: Tensor, condition: Tensor | None = None
) -> Regression:
    """Mean of |eta - z|^2 (2303.08797, (2.19)): bounded at both ends, unlike the loss of the score."""
    return _regression(field, t, path.point(t, x0, x1, z), condition, z)


def score_regression(
    field: Any, path: Interpolant, t: Tensor, x0: Tensor, x1: Tensor, z: Tensor, condition: Tensor | None = None
) -> Regression:
    """Mean of |s|^2 + 2 z . s / gamma (2303.08797, (2.16)), for antithetic pairs: 1/gamma cancels in them."""
    x = path.point(t, x0, x1, z)
    return _regression(field, t, x, condition, torch.zeros_like(x), kick=z / column(path.gamma(t), x))


def forecast_regression(
    field: Any, path: Interpolant, t: Tensor, x0: Tensor, x1: Tensor, z: Tensor, condition: Tensor | None = None
) -> Regression:
    """Mean of |u - (dx_t/dt - a z / gamma)|^2 / c_out(t)^2, with the start row as condition (2303.08797, (3.9)).

    dx_t/dt - a z / gamma = dI/dt - sqrt(2 a t / (1 - t)) z for gamma^2 = 2 a t (1 - t): regular at t = 0.
    """
    x = path.point(t, x0, x1, z)
    kick = column(torch.sqrt(2 * field.a * t / (1 - t)), x) * z
    return _regression(field, t, x, x0, path.mean_dot(t, x0, x1) - kick, weighted=True)


# What each name of the parameter `fields` learns, and by which loss.
REGRESSIONS: dict[str, Callable[..., Regression]] = {
    "velocity": velocity_regression,
    "drift": drift_regression,
    "denoiser": denoiser_regression,
    "score": score_regression,
    "forecast": forecast_regression,
}


def field_loss(name: str, field: Any, interpolant: Interpolant, *points: Tensor | None) -> Tensor:
    """The loss of a field of that name on points (t, x0, x1, z[, condition]) of the interpolant."""
    regression = REGRESSIONS[name](field, interpolant, *points)
    return regression.loss(learner(field)(regression.t, regression.y, regression.condition))


FIELDS = {
    "b": ("velocity",),
    "b+eta": ("velocity", "denoiser"),
    "b+s": ("velocity", "score"),
    "v+eta": ("drift", "denoiser"),
    "v+s": ("drift", "score"),
}


def denoiser_from_velocity(interpolant: GaussianBase, t: Tensor, x: Tensor, b: Tensor) -> Tensor:
    """Eta = (beta_dot x - beta b) / W for a Gaussian base (2303.08797, (4.16)-(4.20))."""
    eta = column(interpolant.inverse_wronskian(t), x) * (
        column(interpolant.beta_dot(t), x) * x - column(interpolant.beta(t), x) * b
    )
    # where beta has not begun (encoding-decoding before t = 1/2), x_t = alpha z says it all
    started = column((interpolant.beta(t) != 0) | (interpolant.beta_dot(t) != 0), x)
    return torch.where(started, eta, x / column(interpolant.alpha(t), x))


# How close to an end of (0, 1) a score is asked for, where it is a quotient of two vanishing numbers.
_SCORE_MARGIN = 1e-3


def _is_one_sided(path: Interpolant) -> TypeGuard[GaussianBase]:
    return path.kind == "one-sided"


class Fields:
    """The fields of one model on tensors, in scaled units and one dtype.

    Parameters
    ----------
    interpolant : Interpolant
        One-sided (a `GaussianBase`), where the velocity gives all, two-sided or mirror.
    velocity, denoiser : Module
        The learned (or exact) fields; the denoiser may be None.
    condition : Tensor, default=None
        One row for each row of x.
    """

    def __init__(
        self, interpolant: Interpolant, velocity: Any, denoiser: Any = None, condition: Tensor | None = None
    ) -> None:
        self.interpolant, self.velocity_network, self.denoiser_network = interpolant, velocity, denoiser
        self.condition = condition

    def rows(self, rows: Tensor | slice) -> "Fields":
        """The fields for some of the rows: the same networks, their part of the condition."""
        if self.condition is None:
            return self
        return Fields(self.interpolant, self.velocity_network, self.denoiser_network, self.condition[rows])

    def velocity(self, t: Tensor, x: Tensor) -> Tensor:
        """b(t, x)."""
        return self.velocity_network(t, x, self.condition)

    def velocities(self, times: Tensor) -> list[Callable[[Tensor], Tensor]]:
        """B at each of some times, as a function of x alone."""
        field = self.velocity_network
        if self.condition is None and hasattr(getattr(field, "network", None), "modulations"):
            return field.instants(times)
        return [functools.partial(self.velocity, t) for t in times]

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
        path = self.interpolant
        if _is_one_sided(path):
            return denoiser_from_velocity(path, t, x, self.velocity(t, x) if b is None else b)
        return self.denoiser_network(t, x, self.condition)

    def score(self, t: Tensor, x: Tensor, b: Tensor | None = None) -> Tensor:
        """s(t, x) = grad log rho_t(x); b saves an evaluation where it is known.

        From a Gaussian base by s = (beta b - beta_dot x) / (alpha W) (2303.08797, (4.18)); where alpha W vanishes at
        t = 1, and where a denoiser network must be divided by gamma, at a time kept 1e-3 from the end.
        """
        path = self.interpolant
        if _is_one_sided(path):
            if path.beta(t) == 0 and path.beta_dot(t) == 0:
                return -x / path.alpha(t) ** 2  # nothing of the target has come in yet
            # 1e-12: sin(pi) is not 0 in floats
            if t > 1 - _SCORE_MARGIN and float(path.alpha_wronskian(torch.ones_like(t))) <= 1e-12:
                t, b = t.clamp(max=1 - _SCORE_MARGIN), None
            b = self.velocity(t, x) if b is None else b
            quotient = column(path.beta(t), x) * b - column(path.beta_dot(t), x) * x
            return quotient / column(path.alpha_wronskian(t), x)
        if hasattr(self.denoiser_network, "as_score"):
            return self.denoiser_network.as_score()(t, x, self.condition)
        t = t.clamp(_SCORE_MARGIN, 1 - _SCORE_MARGIN)
        return -self.denoiser(t, x) / column(path.gamma(t), x)

    def target(self, t: Tensor, x: Tensor) -> Tensor:
        """eta_1(t, x) = E[x1 | x_t = x] (2303.08797, (4.3)-(4.5), (4.16)-(4.20)), dividing by no small number.

        From v = alpha_dot eta_0 + beta_dot eta_1 and x - gamma eta = alpha eta_0 + beta eta_1:
        eta_1 = [alpha v - alpha_dot (x - gamma eta)] / W, and (x - noise) / beta where beta is not small.
        """
        path, beta = self.interpolant, self.interpolant.beta(t)
        if beta == 0 and path.beta_dot(t) == 0:
            raise ValueError(
                f"At t = {float(t):g} nothing of the target is in x_t on this path: E[x1 | x_t] is its plain mean. "
                "Ask at a later time."
            )
        b = self.velocity(t, x)
        if _is_one_sided(path):
            eta = self.denoiser(t, x, b)
            if beta >= 0.5:
                return (x - path.alpha(t) * eta) / beta
            return (path.alpha(t) * b - path.alpha_dot(t) * x) * path.inverse_wronskian(t)
        noise = path.gamma(t) * self.denoiser(t, x) if path.has_noise else torch.zeros_like(x)
        alpha = path.alpha(t)
        if alpha == 0 and beta > 0:
            return (x - noise) / beta
        v = b + path.gamma_gamma_dot(t) * self.score(t, x) if path.has_noise else b
        return (alpha * v - path.alpha_dot(t) * (x - noise)) / path.wronskian(t)

    def schedule(self, schedule: Schedule, t: Tensor) -> Tensor:
        """epsilon(t) for a noise level of one."""
        if callable(schedule):
            return torch.as_tensor(schedule(t), dtype=t.dtype, device=t.device)
        if schedule == "optimal":
            path = cast(GaussianBase, self.interpolant)  # estimators refuse it for others
            return path.alpha_wronskian(t) / path.beta(t)
        return self.latent_scale(t) if schedule == "gamma" else torch.ones_like(t)

    def sde(self, level: float, schedule: Schedule, times: Tensor) -> tuple[Drift, Callable[[Tensor], Tensor]]:
        """The drift b +- epsilon s and epsilon(t) of the SDE along a grid, as `sdeint` takes them.

        epsilon = level * schedule(t): latent_scale ("gamma"), 1 ("constant"), the bound-optimal
        alpha^2 beta_dot / beta - alpha alpha_dot of a Gaussian base ("optimal", infinite at t = 0), or a callable
        of t; s = -eta / latent_scale. The fields are asked at times kept half a step inside the interval, so
        that nothing is divided by what vanishes at an end; under "gamma" the quotient epsilon / latent_scale is
        the level itself. It shifts one stage of one step by O(h): the steppers keep their order.
        """
        margins = (times[1:] - times[:-1]).abs() / 2
        sign = 1.0 if times[-1] > times[0] else -1.0
        inner = torch.stack([times[0] + sign * margins[0], times[-1] - sign * margins[-1]])
        low, high = inner.amin(), inner.amax()

        def epsilon(t: Tensor) -> Tensor:
            return level * self.schedule(schedule, t.clamp(low, high))

        def drift(t: Tensor, x: Tensor, e: Tensor) -> Tensor:
            t = t.clamp(low, high)
            b = self.velocity(t, x)
            return b - sign * e / self.latent_scale(t) * self.denoiser(t, x, b)

        return drift, epsilon
