"""Awkward samples, each with its outcome, written down first: a finite model, or an error that names why."""

import warnings
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Bunch

from oracles import limit_levels
from sklearn_si import InterpolantDiffusion, InterpolantFlow
from sklearn_si.exceptions import IntegrationError, IntegrationWarning
from sklearn_si.tables import InterpolantImputer, TableCodec, TableSynthesizer

RNG = np.random.default_rng(0)
N = RNG.normal(size=(150, 2))
M = RNG.normal([2.0, -1.0], [0.5, 2.0], size=(120, 2))
SIGN = np.where(np.arange(150) % 2, 1.0, -1.0)[:, None]
SMALL = {"max_iter": 60, "hidden_layer_sizes": (8,), "random_state": 0}
CONSTANT, DEPENDENT = "are constant", "are linearly dependent"
FITS = None  # the outcome of a sample that is fitted without a word


def at(rows, value, place=(3, 1)):
    rows = rows.copy()
    rows[place] = value
    return rows


def read_only(rows):
    return np.frombuffer(rows.tobytes()).reshape(rows.shape)


def rank_one(rows, noise):
    return np.column_stack([rows[:, 0], rows[:, 0] + noise * rows[:, 1]])


# name -> (one sample, the words of its error or FITS)
ONE = {
    # units and places
    "scale 1e-12": (1e-12 * N, FITS),
    "scale 1e-6": (1e-6 * N, FITS),
    "scale 1e6": (1e6 * N, FITS),
    "scale 1e12": (1e12 * N, FITS),
    "scale 1e-130": (1e-130 * N, FITS),
    "scale 1e130": (1e130 * N, FITS),
    "scale 1e300": (1e300 * N, r"Columns \[0, 1\] of X have a range of .*e\+300, whose square is beyond the range"),
    "columns of 1e-12 and 1e12": (N * [1e-12, 1e12], FITS),
    "offset 1e8": (N + 1e8, FITS),
    "offset 1e12": (N + 1e12, FITS),
    "offset 1e8 in float32: a step of 8": ((100 * N + 1e8).astype(np.float32), FITS),
    "offset 1e8, spread lost in float32": ((N + 1e8).astype(np.float32), CONSTANT),
    "offset 1e17, spread lost in float64": (N + 1e17, CONSTANT),
    "subnormal numbers": (5e-324 * np.round(1e3 * N), "have a range of .*e-320, .* divide them by a constant"),
    "subnormal numbers of float32": ((1e-42 * N).astype(np.float32), FITS),
    # tails
    "one outlier at 1e9": (at(N, 1e9), FITS),
    "one outlier at 1e9 in both columns": (at(N, 1e9, (3, slice(None))), FITS),
    "outliers on both sides": (at(at(N, 1e6), -1e6, (4, 0)), FITS),
    "1 % outliers": (np.where(RNG.random((150, 2)) < 0.01, 1e4, N), FITS),
    "Cauchy": (RNG.standard_cauchy((150, 2)), FITS),
    "Student, 1.5 degrees": (RNG.standard_t(1.5, (150, 2)), FITS),
    "lognormal, sigma 3": (np.exp(3 * N), FITS),
    "lognormal, sigma 10": (np.exp(10 * N), FITS),
    "Pareto, a = 0.5": (RNG.pareto(0.5, (150, 2)), FITS),
    # repeats and dependence
    "every row ten times": (np.repeat(N[:15], 10, axis=0), FITS),
    "half of the rows the same": (np.where(np.arange(150)[:, None] < 75, 0.5, N), FITS),
    "all rows but one the same": (at(np.ones((150, 2)), 2.0, (3, slice(None))), f"{DEPENDENT}|{CONSTANT}"),
    "two distinct rows": (np.repeat([[0.0, 0.0], [1.0, 2.0]], 75, axis=0), DEPENDENT),
    "constant column": (at(N, 1.0, (slice(None), 1)), CONSTANT),
    "all columns constant": (np.ones((150, 3)), CONSTANT),
    "constant but for the last digit": (np.column_stack([N[:, 0], 1.0 + 1e-16 * N[:, 1]]), CONSTANT),
    "collinear columns": (rank_one(N, 0.0), DEPENDENT),
    "collinear but for 1e-3": (rank_one(N, 1e-3), FITS),
    "a sum of columns": (np.column_stack([N, N.sum(1)]), DEPENDENT),
    "on a circle": (np.column_stack([np.cos(N[:, 0]), np.sin(N[:, 0])]), FITS),
    # shapes
    "two rows": (N[:2], FITS),
    "three rows": (N[:3], FITS),
    "one row": (N[:1], "minimum of 2 is required"),
    "fewer rows than columns": (RNG.normal(size=(5, 8)), FITS),
    "one column": (N[:, :1], FITS),
    "500 columns": (RNG.normal(size=(60, 500)), FITS),
    # many modes, grids, orders
    "two clusters 1e3 apart": (N + 1e3 * SIGN, FITS),
    "two clusters 1e6 apart in one column": (N + 1e6 * SIGN * [1.0, 0.0], FITS),
    "two clusters 1e6 apart on the diagonal": (N + 1e6 * SIGN, DEPENDENT),  # to 1e-6 of their spread
    "a cluster of 2 %": (N + np.where(np.arange(150) < 3, 50.0, 0.0)[:, None], FITS),
    "needles: clusters of width 1e-6": (1e-6 * N + SIGN * [1.0, 0.0], FITS),
    "integers 0 to 3": (RNG.integers(0, 4, (150, 2)), FITS),
    "zeros and ones": (RNG.integers(0, 2, (150, 3)), FITS),
    "counts, mostly zero": (RNG.poisson(0.1, (150, 2)), FITS),
    "integers beyond 2^53": ((1e17 * N).astype(np.int64), FITS),
    "sorted rows": (np.sort(N, axis=0), FITS),
    "sorted by cluster": (np.sort(N[:, 0])[:, None] * [1.0, 0.0] + N * [0.0, 1.0], FITS),
    "a count of rows": (np.column_stack([np.arange(150), N[:, 1]]), FITS),
    "uniform": (RNG.random((150, 2)), FITS),
    # kinds of arrays
    "float16": (N.astype(np.float16), FITS),
    "big-endian": (N.astype(">f8"), FITS),
    "big-endian float32": (N.astype(">f4"), FITS),
    "negative strides": (N[::-1, ::-1], FITS),
    "read-only": (read_only(N), FITS),
    "every second column of a wider array": (np.repeat(N, 2, axis=1)[:, ::2], FITS),
    "broadcast rows": (np.broadcast_to(N[0], (150, 2)), CONSTANT),
    "objects: floats": (N.astype(object), FITS),
    "objects: fractions": (np.array([[Fraction(int(9 * v), 7) for v in row] for row in N]), FITS),
    "objects: text among numbers": (at(N.astype(object), "many"), "could not convert string to float"),
    "objects: None": (at(N.astype(object), None), "contains NaN"),
    "text of numbers": (N.astype(str), FITS),
    "booleans": (N > 0, FITS),
    "a list of lists": (N.tolist(), FITS),
    "a tensor": (torch.as_tensor(N), FITS),
    "a matrix": (np.asmatrix(N), "np.matrix is not supported"),
    "a masked array": (np.ma.masked_greater(N, 1.5), r"with \d+ masked cells, whose hidden values would count"),
    "a masked array that hides nothing": (np.ma.masked_greater(N, 100.0), FITS),
    "complex": (N + 0j, "Complex data not supported"),
    "a structured array": (np.zeros(9, dtype=[("a", float), ("b", float)]), r"with the fields \['a', 'b'\]"),
    "frame with duplicate names": (pd.DataFrame(N, columns=["a", "a"]), "(?s)unique column names.*Rename the columns"),
    "frame with names that are numbers": (pd.DataFrame(N, columns=[5, 3]), FITS),
    "frame with names of two kinds": (pd.DataFrame(N, columns=["a", 3]), "all input features have string names"),
    "frame with an index of its own": (pd.DataFrame(N, columns=["a", "b"], index=np.arange(150)[::-1]), FITS),
    "frame of small integers": (pd.DataFrame(RNG.integers(0, 100, (150, 2)), dtype="int8"), FITS),
    "frame of nullable numbers": (pd.DataFrame(N).convert_dtypes(), FITS),
    "frame of categories": (pd.DataFrame({"a": pd.Categorical(["u", "v"] * 75)}), "could not convert string"),
    "NaN": (at(N, np.nan), "contains NaN"),
    "infinity": (at(N, np.inf), "contains infinity"),
    "not representable in float32": (at(N.astype(np.float32), np.float32(3e38)), FITS),
}  # fmt: skip


