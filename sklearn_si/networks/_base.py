"""What every field of the package offers, and the adapter of modules that offer less."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._utils.process import forward_tangents


class Field(nn.Module):
    """A vector field f(t, x, condition) on rows, with its divergence. A subclass defines `forward`."""

    def velocity_and_divergence(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """f(t, x) and its exact divergence, of shapes (n, d) and (n,); d forward tangents unless overridden."""
        return _by_tangents(self, t, x, condition)

    def instants(self, times: Tensor) -> Sequence[Callable[[Tensor], Tensor]] | None:
        """The field at each of some times as a function of x alone; None where nothing can be computed ahead."""
        return None

    def output_scale(self, t: Tensor) -> Tensor | None:
        """The size of the regression target at t, by which losses divide the residual; None for no division."""
        return None

    def as_score(self) -> nn.Module | None:
        """The score function of a denoiser that gives it without a division by gamma; None for all other fields."""
        return None


class ModuleField:
    """A module, or a function, of other people as a field.

    Parameters
    ----------
    function : callable
        f(t, x, condition). If it has a method `velocity_and_divergence`, this gives the divergence.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        # the only method that is looked for: a module may know its divergence
        self._own_divergence = getattr(function, "velocity_and_divergence", None)

    def velocity_and_divergence(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """f(t, x) and its exact divergence, of shapes (n, d) and (n,)."""
        if self._own_divergence is not None:
            return self._own_divergence(t, x, condition)
        return _by_tangents(self.function, t, x, condition)

    def instants(self, times: Tensor) -> None:
        """Nothing is known ahead."""

    def as_score(self) -> None:
        """Nothing is known of a score."""


def as_field(field: Any) -> Field | ModuleField:
    """The field itself, or the adapter of a module or function that is none."""
    return field if isinstance(field, Field) else ModuleField(field)


def velocity_and_divergence(
    network: Callable[..., Any], t: Tensor, x: Tensor, condition: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A field with its exact divergence: by the module's own method of this name, or by d forward tangents.

    Parameters
    ----------
    network : callable
        f(t, x, condition), a module or a function.
    t : Tensor of shape () or (n,)
        Times.
    x : Tensor of shape (n, d)
        Rows.
    condition : Tensor of shape (n, c), default=None
        One row for each row of x.

    Returns
    -------
    value : Tensor of shape (n, d)
        f(t, x).
    divergence : Tensor of shape (n,)
        div f(t, x).
    """
    return as_field(network).velocity_and_divergence(t, x, condition)


def _by_tangents(function: Callable[..., Any], t: Tensor, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
    def row(time: Tensor, point: Tensor, extra: Tensor) -> Tensor:
        return function(time.reshape(1), point[None], None if condition is None else extra[None])[0]

    times = t.expand(x.shape[0])
    extras = x[:, :0] if condition is None else condition
    with forward_tangents():
        jacobian = torch.func.vmap(torch.func.jacfwd(row, argnums=1))(times, x, extras)
    return function(t, x, condition), jacobian.diagonal(dim1=1, dim2=2).sum(1)
