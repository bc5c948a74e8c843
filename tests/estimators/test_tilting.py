"""Rewards for a fitted model, against normal distributions in closed form."""

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal

from oracles import with_exact_fields
from sklearn_si import InterpolantDiffusion, InterpolantFlow, TiltedFlow
from sklearn_si._estimators.tilting import Proposal, _report, drawn, effective_share, flattened

MEAN, COVARIANCE = np.array([1.0, -2.0]), np.array([[1.0, 0.6], [0.6, 2.0]])
TARGET = np.ones(1), MEAN[None], COVARIANCE[None]
SLOPE = np.array([1.5, -1.0])
PULL, PLACE = np.array([[4.0, 0.0], [0.0, 1.0]]), np.array([3.0, 0.0])


def exact(**params):
    return with_exact_fields(InterpolantFlow(random_state=0, **params), TARGET)


def linear(X):
    return X @ SLOPE


def quadratic(X):
    return -0.5 * np.einsum("ni,ij,nj->n", X - PLACE, PULL, X - PLACE)


# The tilted distributions, and their normalising constants.
PRECISION = np.linalg.inv(COVARIANCE)
NEAR = np.linalg.inv(PRECISION + PULL)
NEAR_MEAN = NEAR @ (PRECISION @ MEAN + PULL @ PLACE)
SUM = COVARIANCE + np.linalg.inv(PULL)
KNOWN = {
    "linear": (linear, MEAN + COVARIANCE @ SLOPE, COVARIANCE, MEAN @ SLOPE + SLOPE @ COVARIANCE @ SLOPE / 2),
    "quadratic": (
        quadratic,
        NEAR_MEAN,
        NEAR,
        multivariate_normal(MEAN, SUM).logpdf(PLACE) + 0.5 * np.linalg.slogdet(2 * np.pi * np.linalg.inv(PULL))[1],
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_tilted_normal_distribution_is_the_known_one(name):
    reward, mean, covariance, log_normaliser = KNOWN[name]
    tilted = exact().tilt(reward)
    report = tilted.report_
    assert report.effective_share > 0.6
    assert abs(report.log_normaliser - log_normaliser) < 4 * report.log_normaliser_error + 1e-3
    X = tilted.sample(4000)
    assert_allclose(X.mean(0), mean, atol=0.1)
    assert_allclose(np.cov(X.T), covariance, atol=0.15)
    value, error = tilted.score_samples(X[:50], return_error=True)
    assert (np.abs(value - multivariate_normal(mean, covariance).logpdf(X[:50])) < 4 * error + 1e-3).all()
    assert len(np.unique(X, axis=0)) == 4000


def test_the_stated_error_of_the_constant_is_that_of_many_draws():
    tilted, rng = exact().tilt(quadratic, n_rows=400), np.random.default_rng(0)
    parts = tilted.flow, quadratic, None, tilted.proposal
    _, weights = drawn(*parts, 8000, rng)
    spread = np.std([_report(part).log_normaliser for part in np.split(weights, 20)])
    assert 0.6 < spread / tilted.report_.log_normaliser_error < 1.7


def test_a_reward_that_rules_rows_out():
    tilted = exact().tilt(lambda X: np.where(X[:, 0] > 1.0, 0.0, -np.inf))
    assert tilted.report_.log_normaliser == pytest.approx(np.log(0.5), abs=5 * tilted.report_.log_normaliser_error)
    X = tilted.sample(500)
    assert (X[:, 0] > 1.0).all()
    assert np.isneginf(tilted.score_samples([[0.0, 0.0]]))[0]


def test_models_with_noise_and_of_two_samples_are_weighted_as_they_are():
    noisy = with_exact_fields(InterpolantDiffusion(random_state=0, n_steps=30), TARGET)
    rows = np.random.default_rng(0).normal(size=(3000, 2))
    base = np.ones(1), np.zeros((1, 2)), np.eye(2)[None]
    bridge = with_exact_fields(InterpolantFlow(random_state=0), TARGET, base, rows)
    for model in (noisy, bridge):
        tilted = model.tilt(lambda X: 0.5 * X[:, 0], n_rows=3000)
        assert tilted.proposal is None
        assert_allclose(tilted.sample(3000).mean(0), MEAN + 0.5 * COVARIANCE[0], atol=0.15)


def test_conditions_are_those_of_all_rows():
    rng = np.random.default_rng(0)
    c = rng.normal(size=400)
    X = c[:, None] * 2 + rng.normal(size=(400, 2))
    flow = InterpolantFlow(max_iter=60, hidden_layer_sizes=(16,), preprocessing="standardize", random_state=0)
    tilted = flow.fit(X, condition=c).tilt(lambda X: -np.abs(X[:, 0]), condition=[1.0], n_rows=2000)
    assert tilted.sample(400).mean(0)[1] == pytest.approx(flow.sample(400, condition=[1.0]).mean(0)[1], abs=0.5)
    assert tilted.score_samples(X[:3]).shape == (3,)


def test_frames_and_seeds_and_pickles():
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 2)), columns=["a", "b"])
    flow = InterpolantFlow(max_iter=30, hidden_layer_sizes=(8,), preprocessing="standardize", random_state=0)
    tilted = flow.set_output(transform="pandas").fit(X).tilt(first_column, n_rows=1000)
    drawn = tilted.sample(5)
    assert drawn.columns.tolist() == ["a", "b"]
    assert_array_equal(tilted.sample(5), drawn)
    assert not np.array_equal(tilted.sample(5, random_state=3), drawn)
    again = pickle.loads(pickle.dumps(tilted))
    assert isinstance(again, TiltedFlow)
    assert_array_equal(again.sample(5), drawn)
    assert np.isfinite(tilted.score_samples(X[:4])).all()


