"""Outliers as rows of low density, with p-values from rows that the density has not seen."""

import copy
import numbers
import warnings
from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin, _fit_context, clone
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import (
    _check_feature_names,
    _num_samples,
    check_is_fitted,
    has_fit_parameter,
)

from .._estimators.base import BaseInterpolant
from .._estimators.flow import InterpolantFlow
from .._estimators.in_group import fit_by_first
from .._utils.callers import users_level
from .._utils.frame_names import is_frame
from .._utils.frames import rows_of_array
from .._utils.input_checks import nameless, names_of_fit, validate_rows, validate_sample
from .._utils.links import LinkedEstimator
from .._utils.names import registered
from .._utils.row_numbers import numbered
from .._utils.tensors import draw_seed
from .._utils.weights import check_weights, part_of_weights, resampled
from ..preprocessing._grids import chosen_columns
from ..preprocessing._support import read_support
from ..tables import TableSynthesizer
from ..tables._unseen import unseen_rows
from ._attributions import cell_log_densities
from ._calibration import Calibration
from ._low_capacity import fit_low_capacity
from ._possible import possible_cells, possible_rows, refuse_impossible, support_within

# The level of contamination="auto": about one usual row in a hundred is called an outlier.
_LEVEL = 0.01
# Tolerance of the log-densities of a quadrature, in nats.
_TOLERANCE = 5e-2
# With robust=True, shares of the training rows: those of which the flexible density may believe too much, and those
# that are left out of the second fit. That one is believed: reflecting its scores as well cost local rows .1 and far
# rows .06 of their average precision with a flow, and found no clump that had not been left out.
_SUSPECTED = 0.06
_LEFT_OUT = 0.08
# Share of usual rows that are called outliers with contamination="auto" above which fit warns.
_MANY_FALSE = 0.05
# Rows at the least: some train, some are kept.
_FEWEST = 4
# The score of a row whose density is zero, or too small to be computed.
_LOWEST = float(np.finfo(np.float64).min)


