"""Checkpoints: what a fit has done so far, in one file that a crash leaves whole."""

import contextlib
import copy
import dataclasses
import functools
import hashlib
import os
import time
import warnings

from sklearn.exceptions import ConvergenceWarning

from .._utils.tensors import draw_seed
from ..exceptions import CheckpointError, LoadError, ProcessGroupError
from ..persistence._archive import read, write

# Largest share of the time that is spent on writing.
_SHARE = 0.05
# Fewest seconds between two files, however fast they are written.
_LEAST_SECONDS = 1.0
# Errors after which the same fit may be called again: the file is of another one, or another process has failed.
_CUT_OFF = (CheckpointError, ProcessGroupError)
# The fact of a warm start.
BEFORE = "the fit that a warm start continues from"


class NoCheckpoint:
    """The checkpoint of a fit that is not to be resumed.

    Parameters
    ----------
    draw : callable
        What gives the seed of the fit.
    """

    is_kept = False

    def __init__(self, draw=None):
        self._draw = draw

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        """A fit that ends, or that its data or parameters forbid, leaves no file; one that is cut off does."""
        if kind is None or (issubclass(kind, (ValueError, TypeError)) and not issubclass(kind, _CUT_OFF)):
            self.end()

    @contextlib.contextmanager
    def interruptible(self, is_learned, told):
        """Within it, Ctrl-C ends this part alone and keeps what was learned before; if nothing was, it ends the fit.

        Parameters
        ----------
        is_learned : callable
            is_learned() -> whether there is something to keep.
        told : str
            What the user is told.
        """
        try:
            yield
        except KeyboardInterrupt:
            if not is_learned():
                raise
            self.interrupted()
            warnings.warn(f"The fit was interrupted {told}", ConvergenceWarning, stacklevel=4)

    @functools.cached_property
    def seed(self):
        """The seed of the fit."""
        return self._draw()

    @property
    def seconds(self):
        """Seconds of the fit before it was cut off."""
        return 0.0

    def made(self, name, make):
        """What a function returns, or has returned before."""
        return make()

    def follow(self, estimator, name):
        """Have the fit of an estimator, which is a part of this one, keep its trainings here."""

    def part(self, name):
        """The checkpoint of a part of the fit, which has its own time and its own order of trainings."""
        return self

    def training(self, generators, batches):
        """The record of the next training, in the order of the fit."""
        return NO_RECORD

    def interrupted(self):
        """The user has ended the fit before its time."""

    def end(self):
        """The fit is over."""


class Checkpoint(NoCheckpoint):
    """The trainings of one fit, or of a part of it.

    A fit is trainings in a fixed order, and what lies between them follows from the seed and from their results. So it
    is enough to keep what each of them has left, and the state of the last at the end of a round.

    Parameters
    ----------
    store : Store
    prefix : str, default=""
        Of the part.
    """

    is_kept = True

    def __init__(self, store, prefix=""):
        super().__init__(lambda: store.seed)
        self.store, self.prefix, self.number = store, prefix, 0
        store.parts[prefix] = store.before.get(prefix, 0.0), time.perf_counter()

    @property
    def seconds(self):
        """Seconds of the fit, or of the part, before it was cut off."""
        return self.store.before.get(self.prefix, 0.0)

    def made(self, name, make):
        """What a function returns, or has returned before: numbers, texts, tensors."""
        key = self.prefix + name
        if key not in self.store.records:
            value = make()
            self.store.keep(key, value)
            return value
        return self.store.records[key]

    def follow(self, estimator, name):
        """Have the fit of an estimator, which is a part of this one, keep its trainings here."""
        part = Checkpoint(self.store, f"{self.prefix}{name}/")
        seed = estimator.random_state
        part._draw = lambda: draw_seed(seed)
        estimator._checkpoint_part = part

    def part(self, name):
        """The checkpoint of a part of the fit, which has its own time and its own order of trainings."""
        return Checkpoint(self.store, f"{self.prefix}{name}/")

    def training(self, generators, batches):
        """The record of the next training, in the order of the fit.

        Parameters
        ----------
        generators : dict of torch.Generator
            What it draws from, by name; the one of the batches, "points", is theirs while it runs.
        batches : object
            One with `state(ended)` and `set_state`.
        """
        self.number += 1
        return self.store.record(f"{self.prefix}{self.number}", generators, batches)

    def interrupted(self):
        """The user has ended the fit before its time: the file stays, with the last round."""
        self.store.interrupted = True

    def end(self):
        """The fit is over, and so is the use of the file; the end of a part is not that of the whole."""
        if not self.prefix:
            self.store.end()


