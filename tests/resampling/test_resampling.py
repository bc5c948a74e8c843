"""Weights for covariate shift, and further rows of rare classes, in the forms in which rows are given."""

import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.exceptions import NotFittedError

from sklearn_si import InterpolantFlow, load, save
from sklearn_si.resampling import DensityRatioWeights, TableResampler
from sklearn_si.resampling._targets import Targets
from sklearn_si.tables import TableSynthesizer

RNG = np.random.default_rng(0)
SOURCE = RNG.normal(size=(800, 2))
TARGET = RNG.normal([0.7, 0.0], 1.0, size=(700, 2))


# --------------------------------------------------------------------------- weights


@pytest.fixture(scope="module")
def model():
    return DensityRatioWeights(max_iter=10, random_state=0).fit(SOURCE, TARGET)


def test_weighted_rows_of_the_source_stand_for_the_target(model):
    weight = model.weights(SOURCE)
    assert weight.mean() == pytest.approx(1.0)
    assert model.effective_size_ == pytest.approx(weight.sum() ** 2 / (weight**2).sum())
    np.testing.assert_allclose(np.average(SOURCE, axis=0, weights=weight), TARGET.mean(0), atol=0.1)
    true = np.exp(0.7 * SOURCE[:, 0] - 0.7**2 / 2)
    assert np.corrcoef(np.log(weight), np.log(true))[0, 1] > 0.97
    assert model.mean_ratio_ == pytest.approx(1.0, abs=0.1)
    error = model.log_ratio(SOURCE, return_error=True)[1]
    assert 0.01 < np.median(error) < 0.3


def test_large_ratios_are_clipped(model):
    clipped = DensityRatioWeights(max_weight=1.5, max_iter=10, random_state=0).fit(SOURCE, TARGET)
    ratio = np.exp(clipped.log_ratio(SOURCE))
    expected = np.minimum(ratio, 1.5)
    np.testing.assert_allclose(clipped.weights(SOURCE), expected / expected.mean())
    assert clipped.clipped_ == np.mean(ratio > 1.5) > 0.1
    assert clipped.effective_size_ > model.effective_size_
    free = DensityRatioWeights(max_weight=None, max_iter=10, random_state=0).fit(SOURCE, TARGET)
    np.testing.assert_allclose(free.weights(SOURCE), np.exp(free.log_ratio(SOURCE)) / free.mean_ratio_)


def test_categories_that_neither_population_had_are_told():
    rng = np.random.default_rng(0)
    source = pd.DataFrame({"x": rng.normal(size=120), "b": rng.choice(["u", "v"], 120)})
    target = pd.DataFrame({"x": rng.normal(size=120), "b": rng.choice(["u", "w"], 120)})
    model = DensityRatioWeights(max_iter=2, random_state=0).fit(source, target)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.weights(pd.DataFrame({"x": [0.0, 0.0, 0.0], "b": ["u", "v", "w"]}))
    rows = pd.DataFrame({"x": [np.nan, 0.0, 0.0], "b": ["u", "zzz", None]})
    told = r"'x' \(1 rows miss it\), 'b' \(1 rows miss it\), 'b' \(unknown categories \['zzz'\]\)"
    with pytest.warns(UserWarning, match=f"Columns of X hold what fit has not seen: {told}"):
        weight = model.weights(rows)
    assert np.isfinite(weight).all()


def test_tables_with_words_and_missing_values(tmp_path):
    def table(n, share, seed):
        rng = np.random.default_rng(seed)
        word = rng.choice(["a", "b"], n, p=[share, 1 - share])
        number = np.where(rng.uniform(size=n) < 0.2, np.nan, rng.normal(size=n))
        return pd.DataFrame({"word": word, "number": number})

    source, target = table(600, 0.8, 0), table(600, 0.4, 1)
    model = DensityRatioWeights(max_iter=10, random_state=0).fit(source, target[["number", "word"]])
    weight = model.weights(source)
    assert np.average(source["word"] == "a", weights=weight) == pytest.approx(0.4, abs=0.05)
    save(model, tmp_path / "weights.si")
    for other in (load(tmp_path / "weights.si"), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.weights(source), weight)


