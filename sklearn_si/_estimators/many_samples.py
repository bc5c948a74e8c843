"""Reading of several samples, with their labels and times, and of questions about them."""

import numbers
import warnings
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.utils.validation import _num_samples

from .._training.base_density import WAY_OUT
from .._utils.callers import users_level
from .._utils.frame_names import is_pandas
from .._utils.input_checks import validate_rows, validate_samples
from .._utils.kinds import check_cells
from .._utils.many_samples import (
    check_groups,
    check_times,
    column_names,
    is_list_of_samples,
    plain,
    times_of_labels,
    without_groups,
)
from .._utils.weights import check_weights, taken
from ..preprocessing._conditions import ConditionCodec, columns_of, joined
from ..preprocessing._maps import check_has_density, check_range

# Sizes and labels that an error lists.
_FEW = 30
# Conditions of each sample that are looked for in the others, and those among which.
_FEW_CONDITIONS = 200
_MANY_CONDITIONS = 5000
# Largest difference in any encoded column of conditions that are alike: classes differ by 1, quantities by deviations.
_UNLIKE = 0.9
# How far the sum of weights may be from 1.
_ROUNDING = 1e-6


def read_samples(estimator, X, times, groups):
    """The validated samples in the order of their times, their labels, their times (or None), and whether they follow.

    Samples follow each other where they have times or ordered categories, or where a list has two. The last result says
    where the rows of each sample are: the number of its list entry, or its row numbers with groups.
    """
    follow = False
    if groups is not None:
        samples, labels, times, follow, places = _read_groups(estimator, X, groups, times)
    else:
        samples = _read_list(estimator, X)
        times = None if times is None else check_times(times, len(samples))
        labels = list(range(len(samples))) if times is None else times.tolist()
        places = list(range(len(samples)))
    if len(samples) < 2:
        raise ValueError(
            f"Got {len(samples)} sample, labelled {labels}, but expected two or more: the density of one sample is "
            "that of InterpolantFlow().fit(X)."
        )
    if times is None:
        return samples, labels, None, follow or (groups is None and len(samples) == 2), places
    order = np.argsort(times)
    return [samples[k] for k in order], [labels[k] for k in order], times[order], True, [places[k] for k in order]


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
    places = [np.flatnonzero([cell == label for cell in cells]) for label in labels]
    samples = [rows[own] for own in places]
    return samples, [plain(label) for label in labels], times_of_labels(labels, times), order is not None, places


def _read_list(estimator, X):
    if not is_list_of_samples(X):
        raise ValueError(
            f"Got X of class {type(X).__name__}, but expected a list of samples, fit([X0, X1, ..., XK]), each of shape "
            "(n_samples_k, n_features), or one frame or array with groups."
        )
    first, _ = validate_samples(estimator, X[0], None)
    return [first, *(validate_rows(estimator, rows, f"X[{k}]") for k, rows in enumerate(X[1:], 1))]


def of_samples(given, name, places, n_rows):
    """What fit was given for the rows of each sample, such as conditions, in the order of the samples.

    Parameters
    ----------
    given : list, array-like or None
        One entry for each sample of a list, or with groups one for all rows; None stays so.
    name : str
        What errors call it.
    places : list
        Of `read_samples`.
    n_rows : list of int
        Rows of each sample.
    """
    if given is None:
        return None
    if not isinstance(places[0], (int, np.integer)):
        total = sum(n_rows)
        if np.ndim(given) == 0 or _num_samples(given) != total:
            raise ValueError(f"{name} must have one row for each of the {total} rows of X.")
        return [taken(given, own, total) for own in places]
    check_list(given, name, len(places))
    return [given[k] for k in places]


def check_list(given, name, n):
    """Raise a ValueError unless there is one entry for each sample of a list."""
    if not isinstance(given, (list, tuple)) or len(given) != n:
        what = f"{len(given)} entries" if isinstance(given, (list, tuple)) else f"a {type(given).__name__}"
        raise ValueError(f"{name} has {what}, but there are {n} samples in a list: give a list with one for each.")


