"""Densities of fitted models: they integrate to one, agree both ways, and state errors that cover the true ones."""

import itertools

import numpy as np
import pytest

from sklearn_si import InterpolantDiffusion, InterpolantFlow

SMALL = {"max_iter": 150, "hidden_layer_sizes": (16, 16), "random_state": 0}


def rows(d, n=500, seed=0):
    """A skewed, correlated sample of d columns."""
    rng = np.random.default_rng(seed)
    Z = rng.normal(size=(n, d))
    return (Z + 0.3 * Z**2) @ np.linalg.qr(rng.normal(size=(d, d)))[0] * 0.7


@pytest.mark.parametrize(("d", "n"), [(1, 400), (2, 90), (3, 32)])
def test_density_of_one_sample_integrates_to_one(d, n):
    X = rows(d)
    model = InterpolantFlow(preprocessing="whiten", **SMALL).fit(X)
    # 2 units beyond the rows on each side: the trapezoidal rule of a smooth density is then exact to its tails
    axes = [np.linspace(low - 2, high + 2, n) for low, high in zip(X.min(0), X.max(0), strict=True)]
    grid = np.array(list(itertools.product(*axes)))
    volume = np.prod([axis[1] - axis[0] for axis in axes])
    assert abs(np.exp(model.score_samples(grid)).sum() * volume - 1) < 1e-3


@pytest.mark.parametrize(("d", "n"), [(1, 2000), (2, 160)])
def test_density_after_a_map_of_the_columns_integrates_to_one(d, n):
    """It is steep where a column ends: the trapezoidal rule takes its points where the map says that rows are."""
    model = InterpolantFlow(preprocessing="marginal", **SMALL).fit(rows(d))
    axes = [g.inverse(np.linspace(-5, 5, n)) for g in model.preprocessing_.columns]
    weights = [np.convolve(np.diff(axis), [0.5, 0.5]) for axis in axes]
    grid = np.array(list(itertools.product(*axes)))
    volumes = np.prod(list(itertools.product(*weights)), axis=1)
    assert abs((np.exp(model.score_samples(grid)) * volumes).sum() - 1) < 2e-3


@pytest.mark.parametrize("cls", [InterpolantFlow, InterpolantDiffusion])
def test_density_of_a_bridge_integrates_to_one(cls):
    X1 = rows(2)
    X0 = np.random.default_rng(1).normal(1.0, 0.8, size=(400, 2))
    model = cls(base_density="flow", **SMALL).fit(X0, X1)
    axes = [np.linspace(low - 3, high + 3, 60) for low, high in zip(X1.min(0), X1.max(0), strict=True)]
    grid = np.array(list(itertools.product(*axes)))
    volume = np.prod([axis[1] - axis[0] for axis in axes])
    assert abs(np.exp(model.score_samples(grid)).sum() * volume - 1) < 1e-3


@pytest.mark.parametrize("d", [2, 10, 43])
def test_stated_errors_cover_the_true_ones(d):
    X = rows(d, 400)
    model = InterpolantFlow(**SMALL).fit(X)
    new = rows(d, 300, seed=1)
    value, error = model.score_samples(new, return_error=True)
    finest = model.set_params(ode_tol=1e-8).score_samples(new)
    assert (abs(value - finest) <= error).mean() >= 0.99
    assert abs(value - finest).max() <= 1e-3


@pytest.mark.parametrize("d", [2, 10])
def test_sampled_rows_have_the_density_that_carried_them(d):
    """log rho of a sampled row, from its base row on and from the row back."""
    model = InterpolantFlow(**SMALL, ode_tol=1e-5).fit(rows(d))
    X = rows(d, 6, seed=2)
    Z = model.transform(X)
    h = 1e-5
    columns = [(model.transform(X + h * e) - model.transform(X - h * e)) / (2 * h) for e in np.eye(d)]
    log_det = np.linalg.slogdet(np.stack(columns, -1))[1]
    forward = -0.5 * (Z**2).sum(1) - 0.5 * d * np.log(2 * np.pi) + log_det
    value, error = model.score_samples(X, return_error=True)
    # 1e-4: the differences of rows carried to 1e-7
    assert (abs(value - forward) <= error + 1e-3).all()
