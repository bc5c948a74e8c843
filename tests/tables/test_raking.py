"""A fitted table with other margins: exact shares, the nearest distribution, its density, and what is refused."""

import datetime
import itertools
import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError

import sklearn_si
from sklearn_si import InterpolantFlow
from sklearn_si._utils.weights import systematic_rows
from sklearn_si.tables import TableSynthesizer
from sklearn_si.tables._margins import Margin
from sklearn_si.tables._raking import cells_of, proportional_factors

FLOW = InterpolantFlow(preprocessing="standardize", hidden_layer_sizes=(16,))


def rows(n=900, seed=0):
    rng = np.random.default_rng(seed)
    sex = rng.choice(["f", "m"], p=[0.4, 0.6], size=n)
    age = np.where(sex == "f", 45.0, 35.0) + 10 * rng.normal(size=n)
    region = np.where(rng.random(n) < 0.1, None, rng.choice(["east", "north", "west"], p=[0.5, 0.3, 0.2], size=n))
    return pd.DataFrame({"sex": sex, "age": age, "region": region, "children": rng.integers(4, size=n)})


@pytest.fixture(scope="module")
def fitted():
    """Shared: tests must not change it."""
    return TableSynthesizer(flow=FLOW, max_iter=60, random_state=0).fit(rows())


TOTALS = {
    "sex": {"f": 0.6, "m": 0.4},
    "region": {"east": 0.2, "north": 0.3, "west": 0.4, None: 0.1},
    "age": {(None, 30): 0.2, (30, 50): 0.5, (50, None): 0.3},
}


def shares(X):
    return {
        "sex": X.sex.value_counts(normalize=True).to_dict(),
        "region": {**(X.region.value_counts() / len(X)).to_dict(), None: X.region.isna().mean()},
        "age": {
            (None, 30): (X.age < 30).mean(),
            (30, 50): X.age.between(30, 50).mean(),
            (50, None): (X.age > 50).mean(),
        },
    }


def test_margins_of_drawn_rows_are_the_totals(fitted):
    raked = fitted.rake(TOTALS, n_rows=8000)
    X = raked.sample(3000)
    assert (X.dtypes == fitted.sample(2).dtypes).all()
    assert X.index.tolist() == list(range(3000))
    for column, found in shares(X).items():
        for level, share in TOTALS[column].items():
            assert abs(found.get(level, 0.0) - share) < 0.002, (column, level)
    assert not X.duplicated().any()


def test_a_population_in_counts_has_the_same_rows(fitted):
    counts = {"sex": {"f": 600, "m": 400}, "age": {(None, 30): 200, (30, None): 800}}
    as_shares = {"sex": {"f": 0.6, "m": 0.4}, "age": {(None, 30): 0.2, (30, None): 0.8}}
    a, b = (fitted.rake(totals, n_rows=4000).sample(50, random_state=1) for totals in (counts, as_shares))
    pd.testing.assert_frame_equal(a, b)


def test_levels_that_shares_leave_out_keep_their_proportions(fitted):
    X = fitted.rake({"region": {"west": 0.5}}, n_rows=8000).sample(4000)
    model = fitted.sample(8000)
    rest, before = X.region[X.region != "west"], model.region[model.region != "west"]
    assert (X.region == "west").mean() == pytest.approx(0.5, abs=0.002)
    assert (rest == "east").mean() == pytest.approx((before == "east").mean(), abs=0.03)


def test_joint_margins_of_two_columns(fitted):
    joint = {("f", "east"): 0.4, ("m", "east"): 0.1, ("f", "west"): 0.2}
    X = fitted.rake({("sex", "region"): joint}, n_rows=8000).sample(3000)
    for (sex, region), share in joint.items():
        assert ((X.sex == sex) & (X.region == region)).mean() == pytest.approx(share, abs=0.002)


def test_weights_are_the_nearest_to_equal_ones():
    """Of all weights with the margins, those of products of factors have the least relative entropy."""
    rng = np.random.default_rng(0)
    labels = [rng.integers(2, size=400), rng.integers(3, size=400)]
    margins = [Margin(("a",), [("x",), ("y",)], np.array([0.3, 0.7, np.nan]))]
    margins.append(Margin(("b",), [(k,) for k in "uvw"], np.array([0.2, 0.3, 0.5, np.nan])))
    factors = proportional_factors(labels, margins)
    weight = factors[0][labels[0]] * factors[1][labels[1]]
    assert_allclose(weight.mean(), 1.0, atol=1e-5)
    # moves that keep both margins: between the four corners of two rows and two columns
    table = np.zeros((2, 3))
    np.add.at(table, tuple(labels), weight / 400)
    base = np.zeros((2, 3))
    np.add.at(base, tuple(labels), 1 / 400)
    assert_allclose(table.sum(1), [0.3, 0.7], atol=1e-6)
    assert_allclose(table.sum(0), [0.2, 0.3, 0.5], atol=1e-6)
    for j, k in itertools.combinations(range(3), 2):
        odds = np.log(table / base)
        assert odds[0, j] + odds[1, k] - odds[0, k] - odds[1, j] == pytest.approx(0.0, abs=1e-9)


