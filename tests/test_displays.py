"""Pictures hold what they say, with axes and units."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import StandardScaler

from sklearn_si import InterpolantDiffusion, InterpolantFlow, InterpolantRegressor
from sklearn_si.displays import (
    CalibrationDisplay,
    DensityDisplay,
    LossCurveDisplay,
    PredictiveDisplay,
    SampleComparisonDisplay,
    TrajectoryDisplay,
)

mpl.use("Agg")
import matplotlib.pyplot as plt

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(RNG.normal(size=(150, 3)), columns=["a", "b", "c"])
SMALL = {"max_iter": 120, "hidden_layer_sizes": (8,), "preprocessing": "whiten", "random_state": 0}


@pytest.fixture(scope="module")
def flow():
    return InterpolantFlow(**SMALL).fit(FRAME)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_loss_curves_are_those_of_the_fit(flow):
    display = LossCurveDisplay.from_estimator(flow)
    np.testing.assert_array_equal(display.ax_.lines[0].get_ydata(), flow.loss_curve_)
    beside = display.figure_.axes[1]
    np.testing.assert_array_equal(beside.lines[0].get_ydata(), flow.validation_scores_)
    assert (display.ax_.get_xlabel(), beside.get_ylabel()) == ("round", "held-out log-likelihood (nats)")
    _, ax = plt.subplots()
    assert LossCurveDisplay([1.0, 0.5]).plot(ax=ax).ax_ is ax


def test_trajectories_end_where_rows_do(flow):
    X = RNG.normal(size=(20, 3))
    display = TrajectoryDisplay.from_estimator(flow, X, n_times=11, columns=(2, 0))
    expected = np.asarray(flow.trajectory(X, 11, random_state=0))
    np.testing.assert_allclose(display.ax_.collections[1].get_offsets(), expected[-1][:, [2, 0]])
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("c", "a")


def test_trajectories_of_one_column_are_drawn_against_time():
    x = RNG.normal(size=(100, 1))
    flow = InterpolantFlow(max_iter=3, hidden_layer_sizes=(8,), preprocessing="standardize", random_state=0).fit(x)
    display = TrajectoryDisplay.from_estimator(flow, x[:5], n_times=7)
    assert len(display.ax_.lines) == 5
    assert display.ax_.get_xlabel() == "t"
    density = DensityDisplay.from_estimator(flow, x, resolution=9)
    line = density.axes_[0, 0].lines[0]
    flow.set_params(ode_tol=0.05)  # that of pictures
    np.testing.assert_allclose(line.get_ydata(), flow.score_samples(line.get_xdata()[:, None]))
    assert "nats" in density.axes_[0, 0].get_ylabel()


def test_density_maps_are_the_log_density():
    X = RNG.normal(size=(150, 2))
    flow = InterpolantFlow(max_iter=3, hidden_layer_sizes=(8,), random_state=0).fit(X)
    axis = DensityDisplay.from_estimator(flow, X, resolution=8).axes_[0, 0]
    mesh = axis.collections[0]
    nodes = mesh.get_coordinates().reshape(-1, 2)
    flow.set_params(ode_tol=0.05)  # that of pictures
    np.testing.assert_allclose(mesh.get_array().ravel(), flow.score_samples(nodes), atol=1e-6)


def test_density_above_two_columns_has_a_map_for_each_pair(flow):
    display = DensityDisplay.from_estimator(flow, FRAME, resolution=6)
    shown = [axis for axis in display.axes_.flat if axis.axison]
    assert [(a.get_xlabel(), a.get_ylabel()) for a in shown] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert max(axis.collections[0].get_array().max() for axis in shown) == 0.0


def test_comparisons_show_real_and_generated_rows(flow):
    display = SampleComparisonDisplay.from_estimator(flow, FRAME, n_samples=50)
    above, below = display.axes_[0, 1].collections[0], display.axes_[1, 0].collections[0]
    np.testing.assert_allclose(above.get_offsets(), FRAME[["b", "a"]])
    np.testing.assert_allclose(below.get_offsets(), flow.sample(50, random_state=0)[:, :2])
    assert [axis.get_xlabel() for axis in display.axes_[2]] == ["a", "b", "c"]


def title_of(display):
    title = vars(display.figure_)["_suptitle"]  # matplotlib has a method for it from 3.8 on
    return "" if title is None else title.get_text()


def test_comparisons_name_the_columns_that_they_leave_out():
    rows = pd.DataFrame(RNG.normal(size=(30, 12)), columns=[f"c{j}" for j in range(12)])
    display = SampleComparisonDisplay(rows, rows).plot()
    assert display.names == ["c0", "c1", "c2", "c3"]
    assert display.left_out == [f"c{j}" for j in range(4, 12)]
    assert title_of(display) == "not shown: c4, c5, c6, c7, c8, c9 and 2 more"
    assert title_of(SampleComparisonDisplay(rows.iloc[:, :4], rows.iloc[:, :4]).plot()) == ""


def test_a_column_has_one_range_in_all_panels_of_a_comparison():
    real = pd.DataFrame({"a": RNG.normal(size=50), "b": 10 * RNG.normal(size=50), "c": np.full(50, 3.0)})
    real.loc[:5, "a"] = np.nan
    display = SampleComparisonDisplay(real, real * 2).plot()
    for i in range(3):
        assert len({axis.get_xlim() for axis in display.axes_[:, i]}) == 1
        for j in set(range(3)) - {i}:
            assert display.axes_[i, j].get_xlim() == display.axes_[j, i].get_ylim()
            assert display.axes_[i, j].get_ylim() == display.axes_[j, i].get_xlim()
    low, high = display.axes_[0, 1].get_xlim()  # the whole of both samples is inside
    assert low < 2 * real["b"].min() and high > 2 * real["b"].max()


def test_calibration_has_a_bar_for_each_field():
    X0, X1 = RNG.normal(size=(2, 100, 2))
    model = InterpolantDiffusion(max_iter=3, hidden_layer_sizes=(8,), base_density="normal", random_state=0).fit(X0, X1)
    display = CalibrationDisplay.from_estimator(model, X0, X1)
    assert [t.get_text() for t in display.axes_[1].get_xticklabels()] == ["velocity", "denoiser"]
    heights = [bar.get_height() for bar in display.axes_[0].patches]
    np.testing.assert_allclose(heights, display.report.loss)


MIXED = pd.DataFrame({"size": RNG.uniform(size=80), "shop": RNG.choice(["north", "south"], size=80)})
TARGET = MIXED["size"].to_numpy() + 0.1 * RNG.normal(size=80)


@pytest.fixture(scope="module")
def regressor():
    flow = InterpolantFlow(max_iter=5, hidden_layer_sizes=(8,), preprocessing="standardize")
    return InterpolantRegressor(flow, base="normal", random_state=0).fit(MIXED, TARGET)


def test_calibration_of_a_regressor_shows_coverages_and_pit_values(regressor):
    display = CalibrationDisplay.from_estimator(regressor, MIXED, TARGET)
    np.testing.assert_allclose(display.axes_[0].lines[1].get_ydata(), display.report.observed)
    assert (display.axes_[0].get_ylabel(), display.axes_[1].get_xlabel()) == ("share of rows inside", "P(Y <= y | x)")


@pytest.mark.parametrize("kind", ["pandas", "polars", "array"])
def test_a_fan_holds_the_quantiles_along_a_column(kind):
    numbers = MIXED[["size"]].assign(other=[1.5, 2.5, 2.5, 3.5] * 20)
    X = {"pandas": numbers, "array": numbers.to_numpy()}.get(kind)
    if X is None:
        X = pytest.importorskip("polars").DataFrame(numbers.to_dict("list"))
    flow = InterpolantFlow(max_iter=3, hidden_layer_sizes=(8,), preprocessing="standardize")
    model = InterpolantRegressor(flow, base="normal", random_state=0).fit(X, TARGET)
    display = PredictiveDisplay.from_estimator(model, X, TARGET, column=0)
    at = np.column_stack([display.places, np.full(100, 2.5)])
    rows = at if kind == "array" else pd.DataFrame(at, columns=["size", "other"])
    rows = type(X)(rows.to_dict("list")) if kind == "polars" else rows
    np.testing.assert_allclose(display.quantiles, model.predict_quantiles(rows, display.levels))
    assert len(display.ax_.collections) == 3  # the rows, and two bands


def test_a_fan_along_categories_has_bars(regressor):
    display = PredictiveDisplay.from_estimator(regressor, MIXED, TARGET, column="shop")
    assert [t.get_text() for t in display.ax_.get_xticklabels()] == ["north", "south"]
    np.testing.assert_allclose(display.ax_.patches[0].get_height(), display.quantiles[0, -1] - display.quantiles[0, 0])
    with pytest.raises(ValueError, match="Got column='price', but X has the columns"):
        PredictiveDisplay.from_estimator(regressor, MIXED, column="price")
    with pytest.raises(ValueError, match=r"symmetric about \.5"):
        PredictiveDisplay.from_estimator(regressor, MIXED, levels=[0.1, 0.5])


def test_a_fan_along_dates_goes_through_dates_in_order():
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(RNG.integers(0, 300, size=80), "D")
    X = pd.DataFrame({"day": days})
    flow = InterpolantFlow(max_iter=3, hidden_layer_sizes=(8,), preprocessing="standardize")
    model = InterpolantRegressor(flow, base="normal", random_state=0).fit(X, TARGET)
    X.loc[3, "day"] = pd.NaT
    display = PredictiveDisplay.from_estimator(model, X, TARGET, column="day")
    known = X["day"].dropna()
    np.testing.assert_array_equal(display.places, np.sort(known.unique()))
    np.testing.assert_array_equal(display.points[0][np.arange(80) != 3], known)
    rows = pd.DataFrame({"day": pd.to_datetime(display.places)})
    np.testing.assert_allclose(display.quantiles, model.predict_quantiles(rows, display.levels))


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"y": TARGET[:9]}, "inconsistent numbers of samples"),
        ({"y": np.where(TARGET > 0.5, np.nan, TARGET)}, "y contains NaN"),
        ({"levels": None}, r"symmetric about \.5"),
    ],
    ids=["length", "NaN", "levels"],
)
def test_a_fan_refuses_what_it_cannot_show(regressor, given, match):
    with pytest.raises(ValueError, match=match):
        PredictiveDisplay.from_estimator(regressor, MIXED, **given)
    plt.close("all")


NEEDS = {
    PredictiveDisplay: r"with predict_quantiles, but StandardScaler has none: pass an InterpolantRegressor \(of a Pipe",
    CalibrationDisplay: "with diagnose, but StandardScaler has none",
    DensityDisplay: "with score_samples, but StandardScaler has none",
    LossCurveDisplay: "needs a fitted flow, diffusion or bridge of this library, but got a StandardScaler",
    SampleComparisonDisplay: "with sample, but StandardScaler has none",
    TrajectoryDisplay: "with trajectory, but StandardScaler has none",
}


@pytest.mark.parametrize("display", NEEDS, ids=lambda display: display.__name__)
def test_an_estimator_that_cannot_be_drawn_is_refused(display):
    args = () if display is LossCurveDisplay else (FRAME,)
    with pytest.raises(ValueError, match=NEEDS[display]):
        display.from_estimator(StandardScaler().fit(FRAME), *args)
    with pytest.raises((NotFittedError, ValueError)):
        display.from_estimator(InterpolantFlow(), *args)
