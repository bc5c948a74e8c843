"""The maps between data units and scaled units, the checks for a density, the density of a base."""

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal, norm
from sklearn.base import clone
from sklearn.mixture import GaussianMixture

from sklearn_si import InterpolantDiffusion, InterpolantFlow
from sklearn_si._training.base_density import BASE_DENSITIES, NormalDensity, fit_base_density
from sklearn_si._training.checkpoint import NO_CHECKPOINT
from sklearn_si._utils.callbacks import NO_TASKS
from sklearn_si.preprocessing import AffineMap, fit_one_sample_map, fit_two_sample_maps
from sklearn_si.preprocessing._maps import check_has_density

KINDS = ["standardize", "whiten", None]


def rows(n=200, d=3, seed=0):
    """Correlated rows of spread one and small means."""
    rng = np.random.default_rng(seed)
    mixing = np.eye(d) + 0.5 * np.tril(np.ones((d, d)), -1)
    return rng.normal(size=(n, d)) @ mixing.T / np.sqrt((mixing**2).sum(axis=1)) + rng.normal(size=d)


def scales(d):
    """From 1e-12 to 1e12, rising, so that units differ as much as they ever do."""
    return np.logspace(-12, 12, d) if d > 1 else np.array([1e-12])


SAMPLES = {
    "one-column": rows(d=1),
    "small": rows(d=3),
    "wide": rows(n=60, d=12),
    "fewer-rows-than-columns": rows(n=5, d=20),
    "two-rows": rows(n=2, d=3),
    "units": rows(d=5) * scales(5),
    "tiny-column": rows(d=1) * 1e-12,
    "huge-column": rows(d=1) * 1e12,
    "offset": rows(d=3) + 1e8,
}

