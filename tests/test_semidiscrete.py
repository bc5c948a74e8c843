"""Plans between all rows of two samples: potentials against exact solvers, marginals, weights, masses that vanish."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment, linprog

from sklearn_si import InterpolantDiffusion, InterpolantFlow
from sklearn_si._training import lazy_rows
from sklearn_si._training.batches import Sampler
from sklearn_si.couplings import Entropic, Optimal, Samples, entropic_plan, semidiscrete_plan
from sklearn_si.couplings._pools import HeldOutPairs, SemidiscretePairs, settled, spread
from sklearn_si.interpolants import Linear
from sklearn_si.networks import FiLMNetwork
from sklearn_si.networks._transport import TransportVelocity

SHORT = {"base_density": None, "max_iter": 20, "random_state": 0}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def two_samples(n=60, m=60, d=2, dtype=torch.float64):
    x0 = torch.randn(n, d, generator=generator(1), dtype=dtype) + 3
    return x0, torch.randn(m, d, generator=generator(2), dtype=dtype) * torch.linspace(0.5, 2, d).to(dtype) - 1


def least_cost(x0, x1, a, b):
    """The least cost over all plans with the given marginals."""
    n, m = len(x0), len(x1)
    of0, of1 = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    cost = torch.cdist(x0, x1).square().numpy().ravel()
    found = linprog(cost, A_eq=np.concatenate([of0, of1]), b_eq=np.concatenate([a, b]), method="highs")
    return found.fun


@pytest.mark.parametrize("d", [1, 2, 5])
def test_the_dual_is_the_cost_of_the_best_permutation(d):
    x0, x1 = two_samples(d=d)
    cost = torch.cdist(x0, x1).square().numpy()
    best = cost[linear_sum_assignment(cost)].mean()
    dual = semidiscrete_plan(x0, x1, passes=400, generator=generator()).dual(x0)
    assert best * (1 - 2e-3) < dual <= best + 1e-9


def test_the_dual_of_unequal_masses_is_the_cost_of_a_linear_program():
    x0, x1 = two_samples(30, 20)
    weight = torch.rand(20, generator=generator()) + 0.1
    best = least_cost(x0, x1, np.full(30, 1 / 30), (weight / weight.sum()).double().numpy())
    dual = semidiscrete_plan(x0, x1, weights=(None, weight), passes=1000, generator=generator()).dual(x0)
    assert best * (1 - 2e-3) < dual <= best + 1e-6


@pytest.mark.parametrize("epsilon", [0.05, 0.5])
def test_an_entropic_potential_is_that_of_sinkhorn(epsilon):
    x0, x1 = two_samples(80, 70)
    plan = semidiscrete_plan(x0, x1, epsilon, passes=400, generator=generator())
    weights = torch.softmax(plan.logits(x0), 1)
    exact = entropic_plan(x0, x1, epsilon, tol=1e-6) * len(x0)
    assert (weights.mean(0) - 1 / len(x1)).abs().sum() / 2 < 0.02
    assert (weights - exact).abs().sum(1).mean() / 2 < 0.05


def test_partners_do_not_depend_on_where_the_samples_are():
    x0, x1 = two_samples(dtype=torch.float32)
    plans = [semidiscrete_plan(x0 + shift, x1 - shift, generator=generator()) for shift in (0.0, 64.0)]
    partners = [plan.partners(x0 + shift)[:, 0] for plan, shift in zip(plans, (0.0, 64.0), strict=True)]
    assert (partners[0] == partners[1]).float().mean() > 0.9
    assert plans[0].dual(x0) == pytest.approx(torch.cdist(x0, x1).square()[range(60), partners[0]].mean().item(), 0.05)


@pytest.mark.parametrize(("n", "m"), [(300, 300), (300, 500), (500, 300)])
def test_pools_have_the_marginals_of_the_samples(n, m):
    x0, x1 = two_samples(n, m)
    pairs = SemidiscretePairs(semidiscrete_plan(x0, x1, generator=generator()), Samples(x0, x1))
    start, end, _ = pairs.make_pool(generator())
    for x, drawn in ((x0, start), (x1, end)):
        counts = (x[:, None] == drawn).all(-1).sum(1)
        assert counts.sum() == max(n, m)
        assert set(counts.tolist()) <= {max(n, m) // len(x), -(-max(n, m) // len(x))}
    if n == m:
        cost = torch.cdist(x0, x1).square().numpy()
        best = cost[linear_sum_assignment(cost)].mean()
        assert (start - end).square().sum(1).mean() < 1.02 * best


def test_weights_are_masses():
    x0, x1 = two_samples(400, 400, 1)
    weight = (x1[:, 0] > -1).double() * 3 + 1
    pairs = SemidiscretePairs(
        semidiscrete_plan(x0, x1, weights=(None, weight), generator=generator()), Samples(x0, x1, weight1=weight)
    )
    start, end, _ = pairs.make_pool(generator())
    expected = float(weight[x1[:, 0] > -1].sum() / weight.sum())
    assert (end[:, 0] > -1).double().mean() == pytest.approx(expected, abs=0.01)
    # on a line an optimal plan keeps the order
    best = (start[:, 0].sort().values - end[:, 0].sort().values).square().mean()
    assert (start - end).square().mean() < 1.01 * best


def test_late_rows_are_paired_with_what_is_left():
    x0, x1 = two_samples(6, 3)
    plan = semidiscrete_plan(x0, x1, generator=generator())
    partners = settled(x0, plan, torch.zeros(6, dtype=torch.long), torch.tensor([1, 2, 3]), generator())
    assert torch.bincount(partners).tolist() == [1, 2, 3]


def test_spread_rows_have_their_shares():
    weight = torch.tensor([1.0, 0.0, 3.0])
    assert torch.bincount(spread(3, weight, 8, generator()), minlength=3).tolist() == [2, 0, 6]
    assert sorted(spread(5, None, 5, generator()).tolist()) == [0, 1, 2, 3, 4]


def test_mass_vanishes_from_rows_far_from_all_others():
    x0, x1 = two_samples(400, 400)
    x0, x1 = x0 - 3, x1 + 1
    x0[:40] += 30.0
    x1[:80] -= 30.0
    plan = semidiscrete_plan(x0, x1, unbalanced=4.0, generator=generator())
    pairs = SemidiscretePairs(plan, Samples(x0, x1))
    start, end, _ = pairs.make_pool(generator())
    assert float((start.abs() > 15).any(1).double().mean()) < 0.01
    assert float((end.abs() > 15).any(1).double().mean()) < 0.01
    balanced = semidiscrete_plan(x0, x1, unbalanced=1e6, passes=64, generator=generator())
    assert balanced.base_masses(x0).std() < 0.05


def test_validation_rows_are_paired_by_the_plan_of_the_training_rows():
    x0, x1 = two_samples(500, 400, 1)
    trained = SemidiscretePairs(semidiscrete_plan(x0, x1, generator=generator(), passes=64), Samples(x0, x1))
    val0, val1 = x0[::5] + 0.01, x1[::5] + 0.01
    held = trained.held_out(Samples(val0, val1), generator())
    assert isinstance(held, HeldOutPairs)
    start, end, _ = held.make_pool(generator())
    assert len(start) == len(end) == 200
    assert np.corrcoef(start[:, 0].argsort().argsort(), end[:, 0].argsort().argsort())[0, 1] > 0.98


def test_validation_rows_of_an_unbalanced_plan_have_the_masses_of_training_rows():
    """They took the partner of the best score each, whatever the others took: a loss that no training has."""
    x0, x1 = two_samples(900, 900)
    x0, x1 = x0 - 3, x1 + 1
    x1[:300] = x1[:300] * 0.3 + 3.0  # a crowd at one side, which some of the mass leaves
    of_training = torch.arange(900) % 3 > 0
    rows = Samples(x0[of_training], x1[of_training])
    trained = SemidiscretePairs(semidiscrete_plan(*rows[:2], unbalanced=2.0, generator=generator(), passes=2), rows)
    held = trained.held_out(Samples(x0[~of_training], x1[~of_training]), generator())
    own, pools = trained.make_pool(generator(1)), [held.make_pool(generator(k)) for k in range(10)]
    start, end = (torch.cat(parts) for parts in list(zip(*pools, strict=True))[:2])
    crowd = [float((rows[:, 0] > 1.5).double().mean()) for rows in (own[1], end)]
    assert crowd[1] == pytest.approx(crowd[0], abs=0.04)
    apart = [float((a - b).square().sum(1).mean()) for a, b in (own[:2], (start, end))]
    assert apart[1] == pytest.approx(apart[0], rel=0.1)


def test_samples_of_an_unbalanced_flow_start_at_rows_that_kept_their_mass():
    rng = np.random.default_rng(0)
    x0, x1 = rng.normal(size=(300, 2)), rng.normal(size=(250, 2)) + 1
    x0[:60] += 30.0
    flow = InterpolantFlow(coupling=Optimal(unbalanced=0.5), **SHORT).fit(x0, x1)
    assert np.abs(flow.sample(500)).max() < 15
    weight = flow.model_.base_weight
    assert weight.shape == (300,) and weight[:60].max() < 1e-3 * weight[60:].mean()
    weighted = InterpolantFlow(coupling=Optimal(unbalanced=4.0), **SHORT)
    weighted.fit(x0, x1, sample_weight=(np.where(x0[:, 0] > 0, 3.0, 0.0), None))
    assert weighted.model_.base_sample[weighted.model_.base_weight > 1e-9, 0].min() > 0
    kept = InterpolantFlow(coupling=Optimal(method="semidiscrete"), **SHORT).fit(x0, x1)
    assert kept.model_.base_weight is None


def test_one_plan_of_all_rows_needs_them_in_memory(tmp_path, monkeypatch):
    x0, x1 = (x.numpy() for x in two_samples(200, 150))
    monkeypatch.setattr(lazy_rows, "_LARGE", 1)
    np.save(tmp_path / "x0.npy", x0)
    mapped = np.load(tmp_path / "x0.npy", mmap_mode="r")
    with pytest.raises(ValueError, match=r"one plan of all rows.*method='batches'"):
        InterpolantFlow(coupling=Optimal(method="semidiscrete"), **SHORT).fit(mapped, x1)


@pytest.mark.parametrize("coupling", [Optimal(method="semidiscrete"), Entropic(0.5, method="semidiscrete")])
def test_a_base_row_is_independent_of_the_condition(coupling):
    n = 600
    condition = (torch.arange(n) % 2).float()[:, None]
    x0 = torch.randn(n, 1, generator=generator())
    x1 = torch.randn(n, 1, generator=generator(1)) + 4 * condition
    pairs = coupling.planned(Samples(x0, x1, condition), generator())
    start, end, drawn = pairs.make_pool(generator(2))
    assert abs(float(start[drawn[:, 0] == 1].mean() - start[drawn[:, 0] == 0].mean())) < 0.15
    assert float((end[:, 0] - 4 * drawn[:, 0]).std()) == pytest.approx(1.0, abs=0.1)


def test_a_plan_that_is_not_far_enough_gives_way_to_batches(monkeypatch):
    x0, x1 = two_samples(300, 300)
    rows = Samples(x0, x1)
    monkeypatch.setattr("sklearn_si.couplings._transport._FEWEST_ROWS", 100)
    assert isinstance(Optimal().planned(rows, generator()), SemidiscretePairs)
    monkeypatch.setattr("sklearn_si.couplings._transport._MOST_MISSED", 0.0)
    batches = Optimal().planned(rows, generator())
    assert isinstance(batches, Optimal)
    assert "misses" in batches.told
    assert isinstance(Optimal(method="semidiscrete").planned(rows, generator()), SemidiscretePairs)


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_outliers_keep_no_plan_from_all_rows(share):
    """The steps of the ascent were those of the outliers: two thirds of the masses were missed, and batches taken."""
    x0, x1 = two_samples(2100, 2100, dtype=torch.float32)
    x0[: round(share * 2100)] += 60.0
    scale = torch.cat([x0, x1]).std(0)
    pairs = Optimal().planned(Samples(x0 / scale, x1 / scale), generator())
    assert isinstance(pairs, SemidiscretePairs)
    start, end, _ = pairs.make_pool(generator())
    assert pairs.plan.dual(x0 / scale) > 0.98 * float((start - end).square().sum(1).mean())


def test_a_fit_says_how_it_has_paired_rows(monkeypatch, capsys):
    x0, x1 = (x.numpy() for x in two_samples(200, 150))
    found = {}
    for name, coupling, n in (
        ("all", Optimal(method="semidiscrete"), 150),
        ("few", "optimal", 140),
        ("same", "optimal", 150),
    ):
        flow = InterpolantFlow(coupling=coupling, verbose=1, **{**SHORT, "max_iter": 2}).fit(x0[:150], x1[:n])
        found[name] = flow.coupling_method_
        assert "Rows are paired by" in capsys.readouterr().out
    assert found == {"all": "semidiscrete", "few": "batches", "same": "whole"}
    flow.set_params(coupling="independent").fit(x0, x1)
    assert "coupling_method_" not in vars(flow)
    assert "paired" not in capsys.readouterr().out


def test_an_unknown_coupling_is_told_of_objects():
    with pytest.raises(ValueError, match=r"an object such as sklearn_si.couplings.Optimal\(method='batches'\)"):
        InterpolantFlow(coupling="optimall").fit(*(x.numpy() for x in two_samples()))


@pytest.mark.parametrize(
    ("d", "words"), [(13, "13 columns, and 12 are the most"), (2, "60 training rows, and 2048 are")]
)
def test_batches_say_why(d, words):
    assert words in Optimal().planned(Samples(*two_samples(d=d)), generator()).told


def test_a_sampler_draws_from_the_pools_of_a_plan():
    x0, x1 = two_samples(dtype=torch.float32)
    pairs = Optimal(method="semidiscrete").planned(Samples(x0, x1), generator())
    sampler = Sampler(x0, x1, None, pairs, False)
    start, end, _, _ = sampler.draw(16, generator(), 3)
    assert len(start) == len(end) == 48
    pool = sampler._pool
    sampler.draw(60, generator(), 10)
    assert sampler._pool is pool


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_fit_by_one_plan_is_reproducible(dtype):
    x0, x1 = (x.numpy().astype(dtype) for x in two_samples(300, 250))
    coupling = Optimal(method="semidiscrete")
    first, second = (InterpolantFlow(coupling=coupling, **SHORT).fit(x0, x1).transform(x0[:5]) for _ in range(2))
    assert first.dtype == dtype
    assert np.array_equal(first, second)


def test_fits_with_weights_conditions_and_noise_run():
    x0, x1 = (x.numpy() for x in two_samples(200, 150))
    condition, weight = x1[:, :1] > -1, np.linspace(0.5, 2, 150)
    flow = InterpolantFlow(coupling=Optimal(method="semidiscrete"), **SHORT)
    flow.fit(x0, x1, condition=condition, sample_weight=weight)
    assert np.isfinite(flow.transform(x0[:3], condition=condition[:3])).all()
    noisy = InterpolantDiffusion(coupling=Entropic(method="semidiscrete"), **SHORT).fit(x0, x1)
    assert np.isfinite(noisy.sample(3)).all()


@pytest.mark.parametrize("unbalanced", [1e4, 100.0])
def test_far_rows_leave_the_shares_of_unbalanced_pairs_as_they_are(unbalanced):
    """A potential far from its end let a few rows of the target take all of the base."""
    rng = np.random.default_rng(2)
    x0, x1 = rng.normal(size=(600, 2)), 0.5 * rng.normal(size=(600, 2))
    x1[:, 0] += np.where(rng.random(600) < 0.4, 3.0, -3.0)
    x0[:20] = 40.0
    both = np.concatenate([x0, x1]).std(0)
    rows = Samples(torch.tensor(x0 / both), torch.tensor(x1 / both))
    plan = semidiscrete_plan(rows.x0, rows.x1, unbalanced=unbalanced, generator=generator())
    _, partners, _ = SemidiscretePairs(plan, rows).make_pool(generator())
    wanted = torch.log_softmax(-plan.potential / unbalanced, 0).exp()
    share = float(wanted[rows.x1[:, 0] > 0].sum())
    assert float((partners[:, 0] > 0).double().mean()) == pytest.approx(share, abs=0.01)
    # no row of the target is taken more often than its mass says
    assert torch.unique(partners, dim=0, return_counts=True)[1].max() <= float(wanted.max()) * 600 + 1


def test_an_unbalanced_flow_has_no_density_of_its_base():
    x0, x1 = (x.numpy() for x in two_samples(200, 150))
    coupling = Optimal(unbalanced=2.0)
    with pytest.raises(ValueError, match=r"lets mass appear and vanish.*base_density=None"):
        InterpolantFlow(coupling=coupling, max_iter=5).fit(x0, x1)
    assert np.isfinite(InterpolantFlow(coupling=coupling, **SHORT).fit(x0, x1).transform(x0[:3])).all()


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"method": "exact"}, "method='exact' in Optimal, but expected one of"),
        ({"unbalanced": -1.0}, "unbalanced=-1.0 in Optimal, but expected None or a finite number above 0"),
        ({"unbalanced": 1.0, "method": "batches"}, "unbalanced=1 with method='batches'.*use method='semidiscrete'"),
    ],
)
def test_wrong_parameters_are_refused(params, words):
    with pytest.raises(ValueError, match=words):
        Optimal(**params).check()


def test_the_start_of_an_optimal_flow_is_the_map_between_normal_distributions():
    """Without training, the flow moves rows as the optimal map does, and its divergence is that of autograd."""
    matrix = torch.tensor([[2.0, 0.5], [0.5, 0.8]], dtype=torch.float64)
    means = torch.tensor([[1.0, 0.0], [-2.0, 3.0]], dtype=torch.float64)
    network = FiLMNetwork(2, 0, (8,), "silu", generator()).double()
    field = TransportVelocity(Linear(), network, means, matrix, torch.ones(2, dtype=torch.float64))
    t, x0 = torch.full((5,), 0.3, dtype=torch.float64), torch.randn(5, 2, generator=generator()).double()
    ends = means[1] + (x0 - means[0]) @ matrix
    torch.testing.assert_close(field.preconditioning(t, 0.7 * x0 + 0.3 * ends)[0], ends - x0)
    x = x0.clone().requires_grad_()
    value, divergence = field.velocity_and_divergence(t, x)
    torch.testing.assert_close(value, field(t, x))
    traces = sum(torch.autograd.grad(field(t, x)[:, k].sum(), x)[0][:, k] for k in range(2))
    torch.testing.assert_close(divergence, traces)


@pytest.mark.parametrize(
    ("shift", "unbalanced", "says"), [(50.0, 1.0, "keeps next to no mass"), (0.0, 1e-9, "no plan")]
)
def test_a_penalty_that_leaves_nothing_to_transport_is_announced(shift, unbalanced, says):
    X = np.random.default_rng(0).normal(size=(60, 2))
    flow = InterpolantFlow(coupling=Optimal(unbalanced=unbalanced), base_density=None, max_iter=2, random_state=0)
    with pytest.warns(UserWarning, match=f"Unbalanced transport .*{says}.*Raise `unbalanced`"):
        flow.fit(X, X + shift)


def test_a_shift_of_a_sample_counts_as_distance_where_mass_may_vanish():
    X = np.random.default_rng(0).normal(size=(60, 2))
    flow = InterpolantFlow(coupling=Optimal(unbalanced=4.0), base_density=None, max_iter=2, random_state=0).fit(
        X, X + 1
    )
    np.testing.assert_allclose(flow.model_.base_map.centre, flow.model_.target_map.centre)
