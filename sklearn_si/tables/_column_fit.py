"""The kind, the levels, spikes and intervals of a column, from its cells."""

import dataclasses
from typing import Any

import numpy as np

from .._utils.frames import Reading
from ..preprocessing._splines import fit_spline
from ._bins import grid_bins, smooth_bins
from ._columns import Column, find_lattice

__all__ = ["Resolution", "fit_column", "resolution_of"]

# Numbers with at most so many distinct values, of which each stands for so many rows in the mean, repeat.
_MOST_LEVELS = 1000
_ROWS_OF_A_LEVEL = 10
# Multiple of the rows of its neighbours (so many on either side) from which a number is a spike.
_SPIKE_EXCESS = 5
_NEIGHBOURS = 3
# Shares of the rows, with the least numbers of rows beside them, from which it is one: where the latter is many rows, a
# smaller share is no accident.
_SPIKE_SHARE = 0.01
_SPIKE_ROWS = 5
_SMALL_SPIKE_SHARE = 0.002
_SMALL_SPIKE_ROWS = 10
# Most spikes of a column.
_MOST_SPIKES = 40
# Rows of an interval of numbers in the mean; most intervals; rows below which there is one.
_BIN_ROWS = 250
_MOST_BINS = 64
_FEWEST_ROWS = 5000
# A value further from all others than this many times twice their interquartile range is a sentinel (9999-12-31, -999):
# of dates always, of numbers where several rows hold it.
_APART = 10
# Values that are needed to tell; most sentinels on either side.
_OTHERS = 10
_MOST_SENTINELS = 3
# The largest whole number that floats hold exactly, with all below it.
_EXACT = 2**53
# Rows of a drawn table, as large as that of fit, that stand at either end of a column's range: with five, four
# of four tables drawn like default have all extremes, with three two of four.
_ROWS_AT_AN_END = 5
# The largest share of rows for this, which would be seen in small tables: of numbers that repeat, and of others, whose
# long tails more rows would widen.
_MOST_AT_A_LEVEL = 5e-4
_MOST_AT_AN_END = 3e-4
# Classes of pandas whose objects have an order.
_ORDERED_TYPES = {"Interval", "Period"}
# Numbers that are few enough to be told apart level by level, whatever the rows.
_FEW_LEVELS = 20


@dataclasses.dataclass(frozen=True)
class Resolution:
    """How finely numbers are told by codes alone.

    Parameters
    ----------
    n_bins : int
        Intervals of a column of numbers.
    most_levels : int
        Distinct numbers up to which each is a level.
    """

    n_bins: int = 1
    most_levels: int = _MOST_LEVELS


