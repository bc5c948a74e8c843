"""Densities at any time, gradients, ratios, the SDE chain and the control of the KL, against closed forms."""

import re

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from oracles import MixtureDensity, mixture, mixture_log_density, sample_mixture, with_exact_fields, with_parts
from sklearn_si import InterpolantDiffusion, InterpolantFlow
from sklearn_si._model.fields import Fields
from sklearn_si._model.sde import sde_times
from sklearn_si._model.sde_likelihood import path_log_weights
from sklearn_si.exceptions import NoDensityError
from sklearn_si.interpolants import GaussianBase, Linear
from sklearn_si.preprocessing import AffineMap
from sklearn_si.solvers import SDE_SOLVERS, time_grid


def exact(estimator, components=3, two=False, n=60, seed=0):
    rng = np.random.default_rng(seed)
    target, base = mixture(rng, components, 2), mixture(rng, 2, 2)
    X = sample_mixture(rng, n, *target)
    if not two:
        return with_exact_fields(estimator, target), X, target, None
    rows = sample_mixture(rng, n, *base)
    return with_exact_fields(estimator, target, base, rows, MixtureDensity(*base)), X, target, base


MODELS = {
    "one sample": (lambda: InterpolantDiffusion(), False),
    "vp": (lambda: InterpolantFlow("vp"), False),
    "bridge": (lambda: InterpolantDiffusion(), True),
    "encoding-decoding": (lambda: InterpolantFlow("encoding-decoding"), True),
    "encoding-decoding-preserving": (lambda: InterpolantFlow("encoding-decoding-preserving"), True),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("t", [0.0, 1e-3, 0.4, 0.5, 0.8, 1.0])
def test_log_density_at_any_time(name, t):
    make, two = MODELS[name]
    model, X, _, _ = exact(make().set_params(ode_tol=1e-6), two=two, n=15)
    true = model.network_.log_density(torch.tensor(t, dtype=torch.float64), torch.as_tensor(X)).numpy()
    value, error = model.score_samples(X, t=t, return_error=True)
    np.testing.assert_allclose(value, true, atol=1e-6)
    assert (error <= 1e-6).all()


@pytest.mark.parametrize("gamma_scale", [1.0, 0.5])
def test_encoding_decoding_needs_no_base_density(gamma_scale):
    """The distribution in the middle is N(0, gamma_scale I)."""
    model, X, target, base = exact(InterpolantFlow("encoding-decoding", gamma_scale=gamma_scale), two=True, n=20)
    with_parts(model, base_density=None)
    np.testing.assert_allclose(model.score_samples(X), mixture_log_density(X, *target), atol=1e-3)
    np.testing.assert_allclose(model.score_samples(X, t=0.0), mixture_log_density(X, *base), atol=1e-3)


@pytest.mark.parametrize("name", ["one sample", "encoding-decoding"])
@pytest.mark.parametrize("t", [0.3, 1.0])
def test_gradient_of_the_log_density_is_the_exact_score(name, t):
    make, two = MODELS[name]
    model, X, _, _ = exact(make(), two=two, n=20)
    score = model.network_.score_function(torch.tensor(t, dtype=torch.float64), torch.as_tensor(X)).numpy()
    np.testing.assert_allclose(model.log_density_gradient(X, t=t), score, atol=2e-4, rtol=1e-4)


def test_gradient_needs_a_base_that_can_be_differentiated():
    model, X, _, _ = exact(InterpolantFlow(), two=True)
    with pytest.raises(NoDensityError, match="can be differentiated, but it is a MixtureDensity"):
        model.log_density_gradient(X)


def test_gradient_in_data_units_is_that_of_score_samples():
    rng = np.random.default_rng(0)
    X = rng.multivariate_normal([3.0, -1.0], [[4.0, 1.5], [1.5, 1.0]], size=300)
    model = InterpolantFlow(max_iter=60, hidden_layer_sizes=(16,), ode_tol=1e-8, random_state=0).fit(X)
    gradient = model.log_density_gradient(X[:3])
    h = 1e-4
    for j in range(2):
        step = h * np.eye(2)[j]
        difference = (model.score_samples(X[:3] + step) - model.score_samples(X[:3] - step)) / (2 * h)
        np.testing.assert_allclose(gradient[:, j], difference, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["one sample", "bridge"])
def test_density_ratio_of_both_ends_at_fixed_points(name):
    make, two = MODELS[name]
    model, X, target, base = exact(make(), two=two)
    base_density = mixture_log_density(X, *base) if two else norm.logpdf(X).sum(1)
    ratio, error = model.density_ratio(X, return_error=True)
    np.testing.assert_allclose(ratio, mixture_log_density(X, *target) - base_density, atol=2e-3)
    assert (error <= model.ode_tol).all()


def test_density_ratio_in_data_units_between_shifted_normals():
    """N(m0, s^2) and N(m1, s^2): the closed form, through moving centres and a scale."""
    rng = np.random.default_rng(0)
    X0, X1 = rng.normal(5.0, 2.0, size=(20_000, 1)), rng.normal(6.0, 2.0, size=(20_000, 1))
    model = InterpolantDiffusion(max_iter=1, learning_rate_init=1e-12, base_density=None, random_state=0).fit(X0, X1)
    x = np.linspace(3, 8, 7)[:, None]
    true = norm(X1.mean(), X1.std()).logpdf(x) - norm(X0.mean(), X0.std()).logpdf(x)
    np.testing.assert_allclose(model.density_ratio(x), true[:, 0], atol=0.02)


def test_density_ratio_needs_a_score():
    model, X, _, _ = exact(InterpolantFlow(), two=True)
    with pytest.raises(ValueError, match="density_ratio needs the score function"):
        model.density_ratio(X)


# The chain: 1-D, N(0, 1) -> N(1, 1/4), linear, epsilon = .7, with affine errors in b and s.
class Affine(torch.nn.Module):
    """The exact Gaussian velocity plus an affine error."""

    def __init__(self, shift=0.0, tilt=0.0):
        super().__init__()
        self.shift, self.tilt = shift, tilt

    def forward(self, t, x, condition=None):
        c = (1 - t) ** 2 + t**2 / 4
        return 1 + (-(1 - t) + t / 4) / c * (x - t) + self.shift + self.tilt * x


def chain(shift, tilt, n_steps, level=0.7):
    """The fields, and mean and variance of the Euler-Maruyama chain at t = 1 by its exact (affine) steps."""
    fields = Fields(GaussianBase(Linear()), Affine(shift, tilt))
    times = sde_times(fields.interpolant, n_steps)
    drift, epsilon = fields.sde(level, "gamma", times)
    x = torch.tensor([[0.0], [1.0], [0.0]], dtype=torch.float64)
    noise = torch.tensor([[0.0], [0.0], [1.0]], dtype=torch.float64)
    mean, variance = 0.0, 1.0
    for t, h in zip(times[:-1], times.diff(), strict=True):
        a, b, k = SDE_SOLVERS["euler-maruyama"](drift, epsilon, t, h, x, noise).ravel()
        mean, variance = float(a + (b - a) * mean), float((b - a) ** 2 * variance + (k - a) ** 2)
    return fields, mean, variance


def weights(fields, x, n_steps, n_paths=4000):
    from sklearn_si._model.likelihood import standard_normal_parts

    rows = torch.full((1, 1), x, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    return path_log_weights(fields, rows, 0.7, "gamma", n_steps, n_paths, standard_normal_parts, generator)[:, 0]


@pytest.mark.parametrize(("shift", "tilt"), [(0.0, 0.0), (0.15, 0.1), (-0.2, -0.15)])
@pytest.mark.parametrize("n_steps", [5, 20])
@pytest.mark.parametrize("x", [1.0, 2.2])
def test_mean_weight_is_the_exact_density_of_the_chain(shift, tilt, n_steps, x):
    """Whatever the errors of the fields and the size of the steps: an unbiased estimate (theory 4.4)."""
    fields, mean, variance = chain(shift, tilt, n_steps)
    w = torch.exp(weights(fields, x, n_steps))
    exact_density = norm(mean, variance**0.5).pdf(x)
    assert abs(float(w.mean()) - exact_density) < 4 * float(w.std()) / len(w) ** 0.5


@pytest.mark.parametrize("x", [1.0, 2.2])
def test_order_of_the_bounds(x):
    """ELBO(r = 0) <= ELBO(r = s) <= log-mean-exp = exact (theory 4.3), with imperfect fields."""
    n_steps, level, n = 200, 0.7, 4000
    fields, mean, variance = chain(0.15, 0.1, n_steps, level)
    log_w = weights(fields, x, n_steps, n)
    bound, point = float(log_w.mean()), float(torch.logsumexp(log_w, 0) - np.log(n))
    truth = norm(mean, variance**0.5).logpdf(x)
    # Jensen's bound (2.67): the backward path of the forward drift, r = 0
    times = time_grid(n_steps, "uniform")
    drift, epsilon = fields.sde(level, "gamma", times)
    generator = torch.Generator().manual_seed(1)
    z, total = torch.full((n, 1), x, dtype=torch.float64), 0.0
    for t, h in zip(times[1:].flip(0), times.diff().flip(0), strict=True):
        e = epsilon(t - h / 2)
        probe = drift(t, z + 1e-4, e) - drift(t, z - 1e-4, e)
        total = total + h * probe / 2e-4
        z = z - h * drift(t, z, e) + torch.sqrt(2 * e * h) * torch.randn(n, 1, generator=generator).double()
    jensen = float((-0.5 * z**2 - 0.5 * np.log(2 * np.pi) - total).mean())
    assert jensen < bound - 0.5  # useless, as the theory says
    error = float(log_w.std()) / n**0.5
    assert bound <= truth + 4 * error
    assert bound <= point <= truth + 8 * error
    assert abs(point - truth) < 0.05


def test_chain_density_is_that_of_the_sampled_rows():
    """Importance-weighted densities against a histogram of sample with solver="euler-maruyama"."""
    model = with_exact_fields(InterpolantDiffusion(), (np.ones(1), np.ones((1, 1)), np.full((1, 1, 1), 0.25)))
    model.set_params(solver="euler-maruyama", n_steps=20, noise_level=2.0, random_state=0)
    X = model.sample(200_000)
    edges = np.quantile(X, np.linspace(0.01, 0.99, 15))
    share = np.histogram(X, edges)[0] / len(X)
    middles = (np.arange(8) + 0.5) / 8
    grid = (edges[:-1, None] + np.diff(edges)[:, None] * middles).reshape(-1, 1)
    point = model.log_density_bound(grid, n_paths=4000).point
    density = np.exp(point).reshape(-1, 8).mean(1) * np.diff(edges)
    assert abs(density / share - 1).max() < 0.05


def test_densities_of_the_chain_change_units_by_the_jacobian():
    model, X, _, _ = exact(InterpolantDiffusion(likelihood="sde", noise_level=0.5, n_steps=20), n=10)
    value, bound = model.score_samples(X), model.log_density_bound(X).bound
    with_parts(model, target_map=AffineMap(np.array([3.0, -1.0]), np.array([[10.0, 0.0], [4.0, 0.5]])))
    moved = model.preprocessing_.inverse_transform(X)
    np.testing.assert_allclose(model.score_samples(moved), value - np.log(5.0), atol=1e-9)
    np.testing.assert_allclose(model.log_density_bound(moved).bound, bound - np.log(5.0), atol=1e-9)


def test_chain_summary_and_its_errors():
    model, X, target, _ = exact(InterpolantDiffusion(noise_level=0.5, n_steps=100), n=40)
    result = model.log_density_bound(X, n_paths=64)
    assert set(result) == {"bound", "standard_error", "effective_sample_size", "weight_std", "point", "error"}
    assert (result.bound <= result.point + 1e-12).all()
    assert ((result.effective_sample_size > 1) & (result.effective_sample_size <= 64)).all()
    np.testing.assert_allclose(result.standard_error, result.weight_std / 8)
    true = mixture_log_density(X, *target)
    assert abs(result.point - true).mean() < 0.05
    value, error = model.set_params(likelihood="sde").score_samples(X, return_error=True)
    np.testing.assert_array_equal(value, result.point)
    np.testing.assert_array_equal(error, result.error)
    # common random numbers: a row alone has the value it has in company
    np.testing.assert_allclose(model.score_samples(X[:1]), value[:1], rtol=1e-9)


def test_cross_entropy_of_both_models():
    model, X, target, _ = exact(InterpolantDiffusion(noise_level=0.5), n=80)
    truth = -mixture_log_density(X, *target)
    ode = model.cross_entropy(X)
    assert ode.value == pytest.approx(truth.mean(), abs=1e-3)
    assert ode.standard_error == pytest.approx(truth.std() / 80**0.5, rel=1e-2)
    sde = model.set_params(likelihood="sde").cross_entropy(X)
    assert sde.value <= sde.upper_bound
    assert abs(sde.value - truth.mean()) < 0.05


def test_errors_of_the_chain():
    model, X, _, _ = exact(InterpolantDiffusion(likelihood="sde", noise_level=0.0))
    with pytest.raises(ValueError, match="got noise_level=0, use likelihood='ode'"):
        model.score_samples(X)
    with pytest.raises(ValueError, match=r"Got t=0\.5 with likelihood='sde'"):
        model.set_params(noise_level=1.0).score_samples(X, t=0.5)
    with pytest.raises(ValueError, match="Got n_paths=1, but expected an integer of at least 2"):
        model.log_density_bound(X, n_paths=1)
    with pytest.raises(ValueError, match=r"Got t=2, but expected a time in \[0, 1\]"):
        model.set_params(likelihood="ode").score_samples(X, t=2)
    middle, X, _, _ = exact(InterpolantDiffusion("encoding-decoding"), two=True)
    with_parts(middle, base_density=None)
    with pytest.raises(NoDensityError, match="takes its densities from the middle"):
        middle.log_density_bound(X)


# Theory 5.3: rho0 = N(0, C0), rho1 = N(0, C0 + 2 eps), linear, gamma^2 = 2 (C0 + eps) t (1 - t): C(t) = C0 + 2 eps t.
C0, EPS, C = 0.1, 1.0, 0.1


class Shifted(torch.nn.Module):
    def __init__(self, field, shift):
        super().__init__()
        self.field, self.shift = field, shift

    def forward(self, t, x, condition=None):
        return self.field(t, x) + torch.as_tensor(self.shift(t)).reshape(-1, 1)

    def velocity_and_divergence(self, t, x, condition=None):
        b, divergence = self.field.velocity_and_divergence(t, x)
        return b + self.shift(t), divergence


def counterexample():
    normal = lambda v: (np.ones(1), np.zeros((1, 1)), np.full((1, 1, 1), v))  # noqa: E731
    rng = np.random.default_rng(0)
    X0, X1 = rng.normal(0, C0**0.5, (4000, 1)), rng.normal(0, (C0 + 2 * EPS) ** 0.5, (4000, 1))
    make = lambda: with_exact_fields(  # noqa: E731
        InterpolantDiffusion(gamma_scale=2 * (C0 + EPS), noise_schedule="constant", noise_level=EPS),
        normal(C0 + 2 * EPS), normal(C0), X0, MixtureDensity(*normal(C0)),
    )  # fmt: skip
    reference, model = make(), make()
    with_parts(model, velocity=Shifted(model.network_, lambda t: C))
    # s = -eta / gamma shifted by c / eps
    with_parts(model, denoiser=Shifted(model.denoiser_network_, lambda t: -C / EPS * model.interpolant_.gamma(t)))
    return model, reference, X0, X1


def test_erratum_2_45_the_corrected_bound_holds_and_the_printed_one_fails():
    model, reference, X0, X1 = counterexample()
    # drift of the model: b_F + 2c with b_F = 0 here, so its mean at t = 1 is 2c
    kl = (2 * C) ** 2 / (2 * (C0 + 2 * EPS))
    assert kl == pytest.approx(0.009524, abs=1e-6)
    result = model.kl_bound(X0, X1, reference=reference)
    assert result.split == pytest.approx(0.01, rel=1e-6)
    assert result.unsplit == pytest.approx(0.01, rel=1e-6)
    printed = result.split / 2
    assert printed < kl < result.split


def test_erratum_7_1_the_control_variate_makes_every_term_non_negative():
    x = np.random.default_rng(0).normal(size=100_000)
    gap = norm(0, 1).logpdf(x) - norm(0.3, 1.2).logpdf(x)
    terms, printed = gap + (np.exp(-gap) - 1), gap - (np.exp(-gap) - 1)
    kl = np.log(1.2) + (1 + 0.3**2) / (2 * 1.2**2) - 0.5
    assert terms.min() >= 0 > printed.min()
    for values in (terms, printed):
        assert abs(values.mean() - kl) < 4 * values.std() / len(x) ** 0.5


def test_optimal_noise_level_is_the_root_of_the_ratio_of_the_gaps():
    model, reference, X0, X1 = counterexample()
    best = model.optimal_noise_level(X0, X1, reference=reference)
    assert best.noise_level == pytest.approx(EPS, rel=1e-6)
    np.testing.assert_allclose(best.in_time, EPS, rtol=1e-6)
    # in units of the parameter: the same epsilon under another schedule
    model.set_params(noise_schedule=lambda t: 0 * t + 4.0)
    assert model.optimal_noise_level(X0, X1, reference=reference).noise_level == pytest.approx(EPS / 4, rel=1e-6)
    bounds = [model.set_params(noise_level=c).kl_bound(X0, X1, reference=reference).split for c in (0.1, 0.25, 0.6)]
    assert bounds[1] == min(bounds)


def test_a_best_noise_level_is_finite_where_the_score_has_no_error(monkeypatch):
    model, reference, X0, X1 = counterexample()
    with pytest.raises(ValueError, match="The score function has no error against the reference"):
        model.optimal_noise_level(X0, X1, reference=model)
    field_errors = type(model)._field_errors

    def without_the_first(*args):
        times, weights, db, ds, cross = field_errors(*args)
        return times, weights, db, np.where(times == times[0], 0.0, ds), cross

    monkeypatch.setattr(type(model), "_field_errors", without_the_first)
    best = model.optimal_noise_level(X0, X1, reference=reference)
    assert best.in_time[0] == best.noise_level and np.isfinite(best.in_time).all()
    np.testing.assert_allclose(best.in_time[1:], EPS, rtol=1e-6)


def test_bounds_are_the_same_in_all_units():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(200, 2)) * [1.0, 3.0] + rng.normal(size=(200, 1))
    params = {"hidden_layer_sizes": (8,), "random_state": 0, "preprocessing": "standardize", "early_stopping": False}
    values = []
    for units in (np.ones(2), np.array([8.0, 1 / 64])):  # powers of two: no rounding but the units'
        model, strong = (InterpolantDiffusion(**params).set_params(max_iter=m).fit(X * units) for m in (20, 40))
        fisher = model.fisher_divergence(X[:8] * units, reference=strong)
        values.append([model.kl_bound(X * units, reference=strong).unsplit, fisher.value, fisher.relative])
    assert values[0] == pytest.approx(values[1], rel=1e-6)
    assert min(values[0]) > 1e-6  # the two models are not the same


def test_fisher_term_of_a_shifted_velocity_has_its_closed_form():
    """N(0, 1) -> N(0, v) with velocity b + c: the model is N(M, n) with M = n^(1/2) int c n^(-1/2) dt."""
    v, c = 0.5, 0.3
    distribution = np.ones(1), np.zeros((1, 1)), np.full((1, 1, 1), v)
    reference, model = (with_exact_fields(InterpolantDiffusion(preprocessing=None), distribution) for _ in range(2))
    with_parts(model, velocity=Shifted(model.network_, lambda t: c))
    n = lambda t: (1 - t) ** 2 + v * t**2  # noqa: E731
    mean = lambda t: n(t) ** 0.5 * quad(lambda u: c * n(u) ** -0.5, 0, t)[0]  # noqa: E731
    X = np.random.default_rng(0).normal(0, v**0.5, (60, 1))
    result = model.fisher_divergence(X, reference=reference)
    # grad log rho_hat - s = M / n, the same at every row
    np.testing.assert_allclose(result.in_time, [(mean(t) / n(t)) ** 2 for t in result.times], rtol=1e-4)
    assert result.value == pytest.approx(quad(lambda t: (mean(t) / n(t)) ** 2, 0, 1)[0], rel=1e-3)
    kl = mean(1) ** 2 / (2 * v)
    assert kl < result.kl_bound == pytest.approx((result.value * c**2) ** 0.5, rel=1e-6)
    # (2.39): the KL is the mean of (grad log rho_hat - s) . (b_hat - b)
    assert quad(lambda t: mean(t) / n(t) * c, 0, 1)[0] == pytest.approx(kl, rel=1e-6)
    assert reference.fisher_divergence(X).relative < 1e-6


def test_errors_of_the_bounds():
    model, reference, X0, X1 = counterexample()
    with pytest.raises(ValueError, match="infinite at noise_level=0"):
        model.set_params(noise_level=0.0).kl_bound(X0, X1, reference=reference)
    with pytest.raises(ValueError, match="pass held-out rows of both, X0 and X1"):
        model.kl_bound(X0, reference=reference)


@pytest.mark.parametrize("two", [False, True])
def test_diagnose_finds_exact_fields_calibrated(two):
    model, X, _, base = exact(InterpolantDiffusion(noise_level=0.5, n_steps=25), two=two, n=50)
    args = (sample_mixture(np.random.default_rng(5), 50, *base), X) if two else (X,)
    report = model.diagnose(*args)
    assert abs(report.velocity_calibration) < 4 * report.velocity_calibration_error
    assert abs(report.denoiser_calibration) < 4 * report.denoiser_calibration_error
    assert report.solver_error <= model.ode_tol
    assert report.nll_sde_bound >= report.nll - 4 * report.nll_sde_bound_error
    assert np.isfinite(report.loss).all() and len(report.times) == len(report.loss)
    if not two:
        assert (report.latent_ks > 1e-3).all() and report.mahalanobis_ks > 1e-3
    assert "within 3 errors of 0, calibrated" in str(report) and "NOT" not in str(report)
    assert two or re.search(r"KS p = \S+, above 0\.01 \(50 rows\): normal", repr(report))


def test_diagnose_finds_wrong_fields():
    model, X, _, _ = exact(InterpolantDiffusion(noise_level=0.5, n_steps=25), n=25)
    with_parts(model, velocity=Shifted(model.network_, lambda t: 1.0))
    report = model.diagnose(X)
    assert abs(report.velocity_calibration) > 4 * report.velocity_calibration_error
    assert "beyond 3 errors of 0, NOT calibrated" in str(report) and "disagree" in str(report)
    assert re.search(r"KS p = \S+, at most 0\.01 \(25 rows\): NOT normal", str(report))


@pytest.mark.parametrize("base_is_flow", [False, True])
def test_the_density_of_a_bridge_has_the_base_density_in_the_units_of_the_base(base_is_flow):
    rng = np.random.default_rng(0)
    target, (weights, means, covs) = mixture(rng, 2, 2), mixture(rng, 2, 2)
    # data units x = c + D x' of the bridge, and x = c2 + D2 y of the flow, in which the base is this mixture
    c, matrix = np.array([5.0, -2.0]), np.array([[2.0, 0.5], [0.0, 0.3]])
    c2, matrix2 = np.array([4.5, -2.5]), np.array([[1.5, 0.0], [-0.2, 0.5]])
    to_bridge = np.linalg.solve(matrix, matrix2)
    base = weights, means @ to_bridge.T + np.linalg.solve(matrix, c2 - c), to_bridge @ covs @ to_bridge.T
    if base_is_flow:
        density = with_exact_fields(InterpolantFlow(), (weights, means, covs))
        with_parts(density, target_map=AffineMap(c2, matrix2))
    else:
        density = MixtureDensity(weights, c2 + means @ matrix2.T, matrix2 @ covs @ matrix2.T)
    model = with_exact_fields(InterpolantFlow(), target, base, np.zeros((2, 2)), density)
    with_parts(model, base_map=AffineMap(c, matrix), target_map=AffineMap(c + 1, matrix))
    X = sample_mixture(rng, 5, *target)
    expected = mixture_log_density(X, *target) - np.linalg.slogdet(matrix)[1]
    np.testing.assert_allclose(model.score_samples(model.preprocessing_.inverse_transform(X)), expected, atol=1e-3)
