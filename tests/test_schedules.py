"""Bridges to the conventions of score-based diffusion, against closed forms of Gaussian mixtures."""

import itertools
import math

import numpy as np
import pytest
import torch

from oracles import MixtureFields, mixture, moments
from sklearn_si._model.fields import Fields
from sklearn_si.interpolants import (
    EncodingDecoding,
    GaussianBase,
    Linear,
    Mirror,
    Trigonometric,
    TrigonometricPreserving,
    VariancePreserving,
)
from sklearn_si.schedules import (
    convert_velocity,
    edm_denoiser,
    sigma_of_time,
    time_of_sigma,
    ve_score,
    vp_score,
    vp_time,
)

SCHEDULES = {
    "linear": GaussianBase(Linear()),
    "trigonometric": GaussianBase(Trigonometric()),
    "vp": GaussianBase(VariancePreserving()),
    "linear-brownian": GaussianBase(Linear("brownian")),
}
OTHERS = {
    "linear-sine-squared": GaussianBase(Linear("sine-squared", 0.2)),
    "trigonometric-preserving": GaussianBase(TrigonometricPreserving("sigmoid", 0.5)),
    "encoding-decoding": GaussianBase(EncodingDecoding("sine-squared")),
}
TIMES = torch.tensor([1e-4, 1e-3, 0.1, 0.4, 0.8, 1 - 1e-3, 1 - 1e-4], dtype=torch.float64)
over_schedules = pytest.mark.parametrize("path", SCHEDULES.values(), ids=SCHEDULES)


def problem(path, d=2):
    """A target, the exact fields of a path to it, and rows of the size of the target."""
    rng = np.random.default_rng(0)
    target = mixture(rng, 3, d)
    return target, Fields(path, MixtureFields(path, *target)), torch.as_tensor(2 * rng.normal(size=(20, d)))


def noisy_mixture(y, a, b, target):
    """E[x1 | y] and the score function of y = a z + b x1."""
    weights, means, covs = (torch.as_tensor(v) for v in target)
    distribution = torch.distributions.MultivariateNormal(
        b * means, a**2 * torch.eye(y.shape[1], dtype=y.dtype) + b**2 * covs
    )
    w = torch.softmax(weights.log() + distribution.log_prob(y[:, None]), 1)
    pulls = torch.linalg.solve(distribution.covariance_matrix, (y[:, None] - b * means)[..., None])[..., 0]
    posterior = means + b * torch.einsum("kab,nkb->nka", covs, pulls)
    return (w[..., None] * posterior).sum(1), -(w[..., None] * pulls).sum(1)


def close(actual, expected, tol=1e-9):
    torch.testing.assert_close(actual, expected, rtol=tol, atol=tol)


@pytest.mark.parametrize("path", [*SCHEDULES.values(), *OTHERS.values()], ids=[*SCHEDULES, *OTHERS])
def test_time_of_sigma_inverts_sigma_of_time(path):
    t = torch.cat([TIMES, torch.ones(1, dtype=torch.float64)])
    t = t[path.beta(t) > 0]
    close(time_of_sigma(path, sigma_of_time(path, t)), t, 1e-12)


def test_the_closed_forms_are_what_bisection_finds(monkeypatch):
    sigma = torch.tensor([1e-3, 0.2, 1.0, 80.0, 1e4], dtype=torch.float64)
    closed = [time_of_sigma(path, sigma) for path in SCHEDULES.values()]
    monkeypatch.setattr("sklearn_si.schedules._TIME_OF_SIGMA", {})
    for path, t in zip(SCHEDULES.values(), closed, strict=True):
        torch.testing.assert_close(time_of_sigma(path, sigma), t, rtol=1e-14, atol=2e-16)


def test_the_ends_are_times_of_no_signal_and_of_no_noise():
    for path in SCHEDULES.values():
        ends = time_of_sigma(path, torch.tensor([torch.inf, 0.0], dtype=torch.float64))
        close(ends, torch.tensor([0.0, 1.0], dtype=torch.float64), 1e-15)


@over_schedules
@pytest.mark.parametrize("d", [1, 2])
def test_edm_denoiser_and_ve_score_are_those_of_the_mixture(path, d):
    target, fields, y = problem(path, d)
    denoise, score = edm_denoiser(fields), ve_score(fields)
    for sigma in sigma_of_time(path, TIMES):
        y_noisy = y + sigma * y.flip(0)
        mean, gradient = noisy_mixture(y_noisy, sigma, 1.0, target)
        close(denoise(y_noisy, sigma), mean)
        close(score(y_noisy, sigma), gradient)
        close(y_noisy + sigma**2 * score(y_noisy, sigma), mean, 1e-9 * max(1.0, float(sigma)))


@over_schedules
def test_denoiser_between_the_levels_of_edm(path):
    target, fields, y = problem(path)
    for sigma in [0.002, 0.5, 80.0]:
        close(edm_denoiser(fields)(y, sigma), noisy_mixture(y, sigma, 1.0, target)[0])
    close(edm_denoiser(fields)(y, 0.0), y)


@pytest.mark.parametrize("path", OTHERS.values(), ids=OTHERS)
def test_denoiser_of_the_other_noises(path):
    target, fields, y = problem(path)
    for sigma in [0.01, 0.5, 10.0]:
        close(edm_denoiser(fields)(y, sigma), noisy_mixture(y, sigma, 1.0, target)[0])
        close(ve_score(fields)(y, sigma), noisy_mixture(y, sigma, 1.0, target)[1], 1e-8)


