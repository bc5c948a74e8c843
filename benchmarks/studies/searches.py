"""What a search over parameters that may be changed after fit costs, and whether its scores depend on how it runs.

    python benchmarks/studies/searches.py time     # 15 candidates against one, with memory
    python benchmarks/studies/searches.py scores   # with and without memory, in processes, on dask (if installed)

`time` runs a GridSearchCV over five noise levels and three solvers with three folds, and one with a single candidate,
each in an empty folder, in turn `--repeats` times; the ratio of the medians is the figure. Seconds of the processor
stand beside those of the clock, because other programs do not count in them. `scores` trains for few
steps, because without memory each candidate is trained.
"""

import argparse
import importlib
import os
import platform
import statistics
import tempfile
import time

import joblib
import numpy as np
from sklearn.model_selection import GridSearchCV, KFold

from sklearn_si import InterpolantDiffusion
from sklearn_si.metrics import sample_scorer

GRID = {
    "noise_level": [0.1, 0.25, 0.5, 1.0, 2.0],
    "solver": ["euler-maruyama", "stochastic-heun", "stochastic-heun-denoised"],
}
# The largest ratio of the wall times of the two searches.
LARGEST_RATIO = 1.4
# Gradient steps of the fits of `scores`.
FEW_STEPS = 30


def rows_of_a_mixture(n, d, seed=0):
    """Rows of three normal components in d dimensions."""
    rng = np.random.default_rng(seed)
    return 3.0 * rng.normal(size=(3, d))[rng.integers(3, size=n)] + rng.normal(size=(n, d))


def searched(model, grid, X, n_jobs=None):
    """A search with three folds by drawn rows, and its seconds."""
    search = GridSearchCV(model, grid, scoring=sample_scorer, cv=KFold(3), n_jobs=n_jobs, error_score="raise")
    began = time.perf_counter(), time.process_time()
    search.fit(X)
    return search, (time.perf_counter() - began[0], time.process_time() - began[1])


def compare_times(args, X):
    """Wall times of the search and of one candidate."""
    seconds = {"one candidate": [], "15 candidates": []}
    grids = {"one candidate": {name: values[:1] for name, values in GRID.items()}, "15 candidates": GRID}
    for _ in range(args.repeats):
        for name, grid in grids.items():
            with tempfile.TemporaryDirectory() as folder:
                model = InterpolantDiffusion(memory=folder, random_state=0)
                seconds[name].append(searched(model, grid, X)[1])
            print("{:15} {:7.1f} s, of the processor {:7.1f} s".format(name, *seconds[name][-1]), flush=True)
    for k, clock in enumerate(("wall", "processor")):
        one, many = (statistics.median(value[k] for value in values) for values in seconds.values())
        verdict = "met" if many / one <= LARGEST_RATIO else "missed"
        print(f"{clock} time: ratio {many / one:.2f}; at most {LARGEST_RATIO}: {verdict}")


def scores_on_dask(model, X):
    """The scores of a search on two workers; None where dask is not installed."""
    try:
        distributed = importlib.import_module("distributed")
    except ImportError:
        return None
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    with cluster, distributed.Client(cluster), joblib.parallel_config("dask"):
        return searched(model, GRID, X)[0].cv_results_["mean_test_score"]


def compare_scores(args, X):
    """Scores to the bit, however the search runs."""
    settings = {"max_iter": FEW_STEPS, "n_steps": 20, "random_state": 0}
    expected = searched(InterpolantDiffusion(**settings), GRID, X)[0].cv_results_["mean_test_score"]
    print(f"without memory: {len(expected)} scores from {expected.min():.6f} to {expected.max():.6f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, n_jobs in (("memory", None), ("memory, once more", None)):
            scores = searched(InterpolantDiffusion(memory=folder, **settings), GRID, X, n_jobs)[0]
            tell(name, scores.cv_results_["mean_test_score"], expected)
    with tempfile.TemporaryDirectory() as folder:
        scores = searched(InterpolantDiffusion(memory=folder, **settings), GRID, X, 2)[0]
        tell("memory, n_jobs=2", scores.cv_results_["mean_test_score"], expected)
    with tempfile.TemporaryDirectory() as folder:
        tell("memory, dask", scores_on_dask(InterpolantDiffusion(memory=folder, **settings), X), expected)


def tell(name, scores, expected):
    """Print whether scores are the expected ones."""
    equal = "not run" if scores is None else "equal to the bit" if np.array_equal(scores, expected) else "DIFFERENT"
    print(f"{name:20} {equal}", flush=True)


def main():
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("time", "scores"))
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs"
    print(f"{machine}; {args.rows} rows, {args.columns} columns")
    run = {"time": compare_times, "scores": compare_scores}[args.what]
    run(args, rows_of_a_mixture(args.rows, args.columns))


if __name__ == "__main__":
    main()
