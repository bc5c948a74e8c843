"""Gaussian mixtures against those of scikit-learn."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.mixture import GaussianMixture

from sklearn_si._training import gaussian_mixtures
from sklearn_si._training.gaussian_mixtures import ITERATIONS, Mixture, fit_mixture

RNG = np.random.default_rng(0)
ROWS = RNG.standard_t(5, (300, 3)) @ RNG.normal(size=(3, 3))
ROWS[:100] += [3.0, 0.0, -3.0]
KINDS = [("full", 1e-4), ("full", 0.03), ("tied", 1e-4)]


def theirs(rows, kind, n_components, **known):
    covariance, floor = kind
    return GaussianMixture(
        n_components,
        covariance_type=covariance,
        reg_covar=floor,
        tol=3e-3,
        max_iter=ITERATIONS,
        random_state=5,
        **known,
    ).fit(rows)


def assert_same(ours, theirs, rows, **within):
    assert_allclose(ours.score_samples(rows), theirs.score_samples(rows), **within)
    assert_allclose(ours.weights, theirs.weights_, atol=1e-7)
    assert_allclose(ours.means, theirs.means_, **within)
    shared = theirs.covariances_.ndim == 2
    assert_allclose(ours.covariances, theirs.covariances_[None] if shared else theirs.covariances_, **within)


@pytest.mark.parametrize("n_components", [1, 2, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_mixtures_are_those_of_scikit_learn(kind, n_components):
    assert_same(fit_mixture(ROWS, kind, n_components, 5), theirs(ROWS, kind, n_components), ROWS, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixture_continues_from_another(kind):
    weights, means = np.array([0.3, 0.7]), np.array([[3.0, 0.0, -3.0], [0.0, 0.0, 0.0]])
    covariances = np.stack([np.eye(3), 2 * np.eye(3)])[: 1 if kind[0] == "tied" else 2]
    precisions = np.linalg.inv(covariances)
    known = {"precisions_init": precisions[0] if kind[0] == "tied" else precisions}
    reference = theirs(ROWS, kind, 2, weights_init=weights, means_init=means, **known)
    assert_same(
        fit_mixture(ROWS, kind, 2, 0, Mixture(weights, means, covariances)), reference, ROWS, rtol=1e-7, atol=1e-7
    )


def test_many_rows_are_taken_in_parts(monkeypatch):
    whole = fit_mixture(ROWS, KINDS[0], 4, 5)
    monkeypatch.setattr(gaussian_mixtures, "_NUMBERS", 70 * 10)
    assert_allclose(fit_mixture(ROWS, KINDS[0], 4, 5).score_samples(ROWS), whole.score_samples(ROWS), rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS[:2])
def test_rows_far_out_lose_no_digits(kind):
    """Two narrow clusters at a distance whose square has no digits left for a variance of 1e-4."""
    near = RNG.normal(scale=0.05, size=(200, 2))
    rows = np.concatenate([near, near + 1e7])
    covariances = fit_mixture(rows, kind, 2, 0).covariances
    assert_allclose(covariances[:, [0, 1], [0, 1]], 0.0025 + kind[1], rtol=0.3)


def test_a_component_without_weight_has_no_density():
    lost = Mixture(np.array([1.0, 0.0]), np.zeros((2, 2)), np.stack([np.eye(2)] * 2))
    assert_allclose(lost.score_samples(np.zeros((1, 2))), -np.log(2 * np.pi))
