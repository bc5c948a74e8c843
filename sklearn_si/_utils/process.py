"""What a process has only once, used by one thread at a time: torch's global generator, the filters of warnings, ..."""

import contextlib
import os
import threading
import warnings

import torch

__all__ = ["forward_tangents", "seeded_globally", "without_warnings"]

# The second is taken within the first, never the other way round.
_locks = {name: threading.RLock() for name in ("settings", "tangents")}


def _in_child():
    # threads of the parent may hold the old ones, and do not exist here
    _locks.update({name: threading.RLock() for name in _locks})
    # nor do the threads of OpenMP, for which torch would wait for ever
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


@contextlib.contextmanager
def seeded_globally(seed):
    """Within it, torch's global generator of the CPU follows a seed; afterwards it is as before."""
    with _locks["settings"], torch.random.fork_rng(devices=[]):
        # not torch.manual_seed, which seeds CUDA's generators as well and for good
        torch.default_generator.manual_seed(seed)
        yield


@contextlib.contextmanager
def without_warnings(category):
    """Within it, warnings of a category are not shown; the number of threads of BLAS is changed by one thread alone."""
    with _locks["settings"], warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield


@contextlib.contextmanager
def forward_tangents():
    """Within it, torch differentiates forward: it counts the levels of that for all threads together (measured)."""
    with _locks["tangents"]:
        yield
