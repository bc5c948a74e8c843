"""The contract of design.md, section 2: what a user of scikit-learn may take for granted."""

import pickle
from itertools import pairwise

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_si import InterpolantDiffusion, InterpolantFlow

SMALL = {
    "max_iter": 20, "hidden_layer_sizes": (8,), "n_steps": 4, "preprocessing": "standardize", "base_density": "normal",
    "random_state": 0,
}  # fmt: skip

RNG = np.random.default_rng(0)
X = RNG.normal([1.0, -2.0], [1.0, 3.0], size=(80, 2))
X1 = RNG.normal([4.0, 0.0], [2.0, 0.5], size=(60, 2))
X1_PAIRED = X + RNG.normal(1.0, 0.1, size=X.shape)
LABELS = np.arange(80) % 3
WEIGHT = np.linspace(0.0, 2.0, 80)

KINDS = ["flow", "diffusion", "flow-bridge", "diffusion-bridge"]
METHODS = ["transform", "inverse_transform", "score_samples"]


def small(kind="flow", **params):
    cls = InterpolantDiffusion if kind.startswith("diffusion") else InterpolantFlow
    # smooth at both ends, unlike the default: the ODE of so rough a fit then takes few steps
    gamma = {"gamma": "quadratic"} if kind == "diffusion-bridge" else {}
    return cls(**{**SMALL, **gamma, **params})


def arguments(kind):
    return (X, X1) if kind.endswith("bridge") else (X,)


@pytest.fixture(scope="module")
def fitted():
    """One fitted model of each kind: shared, so tests copy before they change a parameter."""
    return {kind: small(kind).fit(*arguments(kind)) for kind in KINDS}


def with_params(model, **params):
    """A model that shares the fitted attributes, with other parameters."""
    other = clone(model).set_params(**params)
    other.__dict__.update({name: value for name, value in vars(model).items() if name.endswith("_")})
    return other


def answers(model):
    """Everything that a fitted model answers."""
    return [model.sample(5, random_state=3), *(getattr(model, method)(X[:6]) for method in METHODS)]


def assert_same_answers(a, b):
    for left, right in zip(answers(a), answers(b), strict=True):
        assert_array_equal(left, right)


# ----------------------------------------------------------------------------- fit: the arguments


def test_two_samples_by_position_and_by_keyword(fitted):
    model = small().fit(X0=X, X1=X1)
    assert_same_answers(model, fitted["flow-bridge"])
    assert_same_answers(small().fit(X, X1=X1), model)
    assert model.base_sample_.shape == (80, 2)


@pytest.mark.parametrize("container", [list, pd.DataFrame, np.asfortranarray, lambda a: torch.tensor(a)])
def test_containers_of_both_samples(fitted, container):
    x0, x1 = (a.tolist() if container is list else container(a) for a in (X, X1))
    assert_array_equal(small().fit(x0, x1).sample(5), fitted["flow-bridge"].sample(5))


@pytest.mark.parametrize("labels", [LABELS, LABELS.tolist(), pd.Series(LABELS.astype(str)), np.array(["a"] * 80)])
def test_a_one_dimensional_second_argument_is_ignored(fitted, labels):
    model = small().fit(X, labels)
    assert_same_answers(model, fitted["flow"])
    assert model.score(X, labels) == fitted["flow"].score(X)


def test_a_column_as_second_argument_is_a_sample():
    model = small().fit(X[:, :1], X1[:, :1])
    assert_array_equal(model.base_sample_, X[:, :1])
    with pytest.raises(ValueError, match="X1 has 1 features, but expected 2"):
        small().fit(X, X1[:, :1])


def test_fit_returns_self_and_leaves_the_samples_alone():
    x0, x1 = X.copy(), X1.copy()
    model = small("diffusion-bridge")
    assert model.fit(x0, x1) is model
    model.transform(x0), model.score_samples(x1)
    assert_array_equal(x0, X)
    assert_array_equal(x1, X1)


def test_the_stored_base_sample_is_not_the_callers_array():
    x0 = X.copy()
    model = small(base_density=None).fit(x0, X1)
    before = model.sample(5)
    x0[:] = 1e6
    assert_array_equal(model.sample(5), before)


# --------------------------------------------------------------------------- meta-estimators


@pytest.mark.parametrize("kind", KINDS)
def test_clone_keeps_parameters_and_forgets_the_fit(fitted, kind):
    model = fitted[kind]
    copy = clone(model)
    assert repr(copy.get_params()) == repr(model.get_params())
    assert not hasattr(copy, "network_")
    assert_same_answers(copy.fit(*arguments(kind)), model)


