"""Cells that numpy would misread without a word, wherever they are read: masked, dates, complex numbers; and lists."""

import datetime

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_si import InterpolantClassifier, InterpolantFlow, InterpolantRegressor, MultimarginalFlow
from sklearn_si.metrics import crps_scorer, energy_distance, two_sample_test, wasserstein_distance
from sklearn_si.outliers import DensityOutlierDetector
from sklearn_si.resampling import DensityRatioWeights, TableResampler
from sklearn_si.tables import InterpolantImputer, TableSynthesizer

N = 60
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 2))
FRAME = pd.DataFrame(X, columns=["a", "b"])
V = 1.0 + RNG.random(N)
CLASSES = np.where(X[:, 1] > 0, "p", "n")
SMALL = {"max_iter": 3, "hidden_layer_sizes": (8,), "random_state": 0}
INSIDE = InterpolantFlow(max_iter=3, hidden_layer_sizes=(8,))
WORDS = [["u", 1.0], [None, 2.0]] * 9
LIST = [["u", 1, 2.5], ["v", 2, 0.5]] * 30

MASKED = "{} is a masked array with 1 masked cells"
DATED = "{} has dates or time differences"
COMPLEX = "Complex data not supported: {} has complex numbers"


def masked(values):
    hidden = np.zeros(np.shape(values), bool)
    hidden.flat[3] = True
    return np.ma.masked_array(values, hidden)


# Vectors in which numpy would see other numbers: (values, what the error says).
VECTORS = {
    "masked": (masked(V), MASKED),
    "dates": (np.arange(N).astype("M8[D]"), DATED),
    "series of dates": (pd.Series(pd.date_range("2020", periods=N)), DATED),
    "categories of dates": (pd.Series(pd.Categorical(pd.date_range("2020", periods=N))), DATED),
    "time differences": (np.arange(N).astype("m8[D]"), DATED),
    "objects": (np.array([datetime.timedelta(k) for k in range(N)]), DATED),
    "complex": (V + 1j, COMPLEX),
    "complex objects": ((V + 1j).astype(object), COMPLEX),
}


@pytest.fixture(scope="module")
def flow():
    """A flow fitted to a frame. Shared: tests must not change it."""
    return InterpolantFlow(**SMALL).fit(FRAME)


@pytest.fixture(scope="module")
def any_columns():
    """A flow that was trained under masks. Shared: tests must not change it."""
    return InterpolantFlow(conditionals="any", **SMALL).fit(FRAME)


@pytest.fixture(scope="module")
def regressor():
    """A regressor of the second column. Shared: tests must not change it."""
    return InterpolantRegressor(INSIDE, base="normal", random_state=0).fit(FRAME[["a"]], FRAME["b"])


@pytest.fixture(scope="module")
def classifier():
    """A classifier by the sign of the second column. Shared: tests must not change its fit."""
    return InterpolantClassifier(INSIDE, random_state=0).fit(FRAME, CLASSES)


# Where a vector is read: (name in the error, call).
READERS = {
    "weights of a flow": ("sample_weight", lambda v, *_: InterpolantFlow(**SMALL).fit(FRAME, sample_weight=v)),
    "weights of a detector": ("sample_weight", lambda v, *_: DensityOutlierDetector().fit(FRAME, sample_weight=v)),
    "weights of a score": ("sample_weight", lambda v, flow, _: flow.score(FRAME, sample_weight=v)),
    "weights of a table": ("sample_weight", lambda v, *_: TableSynthesizer().fit(FRAME, sample_weight=v)),
    "weights of a distance": ("sample_weight", lambda v, *_: energy_distance(X, X, sample_weight=v)),
    "weights of a scorer": ("sample_weight", lambda v, _, r: crps_scorer(r, FRAME[["a"]], V, sample_weight=v)),
    "target": ("y", lambda v, *_: InterpolantRegressor().fit(FRAME, v)),
    "target of predict_cdf": ("y", lambda v, _, regressor: regressor.predict_cdf(FRAME[["a"]], v)),
    "target of a scorer": ("y", lambda v, _, regressor: crps_scorer(regressor, FRAME[["a"]], v)),
    "rows of a flow": ("X", lambda v, *_: InterpolantFlow(**SMALL).fit(as_column(v))),
    "rows of a distance": ("X", lambda v, *_: energy_distance(as_column(v), X[:, :1])),
    "reference of a distance": ("reference", lambda v, *_: wasserstein_distance(X[:, :1], as_column(v))),
    "array of an imputer": ("X", lambda v, *_: InterpolantImputer().fit(as_column(np.ma.asarray(v)))),
}


