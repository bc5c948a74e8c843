"""Transformers of scikit-learn, and of users, as maps between units: their Jacobians, and which have none."""

import numpy as np
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

# Ratio of the variances of two principal axes below which the smaller is a rounding error. It is the ratio of computed
# eigenvalues, and therefore larger than the machine precision.
_COLLINEAR = 1e-13
# Number of rows that an error names.
_NAMED = 5


# ------------------------------------------------------------------------------------ the map and its Jacobian


def steps_of(transformer):
    """The single maps of a transformer, in order."""
    if not isinstance(transformer, Pipeline):
        return [transformer]
    steps = [step for _, step in transformer.steps if step is not None and not isinstance(step, str)]
    return [inner for step in steps for inner in steps_of(step)]


def forward(transformer, X, strict=True):
    """T(X) in the dtype of X, and log |det dT/dx| at each row in float64; both finite, if strict."""
    rows = X.astype(np.float64)  # a copy: a scaler with copy=False writes into its argument
    jacobian = np.zeros(len(X))
    with np.errstate(all="ignore"):  # what is not finite is an error below
        for step in steps_of(transformer):
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


def backward(transformer, inside, strict=True):
    """T^-1 of rows, in their dtype; finite, if strict."""
    inside = np.asarray(inside)
    known = np.isfinite(inside).all(axis=1)
    if not known.all():  # rows that were lost on the way, and reported
        rows = np.full_like(inside, np.nan)
        rows[known] = backward(transformer, inside[known], strict) if known.any() else rows[known]
        return rows
    rows = inside.astype(np.float64)
    with np.errstate(all="ignore"):  # as in _forward
        for step in reversed(steps_of(transformer)):
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
            f"{name_of(step)} returned shape {np.shape(rows)} for rows of shape {shape}, but a density needs a "
            "bijection: use a transformer with as many columns after it as before it."
        )
    return rows


def _require_finite(rows, transformer, what):
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        raise ValueError(f"{name_of(transformer)} maps rows {bad[:_NAMED].tolist()}{more} {what}.")


def check_round_trip(transformer, X, names=None):
    """Raise a ValueError if inverse_transform does not map the rows of fit back to themselves."""
    back = backward(transformer, forward(transformer, X)[0])
    eps = np.finfo(np.float64).eps
    # Half of the digits of the range, plus the rounding error of a large offset.
    allowed = np.sqrt(eps) * np.ptp(X, axis=0) + 64 * eps * np.abs(X).max(axis=0)
    columns = np.flatnonzero((np.abs(back - X) > allowed).any(axis=0))
    if len(columns):
        told = told_columns(columns, names)
        raise ValueError(
            f"The inverse_transform of {name_of(transformer)} does not map the rows back to themselves in columns "
            f"{told} (largest error {np.abs(back - X).max():.2g}), but a density needs a bijection. Use "
            "another transformer, or scale the columns first (a Pipeline that begins with StandardScaler)."
        )


def told_columns(columns, names):
    """The names of some columns; their numbers where they have none."""
    return columns.tolist() if names is None else [names[j] for j in columns]


def name_of(transformer):
    """The name of the class of a transformer, for messages."""
    return type(transformer).__name__


def _log_abs_det_jacobian(step, rows):
    """The log |det| of the Jacobian of one step, of shape (n_samples,), or a number if it is the same at all rows."""
    if not hasattr(step, "log_abs_det_jacobian"):
        return _jacobian_rule(step)(step, np.asarray(rows))
    value = np.asarray(step.log_abs_det_jacobian(rows), dtype=np.float64)
    if value.shape != (len(rows),):
        raise ValueError(
            f"{name_of(step)}.log_abs_det_jacobian returned shape {value.shape} for {len(rows)} rows, but expected "
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


def reason_against_any(step):
    """Why a step is of no use whatever it learns; None if it may be of use."""
    if hasattr(step, "inverse_transform"):
        return None
    return f"it has no inverse_transform, which samples need. Use StandardScaler, or {_OWN_MAP}"


def reason_against(step, names=None):
    """Why a fitted step is not a bijection onto the whole space, and what to do; None if it is one."""
    if reason_against_any(step):
        return reason_against_any(step)
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
        return _reason_against_power(step, names)
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


def _reason_against_power(step, names):
    if step.method == "box-cox":
        bounded, onto = step.lambdas_ != 0, "is not 0"
    else:
        bounded, onto = (step.lambdas_ < 0) | (step.lambdas_ > 2), "is outside of [0, 2]"
    if not bounded.any():
        return None
    found = ", ".join(f"{value:.3g}" for value in step.lambdas_[bounded][:_NAMED])
    columns = told_columns(np.flatnonzero(bounded), names)
    return (
        f"its lambda {onto} in columns {columns} ({found}), so its image is bounded and "
        f"samples of the estimator may have no preimage. Use RobustScaler, or {_OWN_MAP} (the logarithm for positive "
        "columns, for example)"
    )
