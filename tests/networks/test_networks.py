"""The networks, their exact divergence, and the closed-form field around which they are trained."""

import numpy as np
import pytest
import torch
from torch import nn

from oracles import MixtureFields, mixture
from sklearn_si.interpolants import GaussianBase, Linear, Trigonometric, VariancePreserving, make_interpolant
from sklearn_si.networks import (
    ACTIVATIONS,
    MLP,
    ComposedVelocity,
    FiLMNetwork,
    MixtureVelocity,
    PreconditionedField,
    _divergence,
    velocity_and_divergence,
)
from sklearn_si.networks import _perceptrons as _perceptrons

LAYERS = [(5,), (5, 6), (6, 4, 5), (4, 6, 5, 3)]  # unequal widths: a transposed weight does not fit
DIMENSIONS = [1, 2, 7]
N_ROWS, N_CONDITIONS = 6, 3
# Inside, at the ends, and so near them that a quotient of small numbers would show.
TIMES = torch.tensor([0.0, 1e-12, 1e-4, 0.1, 0.4, 0.5, 0.8, 1 - 1e-4, 1 - 1e-12, 1.0], dtype=torch.float64)

# Sums of some hundred products of numbers of order one; 1e-12 of their size is rounding.
ROUNDING = {"rtol": 1e-12, "atol": 1e-12}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normals(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def random_network(d, layers, activation="silu", n_conditions=0):
    """A network none of whose parameters is zero."""
    network = FiLMNetwork(d, n_conditions, layers, activation, generator()).double()
    with torch.no_grad():
        for i, (name, p) in enumerate(network.named_parameters()):
            # scales of the layers stay around one
            p.copy_(0.5 * normals(*p.shape, seed=i + 1) + (p if name == "modulation" else 0))
    return network


def variances(d):
    """Two variances a feature and a covariance that they allow."""
    v0, v1 = torch.linspace(0.5, 2.0, d).double(), torch.linspace(3.0, 0.2, d).double()
    return v0, v1, torch.linspace(-0.8, 0.9, d).double() * (v0 * v1).sqrt()


def inputs(d, timed, conditioned):
    """Times of shape (n,) or (), rows, and the condition or None."""
    t = torch.linspace(0.05, 0.95, N_ROWS).double() if timed else torch.tensor(0.3).double()
    return t, normals(N_ROWS, d, seed=7), normals(N_ROWS, N_CONDITIONS, seed=8) if conditioned else None


def autograd_divergence(field, t, x, condition):
    """The trace of df/dx, one backward pass a feature: rows do not see each other."""
    x = x.clone().requires_grad_()
    value = field(t, x, condition)
    return sum(torch.autograd.grad(value[:, j].sum(), x, retain_graph=True)[0][:, j] for j in range(x.shape[1]))


SHAPES = [
    pytest.param(timed, conditioned, id=f"{'t-row' if timed else 't-scalar'}{'-condition' if conditioned else ''}")
    for timed in (False, True)
    for conditioned in (False, True)
]

PATHS = {
    "one-sided": (GaussianBase(Linear()), "velocity", False),
    "two-sided": (Linear("brownian"), "velocity", False),
    "two-sided-correlated": (Linear("brownian", 0.7), "velocity", True),
    "denoiser": (Linear("brownian"), "denoiser", False),
    "denoiser-correlated": (Trigonometric("quadratic", 2.0), "denoiser", True),
}


def preconditioned(path, network, d):
    interpolant, target, correlated = PATHS[path]
    v0, v1, c = variances(d)
    return PreconditionedField(interpolant, network, target, v0, v1, c if correlated else None)


# ------------------------------------------------------------------- the exact divergence


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layers", LAYERS, ids=len)
def test_trace_of_the_network_equals_autograd(layers, activation, d):
    for timed, conditioned in [(a, b) for a in (False, True) for b in (False, True)]:
        t, x, condition = inputs(d, timed, conditioned)
        network = random_network(d, layers, activation, N_CONDITIONS if conditioned else 0)
        value, trace = network.value_and_trace(t, x, condition)
        assert value.shape == (N_ROWS, d) and trace.shape == (N_ROWS,)
        torch.testing.assert_close(value, network(t, x, condition), **ROUNDING)
        torch.testing.assert_close(trace, autograd_divergence(network, t, x, condition), **ROUNDING)


@pytest.mark.parametrize(("timed", "conditioned"), SHAPES)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("layers", LAYERS, ids=len)
def test_divergence_of_the_preconditioned_field_equals_autograd(layers, d, path, timed, conditioned):
    t, x, condition = inputs(d, timed, conditioned)
    field = preconditioned(path, random_network(d, layers, n_conditions=N_CONDITIONS if conditioned else 0), d)
    value, divergence = field.velocity_and_divergence(t, x, condition)
    assert divergence.shape == (N_ROWS,)
    torch.testing.assert_close(value, field(t, x, condition), **ROUNDING)
    torch.testing.assert_close(divergence, autograd_divergence(field, t, x, condition), **ROUNDING)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("layers", LAYERS, ids=len)
def test_the_field_at_known_times_is_the_field(layers, path):
    times = torch.tensor([0.0, 0.3, 0.5, 1.0], dtype=torch.float64)
    _, x, _ = inputs(2, False, False)
    field = preconditioned(path, random_network(2, layers), 2)
    for t, at in zip(times, field.instants(times), strict=True):
        torch.testing.assert_close(at(x), field(t, x), **ROUNDING)


@pytest.mark.parametrize("layers", LAYERS, ids=len)
def test_the_field_at_known_times_is_the_field_given_a_condition(layers):
    times = torch.tensor([0.0, 0.3, 0.5, 1.0], dtype=torch.float64)
    _, x, condition = inputs(2, False, True)
    field = preconditioned("one-sided", random_network(2, layers, n_conditions=N_CONDITIONS), 2)
    for t, at in zip(times, field.instants(times, condition), strict=True):
        torch.testing.assert_close(at(x), field(t, x, condition), **ROUNDING)


def test_a_velocity_of_drift_and_score_at_known_times_is_the_velocity():
    times = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    _, x, condition = inputs(2, False, True)
    parts = [preconditioned("one-sided", random_network(2, (8, 8), n_conditions=N_CONDITIONS), 2) for _ in range(2)]
    path = make_interpolant("linear", "brownian", 1.0, two_samples=True, latent_noise=True)
    for field in (ComposedVelocity(path, *parts), ComposedVelocity(path, parts[0])):
        for t, at in zip(times, field.instants(times, condition), strict=True):
            torch.testing.assert_close(at(x), field(t, x, condition), **ROUNDING)
    assert ComposedVelocity(path, parts[0], torch.nn.Linear(2, 2)).instants(times) is None


@pytest.mark.parametrize("block", [1, 50, 100])
@pytest.mark.parametrize("layers", LAYERS[3:], ids=len)
def test_blocks_of_tangents_do_not_change_the_trace(layers, block, monkeypatch):
    """Blocks of one row, of one row again (50 < 2 * 7 * 6), and of two."""
    t, x, condition = inputs(7, True, True)
    network = random_network(7, layers, n_conditions=N_CONDITIONS)
    whole = network.value_and_trace(t, x, condition)[1]
    sizes = []
    original = _divergence._trace_by_tangents
    monkeypatch.setattr(_divergence, "_TANGENT_BLOCK", block)
    monkeypatch.setattr(_divergence, "_trace_by_tangents", lambda w, o, s: sizes.append(len(s[0])) or original(w, o, s))
    torch.testing.assert_close(network.value_and_trace(t, x, condition)[1], whole, **ROUNDING)
    assert set(sizes) == {max(1, block // 42)} and sum(sizes) == N_ROWS


@pytest.mark.parametrize("block", [1, 50, 100, 10_000])
def test_blocks_of_products_do_not_change_the_trace(block, monkeypatch):
    t, x, condition = inputs(7, True, True)
    network = random_network(7, LAYERS[2], n_conditions=N_CONDITIONS)
    whole = network.value_and_trace(t, x, condition)[1]
    monkeypatch.setattr(_divergence, "_TANGENT_BLOCK", block)
    monkeypatch.setattr(_divergence, "_PRODUCT_BLOCK", block)
    torch.testing.assert_close(network.value_and_trace(t, x, condition)[1], whole, **ROUNDING)


@pytest.mark.parametrize("conditioned", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layers", LAYERS, ids=len)
@pytest.mark.parametrize("cls", [FiLMNetwork, MLP])
def test_hand_written_gradients_equal_autograd(cls, layers, activation, conditioned):
    for d in (2, 70):  # narrow and wide products
        t, x, condition = inputs(d, True, conditioned)
        network = cls(d, N_CONDITIONS if conditioned else 0, layers, activation, generator()).double()
        with torch.no_grad():
            for i, p in enumerate(network.parameters()):
                p.copy_(0.3 * normals(*p.shape, seed=i + 1))
        pull = normals(N_ROWS, d, seed=3)
        value = network(t, x, condition)
        expected = torch.autograd.grad((value * pull).sum(), list(network.parameters()))
        for p in network.parameters():
            p.grad = torch.zeros_like(p)
        features, rows = network.prepare(t, x, condition)
        output, tape = network.forward_with_cache(features, rows)
        torch.testing.assert_close(output, value.detach(), **ROUNDING)
        network.backward(tape, features, pull)
        for p, gradient in zip(network.parameters(), expected, strict=True):
            torch.testing.assert_close(p.grad, gradient, **ROUNDING)


@pytest.mark.parametrize(("timed", "conditioned"), SHAPES)
def test_the_trace_of_a_plain_perceptron_equals_autograd(timed, conditioned):
    for layers in LAYERS:
        t, x, condition = inputs(2, timed, conditioned)
        network = MLP(2, N_CONDITIONS if conditioned else 0, layers, "tanh", generator()).double()
        torch.nn.init.normal_(network.output, generator=generator())
        value, trace = network.value_and_trace(t, x, condition)
        torch.testing.assert_close(value, network(t, x, condition), **ROUNDING)
        torch.testing.assert_close(trace, autograd_divergence(network, t, x, condition), **ROUNDING)
        for own, generic in zip(velocity_and_divergence(network, t, x, condition), (value, trace), strict=True):
            torch.testing.assert_close(own, generic, **ROUNDING)


class Plain(nn.Module):
    """A field as a user writes it, without a divergence of its own."""

    def __init__(self, d, n_conditions):
        super().__init__()
        self.inner, self.outer = nn.Linear(d + 1 + n_conditions, 8), nn.Linear(8, d)

    def forward(self, t, x, condition=None):
        columns = [x, t.reshape(-1, 1).expand(len(x), 1), *([] if condition is None else [condition])]
        return self.outer(torch.tanh(self.inner(torch.cat(columns, 1))))


@pytest.mark.parametrize(("timed", "conditioned"), SHAPES)
@pytest.mark.parametrize("d", DIMENSIONS)
def test_generic_divergence_of_a_plain_module_equals_autograd(d, timed, conditioned):
    t, x, condition = inputs(d, timed, conditioned)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Plain(d, N_CONDITIONS if conditioned else 0).double()
    value, divergence = velocity_and_divergence(module, t, x, condition)
    torch.testing.assert_close(value, module(t, x, condition), **ROUNDING)
    torch.testing.assert_close(divergence, autograd_divergence(module, t, x, condition), **ROUNDING)


def test_the_modules_own_divergence_is_preferred():
    field = preconditioned("two-sided", random_network(2, (5, 6)), 2)
    t, x, _ = inputs(2, True, False)
    generic = velocity_and_divergence(field.forward, t, x)
    for a, b in zip(velocity_and_divergence(field, t, x), generic, strict=True):
        torch.testing.assert_close(a, b, **ROUNDING)
    field.velocity_and_divergence = lambda *_: "its own"
    assert velocity_and_divergence(field, t, x) == "its own"


# -------------------------------------------------------- the closed form around the network


def gaussian_ends():
    """Every named path, for the ends that it takes: a Gaussian base or a sample."""
    for two_samples, names in {
        False: ["linear", "trigonometric", "trigonometric-preserving", "vp", "mirror"],
        True: ["linear", "trigonometric", "trigonometric-preserving", "encoding-decoding",
               "encoding-decoding-preserving"],
    }.items():  # fmt: skip
        for name in names:
            for gamma in ["auto"] if name in ("vp", "mirror") else ["auto", "brownian", "quadratic"]:
                path = make_interpolant(name, gamma, 0.5, two_samples=two_samples, latent_noise=False)
                yield pytest.param(path, id=f"{'two' if two_samples else 'one'}-{name}-{gamma}")


def fresh(path, target, d, c=None):
    """The field before training, with its exact counterpart."""
    v0, v1, _ = variances(d)
    if path.path_type != "two-sided":
        v0 = torch.ones(d, dtype=torch.float64)
    field = PreconditionedField(path, FiLMNetwork(d, 0, (8, 8), "silu", generator()).double(), target, v0, v1, c)
    one, zero = np.ones(1), np.zeros((1, d))
    return field, MixtureFields(path, one, zero, v1.diag()[None], one, zero, v0.diag()[None])


def finite_times(path):
    """Times at which the exact field is finite and continuous: encoding-decoding has a jump at 1/2."""
    return [t for t in TIMES if t != 0.5 or not hasattr(path, "crossing")]


@pytest.mark.parametrize("path", list(gaussian_ends()))
def test_a_fresh_velocity_is_the_exact_one_of_gaussian_ends(path):
    d = 3
    field, exact = fresh(path, "velocity", d)
    x = normals(20, d)
    for t in finite_times(path):
        torch.testing.assert_close(field(t, x), exact(t, x), **ROUNDING)
        for ours, theirs in zip(field.velocity_and_divergence(t, x), exact.velocity_and_divergence(t, x), strict=True):
            torch.testing.assert_close(ours, theirs, **ROUNDING)


@pytest.mark.parametrize("path", [p for p in gaussian_ends() if p.values[0].path_type != "one-sided"])
def test_a_fresh_denoiser_is_the_exact_one_of_gaussian_ends(path):
    d = 3
    field, exact = fresh(path, "denoiser", d)
    x = normals(20, d)
    for t in finite_times(path):
        torch.testing.assert_close(field(t, x), exact.denoiser(t, x), **ROUNDING)


@pytest.mark.parametrize("gamma", ["brownian", "quadratic", "sine-squared"])
def test_the_score_is_minus_the_denoiser_over_gamma_without_the_division(gamma):
    d = 2
    path = Linear(gamma, 1.3)
    field, exact = fresh(path, "denoiser", d)
    x = normals(20, d)
    for t in TIMES:
        torch.testing.assert_close(field.as_score()(t, x), exact.score_function(t, x), **ROUNDING)
    field.network = random_network(d, (5, 6))
    t = torch.linspace(0, 1, 20).double()
    torch.testing.assert_close(field.as_score()(t, x) * path.gamma(t)[:, None], -field(t, x), **ROUNDING)


@pytest.mark.parametrize("gamma", [None, "brownian", "quadratic"])
@pytest.mark.parametrize("cls", [Linear, Trigonometric])
def test_a_fresh_velocity_is_the_exact_one_of_correlated_gaussian_ends(cls, gamma):
    """b = Cov(dx_t/dt, x_t) C^-1 x (theory 9.3), from the distribution of (x0, x1, z) and autograd in time."""
    path, d = cls(gamma, 0.7), 3
    v0, v1, c = variances(d)
    field, _ = fresh(path, "velocity", d, c)
    x = normals(20, d)
    joint = torch.zeros(d, 3, 3, dtype=torch.float64)
    joint[:, 0, 0], joint[:, 1, 1], joint[:, 2, 2] = v0, v1, 1.0
    joint[:, 0, 1] = joint[:, 1, 0] = c

    def weights(t):
        return torch.stack([path.alpha(t), path.beta(t), path.gamma(t)])

    for t in TIMES[2:-2]:  # autograd of gamma is infinite at the ends
        w, w_dot = weights(t), torch.func.jacfwd(weights)(t)
        exact = (w_dot @ joint @ w) / (w @ joint @ w) * x
        torch.testing.assert_close(field(t, x), exact, **ROUNDING)


def test_correlated_ends_of_the_brownian_path_have_their_limits():
    v0, v1, c = variances(3)
    field, _ = fresh(Linear("brownian"), "velocity", 3, c)
    x = normals(20, 3)
    torch.testing.assert_close(field(TIMES[0], x), (c + 0.5 - v0) / v0 * x, **ROUNDING)
    torch.testing.assert_close(field(TIMES[-1], x), (v1 - c - 0.5) / v1 * x, **ROUNDING)


@pytest.mark.parametrize("path", list(gaussian_ends()))
def test_a_trained_field_is_finite_up_to_both_ends(path):
    d = 3
    targets = ["velocity"] if path.path_type == "one-sided" else ["velocity", "denoiser"]
    for target in targets:
        field, _ = fresh(path, target, d)
        field.network = random_network(d, (5, 6))
        x = normals(len(TIMES), d)
        value, divergence = field.velocity_and_divergence(TIMES, x)
        assert torch.isfinite(value).all() and torch.isfinite(divergence).all()


# ------------------------------------------------------------------- the network of time


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_network_is_finite_and_smooth_a_little_outside_the_interval(dtype):
    """A stage of a solver may land there by rounding; nothing is clamped on the way."""
    network = random_network(2, (5, 6)).to(dtype)
    t = torch.tensor([-0.01, 1.01], dtype=dtype)
    value, trace = network.value_and_trace(t, torch.ones(2, 2, dtype=dtype))
    assert torch.isfinite(value).all() and torch.isfinite(trace).all()
    slopes = torch.func.vmap(torch.func.jacfwd(_perceptrons.time_features))(
        torch.tensor([-0.01, 0, 1, 1.01], dtype=dtype)
    )
    assert torch.isfinite(slopes).all()
    assert (slopes[:, :2] > 0).all()  # 2 t - 1 and u go on rising


def test_time_features_are_bounded_and_tell_times_apart():
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    features = _perceptrons.time_features(t)
    assert features.shape == (1001, _perceptrons.N_TIME_FEATURES)
    assert features.abs().max() <= 1
    # by symmetry of u under t -> 1 - t: odd features change sign, cosines do not
    signs = torch.tensor([-1, -1, -1, 1, -1, 1, -1, 1], dtype=torch.float64)
    torch.testing.assert_close(features.flip(0), features * signs, **ROUNDING)
    # the first and the last hundredth of the interval get more than twice their share
    steps = features.diff(dim=0).norm(dim=1)
    assert steps[:10].sum() > 2 * steps.mean() * 10 and steps[-10:].sum() > 2 * steps.mean() * 10


def test_a_fresh_network_is_zero_and_its_seed_is_the_generator_alone():
    before = torch.get_rng_state()
    one, same, other = (FiLMNetwork(3, 2, (8, 8, 8), "tanh", generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    for name, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[name]), name
        if name.startswith(("weights",)):
            assert not torch.equal(value, other.state_dict()[name]), name
    assert not one(torch.tensor(0.5), torch.ones(4, 3), torch.ones(4, 2)).any()


def test_the_dtype_follows_the_input():
    field = preconditioned("two-sided", random_network(2, (5, 6, 4)), 2)
    for dtype in (torch.float32, torch.float64):
        cast = field.to(dtype)
        value, divergence = cast.velocity_and_divergence(torch.tensor(0.5, dtype=dtype), torch.ones(4, 2, dtype=dtype))
        assert value.dtype == divergence.dtype == dtype


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize(
    "path", [GaussianBase(Linear()), GaussianBase(Linear("brownian")), GaussianBase(VariancePreserving())]
)
def test_mixture_velocity_is_the_exact_field_of_its_mixture(path, timed):
    """Theory 8.6, with its divergence; and around a network the divergence is that of autograd."""
    rng = np.random.default_rng(0)
    distribution = mixture(rng, 3, 4)
    exact = MixtureFields(path, *distribution)
    network = random_network(4, (6, 5))
    field = MixtureVelocity(path, network, *(torch.as_tensor(part) for part in distribution)).double()
    x = torch.as_tensor(rng.normal(size=(7, 4)))
    t = torch.linspace(0.05, 0.95, 7).double() if timed else torch.tensor(0.7).double()
    value, divergence = field.velocity_and_divergence(t, x)
    torch.testing.assert_close(value, field(t, x), **ROUNDING)
    torch.testing.assert_close(divergence, autograd_divergence(field, t, x, None), **ROUNDING)
    for moment, at in zip(t.reshape(-1), field.instants(t.reshape(-1)), strict=True):
        torch.testing.assert_close(at(x), field(moment, x), **ROUNDING)
    with torch.no_grad():
        network.output.zero_()
        network.bias.zero_()
    for own, true in zip(field.velocity_and_divergence(t, x), exact.velocity_and_divergence(t, x), strict=True):
        torch.testing.assert_close(own, true, **ROUNDING)
