"""Any columns given any others: one fit under masks, its conditionals, marginals and draws."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import kstest, multivariate_normal
from sklearn.base import clone

import sklearn_si
from sklearn_si import InterpolantDiffusion, InterpolantFlow
from sklearn_si._estimators import distillation
from sklearn_si._training.masked_run import draw_states
from sklearn_si.interpolants import Linear
from sklearn_si.networks import velocity_and_divergence
from sklearn_si.networks._masked import MaskedVelocity, ToldNetwork
from sklearn_si.preprocessing._masked import MaskedMap, told, told_of_whole_rows, whitened
from sklearn_si.preprocessing._patterns import ABSENT, ASKED, GIVEN

SMALL = {"conditionals": "any", "preprocessing": "standardize", "hidden_layer_sizes": (32, 32), "random_state": 0}
TINY = {**SMALL, "hidden_layer_sizes": (4,), "max_iter": 3}
NAMES = ["a", "b", "c"]
MEAN = np.array([1.0, -2.0, 3.0])
COVARIANCE = np.array([[1.0, 0.8, -0.4], [0.8, 2.0, 0.3], [-0.4, 0.3, 0.5]])


def bent(n, seed=0):
    """Three columns, the second of which lies on two branches given the first."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=n)
    b = rng.choice([-1, 1], n) * (1 + 0.5 * a**2) + 0.5 * rng.normal(size=n)
    return np.column_stack([a, b, a * b / 2 + 0.5 * rng.normal(size=n)])


@pytest.fixture(scope="module")
def flow():
    return InterpolantFlow(**SMALL, max_iter=300).fit(pd.DataFrame(bent(2000), columns=NAMES))


@pytest.fixture(scope="module")
def gaussian():
    X = np.random.default_rng(0).multivariate_normal(MEAN, COVARIANCE, size=4000)
    return InterpolantFlow(**{**SMALL, "hidden_layer_sizes": (8,)}, max_iter=40).fit(X)


def frame(n, seed=1):
    return pd.DataFrame(bent(n, seed), columns=NAMES)


def closed_form(given, asked, rows):
    """Mean and covariance of the columns asked for given others, of the normal distribution."""
    gain = COVARIANCE[np.ix_(asked, given)] @ np.linalg.inv(COVARIANCE[np.ix_(given, given)])
    spread = COVARIANCE[np.ix_(asked, asked)] - gain @ COVARIANCE[np.ix_(given, asked)]
    return MEAN[asked] + (rows[:, given] - MEAN[given]) @ gain.T, spread


# --------------------------------------------------------------------- densities


@pytest.mark.parametrize("given", [[0], [2], [0, 1], [1, 2]])
def test_conditionals_of_a_normal_sample_are_those_of_the_closed_form(gaussian, given):
    rows = np.random.default_rng(1).multivariate_normal(MEAN, COVARIANCE, size=200)
    asked = [j for j in range(3) if j not in given]
    mean, spread = closed_form(given, asked, rows)
    true = multivariate_normal(cov=spread).logpdf(rows[:, asked] - mean)
    value = gaussian.score_samples(rows, given=given)
    assert abs((value - true).mean()) < 0.02
    assert np.abs(value - true).mean() < 0.1


def test_marginals_of_a_normal_sample_are_those_of_the_closed_form(gaussian):
    rows = np.random.default_rng(1).multivariate_normal(MEAN, COVARIANCE, size=200)
    for columns in ([0], [2, 0]):
        true = multivariate_normal(MEAN[columns], COVARIANCE[np.ix_(columns, columns)]).logpdf(rows[:, columns])
        assert np.abs(gaussian.score_samples(rows, columns=columns) - true).mean() < 0.1


