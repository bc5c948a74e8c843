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


def test_weights_make_the_distributions_equal():
    """Rows of N(0, 1) with the weights exp(x - 1/2) are those of N(1, 1), and no others."""
    X, Y = normal(1500, 0, 1), normal(300, 1, 1) + 1
    weight = np.exp(X[:, 0])
    weighted = two_sample_test(X, Y, statistic="energy", n_permutations=99, sample_weight=(weight, None))
    back = two_sample_test(Y, X, statistic="energy", n_permutations=99, sample_weight=(None, weight))
    assert min(weighted.pvalue, back.pvalue) > 0.05
    assert two_sample_test(X, Y, statistic="energy", n_permutations=99).pvalue == 0.01
    other = two_sample_test(X, Y, statistic="energy", n_permutations=99, sample_weight=(1 / weight, None))
    assert other.pvalue == 0.01


@pytest.mark.parametrize("statistic", ["energy", "mmd"])
def test_p_values_hold_their_level_with_weights_of_one_sample(statistic):
    """Permuted weights do not: those of one sample would stand beside rows of the other."""
    n, p = 200, []
    for k in range(n):
        rng = np.random.default_rng(k)
        X, Y = rng.uniform(size=(60, 1)), rng.beta(2, 1, size=(25, 1))
        given = {"n_permutations": 19, "random_state": k, "sample_weight": (X[:, 0], None)}
        p.append(two_sample_test(X, Y, statistic=statistic, **given).pvalue)
    for level in (0.1, 0.5):
        assert abs(np.mean(np.array(p) <= level) - level) < 4 * np.sqrt(level * (1 - level) / n)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_equal_weights_and_rows_of_weight_zero(statistic):
    X, Y = mixed(60, 0), mixed(50, 1)
    plain = two_sample_test(X[:40], Y, statistic=statistic, n_permutations=19)
    weight = (np.repeat([3.0, 0.0], [40, 20]), np.full(50, 0.2))
    weighted = two_sample_test(X, Y, statistic=statistic, n_permutations=19, sample_weight=weight)
    np.testing.assert_array_equal(weighted.null, plain.null)
    assert weighted.pvalue == plain.pvalue


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.ones(20), "Got sample_weight of class ndarray, but expected a tuple of two"),
        ((np.ones(19), None), r"sample_weight\[0\] has the shape \(19,\), but expected \(20,\)"),
        ((None, -np.ones(20)), r"sample_weight\[1\] is -1 at row 0 of Y"),
        ((np.r_[1.0, np.full(19, 1e-12)], None), "The weights of X keep 1 of 20 rows, but at least 2 are needed"),
    ],
)
def test_weights_that_are_refused(weight, message):
    with pytest.raises(ValueError, match=message):
        two_sample_test(normal(20, 0), normal(20, 1), statistic="energy", sample_weight=weight)


def test_weights_that_leave_few_rows_are_told():
    weight = np.where(np.arange(200) < 3, 1.0, 1e-9)
    with pytest.warns(UserWarning, match="The weights of Y keep 3 of 200 rows"):
        two_sample_test(normal(50, 0), normal(200, 1), statistic="energy", sample_weight=(None, weight))
