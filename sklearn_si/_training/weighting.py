"""What the weights of rows change in a training: draws, means and moments."""

import numpy as np
import torch

from .._utils.tensors import FIT_STREAM, as_array, as_tensor
from .._utils.weights import effective_rows, part_of_weights, pass_by_weight, resampled, rows_by_weight
from ..distributed import SHARED_ROWS, strided
from .lazy_rows import is_large_map

# Part of the seed of what is resampled, apart from that of the split.
_RESAMPLING = 77


def spread_rows(X, train, weight):
    """The training rows, or all rows where a column (of few distinct values) is constant in them; and their weights."""
    numbers = train[strided(len(train), SHARED_ROWS)]
    rows = X[numbers]
    if (rows == rows[0]).all(axis=0).any():
        return X, weight
    return rows, part_of_weights(weight, numbers)


def stored_numbers(rows):
    """Which rows a model keeps: all, or some of those of a large file in memory."""
    return strided(len(rows), SHARED_ROWS) if is_large_map(rows) else slice(None)


def stored_rows(problem):
    """A copy (the caller may write in his own) of the rows that `sample` starts from, and their weights (or None).

    None for a normal base.
    """
    is_mirror = problem.interpolant.path_type == "mirror"
    rows, weight = (problem.target, problem.target_weight) if is_mirror else (problem.base, problem.base_weight)
    if rows is None:
        return None, None
    stored = stored_numbers(rows)
    return problem.group.rows(rows[stored]).copy(), part_of_weights(weight, stored)


def by_weight(weight, rows, most, seed, folds=1):
    """Some row numbers for what takes no weights: drawn by weight, as many as there are.

    Parameters
    ----------
    weight : ndarray or None
        Of all rows; None gives the first of the numbers as they are.
    rows : ndarray of int
    most : int
        Their largest number.
    seed : int
    folds : int, default=1
        As in `resampled`: copies of a row are in one fold.
    """
    if weight is None:
        return rows[:most]
    of_rows = weight[rows]
    n = min(most, max(2 * folds, len(rows)))
    return rows[resampled(of_rows, n, np.random.default_rng([seed, FIT_STREAM, _RESAMPLING]), folds)]


def n_effective_of(weight, rows):
    """The number of equal rows that would tell as much as some weighted ones, rounded; at least one."""
    return max(1, round(effective_rows(len(rows), part_of_weights(weight, rows))))


def first_rows(weight, rows, most):
    """The first of some rows that tell as much as a number of equal ones; all, where they tell less."""
    if weight is None:
        return rows[:most]
    return rows[: round(most * len(rows) / n_effective_of(weight, rows))]


def tensors_of(problem, base_rows, target_rows, device):
    """The weights of some rows of base and target, as tensors; None where all weigh the same."""
    ends = (problem.base_weight, base_rows), (problem.target_weight, target_rows)
    return tuple(None if weight is None else as_tensor(weight[rows], torch.float64, device) for weight, rows in ends)


def mean_by_weight(values, weight, rows):
    """The mean of values at some rows, by weight where there are weights: a number."""
    if weight is None:
        return float(values.mean())
    values = as_array(values, np.float64) if isinstance(values, torch.Tensor) else values
    return float(np.average(values, weights=weight[rows]))


def joined_weights(*parts):
    """The weights of rows of several samples, one in the mean over each; None where all rows weigh the same.

    Parameters
    ----------
    *parts : tuples of (ndarray or None, ndarray of int)
        The weights of a sample, and which of its rows are meant.
    """
    if all(weight is None for weight, _ in parts):
        return None
    found = [np.ones(len(rows)) if weight is None else weight[rows] for weight, rows in parts]
    return np.concatenate([weight / weight.mean() for weight in found if len(weight)])


def pilot_rows(n, weight, n_drawn, generator):
    """Numbers of some of n rows, drawn with replacement, by weight where there are weights."""
    if weight is None:
        return torch.randint(n, (n_drawn,), generator=generator, device=generator.device)
    return rows_by_weight(as_tensor(weight, torch.float64, generator.device), n_drawn, generator)


def pass_of(n, weight, generator):
    """The numbers of n rows in random order: each once, or as often as its weight says."""
    if weight is None:
        return torch.randperm(n, generator=generator, device=generator.device)
    return pass_by_weight(weight, generator)


def covariance(x0, x1):
    """That of paired rows, a feature."""
    return ((x0 - x0.mean(0)) * (x1 - x1.mean(0))).mean(0)
