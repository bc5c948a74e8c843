"""The validation score of a network before it is trained, where the model is then a closed form."""

import torch

from ..networks import MixtureVelocity, PreconditionedField
from .weighting import first_rows, mean_by_weight


@torch.no_grad()
def closed_score(run):
    """The mean log-density of the validation rows by a model that is a closed form yet; None where it is none.

    It is what `run.likelihood_of` finds by a solve of the ODE.

    Parameters
    ----------
    run : Run
        Before its training.
    """
    field, problem = dict(run.networks).get("velocity"), run.problem
    if not isinstance(field, (PreconditionedField, MixtureVelocity)) or not problem.interpolant.is_linear:
        return None
    if field.network.output.any() or field.network.bias.any():
        return None
    weight = problem.target_weight
    rows = first_rows(weight, problem.target_val, run.n_validation_rows())
    value = mean_by_weight(field.closed_log_density(run.x1[rows]), weight, rows)
    return problem.group.mean_over_rows(value + mean_by_weight(run.log_jacobian(rows), weight, rows))
