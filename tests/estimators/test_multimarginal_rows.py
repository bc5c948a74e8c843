"""Many samples with conditions and weights of rows, kept fits, and names of columns."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import sklearn_si
from sklearn_si import MultimarginalFlow
from sklearn_si._estimators import multimarginal as _multimarginal
from sklearn_si._model.settings import Sampling
from sklearn_si._training import checkpoint as _checkpoint
from sklearn_si._training.multimarginal import SimplexBatches
from sklearn_si._training.paired_pools import PairedPools
from sklearn_si.exceptions import CheckpointError, NoDensityError

RNG = np.random.default_rng(0)
SMALL = {"max_iter": 60, "hidden_layer_sizes": (16,), "base_density": None, "random_state": 0}
QUICK = {**SMALL, "max_iter": 3}
TIMES = [0.0, 1.0, 2.0]


def two_kinds(n=120, share=0.5, seed=0):
    """Rows at three times, of two kinds that part: the mean is -t for "u" and t for "v"."""
    rng = np.random.default_rng(seed)
    kinds = [rng.choice(["u", "v"], n, p=[1 - s, s]) for s in (share, 0.5, 1 - share)]
    rows = [
        rng.normal(size=(n, 2)) * 0.3 + np.where(kind == "v", t, -t)[:, None]
        for t, kind in zip(TIMES, kinds, strict=True)
    ]
    return rows, kinds


@pytest.fixture(scope="module")
def given():
    """A fit given kinds, of which the samples have unequal shares. Shared: tests must not change it."""
    rows, kinds = two_kinds(300, share=0.2)
    return MultimarginalFlow(**{**SMALL, "max_iter": 300}).fit(rows, TIMES, condition=kinds)


@pytest.mark.parametrize(("kind", "sign"), [("u", -1.0), ("v", 1.0)])
def test_a_condition_says_which_way_rows_go(given, kind, sign):
    start = RNG.normal(size=(200, 2)) * 0.3
    assert_allclose(given.transform(start, 0.0, 2.0, condition=kind).mean(0), 2 * sign, atol=0.25)
    for time in (1.0, 1.5):
        assert_allclose(given.sample(400, time=time, condition=kind).mean(0), sign * time, atol=0.25)
    path = given.trajectory(start, TIMES, condition=np.repeat(kind, 200))
    assert_allclose(path[2].mean(0), 2 * sign, atol=0.25)


def test_a_condition_for_each_row(given):
    kinds = np.array(["u", "v"] * 100)
    drawn = given.sample(200, time=2.0, condition=kinds)
    assert drawn[kinds == "v"].min() > drawn[kinds == "u"].max() - 1.5
    assert_allclose(given.barycenter([0.0, 0.5, 0.5], 200, condition="v").mean(0), 1.5, atol=0.3)


def test_densities_given_a_condition_integrate_to_one():
    rows, kinds = two_kinds(100)
    flow = MultimarginalFlow(**{**SMALL, "base_density": "flow"}).fit(rows, TIMES, condition=kinds)
    grid = np.linspace(-4, 4, 30)
    X = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    for time in (0.0, 1.5):
        density = np.exp(flow.score_samples(X, time=time, condition="v"))
        assert density.sum() * (grid[1] - grid[0]) ** 2 == pytest.approx(1.0, abs=0.02)
    own = flow.score(rows[2][kinds[2] == "v"], time=2.0, condition="v")
    assert own > flow.score(rows[2][kinds[2] == "u"], time=2.0, condition="v") + 2


def test_densities_of_files_given_a_condition(tmp_path):
    rows, kinds = two_kinds(40)
    flow = MultimarginalFlow(**{**SMALL, "base_density": "flow", "max_iter": 3}).fit(rows, TIMES, condition=kinds)
    sklearn_si.save(flow, tmp_path / "flow.si")
    other = sklearn_si.load(tmp_path / "flow.si")
    for model in (flow, other):
        assert_array_equal(
            model.score_samples(rows[1], time=1, condition=kinds[1]),
            flow.score_samples(rows[1], time=1, condition=kinds[1]),
        )
        assert_array_equal(model.sample(5, time=1, condition="u"), flow.sample(5, time=1, condition="u"))


def test_a_number_as_the_condition():
    n, times = 200, [0.0, 1.0]
    numbers = [RNG.uniform(-1, 1, size=n) for _ in times]
    rows = [RNG.normal(size=(n, 1)) * 0.2 + t * 3 * c[:, None] for t, c in zip(times, numbers, strict=True)]
    frames = [pd.DataFrame({"dose": c}) for c in numbers]
    flow = MultimarginalFlow(**{**SMALL, "max_iter": 200}).fit(rows, times, condition=frames)
    for dose in (-0.6, 0.0, 0.6):
        drawn = flow.sample(400, time=1.0, condition=pd.DataFrame({"dose": [dose]}))
        assert drawn.mean() == pytest.approx(3 * dose, abs=0.3)


def test_pools_have_the_conditions_of_all_samples():
    generator = torch.Generator().manual_seed(0)
    shares = (0.1, 0.5, 0.9)
    conditions = [(torch.rand(500, 1, generator=generator) < s).float() for s in shares]
    rows = [torch.randn(500, 2, generator=generator) + 3 * c for c in conditions]
    for pairing in ("optimal", "independent"):
        x, c = PairedPools(rows, np.array(TIMES), pairing, generator, conditions).fresh()
        assert x.shape == (3, 500, 2)
        assert c.shape == (3, 500, 1)
        assert_allclose(c.mean((1, 2)), 0.5, atol=0.06)
        # a row keeps its condition, and rows of like conditions are paired
        for own, told, all_rows, all_told in zip(x, c, rows, conditions, strict=True):
            where = (own[:, None] == all_rows).all(-1).float().argmax(1)
            assert torch.allclose(all_told[where], told, atol=1e-5)
        assert float((c[0] - c[2]).abs().mean()) < 0.02


def test_weights_are_how_often_rows_count():
    rows = [np.random.default_rng(k).normal(size=(100, 2)) for k in range(3)]
    doubled = [np.concatenate([x, x + 4.0]) for x in rows]
    weights = [np.repeat([1.0, 0.0], 100), None, np.repeat([0.0, 2.0], 100)]
    flow = MultimarginalFlow(**{**SMALL, "base_density": "normal", "max_iter": 150})
    flow.fit(doubled, TIMES, sample_weight=weights)
    assert [len(x) for x in flow.model_.samples] == [100, 200, 100]
    assert_allclose(flow.base_density_.mean_, rows[0].mean(0))
    assert_allclose(flow.sample(2000, time=0.0).mean(0), 0.0, atol=0.25)
    assert_allclose(flow.sample(2000, time=2.0).mean(0), 4.0, atol=0.25)
    tilted = [None, np.repeat([3.0, 1.0], 100), None]
    flow.fit(doubled, TIMES, sample_weight=tilted)
    drawn = flow.model_.along(flow.model_.path(1.0, 1.0), 1).sample(4000, Sampling(), torch.Generator())
    assert drawn.mean() == pytest.approx(1.0, abs=0.2)
    assert flow.score(doubled[1], time=1.0, sample_weight=tilted[1]) > flow.score(doubled[1], time=1.0)


def test_weights_and_conditions_of_groups():
    rows, kinds = two_kinds(40)
    X, groups, kind = np.concatenate(rows), np.repeat(TIMES, 40), np.concatenate(kinds)
    weight = np.random.default_rng(1).integers(0, 3, size=120)
    order = np.random.default_rng(2).permutation(120)
    parts = [weight[:40], weight[40:80], weight[80:]]
    listed = MultimarginalFlow(**QUICK).fit(rows, TIMES, condition=kinds, sample_weight=parts)
    grouped = MultimarginalFlow(**QUICK).fit(X, groups=groups, condition=kind, sample_weight=weight)
    frame = pd.DataFrame(X, columns=["a", "b"]).assign(t=groups)
    framed = MultimarginalFlow(**QUICK).fit(frame, groups="t", condition=pd.Series(kind), sample_weight=weight)
    expected = listed.sample(5, time=1.5, condition="u")
    assert_array_equal(grouped.sample(5, time=1.5, condition="u"), expected)
    assert_array_equal(framed.sample(5, time=1.5, condition="u"), expected)
    shuffled = MultimarginalFlow(**QUICK).fit(
        frame.iloc[order], groups="t", condition=kind[order], sample_weight=weight[order]
    )
    for own, other in zip(shuffled.model_.samples, listed.model_.samples, strict=True):
        assert_array_equal(np.sort(own[:, 0]), np.sort(other[:, 0]))
    assert [w.sum() for w in shuffled.model_.weights] == pytest.approx([w.sum() for w in listed.model_.weights])


def test_paired_rows_have_one_weight():
    same = RNG.normal(size=(200, 1))
    rows = [same + t for t in TIMES]
    weight = np.where(rows[0][:, 0] > 0, 1.0, 0.0)
    flow = MultimarginalFlow("paired", **SMALL).fit(rows, TIMES, sample_weight=weight)
    assert flow.model_.samples[0].min() > 0
    flow.fit(rows, TIMES, sample_weight=weight + 0.1)
    drawn = flow.sample(3000, time=0.0)
    assert (drawn > 0).mean() == pytest.approx((weight + 0.1)[weight > 0].sum() / (weight + 0.1).sum(), abs=0.06)


ROWS, KINDS = two_kinds(60)
BAD = {
    "no list of conditions": ({"condition": KINDS[0]}, r"condition has a ndarray, but there are 3 samples in a list"),
    "few conditions": ({"condition": KINDS[:2]}, r"condition has 2 entries, but there are 3 samples"),
    "short conditions": (
        {"condition": [KINDS[0], KINDS[1][:9], KINDS[2]]},
        r"sample 1.0 must have one row for each of its 60",
    ),
    "other columns": (
        {"condition": [pd.DataFrame({n: k}) for n, k in zip("aab", KINDS, strict=True)]},
        r"condition of the sample 2.0 has the columns \['b'\], but that of 0.0 has \['a'\]",
    ),
    "few weights": ({"sample_weight": [None, None]}, "sample_weight has 2 entries, but there are 3 samples"),
    "short weights": ({"sample_weight": [None, np.ones(9), None]}, r"sample_weight\[1\] has the shape \(9,\)"),
    "negative weights": ({"sample_weight": [None, None, -np.ones(60)]}, r"sample_weight\[2\] is -1 at row 0 of X\[2\]"),
    "no weight": ({"sample_weight": [np.zeros(60), None, None]}, r"sample_weight\[0\] is 0 at every row of X\[0\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_fit_refuses(name):
    params, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        MultimarginalFlow(**SMALL).fit(ROWS, TIMES, **params)


def test_what_a_condition_rules_out(given):
    with pytest.raises(ValueError, match=r"base_density='normal' and a condition.*use base_density='flow', or None"):
        MultimarginalFlow(**{**SMALL, "base_density": "normal"}).fit(ROWS, TIMES, condition=KINDS)
    with pytest.raises(ValueError, match=r"Got condition_kinds=.* but fit was given no condition"):
        MultimarginalFlow(condition_kinds={0: "categorical"}, **SMALL).fit(ROWS, TIMES)
    with pytest.raises(ValueError, match="The model was fitted with a condition: pass condition="):
        given.sample(3, time=1.0)
    with pytest.raises(ValueError, match="The model was fitted with a condition: pass condition="):
        given.transform(ROWS[0], 0, 1)
    with pytest.raises(ValueError, match="'w'"):
        given.sample(3, time=1.0, condition="w")
    with pytest.raises(NoDensityError, match="base_density=None"):
        given.score_samples(ROWS[0], time=1.0, condition="u")
    plain = MultimarginalFlow(**{**SMALL, "max_iter": 2}).fit(ROWS, TIMES)
    with pytest.raises(ValueError, match="Got a condition, but the model was fitted without one"):
        plain.sample(3, time=1.0, condition="u")


def test_samples_that_lack_conditions_of_others_are_named():
    kinds = [KINDS[0], np.where(KINDS[1] == "v", "u", KINDS[1]), KINDS[2]]
    flow = MultimarginalFlow(**{**SMALL, "max_iter": 2})
    with pytest.warns(UserWarning, match=r"no rows of conditions that others have: 1.0 \(\d+% of the conditions"):
        flow.fit(ROWS, TIMES, condition=kinds)
    numbers = [np.linspace(-1, 1, 60) + 0.01 * k for k in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow.fit(ROWS, TIMES, condition=KINDS)
        flow.fit(ROWS, TIMES, condition=numbers)
    with pytest.warns(UserWarning, match="Some samples have no rows of conditions"):
        flow.fit(ROWS, TIMES, condition=[*numbers[:2], numbers[2] + 5])


def test_rows_of_its_own_need_no_names():
    """A model of frames warned of the names of the array that its own transform had returned."""
    frames = [pd.DataFrame(x, columns=["a", "b"]) for x in ROWS]
    flow = MultimarginalFlow(**{**SMALL, "max_iter": 2}).fit(frames, TIMES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moved = flow.transform(frames[0], 0, 1.5)
        back = flow.transform(moved, 1.5, 0)
        assert_allclose(back, ROWS[0], atol=2e-2)
    with pytest.raises(ValueError, match="The feature names should match those that were passed during fit"):
        flow.transform(frames[0][["b", "a"]], 0, 1.5)


def test_an_equal_fit_is_loaded(tmp_path, monkeypatch):
    flow = MultimarginalFlow(**{**SMALL, "max_iter": 3}, memory=tmp_path)
    flow.fit(ROWS, TIMES, condition=KINDS, sample_weight=[np.linspace(1, 2, 60), None, None])
    learned, true = [], _multimarginal.fit_many
    monkeypatch.setattr(_multimarginal, "fit_many", lambda *args: learned.append(args) or true(*args))
    again = MultimarginalFlow(**flow.get_params()).set_params(ode_tol=1e-2)
    again.fit(ROWS, TIMES, condition=KINDS, sample_weight=[np.linspace(1, 2, 60), None, None])
    assert not learned
    assert again.ode_tol == 1e-2
    assert_array_equal(again.sample(4, time=1, condition="u"), flow.sample(4, time=1, condition="u"))
    for given in (
        {},
        {"condition": KINDS},
        {"condition": KINDS[::-1], "sample_weight": [np.linspace(1, 2, 60), None, None]},
    ):
        before = len(learned)
        again.fit(ROWS, TIMES, **given)
        assert len(learned) == before + 1
    again.fit(ROWS, [0.0, 1.0, 3.0])
    assert len(learned) == 4


class Crash(Exception):
    """The end of a process."""


def test_a_fit_that_was_cut_off_continues_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(_checkpoint, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(_checkpoint, "_SHARE", 1e9)
    params = {**SMALL, "max_iter": 230, "base_density": "flow", "hidden_layer_sizes": (4,)}
    whole = MultimarginalFlow(**params).fit(ROWS, TIMES, condition=KINDS)
    cut = MultimarginalFlow(**params, checkpoint=tmp_path / "fit.checkpoint")
    true, calls = SimplexBatches.loss, []

    def loss(batches):
        calls.append(1)
        if len(calls) == 215:  # in a round, and in a block of batches
            raise Crash
        return true(batches)

    with monkeypatch.context() as patch:
        patch.setattr(SimplexBatches, "loss", loss)
        with pytest.raises(Crash):
            cut.fit(ROWS, TIMES, condition=KINDS)
    other = MultimarginalFlow(**{**params, "activation": "tanh"}, checkpoint=tmp_path / "fit.checkpoint")
    with pytest.raises(CheckpointError, match="is of another fit"):
        other.fit(ROWS, TIMES, condition=KINDS)
    cut.fit(ROWS, TIMES, condition=KINDS)
    assert cut.n_iter_ == whole.n_iter_
    assert_array_equal(cut.sample(5, time=1.5, condition="u"), whole.sample(5, time=1.5, condition="u"))
    assert_array_equal(
        cut.base_density_.sample(3, condition=[[1.0, 0.0]]), whole.base_density_.sample(3, condition=[[1.0, 0.0]])
    )
    assert not (tmp_path / "fit.checkpoint").exists()
