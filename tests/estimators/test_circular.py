"""Circular columns: the torus path, periodic fields, densities without a jump at the seam, and what they rule out."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import sklearn_si
from sklearn_si import (
    InterpolantClassifier,
    InterpolantDiffusion,
    InterpolantFlow,
    InterpolantRegressor,
    SchroedingerBridge,
)
from sklearn_si._model.fitted import FittedModel
from sklearn_si._training.paths import on_circles
from sklearn_si.couplings import NearestImage
from sklearn_si.interpolants import TorusPath
from sklearn_si.networks import velocity_and_divergence
from sklearn_si.networks._torus import torus_velocity
from sklearn_si.preprocessing import AffineMap, Support
from sklearn_si.preprocessing._grids import ColumnGrid

CIRCLE = {"angle": ("circular", 0, 360)}
TINY = {"hidden_layer_sizes": (16,), "max_iter": 30, "preprocessing": "standardize", "random_state": 0}


def winds(n=300, seed=0):
    """An angle around north, and a speed that depends on it."""
    rng = np.random.default_rng(seed)
    angle = np.mod(40 * rng.normal(size=n), 360)
    return pd.DataFrame({"angle": angle, "speed": 5 + 2 * np.cos(np.radians(angle)) + rng.normal(size=n)})


@pytest.fixture(scope="module")
def flow():
    return InterpolantFlow(support=CIRCLE, **TINY).fit(winds())


# --------------------------------------------------------------------- the path and its field


def test_displacements_are_wrapped_to_the_nearest_image():
    path = TorusPath([1])
    rng = torch.Generator().manual_seed(0)
    x0, x1 = (7 * torch.randn(500, 2, generator=rng, dtype=torch.float64) for _ in range(2))
    near = path.nearest(x0, x1)
    assert ((near - x0)[:, 1].abs() <= math.pi + 1e-12).all() and torch.equal(near[:, 0], x1[:, 0])
    turns = (near - x1)[:, 1] / (2 * math.pi)
    torch.testing.assert_close(turns, turns.round())
    wrapped = path.wrapped(x1)
    assert (wrapped[:, 1].abs() <= math.pi).all()
    torch.testing.assert_close(torch.cos(wrapped[:, 1]), torch.cos(x1[:, 1]))


def test_the_base_is_uniform_on_the_circle_and_normal_beside():
    path = TorusPath([0])
    z = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = path.base_from_normal(z)
    assert stats.kstest(x[:, 0], stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > 0.01
    torch.testing.assert_close(path.normal_from_base(x), z)
    expected = stats.norm.logpdf(z[:, 1]) - math.log(2 * math.pi)
    np.testing.assert_allclose(path.base_log_density(x), expected)


@pytest.mark.parametrize("circular", [(0,), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("widths", [(8,), (8, 6), (8, 6, 7), (5, 6, 7, 8)])
def test_the_field_is_periodic_and_its_divergence_exact(circular, widths):
    generator = torch.Generator().manual_seed(0)
    path, v1 = TorusPath(circular), torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    field = torus_velocity(path, v1, 2, widths, "silu", generator).double()
    with torch.no_grad():
        for p in field.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    x = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    condition = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    t = torch.rand(6, generator=generator, dtype=torch.float64)
    turned = x.clone()
    turned[:, list(circular)] += 4 * math.pi
    torch.testing.assert_close(
        field(t, turned, condition)[:, list(circular)], field(t, x, condition)[:, list(circular)]
    )
    value, divergence = velocity_and_divergence(field, t, x, condition)
    torch.testing.assert_close(value, field(t, x, condition))

    def row(x, t, condition):
        return field(t[None], x[None], condition[None])[0]

    jacobian = torch.func.vmap(torch.func.jacrev(row))(x, t, condition)
    torch.testing.assert_close(divergence, jacobian.diagonal(dim1=1, dim2=2).sum(1))
    at = torch.tensor([0.2, 0.7], dtype=torch.float64)
    unconditional = torus_velocity(path, v1, 0, widths, "silu", generator).double()
    for f, s in zip(unconditional.instants(at), at, strict=True):
        torch.testing.assert_close(f(x), unconditional(s, x))


class VonMisesLike(torch.nn.Module):
    """The exact velocity to 1 + a cos(x) on the circle: b = E[x1 - x | |x1 - x| < r] / (1 - t), r = (1 - t) pi."""

    def __init__(self, a):
        super().__init__()
        self.a = a
        self.register_buffer("unused", torch.zeros(1, dtype=torch.float64))

    def forward(self, t, x, condition=None):
        r = math.pi * (1 - t).clamp(min=1e-3).reshape(-1, 1)
        # integrals over u in (-r, r) of u (1 + a cos(x + u)) and of 1 + a cos(x + u)
        first = -2 * self.a * torch.sin(x) * (torch.sin(r) - r * torch.cos(r))
        return first / (2 * r + 2 * self.a * torch.cos(x) * torch.sin(r)) * math.pi / r


def test_the_density_of_the_exact_field_is_exact():
    """The path, its base and the wrapped solver, without any training."""
    a, path = 0.7, TorusPath([0])
    field = VonMisesLike(a)
    model = FittedModel(
        interpolant=path, learned={"velocity": field}, velocity=field, denoiser=None, base_map=None,
        target_map=AffineMap(np.zeros(1), np.ones(1)), coupling=NearestImage(path),
    ).within(Support(np.array([0.0]), np.array([360.0]), np.array([True])))  # fmt: skip
    flow = InterpolantFlow(support=("circular", 0, 360))
    flow.model_, flow.n_features_in_ = model, 1
    x = np.linspace(0, 360, 25)[:, None]
    # the column begins at the angle -pi
    expected = np.log((1 + a * np.cos(np.radians(x[:, 0]) - np.pi)) / 360)
    np.testing.assert_allclose(flow.score_samples(x), expected, atol=5e-3)
    drawn = flow.sample(3000, random_state=0)[:, 0]
    assert ((drawn >= 0) & (drawn < 360)).all()
    cdf = (drawn / 360) + a * np.sin(np.radians(drawn) - np.pi) / (2 * np.pi)
    assert stats.kstest(cdf, "uniform").pvalue > 0.001
    z = flow.transform(drawn[:, None])
    assert stats.kstest(z[:, 0], stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 0.001
    turn = (flow.inverse_transform(z)[:, 0] - drawn + 180) % 360 - 180
    np.testing.assert_allclose(turn, 0, atol=0.5)


# --------------------------------------------------------------------- fits


def test_a_density_has_no_seam_and_mass_one_over_a_period(flow):
    speeds = np.linspace(3, 9, 9)
    ends = [
        flow.score_samples(pd.DataFrame({"angle": np.full(9, a), "speed": speeds})) for a in (0.0, 360.0, 360 - 1e-6)
    ]
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-6)
    np.testing.assert_allclose(ends[0], ends[2], atol=1e-3)
    angles, speeds = np.arange(0, 360, 12.0), np.linspace(-3, 13, 33)
    grid = pd.DataFrame([(a, s) for a in angles for s in speeds], columns=["angle", "speed"])
    mass = np.exp(flow.score_samples(grid)).sum() * 12.0 * (speeds[1] - speeds[0])
    assert mass == pytest.approx(1.0, abs=2e-3)


def test_rows_stay_in_the_period_and_come_back(flow):
    X, drawn = winds(50, 1), flow.sample(300, random_state=0)
    assert ((drawn[:, 0] >= 0) & (drawn[:, 0] < 360)).all()
    Z = flow.transform(X)
    assert (np.abs(Z[:, 0]) <= np.pi).all()
    back = flow.inverse_transform(Z)
    turn = (back[:, 0] - X["angle"] + 180) % 360 - 180
    np.testing.assert_allclose(turn, 0, atol=0.2)
    np.testing.assert_allclose(back[:, 1], X["speed"], atol=1e-2)
    path = flow.trajectory(X, 4, start=1.0, stop=0.0)
    assert ((path[:, :, 0] >= 0) & (path[:, :, 0] < 360)).all()
    b = flow.velocity(X, 0.5)
    moved = flow.trajectory(X, 2, start=0.5, stop=0.501)
    turn = (moved[1] - moved[0] + [180, 0]) % [360, np.inf] - [180, 0]
    np.testing.assert_allclose(turn / 0.001, b, rtol=0.05, atol=1.0)


def test_a_rotation_of_the_circle_changes_nothing_but_the_draws_of_chance():
    """A column that is declared from -180 to 180 has the same density as one from 0 to 360, turned."""
    X = winds()
    other = X.assign(angle=(X.angle + 180) % 360 - 180)
    params = {**TINY, "early_stopping": False}
    a = InterpolantFlow(support=CIRCLE, **params).fit(X)
    b = InterpolantFlow(support={"angle": ("circular", -180, 180)}, **params).fit(other)
    assert a.score(X) == pytest.approx(b.score(other), abs=0.3)


@pytest.mark.parametrize(
    ("preprocessing", "dtype"),
    [("auto", np.float32), ("standardize", np.float64), ("marginal", np.float32), (None, np.float64)],
)
def test_other_columns_are_scaled_and_supported_as_usual(preprocessing, dtype):
    X = winds(200).assign(size=np.exp(np.random.default_rng(0).normal(size=200))).astype(dtype)
    params = {**TINY, "preprocessing": preprocessing, "max_iter": 12}
    model = InterpolantFlow(support={**CIRCLE, "size": "positive"}, **params).fit(X)
    drawn = model.sample(100)
    assert drawn.dtype == dtype and (drawn[:, 2] > 0).all() and (drawn[:, 0] >= 0).all() and (drawn[:, 0] < 360).all()
    assert np.isfinite(model.score(X))
    assert model.preprocessing_.line_map.n_features == 3


def test_conditions_weights_files_and_memory(tmp_path):
    X = winds(200)
    model = InterpolantFlow(support=CIRCLE, memory=tmp_path / "fits", **TINY)
    model.fit(X, condition=X["speed"], sample_weight=np.linspace(0, 1, 200)).set_output(transform="pandas")
    score = model.score_samples(X[:9], condition=X["speed"][:9])
    sklearn_si.save(model, tmp_path / "m.si")
    loaded = sklearn_si.load(tmp_path / "m.si")
    np.testing.assert_array_equal(loaded.score_samples(X[:9], condition=X["speed"][:9]), score)
    assert list(loaded.sample(2, condition=[5.0]).columns) == ["angle", "speed"]
    again = InterpolantFlow(support=CIRCLE, memory=tmp_path / "fits", **TINY)
    again.fit(X, condition=X["speed"], sample_weight=np.linspace(0, 1, 200))
    np.testing.assert_array_equal(again.score_samples(X[:9], condition=X["speed"][:9]), score)


def test_single_precision_rounds_no_end_off_the_circle():
    """The nearest float32 to pi is above it."""
    X = np.radians(winds(100).to_numpy(np.float64)[:, :1]) - np.pi
    X = np.column_stack([X, np.random.default_rng(0).normal(size=100)]).astype(np.float32)
    X[0, 0], X[1, 0] = np.pi, -np.pi
    assert float(X[0, 0]) > np.pi
    model = InterpolantFlow(support={0: ("circular", -np.pi, np.pi)}, **TINY).fit(X)
    np.testing.assert_allclose(*model.score_samples(np.array([[np.pi, 0.1], [-np.pi, 0.1]], np.float32)), atol=1e-4)
    drawn = model.sample(200).astype(np.float64)[:, 0]
    assert (np.abs(drawn) <= np.pi).all()


def test_whole_degrees_have_cells_across_the_seam():
    grid = ColumnGrid.of(np.array([0.0, 90.0, 180.0, 270.0, 360.0]), 0.0, 360.0, True)
    np.testing.assert_array_equal(grid.values, [0, 90, 180, 270])
    np.testing.assert_array_equal(grid.edges, [-45, 45, 135, 225, 315])
    np.testing.assert_array_equal(grid.snap(np.array([359.0, 316.0, 314.0, 44.0])), [0, 0, 270, 0])
    centre, off = grid.centre(np.array([0.0, 360.0, 270.0]))
    np.testing.assert_array_equal(centre, [0, 0, 270])
    assert not off.any()
    X = np.column_stack([np.round(winds(300)["angle"] / 30) * 30, winds(300)["speed"]])
    model = InterpolantFlow(support={0: ("circular", 0, 360)}, dequantize=[0], **TINY).fit(X)
    drawn = model.sample(300, random_state=0)
    assert set(drawn[:, 0]) <= set(np.arange(0, 360, 30.0)) and np.mean(drawn[:, 0] == 0) > 0.1
    np.testing.assert_allclose(model.score_samples([[0.0, 5.0]]), model.score_samples([[360.0, 5.0]]), atol=1e-6)


def test_a_report_tests_the_circle_for_uniformity():
    X = winds(300)
    model = InterpolantFlow(support=CIRCLE, **{**TINY, "max_iter": 80}).fit(X)
    report = model.diagnose(winds(200, 5))
    assert report.latent_ks.min() > 1e-4 and "Fisher divergence" not in report.verdicts


@pytest.mark.parametrize(("steps", "share"), [(999, 1.0), (1000, 0.2), ("auto", 0.2)])
def test_long_fits_learn_at_a_lower_rate_and_no_other_fit_does(steps, share):
    recipe = InterpolantFlow(max_iter=steps, learning_rate_init=0.02)._recipe()
    assert on_circles(recipe, (0,)).learning_rate_init == pytest.approx(0.02 * share)
    assert on_circles(recipe, (0,)).circular == (0,)
    assert on_circles(recipe, ()) == recipe


# --------------------------------------------------------------------- what circles rule out


def test_fits_that_need_another_base_say_so():
    X = winds(100)
    with pytest.raises(ValueError, match="this is a fit of two samples, which needs a normal base"):
        InterpolantFlow(support=CIRCLE, **TINY).fit(X, X)
    with pytest.raises(ValueError, match="this is a fit of a diffusion"):
        InterpolantDiffusion(support=CIRCLE, **TINY).fit(X)
    with pytest.raises(ValueError, match="circular columns, but not for SchroedingerBridge"):
        SchroedingerBridge(method="network", support=CIRCLE, max_iter=3).fit(X, X)
    with pytest.raises(ValueError, match="circular columns, but not for InterpolantRegressor"):
        InterpolantRegressor(support=("circular", 0, 360)).fit(X[["speed"]], X["angle"])
    with pytest.raises(ValueError, match="circular columns, but not for InterpolantClassifier"):
        InterpolantClassifier(support=CIRCLE).fit(X, X["speed"] > 5)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"interpolant": "trigonometric"}, "Got interpolant='trigonometric' with circular columns"),
        ({"interpolant": "mirror"}, "Got interpolant='mirror' with circular columns"),
        ({"coupling": "optimal"}, "Got coupling='optimal' with circular columns"),
        (
            {"network": lambda d, k: torch.nn.Identity()},
            "with circular columns, but they are learned on straight paths",
        ),
        (
            {"preprocessing": "whiten"},
            "Got preprocessing='whiten' with circular columns, which cannot be mixed with others",
        ),
        ({"preprocessing": "marginal-whiten"}, "which cannot be mixed with others"),
        ({"noise_level": 0.5}, "Got noise_level=0.5 with circular columns, but the SDE needs the score"),
        ({"support": {"angle": ("circular", 0, None)}}, "for column 'angle', but expected"),
        ({"support": {"angle": ("circular", 360, 0)}}, "for column 'angle', but expected"),
        ({"support": {"angle": ("round", 0, 360)}}, "for column 'angle', but expected"),
        ({"support": {"angle": ("circular", 0, 90)}}, "column 'angle' of X are outside its period"),
    ],
)
def test_parameters_that_make_no_sense_on_a_circle_are_refused(params, match):
    with pytest.raises(ValueError, match=match):
        InterpolantFlow(**{"support": CIRCLE, **TINY, **params}).fit(winds(100))


def test_questions_that_need_the_score_say_why_there_is_none(flow):
    X = winds(20)
    for ask in ("density_ratio", "log_density_bound", "fisher_divergence"):
        with pytest.raises(ValueError, match="with a base that is uniform on circles"):
            getattr(flow, ask)(X)
    for ask in (flow.score_function, flow.denoiser):
        with pytest.raises(ValueError, match=r"needs the score function, .* uniform on circles"):
            ask(X, 0.5)
    with pytest.raises(ValueError, match="uniform on circles"):
        flow.trajectory(X, 3, noise_level=0.1)
    with pytest.raises(ValueError, match="distill learns a map between lines"):
        flow.distill(max_iter=2)
    with pytest.raises(ValueError, match="rectify starts from a normal base"):
        flow.rectify()
    with pytest.raises(ValueError, match="predict_target is a mean"):
        flow.predict_target(X, 0.5)
    with pytest.raises(ValueError, match=r"outside its period from 0 to 360, .* take them modulo the period"):
        flow.score_samples(X.assign(angle=361.0))
    noisy = sklearn_si.InterpolantFlow(**flow.get_params()).set_params(noise_level=0.3)
    noisy.model_, noisy.n_features_in_ = flow.model_, 2
    with pytest.raises(ValueError, match="with circular columns, but the SDE"):
        noisy.sample(3)
