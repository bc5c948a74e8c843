"""What is learned, paths of one's own, the kink of encoding-decoding, and mirrors."""

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from oracles import MixtureFields, random_covariances, sample_mixture, with_parts
from sklearn_si import InterpolantDiffusion, InterpolantFlow
from sklearn_si._training import ratio
from sklearn_si._utils.tensors import column
from sklearn_si.exceptions import NoDensityError
from sklearn_si.interpolants import GaussianBase, Interpolant, Linear, make_interpolant
from sklearn_si.solvers import odeint
from test_fields import (
    INNER,
    ONE,
    OTHER,
    RNG,
    ROWS,
    STANDARD,
    TARGET,
    TIMES,
    N,
    bridge,
    exact,
    mirror,
    one_sample,
    tensor,
)
from test_sampling import assert_moments

# ----------------------------------------------------------------------- what is learned

SMALL = {
    "max_iter": 300, "hidden_layer_sizes": (32, 32), "preprocessing": "standardize", "base_density": None,
    "random_state": 0,
}  # fmt: skip
X0 = RNG.normal([1.0, -1.0], [1.0, 0.5], size=(2000, 2))
X1 = sample_mixture(RNG, 2000, np.full(2, 0.5), np.array([[4.0, 1.0], [6.0, 3.0]]), random_covariances(RNG, 2, 2, 0.2))


def fit_fields(fields, **params):
    return InterpolantDiffusion(fields=fields, n_steps=40, **{**SMALL, **params}).fit(X0, X1)


@pytest.fixture(scope="module")
def fitted():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ratio, "_LEAST_STEPS", 1000)  # the ratio of the densities, for which nobody asks here
        return {name: fit_fields(name) for name in ("b+eta", "b+s", "v+eta", "v+s")}


@pytest.mark.parametrize("t", [0.02, 0.4, 0.9])
@pytest.mark.parametrize("name", ["b+eta", "b+s", "v+eta", "v+s"])
def test_learned_fields_and_their_compositions(fitted, name, t):
    """b = v - gamma gamma_dot s and s = -eta / gamma, whatever was learned (2.10), (2.17)."""
    model = fitted[name]
    first, second = (copy.deepcopy(network).double() for network in model.model_.learned.values())
    assert set(model.model_.learned) == {
        {"b": "velocity", "v": "drift"}[name[0]],
        {"eta": "denoiser", "s": "score"}[name[2:]],
    }
    path, time, x = model.interpolant_, tensor(t), tensor(ROWS)
    gamma, scale = float(path.gamma(time)), model.preprocessing_.scale
    X = model.model_.units.to_data(ROWS, time)
    learned = second(time, x)
    score = learned if name.endswith("s") else -learned / gamma
    velocity = first(time, x) - (float(path.gamma_gamma_dot(time)) * score if name[0] == "v" else 0)
    velocity = model.preprocessing_.centre - model.base_preprocessing_.centre + velocity.numpy() * scale
    assert_allclose(model.velocity(X, t), velocity, rtol=1e-5, atol=1e-5)
    assert_allclose(model.score_function(X, t), score.numpy() / scale, rtol=1e-5, atol=1e-5)
    assert_allclose(model.denoiser(X, t), -gamma * model.score_function(X, t) * scale, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("level", [0.0, 1.0])
@pytest.mark.parametrize("name", ["b+eta", "b+s", "v+eta", "v+s"])
def test_every_pair_of_fields_samples_the_target(fitted, name, level):
    X = fitted[name].set_params(noise_level=level).sample(4000)
    # a short fit: a tenth of the spread
    assert abs((X.mean(0) - X1.mean(0)) / X1.std(0)).max() < 0.1
    assert abs(np.log(X.std(0) / X1.std(0))).max() < 0.1


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (InterpolantFlow(fields="b+eta"), (X0, X1), r"fields='b\+eta' needs a latent noise, but gamma is None"),
        (InterpolantDiffusion(fields="v+s", gamma=None), (X0, X1), "needs a latent noise, but gamma is None"),
        (InterpolantDiffusion(fields="v+s"), (X0,), "with a normal base the velocity gives all other fields"),
        (InterpolantDiffusion("mirror", fields="b+eta"), (X0,), "interpolant='mirror' learns the denoiser alone"),
        (InterpolantDiffusion(fields="b"), (X0, X1), "noise_level=1 .*use InterpolantDiffusion, or noise_level=0"),
        (InterpolantFlow(noise_level=0.5), (X0, X1), "noise_level=0.5 .*use InterpolantDiffusion, or noise_level=0"),
        (InterpolantFlow(fields="s"), (X0, X1), "The 'fields' parameter of InterpolantFlow must be"),
    ],
)
def test_fields_that_do_not_fit_the_rest(model, data, message):
    with pytest.raises(ValueError, match=message):
        model.set_params(max_iter=1).fit(*data)


