"""Distances between two samples, and a scorer for models that can sample."""

import copy
import inspect

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state
from sklearn.utils.validation import _num_samples

from .._utils.weights import taken
from ._routing import asks_for
from ._weights import deviations, has_pairs, n_pairs, same_columns, squared_distance_on_line, weighted_rows

__all__ = ["energy_distance", "sample_scorer", "sliced_wasserstein"]

# Floats in one block of pairwise distances: 32 MiB, whatever the number of rows.
_BLOCK = 2**22


def energy_distance(X, reference, *, standardize=True, sample_weight=None, reference_weight=None):
    """Unbiased estimate of the squared energy distance between the distributions of two samples.

    D^2 = 2 E|X - Y| - E|X - X'| - E|Y - Y'| >= 0,    0 if and only if the distributions are equal

    with Y a row of the reference and |.| the Euclidean norm (Szekely & Rizzo 2013, "Energy statistics: a class of
    statistics based on distances", J. Stat. Plan. Inference 143). The means within a sample are U-statistics, over the
    n (n - 1) pairs of different rows. In fixed units the estimate is unbiased for every number of rows, so it is
    often negative if the distributions are equal. Its standard deviation is then about 1/n + 1/m for
    standardized samples of n and m rows: values below 2 (1/n + 1/m) are noise.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Rows of the first sample, for example drawn from a model.
    reference : array-like of shape (n_reference, n_features)
        Rows of the sample to compare with.
    standardize : bool, default=True
        Divide each column of both samples by its standard deviation (ddof=0) in `reference`, or by 1 where that is 0,
        so that the distance does not depend on the units of the columns. False keeps data units.
    sample_weight, reference_weight : array-like of shape (n_samples,) or (n_reference,), default=None
        Weights of the rows of `X` and of `reference`; a row of weight 0 is left out. Whole numbers are counts: a row of
        weight 3 stands for three rows of the same values. Other weights are relative (they may sum to one, for
        example): only their ratios matter, and a row makes no pair with itself. None weighs all rows alike.

    Returns
    -------
    distance : float
        D^2 in standard deviations of `reference`, or in data units with ``standardize=False``. The time grows like
        (n_samples + n_reference)^2, the memory does not.

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

    (Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters of measures", J. Math. Imaging Vis. 51). F and G are
    the distribution functions of the two projected samples: on a line, the optimal plan pairs the sorted values.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Rows of the first sample, for example drawn from a model.
    reference : array-like of shape (n_reference, n_features)
        Rows of the sample to compare with.
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
        SW2 in standard deviations of `reference`, or in data units with ``standardize=False``. Two samples of the same
        distribution have a positive distance: compare with the distance between two parts of the reference.

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


@asks_for("condition", "sample_weight")
def sample_scorer(estimator, X, y=None, *, condition=None, sample_weight=None, n_samples=None, random_state=0):
    """Score a model by the rows that it draws: minus their squared energy distance to given rows.

    score = -D^2(estimator.sample(n), reference),    reference = y if y is a two-dimensional sample, else X

    (`energy_distance` in standard deviations of the reference; Szekely & Rizzo 2013). Greater is better. Zero means
    that the drawn rows cannot be told from the reference: it is the mean score of a perfect model, and on average no
    model has a higher one. A single score has noise. For a perfect model its standard deviation is about 1/n + 1/m
    with n drawn rows and m rows of the reference, for example 0.02 with 100 of each. Values above 0 are noise, and
    scores that differ by less than that are equally good. Use more rows to see smaller differences.

    Use it as ``GridSearchCV(scoring=sample_scorer)``, to tune settings of the sampler that do not affect the likelihood
    (`noise_level`, `n_steps`, `solver`), or for models without a density; `functools.partial` sets the keywords.

    Parameters
    ----------
    estimator : estimator or Pipeline
        A fitted model with `sample`, or a Pipeline that ends with one: also those of scikit-learn, GaussianMixture and
        KernelDensity, as a baseline. After ``fit(X)`` the drawn rows pass through the
        inverses of the earlier steps. After ``fit(X0, X1)`` they are compared as they are, because a Pipeline
        transforms the first sample only.
    X : array-like of shape (n_rows, n_features)
        Rows, in the units that the estimator or Pipeline is given.
    y : array-like of shape (n_rows, n_features), default=None
        Rows of the target, if it has two dimensions; otherwise it is ignored.
    condition : array-like, default=None
        The condition of each row of the reference, for a model that was fitted with one: one row is drawn at each.
        With metadata routing, searches and `cross_validate` pass it, without a request of the scorer's own. The score
        compares the drawn rows of all conditions together.
    sample_weight : array-like of shape (n_rows,), default=None
        Weights of the rows of the reference, as in `energy_distance`; searches pass them with metadata routing.
    n_samples : int, default=None
        Number of rows to draw; None draws as many as the reference has. With a condition, its rows are taken in turn.
    random_state : int, RandomState instance or None, default=0
        Seed of the drawn rows. An int gives all candidates of a search the same random numbers. None is for the
        `random_state` of the estimator.

    Returns
    -------
    score : float
        Minus D^2, in standard deviations of the reference: 0 for a perfect model on average, and lower for others.

    Raises
    ------
    ValueError
        When an earlier step of a Pipeline has no `inverse_transform`, when there is a condition and the model takes
        none, or when `energy_distance` refuses the rows.

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
    n_samples = _num_samples(reference) if n_samples is None else n_samples
    drawn = _fresh_rows(estimator, n_samples, condition, random_state)
    return -energy_distance(drawn, reference, reference_weight=sample_weight)


