"""Tests of two samples: p-values under the null hypothesis, power, closed forms, columns of any kind."""

import numpy as np
import pandas as pd
import pytest

from sklearn_si.metrics import energy_distance, two_sample_test

STATISTICS = ["c2st", "energy", "mmd"]


def normal(n, seed, d=2):
    return np.random.default_rng(seed).normal(size=(n, d))


def mixed(n, seed, shares=(0.5, 0.3, 0.2)):
    rng = np.random.default_rng(seed)
    number = rng.normal(size=n)
    number[rng.uniform(size=n) < 0.1] = np.nan
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 99, size=n), unit="D")
    return pd.DataFrame({"x": number, "k": rng.choice(list("abc"), p=shares, size=n), "day": days})


@pytest.mark.parametrize(("statistic", "n_repeats"), [("energy", 400), ("mmd", 400)])
def test_p_values_are_uniform_if_the_distributions_are_equal(statistic, n_repeats):
    found = [
        two_sample_test(
            normal(15, 2 * k), normal(25, 2 * k + 1), statistic=statistic, n_permutations=39, random_state=k
        ).pvalue
        for k in range(n_repeats)
    ]
    # P(p <= u) = u at multiples of 1/40; four standard errors
    for level in (0.1, 0.5):
        assert abs(np.mean(np.array(found) <= level) - level) < 4 * np.sqrt(level * (1 - level) / n_repeats)


def test_the_null_distribution_of_the_classifier_is_that_of_mann_whitney():
    # four parts of 10 and 5 rows: the variance of 2 U / (n m) - 1 is (n + m + 1) / (3 n m)
    result = two_sample_test(normal(60, 0), normal(30, 1), n_permutations=4000)
    assert np.isclose(result.null.mean(), 0.0, atol=0.02)
    assert np.isclose(result.null.var(), 16 / (3 * 50) / 4, rtol=0.1)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_different_distributions_have_the_smallest_p_value(statistic):
    result = two_sample_test(normal(150, 0), normal(120, 1) + 1.0, statistic=statistic, n_permutations=99)
    assert result.pvalue == 0.01
    assert result.statistic > result.null.max()


def test_energy_is_the_energy_distance_of_rows_in_pooled_units():
    X, Y = normal(40, 0), normal(30, 1) * 2
    scale = np.vstack([X, Y]).std(axis=0)
    expected = energy_distance(X / scale, Y / scale, standardize=False)
    assert np.isclose(two_sample_test(X, Y, statistic="energy", n_permutations=1).statistic, expected)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_columns_of_any_kind(statistic):
    X, Y = mixed(200, 0), mixed(200, 1)
    assert two_sample_test(X, Y, statistic=statistic, n_permutations=99).pvalue > 0.05
    other = mixed(200, 1, shares=(0.1, 0.2, 0.7))
    assert two_sample_test(X, other, statistic=statistic, n_permutations=99).pvalue <= 0.02


@pytest.mark.parametrize("statistic", STATISTICS)
def test_categories_of_one_table_alone_and_shares_of_missing_values_are_seen(statistic):
    X = pd.DataFrame({"k": ["a", "b"] * 60})
    for other in (["a", "new"] * 60, ["a", None] * 60):
        assert two_sample_test(X, pd.DataFrame({"k": other}), statistic=statistic, n_permutations=99).pvalue == 0.01


@pytest.mark.parametrize("statistic", STATISTICS)
def test_columns_are_found_by_name(statistic):
    X, Y = mixed(60, 0), mixed(60, 1)
    given = {"statistic": statistic, "n_permutations": 19}
    assert two_sample_test(X, Y, **given).pvalue == two_sample_test(X, Y[["day", "k", "x"]], **given).pvalue


@pytest.mark.parametrize("statistic", STATISTICS)
def test_infinite_huge_constant_and_empty_columns_do_no_harm(statistic):
    X, Y = normal(40, 0, d=5), normal(40, 1, d=5)
    for rows in (X, Y):
        rows[0, 0], rows[1, 0], rows[2, 1], rows[:, 2], rows[:, 3] = np.inf, -np.inf, 1.7e308, 3.0, np.nan
    X[3, 1] = -1.7e308
    result = two_sample_test(X, Y, statistic=statistic, n_permutations=19)
    assert np.isfinite(result.statistic)
    assert np.isfinite(result.null).all()


def test_equal_rows_are_no_evidence():
    rows = np.ones((30, 2))
    for statistic in ("energy", "mmd"):
        assert two_sample_test(rows, rows, statistic=statistic, n_permutations=19).pvalue == 1.0


@pytest.mark.parametrize("statistic", STATISTICS)
def test_the_seed_decides_and_the_global_state_is_left_alone(statistic):
    X, Y = normal(60, 0), normal(60, 1)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (two_sample_test(X, Y, statistic=statistic, n_permutations=19, random_state=3) for _ in range(2))
    assert first.statistic == second.statistic
    np.testing.assert_array_equal(first.null, second.null)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize(
    ("X", "Y", "given", "message"),
    [
        (normal(9, 0), normal(9, 1), {"statistic": "ks"}, "Got statistic='ks', but expected one of"),
        (normal(9, 0), normal(9, 1), {"n_permutations": 0}, "Got n_permutations=0, but expected an integer"),
        (normal(9, 0), normal(9, 1, d=3), {}, "Y has 3 features, but X is expecting 2"),
        (normal(9, 0), normal(5, 1), {}, "Y has 5 rows, but statistic='c2st' needs at least 6"),
        (normal(1, 0), normal(5, 1), {"statistic": "mmd"}, "X has 1 rows, but statistic='mmd' needs at least 2"),
        (pd.DataFrame({"k": [1, 2] * 5}), pd.DataFrame({"k": ["a", "b"] * 5}), {}, "Column 'k' holds numbers in X"),
    ],
)
def test_what_cannot_be_compared_is_refused(X, Y, given, message):
    with pytest.raises(ValueError, match=message):
        two_sample_test(X, Y, **given)
