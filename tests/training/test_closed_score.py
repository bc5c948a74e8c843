"""The score of a fit before its training, against a solve of the ODE."""

import numpy as np
import pytest

from sklearn_si import InterpolantFlow
from sklearn_si._model.levels import Level
from sklearn_si._training import preprocessing_choice
from sklearn_si._training import run as training_run
from sklearn_si._training.closed_score import closed_score

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(150, 2)) @ RNG.normal(size=(2, 2))
ROWS[:50] += 8.0


@pytest.fixture
def scores(monkeypatch):
    """Closed scores beside those of a solve, for each run that was begun, and what its field is."""
    seen = []

    def both(run):
        value = closed_score(run)
        solved = run.likelihood_of(run.problem.target_val)()
        seen.append((type(run.networks["velocity"]).__name__, value, solved))
        return value

    monkeypatch.setattr(preprocessing_choice, "closed_score", both)
    # narrow components of a mixture need more steps than validation takes
    monkeypatch.setattr(training_run, "VALIDATION_LEVEL", Level(40, 48))
    return seen


@pytest.mark.parametrize("path", ["linear", "trigonometric", "encoding-decoding", "vp"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_closed_score_is_that_of_the_ode(scores, path, weighted):
    weight = RNG.uniform(size=len(ROWS)) if weighted else None
    InterpolantFlow(path, max_iter=150, hidden_layer_sizes=(8,), random_state=0).fit(ROWS, sample_weight=weight)
    assert {name for name, _, _ in scores} == {"PreconditionedField", "MixtureVelocity"}
    for name, closed, solved in scores:
        assert closed == pytest.approx(solved, abs=1e-4 if name == "PreconditionedField" else 3e-3)


def test_a_network_with_outputs_has_no_closed_score(monkeypatch):
    runs = []
    monkeypatch.setattr(preprocessing_choice, "closed_score", lambda run: runs.append(run))
    InterpolantFlow(max_iter=2, hidden_layer_sizes=(8,), preprocessing="standardize", random_state=0).fit(ROWS)
    (run,) = runs
    assert closed_score(run) is not None
    run.networks["velocity"].network.bias.data.fill_(0.1)
    assert closed_score(run) is None
