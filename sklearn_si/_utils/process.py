"""Locks for the global state of a process, such as torch's global generator and the filters of warnings."""

import contextlib
import functools
import os
import threading
import warnings

import torch
from threadpoolctl import ThreadpoolController

__all__ = ["forward_tangents", "one_blas_thread", "one_openmp_thread", "seeded_globally", "without_warnings"]

# The second is taken within the first, never the other way round.
_locks = {name: threading.RLock() for name in ("settings", "tangents")}


def _in_child():
    # Threads of the parent process may hold the old locks, and those threads do not exist after a fork.
    _locks.update({name: threading.RLock() for name in _locks})
    # nor do the threads of OpenMP, for which torch would wait for ever
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


@contextlib.contextmanager
def seeded_globally(seed):
    """A context in which torch's global generator of the CPU has the given seed; its state is restored afterwards."""
    with _locks["settings"], torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed the generators of CUDA as well, permanently.
        torch.default_generator.manual_seed(seed)
        yield


@contextlib.contextmanager
def without_warnings(category):
    """A context without warnings of a category, in which only one thread changes the number of BLAS threads."""
    with _locks["settings"], warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield


@functools.cache
def _pools():
    # looking the libraries up takes longer than a small fit
    return ThreadpoolController()


@contextlib.contextmanager
def one_blas_thread():
    """A context in which the BLAS of NumPy and SciPy has one thread.

    Products and triangular solves of a few columns gain nothing from more, and wait for each other where other
    processes are at work: a choice of mixtures took ten times as long on two busy cores.
    """
    with _locks["settings"], _pools().limit(limits=1, user_api="blas"):
        yield


@contextlib.contextmanager
def one_openmp_thread():
    """A context in which libraries of OpenMP, such as the boosted trees of scikit-learn, have one thread.

    Trees of few rows gain little from more, and wait for each other where other processes are at work: on two busy
    cores they took four to six times as long.
    """
    with _locks["settings"], _pools().limit(limits=1, user_api="openmp"):
        yield


@contextlib.contextmanager
def forward_tangents():
    """A context for forward-mode differentiation, whose nesting levels torch counts over all threads (measured)."""
    with _locks["tangents"]:
        yield
