"""Densities through an outside transformer: the Jacobians, the units, the refusals."""

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import lognorm
from sklearn.base import BaseEstimator, TransformerMixin, clone, is_clusterer
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import VarianceThreshold
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from sklearn_si import InterpolantDiffusion, InterpolantFlow
from sklearn_si.compose import TransformedDensity
from sklearn_si.exceptions import IntegrationError, IntegrationWarning
from sklearn_si.preprocessing import AffineMap
from sklearn_si.preprocessing._foreign import _bent, backward, forward

SMALL = {
    "max_iter": 20, "hidden_layer_sizes": (8,), "n_steps": 4, "preprocessing": "standardize", "base_density": "normal",
    "random_state": 0,
}  # fmt: skip

RNG = np.random.default_rng(0)
MIXING = np.array([[1.0, 0.0], [0.8, 2.0]])
X = RNG.normal(size=(80, 2)) @ MIXING.T + [1.0, -2.0]
X1 = RNG.normal([4.0, 0.0], [2.0, 0.5], size=(60, 2))
POSITIVE = np.exp(RNG.normal([0.0, 1.0], [0.5, 0.3], size=(80, 2)))
SKEWED = np.column_stack([RNG.gamma(8.0, size=80), -RNG.gamma(8.0, size=80)])


class LogMap(TransformerMixin, BaseEstimator):
    """T(x) = log x."""

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return np.log(X)

    def inverse_transform(self, X):
        return np.exp(X)

    def log_abs_det_jacobian(self, X):
        return -np.log(X).sum(axis=1)


class FixedPower(PowerTransformer):
    """A PowerTransformer whose lambdas are given."""

    def __init__(self, lambdas=(1.0, 1.0), method="yeo-johnson", *, standardize=True, copy=True):
        super().__init__(method, standardize=standardize, copy=copy)
        self.lambdas = lambdas

    def fit(self, X, y=None):
        super().fit(X)
        self.lambdas_ = np.array(self.lambdas)
        if self.standardize:
            scaler, self.standardize = self._scaler, False
            scaler.fit(self.transform(X))
            self.standardize = True
        return self


class Rotation(TransformerMixin, BaseEstimator):
    """A map with a wrong inverse, or of a wrong number of columns or Jacobians, as asked."""

    def __init__(self, fault=None):
        self.fault = fault

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return X[:, :1] if self.fault == "columns" else X[:, ::-1]

    def inverse_transform(self, X):
        return X if self.fault == "inverse" else X[:, ::-1]

    def log_abs_det_jacobian(self, X):
        return 0.0 if self.fault == "jacobian" else np.zeros(len(X))


class Stubborn(StandardScaler):
    """A subclass that moves rows in its own way."""

    def transform(self, X):
        return X**3


TRANSFORMERS = {
    "standard": (StandardScaler(), X),
    "standard-no-mean": (StandardScaler(with_mean=False), X),
    "standard-no-std": (StandardScaler(with_std=False), X),
    "standard-in-place": (StandardScaler(copy=False), X),
    "min-max": (MinMaxScaler((-2, 3)), X),
    "max-abs": (MaxAbsScaler(), X),
    "robust": (RobustScaler(), X),
    "robust-no-scale": (RobustScaler(with_scaling=False), X),
    "pca": (PCA(), X),
    "pca-whiten": (PCA(whiten=True, svd_solver="full"), X),
    "yeo-johnson": (PowerTransformer(), SKEWED),
    "yeo-johnson-raw": (PowerTransformer(standardize=False), SKEWED),
    "yeo-johnson-ends": (FixedPower((0.0, 2.0)), X),
    "box-cox": (FixedPower((0.0, 0.0), "box-cox"), POSITIVE),
    "box-cox-raw": (FixedPower((0.0, 0.0), "box-cox", standardize=False), POSITIVE),
    "affine": (AffineMap(np.array([1.0, -2.0]), np.array([[2.0, 0.5], [0.0, -3.0]])), X),
    "log": (LogMap(), POSITIVE),
    "pipeline": (make_pipeline(StandardScaler(), "passthrough", make_pipeline(PowerTransformer(), PCA())), SKEWED),
}
NAMES = list(TRANSFORMERS)


def small(transformer, **params):
    return TransformedDensity(transformer, InterpolantFlow(**{**SMALL, **params}))


