"""Load: many fits and calls in one process with flat memory, and a million rows in bounded memory.

    OMP_NUM_THREADS=1 python benchmarks/checks/soak.py --fits 200 --calls 10000 --rows 1000000

Fits of all kinds and calls of sample, score_samples and transform, 400 of them from 8 threads, are repeated; every
tenth part of the way the anonymous memory (RssAnon, after garbage collection and malloc_trim), the threads, the open
files and the live objects of Python are read. Flat: after the first three tenths, in which caches fill, memory grows by
less than --slack MB, and threads and files do not grow at all; else the exit status is 1. Then --rows rows are drawn
and scored, beside a tenth of them.
"""

import argparse
import ctypes
import functools
import gc
import os
import pathlib
import sys
import tempfile
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import sklearn_si
from sklearn_si import InterpolantDiffusion, InterpolantFlow, SchroedingerBridge
from sklearn_si.tables import TableSynthesizer

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "studies"))

from large import Peak, anonymous

RNG = np.random.default_rng(0)
X, X1 = RNG.normal(size=(200, 3)), RNG.normal(2.0, 1.0, size=(150, 3))
TABLE = np.column_stack([X[:, :2], X[:, 2] > 0])
SMALL = {"max_iter": 30, "hidden_layer_sizes": (16,)}
FITS = {
    "flow": lambda seed: InterpolantFlow(random_state=seed, **SMALL).fit(X),
    "marginal": lambda seed: InterpolantFlow(preprocessing="marginal", random_state=seed, **SMALL).fit(np.exp(X)),
    "optimal": lambda seed: InterpolantFlow(coupling="optimal", random_state=seed, **SMALL).fit(X, X1),
    "bridge": lambda seed: InterpolantDiffusion(base_density="normal", random_state=seed, **SMALL).fit(X, X1),
    "plan": lambda seed: SchroedingerBridge(n_components=1, base_density=None, random_state=seed, **SMALL).fit(X, X1),
    "table": lambda seed: TableSynthesizer(max_iter=30, random_state=seed).fit(TABLE),
    "with a checkpoint": lambda seed: InterpolantFlow(
        checkpoint=os.path.join(tempfile.gettempdir(), f"soak-{os.getpid()}"), random_state=seed, **SMALL
    ).fit(X),
}  # fmt: skip


def trimmed():
    """Anonymous memory in MB after all that is free was given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return anonymous()


def n_files():
    return len(os.listdir("/proc/self/fd"))


def call(models, k):
    """One call of a public method of one of the models; what is drawn is new each time."""
    model = models[k % len(models)]
    if k % 3 == 0:
        return model.sample(20, random_state=k)
    if isinstance(model, InterpolantFlow):
        return (model.score_samples if k % 3 == 1 and model.base_density_ is None else model.transform)(X[:8])
    return model.sample(5)


def saved_and_loaded(model):
    """Through a file and back."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.si"
        sklearn_si.save(model.set_params(checkpoint=None), path)
        return sklearn_si.load(path)


def soak(n_fits, n_calls):
    """The readings at each tenth of the way."""
    kinds, readings, models = list(FITS), [], []
    flows = [FITS[kind](0) for kind in ("flow", "marginal", "bridge", "table")]
    for part in range(10):
        began = time.perf_counter()
        for k in range(part * n_fits // 10, (part + 1) * n_fits // 10):
            models = [*flows, saved_and_loaded(FITS[kinds[k % len(kinds)]](k))]
        for k in range(part * n_calls // 10, (part + 1) * n_calls // 10 - 40):
            call(models, k)
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(functools.partial(call, models), range(40)))
        seconds = time.perf_counter() - began
        readings.append((trimmed(), threading.active_count(), n_files(), len(gc.get_objects()), seconds))
        print(f"{10 * (part + 1):5d} % {readings[-1][0]:9.1f} {readings[-1][1]:8d} {readings[-1][2]:6d}", end="")
        print(f" {readings[-1][3]:9d} {seconds:8.0f}", flush=True)
    return np.array(readings)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fits", type=int, default=200)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--slack", type=float, default=10.0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{args.fits} fits, {args.calls} calls\n part   MB anon.  threads  files   objects  seconds")
    readings = soak(args.fits, args.calls)
    grown = readings[-1] - readings[2]
    print(f"after 30 %: {grown[0]:+.1f} MB, {grown[1]:+.0f} threads, {grown[2]:+.0f} files, {grown[3]:+.0f} objects")
    flow = InterpolantFlow(max_iter=300, random_state=0).fit(X[:, :2])
    print(f"\n{'rows':>9} {'call':>8} {'seconds':>8} {'MB of input and output':>23} {'MB beside them, at most':>24}")
    for n in (args.rows // 10, args.rows):
        before = trimmed()
        with Peak() as peak:
            drawn = flow.sample(n)
        beside = peak.most - before - drawn.nbytes / 2**20
        print(f"{n:9d} {'sample':>8} {peak.seconds:8.1f} {drawn.nbytes / 2**20:23.1f} {beside:24.1f}", flush=True)
        before = trimmed()
        with Peak() as peak:
            density = flow.score_samples(drawn)
        size = density.nbytes / 2**20
        beside = peak.most - before - size
        print(f"{n:9d} {'score':>8} {peak.seconds:8.1f} {size + drawn.nbytes / 2**20:23.1f} {beside:24.1f}", flush=True)
        assert np.isfinite(drawn).all() and np.isfinite(density).all()
    return int(grown[0] > args.slack or grown[1] > 0 or grown[2] > 0)


if __name__ == "__main__":
    sys.exit(main())