MAPS = {
    "affine-diagonal": (AffineMap(np.array([1.0, -2.0]), np.array([0.1, 30.0])), rows(d=2)),
    "affine-negative": (AffineMap(np.array([1.0, -2.0]), np.array([-0.1, 30.0])), rows(d=2)),
    "affine-full": (AffineMap(np.array([1.0, -2.0]), np.array([[0.0, 2.0], [-0.5, 1.0]])), rows(d=2)),
    **{f"{name}-{kind}": (fit_one_sample_map(X, kind), X) for name, X in SAMPLES.items() for kind in KINDS},
    **{
        f"{name}-{end}": (maps[end == "target"], X)
        for name, X in SAMPLES.items()
        for maps in [fit_two_sample_maps(X[: (len(X) + 1) // 2 + 1], X, "standardize")]
        for end in ("base", "target")
    },
}


@pytest.fixture(params=MAPS)
def map_and_rows(request):
    return MAPS[request.param]


def spread(X):
    """The size of a rounding error that matters, a column."""
    return np.maximum((X - X[0]).std(axis=0), 1e-7 * np.abs(X).max(axis=0))


# ------------------------------------------------------------------------------- affine maps


def test_maps_invert_each_other(map_and_rows):
    scaling, X = map_and_rows
    there = scaling.transform(X)
    assert there.dtype == np.float64 and np.isfinite(there).all()
    assert_allclose((scaling.inverse_transform(there) - X) / spread(X), 0, atol=1e-9)
    # the other way round, from the scaled rows; offsets of 1e8 cost eight digits
    size = np.abs(there).max() * max(1, np.abs(scaling.centre / spread(X)).max())
    assert_allclose(scaling.transform(scaling.inverse_transform(there)), there, rtol=0, atol=1e-9 * size)


def test_log_abs_det_jacobian_is_that_of_the_differences(map_and_rows):
    scaling, X = map_and_rows
    # an affine map: differences of any size are exact but for rounding
    size = np.abs(scaling.scale).max(axis=1) if scaling.scale.ndim == 2 else np.abs(scaling.scale)
    steps = np.maximum(size, np.abs(scaling.centre))  # no digits lost against the centre
    differences = scaling.transform(scaling.centre + np.diag(steps)) - scaling.transform(scaling.centre)
    expected = np.linalg.slogdet(differences)[1] - np.log(steps).sum()
    log_det = scaling.log_abs_det_jacobian(X)
    assert log_det.shape == (len(X),)
    assert_allclose(log_det, expected, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("name", SAMPLES)
def test_standardize_gives_mean_zero_and_standard_deviation_one(name):
    X = SAMPLES[name]
    Z = fit_one_sample_map(X, "standardize").transform(X)
    # the centre is a float, rounded at 1e-16 of its size, which is 1e8 spreads for "offset"
    assert (np.abs(Z.mean(axis=0)) <= 1e-15 * (1 + np.abs(X).max(axis=0) / X.std(axis=0))).all()
    assert_allclose(Z.std(axis=0), 1, rtol=1e-12)


def test_an_offset_keeps_the_digits_of_the_spread():
    """Rows that are exact in floats at both offsets: the same scaled rows to rounding."""
    X = np.round(rows(n=1000) * 2**10) / 2**10
    for kind in ("standardize", "whiten"):
        near, far = fit_one_sample_map(X, kind), fit_one_sample_map(X + 1e8, kind)
        assert_allclose(far.scale, near.scale, rtol=1e-7, atol=1e-7)
        # the centre is rounded at 1e8 * 2^-53 = 1.1e-8
        assert_allclose(far.transform(X + 1e8), near.transform(X), atol=1e-7)
        assert_allclose(far.log_abs_det, near.log_abs_det, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_rows_are_mapped_in_double(kind):
    X = rows().astype(np.float32)
    single, double = fit_one_sample_map(X, kind), fit_one_sample_map(X.astype(np.float64), kind)
    assert_array_equal(single.transform(X), double.transform(X.astype(np.float64)))
    assert single.inverse_transform(X).dtype == np.float64


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
def test_whiten_gives_principal_axes_of_unit_variance(unit):
    X = rows(n=20_000, d=5) * unit
    covariance = np.cov(fit_one_sample_map(X, "whiten").transform(X), rowvar=False, bias=True)
    # Shrinkage towards a multiple of I leaves the axes alone: they are uncorrelated to rounding.
    assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-12)
    # It is about d/n of the smallest eigenvalue (here 0.1): 2.5e-3.
    assert_allclose(np.diag(covariance), 1, atol=5e-3)


@pytest.mark.parametrize("name", ["fewer-rows-than-columns", "two-rows"])
def test_whiten_is_regular_where_rows_are_few(name):
    X = SAMPLES[name]
    scaling = fit_one_sample_map(X, "whiten")
    assert np.isfinite(scaling.scale).all() and np.isfinite(scaling.inverse_scale).all()
    assert np.isfinite(scaling.log_abs_det)
    # the floor of the eigenvalues bounds the condition in standard units by the root of 1e12
    condition = np.linalg.cond(scaling.scale / X.std(axis=0)[:, None])
    assert condition < 1.01e6
    assert_allclose(scaling.transform(X).mean(axis=0), 0, atol=1e-14 * condition)


def test_no_preprocessing_is_the_identity():
    X = rows()
    for scaling in [fit_one_sample_map(X, None), *fit_two_sample_maps(X, X, None)]:
        assert_array_equal(scaling.transform(X), X)
        assert_array_equal(scaling.inverse_transform(X), X)
        assert not scaling.log_abs_det_jacobian(X).any()


def test_number_of_columns():
    assert fit_one_sample_map(rows(d=4), "whiten").n_features == 4


# ------------------------------------------------------------------------------- two samples


@pytest.mark.parametrize("common_centre", [False, True])
@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
def test_two_samples_share_one_scale_and_are_centred(unit, common_centre):
    X0, X1 = rows(n=100) * unit, (3 + 2 * rows(n=70, seed=1)) * unit
    base, target = fit_two_sample_maps(X0, X1, "standardize", common_centre=common_centre)
    assert_array_equal(base.scale, target.scale)
    assert_allclose(base.scale**2, (X0.var(axis=0) + X1.var(axis=0)) / 2, rtol=1e-12)
    Z0, Z1 = base.transform(X0), target.transform(X1)
    assert_allclose((Z0.var(axis=0) + Z1.var(axis=0)) / 2, 1, rtol=1e-12)
    if common_centre:
        assert_array_equal(base.centre, target.centre)
        assert_allclose(Z0.mean(axis=0) + Z1.mean(axis=0), 0, atol=1e-13)
    else:
        assert_allclose(Z0.mean(axis=0), 0, atol=1e-13)
        assert_allclose(Z1.mean(axis=0), 0, atol=1e-13)


def test_two_samples_far_from_zero_and_from_each_other():
    X0, X1 = np.round(rows() * 2**10) / 2**10 + 1e8, np.round(rows(seed=1) * 2**10) / 2**10 - 1e8
    base, target = fit_two_sample_maps(X0, X1, "standardize")
    near = fit_two_sample_maps(X0 - 1e8, X1 + 1e8, "standardize")[0]
    assert_allclose(base.scale, near.scale, rtol=1e-14)
    assert_allclose(base.transform(X0).mean(axis=0), 0, atol=2e-8)
    assert_allclose(target.transform(X1).mean(axis=0), 0, atol=2e-8)


def test_a_column_that_is_constant_at_both_ends_keeps_its_unit():
    """Transport alone needs no density; a column constant at one end has the other's spread."""
    X0, X1 = rows(), rows(seed=1)
    X0[:, 0], X1[:, 0], X0[:, 1] = 0.1, 0.7, 5.0
    base, target = fit_two_sample_maps(X0, X1, "standardize")
    assert base.scale[0] == 1.0
    assert_allclose(base.scale[1], X1[:, 1].std() / np.sqrt(2), rtol=1e-12)
    assert_allclose(base.transform(X0)[:, :2], 0, atol=1e-12)
    assert_allclose(target.transform(X1)[:, 0], 0, atol=1e-12)


# ----------------------------------------------------------------------- rows without a density


def with_column(column, value):
    X = rows()
    X[:, column] = value
    return X


@pytest.mark.parametrize("n", [2, 3, 200])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e8, -1e-300, np.nextafter(1.0, 2.0)])
def test_constant_columns_have_no_density(value, n):
    with pytest.raises(ValueError, match=r"Columns \[1\] of X are constant, .* in 3 dimensions: drop them"):
        check_has_density(with_column(1, value)[:n])


def test_a_column_that_is_constant_up_to_rounding_has_no_density():
    X = rows()
    X[:, 2] = 1e8 + np.where(X[:, 0] > 0, 2e-8, 0)
    with pytest.raises(ValueError, match=r"Columns \[2\] of X are constant"):
        check_has_density(X)


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize(
    ("function", "involved"),
    [
        (lambda X: X[:, 0], r"\[0, 2\]"),
        (lambda X: -3 * X[:, 1], r"\[1, 2\]"),
        (lambda X: X[:, 0] + X[:, 1], r"\[0, 1, 2\]"),
    ],
    ids=["duplicate", "multiple", "sum"],
)
def test_dependent_columns_have_no_density(function, involved, offset, unit):
    X = rows()
    X[:, 2] = unit * (function(X) + offset)
    with pytest.raises(ValueError, match=rf"Columns {involved} of X are linearly dependent"):
        check_has_density(X)


def test_errors_name_the_sample_and_the_way_out():
    with pytest.raises(ValueError, match=r"of X1 are constant, so X1 has no density .*: ask for less\."):
        check_has_density(with_column(0, 1.0), "X1", "ask for less")
    with pytest.raises(ValueError, match=r"of X1 are linearly dependent .*, so X1 .*: ask for less\."):
        check_has_density(rows()[:, [0, 1, 0]], "X1", "ask for less")


@pytest.mark.parametrize(
    "X",
    [
        *[SAMPLES[name] for name in ("small", "one-column", "units", "offset", "tiny-column", "huge-column")],
        rows(n=5, d=20),  # few rows say nothing of the distribution
        rows(n=3, d=3)[:, [0, 1, 0]],
        rows()[:, [0, 1, 0]] + np.random.default_rng(0).normal(scale=1e-4, size=(200, 3)),  # noise of a known size
    ],
)
def test_rows_with_a_density_pass(X):
    before = X.copy()
    assert check_has_density(X) is None
    assert_array_equal(X, before)


# ---------------------------------------------------------------------- the density of the base


@pytest.mark.parametrize("d", [1, 2, 5])
def test_normal_density_has_the_moments_of_its_sample(d):
    X, new = rows(d=d), rows(n=50, d=d, seed=1)
    density = NormalDensity().fit(X)
    u = new - X.mean(axis=0)
    covariance = (X - X.mean(axis=0)).T @ (X - X.mean(axis=0)) / (len(X) - 1)
    quadratic = np.einsum("na,na->n", u, np.linalg.solve(covariance, u.T).T)
    expected = -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * covariance)[1])
    assert_allclose(density.score_samples(new), expected, rtol=1e-10)
    assert_allclose(multivariate_normal(density.mean_, density.covariance_).logpdf(new), expected, rtol=1e-10)
    assert density.score_samples(new[:1]).shape == (1,)


