"""The mean of several networks."""

import re

import numpy as np
import pytest
import torch

from sklearn_si import InterpolantFlow, load, save
from sklearn_si._training import gains, loop
from sklearn_si._training.preprocessing_choice import Selection
from sklearn_si.interpolants import GaussianBase, Linear
from sklearn_si.networks import FiLMNetwork, PreconditionedField
from sklearn_si.networks._averaged import AveragedNetwork
from sklearn_si.networks._single import with_single_precision

X = np.concatenate([np.random.default_rng(k).normal(4.0 * k, 1.0, (60, 2)) for k in range(2)])


def member(seed, n_conditions=0):
    generator = torch.Generator().manual_seed(seed)
    network = FiLMNetwork(3, n_conditions, (8, 6), "silu", generator).double()
    torch.nn.init.normal_(network.output, generator=generator)
    return network.requires_grad_(False)


def field_of(network):
    return PreconditionedField(GaussianBase(Linear()), network, "velocity", torch.ones(3), torch.ones(3)).double()


@pytest.mark.parametrize("n_conditions", [0, 2])
def test_values_traces_and_fields_are_the_means_of_those_of_the_members(n_conditions):
    members = [member(seed, n_conditions) for seed in range(3)]
    averaged, fields = AveragedNetwork(members), [field_of(network) for network in members]
    t, x = torch.tensor(0.3).double(), torch.linspace(-1, 1, 15).double().view(5, 3)
    condition = torch.linspace(0, 1, 10).double().view(5, 2) if n_conditions else None
    value, trace = averaged.value_and_trace(t, x, condition)
    torch.testing.assert_close(value, sum(network(t, x, condition) for network in members) / 3)
    torch.testing.assert_close(trace, sum(network.value_and_trace(t, x, condition)[1] for network in members) / 3)
    field = field_of(averaged)
    expected = sum(one(t, x, condition) for one in fields) / 3
    torch.testing.assert_close(field(t, x, condition), expected)
    torch.testing.assert_close(field.instants(t[None], condition)[0](x), expected)
    jacobian = torch.func.jacrev(lambda row: averaged(t, row[None], None if condition is None else condition[:1])[0])
    torch.testing.assert_close(trace[0], jacobian(x[0]).trace())


def test_the_mean_is_taken_in_single_precision_as_its_members_are():
    field = field_of(AveragedNetwork([member(0), member(1)]))
    rounded = with_single_precision(field)
    if rounded is None:
        pytest.skip("rows differ with their batch on this machine")
    t, x = torch.tensor(0.6).double(), torch.linspace(-1, 1, 15).double().view(5, 3)
    torch.testing.assert_close(rounded(t, x), field(t, x), atol=1e-5, rtol=1e-5)
    assert not torch.equal(rounded(t, x), field(t, x))


@pytest.fixture
def left(monkeypatch):
    """Every run ends after its first round as one that overfits, and the time that is left falls by these shares."""
    monkeypatch.setattr(loop, "should_check_overfitting", lambda history: True)
    monkeypatch.setattr(gains.Gains, "overfits", lambda self, optimizer: True)
    shares = [0.9] * 8

    def left(self):
        return shares.pop() if shares else 0.0

    monkeypatch.setattr(Selection, "left", left)


SMALL = {"hidden_layer_sizes": (8, 8), "preprocessing": "standardize", "dropout": 0.1, "random_state": 0}


def test_time_that_is_left_goes_to_further_networks_whose_mean_is_kept_if_it_is_better(left, capsys, tmp_path):
    flow = InterpolantFlow(max_time=30.0, verbose=1, **SMALL).fit(X)
    network = flow.network_.network
    printed = capsys.readouterr().out
    assert re.search(r"Time is left: one more network, the mean of \d has validation score", printed)
    assert re.search(r"Ended after step \d+: it overfits", printed) and "Ends before its time: " in printed
    assert flow.n_networks_ == len(network.members)
    # each network is a training of its own, of which n_iter_ is that of the first
    long = [one for one in flow.history_ if one["training"] == "train"]
    assert len({one["run"] for one in long}) >= flow.n_networks_
    assert isinstance(network, AveragedNetwork)
    first, second = (m.weights[0] for m in list(network.members)[:2])
    assert 2 <= len(network.members) <= 4 and not torch.equal(first, second)
    assert flow.best_validation_score_ > max(flow.validation_scores_)
    save(flow, tmp_path / "flow.si")
    assert np.array_equal(load(tmp_path / "flow.si").score_samples(X), flow.score_samples(X))
    assert load(tmp_path / "flow.si").n_networks_ == flow.n_networks_ > 1
    np.testing.assert_allclose(flow.inverse_transform(flow.transform(X)), X, rtol=0.01, atol=0.01)
    flow.distill(max_iter=10)
    assert flow.set_params(solver="distilled").sample(5).shape == (5, 2)


@pytest.mark.parametrize("params", [{"max_iter": 300}, {"max_time": 30.0, "max_iter": 300}])
def test_no_further_network_where_steps_are_the_limit(left, params):
    flow = InterpolantFlow(**params, **SMALL).fit(X)
    assert type(flow.network_.network) is FiLMNetwork
