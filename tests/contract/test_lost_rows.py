"""One bad row ends no call: its result is NaN and a warning names it; a mean over rows is an error."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from sklearn_si import InterpolantDiffusion, InterpolantFlow, SchroedingerBridge
from sklearn_si._model.likelihood import follow
from sklearn_si.compose import TransformedDensity
from sklearn_si.exceptions import IntegrationError, IntegrationWarning
from sklearn_si.tables import TableSynthesizer

TINY = {"hidden_layer_sizes": (8,), "max_iter": 20, "random_state": 0, "preprocessing": "standardize"}
X = np.random.default_rng(0).normal(size=(200, 2))
FAR = np.array([[0.1, 0.2], [1e200, 0.0], [0.3, -0.4], [0.0, -1e250], [0.5, 0.5]])
BAD = [1, 3]


class BreaksFarOut(torch.nn.Module):
    """A field that is no number beyond 1e100 and is that of a network elsewhere."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, t, x, condition=None):
        far = (x.abs() > 1e100).any(1, keepdim=True)
        return torch.where(far, torch.nan, self.network(t, torch.where(far, 0.0, x), condition))


def broken(model):
    """The model with a velocity that is no number far out."""
    fitted = model.model_
    model.model_ = fitted.with_networks({"velocity": BreaksFarOut(fitted.velocity)})
    return model


@pytest.fixture(scope="module")
def density():
    return broken(InterpolantFlow(**TINY).fit(X))


@pytest.fixture(scope="module")
def bridge():
    return broken(InterpolantFlow(base_density="normal", **TINY).fit(X, X + 1.0))