def test_clone_of_a_base_density_estimator_leaves_the_parameter_unfitted():
    mixture = GaussianMixture(2, random_state=0)
    model = clone(small(base_density=mixture)).fit(X, X1)
    assert not hasattr(mixture, "means_")
    assert_allclose(model.base_density_.means_, GaussianMixture(2, random_state=0).fit(X).means_)


def test_pipeline_ignores_labels_and_counts_nothing_twice(fitted):
    pipe = make_pipeline(StandardScaler(), small()).fit(X, LABELS)
    scaled = StandardScaler().fit_transform(X)
    alone = small().fit(scaled)
    assert_array_equal(pipe.transform(X), alone.transform(scaled))
    assert_array_equal(pipe.fit_transform(X, LABELS), alone.transform(scaled))
    assert pipe.score(X, LABELS) == alone.score(scaled)
    assert_allclose(pipe.inverse_transform(pipe.transform(X)), X, rtol=0, atol=0.02)


def test_rows_of_a_pipeline_come_back_by_the_earlier_steps():
    pipe = make_pipeline(StandardScaler(), small()).fit(X)
    rows = pipe[:-1].inverse_transform(pipe[-1].sample(2000))
    # 20 steps fit little but the moments, which preprocessing knows
    assert_allclose(rows.mean(0), X.mean(0), atol=4 * X.std(0).max() / np.sqrt(2000))


def test_grid_search_over_one_sample():
    search = GridSearchCV(small(), {"interpolant": ["linear", "trigonometric"]}, cv=2).fit(X, LABELS)
    folds = list(KFold(2).split(X))
    means = [
        np.mean([small(interpolant=name).fit(X[train]).score(X[test]) for train, test in folds])
        for name in ("linear", "trigonometric")
    ]
    assert_allclose(search.cv_results_["mean_test_score"], means, rtol=1e-12)
    assert_same_answers(search.best_estimator_, small(**search.best_params_).fit(X))


def test_grid_search_over_two_samples_by_position():
    search = GridSearchCV(small(coupling="paired"), {"time_distribution": ["uniform", "arcsine"]}, cv=2).fit(
        X, X1_PAIRED
    )
    train, test = next(KFold(2).split(X))
    first = small(coupling="paired", time_distribution="uniform").fit(X[train], X1_PAIRED[train])
    assert_allclose(search.cv_results_["split0_test_score"][0], first.score(X1_PAIRED[test]), rtol=1e-12)
    assert search.best_estimator_.base_sample_.shape == X.shape


def test_cross_val_score_of_one_and_of_two_samples():
    folds = list(KFold(3).split(X))
    one = [small().fit(X[train]).score(X[test]) for train, test in folds]
    assert_allclose(cross_val_score(small(), X, LABELS, cv=KFold(3)), one, rtol=1e-12)
    two = [small().fit(X[train], X1_PAIRED[train]).score(X1_PAIRED[test]) for train, test in folds]
    assert_allclose(cross_val_score(small(), X, X1_PAIRED, cv=KFold(3)), two, rtol=1e-12)


def test_metadata_routing_of_weights_in_score(fitted):
    with sklearn.config_context(enable_metadata_routing=True):
        flow = small().set_fit_request(sample_weight=False).set_score_request(sample_weight=True)
        assert flow.get_metadata_routing().consumes("fit", ["X0", "X1"]) == set()
        pipe = make_pipeline(StandardScaler(), flow).fit(X)
        expected = np.average(pipe[-1].score_samples(StandardScaler().fit_transform(X)), weights=WEIGHT)
        assert_allclose(pipe.score(X, sample_weight=WEIGHT), expected, rtol=1e-12)
        folds = list(KFold(2).split(X))
        scores = cross_val_score(flow, X, cv=KFold(2), params={"sample_weight": WEIGHT})
        expected = [small().fit(X[a]).score(X[b], sample_weight=WEIGHT[b]) for a, b in folds]
        assert_allclose(scores, expected, rtol=1e-12)
        search = GridSearchCV(flow, {"ode_tol": [1e-3]}, cv=KFold(2)).fit(X, sample_weight=WEIGHT)
        assert_allclose(search.cv_results_["mean_test_score"], [np.mean(expected)], rtol=1e-12)


# --------------------------------------------------------------------------- names and frames


@pytest.fixture(scope="module")
def fitted_on_frames():
    return small().fit(pd.DataFrame(X, columns=["a", "b"]), pd.DataFrame(X1, columns=["a", "b"]))


