"""Closed forms of fields, and the velocity and denoiser that follow from what was learned."""

import torch

from ..networks import ComposedVelocity, DenoiserOfScore, PreconditionedField
from ..networks._fields import NormalTransition
from ..preprocessing._masked import told_of_whole_rows

__all__ = ["compose", "normal_transition"]

# Ridge of the regression on the start row, and least variance of its residuals, in squared scaled units.
_RIDGE = 1e-6
_LEAST_VARIANCE = 1e-4


def compose(interpolant, learned):
    """The velocity and the denoiser (or None) from the learned fields."""
    if "masked" in learned:
        return learned["masked"].joint(told_of_whole_rows(learned["masked"].n_features)), None
    denoiser = learned.get("denoiser")
    if "score" in learned:
        denoiser = DenoiserOfScore(interpolant, learned["score"])
    if "velocity" in learned or "forecast" in learned:
        return learned.get("velocity", learned.get("forecast")), denoiser
    if not isinstance(denoiser, PreconditionedField | DenoiserOfScore):
        raise ValueError(
            "A network factory gives the denoiser without its score, so the velocity cannot be composed from it at "
            "both ends: use fields='b+eta' or network='mlp'."
        )
    return ComposedVelocity(interpolant, denoiser.as_score(), learned.get("drift")), denoiser


def normal_transition(run):
    """The least-squares regression of the rows of X1 on those of X0 in a run, with the covariance of its residuals."""
    problem = run.problem
    x0 = run.some(run.x0, problem.base_train, problem.target_weight).double().cpu()
    x1 = run.some(run.x1, problem.target_train, problem.target_weight).double().cpu()
    n, d = x0.shape
    rows = torch.cat([torch.ones((n, 1), dtype=x0.dtype), x0], 1)
    weights = torch.linalg.solve(rows.T @ rows + n * _RIDGE * torch.eye(d + 1, dtype=x0.dtype), rows.T @ x1)
    rest = x1 - rows @ weights
    covariance = rest.T @ rest / max(1, n - d - 1) + _LEAST_VARIANCE * torch.eye(d, dtype=x0.dtype)
    return NormalTransition(weights[0].float(), weights[1:].T.float(), covariance.float())
