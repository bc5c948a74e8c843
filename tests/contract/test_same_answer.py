"""The same answer however it is asked: numbers of times, dtypes of frames, containers."""

import numpy as np
import pytest

from sklearn_si import InterpolantFlow

SMALL = {"hidden_layer_sizes": (24, 24), "base_density": None, "max_iter": 300, "random_state": 0}


def two_humps(n, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) * 0.3 + np.where(rng.random((n, 1)) < 0.5, 2.0, -2.0) * [1.0, 0.4]


@pytest.fixture(scope="module")
def bridge():
    return InterpolantFlow(**SMALL).fit(np.random.default_rng(0).normal(size=(800, 2)), two_humps(800, 1))


@pytest.fixture(scope="module")
def density():
    return InterpolantFlow(**SMALL, preprocessing="standardize").fit(two_humps(800, 1))


# ------------------------------------------------------------------ trajectory


@pytest.mark.parametrize("n_times", [2, 3, 5, 11, 52])
def test_a_trajectory_ends_where_transform_does_whatever_its_times(bridge, n_times):
    X = np.random.default_rng(2).normal(size=(200, 2))
    ends = bridge.transform(X)
    paths = bridge.trajectory(X, n_times)
    np.testing.assert_allclose(paths[0], X, atol=1e-12)
    assert (np.abs(paths[-1] - ends) / (1 + np.abs(ends))).max() < bridge.ode_tol
    back = bridge.trajectory(paths[-1], n_times, start=1.0, stop=0.0)[-1]
    assert (np.abs(back - X) / (1 + np.abs(X))).max() < 100 * bridge.ode_tol


@pytest.mark.parametrize("n_times", [2, 7])
def test_every_time_between_is_that_of_a_finer_trajectory(bridge, n_times):
    X = np.random.default_rng(2).normal(size=(100, 2))
    coarse, fine = bridge.trajectory(X, n_times), bridge.trajectory(X, 8 * (n_times - 1) + 1)
    assert np.abs(coarse - fine[::8]).max() < 5 * bridge.ode_tol


def test_a_stretch_of_a_trajectory_goes_on_where_the_last_one_ended(bridge):
    X = np.random.default_rng(2).normal(size=(100, 2))
    middle = bridge.trajectory(X, 2, stop=0.6)[-1]
    assert np.abs(bridge.trajectory(middle, 3, start=0.6)[-1] - bridge.transform(X)).max() < 20 * bridge.ode_tol


def test_a_trajectory_of_one_sample_comes_from_its_transform(density):
    X = two_humps(100, 3)
    for n_times in (2, 4, 30):
        paths = density.trajectory(X, n_times, start=1.0, stop=0.0)
        scale = density.preprocessing_.without_centre()
        np.testing.assert_allclose(scale.transform(paths[-1]), density.transform(X), atol=2 * density.ode_tol)


def test_a_tighter_tolerance_moves_a_trajectory_by_less_than_the_looser_one(bridge):
    X = np.random.default_rng(2).normal(size=(100, 2))
    loose = bridge.trajectory(X, 6)
    try:
        tight = bridge.set_params(ode_tol=1e-6).trajectory(X, 6)
    finally:
        bridge.set_params(ode_tol=InterpolantFlow().ode_tol)
    assert 0 < np.abs(loose - tight).max() < bridge.ode_tol


def test_a_trajectory_of_single_precision_stays_so_and_warns_where_it_cannot_be_as_precise(bridge):
    X = np.random.default_rng(2).normal(size=(50, 2)).astype(np.float32)
    assert bridge.trajectory(X, 4).dtype == np.float32
