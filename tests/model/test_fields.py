"""Fields, paths and samplers of fitted models against closed forms, in scaled and in data units."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from oracles import Denoiser, MixtureFields, mixture, moments, sample_mixture, with_exact_fields, with_parts
from sklearn_si import InterpolantDiffusion, InterpolantFlow
from sklearn_si.networks._divergence import Field
from sklearn_si.preprocessing import AffineMap
from sklearn_si.solvers import odeint, odeint_adaptive
from test_sampling import assert_moments

RNG = np.random.default_rng(0)
TARGET, BASE = mixture(RNG, 2, 2), mixture(RNG, 3, 2)
ONE, OTHER = mixture(RNG, 1, 2), mixture(RNG, 1, 2)
ROWS = RNG.normal(size=(5, 2))
TIMES = [0.0, 0.01, 0.3, 0.5, 0.8, 0.99, 1.0]
INNER = TIMES[1:-1]
N = 20_000

ONE_SAMPLE = ["linear", "trigonometric", "vp"]
BRIDGES = [("linear", "brownian"), ("trigonometric", "quadratic"), ("trigonometric-preserving", "sigmoid")]


class ScoredDenoiser(Denoiser, Field):
    """The exact denoiser, with the score that a denoiser of the package gives without a division."""

    def as_score(self):
        return ExactScore(self.fields)


class ExactScore(Denoiser):
    def forward(self, t, x, condition=None):
        return self.fields.score_function(t, x)


def tensor(x):
    return torch.as_tensor(x, dtype=torch.float64)


def one_sample(interpolant="linear", target=TARGET, cls=InterpolantFlow, **params):
    return with_exact_fields(cls(interpolant, random_state=0, **params), target)


def bridge(interpolant="linear", gamma="auto", target=TARGET, base=BASE, cls=InterpolantDiffusion, **params):
    model = cls(interpolant, gamma=gamma, random_state=0, **params)
    model = with_exact_fields(model, target, base, sample_mixture(np.random.default_rng(1), 1000, *base))
    if model.denoiser_network_ is not None:
        with_parts(model, denoiser=ScoredDenoiser(model.network_))
    return model


def mirror(cls=InterpolantDiffusion, target=TARGET, n=N, **params):
    """Exact fields of a mirror: the target convolved with gamma^2 noise, b = -gamma gamma_dot s, eta = -gamma s."""
    model = with_exact_fields(cls("mirror", random_state=0, **params), target)
    with_parts(model, denoiser=ScoredDenoiser(model.network_))
    with_parts(model, base_sample=sample_mixture(np.random.default_rng(2), n, *target))
    return model


def exact(model, name, t, x=ROWS):
    """A field of the oracle inside a model, as an array."""
    fields, t, x = model.network_, tensor(t), tensor(x)
    value = {
        "velocity": lambda: fields(t, x),
        "score_function": lambda: fields.score_function(t, x),
        "denoiser": lambda: fields.denoiser(t, x),
        "predict_target": lambda: fields.posterior_means(t, x)[1],
    }[name]()
    return value.numpy()


# ------------------------------------------------------------------ fields, identity maps


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("interpolant", ONE_SAMPLE)
@pytest.mark.parametrize("cls", [InterpolantFlow, InterpolantDiffusion])
def test_fields_of_one_sample_are_the_exact_ones(cls, interpolant, t):
    model = one_sample(interpolant, cls=cls)
    for name in ("velocity", "denoiser", "predict_target"):
        assert_allclose(getattr(model, name)(ROWS, t), exact(model, name, t), atol=1e-9)
    if t < 1 or interpolant == "vp":  # else the score is a quotient that vanishes at t = 1
        assert_allclose(model.score_function(ROWS, t), exact(model, "score_function", t), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("interpolant", ["linear", "trigonometric"])
def test_the_score_at_the_end_is_that_of_a_time_close_to_it(interpolant):
    model = one_sample(interpolant)
    assert_allclose(model.score_function(ROWS, 1.0), exact(model, "score_function", 0.999), rtol=1e-9)


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize(("interpolant", "gamma"), BRIDGES)
@pytest.mark.parametrize("name", ["velocity", "score_function", "denoiser", "predict_target"])
def test_fields_of_a_bridge_are_the_exact_ones(name, interpolant, gamma, t):
    model = bridge(interpolant, gamma)
    assert_allclose(getattr(model, name)(ROWS, t), exact(model, name, t), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("t", INNER)
def test_a_denoiser_without_a_score_is_divided_by_gamma(t):
    model = bridge()
    with_parts(model, denoiser=Denoiser(model.network_))
    assert_allclose(model.score_function(ROWS, t), exact(model, "score_function", t), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("t", TIMES)
def test_a_bridge_without_noise_knows_its_velocity_and_its_target(t):
    model = bridge(cls=InterpolantFlow)
    for name in ("velocity", "predict_target"):
        assert_allclose(getattr(model, name)(ROWS, t), exact(model, name, t), atol=1e-9)


@pytest.mark.parametrize("t", [0.1, 0.4, 0.6, 0.9])
def test_fields_of_encoding_decoding(t):
    model = bridge("encoding-decoding")
    for name in ("velocity", "score_function", "denoiser"):
        assert_allclose(getattr(model, name)(ROWS, t), exact(model, name, t), rtol=1e-9, atol=1e-9)
    if t > 0.5:  # before, x1 is not in x_t
        assert_allclose(model.predict_target(ROWS, t), exact(model, "predict_target", t), atol=1e-9)


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("name", ["score_function", "denoiser", "predict_target"])
def test_fields_of_encoding_decoding_from_a_normal_base(name, t):
    model = one_sample("encoding-decoding")
    if t <= 0.5 and name == "predict_target":
        with pytest.raises(ValueError, match="nothing of the target is in x_t"):
            model.predict_target(ROWS, t)
        return
    assert_allclose(getattr(model, name)(ROWS, t), exact(model, name, t), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["score_function", "denoiser", "predict_target"])
def test_what_the_velocity_of_a_bridge_does_not_give(name):
    model = bridge(gamma="brownian", cls=InterpolantFlow)
    with pytest.raises(ValueError, match=f"{name} needs the score function.*use InterpolantDiffusion"):
        getattr(model, name)(ROWS, 0.5)


@pytest.mark.parametrize("t", [-0.1, 1.5, np.nan, "0.5", None, np.array([0.5])])
@pytest.mark.parametrize("name", ["velocity", "score_function", "denoiser", "predict_target"])
def test_times_outside_the_unit_interval(name, t):
    with pytest.raises(ValueError, match=r"expected a time in \[0, 1\]"):
        getattr(one_sample(), name)(ROWS, t)


def test_points_are_checked():
    model = one_sample()
    with pytest.raises(ValueError, match="X has 3 features, but InterpolantFlow expects 2"):
        model.velocity(np.ones((4, 3)), 0.5)
    with pytest.raises(ValueError, match="Input X contains NaN"):
        model.trajectory(ROWS * np.nan)


@pytest.mark.parametrize("name", ["velocity", "score_function", "denoiser", "predict_target"])
@pytest.mark.parametrize("model", [one_sample(), bridge()], ids=["one", "two"])
def test_fields_keep_the_dtype(model, name):
    value = getattr(model, name)(ROWS.astype(np.float32), 0.4)
    assert value.dtype == np.float32
    assert_allclose(value, getattr(model, name)(ROWS, 0.4), rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------------- data units

SCALES = {
    "diagonal": np.array([2.0, 0.3]),
    "full": np.array([[2.0, 0.5], [-0.4, 0.3]]),
}
M0, M1 = np.array([5.0, -3.0]), np.array([-1.0, 10.0])


def in_data_units(parameters, centre, scale):
    weights, means, covs = parameters
    return weights, centre + means @ scale.T, scale @ covs @ scale.T


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("kind", SCALES)
@pytest.mark.parametrize("gamma", [None, "brownian"])
def test_bridge_in_data_units(kind, gamma, t):
    """The scaled problem inside the maps is the problem written in data units, its noise N(0, gamma^2 D D^T)."""
    d = SCALES[kind] if SCALES[kind].ndim == 2 else np.diag(SCALES[kind])
    model = bridge(gamma=gamma, cls=InterpolantFlow if gamma is None else InterpolantDiffusion)
    with_parts(model, base_map=AffineMap(M0, SCALES[kind]), target_map=AffineMap(M1, SCALES[kind]))
    oracle = MixtureFields(
        model.interpolant_, *in_data_units(TARGET, M1, d), *in_data_units(BASE, M0, d), noise_cov=d @ d.T
    )
    x = (1 - t) * M0 + t * M1 + ROWS
    at = tensor(t), tensor(x)
    assert_allclose(model.velocity(x, t), oracle(*at), rtol=1e-9, atol=1e-9)
    assert_allclose(model.predict_target(x, t), oracle.posterior_means(*at)[1], rtol=1e-9, atol=1e-9)
    if gamma is not None:
        score = oracle.score_function(*at)
        assert_allclose(model.score_function(x, t), score, rtol=1e-9, atol=1e-9)
        eta = -oracle.interpolant.gamma(at[0]) * score @ tensor(d)
        assert_allclose(model.denoiser(x, t), eta, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("kind", SCALES)
@pytest.mark.parametrize("interpolant", ONE_SAMPLE)
def test_one_sample_in_data_units_has_the_base_of_covariance_ddt(interpolant, kind, t):
    d = SCALES[kind] if SCALES[kind].ndim == 2 else np.diag(SCALES[kind])
    model = one_sample(interpolant)
    with_parts(model, target_map=AffineMap(M1, SCALES[kind]))
    base = np.ones(1), np.zeros((1, 2)), (d @ d.T)[None]
    oracle = MixtureFields(model.interpolant_, *in_data_units(TARGET, M1, d), *base)
    x = t * M1 + ROWS
    at = tensor(t), tensor(x)
    assert_allclose(model.velocity(x, t), oracle(*at), rtol=1e-9, atol=1e-9)
    assert_allclose(model.predict_target(x, t), oracle.posterior_means(*at)[1], rtol=1e-9, atol=1e-9)
    score = oracle.score_function(*at)
    assert_allclose(model.score_function(x, t), score, rtol=1e-9, atol=1e-9)
    eta = -oracle.interpolant.alpha(at[0]) * score @ tensor(d)
    assert_allclose(model.denoiser(x, t), eta, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", SCALES)
def test_trajectory_in_data_units_follows_the_velocity_in_data_units(kind):
    model = bridge(cls=InterpolantFlow, n_steps=200)
    with_parts(model, base_map=AffineMap(M0, SCALES[kind]), target_map=AffineMap(M1, SCALES[kind]))
    X = M0 + ROWS
    times = torch.linspace(0.2, 0.9, 201, dtype=torch.float64)
    end = odeint(lambda t, x: tensor(model.velocity(x.numpy(), float(t))), tensor(X), times)
    # the path of the centres is integrated as well here, in closed form there: linear, so rk4 is exact for it
    assert_allclose(model.trajectory(X, 2, start=0.2, stop=0.9)[-1], end, rtol=1e-6)


# --------------------------------------------------------------------- trajectory: the ODE


@pytest.mark.parametrize("make", [lambda **k: bridge(cls=InterpolantFlow, **k), bridge], ids=["flow", "diffusion"])
def test_trajectory_of_a_bridge_ends_where_transform_does_and_comes_back(make):
    model = make(n_steps=100, ode_tol=1e-6)
    X = model.base_sample_[:20]
    paths = model.trajectory(X, 5)
    assert paths.shape == (5, 20, 2)
    assert_allclose(paths[0], X, rtol=1e-12)
    assert_allclose(paths[-1], model.transform(X), rtol=1e-4, atol=1e-4)
    back = model.trajectory(paths[-1], 5, start=1.0, stop=0.0)
    assert_allclose(back, paths[::-1], rtol=1e-4, atol=1e-4)


def test_trajectory_of_one_sample_backward_is_transform():
    model = one_sample(n_steps=200, ode_tol=1e-6)
    X = sample_mixture(np.random.default_rng(3), 20, *TARGET)
    paths = model.trajectory(X, 3, start=1.0, stop=0.0)
    assert_allclose(paths[-1], model.transform(X), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("start", "stop"), [(0.25, 0.75), (0.75, 0.25), (0.5, 1.0)])
def test_trajectory_between_any_two_times_is_a_piece_of_the_whole(start, stop):
    model = one_sample(n_steps=200)
    whole = model.trajectory(ROWS, 5)  # t = 0, .25, .5, .75, 1
    a, b = round(4 * start), round(4 * stop)
    piece = model.trajectory(whole[a], abs(b - a) + 1, start=start, stop=stop)
    assert_allclose(piece, whole[a : b + 1] if b > a else whole[b : a + 1][::-1], rtol=1e-6, atol=1e-6)


def test_trajectory_has_the_asked_times_whatever_the_steps():
    model = one_sample(n_steps=10)
    assert model.trajectory(ROWS, 8).shape == (8, 5, 2)
    fine, coarse = model.trajectory(ROWS, 41), model.trajectory(ROWS, 2)
    assert_allclose(coarse[-1], fine[-1], atol=1e-2)


def test_trajectory_keeps_the_dtype_and_repeats_with_a_seed():
    model = bridge(n_steps=10)
    assert model.trajectory(ROWS.astype(np.float32), 3).dtype == np.float32
    assert model.trajectory(ROWS.astype(np.float32), 3, noise_level=1.0).dtype == np.float32
    a = model.trajectory(ROWS, 3, noise_level=1.0)
    assert_array_equal(a, model.trajectory(ROWS, 3, noise_level=1.0))
    assert_array_equal(a, model.trajectory(ROWS, 3, noise_level=1.0, random_state=0))
    assert not np.array_equal(a, model.trajectory(ROWS, 3, noise_level=1.0, random_state=1))
    assert_array_equal(model.trajectory(ROWS, 3, random_state=1), model.trajectory(ROWS, 3))  # the ODE draws nothing


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_times": 1}, "n_times=1, but expected an integer of at least 2"),
        ({"n_times": 2.0}, "n_times=2.0, but expected an integer"),
        ({"start": 0.5, "stop": 0.5}, "start = stop = 0.5: expected two different times"),
        ({"start": -0.5}, r"t=-0.5, but expected a time in \[0, 1\]"),
        ({"noise_level": -1.0}, "noise_level=-1.0, but expected a float of at least 0"),
    ],
)
def test_bad_trajectories(params, message):
    with pytest.raises(ValueError, match=message):
        one_sample().trajectory(ROWS, **params)


def test_a_noisy_trajectory_needs_the_score():
    with pytest.raises(ValueError, match="trajectory with noise_level > 0 needs the score function"):
        bridge(cls=InterpolantFlow).trajectory(ROWS, noise_level=0.5)


# --------------------------------------------------------------------- trajectory: the SDE


def distribution(path, t, base):
    """The distribution of x_t between ONE component ends."""
    a, b, g = (float(f(tensor(t))) for f in (path.alpha, path.beta, path.gamma))
    mean = a * base[1] + b * ONE[1]
    return np.ones(1), mean, a**2 * base[2] + b**2 * ONE[2] + g**2 * np.eye(2)


STANDARD = (np.ones(1), np.zeros((1, 2)), np.eye(2)[None])


def steep(t):
    """A noise far from symmetric in time: with t in place of 1 - t (erratum of (2.35)) it is another process."""
    return 4 * t**3


@pytest.mark.parametrize("forward", [True, False], ids=["forward", "backward"])
@pytest.mark.parametrize("schedule", ["gamma", "constant", steep])
@pytest.mark.parametrize("two", [False, True], ids=["one-sample", "bridge"])
def test_sde_trajectory_has_the_distribution_of_the_interpolant_at_each_time(two, schedule, forward):
    params = {"noise_schedule": schedule, "n_steps": 60, "cls": InterpolantDiffusion}
    model = bridge(target=ONE, base=OTHER, **params) if two else one_sample(target=ONE, **params)
    base = OTHER if two else STANDARD
    start, stop = (0.0, 1.0) if forward else (1.0, 0.0)
    X = sample_mixture(np.random.default_rng(4), N, *(base if forward else ONE))
    paths = model.trajectory(X, 5, start=start, stop=stop, noise_level=0.5)
    for t, rows in zip(np.linspace(start, stop, 5), paths, strict=True):
        assert_moments(rows, distribution(model.interpolant_, t, base))


def test_noise_of_a_backward_trajectory_is_that_of_its_time():
    """Quadratic variation of a short piece: 2 epsilon(t) dt, at t and not at 1 - t."""
    model = bridge(target=ONE, base=OTHER, noise_schedule=steep, n_steps=4)
    paths = model.trajectory(np.repeat(ROWS[:1], N, 0), 2, start=0.9, stop=0.89, noise_level=0.5)
    variance = paths[-1].var(0).mean()
    # drifts change it by O(dt) of itself: 5 % here; at 1 - t it would be 700 times smaller
    assert variance == pytest.approx(2 * 0.5 * steep(0.895) * 0.01, rel=0.1)


# ------------------------------------------------------------------------------ interpolate


def test_interpolate_has_the_mean_path_and_the_noise_level():
    model = bridge("trigonometric", "quadratic", gamma_scale=2.0)
    X0, X1 = (np.repeat(r[None], N, 0) for r in ROWS[:2])
    for t in (0.2, 0.7):
        X = model.interpolate(X0, X1, t)
        mean = math.cos(math.pi * t / 2) * ROWS[0] + math.sin(math.pi * t / 2) * ROWS[1]
        assert_moments(X, (np.ones(1), mean[None], 2 * (t * (1 - t)) ** 2 * np.eye(2)[None]))


@pytest.mark.parametrize("kind", SCALES)
def test_interpolate_in_data_units(kind):
    d = SCALES[kind] if SCALES[kind].ndim == 2 else np.diag(SCALES[kind])
    model = bridge(gamma="brownian")
    with_parts(model, base_map=AffineMap(M0, SCALES[kind]), target_map=AffineMap(M1, SCALES[kind]))
    X0, X1 = (np.repeat(r[None], N, 0) for r in ROWS[:2])
    X = model.interpolate(X0, X1, 0.3)
    assert_moments(X, (np.ones(1), (0.7 * ROWS[0] + 0.3 * ROWS[1])[None], 0.21 * (d @ d.T)[None]))
    one = one_sample()
    with_parts(one, target_map=AffineMap(M1, SCALES[kind]))
    assert_allclose(one.interpolate(X0, X1, 0.3), 0.7 * X0 + 0.3 * X1, rtol=1e-12)


@pytest.mark.parametrize(
    "model", [one_sample("trigonometric"), one_sample(gamma="brownian"), bridge(), bridge("encoding-decoding")]
)
def test_interpolate_ends_at_the_given_rows(model):
    X0, X1 = ROWS, ROWS[::-1] + 1
    assert_allclose(model.interpolate(X0, X1, 0.0), X0, atol=1e-12)
    assert_allclose(model.interpolate(X0, X1, 1.0), X1, atol=1e-12)


def test_interpolate_takes_pairs_and_a_seed():
    model = bridge()
    with pytest.raises(ValueError, match="X0 has 5 rows and X1 has 4: expected pairs"):
        model.interpolate(ROWS, ROWS[:4], 0.5)
    with pytest.raises(ValueError, match="X1 has 1 features"):
        model.interpolate(ROWS, ROWS[:, :1], 0.5)
    a = model.interpolate(ROWS, ROWS, 0.5)
    assert_array_equal(a, model.interpolate(ROWS, ROWS, 0.5, random_state=0))
    assert not np.array_equal(a, model.interpolate(ROWS, ROWS, 0.5, random_state=1))
    assert model.interpolate(ROWS.astype(np.float32), ROWS.astype(np.float32), 0.5).dtype == np.float32


# -------------------------------------------------------------------- solvers and schedules


@pytest.mark.parametrize("interpolant", ONE_SAMPLE)
def test_denoising_recursion_converges_to_the_ode_at_order_one(interpolant):
    model = one_sample(interpolant, solver="dopri5", n_steps=100)
    truth, steps = model.sample(50), [40, 80, 160]
    errors = [abs(model.set_params(solver="denoising", n_steps=n).sample(50) - truth).mean() for n in steps]
    assert -np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(1, abs=0.1)


def test_denoising_in_one_step_is_the_posterior_mean_of_the_target():
    model = one_sample(solver="denoising", n_steps=1)
    mean, _ = moments(*TARGET)
    assert_allclose(model.sample(4), np.tile(mean, (4, 1)), atol=1e-9)  # E[x1 | x0] = E[x1]


def test_denoising_needs_a_normal_base_and_no_noise():
    with pytest.raises(ValueError, match="solver='denoising' needs a standard normal base"):
        bridge(noise_level=0.0, solver="denoising").sample(3)
    with pytest.raises(ValueError, match="solver='denoising' integrates the ODE, but noise_level=1 > 0"):
        one_sample(noise_level=1.0, solver="denoising").sample(3)


@pytest.mark.parametrize("make", [one_sample, lambda **k: bridge(cls=InterpolantFlow, **k)], ids=["one", "two"])
def test_adaptive_steps_are_accurate_and_rise_with_the_tolerance(make):
    model = make(solver="dopri5", n_steps=400)
    truth = model.sample(10)
    errors = []
    for tol in (1e-3, 1e-6):
        X = model.set_params(solver="dopri5-adaptive", ode_tol=tol).sample(10)
        errors.append(abs(X - truth).max())
    # a tolerance of one step: there are dozens, and the flow stretches their errors
    assert errors[0] < 5e-2
    assert errors[1] < 5e-5


def test_adaptive_steps_of_a_row_do_not_depend_on_the_others():
    fields = one_sample().model_.fields(np.float64, torch.device("cpu"))
    x = tensor(ROWS)
    together = odeint_adaptive(fields.velocity, x, 0.0, 1.0, 1e-4)
    alone = torch.cat([odeint_adaptive(fields.velocity, row[None], 0.0, 1.0, 1e-4) for row in x])
    # other batches, other roundings
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("interpolant", "formula"),
    [
        ("linear", lambda t: (1 - t) / t),
        ("trigonometric", lambda t: math.pi / 2 / torch.tan(math.pi * t / 2)),
        ("vp", lambda t: 1 / t),
    ],
)
def test_the_optimal_schedule_has_its_closed_form(interpolant, formula):
    """epsilon = alpha^2 beta_dot / beta - alpha alpha_dot."""
    fields = one_sample(interpolant).model_.fields(np.float64, torch.device("cpu"))
    t = torch.linspace(0.01, 0.99, 33, dtype=torch.float64)
    assert_allclose(fields.schedule("optimal", t), formula(t), rtol=1e-12)


@pytest.mark.parametrize(
    ("interpolant", "schedule", "n_steps"),
    [*[(name, "optimal", 80) for name in ONE_SAMPLE], ("linear", lambda t: 1 - t, 60), ("trigonometric", steep, 60)],
)
def test_moments_under_other_schedules(interpolant, schedule, n_steps):
    model = one_sample(interpolant, ONE, noise_level=0.5, noise_schedule=schedule, n_steps=n_steps)
    assert_moments(model.sample(N), ONE)


def test_a_callable_schedule_moves_rows_by_its_own_noise():
    """A schedule of zeros is the ODE, of ones "constant"."""
    model = one_sample(noise_level=0.5, n_steps=50, noise_schedule="constant")
    constant = model.sample(20)
    assert_array_equal(model.set_params(noise_schedule=lambda t: 1.0).sample(20), constant)
    rows = model.set_params(noise_schedule=torch.zeros_like).sample(20)
    ode = model.set_params(noise_level=0.0, solver="rk4").sample(20)
    assert_allclose(rows, ode, atol=5e-2)  # Heun of 50 steps


def test_the_optimal_schedule_needs_a_normal_base():
    message = "noise_schedule='optimal' is known for a normal base only"
    model = bridge(noise_schedule="optimal")
    with pytest.raises(ValueError, match=message):
        model.sample(3)
    with pytest.raises(ValueError, match=message):
        model.trajectory(ROWS, noise_level=0.5)
    with pytest.raises(ValueError, match=message):
        InterpolantDiffusion(noise_schedule="optimal", max_iter=1).fit(ROWS, ROWS + 1)
