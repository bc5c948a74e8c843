"""Two mixed-type tables as one array of numbers, read in the same way whichever of them a row belongs to."""

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline

from .._utils.frames import Table
from .._utils.kinds import as_cells
from ._encoder import LARGEST
from ._tables import Filled

__all__ = ["PooledTables"]

# Categories of a column that the trees of scikit-learn tell apart, less the one that the rarer ones share.
_TREE_LEVELS = 253
# Categories of a column that distances tell apart; the rarer ones are alike.
_DISTANCE_LEVELS = 50
# Rows of a leaf: that of scikit-learn, and fewer where there are fewer than 400 rows to learn from.
_LEAF_ROWS = 20
_LEAF_SHARE = 0.05


class PooledTables:
    """The rows of two tables stacked: nothing about a column is taken from one of them alone.

    A test by permutations is exact only if each row is encoded without regard to the table that it came from. So the
    categories, the scales and the missing values of a column are those of both tables together.

    Parameters
    ----------
    X, Y : frame or array-like of shape (n_rows, n_columns)
        Mixed-type tables with the same columns; those of frames are found by name.
    names : tuple of str, default=("X", "Y")
        What the tables are called in errors.

    Attributes
    ----------
    n_first : int
        The number of rows of X, which come first.
    columns : list of ndarray of shape (n_rows,)
        Numbers as they are, categories as codes from the most frequent on, NaN for missing values.
    is_number : ndarray of bool
        Which columns hold numbers or dates.
    """

    def __init__(self, X, Y, names=("X", "Y")):
        X, Y = (as_cells(A, name) if isinstance(A, (list, tuple)) else A for A, name in zip((X, Y), names, strict=True))
        table = Table.of(X, names[0])
        table.owner = names[0]
        readings = zip(table.readings(X, names[0]), table.readings(Y, names[1], quiet=True), strict=True)
        pairs = [_checked(pair, name, names) for pair, name in zip(readings, table.names, strict=True)]
        if not pairs:
            raise ValueError(f"{names[0]} has no columns: pass a table with at least one.")
        self.n_first = len(pairs[0][0].gaps)
        self.is_number = np.array([all(r.is_number or r.gaps.all() for r in pair) for pair in pairs])
        self.columns = [
            _numbers(pair) if number else _codes(pair, name)
            for pair, number, name in zip(pairs, self.is_number, table.names, strict=True)
        ]

    def for_trees(self):
        """The array that gradient boosting reads."""
        columns = [
            values if number else np.minimum(values, _TREE_LEVELS)
            for values, number in zip(self.columns, self.is_number, strict=True)
        ]
        return np.clip(np.column_stack(columns), -LARGEST, LARGEST)

    def for_distances(self):
        """The array whose Euclidean distances compare rows: each column has a variance near one, or an indicator.

        Numbers are divided by their standard deviation, infinite ones lie one range beyond the others, and missing ones
        are at the median. A categorical column is an indicator of each category, over the square root of two, so that
        two different categories are at distance one. So is a column of which values are missing.
        """
        parts = []
        for values, number in zip(self.columns, self.is_number, strict=True):
            gap = np.isnan(values)
            if number:
                parts.append(_standardized(values)[:, None])
            else:
                n_levels = min(_DISTANCE_LEVELS, int(np.nanmax(values, initial=-1.0)) + 1)
                parts.append((np.minimum(values, n_levels)[:, None] == np.arange(n_levels)) / np.sqrt(2))
            if gap.any():
                parts.append(gap[:, None] / np.sqrt(2))
        return np.column_stack(parts)

    def classifier(self, n_rows, seed):
        """Gradient boosting for these columns, to be trained on so many of the rows."""
        leaf = int(np.clip(_LEAF_SHARE * n_rows, 1, _LEAF_ROWS))
        trees = HistGradientBoostingClassifier(
            categorical_features=~self.is_number, class_weight="balanced", min_samples_leaf=leaf, random_state=seed
        )
        return make_pipeline(Filled(), trees)


def _checked(pair, name, names):
    """The readings of a column in both tables, after a check that they hold the same kind of values."""
    first, second = pair
    if (first.gaps == 0).any():
        present = second.values[second.gaps == 0]
        if len(present) and first.quantity != second.quantity:
            raise ValueError(
                f"Column {name!r} holds {first.quantity} in {names[0]}, but {second.quantity} in {names[1]}, such as "
                f"{present[0]!r}: convert one of them."
            )
    return pair


def _numbers(pair):
    return np.concatenate([_cells(r, np.nan).astype(np.float64) for r in pair])


def _cells(reading, missing):
    values = reading.values if reading.is_number else np.zeros(len(reading.gaps))
    return np.where(reading.gaps > 0, missing, values.astype(np.float64))


def _codes(pair, name):
    """Codes of the categories of both tables: 0 for the most frequent one, NaN for a missing value."""
    cells = np.concatenate([np.asarray(r.values, dtype=object) for r in pair])
    gaps = np.concatenate([r.gaps > 0 for r in pair])
    counted: dict = {}
    try:
        for value in cells[~gaps]:
            counted[value] = counted.get(value, 0) + 1
    except TypeError as error:
        raise ValueError(
            f"Column {name!r} has cells that are not numbers, words or dates ({error}): split them into columns "
            "of their own, or drop the column."
        ) from error
    place = {level: k for k, level in enumerate(sorted(counted, key=lambda v: (-counted[v], str(v))))}
    return np.array([np.nan if gap else place[value] for value, gap in zip(cells, gaps, strict=True)])


def _standardized(values):
    """A column of numbers in units of its standard deviation; no value is infinite or missing."""
    finite = np.isfinite(values)
    if not finite.any():
        return np.where(np.isinf(values), np.sign(values), 0.0)
    low, high = values[finite].min(), values[finite].max()
    # halves, because the range of the largest floats is infinite
    half = (high / 2 - low / 2) or 1.0
    scaled = np.clip((values / 2 - low / 2) / half, -1.0, 2.0)
    scaled = np.where(np.isnan(scaled), np.median(scaled[finite]), scaled)
    spread = scaled.std()
    return (scaled - scaled.mean()) / (spread if np.ptp(scaled) > 0 else 1.0)
