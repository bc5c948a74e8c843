"""The model of whole rows: exact masses and densities, any part given, gaps, seeds."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import trapezoid
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from oracles import column_kinds
from sklearn_si import InterpolantDiffusion, InterpolantFlow
from sklearn_si.exceptions import IntegrationError, IntegrationWarning
from sklearn_si.tables import MISSING, InterpolantImputer, TableSynthesizer, _learning
from sklearn_si.tables._masked import _waves, mask_rows

MASSES = np.array([[0.30, 0.05, 0.05], [0.05, 0.25, 0.30]])
NAMES = sorted(column_kinds(np.random.default_rng(0), 6))
NUMBERS = {"int64", "huge", "Int64", "float64", "float32", "decimals", "Float64", "zeros", "heavy", "infinite", "dates",
           "zoned", "days", "spans", "int8"}  # fmt: skip
SMALL_FLOW = InterpolantFlow(preprocessing="standardize", hidden_layer_sizes=(32, 32))


def mixed_rows(n, seed):
    """Levels (a, b) with known masses; x normal given a, y = x + noise; gaps in y where b is 'w'."""
    rng = np.random.default_rng(seed)
    cells = rng.choice(6, p=MASSES.ravel(), size=n)
    a, b = cells // 3, cells % 3
    x = np.where(a == 0, -1.0, 1.0) + 0.5 * rng.standard_normal(n)
    y = np.where(b == 2, np.nan, x + 0.3 * rng.standard_normal(n))
    return pd.DataFrame(
        {"a": np.array(["no", "yes"])[a], "x": x, "b": pd.Categorical(np.array(list("uvw"))[b]), "y": y}
    )


def log_density(frame):
    """The exact log-density of `mixed_rows`."""
    a, b = (frame.a == "yes").to_numpy().astype(int), frame.b.cat.codes.to_numpy()
    value = np.log(MASSES[a, b]) + stats.norm.logpdf(frame.x, np.where(a == 0, -1.0, 1.0), 0.5)
    return value + np.where(frame.y.isna(), 0.0, stats.norm.logpdf(frame.y.fillna(0.0), frame.x, 0.3))


@pytest.fixture(scope="module")
def fitted():
    return TableSynthesizer(flow=SMALL_FLOW, max_iter=400, random_state=0).fit(mixed_rows(2000, 0))


def test_log_density_is_that_of_the_distribution(fitted):
    frame = mixed_rows(1500, 1)
    loss = log_density(frame) - fitted.score_samples(frame)
    assert abs(loss.mean()) < 0.06
    assert np.isclose(fitted.score(frame), fitted.score_samples(frame).mean())


def test_masses_sum_to_one_whatever_was_learned():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.integers(3, size=400), rng.integers(4, size=400), rng.integers(2, size=400)])
    model = TableSynthesizer(max_iter=30, random_state=0).fit(X)
    everything = np.array(np.meshgrid(range(3), range(4), range(2))).reshape(3, -1).T
    assert np.isclose(np.exp(model.score_samples(everything)).sum(), 1.0, atol=1e-5)


def test_density_integrates_to_one_over_levels_spikes_and_values():
    rng = np.random.default_rng(0)
    x = np.where(rng.uniform(size=800) < 0.3, 0.0, rng.gamma(3.0, size=800))
    frame = pd.DataFrame({"k": rng.choice(["u", "v"], size=800), "x": x})
    model = TableSynthesizer(flow=SMALL_FLOW, max_iter=60, random_state=0).fit(frame)
    grid = np.linspace(x[x > 0].min() - 8, x.max() + 30, 2001)
    grid = grid[grid != 0]
    total = 0.0
    for level in ("u", "v"):
        density = np.exp(model.score_samples(pd.DataFrame({"k": level, "x": grid})))
        total += trapezoid(density, grid) + np.exp(model.score_samples(pd.DataFrame({"k": [level], "x": [0.0]})))[0]
    assert np.isclose(total, 1.0, atol=0.01)


def test_drawn_rows_follow_the_distribution(fitted):
    made, frame = fitted.sample(4000, random_state=1), mixed_rows(4000, 2)
    assert list(made.columns) == list(frame.columns)
    assert (made.dtypes == frame.dtypes).all()
    counts = pd.crosstab(made.a, made.b).to_numpy() / len(made)
    assert np.abs(counts - MASSES).max() < 0.04
    assert (made.y.isna() == (made.b == "w")).mean() > 0.99
    for name in ("x", "y"):
        assert stats.ks_2samp(made[name].dropna(), frame[name].dropna()).statistic < 0.05
    residual = (made.y - made.x).dropna()
    assert abs(residual.std() - 0.3) < 0.05
    # the noise of values is not that of the levels which were drawn before them
    assert residual.groupby(pd.qcut(made.x, 6)).mean().abs().max() < 0.12


def test_given_cells_are_kept_and_the_rest_is_drawn_given_them(fitted):
    given = pd.DataFrame({"x": np.linspace(-1.2, 1.2, 7)}).loc[np.repeat(range(7), 800)].reset_index(drop=True)
    made = fitted.sample(given=given, random_state=0)
    np.testing.assert_array_equal(made.x, given.x)
    odds = 4 * given.x.to_numpy() / (2 * 0.5**2) + np.log(0.6 / 0.4)
    expected = 1 / (1 + np.exp(-odds))
    found = (made.a == "yes").groupby(given.x).mean()
    np.testing.assert_allclose(found, pd.Series(expected).groupby(given.x).mean(), atol=0.1)
    rest = (made.y - made.x).dropna()
    assert abs(rest.mean()) < 0.06
    assert abs(rest.std() - 0.3) < 0.06


def test_given_levels_condition_the_values(fitted):
    made = fitted.sample(2000, given=pd.DataFrame({"a": ["no"], "b": ["u"]}), random_state=0)
    assert set(made.a) == {"no"}
    assert set(made.b) == {"u"}
    assert abs(made.x.mean() + 1.0) < 0.1
    assert abs(made.x.std() - 0.5) < 0.06


def test_given_numbers_that_fit_has_not_seen_tell_what_their_neighbours_tell():
    rng = np.random.default_rng(0)
    n = 2 * rng.integers(5, size=600)
    frame = pd.DataFrame({"n": n, "k": np.where(n < 5, "low", "high")})
    model = TableSynthesizer(hidden_layer_sizes=(64, 1), max_iter=200, random_state=0).fit(frame)
    made = model.sample(given=pd.DataFrame({"n": [1, 7, -3, 40] * 50}), random_state=0)
    assert made.n.tolist() == [1, 7, -3, 40] * 50
    assert (made.k == np.where(made.n < 5, "low", "high")).mean() > 0.95


def test_gaps_of_given_rows_are_drawn(fitted):
    given = pd.DataFrame({"a": ["no", None], "x": [np.nan, 1.0]})
    made = fitted.sample(given=given, random_state=0)
    assert (made.a[0], made.x[1]) == ("no", 1.0)
    assert made.a.notna().all()
    assert made.x.notna().all()


def test_probabilities_of_a_column_are_those_of_the_distribution(fitted):
    frame = mixed_rows(1500, 3)
    p = fitted.predict_proba(frame.drop(columns="a"), target="a")
    b, y = frame.b.cat.codes.to_numpy(), 0.0
    logs = [np.log(MASSES[k, b]) + stats.norm.logpdf(frame.x, m, 0.5) + y for k, m in ((0, -1.0), (1, 1.0))]
    expected = 1 / (1 + np.exp(logs[0] - logs[1]))
    assert fitted.levels("a").tolist() == ["no", "yes"]
    np.testing.assert_allclose(p.sum(1), 1.0)
    assert np.abs(p[:, 1] - expected).mean() < 0.04
    # what the column holds is not looked at
    np.testing.assert_array_equal(fitted.predict_proba(frame, target="a"), p)


def test_gaps_are_filled_and_nothing_else_is_touched(fitted):
    frame = mixed_rows(400, 4)
    frame.loc[::5, "x"], frame.loc[1::5, "a"] = np.nan, None
    first, second = fitted.impute(frame, n_draws=2, random_state=0)
    for filled in (first, second):
        assert not filled.isna().any().any()
        for name in frame:
            there = frame[name].notna()
            pd.testing.assert_series_equal(filled[name][there], frame[name][there])
    assert (first.x != second.x)[::5].all()
    assert fitted.impute(frame.iloc[:3], random_state=0).shape == (3, 4)


def test_cells_that_fit_has_not_seen_are_kept_by_impute(fitted):
    frame = mixed_rows(20, 5)
    frame.loc[0, "a"], frame.loc[1, "x"], frame.loc[2, "y"] = "maybe", 1e6, np.nan
    with pytest.warns(UserWarning, match=r"Column 'a' of X holds \['maybe'\], which fit has not seen"):
        filled = fitted.impute(frame, random_state=0)
    assert (filled.a[0], filled.x[1]) == ("maybe", 1e6)
    assert np.isfinite(filled.y).all()


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(2, 300),
    names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=30, unique=True),
)
def test_generated_frames_make_rows_of_their_dtypes_levels_and_ranges(seed, n, names):
    kinds = column_kinds(np.random.default_rng(seed), n)
    frame = pd.DataFrame({name: kinds[name] for name in names})
    made = TableSynthesizer(max_iter=2, flow=InterpolantFlow(max_iter=2), random_state=0).fit(frame).sample(n)
    assert list(made.columns) == list(frame.columns)
    assert (made.dtypes == frame.dtypes).all()
    for name in frame:
        there, drawn = frame[name].dropna(), made[name].dropna()
        if len(there) == n:
            assert len(drawn) == n
        if name in NUMBERS:
            assert drawn.between(there.min(), there.max()).all()
        else:
            assert set(drawn) <= set(there)


def normal_rows(n, seed):
    rng = np.random.default_rng(seed)
    return rng.multivariate_normal([0, 1, 2], [[1, 0.8, 0.3], [0.8, 1, 0.5], [0.3, 0.5, 1]], size=n)


def test_values_given_values_follow_the_normal_distribution_from_rows_with_gaps():
    X = normal_rows(2000, 0)
    X[np.random.default_rng(1).uniform(size=X.shape) < 0.2] = np.nan
    model = TableSynthesizer(flow=SMALL_FLOW, max_iter=200, random_state=0).fit(X)
    new = normal_rows(500, 2)
    holes = new.copy()
    holes[:, 1] = np.nan
    draws = np.stack([filled[:, 1] for filled in model.impute(holes, n_draws=19, random_state=0)])
    weights = np.linalg.solve([[1, 0.3], [0.3, 1]], [0.8, 0.5])
    mean, sd = 1 + (new[:, [0, 2]] - [0, 2]) @ weights, np.sqrt(1 - weights @ [0.8, 0.5])
    assert np.sqrt(np.mean((draws.mean(0) - mean) ** 2)) < 0.2 * sd + sd / np.sqrt(19)
    assert abs(draws.std(0).mean() / sd - 1) < 0.1
    rank = (draws < new[:, 1]).sum(0)
    assert abs(((rank >= 1) & (rank <= 18)).mean() - 0.9) < 0.04


def test_a_seed_gives_the_same_model_and_rows_and_leaves_the_global_generators_alone():
    frame = mixed_rows(200, 0)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    models = [TableSynthesizer(max_iter=15, random_state=3).fit(frame) for _ in range(2)]
    rows = [model.sample(20) for model in models]
    pd.testing.assert_frame_equal(*rows)
    pd.testing.assert_frame_equal(models[0].sample(20), rows[0])
    np.testing.assert_array_equal(models[0].score_samples(frame), models[1].score_samples(frame))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    fresh = models[0].set_params(random_state=None)
    assert (fresh.sample(20).x != fresh.sample(20).x).any()


def test_scores_of_unseen_levels_are_announced(fitted):
    frame = mixed_rows(5, 0)
    frame.loc[2, "a"] = "maybe"
    told = r"1 of 5 rows hold categories or missing values that fit has not seen, in the columns 'a' \(\['maybe'\]\)"
    with pytest.warns(UserWarning, match=told):
        score = fitted.score_samples(frame)
    assert np.isfinite(score).all()


def test_a_flow_that_is_none_is_refused():
    with pytest.raises(ValueError, match="The 'flow' parameter"):
        TableSynthesizer(flow=InterpolantDiffusion()).fit(mixed_rows(20, 0))


def test_scores_of_a_row_do_not_depend_on_the_others(fitted):
    frame = mixed_rows(60, 6)
    together = fitted.score_samples(frame)
    np.testing.assert_allclose(fitted.score_samples(frame.iloc[::-1])[::-1], together, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(fitted.score_samples(frame.iloc[[7]]), together[[7]], rtol=1e-5, atol=1e-5)


def test_pickles_clones_and_searches(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    pd.testing.assert_frame_equal(again.sample(5, random_state=0), fitted.sample(5, random_state=0))
    assert not hasattr(clone(fitted), "codec_")
    scores = cross_val_score(TableSynthesizer(max_iter=10, random_state=0), mixed_rows(200, 7), cv=2)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("n", [2, 3, 7])
def test_few_rows_and_odd_columns_make_a_model(n):
    rng = np.random.default_rng(n)
    frame = pd.DataFrame({
        "same": np.full(n, 3), "nothing": [None] * n, "x": rng.normal(size=n), "gap": [np.nan] + [1.5] * (n - 1),
        "when": pd.to_datetime(["2020-01-01"] * (n - 1) + ["2021-05-05"]), "k": ["a"] * (n - 1) + ["b"],
    })  # fmt: skip
    model = TableSynthesizer(max_iter=5, random_state=0).fit(frame)
    made = model.sample(50)
    assert (made.dtypes == frame.dtypes).all()
    assert (made.same == 3).all()
    assert made.nothing.isna().all()
    assert made.when.between(frame.when.min(), frame.when.max()).all()
    assert np.isfinite(model.score_samples(frame)).all()


def test_small_tables_do_not_collapse():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 12)) @ rng.normal(size=(12, 12))
    made = TableSynthesizer(random_state=0).fit(X).sample(2000)
    ratio = made.std(0) / X.std(0)
    assert ratio.min() > 0.7
    assert ratio.max() < 1.3
    assert np.abs(np.corrcoef(made.T) - np.corrcoef(X.T)).mean() < 0.15


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m: m.sample(0), "Got n_samples=0, but expected an integer of at least 1"),
        (lambda m: m.impute(mixed_rows(3, 0), n_draws=0), "Got n_draws=0"),
        (lambda m: m.sample(given=pd.DataFrame({"q": [1]})), r"unknown \['q'\]"),
        (lambda m: m.sample(given=pd.DataFrame({"a": ["maybe"]})), r"Column 'a' of given holds \['maybe'\]"),
        (lambda m: m.sample(3, given=pd.DataFrame({"x": [0.0, 1.0]})), "n_samples=3, but given has 2 rows"),
        (lambda m: m.predict_proba(mixed_rows(3, 0), target="q"), "Got target='q', but expected one of"),
        (lambda m: m.predict_proba(mixed_rows(3, 0), target="x"), "Column 'x' is continuous, but predict_proba needs"),
        (lambda m: m.score_samples(mixed_rows(3, 0).drop(columns="a")), r"missing \['a'\]"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(fitted, call, message):
    with pytest.raises(ValueError, match=message):
        call(fitted)


def test_time_is_kept():
    model = TableSynthesizer(max_time=0.5, random_state=0).fit(mixed_rows(500, 0))
    assert np.isfinite(model.score(mixed_rows(50, 1)))


def test_the_history_shows_the_rounds_of_both_models_and_those_taken_back():
    """Values that lie far out, and a rate that is far too high for them."""
    flow = InterpolantFlow(preprocessing="standardize", hidden_layer_sizes=(16, 16), learning_rate_init=3.0)
    with pytest.warns(ConvergenceWarning, match="training continues from the best weights"):
        model = TableSynthesizer(flow=flow, max_iter=200, random_state=0).fit(mixed_rows(400, 0))
    rounds = pd.DataFrame(model.history_)
    assert rounds.training.tolist() == sorted(rounds.training) and rounds.training.unique().tolist() == [
        "codes", "values: train"
    ]  # fmt: skip
    back = rounds[rounds.taken_back]
    assert len(back) and (back.training == "values: train").all()
    of_values = rounds[(rounds.training == "values: train") & ~rounds.taken_back]
    assert of_values.validation_score.tolist() == model.value_model_.flow_.validation_scores_
    assert model.validation_scores_ == rounds[~rounds.taken_back].validation_score.tolist()


class Lost(InterpolantFlow):
    """A flow of which the rows with some conditions become infinite in every draw."""

    def sample(self, n_samples=1, *, condition=None, random_state=None):
        lost = np.flatnonzero(condition[:, 0] > 0)
        if len(lost):
            raise IntegrationError("lost", lost)
        return super().sample(n_samples, condition=condition, random_state=random_state)


def test_a_few_rows_that_are_lost_in_every_draw_do_not_end_the_others(fitted):
    model, given = copy.deepcopy(fitted), mixed_rows(200, 3)[["a"]]
    model.value_model_.flow_.__class__ = Lost
    given["a"] = np.where(np.arange(200) < 4, "no", "yes")
    with pytest.warns(IntegrationWarning, match="4 of 200 rows became infinite or NaN in each draw of their values"):
        drawn = model.sample(given=given, random_state=0)
    assert np.isfinite(drawn.x).all() and (drawn.x[:4] < 1.5).all()
    with pytest.warns(IntegrationWarning, match="1 of 1 rows"):
        assert np.isfinite(model.sample(given={"a": "no"}, random_state=0).x).all()
    with pytest.raises(IntegrationError, match="lost"):
        model.sample(given={"a": np.repeat("no", 200)}, random_state=0)


def gapped(n, seed):
    X = normal_rows(n, seed)
    X[np.random.default_rng(seed + 1).uniform(size=X.shape) < 0.2] = np.nan
    return X


def test_an_imputer_stands_where_others_do():
    X = gapped(300, 0)
    imputer = InterpolantImputer(TableSynthesizer(flow=SMALL_FLOW, max_iter=30), random_state=0)
    rows = make_pipeline(imputer, StandardScaler()).fit_transform(X)
    assert np.isfinite(rows).all()
    there = ~np.isnan(X)
    completed = imputer.fit(X).transform(X)
    np.testing.assert_array_equal(completed[there], X[there])
    np.testing.assert_array_equal(imputer.transform(X), completed)


def test_averaged_draws_are_nearer_to_the_truth_than_one():
    truth, X = normal_rows(500, 0), gapped(500, 0)
    holes = np.isnan(X)
    errors = []
    for average in (1, 20):
        imputer = InterpolantImputer(TableSynthesizer(flow=SMALL_FLOW, max_iter=100), average=average, random_state=0)
        errors.append(np.mean((imputer.fit_transform(X) - truth)[holes] ** 2))
    assert errors[1] < 0.7 * errors[0]


def test_averaged_levels_are_the_most_frequent():
    frame = mixed_rows(400, 0)
    frame.loc[::4, "a"] = None
    imputer = InterpolantImputer(TableSynthesizer(flow=SMALL_FLOW, max_iter=150), average=9, random_state=0)
    filled = imputer.fit_transform(frame)
    assert set(filled.a) == {"no", "yes"}
    truth = mixed_rows(400, 0).a
    assert (filled.a == truth)[::4].mean() > 0.9


def test_columns_of_nothing_are_dropped_or_kept():
    X = gapped(100, 0)
    X[:, 1] = np.nan
    small = TableSynthesizer(flow=SMALL_FLOW, max_iter=5)
    assert InterpolantImputer(small, random_state=0).fit_transform(X).shape == (100, 2)
    kept = InterpolantImputer(small, keep_empty_features=True, random_state=0)
    np.testing.assert_array_equal(kept.fit_transform(X)[:, 1], 0.0)
    assert len(kept.get_feature_names_out()) == 3


def test_columns_of_noise_do_not_hide_one_that_depends():
    rng = np.random.default_rng(0)
    n, x = 700, rng.normal(size=700)
    noise = {f"noise{k}": rng.choice(list("abcdef"), n) for k in range(6)}
    frame = pd.DataFrame(noise | {"x": x, "y": np.where(rng.uniform(size=n) < np.where(x > 0, 0.9, 0.1), "yes", "no")})
    table = TableSynthesizer(max_iter=300, flow=InterpolantFlow(max_iter=1), random_state=0).fit(frame[:500])
    trust = table.masked_network_.trust
    assert trust[6] >= 0.5  # y
    assert trust[:6].mean() < 0.3
    probability = table.predict_proba(frame[500:], target="y")[:, 1]
    assert roc_auc_score(frame["y"][500:] == "yes", probability) > 0.85
    # what is drawn given x is what is foretold given x
    for x, low, high in ((-2.0, 0.05, 0.35), (2.0, 0.65, 0.95)):
        drawn = (table.sample(given={"x": [x] * 1000})["y"] == "yes").mean()
        cells = pd.DataFrame(dict.fromkeys(frame) | {"x": [x]})
        assert table.predict_proba(cells, target="y")[0, 1] == pytest.approx(drawn, abs=0.05)
        assert low < drawn < high


def test_words_of_single_rows_are_announced():
    frame = pd.DataFrame({"name": [f"row {k}" for k in range(60)], "x": np.arange(60.0)})
    with pytest.warns(UserWarning, match=r"Columns \['name'\] hold a word of its own for almost every row"):
        TableSynthesizer(max_iter=1, random_state=0).fit(frame)


def test_completed_rows_keep_their_index():
    frame = mixed_rows(60, 1)
    part = frame.iloc[10:30]
    table = TableSynthesizer(max_iter=2, random_state=0).fit(frame)
    assert table.impute(part).index.equals(part.index)
    assert table.sample(given=part.iloc[:, :1]).index.equals(part.index)
    assert table.sample(3, given=part.iloc[:1, :1]).index.equals(pd.RangeIndex(3))
    assert InterpolantImputer(table, average=2).fit(frame).transform(part).index.equals(part.index)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"town": "Rome"}, r"given must have the columns of fit: unknown \['town'\]; they are"),
        ({"n": 2.5}, "Column 'n' of given holds 2.5, but fit saw whole numbers"),
        ({"d": "2019-01-01"}, r"Column 'd' of given holds '2019-01-01', but in fit it held dates"),
    ],
)
def test_given_cells_that_no_row_could_have_are_refused(cells, message):
    frame = pd.DataFrame({
        "n": np.arange(40) % 4, "x": np.arange(40.0), "d": pd.date_range("2020", periods=40), "k": ["a", "b"] * 20,
    })  # fmt: skip
    table = TableSynthesizer(max_iter=1, random_state=0).fit(frame)
    with pytest.raises(ValueError, match=message):
        table.sample(given=cells)


def test_given_cells_may_come_as_a_dict():
    frame = pd.DataFrame({"x": np.arange(40.0), "k": ["a", "b"] * 20})
    table = TableSynthesizer(max_iter=1, random_state=0).fit(frame)
    assert (table.sample(5, given={"k": "a"})["k"] == "a").all()
    assert table.sample(given={"k": ["a", "b"]})["k"].tolist() == ["a", "b"]
    both = table.sample(given={"k": pd.Series(["a", "b"]), "x": 3.0})
    assert both["k"].tolist() == ["a", "b"]
    assert both["x"].tolist() == [3.0, 3.0]
    assert len(table.sample(2, given={})) == 2
    array = TableSynthesizer(max_iter=1, random_state=0).fit(np.arange(40.0).reshape(20, 2))
    with pytest.raises(ValueError, match="Got given as a dict, but fit was given an array"):
        array.sample(given={"k": "a"})


def test_cells_that_are_lists_are_refused_by_column():
    frame = pd.DataFrame({"x": [1.0, 2.0], "tags": [["a"], ["b", "c"]]})
    with pytest.raises(ValueError, match="Column 'tags' of X holds cells that are no numbers, words or dates"):
        TableSynthesizer().fit(frame)


def test_masks_hide_the_column_that_is_asked_and_show_those_before_it():
    n, n_codes = 4000, 5
    codes, values, step = mask_rows(n, n_codes, 2, torch.Generator().manual_seed(0))
    rows, before = torch.arange(n), torch.arange(n_codes) < step[:, None]
    assert not codes[rows, step].any()
    # half of the rows as whole rows are drawn, a quarter with any cells beside these, a quarter with any cells
    assert torch.equal(codes[::2], before[::2]) and not values[::2].any()
    assert (codes[1::4] >= before[1::4]).all() and not (codes[3::4] >= before[3::4]).all()
    assert abs(values[1::2].double().mean() - 0.5) < 0.05
    assert torch.bincount(step).min() > n / n_codes / 1.2


def test_rows_are_drawn_independently_of_each_other():
    """The share of a level varies from draw to draw as that of independent rows does."""
    frame = pd.DataFrame({"k": ["u", "v"] * 100, "m": ["a", "b", "a", "b"] * 50})
    table = TableSynthesizer(max_iter=5, random_state=0).fit(frame)
    shares = [float((table.sample(100, random_state=seed)["k"] == "u").mean()) for seed in range(60)]
    assert 0.7 * 0.05 < np.std(shares) < 1.3 * 0.05  # sqrt(.5 * .5 / 100)


@pytest.mark.parametrize(("n", "fraction", "n_held"), [(400, 0.5, 200), (400, 0.1, 50), (5, 0.9, 3)])
def test_the_share_of_rows_held_out_is_the_one_asked_for(n, fraction, n_held, monkeypatch):
    held_out, fit_masked = [], _learning.fit_masked

    def followed(network, rows, *args):
        held_out.append(len(rows.held))
        return fit_masked(network, rows, *args)

    monkeypatch.setattr(_learning, "fit_masked", followed)
    model = TableSynthesizer(validation_fraction=fraction, max_iter=2, random_state=0).fit(mixed_rows(n, 0)[["a", "x"]])
    assert held_out == [n_held]
    assert model.value_model_.flow_.validation_fraction == fraction


# --------------------------------------------------------------------------- rows that are given, and missing cells


def test_a_series_is_one_row(fitted):
    row = mixed_rows(1, 5).iloc[0][["x", "a"]]
    by_dict = fitted.sample(4, given={"a": row["a"], "x": row["x"]}, random_state=0)
    pd.testing.assert_frame_equal(fitted.sample(4, given=row, random_state=0), by_dict)
    with pytest.raises(ValueError, match=r"as a Series with the index \[0, 1, 2\], which has none of the columns"):
        fitted.sample(given=mixed_rows(3, 0)["a"])
    with pytest.raises(ValueError, match=r"given must have the columns of fit: unknown \['z'\]"):
        fitted.sample(given=pd.Series({"a": "no", "z": 1}))
    with pytest.raises(ValueError, match="given as a Series of polars, whose cells have no names"):
        fitted.sample(given=pytest.importorskip("polars").Series("a", ["no"]))
    array = TableSynthesizer(max_iter=10, random_state=0).fit(mixed_rows(80, 0)[["a", "b"]].to_numpy(dtype=object))
    with pytest.raises(ValueError, match="given as a dict, but fit was given an array"):
        array.sample(given=pd.Series({0: "no"}))


def test_a_missing_cell_may_be_asked_for(fitted):
    """Absent cells are drawn: y is missing where b is 'w', and b is 'w' where y is to be missing."""
    for told in ({"y": MISSING}, pd.Series({"y": MISSING}), pd.DataFrame({"y": [MISSING]})):
        drawn = fitted.sample(50, given=told, random_state=0)
        assert drawn.y.isna().all() and (drawn.b == "w").mean() > 0.9
    for nothing in (np.nan, None, pd.NA):
        assert fitted.sample(50, given={"y": nothing, "b": "u"}, random_state=0).y.isna().mean() < 0.1
    both = fitted.sample(given={"y": [MISSING, 0.5, None], "b": ["w", "u", "v"]}, random_state=0)
    assert both.y.isna().tolist() == [True, False, False] and both.y[1] == 0.5
    with pytest.raises(ValueError, match="asks for MISSING in column 'a', but fit saw no missing values there"):
        fitted.sample(given={"a": MISSING})
    assert pickle.loads(pickle.dumps(MISSING)) is MISSING and repr(MISSING) == "MISSING"


def test_missing_cells_of_arrays_and_beside_relations():
    rng = np.random.default_rng(0)
    start = rng.integers(0, 1000, size=300).astype(float)
    frame = pd.DataFrame({"start": start, "end": start + rng.integers(1, 60, size=300)})
    frame.loc[::5, "end"] = np.nan
    model = TableSynthesizer(flow=SMALL_FLOW, max_iter=20, random_state=0).fit(frame)
    with pytest.raises(ValueError, match=r"column 'end', but Inequality.* ties it to others: leave the cell out, or"):
        model.sample(given={"end": MISSING})
    array = TableSynthesizer(flow=SMALL_FLOW, max_iter=20, constraints=None, random_state=0).fit(frame.to_numpy())
    assert np.isnan(array.sample(given=[[3.0, MISSING], [None, 5.0]])).tolist() == [[False, True], [False, False]]


def test_codes_of_a_tail_are_told_apart_by_their_scores():
    """Their ranks are all alike, and each has few rows of its own to learn from."""
    ranks = np.array([0.5, 0.995, 0.9995, np.nan])
    features = _waves(ranks)
    scores = stats.norm.ppf(ranks[:3])
    np.testing.assert_allclose(features[:3, -2:], np.column_stack([scores / 2, (scores**2 - 1) / 4]))
    assert (features[3] == 0).all()
