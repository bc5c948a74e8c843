"""Log-densities: change of variables along the ODE, the divergence apart from the path."""

import math

import numpy as np
import torch
from torch import Tensor

from .solvers import KINK, grid_map, odeint, refine, time_grid

# Level 0 of the refinement; each level doubles both.
_STEPS, _NODES = 4, 5
# 4 * 2^9 steps: beyond that the error is rounding, or the field is not smooth.
MAX_LEVEL = 9
# A flow that pulls clusters together stretches errors by up to a hundred on the way
# back; carried rows are held to a tolerance that leaves room for it.
_STRETCH = 100
# Floats of the dense path of one chunk of rows, so that it stays in cache.
_CHUNK = 2**19


def standard_normal_log_density(x: Tensor) -> Tensor:
    """Log N(x; 0, I), a row."""
    return -0.5 * (x.square().sum(1) + x.shape[1] * math.log(2 * math.pi))


def _gauss_legendre(level: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [0, 1]: 2^level panels of five nodes each."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    panels = 2**level
    nodes = ((nodes + 1) / 2 + np.arange(panels)[:, None]) / panels
    return nodes.ravel(), np.tile(weights / 2 / panels, panels)


def _hermite(u, h, xa, xb, fa, fb):
    """The cubic through two states with their slopes, at the fraction u of a step of length h."""
    return (1 + 2 * u) * (1 - u) ** 2 * xa + u**2 * (3 - 2 * u) * xb + h * u * (1 - u) * ((1 - u) * fa - u * fb)


def flow_with_divergence(fields, x: Tensor, start: float, stop: float, level: int, law: str):
    """Carry rows along the ODE and integrate the divergence on the way.

    x(stop),    int_start^stop div b(t, x_t) dt    (2303.08797, (2.52))

    The state does not need the divergence: RK4 carries x alone, then the divergence is taken at
    Gauss-Legendre nodes of the grid's own parameter, on the cubic Hermite path.
    """
    n_steps = _STEPS * 2**level
    times = time_grid(n_steps, law, start, stop)
    states, slopes = odeint(fields.velocity, x, times, dense=True)
    parameters, weights = (torch.as_tensor(a) for a in _gauss_legendre(level))
    nodes, rates = grid_map(parameters, law, start, stop)
    total = torch.zeros_like(x[:, 0])
    for s, t, weight in zip(parameters, nodes, rates * weights, strict=True):
        k = min(int(s * n_steps), n_steps - 1)
        h = times[k + 1] - times[k]
        at = _hermite(float((t - times[k]) / h), float(h), states[k], states[k + 1], slopes[k], slopes[k + 1])
        total += float(weight) * fields.velocity_and_divergence(t.to(x), at)[1]
    return states[-1], total


def standard_normal_parts(x: Tensor, level: int) -> Tensor:
    """The log-density of N(0, I) as the parts that `ode_log_density` refines."""
    return standard_normal_log_density(x)[:, None]


def density_parts(fields, x: Tensor, t: float, level: int, law: str, anchor: float, anchor_parts) -> Tensor:
    """Terms whose sum is the log-density at time t, on the grid of one level, of shape (n, k)."""
    if abs(t - anchor) <= KINK:
        return anchor_parts(x, level)
    # in the middle of a path the fields may jump: stay on the side of t
    stop = anchor + math.copysign(KINK, t - anchor) if anchor > 0 else anchor
    x, divergence = flow_with_divergence(fields, x, t, stop, level, law)
    return torch.cat([anchor_parts(x, level), divergence[:, None]], 1)


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
        anchor_parts(x, level) -> terms of the log-density at time a in scaled units, of shape (n, k); a base
        that is a flow itself is solved at the same level.
    tolerance : float
        Error allowed, in nats; rows that miss it are solved on finer grids.
    law : str
        Law of the grids, a key of `TIME_GRIDS`.

    Returns
    -------
    log_density, error : Tensor of shape (n,)
    """

    def solve(rows, level):
        size = max(1, _CHUNK // (_STEPS * 2**level * x.shape[1]))
        solved = [
            density_parts(fields.rows(part), x[part], t, level, law, anchor, anchor_parts) for part in rows.split(size)
        ]
        return torch.cat(solved), 1.0

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
        return total[:, None], 1.0

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
            odeint(fields.rows(part).velocity, x[part], times) for part in rows.split(max(1, _CHUNK // x.shape[1] // 8))
        ])  # fmt: skip
        return value, 1 + value.abs().amax(1)

    rows, error = refine(solve, len(x), tolerance / _STRETCH, MAX_LEVEL)
    return rows, error * _STRETCH
