"""Rows that are far outside those of fit, of which a bridge is asked."""

import warnings

import numpy as np

from .._utils.callers import users_level

# Largest distance beyond the rows of fit, as a share of their range; that of conditions is the same.
_FAR = 0.5
# Largest number of columns that a warning names.
_FEW = 5


def ranges_of(*samples):
    """The least and the largest value of each column of some samples, of shape (2, n_features) each."""
    return [np.stack([X.min(axis=0), X.max(axis=0)]).astype(np.float64) for X in samples]


def warn_of_far(X, limits, names, end):
    """Warn of columns with rows far outside those of fit, which closed forms and networks extrapolate.

    Parameters
    ----------
    X : ndarray of shape (n, n_features)
    limits : ndarray of shape (2, n_features) or None
        Of `ranges_of`; None says nothing.
    names : sequence
        Of the columns.
    end : str
        What rows of fit these were.
    """
    if limits is None:
        return
    low, high = limits
    beyond = _FAR * (high - low)
    is_far = np.abs(X - (low + high) / 2) > (high - low) / 2 + beyond
    columns = np.flatnonzero(is_far.any(axis=0))
    if not len(columns):
        return
    told = []
    for j in columns[:_FEW]:
        rows = X[is_far[:, j], j]
        told.append(f"{names[j]!r} ({len(rows)} rows, such as {rows[0]:g}; fit had {low[j]:g} to {high[j]:g})")
    warnings.warn(
        f"Columns of X hold values far outside those of {end} in fit: {', '.join(told)}. Their partners are "
        "extrapolated: check them, or fit on rows that reach as far.",
        UserWarning,
        stacklevel=users_level(),
    )


def warn_of_far_cells(cells, masked_map, names, name):
    """Warn of given cells far outside those of fit, which tell the model no more than nearer ones.

    Parameters
    ----------
    cells : ndarray of shape (n, n_features)
        In data units; NaN where nothing is given.
    masked_map : MaskedMap
    names : sequence
        Of the columns.
    name : str
        What the rows are called.
    """
    far = masked_map.is_far(cells)
    columns = np.flatnonzero(far.any(axis=0))
    if not len(columns):
        return
    low, high = masked_map.range_of_fit()
    told = [f"{names[j]!r} ({cells[far[:, j], j][0]:g}; fit had {low[j]:g} to {high[j]:g})" for j in columns[:_FEW]]
    warnings.warn(
        f"Given columns of {name} hold values far outside those of fit: {', '.join(told)}. They are kept, and tell "
        "what values half that range beyond its end tell: check them, or fit on rows that reach as far.",
        UserWarning,
        stacklevel=users_level(),
    )
