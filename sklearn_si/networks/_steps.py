"""The network of one step of a flow with its log-density."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .._utils.names import registered
from ._perceptrons import ACTIVATIONS, FiLMNetwork, _uniform

# The scale and the shift of each layer.
Scaled = list[tuple[Tensor, Tensor]]

# Rows of a block, and what the columns of a product are padded to: a product of matrices in single precision then has
# the same value for a row at every place of every batch.
_BLOCK = 512
_COLUMNS = 16


class _Layer(NamedTuple):
    """A layer before its activation, and the factors of the products of slopes, if there are any."""

    matrix: Tensor
    scale: Tensor | None
    shift: Tensor
    product: tuple[Tensor, Tensor] | None

    def __call__(self, h: Tensor) -> Tensor:
        """The sum s * (W h) + c."""
        if self.scale is None:
            return torch.addmm(self.shift, h, self.matrix)
        return torch.addcmul(self.shift, h @ self.matrix, self.scale)


def _silu_and_slope(a: Tensor) -> tuple[Tensor, Tensor]:
    """The activation a / (1 + exp(-a)) and its slope, in the place of a."""
    s = torch.sigmoid(a)
    h = a.mul_(s)
    return h, torch.addcmul(s, h, 1 - s)


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

    def layers(self, modulation: Scaled, dtype: torch.dtype) -> "list[_Layer]":
        """The layers with their scales and shifts; all that follows the first one in some dtype."""
        factors, constants = self._factors
        layers: list[_Layer] = []
        for k, (w, (s, c)) in enumerate(zip(self._matrices, modulation, strict=True)):
            kind = dtype if k else w.dtype
            # where the scales are the same for all rows, they are those of the matrix
            matrix, scale = ((s[:, None] * w).to(kind).T, None) if s.dim() == 1 else (w.to(kind).T, s.to(kind))
            product = (constants[k].to(dtype), factors[k].to(dtype).T) if factors else None
            layers.append(_Layer(matrix, scale, c.to(kind), product))
        return layers

    def features(self, x: Tensor, layers: "list[_Layer]") -> Tensor:
        """The last hidden layer and the products of slopes, side by side, of which F is an affine function."""
        (value_of, both_of), h = ACTIVATIONS[self.activation], x
        dtype = layers[-1].shift.dtype
        if layers[0].product is None:
            for layer in layers:
                h = value_of(layer(h).to(dtype))
            return h
        if self.activation == "silu":
            both_of = _SiluAndSlope.apply if torch.is_grad_enabled() else _silu_and_slope
        products: Tensor | None = None
        for layer in layers:
            assert layer.product is not None  # all have one or none has
            h, slope = both_of(layer(h).to(dtype))
            own = torch.addmm(layer.product[0], slope, layer.product[1])
            products = own if products is None else products * own
        assert products is not None  # there is a layer
        return torch.cat([h, products], 1)

    def slopes(self, x: Tensor, modulation: Scaled) -> list[Tensor]:
        """The slopes of the layers, each of shape (n, m)."""
        both_of, h, slopes = ACTIVATIONS[self.activation][1], x, []
        for layer in self.layers(modulation, x.dtype):
            h, slope = both_of(layer(h))
            slopes.append(slope)
        return slopes

    def of_features(self, features: Tensor) -> Tensor:
        """F from the features, in the precision of the weights."""
        dtype = features.dtype
        weights = torch.cat([self.output, self.products], 1).to(dtype)
        return torch.addmm(self.bias.to(dtype), features, weights.T).to(self.bias.dtype)

    def forward(  # type: ignore[override]
        self, x: Tensor, condition: Tensor | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """F(x), of shape (n, n_outputs); the inner products of matrices in a dtype of their own."""
        layers = self.layers(self.modulation_of(x, condition), dtype or x.dtype)
        return self.of_features(self.features(x, layers))

    @functools.cached_property
    def _factors(self) -> tuple[tuple[nn.Parameter, ...], tuple[nn.Parameter, ...]]:
        # as the matrices: looking an entry up takes longer than a small product
        return tuple(self.factors), tuple(self.shifts)

    @torch.no_grad()
    def in_blocks(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """F(x) in the precision of the weights, the same for a row whatever its batch is."""
        dtype, n_outputs = self.bias.dtype, len(self.bias)
        weights = nn.functional.pad(torch.cat([self.output, self.products], 1), (0, 0, 0, -n_outputs % _COLUMNS))
        values, of_all = [], self.layers(self.modulation_of(x[:1].to(dtype)), dtype) if condition is None else []
        for start in range(0, len(x), _BLOCK):
            rows = _block(x, start, dtype)
            layers = of_all or self.layers(self.modulation_of(rows, _block(condition, start, dtype)), dtype)
            values.append((self.features(rows, layers) @ weights.T)[:, :n_outputs])
        return torch.cat(values)[: len(x)] + self.bias


def _block(x: Tensor | None, start: int, dtype: torch.dtype) -> Tensor:
    """The rows of a block, with zeros for those that the last one lacks."""
    assert x is not None  # a condition that is not given has been taken for all rows
    some = x[start : start + _BLOCK].to(dtype)
    return some if len(some) == _BLOCK else nn.functional.pad(some, (0, 0, 0, _BLOCK - len(some)))
