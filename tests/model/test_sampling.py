"""Laws of sampled rows of exact fields, for the ODE and the SDEs."""

import itertools

import numpy as np
import pytest
import torch

from oracles import MixtureFields, mixture, moments, sample_mixture, with_exact_fields, with_parts
from sklearn_si import InterpolantDiffusion, InterpolantFlow
from sklearn_si._model.fields import Fields
from sklearn_si._model.settings import Sampling
from sklearn_si._utils.tensors import SAMPLE_STREAM, make_generator
from sklearn_si.exceptions import IntegrationError, IntegrationWarning
from sklearn_si.interpolants import GaussianBase, Linear
from sklearn_si.solvers import SDE_SOLVERS, odeint, time_grid

N = 30_000


def assert_moments(X, target):
    """Mean and covariance within 4 standard errors."""
    mean, cov = moments(*target)
    centred = X - mean
    products = centred[:, :, None] * centred[:, None, :]
    assert (abs(X.mean(0) - mean) < 4 * X.std(0) / len(X) ** 0.5).all()
    assert (abs(products.mean(0) - cov) < 4 * products.std(0) / len(X) ** 0.5).all()


# the ODE has no schedule; the larger the noise, the more steps
LEVELS = [(0.0, 16, "gamma"), (0.5, 60, "gamma"), (0.5, 60, "constant"), (5.0, 150, "constant")]


@pytest.mark.parametrize(("level", "steps", "schedule"), LEVELS)
@pytest.mark.parametrize("interpolant", ["linear", "trigonometric"])
def test_one_sample_moments(level, steps, schedule, interpolant):
    rng = np.random.default_rng(0)
    target = mixture(rng, 1, 2)
    model = InterpolantDiffusion(interpolant, noise_level=level, noise_schedule=schedule, n_steps=steps, random_state=0)
    assert_moments(with_exact_fields(model, target).sample(N), target)


@pytest.mark.parametrize(("level", "steps", "schedule"), LEVELS)
def test_bridge_moments(level, steps, schedule):
    rng = np.random.default_rng(1)
    target, base = mixture(rng, 1, 2), mixture(rng, 1, 2)
    X0 = sample_mixture(rng, 4 * N, *base)
    model = InterpolantDiffusion(noise_level=level, noise_schedule=schedule, n_steps=steps, random_state=0)
    assert_moments(with_exact_fields(model, target, base, X0).sample(N), target)


@pytest.mark.parametrize("solver", SDE_SOLVERS)
def test_mixture_through_an_sde_has_its_mode_weights(solver):
    rng = np.random.default_rng(2)
    target = mixture(rng, 2, 2, spread=4.0)
    model = InterpolantDiffusion(solver=solver, noise_level=1.0, n_steps=100, random_state=0)
    X = with_exact_fields(model, target).sample(20_000)
    distance = ((X[:, None] - target[1]) ** 2).sum(-1)
    share = (distance.argmin(1) == 0).mean()
    p = target[0][0]
    assert abs(share - p) < 4 * (p * (1 - p) / 20_000) ** 0.5


@pytest.mark.parametrize("schedule", ["gamma", "constant"])
def test_weak_order_two_through_the_fields_of_an_estimator(schedule):
    """N(0, 1) -> N(1, 1/4): exact moments of the chain that `sample` runs, no Monte Carlo."""
    path = GaussianBase(Linear())
    fields = Fields(path, MixtureFields(path, np.ones(1), np.ones((1, 1)), np.full((1, 1, 1), 0.25)))
    x = torch.tensor([[0.0], [1.0], [0.0]], dtype=torch.float64)
    noise = torch.tensor([[0.0], [0.0], [1.0]], dtype=torch.float64)
    errors, steps = [], [50, 100, 200, 400]
    for n in steps:
        times = time_grid(n, "uniform")
        drift, epsilon = fields.sde(1.0, schedule, times)
        mean, variance = 0.0, 1.0
        for t, t_next in itertools.pairwise(times):
            shift, moved, kick = SDE_SOLVERS["stochastic-heun"](drift, epsilon, t, t_next - t, x, noise).ravel()
            mean = float(shift + (moved - shift) * mean)
            variance = float((moved - shift) ** 2 * variance + (kick - shift) ** 2)
        errors.append(abs(variance - 0.25) + abs(mean - 1))
    assert -np.polyfit(np.log(steps), np.log(errors), 1)[0] > 1.75


