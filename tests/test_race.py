"""The choice of map, closed form and dropout on validation rows."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import nn

from oracles import mixture_log_density
from sklearn_si import InterpolantFlow, _closed_forms, _fitting, _race
from sklearn_si._closed_forms import fit_mixture
from sklearn_si._race import Race
from sklearn_si._training import ROUND, History, Settings, _lies_far_back, train
from sklearn_si.exceptions import FitDivergedError
from sklearn_si.networks import FiLMNetwork, MixtureVelocity
from sklearn_si.preprocessing import MarginalMap

RNG = np.random.default_rng(0)
SKEWED = np.exp(RNG.normal(size=(400, 2)))
SMALL = {"max_iter": 200, "hidden_layer_sizes": (16,), "random_state": 0}


def clusters(n=600, seed=0):
    """Three well separated normal clusters."""
    rng = np.random.default_rng(seed)
    return rng.normal([[0, 0], [8, 0], [0, 8]], 0.5, size=(n // 3, 3, 2)).reshape(-1, 2)


def test_skewed_columns_get_a_map_of_their_own():
    assert isinstance(InterpolantFlow(**SMALL).fit(SKEWED).preprocessing_, MarginalMap)


def test_the_base_of_a_bridge_lives_in_units_that_an_affine_map_leads_to():
    bridge = InterpolantFlow(**SMALL).fit(SKEWED, SKEWED[::2] + 1)
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
    trained = Race.trained

    def recording(self, run, settings):
        seen.append((run.kind, run.dropout, settings))
        return trained(self, run, settings)

    monkeypatch.setattr(Race, "trained", recording)
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


def test_of_all_runs_the_one_of_the_highest_score_is_kept(monkeypatch):
    best = []
    trained = Race.trained

    def recording(self, run, settings):
        run = trained(self, run, settings)
        best.append(run.history.best_score)
        return run

    monkeypatch.setattr(Race, "trained", recording)
    flow = InterpolantFlow(**SMALL).fit(SKEWED)
    assert len(best) > 3 and flow.best_validation_score_ == max(best)


def test_a_candidate_that_diverges_leaves_the_others(monkeypatch):
    trained = Race.trained

    def diverging(self, run, settings):
        if run.kind.startswith("marginal"):
            monkeypatch.setattr(run, "train", lambda settings: (_ for _ in ()).throw(FitDivergedError("no")))
        return trained(self, run, settings)

    monkeypatch.setattr(Race, "trained", diverging)
    assert not isinstance(InterpolantFlow(**SMALL).fit(SKEWED).preprocessing_, MarginalMap)


def test_a_fit_of_which_all_candidates_diverge_says_so():
    with pytest.raises(FitDivergedError, match="stopped being finite"):
        InterpolantFlow(**{**SMALL, "learning_rate_init": 1e30}).fit(SKEWED)


def test_an_interrupt_of_the_search_for_a_mixture_ends_the_fit(monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(_race, "fit_mixture", interrupt)
    with pytest.warns(ConvergenceWarning, match="choice of a closed form was interrupted: the best short run is kept"):
        flow = InterpolantFlow(**SMALL).fit(SKEWED)
    assert np.isfinite(flow.score(SKEWED))


def test_the_fit_is_the_same_twice():
    first, second = (InterpolantFlow(**SMALL).fit(SKEWED).sample(5) for _ in range(2))
    assert_array_equal(first, second)


# ------------------------------------------------------------------------------------ dropout


def test_dropout_leaves_the_mean_and_stops_outside_training():
    generator = torch.Generator().manual_seed(0)
    network = FiLMNetwork(2, 0, (64,), "silu", generator)
    torch.nn.init.normal_(network.output, generator=generator)
    x, t = torch.randn((1, 2), generator=generator).expand(20_000, 2), torch.tensor(0.3)
    plain = network.eval()(t, x)
    network.dropout, network.masks = 0.4, torch.Generator().manual_seed(1)
    torch.testing.assert_close(network(t, x), plain)
    dropped = network.train()(t, x)
    error = dropped.std(0) / len(x) ** 0.5
    # one layer: the mean over masks is the plain value
    assert (dropped.std(0) > 0).all() and ((dropped.mean(0) - plain[0]).abs() < 4 * error).all()
    network.masks.manual_seed(1)
    torch.testing.assert_close(network(t, x), dropped)


@pytest.mark.parametrize("stale, far", [(3, False), (4, False), (5, False), (6, True), (7, False), (9, True)])
def test_the_best_round_lies_far_back_after_three_rounds_and_a_third_of_what_led_to_it(stale, far):
    scores = [0.0, 1.0, 2.0, 3.0, *([1.5] * stale)]
    history = History(validation_scores=scores, best_score=3.0)
    assert _lies_far_back(history, stale) is far
    assert history.rounds_to_best == 4


@pytest.mark.parametrize("rises", [True, False])
def test_training_ends_where_the_score_of_training_rows_alone_rises(rises):
    network = nn.ModuleDict({"f": nn.Linear(1, 1)})
    scores, fits = iter([1.0] + [0.0] * 30), iter(range(100))

    def loss():
        return (network["f"].weight ** 2).sum()

    settings = Settings(8, 0.01, 20 * ROUND, None, 0.0, np.inf, True, 0, "uniform")
    # asked of the weights of the last round first, then of those of the best
    history = train(network, loss, lambda: next(scores), settings, fit_score=lambda: (-1) ** rises * next(fits))
    assert history.overfitted is rises
    assert history.n_iter == (7 if rises else 20) * ROUND


# ----------------------------------------------------------------------------------- mixtures


def test_the_mixture_of_clusters_has_their_places_and_their_density():
    x = torch.as_tensor(clusters())
    order = np.random.default_rng(1).permutation(600)
    found = fit_mixture(x, np.full(600, 0.7), order[:450], order[450:], 0, 10.0)
    # three components, or two of them share a cluster
    assert 3 <= len(found.parts[0]) <= 4
    centres = np.array([[0, 0], [8, 0], [0, 8]])
    distances = np.linalg.norm(found.parts[1].numpy()[:, None] - centres, axis=2)
    assert set(distances.argmin(1)) == {0, 1, 2} and (distances.min(1) < 0.6).all()
    # the entropy of the clusters, log 3 + log(2 pi e / 4), and the Jacobian
    assert found.score == pytest.approx(0.7 - np.log(3) - np.log(2 * np.pi * np.e / 4), abs=0.15)


@pytest.mark.parametrize("seed", range(3))
def test_of_one_normal_cluster_no_mixture_is_found_that_harms(seed):
    rng = np.random.default_rng(seed)
    x, fresh = rng.normal(size=(600, 3)), rng.normal(size=(5000, 3))
    found = fit_mixture(torch.as_tensor(x), np.zeros(600), np.arange(450), np.arange(450, 600), 0, 10.0)
    if found is not None:
        normal = GaussianMixture(1).fit(x[:450]).score(fresh)
        assert mixture_log_density(fresh, *(part.double().numpy() for part in found.parts)).mean() > normal - 0.04


def test_a_costly_search_stops_in_time(monkeypatch):
    tried = []
    fit = _closed_forms._fit
    monkeypatch.setattr(_closed_forms, "_fit", lambda *args: tried.append(args[2]) or fit(*args))
    x = torch.as_tensor(np.random.default_rng(0).normal(size=(500, 80)))
    assert fit_mixture(x, np.zeros(500), np.arange(400), np.arange(400, 500), 0, 0.05) is None
    # two components cost 2 * 400 * 80^2 * 50 products: .13 s
    assert set(tried) == {1}


def test_variances_of_a_mixture_stay_positive_in_single_precision():
    thin = torch.tensor([[1.0, 1.0 - 1e-7], [1.0 - 1e-7, 1.0]])
    covariances = torch.stack([torch.block_diag(thin, torch.ones(1, 1))] * 2)
    field = MixtureVelocity(None, None, torch.tensor([0.5, 0.5]), torch.zeros(2, 3), covariances)
    assert (field.variances > 0).all()


# -------------------------------------------------------------------------- steps and widths


@pytest.mark.parametrize("n, steps", [(200, 600), (1000, 1000), (50_000, 8940), (10**7, 30_000)])
def test_steps_grow_with_the_rows(n, steps):
    class Rows:
        two_samples, train1 = False, range(n)
        interpolant = type("Path", (), {"kind": "one-sided"})

    assert _fitting._auto_steps(Rows) == pytest.approx(steps, rel=1e-3)
    Rows.two_samples = True
    assert _fitting._auto_steps(Rows) == 3000