def first_column(X):
    return X[:, 0]


def test_proposals_and_weights():
    proposal = Proposal(np.array([2.0, 0.0]), np.array([[1.0, 0.3], [0.3, 0.5]]))
    Z = proposal.draw(200_000, np.random.default_rng(0))
    weight = np.exp(proposal.log_weight(Z))
    assert weight.max() <= 10.0
    assert_allclose([weight.mean(), *(weight @ Z / len(Z))], [1.0, 0.0, 0.0], atol=0.02)
    assert effective_share(np.log([1.0, 1.0, 0.0 + 1e-300, 1e-300])) == pytest.approx(0.5)
    steep = np.linspace(0, 1000.0, 100)
    assert effective_share(flattened(np.zeros(100), steep, 0.1)) == pytest.approx(0.1, rel=1e-3)
    assert_array_equal(flattened(np.zeros(100), steep / 1e4, 0.1), steep / 1e4)


REFUSED = {
    "no function": (3.0, "Got reward=3.0, but expected a function"),
    "one number": (lambda X: 1.0, r"returned an array of shape \(\) for .* rows, but expected"),
    "a column": (lambda X: X[:, :1], r"returned an array of shape \(2000, 1\) for 2000 rows"),
    "nan": (lambda X: np.full(len(X), np.nan), r"The reward is nan at the row \[.*2000 such rows"),
    "infinite": (lambda X: np.full(len(X), np.inf), "The reward is inf at the row"),
    "nothing": (lambda X: np.full(len(X), -np.inf), "The reward is -inf at each of 10000 rows that the model drew"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_rewards_that_are_refused(name):
    reward, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        exact().tilt(reward)


def test_a_reward_beyond_the_model_is_told():
    flow = with_exact_fields(InterpolantDiffusion(random_state=0, n_steps=10), TARGET)
    with pytest.warns(UserWarning, match="rows are worth .*: the reward asks for rows that the model hardly draws"):
        tilted = flow.tilt(lambda X: 50 * X[:, 0], n_rows=500)
    with pytest.warns(UserWarning, match="of 300 rows are repeated: the reward weighs some rows up to"):
        tilted.sample(300)


def test_a_reward_may_work_in_place():
    """It is given a copy: neither draws nor the rows of the user change."""

    def in_place(X):
        X -= PLACE
        return -0.5 * np.einsum("ni,ij,nj->n", X, PULL, X)

    rows = np.array([[1.0, 0.0], [0.0, 0.0]])
    known, tilted = exact().tilt(quadratic), exact().tilt(in_place)
    assert_array_equal(tilted.sample(50, random_state=0), known.sample(50, random_state=0))
    assert_array_equal(tilted.score_samples(rows), known.score_samples(rows))
    assert_array_equal(rows, [[1.0, 0.0], [0.0, 0.0]])


def test_a_reward_that_asks_for_names_is_told_of_arrays():
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(200, 2)), columns=["a", "b"])
    flow = InterpolantFlow(max_iter=10, random_state=0).fit(X)
    for reward in (lambda X: X["a"], lambda X: X.a):
        with pytest.raises(ValueError, match=r"It is given an array, .*such as X\[:, 0\]; they are \['a', 'b'\]"):
            flow.tilt(reward)
    with pytest.raises(IndexError):  # fit knew no names either
        exact().tilt(lambda X: X["a"])


def test_what_is_shown_is_one_line():
    tilted = exact().tilt(linear, n_rows=200)
    assert repr(tilted).startswith("TiltedFlow(InterpolantFlow(random_state=0), reward=linear; effective share 0.")
    assert tilted._repr_mimebundle_() == {"text/plain": repr(tilted)}
    wide = exact(max_iter=12345, batch_size=512, learning_rate_init=0.003, n_iter_no_change=17, validation_fraction=0.2)
    assert "TiltedFlow(InterpolantFlow(...), reward=" in repr(wide.tilt(lambda X: X[:, 0], n_rows=200))
