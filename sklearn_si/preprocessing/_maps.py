"""The invertible maps between data units and the scaled units of an interpolant."""

from collections.abc import Sequence

import numpy as np
from sklearn.covariance import ledoit_wolf

from .._utils.names import registered
from .._utils.weights import effective_rows
from ..distributed import SHARED_ROWS, strided
from ._shrinkage import shrunk_eigenvalues
from ._splines import MonotoneSpline, fit_spline, identity_spline

__all__ = [
    "AFFINE",
    "MAPS",
    "MARGINAL",
    "TRIANGULAR",
    "WHITENING",
    "AffineMap",
    "MarginalMap",
    "fit_one_sample_map",
    "fit_two_sample_maps",
]

AFFINE = ("standardize", "whiten")
MARGINAL = ("marginal", "marginal-whiten")
TRIANGULAR = "triangular"
WHITENING = (AFFINE[1], MARGINAL[1])
MAPS = (*AFFINE, *MARGINAL, TRIANGULAR)

# A standard deviation below this fraction of the largest absolute value of a column is a rounding error.
_CONSTANT = 1e-12
# Eigenvalue of a correlation matrix below which columns are linearly dependent.
_COLLINEAR = 1e-12
# Columns from which on each eigenvalue of a covariance is shrunk by itself, and not all in one proportion: held-out
# log-likelihoods of the normal distribution of 1,800 rows of 1,000 columns with 20 factors were -703 and -913 nats (the
# truth: -685), of 1,000 rows of 100 columns -94.0 and -94.6 (-92.5), and of 500 rows of 30 columns as high.
_MANY_COLUMNS = 50
# Columns over rows between which and its inverse the least eigenvalues tell nothing: fewer rows are taken then.
_NEAR_ONE = 0.75
# Spreads of a column whose squares, and what they are multiplied with, are numbers in double precision.
_SPREADS = 1e-140, 1e140


