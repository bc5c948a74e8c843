"""Bad input: each with the words of its error. Odd but good input: the right answer."""

import datetime

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import scipy.stats
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError

from oracles import limit_levels
from sklearn_si import InterpolantDiffusion, InterpolantFlow, SchroedingerBridge, TransformedDensity
from sklearn_si.displays import CalibrationDisplay, DensityDisplay
from sklearn_si.exceptions import IntegrationError, IntegrationWarning, NoDensityError

SMALL = {
    "max_iter": 5, "hidden_layer_sizes": (8,), "n_steps": 4, "base_density": None, "preprocessing": "standardize",
    "random_state": 0,
}  # fmt: skip
BOTH = [InterpolantFlow, InterpolantDiffusion]
METHODS = ["transform", "inverse_transform", "score_samples", "score"]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 2))
X1 = RNG.normal(3.0, 1.0, size=(50, 2))
DAYS = np.datetime64("2024-01-01") + np.arange(20)
FRAME = pd.DataFrame(X, columns=["a", "b"])


def flow(**params):
    return InterpolantFlow(**{**SMALL, **params})


def diffusion(**params):
    return InterpolantDiffusion(**{**SMALL, **params})


@pytest.fixture(scope="module")
def one():
    """A flow fitted to one sample, with names. Shared: tests must not change it."""
    return flow().fit(FRAME)


@pytest.fixture(scope="module")
def two():
    """A diffusion fitted to two samples. Shared: tests must not change it."""
    return diffusion().fit(X, X1)


def with_value(value):
    rows = X.copy()
    rows[3, 1] = value
    return rows


DATES = "has dates or time differences, which are not numbers of a known unit: convert them first"

# Rows that neither fit nor any other method takes: (rows, error, message).
BAD_ROWS = {
    "nan": (with_value(np.nan), ValueError, "contains NaN"),
    "inf": (with_value(np.inf), ValueError, "contains infinity"),
    "missing integer": (
        pd.DataFrame({"a": pd.array([1, 2, None, 4], dtype="Int64"), "b": [1.0, 3.0, 2.0, 5.0]}),
        ValueError,
        "contains NaN",
    ),
    "empty": (np.empty((0, 2)), ValueError, r"Found array with 0 sample\(s\)"),
    "no column": (np.empty((9, 0)), ValueError, r"Found array with 0 feature\(s\)"),
    "none": (None, ValueError, "Expected 2D array, got scalar array instead"),
    "scalar": (3.0, ValueError, "Expected 2D array, got scalar array instead"),
    "1-D": (X[:, 0], ValueError, "Expected 2D array, got 1D array instead"),
    "3-D": (X[:, :, None], ValueError, "Found array with dim 3"),
    "ragged": ([[1.0, 2.0], [3.0]], ValueError, "inhomogeneous shape"),
    "strings": (np.array([["a", "b"]] * 9), ValueError, "could not convert string to float"),
    "categories": (FRAME.assign(b=pd.Categorical(["u"] * 60)), ValueError, "could not convert string to float"),
    "complex": (X + 1j, ValueError, "Complex data not supported"),
    "sparse": (scipy.sparse.csr_matrix(X), TypeError, "dense data is required"),
    "sparse array": (scipy.sparse.coo_array(X), TypeError, "dense data is required"),
    "dates": (np.column_stack([DAYS, DAYS]), ValueError, DATES),
    "time differences": (np.column_stack([DAYS, DAYS]) - DAYS[0], ValueError, DATES),
    "list of dates": ([[day, day] for day in DAYS], ValueError, DATES),
    "list of datetimes": ([[datetime.datetime(2024, 1, k + 1), k] for k in range(9)], ValueError, DATES),
    "objects: dates": (np.array([[day, 1.0] for day in DAYS], dtype=object), ValueError, DATES),
    "objects: date": (np.array([[datetime.date(2024, 1, k + 1), k] for k in range(9)]), ValueError, DATES),
    "objects: timedelta": (np.array([[datetime.timedelta(k), k] for k in range(9)]), ValueError, DATES),
    "objects: time": (np.array([[datetime.time(k), k] for k in range(9)]), ValueError, DATES),
    "column of dates": (FRAME.assign(b=pd.date_range("2024", periods=60)), ValueError, DATES),
    "column of dates with a zone": (FRAME.assign(b=pd.date_range("2024", periods=60, tz="UTC")), ValueError, DATES),
    "column of time differences": (FRAME.assign(b=pd.timedelta_range("1D", periods=60)), ValueError, DATES),
    "column of periods": (FRAME.assign(b=pd.period_range("2024", periods=60, freq="D")), ValueError, DATES),
    "column of timestamps as objects": (
        FRAME.assign(b=pd.Series(list(pd.date_range("2024", periods=60)), dtype=object)), ValueError, DATES,
    ),
    "only dates": (pd.DataFrame({"a": DAYS, "b": DAYS}), ValueError, DATES),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ROWS)
