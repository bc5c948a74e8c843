"""Scorers for regressors that predict a distribution."""

import numpy as np
from sklearn.pipeline import Pipeline

from .._utils.input_checks import checked_target
from .._utils.kinds import check_cells
from .._utils.weights import weighted_rows
from ._routing import asks_for

__all__ = ["crps_scorer", "log_density_scorer", "pinball_scorer"]

# Levels of the quantiles by which the CRPS is taken.
_LEVELS = (np.arange(50) + 0.5) / 50


@asks_for("sample_weight")
def crps_scorer(estimator, X, y, sample_weight=None):
    """Minus the mean continuous ranked probability score: greater is better, and 0 is a sure and right prediction.

    CRPS(F, y) = int (F(v) - 1[y <= v])^2 dv = 2 int_0^1 (1[y < q_u] - u) (q_u - y) du

    (Gneiting & Raftery 2007, "Strictly proper scoring rules, prediction, and estimation", J. Am. Stat. Assoc. 102),
    with the integral over 50 quantiles q_u. Use it as ``scoring=crps_scorer``.

    Parameters
    ----------
    estimator : estimator or Pipeline
        A fitted regressor with `predict_quantiles`, or a Pipeline that ends with one.
    X : array-like of shape (n_samples, n_features)
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows in the mean.

    Returns
    -------
    score : float
        In units of y; of several outputs, the mean over them.

    Raises
    ------
    ValueError
        When the regressor has no `predict_quantiles`, when its answer is not finite or not of the shape that belongs to
        y, and when weights are negative, not finite, all zero or not one for each row.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si import InterpolantFlow, InterpolantRegressor
    >>> from sklearn_si.metrics import crps_scorer
    >>> X = np.random.default_rng(0).normal(size=(100, 1))
    >>> model = InterpolantRegressor(InterpolantFlow(max_iter=5), base="normal", random_state=0).fit(X, X[:, 0])
    >>> crps_scorer(model, X, X[:, 0]) < 0
    True
    """
    return -2 * _pinball_loss(estimator, X, y, sample_weight, _LEVELS, "crps_scorer")


@asks_for("sample_weight")
def pinball_scorer(estimator, X, y, sample_weight=None, *, quantiles=(0.05, 0.25, 0.5, 0.75, 0.95)):
    """Minus the mean pinball loss over some quantiles; greater is better.

    loss_u(q, y) = (1[y < q] - u) (q - y)

    (Koenker & Bassett 1978, "Regression quantiles", Econometrica 46).

    Parameters
    ----------
    estimator, X, y, sample_weight
        As in `crps_scorer`.
    quantiles : array-like of shape (n_quantiles,)
        Their levels.

    Returns
    -------
    score : float
        In units of y.

    Raises
    ------
    ValueError
        As `crps_scorer`.
    """
    return -_pinball_loss(estimator, X, y, sample_weight, quantiles, "pinball_scorer")


def _pinball_loss(estimator, X, y, sample_weight, quantiles, name):
    _require(estimator, "predict_quantiles", name)
    X, y, weight = _weighted(X, y, sample_weight)
    levels = np.atleast_1d(np.asarray(check_cells(quantiles, "quantiles"), dtype=np.float64))
    predicted = _asked(estimator, X, "predict_quantiles", name, levels, (len(y), len(levels), *y.shape[1:]), y)
    above = predicted - y[:, None]
    loss = ((above > 0) - levels.reshape(1, -1, *[1] * (above.ndim - 2))) * above
    return float(np.average(loss.reshape(len(y), -1).mean(1), weights=weight))


@asks_for("sample_weight")
def log_density_scorer(estimator, X, y, sample_weight=None):
    """Mean log-density of the targets, log p(y | x): greater is better.

    Parameters
    ----------
    estimator : estimator or Pipeline
        A fitted regressor with `predict_log_density`, or a Pipeline that ends with one.
    X, y, sample_weight
        As in `crps_scorer`.

    Returns
    -------
    score : float
        In nats.

    Raises
    ------
    ValueError
        As `crps_scorer`, of `predict_log_density`.
    """
    _require(estimator, "predict_log_density", "log_density_scorer")
    X, y, weight = _weighted(X, y, sample_weight)
    value = _asked(estimator, X, "predict_log_density", "log_density_scorer", y, (len(y),), y)
    return float(np.average(value, weights=weight))


def _weighted(X, y, sample_weight):
    """The rows of positive weight, and their weights."""
    X, weight = weighted_rows(X, sample_weight)
    y, _ = weighted_rows(checked_target(y), sample_weight, "y")
    return X, y, weight


def _require(estimator, method, name):
    """Raise where a regressor, or the last step of a Pipeline, lacks a method."""
    while isinstance(estimator, Pipeline):
        estimator = estimator[-1]
    if not callable(getattr(estimator, method, None)):
        raise ValueError(
            f"{name} needs a regressor with {method}, but {type(estimator).__name__} has none: use "
            "sklearn_si.InterpolantRegressor, or a scorer of the mean such as scoring='r2'."
        )


def _asked(estimator, X, method, name, argument, shape, y):
    """The answer of a method of a regressor, which may stand at the end of a Pipeline; its shape is checked."""
    while isinstance(estimator, Pipeline):
        X = estimator[:-1].transform(X) if len(estimator) > 1 else X
        estimator = estimator[-1]
    answer, asked = np.asarray(getattr(estimator, method)(X, argument), dtype=np.float64), type(estimator).__name__
    if answer.shape != shape:
        raise ValueError(
            f"{method} of {asked} gave an array of shape {answer.shape}, but {name} expected {shape} for y of shape "
            f"{y.shape}: pass y with as many dimensions as in fit."
        )
    n_lost = int(np.isnan(answer.reshape(len(y), -1)).any(1).sum())
    if n_lost:
        raise ValueError(f"{method} of {asked} gave NaN for {n_lost} of {len(y)} rows, so that {name} has no mean.")
    return answer
