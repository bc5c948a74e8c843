"""Groups of the cells of a table: levels, ranges of numbers and dates, missing cells."""

import datetime
import numbers
from typing import Any

import numpy as np

from .._utils.cells import is_missing
from .._utils.names import registered

__all__ = ["Margin", "is_range", "ordered"]


@registered("tables.Margin")
class Margin:
    """The cells of one or several columns, in groups with a share each.

    Parameters
    ----------
    columns : tuple
        Names of the columns.
    groups : list of tuple
        For each group a level of each column: a value, None for missing cells, or a tuple (low, high) of numbers with
        low <= x < high, where None is no bound.
    shares : ndarray of shape (n_groups + 1,)
        The share of each group; the last is that of all other cells, NaN where there is none.
    """

    def __init__(self, columns: tuple[Any, ...], groups: list[tuple[Any, ...]], shares: np.ndarray) -> None:
        self.columns, self.groups, self.shares = columns, groups, shares

    def labels(self, cells: dict[Any, list[Any]]) -> np.ndarray:
        """The number of the group of each row; the last one for rows of none."""
        coded = [_distinct(cells[name]) for name in self.columns]
        n = len(coded[0][0])
        found, count = np.full(n, len(self.groups)), np.zeros(n, dtype=np.int64)
        for k, group in enumerate(self.groups):
            own = np.ones(n, dtype=bool)
            for level, (codes, values) in zip(group, coded, strict=True):
                own &= np.array([_matches(value, level) for value in values], dtype=bool)[codes]
            found[own], count = k, count + own
        if (count > 1).any():
            raise ValueError(
                f"totals[{self._told()}] has groups that overlap: a row is in {int(count.max())} of them. Let ranges "
                "(low, high), which hold low <= x < high, end where others begin."
            )
        return found

    def _told(self) -> str:
        return repr(self.columns[0] if len(self.columns) == 1 else self.columns)

    def named(self, k: int) -> str:
        """A group in errors and reports."""
        group = self.groups[k] if k < len(self.groups) else ("all others",)
        return repr(group[0] if len(group) == 1 else group)


def _distinct(cells: list[Any]) -> tuple[np.ndarray, list[Any]]:
    """The number of the distinct value of each cell, and these values; all missing cells are one."""
    known: dict[Any, int] = {}
    codes = [known.setdefault(None if is_missing(cell) else cell, len(known)) for cell in cells]
    return np.array(codes), list(known)


def _matches(value: Any, level: Any) -> bool:
    if is_missing(level):
        return value is None
    if not is_range(level):
        return value is not None and bool(value == level)
    (kind, x), (low, high) = ordered(value), (ordered(end) for end in level)
    if kind is None or any(end[0] not in (kind, None) for end in (low, high)):
        return False
    return (low[1] is None or x >= low[1]) and (high[1] is None or x < high[1])


def ordered(x: Any) -> tuple[str | None, Any]:
    """What can be ordered, as numpy has it: a number, a date or a time difference."""
    if isinstance(x, bool):
        return None, None
    if isinstance(x, datetime.datetime) and x.tzinfo is not None:
        x = x.astimezone(datetime.timezone.utc).replace(tzinfo=None)
    if isinstance(x, (datetime.date, np.datetime64)):
        return "date", np.datetime64(x)
    if isinstance(x, (datetime.timedelta, np.timedelta64)):
        return "time difference", np.timedelta64(x)
    return ("number", x) if isinstance(x, numbers.Real) else (None, None)


def is_range(level: Any) -> bool:
    """Whether a level is a pair of bounds, each of which may be None."""
    return isinstance(level, tuple) and len(level) == 2 and all(end is None or ordered(end)[0] for end in level)
