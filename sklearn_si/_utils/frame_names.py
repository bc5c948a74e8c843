"""The names of the columns of frames of pandas, polars and other libraries."""

import importlib
import sys

import numpy as np

__all__ = [
    "check_names",
    "in_order",
    "is_frame",
    "is_pandas",
    "is_row",
    "names_of",
    "narwhals_frame",
    "narwhals_series",
    "row_by_name",
]

# Largest number of columns whose names an error lists.
_FEW_NAMES = 30
# Largest number of cells that an error shows.
_FEW_CELLS = 5


def is_pandas(X, kind="DataFrame"):
    """Whether X is a frame (or a "Series") of pandas, without importing pandas."""
    pd = sys.modules.get("pandas")
    return pd is not None and isinstance(X, getattr(pd, kind))


def is_frame(X):
    """Whether X is a frame of any library."""
    return is_pandas(X) or _may_be_a_frame(X)


def _may_be_a_frame(X):
    return not isinstance(X, (np.ndarray, list, tuple)) and not is_pandas(X) and hasattr(X, "columns")


def narwhals_frame(X):
    """The narwhals frame of a frame of another library; None if X is not a frame, or narwhals is not installed."""
    if not _may_be_a_frame(X):
        return None
    try:
        nw = importlib.import_module("narwhals.stable.v2")
    except ModuleNotFoundError as error:
        raise ValueError(
            f"Got a {type(X).__name__}: frames of other libraries than pandas are read through narwhals, from 2.0 on: "
            "pip install 'narwhals>=2', or pass a pandas frame or an array."
        ) from error
    return nw.from_native(X, eager_only=True)


def narwhals_series(X):
    """The narwhals series of a column of another library; None if X is not a column."""
    if isinstance(X, (np.ndarray, list, tuple)) or is_pandas(X) or not hasattr(X, "to_frame"):
        return None
    return importlib.import_module("narwhals.stable.v2").from_native(X, series_only=True)


def row_by_name(X, names, input_name):
    """A pandas Series of cells by name as a dict of columns with one cell each; anything else is returned as it is.

    Raises
    ------
    ValueError
        When X is a column: a Series of pandas without the names in its index, or one of another library.
    """
    if not is_pandas(X, "Series"):
        if narwhals_series(X) is not None:
            raise ValueError(
                f"Got {input_name} as a Series of {type(X).__module__.split('.')[0]}, whose cells have no names: pass "
                f"a column as {input_name}.to_frame(), and a row as a frame of one row or a dict."
            )
        return X
    index = X.index.tolist()
    if not set(index) & set(names):
        raise ValueError(
            f"Got {input_name} as a Series with the index {index[:_FEW_CELLS]}, which has none of the columns "
            f"{list(names)[:_FEW_NAMES]}: a Series is one row, with names of columns as its index. Pass a column as "
            f"{input_name}.to_frame()."
        )
    check_names(names, index, input_name, partial=True)
    return {name: [cell] for name, cell in zip(index, X.tolist(), strict=True)}


def is_row(X, names):
    """Whether X is a pandas Series of the cells of one row: it has names of columns in its index."""
    return is_pandas(X, "Series") and not _is_numbered(X) and bool(set(X.index.tolist()) & set(names))


def _is_numbered(series):
    return type(series.index).__name__ == "RangeIndex"


def names_of(X):
    """The names of the columns of a frame; None for arrays, and for frames that number their columns from 0."""
    frame = X if is_pandas(X) else narwhals_frame(X)
    names = None if frame is None else list(frame.columns)
    return None if names is None or names == list(range(len(names))) else names


def in_order(X, names, input_name, reference="fit"):
    """A frame with its columns in the order of the names; anything without names is returned as it is.

    Parameters
    ----------
    X : frame or array-like
        A pandas Series whose index holds the names is one row.
    names : sequence or None
        The names; None leaves X as it is.
    input_name : str
        What X is called in errors.
    reference : str, default="fit"
        Where the names come from, in errors.

    Raises
    ------
    ValueError
        When X lacks some of the names, or has others.
    """
    if names is None:
        return X
    names = list(names)
    if is_pandas(X, "Series"):
        own = X.index.tolist()
        return X[names] if own != names and len(own) == len(names) and set(own) == set(names) else X
    own = names_of(X)
    if own is None or own == names:
        return X
    check_names(names, own, input_name, reference=reference)
    return X.select(names) if narwhals_frame(X) is not None else X[names]


def check_names(names, own, input_name, partial=False, reference="fit"):
    """Raise a ValueError that names columns which are missing (unless `partial`), unknown or repeated."""
    missing = [] if partial else [name for name in names if name not in own]
    unknown = [name for name in own if name not in names]
    if missing or unknown:
        wrong = [f"{what} {some}" for what, some in (("missing", missing), ("unknown", unknown)) if some]
        known = f"; they are {list(names)}" if len(names) <= _FEW_NAMES else ""
        raise ValueError(f"{input_name} must have the columns of {reference}: {', '.join(wrong)}{known}.")
    repeated = sorted({str(name) for name in own if own.count(name) > 1})
    if repeated:
        raise ValueError(f"{input_name} has several columns of the names {repeated}: rename or drop all but one.")
