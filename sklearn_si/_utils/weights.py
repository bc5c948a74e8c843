"""Weights of rows: checked, left out where they are zero, and rows drawn by them."""

from typing import Any

import numpy as np
import torch
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples
from torch import Tensor

from .frame_names import narwhals_frame, narwhals_series
from .input_checks import is_sample
from .kinds import check_cells


def check_weights(weights, n_rows, name, weight_name):
    """One finite weight for each row, in float64; none is negative, and at least one is positive."""
    check_cells(weights, weight_name)
    try:
        weights = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{weight_name} has a value that is not a number ({error}): give one number for each row."
        ) from error
    if weights.shape != (n_rows,):
        raise ValueError(
            f"{weight_name} has the shape {weights.shape}, but expected ({n_rows},): one weight for each row of {name}."
        )
    bad = np.flatnonzero(~np.isfinite(weights) | (weights < 0))
    if len(bad):
        raise ValueError(
            f"{weight_name} is {weights[bad[0]]:g} at row {bad[0]} of {name} ({len(bad)} such rows), but weights are "
            "finite and not negative: give 0 to a row that is to be left out."
        )
    if not weights.any():
        raise ValueError(
            f"{weight_name} is 0 at every row of {name}, but weights cannot all be zero: give one row more than 0."
        )
    least, most = weights[weights > 0].min(), weights.max()
    if not least / most > 0:
        raise ValueError(
            f"{weight_name} goes from {least:g} to {most:g}, a ratio that is zero in double precision: give 0 to rows "
            "that are to be left out, or weights of a smaller range."
        )
    return weights


def weighted_samples(X0, X1, condition, sample_weight, is_paired):
    """The rows of a fit that have a weight, and their weights; without `sample_weight`, what was given.

    Parameters
    ----------
    X0, X1, condition : array-like
        What fit was given, before any other check of it.
    sample_weight : array-like, tuple of two of them (or None), or None
        Weights of the rows of the last sample, of both samples, or of the pairs.
    is_paired : bool
        Whether row i of X0 belongs to row i of X1.

    Returns
    -------
    X0, X1, condition
        Without the rows of weight zero.
    weights : tuple of (ndarray or None)
        Of the base and of the target, of mean one; None where all rows weigh the same.
    """
    if sample_weight is None:
        return X0, X1, condition, (None, None)
    n0 = _num_samples(X0)
    if not is_sample(X1, "X1"):
        if is_pair(sample_weight):
            raise ValueError(
                "sample_weight is a pair, but fit was given one sample: pass one array, a weight for each row of X."
            )
        rows, weight = _weighted_rows(sample_weight, n0, "X", "sample_weight")
        return taken(X0, rows, n0), taken(X1, rows, n0), taken(condition, rows, n0), (None, weight)
    n1 = _num_samples(X1)
    if is_paired:
        if is_pair(sample_weight):
            raise ValueError(
                "sample_weight is a pair, but rows of X0 and X1 are paired: pass one array, a weight for each pair."
            )
        rows, weight = _weighted_rows(sample_weight, n1, "X1", "sample_weight")
        return taken(X0, rows, n1), taken(X1, rows, n1), taken(condition, rows, n1), (weight, weight)
    both = sample_weight if is_pair(sample_weight) else (None, sample_weight)
    names = ("sample_weight[0]", "sample_weight[1]") if is_pair(sample_weight) else ("", "sample_weight")
    rows0, weight0 = _weighted_rows(both[0], n0, "X0", names[0])
    rows1, weight1 = _weighted_rows(both[1], n1, "X1", names[1])
    return taken(X0, rows0, n0), taken(X1, rows1, n1), taken(condition, rows1, n1), (weight0, weight1)


def weighted_rows(X, sample_weight, name="X"):
    """The rows of one table that have a weight, and their weights, as in `weighted_samples`."""
    if sample_weight is None:
        return X, None
    n = _num_samples(X)
    rows, weight = _weighted_rows(sample_weight, n, name, "sample_weight")
    return taken(X, rows, n), weight