@registered("preprocessing.AffineMap")
class AffineMap:
    """An affine map between data units x and scaled units x'.

    x = centre + D x',    log |det dx'/dx| = -log |det D|

    Parameters
    ----------
    centre : ndarray of shape (n_features,)
        The point that is mapped to 0, in data units.
    scale : ndarray of shape (n_features,) or (n_features, n_features)
        The diagonal of D, or the matrix D, in data units per scaled unit.

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
        """The gradients D^-T g' in data units, from gradients g' in scaled units."""
        return gradient * self.inverse_scale if self.scale.ndim == 1 else gradient @ self.inverse_scale

    def pull_back_score(self, score: np.ndarray, X: np.ndarray) -> np.ndarray:
        """The gradient of a log-density in data units, from that in scaled units."""
        return self.pull_back(score)

    def push_forward(self, gradient: np.ndarray) -> np.ndarray:
        """The gradients D^T g in scaled units, from gradients g in data units."""
        return gradient * self.scale if self.scale.ndim == 1 else gradient @ self.scale

    def log_abs_det_jacobian(self, X: np.ndarray) -> np.ndarray:
        """The value log |det dx'/dx| at each row, for rows in data units."""
        return np.full(len(X), -self.log_abs_det)

    def log_slopes(self, X: np.ndarray) -> np.ndarray:
        """The log-derivative of each column, of the shape of X, for rows in data units; of maps by column alone."""
        return np.broadcast_to(-np.log(self.scale), X.shape)

    def followed_by(self, centre: np.ndarray, matrix: np.ndarray) -> "AffineMap":
        """The map whose scaled units are y, with x' = centre + matrix y; of maps by column alone."""
        return AffineMap(self.centre + self.scale * centre, self.scale[:, None] * matrix)

    @staticmethod
    def _apply(X: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return X * scale if scale.ndim == 1 else X @ scale.T


@registered("preprocessing.MarginalMap")
class MarginalMap:
    """A smooth monotone map of each column to a normal distribution, followed by an affine map.

    x' = A^-1 g(x),    log |det dx'/dx| = sum_j log g_j'(x_j) - log |det A|

    Parameters
    ----------
    columns : list of MonotoneSpline
        The map g_j of each column.
    affine : AffineMap
        The map A between the normal columns and the scaled units.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si.preprocessing import fit_one_sample_map
    >>> X = np.random.default_rng(0).exponential(size=(500, 1))
    >>> Z = fit_one_sample_map(X, "marginal").transform(X)
    >>> bool(abs((Z**3).mean()) < 0.5)  # no longer skewed
    True
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
        """The value log |det dx'/dx| at each row, for rows in data units."""
        return self._forward(X)[1].sum(1) - self.affine.log_abs_det

    def log_slopes(self, X: np.ndarray) -> np.ndarray:
        """The log-derivative of each column, of the shape of X, for rows in data units; of maps by column alone."""
        return self._forward(X)[1] - np.log(self.affine.scale)

    def followed_by(self, centre: np.ndarray, matrix: np.ndarray) -> "MarginalMap":
        """The map whose scaled units are y, with x' = centre + matrix y; of maps by column alone."""
        return MarginalMap(self.columns, self.affine.followed_by(centre, matrix))

    def pull_back_score(self, score: np.ndarray, X: np.ndarray) -> np.ndarray:
        """The gradient of a log-density in data units at rows in data units, from that in scaled units."""
        X = np.asarray(X, dtype=np.float64)
        with np.errstate(over="ignore"):  # it overflows far out, which is an error where the gradient is used
            slopes = np.exp(self._forward(X)[1])
            curvatures = [g.curvature(x) for g, x in zip(self.columns, X.T, strict=True)]
        return self.affine.pull_back(score) * slopes + np.column_stack(curvatures)

    def _forward(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        X = np.asarray(X, dtype=np.float64)
        pairs = [g.forward(x) for g, x in zip(self.columns, X.T, strict=True)]
        z, log_slopes = (np.column_stack(parts) for parts in zip(*pairs, strict=True))
        return z, log_slopes


def constant_columns(X: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The positions of the columns that are constant up to rounding."""
    return np.flatnonzero(scale <= _CONSTANT * np.abs(X).max(axis=0, initial=0.0))


def _centre_and_scale(X: np.ndarray, weight: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    # The rows are shifted first, because the mean of a column with a large offset is rounded.
    shift = X[0]
    centred = X - shift
    if weight is not None:
        mean = np.average(centred, axis=0, weights=weight)
        return shift + mean, np.sqrt(np.average((centred - mean) ** 2, axis=0, weights=weight))
    return shift + centred.mean(axis=0), centred.std(axis=0)


def _named(columns: np.ndarray, names: Sequence | None) -> list:
    """The names of some columns; their numbers where there are no names."""
    return columns.tolist() if names is None else [names[j] for j in columns]


def check_range(X: np.ndarray, name: str, names: Sequence | None = None) -> None:
    """Raise a ValueError if the range of a column is so large or so small that its square is not representable."""
    with np.errstate(over="ignore"):
        spread = np.ptp(np.asarray(X[strided(len(X), SHARED_ROWS)], dtype=np.float64), axis=0)
    least, most = _SPREADS
    bad = np.flatnonzero((spread > 0) & ~((least < spread) & (spread < most)))
    if len(bad):
        raise ValueError(
            f"Columns {_named(bad, names)} of {name} have a range of {spread[bad[0]]:.3g}, whose square is beyond the "
            f"range of floating-point numbers, but expected between {least:g} and {most:g}: divide them by a constant."
        )


def check_has_density(
    X: np.ndarray,
    name: str = "X",
    way_out: str = "drop them (VarianceThreshold) or add noise of a known size",
    names: Sequence | None = None,
) -> None:
    """Raise a ValueError if columns are constant or linearly dependent, so that the rows have no density."""
    some = np.asarray(X[strided(len(X), SHARED_ROWS)], dtype=np.float64)
    centre, scale = _centre_and_scale(some)
    flat = constant_columns(some, scale)
    if len(flat) and len(some) < len(X):  # a column may be constant in some rows and not in all
        some = np.asarray(X, dtype=np.float64)
        centre, scale = _centre_and_scale(some)
        flat = constant_columns(some, scale)
    if len(flat):
        raise ValueError(
            f"Columns {_named(flat, names)} of {name} are constant, so {name} has no density in {X.shape[1]} "
            f"dimensions: {way_out}."
        )
    if len(some) <= X.shape[1]:
        return  # n rows always lie on a subspace of n dimensions, whatever their distribution
    scaled = (some - centre) / scale
    involved = _dependent_columns(scaled)
    # One row that is far out in several columns makes all others seem linearly dependent.
    near = np.argsort(np.abs(scaled).max(1), kind="stable")[: len(scaled) - max(1, len(scaled) // 100)]
    if len(involved) and len(_dependent_columns(scaled[near])):
        raise ValueError(
            f"Columns {_named(involved, names)} of {name} are linearly dependent (or duplicates), so {name} has no "
            f"density in {X.shape[1]} dimensions: {way_out}."
        )


def _dependent_columns(scaled: np.ndarray) -> np.ndarray:
    """The columns of a direction in which the rows do not vary, if there is one."""
    n_features = scaled.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):  # columns that are constant in some of the rows
        correlation = np.nan_to_num(np.corrcoef(scaled, rowvar=False).reshape(n_features, -1))
    values, vectors = np.linalg.eigh(correlation)
    return np.flatnonzero(np.abs(vectors[:, 0]) > 0.1) if values[0] < _COLLINEAR else np.empty(0, dtype=int)


def _identity(n_features: int) -> AffineMap:
    return AffineMap(np.zeros(n_features), np.ones(n_features))


def _whitening(X: np.ndarray, centre: np.ndarray, scale: np.ndarray, weight: np.ndarray | None = None) -> AffineMap:
    rows = _times_root((X - centre) / scale, weight)
    values, vectors = _shrunk_axes(rows, effective_rows(len(rows), weight))
    # The estimated shrinkage is 0 for two rows: the floor keeps D invertible.
    values = np.maximum(values, _COLLINEAR * values[-1])
    return AffineMap(centre, scale[:, None] * vectors * np.sqrt(values))


def _shrunk_axes(rows: np.ndarray, n_effective: float) -> tuple[np.ndarray, np.ndarray]:
    """Variances and axes of centred rows; shrinkage keeps them regular for few rows, and falls as these grow more."""
    n, d = rows.shape
    if d >= _MANY_COLUMNS and (n_effective > n - 1 or n_effective > d / _NEAR_ONE):
        if _NEAR_ONE < d / n_effective < 1 / _NEAR_ONE:
            rows, n_effective = rows[: int(_NEAR_ONE * d)], int(_NEAR_ONE * d)
        values, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
        # one row is spent on the mean
        shrunk = shrunk_eigenvalues(values, n_effective - 1)
        if shrunk is not None:
            return shrunk, vectors
    covariance, _ = ledoit_wolf(rows, assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    return values, vectors


def fit_axes(rows: np.ndarray) -> np.ndarray:
    """The D that whitens centred rows of columns in like units."""
    zero = np.zeros(rows.shape[1])
    return _whitening(rows, zero, zero + 1.0).scale


def _affine_map(X: np.ndarray, kind: str, weight: np.ndarray | None = None) -> AffineMap:
    centre, scale = _centre_and_scale(X, weight)
    return AffineMap(centre, scale) if kind == "standardize" else _whitening(X, centre, scale, weight)


def fit_one_sample_map(
    X: np.ndarray, kind: str | None, weight: np.ndarray | None = None, circular: Sequence[int] = ()
) -> AffineMap | MarginalMap:
    """Fit the map between data units and scaled units for the density of one sample.

    x = centre + D x' (affine maps),    x' = A^-1 g(x) (marginal maps; see `MarginalMap`)

    "standardize" divides each column by its standard deviation, and "whiten" maps the principal axes to unit variances.
    "marginal" maps each column to a normal distribution by a smooth monotone function and then standardizes;
    "marginal-whiten" does so and then whitens.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The sample, in data units.
    kind : {"standardize", "whiten", "marginal", "marginal-whiten", None}
        The kind of map; None is the identity.
    weight : ndarray of shape (n_samples,), default=None
        Weights of the rows.
    circular : sequence of int, default=()
        Positions of columns that are angles, which stay as they are.

    Returns
    -------
    map : AffineMap or MarginalMap

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si.preprocessing import fit_one_sample_map
    >>> fit_one_sample_map(np.array([[0.0], [4.0]]), "standardize").transform(np.array([[6.0]]))
    array([[2.]])
    """
    if kind is None:
        return _identity(X.shape[1])
    X = np.asarray(X, dtype=np.float64)
    if len(circular):
        return _around_circles(X, kind, weight, circular)
    if kind in MARGINAL:
        columns = [fit_spline(x, weight) for x in X.T]
        after = AFFINE[MARGINAL.index(kind)]
        if all(g.is_line for g in columns):
            return _affine_map(X, after, weight)
        Z = np.column_stack([g.forward(x)[0] for g, x in zip(columns, X.T, strict=True)])
        return MarginalMap(columns, _affine_map(Z, after, weight))
    return _affine_map(X, kind, weight)


def _around_circles(
    X: np.ndarray, kind: str, weight: np.ndarray | None, circular: Sequence[int]
) -> AffineMap | MarginalMap:
    """The map of the columns that are no angles, which leaves the angles as they are."""
    lines = np.setdiff1d(np.arange(X.shape[1]), circular)
    centre, scale = np.zeros(X.shape[1]), np.ones(X.shape[1])
    found = fit_one_sample_map(X[:, lines], kind, weight) if len(lines) else _identity(0)
    affine = found.affine if isinstance(found, MarginalMap) else found
    centre[lines], scale[lines] = affine.centre, affine.scale
    if isinstance(found, AffineMap):
        return AffineMap(centre, scale)
    columns = dict(zip(lines.tolist(), found.columns, strict=True))
    return MarginalMap([columns.get(j, identity_spline()) for j in range(X.shape[1])], AffineMap(centre, scale))


def check_two_sample_kind(kind: str | None) -> None:
    """Raise a ValueError for the maps that are not affine, which bridges do not support."""
    if kind in MARGINAL or kind == TRIANGULAR:
        raise ValueError(
            f"Got preprocessing={kind!r} for two samples, but expected an affine map: use 'standardize' or 'whiten', "
            "or transform the columns of both samples before the fit (TransformedDensity)."
        )


def fit_two_sample_maps(
    X0: np.ndarray,
    X1: np.ndarray,
    kind: str | None,
    *,
    common_centre: bool = False,
    weights: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
) -> tuple[AffineMap, AffineMap]:
    """Fit the maps between data units and scaled units for a bridge between two samples.

    x0 = centre0 + D x0',    x1 = centre1 + D x1'    with D^2 = (var(X0) + var(X1)) / 2 for "standardize"

    Both samples are centred, and have the scale D in common, so that squared distances in scaled units compare.

    Parameters
    ----------
    X0, X1 : ndarray of shape (n_samples, n_features)
        The samples, in data units.
    kind : {"standardize", "whiten", None}
        The kind of maps; None is the identity. "whiten" uses the axes in which both covariances are diagonal and their
        mean is the identity. The field between two Gaussian distributions with these covariances is then diagonal at
        all times.
    common_centre : bool, default=False
        Whether both samples have the same centre, as an interpolant that is not linear in space needs.
    weights : tuple of (ndarray or None), default=(None, None)
        Weights of the rows of X0 and of X1.

    Returns
    -------
    base_map, target_map : AffineMap
        The maps of both samples, with the same D.

    Raises
    ------
    ValueError
        When the kind is a marginal map.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si.preprocessing import fit_two_sample_maps
    >>> base_map, target_map = fit_two_sample_maps(np.array([[0.0], [2.0]]), np.array([[5.0], [7.0]]), "standardize")
    >>> base_map.transform(np.array([[2.0]])), target_map.transform(np.array([[7.0]]))
    (array([[1.]]), array([[1.]]))
    """
    if kind is None:
        return _identity(X0.shape[1]), _identity(X0.shape[1])
    check_two_sample_kind(kind)
    X0, X1 = np.asarray(X0, dtype=np.float64), np.asarray(X1, dtype=np.float64)
    (m0, s0), (m1, s1) = _centre_and_scale(X0, weights[0]), _centre_and_scale(X1, weights[1])
    scale = np.sqrt((s0**2 + s1**2) / 2)
    size = np.maximum(np.abs(X0).max(axis=0), np.abs(X1).max(axis=0))
    scale = np.where(scale <= _CONSTANT * size, 1.0, scale)
    if kind == "whiten":
        rows0, rows1 = (_times_root((X - m) / scale, w) for X, m, w in ((X0, m0, weights[0]), (X1, m1, weights[1])))
        scale = _common_axes(rows0, rows1, scale, any(w is not None for w in weights))
    if common_centre:
        m0 = m1 = (m0 + m1) / 2
    return AffineMap(m0, scale), AffineMap(m1, scale)


def _times_root(rows: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """Centred rows whose second moments are the weighted ones of those given."""
    return rows if weight is None else rows * np.sqrt(weight / weight.mean())[:, None]


def _common_axes(rows0: np.ndarray, rows1: np.ndarray, scale: np.ndarray, is_weighted: bool) -> np.ndarray:
    """The D that whitens the mean of two covariances and makes both diagonal, times the scale of the columns."""
    # Both samples have the same weight, whatever their numbers of rows.
    pooled = np.concatenate([rows0 / np.sqrt(len(rows0)), rows1 / np.sqrt(len(rows1))])
    pooled *= np.sqrt(len(pooled) / 2)
    whitening = _whitening(pooled, np.zeros_like(scale), np.ones_like(scale))
    white = whitening.transform(rows0)
    # rows times roots of weights have the weighted moments about 0, not about their mean
    covariance = white.T @ white / len(white) if is_weighted else np.cov(white, rowvar=False).reshape(len(scale), -1)
    _, rotation = np.linalg.eigh(covariance)
    return scale[:, None] * (whitening.scale @ rotation)
