"""Log-densities of a fitted model in data units: of the ODE at any time, of the SDE chain, gradients and ratios."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp, softmax
from torch import Tensor

from .._utils.tensors import PATH_STREAM, as_array, as_tensor, blocks, evaluation_dtype, make_generator
from ..exceptions import NoDensityError
from .fields import Fields
from .fitted import FittedModel
from .levels import ASSUMED, Level, LikelihoodCalibration
from .likelihood import GRID_SPACING, density_parts, log_density_ratio, ode_log_density
from .lost_rows import settled, unknown_where_lost, warn_missed
from .one_pass import distilled_log_density, with_unsolved
from .sde_likelihood import path_log_weights, summarise
from .settings import Evaluation, Sampling

# Steps by which gradients of log-densities are taken.
_GRADIENT_LEVEL = Level.of(48)
# Rows of one chunk whose gradients are taken together.
_GRADIENT_ROWS = 256
# Rows that are scored at a time: the memory beside input and output does not grow with their number.
_BLOCK_ROWS = 2**16


@torch.no_grad()
def log_density(
    model: FittedModel, X: np.ndarray, time: Tensor, evaluation: Evaluation, condition: object = None
) -> tuple[np.ndarray, np.ndarray]:
    """Log-density of the ODE model at validated rows, and its stated error.

    log rho_t(x) = log rho_a(X_{t,a}(x)) - int_a^t div b(u, X_{t,u}(x)) du + log |det dx'/dx|    (2303.08797, (2.53))

    Parameters
    ----------
    model : FittedModel
    X : ndarray of shape (n, d)
        In data units.
    time : Tensor of shape ()
        t.
    evaluation : Evaluation
    condition : array-like or None

    Returns
    -------
    log_density, error : ndarray of shape (n,)
        In nats.
    """
    model.require_density()
    if model.target_model is not None:
        return _log_density_from_target(model, X, time, evaluation, condition)
    if len(model.members) > 1:
        values, errors = members_log_density(model, X, time, evaluation, condition)
        return mixed(values, errors, X.dtype)
    device, t = evaluation.device, float(time)
    fields = model.fields(X.dtype, device, condition, len(X), evaluation.guidance)
    dtype = evaluation_dtype(X.dtype, device)
    anchor, parts = model.anchor()
    calibration = _calibration(model, t, evaluation, condition)
    density_map = model.one_pass(evaluation) if t == 1 else None
    density = np.empty(len(X), X.dtype)
    parts_of_errors: list[Tensor] = []
    for rows in blocks(len(X), _BLOCK_ROWS):
        x = as_tensor(model.units.to_scaled(X[rows], time), dtype, device)
        some = fields.rows(rows)

        def solve(rows: Tensor | slice, x: Tensor = x, fields: Fields = some) -> tuple[Tensor, Tensor]:
            asked = anchor, parts, evaluation.tolerance, GRID_SPACING, calibration
            return ode_log_density(fields.rows(rows), x[rows], t, *asked)

        if density_map is None:
            value, error = solve(slice(None))
        else:
            value, error = distilled_log_density(density_map, x, some.condition)
            value, error = with_unsolved(value, error, evaluation.tolerance, solve)
        with np.errstate(over="ignore", invalid="ignore"):
            density[rows] = as_array(value, np.float64) + model.target_map.log_abs_det_jacobian(X[rows])
        parts_of_errors.append(error)
    density = settled(density, "computing log-densities", evaluation.strict)
    stated = unknown_where_lost(torch.cat(parts_of_errors), density)
    warn_missed(stated, evaluation.tolerance)
    return density, as_array(stated, X.dtype)


def _log_density_from_target(
    model: Any, X: np.ndarray, time: Tensor, evaluation: Evaluation, condition: object
) -> tuple[np.ndarray, np.ndarray]:
    """That of a bridge whose target has a density of its own: there, or moved to it."""
    if float(time) == 1:
        return log_density(model.target_model, X, time, evaluation, condition)
    moved, change, error = model.at_target(X, time, evaluation, condition)
    known = np.isfinite(moved).all(1)
    value, stated = log_density(
        model.target_model, np.where(known[:, None], moved, X), torch.ones_like(time), evaluation, condition
    )
    density = settled(
        np.where(known, value + change, np.nan).astype(X.dtype), "computing log-densities", evaluation.strict
    )
    return density, (stated + error).astype(X.dtype)


def members_log_density(
    model: FittedModel, X: np.ndarray, time: Tensor, evaluation: Evaluation, condition: object = None
) -> tuple[np.ndarray, np.ndarray]:
    """Log-densities of the members of a model at rows, and their stated errors, of shape (n_members, n)."""
    found = [log_density(member, X, time, evaluation, condition) for member in model.members]
    values, errors = zip(*found, strict=True)
    return np.array(values, np.float64), np.array(errors, np.float64)


def shares_of_members(values: np.ndarray) -> np.ndarray:
    """The share that each member has in the density of the mixture, from log-densities of shape (n_members, n)."""
    return softmax(values, axis=0)


def mixed(values: np.ndarray, errors: np.ndarray, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Log of the mean density of members, and its error, from those of the members, of shape (n_members, n)."""
    value = logsumexp(values, axis=0) - np.log(len(values))
    return value.astype(dtype, copy=False), (shares_of_members(values) * errors).sum(0).astype(dtype, copy=False)


