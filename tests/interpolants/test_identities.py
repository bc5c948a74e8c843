"""Equations and identities of the fields, for every path with every latent noise, against Gaussian mixtures."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from oracles import Denoiser, MixtureFields, mixture, moments, sample_mixture
from sklearn_si._model.fields import Fields, denoiser_from_velocity
from sklearn_si._training.losses import field_loss
from sklearn_si.interpolants import (
    EncodingDecoding,
    EncodingDecodingPreserving,
    GaussianBase,
    Linear,
    Mirror,
    Trigonometric,
    VariancePreserving,
)
from sklearn_si.solvers import odeint, sdeint, time_grid
from test_named import instances

# Clear of t = 1/2, where alpha and beta of encoding-decoding have kinks.
TIMES = torch.tensor([5e-4, 0.05, 0.23, 0.41, 0.59, 0.77, 0.95, 1 - 5e-4], dtype=torch.float64)
START, STOP = torch.tensor([0.0, 1.0], dtype=torch.float64)


def cases():
    """Every path between two samples (or from one to itself), and every one from a Gaussian base."""
    for instance in instances():
        path = instance.values[0]
        if path.path_type != "one-sided":
            yield pytest.param(path, id=instance.id)
        if path.path_type != "mirror":
            yield pytest.param(GaussianBase(path), id=f"gaussian-base-{instance.id}")


over_paths = pytest.mark.parametrize("path", list(cases()))


@dataclasses.dataclass
class Problem:
    """A path between two mixtures, its exact fields, and draws of (x0, x1, z)."""

    path: object
    base: tuple
    target: tuple
    fields: MixtureFields

    def draw(self, n, seed=0):
        rng = np.random.default_rng(seed)
        ends = (sample_mixture(rng, n, *self.base), sample_mixture(rng, n, *self.target))
        return (*map(torch.as_tensor, ends), torch.as_tensor(rng.normal(size=ends[0].shape)))

    def points(self, t, n=6):
        return self.path.point(t, *self.draw(n))


def problem(path, d, n_components=2):
    rng = np.random.default_rng(d)
    target, base = mixture(rng, n_components, d), mixture(rng, n_components, d)
    if path.path_type == "one-sided":
        return Problem(path, (np.ones(1), np.zeros((1, d)), np.eye(d)[None]), target, MixtureFields(path, *target))
    if path.path_type == "mirror":
        base = target
    return Problem(path, base, target, MixtureFields(path, *target, *base))


def both(path):
    return [problem(path, d) for d in (1, 2)]


def close(actual, expected, tol=1e-10):
    torch.testing.assert_close(actual, expected, rtol=tol, atol=tol)


def assert_mean_zero(values, sigmas=4.0):
    """The mean over rows is within 4 standard errors of zero (of rounding, where nothing is random)."""
    assert (values.mean(0).abs() < sigmas * values.std(0) / len(values) ** 0.5 + 1e-12).all()


# The equations of motion.

# Fourth-order central differences: error h^4 / 30 of the fifth derivative, h^4 / 90 of the sixth.
FIRST = torch.tensor([1, -8, 0, 8, -1], dtype=torch.float64) / 12
SECOND = torch.tensor([-1, 16, -30, 16, -1], dtype=torch.float64) / 12
STENCIL = torch.arange(-2.0, 3.0, dtype=torch.float64)
TIME_STEP, SPACE_STEP = 2e-4, 2e-3
# That is 5e-17 d_t^5 and 2e-13 d_x^6 here: below the bound for fifth derivatives in t to 1e9 and sixth in x to 1e5,
# relative to the terms of the equation; rounding is 1e-15 / h^2 = 3e-10. The largest residual measured is 5e-9.
DISCRETISATION = 5e-8


def equation_terms(fields, t, x):
    """d_t rho, div(b rho), div(s rho) and Lap rho over rho, all by differences of rho and of fluxes."""
    n, d = x.shape
    rate = FIRST @ torch.stack([fields.log_density(t + k * TIME_STEP, x) for k in STENCIL]) / TIME_STEP
    shifts = SPACE_STEP * STENCIL[:, None, None] * torch.eye(d, dtype=x.dtype)
    y = (x + shifts[:, :, None]).reshape(-1, d)
    ratio = torch.exp(fields.log_density(t, y).reshape(5, d, n) - fields.log_density(t, x))

    def divergence(field):
        flux = torch.einsum("kini->kin", field(t, y).reshape(5, d, n, d)) * ratio
        return torch.einsum("k,kin->n", FIRST, flux) / SPACE_STEP

    laplacian = torch.einsum("k,kin->n", SECOND, ratio) / SPACE_STEP**2
    return rate, divergence(fields), divergence(fields.score_function), laplacian


@over_paths
def test_density_solves_the_transport_and_the_fokker_planck_equations(path):
    """d_t rho + div((b +- epsilon s) rho) = +- epsilon Lap rho."""
    for case in both(path):
        for t in TIMES:
            rate, transport, pull, laplacian = equation_terms(case.fields, t, case.points(t))
            for epsilon in [0.0, 0.7, -0.7]:
                residual = rate + transport + epsilon * pull - epsilon * laplacian
                scale = 1 + rate.abs() + transport.abs() + abs(epsilon) * laplacian.abs()
                assert (residual / scale).abs().max() < DISCRETISATION


@over_paths
def test_transport_equation_along_the_log_density(path):
    """d_t log rho + div b + b . s = 0, with the exact divergence."""
    for case in both(path):
        for t in TIMES:
            x = case.points(t)
            b, divergence = Fields(path, case.fields).velocity_and_divergence(t, x)
            rate = FIRST @ torch.stack([case.fields.log_density(t + k * TIME_STEP, x) for k in STENCIL]) / TIME_STEP
            along = (b * case.fields.score_function(t, x)).sum(1)
            scale = 1 + rate.abs() + divergence.abs() + along.abs()
            assert ((rate + divergence + along) / scale).abs().max() < DISCRETISATION


@over_paths
def test_score_function_is_the_gradient_of_the_log_density(path):
    for case in both(path):
        for t in [START, *TIMES, STOP]:
            x = case.points(t).requires_grad_()
            gradient = torch.autograd.grad(case.fields.log_density(t, x).sum(), x)[0]
            close(case.fields.score_function(t, x.detach()), gradient)


# The identities of the fields.


@over_paths
def test_velocity_and_score_from_the_posterior_means(path):
    for case in both(path):
        for t in TIMES:
            x, fields = case.points(t), case.fields
            b, s, v = fields(t, x), fields.score_function(t, x), fields.drift_without_noise(t, x)
            eta0, eta1 = fields.posterior_means(t, x)
            eta = eta0 if path.path_type == "one-sided" else -path.gamma(t) * s
            close(v, path.alpha_dot(t) * eta0 + path.beta_dot(t) * eta1)
            close(b, v - path.gamma_gamma_dot(t) * s)
            if path.path_type == "one-sided":
                close(path.alpha(t) * eta + path.beta(t) * eta1, x)
                close(s, -eta / path.alpha(t))
            elif path.has_noise:
                close(b, v + path.gamma_dot(t) * eta)
                close(path.alpha(t) * eta0 + path.beta(t) * eta1 + path.gamma(t) * eta, x)
            else:
                close(path.alpha(t) * eta0 + path.beta(t) * eta1, x)


@over_paths
def test_posterior_means_from_velocity_and_denoiser(path):
    """The inversions, where W > 0; where one of alpha and beta is zero, from the point itself."""
    for case in both(path):
        for t in TIMES:
            x = case.points(t)
            eta0, eta1 = case.fields.posterior_means(t, x)
            a, b, w = path.alpha(t), path.beta(t), path.wronskian(t)
            if path.path_type == "one-sided":
                gamma, gamma_dot, eta = torch.zeros_like(t), torch.zeros_like(t), torch.zeros_like(x)
            else:
                gamma, gamma_dot, eta = path.gamma(t), path.gamma_dot(t), case.fields.denoiser(t, x)
            gamma_dot = gamma_dot if path.has_noise else torch.zeros_like(t)
            still, speed = x - gamma * eta, case.fields(t, x) - gamma_dot * eta
            if w.abs() > 1e-6:
                close((a * speed - path.alpha_dot(t) * still) / w, eta1, 1e-9)
                close((path.beta_dot(t) * still - b * speed) / w, eta0, 1e-9)
            elif a > 0:
                close(still / a, eta0, 1e-9)
            else:
                close(still / b, eta1, 1e-9)


@pytest.mark.parametrize("path", [case for case in cases() if Fields(case.values[0], None).latent_scale(TIMES).any()])
def test_package_denoiser_is_the_posterior_mean_of_the_noise(path):
    """And the drifts of the SDE are b + epsilon s and b - epsilon s."""
    for case in both(path):
        two_sided = path.path_type != "one-sided"
        fields = Fields(path, case.fields, Denoiser(case.fields) if two_sided else None)
        ends = torch.tensor([0.0, 1e-4, 1 - 1e-4, 1.0], dtype=torch.float64)
        forward, _ = fields.sde(1.0, "constant", ends)
        backward, _ = fields.sde(1.0, "constant", ends.flip(0))
        for t in TIMES:
            x = case.points(t)
            b, s = case.fields(t, x), case.fields.score_function(t, x)
            scale = path.gamma(t) if two_sided else path.alpha(t)
            close(fields.denoiser(t, x), -scale * s, 1e-9)
            close(forward(t, x, 0.6), b + 0.6 * s, 1e-8)
            close(backward(t, x, 0.6), b - 0.6 * s, 1e-8)


ONE_SIDED = {
    "linear": (Linear, 1.0, lambda t: 1 / (1 - t), lambda t: t / (1 - t)),
    "trigonometric": (
        Trigonometric,
        math.pi / 2,
        lambda t: torch.ones_like(t),
        lambda t: 2 / math.pi * torch.tan(math.pi * t / 2),
    ),
    "vp": (VariancePreserving, lambda t: 1 / torch.sqrt(1 - t**2), lambda t: torch.ones_like(t), lambda t: t),
}


@pytest.mark.parametrize("name", ONE_SIDED)
def test_table_of_one_sided_conversions(name):
    """s = (slope b - pull x) and b = (s + pull x) / slope, W as stated, and b from eta_z or from s alone."""
    cls, wronskian, pull, slope = ONE_SIDED[name]
    path = GaussianBase(cls())
    for case in both(path):
        for t in TIMES:
            x = case.points(t)
            b, s = case.fields(t, x), case.fields.score_function(t, x)
            close(path.wronskian(t), wronskian(t) if callable(wronskian) else torch.full_like(t, wronskian))
            close(slope(t) * b - pull(t) * x, s)
            close((s + pull(t) * x) / slope(t), b)
            eta = denoiser_from_velocity(path, t, x, b)
            rate = path.beta_dot(t) / path.beta(t)
            close(rate * x + (path.alpha_dot(t) - path.alpha(t) * rate) * eta, b, 1e-9)
            close(rate * x + (path.alpha(t) ** 2 * rate - path.alpha_alpha_dot(t)) * s, b)


def end_scores(parameters, x):
    """The score function of a mixture, by torch.distributions and autograd."""
    weights, means, covs = (torch.as_tensor(p) for p in parameters)
    distribution = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(weights), torch.distributions.MultivariateNormal(means, covs)
    )
    x = x.clone().requires_grad_()
    return torch.autograd.grad(distribution.log_prob(x).sum(), x)[0]


@over_paths
def test_endpoint_values(path):
    """b(0, x) = alpha_dot x + beta_dot E[x1] - gamma gamma_dot s0 and its mirror image (independent ends)."""
    for case in both(path):
        x = case.points(torch.tensor(0.5, dtype=torch.float64))
        s0, s1 = end_scores(case.base, x), end_scores(case.target, x)
        mean0, mean1 = (torch.as_tensor(moments(*p)[0]) for p in (case.base, case.target))
        close(case.fields.score_function(START, x), s0)
        close(case.fields.score_function(STOP, x), s1)
        first = path.alpha_dot(START) * x + path.beta_dot(START) * mean1 - path.gamma_gamma_dot(START) * s0
        close(case.fields(START, x), first)
        if path.path_type == "one-sided":
            last = path.beta_dot(STOP) * x - path.alpha_alpha_dot(STOP) * s1
        else:
            last = path.alpha_dot(STOP) * mean0 + path.beta_dot(STOP) * x - path.gamma_gamma_dot(STOP) * s1
        close(case.fields(STOP, x), last)


def test_endpoint_values_of_the_linear_path_with_brownian_noise():
    """b(0, x) = E[x1] - x - (a/2) s0, b(1, x) = x - E[x0] + (a/2) s1."""
    case = problem(Linear("brownian", 1.7), 2)
    x = case.points(torch.tensor(0.5, dtype=torch.float64))
    mean0, mean1 = (torch.as_tensor(moments(*p)[0]) for p in (case.base, case.target))
    close(case.fields(START, x), mean1 - x - 0.85 * end_scores(case.base, x))
    close(case.fields(STOP, x), x - mean0 + 0.85 * end_scores(case.target, x))


# Signs, by Monte Carlo: no formula of the oracle is believed twice.


@over_paths
def test_conditional_means_near_a_point(path):
    """E[z | x_t] = -gamma s (-alpha s for a Gaussian base) and E[dx_t/dt | x_t] = b."""
    case = problem(path, 1)
    x0, x1, z = case.draw(50_000)
    for t in TIMES[[1, 3, 5]]:
        x = path.point(t, x0, x1, z)
        near = ((x - x[0]).abs() < 0.2 * x.std()).ravel()
        assert near.sum() > 500
        at = x[near]
        assert_mean_zero(path.point_dot(t, x0, x1, z)[near] - case.fields(t, at))
        noise, scale = (x0, path.alpha(t)) if path.path_type == "one-sided" else (z, path.gamma(t))
        if scale > 1e-3:
            assert_mean_zero(noise[near] + scale * case.fields.score_function(t, at))


# The losses at the exact fields (theory 12, item 3).


@over_paths
def test_exact_fields_are_stationary_points_of_their_losses(path):
    """E[f . (f - target)] = 0."""
    case = problem(path, 2)
    x0, x1, z = case.draw(10_000, seed=1)
    for t in TIMES[[1, 4]]:
        x = path.point(t, x0, x1, z)
        b = case.fields(t, x)
        assert_mean_zero((b * (b - path.point_dot(t, x0, x1, z))).sum(1))
        noise = x0 if path.path_type == "one-sided" else z
        eta = case.fields.denoiser(t, x)
        assert_mean_zero((eta * (eta - noise)).sum(1))


@pytest.mark.parametrize("gamma", [None, "brownian", "sine-squared"])
def test_losses_at_the_exact_fields_of_normal_ends(gamma):
    """E|f - target|^2 = E|target|^2 - E|f|^2, with closed forms for normal ends; the package averages features."""
    path = Linear(gamma, 1.7)
    case = problem(path, 2, n_components=1)
    (_, m0, c0), (_, m1, c1) = ([torch.as_tensor(v) for v in p] for p in (case.base, case.target))
    eye = torch.eye(2, dtype=torch.float64)
    for t in TIMES[[1, 4]]:
        a, b, g, g_dot = path.alpha(t), path.beta(t), path.gamma(t), path.gamma_dot(t)
        cov = a**2 * c0[0] + b**2 * c1[0] + g**2 * eye
        half = path.alpha_alpha_dot(t) * c0[0] + b * path.beta_dot(t) * c1[0] + path.gamma_gamma_dot(t) * eye
        mean_dot = ((m1 - m0) ** 2).sum()
        field = mean_dot + torch.trace(half @ torch.linalg.solve(cov, half))
        target = mean_dot + torch.trace(c0[0]) + torch.trace(c1[0]) + 2 * g_dot**2
        eta_field = g**2 * torch.trace(torch.linalg.inv(cov))
        draws = [case.draw(2000, seed=k) for k in range(40)]
        losses = torch.stack([field_loss("velocity", case.fields, path, t, *rows) for rows in draws])
        assert_mean_zero(losses - (target - field) / 2)
        losses = torch.stack([field_loss("denoiser", Denoiser(case.fields), path, t, *rows) for rows in draws])
        assert_mean_zero(losses - (2 - eta_field) / 2)
        if gamma:
            rows = path.point(t, *case.draw(50_000))
            assert_mean_zero((case.fields(t, rows) ** 2).sum(1) - field)


@pytest.mark.parametrize("gamma", ["brownian", "quadratic", "sine-squared"])
def test_antithetic_pairs_agree_in_the_mean_and_tame_the_ends(gamma):
    path = Linear(gamma)
    case = problem(path, 1)
    for t in [*TIMES[[0, 3, 7]], torch.tensor(1e-4, dtype=torch.float64)]:
        x0, x1, z = case.draw(50_000, seed=2)

        def loss(sign, t=t, x0=x0, x1=x1, z=z):
            b = case.fields(t, path.point(t, x0, x1, sign * z))
            return (b**2 / 2 - path.point_dot(t, x0, x1, sign * z) * b).sum(1)

        plain, other = loss(1), loss(-1)
        assert_mean_zero(plain - (plain + other) / 2)
        if gamma == "brownian" and t < 1e-3:
            assert (plain + other).std() / 2 < 0.25 * plain.std()


# Errata of the sources: the corrected formula holds, the printed one fails.


@pytest.fixture
def bridge():
    return problem(Linear("brownian", 1.7), 2)


T = torch.tensor(0.3, dtype=torch.float64)


def differs(actual, expected, by=0.1):
    assert (actual - expected).abs().max() > by


def test_erratum_a_28_the_tangent_has_a_plus_sign():
    case = problem(GaussianBase(Trigonometric()), 2)
    x = case.points(T)
    v, s, tangent = case.fields(T, x), case.fields.score_function(T, x), 2 / math.pi * torch.tan(math.pi * T / 2)
    close(-x + tangent * v, s)
    differs(-x - tangent * v, s)


def test_erratum_2_35_reversed_noise_is_that_of_the_reversed_time():
    """dZ = -b_B(1 - tau, Z) dtau + sqrt(2 epsilon(1 - tau)) dW, printed with epsilon(tau); in `sdeint`, epsilon(t)."""
    case = problem(GaussianBase(Linear()), 1, n_components=1)
    times = time_grid(100, "uniform", 1.0, 0.0)
    drift, epsilon = Fields(case.path, case.fields).sde(3.0, "gamma", times)
    _, x1, _ = case.draw(20_000)

    def excess(noise):
        z = sdeint(lambda t, x, e: drift(t, x, epsilon(t)), noise, x1, times, torch.Generator().manual_seed(0))
        return z**2 - 1

    assert_mean_zero(excess(epsilon))
    printed = excess(lambda t: epsilon(1 - t))
    assert printed.mean().abs() > 10 * printed.std() / len(printed) ** 0.5


def test_erratum_2_4_eta_is_minus_gamma_s(bridge):
    x0, x1, z = bridge.draw(100_000)
    x = bridge.path.point(T, x0, x1, z)
    s, gamma = bridge.fields.score_function(T, x), bridge.path.gamma(T)
    near = ((x - x[0]).norm(dim=1) < 0.5) & (s.norm(dim=1) > 0.2)
    direction = s[near] / s[near].norm(dim=1, keepdim=True)
    assert_mean_zero(((z[near] + gamma * s[near]) * direction).sum(1))
    printed = ((z[near] + s[near] / gamma) * direction).sum(1)
    assert printed.mean().abs() > 10 * printed.std() / len(printed) ** 0.5


def test_erratum_3_9_derivative_of_the_scaled_brownian_noise():
    """gamma = sqrt(2 a t (1 - t)) has the derivative a (1 - 2t) / gamma; printed without the a of the root."""
    a, t = 3.0, T.clone().requires_grad_()
    path = Linear("brownian", 2 * a)
    slope = torch.autograd.grad(path.gamma(t), t)[0]
    close(path.gamma_dot(T), slope)
    close(a * (1 - 2 * T) / torch.sqrt(2 * a * T * (1 - T)), slope)
    differs(a * (1 - 2 * T) / torch.sqrt(2 * T * (1 - T)), slope)


def test_erratum_3_10_u_minus_a_s_is_b():
    """u = E[dI/dt - sqrt(2 a t / (1 - t)) z | x_t] with gamma^2 = 2 a t (1 - t); printed u - s = b."""
    a = 3.0
    case = problem(Linear("brownian", 2 * a), 2)
    x = case.points(T)
    b, s, eta = case.fields(T, x), case.fields.score_function(T, x), case.fields.denoiser(T, x)
    u = case.fields.drift_without_noise(T, x) - torch.sqrt(2 * a * T / (1 - T)) * eta
    close(u - a * s, b)
    differs(u - s, b)


@pytest.mark.parametrize("path", [GaussianBase(Linear("brownian")), GaussianBase(Linear("quadratic"))])
def test_errata_3_19_and_6_2_the_one_sided_score_is_over_alpha(path):
    """E[z / alpha | x_t] = -s, printed with gamma; here gamma is the noise absorbed in alpha."""
    case = problem(path, 2)
    x0, x1, _ = case.draw(50_000)
    x = path.point(T, x0, x1)
    s, gamma = case.fields.score_function(T, x), path.path.gamma(T)
    assert_mean_zero((s * (s + x0 / path.alpha(T))).sum(1))
    printed = (s * (s + x0 / gamma)).sum(1)
    assert printed.mean().abs() > 10 * printed.std() / len(printed) ** 0.5
    eta = Fields(path, case.fields).denoiser(T, x)
    close(-eta / path.alpha(T), s)
    differs(-eta / gamma, s)


def test_erratum_4_9_the_linear_path_starts_at_the_base(bridge):
    x0, x1, z = bridge.draw(5)
    close(bridge.path.point(START, x0, x1, z), x0)
    close(bridge.path.point(STOP, x0, x1, z), x1)
    printed = START * x0 + (1 - START) * x1
    differs(printed, x0)


def test_erratum_4_11_variance_of_encoding_decoding():
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    close(EncodingDecodingPreserving("sine").variance(t, 1.0, 1.0), torch.ones_like(t))
    printed = EncodingDecoding("sine-squared").variance(t, 1.0, 1.0)
    close(printed, torch.cos(math.pi * t) ** 4 + torch.sin(math.pi * t) ** 4)
    close(printed.min(), torch.tensor(0.5, dtype=torch.float64))


def test_erratum_b_6_the_current_has_the_noise_of_the_drift(bridge):
    """b + epsilon s = E[dI/dt + (gamma_dot - epsilon / gamma) z | x_t], printed with gamma z."""
    x, epsilon, path = bridge.points(T), 0.7, bridge.path
    v, eta = bridge.fields.drift_without_noise(T, x), bridge.fields.denoiser(T, x)
    forward = bridge.fields(T, x) + epsilon * bridge.fields.score_function(T, x)
    close(v + (path.gamma_dot(T) - epsilon / path.gamma(T)) * eta, forward)
    differs(v + path.gamma(T) * eta, forward)


def test_erratum_of_the_code_the_mirror_ode_has_minus_gamma_gamma_dot_s():
    """It carries the distribution half-way; with the sign of the code it carries another. (Both return at t = 1.)"""
    path = Mirror("brownian", 1.7)
    case = problem(path, 1, n_components=1)
    _, x1, _ = case.draw(50)
    _, mean, cov = (torch.as_tensor(p) for p in case.target)
    half = torch.tensor(0.5, dtype=torch.float64)
    carried = mean + torch.sqrt(1 + path.gamma(half) ** 2 / cov[0]) * (x1 - mean)

    def solve(sign, stop):
        def f(t, x):
            return sign * path.gamma_gamma_dot(t) * case.fields.score_function(t, x)

        return odeint(f, x1, time_grid(200, "uniform", 0.0, stop))

    x = case.points(T)
    close(case.fields(T, x), -path.gamma_gamma_dot(T) * case.fields.score_function(T, x))
    close(case.fields(T, x), path.gamma_dot(T) * case.fields.denoiser(T, x))
    close(solve(-1, 0.5), carried, 1e-7)
    differs(solve(1, 0.5), carried)
    close(solve(-1, 1.0), x1, 1e-7)
    rate, transport, *_ = equation_terms(case.fields, T, x)
    close(rate, -transport, 1e-6)
    differs(rate, transport)


@pytest.mark.parametrize("path", [GaussianBase(Linear()), GaussianBase(Linear("brownian"))])
def test_erratum_of_the_code_the_one_sided_v_leaves_the_base_out(path):
    """E[beta_dot x1 | x_t] - alpha alpha_dot s = b; regression on the full dx_t/dt already is b, and counts s twice."""
    case = problem(path, 2)
    x0, x1, _ = case.draw(50_000)
    x = path.point(T, x0, x1)
    b, s = case.fields(T, x), case.fields.score_function(T, x)
    v = b + path.alpha_alpha_dot(T) * s
    assert_mean_zero((s * (v - path.beta_dot(T) * x1)).sum(1))
    assert_mean_zero((s * (b - path.point_dot(T, x0, x1))).sum(1))
    close(v, path.beta_dot(T) * case.fields.posterior_means(T, x)[1])
    differs(b - path.alpha_alpha_dot(T) * s, b)
