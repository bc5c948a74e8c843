"""Fits that the first process of a group works out alone, from the rows of all processes."""

import importlib

import joblib
import numpy as np

from .._utils.frame_names import is_pandas, names_of, narwhals_frame, narwhals_series
from .._utils.input_checks import all_or_nothing
from .._utils.many_samples import is_list_of_samples
from .._utils.weights import is_pair
from ..distributed import current_group
from .resume import told_params

# What a process keeps of its own, beside the parameters, when it gets a fitted estimator.
_CALLBACKS = "_skl_callbacks"


def fit_by_first(estimator, fit, told=None, **rows):
    """Fit alone, or in a group: the first process to the rows of all, which gives every process the fitted estimator.

    An error leaves the estimator as it was.

    Parameters
    ----------
    estimator : estimator
        Whose fit it is.
    fit : callable
        fit(**rows), which fits the estimator in place.
    told : dict, default=None
        Arguments that have to be the same in all processes, by name.
    **rows : array-like, frame, list of them, or None
        Arguments that have rows of their own in each process. If all processes pass equal ones, these count once.

    Returns
    -------
    estimator : estimator
        The fitted estimator itself.

    Raises
    ------
    ProcessGroupError
        When the processes have other parameters or columns, and when one of them fails.
    """
    group = current_group()
    if group.size == 1:
        with all_or_nothing(estimator):
            fit(**rows)
        return estimator
    with group.together():
        facts = told_params(estimator) | {"arguments": _kinds(rows), "told": repr(told)}
    group.agree(facts)
    is_same = len(set(group.objects(joblib.hash(list(rows.values()), coerce_mmap=True)))) == 1
    parts = group.gathered(rows) or []

    def of_all():
        joined = rows if is_same else {name: joined_rows(name, [part[name] for part in parts]) for name in rows}
        with all_or_nothing(estimator):
            fit(**joined)
        return estimator

    fitted = group.by_first(of_all)
    if group.rank:
        _take(estimator, fitted)
    return estimator


def _take(estimator, fitted):
    """Take the fitted attributes of an equal estimator; parameters and callbacks stay."""
    own = {*estimator.get_params(deep=False), _CALLBACKS}
    for name in [name for name in vars(estimator) if name not in own]:
        delattr(estimator, name)
    vars(estimator).update({name: value for name, value in vars(fitted).items() if name not in own})


def _kinds(rows):
    """What kind of rows each argument has: None, names of columns, or a number of them; of a list, those of each."""
    return {name: _kind(name, value) for name, value in rows.items()}


def _kind(name, value):
    if value is None or np.ndim(value) == 0:
        return value
    if _has_samples(name, value):
        return [_kind(name, one) for one in value]
    names = names_of(value)
    return np.shape(value)[1:] if names is None else names


def _has_samples(name, value):
    """Whether an argument has rows of several samples: it is a list of them, or a pair of weights."""
    return is_list_of_samples(value) or (name == "sample_weight" and is_pair(value))


def joined_rows(name, parts):
    """The rows of several parts of an argument, in order; of a list of samples, those of each.

    Parameters
    ----------
    name : str
        Of the argument.
    parts : list of array-like, of frames of one library, of lists of them, or of None
    """
    first = parts[0]
    if first is None or np.isscalar(first):
        return first
    if _has_samples(name, first):
        samples = [joined_rows(name, list(some)) for some in zip(*parts, strict=True)]
        return tuple(samples) if isinstance(first, tuple) else samples
    if is_pandas(first) or is_pandas(first, "Series"):
        return _joined_pandas(parts)
    frame, series = narwhals_frame(first), narwhals_series(first)
    if frame is not None:
        return _joined_frames([narwhals_frame(part) for part in parts])
    if series is not None:
        frames = [narwhals_series(part).to_frame() for part in parts]
        return narwhals_frame(_joined_frames(frames))[series.name].to_native()
    if isinstance(first, list):
        return [row for part in parts for row in part]
    if any(isinstance(part, np.ma.MaskedArray) for part in parts):
        return np.ma.concatenate(parts)
    return np.concatenate([np.asarray(part) for part in parts])


def _joined_frames(frames):
    return importlib.import_module("narwhals.stable.v2").concat(frames).to_native()


def _joined_pandas(parts):
    """Frames or columns of pandas, one after the other; a category is one of all parts."""
    pd = importlib.import_module("pandas")
    if is_pandas(parts[0], "Series"):
        return _united(pd, parts)
    columns = [_united(pd, [part.iloc[:, j] for part in parts]) for j in range(parts[0].shape[1])]
    frame = pd.concat(columns, axis=1)
    frame.columns = parts[0].columns
    return frame


def _united(pd, series):
    is_categorical = all(isinstance(one.dtype, pd.CategoricalDtype) for one in series)
    if is_categorical and len({one.dtype for one in series}) > 1:
        values = pd.api.types.union_categoricals(series)
        return pd.Series(values, name=series[0].name)
    return pd.concat(series, ignore_index=True)
