"""Rows at t = 1 from rows at t = 0: by the ODE, the SDE, or from given rows."""

import warnings

import numpy as np
import torch
from sklearn.metrics import pairwise_distances_argmin

from .._utils.input_checks import DTYPES, check_cells
from .._utils.tensors import (
    as_array,
    as_tensor,
    blocks,
    cast_module,
    evaluation_dtype,
)
from ..exceptions import IntegrationError, IntegrationWarning
from ..solvers import (
    SDE_SOLVERS,
    denoising_steps,
    odeint,
    odeint_adaptive,
    sdeint,
    time_grid,
)

DENOISED = "stochastic-heun-denoised"
_SDE_WITHOUT_NOISE = {"euler-maruyama": "euler", "stochastic-heun": "heun", DENOISED: "heun"}

# Rows of one chunk in sampling: it stays in cache (measured: 3.3x over 65,536).
_CHUNK = 4096
# How often a row that left the finite numbers is drawn again.
_REDRAWS = 3
# Share of the rows of a call that may leave the finite numbers in each of their draws.
_MOST_LOST = 0.01


def check_noise(estimator, interpolant, knows_score):
    """Refuse a noise level or a schedule that the learned fields cannot serve."""
    level = estimator.noise_level
    if getattr(estimator, "start", "base") == "condition":
        fixed, default = interpolant.gamma_scale / 2, type(estimator)().noise_level
        if level not in (fixed, default):
            raise ValueError(
                f"Got noise_level={level:g}, but with start='condition' it is fixed at gamma_scale / 2 = {fixed:g} by "
                "the training: leave it, or change gamma_scale and fit again."
            )
        return
    if level > 0 and hasattr(estimator, "rectification_report_"):
        raise ValueError(f"Got noise_level={level:g}, but a rectified flow knows no score: leave noise_level=0.")
    if level > 0 and interpolant.kind != "one-sided" and not knows_score:
        raise ValueError(
            f"Got noise_level={level:g} after a fit of two samples, but the velocity alone does not "
            "give the score function there: use InterpolantDiffusion, or noise_level=0."
        )
    check_schedule(estimator.noise_schedule, interpolant)


def check_schedule(schedule, interpolant):
    """Refuse the optimal schedule where its closed form is not known."""
    if schedule == "optimal" and interpolant.kind != "one-sided":
        raise ValueError("noise_schedule='optimal' is known for a normal base only: use 'gamma' or 'constant'.")
    if schedule == "optimal" and hasattr(interpolant.path, "crossing"):
        raise ValueError(
            "noise_schedule='optimal' is infinite before t = 1/2 on an encoding-decoding path: use 'gamma'."
        )


@torch.no_grad()
def generate(estimator, fields, x, generator):
    """Rows at t = 1 from rows at t = 0, in scaled units, by the estimator's solver and noise."""
    if estimator.interpolant_.kind == "mirror" and estimator.noise_level == 0:
        return x  # the ODE of a mirror ends where it starts
    (n_steps, law), node = estimator._sampling_steps, estimator._grid()[1]
    level, solver = estimator.noise_level, estimator.solver
    times = time_grid(n_steps, "uniform" if level > 0 else law, node=node).to(x)
    if level > 0:
        x = _sde(fields, x, times, estimator, generator)
    elif callable(solver):
        x = solver(fields.velocity, x, times)
    elif solver == "distilled":
        x = cast_module(_flow_map(estimator), x.dtype, x.device)(x, fields.condition)
    elif solver == "denoising":
        x = denoising_steps(fields, x, times)
    elif solver == "dopri5-adaptive":
        x = _end_of_adaptive(fields, x, estimator.ode_tol)
    else:
        x = odeint(fields.velocity, x, times, "rk4" if solver == "auto" else _SDE_WITHOUT_NOISE.get(solver, solver))
    return x


def _end_of_adaptive(fields, x, tolerance):
    """Rows at t = 1 by steps of their own; NaN where no steps lead there."""
    try:
        return odeint_adaptive(fields.velocity, x, 0.0, 1.0, tolerance)
    except IntegrationError as error:
        end, arrive = torch.full_like(x, torch.nan), torch.ones(len(x), dtype=torch.bool)
        arrive[torch.as_tensor(error.rows)] = False
        if bool(arrive.any()):  # the steps of a row do not depend on the other rows
            end[arrive] = odeint_adaptive(fields.rows(arrive).velocity, x[arrive], 0.0, 1.0, tolerance)
        return end


def draw_rows(draw, shape, dtype, *, given=None, chunk=None, advice="fit longer, lower noise_level or raise n_steps"):
    """Finite rows in data units: those that leave the finite numbers are drawn again.

    Parameters
    ----------
    draw : callable
        draw(rows) -> ndarray of shape (m, d): fresh draws of the rows with these numbers, in data units.
    shape : tuple (n, d)
    dtype : numpy dtype
        That of the rows that are returned; a heavy tail may lead beyond its largest number.
    given : Tensor of shape (n, k), default=None
        What each row is drawn given, encoded.
    chunk : int, default=None
        Rows drawn at a time; None is 4096.
    advice : str
        What to do when rows cannot be drawn.

    Returns
    -------
    X : ndarray of shape (n, d)

    Raises
    ------
    IntegrationError
        When more than 1 % of the rows left the finite numbers in each of four draws.
    """
    X, chunk = np.empty(shape, dtype), chunk or _CHUNK
    lost = _fill(X, np.arange(len(X)), draw, chunk)
    n_redrawn = len(lost)
    for _ in range(_REDRAWS if n_redrawn else 0):
        lost = _fill(X, lost, draw, chunk)
    if len(lost) > _MOST_LOST * len(X):
        raise IntegrationError(
            f"{len(lost)} of {len(X)} rows left the finite numbers while sampling, in each of {1 + _REDRAWS} draws: "
            f"{advice}{'' if given is None else ', or give conditions that are nearer to those of fit'}.",
            lost,
        )
    if len(lost):
        X[lost] = X[_substitutes(lost, given, len(X))]
    if n_redrawn:
        _tell_redrawn(n_redrawn, len(lost), len(X), given is not None)
    return X


