"""Where columns live: smooth maps of positive and of bounded columns to the real line, with their Jacobians."""

import dataclasses
import numbers
import warnings
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from .._utils.callers import users_level
from .._utils.names import registered
from .._utils.row_numbers import number_of_row
from ._grids import column_position

# What a column may be declared to be, for messages.
_EXPECTED = (
    "'real', 'positive', a pair (low, high) of numbers with low < high, of which one may be None, or "
    "('circular', low, high)"
)
# log sqrt(2 pi)
_LOG_NORMALIZER = 0.5 * np.log(2 * np.pi)
# Bounds of a positive column.
_POSITIVE = (0.0, np.inf)
_REAL = (-np.inf, np.inf)


@registered("preprocessing.Support")
class Support:
    """Maps of columns to the real line: the logarithm above a bound, the normal quantile between two.

    g(x) = log(x - low),    g(x) = -log(high - x),    g(x) = Phi^-1((x - low) / (high - low)),    g(x) = x

    for a column with a lower bound, with an upper one, with both, and with none. A uniform column becomes normal, and
    so does a lognormal one.

    Parameters
    ----------
    low, high : ndarray of shape (n_features,)
        Bounds in the units of the columns; infinite where there is none.
    circular : ndarray of bool of shape (n_features,), default=None
        Columns that are angles, whose two bounds are one point: g(x) = 2 pi (x - low) / (high - low) - pi. None is for
        no such column.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si.preprocessing import Support
    >>> support = Support(np.array([0.0, 0.0]), np.array([np.inf, 1.0]))
    >>> support.transform(np.array([[np.e, 0.975]])).round(2)
    array([[1.  , 1.96]])
    """

    def __init__(self, low: np.ndarray, high: np.ndarray, circular: np.ndarray | None = None) -> None:
        self.low, self.high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
        self.circular = np.zeros(len(self.low), dtype=bool) if circular is None else np.asarray(circular, dtype=bool)

    def __repr__(self) -> str:
        bounded = np.flatnonzero(np.isfinite(self.low) | np.isfinite(self.high))
        what = [" circular" if self.circular[j] else "" for j in bounded]
        told = ", ".join(
            f"{j}{word} in ({self.low[j]:g}, {self.high[j]:g})" for j, word in zip(bounded, what, strict=True)
        )
        return f"Support({self.n_features} columns: {told})"

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return len(self.low)

    @property
    def bounded(self) -> np.ndarray:
        """The positions of the columns that have a bound."""
        return np.flatnonzero(np.isfinite(self.low) | np.isfinite(self.high))

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Rows on the line, in float64; those on a bound are infinite."""
        return self._by_column(X, lambda j, x: self._column(j).to_line(x))

    def inverse_transform(self, Y: np.ndarray) -> np.ndarray:
        """Rows in the units of the columns, in float64; far out they may be rounded to a bound (see `inside`)."""
        with np.errstate(over="ignore"):  # beyond the largest number, which is told of where the row is used
            return self._by_column(Y, lambda j, y: self._column(j).from_line(y))

    def log_slopes(self, X: np.ndarray) -> np.ndarray:
        """The value log g'(x) of each cell."""
        slopes = np.zeros(np.shape(X))
        for j in self.bounded:
            slopes[:, j] = self._column(j).log_slope(np.asarray(X[:, j], dtype=np.float64))
        return slopes

    def slopes(self, X: np.ndarray) -> np.ndarray:
        """The derivative g'(x) of each cell."""
        return np.exp(self.log_slopes(X))

    def curvatures(self, X: np.ndarray) -> np.ndarray:
        """The derivative of log g'(x) of each cell."""
        curvatures = np.zeros(np.shape(X))
        for j in self.bounded:
            curvatures[:, j] = self._column(j).curvature(np.asarray(X[:, j], dtype=np.float64))
        return curvatures

    def log_abs_det_jacobian(self, X: np.ndarray) -> np.ndarray:
        """The value log |det dg/dx| at each row."""
        return self.log_slopes(X).sum(1)

    def inside(self, X: np.ndarray, dtype: Any = np.float64) -> np.ndarray:
        """Rows that no rounding to a dtype puts on a bound or beyond: the nearest number of that dtype within."""
        if not len(self.bounded):
            return X
        X = np.array(X, dtype=np.float64)
        for j in self.bounded:
            if self.circular[j]:
                X[:, j] = self.low[j] + np.mod(X[:, j] - self.low[j], self.high[j] - self.low[j])
            low, high = _innermost(self.low[j], dtype, np.inf), _innermost(self.high[j], dtype, -np.inf)
            # what is not finite stays: such a row is drawn again
            X[:, j] = np.where(np.isfinite(X[:, j]), np.clip(X[:, j], low, high), X[:, j])
        return X

    def check(self, X: np.ndarray, name: str, names: Sequence, dequantized: Collection[int] = ()) -> None:
        """Raise a ValueError that names the column if a row is on a bound or outside.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
        name : str
            Of the rows, for the message.
        names : sequence
            Of the columns.
        dequantized : collection of int, default=()
            Columns that may have values on a bound, because noise moves them into the support.
        """
        for j in self.bounded:
            outside = self._outside(X, j, dequantized)
            if outside.any():
                x = np.asarray(X[:, j], dtype=np.float64)
                if self.circular[j]:
                    _refuse_turns(x, outside, names[j], name, (self.low[j], self.high[j]))
                _refuse(x, outside, names[j], name, (self.low[j], self.high[j]))

    def of_circles(self) -> "Support":
        """The support of the circular columns alone."""
        low, high = np.where(self.circular, [self.low, self.high], np.array(_REAL)[:, None])
        return Support(low, high, self.circular)

    def contains(self, X: np.ndarray, dequantized: Collection[int] = ()) -> np.ndarray:
        """Whether each cell lies within, as `check` asks of it; of the shape of X."""
        within = np.ones(np.shape(X), dtype=bool)
        for j in self.bounded:
            within[:, j] = ~self._outside(X, j, dequantized)
        return within

    def _outside(self, X: np.ndarray, j: int, dequantized: Collection[int]) -> np.ndarray:
        """Whether the cells of a column lie outside, or on a bound if that is not allowed."""
        low, high, x = self.low[j], self.high[j], np.asarray(X[:, j], dtype=np.float64)
        if self.circular[j] and X.dtype.kind == "f":  # a low precision may round an end outwards
            rounding = np.finfo(X.dtype).eps * max(abs(low), abs(high))
            low, high = low - rounding, high + rounding
        allowed = j in dequantized or self.circular[j]
        return (x < low) | (x > high) if allowed else (x <= low) | (x >= high)

    def _column(self, j: int) -> "_Interval | _Circle":
        return (_Circle if self.circular[j] else _Interval)(self.low[j], self.high[j])

    def _by_column(self, X: np.ndarray, change: Any) -> np.ndarray:
        moved = np.array(X, dtype=np.float64)
        for j in self.bounded:
            moved[:, j] = change(j, moved[:, j])
        return moved


