"""Repeated values: columns that have no density as they are, and the cells that give them one.

A variable V of discrete values v_1 < ... < v_K is dequantised by U, which is uniform within the cell of the value:
V + U has the density P(V = v_k) / width_k in cell k. Of a model q of it, Jensen's inequality gives

E_U log q(v_k + U) <= log (mass of cell k under q / width_k)

(Theis et al. 2016, arXiv 1511.01844, (5)).
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from .._utils.input_checks import column_position
from .._utils.names import registered
from ..distributed import SHARED_ROWS, strided

# Share of the rows with the same value above which a column is taken to have no density.
_REPEATED_SHARE = 0.05
# Number of distinct values, as a share of the rows, below which a column is taken to have no density.
_DISTINCT_SHARE = 0.05
# Smallest number of rows of a repeated value: in a few rows, a pair of equal values is no pattern.
_REPEATED_ROWS = 5
# Two values are the same up to rounding if they differ by at most this number of floating-point spacings.
_ROUNDING = 8
# A number equals the value of its cell if it differs by at most this share of the width of the cell, beside rounding.
_SAME_VALUE = 1e-6
# Largest number of columns that a message names.
_NAMED = 5


@dataclasses.dataclass(frozen=True)
class RepeatedColumn:
    """The repeated values of a column.

    Parameters
    ----------
    position : int
        Number of the column.
    value : float
        Its most frequent value.
    share : float
        Share of the rows that have it.
    n_distinct : int
        Number of distinct values.
    """

    position: int
    value: float
    share: float
    n_distinct: int


def repeated_columns(X: np.ndarray) -> list[RepeatedColumn]:
    """The columns in which one value has more than 5 % of the rows, or distinct values are fewer than 5 % of them."""
    some = X[strided(len(X), SHARED_ROWS)]
    found = []
    for position, column in enumerate(some.T):
        values, counts = np.unique(column, return_counts=True)
        most, n = int(counts.max()), len(column)
        often = most > _REPEATED_SHARE * n or len(values) < _DISTINCT_SHARE * n
        if often and most >= _REPEATED_ROWS and len(values) > 1:
            found.append(RepeatedColumn(position, float(values[counts.argmax()]), most / n, len(values)))
    return found


def describe_repeats(repeats: Sequence[RepeatedColumn], names: Sequence) -> str:
    """The columns as text for a message, each with its repeated values."""
    told = [
        f"column {names[c.position]!r} ({c.share:.0%} of the rows are {c.value:g}, {c.n_distinct} distinct values)"
        for c in repeats[:_NAMED]
    ]
    more = len(repeats) - _NAMED
    return ", ".join(told) + (f" and {more} more" if more > 0 else "")


def chosen_columns(dequantize: str | Iterable | None, X: np.ndarray, names: Sequence) -> list[int]:
    """The positions of the columns that `dequantize` lists, or of those that repeat values ("auto").

    Raises
    ------
    ValueError
        When it is neither None, "auto" nor a list of the columns' names or positions, or when it lists a column of one
        value.
    """
    if dequantize is None:
        return []
    if isinstance(dequantize, str):
        if dequantize != "auto":
            raise ValueError(
                f"Got dequantize={dequantize!r}, but expected None, 'auto' or a list of columns, such as "
                f"[{dequantize!r}]."
            )
        return [column.position for column in repeated_columns(X)]
    chosen = sorted({column_position(column, names, "dequantize") for column in dequantize})
    for j in chosen:
        if np.ptp(X[:, j]) == 0:
            raise ValueError(
                f"dequantize names the column {names[j]!r}, which holds one value ({X[0, j]:g}): a cell ends halfway "
                "to the next value. Drop the column."
            )
    return chosen


@registered("preprocessing.ColumnGrid")
class ColumnGrid:
    """The values of a column and their cells, which end halfway between values; the outermost cells are symmetric.

    Parameters
    ----------
    values : ndarray of shape (n_values,)
        At least two, ascending.
    low, high : float, default=-inf and inf
        Bounds of the column, beyond which no cell reaches.
    is_circular : bool, default=False
        Whether both bounds are one point, across which the outermost cells meet.
    """

    # Lower bound and period of a circular column.
    circle: tuple[float, float] | None = None

    def __init__(
        self, values: np.ndarray, low: float = -np.inf, high: float = np.inf, is_circular: bool = False
    ) -> None:
        values = np.asarray(values, dtype=np.float64)
        between = values[:-1] + np.diff(values) / 2
        first, last = max(low, 2 * values[0] - between[0]), min(high, 2 * values[-1] - between[-1])
        if is_circular:
            self.circle = low, high - low
            last = (values[0] + values[-1] + high - low) / 2
            first = last - (high - low)
        self.values, self.edges = values, np.concatenate([[first], between, [last]])

    @classmethod
    def of(
        cls, column: np.ndarray, low: float = -np.inf, high: float = np.inf, is_circular: bool = False
    ) -> "ColumnGrid":
        """The grid of the values of a column within bounds; values that differ by rounding count as one."""
        values = np.unique(np.where(column == high, low, column) if is_circular else column)
        apart = np.diff(values) > _ROUNDING * np.spacing(np.abs(values[1:]))
        return cls(values[np.append(True, apart)], low, high, is_circular)

    @property
    def widths(self) -> np.ndarray:
        """The width of each cell."""
        return np.diff(self.edges)

    def cells(self, x: np.ndarray) -> np.ndarray:
        """The number of the cell that contains each value, or of the nearest cell."""
        return np.clip(np.searchsorted(self.edges, self._unrolled(x), side="right") - 1, 0, len(self.values) - 1)

    def _unrolled(self, x: np.ndarray) -> np.ndarray:
        """Numbers of a circular column within the period that begins with the first cell."""
        return x if self.circle is None else self.edges[0] + np.mod(x - self.edges[0], self.circle[1])

    def scatter(self, x: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Points within the cells: the lower edge plus a share `uniform` of the width."""
        cells = self.cells(x)
        return self.edges[cells] + uniform * self.widths[cells]

    def snap(self, x: np.ndarray) -> np.ndarray:
        """The value whose cell contains each number."""
        return self.values[self.cells(x)]

    def centre(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The centres of the cells of values of the grid, other values as they are, and which ones these are."""
        cells = self.cells(x)
        values, widths = self.values[cells], self.widths[cells]
        rounding = np.spacing(np.abs(values).astype(x.dtype)).astype(np.float64)
        off = np.abs(self._unrolled(x) - values) > _SAME_VALUE * widths + _ROUNDING * rounding
        centre = self.edges[cells] + widths / 2
        if self.circle is not None:
            centre = self.circle[0] + np.mod(centre - self.circle[0], self.circle[1])
        return np.where(off, x, centre), off


@registered("preprocessing.Grid")
class Grid:
    """The cells of the columns that repeat values; the other columns are left as they are.

    Parameters
    ----------
    columns : dict
        Number of the column to its `ColumnGrid`.
    """

    def __init__(self, columns: dict[int, ColumnGrid]) -> None:
        self.columns = columns

    def __repr__(self) -> str:
        return f"Grid({ {j: len(grid.values) for j, grid in self.columns.items()} } values)"

    @classmethod
    def of(cls, X: np.ndarray, columns: Iterable[int]) -> "Grid":
        """The grids of the given columns of a sample."""
        return cls({int(j): ColumnGrid.of(X[:, j]) for j in columns})

    def scatter(self, X: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Dequantized rows, with a uniform draw within the cell of each value, in the dtype of the rows."""
        return self._mapped(X, lambda grid, x: grid.scatter(x, rng.random(len(x))))

    def snap(self, X: np.ndarray) -> np.ndarray:
        """Rows in which each number is replaced by the value of its cell; numbers that are not finite stay."""
        return self._mapped(X, lambda grid, x: np.where(np.isfinite(x), grid.snap(x), x))

    def centre(self, X: np.ndarray) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """Rows with values at the centres of their cells; by column, which rows hold a value of no cell, if any do."""
        off = {}

        def centred(grid: ColumnGrid, x: np.ndarray, j: int) -> np.ndarray:
            moved, elsewhere = grid.centre(x)
            if elsewhere.any():
                off[j] = elsewhere
            return moved

        X_centred = X.copy()
        for j, grid in self.columns.items():
            X_centred[:, j] = centred(grid, X[:, j], j)
        return X_centred, off

    def _mapped(self, X: np.ndarray, change: Callable) -> np.ndarray:
        X = X.copy()
        for j, grid in self.columns.items():
            X[:, j] = change(grid, X[:, j])
        return X
