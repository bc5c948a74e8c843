"""Log-densities and carried rows of exact fields against closed forms."""

import functools

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import multivariate_normal

from oracles import (
    MixtureDensity,
    MixtureFields,
    gaussian_flow_map,
    mixture,
    mixture_log_density,
    random_covariances,
    sample_mixture,
    with_exact_fields,
)
from sklearn_si import InterpolantDiffusion, InterpolantFlow
from sklearn_si._model.fields import Fields
from sklearn_si._model.levels import Level
from sklearn_si._model.likelihood import (
    _nodes,
    flow_with_divergence,
    ode_log_density,
    standard_normal_log_density,
    standard_normal_parts,
)
from sklearn_si._model.likelihood_error import quadrature_error
from sklearn_si._model.transport import transport_rows
from sklearn_si.exceptions import IntegrationWarning
from sklearn_si.interpolants import GaussianBase, Linear
from sklearn_si.solvers._grids import grid_map

# components and dimensions: each model has a mixture of two columns, and a normal or one of 16 columns
TARGETS = [(1, 2), (4, 2), (5, 16)]


def one_sample(estimator, components, d, n=40):
    rng = np.random.default_rng(components + d)
    target = mixture(rng, components, d)
    return with_exact_fields(estimator, target), sample_mixture(rng, n, *target), target


def two_samples(estimator, components, d, n=40):
    rng = np.random.default_rng(components + d)
    target, base = mixture(rng, components, d), mixture(rng, 3, d)
    rows = sample_mixture(rng, n, *base)
    model = with_exact_fields(estimator, target, base, rows, MixtureDensity(*base))
    return model, sample_mixture(rng, n, *target), target


MODELS = {
    "linear": lambda *a: one_sample(InterpolantFlow(), *a),
    "trigonometric": lambda *a: one_sample(InterpolantFlow("trigonometric"), *a),
    "bridge": lambda *a: two_samples(InterpolantFlow(), *a),
    "brownian bridge": lambda *a: two_samples(InterpolantDiffusion(), *a),
    "trigonometric bridge": lambda *a: two_samples(InterpolantFlow("trigonometric"), *a),
}


PAIRS = [
    (model, *target)
    for k, model in enumerate(MODELS)
    for target in TARGETS
    if target == TARGETS[1] or target == TARGETS[2 * (k % 2)]
]


@pytest.mark.parametrize(("model", "components", "d"), PAIRS)
def test_log_density_of_exact_fields(model, components, d):
    estimator, X, target = MODELS[model](components, d)
    true = mixture_log_density(X, *target)
    error = abs(estimator.score_samples(X) - true)
    assert np.quantile(error, 0.99) < 1e-3
    assert error.max() < estimator.ode_tol
    if d == 2:
        assert abs(estimator.set_params(ode_tol=1e-7).score_samples(X[:20]) - true[:20]).max() < 1e-6


def test_log_density_of_a_16_dimensional_mixture_at_a_tight_tolerance():
    estimator, X, target = one_sample(InterpolantFlow(ode_tol=1e-6), 5, 16, 20)
    assert abs(estimator.score_samples(X) - mixture_log_density(X, *target)).max() < 1e-6


@pytest.mark.parametrize(("model", "components", "d"), PAIRS)
def test_transform_comes_back(model, components, d):
    estimator, X, _ = MODELS[model](components, d)
    X = (X if estimator.base_sample_ is None else estimator.base_sample_)[:24]
    assert abs(estimator.inverse_transform(estimator.transform(X)) - X).max() < 1e-3
    if d == 2:
        estimator, X = estimator.set_params(ode_tol=1e-6), X[:6]
        assert abs(estimator.inverse_transform(estimator.transform(X)) - X).max() < 1e-6


@pytest.mark.parametrize("gamma", [None, "brownian"])
def test_gaussian_bridge_is_the_closed_form_map(gamma):
    """Non-commuting covariances: not the optimal map, whatever gamma (theory 9.2)."""
    rng = np.random.default_rng(0)
    cov0, cov1 = random_covariances(rng, 2, 3, low=0.3)
    one = np.ones(1)
    target, base = (one, rng.normal(size=(1, 3)), cov1[None]), (one, rng.normal(size=(1, 3)), cov0[None])
    X = sample_mixture(rng, 50, *base)
    flow = with_exact_fields(InterpolantFlow(gamma=gamma, ode_tol=1e-6), target, base, X, MixtureDensity(*base))
    matrix = gaussian_flow_map(cov0, cov1, flow.interpolant_)
    np.testing.assert_allclose(matrix @ cov0 @ matrix.T, cov1, atol=1e-9)
    np.testing.assert_allclose(flow.transform(X), target[1] + (X - base[1]) @ matrix.T, atol=1e-5)
    assert abs(matrix - matrix.T).max() > 1e-3


