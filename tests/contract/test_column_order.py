"""Columns of frames are never read by their place against their names."""

import copy

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import StandardScaler

from sklearn_si import (
    InterpolantClassifier,
    InterpolantDiffusion,
    InterpolantFlow,
    MultimarginalFlow,
    SchroedingerBridge,
    TransformedDensity,
)
from sklearn_si.tables import TableCodec, TableSynthesizer

RNG = np.random.default_rng(0)
X = pd.DataFrame({"a": RNG.normal(size=40), "b": RNG.normal(5.0, 2.0, size=40)})
OTHER = X[["b", "a"]]
TINY = {"max_iter": 2, "hidden_layer_sizes": (4,), "preprocessing": "standardize", "random_state": 0}


@pytest.fixture(scope="module")
def models():
    flow = InterpolantFlow(max_iter=2, hidden_layer_sizes=(4,))
    return {
        "flow": InterpolantFlow(**TINY).fit(X),
        "bridge": InterpolantDiffusion(base_density="normal", **TINY).fit(X, X + 1),
        "plan": SchroedingerBridge(max_iter=2, hidden_layer_sizes=(4,), random_state=0).fit(X, X + 1),
        "mirror": InterpolantDiffusion(interpolant="mirror", **TINY).fit(X),
        "any": InterpolantFlow(conditionals="any", **TINY).fit(X),
        "samples": MultimarginalFlow(base_density=None, max_iter=2, hidden_layer_sizes=(4,), random_state=0).fit(
            [X, X]
        ),
        "given": InterpolantFlow(**TINY).fit(X, condition=X[["b"]]),
        "around": TransformedDensity(StandardScaler(), InterpolantFlow(**TINY)).fit(X),
        "classifier": InterpolantClassifier(flow, random_state=0).fit(X, X.a > 0),
        "table": TableSynthesizer(max_iter=2, flow=flow, random_state=0).fit(X),
        "codec": TableCodec(random_state=0).fit(X),
    }


@pytest.mark.parametrize(
    ("name", "ask"),
    [
        *(("flow", ask) for ask in ("score_samples", "score", "transform", "cross_entropy", "diagnose")),
        ("bridge", "transform"), ("bridge", "density_ratio"), ("around", "score_samples"), ("around", "transform"),
        ("classifier", "predict_proba"), ("classifier", "score_samples"), ("samples", "transform"),
        ("samples", "score_samples"), ("plan", "sample_plan"),
    ],
)  # fmt: skip
def test_rows_have_the_columns_of_fit_in_its_order(models, name, ask):
    with pytest.raises(ValueError, match="The feature names should match those that were passed during fit"):
        getattr(models[name], ask)(OTHER)


@pytest.mark.parametrize(
    ("name", "ask", "more"),
    [
        ("flow", "inverse_transform", ()), ("flow", "velocity", (0.5,)), ("flow", "trajectory", (3,)),
        ("bridge", "interpolate", (X + 1, 0.5)), ("around", "inverse_transform", ()),
        ("table", "score_samples", ()), ("table", "impute", ()), ("codec", "transform", ()),
    ],
)  # fmt: skip
def test_points_and_tables_are_read_by_name(models, name, ask, more):
    expected, found = (getattr(models[name], ask)(rows, *more) for rows in (X, OTHER))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_the_second_sample_is_read_by_name():
    one, other = (InterpolantFlow(base_density=None, **TINY).fit(X, rows + 1) for rows in (X, OTHER))
    np.testing.assert_array_equal(one.transform(X), other.transform(X))


def test_drawn_rows_have_names_where_set_output_asks_for_a_frame(models):
    plain = models["flow"].sample(3)
    assert isinstance(plain, np.ndarray)
    framed = InterpolantFlow(**TINY).set_output(transform="pandas").fit(X).sample(3)
    assert list(framed.columns) == ["a", "b"]
    np.testing.assert_array_equal(framed.to_numpy(), plain)


INDEX = [f"row {k}" for k in range(5)]
ROWS = X[:5].set_axis(INDEX)


@pytest.mark.parametrize(
    ("name", "ask"),
    [
        ("flow", lambda m: m.transform(ROWS)), ("flow", lambda m: m.inverse_transform(ROWS)),
        ("flow", lambda m: m.predict_target(ROWS, 0.5)), ("bridge", lambda m: m.interpolate(ROWS, ROWS, 0.5)),
        ("bridge", lambda m: m.inverse_transform(ROWS)), ("plan", lambda m: m.transform(ROWS)),
        ("plan", lambda m: m.inverse_transform(ROWS)), ("plan", lambda m: m.sample_plan(ROWS)),
        ("mirror", lambda m: m.resample(ROWS)), ("around", lambda m: m.inverse_transform(ROWS)),
        ("samples", lambda m: m.transform(ROWS, 0, 1)), ("any", lambda m: m.sample(given=ROWS[["a"]])),
        ("given", lambda m: m.sample(5, condition=ROWS[["b"]])),
    ],
)  # fmt: skip
def test_rows_that_correspond_keep_their_index_in_frames(models, name, ask):
    """Only transform did: inverse_transform and sample_plan numbered the rows of a frame anew."""
    plain, framed = ask(models[name]), ask(clone_with_output(models[name]))
    assert isinstance(plain, np.ndarray)
    assert framed.index.tolist() == INDEX
    assert framed.columns.tolist() == ["a", "b"]
    np.testing.assert_array_equal(framed.to_numpy(), plain)


@pytest.mark.parametrize(
    ("name", "ask"),
    [
        ("any", lambda m: m.sample(5, given=ROWS.iloc[0])), ("given", lambda m: m.sample(5, condition=ROWS[["b"]][:1])),
        ("samples", lambda m: m.barycenter([0.5, 0.5], 5)), ("samples", lambda m: m.sample(5)),
        ("around", lambda m: m.sample(5)),
    ],
)  # fmt: skip
def test_rows_that_are_drawn_are_numbered(models, name, ask):
    framed = ask(clone_with_output(models[name]))
    assert framed.index.tolist() == list(range(5))
    assert framed.columns.tolist() == ["a", "b"]


def clone_with_output(model):
    return copy.deepcopy(model).set_output(transform="pandas")
