"""Schroedinger bridges against the closed form of normal distributions, and against their own definition."""

import time
import warnings

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from oracles import random_covariances
from sklearn_si import SchroedingerBridge
from sklearn_si._estimators.bridge_fields import BridgeField
from sklearn_si._estimators.bridge_potentials import MixturePotential, _losses, fit_potential, normal_potential
from sklearn_si.couplings import conditional_covariance
from sklearn_si.interpolants import Linear
from sklearn_si.networks import FiLMNetwork

EPSILONS = [0.05, 0.5, 3.0]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def potential(k=3, d=2, epsilon=0.3, seed=0):
    g = generator(seed)
    factors = 0.5 * torch.randn(k, d, d, generator=g).double()
    matrices = factors @ factors.transpose(1, 2) + 0.3 * torch.eye(d).double()
    weights = torch.log_softmax(torch.randn(k, generator=g).double(), 0)
    shifts = torch.randn(k, d, generator=g).double()
    return MixturePotential(epsilon, torch.full((d,), 0.2).double(), weights, shifts, matrices)


class NormalBridge:
    """The bridge between two normal distributions (theory 9.5)."""

    def __init__(self, d, epsilon, seed=0):
        rng = np.random.default_rng(seed)
        self.epsilon, (self.m0, self.m1) = epsilon, rng.normal(size=(2, d))
        self.s0, self.s1 = random_covariances(rng, 2, d)
        conditional = conditional_covariance(self.s0, self.s1, epsilon)
        self.k = self.s0 @ conditional / (2 * epsilon)  # Cov(x0, x1)

    def distribution(self, t):
        mixed = t * (1 - t) * (self.k + self.k.T + 2 * self.epsilon * np.eye(len(self.m0)))
        return (1 - t) * self.m0 + t * self.m1, (1 - t) ** 2 * self.s0 + t**2 * self.s1 + mixed

    def drift(self, t, x):
        mean, covariance = self.distribution(t)
        inner = t * self.s1 + (1 - t) * self.k.T - (1 - t) * self.s0 - t * self.k
        slope = (inner - 2 * t * self.epsilon * np.eye(len(mean))) @ np.linalg.inv(covariance)
        return self.m1 - self.m0 + (x - mean) @ slope.T, np.trace(slope)

    def samples(self, n, seed=1):
        rng = np.random.default_rng(seed)
        return rng.multivariate_normal(self.m0, self.s0, n), rng.multivariate_normal(self.m1, self.s1, n)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("d", [1, 3])
