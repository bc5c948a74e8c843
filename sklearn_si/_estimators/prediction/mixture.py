"""A mixture of maps: distribution functions, densities, quantiles by the maps or by root finding, and draws."""

import dataclasses
from typing import Any

import numpy as np
from scipy.special import log_ndtr, logsumexp, ndtr, ndtri
from scipy.stats import norm, qmc

from ..._utils.tensors import blocks
from .calibration import Calibration, cell_masses, normal_scores

# Rounds of root finding for a quantile of a mixture.
_ROUNDS = 7
# Error of a score that ends them: that of the solver is as large.
_NEAR = 3e-4
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

    def _scores(self, given, y):
        pairs = zip(self.members, given, strict=True)
        return normal_scores(np.array([member.to_normal(own, y[:, None], self.device)[:, 0] for member, own in pairs]))

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
        """Quantiles by the steps that draws take, which is enough for means over rows; of several members by all."""
        if len(self.members) > 1:
            return self.quantiles(codes, levels)
        z = self._before(ndtri(np.asarray(levels))).astype(np.float32)[:, None]
        step = max(1, _POINTS // len(z))
        return np.concatenate([self._spread(codes[rows], z)[..., 0] for rows in blocks(len(codes), step)])

    def at_scores(self, codes, z):
        """Targets with given scores before the calibration, the same for all rows, of shape (n_rows, n_scores)."""
        order, step = np.argsort(z), max(1, _POINTS // len(z))
        parts = [self._at_scores(codes[rows], z[order]) for rows in blocks(len(codes), step)]
        rising = np.empty((len(codes), len(z)))
        # neighbours may differ by the error of the solver
        rising[:, order] = np.maximum.accumulate(np.concatenate(parts), axis=1)
        return rising

    def _at_scores(self, codes, z):
        given, points = self._given(codes, len(z)), np.tile(z, len(codes))
        pairs = zip(self.members, given, strict=True)
        found = np.array([member.from_normal(own, points[:, None], self.device)[:, 0] for member, own in pairs])
        value = found[0] if len(found) == 1 else self._between(given, points, found)
        return value.reshape(len(codes), len(z))

    def _between(self, given, target, found):
        """The roots of z(y) = target, which lie between those of the members: by regula falsi.

        The left side is nearly linear in y; the Illinois rule halves the value of an end that was kept twice. Points
        that are near enough are left out of later rounds.
        """
        y, low, high = found.mean(0), found.min(0), found.max(0)
        ends = [np.minimum(self._scores(given, low) - target, 0.0), np.maximum(self._scores(given, high) - target, 0.0)]
        open_, kept = np.flatnonzero(high > low), np.zeros(len(target))
        for _ in range(_ROUNDS):
            if not len(open_):
                break
            below, above, left, right = ends[0][open_], ends[1][open_], low[open_], high[open_]
            width = above - below
            y[open_] = np.where(width > 0, (left * above - right * below) / np.where(width > 0, width, 1.0), left)
            value = self._scores([own.rows(open_) for own in given], y[open_]) - target[open_]
            is_left, before = value < 0, kept[open_]
            ends[0][open_] = np.where(is_left, value, np.where(before > 0, below / 2, below))
            ends[1][open_] = np.where(is_left, np.where(before < 0, above / 2, above), value)
            low[open_], high[open_] = np.where(is_left, y[open_], left), np.where(is_left, right, y[open_])
            kept[open_] = np.where(is_left, -1.0, 1.0)
            open_ = open_[np.abs(value) > _NEAR]
        return y

    def nodes(self, codes, n_outputs):
        """Targets that stand for the distribution of each row, (n_rows, n_nodes, n_outputs), and their weights."""
        at, weights = self._at_nodes(codes, n_outputs), base_nodes(n_outputs)[1]
        if self.calibration is None:
            return at, np.broadcast_to(np.tile(weights / len(self.members), len(self.members)), at.shape[:2])
        z, at = self._scored(at[..., 0])
        return at[..., None], cell_masses(z, self.calibration)

    def _at_nodes(self, codes, n_outputs):
        nodes, _ = base_nodes(n_outputs)
        step = max(1, _POINTS // len(nodes))
        return np.concatenate([self._spread(codes[rows], nodes) for rows in blocks(len(codes), step)])

    def _spread(self, codes, nodes):
        shape, points = (len(codes), *nodes.shape), np.tile(nodes, (len(codes), 1))
        pairs = zip(self.members, self._given(codes, len(nodes)), strict=True)
        return np.hstack([member.at_base(own, points, self.device).reshape(shape) for member, own in pairs])

    def _scored(self, at):
        """The scores of the nodes of each row under the mixture, and the nodes, in ascending order."""
        nodes = base_nodes(1)[0][:, 0]
        at = np.maximum.accumulate(at.reshape(len(at), len(self.members), len(nodes)), axis=2)
        if len(self.members) == 1:
            return np.broadcast_to(nodes, (len(at), len(nodes))), at[:, 0]
        every = np.sort(at.reshape(len(at), -1), axis=1)
        z = [[np.interp(ys, member, nodes) for member in row] for ys, row in zip(every, at, strict=True)]
        return normal_scores(np.moveaxis(np.array(z), 1, 0)), every

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
        scores, at = self._scored(self._at_nodes(codes, 1)[..., 0])
        return np.array([np.interp(one, scores[row], at[row]) for one, row in zip(z, rows, strict=True)])


def _log_difference(a, b):
    """log(exp(a) - exp(b)), where a >= b up to rounding."""
    return a + np.log1p(-np.exp(np.minimum(b - a, 0.0)))
