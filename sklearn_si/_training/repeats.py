"""Columns of repeated values in the samples of a fit: noise within their cells, or a warning."""

import warnings

import numpy as np

from .._utils.callers import users_level
from .._utils.tensors import REPEATS_STREAM
from ..preprocessing._grids import ColumnGrid, Grid, chosen_columns, describe_repeats, repeated_columns
from ..preprocessing._support import bounds_of


def dequantized(X, dequantize, names, rng, group, support=None):
    """A sample with noise within the cells of its repeated values, and the grid of these (None without such columns).

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
    dequantize : None, "auto" or list
        The parameter of the estimators.
    names : sequence
        Of the columns.
    rng : numpy Generator
    group : Single or Group
        The processes that fit together: they have one grid.
    support : Support, default=None
        Where the columns live, beyond which no cell reaches.
    """
    told = group.objects(chosen_columns(dequantize, X, names))
    columns = sorted(set().union(*told))
    if not columns:
        return X, None
    values = group.objects([np.unique(X[:, j]) for j in columns])
    grid = Grid({
        j: ColumnGrid.of(np.concatenate(parts), *bounds_of(support, j))
        for j, parts in zip(columns, zip(*values, strict=True), strict=True)
    })  # fmt: skip
    X = grid.scatter(X, rng)
    return X if support is None else support.inside(X, X.dtype).astype(X.dtype), grid


def dequantized_ends(X0, X1, dequantize, names, seed, group, is_forecast, support=None):
    """Both samples of a fit dequantised, and the grids of base and target; start rows of forecasts stay as they are."""
    (X0, grid0), (X1, grid1) = (
        (X, None)
        if X is None or (is_forecast and end == 0)
        else dequantized(X, dequantize, names, np.random.default_rng([seed, REPEATS_STREAM, end]), group, support)
        for end, X in enumerate((X0, X1))
    )
    return X0, X1, *((None, grid0) if X1 is None else (grid0, grid1))


def warn_repeats(samples, names, dequantize, ways_out):
    """Warn of columns whose repeated values have no density, once for all samples.

    Parameters
    ----------
    samples : dict of ndarray
        Those of which a density is promised, by name.
    names : sequence
        Of the columns.
    dequantize : None, "auto" or list
        What it covers is not told.
    ways_out : str
        What else to do.
    """
    told = []
    for name, X in samples.items():
        covered = set(chosen_columns(dequantize, X, names))
        repeats = [column for column in repeated_columns(X) if column.position not in covered]
        if repeats:
            told.append(f"{describe_repeats(repeats, names)} of {name}")
    if told:
        warnings.warn(
            f"Repeated values: {'; '.join(told)}. Such columns have no density: the log-likelihood then depends "
            f"on how narrow the model's peaks are, and on the scaling. {ways_out}",
            UserWarning,
            stacklevel=users_level(),
        )