def _calibration(model: FittedModel, t: float, evaluation: Evaluation, condition: object) -> LikelihoodCalibration:
    """What was measured after the fit, where the question is the one that it was measured for."""
    known = model.likelihood_calibration
    alike = t == 1 and evaluation.guidance == 1 and (condition is None) == (model.condition_codec is None)
    return known if known is not None and alike else ASSUMED


@torch.no_grad()
def chain_log_density(
    model: FittedModel,
    X: np.ndarray,
    sampling: Sampling,
    evaluation: Evaluation,
    n_paths: int,
    condition: object = None,
) -> dict[str, np.ndarray]:
    """The summary of path weights of the Euler-Maruyama chain at validated rows, in data units.

    Parameters
    ----------
    model, X, evaluation, condition
        As in `log_density`.
    sampling : Sampling
        The noise and the steps of the chain.
    n_paths : int
        Paths a row.
    """
    model.refuse_forecast("the density of the chain")
    model.require_score("the density of the SDE chain")
    if sampling.noise_level == 0:
        raise ValueError(
            "The density of the SDE chain needs noise: got noise_level=0, use likelihood='ode' or raise it."
        )
    x, fields = scaled_rows(model, X, torch.ones((), dtype=torch.float64), evaluation, condition)
    parts = model.base_parts()
    generator = make_generator(model.seed, PATH_STREAM, x.device)
    n_steps = dataclasses.replace(sampling, solver="euler-maruyama").grid(model.sampling_grid)[0]
    noise = sampling.noise_level, sampling.noise_schedule
    weights = path_log_weights(fields, x, *noise, n_steps, n_paths, parts, generator)
    # a row with one weight that is no number has none at all
    by_row = settled(as_array(weights.T, np.float64), "weighting the paths of the SDE", evaluation.strict)
    jacobian = model.target_map.log_abs_det_jacobian(X)
    summary = {name: as_array(value, np.float64) for name, value in summarise(torch.as_tensor(by_row.T)).items()}
    for name in ("point", "bound"):
        summary[name] = summary[name] + jacobian
    return {name: value.astype(X.dtype, copy=False) for name, value in summary.items()}


