"""Columns of frames and arrays as plain numbers or levels, and back in the very dtype that they had."""

import dataclasses
import importlib
import sys

import numpy as np
from scipy import sparse

from .input_checks import check_masked
from .names import registered

__all__ = ["Reading", "Series", "Table"]

# The largest span of integers that floats hold exactly.
_SPAN = 2**53


@registered("frames.Reading")
@dataclasses.dataclass
class Reading:
    """One column: numbers or levels, and where it holds none.

    Parameters
    ----------
    values : ndarray of shape (n_rows,)
        int64 or float64 for numbers and dates, objects else; what stands at a gap has no meaning.
    gaps : ndarray of shape (n_rows,)
        0 where there is a value, else 1 + the number of the kind of gap.
    kinds : tuple
        The kinds of gap: None, nan, pandas.NA, ...
    """

    values: np.ndarray
    gaps: np.ndarray
    kinds: tuple

    @property
    def is_number(self):
        """Whether the values can be compared and averaged."""
        return self.values.dtype.kind in "if"


def _is_gap(value):
    """Whether an object is one of the ways to say that there is no value."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    is_nan = isinstance(value, (float, np.floating)) and value != value
    return is_nan or (isinstance(value, (np.datetime64, np.timedelta64)) and bool(np.isnat(value)))


def _kind_of_gap(value):
    return "nan" if isinstance(value, (float, np.floating)) else type(value).__name__


def _read_objects(values):
    """A reading of python objects: numbers, where all are numbers of one kind, else levels."""
    values = np.asarray(values, dtype=object)
    found: dict = {}
    gaps = np.zeros(len(values), dtype=np.int64)
    for row, value in enumerate(values):
        if _is_gap(value):
            name = _kind_of_gap(value)
            found.setdefault(name, (len(found) + 1, value))
            gaps[row] = found[name][0]
    present = values[gaps == 0]
    types = {type(value) for value in present}
    kinds = tuple(value for _, value in found.values())
    for numbers, dtype in (((int, np.integer), np.int64), ((int, float, np.integer, np.floating), np.float64)):
        if types and all(issubclass(t, numbers) and not issubclass(t, (bool, np.bool_)) for t in types):
            read = np.zeros(len(values), dtype=dtype)
            read[gaps == 0] = present
            return Reading(read, gaps, kinds)
    return Reading(values, gaps, kinds)


def _read_array(values):
    """A reading of a numpy column."""
    kind = values.dtype.kind
    if kind == "O":
        return _read_objects(values)
    if kind in "mM":
        gaps = np.isnat(values).astype(np.int64)
        return Reading(values.astype(np.int64), gaps, (None,))
    if kind == "f":
        values = values.astype(np.float64)
        return Reading(values, np.isnan(values).astype(np.int64), (np.nan,))
    if kind in "iu":
        return Reading(values.astype(np.int64), np.zeros(len(values), dtype=np.int64), ())
    if kind in "bUS":
        return Reading(values.astype(object), np.zeros(len(values), dtype=np.int64), ())
    raise ValueError(f"Got a column of dtype {values.dtype}: expected numbers, text, booleans, dates or objects.")


@registered("frames.Series")
class Series:
    """What is remembered of one column of a table, so that it can be read and written.

    Parameters
    ----------
    name : object
        Its name, or its number in an array.
    dtype : object
        That of the library that it comes from.
    backend : {"numpy", "pandas", "narwhals"}
        Which library.
    """

    def __init__(self, name, dtype, backend):
        self.name, self.dtype, self.backend = name, dtype, backend

    @property
    def is_category(self):
        """Whether the dtype lists levels of its own."""
        return self.backend == "pandas" and str(self.dtype) == "category"

    @property
    def is_date(self):
        """Whether it holds dates or time differences."""
        return getattr(self.dtype, "kind", "") in "mM" and self.backend != "narwhals"

    @property
    def own_levels(self):
        """The levels in the order of a categorical dtype, else None."""
        return list(self.dtype.categories) if self.is_category else None

    @property
    def float_dtype(self):
        """The dtype of floats, else None."""
        return self.dtype if isinstance(self.dtype, np.dtype) and self.dtype.kind == "f" else None

    def read(self, column, like=None):
        """The numbers or levels of a column; those of dates are in the unit of another series."""
        if self.is_date and like is not None and like.is_date and like.dtype != self.dtype:
            return like.read(column.astype(like.dtype))
        if self.backend == "numpy":
            return _read_array(column)
        if self.backend == "narwhals":
            return _read_objects(column.to_list())
        if self.is_category or self.dtype == object:
            return _read_objects(column.to_numpy(dtype=object))
        if self.is_date:
            utc = column.dt.tz_convert("UTC").dt.tz_localize(None) if getattr(self.dtype, "tz", None) else column
            return _read_array(utc.to_numpy())
        return self._read_extension(column)

    def _read_extension(self, column):
        kind = getattr(self.dtype, "kind", "O")
        missing = column.isna().to_numpy().astype(np.int64)
        kinds = (getattr(self.dtype, "na_value", np.nan),) if missing.any() else ()
        if kind in "iu":
            values = column.to_numpy(dtype=np.int64, na_value=0) if missing.any() else column.to_numpy(dtype=np.int64)
            return Reading(values, missing, kinds)
        if kind == "f":
            return Reading(column.to_numpy(dtype=np.float64, na_value=np.nan), missing, kinds)
        return Reading(column.to_numpy(dtype=object), missing, kinds)

    def write(self, values, gaps, kinds):
        """A column of the remembered dtype from numbers or levels, and from where there is none."""
        if self.backend == "pandas":
            return self._write_pandas(values, gaps, kinds)
        if self.backend == "narwhals":
            return _objects(values, gaps, (None,) * len(kinds)).tolist()
        if self.dtype == object:
            return _objects(values, gaps, kinds)
        values = values.copy()
        if (gaps > 0).any():
            if self.dtype.kind in "mM":
                values[gaps > 0] = np.iinfo(np.int64).min
            elif self.dtype.kind == "f":
                values[gaps > 0] = np.nan
        return values.astype(self.dtype)

    def _write_pandas(self, values, gaps, kinds):
        pd = importlib.import_module("pandas")
        if self.is_date:
            values = values.astype(np.int64)
            values[gaps > 0] = np.iinfo(np.int64).min
            unit = getattr(self.dtype, "unit", None) or np.datetime_data(self.dtype)[0]
            dates = pd.Series(values.view(f"{self.dtype.kind}8[{unit}]"), name=self.name)
            zone = getattr(self.dtype, "tz", None)
            return dates if zone is None else dates.dt.tz_localize("UTC").dt.tz_convert(zone)
        if isinstance(self.dtype, np.dtype) and self.dtype != object:
            if (gaps > 0).any():
                values = np.where(gaps > 0, np.nan, values.astype(np.float64))
            return pd.Series(values.astype(self.dtype), name=self.name)
        if values.dtype.kind in "if" and self.dtype != object and not self.is_category:
            filled = pd.Series(np.where(gaps > 0, 0, values), name=self.name).astype(self.dtype)
            filled[gaps > 0] = getattr(self.dtype, "na_value", np.nan)
            return filled
        return pd.Series(_objects(values, gaps, kinds), dtype=self.dtype, name=self.name)


def _objects(values, gaps, kinds):
    """Objects, each gap of its own kind; numbers of numpy as those of python."""
    written = np.empty(len(values), dtype=object)
    written[:] = values.tolist() if values.dtype.kind in "if" else values
    for number, value in enumerate(kinds, start=1):
        for row in np.flatnonzero(gaps == number):
            written[row] = value
    return written


# Columns of a table whose names an error tells.
_FEW_NAMES = 30


def index_of(X):
    """The index of a pandas frame; None of any other table."""
    pd = sys.modules.get("pandas")
    return X.index if pd is not None and isinstance(X, pd.DataFrame) else None


@registered("frames.Table")
class Table:
    """What is remembered of a table: its columns, and the library that it comes from.

    Parameters
    ----------
    series : list of Series
        Its columns.
    backend : {"numpy", "pandas", "narwhals"}
        Which library.
    dtype : dtype, default=None
        That of an array.
    library : module, default=None
        What builds frames of other libraries.
    """

    def __init__(self, series, backend, dtype=None, library=None):
        self.series, self.backend, self.dtype, self.library = series, backend, dtype, library
        self.owner = "the table"  # who is named in errors

    @classmethod
    def of(cls, X, input_name="X"):
        """The memory of a frame or a 2-D array."""
        pd = sys.modules.get("pandas")
        if pd is not None and isinstance(X, pd.DataFrame):
            return cls([Series(name, X.iloc[:, j].dtype, "pandas") for j, name in enumerate(X.columns)], "pandas")
        frame = _narwhals_frame(X)
        if frame is not None:
            series = [Series(name, dtype, "narwhals") for name, dtype in frame.schema.items()]
            return cls(series, "narwhals", library=frame.implementation.value)
        if sparse.issparse(X):
            raise TypeError(f"{input_name} is sparse, and sparse input is not supported: pass {input_name}.toarray().")
        check_masked(X, input_name)
        X = np.asarray(X)
        if X.ndim != 2:
            raise ValueError(
                f"{input_name} has {X.ndim} dimensions, but a table has 2. Reshape your data: pass a frame or an array "
                f"of shape (n_rows, n_columns); {input_name}.reshape(-1, 1) makes one column of a vector."
            )
        if X.dtype.kind == "c":
            raise ValueError(f"Complex data not supported: {input_name} has dtype {X.dtype}.")
        dtype = X.dtype.newbyteorder("=")
        return cls([Series(j, dtype, "numpy") for j in range(X.shape[1])], "numpy", dtype=dtype)

    @property
    def names(self):
        """Names of the columns."""
        return [series.name for series in self.series]

    def readings(self, X, input_name="X", partial=False):
        """What the columns of this table hold in X, in their order; if `partial`, None for those that X lacks."""
        other = Table.of(X, input_name)
        if self.backend == "numpy" or other.backend == "numpy":
            if len(other.series) != len(self.series):
                raise ValueError(
                    f"{input_name} has {len(other.series)} features, but {self.owner} is expecting {len(self.series)} "
                    "features as input."
                )
            return other._read(X, range(len(other.series)), self.series)
        self.check_names(other.names, input_name, partial)
        found = {name: place for place, name in enumerate(other.names)}
        return other._read(X, [found.get(name) for name in self.names], self.series)

    def _read(self, X, places, like):
        """The readings at some places, dates in the units of other series."""
        if self.backend == "pandas":
            columns = [X.iloc[:, place] if place is not None else None for place in places]
        elif self.backend == "numpy":
            columns = list(np.asarray(X).T)
        else:
            frame = _narwhals_frame(X)
            columns = [frame[self.names[place]] if place is not None else None for place in places]
        return [
            None if place is None else self.series[place].read(column, series)
            for place, column, series in zip(places, columns, like, strict=True)
        ]

    def check_names(self, names, input_name="X", partial=False):
        """Refuse columns that are missing (unless `partial`) or unknown, by name."""
        missing = [] if partial else [name for name in self.names if name not in names]
        unknown = [name for name in names if name not in self.names]
        if missing or unknown:
            wrong = [f"{what} {some}" for what, some in (("missing", missing), ("unknown", unknown)) if some]
            known = f"; they are {self.names}" if len(self.names) <= _FEW_NAMES else ""
            raise ValueError(f"{input_name} must have the columns of fit: {', '.join(wrong)}{known}.")

    def frame_of(self, cells):
        """The frame of a dict from names to columns, or to single cells."""
        if self.backend == "numpy":
            raise ValueError("Got given as a dict, but fit was given an array, whose columns have no names: pass rows.")
        columns = {
            name: list(cell) if hasattr(cell, "__len__") and not isinstance(cell, str) else [cell]
            for name, cell in cells.items()
        }
        most = max(map(len, columns.values()))
        columns = {name: column * most if len(column) == 1 else column for name, column in columns.items()}
        self.check_names(list(columns), "given", partial=True)
        if self.backend == "pandas":
            return importlib.import_module("pandas").DataFrame(columns)
        nw = importlib.import_module("narwhals.stable.v1")
        return nw.from_dict(columns, backend=self.library).to_native()

    def build(self, columns, index=None):
        """A table of the remembered kind from its written columns; a pandas frame takes the index."""
        if self.backend == "numpy":
            table = np.empty((len(columns[0]), len(columns)), dtype=self.dtype)
            for j, column in enumerate(columns):
                table[:, j] = column
            return table
        if self.backend == "pandas":
            pd = importlib.import_module("pandas")
            frame = pd.concat(columns, axis=1)
            frame.columns = self.names
            return frame if index is None else frame.set_axis(index, axis=0)
        nw = importlib.import_module("narwhals.stable.v1")
        pairs = zip(self.series, columns, strict=True)
        frames = [nw.new_series(s.name, column, s.dtype, backend=self.library).to_frame() for s, column in pairs]
        return nw.concat(frames, how="horizontal").to_native()


def _narwhals_frame(X):
    """A frame of another library through narwhals; None if it is none, or narwhals is not there."""
    if isinstance(X, (np.ndarray, list, tuple)) or not hasattr(X, "columns"):
        return None
    try:
        nw = importlib.import_module("narwhals.stable.v1")
    except ModuleNotFoundError as error:
        raise ValueError(
            f"Got a {type(X).__name__}: frames of other libraries than pandas are read through narwhals, which is not "
            "installed: pip install narwhals, or pass a pandas frame or an array."
        ) from error
    return nw.from_native(X, eager_only=True)
