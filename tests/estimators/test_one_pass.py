"""Log-densities and transported rows by distilled maps: their errors, and the rows that go to the ODE."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import make_moons

import sklearn_si
from sklearn_si import InterpolantDiffusion, InterpolantFlow
from sklearn_si._estimators import distillation as _distillation
from sklearn_si._model.one_pass import with_unsolved
from sklearn_si._training.density_map import _precision
from sklearn_si.exceptions import NoDensityError
from sklearn_si.networks._steps import StepNetwork, _SiluAndSlope

RNG = np.random.default_rng(0)
MOONS = make_moons(1000, noise=0.08, random_state=0)[0]
FRESH = make_moons(500, noise=0.08, random_state=1)[0]
SMALL = {"max_iter": 200, "hidden_layer_sizes": (24, 24), "preprocessing": "standardize", "random_state": 0}
# Nats within which every row is served by the map, and by none.
ALL, NONE = 1e6, 1e-4


@pytest.fixture(scope="module", autouse=True)
def few_pairs():
    """The maps are fitted to a part of the rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_distillation, "_PAIRS", 2048)
        patch.setattr(_distillation, "_MORE_FOR_DENSITY", 3)
        patch.setattr(_distillation, "_HELD_SHARE", 0.4)
        yield


@pytest.fixture(scope="module")
def flow():
    return InterpolantFlow(**SMALL).fit(MOONS)


@pytest.fixture(scope="module")
def distilled(flow):
    return copied(flow).distill(2, log_density=True, max_iter=150).set_params(solver="distilled")


def copied(model):
    return pickle.loads(pickle.dumps(model))


def by(model, **params):
    """A copy of the model with other parameters."""
    return copied(model).set_params(**params)


# ------------------------------------------------------------------------------------- densities


@pytest.mark.parametrize("n_steps", [1, 3])
def test_the_density_of_a_normal_distribution_is_exact(n_steps):
    """Its flow is linear and its divergence constant: both come in closed form."""
    X = RNG.normal(2.0, [0.5, 3.0], size=(500, 2))
    model = InterpolantFlow(**{**SMALL, "max_iter": 1}).fit(X)
    model.network_.network.output.zero_()
    exact, moved = model.score_samples(X), model.transform(X)
    model.distill(n_steps, log_density=True, max_iter=1).set_params(solver="distilled", ode_tol=ALL)
    inside = np.isfinite(model.score_samples(X))
    assert inside.all()
    assert_allclose(model.score_samples(X), exact, atol=5e-3)
    assert_allclose(model.transform(X), moved, atol=5e-3)
    report = model.distillation_report_
    assert report.log_density_error < 2e-3 and report.mass == pytest.approx(1, abs=2e-3)


def test_the_stated_errors_cover_those_of_fresh_rows(flow, distilled):
    exact = flow.score_samples(FRESH)
    value, stated = by(distilled, ode_tol=ALL).score_samples(FRESH, return_error=True)
    error = np.abs(value - exact)
    assert np.mean(error <= stated) >= 0.98
    assert np.median(error) < 0.02 and np.median(stated) < 0.1
    # rows of large errors are known before they are scored
    large = stated > np.median(stated)
    assert np.median(error[large]) > 1.3 * np.median(error[~large])


def test_a_map_is_near_to_the_density_before_it_is_trained(flow):
    """It starts from the divergence of the fitted network itself."""
    model = copied(flow).distill(log_density=True, max_iter=1)
    assert model.distillation_report_.log_density_error < 0.03
    assert model.distillation_report_.n_steps == 8
    assert copied(flow).distill(max_iter=1).distillation_report_.n_steps == 1


