"""The choice of map, closed form and dropout on validation rows."""

import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import nn

from oracles import mixture_log_density
from sklearn_si import InterpolantFlow
from sklearn_si._training import mixture_init as _closed_forms
from sklearn_si._training import preprocessing_choice as _race
from sklearn_si._training import problem as _fitting
from sklearn_si._training import run as _runs
from sklearn_si._training.batches import Batches, Sampler
from sklearn_si._training.checkpoint import NoCheckpoint
from sklearn_si._training.gains import Gains, RowScores
from sklearn_si._training.loop import ROUND, History, Scores, Settings, should_check_overfitting, train
from sklearn_si._training.mixture_init import Budget, find_mixture, refit
from sklearn_si._training.optimizer import AdamWithEMA
from sklearn_si._training.preprocessing_choice import Selection
from sklearn_si._training.recipe import Recipe
from sklearn_si._utils.tensors import FIT_STREAM
from sklearn_si.couplings import independent
from sklearn_si.distributed import Single
from sklearn_si.exceptions import FitDivergedError
from sklearn_si.interpolants import make_interpolant
from sklearn_si.networks import FiLMNetwork, MixtureVelocity
from sklearn_si.networks._perceptrons import _keep_mask
from sklearn_si.preprocessing import MARGINAL, AffineMap, MarginalMap, fit_one_sample_map

RNG = np.random.default_rng(0)
SKEWED = np.exp(RNG.normal(size=(400, 2)))
SMALL = {"max_iter": 200, "hidden_layer_sizes": (16,), "random_state": 0}


