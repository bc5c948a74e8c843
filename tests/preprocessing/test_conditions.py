"""Conditions: their encoding, conditional distributions, guidance, and forecasts from a given row."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import make_moons

from sklearn_si import InterpolantDiffusion, InterpolantFlow
from sklearn_si.exceptions import NoDensityError
from sklearn_si.networks._fields import drop_condition
from sklearn_si.preprocessing._conditions import ConditionCodec

RNG = np.random.default_rng(0)


def encode(condition, rows=None, droppable=False):
    codec = ConditionCodec(droppable).fit(condition)
    rows = condition if rows is None else rows
    return codec.transform(rows, len(rows))


# ------------------------------------------------------------------------------- the codec


@pytest.mark.parametrize("kind", [float, np.float32, int, np.uint8, list])
def test_numbers_are_standardised(kind):
    values = RNG.uniform(0, 200, size=(50, 2))
    rows = values.tolist() if kind is list else values.astype(kind)
    encoded = encode(rows)
    assert_allclose(encoded.mean(0), 0, atol=1e-6)
    assert_allclose(encoded.std(0), 1, rtol=1e-6)
    # new rows take the mean and scale of the fit's
    assert_allclose(encode(rows, rows[:1]), encoded[:1])


@pytest.mark.parametrize("n_rare", [1, 10, 60])
@pytest.mark.parametrize(("common", "rare"), [(0.0, 1.0), (7.0, -3.0)])
def test_rare_numbers_lie_no_more_than_four_units_from_the_common_one(n_rare, common, rare):
    """An indicator of one row in a thousand was 31 units away, where the network has hardly been trained."""
    column = np.full(1000, common)
    column[:n_rare] = rare
    encoded = encode(column)
    assert_allclose(abs(encoded[0] - encoded[-1]), 4)
    assert_allclose(encoded.mean(), 0, atol=1e-12)


def test_rare_numbers_of_several_sizes_share_a_scale():
    column = np.zeros(1000)
    column[:3] = 1.0, -2.0, 2.0
    encoded = encode(column)[:, 0]
    assert_allclose(np.sqrt(np.mean((encoded[:3] - encoded[3]) ** 2)), 4)


@pytest.mark.parametrize(
    "column",
    [
        np.arange(1000) < 70,  # not rare: its deviation is more than a quarter
        np.arange(1000) < 500,
        RNG.normal(size=1000),
        np.r_[np.full(40, -999.0), RNG.normal(size=960)],  # nor that of a gap
    ],
    ids=["share .07", "half", "normal", "sentinel"],
)
def test_other_numbers_are_in_units_of_their_deviation(column):
    column = column.astype(float)
    assert_array_equal(encode(column)[:, 0], (column - column.mean()) / column.std())


def test_a_constant_number_is_zero():
    assert_array_equal(encode(np.full(5, 3.0)), np.zeros((5, 1)))
    assert_array_equal(encode(np.full(5, 3.0), [7.0]), [[0.0]])


@pytest.mark.parametrize(
    ("condition", "categories"),
    [
        (["b", "a", "c", "a"], ["a", "b", "c"]),
        (np.array(["b", "a", "c", "a"]), ["a", "b", "c"]),
        (np.array(["b", "a", "c", "a"], dtype=object), ["a", "b", "c"]),
        ([True, False, True, True], ["False", "True"]),
        (pd.Series(["b", "a", "c", "a"]), ["a", "b", "c"]),
        (pd.Series(["b", "a", "c", "a"], dtype="category"), ["a", "b", "c"]),
        (pd.Series([2, 1, 3, 1], dtype="category"), ["1", "2", "3"]),
    ],
)
def test_what_is_no_number_becomes_one_column_a_category(condition, categories):
    words = np.array([str(value) for value in condition])
    assert_array_equal(encode(condition), words[:, None] == np.array(categories))


def test_columns_of_a_frame_keep_their_kinds():
    frame = pd.DataFrame({
        "size": [1.0, 2.0, 3.0],
        "colour": ["red", "blue", "red"],
        "count": [10, 20, 60],
        "grade": pd.Categorical([3, 1, 3]),
        "fresh": [True, False, False],
    })  # fmt: skip
    codec = ConditionCodec(False, {"count": "continuous"}).fit(frame)
    assert codec.kinds_ == ["number", "category", "number", "category", "category"]
    assert codec.n_outputs_ == 8
    encoded = codec.transform(frame, 3)
    scaled = (frame[["size", "count"]] - frame[["size", "count"]].mean()) / frame[["size", "count"]].std(ddof=0)
    assert_allclose(encoded[:, [0, 3]], scaled, atol=1e-12)
    assert_array_equal(encoded[:, 1:3], [[0, 1], [1, 0], [0, 1]])
    assert_array_equal(encoded[:, 4:6], [[0, 1], [1, 0], [0, 1]])
    assert_array_equal(encoded[:, 6:8], [[0, 1], [1, 0], [1, 0]])


@pytest.mark.parametrize("row", ["a", ["a"], [["a"]], np.array("a"), pd.Series(["a"]), pd.DataFrame({0: ["a"]})])
def test_one_row_stands_for_all(row):
    codec = ConditionCodec(False).fit(["a", "b", "a"])
    assert_array_equal(codec.transform(row, 4), np.tile([1.0, 0.0], (4, 1)))


def test_a_last_column_says_that_the_condition_was_dropped():
    assert_array_equal(encode(["a", "b"], droppable=True), [[1, 0, 0], [0, 1, 0]])
    assert ConditionCodec(True).fit(["a", "b"]).n_outputs_ == 3


def test_no_condition_is_none_of_those_that_can_be_given():
    """The mean of a number is encoded as zeros as well: only the last column tells them apart."""
    given = torch.as_tensor(ConditionCodec(True).fit([1.0, 2.0, 3.0]).transform([2.0, 3.0], 2))
    assert_allclose(given[0], [0.0, 0.0], atol=1e-12)
    assert_array_equal(drop_condition(given), [[0.0, 1.0]] * 2)


NUMBERS = np.arange(6.0).reshape(3, 2)
MISSING = "Column 0 of condition holds missing values, and fit has seen none there"


@pytest.mark.parametrize(
    ("given", "rows", "message"),
    [
        (NUMBERS, NUMBERS[:2], "condition has 2 rows, but expected one for all or one for each of 3 rows"),
        (NUMBERS, NUMBERS[:, :1], "condition has 1 columns, but fit was given 2"),
        (NUMBERS, NUMBERS[None], "condition has 3 dimensions"),
        (NUMBERS, np.full((3, 2), np.nan), MISSING),
        (NUMBERS, np.full((3, 2), np.inf), "Column 0 of condition holds infinite numbers"),
        (NUMBERS, [["a", "b"]] * 3, "Column 0 of condition holds 'a', but in fit it held numbers"),
        (
            ["a", "b", "a"],
            ["a", "b", "c"],
            r"Column 0 of condition holds \['c'\], which fit has not seen .* it knows \['a', 'b'\]",
        ),
        (["a", "b", "a"], np.array(["a", None, "b"], dtype=object), MISSING),
        (["a", "b", "a"], np.array(["a", np.nan, "b"], dtype=object), MISSING),
        (["a", "b", "a"], np.array(["2020-01-01"] * 3, dtype="datetime64[D]"), "which fit has not seen"),
        (["a", "b", "a"], [], "condition is empty"),
        (["a", "b", "a"], {"c": "a"}, "Got condition as a dict, but fit was given an array"),
    ],
)
def test_rows_that_do_not_match_those_of_the_fit(given, rows, message):
    codec = ConditionCodec(False).fit(given)
    with pytest.raises(ValueError, match=message):
        codec.transform(rows, 3)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ([1.0, np.inf, 2.0], "Column 0 of condition holds infinite numbers"),
        (pd.DataFrame({"c": [[1], [2], [3]]}), "Column 'c' of condition holds cells that are no numbers"),
        (pd.DataFrame({"c": [1j, 2, 3]}), "Column 'c' of condition holds complex numbers"),
        (np.zeros((3, 0)), "condition is empty"),
        (pd.DataFrame(index=range(3)), "condition is empty"),
        (["a", "b"], "condition has 2 rows, but expected one for all or one for each of 3 rows"),
    ],
)
@pytest.mark.parametrize("fit", [lambda c: encode(c, c), None], ids=["codec", "estimator"])
def test_conditions_that_cannot_be_learned(condition, message, fit):
    if fit is None:
        with pytest.raises(ValueError, match=message):
            InterpolantFlow(max_iter=1).fit(RNG.normal(size=(3, 2)), condition=condition)
    elif "rows" not in message:  # the codec does not know the rows of X
        with pytest.raises(ValueError, match=message):
            fit(condition)


# -------------------------------------------------------------------------- conditional distributions

SMALL = {
    "max_iter": 400, "hidden_layer_sizes": (32, 32), "preprocessing": "standardize", "base_density": None,
    "random_state": 0,
}  # fmt: skip
CENTRES = {"a": np.array([-2.0, 0.0]), "b": np.array([2.0, 0.0]), "c": np.array([0.0, 3.0])}
LABELS = np.array(list(CENTRES))[RNG.integers(3, size=3000)]
X = np.stack([CENTRES[c] for c in LABELS]) + 0.5 * RNG.normal(size=(3000, 2))


@pytest.fixture(scope="module")
def classes():
    return InterpolantFlow(**SMALL).fit(X, condition=LABELS)


@pytest.fixture(scope="module")
def droppable():
    return InterpolantFlow(condition_dropout=0.2, **SMALL).fit(X, condition=LABELS)


@pytest.fixture
def guided(droppable):
    """The droppable model, its parameters as they were after the test."""
    yield droppable
    droppable.set_params(guidance=1.0)


@pytest.mark.parametrize("label", CENTRES)
def test_samples_of_a_class_have_its_distribution(classes, label):
    rows = classes.sample(2000, condition=label)
    assert_allclose(rows.mean(0), CENTRES[label], atol=0.1)  # a short fit: a fifth of the spread
    assert_allclose(rows.std(0), 0.5, atol=0.1)


def test_one_condition_for_each_row(classes):
    labels = np.array(["a", "b", "c"] * 100)
    rows = classes.sample(300, condition=labels)
    nearest = np.argmin([((rows - centre) ** 2).sum(1) for centre in CENTRES.values()], axis=0)
    assert (np.array(list(CENTRES))[nearest] == labels).mean() > 0.98
    # across chunks, each row keeps its own
    labels = np.repeat(["a", "b"], 5000)
    rows = classes.sample(10_000, condition=labels)
    assert ((rows[:, 0] > 0) == (labels == "b")).mean() > 0.99
    all_alike = classes.sample(5, condition=["a"] * 5)
    assert_array_equal(all_alike, classes.sample(5, condition="a"))


def test_a_condition_is_worth_its_information(classes):
    """Three separate classes: log 3 nats between the conditional and the unconditional density."""
    plain = InterpolantFlow(**SMALL).fit(X)
    gain = classes.score(X[:500], condition=LABELS[:500]) - plain.score(X[:500])
    assert gain == pytest.approx(np.log(3), abs=0.15)
    entropy = -np.log(2 * np.pi * 0.25) - 1
    assert classes.score(X[:500], condition=LABELS[:500]) == pytest.approx(entropy, abs=0.1)
    assert classes.score(X[:500], condition=np.roll(LABELS[:500], 1)) < plain.score(X[:500]) - 1


def test_transform_given_a_condition_comes_back(classes):
    Z = classes.transform(X[:200], condition=LABELS[:200])
    assert_allclose(classes.inverse_transform(Z, condition=LABELS[:200]), X[:200], atol=1e-2)
    Z = classes.transform(X, condition=LABELS)
    for label in CENTRES:  # each class alone becomes standard normal
        assert_allclose(Z[label == LABELS].mean(0), 0, atol=0.2)
        assert_allclose(Z[label == LABELS].std(0), 1, atol=0.2)


def test_fit_transform_passes_the_condition_on():
    params = {**SMALL, "max_iter": 20}
    Z = InterpolantFlow(**params).fit_transform(X[:100], condition=LABELS[:100])
    model = InterpolantFlow(**params).fit(X[:100], condition=LABELS[:100])
    assert_array_equal(Z, model.transform(X[:100], condition=LABELS[:100]))


CALLS = {
    "sample": lambda model, **c: model.sample(3, **c),
    "score_samples": lambda model, **c: model.score_samples(X[:3], **c),
    "score": lambda model, **c: model.score(X[:3], **c),
    "transform": lambda model, **c: model.transform(X[:3], **c),
    "inverse_transform": lambda model, **c: model.inverse_transform(X[:3], **c),
    "velocity": lambda model, **c: model.velocity(X[:3], 0.5, **c),
    "score_function": lambda model, **c: model.score_function(X[:3], 0.5, **c),
    "denoiser": lambda model, **c: model.denoiser(X[:3], 0.5, **c),
    "predict_target": lambda model, **c: model.predict_target(X[:3], 0.5, **c),
    "trajectory": lambda model, **c: model.trajectory(X[:3], 3, **c)[-1],
}


@pytest.mark.parametrize("call", CALLS)
def test_every_method_takes_the_condition_and_asks_for_it(classes, call):
    a, b = (CALLS[call](classes, condition=c) for c in ("a", "b"))
    assert np.abs(a - b).max() > 1e-3
    assert_array_equal(a, CALLS[call](classes, condition=["a"] * 3))
    with pytest.raises(ValueError, match="fitted with a condition: pass condition=, or fit with condition_dropout"):
        CALLS[call](classes)
    with pytest.raises(ValueError, match="condition has 2 rows, but expected one for all or one for each of 3 rows"):
        CALLS[call](classes, condition=["a", "b"])


@pytest.mark.parametrize("call", CALLS)
def test_a_condition_that_was_never_learned(call):
    model = InterpolantFlow(**{**SMALL, "max_iter": 1}).fit(X[:50])
    with pytest.raises(ValueError, match="Got a condition, but the model was fitted without one"):
        CALLS[call](model, condition="a")


def test_a_numeric_condition_is_interpolated():
    """X | c ~ N(c, 0.3^2): the mean follows c, between the values that were seen."""
    c = RNG.uniform(-3, 3, size=3000)
    model = InterpolantFlow(**SMALL).fit((c + 0.3 * RNG.normal(size=3000))[:, None], condition=c)
    asked = np.repeat([-2.0, 0.5, 2.5], 1000)
    rows = model.sample(3000, condition=asked)[:, 0].reshape(3, -1)
    assert_allclose(rows.mean(1), [-2.0, 0.5, 2.5], atol=0.1)
    assert_allclose(rows.std(1), 0.3, atol=0.1)


# --------------------------------------------------------------------------------- guidance


def test_dropped_conditions_give_the_distribution_without_one_as_well(droppable):
    rows = droppable.sample(4000)
    assert_allclose(rows.mean(0), X.mean(0), atol=0.15)
    assert_allclose(rows.std(0), X.std(0), rtol=0.1)
    assert_allclose(droppable.sample(2000, condition="a").mean(0), CENTRES["a"], atol=0.15)
    assert droppable.score(X[:300], condition=LABELS[:300]) > droppable.score(X[:300]) + 0.7


def test_guidance_of_one_is_the_condition_and_of_zero_is_none(guided):
    conditional, plain = guided.velocity(X[:5], 0.5, condition="a"), guided.velocity(X[:5], 0.5)
    for weight in (0.0, 1.0, 2.5):
        velocity = guided.set_params(guidance=weight).velocity(X[:5], 0.5, condition="a")
        assert_allclose(velocity, plain + weight * (conditional - plain), rtol=1e-9, atol=1e-9)


def test_guidance_sharpens(guided):
    """Class means move apart as the weight of the condition grows."""
    distances = []
    for weight in (0.5, 1.0, 2.0):
        guided.set_params(guidance=weight)
        means = [guided.sample(1000, condition=label).mean(0) for label in "abc"]
        distances.append(np.mean([np.linalg.norm(a - b) for a, b in itertools.combinations(means, 2)]))
    assert distances[0] < distances[1] < distances[2]


def test_densities_of_a_guided_model_integrate_to_one(guided):
    """The divergence is guided as the velocity is."""
    axis, step = np.linspace(-3, 6, 31, retstep=True)
    grid = np.stack(np.meshgrid(axis, axis - 1.5), -1).reshape(-1, 2)
    density = np.exp(guided.set_params(guidance=1.5).score_samples(grid, condition="b"))
    assert density.sum() * step**2 == pytest.approx(1, abs=1e-2)


def test_guidance_needs_dropped_conditions():
    with pytest.raises(ValueError, match="guidance=2, which needs a model trained with dropped conditions"):
        InterpolantFlow(guidance=2.0, max_iter=1).fit(X, condition=LABELS)
    with pytest.raises(ValueError, match=r"condition_dropout=0\.1, but fit was given no condition"):
        InterpolantFlow(condition_dropout=0.1, max_iter=1).fit(X)


@pytest.mark.parametrize("condition", [None, LABELS[:100]], ids=["no-condition", "no-dropout"])
def test_guidance_set_after_a_fit_that_cannot_serve_it(condition):
    model = InterpolantFlow(**{**SMALL, "max_iter": 1}).fit(X[:100], condition=condition)
    with pytest.raises(ValueError, match="guidance=2"):
        model.set_params(guidance=2.0).sample(3, condition=None if condition is None else "a")


# ----------------------------------------------------------------------------------- bridges


@pytest.mark.parametrize("cls", [InterpolantFlow, InterpolantDiffusion])
def test_conditional_bridge(cls):
    """From one unconditional base to a class of the target, a condition for each row of X1."""
    X0 = RNG.normal([10.0, 10.0], 1.0, size=(1000, 2))
    model = cls(**{**SMALL, "n_steps": 40, "max_iter": 250}).fit(X0, X, condition=LABELS)
    for label, centre in CENTRES.items():
        rows = model.sample(2000, condition=label)
        assert_allclose(rows.mean(0), centre, atol=0.15)
        assert_allclose(rows.std(0), 0.5, atol=0.15)
    Z = model.transform(X0[:100], condition="a")
    assert_allclose(Z.mean(0), CENTRES["a"], atol=0.25)
    assert_allclose(model.inverse_transform(Z, condition="a"), X0[:100], rtol=1e-2)
    with pytest.raises(ValueError, match=r"condition has 1000 rows, but expected .* each of 3000 rows"):
        cls(max_iter=1).fit(X0, X, condition=LABELS[:1000])


def test_density_of_each_moon_integrates_to_one():
    rows, y = make_moons(2000, noise=0.1, random_state=0)
    names = np.array(["upper", "lower"])[y]
    # errors of 5e-3 nats a row have no one sign: the sum is right to less
    model = InterpolantFlow(ode_tol=5e-3, **{**SMALL, "hidden_layer_sizes": (64, 64)}).fit(rows, condition=names)
    (a, da), (b, db) = np.linspace(-2, 3, 46, retstep=True), np.linspace(-1.6, 2.1, 38, retstep=True)
    grid = np.stack(np.meshgrid(a, b), -1).reshape(-1, 2)
    for name in ("upper", "lower"):
        density = np.exp(model.score_samples(grid, condition=name))
        assert density.sum() * da * db == pytest.approx(1, abs=1e-2)
        # its mass lies on its own moon
        assert density @ grid / density.sum() == pytest.approx(rows[names == name].mean(0), abs=0.15)


# ------------------------------------------------------------------------------- forecasting


def autoregressive_pairs(n=8000):
    """Rows (x_k, x_{k+1}) of x_{k+1} = 0.5 x_k + 1 + 0.6 noise in two independent columns."""
    x = np.empty((n + 1, 2))
    x[0] = 2.0
    noise = np.random.default_rng(1).normal(size=(n, 2))  # of its own: other tests draw from RNG in any order
    for k in range(n):
        x[k + 1] = 0.5 * x[k] + 1 + 0.6 * noise[k]
    return x[:-1], x[1:]


@pytest.fixture(scope="module")
def forecaster():
    model = InterpolantDiffusion(start="condition", n_steps=50, **{**SMALL, "max_iter": 1600})
    return model.fit(*autoregressive_pairs())


@pytest.mark.parametrize("start", [[1.0, 3.0], [2.0, 2.0], [3.0, 1.5]])
def test_forecasts_have_the_distribution_of_the_next_row(forecaster, start):
    rows = forecaster.sample(4000, condition=start)
    assert rows.shape == (4000, 2)
    assert_allclose(rows.mean(0), 0.5 * np.array(start) + 1, atol=0.06)
    assert_allclose(rows.std(0), 0.6, atol=0.06)


def test_forecasts_of_many_rows(forecaster):
    starts = RNG.normal(2.0, 0.6, size=(4000, 2))
    rows = forecaster.sample(4000, condition=starts)
    slope = [np.polyfit(starts[:, j], rows[:, j], 1)[0] for j in (0, 1)]
    assert_allclose(slope, 0.5, atol=0.1)
    assert_array_equal(rows, forecaster.sample(4000, condition=starts, random_state=0))
    assert not np.array_equal(rows, forecaster.sample(4000, condition=starts, random_state=1))
    one = forecaster.sample(3, condition=pd.DataFrame(starts[:1]))
    assert_array_equal(one, forecaster.sample(3, condition=np.repeat(starts[:1], 3, 0)))
    assert not np.array_equal(one[0], one[1])


def test_a_forecast_needs_its_start_rows(forecaster):
    with pytest.raises(ValueError, match=r"start='condition' needs the start rows: sample\(n, condition=x0\)"):
        forecaster.sample(3)
    with pytest.raises(ValueError, match="condition has 2 rows, but expected one for all or one for each of 3 rows"):
        forecaster.sample(3, condition=np.ones((2, 2)))
    with pytest.raises(ValueError, match="condition has 3 features"):
        forecaster.sample(3, condition=np.ones(3))
    with pytest.raises(ValueError, match="NaN"):
        forecaster.sample(3, condition=[1.0, np.nan])


@pytest.mark.parametrize("call", [name for name in CALLS if name != "sample"])
def test_what_a_forecast_does_not_know(forecaster, call):
    with pytest.raises(NoDensityError, match="has no meaning with start='condition'"):
        CALLS[call](forecaster)


@pytest.mark.parametrize("level", [0.0, 0.3, 3.0])
def test_forecasts_have_the_same_distribution_at_all_noise_levels(forecaster, level):
    try:
        rows = forecaster.set_params(noise_level=level, n_steps=200).sample(4000, condition=[1.0, 3.0])
    finally:
        forecaster.set_params(noise_level=1.0, n_steps=50)
    assert_allclose(rows.mean(0), [1.5, 2.5], atol=0.08)
    assert_allclose(rows.std(0), 0.6, atol=0.08)


def test_the_noise_of_forecasts_is_tuned_by_pairs(forecaster):
    before, after = (part[:400] for part in autoregressive_pairs())
    try:
        result = forecaster.tune_noise_level(after, levels=[0.0, 1.0], n_draws=2, condition=before)
        assert result.chosen == forecaster.noise_level
        # against shuffled starts the pairs are no longer alike, though the rows themselves are
        shuffled = forecaster.tune_noise_level(after, levels=[1.0], n_draws=2, condition=before[::-1])
    finally:
        forecaster.set_params(noise_level=1.0, n_steps=50)
    assert result.scores.max() > shuffled.scores.max() + 0.01
    with pytest.raises(ValueError, match="needs the start rows"):
        forecaster.tune_noise_level(after, levels=[1.0], n_draws=2)


def test_a_forecast_begins_with_linear_regression():
    """Without training it is the linear Gaussian model of the next row, at any noise of training."""
    rng = np.random.default_rng(3)
    A, S = np.array([[0.6, 0.3], [-0.2, 0.5]]), np.array([[0.5, 0.2], [0.2, 0.3]])
    before = rng.normal(size=(4000, 2)) * [1.0, 2.0]
    after = [1.0, -1.0] + before @ A.T + rng.multivariate_normal([0, 0], S, size=4000)
    start = np.array([1.0, -2.0])
    for scale in (0.3, 2.0):
        params = {**SMALL, "max_iter": 1, "learning_rate_init": 1e-9, "gamma_scale": scale, "n_steps": 50}
        model = InterpolantDiffusion(start="condition", **params).fit(before, after)
        rows = model.sample(8000, condition=start)
        assert_allclose(rows.mean(0), [1.0, -1.0] + A @ start, atol=0.06)
        assert_allclose(np.cov(rows.T), S, atol=0.03)


@pytest.mark.parametrize(
    ("params", "args", "condition", "message"),
    [
        ({}, (X,), None, "start='condition' takes pairs"),
        ({}, (X, X), LABELS, "start='condition' takes pairs.* no other condition"),
        ({}, (X, X[:-1]), None, "X0 has 3000 rows and X1 has 2999"),
        ({"interpolant": "trigonometric"}, (X, X), None, "needs interpolant='linear'.* got 'trigonometric'"),
        ({"gamma": "sine"}, (X, X), None, "needs interpolant='linear', gamma='auto'.* 'sine'"),
        ({"fields": "v+s"}, (X, X), None, r"and fields='auto': got .*'v\+s'"),
    ],
)
def test_forecasting_needs_pairs_and_its_own_path(params, args, condition, message):
    with pytest.raises(ValueError, match=message):
        InterpolantDiffusion(start="condition", max_iter=1, **params).fit(*args, condition=condition)


def test_a_forecast_by_another_noise_has_the_same_distribution():
    model = InterpolantDiffusion(start="condition", gamma_scale=0.5, n_steps=50, **{**SMALL, "max_iter": 800})
    rows = model.fit(*autoregressive_pairs()).sample(4000, condition=[1.0, 3.0])
    assert_allclose(rows.mean(0), [1.5, 2.5], atol=0.06)
    assert_allclose(rows.std(0), 0.6, atol=0.06)


def test_a_forecast_keeps_the_noise_that_it_was_trained_with():
    X0 = RNG.normal(size=(200, 2))
    model = InterpolantDiffusion(start="condition", n_steps=20, **{**SMALL, "max_iter": 3}).fit(X0, X0 + 1)
    expected = model.sample(50, condition=X0[:50], random_state=1)
    model.set_params(gamma_scale=25.0)
    assert_array_equal(model.sample(50, condition=X0[:50], random_state=1), expected)


def test_a_model_that_can_do_without_its_condition_is_diagnosed_without_it():
    X = RNG.normal(size=(100, 2))
    model = InterpolantFlow(**{**SMALL, "max_iter": 3}, condition_dropout=0.3).fit(X, condition=X[:, :1])
    report = model.diagnose(X)
    assert np.isfinite(report.loss).all() and np.isfinite(report.velocity_calibration)


ROWS_OF_CONDITION = pd.DataFrame({"x": [1.0, 2.0, 3.0], "kind": ["u", "v", "u"], "flag": [True, False, False]})


def test_a_series_of_named_cells_is_one_row():
    codec = ConditionCodec(False).fit(ROWS_OF_CONDITION)
    expected = np.repeat(codec.transform(ROWS_OF_CONDITION, 3)[:1], 4, axis=0)
    for order in (["x", "kind", "flag"], ["flag", "x", "kind"]):
        assert_array_equal(codec.transform(ROWS_OF_CONDITION.iloc[0][order], 4), expected)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROWS_OF_CONDITION.iloc[0].drop("kind"), r"condition must have the columns of fit: missing \['kind'\]"),
        (ROWS_OF_CONDITION.iloc[0].rename({"x": "z"}), r"condition must have the columns of fit: unknown \['z'\]"),
        (pd.Series([1.0, 2.0]), "condition has 1 features"),
    ],
)
def test_a_series_that_is_no_row_of_fit_is_refused(row, message):
    with pytest.raises(ValueError, match=message):
        ConditionCodec(False).fit(ROWS_OF_CONDITION).transform(row, 2)


def test_a_series_of_one_column_is_a_column():
    codec = ConditionCodec(False).fit(ROWS_OF_CONDITION.x)
    assert_array_equal(codec.transform(ROWS_OF_CONDITION.x, 3), codec.transform(ROWS_OF_CONDITION[["x"]], 3))
    labelled = ROWS_OF_CONDITION.x.set_axis(["p", "q", "r"])
    assert_array_equal(codec.transform(labelled, 3), codec.transform(ROWS_OF_CONDITION[["x"]], 3))


@pytest.mark.parametrize(
    ("condition", "cell", "message"),
    [
        ([True, False], "True", "'True' is of class str, and True of class bool: convert them"),
        (["True", "False"], True, "True is of class bool, and 'True' of class str: convert them"),
        (pd.Series([1, 2], dtype="category"), "1", "'1' is of class str, and 1 of class int: convert them"),
    ],
)
def test_text_is_not_the_value_that_it_spells(condition, cell, message):
    """Tables refuse it as well."""
    codec = ConditionCodec(False).fit(condition)
    with pytest.raises(ValueError, match=f"which fit has not seen.*{message}"):
        codec.transform(np.array([[cell]], dtype=object), 1)
