"""Positive and bounded columns: exact densities, draws within, bridges, files, and a regressor's targets."""

import copy
import dataclasses
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.base import clone
from sklearn.preprocessing import StandardScaler

import sklearn_si
from oracles import MixtureDensity, mixture, mixture_log_density, sample_mixture, with_exact_fields
from sklearn_si import (
    InterpolantClassifier,
    InterpolantDiffusion,
    InterpolantFlow,
    InterpolantRegressor,
    SchroedingerBridge,
    TransformedDensity,
)
from sklearn_si.exceptions import IntegrationError, IntegrationWarning
from sklearn_si.outliers import DensityOutlierDetector
from sklearn_si.preprocessing import Support

TINY = {"hidden_layer_sizes": (8,), "max_iter": 15, "preprocessing": "standardize", "random_state": 0}
DECLARED = {"price": "positive", "share": (0, 1)}
BOUNDED = Support(np.array([0.0, -1.0]), np.array([np.inf, 2.0]))


def table(n=200, seed=0):
    """A price, a share and a number, which depend on each other."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    columns = {"price": np.exp(z), "share": stats.norm.cdf(z + rng.normal(size=n)), "x": z + rng.normal(size=n)}
    return pd.DataFrame(columns)


def exact(cls, support, target, *args, dtype=np.float64, **params):
    """An estimator with the exact fields of a mixture on the line, as that of rows in a support."""
    model = with_exact_fields(cls(preprocessing=None, **params), target, *args)
    model.model_ = dataclasses.replace(model.model_, dtype=np.dtype(dtype)).within(support)
    return model


# --------------------------------------------------------------------- oracles


def test_a_lognormal_density_is_exact():
    mean, sd = 0.4, 0.8
    normal = np.ones(1), np.array([[mean]]), np.array([[[sd**2]]])
    flow = exact(InterpolantFlow, Support(np.zeros(1), np.full(1, np.inf)), normal)
    x = np.exp(np.linspace(-3, 4, 21))[:, None]
    oracle = stats.lognorm(sd, scale=np.exp(mean))
    np.testing.assert_allclose(flow.score_samples(x), oracle.logpdf(x[:, 0]), atol=2e-3)
    np.testing.assert_allclose(flow.transform(x)[:, 0], (np.log(x[:, 0]) - mean) / sd, atol=5e-3)
    np.testing.assert_allclose(flow.inverse_transform(flow.transform(x)), x, rtol=1e-2)
    drawn = flow.sample(4000, random_state=0)[:, 0]
    assert stats.kstest(drawn, oracle.cdf).pvalue > 0.001


@pytest.mark.parametrize("bounds", [(0.0, np.inf), (-np.inf, 5.0), (-1.0, 2.0)])
def test_the_mass_of_a_density_is_one(bounds):
    target = mixture(np.random.default_rng(1), 3, 1, 0.7, 0.05)
    support = Support(np.array(bounds[:1]), np.array(bounds[1:]))
    flow = exact(InterpolantFlow, support, target)
    # nodes that lie evenly on the line, with their weights in data units
    line = np.linspace(-7, 7, 1001)[:, None]
    x = support.inverse_transform(line)
    mass = np.exp(flow.score_samples(x)) / support.slopes(x)[:, 0] * (line[1, 0] - line[0, 0])
    assert mass.sum() == pytest.approx(1.0, abs=1e-3)


@pytest.fixture(scope="module")
def bridge():
    rng = np.random.default_rng(2)
    base, target = mixture(rng, 2, 2, 0.8), mixture(rng, 2, 2, 0.8)
    rows = sample_mixture(rng, 500, *base)
    ends = target, base, rows, MixtureDensity(*base)
    return exact(InterpolantDiffusion, BOUNDED, *ends), base, target


def test_a_bridge_has_exact_densities_at_both_ends_and_stays_within(bridge):
    model, base, target = bridge
    X = model.sample(300, random_state=0)
    assert (X[:, 0] > 0).all() and (np.abs(X[:, 1] - 0.5) < 1.5).all()
    line = BOUNDED.transform(X)
    oracle = mixture_log_density(line, *target) + BOUNDED.log_abs_det_jacobian(X)
    np.testing.assert_allclose(model.score_samples(X), oracle, atol=5e-3)
    oracle = mixture_log_density(line, *base) + BOUNDED.log_abs_det_jacobian(X)
    np.testing.assert_allclose(model.score_samples(X, t=0.0), oracle, atol=5e-3)
    ratio = mixture_log_density(line, *target) - mixture_log_density(line, *base)
    np.testing.assert_allclose(model.density_ratio(X), ratio, atol=5e-3)
    np.testing.assert_allclose(model.inverse_transform(model.transform(X)), X, rtol=2e-2, atol=1e-3)


def test_velocity_and_gradient_are_derivatives_in_data_units(bridge):
    model, *_ = bridge
    model.set_params(ode_tol=1e-6)
    X = BOUNDED.inverse_transform(np.array([[0.3, -0.4]]))
    h = 1e-3
    moved = model.trajectory(X, 2, start=0.5, stop=0.5 + h)
    np.testing.assert_allclose((moved[1] - moved[0]) / h, model.velocity(X, 0.5), rtol=2e-3, atol=1e-3)
    model.set_params(ode_tol=1e-3)
    flow = exact(InterpolantFlow, BOUNDED, bridge[2], ode_tol=1e-7)
    numeric = [(flow.score_samples(X + h * e) - flow.score_samples(X - h * e)) / (2 * h) for e in np.eye(2)]
    np.testing.assert_allclose(flow.log_density_gradient(X), np.column_stack(numeric), rtol=1e-3, atol=1e-4)
    score = flow.score_function(X, 0.9)
    ends = [[flow.score_samples(X + sign * h * e, t=0.9) for sign in (1, -1)] for e in np.eye(2)]
    numeric = [(up - down) / (2 * h) for up, down in ends]
    np.testing.assert_allclose(score, np.column_stack(numeric), rtol=1e-3, atol=1e-4)


def test_diagnostics_find_exact_fields_exact():
    normal = np.ones(1), np.array([[0.3, -0.2]]), np.array([[[0.5, 0.2], [0.2, 0.4]]])
    flow = exact(InterpolantFlow, BOUNDED, normal, noise_level=0.5)
    X = BOUNDED.inverse_transform(np.array([[0.3, -0.4], [-1.0, 0.8]]))
    assert flow.kl_bound(X, reference=flow).unsplit < 1e-12


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("place", [-60.0, -12.0, 12.0, 60.0])
def test_extreme_draws_stay_within_in_the_dtype_of_fit(place, dtype):
    """Bounds that single precision rounds outwards, and rows at fifty deviations."""
    support = Support(np.array([0.1, -0.3, 0.0]), np.array([0.3, np.inf, 1e-3]))
    flow = exact(InterpolantFlow, support, (np.ones(1), np.full((1, 3), place), np.eye(3)[None]), dtype=dtype)
    X = flow.sample(50, random_state=0)
    assert X.dtype == dtype
    wide = X.astype(np.float64)
    assert (wide > support.low).all() and (wide < support.high).all()
    back = flow.inverse_transform(np.full((1, 3), 0.1, dtype)).astype(np.float64)
    assert (back > support.low).all() and (back < support.high).all()


def test_draws_beyond_the_largest_number_are_drawn_again_or_told():
    support = Support(np.zeros(1), np.full(1, np.inf))
    # the largest number of single precision is exp(88.7)
    some, all_of_them = (
        exact(InterpolantFlow, support, (np.ones(1), np.full((1, 1), place), np.eye(1)[None]), dtype=np.float32)
        for place in (87.0, 99.0)
    )
    with pytest.warns(IntegrationWarning, match="became infinite or NaN while sampling and were drawn again"):
        assert np.isfinite(some.sample(300, random_state=0)).all()
    with pytest.raises(IntegrationError, match="rows became infinite or NaN while sampling"):
        all_of_them.sample(300, random_state=0)


# --------------------------------------------------------------------- estimators

MODELS = {
    "flow": (InterpolantFlow, {"preprocessing": "auto"}, 1),
    "flow, marginal": (InterpolantFlow, {"preprocessing": "marginal"}, 1),
    "flow, two samples": (InterpolantFlow, {"base_density": "flow"}, 2),
    "flow, two samples, whitened": (InterpolantFlow, {"base_density": "normal", "preprocessing": "whiten"}, 2),
    "diffusion": (InterpolantDiffusion, {"n_steps": 8}, 1),
    "diffusion, two samples": (InterpolantDiffusion, {"n_steps": 8, "base_density": "normal"}, 2),
    "mirror": (InterpolantDiffusion, {"interpolant": "mirror", "n_steps": 8}, 1),
    "learned": (InterpolantFlow, {"interpolant": "learned-schedule", "base_density": None}, 2),
    "bridge": (SchroedingerBridge, {"n_rounds": 0, "n_components": 1, "base_density": "normal", "n_steps": 8}, 2),
    "bridge, mixture": (SchroedingerBridge, {"method": "mixture", "n_components": 1, "base_density": None}, 2),
    "bridge, one sample": (SchroedingerBridge, {"method": "mixture", "n_components": 1, "base_density": "normal"}, 1),
}


def fitted(name, dtype=np.float64, **params):
    cls, own, n = MODELS[name]
    rows = table().astype(dtype)
    samples = (rows,) if n == 1 else (rows[:90], rows[90:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cls(support=DECLARED, **{**TINY, **own, **params}).fit(*samples)


def within(X):
    X = np.asarray(X, dtype=np.float64)
    return bool((X[:, 0] > 0).all() and (X[:, 1] > 0).all() and (X[:, 1] < 1).all())


@pytest.mark.parametrize(("name", "dtype"), [("flow", np.float64), *((name, np.float32) for name in MODELS)])
def test_every_model_draws_and_moves_rows_within(name, dtype):
    model = fitted(name, dtype)
    X = table(30, 1).astype(dtype)
    drawn = model.sample(60)
    assert within(drawn) and drawn.dtype == dtype
    if MODELS[name][2] == 2:
        assert within(model.transform(X)) and within(model.inverse_transform(X))
        assert within(model.base_sample_) and model.base_sample_.dtype == dtype
    if "mirror" in name:
        assert within(model.resample(X))
    if isinstance(model, SchroedingerBridge):
        assert within(model.sample_plan(X)) and within(model.sample_plan(X, direction="backward"))
    elif "marginal" not in name:
        assert within(model.trajectory(X, 3)[1]) and within(model.interpolate(X, X[::-1], 0.3))
    if name not in ("mirror", "learned", "bridge, mixture"):
        assert np.isfinite(model.score_samples(X)).all()


def test_a_forecast_starts_and_ends_within():
    rows = table()
    model = InterpolantDiffusion(start="condition", support=DECLARED, n_steps=8, **TINY).fit(rows[:100], rows[100:])
    assert within(model.sample(20, condition=rows[:1]))
    with pytest.raises(ValueError, match="column 'price' of condition"):
        model.sample(1, condition=rows[:1].assign(price=-1.0))


def test_a_fit_refuses_what_is_not_within_and_says_which():
    rows = table()
    with pytest.raises(ValueError, match=r"1 of 200 values in column 'price' of X are outside .*-2 in row 7"):
        InterpolantFlow(support=DECLARED, **TINY).fit(rows.assign(price=np.where(rows.index == 7, -2.0, rows.price)))
    for model in (InterpolantFlow(support=DECLARED, **TINY), SchroedingerBridge(support=DECLARED, max_iter=5)):
        with pytest.raises(ValueError, match="column 'share' of X0 are on a bound"):
            model.fit(rows.assign(share=1.0), rows)
    with pytest.raises(ValueError, match="support names the column 'cost'"):
        InterpolantFlow(support={"cost": "positive"}, **TINY).fit(rows)
    with pytest.raises(ValueError, match="'support' parameter"):
        InterpolantFlow(support=3.0, **TINY).fit(rows)


def test_errors_number_the_rows_as_they_were_given():
    """Rows of weight zero are left out first, and then others have other numbers."""
    rows = table().reset_index(drop=True)
    rows.loc[9, "price"], weight = -2.0, np.ones(len(rows))
    rows.loc[4, "price"] = -5.0
    weight[:9] = 0.0
    expected = "such as -2 in row 9"
    with pytest.raises(ValueError, match=expected):
        InterpolantFlow(support=DECLARED, **TINY).fit(rows, sample_weight=weight)
    with pytest.raises(ValueError, match=f"of X1 .*{expected}"):
        InterpolantFlow(support=DECLARED, **TINY).fit(table(20), rows, sample_weight=weight)
    with pytest.raises(ValueError, match=f"of X0 .*{expected}"):
        InterpolantFlow(support=DECLARED, **TINY).fit(rows, table(20), sample_weight=(weight, None))
    with pytest.raises(ValueError, match=f"of X1 .*{expected}"):
        SchroedingerBridge(support=DECLARED).fit(table(20), rows, sample_weight=weight)
    paired = InterpolantFlow(coupling="paired", base_density=None, support=DECLARED, **TINY)
    with pytest.raises(ValueError, match=f"of X0 .*{expected}"):
        paired.fit(rows, table(len(rows)), sample_weight=weight)
    within = TransformedDensity(StandardScaler(with_mean=False), InterpolantFlow(support={0: "positive"}, **TINY))
    with pytest.raises(ValueError, match=r"outside its support .* in row 9"):
        within.fit(rows.to_numpy(), sample_weight=weight)
    y = rows.x.to_numpy() > 0
    with pytest.raises(ValueError, match=expected):
        InterpolantClassifier(FLOW, support=DECLARED).fit(rows, y, sample_weight=weight)
    with pytest.raises(ValueError, match=f"of y .*{expected}"):
        InterpolantRegressor(FLOW, support="positive").fit(rows[["x"]], rows.price, sample_weight=weight)


@pytest.mark.parametrize("ask", [
    "transform", "log_density_gradient", "density_ratio", "cross_entropy", "diagnose",
    "log_density_bound", "fisher_divergence",
])  # fmt: skip
def test_questions_refuse_rows_outside(ask):
    model = fitted("diffusion", preprocessing="standardize")
    with pytest.raises(ValueError, match=r"column 'price' of X0? are (on a bound of|outside) its support"):
        getattr(model, ask)(table(5).assign(price=0.0))


@pytest.mark.parametrize("likelihood", ["ode", "sde"])
def test_the_density_outside_is_zero_with_a_warning(likelihood):
    model = fitted("diffusion", preprocessing="standardize")
    model = copy.copy(model).set_params(likelihood=likelihood, n_steps=8)
    X = table(5)
    some = X.assign(price=[*X.price[:2], -1.0, 0.0, X.price[4]])
    told = "2 of 5 rows of X lie on a bound of their support or outside, such as -1 of column 'price' in row 2: their"
    with pytest.warns(UserWarning, match=told):
        value, error = model.score_samples(some, return_error=True)
    expected = model.score_samples(X)
    possible = np.array([True, True, False, False, True])
    np.testing.assert_allclose(value[possible], expected[possible], rtol=1e-9)
    assert (value[~possible] == -np.inf).all() and (error[~possible] == 0).all() and value.dtype == expected.dtype
    with pytest.warns(UserWarning, match=told):
        assert model.score(some) == -np.inf
    with pytest.warns(UserWarning, match=told):  # rows without a weight do not count
        score = model.score(some, sample_weight=possible.astype(float))
    assert score == pytest.approx(expected[possible].mean(), rel=1e-6)
    with pytest.warns(UserWarning, match="5 of 5 rows of X lie"):
        assert (model.score_samples(X.assign(share=1.0)) == -np.inf).all()


def test_rows_outside_keep_the_conditions_of_the_others_in_place():
    rows = table()
    model = InterpolantFlow(support={"price": "positive"}, **TINY)
    model.fit(rows[["price", "share"]], condition=rows[["x"]])
    some, given = rows[["price", "share"]][:6], rows[["x"]][:6]
    expected = model.score_samples(some, condition=given)
    with pytest.warns(UserWarning, match="1 of 6 rows of X lie"):
        value = model.score_samples(some.assign(price=[-1.0, *some.price[1:]]), condition=given)
    assert value[0] == -np.inf
    np.testing.assert_allclose(value[1:], expected[1:], rtol=1e-9)
    around = TransformedDensity(StandardScaler(with_mean=False), InterpolantFlow(support={0: "positive"}, **TINY))
    around.fit(rows.to_numpy())
    with pytest.warns(UserWarning, match="1 of 2 rows of X lie"):
        assert around.score_samples(rows.to_numpy()[:2] * [[-1, 1, 1], [1, 1, 1]])[0] == -np.inf
    with pytest.warns(UserWarning, match="2 of 2 rows of X lie"):
        assert around.score(-rows.to_numpy()[:2].astype(np.float32)) == -np.inf


def test_parts_of_rows_are_asked_for_within_and_given_within():
    rows = table()
    model = InterpolantFlow(support=DECLARED, conditionals="any", **TINY).fit(rows)
    some = rows[:4].assign(price=[-1.0, *rows.price[1:4]])
    expected = model.score_samples(rows[:4], given=["share"])
    with pytest.warns(UserWarning, match="1 of 4 rows of X lie .* -1 of column 'price' in row 0"):
        value = model.score_samples(some, given=["share"])
    assert value[0] == -np.inf
    np.testing.assert_allclose(value[1:], expected[1:], rtol=1e-6)
    # what neither is asked for nor given does not count
    columns = ["share"]
    np.testing.assert_array_equal(
        model.score_samples(some, columns=columns), model.score_samples(rows[:4], columns=columns)
    )
    with pytest.raises(ValueError, match="column 'price' of X are outside its support"):
        model.score_samples(some, given=["price"])


def test_fields_refuse_rows_outside_and_means_of_the_target():
    model = fitted("diffusion", preprocessing="standardize")
    X = table(5)
    for ask in (model.velocity, model.score_function, model.denoiser):
        assert np.isfinite(ask(X, 0.5)).all()
        with pytest.raises(ValueError, match="column 'share' of X are outside"):
            ask(X.assign(share=2.0), 0.5)
    with pytest.raises(ValueError, match="predict_target is a mean, which the map of a support"):
        model.predict_target(X, 0.5)


def test_zeros_of_a_count_are_dequantised():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.poisson(1.0, size=300), rng.normal(size=300)]).astype(float)
    with pytest.raises(ValueError, match="column 0 of X are on a bound"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        InterpolantFlow(support={0: "positive"}, **TINY).fit(X)
    params = {**TINY, "max_iter": 100, "hidden_layer_sizes": (32, 32)}
    flow = InterpolantFlow(support={0: "positive"}, dequantize=[0], **params).fit(X[:, :1])
    grid = flow.model_.target_grid.columns[0]
    assert grid.edges[0] == 0
    assert np.isfinite(flow.score_samples(grid.values[:, None])).all()
    drawn = flow.sample(500)
    assert np.isin(drawn, grid.values).all() and (drawn == 0).mean() == pytest.approx(np.exp(-1), abs=0.1)
    assert np.isfinite(flow.diagnose(X[:, :1]).nll)
    with pytest.warns(UserWarning, match="1 of 1 rows of X lie on a bound of their support or outside"):
        assert flow.score_samples([[-1.0]]) == -np.inf


def test_conditions_and_weights_are_as_without_a_support():
    rows = table()
    weight = np.linspace(0, 1, len(rows))
    model = InterpolantFlow(support={"price": "positive"}, **TINY)
    model.fit(rows[["price", "share"]], condition=rows[["x"]], sample_weight=weight)
    assert (model.sample(5, condition=rows[["x"]][:1])[:, 0] > 0).all()
    logs = rows[["price", "share"]].assign(price=np.log(rows.price))
    by_hand = InterpolantFlow(**TINY).fit(logs, condition=rows[["x"]], sample_weight=weight)
    asked = rows[["price", "share"]][:20], rows[["x"]][:20]
    expected = by_hand.score_samples(logs[:20], condition=asked[1]) - logs.price[:20]
    np.testing.assert_allclose(model.score_samples(asked[0], condition=asked[1]), expected, atol=1e-4)


def test_a_ratio_of_densities_is_learned_on_the_line():
    rows = table().to_numpy()
    ends = rows[:100], rows[100:] * [1.5, 1.0, 1.0]
    model, by_hand = (
        InterpolantDiffusion(support=support, base_density=None, **TINY) for support in ({0: "positive"}, "real")
    )
    logs = [X.copy() for X in ends]
    for X in logs:
        X[:, 0] = np.log(X[:, 0])
    expected = by_hand.fit(*logs).density_ratio(logs[1])
    np.testing.assert_allclose(model.fit(*ends).density_ratio(ends[1]), expected, atol=1e-4)
    with pytest.raises(ValueError, match="column 0 of X are outside"):
        model.density_ratio(-ends[1])


def test_a_base_flow_of_a_bridge_lives_on_the_line():
    """Its density plus the Jacobian is that of a fit by hand to the images."""
    rows = table().to_numpy()
    params = {"base_density": "flow", **TINY}
    model = InterpolantFlow(support={0: "positive"}, **params).fit(rows[:90], rows[90:])
    logs = rows.copy()
    logs[:, 0] = np.log(rows[:, 0])
    by_hand = InterpolantFlow(**params).fit(logs[:90], logs[90:])
    np.testing.assert_allclose(model.score_samples(rows), by_hand.score_samples(logs) - logs[:, 0], atol=1e-4)
    assert model.base_density_.support == "real"


def test_files_clones_and_names_keep_the_support(tmp_path):
    model = fitted("flow")
    model.set_output(transform="pandas")
    sklearn_si.save(model, tmp_path / "m.si")
    loaded = sklearn_si.load(tmp_path / "m.si")
    X = table(20, 1)
    np.testing.assert_array_equal(loaded.score_samples(X), model.score_samples(X))
    assert list(loaded.sample(2).columns) == ["price", "share", "x"]
    assert loaded.get_params()["support"] == DECLARED == clone(model).support
    assert (loaded.sample(20)[["price"]] > 0).all().all()


def test_the_memory_of_fits_tells_supports_apart(tmp_path):
    rows = table()
    scores = [
        InterpolantFlow(support=s, memory=tmp_path, **TINY).fit(rows).score(rows) for s in ("real", DECLARED, DECLARED)
    ]
    assert scores[0] != scores[1] == scores[2]
    assert len(list(tmp_path.rglob("*.si"))) == 2


def test_a_warm_start_keeps_its_support():
    rows = table()
    model = InterpolantFlow(support=DECLARED, warm_start=True, **TINY).fit(rows)
    assert model.fit(rows).score(rows) > -10
    with pytest.raises(ValueError, match="warm_start=True continues from a fit with Support"):
        model.set_params(support="real").fit(rows)


def test_cells_are_judged_by_integrals_over_their_support():
    """Nodes beyond the bounds would be refused; the density of a share integrates to one between them."""
    X = table(120)[["price", "share"]].to_numpy()
    flow = InterpolantFlow(support={0: "positive", 1: (0, 1)}, **TINY)
    detector = DensityOutlierDetector(flow, random_state=1).fit(X)
    values = detector.attributions(X[:3])
    shares = (np.arange(400) + 0.5) / 400
    for row, value in zip(X[:3], values, strict=True):
        others = np.column_stack([np.full(400, row[0]), shares])
        density = detector.estimator_.score_samples(others)
        expected = detector.estimator_.score_samples(row[None])[0] - np.log(np.exp(density).mean())
        assert value[1] == pytest.approx(expected, abs=0.1)


# --------------------------------------------------------------------- regression


@pytest.fixture(scope="module")
def priced():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"size": rng.uniform(size=300), "kind": rng.choice(["a", "b"], 300)})
    y = pd.Series(np.exp(-3 + 2 * X["size"] + rng.normal(size=300)), name="price")
    return X, y


FLOW = InterpolantFlow(max_iter=15, hidden_layer_sizes=(8,), preprocessing="standardize")


@pytest.mark.parametrize("params", [{"base": "normal"}, {"base": "boosting"}, {"base": "normal", "n_estimators": 2}])
def test_prices_do_not_come_out_negative_and_answers_agree(priced, params):
    X, y = priced
    model = InterpolantRegressor(FLOW, support={"price": "positive"}, random_state=0, **params).fit(X, y)
    some = X[:2]
    levels = [1e-6, 0.05, 0.5, 0.95]
    q = model.predict_quantiles(some, levels)
    assert (q > 0).all() and (np.diff(q, axis=1) > 0).all()
    for k, level in enumerate(levels):
        np.testing.assert_allclose(model.predict_cdf(some, q[:, k]), level, atol=2e-3)
    assert (model.predict(some) > 0).all() and (model.sample(some, 200, random_state=0) > 0).all()
    np.testing.assert_array_equal(model.predict_cdf(some, [-1.0, 0.0]), 0.0)
    # the density is the derivative of the distribution function, and has mass one
    h = 1e-4 * q[:, 2]
    slope = (model.predict_cdf(some, q[:, 2] + h) - model.predict_cdf(some, q[:, 2] - h)) / (2 * h)
    np.testing.assert_allclose(np.exp(model.predict_log_density(some, q[:, 2])), slope, rtol=0.05)
    line = np.linspace(-12, 8, 101)
    one = pd.concat([X[:1]] * len(line))
    mass = np.exp(model.predict_log_density(one, np.exp(line)) + line).sum() * (line[1] - line[0])
    assert mass == pytest.approx(1.0, abs=5e-3)
    with pytest.warns(UserWarning, match="1 of 2 rows of y lie on a bound .* 0 of column 'price' in row 0"):
        value = model.predict_log_density(some, [0.0, 1.0])
    assert value[0] == -np.inf
    np.testing.assert_array_equal(value[1:], model.predict_log_density(some[1:], [1.0]))
    with pytest.warns(UserWarning, match="2 of 2 rows of y .*-3 of column 'price'.*: their log-density is -inf"):
        assert np.isneginf(model.predict_log_density(some, [-3.0, np.finfo(float).min])).all()
    with pytest.warns(UserWarning, match="rows of y lie on a bound"):
        report = model.diagnose(some, np.array([-1.0, 1.0]))
    assert report.log_density == -np.inf and np.isfinite(report.crps)
    assert "-inf (1 of 2 rows cannot be)" in str(report)
    three, targets = pd.concat([some, some[:1]]), np.array([-1.0, 1.0, 2.0])
    with pytest.warns(UserWarning, match="rows of y lie on a bound"):
        told = str(model.diagnose(three, targets))
    logs = model.predict_log_density(three[1:], targets[1:])
    assert f"-inf: 1 of 3 rows cannot be; {logs.mean():.3f} +- " in told and "nan" not in told


def test_several_targets_have_supports_of_their_own(priced):
    X, y = priced
    noise = np.random.default_rng(1).normal(size=(2, len(y)))
    Y = pd.DataFrame({"price": y, "share": stats.norm.cdf(np.log(y) + noise[0]), "x": np.log(y) + noise[1]})
    model = InterpolantRegressor(FLOW, "normal", support=DECLARED, random_state=0).fit(X, Y)
    draws = model.sample(X[:5], 20, random_state=0).reshape(-1, 3)
    assert within(draws) and within(model.predict(X[:5]))
    assert within(np.vstack(model.predict_interval(X[:5])))
    assert np.isfinite(model.predict_log_density(X[:5], Y[:5])).all()


def test_targets_on_a_bound_are_refused_or_dequantised(priced):
    X, y = priced
    with pytest.raises(ValueError, match="1 of 300 values in column 'price' of y are on a bound"):
        InterpolantRegressor(FLOW, support="positive").fit(X, y.where(y.index != 3, 0.0))
    counts = np.random.default_rng(0).poisson(3 * y)
    few = InterpolantRegressor(FLOW, "normal", support="positive", random_state=0).fit(X, np.minimum(counts, 9))
    assert (few.sample(X, 3) >= 0).all()
    many = np.floor(200 * y / y.max()) // 1
    model = InterpolantRegressor(FLOW, "normal", support="positive", dequantize=[0], random_state=0).fit(X, many)
    values = np.unique(many)
    assert np.isin(model.sample(X[:9], 9), values).all()
    one = pd.concat([X[:1]] * len(values))
    grid = model.grid_.columns[0]
    mass = (np.exp(model.predict_log_density(one, values)) * grid.widths).sum()
    assert mass == pytest.approx(1.0, abs=2e-3)
    np.testing.assert_allclose(model.predict_cdf(one[-1:], values[-1:]), 1.0, atol=1e-9)


def test_a_support_of_the_flow_inside_is_refused(priced):
    X, y = priced
    with pytest.raises(ValueError, match="set support= of the estimator around it"):
        InterpolantRegressor(InterpolantFlow(support="positive")).fit(X, y)


def test_the_classes_of_a_classifier_have_densities_within(priced):
    X, y = table(), table().x.to_numpy() > 0
    model = InterpolantClassifier(FLOW, support={"price": "positive"}, random_state=0).fit(X, y)
    by_hand = InterpolantClassifier(FLOW, random_state=0).fit(X.assign(price=np.log(X.price)), y)
    logs = X.assign(price=np.log(X.price))
    np.testing.assert_allclose(model.predict_proba(X), by_hand.predict_proba(logs), atol=1e-3)
    np.testing.assert_allclose(model.score_samples(X), by_hand.score_samples(logs) - logs.price, atol=1e-3)
    some = X[:4].assign(price=[-1.0, *X.price[1:4]])
    expected = "1 of 4 rows of X lie .*, such as -1 of column 'price' in row 0: their log-density is -inf"
    with pytest.warns(UserWarning, match=expected):
        assert model.score_samples(some)[0] == -np.inf
    with pytest.warns(UserWarning, match=expected):
        p = model.predict_proba(some)
    np.testing.assert_allclose(p[0], model.class_prior_)
    np.testing.assert_array_equal(p[1:], model.predict_proba(some[1:]))
    with pytest.warns(UserWarning, match=expected):
        assert model.abstains(some, share=0.5)[0]
    with pytest.warns(UserWarning, match="too few to tell the least probable share"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "1 of 4 rows")
        assert model.abstains(some, share=1e-6).tolist() == [True, False, False, False]
    with pytest.raises(ValueError, match=r"column 'price' of X are outside .* in row 2"):
        wrong = X.assign(price=X.price.where(X.index != 2, -1))
        InterpolantClassifier(FLOW, support={"price": "positive"}).fit(wrong, y)


@pytest.mark.parametrize("support", [{"price": "positive", "share": (0, 1)}, "real"])
def test_calibrated_answers_agree_within_a_support(priced, support):
    X, y = priced
    noise = np.random.default_rng(1).normal(size=len(y))
    targets = {1: y, 2: pd.DataFrame({"price": y, "share": stats.norm.cdf(np.log(y) + noise)})}
    for n, Y in targets.items():
        own = "positive" if n == 1 and support != "real" else support
        model = InterpolantRegressor(FLOW, "normal", calibrate=True, support=own, random_state=0).fit(X, Y)
        bounds = model.predict_interval(X[:5], 0.6)
        for k, level in enumerate((0.2, 0.8)):
            held = model.predict_cdf(X[:5], bounds[:, k])
            assert (held <= 0.21).all() if k == 0 else (held >= 0.79).all(), (n, level, held)
        if support != "real":
            assert (bounds > 0).all() and (model.sample(X[:5], 9) > 0).all()
        assert np.isfinite(model.predict_log_density(X[:5], Y[:5])).all()


def test_a_regressor_with_a_support_is_saved(priced, tmp_path):
    X, y = priced
    model = InterpolantRegressor(FLOW, "normal", support={"price": (0, None)}, random_state=0).fit(X, y)
    sklearn_si.save(model, tmp_path / "r.si")
    loaded = sklearn_si.load(tmp_path / "r.si")
    np.testing.assert_array_equal(loaded.predict_interval(X[:5]), model.predict_interval(X[:5]))


def test_another_turn_of_a_circle_is_refused_with_the_way_out():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.uniform(0, 360, 60), rng.normal(size=60)])
    flow = InterpolantFlow(support={0: ("circular", 0, 360)}, max_iter=2, hidden_layer_sizes=(4,), random_state=0)
    says = r"outside its period from 0 to 360, such as .* in row 0: take them modulo the period"
    with pytest.raises(ValueError, match=says):
        flow.fit(np.vstack([[[-90.0, 0.0]], X]))
    flow.fit(X)
    for ask in (flow.score_samples, flow.transform, DensityOutlierDetector(flow, random_state=0).fit(X).predict):
        with pytest.raises(ValueError, match=says):
            ask([[720.0, 0.0], [10.0, 0.0]])
    both = flow.score_samples([[0.0, 0.5], [360.0, 0.5]])
    assert both[0] == pytest.approx(both[1])
