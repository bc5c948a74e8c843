"""Smooth monotone maps of a column to a normal distribution, with their derivatives and inverses."""

import dataclasses
from typing import Any

import numpy as np
from scipy.special import log_ndtr, ndtri, ndtri_exp

from .._utils.names import registered
from .._utils.weights import effective_rows

# Bins between quantiles that are tried for a column; beside them, a straight line.
_BINS = (1, 3, 6, 12, 24, 48, 96, 192)
# Rows that choose the number of bins.
_ROWS = 4000
# Fewest rows of a bin.
_ROWS_OF_A_BIN = 8
# Share of the rows beyond each of the outermost knots ...
_TAIL = 0.005
# ... and the fewest rows beyond it.
_TAIL_ROWS = 20
# Shapes of a tail that are tried: 0 is exponential, 1 / shape the power of a polynomial one.
_SHAPES = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
# Nats on the rows beyond the knot by which a shape that is not 0 must lead.
_SHAPE_PRICE = 1.0
# Knots nearer than this share of the spread (of the middle half, where that is less) are one: values that repeat have
# no density.
_GAP = 1e-3


def _log_normal(z: Any) -> Any:
    return -0.5 * z**2 - 0.5 * np.log(2 * np.pi)


@registered("preprocessing.Tail")
@dataclasses.dataclass
class Tail:
    """The map beyond the last knot: a straight line, or the normal score of a generalized Pareto distribution.

    log(1 - F(x)) = log(1 - F(x_k)) - log(1 + shape r (x - x_k)) / shape,    z = -Phi^-1(1 - F)

    (Pickands 1975, "Statistical inference using extreme order statistics", Ann. Statist. 3), where r makes dz/dx
    continuous at the knot. The straight line is the tail of a normal distribution.
    """

    x: float
    z: float
    slope: float
    shape: float | None  # None: the line

    @property
    def _start(self) -> tuple[Any, Any]:
        """The logarithm of the probability beyond the knot, and the rate r at which it decreases there."""
        log_mass = log_ndtr(-self.z)
        return log_mass, self.slope * np.exp(_log_normal(self.z) - log_mass)

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The values z and log dz/dx beyond the knot."""
        if self.shape is None:
            return self.z + self.slope * (x - self.x), np.full_like(x, np.log(self.slope))
        log_mass, rate = self._start
        excess = rate * (x - self.x)
        grown = np.log1p(self.shape * excess)
        log_mass = log_mass - (grown / self.shape if self.shape else excess)
        z = -ndtri_exp(log_mass)
        return z, np.log(rate) - grown + log_mass - _log_normal(z)

    def curvature(self, x: np.ndarray) -> np.ndarray:
        """The derivative of log dz/dx beyond the knot."""
        if self.shape is None:
            return np.zeros_like(x)
        _, rate = self._start
        fall = rate / (1 + self.shape * rate * (x - self.x))
        return -(1 + self.shape) * fall + self.forward(x)[0] * np.exp(self.forward(x)[1])

    def inverse(self, z: np.ndarray) -> np.ndarray:
        """The values x beyond the knot."""
        if self.shape is None:
            return self.x + (z - self.z) / self.slope
        log_mass, rate = self._start
        excess = log_mass - log_ndtr(-z)
        return self.x + (np.expm1(self.shape * excess) / self.shape if self.shape else excess) / rate


@registered("preprocessing.MonotoneSpline")
@dataclasses.dataclass
class MonotoneSpline:
    """A monotone rational-quadratic spline z = g(x) through knots, with a tail on either side.

    g = z_k + (z_{k+1} - z_k) (s xi^2 + d_k xi (1 - xi)) / (s + (d_{k+1} + d_k - 2 s) xi (1 - xi))

    with xi = (x - x_k) / (x_{k+1} - x_k), the secant s and the slopes d_k at the knots (Gregory & Delbourgo 1982,
    "Piecewise rational quadratic interpolation to monotonic data", IMA J. Numer. Anal. 2).
    """

    x: np.ndarray
    z: np.ndarray
    slopes: np.ndarray
    lower: Tail  # of -x and -z
    upper: Tail

    @property
    def is_line(self) -> bool:
        """Whether the map is affine."""
        return self.upper.shape is None

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The values g(x) and log g'(x)."""
        z, log_slope = self._spline(np.clip(x, self.x[0], self.x[-1]))
        below, above = x < self.x[0], x > self.x[-1]
        mirrored, log_slope[below] = self.lower.forward(-x[below])
        z[below] = -mirrored
        z[above], log_slope[above] = self.upper.forward(x[above])
        return z, log_slope

    def curvature(self, x: np.ndarray) -> np.ndarray:
        """The derivative of log g'(x); at a knot, that from the left."""
        inside = np.clip(x, self.x[0], self.x[-1])
        k, width, _, s, left, right = self._bin(self.x, inside)
        xi = (inside - self.x[k]) / width
        denominator = s + (left + right - 2 * s) * xi * (1 - xi)
        numerator = right * xi**2 + 2 * s * xi * (1 - xi) + left * (1 - xi) ** 2
        turn = (2 * right * xi + 2 * s * (1 - 2 * xi) - 2 * left * (1 - xi)) / numerator
        value = (turn - 2 * (left + right - 2 * s) * (1 - 2 * xi) / denominator) / width
        value[x < self.x[0]] = -self.lower.curvature(-x[x < self.x[0]])
        value[x > self.x[-1]] = self.upper.curvature(x[x > self.x[-1]])
        return value

    def inverse(self, z: np.ndarray) -> np.ndarray:
        """The x with g(x) = z."""
        x = self._inverse_spline(np.clip(z, self.z[0], self.z[-1]))
        below, above = z < self.z[0], z > self.z[-1]
        x[below] = -self.lower.inverse(-z[below])
        x[above] = self.upper.inverse(z[above])
        return x

    def _bin(self, knots: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, ...]:
        """The number, width, height, secant and slopes of the bin of each value."""
        k = np.clip(np.searchsorted(knots, values) - 1, 0, len(knots) - 2)
        width, height = np.diff(self.x)[k], np.diff(self.z)[k]
        return k, width, height, height / width, self.slopes[k], self.slopes[k + 1]

    def _spline(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        k, width, height, s, left, right = self._bin(self.x, x)
        xi = (x - self.x[k]) / width
        inner = xi * (1 - xi)
        below = s + (left + right - 2 * s) * inner
        z = self.z[k] + height * (s * xi**2 + left * inner) / below
        return z, 2 * np.log(s / below) + np.log(right * xi**2 + 2 * s * inner + left * (1 - xi) ** 2)

    def _inverse_spline(self, z: np.ndarray) -> np.ndarray:
        k, width, height, s, left, right = self._bin(self.z, z)
        part = (z - self.z[k]) / height
        bend = part * (left + right - 2 * s)
        a, b, c = (s - left) + bend, left - bend, -s * part
        # The root in [0, 1], in the form without cancellation.
        xi = -2 * c / (b + np.sqrt(np.maximum(b**2 - 4 * a * c, 0)))
        return self.x[k] + width * xi


def identity_spline() -> MonotoneSpline:
    """The map g(x) = x."""
    ends = np.array([-1.0, 1.0])
    tail = Tail(1.0, 1.0, 1.0, None)
    return MonotoneSpline(ends, ends, np.ones(2), tail, tail)


# Values in order, and their weights or None.
_Sorted = tuple[np.ndarray, np.ndarray | None]


def fit_spline(x: np.ndarray, weight: np.ndarray | None = None) -> MonotoneSpline:
    """Fit the monotone map of a column to a normal distribution, with a cross-validated number of bins (two folds).

    Parameters
    ----------
    x : ndarray of shape (n_samples,)
    weight : ndarray of shape (n_samples,), default=None
        Weights of the values.
    """
    some = slice(None, _ROWS // 2 * 2 * max(1, len(x) // _ROWS), max(1, len(x) // _ROWS))
    rows, weights = x[some], None if weight is None else weight[some]
    halves = _in_order(rows, weights, 0), _in_order(rows, weights, 1)
    fewest = min(effective_rows(len(half), w) for half, w in halves)
    if fewest < _ROWS_OF_A_BIN or min(np.ptp(half) for half, _ in halves) == 0:
        return _with_bins(_in_order(x, weight), 0)
    choices = [0, *(bins for bins in _BINS if bins <= _n_effective(halves[0]) // _ROWS_OF_A_BIN)]

    def score(bins: int) -> float:
        return sum(_log_density(_with_bins(a, bins), *b) for a, b in (halves, halves[::-1]))

    return _with_bins(_in_order(x, weight), max(choices, key=score))


def _in_order(x: np.ndarray, weight: np.ndarray | None, half: int | None = None) -> _Sorted:
    """The values (or every second one) in order, with their weights."""
    if half is not None:
        x, weight = x[half::2], None if weight is None else weight[half::2]
    if weight is None:
        return np.sort(x), None
    order = np.argsort(x, kind="stable")
    return x[order], weight[order]


def _n_effective(values: _Sorted) -> float:
    return effective_rows(len(values[0]), values[1])


def _log_density(g: MonotoneSpline, x: np.ndarray, weight: np.ndarray | None) -> float:
    z, log_slope = g.forward(x)
    value = _log_normal(z) + log_slope
    return float(value.sum() if weight is None else value @ weight)


def _quantiles(values: _Sorted, shares: np.ndarray) -> np.ndarray:
    x, weight = values
    if weight is None:
        return np.quantile(x, shares)
    # a value stands at the middle of its weight
    return np.interp(shares, (np.cumsum(weight) - weight / 2) / weight.sum(), x)


def _with_bins(values: _Sorted, bins: int) -> MonotoneSpline:
    """The map of sorted values with a given number of bins; 0 is the straight line."""
    x, weight = values
    if bins == 0:
        return straight_line(x, weight)
    share = min(0.25, max(_TAIL, _TAIL_ROWS / _n_effective(values)))
    shares = np.linspace(share, 1 - share, bins + 1)
    knots, z = _apart(_quantiles(values, shares), ndtri(shares))
    if len(knots) < 2:
        return straight_line(x, weight)
    inner = _knot_slopes(np.diff(z) / np.diff(knots), np.diff(knots))
    mirrored = None if weight is None else weight[::-1]
    lower, upper = _fit_tail((-x[::-1], mirrored), -knots[0], -z[0]), _fit_tail(values, knots[-1], z[-1])
    return MonotoneSpline(knots, z, np.array([lower.slope, *inner, upper.slope]), lower, upper)


def straight_line(x: np.ndarray, weight: np.ndarray | None = None) -> MonotoneSpline:
    """The affine map of a column to mean 0 and standard deviation 1."""
    centre = np.average(x, weights=weight)
    spread = x.std() if weight is None else np.sqrt(np.average((x - centre) ** 2, weights=weight))
    scale = max(spread, np.finfo(float).tiny)
    ends = np.array([-1.0, 1.0])
    tail = [Tail(sign * centre + scale, 1.0, 1 / scale, None) for sign in (-1, 1)]
    return MonotoneSpline(centre + scale * ends, ends, np.full(2, 1 / scale), *tail)


def _apart(knots: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct knots; knots that coincide become one, at the mean of their z."""
    quarters = np.quantile(knots, [0.25, 0.75])
    gap = _GAP * min(knots[-1] - knots[0], quarters[1] - quarters[0] or np.inf)
    group, first = np.zeros(len(knots), dtype=int), knots[0]
    for k in range(1, len(knots)):
        apart = knots[k] - first > gap
        group[k], first = group[k - 1] + apart, knots[k] if apart else first
    counts = np.bincount(group)
    return np.bincount(group, knots) / counts, np.bincount(group, z) / counts


def _knot_slopes(secants: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The slopes at the inner knots: the weighted geometric mean of the secants, with more weight for narrow bins."""
    weight = widths[1:] / (widths[1:] + widths[:-1])
    return np.exp(weight * np.log(secants[:-1]) + (1 - weight) * np.log(secants[1:]))


def _fit_tail(values: _Sorted, knot: float, z: float) -> Tail:
    """Fit the upper tail of sorted values, by penalized maximum likelihood of the excesses over the knot."""
    x, weight = values
    excess = x[x > knot] - knot
    counts = None if weight is None else weight[x > knot] * (_n_effective(values) / weight.sum())
    if not len(excess):  # the largest value is repeated: the tail is as short as the range divided by the rows
        excess, counts = np.array([(x[-1] - x[0]) / len(x)]), None
    total = len(excess) if counts is None else counts.sum()
    sizes = np.median(excess) * 2 ** np.linspace(-4, 6, 41)
    scaled = excess / sizes[:, None]
    best: Any = None
    best_score = -np.inf
    for shape in _SHAPES:
        fall = np.log1p(shape * scaled) * (1 + 1 / shape) if shape else scaled
        falls = fall.sum(1) if counts is None else fall @ counts
        scores = -total * np.log(sizes) - falls - _SHAPE_PRICE * (shape > 0)
        if scores.max() > best_score:
            best, best_score = (sizes[scores.argmax()], shape), scores.max()
    size, shape = best
    return Tail(knot, z, np.exp(log_ndtr(-z) - _log_normal(z)) / size, shape)
