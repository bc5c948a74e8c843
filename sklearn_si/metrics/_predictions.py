"""Scorers for regressors that predict a distribution."""

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import MetadataRequest

__all__ = ["crps_scorer", "log_density_scorer", "pinball_scorer"]

# Levels of the quantiles by which the CRPS is taken.
_LEVELS = (np.arange(50) + 0.5) / 50


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
        When the regressor has no `predict_quantiles`.

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
    return pinball_scorer(estimator, X, y, sample_weight, quantiles=_LEVELS, name="crps_scorer") * 2


def pinball_scorer(
    estimator, X, y, sample_weight=None, *, quantiles=(0.05, 0.25, 0.5, 0.75, 0.95), name="pinball_scorer"
):
    """Minus the mean pinball loss over some quantiles; greater is better.

    loss_u(q, y) = (1[y < q] - u) (q - y)

    (Koenker & Bassett 1978, "Regression quantiles", Econometrica 46).

    Parameters
    ----------
    estimator, X, y, sample_weight
        As in `crps_scorer`.
    quantiles : array-like of shape (n_quantiles,)
        Their levels.
    name : str
        The name of the scorer in errors.

    Returns
    -------
    score : float
        In units of y.

    Raises
    ------
    ValueError
        When the regressor has no `predict_quantiles`.
    """
    levels = np.asarray(quantiles, dtype=np.float64)
    predicted = np.asarray(_asked(estimator, X, "predict_quantiles", name, levels), dtype=np.float64)
    y = np.asarray(y, dtype=np.float64)
    above = predicted - y[:, None]
    loss = ((above > 0) - levels.reshape(1, -1, *[1] * (above.ndim - 2))) * above
    return -float(np.average(loss.reshape(len(y), -1).mean(1), weights=sample_weight))


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
        When the regressor has no `predict_log_density`.
    """
    value = _asked(estimator, X, "predict_log_density", "log_density_scorer", y)
    return float(np.average(value, weights=sample_weight))


def _asked(estimator, X, method, name, argument):
    """The answer of a method of a regressor, which may stand at the end of a Pipeline."""
    while isinstance(estimator, Pipeline):
        X = estimator[:-1].transform(X) if len(estimator) > 1 else X
        estimator = estimator[-1]
    if not callable(getattr(estimator, method, None)):
        raise ValueError(
            f"{name} needs a regressor with {method}, but {type(estimator).__name__} has none: use "
            "sklearn_si.InterpolantRegressor, or a scorer of the mean such as scoring='r2'."
        )
    return getattr(estimator, method)(X, argument)


# A search with metadata routing passes the weights to the scorers.
for _scorer in (crps_scorer, log_density_scorer, pinball_scorer):
    _request = MetadataRequest(owner=_scorer.__name__)
    _request.score.add_request(param="sample_weight", alias=True)
    _scorer.get_metadata_routing = lambda request=_request: request  # type: ignore[attr-defined]
