"""`memory`: fits that were done before are loaded; the key, what is refused, damage, searches, pruning."""

import os
import pathlib

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import GridSearchCV, KFold

from sklearn_si import InterpolantDiffusion, InterpolantFlow, SchroedingerBridge
from sklearn_si._utils.after_fit import AFTER_FIT
from sklearn_si.persistence import prune
from sklearn_si.tables import TableSynthesizer

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(80, 2)), RNG.normal(2.0, 0.5, size=(90, 2))
SMALL = {"max_iter": 3, "hidden_layer_sizes": (8,), "preprocessing": "standardize", "random_state": 0}
FRAME = pd.DataFrame({"a": X[:, 0], "k": ["u", "v"] * 40})


def files(folder):
    return sorted(pathlib.Path(folder).glob("sklearn_si/*"))


def counted(monkeypatch):
    """The fits that were learned, one entry each."""
    learned = []
    for module in ("_estimators.base", "_estimators.bridge"):
        name = f"sklearn_si.{module}.fit_problem"
        true = __import__(f"sklearn_si.{module}", fromlist=["fit_problem"]).fit_problem

        def fit_problem(*args, true=true):
            learned.append(args)
            return true(*args)

        monkeypatch.setattr(name, fit_problem)
    return learned


MODELS = {
    "one sample": (InterpolantFlow(**SMALL), (X,)),
    "two samples": (InterpolantDiffusion(**SMALL), (X, Y)),
    "bridge": (SchroedingerBridge(method="network", n_components=1, n_rounds=0, **SMALL), (X, Y)),
}


@pytest.mark.parametrize("name", MODELS)
def test_an_equal_fit_is_loaded_and_answers_as_a_fresh_one(name, tmp_path, monkeypatch):
    model, samples = MODELS[name]
    model = model.__class__(**model.get_params()).set_params(memory=tmp_path)
    model.fit(*samples)
    learned = counted(monkeypatch)
    again = model.__class__(**model.get_params()).set_params(ode_tol=1e-5, n_steps=7).fit(*samples)
    assert not learned
    fresh = model.__class__(**model.get_params()).set_params(ode_tol=1e-5, n_steps=7, memory=None).fit(*samples)
    np.testing.assert_array_equal(again.sample(5), fresh.sample(5))
    np.testing.assert_array_equal(again.score_samples(Y), fresh.score_samples(Y))
    assert vars(again).keys() == vars(fresh).keys()


