"""Which rows lie where a density can be positive: within the support that an estimator declares."""

import numpy as np
from sklearn.pipeline import Pipeline

from .._estimators.base import BaseInterpolant
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
    grid = estimator.model_.target_grid
    return support.contains(X, () if grid is None else grid.columns)


def support_within(estimator):
    """The support that an estimator declares; None where it declares none."""
    return estimator.model_.support if isinstance(estimator, BaseInterpolant) else None


def possible_rows(estimator, X):
    """Whether each row lies within the support, also of an estimator behind transformers."""
    if isinstance(estimator, Pipeline):
        inner = estimator[:-1].transform(X) if len(estimator) > 1 else X
        return possible_rows(estimator[-1], np.asarray(inner))
    if isinstance(estimator, TransformedDensity):
        inner, _ = forward(estimator.transformer_, X, strict=False)
        possible = np.isfinite(inner).all(1)
        possible[possible] = possible_rows(estimator.estimator_, inner[possible])
        return possible
    return possible_cells(estimator, X).all(1)
