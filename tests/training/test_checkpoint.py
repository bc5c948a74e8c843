"""Checkpoints: a fit that was interrupted continues, and ends with the same model to the bit."""

import copy
import errno
import multiprocessing
import os
import resource
import signal
import time

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from torch import nn

import sklearn_si
from sklearn_si import InterpolantDiffusion, InterpolantFlow, SchroedingerBridge
from sklearn_si._training import batches as _batches
from sklearn_si._training import checkpoint as _checkpoint
from sklearn_si._training.batches import Batches
from sklearn_si.exceptions import CheckpointError, FitDivergedError, LoadError
from sklearn_si.tables import InterpolantImputer, TableSynthesizer, _masked

RNG = np.random.default_rng(0)
X0, X1 = RNG.normal(size=(200, 2)), RNG.normal(2.0, 1.0, size=(150, 2))
FRAME = pd.DataFrame({"a": X0[:, 0], "b": X0[:, 1] ** 2, "k": RNG.choice(list("uvw"), 200)})
SMALL = {"max_iter": 260, "hidden_layer_sizes": (8,), "ode_tol": 0.05, "random_state": 0}


def network_with_dropout(n_features, n_conditions):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            sizes = n_features + 1, 8, n_features
            self.layers = nn.Sequential(
                nn.Linear(*sizes[:2]), nn.BatchNorm1d(8), nn.SiLU(), nn.Dropout(0.2), nn.Linear(*sizes[1:])
            )

        def forward(self, t, x, condition=None):
            return self.layers(torch.cat([t.expand(len(x))[:, None], x], 1))

    return Network()


# name -> (the estimator, what it is fitted to)
FITS = {
    "one sample": (InterpolantFlow(**SMALL), (X0,)),
    "dropout": (InterpolantFlow(dropout=0.3, preprocessing="standardize", **SMALL), (X0,)),
    "a network of one's own": (
        InterpolantFlow(network=network_with_dropout, preprocessing="standardize", **SMALL), (X0,),
    ),
    "fresh seed": (InterpolantFlow(**{**SMALL, "random_state": None}), (X0,)),
    "optimal coupling, drawn ahead": (InterpolantFlow(coupling="optimal", **SMALL), (X0, X1)),
    "entropic coupling, two fields": (InterpolantDiffusion(coupling="entropic", base_density=None, **SMALL), (X0, X1)),
    "learned path": (
        InterpolantFlow(interpolant="learned", base_density=None, **{**SMALL, "max_iter": 900}), (X0, X1),
    ),
    "bridge, round by round": (
        SchroedingerBridge(method="network", base_density=None, n_components=1, **{**SMALL, "max_iter": 110}), (X0, X1),
    ),
    "bridge from a normal distribution, fresh seed": (
        SchroedingerBridge(0.1, "network", 1, base_density=None, max_iter=110, hidden_layer_sizes=(8,)), (X0,),
    ),
    "table": (TableSynthesizer(max_iter=120, random_state=0), (FRAME,)),
}  # fmt: skip


class Killed(BaseException):
    """In place of a signal."""


