"""Convert a column of a frame or an array to plain numbers or categories, and back to its dtype."""

import dataclasses
import importlib

import numpy as np

from .cells import CellError, Form, find_form, is_missing, kind_of_missing
from .names import registered

__all__ = ["WORDS", "Reading", "Series"]

# Smallest and largest number of int64.
_LOWEST = np.iinfo(np.int64).min
_HIGHEST = np.iinfo(np.int64).max
# The largest span of integers that floats hold exactly.
_SPAN = 2**53
WORDS = "words"


@registered("frames.Reading")
@dataclasses.dataclass
class Reading:
    """The values of a column, which are numbers or categories, and which of them are missing.

    Parameters
    ----------
    values : ndarray of shape (n_rows,)
        Of dtype int64 or float64 for numbers and dates, otherwise of objects. Missing entries have no meaning.
    gaps : ndarray of shape (n_rows,)
        0 for a value, and k + 1 for a missing value of the kind number k.
    kinds : tuple
        The kinds of missing values: None, nan, pandas.NA, ...
    quantity : str
        The name of the values in errors: "numbers", "dates", "time differences", "times of day" or "words".
    form : Form or None
        How objects were converted to the numbers.
    """

    values: np.ndarray
    gaps: np.ndarray
    kinds: tuple
    quantity: str = ""
    form: Form | None = None

    def __post_init__(self):
        if not self.quantity:
            self.quantity = "numbers" if self.is_number else WORDS

    @property
    def is_number(self):
        """Whether the values can be compared and averaged."""
        return self.values.dtype.kind in "if"

    def check_quantity(self, quantity, name, input_name):
        """Raise a ValueError that names the column if its values are of another type than in fit."""
        present = self.values[self.gaps == 0]
        if len(present) and self.quantity != quantity:
            held = self.quantity if self.is_number else repr(present[0])
            raise ValueError(
                f"Column {name!r} of {input_name} holds {held}, but in fit it held {quantity}: convert it."
            )


def _read_objects(values, form):
    """A reading of Python objects: numbers if all are numbers of one type, otherwise categories."""
    values = np.asarray(values, dtype=object)
    found: dict = {}
    gaps = np.zeros(len(values), dtype=np.int64)
    for row, value in enumerate(values):
        if is_missing(value):
            name = kind_of_missing(value)
            found.setdefault(name, (len(found) + 1, value))
            gaps[row] = found[name][0]
    present, kinds = values[gaps == 0].tolist(), tuple(value for _, value in found.values())
    if form is not None:
        numbers, quantity = form.numbers(present), form.quantity
    else:
        numbers, quantity = _plain_numbers(present), "numbers"
    if numbers is None:
        return Reading(values, gaps, kinds)
    read = np.zeros(len(values), dtype=numbers.dtype)
    read[gaps == 0] = numbers
    return Reading(read, gaps, kinds, quantity, form)


def _plain_numbers(cells):
    """The objects as an array of numbers if all are numbers; otherwise None."""
    types = {type(cell) for cell in cells}
    if not types or any(issubclass(t, (bool, np.bool_)) for t in types):
        return None
    if any(issubclass(t, (complex, np.complexfloating)) for t in types):
        raise CellError("holds complex numbers: pass their parts, or their sizes and angles, as columns")
    if all(issubclass(t, (int, np.integer)) for t in types):
        return _whole(cells)
    if not all(issubclass(t, (int, float, np.integer, np.floating)) for t in types):
        return None
    odd = next((cell for cell in cells if isinstance(cell, (int, np.integer)) and abs(int(cell)) > _SPAN), None)
    if odd is not None and int(float(odd)) != int(odd):
        raise CellError(f"holds {odd} beside floats, which cannot tell it from its neighbours: use one type")
    return np.array(cells, dtype=np.float64)


def _whole(cells):
    low, high = min(cells), max(cells)
    if low < _LOWEST or high > _HIGHEST:
        raise CellError(
            f"holds {high if high > _HIGHEST else low}, which 64 bits with a sign do not hold: convert the column to "
            "text if it names things, or to floats if it measures them"
        )
    return np.array(cells, dtype=np.int64)


def _read_array(values, form):
    """A reading of a numpy column."""
    kind, none = values.dtype.kind, np.zeros(len(values), dtype=np.int64)
    if kind in "OT":
        return _read_objects(values, form)
    if kind in "mM":
        quantity = "dates" if kind == "M" else "time differences"
        return Reading(values.astype(np.int64), np.isnat(values).astype(np.int64), (None,), quantity)
    if kind == "f":
        values = values.astype(np.float64)
        return Reading(values, np.isnan(values).astype(np.int64), (np.nan,))
    if kind in "iu":
        return Reading(_signed(values), none, ())
    if kind in "bUS":
        return Reading(values.astype(object), none, ())
    if kind == "c":
        raise CellError("holds complex numbers: pass their parts, or their sizes and angles, as columns")
    raise CellError(f"has the dtype {values.dtype}: expected numbers, text, booleans, dates or objects")


