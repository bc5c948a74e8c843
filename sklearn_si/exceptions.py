"""Errors and warnings of the library: all errors are ValueErrors, all warnings UserWarnings."""

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
    """The file at `checkpoint` is damaged, or of another fit."""


class FitDivergedError(ValueError):
    """The training loss stopped being finite, and at lower rates as well."""


class IntegrationError(ValueError):
    """A solver left the finite numbers, or had not reached the end of its time interval after its last step.

    Draws raise it only where more than 1 % of the rows do so again and again.

    Parameters
    ----------
    message : str
    rows : sequence of int, default=()
        Numbers of the rows among those that the method was given, as far as they are known.
    """

    def __init__(self, message, rows=()):
        super().__init__(message)
        self.rows = rows

    def __str__(self):
        """The message, with the first of the rows."""
        if not len(self.rows):
            return super().__str__()
        some = ", ".join(str(int(row)) for row in self.rows[:5])
        return f"{super().__str__()} Rows: {some}{', ...' if len(self.rows) > 5 else '.'}"


@contextlib.contextmanager
def rows_among(numbers):
    """Within it, rows are some of a whole: errors say their numbers in that."""
    try:
        yield
    except IntegrationError as error:
        error.rows = np.asarray(numbers)[np.asarray(error.rows, dtype=int)]
        raise


class NoDensityError(ValueError):
    """A log-density was asked of a model that has none."""


class LoadError(ValueError):
    """A file is no saved estimator, is damaged, or asks for what may not be loaded."""


class ProcessGroupError(ValueError):
    """Processes that fit one model together have lost each other, differ, or ask for what they cannot do together."""


class IntegrationWarning(UserWarning):
    """Some rows are not within the requested tolerance, or were drawn again because they left the finite numbers."""
