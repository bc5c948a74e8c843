"""Errors and warnings of the library: all errors are subclasses of ValueError, all warnings of UserWarning."""

import contextlib

import numpy as np

__all__ = [
    "CheckpointError",
    "FitDivergedError",
    "IntegrationError",
    "IntegrationWarning",
    "LoadError",
    "NoDensityError",
    "ProcessGroupError",
]


class CheckpointError(ValueError):
    """The file at `checkpoint` is damaged, or belongs to another fit."""


class FitDivergedError(ValueError):
    """The training loss became infinite or NaN, and did so again at lower learning rates."""


class IntegrationError(ValueError):
    """A solution became infinite or NaN, or a solver did not reach the end of its time interval.

    `sample` draws rows that fail once more, and raises this error only if more than 1 % of them fail repeatedly.

    Parameters
    ----------
    message : str
        The message.
    rows : sequence of int, default=()
        Numbers of the failed rows among those that were passed to the method, as far as they are known.
    """

    def __init__(self, message, rows=()):
        super().__init__(message)
        self.rows = rows

    def __str__(self):
        """The message, with the numbers of the first failed rows."""
        if not len(self.rows):
            return super().__str__()
        some = ", ".join(str(int(row)) for row in self.rows[:5])
        return f"{super().__str__()} Rows: {some}{', ...' if len(self.rows) > 5 else '.'}"


@contextlib.contextmanager
def rows_among(numbers):
    """Translate the row numbers of errors by `numbers`, for the solution of a selection of rows."""
    try:
        yield
    except IntegrationError as error:
        error.rows = np.asarray(numbers)[np.asarray(error.rows, dtype=int)]
        raise


class NoDensityError(ValueError):
    """A log-density was requested from a model that has none."""


class LoadError(ValueError):
    """A file is not a saved estimator, is damaged, or names a class or function that may not be loaded."""


class ProcessGroupError(ValueError):
    """Processes that fit a model together lost their connection, hold different inputs, or got unsupported settings."""


class IntegrationWarning(UserWarning):
    """Some rows miss the requested tolerance, or were drawn again because they became infinite or NaN."""
