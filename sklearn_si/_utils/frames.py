"""Frames and arrays as columns that are found by their names, and frames and arrays that are built from columns."""

import importlib
import warnings

import numpy as np
from scipy import sparse

from .cells import CellError
from .columns import Reading, Series
from .frame_names import check_names, is_pandas, narwhals_frame
from .input_checks import is_nameless
from .kinds import as_cells, check_masked
from .names import registered

__all__ = ["Reading", "Series", "Table", "index_of", "reading_of", "rows_of_array"]


def index_of(X):
    """The index of a pandas frame; None for other tables."""
    return X.index if is_pandas(X) else None


@registered("frames.Table")
class Table:
    """The names, dtypes and library of a table, without its rows.

    Parameters
    ----------
    series : list of Series
        The columns.
    backend : {"numpy", "pandas", "narwhals"}
        The library that reads and builds the table.
    dtype : dtype, default=None
        The dtype of an array.
    library : str, default=None
        The library of a narwhals frame, such as "polars".
    levels : tuple or None, default=None
        The names of the levels of a MultiIndex of columns, or the one name of a plain index of columns.
    """

    is_multiindex, levels = False, None

    def __init__(self, series, backend, dtype=None, library=None, levels=None, is_multiindex=False):
        self.series, self.backend, self.dtype, self.library = series, backend, dtype, library
        self.levels, self.is_multiindex = levels, is_multiindex
        self.owner = "the table"  # the name in errors

    @classmethod
    def of(cls, X, input_name="X"):
        """The description of a frame or a 2-D array."""
        if is_pandas(X):
            columns = [X.iloc[:, j] for j in range(X.shape[1])]
            series = [
                _series(name, c, c.dtype, "pandas", input_name) for name, c in zip(X.columns, columns, strict=True)
            ]
            levels = tuple(X.columns.names)
            return cls(series, "pandas", levels=levels, is_multiindex=X.columns.nlevels > 1)
        frame = narwhals_frame(X)
        if frame is not None:
            series = [_series(name, frame[name], t, "narwhals", input_name) for name, t in frame.schema.items()]
            return cls(series, "narwhals", library=frame.implementation.value)
        X = rows_of_array(X, input_name)
        dtype = X.dtype.newbyteorder("=")
        return cls([_series(j, X[:, j], dtype, "numpy", input_name) for j in range(X.shape[1])], "numpy", dtype=dtype)

    @property
    def names(self):
        """Names of the columns."""
        return [series.name for series in self.series]

    @property
    def has_names(self):
        """Whether the columns have names other than the numbers of their positions."""
        return self.backend != "numpy" and self.names != list(range(len(self.series)))

    def readings(self, X, input_name="X", partial=False, quiet=False):
        """The columns of this table in X, in the order of this table; if `partial`, None for those that X lacks.

        If only one of the two tables has names, columns are matched by position, with a warning unless `quiet`.
        """
        other = Table.of(X, input_name)
        alike = self.has_names == other.has_names or set(other.names) <= set(self.names)
        by_name = alike and "numpy" not in (self.backend, other.backend)
        if by_name:
            self.check_names(other.names, input_name, partial)
            found = {name: place for place, name in enumerate(other.names)}
            return other._read(X, [found.get(name) for name in self.names], self.series, input_name)
        if len(other.series) != len(self.series):
            raise ValueError(
                f"{input_name} has {len(other.series)} features, but {self.owner} is expecting {len(self.series)} "
                "features as input."
            )
        if not quiet:
            self._warn_of_names(other, input_name)
        return other._read(X, range(len(other.series)), self.series, input_name)

    def _warn_of_names(self, other, input_name):
        """Warn, as scikit-learn does, that columns are matched by position because one table has no names."""
        if self.has_names == other.has_names or is_nameless():
            return
        told = (
            f"{input_name} does not have valid feature names, but {self.owner} was fitted with feature names"
            if self.has_names
            else f"{input_name} has feature names, but {self.owner} was fitted without feature names"
        )
        warnings.warn(f"{told}: its columns are taken in their order.", UserWarning, stacklevel=5)

    def _read(self, X, places, like, input_name):
        """The readings of the columns at the given positions, with dates in the units of the series `like`."""
        if self.backend == "pandas":
            columns = [X.iloc[:, place] if place is not None else None for place in places]
        elif self.backend == "numpy":
            columns = list(as_cells(X, input_name).T)
        else:
            frame = narwhals_frame(X)
            columns = [frame[self.names[place]] if place is not None else None for place in places]
        return [
            None
            if place is None
            else _named(self.series[place].read, self.series[place].name, input_name, column, series)
            for place, column, series in zip(places, columns, like, strict=True)
        ]

    def check_names(self, names, input_name="X", partial=False):
        """Raise a ValueError that names columns which are missing (unless `partial`) or unknown."""
        check_names(self.names, names, input_name, partial)

    def frame_of(self, cells, input_name="given"):
        """A frame from a dict that maps names to columns, or to single cells."""
        if self.backend == "numpy":
            raise ValueError(
                f"Got {input_name} as a dict, but fit was given an array, whose columns have no names: pass rows."
            )
        check_masked(cells, input_name)
        columns = {
            name: list(cell) if hasattr(cell, "__len__") and not isinstance(cell, str) else [cell]
            for name, cell in cells.items()
        }
        most = max(map(len, columns.values()))
        columns = {name: column * most if len(column) == 1 else column for name, column in columns.items()}
        odd = [name for name, column in columns.items() if len(column) != most]
        if odd:
            raise ValueError(
                f"The columns of {input_name} have unequal lengths: {odd[0]!r} has {len(columns[odd[0]])} cells, but "
                f"expected 1 or {most}."
            )
        self.check_names(list(columns), input_name, partial=True)
        if self.backend == "pandas":
            return importlib.import_module("pandas").DataFrame(columns)
        nw = importlib.import_module("narwhals.stable.v2")
        return nw.from_dict(columns, backend=self.library).to_native()

    def build(self, columns, index=None):
        """A table of this library and these dtypes from its written columns; a pandas frame has the index."""
        if self.backend == "numpy":
            dtype = np.result_type(self.dtype, *(column.dtype for column in columns))
            table = np.empty((len(columns[0]), len(columns)), dtype=dtype)
            for j, column in enumerate(columns):
                table[:, j] = column
            return table
        if self.backend == "pandas":
            return self._build_pandas(columns, index)
        nw = importlib.import_module("narwhals.stable.v2")
        pairs = zip(self.series, columns, strict=True)
        frames = [_narwhals_series(nw, series, column, self.library).to_frame() for series, column in pairs]
        return nw.concat(frames, how="horizontal").to_native()

    def _build_pandas(self, columns, index):
        pd = importlib.import_module("pandas")
        frame = pd.concat(columns, axis=1)
        if self.is_multiindex:
            frame.columns = pd.MultiIndex.from_tuples(self.names, names=self.levels)
        else:
            frame.columns = pd.Index(self.names, name=self.levels and self.levels[0], tupleize_cols=False)
        return frame if index is None else frame.set_axis(index, axis=0)