@pytest.fixture
def at_once(monkeypatch):
    """The file is written at the end of every round."""
    monkeypatch.setattr(_checkpoint, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(_checkpoint, "_SHARE", np.inf)


def cut_off(monkeypatch, after):
    """End fits after so many records of rounds and of trainings."""
    keep, left = _checkpoint.Record.keep, iter(range(after - 1, -1, -1))

    def keep_and_die(self, *args):
        keep(self, *args)
        if next(left, 0) == 0:
            raise Killed

    monkeypatch.setattr(_checkpoint.Record, "keep", keep_and_die)


def with_checkpoint(estimator, path):
    return type(estimator)(**{**estimator.get_params(deep=False), "checkpoint": path})


def answers(model):
    drawn = model.sample(20, random_state=1)
    values = drawn.to_numpy() if hasattr(drawn, "to_numpy") else drawn
    if isinstance(model, InterpolantFlow) and model.interpolant_.path_type == "one-sided":
        return np.column_stack([values, model.score_samples(drawn)])
    return values


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("name", FITS)
def test_a_fit_that_was_cut_off_again_and_again_is_the_one_that_was_not(name, tmp_path, monkeypatch):
    estimator, samples = FITS[name]
    path = tmp_path / "fit.checkpoint"
    n_cuts = 0
    for after in (1, 1, 1, 4):
        with monkeypatch.context() as patch:
            cut_off(patch, after)
            try:
                with_checkpoint(estimator, path).fit(*samples)
            except Killed:
                n_cuts += 1
                seed = _checkpoint_contents(path)["seed"]
    model = with_checkpoint(estimator, path).fit(*samples)
    whole = type(estimator)(**{**estimator.get_params(deep=False), "random_state": seed}).fit(*samples)
    assert n_cuts >= 3
    assert not path.exists()
    np.testing.assert_array_equal(answers(model), answers(whole))


def _checkpoint_contents(path):
    from sklearn_si.persistence._archive import read

    return read(path)


def _fit_in_a_process(path, done):
    torch.set_num_threads(1)
    _checkpoint._LEAST_SECONDS, _checkpoint._SHARE = 0.0, np.inf
    estimator, samples = FITS["one sample"]
    sklearn_si.save(with_checkpoint(estimator, path).fit(*samples).set_params(checkpoint=None), done)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fit_that_is_killed_at_any_moment_goes_on_to_the_same_model(tmp_path):
    path, done = tmp_path / "fit.checkpoint", tmp_path / "model.si"
    context = multiprocessing.get_context("fork")
    n_killed, pauses = 0, iter(np.geomspace(0.05, 60, 12))
    while not done.exists():
        process = context.Process(target=_fit_in_a_process, args=(path, done))
        process.start()
        process.join(next(pauses))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            n_killed += 1
        process.join()
    estimator, samples = FITS["one sample"]
    assert n_killed > 0
    np.testing.assert_array_equal(answers(sklearn_si.load(done)), answers(estimator.fit(*samples)))


@pytest.mark.usefixtures("at_once")
def test_ctrl_c_keeps_the_model_and_the_file_and_the_next_fit_goes_on(tmp_path, monkeypatch):
    path, loss, calls = tmp_path / "fit.checkpoint", Batches.loss, iter(range(10**6))
    estimator, samples = FITS["optimal coupling, drawn ahead"]
    estimator = with_checkpoint(estimator, path).set_params(base_density=None)

    def interrupted(self):
        if next(calls) == 150:
            raise KeyboardInterrupt
        return loss(self)

    with monkeypatch.context() as patch:
        patch.setattr(Batches, "loss", interrupted)
        with pytest.warns(ConvergenceWarning, match="after 150 steps: .* are kept. The same call of `fit` continues"):
            estimator.fit(*samples)
    assert estimator.n_iter_ == 150 and np.isfinite(estimator.sample(5)).all() and path.exists()
    assert estimator.fit(*samples).n_iter_ == 260 and not path.exists()
    whole = InterpolantFlow(coupling="optimal", base_density=None, **SMALL).fit(*samples)
    np.testing.assert_array_equal(answers(estimator), answers(whole))


@pytest.fixture
def left_behind(tmp_path, monkeypatch, at_once):
    """The checkpoint of a fit that was cut off after its first round."""
    path = tmp_path / "fit.checkpoint"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        cut_off(patch, 1)
        InterpolantFlow(checkpoint=path, **SMALL).fit(X0)
    return path


@pytest.mark.parametrize(
    "changes, rows, differ",
    [
        ({"max_iter": 300}, X0, "max_iter"),
        ({"random_state": 1}, X0, "random_state"),
        ({"random_state": None}, X0, "random_state"),
        ({}, X0 + 1e-12, "X0"),
        ({}, X0.astype(np.float32), "X0"),
    ],
)
def test_a_checkpoint_of_another_fit_is_refused(left_behind, changes, rows, differ):
    before = left_behind.read_bytes()
    model = InterpolantFlow(checkpoint=left_behind, **{**SMALL, **changes})
    with pytest.raises(CheckpointError, match=rf"is of another fit: they differ in \['{differ}'\].*remove the file"):
        model.fit(rows)
    assert left_behind.read_bytes() == before


def test_another_class_and_a_second_sample_are_another_fit(left_behind):
    with pytest.raises(CheckpointError, match=r"they differ in \['X1'\]"):
        InterpolantFlow(checkpoint=left_behind, **SMALL).fit(X0, X1)
    with pytest.raises(CheckpointError, match=r"they differ in .*'class'"):
        InterpolantDiffusion(checkpoint=left_behind, **SMALL).fit(X0)


def test_what_does_not_change_the_model_may_change(tmp_path, monkeypatch, at_once, capsys):
    path, params = tmp_path / "fit.checkpoint", {"preprocessing": "standardize", **SMALL}
    with monkeypatch.context() as patch, pytest.raises(Killed):
        cut_off(patch, 1)
        InterpolantFlow(checkpoint=path, **params).fit(X0)
    model = InterpolantFlow(checkpoint=path, verbose=1, device="cpu", **params).fit(X0)
    assert capsys.readouterr().out.startswith("Continues from the checkpoint, after step 100\nstep 200: loss")
    np.testing.assert_array_equal(answers(model), answers(InterpolantFlow(**params).fit(X0)))


@pytest.mark.parametrize("kept", [0, 10, 1000, -5])
def test_a_damaged_checkpoint_is_refused_and_left_alone(left_behind, kept):
    damaged = left_behind.read_bytes()[:kept]
    left_behind.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="damaged or no checkpoint: remove it, and the fit starts from"):
        InterpolantFlow(checkpoint=left_behind, **SMALL).fit(X0)
    assert left_behind.read_bytes() == damaged


def test_a_saved_model_is_no_checkpoint_and_a_checkpoint_no_model(left_behind, tmp_path):
    path = tmp_path / "model.si"
    sklearn_si.save(InterpolantFlow(**SMALL), path)
    with pytest.raises(CheckpointError, match="is no checkpoint of a fit: give `checkpoint` a path of its own"):
        InterpolantFlow(checkpoint=path, **SMALL).fit(X0)
    with pytest.raises(LoadError, match="holds no estimator"):
        sklearn_si.load(left_behind)


def test_a_path_that_ends_like_a_folder_is_one(tmp_path):
    InterpolantFlow(checkpoint=f"{tmp_path / 'new'}{os.sep}", **{**SMALL, "max_iter": 3}).fit(X0)
    assert (tmp_path / "new").is_dir() and list((tmp_path / "new").iterdir()) == []


def test_in_a_folder_each_fit_has_a_file_of_its_own(tmp_path, monkeypatch):
    seen, write = set(), _checkpoint.Store.write

    def counted(self):
        write(self)
        seen.add(self.path)

    monkeypatch.setattr(_checkpoint.Store, "write", counted)
    flow = InterpolantFlow(checkpoint=tmp_path, **{**SMALL, "max_iter": 5})
    search = GridSearchCV(flow, {"learning_rate_init": [0.01, 0.02]}, cv=2).fit(X0)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert len(seen) == 2 * 2 + 1 and list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write_is_known_before_the_fit(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        InterpolantFlow(checkpoint=tmp_path / "fit.checkpoint", **SMALL).fit(X0)


def test_a_place_where_nothing_can_be_written_is_known_before_the_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(Batches, "loss", lambda self: pytest.fail("the training began"))
    file = tmp_path / "file"
    file.write_text("")
    for path, error in ((tmp_path / "nowhere" / "fit", FileNotFoundError), (file / "fit", NotADirectoryError)):
        with pytest.raises(error):
            InterpolantFlow(checkpoint=path, **SMALL).fit(X0)


def _fill_the_disk(path, results):
    """Fits and saves where no file may be longer than some bytes."""
    torch.set_num_threads(1)
    _checkpoint._LEAST_SECONDS, _checkpoint._SHARE = 0.0, np.inf
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = path.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100,) * 2)
    caught = []
    for attempt in (
        lambda: InterpolantFlow(checkpoint=path, **SMALL).fit(X0),
        lambda: sklearn_si.save(
            InterpolantFlow(**{**SMALL, "max_iter": 1, "hidden_layer_sizes": (512,) * 2}).fit(X0), path
        ),
    ):
        try:
            attempt()
        except OSError as error:
            caught.append(error.errno)
    results.put((caught, len(list(path.parent.iterdir()))))


