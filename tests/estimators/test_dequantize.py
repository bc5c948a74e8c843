"""Columns of repeated values: the warning, and densities of the variable with noise within its cells."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.utils import check_random_state

import sklearn_si
from sklearn_si import InterpolantDiffusion, InterpolantFlow, SchroedingerBridge
from sklearn_si.tables import TableSynthesizer

SMALL = {"hidden_layer_sizes": (32, 32), "max_iter": 400, "random_state": 0}
TINY = {
    "hidden_layer_sizes": (8,), "max_iter": 10, "random_state": 0, "base_density": None, "preprocessing": "standardize",
}  # fmt: skip


def counts(n, seed=0):
    """A count, and a quantity that rises with it."""
    rng = np.random.default_rng(seed)
    x = rng.poisson(3.0, n).astype(float)
    return np.column_stack([x, x / 2 + rng.normal(size=n)])


@pytest.fixture(scope="module")
def one_column():
    return InterpolantFlow(dequantize="auto", **SMALL).fit(counts(2000)[:, :1])


@pytest.fixture(scope="module")
def flow():
    return InterpolantFlow(dequantize="auto", **SMALL).fit(counts(2000))


def warnings_of(call):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        call()
    return [str(w.message) for w in told if "Repeated values" in str(w.message)]


# --------------------------------------------------------------------- densities


def test_the_mass_of_the_grid_sums_to_one_and_is_that_of_the_values(one_column):
    """sum over cells of exp(score) width, each the probability of its value."""
    grid = one_column.model_.target_grid.columns[0]
    mass = np.exp(one_column.score_samples(grid.values[:, None])) * grid.widths
    assert mass.sum() == pytest.approx(1.0, abs=0.05)
    shares = [(counts(2000)[:, 0] == value).mean() for value in grid.values]
    np.testing.assert_allclose(mass, shares, atol=0.03)


def test_cells_of_unequal_width_have_the_mass_of_their_values_too():
    x = np.random.default_rng(0).choice([0.0, 1.0, 2.0, 10.0], p=[0.4, 0.3, 0.2, 0.1], size=2000)
    model = InterpolantFlow(dequantize=[0], **SMALL).fit(x[:, None])
    grid = model.model_.target_grid.columns[0]
    within = grid.edges[:-1, None] + grid.widths[:, None] * (np.arange(20) + 0.5) / 20
    with pytest.warns(UserWarning, match="Values that fit did not see"):
        density = np.exp(model.score_samples(within.reshape(-1, 1))).reshape(within.shape)
    np.testing.assert_allclose(density.mean(1) * grid.widths, [0.4, 0.3, 0.2, 0.1], atol=0.03)


def test_the_mean_over_the_noise_is_below_the_log_of_the_mean(one_column):
    """Jensen's inequality, cell by cell: the bound that the docs promise."""
    grid = one_column.model_.target_grid.columns[0]
    for k in (1, 3, 5):
        inside = grid.edges[k] + grid.widths[k] * (np.arange(40) + 0.5) / 40
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            log_density = one_column.score_samples(inside[:, None])
        assert log_density.mean() <= np.log(np.exp(log_density).mean())


def test_the_log_likelihood_does_not_depend_on_a_scaling_before_it():
    """On a column that is 88 % one value it moved by tens of nats."""
    rng = np.random.default_rng(0)
    x = np.where(rng.random(2000) < 0.88, 0.0, 1.0 + rng.poisson(2.0, 2000))
    X = np.column_stack([x, rng.normal(size=2000)])
    scale = np.array([250.0, 0.01])
    plain = InterpolantFlow(dequantize=[0], **SMALL).fit(X[:1500]).score(X[1500:])
    scaled = InterpolantFlow(dequantize=[0], **SMALL).fit(X[:1500] * scale).score(X[1500:] * scale)
    assert scaled + np.log(scale).sum() == pytest.approx(plain, abs=0.1)


