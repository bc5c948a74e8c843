"""Ensembles: one density of several members, and intervals for the log-density of the distribution behind the rows."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

import sklearn_si
from sklearn_si import (
    InterpolantDiffusion,
    InterpolantFlow,
    InterpolantRegressor,
    SchroedingerBridge,
    TransformedDensity,
)
from sklearn_si._model.ensemble import ErrorScale
from sklearn_si._training import checkpoint
from sklearn_si._training import members as training
from sklearn_si.exceptions import FitDivergedError
from sklearn_si.networks import MixtureVelocity

RNG = np.random.default_rng(0)
X = np.concatenate([RNG.normal(-2.0, 0.5, (150, 2)), RNG.normal(1.0, 1.0, (150, 2))])
TEST = RNG.normal(size=(7, 2))
SMALL = {"max_iter": 15, "hidden_layer_sizes": (8,), "preprocessing": "standardize", "random_state": 0}


@pytest.fixture(scope="module")
def flow():
    return InterpolantFlow(n_estimators=3, **SMALL).fit(X)


@pytest.fixture(scope="module")
def parts(flow):
    return flow.estimators_


def of_members(parts, method, *args, **kwargs):
    return np.array([getattr(part, method)(*args, **kwargs) for part in parts])


def test_the_density_is_the_mean_of_those_of_the_members(flow, parts):
    logs = of_members(parts, "score_samples", TEST)
    assert np.ptp(logs, axis=0).min() > 1e-3
    np.testing.assert_allclose(flow.score_samples(TEST), logsumexp(logs, axis=0) - np.log(3), rtol=1e-12)
    assert flow.score(TEST) == pytest.approx(flow.score_samples(TEST).mean())


def test_the_density_of_an_ensemble_integrates_to_one(flow):
    axis = np.linspace(-9, 9, 91)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    mass = np.exp(flow.set_params(ode_tol=0.01).score_samples(grid)).sum() * 0.2**2
    flow.set_params(ode_tol=1e-3)
    assert mass == pytest.approx(1.0, abs=0.01)


def test_the_density_holds_at_earlier_times_too(flow, parts):
    logs = of_members(parts, "score_samples", TEST, t=0.5)
    np.testing.assert_allclose(flow.score_samples(TEST, t=0.5), logsumexp(logs, axis=0) - np.log(3), rtol=1e-12)
    # the base is the same for all
    _, width = flow.score_samples(TEST, t=0.0, return_error="model")
    assert width.max() < 1e-6


def test_fields_are_those_of_the_mixture(flow):
    # b of a mixture carries its density: d log rho_t / dt = -div b - b . s
    x, t, h = TEST[:3], 0.6, 1e-3
    flow.set_params(ode_tol=1e-6)
    slope = (flow.score_samples(x, t=t + h) - flow.score_samples(x, t=t - h)) / (2 * h)
    unit = h * np.eye(2)
    divergence = sum((flow.velocity(x + unit[j], t) - flow.velocity(x - unit[j], t))[:, j] / (2 * h) for j in range(2))
    score = np.stack(
        [(flow.score_samples(x + u, t=t) - flow.score_samples(x - u, t=t)) / (2 * h) for u in unit], axis=1
    )
    flow.set_params(ode_tol=1e-3)
    flux = divergence + (flow.velocity(x, t) * score).sum(1)
    np.testing.assert_allclose(slope, -flux, atol=2e-3)


def test_the_gradient_is_that_of_the_density(flow):
    h = 1e-4 * np.eye(2)
    flow.set_params(ode_tol=1e-7)
    slopes = [(flow.score_samples(TEST + u) - flow.score_samples(TEST - u)) / 2e-4 for u in h]
    flow.set_params(ode_tol=1e-3)
    np.testing.assert_allclose(flow.log_density_gradient(TEST), np.stack(slopes, axis=1), atol=1e-3)


def test_the_ratio_to_the_base_is_that_of_the_mixture(flow, parts):
    ratios = of_members(parts, "density_ratio", TEST)
    np.testing.assert_allclose(flow.density_ratio(TEST), logsumexp(ratios, axis=0) - np.log(3), rtol=1e-12)


def test_a_draw_is_one_of_a_member(flow):
    rows = flow.sample(3000, random_state=1)
    assert rows.shape == (3000, 2)
    assert np.array_equal(rows, flow.sample(3000, random_state=1))
    # the rank of the density of a draw among those of other draws is uniform only if both are of one distribution
    other = np.concatenate([part.sample(1000, random_state=5 + k) for k, part in enumerate(flow.estimators_)])
    assert stats.ks_2samp(flow.score_samples(rows[:1000]), flow.score_samples(other[::3])).pvalue > 0.01
    assert stats.ks_2samp(rows[:, 0], other[:, 0]).pvalue > 0.01


def test_the_members_have_rows_and_seeds_of_their_own(flow, parts):
    weights = [next(part.network_.parameters()).ravel()[:5].tolist() for part in parts]
    assert weights[0] != weights[1] != weights[2]
    assert all(part.preprocessing_ is parts[0].preprocessing_ for part in parts)
    alone = InterpolantFlow(**SMALL).fit(X)
    assert np.array_equal(alone.score_samples(TEST), parts[0].score_samples(TEST))
    assert alone.estimators_[0].model_ is alone.model_
    assert {row["training"] for row in flow.history_} == {"train", "member"}


def test_members_have_a_closed_form_of_their_own():
    rows = RNG.normal([[0, 0], [8, 0], [0, 8]], 0.5, size=(200, 3, 2)).reshape(-1, 2)
    model = InterpolantFlow(n_estimators=2, max_iter=200, hidden_layer_sizes=(8,), random_state=0).fit(rows)
    first, second = (part.network_ for part in model.estimators_)
    assert isinstance(first, MixtureVelocity)
    assert first.centres.shape == second.centres.shape
    assert not np.allclose(first.log_weights.numpy(), second.log_weights.numpy(), atol=1e-4)


def test_weights_of_rows_reach_the_members():
    weight = np.where(X[:, 0] < -0.5, 0.02, 1.0)
    model = InterpolantFlow(n_estimators=2, **{**SMALL, "max_iter": 150}).fit(X, sample_weight=weight)
    assert (model.estimators_[1].sample(400)[:, 0] < -0.5).mean() < 0.2


def test_a_condition_belongs_to_each_draw():
    told = pd.DataFrame({"side": np.where(X[:, 0] < -0.5, "left", "right")})
    model = InterpolantFlow(n_estimators=2, **{**SMALL, "max_iter": 200}).fit(X, condition=told)
    sides = pd.DataFrame({"side": ["left", "right"] * 100})
    rows = model.sample(200, condition=sides)
    assert rows[::2, 0].mean() < -1.0 < 0.0 < rows[1::2, 0].mean()
    value, width = model.score_samples(X[:4], condition=told[:4], return_error="model")
    assert np.isfinite(value).all()
    assert (width > 0).all()


def test_a_wider_spread_is_a_wider_interval(flow, parts):
    value, width = flow.score_samples(TEST, return_error="model")
    np.testing.assert_allclose(value, flow.score_samples(TEST), rtol=1e-12)
    spread = of_members(parts, "score_samples", TEST).std(0, ddof=1)
    assert np.array_equal(np.argsort(width), np.argsort(spread))
    assert (width > 0.5 * spread).all()


def test_the_larger_of_two_factors_widens_intervals_and_neither_narrows_them():
    values = np.random.default_rng(0).normal(size=(5, 50))
    rows, ones = np.linspace(0.0, 1.0, 101), np.ones(101)
    assumed = ErrorScale(1.0).half_width(values, True)
    few, many = 0.1 * rows, 20.0 * rows  # of 90 % quantiles .09 and 18
    np.testing.assert_allclose(ErrorScale(1.0).measured([few, 2 * many, many]).half_width(values, True) / 36.0,
                               ErrorScale(1.0).of_spread(values))  # fmt: skip
    assert np.array_equal(ErrorScale(1.0).measured([few]).half_width(values, True), assumed)
    assert np.array_equal(ErrorScale(1.0).measured([]).half_width(values, True), assumed)
    assert ErrorScale(1.0).measured([np.r_[ones, np.nan]]).factor == 1.0


@pytest.mark.parametrize("learned", [False, True])
def test_held_out_rows_at_the_base_tell_what_no_member_has_learned(learned, monkeypatch):
    """With no steps to speak of, all members are the same normal distribution, and so is a fit to their draws."""
    rng, found, measured = np.random.default_rng(0), [], ErrorScale.measured
    rows = rng.normal(size=(1200, 2)) if learned else rng.laplace(size=(1200, 2)) * rng.choice([0.2, 1.0], (1200, 1))

    def told(self, misses):
        found.append(misses)
        return measured(self, misses)

    monkeypatch.setattr(ErrorScale, "measured", told)
    params = {"max_iter": 3, "hidden_layer_sizes": (8,), "preprocessing": "standardize", "random_state": 0}
    model = InterpolantFlow(n_estimators=2, **params).fit(rows)
    assert len(found[0]) == (1 if learned else 2)
    if not learned:
        of_draws, at_base = (np.quantile(misses, 0.9) for misses in found[0])
        assert at_base > 3 * of_draws
        value, width = model.score_samples(rows[:300], return_error="model")
        true = laplace_mixture_log_density(rows[:300])
        assert (np.abs(value - true) < width).mean() > 0.8


def laplace_mixture_log_density(x):
    """Of rows of Laplace columns times .2 or 1."""
    return logsumexp([stats.laplace(scale=s).logpdf(x).sum(1) for s in (0.2, 1.0)], axis=0) - np.log(2)


def test_one_member_has_no_interval(parts):
    with pytest.raises(ValueError, match=r"this model has one: fit .* n_estimators=5"):
        parts[0].score_samples(TEST, return_error="model")
    bridge = SchroedingerBridge(method="mixture", n_components=1, base_density="normal", random_state=0).fit(X, X + 1)
    with pytest.raises(ValueError, match="n_estimators=5"):
        bridge.score_samples(TEST, return_error="model")


def test_another_text_is_no_kind_of_error(flow):
    with pytest.raises(ValueError, match="return_error='solver', but expected False, True or 'model'"):
        flow.score_samples(TEST, return_error="solver")


def test_a_diffusion_draws_and_scores_by_its_members():
    model = InterpolantDiffusion(n_estimators=2, n_steps=5, **SMALL).fit(X)
    assert np.isfinite(model.sample(20)).all()
    assert (model.score_samples(TEST, return_error="model")[1] > 0).all()
    with pytest.raises(ValueError, match="of SDE chains"):
        model.set_params(likelihood="sde").score_samples(TEST, return_error="model")
    with pytest.raises(ValueError, match=r"model.estimators_\[0\]"):
        model.log_density_bound(TEST)


@pytest.mark.parametrize(
    "ask",
    [
        lambda flow: flow.transform(TEST),
        lambda flow: flow.inverse_transform(TEST),
        lambda flow: flow.trajectory(TEST),
        lambda flow: flow.diagnose(TEST),
        lambda flow: flow.distill(max_iter=1),
        lambda flow: flow.rectify(max_iter=1),
    ],
)
def test_what_needs_one_flow_says_where_it_is(flow, ask):
    with pytest.raises(ValueError, match=r"mixture of 3 .* model.estimators_\[0\]"):
        ask(flow)


def test_an_ensemble_is_a_density_for_others(flow):
    bridge = InterpolantFlow(base_density=InterpolantFlow(n_estimators=2, **SMALL), **SMALL).fit(X, X + 1)
    assert np.isfinite(bridge.score_samples(TEST)).all()
    model = TransformedDensity(StandardScaler(), InterpolantFlow(n_estimators=2, **SMALL)).fit(X)
    value, width = model.score_samples(TEST, return_error="model")
    np.testing.assert_allclose(value, model.score_samples(TEST), rtol=1e-12)
    assert (width > model.score_samples(TEST, return_error=True)[1]).all()


def test_a_regressor_takes_its_own_members():
    with pytest.raises(ValueError, match=r"n_estimators=2.* InterpolantRegressor"):
        InterpolantRegressor(InterpolantFlow(n_estimators=2, **SMALL)).fit(X[:, :1], X[:, 1])


@pytest.mark.parametrize(
    ("params", "rows", "match"),
    [
        ({"base_density": None}, (X, X + 1), "learns the density of one sample"),
        ({"interpolant": "mirror"}, (X,), "'mirror' knows no density"),
        ({"conditionals": "any"}, (X,), "conditionals='any'"),
    ],
)
def test_fits_without_an_ensemble_are_refused(params, rows, match):
    with pytest.raises(ValueError, match=match):
        InterpolantFlow(n_estimators=2, **{**SMALL, "preprocessing": "standardize", **params}).fit(*rows)


def test_a_member_that_diverges_is_left_out(monkeypatch):
    make_run = training.make_run

    def diverging(*args, **kwargs):
        run = make_run(*args, **kwargs)

        def train(*args, **kwargs):
            raise FitDivergedError("it stopped being finite.")

        run.train = train
        return run

    monkeypatch.setattr(training, "make_run", diverging)
    with pytest.warns(ConvergenceWarning, match="Member 2 of the ensemble diverged and is left out: it stopped"):
        model = InterpolantFlow(n_estimators=2, **SMALL).fit(X)
    assert len(model.estimators_) == 1


def test_an_ensemble_is_saved_copied_and_recalled(flow, tmp_path):
    value, width = flow.score_samples(TEST, return_error="model")
    sklearn_si.save(flow, tmp_path / "flow.si")
    loaded = sklearn_si.load(tmp_path / "flow.si")
    for model in (
        loaded,
        clone(flow).set_params(memory=tmp_path).fit(X),
        clone(flow).set_params(memory=tmp_path).fit(X),
    ):
        again = model.score_samples(TEST, return_error="model")
        assert np.array_equal(again[0], value)
        assert np.array_equal(again[1], width)
        assert np.array_equal(model.sample(5), flow.sample(5))
    assert len(list((tmp_path / "sklearn_si").iterdir())) == 1
    InterpolantFlow(n_estimators=2, memory=tmp_path, **SMALL).fit(X)
    assert len(list((tmp_path / "sklearn_si").iterdir())) == 2


def test_a_fit_that_was_cut_off_between_its_members_continues(tmp_path, flow, monkeypatch):
    monkeypatch.setattr(checkpoint, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "_SHARE", np.inf)
    path, with_members, trained = tmp_path / "fit", training._member, []

    def cut_off(*args):
        if trained:
            raise RuntimeError("killed")
        trained.append(1)
        return with_members(*args)

    model = clone(flow).set_params(checkpoint=path)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(training, "_member", cut_off)
        model.fit(X)
    assert path.exists()
    assert np.array_equal(model.fit(X).score_samples(TEST), flow.score_samples(TEST))
    assert not path.exists()


def test_a_warm_start_continues_every_member(flow):
    model = clone(flow).set_params(warm_start=True).fit(X)
    before = of_members(model.estimators_, "score_samples", TEST)
    model.fit(X)
    after = of_members(model.estimators_, "score_samples", TEST)
    assert len(after) == 3
    assert (np.abs(after - before).max(1) > 0).all()
    assert np.abs(after - before).mean() < np.abs(before[0] - before[1]).mean() + 0.5


def test_columns_in_a_support_have_intervals_too():
    rows = np.exp(X)
    model = InterpolantFlow(n_estimators=2, support="positive", **SMALL).fit(rows)
    value, width = model.score_samples(rows[:5], return_error="model")
    np.testing.assert_allclose(value, model.score_samples(rows[:5]), rtol=1e-12)
    assert (width > 0).all()
    assert (model.sample(50) > 0).all()
    assert model.score_samples(rows[:5].astype(np.float32), return_error="model")[1].dtype == np.float32
