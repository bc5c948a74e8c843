"""The checks of scikit-learn, on instances that fit in a fraction of a second."""

import inspect

import pytest
import sklearn
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.fixes import parse_version

from sklearn_si import (
    InterpolantClassifier,
    InterpolantDiffusion,
    InterpolantFlow,
    InterpolantRegressor,
    MultimarginalFlow,
    SchroedingerBridge,
)
from sklearn_si._estimators.prediction import trees
from sklearn_si.outliers import DensityOutlierDetector
from sklearn_si.tables import InterpolantImputer, TableCodec, TableSynthesizer

SMALL = {"max_iter": 3, "hidden_layer_sizes": (8,), "n_steps": 4, "ode_tol": 0.05, "random_state": 0}


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
    """Boosted trees in a tenth of the time, of which the checks ask nothing."""
    monkeypatch.setattr(trees, "_N_TREES", 20)
    monkeypatch.setattr(trees, "_N_SCALE_TREES", 6)
    monkeypatch.setattr(trees, "_RATE", 0.3)


SMALL_FLOW = InterpolantFlow(hidden_layer_sizes=(8,), preprocessing="standardize", early_stopping=False)

ESTIMATORS = [
    InterpolantFlow(**SMALL),
    InterpolantFlow("trigonometric", preprocessing="whiten", noise_level=0.5, early_stopping=False, **SMALL),
    InterpolantDiffusion(preprocessing="standardize", **SMALL),
    SchroedingerBridge(method="network", n_components=1, n_rounds=0, base_density="normal", **SMALL),
    InterpolantRegressor(
        InterpolantFlow(max_iter=3, hidden_layer_sizes=(8,), preprocessing="standardize"),
        base="boosting",
        random_state=0,
    ),
    InterpolantClassifier(
        InterpolantFlow(max_iter=30, hidden_layer_sizes=(8,), preprocessing="standardize", ode_tol=0.05), random_state=0
    ),
    TableCodec(random_state=0),
    TableSynthesizer(flow=SMALL_FLOW, max_iter=3, random_state=0),
    InterpolantImputer(TableSynthesizer(flow=SMALL_FLOW, max_iter=3), random_state=0),
    DensityOutlierDetector(GaussianMixture(2), random_state=0),
    DensityOutlierDetector(KernelDensity(), robust=True, random_state=0),
]

# Public functions that neither check_estimator nor parametrize_with_checks calls.
FURTHER_CHECKS = [
    "check_dataframe_column_names_consistency",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_global_output_transform_pandas",
    "check_param_validation",
]


# Checks that call predict_proba(X): that of a synthesizer needs the name of a column.
NEED_A_TARGET = [
    "check_dict_unchanged",
    "check_estimators_dtypes",
    "check_estimators_pickle",
    "check_estimators_unfitted",
    "check_fit2d_predict1d",
    "check_fit_idempotent",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_n_features_in_after_fitting",
]


# A fit to weighted rows has other random batches than one to repeated rows.
WEIGHTED = ["check_sample_weight_equivalence_on_dense_data"]


def expected_failed_checks(estimator):
    if isinstance(estimator, TableSynthesizer):
        return {
            **dict.fromkeys(NEED_A_TARGET, "predict_proba needs the name of a column, which no check passes"),
            **dict.fromkeys(WEIGHTED, "weights mean repeated rows in distribution: batches are drawn by weight"),
        }
    if isinstance(estimator, DensityOutlierDetector):
        return dict.fromkeys(WEIGHTED, "which rows are kept for p-values depends on how many there are")
    if isinstance(estimator, (InterpolantRegressor, InterpolantClassifier)):
        return dict.fromkeys(WEIGHTED, "weights mean repeated rows in distribution: batches are drawn by weight")
    if isinstance(estimator, (TableCodec, InterpolantImputer)):
        return {}
    return {
        "check_fit_score_takes_y": "the second argument of fit is a second sample, and its name X1 says so",
        **dict.fromkeys(WEIGHTED, "weights mean repeated rows in distribution: batches are drawn by weight"),
    }


# An argument since scikit-learn 1.8; before, strictness is pytest's own setting.
STRICT = {"xfail_strict": True} if "xfail_strict" in inspect.signature(parametrize_with_checks).parameters else {}


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_failed_checks, **STRICT)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("name", FURTHER_CHECKS)
@pytest.mark.parametrize(
    "estimator",
    [
        InterpolantFlow(preprocessing="standardize", **SMALL),
        ESTIMATORS[2],
        SchroedingerBridge(method="mixture", n_components=1, base_density="normal", **SMALL),
    ],
    ids=["flow", "diffusion", "bridge"],
)
def test_checks_that_check_estimator_leaves_out(estimator, name):
    getattr(estimator_checks, name)(type(estimator).__name__, sklearn.clone(estimator))


def test_expected_failures_are_strict_where_scikit_learn_can():
    assert bool(STRICT) == (parse_version(sklearn.__version__) >= parse_version("1.8"))


@pytest.mark.parametrize(
    "cls",
    [
        InterpolantFlow,
        InterpolantDiffusion,
        InterpolantRegressor,
        InterpolantClassifier,
        MultimarginalFlow,
        SchroedingerBridge,
        TableCodec,
        TableSynthesizer,
        InterpolantImputer,
        DensityOutlierDetector,
    ],
)
def test_every_parameter_has_a_constraint_and_a_line_in_the_docstring(cls):
    names = set(cls().get_params())
    assert names == set(cls._parameter_constraints)
    parameters = inspect.getdoc(cls).split("Parameters\n")[1].split("Attributes\n")[0]
    assert not [name for name in names if f"\n{name} : " not in parameters]
