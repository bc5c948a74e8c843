"""Many samples in one model: against closed forms between normal distributions, and as users call it."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import sqrtm
from scipy.stats import norm
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import estimator_checks

import sklearn_si
from sklearn_si import InterpolantDiffusion, InterpolantFlow, MultimarginalFlow, SchroedingerBridge
from sklearn_si._model.multimarginal import MultimarginalModel
from sklearn_si._training.base_density import NormalDensity
from sklearn_si._training.multimarginal import common_scaling
from sklearn_si.exceptions import NoDensityError
from sklearn_si.networks._simplex import SimplexNetwork, SimplexVelocity, SplinePath
from sklearn_si.preprocessing import AffineMap

TIMES = np.array([0.0, 1.0, 2.5, 3.0])
MEANS = np.array([[0.0, 1.0], [2.0, 0.0], [3.0, 3.0], [5.0, 2.0]])
SIZES = np.array([[1.0, 0.5], [0.6, 0.8], [0.9, 1.2], [1.4, 0.7]])
SMALL = {"max_iter": 60, "hidden_layer_sizes": (16,), "base_density": "normal", "random_state": 0}

RNG = np.random.default_rng(0)
SNAPSHOTS = [m + s * RNG.normal(size=(120, 2)) for m, s in zip(MEANS, SIZES, strict=True)]


def exact(times=TIMES, correlated=True, d=2):
    """The model of normal samples: comonotone (optimal pairs in each column), or independent."""
    m, sizes = len(MEANS), torch.as_tensor(SIZES[:, :d])
    own = torch.einsum("kd,ld->dkl", sizes, sizes)
    covariances = own if correlated else torch.diag_embed(sizes.square().T)
    covariances = covariances - 1e-6 * torch.eye(m)  # which the velocity adds
    network = SimplexNetwork(d, m, (4,), "silu", torch.Generator())
    of = SimplexVelocity(network.double(), torch.as_tensor(MEANS[:, :d]), covariances).double()
    rows = np.random.default_rng(1).normal(size=(m, 4000, d))
    density = NormalDensity()
    density.mean_, density.scale_, density.correlation_ = MEANS[0, :d], SIZES[0, :d], np.eye(d)
    flow = MultimarginalFlow(random_state=0)
    flow.model_ = MultimarginalModel(
        velocity=of.requires_grad_(False),
        scaling=AffineMap(np.zeros(d), np.ones(d)),
        samples=list(MEANS[:, None, :d] + SIZES[:, None, :d] * rows),
        labels=list(range(m)) if times is None else times.tolist(),
        times=times,
        base_density=density,
    )
    flow.n_features_in_ = d
    return flow


def at_time(t, correlated=True):
    """Mean and deviation of each column at a time."""
    alpha = SplinePath(TIMES, t, t).weights(torch.zeros((), dtype=torch.float64))[0].numpy()
    return alpha @ MEANS, np.abs(alpha @ SIZES) if correlated else np.sqrt(alpha**2 @ SIZES**2)


@pytest.fixture(scope="module")
def fitted():
    """A small fit to snapshots. Shared: tests must not change it."""
    return MultimarginalFlow(**SMALL).fit(SNAPSHOTS, times=TIMES)


@pytest.fixture(scope="module")
def groups():
    """A small fit without times. Shared: tests must not change it."""
    return MultimarginalFlow(**SMALL).fit(SNAPSHOTS[:3])


@pytest.mark.parametrize(("source", "target"), [(0.0, 3.0), (3.0, 0.4), (1.0, 1.7), (2.5, 2.5)])
def test_maps_between_normal_samples_are_exact(source, target):
    (m0, s0), (m1, s1) = at_time(source), at_time(target)
    z = np.random.default_rng(2).normal(size=(40, 2))
    assert_allclose(exact().transform(m0 + s0 * z, source, target), m1 + s1 * z, atol=2e-3)


@pytest.mark.parametrize("correlated", [True, False])
@pytest.mark.parametrize("time", [0.0, 0.5, 1.0, 1.9, 2.5, 3.0])
def test_draws_and_densities_of_normal_samples_are_exact(time, correlated):
    flow, (mean, deviation) = exact(correlated=correlated), at_time(time, correlated)
    X = mean + deviation * np.random.default_rng(3).normal(size=(30, 2))
    assert_allclose(flow.score_samples(X, time=time), norm(mean, deviation).logpdf(X).sum(1), atol=2e-3)
    drawn = flow.sample(8000, time=time)
    assert_allclose(drawn.mean(0), mean, atol=5 * deviation.max() / 8000**0.5)
    assert_allclose(drawn.std(0), deviation, rtol=0.06)


def test_the_stated_error_of_a_log_density_holds():
    flow, (mean, deviation) = exact(correlated=False), at_time(1.9, False)
    X = mean + deviation * np.random.default_rng(3).normal(size=(30, 2))
    value, error = flow.score_samples(X, time=1.9, return_error=True)
    assert (np.abs(value - norm(mean, deviation).logpdf(X).sum(1)) <= error + 1e-9).all()


def test_means_of_normal_samples_without_times_are_exact():
    flow, weights = exact(times=None), np.array([0.2, 0.5, 0.0, 0.3])
    X = flow.barycenter(weights, 8000)
    deviation = weights @ SIZES
    assert_allclose(X.mean(0), weights @ MEANS, atol=5 * deviation.max() / 8000**0.5)
    assert_allclose(X.std(0), deviation, rtol=0.06)
    z = np.random.default_rng(2).normal(size=(40, 2))
    moved = flow.transform(MEANS[3] + SIZES[3] * z, source=3, target=1)
    assert_allclose(moved, MEANS[1] + SIZES[1] * z, atol=2e-3)
    alone = flow.barycenter([0.0, 1.0, 0.0, 0.0], 8000)
    assert_allclose(alone.mean(0), MEANS[1], atol=0.06)


def test_a_trajectory_bends_as_the_neighbours_say():
    """Rows on a parabola: halfway between two snapshots the straight line is off by a quarter, the spline by little."""
    times = np.arange(5.0)
    rows = [np.random.default_rng(k).normal([t, t**2], 0.2, size=(150, 2)) for k, t in enumerate(times)]
    flow = MultimarginalFlow(**{**SMALL, "base_density": None, "max_iter": 150}).fit(rows, times)
    paths = flow.trajectory(rows[1], [1.0, 1.5, 2.0])
    assert paths.shape == (3, 150, 2)
    assert_array_equal(paths[0], rows[1])
    assert_allclose(paths[1].mean(0), [1.5, 2.25], atol=0.1)
    assert_allclose(paths[2].mean(0), [2.0, 4.0], atol=0.1)


def test_a_barycenter_of_normal_samples_is_that_of_wasserstein():
    rng = np.random.default_rng(0)
    factors = [np.array([[1.5, 0.0], [0.0, 0.5]]), np.array([[0.8, 0.6], [0.6, 1.0]]), np.array([[0.5, 0], [0, 1.4]])]
    rows = [rng.normal(size=(600, 2)) @ a for a in factors]
    weights, covariances = np.array([0.5, 0.3, 0.2]), [np.cov(x.T) for x in rows]
    s = np.eye(2)
    for _ in range(100):  # the fixed point of Agueh & Carlier (2011), (6.1)
        root = sqrtm(s).real
        s = sum(w * sqrtm(root @ c @ root).real for w, c in zip(weights, covariances, strict=True))
    flow = MultimarginalFlow(**{**SMALL, "base_density": None, "max_iter": 300}).fit(rows)
    drawn = np.cov(flow.barycenter(weights, 8000, random_state=1).T)
    assert_allclose(drawn, s, atol=0.08)


def test_densities_integrate_to_one(fitted):
    for time in (0.0, 0.6, 2.5):
        mean, deviation = at_time(time)
        grid = [np.linspace(-7, 7, 60) * s + m for m, s in zip(mean, deviation, strict=True)]
        X = np.stack(np.meshgrid(*grid, indexing="ij"), -1).reshape(-1, 2)
        cell = np.prod([g[1] - g[0] for g in grid])
        assert_allclose(np.exp(fitted.score_samples(X, time=time)).sum() * cell, 1.0, atol=0.01)


def test_maps_back_are_inverses(fitted, groups):
    moved = fitted.transform(SNAPSHOTS[0], 0.0, 2.2)
    assert np.abs(moved - SNAPSHOTS[0]).max() > 1
    assert_allclose(fitted.transform(moved, 2.2, 0.0), SNAPSHOTS[0], atol=1e-3)
    assert_allclose(groups.transform(groups.transform(SNAPSHOTS[2], 2, 1), 1, 2), SNAPSHOTS[2], atol=1e-3)


def test_defaults_of_questions_are_the_first_and_the_last(fitted):
    assert_array_equal(fitted.transform(SNAPSHOTS[0]), fitted.transform(SNAPSHOTS[0], 0.0, 3.0))
    assert_array_equal(fitted.sample(3), fitted.sample(3, time=3))
    assert fitted.score(SNAPSHOTS[3]) == fitted.score_samples(SNAPSHOTS[3], time=3.0).mean()


def test_a_flow_as_the_density_of_the_first_sample_sees_rows_of_all():
    flow = MultimarginalFlow(**{**SMALL, "base_density": "flow"}).fit(SNAPSHOTS, TIMES)
    assert isinstance(flow.base_density_, InterpolantFlow)
    for k in (0, 3):
        assert flow.score(SNAPSHOTS[k], time=TIMES[k]) == pytest.approx(
            norm(MEANS[k], SIZES[k]).logpdf(SNAPSHOTS[k]).sum(1).mean(), abs=0.5
        )


def test_rows_of_groups_are_those_of_a_list(groups):
    X, labels = np.concatenate(SNAPSHOTS[:3]), np.repeat(["x", "y", "z"], 120)
    frame = pd.DataFrame(X, columns=["a", "b"]).assign(kind=labels)
    mixed = np.random.default_rng(0).permutation(len(X))
    for rows, told in ((frame, "kind"), (X, labels)):
        flow = MultimarginalFlow(**SMALL).fit(rows, groups=told)
        assert flow.labels_ == ["x", "y", "z"]
        assert flow.times_ is None
        assert_array_equal(flow.sample(5, time="y"), groups.sample(5, time=1))
    flow = MultimarginalFlow(**SMALL).fit(frame.iloc[mixed], groups="kind", times={"z": 0.0, "x": 1.0, "y": 5.0})
    assert flow.labels_ == ["z", "x", "y"]
    assert_array_equal(flow.times_, [0, 1, 5])
    assert_array_equal(flow.feature_names_in_, ["a", "b"])
    assert_array_equal(flow.sample(4, time="x"), flow.sample(4, time=1.0))
    assert flow.set_output(transform="pandas").sample(2, time=3).columns.tolist() == ["a", "b"]


@pytest.mark.parametrize("names", [["a", "b", 7], [0, 1, 2], ["a", "b", "month"]])
def test_a_column_of_groups_may_have_a_number_as_its_name(names):
    frame = pd.DataFrame(np.column_stack([np.vstack(SNAPSHOTS[:2]), np.repeat([0, 1], len(SNAPSHOTS[0]))]))
    flow = MultimarginalFlow(**SHORT).fit(frame.set_axis(names, axis=1).astype({names[2]: int}), groups=names[2])
    assert flow.labels_ == [0, 1]
    assert flow.n_features_in_ == 2


def test_numbers_of_groups_are_times():
    frame = pd.DataFrame(np.concatenate(SNAPSHOTS), columns=["a", "b"]).assign(month=np.repeat([1, 2, 4, 7], 120))
    flow = MultimarginalFlow(**SMALL).fit(frame, groups="month")
    assert flow.labels_ == [1, 2, 4, 7]
    assert flow.sample(3, time=3.5).shape == (3, 2)


def test_samples_are_put_in_the_order_of_their_times(fitted):
    order = [2, 0, 3, 1]
    flow = MultimarginalFlow(**SMALL).fit([SNAPSHOTS[k] for k in order], TIMES[order])
    assert_array_equal(flow.sample(5, time=1.3), fitted.sample(5, time=1.3))


@pytest.mark.parametrize(("coupling", "deviation"), [("optimal", 1.0), ("independent", 0.5**0.5), ("paired", 0.5)])
def test_the_coupling_says_what_stands_halfway(coupling, deviation):
    """Rows that are paired are turned by 120 degrees: half of the sum has the variance (1 + cos 120) / 2."""
    z, turn = RNG.normal(size=(400, 2)), np.array([[-0.5, 0.75**0.5], [-(0.75**0.5), -0.5]])
    flow = MultimarginalFlow(coupling, **{**SMALL, "max_iter": 300}).fit([z, z @ turn], [0, 1])
    assert_allclose(flow.sample(4000, time=0.5).std(0), deviation, atol=0.1)


def test_samples_of_any_lengths_and_two_alone():
    flow = MultimarginalFlow(**SMALL).fit([SNAPSHOTS[0][:30], SNAPSHOTS[1], SNAPSHOTS[2][:2]], [0, 1, 2])
    assert np.isfinite(flow.sample(50, time=1.5)).all()
    two = MultimarginalFlow(**{**SMALL, "early_stopping": False}).fit(SNAPSHOTS[:2])
    assert two.validation_scores_ is None
    assert_allclose(two.transform(SNAPSHOTS[0]).mean(0), MEANS[1], atol=0.3)


def test_many_rows_are_paired_in_pools():
    rows = [np.random.default_rng(k).normal(k, 1.0, size=(2100, 1)) for k in range(3)]
    flow = MultimarginalFlow(**{**SMALL, "max_iter": 40}).fit(rows, [0, 1, 2])
    assert_allclose(flow.transform(rows[0], 0, 1), rows[0] + 1, atol=0.3)


def test_units_and_dtypes_are_those_of_the_rows(fitted):
    single = MultimarginalFlow(**SMALL).fit([X.astype(np.float32) for X in SNAPSHOTS], TIMES)
    assert single.sample(3).dtype == single.transform(SNAPSHOTS[0][:2].astype(np.float32)).dtype == np.float32
    scaled = MultimarginalFlow(**SMALL).fit([X * [1e6, 1e-6] for X in SNAPSHOTS], TIMES)
    assert_allclose(scaled.sample(5, time=1.2) / [1e6, 1e-6], fitted.sample(5, time=1.2), rtol=1e-3, atol=1e-3)


def test_maps_to_scaled_units():
    turned = [X @ np.array([[1.0, 0.7], [0.0, 1.0]]) for X in SNAPSHOTS]
    white = common_scaling(turned, "whiten")
    rows = [white.transform(X) for X in turned]
    assert_allclose(np.mean([np.cov(x.T, bias=True) for x in rows], 0), np.eye(2), atol=0.1)
    assert_allclose(np.mean([x.mean(0) for x in rows], 0), 0.0, atol=1e-9)
    plain = common_scaling([turned[0], turned[1][:60]], "standardize").scale
    assert_allclose(plain**2, (turned[0].var(0) + turned[1][:60].var(0)) / 2)
    flat = common_scaling([np.column_stack([X, np.full(len(X), 3.0)]) for X in turned], "whiten")
    assert_allclose(flat.scale[2], [0, 0, 1])
    for kind in ("whiten", None):
        flow = MultimarginalFlow(preprocessing=kind, **SMALL).fit(turned, TIMES)
        assert_allclose(flow.sample(500, time=2.5).mean(0), turned[2].mean(0), atol=1.5)


def test_a_constant_column_is_kept_without_a_density():
    rows = [np.column_stack([X, np.full(len(X), 7.0)]) for X in SNAPSHOTS]
    flow = MultimarginalFlow(**{**SMALL, "base_density": None}).fit(rows, TIMES)
    assert_allclose(flow.sample(20, time=1.4)[:, 2], 7.0, atol=0.05)
    with pytest.raises(NoDensityError, match="base_density=None"):
        flow.score_samples(rows[0])
    with pytest.raises(ValueError, match=r"Columns \[2\] of the sample 0.0 are constant.* set base_density=None"):
        MultimarginalFlow(**SMALL).fit(rows, TIMES)


def test_seeds_files_pickles_and_clones(fitted, groups, tmp_path):
    state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002 (it must stay as it is)
    again = clone(fitted).fit(SNAPSHOTS, TIMES)
    assert_array_equal(again.sample(4, time=0.7), fitted.sample(4, time=0.7))
    assert_array_equal(np.random.get_state()[1], state[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), state[1])
    assert not np.array_equal(fitted.sample(4, random_state=1), fitted.sample(4))
    for flow in (fitted, groups):
        sklearn_si.save(flow, tmp_path / "flow.si")
        for other in (sklearn_si.load(tmp_path / "flow.si"), pickle.loads(pickle.dumps(flow))):
            assert_array_equal(other.sample(4, time=1), flow.sample(4, time=1))
            assert_array_equal(other.score_samples(SNAPSHOTS[1], time=1), flow.score_samples(SNAPSHOTS[1], time=1))
            assert other.labels_ == flow.labels_


def test_a_fit_that_fails_leaves_the_one_before():
    flow = MultimarginalFlow(**SMALL).fit(SNAPSHOTS, TIMES)
    before = flow.sample(3)
    with pytest.raises(ValueError, match="times has 2 entries, but there are 4 samples"):
        flow.fit(SNAPSHOTS, [0, 1])
    assert_array_equal(flow.sample(3), before)


def test_time_is_a_limit():
    flow = MultimarginalFlow(max_time=1.0, hidden_layer_sizes=(8,), base_density="normal", random_state=0)
    assert flow.fit(SNAPSHOTS, TIMES).n_iter_ > 10


X = SNAPSHOTS[0]
FRAME = pd.DataFrame(X, columns=["a", "b"])
BAD_FITS = {
    "an array": ((X,), {}, r"Got X of class ndarray, but expected a list of samples.* or one frame or array with"),
    "a number": ((3.0,), {}, "Got X of class float, but expected a list of samples"),
    "one sample": (([X],), {}, r"Got 1 sample, labelled \[0\].* InterpolantFlow\(\)\.fit\(X\)"),
    "one row": (([X, X[:1]],), {}, r"There is 1 row in the sample 1, but expected two or more"),
    "a first of one row": (([X[:1], X],), {}, "minimum of 2 is required"),
    "other columns": (([X, X[:, :1]],), {}, r"X\[1\] has 1 features, but expected 2"),
    "missing values": (([X, np.where(X > 1, np.nan, X)],), {}, r"X\[1\] contains NaN"),
    "few times": (([X, X], [0]), {}, "times has 1 entries, but there are 2 samples"),
    "a time twice": (([X, X, X], [0, 2, 2]), {}, "times has 2 more than once: put the samples of one time together"),
    "an infinite time": (([X, X], [0, np.inf]), {}, "times has the entry inf, but a time is finite"),
    "a time of text": (([X, X], ["0", "1"]), {}, "times has '0' of class str, but expected numbers"),
    "a time of dates": (([X, X], list(np.array(["2024", "2025"], "M8[D]"))), {}, "of class datetime64, but expected"),
    "one time": (([X, X], 3.0), {}, r"Got times=3.0, but expected a list of 2 numbers"),
    "a dict for a list": (([X, X], {0: 1, 1: 2}), {}, "but expected a list of 2 numbers"),
    "pairs of unequal lengths": (([X, X[:9]],), {"coupling": "paired"}, r"they have \[120, 9\] rows: use"),
    "a list with groups": (([X, X],), {"groups": [0, 1]}, "Got a list of samples and groups"),
    "groups of an array": ((X,), {"groups": "month"}, "Got groups='month', but X has no column names"),
    "a number for an array": (
        (X,),
        {"groups": 1},
        r"X has no column names: give one label for each row, such as X\[:, 1",
    ),
    "a number for a frame": ((FRAME,), {"groups": 1}, r"Got groups=1, but the columns are \['a', 'b'\]"),
    "a truth value": ((FRAME.set_axis([0, 1], axis=1),), {"groups": True}, r"Got groups=True, but the columns are \[0"),
    "two columns": ((FRAME.set_axis(["a", "a"], axis=1),), {"groups": "a"}, "2 columns have this name"),
    "an unknown column": ((FRAME,), {"groups": "c"}, r"Got groups='c', but the columns are \['a', 'b'\]"),
    "few labels": (
        (X,),
        {"groups": [0, 1]},
        r"groups has the shape \(2,\), but expected \(120,\): one label for each row of X\.$",
    ),
    "a missing label": ((X,), {"groups": [None, *["a"] * 119]}, r"groups is missing at row 0 \(1 such rows\)"),
    "labels of two kinds": (
        (X,),
        {"groups": np.array([1, *["a"] * 119], dtype=object)},
        r"groups holds \['int', 'str'",
    ),
    "dates as labels": ((X,), {"groups": pd.date_range("2024", periods=120)}, "groups holds dates or time differences"),
    "an infinite label": ((X,), {"groups": [np.inf, *[0.0] * 119]}, "groups holds infinite numbers"),
    "one label": ((X,), {"groups": ["a"] * 120}, r"Got 1 sample, labelled \['a'\]"),
    "a list of times for groups": ((X, [0, 1]), {"groups": [0, 1] * 60}, "give a dict from each label to its time"),
    "other labels": ((X, {0: 1, 2: 3}), {"groups": [0, 1] * 60}, r"missing \[1\], unknown \[2\]"),
}


@pytest.mark.parametrize("name", BAD_FITS)
def test_fit_refuses(name):
    args, given, message = BAD_FITS[name]
    params = {"coupling": given.pop("coupling")} if "coupling" in given else {}
    with pytest.raises(ValueError, match=message):
        MultimarginalFlow(**params, **SMALL).fit(*args, **given)


BAD_QUESTIONS = {
    "a late time": (lambda f: f.sample(2, time=3.1), "Got time=3.1, but expected a time from 0 to 3"),
    "no number": (lambda f: f.score_samples(X, time=np.nan), "Got time=nan, but expected a time from 0 to 3"),
    "text": (lambda f: f.transform(X, "a"), "Got source='a', but expected a time"),
    "a truth value": (lambda f: f.transform(X, 0, True), "Got target=True, but expected a time"),
    "a count": (lambda f: f.sample(0), "Got n_samples=0, but expected an integer of at least 1"),
    "columns": (lambda f: f.transform(X[:, :1]), "1 features"),
    "weights of another length": (lambda f: f.barycenter([0.5, 0.5]), r"weights has the shape \(2,\), but expected"),
    "negative weights": (lambda f: f.barycenter([1.5, -0.5, 0, 0]), "expected finite weights of at least 0 whose sum"),
    "another sum": (lambda f: f.barycenter([1, 1, 1, 1]), "whose sum is 1: divide them by their sum"),
    "weights of text": (lambda f: f.barycenter(["a"] * 4), "but expected 4 numbers"),
    "no times": (lambda f: f.trajectory(X, 3.0), "Got times=3.0, but expected a list of times"),
}


@pytest.mark.parametrize("name", BAD_QUESTIONS)
def test_questions_refuse(fitted, name):
    ask, message = BAD_QUESTIONS[name]
    with pytest.raises(ValueError, match=message):
        ask(fitted)


def test_questions_of_time_are_refused_without_times(groups):
    with pytest.raises(ValueError, match=r"Got time=0.5, but the samples are labelled \[0, 1, 2\] and have no times"):
        groups.sample(2, time=0.5)
    with pytest.raises(ValueError, match="trajectory needs an order of the samples"):
        groups.trajectory(X, [0, 1])


@pytest.mark.parametrize("cls", [InterpolantFlow, InterpolantDiffusion, SchroedingerBridge])
def test_other_estimators_say_where_many_samples_are_learned(cls):
    for samples in ([X, X, X], [FRAME, FRAME], (X, X[:50])):
        with pytest.raises(ValueError, match=rf"a list of {len(samples)} samples.*MultimarginalFlow\(\)\.fit\("):
            cls().fit(samples)


CHECKS = [
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
    "check_estimator_repr",
    "check_estimator_cloneable",
]


@pytest.mark.parametrize("name", CHECKS)
def test_checks_of_scikit_learn_that_fit_nothing(name):
    getattr(estimator_checks, name)("MultimarginalFlow", MultimarginalFlow())


def test_parameters_are_checked_and_a_fit_is_needed():
    for params in ({"coupling": "entropic"}, {"ode_tol": 0.0}, {"base_density": 3}, {"preprocessing": "marginal"}):
        with pytest.raises(ValueError, match=rf"The '{next(iter(params))}' parameter of MultimarginalFlow must be"):
            MultimarginalFlow(**params).fit(SNAPSHOTS)
    with pytest.raises(NotFittedError):
        MultimarginalFlow().transform(X)


SHORT = {**SMALL, "max_iter": 2, "base_density": None}


@pytest.mark.parametrize("backend", ["pandas", "categorical", "polars"])
def test_ordered_categories_keep_their_order(backend):
    levels, told = ["low", "mid", "high"], np.repeat(["mid", "high", "low"], 40)
    X = np.concatenate([SNAPSHOTS[k][:40] for k in range(3)])
    categories = pd.Categorical(told, levels, ordered=True)
    if backend == "categorical":
        flow = MultimarginalFlow(**SHORT).fit(X, groups=categories)
    else:
        frame = pd.DataFrame(X, columns=["a", "b"]).assign(level=categories)
        if backend == "polars":
            pl = pytest.importorskip("polars")
            frame = pl.DataFrame({"a": X[:, 0], "b": X[:, 1], "level": pl.Series(told, dtype=pl.Enum(levels))})
        flow = MultimarginalFlow(**SHORT).fit(frame, groups="level")
    assert flow.labels_ == levels
    assert flow.times_ is None
    assert_array_equal(flow.transform(X[:3]), flow.transform(X[:3], "low", "high"))
    assert_array_equal(flow.sample(3), flow.sample(3, time="high"))


def test_ordered_numbers_in_another_order_are_no_times():
    groups = pd.Series(pd.Categorical(np.repeat([2, 1], 60), [2, 1], ordered=True))
    with pytest.raises(ValueError, match=r"ordered categories \[2, 1\], which are numbers in another order"):
        MultimarginalFlow(**SHORT).fit(X, groups=groups)
    assert MultimarginalFlow(**SHORT).fit(X, {2: 0.0, 1: 5.0}, groups=groups).labels_ == [2, 1]


@pytest.mark.parametrize("labels", [["x", "y", "z"], ["x", "x", "y"]])
def test_without_an_order_a_question_has_to_name_a_sample(labels):
    flow = MultimarginalFlow(**SHORT).fit(X, groups=np.repeat(labels, 40))
    for ask, name in ((flow.transform, "source"), (lambda X: flow.transform(X, "x"), "target"), (flow.sample, "time")):
        with pytest.raises(ValueError, match=f"have no order, so that none .* is meant by {name}="):
            ask(X) if ask != flow.sample else ask(2)
    assert np.isfinite(flow.transform(X[:2], "x", "y")).all()
    two = MultimarginalFlow(**SHORT).fit([X, X])
    assert_array_equal(two.transform(X[:2]), two.transform(X[:2], 0, 1))


def test_weights_of_a_barycenter_by_label():
    flow = MultimarginalFlow(**SHORT).fit(X, groups=np.repeat(["x", "y", "z"], 40))
    assert_array_equal(flow.barycenter({"z": 0.25, "x": 0.75}, 4), flow.barycenter([0.75, 0, 0.25], 4))
    with pytest.raises(ValueError, match=r"weights has the labels \['w'\], but the samples are \['x', 'y', 'z'\]"):
        flow.barycenter({"w": 1.0})
