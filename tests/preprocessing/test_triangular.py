"""Triangular maps: inverses, Jacobians, the order of the columns, and when a fit takes them."""

from types import SimpleNamespace as Some

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from sklearn_si import InterpolantFlow
from sklearn_si._training.triangular import is_worth_trying
from sklearn_si.persistence import load, save
from sklearn_si.preprocessing import MarginalMap, TriangularMap
from sklearn_si.preprocessing._triangular import Effort, fit_residuals, triangular_with, units_of


def funnel(n=1500, seed=0):
    """Three columns whose deviation is the exponential of the last one."""
    rng = np.random.default_rng(seed)
    v = 1.5 * rng.normal(size=(n, 1))
    return np.hstack([np.exp(v / 2) * rng.normal(size=(n, 3)), v])


def log_density_of_funnel(X):
    v = X[:, 3:]
    return stats.norm(0, 1.5).logpdf(v[:, 0]) + stats.norm(0, np.exp(v / 2)).logpdf(X[:, :3]).sum(1)


def fitted_map(X, steps=300, weight=None, seed=0):
    found = fit_residuals(units_of(X, weight).transform(X), weight, Effort(steps), seed)
    return triangular_with(X, weight, *found)


def log_likelihood(scaling, X):
    return (stats.norm.logpdf(scaling.transform(X)).sum(1) + scaling.log_abs_det_jacobian(X)).mean()


@pytest.fixture(scope="module")
def scaling():
    return fitted_map(funnel())


def test_the_map_inverts_itself_near_and_far(scaling):
    X = np.concatenate([funnel(seed=1), 50 * np.eye(4), -50 * np.eye(4)])
    Z = scaling.transform(X)
    assert np.isfinite(Z).all() and np.isfinite(scaling.log_abs_det_jacobian(X)).all()
    assert_allclose(scaling.inverse_transform(Z), X, rtol=1e-8, atol=1e-8)


def test_the_jacobian_and_the_gradient_are_those_of_differences(scaling):
    X, step = funnel(6, seed=2), 1e-6

    def shifted(j, function):
        return (function(X + step * np.eye(4)[j]) - function(X - step * np.eye(4)[j])) / (2 * step)

    jacobian = np.stack([shifted(j, scaling.transform) for j in range(4)], axis=2)
    assert_allclose(scaling.log_abs_det_jacobian(X), np.linalg.slogdet(jacobian)[1], atol=1e-5)

    def log_density(X):
        return stats.norm.logpdf(scaling.transform(X)).sum(1) + scaling.log_abs_det_jacobian(X)

    gradient = np.stack([shifted(j, log_density) for j in range(4)], axis=1)
    assert_allclose(scaling.pull_back_score(-scaling.transform(X), X), gradient, rtol=1e-4, atol=1e-4)


def test_a_funnel_is_a_normal_distribution_behind_the_map_in_the_right_order(scaling):
    test = funnel(4000, seed=3)
    assert scaling.order[0] == 3
    assert log_density_of_funnel(test).mean() - log_likelihood(scaling, test) < 0.05


def test_weights_count_as_repetitions():
    """Regressions of the start are exact: no step is taken."""
    X, counts = funnel(200), np.random.default_rng(1).integers(1, 4, 200)
    one = fitted_map(X, 1, counts.astype(float))
    assert log_likelihood(one, X) > -20
    assert_allclose(one.inner.centre, np.repeat(X, counts, axis=0).mean(0))


def test_the_same_seed_gives_the_same_map_and_continues_it():
    X = funnel(400)
    one, other = fitted_map(X, 20), fitted_map(X, 20)
    assert all(map(np.array_equal, one.weights, other.weights))
    U = units_of(X, None).transform(X)
    order, weights = fit_residuals(U, None, Effort(1), 0, (one.order, one.weights))
    assert_array_equal(order, one.order)
    assert max(np.abs(a - b).max() for a, b in zip(weights, one.weights, strict=True)) < 0.1


def test_a_fit_takes_the_map_where_it_leads_and_keeps_it_in_a_file(tmp_path):
    X = funnel()
    flow = InterpolantFlow(max_iter=60, random_state=0).fit(X)
    assert isinstance(flow.preprocessing_, TriangularMap)
    assert "TriangularMap(4 columns in the order [3" in repr(flow.preprocessing_)
    test = funnel(1000, seed=4)
    assert (log_density_of_funnel(test) - flow.score_samples(test)).mean() < 0.2
    assert np.abs(flow.sample(500)[:, 3].std() - 1.5) < 0.2
    save(flow, tmp_path / "flow.si")
    assert_array_equal(load(tmp_path / "flow.si").score_samples(test[:50]), flow.score_samples(test[:50]))
    with pytest.raises(ValueError, match="no data units"):
        flow.velocity(test[:2], 0.5)


def test_a_map_that_a_normal_distribution_gains_nothing_from_is_not_tried():
    flow = InterpolantFlow(max_iter=60, random_state=0).fit(np.random.default_rng(0).normal(size=(600, 3)))
    assert not isinstance(flow.preprocessing_, TriangularMap)


def test_the_map_of_one_column_is_a_marginal_one():
    X = np.random.default_rng(0).exponential(size=(500, 1))
    flow = InterpolantFlow(preprocessing="triangular", max_iter=20, random_state=0).fit(X)
    assert isinstance(flow.preprocessing_, MarginalMap)


def test_members_of_an_ensemble_have_maps_of_their_own():
    flow = InterpolantFlow(preprocessing="triangular", n_estimators=2, max_iter=20, random_state=0).fit(funnel(300))
    one, other = (member.preprocessing_ for member in flow.estimators_)
    assert not np.array_equal(one.weights[0], other.weights[0])


@pytest.mark.parametrize(
    ("params", "fit", "match"),
    [
        ({}, lambda flow: flow.fit(funnel(50), funnel(50)), "expected an affine map"),
        ({"conditionals": "any"}, lambda flow: flow.fit(funnel(50)), "must not be mixed"),
        (
            {"support": {3: ("circular", -20, 20)}},
            lambda flow: flow.fit(funnel(50)),
            "cannot be mixed with others",
        ),
    ],
)
def test_what_takes_no_triangular_map_says_so(params, fit, match):
    with pytest.raises(ValueError, match=match):
        fit(InterpolantFlow(preprocessing="triangular", max_iter=5, **params))


def test_worth_trying_depends_on_rows_columns_and_time():
    def worth(n=1000, d=3, max_time=None, **others):
        values = {"affine_only": False, "conditionals": None, "circular": (), "max_time": max_time} | others
        problem = Some(target=np.empty((n, d)), n_effective=n, codec=None, limits=(100, max_time))
        return is_worth_trying(Some(**values), problem)

    assert worth() and worth(max_time=1.0)
    assert not worth(d=1) and not worth(d=30) and not worth(n=100) and not worth(affine_only=True)
    assert not worth(n=1_000_000, max_time=3.0) and worth(n=1_000_000, max_time=300.0)


@pytest.mark.parametrize("n", [12, 40])
def test_a_few_rows_of_many_columns_do_not_make_a_useless_density(n):
    """Regressions of more columns than rows had scored new rows at -100,000 and -3,000 nats."""
    X, new = (np.random.default_rng(seed).normal(size=(m, 60)) for seed, m in ((0, n), (9, 50)))
    flow = InterpolantFlow(preprocessing="triangular", max_iter=5, hidden_layer_sizes=(8,), random_state=0)
    assert flow.fit(X).score(new) > -200
