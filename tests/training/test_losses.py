"""Losses of all fields, at the closed forms of normal ends: they have no slope there, and elsewhere they have."""

import pytest
import torch

from sklearn_si._training.losses import REGRESSIONS
from sklearn_si.interpolants import Linear
from sklearn_si.networks import FiLMNetwork, PreconditionedField

N, V0, V1 = 20_000, torch.tensor([0.5, 2.0]).double(), torch.tensor([1.5, 0.3]).double()
RANDOM = torch.Generator().manual_seed(0)
# early times alone: gamma gamma_dot, the difference of b and v, has the opposite sign at late ones
T = 0.1 + 0.35 * torch.rand(N, generator=RANDOM, dtype=torch.float64)
NORMALS = torch.randn((3, N, 2), generator=RANDOM, dtype=torch.float64)


def slopes(regression, output):
    """Slopes of a loss along a constant and along x, in standard errors."""
    _, gradient = regression.loss_and_gradient(output)
    rows = torch.cat([gradient, gradient * regression.y], 1)
    return (rows.mean(0) / rows.std(0) * N**0.5).abs()


@pytest.mark.parametrize("gamma", ["brownian", "quadratic"])
@pytest.mark.parametrize("name", ["velocity", "drift", "denoiser", "score"])
def test_losses_have_no_slope_at_the_exact_field_and_have_one_beside_it(name, gamma):
    path, points = Linear(gamma), (T, V0.sqrt() * NORMALS[0], V1.sqrt() * NORMALS[1], NORMALS[2])
    # with a network that is zero it is the exact field of normal ends of these variances
    field = PreconditionedField(path, FiLMNetwork(2, 0, (2,), "silu").double(), name, V0, V1)
    nothing = torch.zeros((N, 2), dtype=torch.float64)
    assert slopes(REGRESSIONS[name](field, path, *points), nothing).max() < 4
    field.v1 = 3 * V1
    assert slopes(REGRESSIONS[name](field, path, *points), nothing).max() > 8


class Forecast:
    """E[dx_t/dt - a z / gamma | x_t, x0] where x1 = x0 / 2 + s z'."""

    def __init__(self, a, s):
        self.a, self.s = a, s

    def __call__(self, t, x, x0):
        t = t[:, None]
        gain = (x - (1 - t / 2) * x0) / (t**2 * self.s**2 + 2 * self.a * t * (1 - t))
        return (0.5 * x0 + t * self.s**2 * gain) - x0 - 2 * self.a * t * gain


def test_the_loss_of_a_forecast_has_no_slope_at_the_exact_drift_and_has_one_beside_it():
    a, s = 0.4, 0.7
    x0, z = NORMALS[0], NORMALS[2]
    points = T, x0, 0.5 * x0 + s * NORMALS[1], z
    for s_of_model, wrong in ((s, False), (1.3 * s, True)):
        field = Forecast(a, s_of_model)
        regression = REGRESSIONS["forecast"](field, Linear("brownian", 2 * a), *points)
        worst = slopes(regression, field(T, regression.y, regression.condition)).max()
        assert worst > 8 if wrong else worst < 4