def test_draws_of_a_normal_sample_have_the_moments_of_the_closed_form(gaussian):
    row = np.array([[np.nan, -1.0, np.nan]])
    mean, spread = closed_form([1], [0, 2], row)
    drawn = gaussian.sample(4000, given=row)[:, [0, 2]]
    np.testing.assert_allclose(drawn.mean(0), mean[0], atol=0.08)
    np.testing.assert_allclose(np.cov(drawn.T), spread, atol=0.1)


def test_the_order_of_the_chain_rule_does_not_matter_after_a_short_fit(flow):
    X = frame(300)
    first = flow.score_samples(X, columns=["a"]) + flow.score_samples(X, given=["a"])
    second = flow.score_samples(X, columns=["b", "c"]) + flow.score_samples(X, given=["b", "c"])
    assert abs((first - second).mean()) < 0.25
    assert abs(first.mean() - flow.score(X)) < 0.25


def test_dependence_that_is_not_linear_is_learned(flow):
    X = frame(500)
    of_normal = multivariate_normal(bent(4000).mean(0), np.cov(bent(4000).T)).logpdf(X)
    alone = multivariate_normal(0, 1).logpdf(X["a"])  # the first column is standard normal
    assert flow.score_samples(X, given=["a"]).mean() > (of_normal - alone).mean() + 0.5


def test_conditionals_have_mass_one(flow):
    grid = np.linspace(-12, 12, 801)
    rows = pd.DataFrame({"a": 0.5, "b": grid, "c": -0.7})
    for question in ({"given": ["a", "c"]}, {"given": ["c"], "columns": ["b"]}, {"columns": ["b"]}):
        assert np.trapezoid(np.exp(flow.score_samples(rows, **question)), grid) == pytest.approx(1.0, abs=1e-3)


def test_draws_follow_the_density(flow):
    grid = np.linspace(-12, 12, 801)
    density = np.exp(flow.score_samples(pd.DataFrame({"a": 0.5, "b": grid, "c": -0.7}), given=["a", "c"]))
    cdf = np.cumsum(density) * (grid[1] - grid[0])
    drawn = flow.sample(1000, given={"a": 0.5, "c": -0.7})[:, 1]
    assert kstest(drawn, lambda x: np.interp(x, grid, cdf)).pvalue > 1e-3


def test_errors_are_stated_and_hold(flow):
    X = frame(50)
    value, error = flow.score_samples(X, given=["b"], return_error=True)
    exact = clone(flow).set_params(ode_tol=1e-6)
    exact.__dict__.update({k: v for k, v in vars(flow).items() if k.endswith("_")})
    assert (error <= 1e-3).all()
    assert (np.abs(value - exact.score_samples(X, given=["b"])) <= 1e-3).all()


def test_a_row_does_not_depend_on_its_batch(flow):
    X = frame(40)
    whole = flow.score_samples(X, given=["c"])
    np.testing.assert_allclose(flow.score_samples(X[7:9], given=["c"]), whole[7:9], rtol=0, atol=1e-9)


def test_columns_are_found_by_name_and_by_position(flow):
    X = frame(20)
    by_name = flow.score_samples(X, given=["c", "a"])
    assert np.array_equal(by_name, flow.score_samples(X, given=[0, 2]))
    assert np.array_equal(by_name, flow.score_samples(X, given=["a", "c"], columns=["b"]))


def test_missing_cells_are_refused_where_they_count(flow):
    X = frame(20)
    X.loc[3, "c"] = np.nan
    assert np.isfinite(flow.score_samples(X, given=["a"], columns=["b"])).all()
    with pytest.raises(ValueError, match=r"NaN in the columns \['c'\] \(1 rows\).*leave those rows out"):
        flow.score_samples(X, given=["c"])


def test_the_joint_model_is_a_flow_like_others(flow):
    X = frame(50)
    back = flow.inverse_transform(flow.transform(X))
    np.testing.assert_allclose(back, X, atol=1e-2)
    assert flow.sample(3).shape == (3, 3)
    assert np.isfinite(flow.velocity(X, 0.5)).all()


# --------------------------------------------------------------------- draws