@pytest.mark.parametrize("cls", BOTH)
def test_fit_refuses_bad_rows(cls, name):
    rows, error, message = BAD_ROWS[name]
    with pytest.raises(error, match=message):
        cls(**SMALL).fit(rows)


# A 1-D second argument is labels, None is no sample: both have tests of their own.
@pytest.mark.parametrize(
    "name", [name for name in BAD_ROWS if name not in ("1-D", "none", "3-D", "scalar", "no column")]
)
def test_fit_refuses_a_bad_second_sample(name):
    rows, error, message = BAD_ROWS[name]
    with pytest.raises(error, match=message):
        flow().fit(FRAME if isinstance(rows, pd.DataFrame) else X, rows)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("name", BAD_ROWS)
@pytest.mark.parametrize("method", METHODS)
def test_methods_refuse_bad_rows(one, method, name):
    rows, error, message = BAD_ROWS[name]
    with pytest.raises(error, match=message):
        getattr(one, method)(rows)


# Samples that can be transported, but have no density: (rows, message).
NO_DENSITY = {
    "one row": (X[:1], r"Found array with 1 sample\(s\) .* while a minimum of 2 is required"),
    "constant column": (np.column_stack([X, np.ones(60)]), r"Columns \[2\] of X are constant, .* drop them"),
    "column of zeros": (np.column_stack([X, np.zeros(60)]), r"Columns \[2\] of X are constant, .* drop them"),
    "constant but for rounding": (np.column_stack([X, 1e8 + 1e-9 * X[:, 0]]), r"Columns \[2\] of X are constant"),
    "constant columns": (np.column_stack([np.ones(60), X, np.ones(60)]), r"Columns \[0, 3\] of X are constant"),
    "duplicated column": (X[:, [0, 1, 0]], r"Columns \[0, 2\] of X are linearly dependent \(or duplicates\), .* drop"),
    "opposite column": (np.column_stack([X, 5 - X[:, 1]]), r"Columns \[1, 2\] of X are linearly dependent"),
    "sum of columns": (np.column_stack([X, X.sum(1)]), r"Columns \[0, 1, 2\] of X are linearly dependent"),
    "equal rows": (np.ones((20, 2)), r"Columns \[0, 1\] of X are constant"),
}


@pytest.mark.parametrize("name", NO_DENSITY)
@pytest.mark.parametrize("cls", BOTH)
def test_a_sample_without_density_is_refused(cls, name):
    rows, message = NO_DENSITY[name]
    with pytest.raises(ValueError, match=message):
        cls(**SMALL).fit(rows)


@pytest.mark.parametrize("end", ["X0", "X1"])
@pytest.mark.parametrize("base_density", ["flow", "normal"])
def test_a_bridge_without_density_is_refused_with_the_way_out(end, base_density):
    flat = np.column_stack([X[:, 0], np.ones(60)])
    samples = (flat, X) if end == "X0" else (X, flat)
    with pytest.raises(
        ValueError, match=rf"Columns \[1\] of {end} are constant, .* set base_density=None if transport"
    ):
        flow(base_density=base_density).fit(*samples)


def test_a_constant_column_is_carried_along_without_a_density():
    x0, x1 = (np.column_stack([rows, np.full(len(rows), value)]) for rows, value in ((X, 2.0), (X1, 7.0)))
    model = flow().fit(x0, x1)
    assert_allclose(model.transform(x0)[:, 2], 7.0, atol=0.05)
    assert_allclose(model.sample(20)[:, 2], 7.0, atol=0.05)


