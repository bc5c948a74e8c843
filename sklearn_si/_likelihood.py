"""Log-densities: change of variables along the ODE, the divergence apart from the path."""

import math

import numpy as np
import torch
from torch import Tensor

from ._objectives import Fields
from .networks import GuidedField
from .solvers import KINK, ODE_SOLVERS, combine, dense_state, grid_map, odeint, refine, runge_kutta_step, time_grid

# Against the other laws: benchmarks/ablation.md.
GRID_LAW = "logit"
# Level 0 of the refinement; each level doubles the steps and the panels of nodes.
_STEPS, _NODES = 10, 20
# 10 * 2^8 steps: beyond that the error is rounding, or the field is not smooth.
MAX_LEVEL = 8
# A flow that pulls clusters together stretches errors by up to a hundred on the way
# back; carried rows are held to a tolerance that leaves room for it.
_STRETCH = 100
# Floats of the rows of one chunk, and rows that it has at the least: fewer cost as many calls, more leave the cache.
_CHUNK, _CHUNK_ROWS = 2**13, 1024
# Nats beyond which the error that level 0 states of itself is no estimate: its steps are too long for their order.
_TRUSTED = 0.5
# Stated over estimated errors. Measured on fits with 2, 9 and 43 columns: the embedded errors of the steps, weighted
# by the score, are a tenth of the true error or more for 99 % of rows; the last Legendre coefficients
# of the divergence are larger than the error of its quadrature for as many.
_PATH_MARGIN, _QUADRATURE_MARGIN = 10.0, 1.0


def _chunks(rows: Tensor, d: int):
    """Equal parts of some rows: a rest of few would cost as many calls as a whole chunk."""
    return rows.tensor_split(max(1, round(len(rows) / _chunk_rows(d))))


