"""The numbers that rows have in what a user gave, where an estimator looks at some of them alone."""

import contextlib
import contextvars
from collections.abc import Iterator

import numpy as np

__all__ = ["number_of_row", "numbered", "rows_of_fit", "rows_of_weights"]

_numbers: contextvars.ContextVar[dict[str, np.ndarray] | None] = contextvars.ContextVar(
    "sklearn_si_row_numbers", default=None
)


@contextlib.contextmanager
def numbered(numbers: dict[str, np.ndarray]) -> Iterator[None]:
    """A context in which errors about a sample give rows the numbers that they have for the user.

    Parameters
    ----------
    numbers : dict of ndarray of int
        By the name of the sample: for each row that is looked at, its number in the sample that the enclosing context
        speaks of, if there is one.
    """
    outer = _numbers.get() or {}
    own = {name: outer[name][rows] if name in outer else rows for name, rows in numbers.items()}
    token = _numbers.set({**outer, **own})
    try:
        yield
    finally:
        _numbers.reset(token)


def number_of_row(row: int, name: str) -> int:
    """The number that a row of a sample of that name has for the user."""
    numbers = (_numbers.get() or {}).get(name)
    return int(row if numbers is None else numbers[row])


def rows_of_weights(weights: object, *names: str) -> dict[str, np.ndarray]:
    """The numbers of the rows that have a weight; empty without checked weights.

    Parameters
    ----------
    weights : array-like, a tuple of one for each name, or None
    *names : str
        Of the samples; one array is that of the last, of which the others are then whole.
    """
    if weights is None:
        return {}
    parts = dict(zip(names, weights, strict=True)) if isinstance(weights, tuple) else {names[-1]: weights}
    return {name: np.flatnonzero(np.asarray(part)) for name, part in parts.items() if part is not None}


def rows_of_fit(weights: object, has_two_samples: bool, is_paired: bool) -> dict[str, np.ndarray]:
    """The numbers of the rows that have a weight in a fit of X, or of X0 and X1."""
    if not has_two_samples:
        return rows_of_weights(weights, "X")
    both = (weights, weights) if is_paired and weights is not None else weights
    return rows_of_weights(both, "X0", "X1")