def test_rows_beyond_the_tolerance_have_the_density_of_the_ode(flow, distilled):
    """At a tolerance between the stated errors, both kinds of rows occur, and each has its own answer."""
    exact = flow.score_samples(FRESH)
    _, errors = by(distilled, ode_tol=ALL).score_samples(FRESH, return_error=True)
    tolerance = float(np.median(errors))
    value, stated = by(distilled, ode_tol=tolerance).score_samples(FRESH, return_error=True)
    assert (stated <= tolerance).all()
    is_sent = errors > tolerance
    alone = by(flow, ode_tol=tolerance).score_samples(FRESH[is_sent])
    assert_allclose(value[is_sent], alone, rtol=0, atol=1e-9)
    assert np.mean(np.abs(value - exact) <= stated + 1e-3) >= 0.98
    assert_array_equal(by(distilled, ode_tol=NONE).score_samples(FRESH), by(flow, ode_tol=NONE).score_samples(FRESH))


def test_rows_far_out_are_left_to_the_ode(flow, distilled):
    far = np.array([[8.0, -7.0], [0.0, 12.0]])
    assert_array_equal(by(distilled, ode_tol=0.5).score_samples(far), by(flow, ode_tol=0.5).score_samples(far))


def test_other_times_and_solvers_are_answered_by_the_ode(flow, distilled):
    for asked in ({"solver": "auto"}, {"solver": "rk4"}):
        assert_array_equal(by(distilled, **asked).score_samples(FRESH), flow.score_samples(FRESH))
    assert_array_equal(by(distilled, ode_tol=ALL).score_samples(FRESH[:9], t=0.5), by(flow, ode_tol=ALL).score_samples(
        FRESH[:9], t=0.5
    ))  # fmt: skip


