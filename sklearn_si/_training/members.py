"""The further members of an ensemble: trained anew to reweighted rows, with the choices of the first."""

import dataclasses
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from .._model.ensemble import EnsembleModel
from .._utils.tensors import MEMBER_STREAM
from ..exceptions import FitDivergedError
from ..preprocessing._support import on_line
from .base_density import densities_of
from .calibrated import calibrated
from .masked_run import make_run
from .model_error import SHARE_OF_MIXTURE, error_scale, mixture_of


def check_members(recipe, base, interpolant):
    """Raise a ValueError for fits that have no ensemble."""
    if recipe.n_estimators == 1:
        return
    given = f"n_estimators={recipe.n_estimators}"
    if base is not None and not densities_of(recipe.base_density, recipe.target_density)[1]:
        raise ValueError(
            f"Got {given}, but an ensemble learns the density of one sample: call fit(X), leave base_density='auto' "
            "(the density of X1 is then an ensemble), or leave n_estimators=1."
        )
    if interpolant.path_type == "mirror":
        raise ValueError(f"Got {given}, but interpolant='mirror' knows no density: use 'linear', or n_estimators=1.")
    if recipe.conditionals is not None:
        raise ValueError(
            f"Got {given} with conditionals={recipe.conditionals!r}, whose members would answer for other "
            "distributions of what is given: use n_estimators=1, or conditionals=None."
        )


def n_trainings(recipe):
    """Long trainings of a fit: one for each member, and of an ensemble one to its draws and a mixture."""
    return recipe.n_estimators + (1 + SHARE_OF_MIXTURE) * (recipe.n_estimators > 1)


def with_members(recipe, problem, settings, first, model):
    """The model with the further members of an ensemble; the model itself where it is to be the only one.

    The rows of a member have independent exponential weights (the Bayesian bootstrap: Rubin 1981, "The Bayesian
    bootstrap"), its networks start from another seed, and maps of each column and closed forms are fitted to its own
    rows. Affine maps, the kind of the map, dropout and the number of steps are those of the first, and so are the
    held-out rows.

    Parameters
    ----------
    recipe : Recipe
    problem : Problem
    settings : Settings
        Of a member.
    first : Run
        What the first member was learned by.
    model : FittedModel
        The first member.
    """
    if recipe.n_estimators == 1 or problem.two_samples:
        return model
    models, runs, history = [model], [first], first.history
    if settings.max_time is None and history is not None:
        settings = dataclasses.replace(settings, max_iter=max(1, first.steps + history.n_iter))
    for number in range(1, recipe.n_estimators):
        if problem.interrupted or (history is not None and history.interrupted):
            break
        with problem.interruptible(lambda: True, "between the members of its ensemble: those so far are kept."):
            fitted, run = _member(recipe, problem, settings, first, number)
            history = run.history
            models += [fitted] if fitted is not None else []
            runs += [run] if fitted is not None else []
    return EnsembleModel.of(models, error_scale(recipe, problem, settings, models, runs)) if models[1:] else model


def _member(recipe, problem, settings, first, number):
    """One more member, or None where it diverged, and its run."""
    own = _reweighted(problem, number)
    run = _run_of_member(recipe, own, first, number)
    try:
        history = run.train(settings, name="member", dropout=first.dropout)
    except FitDivergedError as error:
        warnings.warn(
            f"Member {number + 1} of the ensemble diverged and is left out: {error}", ConvergenceWarning, stacklevel=6
        )
        return None, run
    problem.n_steps += own.n_steps
    fitted, _ = run.fitted(history, None)
    return calibrated(run, fitted, settings.batch_size * own.n_steps), run


def _run_of_member(recipe, own, first, number):
    """The run of a member: a map of each column, which is most of its density, is fitted to its own rows."""
    warm = () if own.warm is None else own.warm.model.members
    if number < len(warm):
        old = warm[number]
        return make_run(recipe, own, first.kind, maps=(None, on_line(old.target_map)), networks=dict(old.learned))
    base = first if first.has_data_units else make_run(recipe, own, first.kind)
    return make_run(recipe, own, first.kind, mixture_of(first, base, own), like=base)


def _reweighted(problem, number):
    """The problem of a member: another seed, and other weights of the rows that train."""
    rng = np.random.default_rng([problem.seed, MEMBER_STREAM, number])
    weight = np.ones(len(problem.target)) if problem.target_weight is None else problem.target_weight.copy()
    # rows that validate stay as they are
    weight[problem.target_train] *= rng.standard_exponential(len(problem.target_train))
    return dataclasses.replace(problem, target_weight=weight, seed=int(rng.integers(2**31)), n_steps=0)
