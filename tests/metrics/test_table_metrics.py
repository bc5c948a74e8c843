"""Measures of tables against closed forms, and the report that puts them side by side."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.neighbors import KernelDensity

from sklearn_si.metrics import (
    c2st,
    closest_record,
    coverage,
    marginal_distances,
    maximum_mean_discrepancy,
    membership_auc,
    pair_trends,
    train_on_synthetic,
)
from sklearn_si.tables import Inequality, TableReport

mpl.use("Agg")


def normal(n, seed, shift=0.0, d=2):
    return np.random.default_rng(seed).normal(shift, size=(n, d))


def levels(masses, n, seed):
    return np.random.default_rng(seed).choice(list("abc"), p=masses, size=n)


def test_total_variation_of_levels_and_gaps():
    real = pd.DataFrame({"k": ["a"] * 5 + ["b"] * 3 + [None] * 2})
    made = pd.DataFrame({"k": ["a"] * 2 + ["b"] * 3 + ["c"] * 5})
    # |.5 - .2| + |.3 - .3| + |.2 - 0| + |0 - .5| = 1
    assert np.isclose(marginal_distances(real, made)["k"], 0.5)


def test_kolmogorov_smirnov_of_numbers_and_shares_of_gaps():
    x = normal(4000, 0, d=1)
    y = normal(4000, 1, 1.0, d=1)
    expected = 2 * stats.norm.cdf(0.5) - 1
    assert np.isclose(marginal_distances(x, y)[0], expected, atol=0.03)
    gapped = np.where(np.arange(4000)[:, None] % 2 == 0, np.nan, x)
    assert np.isclose(marginal_distances(x, gapped)[0], 0.5)
    assert marginal_distances(x, x)[0] == 0.0


def test_pair_trends_see_dependence_and_not_marginals():
    z = normal(20_000, 0)
    dependent = np.column_stack([z[:, 0], 0.6 * z[:, 0] + 0.8 * z[:, 1]])
    rank = 6 / np.pi * np.arcsin(0.3)  # of a normal pair with correlation .6
    assert np.isclose(pair_trends(dependent, z)[0, 1], rank / 2, atol=0.01)
    assert pair_trends(dependent, np.exp(dependent))[0, 1] < 1e-9


def test_pair_trends_of_numbers_with_levels():
    x = np.concatenate([np.linspace(0, 1, 500), np.linspace(2, 3, 500)])
    real = pd.DataFrame({"x": x, "k": ["a"] * 500 + ["b"] * 500})
    swapped = real.assign(k=real.k.to_numpy()[::-1])
    assert np.isclose(pair_trends(real, swapped)[0, 1], 1.0)
    assert pair_trends(real, real)[0, 1] == 0.0


def test_classifiers_tell_apart_what_differs_by_as_much_as_it_does():
    a, b, c = (pd.DataFrame({"x": normal(800, s, m, 1)[:, 0], "k": levels([0.5, 0.3, 0.2], 800, s)}) for s, m in
               ((0, 0.0), (1, 0.0), (2, 1.0)))  # fmt: skip
    assert c2st(a, b) > 0.9
    # the best classifier of N(0, 1) and N(1, 1) has the area Phi(1 / sqrt 2)
    assert abs(c2st(a, c) - (2 - 2 * stats.norm.cdf(2**-0.5))) < 0.12


def test_classifiers_see_dependence_alone():
    rng = np.random.default_rng(0)
    x = rng.normal(size=4000)
    dependent = pd.DataFrame({"x": x, "k": np.where(x > 0, "a", "b")})
    independent = dependent.assign(k=rng.permutation(dependent.k.to_numpy()))
    # half of the independent rows could be dependent ones: the best area is 3/4
    assert 0.45 < c2st(dependent, independent) < 0.65


def test_training_on_rows_without_dependence_predicts_nothing():
    x = normal(1500, 0)
    real = pd.DataFrame({"x": x[:, 0], "y": np.where(x[:, 0] + 0.5 * x[:, 1] > 0, "u", "v"), "z": x[:, 0] * 2})
    shuffled = real.assign(y=real.y.to_numpy()[np.random.default_rng(1).permutation(1500)])
    result = train_on_synthetic(shuffled[:1000], real[1000:], target="y", train=real[:1000])
    assert result.metric == "AUC"
    assert result.real > 0.85
    assert abs(result.synthetic - 0.5) < 0.12
    numbers = train_on_synthetic(real[:1000], real[1000:], target="z")
    assert numbers.metric == "R2"
    assert numbers.synthetic > 0.95
    assert np.isnan(numbers.real)


def test_coverage_is_the_share_that_is_reached():
    X = normal(600, 0)
    half = normal(600, 1)
    half[:, 0] = np.abs(half[:, 0])
    assert coverage(X, X) == 1.0
    assert 0.4 < coverage(X, half) < 0.7 < 0.95 < coverage(X, normal(600, 2))


def test_copies_are_nearer_to_training_rows():
    train, holdout = normal(500, 0), normal(500, 1)
    fresh = closest_record(train, normal(500, 2), holdout)
    assert abs(fresh.share - 0.5) < 0.08
    assert fresh.copies == fresh.holdout_copies == 0.0
    copied = closest_record(train, np.concatenate([train[:250], normal(250, 3)]), holdout)
    assert np.isclose(copied.copies, 0.5)
    assert copied.share > 0.7


def test_a_density_that_remembers_is_found_out():
    train, holdout = normal(200, 0), normal(200, 1)
    assert membership_auc(KernelDensity(bandwidth=0.02).fit(train), train, holdout) > 0.99
    assert abs(membership_auc(KernelDensity(bandwidth=2.0).fit(train), train, holdout) - 0.5) < 0.1


def test_from_rows_of_one_value_nothing_is_learned():
    rows = np.column_stack([np.arange(60.0), np.arange(60) % 2])
    constant = rows * [1.0, 0.0]
    assert train_on_synthetic(constant, rows, target=1, train=rows[::2]).synthetic == 0.5
    assert train_on_synthetic(rows, constant, target=1).synthetic == 0.5
    assert train_on_synthetic(rows * [0.0, 1.0], rows, target=0).synthetic == 0.0


def test_mmd_of_normal_distributions():
    # E k of N(0, s^2) and N(m, s^2) in d columns: (h^2 / (h^2 + 2 s^2))^(d/2) exp(-m^2 / (2 (h^2 + 2 s^2)))
    X, Y = normal(3000, 0), normal(3000, 1)
    X[:, 0] += 1.0
    expected = 2 * (1 / 3) * (1 - np.exp(-1 / 6))
    assert np.isclose(maximum_mean_discrepancy(X, Y, bandwidth=1.0), expected, atol=0.01)
    assert abs(maximum_mean_discrepancy(normal(3000, 3), Y)) < 2e-3


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: c2st(normal(3, 0), normal(3, 1)), "The shorter table has 3 rows, but 5 folds need at least 5"),
        (lambda: c2st(normal(9, 0), normal(9, 1, d=3)), "X has 3 features, but"),
        (lambda: coverage(normal(5, 0), normal(9, 1)), "n_neighbors=5 needs at least 6"),
        (lambda: train_on_synthetic(normal(9, 0), normal(9, 1), target=7), "Got target=7, but expected one of"),
        (lambda: maximum_mean_discrepancy(normal(9, 0), normal(9, 1, d=3)), "X has 2 columns and reference has 3"),
        (lambda: maximum_mean_discrepancy(normal(1, 0), normal(9, 1)), "Got 1 and 9 rows"),
        (lambda: c2st(pd.DataFrame({"a": [1.0] * 9}), pd.DataFrame({"b": [1.0] * 9})), r"missing \['a'\]"),
    ],
)
def test_tables_that_cannot_be_compared_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.fixture(scope="module")
def tables():
    def frame(n, seed, shift=0.0):
        rng = np.random.default_rng(seed)
        x = rng.normal(shift, size=n)
        k = np.where(rng.uniform(size=n) < 1 / (1 + np.exp(-3 * x)), "a", "b")
        return pd.DataFrame({"x": x, "k": k, "g": np.where(rng.uniform(size=n) < 0.2, np.nan, x**2)})

    return frame(400, 0), frame(400, 1, 0.5), frame(400, 2)


def test_a_report_holds_its_measures(tables):
    real, made, holdout = tables
    report = TableReport(real, made, holdout, target="k")
    assert np.isclose(report.measures["C2ST"][0], c2st(holdout, made))
    assert report.measures["C2ST"][1] > report.measures["C2ST"][0]
    assert report.measures["AUC of k"][1] > 0.85
    assert report.measures["copies"][0] == 0.0
    assert np.isclose(report.measures["marginals"][0], np.mean(list(marginal_distances(holdout, made).values())))
    frame = report.to_frame()
    assert frame.shape == (len(report.measures), 3)
    text = str(report)
    assert "C2ST" in text
    assert "none of them guarantees" in text
    assert max(report.marginals, key=report.marginals.get) in text.split("differ most: ")[1]


def test_a_report_without_held_out_rows_says_what_it_cannot_say(tables):
    report = TableReport(*tables[:2])
    assert "closest record" not in report.measures
    assert "nothing is said of copying" in str(report)


def test_a_page_of_pictures_has_one_for_each_column_and_one_for_the_pairs(tables):
    figure = TableReport(*tables).plot()
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert [title.split(" ")[0] for title in titles[:3]] == ["x", "k", "g"]
    assert titles[3] == "distance of pairs of columns"
    assert all(axis.get_ylabel() for axis in figure.axes[:4])


def test_a_report_says_what_gives_a_table_away():
    rng = np.random.default_rng(0)

    def table(n):
        low = rng.normal(size=n)
        return pd.DataFrame({
            "low": low, "high": low + rng.exponential(size=n), "zero": np.where(rng.uniform(size=n) < 0.3, 0.0, 1.0),
            "free": rng.normal(size=n),
        })  # fmt: skip

    real, made = table(1500), table(1500)
    made["high"] = rng.permutation(made.high)
    made.loc[:, "zero"] = np.where(rng.uniform(size=1500) < 0.1, 0.0, 1.0)
    made.loc[3, "free"] = 40.0
    report = TableReport(real, made, table(1500))
    found = report.giveaways
    assert set(list(found.columns)[:3]) == {"low", "high", "zero"} and found.columns["free"] < 0.03
    assert next(iter(found.pairs)) in {("low", "high"), ("high", "low")}
    name, value, share, drawn = found.values[0]
    assert (name, found.broken) == ("zero", {Inequality("low", "high"): int((made.low > made.high).sum())})
    assert value in (0.0, 1.0) and abs(share - drawn) > 0.15
    text = str(report)
    assert "rows break Inequality(low='low', high='high'" in text and "of zero: " in text
    assert all(made.low[row] > made.high[row] or row == 3 for row in list(found.rows)[:3])