def as_column(values):
    return values.to_frame() if isinstance(values, pd.Series) else values.reshape(-1, 1)


@pytest.mark.parametrize("kind", VECTORS)
@pytest.mark.parametrize("reader", READERS)
def test_numbers_are_not_misread(reader, kind, flow, regressor):
    (name, read), (values, message) = READERS[reader], VECTORS[kind]
    with pytest.raises(ValueError, match=message.format(name)):
        read(values, flow, regressor)


@pytest.mark.parametrize("estimator", [InterpolantClassifier(INSIDE), TableResampler()])
@pytest.mark.parametrize(
    ("y", "message"),
    [
        (masked(CLASSES), "y is a masked array with 1 masked cells"),
        (np.arange(N).astype("M8[D]"), r"y has labels of the types \['datetime64'\], but expected one type"),
        (pd.Series(pd.period_range("2020", periods=N)), r"y has labels of the types \['Period'\], but expected"),
        (["a", 1] * (N // 2), r"y has labels of the types \['int', 'str'\], but expected one type"),
        (np.array([True, 1] * (N // 2), dtype=object), r"y has labels of the types \['bool', 'int'\]"),
        (["a", None] * (N // 2), "y has 30 missing values: leave those rows out"),
        (np.where(X[:, 0] > 0, 1.0, np.nan), r"y has \d+ missing values: leave those rows out"),
        (pd.Series([1, None] * (N // 2), dtype="Int64"), "y has 30 missing values: leave those rows out"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_labels_are_not_misread(estimator, y, message):
    with pytest.raises(ValueError, match=message):
        estimator.fit(FRAME, y)


def test_groups_are_not_misread():
    with pytest.raises(ValueError, match="groups is a masked array with 1 masked cells"):
        MultimarginalFlow().fit(FRAME, groups=masked(np.arange(N) % 3))
    with pytest.raises(ValueError, match=r"groups holds \['int', 'str'\], but expected numbers"):
        MultimarginalFlow().fit(FRAME, groups=["a", 1] * (N // 2))


def test_masked_rows_in_a_list_and_masked_columns_in_a_dict_are_refused(any_columns):
    rows = list(masked(X))
    with pytest.raises(ValueError, match="X is a masked array with 1 masked cells"):
        InterpolantFlow(**SMALL).fit(rows)
    with pytest.raises(ValueError, match=r"given\['a'\] is a masked array with 1 masked cells"):
        any_columns.sample(given={"a": masked(V)})
    conditioned = InterpolantFlow(**SMALL).fit(X, condition=FRAME[["a"]])
    with pytest.raises(ValueError, match=r"condition\['a'\] is a masked array with 1 masked cells"):
        conditioned.sample(N, condition={"a": masked(V)})


GIVEN = {
    "masked": (np.ma.masked_array([[1.0, 7.0]], [[False, True]]), "given is a masked array with 1 masked cells"),
    "dates": (np.array([["2020-01-01", "NaT"]], dtype="M8[D]"), "Column 'a' of given holds dates, but expected"),
    "a date": ({0: np.datetime64("2020-01-01")}, "Column 0 of given holds dates, but expected numbers"),
    "a timestamp": ({"a": pd.Timestamp("2020")}, "Column 'a' of given holds dates, but expected numbers"),
    "a frame of dates": (pd.DataFrame({"b": [pd.Timestamp("2020")]}), "Column 'b' of given holds dates, but"),
    "complex": (np.array([[1.0, 2.0j]]), "Complex data not supported: given"),
    "a complex number": ({"b": 1.0 + 2.0j}, "Column 'b' of given holds complex numbers"),
    "a word": ({"a": "1"}, "Column 'a' of given holds '1', but expected numbers"),
    "words": (np.array([["1", "2"]]), "Column 'a' of given holds '1', but expected numbers"),
    "words beside numbers": ([[1.0, "2"]], "Column 'b' of given holds '2', but expected numbers"),
    "too few columns": ([[1.0]], "given has 1 columns, but expected the 2 of fit"),
}  # fmt: skip


@pytest.mark.parametrize("kind", GIVEN)
def test_given_cells_are_not_misread(any_columns, kind):
    given, message = GIVEN[kind]
    with pytest.raises(ValueError, match=message):
        any_columns.sample(given=given)


@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA, pd.NaT])
def test_whatever_means_missing_is_drawn(any_columns, nothing):
    drawn = any_columns.sample(given={"a": 1.0, "b": nothing}, random_state=0)
    assert_array_equal(np.asarray(drawn), np.asarray(any_columns.sample(given={"a": 1.0}, random_state=0)))


def test_given_keeps_single_precision():
    single = InterpolantFlow(conditionals="any", **SMALL).fit(X.astype(np.float32))
    assert single.sample(given=np.array([[1.0, np.nan]], dtype=np.float32)).dtype == np.float32
    assert single.sample(given=[[1.0, np.nan]]).dtype == np.float64
    assert single.sample(given={0: True, 1: None})[0, 0] == 1.0


# ---------------------------------------------------------------------------------------- numbers by label


@pytest.mark.parametrize("by_label", [pd.Series({"p": 0.9, "n": 0.1}), {"p": 0.9, "n": 0.1}])
def test_priors_are_read_by_label(classifier, by_label):
    expected = classifier.set_params(priors=[0.1, 0.9]).predict_proba(FRAME)
    assert_array_equal(classifier.set_params(priors=by_label).predict_proba(FRAME), expected)
    classifier.set_params(priors=None)


@pytest.mark.parametrize(
    ("priors", "message"),
    [
        (pd.Series([0.9, 0.1]), r"Got priors=\{0: 0.9, 1: 0.1\} by label, but expected each of \['n', 'p'\] once"),
        ({"p": 1.0}, r"Got priors=\{'p': 1.0\} by label, but expected each of \['n', 'p'\] once"),
        (pd.Series([0.5, 0.3, 0.2], index=["p", "p", "n"]), "Got priors=.* by label, but expected each of"),
        ({"p": 0.9, "n": 0.9}, "but expected 2 shares that sum to 1, .* or a dict of them by class"),
        (masked(np.full(4, 0.25)), "priors is a masked array"),
    ],
)
def test_priors_that_fit_no_labels_are_refused(classifier, priors, message):
    with pytest.raises(ValueError, match=message):
        classifier.set_params(priors=priors).predict_proba(FRAME)
    classifier.set_params(priors=None)


def test_weights_of_a_barycenter_are_read_by_label():
    samples = [X, X + 5.0, X + 9.0]
    model = MultimarginalFlow(max_iter=3, hidden_layer_sizes=(8,), random_state=0).fit(samples)
    expected = model.barycenter([0.0, 0.25, 0.75], 5, random_state=0)
    assert_array_equal(model.barycenter(pd.Series({2: 0.75, 1: 0.25}), 5, random_state=0), expected)
    with pytest.raises(ValueError, match="weights is a masked array with 1 masked cells"):
        model.barycenter(np.ma.masked_array([0.5, 0.5, 0.0], [False, False, True]))


# ---------------------------------------------------------------------- lists whose cells are of several kinds


def test_numbers_beside_words_in_a_list_stay_numbers():
    table = TableSynthesizer(max_iter=3, random_state=0)
    drawn, expected = table.fit(LIST).sample(3), table.fit(np.array(LIST, dtype=object)).sample(3)
    assert drawn.dtype == object
    assert_array_equal(drawn, expected)
    assert table.codec_.columns_[0].kind == "categorical"
    assert {type(cell) for cell in drawn[:, 2]} == {float}
    assert table.fit([["u", "w"], ["v", "w"]] * 20).sample(2).dtype.kind == "U"


def test_a_resampler_leaves_the_rows_of_a_list_as_they_are():
    rows, y = TableResampler(TableSynthesizer(max_iter=3), random_state=0).fit_resample(LIST, ["x", "y", "y"] * 20)
    assert rows[:60] == LIST
    assert len(y) == 80
    assert {type(row[1]) for row in rows} == {int}


@pytest.mark.filterwarnings("ignore:12 calibration rows are too few")
def test_a_detector_reads_tables_as_lists():
    detector = DensityOutlierDetector(TableSynthesizer(max_iter=3), random_state=0).fit(LIST)
    of_array = DensityOutlierDetector(TableSynthesizer(max_iter=3), random_state=0).fit(np.array(LIST, dtype=object))
    assert_allclose(detector.p_values(LIST[:4]), of_array.p_values(np.array(LIST[:4], dtype=object)))
    assert detector.n_features_in_ == 3
    with pytest.raises(ValueError, match="X has 1 dimensions, but a table has 2"):
        DensityOutlierDetector(TableSynthesizer()).fit(["u", "v", "u", "v"])


def test_other_readers_of_lists_see_numbers_beside_words():
    regressor = InterpolantRegressor(INSIDE, base="normal", random_state=0).fit(LIST, V)
    assert regressor.codec_.kinds_ == ["category", "number", "number"]
    assert two_sample_test(LIST, LIST, n_permutations=9, random_state=0).pvalue > 0.5
    mixed = [[datetime.date(2020, 1, 1 + k % 9), k] for k in range(40)]
    drawn = TableSynthesizer(max_iter=3, random_state=0).fit(mixed).sample(2)
    assert isinstance(drawn[0, 0], datetime.date)
    assert isinstance(drawn[0, 1], int)


# ------------------------------------------------------------------------------- errors that name what is wrong


def test_a_dict_of_rows_is_refused_by_name():
    rows = {"a": [1.0, 2.0, 3.0], "b": [3.0, 4.0, 6.0]}
    with pytest.raises(ValueError, match=r"X is a dict, not rows and columns: pass a frame, such as pandas\.DataFrame"):
        InterpolantFlow(**SMALL).fit(rows)
    with pytest.raises(ValueError, match="X is a dict, not rows and columns"):
        TableSynthesizer().fit(rows)
    with pytest.raises(ValueError, match="X is a dict, not rows and columns"):
        InterpolantRegressor().fit(rows, [1.0, 2.0, 3.0])


def test_what_cannot_be_read_at_all_is_named(any_columns, regressor):
    with pytest.raises(ValueError, match=r"y has text, but expected numbers: .* could not convert string to float"):
        InterpolantRegressor().fit(FRAME, np.full(N, "n"))
    with pytest.raises(ValueError, match=r"sample_weight cannot be read as rows and columns, or as a vector"):
        InterpolantFlow(**SMALL).fit(FRAME, sample_weight=[[1.0], [1.0, 2.0], *V[2:]])
    with pytest.raises(ValueError, match=r"given\['a'\] has 2 dimensions, but expected a column or one cell"):
        any_columns.sample(given={"a": [[1.0, 2.0]]})
    with pytest.raises(ValueError, match="Got y='b', but expected a label for each row"):
        TableResampler().fit(FRAME, "b")
    with pytest.raises(ValueError, match="quantiles is a masked array with 1 masked cells"):
        regressor.predict_quantiles(FRAME[["a"]], np.ma.masked_array([0.1, 0.9], [False, True]))
    with pytest.raises(TypeError, match=r"float\(\) argument must be .*\nThe columns at fault are \['b'\]"):
        InterpolantFlow(**SMALL).fit(FRAME.assign(b=pd.interval_range(0, N)))


@pytest.mark.parametrize("rows", [WORDS, np.array(WORDS, dtype=object)])
def test_an_imputer_says_that_words_need_a_frame(rows):
    with pytest.raises(ValueError, match=r"'u': in X, which is not a frame, all cells are numbers here\. Pass a frame"):
        InterpolantImputer().fit(rows)


def test_values_out_of_range_are_those_of_the_argument_that_holds_them():
    with pytest.raises(ValueError, match=r"Columns \[0\] of y have a range of"):
        InterpolantRegressor(INSIDE).fit(FRAME, 1e300 * X[:, 0])
    with pytest.raises(ValueError, match=r"Columns \['b'\] of X have a range of"):
        InterpolantClassifier(INSIDE).fit(FRAME.assign(b=1e300 * FRAME["b"]), CLASSES)


def test_masked_rows_of_a_source_are_named():
    with pytest.raises(ValueError, match="X_source is a masked array"):
        DensityRatioWeights().fit(masked(X), X)
    with pytest.raises(ValueError, match="X_target is a masked array"):
        DensityRatioWeights().fit(X, masked(X))


def test_a_single_target_is_refused_and_infinite_ones_have_a_probability(regressor):
    rows = FRAME[["a"]][:2]
    with pytest.raises(ValueError, match=r"Got y=0\.5, but expected a value for each row, .* numpy\.full"):
        regressor.predict_cdf(rows, 0.5)
    assert_array_equal(regressor.predict_cdf(rows, [np.inf, -np.inf]), [1.0, 0.0])
    with pytest.raises(ValueError, match="Input y contains NaN"):
        regressor.predict_cdf(rows, [np.nan, 1.0])
    with pytest.raises(ValueError, match="Input y contains infinity"):
        regressor.predict_log_density(rows, [np.inf, 1.0])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("params", [{"support": "positive"}, {"calibrate": True}, {"dequantize": [0]}])
def test_infinite_targets_of_other_regressors(params):
    y = np.rint(9 * V) if "dequantize" in params else V
    model = InterpolantRegressor(INSIDE, base="normal", random_state=0, **params).fit(FRAME[["a"]], y)
    assert_array_equal(model.predict_cdf(FRAME[["a"]][:2], [np.inf, -np.inf]), [1.0, 0.0])
    both = InterpolantRegressor(INSIDE, base="normal", random_state=0, **params).fit(
        FRAME[["a"]], np.c_[y, y + V[::-1]]
    )
    assert_array_equal(both.predict_cdf(FRAME[["a"]][:1], [[np.inf, -np.inf]]), [[1.0, 0.0]])


def test_a_scorer_of_distributions_says_that_a_classifier_has_none(classifier):
    with pytest.raises(ValueError, match="crps_scorer needs a regressor with predict_quantiles"):
        crps_scorer(classifier, FRAME, CLASSES)


# -------------------------------------------------------------------------------------------------- time zones

NAIVE = pd.DataFrame({"t": pd.date_range("2020-01-01", periods=N, freq="h")})
ZONED = NAIVE.assign(t=NAIVE["t"].dt.tz_localize("US/Pacific"))


def test_conditions_with_and_without_a_zone_are_told_apart():
    flow = InterpolantFlow(**SMALL).fit(X, condition=NAIVE)
    noon = pd.Timestamp("2020-01-02 12:00", tz="US/Pacific")
    with pytest.raises(ValueError, match="Column 't' of condition holds dates with the time zone US/Pacific, but"):
        flow.sample(1, condition={"t": noon})
    flow = InterpolantFlow(**SMALL).fit(X, condition=ZONED)
    with pytest.raises(ValueError, match="Column 't' of condition holds dates with no time zone, but those of"):
        flow.sample(1, condition={"t": noon.tz_localize(None)})
    utc = flow.sample(2, condition={"t": noon.tz_convert("UTC")}, random_state=0)
    assert_array_equal(utc, flow.sample(2, condition={"t": noon}, random_state=0))


def test_rows_with_and_without_a_zone_are_told_apart():
    model = InterpolantRegressor(INSIDE, base="normal", random_state=0).fit(NAIVE, V)
    with pytest.raises(ValueError, match="Column 't' of X holds dates with the time zone US/Pacific, but those of fit"):
        model.predict(ZONED)
    table = TableSynthesizer(max_iter=3, random_state=0).fit(ZONED.assign(b=V))
    with pytest.raises(ValueError, match="Column 't' of given holds dates with no time zone, but those of fit have"):
        table.sample(given={"t": pd.Timestamp("2020-01-02")})
    polars = pytest.importorskip("polars")
    with pytest.raises(ValueError, match="Column 't' of X holds dates with the time zone UTC, but those of fit"):
        model.predict(polars.DataFrame({"t": ZONED["t"].dt.tz_convert("UTC").tolist()}))
