"""Two networks of the codes, whose log-probabilities are averaged."""

import numpy as np
import pytest
import torch

import sklearn_si
from sklearn_si.tables import TableSynthesizer, _learning
from sklearn_si.tables._masked import MaskedNetwork
from sklearn_si.tables._together import MeanNetwork


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
