"""Rows that stay in a file: the same rows, the same fit, and little memory."""

import numpy as np
import pytest
import torch

from sklearn_si import InterpolantDiffusion, InterpolantFlow
from sklearn_si._training import lazy_rows as _rows
from sklearn_si._training.lazy_rows import Rows, is_large_map, part_of, scaled_rows
from sklearn_si.preprocessing import AffineMap

X = np.random.default_rng(0).normal(3.0, 2.0, size=(500, 3)).astype(np.float32)
SCALING = AffineMap(np.array([1.0, 2.0, 3.0]), np.array([2.0, 3.0, 4.0]))


@pytest.fixture
def mapped(tmp_path, monkeypatch):
    np.save(tmp_path / "X.npy", X)
    monkeypatch.setattr(_rows, "_LARGE", 1000)
    return np.load(tmp_path / "X.npy", mmap_mode="r")


def test_only_large_maps_stay_in_their_file(mapped, monkeypatch):
    assert is_large_map(mapped)
    assert is_large_map(np.asarray(mapped))
    assert is_large_map(np.asarray(mapped)[10:400])
    assert not is_large_map(X)
    assert not is_large_map(mapped[np.arange(400)])  # a copy
    monkeypatch.setattr(_rows, "_LARGE", 10**6)
    assert not is_large_map(mapped)


def test_rows_of_a_file_are_those_of_memory(mapped):
    here, there = (scaled_rows(rows, SCALING, torch.device("cpu")) for rows in (X, mapped))
    assert isinstance(there, Rows)
    assert there.shape == tuple(here.shape)
    assert (there.dtype, there.device) == (here.dtype, here.device)
    numbers = np.array([7, 3, 499, 7])
    for rows in (numbers, torch.as_tensor(numbers), slice(4, 90, 7), slice(None)):
        torch.testing.assert_close(there[rows], here[rows], rtol=0, atol=0)
    some = np.arange(100, 300)[::-1].copy()
    part = part_of(there, some)
    assert isinstance(part, Rows)
    assert len(part) == 200
    torch.testing.assert_close(part.index_select(0, torch.as_tensor(numbers[:2])), here[some[numbers[:2]]])


def test_a_fit_from_a_file_is_the_fit_from_memory(mapped):
    settings = {"hidden_layer_sizes": (8,), "max_iter": 50, "random_state": 0}
    flows = [InterpolantFlow(**settings).fit(rows) for rows in (X, mapped)]
    np.testing.assert_array_equal(*(flow.score_samples(X) for flow in flows))
    bridges = [InterpolantDiffusion(base_density="normal", **settings).fit(rows, rows[::2] + 1) for rows in (X, mapped)]
    np.testing.assert_array_equal(*(bridge.score_samples(X) for bridge in bridges))
    np.testing.assert_array_equal(*(bridge.sample(5) for bridge in bridges))


@pytest.mark.parametrize("coupling", ["optimal", "entropic"])
def test_rows_of_a_file_are_coupled(mapped, coupling):
    settings = {"hidden_layer_sizes": (8,), "max_iter": 3, "base_density": None, "random_state": 0}
    models = [InterpolantDiffusion(coupling=coupling, **settings).fit(rows, rows[::-1]) for rows in (X, mapped)]
    np.testing.assert_array_equal(*(model.transform(X[:20]) for model in models))
