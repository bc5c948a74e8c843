"""One fit in several processes: where a launcher has made a `torch.distributed` group, `fit` joins it."""

import contextlib
import contextvars
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

_alone = contextvars.ContextVar("sklearn_si_alone", default=False)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Within it, `fit` does not join the group of processes: each fits a model of its own.

    Examples
    --------
    >>> from sklearn_si.distributed import alone
    >>> with alone():
    ...     pass  # InterpolantFlow().fit(X): X is all there is
    """
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


class Single:
    """A process by itself: what it has is what all have."""

    size, rank = 1, 0

    def average(self, values: Tensor) -> Tensor:
        """The mean over the processes, in place."""
        return values

    def mean(self, value: float) -> float:
        """The mean of a number over the processes."""
        return value

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
        self.size, self.rank = dist.get_world_size(), dist.get_rank()
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

    def average(self, values: Tensor) -> Tensor:
        """The mean over the processes, in place."""
        with self._told():
            dist.all_reduce(values)
        return values.div_(self.size)

    def mean(self, value: float) -> float:
        """The mean of a number over the processes."""
        return float(self.average(torch.tensor(value, dtype=torch.float64, device=self.device)))

    def total(self, n: int) -> int:
        """The sum of a number over the processes."""
        return round(self.mean(float(n)) * self.size)

    def any(self, flag: bool) -> bool:
        """Whether a flag is up in one of the processes."""
        return self.mean(float(flag)) > 0

    def rows(self, X: np.ndarray, most: int = SHARED_ROWS) -> np.ndarray:
        """Rows of all processes, in the same order in each; the same share of each, at most so many together."""
        return np.concatenate(self.objects(X[strided(len(X), most // self.size)]))

    def objects(self, value: Any) -> list:
        """What each process has, as a list."""
        values = [None] * self.size
        with self._told():
            dist.all_gather_object(values, value)
        return values

    def first(self, make: Callable[[], Any]) -> Any:
        """What a function returns in the first process."""
        box = [make() if self.rank == 0 else None]
        with self._told():
            dist.broadcast_object_list(box, src=0)
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
    if _alone.get() or not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return Single()
    return Group()
