"""Ctrl-C at any line of a fit: what was learned is kept, or nothing was learned and the interrupt goes through."""

import os
import sys
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

import sklearn_si
from sklearn_si import InterpolantFlow, SchroedingerBridge
from sklearn_si._estimators import bridge as _bridge
from sklearn_si._training import run as _runs
from sklearn_si.tables import TableSynthesizer, _learning, _masked

PACKAGE = os.path.dirname(sklearn_si.__file__)
RNG = np.random.default_rng(0)
X0, X1 = RNG.normal(size=(120, 2)), RNG.normal(2.0, 1.0, size=(100, 2))
SMALL = {"max_iter": 20, "hidden_layer_sizes": (4,), "random_state": 0}
FITS = {
    "one sample": (InterpolantFlow(**SMALL), (X0,)),
    "bridge": (InterpolantFlow(preprocessing="standardize", base_density="normal", **SMALL), (X0, X1)),
}


class AtLine:
    """A trace function that raises KeyboardInterrupt before a line of the package; before a training has begun or not.

    Parameters
    ----------
    number : int
        Of the line, in the order of execution.
    """

    def __init__(self, number):
        self.number, self.lines, self.has_trained = number, 0, False

    def __call__(self, frame, event, arg):
        return self.line if frame.f_code.co_filename.startswith(PACKAGE) else None

    def line(self, frame, event, arg):
        self.has_trained |= event == "return" and arg is not None and frame.f_code.co_name == "train"
        if event == "line":
            self.lines += 1
            if self.lines == self.number:
                raise KeyboardInterrupt
        return self.line


def traced(estimator, samples, number):
    trace = AtLine(number)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return trace, estimator.fit(*samples)
    except KeyboardInterrupt:
        # in the last lines of fit the model is there, whatever they raise
        return trace, estimator if hasattr(estimator, "sampling_grid_") else None
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("name", FITS)
def test_an_interrupt_at_any_line_keeps_what_was_learned(name):
    estimator, samples = FITS[name]
    n_lines = traced(clone(estimator), samples, 0)[0].lines
    kept = 0
    for number in np.linspace(1, n_lines - 1, 14).astype(int):
        trace, model = traced(clone(estimator), samples, number)
        assert model is not None or not trace.has_trained
        if model is not None:
            kept += 1
            assert np.isfinite(model.sample(20)).all()
            assert np.isfinite(model.score_samples(samples[-1])).all()
    assert kept >= 10


def interrupt(*args, **kwargs):
    raise KeyboardInterrupt


def test_an_interrupt_in_the_base_density_leaves_a_bridge_without_one(monkeypatch):
    flow = InterpolantFlow(**{**SMALL, "base_density": "flow"})
    whole = InterpolantFlow(**{**SMALL, "base_density": None}).fit(X0, X1)
    monkeypatch.setattr(_runs.Run, "base_rows", interrupt)
    with pytest.warns(ConvergenceWarning, match="in the density of its base: `score_samples` has none to start from"):
        flow.fit(X0, X1)
    np.testing.assert_array_equal(flow.transform(X0), whole.transform(X0))
    with pytest.raises(ValueError, match="base_density"):
        flow.score_samples(X1)


def test_an_interrupt_between_the_rounds_of_a_bridge_keeps_the_last(monkeypatch):
    bridge = SchroedingerBridge(method="network", base_density=None, **SMALL)
    monkeypatch.setattr(_bridge, "simulate_pairs", interrupt)
    with pytest.warns(ConvergenceWarning, match="between its trainings: what the last left is kept"):
        bridge.fit(X0, X1)
    assert bridge.n_iter_ == 20
    whole = SchroedingerBridge(method="network", base_density=None, n_rounds=0, **SMALL).fit(X0, X1)
    np.testing.assert_array_equal(bridge.transform(X0), whole.transform(X0))


def test_an_interrupt_of_the_choice_of_steps_leaves_the_usual_ones(monkeypatch):
    monkeypatch.setattr(_runs, "choose_grid", interrupt)
    with pytest.warns(ConvergenceWarning, match="in the choice of steps for `sample`, which takes 16"):
        flow = InterpolantFlow(**SMALL).fit(X0)
    assert flow.sampling_grid_ is None
    expected = InterpolantFlow(**SMALL, n_steps=16).fit(X0).sample(9, random_state=0)
    np.testing.assert_allclose(flow.sample(9, random_state=0), expected, rtol=1e-5)


def test_an_interrupt_before_anything_is_learned_goes_through(monkeypatch):
    monkeypatch.setattr(_runs.Run, "_fit_maps", interrupt)
    flow = InterpolantFlow(**SMALL)
    with pytest.raises(KeyboardInterrupt):
        flow.fit(X0)
    assert not hasattr(flow, "network_")


def test_an_interrupt_of_the_codes_of_a_table_does_not_begin_a_training_of_its_values(monkeypatch):
    loss, calls = _masked.MaskedLoss.at, iter(range(10**6))

    def interrupted(self, *args, **kwargs):
        if next(calls) == 150:
            raise KeyboardInterrupt
        return loss(self, *args, **kwargs)

    table = TableSynthesizer(max_iter=400, random_state=0)
    monkeypatch.setattr(_masked.MaskedLoss, "at", interrupted)
    with pytest.warns(ConvergenceWarning, match="Training was interrupted after"):
        table.fit(np.column_stack([X0[:, 0], X0[:, 1] > 0]))
    assert table.value_model_.flow_.n_iter_ == 1
    drawn = table.sample(400, random_state=0)
    assert abs(drawn[:, 1].mean() - (X0[:, 1] > 0).mean()) < 0.1
    assert abs(drawn[:, 0].mean()) < 0.3 and abs(drawn[:, 0].std() - 1) < 0.3


def test_an_interrupt_between_codes_and_values_of_a_table_keeps_the_codes(monkeypatch):
    fit, calls = _learning.ValueModel.fit, iter(range(9))

    def interrupted(self, *args):
        return interrupt() if next(calls) == 0 else fit(self, *args)

    monkeypatch.setattr(_learning.ValueModel, "fit", interrupted)
    X = np.column_stack([X0[:, 0], X0[:, 1] > 0])
    with pytest.warns(ConvergenceWarning, match="before its values were learned: they get little more than a normal"):
        table = TableSynthesizer(max_iter=200, random_state=0).fit(X)
    assert table.value_model_.flow_.n_iter_ == 1 and np.isfinite(table.score_samples(X)).all()


def test_a_fit_that_fails_leaves_the_table_of_before(monkeypatch):
    X = np.column_stack([X0[:, 0], X0[:, 1] > 0])
    table = TableSynthesizer(max_iter=20, random_state=0).fit(X)
    before = table.sample(9, random_state=1)
    monkeypatch.setattr(_masked.MaskedLoss, "at", interrupt)
    monkeypatch.setattr(_learning, "fit_masked", interrupt)
    with pytest.raises(KeyboardInterrupt):
        table.fit(np.column_stack([X0, X0[:, 0] > 0]))
    np.testing.assert_array_equal(table.sample(9, random_state=1), before)
