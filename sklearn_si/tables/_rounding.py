"""Numbers with so many decimals, and below a ceiling."""

import numpy as np

__all__ = ["floored", "lowered", "rounded"]


def rounded(numbers, power):
    """Floats with so many decimals."""
    if power is None or numbers.dtype.kind == "i":
        return numbers
    return np.rint(numbers * power) / power


def floored(numbers, power):
    """The largest numbers with so many decimals that are not above some."""
    if power is None or numbers.dtype.kind == "i":
        return numbers
    nearest = np.rint(numbers * power) / power
    return np.where(nearest > numbers, np.rint(numbers * power - 1) / power, nearest)


def lowered(numbers, ceiling):
    """Numbers, where they are above a ceiling, at it."""
    if ceiling is None:
        return numbers
    most, rows = ceiling
    return np.where(rows & (numbers > most), most, numbers).astype(numbers.dtype)