# ------------------------------------------------------------------------ odd but good input


def test_one_column():
    x = RNG.normal(3.0, 0.5, size=(2000, 1))
    model = flow(max_iter=200, hidden_layer_sizes=(16,)).fit(x)
    grid = np.linspace(2.0, 4.0, 9)[:, None]
    assert_allclose(model.score_samples(grid), scipy.stats.norm(3.0, 0.5).logpdf(grid[:, 0]), atol=0.2)
    assert model.sample(7).shape == model.transform(x[:7]).shape == (7, 1)


def test_one_row_to_a_method_is_the_same_as_among_others(one):
    for method in METHODS[:3]:
        alone = getattr(one, method)(FRAME[:1])
        assert_allclose(alone, getattr(one, method)(FRAME)[:1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("args", [(X[:2],), (X[:3],), (X[:2], X1[:2]), (X[:2], X1), (X[:3], X1[:2])])
@pytest.mark.parametrize("cls", BOTH)
def test_as_few_rows_as_two(cls, args):
    model = cls(**SMALL).fit(*args)
    assert np.isfinite(model.sample(20)).all()
    assert np.isfinite(model.transform(args[0])).all()


@pytest.mark.parametrize("preprocessing", ["auto", "standardize", "whiten"])
def test_fewer_rows_than_columns(preprocessing):
    rows = RNG.normal(size=(5, 8))
    model = flow(preprocessing=preprocessing).fit(rows)
    assert model.sample(3).shape == (3, 8)
    assert np.isfinite(model.sample(3)).all()


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint16, bool, object, np.float16, np.longdouble])
def test_numbers_of_other_types_are_those_numbers(dtype):
    rows = (X > 0.3).astype(dtype)
    model, expected = flow().fit(rows), flow().fit(rows.astype(np.float64))
    assert_array_equal(model.score_samples(rows), expected.score_samples(rows.astype(np.float64)))
    assert model.sample(3).dtype == model.transform(rows).dtype == np.float64
    assert_array_equal(model.sample(3), expected.sample(3))


@pytest.mark.parametrize("order", ["reversed", "strided", "readonly", "fortran"])
def test_memory_layout_does_not_matter(one, order):
    rows = {
        "reversed": X[::-1][::-1], "strided": np.repeat(X, 2, axis=0)[::2], "fortran": np.asfortranarray(X),
        "readonly": np.frombuffer(X.tobytes()).reshape(X.shape),
    }[order]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["a", "b"])
    assert_allclose(flow().fit(rows).score_samples(rows), one.score_samples(frame), rtol=1e-9)


@pytest.mark.parametrize("shift, scale", [(1e6, 1.0), (0.0, 1e-8), (0.0, 1e12), (-1e4, 1e-3)])
def test_units_change_the_log_density_by_their_logarithm(one, shift, scale):
    rows = shift + scale * X
    value = flow().fit(rows).score_samples(rows)
    assert_allclose(value, one.score_samples(FRAME) - 2 * np.log(scale), rtol=0, atol=5e-3)


# --------------------------------------------------------------------------- the second sample

