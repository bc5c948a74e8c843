"""Threads, processes and forks: the answers are those of one thread, and nobody's seeds and threads are disturbed."""

import multiprocessing
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import threadpoolctl
import torch
from torch import nn

from sklearn_si import InterpolantDiffusion, InterpolantFlow, SchroedingerBridge
from sklearn_si.tables import TableSynthesizer

RNG = np.random.default_rng(0)
X, X1 = RNG.normal(size=(150, 2)), RNG.normal(2.0, 1.0, size=(120, 2))
SKEWED = np.exp(X)
# the answers are compared to the bit, which a loose tolerance does not make easier
SMALL = {"max_iter": 40, "hidden_layer_sizes": (8,), "ode_tol": 0.05, "random_state": 0}


def network_with_dropout(n_features, n_conditions):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.outer = nn.Linear(n_features + 1, 8), nn.Linear(8, n_features)

        def forward(self, t, x, condition=None):
            hidden = torch.relu(self.inner(torch.cat([t.expand(len(x))[:, None], x], 1)))
            return self.outer(nn.functional.dropout(hidden, 0.3, self.training))

    return Network()


# What is fitted, each by a call.
FITS = {
    "flow": lambda: InterpolantFlow(**SMALL).fit(SKEWED),
    "other seed": lambda: InterpolantFlow(**{**SMALL, "random_state": 1}).fit(SKEWED),
    "network of one's own": lambda: InterpolantFlow(network=network_with_dropout, **SMALL).fit(X),
    "bridge": lambda: InterpolantDiffusion(base_density="normal", **SMALL).fit(X, X1),
    "optimal": lambda: InterpolantFlow(coupling="optimal", base_density=None, **SMALL).fit(X, X1),
    "plan": lambda: SchroedingerBridge(method="network", base_density=None, n_components=1, n_rounds=0, **SMALL).fit(
        X, X1
    ),
    "table": lambda: TableSynthesizer(max_iter=40, random_state=0).fit(np.column_stack([X[:, 0], X[:, 1] > 0])),
}


def answers(model, seed):
    drawn = model.sample(20, random_state=seed)
    if isinstance(model, TableSynthesizer):
        return [drawn]
    # threads in single precision beside others in double have networks of their own
    rows = X[seed : seed + 5].astype(np.float32 if seed % 2 else np.float64)
    moved = model.transform(rows)
    return [drawn, moved, model.score_samples(rows)] if model.base_sample_ is None else [drawn, moved]


def assert_equal(left, right):
    for one, other in zip(left, right, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def serial():
    """The models, fitted one after the other."""
    return {name: fit() for name, fit in FITS.items()}


@pytest.mark.parametrize("name", ["flow", "network of one's own", "bridge", "plan", "table"])
def test_eight_threads_get_the_answers_of_one(serial, name):
    model = serial[name]
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda seed: answers(model, seed), range(8)))
    for seed, result in enumerate(results):
        assert_equal(result, answers(model, seed))


def global_state():
    """What a process has once, and a fit may not leave changed."""
    blas = sorted((pool["filepath"], pool["num_threads"]) for pool in threadpoolctl.threadpool_info())
    return {
        "threads": torch.get_num_threads(), "blas": blas, "filters": list(warnings.filters),
        "torch": torch.get_rng_state().tolist(), "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "grad": torch.is_grad_enabled(), "dtype": torch.get_default_dtype(), "errors": np.geterr(),
    }  # fmt: skip


def test_fits_in_parallel_threads_are_those_in_a_row_and_leave_the_process_as_it_was(serial):
    before = global_state()
    names = [*FITS]
    with ThreadPoolExecutor(8) as threads:
        models = list(threads.map(lambda name: FITS[name](), names))
    assert global_state() == before
    for name, model in zip(names, models, strict=True):
        assert_equal(answers(model, 3), answers(serial[name], 3))


@pytest.mark.parametrize("backend", ["threading", "loky", "dask"])
def test_joblib_gets_the_answers_of_one_process(serial, backend):
    if backend == "dask":
        distributed = pytest.importorskip("distributed")
        client = distributed.Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None)
    else:
        client = None
    model = serial["flow"]
    try:
        with joblib.parallel_config(backend, n_jobs=2):
            results = joblib.Parallel()(joblib.delayed(answers)(model, seed) for seed in range(4))
    finally:
        if client is not None:
            client.close()
    for seed, result in enumerate(results):
        assert_equal(result, answers(model, seed))


def _answers_of_a_child(model, results):
    again = InterpolantFlow(**SMALL).fit(SKEWED)
    results.put((answers(model, 5), answers(again, 5), torch.get_num_threads()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_one_thread_and_gets_the_same_answers(serial):
    """OpenMP's threads do not live through a fork: torch would wait for them for ever, had it more than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.randn(600, 600) @ torch.randn(600, 600)
        torch.exp(torch.randn(10**6))  # a parallel region
        context = multiprocessing.get_context("fork")
        results = context.Queue()
        child = context.Process(target=_answers_of_a_child, args=(serial["flow"], results))
        child.start()
        used, fitted, n_threads = results.get(timeout=60)
        child.join()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert n_threads == 1
    assert_equal(used, answers(serial["flow"], 5))
    assert_equal(fitted, answers(serial["flow"], 5))


def test_threads_keep_checkpoints_apart_in_one_folder(tmp_path, serial):
    def fit(seed):
        return InterpolantFlow(**{**SMALL, "random_state": seed}, checkpoint=tmp_path).fit(SKEWED)

    with ThreadPoolExecutor(4) as threads:
        models = list(threads.map(fit, [0, 1, 0, 1]))
    for model, name in zip(models, ["flow", "other seed"] * 2, strict=True):
        assert_equal(answers(model, 3), answers(serial[name], 3))


def test_fits_leave_no_threads_and_no_files(serial):
    FITS["optimal"]()
    files, n_threads = set(os.listdir("/proc/self/fd")), threading.active_count()
    for fit in FITS.values():
        fit()
    assert threading.active_count() == n_threads
    assert set(os.listdir("/proc/self/fd")) == files
