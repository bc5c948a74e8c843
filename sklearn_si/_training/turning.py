"""How snapshots turn: rotations into a frame that moves along, in which their rows are paired."""

import itertools

import numpy as np
import torch
from torch import Tensor

from .._utils.weights import rows_by_weight
from ..couplings import optimal_pairs

# Rows of each snapshot by which a rotation is found, and as many by which it is judged.
_ROWS = 256
# Fewest rows of a snapshot.
_FEWEST_ROWS = 64
# Pairings by which a rotation is found, at the most.
_STEPS = 12
# Change of a rotation that is none.
_SAME = 1e-3
# Fewest snapshots: between two the path is a straight line, on which what turns would shrink.
_FEWEST = 3
# Share of the cost of transport between other rows that a rotation may leave. It was .02 to .9 for what turns by .5 to
# 1.5 rad in 2 columns (.5 to .6 in 5, .87 to .94 in 20), and .97 to 1.06 where nothing turns.
_MOST_LEFT = 0.9


def rotations_of(
    rows: list[Tensor], times: np.ndarray | None, weights: list[Tensor | None], generator: torch.Generator
) -> list[Tensor]:
    """The rotations between neighbouring snapshots, where they spare a tenth of the cost of transport; else 1.

    x_{k+1} - m_{k+1} = S R (x_k - m_k)    (every affine motion is a rotation R and then a symmetric map S)

    The optimal plan knows no rotation: its map is the gradient of a convex function. If what moves turns as a whole,
    its pairs are wrong. R is found by pairing rows and by the best rotation of the pairs in turn, from R = 1 on (Grave,
    Joulin & Berthet 2019, arXiv 1805.11222), and judged by other rows.

    Parameters
    ----------
    rows : list of Tensor of shape (n_samples_k, d)
        In scaled units, in the order of time.
    times : ndarray or None
    weights : list of (Tensor or None)
        Of the rows.
    generator : torch.Generator

    Returns
    -------
    rotations : list of Tensor of shape (d, d)
        One fewer than snapshots.
    """
    one = torch.eye(rows[0].shape[1], dtype=rows[0].dtype, device=rows[0].device)
    few = len(rows) < _FEWEST or min(len(x) for x in rows) < _FEWEST_ROWS
    if times is None or len(one) < 2 or few:
        return [one] * (len(rows) - 1)
    halves = [_halves(x, weight, generator) for x, weight in zip(rows, weights, strict=True)]
    found = []
    for (x, x_judge), (y, y_judge) in itertools.pairwise(halves):
        turn = rotation(x, y)
        left = transport_cost(x_judge @ turn.T, y_judge) / max(transport_cost(x_judge, y_judge), 1e-12)
        found.append(turn if left <= _MOST_LEFT else one)
    return found


def _halves(x: Tensor, weight: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows by which a rotation is found and rows by which it is judged, around their means."""
    n = min(_ROWS, len(x) // 2)
    if weight is None:
        numbers = torch.randperm(len(x), generator=generator, device=x.device)[: 2 * n]
    else:
        numbers = rows_by_weight(weight, 2 * n, generator)
    # as many of all snapshots
    some = x[numbers.repeat(-(-2 * _ROWS // len(numbers)))[: 2 * _ROWS]]
    return some[::2] - some[::2].mean(0), some[1::2] - some[1::2].mean(0)


def rotation(x: Tensor, y: Tensor) -> Tensor:
    """The rotation R by which optimal transport from rows R x to rows y costs least, from R = 1 on."""
    found = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    for _ in range(_STEPS):
        left, _, right = torch.linalg.svd((y[_partners(x @ found.T, y)].T @ x).double())
        signs = torch.ones(len(left), dtype=left.dtype, device=left.device)
        signs[-1] = torch.linalg.det(left @ right)  # no mirror image
        new = (left * signs @ right).to(x)
        change, found = float((new - found).abs().amax()), new
        if change < _SAME:
            break
    return found


def transport_cost(x: Tensor, y: Tensor) -> float:
    """The least mean squared distance of pairs of equally many rows."""
    return float((x - y[_partners(x, y)]).square().sum(1).mean())


def _partners(x: Tensor, y: Tensor) -> Tensor:
    return torch.as_tensor(optimal_pairs(x, y), device=y.device)


def frames_of(rotations: list[Tensor]) -> list[Tensor] | None:
    """Matrices Q_k by which (x_k - m_k) Q_k are rows in the frame of the first snapshot; None where nothing turns."""
    one = torch.eye(len(rotations[0]), dtype=rotations[0].dtype, device=rotations[0].device)
    if all(torch.equal(turn, one) for turn in rotations):
        return None
    frames = [one]
    for turn in rotations:
        frames.append(turn @ frames[-1])
    return frames
