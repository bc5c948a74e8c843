"""Any array to any public method: a finite answer of the right shape and dtype, or an error of a known kind."""

import inspect
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Bunch

from oracles import limit_levels
from sklearn_si import InterpolantDiffusion, InterpolantFlow, SchroedingerBridge, TransformedDensity
from sklearn_si import metrics as library_metrics
from sklearn_si.exceptions import IntegrationWarning
from sklearn_si.tables import InterpolantImputer, TableCodec, TableSynthesizer

RNG = np.random.default_rng(0)
X, X1 = RNG.normal(size=(60, 2)), RNG.normal(1.0, 2.0, size=(50, 2))
FRAME = pd.DataFrame({"a": X[:, 0], "k": RNG.choice(list("uv"), 60)})
SMALL = {"max_iter": 3, "hidden_layer_sizes": (4,), "n_steps": 2, "random_state": 0}
# What users are promised to see: all errors of the library are ValueErrors, scikit-learn's TypeErrors among them.
EXPECTED = (ValueError, TypeError)

awkward = st.sampled_from([
    0.0, -0.0, 1.0, 1e-300, 5e-324, 1e300, -1e300, 1e12, 1e-12, 1e8, 2.0**53, np.nan, np.inf, -np.inf, 0.5, 3.0,
])  # fmt: skip
usual = st.floats(-5, 5, width=32)
dtypes = st.sampled_from(["f8", "f4", "f2", ">f8", ">f4", "i8", "i2", "u1", "?", "O", "c16", "U8"])


@st.composite
def arrays(draw, most_rows=9, finite=False):
    """Arrays of any dimension, mostly of two columns, of any dtype, order and kind."""
    n_dims = draw(st.sampled_from([2, 2, 2, 2, 2, 0, 1, 3]))
    shape = tuple(draw(st.integers(0, most_rows)) for _ in range(n_dims))
    if n_dims == 2:
        shape = shape[0], draw(st.sampled_from([2, 2, 2, 2, 1, 3, 0]))
    elements = usual if finite or draw(st.booleans()) else awkward
    rows = draw(hnp.arrays(np.float64, shape, elements=elements))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = rows.astype(draw(dtypes))
    if draw(st.booleans()) and rows.ndim:
        rows = rows[::-1]
    kind = draw(st.sampled_from(["array", "array", "read-only", "list", "frame", "fortran"]))
    if kind == "read-only":
        rows = rows.copy()
        rows.setflags(write=False)
    if kind == "frame" and rows.ndim == 2 and rows.dtype.isnative and rows.dtype != np.float16:
        return pd.DataFrame(rows)
    return {"list": rows.tolist, "fortran": lambda: np.asfortranarray(rows)}.get(kind, lambda: rows)()


@pytest.fixture(scope="module", autouse=True)
def few_refinements():
    with pytest.MonkeyPatch.context() as patch:
        limit_levels(patch, 2)
        yield


