"""Fields that no solver likes: bounded work, the rows named, more steps where they help."""

import pickle
import warnings

import numpy as np
import pytest
import torch

from sklearn_si import InterpolantFlow, solvers
from sklearn_si._model.step_choice import choose_grid
from sklearn_si.exceptions import IntegrationError, IntegrationWarning
from sklearn_si.solvers import odeint_adaptive
from sklearn_si.solvers._adaptive import _MAX_ADAPTIVE_STEPS, require_finite

X = np.random.default_rng(0).normal(size=(100, 2))
SMALL = {"max_iter": 3, "hidden_layer_sizes": (4,), "random_state": 0, "preprocessing": "standardize"}


class Counted:
    """A field that counts its calls, and has two kinds of rows: tame ones and, where x > 0, wild ones."""

    def __init__(self, wild):
        self.wild, self.calls = wild, 0

    def __call__(self, t, x):
        self.calls += 1
        return torch.where(x > 0, self.wild(t.reshape(-1, 1), x), -x)


WILD = {
    "stiff": lambda t, x: -1e9 * (x - torch.cos(t)),
    "blowing up": lambda t, x: 1e3 * x**3,
    "noise in time": lambda t, x: 1e6 * torch.sin(1e12 * t + x),
    "not a number": lambda t, x: x * torch.nan,
    "infinite": lambda t, x: x * torch.inf,
}


@pytest.mark.parametrize("name", WILD)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_stiff_fields_end_with_their_rows(name, dtype):
    field = Counted(WILD[name])
    x = torch.tensor([[-1.0], [1.0], [-2.0], [3.0]], dtype=dtype)
    with pytest.raises(IntegrationError, match=r"of 4 rows did not reach t = 1 .* Rows: 1, 3\.") as caught:
        odeint_adaptive(field, x, 0.0, 1.0, 1e-6)
    assert caught.value.rows.tolist() == [1, 3]
    assert field.calls <= 7 * _MAX_ADAPTIVE_STEPS + 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("span", [(0.0, 1.0), (1.0, 0.0)])
def test_rows_that_arrive_are_not_among_those_that_are_named(span, dtype):
    """A row without a step that leads on is given up early; the others, which take many steps, are not."""

    def field(t, x):
        return torch.where(x < 100, 30 * torch.cos(60 * t.reshape(-1, 1)) * torch.ones_like(x), x * torch.nan)

    x = torch.tensor([[0.0], [200.0], [1.0]], dtype=dtype)
    with pytest.raises(IntegrationError, match=r"^1 of 3 rows did not reach") as caught:
        odeint_adaptive(field, x, *span, 1e-6)
    assert caught.value.rows.tolist() == [1]


def test_tame_rows_are_within_the_tolerance_beside_stiff_ones_that_arrive():
    field = Counted(lambda t, x: -300.0 * (x - 1))
    x = torch.tensor([[-1.0], [2.0]], dtype=torch.float64)
    end = odeint_adaptive(field, x, 0.0, 1.0, 1e-8)
    torch.testing.assert_close(end, torch.tensor([[-np.exp(-1.0)], [1.0]]), rtol=0, atol=1e-6)


def test_an_error_names_the_rows_of_the_call_and_travels_in_a_pickle():
    x = torch.zeros(9, 2)
    x[[1, 3, 4, 5, 6, 8]] = torch.nan
    with pytest.raises(IntegrationError, match=r"6 of 9 rows .* Rows: 1, 3, 4, 5, 6, \.\.\.") as caught:
        require_finite(x, "sampling")
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) and again.rows.tolist() == [1, 3, 4, 5, 6, 8]


def test_rows_are_counted_over_the_blocks_of_a_call(monkeypatch):
    monkeypatch.setattr("sklearn_si._model.fitted._BLOCK_ROWS", 4)
    monkeypatch.setattr("sklearn_si._model.densities._BLOCK_ROWS", 4)
    flow, rows = InterpolantFlow(**SMALL).fit(X), X[:11].copy()
    rows[[6, 9]] = 1e308
    for method in (flow.transform, flow.score_samples):
        with pytest.warns(IntegrationWarning, match=r"2 of 11 rows became .* Rows: 6, 9\."):
            result = method(rows)
        assert np.flatnonzero(~np.isfinite(result.reshape(11, -1)).all(1)).tolist() == [6, 9]
    with pytest.raises(IntegrationError) as caught:
        flow.score(rows)
    assert list(caught.value.rows) == [6, 9]


class Fields:
    """What a grid is chosen by."""

    def __init__(self, velocity):
        self.velocity = velocity

    def velocity_along(self, times, method):
        return self.velocity


def test_rough_fields_get_more_steps_and_a_warning():
    x = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_grid(Fields(lambda t, x: torch.ones_like(x)), x, None)[0] == 1
        steps, spacing = choose_grid(Fields(lambda t, x: -150.0 * (x - 1)), x, None)
        end = solvers.odeint(lambda t, x: -150.0 * (x - 1), x, solvers.time_grid(steps, spacing), "rk4")
    assert 32 < steps <= 256
    torch.testing.assert_close(end, torch.ones_like(end), rtol=0, atol=0.02)
    with pytest.warns(IntegrationWarning, match=r"is not smooth: 256 steps of RK4, which `sample` takes, .* apart"):
        assert choose_grid(Fields(lambda t, x: -1e4 * (x - 1)), x, None)[0] == 256
