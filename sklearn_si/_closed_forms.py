"""Gaussian mixtures around which a network is built, chosen on rows that they were not fitted to."""

import dataclasses
import time
import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

# Components tried, fewest first, until two more steps of the ladder brought nothing: with covariances of their own and,
# which few rows bear better, with a higher floor of the variances (in scaled units), or one covariance for all.
_COMPONENTS = (2, 4, 8, 16, 32)
_KINDS = (("full", 1e-4), ("full", 0.03), ("tied", 1e-4))
# Iterations of a fit, their tolerance, and the products of numbers that they make in a second at least.
_ITERATIONS, _TOLERANCE, _PRODUCTS = 50, 3e-3, 2e9
# Standard errors of the gain of more components that count as noise.
_NOISE = 0.5
# Rows without which there is no choice to make; rows that the mixtures are fitted to while one is chosen, and at last;
# those that judge them. With fewer than these held out, folds of the former do.
_FEWEST, _ROWS, _ROWS_AT_LAST, _HELD_ROWS, _FEW_HELD, _FOLDS = 20, 4000, 20_000, 1000, 100, 5


@dataclasses.dataclass
class Mixture:
    """Weights, means and covariances in scaled units; mean log-densities of the judges and of the held-out rows."""

    parts: tuple
    score: float
    held_score: float


def fit_mixture(x, log_jacobian, train, held, seed, max_time):
    """The mixture of two or more components of the highest log-likelihood on other rows than it was fitted to.

    Parameters
    ----------
    x : Tensor of shape (n_samples, n_features)
        Rows in scaled units.
    log_jacobian : ndarray of shape (n_samples,)
        From the density in scaled units to the one in data units.
    train, held : ndarray
        Numbers of the rows that it is fitted to, and of those that it is judged by.
    seed : int
        Seed of its starts.
    max_time : float
        Seconds after which no further mixture is tried.

    Returns
    -------
    mixture : Mixture or None
        None where one component is the best.
    """
    every, train, held = train[:_ROWS_AT_LAST], train[:_ROWS], held[:_HELD_ROWS]
    x = x.double().cpu().numpy()
    if len(train) < _FEWEST:
        return None
    if len(held) < _FEW_HELD:
        pairs = [(np.delete(train, slice(k, None, _FOLDS)), train[k::_FOLDS]) for k in range(_FOLDS)]
    else:
        pairs = [(train, held)]

    def trial(kind, n_components, seed):
        fits = [_fit(x[rows], kind, n_components, seed) for rows, _ in pairs]
        scores = [f.score_samples(x[judges]) + log_jacobian[judges] for f, (_, judges) in zip(fits, pairs, strict=True)]
        return np.concatenate(scores), fits[0]

    fewest = min(len(rows) for rows, _ in pairs)
    score, kind, best = _search(trial, fewest, len(pairs) * len(train) * x.shape[1] ** 2, seed, max_time)
    if len(best.weights_) == 1:
        return None
    mixture = _fit(x[every], kind, len(best.weights_), seed, best)
    shape = (len(mixture.weights_), x.shape[1], x.shape[1])
    parts = mixture.weights_, mixture.means_, np.broadcast_to(mixture.covariances_, shape).copy()
    held_score = mixture.score(x[held]) + log_jacobian[held].mean()
    return Mixture(tuple(torch.as_tensor(part, dtype=torch.float32) for part in parts), score, held_score)


def _search(trial, n_rows, products, seed, max_time):
    """The mean score of the best mixture, its kind, and the mixture, within the time."""
    began, best_kind = time.perf_counter(), _KINDS[0]
    best_scores, best = trial(best_kind, 1, seed)

    def affordable(n_components):
        left = max_time - (time.perf_counter() - began)
        return 1 < n_components <= n_rows // 8 and n_components * products * _ITERATIONS / _PRODUCTS < left

    def attempt(kind, n_components, seed):
        """The score of a mixture, which is kept if it is better: with more components, by more than noise."""
        nonlocal best_scores, best_kind, best
        scores, mixture = trial(kind, n_components, seed)
        gain = scores - best_scores
        noise = _NOISE * gain.std() / len(gain) ** 0.5 if n_components > len(best.weights_) else 0
        if gain.mean() > noise:
            best_scores, best_kind, best = scores, kind, mixture
        return scores.mean()

    for kind in _KINDS:
        stale, highest = 0, -np.inf
        for n_components in _COMPONENTS:
            if stale < 2 and affordable(n_components):
                score = attempt(kind, n_components, seed)
                stale, highest = (0 if score > highest else stale + 1), max(score, highest)
    # numbers between those of the ladder; and the likelihood of a mixture has many maxima
    n = len(best.weights_)
    for n_components, other in [(n, 1), (n * 3 // 4, 0), (n * 3 // 2, 0), (n, 2), (n, 3)]:
        if affordable(n_components):
            attempt(best_kind, n_components, seed + other)
    return best_scores.mean(), best_kind, best


class _Collapsed:
    """What stands for a mixture with a component of too few rows."""

    @staticmethod
    def score_samples(X):
        """Never chosen."""
        return np.full(len(X), -1e100)


def _fit(rows, kind, n_components, seed, start=None):
    """A fit, from the k-means clusters of a seed or from another mixture; a collapsed one scores nothing."""
    known = {} if start is None else {
        "weights_init": start.weights_, "means_init": start.means_, "precisions_init": start.precisions_,
    }  # fmt: skip
    covariance, floor = kind
    mixture = GaussianMixture(
        n_components, covariance_type=covariance, reg_covar=floor, random_state=seed % 2**32, max_iter=_ITERATIONS,
        tol=_TOLERANCE, **known,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(rows)
    # a component of fewer rows than it has axes is a spike on them
    spiked = kind == _KINDS[0] and mixture.weights_.min() * len(rows) < rows.shape[1] + 3
    return _Collapsed() if start is None and n_components > 1 and spiked else mixture
