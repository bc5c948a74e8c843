"""What a process has only once, used by one thread at a time: torch's global generator, the filters of warnings."""

import contextlib
import os
import threading
import warnings

import torch

__all__ = ["seeded_globally", "without_warnings"]

_locks = [threading.RLock()]


def _in_child():
    # a thread of the parent may hold the old one, and does not exist here
    _locks[0] = threading.RLock()
    # nor do the threads of OpenMP, for which torch would wait for ever
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


@contextlib.contextmanager
def seeded_globally(seed):
    """Within it, torch's global generator of the CPU follows a seed; afterwards it is as before."""
    with _locks[0], torch.random.fork_rng(devices=[]):
        # not torch.manual_seed, which seeds CUDA's generators as well and for good
        torch.default_generator.manual_seed(seed)
        yield


@contextlib.contextmanager
def without_warnings(category):
    """Within it, warnings of a category are not shown; the number of threads of BLAS is changed by one thread alone."""
    with _locks[0], warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield
