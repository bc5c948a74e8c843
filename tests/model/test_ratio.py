"""The ratio of two densities from their rows: against closed forms, with weights, and where the samples do not meet."""

import pickle

import numpy as np
import pytest
import threadpoolctl
from scipy.stats import gamma, multivariate_normal, norm

from sklearn_si import InterpolantDiffusion, InterpolantFlow, load, save
from sklearn_si._model.ratio import RatioUnits, mixture_log_density, weights_report
from sklearn_si._training import ratio as ratio_module
from sklearn_si._training.ratio import RatioEffort, _parts, fit_ratio
from sklearn_si._training.ratio import _mixture as mixture_of

RNG = np.random.default_rng(0)
COVARIANCE = np.array([[1.0, 0.5], [0.5, 1.2]])
BASE, TARGET = multivariate_normal([0.0, 0.0]), multivariate_normal([0.6, 0.3], COVARIANCE)
X0, X1 = BASE.rvs(600, random_state=1), TARGET.rvs(500, random_state=2)
TEST = np.vstack([BASE.rvs(300, random_state=3), TARGET.rvs(300, random_state=4)])
TRUE = TARGET.logpdf(TEST) - BASE.logpdf(TEST)
CLOSED_FORMS, ALL = RatioEffort(10), RatioEffort(60)


def error_of(ratio, X=TEST, true=TRUE):
    return np.sqrt(np.mean((ratio.evaluate(X)[0] - true) ** 2))


@pytest.mark.parametrize("effort", [CLOSED_FORMS, ALL], ids=["closed forms", "all"])
def test_ratio_of_two_normals(effort):
    ratio = fit_ratio(X0, X1, 0, effort)
    assert error_of(ratio) < 0.2
    stated = ratio.evaluate(TEST)[1]
    assert 0.03 < np.sqrt(np.mean(stated**2)) < 0.4


def test_ratio_of_distributions_with_several_modes_and_of_skewed_columns():
    def two_humps(n, share, seed):
        rng = np.random.default_rng(seed)
        return rng.normal(size=(n, 1)) * 0.5 + np.where(rng.uniform(size=(n, 1)) < share, -2.0, 2.0)

    A = np.hstack([two_humps(800, 0.5, 0), gamma(2).rvs((800, 1), random_state=1)])
    B = np.hstack([two_humps(800, 0.2, 2), gamma(3).rvs((800, 1), random_state=3)])
    ratio = fit_ratio(A, B, 0, RatioEffort(60))
    x = B[:300]

    def log_humps(v, share):
        return np.logaddexp(np.log(share) + norm(-2, 0.5).logpdf(v), np.log(1 - share) + norm(2, 0.5).logpdf(v))

    true = log_humps(x[:, 0], 0.2) - log_humps(x[:, 0], 0.5) + gamma(3).logpdf(x[:, 1]) - gamma(2).logpdf(x[:, 1])
    assert error_of(ratio, x, true) < 0.35


def test_more_steps_do_not_raise_the_loss_of_rows_that_were_left_out():
    losses = [fit_ratio(X0, X1, 0, RatioEffort(n)).report["log_loss"] for n in (50, 100)]
    assert losses[1] <= losses[0]


