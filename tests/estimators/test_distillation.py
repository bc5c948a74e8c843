"""The measured grid of `sample`, and the distilled flow map."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import make_moons

from oracles import MixtureFields, mixture
from sklearn_si import InterpolantDiffusion, InterpolantFlow
from sklearn_si._estimators import distillation as _distillation
from sklearn_si._model.fields import Fields
from sklearn_si._model.step_choice import _SPACING_STEPS, _STEPS, _TOLERANCE, choose_grid
from sklearn_si.interpolants import GaussianBase, Linear, VariancePreserving
from sklearn_si.metrics import sliced_wasserstein
from sklearn_si.solvers import odeint, time_grid

RNG = np.random.default_rng(0)
MOONS = make_moons(1000, noise=0.08, random_state=0)[0]
SMALL = {"max_iter": 300, "hidden_layer_sizes": (32, 32), "preprocessing": "standardize", "random_state": 0}


@pytest.fixture(scope="module", autouse=True)
def few_pairs():
    """The map is fitted to a quarter of the rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_distillation, "_PAIRS", 16_384)
        yield


@pytest.fixture(scope="module")
def flow():
    return InterpolantFlow(**SMALL).fit(MOONS)


# --------------------------------------------------------------------------- the measured grid


@pytest.mark.parametrize("path", [GaussianBase(Linear()), VariancePreserving()], ids=["linear", "vp"])
@pytest.mark.parametrize("spread", [0.5, 4.0])
def test_the_grid_is_the_first_that_carries_rows_within_the_tolerance(path, spread):
    """Of an exact mixture: its own error against a fine solution, and that of one candidate fewer."""
    distribution = mixture(np.random.default_rng(1), 3, 2, spread=spread)
    velocity = MixtureFields(path, *distribution)
    x = torch.as_tensor(RNG.normal(size=(500, 2)))
    n_steps, grid = choose_grid(Fields(path, velocity), x, None)
    exact = odeint(velocity, x, time_grid(150, "sine"), "rk4")

    def error(k):
        gap = (odeint(velocity, x, time_grid(k, grid), "rk4") - exact) / (1 + exact.abs())
        return float(gap.square().mean().sqrt())

    assert error(n_steps) < 1.5 * _TOLERANCE
    fewer = [k for k in _STEPS if _SPACING_STEPS <= k < n_steps]
    assert not fewer or error(fewer[-1]) > _TOLERANCE / 1.5


def test_a_straight_flow_takes_the_fewest_steps():
    path = GaussianBase(Linear())
    shifted = MixtureFields(path, np.ones(1), np.full((1, 2), 3.0), np.eye(2)[None])
    assert choose_grid(Fields(path, shifted), torch.as_tensor(RNG.normal(size=(50, 2))), None)[0] == _STEPS[0]


def test_what_auto_means(flow):
    assert flow.n_steps == "auto" and flow._sampling().grid(flow.sampling_grid_) == flow.sampling_grid_
    for changes, steps in [({"n_steps": 7}, 7), ({"solver": "euler"}, 16), ({"noise_level": 1.0}, 32)]:
        model = pickle.loads(pickle.dumps(flow)).set_params(**changes)
        assert model._sampling().grid(model.model_.sampling_grid)[0] == steps
    mirror = InterpolantDiffusion(interpolant="mirror", **SMALL).fit(MOONS)
    assert mirror.sampling_grid_ is None


def test_rows_of_the_measured_grid_are_those_of_a_fine_one(flow):
    rows = flow.sample(500, random_state=1)
    fine = pickle.loads(pickle.dumps(flow)).set_params(n_steps=100)
    # both start from the same numbers: those of single precision are those of double, rounded
    again = fine.sample(500, random_state=1)
    assert sliced_wasserstein(rows, again) < sliced_wasserstein(again, fine.sample(500, random_state=2))
    assert rows.dtype == np.float64 and flow.sampling_grid_[0] in _STEPS


# ------------------------------------------------------------------------ the distilled flow map


@pytest.mark.parametrize("n_steps", [1, 3])
def test_the_map_of_a_normal_distribution_is_exact(n_steps):
    """The flow of one normal distribution to another is linear, and linear maps come in closed form."""
    model = InterpolantFlow(**{**SMALL, "max_iter": 1}).fit(RNG.normal(2.0, [0.5, 3.0], size=(500, 2)))
    model.network_.network.output.zero_()
    model.distill(n_steps, max_iter=1)
    assert model.distillation_report_.error < 2e-3
    assert model.flow_map_.sizes.shape == (n_steps,)


