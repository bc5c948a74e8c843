"""Checks and sums of weighted rows, for distances between samples."""

import numpy as np
from sklearn.utils import check_array

from .._utils.frame_names import in_order, names_of
from .._utils.input_checks import naming_columns
from .._utils.kinds import check_cells
from .._utils.weights import check_weights

# All floats beyond this one are whole numbers.
_MOST_COUNT = 2.0**53


def same_columns(X, reference):
    """Both samples as finite arrays in float64, with equally many columns; columns of frames are matched by name."""
    X = check_cells(in_order(X, names_of(reference), "X", "reference"), "X")
    reference = check_cells(reference, "reference")
    with naming_columns(X):
        X = check_array(X, dtype=np.float64, input_name="X")
    with naming_columns(reference):
        reference = check_array(reference, dtype=np.float64, input_name="reference")
    if X.shape[1] != reference.shape[1]:
        raise ValueError(
            f"X has {X.shape[1]} columns and reference has {reference.shape[1]}, but a distance needs the same columns "
            "in both: select the columns that they share, in the same order."
        )
    return X, reference


def weighted_rows(X, weights, name, weight_name):
    """The rows of an array whose weight is not zero, and their weights; ones, if there are none given.

    Whole numbers are counts and stay as they are. Other weights are relative, and the largest of them becomes 1.
    """
    if weights is None:
        return X, np.ones(len(X))
    weights = check_weights(weights, len(X), name, weight_name)
    X, weights = X[weights > 0], weights[weights > 0]
    return X, weights if is_count(weights) else weights / weights.max()


def is_count(weights):
    """Whether the weights are counts: whole numbers, each of which stands for that many equal rows."""
    return bool((weights == np.rint(weights)).all() and weights.max() < _MOST_COUNT)


def n_pairs(weights):
    """The total weight of all ordered pairs of different rows, by which a U-statistic divides.

    Counts stand for n = sum w rows, which gives n (n - 1). Relative weights leave out the pair of each row with
    itself, which gives (sum w)^2 - sum w^2. Both are n (n - 1) for unit weights.
    """
    total = weights.sum()
    return total * (total - 1) if is_count(weights) else total**2 - (weights**2).sum()


def has_pairs(weights):
    """Whether there are two different rows to compare within a sample."""
    return len(weights) >= 2 or (is_count(weights) and weights.sum() >= 2)


def deviations(X, weights):
    """The weighted standard deviation of each column (ddof=0), or 1 where that is 0."""
    # The range decides: the computed deviation of a constant column, of 0.1 say, is a rounding error and not 0.
    share = weights / weights.sum()
    spread = np.sqrt(share @ (X - share @ X) ** 2)
    return np.where((np.ptp(X, axis=0) > 0) & (spread > 0), spread, 1.0)


def weighted_median(values, weights):
    """The weighted median of values; the mean of the two middle values, if there are two."""
    order = np.argsort(values, kind="stable")
    reached, half = np.cumsum(weights[order]), weights.sum() / 2
    last = len(values) - 1
    middle = [min(int(np.searchsorted(reached, half, side)), last) for side in ("left", "right")]
    return float(values[order][middle].mean())


def squared_distance_on_line(x, y, x_weights=None, y_weights=None):
    """The squared Wasserstein distance of order 2 between samples on a line: int_0^1 (F^-1 - G^-1)^2.

    The quantile functions are step functions, so both are constant between two levels at which either of them jumps.
    """
    x, x_levels = _quantile_steps(x, x_weights)
    y, y_levels = _quantile_steps(y, y_weights)
    levels = np.union1d(x_levels, y_levels)
    widths = np.diff(levels, prepend=0.0)
    middle = levels - widths / 2
    gap = x[np.searchsorted(x_levels, middle)] - y[np.searchsorted(y_levels, middle)]
    return float(widths @ gap**2)


def _quantile_steps(x, weights):
    """The sorted values, and the share of the rows up to each of them."""
    if weights is None:
        return np.sort(x), np.arange(1, len(x) + 1) / len(x)
    order = np.argsort(x, kind="stable")
    reached = np.cumsum(weights[order])
    return x[order], reached / reached[-1]
