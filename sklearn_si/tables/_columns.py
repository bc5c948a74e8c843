"""One column of a table as a code (which level, spike or gap) and, where it is ordinary, a value with a density."""

import dataclasses
import warnings

import numpy as np
from scipy.special import ndtr, ndtri

from .._utils.frames import Reading
from ..persistence._registry import registered
from ..preprocessing._splines import MonotoneSpline, fit_spline, straight_line

__all__ = ["KINDS", "Column", "fit_column", "warn_of_identifiers"]

KINDS = ("categorical", "discrete", "continuous")
# Numbers with at most so many distinct values, of which each stands for so many rows, are levels.
_MOST_LEVELS, _ROWS_OF_A_LEVEL = 1000, 10
# Share of the rows, and multiple of the rows of its neighbours on either side, from which a number is a spike; least
# number of its rows, and most spikes.
_SPIKE_SHARE, _SPIKE_EXCESS, _NEIGHBOURS, _SPIKE_ROWS, _MOST_SPIKES = 0.01, 5, 3, 5, 20
# A column with more words than this, and than this share of its rows, tells rows apart.
_FEW_WORDS, _UNIQUE = 50, 0.5
# Decimals that are looked for; beyond so many steps of the grid, rounding does not matter.
_DECIMALS, _STEPS = 9, 2**45
# Distance of a dequantised code from the borders of its cell, as a share of it.
_MARGIN = 1e-6


@registered("tables.Lattice")
@dataclasses.dataclass
class Lattice:
    """The grid that numbers lie on: every one is (offset + step k) / power, with integers k.

    Parameters
    ----------
    offset, step : int
        One of the numbers, and the greatest common divisor of their differences, times power.
    power : int
        10 to the number of decimals.
    """

    offset: int
    step: int
    power: int

    @property
    def spacing(self):
        """The distance of neighbours."""
        return self.step / self.power

    def places(self, x):
        """The nearest k, as floats."""
        return np.rint((x * self.power - self.offset) / self.step)

    def numbers(self, k):
        """The numbers at some k."""
        scaled = self.offset + self.step * k.astype(np.int64)
        return scaled if self.power == 1 else scaled / self.power

    def round(self, x):
        """The nearest number of the grid."""
        return self.numbers(self.places(x))


def find_lattice(x, dtype=np.float64):
    """The grid of some numbers; None where they lie on none."""
    if x.dtype.kind == "i":
        return _integers(x, 1)
    for power in 10 ** np.arange(_DECIMALS + 1):
        scaled = np.rint(x * power)
        if np.abs(scaled).max(initial=0) > _STEPS:
            return None
        if ((scaled / power).astype(dtype) == x.astype(dtype)).all():
            return _integers(scaled.astype(np.int64), int(power))
    return None


def _integers(values, power):
    offset = int(values.min())
    step = int(np.gcd.reduce(values - offset))
    return Lattice(offset, max(step, 1), power)


