"""Paths that are learned by max-min, and flows that are refitted to their own pairs."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from sklearn_si import InterpolantDiffusion, InterpolantFlow, SchroedingerBridge
from sklearn_si._estimators import rectification
from sklearn_si._estimators.diagnostics import scaled_pairs
from sklearn_si._training import batches as _batches
from sklearn_si._training.batches import Sampler
from sklearn_si._training.path_learning import Ascent
from sklearn_si.couplings import paired
from sklearn_si.interpolants import INTERPOLANTS, LearnedInterpolant, LearnedSchedule
from sklearn_si.metrics import path_energy, plan_moments, transport_report, wasserstein_distance

SMALL = {"hidden_layer_sizes": (32, 32), "base_density": None, "random_state": 0, "preprocessing": None}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def built(name, gamma=None):
    path = INTERPOLANTS[name](gamma)
    path.build(2, 0, "cpu")
    return path


def stirred(path):
    for parameter in path.parameters():
        parameter.data.normal_(std=0.3, generator=generator(3))
    return path


@pytest.mark.parametrize("name", ["learned", "learned-schedule"])
def test_a_learned_path_keeps_its_ends_whatever_its_weights(name):
    path = stirred(built(name))
    x0, x1 = torch.randn(2, 5, 2, generator=generator())
    torch.testing.assert_close(path.mean(torch.tensor(0.0), x0, x1), x0, rtol=0, atol=1e-6)
    torch.testing.assert_close(path.mean(torch.tensor(1.0), x0, x1), x1, rtol=0, atol=1e-6)
    t = torch.linspace(0.1, 0.9, 5).double()
    a, b = x0.double(), x1.double()
    step = 1e-6
    slope = (path.mean(t + step, a, b) - path.mean(t - step, a, b)) / (2 * step)
    torch.testing.assert_close(path.mean_dot(t, a, b), slope, rtol=1e-6, atol=1e-6)


def test_a_learned_path_starts_straight_and_learned_schedules_trigonometric():
    x0, x1 = torch.randn(2, 5, 2, generator=generator())
    torch.testing.assert_close(built("learned").mean(torch.tensor(0.3), x0, x1), 0.7 * x0 + 0.3 * x1)
    t = torch.tensor(0.3)
    expected = torch.cos(torch.pi / 2 * t) * x0 + torch.sin(torch.pi / 2 * t) * x1
    torch.testing.assert_close(built("learned-schedule").mean(t, x0, x1), expected)


class Still(torch.nn.Module):
    """A field v = x."""

    def forward(self, t, x, condition=None):
        return x


@pytest.mark.parametrize("gamma", [None, "brownian"])
@pytest.mark.parametrize("name", ["learned", "learned-schedule"])
def test_a_step_of_the_path_raises_the_value_of_the_max_min(name, gamma):
    """For fixed fields, on many points."""
    path = stirred(built(name, gamma))
    fields = torch.nn.ModuleDict({"velocity": Still()} | ({"denoiser": Still()} if gamma else {}))
    x0, x1 = torch.randn(2, 500, 2, generator=generator())
    sampler = Sampler(x0, x1 + 1, None, paired, gamma is not None)
    ascent = Ascent(path, fields, sampler, 500, generator(), lambda k: k / 1000)
    values = []
    for _ in range(30):
        half_action, work = ascent._terms(*_points(path, sampler))
        values.append(float(half_action - work))
        ascent.step()
    curve = ascent.close()
    assert values[-1] > values[0] + 0.01
    assert len(ascent.actions) == 30 and len(curve) == 20
    assert not any(p.requires_grad for p in path.parameters())


def _points(path, sampler):
    x0, x1, z, _ = sampler.draw(500, generator(7))
    t = torch.linspace(0.01, 0.99, 500)
    return t, x0, x1, z, None


@pytest.mark.parametrize("name", ["learned", "learned-schedule"])
def test_the_action_of_a_normal_pair_falls_below_that_of_the_straight_path(name):
    """N(0, 1) -> N(2, 1/4): W2^2 = 4.250, straight .215 more, trigonometric .993; and the target stays exact."""
    rng = np.random.default_rng(0)
    X0, X1 = rng.normal(size=(5000, 1)), 2 + 0.5 * rng.normal(size=(5000, 1))
    flow = InterpolantFlow(interpolant=name, max_iter=1500, **SMALL).fit(X0, X1)
    shortest = (X1.mean() - X0.mean()) ** 2 + (X1.std() - X0.std()) ** 2
    path = flow.trajectory(X0[:1000], 41)
    speed = np.diff(path, axis=0) * 40
    assert shortest - 0.05 < (speed**2).sum(2).mean() < shortest + 0.75 * 0.215
    assert abs(np.mean(flow.action_curve_[-4:]) - shortest) < 0.15
    assert abs(path[-1].mean() - 2) < 0.06 and abs(path[-1].std() - 0.5) < 0.04


def test_a_learned_bridge_with_noise_is_fitted_and_repeats():
    rng = np.random.default_rng(0)
    X0, X1 = rng.normal(size=(300, 2)), 1 + 0.5 * rng.normal(size=(300, 2))
    params = {"interpolant": "learned", "gamma_scale": 0.2, "max_iter": 60, "noise_level": 0.1} | SMALL
    drawn = [InterpolantDiffusion(**params).fit(X0, X1).sample(5) for _ in range(2)]
    np.testing.assert_array_equal(*drawn)
    assert isinstance(InterpolantDiffusion(**params).fit(X0, X1).interpolant_, LearnedInterpolant)


@pytest.mark.parametrize("name", ["learned", "learned-schedule"])
def test_a_path_of_one_sample_is_not_learned(name):
    with pytest.raises(ValueError, match="is learned between two samples, but fit was given one"):
        InterpolantFlow(interpolant=name).fit(np.random.default_rng(0).normal(size=(60, 2)))


def test_a_warm_start_goes_on_with_the_path_as_it_is():
    rng = np.random.default_rng(0)
    X0, X1 = rng.normal(size=(300, 2)), 1 + 0.5 * rng.normal(size=(300, 2))
    flow = InterpolantFlow("learned", warm_start=True, max_iter=60, **SMALL).fit(X0, X1)
    before = [p.clone() for p in flow.interpolant_.parameters()]
    assert flow.n_iter_ == 60 and before[-2].abs().max() > 0  # 20 steps with the path, then 40
    flow.fit(X0, X1)
    assert all(torch.equal(a, b) for a, b in zip(before, flow.interpolant_.parameters(), strict=True))
    assert flow.n_iter_ == 120


@pytest.mark.parametrize(
    "estimator",
    [
        InterpolantFlow("learned", gamma="brownian"),
        InterpolantDiffusion("learned", gamma="quadratic"),
        InterpolantDiffusion("learned-schedule", fields="v+eta"),
    ],
)
def test_a_noise_whose_max_min_is_not_known_is_refused(estimator):
    X = np.random.default_rng(0).normal(size=(60, 2))
    with pytest.raises(ValueError, match="A learned interpolant"):
        estimator.fit(X, X + 1)


def test_a_learned_path_leaves_the_users_instance_and_the_global_generator_alone():
    X = np.random.default_rng(0).normal(size=(60, 2))
    own, state = LearnedInterpolant(), torch.get_rng_state()
    flow = InterpolantFlow(own, max_iter=20, **SMALL).fit(X, X + 1)
    assert own.network is None and flow.interpolant_ is not own
    assert torch.equal(state, torch.get_rng_state())
    assert not hasattr(flow.set_params(interpolant="linear").fit(X, X + 1), "action_curve_")


def test_schedules_are_linear_in_space_and_paths_are_not():
    assert LearnedSchedule().is_linear and not LearnedInterpolant().is_linear


@pytest.fixture(scope="module")
def rectified():
    """A flow that is bent, its scores and steps before, and after two rounds."""
    rng = np.random.default_rng(0)
    X0 = rng.normal(size=(2000, 2))
    X1 = rng.normal(size=(2000, 2)) * 0.4 + np.where(rng.random((2000, 1)) < 0.5, 1.5, -1.5) * [1.0, 0.3]
    flow = InterpolantFlow(base_density="standard_normal", max_iter=400, hidden_layer_sizes=(48, 48), random_state=0)
    flow.fit(X0, X1)
    before = flow.score(X1[:500]), flow.transform(X0[:500]), path_energy(flow, X0[:500])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rectification, "_PAIRS", 8000)
        return flow.rectify(2, max_iter=400), X0, X1, before


def test_a_rectified_flow_is_straight_and_keeps_distribution_and_map(rectified):
    flow, X0, X1, (score, ends, energy) = rectified
    report = flow.rectification_report_
    assert report.straightness[1] < 0.02 * report.straightness[0]
    assert abs(flow.score(X1[:500]) - score) < 0.05
    # invertible and exact, it is the same map along another path
    assert np.sqrt(((flow.transform(X0[:500]) - ends) ** 2).mean()) < 0.1
    assert path_energy(flow, X0[:500]) < 0.95 * energy
    one = flow.set_params(solver="euler", n_steps=1).sample(2000, random_state=0)
    many = flow.set_params(solver="rk4", n_steps=32).sample(2000, random_state=0)
    assert np.sqrt(((one - many) ** 2).mean()) < 0.1 * X1.std()
    assert flow.sampling_grid_[0] <= 4


def test_what_rows_are_moved_by_is_the_sum_that_theory_says(rectified):
    """E|X1 - X0|^2 = E|Z1 - Z0|^2 + straightness + crossing (2209.03003), and it never grows."""
    report = rectified[0].rectification_report_
    assert np.isnan(report.crossing[0]) and len(report.distance) == 3
    for k in (1, 2):
        parts = report.distance[k] + report.straightness[k] + report.crossing[k]
        assert report.coupling_distance[k] == pytest.approx(parts, rel=0.02)
        assert report.distance[k] < 1.01 * report.distance[k - 1] == 1.01 * report.coupling_distance[k]


def test_the_report_on_a_model_pairs_rows_as_the_model_does(rectified):
    """Losses by time are those of the distribution that the fields were fitted to, not of independent ends."""
    rng = np.random.default_rng(0)
    X0, X1 = rng.normal(size=(700, 2)), rng.normal([2.0, 0.0], size=(600, 2))
    params = {"max_iter": 20, "hidden_layer_sizes": (8,), "base_density": None, "random_state": 0}
    params["preprocessing"] = None
    distances = {}
    for name, model in {
        "independent": InterpolantFlow(**params),
        "optimal": InterpolantFlow(coupling="optimal", **params),
        "entropic": InterpolantDiffusion(coupling="entropic", gamma_scale=0.4, **params),
        "bridge": SchroedingerBridge(0.2, "mixture", n_components=1, preprocessing=None, base_density=None),
    }.items():
        x0, x1, _ = scaled_pairs(model.fit(X0, X1).model_, X0, X1)
        assert x0.shape == x1.shape == (700, 2)
        distances[name] = float((x1 - x0).square().sum(1).mean())
    # 4 by the shift; of a plan of diffusion epsilon 2 * 2 (1 - k) more, with k = sqrt(1 + epsilon^2) - epsilon
    k = np.sqrt(1.04) - 0.2
    assert distances["optimal"] < 4.5 < distances["entropic"] < distances["independent"] - 2
    assert distances["entropic"] == pytest.approx(4 + 4 * (1 - k), rel=0.15)
    assert distances["bridge"] == pytest.approx(distances["entropic"], rel=0.15)
    flow, X0, X1, _ = rectified
    x0, x1, _ = scaled_pairs(flow.model_, X0[:50], X1[:50])
    ends = flow.preprocessing_.inverse_transform(x1.numpy())
    np.testing.assert_allclose(ends, flow.transform(flow.base_preprocessing_.inverse_transform(x0.numpy())), atol=0.01)


def test_an_interrupted_path_is_not_trained_further(monkeypatch):
    """The first training stops as the user asks; no second one follows."""
    rng = np.random.default_rng(0)
    X0, X1 = rng.normal(size=(60, 2)), rng.normal(size=(60, 2)) + 1
    calls = []
    original = _batches.Batches.loss

    def loss(self):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(_batches.Batches, "loss", loss)
    for model in (
        InterpolantFlow("learned", max_iter=40, **SMALL),
        SchroedingerBridge(method="network", max_iter=40, base_density=None),
    ):
        calls.clear()
        with pytest.warns(ConvergenceWarning, match="interrupted after 6 steps"):
            model.fit(X0, X1)
        assert len(calls) == 7 and model.n_iter_ == 6 and np.isfinite(model.transform(X0)).all()


def test_one_sample_may_be_rectified_and_knows_its_score_no_longer():
    X = np.random.default_rng(0).normal(size=(400, 2)) * [1.0, 3.0]
    flow = InterpolantFlow(preprocessing="standardize", max_iter=100, hidden_layer_sizes=(16,), random_state=0).fit(X)
    score = flow.score(X)
    assert abs(flow.rectify(max_iter=100).score(X) - score) < 0.05
    with pytest.raises(ValueError, match="a rectified flow knows no score"):
        flow.set_params(noise_level=0.5).sample(3)


@pytest.mark.parametrize("estimator", [InterpolantFlow(interpolant="mirror"), InterpolantDiffusion()])
def test_only_flows_are_rectified(estimator):
    X = np.random.default_rng(0).normal(size=(60, 2))
    estimator.set_params(max_iter=2, hidden_layer_sizes=(4,), base_density=None)
    estimator.fit(*([X] if estimator.interpolant == "mirror" else [X, X + 1]))
    with pytest.raises(ValueError, match="rectify needs an unconditional flow from a base"):
        estimator.rectify()
    flow = InterpolantFlow(max_iter=2, hidden_layer_sizes=(4,), preprocessing="standardize").fit(X, condition=X[:, 0])
    with pytest.raises(ValueError, match="rectify needs an unconditional flow"):
        flow.rectify()
    with pytest.raises(ValueError, match="n_rounds=0, but expected an integer of at least 1"):
        flow.rectify(0)


def test_the_report_of_a_transport_of_shifted_rows():
    """A shift is optimal: nothing is lost on the way."""
    rng = np.random.default_rng(0)
    shift = np.array([3.0, 0.0])
    X0, X1 = rng.normal(size=(300, 2)), rng.normal(size=(300, 2)) + shift
    flow = InterpolantFlow(coupling="paired", base_density=None, max_iter=20, random_state=0).fit(X0, X0 + shift)
    report = transport_report(flow, X0, X1)
    assert report.displacement == pytest.approx(9.0, rel=0.1) and report.path_energy == pytest.approx(9.0, rel=0.1)
    assert report.normalized_path_energy == pytest.approx(abs(report.path_energy / report.shortest - 1))
    assert report.distance < 2 * report.floor
    assert wasserstein_distance(X0, X0[::-1]) == pytest.approx(0.0, abs=1e-7)
    with pytest.raises(ValueError, match="n_times=1, but expected"):
        path_energy(flow, X0, n_times=1)


def test_moments_of_a_plan():
    rng = np.random.default_rng(0)
    X0, X1 = rng.normal(size=(2000, 2)), rng.normal(size=(2000, 2)) + 1
    bridge = SchroedingerBridge(0.5, "mixture", n_components=1, base_density=None, preprocessing=None, random_state=0)
    moments = plan_moments(bridge.fit(X0, X1), X0[:3], n_draws=4000)
    np.testing.assert_allclose(moments.mean, bridge.transform(X0[:3]), atol=0.1)
    # between standard normal distributions Cov(x1 | x0) = 1 - k^2 with k = sqrt(1 + epsilon^2) - epsilon
    k = np.sqrt(1.25) - 0.5
    np.testing.assert_allclose(moments.covariance, np.broadcast_to((1 - k**2) * np.eye(2), (3, 2, 2)), atol=0.1)
    with pytest.raises(ValueError, match="n_draws=1, but expected"):
        plan_moments(bridge, X0, n_draws=1)