def test_feature_names_of_both_samples(fitted_on_frames, fitted):
    assert fitted_on_frames.feature_names_in_.tolist() == ["a", "b"]
    assert fitted_on_frames.get_feature_names_out().tolist() == ["a", "b"]
    frame = pd.DataFrame(X[:6], columns=["a", "b"])
    for method in METHODS:
        # a frame is stored by columns, and sums in another order
        expected = getattr(fitted["flow-bridge"], method)(X[:6])
        assert_allclose(getattr(fitted_on_frames, method)(frame), expected, rtol=1e-9, atol=1e-9)


def test_set_output_pandas(fitted_on_frames):
    model = with_params(fitted_on_frames).set_output(transform="pandas")
    frame = pd.DataFrame(X[:6], columns=["a", "b"], index=range(10, 16))
    carried, sample = model.transform(frame), model.sample(4)
    assert carried.columns.tolist() == sample.columns.tolist() == ["a", "b"]
    assert carried.index.tolist() == frame.index.tolist()
    assert sample.index.tolist() == [0, 1, 2, 3]
    assert_array_equal(sample, fitted_on_frames.sample(4))
    assert_array_equal(carried, fitted_on_frames.transform(frame))
    assert np.isfinite(model.score(sample))


# --------------------------------------------------------------------------- copies and threads


@pytest.mark.parametrize("kind", KINDS)
def test_pickle_and_joblib_round_trips(fitted, kind, tmp_path):
    model = fitted[kind]
    assert_same_answers(pickle.loads(pickle.dumps(model)), model)
    joblib.dump(model, tmp_path / "model.joblib")
    assert_same_answers(joblib.load(tmp_path / "model.joblib", mmap_mode="r"), model)


# --------------------------------------------------------------------------- randomness


