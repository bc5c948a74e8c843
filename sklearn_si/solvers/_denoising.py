"""The denoiser recursion, which solves the ODE of a model with a standard normal base."""

import itertools
from typing import Protocol

from torch import Tensor


class DenoisingPath(Protocol):
    """A path x_t = alpha(t) z + beta(t) x1, as the denoiser recursion needs it."""

    @property
    def path_type(self) -> str:
        """The type of the path, "one-sided" for a standard normal base."""

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of the base."""

    def beta(self, t: Tensor) -> Tensor:
        """Weight of x1."""


class DenoisingFields(Protocol):
    """The fields of a model that the denoiser recursion needs."""

    @property
    def interpolant(self) -> DenoisingPath:
        """The path."""

    def denoiser(self, t: Tensor, x: Tensor) -> Tensor:
        """The denoiser eta(t, x) = E[z | x_t = x]."""

    def target(self, t: Tensor, x: Tensor) -> Tensor:
        """The mean target eta_1(t, x) = E[x1 | x_t = x]."""


def denoising_steps(fields: DenoisingFields, x: Tensor, times: Tensor) -> Tensor:
    """Solve the ODE of a model with a standard normal base by the denoiser recursion.

    x_{j+1} = alpha_{j+1} eta(t_j, x_j) + beta_{j+1} eta_1(t_j, x_j)

    (arXiv 2303.08797, equations (5.13) and (5.14)), where eta = E[z | x_t] and eta_1 = E[x1 | x_t].

    Parameters
    ----------
    fields : DenoisingFields
        The fields of a one-sided interpolant.
    x : Tensor of shape (n, d)
        The state at times[0].
    times : Tensor of shape (k,)
        The grid.

    Returns
    -------
    state : Tensor of shape (n, d)
        The state at times[-1].

    Raises
    ------
    ValueError
        When the interpolant is not one-sided.
    """
    path = fields.interpolant
    if path.path_type != "one-sided":
        raise ValueError(
            f"solver='denoising' needs a standard normal base, but the interpolant is {path.path_type!r}: fit one "
            "sample, or use solver='auto'."
        )
    for t, t_next in itertools.pairwise(times.to(x)):
        x = path.alpha(t_next) * fields.denoiser(t, x) + path.beta(t_next) * fields.target(t, x)
    return x
