"""Densities behind an invertible transformer, such as those of scikit-learn."""

from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin, OneToOneFeatureMixin, TransformerMixin, _fit_context, clone
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import HasMethods
from sklearn.utils._set_output import _wrap_data_with_container
from sklearn.utils.validation import _check_sample_weight, _num_samples, check_is_fitted

from ._model.fitted import HasModel
from ._model.lost_rows import settled
from ._utils.callbacks import FollowedEstimator, Tasks
from ._utils.input_checks import (
    by_names,
    check_cells,
    is_sample,
    validate_points,
    validate_rows,
    validate_samples,
)
from ._utils.links import LinkedEstimator
from ._utils.names import registered
from .distributed import current_group

__all__ = ["TransformedDensity"]

# Ratio of the variances of two principal axes below which the smaller is a rounding error. It is the ratio of computed
# eigenvalues, and therefore larger than the machine precision.
_COLLINEAR = 1e-13
# Number of rows that an error names.
_NAMED = 5


@registered("TransformedDensity")
class TransformedDensity(
    FollowedEstimator, LinkedEstimator, OneToOneFeatureMixin, TransformerMixin, DensityMixin, BaseEstimator
):
    """An estimator that is fitted to transformed rows, with samples and densities in data units.

    log p(x) = log p_T(T(x)) + log |det dT/dx|

    (change of variables; Papamakarios et al. 2021, arXiv 1912.02762, equation (3)), where p_T is the density that the
    estimator learns and T is the transformer. T is fitted to X, or to both samples stacked, and transforms both. It
    must be a bijection onto the whole space with a known Jacobian: StandardScaler, RobustScaler, MaxAbsScaler,
    MinMaxScaler(clip=False), PCA with all components, PowerTransformer if its image is not bounded, any object with a
    method ``log_abs_det_jacobian(X)`` that returns an array of shape (n_samples,), or a Pipeline of such steps.

    Parameters
    ----------
    transformer : object
        A transformer with `transform` and `inverse_transform`. A clone of it is fitted, or a copy used if it has no
        `fit`.
    estimator : estimator
        An estimator of this library, such as InterpolantFlow. A clone of it is fitted to the transformed rows.

    Attributes
    ----------
    transformer_ : object
        The fitted transformer.
    estimator_ : estimator
        The fitted estimator. Parameters that may change without refitting (`n_steps`, `ode_tol`) are changed here.
    carries_to_ : {"normal", "data"}
        What `transform` maps to: standard normal rows (one sample), or rows in data units (two samples, or the mirror
        interpolant).
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of str
        Names of the columns, if fit was given a frame.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.decomposition import PCA
    >>> from sklearn_si import InterpolantFlow
    >>> from sklearn_si.compose import TransformedDensity
    >>> X = np.random.default_rng(0).normal(3.0, 0.5, size=(200, 2))
    >>> flow = InterpolantFlow(max_iter=20, hidden_layer_sizes=(8,), random_state=0)
    >>> model = TransformedDensity(PCA(whiten=True), flow).fit(X)
    >>> model.sample(4).shape
    (4, 2)
    >>> bool(model.score(X) > -2.0)
    True
    """

    # X0 and X1 are passed by position; a metadata router must not treat them as metadata.
    __metadata_request__fit: ClassVar[dict] = {"X0": "$UNUSED$", "X1": "$UNUSED$"}
    _documented_in: ClassVar[str] = "sklearn_si"

    _parameter_constraints: ClassVar[dict] = {
        "transformer": [HasMethods(["transform"])],
        "estimator": [HasMethods(["fit", "sample", "score_samples", "transform", "inverse_transform"])],
    }

    def __init__(self, transformer, estimator):
        self.transformer = transformer
        self.estimator = estimator

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X0, X1=None, *, condition=None):
        """Fit the transformer to all rows, then the estimator to the transformed rows.

        Parameters
        ----------
        X0 : array-like of shape (n_samples_0, n_features)
            The sample whose density is learned; with X1, the base of the bridge.
        X1 : array-like of shape (n_samples_1, n_features), default=None
            The target of a bridge, if it has two dimensions; labels, of one dimension, are ignored.
        condition : array-like of shape (n_samples,) or (n_samples, n_conditions), default=None
            The condition, which is passed to the estimator as it is.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            When the transformer is not a bijection onto the whole space, when its Jacobian is not known, when it maps a
            row to a point that is not finite, or when the fit of the estimator raises one.
        """
        current_group().refuse("TransformedDensity")
        X0, X1 = validate_samples(self, X0, X1)
        samples, tasks = [X0] if X1 is None else [X0, X1], Tasks(self, X0, X1)
        transformer = clone(self.transformer, safe=False)
        stacked = np.vstack(samples).astype(np.float64)
        if hasattr(transformer, "fit"):
            transformer.fit(stacked.copy())
        for step in _steps(transformer):
            reason = _reason_against(step)
            if reason:
                raise ValueError(f"{_name(step)} cannot be used around a density: {reason}.")
        _check_round_trip(transformer, stacked)
        inside = [_forward(transformer, X)[0] for X in samples]
        estimator = clone(self.estimator)
        with tasks.part("estimator", estimator):
            estimator.fit(*inside, condition=condition)
        self.transformer_, self.estimator_ = transformer, estimator
        self.carries_to_ = "data" if X1 is not None or _keeps_its_distribution(estimator) else "normal"
        tasks.end()
        return self

    def fit_transform(self, X, y=None, *, condition=None):
        """Fit, then transform the rows of the first argument.

        Parameters
        ----------
        X, y, condition : array-like
            X0, X1 and condition of `fit`. The condition is passed to `transform` as well, and needs as many rows as X.

        Returns
        -------
        X_t : ndarray of shape (n_samples, n_features)
            The transformed rows.
        """
        return self.fit(X, y, condition=condition).transform(X, condition=condition)

    def sample(self, n_samples=1, *, condition=None, random_state=None):
        """Draw rows of the target, by the inverse transformer from rows that the estimator draws.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        condition : array-like, default=None
            As in the estimator's `sample`; the start rows of a forecasting model are in data units.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw; None is for the `random_state` of the estimator.

        Returns
        -------
        X : ndarray or frame of shape (n_samples, n_features)
            Rows in data units, in the dtype of the rows given to fit.

        Raises
        ------
        ValueError
            When a row has no finite preimage.
        """
        check_is_fitted(self)
        if condition is not None and self._forecasts:
            start = np.asarray(check_cells(by_names(self, condition, "condition"), "condition"), dtype=np.float64)
            start = self._points(start[None] if start.ndim == 1 else start, "condition")
            condition = _forward(self.transformer_, start)[0]
        inside = self.estimator_.sample(n_samples, condition=condition, random_state=random_state)
        X = _backward(self.transformer_, inside)
        return _wrap_data_with_container("transform", X, X, self)

    def score_samples(self, X, *, t=1.0, condition=None, return_error=False):
        """Log-density at each row, in data units: that of the target, or that of T^-1(x_t) at time t.

        log p(x) = log p_T(T(x)) + log |det dT/dx|

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        t : float, default=1.0
            Time of the density, in [0, 1].
        condition : array-like, default=None
            One row for all or one for each, if the model was fitted with a condition.
        return_error : bool, default=False
            Whether to return the error estimates of the estimator as well; the Jacobian adds no error.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            Log-densities in nats.
        error : ndarray of shape (n_samples,)
            Error estimates in nats, only with ``return_error=True``.

        Raises
        ------
        IntegrationError
            When the solver of the estimator fails for all rows. A single row that has no finite image, or whose density
            cannot be computed, is NaN in the result, with an `IntegrationWarning` that names it.
        """
        check_is_fitted(self)
        value, error = self._log_density(self._validate_rows(X), t, condition)
        return (value, error) if return_error else value

    def score(self, X, y=None, sample_weight=None, *, condition=None):
        """Mean log-likelihood of the rows of y if it is a two-dimensional sample, otherwise of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows; after ``fit(X0, X1)`` and with a sample y, rows of the base, which are not scored.
        y : array-like of shape (n_samples, n_features), default=None
            Rows of the target, if it has two dimensions; otherwise it is ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the mean.
        condition : array-like, default=None
            One row for all or one for each, if the model was fitted with a condition.

        Returns
        -------
        score : float
            Mean log-density in nats, of the data before the transformer, so that scores of different transformers can
            be compared.
        """
        check_is_fitted(self)
        X = validate_rows(self, y, "y") if is_sample(y, "y") else self._validate_rows(X)
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, X)
        value = settled(self._log_density(X, 1.0, condition)[0], "computing log-densities", strict=True)
        return float(np.average(value, weights=weight))

    def transform(self, X, *, condition=None):
        """Map rows of the first sample along the ODE of the estimator.

        After ``fit(X)`` data is mapped to the standard normal base; after ``fit(X0, X1)`` the base X0 is mapped to the
        target X1, both in data units.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of the distribution of the first argument of `fit`.
        condition : array-like, default=None
            One row for all or one for each, if the model was fitted with a condition.

        Returns
        -------
        X_t : ndarray of shape (n_samples, n_features)
            The mapped rows.
        """
        check_is_fitted(self)
        X = self._validate_rows(X)

        def transport(inside, condition):
            moved = self.estimator_.transform(inside, condition=condition)
            return np.asarray(moved) if self.carries_to_ == "normal" else _backward(self.transformer_, moved, False)

        return self._of_known_rows(X, condition, transport)

    def inverse_transform(self, X, *, condition=None):
        """Map rows back: the inverse of `transform`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the space that `transform` maps to.
        condition : array-like, default=None
            One row for all or one for each, if the model was fitted with a condition.

        Returns
        -------
        X_t : ndarray of shape (n_samples, n_features)
            Rows of the distribution of the first argument of `fit`, in data units.
        """
        check_is_fitted(self)
        X = self._points(X, "X")

        def transport(inside, condition):
            moved = self.estimator_.inverse_transform(inside, condition=condition)
            return _backward(self.transformer_, np.asarray(moved), False)

        if self.carries_to_ == "normal":
            rows = settled(transport(X, condition), "transforming rows back", strict=False)
        else:
            rows = self._of_known_rows(X, condition, transport)
        return _wrap_data_with_container("transform", rows, rows, self)

    def __sklearn_tags__(self):
        """The tags of scikit-learn: float32 and float64 are preserved."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _validate_rows(self, X):
        return validate_rows(self, X)

    def _points(self, X, name):
        return validate_points(self, X, name)

    def _log_density(self, X, t, condition):
        inside, jacobian = _forward(self.transformer_, X, False)
        known = self._told_known(np.column_stack([inside, jacobian]))
        value, error = np.full(len(X), np.nan), np.full(len(X), np.nan)
        if known.any():
            given = _rows_of(condition, known)
            value[known], error[known] = self.estimator_.score_samples(
                inside[known], t=t, condition=given, return_error=True
            )
        return (value + jacobian).astype(X.dtype, copy=False), error.astype(X.dtype, copy=False)

    def _of_known_rows(self, X, condition, transport):
        """What a function makes of the rows that the transformer moves to finite points; NaN for the others."""
        inside = _forward(self.transformer_, X, False)[0]
        known = self._told_known(inside)
        moved = np.full(X.shape, np.nan, X.dtype)
        if known.any():
            moved[known] = transport(inside[known], _rows_of(condition, known))
        return moved

    def _told_known(self, values):
        """Which rows the transformer moves to finite points, with a warning that names the others."""
        known = np.isfinite(values).all(1)
        settled(np.where(known, 0.0, np.nan), f"{_name(self.transformer_)} moved them", strict=False)
        return known

    @property
    def _forecasts(self):
        inner = self.estimator_
        if isinstance(inner, TransformedDensity):
            return inner._forecasts
        return isinstance(inner, HasModel) and inner.model_.is_forecast


def _keeps_its_distribution(estimator):
    """Whether the estimator maps data to data even after a fit of one sample, by the mirror interpolant."""
    if isinstance(estimator, TransformedDensity):
        return estimator.carries_to_ == "data"
    return isinstance(estimator, HasModel) and estimator.model_.is_mirror


# ------------------------------------------------------------------------------------ the map and its Jacobian


def _steps(transformer):
    """The single maps of a transformer, in order."""
    if not isinstance(transformer, Pipeline):
        return [transformer]
    steps = [step for _, step in transformer.steps if step is not None and not isinstance(step, str)]
    return [inner for step in steps for inner in _steps(step)]


def _rows_of(condition, known):
    """The condition of some rows; one row stands for all."""
    if condition is None or known.all() or _num_samples(np.atleast_1d(condition)) != len(known):
        return condition
    return _safe_indexing(condition, np.flatnonzero(known))


def _forward(transformer, X, strict=True):
    """T(X) in the dtype of X, and log |det dT/dx| at each row in float64; both finite, if strict."""
    rows = X.astype(np.float64)  # a copy: a scaler with copy=False writes into its argument
    jacobian = np.zeros(len(X))
    with np.errstate(all="ignore"):  # what is not finite is an error below
        for step in _steps(transformer):
            jacobian = jacobian + _log_abs_det_jacobian(step, rows)
            rows = _moved(step, step.transform(rows), X.shape)
        inside = np.asarray(rows).astype(X.dtype, copy=False)
    if strict:
        _require_finite(
        np.column_stack([inside, jacobian]), transformer,
        "to a point that is not finite or where it has no Jacobian, so that they have no density: leave them out, or "
        "use a transformer that is smooth at every row",
    )  # fmt: skip
    return inside, jacobian


def _backward(transformer, inside, strict=True):
    """T^-1 of rows, in their dtype; finite, if strict."""
    inside = np.asarray(inside)
    known = np.isfinite(inside).all(axis=1)
    if not known.all():  # rows that were lost on the way, and reported
        rows = np.full_like(inside, np.nan)
        rows[known] = _backward(transformer, inside[known], strict) if known.any() else rows[known]
        return rows
    rows = inside.astype(np.float64)
    with np.errstate(all="ignore"):  # as in _forward
        for step in reversed(_steps(transformer)):
            rows = _moved(step, step.inverse_transform(rows), inside.shape)
        X = np.asarray(rows).astype(inside.dtype, copy=False)
    if strict:
        _require_finite(
        X, transformer,
        "back to a point that is not finite: it grows so fast there that the rows are beyond the range of "
        "floating-point numbers. Use a milder transformer (RobustScaler), or float64 rows",
    )  # fmt: skip
    return X


def _moved(step, rows, shape):
    if np.shape(rows) != shape:
        raise ValueError(
            f"{_name(step)} returned shape {np.shape(rows)} for rows of shape {shape}, but a density needs a "
            "bijection: use a transformer with as many columns after it as before it."
        )
    return rows


def _require_finite(rows, transformer, what):
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        raise ValueError(f"{_name(transformer)} maps rows {bad[:_NAMED].tolist()}{more} {what}.")


def _check_round_trip(transformer, X):
    """Raise a ValueError if inverse_transform does not map the rows of fit back to themselves."""
    back = _backward(transformer, _forward(transformer, X)[0])
    eps = np.finfo(np.float64).eps
    # Half of the digits of the range, plus the rounding error of a large offset.
    allowed = np.sqrt(eps) * np.ptp(X, axis=0) + 64 * eps * np.abs(X).max(axis=0)
    columns = np.flatnonzero((np.abs(back - X) > allowed).any(axis=0))
    if len(columns):
        raise ValueError(
            f"The inverse_transform of {_name(transformer)} does not map the rows back to themselves in columns "
            f"{columns.tolist()} (largest error {np.abs(back - X).max():.2g}), but a density needs a bijection. Use "
            "another transformer, or scale the columns first (a Pipeline that begins with StandardScaler)."
        )


def _name(transformer):
    return type(transformer).__name__


def _log_abs_det_jacobian(step, rows):
    """The log |det| of the Jacobian of one step, of shape (n_samples,), or a number if it is the same at all rows."""
    if not hasattr(step, "log_abs_det_jacobian"):
        return _jacobian_rule(step)(step, np.asarray(rows))
    value = np.asarray(step.log_abs_det_jacobian(rows), dtype=np.float64)
    if value.shape != (len(rows),):
        raise ValueError(
            f"{_name(step)}.log_abs_det_jacobian returned shape {value.shape} for {len(rows)} rows, but expected "
            f"({len(rows)},): return one number for each row."
        )
    return value


def _divided(step, rows):
    """The map T(x) = (x - centre) / scale_, where scale_ is None if a parameter turns it off."""
    return 0.0 if step.scale_ is None else -np.log(np.abs(step.scale_)).sum()


def _multiplied(step, rows):
    """The map T(x) = x scale_ + min_."""
    return np.log(np.abs(step.scale_)).sum()


def _rotated(step, rows):
    """The map T(x) = C (x - mean) with an orthogonal C, divided by the standard deviations with ``whiten=True``."""
    return -0.5 * np.log(step.explained_variance_).sum() if step.whiten else 0.0


def _bent(step, rows):
    """The derivative x^(l - 1) of Box-Cox, or (1 + |x|)^(+-(l - 1)) of Yeo-Johnson, with + for x >= 0."""
    slope = np.log(rows) if step.method == "box-cox" else np.copysign(np.log1p(np.abs(rows)), rows)
    return ((step.lambdas_ - 1) * slope).sum(axis=1) + (_divided(step._scaler, rows) if step.standardize else 0.0)


_JACOBIANS = {
    StandardScaler: _divided, RobustScaler: _divided, MaxAbsScaler: _divided, MinMaxScaler: _multiplied,
    PCA: _rotated, PowerTransformer: _bent,
}  # fmt: skip


def _jacobian_rule(step):
    """The rule for the class of the step, or None for a subclass with a `transform` of its own."""
    for cls, rule in _JACOBIANS.items():
        if isinstance(step, cls) and type(step).transform is cls.transform:
            return rule
    return None


# --------------------------------------------------------------------------------------------- what is refused

_OWN_MAP = "a map of your own onto the whole space, with inverse_transform and log_abs_det_jacobian(X)"


def _reason_against(step):
    """Why a fitted step is not a bijection onto the whole space, and what to do; None if it is one."""
    if not hasattr(step, "inverse_transform"):
        return f"it has no inverse_transform, which samples need. Use StandardScaler, or {_OWN_MAP}"
    if hasattr(step, "log_abs_det_jacobian"):
        return None
    if isinstance(step, QuantileTransformer):
        return (
            "it clips the rows outside the range of fit, so it is not a bijection. Use PowerTransformer, or no "
            "transformer, because the estimator learns marginal distributions of any shape"
        )
    if _jacobian_rule(step) is None:
        return (
            f"its Jacobian is not known. Use {', '.join(cls.__name__ for cls in _JACOBIANS)}, a Pipeline of them, or "
            f"{_OWN_MAP}, of shape (n_samples,)"
        )
    if isinstance(step, MinMaxScaler) and step.clip:
        return "with clip=True it clips the rows outside the range of fit. Use MinMaxScaler(clip=False)"
    if isinstance(step, PCA):
        return _reason_against_pca(step)
    if isinstance(step, PowerTransformer):
        return _reason_against_power(step)
    return None


def _reason_against_pca(step):
    n_kept, n_features = step.components_.shape
    if n_kept != n_features:
        return (
            f"it keeps {n_kept} of {n_features} components, and rows of fewer columns have no density in "
            f"{n_features} dimensions. Use PCA(n_components=None) on more rows than columns, or fit the estimator to "
            "the reduced rows"
        )
    if step.explained_variance_.min() <= _COLLINEAR * step.explained_variance_.max():
        return (
            "a component has no variance up to rounding errors: columns are linearly dependent, or their units are "
            "very different. Drop the dependent columns, or put StandardScaler before it in a Pipeline"
        )
    return None


def _reason_against_power(step):
    if step.method == "box-cox":
        bounded, onto = step.lambdas_ != 0, "is not 0"
    else:
        bounded, onto = (step.lambdas_ < 0) | (step.lambdas_ > 2), "is outside of [0, 2]"
    if not bounded.any():
        return None
    found = ", ".join(f"{value:.3g}" for value in step.lambdas_[bounded][:_NAMED])
    return (
        f"its lambda {onto} in columns {np.flatnonzero(bounded).tolist()} ({found}), so its image is bounded and "
        f"samples of the estimator may have no preimage. Use RobustScaler, or {_OWN_MAP} (the logarithm for positive "
        "columns, for example)"
    )
