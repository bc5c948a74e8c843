"""Numbers in bins: which interval of the number line, and where in it, on the scale of a normal distribution."""

import dataclasses

import numpy as np
from scipy.special import log_ndtr, ndtr, ndtri, ndtri_exp

from .._utils.names import registered
from ..preprocessing._splines import MonotoneSpline

__all__ = ["GridBins", "SmoothBins", "grid_bins", "quantile_edges", "smooth_bins"]

# An interval at an end is cut in two while its outer half is wider than the inner one by this factor ...
_WIDER = 1.5
# ... and has so many rows at least.
_ROWS_AT_AN_END = 16
# Least distance of a place within a bin from its ends, as a share of the bin.
_MARGIN = 1e-9


def _log_normal(z):
    return -0.5 * z**2 - 0.5 * np.log(2 * np.pi)


@registered("tables.SmoothBins")
@dataclasses.dataclass
class SmoothBins:
    """Intervals of a column with a density: z = Phi^-1((Phi(g(x)) - P_k) / (P_{k+1} - P_k)) in interval k.

    Parameters
    ----------
    spline : MonotoneSpline
        g, the map of the column to a normal distribution.
    edges : ndarray of shape (n_bins - 1,)
        The ends of the intervals; the outermost are open.
    centres : ndarray of shape (n_bins,)
        A number in the middle of each.
    """

    spline: MonotoneSpline
    edges: np.ndarray
    centres: np.ndarray

    def __post_init__(self):
        inner = self.spline.forward(self.edges)[0]
        self._low, self._high = np.append(-np.inf, inner), np.append(inner, np.inf)

    @property
    def n_bins(self):
        """Number of intervals."""
        return len(self.edges) + 1

    def place(self, x):
        """The interval of each number."""
        return np.searchsorted(self.edges, x)

    def forward(self, x, k):
        """Z in intervals k, and log dz/dx."""
        v, log_slope = self.spline.forward(x)
        if self.n_bins == 1:
            return v, log_slope
        # upper intervals are mirrored, so that small masses are differences of small numbers
        low, high, sign = self._mirrored(k)
        v = sign * v
        log_width = np.log(ndtr(high) - ndtr(low))
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.clip((ndtr(v) - ndtr(low)) / np.exp(log_width), _MARGIN, 1 - _MARGIN)
            z = np.where(np.isinf(low), ndtri_exp(np.minimum(log_ndtr(v) - log_width, -_MARGIN)), ndtri(share))
        return sign * z, log_slope + _log_normal(v) - log_width - _log_normal(z)

    def inverse(self, z, k):
        """The number at z in intervals k."""
        if self.n_bins == 1:
            return self.spline.inverse(z)
        low, high, sign = self._mirrored(k)
        z = sign * z
        mass = ndtr(high) - ndtr(low)
        v = np.where(np.isinf(low), ndtri_exp(log_ndtr(z) + np.log(mass)), ndtri(ndtr(low) + ndtr(z) * mass))
        x = self.spline.inverse(sign * v)
        return np.clip(x, np.append(-np.inf, self.edges)[k], np.append(self.edges, np.inf)[k])

    def _mirrored(self, k):
        low, high = self._low[k], self._high[k]
        upper = low + high > 0
        return np.where(upper, -high, low), np.where(upper, -low, high), np.where(upper, -1.0, 1.0)


