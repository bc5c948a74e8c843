"""The outlier detector: p-values that hold, thresholds, weights, clumps, and the cells of a row."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest, norm
from sklearn.base import clone
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from sklearn_si import InterpolantFlow, load, save
from sklearn_si.compose import TransformedDensity
from sklearn_si.outliers import DensityOutlierDetector
from sklearn_si.outliers._calibration import Calibration
from sklearn_si.preprocessing import Support
from sklearn_si.tables import TableSynthesizer

RNG = np.random.default_rng(0)
COVARIANCE = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.3], [0.0, 0.3, 1.0]])
X = RNG.multivariate_normal([0.0, 1.0, 2.0], COVARIANCE, size=1500)
NEW = RNG.multivariate_normal([0.0, 1.0, 2.0], COVARIANCE, size=1500)
SMALL_FLOW = InterpolantFlow(max_iter=20, hidden_layer_sizes=(8,), preprocessing="whiten")


@pytest.fixture(scope="module")
def detector():
    return DensityOutlierDetector(GaussianMixture(), random_state=0).fit(X)


# --------------------------------------------------------------------------- p-values


@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize(
    "estimator", [GaussianMixture(3), KernelDensity(bandwidth=0.01), SMALL_FLOW], ids=["gmm", "kde", "flow"]
)
def test_p_values_of_new_rows_are_uniform_however_bad_the_density(estimator, robust):
    """A kernel of bandwidth .01 has learned its rows by heart."""
    detector = DensityOutlierDetector(estimator, robust=robust, calibration_fraction=0.4, random_state=0).fit(X)
    p = detector.p_values(NEW)
    assert kstest(p, "uniform").statistic < 0.08
    assert (p > 0).all() and p.min() >= 1 / 601


def test_p_values_by_hand():
    calibration = Calibration(np.array([3.0, 1.0, 2.0, 2.0]), np.arange(5.0), None, None)
    np.testing.assert_allclose(calibration.p_values(np.array([0.0, 1.0, 2.0, 9.0])), [0.2, 0.4, 0.8, 1.0])
    weighted = Calibration(np.array([3.0, 1.0, 2.0]), np.arange(3.0), np.array([2.0, 0.5, 0.5]), np.ones(3))
    np.testing.assert_allclose(weighted.p_values(np.array([1.5, 3.0])), [1.5 / 4, 1.0])
    np.testing.assert_allclose(weighted.p_values(np.array([1.5]), np.array([3.0])), [3.5 / 6])
    assert weighted.quantile(0.5) == pytest.approx(1.0)


def test_weights_move_the_p_values_to_another_population():
    """Rows of the one half weigh nine times as much: p-values are uniform for rows that are drawn so."""
    rng = np.random.default_rng(1)

    def rows(share, n):
        wide = rng.uniform(size=n) < share
        return rng.normal(size=(n, 1)) * np.where(wide, 3.0, 1.0)[:, None], wide

    (a, wide), (b, _) = rows(0.5, 4000), rows(0.9, 4000)
    weight = np.where(wide, 0.9 / 0.5, 0.1 / 0.5)
    weighted = DensityOutlierDetector(GaussianMixture(2, random_state=0), random_state=0).fit(a, sample_weight=weight)
    plain = DensityOutlierDetector(GaussianMixture(2, random_state=0), random_state=0).fit(a)
    assert abs(np.mean(weighted.p_values(b) <= 0.1) - 0.1) < 0.03
    assert np.mean(plain.p_values(b) <= 0.1) > 0.14


def test_benjamini_and_hochberg_keep_their_rate():
    from scipy.stats import false_discovery_control

    detector = DensityOutlierDetector(GaussianMixture(), calibration_fraction=0.5, random_state=0).fit(X)
    strange = np.column_stack([NEW[:100, 0] + 6, NEW[:100, 1:]])
    p = detector.p_values(np.vstack([NEW, strange]))
    found = false_discovery_control(p) <= 0.1
    false = found[: len(NEW)].sum() / max(1, found.sum())
    assert found[len(NEW) :].mean() > 0.9 and false < 0.2


def test_calibration_rows_are_those_that_are_named(detector):
    rows = detector.calibration_indices_
    assert len(rows) == 300 and len(np.unique(rows)) == 300
    kept = np.delete(X, rows, axis=0)
    np.testing.assert_allclose(detector.estimator_.means_[0], kept.mean(0))


# --------------------------------------------------------------------------- thresholds


def test_contamination_after_fit_needs_no_refit(detector):
    other = pickle.loads(pickle.dumps(detector))
    for share in (0.02, 0.2):
        other.set_params(contamination=share)
        assert (other.predict(X) == -1).sum() == share * len(X)
        np.testing.assert_array_equal(other.decision_function(X), other.score_samples(X) - other.offset_)
    assert 0.003 < np.mean(detector.predict(NEW) == -1) < 0.025
    with pytest.raises(ValueError, match=r"Got contamination=0.7, but expected 'auto' or a number in \(0, 0.5\]"):
        other.set_params(contamination=0.7).predict(X)


def test_fit_predict_and_frames(tmp_path):
    frame = pd.DataFrame(X, columns=list("abc"))
    detector = DensityOutlierDetector(GaussianMixture(), contamination=0.1, random_state=0)
    assert (detector.fit_predict(frame) == -1).sum() == 150
    assert detector.feature_names_in_.tolist() == ["a", "b", "c"]
    save(detector, tmp_path / "detector.si")
    np.testing.assert_array_equal(load(tmp_path / "detector.si").p_values(frame), detector.p_values(frame))
    pipeline = make_pipeline(StandardScaler(), detector).fit(frame)
    assert set(pipeline.predict(frame)) == {-1, 1}


def test_tables_with_words():
    rng = np.random.default_rng(0)
    size = rng.choice(["small", "large"], 400)
    table = pd.DataFrame({"size": size, "x": np.where(size == "small", 0.0, 20.0) + rng.normal(size=400)})
    flow = InterpolantFlow(preprocessing="standardize", hidden_layer_sizes=(16,))
    density = TableSynthesizer(flow=flow, max_iter=150, random_state=0)
    detector = DensityOutlierDetector(density, random_state=0).fit(table)
    odd = pd.DataFrame({"size": ["small", "small"], "x": [20.0, 0.0]})
    p = detector.p_values(odd)
    assert p[0] < 0.05 < p[1]
    with pytest.raises(ValueError, match="attributions needs columns of numbers"):
        detector.attributions(odd)
    with pytest.raises(ValueError, match="robust=True with a TableSynthesizer"):
        DensityOutlierDetector(density, robust=True).fit(table)


@pytest.fixture(scope="module")
def words():
    """A detector of a table, in two of whose columns the words stand together. Shared: tests must not change it."""
    rng = np.random.default_rng(0)
    kind = rng.choice(["u", "v", "w"], 200)
    table = pd.DataFrame({"x": rng.normal(size=200), "kind": kind, "name": np.char.upper(kind.astype(str))})
    table["size"] = rng.choice([1, 2, 3], 200)
    return DensityOutlierDetector(TableSynthesizer(max_iter=10), random_state=0).fit(table)


@pytest.mark.parametrize(
    ("column", "cell", "told"),
    [
        ("kind", "zzz", r"'kind' \(\['zzz'\]\)"), ("kind", None, r"'kind' \(missing values\)"),
        ("name", "zzz", r"'name' \(\['zzz'\]\)"), ("size", 9, r"'size' \(\[9\]\)"),
        ("x", np.nan, r"'x' \(missing values\)"),
    ],
)  # fmt: skip
def test_what_a_table_has_not_seen_is_the_strangest(words, column, cell, told):
    """Such rows were scored by their other cells, and were perfectly usual."""
    rows = pd.DataFrame({"x": [0.0, 0.0], "kind": "u", "name": "U", "size": 2})
    rows[column] = [rows[column][0], cell]
    with pytest.warns(UserWarning, match=f"1 of 2 rows hold what the density has not seen in fit: {told}"):
        p = words.p_values(rows)
    assert p[1] == 1 / 41 < 0.1 < p[0]


def test_fit_does_not_warn_of_rows_that_it_keeps_for_p_values():
    kind = [f"kind {k}" for k in range(30)] + ["u"] * 30
    table = pd.DataFrame({"x": RNG.normal(size=60), "kind": kind})
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*has not seen")
        detector = DensityOutlierDetector(TableSynthesizer(max_iter=3), random_state=0).fit(table)
    with pytest.warns(UserWarning, match="of 60 rows hold what the density has not seen in fit: 'kind'"):
        p = detector.p_values(table)
    unseen = np.intersect1d(detector.calibration_indices_, np.arange(30))
    assert len(unseen) > 2
    np.testing.assert_allclose(p[unseen], (1 + len(unseen)) / 13)


def test_errors():
    with pytest.raises(NotFittedError):
        DensityOutlierDetector().predict(X)
    with pytest.raises(ValueError, match="Found 3 sample"):
        DensityOutlierDetector(GaussianMixture()).fit(X[:3])
    with pytest.raises(ValueError, match="sample_weight is -1 at row 2"):
        DensityOutlierDetector(GaussianMixture()).fit(X[:9], sample_weight=[1, 1, -1, 1, 1, 1, 1, 1, 1])

    class Spike(GaussianMixture):
        def score_samples(self, X):
            return np.full(len(X), np.inf)

    with pytest.raises(ValueError, match="Spike gives 1500 rows an infinite density"):
        DensityOutlierDetector(Spike()).fit(X)


def test_a_density_of_zero_is_the_lowest_score():
    detector = DensityOutlierDetector(KernelDensity(kernel="tophat", bandwidth=4.0), random_state=0).fit(X)
    far = [[90.0, 0.0, 0.0]]
    assert np.isfinite(detector.score_samples(far)).all() and np.isfinite(detector.decision_function(far)).all()
    assert detector.predict(far) == -1 and detector.p_values(far) == 1 / 301


@pytest.mark.parametrize(
    ("cells", "match"),
    [
        (["north", "south"], r"(?s)could not convert string.*at fault are \['v'\].*encode them"),
        ([np.nan, 1.0], r"(?s)contains NaN\.\nThe columns at fault are \['v'\]\.\nExpected finite numbers"),
    ],
    ids=["words", "NaN"],
)
def test_columns_that_are_no_numbers_are_named(detector, cells, match):
    frame = pd.DataFrame({"u": X[:60, 0], "v": cells * 30, "w": X[:60, 2]})
    with pytest.raises(ValueError, match=match):
        DensityOutlierDetector(GaussianMixture()).fit(frame)
    with pytest.warns(UserWarning, match="feature names"), pytest.raises(ValueError, match=match):
        detector.predict(frame)


@pytest.fixture(scope="module")
def of_a_support():
    rows = np.column_stack([np.exp(X[:300, 0]), X[:300, 1]])
    flow = InterpolantFlow(support={0: "positive"}, max_iter=20, hidden_layer_sizes=(8,), preprocessing="standardize")
    return rows, flow, DensityOutlierDetector(flow, random_state=0).fit(rows)


IMPOSSIBLE = np.array([[-1.0, 1.0], [0.0, 1.0]])


def check_impossible(detector, rows, impossible=IMPOSSIBLE):
    p = detector.p_values(np.vstack([impossible, rows]))
    assert (p[: len(impossible)] == 1 / 61).all()
    np.testing.assert_array_equal(p[len(impossible) :], detector.p_values(rows))
    assert (detector.score_samples(impossible) == np.finfo(float).min).all()
    assert np.isfinite(detector.decision_function(impossible)).all()
    assert (detector.predict(impossible) == -1).all()


def test_rows_outside_the_support_are_outliers(of_a_support):
    rows, _, detector = of_a_support
    check_impossible(detector, rows[:20])
    with pytest.raises(ValueError, match="column 0 of X are outside its support"):
        clone(detector).fit(np.vstack([rows, -rows[:40]]))  # whichever part it falls into
    values = detector.attributions(np.vstack([IMPOSSIBLE[:1], [[np.median(rows[:, 0]), 1.0]]]))
    assert values[0, 0] == np.finfo(float).min and np.isfinite(values).all()
    assert values[0, 1] == pytest.approx(values[1, 1], abs=0.1)


def test_columns_of_the_density_are_named_as_those_of_the_detector(of_a_support):
    rows, flow, detector = of_a_support
    frame = pd.DataFrame(rows, columns=["price", "change"])
    named = clone(flow).set_params(support={"price": "positive"}, dequantize=[])
    found = DensityOutlierDetector(named, random_state=0).fit(frame)
    np.testing.assert_array_equal(found.p_values(frame), detector.p_values(rows))
    assert named.support == {"price": "positive"}


class Log:
    """The logarithm of the first column."""

    def transform(self, rows):
        return np.column_stack([np.log(rows[:, 0]), rows[:, 1]])

    def inverse_transform(self, rows):
        return np.column_stack([np.exp(rows[:, 0]), rows[:, 1]])

    def log_abs_det_jacobian(self, rows):
        return -np.log(rows[:, 0])


@pytest.mark.parametrize("kind", ["pipeline", "transformed", "no image"])
def test_rows_outside_the_support_behind_transformers_are_outliers(of_a_support, kind):
    rows, flow, _ = of_a_support
    real, scaler = clone(flow).set_params(support="real"), MinMaxScaler((0.1, 1.0))
    density = {"pipeline": make_pipeline(scaler, flow), "transformed": TransformedDensity(scaler, flow)}
    detector = DensityOutlierDetector(density.get(kind) or TransformedDensity(Log(), real), random_state=0).fit(rows)
    check_impossible(detector, rows[:20], np.array([[-100.0, 1.0]]))


def test_whether_rows_lie_within_a_support():
    support = Support(np.array([0.0, -np.inf, 0.0]), np.array([np.inf, np.inf, 360.0]), np.array([False, False, True]))
    cells = np.array([[0.0, -9.0, 0.0], [1.0, 0.0, 360.0], [-1.0, 0.0, 361.0]])
    np.testing.assert_array_equal(support.contains(cells), [[False, True, True], [True] * 3, [False, True, False]])
    np.testing.assert_array_equal(support.contains(cells, [0])[:, 0], [True, True, False])


# --------------------------------------------------------------------------- clumps and cells


@pytest.mark.parametrize("estimator", [GaussianMixture(6, random_state=0), SMALL_FLOW], ids=["gmm", "flow"])
def test_a_tight_clump_of_strangers_is_found_by_robust_fits(estimator):
    rng = np.random.default_rng(0)
    clump = rng.normal([4.0, -2.0, 5.0], 0.05, size=(45, 3))
    rows, strange = np.vstack([X, clump]), np.repeat([0, 1], [1500, 45])
    detectors = [DensityOutlierDetector(estimator, robust=r, random_state=0).fit(rows) for r in (False, True)]
    area = [roc_auc_score(strange, -detector.score_samples(rows)) for detector in detectors]
    forest = roc_auc_score(strange, -IsolationForest(random_state=0).fit(rows).score_samples(rows))
    assert area[1] > 0.98 and area[1] > forest - 0.02
    if isinstance(estimator, GaussianMixture):
        assert area[0] < 0.3  # the clump is a component of its own


def test_a_second_fit_is_believed_in_what_few_components_do_not_know():
    """The dense middle of a heavy tail and a ridge had counted as strange, one row in twenty-five."""
    rng = np.random.default_rng(0)
    rows = rng.standard_t(2, size=(900, 3))
    rows[:300, 2] = rows[:300, 0] + 0.02 * rng.normal(size=300)
    detector = DensityOutlierDetector(GaussianMixture(8, random_state=0), robust=True, random_state=0).fit(rows)
    np.testing.assert_allclose(detector.score_samples(rows), detector.estimator_.score_samples(rows), rtol=1e-12)


def conditional_normal(rows, mean, covariance):
    precision = np.linalg.inv(covariance)
    variance = 1 / np.diag(precision)
    centre = rows - (rows - mean) @ precision * variance
    return norm(centre, np.sqrt(variance)).logpdf(rows)


def test_attributions_are_conditional_densities(detector):
    density = detector.estimator_
    rows = NEW[:50].copy()
    rows[0, 1], rows[1, 0] = 9.0, -20.0
    expected = conditional_normal(rows, density.means_[0], density.covariances_[0])
    found = detector.attributions(rows)
    np.testing.assert_allclose(found[2:], expected[2:], atol=0.05)
    np.testing.assert_allclose(found[:2], expected[:2], rtol=0.01, atol=0.3)
    assert found[0].argmin() == 1 and found[1].argmin() == 0


def test_attributions_of_a_mixture_with_narrow_parts():
    rng = np.random.default_rng(0)
    t = rng.uniform(-1, 1, 2000)
    rows = np.column_stack([t, np.sign(t) * 3 + 0.01 * rng.normal(size=2000)])
    detector = DensityOutlierDetector(GaussianMixture(2, random_state=0), random_state=0).fit(rows)
    found, mixture = detector.attributions(rows[:20]), detector.estimator_
    # p(x_0) is a sum over components, in closed form
    log_margin = np.logaddexp.reduce([
        np.log(w) + norm(m[0], c[0, 0] ** 0.5).logpdf(rows[:20, 0])
        for w, m, c in zip(mixture.weights_, mixture.means_, mixture.covariances_, strict=True)
    ])  # fmt: skip
    np.testing.assert_allclose(found[:, 1], mixture.score_samples(rows[:20]) - log_margin, atol=0.1)


def test_attributions_of_a_flow_find_the_wrong_cell():
    detector = DensityOutlierDetector(SMALL_FLOW, random_state=0).fit(X)
    rows = NEW[:6].copy()
    rows[np.arange(6), np.arange(6) % 3] += 6.0
    assert (detector.attributions(rows).argmin(1) == np.arange(6) % 3).all()


def test_attributions_far_outside_of_the_rows_of_fit_are_exact():
    """The mass of a cell given a strange one lies beyond the column; no cell is likelier than the mode."""
    a = np.random.default_rng(0).normal(size=1000)
    X = np.column_stack([a, 0.9 * a + 0.436 * np.random.default_rng(1).normal(size=1000)])
    detector = DensityOutlierDetector(GaussianMixture(1), random_state=0).fit(X)
    mixture = detector.estimator_
    precision = np.linalg.inv(mixture.covariances_[0])
    rows = np.array([[7.0, 7.0], [9.0, 9.0], [10.0, -10.0], [100.0, 0.0], [0.0, 50.0]])
    off = (rows - mixture.means_[0]) @ precision
    scale = np.diag(precision)
    expected = 0.5 * np.log(scale / (2 * np.pi)) - 0.5 * off**2 / scale
    np.testing.assert_allclose(detector.attributions(rows), expected, atol=0.1)


# --------------------------------------------------------------------------- rows as the user numbers them, and few


def test_errors_number_the_rows_as_they_were_given():
    """Fit splits the rows, and leaves those of weight zero out."""
    rng = np.random.default_rng(3)
    rows, weight = pd.DataFrame({"price": rng.lognormal(size=60), "x": rng.normal(size=60)}), np.ones(60)
    rows.loc[37, "price"] = -2.0
    rows.loc[5, "price"], weight[:6] = -7.0, 0.0
    for support in ({"price": "positive"}, {0: (0, None)}):
        detector = DensityOutlierDetector(clone(SMALL_FLOW).set_params(support=support), random_state=0)
        with pytest.raises(ValueError, match=r"1 of 54 values in column 'price' of X are outside .* -2 in row 37"):
            detector.fit(rows, sample_weight=weight)
    with pytest.raises(ValueError, match=r"2 of 60 values in column 'price' of X are outside .* -7 in row 5"):
        detector.fit(rows)


def test_few_rows_are_told():
    with pytest.warns(UserWarning, match="2 calibration rows are too few .* it is about 33%. Fit on more rows"):
        DensityOutlierDetector(GaussianMixture(), random_state=0).fit(X[:8])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DensityOutlierDetector(GaussianMixture(), random_state=0).fit(X[:100])
        DensityOutlierDetector(GaussianMixture(), contamination=0.1, random_state=0).fit(X[:8])
