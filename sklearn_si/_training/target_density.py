"""The density of the target of a bridge, learned from the target alone in the same fit."""

import dataclasses
import time

from .._model.target_density import ModelWithTarget
from .._utils.callbacks import NO_TASKS
from ..couplings import Independent
from .base_density import densities_of
from .loop import History
from .paths import make_path
from .warm_start import WarmStart

# Parts of the time of a bridge that the density of its target has, where transport has one: a log-likelihood goes on
# rising long after draws have ceased to improve.
_PARTS_OF_TARGET = 2


def share_of_transport(spec, has_target):
    """The share of the time that transport has, and the density of the base if it is learned; the target has the rest.

    Parameters
    ----------
    spec, has_target
        What `wanted_densities` returns.
    """
    return 1 / (1 + (spec == "flow") + _PARTS_OF_TARGET * has_target)


def wanted_densities(recipe, problem):
    """As `densities_of`; nothing where the density at the base is known, or neither end has one."""
    # an encoding-decoding path passes through a normal distribution, from which either end's density follows
    known_middle = problem.interpolant.gaussian_time is not None
    if not problem.two_samples or problem.is_forecast:
        return None, False
    spec, is_own = densities_of(recipe.base_density, recipe.target_density)
    if known_middle:
        return None, recipe.target_density == "flow"
    return spec, is_own


def with_target(recipe, problem, model, fit):
    """The model of a bridge with the density of its target, as a fit of one sample with the same parameters has it.

    Parameters
    ----------
    recipe : Recipe
    problem : Problem
        Of the bridge.
    model : FittedModel
    fit : callable
        fit(recipe, problem) -> the fitted model and how its training went.
    """
    limit = recipe.max_time
    own = dataclasses.replace(
        recipe,
        interpolant="linear",
        gamma="auto",
        gamma_scale=1.0,
        coupling="independent",
        fields="auto",
        base_density=None,
        learns_denoiser=False,
        # all that is left: transport may have ended before its time
        max_time=None if limit is None else problem.left(limit),
    )
    target = None
    with problem.interruptible(lambda: True, "in the density of its target: `score_samples` has none."):
        target, _ = fit(own, _of_target(own, problem))
    return model if target is None else ModelWithTarget.of(model, target)


def _of_target(recipe, problem):
    """The problem of one sample: the target, with its condition, weights and held-out rows."""
    warm = None if problem.warm is None else problem.warm.model.target_model
    return dataclasses.replace(
        problem, base=None, base_train=None, base_val=None, base_weight=None, base_grid=None,
        interpolant=make_path(recipe, False), coupling=Independent(), fields=("velocity",), density=None,
        warm=None if warm is None else WarmStart(warm, History()), awaits_density=True, trainings=[], n_steps=0,
        checkpoint=problem.checkpoint.part("target density"), began=time.perf_counter(), tasks=NO_TASKS,
    )  # fmt: skip