def log_density_gradient(
    model: FittedModel, X: np.ndarray, time: Tensor, evaluation: Evaluation, condition: object = None
) -> np.ndarray:
    """Gradient of the log-density of the ODE model, in inverse data units, by differentiation of the solver."""
    if model.target_model is not None and float(time) == 1:
        return log_density_gradient(model.target_model, X, time, evaluation, condition)
    if model.target_model is not None:
        raise NoDensityError(
            "The gradient at earlier times needs a density of the base, but this bridge has one of its target: fit "
            "with base_density='flow', or ask at t=1."
        )
    if len(model.members) > 1:
        gradients = [log_density_gradient(member, X, time, evaluation, condition) for member in model.members]
        shares = shares_of_members(members_log_density(model, X, time, evaluation, condition)[0])
        return np.einsum("kn,kni->ni", shares, np.array(gradients)).astype(X.dtype, copy=False)
    x, fields = scaled_rows(model, X, time, evaluation, condition)
    anchor, parts = model.anchor()
    if not model.has_gradient:
        raise NoDensityError(
            f"The gradient needs a base density that can be differentiated, but it is a "
            f"{type(model.base_density).__name__}: fit with base_density='flow'."
        )
    pieces: list[Tensor] = []
    for rows in torch.arange(len(x)).split(_GRADIENT_ROWS):
        with torch.enable_grad():
            at, some = x[rows].requires_grad_(), fields.rows(rows)
            value, _ = density_parts(some, at, float(time), _GRADIENT_LEVEL, GRID_SPACING, anchor, parts, None)
            pieces.append(torch.autograd.grad(value.sum(), at)[0])
    gradient = as_array(torch.cat(pieces), np.float64)
    gradient = settled(gradient, "differentiating a log-density", evaluation.strict)
    return model.target_map.pull_back_score(gradient, X).astype(X.dtype, copy=False)


@torch.no_grad()
def density_ratio(
    model: FittedModel, X: np.ndarray, evaluation: Evaluation, condition: object = None
) -> tuple[np.ndarray, np.ndarray]:
    """Log rho_1(x) - log rho_0(x) at validated rows, and its stated error, in nats.

    As learned from the rows of both ends, with its statistical error, where the model has a ratio of its own; else
    from the fields, with the error of the quadrature.
    """
    model.require_score("density_ratio")
    if len(model.members) > 1:  # which share the density of their base
        found = [density_ratio(member, X, evaluation, condition) for member in model.members]
        logs, their_errors = (np.array(part, np.float64) for part in zip(*found, strict=True))
        return mixed(logs, their_errors, X.dtype)
    if model.ratio is not None:
        model.fields(X.dtype, evaluation.device, condition, len(X), evaluation.guidance)  # refuses a condition
        model.ratio.check_overlap()
        # the Jacobian of a support is the same for both densities
        ratio, error = model.ratio.evaluate(X if model.support is None else model.support.transform(X))
        return ratio.astype(X.dtype, copy=False), error.astype(X.dtype, copy=False)
    _, fields = scaled_rows(model, X, torch.ones((), dtype=torch.float64), evaluation, condition)
    units, device = model.units, evaluation.device
    scale, dtype = units.scale, evaluation_dtype(X.dtype, device)

    def points(rows: Tensor, t: Tensor) -> Iterator[Tensor]:
        frame = scale.transform(units.centre(t, derivative=True)[None])[0]
        return (as_tensor(a, dtype, device) for a in (units.to_scaled(X[rows.numpy()], t), frame))

    value, stated = log_density_ratio(fields, points, GRID_SPACING, evaluation.tolerance, len(X))
    ratio = settled(as_array(value, X.dtype), "computing a density ratio", evaluation.strict)
    stated = unknown_where_lost(stated, ratio)
    warn_missed(stated, evaluation.tolerance)
    return ratio, as_array(stated, X.dtype)


def scaled_rows(
    model: FittedModel, X: np.ndarray, time: Tensor, evaluation: Evaluation, condition: object = None
) -> tuple[Tensor, Fields]:
    """Rows at one time in scaled units, as tensors, and the fields in their dtype."""
    model.require_density()
    device = evaluation.device
    x = as_tensor(model.units.to_scaled(X, time), evaluation_dtype(X.dtype, device), device)
    return x, model.fields(X.dtype, device, condition, len(X), evaluation.guidance)
