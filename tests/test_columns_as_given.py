"""Frames, conditions and odd columns are understood or refused by name, whatever library they come from."""

import datetime
import decimal
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.preprocessing import PowerTransformer

import sklearn_si
from sklearn_si import InterpolantDiffusion, InterpolantFlow, InterpolantRegressor, TransformedDensity
from sklearn_si.displays import DensityDisplay, SampleComparisonDisplay
from sklearn_si.metrics import c2st, energy_distance, marginal_distances, wasserstein_distance
from sklearn_si.preprocessing._conditions import ConditionCodec, columns_of, joined
from sklearn_si.tables import InterpolantImputer, TableCodec, TableReport, TableSynthesizer

RNG = np.random.default_rng(0)
N = 60
SMALL = {"max_iter": 3, "hidden_layer_sizes": (8,), "preprocessing": "standardize", "random_state": 0}


def columns(n=N, seed=0):
    """A column of every sort as python objects, some of which are None where they may be."""
    rng = np.random.default_rng(seed)
    start = datetime.datetime(2020, 1, 1, 1, 2, 3)
    words = rng.choice(["a", "b", "c"], size=n).tolist()
    return {
        "int": rng.integers(-5, 10**6, size=n).tolist(),
        "float": rng.normal(size=n).tolist(),
        "bool": (rng.uniform(size=n) < 0.5).tolist(),
        "word": words,
        "date": [start.date() + datetime.timedelta(days=int(k)) for k in rng.integers(900, size=n)],
        "datetime": [start + datetime.timedelta(microseconds=int(k)) for k in rng.integers(10**13, size=n)],
        "span": [datetime.timedelta(seconds=int(k)) for k in rng.integers(10**6, size=n)],
        "time": [datetime.time(int(k) // 60, int(k) % 60) for k in rng.integers(1440, size=n)],
        "decimal": [decimal.Decimal(int(k)) / 100 for k in rng.integers(10**5, size=n)],
    }


SORTS = sorted(columns(6))
PYARROW = {
    "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "word": pa.string(), "date": pa.date32(),
    "datetime": pa.timestamp("us"), "span": pa.duration("us"), "time": pa.time64("us"), "decimal": pa.decimal128(12, 2),
}  # fmt: skip
PANDAS = {
    "int": "Int64", "float": "Float64", "bool": "boolean", "word": "category", "datetime": "datetime64[us]",
    "span": "timedelta64[us]",
}  # fmt: skip
BACKENDS = {
    "objects": lambda cells, sorts: pd.DataFrame({name: pd.Series(c, dtype=object) for name, c in cells.items()}),
    "pandas": lambda cells, sorts: pd.DataFrame(
        {name: pd.Series(c, dtype=PANDAS.get(sorts[name], object)) for name, c in cells.items()}
    ),
    "arrow dtypes": lambda cells, sorts: pd.DataFrame(
        {name: pd.Series(pd.array(c, dtype=pd.ArrowDtype(PYARROW[sorts[name]]))) for name, c in cells.items()}
    ),
    "polars": lambda cells, sorts: pl.DataFrame(cells, strict=False),
    "pyarrow": lambda cells, sorts: pa.table(
        {name: pa.array(c, type=PYARROW[sorts[name]]) for name, c in cells.items()}
    ),
}


def frame_of(backend, sorts, missing=(), n=N, seed=0):
    """A frame of columns "0 int", "1 word", ... of some sorts; every fifth cell of those in `missing` is None."""
    cells = {}
    for place, sort in enumerate(sorts):
        values = columns(n, seed)[sort]
        cells[f"{place} {sort}"] = [None if place in missing and k % 5 == 0 else v for k, v in enumerate(values)]
    return BACKENDS[backend](cells, {name: name.split()[1] for name in cells})


def chosen(frame, names):
    """Some columns of a frame of any library."""
    return frame[names] if isinstance(frame, pd.DataFrame) else frame.select(names)


def names_of(frame):
    return frame.column_names if isinstance(frame, pa.Table) else list(frame.columns)


# ---------------------------------------------------------------------------------- any frames

frames = st.tuples(
    st.sampled_from(sorted(BACKENDS)),
    st.lists(st.sampled_from(SORTS), min_size=2, max_size=5),
    st.sets(st.integers(0, 4)),
)
ANY = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@ANY
@given(frames, st.sampled_from(sorted(BACKENDS)), st.randoms(use_true_random=False))
def test_conditions_of_any_frame_are_found_by_name(made, other, random):
    backend, sorts, missing = made
    frame, again = frame_of(backend, sorts, missing), frame_of(other, sorts, missing)
    codec = ConditionCodec(False).fit(frame)
    expected = codec.transform(frame, N)
    assert expected.shape == (N, codec.n_outputs_)
    assert np.isfinite(expected).all()
    kinds = ["category" if sort in ("bool", "word") else "number" for sort in sorts]
    assert codec.kinds_ == kinds
    names = names_of(frame)
    shuffled = random.sample(names, len(names))
    # another order, another library: the same numbers
    assert_array_equal(codec.transform(chosen(frame, shuffled), N), expected)
    assert_allclose(codec.transform(chosen(again, shuffled), N), expected, atol=1e-9)
    with pytest.raises(ValueError, match=r"condition must have the columns of fit: missing \['0 "):
        codec.transform(chosen(frame, names[1:]), N)


@ANY
@given(frames, st.randoms(use_true_random=False))
def test_tables_of_any_frame_come_back(made, random):
    backend, sorts, missing = made
    frame = frame_of(backend, sorts, missing)
    codec = TableCodec(random_state=0).fit(frame)
    made = codec.inverse_transform(codec.transform(frame))
    assert type(made) is type(frame)
    assert names_of(made) == names_of(frame)
    for name in names_of(frame):
        a, b = (list(f[name].to_pylist() if isinstance(f, pa.Table) else f[name]) for f in (made, frame))
        for x, y in zip(a, b, strict=True):
            if isinstance(y, float):
                assert x == pytest.approx(y, rel=1e-9, nan_ok=True)
            else:
                assert (pd.isna(x) and pd.isna(y)) or x == y
    extended = frame_of(backend, [*sorts, "word"], missing)
    with pytest.raises(ValueError, match=rf"unknown \['{len(sorts)} word'\]"):
        codec.transform(extended)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(frames, st.data())
def test_given_cells_of_any_frame_are_kept(made, data):
    backend, sorts, missing = made
    frame = frame_of(backend, sorts, missing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = TableSynthesizer(max_iter=1, flow=InterpolantFlow(**SMALL), random_state=0).fit(frame)
    name = data.draw(st.sampled_from(names_of(frame)))
    cells = chosen(frame, [name])
    drawn = table.sample(given=cells)
    assert names_of(drawn) == names_of(frame)
    a, b = (list(f[name].to_pylist() if isinstance(f, pa.Table) else f[name]) for f in (drawn, cells))
    assert all(x == y for x, y in zip(a, b, strict=True) if not pd.isna(y))
    other = cells.rename_columns(["other"]) if isinstance(cells, pa.Table) else None
    other = cells.rename({name: "other"}) if isinstance(cells, pl.DataFrame) else other
    other = cells.rename(columns={name: "other"}) if isinstance(cells, pd.DataFrame) else other
    with pytest.raises(ValueError, match=r"given must have the columns of fit: unknown \['other'\]"):
        table.sample(given=other)


# ---------------------------------------------------------------------------------- conditions

X = RNG.normal(size=(N, 2))
GIVEN = pd.DataFrame({"dose": RNG.uniform(size=N), "age": RNG.normal(50, 9, size=N)})


@pytest.fixture(scope="module")
def flow():
    return InterpolantFlow(**SMALL).fit(X, condition=GIVEN)


def test_conditions_of_estimators_are_found_by_name(flow):
    expected = flow.score_samples(X, condition=GIVEN)
    assert_array_equal(flow.score_samples(X, condition=GIVEN[["age", "dose"]]), expected)
    assert_array_equal(flow.score_samples(X, condition=pl.from_pandas(GIVEN[["age", "dose"]])), expected)
    one = {"age": 40.0, "dose": 0.5}
    assert_array_equal(flow.sample(3, condition=one), flow.sample(3, condition=pd.DataFrame([one])))
    for wrong, told in (
        (GIVEN.rename(columns={"dose": "mass"}), r"missing \['dose'\], unknown \['mass'\]; they are \['dose', 'age'\]"),
        (GIVEN.assign(mass=1.0), r"unknown \['mass'\]"),
        (GIVEN[["age"]], r"missing \['dose'\]"),
        (pd.concat([GIVEN, GIVEN[["age"]]], axis=1), r"several columns of the names \['age'\]"),
        ({"age": 40.0, "mass": 1.0}, r"unknown \['mass'\]"),
    ):
        with pytest.raises(ValueError, match=told):
            flow.score_samples(X, condition=wrong)


def test_names_on_one_side_only_are_told(flow):
    told = "condition does not have valid feature names, but the model was fitted with feature names"
    with pytest.warns(UserWarning, match=told):
        scores = flow.score_samples(X, condition=GIVEN.to_numpy())
    assert_array_equal(scores, flow.score_samples(X, condition=GIVEN))
    nameless = InterpolantFlow(**SMALL).fit(X, condition=GIVEN.to_numpy())
    with pytest.warns(UserWarning, match="condition has feature names, but the model was fitted without feature names"):
        nameless.score_samples(X, condition=GIVEN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nameless.score_samples(X, condition=GIVEN.to_numpy())
        InterpolantFlow(**SMALL).fit(X, condition=GIVEN["age"]).sample(3, condition=45.0)


DAYS = np.array(["2020-01-01", "2020-03-01", "2021-01-01", "2020-02-01"], dtype="M8[D]")


@pytest.mark.parametrize(
    "written",
    [
        np.array([1.5, 2, 4, 3]), np.array([1.5, 2, 4, 3], dtype=object), [1.5, 2, 4, 3], np.float32([1.5, 2, 4, 3]),
        [decimal.Decimal("1.50"), decimal.Decimal(2), decimal.Decimal(4), decimal.Decimal(3)],
        pd.Series([1.5, 2, 4, 3], dtype="Float64"), pd.Series([1.5, 2, 4, 3], dtype="double[pyarrow]"),
        pl.Series([1.5, 2, 4, 3]), pl.DataFrame({"": [1.5, 2, 4, 3]}), pd.arrays.SparseArray([1.5, 2, 4, 3]),
    ],
    ids=lambda written: type(written).__name__ + str(getattr(written, "dtype", "")),
)  # fmt: skip
def test_numbers_are_numbers_however_they_are_written(written):
    assert_allclose(ConditionCodec(False).fit(written).transform(written, 4)[:, 0].std(), 1)
    assert ConditionCodec(False).fit(written).kinds_ == ["number"]


@pytest.mark.parametrize("unit", ["D", "s", "ms", "us", "ns"])
def test_dates_are_quantities_in_any_unit(unit):
    codec = ConditionCodec(False).fit(DAYS)
    expected = codec.transform(DAYS, 4)
    for dates in (DAYS.astype(f"M8[{unit}]"), pd.Series(DAYS.astype("M8[s]")), [day.item() for day in DAYS]):
        assert_allclose(codec.transform(dates, 4), expected, atol=1e-12)
    # noon lies between two days
    noon = codec.transform([np.datetime64("2020-02-01T12")], 1)[0, 0]
    assert expected[3, 0] < noon < expected[1, 0]
    with pytest.raises(ValueError, match="Column 0 of condition holds numbers, but in fit it held dates: convert it"):
        codec.transform([18993.0], 1)


def test_missing_conditions_have_an_indicator_of_their_own():
    codec = ConditionCodec(False).fit(pd.DataFrame({"x": [1.0, np.nan, 3.0], "k": ["a", "b", None]}))
    assert_allclose(codec.transform(pd.DataFrame({"x": [np.nan], "k": [None]}), 1), [[0, 1, 0, 0, 1]], atol=1e-12)
    assert codec.n_outputs_ == 5
    whole = ConditionCodec(False).fit(GIVEN)
    with pytest.raises(ValueError, match="Column 'age' of condition holds missing values, and fit has seen none there"):
        whole.transform(GIVEN.assign(age=np.nan), N)


def test_levels_that_are_not_used_are_no_classes():
    grades = pd.Series(
        pd.Categorical(["low", "high", "low"], categories=["low", "middle", "high"], ordered=True), name="g"
    )
    codec = ConditionCodec(False).fit(grades)
    assert codec.n_outputs_ == 2
    with pytest.raises(ValueError, match=r"Column 'g' of condition holds \['middle'\], which fit has not seen"):
        codec.transform(pd.Series(["middle"], name="g"), 1)


@pytest.mark.parametrize("key", ["grade", 1])
def test_kinds_of_conditions_are_said_by_name_or_place(key):
    frame = GIVEN[["dose"]].assign(grade=np.arange(N) % 4)
    codec = ConditionCodec(False, {key: "categorical"}).fit(frame)
    assert codec.kinds_ == ["number", "category"]
    assert codec.n_outputs_ == 5
    flow = InterpolantFlow(condition_kinds={key: "categorical"}, **SMALL).fit(X, condition=frame)
    assert flow.condition_codec_.kinds_ == ["number", "category"]


@pytest.mark.parametrize(
    ("kinds", "told"),
    [
        ({"size": "categorical"}, r"condition_kinds names \['size'\], but expected names of columns"),
        ({2: "categorical"}, r"condition_kinds names \[2\]"),
        ({"age": "ordinal"}, r"Got condition_kinds\['age'\]='ordinal', but expected one of categorical, continuous"),
        ({"word": "continuous"}, "Column 'word' of condition is 'continuous' in condition_kinds, but it holds 'a'"),
    ],
)
def test_kinds_that_cannot_be(kinds, told):
    frame = GIVEN.assign(word="a") if "word" in kinds else GIVEN
    with pytest.raises(ValueError, match=told):
        InterpolantFlow(condition_kinds=kinds, **SMALL).fit(X, condition=frame)
    with pytest.raises(ValueError, match="but fit was given no condition"):
        InterpolantFlow(condition_kinds=kinds, **SMALL).fit(X)


@pytest.mark.parametrize("n_values", [2, 3, 20, 21])
@pytest.mark.parametrize("dtype", [np.int64, np.float64, object, "Int64"])
def test_codes_are_told_once_with_the_way_out(n_values, dtype):
    frame = pd.DataFrame({"grade": pd.Series(np.arange(200) % n_values, dtype=dtype)})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        codec = ConditionCodec(False).fit(frame)
        codec.transform(frame, 200)
        ConditionCodec(False, {"grade": "continuous"}).fit(frame)
    told = [str(w.message) for w in caught]
    assert len(told) == (n_values in (3, 20))
    if told:
        assert f"'grade' ({n_values} distinct values)" in told[0]
        assert "set condition_kinds={'grade': 'categorical'}" in told[0]


@pytest.mark.parametrize("far", [1e2, 1e6, 1e12, -1e12])
@pytest.mark.parametrize("heavy", [False, True])
def test_conditions_far_from_those_of_fit_saturate_and_are_named(far, heavy):
    values = np.random.default_rng(0).standard_t(1.2 if heavy else 30.0, size=500)
    frame = pd.DataFrame({"claw": values})
    codec = ConditionCodec(False).fit(frame)
    inside = codec.transform(frame, 500)
    assert np.abs(inside).max() < 15
    far = far * max(1.0, np.abs(values).max())
    with pytest.warns(UserWarning, match=r"values far outside those of fit: 'claw' \(.*; fit saw"):
        outside = codec.transform(pd.DataFrame({"claw": [far]}), 1)
    nearest = inside[np.argmax(values * np.sign(far))]
    assert np.abs(outside - nearest).max() <= 0.5 + 1e-12
    # the map rises on and on
    grid = np.linspace(values.min() - 0.3, values.max() + 0.3, 4001)
    assert (np.diff(codec.transform(pd.DataFrame({"claw": grid}), 4001), axis=0) >= 0).all()


def test_one_odd_condition_leaves_draws_and_densities_as_they_are():
    length = RNG.normal(size=400)
    frame = pd.DataFrame({"length": length, "claw": np.exp(0.2 * length + 0.1 * RNG.normal(size=400))})
    y = (length + 0.3 * RNG.normal(size=400))[:, None]
    model = InterpolantFlow(max_iter=150, random_state=0, preprocessing="standardize").fit(y, condition=frame)
    odd = frame[:1].assign(claw=40.0)
    with pytest.warns(UserWarning, match="'claw'"):
        rows = model.sample(200, condition=odd)
    width = np.ptp(y)
    assert ((rows > y.min() - width / 2) & (rows < y.max() + width / 2)).mean() > 0.95
    with pytest.warns(UserWarning, match="'claw'"):
        assert model.score_samples(y[:1], condition=odd)[0] > -100


def test_start_rows_are_states_and_are_found_by_name():
    frame = pd.DataFrame(X, columns=["a", "b"])
    params = {**SMALL, "n_steps": 4, "start": "condition"}
    model = InterpolantDiffusion(**params).fit(frame, frame + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        far = model.sample(2, condition=100 * frame[:1])
        assert_array_equal(far, model.sample(2, condition=100 * frame[["b", "a"]][:1]))
        assert_array_equal(far, model.sample(2, condition=100 * frame[["b", "a"]].iloc[0]))
    assert np.abs(far).max() > 5
    with pytest.raises(ValueError, match=r"condition must have the columns of fit: missing \['b'\], unknown \['c'\]"):
        model.sample(2, condition=frame.rename(columns={"b": "c"})[:1])


def test_parts_of_a_condition_are_one():
    frame = frame_of("pandas", SORTS, missing=range(len(SORTS)))
    parts = [columns_of(frame[:25]), columns_of(frame[25:])]
    together = ConditionCodec(False).fit_columns(joined(parts))
    assert_allclose(together.transform(frame, N), ConditionCodec(False).fit(frame).transform(frame, N))


def test_a_model_with_a_condition_of_every_sort_is_saved(tmp_path):
    frame = frame_of("polars", SORTS, missing=[0, 3])
    model = InterpolantFlow(condition_kinds={"0 bool": "categorical"}, **SMALL).fit(X, condition=frame)
    sklearn_si.save(model, tmp_path / "model.si")
    loaded = sklearn_si.load(tmp_path / "model.si")
    assert_array_equal(loaded.score_samples(X, condition=frame), model.score_samples(X, condition=frame))


# ---------------------------------------------------------------- samples, metrics and pictures


def test_second_samples_metrics_and_pictures_are_matched_by_name():
    frame = pd.DataFrame(X * [1.0, 5.0], columns=["a", "b"])
    other = pd.DataFrame(RNG.normal(size=(N, 2)) * [1.0, 5.0], columns=["a", "b"])
    turned = other[["b", "a"]]
    bridges = [InterpolantFlow(base_density=None, **SMALL).fit(frame, second) for second in (other, turned)]
    assert_array_equal(*(bridge.transform(frame) for bridge in bridges))
    for metric in (energy_distance, wasserstein_distance, c2st):
        assert metric(turned, frame) == metric(other, frame)
        with pytest.raises(ValueError, match=r"missing \['a'\], unknown \['z'\]"):
            metric(frame, other.rename(columns={"a": "z"})) if metric is c2st else metric(
                other.rename(columns={"a": "z"}), frame
            )
    assert marginal_distances(frame, turned) == marginal_distances(frame, other)
    shown = SampleComparisonDisplay(frame, turned)
    assert_array_equal(shown.generated, SampleComparisonDisplay(frame, other).generated)
    model = InterpolantFlow(**SMALL).fit(frame)
    shown = DensityDisplay.from_estimator(model, frame[["b", "a"]], resolution=4)
    assert_array_equal(shown.X, frame.to_numpy())
    assert_array_equal(model.trajectory(turned, 3), model.trajectory(other, 3))
    with pytest.raises(ValueError, match="feature names"):
        model.score_samples(turned)


# -------------------------------------------------------------------------------------- tables


def come_back(frame):
    codec = TableCodec(random_state=0).fit(frame)
    return codec, codec.inverse_transform(codec.transform(frame))


def test_sentinel_dates_are_spikes_with_their_share():
    days = np.datetime64("2021-03-04T05:06:07.123457", "us") + RNG.integers(0, 10**14, 500).astype("m8[us]")
    days[:150], days[150] = np.datetime64("9999-12-31"), np.datetime64("0001-01-01")
    frame = pd.DataFrame({"end": days})
    codec, made = come_back(frame)
    pd.testing.assert_frame_equal(made, frame)
    assert_allclose(codec.columns_[0].shares, [349 / 500, 1 / 500, 150 / 500])


@pytest.mark.parametrize(
    "cells, told",
    [
        (np.uint64(2**63) + np.arange(N, dtype=np.uint64), "which 64 bits with a sign do not hold"),
        (RNG.integers(-(2**62), 2**62, size=N), "too many steps for floats to tell apart"),
        ([2**70] * N, "which 64 bits with a sign do not hold"),
        ([decimal.Decimal("0.12345678901234567890123")] * N, "of more digits than a float has"),
        ([datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1, 5)] * (N // 2), "as objects of two classes"),
        ([datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)] * N, "times with a zone, as objects"),
        ([1j] * N, "complex numbers"),
        ([2**60 + 1, 0.5] * (N // 2), "beside floats"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(cells, told):
    cells = pd.Series(cells, dtype=object if isinstance(cells, list) else None)
    for reader in (TableCodec(), TableSynthesizer(max_iter=1)):
        with pytest.raises(ValueError, match=f"Column 'code' of X holds .*{told}"):
            reader.fit(pd.DataFrame({"code": cells}))


REFUSED = {
    "words": (["a", 1.0], "could not convert string"),
    "missing": ([None, 1.0], "contains NaN"),
    "infinite": ([np.inf, 1.0], "contains infinity"),
    "nothing": ([None, None], "contains NaN"),
    "dates": ([datetime.datetime(2020, 1, 1)] * 2, "has dates or time differences"),
    "spans": ([datetime.timedelta(1)] * 2, "has dates or time differences"),
}
FRAMES = {"pandas": pd.DataFrame, "polars": lambda d: pl.DataFrame(d, strict=False), "pyarrow": pa.table}


@pytest.mark.parametrize("library", FRAMES)
@pytest.mark.parametrize("what", REFUSED)
def test_a_column_that_is_no_number_is_named(what, library):
    """In fit, in scores and in metrics; an array has no names."""
    cells, told = REFUSED[what]
    cells = [str(cell) for cell in cells] if what == "words" and library != "pandas" else cells
    good = {"x": RNG.normal(size=N).tolist(), "odd": RNG.normal(size=N).tolist()}
    frame = FRAMES[library]({**good, "odd": cells * (N // 2)})
    flow, named = InterpolantFlow(**{**SMALL, "max_iter": 1}), rf"(?s){told}.*\['odd'\]"
    with pytest.raises(ValueError, match=named):
        flow.fit(frame)
    with pytest.raises(ValueError, match=named):
        flow.fit(FRAMES[library](good)).score_samples(frame)
    if not what.endswith("s"):
        with pytest.raises(ValueError, match=named):
            energy_distance(frame, FRAMES[library](good))


def test_columns_of_a_target_and_of_a_transformer_are_named():
    X = pd.DataFrame({"a": np.exp(RNG.normal(size=N)), "b": RNG.normal(size=N) ** 4})
    with pytest.raises(ValueError, match="Column 'b' of y holds one value"):
        InterpolantRegressor().fit(X, X.assign(b=1.0))
    with pytest.raises(ValueError, match=r"in columns \['b'\]"):
        TransformedDensity(PowerTransformer(), InterpolantFlow(**SMALL)).fit(X.assign(a=RNG.normal(size=N)))


def test_large_whole_numbers_come_back():
    frame = pd.DataFrame({"n": 2**60 + RNG.integers(10**9, size=N), "u": np.arange(N).astype("uint64"), "k": 2**62})
    frame.loc[::2, "k"] += 1
    pd.testing.assert_frame_equal(come_back(frame)[1], frame)


ODD = {
    "intervals": lambda n: pd.Series(pd.cut(RNG.normal(size=n), 5)),
    "periods": lambda n: pd.Series(pd.PeriodIndex(pd.to_datetime(RNG.integers(10**9, size=n), unit="s"), freq="Y")),
    "sparse": lambda n: pd.Series(pd.arrays.SparseArray(np.where(RNG.uniform(size=n) < 0.2, 1.5, 0.0))),
    "integer categories": lambda n: pd.Series(pd.Categorical(RNG.integers(3, size=n), categories=[2, 0, 1, 7])),
    "decimals": lambda n: pd.Series([decimal.Decimal(int(k)) / 100 for k in RNG.integers(10**4, size=n)], dtype=object),
    "dates": lambda n: pd.Series(columns(n)["date"], dtype=object),
    "nothing of pyarrow": lambda n: pd.Series([None] * n, dtype=pd.ArrowDtype(pa.null())),
    "arrow timestamps": lambda n: pd.Series(columns(n)["datetime"]).astype(pd.ArrowDtype(pa.timestamp("us", "UTC"))),
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_columns_are_learned_drawn_and_saved(odd, tmp_path):
    frame = pd.DataFrame({"odd": ODD[odd](80), "x": RNG.normal(size=80)})
    pd.testing.assert_frame_equal(come_back(frame)[1], frame)
    table = TableSynthesizer(max_iter=2, flow=InterpolantFlow(**SMALL), random_state=0).fit(frame)
    drawn = table.sample(30)
    assert (drawn.dtypes == frame.dtypes).all()
    sklearn_si.save(table, tmp_path / "table.si")
    pd.testing.assert_frame_equal(sklearn_si.load(tmp_path / "table.si").sample(30), drawn)
    assert table.codec_.columns_[0].ordered == (odd in ("intervals", "periods"))
    kept = table.sample(given=frame[["odd"]])
    assert ((kept["odd"] == frame["odd"]) | kept["odd"].isna() & frame["odd"].isna()).all()


@pytest.mark.parametrize(
    "names",
    [
        pd.Index([3, 1]), pd.RangeIndex(2), pd.Index(["a", "b"], name="what"),
        pd.MultiIndex.from_tuples([("u", 1), ("u", 2)], names=["s", None]),
    ],
)  # fmt: skip
def test_names_come_back_as_they_were(names, tmp_path):
    frame = pd.DataFrame({0: RNG.integers(3, size=N), 1: RNG.normal(size=N)}).set_axis(names, axis=1)
    table = TableSynthesizer({names[0]: "categorical"}, max_iter=1, flow=InterpolantFlow(**SMALL), random_state=0)
    drawn = table.fit(frame).sample(5, given={names[0]: 2})
    pd.testing.assert_index_equal(drawn.columns, frame.columns, exact="equiv")
    assert (drawn[names[0]] == 2).all()
    sklearn_si.save(table, tmp_path / "table.si")
    pd.testing.assert_frame_equal(sklearn_si.load(tmp_path / "table.si").sample(5, given={names[0]: 2}), drawn)


@pytest.mark.parametrize("average", [1, 4])
def test_imputers_fill_what_is_empty_and_keep_what_is_there(average):
    frame = pd.DataFrame({
        "k": RNG.choice([0.1, 0.5, 7.0], size=200), "x": RNG.normal(size=200).astype("float32"), "w": ["a", "b"] * 100,
        "d": pd.Series(columns(200)["date"], dtype=object), "n": np.arange(200, dtype="int8") % 40,
    })  # fmt: skip
    synthesizer = TableSynthesizer(max_iter=2, flow=InterpolantFlow(**SMALL))
    imputer = InterpolantImputer(synthesizer, average=average, random_state=0).fit(frame)
    holes = frame.assign(w=np.nan, d=pd.NaT, x=np.pi, n=1000)
    holes.loc[::3, "k"] = np.nan
    filled = imputer.transform(holes)
    assert filled.notna().all().all()
    assert set(filled["k"]) <= {0.1, 0.5, 7.0}
    assert set(filled["w"]) <= {"a", "b"}
    assert all(type(day) is datetime.date for day in filled["d"])
    # in single precision, and in one byte, these would be other numbers
    assert (filled["x"] == np.pi).all()
    assert (filled["n"] == 1000).all()
    assert_array_equal(filled["k"][holes["k"].notna()], holes["k"].dropna())


# of cells, tables and targets, each pair of values meets
REPORTS = [
    (cells, lost, "odd" if (k + (lost == "real")) % 2 else "k")
    for k, cells in enumerate([7.0, np.nan, None, np.inf, pd.NaT, "a"])
    for lost in ("real", "synthetic")
]


@pytest.mark.parametrize(("cells", "lost", "target"), REPORTS, ids=str)
def test_reports_bear_columns_that_are_constant_missing_or_infinite(cells, lost, target):
    tables = [pd.DataFrame({"x": RNG.normal(size=60), "k": ["a", "b", "c"] * 20}) for _ in range(3)]
    odd, other = pd.Series([cells] * 60), pd.Series([cells] * 30 + [None] * 30, dtype=object)
    tables = [t.assign(odd=odd if (k == 1) == (lost == "real") else other) for k, t in enumerate(tables)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        report = TableReport(*tables, target=target)
        numbers = [v for value, beside, _ in report.measures.values() for v in (value, beside) if v is not None]
        assert np.isfinite(numbers).all()
    assert len(str(report)) > 50
