"""Columns of any kind as numbers whose densities are compared."""

import numpy as np

from .._utils.names import registered
from ..metrics._encoder import LARGEST, TableEncoder

# Categories of a column that have an indicator of their own.
_LEVELS = 20
# Categories that a warning lists.
_FEW = 10


@registered("resampling.NumberColumns")
class NumberColumns:
    """Numbers as they are, missing ones at the median with an indicator, and indicators of the frequent categories.

    Parameters
    ----------
    reference : frame or array-like of shape (n_rows, n_columns)
        The table that determines types and categories.
    name : str
        What it is called in errors.
    """

    def __init__(self, reference, name):
        self.encoder = TableEncoder(reference, name)
        columns = self.encoder.columns(reference, name)
        self.medians = [
            float(np.nanmedian(x)) if number else 0.0 for x, number in zip(columns, self.encoder.is_number, strict=True)
        ]

    # what fit has seen; of files that do not say it
    seen: list | None = None

    def see(self, *tables):
        """Note the categories of the columns of some tables, and which columns have missing values."""
        readings = list(zip(*(self.encoder.table.readings(X, quiet=True) for X in tables), strict=True))
        self.has_gaps = [any((part.gaps > 0).any() for part in column) for column in readings]
        self.seen = [
            None if number else list(dict.fromkeys(level for part in column for level in _present(part)))
            for column, number in zip(readings, self.encoder.is_number, strict=True)
        ]

    def told_unseen(self, X, input_name):
        """The columns that hold categories or missing values which no row of fit had, as text; empty for none."""
        told: list = []
        if self.seen is None:
            return ""
        for j, reading in enumerate(self.encoder.table.readings(X, input_name, quiet=True)):
            lost = 0 if self.has_gaps[j] else int((reading.gaps > 0).sum())
            told += [f"{self.encoder.names[j]!r} ({lost} rows miss it)"] if lost else []
            known = None if self.seen[j] is None else set(self.seen[j])
            unknown = [] if known is None else [v for v in dict.fromkeys(_present(reading)) if v not in known]
            told += [f"{self.encoder.names[j]!r} (unknown categories {unknown[:_FEW]})"] if unknown else []
        return ", ".join(told)

    def transform(self, X, input_name):
        """The rows as an array of numbers."""
        parts = []
        for j, values in enumerate(self.encoder.columns(X, input_name)):
            if self.encoder.is_number[j]:
                missing = np.isnan(values)
                parts.append(np.clip(np.where(missing, self.medians[j], values), -LARGEST, LARGEST)[:, None])
                if self.encoder.has_gaps[j]:
                    parts.append(missing[:, None].astype(float))
            else:
                n_levels = min(_LEVELS, len(self.encoder.levels[j]))
                parts.append((values[:, None] == np.arange(n_levels)).astype(float))
        return np.column_stack(parts)


def _present(reading):
    """The cells of a column that are not missing."""
    return reading.values[reading.gaps == 0].tolist()
