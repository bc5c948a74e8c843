"""Distances between samples, and scorers that need samples only: no density is asked for."""

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state

from ._weights import deviations, has_pairs, n_pairs, same_columns, squared_distance_on_line, weighted_rows

__all__ = ["energy_distance", "sample_scorer", "sliced_wasserstein"]

# Floats in one block of pairwise distances: 32 MiB, whatever the number of rows.
_BLOCK = 2**22


def energy_distance(X, reference, *, standardize=True, sample_weight=None, reference_weight=None):
    """Squared energy distance between the laws of two samples, without bias.

    D^2 = 2 E|X - Y| - E|X - X'| - E|Y - Y'| >= 0,    0 if and only if the laws are equal

    with Y a row of the reference and |.| the Euclidean norm (Szekely & Rizzo 2013, "Energy statistics: a class of
    statistics based on distances", J. Stat. Plan. Inference 143). The means within a sample are U-statistics, over
    the n (n - 1) pairs of different rows: in fixed units the expectation is D^2 at every number of rows, and so the
    value may be slightly negative where the laws are close.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Rows, for example fresh ones of a model.
    reference : array-like of shape (n_reference, n_features)
        Rows of the law to compare with.
    standardize : bool, default=True
        Divide each column of both samples by its standard deviation (ddof=0) in `reference`, or by 1 where that is 0,
        so that the distance does not depend on the units of the columns. False keeps data units.
    sample_weight, reference_weight : array-like of shape (n_samples,) or (n_reference,), default=None
        Weights of the rows of `X` and of `reference`; a row of weight 0 is left out. Whole numbers are counts: a row of
        weight 3 is the same as three different rows that are equal. Other weights are relative, such as those that
        sum to one: only their ratios matter, and a row makes no pair with itself. None weighs all rows alike.

    Returns
    -------
    distance : float
        In standard deviations of `reference`, or in the units of the data without `standardize`. It takes
        O((n_samples + n_reference)^2) distances, in memory that does not grow with them.

    Raises
    ------
    ValueError
        When the numbers of columns differ, when a sample has fewer than two rows of positive weight, when a value is
        not finite, or when weights are not finite and non-negative.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si.metrics import energy_distance
    >>> energy_distance([[0.0], [1.0]], [[3.0], [5.0]], standardize=False)
    4.0
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.normal(size=(500, 2)), rng.normal(size=(500, 2))
    >>> abs(energy_distance(X, Y)) < 0.02 < energy_distance(X + 1.0, Y)
    True
    """
    X, reference = _check_samples(X, reference, standardize, sample_weight, reference_weight)
    return float(2 * _mean_distance(X, reference) - _mean_distance(X) - _mean_distance(reference))


def sliced_wasserstein(
    X, reference, *, n_projections=128, standardize=True, random_state=0, sample_weight=None, reference_weight=None
):
    """Sliced Wasserstein distance of order 2 between two samples.

    SW2^2 = mean over directions u of W2^2(u . X, u . reference),    W2^2 = int_0^1 (F^-1 - G^-1)^2

    (Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters of measures", J. Math. Imaging Vis. 51); on a line
    the optimal plan is that of the sorted values.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Rows, for example fresh ones of a model.
    reference : array-like of shape (n_reference, n_features)
        Rows of the law to compare with.
    n_projections : int, default=128
        Number of random directions.
    standardize : bool, default=True
        As in `energy_distance`.
    random_state : int, RandomState instance or None, default=0
        Seed of the directions.
    sample_weight, reference_weight : array-like of shape (n_samples,) or (n_reference,), default=None
        Weights of the rows of `X` and of `reference`; a row of weight 0 is left out, and only the ratios of weights
        matter. None weighs all rows alike.

    Returns
    -------
    distance : float
        In standard deviations of `reference`, or in the units of the data without `standardize`. Two samples of one law
        are not at 0: compare with the distance of two samples of the reference.

    Raises
    ------
    ValueError
        As in `energy_distance`.

    Examples
    --------
    >>> from sklearn_si.metrics import sliced_wasserstein
    >>> round(sliced_wasserstein([[0.0], [1.0]], [[3.0], [4.0]], standardize=False), 6)
    3.0
    """
    (X, w), (reference, v) = _check_samples(X, reference, standardize, sample_weight, reference_weight)
    directions = check_random_state(random_state).standard_normal((X.shape[1], n_projections))
    directions /= np.linalg.norm(directions, axis=0)
    total = sum(squared_distance_on_line(X @ u, reference @ u, w, v) for u in directions.T)
    return float(np.sqrt(total / n_projections))


