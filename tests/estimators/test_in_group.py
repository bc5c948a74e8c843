"""Rows of several processes, put together; the groups themselves are in test_distributed.py."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from sklearn_si._estimators.in_group import joined_rows
from sklearn_si.distributed import Single

X = np.arange(12.0).reshape(6, 2)
FRAME = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "k": pd.Categorical(["u", "v", "w", "u"])})


def test_arrays_and_lists_follow_each_other():
    np.testing.assert_array_equal(joined_rows("X", [X[:2], X[2:]]), X)
    assert joined_rows("X", [X[:2].tolist(), X[2:].tolist()]) == X.tolist()
    assert joined_rows("y", [["a"], ["b", "a"]]) == ["a", "b", "a"]
    assert joined_rows("X1", [None, None]) is None
    assert joined_rows("groups", ["month", "month"]) == "month"
    masked = np.ma.array(X, mask=X > 3)
    assert isinstance(joined_rows("X", [masked, masked]), np.ma.MaskedArray)  # whose refusal must see the mask


def test_samples_of_a_list_stay_apart():
    first, second = joined_rows("X", [[X[:1], X[1:2]], [X[2:4], X[4:]]])
    np.testing.assert_array_equal(first, X[[0, 2, 3]])
    np.testing.assert_array_equal(second, X[[1, 4, 5]])
    weights = joined_rows("sample_weight", [(None, X[:2, 0]), (None, X[2:, 0])])
    assert weights[0] is None
    np.testing.assert_array_equal(weights[1], X[:, 0])


def test_frames_keep_names_dtypes_and_the_levels_of_all():
    parts = [FRAME[:2].assign(k=FRAME["k"][:2].cat.remove_unused_categories()), FRAME[2:]]
    joined = joined_rows("X", parts)
    assert joined.columns.tolist() == ["a", "k"]
    assert joined["k"].tolist() == ["u", "v", "w", "u"]
    assert set(joined["k"].cat.categories) == {"u", "v", "w"}
    assert joined_rows("y", [FRAME["a"][:1], FRAME["a"][1:]]).tolist() == FRAME["a"].tolist()
    polars = pl.DataFrame({"a": [1, 2, 3], "k": ["u", None, "w"]})
    assert joined_rows("X", [polars[:1], polars[1:]]).equals(polars)
    assert joined_rows("y", [polars["k"][:1], polars["k"][1:]]).equals(polars["k"])


def test_frames_of_unlike_columns_are_an_error():
    with pytest.raises(Exception, match="b"):
        joined_rows("X", [pl.DataFrame({"a": [1]}), pl.DataFrame({"b": [1]})])


def test_one_process_is_asked_nothing():
    group = Single()
    with group.deferring():
        assert not group.asked_to_stop()
    group.agree({"names": None})
    group.raise_kept()
    assert group.by_first(lambda: 3) == group.shared(lambda: 3) == 3
    assert group.gathered(3) == [3]
    assert group.guarded(len) is len
