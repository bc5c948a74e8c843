"""Couplings: plans against closed forms and against each other, and pools of pairs in training."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.exceptions import ConvergenceWarning

from oracles import random_covariances
from sklearn_si import InterpolantDiffusion, InterpolantFlow
from sklearn_si._training.batches import Sampler
from sklearn_si.couplings import Entropic, Optimal, conditional_covariance, entropic_plan, optimal_pairs
from sklearn_si.interpolants import Linear


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(n, d, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    return torch.as_tensor(rng.multivariate_normal(np.full(d, shift), random_covariances(rng, 1, d)[0], size=n))


def root(matrix):
    values, axes = np.linalg.eigh(matrix)
    return (axes * np.sqrt(values)) @ axes.T


def bridge_covariance(s0, s1, epsilon):
    """Cov(x0, x1) of the Schroedinger bridge between normal distributions, as theory 9.5 prints it."""
    half, sigma2 = root(s0), 2 * epsilon
    inner = root(4 * half @ s1 @ half + sigma2**2 * np.eye(len(s0)))
    return (half @ inner @ np.linalg.inv(half) - sigma2 * np.eye(len(s0))) / 2


@pytest.mark.parametrize("d", [1, 2, 7])
@pytest.mark.parametrize("n", [1, 2, 60])
def test_optimal_pairs_are_those_of_the_plain_cost(n, d):
    """Shifts and Gaussian potentials leave the plan as it is."""
    x0, x1 = rows(n, d, 0), rows(n, d, 1, 5.0)
    expected = linear_sum_assignment(torch.cdist(x0, x1).square().numpy())[1]
    assert optimal_pairs(x0, x1).tolist() == expected.tolist()


def test_optimal_pairs_on_a_line_are_those_of_the_order():
    x0, x1 = rows(200, 1, 0), rows(200, 1, 1, -3.0).exp()
    assert torch.equal(x1[optimal_pairs(x0, x1)][x0[:, 0].argsort()], x1.sort(0).values)


def test_unequal_numbers_of_rows_are_refused():
    with pytest.raises(ValueError, match="equally many rows, but got 3 and 4"):
        optimal_pairs(rows(3, 2, 0), rows(4, 2, 1))


def test_iterations_that_do_not_converge_are_reported():
    with pytest.warns(ConvergenceWarning, match="because epsilon=0.0001 is small for these distances"):
        entropic_plan(rows(30, 3, 0), rows(30, 3, 1), 1e-4, tol=1e-12)


@pytest.mark.parametrize("epsilon", [0.02, 0.05, 3.0])
@pytest.mark.parametrize(("n", "m"), [(40, 40), (30, 50)])
def test_an_entropic_plan_has_the_given_marginals_and_its_own_form(n, m, epsilon):
    """Log plan + |x0 - x1|^2 / 4 epsilon is a sum of a function of each row."""
    x0, x1 = rows(n, 3, 0), rows(m, 3, 1, 2.0)
    plan = entropic_plan(x0, x1, epsilon, tol=1e-6)
    torch.testing.assert_close(plan.sum(0), torch.full((m,), 1 / m, dtype=torch.float64), rtol=1e-9, atol=0)
    assert (plan.sum(1) - 1 / n).abs().sum() <= 2e-6
    potential = plan.log() + torch.cdist(x0, x1).square() / (4 * epsilon)
    mixed = potential - potential.mean(0) - potential.mean(1, keepdim=True) + potential.mean()
    inside = plan > 1e-250
    if bool(inside.all()):
        assert mixed.abs().max() < 1e-6 / epsilon


def test_the_entropic_plan_of_normal_distributions_is_the_closed_form():
    """A row's mean partner, over many rows: E[x1 | x0] of theory 9.5."""
    x0, x1, epsilon = rows(3000, 2, 0), rows(3000, 2, 1, 1.0), 0.5
    plan = entropic_plan(x0, x1, epsilon)
    means = plan @ x1 / plan.sum(1, keepdim=True)
    s0, s1 = np.cov(x0.numpy().T), np.cov(x1.numpy().T)
    matrix = torch.as_tensor(bridge_covariance(s0, s1, epsilon).T @ np.linalg.inv(s0))
    expected = x1.mean(0) + (x0 - x0.mean(0)) @ matrix.T
    assert (means - expected).square().mean() < 2e-3 * expected.var(0).mean()


@pytest.mark.parametrize("epsilon", [1e-4, 0.5, 30.0])
def test_the_conditional_covariance_of_a_bridge(epsilon):
    s0, s1 = random_covariances(np.random.default_rng(0), 2, 4)
    coupled = bridge_covariance(s0, s1, epsilon)
    expected = s1 - coupled.T @ np.linalg.inv(s0) @ coupled
    np.testing.assert_allclose(conditional_covariance(s0, s1, epsilon), expected, atol=1e-9)
    # symmetric, and the block of the joint precision off the diagonal is -1 / 2 epsilon
    np.testing.assert_allclose(coupled.T @ np.linalg.inv(s0), expected / (2 * epsilon), atol=1e-6)


@pytest.mark.parametrize("coupling", [Optimal(), Entropic(0.05)])
def test_paired_rows_are_nearer_than_random_ones_and_stay_rows(coupling):
    x0, x1 = rows(200, 2, 0), rows(200, 2, 1)
    a, b, c = coupling(x0, x1, torch.zeros(200, 1), generator())
    assert len(a) == len(b) == len(c) == 200 * getattr(coupling, "draws", 1)
    assert (a - b).square().sum(1).mean() < 0.7 * (x0 - x1).square().sum(1).mean()
    known = {tuple(r) for r in x1.tolist()}
    assert all(tuple(r) in known for r in b.tolist())