def test_the_density_is_that_of_the_weighted_model(fitted):
    raked = fitted.rake({"sex": {"f": 0.7, "m": 0.3}}, n_rows=8000)
    frame = rows(40, 1)
    weight = raked.weights(frame)
    share = (fitted.sample(8000).sex == "f").mean()
    assert_allclose(weight, np.where(frame.sex == "f", 0.7 / share, 0.3 / (1 - share)), rtol=1e-6)
    assert_allclose(raked.score_samples(frame), fitted.score_samples(frame) + np.log(weight))
    assert raked.report_.log_normaliser_error == pytest.approx(
        np.sqrt(0.49 / share + 0.09 / (1 - share) - 1) / 8000**0.5, rel=1e-3
    )
    never = fitted.rake({"sex": {"f": 1.0, "m": 0}}, n_rows=2000)
    assert np.isneginf(never.score_samples(frame[frame.sex == "m"][:2])).all()
    assert set(never.sample(50).sex) == {"f"}


def test_the_report_says_what_changes(fitted):
    report = fitted.rake({"sex": {"f": 0.9, "m": 0.1}}, n_rows=4000).report_
    table = pd.DataFrame(report.shares)
    assert table.columns.tolist() == ["column", "level", "model", "asked"]
    assert table.asked.tolist() == [0.9, 0.1]
    f = table.model[0]
    assert report.largest_weight == pytest.approx(0.9 / f, rel=1e-6)
    assert report.effective_share == pytest.approx(1 / (0.81 / f + 0.01 / (1 - f)), rel=1e-6)


def test_arrays_and_seeds_and_files(tmp_path):
    X = rows()[["sex", "age"]].to_numpy(dtype=object)
    model = TableSynthesizer(flow=FLOW, max_iter=20, random_state=0).fit(X)
    raked = model.rake({0: {"f": 0.2, "m": 0.8}, 1: {(None, 40): 0.5, (40, None): 0.5}}, n_rows=3000)
    drawn = raked.sample(400)
    assert (drawn[:, 0] == "f").mean() == pytest.approx(0.2, abs=0.004)
    assert_array_equal(raked.sample(400), drawn)
    assert not np.array_equal(raked.sample(400, random_state=5), drawn)
    sklearn_si.save(raked, tmp_path / "raked.si")
    for again in (sklearn_si.load(tmp_path / "raked.si"), pickle.loads(pickle.dumps(raked))):
        assert_array_equal(again.sample(400), drawn)
        assert again.report_.shares == raked.report_.shares


def test_rows_of_large_weights_are_told_when_they_are_repeated(fitted):
    raked = fitted.rake({"age": {(None, 12): 0.5, (12, None): 0.5}}, n_rows=8000)
    with pytest.warns(UserWarning, match=r"of 500 rows are repeated: the totals weigh some rows up to"):
        X = raked.sample(500)
    assert (X.age < 12).mean() == pytest.approx(0.5, abs=0.003)


def test_systematic_rows_are_drawn_in_proportion():
    rng, weight = np.random.default_rng(0), np.array([0.5, 0.0, 1.5, 2.0, 1.0])
    counts = np.zeros(5)
    for _ in range(2000):
        chosen = systematic_rows([np.array([0, 0, 1, 1, 1])], weight, 2, rng)
        assert len(set(chosen.tolist())) == 2
        counts[chosen] += 1
    assert_allclose(counts / 2000, 2 * weight / weight.sum(), atol=0.04)


def test_cells_of_any_table():
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
    expected = {"b": ["x", None], "a": [1, 2]}
    array = np.array([[1, "x"], [2, None]], dtype=object)
    assert cells_of(array, ["a", "b"], ["b", "a"]) == expected
    assert cells_of(frame, ["a", "b"], ["a"]) == {"a": [1, 2]}
    assert cells_of([[1, "x"], [2, None]], ["a", "b"], ["b", "a"]) == expected
    polars = pytest.importorskip("polars")
    assert cells_of(polars.DataFrame({"a": [1, 2], "b": ["x", None]}), ["a", "b"], ["b", "a"]) == expected