OTHERS = {
    "interpolant": "trigonometric", "gamma": "brownian", "gamma_scale": 2.0, "preprocessing": "whiten",
    "time_distribution": "uniform", "hidden_layer_sizes": (9,), "activation": "tanh", "dropout": 0.1, "batch_size": 64,
    "learning_rate_init": 0.02, "max_iter": 4, "n_estimators": 2, "tol": 0.1, "n_iter_no_change": 3,
    "early_stopping": False, "validation_fraction": 0.2, "random_state": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_a_training_parameter_is_in_the_key(name, tmp_path):
    InterpolantFlow(memory=tmp_path, **SMALL).fit(X)
    InterpolantFlow(memory=tmp_path, **{**SMALL, name: OTHERS[name]}).fit(X)
    assert len(files(tmp_path)) == 2


CHANGED = {
    "noise_level": 0.5, "noise_schedule": "constant", "n_steps": 9, "solver": "euler", "ode_tol": 0.1, "device": "cpu",
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_a_parameter_that_may_be_changed_after_fit_is_not_in_the_key(name, tmp_path):
    assert name in AFTER_FIT["InterpolantFlow"]
    InterpolantFlow(memory=tmp_path, **SMALL).fit(X)
    InterpolantFlow(memory=tmp_path, **{**SMALL, name: CHANGED[name]}).fit(X)
    assert len(files(tmp_path)) == 1


def test_data_and_conditions_are_in_the_key(tmp_path):
    flow = InterpolantFlow(memory=tmp_path, **SMALL)
    for rows, condition in ((X, None), (X + 1, None), (X, X[:, 0]), (X, X[:, 1]), (X, X[:, 1])):
        flow.fit(rows, condition=condition)
    assert len(files(tmp_path)) == 4


def test_a_fit_whose_seed_is_no_number_is_not_kept(tmp_path):
    for seed in (None, np.random.RandomState(0)):
        InterpolantFlow(memory=tmp_path, **{**SMALL, "random_state": seed}).fit(X)
    assert files(tmp_path) == []


def test_a_fit_that_cannot_be_saved_is_not_kept_with_a_warning(tmp_path):
    flow = InterpolantFlow(memory=tmp_path, coupling=lambda *pairs: pairs[:3], base_density=None, **SMALL)
    with pytest.warns(UserWarning, match=r"not kept in memory=.*which a file without code cannot describe"):
        flow.fit(X, Y)
    assert files(tmp_path) == []


def test_a_damaged_file_is_fitted_anew_with_a_warning(tmp_path):
    flow = InterpolantFlow(memory=tmp_path, **SMALL).fit(X)
    (file,) = files(tmp_path)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="cannot be read, so it is fitted anew"):
        again = InterpolantFlow(memory=tmp_path, **SMALL).fit(X)
    np.testing.assert_array_equal(again.sample(3), flow.sample(3))
    InterpolantFlow(memory=tmp_path, **SMALL).fit(X)  # no warning: it was written anew


def test_the_checks_of_fit_run_for_a_kept_fit(tmp_path):
    flow = InterpolantFlow(memory=tmp_path, **SMALL).fit(X, Y)
    with pytest.raises(ValueError, match="noise_level=1"):
        flow.set_params(noise_level=1.0).fit(X, Y)


def test_the_folder_of_a_joblib_memory_and_a_table(tmp_path):
    table = TableSynthesizer(memory=joblib.Memory(tmp_path, verbose=0), max_iter=3, random_state=0).fit(FRAME)
    again = TableSynthesizer(memory=tmp_path, max_iter=3, random_state=0).fit(FRAME)
    assert len(files(tmp_path)) == 1
    pd.testing.assert_frame_equal(again.sample(5), table.sample(5))


def test_a_search_over_parameters_after_fit_trains_once_a_fold(tmp_path):
    grid = {"n_steps": [2, 3], "ode_tol": [1e-2, 1e-3]}
    search = GridSearchCV(InterpolantFlow(memory=tmp_path, **SMALL), grid, cv=KFold(2)).fit(X)
    plain = GridSearchCV(InterpolantFlow(**SMALL), grid, cv=KFold(2)).fit(X)
    assert len(files(tmp_path)) == 3  # two folds, and the refit
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"])


def test_pruning_removes_what_was_not_loaded_for_the_longest(tmp_path):
    flows = [InterpolantFlow(memory=tmp_path, **{**SMALL, "random_state": seed}) for seed in range(3)]
    for age, flow in zip((30, 20, 10), flows, strict=True):
        before = set(files(tmp_path))
        flow.fit(X)
        (new,) = set(files(tmp_path)) - before
        os.utime(new, (1e9 - age, 1e9 - age))
    flows[0].fit(X)  # loaded: now the youngest
    cut_off = tmp_path / "sklearn_si" / f"{'0' * 32}.si.{'1' * 16}"
    cut_off.write_bytes(b"...")
    size = max(file.stat().st_size for file in files(tmp_path))
    assert len(prune(tmp_path, 2 * size + 100)) == 2 and not cut_off.exists()
    assert len(files(tmp_path)) == 2
    assert len(prune(tmp_path, 0)) == 2 and files(tmp_path) == []
    with pytest.raises(ValueError, match="max_bytes=-1, but expected an integer of at least 0"):
        prune(tmp_path, -1)


def test_names_of_columns_are_in_the_key(tmp_path):
    flow = InterpolantFlow(memory=tmp_path, **SMALL)
    flow.fit(pd.DataFrame(X, columns=["a", "b"]))
    assert flow.fit(pd.DataFrame(X, columns=["c", "d"])).feature_names_in_.tolist() == ["c", "d"]
    assert "feature_names_in_" not in vars(flow.fit(X))
    assert len(files(tmp_path)) == 3


def test_a_loaded_fit_leaves_nothing_of_the_fit_before(tmp_path):
    InterpolantFlow(memory=tmp_path, **SMALL).fit(X)
    flow = InterpolantFlow(memory=tmp_path, **SMALL).fit(Y).distill(max_iter=2)
    assert "distillation_report_" not in vars(flow.fit(X))
