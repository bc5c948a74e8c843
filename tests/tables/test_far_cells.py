"""Known cells far outside of those of fit: kept, announced by column, and bounded in what they tell."""

import warnings

import numpy as np
import pandas as pd
import pytest

from sklearn_si import InterpolantFlow
from sklearn_si.tables import Inequality, TableSynthesizer

SMALL = {"flow": InterpolantFlow(preprocessing="standardize", hidden_layer_sizes=(16, 16)), "max_iter": 60}


def rows(n, seed):
    rng = np.random.default_rng(seed)
    x, day = rng.normal(size=n), pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, n), unit="D")
    whole = rng.integers(1000, size=n)
    return pd.DataFrame({
        "x": x, "y": x + 0.3 * rng.normal(size=n), "k": rng.integers(5, size=n), "day": day, "low": whole,
        "high": whole + rng.integers(50, size=n),
    })  # fmt: skip


@pytest.fixture(scope="module")
def fitted():
    return TableSynthesizer(**SMALL, constraints=[Inequality("low", "high")], random_state=0).fit(rows(600, 0))


FAR = {
    "x": (1e6, r"'x' \(1e\+06; fit saw -\d"),
    "y": (-np.inf, r"'y' \(-inf; fit saw -\d"),
    "k": (99, r"'k' \(99; fit saw 0 to 4\)"),
    "day": (pd.Timestamp("2090-01-01"), r"'day' \(2090-01-01.*; fit saw 2020-01-01"),
    "high": (10**9, r"'high' \(1e\+09; fit saw "),
}


@pytest.mark.parametrize("name", FAR)
def test_far_cells_are_kept_and_announced_and_leave_the_others_alone(fitted, name):
    """They had led all other cells to the ends of their ranges."""
    value, told = FAR[name]
    given = rows(1, 1)[[name]].assign(**{name: [value]})
    with pytest.warns(UserWarning, match=f"Columns of given hold values far outside of those of fit: {told}"):
        drawn = fitted.sample(300, given=given, random_state=0)
    assert (drawn[name] == value).all()
    train = rows(600, 0)
    others = [c for c in train if c != name and {c, name} != {"x", "y"} and {c, name} != {"low", "high"}]
    for column in others:
        assert drawn[column].between(train[column].min(), train[column].max()).all()
        low, high = np.quantile(train[column].astype("int64" if column == "day" else float), [0.25, 0.75])
        numbers = drawn[column].astype("int64" if column == "day" else float)
        assert 0.25 < numbers.between(low, high).mean() < 0.85, column


def test_impute_says_it_of_x_and_numbers_within_reach_are_not_announced(fitted):
    frame = rows(50, 2)
    frame["y"] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted.impute(frame.assign(x=4.5), random_state=0)
    with pytest.warns(UserWarning, match=r"Columns of X hold values far outside of those of fit: 'x' \(4000;"):
        filled = fitted.impute(frame.assign(x=4000.0), random_state=0)
    assert (filled.x == 4000).all() and filled.y.max() <= rows(600, 0).y.max()


def test_cells_that_are_too_far_apart_for_their_relation_are_announced(fitted):
    told = r"The columns of Inequality\(low='low', high='high'.*\) in given hold values that are further apart .*\(900;"
    with pytest.warns(UserWarning, match=told):
        drawn = fitted.sample(3, given={"low": 50, "high": 950}, random_state=0)
    assert (drawn.low == 50).all() and (drawn.high == 950).all()


def test_values_of_their_own_are_not_far():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"a": np.where(rng.uniform(size=400) < 0.1, -999.0, rng.normal(size=400)), "b": rng.normal(size=400)}
    )
    model = TableSynthesizer(**SMALL, random_state=0).fit(frame)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (model.sample(5, given={"a": -999.0}, random_state=0).a == -999).all()