def _series(name, column, dtype, backend, input_name):
    return _named(lambda column, _: Series.of(name, column, dtype, backend), name, input_name, column, None)


def _named(read, name, input_name, column, like):
    """Call a function with a column, and name the column in its errors."""
    try:
        return read(column, like)
    except CellError as error:
        raise ValueError(f"Column {name!r} of {input_name} {error}.") from error


def reading_of(cells, name, input_name):
    """The reading of a column that is given by itself, as cells or as a single one; and its dtype."""
    values = np.atleast_1d(as_cells(cells, f"{input_name}[{name!r}]"))
    if values.ndim > 1:
        raise ValueError(f"{input_name}[{name!r}] has {values.ndim} dimensions, but expected a column or one cell.")
    series = _series(name, values, values.dtype, "numpy", input_name)
    return _named(series.read, name, input_name, values, None), series


def rows_of_array(X, input_name):
    """X as an array, after a check that it has two dimensions."""
    if sparse.issparse(X):
        raise TypeError(f"{input_name} is sparse, and sparse input is not supported: pass {input_name}.toarray().")
    X = as_cells(X, input_name)
    if X.dtype.names:
        raise ValueError(
            f"{input_name} is a structured array with the fields {list(X.dtype.names)}, not an array of rows and "
            "columns: pass numpy.lib.recfunctions.structured_to_unstructured(X), or a frame."
        )
    if X.ndim != 2:
        raise ValueError(
            f"{input_name} has {X.ndim} dimensions, but a table has 2. Reshape your data: pass a frame or an array "
            f"of shape (n_rows, n_columns); {input_name}.reshape(-1, 1) makes one column of a vector."
        )
    if X.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {input_name} has dtype {X.dtype}.")
    return X


def _narwhals_series(nw, series, column, library):
    """A narwhals series from written cells."""
    if series.is_date:
        return nw.new_series(series.name, column, nw.Int64, backend=library).cast(series.dtype)
    dtype = None if type(series.dtype).__name__ == "Unknown" else series.dtype
    return nw.new_series(series.name, column, dtype, backend=library)
