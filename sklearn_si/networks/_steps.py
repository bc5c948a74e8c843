"""The network of one step of a flow with its log-density."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._utils.names import registered
from ._perceptrons import ACTIVATIONS, FiLMNetwork, _uniform

# The scale and the shift of each layer.
Scaled = list[tuple[Tensor, Tensor]]

# Rows of a block, and what the columns of a product are padded to: a product of matrices in single precision then has
# the same value for a row at every place of every batch.
_BLOCK = 256
_COLUMNS = 16


class _SiluAndSlope(torch.autograd.Function):
    """The activation a / (1 + exp(-a)) and its slope, with gradients in few passes."""

    @staticmethod
    def forward(ctx: Any, a: Tensor) -> tuple[Tensor, Tensor]:
        s = torch.sigmoid(a)
        h = a * s
        slope = torch.addcmul(s, h, 1 - s)
        ctx.save_for_backward(s, h, slope)
        return h, slope

    @staticmethod
    def backward(ctx: Any, of_value: Tensor, of_slope: Tensor) -> Tensor:
        s, h, slope = ctx.saved_tensors
        curvature = (1 - s).mul_(torch.addcmul(slope, s, 1 - h))
        return torch.addcmul(of_value * slope, of_slope, curvature)


@registered("networks.StepNetwork")
class StepNetwork(FiLMNetwork):
    """A FiLM network at one time, with outputs beside those of the state, and with products of its slopes.

    h_k = act(a_k),    a_k = s_k * (W_k h_{k-1}) + c_k,    F = W_o h_L + w_o + V prod_k (P_k act'(a_k) + p_k)

    A divergence is linear in the slopes act' of each layer, so that a product of this kind of high rank holds it for
    every x at once; its integral over a step is near to one.

    Parameters
    ----------
    n_features, n_conditions : int
        Number of columns of x, and of the condition.
    n_outputs : int
        Number of columns of F.
    hidden_layer_sizes : tuple of int
        Widths of the hidden layers.
    activation : {"silu", "tanh", "softplus"}
        The activation.
    time : float
        The time of its modulation.
    rank : int
        Number of products of slopes; 0 for none.
    generator : torch.Generator
        The source of the initial weights.
    """

    time: Tensor

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        hidden_layer_sizes: Sequence[int],
        activation: str,
        time: float,
        *,
        n_conditions: int = 0,
        rank: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(n_features, n_conditions, hidden_layer_sizes, activation, generator)
        self.output = nn.Parameter(torch.zeros(n_outputs, hidden_layer_sizes[-1]))
        self.bias = nn.Parameter(torch.zeros(n_outputs))
        sizes = hidden_layer_sizes if rank else ()
        self.factors = nn.ParameterList(_uniform((rank, m), math.sqrt(1 / m), generator) for m in sizes)
        self.shifts = nn.ParameterList(_uniform((rank,), math.sqrt(1 / m), generator) for m in sizes)
        self.products = nn.Parameter(torch.zeros(n_outputs, rank))
        self.register_buffer("time", torch.tensor(time))

    def modulation_of(self, x: Tensor, condition: Tensor | None = None) -> Scaled:
        """Scales and shifts of the layers: one for all rows without a condition."""
        inputs, _ = self.prepare(self.time, x, condition)
        return [(s, c) for s, c in self.modulate(inputs, x.dtype) if s is not None]

    def features(self, x: Tensor, modulation: Scaled) -> Tensor:
        """The last hidden layer and the products of slopes, side by side, of which F is an affine function."""
        (value_of, both_of), h = ACTIVATIONS[self.activation], x
        if not len(self.factors):
            for w, (s, c) in zip(self._matrices, modulation, strict=True):
                h = value_of(torch.addcmul(c, h @ w.T, s))
            return h
        if self.activation == "silu" and torch.is_grad_enabled():
            both_of = _SiluAndSlope.apply
        products = torch.ones_like(self.products[0])
        for w, factor, shift, (s, c) in zip(self._matrices, *self._factors, modulation, strict=True):
            h, slope = both_of(torch.addcmul(c, h @ w.T, s))
            products = products * torch.addmm(shift, slope, factor.T)
        return torch.cat([h, products], 1)

    def of_features(self, features: Tensor) -> Tensor:
        """F from the features."""
        return torch.addmm(self.bias, features, torch.cat([self.output, self.products], 1).T)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """F(x), of shape (n, n_outputs)."""
        return self.of_features(self.features(x, self.modulation_of(x, condition)))

    @functools.cached_property
    def _factors(self) -> tuple[tuple[nn.Parameter, ...], tuple[nn.Parameter, ...]]:
        # as the matrices: looking an entry up takes longer than a small product
        return tuple(self.factors), tuple(self.shifts)

    @torch.no_grad()
    def in_blocks(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """F(x) in the precision of the weights, the same for a row whatever its batch is."""
        dtype, n_outputs = self.bias.dtype, len(self.bias)
        weights = nn.functional.pad(torch.cat([self.output, self.products], 1), (0, 0, 0, -n_outputs % _COLUMNS))
        values, of_all = [], self.modulation_of(x[:1].to(dtype)) if condition is None else []
        for start in range(0, len(x), _BLOCK):
            rows = _block(x, start, dtype)
            modulation = of_all or self.modulation_of(rows, _block(condition, start, dtype))
            values.append((self.features(rows, modulation) @ weights.T)[:, :n_outputs])
        return torch.cat(values)[: len(x)] + self.bias


def _block(x: Tensor | None, start: int, dtype: torch.dtype) -> Tensor:
    """The rows of a block, with zeros for those that the last one lacks."""
    assert x is not None  # a condition that is not given has been taken for all rows
    some = x[start : start + _BLOCK].to(dtype)
    return some if len(some) == _BLOCK else nn.functional.pad(some, (0, 0, 0, _BLOCK - len(some)))