SECOND = {
    "1-D of another length": ((X, X1[:, 0]), {}, "X1 is 1-D with 50 entries while X0 has 60 rows"),
    "1-D list of another length": ((X, [0, 1]), {}, "X1 is 1-D with 2 entries while X0 has 60 rows"),
    "1-D and one feature": ((X[:, :1], X[:, 1]), {}, r"X0 has one column \(n_features = 1\)"),
    "1-D, one feature, another length": ((X[:, :1], X1[:, 1]), {}, r"n_features = 1.*X1.reshape\(-1, 1\) for a bridge"),
    "3-D": ((X, X1[:, :, None]), {}, "X1 has 3 dimensions, but expected a sample of shape"),
    "scalar": ((X, 1.0), {}, "X1 has 0 dimensions, but expected a sample of shape"),
    "too few columns": ((X, X1[:, :1]), {}, "X1 has 1 features, but expected 2"),
    "too many columns": ((X, X1[:, [0, 1, 1]]), {}, "X1 has 3 features, but expected 2"),
    "one row": ((X, X1[:1]), {}, r"Found array with 1 sample\(s\)"),
    "other names": (
        (FRAME, FRAME.set_axis(["a", "c"], axis=1)), {},
        r"X1 must have the columns of fit: missing \['b'\], unknown \['c'\]; they are \['a', 'b'\]",
    ),
    "paired, other lengths": ((X, X1), {"coupling": "paired"}, "X0 has 60 rows and X1 has 50: use coupling='indep"),
    "paired, one sample": ((X,), {"coupling": "paired"}, "pairs the rows of two samples, but fit was given one"),
    "noise without a score": ((X, X1), {"noise_level": 0.5}, "noise_level=0.5 after a fit of two samples.*Diffusion"),
    "one-sided interpolant": ((X, X1), {"interpolant": "vp"}, "interpolant='vp' is for one sample, but fit was given"),
    "mirror of two samples": ((X, X1), {"interpolant": "mirror"}, "interpolant='mirror' is for one sample"),
    "few rows for a normal base": ((X[:2], X1), {"base_density": "normal"}, "more than n_features = 2 rows of X0"),
}  # fmt: skip


@pytest.mark.parametrize("name", SECOND)
def test_second_samples_that_do_not_fit(name):
    args, params, message = SECOND[name]
    with pytest.raises(ValueError, match=message):
        flow(**params).fit(*args)


def test_score_refuses_a_sample_of_three_dimensions(two):
    with pytest.raises(ValueError, match="y has 3 dimensions, but expected a sample of shape"):
        two.score(X, X1[:, :, None])


# ------------------------------------------------------------------------------- parameters

