"""A mixture of maps: distribution functions, densities, quantiles by the maps or by root finding, and draws."""

import dataclasses
import functools
from typing import Any

import numpy as np
from scipy.special import log_ndtr, logsumexp, ndtr, ndtri
from scipy.stats import norm, qmc

from ..._utils.tensors import blocks
from .calibration import Calibration, cell_masses, normal_scores

# Rounds of root finding for a quantile of a mixture, at the most.
_ROUNDS = 7
# Error of a score that is as large as that of the solver in these rounds ...
_NEAR = 3e-4
# ... whose tolerance is so many times that of other questions (transported rows come out a hundred times as exact).
_LOOSE = 10.0
# Error of a score from which the slope of the first target is exact enough for one more step, and the same of a secant.
_FIRST = 1e-2
_SECANT = 2e-2
# Distance of the nodes of the first target, and how far they reach beyond the scores, in deviations of the base.
_APART = 0.5
_BEYOND = 1.0
# Least distance between successive targets of a map, as a share of that of the first and the last.
_LEAST_GAP = 1e-9
# Base nodes of a mean of one output: equally spaced, so that a jump of the map (between two humps of y) shifts the mean
# by no more than a fiftieth of it; Gauss-Hermite nodes are a third of a deviation apart or more.
_NODES = 128
# The outermost of them, in standard deviations of the base.
_REACH = 6.0
# Base nodes of several outputs, of a scrambled Sobol sequence.
_JOINT_NODES = 128
_SOBOL_SEED = 0
# Points that are moved together.
_POINTS = 2**16


def base_nodes(n_outputs):
    """Points of the standard normal that stand for it, the same for every row, of shape (n_nodes, n_outputs); weights.

    E f(z) = sum_k w_k f(z_k)
    """
    if n_outputs == 1:
        nodes = np.linspace(-_REACH, _REACH, _NODES)
        weights = norm.pdf(nodes)
        return nodes[:, None], weights / weights.sum()
    sobol = qmc.Sobol(n_outputs, scramble=True, seed=_SOBOL_SEED)
    nodes = ndtri(np.clip(sobol.random(_JOINT_NODES), 1e-9, 1 - 1e-9))
    return nodes, np.full(_JOINT_NODES, 1 / _JOINT_NODES)


