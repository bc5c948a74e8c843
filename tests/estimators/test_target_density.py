"""Bridges whose target has a density of its own, learned in the same fit."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

import sklearn_si
from sklearn_si import InterpolantDiffusion, InterpolantFlow
from sklearn_si._training import problem, target_density
from sklearn_si.exceptions import NoDensityError

RNG = np.random.default_rng(0)
X0 = RNG.normal(size=(150, 2))
X1 = np.concatenate([RNG.normal(2.0, 0.5, (90, 2)), RNG.normal(0.0, 1.0, (90, 2))])
TEST = RNG.normal(1.0, 1.0, size=(7, 2))
SMALL = {"max_iter": 15, "hidden_layer_sizes": (8,), "preprocessing": "standardize", "random_state": 0}


@pytest.fixture(scope="module")
def bridge():
    return InterpolantFlow(**SMALL).fit(X0, X1)


@pytest.fixture(scope="module")
def both():
    return InterpolantFlow(base_density="normal", target_density="flow", **SMALL).fit(X0, X1)


def test_the_density_of_the_target_is_that_of_a_fit_of_it_alone(bridge):
    alone = InterpolantFlow(**SMALL).fit(X1)
    assert np.array_equal(bridge.score_samples(TEST), alone.score_samples(TEST))
    assert np.array_equal(bridge.log_density_gradient(TEST), alone.log_density_gradient(TEST))
    assert bridge.score(X0, TEST) == pytest.approx(alone.score(TEST))
    assert np.array_equal(bridge.target_density_.sample(5), alone.sample(5))
    assert bridge.base_density_ is None
    assert alone.target_density_ is None


def test_the_transport_does_not_depend_on_it(bridge):
    without = InterpolantFlow(base_density=None, **SMALL).fit(X0, X1)
    assert np.array_equal(bridge.transform(TEST), without.transform(TEST))
    assert np.array_equal(bridge.sample(9), without.sample(9))
    with pytest.raises(NoDensityError, match="base_density='flow'"):
        without.score_samples(TEST)


def test_a_base_density_that_is_asked_for_is_transported(both):
    moved = InterpolantFlow(base_density="normal", **SMALL).fit(X0, X1)
    assert moved.target_density_ is None
    assert not np.allclose(moved.score_samples(TEST), both.score_samples(TEST), atol=0.01)
    flow = InterpolantFlow(target_density="transport", **SMALL).fit(X0, X1)
    assert isinstance(flow.base_density_, InterpolantFlow)
    assert flow.target_density_ is None


@pytest.mark.parametrize("t", [0.0, 0.4])
def test_earlier_densities_are_that_of_the_target_moved_back(bridge, t):
    # log rho_t at X_{t}: the density along a path changes by minus the divergence
    x = bridge.trajectory(TEST, 2, start=1.0, stop=t)[-1]
    flow, h = bridge.set_params(ode_tol=1e-5), 1e-4
    steps = np.linspace(t, 1.0, 80)
    paths = flow.trajectory(x, 80, start=t, stop=1.0)
    divergence = np.zeros((80, len(x)))
    for j in range(2):
        unit = h * np.eye(2)[j]
        for k, s in enumerate(steps):
            divergence[k] += (flow.velocity(paths[k] + unit, s) - flow.velocity(paths[k] - unit, s))[:, j] / (2 * h)
    expected = flow.score_samples(paths[-1]) + np.trapezoid(divergence, steps, axis=0)
    np.testing.assert_allclose(flow.score_samples(x, t=t), expected, atol=2e-3)
    flow.set_params(ode_tol=1e-3)


def test_the_density_moved_back_has_mass_one(bridge):
    axis = np.linspace(-7, 7, 57)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    mass = np.exp(bridge.set_params(ode_tol=0.01).score_samples(grid, t=0.2)).sum() * 0.25**2
    bridge.set_params(ode_tol=1e-3)
    assert mass == pytest.approx(1.0, abs=0.02)


def test_the_gradient_at_earlier_times_needs_a_base(bridge):
    with pytest.raises(NoDensityError, match=r"base_density='flow', or ask at t=1"):
        bridge.log_density_gradient(TEST, t=0.5)


def test_a_report_tells_how_far_the_densities_are_apart(bridge, both):
    report = bridge.diagnose(X0[:60], X1[::3])
    moved = bridge.score_samples(bridge.transform(X0[:60])).mean()
    assert report.transport_gap == pytest.approx(moved - bridge.score_samples(X1[::3]).mean(), abs=1e-9)
    assert "transported X0 minus X1" in str(report)
    assert "density_gap" not in report
    report = both.diagnose(X0[:60], X1[::3])
    transported = InterpolantFlow(base_density="normal", **SMALL).fit(X0, X1)
    gap = (both.score_samples(X1[::3]) - transported.score_samples(X1[::3])).mean()
    assert report.density_gap == pytest.approx(gap, abs=2e-3)


def test_a_diffusion_scores_its_chain_from_a_base(both):
    model = InterpolantDiffusion(n_steps=5, **SMALL).fit(X0, X1)
    alone = InterpolantDiffusion(n_steps=5, **SMALL).fit(X1)
    assert np.array_equal(model.score_samples(TEST), alone.score_samples(TEST))
    with pytest.raises(NoDensityError, match="base_density='flow'"):
        model.log_density_bound(TEST)
    assert "nll_sde_bound" not in model.diagnose(X0[:40], X1[:40])


def test_a_condition_belongs_to_the_density_too():
    told = pd.DataFrame({"side": np.where(np.arange(180) < 90, "right", "left")})
    bridge = InterpolantFlow(**SMALL).fit(X0, X1, condition=told)
    alone = InterpolantFlow(**SMALL).fit(X1, condition=told)
    asked = pd.DataFrame({"side": ["left"] * 7})
    assert np.array_equal(bridge.score_samples(TEST, condition=asked), alone.score_samples(TEST, condition=asked))
    assert np.isfinite(bridge.score_samples(TEST, t=0.5, condition=asked)).all()


def test_weights_of_both_samples_reach_their_own():
    weights = RNG.uniform(0.1, 2.0, 150), RNG.uniform(0.1, 2.0, 180)
    bridge = InterpolantFlow(**SMALL).fit(X0, X1, sample_weight=weights)
    alone = InterpolantFlow(**SMALL).fit(X1, sample_weight=weights[1])
    assert np.array_equal(bridge.score_samples(TEST), alone.score_samples(TEST))


def test_the_density_of_a_bridge_may_be_an_ensemble():
    bridge = InterpolantFlow(n_estimators=2, **SMALL).fit(X0, X1)
    alone = InterpolantFlow(n_estimators=2, **SMALL).fit(X1)
    for a, b in zip(*(model.score_samples(TEST, return_error="model") for model in (bridge, alone)), strict=True):
        assert np.array_equal(a, b)
    assert len(bridge.target_density_.estimators_) == 2
    with pytest.raises(ValueError, match="this model has one"):
        bridge.score_samples(TEST, t=0.5, return_error="model")
    with pytest.raises(ValueError, match="leave base_density='auto'"):
        InterpolantFlow(n_estimators=2, base_density="normal", **SMALL).fit(X0, X1)


def test_columns_in_a_support_keep_it():
    bridge = InterpolantFlow(support="positive", **SMALL).fit(np.exp(X0), np.exp(X1))
    alone = InterpolantFlow(support="positive", **SMALL).fit(np.exp(X1))
    assert np.array_equal(bridge.score_samples(np.exp(TEST)), alone.score_samples(np.exp(TEST)))
    assert np.isfinite(bridge.score_samples(np.exp(TEST), t=0.5)).all()


def test_a_path_through_a_normal_has_its_density_from_there():
    params = {**SMALL, "interpolant": "encoding-decoding-preserving"}
    assert InterpolantFlow(**params).fit(X0, X1).target_density_ is None
    assert InterpolantFlow(target_density="flow", **params).fit(X0, X1).target_density_ is not None


def test_a_one_pass_density_would_be_another(bridge):
    with pytest.raises(ValueError, match="this bridge has one of its target alone"):
        clone(bridge).fit(X0, X1).distill(log_density=True, max_iter=1)


def test_a_bridge_with_two_densities_is_saved_and_recalled(bridge, tmp_path):
    sklearn_si.save(bridge, tmp_path / "bridge.si")
    for model in (
        sklearn_si.load(tmp_path / "bridge.si"),
        clone(bridge).set_params(memory=tmp_path).fit(X0, X1),
        clone(bridge).set_params(memory=tmp_path).fit(X0, X1),
        clone(bridge).set_params(checkpoint=tmp_path / "fit").fit(X0, X1),
    ):
        assert np.array_equal(model.score_samples(TEST), bridge.score_samples(TEST))
        assert np.array_equal(model.sample(5), bridge.sample(5))


def test_a_warm_start_continues_both():
    model = InterpolantFlow(warm_start=True, **SMALL).fit(X0, X1)
    before = model.score_samples(TEST), model.transform(TEST)
    model.fit(X0, X1)
    assert not np.array_equal(model.score_samples(TEST), before[0])
    assert not np.array_equal(model.transform(TEST), before[1])
    np.testing.assert_allclose(model.score_samples(TEST), before[0], atol=3.0)


def test_an_interrupt_in_the_density_keeps_the_transport(monkeypatch):
    def interrupted(recipe, problem):
        raise KeyboardInterrupt

    monkeypatch.setattr(target_density, "_of_target", interrupted)
    with pytest.warns(Warning, match="in the density of its target"):
        model = InterpolantFlow(**SMALL).fit(X0, X1)
    assert np.isfinite(model.transform(TEST)).all()
    with pytest.raises(NoDensityError):
        model.score_samples(TEST)


@pytest.mark.parametrize(("densities", "parts"), [({}, 3), ({"base_density": "flow", "target_density": "flow"}, 4)])
def test_the_density_of_the_target_has_twice_the_time_of_transport_and_what_that_leaves(densities, parts, monkeypatch):
    seen, train_best = [], problem.train_best

    def told(recipe, problem, settings):
        seen.append(settings.max_time)
        return train_best(recipe, problem, settings)

    monkeypatch.setattr(problem, "train_best", told)
    params = {"hidden_layer_sizes": (4,), "preprocessing": "standardize", "random_state": 0}
    InterpolantFlow(max_time=60.0, max_iter=3, **densities, **params).fit(X0, X1)
    transport, *_, target = seen
    assert transport == pytest.approx(0.98 * 60.0 / parts)
    assert 0.9 * 60.0 < target < 0.98 * 60.0
