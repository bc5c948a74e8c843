"""scikit-learn's callbacks: what they see of a fit, and that they may stop it."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sklearn_si
from sklearn_si import InterpolantDiffusion, InterpolantFlow, SchroedingerBridge, TransformedDensity
from sklearn_si._training import run as _runs
from sklearn_si._training.loop import ROUND, Settings, count_rounds
from sklearn_si.exceptions import FitDivergedError
from sklearn_si.tables import InterpolantImputer, TableSynthesizer

callback = pytest.importorskip("sklearn.callback", reason="callbacks came with scikit-learn 1.9")

TINY = {"hidden_layer_sizes": (8,), "max_iter": 300, "random_state": 0}
X = np.random.default_rng(0).normal(size=(120, 2)) * [1.0, 3.0]
SHIFTED = X + 2.0


class Recorder:
    """Keeps the names of tasks, and stops at a round of a given task."""

    def __init__(self, stop=None):
        self.stop, self.names, self.rounds, self.balance = stop, [], [], 0

    def setup(self, estimator, context):
        self.names.clear()

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        self.names.append(context.task_name)
        self.balance += 1

    def on_fit_task_end(self, estimator, context):
        self.balance -= 1
        if context.task_name == "round":
            self.rounds.append((context.parent.task_name, context.n_iter, context.loss, context.validation_score))
            return context.parent.task_name == self.stop
        return False


class Propagated(Recorder):
    """One that follows into the estimators inside."""

    max_propagation_depth = None


def fitted(model, *samples, recorder=None):
    recorder = recorder or Recorder()
    model.set_callbacks(recorder).fit(*samples)
    assert recorder.balance == 0
    return model, recorder


def test_a_fit_tells_of_its_runs_and_rounds():
    _, recorder = fitted(InterpolantFlow(**TINY), X)
    assert recorder.names[0] == "fit"
    assert {"compare", "train", "round"} < set(recorder.names)
    last = recorder.rounds[-1]
    assert last[0] == "train"
    assert last[1] == 300
    assert np.isfinite(last[2:]).all()


@pytest.mark.parametrize(
    "model", [InterpolantDiffusion(**TINY), SchroedingerBridge(method="network", **TINY, n_components=1)], ids=type
)
def test_rounds_are_the_entries_of_the_loss_curve(model):
    model, recorder = fitted(model.set_params(base_density=None), X, SHIFTED)
    np.testing.assert_array_equal(model.loss_curve_, [r[2] for r in recorder.rounds])
    assert model.validation_scores_[-1] == recorder.rounds[-1][3]


@pytest.mark.parametrize("stop", ["compare", "train"])
def test_a_callback_stops_a_fit_and_the_model_is_kept(stop):
    model, recorder = fitted(InterpolantFlow(**TINY | {"max_iter": 5000}), X, recorder=Recorder(stop))
    assert sum(r[0] == stop for r in recorder.rounds) == 1
    assert recorder.rounds[-1][0] == stop
    assert np.isfinite(model.score(X))


def test_what_a_callback_is_given_is_the_model_that_is_kept():
    scores = []

    class Scoring(Recorder):
        def on_fit_task_end(self, estimator, context, *, X, fitted_estimator):
            if context.task_name == "round" and context.parent.task_name == "train":
                scores.append(fitted_estimator.score(X))
            return super().on_fit_task_end(estimator, context)

    model, _ = fitted(InterpolantFlow(preprocessing="whiten", **TINY), X, recorder=Scoring())
    assert len(scores) == 3
    # all but the choice among runs, which are judged once more
    assert scores[-1] == pytest.approx(model.score(X), abs=1e-9)


def test_following_a_fit_leaves_it_as_it_is():
    plain = InterpolantFlow(**TINY).fit(X)
    followed, _ = fitted(InterpolantFlow(**TINY), X)
    np.testing.assert_array_equal(plain.score_samples(X), followed.score_samples(X))


def test_propagated_callbacks_follow_into_the_base_density():
    _, recorder = fitted(InterpolantFlow(base_density="flow", **TINY), X, SHIFTED, recorder=Propagated())
    assert recorder.names.count("fit") == 2  # the part "base density" is the same task as the fit of that flow
    assert "compare" in recorder.names  # which is that flow's
    _, recorder = fitted(InterpolantFlow(**TINY), X, SHIFTED)
    assert "compare" not in recorder.names


@pytest.mark.filterwarnings("error:.*does not support callbacks")
def test_a_base_density_without_callbacks_is_fitted_in_silence():
    model = InterpolantFlow(base_density=GaussianMixture(), **TINY)
    fitted(model, X, SHIFTED, recorder=Propagated())
    assert isinstance(model.base_density_, GaussianMixture)


@pytest.mark.parametrize(
    ("model", "inside"),
    [
        (make_pipeline(PCA(), InterpolantFlow(**TINY)), "train"),
        (GridSearchCV(InterpolantFlow(**TINY), {"noise_level": [0.0, 1.0]}, cv=2), "train"),
        (TransformedDensity(PCA(whiten=True), InterpolantFlow(**TINY)), "train"),
        (TableSynthesizer(max_iter=100, random_state=0), "train"),
        (InterpolantImputer(TableSynthesizer(max_iter=100)), "codes"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore")
def test_callbacks_follow_from_meta_estimators(model, inside):
    rows = X if not isinstance(model, InterpolantImputer) else np.where(X > 2.5, np.nan, X)
    _, recorder = fitted(model, rows, recorder=Propagated())
    assert inside in recorder.names


def test_scikit_learns_progress_bar_and_monitor():
    pytest.importorskip("rich")
    model = InterpolantFlow(base_density="normal", **TINY)
    monitor = callback.ScoringMonitor(scoring={"nats": lambda model, X, y: model.score(X, y)})
    model.set_callbacks(callback.ProgressBar(), monitor).fit(X, SHIFTED)
    log = monitor.get_logs(select="most_recent")
    assert log.data_as_pandas["nats"].iloc[-1] == pytest.approx(model.score(SHIFTED))


def test_a_fitted_model_is_pickled_without_its_callbacks_and_cloned_with_them():
    model, _ = fitted(InterpolantFlow(**TINY), X)
    assert not hasattr(pickle.loads(pickle.dumps(model)), "_skl_callbacks")
    assert hasattr(pickle.loads(pickle.dumps(InterpolantFlow().set_callbacks(Recorder()))), "_skl_callbacks")


@pytest.mark.parametrize("steps", [1, 99, 100, 101, 3000])
def test_rounds_are_counted_ahead(steps):
    settings = Settings(32, 0.1, steps, None, 0.0, 3, True, 0, "uniform")
    count, n_iter = 0, 0
    while n_iter < steps:
        n_iter += min(max(ROUND, int(0.06 * n_iter)), steps - n_iter)
        count += 1
    assert count_rounds(settings) == count


class Saving(Recorder):
    """Saves the model of each round."""

    def __init__(self, path):
        super().__init__()
        self.path, self.scores = path, []

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        if context.task_name == "round" and context.parent.task_name == "train":
            sklearn_si.save(fitted_estimator, self.path)
            self.scores.append(sklearn_si.load(self.path).score(X))
        return super().on_fit_task_end(estimator, context)


def test_a_callback_saves_what_is_there_so_far(tmp_path):
    model, recorder = fitted(InterpolantFlow(preprocessing="whiten", **TINY), X, recorder=Saving(tmp_path / "model.si"))
    assert recorder.scores[-1] == pytest.approx(model.score(X), abs=1e-9)


@pytest.mark.parametrize(
    "model",
    [
        TransformedDensity(StandardScaler(), InterpolantFlow(**TINY)),
        InterpolantImputer(TableSynthesizer(max_iter=3)),
        TableSynthesizer(max_iter=3),
    ],
    ids=lambda model: type(model).__name__,
)
def test_whatever_was_followed_can_be_saved(model, tmp_path):
    model, _ = fitted(clone(model), X, recorder=Propagated())
    sklearn_si.save(model, tmp_path / "model.si")
    assert not hasattr(pickle.loads(pickle.dumps(model)), "_skl_callbacks")
    assert hasattr(clone(model), "_skl_callbacks")


def test_a_monitor_of_a_bridge_waits_for_its_density():
    given = []

    class Asking(Recorder):
        def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
            given.append(fitted_estimator)
            return super().on_fit_task_end(estimator, context)

    model, _ = fitted(InterpolantFlow(**TINY), X, SHIFTED, recorder=Asking())
    assert given[:3] == [None, None, None]
    assert given[-1].score(SHIFTED) == model.score(SHIFTED)


def test_a_run_that_diverges_ends_its_task(monkeypatch):
    train, runs = _runs.train, []

    def second_diverges(*args, **kwargs):
        runs.append(args)
        if len(runs) == 2:
            raise FitDivergedError("planted")
        return train(*args, **kwargs)

    monkeypatch.setattr(_runs, "train", second_diverges)
    fitted(InterpolantFlow(**TINY), X)  # which counts begins and ends
    assert len(runs) > 2