@registered("tables.Column")
@dataclasses.dataclass
class Column:
    """The codec of one column.

    Codes are, in this order: the levels (or 0, for an ordinary value, and then the spikes) and the kinds of gap.

    Parameters
    ----------
    name : object
    kind : {"constant", "categorical", "discrete", "continuous"}
    levels : ndarray
        The levels, or the spikes of a continuous column.
    gap_kinds : tuple
        What stood where there was no value.
    shares : ndarray
        The share of the rows of each code.
    spline : MonotoneSpline or None
        The map of ordinary values to a normal law.
    lattice : Lattice or None
        Their grid.
    bounds : tuple of float
        The least and the largest.
    origin : int or None
        Of int64 numbers, the least: differences from it are what floats hold exactly.
    merged, level_shares : ndarray or None
        The code of each level where rare ones share one, and their shares.
    """

    name: object
    kind: str
    levels: np.ndarray
    gap_kinds: tuple
    shares: np.ndarray
    spline: MonotoneSpline | None = None
    lattice: Lattice | None = None
    bounds: tuple | None = None
    origin: int | None = None
    merged: np.ndarray | None = None
    level_shares: np.ndarray | None = None

    @property
    def is_continuous(self):
        """Whether it has ordinary values."""
        return self.kind == "continuous"

    @property
    def n_codes(self):
        """Number of codes."""
        return len(self.shares)

    @property
    def gap_codes(self):
        """The codes that say that there is no value."""
        return np.arange(self.n_codes - len(self.gap_kinds), self.n_codes)

    @property
    def is_ordered(self):
        """Whether the levels are numbers."""
        return self.kind == "discrete"

    @property
    def scores(self):
        """A number for each code: normal scores of ordered levels, 0 elsewhere."""
        if not self.is_ordered:
            return np.zeros(self.n_codes)
        scores = ndtri(np.cumsum(self.shares) - self.shares / 2)
        scores[len(self.levels) :] = 0.0
        return scores

    def encode(self, reading, rng, unseen="error", input_name="X"):
        """Codes (-1 for an unseen level, where that is allowed), and values that are NaN where the code says all."""
        codes, present = self._gap_code(reading), reading.gaps == 0
        values = np.full(len(codes), np.nan)
        if self.is_continuous:
            x = self._checked_numbers(reading, present, input_name)
            spike = _find(self.levels.astype(np.float64), x)
            codes[present] = spike + 1  # not found is -1, which is ordinary
            ordinary = np.flatnonzero(present)[spike < 0]
            values[ordinary] = self.spline.forward(self._dequantised(x[spike < 0], rng))[0]
            return codes, values
        found = self._level(reading, present, input_name)
        if (found < 0).any():
            self._refuse_unseen(reading.values[present][found < 0], unseen, input_name)
        codes[present] = found if self.merged is None else np.where(found < 0, -1, self.merged[found])
        return codes, values

    def _gap_code(self, reading):
        codes = np.full(len(reading.gaps), -1)
        if (reading.gaps > 0).any() and self.gap_kinds:
            names = [str(kind) for kind in self.gap_kinds]
            known = [names.index(str(kind)) if str(kind) in names else 0 for kind in reading.kinds]
            rows = reading.gaps > 0
            codes[rows] = self.gap_codes[0] + np.array(known)[reading.gaps[rows] - 1]
        return codes

    def _checked_numbers(self, reading, present, input_name):
        if not reading.is_number and present.any():
            held = reading.values[present][0]
            raise ValueError(
                f"Column {self.name!r} of {input_name} holds {held!r}, but in fit it held numbers (or dates): "
                "convert it."
            )
        x = reading.values[present]
        whole = self.origin is not None or self.levels.dtype.kind == "i"
        if whole and x.dtype.kind == "f" and (x != np.rint(x)).any():
            held = x[x != np.rint(x)][0]
            raise ValueError(f"Column {self.name!r} of {input_name} holds {held}, but fit saw whole numbers: round it.")
        return self._relative(x)

    def _relative(self, numbers):
        return (numbers - (self.origin or 0)).astype(np.float64)

    def _level(self, reading, present, input_name):
        if self.levels.dtype.kind in "if":
            return _find(self.levels.astype(np.float64), self._checked_numbers(reading, present, input_name))
        place = {level: k for k, level in enumerate(self.levels)}
        return np.array([place.get(value, -1) for value in reading.values[present]], dtype=np.int64)

    def _refuse_unseen(self, values, unseen, input_name):
        if unseen == "error":
            some = list(dict.fromkeys(values.tolist()))[:5]
            raise ValueError(
                f"Column {self.name!r} of {input_name} holds {some}, which fit has not seen: set unseen='unknown' to "
                "read such levels as not known, or fit on a table that has them."
            )

    def _dequantised(self, x, rng):
        if self.lattice is None or rng is None:
            return x
        return x + self.lattice.spacing * (rng.uniform(size=len(x)) - 0.5)

    def nearest(self, numbers):
        """The codes of the nearest levels of an ordered column."""
        levels = self.levels.astype(np.float64)
        return np.searchsorted((levels[1:] + levels[:-1]) / 2, numbers.astype(np.float64))

    def straight(self, reading, codes):
        """The same codec with a straight line as the map of its values."""
        ordinary = self._relative(reading.values[codes == 0])
        return dataclasses.replace(self, spline=straight_line(ordinary))

    def decode(self, codes, values, rng):
        """Numbers or levels, and where there is none, from codes and values."""
        first = self.n_codes - len(self.gap_kinds)
        gaps = np.where(codes >= first, codes - first + 1, 0)
        if self.is_continuous:
            return self._decode_numbers(codes, values, gaps), gaps
        if not len(self.levels):
            return np.zeros(len(codes), dtype=np.int64), gaps
        levels = np.where(gaps > 0, 0, codes)
        if self.merged is not None:
            levels = self._drawn_levels(levels, rng)
        return self.levels[levels], gaps

    def _decode_numbers(self, codes, values, gaps):
        numbers = np.zeros(len(codes))
        ordinary = codes == 0
        with np.errstate(over="ignore"):
            x = np.clip(self.spline.inverse(values[ordinary]), *self.bounds)
        numbers[ordinary] = x if self.lattice is None else np.clip(self.lattice.round(x), *self.bounds)
        spikes = (codes > 0) & (gaps == 0)
        numbers[spikes] = self.levels[codes[spikes] - 1]
        return numbers if self.origin is None else numbers.astype(np.int64) + self.origin

    def _drawn_levels(self, codes, rng):
        """For each code a level: of the rare ones, one in proportion to its rows."""
        levels = np.zeros(len(codes), dtype=np.int64)
        for code in np.unique(codes):
            rows, members = codes == code, np.flatnonzero(self.merged == code)
            weights = self.level_shares[members]
            levels[rows] = rng.choice(members, rows.sum(), p=weights / weights.sum()) if len(members) > 1 else members
        return levels

    def log_slope(self, reading):
        """The log-derivative of the value by the number, 0 where the code says all."""
        log_slope = np.zeros(len(reading.gaps))
        if self.is_continuous:
            codes, _ = self.encode(reading, None)
            log_slope[codes == 0] = self.spline.forward(self._relative(reading.values[codes == 0]))[1]
        return log_slope

    def spread(self, codes, rng):
        """Codes as numbers of a normal law: Phi^-1 of a point of the code's cell, as wide as its share of the rows."""
        ends = np.concatenate([[0.0], np.cumsum(self.shares)])
        inside = rng.uniform(_MARGIN, 1 - _MARGIN, size=len(codes))
        return ndtri(ends[codes] + inside * self.shares[codes])

    def gather(self, z):
        """The codes of such numbers."""
        ends = np.cumsum(self.shares)
        return np.minimum(np.searchsorted(ends, ndtr(z), side="right"), self.n_codes - 1)


