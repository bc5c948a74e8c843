"""Densities behind an invertible transformer, such as those of scikit-learn."""

from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin, OneToOneFeatureMixin, TransformerMixin, _fit_context, clone
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import HasMethods
from sklearn.utils.validation import _num_samples, check_is_fitted, has_fit_parameter

from ._estimators.base import BaseInterpolant
from ._estimators.densities import mean_of_logs
from ._estimators.in_group import fit_by_first
from ._estimators.resume import told_params
from ._model.fitted import HasModel
from ._model.lost_rows import settled
from ._utils.callbacks import FollowedEstimator, Tasks
from ._utils.containers import in_container
from ._utils.input_checks import all_or_nothing, by_names, is_sample, validate_points, validate_rows, validate_samples
from ._utils.kinds import check_cells
from ._utils.links import LinkedEstimator
from ._utils.names import registered
from ._utils.row_numbers import numbered, rows_of_fit
from ._utils.weights import check_weights, weighted_samples
from .distributed import current_group
from .preprocessing._foreign import (
    backward,
    check_round_trip,
    forward,
    name_of,
    reason_against,
    reason_against_any,
    steps_of,
)

__all__ = ["TransformedDensity"]


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

    # The same as those of the estimators inside.
    __metadata_request__fit: ClassVar[dict] = {
        "X0": "$UNUSED$", "X1": "$UNUSED$", "condition": True, "sample_weight": True,
    }  # fmt: skip
    __metadata_request__score: ClassVar[dict] = {"condition": True, "sample_weight": True}
    __metadata_request__transform: ClassVar[dict] = {"condition": True}
    __metadata_request__inverse_transform: ClassVar[dict] = {"condition": True}
    _documented_in: ClassVar[str] = "sklearn_si"

    _parameter_constraints: ClassVar[dict] = {
        "transformer": [HasMethods(["transform"])],
        "estimator": [HasMethods(["fit", "sample", "score_samples", "transform", "inverse_transform"])],
    }

    def __init__(self, transformer, estimator):
        self.transformer = transformer
        self.estimator = estimator

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X0, X1=None, *, condition=None, sample_weight=None):
        """Fit the transformer to all rows, then the estimator to the transformed rows.

        Parameters
        ----------
        X0 : array-like of shape (n_samples_0, n_features)
            The sample whose density is learned; with X1, the base of the bridge.
        X1 : array-like of shape (n_samples_1, n_features), default=None
            The target of a bridge, if it has two dimensions; labels, of one dimension, are ignored.
        condition : array-like of shape (n_samples,) or (n_samples, n_conditions), default=None
            The condition, which is passed to the estimator as it is.
        sample_weight : array-like of shape (n_samples,) or tuple of two, default=None
            Weights of the rows of the last sample given, or a pair (weights of X0, weights of X1), as the fit of the
            estimator takes them. The transformer gets them as well, if its fit takes weights.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            When the transformer is not a bijection onto the whole space, when its Jacobian is not known, when it maps a
            row to a point that is not finite, when there are weights and the fit of the estimator takes none, or when
            the fit of the estimator raises one.
        """
        if current_group().any(sample_weight is not None):
            rows = {"X0": X0, "X1": X1, "condition": condition, "sample_weight": sample_weight}
            return fit_by_first(self, self._fit, **rows)
        with all_or_nothing(self):
            self._fit(X0, X1, condition, sample_weight)
        return self

    def _fit(self, X0, X1, condition, sample_weight):
        if sample_weight is not None and not has_fit_parameter(self.estimator, "sample_weight"):
            raise ValueError(
                f"Got sample_weight, but the fit of {name_of(self.estimator)} takes none: use InterpolantFlow or "
                "InterpolantDiffusion, or leave the weights out."
            )
        for step in steps_of(self.transformer):
            _refuse_step(step, reason_against_any(step))
        group, is_paired = current_group(), _pairs_rows(self.estimator)
        with group.together():
            X0, X1, condition, row_weights = weighted_samples(X0, X1, condition, sample_weight, is_paired)
            X0, X1 = validate_samples(self, X0, X1)
            samples, tasks = [X0] if X1 is None else [X0, X1], Tasks(self, X0, X1)
            stacked, names = np.vstack(samples).astype(np.float64), vars(self).get("feature_names_in_")
        group.agree({"names": names if names is None else list(names), **told_params(self)})
        weights = _weights_for(self.transformer, samples, row_weights)
        transformer = _fitted_by_all(group, clone(self.transformer, safe=False), stacked, weights)
        with group.together():
            _check_transformer(transformer, stacked, names)
            inside = [forward(transformer, X)[0] for X in samples]
        estimator = clone(self.estimator)
        with tasks.part("estimator", estimator), numbered(rows_of_fit(sample_weight, X1 is not None, is_paired)):
            estimator.fit(*inside, condition=condition, **_as_given(row_weights, X1 is not None, is_paired))
        self.transformer_, self.estimator_ = transformer, estimator
        self.carries_to_ = "data" if X1 is not None or _keeps_its_distribution(estimator) else "normal"
        tasks.end()

    def fit_transform(self, X, y=None, *, condition=None, sample_weight=None):
        """Fit, then transform the rows of the first argument.

        Parameters
        ----------
        X, y, condition, sample_weight : array-like
            X0, X1, condition and weights of `fit`. The condition is passed to `transform` as well, and needs as many
            rows as X.

        Returns
        -------
        X_t : ndarray of shape (n_samples, n_features)
            The transformed rows.
        """
        return self.fit(X, y, condition=condition, sample_weight=sample_weight).transform(X, condition=condition)

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
        given = condition
        if condition is not None and self._forecasts:
            start = np.asarray(check_cells(by_names(self, condition, "condition"), "condition"), dtype=np.float64)
            start = self._points(start[None] if start.ndim == 1 else start, "condition")
            condition = forward(self.transformer_, start)[0]
        inside = self.estimator_.sample(n_samples, condition=condition, random_state=random_state)
        X = backward(self.transformer_, inside)
        return in_container(self, X, given)

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
        return_error : bool or "model", default=False
            Whether to return the error estimates of the estimator as well; the Jacobian adds no error. "model" is for
            an estimator with `n_estimators` above 1, as in `InterpolantFlow.score_samples`.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            Log-densities in nats.
        error : ndarray of shape (n_samples,)
            Error estimates in nats, only with `return_error`.

        Raises
        ------
        IntegrationError
            When the solver of the estimator fails for all rows. A single row that has no finite image, or whose density
            cannot be computed, is NaN in the result, with an `IntegrationWarning` that names it. One outside the
            `support` of the estimator is -inf, with a warning.
        """
        check_is_fitted(self)
        value, error = self._log_density(self._validate_rows(X), t, condition, return_error or True)
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
        weight = None if sample_weight is None else check_weights(sample_weight, len(X), "X", "sample_weight")
        value, _ = self._log_density(X, 1.0, condition)
        # rows outside a support have -inf, of which the estimator has warned
        settled(np.where(np.isneginf(value), 0.0, value), "computing log-densities", strict=True)
        return mean_of_logs(value, weight)

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
            return np.asarray(moved) if self.carries_to_ == "normal" else backward(self.transformer_, moved, False)

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
        given, X = X, self._points(X, "X")

        def transport(inside, condition):
            moved = self.estimator_.inverse_transform(inside, condition=condition)
            return backward(self.transformer_, np.asarray(moved), False)

        if self.carries_to_ == "normal":
            rows = settled(transport(X, condition), "transforming rows back", strict=False)
        else:
            rows = self._of_known_rows(X, condition, transport)
        return in_container(self, rows, given)

    def __sklearn_tags__(self):
        """The tags of scikit-learn: float32 and float64 are preserved."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _validate_rows(self, X):
        return validate_rows(self, X)

    def _points(self, X, name):
        return validate_points(self, X, name)

    def _log_density(self, X, t, condition, return_error=True):
        inside, jacobian = forward(self.transformer_, X, False)
        known = self._told_known(np.column_stack([inside, jacobian]))
        value, error = np.full(len(X), np.nan), np.full(len(X), np.nan)
        if known.any():
            given = _rows_of(condition, known)
            value[known], error[known] = self.estimator_.score_samples(
                inside[known], t=t, condition=given, return_error=return_error
            )
        return (value + jacobian).astype(X.dtype, copy=False), error.astype(X.dtype, copy=False)

    def _of_known_rows(self, X, condition, transport):
        """What a function makes of the rows that the transformer moves to finite points; NaN for the others."""
        inside = forward(self.transformer_, X, False)[0]
        known = self._told_known(inside)
        moved = np.full(X.shape, np.nan, X.dtype)
        if known.any():
            moved[known] = transport(inside[known], _rows_of(condition, known))
        return moved

    def _told_known(self, values):
        """Which rows the transformer moves to finite points, with a warning that names the others."""
        known = np.isfinite(values).all(1)
        settled(np.where(known, 0.0, np.nan), f"{name_of(self.transformer_)} moved them", strict=False)
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