def test_cells_that_are_given_are_kept_to_the_bit(flow):
    given = frame(30)
    given[np.random.default_rng(2).random(given.shape) < 0.5] = np.nan
    drawn = flow.sample(given=given)
    known = given.notna().to_numpy()
    assert np.array_equal(drawn[known], given.to_numpy()[known])
    assert np.isfinite(drawn).all()
    assert not np.array_equal(drawn, flow.sample(given=given, random_state=1))


def test_a_frame_may_lack_columns_and_have_any_order(flow):
    given = frame(10)[["c", "a"]]
    drawn = flow.sample(given=given)
    assert np.array_equal(drawn[:, [2, 0]], given.to_numpy())
    array = frame(10).assign(b=np.nan).to_numpy()
    assert np.array_equal(drawn, flow.sample(given=array))


def test_one_row_is_used_for_all_draws(flow):
    drawn = flow.sample(7, given={"b": 1.5})
    assert drawn.shape == (7, 3)
    assert (drawn[:, 1] == 1.5).all()
    assert len(np.unique(drawn[:, 0])) == 7
    assert flow.sample(given={"b": [1.0, 2.0]}).shape == (2, 3)


def test_rows_without_gaps_come_back_and_rows_of_gaps_are_drawn(flow):
    X = frame(4)
    assert np.array_equal(flow.sample(given=X), X)
    assert np.isfinite(flow.sample(given=np.full((4, 3), np.nan))).all()


def test_noise_serves_draws_of_missing_cells(flow):
    noisy = pickle.loads(pickle.dumps(flow)).set_params(noise_level=0.5, n_steps=50)
    drawn = noisy.sample(1000, given={"a": 0.5, "c": -0.7})[:, 1]
    quiet = flow.sample(1000, given={"a": 0.5, "c": -0.7})[:, 1]
    assert abs(np.mean(drawn > 0) - np.mean(quiet > 0)) < 0.1


def test_the_container_follows_set_output(flow):
    told = pickle.loads(pickle.dumps(flow)).set_output(transform="pandas")
    assert list(told.sample(given={"a": [0.0, 1.0]}).columns) == NAMES


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"d": 1.0}, r"given names the column 'd', but expected one of \['a', 'b', 'c'\]"),
        ({"a": [1.0, 2.0], "b": [1.0, 2.0, 3.0]}, "Column 'a' of given has 2 cells, but expected 1 or 3"),
        ({"a": np.inf}, "Column 'a' of given holds infinite numbers"),
        ({"a": "many"}, "Column 'a' of given holds 'many', but expected numbers"),
        ({}, "given is empty"),
        (np.zeros((2, 2)), "given has 2 columns, but expected the 3 of fit"),
        (pd.DataFrame({"a": ["x", "y"]}), "Column 'a' of given holds 'x', but expected numbers"),
        (pd.DataFrame({"z": [1.0]}), "given names the column 'z'"),
    ],
)
def test_cells_that_cannot_be_given_are_refused(flow, given, message):
    with pytest.raises(ValueError, match=message):
        flow.sample(given=given)


def test_the_number_of_rows_must_be_that_of_given(flow):
    with pytest.raises(ValueError, match="n_samples=3, but given has 2 rows: leave n_samples out"):
        flow.sample(3, given={"a": [1.0, 2.0]})


# --------------------------------------------------------------------- questions without an answer


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"given": ["a"], "columns": ["a", "b"]}, r"Columns \['a'\] are in given and in columns"),
        ({"given": ["a", "b", "c"]}, "No column is asked for"),
        ({"columns": []}, "No column is asked for"),
        ({"given": {"a": 9.0}}, r"Got given=\{'a': 9.0\}, but expected a list of columns, whose cells are those of X"),
        ({"given": slice(0, 1)}, r"Got given=slice\(0, 1, None\), but expected a list of columns"),
        ({"given": "a"}, r"Got given='a', but expected a list of columns, such as \['a'\]"),
        ({"columns": ["a", "a"]}, r"columns names the columns \['a'\] more than once"),
        ({"given": [3]}, "given names the column 3, but expected one of"),
        ({"given": ["a"], "t": 0.5}, "Got t=0.5 with given= or columns=.*leave t=1"),
    ],
)
def test_questions_without_an_answer_are_refused(flow, question, message):
    with pytest.raises(ValueError, match=message):
        flow.score_samples(frame(3), **question)


