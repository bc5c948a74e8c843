"""Tables as numbers, for distances and for trees."""

import numpy as np

from .._utils.frames import Table

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
        self.names = self.table.names
        readings = self.table.readings(reference, "reference")
        self.is_number = np.array([reading.is_number for reading in readings])
        self.levels = [None if r.is_number else _frequent(r) for r in readings]
        self.ranges = [_range(r) if r.is_number else None for r in readings]
        self.has_gaps = [bool((r.gaps > 0).any()) for r in readings]

    def columns(self, X):
        """Each column: numbers with NaN at gaps, or the number of the level (-1 unknown or rare, NaN at gaps)."""
        found = []
        for reading, levels in zip(self.table.readings(X), self.levels, strict=True):
            if levels is None:
                if not reading.is_number:
                    raise ValueError(f"A column of numbers in reference holds {reading.values[0]!r}: give one type.")
                values = reading.values.astype(np.float64)
            else:
                place = {level: k for k, level in enumerate(levels)}
                values = np.array([place.get(value, -1.0) for value in reading.values], dtype=np.float64)
            found.append(np.where(reading.gaps > 0, np.nan, values))
        return found

    def for_trees(self, X):
        """Numbers as they are and levels by number, gaps as NaN: what gradient boosting reads."""
        return np.column_stack(self.columns(X))

    def for_distances(self, X):
        """Numbers to [0, 1] by the reference, a half at gaps; one column a level and one for gaps, halved (Gower)."""
        parts = []
        for j, values in enumerate(self.columns(X)):
            gap = np.isnan(values)
            if self.is_number[j]:
                low, high = self.ranges[j]
                parts.append(np.where(gap, 0.5, (values - low) / (high - low))[:, None])
            else:
                parts.append((values[:, None] == np.arange(len(self.levels[j]))) / 2)
            if self.has_gaps[j]:
                parts.append(gap[:, None] / 2)
        return np.column_stack(parts)


def _frequent(reading):
    counted = {}
    for value in reading.values[reading.gaps == 0]:
        counted[value] = counted.get(value, 0) + 1
    return sorted(counted, key=lambda level: (-counted[level], str(level)))[:_TREE_LEVELS]


def _range(reading):
    values = reading.values[reading.gaps == 0].astype(np.float64)
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    return low, high if high > low else low + 1.0
