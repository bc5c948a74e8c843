"""A classifier from class-conditional densities: Bayes' rule, priors, weights, and rows that resemble none of fit."""

import copy

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sklearn_si import InterpolantClassifier, InterpolantFlow, load, save
from sklearn_si._estimators.prediction.classifier import _held_out, _power

RNG = np.random.default_rng(0)
Y = RNG.choice(["a", "b", "c"], p=[0.6, 0.3, 0.1], size=400)
X = RNG.normal(size=(400, 2)) + 3.0 * np.column_stack([Y == "b", Y == "c"])
FLOW = InterpolantFlow(max_iter=40, hidden_layer_sizes=(8,), preprocessing="standardize")


@pytest.fixture(scope="module")
def model():
    return InterpolantClassifier(FLOW, random_state=0).fit(X, Y)


def test_probabilities_are_near_those_of_the_true_densities(model):
    centres = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
    joint = np.array([0.6, 0.3, 0.1]) * norm.pdf(X[:, None] - centres).prod(2)
    proba = model.predict_proba(X)
    assert np.abs(proba - joint / joint.sum(1, keepdims=True)).mean() < 0.05
    assert model.score(X, Y) > 0.9
    assert model.score_samples(X).mean() == pytest.approx(np.log(joint.sum(1)).mean(), abs=0.15)


def test_bayes_rule_holds_for_given_priors(model):
    model = clone(model).set_params(calibrate=False).fit(X, Y)
    other = clone(model)
    vars(other).update({name: value for name, value in vars(model).items() if name not in model.get_params()})
    other.set_params(priors=[0.1, 0.1, 0.8])
    ratio = np.array([0.1, 0.1, 0.8]) / model.class_prior_
    expected = model.predict_proba(X) * ratio
    np.testing.assert_allclose(other.predict_proba(X), expected / expected.sum(1, keepdims=True), rtol=1e-6)
    assert model.power_ == 1
    np.testing.assert_allclose(
        other.score_samples(X), model.score_samples(X) + np.log((model.predict_proba(X) * ratio).sum(1))
    )
    other.set_params(priors=[0.5, 0.5, 0.0])
    assert (other.predict_proba(X)[:, 2] == 0).all()


def test_weights_are_the_shares_of_the_classes():
    weight = np.where(Y == "a", 1.0, 2.0) * (Y != "c")
    model = InterpolantClassifier(FLOW, random_state=0).fit(X, Y, sample_weight=weight)
    assert model.classes_.tolist() == ["a", "b"]
    n_a, n_b = (Y == "a").sum(), (Y == "b").sum()
    np.testing.assert_allclose(model.class_prior_, [n_a / (n_a + 2 * n_b), 2 * n_b / (n_a + 2 * n_b)])


def test_rows_far_from_all_classes_are_abstained_from_and_others_at_the_stated_rate(model):
    rng = np.random.default_rng(1)
    new = rng.normal(size=(1000, 2)) + 3.0 * np.eye(3)[rng.choice(3, p=[0.6, 0.3, 0.1], size=1000)][:, 1:]
    assert model.abstains([[20.0, 20.0], [-9.0, 0.0]]).all()
    assert model.abstains(new, share=0.1).mean() < 0.1 + 3 * np.sqrt(0.09 / 40 + 0.09 / 1000)
    with pytest.warns(UserWarning, match=r"50 held-out rows are too few to tell the least probable share of 0\.001"):
        assert not model.abstains(X, share=0.001).any()
    with pytest.raises(ValueError, match="Got share=0, but expected"):
        model.abstains(X, share=0)


def test_probabilities_that_are_too_sure_are_mended_by_a_power():
    rng = np.random.default_rng(2)
    y = rng.integers(2, size=5000)
    ratio = rng.normal(np.where(y == 1, 0.5, -0.5))  # the log of p(x | 1) / p(x | 0)
    densities = np.column_stack([np.zeros(5000), ratio])
    assert _power(densities, None, y, np.log([0.5, 0.5])) == 1
    assert _power(4 * densities, None, y, np.log([0.5, 0.5])) == pytest.approx(0.25, rel=0.1)
    # rows that were solved for no class say nothing
    densities[:10] = np.nan
    assert _power(4 * densities, np.ones(5000), y, np.log([0.5, 0.5])) == pytest.approx(0.25, rel=0.1)
    assert _power(np.full((3, 2), np.nan), None, y[:3], np.log([0.5, 0.5])) == 1