def is_pair(weights):
    """Whether weights are those of two samples: a tuple of two, none of which is a number."""
    is_two = isinstance(weights, tuple) and len(weights) == 2
    return is_two and all(part is None or np.ndim(part) > 0 for part in weights)


def _weighted_rows(weights, n_rows, name, weight_name):
    """Numbers of the rows to keep (None for all), and their weights."""
    if weights is None:
        return None, None
    weights = check_weights(weights, n_rows, name, weight_name)
    rows = np.flatnonzero(weights)
    return rows if len(rows) < n_rows else None, normalised(weights[rows])


def normalised(weights):
    """Positive weights of mean one; None where all are equal."""
    if weights is None or weights.min() == weights.max():
        return None
    weights = weights / weights.max()  # sums of the largest floats would be infinite
    return weights / weights.mean()


def taken(X, rows, n_rows):
    """Some rows of a table of any kind with so many rows; another table is left as it is, for later checks."""
    if rows is None or X is None:
        return X
    if np.ndim(X) == 0 or _num_samples(X) != n_rows:
        return X
    frame = narwhals_frame(X)
    frame = narwhals_series(X) if frame is None else frame
    if frame is not None:
        return frame[rows.tolist()].to_native()
    return X[rows] if isinstance(X, np.ndarray) else _safe_indexing(X, rows)


def part_of_weights(weights: np.ndarray | None, rows: Any) -> np.ndarray | None:
    """The weights of some rows; None where all weigh the same."""
    return None if weights is None else weights[rows]


def effective_rows(n: int, weights: np.ndarray | None) -> float:
    """The effective sample size of n rows: (sum w)^2 / sum w^2 (Kish 1965)."""
    return float(n) if weights is None else float(weights.sum() ** 2 / (weights**2).sum())


def resampled(weights: np.ndarray, n: int, rng: np.random.Generator, folds: int = 1) -> np.ndarray:
    """Numbers of about n rows drawn by systematic resampling: row i occurs n w_i / sum w times, rounded up or down.

    Parameters
    ----------
    weights : ndarray of shape (n_rows,)
    n : int
    rng : numpy Generator
    folds : int, default=1
        Copies of a row are at places that differ by a multiple of this number, so that none is in two of the folds
        `[k::folds]`.
    """
    folds = min(folds, len(weights))
    each = max(1, n // folds)
    drawn = [_systematic(weights[k::folds], each, rng) * folds + k for k in range(folds)]
    return np.column_stack(drawn).ravel()


def _systematic(weights: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    reached = np.cumsum(weights)
    points = (np.arange(n) + rng.uniform()) / n * reached[-1]
    return np.minimum(np.searchsorted(reached, points, side="right"), len(weights) - 1)


def rows_by_weight(weights: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Numbers of n rows, each drawn with a probability in proportion to its weight."""
    u = torch.rand(n, generator=generator, dtype=weights.dtype, device=weights.device)
    return _rows_at(weights, u)


def pass_by_weight(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Numbers of as many rows as there are, in random order: row i occurs n w_i / sum w times, rounded up or down."""
    n = len(weights)
    start = torch.rand(1, generator=generator, dtype=weights.dtype, device=weights.device)
    places = torch.arange(n, dtype=weights.dtype, device=weights.device)
    order = torch.randperm(n, generator=generator, device=weights.device)
    return _rows_at(weights, (places + start) / n)[order]


def _rows_at(weights: Tensor, u: Tensor) -> Tensor:
    reached = weights.cumsum(0)
    return torch.searchsorted(reached, u * reached[-1], right=True).clamp(max=len(weights) - 1)


def systematic_rows(labels: list[np.ndarray], weight: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """N row numbers, each row as often as its weight says up to one, in random order.

    Points at equal distances on the sum of the weights choose the rows, which are sorted by their groups: each group,
    and so each margin, has its share up to a row or so.
    """
    order = np.lexsort([rng.random(len(weight)), *labels[::-1]])
    ends = np.cumsum(weight[order])
    points = (rng.random() + np.arange(n)) / n * ends[-1]
    chosen = order[np.minimum(np.searchsorted(ends, points, side="right"), len(order) - 1)]
    return rng.permutation(chosen)