def _chunk_rows(d: int) -> int:
    return max(_CHUNK // d, _CHUNK_ROWS)


def standard_normal_log_density(x: Tensor) -> Tensor:
    """Log N(x; 0, I), a row."""
    return -0.5 * (x.square().sum(1) + x.shape[1] * math.log(2 * math.pi))


def _gauss_legendre(level: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [0, 1]: 2^level panels of 20 nodes each."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    panels = 2**level
    nodes = ((nodes + 1) / 2 + np.arange(panels)[:, None]) / panels
    return nodes.ravel(), np.tile(weights / 2 / panels, panels)


def _last_coefficients(values: Tensor) -> Tensor:
    """The larger of the last two (orthonormal) Legendre coefficients of values at the 20 nodes of [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    degrees = np.arange(_NODES)
    basis = np.polynomial.legendre.legvander(nodes, _NODES - 1) * np.sqrt(2 * degrees + 1) * weights[:, None] / 2
    return (torch.as_tensor(basis[:, -2:].T).to(values) @ values).abs().amax(0)


def flow_with_divergence(fields, x: Tensor, start: float, stop: float, level: int, law: str):
    """Carry rows along the ODE and integrate the divergence on the way.

    x(stop),    int_start^stop div b(t, x_t) dt    (2303.08797, (2.52))

    The state does not need the divergence: Dormand-Prince steps carry x alone, and the divergence is taken at
    Gauss-Legendre nodes of the grid's own parameter, on the dense output of the steps.

    Returns
    -------
    end : Tensor of shape (n, d)
    integral : Tensor of shape (n,)
    error : Tensor of shape (n,) or None
        At level 0, what the two errors amount to in nats: the embedded errors e of the steps change a log-density by
        s . e, with s the score, and the quadrature misses what lies beyond its last Legendre coefficients. None
        at other levels, and where the score is not known.
    """
    tableau, n_steps = ODE_SOLVERS["dopri5"], _STEPS * 2**level
    nodes, weights = _gauss_legendre(level)
    # a guided score is not that of the guided model's density, and would weigh the errors wrongly
    states = level == 0 and fields.has_score and not isinstance(fields.velocity_network, GuidedField)

    def time(s):
        t, rate = grid_map(torch.tensor(s, dtype=torch.float64), law, start, stop)
        return t.to(x), float(rate)

    def slope(s, x):
        t, rate = time(s)
        return rate * fields.velocity(t, x)

    h, first, path_error, points = 1 / n_steps, slope(0.0, x), 0.0, []
    for k in range(n_steps):
        new, slopes = runge_kutta_step(tableau, slope, k * h, h, x, first)
        slopes.append(slope((k + 1) * h, new))
        inside = nodes[(nodes > k * h) & (nodes < (k + 1) * h)]
        points += [(*time(s), dense_state(tableau, s * n_steps - k, h, x, slopes)) for s in inside]
        if states:
            t, rate = time((k + 1) * h)
            error = h * combine(tableau.error, slopes)
            path_error = path_error + (fields.score(t, new, slopes[-1] / rate) * error).sum(1).abs()
        x, first = new, slopes[-1]
    values = _divergences(fields, points)
    integral = torch.as_tensor(weights).to(x) @ values
    if not states:
        return x, integral, None
    error = _PATH_MARGIN * path_error + _QUADRATURE_MARGIN * _last_coefficients(values)
    return x, integral, torch.where(error <= _TRUSTED, error, torch.inf)


def _divergences(fields, points) -> Tensor:
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


def standard_normal_parts(x: Tensor, level: int):
    """The log-density of N(0, I) as the parts that `ode_log_density` refines, and their error."""
    value = standard_normal_log_density(x)[:, None]
    return value, torch.zeros_like(x[:, 0])


def middle_parts(interpolant, time: float):
    """The same for the middle of an encoding-decoding path, where the law is N(0, scale^2 I)."""
    scale = float(Fields(interpolant, None).latent_scale(torch.tensor(time, dtype=torch.float64)))

    def parts(x, level):
        value = standard_normal_log_density(x / scale) - x.shape[1] * math.log(scale)
        return value[:, None], torch.zeros_like(value)

    return parts


def density_parts(fields, x: Tensor, t: float, level: int, law: str, anchor: float, anchor_parts):
    """Terms whose sum is the log-density at time t, of shape (n, k), and their error (None where it is not known)."""
    if abs(t - anchor) <= KINK:
        return anchor_parts(x, level)
    # in the middle of a path the fields may jump: stay on the side of t
    stop = anchor + math.copysign(KINK, t - anchor) if anchor > 0 else anchor
    x, divergence, error = flow_with_divergence(fields, x, t, stop, level, law)
    parts, base_error = anchor_parts(x, level)
    error = None if error is None or base_error is None else error + base_error
    return torch.cat([parts, divergence[:, None]], 1), error


def ode_log_density(fields, x: Tensor, t: float, anchor: float, anchor_parts, tolerance: float, law: str):
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
    law : str
        Law of the grids, a key of `TIME_GRIDS`.

    Returns
    -------
    log_density, error : Tensor of shape (n,)
    """

    def solve(rows, level):
        chunks = _chunks(rows, x.shape[1])
        solved = [density_parts(fields.rows(c), x[c], t, level, law, anchor, anchor_parts) for c in chunks]
        parts, errors = zip(*solved, strict=True)
        return torch.cat(parts), 1.0, None if errors[0] is None else torch.cat(errors)

    # the terms are compared apart: their errors may cancel at one level only
    parts, error = refine(solve, len(x), tolerance, MAX_LEVEL)
    return parts.sum(1), error


def log_density_ratio(fields, points, law: str, tolerance: float, n_rows: int):
    """Log rho_1(x) - log rho_0(x) = -int_0^1 (div b + b . s)(t, x) dt at fixed x, with its stated error, a row.

    Parameters
    ----------
    fields : Fields
        Velocity and score.
    points : callable
        points(rows, t) -> x in scaled units and the velocity of the scaled frame, of shape (m, d) and (d,).
    law : str
        Law of the quadrature nodes.
    tolerance : float
        Error allowed, in nats.
    n_rows : int
        Number of rows.
    """

    def solve(rows, level):
        parameters, weights = (torch.as_tensor(a) for a in _gauss_legendre(level))
        nodes, rates = grid_map(parameters, law, 0.0, 1.0)
        total, some = 0.0, fields.rows(rows)
        for t, weight in zip(nodes, rates * weights, strict=True):
            x, frame = points(rows, t)
            b, divergence = some.velocity_and_divergence(t.to(x), x)
            total = total - float(weight) * (divergence + ((b + frame) * some.score(t.to(x), x)).sum(1))
        return total[:, None], 1.0, None

    parts, error = refine(solve, n_rows, tolerance, MAX_LEVEL)
    return parts.sum(1), error


def carry(fields, x: Tensor, start: float, stop: float, tolerance: float, law: str, node=None):
    """Rows carried along the ODE from start to stop, with the stated relative error of each.

    Parameters
    ----------
    fields, x, law, node
        As in `ode_log_density`.
    start, stop : float
        Times.
    tolerance : float
        Error allowed in any coordinate, relative to 1 + the largest coordinate of the row.

    Returns
    -------
    rows : Tensor of shape (n, d)
    error : Tensor of shape (n,)
    """

    def solve(rows, level):
        times = time_grid(_STEPS * 2**level, law, start, stop, node)
        value = torch.cat([
            odeint(fields.rows(part).velocity, x[part], times, "dopri5")
            for part in _chunks(rows, x.shape[1])
        ])  # fmt: skip
        return value, 1 + value.abs().amax(1), None

    rows, error = refine(solve, len(x), tolerance / _STRETCH, MAX_LEVEL)
    return rows, error * _STRETCH