def _signed(values):
    if values.dtype.kind == "u" and len(values) and values.max() > _HIGHEST:
        return _whole([int(values.max())])
    return values.astype(np.int64)


@registered("frames.Series")
class Series:
    """The name and the dtype of a column of a table, by which it is read and written.

    Parameters
    ----------
    name : object
        Its name, or its position in an array.
    dtype : object
        Its dtype in its library.
    backend : {"numpy", "pandas", "narwhals"}
        The library that reads and writes the column.
    form : Form or None, default=None
        How its objects are converted to numbers.

    Attributes
    ----------
    circle : Circle or None
        Where the numbers of a circular column are cut open.
    """

    circle = None

    def __init__(self, name, dtype, backend, form=None):
        self.name, self.dtype, self.backend, self.form = name, dtype, backend, form

    @classmethod
    def of(cls, name, column, dtype, backend):
        """The description of a column."""
        series = cls(name, dtype, backend)
        cells = series._cells(column)
        series.form = None if cells is None else find_form([cell for cell in cells if not is_missing(cell)])
        return series

    def _cells(self, column):
        """The objects of a column of objects; None for other columns."""
        if str(self.dtype) == _NOTHING:
            return None
        if self.backend == "narwhals":
            return None if self._time_unit else column.to_list()
        if self.backend == "numpy":
            return column.tolist() if self.dtype == object else None
        if self.is_category or self._is_sparse or self.is_date or self._sorts_by_itself:
            return None
        kind = getattr(self.dtype, "kind", "O")
        return column.to_numpy(dtype=object).tolist() if kind in "OM" and str(self.dtype) not in _TEXT else None

    @property
    def is_category(self):
        """Whether the dtype lists categories."""
        return self.backend == "pandas" and str(self.dtype) == "category"

    @property
    def _is_sparse(self):
        return self.backend == "pandas" and type(self.dtype).__name__ == "SparseDtype"

    @property
    def _sorts_by_itself(self):
        """Whether the dtype is one of intervals or of periods."""
        return self.backend == "pandas" and type(self.dtype).__name__ in ("IntervalDtype", "PeriodDtype")

    @property
    def is_ordered(self):
        """Whether the categories of the dtype are ordered."""
        named = type(self.dtype).__name__ == "Enum"
        return self._sorts_by_itself or named or (self.is_category and bool(self.dtype.ordered))

    @property
    def is_date(self):
        """Whether the dtype is one of dates or time differences."""
        return self.unit is not None and self.form is None

    @property
    def unit(self):
        """The code (M or m) and the unit of the numbers of dates and time differences; None for other columns."""
        if self.form is not None:
            return (self.form.code, self.form.unit) if self.form.code else None
        if self.backend == "narwhals":
            return self._time_unit
        kind, dtype = getattr(self.dtype, "kind", "O"), self.dtype
        if kind not in "mM":
            return None
        if isinstance(dtype, np.dtype):
            unit, count = np.datetime_data(dtype)
            return kind, unit if count == 1 else f"{count}{unit}"
        named = getattr(getattr(dtype, "pyarrow_dtype", dtype), "unit", None)
        return None if named is None or str(dtype).startswith(("date32", "date64")) else (kind, named)

    @property
    def _time_unit(self):
        """The code and the unit of a narwhals column."""
        unit = getattr(self.dtype, "time_unit", None)
        return unit and ("m" if type(self.dtype).__name__ == "Duration" else "M", unit)

    @property
    def own_levels(self):
        """The categories in the order of the dtype, or None if it lists none."""
        listed = self.is_category or type(self.dtype).__name__ == "Enum"
        return list(self.dtype.categories) if listed else None

    @property
    def float_dtype(self):
        """The dtype of a column of floats; None for other columns."""
        if isinstance(self.dtype, np.dtype) and self.dtype.kind == "f":
            return self.dtype
        return np.dtype(np.float32) if str(self.dtype) in _SINGLE else None

    def read(self, column, like=None):
        """The numbers or categories of a column; dates are in the unit of the series `like`."""
        reading = self._read(column)
        if like is not None and (reading.gaps == 0).any():
            self._check_zone(like)
        if like is not None and like.circle is not None:
            return like.circle.unrolled(reading, f"column {like.name!r}")
        if like is None or self.unit is None or like.unit is None or self.unit == like.unit:
            return reading
        if self.unit[0] != like.unit[0]:
            return reading
        return dataclasses.replace(reading, values=_in_unit(reading, self.unit, like.unit))

    @property
    def _zone(self):
        """The time zone of a column of dates; None without one."""
        dtype = getattr(self.dtype, "pyarrow_dtype", self.dtype)
        return getattr(dtype, "time_zone" if self.backend == "narwhals" else "tz", None)

    def _check_zone(self, like):
        """Raise where dates have a time zone and those of fit have none, or the other way round."""
        are_dates = [series.unit is not None and series.unit[0] == "M" for series in (self, like)]
        if all(are_dates) and (self._zone is None) != (like._zone is None):
            own, other = (f"the time zone {s._zone}" if s._zone else "no time zone" for s in (self, like))
            raise CellError(
                f"holds dates with {own}, but those of fit have {other}: give them the zone that is meant "
                "(tz_localize), or convert them to it and drop it (tz_convert, then tz_localize(None))"
            )

    def _read(self, column):
        if self.backend == "numpy":
            return _read_array(column, self.form)
        if self.backend == "narwhals":
            return self._read_narwhals(column)
        if self._is_sparse:
            return Series(self.name, self.dtype.subtype, "pandas").read(column.sparse.to_dense())
        if self.is_category or self._sorts_by_itself:
            reading = _read_objects(column.to_numpy(dtype=object), _WORDS_AS_THEY_ARE)
            return reading
        if self.form is not None or self.dtype == object:
            return _read_objects(column.to_numpy(dtype=object), self.form)
        if self.is_date:
            return _read_array(self._utc(column).to_numpy(), None)
        return self._read_extension(column)

    def _utc(self, column):
        """Dates of pandas as dates of numpy, in UTC if they have a time zone."""
        zoned = getattr(self.dtype, "tz", None) or getattr(getattr(self.dtype, "pyarrow_dtype", None), "tz", None)
        column = column.dt.tz_convert("UTC").dt.tz_localize(None) if zoned else column
        return column.astype("{}8[{}]".format(*self.unit))

    def _read_narwhals(self, column):
        if not self._time_unit:
            name = type(self.dtype).__name__
            is_words = name in ("Categorical", "Enum", "String")
            return _read_objects(column.to_list(), _WORDS_AS_THEY_ARE if is_words else self.form)
        code, unit = self._time_unit
        cells = getattr(column.dt, _TOTALS[unit])() if code == "m" else column.dt.timestamp(_STAMPS.get(unit, unit))
        factor = 1000 if (code, unit) == ("M", "s") else 1
        cells = cells.to_list()
        gaps = np.array([cell is None for cell in cells], dtype=np.int64)
        values = np.array([0 if cell is None else cell // factor for cell in cells], dtype=np.int64)
        return Reading(values, gaps, (None,), "dates" if code == "M" else "time differences")

    def _read_extension(self, column):
        kind = getattr(self.dtype, "kind", "O")
        if str(self.dtype) == _NOTHING:
            return _read_objects([None] * len(column), None)
        missing = column.isna().to_numpy().astype(np.int64)
        kinds = (getattr(self.dtype, "na_value", np.nan),) if missing.any() else ()
        if kind in "iu":
            dtype = np.uint64 if kind == "u" else np.int64
            values = column.to_numpy(dtype=dtype, na_value=0) if missing.any() else column.to_numpy(dtype=dtype)
            return Reading(_signed(values), missing, kinds)
        if kind == "f":
            values = column.to_numpy(dtype=np.float64, na_value=np.nan)
            return Reading(values, np.maximum(missing, np.isnan(values)), kinds or (np.nan,))
        if kind == "c":
            raise CellError("holds complex numbers: pass their parts, or their sizes and angles, as columns")
        return Reading(column.to_numpy(dtype=object), missing, kinds)

    def holding(self, reading):
        """The series, or one whose dtype represents the values of a reading without loss.

        Fit may have seen fewer digits, smaller whole numbers or single precision.
        """
        form, dtype, values = self.form, self.dtype, reading.values[reading.gaps == 0]
        values = values if self.circle is None else self.circle.wrapped(values)
        if form is not None and form.name == "decimal" and reading.form is not None:
            form = dataclasses.replace(form, digits=max(form.digits, reading.form.digits))
        if isinstance(dtype, np.dtype) and dtype.kind in "iuf" and reading.is_number and len(values):
            with np.errstate(over="ignore", invalid="ignore"):
                is_held = (values.astype(dtype).astype(values.dtype) == values).all()
            dtype = dtype if is_held else np.dtype(np.float64 if dtype.kind == "f" else np.int64)
        series = Series(self.name, dtype, self.backend, form)
        if self.circle is not None:
            series.circle = self.circle
        return series

    def write(self, values, gaps, kinds):
        """A column of the dtype of this series from numbers or categories, and from which of them are missing."""
        values = values if self.circle is None else self.circle.wrapped(values)
        if self.backend == "pandas":
            return self._write_pandas(values, gaps, kinds)
        if self.backend == "narwhals":
            return _objects(values, gaps, (None,) * len(kinds), self.form).tolist()
        if self.dtype == object:
            return _objects(values, gaps, kinds, self.form)
        values = values.copy()
        if (gaps > 0).any():
            if self.dtype.kind in "mM":
                values[gaps > 0] = _LOWEST
            elif self.dtype.kind == "f":
                values[gaps > 0] = np.nan
        return values.astype(self.dtype)

    def _write_pandas(self, values, gaps, kinds):
        pd = importlib.import_module("pandas")
        if str(self.dtype) == _NOTHING:  # which pyarrow makes of None alone
            return pd.Series([None] * len(values), dtype=self.dtype, name=self.name)
        if self._is_sparse:
            return Series(self.name, self.dtype.subtype, "pandas").write(values, gaps, kinds).astype(self.dtype)
        if self.is_date:
            return self._write_dates(pd, values.astype(np.int64), gaps)
        if isinstance(self.dtype, np.dtype) and self.dtype != object:
            if (gaps > 0).any():
                values = np.where(gaps > 0, np.nan, values.astype(np.float64))
            return pd.Series(values.astype(self.dtype), name=self.name)
        whole = values.dtype.kind in "if" and self.form is None
        if whole and self.dtype != object and not self.is_category:
            filled = pd.Series(np.where(gaps > 0, 0, values), name=self.name).astype(self.dtype)
            filled[gaps > 0] = getattr(self.dtype, "na_value", np.nan)
            return filled
        cells = _objects(values, gaps, kinds, self.form)
        # pyarrow cannot infer the type of an array without values.
        return pd.Series(cells.tolist() if "pyarrow" in str(self.dtype) else cells, dtype=self.dtype, name=self.name)

    def _write_dates(self, pd, values, gaps):
        values[gaps > 0] = _LOWEST
        dates = pd.Series(values.view("{}8[{}]".format(*self.unit)), name=self.name)
        if hasattr(self.dtype, "pyarrow_dtype"):
            zone = self.dtype.pyarrow_dtype.tz if self.unit[0] == "M" else None
            return (dates if zone is None else dates.dt.tz_localize("UTC")).astype(self.dtype)
        zone = getattr(self.dtype, "tz", None)
        return dates if zone is None else dates.dt.tz_localize("UTC").dt.tz_convert(zone)


# Dtypes of text in pandas, whose cells need not be inspected, and of single precision in all libraries.
_TEXT = ("str", "string", "large_string[pyarrow]")
_SINGLE = ("Float32", "float[pyarrow]")
# The dtype of pyarrow's columns without any value.
_NOTHING = "null[pyarrow]"
# The methods by which narwhals counts time differences and dates in a unit.
_TOTALS = {
    "ns": "total_nanoseconds", "us": "total_microseconds", "ms": "total_milliseconds", "s": "total_seconds",
}  # fmt: skip
_STAMPS = {"s": "ms"}


class _Words:
    """The form of objects that are categories, whatever their type."""

    quantity = WORDS

    @staticmethod
    def numbers(cells):
        """None, because the objects are not numbers."""
        return


_WORDS_AS_THEY_ARE = _Words()


def _in_unit(reading, unit, other):
    """Counts of one unit converted to another: integers if all of them are whole, otherwise floats."""
    present = reading.gaps == 0
    dates = np.where(present, reading.values, 0).view("{}8[{}]".format(*unit))
    try:
        made = dates.astype("{}8[{}]".format(*other))
        if (made.astype(dates.dtype) == dates).all():
            return made.astype(np.int64)
    except OverflowError:
        pass
    one = np.timedelta64(1, unit[1]) / np.timedelta64(1, other[1])
    return dates.astype(np.int64) * one


def _objects(values, gaps, kinds, form=None):
    """An array of objects, with each missing value of its own kind, and numbers of Python in place of numpy's."""
    written = np.empty(len(values), dtype=object)
    if form is not None and values.dtype.kind in "if":
        written[gaps == 0] = form.objects(values[gaps == 0])
    else:
        written[:] = values.tolist() if values.dtype.kind in "if" else values
    for number, value in enumerate(kinds, start=1):
        for row in np.flatnonzero(gaps == number):
            written[row] = value
    return written
