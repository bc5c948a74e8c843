"""Covariances of many columns: eigenvalues shrunk one by one."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf

from sklearn_si import InterpolantFlow
from sklearn_si.preprocessing import fit_one_sample_map
from sklearn_si.preprocessing._shrinkage import shrunk_eigenvalues


def factors(n, d=80, seed=0):
    """Rows of five factors and noise, and their covariance."""
    rng = np.random.default_rng([seed, d])
    loadings = rng.normal(size=(5, d))
    covariance = loadings.T @ loadings + 0.25 * np.eye(d)
    return np.random.default_rng([seed, n]).multivariate_normal(np.zeros(d), covariance, n), covariance


@pytest.mark.parametrize("n", [40, 80, 82, 100, 160, 800])
def test_whitening_of_many_columns_has_a_higher_likelihood_than_one_shrinkage_for_all(n):
    X, covariance = factors(n)
    test = np.random.default_rng(9).multivariate_normal(np.zeros(80), covariance, 300)
    scaling = fit_one_sample_map(X, "whiten")
    own = multivariate_normal(scaling.centre, scaling.scale @ scaling.scale.T).logpdf(test).mean()
    spread = X.std(0)
    other = ledoit_wolf((X - X.mean(0)) / spread)[0] * np.outer(spread, spread)
    truth = multivariate_normal(np.zeros(80), covariance).logpdf(test).mean()
    assert multivariate_normal(X.mean(0), other).logpdf(test).mean() < own < truth


def test_variances_of_columns_are_kept_and_many_rows_need_no_shrinkage():
    X, covariance = factors(160)
    scaling = fit_one_sample_map(X, "whiten")
    # draws of the normal distribution have the deviations of the rows
    ratios = np.sqrt((scaling.scale**2).sum(1)) / X.std(0)
    assert abs(ratios.mean() - 1) < 0.02 and np.abs(ratios - 1).max() < 0.1
    values = np.linalg.eigvalsh(covariance)
    assert_allclose(shrunk_eigenvalues(values, 1e8), values, rtol=1e-3)


def test_rows_that_repeat_fall_back_to_one_shrinkage_for_all():
    X = np.repeat(factors(50)[0], 4, axis=0)
    scaling = fit_one_sample_map(X, "whiten")
    assert np.isfinite(scaling.scale).all() and np.linalg.cond(scaling.scale) < 1e6


@pytest.mark.parametrize("n", [60, 400])
def test_weights_of_one_are_no_weights(n):
    X, weight = factors(n)[0], np.ones(n)
    assert_allclose(fit_one_sample_map(X, "whiten", weight).scale, fit_one_sample_map(X, "whiten").scale, atol=1e-9)


def test_draws_of_a_short_fit_have_the_deviations_of_the_rows():
    X, _ = factors(300, 120)
    flow = InterpolantFlow(max_iter=10, random_state=0).fit(X)
    assert abs(np.median(flow.sample(400).std(0) / X.std(0)) - 1) < 0.06


@pytest.mark.parametrize("n", [5, 12, 13])
def test_a_dozen_rows_of_many_columns_are_whitened(n):
    """The logarithm of the kernels had been that of a negative number, and every fit diverged."""
    X = np.random.default_rng(0).normal(size=(n, 60))
    found = fit_one_sample_map(X, "whiten")
    assert np.isfinite(found.log_abs_det) and np.isfinite(found.transform(X)).all()
    shrunk = shrunk_eigenvalues(np.sort(np.linalg.eigvalsh(np.cov(X.T))), n - 1)
    assert (shrunk is None) == (n < 13) and (shrunk is None or np.isfinite(shrunk).all())
