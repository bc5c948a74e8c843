"""A density that cannot resolve a small clump of rows: few components, each of many rows, fitted to trimmed rows."""

import dataclasses

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from .._model.ratio import mixture_log_density
from .._utils.names import registered
from .._utils.process import without_warnings

# Components at the most, and rows for each of them and each column.
_COMPONENTS = 4
_ROWS_PER_PARAMETER = 10
# Share of the rows below which a component is a clump, and is left out.
_LEAST_SHARE = 0.08
# Share of the rows that are trimmed, and rounds of trimming.
_TRIMMED = 0.1
_ROUNDS = 4
# Floor of the variances, in robust units.
_FLOOR = 0.1
# Robust units beyond which a value counts as this far out.
_FARTHEST = 20.0
# Quartiles of a standard normal distribution lie so far apart.
_NORMAL_RANGE = 1.349


@registered("outliers.LowCapacity")
@dataclasses.dataclass(frozen=True, eq=False)
class LowCapacity:
    """A Gaussian mixture in robust units, and by how much a flexible density may exceed it.

    Parameters
    ----------
    centre, scale : ndarray of shape (d,)
        Medians and interquartile ranges.
    parts : tuple of ndarray
        Log-weights, means, and factors of the precisions.
    cap : float, default=0.0
        In nats.
    """

    centre: np.ndarray
    scale: np.ndarray
    parts: tuple
    cap: float = 0.0

    def log_density(self, X):
        """Log-density in data units, up to a constant."""
        return mixture_log_density(_robust(X, self.centre, self.scale), self.parts)

    def capped(self, X, log_density):
        """A log-density reflected at this one plus the cap: what only the former believes in counts as strange."""
        bound = self.log_density(X) + self.cap
        return bound - np.abs(log_density - bound)

    def capping(self, X, log_density, share):
        """The same with the cap that a share of some rows exceeds."""
        gain = log_density - self.log_density(X)
        return dataclasses.replace(self, cap=float(np.quantile(gain, 1 - share)))


def _robust(X, centre, scale):
    with np.errstate(over="ignore"):
        return np.clip((np.asarray(X, np.float64) - centre) / scale, -_FARTHEST, _FARTHEST)


def fit_low_capacity(X, seed):
    """Fit a few components to the rows that they explain best (trimmed likelihood, Neykov et al. 2007).

    Parameters
    ----------
    X : ndarray of shape (n, d)
    seed : int
    """
    X = np.asarray(X, np.float64)
    low, centre, high = np.quantile(X, [0.25, 0.5, 0.75], axis=0)
    deviation = X.std(0)
    scale = np.where(high > low, (high - low) / _NORMAL_RANGE, np.where(deviation > 0, deviation, 1.0))
    z = _robust(X, centre, scale)
    kept, means = np.ones(len(z), bool), None
    n_components = int(np.clip(len(z) // (_ROWS_PER_PARAMETER * z.shape[1]), 1, _COMPONENTS))
    for _ in range(_ROUNDS):
        mixture = _fit(z[kept], n_components, means, seed)
        large = mixture.weights_ >= min(_LEAST_SHARE, mixture.weights_.max())
        weights = mixture.weights_[large] / mixture.weights_[large].sum()
        means, n_components = mixture.means_[large], int(large.sum())
        parts = np.log(weights), means, mixture.precisions_cholesky_[large]
        score = mixture_log_density(z, parts)
        kept = score >= np.quantile(score, _TRIMMED)
    return LowCapacity(centre, scale, parts)


def _fit(z, n_components, means, seed):
    mixture = GaussianMixture(n_components, means_init=means, reg_covar=_FLOOR, random_state=seed % 2**32)
    with without_warnings(ConvergenceWarning):
        return mixture.fit(z)
