"""Circular columns of tables: cut open where they are sparse, and wound back in all that is drawn."""

import numpy as np
import pandas as pd
import pytest

import sklearn_si
from sklearn_si._utils.circles import Circle, declared_circle
from sklearn_si._utils.columns import Reading
from sklearn_si.tables import InterpolantImputer, TableCodec, TableSynthesizer

KINDS = {"wind": ("circular", 0, 360)}
TINY = {"hidden_layer_sizes": (16, 1), "max_iter": 60, "random_state": 0}


def winds(n=300, decimals=1, seed=0):
    """Winds around north, by day and by night."""
    rng = np.random.default_rng(seed)
    wind = np.mod(np.round(30 * rng.normal(size=n), decimals), 360).round(decimals)
    return pd.DataFrame({"wind": wind, "night": rng.random(n) < 0.5, "speed": rng.normal(size=n)})


def reading(values):
    return Reading(np.asarray(values), np.zeros(len(values), dtype=int), ())


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_there_and_back_is_exact_for_whole_numbers_and_decimals(dtype):
    values = np.arange(0, 360).astype(dtype) if dtype == np.int64 else np.arange(0, 3600) / 10
    circle = Circle.of(0, 360, np.mod(np.random.default_rng(0).normal(0, 30, 500), 360))
    assert 100 < circle.cut < 260
    moved = circle.unrolled(reading(values), "column 'wind'").values
    assert moved.dtype == dtype and (moved >= circle.cut).all() and (moved < circle.cut + 360).all()
    np.testing.assert_array_equal(circle.wrapped(moved), values)
    # both ends are one point
    np.testing.assert_array_equal(circle.unrolled(reading(values[:1] + 360), "").values, moved[:1])


def test_radians_are_wound_back_within_their_period():
    circle = Circle.of(-np.pi, np.pi, np.random.default_rng(0).normal(size=200))
    x = np.linspace(-np.pi, np.pi, 101)
    back = circle.wrapped(circle.unrolled(reading(x), "").values)
    turn = np.mod(back - x + 1, 2 * np.pi) - 1
    np.testing.assert_allclose(turn, 0, atol=1e-12)
    assert (back >= -np.pi).all() and (back < np.pi).all()


def test_a_declaration_is_read():
    assert declared_circle(("circular", 0, 24)) == (0.0, 24.0) and declared_circle(["circular", -1, 1]) == (-1.0, 1.0)
    for kind in ("continuous", ("circular", 0), ("circular", 1, 0), ("circular", None, 1), ("round", 0, 1), 3):
        assert declared_circle(kind) is None


@pytest.fixture(scope="module")
def synthesizer():
    return TableSynthesizer(KINDS, **TINY).fit(winds())


def test_rows_that_are_drawn_lie_on_the_circle_and_across_its_seam(synthesizer):
    drawn = synthesizer.sample(400, random_state=0)
    assert ((drawn["wind"] >= 0) & (drawn["wind"] < 360)).all()
    np.testing.assert_array_equal(drawn["wind"], drawn["wind"].round(1))
    north = np.minimum(drawn["wind"], 360 - drawn["wind"])
    assert north.median() < 60 and (drawn["wind"] < 90).mean() > 0.2 and (drawn["wind"] > 270).mean() > 0.2


def test_given_cells_are_kept_and_both_ends_score_alike(synthesizer):
    given = pd.DataFrame({"wind": [12.3, 359.9, 0.0]})
    drawn = synthesizer.sample(given=given)
    np.testing.assert_array_equal(drawn["wind"], given["wind"])
    rows = winds(3, seed=1)
    low, high = (synthesizer.score_samples(rows.assign(wind=end)) for end in (0.0, 360.0))
    np.testing.assert_array_equal(low, high)
    with pytest.raises(ValueError, match="values in column 'wind' are outside its period from 0 to 360, such as 361"):
        synthesizer.score_samples(rows.assign(wind=361.0))


def test_missing_angles_are_filled_within_the_period_and_files_know_the_circle(tmp_path):
    X = winds(200, decimals=0).astype({"wind": "Int64"})
    X.loc[::5, "wind"] = pd.NA
    model = TableSynthesizer(KINDS, **TINY).fit(X)
    filled = InterpolantImputer(model).fit(X).transform(X)
    assert filled["wind"].between(0, 359).all() and str(filled["wind"].dtype) == "Int64"
    np.testing.assert_array_equal(filled["wind"][X["wind"].notna()], X["wind"].dropna())
    sklearn_si.save(model, tmp_path / "t.si")
    pd.testing.assert_frame_equal(sklearn_si.load(tmp_path / "t.si").sample(9), model.sample(9))


def test_a_support_of_the_flow_inside_is_refused():
    with pytest.raises(ValueError, match="it models the columns of a table as normal scores: leave it out"):
        TableSynthesizer(flow=sklearn_si.InterpolantFlow(support="positive"), **TINY).fit(winds(50))


def test_a_codec_takes_circles_too():
    X = winds(200).to_numpy()[:, [0, 2]].astype(float)
    codec = TableCodec({0: ("circular", 0, 360)}, random_state=0).fit(X)
    np.testing.assert_allclose(codec.inverse_transform(codec.transform(X)), X, atol=1e-6)


@pytest.mark.parametrize(
    ("kinds", "match"),
    [
        ({"wind": ("circular", 0, 90)}, "values in column 'wind' of X are outside its period from 0 to 90"),
        (
            {"wind": ("circular", 360, 0)},
            r"Got kinds\['wind'\]=\('circular', 360, 0\), but expected one of",
        ),
        ({"word": ("circular", 0, 1)}, "column 'word' of X is declared as circular, but it holds words"),
    ],
)
def test_declarations_that_do_not_fit_are_refused(kinds, match):
    with pytest.raises(ValueError, match=match):
        TableCodec(kinds).fit(winds(50).assign(word=["a", "b"] * 25))