def test_errors_of_weights():
    with pytest.raises(NotFittedError):
        DensityRatioWeights().weights(SOURCE)
    with pytest.raises(ValueError, match="X_source has 9 rows and X_target 700, but a ratio of densities needs 10"):
        DensityRatioWeights(max_iter=1).fit(SOURCE[:9], TARGET)
    with pytest.raises(ValueError, match=r"hardly overlap.*no partners"):
        DensityRatioWeights(max_iter=1).fit(SOURCE, TARGET + 12)
    with pytest.raises(ValueError, match="missing \\['b'\\]"):
        frames = pd.DataFrame(SOURCE, columns=["a", "b"]), pd.DataFrame({"a": TARGET[:, 0]})
        DensityRatioWeights(max_iter=1).fit(*frames)


# --------------------------------------------------------------------------- resampler


X = RNG.normal(size=(120, 3)) + np.repeat([0.0, 4.0], [90, 30])[:, None]
Y = np.repeat([0, 1], [90, 30])
TINY = TableSynthesizer(
    flow=InterpolantFlow(preprocessing="standardize", hidden_layer_sizes=(8,)), max_iter=10, random_state=0
)


def resampler(**params):
    return TableResampler(TINY, **{"random_state": 0, **params})


def test_rare_classes_get_rows_of_their_own_distribution():
    synthesizer = TableSynthesizer(flow=InterpolantFlow(preprocessing="standardize", hidden_layer_sizes=(16,)),
                                   max_iter=150, random_state=0)  # fmt: skip
    model = TableResampler(synthesizer, random_state=0)
    rows, labels = model.fit_resample(X, Y)
    assert np.bincount(labels).tolist() == [90, 90]
    np.testing.assert_array_equal(rows[:120], X)
    np.testing.assert_array_equal(labels[:120], Y)
    np.testing.assert_allclose(rows[120:].mean(0), X[90:].mean(0), atol=1.0)
    assert model.sampling_strategy_ == {1: 60}
    assert model.n_features_in_ == 3


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("minority", {"c": 50}),
        ("not majority", {"b": 20, "c": 50}),
        ("not minority", {"a": 0, "b": 20}),
        ("all", {"a": 0, "b": 20, "c": 50}),
        ({"c": 15}, {"c": 5}),
        (lambda y: {"b": 41}, {"b": 1}),
    ],
    ids=["minority", "not majority", "not minority", "all", "a dict", "a function"],
)
def test_strategies(strategy, expected):
    y = np.repeat(["a", "b", "c"], [60, 40, 10])
    model = resampler(sampling_strategy=strategy).fit(X[:110], y)
    assert model.sampling_strategy_ == expected


def test_a_ratio_of_two_classes():
    assert resampler(sampling_strategy=0.5).fit(X, Y).sampling_strategy_ == {1: 15}
    with pytest.raises(ValueError, match=r"the ratio is 0.333 already"):
        resampler(sampling_strategy=0.2).fit(X, Y)
    with pytest.raises(ValueError, match="for 3 classes"):
        resampler(sampling_strategy=0.5).fit(X, np.arange(120) % 3)


def test_forms_of_rows_and_labels():
    frame = pd.DataFrame(X, columns=["a", "b", "class"]).assign(word=np.where(Y, "yes", "no"))
    rows, labels = resampler().fit_resample(frame, pd.Series(Y, name="y"))
    assert rows.dtypes.equals(frame.dtypes) and labels.name == "y" and labels.dtype == Y.dtype
    assert len(rows) == len(labels) == 180
    as_frame = resampler().fit_resample(frame, pd.DataFrame({"y": Y}))[1]
    assert as_frame["y"].tolist() == labels.tolist()
    listed, list_labels = resampler().fit_resample(X.tolist(), Y.tolist())
    plain, _ = resampler().fit_resample(X, Y)
    assert isinstance(listed, list) and isinstance(list_labels, list)
    np.testing.assert_allclose(listed, plain)
    single, _ = resampler().fit_resample(X.astype(np.float32), Y)
    assert single.dtype == np.float32
    indicators = np.eye(2, dtype=int)[Y]
    np.testing.assert_array_equal(resampler().fit_resample(X, indicators)[1].argmax(1), list_labels)
    polars, _ = resampler().fit_resample(pl.DataFrame(frame.to_dict("list")), Y)
    assert isinstance(polars, pl.DataFrame) and polars.columns == list(frame.columns) and len(polars) == 180


