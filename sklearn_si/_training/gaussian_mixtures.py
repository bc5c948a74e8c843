"""Gaussian mixtures by expectation maximisation, in two products an iteration whatever the number of components."""

import functools
from typing import NamedTuple

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from .._utils.process import one_blas_thread, without_warnings

# Largest number of iterations of a fit.
ITERATIONS = 50
# Gain of the mean log-likelihood below which iterations end, in nats.
_TOLERANCE = 3e-3
# Numbers in the squares of the rows that are taken at a time.
_NUMBERS = 2**21
# Largest number in rows whose squares are summed before their means are subtracted: rounding then changes a variance
# by 1e-10, and no variance is below 1e-4.
_FAR = 1e3


class Mixture(NamedTuple):
    """A mixture of Gaussian distributions.

    p(x) = sum_k w_k N(x; m_k, C_k)

    Parameters
    ----------
    weights : ndarray of shape (n_components,)
    means : ndarray of shape (n_components, n_features)
    covariances : ndarray of shape (n_components, n_features, n_features) or (1, n_features, n_features)
        One matrix for all components if they are tied.
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    def coefficients(self) -> np.ndarray:
        """Log w_k N(x; m_k, C_k) as a linear function of `_squares`: of shape (n_squares, n_components).

        Raises
        ------
        LinAlgError
            Where a covariance is not positive definite.
        """
        n_components, d = self.means.shape
        factors = np.linalg.inv(np.linalg.cholesky(self.covariances))
        log_det = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(1)
        precisions = np.broadcast_to(factors.transpose(0, 2, 1) @ factors, (n_components, d, d))
        linear = (precisions @ self.means[:, :, None])[:, :, 0]
        with np.errstate(divide="ignore"):  # a component may have lost its weight
            constant = np.log(self.weights) + log_det - 0.5 * d * np.log(2 * np.pi)
        constant = constant - 0.5 * (linear * self.means).sum(1)
        upper = _upper(d)
        quadratic = -precisions[:, upper[0], upper[1]]
        quadratic[:, upper[0] == upper[1]] *= 0.5
        return np.concatenate([constant[:, None], linear, quadratic], axis=1).T

    def score_samples(self, rows: np.ndarray) -> np.ndarray:
        """The log-density of rows."""
        coefficients = self.coefficients()
        return np.concatenate([_shares(_squares(some) @ coefficients)[1] for some in _parts(rows)])


def fit_mixture(
    rows: np.ndarray, kind: tuple[str, float], n_components: int, seed: int, start: Mixture | None = None
) -> Mixture:
    """A mixture by expectation maximisation, from the k-means clusters of a seed or from another mixture.

    The iterations are those of `sklearn.mixture.GaussianMixture`, and so are its results but for rounding.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_features)
    kind : tuple of (str, float)
        "full" or "tied", and what is added to the variances.
    n_components, seed : int
    start : Mixture or None
        From where iterations begin.
    """
    with one_blas_thread(), without_warnings(ConvergenceWarning):
        if n_components == 1 or np.abs(rows).max(initial=0.0) > _FAR:
            return _by_centred_squares(rows, kind, n_components, seed, start)
        parts = [(some, _squares(some)) for some in _parts(rows)]
        if start is None:
            clusters = _clusters(rows, n_components, seed)
            at = np.cumsum([len(some) for some, _ in parts])[:-1]
            sums = sum(c.T @ s for c, (_, s) in zip(np.split(clusters, at), parts, strict=True))
            start = _maximised(sums, rows.shape[1], *kind)
        mixture, before = start, -np.inf
        for _ in range(ITERATIONS):
            coefficients, sums, score = mixture.coefficients(), 0.0, 0.0
            for _, squares in parts:
                shares, values = _shares(squares @ coefficients)
                sums, score = sums + shares.T @ squares, score + values.sum() / len(rows)
            mixture = _maximised(sums, rows.shape[1], *kind)
            if abs(score - before) < _TOLERANCE:
                break
            before = score
    return mixture


@functools.cache
def _upper(d: int) -> tuple[np.ndarray, np.ndarray]:
    return np.triu_indices(d)  # which takes longer than a product of few rows


def _parts(rows: np.ndarray) -> list[np.ndarray]:
    """Rows of which the squares fit into memory."""
    size = max(1, _NUMBERS // ((rows.shape[1] + 1) * (rows.shape[1] + 2) // 2))
    return [rows[k : k + size] for k in range(0, len(rows), size)]


def _squares(rows: np.ndarray) -> np.ndarray:
    """The columns 1, x_i and x_i x_j, i <= j."""
    i, j = _upper(rows.shape[1])
    return np.concatenate([np.ones((len(rows), 1)), rows, rows[:, i] * rows[:, j]], axis=1)


def _shares(joint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shares of the components in each row, and the log-density, from log w_k N(x; m_k, C_k)."""
    highest = joint.max(1, keepdims=True)
    shares = np.exp(joint - highest)
    totals = shares.sum(1, keepdims=True)
    return shares / totals, (highest + np.log(totals))[:, 0]


def _clusters(rows: np.ndarray, n_components: int, seed: int) -> np.ndarray:
    """The k-means clusters of rows, as shares of 0 and 1."""
    random_state = np.random.RandomState(seed % 2**32)
    return np.eye(n_components)[KMeans(n_components, n_init=1, random_state=random_state).fit(rows).labels_]


def _maximised(sums: np.ndarray, d: int, covariance: str, floor: float) -> Mixture:
    """The mixture of the highest expected likelihood, from the sums of `_squares` over each component's share."""
    totals = sums[:, 0] + 10 * np.finfo(float).eps
    means = sums[:, 1 : d + 1] / totals[:, None]
    upper = _upper(d)
    seconds = np.empty((len(sums), d, d))
    seconds[:, upper[0], upper[1]] = seconds[:, upper[1], upper[0]] = sums[:, d + 1 :]
    if covariance == "tied":
        matrices = ((seconds.sum(0) - (totals * means.T) @ means) / totals.sum())[None]
    else:
        matrices = seconds / totals[:, None, None] - means[:, :, None] * means[:, None]
    return Mixture(totals / totals.sum(), means, matrices + floor * np.eye(d))


def _by_centred_squares(
    rows: np.ndarray, kind: tuple[str, float], n_components: int, seed: int, start: Mixture | None
) -> Mixture:
    """The same by squares around the means: for rows far out, and for one component, where it is faster."""
    known = {}
    if start is not None:
        precisions = np.linalg.inv(start.covariances)
        known = {"weights_init": start.weights, "means_init": start.means,
                 "precisions_init": precisions[0] if kind[0] == "tied" else precisions}  # fmt: skip
    own = GaussianMixture(
        n_components, covariance_type=kind[0], reg_covar=kind[1], random_state=seed % 2**32, max_iter=ITERATIONS,
        tol=_TOLERANCE, **known,
    ).fit(rows)  # fmt: skip
    covariances = own.covariances_[None] if kind[0] == "tied" else own.covariances_
    return Mixture(own.weights_, own.means_, covariances)
