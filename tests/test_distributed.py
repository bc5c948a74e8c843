"""One fit in two processes: equal parameters, what all have learned from, and what happens when one fails."""

import inspect
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from torch import distributed as dist

import sklearn_si
from sklearn_si import InterpolantFlow, outliers, resampling, tables
from sklearn_si.distributed import Single, alone, current_group, strided

PROGRAM = pathlib.Path(__file__).parent / "programs" / "two_processes.py"

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this build of torch has no distributed package")


def launch(folder):
    """The exit codes of two processes, which write into the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join(p for p in sys.path if p)
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2",
                   "OMP_NUM_THREADS": "1", "PYTHONPATH": path}  # fmt: skip
    command = [sys.executable, str(PROGRAM), str(folder)]
    processes = [subprocess.Popen(command, env={**environment, "RANK": str(rank)}) for rank in (0, 1)]
    try:
        return [process.wait(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """What two processes found; of the workers of one run of the tests, the first lets them run."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    folder = tmp_path_factory.getbasetemp().parent / f"two-{run}" if run else tmp_path_factory.mktemp("two")
    ended = folder / "ended.json"
    try:
        folder.mkdir(exist_ok=not run)
    except FileExistsError:
        deadline = time.monotonic() + 300
        while not ended.exists() and time.monotonic() < deadline:
            time.sleep(0.2)
    else:
        codes = launch(folder)
        (folder / "ended.tmp").write_text(json.dumps(codes))
        os.replace(folder / "ended.tmp", ended)
    assert json.loads(ended.read_text()) == [0, 1]  # the second one dies at the end
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]
    found[0]["lost"] = json.loads((folder / "lost.json").read_text())
    return found


@pytest.mark.parametrize("model", ["flow", "timed", "given", "bridge"])
def test_all_processes_end_with_the_same_model(reports, model):
    assert reports[0]["rows"] != reports[1]["rows"]
    assert reports[0][model] == reports[1][model]


def test_what_two_have_learned_together_is_what_one_learns_from_all_rows(reports):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(801, 2)) @ np.array([[1.0, 0.5], [0.0, 2.0]])
    X[:400] += 3.0
    score = InterpolantFlow(max_iter=200, hidden_layer_sizes=(16,), random_state=0).fit(X).score(X[::5])
    assert reports[0]["flow"]["score"] == pytest.approx(score, abs=0.05)
    # a shard alone is another distribution
    half = InterpolantFlow(max_iter=200, hidden_layer_sizes=(16,), random_state=0).fit(X[:401]).score(X[::5])
    assert half < score - 1.0


def test_rows_weigh_the_same_wherever_they_are(reports):
    trained = np.array([report["unequal"]["trained"] for report in reports])
    np.testing.assert_array_equal(trained[0], trained[1])
    assert reports[0]["unequal"]["far"] == pytest.approx(200 / 1600, abs=0.03)


def test_a_callback_of_one_process(reports):
    if "callback in one" not in reports[0]:
        pytest.skip("callbacks came with scikit-learn 1.9")
    assert reports[0]["callback in one"] == reports[1]["callback in one"]
    assert reports[0]["failing callback"] == "RuntimeError: no room left"
    assert "Process 0 of 2 could not continue. RuntimeError: no room left" in reports[1]["failing callback"]


def test_one_process_prints(reports):
    assert "step 200: loss" in reports[0]["printed"]
    assert reports[1]["printed"] == ""


def test_what_is_kept_is_that_of_all(reports):
    assert reports[0]["given"]["columns"] == 2  # one process has seen one category
    assert reports[0]["bridge"]["rows"] == 801


