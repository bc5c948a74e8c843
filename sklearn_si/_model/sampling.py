"""Rows at t = 1 from rows at t = 0: by the ODE, the SDE, or from given rows; in scaled units."""

from collections.abc import Callable

import torch
from torch import Tensor

from .._utils.tensors import cast_module
from ..exceptions import IntegrationError
from ..interpolants import Interpolant
from ..solvers import SDE_SOLVERS, denoising_steps, odeint, odeint_adaptive, sdeint, time_grid
from .fields import Fields, Schedule
from .flow_map import FlowMap
from .sde import sde_times
from .settings import Sampling

DENOISED = "stochastic-heun-denoised"
_SDE_WITHOUT_NOISE = {"euler-maruyama": "euler", "stochastic-heun": "heun", DENOISED: "heun"}


def check_noise(sampling: Sampling, interpolant: Interpolant, knows_score: bool, rectified: bool = False) -> None:
    """Refuse a noise level or a schedule that the learned fields cannot serve."""
    level = sampling.noise_level
    if level > 0 and interpolant.circular:
        raise ValueError(
            f"Got noise_level={level:g} with circular columns, but the SDE needs the score function, which "
            "follows from a normal base and not from a uniform one: leave noise_level=0."
        )
    if level > 0 and rectified:
        raise ValueError(f"Got noise_level={level:g}, but a rectified flow knows no score: leave noise_level=0.")
    if level > 0 and interpolant.path_type != "one-sided" and not knows_score:
        raise ValueError(
            f"Got noise_level={level:g} after a fit of two samples, but the velocity alone does not "
            "give the score function there: use InterpolantDiffusion, or noise_level=0."
        )
    check_schedule(sampling.noise_schedule, interpolant)


def check_schedule(schedule: Schedule, interpolant: Interpolant) -> None:
    """Refuse the optimal schedule where its closed form is not known."""
    if schedule == "optimal" and interpolant.path_type != "one-sided":
        raise ValueError("noise_schedule='optimal' is known for a normal base only: use 'gamma' or 'constant'.")
    if schedule == "optimal" and interpolant.gaussian_time is not None:
        raise ValueError(
            "noise_schedule='optimal' is infinite before t = 1/2 on an encoding-decoding path: use 'gamma'."
        )


@torch.no_grad()
def generate(
    fields: Fields,
    x: Tensor,
    sampling: Sampling,
    measured: tuple[int, str] | None,
    flow_map: FlowMap | None,
    generator: torch.Generator,
) -> Tensor:
    """Rows at t = 1 from rows at t = 0.

    Parameters
    ----------
    fields : Fields
    x : Tensor of shape (n, d)
        Rows at t = 0.
    sampling : Sampling
        The solver, its steps and the noise.
    measured : tuple of (int, str) or None
        Steps and spacing that the fit has found to be enough for the ODE.
    flow_map : FlowMap or None
        What solver="distilled" asks.
    generator : torch.Generator
        The source of the noise.
    """
    path, level, solver = fields.interpolant, sampling.noise_level, sampling.solver
    if path.path_type == "mirror" and level == 0:
        return x  # the ODE of a mirror ends where it starts
    n_steps, spacing = sampling.grid(measured)
    times = (sde_times(path, n_steps) if level > 0 else time_grid(n_steps, spacing, node=path.gaussian_time)).to(x)
    if level > 0:
        x = _sde(fields, x, times, sampling, generator)
    elif callable(solver):
        x = solver(fields.velocity, x, times)
    elif solver == "distilled":
        assert flow_map is not None  # the model has asked for it
        x = cast_module(flow_map, x.dtype, x.device)(x, fields.condition)
    elif solver == "denoising":
        x = denoising_steps(fields, x, times)
    elif solver == "dopri5-adaptive":
        x = _end_of_adaptive(fields, x, sampling.tolerance)
    else:
        method = "rk4" if solver == "auto" else _SDE_WITHOUT_NOISE.get(solver, solver)
        x = odeint(fields.velocity_along(times, method), x, times, method)
    return x


def _end_of_adaptive(fields: Fields, x: Tensor, tolerance: float) -> Tensor:
    """Rows at t = 1 by steps of their own; NaN where no steps lead there."""
    try:
        return odeint_adaptive(fields.velocity, x, 0.0, 1.0, tolerance)
    except IntegrationError as error:
        end, arrive = torch.full_like(x, torch.nan), torch.ones(len(x), dtype=torch.bool)
        arrive[torch.as_tensor(error.rows)] = False
        if bool(arrive.any()):  # the steps of a row do not depend on the other rows
            end[arrive] = odeint_adaptive(fields.rows(arrive).velocity, x[arrive], 0.0, 1.0, tolerance)
        return end


def _sde(fields: Fields, x: Tensor, times: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """Rows at t = 1 by the SDE; "denoised": the last step is E[x1 | x_t] (2303.08797, (5.13)), without noise."""
    drift, epsilon = fields.sde(sampling.noise_level, sampling.noise_schedule, times)
    solver = sde_solver(sampling)
    if solver != DENOISED:
        return sdeint(drift, epsilon, x, times, generator, solver)
    x = sdeint(drift, epsilon, x, times[:-1], generator, "stochastic-heun")
    return fields.target(times[-2], x)


def sde_solver(sampling: Sampling) -> str:
    """The name of the SDE stepper, or an error that says that the solver is the ODE's."""
    solver = "stochastic-heun" if sampling.solver == "auto" else sampling.solver
    if callable(solver) or solver not in (DENOISED, *SDE_SOLVERS):
        raise ValueError(
            f"solver={solver!r} integrates the ODE, but noise_level={sampling.noise_level:g} > 0 asks for "
            "the SDE: use solver='auto', 'euler-maruyama' or 'stochastic-heun', or noise_level=0."
        )
    return solver


@torch.no_grad()
def forecast(
    fields: Fields, x0: Tensor, a: float, sampling: Sampling, n_steps: int, generator: torch.Generator
) -> Tensor:
    """Continuations of given rows: dX = u dt + sqrt(2 a) dW from X_0 = x0 (2303.08797, sec. 3.1).

    With a noise level k other than 1 the diffusion is k a, and the distribution of X at every time is the same:

    dX = [u + (k - 1) a s] dt + sqrt(2 k a) dW,    2 a s = u - (x - x0) / t

    (2403.13724, with s the score of x_t given x0). The first step, at whose start s is not known, has k = 1.
    """
    solver = sde_solver(sampling)
    if solver == DENOISED:
        raise ValueError(f"solver={solver!r} has no meaning with start='condition': use 'auto' or 'euler-maruyama'.")
    times, level = time_grid(n_steps, "uniform").to(x0), sampling.noise_level

    def drift(t: Tensor, x: Tensor, e: Tensor) -> Tensor:
        return fields.velocity(t, x)

    def tuned(t: Tensor, x: Tensor, e: Tensor) -> Tensor:
        u = fields.velocity(t, x)
        return u + (level - 1) / 2 * (u - (x - x0) / t)

    def constant(epsilon: float) -> Callable[[Tensor], Tensor]:
        return lambda t: torch.full_like(t, epsilon)

    if level == 1:
        return sdeint(drift, constant(a), x0, times, generator, solver)
    x = sdeint(drift, constant(a), x0, times[:2], generator, solver)
    return sdeint(tuned, constant(level * a), x, times[1:], generator, solver)
