"""Training as seen from outside: warm starts, early stopping, times, interrupts, divergence."""

import dataclasses
import itertools
import re
import time

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from sklearn_si import InterpolantDiffusion, InterpolantFlow, load, save
from sklearn_si._model.calibration import SHARE_OF_WORK
from sklearn_si._training import problem as _fitting
from sklearn_si._training.batches import Batches
from sklearn_si._training.loop import ROUND
from sklearn_si._utils.tensors import FIT_STREAM
from sklearn_si.exceptions import FitDivergedError

SMALL = {
    "max_iter": 20, "hidden_layer_sizes": (8,), "n_steps": 4, "preprocessing": "standardize", "base_density": "normal",
    "random_state": 0,
}  # fmt: skip

RNG = np.random.default_rng(0)
X = RNG.normal([1.0, -2.0], [1.0, 3.0], size=(80, 2))
X1 = RNG.normal([4.0, 0.0], [2.0, 0.5], size=(60, 2))


def small(cls=InterpolantFlow, **params):
    return cls(**{**SMALL, **params})


def test_warm_start_goes_on():
    model = small(warm_start=True, max_iter=ROUND).fit(X)
    first, network = model.best_validation_score_, model.network_
    model.set_params(max_iter=2 * ROUND).fit(X)
    assert model.network_ is network
    assert model.n_iter_ == 3 * ROUND
    assert len(model.loss_curve_) == len(model.validation_scores_) == 3
    # where no round is better, the weights that it continued from are kept
    assert model.best_validation_score_ >= first
    assert model.set_params(warm_start=False).fit(X).n_iter_ == 2 * ROUND


def test_warm_start_goes_on_with_both_networks_of_a_bridge():
    model = small(InterpolantDiffusion, warm_start=True).fit(X, X1)
    networks = model.network_, model.denoiser_network_
    model.fit(X, X1)
    assert (model.network_, model.denoiser_network_) == networks
    assert model.n_iter_ == 40


def test_the_history_has_the_rounds_of_all_trainings_and_goes_on_with_a_warm_start(tmp_path):
    model = InterpolantFlow(hidden_layer_sizes=(8, 8), max_iter=4 * ROUND, warm_start=True, random_state=0).fit(X)
    first = model.history_
    names = [one["training"] for one in first]
    assert names == sorted(names) and set(names) == {"compare", "train"}
    long = [one for one in first if one["training"] == "train"]
    start = [one["loss"] for one in long].index(model.loss_curve_[0])
    kept = long[start : start + len(model.loss_curve_)]
    assert [one["loss"] for one in kept] == model.loss_curve_
    assert [one["validation_score"] for one in kept] == model.validation_scores_
    runs = [one["run"] for one in first]
    assert runs == sorted(runs) and set(runs) == set(range(runs[-1] + 1))
    # the last round of each says why it ended, and no other does
    last = [one["run"] != after["run"] for one, after in itertools.pairwise([*first, {"run": None}])]
    assert [one["stopped"] is not None for one in first] == last
    save(model, tmp_path / "model.si")
    assert load(tmp_path / "model.si").history_ == first
    assert model.fit(X).history_[: len(first)] == first and len(model.history_) > len(first)
    assert model.history_[len(first)]["run"] == runs[-1] + 1


def test_verbose_tells_of_the_comparison_and_of_the_end(capsys):
    InterpolantFlow(hidden_layer_sizes=(8,), max_iter=60, verbose=1, random_state=0).fit(X)
    printed = capsys.readouterr().out
    assert re.search(r"^Compared: standardize, validation score -?\d+\.\d+ after \d+ steps$", printed, re.M)
    assert re.search(r"^Ended after step \d+: it has taken all of its steps$", printed, re.M)


def test_early_stopping_stops_and_its_absence_does_not():
    # with so large a tol every round is stale: the closed form where training starts has been scored as well
    stopped = small(max_iter=10 * ROUND, tol=100.0, n_iter_no_change=2).fit(X)
    assert stopped.n_iter_ == 2 * ROUND
    assert len(stopped.validation_scores_) == 2
    assert stopped.best_validation_score_ >= max(stopped.validation_scores_)
    full = small(max_iter=4 * ROUND, tol=100.0, n_iter_no_change=2, early_stopping=False).fit(X)
    assert full.n_iter_ == 4 * ROUND
    assert full.validation_scores_ is None and full.best_validation_score_ is None
    assert len(full.loss_curve_) == 4 and full.loss_ == full.loss_curve_[-1]


def test_no_convergence_is_warned_of_only_where_a_tolerance_was_asked_for(recwarn):
    small().fit(X)
    assert not [w for w in recwarn if issubclass(w.category, ConvergenceWarning)]
    with pytest.warns(ConvergenceWarning, match="still rising by more than tol=1e-06 after 100 steps: raise max_iter"):
        small(tol=1e-6, max_iter=ROUND).fit(np.exp(X / 2))


@pytest.mark.parametrize("args", [(X,), (X, X1)], ids=["one", "two"])
@pytest.mark.parametrize("preprocessing", ["auto", "standardize"])
def test_max_time_bounds_the_whole_fit(args, preprocessing):
    model = small(max_iter=10**7, n_iter_no_change=10**7, max_time=0.6, base_density="flow")
    model.set_params(preprocessing=preprocessing)
    took = []
    while not took or (took[-1] >= 1.2 and len(took) < 3):  # again where the machine was busy elsewhere
        start = time.perf_counter()
        model.fit(*args)
        took.append(time.perf_counter() - start)
    assert 0.3 < took[-1] < 1.2
    assert 1 <= model.n_iter_ < 10**7


