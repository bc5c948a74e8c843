"""A flow map learned from the ODE's own solutions: one to four evaluations where the solver takes dozens."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .._model.fields import Fields
from .._model.flow_map import FlowMap
from .._model.levels import ASSUMED
from .._model.likelihood import GRID_SPACING, ode_log_density
from .._training.batches import make_task
from .._training.density_map import Errors, fit_density_map, fit_errors, row_errors, solve_paths
from .._training.loop import Scores, Settings, train
from .._training.losses import Regression
from .._utils.figures import Figures
from .._utils.input_checks import check_count
from .._utils.tensors import (
    DISTILL_STREAM,
    blocks,
    make_generator,
)
from ..metrics import sliced_wasserstein
from ..networks._averaged import AveragedNetwork
from ..networks._fields import ResidualField
from ..networks._perceptrons import FiLMNetwork, Perceptron
from ..solvers import odeint, time_grid
from .model_access import AsksModel

# Solutions of the ODE: three quarters are for training, the others for validation.
_PAIRS = 65_536
# How many times as many are solved for the density, and the share of them that is for stated errors.
_MORE_FOR_DENSITY = 5
_HELD_SHARE = 1 / 8
# Numbers in the states of all paths, at the most (half a gigabyte).
_MOST_NUMBERS = 2**27
# Rows whose log-densities are solved for apart from their paths, and the nats to which they are.
_FINE_ROWS = 4096
_FINE = 3e-3
# Rows on which a round is validated.
_VALIDATION_ROWS = 4096
# Steps of RK4 from t = 0 to 1 that make the solutions.
_FINE_STEPS = 24
# Rows that are solved at a time.
_ROWS_PER_SOLVE = 4096
# Points in a gradient step.
_BATCH = 1024
# Share of the time that the flow map takes beside the map of the density.
_SHARE_OF_FLOW_MAP = 0.25
# Largest number of steps of the map: beyond it a plain solver is as good.
_MOST_STEPS = 8
# Steps of a map of samples alone, and with log-densities.
_STEPS = 1
_STEPS_OF_DENSITY = 8


@torch.no_grad()
def _paths(fields: Fields, x: Tensor, times: Tensor, spacing: str, node: float | None) -> Tensor:
    """States at all times of the map's grid, of shape (n_steps + 1, n, d), by fine steps between them."""
    states = [x]
    for start, stop in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        grid = time_grid(max(4, _FINE_STEPS // (len(times) - 1)), spacing, start, stop, node).to(x)
        some = [
            odeint(fields.rows(rows).velocity_along(grid, "rk4"), states[-1][rows], grid, "rk4")
            for rows in blocks(len(x), _ROWS_PER_SOLVE)
        ]
        states.append(torch.cat(some))
    return torch.stack(states)


def _linear_parts(states: Tensor) -> tuple[Tensor, ...]:
    """Least squares of each state on the one before: matrices, shifts, and the size of what is left."""
    parts = []
    for x, y in zip(states[:-1].double(), states[1:].double(), strict=True):
        ones = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        solution = torch.linalg.lstsq(ones, y).solution
        size = (y - ones @ solution).square().mean().sqrt().clamp(min=1e-6)
        parts.append((solution[:-1], solution[-1], size))
    return tuple(torch.stack(part).to(states.dtype) for part in zip(*parts, strict=True))


class _Pairs:
    """Regressions of the map on random steps of random paths."""

    def __init__(self, flow_map: FlowMap, states: Tensor, condition: Tensor | None, generator: torch.Generator) -> None:
        self.map, self.states, self.condition, self.generator = flow_map, states, condition, generator

    def regression(self, rows: Tensor, steps: Tensor) -> Regression:
        """F against what the linear map leaves, in units of its size."""
        x, y = self.states[steps, rows], self.states[steps + 1, rows]
        linear = torch.einsum("nd,nde->ne", x, self.map.matrices[steps]) + self.map.shifts[steps]
        condition = None if self.condition is None else self.condition[rows]
        return Regression(self.map.times[steps], x, condition, (linear - y) / self.map.sizes[steps][:, None])

    def loss(self) -> Tensor:
        """The loss on a fresh batch; its gradients are added to those of the network."""
        n_steps, n = len(self.states) - 1, self.states.shape[1]
        rows = torch.randint(n, (_BATCH,), generator=self.generator, device=self.states.device)
        steps = torch.randint(n_steps, (_BATCH,), generator=self.generator, device=self.states.device)
        return make_task(self.map.network, self.regression(rows, steps)).loss(slice(0, _BATCH))


def fit_flow_map(
    fields: Fields,
    x: Tensor,
    n_steps: int,
    grid: tuple[str, float | None],
    widths: Sequence[int],
    activation: str,
    settings: Settings,
    seed: int,
) -> tuple[FlowMap, dict]:
    """A flow map of the ODE, and its report.

    Parameters
    ----------
    fields : Fields
        The velocity, in scaled units, with a condition for each row if it has one.
    x : Tensor of shape (n, d)
        Rows of the base; the last quarter of them is for validation.
    n_steps : int
        Steps of the map.
    grid : tuple of (str, float or None)
        Spacing of the solver's time grid, and a time at which the velocity is not smooth.
    widths, activation
        Of the network.
    settings : Settings
        Of its training.
    seed : int

    Returns
    -------
    flow_map : FlowMap
    report : dict
        `error`, the root mean square of a coordinate against the exact flow (scaled units); `sliced_w2` between rows of
        the map and of the flow from other starts, and `sliced_w2_floor`, that of two samples of the flow.
    """
    times = time_grid(n_steps, "uniform").to(x)
    states = _paths(fields, x, times, *grid)
    fit, val = slice(0, 3 * (len(x) // 4)), slice(3 * (len(x) // 4), len(x))
    known = fields.rows(fit).condition
    n_conditions = 0 if known is None else known.shape[1]
    weights = make_generator(seed, DISTILL_STREAM + 100)
    network = FiLMNetwork(x.shape[1], n_conditions, widths, activation, weights).to(x.device)
    flow_map = FlowMap(network, times, *_linear_parts(states[:, fit])).eval()
    pairs = _Pairs(flow_map, states[:, fit], known, make_generator(seed, DISTILL_STREAM, x.device))
    few = slice(val.start, val.start + _VALIDATION_ROWS)

    @torch.no_grad()
    def score() -> float:
        return -float((flow_map(x[few], fields.rows(few).condition) - states[-1, few]).square().mean())

    train(nn.ModuleDict({"network": network}), pairs.loss, Scores(score, start=score), settings)
    with torch.no_grad():
        rows = flow_map(x[val], fields.rows(val).condition)
    return flow_map, _report(rows, states[-1, val])


def _report(rows: Tensor, exact: Tensor) -> dict:
    """Errors of the map: against the exact flow from the same rows, and in distribution from other rows."""
    own, other = exact.double().cpu().split(len(exact) // 2)[:2]
    mapped = rows[: len(own)].double().cpu()
    return {
        "error": float((rows - exact).square().mean().sqrt()),
        "sliced_w2": sliced_wasserstein(mapped, other, standardize=False),
        "sliced_w2_floor": sliced_wasserstein(own, other, standardize=False),
    }


class DistillationMethods(AsksModel):
    """A fast sampler from a fitted model."""

    def distill(self, n_steps=None, *, condition=None, log_density=False, max_iter=4000, max_time=None):
        """Learn the flow map of the fitted ODE, with which `sample` takes one to eight evaluations a row.

        X_{s,t}(x) = A x + c + r F(s, x),    fitted to solutions of dx/dt = b(t, x) from fresh rows of the base

        (flow maps: 2406.07507). It is used by ``set_params(solver="distilled")``; densities and `transform` stay what
        they are. With log_density=True the map back to the base is learned too, with the log-density along it,

        (X_{t,s}(x), a) = A' x + c' + r' F'(x),    log rho_1(x) = log rho_0(z) + sum a

        (the joint map of state and divergence: 2512.02636), and the error of both as a function of the row, such that
        it covers that of 99 % of fresh rows. solver="distilled" then rules `score_samples` (at t = 1), `score`,
        `transform` and `inverse_transform` as well: rows whose stated error is above `ode_tol` are solved by the ODE,
        and the others cost as many evaluations as the map has steps.

        Parameters
        ----------
        n_steps : int, default=None
            Steps of the map, 1 to 8; each is one evaluation of a network of the size of the fitted one. None is 1, and
            8 with log_density=True: with four the errors of the log-density are half as large again.
        condition : array-like of shape (n_rows,) or (n_rows, n_conditions), default=None
            For a model fitted with a condition, rows to learn the map for, as those to be sampled with.
        log_density : bool, default=False
            Whether to learn the log-density as well. More gradient steps make it more accurate.
        max_iter : int, default=4000
            Gradient steps, of either map.
        max_time : float or None, default=None
            Seconds of training, after the solutions; of two maps, the larger part is for the density. Gives up
            reproducibility.

        Returns
        -------
        self : object
            The estimator, with the attributes `flow_map_` and `distillation_report_`: `error` (root mean square of a
            coordinate against the exact flow, in scaled units), `sliced_w2` between rows of the map and of the exact
            flow from other starts, `sliced_w2_floor` between two samples of the exact flow, `n_steps` and `guidance`.
            With log_density=True also, of fresh rows of the model: `log_density_error`, the median absolute error in
            nats, and `stated_error`, the median of what is stated; `sent_back`, the share of rows whose stated error is
            above `ode_tol`; `mass`, to which the one-pass density integrates, by importance sampling, and `kl`, the
            Kullback-Leibler divergence of the exact density from it once it is normalised; `to_base_error`, the root
            mean square of a coordinate of the rows that go back, and `round_trip`, the same of rows that go back and
            forth (scaled units).

        Raises
        ------
        ValueError
            For a mirror or forecasting model, which has no flow from its base, or when the condition is missing. With
            log_density=True also for an encoding-decoding path.
        NoDensityError
            With log_density=True, when the density of the base is not known.
        """
        model = self._ready()
        if n_steps is None:
            n_steps = _STEPS_OF_DENSITY if log_density is True else _STEPS
        if not isinstance(n_steps, (int, np.integer)) or not 1 <= n_steps <= _MOST_STEPS:
            raise ValueError(f"Got n_steps={n_steps!r}, but expected an integer from 1 to {_MOST_STEPS}.")
        if not isinstance(log_density, (bool, np.bool_)):
            raise ValueError(f"Got log_density={log_density!r}, but expected True or False.")
        settings = _settings(check_count(max_iter, "max_iter"), max_time, self.verbose)
        evaluation = self._evaluation()
        if not log_density:
            self.model_, report = distill(model, int(n_steps), condition, evaluation, settings)
        else:
            check_density_map(model)
            of_map, of_density = shared(settings)
            mapped, report = distill(model, int(n_steps), condition, evaluation, of_map)
            self.model_, own = distill_density(mapped, int(n_steps), condition, evaluation, of_density)
            report |= own
        self.distillation_report_ = Figures(**report, n_steps=int(n_steps), guidance=self._guidance())
        return self

    @property
    def flow_map_(self):
        """The distilled flow map, after `distill`."""
        if self.model_.flow_map is None:
            raise AttributeError("flow_map_: call distill() after fit")
        return self.model_.flow_map


def distill(model, n_steps, condition, evaluation, settings):
    """The model with a flow map of its ODE, and the report on the map.

    Parameters
    ----------
    model : FittedModel
    n_steps : int
        Steps of the map.
    condition : array-like or None
        Rows to learn the map for.
    evaluation : Evaluation
    settings : Settings
        Of the training of the map.
    """
    if model.interpolant.circular:
        raise ValueError("distill learns a map between lines, not around circles: sample by the ODE (solver='auto').")
    if model.sampling_grid is None:
        raise ValueError("distill needs a flow from a base: a mirror model, or one with start='condition', has none.")
    if (condition is None) != (model.condition_codec is None):
        what = "needs condition= rows, because it" if condition is None else "got a condition, but the model"
        how = "with" if condition is None else "without"
        raise ValueError(f"distill {what} was fitted {how} a condition.")
    generator = make_generator(model.seed, DISTILL_STREAM + 200, evaluation.device)
    x, fields = _starts(model, condition, evaluation, generator, _PAIRS)
    grid = model.sampling_grid[1], model.interpolant.gaussian_time
    widths, seed = hidden_widths(model), model.seed
    flow_map, report = fit_flow_map(fields, x, n_steps, grid, widths, model.activation, settings, seed)
    guidance = evaluation.guidance
    return dataclasses.replace(model, flow_map=flow_map, density_map=None, distilled_guidance=guidance), report


def _starts(model, condition, evaluation, generator, n):
    """Rows of the base, and the fields with a random row of the condition for each."""
    x = model.base_rows(n, generator, np.float32)
    n_rows = 1 if condition is None else len(condition)
    fields = model.fields(np.float32, evaluation.device, condition, n_rows, evaluation.guidance)
    return x, fields.rows(torch.randint(n_rows, (n,), generator=generator, device=evaluation.device))


def check_density_map(model):
    """Refuse a model without a log-density that leads back to its base."""
    model.require_density()
    if model.target_model is not None:
        raise ValueError(
            "distill(log_density=True) learns the density of rows that were transported, but this bridge has one of "
            "its target alone: fit with base_density='flow', or distill() for samples alone."
        )
    if model.interpolant.gaussian_time is not None:
        raise ValueError(
            "distill(log_density=True) needs a density that is known at t = 0, but that of an encoding-decoding path "
            "is known in the middle: use interpolant='linear', or distill() for samples alone."
        )
    if model.base_sample is not None:
        model.base_parts()  # which raises where there are none


def distill_density(model, n_steps, condition, evaluation, settings):
    """The model with a map back to the base with its log-density, and the report on it.

    Parameters
    ----------
    model : FittedModel
        With a distilled flow map.
    n_steps, condition, evaluation, settings
        As in `distill`.
    """
    generator = make_generator(model.seed, DISTILL_STREAM + 600, evaluation.device)
    n_paths = min(_MORE_FOR_DENSITY * _PAIRS, _MOST_NUMBERS // ((n_steps + 1) * model.n_features))
    x, fields = _starts(model, condition, evaluation, generator, n_paths)
    parts = None if model.base_sample is None else model.base_parts()
    paths = solve_paths(fields, x, n_steps, parts, model.likelihood_calibration, generator)
    n_held = round(_HELD_SHARE * len(paths.density))
    learned, held = paths.rows(slice(n_held, None)), paths.rows(slice(0, n_held))
    widths, activation, seed = hidden_widths(model), model.activation, model.seed
    density_map = fit_density_map(fields, learned, widths, activation, settings, seed)
    n_fine = min(_FINE_ROWS, len(held.density) // 2)
    fine = _solved_finely(model, fields, held.rows(slice(n_fine)))
    with torch.no_grad():
        # which the paths share with the map: a few thousandths of a nat
        density_map.shifts[-1, -1] -= (density_map(fine.states[0], fine.condition)[1] - fine.density).median()
    others, covered = (_errors(density_map, model.flow_map, part) for part in (held.rows(slice(n_fine, None)), fine))
    given = x.shape[1], activation, settings, seed
    density_map.errors = fit_errors(others[0], covered[0], *given)
    density_map.map_errors = fit_errors(others[1], covered[1], *given)
    report = _density_report(density_map, held, evaluation.tolerance)
    with torch.no_grad():
        again = model.flow_map(density_map(held.states[0], held.condition)[0].float(), held.condition)
    report["round_trip"] = float((again - held.states[0]).square().mean().sqrt())
    return dataclasses.replace(model, density_map=density_map), report


@torch.no_grad()
def _solved_finely(model, fields, paths):
    """Paths with a log-density that was solved for by itself: the stated errors cover those of the paths as well."""
    own = Fields(fields.interpolant, fields.velocity_network, fields.denoiser_network, paths.condition)
    calibration = model.likelihood_calibration or ASSUMED
    asked = 1.0, *model.anchor(), _FINE, GRID_SPACING, calibration
    value, error = ode_log_density(own, paths.states[0], *asked)
    return paths._replace(density=torch.where(error <= _FINE, value, paths.density))


@torch.no_grad()
def _errors(density_map, flow_map, paths):
    """Errors of the density and of the row of the base, and those of the flow map in the other direction."""
    base, target = paths.states[-1], paths.states[0]
    back, value, indicators = density_map(target, paths.condition)
    forth = flow_map(base, paths.condition)
    errors = torch.stack([(value - paths.density).abs().float(), row_errors(back.float(), base)], 1)
    of_map = row_errors(forth, target)[:, None]
    return (
        Errors(indicators, errors, paths.condition),
        Errors(torch.cat([base, forth], 1), of_map, paths.condition),
    )


@torch.no_grad()
def _density_report(density_map, held, tolerance):
    """Errors of the one-pass density on rows of the model; those that start farther out are left out."""
    held = held.rows(held.is_own)
    back, value, indicators = density_map(held.states[0], held.condition)
    gap, stated = value - held.density, density_map.errors(indicators, held.condition, back.shape[1])[:, 0]
    log_mass = torch.logsumexp(gap, 0) - math.log(len(gap))
    return {
        "log_density_error": float(gap.abs().median()),
        "stated_error": float(stated.median()),
        "sent_back": float((stated > tolerance).double().mean()),
        "mass": float(log_mass.exp()),
        "kl": float(log_mass - gap.mean()),
        "to_base_error": float((back - held.states[-1]).square().mean().sqrt()),
    }


def shared(settings):
    """The settings of the two maps, which share the time."""
    if settings.max_time is None:
        return settings, settings
    share = _SHARE_OF_FLOW_MAP
    return tuple(dataclasses.replace(settings, max_time=part * settings.max_time) for part in (share, 1 - share))


def hidden_widths(model):
    """Widths of the hidden layers of the fitted network, if it is ours."""
    network = model.velocity.network if isinstance(model.velocity, ResidualField) else model.velocity
    network = network.members[0] if isinstance(network, AveragedNetwork) else network
    return tuple(len(w) for w in network.weights) if isinstance(network, Perceptron) else (128, 128, 128)


def _settings(max_iter: int, max_time: float | None, verbose: int) -> Settings:
    return Settings(
        batch_size=_BATCH,
        learning_rate_init=0.01,
        max_iter=max_iter,
        max_time=max_time,
        tol=0.0,
        n_iter_no_change=math.inf,
        early_stopping=True,
        verbose=verbose,
        time_distribution="uniform",
    )
