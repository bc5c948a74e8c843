"""Errors and warnings of the library: all errors are ValueErrors, all warnings UserWarnings."""

__all__ = [
    "FitDivergedError",
    "IntegrationError",
    "IntegrationWarning",
    "LoadError",
    "NoDensityError",
    "ProcessGroupError",
]


class FitDivergedError(ValueError):
    """The training loss stopped being finite."""


class IntegrationError(ValueError):
    """A solver left the finite numbers before the end of its time interval."""


class NoDensityError(ValueError):
    """A log-density was asked of a model that has none."""


class LoadError(ValueError):
    """A file is no saved estimator, is damaged, or asks for what may not be loaded."""


class ProcessGroupError(ValueError):
    """Processes that fit one model together have lost each other, differ, or ask for what they cannot do together."""


class IntegrationWarning(UserWarning):
    """Some rows could not be brought under the requested tolerance."""
