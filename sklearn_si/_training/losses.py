"""Losses of the fields as regressions, and the distributions of time that they are averaged over."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._utils.tensors import column
from ..interpolants import Interpolant
from ..networks._divergence import Field
from ..networks._fields import ForecastField, ResidualField

# Distributions of t in training, as quantile functions. They weight the times of the loss, and leave its minimiser.
TIME_DISTRIBUTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform": lambda u: u,
    # sigmoid(2 N(0, 1)): both ends, where the fields of a bridge are hardest
    "logit-normal": lambda u: torch.sigmoid(2 * torch.special.ndtri(u)),
    # sigmoid(1 + 2 N(0, 1)): the data end of a one-sided model, where its field is hardest
    "data-end": lambda u: torch.sigmoid(1 + 2 * torch.special.ndtri(u)),
    # bounded second moments of the velocity's target under the brownian gamma
    "arcsine": lambda u: torch.sin(math.pi / 2 * u) ** 2,
    # Beta(1, 1/2), the distribution of 2209.15571 for tables: density (1 - t)^(-1/2) / 2
    "beta": lambda u: 1 - (1 - u) ** 2,
}

# The closest that training comes to an end: below it float32 differences of
# the two terms of x_t are all rounding.
_T_MARGIN = 1e-5


def draw_times(
    distribution: str,
    n: int,
    generator: torch.Generator,
    device: torch.device,
    batches: int = 1,
    rows_per_time: int = 1,
) -> Tensor:
    """Stratified times for each of some batches, of shape (batches * n,), within 1e-5 of neither end.

    The mass of the distribution is cut into n / rows_per_time strata; each batch has one time of each stratum, which
    `rows_per_time` rows share.
    """
    strata = n // rows_per_time
    u = torch.rand((batches, strata), generator=generator, device=device) + torch.arange(strata, device=device)
    t = TIME_DISTRIBUTIONS[distribution](u / strata).clamp(_T_MARGIN, 1 - _T_MARGIN)
    return t.repeat_interleave(rows_per_time, 1).flatten()


# Below this a scale is that of a field which vanishes.
_LEAST_SCALE = 1e-6


class Regression(NamedTuple):
    """A loss that is quadratic in the output F of a network.

    mean of r (r + 2 l),    r = offset + scale F(t, y, condition)

    with l the linear term, by which a loss need not be a square. Nothing but F depends on the weights, so that the
    regressions of many batches are prepared at once.

    Parameters
    ----------
    t : Tensor of shape (n,)
    y : Tensor of shape (n, d)
    condition : Tensor or None
    offset : Tensor of shape (n, d)
    scale, linear_term : Tensor that broadcasts with offset, or None
        None is 1 for the scale, and 0 for the linear term.
    """

    t: Tensor
    y: Tensor
    condition: Tensor | None
    offset: Tensor
    scale: Tensor | None = None
    linear_term: Tensor | None = None

    def residual(self, output: Tensor) -> Tensor:
        """The residual r."""
        return self.offset + output if self.scale is None else torch.addcmul(self.offset, self.scale, output)

    def loss(self, output: Tensor) -> Tensor:
        """The mean over rows and features, from F."""
        r = self.residual(output)
        return (r.square() if self.linear_term is None else r * (r + 2 * self.linear_term)).mean()

    def loss_and_gradient(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and its gradient with respect to F."""
        r = self.residual(output)
        half_gradient = r if self.linear_term is None else r + self.linear_term
        factor = r if self.linear_term is None else half_gradient + self.linear_term
        loss = torch.dot(r.flatten(), factor.flatten()) / r.numel()
        gradient = half_gradient * (2 / r.numel())
        return loss, gradient if self.scale is None else gradient * self.scale

    def rows(self, rows: slice) -> "Regression":
        """The regression on some of the rows."""
        t, y, offset = self.t[rows], self.y[rows], self.offset[rows]
        condition, scale, linear_term = (
            None if part is None else part[rows] for part in (self.condition, self.scale, self.linear_term)
        )
        return Regression(t, y, condition, offset, scale, linear_term)


def learner(field: Any) -> Any:
    """What has the weights of a field: its network, or a field that is one."""
    return field.network if isinstance(field, ResidualField) else field


def _regression(
    field: Any, t: Tensor, x: Tensor, condition: Tensor | None, target: Tensor, *, weighted: bool = False,
    linear_term: Tensor | None = None,
) -> Regression:  # fmt: skip
    """The regression of a field f on a target: of its network F, where f = g + scale F, else of the field itself.

    A weighted residual is divided by the field's `output_scale`, if it has one.
    """
    closed, scale, y = field.preconditioning(t, x) if isinstance(field, ResidualField) else (None, None, x)
    offset = -target if closed is None else closed - target
    size = field.output_scale(t) if weighted and isinstance(field, Field) else None
    if size is not None:
        # on an encoding-decoding path nothing moves at t = 1/2: 0 / 0 there
        weight = 1 / column(size, x).clamp(min=_LEAST_SCALE)
        offset, scale = offset * weight, weight if scale is None else scale * weight
    return Regression(t, y, condition, offset, scale, linear_term)


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
    return _regression(field, t, x, condition, torch.zeros_like(x), linear_term=z / column(path.gamma(t), x))


def forecast_regression(
    field: Any, path: Interpolant, t: Tensor, x0: Tensor, x1: Tensor, z: Tensor, condition: Tensor | None = None
) -> Regression:
    """Mean of |u - (dx_t/dt - a z / gamma)|^2 / c_out(t)^2, with the start row as condition (2303.08797, (3.9)).

    dx_t/dt - a z / gamma = dI/dt - sqrt(2 a t / (1 - t)) z for gamma^2 = 2 a t (1 - t): regular at t = 0.
    """
    x = path.point(t, x0, x1, z)
    noise = column(torch.sqrt(2 * field.a * t / (1 - t)), x) * z
    target = path.mean_dot(t, x0, x1) - noise
    if isinstance(field, ForecastField):
        target = target - field.closed(t, x, x0)
    return _regression(field, t, x, x0, target, weighted=True)


def masked_regression(
    field: Any, path: Interpolant, t: Tensor, x0: Tensor, x1: Tensor, z: Tensor | None, condition: Tensor
) -> Regression:
    """Mean over rows of the mean of |b - dx_t/dt|^2 / c_out(t)^2 over the columns that are asked for.

    Questions about few columns count as much as those about many: else what is asked given nearly all others, where
    there is most to learn a column, would hardly count.
    """
    regression, asked = velocity_regression(field, path, t, x0, x1, z, condition), field.asked(condition)
    weight = torch.sqrt(asked.shape[1] / asked.sum(1, keepdim=True))
    scale = weight * asked if regression.scale is None else regression.scale * weight * asked
    return regression._replace(offset=regression.offset * weight, scale=scale)


# What each name of the parameter `fields` learns, and by which loss.
REGRESSIONS: dict[str, Callable[..., Regression]] = {
    "velocity": velocity_regression,
    "drift": drift_regression,
    "denoiser": denoiser_regression,
    "score": score_regression,
    "forecast": forecast_regression,
    "masked": masked_regression,
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