def _refuse_turns(x: np.ndarray, outside: np.ndarray, column: Any, sample: str, ends: tuple[float, float]) -> None:
    """Raise the error about values of a circular column that are not within its period."""
    rows = np.flatnonzero(outside)
    raise ValueError(
        f"{len(rows)} of {len(x)} values in column {column!r} of {sample} are outside its period from {ends[0]:g} to "
        f"{ends[1]:g}, such as {x[rows[0]]:g} in row {number_of_row(rows[0], sample)}: take them modulo the period, or "
        "declare another one."
    )


def _refuse(x: np.ndarray, outside: np.ndarray, column: Any, sample: str, bounds: tuple[float, float]) -> None:
    """Raise the error about values of a column that are on a bound or beyond."""
    (low, high), rows = bounds, np.flatnonzero(outside)
    on_bound = bool(np.isin(x[rows], (low, high)).all())
    where = f"({low:g}, {high:g})"
    way_out = "leave these rows out, or declare a wider support"
    if on_bound:
        way_out = (
            "a value on a bound has no image on the line. If the column repeats values (counts, rounded numbers), add "
            "it to dequantize= of a flow, a diffusion or a regressor; else leave these rows out, or declare a wider "
            "support"
        )
    raise ValueError(
        f"{len(rows)} of {len(x)} values in column {column!r} of {sample} are "
        f"{'on a bound of' if on_bound else 'outside'} its support {where}, such as {x[rows[0]]:g} in row "
        f"{number_of_row(rows[0], sample)}: {way_out}."
    )