def test_values_that_fit_did_not_see_are_scored_where_they_are_and_named(flow):
    pd = pytest.importorskip("pandas")
    with pytest.warns(UserWarning, match=r"Values that fit did not see: column 0 \(2 rows, such as 2.5\)"):
        between, far = flow.score_samples([[2.5, 1.0], [60.0, 1.0]])
    seen = flow.score_samples([[2.0, 1.0], [3.0, 1.0]])
    assert abs(between - seen.mean()) < 1.0 and far < seen.min() - 20
    named = InterpolantFlow(dequantize="auto", **TINY).fit(pd.DataFrame(counts(200), columns=["rooms", "size"]))
    with pytest.warns(UserWarning, match="column 'rooms'"):
        named.score_samples(pd.DataFrame([[2.5, 1.0]], columns=["rooms", "size"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow.score_samples(counts(50))
        flow.score_samples(counts(50).astype(np.float32))


def test_times_between_the_ends_have_no_grid(flow):
    model = InterpolantFlow(dequantize="auto", **TINY).fit(counts(200))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(model.score_samples([[2.5, 1.0]], t=0.5)).all()


# --------------------------------------------------------------------- rows


def test_rows_that_are_drawn_have_values_of_the_grid_and_their_shares(flow):
    X, drawn = counts(2000), flow.sample(2000, random_state=1)
    assert np.isin(drawn[:, 0], X[:, 0]).all() and len(np.unique(drawn[:, 1])) == 2000
    for value in range(6):
        assert abs((drawn[:, 0] == value).mean() - (X[:, 0] == value).mean()) < 0.05
    assert abs(np.corrcoef(drawn.T)[0, 1] - np.corrcoef(X.T)[0, 1]) < 0.08


def test_there_and_back_ends_on_the_values(flow):
    X = counts(100, seed=3)
    back = flow.inverse_transform(flow.transform(X))
    np.testing.assert_array_equal(back[:, 0], X[:, 0])
    np.testing.assert_allclose(back[:, 1], X[:, 1], atol=0.05)


def test_rows_of_a_frame_come_back_in_their_dtype_by_name():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(counts(300), columns=["rooms", "size"]).astype(np.float32)
    model = InterpolantFlow(dequantize=np.array(["rooms"]), **TINY).set_output(transform="pandas").fit(frame)
    drawn = model.sample(50)
    assert drawn.rooms.isin(frame.rooms).all() and (drawn.dtypes == np.float32).all()


@pytest.mark.parametrize("cls", [InterpolantFlow, InterpolantDiffusion])
def test_both_ends_of_a_bridge_have_a_grid(cls):
    X0, X1 = counts(400), 10 * counts(400, seed=1)
    params = TINY | {"base_density": "flow"}
    model = cls(dequantize=[0], **params).fit(X0, X1)
    assert np.isin(model.sample(200)[:, 0], X1[:, 0]).all()
    assert np.isin(model.transform(X0)[:, 0], X1[:, 0]).all()
    assert np.isin(model.inverse_transform(X1)[:, 0], X0[:, 0]).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(model.score_samples(X1)).all() and np.isfinite(model.score_samples(X0, t=0.0)).all()


def test_the_density_of_the_chain_is_that_of_the_variable_with_noise():
    model = InterpolantDiffusion(dequantize=[0], likelihood="sde", noise_level=0.5, n_steps=20, **TINY)
    X = counts(300)
    model.fit(X)
    with pytest.warns(UserWarning, match="Values that fit did not see"):
        model.score_samples([[2.5, 1.0]])
    assert np.isfinite(model.score_samples(X[:20])).all()
    assert np.isin(model.sample(50)[:, 0], X[:, 0]).all()


def test_a_mirror_stays_on_the_values():
    X = counts(300)
    model = InterpolantDiffusion("mirror", dequantize=[0], noise_level=0.5, **TINY).fit(X)
    assert np.isin(model.resample(X)[:, 0], X[:, 0]).all()
    np.testing.assert_array_equal(model.transform(X), X)


def test_forecasts_end_on_the_values_and_start_where_they_are_told():
    X0, X1 = np.random.default_rng(0).normal(size=(300, 2)), counts(300)
    model = InterpolantDiffusion(start="condition", dequantize=[0], **TINY).fit(X0, X1)
    assert np.isin(model.sample(40, condition=X0[:40])[:, 0], X1[:, 0]).all() and model.model_.base_grid is None


def test_the_noise_is_of_the_seed_and_of_no_other_generator():
    X = counts(300)
    before = check_random_state(None).get_state()[1].copy(), torch.get_rng_state()
    drawn = [InterpolantFlow(dequantize="auto", **TINY).fit(X).sample(20) for _ in range(2)]
    np.testing.assert_array_equal(*drawn)
    np.testing.assert_array_equal(before[0], check_random_state(None).get_state()[1])
    assert torch.equal(before[1], torch.get_rng_state())
    np.testing.assert_array_equal(X, counts(300))


def test_a_model_keeps_its_grid_in_files_and_whatever_the_parameter_becomes(tmp_path):
    model = InterpolantFlow(dequantize="auto", **TINY).fit(counts(300))
    expected = model.sample(20), model.score_samples(counts(20))
    sklearn_si.save(model, tmp_path / "model.si")
    for other in (sklearn_si.load(tmp_path / "model.si"), pickle.loads(pickle.dumps(model)), model):
        other.set_params(dequantize=None)
        np.testing.assert_array_equal(other.sample(20), expected[0])
        np.testing.assert_allclose(other.score_samples(counts(20)), expected[1], rtol=1e-6)


@pytest.mark.parametrize(
    "dequantize, match",
    [
        (["floors"], r"dequantize names the column 'floors', but expected one of \[0, 1\], or a position from 0 to 1"),
        ("0", r"The 'dequantize' parameter"),
    ],
)
def test_columns_that_there_are_not_are_refused(dequantize, match):
    with pytest.raises(ValueError, match=match):
        InterpolantFlow(dequantize=dequantize, **TINY).fit(counts(100))


# --------------------------------------------------------------------- the warning


def test_repeated_values_warn_once_with_the_column_the_share_and_the_ways_out():
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    rain = np.where(rng.random(500) < 0.88, 0.0, rng.random(500))
    frame = pd.DataFrame({"rain": rain, "wind": rng.normal(size=500)})
    (told,) = warnings_of(lambda: InterpolantFlow(**TINY).fit(frame))
    assert "column 'rain' (8" in told and "% of the rows are 0" in told and "'wind'" not in told
    assert "dequantize='auto'" in told and "sklearn_si.tables.TableSynthesizer" in told


def test_both_ends_of_a_bridge_warn_together_and_only_where_a_density_is_promised():
    X0, X1 = counts(200), counts(200, seed=1)
    params = TINY | {"base_density": "flow"}
    (told,) = warnings_of(lambda: InterpolantFlow(**params).fit(X0, X1))
    assert "of X0" in told and "of X1" in told
    assert warnings_of(lambda: InterpolantFlow(**TINY).fit(X0, X1)) == []
    assert warnings_of(lambda: InterpolantFlow(dequantize=[0], **params).fit(X0, X1)) == []
    (told,) = warnings_of(lambda: SchroedingerBridge(method="mixture", n_components=1, max_iter=3).fit(X0, X1))
    assert "base_density=None" in told
    bridge = SchroedingerBridge(method="mixture", n_components=1, base_density=None)
    assert warnings_of(lambda: bridge.fit(X0, X1)) == []


@pytest.mark.parametrize(
    "fit",
    [
        lambda X: InterpolantFlow(**TINY).fit(np.random.default_rng(0).normal(size=(300, 2))),
        lambda X: InterpolantFlow(dequantize="auto", **TINY).fit(X),
        lambda X: InterpolantFlow(dequantize=[0], **TINY).fit(X),
        lambda X: InterpolantDiffusion("mirror", **TINY).fit(X),
        lambda X: InterpolantDiffusion(start="condition", **TINY).fit(X, X),
        lambda X: TableSynthesizer(max_iter=5, random_state=0).fit(X),
    ],
)
def test_what_needs_no_warning_gives_none(fit):
    assert warnings_of(lambda: fit(counts(300))) == []


def test_a_part_that_is_not_covered_is_still_told():
    X = np.column_stack([counts(300), np.random.default_rng(1).integers(0, 2, 300)])
    (told,) = warnings_of(lambda: InterpolantFlow(dequantize=[0], **TINY).fit(X))
    assert "column 2 (" in told and "column 0" not in told


def test_the_warning_points_at_the_call_of_the_user():
    with pytest.warns(UserWarning, match="Repeated values") as told:
        InterpolantFlow(**TINY).fit(counts(200))
    assert next(w for w in told if "Repeated" in str(w.message)).filename == __file__
