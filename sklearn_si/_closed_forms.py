"""Gaussian mixtures around which a network is built, chosen on held-out rows."""

import time
import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

# Components tried, fewest first, until two more steps of the ladder brought nothing; each with covariances of its own
# and, which few rows bear better, with one covariance for all.
_COMPONENTS, _COVARIANCES = (1, 2, 4, 8, 12, 20, 32), ("full", "tied")
# Floor of the variances, in scaled units.
_FLOOR = 1e-4
# Rows that the mixture is fitted to, and those that judge it.
_ROWS, _HELD_ROWS = 4000, 1000


def fit_mixture(x, train, held, seed, max_time=None):
    """Weights, means and covariances of the mixture of the highest held-out log-likelihood.

    Parameters
    ----------
    x : Tensor of shape (n_samples, n_features)
        Rows in scaled units.
    train, held : ndarray
        Numbers of the rows that it is fitted to, and of those that it is judged by.
    seed : int
        Seed of its starts.
    max_time : float, default=None
        Seconds after which no further mixture is tried.

    Returns
    -------
    weights, means, covariances : Tensor
    """
    rows, judges = x[train[:_ROWS]].double().cpu().numpy(), x[held[:_HELD_ROWS]].double().cpu().numpy()
    began, best, best_score = time.perf_counter(), None, -np.inf
    for covariance in _COVARIANCES:
        last_score, stale = -np.inf, 0
        for n_components in _COMPONENTS:
            late = max_time is not None and time.perf_counter() - began > max_time
            if best is not None and (stale >= 2 or late or n_components > len(rows) // 8):
                break
            mixture = _fit(rows, n_components, covariance, seed)
            # a component of fewer rows than it has axes is a spike on them
            collapsed = covariance == "full" and mixture.weights_.min() * len(rows) < x.shape[1] + 3
            score = -np.inf if collapsed else mixture.score(judges)
            stale, last_score = (0 if score > last_score else stale + 1), max(score, last_score)
            if best is None or score > best_score:
                best, best_score = mixture, score
    shape = (len(best.weights_), x.shape[1], x.shape[1])
    parts = best.weights_, best.means_, np.broadcast_to(best.covariances_, shape).copy()
    return tuple(torch.as_tensor(part, dtype=torch.float32) for part in parts)


def _fit(rows, n_components, covariance, seed):
    mixture = GaussianMixture(
        n_components, covariance_type=covariance, reg_covar=_FLOOR, random_state=seed, max_iter=50, tol=1e-2
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.fit(rows)