def _check_samples(X, reference, standardize, sample_weight, reference_weight):
    """The rows of positive weight of both samples, in the requested units, each sample with its weights."""
    X, reference = same_columns(X, reference)
    X, w = weighted_rows(X, sample_weight, "X", "sample_weight")
    reference, v = weighted_rows(reference, reference_weight, "reference", "reference_weight")
    for weights, name in ((w, "X"), (v, "reference")):
        if not has_pairs(weights):
            raise ValueError(
                f"{name} has {len(weights)} row, but the mean distance within a sample needs at least 2: pass more "
                "rows, or a positive weight for more of them."
            )
    scale = deviations(reference, v) if standardize else 1.0
    return (X / scale, w), (reference / scale, v)


def _mean_distance(sample, other=None):
    """Mean Euclidean distance over the rows of two weighted samples, or over pairs of different rows of one."""
    (X, w), (Y, v) = sample, sample if other is None else other
    step = max(1, _BLOCK // len(Y))
    # cdist subtracts rows before it squares: no digits cancel far from the origin, and a row is at 0 from itself.
    total = sum(w[i : i + step] @ cdist(X[i : i + step], Y) @ v for i in range(0, len(X), step))
    return total / (n_pairs(w) if other is None else w.sum() * v.sum())


def _second_sample(y):
    """The second sample, if y is one (it has two dimensions); otherwise None."""
    if y is None:
        return None
    return y if getattr(y, "ndim", None) == 2 or np.ndim(y) == 2 else None


def _fresh_rows(estimator, n_samples, condition, random_state):
    """Rows drawn from the model, in the units of the reference."""
    inverses, model = _unwrap(estimator)
    # A frame, where set_output asked for one, holds the columns of the model's input, not of X.
    rows = np.asarray(_drawn(model, n_samples, condition, random_state))
    for inverse in inverses:
        rows = np.asarray(inverse(rows))
    return rows


def _drawn(model, n_samples, condition, random_state):
    """What `sample` of a model of any library gives; of a GaussianMixture, the rows without their components."""
    known, settings = inspect.signature(model.sample).parameters, {}
    if condition is not None:
        if "condition" not in known:
            raise ValueError(
                f"Got a condition, but {type(model).__name__}.sample takes none: leave it out, or use "
                "InterpolantFlow or InterpolantDiffusion, which are fitted with one."
            )
        settings["condition"] = _in_turn(condition, n_samples)
    if "random_state" in known:
        settings["random_state"] = random_state
    elif random_state is not None and "random_state" in model.get_params(deep=False):
        model = copy.copy(model).set_params(random_state=random_state)  # it draws by its parameter
    rows = model.sample(n_samples, **settings)
    return rows[0] if isinstance(rows, tuple) else rows


def _in_turn(condition, n_samples):
    """The condition of each of some rows; a single one is for all."""
    if isinstance(condition, dict) or np.ndim(condition) == 0:
        return condition
    n = _num_samples(condition)
    return condition if n in (1, n_samples) else taken(condition, np.arange(n_samples) % n, n)


def _unwrap(estimator):
    """The inverses to apply to drawn rows, in order, and the model at the end of a Pipeline."""
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
            f"Step {name!r} ({type(step).__name__}) has no inverse_transform, so drawn rows cannot be mapped back to "
            "the units of X: use an invertible step, or apply it before the Pipeline and score the model on its output."
        )
    return step.inverse_transform