def test_a_full_disk_is_an_error_and_leaves_the_last_good_file(left_behind):
    """Both a fit that keeps its state and `save` fail as the system says, and the file stays as it was."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=_fill_the_disk, args=(left_behind, results))
    process.start()
    caught, n_files = results.get(timeout=60)
    process.join()
    assert caught == [errno.EFBIG, errno.EFBIG] and n_files == 1
    model = InterpolantFlow(checkpoint=left_behind, **SMALL).fit(X0)
    np.testing.assert_array_equal(answers(model), answers(InterpolantFlow(**SMALL).fit(X0)))


@pytest.mark.usefixtures("at_once")
def test_an_imputer_goes_on_with_its_table(tmp_path, monkeypatch):
    path, gaps = tmp_path / "fit.checkpoint", FRAME.mask(RNG.random(FRAME.shape) < 0.1)
    imputer = InterpolantImputer(TableSynthesizer(max_iter=120, checkpoint=path), random_state=0)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        cut_off(patch, 2)
        imputer.fit(gaps)
    filled = imputer.fit(gaps).transform(gaps)
    whole = InterpolantImputer(TableSynthesizer(max_iter=120), random_state=0).fit(gaps)
    pd.testing.assert_frame_equal(filled, whole.transform(gaps))


def test_a_warm_start_is_a_fit_of_its_own(tmp_path, monkeypatch, at_once):
    path = tmp_path / "fit.checkpoint"
    flow = InterpolantFlow(warm_start=True, **SMALL).fit(X0)
    expected = answers(sklearn_si.InterpolantFlow(warm_start=True, **SMALL).fit(X0).fit(X0))
    flow.checkpoint = path
    with monkeypatch.context() as patch, pytest.raises(Killed):
        cut_off(patch, 1)
        copy.deepcopy(flow).fit(X0)
    np.testing.assert_array_equal(answers(flow.fit(X0)), expected)
    assert flow.n_iter_ > 260


def test_time_that_was_spent_before_counts(left_behind, tmp_path, monkeypatch):
    path = tmp_path / "timed"
    flow = InterpolantFlow(checkpoint=path, max_time=1.0, hidden_layer_sizes=(8,), random_state=0)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        cut_off(patch, 8)
        flow.fit(X0)
    spent = _checkpoint_contents(path)["seconds"][""]
    began = time.perf_counter()
    flow.fit(X0)
    assert np.isfinite(flow.sample(5)).all()
    assert spent + time.perf_counter() - began < 3.0


CURVED = np.column_stack([X0[:, 0], X0[:, 0] ** 2 + 0.3 * X0[:, 1]])


def interrupted_after(monkeypatch, owner, name, n_calls):
    """Ctrl-C in one call of a method."""
    method, calls = getattr(owner, name), iter(range(10**6))

    def call(self, *args, **kwargs):
        if next(calls) == n_calls:
            raise KeyboardInterrupt
        return method(self, *args, **kwargs)

    monkeypatch.setattr(owner, name, call)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.usefixtures("at_once")
def test_what_followed_from_an_interrupted_training_is_learned_anew(tmp_path, monkeypatch):
    path = tmp_path / "fit.checkpoint"
    flow = InterpolantFlow(checkpoint=path, preprocessing="standardize", **SMALL)
    with monkeypatch.context() as patch:
        interrupted_after(patch, Batches, "loss", 130)
        flow.fit(CURVED, X1)
    whole = InterpolantFlow(preprocessing="standardize", **SMALL).fit(CURVED, X1)
    assert flow.n_iter_ == 130
    np.testing.assert_array_equal(flow.fit(CURVED, X1).score_samples(X1), whole.score_samples(X1))
    table = TableSynthesizer(checkpoint=path, max_iter=50, random_state=0)
    with monkeypatch.context() as patch:
        interrupted_after(patch, _masked.MaskedLoss, "at", 40)
        table.fit(FRAME)
    assert table.value_model_.flow_.n_iter_ == 1
    again = TableSynthesizer(max_iter=50, random_state=0).fit(FRAME)
    np.testing.assert_array_equal(table.fit(FRAME).score_samples(FRAME), again.score_samples(FRAME))


def test_seeds_of_numpy_are_told_apart(left_behind):
    changed = {**SMALL, "random_state": np.int64(3)}
    with pytest.raises(CheckpointError, match=r"they differ in \['random_state'\]"):
        InterpolantFlow(checkpoint=left_behind, **changed).fit(X0)
    assert InterpolantFlow(checkpoint=left_behind, **{**SMALL, "random_state": np.int32(0)}).fit(X0).n_iter_ > 0


def factory(width, slope=1.0):
    def network(n_features, n_conditions):
        class Network(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner, self.outer = nn.Linear(n_features + 1, width), nn.Linear(width, n_features)

            def forward(self, t, x, condition=None):
                return self.outer(torch.tanh(slope * self.inner(torch.cat([t.expand(len(x))[:, None], x], 1))))

        return Network()

    return network


def test_functions_are_told_apart_by_what_they_close_over(tmp_path, monkeypatch, at_once):
    path, params = tmp_path / "fit.checkpoint", {"preprocessing": "standardize", **SMALL}
    with monkeypatch.context() as patch, pytest.raises(Killed):
        cut_off(patch, 1)
        InterpolantFlow(network=factory(8), checkpoint=path, **params).fit(X0)
    for other in (factory(9), factory(8, slope=2.0)):
        with pytest.raises(CheckpointError, match=r"they differ in \['network'\]"):
            InterpolantFlow(network=other, checkpoint=path, **params).fit(X0)
    assert InterpolantFlow(network=factory(8), checkpoint=path, **params).fit(X0).n_iter_ == 260


def test_networks_of_other_shapes_are_refused(left_behind, monkeypatch):
    monkeypatch.setattr("sklearn_si._training.run.layer_widths", lambda *args: (9,))
    with pytest.raises(CheckpointError, match="is of networks of other shapes: remove it to start anew"):
        InterpolantFlow(checkpoint=left_behind, **SMALL).fit(X0)
    assert left_behind.exists()


def test_fits_without_a_number_as_seed_share_no_folder(tmp_path):
    with pytest.raises(CheckpointError, match="random_state=None is no number, so fits that differ would"):
        InterpolantFlow(checkpoint=tmp_path, max_iter=2).fit(X0)


@pytest.mark.filterwarnings("ignore:The training loss")
def test_a_fit_that_its_data_or_parameters_forbid_leaves_no_file(tmp_path, monkeypatch):
    path = tmp_path / "fit.checkpoint"
    with pytest.raises(ValueError, match="are constant"):
        InterpolantFlow(checkpoint=path, **SMALL).fit(np.column_stack([X0, np.ones(200)]))
    assert not path.exists()
    with pytest.raises(FitDivergedError, match="were tried"):
        InterpolantFlow(checkpoint=path, **{**SMALL, "learning_rate_init": 1e30}).fit(CURVED)
    assert not path.exists()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_interrupted_warm_start_goes_on_from_its_own_weights(tmp_path, monkeypatch, at_once):
    flow = InterpolantFlow(warm_start=True, **SMALL).fit(X0).set_params(checkpoint=tmp_path / "fit.checkpoint")
    with monkeypatch.context() as patch:
        interrupted_after(patch, Batches, "loss", 150)
        flow.fit(X0)
    assert not (tmp_path / "fit.checkpoint").exists()
    before = flow.n_iter_
    assert flow.fit(X0).n_iter_ == before + 260


def test_a_saved_model_does_not_say_where_it_kept_its_state(tmp_path):
    flow = InterpolantFlow(checkpoint=tmp_path / "fit.checkpoint", **{**SMALL, "max_iter": 2}).fit(X0)
    sklearn_si.save(flow, tmp_path / "model.si")
    assert sklearn_si.load(tmp_path / "model.si").checkpoint is None


def test_a_part_has_the_time_that_is_left_to_it(tmp_path, monkeypatch, at_once):
    """Of a table cut off in its values: the seconds of the codes are not theirs."""
    path = tmp_path / "fit.checkpoint"
    table = TableSynthesizer(checkpoint=path, max_time=2.0, random_state=0)
    keep, prefix = _checkpoint.Record.keep, "values/"

    def keep_and_die(self, *args):
        keep(self, *args)
        if self.key.startswith(prefix):
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(_checkpoint.Record, "keep", keep_and_die)
        table.fit(FRAME)
    seconds = _checkpoint_contents(path)["seconds"]
    assert seconds[prefix] < 0.7 < 0.9 < seconds[""]
    with monkeypatch.context() as patch, pytest.raises(Killed):  # cut off once more, before the values
        cut_off(patch, 1)
        table.fit(FRAME)
    assert _checkpoint_contents(path)["seconds"][prefix] >= seconds[prefix]
    began = time.perf_counter()
    table.fit(FRAME)
    assert time.perf_counter() - began > 0.4


def test_a_pass_over_the_rows_goes_on_where_it_was(tmp_path, monkeypatch, at_once):
    """Blocks of few batches, so that a later one begins in the middle of a pass."""
    monkeypatch.setattr(_batches, "_BLOCK", 2**12)
    flow = InterpolantFlow(batch_size=80, preprocessing="standardize", **SMALL)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        cut_off(patch, 1)
        with_checkpoint(flow, tmp_path / "fit.checkpoint").fit(X0)
    again = with_checkpoint(flow, tmp_path / "fit.checkpoint").fit(X0)
    np.testing.assert_array_equal(answers(again), answers(flow.fit(X0)))
