"""max_time bounds the whole fit of an estimator, whatever its parts are."""

import time
import warnings

import numpy as np
import pytest

from sklearn_si import InterpolantDiffusion, InterpolantFlow, SchroedingerBridge

X0 = np.random.default_rng(0).normal(size=(600, 2))
X1 = np.random.default_rng(1).normal(size=(600, 2)) + 2.0
LIMIT = 3.0
ESTIMATORS = {
    "flow with the density of its base": InterpolantFlow(max_time=LIMIT, random_state=0),
    "learned path": InterpolantFlow("learned", max_time=LIMIT, random_state=0),
    "diffusion": InterpolantDiffusion(max_time=LIMIT, random_state=0),
    "bridge with rounds of its own pairs": SchroedingerBridge(0.2, max_time=LIMIT, random_state=0),
    "bridge without a density": SchroedingerBridge(0.2, max_time=LIMIT, base_density=None, random_state=0),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_whole_fit_takes_no_longer_than_its_limit(name):
    """15 % and two seconds more at the most; a bridge of three trainings took thrice its limit and more."""
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ESTIMATORS[name].fit(X0, X1)
    assert time.perf_counter() - began < 1.15 * LIMIT + 2


def test_steps_as_a_numpy_integer_are_those_steps():
    """A search hands over numpy's integers, which the number of steps by itself had been taken for."""
    model = InterpolantDiffusion(max_iter=5, hidden_layer_sizes=(8,), random_state=0).fit(X0)
    own = model.set_params(n_steps=3).sample(4)
    np.testing.assert_array_equal(model.set_params(n_steps=np.int64(3)).sample(4), own)