def fit(samples, **params):
    """A fit, and the words of its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = InterpolantFlow(**{**SMALL, **params}).fit(*samples)
    return model, caught


def check(model, rows, target):
    """Finite draws, densities and carried rows, in the rows' dtype."""
    dtype = np.float32 if getattr(target, "dtype", None) in (np.float32, np.dtype(">f4")) else np.float64
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # a row that misses the tolerance is said to; the rest is silence
        warnings.simplefilter("ignore", IntegrationWarning)
        results = [model.sample(50), model.transform(rows[:20])]
        if model.base_sample_ is None or model.base_density_ is not None or model.model_.target_model is not None:
            results.append(model.score_samples(target))
    for result in results:
        assert np.isfinite(result).all() and result.dtype == dtype
    return results[-1]


@pytest.fixture(autouse=True)
def few_refinements(monkeypatch):
    """Rows that no grid brings under the tolerance are given up early: it is their finiteness that counts here."""
    limit_levels(monkeypatch, 3)


def tells_of_repeats(warning):
    """Whether a warning says that values repeat, which is right for some of the samples here."""
    return str(warning.message).startswith("Repeated values")


@pytest.mark.parametrize("name", ONE)
def test_one_sample(name):
    rows, message = ONE[name]
    if message is not FITS:
        with pytest.raises((ValueError, TypeError), match=message):
            fit((rows,))
        return
    model, caught = fit((rows,))
    assert not [w for w in caught if not issubclass(w.category, ConvergenceWarning) and not tells_of_repeats(w)]
    density = check(model, rows, rows)
    values = np.asarray(rows, dtype=float)
    if len(values) > 3 * values.shape[1]:
        # what starts from the normal distribution of its moments, does not end far below it
        normal = scipy.stats.norm(values.mean(0), values.std(0)).logpdf(values).sum(1)
        assert density.mean() > normal.mean() - 0.1 * values.shape[1]


