"""Which rows lie where a density can be positive: within the support that an estimator declares."""

import numpy as np
from sklearn.pipeline import Pipeline

from .._estimators.base import BaseInterpolant
from .._utils.input_checks import names_of_fit
from .._utils.row_numbers import numbered
from ..compose import TransformedDensity
from ..preprocessing._foreign import forward


def possible_cells(estimator, X):
    """Whether each cell lies within the support of its column; all do where the estimator declares none itself.

    Parameters
    ----------
    estimator : estimator
        A fitted density.
    X : ndarray of shape (n, d)
    """
    support = support_within(estimator)
    if support is None:
        return np.ones(X.shape, dtype=bool)
    support.of_circles().check(X, "X", names_of_fit(estimator))
    grid = estimator.model_.target_grid
    return support.contains(X, () if grid is None else grid.columns)


def support_within(estimator):
    """The support that an estimator declares; None where it declares none."""
    return estimator.model_.support if isinstance(estimator, BaseInterpolant) else None


def possible_rows(estimator, X):
    """Whether each row lies within the support, also of an estimator behind transformers."""
    estimator, inner, known = _innermost(estimator, X)
    known[known] = possible_cells(estimator, inner).all(1)
    return known


def refuse_impossible(estimator, X):
    """Raise a ValueError that names the column where a row of fit lies outside the support of an estimator."""
    estimator, inner, known = _innermost(estimator, X)
    support = support_within(estimator)
    if support is not None:
        grid, names = estimator.model_.target_grid, names_of_fit(estimator)
        with numbered({"X": np.flatnonzero(known)}):
            support.check(inner, "X", names, () if grid is None else grid.columns)


def _innermost(estimator, X):
    """The density behind transformers, the images of the rows that have one, and which rows these are."""
    if isinstance(estimator, Pipeline):
        inner = estimator[:-1].transform(X) if len(estimator) > 1 else X
        return _innermost(estimator[-1], np.asarray(inner))
    if isinstance(estimator, TransformedDensity):
        inner, _ = forward(estimator.transformer_, X, strict=False)
        known = np.isfinite(inner).all(1)
        density, images, also = _innermost(estimator.estimator_, inner[known])
        known[known] = also
        return density, images, known
    return estimator, X, np.ones(len(X), dtype=bool)
