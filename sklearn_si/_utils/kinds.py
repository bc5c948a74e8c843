"""Kinds of cells that numpy would misread without a warning: masked ones, dates, complex numbers."""

import datetime
import functools
from typing import Any

import numpy as np
from scipy import sparse

from .frame_names import is_frame, names_of, narwhals_frame

__all__ = ["as_cells", "check_cells", "check_masked", "columns_at_fault", "refuse_dict", "told"]

# How the names of such columns begin, in numpy, pandas, pyarrow and polars.
_DATED_DTYPES = ("date", "time", "period", "duration")
_DATED_TYPES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64)
# Classes of cells that numpy would convert to each other, or to numbers.
_FAMILIES = (str, bytes, (bool, np.bool_), *_DATED_TYPES)
# Kinds of cells that are refused, and what errors say of them; objects are looked at one by one.
_DATES, _COMPLEX, _OBJECTS = "dates", "complex", "objects"
_REFUSALS = {
    _DATES: "{} has dates or time differences, which are not numbers of a known unit: convert them first, for example "
    "to days since a date of your choice.",
    _COMPLEX: "Complex data not supported: {} has complex numbers. Pass their parts, or their sizes and angles, as "
    "columns.",
}

# Largest number of columns that an error names.
_FEW_NAMES = 30


def check_masked(X, name):
    """Raise a ValueError if cells are masked: of an array, of one in a list, or of the columns of a dict."""
    if isinstance(X, dict) and not sparse.issparse(X):  # sparse arrays of keys are dicts
        for column, cells in X.items():
            check_masked(cells, f"{name}[{column!r}]")
    parts = X if isinstance(X, (list, tuple)) else [X]
    n_masked = sum(int(np.ma.count_masked(part)) for part in parts if isinstance(part, np.ma.MaskedArray))
    if n_masked:
        raise ValueError(
            f"{name} is a masked array with {n_masked} masked cells, whose hidden values would count: leave those rows "
            f"out, or pass {name}.filled(np.nan) where missing values are accepted (InterpolantImputer, "
            "TableSynthesizer, given=)."
        )


def as_cells(X, name):
    """Cells as an array; of a list with cells of several kinds, one of objects: numbers beside words stay numbers."""
    check_masked(X, name)
    refuse_dict(X, name)
    if not isinstance(X, (list, tuple)):
        return np.asarray(X)
    try:
        values = _array_of(X, name)
    except TypeError:  # dates beside numbers
        return np.asarray(X, dtype=object)
    if values.dtype == object:
        return values
    objects = np.asarray(X, dtype=object)
    return objects if len({_family(kind) for kind in {type(cell) for cell in objects.flat}}) > 1 else values


def _family(kind):
    """The first of some classes that a class belongs to; None for numbers."""
    return next((family for family in _FAMILIES if issubclass(kind, family)), None)


def _array_of(X, name):
    """What was given as an array; an error about rows of unequal lengths names it."""
    try:
        return np.asarray(X)
    except ValueError as error:
        raise ValueError(f"{name} cannot be read as rows and columns, or as a vector: {error}") from error


def refuse_dict(X, name):
    """Raise a ValueError for a dict in the place of rows."""
    if isinstance(X, dict) and not sparse.issparse(X):  # sparse arrays of keys are dicts
        raise ValueError(f"{name} is a dict, not rows and columns: pass a frame, such as pandas.DataFrame({name}).")


def check_cells(X, name):
    """The rows in the native byte order, after a check for cells that numpy would misread without a warning.

    Dates and time differences would become integers such as 1.6e15, complex numbers would lose a part, and the hidden
    values of a masked array would count. X may also be a vector, such as a target or weights.
    """
    check_masked(X, name)
    dtype: Any = getattr(X, "dtype", None)
    if getattr(dtype, "names", None):
        raise ValueError(
            f"{name} is a structured array with the fields {list(dtype.names)}, not an array of rows and columns: pass "
            "numpy.lib.recfunctions.structured_to_unstructured(X), or a frame."
        )
    refuse_dict(X, name)
    if isinstance(dtype, np.dtype) and dtype.kind == "f":
        return X if dtype.isnative else np.asarray(X, dtype=dtype.newbyteorder("="))
    values: Any = X if hasattr(X, "dtype") or hasattr(X, "dtypes") or is_frame(X) else _array_of(X, name)
    found = [_kind_of(dtype) for dtype in _dtypes(values)]
    if _OBJECTS in found:
        found += [_kind_of_cell(cell) for cell in np.asarray(values, dtype=object).flat]
    for kind, refusal in _REFUSALS.items():
        if kind in found:
            raise ValueError(refusal.format(name) + told(columns_at_fault(X, functools.partial(_holds, kind))))
    return X


def _dtypes(values):
    """The dtypes of the columns of a frame, or the one of an array; of categories, that of their values."""
    frame: Any = narwhals_frame(values)  # None for those of pandas and for arrays
    if frame is not None:
        return list(frame.schema.values())
    dtypes = list(values.dtypes) if np.ndim(getattr(values, "dtypes", 0)) else [getattr(values, "dtype", None)]
    # text of other libraries has no `categories`
    return [getattr(getattr(dtype, "categories", None), "dtype", dtype) for dtype in dtypes]


def _kind_of(dtype):
    """Which of the kinds that are refused, or `_OBJECTS`, a dtype is of; None for others."""
    name = str(dtype).lower()
    if name.startswith(_DATED_DTYPES):
        return _DATES
    return _COMPLEX if name.startswith("complex") else _OBJECTS if name == "object" else None


def _kind_of_cell(cell):
    if isinstance(cell, _DATED_TYPES):
        return _DATES
    return _COMPLEX if isinstance(cell, (complex, np.complexfloating)) else None


def _holds(kind, cells):
    """Whether a column is of a kind, or one of its objects is."""
    return _kind_of(cells.dtype) == kind or (cells.dtype == object and kind in map(_kind_of_cell, cells.flat))


def columns_at_fault(X, is_at_fault, with_arrays=False):
    """The names of the columns of a frame of which something is true, or the positions of those of an array."""
    own = names_of(X)
    if own is not None:
        return [name for name in own if is_at_fault(np.asarray(X[name]))]
    if not with_arrays or sparse.issparse(X):
        return []
    cells = np.asarray(X)
    return [j for j in range(cells.shape[1]) if is_at_fault(cells[:, j])] if cells.ndim == 2 else []


def told(columns):
    """A sentence that names columns; an empty one for none."""
    return f"\nThe columns at fault are {columns[:_FEW_NAMES]}." if columns else ""