def _fill(X, numbers, draw, chunk):
    """Draw these rows of X; the numbers of those that are not finite."""
    for block in blocks(len(numbers), chunk):
        rows = numbers[block]
        with np.errstate(over="ignore", invalid="ignore"):
            X[rows] = draw(rows).astype(X.dtype, copy=False)
    return numbers[~np.isfinite(X[numbers]).all(axis=1)]


def _tell_redrawn(n_redrawn, n_lost, n, is_given):
    """Count the rows that were drawn again."""
    message = f"{n_redrawn} of {n} rows left the finite numbers while sampling and were drawn again."
    if n_lost:
        other = "the row drawn given what is most similar" if is_given else "another row"
        message += f" {n_lost} of them did so in each of {1 + _REDRAWS} draws, and repeat {other}."
    warnings.warn(message, IntegrationWarning, stacklevel=5)


def _substitutes(lost, given, n):
    """For each lost row another one: drawn given what is nearest, or the next one where nothing is given."""
    kept = np.setdiff1d(np.arange(n), lost)
    if given is None:
        return kept[np.searchsorted(kept, lost) % len(kept)]
    given = as_array(given, np.float64)
    return kept[pairwise_distances_argmin(given[lost], given[kept])]


def _flow_map(estimator):
    """The distilled flow map, or an error that says how to get one."""
    if not hasattr(estimator, "flow_map_"):
        raise ValueError("solver='distilled' needs a distilled flow map: call distill() after fit.")
    learned = estimator.distillation_report_.guidance
    if learned != estimator.guidance:
        raise ValueError(
            f"The flow map was distilled with guidance={learned:g}, but guidance is {estimator.guidance:g}: call "
            "distill(condition=) again, or use solver='auto'."
        )
    return estimator.flow_map_


def _sde(fields, x, times, estimator, generator):
    """Rows at t = 1 by the SDE; "denoised": the last step is E[x1 | x_t] (2303.08797, (5.13)), without noise."""
    drift, epsilon = fields.sde(estimator.noise_level, estimator.noise_schedule, times)
    solver = sde_solver(estimator)
    if solver != DENOISED:
        return sdeint(drift, epsilon, x, times, generator, solver)
    x = sdeint(drift, epsilon, x, times[:-1], generator, "stochastic-heun")
    return fields.target(times[-2], x)


def sde_solver(estimator):
    """The name of the SDE stepper, or an error that says that the solver is the ODE's."""
    solver = "stochastic-heun" if estimator.solver == "auto" else estimator.solver
    if callable(solver) or solver not in (DENOISED, *SDE_SOLVERS):
        raise ValueError(
            f"solver={solver!r} integrates the ODE, but noise_level={estimator.noise_level:g} > 0 asks for "
            "the SDE: use solver='auto', 'euler-maruyama' or 'stochastic-heun', or noise_level=0."
        )
    return solver


@torch.no_grad()
def forecast(estimator, start, n_samples, generator):
    """Continuations of given rows: dX = u dt + sqrt(2 a) dW from X_0 = x0 (2303.08797, sec. 3.1), in data units."""
    if start is None:
        raise ValueError("A model with start='condition' needs the start rows: sample(n, condition=x0).")
    X0 = np.asarray(check_cells(start, "condition"), dtype=DTYPES[0])
    X0 = estimator._points(X0[None] if X0.ndim == 1 else X0, "condition")
    if len(X0) not in (1, n_samples):
        raise ValueError(f"condition has {len(X0)} rows, but expected one for all or one for each of {n_samples} rows.")
    dtype = evaluation_dtype(np.dtype(estimator.dtype_), generator.device)
    x0 = as_tensor(estimator.base_preprocessing_.transform(X0), dtype, generator.device).expand(n_samples, -1)
    fields = estimator._fields(estimator.dtype_, generator.device)
    fields.condition = x0
    solver = sde_solver(estimator)
    if solver == DENOISED:
        raise ValueError(f"solver={solver!r} has no meaning with start='condition': use 'auto' or 'euler-maruyama'.")
    a = estimator.interpolant_.gamma_scale / 2
    times = time_grid(estimator._sampling_steps[0], "uniform").to(x0)

    def draw(rows):
        some = fields.rows(rows)
        x = sdeint(
            lambda t, x, e: some.velocity(t, x),
            lambda t: torch.full_like(t, a),
            x0[rows],
            times,
            generator,
            solver,
        )
        return estimator.preprocessing_.inverse_transform(as_array(x, np.float64))

    return draw_rows(draw, tuple(x0.shape), estimator.dtype_, given=x0, chunk=n_samples)