@pytest.mark.parametrize("d", [1, 3])
def test_standard_normal_density_whatever_the_sample(d):
    density = NormalDensity(standard=True).fit(3 + 5 * rows(n=2, d=d))
    new = rows(n=50, d=d)
    assert_allclose(density.score_samples(new), norm.logpdf(new).sum(axis=1), rtol=1e-12)


@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test_normal_density_changes_units_by_the_jacobian(unit):
    X, new = rows(), rows(n=50, seed=1)
    expected = NormalDensity().fit(X).score_samples(new) - 3 * np.log(unit)
    assert_allclose(NormalDensity().fit(unit * X).score_samples(unit * new), expected, rtol=1e-10)


@pytest.mark.parametrize("ratio", [1e-5, 1e-9])
def test_normal_density_of_columns_in_different_units(ratio):
    X, new, units = rows(), rows(n=50, seed=1), np.array([1.0, 1.0, ratio])
    expected = NormalDensity().fit(X).score_samples(new) - np.log(ratio)
    assert_allclose(NormalDensity().fit(units * X).score_samples(units * new), expected, rtol=1e-9)


@pytest.mark.parametrize("n", [2, 3])
def test_normal_density_needs_more_rows_than_columns(n):
    with pytest.raises(ValueError, match=f"needs more than n_features = 3 rows of X0, got {n}: use 'flow'"):
        NormalDensity().fit(rows(n=n))