def _pairs_rows(estimator):
    """Whether row i of X0 belongs to row i of X1 in a fit of the estimator."""
    if isinstance(estimator, TransformedDensity):
        return _pairs_rows(estimator.estimator)
    return isinstance(estimator, BaseInterpolant) and estimator._pairs_rows()


def _fitted_by_all(group, transformer, stacked, weights):
    """The transformer, fitted to rows of all processes by the first of them."""
    if not hasattr(transformer, "fit"):
        return transformer
    rows = group.rows(stacked)
    return group.shared(lambda: transformer.fit(rows.copy(), **weights))


def _refuse_step(step, reason):
    if reason:
        raise ValueError(f"{name_of(step)} cannot be used around a density: {reason}.")


def _check_transformer(transformer, stacked, names):
    """Raise a ValueError for a step that is no bijection whose Jacobian is known, or rows that do not come back."""
    for k, step in enumerate(steps_of(transformer)):
        # what is rotated before has no names
        _refuse_step(step, reason_against(step, names if k == 0 else None))
    check_round_trip(transformer, stacked, names)


def _weights_for(transformer, samples, row_weights):
    """The keywords that pass the weights of stacked samples to the fit of a transformer."""
    if all(weight is None for weight in row_weights) or not has_fit_parameter(transformer, "sample_weight"):
        return {}
    ends = row_weights[-len(samples) :]
    parts = [np.ones(len(X)) if weight is None else weight for X, weight in zip(samples, ends, strict=True)]
    return {"sample_weight": np.concatenate(parts)}


def _as_given(row_weights, is_pair_of_samples, is_paired):
    """The keywords that pass the weights to the fit of the estimator."""
    if all(weight is None for weight in row_weights):
        return {}
    return {"sample_weight": row_weights if is_pair_of_samples and not is_paired else row_weights[1]}


def _rows_of(condition, known):
    """The condition of some rows; one row stands for all."""
    if condition is None or known.all() or _num_samples(np.atleast_1d(condition)) != len(known):
        return condition
    return _safe_indexing(condition, np.flatnonzero(known))
