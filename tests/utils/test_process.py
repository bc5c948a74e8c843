"""The global state of a process within the contexts that change it."""

import numpy as np
import threadpoolctl
from sklearn.utils._openmp_helpers import _openmp_effective_n_threads

from sklearn_si._estimators.prediction import trees
from sklearn_si._utils.process import one_blas_thread, one_openmp_thread


def blas_threads():
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]


def test_one_blas_thread_is_for_the_context_alone():
    before = blas_threads()
    with one_blas_thread():
        assert set(blas_threads()) == {1}
        with one_blas_thread():
            pass
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


def test_trees_of_few_rows_are_grown_by_one_thread(monkeypatch):
    """Two threads on two busy cores took four to six times as long."""
    threads, grow = [], trees.HistGradientBoostingRegressor.fit

    def counted(self, *args):
        threads.append(_openmp_effective_n_threads())
        return grow(self, *args)

    monkeypatch.setattr(trees.HistGradientBoostingRegressor, "fit", counted)
    rng, before = np.random.default_rng(0), _openmp_effective_n_threads()
    trees.fit_location_scale(rng.normal(size=(40, 1)), rng.normal(size=40), None, 0)
    assert set(threads) == {1} and _openmp_effective_n_threads() == before
    with one_openmp_thread():
        assert _openmp_effective_n_threads() == 1
