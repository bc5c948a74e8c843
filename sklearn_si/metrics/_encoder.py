"""Tables as numbers, for distances and for trees."""

import numpy as np

from .._utils.frames import Table

# What stands for infinity where sums and thresholds are formed.
LARGEST = float(np.finfo(np.float32).max)
# Levels that the trees of scikit-learn tell apart.
_TREE_LEVELS = 254


class TableEncoder:
    """Tables as numbers for distances and for trees, by the columns of a reference table.

    Parameters
    ----------
    reference : frame or array-like of shape (n_rows, n_columns)
        Says kinds, scales and levels.

    Attributes
    ----------
    names : list
        Names of the columns.
    is_number : ndarray of bool
        Which columns hold numbers or dates; the others hold levels.
    """

    def __init__(self, reference):
        self.table = Table.of(reference, "reference")
        self.table.owner = "reference"
        self.names = self.table.names
        readings = self.table.readings(reference, "reference")
        # a column of nothing but gaps holds whatever the other table has
        self.is_number = np.array([r.is_number and bool((r.gaps == 0).any()) for r in readings])
        self.quantities = [r.quantity for r in readings]
        pairs = list(zip(readings, self.is_number, strict=True))
        self.levels = [
            None if number else _frequent(r, name) for (r, number), name in zip(pairs, self.names, strict=True)
        ]
        self.ranges = [_range(r) if number else None for r, number in pairs]
        self.has_gaps = [bool((r.gaps > 0).any()) for r in readings]

    def columns(self, X, input_name="X"):
        """Each column: numbers with NaN at gaps, or the number of the level (-1 unknown or rare, NaN at gaps)."""
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
        """The number of each cell among the levels of a column; -1 for none of them."""
        place = {level: k for k, level in enumerate(self.levels[j])}
        return np.array([place.get(value, -1.0) for value in _hashable(reading, self.names[j])], dtype=np.float64)

    def for_trees(self, X):
        """Numbers as they are and levels by number, gaps as NaN: what gradient boosting reads."""
        return np.clip(np.column_stack(self.columns(X)), -LARGEST, LARGEST)

    def for_distances(self, X):
        """Numbers to [0, 1] by the reference, a half at gaps; one column a level and one for gaps, halved (Gower).

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
    counted = {}
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
            f"Column {name!r} holds cells that are no numbers, words or dates ({error}): take them apart into columns "
            "of their own, or drop the column."
        ) from error
    return reading.values


def _range(reading):
    values = reading.values[reading.gaps == 0].astype(np.float64)
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    return low, high if high > low else low + max(1.0, 1e-3 * abs(low))
