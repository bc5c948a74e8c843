"""Log-likelihoods of rows are computed once for the same weights."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_si import InterpolantFlow
from sklearn_si._training import row_values
from sklearn_si._training import run as training_run
from sklearn_si._training.row_values import RowValues

ROWS = np.arange(3)


@pytest.fixture
def networks():
    return nn.ModuleDict({"velocity": nn.Linear(2, 2), "batch": nn.BatchNorm1d(2)})


@pytest.fixture
def asked(networks):
    """The number of computations, and a function that asks for values of rows."""
    computed, known = [], RowValues()

    def compute():
        computed.append(1)
        return torch.full((3,), float(len(computed)))

    return computed, lambda rows=ROWS: known.of(networks, rows, compute)()


def test_the_same_weights_have_the_same_values(networks, asked):
    computed, ask = asked
    first = ask()
    assert torch.equal(ask(), first) and len(computed) == 1
    first.zero_()
    assert torch.equal(ask(), torch.ones(3))
    weight = networks["velocity"].weight.data
    before = weight.clone()
    weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(torch.inf))
    assert ask()[0] == 2
    weight.copy_(before)
    assert ask()[0] == 1 and len(computed) == 2


def test_other_rows_and_other_buffers_have_values_of_their_own(networks, asked):
    computed, ask = asked
    ask()
    ask(ROWS + 1)
    networks["batch"].num_batches_tracked += 1
    ask()
    assert len(computed) == 3


def test_the_oldest_values_are_forgotten(networks, asked, monkeypatch):
    computed, ask = asked
    monkeypatch.setattr(row_values, "_KEPT", 2)
    for shift in (0, 1, 2, 2, 1, 0):
        ask(ROWS + shift)
    assert len(computed) == 4


def test_values_have_no_gradient(networks):
    values = RowValues().of(networks, ROWS, lambda: networks["velocity"](torch.ones(3, 2)).sum(1))
    assert not values().requires_grad


def test_no_row_of_a_fit_is_scored_twice_under_the_same_weights(monkeypatch):
    seen, plain = [], training_run.density_parts

    def counted(fields, x, *args):
        seen.append((len(x), float(fields.velocity_network(torch.tensor(0.5), x).double().sum())))
        return plain(fields, x, *args)

    monkeypatch.setattr(training_run, "density_parts", counted)
    X = np.random.default_rng(0).normal(size=(120, 2))
    InterpolantFlow(max_iter=900, hidden_layer_sizes=(8, 8), preprocessing="standardize", random_state=0).fit(X)
    assert len(seen) > 5 and len(set(seen)) == len(seen)