NAMES = {
    "interpolant": ["linear", "trigonometric", "encoding-decoding"],
    "gamma": ["auto", "brownian", "quadratic", "sine", "sine-squared", "sigmoid"],
    "coupling": ["independent", "paired"],
    "solver": ["auto", "euler", "midpoint", "heun", "rk4", "dopri5", "euler-maruyama", "stochastic-heun"],
    "preprocessing": ["auto", "standardize", "whiten"],
    "noise_schedule": ["gamma", "constant"],
    "activation": ["silu", "tanh", "softplus"],
    "time_distribution": ["auto", "uniform", "logit-normal", "data-end", "arcsine"],
    "base_density": ["flow", "normal", "standard_normal"],
    "network": ["mlp"],
    "hidden_layer_sizes": ["auto"],
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cls", BOTH)
def test_an_unknown_name_is_answered_with_the_known_ones(cls, name):
    known = "".join(f"(?=.*'{value}')" for value in NAMES[name])
    message = f"(?s){known}.*The '{name}' parameter of {cls.__name__} must be .*Got 'nonesuch' instead"
    with pytest.raises(ValueError, match=message):
        cls(**{**SMALL, name: "nonesuch"}).fit(X)


OUT_OF_RANGE = [
    ("noise_level", -1, r"a float in the range \[0.0, inf\). Got -1"),
    ("noise_level", np.nan, "Got nan"),
    ("noise_level", np.inf, "Got inf"),
    ("gamma_scale", 0, r"a float in the range \(0.0, inf\). Got 0"),
    ("n_steps", 0, r"an int in the range \[1, inf\). Got 0"),
    ("n_steps", 2.5, "Got 2.5"),
    ("ode_tol", 0, r"a float in the range \(0.0, inf\). Got 0"),
    ("ode_tol", -1e-3, "Got -0.001"),
    ("ode_tol", np.nan, "Got nan"),
    ("validation_fraction", 1.0, r"a float in the range \(0.0, 1.0\). Got 1.0"),
    ("validation_fraction", 0.0, "Got 0.0"),
    ("hidden_layer_sizes", 0, "Got 0"),
    ("hidden_layer_sizes", (), r"Got hidden_layer_sizes=\(\), but expected one or more integers of at least 1"),
    ("hidden_layer_sizes", (8, 0), r"Got hidden_layer_sizes=\(8, 0\), but expected one or more integers"),
    ("hidden_layer_sizes", (8.5,), r"Got hidden_layer_sizes=\(8.5,\), but expected one or more integers"),
    ("hidden_layer_sizes", ("a",), r"Got hidden_layer_sizes=\('a',\), but expected one or more integers"),
    ("batch_size", 0, r"an int in the range \[1, inf\). Got 0"),
    ("learning_rate_init", 0.0, "Got 0.0"),
    ("max_iter", 0, "Got 0"),
    ("max_time", 0, r"a float in the range \(0.0, inf\) or None. Got 0"),
    ("tol", -1.0, "Got -1.0"),
    ("n_iter_no_change", 0, "Got 0"),
    ("early_stopping", "yes", "Got 'yes'"),
    ("warm_start", 2, "Got 2"),
    ("verbose", -1, "Got -1"),
    ("random_state", -1, "Got -1"),
    ("random_state", "a", "Got 'a'"),
    ("interpolant", 3, "Got 3"),
    ("gamma", 1.0, "Got 1.0"),
    ("base_density", object, "an object implementing 'fit' and 'score_samples'"),
    ("device", 3, "Got 3"),
]


@pytest.mark.parametrize("name, value, message", OUT_OF_RANGE)
def test_parameters_out_of_range(name, value, message):
    with pytest.raises(ValueError, match=rf"(?=.*\b{name}\b).*{message}"):
        flow(**{name: value}).fit(X)


def test_an_unknown_device_is_a_value_error():
    with pytest.raises(ValueError, match="device='nonesuch'"):
        flow(device="nonesuch").fit(X)


@pytest.mark.parametrize("device", ["cuda:99", torch.device("cuda", 99), "xpu:99", "meta"])
def test_a_device_that_is_not_here_is_a_value_error_that_says_what_is(device):
    with pytest.raises(ValueError, match=rf"Got device='{device}', but this machine has \['cpu'.*device='auto'"):
        flow(device=device).fit(X)
    model = flow().fit(X).set_params(device=device)
    for call in (model.sample, lambda: model.score_samples(X), lambda: model.transform(X)):
        with pytest.raises(ValueError, match=r"but this machine has \['cpu'"):
            call()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_here_is_a_value_error():
    with pytest.raises(ValueError, match=r"Got device='cuda', but this machine has \['cpu'\]"):
        flow(device="cuda").fit(X)


CLASHES = [
    ({"interpolant": "encoding-decoding", "gamma": None}, "interpolant='encoding-decoding' needs latent noise"),
    ({"interpolant": "trigonometric-preserving", "gamma": "sine", "gamma_scale": 4.0}, "needs gamma < 1 at all times"),
]


@pytest.mark.parametrize("params, message", CLASHES)
def test_parameters_that_clash(params, message):
    with pytest.raises(ValueError, match=message):
        flow(**params).fit(X)


@pytest.mark.parametrize(
    "name, value",
    [("n_steps", 0), ("solver", "nonesuch"), ("noise_level", -1), ("ode_tol", 0), ("noise_schedule", "x")],
)
@pytest.mark.parametrize("method", ["sample", *METHODS])
def test_parameters_set_after_fit_are_checked_too(method, name, value):
    model = flow().fit(X[:10]).set_params(**{name: value})
    with pytest.raises(ValueError, match=f"The '{name}' parameter of InterpolantFlow must be .* Got {value!r} instead"):
        getattr(model, method)(*(() if method == "sample" else (X,)))


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun", "rk4", "dopri5", lambda f, x, times: x])
def test_a_solver_of_the_ode_refuses_noise(solver):
    model = diffusion(solver=solver, noise_level=0.5).fit(X)
    with pytest.raises(
        ValueError, match=r"integrates the ODE, but noise_level=0\.5 > 0 asks for the SDE: use solver='a"
    ):
        model.sample()
    assert np.isfinite(model.set_params(noise_level=0.0).sample()).all()


def test_noise_set_after_a_fit_without_a_score():
    model = flow().fit(X, X1).set_params(noise_level=0.5)
    with pytest.raises(ValueError, match=r"noise_level=0\.5 after a fit of two samples.*use InterpolantDiffusion, or"):
        model.sample()


# --------------------------------------------------------------------- methods of fitted models


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("method", ["sample", *METHODS])
def test_unfitted_use(cls, method):
    with pytest.raises(NotFittedError, match=f"This {cls.__name__} instance is not fitted yet"):
        getattr(cls(), method)(*(() if method == "sample" else (X,)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_columns", [1, 3])
def test_another_number_of_columns(two, method, n_columns):
    message = f"X has {n_columns} features, but InterpolantDiffusion (is expecting|expects) 2"
    with pytest.raises(ValueError, match=message):
        getattr(two, method)(np.ones((5, n_columns)))


@pytest.mark.parametrize("method", ["transform", "score_samples", "score"])
def test_other_feature_names(one, method):
    with pytest.raises(ValueError, match=r"(?s)feature names should match.*unseen at fit time.*- c"):
        getattr(one, method)(FRAME.set_axis(["a", "c"], axis=1))


def test_inverse_transform_takes_base_points_without_names(one):
    assert_array_equal(one.inverse_transform(FRAME.set_axis(["p", "q"], axis=1)), one.inverse_transform(X))


@pytest.mark.parametrize("n_samples", [0, -1, 2.5, 2.0, True, "3", np.nan], ids=repr)
def test_bad_numbers_of_samples(one, n_samples):
    with pytest.raises(ValueError, match=f"Got n_samples={n_samples!r}, but expected an integer of at least 1"):
        one.sample(n_samples)


@pytest.mark.parametrize("random_state", ["a", 2.5, np.random.default_rng(0)], ids=["str", "float", "generator"])
def test_bad_seeds_of_samples(one, random_state):
    with pytest.raises(ValueError, match=r"cannot be used to seed a numpy\.random.RandomState instance"):
        one.sample(2, random_state=random_state)


WEIGHTS = [
    (np.ones(6), r"sample_weight has the shape \(6,\), but expected \(60,\)"),
    (np.full(60, np.nan), "sample_weight is nan at row 0 of X"),
    (np.ones((60, 2)), r"sample_weight has the shape \(60, 2\), but expected"),
]


@pytest.mark.parametrize("weight, message", WEIGHTS)
def test_bad_weights(one, weight, message):
    with pytest.raises(ValueError, match=message):
        one.score(FRAME, sample_weight=weight)


@pytest.mark.parametrize("method", ["score_samples", "score"])
def test_no_density_without_a_density_of_the_base(two, method):
    with pytest.raises(NoDensityError, match=r"\(base_density=None, or .*\): fit with base_density='flow'"):
        getattr(two, method)(X1)


@pytest.mark.filterwarnings("ignore:1 of 2 rows are not within ode_tol")
def test_rows_beyond_the_range_of_floats(one, monkeypatch):
    limit_levels(monkeypatch, 2)  # no level brings such a row back
    rows, message = FRAME[:2].mul([1.0, 1e300], axis=0), "1 of 2 rows became infinite or NaN while computing log-dens"
    with pytest.warns(IntegrationWarning, match=rf"{message}.* Rows: 1\."):
        scores = one.score_samples(rows)
    assert np.isfinite(scores[0]) and np.isnan(scores[1])
    with pytest.raises(IntegrationError, match=message):
        one.score(rows)


WARM = [
    (flow, (X[:, :1],), "networks of 2 features, but X0 has 1 features: set warm_start=False"),
    (flow, (X, X1), r"a fit of one sample\(s\), but fit was given two sample\(s\): set warm_start=False"),
    (diffusion, (X, X1), r"a fit of one sample\(s\), but fit was given two sample\(s\): set warm_start=False"),
]


@pytest.mark.parametrize("make, args, message", WARM)
def test_a_warm_start_needs_the_same_shape_of_problem(make, args, message):
    model = make(warm_start=True).fit(X)
    with pytest.raises(ValueError, match=message):
        model.fit(*args)


def test_a_warm_start_does_not_go_from_a_bridge_to_one_sample():
    model = diffusion(warm_start=True).fit(X, X1)
    with pytest.raises(ValueError, match=r"a fit of two sample\(s\), but fit was given one sample\(s\)"):
        model.fit(X)


GAPS = X.copy()
GAPS[3, 1] = np.nan
NAMED = [
    ((X, X1[:, :1]), "X1 has 1 features, but expected 2 as in X0 of fit"),
    ((X, GAPS), "Input X1 contains NaN"),
    ((X, X1[:1]), r"1 sample\(s\) in X1, while a minimum of 2 is required"),
    ((GAPS,), r"(?s)at fault are \[1\].*fill the missing values \(InterpolantImputer\)"),
    ((np.array([["a", "b"], ["c", "d"]], dtype=object),), "TableSynthesizer learns columns of text"),
]


@pytest.mark.parametrize("make", [flow, diffusion], ids=["flow", "diffusion"])
@pytest.mark.parametrize("samples, message", NAMED)
def test_errors_of_samples_name_them_and_the_way_out(make, samples, message):
    with pytest.raises(ValueError, match=message):
        make().fit(*samples)


@pytest.mark.filterwarnings("error:X does not have valid feature names")
def test_what_the_library_computes_of_a_frame_needs_no_names(one):
    one.fisher_divergence(FRAME[:10])
    assert "E[f . (f - target)]" in str(one.diagnose(FRAME[:10]))
    DensityDisplay.from_estimator(one, FRAME)
    CalibrationDisplay.from_estimator(one, FRAME[:10])
    with pytest.raises(ValueError, match="feature names should match"):
        one.diagnose(FRAME[FRAME.columns[::-1]])


def test_maps_tell_what_they_are(one):
    assert repr(one.preprocessing_).startswith(("AffineMap(2 columns, ", "MarginalMap(2 columns, "))


@pytest.mark.parametrize("reference", [None, np.zeros, "self", 3])
def test_a_reference_without_fields_is_refused(two, reference):
    for method in (two.kl_bound, two.optimal_noise_level):
        with pytest.raises(ValueError, match=r"without the methods \['velocity', 'score_function'\], but expected an"):
            method(X, X1, reference=reference)
    if reference is not None:
        with pytest.raises(ValueError, match=r"expected an object with velocity\(X, t\)"):
            two.fisher_divergence(X, X1, reference=reference)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full(60, 3.0), r"Columns \['b'\] of {} are constant"),
        (np.linspace(0, 1e200, 60), r"Columns \['b'\] of {} have a range"),
        (X[:, 0], r"Columns \['a', 'b'\] of {} are linearly dependent"),
    ],
)
def test_columns_of_a_frame_are_named_in_errors(values, message):
    frame = pd.DataFrame({"a": X[:, 0], "b": values, "c": X[:, 1]})
    sound = pd.DataFrame(RNG.normal(size=(60, 3)), columns=["a", "b", "c"])
    with pytest.raises(ValueError, match=message.format("X")):
        InterpolantFlow(max_iter=2).fit(frame)
    with pytest.raises(ValueError, match=message.format("X1")):
        InterpolantFlow(max_iter=2).fit(sound, frame)
    with pytest.raises(ValueError, match=message.format("X0")):
        InterpolantFlow(max_iter=2).fit(frame, sound)
    with pytest.raises(ValueError, match=message.format("X1")):
        SchroedingerBridge().fit(sound, frame)


class Rounded:
    """A transformer that loses digits of the second column."""

    def transform(self, rows):
        return rows

    def inverse_transform(self, rows):
        return np.column_stack([rows[:, 0], rows[:, 1].round()])

    def log_abs_det_jacobian(self, rows):
        return np.zeros(len(rows))


def test_columns_that_do_not_come_back_from_a_transformer_are_named():
    frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1]})
    with pytest.raises(ValueError, match=r"in columns \['b'\]"):
        TransformedDensity(Rounded(), InterpolantFlow(max_iter=2)).fit(frame)


def test_errors_call_the_rows_as_fit_was_given_them():
    dated = X.astype("datetime64[s]")
    with pytest.raises(ValueError, match=r"^X has dates"):
        InterpolantFlow(max_iter=2).fit(dated)
    with pytest.raises(ValueError, match=r"^X0 has dates"):
        InterpolantFlow(max_iter=2).fit(dated, X)
    with pytest.raises(ValueError, match=r"^X1 has dates"):
        SchroedingerBridge().fit(X, dated)