def test_a_model_of_whole_rows_says_what_to_do():
    X = bent(60)
    plain = InterpolantFlow(**{**TINY, "conditionals": None}).fit(X)
    way_out = "set conditionals='any' and fit again"
    with pytest.raises(ValueError, match=f"Got given=.*{way_out}"):
        plain.sample(given=X)
    with pytest.raises(ValueError, match=f"Got given=.*{way_out}"):
        plain.score_samples(X, given=[0])
    with pytest.raises(ValueError, match=f"Got columns=.*{way_out}"):
        plain.score_samples(X, columns=[0])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"preprocessing": "whiten"}, "preprocessing='whiten' with conditionals='any'.*map each column by itself"),
        ({"preprocessing": "marginal-whiten"}, "use 'auto', 'standardize' or 'marginal'"),
        ({"preprocessing": None}, "has to be scaled: use 'auto', 'standardize' or 'marginal'"),
        ({"interpolant": "mirror"}, "needs a path from a normal distribution.*use 'linear'"),
        ({"network": lambda d, k: None}, "use network='mlp' with hidden_layer_sizes"),
    ],
)
def test_parameters_that_contradict_masks_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        InterpolantFlow(**{**TINY, **params}).fit(bent(60))


def test_two_samples_and_single_columns_are_refused():
    with pytest.raises(ValueError, match=r"fit was given two samples: call fit\(X\)"):
        InterpolantFlow(**TINY).fit(bent(60), bent(60))
    with pytest.raises(ValueError, match="needs two columns or more"):
        InterpolantFlow(**TINY).fit(bent(60)[:, :1])


def test_what_changes_whole_rows_alone_is_refused():
    X = bent(60)
    model = InterpolantFlow(**TINY).fit(X)
    with pytest.raises(ValueError, match="rectify changes the velocity of whole rows alone"):
        model.rectify(max_iter=2)
    with pytest.raises(ValueError, match="solver='distilled' draws whole rows: use solver='auto'"):
        model.set_params(solver="distilled").sample(given=X)


# --------------------------------------------------------------------- conditions, weights, repeated values, files


def test_a_condition_stands_beside_the_columns():
    rng = np.random.default_rng(0)
    group = rng.integers(2, size=3000)
    X = rng.multivariate_normal(MEAN, COVARIANCE, size=3000) + 2.0 * group[:, None]
    params = {**SMALL, "condition_kinds": {0: "categorical"}}
    model = InterpolantFlow(**params, max_iter=300).fit(X, condition=group)
    row = np.array([[1.0, np.nan, np.nan]])
    rows = np.repeat(row, 600, axis=0)
    for k in (0, 1):
        mean, _ = closed_form([0], [1, 2], row - 2.0 * k)
        drawn = model.sample(given=rows, condition=[k])[:, 1:]
        np.testing.assert_allclose(drawn.mean(0), mean[0] + 2.0 * k, atol=0.4)
    value = model.score_samples(X[:50], given=[0], condition=group[:50])
    assert value.mean() > model.score_samples(X[:50], given=[0], condition=1 - group[:50]).mean() + 1
    with pytest.raises(ValueError, match="fitted with a condition: pass condition="):
        model.score_samples(X[:50], given=[0])


