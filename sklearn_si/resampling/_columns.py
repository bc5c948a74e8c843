"""Columns of any kind as numbers whose densities are compared."""

import numpy as np

from .._utils.names import registered
from ..metrics._encoder import LARGEST, TableEncoder

# Categories of a column that have an indicator of their own.
_LEVELS = 20


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