@pytest.mark.parametrize("level", [0.3, 3.0])
def test_drift_is_finite_at_both_ends(level):
    rng = np.random.default_rng(3)
    target, base = mixture(rng, 2, 2), mixture(rng, 2, 2)
    for model in [
        with_exact_fields(InterpolantDiffusion(), target),
        with_exact_fields(InterpolantDiffusion(), target, base, np.zeros((2, 2))),
    ]:
        fields = model.model_.fields(np.float64, torch.device("cpu"))
        for schedule in ["gamma", "constant"]:
            drift, epsilon = fields.sde(level, schedule, time_grid(10, "uniform"))
            for t in torch.tensor([0.0, 1.0], dtype=torch.float64):
                assert torch.isfinite(drift(t, torch.ones(3, 2).double(), epsilon(t))).all()


@pytest.mark.parametrize("two", [False, True])
def test_a_last_denoising_step_keeps_the_distribution(two):
    rng = np.random.default_rng(11)
    target, base = mixture(rng, 1, 2), mixture(rng, 1, 2)
    args = (target, base, sample_mixture(rng, N, *base)) if two else (target,)
    model = InterpolantDiffusion(noise_level=0.5, n_steps=200, solver="stochastic-heun-denoised", random_state=0)
    model = with_exact_fields(model, *args)
    X = model.sample(20_000)
    assert_moments(X, target)
    # in one step from t = 0 it is the mean of the target: all noise is gone
    if not two:
        # rows with noise are drawn in single precision: within some units of its last digit
        drawn, rounding = model.set_params(n_steps=1).sample(5), 4 * np.finfo(np.float32).eps
        np.testing.assert_allclose(drawn, np.repeat(target[1], 5, 0), rtol=rounding)


def test_a_forecast_has_no_denoising_step():
    rng = np.random.default_rng(12)
    X0 = rng.normal(size=(40, 2))
    model = InterpolantDiffusion(start="condition", max_iter=2, hidden_layer_sizes=(4,)).fit(X0, X0 + 1)
    with pytest.raises(ValueError, match="has no meaning with start='condition'"):
        model.set_params(solver="stochastic-heun-denoised").sample(3, condition=X0[0])


def test_seeds():
    rng = np.random.default_rng(4)
    model = with_exact_fields(InterpolantFlow(random_state=0), mixture(rng, 2, 2))
    np.testing.assert_array_equal(model.sample(5), model.sample(5))
    assert not np.array_equal(model.sample(5), model.sample(5, random_state=1))
    np.testing.assert_array_equal(model.sample(5, random_state=1), model.sample(5, random_state=1))
    np.testing.assert_array_equal(model.sample(5), model.set_params(random_state=None).sample(5, random_state=0))
    assert not np.array_equal(model.sample(5), model.sample(5))


def test_rows_do_not_depend_on_chunks(monkeypatch):
    """The distribution is the same and every row is finite, whatever the chunk."""

    rng = np.random.default_rng(5)
    target = mixture(rng, 1, 2)
    monkeypatch.setattr("sklearn_si._model.redraws._ROWS_PER_DRAW", 1000)
    assert_moments(with_exact_fields(InterpolantFlow(random_state=0), target).sample(20_500), target)


def test_a_callable_solver_is_called_with_the_grid():
    rng = np.random.default_rng(6)
    seen = []

    def solver(f, x, times):
        seen.append(len(times))
        return odeint(f, x, times, "midpoint")

    model = with_exact_fields(InterpolantFlow(solver=solver, n_steps=7, random_state=0), mixture(rng, 1, 2))
    expected = model.sample(10)
    assert seen == [8]
    np.testing.assert_array_equal(expected, model.set_params(solver="midpoint").sample(10))


def test_without_noise_the_sde_steppers_are_the_ode_ones():
    rng = np.random.default_rng(7)
    model = with_exact_fields(InterpolantFlow(random_state=0), mixture(rng, 2, 2))
    for sde, ode in [("euler-maruyama", "euler"), ("stochastic-heun", "heun")]:
        a, b = (model.set_params(solver=s).sample(10) for s in (sde, ode))
        np.testing.assert_array_equal(a, b)


