"""Python objects in columns: which of them are missing values, and which are numbers."""

import dataclasses
import datetime
import decimal
import importlib
import numbers

import numpy as np

from .names import registered

__all__ = ["CellError", "Form", "find_form", "is_missing", "kind_of_missing"]

# The ordinal of 1970-01-01 in datetime.date.
_EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()
_EPOCH = datetime.datetime(1970, 1, 1)
_MICROSECOND = datetime.timedelta(microseconds=1)
# Digits with which decimals are compared with the floats that represent them.
_DIGITS = 60
# The names of the numbers of a form in errors.
_QUANTITIES = {
    "date": "dates", "datetime": "dates", "Timestamp": "dates", "datetime64": "dates", "time": "times of day",
    "timedelta": "time differences", "Timedelta": "time differences", "timedelta64": "time differences",
    "decimal": "numbers",
}  # fmt: skip


class CellError(ValueError):
    """An error in the cells of a column; its message is a predicate such as "holds ...", without the column's name."""


def is_missing(value):
    """Whether an object is one of the values that mean "missing"."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    is_nan = isinstance(value, (float, np.floating, decimal.Decimal)) and value != value
    return is_nan or (isinstance(value, (np.datetime64, np.timedelta64)) and bool(np.isnat(value)))


def kind_of_missing(value):
    """The name of the kind of missing value that an object is."""
    return "nan" if isinstance(value, (float, np.floating)) else type(value).__name__


@registered("frames.Form")
@dataclasses.dataclass(frozen=True)
class Form:
    """How objects of a class are converted to numbers.

    Parameters
    ----------
    name : str
        The class: "date", "datetime", "Timestamp", "datetime64", "time", "timedelta", "Timedelta", "timedelta64" or
        "decimal".
    unit : str or None, default=None
        The unit of the numbers of dates and times: "D", "us" or "ns".
    digits : int, default=0
        Digits after the point of decimals.
    """

    name: str
    unit: str | None = None
    digits: int = 0

    @property
    def quantity(self):
        """The name of the numbers in errors."""
        return _QUANTITIES[self.name]

    @property
    def code(self):
        """The letter of numpy for times: M for dates and m for time differences; None for other numbers."""
        return {"dates": "M", "time differences": "m"}.get(self.quantity)

    def numbers(self, cells):
        """The objects as numbers: int64 in `unit` for times, and float64 for decimals."""
        if self.name == "decimal":
            return np.array([_float_of(cell) for cell in cells], dtype=np.float64)
        if self.name in ("Timestamp", "Timedelta"):
            cells = [cell.to_numpy() if type(cell).__name__ == self.name else cell for cell in cells]
        if self.code and self.name != "date":
            return np.array(cells, dtype=f"{self.code}8[{self.unit}]").astype(np.int64)
        count = _day if self.name == "date" else _microseconds_of_day
        return np.array([count(cell) for cell in cells], dtype=np.int64)

    def objects(self, values):
        """The numbers as objects."""
        return [_WRITERS[self.name](self, value) for value in values.tolist()]


def _day(date):
    return date.toordinal() - _EPOCH_DAY


def _microseconds_of_day(time):
    return ((time.hour * 60 + time.minute) * 60 + time.second) * 10**6 + time.microsecond


def _float_of(cell):
    value = float(cell)
    if isinstance(cell, decimal.Decimal) and cell.is_finite():
        exact = decimal.Context(prec=_DIGITS).compare(decimal.Decimal(repr(value)), cell)
        if exact != 0:
            raise CellError(
                f"holds {cell!r}, of more digits than a float has: round the column to 15 digits, or convert it to "
                "text if it names things"
            )
    return value


def _decimal(form, value):
    value = decimal.Decimal(repr(float(value)))
    step = decimal.Decimal(1).scaleb(-form.digits)
    return value.quantize(step, context=decimal.Context(prec=_DIGITS)) if value.is_finite() else value


def _pandas(name):
    def write(form, value):
        dated = np.array(value, dtype=np.int64).view(f"{form.code}8[{form.unit}]")[()]
        return getattr(importlib.import_module("pandas"), name)(dated)

    return write


_WRITERS = {
    "date": lambda form, value: datetime.date.fromordinal(value + _EPOCH_DAY),
    "datetime": lambda form, value: _EPOCH + value * _MICROSECOND,
    "Timestamp": _pandas("Timestamp"),
    "datetime64": lambda form, value: np.datetime64(value, form.unit),
    "time": lambda form, value: (_EPOCH + value * _MICROSECOND).time(),
    "timedelta": lambda form, value: value * _MICROSECOND,
    "Timedelta": _pandas("Timedelta"),
    "timedelta64": lambda form, value: np.timedelta64(value, form.unit),
    "decimal": _decimal,
}


def find_form(cells):
    """How objects are converted to numbers; None if they are plain numbers or not numbers.

    Parameters
    ----------
    cells : list
        The objects, without those that stand for no value.

    Raises
    ------
    CellError
        When they are dates that cannot be told apart from each other, or have a zone each.
    """
    types = {type(cell) for cell in cells}
    if not types:
        return None
    if all(issubclass(t, datetime.date) for t in types):
        return _form_of_dates(cells, types)
    if all(issubclass(t, datetime.time) for t in types):
        return Form("time", _unzoned(cells, "us"))
    if all(issubclass(t, datetime.timedelta) for t in types):
        return _with_nanoseconds("Timedelta", "timedelta", cells, types)
    for name, scalar in (("datetime64", np.datetime64), ("timedelta64", np.timedelta64)):
        if all(issubclass(t, scalar) for t in types):
            return Form(name, np.datetime_data(np.array(cells).dtype)[0])
    is_number = all(
        issubclass(t, (numbers.Real, decimal.Decimal)) and not issubclass(t, (bool, np.bool_)) for t in types
    )
    if is_number and any(issubclass(t, decimal.Decimal) for t in types):
        finite = [cell for cell in cells if isinstance(cell, decimal.Decimal) and cell.is_finite()]
        ends = [-int(cell.as_tuple().exponent) for cell in finite]
        return Form("decimal", digits=max([0, *ends]))
    return None


def _form_of_dates(cells, types):
    timed = [issubclass(t, datetime.datetime) for t in types]
    if not any(timed):
        return Form("date", "D")
    if not all(timed):
        raise CellError(
            "holds dates and dates with a time of day, as objects of two classes: use one, for example by "
            "pandas.to_datetime"
        )
    _unzoned(cells, None)
    return _with_nanoseconds("Timestamp", "datetime", cells, types)


def _with_nanoseconds(own, plain, cells, types):
    """The form of objects some of which may be of pandas; its unit is the nanosecond if one of them is."""
    if not any(t.__name__ == own for t in types):
        return Form(plain, "us")
    fine = any(
        type(cell).__name__ == own and cell.to_numpy().astype("int64") % 1000 and cell.unit == "ns" for cell in cells
    )
    return Form(own, "ns" if fine else "us")


def _unzoned(cells, unit):
    if any(cell.tzinfo is not None for cell in cells):
        raise CellError(
            "holds times with a zone, as objects: convert them to one zone, for example by pandas.to_datetime(column, "
            "utc=True)"
        )
    return unit
