"""Networks in single precision whose rows are the same in every batch."""

import numpy as np
import pytest
import torch

from oracles import limit_levels
from sklearn_si import InterpolantFlow
from sklearn_si.interpolants import GaussianBase, Linear
from sklearn_si.networks import MLP, FiLMNetwork, PreconditionedField
from sklearn_si.networks import _single as single
from sklearn_si.networks._single import SinglePrecisionNetwork, with_single_precision


def network(d, widths, activation="silu", n_conditions=0):
    """One with weights that are no zeros, in double precision."""
    generator = torch.Generator().manual_seed(d)
    net = FiLMNetwork(d, n_conditions, widths, activation, generator).double()
    for parameter in (net.output, net.bias):
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return net.requires_grad_(False)


SHAPES = [(1, (64, 64, 64)), (2, (5,)), (5, (24, 24)), (7, (128, 128, 128)), (9, (33, 40, 17)), (10, (128, 128, 128))]


@pytest.mark.parametrize("activation", ["silu", "tanh", "softplus"])
@pytest.mark.parametrize(("d", "widths"), [*SHAPES, (43, (256, 256))])
def test_it_is_the_network_up_to_the_rounding(d, widths, activation):
    net = network(d, widths, activation)
    rounded = SinglePrecisionNetwork(net)
    x, t = torch.randn(70, d, dtype=torch.float64), torch.rand(70, dtype=torch.float64)
    for time in (t[0], t):
        value, trace = net.value_and_trace(time, x)
        ours, our_trace = rounded.value_and_trace(time, x)
        torch.testing.assert_close(ours, value, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(rounded(time, x), value, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(our_trace, trace, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(("d", "widths"), SHAPES)
def test_a_row_is_the_same_in_every_batch_and_at_every_place(d, widths):
    rounded = SinglePrecisionNetwork(network(d, widths, n_conditions=2))
    if not single.is_alike(rounded):
        pytest.skip("the products of this machine depend on the place of a row; double precision is used")
    generator = torch.Generator().manual_seed(1)
    x, c = (torch.randn(1100, k, generator=generator, dtype=torch.float64) for k in (d, 2))
    t, order = torch.tensor(0.7, dtype=torch.float64), torch.randperm(1100, generator=generator)
    value, trace = rounded.value_and_trace(t, x, c)
    for rows in (order, order[:1], order[:13], order[:500], slice(3, 77)):
        some, part = rounded.value_and_trace(t, x[rows], c[rows])
        torch.testing.assert_close(some, value[rows], rtol=0, atol=1e-12)
        torch.testing.assert_close(part, trace[rows], rtol=0, atol=1e-12)


def test_what_cannot_be_taken_so_is_left_in_double_precision(monkeypatch):
    one = torch.ones(2).double()
    field = PreconditionedField(GaussianBase(Linear()), network(2, (8, 8)), "velocity", one, one)
    assert with_single_precision(MLP(2, 0, (8,)).double()) is None
    assert with_single_precision(field.float()) is None
    field = field.double()
    assert with_single_precision(field) is not None and type(field.network) is FiLMNetwork
    monkeypatch.setattr(single, "is_alike", lambda network: False)
    assert with_single_precision(field) is None


@pytest.fixture(scope="module", params=[5, 9])
def flow(request):
    X = np.random.default_rng(0).standard_t(5, size=(1500, request.param)) @ np.diag(np.arange(1, request.param + 1))
    flow = InterpolantFlow(max_iter=2500, hidden_layer_sizes=(32, 32), preprocessing="whiten", random_state=0).fit(X)
    assert flow.model_.likelihood_calibration.rounding is not None
    return flow, X


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3])
def test_log_densities_do_not_depend_on_the_batch(flow, tolerance):
    flow, X = flow
    flow.set_params(ode_tol=tolerance)
    order = np.random.default_rng(1).permutation(len(X))
    whole = flow.score_samples(X)
    np.testing.assert_allclose(flow.score_samples(X[order]), whole[order], rtol=0, atol=1e-9)
    for rows in (order[:1], order[:7], order[:300], order[100:1400]):
        np.testing.assert_allclose(flow.score_samples(X[rows]), whole[rows], rtol=0, atol=1e-9)


def test_rows_far_out_are_covered_or_solved_in_double_precision(flow, monkeypatch):
    flow, X = flow
    far = X[:10] * np.geomspace(1, 300, 10)[:, None]
    limit_levels(monkeypatch, 5)  # the rows furthest out come under no tolerance
    value, error = flow.set_params(ode_tol=1e-3).score_samples(far, return_error=True)
    fine, rest = flow.set_params(ode_tol=1e-6).score_samples(far, return_error=True)
    assert (np.abs(value - fine) <= error + rest).all()
