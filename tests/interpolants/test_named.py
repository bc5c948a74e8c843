"""Laws of the interpolants and of their latent noises, over all of them."""

import math

import numpy as np
import pytest
import torch

from oracles import MixtureFields, mixture
from sklearn_si import InterpolantDiffusion, InterpolantFlow
from sklearn_si.interpolants import (
    GAMMAS,
    INTERPOLANTS,
    EncodingDecodingPreserving,
    Interpolant,
    LearnedInterpolant,
    Linear,
    TrigonometricPreserving,
    VariancePreserving,
    make_interpolant,
)

INSIDE = torch.cat([torch.tensor([1e-3, 0.3, 0.7, 1 - 1e-3]), torch.linspace(0.05, 0.95, 10)]).double()
ENDS = torch.tensor([0.0, 1.0], dtype=torch.float64)
NEEDS = {"encoding-decoding": "sine-squared", "encoding-decoding-preserving": "sine", "mirror": "brownian"}


def instances():
    for name, cls in INTERPOLANTS.items():
        for gamma in [None, *GAMMAS]:
            scale = 0.5 if name == "trigonometric-preserving" else 1.7
            if (gamma is None and name in NEEDS) or not cls().is_linear:
                continue
            yield pytest.param(cls(gamma, scale), id=f"{name}-{gamma}")


@pytest.mark.parametrize("estimator", [InterpolantFlow, InterpolantDiffusion])
@pytest.mark.parametrize("name", [*INTERPOLANTS, *GAMMAS])
def test_every_name_is_documented(name, estimator):
    assert f'"{name}"' in estimator.__doc__


def autograd(function, t):
    t = t.clone().requires_grad_()
    # + 0 * t: a constant has a derivative too
    return torch.autograd.grad((function(t) + 0 * t).sum(), t)[0]


@pytest.mark.parametrize("name", GAMMAS)
def test_gamma_vanishes_at_the_ends_only(name):
    path = Linear(name, 2.0)
    assert path.gamma(ENDS).abs().max() < 1e-12
    assert (path.gamma(INSIDE) > 0).all()
    assert torch.isfinite(path.gamma_gamma_dot(ENDS)).all()