@over_schedules
def test_vp_score_is_that_of_the_ornstein_uhlenbeck_process(path):
    target, fields, y = problem(path)
    for tau in vp_time(path, TIMES)[0]:
        a, b = torch.sqrt(-torch.expm1(-2 * tau)), torch.exp(-tau)
        close(vp_score(fields)(y, tau), noisy_mixture(y, a, b, target)[1])


@over_schedules
def test_vp_time_has_the_same_signal_to_noise_ratio(path):
    tau, c = vp_time(path, TIMES)
    close(c * path.beta(TIMES), torch.exp(-tau), 1e-12)
    close(c * path.alpha(TIMES), torch.sqrt(-torch.expm1(-2 * tau)), 1e-12)


def test_vp_time_of_vp_is_minus_log_t():
    tau, c = vp_time(SCHEDULES["vp"], TIMES)
    close(tau, -TIMES.log(), 1e-12)
    close(c, torch.ones_like(TIMES), 1e-12)


def test_the_score_at_the_target_itself_where_the_velocity_contains_it():
    for name in ["vp", "linear-brownian"]:
        target, fields, y = problem(SCHEDULES[name])
        close(ve_score(fields)(y, 0.0), noisy_mixture(y, 0.0, 1.0, target)[1])
        close(vp_score(fields)(y, 0.0), noisy_mixture(y, 0.0, 1.0, target)[1])


@pytest.mark.parametrize(("name", "other"), list(itertools.product(SCHEDULES, repeat=2)))
def test_converted_velocity_is_that_of_the_other_schedule(name, other):
    to = SCHEDULES[other]
    target, fields, x = problem(SCHEDULES[name])
    convert, exact = convert_velocity(fields, to), MixtureFields(to, *target)
    regular = name in ("vp", "linear-brownian") or other in ("linear", "trigonometric")
    ends = torch.tensor([0.0, 1.0] if regular else [0.0], dtype=torch.float64)
    for t in torch.cat([TIMES, ends]):
        close(convert(t, x), exact(t, x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_noise_level_for_each_row_and_the_dtype_of_the_rows(dtype):
    _, fields, y = problem(SCHEDULES["linear-brownian"])
    fields.velocity_network.to(dtype)
    y, sigma = y.to(dtype), torch.linspace(0.5, 5, len(y), dtype=dtype)
    for bridge in [edm_denoiser, ve_score, vp_score]:
        rows = bridge(fields)(y, sigma)
        assert rows.dtype == dtype
        single = torch.cat([bridge(fields)(row[None], s) for row, s in zip(y, sigma, strict=True)])
        close(rows, single, 1e-12 if dtype == torch.float64 else 1e-5)
    assert convert_velocity(fields, SCHEDULES["vp"])(sigma / 10, y).dtype == dtype


@over_schedules
def test_float32_denoiser_over_the_levels_of_edm(path):
    target, fields, y = problem(path)
    fields.velocity_network.float()
    for sigma in [0.002, 0.02, 0.2, 2.0, 80.0]:
        close(edm_denoiser(fields)(y.float(), sigma), noisy_mixture(y, sigma, 1.0, target)[0].float(), 1e-4)


def sample_edm(denoise, y, sigma_min=0.002, sigma_max=80.0, n_steps=48, rho=7):
    """The deterministic sampler of 2206.00364, Algorithm 1, as others write it."""
    i = torch.arange(n_steps, dtype=torch.float64) / (n_steps - 1)
    sigmas = (sigma_max ** (1 / rho) + i * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    sigmas = torch.cat([sigmas, torch.zeros(1, dtype=torch.float64)])
    y = y * sigmas[0]
    for sigma, sigma_next in itertools.pairwise(sigmas):
        slope = (y - denoise(y, sigma)) / sigma
        y_next = y + (sigma_next - sigma) * slope
        if sigma_next > 0:
            slope = (slope + (y_next - denoise(y_next, sigma_next)) / sigma_next) / 2
            y_next = y + (sigma_next - sigma) * slope
        y = y_next
    return y


@over_schedules
def test_an_edm_sampler_draws_the_target(path):
    n = 10_000
    target, fields, _ = problem(path)
    noise = torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    X = sample_edm(edm_denoiser(fields), noise).numpy()
    mean, cov = moments(*target)
    products = (X - mean)[:, :, None] * (X - mean)[:, None, :]
    assert (abs(X.mean(0) - mean) < 4 * X.std(0) / math.sqrt(n)).all()
    assert (abs(products.mean(0) - cov) < 4 * products.std(0) / math.sqrt(n)).all()


def test_errors_name_the_way_out():
    for interpolant in [Linear("brownian"), Mirror("brownian")]:
        with pytest.raises(TypeError, match=r"expected one with a standard normal base.*fit one sample"):
            sigma_of_time(interpolant, torch.tensor(0.5))
        with pytest.raises(TypeError, match="expected one with a standard normal base"):
            edm_denoiser(Fields(interpolant, None))
    with pytest.raises(TypeError, match="Got the two-sided interpolant Linear"):
        convert_velocity(problem(SCHEDULES["vp"])[1], Linear())
    with pytest.raises(ValueError, match="does not decrease everywhere"):
        time_of_sigma(GaussianBase(Linear("sine-squared", 20.0)), torch.tensor(1.0))
