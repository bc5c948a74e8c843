"""Warnings about columns of conditions that may not be read as the user means them."""

import warnings

import numpy as np

from .._utils.callers import users_level
from .._utils.input_checks import is_nameless

# Distinct values of whole numbers that may well be codes of classes; rows of each, in the mean, from which floats are
# taken for whole numbers.
_CODES = range(3, 21)
_ROWS_OF_A_CODE = 5
# Largest number of categories that a warning lists.
_FEW = 10


def warn_of_codes(names, codecs, columns, input_name):
    """Warn of the columns of whole numbers that are read as quantities but look like codes of classes."""
    if is_nameless():
        return
    odd: dict[object, int] = {}
    for name, codec, reading in zip(columns.names, codecs, columns.readings, strict=True):
        if name in names and codec.kind == "number" and codec.quantity == "numbers":
            n_codes = _count_codes(reading)
            odd |= {name: n_codes} if n_codes in _CODES else {}
    if odd:
        told = ", ".join(f"{name!r} ({count} distinct values)" for name, count in odd.items())
        kinds = "{" + ", ".join(f"{name!r}: 'categorical'" for name in odd) + "}"
        warnings.warn(
            f"Columns of {input_name} hold whole numbers that are read as quantities: {told}. If they are codes of "
            f"classes, set condition_kinds={kinds}; if they are quantities, 'continuous' there says so.",
            UserWarning,
            stacklevel=users_level(),
        )


def warn_of_filled(pairs, input_name):
    """Warn of the columns in which missing values, or classes that fit has not seen, are read as something else."""
    if is_nameless():
        return
    told = [f"{codec.name!r} ({n} rows miss it)" for codec, reading in pairs if (n := codec.n_filled(reading))]
    for codec, reading in pairs:
        unknown = codec.unknown(reading)
        told += [f"{codec.name!r} (unknown categories {unknown[:_FEW]})"] if unknown else []
    if told:
        warnings.warn(
            f"Columns of {input_name} hold what fit has not seen: {', '.join(told)}. It is read as the mean of the "
            "column, as its most frequent category, or, where fit saw missing values, as one of these: check it, or "
            "fit on rows that have it.",
            UserWarning,
            stacklevel=users_level(),
        )


def _count_codes(reading):
    """Distinct values of whole numbers; 0 where they are not whole, or are floats of which few repeat."""
    x = reading.values[reading.gaps == 0]
    if x.dtype.kind == "f" and not (np.isfinite(x).all() and (x == np.rint(x)).all()):
        return 0
    count = len(np.unique(x))
    return 0 if x.dtype.kind == "f" and len(x) < _ROWS_OF_A_CODE * count else count


def told_of_text(unknown, levels):
    """What to do about cells that are the text of known classes, or known as text; nothing where none is."""
    written = {str(level): level for level in levels}
    cell = next((cell for cell in unknown if str(cell) in written), None)
    if cell is None:
        return ""
    level = written[str(cell)]
    return f" {cell!r} is of class {type(cell).__name__}, and {level!r} of class {type(level).__name__}: convert them."
