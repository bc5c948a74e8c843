"""Refinement of a solution, row by row, until its estimated error is within the tolerance."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# The solver's own estimate of the error of the first level is about ten times too large, so that it can be trusted
# alone. This margin is taken away when there is a second level to compare with.
_OWN_MARGIN = 10.0
# What the first distance between two levels counts by: the coarser one may not have begun to converge
# (the error of the finer one is .5 to .7 of that distance for the worst hundredth of the rows of rough models).
_FIRST_GAP = 3.0
# Distances after which a row may be given up.
_LEAST_DISTANCES = 3
# The first level at which a distance that grows is rounding error.
_LEAST_GROWN = 4
# The error, in nats or relative, that a row must be able to reach to be refined beyond that.
_WORTH = 1e-3
# Convergence gets faster at finer levels: rows are given up by the square of the mean rate so far, and by no faster one
# than that of the method.
_ACCELERATION = 2
_GAIN = 1 / 32
# Largest rate of the geometric tail that the error of a row that was given up is stated by: nine times its distance.
_WORST_RATE = 0.9
# Relative roundings of a part that its sum along a path may amount to.
_ROUNDINGS = 4


class Beside(NamedTuple):
    """What a solver adds to the error that the distance from the level before tells: of rounding, say.

    Parameters
    ----------
    error : Tensor of shape (m,)
    """

    error: Tensor


def refine(
    solve: Callable, n_rows: int, tolerance: float, levels: Sequence, gap_share: float = 0.25
) -> tuple[Tensor, Tensor]:
    """Solve each row at finer and finer levels until its estimated error is within the tolerance.

    error_k = max(c g_k, g_{k-1} / 32),    g_k = |solution at level k - solution at level k - 1|

    with three times c for the first distance, of a level that may not have begun to converge.

    Half the step reduces the error of a fifth-order method by a factor of 32; the rest is margin. The second term
    guards against accidental agreement of two levels. A row that would miss the tolerance, and 1e-3, at the last
    level, by its rate of convergence so far or by rounding, is given up after three distances, with the rest of a
    geometric series as its error. Where the solver states an error of its own, as at the first
    level, this is taken instead, and g_k is a tenth of it; if there is none at the first, each row is solved at three
    levels at least. Only the rows that miss the tolerance are solved again, and the decision on a row uses its own
    values alone, so that its solution does not depend on the other rows.

    Parameters
    ----------
    solve : callable
        A function (rows, level) -> (parts of shape (m, k), size of shape (m,) or 1, error of shape (m,), a `Beside` or
        None). The distance between two levels is that of their parts, divided by the size.
    n_rows : int
        Number of rows.
    tolerance : float
        Largest allowed error.
    levels : sequence
        The levels, beginning with the coarsest.
    gap_share : float, default=0.25
        c: the error of a level over its distance from the one before, as assumed or as measured.

    Returns
    -------
    parts : Tensor of shape (n_rows, k)
        The parts of each row at its finest level.
    error : Tensor of shape (n_rows,)
        The estimated error of each row.
    """
    parts, _, own = solve(torch.arange(n_rows), levels[0])
    first = 2 if own is None else 1
    error = torch.full_like(parts[:, 0], torch.inf) if own is None else own.nan_to_num(nan=torch.inf)
    missed = ~(error <= tolerance) & torch.isfinite(parts).all(1)
    last_gap = torch.zeros_like(error[missed]) if own is None else error[missed] / _OWN_MARGIN
    rows, coarse = missed.nonzero()[:, 0], parts[missed]
    first_gap, n_gaps = torch.zeros_like(last_gap), 0
    for k, level in enumerate(levels[1:], 1):
        if not len(rows):
            break
        fine, size, own = solve(rows.cpu(), level)
        if own is None or isinstance(own, Beside):
            gap = torch.nan_to_num((fine - coarse).norm(dim=1) / size, nan=torch.inf)
            n_gaps += 1
            first_gap = gap if n_gaps == 1 else first_gap
            share = gap_share * (_FIRST_GAP if n_gaps == 1 else 1.0)
            stated = torch.maximum(share * gap, last_gap / 32)
            stated = stated if own is None else stated + own.error
        else:
            stated = own.nan_to_num(nan=torch.inf)
            gap = stated / _OWN_MARGIN
        missed = (stated > tolerance) | (k < first)
        if n_gaps >= _LEAST_DISTANCES:
            # A distance that grows from level to level is rounding error, to which finer grids would only add.
            is_growing = (gap > last_gap) & (k >= _LEAST_GROWN)
            rate = (gap / first_gap) ** (1 / (n_gaps - 1))
            best = _best_error(gap_share * gap, rate, len(levels) - 1 - k) + _rounding(fine, size)
            is_lost = missed & (is_growing | (best > max(tolerance, _WORTH)))
            stated = torch.where(is_lost, torch.maximum(stated, _rest_of_series(gap, last_gap, rate)), stated)
            missed &= ~is_lost
        parts[rows], error[rows] = fine, stated
        missed &= torch.isfinite(fine).all(1)
        rows, coarse = rows[missed], fine[missed]
        last_gap, first_gap = gap[missed], first_gap[missed]
    return parts, error


def _best_error(error: Tensor, rate: Tensor, n_levels: int) -> Tensor:
    """The error that so many further levels may lead to."""
    return error * (rate**_ACCELERATION).clamp(min=_GAIN) ** n_levels


def _rounding(parts: Tensor, size: Tensor | float) -> Tensor:
    """What rounding the parts amounts to, which no level undoes."""
    return _ROUNDINGS * torch.finfo(parts.dtype).eps * parts.abs().amax(1) / size


def _rest_of_series(gap: Tensor, last_gap: Tensor, rate: Tensor) -> Tensor:
    """The distance to the limit of a series whose terms fall at a rate, from its last two terms."""
    worst = torch.maximum(rate, gap / last_gap).clamp(max=_WORST_RATE)
    rest = torch.maximum(gap, last_gap * worst) * worst / (1 - worst)
    # an infinite error would say that the solution is none
    return rest.clamp(max=torch.finfo(rest.dtype).max)
