"""Weights of rows in fit."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats as scipy_stats
import sklearn
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.preprocessing import PowerTransformer, StandardScaler

import sklearn_si
from sklearn_si import InterpolantDiffusion, InterpolantFlow, SchroedingerBridge
from sklearn_si._training.base_density import NormalDensity
from sklearn_si._training.weighting import by_weight, first_rows
from sklearn_si._utils.weights import effective_rows, pass_by_weight, resampled, rows_by_weight
from sklearn_si.compose import TransformedDensity
from sklearn_si.preprocessing._maps import fit_one_sample_map, fit_two_sample_maps
from sklearn_si.preprocessing._splines import fit_spline
from sklearn_si.tables import TableSynthesizer

RNG = np.random.default_rng(0)
X0 = RNG.normal(size=(120, 2))
X1 = RNG.normal(1.0, 2.0, size=(150, 2))
W0 = RNG.uniform(0.2, 2.0, size=120)
W1 = RNG.uniform(0.2, 2.0, size=150)
W0[::5] = 0
W1[::4] = 0
SMALL = {"max_iter": 4, "hidden_layer_sizes": (8,), "random_state": 0, "ode_tol": 0.05}


def flow(**params):
    return InterpolantFlow(**{**SMALL, "preprocessing": "standardize", **params})


# Fits of one sample, of two, of pairs, and of a target alone, each as (estimator, samples, weights).
FITS = {
    "flow": (flow(), (X1,), W1),
    "marginal": (flow(preprocessing="marginal"), (X1,), W1),
    "chosen scaling": (flow(preprocessing="auto"), (X1,), W1),
    "mirror": (InterpolantDiffusion("mirror", **SMALL), (X1,), W1),
    "bridge": (flow(), (X0, X1), (W0, W1)),
    "target alone": (flow(base_density="normal"), (X0, X1), W1),
    "base alone": (flow(base_density=KernelDensity()), (X0, X1), (W0, None)),
    "optimal": (flow(coupling="optimal", base_density=None), (X0, X1), (W0, W1)),
    "entropic": (InterpolantDiffusion(coupling="entropic", base_density=None, **SMALL), (X0, X1), (W0, W1)),
    "paired": (flow(coupling="paired", base_density="normal"), (X1, X1 + 1), W1),
    "forecast": (InterpolantDiffusion(start="condition", **SMALL), (X1, X1 + 1), W1),
    "schroedinger": (
        SchroedingerBridge(method="network", n_components=2, base_density=None, **SMALL), (X0, X1), (W0, W1),
    ),
    "schroedinger mixture": (
        SchroedingerBridge(method="mixture", n_components=2, base_density=None, random_state=0), (X0, X1), (W0, W1),
    ),
    "schroedinger from a normal": (
        SchroedingerBridge(method="network", n_components=1, n_rounds=1, base_density=None, **SMALL), (X1,), W1,
    ),
    "transformed": (TransformedDensity(StandardScaler(), flow()), (X1,), W1),
    "transformed bridge": (TransformedDensity(PowerTransformer(), flow(base_density=None)), (X0, X1), (W0, W1)),
    "transformed pairs": (
        TransformedDensity(StandardScaler(), flow(coupling="paired", base_density=None)), (X1, X1 + 1), W1,
    ),
}  # fmt: skip


def answers(model):
    start = X1[:3] if "start" in model.get_params() and model.start == "condition" else None
    rows = model.sample(3, condition=start, random_state=1)
    knows = getattr(model, "base_density", None) is not None and start is None
    knows = knows and getattr(model, "interpolant", "") != "mirror"
    return np.concatenate([rows.ravel(), model.score_samples(X1[:3]) if knows else []])


def kept(samples, weights):
    """The rows with a weight, and their weights."""
    pair = isinstance(weights, tuple)
    paired = len(samples) == 1 or len(samples[0]) == len(samples[1])
    both = weights if pair else (weights if paired else None, weights)
    both = both[-len(samples) :]
    rows = [slice(None) if w is None else w > 0 for w in both]
    left = tuple(None if w is None else w[w > 0] for w in both)
    return [X[r] for X, r in zip(samples, rows, strict=True)], left if pair else left[-1]


@pytest.mark.parametrize("name", FITS)
def test_zero_weights_are_rows_left_out_to_the_bit(name):
    estimator, samples, weights = FITS[name]
    rows, left = kept(samples, weights)
    with_zeros = clone(estimator).fit(*samples, sample_weight=weights)
    without = clone(estimator).fit(*rows, sample_weight=left)
    assert np.array_equal(answers(with_zeros), answers(without))


@pytest.mark.parametrize("name", FITS)
def test_equal_weights_are_no_weights_to_the_bit_and_others_are_not(name):
    estimator, samples, weights = FITS[name]
    rows, left = kept(samples, weights)
    pair = isinstance(left, tuple)
    equal = tuple(None if w is None else np.full(len(w), 2.5) for w in left) if pair else left * 0 + 7
    plain = answers(clone(estimator).fit(*rows))
    assert np.array_equal(answers(clone(estimator).fit(*rows, sample_weight=equal)), plain)
    assert not np.array_equal(answers(clone(estimator).fit(*rows, sample_weight=left)), plain)


def test_rows_of_weight_zero_are_not_looked_at():
    X, condition, weight = X1.copy(), np.array(["a", "b"] * 75), np.ones(150)
    X[3], condition[3], weight[3] = np.nan, "never", 0
    frame = pd.DataFrame(X, columns=["x", "y"])
    model = flow().fit(frame, condition=condition, sample_weight=weight)
    assert list(model.feature_names_in_) == ["x", "y"]
    with pytest.raises(ValueError, match="never"):
        model.sample(1, condition=["never"])


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_frames_of_any_library_lose_their_rows_of_weight_zero(library):
    columns = {"x": X1[:, 0], "y": X1[:, 1]}
    if library == "pandas":
        frame = pd.DataFrame(columns, index=np.arange(150) % 7)
    else:
        module = pytest.importorskip(library)
        frame = module.DataFrame(columns) if library == "polars" else module.table(columns)
    condition = frame[["x"]] if library != "pyarrow" else frame.select(["x"])
    model = flow().fit(frame, condition=condition, sample_weight=W1)
    rows = W1 > 0
    without = flow().fit(X1[rows], condition=X1[rows, :1], sample_weight=W1[rows])
    assert np.array_equal(model.sample(2, condition={"x": 3.0}), without.sample(2, condition=[3.0]))


@pytest.mark.parametrize(
    ("samples", "weights", "message"),
    [
        (
            (X1,),
            W1[:-1],
            r"sample_weight has the shape \(149,\), but expected \(150,\): .* row of X\.",
        ),
        ((X1,), -W1, r"sample_weight is -.* at row 1 of X \(112 such rows\)"),
        ((X1,), np.where(W1 > 1, np.nan, W1), "sample_weight is nan at row"),
        ((X1,), W1 * 0, "sample_weight is 0 at every row of X"),
        ((X1,), ["heavy"] * 150, "sample_weight has a value that is not a number"),
        ((X1,), (W0, W1), "sample_weight is a pair, but fit was given one sample"),
        ((X0, X1), W0, r"sample_weight has the shape \(120,\), but expected \(150,\): one weight for each row of X1"),
        ((X0, X1), (W1, W1), r"sample_weight\[0\] has the shape \(150,\), but expected \(120,\): one .* row of X0"),
        ((X0, X1), (W0, W1 + np.inf), r"sample_weight\[1\] is inf at row"),
    ],
)
@pytest.mark.parametrize(
    "estimator", [flow(), SchroedingerBridge(method="network"), TransformedDensity(StandardScaler(), flow())]
)
def test_weights_that_mean_nothing_are_refused(estimator, samples, weights, message):
    with pytest.raises(ValueError, match=message):
        clone(estimator).fit(*samples, sample_weight=weights)


def test_pairs_have_one_weight():
    with pytest.raises(ValueError, match="one array, a weight for each pair"):
        flow(coupling="paired").fit(X1, X1 + 1, sample_weight=(W1, W1))


def test_a_transformed_estimator_without_weights_is_named():
    class Unweighted(InterpolantFlow):
        def fit(self, X0, X1=None, *, condition=None):
            return super().fit(X0, X1, condition=condition)

    with pytest.raises(ValueError, match="the fit of Unweighted takes none"):
        TransformedDensity(StandardScaler(), Unweighted(**SMALL)).fit(X1, sample_weight=W1)


def test_weights_are_routed_to_fit_and_to_score():
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = flow().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        search = GridSearchCV(estimator, {"n_steps": [2]}, cv=2).fit(X1, sample_weight=W1)
    assert np.array_equal(search.best_estimator_.sample(3), flow(n_steps=2).fit(X1, sample_weight=W1).sample(3))
    assert flow().fit_transform(X1, sample_weight=W1).shape == X1.shape


def test_memory_and_checkpoints_tell_weights_apart(tmp_path):
    kept_fit = flow(memory=tmp_path).fit(X1, sample_weight=W1)
    files = set((tmp_path / "sklearn_si").iterdir())
    again = flow(memory=tmp_path).fit(X1, sample_weight=4 * W1)  # only ratios count
    assert set((tmp_path / "sklearn_si").iterdir()) == files
    assert np.allclose(again.sample(3), kept_fit.sample(3))
    flow(memory=tmp_path).fit(X1, sample_weight=W1**2)
    assert len(set((tmp_path / "sklearn_si").iterdir())) == 2


def test_a_file_keeps_the_weights_of_the_base(tmp_path):
    model = flow(base_density=None).fit(X0, X1, sample_weight=(W0, None))
    sklearn_si.save(model, tmp_path / "model.si")
    assert np.array_equal(sklearn_si.load(tmp_path / "model.si").sample(5), model.sample(5))


def test_base_rows_are_drawn_by_weight():
    base = np.repeat([[0.0, 0.0], [50.0, 50.0]], 40, axis=0) + 0.1 * RNG.normal(size=(80, 2))
    weight = np.repeat([9.0, 1.0], 40)
    model = flow(base_density=None, max_iter=2).fit(base, X1, sample_weight=(weight, None)).model_
    rows = model.base_map.inverse_transform(
        model.base_rows(4000, torch.Generator().manual_seed(0), np.float64).double().numpy()
    )
    assert abs((rows[:, 0] > 25).mean() - 0.1) < 4 * np.sqrt(0.09 / 4000)


# -- the parts


def test_rows_are_drawn_in_proportion_to_their_weights():
    weight, n = np.array([1.0, 2.0, 0.5, 4.5]), 80_000
    generator = torch.Generator().manual_seed(0)
    counts = torch.bincount(rows_by_weight(torch.as_tensor(weight), n, generator), minlength=4).numpy() / n
    assert np.abs(counts - weight / 8).max() < 4 * np.sqrt(0.25 / n)
    order = pass_by_weight(torch.as_tensor(weight), generator)
    assert set(np.bincount(order.numpy(), minlength=4) - np.floor(weight / 2)) <= {0, 1}
    many = np.tile(weight, 50)
    counts = np.bincount(resampled(many, 800, np.random.default_rng(0)), minlength=200)
    assert (np.abs(counts - 4 * many / 2) <= 1).all()


def test_copies_of_a_row_are_in_one_fold():
    drawn = resampled(np.arange(1.0, 101.0) ** 3, 500, np.random.default_rng(0), folds=5)
    assert len(np.unique(drawn)) < len(drawn)
    assert [set(drawn[k::5] % 5) for k in range(5)] == [{k} for k in range(5)]


def test_one_row_can_be_resampled():
    assert list(resampled(np.array([3.0]), 2, np.random.default_rng(0), folds=5)) == [0, 0]


def test_rows_for_what_takes_no_weights_are_as_many_as_there_are():
    weight, rows = np.exp(np.linspace(0, 4, 200)), np.arange(50, 200)
    drawn = by_weight(weight, rows, 1000, seed=0)
    # fewer would lose what systematic resampling keeps: each row within one of its share
    assert len(drawn) == len(rows)
    share = weight[rows] / weight[rows].sum() * len(rows)
    assert (np.abs(np.bincount(drawn, minlength=200)[rows] - share) <= 1).all()
    assert np.array_equal(by_weight(None, rows, 30, seed=0), rows[:30])


def test_a_round_is_validated_on_rows_that_tell_as_much_as_equal_ones():
    weight, rows = np.tile([0.1, 1.9], 500), np.arange(1000)
    some = first_rows(weight, rows, 100)
    assert effective_rows(len(some), weight[some]) == pytest.approx(100, abs=1)
    assert np.array_equal(first_rows(weight, rows, 5000), rows)
    assert np.array_equal(first_rows(None, rows, 7), rows[:7])


def test_the_effective_sample_size_is_that_of_kish():
    assert effective_rows(4, np.array([1.0, 1.0, 1.0, 1.0])) == 4
    assert effective_rows(3, np.array([1.0, 1.0, 0.0])) == 2
    assert effective_rows(7, None) == 7


def spread(scaling):
    """D D^T of an affine map, which the signs of its axes leave alone."""
    scale = np.diag(scaling.scale) if scaling.scale.ndim == 1 else scaling.scale
    return scale @ scale.T


@pytest.mark.parametrize("kind", ["standardize", "whiten"])
def test_maps_of_weighted_rows_are_those_of_repeated_rows(kind):
    X, counts = RNG.normal(size=(4000, 2)) @ [[1, 0.5], [0, 1]], RNG.integers(1, 5, size=4000)
    weighted = fit_one_sample_map(X, kind, counts * 1.0)
    plain = fit_one_sample_map(np.repeat(X, counts, axis=0), kind)
    # the shrinkage of "whiten" depends on the number of rows, 1 / n
    near = 1e-10 if kind == "standardize" else 0.01
    assert np.allclose(weighted.centre, plain.centre, atol=1e-10)
    assert np.allclose(spread(weighted), spread(plain), atol=near)
    maps = fit_two_sample_maps(X0, X, kind, weights=(None, counts * 1.0))
    both = fit_two_sample_maps(X0, np.repeat(X, counts, axis=0), kind)
    assert np.allclose(maps[1].centre, both[1].centre, atol=1e-10)
    assert np.allclose(spread(maps[1]), spread(both[1]), atol=near)


def test_a_spline_of_weighted_values_follows_the_reweighted_distribution():
    x = np.random.default_rng(1).uniform(-4, 4, size=20_000)
    weight = np.exp(-0.5 * (np.abs(x) - 2) ** 2 / 0.3**2)  # two humps at -2 and 2
    z, _ = fit_spline(x, weight).forward(np.sort(x))
    share = np.cumsum(weight[np.argsort(x)]) / weight.sum()
    inner = (share > 0.01) & (share < 0.99)
    assert np.abs(scipy_stats.norm.cdf(z)[inner] - share[inner]).max() < 0.02


def test_a_normal_base_density_has_weighted_moments():
    counts = RNG.integers(1, 5, size=len(X1))
    weighted = NormalDensity().fit(X1, sample_weight=counts / counts.mean())
    repeated = NormalDensity().fit(np.repeat(X1, counts, axis=0))
    assert np.allclose(weighted.mean_, repeated.mean_)
    assert np.allclose(weighted.correlation_, repeated.correlation_)


# -- what is learned


def mixture(rng, n, share):
    """Rows of two normal distributions in the plane, and their log-density."""
    left = rng.random(n) < share
    return rng.normal(size=(n, 2)) * [0.6, 1.0] + np.where(left, -2.0, 2.0)[:, None] * [1, 0]


def log_density(X, share):
    parts = [scipy_stats.norm.logpdf(X[:, 0], centre, 0.6) + scipy_stats.norm.logpdf(X[:, 1]) for centre in (-2.0, 2.0)]
    return np.logaddexp(np.log(share) + parts[0], np.log(1 - share) + parts[1])


def test_a_reweighted_mixture_is_learned_as_from_fresh_rows_of_the_effective_sample_size():
    rng = np.random.default_rng(0)
    X = mixture(rng, 1500, 0.5)
    weight = np.exp(log_density(X, 0.85) - log_density(X, 0.5))
    fresh = mixture(rng, round(effective_rows(len(X), weight)), 0.85)
    test = mixture(rng, 1000, 0.85)
    estimator = InterpolantFlow(max_iter=300, hidden_layer_sizes=(32, 32), random_state=0)
    truth = log_density(test, 0.85).mean()
    weighted = truth - clone(estimator).fit(X, sample_weight=weight).score(test)
    plain = truth - clone(estimator).fit(fresh).score(test)
    unweighted = truth - clone(estimator).fit(X).score(test)
    assert weighted < plain + 0.02  # nats
    assert unweighted > weighted + 0.1  # what the weights are for


def test_integer_weights_are_repeated_rows_within_the_spread_of_seeds():
    rng = np.random.default_rng(0)
    X, counts = mixture(rng, 300, 0.5), rng.integers(1, 4, size=300)
    test = mixture(rng, 500, 0.5)

    def scores(*data, **given):
        estimators = (InterpolantFlow(max_iter=100, hidden_layer_sizes=(16,), random_state=k) for k in range(4))
        return np.array([estimator.fit(*data, **given).score(test) for estimator in estimators])

    weighted, repeated = scores(X, sample_weight=counts), scores(np.repeat(X, counts, axis=0))
    error = np.hypot(weighted.std(ddof=1), repeated.std(ddof=1))
    assert abs(weighted.mean() - repeated.mean()) < 3 * error + 0.02


# -- tables


def table(rng, n):
    """A table whose columns depend on each other, and weights of its rows that depend on two of them."""
    kind = rng.choice(["a", "b", "c"], size=n, p=[0.5, 0.3, 0.2])
    value = rng.normal(size=n) + 2.0 * (kind == "b")
    frame = pd.DataFrame({"kind": kind, "value": value, "flag": rng.random(n) < 0.3})
    return frame, np.where(kind == "a", 0.2, 1.0) * np.exp(0.4 * value)


TABLE, TABLE_WEIGHT = table(np.random.default_rng(0), 400)


def small_table(seed=0, max_iter=3):
    return TableSynthesizer(max_iter=max_iter, flow=flow(preprocessing="standardize"), random_state=seed)


def test_zero_and_equal_weights_of_a_table_are_rows_left_out_and_no_weights():
    weight = TABLE_WEIGHT.copy()
    weight[::3] = 0
    kept_rows = weight > 0
    fit = small_table().fit(TABLE, sample_weight=weight)
    alike = small_table().fit(TABLE[kept_rows], sample_weight=weight[kept_rows])
    assert fit.sample(20).equals(alike.sample(20))
    plain = small_table().fit(TABLE[kept_rows])
    assert small_table().fit(TABLE, sample_weight=(weight > 0) * 3).sample(20).equals(plain.sample(20))
    assert not fit.sample(20).equals(plain.sample(20))


@pytest.mark.parametrize("weight", [TABLE_WEIGHT[1:], -TABLE_WEIGHT, TABLE_WEIGHT * 0])
def test_weights_of_a_table_that_mean_nothing_are_refused(weight):
    with pytest.raises(ValueError, match="sample_weight"):
        small_table().fit(TABLE, sample_weight=weight)


def test_a_table_scores_by_weight():
    model = small_table().fit(TABLE)
    weight = (np.arange(len(TABLE)) < 10) * 2.0
    assert model.score(TABLE, sample_weight=weight) == pytest.approx(model.score_samples(TABLE[:10]).mean())


def test_drawn_rows_of_a_table_have_the_weighted_margins():
    frame, weight = table(np.random.default_rng(1), 2000)
    estimator = TableSynthesizer(flow=InterpolantFlow(max_iter=150, hidden_layer_sizes=(32,)), max_iter=200)
    drawn = estimator.set_params(random_state=0).fit(frame, sample_weight=weight).sample(4000)
    rows = effective_rows(len(frame), weight)
    share = weight / weight.sum()
    for level in "abc":
        wanted = share[frame["kind"] == level].sum()
        error = np.sqrt(wanted * (1 - wanted) * (1 / rows + 1 / 4000))
        assert abs((drawn["kind"] == level).mean() - wanted) < 4 * error
    mean = share @ frame["value"]
    deviation = np.sqrt(share @ (frame["value"] - mean) ** 2)
    error = deviation * np.sqrt(1 / rows + 1 / 4000)
    assert abs(drawn["value"].mean() - mean) < 4 * error
    assert abs(frame["value"].mean() - mean) > 8 * error  # what the weights are for


def test_weights_of_a_range_beyond_the_floats_are_refused():
    with pytest.raises(ValueError, match=r"sample_weight goes from 1e-300 to 1e\+300, a ratio that is zero"):
        InterpolantFlow().fit(np.eye(9), sample_weight=np.r_[1e300, np.full(8, 1e-300)])
