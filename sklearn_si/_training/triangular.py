"""Triangular maps of one sample: when they are tried, and how long they are fitted."""

import numpy as np
import torch

from ..preprocessing import MARGINAL, TRIANGULAR, fit_one_sample_map
from ..preprocessing._triangular import Effort, TriangularMap, fit_residuals, triangular_with, units_of
from .weighting import spread_rows

# Largest number of columns: the way back takes as many evaluations of the network of the map.
_MOST_COLUMNS = 24
# Training rows below which none is tried.
_FEWEST_ROWS = 200
# Share of the time of a fit that it takes, and of its gradient steps, where these are the limit.
_SHARE = 0.05
_SHARE_OF_STEPS = 0.5
# The same, once it is chosen.
_LONGER = 3.0
# Largest number of its steps, which are a fifth as long as those of a fit.
_MOST_STEPS = 1500
# Largest number of rows that it is fitted to.
_MOST_ROWS = 100_000
# Rows that are mapped in a second.
_ROWS_A_SECOND = 200_000


def _effort(limits, factor):
    """How long a triangular map is fitted, by the steps and the seconds of a fit."""
    max_iter, max_time = limits
    if max_time is not None:
        return Effort(seconds=factor * _SHARE * max_time)
    return Effort(steps=max(1, round(factor * min(_MOST_STEPS, _SHARE_OF_STEPS * max_iter))))


def is_worth_trying(recipe, problem):
    """Whether a triangular map is tried by preprocessing="auto"."""
    n, d = problem.target.shape
    if recipe.affine_only or recipe.conditionals is not None or recipe.circular or problem.codec is not None:
        return False
    if not 1 < d <= _MOST_COLUMNS or problem.n_effective < _FEWEST_ROWS:
        return False
    return recipe.max_time is None or n <= _ROWS_A_SECOND * _SHARE * problem.limits[1]


def one_sample_map(problem, rows, kind, weight, circular):
    """The map of training rows of one sample; of one column, a triangular map is a marginal one."""
    if kind == TRIANGULAR and rows.shape[1] > 1:
        return _triangular_map(problem, rows, weight)
    return fit_one_sample_map(rows, MARGINAL[0] if kind == TRIANGULAR else kind, weight, circular)


def longer_map(problem, start):
    """A triangular map whose network was trained for longer."""
    rows, weight = spread_rows(problem.target, problem.target_train, problem.target_weight)
    return _triangular_map(problem, problem.group.rows(rows), weight, start)


def _triangular_map(problem, rows, weight, start: TriangularMap | None = None):
    """The triangular map of training rows, the same in all processes and after a fit that was cut off.

    Parameters
    ----------
    problem : Problem
    rows : ndarray of shape (n_samples, n_features)
    weight : ndarray of shape (n_samples,) or None
    start : TriangularMap, default=None
        One whose network is trained for longer.
    """

    def fit():
        effort, found = _effort(problem.limits, 1.0 if start is None else _LONGER), None
        if start is not None:
            found = start.order, start.weights
        some = slice(_MOST_ROWS)
        own = None if weight is None else weight[some]
        order, weights = fit_residuals(units_of(rows, weight).transform(rows[some]), own, effort, problem.seed, found)
        return torch.from_numpy(order), [torch.from_numpy(w) for w in weights]

    name = f"triangular map {problem.seed}" + ("" if start is None else ", longer")
    order, weights = problem.group.first(lambda: problem.checkpoint.made(name, fit))
    return triangular_with(rows, weight, np.asarray(order), [np.asarray(w) for w in weights])