def test_guided_questions_are_refused():
    X = bent(60)
    model = InterpolantFlow(**TINY, condition_dropout=0.2).fit(X, condition=X[:, 0])
    with pytest.raises(ValueError, match="guidance=2 with given=, which has no guided field: set it to 1"):
        model.set_params(guidance=2.0).score_samples(X, given=[0], condition=X[:, 0])


def test_weights_move_the_conditionals():
    rng = np.random.default_rng(0)
    group = rng.integers(2, size=3000)
    X = rng.normal(size=(3000, 2)) * 0.5
    X[:, 1] += np.where(group == 1, 2.0, -2.0)
    params = {**SMALL, "hidden_layer_sizes": (16,), "max_iter": 200}
    model = InterpolantFlow(**params).fit(X, sample_weight=np.where(group == 1, 9.0, 1.0))
    drawn = model.sample(1000, given=np.array([0.0, np.nan]))[:, 1]
    assert np.mean(drawn > 0) == pytest.approx(0.9, abs=0.06)


def test_repeated_values_are_drawn_and_kept():
    rng = np.random.default_rng(0)
    count = rng.poisson(3.0, 500).astype(float)
    X = np.column_stack([count, count / 2 + rng.normal(size=500)])
    model = InterpolantFlow(**TINY, dequantize=[0]).fit(X)
    drawn = model.sample(50, given=np.array([np.nan, 1.25]))
    assert set(drawn[:, 0]) <= set(count)
    assert (drawn[:, 1] == 1.25).all()
    assert (model.sample(5, given=np.array([4.0, np.nan]))[:, 0] == 4.0).all()
    assert np.isfinite(model.score_samples(X, given=[1])).all()


def test_columns_with_a_support_stay_within_it():
    rng = np.random.default_rng(0)
    size = rng.lognormal(0, 0.5, 2000)
    X = pd.DataFrame({"size": size, "share": 1 / (1 + np.exp(-np.log(size) - rng.normal(size=2000)))})
    params = {**SMALL, "hidden_layer_sizes": (8,), "max_iter": 30}
    model = InterpolantFlow(**params, support={"size": "positive", "share": (0, 1)}).fit(X)
    drawn = model.sample(500, given={"size": 0.2})
    assert (drawn[:, 0] == 0.2).all()
    assert ((drawn[:, 1] > 0) & (drawn[:, 1] < 1)).all()
    grid = np.linspace(1e-4, 1 - 1e-4, 2001)
    of_grid = model.score_samples(pd.DataFrame({"size": 0.2, "share": grid}), given=["size"])
    assert np.trapezoid(np.exp(of_grid), grid) == pytest.approx(1.0, abs=5e-3)
    with pytest.raises(ValueError, match="values in column 'size' of given are outside its support"):
        model.sample(given={"size": -1.0})


def test_single_precision_stays_single():
    X = bent(60).astype(np.float32)
    model = InterpolantFlow(**TINY).fit(X)
    assert model.score_samples(X, given=[0]).dtype == np.float32
    assert model.sample(given=np.full((2, 3), np.nan, np.float32)).dtype == np.float32
    exact = np.array([1 / 3, np.nan, np.nan])  # in double precision: kept as it is
    assert model.sample(given=exact)[0, 0] == 1 / 3


def test_files_pickles_and_a_memory_keep_the_answers(tmp_path):
    X = bent(100)
    model = InterpolantFlow(**TINY, memory=tmp_path / "fits").fit(X)
    sklearn_si.save(model, tmp_path / "flow.si")
    given = np.where([[True, False, True]], X[:5], np.nan)
    copies = [sklearn_si.load(tmp_path / "flow.si"), pickle.loads(pickle.dumps(model)), clone(model).fit(X)]
    for copy in copies:
        assert np.array_equal(copy.score_samples(X, given=[1]), model.score_samples(X, given=[1]))
        assert np.array_equal(copy.sample(given=given), model.sample(given=given))
    plain = clone(model).set_params(conditionals=None).fit(X)  # another fit than the one that is kept
    assert plain.model_.masked_map is None


