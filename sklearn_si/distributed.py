"""One fit in several processes: `fit` joins the `torch.distributed` group that a launcher has made."""

import _thread
import contextlib
import pickle
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor
from torch import distributed as dist

from .exceptions import ProcessGroupError

__all__ = ["alone"]

# Largest number of rows, over all processes, from which their common parts are fitted: maps, closed forms and a base
# density.
SHARED_ROWS = 2**18

# Number of open `with alone()` blocks. The group belongs to the process, and so does this number.
_alone, _lock = [0], threading.Lock()
# Seconds between two signs of life, while processes wait for what the first one works out alone.
_BEAT = 0.5
# Seconds within which a second Ctrl-C counts as the first one: the launcher and the terminal may both send it.
_SAME_INTERRUPT = 3.0


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

    def averaged(self, score: Callable[[], float]) -> Callable[[], float]:
        """The row-weighted mean across processes of a score, an error of one of which is one of all."""
        return score

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

    def refuse(self, why: str) -> None:
        """Raise an error if there are several processes; `why` says what to do."""

    def shared(self, make: Callable[[], Any]) -> Any:
        """As `first`, of an object that may not be one that can be sent; the message then says what to do."""
        return make()

    def gathered(self, value: Any) -> list | None:
        """The values of all processes, as a list, in the first process; None in the others."""
        return [value]

    def by_first(self, make: Callable[[], Any]) -> Any:
        """The value that a function returns in the first process, which works alone while the others wait."""
        return make()

    def agree(self, facts: dict[str, Any]) -> None:
        """Raise an error in all processes if facts, by name, differ between them."""

    def guarded(self, loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """The loss of a step; its error, if one process has one, waits for `raise_kept`."""
        return loss

    def raise_kept(self) -> None:
        """Raise the error that a guarded loss had in any process."""

    def asked_to_stop(self) -> bool:
        """Whether Ctrl-C was pressed in any process since this was asked."""
        return False

    @contextlib.contextmanager
    def deferring(self) -> Iterator[None]:
        """A context in which Ctrl-C waits for `asked_to_stop`."""
        yield

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A context in which an error of one process is raised in all of them."""
        yield


class Group(Single):
    """The processes of the default `torch.distributed` group, each with rows of its own.

    Every method has to be called in all processes, in the same order; contexts and guarded losses may differ within.
    """

    def __init__(self) -> None:
        self.size, self.rank, self.weight = dist.get_world_size(), dist.get_rank(), 1.0
        self.failure: Exception | None = None  # of a guarded loss
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

    def averaged(self, score: Callable[[], float]) -> Callable[[], float]:
        """The row-weighted mean across processes of a score, an error of one of which is one of all."""

        def mean() -> float:
            with self.together():
                value = score()
            return self.mean_over_rows(value)

        return mean

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
        value: Any = None
        failure: BaseException | None = None
        if self.rank == 0:
            try:
                value = make()
            except Exception as error:
                failure = error
        return self._handed_out(value, failure)

    def shared(self, make: Callable[[], Any]) -> Any:
        """As `first`, of an object that may not be one that can be sent; the message then says what to do."""
        return pickle.loads(self.first(lambda: _packed(make())))

    def _handed_out(self, value: Any, failure: BaseException | None) -> Any:
        """The value of the first process in all of them, or its failure."""
        box: list[Any] = [value, None if failure is None else f"{type(failure).__name__}: {failure}"]
        with self._told():
            dist.broadcast_object_list(box, src=0)
        if failure is not None:
            raise failure
        if box[1] is not None:
            raise ProcessGroupError(f"Process 0 of {self.size} could not continue. {box[1]}")
        return box[0]

    def gathered(self, value: Any) -> list | None:
        """The values of all processes, as a list, in the first process; None in the others."""
        values = [None] * self.size if self.rank == 0 else None
        with self._told():
            dist.gather_object(value, values, dst=0)
        return values

    def by_first(self, make: Callable[[], Any]) -> Any:
        """The value that a function returns in the first process, which works alone while the others wait.

        All of them exchange signs of life, so that no wait is too long for the group. If one of them dies, the work of
        the first ends with an error. Ctrl-C in any process is one in the first.
        """
        if self.rank:
            with self.deferring():
                while not self._beat(False, _take_interrupt())[0]:
                    pass
            return pickle.loads(self._handed_out(None, None))
        work = _WorkOfFirst(self)
        with work:
            work.done(make)
        if work.lost is not None:
            raise work.lost from work.failure
        self._handed_out(work.packed, work.failure)
        return work.value

    def refuse(self, why: str) -> None:
        """Raise an error, as there are several processes; `why` says what to do."""
        raise ProcessGroupError(
            f"{why}, within `with sklearn_si.distributed.alone():` (the torch.distributed group has {self.size})."
        )

    def _beat(self, is_over: bool, is_asked: bool) -> tuple[bool, bool]:
        """One sign of life: whether the work of the first process is over, and whether any process had a Ctrl-C."""
        state = torch.tensor([float(is_over), float(is_asked)], device=self.device)
        with self._told():
            dist.all_reduce(state)
        return bool(state[0] > 0), bool(state[1] > 0)

    def agree(self, facts: dict[str, Any]) -> None:
        """Raise an error in all processes if facts, by name, differ between them."""
        others = self.objects(facts)
        unlike = sorted({name for other in others for name in facts if other.get(name) != facts[name]})
        if self.any(bool(unlike)):
            raise ProcessGroupError(
                f"The {self.size} processes of the torch.distributed group fit different models: they differ in "
                f"{unlike}. Give all the same parameters and rows of the same columns, or fit within "
                "`with sklearn_si.distributed.alone():`."
            )

    def guarded(self, loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """The loss of a step; after an error it is zero, so that the others end their round and learn of it."""
        value = torch.zeros(())

        def kept() -> Tensor:
            nonlocal value
            try:
                if self.failure is None:
                    fresh = loss()
                    if fresh.requires_grad:
                        fresh.backward()
                    value = fresh.detach()
            except Exception as error:
                self.failure = error
            return value if self.failure is None else torch.zeros_like(value)

        return kept

    def raise_kept(self) -> None:
        """Raise the error that a guarded loss had in any process."""
        failure, self.failure = self.failure, None
        with self.together():
            if failure is not None:
                raise failure

    def asked_to_stop(self) -> bool:
        """Whether Ctrl-C was pressed in any process since this was asked."""
        return self.any(_take_interrupt())

    @contextlib.contextmanager
    def deferring(self) -> Iterator[None]:
        """A context in which Ctrl-C waits for `asked_to_stop`; a second one ends the process as usual."""
        own = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or not callable(own) or own is _note_interrupt:
            yield
            return
        signal.signal(signal.SIGINT, _note_interrupt)
        try:
            yield
            if _take_interrupt():
                warnings.warn(
                    "The fit was interrupted after its last training: the model is complete.",
                    ConvergenceWarning,
                    stacklevel=4,
                )
        finally:
            _take_interrupt()
            signal.signal(signal.SIGINT, own)

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


# When a Ctrl-C that still waits for its answer was pressed, as `time.monotonic` tells; None without one.
_noted: list[float | None] = [None]


def _note_interrupt(number: int, frame: Any) -> None:
    """Note a Ctrl-C; one that follows while the first has no answer yet is raised."""
    now = time.monotonic()
    if _noted[0] is not None and now - _noted[0] > _SAME_INTERRUPT:
        raise KeyboardInterrupt
    _noted[0] = now if _noted[0] is None else _noted[0]


def _take_interrupt() -> bool:
    """Whether a Ctrl-C waits for its answer; it is answered then."""
    noted, _noted[0] = _noted[0], None
    return noted is not None


def _packed(value: Any) -> bytes:
    try:
        return pickle.dumps(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"The fitted {type(value).__name__} cannot be sent to the other processes of the group ({error}): define "
            "functions and classes that it holds in a module that all processes import."
        ) from error


class _WorkOfFirst:
    """What the first process works out alone, with a thread that tells the others that it does.

    Parameters
    ----------
    group : Group
    """

    def __init__(self, group: Group) -> None:
        self.group, self.value = group, None
        self.packed: bytes | None = None
        self.failure: BaseException | None = None
        self.lost: ProcessGroupError | None = None  # the connection to the others
        self._over, self._last = threading.Event(), 0.0
        self._is_main = threading.current_thread() is threading.main_thread()
        self._thread = threading.Thread(target=self._tell, name="sklearn_si-group", daemon=True)

    def __enter__(self) -> None:
        self._own = signal.getsignal(signal.SIGINT)
        if self._is_main and callable(self._own):
            signal.signal(signal.SIGINT, self._once)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._is_main and callable(self._own):
            signal.signal(signal.SIGINT, self._own)

    def done(self, make: Callable[[], Any]) -> None:
        """Do the work; keep its value, packed for the others, or its failure."""
        try:
            with alone():
                self.value = make()
            self.packed = _packed(self.value)
        except BaseException as error:  # Ctrl-C as well, which the others have to learn of
            self.failure = error

    def _once(self, number: int, frame: Any) -> None:
        """Raise a Ctrl-C that the terminal and the other processes tell of, once."""
        now = time.monotonic()
        if self._over.is_set() or now - self._last < _SAME_INTERRUPT:
            return
        self._last = now
        assert callable(self._own)
        self._own(number, frame)

    def _tell(self) -> None:
        try:
            is_over = False
            while not is_over:
                is_over = self._over.wait(_BEAT)
                if self.group._beat(is_over, False)[1]:
                    self._stop()
        except ProcessGroupError as error:
            self.lost = error
            self._stop()

    def _stop(self) -> None:
        """Ctrl-C in the main thread, if the work is done there and not over."""
        if self._is_main and not self._over.is_set():
            _thread.interrupt_main()


def strided(n: int, most: int) -> slice:
    """A slice of at most `most` of n rows, evenly spaced."""
    return slice(None, None, -(-n // most)) if n > most else slice(None)


def current_group() -> Single:
    """The group that a fit joins: that of the launcher, if it has several processes."""
    if _alone[0] or not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return Single()
    return Group()
