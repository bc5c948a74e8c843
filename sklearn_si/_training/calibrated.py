"""Log-densities of a new model, calibrated on held-out rows."""

import dataclasses

import torch
from torch import Tensor

from .._model.calibration import calibrate, pilot_rows
from .._model.fields import Fields
from .._model.fitted import FittedModel
from .._utils.tensors import CALIBRATION_STREAM, cast_module, make_generator
from .run import Run


def calibrated(run: Run, model: FittedModel, n_points: int) -> FittedModel:
    """The model with its log-densities calibrated, as the work of a fit on so many points allows.

    Parameters
    ----------
    run : Run
        What the model was learned by.
    model : FittedModel
    n_points : int
        Points of all the steps of training.
    """
    problem, fields = run.problem, _precise_fields(run, model)
    n_rows = pilot_rows(fields, n_points, run.x1.shape[1]) if _has_density(run, model) else 0
    if not n_rows:
        return model
    rows = _held_out_rows(run, n_rows)
    x, base, calibration = run.joint_rows(rows), model.base_model, None
    of_base = None if base is None else base.likelihood_calibration
    with problem.interruptible(lambda: True, "in the calibration of its log-densities, which are solved as usual."):
        calibration = problem.group.first(lambda: calibrate(fields.rows(rows), x, *model.anchor(), of_base))
    return dataclasses.replace(model, likelihood_calibration=calibration)


def _has_density(run: Run, model: FittedModel) -> bool:
    """Whether the log-density of the target is known, and can be solved in double precision."""
    known = model.interpolant.gaussian_time is not None or run.x0 is None or model.base_density is not None
    return known and not model.is_forecast and not model.is_mirror and run.device.type != "mps"


def _precise_fields(run: Run, model: FittedModel) -> Fields:
    """The fields in double precision, with the conditions of all rows."""
    velocity = cast_module(model.velocity, torch.float64, run.device)
    denoiser = None if model.denoiser is None else cast_module(model.denoiser, torch.float64, run.device)
    condition = None if run.condition is None else run.condition.double()
    return Fields(model.interpolant, velocity, denoiser, condition)


def _held_out_rows(run: Run, n_rows: int) -> Tensor:
    """Numbers of held-out rows, or of any rows where too few are held out."""
    held = run.problem.target_val
    some = torch.arange(len(run.x1)) if held is None or len(held) < n_rows else torch.as_tensor(held)
    generator = make_generator(run.problem.seed, CALIBRATION_STREAM)
    return some[torch.randperm(len(some), generator=generator)[:n_rows]]