@pytest.mark.parametrize("kind", KINDS)
def test_an_int_seed_gives_bit_identical_fits_and_samples(fitted, kind):
    again = small(kind).fit(*arguments(kind))
    for a, b in zip(again.network_.parameters(), fitted[kind].network_.parameters(), strict=True):
        assert torch.equal(a, b)
    assert again.loss_curve_ == fitted[kind].loss_curve_
    assert_same_answers(again, fitted[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_global_generators_are_untouched_with_an_int_seed(kind):
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state().clone()  # noqa: NPY002
    model = small(kind, base_density="flow").fit(*arguments(kind))
    answers(model)
    model.sample(3)
    assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_a_network_factory_draws_its_weights_from_the_seed():
    class Velocity(torch.nn.Linear):
        def forward(self, t, x, condition=None):
            return super().forward(x)

    def factory(n_features, n_conditions):
        assert (n_features, n_conditions) == (2, 0)
        return Velocity(n_features, n_features)

    torch_state = torch.get_rng_state().clone()
    first, second, third = (small(network=factory, random_state=seed).fit(X) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert torch.equal(first.network_.weight, second.network_.weight)
    assert not torch.equal(first.network_.weight, third.network_.weight)


def test_sample_repeats_with_a_seed_and_is_fresh_without():
    model = small().fit(X)
    assert_array_equal(model.sample(4), model.sample(4))
    assert_array_equal(model.sample(4, random_state=0), model.sample(4))
    assert_array_equal(model.sample(4, random_state=5), model.sample(4, random_state=5))
    assert not np.array_equal(model.sample(4, random_state=5), model.sample(4))
    model.set_params(random_state=None)
    assert not np.array_equal(model.sample(4), model.sample(4))
    assert_array_equal(model.sample(4, random_state=5), model.sample(4, random_state=5))


def test_a_random_state_instance_moves_on():
    model, state = small().fit(X), np.random.RandomState(0)
    first, second = model.sample(4, random_state=state), model.sample(4, random_state=state)
    assert not np.array_equal(first, second)
    assert_array_equal(model.sample(4, random_state=np.random.RandomState(0)), first)


def test_without_a_seed_numpys_global_state_decides():
    def draw():
        np.random.seed(3)  # noqa: NPY002
        return small(random_state=None).fit(X).sample(3)

    assert_array_equal(draw(), draw())


# --------------------------------------------------------------------------- parameters after fit


@pytest.mark.parametrize("kind", ["flow", "diffusion", "diffusion-bridge"])
@pytest.mark.parametrize(
    "params", [{"noise_level": 0.3}, {"n_steps": 7}, {"noise_level": 0.4, "noise_schedule": "constant"}], ids=str
)
def test_sampling_parameters_change_the_sample_and_nothing_else(fitted, kind, params):
    base, changed = fitted[kind], with_params(fitted[kind], **params)
    assert not np.array_equal(changed.sample(6), base.sample(6))
    for method in METHODS:
        assert_array_equal(getattr(changed, method)(X[:6]), getattr(base, method)(X[:6]))


def test_solver_after_fit(fitted):
    fine = with_params(fitted["flow"], n_steps=400).sample(50)
    errors = {
        solver: np.abs(with_params(fitted["flow"], n_steps=12, solver=solver).sample(50) - fine).max()
        for solver in ("euler", "midpoint", "rk4", "dopri5")
    }
    assert errors["euler"] > errors["midpoint"] > errors["rk4"] > errors["dopri5"]
    assert_array_equal(with_params(fitted["flow"], solver="auto").sample(5), fitted["flow"].sample(5))
    assert_array_equal(
        with_params(fitted["flow"], solver="rk4").sample(5), with_params(fitted["flow"], solver="auto").sample(5)
    )


def test_a_callable_solver_gets_field_rows_and_times(fitted):
    def euler(f, x, times):
        assert x.shape == (5, 2) and times.shape == (5,)
        for t, t_next in pairwise(times):
            x = x + (t_next - t) * f(t, x)
        return x

    expected = with_params(fitted["flow"], solver="euler").sample(5)
    assert_allclose(with_params(fitted["flow"], solver=euler).sample(5), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_ode_tol_rules_densities_and_carried_rows(fitted, kind):
    exact = with_params(fitted[kind], ode_tol=1e-7)
    value = exact.score_samples(X[:10])
    for tol in (1e-5, 1e-2):
        rough = with_params(fitted[kind], ode_tol=tol)
        assert np.abs(rough.score_samples(X[:10]) - value).max() <= tol
    assert not np.array_equal(rough.score_samples(X[:10]), value)
    assert_array_equal(exact.sample(5), fitted[kind].sample(5))


# --------------------------------------------------------------------------- what the methods return


@pytest.mark.parametrize("kind", KINDS)
def test_score_is_the_mean_and_the_weighted_mean(fitted, kind):
    model = fitted[kind]
    value = model.score_samples(X)
    assert isinstance(model.score(X), float)
    assert_allclose(model.score(X), value.mean(), rtol=1e-12)
    assert_allclose(model.score(X, sample_weight=WEIGHT), (value * WEIGHT).sum() / WEIGHT.sum(), rtol=1e-12)
    assert_allclose(model.score(X1, X), value.mean(), rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_have_the_dtype_of_the_rows(fitted, kind, dtype):
    for method in METHODS:
        result = getattr(fitted[kind], method)(X[:6].astype(dtype))
        assert result.dtype == dtype
        assert result.shape == ((6,) if method == "score_samples" else (6, 2))
        assert_allclose(result, getattr(fitted[kind], method)(X[:6]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sample_has_the_dtype_of_the_fit(dtype):
    assert small().fit(X.astype(dtype)).sample(3).dtype == dtype
    assert small().fit(X.astype(dtype), X1.astype(dtype)).sample(3).dtype == dtype


@pytest.mark.parametrize("n", [1, 7, 4097])
def test_sample_has_the_asked_rows(fitted, n):
    assert fitted["flow"].sample(n).shape == (n, 2)
    assert fitted["diffusion-bridge"].sample(np.int64(n)).shape == (n, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_inverse_transform_comes_back(fitted, kind):
    model, rows = with_params(fitted[kind], ode_tol=1e-5), X[:20]
    # relative errors of both ways, in units of D (3 at most)
    assert_allclose(model.inverse_transform(model.transform(rows)), rows, rtol=0, atol=1e-4)
    assert_allclose(model.transform(model.inverse_transform(rows)), rows, rtol=0, atol=1e-4)


def test_transform_carries_fits_first_argument():
    x0, x1 = RNG.normal(-5.0, 0.1, size=(100, 1)), RNG.normal(5.0, 0.1, size=(100, 1))
    bridge = small().fit(x0, x1)
    assert_allclose(bridge.transform(x0).mean(), 5.0, atol=0.1)
    assert_allclose(bridge.inverse_transform(x1).mean(), -5.0, atol=0.1)
    flow = small().fit(x0)
    assert_allclose([flow.transform(x0).mean(), flow.transform(x0).std()], [0.0, 1.0], atol=0.1)
    assert_allclose(flow.inverse_transform(np.zeros((1, 1))), [[-5.0]], atol=0.1)


def test_transform_is_deterministic_whatever_the_noise(fitted):
    noisy = with_params(fitted["diffusion-bridge"], noise_level=3.0, random_state=None)
    assert_array_equal(noisy.transform(X), noisy.transform(X))