def possible_rows(
    support: Support, X: np.ndarray, name: str, names: Sequence, dequantized: Collection[int], consequence: str
) -> np.ndarray:
    """Which rows of a question can be: a warning counts those on a bound of the support or outside, and names one.

    Another turn of a circular column is the same point, and raises an error that says so.

    Parameters
    ----------
    support : Support
    X : ndarray of shape (n, d)
        Missing cells are possible.
    name, names, dequantized
        As in `Support.check`.
    consequence : str
        What follows for the others.
    """
    support.of_circles().check(X, name, names)
    within = support.contains(X, dequantized)
    possible = np.asarray(within.all(1))
    if not possible.all():
        i, j = np.argwhere(~within)[0]
        warnings.warn(
            f"{int((~possible).sum())} of {len(X)} rows of {name} lie on a bound of their support or outside, "
            f"such as {X[i, j]:g} of column {names[j]!r} in row {number_of_row(i, name)}: {consequence}.",
            UserWarning,
            stacklevel=users_level(),
        )
    return possible


def bounds_of(support: Support | None, j: int) -> tuple[float, float, bool]:
    """The bounds of a column, infinite where no support is declared, and whether they are one point."""
    return (*_REAL, False) if support is None else (support.low[j], support.high[j], bool(support.circular[j]))


def ends_within(support: Support | None, j: int) -> tuple[float, float]:
    """The least and the largest number within the bounds of a column; infinite ones where it has none."""
    low, high, _ = bounds_of(support, j)
    return _innermost(low, np.float64, np.inf), _innermost(high, np.float64, -np.inf)


def check_ends(support: Support, X0: np.ndarray, X1: np.ndarray | None, grids: Sequence, names: Sequence) -> None:
    """Raise a ValueError if a row of one sample, or of two, is on a bound and not dequantised, or outside."""
    given = [(X0, "X", grids[1])] if X1 is None else [(X0, "X0", grids[0]), (X1, "X1", grids[1])]
    for X, name, grid in given:
        support.check(X, name, names, () if grid is None else grid.columns)


def images(support: Support | None, *samples: np.ndarray | None) -> list:
    """Samples, or None, on the line, in their own dtype."""
    if support is None:
        return list(samples)
    return [None if X is None else support.transform(X).astype(X.dtype) for X in samples]


def read_support(support: object, names: Sequence) -> Support | None:
    """The support that the parameter of that name declares; None where all columns are real.

    Parameters
    ----------
    support : str, tuple or dict
        One declaration for all columns, or declarations by name or position.
    names : sequence
        Of the columns.

    Raises
    ------
    ValueError
        When a declaration is not one of "real", "positive" and (low, high), or names a column that there is not.
    """
    if isinstance(support, dict):
        bounds: list = [(*_REAL, False)] * len(names)
        positions = [column_position(column, names, "support") for column in support]
        if len(set(positions)) < len(positions):
            raise ValueError(
                f"support={support!r} names a column twice, by its name and by its position: once is enough."
            )
        for j, declared in zip(positions, support.values(), strict=True):
            bounds[j] = _bounds(declared, f"column {names[j]!r}")
    else:
        bounds = [_bounds(support, "all columns")] * len(names)
    low, high, circular = np.array(bounds, dtype=np.float64).T
    return Support(low, high, circular) if (np.isfinite(low) | np.isfinite(high)).any() else None


