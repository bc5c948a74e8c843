"""Refinement of a solution, row by row, until its estimated error is within the tolerance."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# The solver's own estimate of the error of the first level is about ten times too large, so that it can be trusted
# alone. This margin is taken away when there is a second level to compare with.
_OWN_MARGIN = 10.0
# What the first distance between two levels counts by: the coarser one may not have begun to converge
# (the error of the finer one is .5 to .7 of that distance for the worst hundredth of the rows of rough models).
_FIRST_GAP = 3.0


def refine(
    solve: Callable, n_rows: int, tolerance: float, levels: Sequence, gap_share: float = 0.25
) -> tuple[Tensor, Tensor]:
    """Solve each row at finer and finer levels until its estimated error is within the tolerance.

    error_k = max(c g_k, g_{k-1} / 32),    g_k = |solution at level k - solution at level k - 1|

    with three times c for the first distance, of a level that may not have begun to converge.

    Half the step reduces the error of a fifth-order method by a factor of 32; the rest is margin. The second term
    guards against accidental agreement of two levels. Where the solver states an error of its own, as at the first
    level, this is taken instead, and g_k is a tenth of it; if there is none at the first, each row is solved at three
    levels at least. Only the rows that miss the tolerance are solved again, and the decision on a row uses its own
    values alone, so that its solution does not depend on the other rows.

    Parameters
    ----------
    solve : callable
        A function (rows, level) -> (parts of shape (m, k), size of shape (m,) or 1, error of shape (m,) or None). The
        distance between two levels is that of their parts, divided by the size.
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
    is_first_gap = True
    for k, level in enumerate(levels[1:], 1):
        if not len(rows):
            break
        fine, size, own = solve(rows.cpu(), level)
        if own is None:
            gap = torch.nan_to_num((fine - coarse).norm(dim=1) / size, nan=torch.inf)
            share, is_first_gap = gap_share * (_FIRST_GAP if is_first_gap else 1.0), False
            stated = torch.maximum(share * gap, last_gap / 32)
        else:
            stated = own.nan_to_num(nan=torch.inf)
            gap = stated / _OWN_MARGIN
        parts[rows], error[rows] = fine, stated
        missed = (stated > tolerance) | (k < first)
        # A distance that grows from level to level is rounding error, to which finer grids would only add.
        missed &= (gap <= last_gap) | (k < 4) | (own is not None)
        missed &= torch.isfinite(fine).all(1)
        rows, coarse, last_gap = rows[missed], fine[missed], gap[missed]
    return parts, error