def test_a_warm_start_continues():
    X = bent(200)
    model = InterpolantFlow(**{**TINY, "warm_start": True}).fit(X)
    before = model.n_iter_
    assert model.fit(X).n_iter_ >= before + 3
    assert np.isfinite(model.score_samples(X, given=[0])).all()


def test_a_checkpoint_continues_to_the_same_model(tmp_path):
    X = bent(200)
    params = {**TINY, "max_iter": 120, "checkpoint": tmp_path / "fit.ckpt"}
    plain = InterpolantFlow(**{**params, "checkpoint": None}).fit(X)
    kept = InterpolantFlow(**params).fit(X)
    assert np.array_equal(kept.score_samples(X, given=[0]), plain.score_samples(X, given=[0]))


@pytest.mark.parametrize("params", [{"early_stopping": False}, {"preprocessing": "auto"}, {"interpolant": "vp"}])
def test_other_ways_to_fit_answer_too(params):
    X = bent(100)[:, :2]
    model = InterpolantFlow(**{**TINY, "max_iter": 10, **params}).fit(X)
    assert np.isfinite(model.score_samples(X, given=[1])).all()
    assert np.isfinite(model.score_samples(X)).all()
    assert np.isfinite(model.sample(5, given=np.array([np.nan, 1.0]))).all()


def test_maps_distilled_for_whole_rows_answer_no_other_question(monkeypatch):
    monkeypatch.setattr(distillation, "_PAIRS", 2048)
    X = bent(100)
    model = InterpolantFlow(**TINY).fit(X)
    before = model.score_samples(X, given=[0]), model.sample(given=np.array([0.5, np.nan, np.nan]))
    model.distill(max_iter=3, log_density=True).set_params(solver="distilled")
    np.testing.assert_array_equal(model.score_samples(X, given=[0]), before[0])
    model.set_params(solver="auto")
    np.testing.assert_array_equal(model.sample(given=np.array([0.5, np.nan, np.nan])), before[1])


def test_global_generators_are_untouched():
    X = bent(60)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    model = InterpolantFlow(**TINY).fit(X)
    model.score_samples(X, given=[0])
    model.sample(3, given=np.array([0.0, np.nan, np.nan]))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_diffusion_has_no_such_parameter():
    with pytest.raises(TypeError, match="conditionals"):
        InterpolantDiffusion(conditionals="any")


# --------------------------------------------------------------------- parts


@pytest.fixture(scope="module")
def field():
    generator = torch.Generator().manual_seed(0)
    network = ToldNetwork(4, len(told_of_whole_rows(4)) + 2, (8, 8, 8), "silu", generator)
    network.output.data.normal_(generator=generator)
    return MaskedVelocity(Linear(), network).double().requires_grad_(False)


def test_a_restricted_field_is_that_of_its_columns(field):
    rng = torch.Generator().manual_seed(1)
    x = torch.randn((5, 4), generator=rng, dtype=torch.float64)
    states = torch.tensor([[ASKED, GIVEN, ASKED, ABSENT]])
    condition = torch.cat([told(x, states), torch.randn((5, 2), generator=rng, dtype=torch.float64)], 1)
    asked, t = torch.tensor([0, 2]), torch.tensor(0.3, dtype=torch.float64)
    whole = field(t, x, condition)
    part, divergence = field.restricted(asked).velocity_and_divergence(t, x[:, asked], condition)
    torch.testing.assert_close(part, whole[:, asked])
    by_tangents = velocity_and_divergence(field, t, x, condition)[1]
    unasked = 2 * (2 * t - 1) / ((1 - t) ** 2 + t**2)  # of two columns that stay standard normal
    torch.testing.assert_close(divergence, by_tangents - unasked)


