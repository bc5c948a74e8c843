"""The invertible maps between data units and the scaled units in which an interpolant lives."""

import numpy as np
from sklearn.covariance import ledoit_wolf

from .._utils.names import registered
from ..distributed import SHARED_ROWS, strided
from ._splines import MonotoneSpline, fit_spline

__all__ = ["AFFINE", "MAPS", "MARGINAL", "AffineMap", "MarginalMap", "fit_one_sample_map", "fit_two_sample_maps"]

AFFINE = ("standardize", "whiten")
MARGINAL = ("marginal", "marginal-whiten")
MAPS = AFFINE + MARGINAL

# A standard deviation below this fraction of the column's size is rounding, not spread.
_CONSTANT = 1e-12
# Eigenvalue of a correlation matrix below which columns are functions of each other.
_COLLINEAR = 1e-12
# Spreads of a column whose squares, and what they are multiplied with, are numbers in double precision.
_SPREADS = 1e-140, 1e140


@registered("preprocessing.AffineMap")
class AffineMap:
    """x = centre + D x', between data units x and scaled units x'.

    Parameters
    ----------
    centre : ndarray of shape (n_features,)
        The point that becomes 0.
    scale : ndarray of shape (n_features,) or (n_features, n_features)
        D: a diagonal, or a full matrix.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si.preprocessing import AffineMap
    >>> m = AffineMap(np.array([1.0, 2.0]), np.array([2.0, 4.0]))
    >>> m.transform(np.array([[3.0, 2.0]]))
    array([[1., 0.]])
    >>> round(m.log_abs_det, 4)
    2.0794
    """

    def __init__(self, centre: np.ndarray, scale: np.ndarray) -> None:
        self.centre, self.scale = centre, scale
        if scale.ndim == 1:
            self.inverse_scale = 1 / scale
            self.log_abs_det = float(np.log(np.abs(scale)).sum())
        else:
            self.inverse_scale = np.linalg.inv(scale)
            self.log_abs_det = float(np.linalg.slogdet(scale)[1])

    def __repr__(self) -> str:
        kind = "a scale a column" if self.scale.ndim == 1 else "a full matrix"
        return f"AffineMap({self.n_features} columns, {kind}, log |det D| = {self.log_abs_det:.4g})"

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return len(self.centre)

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Rows in scaled units, in float64."""
        return self._apply(np.asarray(X, dtype=np.float64) - self.centre, self.inverse_scale)

    def inverse_transform(self, X: np.ndarray) -> np.ndarray:
        """Rows in data units, in float64."""
        return self._apply(np.asarray(X, dtype=np.float64), self.scale) + self.centre

    def without_centre(self) -> "AffineMap":
        """The map x = D x'."""
        return AffineMap(np.zeros_like(self.centre), self.scale)

    def pull_back(self, gradient: np.ndarray) -> np.ndarray:
        """Gradients in data units from gradients in scaled units: D^-T g'."""
        return gradient * self.inverse_scale if self.scale.ndim == 1 else gradient @ self.inverse_scale

    def pull_back_score(self, score: np.ndarray, X: np.ndarray) -> np.ndarray:
        """The gradient in data units of a log-density, from that in scaled units."""
        return self.pull_back(score)

    def push_forward(self, gradient: np.ndarray) -> np.ndarray:
        """Gradients in scaled units from gradients in data units: D^T g."""
        return gradient * self.scale if self.scale.ndim == 1 else gradient @ self.scale

    def log_abs_det_jacobian(self, X: np.ndarray) -> np.ndarray:
        """The log |det dx'/dx| at each row, in data units."""
        return np.full(len(X), -self.log_abs_det)

    @staticmethod
    def _apply(X: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return X * scale if scale.ndim == 1 else X @ scale.T


@registered("preprocessing.MarginalMap")
class MarginalMap:
    """x' = A^-1 g(x): a smooth monotone map of each column to a normal law, then an affine map.

    log |det dx'/dx| = sum_j log g_j'(x_j) - log |det A|

    Parameters
    ----------
    columns : list of MonotoneSpline
        g, one a column.
    affine : AffineMap
        From the normal columns to the scaled units.
    """

    def __init__(self, columns: list[MonotoneSpline], affine: AffineMap) -> None:
        self.columns, self.affine = columns, affine

    def __repr__(self) -> str:
        curved = sum(not g.is_line for g in self.columns)
        return f"MarginalMap({self.n_features} columns, {curved} of them curved, then {self.affine})"

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return len(self.columns)

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Rows in scaled units, in float64."""
        return self.affine.transform(self._forward(X)[0])

    def inverse_transform(self, X: np.ndarray) -> np.ndarray:
        """Rows in data units, in float64."""
        Z = self.affine.inverse_transform(X)
        return np.column_stack([g.inverse(z) for g, z in zip(self.columns, Z.T, strict=True)])

    def log_abs_det_jacobian(self, X: np.ndarray) -> np.ndarray:
        """The log |det dx'/dx| at each row, in data units."""
        return self._forward(X)[1].sum(1) - self.affine.log_abs_det

    def pull_back_score(self, score: np.ndarray, X: np.ndarray) -> np.ndarray:
        """The gradient in data units of a log-density, at rows in data units, from that in scaled units."""
        X = np.asarray(X, dtype=np.float64)
        with np.errstate(over="ignore"):  # far out it is no number, which is an error where it is used
            slopes = np.exp(self._forward(X)[1])
            curvatures = [g.curvature(x) for g, x in zip(self.columns, X.T, strict=True)]
        return self.affine.pull_back(score) * slopes + np.column_stack(curvatures)

    def _forward(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        X = np.asarray(X, dtype=np.float64)
        pairs = [g.forward(x) for g, x in zip(self.columns, X.T, strict=True)]
        z, log_slopes = (np.column_stack(parts) for parts in zip(*pairs, strict=True))
        return z, log_slopes


def constant_columns(X: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Numbers of the columns whose spread is nil up to rounding."""
    return np.flatnonzero(scale <= _CONSTANT * np.abs(X).max(axis=0, initial=0.0))


def _centre_and_scale(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Shift first: the mean of a column with a large offset is rounded.
    shift = X[0]
    centred = X - shift
    return shift + centred.mean(axis=0), centred.std(axis=0)


def check_range(X: np.ndarray, name: str) -> None:
    """Raise if the spread of a column is so large, or so small, that its square is no number."""
    with np.errstate(over="ignore"):
        spread = np.ptp(np.asarray(X[strided(len(X), SHARED_ROWS)], dtype=np.float64), axis=0)
    least, most = _SPREADS
    bad = np.flatnonzero((spread > 0) & ~((least < spread) & (spread < most)))
    if len(bad):
        raise ValueError(
            f"Columns {bad.tolist()} of {name} spread over {spread[bad[0]]:.3g}, whose square is beyond the range of "
            f"floating-point numbers (bounds here: {least:g} and {most:g}): divide them by a constant."
        )


def check_has_density(
    X: np.ndarray, name: str = "X", way_out: str = "drop them (VarianceThreshold) or add noise of a known size"
) -> None:
    """Raise if rows lie on a subspace: constant or linearly dependent columns have no density."""
    some = np.asarray(X[strided(len(X), SHARED_ROWS)], dtype=np.float64)
    centre, scale = _centre_and_scale(some)
    flat = constant_columns(some, scale)
    if len(flat) and len(some) < len(X):  # what repeats itself in some rows may not in all
        some = np.asarray(X, dtype=np.float64)
        centre, scale = _centre_and_scale(some)
        flat = constant_columns(some, scale)
    if len(flat):
        raise ValueError(
            f"Columns {flat.tolist()} of {name} are constant, so {name} has no density in {X.shape[1]} dimensions: "
            f"{way_out}."
        )
    if len(some) <= X.shape[1]:
        return  # n rows always lie on a subspace of n dimensions: it says nothing of their law
    scaled = (some - centre) / scale
    involved = _dependent_columns(scaled)
    # beside one row that is far out in several columns, all others lie on a line
    near = np.argsort(np.abs(scaled).max(1), kind="stable")[: len(scaled) - max(1, len(scaled) // 100)]
    if len(involved) and len(_dependent_columns(scaled[near])):
        raise ValueError(
            f"Columns {involved.tolist()} of {name} are linearly dependent (or duplicates), so {name} has no density "
            f"in {X.shape[1]} dimensions: {way_out}."
        )


def _dependent_columns(scaled: np.ndarray) -> np.ndarray:
    """The columns of the direction in which rows do not vary, if there is one."""
    n_features = scaled.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):  # of columns that are constant in some of the rows
        correlation = np.nan_to_num(np.corrcoef(scaled, rowvar=False).reshape(n_features, -1))
    values, vectors = np.linalg.eigh(correlation)
    return np.flatnonzero(np.abs(vectors[:, 0]) > 0.1) if values[0] < _COLLINEAR else np.empty(0, dtype=int)


def _identity(n_features: int) -> AffineMap:
    return AffineMap(np.zeros(n_features), np.ones(n_features))


def _whitening(X: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> AffineMap:
    # Shrinkage keeps the map regular where rows are few; it fades as they grow.
    covariance, _ = ledoit_wolf((X - centre) / scale, assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    # Two rows look alike to the estimate of the shrinkage, which is then nil: the floor keeps D invertible.
    values = np.maximum(values, _COLLINEAR * values[-1])
    return AffineMap(centre, scale[:, None] * vectors * np.sqrt(values))


def _affine_map(X: np.ndarray, kind: str) -> AffineMap:
    centre, scale = _centre_and_scale(X)
    return AffineMap(centre, scale) if kind == "standardize" else _whitening(X, centre, scale)


def fit_one_sample_map(X: np.ndarray, kind: str | None) -> AffineMap | MarginalMap:
    """The map of a density: "standardize", "whiten" (principal axes, unit variances), or None.

    "marginal" carries each column to a normal law by a smooth monotone map; "marginal-whiten" then whitens.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The sample.
    kind : {"standardize", "whiten", "marginal", "marginal-whiten", None}
        Which map.
    """
    if kind is None:
        return _identity(X.shape[1])
    X = np.asarray(X, dtype=np.float64)
    if kind in MARGINAL:
        columns = [fit_spline(x) for x in X.T]
        after = AFFINE[MARGINAL.index(kind)]
        if all(g.is_line for g in columns):
            return _affine_map(X, after)
        Z = np.column_stack([g.forward(x)[0] for g, x in zip(columns, X.T, strict=True)])
        return MarginalMap(columns, _affine_map(Z, after))
    return _affine_map(X, kind)


def check_two_sample_kind(kind: str | None) -> None:
    """Refuse maps of the columns: the path of a bridge lives in data units, scaled."""
    if kind in MARGINAL:
        raise ValueError(
            f"Got preprocessing={kind!r} for two samples, whose path lives in scaled data units: use 'standardize' or "
            "'whiten', or map the columns of both samples before the fit (TransformedDensity)."
        )


def fit_two_sample_maps(
    X0: np.ndarray, X1: np.ndarray, kind: str | None, *, common_centre: bool = False
) -> tuple[AffineMap, AffineMap]:
    """The maps of a bridge: one scale a feature, pooled over both samples, each end centred.

    Parameters
    ----------
    X0, X1 : ndarray of shape (n_samples, n_features)
        The samples.
    kind : {"standardize", "whiten", None}
        Which maps. "whiten" takes the axes in which both covariances are diagonal and their mean is the identity: the
        field of two Gaussian ends with these covariances is then diagonal at all times.
    common_centre : bool, default=False
        One centre for both ends, as an interpolant that is not linear in space needs.

    Returns
    -------
    base_map, target_map : AffineMap
        With one common D.
    """
    if kind is None:
        return _identity(X0.shape[1]), _identity(X0.shape[1])
    check_two_sample_kind(kind)
    X0, X1 = np.asarray(X0, dtype=np.float64), np.asarray(X1, dtype=np.float64)
    (m0, s0), (m1, s1) = _centre_and_scale(X0), _centre_and_scale(X1)
    scale = np.sqrt((s0**2 + s1**2) / 2)
    size = np.maximum(np.abs(X0).max(axis=0), np.abs(X1).max(axis=0))
    scale = np.where(scale <= _CONSTANT * size, 1.0, scale)
    if kind == "whiten":
        scale = _common_axes((X0 - m0) / scale, (X1 - m1) / scale, scale)
    if common_centre:
        m0 = m1 = (m0 + m1) / 2
    return AffineMap(m0, scale), AffineMap(m1, scale)


def _common_axes(rows0: np.ndarray, rows1: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """D that whitens the mean of two covariances and makes both diagonal, times the scale of the columns."""
    # each end weighs the same, however many rows it has
    pooled = np.concatenate([rows0 / np.sqrt(len(rows0)), rows1 / np.sqrt(len(rows1))])
    pooled *= np.sqrt(len(pooled) / 2)
    whitening = _whitening(pooled, np.zeros_like(scale), np.ones_like(scale))
    _, rotation = np.linalg.eigh(np.cov(whitening.transform(rows0), rowvar=False).reshape(len(scale), -1))
    return scale[:, None] * (whitening.scale @ rotation)
