"""Gaussian mixtures around which a network is built, chosen on rows that they were not fitted to."""

import dataclasses
import time
from typing import Any, NamedTuple

import numpy as np
import torch

from .gaussian_mixtures import ITERATIONS, Mixture, fit_mixture

# Components tried, fewest first, until two more steps of the ladder brought nothing: with covariances of their own and,
# which few rows bear better, with a higher floor of the variances (in scaled units), or one covariance for all.
_COMPONENTS = (1, 2, 4, 8, 16, 32, 64, 128)
_KINDS = (("full", 1e-4), ("full", 0.03), ("tied", 1e-4))
# Products of two numbers that a fit takes in a second, by which its cost is estimated.
_PRODUCTS = 2e9
# Seconds that any fit takes.
_LEAST_SECONDS = 0.005
# Standard errors of the gain of more components that count as noise.
_NOISE = 0.5
# Training rows below which no mixture is tried.
_FEWEST = 20
# Largest number of rows that mixtures are fitted to while one is chosen.
_ROWS = 4000
# Largest number of validation rows by which it is chosen.
_VALIDATION_ROWS = 1000
# Validation rows below which it is chosen by cross-validation of the training rows.
_FEW_VALIDATION_ROWS = 100
# Folds of the cross-validation.
FOLDS = 5


class ClosedForm(NamedTuple):
    """A mixture as networks are built around it.

    Parameters
    ----------
    parts : tuple of Tensor
        Weights, means and covariances, in scaled units.
    kind : tuple of (str, float)
        Of the covariances, as in `_KINDS`.
    """

    parts: tuple
    kind: tuple

    def refitted(self, rows, seed, same_axes):
        """The closed form of other rows: continued from this one, or begun anew in units whose axes are others."""
        start = None
        if same_axes:
            weights, means, covariances = (part.double().numpy() for part in self.parts)
            n_matrices = 1 if self.kind[0] == "tied" else len(weights)
            start = Mixture(weights / weights.sum(), means, covariances[:n_matrices])
        mixture = fit_mixture(rows, self.kind, len(self.parts[0]), seed, start)
        return ClosedForm(Found(mixture, self.kind, np.empty(0)).parts, self.kind)


class Budget:
    """Seconds for fits of mixtures: by the clock, or by what they cost on paper, which is the same on every machine."""

    def __init__(self, seconds, timed):
        self.seconds, self.timed, self.began, self.spent = seconds, timed, time.perf_counter(), 0.0

    @staticmethod
    def cost(n_components, n_rows, n_features):
        """Seconds of a fit, as foreseen."""
        return n_components * n_rows * n_features**2 * ITERATIONS / _PRODUCTS + _LEAST_SECONDS

    def affords(self, cost):
        """Whether a fit of this cost may begin; if it may, it is paid."""
        spent = time.perf_counter() - self.began if self.timed else self.spent
        affordable = spent + cost <= self.seconds
        self.spent += cost if affordable else 0.0
        return affordable


@dataclasses.dataclass
class Found:
    """A mixture, its kind of covariances, and its log-densities of the validation rows in data units."""

    mixture: Mixture
    kind: tuple
    scores: np.ndarray

    @property
    def n_components(self):
        """Number of components."""
        return len(self.mixture.weights)

    @property
    def parts(self):
        """Weights, means and covariances, in scaled units."""
        weights, means, matrices = self.mixture
        covariances = np.broadcast_to(matrices, (self.n_components, *means.shape[1:] * 2)).copy()
        return tuple(torch.as_tensor(part, dtype=torch.float32) for part in (weights, means, covariances))


def find_mixture(train, val, log_jacobian, seed, budget, most=(_ROWS, _VALIDATION_ROWS)):
    """The mixture of the highest log-likelihood on other rows than it was fitted to.

    Parameters
    ----------
    train, val : ndarray of shape (n_samples, n_features)
        Training rows, and validation rows by which mixtures are compared where they are enough, in scaled units.
    log_jacobian : tuple of ndarray
        For each of the two, from the density in scaled units to the one in data units.
    seed : int
        Seed of its starts.
    budget : Budget
        What may be spent.
    most : tuple of int
        Largest numbers of rows of the two.

    Returns
    -------
    found : Found or None
        None where one component is the best, or where there are too few rows to tell.
    """
    train, val = train[: most[0]], val[: most[1]]
    jacobians = [j[:n] for j, n in zip(log_jacobian, most, strict=True)]
    if len(train) < _FEWEST:
        return None
    splits = [(train, val, jacobians[1])]
    if len(val) < _FEW_VALIDATION_ROWS:
        folds = [slice(k, None, FOLDS) for k in range(FOLDS)]
        splits = [(np.delete(train, fold, axis=0), train[fold], jacobians[0][fold]) for fold in folds]
    best = _search(splits, seed, budget)
    return None if best is None or best.n_components == 1 else best


def _search(splits, seed, budget):
    """What was best of a ladder of components for each kind, and of its neighbours; None if nothing can be afforded."""
    n_rows, n_features = splits[0][0].shape
    best: Any = None

    def attempt(kind, n_components, seed):
        """The mean score of a mixture (None if it cannot be afforded), which is kept if it is better."""
        nonlocal best
        cost = len(splits) * Budget.cost(n_components, n_rows, n_features)
        if n_components > max(1, n_rows // 8) or not budget.affords(cost):
            return None
        found = _trial(splits, kind, n_components, seed)
        best = found if best is None or _is_better(found, best) else best
        return found.scores.mean()

    for kind in _KINDS:
        stale, highest = 0, -np.inf
        for n_components in _COMPONENTS:
            score = attempt(kind, n_components, seed) if stale < 2 else None
            if score is not None:
                stale, highest = (0 if score > highest else stale + 1), max(score, highest)
    # numbers between those of the ladder; and the likelihood of a mixture has many maxima
    n = 1 if best is None else best.n_components
    for n_components, other in [(n, 1), (n * 3 // 4, 0), (n * 3 // 2, 0), (n, 2), (n, 3)] if n > 1 else []:
        attempt(best.kind, n_components, seed + other)
    return best


def _is_better(found, best):
    """Whether the scores of validation rows are higher; with more components, by more than noise."""
    gain = found.scores - best.scores
    noise = _NOISE * gain.std() / len(gain) ** 0.5 if found.n_components > best.n_components else 0
    return gain.mean() > noise


def _trial(splits, kind, n_components, seed):
    """Mixtures fitted to each split: the first of them, with the scores of all validation rows."""
    mixtures = [fit_mixture(rows, kind, n_components, seed) for rows, _, _ in splits]
    # a component of fewer rows than it has axes is a spike on them
    n_rows, n_features = splits[0][0].shape
    spiked = n_components > 1 and kind == _KINDS[0] and min(m.weights.min() for m in mixtures) * n_rows < n_features + 3
    pairs = zip(mixtures, splits, strict=True)
    scores = np.concatenate([m.score_samples(validation) + jacobian for m, (_, validation, jacobian) in pairs])
    return Found(mixtures[0], kind, np.full_like(scores, -1e100) if spiked else scores)


def refit(found, train, seed, budget):
    """The same kind of mixture, continued on as many rows as can be afforded."""
    most = int(len(train) * min(1, (budget.seconds / 2) / Budget.cost(found.n_components, *train.shape)))
    rows = train[: max(most, _ROWS)]
    return Found(fit_mixture(rows, found.kind, found.n_components, seed, found.mixture), found.kind, found.scores)
