"""One column of a table as a code (which level, spike or gap) and, where it is ordinary, a value with a density."""

import dataclasses
import warnings

import numpy as np
from scipy.special import ndtr, ndtri

from .._utils.names import registered
from ..preprocessing._splines import straight_line
from ._bins import GridBins, SmoothBins

__all__ = ["KINDS", "Column", "Lattice", "find_lattice", "warn_of_identifiers"]

KINDS = ("categorical", "discrete", "continuous")
# A column of strings identifies rows if it has more distinct values than this ...
_FEW_WORDS = 50
# ... and than this share of its rows.
_UNIQUE = 0.5
# Rounding errors of a map there and back, in units of the spacing of floats.
_ROUNDINGS = 16
# Share of a cell below which rounding errors do not matter.
_NO_ROUNDING = 1e-3
# Decimal places that are looked for.
_DECIMALS = 9
# Steps of the grid beyond which rounding does not matter: they are too fine for a float64.
_STEPS = 2**45
# Distance of a dequantised code from the borders of its cell, as a share of it.
_MARGIN = 1e-6

# Levels of fit that an error names.
_FEW_LEVELS = 10


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

    Codes are, in this order: the levels (or the intervals of ordinary values, then the spikes) and the kinds of gap.

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
    bins : SmoothBins, GridBins or None
        The intervals of ordinary values, and the map of each to a normal distribution.
    lattice : Lattice or None
        Their grid.
    bounds : tuple of float
        The least and the largest.
    end_share : float
        The share of drawn values at either end of the bounds, at the least: without it most tables would lack the
        extremes, and the range of the column with them.
    origin : int or None
        Of int64 numbers, the least ordinary one: differences from it are what floats hold exactly.
    merged, level_shares : ndarray or None
        The code of each level where rare ones share one, and their shares.
    quantity : str
        What the values are called in errors.
    ordered : bool
        Whether levels that are no numbers have an order.
    has_tie : bool
        Whether a code, the last before those of missing values, says that the number is that of another column.
    """

    name: object
    kind: str
    levels: np.ndarray
    gap_kinds: tuple
    shares: np.ndarray
    bins: SmoothBins | GridBins | None = None
    lattice: Lattice | None = None
    bounds: tuple | None = None
    end_share: float = 0.0
    origin: int | None = None
    merged: np.ndarray | None = None
    level_shares: np.ndarray | None = None
    quantity: str = "numbers"
    ordered: bool = False
    has_tie: bool = False

    @property
    def is_continuous(self):
        """Whether it has ordinary values."""
        return self.kind == "continuous"

    @property
    def n_codes(self):
        """Number of codes."""
        return len(self.shares)

    @property
    def n_bins(self):
        """Number of codes with a value."""
        return self.bins.n_bins if self.is_continuous else 0

    def is_value(self, codes):
        """Whether codes are those of ordinary values."""
        return (codes >= 0) & (codes < self.n_bins)

    @property
    def gap_codes(self):
        """The codes that say that there is no value."""
        return np.arange(self.n_codes - len(self.gap_kinds), self.n_codes)

    @property
    def tie_code(self):
        """The code of a number that is that of another column."""
        return self.n_codes - len(self.gap_kinds) - 1

    @property
    def is_ordered(self):
        """Whether the codes have an order: levels that are numbers, or have one, or intervals and spikes."""
        return self.kind == "discrete" or self.n_bins > 1 or (self.ordered and self.merged is None)

    @property
    def ranks(self):
        """The share of rows below each code of an ordered column, half of its own counted; NaN for other codes."""
        ranks = np.full(self.n_codes, np.nan)
        if self.is_ordered:
            numbers = self.n_codes - len(self.gap_kinds) - self.has_tie
            order = np.arange(numbers)
            if self.is_continuous:
                order = np.argsort(np.append(self.bins.centres, self.levels.astype(np.float64)), kind="stable")
            shares = self.shares[order]
            ranks[order] = np.cumsum(shares) - shares / 2
        return ranks

    @property
    def scores(self):
        """A number for each code: normal scores of the ranks of ordered ones, 0 elsewhere."""
        return ndtri(np.nan_to_num(self.ranks, nan=0.5))

    def encode(self, reading, rng, unseen="error", input_name="X"):
        """Codes (-1 for an unseen level, where that is allowed), and values that are NaN where the code says all."""
        codes, present = self._gap_code(reading), reading.gaps == 0
        values = np.full(len(codes), np.nan)
        if self.is_continuous:
            x = self._checked_numbers(reading, present, input_name)
            spike, x = _find(self.levels, x), x.astype(np.float64)
            place = self.bins.place(x)
            codes[present] = np.where(spike < 0, place, spike + self.n_bins)
            ordinary = np.flatnonzero(present)[spike < 0]
            values[ordinary] = self._placed(x[spike < 0], place[spike < 0], rng)[0]
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
        """The numbers that are there, from the origin: int64 where fit saw whole numbers, else float64."""
        reading.check_quantity(self.quantity, self.name, input_name)
        return self._relative(reading.values[present] if reading.is_number else np.empty(0), input_name)

    def _relative(self, x, input_name="X"):
        if self.origin is None and self.levels.dtype.kind != "i":
            return x.astype(np.float64)
        if x.dtype.kind == "f" and (x != np.rint(x)).any():
            held = x[x != np.rint(x)][0] if self.quantity == "numbers" else f"{self.quantity} between its steps"
            raise ValueError(f"Column {self.name!r} of {input_name} holds {held}, but fit saw whole numbers: round it.")
        far = np.abs(x.astype(np.float64) - float(self.origin or 0)) >= 2.0**63
        if far.any():
            raise ValueError(
                f"Column {self.name!r} of {input_name} holds {self.quantity} too far from those of fit for the unit in "
                "which it saw them: leave those rows out, or fit on a column of a coarser unit."
            )
        return x.astype(np.int64) - (self.origin or 0)

    def _level(self, reading, present, input_name):
        if self.levels.dtype.kind in "if":
            return _find(self.levels, self._checked_numbers(reading, present, input_name))
        place = {level: k for k, level in enumerate(self.levels)}
        return np.array([place.get(value, -1) for value in reading.values[present]], dtype=np.int64)

    def _refuse_unseen(self, values, unseen, input_name):
        if unseen == "error":
            some, known = list(dict.fromkeys(values.tolist()))[:5], self.levels.tolist()
            more = " and more" if len(known) > _FEW_LEVELS else ""
            raise ValueError(
                f"Column {self.name!r} of {input_name} holds {some}, which fit has not seen; it saw "
                f"{known[:_FEW_LEVELS]}{more}: correct the cells, or fit on a "
                "table that has them. (TableCodec(unseen='unknown') reads such levels as not known.)"
            )

    def _placed(self, x, place, rng):
        """The values of numbers in their intervals, anywhere in their cells with rng; and log-derivatives."""
        if isinstance(self.bins, GridBins):
            return self.bins.forward(x, place, 0.5 if rng is None else rng.uniform(size=len(x)))
        if self.lattice is not None and rng is not None:
            # on a grid so fine that floats round within its cells, the noise keeps to their middle
            rounding = _ROUNDINGS * np.spacing(max(abs(float(end)) for end in self.bounds)) / self.lattice.spacing
            width = 1.0 if rounding < _NO_ROUNDING else max(0.0, 1 - 2 * rounding)
            x = x + self.lattice.spacing * width * (rng.uniform(size=len(x)) - 0.5)
        return self.bins.forward(x, place)

    def nearest(self, numbers):
        """The codes of the nearest levels of an ordered column."""
        levels = self.levels.astype(np.float64)
        return np.searchsorted((levels[1:] + levels[:-1]) / 2, numbers.astype(np.float64))

    def straight(self, reading, codes):
        """The same codec with a straight line as the map of its values."""
        ordinary = self._relative(reading.values[codes == 0]).astype(np.float64)
        return dataclasses.replace(self, bins=dataclasses.replace(self.bins, spline=straight_line(ordinary)))

    def weighted(self, reading, codes, weight):
        """The same codec with the shares of weighted rows, of which every code has some."""
        known = codes >= 0
        shares = np.bincount(codes[known], weight[known], minlength=self.n_codes) / weight[known].sum()
        level_shares = self.level_shares
        if self.merged is not None:
            present = reading.gaps == 0
            counts = np.bincount(self._level(reading, present, "X"), weight[present], minlength=len(self.levels))
            level_shares = counts / counts.sum()
        return dataclasses.replace(self, shares=shares, level_shares=level_shares)

    def decode(self, codes, values, rng, with_ends=False):
        """Numbers or levels, and where there is none, from codes and values.

        `with_ends` is for draws: the outermost of them are the least and the largest number of fit.
        """
        first = self.n_codes - len(self.gap_kinds)
        gaps = np.where(codes >= first, codes - first + 1, 0)
        if self.is_continuous:
            return self._decode_numbers(codes, values, gaps, with_ends), gaps
        if not len(self.levels):
            return np.zeros(len(codes), dtype=np.int64), gaps
        levels = np.where(gaps > 0, 0, codes)
        if self.merged is not None:
            levels = self._drawn_levels(levels, rng)
        return self.levels[levels], gaps

    def _decode_numbers(self, codes, values, gaps, with_ends):
        ordinary = self.is_value(codes)
        spikes = (codes >= self.n_bins) & (codes < self.n_bins + len(self.levels))
        with np.errstate(over="ignore"):
            x = self.bins.inverse(values[ordinary], codes[ordinary])
        x = np.clip(self._with_ends(x) if with_ends else x, *self.bounds)
        x = x if self.lattice is None else np.clip(self.lattice.round(x), *self.bounds)
        whole = self.origin is not None
        numbers = np.zeros(len(codes), dtype=np.int64 if whole else np.float64)
        numbers[ordinary], numbers[spikes] = np.rint(x) if whole else x, self.levels[codes[spikes] - self.n_bins]
        return numbers + self.origin if whole else numbers

    def _with_ends(self, x):
        """Drawn numbers, of which the outermost share stands at the bounds."""
        if not self.end_share or not isinstance(self.bins, SmoothBins) or self.bins.spline.is_line:
            return x
        (low, high), outer = self.bounds, self.bins.spline.inverse(ndtri([self.end_share, 1 - self.end_share]))
        return np.where(x <= outer[0], low, np.where(x >= outer[1], high, x))

    def on_grid(self, numbers):
        """The numbers of a continuous column, on the grid of those of fit."""
        if isinstance(self.bins, GridBins):
            return self.bins.numbers[self.bins.nearest(numbers - (self.origin or 0))] + (self.origin or 0)
        if self.lattice is None:
            return numbers
        return self.lattice.round(numbers - (self.origin or 0)) + (self.origin or 0)

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
            ordinary = self.is_value(codes)
            log_slope[ordinary] = self._placed(
                self._relative(reading.values[ordinary]).astype(np.float64), codes[ordinary], None
            )[1]
        return log_slope

    def spread(self, codes, rng):
        """Codes as normal numbers: Phi^-1 of a point of the code's cell, which is as wide as its share of the rows."""
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
