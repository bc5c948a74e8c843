"""Fits that continue from the networks and maps of the fit before."""

import dataclasses

from .._model.fitted import FittedModel
from ..preprocessing._support import on_line, same_support
from .loop import History
from .masked_run import make_run


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """The fit that a new one continues from.

    Parameters
    ----------
    model : FittedModel
    history : History
    """

    model: FittedModel
    history: History


def warm_run(recipe, problem):
    """With a warm start, a run that continues from the fitted networks and maps; else None."""
    if problem.warm is None:
        return None
    model = problem.warm.model
    _check_warm_start(problem, model)
    if problem.interpolant.is_learned:  # the path continues as it was left
        problem.interpolant = model.interpolant
    target_map = model.target_map if model.masked_map is None else model.masked_map.on_line()
    maps = on_line(model.base_map), on_line(target_map)
    run = make_run(recipe, problem, None, maps=maps, networks=dict(model.learned))
    run.earlier = problem.warm.history
    return run


def _check_warm_start(problem, model):
    """Raise a ValueError for rows that do not fit the networks of the model."""
    n_old, n_new = model.n_features, problem.target.shape[1]
    way_out = "set warm_start=False, or fit a clone."
    if n_old != n_new:
        raise ValueError(
            f"warm_start=True continues from networks of {n_old} features, but X0 has {n_new} features: {way_out}"
        )
    if problem.two_samples != (model.base_map is not None):
        old, new = ("one", "two") if problem.two_samples else ("two", "one")
        raise ValueError(
            f"warm_start=True continues from a fit of {old} sample(s), but fit was given {new} sample(s): {way_out}"
        )
    if not same_support(problem.support, model.support):
        raise ValueError(
            f"warm_start=True continues from a fit with {model.support}, but this fit has {problem.support}: {way_out}"
        )
    n_old = 0 if model.condition_codec is None else model.condition_codec.n_outputs_
    n_new = 0 if problem.codec is None else problem.codec.n_outputs_
    if n_old != n_new or set(model.learned) != set(problem.fields):
        raise ValueError(
            f"warm_start=True continues from fields {tuple(model.learned)} with {n_old} encoded condition columns, "
            f"but this fit needs {problem.fields} with {n_new}: {way_out}"
        )