@dataclasses.dataclass(frozen=True)
class Mixture:
    """The predictive distribution of rows: an equal mixture of maps, whose scores may be calibrated.

    F(y | x) = Phi(g(z)),    z = Phi^-1(mean over members of Phi(T_m^-1(y | x)))

    with g the identity or the map of a `Calibration`. All but the nodes and the draws are of one output.

    Parameters
    ----------
    members : list of Member
    device : torch.device
    calibration : Calibration or None, default=None
        Of one output.
    """

    members: list
    device: Any
    calibration: Calibration | None = None

    def _given(self, codes, times=1):
        return [member.given(codes).repeated(times) for member in self.members]

    def scores(self, codes, y):
        """Z of targets, before the calibration."""
        return self._scores(self._given(codes), y)

    def _scores(self, given, y, looser=1.0):
        pairs = zip(self.members, given, strict=True)
        z = [member.to_normal(own, y[:, None], self.device, looser)[:, 0] for member, own in pairs]
        return normal_scores(np.array(z))

    def _calibrated(self, z):
        return z if self.calibration is None else self.calibration.forward(z)

    def _before(self, z):
        """The scores that the calibration maps to given ones."""
        return z if self.calibration is None else self.calibration.inverse(z)

    def log_cdf(self, codes, y, upper=False):
        """Log P(Y <= y | x), or log P(Y > y | x); y = -inf and inf are allowed."""
        known = np.isfinite(y)
        value = np.where((y > 0) == upper, -np.inf, 0.0)
        if known.any():
            z = self._calibrated(self.scores(codes[known], y[known]))
            value[known] = log_ndtr(-z if upper else z)
        return value

    def log_mass(self, codes, low, high):
        """Log P(low < Y <= high | x), by the tail that loses fewer digits."""
        below = self.log_cdf(codes, high), self.log_cdf(codes, low)
        above = self.log_cdf(codes, low, True), self.log_cdf(codes, high, True)
        with np.errstate(divide="ignore"):
            return np.where(below[0] < np.log(0.5), _log_difference(*below), _log_difference(*above))

    def masses(self, codes, edges):
        """Probabilities of the cells between successive edges, of shape (n_rows, n_edges + 1)."""
        step = max(1, _POINTS // len(edges))
        return np.concatenate([self._masses(codes[rows], edges) for rows in blocks(len(codes), step)])

    def _masses(self, codes, edges):
        z = self._scores(self._given(codes, len(edges)), np.tile(edges, len(codes)))
        below = ndtr(self._calibrated(z)).reshape(len(codes), -1)
        # neighbours may differ by the error of the solver
        mass = np.diff(below, prepend=0.0, append=1.0, axis=1).clip(min=0.0)
        return mass / mass.sum(1, keepdims=True)

    def log_density(self, codes, Y):
        """Log p(y | x), also of several outputs, which are not calibrated."""
        values = [member.log_density(member.given(codes), Y, self.device) for member in self.members]
        value = logsumexp(values, axis=0) - np.log(len(self.members))
        return value if self.calibration is None else value + self.calibration.log_ratio(self.scores(codes, Y[:, 0]))

    def quantiles(self, codes, levels):
        """Quantiles, of shape (n_rows, n_levels): by the map of one member, by root finding for several."""
        return self.at_scores(codes, self._before(ndtri(np.asarray(levels))))

    def coarse_quantiles(self, codes, levels):
        """Quantiles by the steps that draws take, which is enough for means over rows."""
        z = self._before(ndtri(np.asarray(levels)))
        step = max(1, _POINTS // len(z))
        return np.concatenate([self._coarse_at(codes[rows], z) for rows in blocks(len(codes), step)])

    def _coarse_at(self, codes, z):
        if len(self.members) == 1:
            return self._spread(codes, z.astype(np.float32)[:, None])[..., 0]
        return np.array([np.interp(z, *row) for row in zip(*self._coarse(self._given(codes), z), strict=True)])

    def _coarse(self, given, z):
        """Ascending targets around those of some scores, and their scores before them, in single precision."""
        nodes = np.linspace(z.min() - _BEYOND, z.max() + _BEYOND, 2 + int((np.ptp(z) + 2 * _BEYOND) / _APART))
        at = self._spread_given(given, nodes[:, None].astype(np.float32))[..., 0]
        return self._scored(at.astype(np.float64), nodes)

    def at_scores(self, codes, z):
        """Targets with given scores before the calibration, the same for all rows, of shape (n_rows, n_scores)."""
        order, step = np.argsort(z), max(1, _POINTS // len(z))
        parts = [self._at_scores(codes[rows], z[order]) for rows in blocks(len(codes), step)]
        rising = np.empty((len(codes), len(z)))
        # neighbours may differ by the error of the solver
        rising[:, order] = np.maximum.accumulate(np.concatenate(parts), axis=1)
        return rising

    def _at_scores(self, codes, z):
        if len(self.members) > 1:
            return self._roots(codes, z).reshape(len(codes), len(z))
        (given,), points = self._given(codes, len(z)), np.tile(z, len(codes))
        return self.members[0].from_normal(given, points[:, None], self.device).reshape(len(codes), len(z))

    def _roots(self, codes, z):
        """Targets at which the mixture has given scores, of shape (n_rows, n_scores).

        The steps that draws take, at a few nodes, give a first target and its slope, in single precision; one or two
        solutions of the ODE correct it.
        """
        given = self._given(codes)
        rows = list(zip(*self._coarse(given, z), strict=True))
        y, low, high, left, right = (
            np.concatenate([np.interp(z + shift, *row) for row in rows])
            for shift in (0.0, -_BEYOND / 2, _BEYOND / 2, -_APART / 2, _APART / 2)
        )
        return self._corrected(
            [own.repeated(len(z)) for own in given], np.tile(z, len(codes)), y, low, high, (right - left) / _APART
        )

    def _corrected(self, given, target, y, low, high, slope):
        """Targets that are nearly right, corrected by the secant rule within bounds that are moved along.

        The slope is that of the targets by their scores.
        """
        open_, y_last, error_last = np.arange(len(y)), None, None
        for k in range(_ROUNDS):
            here = y[open_]
            error = self._scores([own.rows(open_) for own in given], here, _LOOSE) - target[open_]
            low[open_], high[open_] = np.where(error < 0, here, low[open_]), np.where(error < 0, high[open_], here)
            if k:
                moved, gained = here - y_last, error - error_last
                is_steep = moved * gained > 0  # else the two are equal up to rounding
                slope[open_] = np.where(is_steep, moved / np.where(is_steep, gained, 1.0), slope[open_])
            new = here - slope[open_] * error
            is_within = (new >= low[open_]) & (new <= high[open_])
            y[open_] = np.where(is_within, new, (low[open_] + high[open_]) / 2)
            far = ~is_within & (np.abs(error) > _NEAR) | (np.abs(error) > (_SECANT if k else _FIRST))
            open_, y_last, error_last = open_[far], here[far], error[far]
            if not len(open_):
                break
        return y

    def nodes(self, codes, n_outputs):
        """Targets that stand for the distribution of each row, (n_rows, n_nodes, n_outputs), and their weights."""
        at, weights = self._at_nodes(codes, n_outputs), base_nodes(n_outputs)[1]
        if self.calibration is None:
            return at, np.broadcast_to(np.tile(weights / len(self.members), len(self.members)), at.shape[:2])
        z, at = self._scored(at[..., 0], base_nodes(1)[0][:, 0])
        return at[..., None], cell_masses(z, self.calibration)

    def _at_nodes(self, codes, n_outputs):
        nodes, _ = base_nodes(n_outputs)
        step = max(1, _POINTS // len(nodes))
        return np.concatenate([self._spread(codes[rows], nodes) for rows in blocks(len(codes), step)])

    def _spread(self, codes, nodes):
        return self._spread_given(self._given(codes), nodes)

    def _spread_given(self, given, nodes):
        """Targets to which each member moves the nodes, by the steps that draws take."""
        n, pairs = len(given[0].told), zip(self.members, given, strict=True)
        points = np.tile(nodes, (n, 1))
        moved = [member.at_base(own.repeated(len(nodes)), points, self.device) for member, own in pairs]
        return np.hstack([rows.reshape(n, *nodes.shape) for rows in moved])

    def _scored(self, at, nodes):
        """The scores of the targets of each row under the mixture, and the targets, in ascending order.

        They are those to which the members move some nodes, which are in ascending order too.
        """
        at = np.maximum.accumulate(at.reshape(len(at), len(self.members), len(nodes)), axis=2)
        if len(self.members) == 1:
            return np.broadcast_to(nodes, (len(at), len(nodes))), at[:, 0]
        every = np.sort(at.reshape(len(at), -1), axis=1)
        z = [smooth_inverse(at[:, k], nodes, every) for k in range(len(self.members))]
        return normal_scores(np.array(z)), every

    def draw(self, codes, rows, n_outputs, rng):
        """A draw for each of some rows, which are numbers of codes."""
        Z = rng.normal(size=(len(rows), n_outputs))
        if self.calibration is not None and len(self.members) > 1:
            return self._interpolated(codes, rows, self._before(Z[:, 0]))[:, None]
        # the error of the measured steps is far above that of single precision
        Z, drawn = self._before(Z).astype(np.float32), np.empty(Z.shape)
        chosen = rng.integers(len(self.members), size=len(rows))
        for k, member in enumerate(self.members):
            own = np.flatnonzero(chosen == k)
            if len(own):
                drawn[own] = member.at_base(member.given(codes).rows(rows[own]), Z[own], self.device)
        return drawn

    def _interpolated(self, codes, rows, z):
        """Targets with given scores, linear between the nodes of their rows."""
        scores, at = self._scored(self._at_nodes(codes, 1)[..., 0], base_nodes(1)[0][:, 0])
        return np.array([np.interp(one, scores[row], at[row]) for one, row in zip(z, rows, strict=True)])


def smooth_inverse(at, nodes, y):
    """The points that rising maps move to given targets, by cubic Hermite interpolation of the inverse maps.

    Parameters
    ----------
    at : ndarray of shape (n_rows, n_nodes)
        Targets to which the nodes are moved.
    nodes : ndarray of shape (n_nodes,)
        Ascending.
    y : ndarray of shape (n_rows, n_targets)
        Ascending; those beyond the first and the last node are given the points of these.
    """
    gaps, steps = np.diff(at, axis=1), np.diff(nodes)
    secants = steps / np.maximum(gaps, _LEAST_GAP * (at[:, -1:] - at[:, :1]) + np.finfo(float).tiny)
    # slopes of Fritsch & Butland (1984), by which the interpolation rises
    share = (2 * gaps[:, 1:] + gaps[:, :-1]) / np.maximum(3 * (gaps[:, 1:] + gaps[:, :-1]), np.finfo(float).tiny)
    inner = secants[:, 1:] * secants[:, :-1] / (share * secants[:, 1:] + (1 - share) * secants[:, :-1])
    ends = [np.clip(1.5 * secants[:, k] - 0.5 * inner[:, k], 0, 3 * secants[:, k])[:, None] for k in (0, -1)]
    slopes = np.hstack([ends[0], inner, ends[1]])
    y = np.clip(y, at[:, :1], at[:, -1:])
    place = np.array([np.searchsorted(row[1:-1], ys, side="right") for row, ys in zip(at, y, strict=True)])
    take = functools.partial(np.take_along_axis, indices=place, axis=1)
    gap = take(gaps)
    u = np.divide(y - take(at[:, :-1]), gap, out=np.zeros_like(y), where=gap > 0)
    left, right = take(slopes[:, :-1]) * gap, take(slopes[:, 1:]) * gap
    rise = steps[place]
    return nodes[place] + u * (left + u * (3 * rise - 2 * left - right + u * (left + right - 2 * rise)))


def _log_difference(a, b):
    """log(exp(a) - exp(b)), where a >= b up to rounding."""
    return a + np.log1p(-np.exp(np.minimum(b - a, 0.0)))