@pytest.mark.parametrize("coupling", [Optimal(), Entropic(0.05)])
def test_a_base_row_tells_nothing_of_the_condition(coupling):
    """Targets move with the condition: by distance alone, base rows and conditions would be correlated."""
    rng = np.random.default_rng(0)
    labels = torch.as_tensor(rng.integers(2, size=600)).double()[:, None]
    one_hot = torch.cat([labels, 1 - labels], 1)
    x0, x1 = torch.as_tensor(rng.normal(size=(600, 1))), torch.as_tensor(rng.normal(size=(600, 1))) + 4 * labels
    for condition, most in ((one_hot, 0.05), (labels + 0.3 * torch.as_tensor(rng.normal(size=(600, 1))), 0.2)):
        a, b, c = coupling(x0, x1, condition, generator())
        # the condition travels with the target
        at = {float(r): row.tolist() for r, row in zip(x1, condition, strict=True)}
        assert all(at[float(r)] == row.tolist() for r, row in zip(b, c, strict=True))
        assert abs(np.corrcoef(a[:, 0], c[:, 0])[0, 1]) < most
        careless = x1[optimal_pairs(x0, x1)]
        assert np.corrcoef(x0[:, 0], careless[:, 0] > 2)[0, 1] > 0.7


def test_pairs_are_made_for_many_batches_and_then_anew():
    made = []

    class Counting(Optimal):
        def __call__(self, *args):
            made.append(len(args[0]))
            return super().__call__(*args)

    x0, x1 = rows(100, 2, 0), rows(90, 2, 1)
    sampler = Sampler(x0, x1, None, Counting(batch_size=20, passes=3), True)
    drawn = [sampler.draw(10, generator(), batches=2) for _ in range(6)]  # 120 pairs: two pools of 20, three times each
    assert made == [20, 20] and all(len(d[0]) == len(d[2]) == 20 for d in drawn)
    first = {tuple(r) for d in drawn[:3] for r in torch.cat(d[:2], 1).tolist()}
    assert len(first) == 20
    # few rows of equal number are paired at once
    made.clear()
    Sampler(x0, x0 + 1, None, Counting(batch_size=50), True).draw(10, generator())
    assert made == [100]


def test_the_entropic_coupling_takes_its_epsilon_from_the_path():
    assert Entropic().tied_to(Linear("brownian", 0.3)).epsilon == pytest.approx(0.15)
    assert Entropic(0.7).tied_to(Linear("quadratic")).epsilon == 0.7
    X = rows(60, 2, 0).numpy()
    for estimator in (InterpolantFlow(coupling="entropic"), InterpolantDiffusion(coupling="entropic", gamma="sine")):
        with pytest.raises(ValueError, match="takes its epsilon from the brownian gamma"):
            estimator.fit(X, X + 1)
    with pytest.raises(ValueError, match="called with epsilon=None"):
        Entropic()(torch.zeros(2, 1), torch.zeros(2, 1), None, None)


@pytest.mark.parametrize("coupling", ["optimal", "entropic"])
def test_one_sample_has_no_plan(coupling):
    with pytest.raises(ValueError, match="fit was given one: pass X1 as well"):
        InterpolantDiffusion(coupling=coupling).fit(rows(60, 2, 0).numpy())


@pytest.mark.parametrize("coupling", [Optimal(), Entropic(0.1), lambda x0, x1, c, g: (x0, x1, c)])
def test_one_sample_takes_no_coupling_of_its_own(coupling):
    """Its base would tell of the target, and the velocity would not give the score."""
    with pytest.raises(ValueError, match="fit was given one: pass X1 as well"):
        InterpolantFlow(coupling=coupling).fit(rows(60, 2, 0).numpy())


@pytest.mark.parametrize(
    ("coupling", "message"),
    [
        (Optimal(batch_size=0), "batch_size=0 in Optimal, but expected an integer of at least 2"),
        (Optimal(passes=0), "passes=0 in Optimal"),
        (Entropic(0.1, draws=0), "draws=0 in Entropic"),
        (Entropic(-1), "epsilon=-1.*expected None or a number above 0"),
        (Optimal, "Got the class coupling=Optimal, but expected an instance"),
    ],
)
def test_parameters_that_make_no_plan_are_refused(coupling, message):
    X = rows(60, 2, 0).numpy()
    with pytest.raises(ValueError, match=message):
        InterpolantFlow(coupling=coupling).fit(X, X + 1)


def test_a_fit_with_optimal_pairs_repeats_and_moves_rows_less():
    X0, X1 = rows(400, 2, 0).numpy(), rows(300, 2, 1, 1.0).numpy()
    params = {"max_iter": 200, "hidden_layer_sizes": (32,), "base_density": None, "random_state": 0}
    moved = {}
    for coupling in ("independent", "optimal", "optimal"):
        flow = InterpolantFlow(coupling=coupling, gamma="brownian", gamma_scale=0.01, **params).fit(X0, X1)
        ends = flow.transform(X0)
        np.testing.assert_array_equal(ends, moved.get(("optimal", coupling), ends))
        moved["optimal", coupling] = ends
    optimal, independent = (((moved["optimal", c] - X0) ** 2).mean() for c in ("optimal", "independent"))
    assert optimal < 1.02 * independent
