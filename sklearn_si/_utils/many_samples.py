"""Several samples: given as a list, or as one frame with a column that says to which each row belongs."""

import numbers
from collections.abc import Hashable
from typing import Any

import numpy as np

from .cells import is_missing
from .columns import Series
from .frame_names import is_frame, is_pandas, narwhals_frame, narwhals_series
from .kinds import as_cells

# Labels that an error lists.
_FEW = 30


def is_list_of_samples(X: Any) -> bool:
    """Whether X is a list of arrays or frames, or an array of three dimensions."""
    if isinstance(X, np.ndarray) and X.dtype != object:
        return X.ndim == 3
    return isinstance(X, (list, tuple)) and len(X) > 0 and all(_is_sample(one) for one in X)


def _is_sample(X: Any) -> bool:
    return getattr(X, "ndim", 0) == 2 or hasattr(X, "columns") or (isinstance(X, (list, tuple)) and np.ndim(X) == 2)


def refuse_list(X: Any, name: str, estimator: Any) -> None:
    """Raise a ValueError for a list of samples, which says where they are learned."""
    if isinstance(X, (list, tuple)) and len(X) > 1 and all(hasattr(one, "shape") and _is_sample(one) for one in X):
        raise ValueError(
            f"{name} is a list of {len(X)} samples, but {type(estimator).__name__}.fit takes one sample, fit(X), or "
            "two, fit(X0, X1): pass them one by one, or learn three or more in one model by MultimarginalFlow().fit("
            "[X0, X1, ..., XK], times=...)."
        )


def without_groups(X: Any, groups: Any) -> tuple[Any, np.ndarray, list[Any] | None]:
    """The rows without the column of their groups, the group of each row, and the order that a dtype gives groups."""
    if np.ndim(groups) == 0:
        own = _all_names(X)
        if own is None or _count(groups, own) != 1:
            raise ValueError(_no_such_column(groups, own))
        rest = [name for name in own if not _count(groups, [name])]
        column = X[groups]
        return (X.select(rest) if narwhals_frame(X) is not None else X[rest]), np.asarray(column), _order(column)
    column = as_cells(groups, "groups")
    n = len(X)
    if column.shape != (n,):
        named = ", or the name of a column" if is_frame(X) else ""
        raise ValueError(
            f"groups has the shape {column.shape}, but expected ({n},): one label for each row of X{named}."
        )
    return X, column, _order(groups)


def _all_names(X: Any) -> list[Any] | None:
    """The names of the columns of a frame, also where they are the numbers from 0; None for arrays."""
    return list(X.columns) if is_frame(X) else None


def _count(name: Any, names: list[Any]) -> int:
    """How often a name is among some; a truth value is no number."""
    return sum(isinstance(one, bool) == isinstance(name, bool) and bool(one == name) for one in names)


def _no_such_column(groups: Any, names: list[Any] | None) -> str:
    """Why one value cannot be the name of the column that tells the groups."""
    if names is None:
        column = f", such as X[:, {groups}]" if isinstance(groups, numbers.Integral) else ""
        return (
            f"Got groups={groups!r}, but X has no column names: give one label for each row{column}, or pass X as a "
            "frame."
        )
    count = _count(groups, names)
    known = f"{count} columns have this name" if count else f"the columns are {names[:_FEW]}"
    return f"Got groups={groups!r}, but {known}: name a column of X, or give one label for each row."


def _order(column: Any) -> list[Any] | None:
    """The categories of a column whose dtype orders them; None for other columns."""
    if any(is_pandas(column, kind) for kind in ("Series", "Categorical", "Index")):
        told = Series(None, column.dtype, "pandas")
    else:
        series = narwhals_series(column)
        if series is None:
            return None
        told = Series(None, series.dtype, "narwhals")
    return told.own_levels if told.is_ordered else None