TINY = {"max_iter": 20, "hidden_layer_sizes": (8,), "batch_size": 128}


def base_of(spec, estimator, X0, seed):
    """The density of a base, by the recipe of an estimator."""
    problem = SimpleNamespace(seed=seed, names=None, tasks=NO_TASKS, checkpoint=NO_CHECKPOINT, left=lambda limit: limit)
    return fit_base_density(spec, estimator._recipe(), problem, X0)


@pytest.mark.parametrize("spec", ["normal", "standard_normal"])
def test_named_base_densities(spec):
    X0 = 3 + 2 * rows()
    density = base_of(spec, InterpolantFlow(**TINY), X0, 0)
    moments = (np.zeros(3), np.eye(3)) if spec == "standard_normal" else (X0.mean(axis=0), np.cov(X0, rowvar=False))
    assert_allclose(density.score_samples(X0), multivariate_normal(*moments).logpdf(X0), rtol=1e-10)


def test_an_estimator_is_cloned_and_fitted_to_the_base():
    X0, given = rows(), GaussianMixture(2, random_state=0)
    density = base_of(given, InterpolantFlow(**TINY), X0, 0)
    assert not hasattr(given, "means_")
    assert_array_equal(density.score_samples(X0), clone(given).fit(X0).score_samples(X0))


