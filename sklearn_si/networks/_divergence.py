"""The exact divergence of fields and networks: closed for perceptrons, by tangents for the modules of others."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._utils.process import forward_tangents

# Rows times features times width of one block of tangents, small enough for the cache.
_TANGENT_BLOCK = 2**19
# Features times width squared of one block of products of weights.
_PRODUCT_BLOCK = 2**19


class Field(nn.Module):
    """A vector field f(t, x, condition) on rows, with its divergence. A subclass defines `forward`."""

    def velocity_and_divergence(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """f(t, x) and its exact divergence, of shapes (n, d) and (n,); d forward tangents unless overridden."""
        return _by_tangents(self, t, x, condition)

    def instants(self, times: Tensor, condition: Tensor | None = None) -> Sequence[Callable[[Tensor], Tensor]] | None:
        """The field at each of some times as a function of x alone; None where nothing can be computed ahead.

        Parameters
        ----------
        times : Tensor of shape (k,)
        condition : Tensor of shape (n, c), default=None
            One row for each row of every x.
        """
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

    def instants(self, times: Tensor, condition: Tensor | None = None) -> None:
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


def jacobian_trace(weights: Sequence[Tensor], output: Tensor, slopes: Sequence[Tensor]) -> Tensor:
    """The trace of the Jacobian of a perceptron at each row, of shape (n,), from the slopes of its layers.

    J = W_o D_L W_L ... D_1 W_1,    D_k = diag(slopes_k)

    It is closed for one and two layers, taken from both sides of the middle one for three, and by tangents beyond.

    Parameters
    ----------
    weights : sequence of Tensor
        Matrices of the layers; the first columns of the first one belong to x.
    output : Tensor of shape (d, width of the last layer)
    slopes : sequence of Tensor of shape (n, width)
        Derivatives of the activations of each layer with respect to W_k h, at each row.
    """
    first, last = weights[0][:, : len(output)], output
    if len(slopes) == 1:
        return slopes[0] @ (last.T * first).sum(1)
    if len(slopes) == 2:
        return ((slopes[0] @ ((first @ last) * weights[1].T)) * slopes[1]).sum(1)
    if len(slopes) == 3:
        return _trace_from_the_middle(weights, output, *slopes)
    rows = max(1, _TANGENT_BLOCK // (first.shape[1] * max(w.shape[0] for w in weights)))
    blocks = zip(*(s.split(rows) for s in slopes), strict=True)
    return torch.cat([_trace_by_tangents(weights, output, block) for block in blocks])


def divergence_along(weights: Sequence[Tensor], output: Tensor, slopes: Sequence[Tensor], tangents: Tensor) -> Tensor:
    """The divergence of a perceptron of features of y at each row, of shape (n,).

    Parameters
    ----------
    weights, output, slopes
        As in `jacobian_trace`.
    tangents : Tensor of shape (n, d, n_features)
        The derivatives of the features by y.
    """
    rows = max(1, _TANGENT_BLOCK // (len(output) * max(w.shape[0] for w in weights)))
    blocks = zip(tangents.split(rows), *(s.split(rows) for s in slopes), strict=True)
    return torch.cat([_along(weights, output, own, some) for own, *some in blocks])


def _along(weights: Sequence[Tensor], output: Tensor, tangents: Tensor, slopes: Sequence[Tensor]) -> Tensor:
    tangents = nn.functional.linear(tangents, weights[0])
    for w, s in zip(weights[1:], slopes[:-1], strict=True):
        tangents = nn.functional.linear(tangents * s[:, None, :], w)
    return torch.einsum("rjk,jk,rk->r", tangents, output, slopes[-1])


def _trace_from_the_middle(
    weights: Sequence[Tensor], output: Tensor, first: Tensor, middle: Tensor, last: Tensor
) -> Tensor:
    # tr J = sum_j s_2j sum_i U_ij V_ij, with U_i = W_2 (s_1 * W_1[:, i]) and V_i = W_3^T (s_3 * W_o[i, :])
    inward, to_middle, from_middle = weights
    inward = inward[:, : len(output)]
    size = max(1, _PRODUCT_BLOCK // to_middle.numel())
    trace = torch.zeros_like(first[:, 0])
    for a, o in zip(inward.T.split(size), output.split(size), strict=True):
        left = (a[:, None, :] * to_middle).flatten(0, 1)
        right = (o[:, None, :] * from_middle.T).flatten(0, 1)
        rows = max(1, _TANGENT_BLOCK // (4 * len(left)))
        blocks = zip(first.split(rows), middle.split(rows), last.split(rows), strict=True)
        trace = trace + torch.cat([
            ((s1 @ left.T * (s3 @ right.T)).view(len(s1), len(a), -1).sum(1) * s2).sum(1) for s1, s2, s3 in blocks
        ])  # fmt: skip
    return trace


def _trace_by_tangents(weights: Sequence[Tensor], output: Tensor, slopes: Sequence[Tensor]) -> Tensor:
    # tangents[r, j, :] is the derivative of the layer with respect to x_j in row r
    tangents = slopes[0][:, None, :] * weights[0].T[: len(output)]
    for w, s in zip(weights[1:-1], slopes[1:-1], strict=True):
        tangents = nn.functional.linear(tangents, w) * s[:, None, :]
    inner = nn.functional.linear(tangents, weights[-1])
    return torch.einsum("rjk,jk,rk->r", inner, output, slopes[-1])