def without_weightless(X, groups, condition, sample_weight, is_paired):
    """What fit was given without the rows of weight zero, and the weights of the others.

    Returns
    -------
    X, groups, condition
    weights : list of (ndarray or None), ndarray or None
        Of mean one within the samples of a list; with groups, one for each row.
    """
    if sample_weight is None:
        return X, groups, condition, None
    if groups is not None or not is_list_of_samples(X):
        n = _num_samples(X)
        weights = check_weights(sample_weight, n, "X", "sample_weight")
        kept = np.flatnonzero(weights)
        return taken(X, kept, n), taken(groups, kept, n), taken(condition, kept, n), weights[kept]
    sizes = [_num_samples(one) for one in X]
    if is_paired:
        weights = [check_weights(sample_weight, sizes[0], "X[0]", "sample_weight")] * len(X)
    else:
        check_list(sample_weight, "sample_weight", len(X))
        weights = [
            None if w is None else check_weights(w, n, f"X[{k}]", f"sample_weight[{k}]")
            for k, (w, n) in enumerate(zip(sample_weight, sizes, strict=True))
        ]
    with_weight = [None if w is None else np.flatnonzero(w) for w in weights]
    if condition is not None:
        check_list(condition, "condition", len(X))
        condition = [taken(c, rows, n) for c, rows, n in zip(condition, with_weight, sizes, strict=True)]
    X = [taken(one, rows, n) for one, rows, n in zip(X, with_weight, sizes, strict=True)]
    return X, groups, condition, [w if rows is None else w[rows] for w, rows in zip(weights, with_weight, strict=True)]


def encoded_conditions(condition, kinds, samples, labels):
    """The codec of the conditions of all samples, and the encoded rows of each; (None, None) without."""
    if condition is None:
        if kinds:
            raise ValueError(f"Got condition_kinds={kinds!r}, but fit was given no condition.")
        return None, None
    sizes = [len(rows) for rows in samples]
    columns = [columns_of(one, f"condition of {label!r}") for one, label in zip(condition, labels, strict=True)]
    first = columns[0].table
    for one, label in zip(columns, labels, strict=True):
        if one.table.names != first.names:
            raise ValueError(
                f"The condition of the sample {label!r} has the columns {one.table.names[:_FEW]}, but that of "
                f"{labels[0]!r} has {first.names[:_FEW]}: give the same columns."
            )
    codec = ConditionCodec(False, kinds).fit_columns(joined(columns))
    encoded = [_encoded(codec, *each) for each in zip(condition, sizes, labels, strict=True)]
    _warn_of_unlike(encoded, labels)
    return codec, encoded


def _warn_of_unlike(encoded, labels):
    """Warn of samples that lack conditions which others have: there they are learned from rows of other conditions."""
    some = np.concatenate([rows[:: max(1, len(rows) // _FEW_CONDITIONS)] for rows in encoded])
    unlike = {}
    for label, rows in zip(labels, encoded, strict=True):
        nearest = cdist(some, np.unique(rows, axis=0)[:_MANY_CONDITIONS], "chebyshev").min(1)
        if (share := float((nearest > _UNLIKE).mean())) > 0:
            unlike[label] = share
    if unlike:
        told = ", ".join(f"{label!r} ({share:.0%} of the conditions of all samples)" for label, share in unlike.items())
        warnings.warn(
            f"Some samples have no rows of conditions that others have: {told}. Given these, what is learned there is "
            "that of the rows of the nearest conditions: leave such rows out of all, or ask of other conditions.",
            UserWarning,
            stacklevel=users_level(),
        )


def _encoded(codec, condition, n, label):
    if len(columns_of(condition).readings[0].gaps) != n:
        raise ValueError(f"The condition of the sample {label!r} must have one row for each of its {n} rows.")
    return codec.transform(condition, n)


def flattened(X, **parts):
    """Arguments with an entry for each sample of a list, as arguments of their own, for `fit_by_first`."""
    rows = {"X": X}
    for name, value in parts.items():
        if is_list_of_samples(X) and isinstance(value, (list, tuple)) and len(value) == len(X):
            rows |= {f"{name}[{k}]": one for k, one in enumerate(value)}
        else:
            rows[name] = value
    return rows


def gathered(rows):
    """The arguments again, from what `flattened` has made of them."""
    found: dict[str, Any] = {}
    for name, value in rows.items():
        head, bracket, _ = name.partition("[")
        if bracket:
            found.setdefault(head, []).append(value)
        else:
            found[name] = value
    return found


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
    """One weight for each sample, none negative and of sum 1; a dict or a Series has those that are not 0, by label."""
    n = len(labels)
    if is_pandas(weights, "Series"):
        weights = dict(weights.items())
    if isinstance(weights, dict):
        unknown = [label for label in weights if label not in labels]
        if unknown:
            raise ValueError(f"weights has the labels {unknown[:_FEW]}, but the samples are {labels[:_FEW]}.")
        weights = [weights.get(label, 0.0) for label in labels]
    check_cells(weights, "weights")
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