def clusters(n=600, seed=0):
    """Three well separated normal clusters."""
    rng = np.random.default_rng(seed)
    return rng.normal([[0, 0], [8, 0], [0, 8]], 0.5, size=(n // 3, 3, 2)).reshape(-1, 2)


def test_skewed_columns_get_a_map_of_their_own(monkeypatch):
    seen, flow = runs_of(monkeypatch, SKEWED)
    assert isinstance(flow.preprocessing_, MarginalMap)
    # and the steps after the comparison go into the network behind this map
    assert seen[-1][0] in MARGINAL


def test_the_base_of_a_bridge_lives_in_units_that_an_affine_map_leads_to():
    bridge = InterpolantFlow(base_density="flow", **SMALL).fit(SKEWED, SKEWED[::2] + 1)
    assert not isinstance(bridge.base_density_.preprocessing_, MarginalMap)
    assert np.isfinite(bridge.score_samples(SKEWED + 1)).all()


def test_clusters_get_a_mixture():
    flow = InterpolantFlow(**SMALL).fit(clusters())
    assert isinstance(flow.network_, MixtureVelocity)
    fresh = clusters(seed=1)
    assert flow.score(fresh) > GaussianMixture(3, random_state=0).fit(clusters()).score(fresh) - 0.05


def runs_of(monkeypatch, X, **params):
    """The runs of a fit, and its model."""
    seen = []
    trained = Selection.trained

    def recording(self, run, settings, dropout=None, **others):
        seen.append((run.kind, dropout, settings))
        return trained(self, run, settings, dropout=dropout, **others)

    monkeypatch.setattr(Selection, "trained", recording)
    return seen, InterpolantFlow(**{**SMALL, **params}).fit(X)


def test_a_run_that_overfits_is_followed_by_one_with_dropout(monkeypatch):
    few = RNG.normal(size=(60, 6))
    params = {"max_iter": 40 * ROUND, "hidden_layer_sizes": (64, 64)}
    seen, _ = runs_of(monkeypatch, few, preprocessing="standardize", **params)
    dropouts = [dropout for _, dropout, _ in seen]
    assert dropouts[0] == 0 and 0 < dropouts[1] <= 0.3
    steps = [settings.max_iter for _, _, settings in seen]
    assert steps[0] == 40 * ROUND > steps[1]
    # a share given by the user is kept, and is the only one
    monkeypatch.undo()
    seen, _ = runs_of(monkeypatch, few, preprocessing="standardize", dropout=0.2, **params)
    assert [dropout for _, dropout, _ in seen] == [0.2]


@pytest.mark.parametrize("sure", [True, False])
def test_of_all_runs_the_one_of_the_highest_score_is_kept_or_the_long_one(sure, monkeypatch):
    best, trained = [], Selection.trained

    def recording(self, run, settings, **kwargs):
        run = trained(self, run, settings, **kwargs)
        best.append(run.history.best_score)
        return run

    monkeypatch.setattr(Selection, "trained", recording)
    monkeypatch.setattr(RowScores, "lead", lambda self, other: (0.1, 0.05 if sure else 0.2))
    flow = InterpolantFlow(**SMALL).fit(SKEWED)
    assert len(best) > 3 and best[-1] < max(best)
    assert flow.best_validation_score_ == (max(best) if sure else best[-1])


def test_runs_that_come_near_each_other_are_judged_by_all_rows_that_are_held_out():
    X = np.random.default_rng(0).normal(size=(5000, 2))

    class Judged:
        def __init__(self, score, truth):
            self.history, self.truth, self.rows = History(best_score=score), truth, None

        def likelihood_of(self, rows, most):
            self.rows = rows[:most]
            return lambda: self.truth

    problem = _fitting.make_problem(Recipe(), X, None, None, NoCheckpoint(lambda: 0))
    selection = Selection(Recipe(), problem, _fitting._settings(Recipe(), problem))
    lucky, good, far = selection.runs = [Judged(1.0, 0.5), Judged(0.95, 0.9), Judged(0.8, 2.0)]
    assert selection.winner() is good
    assert len(lucky.rows) == len(good.rows) == 500 and far.rows is None


@pytest.mark.parametrize(
    ("lead", "wins"), [((0.02, -0.02, 0.03, -0.02) * 10, False), ((0.2,) * 40, True), ((*(0.2,) * 39, -6.5), False)]
)
def test_a_short_run_wins_where_it_surely_leads_the_long_ones(lead, wins):
    X = np.random.default_rng(0).normal(size=(200, 2))

    class Judged:
        def __init__(self, score, values):
            self.history, self.values, self.problem = History(best_score=score, seconds=0.1), values, problem

        def n_validation_rows(self):
            return 20

        def row_likelihoods(self, rows):
            assert len(rows) == 40
            return lambda: torch.tensor(self.values)

    problem = _fitting.make_problem(Recipe(), X, None, None, NoCheckpoint(lambda: 0))
    selection = Selection(Recipe(), problem, _fitting._settings(Recipe(), problem))
    short, long = selection.runs = [Judged(1.0, lead), Judged(0.7, (0.0,) * 40)]
    selection.n_short = 1
    assert selection.winner() is (short if wins else long)
    # by their scores alone, where there is no long one, or the user has no more patience
    selection.n_short = 2
    assert selection.winner() is short
    selection.n_short, problem.interrupted = 1, True
    assert selection.winner() is short


@pytest.mark.parametrize(("left", "n_rows"), [(10.0, 1000), (4.0, 512), (1.0, None), (-1.0, None)])
def test_the_last_choice_takes_no_more_than_the_time_that_is_left(left, n_rows):
    """With 1 s for the 256 rows of a validation; a last choice by so few rows would say nothing new."""
    X, asked = np.random.default_rng(0).normal(size=(20_000, 2)), []

    class Judged:
        history = History(best_score=1.0, seconds=1.0)

        def likelihood_of(self, rows, most):
            asked.append(most)
            return lambda: 0.0

    recipe = Recipe(max_time=100.0)
    problem = _fitting.make_problem(recipe, X, None, None, NoCheckpoint(lambda: 0))
    selection = Selection(recipe, problem, _fitting._settings(recipe, problem))
    selection.runs, selection.left = [Judged(), Judged()], lambda: left / 100
    selection.winner()
    assert asked == ([] if n_rows is None else [n_rows, n_rows])


def test_a_candidate_that_diverges_leaves_the_others(monkeypatch):
    trained = Selection.trained

    def diverge(*args, **kwargs):
        raise FitDivergedError("no")

    def diverging(self, run, settings, **kwargs):
        if run.kind.startswith("marginal"):
            monkeypatch.setattr(run, "train", diverge)
        return trained(self, run, settings, **kwargs)

    monkeypatch.setattr(Selection, "trained", diverging)
    assert not isinstance(InterpolantFlow(**SMALL).fit(SKEWED).preprocessing_, MarginalMap)


def test_a_fit_of_which_all_candidates_diverge_says_so():
    with pytest.raises(FitDivergedError, match="stopped being finite"):
        InterpolantFlow(**{**SMALL, "learning_rate_init": 1e30}).fit(SKEWED)


def test_an_interrupt_of_the_search_for_a_mixture_ends_the_fit(monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(_race, "find_mixture", interrupt)
    with pytest.warns(ConvergenceWarning, match="interrupted between its runs: the best so far is kept"):
        flow = InterpolantFlow(**SMALL).fit(SKEWED)
    assert np.isfinite(flow.score(SKEWED))


def test_a_long_run_that_diverges_says_so(monkeypatch):
    trained = Selection.trained

    def diverging(self, run, settings, **kwargs):
        return None if settings.max_iter == 200 else trained(self, run, settings, **kwargs)

    monkeypatch.setattr(Selection, "trained", diverging)
    monkeypatch.setattr(Selection, "failure", FitDivergedError("at step 150"), raising=False)
    monkeypatch.setattr(Selection, "__setattr__", lambda self, k, v: k == "failure" or object.__setattr__(self, k, v))
    with pytest.raises(FitDivergedError, match="at step 150"):
        InterpolantFlow(**SMALL).fit(SKEWED)


def test_columns_that_are_normal_keep_an_affine_map():
    """A straight line for each column is the map "standardize" itself."""
    X = np.random.default_rng(0).normal(size=(300, 2))
    flow = InterpolantFlow(**SMALL).fit(X)
    assert isinstance(flow.preprocessing_, AffineMap)
    assert flow.velocity(X, 0.5).shape == X.shape
    for kind, affine in (("marginal", "standardize"), ("marginal-whiten", "whiten")):
        np.testing.assert_array_equal(
            fit_one_sample_map(X, kind).transform(X), fit_one_sample_map(X, affine).transform(X)
        )


def test_a_flow_with_a_map_of_the_columns_serves_as_a_base_density():
    base = InterpolantFlow(preprocessing="marginal", **SMALL)
    bridge = InterpolantFlow(base_density=base, preprocessing="standardize", **SMALL).fit(SKEWED, SKEWED[::2] + 1)
    assert isinstance(bridge.base_density_.preprocessing_, MarginalMap)
    assert np.isfinite(bridge.score_samples(SKEWED + 1)).all()
    with pytest.raises(ValueError, match="base density that can be differentiated"):
        bridge.log_density_gradient(SKEWED[:5])


def test_an_overfitted_or_finished_fit_is_no_reason_to_warn(recwarn):
    few = np.random.default_rng(0).normal(size=(60, 6))
    InterpolantFlow(max_iter=20 * ROUND, hidden_layer_sizes=(64, 64), tol=1e-6, random_state=0).fit(few)
    assert not [w for w in recwarn if issubclass(w.category, ConvergenceWarning)]


class Normalised(nn.Module):
    """A network with running statistics and dropout of its own."""

    def __init__(self, d, n_conditions):
        super().__init__()
        self.inner = nn.Sequential(
            nn.Linear(d + 1, 16), nn.BatchNorm1d(16), nn.SiLU(), nn.Dropout(0.1), nn.Linear(16, d)
        )

    def forward(self, t, x, condition=None):
        return self.inner(torch.cat([x, t.expand(len(x))[:, None]], 1))


def test_statistics_of_a_foreign_network_are_those_of_its_best_weights():
    X = np.random.default_rng(0).normal(size=(300, 2))
    before = torch.random.get_rng_state()
    flows = [
        InterpolantFlow(network=Normalised, preprocessing="standardize", max_iter=6 * ROUND, random_state=0).fit(X)
        for _ in range(2)
    ]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert_array_equal(flows[0].sample(3), flows[1].sample(3))
    # the score of the network that was kept is the one that was seen
    flow = flows[0]
    held = np.random.default_rng([0, FIT_STREAM]).permutation(300)[:50]
    assert flow.score(X[held]) == pytest.approx(flow.best_validation_score_, abs=0.02)
    with pytest.raises(ValueError, match=r"Got dropout=0\.2, but the network is a factory's own"):
        InterpolantFlow(network=Normalised, dropout=0.2, max_iter=5).fit(X)


def test_the_fit_is_the_same_twice():
    first, second = (InterpolantFlow(**SMALL).fit(SKEWED).sample(5) for _ in range(2))
    assert_array_equal(first, second)


# ------------------------------------------------------------------------------------ dropout


def recorded(network, t, x):
    """F in training."""
    features, inputs = network.prepare(t, x)
    return network.forward_with_cache(features, inputs)[0]


def test_dropout_leaves_the_mean_and_stops_outside_training():
    generator = torch.Generator().manual_seed(0)
    network = FiLMNetwork(2, 0, (64,), "silu", generator)
    torch.nn.init.normal_(network.output, generator=generator)
    x, t = torch.randn((1, 2), generator=generator).expand(20_000, 2), torch.full((20_000,), 0.3)
    plain = network(t, x)
    torch.testing.assert_close(recorded(network, t, x), plain)
    network.dropout, network.masks = 0.4, torch.Generator().manual_seed(1)
    torch.testing.assert_close(network(t, x), plain)
    dropped = recorded(network, t, x)
    error = dropped.std(0) / len(x) ** 0.5
    # one layer: the mean over masks is the plain value
    assert (dropped.std(0) > 0).all() and ((dropped.mean(0) - plain[0]).abs() < 4 * error).all()
    network.masks.manual_seed(1)
    torch.testing.assert_close(recorded(network, t, x), dropped)


@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_units_are_dropped_one_by_one(dropout):
    shape = torch.Size((1000, 33))
    mask = _keep_mask(shape, dropout, torch.zeros(()), torch.Generator().manual_seed(0))
    share = round(256 * dropout) / 256
    kept = mask > 0
    torch.testing.assert_close(mask[kept], torch.full_like(mask[kept], 1 / (1 - share)))
    counts = (~kept).double().mean(0)
    assert ((counts - share).abs() < 4.5 * (share * (1 - share) / 1000) ** 0.5).all()
    assert abs(torch.corrcoef(kept.double().T)[0, 1]) < 4.5 / 1000**0.5


def test_gradients_are_those_of_the_units_that_are_kept():
    network = FiLMNetwork(2, 0, (16, 12), "silu", torch.Generator().manual_seed(0)).double()
    torch.nn.init.normal_(network.output, generator=torch.Generator().manual_seed(2))
    weights = AdamWithEMA(network)
    t, x = torch.linspace(0.1, 0.9, 20).double(), torch.linspace(-1, 1, 40).double().view(20, 2)
    features, inputs = network.prepare(t, x)

    def value(step):
        network.dropout, network.masks = 0.3, torch.Generator().manual_seed(1)
        with torch.no_grad():
            weights.flat[k] += step
            output = float(network.forward_with_cache(features, inputs)[0].sum())
            weights.flat[k] -= step
        return output

    network.dropout, network.masks = 0.3, torch.Generator().manual_seed(1)
    output, tape = network.forward_with_cache(features, inputs)
    network.backward(tape, features, torch.ones_like(output))
    for k in range(0, len(weights.flat), 17):
        assert abs((value(1e-5) - value(-1e-5)) / 2e-5 - float(weights.gradient[k])) < 1e-6


@pytest.mark.parametrize(
    ("best", "steps", "stale", "far"),
    [(600, 1100, 5, False), (600, 1200, 6, True), (600, 1300, 7, False), (0, 300, 3, True), (0, 200, 2, False),
     (3000, 4200, 6, False), (3000, 4400, 6, True)],
)  # fmt: skip
def test_the_best_step_lies_far_back_after_three_rounds_and_a_third_of_what_led_to_it(best, steps, stale, far):
    assert should_check_overfitting(History(n_iter=steps, best_step=best, stale=stale)) is far


def rows_that_gain(*gains):
    """Scores of rows that are asked for in pairs, after and before: those after have gained the given ones."""
    gained = torch.tensor(gains)
    values = itertools.cycle([gained, torch.zeros_like(gained)])
    return RowScores(lambda: next(values), np.arange(len(gained)), None, Single())


def trained_with(gains, best_first=True):
    """The history of a training whose first round is the best, and what is left in the networks after it."""
    network = nn.ModuleDict({"f": nn.Linear(1, 1)})
    scores = iter([1.0 if best_first else -1.0] + [0.0] * 30)

    def loss():
        return (network["f"].weight ** 2).sum()

    settings = Settings(8, 0.01, 20 * ROUND, None, 0.0, np.inf, True, 0, "uniform")
    return train(network, loss, Scores(lambda: next(scores), gains=gains), settings)


ALIKE, UP, DOWN = (0.0,) * 10, (0.3,) * 10, (-0.3,) * 10
HEAVY_TAILED = (*(0.03,) * 9, -3.0)  # of mean -.27, which is less than twice its error


@pytest.mark.parametrize(
    ("training", "validation", "overfits"),
    [(UP, DOWN, True), (UP, ALIKE, True), (DOWN, DOWN, False), (UP, UP, False), (UP, HEAVY_TAILED, False),
     ((0.04,) * 10, ALIKE, False)],
)  # fmt: skip
def test_training_ends_where_training_rows_alone_gain_for_certain(training, validation, overfits):
    history = trained_with(Gains(*(rows_that_gain(*g) for g in (training, validation, DOWN))))
    assert history.overfitted is overfits
    assert history.n_iter == (7 if overfits else 20) * ROUND


@pytest.mark.parametrize(("last", "score"), [(DOWN, 1.0), (UP, 0.0), (HEAVY_TAILED, 0.0), (ALIKE, 1.0)])
def test_the_last_weights_are_kept_unless_the_best_are_surely_better(last, score):
    gains = Gains(rows_that_gain(*DOWN), rows_that_gain(*DOWN), rows_that_gain(*last))
    assert trained_with(gains).best_score == score


def test_errors_of_gains_are_those_of_paired_differences_by_weight():
    network = nn.ModuleDict({"f": nn.Linear(1, 1)})
    optimizer = AdamWithEMA(network)
    values = iter([torch.tensor([1.0, 5.0, 2.0]), torch.tensor([0.0, 3.0, 2.0])])
    weight = np.array([1.0, 9.0, 1.0, 2.0])
    rows = RowScores(lambda: next(values), np.array([0, 2, 3]), weight, Single())
    mean, error = rows.gain(optimizer, optimizer.ema, optimizer.ema)
    # gains 1, 2 and 0 of weights 1, 1 and 2, which tell as much as 16 / 6 equal rows, rounded
    assert mean == pytest.approx(0.75)
    assert error == pytest.approx(((1 + 4) / 4 - 0.75**2) ** 0.5 / 3**0.5)


# ----------------------------------------------------------------------------------- mixtures


def found_in(x, n_held=150, seconds=10.0, jacobian=0.0):
    """The mixture of shuffled rows, of which some are held out."""
    x = np.random.default_rng(1).permutation(x)
    train, held = x[n_held:], x[:n_held]
    jacobians = [np.full(len(part), jacobian) for part in (train, held)]
    return find_mixture(train, held, jacobians, 0, Budget(seconds, timed=False))


@pytest.mark.parametrize("n_held", [150, 30])
def test_the_mixture_of_clusters_has_their_places_and_their_density(n_held):
    found = found_in(clusters(), n_held, jacobian=0.7)
    # three components, or two of them share a cluster
    assert 3 <= found.n_components <= 4
    centres = np.array([[0, 0], [8, 0], [0, 8]])
    distances = np.linalg.norm(found.parts[1].numpy()[:, None] - centres, axis=2)
    assert set(distances.argmin(1)) == {0, 1, 2} and (distances.min(1) < 0.6).all()
    # the entropy of the clusters, log 3 + log(2 pi e / 4), and the Jacobian
    assert found.scores.mean() == pytest.approx(0.7 - np.log(3) - np.log(2 * np.pi * np.e / 4), abs=0.15)
    again, fresh = refit(found, clusters(3000), 0, Budget(10.0, timed=False)), clusters(seed=1)
    # the clusters are in order: the first rows that can be afforded must hold them all
    assert again.n_components == found.n_components
    assert again.mixture.score_samples(fresh).mean() >= found.mixture.score_samples(fresh).mean() - 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_of_one_normal_cluster_no_mixture_is_found_that_harms(seed):
    rng = np.random.default_rng(seed)
    x, fresh = rng.normal(size=(600, 3)), rng.normal(size=(5000, 3))
    found = found_in(x)
    if found is not None:
        normal = GaussianMixture(1).fit(x).score(fresh)
        assert mixture_log_density(fresh, *(part.double().numpy() for part in found.parts)).mean() > normal - 0.05


def test_a_few_rows_have_no_mixture():
    assert found_in(np.random.default_rng(0).normal(size=(20, 2)), n_held=5) is None


def test_a_search_spends_what_it_may_and_no_more():
    x = np.random.default_rng(0).normal(size=(500, 80))
    # one component of 350 rows costs 350 * 80^2 * 50 / 2e9 = .056 s and the .005 s of any fit
    assert Budget.cost(1, 350, 80) == pytest.approx(0.061)
    budget = Budget(0.15, timed=False)
    find_mixture(x[150:], x[:150], (np.zeros(350), np.zeros(150)), 0, budget)
    assert budget.spent == pytest.approx(2 * 0.061)
    assert found_in(x, seconds=0.05) is None


def test_a_budget_by_the_clock_runs_out(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(_closed_forms.time, "perf_counter", lambda: now[0])
    budget = Budget(1.0, timed=True)
    assert budget.affords(0.9)
    now[0] = 0.2
    assert not budget.affords(0.9) and budget.affords(0.8)


def test_variances_of_a_mixture_stay_positive_in_single_precision():
    thin = torch.tensor([[1.0, 1.0 - 1e-7], [1.0 - 1e-7, 1.0]])
    covariances = torch.stack([torch.block_diag(thin, torch.ones(1, 1))] * 2)
    field = MixtureVelocity(None, None, torch.tensor([0.5, 0.5]), torch.zeros(2, 3), covariances)
    assert (field.variances > 0).all()


# ----------------------------------------------------------------------------- half precision


def test_training_in_bfloat16_ends_where_training_in_single_precision_does():
    X = clusters() + 0.3 * RNG.normal(size=(600, 2)) ** 3
    settings = {"preprocessing": "whiten", "max_iter": 500, "hidden_layer_sizes": (64, 64), "random_state": 0}
    low, high = (InterpolantFlow(bf16=bf16, **settings).fit(X) for bf16 in (True, False))
    assert low.loss_curve_ != high.loss_curve_
    assert low.score(X) == pytest.approx(high.score(X), abs=0.1)
    assert all(p.dtype == torch.float32 for p in low.network_.parameters())


@pytest.mark.parametrize(
    ("widths", "instructions", "network", "expected"),
    [(128, True, "mlp", True), (64, True, "mlp", False), (128, False, "mlp", False), (128, True, Normalised, False)],
)
def test_bfloat16_is_used_where_it_pays(monkeypatch, widths, instructions, network, expected):
    monkeypatch.setattr(_runs, "has_bf16", lambda: instructions)
    seen, original = [], Batches.loss
    monkeypatch.setattr(Batches, "loss", lambda batches: seen.append(batches.low) or original(batches))
    params = {"hidden_layer_sizes": (widths,), "network": network, "preprocessing": "whiten", "max_iter": 2}
    InterpolantFlow(device="cpu", random_state=0, **params).fit(SKEWED)
    assert set(seen) == {expected}


def test_products_alone_are_in_half_precision():
    """Targets and closed forms are not: towards t = 1 those of a mixture divide by small variances."""
    distribution = [
        torch.tensor([0.4, 0.6]),
        torch.tensor([[-2.0, 0.0], [1.0, 3.0]]),
        0.01 * torch.eye(2).expand(2, 2, 2),
    ]
    path, blocks = make_interpolant("linear", None, 1.0, two_samples=False, latent_noise=False), []
    for low in (True, False):
        network = FiLMNetwork(2, 0, (8,), "silu", torch.Generator().manual_seed(0))
        fields = torch.nn.ModuleDict({"velocity": MixtureVelocity(path, network, *distribution)})
        rows = torch.randn((50, 2), generator=torch.Generator().manual_seed(0))
        sampler = Sampler(None, rows, None, independent, False)
        batches = Batches(fields, path, "uniform", sampler, 8, torch.Generator().manual_seed(0), low)
        AdamWithEMA(fields)
        assert batches.loss().dtype == torch.float32
        blocks += batches.block
    assert blocks[0].inputs.dtype == torch.bfloat16 and blocks[1].inputs.dtype == torch.float32
    for own, exact in zip(blocks[0].regression, blocks[1].regression, strict=True):
        assert (own is None) == (exact is None) and (own is None or torch.equal(own, exact))


# -------------------------------------------------------------------------- steps and widths


@pytest.mark.parametrize("n, steps", [(200, 400), (1000, 600), (50_000, 5802), (10**7, 30_000)])
def test_steps_grow_with_the_rows(n, steps):
    class Rows:
        two_samples, n_effective = False, n
        interpolant = type("Path", (), {"path_type": "one-sided", "is_learned": False})

    assert _fitting._auto_steps(Rows) == pytest.approx(steps, rel=1e-3)
    Rows.two_samples = True
    assert _fitting._auto_steps(Rows) == 3000
