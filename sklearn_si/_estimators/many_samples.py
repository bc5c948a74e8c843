"""Reading of several samples, with their labels and times, and of questions about them."""

import numbers

import numpy as np

from .._training.base_density import WAY_OUT
from .._utils.input_checks import validate_rows, validate_samples
from .._utils.many_samples import (
    check_groups,
    check_times,
    column_names,
    is_list_of_samples,
    plain,
    times_of_labels,
    without_groups,
)
from ..preprocessing._maps import check_has_density, check_range

# Sizes and labels that an error lists.
_FEW = 30
# How far the sum of weights may be from 1.
_ROUNDING = 1e-6


def read_samples(estimator, X, times, groups):
    """The validated samples in the order of their times, their labels, their times (or None), and whether they follow.

    Samples follow each other where they have times or ordered categories, or where a list has two.
    """
    follow = False
    if groups is not None:
        samples, labels, times, follow = _read_groups(estimator, X, groups, times)
    else:
        samples = _read_list(estimator, X)
        times = None if times is None else check_times(times, len(samples))
        labels = list(range(len(samples))) if times is None else times.tolist()
    if len(samples) < 2:
        raise ValueError(
            f"Got {len(samples)} sample, labelled {labels}, but expected two or more: the density of one sample is "
            "that of InterpolantFlow().fit(X)."
        )
    if times is None:
        return samples, labels, None, follow or (groups is None and len(samples) == 2)
    order = np.argsort(times)
    return [samples[k] for k in order], [labels[k] for k in order], times[order], True


def _read_groups(estimator, X, groups, times):
    if is_list_of_samples(X):
        raise ValueError(
            "Got a list of samples and groups, each of which says which rows belong together: pass a list, or one "
            "frame or array with groups."
        )
    rows, column, order = without_groups(X, groups)
    labels = check_groups(column, order)
    rows, _ = validate_samples(estimator, rows, None)
    cells = column.tolist()
    samples = [rows[np.array([cell == label for cell in cells])] for label in labels]
    return samples, [plain(label) for label in labels], times_of_labels(labels, times), order is not None


def _read_list(estimator, X):
    if not is_list_of_samples(X):
        raise ValueError(
            f"Got X of class {type(X).__name__}, but expected a list of samples, fit([X0, X1, ..., XK]), each of shape "
            "(n_samples_k, n_features), or one frame or array with groups."
        )
    first, _ = validate_samples(estimator, X[0], None)
    return [first, *(validate_rows(estimator, rows, f"X[{k}]") for k, rows in enumerate(X[1:], 1))]


def check_samples(estimator, samples, labels):
    """Refuse samples that are too few, too large, or have no density where one is promised."""
    names = column_names(estimator)
    for label, rows in zip(labels, samples, strict=True):
        name = f"the sample {label!r}"
        if len(rows) < 2:
            raise ValueError(f"There is {len(rows)} row in {name}, but expected two or more: leave it out.")
        check_range(rows, name, names)
        if estimator.base_density is not None:
            check_has_density(rows, name, WAY_OUT, names)
    sizes = [len(rows) for rows in samples]
    if estimator.coupling == "paired" and len(set(sizes)) > 1:
        raise ValueError(
            f"coupling='paired' puts row i of all samples together, but they have {sizes[:_FEW]} rows: use "
            "coupling='optimal'."
        )


def position_of(model, given, name, default):
    """The time, or the number of the sample, that a label or a time means."""
    if given is None and not model.follow:
        raise ValueError(
            f"The samples are labelled {model.labels[:_FEW]} and have no order, so that none of them is the first or "
            f"the last: say which one is meant by {name}=."
        )
    if given is None:
        return model.position(range(len(model.labels))[default])
    is_flag = isinstance(given, (bool, np.bool_))
    known = [k for k, label in enumerate(model.labels) if type(label) is bool or not is_flag if label == given]
    if known:
        return model.position(known[0])
    if model.times is None:
        raise ValueError(
            f"Got {name}={given!r}, but the samples are labelled {model.labels[:_FEW]} and have no times: name one of "
            "them, fit with times=, or draw a mean of samples with barycenter(weights)."
        )
    first, last = model.times[[0, -1]]
    if not isinstance(given, numbers.Real) or is_flag or not first <= float(given) <= last:
        raise ValueError(
            f"Got {name}={given!r}, but expected a time from {first:g} to {last:g}, between the first sample and the "
            "last."
        )
    return float(given)


def checked_weights(weights, labels):
    """One weight for each sample, none negative and of sum 1; a dict has those that are not 0, by label."""
    n = len(labels)
    if isinstance(weights, dict):
        unknown = [label for label in weights if label not in labels]
        if unknown:
            raise ValueError(f"weights has the labels {unknown[:_FEW]}, but the samples are {labels[:_FEW]}.")
        weights = [weights.get(label, 0.0) for label in labels]
    try:
        array = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Got weights={weights!r}, but expected {n} numbers: {error}.") from error
    if array.shape != (n,):
        raise ValueError(f"weights has the shape {array.shape}, but expected ({n},): one for each sample.")
    if not (np.isfinite(array).all() and (array >= 0).all() and abs(array.sum() - 1) <= _ROUNDING):
        raise ValueError(
            f"Got weights={array.tolist()}, but expected finite weights of at least 0 whose sum is 1: divide them by "
            "their sum."
        )
    return array / array.sum()