REFUSED = {
    "no dict": ([1], "expected a dict from each column"),
    "an unknown column": ({"income": {"a": 1}}, "totals names the column 'income', but expected one of"),
    "no levels": ({"sex": 0.5}, r"Got totals\['sex'\]=0.5, but expected a dict"),
    "a level never seen": (
        {"sex": {"f": 0.5, "x": 0.5}},
        r"'x', which fit has not seen: expected some of \['f', 'm'\]",
    ),
    "a number never seen": ({"children": {0: 0.5, 9: 0.5}}, "names the level 9, which fit has not seen"),
    "a negative total": ({"sex": {"f": -1.0, "m": 2.0}}, r"totals\['sex'\] has -1.0, but expected finite numbers"),
    "an infinite total": ({"sex": {"f": np.inf, "m": 2.0}}, "has inf, but expected finite numbers"),
    "a total of text": ({"sex": {"f": "1", "m": 2.0}}, "has '1', but expected finite numbers"),
    "nothing but zeros": ({"sex": {"f": 0, "m": 0}}, "are all 0, but expected one above 0"),
    "two populations": (
        {"sex": {"f": 500, "m": 500}, "region": {"east": 700, "north": 700, "west": 700}},
        "of column 'sex' add up to 1000, but those of column 'region' to 2100: give counts of the same population",
    ),
    "ranges that overlap": ({"age": {(None, 40): 0.5, (30, None): 0.5}}, "has groups that overlap"),
    "no row": (
        {"age": {(None, -500): 0.5, (-500, None): 0.5}},
        r"gives \(None, -500\) the share 0.5, but none of 2000",
    ),
    "one level of two": ({("sex", "region"): {"f": 1.0}}, "expected one level for each of the columns"),
    "a contradiction": (
        {"sex": {"f": 0.9, "m": 0.1}, ("sex", "region"): {("m", "east"): 0.5}},
        "No weights of the drawn rows have all totals",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_totals_that_are_refused(fitted, name):
    totals, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        fitted.rake(totals, n_rows=2000)


def test_levels_that_counts_leave_out_are_told(fitted):
    with pytest.warns(
        UserWarning, match=r"totals\['region'\] leaves out cells that .* get the weight 0. Name all levels"
    ):
        fitted.rake({"region": {"east": 500, "north": 500}}, n_rows=2000)


def days(n=300):
    rng = np.random.default_rng(0)
    start = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 365, n), unit="D")
    return pd.DataFrame({"start": start, "took": pd.to_timedelta(rng.integers(1, 60, n), unit="D")})


@pytest.fixture(scope="module")
def of_days():
    return TableSynthesizer(max_iter=20, flow=FLOW, random_state=0).fit(days())


JULY = [pd.Timestamp(2024, 7, 1), np.datetime64("2024-07-01"), datetime.datetime(2024, 7, 1), datetime.date(2024, 7, 1)]


@pytest.mark.parametrize("end", JULY, ids=lambda end: type(end).__name__)
def test_ranges_of_dates(of_days, end):
    drawn = of_days.rake({"start": {(None, end): 0.8}}).sample(1000)
    assert (drawn["start"] < JULY[0]).mean() == pytest.approx(0.8, abs=0.005)


def test_ranges_of_time_differences(of_days):
    drawn = of_days.rake({"took": {(pd.Timedelta(days=30), None): 0.7}}).sample(1000)
    assert (drawn["took"] >= pd.Timedelta(days=30)).mean() == pytest.approx(0.7, abs=0.005)


@pytest.mark.parametrize("level", [(50, 30), (50, 60, 70), ("a", "b"), (30, JULY[0])])
def test_what_is_no_range_is_refused(of_days, level):
    with pytest.raises(ValueError, match=r"expected a range \(low, high\) of two numbers or two dates"):
        of_days.rake({"start": {level: 0.5}})


def test_shares_with_a_large_sum_are_no_counts(fitted):
    with pytest.raises(ValueError, match=r"adds up to 1\.5: expected shares with a sum of at most 1, or counts"):
        fitted.rake({"sex": {"f": 0.9, "m": 0.6}})
    asked = fitted.rake({"sex": {"f": 0.501, "m": 0.5}}).report_["shares"][0]["asked"]
    assert asked == pytest.approx(0.501 / 1.001)


def test_totals_far_from_the_model_are_warned_of(fitted):
    with pytest.warns(UserWarning, match="drawn rows are worth .* of equal weight"):
        fitted.rake({"age": {(70.0, None): 0.9}})


def test_an_unfitted_table_has_no_margins():
    with pytest.raises(NotFittedError):
        TableSynthesizer().rake({"sex": {"f": 1.0}})


