"""The fields of one model on tensors, and the conversions between them."""

import functools
from collections.abc import Callable
from typing import Any, TypeGuard

import torch
from torch import Tensor

from .._utils.tensors import column
from ..interpolants import GaussianBase, Interpolant
from ..networks._divergence import as_field
from ..networks._single import with_single_precision
from ..solvers._steps import ODE_SOLVERS, Drift, OnGrid
from .sde import Schedule, schedule_at, sde_along


def denoiser_from_velocity(interpolant: GaussianBase, t: Tensor, x: Tensor, b: Tensor) -> Tensor:
    """Eta = (beta_dot x - beta b) / W for a Gaussian base (2303.08797, (4.16)-(4.20))."""
    eta = column(interpolant.inverse_wronskian(t), x) * (
        column(interpolant.beta_dot(t), x) * x - column(interpolant.beta(t), x) * b
    )
    # where beta has not begun (encoding-decoding before t = 1/2), x_t = alpha z says it all
    started = column((interpolant.beta(t) != 0) | (interpolant.beta_dot(t) != 0), x)
    return torch.where(started, eta, x / column(interpolant.alpha(t), x))


def denoisers_from_velocity(interpolant: GaussianBase, times: Tensor) -> list[Callable[[Tensor, Tensor], Tensor]]:
    """The same at each of some times, as functions of x and b."""
    inverse, beta, rate = interpolant.inverse_wronskian(times), interpolant.beta(times), interpolant.beta_dot(times)
    started = (beta != 0) | (rate != 0)
    of_x = torch.where(started, inverse * rate, 1 / interpolant.alpha(times))
    of_b = torch.where(started, inverse * beta, torch.zeros_like(times))
    return [functools.partial(_combined, *pair) for pair in zip(of_x.unbind(), of_b.unbind(), strict=True)]


def _combined(of_x: Tensor, of_b: Tensor, x: Tensor, b: Tensor) -> Tensor:
    return of_x * x - of_b * b


def _without_velocity(field: Callable[[Tensor], Tensor], x: Tensor, b: Tensor) -> Tensor:
    return field(x)


# How close to an end of (0, 1) a score is asked for, where it is a quotient of two vanishing numbers.
_SCORE_MARGIN = 1e-3


def _is_one_sided(path: Interpolant) -> TypeGuard[GaussianBase]:
    return path.path_type == "one-sided"


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
    is_single : bool, default=False
        Whether the networks compute in single precision what is asked in double.
    """

    def __init__(
        self,
        interpolant: Interpolant,
        velocity: Any,
        denoiser: Any = None,
        condition: Tensor | None = None,
        is_single: bool = False,
    ) -> None:
        self.interpolant, self.velocity_network, self.denoiser_network = interpolant, velocity, denoiser
        self._velocity_field, self._denoiser_field = as_field(velocity), as_field(denoiser)
        self.condition, self.is_single = condition, is_single

    def in_single_precision(self) -> "Fields | None":
        """The fields, double in and out, with networks in single precision; None where they cannot be had."""
        velocity = with_single_precision(self.velocity_network)
        if velocity is None:
            return None
        denoiser = self.denoiser_network
        denoiser = None if denoiser is None else with_single_precision(denoiser) or denoiser
        return Fields(self.interpolant, velocity, denoiser, self.condition, is_single=True)

    def rows(self, rows: Tensor | slice) -> "Fields":
        """The fields for some of the rows: the same networks, their part of the condition."""
        if self.condition is None:
            return self
        condition = self.condition[rows]
        return Fields(self.interpolant, self.velocity_network, self.denoiser_network, condition, self.is_single)

    def velocity(self, t: Tensor, x: Tensor) -> Tensor:
        """b(t, x)."""
        return self.velocity_network(t, x, self.condition)

    def velocities(self, times: Tensor) -> list[Callable[[Tensor], Tensor]]:
        """b(t, x) at each of some times, as functions of x alone."""
        known = self._velocity_field.instants(times, self.condition)
        return [functools.partial(self.velocity, t) for t in times] if known is None else list(known)

    def velocity_along(self, times: Tensor, method: str) -> Callable[[Tensor, Tensor], Tensor]:
        """b(t, x) for the steps of `odeint` along a grid: what depends on time alone is computed once.

        Parameters
        ----------
        times : Tensor of shape (k,)
            The grid, in the dtype of the rows.
        method : str
            A name of `ODE_SOLVERS`.
        """
        times = times.cpu()
        steps = times[1:] - times[:-1]
        moments = torch.cat([*(times[:-1] + c * steps for c in ODE_SOLVERS[method].c), times[-1:]]).unique()
        known: dict[float, Callable[[Tensor], Tensor]] = {}

        def velocity(t: Tensor, x: Tensor) -> Tensor:
            if not known:
                known.update(zip(moments.tolist(), self.velocities(moments.to(x.device)), strict=True))
            found = known.get(t.item())
            return self.velocity(t.to(x.device), x) if found is None else found(x)

        return OnGrid(velocity)

    def velocity_and_divergence(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """b(t, x) and div b(t, x)."""
        return self._velocity_field.velocity_and_divergence(t, x, self.condition)

    @property
    def has_score(self) -> bool:
        """Whether the score function is known: from the velocity, or from a denoiser of its own."""
        return self.interpolant.path_type == "one-sided" or self.denoiser_network is not None

    def latent_scale(self, t: Tensor) -> Tensor:
        """The factor of the Gaussian noise in x_t: alpha for a Gaussian base, else gamma."""
        return self.interpolant.alpha(t) if self.interpolant.path_type == "one-sided" else self.interpolant.gamma(t)

    def denoiser(self, t: Tensor, x: Tensor, b: Tensor | None = None) -> Tensor:
        """eta(t, x) = E[z | x_t = x]; b saves an evaluation where it is known."""
        path = self.interpolant
        if _is_one_sided(path):
            return denoiser_from_velocity(path, t, x, self.velocity(t, x) if b is None else b)
        return self.denoiser_network(t, x, self.condition)

    def denoisers(self, times: Tensor) -> list[Callable[[Tensor, Tensor], Tensor]]:
        """eta(t, x) at each of some times, as functions of x and b(t, x)."""
        if _is_one_sided(self.interpolant):
            return denoisers_from_velocity(self.interpolant, times)
        known = self._denoiser_field.instants(times, self.condition)
        at = [functools.partial(self.denoiser_network, t, condition=self.condition) for t in times]
        return [functools.partial(_without_velocity, f) for f in (at if known is None else known)]

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
        score = self._denoiser_field.as_score()
        if score is not None:
            return score(t, x, self.condition)
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
        return schedule_at(self, schedule, t)

    def sde(self, level: float, schedule: Schedule, times: Tensor) -> tuple[Drift, Callable[[Tensor], Tensor]]:
        """The drift b +- epsilon s and epsilon(t) of the SDE along a grid (`sde.sde_along`)."""
        return sde_along(self, level, schedule, times)