def test_what_is_told_of_all_rows_may_be_a_part_of_the_weights(field):
    rng = torch.Generator().manual_seed(1)
    x = torch.randn((5, 4), generator=rng, dtype=torch.float64)
    own = torch.randn((5, 2), generator=rng, dtype=torch.float64)
    t = torch.tensor(0.3, dtype=torch.float64)
    condition = torch.cat([told(x, torch.full((1, 4), ASKED)), own], 1)
    torch.testing.assert_close(field.joint(told_of_whole_rows(4))(t, x, own), field(t, x, condition))


def test_columns_that_are_neither_given_nor_asked_for_tell_nothing(field):
    x = torch.randn((5, 4), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    states = torch.tensor([[ASKED, GIVEN, ASKED, ABSENT]])
    other = x.clone()
    other[:, 3] += 7.0
    column_map = MaskedMap(None, np.cov(np.random.default_rng(0).normal(size=(4, 50))))
    for rows in (x, other):
        assert torch.equal(told(rows, states), told(x, states))
        u = whitened(rows[None], column_map.normals(states), states)
        assert torch.equal(u, whitened(x[None], column_map.normals(states), states))
        assert (u[0][:, [1, 3]] == 0).all()


@pytest.mark.parametrize("d", [2, 3, 10])
def test_patterns_always_ask_for_something(d):
    states = draw_states(64, d, torch.Generator().manual_seed(0))
    assert ((states == ASKED).sum(1) > 0).all()
    assert set(states.unique().tolist()) <= {ASKED, GIVEN, ABSENT}
    assert (states == ASKED).all(1).sum() >= 16  # whole rows
    assert ((states == GIVEN).sum(1) > 0).sum() >= 32


def test_a_series_is_one_row_by_name(flow):
    given = {"c": 0.5, "a": 0.1}
    expected = flow.sample(3, given=given, random_state=0)
    np.testing.assert_array_equal(flow.sample(3, given=pd.Series(given), random_state=0), expected)
    with pytest.raises(ValueError, match=r"given as a Series with the index \[0, 1\], which has none of the columns"):
        flow.sample(given=pd.Series([0.5, 0.1], name="a"))


# --------------------------------------------------------------------- far cells


def test_given_cells_far_outside_are_told_and_tell_no_more_than_nearer_ones(flow):
    """They were extrapolated linearly without a word: a = 1e4 gave c = 9952."""
    with pytest.warns(
        UserWarning, match=r"Given columns of given hold values far outside those of fit: 'a' \(10000; fit"
    ):
        far = flow.sample(50, given={"a": 1e4})
    low, high = flow.model_.masked_map.range_of_fit()[:, 0]
    edge = flow.sample(50, given={"a": high + 0.5 * (high - low)})
    assert (far[:, 0] == 1e4).all()
    np.testing.assert_allclose(far[:, 1:], edge[:, 1:], rtol=1e-5)
    rows = frame(4).assign(a=[-1e4, 0.0, 1e6, 0.1])
    with pytest.warns(UserWarning, match=r"Given columns of X hold .* 'a' \(-10000; fit had"):
        value = flow.score_samples(rows, given=["a"])
    near = rows.assign(a=[low - 0.5 * (high - low), 0.0, high + 0.5 * (high - low), 0.1])
    np.testing.assert_allclose(value, flow.score_samples(near, given=["a"]), rtol=1e-5)


def test_cells_within_the_range_of_fit_are_no_matter_of_a_warning(flow):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow.sample(given=frame(200, 5)[["a"]])
        flow.score_samples(frame(20).assign(a=1e4), columns=["b"])


def test_far_cells_of_a_support():
    X = np.column_stack([np.random.default_rng(0).lognormal(size=300), np.random.default_rng(1).normal(size=300)])
    model = InterpolantFlow(**TINY, support={0: "positive"}).fit(X)
    with pytest.warns(UserWarning, match=r"0 \(1e\+30; fit had 0\."):
        drawn = model.sample(5, given=np.array([1e30, np.nan]))
    assert np.isfinite(drawn).all()
