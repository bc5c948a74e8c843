"""Log-densities: change of variables along the ODE, the divergence apart from the path."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..interpolants import Interpolant
from ..solvers import ODE_SOLVERS, refine
from ..solvers._grids import KINK, grid_map
from ..solvers._refinement import Beside
from ..solvers._steps import combine, dense_state, runge_kutta_step
from .fields import Fields
from .levels import ASSUMED, Level, LikelihoodCalibration
from .likelihood_error import quadrature_error, rounding_indicator, step_error, trusted, weighs_by_score

# Terms of a log-density at rows, at a level, of shape (n, k), and their error (None where it is not known).
Parts = Callable[[Tensor, Level], tuple[Tensor, Tensor | None]]
# What `refine` asks: parts at some rows, what their distance is measured by, and their own error.
Solved = tuple[Tensor, Tensor | float, Tensor | Beside | None]

# Against the other spacings: benchmarks/studies/ablation.md.
GRID_SPACING = "logit"
# Spacing of the nodes of the divergence, where it is not that of the steps: the divergence is smoother in a variable
# that is less dense at the ends.
_NODE_SPACINGS = {"logit": "logit-wide", "logit-narrow": "logit-wide", "logit-tight": "logit"}
# What brings most rows to .01 nats, for who solves once.
COARSE = Level.of(12)
# Of the mean of validation rows, within .002 nats at 2 to 10 columns and .02 at 43 (benchmarks/studies/ablation.md).
VALIDATION_LEVEL = Level(12, 16)
# Nodes of a panel at the most.
_PANEL = 64
# Numbers in the rows that are solved at a time: more leave the cache (benchmarks/studies/ablation.md, "Steps of
# `sample`, grids of densities").
_NUMBERS_PER_SOLVE = 2**13
# Columns up to which single precision is tried without a measurement: its assumed error grows with them.
_MOST_ROUNDED = 16
# Largest share of the tolerance that rounding may take of a row that is solved in single precision at twice the steps.
_ROUNDED_SHARE = 0.2
# Fewest rows that are solved at a time: fewer cost as many calls.
_ROWS_PER_SOLVE = 1024


def row_chunks(rows: Tensor, d: int) -> tuple[Tensor, ...]:
    """Equal parts of some rows: a rest of few would cost as many calls as a whole chunk."""
    return rows.tensor_split(max(1, round(len(rows) / _chunk_rows(d))))


def _chunk_rows(d: int) -> int:
    return max(_NUMBERS_PER_SOLVE // d, _ROWS_PER_SOLVE)


def standard_normal_log_density(x: Tensor) -> Tensor:
    """Log N(x; 0, I), a row."""
    return -0.5 * (x.square().sum(1) + x.shape[1] * math.log(2 * math.pi))


def _n_panels(n_nodes: int) -> int:
    """The fewest panels, a power of two, that have no more than their nodes."""
    return 2 ** max(0, math.ceil(math.log2(n_nodes / _PANEL)))


def gauss_legendre(n_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [0, 1], in panels."""
    panels = _n_panels(n_nodes)
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes // panels)
    nodes = ((nodes + 1) / 2 + np.arange(panels)[:, None]) / panels
    return nodes.ravel(), np.tile(weights / 2 / panels, panels)


@functools.lru_cache(maxsize=64)
def _nodes(n_nodes: int, spacing: str, start: float, stop: float) -> tuple[list[float], list[float]]:
    """Parameters of the path's grid at which the divergence is taken, and weights of divergence times rate there."""
    nodes, weights = (torch.as_tensor(a) for a in gauss_legendre(n_nodes))
    own = _NODE_SPACINGS.get(spacing, spacing)
    if own == spacing:
        return nodes.tolist(), weights.tolist()
    times, rates = grid_map(nodes, own, start, stop)
    parameters = _parameters_of(times, spacing, start, stop)
    return parameters.tolist(), (weights * rates / grid_map(parameters, spacing, start, stop)[1]).tolist()


def _parameters_of(times: Tensor, spacing: str, start: float, stop: float) -> Tensor:
    """The parameters at which a grid has some times, by bisection."""
    low, high = torch.zeros_like(times), torch.ones_like(times)
    for _ in range(60):
        middle = (low + high) / 2
        early = (grid_map(middle, spacing, start, stop)[0] < times) == (start < stop)
        low, high = torch.where(early, middle, low), torch.where(early, high, middle)
    return (low + high) / 2


