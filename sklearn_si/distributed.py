"""One fit in several processes: where a launcher has made a `torch.distributed` group, `fit` joins it."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from .exceptions import ProcessGroupError

__all__ = ["alone"]

# Rows of all processes at the most from which what they share is fitted: maps, closed forms, a base density.
SHARED_ROWS = 2**18

# How many `with alone()` are entered: the group is that of the process, and so is this.
_alone, _lock = [0], threading.Lock()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Within it, `fit` does not join the group of processes, in any thread: each fits a model of its own.

    Examples
    --------
    >>> from sklearn_si.distributed import alone
    >>> with alone():
    ...     pass  # InterpolantFlow().fit(X): X is all there is
    """
    _enter(1)
    try:
        yield
    finally:
        _enter(-1)


def _enter(step: int) -> None:
    with _lock:
        _alone[0] += step


class Single:
    """A process by itself: what it has is what all have."""

    size, rank = 1, 0

    def weigh(self, n: int) -> None:
        """Say how many rows this process has to learn from."""

    def average(self, values: Tensor) -> Tensor:
        """The mean over the rows of all processes of what is a mean over those of this one, in place."""
        return values

    def mean_over_rows(self, value: float) -> float:
        """The same of a number."""
        return value

    def mean(self, value: float) -> float:
        """The mean of a number over the processes."""
        return value

    def share(self, values: Tensor) -> Tensor:
        """The values of the first process, in place."""
        return values

    def total(self, n: int) -> int:
        """The sum of a number over the processes."""
        return n

    def any(self, flag: bool) -> bool:
        """Whether a flag is up in one of the processes."""
        return flag

    def rows(self, X: np.ndarray, most: int = SHARED_ROWS) -> np.ndarray:
        """Rows of all processes, in the same order in each; the same share of each, at most so many together."""
        return X

    def objects(self, value: Any) -> list:
        """What each process has, as a list."""
        return [value]

    def first(self, make: Callable[[], Any]) -> Any:
        """What a function returns in the first process."""
        return make()

    def refuse(self, what: str) -> None:
        """Raise in a group."""

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Within it, an error of one process is an error of all."""
        yield


class Group(Single):
    """The processes of the default `torch.distributed` group, each with rows of its own.

    Every method but `refuse` has to be called in all processes, in the same order.
    """

    def __init__(self) -> None:
        self.size, self.rank, self.weight = dist.get_world_size(), dist.get_rank(), 1.0
        self.device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise ProcessGroupError(
                f"Process {self.rank} of {self.size} has lost the others in the middle of a fit: one of them has ended "
                "or failed (see what it printed). Start all of them again."
            ) from error

    def weigh(self, n: int) -> None:
        """Say how many rows this process has to learn from."""
        self.weight = n / self.mean(float(n))

    def average(self, values: Tensor) -> Tensor:
        """The mean over the rows of all processes of what is a mean over those of this one, in place."""
        values.mul_(self.weight / self.size)
        with self._told():
            dist.all_reduce(values)
        return values

    def mean_over_rows(self, value: float) -> float:
        """The same of a number."""
        return self.mean(self.weight * value)

    def mean(self, value: float) -> float:
        """The mean of a number over the processes."""
        total = torch.tensor(value / self.size, dtype=torch.float64, device=self.device)
        with self._told():
            dist.all_reduce(total)
        return float(total)

    def share(self, values: Tensor) -> Tensor:
        """The values of the first process, in place."""
        with self._told():
            dist.broadcast(values, src=0)
        return values

    def total(self, n: int) -> int:
        """The sum of a number over the processes."""
        return round(self.mean(float(n)) * self.size)

    def any(self, flag: bool) -> bool:
        """Whether a flag is up in one of the processes."""
        return self.mean(float(flag)) > 0

    def rows(self, X: np.ndarray, most: int = SHARED_ROWS) -> np.ndarray:
        """Rows of all processes, in the same order in each; the same share of each, about so many at the most."""
        step = -(-self.total(len(X)) // most)
        return np.concatenate(self.objects(X[::step]))

    def objects(self, value: Any) -> list:
        """What each process has, as a list."""
        values = [None] * self.size
        with self._told():
            dist.all_gather_object(values, value)
        return values

    def first(self, make: Callable[[], Any]) -> Any:
        """What a function returns in the first process."""
        box: list[Any] = [None, None]
        failure = None
        if self.rank == 0:
            try:
                box = [make(), None]
            except Exception as error:
                failure, box = error, [None, f"{type(error).__name__}: {error}"]
        with self._told():
            dist.broadcast_object_list(box, src=0)
        if failure is not None:
            raise failure
        if box[1] is not None:
            raise ProcessGroupError(f"Process 0 of {self.size} could not go on. {box[1]}")
        return box[0]

    def refuse(self, what: str) -> None:
        """Raise in a group."""
        raise ProcessGroupError(
            f"{what} cannot be fitted by several processes together, and {self.size} are in the torch.distributed "
            "group: fit it within `with sklearn_si.distributed.alone():`, in one of them or in each."
        )

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Within it, an error of one process is an error of all."""
        failure = None
        try:
            yield
        except Exception as error:
            failure = error
        messages = self.objects(None if failure is None else f"{type(failure).__name__}: {failure}")
        if failure is not None:
            raise failure
        for rank, message in enumerate(messages):
            if message is not None:
                raise ProcessGroupError(f"Process {rank} of {self.size} could not go on. {message}")


def strided(n: int, most: int) -> slice:
    """A slice of at most so many of n rows, spread over all of them."""
    return slice(None, None, -(-n // most)) if n > most else slice(None)


def current_group() -> Single:
    """The group that a fit joins: that of the launcher, if there is one of several processes."""
    if _alone[0] or not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return Single()
    return Group()
