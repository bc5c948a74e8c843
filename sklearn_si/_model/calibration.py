"""What a fitted model's log-densities cost and miss, measured once after the fit."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..networks._fields import ResidualField
from ..networks._perceptrons import Perceptron
from ..solvers._grids import KINK
from .fields import Fields
from .levels import Level, LikelihoodCalibration
from .likelihood import GRID_SPACING, Parts, follow, gauss_legendre
from .likelihood_error import Margin, quadrature_error, rounding_indicator

# What the truth is taken to be. Its nodes lie in two panels of 48.
_FINE = Level(48, 96)
# Steps and nodes of first and second solves that are compared.
_STEPS = (6, 8, 10, 12, 15, 18, 24, 36)
_NODES = (8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 64)
# Spacings of the steps that are compared, the numbers of steps whose distance tells, and the share of the rows that it
# covers; one row in so many is solved for that.
_SPACINGS = ("logit", "logit-narrow", "logit-tight")
_STEPS_OF_SPACINGS = (12, 24)
_MOST_ROWS_WITHIN = 0.9
_SPACING_ROWS = 4
# Factor by which the distance of another spacing than the first must be smaller.
_BETTER = 0.7
# Nodes by which the density of two paths is compared, and the level of a base that is a flow itself.
_FEW_NODES = 4
_BASE_LEVEL = Level(8, 16)
# Steps of the solve that is repeated in single precision.
_ROUNDED_STEPS = 12
# Tolerances in nats from which on a first level is chosen; below the last the fine solve is no truth.
_TOLERANCES = (0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4)
# Fewest and most rows of the measurement.
_FEWEST_ROWS = 24
MOST_ROWS = 512
# Share of the rows whose error may exceed the one that is stated, by the rows of the measurement.
_UNCOVERED = 0.005
# What a stated error is multiplied by for many rows, and the more so by how many over their number.
_SAFETY = 1.3
_SAFETY_ROWS = 25
# Share of the rows, those of the largest indicators, that tell what refinement brings; the bounds of that.
_HARD = 1 / 3
_LEAST_SHARE = 1 / 4
_MOST_SHARE = 1 / 2
# What a solve in double precision costs over one in single, as the first two are.
_DOUBLE = 2.0
# What a doubling is expected to divide an error by, and the most doublings that are counted.
_GAIN = 16.0
_MOST_DOUBLINGS = 6
# Nats that are left to rounding.
_ROUNDING = 1e-9
# Share of the work of a fit that the measurement may take.
SHARE_OF_WORK = 0.02
# Forward passes of one point of a step of training.
_PASSES_OF_TRAINING = 3


def pilot_rows(fields: Fields, n_points: int, d: int) -> int:
    """Rows of a measurement that takes 2 % of the work of a fit on so many points; 0 where these are too few."""
    price = divergence_cost(fields, d)
    of_spacings = len(_SPACINGS) * (6 * sum(_STEPS_OF_SPACINGS) + price * _FEW_NODES * len(_STEPS_OF_SPACINGS))
    row = 6 * (_FINE.n_steps + sum(_STEPS)) + price * (_FINE.n_nodes + _FEW_NODES * len(_STEPS))
    row += of_spacings / _SPACING_ROWS
    n = int(min(MOST_ROWS, SHARE_OF_WORK * _PASSES_OF_TRAINING * n_points / row))
    return n if n >= _FEWEST_ROWS else 0


def divergence_cost(fields: Fields, d: int) -> float:
    """Forward passes that a divergence is worth, by products of numbers."""
    field = fields.velocity_network
    if not isinstance(field, ResidualField) or not isinstance(field.network, Perceptron):
        return 2.0 + d
    weights = [w.numel() for w in field.network.weights]
    traced = {1: 0, 2: weights[-1], 3: 2 * d * weights[len(weights) // 2]}.get(len(weights), d * sum(weights))
    return 1 + traced / sum(weights)


@torch.no_grad()
def calibrate(
    fields: Fields, x: Tensor, anchor: float, anchor_parts: Parts, base: LikelihoodCalibration | None = None
) -> LikelihoodCalibration | None:
    """The spacing of the steps, first levels, and the factors of the indicators of error, by rows solved finely.

    The divergence along the fine path, a polynomial in two panels, tells what fewer nodes miss; paths of fewer steps
    are solved for themselves. Both errors are compared with their own indicators.

    Parameters
    ----------
    fields : Fields
        The velocity, in scaled units, in double precision.
    x : Tensor of shape (n, d)
        Rows at t = 1.
    anchor, anchor_parts
        As in `ode_log_density`.
    base : LikelihoodCalibration or None
        That of a base that is a flow itself: it is solved at the same level.

    Returns
    -------
    LikelihoodCalibration, or None where the field is too rough for the measurement.
    """
    stop = anchor + math.copysign(KINK, 1 - anchor) if anchor > 0 else anchor

    spacing = _best_spacing(fields, x, stop, anchor_parts)

    def solve(level: Level) -> tuple[Tensor, Tensor, Tensor]:
        end, values, path = follow(fields, x, 1.0, stop, level, spacing)
        return anchor_parts(end, _BASE_LEVEL)[0], values, path

    fine_ends, fine_values, _ = solve(_FINE)
    misses, quadratures = _quadratures(fine_values)
    terms, paths, solved = [], [], {}
    few, weights = _at_nodes(fine_values, _FEW_NODES), torch.as_tensor(gauss_legendre(_FEW_NODES)[1]).to(x)
    for n_steps in _STEPS:
        ends, values, path = solve(Level(n_steps, _FEW_NODES))
        solved[n_steps] = ends.sum(1) + weights @ values
        terms.append(torch.cat([ends - fine_ends, (weights @ (values - few))[:, None]], 1))
        paths.append(path)
    # the fine path has an error too: of fourth order or more
    errors = [t.sum(1).abs() / (1 - (n / _FINE.n_steps) ** 4) for n, t in zip(_STEPS, terms, strict=True)]
    if not all(bool(torch.isfinite(e).all()) for e in [*errors, *misses]):
        return None
    of_paths = {n: Margin(*_margin(e, p)) for n, e, p in zip(_STEPS, errors, paths, strict=True)}
    of_nodes = {n: Margin(*_margin(e, q)) for n, e, q in zip(_NODES, misses, quadratures, strict=True)}
    stated_paths = {n: of_paths[n].stated(p) for n, p in zip(_STEPS, paths, strict=True)}
    stated_nodes = {n: of_nodes[n].stated(q) for n, q in zip(_NODES, quadratures, strict=True)}
    single = fields.in_single_precision()
    rounding = None if single is None else _rounding(single, x, stop, spacing, solved[_ROUNDED_STEPS], anchor_parts)
    of_levels = _of_levels((errors, stated_paths), (misses, stated_nodes))
    first, second = _first_and_second(of_levels, divergence_cost(fields, x.shape[1]), base)
    return LikelihoodCalibration(
        first,
        tuple((n, (m.factor, m.floor)) for n, m in of_paths.items()),
        tuple((n, (m.factor, m.floor)) for n, m in of_nodes.items()),
        _gap_share(terms, paths),
        rounding,
        second,
        float(x.square().sum(1).max()),
        spacing,
    )


def _of_levels(
    paths: tuple[list[Tensor], dict[int, Tensor]], nodes: tuple[list[Tensor], dict[int, Tensor]]
) -> dict[Level, tuple[Tensor, Tensor]]:
    """True and stated errors of every level, from those of the numbers of steps and of the numbers of nodes."""
    (errors, stated_paths), (misses, stated_nodes) = paths, nodes
    return {
        Level(n, m): (e + miss, stated_paths[n] + stated_nodes[m])
        for (n, e), (m, miss) in itertools.product(zip(_STEPS, errors, strict=True), zip(_NODES, misses, strict=True))
    }


def _best_spacing(fields: Fields, x: Tensor, stop: float, anchor_parts: Parts) -> str:
    """The spacing by which two solves of few steps are nearest to each other for nearly all of some of the rows."""
    rows = torch.arange(0, len(x), _SPACING_ROWS)
    weights = torch.as_tensor(gauss_legendre(_FEW_NODES)[1]).to(x)

    def value(n_steps: int, spacing: str) -> Tensor:
        end, values, _ = follow(fields.rows(rows), x[rows], 1.0, stop, Level(n_steps, _FEW_NODES), spacing)
        return anchor_parts(end, _BASE_LEVEL)[0].sum(1) + weights @ values

    distances = {}
    for spacing in _SPACINGS:
        coarse, fine = (value(n_steps, spacing) for n_steps in _STEPS_OF_SPACINGS)
        distance = (coarse - fine).abs().nan_to_num(nan=torch.inf)
        distances[spacing] = float(distance.sort().values[int(_MOST_ROWS_WITHIN * len(rows))])
    best = min(distances, key=distances.__getitem__)
    return best if distances[best] < _BETTER * distances[GRID_SPACING] else GRID_SPACING


def _rounding(
    single: Fields, x: Tensor, stop: float, spacing: str, value: Tensor, anchor_parts: Parts
) -> tuple[float, float]:
    """The margin of rounding, from a solve in single precision and the values of the same one in double."""
    end, values, _ = follow(single, x, 1.0, stop, Level(_ROUNDED_STEPS, _FEW_NODES), spacing)
    weights = torch.as_tensor(gauss_legendre(_FEW_NODES)[1]).to(x)
    rounded = anchor_parts(end, _BASE_LEVEL)[0].sum(1) + weights @ values
    return _margin((rounded - value).abs(), rounding_indicator(x, end, weights @ values.abs()))


def _quadratures(values: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """For each number of nodes, what the quadrature misses of a polynomial, and what it says itself."""
    whole = torch.as_tensor(gauss_legendre(len(values))[1]).to(values) @ values
    misses, indicators = [], []
    for n_nodes in _NODES:
        some = _at_nodes(values, n_nodes)
        misses.append((torch.as_tensor(gauss_legendre(n_nodes)[1]).to(some) @ some - whole).abs())
        indicators.append(quadrature_error(some))
    return misses, indicators


def _at_nodes(values: Tensor, n_nodes: int) -> Tensor:
    """Values at so many Gauss nodes, from those at the nodes of the two panels of the fine solve."""
    half, at = len(values) // 2, gauss_legendre(n_nodes)[0]
    nodes, weights = np.polynomial.legendre.leggauss(half)
    # orthogonal projection on Legendre polynomials, which interpolates at Gauss's nodes
    project = np.polynomial.legendre.legvander(nodes, half - 1) * weights[:, None] * (np.arange(half) + 0.5)
    halves = []
    for k, inside in enumerate((at < 0.5, at >= 0.5)):
        basis = np.polynomial.legendre.legvander(4 * at[inside] - 1 - 2 * k, half - 1)
        halves.append(torch.as_tensor(basis @ project.T).to(values) @ values[k * half : (k + 1) * half])
    return torch.cat(halves)


def _margin(errors: Tensor, indicators: Tensor) -> tuple[float, float]:
    """The factor of an indicator that covers nearly all errors, and what is added for indicators that are small.

    An indicator may vanish by accident where the error does not: beside it, its median over the rows counts.
    """
    median = float(indicators.median()) + _ROUNDING
    ratios = (errors / (indicators + median)).sort(descending=True).values
    factor = (_SAFETY + _SAFETY_ROWS / len(ratios)) * float(ratios[int(_UNCOVERED * len(ratios))])
    return factor, factor * median + _ROUNDING


def _gap_share(terms: Sequence[Tensor], paths: Sequence[Tensor]) -> float:
    """The error of a refined row over its distance from the level before, by the rows that are hard to solve."""
    shares = []
    for k, n in enumerate(_STEPS):
        if 2 * n in _STEPS:
            coarse, fine = terms[k], terms[_STEPS.index(2 * n)]
            hard = paths[k].argsort(descending=True)[: max(1, int(_HARD * len(fine)))]
            gap = (coarse - fine)[hard].norm(dim=1)
            shares.append(fine[hard].sum(1).abs() / (gap + _ROUNDING))
    ratios = torch.cat(shares).sort(descending=True).values
    worst = float(ratios[int(_UNCOVERED * len(ratios))])
    return min(_MOST_SHARE, max(_LEAST_SHARE, _SAFETY * worst))


def _first_and_second(
    errors: dict[Level, tuple[Tensor, Tensor]], price: float, base: LikelihoodCalibration | None
) -> tuple[tuple[tuple[float, int, int], ...], ...]:
    """The levels of the first and of the second solve, each with the tolerance from which on it is taken."""
    solves = [_cheapest(least, errors, price) for least in _TOLERANCES]
    if base is not None:
        solves = [_united(both, base.measured(least)) for least, both in zip(_TOLERANCES, solves, strict=True)]
    return tuple(tuple((least, *both[k]) for least, both in zip(_TOLERANCES, solves, strict=True)) for k in range(2))


def _united(levels: tuple[Level, Level], base: list[Level]) -> tuple[Level, Level]:
    """The levels of the first and the second solve, with those of a base that is solved beside it."""
    first, second = (level.union(own) for level, own in zip(levels, (base[0], base[-1]), strict=True))
    return first, second


def _cheapest(tolerance: float, errors: dict[Level, tuple[Tensor, Tensor]], price: float) -> tuple[Level, Level]:
    """The levels of the first and the second solve of the least cost for the rows of the measurement."""
    levels = list(errors)
    costs = torch.tensor([6 * level.n_steps + price * level.n_nodes for level in levels])
    true, stated = (torch.stack(of_level) for of_level in zip(*errors.values(), strict=True))
    missed = (stated > tolerance).double()
    # after the second solve all is doubled, at least once, until the gap is small enough
    doublings = 1 + (true / tolerance).clamp(min=1.0).log() / math.log(_GAIN)
    more = _DOUBLE * (2.0 ** (doublings.ceil().clamp(max=_MOST_DOUBLINGS) + 1) - 2)
    total = costs[:, None] + (missed.mean(1)[:, None] + missed @ (missed * more).T / missed.shape[1]) * costs
    # where both are the same, there is no second solve
    total -= (missed.mean(1) * costs).diag()
    is_finer = torch.tensor([[a.union(b) == b for b in levels] for a in levels])
    best = int(torch.where(is_finer, total, torch.inf).argmin())
    return levels[best // len(levels)], levels[best % len(levels)]
