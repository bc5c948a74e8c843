"""max_time bounds the whole fit of an estimator, whatever its parts are."""

import time
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sklearn_si import InterpolantDiffusion, InterpolantFlow, SchroedingerBridge
from sklearn_si._training import loop, ratio_of_samples, run
from sklearn_si._training.path_learning import Ascent
from sklearn_si._training.ratio import RatioEffort
from sklearn_si._training.validation_split import most_validation_rows

X0 = np.random.default_rng(0).normal(size=(600, 2))
X1 = np.random.default_rng(1).normal(size=(600, 2)) + 2.0
LIMIT = 1.0
ESTIMATORS = {
    "flow with the density of its target": InterpolantFlow(max_time=LIMIT, random_state=0),
    "flow with both densities": InterpolantFlow(
        base_density="flow", target_density="flow", max_time=LIMIT, random_state=0
    ),
    "learned path": InterpolantFlow("learned", max_time=LIMIT, random_state=0),
    "diffusion": InterpolantDiffusion(max_time=LIMIT, random_state=0),
    "bridge with rounds of its own pairs": SchroedingerBridge(0.2, "network", max_time=LIMIT, random_state=0),
    "bridge without a density": SchroedingerBridge(0.2, "network", max_time=LIMIT, base_density=None, random_state=0),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_whole_fit_takes_no_longer_than_its_limit(name):
    """15 % and two seconds more at the most; a bridge of three trainings took thrice its limit and more."""
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ESTIMATORS[name].fit(X0, X1)
    assert time.perf_counter() - began < 1.15 * LIMIT + 2


def test_what_is_done_after_the_training_is_done_in_parts_that_a_short_limit_bounds(monkeypatch):
    """Rows for the density of the base had been moved 4,096 at a time, and a ratio been learned from all."""
    moved, compared = [], []
    true = run.odeint

    def odeint(f, x, *args):
        moved.append(len(x))
        return true(f, x, *args)

    def fit_ratio(X0, X1, seed, effort, weights):
        compared.append([len(effort.some_of(X, None)[0]) for X in (X0, X1)])

    monkeypatch.setattr(run, "odeint", odeint)
    monkeypatch.setattr(ratio_of_samples, "fit_ratio", fit_ratio)
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(5000, 10))
    model = InterpolantDiffusion(base_density="flow", max_time=0.2, random_state=0)
    model.fit(wide, wide + rng.normal(size=wide.shape))
    assert max(moved) <= 512
    assert compared == [[500, 500]]


def test_the_plan_of_the_pairs_takes_its_time_from_the_training(monkeypatch):
    """It had been added: 7 s for a limit of 4 s, with 20,000 rows."""
    limits, true = [], run.coupling_of

    def slow(*args):
        time.sleep(0.1)
        return true(*args)

    def train(networks, loss, scores, settings, **kwargs):
        limits.append(settings.max_time)
        return loop.train(networks, loss, scores, settings, **kwargs)

    monkeypatch.setattr(run, "coupling_of", slow)
    monkeypatch.setattr(run, "train", train)
    InterpolantFlow(coupling="optimal", base_density=None, max_time=0.5, random_state=0).fit(X0, X1)
    assert len(limits) == 1 and 0 < limits[0] < 0.5 - 0.1
    InterpolantDiffusion(coupling="entropic", base_density=None, max_time=0.5, random_state=0).fit(X0, X1)
    assert len(limits) == 2 and 0 < limits[1] < 0.5 - 0.1


@pytest.mark.parametrize("n_columns", [2, 10, 30])
def test_rows_of_a_ratio_are_as_many_as_its_time_is_worth(n_columns):
    X, weight = np.zeros((20_000, n_columns)), np.arange(20_000.0)
    counts = [len(RatioEffort(100, seconds).some_of(X, weight)[0]) for seconds in (0.01, 1.0, 1e4)]
    assert counts == sorted(counts) and counts[0] >= 500 and counts[-1] == 20_000
    some, own = RatioEffort(100, 0.01).some_of(X, weight)
    assert len(own) == len(some) < 20_000 and own.max() > 15_000  # spread over all rows
    assert RatioEffort(100).some_of(X, None)[0] is X


def test_a_wide_fit_is_validated_by_as_many_rows_as_its_time_is_worth():
    """64 rows of 1,000 columns took longer than the eight seconds of a fit."""
    assert most_validation_rows(8.0, 1000) == 16
    assert most_validation_rows(3.0, 8) == 64
    assert most_validation_rows(60.0, 8) == most_validation_rows(None, 1000) == 256
    assert 16 < most_validation_rows(60.0, 500) < 256


def test_steps_of_a_learned_path_are_those_of_adam():
    """Kingma & Ba 2015, algorithm 1, with a rate that falls to zero; torch's own Adam takes seconds to load."""
    gradients = np.random.default_rng(0).normal(size=(6, 4))
    parameter, expected, first, second = torch.nn.Parameter(torch.ones(4).double()), np.ones(4), 0.0, 0.0
    ascent = Ascent(SimpleNamespace(parameters=lambda: [parameter], rate=0.1), None, None, 1, None, lambda k: k / 5)
    for k, gradient in enumerate(gradients):
        ascent._move([torch.as_tensor(gradient)])
        ascent.actions.append(0.0)
        first, second = 0.5 * first + 0.5 * gradient, 0.99 * second + 0.01 * gradient**2
        root = np.sqrt(second / (1 - 0.99 ** (k + 1))) + 1e-8
        expected = expected - 0.1 * (1 - k / 5) * (k < 5) * first / (1 - 0.5 ** (k + 1)) / root
    np.testing.assert_allclose(parameter.detach(), expected, rtol=1e-12)


def test_steps_as_a_numpy_integer_are_those_steps():
    """A search hands over numpy's integers, which the number of steps by itself had been taken for."""
    model = InterpolantDiffusion(max_iter=5, hidden_layer_sizes=(8,), random_state=0).fit(X0)
    own = model.set_params(n_steps=3).sample(4)
    np.testing.assert_array_equal(model.set_params(n_steps=np.int64(3)).sample(4), own)
