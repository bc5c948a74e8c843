"""Split-conformal calibration holds its coverage for any model, and the report on held-out rows finds what is wrong."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.base import clone

from sklearn_si import InterpolantFlow, InterpolantRegressor
from sklearn_si._estimators.prediction.calibration import Calibration, marginal_scores, marginal_values
from sklearn_si._estimators.prediction.fitting import rows_to_calibrate
from sklearn_si.metrics import crps_scorer

FLOW = InterpolantFlow(max_iter=3, hidden_layer_sizes=(8,), preprocessing="standardize")
RNG = np.random.default_rng(0)
X = RNG.uniform(-2, 2, size=(1200, 2))
# a straight map of a normal, which is what three steps leave, is wrong for this
Y = np.exp(X[:, 0] + RNG.normal(size=1200))


@pytest.mark.parametrize("n", [19, 20, 57])
def test_ranks_hold_their_coverage_for_every_distribution_of_scores(n):
    rng, hits = np.random.default_rng(n), []
    for _ in range(2000):
        scores = rng.exponential(size=n + 1) ** 2
        (low, high), is_guaranteed = Calibration(scores[:n]).interval(0.9)
        hits.append(is_guaranteed and low <= scores[n] <= high)
    assert np.mean(hits) >= 0.9 - 3 * np.sqrt(0.09 / 2000)


def test_ranks_by_weight_hold_for_rows_that_are_drawn_by_their_weights():
    """Rows of weight w = x stand for a distribution with more large x, whose scores are larger."""
    rng, hits = np.random.default_rng(1), []
    for _ in range(2000):
        x = rng.uniform(0.05, 1, size=80)
        new = rng.uniform(0.05, 1)
        while rng.random() > new:  # accepted with a probability in proportion to its weight
            new = rng.uniform(0.05, 1)
        (low, high), is_guaranteed = Calibration(x + 0.1 * rng.normal(size=80), x, x.max()).interval(0.8)
        hits.append(is_guaranteed and low <= new + 0.1 * rng.normal() <= high)
    assert np.mean(hits) >= 0.8 - 3 * np.sqrt(0.16 / 2000)
    # whole weights are repeated rows, up to the weight of the new row
    scores, weight = rng.normal(size=200), rng.integers(1, 4, size=200)
    np.testing.assert_allclose(
        Calibration(scores, weight.astype(float), 1.0).interval(0.8)[0],
        Calibration(np.repeat(scores, weight)).interval(0.8)[0],
    )


@pytest.mark.parametrize("n", [3, 19, 40, 400])
def test_the_map_of_scores_rises_and_its_ratio_is_its_derivative(n):
    map_ = Calibration(RNG.gumbel(size=n))
    z = np.linspace(-5, 5, 400)
    np.testing.assert_allclose(map_.inverse(map_.forward(z)), z)
    expected = norm.logpdf(map_.forward(z)) + np.log((map_.forward(z + 1e-7) - map_.forward(z)) / 1e-7)
    np.testing.assert_allclose(map_.log_ratio(z), expected - norm.logpdf(z), atol=1e-5)


def test_an_interval_of_usual_coverage_is_that_of_the_quantiles():
    map_ = Calibration(RNG.gumbel(size=400))
    for coverage in (0.5, 0.8, 0.9, 0.95, 0.99):
        ends = map_.inverse(norm.ppf([(1 - coverage) / 2, (1 + coverage) / 2]))
        np.testing.assert_allclose(map_.interval(coverage)[0], ends)


def test_scores_of_nodes_and_values_are_inverse():
    at = RNG.normal(size=(5, 128))
    z = np.array([-3.0, 0.2, 4.0])
    values = marginal_values(at, z)
    np.testing.assert_allclose(np.column_stack([marginal_scores(at, v) for v in values.T]), np.tile(z, (5, 1)))


@pytest.fixture(scope="module")
def calibrated():
    return InterpolantRegressor(FLOW, base="normal", calibrate=True, random_state=0).fit(X[:600], Y[:600])


def covered(model, y=Y):
    low, high = np.moveaxis(model.predict_interval(X[600:], 0.8), 1, 0)
    return ((low <= y[600:]) & (y[600:] <= high)).mean(0)


def test_intervals_of_a_wrong_model_hold_what_they_say(calibrated):
    # the coverage varies over fits as well as over the new rows
    error = np.sqrt(0.16 / 600 + 0.16 / 120)
    assert covered(calibrated) == pytest.approx(0.8, abs=3 * error)
    plain = clone(calibrated).set_params(calibrate=False).fit(X[:600], Y[:600])
    assert abs(covered(plain) - 0.8) > 3 * error
    both = np.column_stack([Y, RNG.normal(size=1200) - Y])
    several = clone(calibrated).fit(X[:600], both[:600])
    np.testing.assert_allclose(covered(several, both), 0.8, atol=3 * error)
    counts = np.round(2 * Y)
    assert covered(clone(calibrated).fit(X[:600], counts[:600]), counts) >= 0.8 - 3 * error


def test_calibration_rows_neither_train_nor_validate(calibrated):
    _, kept = rows_to_calibrate(600, True, 0)
    other = Y[:600].copy()
    other[kept] += 1000.0
    model = clone(calibrated).fit(X[:600], other)
    assert model.validation_scores_ == calibrated.validation_scores_
    member = model.members_[0], calibrated.members_[0]
    codes, Z = model.codec_.transform(X[:9], 9), RNG.normal(size=(9, 1))
    np.testing.assert_array_equal(*(m.at_base(m.given(codes), Z, model._device()) for m in member))
    assert covered(model) != covered(calibrated)


def test_marginal_quantiles_and_distribution_functions_of_several_outputs_are_inverse():
    model = InterpolantRegressor(FLOW, base="normal", calibrate=True, random_state=0)
    model.fit(X[:300], np.column_stack([X[:300, 0], Y[:300]]))
    values = model.predict_quantiles(X[:9], [0.1, 0.7])
    for k, level in enumerate([0.1, 0.7]):
        np.testing.assert_allclose(model.predict_cdf(X[:9], values[:, k]), level, atol=1e-6)


def test_the_answers_of_a_calibrated_mixture_agree():
    model = InterpolantRegressor(FLOW, base="normal", n_estimators=2, calibrate=True, random_state=0).fit(
        X[:300], Y[:300]
    )
    values = model.predict_quantiles(X[:5], [0.1, 0.6])
    for k, level in enumerate([0.1, 0.6]):
        np.testing.assert_allclose(model.predict_cdf(X[:5], values[:, k]), level, atol=2e-3)
    mean, std = model.predict(X[:2], return_std=True)
    draws = model.sample(X[:2], 3000, random_state=1)
    np.testing.assert_allclose(draws.mean(0), mean, atol=5 * draws.std() / 3000**0.5)
    np.testing.assert_allclose(draws.std(0), std, rtol=0.1)


def test_few_rows_are_told():
    model = InterpolantRegressor(FLOW, base="normal", calibrate=True, random_state=0)
    with pytest.raises(ValueError, match="Got 9 rows, but calibrate=True needs at least 10"):
        model.fit(X[:9], Y[:9])
    model.fit(X[:50], Y[:50])
    with pytest.warns(UserWarning, match=r"10 calibration rows are too few to guarantee intervals of coverage=0\.9"):
        assert np.isfinite(model.predict_interval(X[:5])).all()


def test_a_report_finds_what_is_right_and_what_is_wrong(calibrated):
    rows = X[1000:]
    y = calibrated.sample(rows, random_state=3)[0]
    right, wrong = calibrated.diagnose(rows, y), calibrated.diagnose(rows, np.median(y) + 2 * (y - np.median(y)))
    np.testing.assert_allclose(right.observed, right.coverages, atol=0.08)
    np.testing.assert_allclose([right.pit_below, right.pit_above], 0.1, atol=3 * np.sqrt(0.09 / 200))
    assert ": uniform" in right.verdicts["PIT"]
    assert "NOT uniform" in wrong.verdicts["PIT"]
    assert "as it should be" in str(right)
    assert "TOO NARROW" in str(wrong)
    assert right.crps == pytest.approx(-crps_scorer(calibrated, rows, y), rel=0.01)
    values = calibrated.predict_log_density(rows, y)
    assert right.log_density == pytest.approx(values.mean())
    assert right.log_density_error == pytest.approx(values.std(ddof=1) / np.sqrt(200))
    with pytest.raises(ValueError, match="Got 1 row, but diagnose needs at least 2"):
        calibrated.diagnose(X[:1], Y[:1])


def test_a_report_on_counts_and_on_several_outputs():
    counts = RNG.poisson(2.0, size=300)
    model = InterpolantRegressor(FLOW, base="normal", random_state=0).fit(X[:300], np.column_stack([counts, Y[:300]]))
    report = model.diagnose(X[:300], np.column_stack([counts, Y[:300]]))
    assert report.observed.shape == (4, 2)
    assert report.pit.shape == (300, 2)
    assert report.pit_pvalue[0] > 0.01  # without a draw within the steps it is nearly zero
    assert "output 1" in str(report)
