"""Convert cells and dtypes of columns of other libraries to plain parts, and back."""

import datetime
import decimal
import importlib
import re

__all__ = ["CELLS", "arrow_parts", "build_arrow", "build_cell", "cell_parts", "is_foreign_cell"]


def _import(name):
    return importlib.import_module(name)


def _pandas_time(value):
    if value.tzinfo is not None:
        raise ValueError(f"{value!r} has a zone, which a file cannot describe in a cell: convert the column to UTC.")
    return {"count": int(value.to_numpy().astype("int64")), "unit": value.unit}


def _build_time(name, code):
    def build(count, unit):
        numpy, pd = _import("numpy"), _import("pandas")
        _expect(type(count) is int and unit in ("s", "ms", "us", "ns"))
        return getattr(pd, name)(numpy.array(count, dtype="int64").view(f"{code}8[{unit}]")[()])

    return build


def _interval(left, right, closed):
    pd = _import("pandas")
    _expect(closed in ("left", "right", "both", "neither"))
    _expect(all(isinstance(end, (int, float, pd.Timestamp, pd.Timedelta)) for end in (left, right)))
    return pd.Interval(left, right, closed=closed)


def _period(ordinal, freq):
    _expect(type(ordinal) is int and type(freq) is str and _FREQUENCY.fullmatch(freq))
    return _import("pandas").Period(ordinal=ordinal, freq=freq)


def _text(build):
    def from_text(text):
        _expect(type(text) is str)
        return build(text)

    return from_text


def _decimal(text):
    _expect(len(text) < _MOST_DIGITS)
    return decimal.Decimal(text)


def _expect(holds):
    if not holds:
        raise ValueError("A cell is described by parts of other types than those that save writes.")


# Largest number of digits of a decimal, and the pattern of the frequency of a period.
_MOST_DIGITS = 100
_FREQUENCY = re.compile(r"\d{0,4}[A-Za-z]{1,3}(-[A-Z]{3})?")
# For each class of cells, a function to its parts, and a function from the parts to the cell.
CELLS = {
    "Interval": (lambda v: {"left": v.left, "right": v.right, "closed": v.closed}, _interval),
    "Period": (lambda v: {"ordinal": v.ordinal, "freq": v.freqstr}, _period),
    "Timestamp": (_pandas_time, _build_time("Timestamp", "M")),
    "Timedelta": (
        lambda v: {"count": int(v.to_numpy().astype("int64")), "unit": v.unit}, _build_time("Timedelta", "m"),
    ),
    "date": (lambda v: {"text": v.isoformat()}, _text(datetime.date.fromisoformat)),
    "datetime": (lambda v: {"text": v.isoformat()}, _text(datetime.datetime.fromisoformat)),
    "time": (lambda v: {"text": v.isoformat()}, _text(datetime.time.fromisoformat)),
    "timedelta": (
        lambda v: {"text": f"{v.days} {v.seconds} {v.microseconds}"},
        _text(lambda text: datetime.timedelta(*map(int, text.split()))),
    ),
    "Decimal": (lambda v: {"text": str(v)}, _text(_decimal)),
}  # fmt: skip
_MODULES = ("pandas", "datetime", "decimal")


def is_foreign_cell(value):
    """Whether a cell is of one of these classes."""
    return type(value).__name__ in CELLS and type(value).__module__.split(".")[0] in _MODULES


def cell_parts(value):
    """The class and the parts of a cell."""
    name = type(value).__name__
    return {"class": name, **CELLS[name][0](value)}


def build_cell(parts):
    """The cell that has these parts."""
    settings = {name: part for name, part in parts.items() if name != "class"}
    _expect(type(parts.get("class")) is str and parts["class"] in CELLS)
    return CELLS[parts["class"]][1](**settings)


# The types of pyarrow columns, by name, or by a pattern and the function that builds the type from its match.
_PLAIN = {
    "bool": "bool_", "date32[day]": "date32", "date64[ms]": "date64", "double": "float64", "float": "float32",
    "halffloat": "float16", "large_string": "large_string", "null": "null", "string": "string",
    **{f"{sign}int{size}": f"{sign}int{size}" for sign in ("", "u") for size in (8, 16, 32, 64)},
}  # fmt: skip
_UNIT = r"(?P<unit>s|ms|us|ns)"
_PATTERNS = (
    (re.compile(rf"timestamp\[{_UNIT}(, tz=(?P<tz>[\w/+:-]+))?\]"), lambda pa, m: pa.timestamp(m["unit"], tz=m["tz"])),
    (re.compile(rf"duration\[{_UNIT}\]"), lambda pa, m: pa.duration(m["unit"])),
    (re.compile(rf"time32\[{_UNIT}\]"), lambda pa, m: pa.time32(m["unit"])),
    (re.compile(rf"time64\[{_UNIT}\]"), lambda pa, m: pa.time64(m["unit"])),
    (re.compile(r"decimal128\((\d{1,2}), (-?\d{1,2})\)"), lambda pa, m: pa.decimal128(int(m[1]), int(m[2]))),
    (
        re.compile(r"dictionary<values=(large_string|string), indices=(u?int\d{1,2}), ordered=([01])>"),
        lambda pa, m: pa.dictionary(getattr(pa, m[2])(), getattr(pa, m[1])(), ordered=m[3] == "1"),
    ),
)


def arrow_parts(dtype):
    """The name of a pyarrow dtype of pandas."""
    return {"name": str(dtype.pyarrow_dtype)}


def build_arrow(parts):
    """The dtype that has this name."""
    name, pa, pd = parts.get("name"), _import("pyarrow"), _import("pandas")
    _expect(type(name) is str)
    if name in _PLAIN:
        return pd.ArrowDtype(getattr(pa, _PLAIN[name])())
    for pattern, build in _PATTERNS:
        match = pattern.fullmatch(name)
        if match:
            return pd.ArrowDtype(build(pa, match))
    raise ValueError(f"{name!r:.100} is not a dtype of a column that a file may have.")
