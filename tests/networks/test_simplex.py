"""The velocity between many samples: its paths of weights, its closed form, its gradients and its divergence."""

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.integrate import trapezoid
from scipy.interpolate import CubicSpline
from scipy.linalg import expm

from sklearn_si._training.batches import make_task
from sklearn_si._training.multimarginal import draw_weights, regression_at
from sklearn_si._training.paired_pools import paired_rows, path_energy_matrix
from sklearn_si._training.turning import frames_of, rotations_of
from sklearn_si.couplings import optimal_pairs
from sklearn_si.networks._simplex import Chord, PathVelocity, SimplexNetwork, SimplexVelocity, SplinePath

TIMES = np.array([0.0, 1.0, 2.5, 3.0])


def velocity(m=4, d=3, trained=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    network = SimplexNetwork(d, m, (7, 6), "tanh", generator)
    if trained:
        network.output.data.normal_(generator=generator)
        network.bias.data.normal_(generator=generator)
    factors = torch.randn((d, m, m), generator=generator)
    return SimplexVelocity(network, torch.randn((m, d), generator=generator), factors @ factors.mT).double()


def heads(of, alpha, x):
    """g_k at one set of weights, from directions that are not tangent to the simplex."""
    mean, rates, slopes = [], [], []
    for c in torch.eye(len(alpha), dtype=x.dtype):
        m, rate, slope, sd, direction, _ = of.coefficients(alpha, c)
        value = of.network.along(of.network.at(alpha), of.network.readout(direction), (x - m) / sd)
        mean.append(rate + slope * (x - m) + value)
    return torch.stack(mean), rates, slopes


def test_spline_weights_are_those_of_the_natural_cubic_through_the_snapshots():
    rows = np.random.default_rng(0).normal(size=(4, 2))
    spline = CubicSpline(TIMES, rows, bc_type="natural")
    s = torch.linspace(0, 1, 41, dtype=torch.float64)
    alpha, rate = SplinePath(TIMES, 0.5, 3.0).weights(s)
    at = 0.5 + 2.5 * s.numpy()
    assert_allclose(alpha.numpy() @ rows, spline(at), atol=1e-12)
    assert_allclose(rate.numpy() @ rows, 2.5 * spline(at, 1), atol=1e-11)
    assert_allclose(alpha.sum(1), 1.0, atol=1e-12)


def test_two_snapshots_are_joined_by_a_line():
    alpha, rate = SplinePath([3.0, 5.0], 5.0, 3.0).weights(torch.tensor([0.0, 0.25], dtype=torch.float64))
    assert_allclose(alpha, [[0, 1], [0.25, 0.75]])
    assert_allclose(rate, [[1, -1], [1, -1]])


@pytest.mark.parametrize("trained", [False, True])
def test_the_means_of_the_samples_add_up_to_x(trained):
    of = velocity(trained=trained)
    alpha = torch.tensor([0.3, -0.1, 0.6, 0.2], dtype=torch.float64)
    x = torch.randn((5, 3), dtype=torch.float64)
    assert_allclose(torch.einsum("k,knd->nd", alpha, heads(of, alpha, x)[0]).detach(), x, atol=1e-12)


def test_velocity_along_a_path_is_the_sum_of_the_means_by_the_rates():
    of, path = velocity(), SplinePath(TIMES, 0.0, 3.0)
    s, x = torch.tensor(0.37, dtype=torch.float64), torch.randn((5, 3), dtype=torch.float64)
    alpha, rate = path.weights(s)
    expected = torch.einsum("k,knd->nd", rate, heads(of, alpha, x)[0])
    assert_allclose(PathVelocity(of, path)(s, x).detach(), expected.detach(), atol=1e-10)


def test_divergence_is_the_trace_of_the_jacobian():
    field = PathVelocity(velocity(), SplinePath(TIMES, 0.0, 3.0)).requires_grad_(False)
    t = torch.tensor([0.2, 0.2, 0.9, 0.9, 0.9], dtype=torch.float64)
    x = torch.randn((5, 3), dtype=torch.float64)
    b, divergence = field.velocity_and_divergence(t, x)
    assert_allclose(b, field(t, x), atol=1e-12)
    for k in range(5):
        jacobian = torch.autograd.functional.jacobian(lambda y, k=k: field(t[k], y[None])[0], x[k])
        assert_allclose(divergence[k], jacobian.trace(), atol=1e-9)


def test_velocities_at_many_times_are_those_at_each():
    field, x = PathVelocity(velocity(), Chord([1, 0, 0, 0], [0, 0.5, 0, 0.5])), torch.randn((4, 3), dtype=torch.float64)
    times = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
    for t, at in zip(times, field.instants(times), strict=True):
        assert_allclose(at(x).detach(), field(t, x).detach(), atol=1e-12)


def test_gradients_by_hand_are_those_of_autograd():
    of = velocity().float()
    generator = torch.Generator().manual_seed(1)
    alpha, c = (w.repeat_interleave(4, 0) for w in draw_weights(8, TIMES, 4, generator))
    regression = regression_at(of, alpha, c, torch.randn((4, 32, 3), generator=generator))
    other = copy.deepcopy(of.network)
    regression.loss(other(regression.t, regression.y, regression.condition)).backward()
    for parameter in of.network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    loss = make_task(of.network, regression, 4).loss(slice(0, 32))
    assert_allclose(loss, regression.loss(other(regression.t, regression.y, regression.condition)).detach(), rtol=1e-5)
    for ours, theirs in zip(of.network.parameters(), other.parameters(), strict=True):
        assert_allclose(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4)


def test_weights_have_sum_one_and_directions_sum_zero():
    for times in (None, TIMES):
        alpha, c = draw_weights(400, times, 4, torch.Generator().manual_seed(0))
        assert_allclose(alpha.sum(1), 1.0, atol=1e-5)
        assert_allclose(c.sum(1), 0.0, atol=1e-4)
        assert (alpha.min() >= -1e-6) == (times is None)


def test_the_energy_of_paths_is_action_and_bending():
    rng, t = np.random.default_rng(0), np.linspace(0, 3, 3001)
    x = rng.normal(size=4)
    spline = CubicSpline(TIMES, x, bc_type="natural")
    bending = trapezoid(spline(t, 2) ** 2, t)
    action = (np.diff(x) ** 2 / np.diff(TIMES)).sum()
    assert_allclose(x @ path_energy_matrix(TIMES, 4) @ x, action + 0.5 * bending, rtol=1e-5)
    # in units of the mean distance of times
    assert_allclose(path_energy_matrix(100 * TIMES + 7, 4), path_energy_matrix(TIMES, 4), rtol=1e-9)
    assert_allclose(x @ path_energy_matrix(None, 4) @ x, ((x[:, None] - x) ** 2).sum() / 2)


@pytest.mark.parametrize("times", [None, TIMES[:3]])
def test_pairing_lowers_the_energy(times):
    rng, energy = np.random.default_rng(0), path_energy_matrix(times, 3)
    x = [torch.as_tensor(rng.normal(size=(50, 1))) for _ in range(3)]
    ranks = paired_rows(x, path_energy_matrix(None, 3))[..., 0].argsort(1)
    assert (ranks == ranks[0]).all()  # in one column every optimal plan keeps the order
    y = [torch.as_tensor(rng.normal(size=(60, 2)) @ rng.normal(size=(2, 2))) for _ in range(3)]
    chain = [y[0]]
    for rows in y[1:]:
        chain.append(rows[torch.as_tensor(optimal_pairs(chain[-1], rows))])

    def total(paired):
        return torch.einsum("kj,knd,jnd->", torch.as_tensor(energy), paired, paired)

    paired = paired_rows(y, energy)
    assert total(paired) < total(torch.stack(chain))
    for before, after in zip(y, paired, strict=True):
        assert_allclose(sorted(before.tolist()), sorted(after.tolist()))


@pytest.mark.parametrize("d", [2, 4])
def test_rows_of_what_turns_are_paired_with_themselves(d):
    """Optimal transport of a turned shape with two arms pairs other rows: the rotation is found first."""
    rng, times = np.random.default_rng(0), np.arange(4.0)
    z = rng.normal(size=(300, d)) * np.linspace(0.2, 1.0, d)
    z[:, 0] += 2.0 * (z[:, -1] > 0)
    skew = np.zeros((d, d))
    skew[0, 1], skew[1, 0] = -0.7, 0.7
    rows = [torch.tensor(z @ expm(skew * t).T + t, dtype=torch.float32) for t in times]
    generator = torch.Generator().manual_seed(0)
    shuffled = [x[torch.randperm(300, generator=generator)] for x in rows]
    rotations = rotations_of(shuffled, times, [None] * 4, generator)
    for turn in rotations:
        assert_allclose(turn @ turn.T, np.eye(d), atol=1e-5)
        assert_allclose(turn, expm(skew), atol=0.1 * d)
    energy = path_energy_matrix(times, 4)
    apart = []
    for frames in (frames_of(rotations), None):
        paired = paired_rows(shuffled, energy, frames)
        back = torch.stack(
            [x @ torch.tensor(expm(skew * t), dtype=x.dtype) for x, t in zip(paired, times, strict=True)]
        )
        back = back - back.mean(1, keepdim=True)
        apart.append(float((back - back[0]).square().mean()))
    assert apart[0] < 0.5 * apart[1]


def test_what_does_not_turn_is_left_as_it_is():
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(400, 3, generator=generator) * torch.tensor([1.0, 1 + t / 4, 0.5]) + t for t in range(4)]
    rotations = rotations_of(rows, np.arange(4.0), [None] * 4, generator)
    assert frames_of(rotations) is None
    assert frames_of(rotations_of(rows, None, [None] * 4, generator)) is None
    assert frames_of(rotations_of(rows[:2], np.arange(2.0), [None] * 2, generator)) is None
