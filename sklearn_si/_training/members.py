"""The further members of an ensemble: trained anew to reweighted rows, with the maps and the choices of the first."""

import dataclasses
import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from .._model.ensemble import EnsembleModel
from .._model.fields import Fields
from .._model.likelihood import GRID_SPACING, VALIDATION_LEVEL, density_parts
from .._utils.tensors import MEMBER_STREAM, as_array
from ..exceptions import FitDivergedError
from .calibrated import calibrated
from .loop import History
from .masked_run import make_run
from .weighting import by_weight

# Largest number of rows to which the mixture of a member is fitted.
_MIXTURE_ROWS = 20_000
# Largest number of held-out rows by which the spread of members is judged.
_SPREAD_ROWS = 500


def check_members(recipe, base, interpolant):
    """Raise a ValueError for fits that have no ensemble."""
    if recipe.n_estimators == 1:
        return
    given = f"n_estimators={recipe.n_estimators}"
    if base is not None:
        raise ValueError(
            f"Got {given}, but an ensemble learns the density of one sample: call fit(X), or leave n_estimators=1."
        )
    if interpolant.path_type == "mirror":
        raise ValueError(f"Got {given}, but interpolant='mirror' knows no density: use 'linear', or n_estimators=1.")
    if recipe.conditionals is not None:
        raise ValueError(
            f"Got {given} with conditionals={recipe.conditionals!r}, whose members would answer for other "
            "distributions of what is given: use n_estimators=1, or conditionals=None."
        )


def with_members(recipe, problem, settings, first, model):
    """The model with the further members of an ensemble; the model itself where it is to be the only one.

    The rows of a member have independent exponential weights (the Bayesian bootstrap: Rubin 1981, "The Bayesian
    bootstrap"), its networks start from another seed, and its closed form is fitted to its own rows. Maps, dropout and
    the number of steps are those of the first, and so are the held-out rows.

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
    if recipe.n_estimators == 1:
        return model
    problem.group.refuse("A model with n_estimators > 1")
    models, history = [model], first.history
    if settings.max_time is None and history is not None:
        settings = dataclasses.replace(settings, max_iter=max(1, first.steps + history.n_iter))
    for number in range(1, recipe.n_estimators):
        if problem.interrupted or models[-1] is None or (history is not None and history.interrupted):
            break
        with problem.interruptible(lambda: True, "between the members of its ensemble: those so far are kept."):
            fitted, history = _member(recipe, problem, settings, first, number)
            models += [fitted] if fitted is not None else []
    return EnsembleModel.of(models, spread_of(first, models) if len(models) > 1 else 0.0)


@torch.no_grad()
def spread_of(run, models):
    """The median, over held-out rows, of the standard deviation of the members' log-densities, in nats.

    Parameters
    ----------
    run : Run
        One with the maps and rows that the members share.
    models : list of FittedModel
        Two or more.
    """
    problem = run.problem
    held = problem.target_train if problem.target_val is None else problem.target_val
    rows = by_weight(problem.target_weight, held, _SPREAD_ROWS, problem.seed)
    condition = None if run.condition is None else run.condition[rows]
    values = []
    for model in models:
        fields = Fields(model.interpolant, model.velocity, model.denoiser, condition)
        parts, _ = density_parts(fields, run.x1[rows], 1.0, VALIDATION_LEVEL, GRID_SPACING, *model.anchor())
        values.append(parts.sum(1))
    return float(torch.stack(values).std(0).nanmedian())


def _member(recipe, problem, settings, first, number):
    """One more member, or None where it diverged, and the history of its training."""
    own = _reweighted(problem, number)
    warm = () if problem.warm is None else problem.warm.model.members
    mixture, networks = first.mixture, dict(warm[number].learned) if number < len(warm) else None
    if mixture is not None and networks is None:
        rows = by_weight(own.target_weight, own.target_train, _MIXTURE_ROWS, own.seed)
        mixture = mixture.refitted(as_array(first.x1[rows], np.float64), own.seed)
    run = make_run(recipe, own, first.kind, mixture, like=first, networks=networks)
    try:
        history = run.train(settings, name="member", dropout=first.dropout)
    except FitDivergedError as error:
        warnings.warn(
            f"Member {number + 1} of the ensemble diverged and is left out: {error}", ConvergenceWarning, stacklevel=6
        )
        return None, History()
    problem.n_steps += own.n_steps
    fitted, _ = run.fitted(history, None)
    return calibrated(run, fitted, settings.batch_size * own.n_steps), history


def _reweighted(problem, number):
    """The problem of a member: another seed, and other weights of the rows that train."""
    rng = np.random.default_rng([problem.seed, MEMBER_STREAM, number])
    weight = np.ones(len(problem.target)) if problem.target_weight is None else problem.target_weight.copy()
    # rows that validate stay as they are
    weight[problem.target_train] *= rng.standard_exponential(len(problem.target_train))
    return dataclasses.replace(problem, target_weight=weight, seed=int(rng.integers(2**31)), n_steps=0)