def flow_with_divergence(
    fields: Fields,
    x: Tensor,
    start: float,
    stop: float,
    level: Level,
    spacing: str,
    calibration: LikelihoodCalibration | None = ASSUMED,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Transport rows along the ODE, and integrate the divergence on the way.

    x(stop),    int_start^stop div b(t, x_t) dt    (2303.08797, (2.52))

    The state does not need the divergence: Dormand-Prince steps are taken for x alone, and the divergence is taken at
    Gauss-Legendre nodes of the grid's own parameter, on the dense output of the steps.

    Returns
    -------
    end : Tensor of shape (n, d)
    integral : Tensor of shape (n,)
    error : Tensor of shape (n,) or None
        Of one panel of nodes, what the two errors amount to in nats: the embedded errors e of the steps change a
        log-density by s . e, with s the score, and the quadrature misses what its last Legendre coefficients tell.
        Each counts by the factor of the calibration. None without a calibration, for more panels, and where the score
        is not known and nothing was measured.
    """
    end, values, path_error = follow(fields, x, start, stop, level, spacing, calibration is not None)
    weights = torch.as_tensor(gauss_legendre(level.n_nodes)[1], dtype=x.dtype, device=x.device)
    integral = weights @ values
    if calibration is None or (_n_panels(level.n_nodes) > 1 and not calibration.of_rounding_alone):
        return end, integral, None
    if not (calibration.is_measured or weighs_by_score(fields)):
        return end, integral, None
    error = calibration.stated(level, path_error, quadrature_error(values))
    if fields.is_single:
        error = error + calibration.stated_rounding(rounding_indicator(x, end, weights @ values.abs()))
    return end, integral, trusted(error * (x.square().sum(1) / calibration.reach).clamp(min=1.0))


def follow(
    fields: Fields, x: Tensor, start: float, stop: float, level: Level, spacing: str, is_stated: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """The path of rows along the ODE, and the divergence at nodes on it.

    Parameters
    ----------
    fields, x, start, stop, level, spacing
        As in `flow_with_divergence`.
    is_stated : bool, default=True
        Whether the error of the path is wanted; it is 0 otherwise.

    Returns
    -------
    end : Tensor of shape (n, d)
    values : Tensor of shape (n_nodes, n)
        The divergence times dt/du, at Gauss's nodes u in [0, 1].
    path_error : Tensor of shape (n,)
        The sum over the steps of |s . e|, with e the embedded error and s the score; of |e| where s is not known.
    """
    tableau, n_steps = ODE_SOLVERS["dopri5"], level.n_steps
    nodes, weights = _nodes(level.n_nodes, spacing, start, stop)
    # all times at once: what the field does with them costs a call as much for one as for many
    h = 1 / n_steps
    stages = [k * h + c * h for k in range(n_steps) for c in (0.0, *tableau.c)] + [n_steps * h, 1.0]
    parameters = [*dict.fromkeys([*stages, *nodes])]
    times, rates = grid_map(torch.tensor(parameters, dtype=torch.float64), spacing, start, stop)
    time_and_rate = dict(zip(parameters, zip(times.to(x), rates.tolist(), strict=True), strict=True))
    velocities = dict(zip(parameters, fields.velocities(times.to(x)), strict=True))

    def slope(s: float, x: Tensor) -> Tensor:
        return time_and_rate[s][1] * velocities[s](x)

    first, path_error, points = slope(0.0, x), torch.zeros_like(x[:, 0]), []
    waiting = nodes[::-1]
    for k in range(n_steps):
        new, slopes = runge_kutta_step(tableau, slope, k * h, h, x, first)
        slopes.append(slope((k + 1) * h, new))
        while waiting and waiting[-1] <= (k + 1) * h:
            s = waiting.pop()
            points.append((*time_and_rate[s], dense_state(tableau, s * n_steps - k, h, x, slopes)))
        if is_stated:
            embedded, now = h * combine(tableau.error, slopes), time_and_rate[(k + 1) * h]
            path_error = path_error + step_error(fields, *now, new, slopes[-1], embedded)
        x, first = new, slopes[-1]
    # from the parameter of the steps to that of the nodes
    factors = torch.tensor(weights, dtype=torch.float64) / torch.as_tensor(gauss_legendre(level.n_nodes)[1])
    return x, _divergences(fields, points) * factors.to(x)[:, None], path_error


def _divergences(fields: Fields, points: list[tuple[Tensor, float, Tensor]]) -> Tensor:
    """The divergence times the rate at points (t, rate, x), of shape (k, n): several points of few rows in one call."""
    n, d = points[0][2].shape
    size = max(1, _chunk_rows(d) // n)
    values = []
    for some in (points[i : i + size] for i in range(0, len(points), size)):
        times, rates, states = zip(*some, strict=True)
        rows = torch.arange(n).repeat(len(some))
        t = torch.stack(times).repeat_interleave(n) if len(some) > 1 else times[0]
        divergence = fields.rows(rows).velocity_and_divergence(t, torch.cat(states))[1]
        values.append(
            divergence.reshape(len(some), n)
            * torch.tensor(rates, dtype=divergence.dtype, device=divergence.device)[:, None]
        )
    return torch.cat(values)


def standard_normal_parts(x: Tensor, level: Level) -> tuple[Tensor, Tensor | None]:
    """The log-density of N(0, I) as the parts that `ode_log_density` refines, and their error."""
    value = standard_normal_log_density(x)[:, None]
    return value, torch.zeros_like(x[:, 0])


def middle_parts(interpolant: Interpolant, time: float) -> Parts:
    """The same for the middle of an encoding-decoding path, where the distribution is N(0, scale^2 I)."""
    scale = float(Fields(interpolant, None).latent_scale(torch.tensor(time, dtype=torch.float64)))

    def parts(x: Tensor, level: Level) -> tuple[Tensor, Tensor | None]:
        value = standard_normal_log_density(x / scale) - x.shape[1] * math.log(scale)
        return value[:, None], torch.zeros_like(value)

    return parts


def density_parts(
    fields: Fields,
    x: Tensor,
    t: float,
    level: Level,
    spacing: str,
    anchor: float,
    anchor_parts: Parts,
    calibration: LikelihoodCalibration | None = ASSUMED,
) -> tuple[Tensor, Tensor | None]:
    """Terms whose sum is the log-density at time t, of shape (n, k), and their error (None where it is not known).

    Without a calibration no error is computed.
    """
    if abs(t - anchor) <= KINK:
        return anchor_parts(x, level)
    # in the middle of a path the fields may jump: stay on the side of t
    stop = anchor + math.copysign(KINK, t - anchor) if anchor > 0 else anchor
    x, divergence, error = flow_with_divergence(fields, x, t, stop, level, spacing, calibration)
    parts, base_error = anchor_parts(x, level)
    error = None if error is None or base_error is None else error + base_error
    return torch.cat([parts, divergence[:, None]], 1), error


def ode_log_density(
    fields: Fields,
    x: Tensor,
    t: float,
    anchor: float,
    anchor_parts: Parts,
    tolerance: float,
    spacing: str,
    calibration: LikelihoodCalibration = ASSUMED,
) -> tuple[Tensor, Tensor]:
    """Log-density of the ODE model at time t, with its stated error, a row.

    log rho_t(x) = log rho_a(X_{t,a}(x)) - int_a^t div b(u, X_{t,u}(x)) du    (2303.08797, (2.53))

    from the time a at which the density is known: the base, or the middle of an encoding-decoding path.

    Parameters
    ----------
    fields : Fields
        The velocity, in scaled units.
    x : Tensor of shape (n, d)
        Rows in scaled units.
    t, anchor : float
        Time of the density; the time a.
    anchor_parts : callable
        anchor_parts(x, level) -> terms of the log-density at time a in scaled units, of shape (n, k), and their
        error (or None); a base that is a flow itself is solved at the same level.
    tolerance : float
        Error allowed, in nats; rows that miss it are solved on finer grids.
    spacing : str
        Spacing of the grids, a key of `TIME_GRIDS`, where none was measured.
    calibration : LikelihoodCalibration
        First levels, the spacing of the steps, and what the indicators of error are worth.

    Returns
    -------
    log_density, error : Tensor of shape (n,)
    """
    spacing = calibration.spacing if calibration.is_measured else spacing
    calibration = calibration.at(tolerance)
    *before, last = measured = calibration.measured(tolerance)
    # of rows in single precision nothing is gained
    is_known = calibration.is_measured or x.shape[1] <= _MOST_ROUNDED
    is_rounded = calibration.rounding is not None and x.dtype == torch.float64 and is_known
    of_measured = (fields.in_single_precision() if is_rounded else None) or fields
    levels = measured, last.doublings()[1]
    solve = _Solves(fields, of_measured, x, t, (anchor, anchor_parts), spacing, calibration, levels, tolerance)
    # the terms are compared apart: their errors may cancel in one solve only
    parts, error = refine(solve, len(x), tolerance, [*before, *last.doublings()], calibration.gap_share)
    return parts.sum(1), error


@dataclasses.dataclass(frozen=True, eq=False)
class _Solves:
    """Terms of the log-density of rows at a level, in single precision where that is enough.

    Parameters
    ----------
    fields, fast : Fields
        As they are, and in single precision where it may serve.
    x, t, ends, spacing, calibration, tolerance
        As in `ode_log_density`; `ends` are the anchor and its parts.
    levels : tuple
        The levels that were measured, and the first beyond them.
    """

    fields: Fields
    fast: Fields
    x: Tensor
    t: float
    ends: tuple[float, Parts]
    spacing: str
    calibration: LikelihoodCalibration
    levels: tuple[Sequence[Level], Level]
    tolerance: float

    def __call__(self, rows: Tensor, level: Level) -> Solved:
        """Terms of shape (m, k), and what is known of their errors."""
        measured, doubled = self.levels
        if level in measured:
            return self._measured(rows, level)
        if self.fast is not self.fields and level == doubled:
            return self._doubled(rows, level)
        return self._by(self.fields, rows, level)[0], 1.0, None

    def _by(self, fields: Fields, rows: Tensor, level: Level) -> tuple[Tensor, Tensor | None]:
        own = self.calibration if level in self.levels[0] else self.calibration.of_rounding()
        solved = [
            density_parts(fields.rows(c), self.x[c], self.t, level, self.spacing, *self.ends, own)
            for c in row_chunks(rows, self.x.shape[1])
        ]
        parts, errors = zip(*solved, strict=True)
        return torch.cat(parts), None if errors[0] is None else torch.cat(errors)

    def _measured(self, rows: Tensor, level: Level) -> Solved:
        parts, errors = self._by(self.fast, rows, level)
        # single precision has a smaller range than the rows
        lost = ~torch.isfinite(parts).all(1).cpu()
        if self.fast is not self.fields and lost.any():
            parts[lost], again = self._by(self.fields, rows[lost], level)
            if errors is not None:
                errors[lost] = torch.inf if again is None else again
        return parts, 1.0, errors

    def _doubled(self, rows: Tensor, level: Level) -> Solved:
        parts, rounding = self._by(self.fast, rows, level)
        if rounding is None:
            return self._by(self.fields, rows, level)[0], 1.0, None
        is_small = (rounding <= _ROUNDED_SHARE * self.tolerance) & torch.isfinite(parts).all(1)
        again = (~is_small).nonzero()[:, 0]
        if len(again):
            parts[again] = self._by(self.fields, rows[again.cpu()], level)[0]
        return parts, 1.0, Beside(torch.where(is_small, rounding, 0.0))


def log_density_ratio(
    fields: Fields, points: Callable, spacing: str, tolerance: float, n_rows: int
) -> tuple[Tensor, Tensor]:
    """Log rho_1(x) - log rho_0(x) = -int_0^1 (div b + b . s)(t, x) dt at fixed x, with its stated error, a row.

    Parameters
    ----------
    fields : Fields
        Velocity and score.
    points : callable
        points(rows, t) -> x in scaled units and the velocity of the scaled frame, of shape (m, d) and (d,).
    spacing : str
        Spacing of the quadrature nodes, a key of `TIME_GRIDS`.
    tolerance : float
        Error allowed, in nats.
    n_rows : int
        Number of rows.
    """

    def solve(rows: Tensor, level: Level) -> Solved:
        parameters, weights = (torch.as_tensor(a) for a in gauss_legendre(level.n_nodes))
        nodes, rates = grid_map(parameters, spacing, 0.0, 1.0)
        total: Any = 0.0
        some = fields.rows(rows)
        for t, weight in zip(nodes, rates * weights, strict=True):
            x, frame = points(rows, t)
            b, divergence = some.velocity_and_divergence(t.to(x), x)
            total = total - float(weight) * (divergence + ((b + frame) * some.score(t.to(x), x)).sum(1))
        return total[:, None], 1.0, None

    parts, error = refine(solve, n_rows, tolerance, COARSE.doublings())
    return parts.sum(1), error
