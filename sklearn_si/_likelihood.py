"""Log-densities: change of variables along the ODE, the divergence apart from the path."""

import math

import numpy as np
import torch
from torch import Tensor

from .solvers import grid_map, odeint, refine, time_grid

# Level 0 of the refinement; each level doubles both.
_STEPS, _NODES = 8, 10
# 8 * 2^8 steps: beyond that the error is rounding, or the field is not smooth.
MAX_LEVEL = 8
# Floats of the dense path of one chunk of rows, so that it stays in cache.
_CHUNK = 2**19


def standard_normal_log_density(x: Tensor) -> Tensor:
    """log N(x; 0, I), a row."""
    return -0.5 * (x.square().sum(1) + x.shape[1] * math.log(2 * math.pi))


def _gauss_legendre(level: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [0, 1]: 2^level panels of ten nodes each."""
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
    parameters, weights = _gauss_legendre(level)
    parameters = torch.as_tensor(parameters)
    nodes, rates = torch.func.jvp(
        lambda s: grid_map(s, law, start, stop), (parameters,), (torch.ones_like(parameters),)
    )
    total = torch.zeros_like(x[:, 0])
    for s, t, weight in zip(parameters, nodes, rates * torch.as_tensor(weights), strict=True):
        k = min(int(s * n_steps), n_steps - 1)
        h = times[k + 1] - times[k]
        at = _hermite(float((t - times[k]) / h), float(h), states[k], states[k + 1], slopes[k], slopes[k + 1])
        total += float(weight) * fields.velocity_and_divergence(t.to(x), at)[1]
    return states[-1], total


def ode_log_density(fields, x: Tensor, t: float, base_log_density, tolerance: float, law: str, node=None):
    """Log-density of the ODE model at time t, with its stated error, a row.

    log rho_t(x) = log rho_0(X_{t,0}(x)) - int_0^t div b(u, X_{t,u}(x)) du    (2303.08797, (2.53))

    Parameters
    ----------
    fields : Fields
        The velocity, in scaled units.
    x : Tensor of shape (n, d)
        Rows in scaled units.
    t : float
        Time of the density.
    base_log_density : callable
        Log-density of rows of the base, in scaled units.
    tolerance : float
        Error allowed, in nats; rows that miss it are solved on finer grids.
    law : str
        Law of the grids, a key of `TIME_GRIDS`.
    node : float, default=None
        A time at which the field has a kink.

    Returns
    -------
    log_density, error : Tensor of shape (n,)
    """
    stops = [t, 0.0] if node is None or not 0 < node < t else [t, node, 0.0]

    def solve(rows, level):
        parts = []
        for part in rows.split(max(1, _CHUNK // (_STEPS * 2**level * x.shape[1]))):
            state, total = x[part], 0.0
            for start, stop in zip(stops[:-1], stops[1:], strict=True):
                state, divergence = flow_with_divergence(fields.rows(part), state, start, stop, level, law)
                total = total + divergence
            parts.append(base_log_density(state) + total)
        value = torch.cat(parts)
        return value, torch.ones_like(value)

    return refine(solve, len(x), tolerance, MAX_LEVEL)


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
        value = torch.cat([
            odeint(fields.rows(part).velocity, x[part], time_grid(_STEPS * 2**level, law, start, stop, node).to(x.device))
            for part in rows.split(max(1, _CHUNK // x.shape[1] // 8))
        ])
        return value, 1 + value.abs().amax(1)

    return refine(solve, len(x), tolerance, MAX_LEVEL)
