"""Split-conformal calibration: the scores of rows that neither train nor validate."""

import numpy as np
from scipy.special import log_ndtr, ndtr, ndtri, ndtri_exp

from ..._utils.names import registered
from ..._utils.weights import effective_rows

# Share of the rows that calibrate, and the fewest rows of a fit that can spare some.
CALIBRATION_SHARE = 0.2
LEAST_ROWS_TO_CALIBRATE = 10
# Levels at which the map of scores has its knots: the ends of the intervals that are usually asked for, those first
# which few rows should have.
_LEVELS = (0.5, 0.05, 0.95, 0.25, 0.75, 0.1, 0.9, 0.025, 0.975, 0.005, 0.995)
# Calibration rows (by weight) between successive knots at the least: a slope of fewer is noise in the density.
_ROWS_OF_A_SLOPE = 5
# Sums of weights that differ by less are equal.
_ROUNDING = 1e-9


@registered("prediction.Calibration")
class Calibration:
    """A monotone map of the scores z = Phi^-1(F(y | x)), after which those of new rows are standard normal.

    P(z <= z_(k)) >= k / (n + 1) >= P(z < z_(k))    for a new row and the sorted scores of n calibration rows

    (Vovk, Gammerman & Shafer 2005, "Algorithmic learning in a random world"; Vovk et al. 2017, "Nonparametric
    predictive distributions based on conformal prediction"). The map is linear between knots that have these ranks, and
    a shift beyond them. With weights, a rank is a share of the weight, where the new row has the largest weight of any
    row of fit (Tibshirani et al. 2019, "Conformal prediction under covariate shift", arXiv 1904.06019, (8)).

    Parameters
    ----------
    scores : ndarray of shape (n,)
        In any order.
    weight : ndarray of shape (n,) or None
    largest : float
        The largest weight of any row of fit.
    """

    def __init__(self, scores, weight=None, largest=1.0):
        order = np.argsort(scores)
        weight = np.ones(len(scores)) if weight is None else weight[order]
        self.scores = scores[order]
        self.shares = weight / (weight.sum() + largest)
        self.n_effective = effective_rows(len(scores), weight)
        self.knots, self.targets = self._knots()

    def _knots(self):
        """Scores, and what they are mapped to."""
        apart = _ROWS_OF_A_SLOPE / (self.n_effective + 1)
        found: dict[float, float] = {}
        for level in _LEVELS:
            score = self._outward(level)
            is_apart = all(abs(other - level) >= apart - _ROUNDING for other in found)
            rises = all((level - other) * (score - found[other]) > 0 for other in found)
            if np.isfinite(score) and is_apart and rises:
                found[level] = score
        levels = sorted(found)
        return np.array([found[level] for level in levels]), ndtri(np.array(levels))

    def _outward(self, level):
        """The score of a level, on the side of it that holds more of the middle."""
        low, high = self.lower(level), self.upper(level)
        return low if level < 0.5 else high if level > 0.5 else (low + high) / 2

    def upper(self, level):
        """The least score that a new one does not exceed with at least this probability; inf if there is none."""
        place = np.searchsorted(np.cumsum(self.shares), level - _ROUNDING)
        return self.scores[place] if place < len(self.scores) else np.inf

    def lower(self, level):
        """The largest score that a new one falls below with at most this probability; -inf if there is none."""
        place = np.searchsorted(np.cumsum(self.shares[::-1]), 1 - level - _ROUNDING)
        return self.scores[::-1][place] if place < len(self.scores) else -np.inf

    def forward(self, z):
        """Calibrated scores."""
        if not len(self.knots):
            return z
        inside = np.clip(z, self.knots[0], self.knots[-1])
        return np.interp(inside, self.knots, self.targets) + (z - inside)

    def inverse(self, z):
        """The scores that are mapped to given ones."""
        if not len(self.knots):
            return z
        inside = np.clip(z, self.targets[0], self.targets[-1])
        return np.interp(inside, self.targets, self.knots) + (z - inside)

    def log_ratio(self, z):
        """Log of the calibrated density over the density before, log(phi(g(z)) g'(z) / phi(z))."""
        slopes = np.concatenate([[1.0], np.diff(self.targets) / np.diff(self.knots), [1.0]])
        place = np.searchsorted(self.knots, z) if len(self.knots) else np.zeros(len(z), int)
        return np.log(slopes[place]) + (z**2 - self.forward(z) ** 2) / 2

    def interval(self, coverage):
        """Scores between which a new one lies with at least this probability, and whether that is guaranteed.

        They are the calibrated quantiles, or the ranks where these lie further out.
        """
        level = (1 + coverage) / 2
        ends = self.inverse(ndtri(np.array([1 - level, level])))
        low, high = self.lower(1 - level), self.upper(level)
        is_guaranteed = bool(np.isfinite(low) and np.isfinite(high))
        return np.array([min(ends[0], low), max(ends[1], high)]) if is_guaranteed else ends, is_guaranteed


def normal_scores(z):
    """Phi^-1 of the mean of Phi over the first axis, by the tail that loses fewer digits."""
    if len(z) == 1:
        return z[0]
    sides = [np.logaddexp.reduce(log_ndtr(side * z), axis=0) - np.log(len(z)) for side in (1, -1)]
    return np.where(sides[0] < sides[1], ndtri_exp(sides[0]), -ndtri_exp(sides[1]))


def _levels_of(n):
    return ndtri((np.arange(n) + 0.5) / n)


def marginal_scores(at, y):
    """Phi^-1(F(y)) for each row, with F the distribution of the nodes of the row, linear between and beyond them.

    Parameters
    ----------
    at : ndarray of shape (n_rows, n_nodes)
    y : ndarray of shape (n_rows,)
    """
    at, z = np.sort(at, axis=1), _levels_of(at.shape[1])
    inside = np.array([np.interp(one, row, z) for one, row in zip(y, at, strict=True)])
    return inside + (y - np.clip(y, at[:, 0], at[:, -1])) / at.std(1)


def marginal_values(at, scores):
    """The inverse of `marginal_scores` at the same scores for all rows, of shape (n_rows, n_scores)."""
    at, z = np.sort(at, axis=1), _levels_of(at.shape[1])
    inside = np.array([np.interp(scores, z, row) for row in at])
    return inside + (scores - np.clip(scores, z[0], z[-1])) * at.std(1)[:, None]


def cell_masses(z, calibration):
    """Probabilities of the cells around ascending scores, which end halfway between them."""
    edges = (z[..., 1:] + z[..., :-1]) / 2
    below = ndtr(calibration.forward(edges))
    return np.diff(below, prepend=0.0, append=1.0, axis=-1)