@registered("tables.GridBins")
@dataclasses.dataclass
class GridBins:
    """Intervals of a column of numbers that repeat: each number has a cell as wide as its share of the interval.

    z = Phi^-1(F_k(x-) + u f_k(x)), u ~ U(0, 1),    with f_k the shares of the numbers in interval k, F_k their sums

    Parameters
    ----------
    numbers : ndarray of shape (n_numbers,)
        The numbers in order.
    counts : ndarray of shape (n_numbers,)
        Their rows.
    first : ndarray of int of shape (n_bins,)
        The place of the first number of each interval.
    spacing : float
        The width over which the mass of a number is spread where it is told as a density.
    """

    numbers: np.ndarray
    counts: np.ndarray
    first: np.ndarray
    spacing: float

    def __post_init__(self):
        self._bin = np.repeat(np.arange(self.n_bins), np.diff(np.append(self.first, len(self.numbers))))
        total = np.add.reduceat(self.counts, self.first)[self._bin]
        before = np.cumsum(self.counts) - self.counts
        self._start = (before - before[self.first][self._bin]) / total
        self._share = self.counts / total

    @property
    def n_bins(self):
        """Number of intervals."""
        return len(self.first)

    @property
    def centres(self):
        """The mean of each interval."""
        return np.add.reduceat(self.numbers * self.counts, self.first) / np.add.reduceat(self.counts, self.first)

    def nearest(self, x):
        """The place of the nearest number."""
        return np.searchsorted((self.numbers[1:] + self.numbers[:-1]) / 2, x)

    def place(self, x):
        """The interval of each number."""
        return self._bin[self.nearest(x)]

    def forward(self, x, k, u=0.5):
        """Z, and log dz/dx, the mass of a number spread over the spacing; one off the grid counts one row."""
        j = self.nearest(x)
        share = self._start[j] + u * self._share[j]
        z = ndtri(np.clip(share, _MARGIN, 1 - _MARGIN))
        unseen = np.where(self.numbers[j] == x, 1.0, 1 / (self.counts[j] + 1))
        return z, np.log(self._share[j] * unseen / self.spacing) - _log_normal(z)

    def inverse(self, z, k):
        """The number at z in intervals k."""
        ends = self._bin + self._start + self._share
        j = np.searchsorted(ends, k + np.clip(ndtr(z), _MARGIN, 1 - _MARGIN))
        last = np.append(self.first[1:], len(self.numbers))[k] - 1
        return self.numbers[np.clip(j, self.first[k], last)]


def bin_starts(numbers, counts, n_bins):
    """The places at which bins of numbers in order begin: of equal rows, and of fewer and fewer towards a long tail.

    Columns depend on each other in their tails too, and what bins do not tell apart is left to the values.
    """
    starts = quantile_edges(counts, n_bins)
    if n_bins < 2:
        return starts
    upper = _tail_starts(numbers, counts, starts[-1])
    # the lower tail is the upper one of the mirrored numbers
    ends = len(numbers) - np.array(_tail_starts(-numbers[::-1], counts[::-1], len(numbers) - starts[1]), dtype=int)
    return np.unique(np.concatenate([starts, np.array(upper, dtype=int), ends]))


def _tail_starts(numbers, counts, first):
    """Where the parts of the last bin begin that is cut in two again and again."""
    starts: list[int] = []
    rows = np.cumsum(counts[::-1])[::-1]
    while True:
        middle = first + int(np.searchsorted(-rows[first:], -rows[first] / 2))
        is_cut = first < middle < len(numbers) and rows[middle] >= _ROWS_AT_AN_END
        if not is_cut or numbers[-1] - numbers[middle] <= _WIDER * (numbers[middle] - numbers[first]):
            return starts
        starts.append(middle)
        first = middle


def quantile_edges(counts, n_bins):
    """The places at which so many bins of numbers in order begin, with equal rows as far as numbers repeat."""
    ends = np.cumsum(counts)
    wanted = ends[-1] * np.arange(1, n_bins) / n_bins
    # the number whose end is nearest to the wanted one closes its bin
    after = np.searchsorted(ends, wanted)
    before = np.maximum(after - 1, 0)
    nearer = np.where(wanted - ends[before] < ends[after] - wanted, before, after) + 1
    return np.unique(np.concatenate([[0], nearer[(nearer > 0) & (nearer < len(counts))]]))


def smooth_bins(spline, numbers, counts, n_bins, spacing):
    """Bins of a density; numbers on a grid of some spacing (or None) are not cut in two."""
    starts = bin_starts(numbers, counts, n_bins)
    first = starts[1:]
    edges = numbers[first - 1] + spacing / 2 if spacing else (numbers[first - 1] + numbers[first]) / 2
    centres = np.add.reduceat(numbers * counts, starts) / np.add.reduceat(counts, starts)
    return SmoothBins(spline, edges, centres)


def grid_bins(numbers, counts, n_bins, spacing):
    """Bins of numbers that repeat."""
    return GridBins(numbers, counts, bin_starts(numbers, counts, n_bins), spacing)