def test_a_factory_cannot_compose_a_velocity():
    class Field(torch.nn.Module):
        def __init__(self, d):
            super().__init__()
            self.linear = torch.nn.Linear(d, d)

        def forward(self, t, x, condition=None):
            return self.linear(x)

    with pytest.raises(ValueError, match=r"without its score.*use fields='b\+eta' or network='mlp'"):
        fit_fields("v+eta", network=lambda d, c: Field(d), max_iter=1)


def test_a_flow_that_learns_the_denoiser_is_a_diffusion():
    params = {**SMALL, "fields": "b+eta", "gamma": "brownian", "noise_level": 0.5, "n_steps": 10, "max_iter": 20}
    flow, diffusion = (cls(**params).fit(X0, X1) for cls in (InterpolantFlow, InterpolantDiffusion))
    rows = flow.sample(50)
    assert_array_equal(rows, diffusion.sample(50))
    assert not np.array_equal(rows, flow.set_params(noise_level=0.0).sample(50))


# --------------------------------------------------------------------------- paths of one's own


class Bump(Interpolant):
    """I = (1 - t) x0 + t x1 + t (1 - t) sin(x0 + x1): not linear in space."""

    def mean(self, t, x0, x1):
        t = column(t, x0)
        return (1 - t) * x0 + t * x1 + t * (1 - t) * torch.sin(x0 + x1)


@pytest.fixture(scope="module")
def nonlinear():
    params = {**SMALL, "base_density": "normal"}
    return InterpolantDiffusion(Bump("brownian"), n_steps=40, **params).fit(X0, X1)


def test_a_nonlinear_path_samples_and_scores(nonlinear):
    X = nonlinear.sample(4000)
    assert abs((X.mean(0) - X1.mean(0)) / X1.std(0)).max() < 0.1
    assert abs(np.log(X.std(0) / X1.std(0))).max() < 0.1
    assert np.isfinite(nonlinear.score_samples(X1[:50])).all()
    assert np.isfinite(nonlinear.score_function(X1[:50], 1.0)).all()
    assert_array_equal(nonlinear.base_preprocessing_.centre, nonlinear.preprocessing_.centre)


def test_a_nonlinear_path_interpolates_in_scaled_units(nonlinear):
    t, maps = 0.3, nonlinear.preprocessing_
    a, b = (np.repeat(X[:1], N, 0) for X in (X0, X1))
    x0, x1 = maps.transform(a[:1]), maps.transform(b[:1])
    mean = maps.inverse_transform((1 - t) * x0 + t * x1 + t * (1 - t) * np.sin(x0 + x1))
    distribution = np.ones(1), mean, np.diag(t * (1 - t) * maps.scale**2)[None]
    assert_moments(nonlinear.interpolate(a, b, t), distribution)


def test_a_nonlinear_path_needs_two_samples():
    with pytest.raises(ValueError, match="linear in space"):
        InterpolantFlow(Bump(), max_iter=1).fit(X1)


def test_a_nonlinear_path_predicts_no_target(nonlinear):
    with pytest.raises(ValueError, match="predict_target needs a path that is linear in space"):
        nonlinear.predict_target(X1[:5], 0.5)


@pytest.mark.parametrize("n_steps", [7, 8])
def test_the_kink_of_encoding_decoding_is_on_the_grid(n_steps):
    seen = []

    def solver(f, x, times):
        seen.extend(times.tolist())
        return odeint(f, x, times)

    bridge("encoding-decoding", noise_level=0.0, n_steps=n_steps, solver=solver).sample(3)
    assert np.sort(abs(np.array(seen) - 0.5))[1] <= 1.1e-7  # one time to each side
    assert len(seen) == n_steps + 2


def test_moments_through_encoding_and_decoding():
    model = bridge("encoding-decoding", target=ONE, base=OTHER, noise_level=0.5, n_steps=61)
    with_parts(model, base_sample=sample_mixture(np.random.default_rng(5), 4 * N, *OTHER))
    assert_moments(model.sample(N), ONE)


@pytest.mark.parametrize("interpolant", ["encoding-decoding", "encoding-decoding-preserving"])
def test_fourth_order_across_the_kink(interpolant):
    model = bridge(interpolant, target=ONE, base=OTHER, noise_level=0.0, solver="dopri5", n_steps=400)
    truth, steps = model.sample(20), [8, 16, 32]  # beyond, the distance to the kink shows
    errors = [abs(model.set_params(solver="rk4", n_steps=n).sample(20) - truth).max() for n in steps]
    assert -np.polyfit(np.log(steps), np.log(errors), 1)[0] > 3.8