FAST = {"base_density": "normal", "preprocessing": "auto"}
# name -> (X0, X1, parameters, the words of the error or FITS)
TWO = {
    "disjoint supports": (N, N + 100.0, {}, FITS),
    "supports 1e6 apart": (N, M + 1e6, {}, FITS),
    "supports 1e9 apart": (N, M + 1e9, {}, FITS),
    "the same array twice": (N, N, {}, FITS),
    "the same rows in another order": (N, N[::-1], {}, FITS),
    "the same rows, in pairs": (N, N, {"coupling": "paired"}, FITS),
    "the same rows, by the optimal plan": (N, N[::-1], {"coupling": "optimal"}, FITS),
    "2 rows against 3,000": (N[:2], RNG.normal(size=(3000, 2)), {"base_density": None}, FITS),
    "3,000 rows against 2": (RNG.normal(size=(3000, 2)), N[:2], {}, FITS),
    "2 rows against 3,000, by the optimal plan": (
        N[:2], RNG.normal(size=(3000, 2)), {"base_density": None, "coupling": "optimal"}, FITS,
    ),
    "units of 1e-12 and of 1e12": (1e-12 * N, 1e12 * M, {}, FITS),
    "a spread of 1e-9 beside one of 1": (1e-9 * N, M, {}, FITS),
    "an outlier at 1e9 in the base": (at(N, 1e9), M, {}, FITS),
    "an outlier at 1e9 in the target": (N, at(M, 1e9), {}, FITS),
    "Cauchy to lognormal": (RNG.standard_cauchy((150, 2)), np.exp(3 * M), {}, FITS),
    "a point as the base": (np.ones((50, 2)), M, {}, r"Columns \[0, 1\] of X0 are constant.* set base_density=None"),
    "a point as the base, for transport": (np.ones((50, 2)), M, {"base_density": None}, FITS),
    "a point as the target, for transport": (N, np.ones((50, 2)), {"base_density": None}, FITS),
    "a line as the target": (N, rank_one(M, 0.0), {}, r"Columns \[0, 1\] of X1 are linearly dependent"),
    "a line as the target, for transport": (N, rank_one(M, 0.0), {"base_density": None}, FITS),
    "constant columns, each in one": (
        np.column_stack([N[:, 0], np.ones(150)]), np.column_stack([np.zeros(120), M[:, 0]]), {"base_density": None},
        FITS,
    ),
    "single and double precision": (N.astype(np.float32), M, {}, FITS),
    "both in single precision": (N.astype(np.float32), M.astype(np.float32), {}, FITS),
    "integers to floats": (RNG.integers(0, 5, (150, 2)), M, {}, FITS),
    "read-only and reversed": (read_only(N), M[::-1, ::-1], {}, FITS),
    "fewer rows than columns": (RNG.normal(size=(5, 8)), RNG.normal(size=(6, 8)), {"base_density": None}, FITS),
    "fewer rows than columns, normal base": (
        RNG.normal(size=(5, 8)), RNG.normal(size=(6, 8)), {}, "base_density='normal' needs more than n_features = 8",
    ),
    "far clusters, by the entropic plan": (N + 1e3 * SIGN, M, {"coupling": "entropic", "gamma": "brownian"}, FITS),
    "duplicates, by the optimal plan": (np.repeat(N[:15], 10, axis=0), M, {"coupling": "optimal"}, FITS),
    "a spread of 1e200": (N, 1e200 * M, {}, r"Columns \[0, 1\] of X1 have a range of"),
    "a masked target": (N, np.ma.masked_greater(M, 2.0), {}, "X1 is a masked array"),
}  # fmt: skip