def test_once_the_time_is_over_no_further_candidate_is_tried(monkeypatch):
    tried, logistic = [], ratio_module._logistic

    def counted(features, rows, some, penalty, offset=None):
        pools = [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
        tried.append((penalty, max(pools, default=1)))
        return logistic(features, rows, some, penalty, offset)

    monkeypatch.setattr(ratio_module, "_logistic", counted)
    found = fit_ratio(X0, X1, 0, RatioEffort(60, 1e-9))
    assert np.isfinite(found.evaluate(TEST)[0]).all()
    assert not found.members[0].mixtures and found.members[0].layers is None
    # five folds in two units with the first penalty, and the blend; busy cores wait for each other's threads
    assert tried[:-1] == [(1.0, 1)] * 10


def test_weights_of_rows_change_their_distribution():
    """The base weighted by the true ratio is the target: nothing is left to tell."""
    true = TARGET.logpdf(X0) - BASE.logpdf(X0)
    ratio = fit_ratio(X0, X1, 0, CLOSED_FORMS, (np.exp(true), None))
    assert np.sqrt(np.mean(ratio.evaluate(TEST)[0] ** 2)) < 0.3
    assert error_of(fit_ratio(X0, X1, 0, CLOSED_FORMS, (np.full(600, 7.0), np.full(500, 0.1)))) < 0.2


def test_unequal_numbers_of_rows_leave_no_trace():
    ratio = fit_ratio(BASE.rvs(4000, random_state=5), X1[:300], 0, CLOSED_FORMS)
    assert error_of(ratio) < 0.2


def test_few_rows_have_no_ratio_of_their_own():
    assert fit_ratio(X0[:9], X1, 0, CLOSED_FORMS) is None


def test_mixtures_and_units_by_hand():
    z = RNG.normal(size=(200, 2))
    mixture = mixture_of(z, 2, 0)
    np.testing.assert_allclose(mixture_log_density(z, _parts(mixture)), mixture.score_samples(z), rtol=1e-9)
    units = RatioUnits.of(np.column_stack([np.repeat([0.0, 1.0], 100), np.linspace(0, 1, 200)]))
    scores = units.normal(np.array([[0.0, 0.5], [1.0, 0.5]]))
    # a value with a share of one half has the score of the middle of that share
    np.testing.assert_allclose(scores[:, 0], norm.ppf([0.25, 0.75]), atol=0.05)
    np.testing.assert_allclose(scores[:, 1], 0.0, atol=0.02)
    assert (np.abs(units.affine(np.array([[1e300, -1e300]]))) == 6).all()


def test_effective_size_by_hand():
    report = weights_report(np.log([1.0, 1.0, 2.0]))
    assert report["mean_weight"] == pytest.approx(4 / 3)
    assert report["effective_size"] == pytest.approx(16 / 6)
    assert weights_report(np.array([0.0, -2000.0]))["effective_size"] == 1.0


# --------------------------------------------------------------------------- in a bridge


@pytest.fixture(scope="module")
def bridge():
    return InterpolantDiffusion(max_iter=20, hidden_layer_sizes=(8,), base_density=None, random_state=0).fit(X0, X1)


def test_a_bridge_has_the_ratio_of_its_ends_with_weights(bridge):
    ratio, error = bridge.density_ratio(TEST, return_error=True)
    assert np.sqrt(np.mean((ratio - TRUE) ** 2)) < 0.2
    assert ratio.dtype == error.dtype == np.float64 and (error > 0).all()
    result = bridge.importance_weights(X0)
    np.testing.assert_allclose(result.weights, np.exp(bridge.density_ratio(X0)))
    assert result.mean_weight == pytest.approx(result.weights.mean()) == pytest.approx(1.0, abs=0.05)
    assert result.effective_size == pytest.approx(result.weights.sum() ** 2 / (result.weights**2).sum())
    means = np.average(X0, axis=0, weights=result.weights)
    # within three standard errors of a mean over so many rows
    np.testing.assert_allclose(means, X1.mean(0), atol=3 / result.effective_size**0.5)
    assert 0 <= result.without_partners < 0.1
    assert bridge.density_ratio(TEST.astype(np.float32)).dtype == np.float32


def test_the_ratio_travels_with_the_model(bridge, tmp_path):
    save(bridge, tmp_path / "bridge.si")
    for other in (load(tmp_path / "bridge.si"), pickle.loads(pickle.dumps(bridge))):
        np.testing.assert_array_equal(other.density_ratio(TEST), bridge.density_ratio(TEST))


def test_with_a_condition_the_fields_give_the_ratio():
    model = InterpolantDiffusion(max_iter=5, hidden_layer_sizes=(8,), base_density=None, random_state=0)
    model.fit(X0, X1, condition=X1[:, :1])
    assert model.model_.ratio is None
    assert np.isfinite(model.density_ratio(TEST[:5], condition=X1[:5, :1])).all()


@pytest.mark.parametrize("name", ["density_ratio", "importance_weights"])
def test_samples_that_hardly_overlap_have_no_ratio(name):
    model = InterpolantDiffusion(max_iter=3, hidden_layer_sizes=(8,), base_density=None, random_state=0)
    model.fit(X0, X1 + 12.0)
    with pytest.raises(ValueError, match=r"hardly overlap: 100.0 % of the rows of the base and 9.* no partners"):
        getattr(model, name)(X0)


def test_samples_that_overlap_little_are_announced():
    rng = np.random.default_rng(0)
    base, target = rng.normal(size=(400, 4)), rng.normal(1.6, 0.6, size=(400, 4))
    model = InterpolantDiffusion(max_iter=3, hidden_layer_sizes=(8,), base_density=None, random_state=0)
    model.fit(base, target)
    assert model.model_.ratio.report["effective_size"] < 10
    with pytest.warns(UserWarning, match=r"overlap little: \d.* % of the rows of the base .* are worth \d\.\d rows"):
        result = model.importance_weights(base)
    assert np.isfinite(result.weights).all()


def test_a_bridge_of_velocity_alone_still_asks_for_a_score():
    model = InterpolantFlow(max_iter=3, hidden_layer_sizes=(8,), base_density=None, random_state=0).fit(X0, X1)
    with pytest.raises(ValueError, match="density_ratio needs the score function"):
        model.density_ratio(X0)