def fit_map(transformer, rows):
    """A fitted copy of a transformer, by hand."""
    transformer = clone(transformer, safe=False)
    return transformer.fit(rows.copy()) if hasattr(transformer, "fit") else transformer


def numeric_log_det(transformer, rows, step=1e-5):
    """The log |det| of the Jacobian by central differences: error O(step^2)."""
    d = rows.shape[1]
    columns = [
        (transformer.transform(rows + step * e) - transformer.transform(rows - step * e)) / (2 * step)
        for e in np.eye(d)
    ]
    return np.linalg.slogdet(np.stack(columns, axis=2))[1]


@pytest.fixture(scope="module")
def fitted():
    return small(PCA(whiten=True)).fit(X)


@pytest.fixture(scope="module")
def bridge():
    return small(StandardScaler()).fit(X, X1)


@pytest.fixture(scope="module")
def lognormal():
    return small(LogMap(), ode_tol=1e-5).fit(POSITIVE)


# ----------------------------------------------------------------------------------------- the Jacobian


@pytest.mark.parametrize("name", NAMES)
def test_the_jacobian_is_that_of_differences(name):
    transformer, rows = TRANSFORMERS[name]
    model = fit_map(transformer, rows)
    _, jacobian = forward(model, rows)
    assert_allclose(jacobian, numeric_log_det(model, rows), rtol=0, atol=1e-7)


