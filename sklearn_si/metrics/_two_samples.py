"""Tests of whether two tables have the same distribution, by permutations of their rows."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.utils.validation import _num_samples

from .._utils.callers import users_level
from .._utils.figures import Figures
from .._utils.input_checks import check_count
from .._utils.tensors import draw_seed
from .._utils.weights import check_weights, is_pair, taken
from ._pooled import PooledTables

__all__ = ["two_sample_test"]

# Rows of each table between which distances are computed.
_DISTANCE_ROWS = 5000
# Rows from which the bandwidth of a kernel is taken.
_BANDWIDTH_ROWS = 1000
# Rows of a block of distances.
_BLOCK = 1024
# Parts of the rows: the classifier learns from the first ones and is tested on the next one.
_N_PARTS = 6
# Parts that it learns from before the first test.
_N_LEARNED = 2
# Sums that differ by less than this share of their terms are equal: they were added up in another order.
_ROUNDING = 1e-12
# Stream of the random numbers by which weights keep rows.
_THINNING = 24
# Share of the rows that weights keep, below which a warning says so.
_FEW_KEPT = 0.1


def two_sample_test(X, Y, *, statistic="c2st", n_permutations=499, random_state=0, sample_weight=None):
    """Test whether two samples have the same distribution, with a p-value that is valid for any number of rows.

    p = (1 + #{b : T_b >= T}) / (1 + n_permutations)

    with the statistic T of the samples and the statistics T_b after random permutations of their rows. If the
    distributions are equal, P(p <= u) <= u for every u, whatever the distribution, the classifier or the kernel.

    Parameters
    ----------
    X, Y : frame or array-like of shape (n_rows, n_columns)
        Tables with the same columns of any kind: numbers, categories, dates, missing values. The numbers of rows may
        differ. Columns of frames are found by name.
    statistic : {"c2st", "mmd", "energy"}, default="c2st"
        - "c2st": 2 AUC - 1 of gradient boosting that tells the tables apart (Lopez-Paz & Oquab 2017, "Revisiting
          classifier two-sample tests"). It sees any difference, and few columns that differ among many. See Notes.
        - "mmd": MMD^2 with a Gaussian kernel whose bandwidth is the median distance (Gretton et al. 2012, "A kernel
          two-sample test", equation (3)).
        - "energy": the squared energy distance (Szekely & Rizzo 2013, "Energy statistics"), which sees shifts of the
          mean.
    n_permutations : int, default=499
        Number of permutations; no p-value is below 1 / (1 + n_permutations).
    random_state : int, RandomState instance or None, default=0
        Seed of the permutations, of the parts and the trees of "c2st", and of the rows that weights keep.
    sample_weight : tuple of two array-like (or None), of shape (n_rows_X,) and (n_rows_Y,), default=None
        Weights of the rows of X and of Y: the test is then of whether the weighted distributions are equal. See Notes.

    Returns
    -------
    result : Bunch
        `statistic`: T, whose mean is zero if the distributions are equal; large values speak against that. `pvalue`:
        the p-value. `null`: T_b of each permutation, ndarray of shape (n_permutations,).

    Raises
    ------
    ValueError
        When the columns differ, a column holds values of another kind, or a table has too few rows: 2 for distances, 6
        for a classifier; and when weights are no pair, negative, not finite, or leave too few rows.

    Warns
    -----
    UserWarning
        When weights keep less than a tenth of the rows of a table.

    Notes
    -----
    Permuted rows would need a new classifier for each permutation. Scores out of fold cannot simply be kept: those of
    one fold depend on the labels of the others. Here the rows are split at random into six parts with equal shares of
    both tables. The classifier is trained on the first two parts and ranks the rows of the third, then on three to rank
    the fourth, and so on. Given the earlier parts, all orders of the labels within a part are equally likely under the
    null hypothesis; so the sum of the ranks of the rows of Y (Mann-Whitney) has the same known distribution in each
    part, independent of the earlier parts, and T is a weighted mean of them. Permutations of labels within the parts
    therefore give its exact distribution with four classifiers altogether. Ties are broken at random.

    Rows of different weights cannot be exchanged: a permutation would move the weights of one sample to rows of the
    other. So a row of X is kept with probability w / max w, independently of the others, and likewise in Y. The rows
    that are kept are independent, of equal weight, and have the weighted distributions (rejection sampling; von Neumann
    1951), up to what lies beyond the largest weight that was seen: the p-value of their test is valid for every
    statistic and every pair of weights. The price is power: n mean(w) / max(w) rows are left. Each row counts as one
    observation, whatever its weight; repeat rows (``numpy.repeat``) whose weights are numbers of observations.

    Distances and kernels use at most 5,000 rows of each table, drawn at random; their time grows with the square of the
    number of rows. Numbers are divided by their standard deviation in both tables together; a category or a missing
    value is an indicator.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si.metrics import two_sample_test
    >>> X, Y = np.random.default_rng(0).normal(size=(2, 200, 2))
    >>> two_sample_test(X, Y, statistic="energy").pvalue > 0.05
    True
    >>> two_sample_test(X, Y + 0.5, statistic="energy").pvalue
    0.002
    """
    if statistic not in _TESTS:
        raise ValueError(f"Got statistic={statistic!r}, but expected one of {sorted(_TESTS)}.")
    n_permutations = check_count(n_permutations, "n_permutations")
    seed = draw_seed(random_state)
    fewest = _N_PARTS if statistic == "c2st" else 2
    if sample_weight is not None:
        X, Y = _kept_by_weight(X, Y, sample_weight, fewest, np.random.default_rng([seed, _THINNING]))
    pooled = PooledTables(X, Y)
    n = len(pooled.columns[0])
    for rows, name in ((pooled.n_first, "X"), (n - pooled.n_first, "Y")):
        if rows < fewest:
            raise ValueError(f"{name} has {rows} rows, but statistic={statistic!r} needs at least {fewest}.")
    rng = np.random.default_rng(seed)
    observed, null = _TESTS[statistic](pooled, n_permutations, rng)
    reached = null >= observed - _ROUNDING * max(1.0, abs(observed))
    return Figures(statistic=float(observed), pvalue=float((1 + reached.sum()) / (1 + n_permutations)), null=null)


def _kept_by_weight(X, Y, sample_weight, fewest, rng):
    """The rows that rejection sampling by their weights keeps."""
    if not is_pair(sample_weight):
        raise ValueError(
            f"Got sample_weight of class {type(sample_weight).__name__}, but expected a tuple of two: the weights of "
            "the rows of X and of those of Y, of which one may be None."
        )
    kept = [
        A if w is None else _thinned(A, w, name, fewest, rng)
        for A, w, name in zip((X, Y), sample_weight, ("X", "Y"), strict=True)
    ]
    return kept[0], kept[1]


def _thinned(A, weights, name, fewest, rng):
    n = _num_samples(A)
    weights = check_weights(weights, n, name, f"sample_weight[{'XY'.index(name)}]")
    rows = np.flatnonzero(rng.uniform(size=n) * weights.max() < weights)
    if len(rows) < fewest:
        raise ValueError(
            f"The weights of {name} keep {len(rows)} of {n} rows, but at least {fewest} are needed: few rows have most "
            "of the weight. Clip the largest weights, or pass more rows."
        )
    if len(rows) < _FEW_KEPT * n:
        warnings.warn(
            f"The weights of {name} keep {len(rows)} of {n} rows, because few rows have most of the weight: the "
            "p-value is valid, but sees large differences only. Clip the largest weights, or pass more rows.",
            UserWarning,
            stacklevel=users_level(),
        )
    return taken(A, rows, n)


def _classifier_test(pooled, n_permutations, rng):
    """2 AUC - 1 of boosting that is tested on rows after those that it was trained on, and its distribution."""
    rows, labels = pooled.for_trees(), np.arange(len(pooled.columns[0])) >= pooled.n_first
    part = np.empty(len(rows), dtype=int)
    for label in (False, True):
        part[labels == label] = rng.permutation(np.arange((labels == label).sum()) % _N_PARTS)
    ranks, kept = [], []
    for k in range(_N_LEARNED, _N_PARTS):
        before, now = part < k, part == k
        trees = pooled.classifier(before.sum(), int(rng.integers(2**31))).fit(rows[before], labels[before])
        scores = trees.decision_function(rows[now])
        ranks.append(_ranks(scores, rng))
        kept.append(labels[now])
    observed = _accuracy(ranks, kept)
    null = [_accuracy(ranks, [rng.permutation(y) for y in kept]) for _ in range(n_permutations)]
    return observed, np.array(null)


def _ranks(scores, rng):
    """The ranks of the scores from 1, ties in random order."""
    order = np.lexsort([rng.uniform(size=len(scores)), scores])
    ranks = np.empty(len(scores))
    ranks[order] = np.arange(1, len(scores) + 1)
    return ranks


def _accuracy(ranks, labels):
    """2 AUC - 1, weighted by the numbers of rows: of Mann-Whitney's U in each part."""
    n = [len(y) for y in labels]
    parts = [_of_part(r, y) for r, y in zip(ranks, labels, strict=True)]
    return float(np.average(parts, weights=n))


def _of_part(ranks, labels):
    n, n_second = len(labels), labels.sum()
    u = ranks[labels].sum() - n_second * (n_second + 1) / 2
    return 2 * u / (n_second * (n - n_second)) - 1


def _distance_test(pooled, n_permutations, rng, with_kernel):
    """Mean similarity within both samples less that between them, and its distribution."""
    rows = pooled.for_distances()
    first = rng.permutation(pooled.n_first)[:_DISTANCE_ROWS]
    second = pooled.n_first + rng.permutation(len(rows) - pooled.n_first)[:_DISTANCE_ROWS]
    n, chosen = len(first), np.concatenate([first, second])
    rows = rows[chosen]
    labels = np.zeros((len(rows), n_permutations + 1))
    labels[:n, 0] = 1.0
    for b in range(1, n_permutations + 1):
        labels[rng.permutation(len(rows))[:n], b] = 1.0
    similarity = _kernel(rows, rng) if with_kernel else lambda a, b: -cdist(a, b)
    values = _contrasts(rows, labels, similarity)
    return values[0], values[1:]


def _contrasts(rows, labels, similarity):
    """E k(X, X') + E k(Y, Y') - 2 E k(X, Y) over pairs of different rows, for each column of labels."""
    within, by_row = np.zeros(labels.shape[1]), np.empty(len(rows))
    own = similarity(rows[:1], rows[:1])[0, 0]
    for start in range(0, len(rows), _BLOCK):
        block = similarity(rows[start : start + _BLOCK], rows)
        within += np.einsum("ij,ij->j", labels[start : start + _BLOCK], block @ labels)
        by_row[start : start + _BLOCK] = block.sum(1)
    n = labels[:, 0].sum()
    m = len(rows) - n
    to_all = by_row @ labels
    between, second = to_all - within, by_row.sum() - 2 * to_all + within
    return (within - n * own) / (n * (n - 1)) + (second - m * own) / (m * (m - 1)) - 2 * between / (n * m)


def _kernel(rows, rng):
    """The Gaussian kernel whose bandwidth is the median distance of the rows of both samples."""
    some = rows[rng.permutation(len(rows))[:_BANDWIDTH_ROWS]]
    distances = cdist(some, some)[np.triu_indices(len(some), 1)]
    bandwidth = np.median(distances) or distances.mean() or 1.0
    return lambda a, b: np.exp(-cdist(a, b, "sqeuclidean") / (2 * bandwidth**2))


_TESTS: dict[str, Callable[..., tuple[Any, Any]]] = {
    "c2st": _classifier_test,
    "mmd": functools.partial(_distance_test, with_kernel=True),
    "energy": functools.partial(_distance_test, with_kernel=False),
}
