"""Rows transported along the ODE, within a tolerance or over a grid of times."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from ..solvers import ODE_SOLVERS, refine, time_grid
from ..solvers._steps import combine, dense_state, runge_kutta_step
from .fields import Fields
from .levels import MAX_LEVEL
from .likelihood import Solved, row_chunks

# Steps of the first solve of transported rows, by the tolerance from which on they are taken.
_TRANSPORT_STEPS = ((1e-2, 6), (0.0, 10))
# Stated over embedded errors of the first solve of transported rows.
_EMBEDDED_MARGIN = 10.0
# Factor by which the tolerance of transported rows is lower than asked for: a flow that contracts clusters magnifies
# errors by up to a hundred on the way back.
_STRETCH = 100


def flow(fields: Fields, x: Tensor, times: Tensor, outputs: Sequence[float] = ()) -> tuple[Tensor, Tensor]:
    """Rows transported over a grid of times by Dormand-Prince steps; what depends on time alone is computed at once.

    Parameters
    ----------
    fields : Fields
        The velocity.
    x : Tensor of shape (n, d)
        Rows at times[0].
    times : Tensor of shape (k,)
        In double precision.
    outputs : sequence of float, default=()
        Times between the first and the last, in their order, at which the states are wanted as well: from the dense
        output of the steps, which are the same whatever the outputs are.

    Returns
    -------
    x : Tensor of shape (n, d) or (len(outputs), n, d)
        The rows at times[-1], or, where there are outputs, the states at these.
    embedded : Tensor of shape (n,)
        The sum over the steps of the largest coordinate of their embedded errors.
    """
    tableau = ODE_SOLVERS["dopri5"]
    steps = [(t, t_next - t) for t, t_next in itertools.pairwise(times.tolist())]
    stages = [t + c * h for t, h in steps for c in tableau.c]
    moments = [*dict.fromkeys([*stages, *times.tolist()])]
    known = dict(zip(moments, fields.velocities(torch.tensor(moments, dtype=torch.float64).to(x)), strict=True))
    states, waiting = [], list(outputs)
    direction = 1 if times[-1] > times[0] else -1
    first, embedded = known[float(times[0])](x), torch.zeros_like(x[:, 0])
    while waiting and waiting[0] == float(times[0]):
        states.append(x)
        waiting.pop(0)
    for (t, h), t_next in zip(steps, times.tolist()[1:], strict=True):
        new, slopes = runge_kutta_step(tableau, lambda s, y: known[s](y), t, h, x, first)
        slopes.append(known[t_next](new))
        embedded = embedded + (h * combine(tableau.error, slopes)).abs().amax(1)
        while waiting and direction * (waiting[0] - t_next) <= 0:
            at = waiting.pop(0)
            states.append(new if at == t_next else dense_state(tableau, (at - t) / h, h, x, slopes))
        x, first = new, slopes[-1]
    return torch.stack(states) if len(outputs) else x, embedded


def transport_rows(
    fields: Fields,
    x: Tensor,
    start: float,
    stop: float,
    tolerance: float,
    spacing: str,
    node: float | None = None,
    outputs: Sequence[float] = (),
) -> tuple[Tensor, Tensor]:
    """Rows transported along the ODE from start to stop, with the stated relative error of each.

    Parameters
    ----------
    fields, x, spacing, node
        As in `ode_log_density`.
    start, stop : float
        Times.
    tolerance : float
        Error allowed in any coordinate, relative to 1 + the largest coordinate of the row.
    outputs : sequence of float, default=()
        As in `flow`: the states at these times, all within the tolerance, instead of those at stop.

    Returns
    -------
    rows : Tensor of shape (n, d) or (len(outputs), n, d)
    error : Tensor of shape (n,)
    """
    target = tolerance / _STRETCH
    steps = next(n_steps for least, n_steps in _TRANSPORT_STEPS if tolerance >= least)
    levels = [steps * 2**k for k in range(MAX_LEVEL + 1)]

    def solve(rows: Tensor, n_steps: int) -> Solved:
        times = time_grid(n_steps, spacing, start, stop, node)
        parts = row_chunks(rows, x.shape[1] * max(1, len(outputs)))
        solved = [flow(fields.rows(part), x[part], times, outputs) for part in parts]
        value = torch.cat([states for states, _ in solved], dim=-2)
        # the states of a row side by side: its error is that of the worst of them, or more
        value = value if value.ndim == 2 else value.transpose(0, 1).flatten(1)
        size = 1 + value.abs().amax(1)
        if n_steps > levels[0]:
            return value, size, None
        # errors of early steps may grow on the way, unknown to the later ones: the first solve is never believed, and
        # what its steps state of themselves guards against an accidental agreement with the second
        embedded = torch.cat([error for _, error in solved])
        return value, size, (_EMBEDDED_MARGIN * embedded / size).clamp(min=2 * target)

    rows, error = refine(solve, len(x), target, levels)
    if len(outputs):
        rows = rows.reshape(len(x), len(outputs), -1).transpose(0, 1)
    return rows, error * _STRETCH
