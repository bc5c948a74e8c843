"""Labels of classes, and numbers that belong to labels."""

import numpy as np

from .cells import is_missing
from .frame_names import is_pandas
from .kinds import as_cells

__all__ = ["checked_labels", "values_by_label"]

# The types of labels, each with its name in errors; labels of one target are of one of them.
_TYPES: dict[tuple, str] = {
    (str, bytes): "str",
    (bool, np.bool_): "bool",
    (int, float, np.integer, np.floating): "number",
}


def checked_labels(y, name="y"):
    """Labels as an array, none of them missing or hidden by a mask, and all of one type: text, numbers or booleans."""
    if y is None:
        raise ValueError(f"This estimator requires y to be passed, but the target {name} is None.")
    labels = as_cells(y, name)
    if labels.ndim == 0:
        raise ValueError(f"Got {name}={y!r}, but expected a label for each row.")
    cells = labels.ravel().tolist() if labels.dtype.kind in "OfmMc" else []
    missing = sum(is_missing(cell) for cell in cells)
    if missing:
        raise ValueError(
            f"{name} has {missing} missing values: leave those rows out, or name them as a class of their own."
        )
    own = {cell.__class__ for cell in (cells if labels.dtype.kind == "O" else labels.ravel()[:1])}
    types = {next((told for some, told in _TYPES.items() if issubclass(cls, some)), "") for cls in own}
    if len(types) > 1 or "" in types:
        raise ValueError(
            f"{name} has labels of the types {sorted(cls.__name__ for cls in own)}, but expected one type: convert "
            "them to text, whole numbers or booleans."
        )
    return labels


def values_by_label(values, labels, name):
    """Numbers in the order of some labels: those of a dict or of a pandas Series are found by their labels.

    Parameters
    ----------
    values : dict, Series or array-like
        Of the last, the order is that of the labels already.
    labels : list
    name : str
        Of the values, for errors.
    """
    if not isinstance(values, dict) and not is_pandas(values, "Series"):
        return values
    pairs = dict(values.items())
    wrong = [label for label in pairs if label not in labels], [label for label in labels if label not in pairs]
    if any(wrong) or len(pairs) != len(values):
        raise ValueError(
            f"Got {name}={pairs!r} by label, but expected each of {labels} once: correct the labels, or pass a list of "
            "numbers in this order."
        )
    return [pairs[label] for label in labels]