@pytest.mark.parametrize("name", TWO)
def test_two_samples(name):
    x0, x1, params, message = TWO[name]
    if message is not FITS:
        with pytest.raises(ValueError, match=message):
            fit((x0, x1), **{**FAST, **params})
        return
    model, caught = fit((x0, x1), **{**FAST, **params})
    assert not [w for w in caught if not issubclass(w.category, ConvergenceWarning) and not tells_of_repeats(w)]
    both = np.result_type(x0, x1)
    check(model, np.asarray(x0, both), np.asarray(x1, both))
    # wherever the ends are, draws are about where the target is
    lowest, highest = x1.min(0) - np.ptp(x1, axis=0), x1.max(0) + np.ptp(x1, axis=0)
    slack = 1e-3 * np.ptp(np.vstack([x0, x1]), axis=0)
    drawn = np.median(model.sample(50), axis=0)
    assert (drawn >= lowest - slack).all() and (drawn <= highest + slack).all()


LABELS = np.arange(150) % 3
# name -> (condition, the words of the error or FITS)
CONDITIONS = {
    "constant": (np.ones(150), FITS),
    "one word": (["a"] * 150, FITS),
    "of 1e12": (1e12 * N, FITS),
    "of 1e-12": (1e-12 * N, FITS),
    "an outlier at 1e9": (at(N, 1e9), FITS),
    "the rows themselves": (N, FITS),
    "words, each once": ([f"w{k}" for k in range(150)], FITS),
    "numbers as objects": (N.astype(object), FITS),
    "booleans": (LABELS > 0, FITS),
    "frame of both": (pd.DataFrame({"a": N[:, 0], "b": pd.Categorical(np.array(list("uvw"))[LABELS])}), FITS),
    "read-only, reversed, big-endian": (read_only(N)[::-1].astype(">f8"), FITS),
    "NaN": (at(N, np.nan), FITS),
    "infinity": (at(N, np.inf), "infin"),
    "too short": (LABELS[:9].astype(str), "9 rows"),
    "masked": (np.ma.masked_greater(N, 1.5), "condition is a masked array"),
    "complex": (N + 1j, "condition holds complex numbers"),
    "dates": (np.datetime64("2024-01-01") + np.arange(150), FITS),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions(name):
    condition, message = CONDITIONS[name]
    model = InterpolantFlow(**SMALL, preprocessing="standardize")
    if message is not FITS:
        with pytest.raises(ValueError, match=message):
            model.fit(N, condition=condition)
        return
    model.fit(N, condition=condition)
    for result in (
        model.sample(150, condition=condition), model.score_samples(N, condition=condition),
        model.transform(N, condition=condition),
    ):  # fmt: skip
        assert np.isfinite(result).all()


def test_a_bound_of_rows_far_out_is_an_error_and_no_infinity():
    model = InterpolantDiffusion(interpolant="mirror", **SMALL).fit(N)
    still = Bunch(velocity=lambda X, t: 0 * X, score_function=lambda X, t: -X)
    with pytest.raises(IntegrationError, match="so large at some rows that their squares are not finite: leave out"):
        model.kl_bound(at(N, 1e300), reference=still)


@pytest.mark.parametrize("size", [1e20, 1e40, 1e120])
def test_rows_beyond_the_range_of_single_precision_have_the_density_of_double(size):
    """Looser tolerances are solved in single precision first, where such a row is infinite."""
    flow = InterpolantFlow(**SMALL).fit(N)
    rows = np.array([[size, 0.0], N[0]])
    found = []
    for tol in (1e-2, 1e-6):
        with pytest.warns(IntegrationWarning, match="not within ode_tol"):
            found.append(flow.set_params(ode_tol=tol).score_samples(rows))
    assert np.isfinite(found).all() and found[0][0] < -(size**2) / 1e3
    np.testing.assert_allclose(found[0], found[1], rtol=0.01)


def test_the_error_of_a_cross_entropy_of_rows_far_out_is_a_number():
    result = InterpolantFlow(**SMALL).fit(N).cross_entropy(at(N, 1e120))
    assert 1e230 < result.value < 1e245 and 0.9 < result.standard_error / result.value < 1.1


@pytest.mark.parametrize("estimator", [TableSynthesizer(max_iter=2), InterpolantImputer(), TableCodec()])
def test_tables_refuse_masked_cells(estimator):
    hidden = np.ma.masked_greater(N, 1.5)
    with pytest.raises(ValueError, match=r"X is a masked array with \d+ masked cells.* pass X.filled\(np.nan\)"):
        estimator.fit(hidden)
