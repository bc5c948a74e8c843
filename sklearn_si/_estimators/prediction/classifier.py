"""A classifier by the densities of the classes."""

import numbers
import warnings
from typing import ClassVar

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context, clone
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ..._training.validation_split import n_held_out
from ..._utils.callers import users_level
from ..._utils.input_checks import dtypes_of, nameless, names_of_fit, naming_columns, validate_rows
from ..._utils.kinds import check_cells
from ..._utils.labels import checked_labels, values_by_label
from ..._utils.names import registered
from ..._utils.tensors import FIT_STREAM, REPEATS_STREAM, draw_seed
from ..._utils.weights import effective_rows, part_of_weights, weighted_rows
from ...preprocessing._maps import check_range
from ..flow import InterpolantFlow
from .calibration import Calibration
from .shared import CONSTRAINTS, FlowInside

# Rows of the whole sample that count beside those of a class in its mean and in its deviation.
_ROWS_OF_A_MEAN = 1
_ROWS_OF_A_DEVIATION = 5
# Bounds of the logarithm of the power of the densities, and the log-likelihood that a power has to gain over 1 (as AIC
# asks for each parameter).
_LOG_POWERS = (-5.0, 0.0)
_LEAST_GAIN = 1.0
# What follows for rows outside the support.
_IMPOSSIBLE = (
    "their log-density is -inf, their probabilities are those of the priors, and `abstains` is true of them. Correct "
    "these rows, leave them out, or fit with a wider support"
)
# How far the sum of given priors may be from one.
_ROUNDING = 1e-6


@registered("prediction.ClassScales")
class ClassScales:
    """The means and the deviations of the columns in each class, of rare classes nearer to those of all rows.

    Parameters
    ----------
    means, scales : ndarray of shape (n_classes, n_features)
    """

    def __init__(self, means, scales):
        self.means, self.scales = means, scales

    @classmethod
    def of(cls, X, codes, weight, n_classes):
        """Those of a sample."""
        weight = np.ones(len(X)) if weight is None else weight
        centre = np.average(X, axis=0, weights=weight)
        variance = np.average((X - centre) ** 2, axis=0, weights=weight)
        means, scales = [], []
        for c in range(n_classes):
            rows, own = X[codes == c], weight[codes == c, None]
            mean = (own * rows).sum(0) + _ROWS_OF_A_MEAN * centre
            means.append(mean / (own.sum() + _ROWS_OF_A_MEAN))
            spread = (own * (rows - means[-1]) ** 2).sum(0) + _ROWS_OF_A_DEVIATION * variance
            scales.append(np.sqrt(spread / (own.sum() + _ROWS_OF_A_DEVIATION)))
        # the flow refuses constant columns by name
        return cls(np.array(means), np.where(np.array(scales) > 0, scales, 1.0))

    def transform(self, X, codes):
        """Rows in units of their class."""
        return (X - self.means[codes]) / self.scales[codes]