def _bounds(declared: object, what: str) -> tuple[float, float, bool]:
    """The bounds that one declaration says, and whether they are one point."""
    if isinstance(declared, str) and declared in ("real", "positive"):
        return (*(_REAL if declared == "real" else _POSITIVE), False)
    if isinstance(declared, (tuple, list)) and len(declared) == 3 and isinstance(declared[0], str):
        ends = [_end(value, np.inf) for value in declared[1:]]
        if declared[0] == "circular" and None not in ends and ends[0] < ends[1] and np.isfinite(ends[1] - ends[0]):
            return ends[0], ends[1], True
    if isinstance(declared, (tuple, list)) and len(declared) == 2:
        ends = [_end(value, default) for value, default in zip(declared, _REAL, strict=True)]
        if None not in ends and ends[0] < ends[1] and (np.isfinite(ends[1] - ends[0]) or np.isinf(ends).any()):
            return ends[0], ends[1], False
    raise ValueError(f"Got support={declared!r} for {what}, but expected {_EXPECTED}.")


def _end(value: object, default: float) -> Any:
    """A bound as a number; None is no bound, and what is no number gives None."""
    if value is None:
        return default
    known = isinstance(value, (numbers.Real, np.number)) and not isinstance(value, (bool, np.bool_))
    return float(value) if known and not np.isnan(value) else None  # type: ignore[arg-type, call-overload]


def _innermost(bound: float, dtype: Any, inwards: float) -> float:
    """The number of a dtype that is nearest to a bound, on the inner side of it; an infinite bound as it is."""
    if not np.isfinite(bound):
        return bound
    with np.errstate(over="ignore"):
        nearest = np.dtype(dtype).type(bound)
    is_inside = float(nearest) > bound if inwards > 0 else float(nearest) < bound
    return float(nearest if is_inside else np.nextafter(nearest, np.dtype(dtype).type(inwards)))


@dataclasses.dataclass(frozen=True)
class _Interval:
    """A column with a lower bound, an upper one, or both."""

    low: float
    high: float

    def to_line(self, x: np.ndarray) -> np.ndarray:
        """Values of the column on the line; a bound is infinite."""
        with np.errstate(divide="ignore"):  # a bound itself: an infinite number
            if np.isinf(self.high):
                return np.log(x - self.low)
            if np.isinf(self.low):
                return -np.log(self.high - x)
            # by the nearer end, which loses no digits
            below, above = (x - self.low) / (self.high - self.low), (self.high - x) / (self.high - self.low)
            return np.where(below < 0.5, ndtri(below), -ndtri(above))

    def from_line(self, y: np.ndarray) -> np.ndarray:
        """Values in the units of the column."""
        if np.isinf(self.high):
            return self.low + np.exp(y)
        if np.isinf(self.low):
            return self.high - np.exp(-y)
        width = self.high - self.low
        return np.where(y < 0, self.low + width * ndtr(y), self.high - width * ndtr(-y))

    def log_slope(self, x: np.ndarray) -> np.ndarray:
        """The logarithm of g'(x)."""
        y = self.to_line(x)
        if np.isinf(self.high):
            return -y
        return y if np.isinf(self.low) else 0.5 * y**2 + _LOG_NORMALIZER - np.log(self.high - self.low)

    def curvature(self, x: np.ndarray) -> np.ndarray:
        """The derivative of log g'(x)."""
        if np.isinf(self.high):
            return -1 / (x - self.low)
        return 1 / (self.high - x) if np.isinf(self.low) else self.to_line(x) * np.exp(self.log_slope(x))