def test_a_missing_date_may_be_any_object_beside_a_relation():
    """A column of nothing but None has no dates to read, and is one of missing dates all the same."""
    frame = days().assign(end=lambda f: f["start"] + f["took"]).drop(columns="took")
    fitted = TableSynthesizer(max_iter=20, flow=FLOW, random_state=0).fit(frame)
    assert fitted.constraints_
    for missing in (None, pd.NaT, np.nan):
        drawn = fitted.sample(2, given={"start": missing}, random_state=0)
        assert (drawn["start"] <= drawn["end"]).all()
        one = pd.DataFrame([{"start": missing, "end": JULY[0]}])
        filled = fitted.impute(one, random_state=0)
        assert filled["start"][0] <= filled["end"][0] == JULY[0]
        both = fitted.impute(pd.DataFrame([{"start": missing, "end": missing}]), random_state=0)
        assert both["start"][0] <= both["end"][0]


def test_totals_may_be_series(fitted):
    census = pd.DataFrame({"sex": ["f", "f", "f", "m"], "region": ["east", "north", None, "west"]})
    shares = {column: census[column].value_counts(normalize=True, dropna=False) for column in census}
    by_hand = {"sex": {"f": 0.75, "m": 0.25}, "region": {"east": 0.25, "north": 0.25, "west": 0.25, None: 0.25}}
    for totals in (shares, {column: 4 * total for column, total in shares.items()}):
        raked = fitted.rake(totals, n_rows=2000)
        assert_allclose(raked.weights(rows(50)), fitted.rake(by_hand, n_rows=2000).weights(rows(50)), rtol=1e-4)
    joint = rows()[["sex", "children"]].value_counts(normalize=True)
    assert len(fitted.rake({("sex", "children"): joint}, n_rows=2000).report_.shares) == 8
    with pytest.raises(ValueError, match=r"totals\['sex'\] has the levels \['f'\] more than once: pass counts"):
        fitted.rake({"sex": pd.Series([0.5, 0.2, 0.3], index=["f", "f", "m"])})
    with pytest.raises(ValueError, match=r"totals\['sex'\] has 'f', but expected finite numbers"):
        fitted.rake({"sex": census["sex"]})


def test_what_is_shown_is_one_line(fitted):
    raked = fitted.rake(TOTALS, n_rows=2000)
    told = repr(raked)
    assert told.startswith("RakedSynthesizer(TableSynthesizer(") and len(told) < 200 and "\n" not in told
    assert "totals of 'sex', 'region', 'age'; effective share 0." in told
    assert raked._repr_mimebundle_() == {"text/plain": told}


def test_given_cells_are_kept_and_the_others_have_the_weights(fitted):
    raked = fitted.rake({"sex": {"f": 0.5, "m": 0.5}, "region": {"east": 0.1, "north": 0.8, "west": 0.1}}, n_rows=4000)
    X = raked.sample(1500, given={"sex": "m"})
    model = fitted.sample(6000, given={"sex": "m"})
    weight = raked.weights(model)
    assert (X.sex == "m").all()
    assert X.index.tolist() == list(range(1500))
    assert (X.region == "north").mean() == pytest.approx(weight[model.region == "north"].sum() / weight.sum(), abs=0.03)
    assert X.age.mean() == pytest.approx(np.average(model.age, weights=weight), abs=1.5)


def test_each_row_of_given_has_its_own_draw(fitted):
    raked = fitted.rake({"sex": {"f": 0.9, "m": 0.1}}, n_rows=2000)
    given = pd.DataFrame({"age": [20.0, 60.0] * 30}, index=[f"row {k}" for k in range(60)])
    X = raked.sample(given=given)
    assert X.index.tolist() == given.index.tolist()
    assert_array_equal(X.age, given.age)
    assert (X.sex == "f").mean() > 0.75
    one = raked.sample(given=given.iloc[0])
    assert one.age.tolist() == [20.0]
    assert raked.sample(given=given[:1]).index.tolist() == ["row 0"]
    assert_array_equal(raked.sample(given=given, random_state=3).sex, raked.sample(given=given, random_state=3).sex)


def test_given_cells_that_cannot_be(fitted):
    raked = fitted.rake({"sex": {"f": 1.0, "m": 0.0}}, n_rows=2000)
    with pytest.raises(ValueError, match=r"all candidates of the rows \[1\] of given the weight 0"):
        raked.sample(given={"sex": ["f", "m"]})
    with pytest.raises(ValueError, match="Got n_samples=5, but given has 2 rows"):
        raked.sample(5, given={"sex": ["f", "f"]})
    with pytest.raises(ValueError, match="unknown"):
        raked.sample(given={"nobody": 1})
    with pytest.raises(ValueError, match="given is empty"):
        raked.sample(given=rows(2)[:0])
    pd.testing.assert_frame_equal(raked.sample(2, given={}), raked.sample(2))
    row = np.array([["f", 40.0, None, None]], dtype=object)
    with pytest.warns(UserWarning, match="given does not have valid feature names"):
        assert raked.sample(given=row).age.tolist() == [40.0]