@registered("InterpolantClassifier")
class InterpolantClassifier(FlowInside, ClassifierMixin, BaseEstimator):
    """A classifier by Bayes' rule, from one flow of the rows given their class.

    P(c | x) = pi_c p(x | c)^tau / sum_k pi_k p(x | k)^tau,    p(x) = sum_k pi_k p(x | k)

    (Hastie, Tibshirani & Friedman 2009, "The elements of statistical learning", 4.3). In class c the rows are
    x = m_c + s_c T(z | c), with the means m_c and the deviations s_c of its columns, z standard normal and T an
    `InterpolantFlow` that has the class as its condition, so that rare classes share what the network learns from
    others. With tau = 1 this is Bayes' rule; errors of densities of many columns add up and make probabilities too
    sure, which a lower power mends (temperature scaling: Guo et al. 2017, arXiv 1706.04599). Beside probabilities there
    is the density p(x), which tells the rows that resemble none of fit.

    Parameters
    ----------
    flow : InterpolantFlow or None, default=None
        What is cloned and fitted; None is InterpolantFlow(). Its `max_time`, `random_state`, `device`, `dequantize` and
        `condition_kinds` are those of the classifier.
    priors : array-like of shape (n_classes,), dict, Series or None, default=None
        The shares pi_c of the classes, in the order of `classes_`, or by class in a dict or in the index of a pandas
        Series; None takes those of the rows of fit, by weight. May be changed after fit.
    dequantize : None, "auto" or list, default="auto"
        Columns of X with repeated values, such as counts, which get uniform noise within cells in fit, as in
        `InterpolantFlow`; "auto" finds them.
    support : str, tuple or dict, default="real"
        Where columns of X live, as in `InterpolantFlow`: the densities of the classes are then those of rows within.
    calibrate : bool, default=True
        Whether tau is chosen by the likelihood of the classes of the held-out rows, where these tell it from 1; else it
        is 1.
    validation_fraction : float, default=0.1
        Share of the rows of each class that are held out: they stop the training and choose tau, and their densities
        are those that `abstains` compares with.
    max_time : float or None, default=None
        Seconds of training. The result then depends on the speed of the machine, and is not reproducible.
    device : str or torch.device, default="auto"
        "auto" is CUDA if there is one, else MPS, else the CPU. May be changed after fit.
    memory : str, path-like, joblib.Memory or None, default=None
        Folder in which fitted models are kept, as in `InterpolantFlow`.
    random_state : int, RandomState instance or None, default=None
        Seed of training.

    Attributes
    ----------
    flow_ : InterpolantFlow
        The fitted flow of the standardised rows; its condition is the position of a class in `classes_`.
    scales_ : ClassScales
        The means and deviations of the classes.
    support_ : Support or None
        Where the columns of X live; None where all are real.
    grid_ : Grid
        The values and cells of the columns of X that repeat values.
    classes_ : ndarray of shape (n_classes,)
        The classes.
    power_ : float
        Tau.
    class_prior_ : ndarray of shape (n_classes,)
        Shares of the classes in fit, by weight.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of str
        Names of the columns of X, if fit was given a frame.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si import InterpolantClassifier, InterpolantFlow
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat(["left", "right"], 100)
    >>> X = rng.normal(size=(200, 2)) + 4.0 * (y == "right")[:, None]
    >>> model = InterpolantClassifier(InterpolantFlow(max_iter=30), random_state=0).fit(X, y)
    >>> model.predict([[0.0, 0.0], [4.0, 4.0]]).tolist()
    ['left', 'right']
    >>> model.abstains([[0.0, 0.0], [50.0, -50.0]]).tolist()
    [False, True]
    """

    _parameter_constraints: ClassVar[dict] = {**CONSTRAINTS, "priors": ["array-like", dict, None]}

    def __init__(
        self,
        flow=None,
        priors=None,
        dequantize="auto",
        support="real",
        calibrate=True,
        validation_fraction=0.1,
        max_time=None,
        device="auto",
        memory=None,
        random_state=None,
    ):
        self.flow, self.priors, self.dequantize, self.support = flow, priors, dequantize, support
        self.calibrate, self.validation_fraction = calibrate, validation_fraction
        self.max_time, self.device, self.memory, self.random_state = max_time, device, memory, random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Learn the distribution of the rows of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of finite numbers.
        y : array-like of shape (n_samples,)
            Their classes.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, finite and not negative; only their ratios count.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            When X has no density (constant or linearly dependent columns), when y holds no classes, or when `priors`
            are not one for each class.
        """
        return self._fit_or_recall(X, y, sample_weight)

    def _check_recalled(self):
        self._log_priors()

    def _fit(self, X, y, sample_weight):
        X, y = check_cells(X, "X"), checked_labels(y)
        with naming_columns(X):
            X, y = validate_data(self, X, y, dtype=dtypes_of(X), ensure_min_samples=2)
        check_classification_targets(y)
        X, weight = weighted_rows(X, sample_weight)
        y, _ = weighted_rows(y, sample_weight, "y")
        check_range(X, "X", names_of_fit(self))
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(codes) == len(self.classes_):
            raise ValueError(
                f"Got {len(codes)} rows of {len(codes)} classes, but a class tells nothing of its spread by one row: "
                "give at least two rows of one class, and some for a useful fit."
            )
        counts = np.bincount(codes, weight)
        self.class_prior_ = counts / counts.sum()
        self._log_priors()
        seed = draw_seed(self.random_state)
        held = _held_out(codes, self.validation_fraction, np.random.default_rng([seed, FIT_STREAM]))
        train = np.setdiff1d(np.arange(len(codes)), held)
        self._read_columns(X, names_of_fit(self), "which standardises the rows of each class")
        self._check_support(X, "X", sample_weight)
        rows = self.grid_.scatter(X, np.random.default_rng([seed, REPEATS_STREAM]))
        if self.support_ is not None:
            rows = self.support_.transform(self.support_.inside(rows, X.dtype)).astype(X.dtype)
        self.scales_ = ClassScales.of(rows[train], codes[train], part_of_weights(weight, train), len(self.classes_))
        flow = InterpolantFlow() if self.flow is None else clone(self.flow)
        flow.set_params(
            random_state=seed, max_time=self.max_time, device=self.device, condition_kinds={0: "categorical"},
            dequantize=None,
        )  # fmt: skip
        rows = self.scales_.transform(rows, codes)
        with nameless():
            flow._fit_part(rows, condition=codes, sample_weight=weight, split=lambda n, fraction, rng: (train, held))
        self.flow_ = flow
        self._held_out = self._log_densities(X[held]), part_of_weights(weight, held)
        self.power_ = _power(*self._held_out, codes[held], np.log(self.class_prior_)) if self.calibrate else 1.0
        self._largest_weight = 1.0 if weight is None else float(weight.max())

    def predict(self, X):
        """The most probable class of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        classes : ndarray of shape (n_samples,)
        """
        most = self.predict_log_proba(X).argmax(1)
        return self.classes_[most]

    def predict_proba(self, X):
        """P(c | x), the probabilities of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            In the order of `classes_`.
        """
        return np.exp(self.predict_log_proba(X))

    def predict_log_proba(self, X):
        """Log P(c | x).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_classes)
            In the order of `classes_`; where no density could be solved, and with a warning where all are zero (a row
            on a bound of the `support` or outside), those of the priors.
        """
        densities = np.nan_to_num(self._densities(X), nan=-np.inf, neginf=-np.inf)
        densities[np.isinf(densities).all(1)] = 0.0
        return log_softmax(self.power_ * densities + self._log_priors(), axis=1)

    def score_samples(self, X):
        """Log p(x), the log-density of the rows over all classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            In nats. A row that becomes infinite or NaN is NaN, with an `IntegrationWarning`. One on a bound of the
            `support` or outside has -inf, with a warning.
        """
        return logsumexp(self._densities(X) + self._log_priors(), axis=1)

    def abstains(self, X, share=0.05):
        """Whether rows resemble those of fit so little that a class should not be told.

        The density p(x) of a row is below that of all but a share of the rows that fit has held out, by their ranks (as
        in a conformal test: Bates et al. 2023, "Testing for outliers with conformal p-values", arXiv 2104.08279).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        share : float, default=0.05
            Of the rows from the distribution of fit from which this abstains at the most.

        Returns
        -------
        abstains : ndarray of bool of shape (n_samples,)
            True for rows on a bound of the `support` or outside, whatever the share.

        Raises
        ------
        ValueError
            When `share` is not between 0 and 1.
        """
        if not isinstance(share, numbers.Real) or not 0 < float(share) < 1:
            raise ValueError(f"Got share={share!r}, but expected a number above 0 and below 1.")
        value, (densities, weight) = self.score_samples(X), self._held_out
        known = logsumexp(densities + self._log_priors(), axis=1)
        least = Calibration(known, weight, self._largest_weight).lower(float(share))
        if np.isinf(least):
            warnings.warn(
                f"{len(known)} held-out rows are too few to tell the least probable share of {share:g}, so that this "
                "abstains from no row: fit on more rows, or raise share.",
                UserWarning,
                stacklevel=users_level(),
            )
        return ~(value >= least) | np.isneginf(value)

    def _densities(self, X):
        """Log p(x | c) of rows of a question, of shape (n_samples, n_classes)."""
        check_is_fitted(self)
        X = validate_rows(self, X)
        possible = self._possible_rows(X, "X", _IMPOSSIBLE)
        densities = np.full((len(X), len(self.classes_)), -np.inf)
        if possible.any():
            densities[possible] = self._log_densities(X[possible])
        return densities

    def _log_densities(self, X):
        """Log p(x | c) of rows within the support, of shape (n_samples, n_classes)."""
        k = len(self.classes_)
        X, jacobian = self.grid_.centre(X)[0], np.zeros((1, 1))
        if self.support_ is not None:
            jacobian = self.support_.log_abs_det_jacobian(X)[:, None]
            X = self.support_.transform(X).astype(X.dtype)
        rows, codes = np.tile(X, (k, 1)), np.repeat(np.arange(k), len(X))
        self.flow_.set_params(device=self.device)
        with nameless():
            value = self.flow_.score_samples(self.scales_.transform(rows, codes), condition=codes)
        value = value.astype(np.float64) - np.log(self.scales_.scales).sum(1)[codes]
        return value.reshape(k, len(X)).T + jacobian

    def _log_priors(self):
        if self.priors is None:
            return np.log(self.class_prior_)
        k = len(self.classes_)
        priors = check_cells(values_by_label(self.priors, self.classes_.tolist(), "priors"), "priors")
        try:
            priors = np.asarray(priors, dtype=np.float64)
        except (TypeError, ValueError):  # no numbers
            priors = np.empty(0)
        if priors.shape != (k,) or not (priors >= 0).all() or abs(priors.sum() - 1) > _ROUNDING:
            raise ValueError(
                f"Got priors={self.priors!r}, but expected {k} shares that sum to 1, one for each of the classes "
                f"{self.classes_.tolist()}, in this order, or a dict of them by class."
            )
        with np.errstate(divide="ignore"):
            return np.log(priors)


def _power(densities, weight, codes, log_priors):
    """The power of the densities by which known classes are likeliest; 1 where they hardly tell it from that.

    Parameters
    ----------
    densities : ndarray of shape (n, n_classes)
        Log p(x | c).
    weight : ndarray of shape (n,) or None
    codes : ndarray of int of shape (n,)
    log_priors : ndarray of shape (n_classes,)
    """
    known = np.isfinite(densities).all(1)
    rows, weight = np.arange(known.sum()), None if weight is None else weight[known]
    if not len(rows):
        return 1.0

    def loss(log_power):
        scores = log_softmax(np.exp(log_power) * densities[known] + log_priors, axis=1)
        return -np.average(scores[rows, codes[known]], weights=weight)

    found = minimize_scalar(loss, bounds=_LOG_POWERS, method="bounded")
    gain = (loss(0.0) - found.fun) * effective_rows(len(rows), weight)
    return float(np.exp(found.x)) if gain > _LEAST_GAIN else 1.0


def _held_out(codes, fraction, rng):
    """Numbers of the rows that are held out, of each class alike; a class keeps at least one row to learn from."""
    order = rng.permutation(len(codes))
    counts = np.bincount(codes)
    place = np.empty(len(codes))
    for c, count in enumerate(counts):
        own = order[codes[order] == c]
        place[own] = (np.arange(count) + rng.random()) / count if count > 1 else 1.0
    return np.sort(np.argsort(place, kind="stable")[: min(n_held_out(len(codes), fraction), int((place < 0.5).sum()))])
