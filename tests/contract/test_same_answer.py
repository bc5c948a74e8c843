"""The same answer however it is asked: numbers of times, dtypes of frames, containers."""

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from sklearn_si import InterpolantDiffusion, InterpolantFlow, SchroedingerBridge
from sklearn_si.compose import TransformedDensity

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


# ------------------------------------------------------------------ containers and dtypes

TINY = {"hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0, "preprocessing": "standardize"}
SINGLE = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
FRAMES = ["pandas", "pandas nullable", "polars"]


def frame_of(kind, rows):
    if kind == "polars":
        return pytest.importorskip("polars").DataFrame(rows, schema=["a", "b"])
    frame = pytest.importorskip("pandas").DataFrame(rows, columns=["a", "b"])
    return frame.astype("Float32") if kind == "pandas nullable" and rows.dtype == np.float32 else frame


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize("output", ["default", "pandas", "polars"])
def test_single_precision_of_any_frame_stays_so(kind, output):
    pytest.importorskip(output) if output != "default" else None
    frame = frame_of(kind, SINGLE)
    model = InterpolantFlow(**TINY).set_output(transform=output).fit(frame)
    expected = InterpolantFlow(**TINY).fit(SINGLE)
    for result in (model.transform(frame), model.sample(60), model.inverse_transform(frame)):
        assert np.asarray(result).dtype == np.float32
    assert model.score_samples(frame).dtype == np.float32
    np.testing.assert_array_equal(model.score_samples(frame), expected.score_samples(SINGLE))
    np.testing.assert_array_equal(np.asarray(model.transform(frame)), expected.transform(SINGLE))


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_a_frame_of_both_precisions_is_in_double(kind):
    frame = frame_of(kind, SINGLE.astype(np.float64))
    model = InterpolantFlow(**TINY).fit(frame)
    assert model.sample(3).dtype == np.float64 and model.transform(frame).dtype == np.float64


MODELS = {
    "flow": lambda: InterpolantFlow(**TINY).fit(SINGLE),
    "bridge": lambda: InterpolantFlow(base_density=None, **TINY).fit(SINGLE, SINGLE + 1),
    "plan": lambda: SchroedingerBridge(0.5, "mixture", n_components=1, base_density=None, random_state=0).fit(
        SINGLE, SINGLE + 1
    ),
    "transformed": lambda: TransformedDensity(StandardScaler(), InterpolantFlow(**TINY)).fit(SINGLE),
    "mirror": lambda: InterpolantDiffusion("mirror", **TINY).fit(SINGLE),
}


@pytest.mark.parametrize("output", ["pandas", "polars"])
@pytest.mark.parametrize("name", MODELS)
def test_rows_come_in_the_container_that_was_asked_for(name, output):
    library, model = pytest.importorskip(output), MODELS[name]()
    methods = ["transform", "inverse_transform", *{"mirror": ["resample"], "plan": ["sample_plan"]}.get(name, [])]
    for method in methods:
        plain = getattr(model, method)(SINGLE)
        assert isinstance(plain, np.ndarray)
        framed = getattr(model.set_output(transform=output), method)(SINGLE)
        model.set_output(transform="default")
        assert isinstance(framed, library.DataFrame), method
        np.testing.assert_array_equal(np.asarray(framed), plain)
    assert isinstance(model.set_output(transform=output).sample(3), library.DataFrame)


def test_names_come_back_with_the_frame_and_there_and_back_is_the_same():
    frame = frame_of("pandas", SINGLE.astype(np.float64))
    model = InterpolantFlow(**TINY).set_output(transform="pandas").fit(frame)
    back = model.inverse_transform(model.transform(frame))
    assert list(back.columns) == ["a", "b"]
    np.testing.assert_allclose(back, frame, atol=1e-2)