def test_a_bridge_starts_from_rows_of_its_base():
    rng = np.random.default_rng(8)
    target = base = (np.ones(1), np.zeros((1, 2)), np.eye(2)[None])
    rows = rng.normal(size=(3, 2))
    # between equal normal distributions with the variance-preserving path, the ODE is the identity
    model = InterpolantFlow("trigonometric", random_state=0)
    X = with_exact_fields(model, target, base, rows).sample(200)
    nearest = ((X[:, None] - rows) ** 2).sum(-1)
    assert nearest.min(1).max() < 1e-8
    assert set(nearest.argmin(1)) == {0, 1, 2}


def test_non_finite_rows_never_leave_in_silence():
    rng = np.random.default_rng(9)
    model = with_exact_fields(InterpolantFlow(random_state=0), mixture(rng, 1, 2))

    class Broken(torch.nn.Module):
        def forward(self, t, x, condition=None):
            return x * torch.inf

    with_parts(model, velocity=Broken())
    with pytest.raises(IntegrationError, match="10 of 10 rows became infinite or NaN while sampling"):
        model.sample(10)
    with pytest.warns(IntegrationWarning, match=r"3 of 3 rows became .* while following the ODE and are NaN"):
        assert np.isnan(model.transform(np.ones((3, 2)))).all()
    with pytest.warns(IntegrationWarning, match="while computing log-densities and are NaN"):
        assert np.isnan(model.score_samples(np.ones((3, 2)))).all()
    with pytest.raises(IntegrationError, match=r"3 of 3 rows became .* while computing log-densities"):
        model.score(np.ones((3, 2)))


def identity_flow():
    """From N(0, I) to itself by a path of constant variance: rows are the numbers that are drawn."""
    distribution = (np.ones(1), np.zeros((1, 2)), np.eye(2)[None])
    return with_exact_fields(InterpolantFlow("trigonometric", random_state=0), distribution)


def test_the_numbers_of_a_sample_are_not_those_of_another_stream():
    """Not those that fit draws from the same seed, above all."""
    X = identity_flow().sample(50)
    for stream in range(1000):
        if stream != SAMPLE_STREAM:
            other = torch.randn((50, 2), generator=make_generator(0, stream), dtype=torch.float64)
            assert abs(other.numpy() - X).min() > 1e-9
    first = {int(torch.randint(2**62, (), generator=make_generator(seed, k))) for seed in (0, 1) for k in range(7)}
    assert len(first) == 14


def test_chunks_have_noise_of_their_own(monkeypatch):
    monkeypatch.setattr("sklearn_si._model.redraws._ROWS_PER_DRAW", 100)
    model = identity_flow()
    for level in (0.0, 0.5):
        X = model.set_params(noise_level=level).sample(300).reshape(3, 100, 2)
        assert abs(X[0] - X[1]).min() > 1e-9 and abs(X[1] - X[2]).min() > 1e-9


@pytest.mark.parametrize(("two_samples", "level"), [(False, 1.0), (False, 8.0), (True, 1.0)])
def test_steps_of_the_sde_resolve_narrow_components(two_samples, level):
    """Equal steps of the same number left them 0.9 (one sample) and 2.9 (two samples) times as wide as they are."""
    sd = 0.03
    target = np.array([0.5, 0.5]), np.array([[-1.0], [1.0]]), np.full((2, 1, 1), sd**2)
    base = ()
    if two_samples:
        X0 = np.random.default_rng(0).normal(size=(4000, 1))
        base = (np.ones(1), np.zeros((1, 1)), np.ones((1, 1, 1))), X0
    model = with_exact_fields(InterpolantDiffusion(noise_level=level, random_state=0), target, *base)
    X = model.sample(4000)[:, 0]
    assert abs((X > 0).mean() - 0.5) < 0.03
    assert abs((X - np.sign(X)).std() / sd - 1) < 0.06


def test_automatic_steps_grow_with_the_noise_and_where_its_schedule_does_not_vanish():
    def steps(**settings):
        return Sampling(n_steps="auto", **settings).grid(None)[0]

    assert steps(noise_level=1.0) == 32 and steps(noise_level=8.0) == 128
    assert steps(noise_level=1e9) == 1000
    assert steps(noise_level=1.0, solver="euler-maruyama") == 100
    assert steps(noise_level=1.0, noise_schedule="constant") == 100
