"""The noise level that is chosen after training."""

import dataclasses

import matplotlib
import numpy as np
import pytest

from oracles import mixture, sample_mixture, with_exact_fields
from sklearn_si import InterpolantDiffusion, InterpolantFlow
from sklearn_si.displays import NoiseLevelDisplay

matplotlib.use("Agg")
RNG = np.random.default_rng(0)
TARGET = mixture(RNG, 2, 2)
X = sample_mixture(RNG, 200, *TARGET)


@pytest.fixture
def model():
    return with_exact_fields(InterpolantDiffusion(n_steps=20, random_state=0), TARGET)


def test_levels_are_judged_without_a_refit_and_the_model_takes_one(model):
    before = model.model_
    result = model.tune_noise_level(X, levels=[1.0, 0.0, 3.0], n_draws=3)
    assert model.model_ is before
    assert result.levels.tolist() == [0.0, 1.0, 3.0]
    assert result.n_steps == [20, 20, 60]  # as many more as the level is larger
    assert result.best == result.levels[result.scores.argmax()]
    near = result.scores >= result.scores.max() - result.difference_errors
    assert result.chosen == result.levels[near].min() == model.noise_level
    assert model.n_steps == dict(zip(result.levels, result.n_steps, strict=True))[result.chosen]


@pytest.mark.parametrize("n_steps", [20, "auto"])
def test_draws_of_all_levels_share_their_random_numbers_and_repeat(model, n_steps):
    """Steps that the fit has measured are taken in single precision, whose random numbers had been others."""
    seen = []
    model.set_params(n_steps=n_steps)
    model.model_ = dataclasses.replace(model.model_, sampling_grid=(20, "uniform"))

    def count(rows, reference):
        seen.append(rows)
        return 0.0

    model.tune_noise_level(X, levels=[0.0, 0.0001], scoring=count, n_draws=2, random_state=3)
    assert [len(rows) for rows in seen] == [200] * 4
    # a tiny level moves the rows of the ODE by little, because they start from the same base rows
    assert abs(seen[0] - seen[2]).max() < 0.5 < abs(seen[0] - seen[1]).max()


def test_a_level_that_spoils_the_rows_is_not_taken(model, monkeypatch):
    monkeypatch.setattr("sklearn_si._estimators.noise_tuning._MOST_STEPS", 2)
    spoiled = model.set_params(noise_schedule=lambda t: 1.0 + 0 * t, n_steps=2)  # too few steps for much noise
    result = spoiled.tune_noise_level(X, levels=[0.0, 30.0], scoring=lambda rows, X: -abs(rows.std(0) - X.std(0)).max())
    assert result.chosen == 0.0 and spoiled.n_steps == 2


def test_an_error_leaves_the_level_as_it_was(model):
    def fail(rows, X):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        model.tune_noise_level(X, levels=[2.0], scoring=fail)
    assert model.noise_level == 1.0 and model.n_steps == 20


@pytest.mark.parametrize("levels", [[-1.0], [np.nan], [], [np.inf]])
def test_levels_that_are_none_are_refused(model, levels):
    with pytest.raises(ValueError, match=r"Got levels=.*finite numbers of at least 0"):
        model.tune_noise_level(X, levels=levels)


def test_what_cannot_be_tuned_says_why(model):
    with pytest.raises(ValueError, match="n_draws=1, but expected an integer of at least 2"):
        model.tune_noise_level(X, n_draws=1)
    bridge = InterpolantFlow(max_iter=2, hidden_layer_sizes=(4,), base_density=None, random_state=0).fit(X, X + 1)
    with pytest.raises(ValueError, match="the velocity alone does not give the score function"):
        bridge.tune_noise_level(X, n_draws=2)


def test_the_picture_shows_every_level(model):
    result = model.tune_noise_level(X, levels=[0.0, 1.0], n_draws=2)
    display = NoiseLevelDisplay.from_result(result)
    line = display.ax_.lines[0]
    np.testing.assert_allclose(line.get_ydata(), result.scores)
    assert display.ax_.get_xlabel() == "noise level (scaled units)"


def test_a_score_that_is_no_number_is_refused(model):
    with pytest.raises(ValueError, match="scoring gave nan at noise level 0, but expected a finite number"):
        model.tune_noise_level(X, levels=[0.0], scoring=lambda rows, X: np.nan)


def test_a_condition_of_another_length_is_refused_and_one_of_many_rows_is_cut_with_them(monkeypatch):
    model = InterpolantDiffusion(max_iter=2, hidden_layer_sizes=(4,), n_steps=2, random_state=0)
    model.fit(X, condition=X[:, 0])
    with pytest.raises(ValueError, match="condition has 200 rows, but expected one for all or one for each of 50 rows"):
        model.tune_noise_level(X[:50], levels=[0.0], condition=X[:, 0])
    monkeypatch.setattr("sklearn_si._estimators.noise_tuning._MOST_ROWS", 40)
    shapes = []
    model.tune_noise_level(
        X,
        levels=[0.0],
        condition=X[:, 0],
        n_draws=2,
        scoring=lambda rows, X: shapes.append((rows.shape, X.shape)) or 0.0,
    )
    assert shapes == [((40, 2), (40, 2))] * 2


@pytest.mark.parametrize("n_steps", [20, "auto"])
def test_another_call_begins_with_the_steps_that_were_set(model, n_steps):
    model.set_params(n_steps=n_steps)
    first = model.tune_noise_level(X[:60], levels=[0.0, 1.0], n_draws=2)
    model.tune_noise_level(X[:60], levels=[5.0], n_draws=2)
    assert model.n_steps == (100 if n_steps == 20 else "auto")
    again = model.tune_noise_level(X[:60], levels=[0.0, 1.0], n_draws=2)
    assert again.n_steps == first.n_steps
    np.testing.assert_array_equal(again.scores, first.scores)
    assert model.n_steps == n_steps


def test_another_scoring_and_levels_that_are_no_numbers_are_refused(model):
    with pytest.raises(ValueError, match="Got scoring='mmd', but expected 'energy' or a function of drawn rows and X"):
        model.tune_noise_level(X, scoring="mmd")
    with pytest.raises(ValueError, match="Got levels='a', but expected one or more finite numbers of at least 0"):
        model.tune_noise_level(X, levels="a")
