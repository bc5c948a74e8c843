"""What plots share: axes, ranges, names of columns."""

import copy
import importlib

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .._estimators.model_estimator import ModelEstimator

# Largest number of columns that are shown in pairs.
COLUMNS = 4
# Largest number of rows in a scatter plot.
POINTS = 1000
# Largest number of columns that a title names.
_NAMES = 6
# Largest error of the plotted log-densities, in nats: colours do not show smaller differences.
_ODE_TOL = 0.05


def pyplot():
    """The plotting module of matplotlib, or an error that says how to install it."""
    try:
        return importlib.import_module("matplotlib.pyplot")
    except ModuleNotFoundError as error:
        raise ValueError("Displays need matplotlib, which is not installed: pip install 'sklearn-si[plot]'.") from error


class OneAxisDisplay:
    """A plot on one axis."""

    def plot(self, *, ax=None):
        """Draw the plot.

        Parameters
        ----------
        ax : matplotlib axis, default=None
            The axis to draw on; None makes a new figure.

        Returns
        -------
        self : object
        """
        if ax is None:
            _, ax = pyplot().subplots(layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        self._draw(ax)
        return self

    def _draw(self, ax):
        raise NotImplementedError


def require(estimator, method, display, instead):
    """Raise where an estimator of any library is not fitted, or lacks the method that a display draws."""
    if not callable(getattr(estimator, method, None)):
        raise ValueError(
            f"{display} needs a fitted estimator with {method}, but {type(estimator).__name__} has none: {instead}."
        )
    check_is_fitted(estimator)


def column_names(estimator, n):
    """The names of the columns of fit, or x0, x1, ... where it saw none."""
    # of any library: in a Pipeline the names are a property
    return list(getattr(estimator, "feature_names_in_", [f"x{j}" for j in range(n)]))


def coarse(estimator):
    """The estimator itself, or a copy whose log-densities are accurate enough for a plot."""
    if not isinstance(estimator, ModelEstimator):
        return estimator
    return copy.copy(estimator).set_params(ode_tol=max(_ODE_TOL, estimator.ode_tol))


def finite_range(values):
    """The smallest and the largest finite value, which are moved apart if they are equal."""
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    return (low, high) if high > low else (low, low + max(1e-9, 1e-9 * abs(low)))


def with_margin(limits):
    """Limits of an axis, a twentieth wider on each side."""
    low, high = limits
    margin = 0.05 * (high - low)
    return low - margin, high + margin


def listed(names):
    """The first names, and how many more there are."""
    more = len(names) - _NAMES
    return ", ".join(names[:_NAMES]) + (f" and {more} more" if more > 0 else "")
