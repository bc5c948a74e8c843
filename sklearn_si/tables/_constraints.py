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
# Least share of the rows in which columns with missing values have values together, where sums are looked for.
_COMPLETE = 0.2
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
    """The relations that hold in every row in which their columns have values, and would not by chance.

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
        if len(some) < 2 or len(readings[some[0]].gaps) < _BROKEN_ROWS:
            continue
        rows = _numbers(readings, some)
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


def _numbers(readings, some):
    """Columns of numbers beside each other, NaN where a value is missing."""
    return np.column_stack([np.where(readings[j].gaps > 0, np.nan, readings[j].values) for j in some])


def _inequalities(rows, totals):
    """Pairs (low, high) of columns: for each `high` the `low` from which it differs least."""
    d, first, pairs = rows.shape[1], rows[:_FIRST_ROWS], []
    for high in range(d):
        if high in totals:
            continue
        with np.errstate(invalid="ignore"):
            lows = np.flatnonzero(~(first > first[:, [high]]).any(0))
        spreads = {low: _spread(rows[:, low], rows[:, high]) for low in lows if low != high}
        best = min(spreads, key=spreads.__getitem__, default=None)
        if best is not None and spreads[best] < np.inf:
            pairs.append((int(best), high))
    return pairs


def _spread(low, high):
    """The deviation of high - low; infinity unless low <= high holds in all complete rows, and would not by chance."""
    complete = ~(np.isnan(low) | np.isnan(high))
    low, high = low[complete], high[complete]
    if len(low) < _BROKEN_ROWS or (low > high).any():
        return np.inf
    by_chance = (np.random.default_rng(0).permutation(low) > high).mean()
    spread = (high - low).std()
    rare = by_chance < max(_BROKEN_BY_CHANCE, _BROKEN_ROWS / len(low))
    return np.inf if rare or spread >= high.std() or spread == 0 else spread


def _sums(rows):
    """Pairs of a column and the columns whose sum it is in every complete row."""
    usable, n = _complete_together(rows)
    complete = rows[~np.isnan(rows[:, usable]).any(1)]
    found: list = []
    used: set = set()
    for total in usable:
        others = [j for j in usable if j != total and j not in {t for t, _ in found}]
        if total in used or not others or n <= len(others):
            continue
        some = complete[:_FIRST_ROWS]
        weights = np.linalg.lstsq(some[:, others] / _scale(complete[:, others]), some[:, total], rcond=None)[0]
        weights = weights / _scale(complete[:, others])
        parts = [j for j, w in zip(others, weights, strict=True) if abs(w - 1) < 1e-6]
        rest = [w for w in weights if abs(w - 1) >= 1e-6]
        if len(parts) < 2 or np.abs(rest).max(initial=0) > 1e-6:
            continue
        error = np.nanmax(np.abs(rows[:, total] - rows[:, parts].sum(1)))
        if error <= _ROUNDING * np.nanmax(np.abs(rows[:, parts]).sum(1)):
            found.append((total, parts))
            used.update(parts)
    return found


def _complete_together(rows):
    """Columns that have values in many rows together, and the number of these; those with fewest values go first."""
    present = ~np.isnan(rows)
    usable = list(range(rows.shape[1]))
    while len(usable) > 1 and present[:, usable].all(1).sum() < max(_BROKEN_ROWS, _COMPLETE * len(rows)):
        usable.remove(min(usable, key=lambda j: present[:, j].sum()))
    return usable, int(present[:, usable].all(1).sum())


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
        # which cells are missing makes combinations of its own
        while led and not _are_few(np.column_stack([labels[j] for j in (lead, *led)])):
            led.remove(min(led, key=lambda j: (labels[j] >= 0).sum()))
        if led:
            found.append(FixedCombinations(tuple(names[j] for j in sorted([lead, *led]))))
            taken.update([lead, *led])
    return found


def _are_few(labels):
    """Whether the combinations of some columns, missing cells counted, have many rows each in the mean."""
    return len(np.unique(labels, axis=0)) <= min(_MOST_LEVELS, len(labels) / _ROWS_OF_A_LEVEL)


def _labels(reading):
    """The levels of a column as integers, -1 where one is missing; None where there are too few or too many."""
    present = reading.gaps == 0
    if not present.any():
        return None
    labels, cells = np.full(len(present), -1), reading.values[present]
    if reading.is_number:
        labels[present] = np.unique(cells, return_inverse=True)[1]
    else:
        place: dict = {}
        try:
            labels[present] = [place.setdefault(value, len(place)) for value in cells.tolist()]
        except TypeError:  # cells that cannot be compared are refused, with their column's name, by the codec
            return None
    n_levels = labels.max() + 1
    return labels if 2 < n_levels <= min(_MOST_LEVELS, len(cells) / _ROWS_OF_A_LEVEL) else None


def _determines(lead, led):
    """Whether each level of one column stands with a single level of another, in complete rows enough to tell."""
    complete = (lead >= 0) & (led >= 0)
    if len(np.unique(lead[complete])) <= lead.max():
        return False  # of some levels no row tells
    lead, led = lead[complete], led[complete]
    pairs = np.unique(np.column_stack([lead, led]), axis=0)
    if len(pairs) > lead.max() + 1:
        return False
    shares = np.bincount(led) / len(led)
    return (len(lead) - len(pairs)) * (1 - (shares**2).sum()) >= _BROKEN_ROWS