@pytest.mark.parametrize("lambdas", [(-1.5, 0.5), (2.5, 3.0), (1.0, 0.0)])
@pytest.mark.parametrize("method", ["yeo-johnson", "box-cox"])
def test_the_derivative_of_a_power_is_right_even_where_the_fit_refuses_it(method, lambdas):
    rows = POSITIVE if method == "box-cox" else X
    model = FixedPower(lambdas, method).fit(rows)
    assert_allclose(_bent(model, rows), numeric_log_det(model, rows), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_density_is_that_of_a_fit_by_hand_plus_the_jacobian(name):
    transformer, rows = TRANSFORMERS[name]
    before = rows.copy()
    model = small(transformer, max_iter=3).fit(rows)
    by_hand = fit_map(transformer, rows)
    inside = by_hand.transform(rows.copy())
    flow = clone(model.estimator).fit(inside)
    density, found = flow.score_samples(inside[:8]), model.score_samples(rows[:8])
    expected = density + numeric_log_det(by_hand, rows[:8])
    assert_allclose(found, expected, rtol=0, atol=1e-6)
    exact = density + forward(by_hand, rows[:8])[1]
    assert_allclose(found, exact, rtol=0, atol=1e-9)
    back = by_hand.inverse_transform(flow.sample(5, random_state=1))
    assert_allclose(model.sample(5, random_state=1), back, rtol=1e-12, atol=1e-12)
    assert_array_equal(rows, before)


def test_a_density_through_the_logarithm_integrates_to_one():
    rows = np.exp(RNG.normal(0.5, 0.4, size=(200, 1)))
    model = small(LogMap(), ode_tol=1e-5).fit(rows)
    grid = np.linspace(1e-3, 25.0, 3000)[:, None]
    density = np.exp(model.score_samples(grid))
    assert_allclose(density.sum() * (grid[1, 0] - grid[0, 0]), 1.0, rtol=0, atol=1e-3)
    # moments are known to preprocessing: twenty steps already give the lognormal, roughly
    assert_allclose(density, lognorm(0.4, scale=np.exp(0.5)).pdf(grid[:, 0]), rtol=0, atol=0.15)


def test_a_density_through_yeo_johnson_integrates_to_one():
    model = small(PowerTransformer(), ode_tol=1e-4).fit(SKEWED)
    # the distribution of the rows of a net of 20 steps is wide: the box holds all of it but 1e-3
    axes = np.meshgrid(np.linspace(-0.99, 45.0, 90), np.linspace(-45.0, 0.99, 90), indexing="ij")
    density = np.exp(model.score_samples(np.column_stack([axis.ravel() for axis in axes])))
    area = (axes[0][1, 0] - axes[0][0, 0]) * (axes[1][0, 1] - axes[1][0, 0])
    assert_allclose(density.sum() * area, 1.0, rtol=0, atol=5e-3)


def test_the_stated_error_and_the_time_are_the_estimators(lognormal):
    inside = np.log(POSITIVE[:6])
    value, error = lognormal.score_samples(POSITIVE[:6], t=0.7, return_error=True)
    expected = lognormal.estimator_.score_samples(inside, t=0.7, return_error=True)
    assert_allclose(value, expected[0] - inside.sum(axis=1), rtol=1e-12)
    assert_array_equal(error, expected[1])


# --------------------------------------------------------------------------------- samples and transport


@pytest.mark.parametrize("name", NAMES)
def test_rows_come_back_from_the_map(name):
    transformer, rows = TRANSFORMERS[name]
    model = fit_map(transformer, rows)
    inside, _ = forward(model, rows)
    assert_allclose(backward(model, inside), rows, rtol=1e-10, atol=1e-10)


def test_one_sample_goes_to_the_normal_and_back(fitted):
    latent = fitted.transform(X)
    assert fitted.carries_to_ == "normal"
    assert_array_equal(latent, fitted.estimator_.transform(fitted.transformer_.transform(X)))
    assert_allclose(fitted.inverse_transform(latent), X, rtol=0, atol=0.02)
    assert_array_equal(small(PCA(whiten=True)).fit_transform(X), latent)


def test_two_samples_go_from_data_to_data_and_back(bridge):
    carried = bridge.transform(X)
    assert bridge.carries_to_ == "data"
    assert_allclose(bridge.inverse_transform(carried), X, rtol=0, atol=0.02)
    assert_allclose(carried.mean(axis=0), X1.mean(axis=0), rtol=0, atol=1.0)


def test_the_transformer_of_two_samples_sees_both_and_moves_both(bridge):
    scaler = StandardScaler().fit(np.vstack([X, X1]))
    assert_allclose(bridge.transformer_.mean_, scaler.mean_)
    flow = InterpolantFlow(**SMALL).fit(scaler.transform(X), scaler.transform(X1))
    assert_allclose(bridge.transform(X), scaler.inverse_transform(flow.transform(scaler.transform(X))), rtol=1e-12)
    assert_allclose(bridge.sample(5), scaler.inverse_transform(flow.sample(5)), rtol=1e-12)
    expected = flow.score_samples(scaler.transform(X1[:6])) - np.log(scaler.scale_).sum()
    assert_allclose(bridge.score_samples(X1[:6]), expected, rtol=0, atol=1e-9)


def test_a_mirror_keeps_its_rows_in_data_units():
    diffusion = InterpolantDiffusion(**SMALL, interpolant="mirror")
    model = TransformedDensity(StandardScaler(), diffusion).fit(X)
    assert model.carries_to_ == "data"
    assert_allclose(model.transform(X), X, rtol=1e-12)
    nested = TransformedDensity(MaxAbsScaler(), TransformedDensity(StandardScaler(), diffusion)).fit(X)
    assert_allclose(nested.transform(X), X, rtol=1e-12)


def test_the_start_rows_of_a_forecast_are_in_data_units():
    rows = X + RNG.normal(1.0, 0.1, size=X.shape)
    model = TransformedDensity(StandardScaler(), InterpolantDiffusion(**SMALL, start="condition")).fit(X, rows)
    inside = model.estimator_.sample(4, condition=model.transformer_.transform(X[:4]))
    assert_allclose(model.sample(4, condition=X[:4]), model.transformer_.inverse_transform(inside), rtol=1e-12)
    assert model.sample(3, condition=X[0]).shape == (3, 2)
    with pytest.raises(ValueError, match="condition has 1 features, but TransformedDensity expects 2"):
        model.sample(3, condition=[[1.0]])


def test_samples_have_the_support_of_the_data(lognormal):
    rows = lognormal.sample(200)
    assert (rows > 0).all()
    assert np.isfinite(lognormal.score_samples(rows)).all()


def test_one_transformed_density_in_another_adds_both_jacobians():
    outer = TransformedDensity(LogMap(), small(StandardScaler())).fit(POSITIVE)
    chain = small(make_pipeline(LogMap(), StandardScaler())).fit(POSITIVE)
    assert_allclose(outer.score_samples(POSITIVE[:5]), chain.score_samples(POSITIVE[:5]), rtol=0, atol=1e-9)


def test_float32_rows_stay_so():
    model = small(StandardScaler()).fit(X.astype(np.float32))
    assert model.estimator_.dtype_ == np.float32
    row = X[:3].astype(np.float32)
    answers = [model.sample(2), model.score_samples(row), model.transform(row), model.inverse_transform(row)]
    assert {answer.dtype for answer in answers} == {np.dtype(np.float32)}


# ---------------------------------------------------------------------------------------- the contract


def test_the_parameters_are_cloned_not_fitted():
    scaler, flow = StandardScaler(), InterpolantFlow(**SMALL)
    model = TransformedDensity(scaler, flow)
    assert model.fit(X) is model
    assert not hasattr(scaler, "mean_")
    assert not hasattr(flow, "network_")
    copy = clone(model)
    assert not hasattr(copy, "estimator_")
    assert_array_equal(copy.fit(X).sample(3), model.sample(3))


def test_pickle_and_repr(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    assert_array_equal(again.sample(3), fitted.sample(3))
    assert_array_equal(again.score_samples(X[:5]), fitted.score_samples(X[:5]))
    assert "PCA(whiten=True)" in repr(fitted)


def test_labels_are_ignored_and_columns_are_not(fitted):
    assert_array_equal(small(PCA(whiten=True)).fit(X, np.arange(80)).sample(3), fitted.sample(3))
    with pytest.raises(ValueError, match="n_features = 1"):
        small(StandardScaler()).fit(X[:, :1], X1[:60, 0])
    with pytest.raises(ValueError, match="X1 has 1 features, but expected 2"):
        small(StandardScaler()).fit(X, X1[:, :1])


def test_score_is_the_weighted_mean_in_data_units(fitted, bridge):
    weight = np.linspace(0.0, 2.0, 80)
    densities = fitted.score_samples(X)
    assert_allclose(fitted.score(X), densities.mean(), rtol=1e-12)
    assert_allclose(fitted.score(X, np.arange(80), weight), np.average(densities, weights=weight), rtol=1e-12)
    assert_allclose(bridge.score(X, X1), bridge.score_samples(X1).mean(), rtol=1e-12)


def test_condition_reaches_every_method():
    model = small(StandardScaler()).fit(X, condition=X[:, 0])
    scaler = model.transformer_
    flow = InterpolantFlow(**SMALL).fit(scaler.transform(X), condition=X[:, 0])
    rows, condition = scaler.transform(X[:6]), X[:6, 0]
    jacobian = -np.log(scaler.scale_).sum()
    expected = flow.score_samples(rows, condition=condition) + jacobian
    assert_allclose(model.score_samples(X[:6], condition=condition), expected, rtol=0, atol=1e-9)
    assert_allclose(model.score(X[:6], condition=condition), expected.mean(), rtol=1e-9)
    latent = model.transform(X[:6], condition=condition)
    assert_array_equal(latent, flow.transform(rows, condition=condition))
    assert_allclose(model.inverse_transform(latent, condition=condition), X[:6], rtol=0, atol=0.02)
    assert_allclose(model.sample(6, condition=condition),
                    scaler.inverse_transform(flow.sample(6, condition=condition)), rtol=1e-12)  # fmt: skip
    # other batches, other roundings
    assert_allclose(small(StandardScaler()).fit_transform(X, condition=X[:, 0])[:6], latent, rtol=1e-12)
    with pytest.raises(ValueError, match="fitted with a condition"):
        model.sample(2)


def test_grid_search_compares_transformers_in_the_units_of_the_data():
    grid = {"transformer": [StandardScaler(), LogMap()], "estimator__noise_level": [0.0, 0.5]}
    base = small(StandardScaler(), max_iter=3)
    search = GridSearchCV(base, grid, cv=KFold(2)).fit(POSITIVE)
    train, test = next(KFold(2).split(POSITIVE))
    for i, params in enumerate(search.cv_results_["params"]):
        expected = clone(base).set_params(**params).fit(POSITIVE[train]).score(POSITIVE[test])
        assert_allclose(search.cv_results_["split0_test_score"][i], expected, rtol=1e-12)
    assert isinstance(search.best_params_["transformer"], LogMap)


def test_cross_validation_of_two_samples_scores_the_second():
    rows = X + 1.0
    folds = [(a, b) for a, b in KFold(2).split(X)]
    expected = [small(StandardScaler()).fit(X[a], rows[a]).score(rows[b]) for a, b in folds]
    assert_allclose(cross_val_score(small(StandardScaler()), X, rows, cv=KFold(2)), expected, rtol=1e-12)


def test_at_the_end_of_a_pipeline():
    pipe = make_pipeline(StandardScaler(), small(PCA())).fit(X)
    alone = small(PCA()).fit(StandardScaler().fit_transform(X))
    assert pipe.score(X) == alone.score(StandardScaler().fit_transform(X))
    assert_allclose(pipe.inverse_transform(pipe.transform(X)), X, rtol=0, atol=0.02)


def test_weights_are_routed_to_score():
    weight = np.linspace(0.0, 2.0, 80)
    with sklearn.config_context(enable_metadata_routing=True):
        model = small(StandardScaler()).set_fit_request(sample_weight=False).set_score_request(sample_weight=True)
        assert model.get_metadata_routing().consumes("fit", ["X0", "X1"]) == set()
        scores = cross_val_score(model, X, cv=KFold(2), params={"sample_weight": weight})
    folds = list(KFold(2).split(X))
    expected = [small(StandardScaler()).fit(X[a]).score(X[b], sample_weight=weight[b]) for a, b in folds]
    assert_allclose(scores, expected, rtol=1e-12)


def test_names_and_frames(fitted):
    frame = pd.DataFrame(X, columns=["a", "b"], index=range(10, 90))
    model = small(make_pipeline(StandardScaler(), PCA()).set_output(transform="pandas")).fit(frame)
    assert model.feature_names_in_.tolist() == model.get_feature_names_out().tolist() == ["a", "b"]
    plain = model.sample(3)
    model.set_output(transform="pandas")
    assert_array_equal(model.sample(3), plain)
    assert model.sample(3).columns.tolist() == ["a", "b"]
    assert model.transform(frame).index.tolist() == frame.index.tolist()
    with pytest.raises(ValueError, match="feature names should match"):
        model.score_samples(frame[["b", "a"]])
    with sklearn.config_context(transform_output="pandas"):
        assert isinstance(small(PCA(whiten=True)).fit(X).sample(2), pd.DataFrame)


def test_tags():
    tags = sklearn.utils.get_tags(small(StandardScaler()))
    assert tags.estimator_type == "density_estimator"
    assert not is_clusterer(small(StandardScaler()))


def test_methods_before_fit():
    for method in ("transform", "inverse_transform", "score_samples", "score"):
        with pytest.raises(NotFittedError, match="not fitted"):
            getattr(small(StandardScaler()), method)(X)
    with pytest.raises(NotFittedError, match="not fitted"):
        small(StandardScaler()).sample()


# -------------------------------------------------------------------------------------- what is refused

REFUSED = [
    (QuantileTransformer(n_quantiles=10), X, "QuantileTransformer .* it clips .* Use PowerTransformer"),
    (MinMaxScaler(clip=True), X, r"with clip=True it clips .* Use MinMaxScaler\(clip=False\)"),
    (PowerTransformer("box-cox"), POSITIVE, r"lambda is not 0 in columns \[0, 1\] .* image is bounded .* RobustScaler"),
    (FixedPower((-0.1, 1.0)), X, r"lambda is outside of \[0, 2\] in columns \[0\] \(-0.1\), .* no preimage. Use"),
    (FixedPower((1.0, 2.1)), X, r"lambda is outside of \[0, 2\] in columns \[1\] \(2.1\)"),
    (Normalizer(), X, "Normalizer .* no inverse_transform, which samples need. Use StandardScaler"),
    (PCA(1), X, r"keeps 1 of 2 components, .* Use PCA\(n_components=None\)"),
    (PCA(whiten=True), X[:, [0, 0]], "columns are linearly dependent.* Drop"),
    (FunctionTransformer(np.log, np.exp), POSITIVE, "FunctionTransformer .* Jacobian is not known. Use StandardScaler"),
    (KBinsDiscretizer(3, encode="ordinal", strategy="uniform"), X, "Jacobian is not known"),
    (VarianceThreshold(), X, "Jacobian is not known"),
    (Stubborn(), X, "Stubborn .* Jacobian is not known"),
    (make_pipeline(StandardScaler(), QuantileTransformer(n_quantiles=10)), X, "QuantileTransformer .* it clips"),
    (make_pipeline(StandardScaler(), Normalizer()), X, "Normalizer .* no inverse_transform"),
    (
        Rotation("inverse"),
        X,
        r"inverse_transform of Rotation does not map the rows back to themselves in columns \[0, 1\]",
    ),
    (Rotation("columns"), X, r"Rotation returned shape \(80, 1\) for rows of shape \(80, 2\)"),
    (Rotation("jacobian"), X, r"log_abs_det_jacobian returned shape \(\) for 80 rows, but expected \(80,\)"),
    (LogMap(), X, r"LogMap maps rows \[.* and \d+ more to a point that is not finite"),
    ("standard", X, "'transformer' parameter of TransformedDensity must be an object implementing 'transform'"),
]


@pytest.mark.parametrize(("transformer", "rows", "message"), REFUSED, ids=[message[:30] for *_, message in REFUSED])
def test_a_map_that_is_no_bijection_is_refused_with_the_way_out(transformer, rows, message):
    with pytest.raises(ValueError, match=message):
        small(transformer).fit(rows)


def test_an_estimator_that_is_no_interpolant_is_refused():
    with pytest.raises(ValueError, match=r"'estimator' parameter .* must be .* 'inverse_transform'"):
        TransformedDensity(StandardScaler(), GaussianMixture()).fit(X)


def test_rows_outside_of_the_floating_point_numbers_are_nan_with_a_warning(lognormal):
    with pytest.warns(IntegrationWarning, match=r"1 of 2 rows .* while transforming rows back .* Rows: 1\."):
        rows = lognormal.inverse_transform([[0.0, 0.0], [1e4, 0.0]])
    assert np.isfinite(rows[0]).all() and np.isnan(rows[1]).all()
    narrow = small(LogMap()).fit(POSITIVE.astype(np.float32))
    with pytest.warns(IntegrationWarning, match=r"Rows: 0\."):  # finite in float64 only
        assert np.isnan(narrow.inverse_transform(np.array([[300.0, 0.0]], dtype=np.float32))).all()


@pytest.mark.parametrize("method", ["score_samples", "transform"])
def test_a_row_outside_of_the_support_is_nan_with_a_warning_and_leaves_the_others(lognormal, method):
    rows = np.array([[0.0, 1.0], [1.0, 1.0], [1.0, -1.0]])
    with pytest.warns(
        IntegrationWarning, match=r"2 of 3 rows became infinite or NaN while LogMap moved them .* Rows: 0, 2\."
    ):
        values = getattr(lognormal, method)(rows)
    np.testing.assert_array_equal(values[1:2], getattr(lognormal, method)(rows[1:2]))
    assert np.isnan(values[[0, 2]]).all()
    with pytest.raises(IntegrationError, match=r"2 of 3 rows .* while computing log-densities"):
        lognormal.score(rows)


def test_a_row_without_an_image_takes_its_condition_with_it():
    flow = InterpolantFlow(max_iter=3, hidden_layer_sizes=(8,), random_state=0)
    model = TransformedDensity(LogMap(), flow).fit(POSITIVE, condition=POSITIVE[:, 0])
    rows = np.concatenate([[[-1.0, 1.0]], POSITIVE[:3]])
    with pytest.warns(IntegrationWarning, match=r"Rows: 0\."):
        values = model.score_samples(rows, condition=rows[:, 0])
    np.testing.assert_allclose(values[1:], model.score_samples(POSITIVE[:3], condition=POSITIVE[:3, 0]), rtol=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_rows_are_refused_before_the_transformer_sees_them(fitted, value):
    for method in (fitted.fit, fitted.score_samples, fitted.transform, fitted.inverse_transform):
        with pytest.raises(ValueError, match=r"contains (NaN|infinity)"):
            method([[value, 1.0], [0.0, 1.0]])


def test_a_transformer_without_an_inverse_is_refused_before_it_is_fitted():
    transformer = ColumnTransformer([("scaled", StandardScaler(), ["a", "b"])])
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 2)), columns=["a", "b"])
    with pytest.raises(ValueError, match=r"ColumnTransformer cannot be used .*: it has no inverse_transform"):
        TransformedDensity(transformer, InterpolantFlow()).fit(frame)
