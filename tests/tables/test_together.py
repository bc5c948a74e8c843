"""Two networks of the codes, whose log-probabilities are averaged."""

import itertools
import types

import numpy as np
import pytest
import torch

import sklearn_si
from sklearn_si.tables import TableSynthesizer, _learning, _together
from sklearn_si.tables._chain import draw_codes
from sklearn_si.tables._masked import MaskedNetwork
from sklearn_si.tables._together import MeanNetwork, calibrate


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    kind = rng.choice(["a", "b", "c"], size=1200, p=[0.6, 0.3, 0.1])
    return np.column_stack([kind, np.where(kind == "a", "x", rng.choice(["x", "y"], size=1200))]).astype(object)


@pytest.fixture(scope="module")
def fitted(table):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_learning, "_FEWEST", 150)
        patch.setattr(_learning, "_MOST", 150)
        return TableSynthesizer(random_state=0).fit(table)


def test_two_networks_share_the_rows_that_they_hold_out(fitted):
    network = fitted.masked_network_
    assert isinstance(network, MeanNetwork) and len(network.members) == 2
    first, second = (member.embedding for member in network.members)
    assert not torch.equal(first, second)
    assert {one["training"] for one in fitted.history_} == {"codes", "codes 2"}


def test_the_mean_is_that_of_the_log_probabilities(fitted):
    network = fitted.masked_network_
    codes, values = torch.tensor([[0, -1], [2, -1], [1, -1]]), torch.empty(3, 0)
    with torch.no_grad():
        logs = (
            sum(member.column(1, codes, values) for member in network.members) / 2 + network.shift[network.codes_of(1)]
        )
        torch.testing.assert_close(network.column(1, codes, values), torch.log_softmax(logs, 1))


def test_shares_and_dependence_are_those_of_the_table(fitted, table):
    drawn = fitted.sample(20_000, random_state=1)
    assert np.mean(drawn[:, 0] == "a") == pytest.approx(np.mean(table[:, 0] == "a"), abs=0.02)
    for kind in "abc":
        expected = np.mean(table[table[:, 0] == kind, 1] == "x")
        assert np.mean(drawn[drawn[:, 0] == kind, 1] == "x") == pytest.approx(expected, abs=0.08)


def test_saved_networks_answer_as_before(fitted, table, tmp_path):
    sklearn_si.save(fitted, tmp_path / "table.si")
    loaded = sklearn_si.load(tmp_path / "table.si")
    np.testing.assert_array_equal(loaded.score_samples(table[:50]), fitted.score_samples(table[:50]))
    assert (loaded.sample(20, random_state=0) == fitted.sample(20, random_state=0)).all()


@pytest.mark.parametrize("settings", [{"max_iter": 20}, {"max_time": 0.2}])
def test_one_network_where_steps_or_time_are_few(table, settings):
    assert isinstance(TableSynthesizer(random_state=0, **settings).fit(table).masked_network_, MaskedNetwork)


def test_one_network_of_few_rows(table):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_learning, "_FEWEST", 20)
        patch.setattr(_learning, "_MOST", 20)
        assert isinstance(TableSynthesizer(random_state=0).fit(table[:900]).masked_network_, MaskedNetwork)


def test_shares_are_not_shifted_by_a_few_rows_where_time_is_short(monkeypatch):
    """Columns that no time is left for keep what was learned: here it is right."""
    ticks, n_columns = itertools.count(), 60
    monkeypatch.setattr(_together, "time", types.SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    ranks, shares = [np.full(2, np.nan)] * n_columns, [np.array([0.9, 0.1])] * n_columns
    network = MaskedNetwork(shares, ranks, 0, 16, 1, torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        network.output.normal_(0, 0.5, generator=torch.Generator().manual_seed(3))
    # a second a column, where there are twenty for sixty columns
    calibrate(network, 0, torch.Generator().manual_seed(1), seconds=20.0)
    nothing, order = torch.full((4000, n_columns), -1), range(n_columns)
    drawn = draw_codes(network, nothing, torch.empty(4000, 0), order, torch.Generator().manual_seed(2))
    shifted = network.shift.reshape(-1, 2).abs().sum(1) > 0
    assert 0 < shifted.sum() < n_columns
    assert (drawn.double().mean(0) - 0.1).abs()[shifted].max() < 0.03


def test_a_slow_first_column_leaves_no_column_without_its_shares(monkeypatch):
    """On a busy machine the first columns foretold that there was no time for any, and all kept wrong shares."""
    ticks, n_columns = itertools.chain([0.0], itertools.count(0.9, 1e-4)), 60
    monkeypatch.setattr(_together, "time", types.SimpleNamespace(perf_counter=lambda: next(ticks)))
    ranks, shares = [np.full(2, np.nan)] * n_columns, [np.array([0.9, 0.1])] * n_columns
    network = MaskedNetwork(shares, ranks, 0, 16, 1, torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        network.bias.normal_(0, 0.5, generator=torch.Generator().manual_seed(3))
    calibrate(network, 0, torch.Generator().manual_seed(1), seconds=1.0)
    shifted = network.shift.reshape(-1, 2)
    assert (shifted[1:].abs().sum(1) > 0).all()
    told = torch.log_softmax((network.log_shares + network.bias + network.shift).reshape(-1, 2), 1).exp()[1:, 1]
    torch.testing.assert_close(told, torch.full_like(told, 0.1), rtol=0, atol=1e-3)