def test_the_map_ends_where_the_flow_does(flow):
    model = pickle.loads(pickle.dumps(flow))
    exact = model.sample(2000, random_state=3)
    model.distill(1, max_iter=800).set_params(solver="distilled")
    rows, report = model.sample(2000, random_state=3), model.distillation_report_
    error = np.sqrt((((rows - exact) / model.preprocessing_.scale) ** 2).mean())
    assert error == pytest.approx(report.error, rel=0.3) and error < 0.15
    assert report.n_steps == 1 and report.sliced_w2 < 0.1
    assert_array_equal(rows, pickle.loads(pickle.dumps(model)).sample(2000, random_state=3))
    assert np.isfinite(model.score(MOONS[:10]))  # densities stay those of the flow
    model.fit(MOONS)
    with pytest.raises(ValueError, match=r"needs a distilled flow map: call distill\(\) after fit"):
        model.sample(3)


def test_the_map_of_a_bridge_and_of_a_condition():
    shift = np.array([5.0, 0.0])
    bridge = InterpolantFlow(base_density=None, **SMALL).fit(MOONS, MOONS + shift).distill(max_iter=300)
    assert_allclose(bridge.set_params(solver="distilled").sample(4000).mean(0), MOONS.mean(0) + shift, atol=0.15)
    labels = np.repeat(["a", "b"], 500)
    X = RNG.normal(np.where(labels == "a", -4.0, 4.0)[:, None], 0.5, size=(1000, 1))
    model = InterpolantFlow(**SMALL).fit(X, condition=labels).distill(condition=labels, max_iter=300)
    model.set_params(solver="distilled")
    for label, mean in (("a", -4.0), ("b", 4.0)):
        assert model.sample(2000, condition=[label]).mean() == pytest.approx(mean, abs=0.3)


def test_distilling_twice_gives_the_same_map(flow):
    maps = [pickle.loads(pickle.dumps(flow)).distill(max_iter=20).flow_map_ for _ in range(2)]
    x = torch.randn((5, 2), generator=torch.Generator().manual_seed(0))
    assert torch.equal(*(m(x) for m in maps))


@pytest.mark.parametrize("n_steps", [0, 9, 1.5, "auto"])
def test_an_impossible_number_of_steps_is_refused(flow, n_steps):
    with pytest.raises(ValueError, match=rf"Got n_steps={n_steps!r}, but expected an integer from 1 to 8"):
        flow.distill(n_steps)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"log_density": "no"}, "Got log_density='no', but expected True or False"),
        ({"max_iter": 0}, "Got max_iter=0, but expected an integer of at least 1"),
    ],
    ids=str,
)
def test_what_says_nothing_is_refused(flow, given, match):
    with pytest.raises(ValueError, match=match):
        flow.distill(**given)


def test_a_condition_must_be_given_where_it_was_learned(flow):
    with pytest.raises(ValueError, match="got a condition, but the model was fitted without a condition"):
        flow.distill(condition=["a"])
    model = InterpolantFlow(**{**SMALL, "max_iter": 2}).fit(MOONS, condition=np.arange(1000.0))
    with pytest.raises(ValueError, match="needs condition= rows, because it was fitted with a condition"):
        model.distill()


def test_a_map_of_another_guidance_is_refused():
    labels = np.repeat(["a", "b"], 500)
    model = InterpolantFlow(condition_dropout=0.2, **{**SMALL, "max_iter": 2}).fit(MOONS, condition=labels)
    model.distill(condition=labels, max_iter=2).set_params(solver="distilled")
    assert np.isfinite(model.sample(3, condition="a")).all()
    with pytest.raises(ValueError, match="distilled with guidance=1, but guidance is 2: call distill"):
        model.set_params(guidance=2.0).sample(3, condition="a")


def test_a_model_without_a_flow_from_a_base_is_refused():
    mirror = InterpolantDiffusion(interpolant="mirror", **{**SMALL, "max_iter": 2}).fit(MOONS)
    with pytest.raises(ValueError, match="distill needs a flow from a base: a mirror model"):
        mirror.distill()


# ------------------------------------------------------------------------- sliced Wasserstein


def test_sliced_wasserstein_on_a_line_is_that_of_sorted_values():
    X, Y = RNG.normal(size=(30, 1)), RNG.normal(size=(30, 1))
    expected = np.sqrt(((np.sort(X, 0) - np.sort(Y, 0)) ** 2).mean())
    assert sliced_wasserstein(X, Y, standardize=False) == pytest.approx(expected, rel=1e-12)
    # rows in several copies are the same distribution, also where the numbers of rows differ
    assert sliced_wasserstein(np.repeat(X, 3, 0), Y, standardize=False) == pytest.approx(expected, rel=1e-12)
    assert sliced_wasserstein(np.repeat(X, 2, 0), X) < 1e-7


def test_sliced_wasserstein_of_a_shift_is_its_mean_projection():
    X = RNG.normal(size=(200, 5))
    shift = np.array([3.0, 0, 0, 0, 0])
    value = sliced_wasserstein(X + shift, X, standardize=False, n_projections=4000)
    assert value == pytest.approx(3 / np.sqrt(5), rel=0.05)
    scaled = sliced_wasserstein(1e6 * (X + shift), 1e6 * X)
    assert scaled == pytest.approx(sliced_wasserstein(X + shift, X), rel=1e-9)