def test_rare_classes_keep_a_row_to_learn_from():
    codes = np.array([0] * 50 + [1] * 2 + [2])
    for seed in range(20):
        held = _held_out(codes, 0.3, np.random.default_rng(seed))
        assert set(codes) == set(np.delete(codes, held))
        assert len(held) == 16


def test_files_frames_and_searches(model, tmp_path):
    save(model, tmp_path / "m.si")
    np.testing.assert_array_equal(load(tmp_path / "m.si").predict_proba(X[:9]), model.predict_proba(X[:9]))
    frame = pd.DataFrame(X, columns=["u", "v"])
    search = GridSearchCV(InterpolantClassifier(FLOW, random_state=0), {"flow__max_iter": [5, 30]}, cv=2)
    assert search.fit(frame, Y).best_score_ > 0.8
    again = InterpolantClassifier(FLOW, memory=tmp_path, random_state=0).fit(X, Y)
    recalled = InterpolantClassifier(FLOW, memory=tmp_path, random_state=0, priors=[0.2, 0.2, 0.6]).fit(X, Y)
    np.testing.assert_array_equal(again.class_prior_, recalled.class_prior_)


def test_errors_name_what_came():
    model = InterpolantClassifier(FLOW, priors=[0.5, 0.5], random_state=0)
    with pytest.raises(ValueError, match=r"Got priors=\[0.5, 0.5\], but expected 3 shares"):
        model.fit(X, Y)
    with pytest.raises(ValueError, match=r"Columns \[1\] of X are constant"):
        clone(model).set_params(priors=None).fit(X * [1.0, 0.0], Y)
    with pytest.raises(ValueError, match="Unknown label type"):
        model.fit(X, X[:, 0])


@pytest.mark.parametrize("priors", [0.5, [[0.5, 0.5]], {"a": 0.5}, "uniform"], ids=str)
def test_priors_that_are_no_shares_of_the_classes_are_refused(model, priors):
    fitted = copy.deepcopy(model)
    with pytest.raises(ValueError, match=r"Got priors=.*, but expected (3 shares that sum to 1|each of .* once)"):
        fitted.set_params(priors=priors).predict_proba(X)


@pytest.mark.parametrize(
    ("label", "match"), [(None, "y has 1 missing values"), (1, r"y has labels of the types \['int', 'str'\]")]
)
def test_labels_that_are_missing_or_mixed_are_refused(model, label, match):
    y = np.array(["a", "b"] * 30, dtype=object)
    y[3] = label
    with pytest.raises(ValueError, match=match):
        clone(model).fit(X[:60], y)


@pytest.mark.parametrize(
    ("cells", "match"),
    [
        (["north", "south"], r"(?s)could not convert string.*at fault are \['v'\].*encode them \(OneHotEncoder\)"),
        ([np.nan, 1.0], r"(?s)contains NaN\.\nThe columns at fault are \['v'\]\.\nExpected finite numbers: leave"),
        ([np.inf, 1.0], r"(?s)contains infinity.*at fault are \['v'\].*rescale the columns"),
    ],
    ids=["words", "NaN", "infinity"],
)
def test_columns_that_are_no_numbers_are_named(model, cells, match):
    frame = pd.DataFrame({"u": X[:60, 0], "v": cells * 30})
    with pytest.raises(ValueError, match=match):
        clone(model).fit(frame, Y[:60])
    with pytest.raises(ValueError, match=match.replace("'v'", "1")):
        clone(model).fit(frame.to_numpy(), Y[:60])
    with pytest.warns(UserWarning, match="feature names"), pytest.raises(ValueError, match=match):
        model.predict(frame)


def test_missing_numbers_are_not_at_fault_where_words_are_refused(model):
    frame = pd.DataFrame({"u": np.where(np.arange(60) < 3, np.nan, X[:60, 0]), "v": ["north", "south"] * 30})
    with pytest.raises(ValueError, match=r"(?s)could not convert string.*at fault are \['v'\]"):
        clone(model).fit(frame, Y[:60])


def test_dates_are_no_numbers(model):
    with pytest.raises(ValueError, match="X has dates"):
        clone(model).fit(np.arange(60).astype("M8[D]").reshape(-1, 1), Y[:60])


def test_one_row_a_class_is_refused():
    with pytest.raises(ValueError, match=r"Got 3 rows of 3 classes, .* at least two rows of one class"):
        InterpolantClassifier().fit(np.eye(3), ["a", "b", "c"])