def check_groups(column: np.ndarray, order: list[Any] | None = None) -> list[Any]:
    """The labels of groups, numbers or text, sorted or in the order of their categories."""
    if column.dtype.kind in "mM":
        raise ValueError(
            "groups holds dates or time differences, which are not numbers of a known unit: convert them first, for "
            "example to days since a date of your choice."
        )
    cells = column.tolist()
    missing = [row for row, cell in enumerate(cells) if is_missing(cell)]
    if missing:
        raise ValueError(
            f"groups is missing at row {missing[0]} ({len(missing)} such rows): leave these rows out, or give them a "
            "label of their own."
        )
    kinds = {_kind(cell) for cell in cells}
    if len(kinds) != 1 or None in kinds:
        raise ValueError(
            f"groups holds {sorted({type(cell).__name__ for cell in cells})}, but expected numbers (the times of the "
            "samples) or text (samples without an order): convert it."
        )
    labels = sorted(set(cells))
    if kinds == {"numbers"} and not np.isfinite(labels).all():
        raise ValueError("groups holds infinite numbers, but a time is finite: leave these rows out.")
    return labels if order is None else [label for label in order if label in set(cells)]


def _kind(cell: Any) -> str | None:
    if isinstance(cell, (bool, np.bool_, str)):
        return "text"
    return "numbers" if isinstance(cell, numbers.Real) else None


def times_of_labels(labels: list[Any], times: Any) -> np.ndarray | None:
    """The times of groups: given by a dict, or the labels themselves where these are numbers."""
    if times is None:
        if _kind(labels[0]) == "text":
            return None
        if labels != sorted(labels):
            raise ValueError(
                f"groups has ordered categories {labels[:_FEW]}, which are numbers in another order, so that they "
                "cannot be the times of the samples: give a dict from each label to its time, times=."
            )
        return np.asarray(labels, dtype=np.float64)
    if not isinstance(times, dict):
        raise ValueError(
            f"Got times={times!r} with groups, which are sorted by their labels {labels[:_FEW]}: give a dict from each "
            "label to its time."
        )
    missing = [label for label in labels if label not in times]
    unknown = [label for label in times if label not in labels]
    if missing or unknown:
        raise ValueError(
            f"times must have the labels of groups, {labels[:_FEW]}: missing {missing[:_FEW]}, unknown "
            f"{unknown[:_FEW]}."
        )
    return check_times([times[label] for label in labels], len(labels))


def check_times(times: Any, n: int) -> np.ndarray:
    """Finite and different times, one for each sample."""
    if isinstance(times, (dict, str)) or not np.iterable(times):
        raise ValueError(f"Got times={times!r}, but expected a list of {n} numbers, one for each sample.")
    values = list(times)
    bad = [v for v in values if isinstance(v, (bool, np.bool_)) or not isinstance(v, numbers.Real)]
    if bad:
        raise ValueError(
            f"times has {bad[0]!r} of class {type(bad[0]).__name__}, but expected numbers: convert dates first, for "
            "example to days since a date of your choice."
        )
    array = np.asarray(values, dtype=np.float64)
    if len(array) != n:
        raise ValueError(f"times has {len(array)} entries, but there are {n} samples: give one time for each.")
    if not np.isfinite(array).all():
        raise ValueError(f"times has the entry {array[~np.isfinite(array)][0]}, but a time is finite.")
    if len(np.unique(array)) < n:
        again = sorted(t for t in set(array.tolist()) if (array == t).sum() > 1)
        raise ValueError(
            f"times has {again[0]:g} more than once: put the samples of one time together, or give them other times."
        )
    return array


def plain(label: Any) -> Hashable:
    """A label as a plain Python value."""
    return label.item() if isinstance(label, np.generic) else label


def column_names(estimator: Any) -> list[Any]:
    """Names of the columns of a fit that reads samples, or their numbers where it saw none."""
    return list(vars(estimator).get("feature_names_in_", range(estimator.n_features_in_)))
