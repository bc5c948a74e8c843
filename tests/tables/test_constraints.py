"""Relations between columns: found, kept in every drawn and completed row, and part of the density."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest

from sklearn_si import InterpolantFlow, load, save
from sklearn_si.tables import FixedCombinations, Inequality, InterpolantImputer, Sum, TableSynthesizer

SMALL = {"flow": InterpolantFlow(preprocessing="standardize", hidden_layer_sizes=(16, 16)), "max_iter": 120}


def contracts(n, seed):
    """Contracts that end after they start; a bill that is the sum of two parts; a region that a town determines."""
    rng = np.random.default_rng(seed)
    start = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 1500, n), unit="D")
    days = np.where(rng.uniform(size=n) < 0.1, 0, np.exp(3 + rng.normal(size=n)).round()).astype(int)
    town = rng.integers(6, size=n)
    base, extra = rng.gamma(3, 20, n).round(2), rng.gamma(2, 5, n).round(2)
    return pd.DataFrame({
        "start": start, "end": start + pd.to_timedelta(days, unit="D"), "town": np.array(list("abcdef"))[town],
        "base": base, "extra": extra, "bill": (base + extra).round(2),
        "region": np.array(["north", "south", "west"])[town // 2],
    })  # fmt: skip


def broken(frame):
    """The number of rows that break each relation."""
    region = frame.town.map(dict(zip("abcdef", np.repeat(["north", "south", "west"], 2), strict=True)))
    return (
        (frame.end < frame.start).sum(),
        ((frame.base + frame.extra - frame.bill).abs() > 0.005).sum(),
        (frame.region != region).sum(),
    )


@pytest.fixture(scope="module")
def fitted():
    return TableSynthesizer(**SMALL, random_state=0).fit(contracts(1200, 0))


def test_relations_are_found(fitted):
    found = {
        Inequality("start", "end"), Sum("bill", ("base", "extra")), FixedCombinations(("town", "region")),
    }  # fmt: skip
    assert set(fitted.constraints_) == found


def test_drawn_rows_keep_relations_ranges_and_dtypes(fitted):
    train, drawn = contracts(1200, 0), fitted.sample(4000, random_state=0)
    assert broken(drawn) == (0, 0, 0)
    assert (drawn.dtypes == train.dtypes).all()
    for column in ("start", "end", "base"):  # a sum may leave the range of the totals seen
        assert drawn[column].between(train[column].min(), train[column].max()).all()
    assert (drawn.bill * 100 - (drawn.bill * 100).round()).abs().max() < 1e-6


GIVEN = [("start",), ("end",), ("bill",), ("bill", "extra"), ("region",), ("town", "end", "bill"), ("start", "end")]


@pytest.mark.parametrize("columns", GIVEN)
def test_given_cells_stay_and_relations_are_kept(fitted, columns):
    other = contracts(150, 1)
    drawn = fitted.sample(given=other[list(columns)], random_state=0)
    pd.testing.assert_frame_equal(drawn[list(columns)], other[list(columns)])
    assert broken(drawn) == (0, 0, 0)


def test_gaps_are_filled_so_that_relations_are_kept(fitted):
    other = contracts(300, 2)
    holes = other.mask(np.random.default_rng(0).uniform(size=other.shape) < 0.3)
    filled = fitted.impute(holes, random_state=0)
    assert filled.notna().all(axis=None) and broken(filled) == (0, 0, 0)
    there = holes.notna().to_numpy()
    assert (filled.to_numpy()[there] == other.to_numpy()[there]).all()


def test_a_part_follows_the_known_sum(fitted):
    bills = pd.DataFrame({"bill": np.repeat([40.0, 130.0], 200)})
    drawn = fitted.sample(given=bills, random_state=0)
    assert drawn.base[:200].mean() + 40 < drawn.base[200:].mean()


def test_given_cells_that_break_a_relation_win_with_a_warning(fitted):
    wrong = pd.DataFrame({"start": pd.to_datetime(["2022-05-01"]), "end": pd.to_datetime(["2021-01-01"])})
    with pytest.warns(UserWarning, match=r"1 of 1 rows of given break Inequality\(low='start', high='end'") as caught:
        drawn = fitted.sample(given=wrong, random_state=0)
    assert len(caught) == 1
    pd.testing.assert_frame_equal(drawn[["start", "end"]], wrong)
    with pytest.raises(ValueError, match=r"Column 'region' of given holds \['east'\], which fit has not seen"):
        fitted.sample(given=pd.DataFrame({"region": ["east"]}))


def test_probabilities_of_a_column_that_others_determine(fitted):
    other = contracts(40, 3)
    p = fitted.predict_proba(other, target="region")
    levels = fitted.levels("region")
    assert levels.tolist() == ["north", "south", "west"]
    np.testing.assert_allclose(p[np.arange(40), np.searchsorted(levels, other.region)], 1.0)
    p = fitted.predict_proba(other.drop(columns="region"), target="town")
    np.testing.assert_allclose(p.sum(1), 1)
    with pytest.raises(ValueError, match="Column 'bill' is tied to others by Sum"):
        fitted.predict_proba(other, target="bill")


def test_a_row_that_breaks_a_relation_has_the_mass_of_one_unseen_row(fitted):
    rows = contracts(50, 4)
    wrong = rows.assign(bill=rows.bill + 5)
    fine = fitted.score_samples(rows)
    with pytest.warns(UserWarning, match=r"50 of 50 rows break Sum\(.*one unseen row, 0.00083\."):
        odd = fitted.score_samples(wrong)
    train = contracts(1200, 0)
    room = np.log(train.bill.max() - train.bill.min() + 0.01)
    np.testing.assert_allclose(odd - fine, -np.log(1202) - room - np.log1p(-1 / 1202))


def test_the_mass_of_a_table_with_relations_sums_to_one():
    rng = np.random.default_rng(0)
    low = rng.integers(4, size=800)
    frame = pd.DataFrame({"low": low, "high": low + rng.integers(3, size=800), "odd": np.where(low % 2, "x", "y")})
    frame["kind"] = np.array(list("pqrs"))[low]
    relations = [Inequality("low", "high"), FixedCombinations(("odd", "kind"))]
    model = TableSynthesizer(**SMALL, constraints=relations, random_state=0).fit(frame)
    everything = itertools.product(range(4), range(6), ["x", "y"], list("pqrs"))
    every = pd.DataFrame(list(everything), columns=list(frame))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keeps = (every.low <= every.high) & (every.high - every.low < 3)
        mass = np.exp(model.score_samples(every[keeps].reset_index(drop=True))).sum()
    assert abs(mass - 1) < 4 / 802


def test_the_density_of_a_table_with_an_inequality_integrates_to_one():
    rng = np.random.default_rng(0)
    low, group = rng.normal(size=600), rng.integers(2, size=600)
    frame = pd.DataFrame({"low": low, "high": low + rng.exponential(size=600) * (1 + group), "group": group})
    model = TableSynthesizer(**SMALL, constraints=[Inequality("low", "high")], random_state=0).fit(frame)
    a, gap = np.meshgrid(np.linspace(-5, 5, 31), 0.05 * (np.arange(300) + 0.5), indexing="ij")
    total = 0.0
    for g in (0, 1):
        grid = pd.DataFrame({"low": a.ravel(), "high": (a + gap).ravel(), "group": g})
        total += np.exp(model.score_samples(grid)).sum() * (10 / 30) * 0.05
    assert abs(total - 1) < 0.01


def test_strict_inequalities_are_strict():
    rng = np.random.default_rng(0)
    low = rng.integers(30, size=500)
    frame = pd.DataFrame({"low": low, "high": low + 1 + rng.poisson(1.0, size=500)})
    model = TableSynthesizer(**SMALL, constraints=[Inequality("low", "high", strict=True)], random_state=0).fit(frame)
    drawn = model.sample(2000, random_state=0)
    assert (drawn.high > drawn.low).all()


@pytest.mark.parametrize("dtypes", [("float64", "float64"), ("float32", "float32"), ("float64", "float32")])
def test_strict_inequalities_without_a_grid_are_strict(dtypes):
    """Where one number plus the least rest is that number itself, and where single precision rounds both to one."""
    rng = np.random.default_rng(0)
    low = rng.normal(size=500).astype(dtypes[0])
    high = (low + 1e-6 * rng.exponential(size=500) ** 6).astype(dtypes[1])
    frame = pd.DataFrame({"low": low, "high": high})[high > low].reset_index(drop=True)
    model = TableSynthesizer(**SMALL, constraints=[Inequality("low", "high", strict=True)], random_state=0).fit(frame)
    for given in (None, frame[["low"]], frame[["high"]]):
        drawn = model.sample(3000 if given is None else None, given=given, random_state=0)
        assert (drawn.high > drawn.low).all() and tuple(map(str, drawn.dtypes)) == dtypes


def test_relations_are_found_among_complete_rows():
    rng, frame = np.random.default_rng(0), contracts(800, 0)
    holes = pd.DataFrame(rng.uniform(size=frame.shape) < 0.15, columns=list(frame))
    train = frame.mask(holes)
    model = TableSynthesizer(**SMALL, random_state=0).fit(train)
    found = {
        Inequality("start", "end"), Sum("bill", ("base", "extra")), FixedCombinations(("town", "region")),
    }  # fmt: skip
    assert set(model.constraints_) == found
    drawn = model.sample(2000, random_state=0)
    assert broken(drawn[drawn.town.notna() & drawn.region.notna()]) == (0, 0, 0)
    assert np.abs(drawn.isna().mean() - train.isna().mean()).max() < 0.05
    filled = model.impute(train, random_state=0)
    assert filled.notna().all(axis=None) and broken(filled) == (0, 0, 0)


def test_relations_that_few_complete_rows_tell_of_are_not_found():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=300), "b": rng.normal(size=300) + 8, "c": rng.normal(size=300)})
    frame["d"] = frame.a + frame.c
    frame.loc[10:, "d"] = np.nan
    frame.loc[:280, "b"] = np.nan
    assert TableSynthesizer(max_iter=1, random_state=0).fit(frame).constraints_ == []


def test_columns_of_a_combination_are_filled_where_some_combinations_have_missing_values():
    """A combination with a missing value fits what is known of a row, and left the cell as it was."""
    frame = contracts(600, 0)[["town", "region", "base"]]
    frame.loc[np.random.default_rng(0).uniform(size=600) < 0.2, "region"] = None
    frame.loc[frame.town == "f", "region"] = None  # one that stands with missing values alone
    model = TableSynthesizer(max_iter=20, constraints=[FixedCombinations(("town", "region"))], random_state=0)
    filled = model.fit(frame).impute(frame, random_state=0)
    assert filled.notna().all(axis=None)
    known = filled[filled.town != "f"]
    assert broken(known.assign(start=0, end=0, extra=0, bill=known.base))[2] == 0


FRAME = contracts(200, 5)
WRONG = [
    ([("start", "end")], "Got \\('start', 'end'\\) among the constraints, but expected Inequality"),
    ([Inequality("start", "stop")], r"names \['stop'\], which are not among the columns"),
    ([Inequality("end", "start")], r"does not hold in \d+ of 200 rows of X \(the first is row \d+\)"),
    ([Inequality("start", "bill")], "columns of dates of one dtype, but column 'start' is of dtype"),
    ([Inequality("town", "region")], "needs columns of numbers, or columns of dates"),
    ([Sum("bill", ("base",)), Sum("bill", ("base", "extra"))], "determines a column that another constraint"),
    ([FixedCombinations(("town",))], "needs two columns or more, each named once"),
    ([Inequality("base", "bill"), Sum("base", ("bill", "extra"))], "go round in a circle"),
]


@pytest.mark.parametrize(("constraints", "match"), WRONG)
def test_constraints_that_make_no_sense(constraints, match):
    with pytest.raises(ValueError, match=match):
        TableSynthesizer(max_iter=1, constraints=constraints).fit(FRAME)


def test_nothing_is_found_among_independent_columns_and_none_asks_for_nothing():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(300, 4)), columns=list("abcd")).assign(k=rng.integers(4, size=300))
    assert TableSynthesizer(max_iter=1, random_state=0).fit(frame).constraints_ == []
    assert TableSynthesizer(max_iter=1, constraints=None, random_state=0).fit(FRAME).constraints_ == []


def test_a_saved_model_keeps_its_relations(fitted, tmp_path):
    save(fitted, tmp_path / "table.zip")
    again = load(tmp_path / "table.zip")
    assert again.constraints_ == fitted.constraints_
    pd.testing.assert_frame_equal(again.sample(20, random_state=3), fitted.sample(20, random_state=3))


def test_numbers_that_often_equal_those_of_another_column_are_equal_as_often():
    rng = np.random.default_rng(0)
    bill = rng.gamma(2, 500, size=1500).round(2)
    paid = np.where(rng.uniform(size=1500) < 0.3, bill, rng.gamma(1, 300, size=1500).round(2))
    frame = pd.DataFrame({"paid": paid, "bill": bill, "late": rng.uniform(size=1500) < 0.2})
    model = TableSynthesizer(**SMALL, random_state=0).fit(frame)
    drawn = model.sample(3000, random_state=0)
    share = (frame.paid == frame.bill).mean()
    assert abs((drawn.paid == drawn.bill).mean() - share) < 0.03
    given = model.sample(given=frame[["bill"]], random_state=0)
    assert abs((given.paid == given.bill).mean() - share) < 0.03
    np.testing.assert_array_equal(given.bill, frame.bill)
    # an equality has a mass, beside the density of the bill alone
    equal = frame.paid == frame.bill
    scores = model.score_samples(frame)
    assert np.isfinite(scores).all() and scores[equal].mean() > scores[~equal].mean() + 3


@pytest.mark.parametrize("unit", [1, 0.01])
def test_numbers_that_often_equal_finer_ones_of_another_column_keep_to_their_own_grid(unit):
    rng = np.random.default_rng(0)
    paid = rng.integers(2, 100, size=600) * 50
    bill = np.where(rng.uniform(size=600) < 0.4, paid, rng.integers(100, 5000, size=600))
    frame = (
        pd.DataFrame({"bill": bill, "paid": paid})
        if unit == 1
        else pd.DataFrame({"bill": bill / 100, "paid": paid / 100})
    )
    model = TableSynthesizer(max_iter=30, random_state=0).fit(frame)
    given = frame[["bill"]].iloc[:300]
    for drawn in (model.sample(600, random_state=0), model.sample(given=given, random_state=0)):
        places = drawn.paid / (50 * unit)
        np.testing.assert_allclose(places, np.rint(places), atol=1e-9)
    assert (model.sample(600, random_state=0).eval("bill == paid")).mean() > 0.25


def prices(n, seed):
    """A tax below a price and what was paid, a total of two parts of which one is below a limit, dates in a chain."""
    rng = np.random.default_rng(seed)
    price, length, depth = rng.integers(300, 9000, n), rng.normal(40, 5, n).round(1), rng.normal(17, 2, n).round(1)
    began = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, n), unit="D")
    ended = began + pd.to_timedelta(rng.gamma(1, 90, n).round(), unit="D")
    return pd.DataFrame({
        "tax": (price * rng.uniform(0.05, 0.15, n)).round(2), "price": price,
        "paid": (price * rng.uniform(0.5, 1, n)).round(2), "length": length, "depth": depth,
        "total": (length + depth).round(1), "limit": (length + rng.gamma(1, 3, n)).round(1), "began": began,
        "ended": ended, "archived": ended + pd.to_timedelta(rng.integers(0, 60, n), unit="D"),
    })  # fmt: skip


@pytest.fixture(scope="module")
def fitted_prices():
    pairs = [("tax", "price"), ("tax", "paid"), ("length", "limit"), ("began", "ended"), ("ended", "archived")]
    constraints = [Sum("total", ("length", "depth")), *(Inequality(*pair) for pair in pairs)]
    return TableSynthesizer(max_iter=5, constraints=constraints, random_state=0).fit(prices(400, 0))


@pytest.mark.parametrize(
    "hidden",
    [("tax",), ("length", "total"), ("length",), ("length", "depth"), ("ended",), ("began", "ended"), ("price", "tax"),
     ("began",), ("limit", "length")],
)  # fmt: skip
def test_relations_that_share_columns_are_kept_together(fitted_prices, hidden):
    """What one relation makes of a cell, another one does not undo."""
    rows = prices(200, 1).drop(columns=list(hidden))
    drawn = fitted_prices.sample(given=rows, random_state=0)
    pd.testing.assert_frame_equal(drawn[rows.columns], rows)
    assert (drawn.tax <= drawn.price).all() and (drawn.tax <= drawn.paid).all() and (drawn.length <= drawn.limit).all()
    assert ((drawn.length + drawn.depth - drawn.total).abs() < 1e-6).all()
    assert (drawn.began <= drawn.ended).all() and (drawn.ended <= drawn.archived).all()


def test_averaged_draws_keep_relations():
    """The mean of draws is rounded to the grid of each column, and what that changes is made good."""
    frame = prices(300, 0)[["length", "depth", "total", "limit"]]
    synthesizer = TableSynthesizer(
        max_iter=5, constraints=[Sum("total", ("length", "depth")), Inequality("length", "limit")]
    )
    holes = frame.copy()
    holes.loc[::2, ["length", "depth"]] = np.nan
    filled = InterpolantImputer(synthesizer, average=2, random_state=0).fit(frame).transform(holes)
    assert ((filled.length + filled.depth - filled.total).abs() < 1e-6).all()
    assert (filled.length <= filled.limit).all()
    pd.testing.assert_frame_equal(filled[["total", "limit"]], frame[["total", "limit"]])


def test_a_sum_of_a_part_with_missing_values_is_kept_wherever_all_have_a_value():
    rng = np.random.default_rng(0)
    a, b = rng.gamma(3, 20, 1000).round(2), rng.gamma(2, 5, 1000).round(2)
    frame = pd.DataFrame({"a": a, "b": b, "c": (a + b).round(2)})
    frame.loc[rng.random(1000) < 0.1, "b"] = np.nan
    table = TableSynthesizer(max_iter=60, random_state=1, constraints=[Sum("c", ("a", "b"))]).fit(frame)
    for given in (None, {"b": 10.0}, {"a": 150.0}):
        rows = table.sample(5000, given=given, random_state=0).dropna()
        assert (rows["a"] + rows["b"] - rows["c"]).abs().max() < 0.011


def payments(n, seed):
    """Payments of which three in ten are the bill, large ones more often; a fifth of the bills is missing."""
    rng = np.random.default_rng(seed)
    bill = rng.gamma(2, 500, size=n).round(2)
    paid = np.where(rng.uniform(size=n) < 0.3, bill, rng.gamma(1, 300, size=n).round(2))
    frame = pd.DataFrame({"paid": paid, "bill": bill})
    frame.loc[rng.uniform(size=n) < 0.2, "bill"] = np.nan
    return frame


@pytest.fixture(scope="module")
def fitted_payments():
    return TableSynthesizer(**SMALL, random_state=0).fit(payments(1500, 0))


def test_numbers_whose_source_is_missing_are_numbers_of_their_own(fitted_payments):
    """A number of an unknown source was the middle of its column."""
    train, model = payments(1500, 0), fitted_payments
    assert len(model.codec_.ties_) == 1
    drawn = model.sample(5000, random_state=0)
    alone = drawn.paid[drawn.bill.isna()]
    assert len(alone) > 500 and alone.value_counts().max() < 10
    assert abs((drawn.paid == drawn.bill).mean() - (train.paid == train.bill).mean()) < 0.03


def test_a_source_that_is_not_known_may_equal_a_number_that_is(fitted_payments):
    """Neither given nor imputed sources ever did."""
    train, model = payments(1500, 0), fitted_payments
    given = model.sample(given=train[["paid"]], random_state=0)
    imputed = model.impute(train[["paid"]].assign(bill=np.nan), random_state=0)
    real, large = train.paid == train.bill, train.paid > 500
    for drawn, share in ((given, real.mean()), (imputed, real[train.bill.notna()].mean())):
        np.testing.assert_array_equal(drawn.paid, train.paid)
        equal = drawn.paid == drawn.bill
        assert abs(equal.mean() - share) < 0.07
        assert equal[large].mean() > equal[~large].mean() + 0.15
