"""One fit in several processes: `fit` joins the `torch.distributed` group that a launcher has made."""

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

# Largest number of rows, over all processes, from which their common parts are fitted: maps, closed forms and a base
# density.
SHARED_ROWS = 2**18

# Number of open `with alone()` blocks. The group belongs to the process, and so does this number.
_alone, _lock = [0], threading.Lock()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """A context in which `fit` does not join the group of processes: each process fits a model of its own.

    It holds for all threads of the process.

    Examples
    --------
    >>> from sklearn_si.distributed import alone
    >>> with alone():
    ...     pass  # InterpolantFlow().fit(X) sees the rows X of this process alone
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
    """A process by itself: the same methods as `Group`, which do nothing."""

    size, rank = 1, 0

    def weigh(self, n: int) -> None:
        """Set the number of training rows of this process, which is its weight in means over rows."""

    def average(self, values: Tensor) -> Tensor:
        """The row-weighted mean across processes of tensors that are means over the rows of each, in place."""
        return values

    def mean_over_rows(self, value: float) -> float:
        """The row-weighted mean across processes of a number."""
        return value

    def mean(self, value: float) -> float:
        """The unweighted mean of a number across processes."""
        return value

    def share(self, values: Tensor) -> Tensor:
        """Copy the values of the first process to all others, in place."""
        return values

    def total(self, n: int) -> int:
        """The sum of a number across processes."""
        return n

    def any(self, flag: bool) -> bool:
        """Whether a flag is true in any process."""
        return flag

    def rows(self, X: np.ndarray, most: int = SHARED_ROWS) -> np.ndarray:
        """Rows of all processes in the same order in each: the same share of every process, at most `most` in all."""
        return X

    def objects(self, value: Any) -> list:
        """The values of all processes, as a list."""
        return [value]

    def first(self, make: Callable[[], Any]) -> Any:
        """The value that a function returns in the first process."""
        return make()

    def refuse(self, what: str) -> None:
        """Raise an error if there are several processes."""

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A context in which an error of one process is raised in all of them."""
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
                f"Process {self.rank} of {self.size} lost its connection to the others during a fit: one of them has "
                "ended or failed (see its output). Start all of them again."
            ) from error

    def weigh(self, n: int) -> None:
        """Set the number of training rows of this process, which is its weight in means over rows."""
        self.weight = n / self.mean(float(n))

    def average(self, values: Tensor) -> Tensor:
        """The row-weighted mean across processes of tensors that are means over the rows of each, in place."""
        values.mul_(self.weight / self.size)
        with self._told():
            dist.all_reduce(values)
        return values

    def mean_over_rows(self, value: float) -> float:
        """The row-weighted mean across processes of a number."""
        return self.mean(self.weight * value)

    def mean(self, value: float) -> float:
        """The unweighted mean of a number across processes."""
        total = torch.tensor(value / self.size, dtype=torch.float64, device=self.device)
        with self._told():
            dist.all_reduce(total)
        return float(total)

    def share(self, values: Tensor) -> Tensor:
        """Copy the values of the first process to all others, in place."""
        with self._told():
            dist.broadcast(values, src=0)
        return values

    def total(self, n: int) -> int:
        """The sum of a number across processes."""
        return round(self.mean(float(n)) * self.size)

    def any(self, flag: bool) -> bool:
        """Whether a flag is true in any process."""
        return self.mean(float(flag)) > 0

    def rows(self, X: np.ndarray, most: int = SHARED_ROWS) -> np.ndarray:
        """Rows of all processes in the same order in each: the same share of every process, about `most` in all."""
        step = -(-self.total(len(X)) // most)
        return np.concatenate(self.objects(X[::step]))

    def objects(self, value: Any) -> list:
        """The values of all processes, as a list."""
        values = [None] * self.size
        with self._told():
            dist.all_gather_object(values, value)
        return values

    def first(self, make: Callable[[], Any]) -> Any:
        """The value that a function returns in the first process."""
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
            raise ProcessGroupError(f"Process 0 of {self.size} could not continue. {box[1]}")
        return box[0]

    def refuse(self, what: str) -> None:
        """Raise an error if there are several processes."""
        raise ProcessGroupError(
            f"{what} cannot be fitted by several processes together, but the torch.distributed group has {self.size}: "
            "fit it within `with sklearn_si.distributed.alone():`, in one of them or in each."
        )

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A context in which an error of one process is raised in all of them."""
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
                raise ProcessGroupError(f"Process {rank} of {self.size} could not continue. {message}")


def strided(n: int, most: int) -> slice:
    """A slice of at most `most` of n rows, evenly spaced."""
    return slice(None, None, -(-n // most)) if n > most else slice(None)


def current_group() -> Single:
    """The group that a fit joins: that of the launcher, if it has several processes."""
    if _alone[0] or not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return Single()
    return Group()