class Store:
    """The file, and what is to be in it."""

    def __init__(self, path, facts, draw):
        self.facts, self.interrupted = facts, False
        if os.path.isdir(path):
            name = hashlib.blake2b(repr(sorted(facts.items())).encode(), digest_size=16).hexdigest()
            path = os.path.join(path, f"{name}.checkpoint")
        self.path, self.records = path, {}
        found = self._found()
        contents = found or {"seed": draw(), "records": {}, "seconds": {}}
        self.seed, self.records, self.before = (contents[name] for name in ("seed", "records", "seconds"))
        self.parts = {}  # seconds before, and when it began, of the fit and of its parts
        if found is None:
            self.write()  # a place where nothing can be written is better known now

    def _found(self):
        try:
            found = read(self.path)
        except FileNotFoundError:
            return None
        except LoadError as error:
            raise CheckpointError(
                f"The checkpoint {self.path!r} is damaged or no checkpoint: remove it, and the fit starts from the "
                f"beginning. ({error})"
            ) from error
        if not (isinstance(found, dict) and found.keys() == {"facts", "seed", "records", "seconds"}):
            raise CheckpointError(
                f"{self.path!r} is no checkpoint of a fit: give `checkpoint` a path of its own, which fit may write."
            )
        if not found["records"]:
            return None  # nothing was learned: nothing to lose, and nothing to mix up
        facts = found["facts"]
        unlike = sorted(name for name in facts.keys() | self.facts.keys() if facts.get(name) != self.facts.get(name))
        if unlike:
            raise CheckpointError(
                f"The checkpoint {self.path!r} is of another fit: they differ in {unlike}. Fit as before to go on, "
                "remove the file to start anew, or let `checkpoint` be a folder that exists: each fit then has a file."
            )
        return found

    def record(self, key, generators, batches):
        """The record of one training."""
        return Record(self, key, generators, batches)

    def keep(self, key, state):
        """Keep the state of a training, in the file as well if the last was written some time ago."""
        if self.interrupted:
            return  # what follows from a training that was cut short is not what follows from the whole
        self.records[key] = state
        if time.perf_counter() >= self.next:
            self.write()

    def write(self):
        """Write the file."""
        began = time.perf_counter()
        contents = {"facts": self.facts, "seed": self.seed, "records": self.records}
        # a part that this call has not come to yet keeps what it had
        spent = {name: before + began - since for name, (before, since) in self.parts.items()}
        contents["seconds"] = self.before | spent
        write(contents, self.path, "the checkpoint")
        now = time.perf_counter()
        self.next = now + max(_LEAST_SECONDS, (now - began) / _SHARE)

    next = 0.0

    def end(self):
        """Remove the file; after an interrupt, bring it up to the last round.

        An interrupted warm start leaves none: the weights that it continued from are no more.
        """
        if self.interrupted and self.records and not self.facts[BEFORE]:
            self.write()
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


class SharedStore(Store):
    """The file of a fit in several processes, which the first of them reads and writes.

    Parameters
    ----------
    path : str
        Where the first process has the file.
    facts : dict of str
        What makes the fit the same as another, of all processes together.
    draw : callable
    group : Group
    """

    def __init__(self, path, facts, draw, group):
        self.group, self.facts, self.interrupted, self.parts = group, facts, False, {}
        self.seed, self.records, self.before = group.first(lambda: self._opened(path, facts, draw))

    def _opened(self, path, facts, draw):
        super().__init__(path, facts, draw)
        return self.seed, self.records, self.before

    def record(self, key, generators, batches):
        """The record of one training, with the random numbers of all processes."""
        return SharedRecord(self, key, generators, batches)

    def keep(self, key, state):
        """Keep a state in the first process."""
        if self.group.rank == 0:
            super().keep(key, state)

    def end(self):
        """Remove the file, or bring it up to the last round, in the first process."""
        if self.group.rank == 0:
            super().end()


class _NoRecord:
    """The record of a training that is not kept."""

    def resume(self, weights, history):
        """Seconds of the training so far."""
        return 0.0

    def keep(self, weights, history, seconds):
        """Nothing."""

    def interrupted(self):
        """What the user is told beside."""
        return ""


class Record(_NoRecord):
    """The record of one training: its weights, its history, and where the random numbers are.

    Parameters
    ----------
    store : Store
    key : str
        Of this training.
    generators, batches
        As in `Checkpoint.training`.
    """

    def __init__(self, store, key, generators, batches):
        self.store, self.key, self.generators, self.batches = store, key, generators, batches

    def resume(self, weights, history):
        """Go on where the record ends, if there is one: weights, history and random numbers; seconds so far."""
        state = self.store.records.get(self.key)
        if state is None:
            return 0.0
        # the kept state must not change with the training
        state = copy.deepcopy(state)
        vars(history).update(state["history"])
        own = self._own(state)
        try:
            weights.set_state(state["weights"])
            self.batches.set_state(own["batches"])
        except (RuntimeError, ValueError) as error:  # what differs behind a function of one's own
            raise CheckpointError(
                f"The checkpoint {self.store.path!r} is of networks of other shapes: remove it to start anew. ({error})"
            ) from error
        for name, place in own["generators"].items():
            self.generators[name].set_state(place)
        return state["seconds"]

    def _own(self, state):
        """The part of a state that is of this process: its random numbers and its batches."""
        return state

    def keep(self, weights, history, seconds):
        """Keep the state at the end of a round, or of the training."""
        ended = history.ended
        state = {"history": dataclasses.asdict(history), "weights": weights.state(ended), "seconds": seconds}
        self._keep(state, self._place(ended))

    def _place(self, ended):
        """Where the random numbers and the batches of this process are."""
        generators = {n: g.get_state() for n, g in self.generators.items() if ended or n != "points"}
        return {"generators": generators, "batches": self.batches.state(ended)}

    def _keep(self, state, place):
        self.store.keep(self.key, state | place)

    def interrupted(self):
        """The user has ended the training: what is told beside."""
        self.store.interrupted = True
        return "" if self.store.facts[BEFORE] else " The same call of `fit` continues from the checkpoint."


class SharedRecord(Record):
    """The record of one training of several processes, each with random numbers and batches of its own."""

    def _own(self, state):
        return state["processes"][self.store.group.rank]

    def _keep(self, state, place):
        group = self.store.group
        state["processes"] = group.objects(place)
        with group.together():
            self.store.keep(self.key, state)


NO_RECORD = _NoRecord()
NO_CHECKPOINT = NoCheckpoint()
