"""How a density map is learned: from paths of the fitted ODE with their divergence, and then as a whole."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .._model.fields import Fields
from .._model.levels import ASSUMED, Level, LikelihoodCalibration
from .._model.likelihood import Parts, follow, gauss_legendre, standard_normal_log_density
from .._model.one_pass import DensityMap, StatedErrors
from .._utils.tensors import DISTILL_STREAM, make_generator
from ..networks._fields import ResidualField
from ..networks._perceptrons import FiLMNetwork
from ..networks._steps import StepNetwork
from ..solvers import time_grid
from .loop import Scores, Settings, train
from .run import has_bf16
from .slope_products import divergence_tensor, slope_products
from .soap import SoapWithEMA

# Nats to which the paths are solved.
_PATH_TOLERANCE = 0.03
# Fewest steps and nodes of a path, and between two times of the map.
_LEAST = Level(8, 20)
_LEAST_OF_STEP = Level(1, 3)
# Rows that are followed at a time.
_ROWS_PER_SOLVE = 1024
# One row in so many starts farther out than the base, by a factor of up to 1 + `_WIDER`: rows of a table do as well.
_WIDE_EVERY = 4
_WIDER = 0.4
# Where between the ends of a step its network has its time.
_TIME_IN_STEP = 0.3
# Ridges of the least squares of linear maps and of outputs, in units of the mean square of each feature.
_LINEAR_RIDGE = 1e-9
_RIDGE = 1e-5
# Smallest size of a product of slopes, relative to the largest, that is made one of 1.
_LEAST_SIZE = 1e-2
# Rows by whose slopes the divergence is decomposed.
_ROWS_OF_SLOPES = 4096
# Every so manyth row is taken for least squares.
_LEAST_SQUARES_EVERY = 4
# Products of slopes in each network.
_RANK = 32
# Nats below which an error of a log-density counts by its square, and weight of the states beside it.
_SMALL_ERROR = 0.1
_WEIGHT_OF_STATES = 0.03
# Rows on which a round is validated, and points in a gradient step.
_VALIDATION_ROWS = 4096
_BATCH = 1024
# Learning rates: of the map, by SOAP, and of the network of stated errors.
_RATE = 2e-3
_ERROR_RATE = 3e-3
# Fewest units of a layer from which on it is trained in half precision, where the processor has it.
_WIDE_ENOUGH = 64
# Share of the training that is in half precision: its rounding, of some .05 nats, matters in the last steps.
_LOW_SHARE = 0.7
# Widths of the network of stated errors, its gradient steps, and the quantile of the log errors that it learns.
_ERROR_WIDTHS = (32, 32)
_ERROR_STEPS = 1500
_ERROR_QUANTILE = 0.95
# Added to errors before their logarithm, in nats or relative to a row.
_LEAST_ERROR = 1e-4
# Share of rows whose stated error covers the true one.
_COVERED = 0.991


class Paths(NamedTuple):
    """Solutions of the ODE from t = 1 to 0.

    Parameters
    ----------
    times : Tensor of shape (n_steps + 1,)
        From 1 to 0.
    states : Tensor of shape (n_steps + 1, n, d)
    changes : Tensor of shape (n_steps, n)
        What each step adds to the log-density.
    density : Tensor of shape (n,)
        The log-density at t = 1.
    condition : Tensor or None
        One row for each row.
    is_normal : bool
        Whether the log-density at t = 0 is normal, and so in none of the changes.
    is_own : Tensor of shape (n,)
        Whether the path starts from a row of the base, and not farther out.
    """

    times: Tensor
    states: Tensor
    changes: Tensor
    density: Tensor
    condition: Tensor | None
    is_normal: bool
    is_own: Tensor

    def rows(self, rows: slice | Tensor) -> "Paths":
        """Those of some rows."""
        condition = None if self.condition is None else self.condition[rows]
        states, changes, density = self.states[:, rows], self.changes[:, rows], self.density[rows]
        return Paths(self.times, states, changes, density, condition, self.is_normal, self.is_own[rows])

    def target(self, k: int) -> Tensor:
        """What step k leads to: the next state and the change of the log-density."""
        return torch.cat([self.states[k + 1], self.changes[k][:, None]], 1)


@torch.no_grad()
def solve_paths(
    fields: Fields,
    x: Tensor,
    n_steps: int,
    base_parts: Parts | None,
    calibration: LikelihoodCalibration | None,
    generator: torch.Generator,
) -> Paths:
    """The paths of rows of the base, with their log-densities; those that are lost or far off are left out.

    Parameters
    ----------
    fields : Fields
        The velocity, in scaled units.
    x : Tensor of shape (n, d)
        Rows at t = 0.
    n_steps : int
        Steps of the map.
    base_parts : callable or None
        Terms of the log-density of the base; None for a normal one.
    calibration : LikelihoodCalibration or None
        Of the model.
    generator : torch.Generator
        By which some rows of a normal base are taken farther out.
    """
    is_own = torch.ones(len(x), dtype=torch.bool, device=x.device)
    if base_parts is None:
        is_own[::_WIDE_EVERY] = False
        factors = 1 + _WIDER * torch.rand((len(x), 1), generator=generator, dtype=x.dtype, device=x.device)
        x = torch.where(is_own[:, None], x, factors * x)
    calibration = calibration or ASSUMED
    level = calibration.at(_PATH_TOLERANCE).measured(_PATH_TOLERANCE)[-1]
    whole = level.union(_LEAST)
    level = Level(whole.n_steps // n_steps, math.ceil(whole.n_nodes / n_steps)).union(_LEAST_OF_STEP)
    spacing = "quadratic" if fields.interpolant.path_type == "one-sided" else "logit"
    grid = time_grid(n_steps, spacing).tolist()
    blocks = torch.arange(len(x)).split(_ROWS_PER_SOLVE)
    base = None if base_parts is None else lambda rows: base_parts(rows, whole)[0].sum(1)
    solved = [_path(fields.rows(rows), x[rows], grid, level, base) for rows in blocks]
    states, changes, density = (torch.cat(part, 1) for part in zip(*solved, strict=True))
    kept = torch.isfinite(states).all(2).all(0) & torch.isfinite(density[0])
    times = torch.tensor(grid[::-1])
    return Paths(times, states, changes, density[0], fields.condition, base_parts is None, is_own).rows(kept)


def _path(
    fields: Fields, x: Tensor, times: list[float], level: Level, base: Callable[[Tensor], Tensor] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """States and changes of the log-density from t = 1 to 0, and the log-density at 1."""
    value = standard_normal_log_density(x) if base is None else base(x)
    states, changes = [x], [torch.zeros_like(value) if base is None else value]
    spacing = "logit" if len(times) == 2 else "uniform"
    for start, stop in itertools.pairwise(times):
        end, values, _ = follow(fields, states[-1], start, stop, level, spacing)
        states.append(end)
        changes.append(-(torch.as_tensor(gauss_legendre(level.n_nodes)[1]).to(x) @ values))
    density = value + sum(changes[1:])
    first = changes.pop(0)
    changes[0] = changes[0] + first
    return torch.stack(states[::-1]), torch.stack(changes[::-1]), density[None]


def fit_density_map(
    fields: Fields, paths: Paths, widths: Sequence[int], activation: str, settings: Settings, seed: int
) -> DensityMap:
    """The map, learned from paths; the first eighth of them is for validation.

    Its networks start from that of the velocity where this is one of ours, and its outputs from least squares. All
    steps are then trained together: by the log-density that they end with, and by the states between.

    Parameters
    ----------
    fields : Fields
    paths : Paths
    widths, activation
        Of the networks.
    settings : Settings
        Of their training.
    seed : int
    """
    n_val = min(_VALIDATION_ROWS, len(paths.density) // 8)
    learned, held = paths.rows(slice(n_val, None)), paths.rows(slice(0, n_val))
    density_map = _first_map(fields, learned, widths, activation, make_generator(seed, DISTILL_STREAM + 300))
    generator = make_generator(seed, DISTILL_STREAM + 400, paths.density.device)
    is_low = paths.density.device.type == "cpu" and min(widths) >= _WIDE_ENOUGH and has_bf16()
    dtype = _precision(settings) if is_low else lambda: None

    def loss() -> Tensor:
        rows = torch.randint(len(learned.density), (_BATCH,), generator=generator, device=generator.device)
        return _loss(density_map, learned.rows(rows), dtype())

    @torch.no_grad()
    def score() -> float:
        return -float(_loss(density_map, held, None))

    networks = nn.ModuleDict({"steps": density_map.networks})
    own = dataclasses.replace(settings, learning_rate_init=_RATE, optimizer=SoapWithEMA)
    train(networks, loss, Scores(score, start=score), own)
    return density_map.requires_grad_(False).eval()


def _precision(settings: Settings) -> Callable[[], torch.dtype | None]:
    """The dtype of inner products in each step that follows: half precision first, and that of the weights at last."""
    steps, began = itertools.count(), time.perf_counter()

    def dtype() -> torch.dtype | None:
        done = next(steps) / settings.max_iter
        if settings.max_time is not None:
            done = max(done, (time.perf_counter() - began) / settings.max_time)
        return torch.bfloat16 if done < _LOW_SHARE else None

    return dtype


def _loss(density_map: DensityMap, paths: Paths, dtype: torch.dtype | None) -> Tensor:
    """The mean error of the log-density, and of the states in units of what the linear maps leave."""
    states, changes = density_map.steps(paths.states[0], lambda network, x: network(x, paths.condition, dtype))
    value = density_map.log_density(states[-1], changes)
    errors = nn.functional.smooth_l1_loss(value, paths.density, beta=_SMALL_ERROR)
    between = zip(states, paths.states[1:], density_map.sizes, strict=True)
    return errors + _WEIGHT_OF_STATES * sum(((x - y) / size[:-1]).square().mean() for x, y, size in between)


@torch.no_grad()
def _first_map(
    fields: Fields, paths: Paths, widths: Sequence[int], activation: str, generator: torch.Generator
) -> DensityMap:
    """Linear maps by least squares, and networks whose outputs are fitted to the rest."""
    d = paths.states.shape[2]
    networks, parts = [], []
    n_conditions = 0 if paths.condition is None else paths.condition.shape[1]
    for k, (start, stop) in enumerate(itertools.pairwise(paths.times.tolist())):
        x, y = paths.states[k], paths.target(k)
        linear = _least_squares(torch.cat([x, torch.ones_like(x[:, :1])], 1), y, _LINEAR_RIDGE)
        rest = y - x @ linear[:-1] - linear[-1]
        size = rest.std(0).clamp(min=1e-6)
        parts.append((linear[:-1], linear[-1], size))
        time = start + _TIME_IN_STEP * (stop - start)
        network = StepNetwork(
            d, d + 1, widths, activation, time, n_conditions=n_conditions, rank=_RANK, generator=generator
        ).to(x.device)
        _start_from(network, fields.velocity_network, paths.rows(slice(_ROWS_OF_SLOPES)), k, generator)
        _fit_outputs(network, x, rest / size, paths.condition)
        networks.append(network)
    matrices, shifts, sizes = (torch.stack(part) for part in zip(*parts, strict=True))
    return DensityMap(networks, matrices, shifts, sizes, paths.is_normal)


def _least_squares(features: Tensor, values: Tensor, ridge: float) -> Tensor:
    """Coefficients of the values, in the dtype of the features."""
    some, y = features.double(), values.double()
    sizes = some.square().sum(0).sqrt().clamp(min=torch.finfo(some.dtype).tiny)
    some = some / sizes
    gram = some.T @ some
    gram += ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return (torch.linalg.solve(gram, some.T @ y) / sizes[:, None]).to(features.dtype)


def _start_from(network: StepNetwork, velocity: Any, paths: Paths, k: int, generator: torch.Generator) -> None:
    """Give a network the layers of that of the velocity, at its own time and for unscaled rows, and its divergence."""
    if not isinstance(velocity, ResidualField) or type(velocity.network) is not FiLMNetwork:
        return
    d = paths.states.shape[2]
    fitted = velocity.network
    for own, weights in zip(network.weights, fitted.weights, strict=True):
        own.copy_(weights)
    ends = torch.stack([torch.zeros(d), torch.ones(d)]).to(network.bias)
    scaled = velocity.preconditioning(network.time.to(network.bias), ends)[2]
    network.weights[0].mul_(scaled[1] - scaled[0])
    network.modulation.copy_(fitted.modulation)
    _start_products(network, fitted.output, paths.states[k], paths.condition, generator)


def _start_products(
    network: StepNetwork, output: Tensor, x: Tensor, condition: Tensor | None, generator: torch.Generator
) -> None:
    """Make the products of slopes those of the divergence of the network with another output."""
    scales = [s.reshape(-1, s.shape[-1]).mean(0) for s, _ in network.modulation_of(x, condition)]
    tensor = divergence_tensor([s[:, None] * w for s, w in zip(scales, network.weights, strict=True)], output)
    if tensor is None or not tensor.any():
        return
    slopes = network.slopes(x, network.modulation_of(x, condition))
    factors = slope_products(tensor, slopes, network.products.shape[1], generator)
    parts = (torch.addmm(p, s, factor.T) for s, (factor, p) in zip(slopes, factors, strict=True))
    sizes = math.prod(parts, start=torch.ones(())).std(0)
    # all products vary alike, so that a step of training changes what is learned from them alike
    scale = sizes.clamp(min=_LEAST_SIZE * float(sizes.max())) ** (-1 / len(factors))
    for own, shift, (factor, p) in zip(network.factors, network.shifts, factors, strict=True):
        own.copy_(scale[:, None] * factor)
        shift.copy_(scale * p)


def _fit_outputs(network: StepNetwork, x: Tensor, values: Tensor, condition: Tensor | None) -> None:
    """Fit the outputs of a network to values."""
    rows = slice(None, None, _LEAST_SQUARES_EVERY)
    modulation = network.modulation_of(x[rows], None if condition is None else condition[rows])
    features = network.features(x[rows], network.layers(modulation, x.dtype))
    coefficients = _least_squares(torch.cat([features, torch.ones_like(features[:, :1])], 1), values[rows], _RIDGE)
    width = network.output.shape[1]
    network.output.copy_(coefficients[:width].T)
    network.products.copy_(coefficients[width:-1].T)
    network.bias.copy_(coefficients[-1])


class Errors(NamedTuple):
    """True errors of a map, and what they are to be a function of.

    Parameters
    ----------
    inputs : Tensor of shape (n, n_inputs)
        The row first, its image, and what else the map says.
    errors : Tensor of shape (n, n_kinds)
    condition : Tensor or None
    """

    inputs: Tensor
    errors: Tensor
    condition: Tensor | None

    def rows(self, rows: slice | Tensor) -> "Errors":
        """Those of some rows."""
        condition = None if self.condition is None else self.condition[rows]
        return Errors(self.inputs[rows], self.errors[rows], condition)


def fit_errors(
    others: Errors, covered: Errors, n_features: int, activation: str, settings: Settings, seed: int
) -> StatedErrors:
    """Stated errors of a map as a function of a row and of what the map makes of it.

    None of the rows is one that the map was fitted to. Most of them tell where errors are large; the factor by which
    the function covers all but .9 % of the errors comes from the others.

    Parameters
    ----------
    others, covered : Errors
        Of the rows from which the function is learned, and of those that it is to cover.
    n_features : int
        Columns of a row.
    activation : str
        Of the network.
    settings : Settings
        Of which its own follow.
    seed : int
    """
    means, sizes = others.inputs.mean(0), others.inputs.std(0).clamp(min=1e-6)
    network = _fit_quantiles(others._replace(inputs=(others.inputs - means) / sizes), activation, settings, seed)
    reach = others.inputs[:, :n_features].square().sum(1).max()
    stated = StatedErrors(network, torch.ones(covered.errors.shape[1]).to(means), reach, means, sizes)
    logs = network.in_blocks((covered.inputs - means) / sizes, covered.condition)
    ratios = (covered.errors / logs.exp()).sort(0).values
    stated.factors.copy_(ratios[min(len(ratios) - 1, math.ceil(_COVERED * len(ratios)))])
    return stated


def _fit_quantiles(errors: Errors, activation: str, settings: Settings, seed: int) -> StepNetwork:
    """A network of a high quantile of the log errors."""
    n, n_inputs = errors.inputs.shape
    generator = make_generator(seed, DISTILL_STREAM + 500)
    n_conditions = 0 if errors.condition is None else errors.condition.shape[1]
    n_kinds, time = errors.errors.shape[1], 1.0
    network = StepNetwork(
        n_inputs, n_kinds, _ERROR_WIDTHS, activation, time, n_conditions=n_conditions, generator=generator
    ).to(errors.inputs.device)
    logs = (errors.errors + _LEAST_ERROR).log()
    with torch.no_grad():
        network.bias.copy_(torch.as_tensor(np.quantile(logs.cpu(), _ERROR_QUANTILE, axis=0)))

    def loss() -> Tensor:
        rows = torch.randint(n, (min(n, _BATCH),), generator=generator)
        some = errors.rows(rows)
        gap = logs[rows] - network(some.inputs, some.condition)
        return torch.maximum(_ERROR_QUANTILE * gap, (_ERROR_QUANTILE - 1) * gap).mean()

    steps = min(_ERROR_STEPS, settings.max_iter)
    own = dataclasses.replace(settings, learning_rate_init=_ERROR_RATE, max_iter=steps, max_time=None)
    train(nn.ModuleDict({"errors": network}), loss, Scores(), own)
    return network.requires_grad_(False).eval()


def row_errors(rows: Tensor, exact: Tensor) -> Tensor:
    """The largest coordinate of errors, relative to 1 + the largest coordinate of the row."""
    return (rows - exact).abs().amax(1) / (1 + exact.abs().amax(1))
