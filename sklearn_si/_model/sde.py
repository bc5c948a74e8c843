"""The SDE of a model: its drift and its noise, which enters by a level and a schedule."""

from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from ..interpolants import GaussianBase, Interpolant
from ..solvers import time_grid
from ..solvers._steps import Drift, OnGrid

# epsilon(t) for a noise level of one: a name, or a callable.
Schedule = str | Callable[[Tensor], Any]


class NoisyFields(Protocol):
    """What the SDE asks of the fields of a model."""

    @property
    def interpolant(self) -> Interpolant:
        """The path."""

    def velocities(self, times: Tensor) -> list[Callable[[Tensor], Tensor]]:
        """b(t, x) at each of some times, as functions of x alone."""

    def denoisers(self, times: Tensor) -> list[Callable[[Tensor, Tensor], Tensor]]:
        """eta(t, x) at each of some times, as functions of x and b(t, x)."""

    def latent_scale(self, t: Tensor) -> Tensor:
        """The factor of the Gaussian noise in x_t."""


def schedule_at(fields: NoisyFields, schedule: Schedule, t: Tensor) -> Tensor:
    """epsilon(t) for a noise level of one."""
    if callable(schedule):
        return torch.as_tensor(schedule(t), dtype=t.dtype, device=t.device)
    if schedule == "optimal":
        path = cast(GaussianBase, fields.interpolant)  # estimators refuse it for others
        return path.alpha_wronskian(t) / path.beta(t)
    return fields.latent_scale(t) if schedule == "gamma" else torch.ones_like(t)


def is_bounded(schedule: Schedule) -> bool:
    """Whether the factor of the denoiser in the drift stays bounded at t = 1: then few steps are enough."""
    return isinstance(schedule, str) and schedule in ("gamma", "optimal")


def sde_times(path: Interpolant, n_steps: int) -> Tensor:
    """The grid of the SDE: steps become shorter where x_t meets data, whose finest structure decides there."""
    spacing = "quadratic" if path.path_type == "one-sided" else "sine"
    return time_grid(n_steps, spacing, node=path.gaussian_time)


def sde_along(
    fields: NoisyFields, level: float, schedule: Schedule, times: Tensor
) -> tuple[Drift, Callable[[Tensor], Tensor]]:
    """The drift b +- epsilon s and epsilon(t) of the SDE along a grid, as `sdeint` takes them.

    epsilon = level * schedule(t): latent_scale ("gamma"), 1 ("constant"), the bound-optimal
    alpha^2 beta_dot / beta - alpha alpha_dot of a Gaussian base ("optimal", infinite at t = 0), or a callable
    of t; s = -eta / latent_scale. The fields are asked at times kept half a step inside the interval, so
    that nothing is divided by what vanishes at an end; under "gamma" the quotient epsilon / latent_scale is
    the level itself. It shifts one stage of one step by O(h): the steppers keep their order.
    """
    times = times.cpu()  # a GPU would be asked for the time at every stage
    margins = (times[1:] - times[:-1]).abs() / 2
    sign = 1.0 if times[-1] > times[0] else -1.0
    inner = torch.stack([times[0] + sign * margins[0], times[-1] - sign * margins[-1]])
    low, high = float(inner.amin()), float(inner.amax())
    # the steps ask at t + h as well, which rounding may keep from being the next time
    ends = times[:-1] + (times[1:] - times[:-1])
    known = _TimesAhead(fields, torch.cat([times, ends]).clamp(low, high).unique())

    def epsilon(t: Tensor) -> Tensor:
        return level * schedule_at(fields, schedule, t.clamp(low, high))

    def drift(t: Tensor, x: Tensor, e: Tensor) -> Tensor:
        t = t.clamp(low, high)
        velocity, denoiser = known.at(t, x.device)
        b = velocity(x)
        return b - sign * e / fields.latent_scale(t) * denoiser(x, b)

    return OnGrid(drift), epsilon


class _TimesAhead:
    """The fields at the times of a grid as functions of the state: what depends on time alone is computed once.

    Parameters
    ----------
    fields : NoisyFields
    times : Tensor of shape (k,)
        On the CPU.
    """

    def __init__(self, fields: NoisyFields, times: Tensor) -> None:
        self.fields, self.times = fields, times
        self.known: dict[float, Any] = {}

    def at(
        self, t: Tensor, device: torch.device
    ) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]:
        """The velocity and the denoiser at one time, of the grid or another, for rows of a device."""
        if not self.known:
            there = self.times.to(device)
            pairs = zip(self.fields.velocities(there), self.fields.denoisers(there), strict=True)
            self.known = dict(zip(self.times.tolist(), pairs, strict=True))
        found = self.known.get(t.item())
        if found is not None:
            return found
        other = t.reshape(1).to(device)
        return self.fields.velocities(other)[0], self.fields.denoisers(other)[0]