@pytest.fixture(scope="module")
def models():
    """One fitted model of each kind. Shared: tests must not change them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "flow": InterpolantFlow(**SMALL).fit(X),
            "single precision": InterpolantFlow(**SMALL).fit(X.astype(np.float32)),
            "marginal": InterpolantFlow(preprocessing="marginal", **SMALL).fit(np.exp(X)),
            "bridge": InterpolantDiffusion(base_density="normal", **SMALL).fit(X, X1),
            "mirror": InterpolantDiffusion(interpolant="mirror", **SMALL).fit(X),
            "plan": SchroedingerBridge(
                method="network", base_density="normal", n_components=1, n_rounds=0, **SMALL
            ).fit(X, X1),
            "transformed": TransformedDensity(StandardScaler(), InterpolantFlow(**SMALL)).fit(X),
            "table": TableSynthesizer(max_iter=3, random_state=0).fit(FRAME),
            "imputer": InterpolantImputer(TableSynthesizer(max_iter=3), random_state=0).fit(X),
            "codec": TableCodec(random_state=0).fit(FRAME),
        }


STILL = Bunch(velocity=lambda X, t: 0 * X, score_function=lambda X, t: -X)
# Methods of rows, with what else they are given; the others have no argument of rows.
OTHERS = {
    "velocity": {"t": 0.5}, "score_function": {"t": 0.3}, "denoiser": {"t": 0.3}, "predict_target": {"t": 0.7},
    "interpolate": {"X1": X1[:3], "t": 0.5}, "trajectory": {"n_times": 3}, "log_density_bound": {"n_paths": 2},
    "predict_proba": {"target": "k"}, "kl_bound": {"reference": STILL}, "optimal_noise_level": {"reference": STILL},
}  # fmt: skip
NOT_OF_ROWS = {
    "fit", "fit_transform", "sample", "distill", "rectify", "get_feature_names_out", "get_metadata_routing",
    "get_params", "set_params", "set_output", "set_callbacks", "levels", "decode", "diagnose", "fisher_divergence",
}  # fmt: skip


def methods_of_rows(model):
    public = (name for name, value in inspect.getmembers(type(model), callable) if not name.startswith(("_", "set_")))
    return [name for name in public if name not in NOT_OF_ROWS and hasattr(model, name)]


def numbers_in(result):
    """The numbers of an answer, whatever it is: arrays, frames, tuples, bunches, numbers."""
    if isinstance(result, dict):
        result = tuple(result.values())
    if isinstance(result, (tuple, list)):
        return [x for part in result for x in numbers_in(part)]
    if hasattr(result, "select_dtypes"):
        result = result.select_dtypes("number").to_numpy()
    return [np.asarray(result)] if np.asarray(result).dtype.kind == "f" else []


def answered(call, *args, told=None, **kwargs):
    """What a method answers, None where it raises an error of a known kind; warnings of numpy are failures.

    In the list `told` are then the warnings of rows that became infinite or NaN.
    """
    with warnings.catch_warnings(record=told is not None) as messages:
        warnings.simplefilter("error", RuntimeWarning)
        # of scikit-learn's own search for infinities of both signs
        warnings.filterwarnings("ignore", "invalid value encountered in reduce", RuntimeWarning)
        for category in (ConvergenceWarning, UserWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        warnings.simplefilter("ignore" if told is None else "always", IntegrationWarning)
        try:
            result = call(*args, **kwargs)
            if told is not None:
                told.extend(str(w.message) for w in messages if "are NaN in the result" in str(w.message))
            return result
        except EXPECTED as error:
            assert len(str(error)) > 10
            return None


KINDS = ["flow", "single precision", "marginal", "bridge", "mirror", "plan", "transformed", "table", "imputer", "codec"]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=arrays(), pick=st.integers(0, 10**6))
def test_any_rows_to_any_method_of_a_fitted_model(models, kind, rows, pick):
    model = models[kind]
    names = methods_of_rows(model)
    name = names[pick % len(names)]
    before = joblib.hash(rows)
    told = []
    result = answered(getattr(model, name), rows, told=told, **OTHERS.get(name, {}))
    assert joblib.hash(rows) == before
    of_tables = kind in ("imputer", "codec", "table")
    for numbers in numbers_in(result):
        # tables keep gaps, and a mass of nil has the logarithm -inf; rows that are lost are NaN and named
        assert of_tables or np.isfinite(numbers).all() or (told and not np.isinf(numbers).any()), name
    single = getattr(rows, "dtype", None) in (np.float32, np.dtype(">f4"))
    if (
        single
        and isinstance(result, np.ndarray)
        and kind not in ("imputer", "codec", "table")
        and name != "interpolate"
    ):
        assert result.dtype == np.float32, name


@settings(max_examples=120, deadline=None, derandomize=True)
@given(rows=arrays(most_rows=14), second=st.one_of(st.none(), st.none(), arrays()))
def test_any_rows_to_fit(rows, second):
    model = InterpolantFlow(base_density="normal", preprocessing="standardize", **SMALL)
    if answered(model.fit, rows, second) is None:
        return
    drawn = answered(model.sample, 5)
    assert drawn is None or np.isfinite(drawn).all()
    told = []
    density = answered(model.score_samples, rows if model.base_sample_ is None else second, told=told)
    assert density is None or np.isfinite(density).all() or told


@settings(max_examples=60, deadline=None, derandomize=True)
@given(real=arrays(finite=True), synthetic=arrays(finite=True), pick=st.integers(0, 100))
def test_any_rows_to_metrics_of_two_samples(real, synthetic, pick):
    names = ["energy_distance", "maximum_mean_discrepancy", "sliced_wasserstein", "wasserstein_distance"]
    value = answered(getattr(library_metrics, names[pick % len(names)]), real, synthetic)
    for numbers in numbers_in(value):
        assert np.isfinite(numbers).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    n=st.one_of(st.integers(-3, 12), st.sampled_from([None, 2.0, "3", True, np.int64(4), 10**30, [1], np.nan])),
    kind=st.sampled_from(["flow", "bridge", "plan", "transformed", "table"]),
)
def test_any_number_of_rows_to_sample(models, n, kind):
    rows = answered(models[kind].sample, n) if n != 10**30 else None
    assert rows is None or len(rows) == (1 if n is None else n)


def test_every_method_of_rows_is_among_those_that_are_tried(models):
    tried = {name for model in models.values() for name in methods_of_rows(model)}
    assert {"transform", "inverse_transform", "score_samples", "resample", "sample_plan", "impute", "encode"} <= tried
    assert len(tried) >= 20
