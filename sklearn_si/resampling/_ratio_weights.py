"""Weights with which rows of one population stand for another one."""

import numbers
import warnings
from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from .._estimators.in_group import fit_by_first
from .._model.ratio import weights_report
from .._training.ratio import RatioEffort, fit_ratio
from .._utils.callers import users_level
from .._utils.links import LinkedEstimator
from .._utils.names import registered
from .._utils.tensors import draw_seed
from ._columns import NumberColumns


@registered("DensityRatioWeights")
class DensityRatioWeights(LinkedEstimator, BaseEstimator):
    """Weights of rows of a source population with which they stand for a target population (covariate shift).

    w(x) = min(p_target(x) / p_source(x), m) / mean over the source rows of fit

    (Shimodaira 2000, "Improving predictive inference under covariate shift by weighting the log-likelihood function").
    The ratio is learned by the logistic loss, as `InterpolantDiffusion.density_ratio` does: quadratic functions,
    Gaussian mixtures and networks, blended on rows that they have not seen.

    Parameters
    ----------
    max_weight : float, "auto" or None, default="auto"
        The largest ratio m; "auto" is the square root of the number of source rows, and None does not clip.
    max_iter : int, default=1000
        Number of gradient steps of the networks at the most; they stop earlier where held-out rows gain nothing.
    max_time : float or None, default=None
        Seconds of learning. The result then depends on the speed of the machine.
    random_state : int, RandomState instance or None, default=None
        Seed of learning.

    Attributes
    ----------
    effective_size_ : float
        (sum w)^2 / sum w^2 of the source rows of fit (Kish 1965): the number of rows that the weights are worth.
    mean_ratio_ : float
        The mean ratio of the source rows of fit before clipping and normalising. It is 1 but for errors of the ratio.
    clipped_ : float
        The share of the source rows whose ratio is above m.
    without_partners_ : dict of float
        The shares of the rows of "source" and of "target" at which their own population is more than a hundred times as
        dense as the other one.
    ratio_ : object
        The fitted ratio.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si.resampling import DensityRatioWeights
    >>> rng = np.random.default_rng(0)
    >>> source, target = rng.normal(size=(500, 2)), rng.normal(0.5, 1.0, size=(500, 2))
    >>> model = DensityRatioWeights(max_iter=1, random_state=0).fit(source, target)
    >>> weight = model.weights(source)
    >>> bool(abs(np.average(source[:, 0], weights=weight) - target[:, 0].mean()) < 0.1)
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        "max_weight": [StrOptions({"auto"}), Interval(numbers.Real, 0, None, closed="neither"), None],
        "max_iter": [Interval(numbers.Integral, 1, None, closed="left")],
        "max_time": [Interval(numbers.Real, 0, None, closed="neither"), None],
        "random_state": ["random_state"],
    }

    def __init__(self, max_weight="auto", max_iter=1000, max_time=None, random_state=None):
        self.max_weight = max_weight
        self.max_iter = max_iter
        self.max_time = max_time
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X_source, X_target):
        """Learn the ratio of the densities.

        Parameters
        ----------
        X_source, X_target : frame or array-like of shape (n_source, n_columns) and (n_target, n_columns)
            Rows of both populations, with the same columns of any kind. Columns of frames are found by name.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            When the columns differ, when a population has less than 10 rows, or when the populations hardly overlap:
            more than 95 % of the rows of each have no partners in the other.
        """
        return fit_by_first(self, self._fit, X_source=X_source, X_target=X_target)

    def _fit(self, X_source, X_target):
        columns = NumberColumns(X_source, "X_source")
        A, B = columns.transform(X_source, "X_source"), columns.transform(X_target, "X_target")
        columns.see(X_source, X_target)
        seed = draw_seed(self.random_state)
        ratio = fit_ratio(A, B, seed, RatioEffort(self.max_iter, self.max_time))
        if ratio is None:
            raise ValueError(
                f"X_source has {len(A)} rows and X_target {len(B)}, but a ratio of densities needs 10 of each."
            )
        ratio.check_overlap()
        self.n_features_in_, self._columns, self.ratio_ = len(columns.encoder.names), columns, ratio
        log_ratio = ratio.evaluate(A)[0]
        limit = len(A) ** 0.5 if self.max_weight == "auto" else self.max_weight
        self._log_limit = np.inf if limit is None else float(np.log(limit))
        self.mean_ratio_ = weights_report(log_ratio)["mean_weight"]
        self.clipped_ = float(np.mean(log_ratio > self._log_limit))
        clipped = np.minimum(log_ratio, self._log_limit)
        report = weights_report(clipped)
        self._log_mean, self.effective_size_ = float(np.log(report["mean_weight"])), report["effective_size"]
        shares = (ratio.report[f"{name}_without_partners"] for name in ("base", "target"))
        self.without_partners_ = dict(zip(("source", "target"), shares, strict=True))

    def weights(self, X):
        """The weights of rows of the source.

        Parameters
        ----------
        X : frame or array-like of shape (n_samples, n_columns)
            Rows.

        Returns
        -------
        weights : ndarray of shape (n_samples,)
            Their mean over the source rows of fit is 1. Pass them as ``sample_weight=`` to what is fitted to source
            rows, and is to be right for the target.
        """
        return np.exp(np.minimum(self.log_ratio(X), self._log_limit) - self._log_mean)

    def log_ratio(self, X, *, return_error=False):
        """The logarithm of the ratio of the densities, neither clipped nor normalised.

        Parameters
        ----------
        X : frame or array-like of shape (n_samples, n_columns)
            Rows.
        return_error : bool, default=False
            Whether to return standard errors too, by the jackknife over five parts of the rows of fit.

        Returns
        -------
        log_ratio : ndarray of shape (n_samples,)
            In nats. Categories and missing values that fit has not seen are read as none of the known ones, and as the
            median, with a warning that names their columns.
        error : ndarray of shape (n_samples,)
            In nats, if return_error=True.
        """
        check_is_fitted(self)
        value, error = self.ratio_.evaluate(self._columns.transform(X, "X"))
        told = self._columns.told_unseen(X, "X")
        if told:
            warnings.warn(
                f"Columns of X hold what fit has not seen: {told}. A missing number is read as the median, and such a "
                "category as none of those that are known, so that the weights of these rows are guesses: check them, "
                "or fit on rows that have it.",
                UserWarning,
                stacklevel=users_level(),
            )
        return (value, error) if return_error else value
