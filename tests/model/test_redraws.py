"""Rows of a draw that become infinite or NaN: drawn again, counted, and named where that does not help."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from oracles import with_parts
from sklearn_si import InterpolantDiffusion, InterpolantFlow, SchroedingerBridge
from sklearn_si.exceptions import IntegrationError, IntegrationWarning
from sklearn_si.tables import InterpolantImputer, TableSynthesizer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 2))
SMALL = {"max_iter": 3, "hidden_layer_sizes": (4,), "random_state": 0, "preprocessing": "standardize"}
AGAIN = r"of \d+ rows became infinite or NaN while sampling and were drawn again\."


class Broken(torch.nn.Module):
    """A field that is not a number near t = 0 where `is_bad(x, condition)` says so."""

    def __init__(self, field, is_bad):
        super().__init__()
        self.field, self.is_bad = field, is_bad

    def forward(self, t, x, condition=None):
        value = self.field(t, x, condition)
        return torch.where((self.is_bad(x, condition) & (t < 0.04))[:, None], torch.nan, value)


def far(x, condition):
    return x[:, 0] > 2.6  # half a row in a hundred of a standard normal base


def broken(model, is_bad=far):
    return with_parts(model, velocity=Broken(model.network_, is_bad))


def drawn(model, *args, **kwargs):
    """A draw that warns, and the rows that it drew again."""
    with pytest.warns(IntegrationWarning, match=AGAIN) as caught:
        rows = model.sample(*args, **kwargs)
    return rows, int(str(caught[0].message).split()[0])


MODELS = {
    "flow": InterpolantFlow(**SMALL),
    "adaptive": InterpolantFlow(**SMALL, solver="dopri5-adaptive"),
    "float32": InterpolantFlow(**SMALL),
    "diffusion": InterpolantDiffusion(**SMALL, noise_level=0.1),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_row_that_leaves_the_finite_numbers_is_drawn_again(name):
    model = MODELS[name].fit(X.astype(np.float32) if name == "float32" else X)
    network = model.network_
    # a wrapped network is evaluated step by step, which rounds otherwise than the network as it is
    with_parts(model, velocity=Broken(network, lambda x, condition: x[:, 0] > 1e9))
    expected = model.sample(1000)
    with_parts(model, velocity=Broken(network, far))
    rows, redrawn = drawn(model, 1000)
    assert np.isfinite(rows).all() and 0 < redrawn < 40
    # the rows that were fine are the same, and no two rows are alike
    assert np.isclose(rows, expected, rtol=1e-9, atol=1e-9).all(1).sum() == 1000 - redrawn
    assert len(np.unique(rows, axis=0)) == 1000
    np.testing.assert_array_equal(drawn(model, 1000)[0], rows)
    assert not np.array_equal(drawn(model, 1000, random_state=1)[0], rows)


def test_a_draw_without_such_rows_is_silent():
    model = InterpolantFlow(**SMALL).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(model.sample(1000)).all()


@pytest.mark.parametrize("name", MODELS)
def test_more_than_a_hundredth_of_the_rows_without_an_end_are_an_error_that_names_them(name):
    model = broken(MODELS[name].fit(X), lambda x, condition: x[:, 0] > -9)
    with pytest.raises(
        IntegrationError, match=r"^50 of 50 rows became .* in each of 4 draws: .* Rows: 0, 1, 2, 3, 4, "
    ) as caught:
        model.sample(50)
    assert caught.value.rows.tolist() == list(range(50))


def rare(x, condition):
    return condition[:, 0] > 2  # beyond the rows of fit, where the encoded condition saturates


@pytest.mark.parametrize("n_bad", [1, 10, 11])
def test_up_to_a_hundredth_of_the_rows_repeat_the_row_of_the_nearest_condition(n_bad):
    condition = RNG.normal(size=(300, 1))
    model = broken(InterpolantFlow(**SMALL).fit(X, condition=condition), rare)
    asked = np.linspace(-1, 1, 1000)[:, None]
    asked[-n_bad:] = 100.0
    if n_bad > 10:
        with pytest.raises(IntegrationError, match=r"^11 of 1000 rows .* nearer to those of fit") as caught:
            model.sample(1000, condition=asked)
        assert caught.value.rows.tolist() == list(range(989, 1000))
        return
    message = (
        f"^{n_bad} of 1000 .* {n_bad} of them did so in each of 4 draws, and repeat the row drawn given what is most"
    )
    with pytest.warns(IntegrationWarning, match=message):
        rows = model.sample(1000, condition=asked)
    assert np.isfinite(rows).all() and (rows[-n_bad:] == rows[-n_bad - 1]).all()


def test_without_a_condition_they_repeat_another_row():
    model = InterpolantFlow(**SMALL).fit(X)
    ends = iter([np.nan] * 4)
    model.set_params(
        solver=lambda f, x, times: (
            torch.where(torch.arange(len(x))[:, None] == 7, next(ends), x) if len(x) > 1 else x * next(ends)
        )
    )
    with pytest.warns(IntegrationWarning, match="and repeat another row"):
        rows = model.sample(100)
    assert np.isfinite(rows).all() and (rows[7] == rows[8]).all()


@pytest.mark.parametrize("method", ["network", "mixture"])
def test_bridges_draw_such_rows_again(method):
    bridge = SchroedingerBridge(method=method, n_components=1, max_iter=3, hidden_layer_sizes=(4,), base_density=None,
                                preprocessing=None, n_rounds=0, random_state=0).fit(X, X + 1)  # fmt: skip
    field = bridge.network_ if method == "network" else bridge.network_.potential
    calls = []

    def once(x, *args):
        calls.append(len(x))
        x = x.clone()
        x[0] = torch.nan if len(calls) == 1 else x[0]
        return x

    if method == "mixture":
        draw = type(field).draw
        type(field).draw = lambda self, x, generator: once(draw(self, x, generator))
    else:
        of_states = type(field).preconditioning_at
        type(field).preconditioning_at = lambda self, coefficients, x: of_states(self, coefficients, once(x))
    try:
        for ask in (lambda: bridge.sample(200), lambda: bridge.sample_plan(X[:200])):
            calls.clear()
            with pytest.warns(IntegrationWarning, match=f"^1 {AGAIN}"):
                assert np.isfinite(ask()).all()
            assert calls[0] == 200 and calls[-1] == 1
    finally:
        if method == "mixture":
            type(field).draw = draw
        else:
            type(field).preconditioning_at = of_states


def test_forecasts_draw_such_rows_again_from_their_own_start():
    model = InterpolantDiffusion(**SMALL, start="condition", n_steps=10).fit(X, X + 100)
    expected = model.sample(200, condition=X[:200])
    calls = []

    def is_bad(x, condition):
        calls.append(len(x))
        return torch.arange(len(x)) == (7 if len(calls) == 1 else -1)

    broken(model, is_bad)
    with pytest.warns(IntegrationWarning, match=f"^1 {AGAIN}"):
        rows = model.sample(200, condition=X[:200])
    assert np.isfinite(rows).all()
    assert np.flatnonzero((rows != expected).any(1)).tolist() == [7]


def table(n=200):
    rng = np.random.default_rng(1)
    level = rng.integers(3, size=n)
    frame = pd.DataFrame({"a": np.array(list("uvw"))[level], "x": level + rng.normal(size=n), "y": rng.normal(size=n)})
    frame.loc[::5, "y"] = np.nan
    return frame


@pytest.fixture
def synthesizer():
    model = TableSynthesizer(
        flow=InterpolantFlow(preprocessing="standardize", hidden_layer_sizes=(4,)), max_iter=3, random_state=0
    )
    return model.fit(table())


def test_tables_draw_such_rows_again(synthesizer):
    broken(synthesizer.value_model_.flow_)
    for ask in (
        lambda: synthesizer.sample(1000),
        lambda: synthesizer.sample(given=pd.DataFrame({"a": ["u", "w"] * 500})),
        lambda: synthesizer.impute(pd.concat([table()] * 5, ignore_index=True), n_draws=3)[0],
    ):
        with pytest.warns(IntegrationWarning, match=AGAIN):
            rows = ask()
        assert np.isfinite(rows["x"]).all()


def test_the_imputer_draws_such_rows_again():
    model = InterpolantImputer(
        TableSynthesizer(flow=InterpolantFlow(preprocessing="standardize", hidden_layer_sizes=(4,)), max_iter=3),
        average=5,
        random_state=0,
    ).fit(table())
    broken(model.synthesizer_.value_model_.flow_)
    with pytest.warns(IntegrationWarning, match=AGAIN):
        filled = model.transform(pd.concat([table()] * 5, ignore_index=True))
    assert filled.notna().all(axis=None)


def test_an_error_of_a_table_names_its_own_rows(synthesizer):
    broken(synthesizer.value_model_.flow_, lambda x, condition: x[:, 0] > -9)
    rows, lost = table()[["a", "x", "y"]], range(4, 84, 2)
    rows["y"] = 0.0
    rows.loc[lost, "y"] = np.nan
    with pytest.raises(IntegrationError, match=r"Rows: ") as caught:
        synthesizer.sample(given=rows)
    # some of them are drawn as missing; more than ten are left, which is too many
    assert len(caught.value.rows) > 10 and set(caught.value.rows.tolist()) <= set(lost)
