"""The codec of tables: nothing is lost, whatever the columns hold."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from oracles import column_kinds
from sklearn_si._utils.frames import Table
from sklearn_si.tables import TableCodec
from sklearn_si.tables._ties import _by_chance


def exact(name):
    """Whether every cell comes back: rounding ends where a float64 with its derivative does."""
    return name not in ("float64", "zeros")


def assert_same_table(made, frame):
    """Names, order, dtypes and cells are equal; continuous numbers that lie on no grid to rounding."""
    assert list(made.columns) == list(frame.columns)
    assert (made.dtypes == frame.dtypes).all()
    for name in frame:
        expected = frame[name].reset_index(drop=True)
        pd.testing.assert_series_equal(made[name], expected, check_exact=exact(name), rtol=1e-9)
        if frame[name].dtype == object:
            for a, b in zip(made[name], expected, strict=True):
                assert type(a) is type(b)


NAMES = sorted(column_kinds(np.random.default_rng(0), 6))


@pytest.mark.parametrize("n", [2, 40, 500])
@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_column_comes_back(name, n):
    frame = pd.DataFrame({name: column_kinds(np.random.default_rng(n), n)[name]})
    codec = TableCodec(random_state=0).fit(frame)
    Z = codec.transform(frame)
    assert Z.shape == (n, len(codec.get_feature_names_out()))
    assert np.isfinite(Z).all()
    assert_same_table(codec.inverse_transform(Z), frame)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**31), n=st.integers(2, 500), names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=30)
)
def test_generated_frames_come_back(seed, n, names):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({f"{k} {name}": column_kinds(rng, n)[name] for k, name in enumerate(names)})
    frame.index = rng.permutation(n)
    codec = TableCodec(random_state=0).fit(frame)
    made = codec.inverse_transform(codec.transform(frame))
    assert list(made.columns) == list(frame.columns)
    for name in frame:
        pair = frame[[name]].rename(columns={name: name.split(" ", 1)[1]})
        assert_same_table(made[[name]].rename(columns={name: name.split(" ", 1)[1]}), pair.reset_index(drop=True))


@pytest.mark.parametrize("dtype", ["float64", "float32", "int8", "uint16", "bool", "U3", "M8[D]", ">f8", ">i4"])
def test_arrays_come_back(dtype):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 50, size=(60, 3))
    X = (X % 2 if dtype == "bool" else X).astype(dtype)
    codec = TableCodec(random_state=0).fit(X)
    made = codec.inverse_transform(codec.transform(X))
    np.testing.assert_array_equal(made, X)
    assert made.dtype == X.dtype.newbyteorder("=")


def test_arrays_of_objects_come_back():
    X = np.array([[1, "a", 2.5], [None, "b", np.nan], [3, None, 0.5], [2, "a", 1.0]], dtype=object)
    codec = TableCodec(random_state=0).fit(X)
    made = codec.inverse_transform(codec.transform(X))
    for a, b in zip(made.ravel(), X.ravel(), strict=True):
        assert type(a) is type(b)
        assert a == b or (a != a and b != b)


def test_frames_of_other_libraries_come_back():

    rng = np.random.default_rng(0)
    dates = [datetime.date(2020, 1, 1) + datetime.timedelta(days=int(k)) for k in rng.integers(900, size=50)]
    frame = pl.DataFrame({
        "n": rng.integers(10**6, size=50), "x": [None, *rng.normal(size=49).tolist()],
        "k": [None, *rng.choice(["a", "b"], size=49).tolist()], "f": rng.uniform(size=50) < 0.5, "d": dates,
    })  # fmt: skip
    codec = TableCodec(random_state=0).fit(frame)
    made = codec.inverse_transform(codec.transform(frame))
    assert made.schema == frame.schema
    for name in ("n", "k", "f", "d"):
        assert made[name].to_list() == frame[name].to_list()
    np.testing.assert_allclose(made["x"].to_numpy(), frame["x"].to_numpy(), rtol=1e-9)


def test_columns_are_found_by_name_whatever_their_order():
    frame = pd.DataFrame({"a": [1, 2, 3, 1], "b": ["x", "y", "x", "y"]})
    codec = TableCodec(random_state=0).fit(frame)
    np.testing.assert_array_equal(codec.transform(frame[["b", "a"]]), codec.transform(frame))


@pytest.mark.parametrize("n_levels, expected", [(2, "discrete"), (50, "discrete"), (51, "continuous")])
def test_numbers_of_few_values_are_levels(n_levels, expected):
    x = np.arange(500) % n_levels
    assert TableCodec().fit(x[:, None]).columns_[0].kind == expected


def test_kinds_can_be_said():
    frame = pd.DataFrame({"a": np.arange(100) % 3, "b": np.random.default_rng(0).normal(size=100).round(1)})
    codec = TableCodec({"a": "categorical", "b": "discrete"}).fit(frame)
    assert [c.kind for c in codec.columns_] == ["categorical", "discrete"]
    assert TableCodec({"a": "continuous"}).fit(frame).columns_[0].kind == "continuous"


def test_spikes_and_gaps_are_codes_of_a_continuous_column():
    rng = np.random.default_rng(0)
    x = rng.normal(size=1000)
    x[:300], x[300:400] = 0.0, np.nan
    column = TableCodec().fit(x[:, None]).columns_[0]
    assert (column.kind, column.levels.tolist(), len(column.gap_kinds)) == ("continuous", [0.0], 1)
    np.testing.assert_allclose(column.shares, [0.6, 0.3, 0.1])


def test_codes_and_values_are_standard_normal():
    rng = np.random.default_rng(0)
    k, x = rng.choice(3, size=4000, p=[0.7, 0.2, 0.1]), rng.exponential(size=4000)
    Z = TableCodec(random_state=0).fit_transform(np.column_stack([k, x]))
    for z in Z.T:
        assert stats.kstest(z, "norm").pvalue > 1e-3


def test_jacobian_is_the_derivative():
    x = np.random.default_rng(0).gamma(2.0, size=(300, 2))
    codec, h = TableCodec(dequantize=False).fit(x), 1e-6
    slopes = (codec.transform(x + h) - codec.transform(x - h)) / (2 * h)
    np.testing.assert_allclose(codec.log_abs_det_jacobian(x), np.log(slopes).sum(1), rtol=1e-4, atol=1e-4)


def test_dequantised_numbers_fill_their_cells():
    # one cell is one wide: the density of the dequantised distribution at a whole number is the mass of that number
    x = np.random.default_rng(0).poisson(300.0, size=(5000, 1)).astype(float)
    codec = TableCodec({0: "continuous"}, random_state=0).fit(x)
    rows = np.arange(280.0, 320.0)[:, None]
    z = TableCodec({0: "continuous"}, dequantize=False).fit(x).transform(rows)
    log_density = stats.norm.logpdf(z).sum(1) + codec.log_abs_det_jacobian(rows)
    np.testing.assert_allclose(log_density, stats.poisson.logpmf(rows[:, 0], 300.0), atol=0.15)


def test_what_is_drawn_keeps_to_the_range_and_the_grid():
    x = np.round(np.random.default_rng(0).beta(0.5, 0.5, size=(400, 1)), 2)
    codec = TableCodec({0: "continuous"}, random_state=0).fit(x)
    n = len(codec.get_feature_names_out())
    made = codec.inverse_transform(10 * np.random.default_rng(1).normal(size=(500, n)))
    assert x.min() <= made.min() and made.max() <= x.max()
    np.testing.assert_array_equal(made, np.round(made, 2))


def test_rare_levels_share_a_code_and_come_back_in_proportion():
    levels = np.array(["a"] * 500 + ["b"] * 400 + ["c"] * 75 + ["d"] * 25, dtype=object)[:, None]
    codec = TableCodec(min_frequency=0.1, random_state=0).fit(levels)
    assert codec.n_codes_ == [3]
    made = codec.inverse_transform(codec.transform(np.repeat(levels, 20, axis=0)))[:, 0]
    assert set(made) == {"a", "b", "c", "d"}
    assert abs((made == "c").mean() - 0.075) < 0.01
    np.testing.assert_array_equal(made[np.repeat(levels[:, 0], 20) == "a"], "a")


def test_unseen_levels_are_refused_or_not_known():
    X = np.array([["a"], ["b"], ["a"]], dtype=object)
    new = np.array([["z"], ["b"]], dtype=object)
    with pytest.raises(ValueError, match=r"Column 0 of X holds \['z'\], which fit has not seen; it saw \['"):
        TableCodec().fit(X).transform(new)
    codes, _ = TableCodec(unseen="unknown").fit(X).encode(new)
    assert codes[:, 0].tolist() == [-1, 1]
    # a gap where fit saw none is not known either
    codes, _ = TableCodec().fit(X).encode(np.array([[None], ["a"]], dtype=object))
    assert codes[:, 0].tolist() == [-1, 0]


def test_a_seed_gives_the_same_matrix_and_none_another():
    x = np.random.default_rng(0).integers(4, size=(50, 2))
    seeded = TableCodec(random_state=3).fit(x)
    np.testing.assert_array_equal(seeded.transform(x), seeded.transform(x))
    assert (TableCodec().fit(x).transform(x) != seeded.transform(x)).any()
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    seeded.transform(x)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize(
    "X, kwargs, message",
    [
        (np.zeros(3), {}, "X has 1 dimensions, but a table has 2"),
        (np.zeros((0, 2)), {}, r"Found array with 0 sample\(s\)"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), {}, r"several columns of the names \['a'\]"),
        (np.zeros((3, 1)), {"kinds": {"q": "discrete"}}, r"kinds names \['q'\]"),
        (np.zeros((3, 1)), {"kinds": {0: "text"}}, r"Got kinds\[0\]='text', but expected one of categorical"),
        (
            np.array([["a"], ["b"]]),
            {"kinds": {0: "continuous"}},
            "Column 0 was given as .continuous., but it holds",
        ),
        (np.array([[1j]]), {}, "Complex data not supported: X has dtype complex128"),
    ],
)
def test_tables_that_are_none_are_refused(X, kwargs, message):
    with pytest.raises(ValueError, match=message):
        TableCodec(**kwargs).fit(X)


def test_other_columns_than_those_of_fit_are_refused():
    frame = pd.DataFrame({"a": np.arange(100), "b": np.arange(100) / 7})
    codec = TableCodec().fit(frame)
    with pytest.raises(ValueError, match=r"missing \['b'\], unknown \['c'\]"):
        codec.transform(frame.rename(columns={"b": "c"}))
    with pytest.raises(ValueError, match="X has 3 features, but TableCodec is expecting 2 features"):
        codec.transform(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="Column 'a' of X holds 'x', but in fit it held numbers"):
        codec.transform(frame.assign(a="x"))
    with pytest.raises(ValueError, match=r"Column 'a' of X holds 0\.5, but fit saw whole numbers"):
        codec.transform(frame.assign(a=0.5))
    with pytest.raises(ValueError, match="Z has 1 columns, but transform gives 2"):
        codec.inverse_transform(np.zeros((4, 1)))


def test_whole_numbers_that_floats_do_not_tell_apart_are_compared_with_floats():
    whole = 2**60 + np.arange(120) * 7
    frame = pd.DataFrame({"whole": whole, "real": whole.astype(float)})
    assert len(TableCodec(random_state=0)._fit(frame, binned=True).columns_) == 2
    real, n_real = np.unique(whole.astype(float), return_counts=True)
    readings = Table.of(frame).readings(frame)
    assert len(real) < 120
    assert _by_chance(*readings) == pytest.approx((n_real**2).sum() / 120)


def test_numbers_next_to_the_extremes_come_back():
    """The outermost draws are the extremes of fit, but a number that is coded is no draw."""
    x = np.append(np.random.default_rng(0).standard_cauchy(size=398), [-1e3, -1e4]).round(4)
    codec = TableCodec(random_state=0).fit(pd.DataFrame({"x": x}))
    assert codec.columns_[0].end_share > 0
    held = pd.DataFrame({"x": np.append(x, [-9.5e3, -2e3])})
    np.testing.assert_allclose(codec.inverse_transform(codec.transform(held))["x"], held["x"], rtol=1e-6)


def test_most_drawn_tables_have_the_extremes_of_a_column():
    """A value far from all others would be missing from nearly all of them, and the range of the column with it."""
    n, rng = 8000, np.random.default_rng(0)
    x = np.append(rng.exponential(size=n - 2), [-9.0, 40.0])
    codec = TableCodec()
    codec._fit(pd.DataFrame({"x": x}), binned=True)
    column = codec.columns_[0]
    tables = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        codes = rng.choice(column.n_codes, size=n, p=column.shares)
        tables.append(column.decode(codes, rng.standard_normal(n), rng, with_ends=True)[0])
    drawn = np.array(tables)
    for end, reached in ((-9.0, drawn.min(1)), (40.0, drawn.max(1))):
        assert (reached == end).mean() > 0.8
        assert 1 < (drawn == end).sum(1).mean() < 4


@pytest.mark.parametrize("most", [24, 400], ids=["levels", "a grid"])
def test_most_drawn_tables_have_the_extremes_of_repeated_numbers(most):
    n, rng = 8000, np.random.default_rng(0)
    x = np.append(rng.integers(0, most // 2, n - 2), [-3, most])
    codec = TableCodec()
    codec._fit(pd.DataFrame({"x": x}), binned=True)
    column, reached = codec.columns_[0], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        codes = rng.choice(column.n_codes, size=n, p=column.shares)
        drawn = column.decode(codes, rng.standard_normal(n), rng)[0]
        reached.append([drawn.min() == -3, drawn.max() == most])
    assert (np.mean(reached, axis=0) > 0.8).all()
