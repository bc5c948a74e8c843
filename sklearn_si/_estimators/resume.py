"""The checkpoint of an estimator's fit: which fit it is, told by its parameters and its data."""

import inspect
import numbers
import os
import re

import joblib

from .._training.checkpoint import BEFORE, Checkpoint, NoCheckpoint, SharedStore, Store
from .._utils.tensors import draw_seed, resolve_device
from ..distributed import Single
from ..exceptions import CheckpointError

# Addresses in texts of objects.
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
# Parameters that change nothing of what is fitted.
_WITHOUT_EFFECT = ("checkpoint", "device", "memory", "random_state", "verbose")


def told_params(estimator, without=_WITHOUT_EFFECT):
    """The parameters of an estimator as texts that are the same in all processes."""
    return {name: _told(value) for name, value in estimator.get_params().items() if name not in without}


def _told(value):
    """A value as a text; functions by their code, constants and closures, objects without a text by what they hold."""
    if inspect.isfunction(value):
        code, cells = value.__code__, [cell.cell_contents for cell in value.__closure__ or ()]
        what = code.co_code, code.co_names, code.co_consts, value.__defaults__, cells
        return _ADDRESS.sub("", f"{value.__module__}.{value.__qualname__} {what!r}")
    text = repr(value)
    held = vars(value) if _ADDRESS.search(text) and hasattr(value, "__dict__") and not isinstance(value, type) else ""
    return _ADDRESS.sub("", f"{text} {held!r}" if held else text)


def fit_facts(estimator, samples, fitted_before=None, without=()):
    """What makes a fit the same as another: class, training parameters, seed, data, and what it continues from.

    Parameters
    ----------
    estimator : estimator
        One with the parameters `device` and `random_state`.
    samples : dict
        What it is fitted to, by name.
    fitted_before : object, default=None
        What a warm start continues from.
    without : iterable of str, default=()
        Parameters that do not count, beside those that change nothing of what is fitted.

    Returns
    -------
    facts : dict of str
    """
    facts = {"class": type(estimator).__name__, **told_params(estimator, {*_WITHOUT_EFFECT, *without})}
    seed = estimator.random_state
    facts["random_state"] = repr(int(seed)) if isinstance(seed, numbers.Integral) else "not a number"
    facts["device"] = resolve_device(estimator.device).type  # where the random numbers are
    facts |= {name: joblib.hash(rows, coerce_mmap=True) for name, rows in samples.items()}
    facts[BEFORE] = "" if fitted_before is None else joblib.hash(fitted_before)
    return facts


def open_checkpoint(estimator, samples, fitted_before=None, group=Single()):  # noqa: B008 (it has no state)
    """The checkpoint of a fit: that of a parent's file, one of `checkpoint=path`, or one that keeps nothing.

    Parameters
    ----------
    estimator : estimator
        One with the parameters `checkpoint` and `random_state`.
    samples : dict
        What it is fitted to, by name.
    fitted_before : object, default=None
        What a warm start continues from.
    group : Single or Group, default=Single()
        The processes that fit together; the first of them has the file.

    Raises
    ------
    CheckpointError
        When there is a file, and it is not of this fit.
    """
    part = vars(estimator).pop("_checkpoint_part", None)
    if part is not None:
        return part
    if not group.any(estimator.checkpoint is not None):
        return NoCheckpoint(lambda: draw_seed(estimator.random_state))
    with group.together():
        path, facts = _file_and_facts(estimator, samples, fitted_before, group.rank)
    if group.size == 1:
        return Checkpoint(Store(path, facts, lambda: draw_seed(estimator.random_state)))
    told = group.objects(facts)
    facts = {name: " ".join(dict.fromkeys(other[name] for other in told)) for name in facts}
    for name in samples:
        facts[name] = " ".join(other[name] for other in told)
    return Checkpoint(SharedStore(path, facts, lambda: draw_seed(estimator.random_state), group))


def _file_and_facts(estimator, samples, fitted_before, rank):
    """The path of `checkpoint`, and which fit it is; only the first process of a group may have the folder."""
    facts, seed = fit_facts(estimator, samples, fitted_before), estimator.random_state
    if rank:
        return "", facts
    if estimator.checkpoint is None:
        raise CheckpointError(
            "Got checkpoint=None in the first process of the group, but a path in another: the first process reads and "
            "writes the file, so give it the path."
        )
    path = os.fsdecode(estimator.checkpoint)
    if path.endswith(os.sep):
        os.makedirs(path, exist_ok=True)
    if os.path.isdir(path) and not isinstance(seed, numbers.Integral):
        raise CheckpointError(
            f"checkpoint={path!r} is a folder, in which files are named by the data and the "
            f"parameters, but random_state={seed!r} is no number, so fits that differ would have one file: give a "
            "number, or a path for each fit."
        )
    return path, facts