def sample_scorer(estimator, X, y=None, *, n_samples=None, random_state=0):
    """Minus the energy distance between fresh rows of a model and given rows: a scorer, greater is better.

    score = -D^2(estimator.sample(n), y if y is a (2-D) sample, else X)    (`energy_distance`, standardised units)

    It needs no density, so it can tell apart what a likelihood cannot see (`noise_level`, `n_steps`, `solver`). For
    `GridSearchCV(scoring=sample_scorer)`; `functools.partial` sets the keywords.

    Parameters
    ----------
    estimator : estimator or Pipeline
        A fitted model with `sample`, or a Pipeline that ends with one. After a fit of one sample, the rows go back
        through the inverses of the earlier steps; after a fit of two they are compared as they are, because a
        Pipeline transforms the first sample only.
    X : array-like of shape (n_rows, n_features)
        Rows, in the units that the estimator or Pipeline is given.
    y : array-like of shape (n_rows, n_features), default=None
        Rows of the target, if it has two dimensions; else ignored.
    n_samples : int, default=None
        Number of fresh rows; None takes as many as there are rows to compare with.
    random_state : int, RandomState instance or None, default=0
        Seed of the fresh rows. An int gives all candidates of a search the same random numbers and leaves the global
        generators alone; None means the estimator's own.

    Returns
    -------
    score : float
        In standard deviations of the rows that are compared with; may be slightly positive.

    Raises
    ------
    ValueError
        When an earlier step of a Pipeline has no `inverse_transform`, or when `energy_distance` refuses the rows.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn_si import InterpolantFlow
    >>> from sklearn_si.metrics import sample_scorer
    >>> X = np.random.default_rng(0).normal(3.0, 0.5, size=(200, 2))
    >>> flow = InterpolantFlow(max_iter=20, hidden_layer_sizes=(8,), random_state=0)
    >>> search = GridSearchCV(flow, {"n_steps": [1, 8]}, scoring=sample_scorer, cv=2).fit(X)
    >>> bool(search.best_score_ > -0.1)
    True
    """
    second = _second_sample(y)
    reference = X if second is None else second
    n_samples = len(reference) if n_samples is None else n_samples
    return -energy_distance(_fresh_rows(estimator, n_samples, random_state), reference)


def _check_samples(X, reference, standardize, sample_weight, reference_weight):
    """The rows of positive weight of both samples, in the units that are asked for, each with its weights."""
    X, reference = same_columns(X, reference)
    X, w = weighted_rows(X, sample_weight, "X", "sample_weight")
    reference, v = weighted_rows(reference, reference_weight, "reference", "reference_weight")
    for weights, name in ((w, "X"), (v, "reference")):
        if not has_pairs(weights):
            raise ValueError(
                f"{name} has {len(weights)} row, but the mean distance within a sample needs at least 2: give more "
                "rows, or a positive weight to more of them."
            )
    scale = deviations(reference, v) if standardize else 1.0
    return (X / scale, w), (reference / scale, v)


def _mean_distance(sample, other=None):
    """Mean Euclidean distance over the rows of two weighted samples, or over pairs of different rows of one."""
    (X, w), (Y, v) = sample, sample if other is None else other
    step = max(1, _BLOCK // len(Y))
    # cdist subtracts rows before it squares: far from the origin nothing cancels, and a row is at 0 from itself.
    total = sum(w[i : i + step] @ cdist(X[i : i + step], Y) @ v for i in range(0, len(X), step))
    return total / (n_pairs(w) if other is None else w.sum() * v.sum())


def _second_sample(y):
    """Y if it is a sample, that is if it has two dimensions; else None."""
    if y is None:
        return None
    return y if getattr(y, "ndim", None) == 2 or np.ndim(y) == 2 else None


def _fresh_rows(estimator, n_samples, random_state):
    """Rows of the model in the units of the rows that it is compared with."""
    inverses, model = _unwrap(estimator)
    # A frame, where set_output asked for one, holds the columns of the model's input, not of X.
    rows = np.asarray(model.sample(n_samples, random_state=random_state))
    for inverse in inverses:
        rows = np.asarray(inverse(rows))
    return rows


def _unwrap(estimator):
    """The inverses to apply to fresh rows, in order, and the model at the end of a Pipeline."""
    if not isinstance(estimator, Pipeline):
        return [], estimator
    inner, model = _unwrap(estimator[-1])
    if getattr(model, "base_sample_", None) is not None:
        return [], model
    earlier = [(name, step) for name, step in estimator.steps[:-1] if step not in (None, "passthrough")]
    return inner + [_inverse(name, step) for name, step in reversed(earlier)], model


def _inverse(name, step):
    if not hasattr(step, "inverse_transform"):
        raise ValueError(
            f"Step {name!r} ({type(step).__name__}) has no inverse_transform, so fresh rows cannot be brought back to "
            "the units of X: use an invertible step, or apply it before the Pipeline and score the model on its output."
        )
    return step.inverse_transform