def assert_only_bad_rows_are_lost(call, rows=FAR, what="became infinite or NaN while"):
    with pytest.warns(IntegrationWarning, match=rf"^2 of 5 rows {what} .* Rows: 1, 3\.$"):
        result = np.asarray(call(rows))
    lost = ~np.isfinite(result.reshape(5, -1)).all(1)
    assert np.flatnonzero(lost).tolist() == BAD and np.isnan(result[BAD]).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone = np.asarray(call(rows[~lost]))
    np.testing.assert_allclose(result[~lost], alone, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", ["score_samples", "transform", "inverse_transform"])
@pytest.mark.parametrize("which", ["density", "bridge"])
def test_methods_of_rows_give_nan_where_they_cannot_say_more(which, method, request):
    assert_only_bad_rows_are_lost(getattr(request.getfixturevalue(which), method))


def test_a_trajectory_and_the_fields_do_so_too(density):
    assert_only_bad_rows_are_lost(lambda rows: density.trajectory(rows, 3, start=1.0, stop=0.0).swapaxes(0, 1))
    assert_only_bad_rows_are_lost(
        lambda rows: density.velocity(rows, 0.5), what="became infinite or NaN while computing a field"
    )
    assert_only_bad_rows_are_lost(density.log_density_gradient)


def test_the_mean_of_a_plan_does_so_too():
    model = SchroedingerBridge(0.5, "mixture", n_components=1, base_density=None, random_state=0).fit(X, X + 1.0)
    rows = np.where(np.abs(FAR) > 1e100, 1.7e308 * np.sign(FAR), FAR)
    assert_only_bad_rows_are_lost(model.transform, rows)


def test_the_density_of_the_chain_does_so_too():
    model = InterpolantDiffusion(likelihood="sde", noise_level=0.5, n_steps=10, **TINY).fit(X)
    broken(model)
    with pytest.warns(IntegrationWarning, match=r"2 of 5 rows became .* weighting the paths of the SDE.* Rows: 1, 3\."):
        scores = model.score_samples(FAR)
    assert np.flatnonzero(np.isnan(scores)).tolist() == BAD
    with pytest.raises(IntegrationError, match="2 of 5 rows became"):
        model.score(FAR)


def test_the_error_of_such_a_row_is_not_known_and_not_counted_among_those_that_miss_the_tolerance(density):
    with pytest.warns(IntegrationWarning) as told:
        _, error = density.score_samples(FAR, return_error=True)
    assert np.isfinite(error[[0, 2, 4]]).all() and not np.isfinite(error[BAD]).any()
    assert not any("ode_tol" in str(w.message) for w in told)


@pytest.mark.parametrize("call", ["score", "cross_entropy"])
def test_means_are_errors_that_name_the_rows(density, call):
    with pytest.raises(IntegrationError, match=r"^2 of 5 rows .*leave them out.* Rows: 1, 3\.$") as caught:
        getattr(density, call)(FAR)
    assert caught.value.rows.tolist() == BAD


def test_the_advice_is_that_for_given_rows(density):
    with pytest.warns(IntegrationWarning, match="far outside the rows of fit") as told:
        density.score_samples(FAR)
    assert not any("noise_level" in str(w.message) or "n_steps" in str(w.message) for w in told)


def test_the_warning_points_at_the_call_of_the_user(density):
    for method in (density.score_samples, density.transform):
        with pytest.warns(IntegrationWarning) as told:
            method(FAR)
        assert [w.filename for w in told if "Rows" in str(w.message)] == [__file__]


def test_single_precision_that_overflows_on_the_way_back_is_named():
    model = InterpolantFlow(**TINY).fit((1e37 * X).astype(np.float32))
    rows = np.array([[0.1, 0.2], [50.0, 0.0], [0.0, 0.1]], dtype=np.float32)
    with pytest.warns(IntegrationWarning, match=r"1 of 3 rows became .* Rows: 1\."):
        moved = model.inverse_transform(rows)
    assert moved.dtype == np.float32 and np.flatnonzero(np.isnan(moved).any(1)).tolist() == [1]


def test_a_density_behind_a_transformer_and_a_table_refuse_a_mean():
    model = TransformedDensity(StandardScaler(), InterpolantFlow(**TINY)).fit(X)
    broken(model.estimator_)
    with pytest.warns(IntegrationWarning, match=r"Rows: 1, 3\."):
        assert np.flatnonzero(np.isnan(model.score_samples(FAR))).tolist() == BAD
    with pytest.warns(IntegrationWarning), pytest.raises(IntegrationError, match="2 of 5 rows"):
        model.score(FAR)


def test_a_table_scores_its_other_rows():
    table = TableSynthesizer(flow=InterpolantFlow(**TINY), max_iter=3, random_state=0).fit(X)
    fitted = table.value_model_.flow_.model_

    class BreaksOutside(BreaksFarOut):
        def forward(self, t, x, condition=None):
            value = self.network(t, x, condition)
            return torch.where((x > 3.0).any(1, keepdim=True), torch.nan, value)

    table.value_model_.flow_.model_ = fitted.with_networks({"velocity": BreaksOutside(fitted.velocity)})
    rows = np.array([[0.0, 0.1], [40.0, 40.0], [0.2, -0.1]])
    with pytest.warns(IntegrationWarning, match=r"1 of 3 rows became .* Rows: 1\."):
        scores = table.score_samples(rows)
    assert np.flatnonzero(np.isnan(scores)).tolist() == [1]
    with pytest.warns(IntegrationWarning), pytest.raises(IntegrationError, match="1 of 3 rows"):
        table.score(rows)


# Steps of the finest solve of a row that is given up.
_MOST_STEPS = 400


@pytest.fixture
def steps(monkeypatch):
    """The numbers of steps of all paths that are followed."""
    taken = []

    def counted(fields, x, start, stop, level, *others):
        taken.append(level.n_steps)
        return follow(fields, x, start, stop, level, *others)

    monkeypatch.setattr("sklearn_si._model.likelihood.follow", counted)
    return taken


FAR_OFF = {
    "flow": (lambda: InterpolantFlow(**TINY).fit(X), lambda m, rows: m.score_samples(rows, return_error=True)),
    "condition": (
        lambda: InterpolantFlow(**TINY).fit(X, condition=X[:, 0] > 0),
        lambda m, rows: m.score_samples(rows, condition=[True], return_error=True),
    ),
    "any": (
        lambda: InterpolantFlow(conditionals="any", **TINY).fit(X),
        lambda m, rows: m.score_samples(rows, given=[0], return_error=True),
    ),
    "bridge": (
        lambda: InterpolantDiffusion(**TINY).fit(X, X + 1.0),
        lambda m, rows: m.score_samples(rows, return_error=True),
    ),
}


@pytest.mark.parametrize("name", FAR_OFF)
def test_rows_far_off_are_given_up_with_a_stated_error_or_are_right(name, steps):
    fit, score = FAR_OFF[name]
    model = fit()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IntegrationWarning)
        for scale in (1e8, 1e12):
            value, error = score(model, scale * np.array([[1.0, -2.0], [0.3, 0.7]]))
            assert (error > 1e-3).all() or np.isnan(value).any()
    assert max(steps) <= _MOST_STEPS