def test_errors_of_resampling():
    with pytest.raises(ValueError, match="y has one class"):
        resampler().fit_resample(X, np.zeros(120, int))
    with pytest.raises(ValueError, match="Unknown label type"):
        resampler().fit_resample(X, np.linspace(0, 1, 120))
    with pytest.raises(ValueError, match="Multilabel and multioutput targets are not supported"):
        resampler().fit_resample(X, np.ones((120, 3), int))
    with pytest.raises(ValueError, match=r"names the classes \[7\]"):
        resampler(sampling_strategy={7: 9}).fit(X, Y)
    with pytest.raises(ValueError, match=r"asks for \{0: 5\} rows, but y has \{0: 90\}"):
        resampler(sampling_strategy={0: 5}).fit(X, Y)
    with pytest.raises(ValueError, match=r"X has the shape \(120,\)"):
        resampler().fit(X[:, 0], Y)
    with pytest.raises(ValueError, match="sampling_strategy"):
        resampler(sampling_strategy="most").fit(X, Y)


@pytest.mark.parametrize("n", [100.5, np.nan, "100", True], ids=repr)
def test_numbers_of_rows_that_are_not_whole_are_refused(n):
    with pytest.raises(ValueError, match=r"asks for .* rows of class 'b', but expected a whole number"):
        Targets(["a"] * 50 + ["b"] * 10).new_rows({"b": n})


def test_whole_numbers_of_rows_may_be_floats():
    assert Targets(["a"] * 50 + ["b"] * 10).new_rows({"b": 30.0}) == {"b": 20}


@pytest.mark.parametrize(
    "y",
    [
        pl.Series("kind", ["u"] * 20 + ["v"] * 5), pl.Series("kind", [1] * 20 + [3] * 5, dtype=pl.Int16),
        pl.Series("kind", ["u"] * 20 + ["v"] * 5, dtype=pl.Enum(["u", "v"])),
        pl.DataFrame({"u": [1] * 20 + [0] * 5, "v": [0] * 20 + [1] * 5}),
    ],
)  # fmt: skip
def test_labels_of_polars_come_back_as_they_were(y):
    """They came back as an array of numpy."""
    targets = Targets(y)
    rare = min(targets.counts, key=targets.counts.get)
    again = targets.with_new([rare] * 15)
    assert type(again) is type(y)
    assert again[:25].equals(y)
    expected = pl.concat([y[20:21]] * 15)
    assert again[25:].equals(expected)


@pytest.mark.parametrize(
    "y",
    [
        tuple("uuuuuvv"), list("uuuuuvv"), np.array(list("uuuuuvv")), pd.Index(list("uuuuuvv"), name="kind"),
        pd.Categorical(list("uuuuuvv"), ["v", "u"]), pd.Series([1, 1, 1, 1, 1, 2, 2], name="kind"),
    ],
    ids=lambda y: type(y).__name__,
)  # fmt: skip
def test_labels_come_back_in_their_form(y):
    targets = Targets(y)
    again = targets.with_new([min(targets.counts, key=targets.counts.get)] * 3)
    assert type(again) is type(y)
    assert list(again) == [*y, *[y[5]] * 3]
    if isinstance(y, pd.Index):
        assert again.name == "kind"
    if isinstance(y, pd.Categorical):
        assert list(again.categories) == ["v", "u"]
