"""Paths that are learned by max-min, and flows that are refitted to their own pairs."""

import numpy as np
import pytest
import torch

from sklearn_si import InterpolantDiffusion, InterpolantFlow
from sklearn_si._batches import Sampler
from sklearn_si._path_ascent import Ascent
from sklearn_si.couplings import paired
from sklearn_si.interpolants import INTERPOLANTS, LearnedInterpolant, LearnedSchedule

SMALL = {"hidden_layer_sizes": (32, 32), "base_density": None, "random_state": 0, "preprocessing": None}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def built(name, gamma=None):
    path = INTERPOLANTS[name](gamma)
    path.build(2, 0, "cpu")
    return path


def stirred(path):
    for parameter in path.parameters():
        parameter.data.normal_(std=0.3, generator=generator(3))
    return path


@pytest.mark.parametrize("name", ["learned", "learned-schedule"])
def test_a_learned_path_keeps_its_ends_whatever_its_weights(name):
    path = stirred(built(name))
    x0, x1 = torch.randn(2, 5, 2, generator=generator())
    torch.testing.assert_close(path.mean(torch.tensor(0.0), x0, x1), x0, rtol=0, atol=1e-6)
    torch.testing.assert_close(path.mean(torch.tensor(1.0), x0, x1), x1, rtol=0, atol=1e-6)
    t = torch.linspace(0.1, 0.9, 5).double()
    a, b = x0.double(), x1.double()
    step = 1e-6
    slope = (path.mean(t + step, a, b) - path.mean(t - step, a, b)) / (2 * step)
    torch.testing.assert_close(path.mean_dot(t, a, b), slope, rtol=1e-6, atol=1e-6)


def test_a_learned_path_starts_straight_and_learned_schedules_trigonometric():
    x0, x1 = torch.randn(2, 5, 2, generator=generator())
    torch.testing.assert_close(built("learned").mean(torch.tensor(0.3), x0, x1), 0.7 * x0 + 0.3 * x1)
    t = torch.tensor(0.3)
    expected = torch.cos(torch.pi / 2 * t) * x0 + torch.sin(torch.pi / 2 * t) * x1
    torch.testing.assert_close(built("learned-schedule").mean(t, x0, x1), expected)


class Still(torch.nn.Module):
    """A field v = x."""

    def forward(self, t, x, condition=None):
        return x


@pytest.mark.parametrize("gamma", [None, "brownian"])
@pytest.mark.parametrize("name", ["learned", "learned-schedule"])
def test_a_step_of_the_path_raises_the_value_of_the_max_min(name, gamma):
    """For fixed fields, on many points."""
    path = stirred(built(name, gamma))
    fields = torch.nn.ModuleDict({"velocity": Still()} | ({"denoiser": Still()} if gamma else {}))
    x0, x1 = torch.randn(2, 500, 2, generator=generator())
    sampler = Sampler(x0, x1 + 1, None, paired, gamma is not None)
    ascent = Ascent(path, fields, sampler, 500, generator(), 1000)
    values = []
    for _ in range(30):
        half_action, work = ascent._terms(*_points(path, sampler))
        values.append(float(half_action - work))
        ascent.step()
    curve = ascent.close()
    assert values[-1] > values[0] + 0.01
    assert len(ascent.actions) == 30 and len(curve) == 20
    assert not any(p.requires_grad for p in path.parameters())


def _points(path, sampler):
    x0, x1, z, _ = sampler.draw(500, generator(7))
    t = torch.linspace(0.01, 0.99, 500)
    return t, x0, x1, z, None


@pytest.mark.parametrize("name", ["learned", "learned-schedule"])
def test_the_action_of_a_normal_pair_falls_below_that_of_the_straight_path(name):
    """N(0, 1) -> N(2, 1/4): W2^2 = 4.250, straight .215 more, trigonometric .993; and the target law stays exact."""
    rng = np.random.default_rng(0)
    X0, X1 = rng.normal(size=(5000, 1)), 2 + 0.5 * rng.normal(size=(5000, 1))
    flow = InterpolantFlow(interpolant=name, max_iter=1500, **SMALL).fit(X0, X1)
    shortest = (X1.mean() - X0.mean()) ** 2 + (X1.std() - X0.std()) ** 2
    path = flow.trajectory(X0[:2000], 41)
    speed = np.diff(path, axis=0) * 40
    assert shortest - 0.05 < (speed**2).sum(2).mean() < shortest + 0.75 * 0.215
    assert abs(np.mean(flow.action_curve_[-4:]) - shortest) < 0.15
    assert abs(path[-1].mean() - 2) < 0.06 and abs(path[-1].std() - 0.5) < 0.04


def test_a_learned_bridge_with_noise_is_fitted_and_repeats():
    rng = np.random.default_rng(0)
    X0, X1 = rng.normal(size=(300, 2)), 1 + 0.5 * rng.normal(size=(300, 2))
    params = {"interpolant": "learned", "gamma_scale": 0.2, "max_iter": 60, "noise_level": 0.1} | SMALL
    drawn = [InterpolantDiffusion(**params).fit(X0, X1).sample(5) for _ in range(2)]
    np.testing.assert_array_equal(*drawn)
    assert isinstance(InterpolantDiffusion(**params).fit(X0, X1).interpolant_, LearnedInterpolant)


@pytest.mark.parametrize("name", ["learned", "learned-schedule"])
def test_a_path_of_one_sample_is_not_learned(name):
    with pytest.raises(ValueError, match="is learned between two samples, but fit was given one"):
        InterpolantFlow(interpolant=name).fit(np.random.default_rng(0).normal(size=(60, 2)))


def test_schedules_are_linear_in_space_and_paths_are_not():
    assert LearnedSchedule().is_linear and not LearnedInterpolant().is_linear
