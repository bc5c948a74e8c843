"""Rectified flows: refitted to the pairs that the flow itself makes, so that its paths become straight."""

import dataclasses
import math

import numpy as np
import torch
from torch import nn

from .._model.fields import Fields
from .._model.likelihood import GRID_SPACING
from .._model.step_choice import PILOT_ROWS, choose_grid
from .._training.batches import Batches, Sampler, held_out_loss
from .._training.loop import Scores, Settings, train
from .._utils.figures import Figures
from .._utils.input_checks import check_count
from .._utils.tensors import RECTIFY_STREAM, make_generator
from ..couplings import OwnPairs, paired
from ..interpolants import Linear
from ..networks import PreconditionedField
from ..networks._perceptrons import FiLMNetwork
from ..solvers import odeint, time_grid
from .distillation import hidden_widths
from .model_access import AsksModel

# Pairs of a round.
_PAIRS = 20_000
# Those of them that are held out for validation.
_VALIDATION_PAIRS = 2000
# Steps of the fifth-order solver that makes the pairs.
_SOLVER_STEPS = 24
# Rows that are solved at a time.
_ROWS_PER_SOLVE = 4096


def _ends_and_straightness(velocity, x, grid):
    """X_1 of the rows x, and E int |X_1 - X_0 - dX_t/dt|^2 dt."""
    times = time_grid(_SOLVER_STEPS, *grid).to(x)
    ends, total = [], 0.0
    for some in x.split(_ROWS_PER_SOLVE):
        states, slopes = odeint(velocity, some, times, "dopri5", dense=True)
        bent = (states[-1] - states[0] - slopes).square().sum(2).sum(1)
        total += float(torch.trapezoid(bent, times))
        ends.append(states[-1])
    return torch.cat(ends), total / len(x)


def _distance(x0, x1):
    return float((x1 - x0).square().sum(1).mean())


class RectificationMethods(AsksModel):
    """A flow with straight paths from a fitted one."""

    def rectify(self, n_rounds=1, *, max_iter=3000, max_time=None):
        """Refit the velocity to the flow's own pairs (x, X_1(x)), along straight paths between them.

        b = argmin E|b(t, x_t) - (X_1(x) - x)|^2,    x_t = (1 - t) x + t X_1(x)

        (rectified flow: 2209.03003; 2303.08797, sec. 5.3). The distributions at both ends stay those of the fitted
        flow, its errors included. Paths become straight, so that few steps are enough to sample, and the mean squared
        distance by which rows are moved never grows.

        Parameters
        ----------
        n_rounds : int, default=1
            How often.
        max_iter : int, default=3000
            Gradient steps of a round.
        max_time : float or None, default=None
            Seconds of training of a round. Gives up reproducibility.

        Returns
        -------
        self : object
            The estimator, changed in place, with `rectification_report_`: for the fitted flow and after each round, in
            scaled units squared a row, `distance` E|Z_1 - Z_0|^2 of the flow, its `straightness`
            int E|Z_1 - Z_0 - dZ_t/dt|^2 dt (0: straight), and of the pairs that it was fitted to (nan: not known)
            `coupling_distance` and `crossing` int E|x1 - x0 - b(t, x_t)|^2 dt. For an exact velocity
            coupling_distance = distance + straightness + crossing.

        Raises
        ------
        ValueError
            For models that are no flow from a base: with a denoiser, mirror or forecasting models; for conditional
            ones; and on encoding-decoding paths.
        """
        model = self._ready()
        check_count(n_rounds, "n_rounds")
        settings = _settings(max_iter, max_time, self.verbose)
        self.model_, report = rectify(model, n_rounds, settings, self._evaluation().device)
        for name in ("distillation_report_", "action_curve_"):  # of the old velocity
            self.__dict__.pop(name, None)
        self.rectification_report_ = report
        return self