def _find(levels, x):
    """The place of each number among sorted levels, -1 where it is none of them."""
    if not len(levels):
        return np.full(len(x), -1)
    place = np.minimum(np.searchsorted(levels, x), len(levels) - 1)
    return np.where(levels[place] == x, place, -1)


def fit_column(name, reading: Reading, kind=None, *, ordered_levels=None, dtype=None, min_frequency=None):
    """The codec of a column, of a given kind or of the one that suits it.

    Parameters
    ----------
    name : object
    reading : Reading
    kind : {"categorical", "discrete", "continuous", None}
        None finds it.
    ordered_levels : list, default=None
        Levels in the order that the dtype gives them.
    dtype : dtype, default=None
        Of floats, for the number of decimals.
    min_frequency : int or None, default=None
        Levels of fewer rows share a code.
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
    levels, counts = _levels(present, ordered_levels)
    kind = kind or _suitable_kind(reading, levels, counts)
    if kind == "continuous" and len(levels) > 1:
        column = _fit_continuous(name, reading, present, levels, counts, gap_kinds, gap_counts, dtype)
        if column is not None:
            return column
    kind = "categorical" if kind == "continuous" and not reading.is_number else kind
    merged = _merge_rare(counts, min_frequency) if kind == "categorical" else None
    code_counts = counts if merged is None else np.bincount(merged, counts)
    shares = np.concatenate([code_counts, gap_counts]) / len(reading.gaps)
    kind = "constant" if len(shares) == 1 else "discrete" if reading.is_number and kind != "categorical" else kind
    level_shares = None if merged is None else counts / counts.sum()
    return Column(name, kind, levels, gap_kinds, shares, merged=merged, level_shares=level_shares)


def _levels(present, ordered_levels):
    """The distinct values in order, and their rows."""
    if present.dtype.kind in "if":
        return np.unique(present, return_counts=True)
    counted = {}
    for value in present:
        counted[value] = counted.get(value, 0) + 1
    if ordered_levels is not None:
        order = [level for level in ordered_levels if level in counted]
    else:
        order = sorted(counted, key=lambda level: (type(level).__name__, level if _sorts(level) else str(level)))
    levels = np.empty(len(order), dtype=object)
    levels[:] = order
    return levels, np.array([counted[level] for level in order], dtype=np.int64)


def _sorts(level):
    return isinstance(level, (str, int, float, bool))


def _suitable_kind(reading, levels, counts):
    if not reading.is_number:
        return "categorical"
    few = len(levels) <= _MOST_LEVELS and counts.sum() >= _ROWS_OF_A_LEVEL * len(levels)
    return "discrete" if few or len(levels) <= 2 else "continuous"


def _fit_continuous(name, reading, present, levels, counts, gap_kinds, gap_counts, dtype):
    """The codec of numbers with a density beside their spikes; None where nothing but spikes is left."""
    n = len(reading.gaps)
    origin = int(present.min()) if present.dtype.kind == "i" else None
    present, levels = present - (origin or 0), levels - (origin or 0)
    spikes = np.isinf(levels.astype(np.float64)) | _are_spikes(counts)
    ordinary = present[~np.isin(present, levels[spikes])]
    if len(ordinary) < 2 or np.ptp(ordinary) == 0:
        return None
    lattice = find_lattice(ordinary, dtype or np.float64)
    ordinary = ordinary.astype(np.float64)
    jitter = 0.0
    if lattice is not None:
        # evenly over the cell of each number: the quantiles of the knots do not depend on a seed
        jitter = lattice.spacing * (_ranks_among_equals(ordinary) - 0.5)
    shares = np.concatenate([[len(ordinary)], counts[spikes], gap_counts]) / n
    return Column(
        name, "continuous", levels[spikes], gap_kinds, shares, fit_spline(ordinary + jitter), lattice,
        (ordinary.min(), ordinary.max()), origin,
    )  # fmt: skip


def _are_spikes(counts):
    """Which of the values in order are far more frequent than their neighbours."""
    padded = np.pad(counts.astype(np.float64), _NEIGHBOURS, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * _NEIGHBOURS + 1).copy()
    windows[:, _NEIGHBOURS] = np.nan
    usual = np.nanmedian(windows, axis=1) if len(counts) > 1 else counts
    spikes = counts >= np.maximum(_SPIKE_EXCESS * usual, max(_SPIKE_ROWS, _SPIKE_SHARE * counts.sum()))
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


def warn_of_identifiers(columns, readings):
    """Warn of words that tell one row from all others: drawn rows would repeat them."""
    names = [
        column.name
        for column, reading in zip(columns, readings, strict=True)
        if column.kind == "categorical" and len(column.levels) > max(_FEW_WORDS, _UNIQUE * (reading.gaps == 0).sum())
    ]
    if names:
        warnings.warn(
            f"Columns {names} hold a word of its own for almost every row (an identifier, a name, free text): drawn "
            "rows repeat these word for word, and nothing is learned of them. Drop them before the fit.",
            UserWarning,
            stacklevel=4,
        )