def test_verbose_prints_a_line_a_round(capsys):
    model = small(max_iter=2 * ROUND, verbose=1).fit(X)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"Ended after step {2 * ROUND}: it has taken all of its steps"
    assert lines[:-1] == [
        f"step {ROUND * (k + 1)}: loss {model.loss_curve_[k]:.4f}, validation score {model.validation_scores_[k]:.4f}"
        for k in range(2)
    ]
    small().fit(X)
    assert capsys.readouterr().out == ""


def after_calls(n_calls, then):
    """A method that gives the true loss for some calls, then another."""
    calls, true = iter(range(10**9)), Batches.loss

    def loss(self):
        value = true(self)
        return then(value) if next(calls) >= n_calls else value

    return loss


def interrupt(value):
    raise KeyboardInterrupt


@pytest.mark.parametrize("n_calls", [0, 5, ROUND + 5])
def test_an_interrupt_keeps_a_usable_model(monkeypatch, n_calls):
    monkeypatch.setattr(Batches, "loss", after_calls(n_calls, interrupt))
    with pytest.warns(ConvergenceWarning, match=f"interrupted after {n_calls} steps: the best weights so far are kept"):
        model = small(max_iter=3 * ROUND).fit(X)
    assert model.n_iter_ == max(1, n_calls)
    assert np.isfinite(model.sample(5)).all()
    # at least as good as the normal distribution with the moments of X, where training starts
    normal = GaussianMixture(1).fit(X).score(X)
    assert model.score(X) > normal - 0.5


def test_an_interrupt_while_preprocessing_is_chosen_ends_the_fit(monkeypatch):
    monkeypatch.setattr(Batches, "loss", after_calls(5, interrupt))
    with pytest.warns(ConvergenceWarning, match="interrupted after 5 steps") as record:
        model = small(max_iter=3 * ROUND, preprocessing="auto").fit(X)
    assert len(record) == 1
    assert np.isfinite(model.score(X))


@pytest.mark.filterwarnings("ignore:The training loss")
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("step", [0, 7, ROUND + 3])
def test_a_diverged_fit_names_its_step(monkeypatch, step, value):
    monkeypatch.setattr(Batches, "loss", after_calls(step, lambda loss: loss * value))
    with pytest.raises(FitDivergedError, match=rf"stopped being finite.*rates 0.01 \(step {step}\), 0.001"):
        small(max_iter=2 * ROUND).fit(X)


def test_a_rare_value_that_falls_into_the_held_out_rows_is_no_constant_column():
    held_out = np.random.default_rng([0, FIT_STREAM]).permutation(80)[0]
    rare = np.column_stack([X, np.arange(80) == held_out])
    model = small().fit(rare)
    assert_allclose(model.preprocessing_.scale[2], rare[:, 2].std(), rtol=1e-12)
    assert np.isfinite(model.loss_)
    assert np.isfinite(model.sample(10)).all()


def test_the_base_density_sees_rows_of_x1_carried_back():
    """Both ends' rows are draws of the base: as many of X1 as X0 has, through the flow at t = 0."""
    rng = np.random.default_rng(0)
    X0, X1 = rng.normal(size=(60, 2)), rng.normal(3, 0.5, size=(200, 2))
    settings = {"max_iter": 300, "hidden_layer_sizes": (16,), "random_state": 0}
    seen = []

    class Recording(InterpolantFlow):
        def _fit(self, X0, *others):
            seen.append(np.asarray(X0))
            return super()._fit(X0, *others)

    bridge = Recording(base_density="flow", **settings).fit(X0, X1)
    assert [len(rows) for rows in seen] == [60, 120]
    np.testing.assert_array_equal(seen[1][:60], X0)
    carried = seen[1][60:]
    assert abs(carried.mean(0)).max() < 0.5  # at the base, not at 3
    # they are rows of X1, moved by the bridge
    distance = abs(bridge.transform(carried)[:, None] - X1).max(-1).min(1)
    assert distance.max() < 1e-2


def test_a_base_without_a_density_is_refused_before_any_training():
    X = np.random.default_rng(0).normal(size=(30, 2))
    with pytest.raises(ValueError, match=r"Columns \[1\] of X0 are constant"):
        InterpolantFlow(max_iter=10**6).fit(X * [1.0, 0.0], X)


def last_rows_held(cls):
    """An estimator that holds out the last ten rows of its target."""

    class Split(cls):
        def _recipe(self):
            split = lambda n, fraction, rng: (np.arange(n - 10), np.arange(n - 10, n))  # noqa: E731
            return dataclasses.replace(super()._recipe(), split=split)

    return Split


@pytest.mark.parametrize("two", [False, True])
def test_rounds_are_judged_by_the_rows_that_are_held_out(two):
    """Where these are far from all others no round scores well, and training rows are learned nevertheless."""
    far = np.concatenate([X[:-10], X[-10:] + 300.0])
    model = small(last_rows_held(InterpolantFlow), base_density=None).fit(*((X1, far) if two else (far,)))
    assert max(model.validation_scores_) < -100
    assert abs(model.loss_) < 10


def test_a_bridge_and_its_base_density_share_the_time(monkeypatch):
    seen, true = [], _fitting.train_best
    monkeypatch.setattr(_fitting, "train_best", lambda e, plan, s: seen.append(s.max_time) or true(e, plan, s))
    model = small(base_density="flow", max_time=3.0).fit(X, X1)
    assert model.base_density_.max_time + seen[0] / (1 - SHARE_OF_WORK) == pytest.approx(3.0)


def test_pairs_stay_together_in_training_and_held_out_rows():
    """All rows move by the same way: nothing is left to learn, unless they are paired with others."""
    flow = small(coupling="paired").fit(X, X + 3.0)
    assert flow.loss_ < 1e-3 and abs(flow.best_validation_score_) < 1e-3
    assert small().fit(X, X + 3.0).loss_ > 0.1
