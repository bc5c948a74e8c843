"""Distances between samples by kernels."""

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.utils import check_random_state

from ._weights import deviations, has_pairs, is_count, n_pairs, same_columns, weighted_median, weighted_rows

__all__ = ["maximum_mean_discrepancy"]

# Rows between which kernels are averaged.
_KERNEL_ROWS = 5000
# Rows from which the bandwidth of a kernel is taken.
_BANDWIDTH_ROWS = 1000
# Rows of a block of distances.
_BLOCK = 1024


def maximum_mean_discrepancy(
    X, reference, *, bandwidth=None, random_state=0, sample_weight=None, reference_weight=None
):
    """Unbiased estimate of the squared maximum mean discrepancy between the distributions of two samples.

    MMD^2 = E k(X, X') + E k(Y, Y') - 2 E k(X, Y),    k(x, y) = exp(-|x - y|^2 / (2 h^2))

    (Gretton et al. 2012, "A kernel two-sample test", equation (3)), with each column divided by its standard deviation
    in the reference.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Rows of the first sample, for example drawn from a model.
    reference : array-like of shape (n_reference, n_features)
        Rows of the sample to compare with.
    bandwidth : float or None, default=None
        The bandwidth h, in standard deviations of the reference; None takes the median distance between its rows.
    random_state : int, RandomState instance or None, default=0
        Seed of the rows that are compared, at most 5,000 of each sample.
    sample_weight, reference_weight : array-like of shape (n_samples,) or (n_reference,), default=None
        Weights of the rows of `X` and of `reference`, as in `energy_distance`.

    Returns
    -------
    mmd : float
        MMD^2, without unit. Its expectation is zero if and only if the distributions are equal; the estimate is then
        often negative.

    Raises
    ------
    ValueError
        As in `energy_distance`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si.metrics import maximum_mean_discrepancy
    >>> X, Y = np.random.default_rng(0).normal(size=(2, 300, 2))
    >>> abs(maximum_mean_discrepancy(X, Y)) < 0.01 < maximum_mean_discrepancy(X + 1.0, Y)
    True
    """
    X, Y = same_columns(X, reference)
    X, w = weighted_rows(X, sample_weight, "X", "sample_weight")
    Y, v = weighted_rows(Y, reference_weight, "reference", "reference_weight")
    if not (has_pairs(w) and has_pairs(v)):
        raise ValueError(
            f"Got {len(X)} and {len(Y)} rows, but a mean over pairs needs at least 2 of each sample: pass more rows."
        )
    rng, scale = check_random_state(random_state), deviations(Y, v)
    chosen = [rng.permutation(len(rows))[:_KERNEL_ROWS] for rows in (X, Y)]
    first, second = (X[chosen[0]] / scale, w[chosen[0]]), (Y[chosen[1]] / scale, v[chosen[1]])
    bandwidth = _median_distance(*second) if bandwidth is None else bandwidth
    within = [(_kernel_sum(A, A, bandwidth) - _with_themselves(A[1])) / n_pairs(A[1]) for A in (first, second)]
    return float(sum(within) - 2 * _kernel_sum(first, second, bandwidth) / (first[1].sum() * second[1].sum()))


def _with_themselves(weights):
    """The total weight of the pairs of a row with itself, whose kernel is 1 (see `n_pairs`)."""
    return weights.sum() ** 2 - n_pairs(weights)


def _median_distance(rows, weights):
    """The median distance between different rows, or 1 if that is 0."""
    rows, weights = rows[:_BANDWIDTH_ROWS], weights[:_BANDWIDTH_ROWS]
    i, j = np.triu_indices(len(rows), 1)
    pairs = weights[i] * weights[j]
    # The equal rows that a count stands for are at distance 0 from each other.
    equal = max(n_pairs(weights) - 2 * pairs.sum(), 0.0) / 2 if is_count(weights) else 0.0
    distances = np.append(cdist(rows, rows)[i, j], 0.0)
    return weighted_median(distances, np.append(pairs, equal)) or 1.0


def _kernel_sum(first, second, bandwidth):
    (A, w), (B, v) = first, second
    blocks = (slice(i, i + _BLOCK) for i in range(0, len(A), _BLOCK))
    return sum(w[rows] @ np.exp(-cdist(A[rows], B, "sqeuclidean") / (2 * bandwidth**2)) @ v for rows in blocks)
