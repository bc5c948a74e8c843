"""Relations between the columns of a table: what users say of them, and what is found in the rows."""

import dataclasses

import numpy as np

from .._utils.names import registered

__all__ = ["FixedCombinations", "Inequality", "Sum", "find_constraints"]

# Distinct numbers of a column that may be part of a found inequality or sum.
_DISTINCT = 10
# Share of rows that would break a found relation if its columns were independent, and least number of such rows: below
# these, that no row breaks it says little.
_BROKEN_BY_CHANCE = 0.05
_BROKEN_ROWS = 20
# Columns of numbers beyond which none are compared, and rows that are looked at first.
_MOST_COLUMNS = 60
_FIRST_ROWS = 2000
# Levels of a column, and rows of a level in the mean, where found combinations are concerned.
_MOST_LEVELS = 200
_ROWS_OF_A_LEVEL = 10
# Largest relative error of a sum that is one.
_ROUNDING = 1e-9


@registered("tables.Inequality")
@dataclasses.dataclass(frozen=True)
class Inequality:
    """The column `low` is at most the column `high` in every row in which both have a value.

    Parameters
    ----------
    low, high : object
        Names of two columns of numbers, or of two columns of dates (numbers of the columns of an array).
    strict : bool, default=False
        Whether they are never equal.
    """

    low: object
    high: object
    strict: bool = False

    @property
    def columns(self):
        """The columns of the relation."""
        return (self.low, self.high)


@registered("tables.Sum")
@dataclasses.dataclass(frozen=True)
class Sum:
    """The column `total` is the sum of the columns `parts` in every row, up to the rounding of `total`.

    Parameters
    ----------
    total : object
        Name of a column of numbers.
    parts : tuple
        Names of the columns that are added.
    """

    total: object
    parts: tuple

    def __post_init__(self):
        object.__setattr__(self, "parts", tuple(self.parts))

    @property
    def columns(self):
        """The columns of the relation."""
        return (self.total, *self.parts)


@registered("tables.FixedCombinations")
@dataclasses.dataclass(frozen=True)
class FixedCombinations:
    """The cells of some columns stand together in no other way than in the rows of fit.

    Parameters
    ----------
    columns : tuple
        Names of two columns or more with levels.
    """

    columns: tuple

    def __post_init__(self):
        object.__setattr__(self, "columns", tuple(self.columns))


def find_constraints(names, series, readings, kinds):
    """The relations that hold in every row, and would not by chance.

    Parameters
    ----------
    names : list
    series : list of Series
    readings : list of Reading
    kinds : dict
        Kinds that the user has given; such columns are left alone.

    Returns
    -------
    constraints : list
        No column is determined by two of them.
    """
    free = [j for j, name in enumerate(names) if name not in kinds]
    found = _combinations(names, readings, free)
    taken = {name for relation in found for name in relation.columns}
    numbers = [j for j in free if names[j] not in taken and _is_measured(readings[j])][:_MOST_COLUMNS]
    for sort in dict.fromkeys(_sort(series[j], readings[j]) for j in numbers):
        some = [j for j in numbers if _sort(series[j], readings[j]) == sort]
        rows = _complete_numbers(readings, some)
        if len(some) < 2 or len(rows) < _BROKEN_ROWS:
            continue
        sums = _sums(rows) if sort == "numbers" else []
        totals = {total for total, _ in sums}
        found += [Sum(names[some[total]], tuple(names[some[p]] for p in parts)) for total, parts in sums]
        inequalities = _inequalities(rows, totals)
        found += [Inequality(names[some[low]], names[some[high]]) for low, high in inequalities]
    return found


def _sort(series, reading):
    """What numbers have to share to be compared: dates their unit as well."""
    return reading.quantity if reading.quantity == "numbers" else (reading.quantity, str(series.dtype))


def _is_measured(reading):
    present = reading.values[reading.gaps == 0]
    return reading.is_number and len(np.unique(present[:_FIRST_ROWS])) >= _DISTINCT and np.isfinite(present).all()


