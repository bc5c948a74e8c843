"""The ratio of the densities of both samples of a fit, beside the fields that are learned from them."""

import dataclasses
from typing import Any

from .._model.fitted import FittedModel
from .._utils.weights import part_of_weights
from ..distributed import strided
from .ratio import RatioEffort, fit_ratio

# Share of `max_time` that the ratio may take.
SHARE_OF_RATIO = 0.15
# Steps of the networks of the ratio for one of the fields, where `max_time` is not the limit.
_SHARE_OF_STEPS = 3
# Rows of each sample, at the most.
_MOST_ROWS = 2**15


def learns_ratio(problem: Any) -> bool:
    """Whether the fit is one of two samples whose ratio can be asked for: without a condition, in one process."""
    gives_score = problem.fields != ("velocity",) and not problem.is_forecast
    return problem.two_samples and gives_score and problem.codec is None and problem.group.size == 1


def with_ratio(problem: Any, model: FittedModel, max_iter: float, max_time: float | None) -> FittedModel:
    """The model with the ratio of its densities, as the steps or the time of the fit allow."""
    if not learns_ratio(problem):
        return model
    # the parts before may have taken longer than theirs
    seconds = None if max_time is None else min(SHARE_OF_RATIO * max_time, problem.left(max_time))
    effort = RatioEffort(int(max_iter) // _SHARE_OF_STEPS, seconds)
    ends = (problem.base, problem.base_weight), (problem.target, problem.target_weight)
    chosen = [strided(len(rows), _MOST_ROWS) for rows, _ in ends]
    rows = [X[some] for (X, _), some in zip(ends, chosen, strict=True)]
    weights = tuple(part_of_weights(weight, some) for (_, weight), some in zip(ends, chosen, strict=True))
    ratio = None
    with problem.interruptible(lambda: True, "in the ratio of its densities, which is integrated from the fields."):
        ratio = fit_ratio(rows[0], rows[1], problem.seed, effort, weights)
    return dataclasses.replace(model, ratio=ratio)
