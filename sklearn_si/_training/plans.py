"""Plans of all training rows, and the closed form of the optimal map around which a velocity is learned."""

import numpy as np
import torch

from .._utils.tensors import FIT_STREAM, as_array, make_generator
from ..couplings import Optimal, Samples, gaussian_matrix
from ..networks._transport import TransportVelocity
from .weighting import covariance

# Share of `max_time` in which the plan of all training rows is made.
_PLAN_SHARE = 0.25


def coupling_of(run, for_training, rows):
    """The coupling of the training rows or of the held-out ones, by a plan of all training rows where it has one.

    Parameters
    ----------
    run : Run
        Its `plan` is set with the training rows, which come first.
    for_training : bool
    rows : tuple
        What `Samples` are made of; base and target may be rows that are not in memory.
    """
    problem, coupling = run.problem, run.problem.coupling
    in_memory = torch.is_tensor(rows[0]) and torch.is_tensor(rows[1])
    if coupling.needs_all_rows and not in_memory:
        raise ValueError(
            f"{type(coupling).__name__} was asked for one plan of all rows (method='semidiscrete', or unbalanced=), "
            "but the samples are memory-mapped files: load them, np.array(X), or use method='batches'."
        )
    if not coupling.pooled or problem.group.size > 1 or not in_memory:
        return coupling
    rows = Samples(*rows)
    generator = make_generator(problem.seed, FIT_STREAM + 450, run.device)
    if not for_training:
        return coupling if run.plan is None else run.plan.held_out(rows, generator)
    if run.plan is None:
        limit = run.recipe.max_time
        run.plan = coupling.planned(rows, generator, None if limit is None else _PLAN_SHARE * limit)
        if run.recipe.verbose and run.plan.told:
            print(f"Rows are paired by {run.plan.told}")
    return run.plan


def start_weights(run, weight):
    """The weights by which `sample` draws rows of the base: those of fit, times the masses that a plan leaves them.

    Parameters
    ----------
    run : Run
    weight : ndarray or None
        Of all rows of the base, in fit.
    """
    if run.plan is None or not run.plan.changes_marginals:
        return weight
    masses = as_array(run.plan.start_masses(run.x0), np.float64)
    return masses / masses.mean() if weight is None else weight * masses / np.average(masses, weights=weight)


def pair_covariance(run, x0, x1, n):
    """The covariance of the ends in each column under the coupling of training, from some rows of both; None is 0."""
    problem = run.problem
    if problem.coupling.row_by_row:
        return covariance(x0, x1)
    if not problem.coupling.pooled or has_optimal_start(run):
        return None
    generator = make_generator(problem.seed, FIT_STREAM + 400, run.device)
    sampler = run.sampler_of(problem.base_train, problem.target_train)
    return problem.group.average(covariance(*sampler.draw(n, generator)[:2]))


def has_optimal_start(run):
    """Whether the velocity is learned around the optimal map between two normal distributions."""
    problem, path = run.problem, run.problem.interpolant
    optimal = isinstance(problem.coupling, Optimal) and not problem.coupling.changes_marginals
    return optimal and path.is_linear and not path.has_noise and problem.codec is None


def optimal_velocity(run, network, x0, x1):
    """The velocity around the optimal map between normal distributions with the moments of some rows of both ends."""
    means = torch.stack([x0.double().mean(0), x1.double().mean(0)]).cpu()
    variances = torch.stack([x.double().var(0, correction=0).mean() for x in (x0, x1)]).clamp(min=1e-6).cpu()
    return TransportVelocity(
        run.problem.interpolant, network, means.float(), gaussian_matrix(x0, x1).float(), variances.float()
    )
