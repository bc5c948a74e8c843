"""Time that is left when a table overfits: further networks, whose mean velocity is taken."""

import copy
import dataclasses
import math
from typing import Any

import numpy as np

from .._utils.tensors import MEMBER_STREAM
from ..networks import FiLMNetwork, MixtureVelocity, PreconditionedField
from ..networks._averaged import AveragedNetwork
from .masked_run import make_run

# Share of the time that must be left for one more network.
_LEAST_LEFT = 0.1
# Largest number of further networks: each that is kept adds as much to the price of a density.
_MOST_NETWORKS = 3
# Steps of a further network at the least.
_FEWEST_STEPS = 200
# Networks in succession that bring nothing, after which no other is trained.
_IN_VAIN = 2
# Part of the seeds of further networks, apart from those of the members of an ensemble.
_APART = 20_000


def can_average(selection: Any) -> bool:
    """Whether time is the limit, and the networks of a selection are ours, of one sample, in one process."""
    recipe, problem = selection.recipe, selection.problem
    if recipe.max_time is None or recipe.max_iter != "auto":
        return False
    if recipe.n_estimators > 1 or problem.group.size > 1 or set(problem.fields) != {"velocity"}:
        return False
    field = selection.best().networks["velocity"]
    return type(field) in (PreconditionedField, MixtureVelocity) and type(field.network) is FiLMNetwork


def average_more(selection: Any) -> None:
    """Train networks anew in what is left of the time, and enter the run of their mean where it scores higher.

    A run that overfits has ended before its time. Each further one starts from a seed of its own, with the map, the
    closed form and the dropout of the best, and its rate falls to zero where the best was best. Of their velocities

    b(t, x) = (1 / m) sum_k b_k(t, x)

    is taken: a velocity is a conditional expectation, and what its estimates have learned of the noise of the rows
    differs between them. (The mixture of their distributions is what `n_estimators` gives.)
    """
    best = selection.best()
    members, score, in_vain = [best], best.history.best_score, 0
    further: list[Any] = []
    while len(further) < _MOST_NETWORKS and in_vain < _IN_VAIN and _has_time(selection):
        run = _one_more(selection, best)
        if run is None or selection.interrupted:
            break
        further.append(run)
        # the first may be none too many: it was best while its rate was high
        value, chosen = max(((_score_of(some), some) for some in ([*members, run], further)), key=lambda pair: pair[0])
        in_vain = 0 if value > score else in_vain + 1
        if selection.settings.verbose:
            told = f"the mean of {len(chosen)} has" if value > score else "not kept, as its mean with the others has"
            print(f"Time is left: one more network, {told} validation score {value:.4f} (best before {score:.4f})")
        if value > score:
            members, score = list(chosen), value
    if selection.settings.verbose and in_vain == _IN_VAIN and _has_time(selection):
        print(f"Ends before its time: {_IN_VAIN} further networks in succession brought held-out rows nothing")
    elif selection.settings.verbose and len(further) == _MOST_NETWORKS and _has_time(selection):
        print(f"Ends before its time: {_MOST_NETWORKS} further networks were trained, the largest number")
    if len(members) > 1:
        selection.runs.append(_average_of(members, score))


def _has_time(selection: Any) -> bool:
    return not selection.interrupted and selection.left() > _LEAST_LEFT


def _one_more(selection: Any, best: Any) -> Any:
    """A run from another seed, as long as what led to the best weights; None where it diverged."""
    problem, number = selection.problem, len(selection.problem.trainings)
    seed = int(np.random.default_rng([problem.seed, MEMBER_STREAM, _APART + number]).integers(2**31))
    own = dataclasses.replace(problem, seed=seed, n_steps=0)
    run = make_run(selection.recipe, own, best.kind, best.mixture, like=best, number=number)
    # its rate is to reach zero where the best weights were found, at a rate that was still high
    steps = max(_FEWEST_STEPS, best.kept_steps + best.history.best_step)
    settings = selection.settings_of_long_run(max_iter=steps)
    trained = selection.trained(run, settings, dropout=best.dropout)
    problem.n_steps += own.n_steps
    return trained


def _score_of(runs: list) -> float:
    """The validation score of the mean of some."""
    run = runs[0] if len(runs) == 1 else _average_of(runs)
    return run.likelihood_of(run.problem.target_val)()


def _average_of(runs: list, score: float = -math.inf) -> Any:
    """A run with the mean of the velocities of some, which share maps, rows and closed form; its score."""
    averaged = copy.copy(runs[0])
    averaged.history = dataclasses.replace(averaged.history, best_score=score)
    averaged.networks = copy.deepcopy(averaged.networks)
    networks = [copy.deepcopy(run.networks["velocity"].network) for run in runs]
    averaged.networks["velocity"].network = AveragedNetwork(networks)
    return averaged