@registered("DensityOutlierDetector")
class DensityOutlierDetector(LinkedEstimator, OutlierMixin, BaseEstimator):
    """Outliers as rows of low density, with p-values that hold whatever the density.

    p(x) = (1 + #{i : log p(x_i) <= log p(x)}) / (1 + m)

    over m calibration rows x_i of fit, which neither train nor validate the density: conformal p-values (Vovk,
    Gammerman & Shafer 2005, "Algorithmic learning in a random world"; Bates et al. 2023, arXiv 2104.08279). For new
    rows from the distribution of the rows of fit, P(p <= u) <= u.

    Parameters
    ----------
    estimator : estimator or None, default=None
        A density with `fit` and `score_samples`, of this library or of scikit-learn (GaussianMixture, KernelDensity); a
        clone of it is fitted. A TableSynthesizer takes tables with columns of any kind. None is InterpolantFlow().
    contamination : "auto" or float, default="auto"
        The share of the rows of fit, or of their weights, that `predict` calls outliers, in (0, 0.5]. "auto" takes the
        rows with p-values of at most 0.01 (with less than 99 calibration rows, with the lowest possible one); a
        calibration row counts as such if a row with a lower score would. May be changed after fit.
    robust : bool, default=False
        Whether rows of fit may be outliers that are alike. A flexible density learns a tight clump of them as usual
        rows. With True, the log-density is reflected at that of a mixture of few components plus a constant, log p ->
        b - abs(log p - b), and the components are fitted to the 90 % of the rows that they explain best: what only the
        flexible density believes in counts as strange. It is then fitted again without the 8 % strangest rows, which
        doubles the time, and its log-densities are the scores. The clump must have less than 6 % of the rows. Columns
        must be numbers.
    calibration_fraction : float, default=0.2
        Share of the rows of fit that are kept for p-values; at least one.
    random_state : int, RandomState instance or None, default=None
        Seed of the calibration rows, and of an estimator whose own `random_state` is None.

    Attributes
    ----------
    estimator_ : estimator
        The fitted density.
    offset_ : float
        The threshold of `score_samples`; it follows `contamination`.
    calibration_indices_ : ndarray of shape (m,)
        The positions of the calibration rows in X.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of str
        Names of the columns, if fit was given a frame.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from sklearn_si.outliers import DensityOutlierDetector
    >>> X = np.random.default_rng(0).normal(size=(1000, 2))
    >>> detector = DensityOutlierDetector(GaussianMixture(), random_state=0).fit(X)
    >>> detector.predict([[0.0, 0.0], [5.0, 5.0]])
    array([ 1, -1])
    >>> detector.p_values([[5.0, 5.0]]).round(3)
    array([0.005])
    """

    _parameter_constraints: ClassVar[dict] = {
        "estimator": [HasMethods(["fit", "score_samples"]), None],
        "contamination": [StrOptions({"auto"}), Interval(numbers.Real, 0, 0.5, closed="right")],
        "robust": ["boolean"],
        "calibration_fraction": [Interval(numbers.Real, 0, 1, closed="neither")],
        "random_state": ["random_state"],
    }

    def __init__(self, estimator=None, contamination="auto", robust=False, calibration_fraction=0.2, random_state=None):
        self.estimator = estimator
        self.contamination = contamination
        self.robust = robust
        self.calibration_fraction = calibration_fraction
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, sample_weight=None):
        """Fit the density to a part of the rows, and score the others.

        Parameters
        ----------
        X : array-like or frame of shape (n_samples, n_features)
            Rows, most of them usual.
        y : ignored
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, finite and not negative; only their ratios count. Rows of weight zero are left out. A
            density whose `fit` takes no weights is fitted to rows that are drawn by them. P-values are then those of
            weighted conformal prediction (Tibshirani et al. 2019, arXiv 1904.06019).

        Returns
        -------
        self : object

        Warns
        -----
        UserWarning
            When there are so few rows that contamination="auto" calls more than 5 % of usual rows outliers.

        Raises
        ------
        ValueError
            When there are fewer than 4 rows, when a row lies outside the `support` of a flow, when weights are
            negative, not finite or all zero, or when robust=True is asked for a table with columns that are no numbers.
        """
        return fit_by_first(self, self._fit, X=X, sample_weight=sample_weight)

    def _fit(self, X, sample_weight):
        X, weight, numbers_of = self._rows_of_fit(X, sample_weight)
        seed, n = draw_seed(self.random_state), _num_samples(X)
        self._check_support(X, numbers_of)
        order = np.random.default_rng(seed).permutation(n)
        n_held = min(max(1, round(self.calibration_fraction * n)), n - 2)
        held, train = np.sort(order[:n_held]), np.sort(order[n_held:])
        rows, row_weight = _safe_indexing(X, train), part_of_weights(weight, train)
        with numbered({"X": numbers_of[train]}):
            self._fit_density(rows, row_weight, seed)
            self._low_capacity = None
            if self.robust:
                self._refit_to_usual_rows(rows, row_weight, seed)
        with numbered({"X": numbers_of}):
            scores = self._scores(X, must_be_possible=True)
        self._calibration = Calibration(scores[held], scores, part_of_weights(weight, held), weight)
        self._reference = None if self._is_table() else rows
        self.calibration_indices_ = numbers_of[held]
        self._warn_of_few_rows()

    def _check_support(self, X, numbers_of):
        """Raise where rows, of which all have a part in fit, lie outside the support of a flow, by name and number."""
        estimator = self.estimator
        if not isinstance(estimator, BaseInterpolant):
            return
        names = names_of_fit(self)
        support = read_support(estimator.support, names)
        if support is not None:
            repeated = chosen_columns(estimator.dequantize, X, names)
            with numbered({"X": numbers_of}):
                support.check(X, "X", names, repeated)

    def _warn_of_few_rows(self):
        """Warn where the lowest possible p-value, which contamination="auto" then takes, is that of many usual rows."""
        share = self._calibration.lowest
        if share > _MANY_FALSE and isinstance(self.contamination, str):
            m = len(self.calibration_indices_)
            warnings.warn(
                f"{m} calibration rows are too few for contamination='auto', which calls about 1 in 100 usual rows an "
                f"outlier: with so few it is about {share:.0%}. Fit on more rows (1 in 100 needs 99 of them), "
                "raise calibration_fraction, or set contamination to the share of outliers that you expect, which "
                "needs no refit.",
                UserWarning,
                stacklevel=users_level(),
            )

    def _fit_density(self, rows, weight, seed):
        """Fit a clone of the density to some rows."""
        estimator, given = _seeded(InterpolantFlow() if self.estimator is None else clone(self.estimator), seed), {}
        if isinstance(estimator, BaseInterpolant):  # it is fitted to an array
            estimator.set_params(**_by_position(estimator, list(vars(self).get("feature_names_in_", ()))))
        if weight is not None and has_fit_parameter(estimator, "sample_weight"):
            given = {"sample_weight": weight}
        elif weight is not None:
            rows = _safe_indexing(rows, resampled(weight, len(weight), np.random.default_rng(seed)))
        with nameless():
            self.estimator_ = estimator.fit(rows, **given)

    def _refit_to_usual_rows(self, rows, weight, seed):
        """Fit again without the strangest rows, among them those that only the flexible density believes in."""
        density = self._density(rows)
        score = fit_low_capacity(rows, seed).capping(rows, density, _SUSPECTED).capped(rows, density)
        kept = np.flatnonzero(score >= np.quantile(score, _LEFT_OUT))
        self._fit_density(rows[kept], part_of_weights(weight, kept), seed)

    def _rows_of_fit(self, X, sample_weight):
        """Checked rows with a weight, their weights of mean one (None for equal ones), and their numbers."""
        if self._is_table():
            if self.robust:
                raise ValueError("Got robust=True with a TableSynthesizer, but it needs numbers alone: use a flow.")
            X = X if is_frame(X) else rows_of_array(X, "X")
            _check_feature_names(self, X, reset=True)
            self.n_features_in_ = X.shape[1]
        else:
            X = validate_sample(self, X)
        n, self._weight_unit = _num_samples(X), 1.0
        taken, weight = np.arange(n), None
        if sample_weight is not None:
            weight = check_weights(sample_weight, n, "X", "sample_weight")
            taken = np.flatnonzero(weight)
            self._weight_unit = float(weight[taken].mean())
            X, weight = _safe_indexing(X, taken), weight[taken] / self._weight_unit
        if len(taken) < _FEWEST:
            raise ValueError(
                f"Found {len(taken)} sample(s), while a minimum of {_FEWEST} is required: some rows train the density, "
                "others are kept for p-values."
            )
        return X, weight, taken

    def _is_table(self):
        """Whether the density reads tables with columns of any kind."""
        return isinstance(self.estimator, TableSynthesizer)

    def _rows(self, X):
        check_is_fitted(self)
        if isinstance(self.estimator_, TableSynthesizer):
            return X
        return validate_rows(self, X)

    def _density(self, X, must_be_possible=False):
        """Log-densities of checked rows in double precision; the lowest number where a density is zero."""
        if self._is_table():
            return self._density_of_seen(X, quiet=must_be_possible)
        with nameless():
            if must_be_possible:
                refuse_impossible(self.estimator_, X)
            possible = possible_rows(self.estimator_, X)
        value = np.full(len(X), _LOWEST)
        if possible.any():
            value[possible] = self._density_of_possible(X[possible])
        return value

    def _density_of_seen(self, X, quiet):
        """The same of rows of a table: the model gives a cell that it has not seen no mass."""
        unseen, columns = unseen_rows(self.estimator_.codec_, X)
        if columns and not quiet:
            warnings.warn(
                f"{int(unseen.sum())} of {len(unseen)} rows hold what the density has not seen in fit: {columns}. "
                "They have the lowest score and the lowest p-value: correct the cells, or fit on a table that has "
                "them.",
                UserWarning,
                stacklevel=users_level(),
            )
        value, seen = np.full(len(unseen), _LOWEST), np.flatnonzero(~unseen)
        if len(seen):
            value[seen] = self._density_of_possible(_safe_indexing(X, seen))
        return value

    def _density_of_possible(self, X):
        """The same of rows that lie within the support."""
        with nameless():
            value = np.asarray(self.estimator_.score_samples(X), dtype=np.float64)
        if np.isposinf(value).any():
            raise ValueError(
                f"{type(self.estimator_).__name__} gives {int(np.isposinf(value).sum())} rows an infinite density: add "
                "noise to repeated values, for example by InterpolantFlow(dequantize='auto')."
            )
        return np.where(np.isfinite(value), value, _LOWEST)

    def _scores(self, X, must_be_possible=False):
        value = self._density(X, must_be_possible)
        return value if self._low_capacity is None else self._low_capacity.capped(X, value)

    def score_samples(self, X):
        """The log-density of rows, with robust=True that of the second fit; the lower, the stranger.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            In nats. A row whose density is zero or cannot be computed, such as one outside the `support` of a flow, has
            the lowest number in double precision, -1.8e308: the lowest p-value, and a decision that is finite. So has a
            row of a table with a category, or a missing value, that its model has not seen; a warning names the column.
        """
        return self._scores(self._rows(X))

    @property
    def offset_(self):
        """The threshold of `score_samples`."""
        check_is_fitted(self)
        share = self.contamination
        if isinstance(share, str) and share == "auto":
            return self._calibration.threshold(_LEVEL)
        if not isinstance(share, numbers.Real) or not 0 < float(share) <= 0.5:
            raise ValueError(f"Got contamination={share!r}, but expected 'auto' or a number in (0, 0.5].")
        return self._calibration.quantile(share)

    def decision_function(self, X):
        """The score of rows minus the threshold: negative for outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        decision : ndarray of shape (n_samples,)
            ``score_samples(X) - offset_``, in nats.
        """
        return np.maximum(self.score_samples(X) - self.offset_, _LOWEST)

    def predict(self, X):
        """Whether rows are outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            -1 for outliers, 1 for other rows.
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_values(self, X, sample_weight=None):
        """Conformal p-values of new rows: small for outliers.

        p(x) = (w(x) + sum_i w_i 1[s_i <= s(x)]) / (w(x) + sum_i w_i)

        with the scores s_i and the weights w_i of the calibration rows (Tibshirani et al. 2019, arXiv 1904.06019); all
        weights are 1 after a fit without weights. To find outliers among many rows with a share of false ones of at
        most q, reject by Benjamini and Hochberg: ``scipy.stats.false_discovery_control(p) <= q``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows that were not given to fit.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, in the units of the weights of fit; None is the mean of those.

        Returns
        -------
        p_values : ndarray of shape (n_samples,)
            None is below 1 / (m + 1) with m calibration rows.
        """
        scores, weight = self.score_samples(X), None
        if sample_weight is not None:
            weight = check_weights(sample_weight, len(scores), "X", "sample_weight") / self._weight_unit
        return self._calibration.p_values(scores, weight)

    def attributions(self, X):
        """Log-densities of each cell given the other cells of its row: the lowest one is the likeliest to be wrong.

        log p(x_j | x_-j) = log p(x) - log int p(x_1, ..., v, ..., x_d) dv

        The integral is computed over one column at a time by adaptive quadrature of about 65 nodes for each cell,
        exact for any density up to its nodes. A density of an ODE is solved to 0.05 nats.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        values : ndarray of shape (n_samples, n_features)
            In nats, per unit of each column. To compare columns of different units, add the logarithms of their
            standard deviations. A cell outside the `support` of a flow has the lowest number in double precision, and
            the other cells of its row are judged as if it held the median of its column.

        Raises
        ------
        ValueError
            When the columns of the density are no numbers.
        """
        X = self._rows(X)
        if self._reference is None:
            raise ValueError("attributions needs columns of numbers, but the density is that of a TableSynthesizer.")
        density = copy.copy(self)
        density.estimator_ = _loosened(self.estimator_)
        possible = possible_cells(self.estimator_, X)
        rows = np.where(possible, X, np.median(self._reference, axis=0).astype(X.dtype))
        values = cell_log_densities(density._density, rows, self._reference, support_within(self.estimator_))
        return np.where(possible, values, _LOWEST)


def _seeded(estimator, seed):
    """The estimator with a seed, where it has none of its own."""
    if estimator.get_params(deep=False).get("random_state", seed) is None:
        estimator.set_params(random_state=seed)
    return estimator


def _by_position(estimator, names):
    """The parameters of an estimator that name columns, with their positions in place of the names."""
    given = {name: estimator.get_params(deep=False)[name] for name in ("support", "dequantize")}
    if isinstance(given["support"], dict):
        given["support"] = {_position(column, names): value for column, value in given["support"].items()}
    if isinstance(given["dequantize"], (list, tuple)):
        given["dequantize"] = [_position(column, names) for column in given["dequantize"]]
    return given


def _position(column, names):
    return names.index(column) if column in names else column


def _loosened(estimator):
    """The same density, solved less exactly where that is a matter of choice."""
    if not isinstance(estimator, BaseInterpolant):
        return estimator
    loose = copy.copy(estimator)
    return loose.set_params(ode_tol=max(estimator.ode_tol, _TOLERANCE))
