"""What plots share: axes, ranges, names of columns."""

import copy
import importlib

import numpy as np

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


def axis_and_figure(ax):
    """An axis, and its figure; a new one if none is given."""
    if ax is None:
        _, ax = pyplot().subplots(layout="constrained")
    return ax, ax.figure


def column_names(estimator, n):
    """The names of the columns of fit, or x0, x1, ... where it saw none."""
    return list(getattr(estimator, "feature_names_in_", [f"x{j}" for j in range(n)]))


def coarse(estimator):
    """The estimator itself, or a copy whose log-densities are accurate enough for a plot."""
    if not hasattr(estimator, "ode_tol"):
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