def _complete_numbers(readings, some):
    """The rows in which no column of numbers has a missing value; columns with many missing values become NaN."""
    columns = [readings[j].values.astype(np.float64) for j in some]
    gaps = np.column_stack([readings[j].gaps > 0 for j in some]) if some else np.empty((0, 0), dtype=bool)
    # A column with missing values is not part of any relation that is found.
    return np.where(gaps.any(0), np.nan, np.column_stack(columns)) if some else np.empty((0, 0))


def _inequalities(rows, totals):
    """Pairs (low, high) of columns: for each `high` the `low` from which it differs least."""
    n, d = rows.shape
    first, pairs = rows[:_FIRST_ROWS], []
    scales, shuffled = rows.std(0), rows[np.random.default_rng(0).permutation(n)]
    for high in range(d):
        if high in totals:
            continue
        with np.errstate(invalid="ignore"):
            lows = np.flatnonzero((first <= first[:, [high]]).all(0))
        best = None
        for low in lows:
            if low == high or (rows[:, low] > rows[:, high]).any():
                continue
            by_chance = (shuffled[:, low] > rows[:, high]).mean()
            spread = (rows[:, high] - rows[:, low]).std()
            if by_chance < max(_BROKEN_BY_CHANCE, _BROKEN_ROWS / n) or spread >= scales[high] or spread == 0:
                continue
            if best is None or spread < best[0]:
                best = spread, low
        if best is not None:
            pairs.append((int(best[1]), high))
    return pairs


def _sums(rows):
    """Pairs of a column and the columns whose sum it is in every row."""
    n, d = rows.shape
    usable = [j for j in range(d) if not np.isnan(rows[:, j]).any()]
    found: list = []
    used: set = set()
    for total in usable:
        others = [j for j in usable if j != total and j not in {t for t, _ in found}]
        if total in used or not others or n <= len(others):
            continue
        some = rows[:_FIRST_ROWS]
        weights = np.linalg.lstsq(some[:, others] / _scale(rows[:, others]), some[:, total], rcond=None)[0]
        weights = weights / _scale(rows[:, others])
        parts = [j for j, w in zip(others, weights, strict=True) if abs(w - 1) < 1e-6]
        rest = [w for w in weights if abs(w - 1) >= 1e-6]
        if len(parts) < 2 or np.abs(rest).max(initial=0) > 1e-6:
            continue
        error = np.abs(rows[:, total] - rows[:, parts].sum(1)).max()
        if error <= _ROUNDING * np.abs(rows[:, parts]).sum(1).max():
            found.append((total, parts))
            used.update(parts)
    return found


def _scale(columns):
    return np.maximum(np.abs(columns).max(0), np.finfo(float).tiny)


def _combinations(names, readings, free):
    """Groups of columns of which the first determines the others."""
    labels = {}
    for j in free:
        label = _labels(readings[j])
        if label is not None:
            labels[j] = label
    found: list = []
    taken: set = set()
    # where two columns determine each other, the first one leads
    for lead in sorted(labels, key=lambda j: -labels[j].max()):
        led = [j for j in labels if j != lead and not {j, lead} & taken and _determines(labels[lead], labels[j])]
        if led:
            found.append(FixedCombinations(tuple(names[j] for j in sorted([lead, *led]))))
            taken.update([lead, *led])
    return found


def _labels(reading):
    """The levels of a column as integers; None where there are too few or too many."""
    if (reading.gaps > 0).any():
        return None
    if reading.is_number:
        _, labels = np.unique(reading.values, return_inverse=True)
    else:
        place: dict = {}
        try:
            labels = np.array([place.setdefault(value, len(place)) for value in reading.values.tolist()])
        except TypeError:  # cells that cannot be compared are refused, with their column's name, by the codec
            return None
    n_levels = labels.max() + 1
    return labels if 2 < n_levels <= min(_MOST_LEVELS, len(labels) / _ROWS_OF_A_LEVEL) else None


def _determines(lead, led):
    """Whether each level of one column stands with a single level of another, in rows enough to tell."""
    pairs = np.unique(np.column_stack([lead, led]), axis=0)
    if len(pairs) > lead.max() + 1:
        return False
    shares = np.bincount(led) / len(led)
    return (len(lead) - len(pairs)) * (1 - (shares**2).sum()) >= _BROKEN_ROWS
