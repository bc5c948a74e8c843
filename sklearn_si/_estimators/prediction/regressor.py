"""A regressor whose prediction is a distribution."""

import numbers
import time
import warnings
from typing import ClassVar

import numpy as np
from scipy import sparse
from scipy.special import ndtr, ndtri
from sklearn.base import BaseEstimator, RegressorMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _num_samples, check_consistent_length, check_is_fitted, validate_data

from ..._utils.callers import users_level
from ..._utils.frame_names import is_frame
from ..._utils.input_checks import check_count, checked_target, naming_columns
from ..._utils.kinds import as_cells, check_cells
from ..._utils.names import registered
from ..._utils.tensors import REPEATS_STREAM, SAMPLE_STREAM, draw_seed, resolve_device
from ..._utils.weights import weighted_rows
from ...preprocessing._conditions import ConditionCodec
from ...preprocessing._maps import check_range
from .calibration import marginal_scores, marginal_values
from .fitting import (
    FEW_VALUES,
    Search,
    calibrated,
    refuse_constant,
    rows_to_calibrate,
    scored_grid,
    target_names,
)
from .mixture import Mixture
from .report import predictive_report
from .scores import ScoreGrid
from .shared import CONSTRAINTS, FlowInside


@registered("InterpolantRegressor")
class InterpolantRegressor(FlowInside, RegressorMixin, BaseEstimator):
    """A regressor that predicts the distribution of y given X: quantiles, intervals, densities, draws and the mean.

    y = T(z | x),    or    y = mu(x) + sigma(x) T(z | x),    z standard normal

    with T the flow of an `InterpolantFlow` that is fitted to y with X as its condition (Albergo, Boffi &
    Vanden-Eijnden, 2303.08797, (2.32)), and mu and sigma learned by boosted trees out of fold. For one output the map
    T is increasing in z, so that it maps quantiles of the normal to those of y: no draws are needed.

    Parameters
    ----------
    flow : InterpolantFlow or None, default=None
        What is cloned and fitted; None is InterpolantFlow(). Its `max_time`, `random_state` and `device` are those of
        the regressor.
    base : {"auto", "normal", "boosting"}, default="auto"
        "boosting" learns a location and a scale by gradient boosting first, "normal" learns neither, and "auto" fits
        both: the prediction is their mixture, unless one has a log-likelihood of validation rows that is higher than
        that of the mixture by a standard error. Fewer than 20 training rows are too few for "boosting", and "auto" is
        then "normal".
    n_estimators : int, default=1
        Number of maps, each with another seed and other validation rows; the prediction is their mixture in equal
        parts, and its quantiles are found by root finding.
    dequantize : None, "auto" or list, default="auto"
        Columns of y with repeated values, such as counts, as in `InterpolantFlow`; "auto" finds them. They get uniform
        noise within cells in fit: a single column of up to 64 values within cells of the normal distribution that have
        the shares of its values. Draws and quantiles are then values that fit saw.
    calibrate : bool, default=False
        Whether a fifth of the rows neither trains nor validates, but corrects the distribution: `predict_interval` then
        holds its coverage, in the mean over fits and new rows, whatever the distribution and the number of rows (split
        conformal prediction, `Calibration`); with weights, over rows that are drawn by their weights. Quantiles,
        distribution function, log-density, mean and draws of one output follow the same correction; of several outputs,
        intervals, quantiles and distribution functions do.
    support : str, tuple or dict, default="real"
        Where columns of y live: "real", "positive", or a pair (low, high), of which one may be None; one for all
        columns, or a dict by name or position. Draws, quantiles and means are then within, densities integrate to one
        there, and everything is learned on the line that a smooth map leads to, as in `InterpolantFlow`. A value of y
        on a bound or outside is refused, unless `dequantize` covers its column.
    condition_kinds : dict or None, default=None
        How columns of X are read, by name (by position in an array): "categorical" or "continuous". Other columns of
        numbers and dates are continuous, all else is categorical.
    validation_fraction : float, default=0.1
        Share of the rows that are held out to stop the training and to choose the base.
    max_time : float or None, default=None
        Seconds of training. The result then depends on the speed of the machine, and is not reproducible.
    device : str or torch.device, default="auto"
        "auto" is CUDA if there is one, else MPS, else the CPU. May be changed after fit.
    memory : str, path-like, joblib.Memory or None, default=None
        Folder in which fitted models are kept, as in `InterpolantFlow`.
    random_state : int, RandomState instance or None, default=None
        Seed of training and of draws. May be changed after fit.

    Attributes
    ----------
    members_ : list
        The maps; with base_ = "both" two for each of `n_estimators`.
    base_ : str
        "normal", "boosting" or "both", as chosen.
    validation_scores_ : dict of float
        Mean log-likelihood of the validation rows with each base that was fitted, in nats; for a single column of
        up to 64 repeated values, of its normal scores.
    calibrations_ : list of Calibration or None
        The correction for each output; None with calibrate=False.
    support_ : Support or None
        Where the columns of y live; None where all are real.
    grid_ : Grid
        The values and cells of the columns of y that repeat values.
    n_outputs_ : int
        Number of columns of y.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of str
        Names of the columns of X, if fit was given a frame.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si import InterpolantFlow, InterpolantRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.uniform(size=(200, 1))
    >>> y = X[:, 0] + 0.1 * rng.normal(size=200)
    >>> model = InterpolantRegressor(InterpolantFlow(max_iter=20), random_state=0).fit(X, y)
    >>> model.predict_interval(X[:3], coverage=0.9).shape
    (3, 2)
    """

    _parameter_constraints: ClassVar[dict] = {
        **CONSTRAINTS,
        "base": [StrOptions({"auto", "normal", "boosting"})],
        "n_estimators": [Interval(numbers.Integral, 1, None, closed="left")],
        "condition_kinds": [dict, None],
    }

    def __init__(
        self,
        flow=None,
        base="auto",
        n_estimators=1,
        dequantize="auto",
        calibrate=False,
        support="real",
        condition_kinds=None,
        validation_fraction=0.1,
        max_time=None,
        device="auto",
        memory=None,
        random_state=None,
    ):
        self.flow, self.base, self.n_estimators, self.dequantize = flow, base, n_estimators, dequantize
        self.calibrate, self.support, self.condition_kinds = calibrate, support, condition_kinds
        self.validation_fraction, self.max_time = validation_fraction, max_time
        self.device, self.memory, self.random_state = device, memory, random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Learn the distribution of y given X.

        Parameters
        ----------
        X : frame or array-like of shape (n_samples, n_features)
            Columns of any kind in a frame; missing values are allowed. Later rows may miss values in other columns, and
            hold other categories: they are then read, with a warning, as the mean or as the most frequent category of
            their column (an unknown category as a missing value, if fit saw some in its column).
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The target.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, finite and not negative; only their ratios count.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            When y is constant, or not finite, or when a column of X cannot be read.
        """
        return self._fit_or_recall(X, y, sample_weight)

    def _fit(self, X, y, sample_weight):
        began, X = time.perf_counter(), self._checked(X, reset=True)
        Y, names = checked_target(y), target_names(y)
        self._is_column, self.n_outputs_ = Y.ndim == 2, 1 if Y.ndim == 1 else Y.shape[1]
        X, weight = weighted_rows(X, sample_weight)
        Y, _ = weighted_rows(Y.reshape(len(Y), -1), sample_weight, "y")
        refuse_constant(Y, names)
        check_range(Y, "y", names)
        self.codec_ = ConditionCodec(False, self.condition_kinds, "X", fills=True).fit(X)
        codes, seed = self.codec_.transform(X, len(Y)), draw_seed(self.random_state)
        rows, kept = rows_to_calibrate(len(Y), self.calibrate, seed)
        refuse_constant(Y[rows], names)
        own = None if weight is None else weight[rows]
        names = list(range(Y.shape[1])) if names is None else names
        self._read_columns(Y[rows], names, "whose quantiles need an order")
        self.grid_ = scored_grid(self.grid_, Y[rows], own)
        self._check_support(Y, "y", sample_weight)
        Y = self._to_line(self.grid_.scatter(Y, np.random.default_rng([seed, REPEATS_STREAM])))
        search = Search(
            self.flow,
            self.base,
            self.n_estimators,
            self.validation_fraction,
            self.max_time,
            began,
            self._device(),
            seed,
        )
        self.members_, self.base_, self.validation_scores_ = search.learn(codes[rows], Y[rows], own)
        self.calibrations_ = calibrated(self.members_, self._device(), codes, Y, weight, kept)

    def predict(self, X, return_std=False):
        """The mean of y given X, over base nodes that are the same for every row.

        Parameters
        ----------
        X : frame or array-like of shape (n_samples, n_features)
        return_std : bool, default=False
            Whether to return the standard deviation over the same nodes as well.

        Returns
        -------
        mean : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        std : ndarray of the same shape
            Only with return_std=True.
        """
        at, weights = self._at_nodes(self._codes(X))
        mean = np.einsum("nkd,nk->nd", at, weights)
        if not return_std:
            return self._shaped(mean)
        std = np.sqrt(np.einsum("nkd,nk->nd", (at - mean[:, None]) ** 2, weights))
        return self._shaped(mean), self._shaped(std)

    def predict_quantiles(self, X, quantiles):
        """Quantiles of y given X.

        q_u(x) = mu(x) + sigma(x) T(Phi^-1(u) | x)    (one output; the marginal quantiles over joint nodes for several)

        Parameters
        ----------
        X : frame or array-like of shape (n_samples, n_features)
        quantiles : float or array-like of shape (n_quantiles,)
            Levels between 0 and 1, in any order.

        Returns
        -------
        values : ndarray of shape (n_samples, n_quantiles) or (n_samples, n_quantiles, n_outputs)

        Raises
        ------
        ValueError
            When a level is not between 0 and 1.
        """
        levels = np.atleast_1d(np.asarray(check_cells(quantiles, "quantiles"), dtype=np.float64))
        if levels.ndim != 1 or not len(levels) or not ((levels > 0) & (levels < 1)).all():
            raise ValueError(f"Got quantiles={quantiles!r}, but expected levels above 0 and below 1.")
        if self.calibrations_ is not None:
            z = ndtri(levels)
            return self._at_scores(X, [calibration.inverse(z) for calibration in self.calibrations_])
        codes = self._codes(X)
        if self.n_outputs_ == 1:
            return self._shaped_values(self._to_data(self._mixture().quantiles(codes, levels)[..., None]))
        return self._snapped(np.moveaxis(np.quantile(self._at_nodes(codes)[0], levels, axis=1), 0, 1))

    def _at_scores(self, X, scores):
        """Values of each output at its own scores before the calibration."""
        codes, mixture = self._codes(X), self._mixture()
        if self.n_outputs_ == 1:
            return self._shaped_values(self._to_data(mixture.at_scores(codes, scores[0])[..., None]))
        at, _ = mixture.nodes(codes, self.n_outputs_)
        values = np.stack([marginal_values(at[..., j], z) for j, z in enumerate(scores)], axis=-1)
        return self._shaped_values(self._to_data(values))

    def _snapped(self, values):
        """Values of the columns of repeated values, in the shape of the answer."""
        return self._shaped_values(self.grid_.snap(values.reshape(-1, self.n_outputs_)).reshape(values.shape))

    def _shaped_values(self, values):
        return values if self._is_column else values[..., 0]

    def predict_interval(self, X, coverage=0.9):
        """Central intervals of y given X: from the quantile (1 - coverage) / 2 to the quantile (1 + coverage) / 2.

        With calibrate=True the ends lie no further in than the ranks of the calibration rows that guarantee the
        coverage; where there are too few of these rows, the ends are the quantiles, with a warning.

        Parameters
        ----------
        X : frame or array-like of shape (n_samples, n_features)
        coverage : float, default=0.9
            Between 0 and 1.

        Returns
        -------
        bounds : ndarray of shape (n_samples, 2) or (n_samples, 2, n_outputs)
        """
        if not isinstance(coverage, numbers.Real) or not 0 < float(coverage) < 1:
            raise ValueError(f"Got coverage={coverage!r}, but expected a number above 0 and below 1.")
        if self.calibrations_ is None:
            return self.predict_quantiles(X, [(1 - float(coverage)) / 2, (1 + float(coverage)) / 2])
        ends = [calibration.interval(float(coverage)) for calibration in self.calibrations_]
        if not all(is_guaranteed for _, is_guaranteed in ends):
            n = len(self.calibrations_[0].scores)
            warnings.warn(
                f"{n} calibration rows are too few to guarantee intervals of coverage={coverage:g}: these are "
                "calibrated quantiles without a guarantee. Fit on more rows, or ask for a smaller coverage.",
                UserWarning,
                stacklevel=users_level(),
            )
        return self._at_scores(X, [scores for scores, _ in ends])

    def predict_cdf(self, X, y):
        """P(Y <= y | X) at a value for each row; of several outputs, of each one alone.

        Parameters
        ----------
        X : frame or array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Values, which may be infinite.

        Returns
        -------
        probability : ndarray of the shape of y
            For a column of repeated values, the probability of all values up to y.
        """
        codes, Y = self._codes(X), self._targets(X, y, has_infinite=True)
        for j, grid in self.grid_.columns.items():
            places = np.searchsorted(grid.values, Y[:, j], side="right")
            Y[:, j] = np.concatenate([[-np.inf], grid.edges[1:-1], [np.inf]])[places]
        if self.n_outputs_ == 1:
            return self._shaped(np.exp(self._mixture().log_cdf(codes, self._to_line(Y)[:, 0]))[:, None])
        if self.calibrations_ is None:
            return (self._at_nodes(codes)[0] <= Y[:, None]).mean(1)
        (at, _), Y = self._mixture().nodes(codes, self.n_outputs_), self._to_line(Y)
        pairs = enumerate(self.calibrations_)
        return ndtr(np.column_stack([own.forward(marginal_scores(at[..., j], Y[:, j])) for j, own in pairs]))

    def predict_log_density(self, X, y):
        """Log p(y | X) in nats, in the units of y.

        Parameters
        ----------
        X : frame or array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            Of a single output of repeated values, log(P(y | x) / width of its cell), without error; of several
            outputs, the log-density at the centres of the cells, which estimates that. A target on a bound of the
            `support` or outside has -inf, with a warning.
        """
        codes, Y = self._codes(X), self._targets(X, y)
        possible = self._possible_rows(Y, "y", "their log-density is -inf")
        log_density = np.full(len(Y), -np.inf)
        if possible.any():
            log_density[possible] = self._log_density(codes[possible], Y[possible])
        return log_density

    def _log_density(self, codes, Y):
        """Log p(y | X) of targets within the support."""
        mixture = self._mixture()
        if self.n_outputs_ == 1 and self.grid_.columns:
            grid = self.grid_.columns[0]
            cells, edges = grid.cells(Y[:, 0]), grid.edges.copy()
            width, edges = grid.widths[cells], self._to_line(edges[:, None])[:, 0]
            edges[0], edges[-1] = -np.inf, np.inf
            return mixture.log_mass(codes, edges[cells], edges[cells + 1]) - np.log(width)
        Y = self.grid_.centre(Y)[0]
        log_density = mixture.log_density(codes, self._to_line(Y))
        return log_density if self._line is None else log_density + self._line.log_abs_det_jacobian(Y)

    def sample(self, X, n_draws=1, random_state=None):
        """Draw y given X.

        Parameters
        ----------
        X : frame or array-like of shape (n_samples, n_features)
        n_draws : int, default=1
            Draws for each row.
        random_state : int, RandomState instance or None, default=None
            Seed; None is the estimator's own.

        Returns
        -------
        draws : ndarray of shape (n_draws, n_samples) or (n_draws, n_samples, n_outputs)
        """
        codes, n_draws = self._codes(X), check_count(n_draws, "n_draws")
        seed = draw_seed(self.random_state if random_state is None else random_state)
        rows, rng = np.tile(np.arange(len(codes)), n_draws), np.random.default_rng([seed, SAMPLE_STREAM])
        drawn = self._mixture().draw(codes, rows, self.n_outputs_, rng)
        draws = self._to_data(drawn).reshape(n_draws, len(codes), self.n_outputs_)
        return draws if self._is_column else draws[..., 0]

    def diagnose(self, X, y):
        """Whether the predicted distributions are those of held-out rows: a report that prints as its verdicts.

        Parameters
        ----------
        X : frame or array-like of shape (n_samples, n_features)
            Rows that fit has not seen, at least two.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Their targets.

        Returns
        -------
        report : Report
            A Bunch, and each `_error` beside a value is one standard error. Of the intervals of `coverages`: the shares
            that hold y, `observed`, and their mean widths, `sharpness`. `pit`: P(Y <= y | X) of each row, with a draw
            within the step where y repeats values; `pit_below` and `pit_above` are the shares below .1 and above .9,
            and `pit_pvalue` that of a Kolmogorov-Smirnov test of uniformity (below .01: not calibrated). `crps` is the
            mean continuous ranked probability score, and `log_density` the mean log-density. With several outputs, all
            but the last have an axis for them.
        """
        return predictive_report(self, X, self._shaped(self._targets(X, y)))

    def _device(self):
        return resolve_device(self.device)

    def _mixture(self):
        of_one = self.calibrations_ is not None and self.n_outputs_ == 1
        return Mixture(self.members_, self._device(), self.calibrations_[0] if of_one else None)

    def _at_nodes(self, codes):
        """Targets that stand for the distribution of each row, and their weights, of shape (n_rows, n_nodes).

        They are those at the base nodes of all members, or the values of a target of few values, by their masses.
        """
        grid, mixture = self.grid_.columns.get(0), self._mixture()
        if self.n_outputs_ == 1 and grid is not None and len(grid.values) <= FEW_VALUES:
            mass = mixture.masses(codes, grid.edges[1:-1])
            return np.broadcast_to(grid.values[:, None], (*mass.shape, 1)), mass
        at, weights = mixture.nodes(codes, self.n_outputs_)
        return self._to_data(at), weights

    @property
    def _line(self):
        """The support by whose map targets are learned; normal scores of few values are on the line already."""
        is_scored = any(isinstance(grid, ScoreGrid) for grid in self.grid_.columns.values())
        return None if is_scored else self.support_

    def _to_line(self, Y):
        """Targets, or ends of their cells, on the line; those on a bound or beyond are infinite."""
        if self._line is None:
            return Y
        low, high = self._line.low, self._line.high
        with np.errstate(invalid="ignore"):  # an infinite target, of which the next line decides
            moved = self._line.transform(self._line.inside(Y))
        return np.where(low >= Y, -np.inf, np.where(high <= Y, np.inf, moved))

    def _to_data(self, Y):
        """Targets of any leading shape in the units of y, within their support and with the values of their grid."""
        rows = Y.reshape(-1, self.n_outputs_)
        if self._line is not None:
            rows = self._line.inside(self._line.inverse_transform(rows))
        return self.grid_.snap(rows).reshape(Y.shape)

    def _shaped(self, values):
        return values if self._is_column else values[:, 0]

    def _codes(self, X):
        """The coded rows of a question."""
        check_is_fitted(self)
        X = self._checked(X)
        return self.codec_.transform(X, _num_samples(X))

    def _targets(self, X, y, has_infinite=False):
        Y = checked_target(y, has_infinite)
        check_consistent_length(X, Y)
        Y = Y.reshape(len(Y), -1).copy()
        if Y.shape[1] != self.n_outputs_:
            raise ValueError(f"y has {Y.shape[1]} columns, but fit was given {self.n_outputs_}.")
        return Y

    def _checked(self, X, reset=False):
        if is_frame(X):
            validate_data(self, X, reset=reset, skip_check_array=True)
            return X
        X = X if sparse.issparse(X) else as_cells(X, "X")
        with naming_columns(X, "allow-nan"):
            return validate_data(self, X, reset=reset, dtype=None, ensure_all_finite="allow-nan")

    def __sklearn_tags__(self):
        """Missing values, columns of any kind and several outputs are welcome."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.categorical = tags.input_tags.string = True
        tags.target_tags.multi_output = True
        return tags
