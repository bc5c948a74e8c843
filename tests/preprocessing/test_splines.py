"""The smooth monotone map of a column to a normal distribution."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from scipy.integrate import quad
from scipy.stats import norm

from sklearn_si import InterpolantFlow
from sklearn_si.preprocessing import MarginalMap, fit_one_sample_map
from sklearn_si.preprocessing._splines import MonotoneSpline, Tail, fit_spline


def column(name, n=2000, seed=0):
    rng = np.random.default_rng(seed)
    draws = {
        "normal": lambda: rng.normal(3, 2, n),
        "skewed": lambda: rng.gamma(2, 1, n),
        "two-modes": lambda: rng.normal(5 * rng.integers(2, size=n), 0.5),
        "uniform": lambda: rng.uniform(-1, 1, n),
        "heavy-tails": lambda: rng.standard_t(2, n),
        "repeats": lambda: rng.integers(0, 5, n).astype(float),
        "mostly-zero": lambda: rng.gamma(2, 1, n) * (rng.uniform(size=n) < 0.2),
        "one-outlier": lambda: np.append(rng.normal(size=n - 1), 1e6),
        "wide-range": lambda: np.exp(3 * rng.normal(size=n)),
        "sentinels": lambda: np.where(rng.uniform(size=n) < 0.05, -999.0, rng.normal(size=n)),
        "few": lambda: rng.normal(size=20),
        "two-rows": lambda: rng.normal(size=2),
        "tiny": lambda: 1e-12 * rng.gamma(2, 1, n),
        "huge-offset": lambda: 1e8 + rng.gamma(2, 1, n),
    }
    return draws[name]()


NAMES = ["normal", "skewed", "two-modes", "uniform", "heavy-tails", "repeats", "mostly-zero", "one-outlier", "few",
         "wide-range", "sentinels",
         "two-rows", "tiny", "huge-offset"]  # fmt: skip


def around(x, n=400):
    """Points inside the rows, at the knots and far beyond them on either side."""
    centre, spread = np.median(x), np.quantile(x, 0.9) - np.quantile(x, 0.1) + 1e-3 * np.ptp(x)
    return centre + spread * np.concatenate([np.linspace(-2, 2, n), [-1e3, -30, 30, 1e3]])


@pytest.mark.parametrize("name", NAMES)
def test_the_map_rises_and_its_inverse_undoes_it(name):
    x = column(name)
    g, points = fit_spline(x), np.sort(around(x))
    z, log_slope = g.forward(points)
    assert np.isfinite(z).all() and np.isfinite(log_slope).all()
    assert (np.diff(z) > 0).all()
    # an error of rounding in z is one of 1 / slope in x; far out in a light tail z itself is all there is
    spacing = np.spacing(np.abs(points) + np.ptp(g.x)) + np.spacing(np.abs(z)) * np.exp(-log_slope)
    assert (np.abs(g.inverse(z) - points) <= 1e4 * spacing).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_slope_is_the_derivative(name):
    x = column(name)
    g, points = fit_spline(x), around(x)
    # away from the knots, where the second derivative jumps
    step = 1e-6 * (np.ptp(np.quantile(x, [0.1, 0.9])) + 1e-3 * np.ptp(x))
    near = np.abs(points[:, None] - g.x).min(1) < 2 * step
    points = points[~near]
    numeric = (g.forward(points + step)[0] - g.forward(points - step)[0]) / (2 * step)
    rounding = 1e-15 * (np.abs(g.forward(points)[0]) + np.abs(points) * np.exp(g.forward(points)[1])) / step
    assert_allclose(numeric, np.exp(g.forward(points)[1]), rtol=1e-5, atol=10 * rounding.max())


@pytest.mark.parametrize("name", ["normal", "skewed", "two-modes", "uniform", "heavy-tails", "mostly-zero", "few"])
def test_the_curvature_is_the_derivative_of_the_log_slope(name):
    x = column(name)
    g, points = fit_spline(x), around(x)
    step = 1e-6 * np.ptp(x)
    points = points[np.abs(points[:, None] - g.x).min(1) > 2 * step]
    numeric = (g.forward(points + step)[1] - g.forward(points - step)[1]) / (2 * step)
    assert_allclose(g.curvature(points), numeric, rtol=1e-4, atol=1e-4 * np.abs(numeric).max() + 1e-14 / step)


def test_the_gradient_of_a_log_density_is_that_of_its_differences():
    X = np.column_stack([column("skewed", 300), column("normal", 300)])
    settings = {"max_iter": 100, "hidden_layer_sizes": (16, 16), "random_state": 0, "ode_tol": 1e-6}
    model = InterpolantFlow(preprocessing="marginal-whiten", **settings).fit(X)
    points, step = X[:20], 1e-4
    numeric = [
        (model.score_samples(points + step * e) - model.score_samples(points - step * e)) / (2 * step)
        for e in np.eye(2)
    ]
    assert_allclose(model.log_density_gradient(points), np.transpose(numeric), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("name", ["normal", "skewed", "two-modes", "uniform", "heavy-tails", "mostly-zero", "few"])
def test_the_density_of_a_column_integrates_to_one(name):
    g = fit_spline(column(name))

    def density(x):
        z, log_slope = g.forward(np.array([x]))
        return float(np.exp(norm.logpdf(z) + log_slope)[0])

    inner = [quad(density, a, b, limit=200)[0] for a, b in zip(g.x[:-1], g.x[1:], strict=True)]
    tails = quad(density, -np.inf, g.x[0])[0] + quad(density, g.x[-1], np.inf)[0]
    assert sum(inner) + tails == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("shape", [None, 0.0, 0.5, 3.0])
def test_value_and_slope_of_a_tail_are_continuous_at_its_knot(shape):
    tail = Tail(2.0, 1.5, 0.7, shape)
    z, log_slope = tail.forward(np.array([2.0, 2.0 + 1e-7]))
    assert_allclose(z, [1.5, 1.5 + 0.7e-7], rtol=1e-12)
    assert_allclose(np.exp(log_slope), 0.7, rtol=1e-6)


def test_a_tail_has_the_mass_and_the_power_of_its_distribution():
    tail = Tail(2.0, 1.5, 0.7, 0.5)
    x = np.array([1e3, 1e4])
    mass = norm.sf(tail.forward(x)[0])
    # the survival function falls with the power 1 / shape
    assert np.log(mass[0] / mass[1]) == pytest.approx(2 * np.log(10), rel=0.01)
    # and a tail so far out that its mass underflows is still a number
    assert np.isfinite(Tail(0.0, 1.5, 1.0, 0.0).forward(np.array([1e6]))[0]).all()


def test_normal_rows_are_mapped_by_a_straight_line():
    chosen = [len(fit_spline(column("normal", seed=seed)).x) for seed in range(10)]
    assert np.median(chosen) == 2
    x = column("normal")
    g = fit_spline(x)
    assert_allclose(g.forward(x)[0], (x - x.mean()) / x.std(), atol=1e-9)


@pytest.mark.parametrize("name", ["skewed", "two-modes", "uniform", "heavy-tails", "wide-range"])
def test_the_density_of_fresh_rows_is_nearly_the_true_one(name):
    fresh = column(name, n=5000, seed=1)
    g = fit_spline(column(name, n=5000))
    z, log_slope = g.forward(fresh)
    own = norm.logpdf(z) + log_slope
    true = {
        "skewed": stats.gamma(2).logpdf,
        "two-modes": lambda x: np.log(0.5 * norm.pdf(x, 0, 0.5) + 0.5 * norm.pdf(x, 5, 0.5)),
        "uniform": stats.uniform(-1, 2).logpdf,
        "heavy-tails": stats.t(2).logpdf,
        "wide-range": stats.lognorm(3).logpdf,
    }[name](fresh)
    assert np.mean(true - own) < (0.03 if name == "wide-range" else 0.02)


def test_a_share_of_sentinels_leaves_the_knots_of_the_others():
    x = column("sentinels", n=5000)
    rest = column("sentinels", n=5000, seed=1)
    rest = rest[rest > -999]
    z, log_slope = fit_spline(x).forward(rest)
    assert np.mean(norm.logpdf(rest) + np.log(0.95) - norm.logpdf(z) - log_slope) < 0.03


@pytest.mark.parametrize("kind", ["marginal", "marginal-whiten"])
def test_columns_become_normal_and_their_log_determinants_add(kind):
    X = np.column_stack([column("skewed"), column("two-modes"), column("heavy-tails")])
    maps = fit_one_sample_map(X, kind)
    assert isinstance(maps, MarginalMap) and maps.n_features == 3
    Z = maps.transform(X)
    shares = [0.05, 0.25, 0.5, 0.75, 0.95]
    assert_allclose(np.quantile(Z, shares, axis=0).T, [norm.ppf(shares)] * 3, atol=0.12)
    assert_allclose(maps.inverse_transform(Z), X, rtol=1e-9, atol=1e-9)
    each = [g.forward(x)[1] for g, x in zip(maps.columns, X.T, strict=True)]
    assert_allclose(maps.log_abs_det_jacobian(X), sum(each) - maps.affine.log_abs_det, rtol=1e-12)


def test_an_outlier_of_a_million_leaves_the_density_of_the_others_alone():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 2))
    fresh = rng.normal(size=(500, 2))
    spoilt = X.copy()
    spoilt[7, 1] = 1e6
    settings = {"max_iter": 200, "hidden_layer_sizes": (32,), "random_state": 0}
    flow = InterpolantFlow(**settings).fit(spoilt)
    assert isinstance(flow.preprocessing_, MarginalMap)
    truth = norm.logpdf(fresh).sum(1).mean()
    assert flow.score(fresh) > truth - 0.15
    assert np.isfinite(flow.score_samples(spoilt)).all()
    assert np.isfinite(flow.sample(1000)).all()


FIELDS = {
    "velocity": lambda m, X: m.velocity(X, 0.5),
    "score_function": lambda m, X: m.score_function(X, 0.5),
    "denoiser": lambda m, X: m.denoiser(X, 0.5),
    "predict_target": lambda m, X: m.predict_target(X, 0.5),
    "interpolate": lambda m, X: m.interpolate(X, X, 0.5),
    "trajectory": lambda m, X: m.trajectory(X),
    "score_samples": lambda m, X: m.score_samples(X, t=0.5),
    "log_density_gradient": lambda m, X: m.log_density_gradient(X, t=0.5),
    "density_ratio": lambda m, X: m.density_ratio(X),
    "fisher_divergence": lambda m, X: m.fisher_divergence(X),
}


@pytest.mark.parametrize("name", FIELDS)
def test_fields_have_no_data_units_after_a_map_of_the_columns(name):
    X = np.column_stack([column("skewed", 100), column("normal", 100)])
    model = InterpolantFlow(preprocessing="marginal", max_iter=5, hidden_layer_sizes=(8,), random_state=0).fit(X)
    with pytest.raises(
        ValueError, match=r"no data units after a map that is not affine.*fit with preprocessing='whiten'"
    ):
        FIELDS[name](model, X)


def test_two_samples_have_no_map_of_the_columns():
    X = np.random.default_rng(0).normal(size=(30, 2))
    with pytest.raises(ValueError, match=r"Got preprocessing='marginal' for two samples.*'standardize' or 'whiten'"):
        InterpolantFlow(preprocessing="marginal", max_iter=5).fit(X, X + 1)


def test_the_spline_is_what_its_formula_says():
    g = MonotoneSpline(np.array([0.0, 1.0, 3.0]), np.array([-1.0, 0.0, 1.0]), np.array([0.5, 1.0, 0.25]),
                       Tail(0.0, 1.0, 0.5, None), Tail(3.0, 1.0, 0.25, None))  # fmt: skip
    xi, s, left, right = 0.25, 0.5, 1.0, 0.25
    expected = (s * xi**2 + left * xi * (1 - xi)) / (s + (right + left - 2 * s) * xi * (1 - xi))
    assert_allclose(g.forward(np.array([0.0, 1.0, 1.5, 3.0]))[0], [-1, 0, expected, 1], rtol=1e-12)
    assert_allclose(np.exp(g.forward(np.array([0.0, 1.0, 3.0]))[1]), [0.5, 1.0, 0.25], rtol=1e-12)
