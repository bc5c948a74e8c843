"""A flow map learned from the ODE's own solutions: one to four evaluations where the solver takes dozens."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.utils import Bunch
from torch import Tensor, nn

from .._model.fields import Fields
from .._model.flow_map import FlowMap
from .._training.batches import make_task
from .._training.loop import Scores, Settings, train
from .._training.losses import Regression
from .._utils.tensors import (
    DISTILL_STREAM,
    blocks,
    make_generator,
)
from ..metrics import sliced_wasserstein
from ..networks._fields import ResidualField
from ..networks._perceptrons import FiLMNetwork, Perceptron
from ..solvers import odeint, time_grid
from .model_access import AsksModel

# Solutions of the ODE: three quarters are for training, the others for validation.
_PAIRS = 65_536
# Rows on which a round is validated.
_VALIDATION_ROWS = 4096
# Steps of RK4 from t = 0 to 1 that make the solutions.
_FINE_STEPS = 24
# Rows that are solved at a time.
_ROWS_PER_SOLVE = 4096
# Points in a gradient step.
_BATCH = 1024
# Largest number of steps of the map: beyond it a plain solver is as good.
_MOST_STEPS = 8


@torch.no_grad()
def _paths(fields: Fields, x: Tensor, times: Tensor, spacing: str, node: float | None) -> Tensor:
    """States at all times of the map's grid, of shape (n_steps + 1, n, d), by fine steps between them."""
    states = [x]
    for start, stop in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        grid = time_grid(max(4, _FINE_STEPS // (len(times) - 1)), spacing, start, stop, node)
        some = [
            odeint(fields.rows(rows).velocity, states[-1][rows], grid, "rk4")
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

    def distill(self, n_steps=1, *, condition=None, max_iter=4000, max_time=None):
        """Learn the flow map of the fitted ODE, with which `sample` takes one to eight evaluations a row.

        X_{s,t}(x) = A x + c + r F(s, x),    fitted to solutions of dx/dt = b(t, x) from fresh rows of the base

        (flow maps: 2406.07507). It is used by ``set_params(solver="distilled")``; densities, `transform` and
        all other solvers stay what they are.

        Parameters
        ----------
        n_steps : int, default=1
            Steps of the map, 1 to 8; each is one evaluation of a network of the size of the fitted one.
        condition : array-like of shape (n_rows,) or (n_rows, n_conditions), default=None
            For a model fitted with a condition, rows to learn the map for, as those to be sampled with.
        max_iter : int, default=4000
            Gradient steps.
        max_time : float or None, default=None
            Seconds of training, after the solutions. Gives up reproducibility.

        Returns
        -------
        self : object
            The estimator, with the attributes `flow_map_` and `distillation_report_`: `error` (root mean square of a
            coordinate against the exact flow, in scaled units), `sliced_w2` between rows of the map and of the exact
            flow from other starts, `sliced_w2_floor` between two samples of the exact flow, `n_steps` and `guidance`.

        Raises
        ------
        ValueError
            For a mirror or forecasting model, which has no flow from its base, or when the condition is missing.
        """
        model = self._ready()
        if not isinstance(n_steps, (int, np.integer)) or not 1 <= n_steps <= _MOST_STEPS:
            raise ValueError(f"Got n_steps={n_steps!r}, but expected an integer from 1 to {_MOST_STEPS}.")
        settings = _settings(max_iter, max_time, self.verbose)
        self.model_, report = distill(model, int(n_steps), condition, self._evaluation(), settings)
        self.distillation_report_ = Bunch(**report, n_steps=int(n_steps), guidance=self._guidance())
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
    if model.sampling_grid is None:
        raise ValueError("distill needs a flow from a base: a mirror model, or one with start='condition', has none.")
    if (condition is None) != (model.condition_codec is None):
        what = "needs condition= rows, because it" if condition is None else "got a condition, but the model"
        how = "with" if condition is None else "without"
        raise ValueError(f"distill {what} was fitted {how} a condition.")
    generator = make_generator(model.seed, DISTILL_STREAM + 200, evaluation.device)
    x = model.base_rows(_PAIRS, generator, np.float32)
    n_rows = 1 if condition is None else len(condition)
    fields = model.fields(np.float32, evaluation.device, condition, n_rows, evaluation.guidance)
    fields = fields.rows(torch.randint(n_rows, (_PAIRS,), generator=generator, device=evaluation.device))
    grid = model.sampling_grid[1], model.interpolant.gaussian_time
    widths, seed = hidden_widths(model), model.seed
    flow_map, report = fit_flow_map(fields, x, n_steps, grid, widths, model.activation, settings, seed)
    return dataclasses.replace(model, flow_map=flow_map, distilled_guidance=evaluation.guidance), report


def hidden_widths(model):
    """Widths of the hidden layers of the fitted network, if it is ours."""
    network = model.velocity.network if isinstance(model.velocity, ResidualField) else model.velocity
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