def test_forward_and_backward_log_densities_agree():
    """log rho at a sampled row, from the base on with the row and from the row back to the base."""
    rng = np.random.default_rng(0)
    fields = Fields(*(lambda p: (p, MixtureFields(p, *mixture(rng, 3, 2))))(GaussianBase(Linear())))
    x0 = torch.as_tensor(rng.normal(size=(100, 2)))
    x1, divergence, _ = flow_with_divergence(fields, x0, 0.0, 1.0, Level.of(192), "uniform")
    forward = standard_normal_log_density(x0) - divergence
    backward, error = ode_log_density(fields, x1, 1.0, 0.0, standard_normal_parts, 1e-7, "uniform")
    assert (error <= 1e-7).all()
    torch.testing.assert_close(forward, backward, rtol=0, atol=1e-6)


@pytest.mark.parametrize("t", [1e-3, 0.25, 0.5, 0.9, 1 - 1e-3])
def test_log_density_at_intermediate_times(t):
    rng = np.random.default_rng(1)
    path = GaussianBase(Linear())
    exact = MixtureFields(path, *mixture(rng, 3, 2))
    x = torch.as_tensor(rng.normal(size=(50, 2)))
    value, _ = ode_log_density(Fields(path, exact), x, t, 0.0, standard_normal_parts, 1e-6, "uniform")
    torch.testing.assert_close(value, exact.log_density(torch.tensor(t).double(), x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("spacing", ["uniform", "quadratic", "sine", "logit"])
def test_decoupled_solver_is_of_fifth_order(spacing):
    rng = np.random.default_rng(2)
    path = GaussianBase(Linear())
    exact = MixtureFields(path, *mixture(rng, 2, 2))
    x = torch.as_tensor(rng.normal(size=(50, 2)))
    true = exact.log_density(torch.tensor(1.0).double(), x)
    errors = []
    for n_steps in (12, 24, 48, 96):
        end, divergence, _ = flow_with_divergence(Fields(path, exact), x, 1.0, 0.0, Level.of(n_steps), spacing)
        errors.append(float((standard_normal_log_density(end) + divergence - true).abs().mean()))
    assert -np.polyfit(np.arange(4), np.log2(errors), 1)[0] > 4.5


@pytest.mark.parametrize(("values", "n"), [(lambda s: 1 / (s + 0.05), 16), (lambda s: abs(s - 0.3) ** 1.5, 24)])
def test_the_quadrature_knows_what_it_misses(values, n):
    """A pole near the interval, whose coefficients fall like powers of a number, and a kink: like a power of k."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    at_nodes = torch.as_tensor(values((nodes + 1) / 2))[:, None]
    exact, _ = quad(values, 0, 1, points=[0.3], epsabs=1e-13)
    true = abs(float(weights / 2 @ at_nodes[:, 0].numpy()) - exact)
    assert true <= float(quadrature_error(at_nodes)[0]) <= 1000 * true


@pytest.mark.parametrize("span", [(1.0, 0.0), (0.0, 1.0), (0.7, 0.5)])
def test_nodes_of_a_spacing_of_their_own_integrate_as_well(span):
    """The integral of a polynomial in time, of nodes that are given as parameters of the steps' spacing."""
    parameters, weights = _nodes(24, "logit", *span)
    times, rates = grid_map(torch.tensor(parameters, dtype=torch.float64), "logit", *span)
    integral = float((torch.tensor(weights, dtype=torch.float64) * rates * times**3).sum())
    assert integral == pytest.approx((span[1] ** 4 - span[0] ** 4) / 4, rel=1e-12)
    assert (np.diff(parameters) > 0).all()


def test_stated_errors_cover_the_true_ones():
    rng = np.random.default_rng(3)
    for d in (2, 8):
        path = GaussianBase(Linear())
        exact = MixtureFields(path, *mixture(rng, 4, d))
        x = torch.as_tensor(rng.normal(size=(100, d)))
        true = exact.log_density(torch.tensor(1.0).double(), x)
        for spacing, tolerances in (("uniform", (1e-3,)), ("logit", (1.0, 1e-2, 1e-3, 1e-5))):
            for tolerance in tolerances if d == 2 else (1e-3,):
                value, error = ode_log_density(
                    Fields(path, exact), x, 1.0, 0.0, standard_normal_parts, tolerance, spacing
                )
                assert (error <= tolerance).all()
                # the coarsest grid knows its own error less well
                assert ((value - true).abs() <= error).double().mean() >= (0.98 if tolerance == 1.0 else 0.99)
        ends, stated = transport_rows(Fields(path, exact), x, 0.0, 1.0, 1e-3, "uniform")
        finest, _ = transport_rows(Fields(path, exact), x, 0.0, 1.0, 1e-4, "uniform")
        true = (ends - finest).norm(dim=1) / (1 + finest.abs().amax(1))
        assert (true <= stated).double().mean() >= 0.99


@pytest.mark.parametrize("outputs", [(), (0.0, 0.25, 1.0)])
@pytest.mark.parametrize("d", [1, 5])
def test_transported_rows_cost_less_at_looser_tolerances_and_are_within_each(d, outputs):
    rng, path = np.random.default_rng(d), GaussianBase(Linear())

    class Counting(Fields):
        n_rows = 0

        def velocities(self, times):
            def counted(x, known):
                self.n_rows += len(x)
                return known(x)

            return [functools.partial(counted, known=known) for known in super().velocities(times)]

    exact, x = MixtureFields(path, *mixture(rng, 3, d)), torch.as_tensor(rng.normal(size=(60, d)))
    finest, _ = transport_rows(Fields(path, exact), x, 0.0, 1.0, 1e-6, "logit", outputs=outputs)
    counts = []
    for tolerance in (1e-1, 1e-3, 1e-5):
        fields = Counting(path, exact)
        ends, stated = transport_rows(fields, x, 0.0, 1.0, tolerance, "logit", outputs=outputs)
        assert (stated <= tolerance).all()
        assert ((ends - finest).abs().amax(-1) <= tolerance * (1 + finest.abs().amax(-1))).all()
        counts.append(fields.n_rows)
    # six steps and twelve at the loosest, where 10, 20 and 40 are what three solves take
    assert counts[0] < counts[1] < counts[2]
    assert counts[0] < 0.5 * 60 * (6 * 70)


def test_a_loose_tolerance_is_met_by_the_coarsest_grid_alone():
    """With a score the solver states its own error: no second solve is needed to know it."""
    calls = []

    class Counting(Fields):
        def velocity(self, t, x):
            calls.append("velocity")
            return super().velocity(t, x)

        def velocity_and_divergence(self, t, x):
            calls.append("divergence")
            return super().velocity_and_divergence(t, x)

    path, one = GaussianBase(Linear()), np.ones(1)
    fields = Counting(path, MixtureFields(path, one, np.ones((1, 2)), 0.25 * np.eye(2)[None]))
    ode_log_density(fields, torch.ones((1, 2)).double(), 1.0, 0.0, standard_normal_parts, 10.0, "logit")
    assert calls == ["velocity"] * (1 + 8 * 6) + ["divergence"]  # eight steps of six slopes each, all nodes in one call


def test_quadrature_in_double_precision_is_not_rounded_to_single():
    """A tolerance of 1e-10 in nine columns: float32 rates would stall it at 1e-8."""
    path = GaussianBase(Linear())
    exact = MixtureFields(path, np.ones(1), np.zeros((1, 9)), np.diag(np.linspace(0.05, 2, 9))[None])
    x = torch.as_tensor(np.random.default_rng(0).normal(size=(20, 9)))
    value, error = ode_log_density(Fields(path, exact), x, 1.0, 0.0, standard_normal_parts, 1e-10, "logit")
    true = exact.log_density(torch.tensor(1.0).double(), x)
    assert ((value - true).abs() <= error + 1e-12).all() and error.max() < 1e-9


def test_rows_out_of_reach_are_named_in_one_warning(monkeypatch):
    monkeypatch.setattr(Level, "doublings", lambda level: [Level(*(2**k * n for n in level)) for k in range(5)])
    estimator, X, _ = one_sample(InterpolantFlow(ode_tol=1e-9), 4, 2, 20)
    with pytest.warns(IntegrationWarning, match=r"\d+ of 20 rows are not within ode_tol=1e-09"):
        values = estimator.score_samples(X.astype(np.float32))
    assert np.isfinite(values).all() and values.dtype == np.float32


def test_data_units_and_preprocessing_enter_by_their_jacobian():
    rng = np.random.default_rng(4)
    cov = random_covariances(rng, 1, 2)[0] * 100
    X = rng.multivariate_normal([50.0, -3.0], cov, size=4000)
    for preprocessing in ["standardize", "whiten"]:
        flow = InterpolantFlow(preprocessing=preprocessing, max_iter=1, learning_rate_init=1e-9, random_state=0).fit(X)
        # a step of nearly nothing from a zero-initialised residual: the Gaussian model, exact once whitened
        true = multivariate_normal(X.mean(0), np.cov(X.T)).logpdf(X[:200])
        independent = multivariate_normal(X.mean(0), np.diag(X.var(0))).logpdf(X[:200])
        expected = true if preprocessing == "whiten" else independent
        assert abs(flow.score_samples(X[:200]) - expected).mean() < 0.05


@pytest.fixture(scope="module")
def fitted_bridge():
    rng = np.random.default_rng(5)
    X0 = rng.normal(size=(400, 2)) * [1.0, 0.5]
    X1 = np.concatenate([rng.normal([2, 0], 0.4, size=(200, 2)), rng.normal([-1, 1], 0.3, size=(250, 2))])
    return X0, X1


@pytest.mark.parametrize(("cls", "base_density"), [(InterpolantFlow, "normal"), (InterpolantDiffusion, "flow")])
def test_density_after_two_samples_integrates_to_one(fitted_bridge, cls, base_density):
    model = cls(base_density=base_density, max_iter=100, hidden_layer_sizes=(16, 16), random_state=0)
    model.fit(*fitted_bridge)
    grid = np.linspace(-6, 6, 41)
    X = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    total = np.exp(model.score_samples(X)).sum() * (grid[1] - grid[0]) ** 2
    assert abs(total - 1) < 1e-2
