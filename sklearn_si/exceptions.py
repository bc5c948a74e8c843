"""Errors and warnings of the library: all errors are ValueErrors, all warnings UserWarnings."""

__all__ = ["FitDivergedError", "IntegrationError", "IntegrationWarning", "NoDensityError"]


class FitDivergedError(ValueError):
    """The training loss stopped being finite."""


class IntegrationError(ValueError):
    """A solver left the finite numbers before the end of its time interval."""


class NoDensityError(ValueError):
    """A log-density was asked of a model that has none."""


class IntegrationWarning(UserWarning):
    """Some rows could not be brought under the requested tolerance."""