@pytest.mark.parametrize("cls", [InterpolantFlow, InterpolantDiffusion])
def test_a_flow_as_base_density_is_the_estimators_own_in_one_sample_form(cls):
    X0 = 3 + 2 * rows(n=400, d=2)
    estimator = cls(
        **TINY, interpolant="trigonometric", gamma="brownian", gamma_scale=2.0, coupling="paired",
        preprocessing="standardize", noise_level=0.5, warm_start=True, max_time=100.0, random_state=5,
    )  # fmt: skip
    before = estimator.get_params()
    density = base_of("flow", estimator, X0, 11)
    assert type(density) is cls and density is not estimator
    assert estimator.get_params() == before and not hasattr(estimator, "network_")
    changed = {name: value for name, value in density.get_params().items() if value != before[name]}
    assert changed == {
        "interpolant": "linear", "gamma": "auto", "gamma_scale": 1.0, "coupling": "independent",
        "preprocessing": "auto", "base_density": None, "noise_level": 0.0, "warm_start": False, "max_time": 50.0,
        "random_state": 11,
    }  # fmt: skip
    # 20 steps from the Gaussian model, for rows that are Gaussian: within a twentieth of a nat
    truth = multivariate_normal(X0.mean(axis=0), np.cov(X0, rowvar=False)).logpdf(X0)
    assert abs(density.score(X0) - truth.mean()) < 0.05
    estimator.set_params(max_time=None)  # time gives up reproducibility
    density, again = (base_of("flow", estimator, X0, 11) for _ in range(2))
    assert density.max_time is None
    assert_array_equal(again.score_samples(X0[:5]), density.score_samples(X0[:5]))


@pytest.mark.parametrize("spec", [*(s for s in BASE_DENSITIES if s != "standard_normal"), GaussianMixture(2)])
def test_a_base_without_a_density_is_refused_with_the_way_out(spec):
    with pytest.raises(ValueError, match=r"Columns \[1\] of X0 are constant.*set base_density=None"):
        base_of(spec, InterpolantFlow(**TINY), with_column(1, 2.0), 0)


def test_what_needs_no_density_of_the_base_takes_any_rows():
    flat = with_column(1, 2.0)
    assert base_of(None, InterpolantFlow(**TINY), flat, 0) is None
    assert base_of("standard_normal", InterpolantFlow(**TINY), flat, 0).mean_.tolist() == [0, 0, 0]


def test_whitening_two_samples_makes_both_covariances_diagonal_and_their_mean_the_identity():
    rng = np.random.default_rng(0)
    X0 = rng.normal(size=(20_000, 3)) @ rng.normal(size=(3, 3)) + 5
    X1 = rng.normal(size=(8000, 3)) @ rng.normal(size=(3, 3)) * 2
    base_map, target_map = fit_two_sample_maps(X0, X1, "whiten")
    np.testing.assert_array_equal(base_map.scale, target_map.scale)
    cov0, cov1 = np.cov(base_map.transform(X0).T), np.cov(target_map.transform(X1).T)
    np.testing.assert_allclose((cov0 + cov1) / 2, np.eye(3), atol=0.01)  # up to the shrinkage
    for cov in (cov0, cov1):
        assert abs(cov - np.diag(np.diag(cov))).max() < 0.01
    np.testing.assert_allclose(base_map.transform(X0).mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(target_map.inverse_transform(target_map.transform(X1)), X1, rtol=1e-9)
