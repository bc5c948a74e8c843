"""Energy distance against closed forms and a double loop; the sample scorer in Pipelines and searches."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn import config_context
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler
from sklearn.utils import check_random_state

from sklearn_si import InterpolantDiffusion, InterpolantFlow, metrics
from sklearn_si.metrics import _samples, energy_distance, sample_scorer

TINY = {"max_iter": 5, "hidden_layer_sizes": (8,), "preprocessing": "standardize", "random_state": 0}


def normal_rows(n, d=2, *, mean=0.0, scale=1.0, seed=0):
    return np.random.default_rng(seed).normal(mean, scale, size=(n, d))


def mean_abs_normal(mean, scale):
    """E|N(mean, scale^2)|: the mean of the folded normal distribution."""
    folded = scale * math.sqrt(2 / math.pi) * math.exp(-(mean**2) / (2 * scale**2))
    return folded + mean * (1 - 2 * norm.cdf(-mean / scale))


def double_loop(X, Y):
    def within(rows):
        return np.mean([math.dist(a, b) for a, b in itertools.permutations(rows, 2)])

    return 2 * np.mean([math.dist(a, b) for a in X for b in Y]) - within(X) - within(Y)


# Distances of two samples, for which the next tests hold.
DISTANCES = [
    "energy_distance",
    "maximum_mean_discrepancy",
    "sliced_wasserstein",
    "wasserstein_distance",
]


@pytest.mark.parametrize("name", DISTANCES)
def test_a_distance_rises_with_the_gap(name):
    distance, X, Y = getattr(metrics, name), normal_rows(200), normal_rows(200, seed=1)
    values = [distance(X + shift, Y) for shift in (0.0, 0.5, 1.0, 3.0)]
    assert values == sorted(values) and values[-1] > 5 * abs(values[0])
    assert all(type(value) is float for value in values)


@pytest.mark.parametrize("name", DISTANCES)
def test_a_distance_does_not_know_the_order_of_the_rows(name):
    distance, X, Y = getattr(metrics, name), normal_rows(30, mean=0.5), normal_rows(30, seed=1)
    copies = X.copy(), Y.copy()
    assert distance(X[::-1], Y[np.roll(np.arange(30), 7)]) == pytest.approx(distance(X, Y), rel=1e-10)
    np.testing.assert_array_equal((X, Y), copies)


@pytest.mark.parametrize("name", DISTANCES)
def test_a_distance_refuses_other_columns(name):
    with pytest.raises(ValueError, match=r"columns"):
        getattr(metrics, name)(normal_rows(9, 2), normal_rows(9, 3))


@pytest.mark.parametrize("mean, scale", [(0.0, 1.0), (0.5, 1.0), (-1.0, 2.0)])
@pytest.mark.parametrize("n, m", [(2, 2), (5, 3), (20, 30)])
def test_unbiased_for_normal_distributions(mean, scale, n, m):
    expected = 2 * mean_abs_normal(mean, math.hypot(1, scale)) - mean_abs_normal(0, math.sqrt(2)) * (1 + scale)
    rng = np.random.default_rng(0)
    values = [
        energy_distance(rng.normal(mean, scale, (n, 1)), rng.normal(size=(m, 1)), standardize=False) for _ in range(400)
    ]
    assert abs(np.mean(values) - expected) < 4 * np.std(values, ddof=1) / math.sqrt(len(values))


def test_equal_distributions_give_zero_in_the_mean_and_negative_values():
    rng = np.random.default_rng(1)
    values = [energy_distance(rng.normal(size=(40, 3)), rng.normal(size=(40, 3))) for _ in range(400)]
    assert abs(np.mean(values)) < 4 * np.std(values, ddof=1) / math.sqrt(len(values))
    assert min(values) < 0


@pytest.mark.parametrize("d", [1, 4])
def test_equals_the_double_loop(d):
    X, Y = normal_rows(7, d, mean=1.0, scale=2.0), normal_rows(5, d, seed=1)
    assert energy_distance(X, Y, standardize=False) == pytest.approx(double_loop(X, Y), rel=1e-12)
    assert energy_distance(X, Y) == pytest.approx(double_loop(X / Y.std(axis=0), Y / Y.std(axis=0)), rel=1e-12)


def test_units_of_the_columns_do_not_matter_when_standardized():
    X, Y = normal_rows(30, 3, mean=0.5), normal_rows(20, 3, seed=1)
    scale, shift = np.array([1e-6, 1.0, 1e6]), np.array([-3.0, 1e3, 5.0])
    assert energy_distance(X * scale + shift, Y * scale + shift) == pytest.approx(energy_distance(X, Y), rel=1e-6)
    raw = energy_distance(X * scale, Y * scale, standardize=False)
    assert raw != pytest.approx(energy_distance(X, Y, standardize=False), rel=0.1)


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_constant_columns_of_the_reference_keep_their_units(value):
    X, Y = normal_rows(10, 2), normal_rows(9, 2, seed=1)
    # The computed deviation of a column of 0.1 is about 1e-17: dividing by it would drown the other column.
    Y[:, 1] = value
    scale = np.array([Y[:, 0].std(), 1.0])
    assert energy_distance(X, Y) == pytest.approx(double_loop(X / scale, Y / scale), rel=1e-12)


def test_far_from_the_origin_nothing_cancels():
    X, Y = normal_rows(50, 2), normal_rows(50, 2, mean=1.0, seed=1)
    assert energy_distance(X + 1e8, Y + 1e8) == pytest.approx(energy_distance(X, Y), rel=1e-5)


@pytest.mark.parametrize("block", [1, 7, 40, 10_000])
def test_chunks_do_not_change_the_answer(monkeypatch, block):
    X, Y = normal_rows(23, 2, mean=1.0), normal_rows(17, 2, seed=1)
    whole = energy_distance(X, Y)
    shapes, cdist = [], _samples.cdist
    monkeypatch.setattr(_samples, "_BLOCK", block)
    monkeypatch.setattr(_samples, "cdist", lambda a, b: shapes.append((len(a), len(b))) or cdist(a, b))
    assert energy_distance(X, Y) == pytest.approx(whole, rel=1e-12)
    # One row against all others is the least that a chunk can hold.
    assert all(n * m <= max(block, m) for n, m in shapes)


def test_arrays_are_left_as_they_were():
    X, Y = normal_rows(5), normal_rows(5, seed=1)
    copies = X.copy(), Y.copy()
    energy_distance(X, Y)
    np.testing.assert_array_equal((X, Y), copies)


@pytest.mark.parametrize(
    "X, reference, match",
    [
        (np.zeros((3, 2)), np.zeros((3, 4)), r"X has 2 columns and reference has 4.*select the columns"),
        (np.zeros((1, 2)), np.zeros((3, 2)), r"X has 1 row,.*at least 2: pass more rows"),
        (np.zeros((3, 2)), np.zeros((1, 2)), r"reference has 1 row,.*at least 2: pass more rows"),
        (np.zeros(3), np.zeros((3, 1)), r"Expected 2D array"),
        (np.zeros((3, 1)), np.full((3, 1), np.nan), r"reference contains NaN"),
    ],
)
def test_energy_distance_refuses(X, reference, match):
    with pytest.raises(ValueError, match=match):
        energy_distance(X, reference)


@pytest.fixture(scope="module")
def rows():
    return normal_rows(120, 2, mean=[100.0, -5.0], scale=[10.0, 0.1])


@pytest.fixture(scope="module")
def flow(rows):
    return InterpolantFlow(**TINY).fit(rows)


@pytest.fixture(scope="module")
def bridge(rows):
    return InterpolantFlow(**TINY, base_density=None).fit(normal_rows(120, 2, seed=1), rows)


@pytest.mark.parametrize("y", [None, np.zeros(120), ["a"] * 120], ids=["none", "numbers", "words"])
def test_scorer_compares_with_X_when_y_is_no_sample(flow, rows, y):
    expected = -energy_distance(flow.sample(120, random_state=0), rows)
    assert sample_scorer(flow, rows, y) == expected
    assert expected > -0.1


@pytest.mark.parametrize("as_y", [np.asarray, np.ndarray.tolist], ids=["array", "list"])
def test_scorer_compares_with_y_when_it_is_a_sample(bridge, rows, as_y):
    expected = -energy_distance(bridge.sample(120, random_state=0), rows)
    assert sample_scorer(bridge, normal_rows(120, 2, seed=1), as_y(rows)) == expected
    assert expected > -0.1


def test_scorer_takes_the_number_of_rows_and_the_seed(flow, rows):
    score = sample_scorer(flow, rows, n_samples=50, random_state=3)
    assert score == -energy_distance(flow.sample(50, random_state=3), rows)
    # The estimator's own seed is 0, which is also the scorer's default.
    assert sample_scorer(flow, rows, random_state=None) == sample_scorer(flow, rows)


def numpy_global_state():
    _, keys, position, *_ = check_random_state(None).get_state()
    return keys.tolist(), position


def test_scorer_leaves_global_generators_alone(rows):
    flow = InterpolantFlow(**{**TINY, "random_state": None}).fit(rows)
    numpy_state, torch_state = numpy_global_state(), torch.get_rng_state()
    first = sample_scorer(flow, rows)
    assert numpy_global_state() == numpy_state
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert sample_scorer(flow, rows) == first


def test_scorer_inverts_the_earlier_steps_after_one_sample(rows):
    pipe = make_pipeline(StandardScaler(), InterpolantFlow(**TINY)).fit(rows)
    fresh = pipe[:-1].inverse_transform(pipe[-1].sample(len(rows), random_state=0))
    assert sample_scorer(pipe, rows) == pytest.approx(-energy_distance(fresh, rows), rel=1e-12)
    assert sample_scorer(pipe, rows) > -0.1


def test_scorer_goes_through_passthrough_and_nested_pipelines(rows):
    def score(*steps):
        return sample_scorer(make_pipeline(*steps).fit(rows), rows)

    flow = InterpolantFlow(**TINY)
    expected = score(StandardScaler(), flow)
    assert score("passthrough", StandardScaler(), None, flow) == expected
    assert score(StandardScaler(), make_pipeline("passthrough", flow)) == expected
    assert score("passthrough", make_pipeline(StandardScaler(), flow)) == expected


def test_scorer_inverts_the_steps_in_reverse_order(rows):
    # The floor: a fresh row may leave the range of exp.
    exp = FunctionTransformer(np.exp, inverse_func=lambda X: np.log(np.maximum(X, 1e-3)))
    pipe = make_pipeline(StandardScaler(), exp, InterpolantFlow(**TINY)).fit(rows)
    fresh = pipe[:-1].inverse_transform(pipe[-1].sample(len(rows), random_state=0))
    assert sample_scorer(pipe, rows) == pytest.approx(-energy_distance(fresh, rows), rel=1e-12)


def test_scorer_takes_samples_as_they_are_after_two_samples(rows):
    X0 = normal_rows(120, 2, mean=1e3, seed=1)
    # Normalizer has no inverse, and needs none: the target was never transformed.
    pipe = make_pipeline(StandardScaler(), Normalizer(), InterpolantFlow(**TINY, base_density=None)).fit(X0, rows)
    expected = -energy_distance(pipe[-1].sample(len(rows), random_state=0), rows)
    assert sample_scorer(pipe, X0, rows) == expected
    assert expected > -0.1


def test_scorer_names_the_step_without_an_inverse(rows):
    pipe = Pipeline([("scale", StandardScaler()), ("norm", Normalizer()), ("flow", InterpolantFlow(**TINY))]).fit(
        rows + normal_rows(120, 2, scale=10.0, seed=2)
    )
    with pytest.raises(ValueError, match=r"Step 'norm' \(Normalizer\) has no inverse_transform.*use an invertible"):
        sample_scorer(pipe, rows)


def test_scorer_takes_frames(rows):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(rows, columns=["a", "b"])
    pipe = make_pipeline(StandardScaler(), InterpolantFlow(**TINY))
    expected = sample_scorer(pipe.fit(rows), rows)
    pipe.set_output(transform="pandas").fit(frame)
    assert isinstance(pipe[-1].sample(2), pd.DataFrame)
    assert sample_scorer(pipe, frame) == pytest.approx(expected, rel=1e-6)
    assert sample_scorer(pipe, frame, frame["a"]) == sample_scorer(pipe, frame)


@pytest.mark.parametrize("routing", [False, True])
def test_search_over_noise_level(rows, routing):
    pipe = make_pipeline(StandardScaler(), InterpolantFlow(**TINY))
    grid = {"interpolantflow__noise_level": [0.0, 0.5]}
    with config_context(enable_metadata_routing=routing):
        search = GridSearchCV(pipe, grid, scoring=sample_scorer, cv=2, error_score="raise").fit(rows)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all()
    assert scores[0] != scores[1]
    assert search.best_score_ == scores.max()


def test_search_of_a_bridge_and_cross_validation(rows):
    X0 = normal_rows(120, 2, seed=1)
    model = InterpolantDiffusion(**TINY, base_density=None)
    search = GridSearchCV(model, {"noise_level": [0.0, 1.0]}, scoring=sample_scorer, cv=2, error_score="raise")
    search.fit(X0, rows)
    best = model.set_params(**search.best_params_)
    folds = cross_val_score(best, X0, rows, scoring=partial(sample_scorer, n_samples=None), cv=2, error_score="raise")
    assert folds.mean() == pytest.approx(search.best_score_, rel=1e-12)


@pytest.mark.parametrize("n_samples", [None, 50])
def test_scorer_compares_models_of_scikit_learn(rows, n_samples):
    mixture = GaussianMixture(2, random_state=5).fit(rows)
    kernel = KernelDensity(bandwidth=0.2).fit(rows)
    n = n_samples or len(rows)
    expected = -energy_distance(GaussianMixture(2, random_state=0).fit(rows).sample(n)[0], rows)
    assert sample_scorer(mixture, rows, n_samples=n_samples) == pytest.approx(expected, abs=0.3)
    assert sample_scorer(kernel, rows, n_samples=n_samples) == -energy_distance(kernel.sample(n, random_state=0), rows)
    # the seed of the draw is the scorer's, not the model's, and the model is left as it is
    assert sample_scorer(mixture, rows, random_state=1) != sample_scorer(mixture, rows, random_state=2)
    assert sample_scorer(mixture, rows, random_state=1) == sample_scorer(mixture, rows, random_state=1)
    assert mixture.random_state == 5


def test_scorer_draws_at_the_condition_of_each_row(rows):
    condition = (rows[:, :1] > 0) * 1.0
    model = InterpolantFlow(**TINY).fit(rows, condition=condition)
    expected = -energy_distance(model.sample(len(rows), condition=condition, random_state=0), rows)
    assert sample_scorer(model, rows, condition=condition) == expected
    turns = np.arange(300) % len(rows)
    expected = -energy_distance(model.sample(300, condition=condition[turns], random_state=0), rows)
    assert sample_scorer(model, rows, condition=condition, n_samples=300) == expected
    assert np.isfinite(sample_scorer(model, rows, condition=[1.0]))
    with pytest.raises(ValueError, match=r"GaussianMixture\.sample takes none"):
        sample_scorer(GaussianMixture().fit(rows), rows, condition=condition)


def test_scorer_weighs_the_reference(flow, rows):
    weight = np.linspace(0.5, 2.0, len(rows))
    expected = -energy_distance(flow.sample(len(rows), random_state=0), rows, reference_weight=weight)
    assert sample_scorer(flow, rows, sample_weight=weight) == expected


@pytest.mark.parametrize("in_pipeline", [False, True])
def test_searches_pass_the_condition_to_the_scorer_by_metadata_routing(rows, in_pipeline):
    condition = (rows[:, :1] > 0) * 1.0
    with config_context(enable_metadata_routing=True):
        model = InterpolantFlow(**TINY)
        estimator = make_pipeline(StandardScaler(), model) if in_pipeline else model
        how = {"scoring": sample_scorer, "cv": 2, "error_score": "raise"}
        scores = cross_validate(estimator, rows, params={"condition": condition}, **how)["test_score"]
        prefix = "interpolantflow__" if in_pipeline else ""
        search = GridSearchCV(estimator, {f"{prefix}n_steps": [model.n_steps]}, **how).fit(rows, condition=condition)
    assert np.isfinite(scores).all()
    assert search.best_score_ == pytest.approx(scores.mean())


def test_a_search_without_routing_says_how_the_condition_is_passed(rows):
    condition = (rows[:, :1] > 0) * 1.0
    model, given = InterpolantFlow(**TINY), {"condition": condition}
    with pytest.raises(ValueError, match=r"sklearn\.set_config\(enable_metadata_routing=True\)"):
        cross_validate(model, rows, params=given, cv=2, error_score="raise")