@pytest.mark.parametrize("path", list(instances()))
def test_declared_derivatives_equal_autograd(path):
    torch.testing.assert_close(path.alpha_dot(INSIDE), autograd(path.alpha, INSIDE), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(path.beta_dot(INSIDE), autograd(path.beta, INSIDE), rtol=1e-9, atol=1e-9)
    if path.has_noise:
        torch.testing.assert_close(path.gamma_dot(INSIDE), autograd(path.gamma, INSIDE), rtol=1e-9, atol=1e-9)
    squares = autograd(lambda t: path.gamma(t) ** 2 / 2, INSIDE) if path.has_noise else torch.zeros_like(INSIDE)
    torch.testing.assert_close(path.gamma_gamma_dot(INSIDE), squares, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        path.alpha_alpha_dot(INSIDE), path.alpha(INSIDE) * path.alpha_dot(INSIDE), rtol=1e-12, atol=1e-12
    )
    general = Interpolant.wronskian(path, INSIDE)
    torch.testing.assert_close(path.wronskian(INSIDE), general, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", list(instances()))
def test_boundary_values_by_kind(path):
    alpha, beta = path.alpha(ENDS), path.beta(ENDS)
    expected = ([0.0, 0.0], [1.0, 1.0]) if path.path_type == "mirror" else ([1.0, 0.0], [0.0, 1.0])
    np.testing.assert_allclose(alpha, expected[0], atol=1e-12)
    np.testing.assert_allclose(beta, expected[1], atol=1e-12)
    if not path.has_noise:
        assert not path.gamma(ENDS).any()


@pytest.mark.parametrize("path", list(instances()))
def test_moments_of_a_pair_of_unit_ends(path):
    t = INSIDE
    variance = path.variance(t, 1.0, 1.0)
    torch.testing.assert_close(variance, path.alpha(t) ** 2 + path.beta(t) ** 2 + path.gamma(t) ** 2)
    half = autograd(lambda s: path.variance(s, 1.0, 1.0) / 2, t)
    torch.testing.assert_close(path.covariance_dot(t, 1.0, 1.0), half, rtol=1e-8, atol=1e-8)
    assert torch.isfinite(path.residual_scale(torch.cat([t, ENDS]), 1.0, 1.0)).all()


def test_variance_is_preserved_where_it_is_promised():
    for path in [
        TrigonometricPreserving("brownian", 0.9),
        TrigonometricPreserving("quadratic"),
        EncodingDecodingPreserving("sine"),
        VariancePreserving(),
        Linear("brownian", 2.0),
    ]:
        np.testing.assert_allclose(path.variance(INSIDE, 1.0, 1.0), 1.0, atol=1e-12)


def test_erratum_4_11_the_printed_encoding_decoding_does_not_preserve_variance():
    path = INTERPOLANTS["encoding-decoding"]("sine-squared")
    np.testing.assert_allclose(path.variance(torch.tensor([0.25], dtype=torch.float64), 1.0, 1.0), 0.5)


def test_encoding_decoding_passes_through_pure_noise():
    for name in ["encoding-decoding", "encoding-decoding-preserving"]:
        path = make_interpolant(name, "auto", 1.0, two_samples=True, latent_noise=False)
        half = torch.tensor(0.5, dtype=torch.float64)
        assert (float(path.alpha(half)), float(path.beta(half)), float(path.gamma(half))) == (0.0, 0.0, 1.0)


# Paths with W > 0 at all times, which a normal base may take with any gamma.
REGULAR = ["linear", "trigonometric", "trigonometric-preserving"]
ONE_SIDED = [*((name, gamma) for name in REGULAR for gamma in [None, *GAMMAS]), ("vp", None)]


@pytest.mark.parametrize(("name", "gamma"), ONE_SIDED)
def test_gaussian_base_absorbs_the_latent_noise(name, gamma):
    path = make_interpolant(name, gamma, 0.5, two_samples=False, latent_noise=False)
    inner = path.path
    torch.testing.assert_close(path.alpha(INSIDE) ** 2, inner.alpha(INSIDE) ** 2 + inner.gamma(INSIDE) ** 2)
    torch.testing.assert_close(path.alpha_alpha_dot(INSIDE), path.alpha(INSIDE) * path.alpha_dot(INSIDE))
    torch.testing.assert_close(path.inverse_wronskian(INSIDE), 1 / path.wronskian(INSIDE), rtol=1e-9, atol=1e-9)
    for dtype, tolerance in [(torch.float64, 1e-6), (torch.float32, 2e-2)]:
        late = 1 - torch.logspace(-1, -4, 10, dtype=torch.float64)
        ratio = path.inverse_wronskian(late.to(dtype)).double() * path.wronskian(late)
        assert (ratio - 1).abs().max() < tolerance
    near, at = (path.inverse_wronskian(torch.tensor(t, dtype=torch.float64)) for t in (1 - 1e-9, 1.0))
    assert torch.isfinite(at) and abs(float(near - at)) < 1e-4


def test_brownian_noise_on_the_linear_path_is_the_variance_preserving_path():
    one = make_interpolant("linear", "brownian", 2.0, two_samples=False, latent_noise=False)
    vp = make_interpolant("vp", None, 1.0, two_samples=False, latent_noise=False)
    torch.testing.assert_close(one.alpha(INSIDE), vp.alpha(INSIDE))
    torch.testing.assert_close(one.inverse_wronskian(INSIDE), vp.inverse_wronskian(INSIDE))


@pytest.mark.parametrize(("name", "gamma"), ONE_SIDED)
def test_denoiser_from_velocity_is_the_exact_one(name, gamma):
    from sklearn_si._model.fields import denoiser_from_velocity

    rng = np.random.default_rng(0)
    path = make_interpolant(name, gamma, 0.5, two_samples=False, latent_noise=False)
    fields = MixtureFields(path, *mixture(rng, 3, 2))
    x = torch.as_tensor(rng.normal(size=(50, 2)))
    for t in INSIDE:
        eta = denoiser_from_velocity(path, t, x, fields(t, x))
        torch.testing.assert_close(eta, fields.denoiser(t, x), rtol=1e-8, atol=1e-10)


def test_nonlinear_mean_is_differentiated_in_time():
    class Bent(Interpolant):
        def mean(self, t, x0, x1):
            t = t.reshape(-1, 1)
            return (1 - t) * x0 + t * x1 + t * (1 - t) * torch.sin(x0 * x1)

    x0, x1 = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    exact = x1 - x0 + (1 - 2 * t)[:, None] * torch.sin(x0 * x1)
    torch.testing.assert_close(Bent().mean_dot(t, x0, x1), exact)
    assert not Bent().is_linear


def test_point_and_its_derivative():
    path = Linear("brownian")
    x0, x1, z = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.full((4,), 0.3, dtype=torch.float64)
    torch.testing.assert_close(path.point(t, x0, x1, z), 0.7 * x0 + 0.3 * x1 + math.sqrt(0.21) * z)
    torch.testing.assert_close(path.point_dot(t, x0, x1, z), x1 - x0 + 0.4 / (2 * math.sqrt(0.21)) * z)


def test_errors_name_the_way_out():
    kwargs = {"two_samples": True, "latent_noise": False}
    with pytest.raises(ValueError, match="brings its own gamma"):
        make_interpolant(Linear(), "brownian", 1.0, **kwargs)
    with pytest.raises(ValueError, match="needs latent noise, but got gamma=None"):
        make_interpolant("encoding-decoding", None, 1.0, **kwargs)
    with pytest.raises(ValueError, match="'vp' is for one sample, but fit was given two"):
        make_interpolant("vp", None, 1.0, **kwargs)
    with pytest.raises(ValueError, match="needs gamma < 1 at all times"):
        make_interpolant("trigonometric-preserving", "brownian", 4.0, **kwargs)
    with pytest.raises(TypeError, match="has neither alpha"):
        Interpolant().alpha(torch.tensor(0.5))


def test_the_slope_of_a_learned_path_is_its_derivative():
    path, generator = LearnedInterpolant(), torch.Generator().manual_seed(0)
    path.build(3, 0, torch.device("cpu"))
    for parameter in path.parameters():  # away from the straight path of the start
        parameter.data.normal_(generator=generator)
    times = torch.rand(7, generator=generator, dtype=torch.float64)
    x0, x1 = (torch.randn((7, 3), generator=generator, dtype=torch.float64) for _ in range(2))
    for t in (times, times[0]):
        expected = Interpolant.mean_dot(path, t, x0, x1)
        torch.testing.assert_close(path.mean_dot(t, x0, x1), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(LearnedInterpolant().mean_dot(times, x0, x1), x1 - x0)