# ----------------------------------------------------------------------------------- mirror


def test_fields_of_a_mirror():
    model = mirror(n=10)
    for t in TIMES:
        for name in ("velocity", "score_function", "denoiser", "predict_target"):
            assert_allclose(getattr(model, name)(ROWS, t), exact(model, name, t), rtol=1e-9, atol=1e-9)
        factor = float(model.interpolant_.gamma_gamma_dot(tensor(t)))
        assert_allclose(model.velocity(ROWS, t), -factor * model.score_function(ROWS, t), atol=1e-9)


def test_resampling_keeps_the_distribution_and_moves_further_with_more_noise():
    model = mirror(target=ONE, n_steps=50)
    X = model.base_sample_
    moved = []
    for level in (0.2, 2.0):
        Y = model.set_params(noise_level=level).resample(X)
        assert_moments(Y, ONE)
        moved.append(((Y - X) ** 2).sum(1).mean())
    assert moved[0] < moved[1]
    flow = mirror(InterpolantFlow, ONE, n_steps=50, noise_level=2.0)
    assert_array_equal(flow.resample(X[:50]), model.resample(X[:50]))


def test_resampling_keeps_the_modes_of_a_mixture():
    model = mirror(noise_level=1.0, n_steps=30)
    assert_moments(model.sample(N), TARGET)


@pytest.mark.parametrize("cls", [InterpolantFlow, InterpolantDiffusion])
def test_a_mirror_without_noise_is_the_identity(cls):
    model = mirror(cls, n=10, noise_level=0.0)
    assert_array_equal(model.resample(ROWS), ROWS)
    assert_array_equal(model.transform(ROWS), ROWS)
    assert_array_equal(model.inverse_transform(ROWS), ROWS)
    assert {tuple(row) for row in model.sample(50)} <= {tuple(row) for row in model.base_sample_}
    there_and_back = model.trajectory(ROWS, 3)
    assert_allclose(there_and_back[-1], ROWS, atol=1e-4)  # its ODE returns to the start
    assert abs(there_and_back[1] - ROWS).max() > 0.05


def test_a_mirror_has_no_density():
    with pytest.raises(NoDensityError, match="interpolant='mirror' knows no density at either end"):
        mirror(n=10).score_samples(ROWS)


@pytest.mark.parametrize("model", [one_sample(), bridge()], ids=["one", "two"])
def test_only_a_mirror_resamples(model):
    with pytest.raises(ValueError, match="resample needs interpolant='mirror'"):
        model.resample(ROWS)


def test_a_mirror_takes_one_sample():
    with pytest.raises(ValueError, match="interpolant='mirror' is for one sample, but fit was given two"):
        InterpolantFlow("mirror").fit(X0, X1)


@pytest.mark.parametrize("cls", [InterpolantFlow, InterpolantDiffusion])
def test_a_fitted_mirror_resamples(cls):
    model = cls("mirror", noise_level=1.0, n_steps=40, **{**SMALL, "max_iter": 200}).fit(X1)
    Y = model.resample(X1)
    assert abs((Y.mean(0) - X1.mean(0)) / X1.std(0)).max() < 0.1
    assert abs(np.log(Y.std(0) / X1.std(0))).max() < 0.1
    assert ((Y - X1) ** 2).sum(1).mean() > 0.2 * X1.var(0).sum()
    assert_array_equal(Y, model.resample(X1, random_state=0))
    assert not np.array_equal(Y, model.resample(X1, random_state=1))
    assert model.resample(X1[:5].astype(np.float32)).dtype == np.float32


def test_a_gaussian_base_absorbs_the_latent_noise():
    """alpha_eff^2 = alpha^2 + gamma^2: the same distribution of x_t, hence the same fields (theory 1.7)."""
    path = make_interpolant("linear", "brownian", 1.0, two_samples=False, latent_noise=False)
    assert isinstance(path, GaussianBase)
    model = one_sample(gamma="brownian")
    oracle = MixtureFields(Linear("brownian"), *TARGET, *STANDARD)
    for t in INNER:
        assert_allclose(model.velocity(ROWS, t), oracle(tensor(t), tensor(ROWS)), rtol=1e-9, atol=1e-9)
        score = oracle.score_function(tensor(t), tensor(ROWS))
        assert_allclose(model.score_function(ROWS, t), score, rtol=1e-9, atol=1e-9)