def test_the_potential_of_normal_distributions_gives_the_drift_of_their_bridge(d, epsilon, t):
    bridge = NormalBridge(d, epsilon)
    own = normal_potential(bridge.m0, bridge.s0, bridge.m1, bridge.s1, epsilon)
    x = torch.as_tensor(np.random.default_rng(2).normal(size=(20, d)))
    u, divergence = own.drift_and_divergence(torch.tensor(t).double(), x)
    drift, trace = bridge.drift(float(np.float64(t)), x.numpy())
    np.testing.assert_allclose(u, drift, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(divergence, trace, rtol=1e-7)


@pytest.mark.parametrize("t", [0.0, 0.4, 0.99])
def test_the_drift_is_the_way_to_the_mean_of_the_partners_still_ahead(t):
    """u = (E[x1 | x_t = x] - x) / (1 - t), with x1 of density ~ exp(x1^2 / 4 eps) v(x1) N(x1; x, 2 eps (1 - t))."""
    own = potential(k=3, d=1)
    shifts = (own.axes[0] * own.shifts[:, 0]).numpy()

    def density(x1, x):
        y = x1 - 0.2
        v = np.exp(own.log_weights.numpy()) * norm.pdf(y, shifts, np.sqrt(0.6 * own.values[:, 0].numpy()))
        return v.sum() * np.exp(y**2 / 1.2 - (x1 - x) ** 2 / (1.2 * (1 - t)))

    for x in (-1.0, 0.5):
        mass, _ = quad(density, -15, 15, args=(x,), points=[-2, 0, 2], limit=200)
        mean, _ = quad(lambda x1, x=x: x1 * density(x1, x), -15, 15, points=[-2, 0, 2], limit=200)
        drift = own.drift(torch.tensor(t).double(), torch.tensor([[x]]).double()).item()
        assert drift == pytest.approx((mean / mass - x) / (1 - t), rel=1e-6)


@pytest.mark.parametrize("timed", [False, True])
def test_the_divergence_of_a_mixture_drift_is_that_of_autograd(timed):
    own, x = potential(), torch.randn(6, 2, generator=generator(1)).double().requires_grad_()
    t = torch.linspace(0, 1, 6).double() if timed else torch.tensor(0.7).double()
    u, divergence = own.drift_and_divergence(t, x)
    trace = sum(torch.autograd.grad(u[:, j].sum(), x, retain_graph=True)[0][:, j] for j in range(2))
    torch.testing.assert_close(divergence, trace)


def test_draws_of_the_plan_have_its_mean_and_covariance():
    own, x0 = potential(k=1), torch.full((100_000, 2), 0.7).double()
    partners = own.draw(x0, generator())
    torch.testing.assert_close(partners.mean(0), own.mean(x0[:1])[0], rtol=0, atol=0.01)
    axes = own.axes
    expected = 2 * own.epsilon * axes @ torch.diag(own.values[0]) @ axes.T
    torch.testing.assert_close(torch.cov(partners.T), expected, rtol=0, atol=0.01)


def test_more_components_fit_a_distribution_that_one_does_not():
    x0 = torch.randn(1500, 2, generator=generator()).double()
    x1 = 0.3 * torch.randn(1500, 2, generator=generator(1)).double()
    x1[:750, 0] += 2.0
    fresh0 = torch.randn(1500, 2, generator=generator(2)).double()
    losses = {}
    for k in (1, 4):
        own = fit_potential(x0[:1000], x1[::2], 0.1, k, generator())
        losses[k] = float(_losses(own, fresh0, x1[1::2]).mean())
    assert losses[4] < losses[1] - 0.2
    assert len(fit_potential(x0, x1, 0.1, "auto", generator()).log_weights) > 1
    assert len(fit_potential(x0, 0.5 * x0.flip(0), 0.1, "auto", generator()).log_weights) == 1


@pytest.mark.parametrize("target", ["velocity", "denoiser"])
@pytest.mark.parametrize("layers", [None, (6, 5)])
def test_the_fields_of_a_bridge(target, layers):
    """Divergence by autograd, known times, and the score of the denoiser."""
    path, one = Linear("brownian", 0.6), torch.ones(2).double()
    network = None
    if layers is not None:
        network = FiLMNetwork(2, 0, layers, "silu", generator()).double()
        torch.nn.init.normal_(network.output, generator=generator(3))
    field = BridgeField(path, network, target, one, one, None, potential(), potential(seed=1))
    x = torch.randn(5, 2, generator=generator(1)).double().requires_grad_()
    for t in (torch.tensor(0.3).double(), torch.linspace(0.1, 0.9, 5).double()):
        value, divergence = field.velocity_and_divergence(t, x)
        torch.testing.assert_close(value, field(t, x))
        trace = sum(torch.autograd.grad(value[:, j].sum(), x, retain_graph=True)[0][:, j] for j in range(2))
        torch.testing.assert_close(divergence, trace)
        if target == "denoiser":
            torch.testing.assert_close(value, -path.gamma(t).reshape(-1, 1) * field.as_score()(t, x))
    if layers is not None:
        times = torch.tensor([0.0, 0.4, 1.0]).double()
        for t, at in zip(times, field.instants(times), strict=True):
            torch.testing.assert_close(at(x), field(t, x))


def test_atoms_and_repeated_rows_make_no_point_of_a_component():
    """The density of a component at an atom would be infinite: it has a floor, and the plan keeps the moments."""
    rng = np.random.default_rng(0)
    X0 = rng.normal(size=(1500, 2))
    X1 = np.stack([np.where(rng.random(1500) < 0.4, 0, rng.exponential(size=1500)), rng.normal(size=1500)], 1)
    params = {"base_density": None, "random_state": 0}
    bridge = SchroedingerBridge(0.1, "mixture", **params).fit(X0, X1)
    partners = bridge.sample_plan(np.repeat(X0, 5, 0))
    np.testing.assert_allclose(partners.mean(0), X1.mean(0), atol=0.03)
    np.testing.assert_allclose(partners.std(0), X1.std(0), atol=0.03)
    assert float(bridge.potential_.values.min()) > 5e-3
    # few distinct rows, and a base of one point
    few = SchroedingerBridge(0.1, "mixture", n_components=16, **params).fit(X0[:80], np.repeat(X1[:4], 20, 0))
    assert len(few.potential_.log_weights) == 4 and np.isfinite(few.transform(X0)).all()
    point = SchroedingerBridge(0.1, "mixture", n_components=1, **params).fit(np.zeros((200, 2)), X0[:200] + 1)
    np.testing.assert_allclose(point.sample_plan(np.zeros((2000, 2))).mean(0), X0[:200].mean(0) + 1, atol=0.1)


def test_columns_in_unlike_units_keep_their_spread():
    rng = np.random.default_rng(0)
    X0, X1 = rng.normal(size=(3000, 2)) * [1, 1e4], rng.normal(size=(3000, 2)) * [0.5, 5e3]
    bridge = SchroedingerBridge(0.1, "mixture", n_components=1, preprocessing=None, base_density=None, random_state=0)
    np.testing.assert_allclose(bridge.fit(X0, X1).sample(3000).std(0), X1.std(0), rtol=0.05)


@pytest.mark.parametrize("method", ["mixture", "network"])
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_a_fitted_bridge_between_normal_distributions(method, epsilon):
    """Drift, plan in both directions, target distribution and log-density against the closed form."""
    truth = NormalBridge(2, epsilon)
    params = {"max_iter": 60, "hidden_layer_sizes": (16, 16), "base_density": "normal", "n_steps": 40}
    bridge = SchroedingerBridge(epsilon, method, preprocessing=None, random_state=0, **params)
    X0, X1 = truth.samples(4000)
    bridge.fit(X0, X1)
    for t in (0.0, 0.5, 1.0):
        mean, covariance = truth.distribution(t)
        X = np.random.default_rng(3).multivariate_normal(mean, covariance, 500)
        drift = bridge.velocity(X, t) + epsilon * bridge.score_function(X, t)
        expected = truth.drift(t, X)[0]
        assert ((drift - expected) ** 2).sum() < 0.1**2 * (expected**2).sum()
    slope = np.linalg.solve(truth.s0, truth.k).T
    np.testing.assert_allclose(bridge.transform(X0[:5]), truth.m1 + (X0[:5] - truth.m0) @ slope.T, atol=0.2)
    back = truth.k @ np.linalg.inv(truth.s1)
    np.testing.assert_allclose(bridge.inverse_transform(X1[:5]), truth.m0 + (X1[:5] - truth.m1) @ back.T, atol=0.2)
    for direction, X, mean in (("forward", X0, bridge.transform), ("backward", X1, bridge.inverse_transform)):
        partners = bridge.sample_plan(np.repeat(X[:1], 4000, 0), direction=direction, random_state=0)
        spread = truth.s1 - slope @ truth.k if direction == "forward" else truth.s0 - back @ truth.k.T
        np.testing.assert_allclose(partners.mean(0), mean(X[:1])[0], atol=0.1 + 0.1 * epsilon**0.5)
        np.testing.assert_allclose(np.cov(partners.T), spread, atol=0.15 * np.abs(spread).max())
    drawn = bridge.sample(4000, random_state=1)
    np.testing.assert_allclose(drawn.mean(0), truth.m1, atol=0.1)
    np.testing.assert_allclose(np.cov(drawn.T), truth.s1, atol=0.15 * truth.s1.max())
    rows = X1[:100]
    white = np.linalg.solve(np.linalg.cholesky(truth.s1), (rows - truth.m1).T)
    exact = -0.5 * (white**2).sum(0) - 0.5 * np.linalg.slogdet(2 * np.pi * truth.s1)[1]
    assert np.abs(bridge.score_samples(rows) - exact).mean() < 0.1


def test_one_sample_is_bridged_from_a_normal_distribution():
    X = np.random.default_rng(0).normal([5.0, -100.0], [0.1, 30.0], size=(3000, 2))
    params = {"max_iter": 300, "hidden_layer_sizes": (16, 16)}  # of the density of the base
    bridge = SchroedingerBridge(method="mixture", random_state=0, **params).fit(X)
    Z = bridge.transform(X)
    assert Z.shape == X.shape and np.abs(Z.mean(0)).max() < 0.2 and 0.5 < Z.std() < 1.1
    assert np.abs((bridge.inverse_transform(Z) - X).mean(0) / X.std(0)).max() < 0.2
    assert bridge.sample(3).shape == (3, 2)
    expected = norm.logpdf(X, [5.0, -100.0], [0.1, 30.0]).sum(1)
    assert np.abs(bridge.score_samples(X[:100]) - expected[:100]).mean() < 0.1


def test_draws_follow_the_seed():
    truth = NormalBridge(2, 0.5)
    X0, X1 = truth.samples(300)
    bridge = SchroedingerBridge(method="mixture", base_density=None).fit(X0, X1)
    same = [bridge.sample_plan(X0[:4], random_state=0) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert not np.array_equal(same[0], bridge.sample_plan(X0[:4], random_state=1))


def test_what_a_bridge_refuses():
    X0, X1 = NormalBridge(2, 0.5).samples(100)
    bridge = SchroedingerBridge(method="mixture", base_density=None)
    with pytest.raises(ValueError, match="Got a condition, but SchroedingerBridge has none"):
        bridge.fit(X0, X1, condition=X1[:, 0])
    with pytest.raises(ValueError, match="direction='up', but expected 'forward' or 'backward'"):
        bridge.fit(X0, X1).sample_plan(X0, direction="up")
    with pytest.raises(ValueError, match="no flow map to distill"):
        bridge.distill()


@pytest.mark.parametrize("changed", [{"epsilon": 5.0}, {"method": "network"}])
def test_a_bridge_answers_as_it_was_fitted_whatever_is_set_and_whatever_refit_raises(changed):
    rng = np.random.default_rng(0)
    X0, X1 = rng.normal(size=(200, 2)), rng.normal(3.0, 0.5, size=(150, 2))
    bridge = SchroedingerBridge(method="mixture", n_components=1, base_density=None, random_state=0).fit(X0, X1)

    def answers():
        return bridge.sample_plan(X0[:5]), bridge.transform(X0[:5]), bridge.sample(3), bridge.velocity(X0[:5], 0.3)

    expected = answers()
    bridge.set_params(**changed)
    # refused at once, after the rows were read, and with one sample, of which transform would lead the other way
    for rows in ((X0, X1 * np.nan), (X0, X1 * 1e306), (X1 * 1e306,)):
        with pytest.raises(ValueError, match=r"NaN|1e\+"):
            bridge.fit(*rows)
    for value, again in zip(expected, answers(), strict=True):
        np.testing.assert_array_equal(again, value)


def test_auto_is_the_mixture_where_held_out_rows_cannot_tell_it_and_else_the_network():
    rng = np.random.default_rng(0)
    X0 = rng.normal(size=(600, 2))
    small = {"base_density": None, "max_iter": 5, "n_rounds": 0, "hidden_layer_sizes": (8,), "random_state": 0}
    normal = SchroedingerBridge(**small).fit(X0, X0[::-1] * 0.5 + 1)
    assert normal.method_ == "mixture" and normal.history_ == []
    assert SchroedingerBridge(method="network", **small).fit(X0, X0 + 1).method_ == "network"
    # one component cannot be two clusters
    clusters = np.concatenate([X0[:300] * 0.1 - 3, X0[300:] * 0.1 + 3])
    far = SchroedingerBridge(n_components=1, **small).fit(X0, clusters)
    assert far.method_ == "network" and len(far.history_)
    assert SchroedingerBridge(n_components=4, **small).fit(X0, clusters).method_ == "mixture"


def test_the_kept_mixture_has_seen_all_rows():
    X0, X1 = NormalBridge(2, 0.5).samples(300)
    params = {"n_components": 1, "base_density": None, "random_state": 0}
    auto, mixture = (SchroedingerBridge(0.5, method, **params).fit(X0, X1) for method in ("auto", "mixture"))
    np.testing.assert_allclose(auto.transform(X0[:5]), mixture.transform(X0[:5]), rtol=1e-5)


def test_mixtures_of_many_columns_end_in_time():
    rng = np.random.default_rng(0)
    x0, x1 = torch.as_tensor(rng.normal(size=(4000, 40))), torch.as_tensor(rng.normal(size=(4000, 40)))
    x1[::2] += 3
    began = time.perf_counter()
    potential = fit_potential(x0, x1, 0.1, 8, torch.Generator().manual_seed(0), seconds=0.5)
    assert time.perf_counter() - began < 5
    assert len(potential.log_weights) == 8 and bool(torch.isfinite(potential.matrices).all())
    assert bool(torch.isfinite(potential.mean(x0[:5])).all())


@pytest.mark.parametrize("d", [1, 4])
def test_auto_takes_its_epsilon_from_the_distances_of_rows(d):
    rng = np.random.default_rng(0)
    X0, X1 = rng.normal(size=(400, d)), 5 + 3 * rng.normal(size=(300, d))
    plain = SchroedingerBridge("auto", "mixture", n_components=1, preprocessing=None, base_density=None, random_state=0)
    expected = 0.05 * (X0.var(0).sum() + X1.var(0).sum()) / 4
    bridge = plain.fit(X0, X1)
    assert bridge.epsilon_ == pytest.approx(expected)
    given = SchroedingerBridge(**plain.get_params()).set_params(epsilon=bridge.epsilon_).fit(X0, X1)
    np.testing.assert_array_equal(bridge.sample_plan(X0[:5]), given.sample_plan(X0[:5]))
    scaled = SchroedingerBridge(**plain.get_params()).set_params(preprocessing="auto").fit(1e3 * X0, 1e3 * X1)
    assert scaled.epsilon_ == pytest.approx(0.025 * d, rel=1e-6)
    weighted = SchroedingerBridge(**plain.get_params()).fit(
        X0, X1, sample_weight=(np.where(X0[:, 0] > 0, 1.0, 0.01), None)
    )
    assert weighted.epsilon_ < bridge.epsilon_
    assert SchroedingerBridge(**plain.get_params()).fit(X0).epsilon_ > 0


@pytest.mark.parametrize("ask", ["transform", "inverse_transform", "sample_plan", "backward"])
def test_rows_far_outside_those_of_fit_are_warned_of(ask):
    rng = np.random.default_rng(0)
    X0, X1 = rng.normal(size=(100, 2)), rng.normal(size=(100, 2)) + 10
    bridge = SchroedingerBridge(method="mixture", n_components=1, base_density=None, random_state=0).fit(X0, X1)
    asked = {"backward": lambda X: bridge.sample_plan(X, direction="backward")}.get(ask) or getattr(bridge, ask)
    own, name = (X0, "X0") if ask in ("transform", "sample_plan") else (X1, "X1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asked(own[:9])
    far = own[:3] + np.array([[0.0, 0.0], [0.0, 30.0], [0.0, 0.0]])
    with pytest.warns(UserWarning, match=rf"Columns of X hold values far outside those of {name} in fit: 1 \(1 rows"):
        asked(far)


def test_rows_far_outside_the_one_sample_of_fit_are_warned_of():
    X = np.random.default_rng(0).normal(size=(100, 2))
    bridge = SchroedingerBridge(method="mixture", n_components=1, base_density=None, random_state=0).fit(X)
    for asked in (bridge.transform, lambda rows: bridge.sample_plan(rows, direction="backward")):
        with pytest.warns(UserWarning, match="far outside those of X in fit"):
            asked(X[:3] + 50)
