"""Encode mixed-type tables as arrays of numbers, for distances and for trees."""

from typing import Any

import numpy as np

from .._utils.frames import Table
from .._utils.names import registered

# The number that replaces infinity in sums and thresholds.
LARGEST = float(np.finfo(np.float32).max)
# The number of categories of a column that the trees of scikit-learn tell apart.
_TREE_LEVELS = 254


@registered("metrics.TableEncoder")
class TableEncoder:
    """Encode tables as arrays of numbers, by the column types, ranges and categories of a reference table.

    Parameters
    ----------
    reference : frame or array-like of shape (n_rows, n_columns)
        The table that determines the types, ranges and categories of the columns.
    name : str, default="reference"
        What it is called in errors.

    Attributes
    ----------
    names : list
        Names of the columns.
    is_number : ndarray of bool
        Which columns hold numbers or dates; the others are categorical.
    """

    def __init__(self, reference, name="reference"):
        self.table = Table.of(reference, name)
        self.table.owner = name
        self.names = self.table.names
        readings = self.table.readings(reference, name)
        # A column without any value takes its type from the other table.
        self.is_number = np.array([r.is_number and bool((r.gaps == 0).any()) for r in readings])
        self.quantities = [r.quantity for r in readings]
        pairs = list(zip(readings, self.is_number, strict=True))
        self.levels: list[Any] = [
            None if number else _frequent(r, name) for (r, number), name in zip(pairs, self.names, strict=True)
        ]
        self.ranges: list[Any] = [_range(r) if number else None for r, number in pairs]
        self.has_gaps = [bool((r.gaps > 0).any()) for r in readings]

    def columns(self, X, input_name="X"):
        """Each column as floats: numbers as they are, categories as codes (-1 if unknown or rare); NaN is missing."""
        found = []
        for j, reading in enumerate(self.table.readings(X, input_name, quiet=True)):
            if self.is_number[j]:
                reading.check_quantity(self.quantities[j], self.names[j], input_name)
                values = reading.values.astype(np.float64) if reading.is_number else np.zeros(len(reading.gaps))
            else:
                values = self._numbered(j, reading)
            found.append(np.where(reading.gaps > 0, np.nan, values))
        return found

    def _numbered(self, j, reading):
        """The code of each cell among the categories of a column; -1 for none of them."""
        place = {level: k for k, level in enumerate(self.levels[j])}
        return np.array([place.get(value, -1.0) for value in _hashable(reading, self.names[j])], dtype=np.float64)

    def for_trees(self, X):
        """The array that gradient boosting reads: numbers as they are, codes of categories, NaN for missing values."""
        return np.clip(np.column_stack(self.columns(X)), -LARGEST, LARGEST)

    def for_distances(self, X):
        """The array whose L1 distance between rows is that of Gower (1971), summed over the columns.

        Numbers are mapped to [0, 1] by the range of the reference, missing ones to 1/2. A categorical column becomes
        one indicator for each category, and a column with missing values has one more; indicators count one half.
        Infinite numbers lie as far beyond the range of the reference as that is wide.
        """
        parts = []
        for j, values in enumerate(self.columns(X)):
            gap = np.isnan(values)
            if self.is_number[j]:
                low, high = self.ranges[j]
                scaled = _shares_of_range(values, low, high)
                parts.append(np.where(gap, 0.5, scaled)[:, None])
            else:
                parts.append((values[:, None] == np.arange(len(self.levels[j]))) / 2)
            if self.has_gaps[j]:
                parts.append(gap[:, None] / 2)
        return np.column_stack(parts)


def _shares_of_range(values, low, high):
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = (values - low) / (high - low)
    return np.where(np.isinf(values), np.where(values > 0, 2.0, -1.0), scaled)


def _frequent(reading, name):
    counted: dict[Any, int] = {}
    for value in _hashable(reading, name)[reading.gaps == 0]:
        counted[value] = counted.get(value, 0) + 1
    return sorted(counted, key=lambda level: (-counted[level], str(level)))[:_TREE_LEVELS]


def _hashable(reading, name):
    """The values of a column of levels, whose cells must be hashable."""
    try:
        for value in reading.values:
            hash(value)
    except TypeError as error:
        raise ValueError(
            f"Column {name!r} has cells that are not numbers, words or dates ({error}): split them into columns "
            "of their own, or drop the column."
        ) from error
    return reading.values


def _range(reading):
    values = reading.values[reading.gaps == 0].astype(np.float64)
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    return low, high if high > low else low + max(1.0, 1e-3 * abs(low))