def rectify(model, n_rounds, settings, device):
    """The model with the velocity of straight paths between its own pairs, and the report on the rounds.

    Parameters
    ----------
    model : FittedModel
    n_rounds : int
        How often.
    settings : Settings
        Of the training of a round.
    device : torch.device
        Where.
    """
    _check_rectifiable(model)
    generator = make_generator(model.seed, RECTIFY_STREAM, device)
    x0 = model.base_rows(_PAIRS, generator, np.float32)
    with torch.no_grad():
        velocity = model.fields(np.float32, device).velocity
        x1, straightness = _ends_and_straightness(velocity, x0, (GRID_SPACING, 0.0, 1.0, None))
    report = [(_distance(x0, x1), straightness, math.nan, math.nan)]
    for number in range(n_rounds):
        field, crossing = _refit(model, x0, x1, settings, generator, number)
        coupling_distance, velocity = _distance(x0, x1), Fields(field.interpolant, field).velocity
        with torch.no_grad():
            x1, straightness = _ends_and_straightness(velocity, x0, ("uniform", 0.0, 1.0))
        report.append((_distance(x0, x1), straightness, crossing, coupling_distance))
    names = ("distance", "straightness", "crossing", "coupling_distance")
    return _with_velocity(model, field, x0[:PILOT_ROWS]), Figures(
        **dict(zip(names, map(list, zip(*report, strict=True)), strict=True))
    )


def _check_rectifiable(model):
    if model.interpolant.circular:
        raise ValueError("rectify starts from a normal base, which circular columns do not have: use the flow itself.")
    if model.interpolant.gaussian_time is not None:
        raise ValueError(
            "rectify would take the middle of an encoding-decoding path away, from which its density follows: use "
            "interpolant='linear'."
        )
    if model.masked_map is not None:
        raise ValueError(
            "rectify changes the velocity of whole rows alone, so that the answers of conditionals='any' would no "
            "longer agree with it: fit with conditionals=None."
        )
    if model.sampling_grid is None or model.denoiser is not None or model.condition_codec is not None:
        raise ValueError(
            "rectify needs an unconditional flow from a base: use InterpolantFlow without a condition, and not "
            "interpolant='mirror'."
        )


def _refit(model, x0, x1, settings, generator, number):
    """A velocity of the straight paths between pairs, and its mean squared error on held-out ones."""
    path, d = Linear(), x0.shape[1]
    weights = make_generator(model.seed, RECTIFY_STREAM + 100 + number)
    network = FiLMNetwork(d, 0, hidden_widths(model), model.activation, weights)
    centred = ((x0 - x0.mean(0)) * (x1 - x1.mean(0))).mean(0)
    moments = (x.cpu() for x in (x0.var(0, correction=0), x1.var(0, correction=0), centred))
    field = PreconditionedField(path, network, "velocity", *moments).to(x0.device)
    networks = nn.ModuleDict({"velocity": field}).eval()
    val, kept = (
        Sampler(x0[rows], x1[rows], None, paired, False)
        for rows in (slice(_VALIDATION_PAIRS), slice(_VALIDATION_PAIRS, None))
    )
    points = make_generator(model.seed, RECTIFY_STREAM + 50, x0.device)
    loss = held_out_loss(networks, path, "uniform", val, 2 * _VALIDATION_PAIRS, points)
    with Batches(networks, path, settings.time_distribution, kept, settings.batch_size, generator) as batches:
        train(networks, batches.loss, Scores(lambda: -float(loss()), start=lambda: -float(loss())), settings)
    t = torch.rand(len(x0), generator=generator, device=x0.device)
    with torch.no_grad():
        residual = x1 - x0 - field(t, path.point(t, x0, x1))
    return field, float(residual.square().sum(1).mean())


def _with_velocity(model, field, pilots):
    """The model with another velocity; what follows from the old one alone goes."""
    return dataclasses.replace(
        model,
        velocity=field,
        learned={"velocity": field},
        interpolant=field.interpolant,
        sampling_grid=choose_grid(Fields(field.interpolant, field), pilots, None),
        coupling=OwnPairs(noise_level=0.0),
        flow_map=None,
        density_map=None,
        likelihood_calibration=None,
        is_rectified=True,
    )


def _settings(max_iter, max_time, verbose):
    return Settings(
        batch_size=512, learning_rate_init=0.01, max_iter=max_iter, max_time=max_time, tol=0.0,
        n_iter_no_change=math.inf, early_stopping=True, verbose=verbose, time_distribution="uniform",
    )  # fmt: skip