@dataclasses.dataclass(frozen=True)
class _Circle:
    """A column of angles, in radians from -pi to pi."""

    low: float
    high: float

    def to_line(self, x: np.ndarray) -> np.ndarray:
        """The angles of values, from -pi to pi."""
        return 2 * np.pi * np.mod((x - self.low) / (self.high - self.low), 1.0) - np.pi

    def from_line(self, y: np.ndarray) -> np.ndarray:
        """Values in the units of the column."""
        return self.low + (self.high - self.low) * np.mod(y / (2 * np.pi) + 0.5, 1.0)

    def log_slope(self, x: np.ndarray) -> np.ndarray:
        """The logarithm of g'(x)."""
        return np.full(x.shape, np.log(2 * np.pi / (self.high - self.low)))

    def curvature(self, x: np.ndarray) -> np.ndarray:
        """The derivative of log g'(x)."""
        return np.zeros(x.shape)


@registered("preprocessing.SupportedMap")
class SupportedMap:
    """The map of a support to the line, followed by a map between the line and scaled units.

    x' = h(g(x)),    log |det dx'/dx| = sum_j log g_j'(x_j) + log |det dh/dg|

    Parameters
    ----------
    support : Support
        The map g of each column.
    line_map : AffineMap or MarginalMap
        The map h.
    """

    def __init__(self, support: Support, line_map: Any) -> None:
        self.support, self.line_map = support, line_map

    def __repr__(self) -> str:
        return f"SupportedMap({self.support}, then {self.line_map})"

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return self.support.n_features

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Rows in scaled units, in float64."""
        return self.line_map.transform(self.support.transform(X))

    def inverse_transform(self, X: np.ndarray) -> np.ndarray:
        """Rows in data units, in float64, within the support."""
        return self.support.inside(self.support.inverse_transform(self.line_map.inverse_transform(X)))

    def log_abs_det_jacobian(self, X: np.ndarray) -> np.ndarray:
        """The value log |det dx'/dx| at each row, for rows in data units."""
        return self.support.log_abs_det_jacobian(X) + self.line_map.log_abs_det_jacobian(self.support.transform(X))

    def log_slopes(self, X: np.ndarray) -> np.ndarray:
        """The log-derivative of each column, for rows in data units; of line maps by column alone."""
        return self.support.log_slopes(X) + self.line_map.log_slopes(self.support.transform(X))

    def pull_back_score(self, score: np.ndarray, X: np.ndarray) -> np.ndarray:
        """The gradient of a log-density in data units at rows in data units, from that in scaled units."""
        on_line = self.line_map.pull_back_score(score, self.support.transform(X))
        return on_line * self.support.slopes(X) + self.support.curvatures(X)


def same_support(a: Support | None, b: Support | None) -> bool:
    """Whether two supports, of which either may be None, have the same bounds."""
    if a is None or b is None:
        return a is b
    pairs = (a.low, b.low), (a.high, b.high), (a.circular, b.circular)
    return all(np.array_equal(own, other) for own, other in pairs)


def circles_of(support: Support | None) -> tuple[int, ...]:
    """The positions of the circular columns."""
    return () if support is None else tuple(np.flatnonzero(support.circular).tolist())


def refuse_circles(support: Support | None, who: str) -> None:
    """Raise where a support has circular columns, which some estimators have no use for."""
    if circles_of(support):
        raise ValueError(
            f"support declares circular columns, but not for {who}: use InterpolantFlow().fit(X), or give the sine and "
            "cosine of the angles as columns."
        )


def supported(support: Support | None, line_map: Any) -> Any:
    """A map of the line after that of a support, where there is one."""
    return line_map if support is None or line_map is None else SupportedMap(support, line_map)


def support_of(scaling: Any) -> Support | None:
    """The support that a map begins with, if any."""
    return scaling.support if isinstance(scaling, SupportedMap) else None


def on_line(scaling: Any) -> Any:
    """The map between the line and scaled units: what follows the map of a support."""
    return scaling.line_map if isinstance(scaling, SupportedMap) else scaling