def resolution_of(n):
    """What n rows can tell apart."""
    bins = 1 if n < _FEWEST_ROWS else min(_MOST_BINS, n // _BIN_ROWS)
    return Resolution(bins, max(_FEW_LEVELS, 2 * bins))


def fit_column(
    name, reading: Reading, kind=None, *, own_levels=None, ordered=False, dtype=None, min_frequency=None,
    resolution=Resolution(),
):  # fmt: skip
    """The codec of a column, of a given kind or of the one that suits it.

    Parameters
    ----------
    name : object
    reading : Reading
    kind : {"categorical", "discrete", "continuous", None}
        None finds it.
    own_levels : list, default=None
        Levels in the order that the dtype gives them.
    ordered : bool, default=False
        Whether that order means something.
    dtype : dtype, default=None
        Of floats, for the number of decimals.
    min_frequency : int or None, default=None
        Levels of fewer rows share a code.
    resolution : Resolution
    """
    present = reading.values[reading.gaps == 0]
    gap_counts = np.bincount(reading.gaps, minlength=len(reading.kinds) + 1)[1:]
    gap_kinds = tuple(k for k, count in zip(reading.kinds, gap_counts, strict=True) if count)
    gap_counts = gap_counts[gap_counts > 0]
    if kind in ("discrete", "continuous") and len(present) and not reading.is_number:
        raise ValueError(
            f"Column {name!r} was given as {kind!r}, but it holds {present[0]!r}, which is not a number: leave it out "
            "of `kinds`, or use 'categorical'."
        )
    levels, counts = _levels(present, own_levels)
    grid = kind is None
    kind = kind or _suitable_kind(reading, levels, counts, resolution.most_levels)
    if kind == "continuous" and len(levels) > 1:
        column = _fit_continuous(name, reading, present, levels, counts, gap_kinds, gap_counts, dtype, resolution, grid)
        if column is not None:
            return column
    kind = "categorical" if kind == "continuous" and not reading.is_number else kind
    merged = _merge_rare(counts, min_frequency) if kind == "categorical" else None
    code_counts = counts if merged is None else np.bincount(merged, counts)
    if kind == "discrete" and reading.is_number and len(levels):
        code_counts = _with_ends(code_counts)
    shares = np.concatenate([code_counts, gap_counts])
    shares = shares / shares.sum()
    kind = "constant" if len(shares) == 1 else "discrete" if reading.is_number and kind != "categorical" else kind
    level_shares = None if merged is None else counts / counts.sum()
    ordered = not reading.is_number and (ordered or _have_order(levels))
    return Column(
        name, kind, levels, gap_kinds, shares, merged=merged, level_shares=level_shares, quantity=reading.quantity,
        ordered=ordered,
    )  # fmt: skip


def _levels(present, own_levels):
    """The distinct values in order, and their rows."""
    if present.dtype.kind in "if":
        return np.unique(present, return_counts=True)
    counted: dict[Any, int] = {}
    for value in present:
        counted[value] = counted.get(value, 0) + 1
    if own_levels is not None:
        order = [level for level in own_levels if level in counted]
    elif _have_order(counted):
        order = sorted(counted)
    else:
        order = sorted(counted, key=lambda level: (type(level).__name__, level if _sorts(level) else str(level)))
    levels = np.empty(len(order), dtype=object)
    levels[:] = order
    return levels, np.array([counted[level] for level in order], dtype=np.int64)


def _have_order(levels):
    """Whether levels are intervals or periods, which lie one after the other."""
    return len(levels) > 0 and {type(level).__name__ for level in levels} <= _ORDERED_TYPES


def _sorts(level):
    return isinstance(level, (str, int, float, bool))


def _repeat(counts):
    return len(counts) <= _MOST_LEVELS and counts.sum() >= _ROWS_OF_A_LEVEL * len(counts)


def _suitable_kind(reading, levels, counts, most):
    if not reading.is_number:
        return "categorical"
    few = len(levels) <= most and _repeat(counts)
    return "discrete" if few or len(levels) <= 2 else "continuous"


def _fit_continuous(name, reading, present, levels, counts, gap_kinds, gap_counts, dtype, resolution, grid):
    """The codec of numbers with a density beside their spikes; None where nothing but spikes is left."""
    n = len(reading.gaps)
    is_date = reading.quantity == "dates"
    spikes = np.isinf(levels.astype(np.float64)) | _are_spikes(counts) | _are_sentinels(levels, counts, is_date)
    if (~spikes).sum() < 2:
        return None
    origin = int(levels[~spikes].min()) if present.dtype.kind == "i" else None
    if origin is not None:
        _check_span(name, levels[~spikes], levels[spikes], reading.quantity)
        present, levels = present - origin, levels - origin
    numbers, rows = levels[~spikes], counts[~spikes]
    lattice, bounds = find_lattice(numbers, dtype or np.float64), (numbers[0], numbers[-1])
    numbers = numbers.astype(np.float64)
    if grid and _repeat(rows) and resolution.most_levels < _MOST_LEVELS:
        spacing = lattice.spacing if lattice else np.ptp(numbers) / (len(numbers) - 1)
        bins, lattice = grid_bins(numbers, _with_ends(rows), resolution.n_bins, spacing), None
    else:
        ordinary, jitter = present[~np.isin(present, levels[spikes])].astype(np.float64), 0.0
        if lattice is not None:
            # evenly over the cell of each number: the quantiles of the knots do not depend on a seed
            jitter = lattice.spacing * (_ranks_among_equals(ordinary) - 0.5)
        spline = fit_spline(ordinary + jitter)
        bins = smooth_bins(spline, numbers, rows, resolution.n_bins, lattice.spacing if lattice else None)
    code_counts = np.bincount(bins.place(numbers), rows, bins.n_bins)
    shares = np.concatenate([code_counts, counts[spikes], gap_counts]) / n
    end_share = min(_ROWS_AT_AN_END / rows.sum(), _MOST_AT_AN_END)
    return Column(
        name, "continuous", levels[spikes], gap_kinds, shares, bins, lattice, bounds, end_share, origin,
        quantity=reading.quantity,
    )  # fmt: skip


def _with_ends(counts):
    """The rows of numbers in order, those of the smallest and the largest raised to what most drawn tables have."""
    counts = counts.astype(np.float64)
    least = min(_ROWS_AT_AN_END, _MOST_AT_A_LEVEL * counts.sum())
    counts[[0, -1]] = np.maximum(counts[[0, -1]], least)
    return counts


def _check_span(name, ordinary, spikes, quantity):
    """Refuse whole numbers that floats cannot tell apart, unless they are dates to the nanosecond."""
    low, high = int(ordinary.min()), int(ordinary.max())
    ends = [low, high, *(int(spike) for spike in spikes)]
    fine = quantity == "numbers" and high - low > _EXACT
    if fine:
        step = int(np.gcd.reduce(ordinary.astype(object) - low))
        fine = (high - low) // step > _EXACT
    if fine or max(ends) - low >= 2**63 or low - min(ends) >= 2**63:
        raise ValueError(
            f"Column {name!r} of X holds whole numbers from {low} to {high}, too many steps for floats to tell apart: "
            "drop it if it names rows, convert it to text if it names groups, or to floats if it measures."
        )


def _are_sentinels(levels, counts, is_date):
    """Which values in order lie far apart from all others: stand-ins for no date or no number."""
    x, sentinels = levels.astype(np.float64), np.zeros(len(levels), dtype=bool)
    finite = np.flatnonzero(np.isfinite(x))
    if len(finite) < _OTHERS:
        return sentinels
    usual = 2 * np.subtract(*np.quantile(x[finite], [0.75, 0.25]))
    for places in (finite, finite[::-1]):
        steps = np.abs(np.diff(x[places]))[-_MOST_SENTINELS:]
        apart = np.flatnonzero(steps > _APART * usual)
        if len(apart):
            beyond = places[len(places) - len(steps) + apart[0] :]
            sentinels[beyond] = is_date | (counts[beyond] > 1)
    return sentinels


def _are_spikes(counts):
    """Which of the values in order are far more frequent than their neighbours."""
    if not len(counts):
        return np.zeros(0, dtype=bool)
    padded = np.pad(counts.astype(np.float64), _NEIGHBOURS, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * _NEIGHBOURS + 1).copy()
    windows[:, _NEIGHBOURS] = np.nan
    usual = np.nanmedian(windows, axis=1) if len(counts) > 1 else counts
    n = counts.sum()
    least = min(max(_SPIKE_ROWS, _SPIKE_SHARE * n), max(_SMALL_SPIKE_ROWS, _SMALL_SPIKE_SHARE * n))
    spikes = counts >= np.maximum(_SPIKE_EXCESS * usual, least)
    if spikes.sum() > _MOST_SPIKES:
        spikes &= counts >= np.sort(counts)[-_MOST_SPIKES]
    return spikes


def _ranks_among_equals(x):
    """Of each number its rank among those equal to it, as a share strictly between 0 and 1."""
    order = np.argsort(x, kind="stable")
    ordered = x[order]
    first = np.searchsorted(ordered, ordered)
    size = np.searchsorted(ordered, ordered, side="right") - first
    ranks = np.empty(len(x))
    ranks[order] = (np.arange(len(x)) - first + 0.5) / size
    return ranks


def _merge_rare(counts, min_frequency):
    """The code of each level, where those of few rows share one; None where none do."""
    rare = counts < (min_frequency or 0)
    if rare.sum() < 2:
        return None
    codes = np.cumsum(~rare) - 1
    codes[rare] = (~rare).sum()
    return codes
