"""Numbers with so many decimals, and below a ceiling."""

import numpy as np

__all__ = ["at_least", "at_most", "floored", "held", "lowered", "rounded"]


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


def held(numbers, dtype):
    """Numbers as a dtype holds them."""
    if numbers.dtype.kind == "i" or np.dtype(dtype) == numbers.dtype:
        return numbers
    with np.errstate(over="ignore"):
        return numbers.astype(dtype).astype(np.float64)


def at_least(numbers, dtype, strict=False):
    """The least numbers of a dtype that are not below some, or are above them."""
    return -at_most(-numbers, dtype, strict)


def at_most(numbers, dtype, strict=False):
    """The largest numbers of a dtype that are not above some, or are below them."""
    near = held(numbers, dtype)
    beyond = near >= numbers if strict else near > numbers
    lower = np.nextafter(near.astype(dtype), np.array(-np.inf, dtype=dtype)).astype(np.float64)
    return np.where(beyond, lower, near)