def test_a_row_has_the_same_density_in_every_batch(distilled):
    model, order = by(distilled, ode_tol=0.3), RNG.permutation(len(FRESH))
    whole = model.score_samples(FRESH)
    assert_allclose(model.score_samples(FRESH[order]), whole[order], rtol=0, atol=1e-6)
    assert_allclose(model.score_samples(FRESH[3:10]), whole[3:10], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_answer_has_the_dtype_of_the_rows(distilled, dtype):
    model = by(distilled, ode_tol=0.3)
    value, stated = model.score_samples(FRESH.astype(dtype), return_error=True)
    assert value.dtype == stated.dtype == model.transform(FRESH.astype(dtype)).dtype == dtype


# ------------------------------------------------------------------------------- transported rows


def test_transported_rows_are_within_their_errors(flow, distilled):
    model = by(distilled, ode_tol=ALL)
    Z = flow.transform(FRESH)
    error = np.abs(model.transform(FRESH) - Z).max(1) / (1 + np.abs(Z).max(1))
    assert 1e-4 < np.median(error) < 0.05
    round_trip = np.sqrt(np.square((model.inverse_transform(model.transform(FRESH)) - FRESH) / MOONS.std(0)).mean())
    assert round_trip == pytest.approx(model.distillation_report_.round_trip, rel=0.7)
    tight = by(distilled, ode_tol=NONE)
    assert_array_equal(tight.transform(FRESH), by(flow, ode_tol=NONE).transform(FRESH))
    assert_array_equal(tight.inverse_transform(Z), by(flow, ode_tol=NONE).inverse_transform(Z))


# --------------------------------------------------------------------------------------- reports


def test_the_report_tells_what_the_density_is_worth(flow, distilled):
    report = distilled.distillation_report_
    assert report.sent_back == 1.0  # at the default tolerance
    assert report.mass == pytest.approx(1, abs=0.05) and 0 <= report.kl < 0.05
    assert 0 < report.log_density_error < report.stated_error
    loose = copied(flow).set_params(ode_tol=ALL).distill(2, log_density=True, max_iter=5)
    assert loose.distillation_report_.sent_back == 0.0
    assert "mass" not in copied(flow).distill(max_iter=2).distillation_report_


def test_distilling_twice_gives_the_same_densities(flow):
    state = torch.random.get_rng_state()
    models = [copied(flow).distill(2, log_density=True, max_iter=5) for _ in range(2)]
    values = [m.set_params(solver="distilled", ode_tol=ALL).score_samples(FRESH) for m in models]
    assert_array_equal(*values)
    assert torch.equal(torch.random.get_rng_state(), state)


# ------------------------------------------------------------------------------------ life cycle


def test_saved_models_keep_the_map_and_new_fits_drop_it(distilled, tmp_path):
    model = by(distilled, ode_tol=0.3)
    value = model.score_samples(FRESH)
    sklearn_si.save(model, tmp_path / "model.si")
    assert_array_equal(sklearn_si.load(tmp_path / "model.si").score_samples(FRESH), value)
    assert_array_equal(copied(model).score_samples(FRESH), value)
    assert clone(model).set_params(max_iter=2).fit(MOONS).model_.density_map is None
    assert copied(model).distill(max_iter=2).model_.density_map is None
    assert copied(model).set_params(solver="auto").rectify(1, max_iter=2).model_.density_map is None


# --------------------------------------------------------------------------- other kinds of models


def test_the_density_of_a_condition():
    labels = np.repeat(["a", "b"], 300)
    X = RNG.normal(np.where(labels == "a", -4.0, 4.0)[:, None], 0.5, size=(600, 2))
    model = InterpolantFlow(**SMALL).fit(X, condition=labels)
    exact = model.score_samples(X, condition=labels)
    model.distill(2, condition=labels, log_density=True, max_iter=60).set_params(solver="distilled", ode_tol=ALL)
    value, stated = model.score_samples(X, condition=labels, return_error=True)
    assert np.mean(np.abs(value - exact) <= stated) >= 0.95
    assert np.median(np.abs(value - exact)) < 0.1


@pytest.mark.parametrize("base", ["normal", "flow"])
def test_the_density_of_two_samples(base):
    X0 = RNG.normal(size=(400, 2)) * [1.0, 2.0]
    model = InterpolantDiffusion(base_density=base, **{**SMALL, "max_iter": 30}).fit(X0, X0[::-1] + 5.0)
    X = X0[:100] + 5.0
    exact, moved = model.score_samples(X), model.transform(X0[:100])
    model.distill(2, log_density=True, max_iter=60).set_params(solver="distilled", ode_tol=ALL, noise_level=0.0)
    value, stated = model.score_samples(X, return_error=True)
    assert np.mean(np.abs(value - exact) <= stated) >= 0.95
    assert np.median(np.abs(value - exact)) < 0.1
    assert_allclose(np.median(np.abs(model.transform(X0[:100]) - moved)), 0, atol=0.1)


# --------------------------------------------------------------------------------------- refusals


def test_models_without_a_density_at_the_base_are_refused():
    few = {**SMALL, "max_iter": 2}
    with pytest.raises(ValueError, match="that of an encoding-decoding path is known in the middle"):
        InterpolantFlow("encoding-decoding", **few).fit(MOONS).distill(log_density=True)
    with pytest.raises(NoDensityError, match=r"density of the base is unknown \(base_density=None"):
        InterpolantFlow(base_density=None, **few).fit(MOONS, MOONS + 5).distill(log_density=True)
    with pytest.raises(NoDensityError, match="knows no density at either end"):
        InterpolantDiffusion("mirror", **few).fit(MOONS).distill(log_density=True)


def test_a_density_of_another_guidance_is_refused():
    labels = np.repeat(["a", "b"], 500)
    model = InterpolantFlow(condition_dropout=0.2, **{**SMALL, "max_iter": 2}).fit(MOONS, condition=labels)
    model.distill(1, condition=labels, log_density=True, max_iter=2).set_params(solver="distilled", guidance=2.0)
    for ask in (model.score_samples, model.transform):
        with pytest.raises(ValueError, match="distilled with guidance=1, but guidance is 2: call distill"):
            ask(MOONS[:2], condition="a")


# ----------------------------------------------------------------------------------------- parts


def test_a_step_network_is_the_perceptron_with_products_of_its_slopes():
    """Against the formula, with slopes by automatic differentiation."""
    generator = torch.Generator().manual_seed(0)
    network = StepNetwork(3, 4, (5, 6), "tanh", 0.7, rank=2, generator=generator).double()
    for parameter in (network.output, network.products, network.bias):
        parameter.data.normal_(generator=generator)
    x = torch.randn((300, 3), generator=generator, dtype=torch.float64)
    h, product = x, 1.0
    scales = network.modulate(network.prepare(network.time, x)[0], x.dtype)
    for w, p, shift, (s, c) in zip(network.weights, network.factors, network.shifts, scales, strict=True):
        a = c + s * (h @ w.T)
        h = torch.tanh(a)
        product = product * ((1 - h**2) @ p.T + shift)
    expected = h @ network.output.T + product @ network.products.T + network.bias
    assert_allclose(network(x).detach(), expected.detach(), rtol=1e-12)
    assert_allclose(network.in_blocks(x), expected.detach(), rtol=1e-12)


@pytest.mark.parametrize("rank", [0, 3])
def test_half_precision_is_near(rank):
    generator = torch.Generator().manual_seed(0)
    network = StepNetwork(3, 4, (64, 64), "silu", 0.7, rank=rank, generator=generator)
    network.output.data.normal_(0.0, 0.1, generator=generator)
    x = torch.randn((50, 3), generator=generator)
    low = network(x, None, torch.bfloat16)
    assert low.dtype == torch.float32
    assert 0 < (low - network(x)).abs().max() < 0.03 * network(x).abs().max()


def test_scales_of_each_row_and_scales_of_all_rows_agree():
    """Without a condition the scales are multiplied into the weights, with one they differ from row to row."""
    generator = torch.Generator().manual_seed(0)
    told = StepNetwork(3, 4, (5, 6), "silu", 0.7, n_conditions=1, rank=2, generator=generator).double()
    for parameter in (told.output, told.products):
        parameter.data.normal_(generator=generator)
    plain = StepNetwork(3, 4, (5, 6), "silu", 0.7, rank=2).double()
    columns = [k for k in range(told.modulation.shape[1]) if k != told.modulation.shape[1] - 2]
    plain.load_state_dict(told.state_dict() | {"modulation": told.modulation.data[:, columns]})
    x = torch.randn((9, 3), generator=generator, dtype=torch.float64)
    assert_allclose(told(x, torch.zeros_like(x[:, :1])).detach(), plain(x).detach(), rtol=1e-12)


def test_the_gradients_of_an_activation_and_its_slope_are_those_of_differences():
    a = torch.linspace(-30, 30, 41, dtype=torch.float64, requires_grad=True)
    value, slope = _SiluAndSlope.apply(a)
    torch.testing.assert_close(value, torch.nn.functional.silu(a))
    torch.testing.assert_close(slope, torch.autograd.grad(torch.nn.functional.silu(a).sum(), a)[0])
    assert torch.autograd.gradcheck(_SiluAndSlope.apply, (a,))


def test_only_rows_of_large_or_unknown_errors_are_solved():
    asked = []

    def solve(rows):
        asked.append(rows.tolist())
        return torch.full((len(rows),), 7.0), torch.zeros(len(rows))

    error = torch.tensor([0.1, 0.3, torch.nan, torch.inf])
    value, error = with_unsolved(torch.arange(4.0), error, 0.2, solve)
    assert asked == [[1, 2, 3]]
    assert value.tolist() == [0.0, 7.0, 7.0, 7.0] and error[1:].tolist() == [0.0, 0.0, 0.0]
    with_unsolved(value, error, 0.2, solve)
    assert len(asked) == 1


@pytest.mark.parametrize("max_time", [None, 1e-9])
def test_the_last_steps_are_in_full_precision(max_time):
    settings = _distillation._settings(10, max_time, 0)
    dtype = _precision(settings)
    found = [dtype() for _ in range(10)]
    assert found == [None if max_time is not None or k >= 7 else torch.bfloat16 for k in range(10)]