def test_alone_each_process_fits_its_own(reports):
    assert [report["alone"] for report in reports] == [1, 2]
    assert [report["group of a thread"] for report in reports] == [1, 1]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (0, "fit different models: they differ in ['features']"),
        (1, "they differ in ['max_iter']"),
        (2, "they differ in ['names']"),
        (3, "they differ in ['condition']"),
        (4, "they differ in ['arguments']"),
        (5, "they differ in ['max_iter']"),
        (6, "they differ in ['estimator', 'estimator__max_iter']"),
        (7, "resample the whole table before the processes share it"),
    ],
)
def test_what_cannot_be_fitted_together_is_refused_in_all(reports, place, message):
    for report in reports:
        assert message in report["refused"][place]


# Those that train together, each process on its own rows; the others are fitted by the first process to all rows.
TOGETHER = {"transformed": 0.1, "learned": 0.1}


@pytest.mark.parametrize(
    "name",
    ["bridge", "many samples", "many samples, given", "table", "imputer", "codec", "regressor", "classifier",
     "detector", "ratio", "ensemble", "weights", "transformed", "learned"],
)  # fmt: skip
def test_two_processes_answer_as_one_that_has_all_rows(reports, name):
    (own, of_one), (other,) = (report["every"][name] for report in reports)
    assert own == other
    assert own == pytest.approx(of_one, abs=TOGETHER.get(name, 1e-6))


def test_every_estimator_is_fitted_in_a_group(reports):
    public = set()
    for module in (sklearn_si, outliers, resampling, tables):
        found = [vars(module)[name] for name in module.__all__]
        public |= {value.__name__ for value in found if inspect.isclass(value) and "fit" in dir(value)}
    # what returns rows for the table of one process is refused, and says so
    assert public - set(reports[0]["kinds"]) == {"TableResampler"}


def test_memory_mapped_parts_are_read(reports):
    assert reports[0]["mapped"] and reports[1]["mapped"]


def test_a_step_that_fails_in_one_process_ends_all_with_its_reason(reports):
    assert reports[1]["failing step"] == "RuntimeError: no room left"
    assert reports[0]["failing step"].endswith("Process 1 of 2 could not continue. RuntimeError: no room left")


def test_a_fit_by_the_first_process_that_fails_ends_all(reports):
    assert "ValueError" in reports[0]["failed alone"]
    assert reports[1]["failed alone"].startswith("ProcessGroupError: Process 0 of 2 could not continue. ValueError: ")


def test_a_group_that_was_cut_off_continues_from_its_checkpoint(reports):
    for report in reports:
        assert report["resumed"]["kept"]
        assert report["resumed"]["cut off"] == report["resumed"]["whole"]
    assert reports[0]["resumed"]["gone"]  # the first process removes the file


def test_an_interrupt_of_one_process_ends_the_training_of_all(reports):
    first, second = (report["resumed"] for report in reports)
    assert first["stopped"] == second["stopped"]
    assert first["stopped after"] == second["stopped after"] < 300
    assert any("Training was interrupted after" in message for message in first["told"])
    # and the file continues it
    assert first["interrupted"] == second["interrupted"] == first["whole"]


def test_an_interrupt_of_a_process_that_waits_ends_the_work_of_the_first(reports):
    assert reports[0]["stopped"] == reports[1]["stopped"]


def test_an_error_of_one_process_is_an_error_of_all(reports):
    assert "Process 1 of 2 could not continue. ValueError: " in reports[0]["poisoned"]
    assert reports[0]["poisoned"].startswith("ProcessGroupError")
    assert reports[1]["poisoned"].startswith("ValueError: Input X contains NaN")


def test_a_process_that_dies_ends_the_others_with_an_error(reports):
    report = reports[0]["lost"]
    assert "Process 0 of 2 lost its connection to the others during a fit" in report["error"]
    assert report["seconds"] < 60
    assert report["kept"]  # the checkpoint, from which a new group continues


def test_without_a_group_there_is_one_process():
    assert type(current_group()) is Single
    with alone():
        assert current_group().size == 1
    assert strided(10, 20) == slice(None)
    assert len(range(10)[strided(10, 3)]) == 3
