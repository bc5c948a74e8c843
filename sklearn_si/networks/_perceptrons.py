"""Perceptrons of (t, x, condition) with an exact trace, and with gradients written by hand for training."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._utils.names import registered
from ._divergence import Field, divergence_along, jacobian_trace

# The scale s_k (None for 1) and the shift c_k of each layer.
Modulation = list[tuple[Tensor | None, Tensor]]
# F from the modulation at a time and the input of the layers.
Modulated = Callable[[Any, Tensor], Tensor]

# Columns below which a product of matrices is taken transposed: libraries choose poor kernels for narrow results
# (measured: 512 x 128 times 128 x 10 in a third of the time, sums over rows in a quarter).
_NARROW = 64
# Properties of networks that keep their parameters at hand.
_KEPT = ("_matrices", "_factors")


def _silu(a: Tensor) -> tuple[Tensor, Tensor]:
    s = torch.sigmoid(a)
    h = a * s
    return h, s + h * (1 - s)


def _tanh(a: Tensor) -> tuple[Tensor, Tensor]:
    h = torch.tanh(a)
    return h, 1 - h * h


def _softplus_value(a: Tensor) -> Tensor:
    # With the default threshold of 20 the derivative beyond it is off by 2e-9.
    return nn.functional.softplus(a, threshold=40)


def _softplus(a: Tensor) -> tuple[Tensor, Tensor]:
    return _softplus_value(a), torch.sigmoid(a)


# For each name, the activation, and a function that returns it with its derivative. All are smooth, because the
# divergence of the velocity is integrated.
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], tuple[Tensor, Tensor]]]] = {
    "silu": (nn.functional.silu, _silu),
    "tanh": (torch.tanh, _tanh),
    "softplus": (_softplus_value, _softplus),
}

# name -> gradient with respect to the argument a, from that with respect to the value h
_BACKWARDS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "silu": lambda gradient, a, h: torch.ops.aten.silu_backward(gradient, a),
    "tanh": lambda gradient, a, h: gradient * (1 - h * h),
    "softplus": lambda gradient, a, h: gradient * torch.sigmoid(a),
}


def time_features(t: Tensor) -> Tensor:
    """Smooth, bounded functions of t that change fastest near t = 0 and 1.

    With u = log((t + 0.02) / (1 - t + 0.02)) / 4 they are t, u and the first three harmonics of u. They are finite a
    little outside [0, 1] as well.
    """
    # The offset keeps u finite and smooth at 0 and 1. A clamped logarithm would reduce the order of a fourth-order
    # solver there.
    u = torch.log((t + 0.02) / (1.02 - t)) / 4
    harmonics = [f(k * math.pi / 2 * u) for k in (1, 2, 3) for f in (torch.sin, torch.cos)]
    return torch.stack([2 * t - 1, u, *harmonics], -1)


N_TIME_FEATURES = 8


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator | None) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))


def _times_transposed(h: Tensor, weight: Tensor) -> Tensor:
    """The product h W^T."""
    return (weight @ h.T).T if weight.shape[0] < _NARROW else h @ weight.T


def _add_over_rows(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left^T right, which is a sum over rows, to the total."""
    if right.shape[1] < _NARROW:
        total += (right.T @ left).T
    elif left.dtype == total.dtype:
        total.addmm_(left.T, right)
    else:
        total += left.T @ right


def _keep_mask(shape: torch.Size, dropout: float, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """A mask of zeros for a share `dropout` of the units (in 256ths), and 1 / (1 - dropout) for the others."""
    dropped = round(256 * dropout)
    # Bytes of random words are used, because drawing floats one by one costs more than a layer.
    words = torch.randint(-(2**63), 2**63 - 1, (shape.numel() // 8 + 1,), generator=generator, device=like.device)
    kept = words.view(torch.uint8)[: shape.numel()].view(shape) >= dropped
    return kept.to(like.dtype).mul_(256 / (256 - dropped))


@registered("networks.Perceptron")
class Perceptron(Field):
    """A perceptron whose layers are modulated by scales s_k and shifts c_k.

    h_k = act(s_k * (W_k h_{k-1}) + c_k),    F = W_o h_L + w_o

    The output is zero before training. A subclass defines the input of the layers, and how s_k and c_k are computed.

    Parameters
    ----------
    n_inputs, n_features : int
        Number of columns of the input, of which the first n_features are x; number of columns of the output.
    hidden_layer_sizes : tuple of int
        Widths of the hidden layers.
    activation : {"silu", "tanh", "softplus"}
        The activation, which is smooth, because the divergence of the field is integrated.
    generator : torch.Generator
        The source of the initial weights.

    Attributes
    ----------
    dropout : float
        Share of the hidden units that are dropped at each training point; 0 by default.
    masks : torch.Generator
        The source of the dropout masks.
    """

    def __init__(
        self,
        n_inputs: int,
        n_features: int,
        hidden_layer_sizes: Sequence[int],
        activation: str,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.dropout = 0.0
        self.masks: torch.Generator | None = None
        widths = [n_inputs, *hidden_layer_sizes]
        # The inner layers have a gain of sqrt(3): with the variance of torch's default the signal fades by a factor of
        # 3 in each layer, and early steps are lost.
        self.weights = nn.ParameterList(
            _uniform((m, n), math.sqrt(3 / n), generator) for n, m in itertools.pairwise(widths)
        )
        self.output = nn.Parameter(torch.zeros(n_features, widths[-1]))
        self.bias = nn.Parameter(torch.zeros(n_features))

    def _apply(self, fn: Callable, recurse: bool = True) -> "Perceptron":
        """Convert the parameters, which may become other objects than those that are kept for speed."""
        super()._apply(fn, recurse)
        for name in _KEPT:
            vars(self).pop(name, None)
        return self

    @functools.cached_property
    def _matrices(self) -> tuple[nn.Parameter, ...]:
        # Looking an entry of a ParameterList up takes longer than a small matrix product.
        return tuple(self.weights)

    def prepare(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor | None, Tensor]:
        """The input of the modulation (None, one row for all, or one for each) and the input of the layers."""
        raise NotImplementedError

    def modulate(self, features: Tensor | None, dtype: torch.dtype) -> Modulation:
        """The scale s_k (None for 1) and the shift c_k of each layer, in the given dtype."""
        raise NotImplementedError

    def backward_modulation(self, k: int, features: Tensor | None, scale: Tensor | None, shift: Tensor) -> None:
        """Add to the gradients of the parameters of `modulate`, from those of s_k and c_k in each row."""
        raise NotImplementedError

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """The value F(t, x), for t of shape () or (n,)."""
        features, h = self.prepare(t, x, condition)
        return self.modulated(self.modulate(features, h.dtype), h)

    def modulated(self, modulation: Modulation, h: Tensor) -> Tensor:
        """The value F for the input h of the layers, with the scales and shifts of `modulate`."""
        act = ACTIVATIONS[self.activation][0]
        for w, (s, c) in zip(self._matrices, modulation, strict=True):
            a = h @ w.T
            h = act(a + c if s is None else torch.addcmul(c, a, s))
        return _times_transposed(h, self.output) + self.bias

    def value_and_trace(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The value F(t, x) and the trace of dF/dx, of shapes (n, d) and (n,)."""
        features, h = self.prepare(t, x, condition)
        act, slopes = ACTIVATIONS[self.activation][1], []
        for w, (s, c) in zip(self._matrices, self.modulate(features, h.dtype), strict=True):
            a = h @ w.T
            h, slope = act(a + c if s is None else torch.addcmul(c, a, s))
            slopes.append(slope if s is None else slope * s)
        return _times_transposed(h, self.output) + self.bias, jacobian_trace(self._matrices, self.output, slopes)

    def velocity_and_divergence(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same as `value_and_trace`, for a perceptron that is a field itself."""
        return self.value_and_trace(t, x, condition)

    def value_and_divergence(
        self, t: Tensor, x: Tensor, condition: Tensor | None, tangents: Tensor
    ) -> tuple[Tensor, Tensor]:
        """F(t, x) and sum_j dF_j / dy_j, for inputs x with derivatives `tangents` by y, of shape (n, d, n_x)."""
        features, h = self.prepare(t, x, condition)
        act, slopes = ACTIVATIONS[self.activation][1], []
        for w, (s, c) in zip(self._matrices, self.modulate(features, h.dtype), strict=True):
            a = h @ w.T
            h, slope = act(a + c if s is None else torch.addcmul(c, a, s))
            slopes.append((slope if s is None else slope * s).expand(h.shape))
        divergence = divergence_along(self._matrices, self.output, slopes, tangents)
        return _times_transposed(h, self.output) + self.bias, divergence

    @torch.no_grad()
    def forward_with_cache(
        self, features: Tensor | None, inputs: Tensor, rows_per_time: int = 1
    ) -> tuple[Tensor, list]:
        """F in training, in the dtype of the inputs and with dropout, and what `backward` needs.

        `features` holds one row for each `rows_per_time` of rows of the inputs.
        """
        act, h, layers = ACTIVATIONS[self.activation][0], inputs, []
        for matrix, (s, c) in zip(self._matrices, self.modulate(features, h.dtype), strict=True):
            w = matrix.to(h.dtype)
            a = h @ w.T if s is not None else torch.addmm(c, h, w.T)
            u = a if s is None else _scale_and_shift(c, a, s, rows_per_time)
            value = act(u)
            mask = _keep_mask(value.shape, self.dropout, value, self.masks) if self.dropout else None
            layers.append((w, h, a, s, u, value, mask))
            h = value if mask is None else value * mask
        output = self.output.to(h.dtype)
        return _times_transposed(h, output).to(self.bias.dtype) + self.bias, [layers, h, output]

    @torch.no_grad()
    def backward(self, cache: list, features: Tensor | None, gradient: Tensor, rows_per_time: int = 1) -> None:
        """Add to the gradients of all parameters, from the gradient with respect to F; `features` has all rows."""
        layers, h, output = cache
        of_bias, of_output = self.bias.grad, self.output.grad
        assert of_bias is not None and of_output is not None  # training begins with zeros
        of_bias += gradient.sum(0)
        gradient = gradient.to(h.dtype)
        # few columns on the left: the narrow product is that of the transposed matrices
        of_output += gradient.T @ h
        gradient = gradient @ output
        for k, (w, below, a, s, u, value, mask) in reversed(list(enumerate(layers))):
            if mask is not None:
                gradient.mul_(mask)
            shift = _BACKWARDS[self.activation](gradient, u, value)
            if s is None:
                self.backward_modulation(k, features, None, shift)
                inner = shift
            else:
                self.backward_modulation(k, features, shift * a, shift)
                inner = _scale_and_shift(None, shift, s, rows_per_time)
            _add_over_rows(self._matrices[k].grad, inner, below)
            if k:
                gradient = inner @ w


def _scale_and_shift(c: Tensor | None, a: Tensor, s: Tensor, rows_per_time: int) -> Tensor:
    """The sum c + s a (s a if c is None), where s and c have one row for each `rows_per_time` rows of a."""
    if rows_per_time > 1:
        a, s, c = a.unflatten(0, (-1, rows_per_time)), s[:, None], None if c is None else c[:, None]
    value = s * a if c is None else torch.addcmul(c, a, s)
    return value.flatten(0, 1) if rows_per_time > 1 else value


def joined(modulated: Modulated, of_rows: list[tuple[Tensor, Tensor]]) -> Modulated:
    """F from the modulation at a time, to which that of each row is added."""

    def at(modulation: list[tuple[Tensor, Tensor]], h: Tensor) -> Tensor:
        layers = zip(modulation, of_rows, strict=True)
        return modulated([(s + own_s, c + own_c) for (s, c), (own_s, own_c) in layers], h)

    return at


class TimeModulated:
    """A network of which all that depends on time alone can be computed ahead."""

    def modulations(self, times: Tensor) -> list:
        """The modulation of the layers at each of some times, without a condition."""
        raise NotImplementedError

    def modulated(self, modulation: Any, h: Tensor) -> Tensor:
        """F(h) from one of these."""
        raise NotImplementedError

    def modulated_given(self, condition: Tensor | None) -> Modulated:
        """The same for rows of a condition, of which all that can be is computed once."""
        raise NotImplementedError


def by_time(layers: Sequence[tuple[Tensor | None, Tensor]]) -> list:
    """The scales and shifts of the layers for each time, from those of each layer for all times."""
    unbound = ((s.unbind(), c.unbind()) for s, c in layers if s is not None)
    return list(zip(*(zip(*layer, strict=True) for layer in unbound), strict=True))


@registered("networks.FiLMNetwork")
class FiLMNetwork(Perceptron, TimeModulated):
    """A perceptron whose layers are scaled and shifted by smooth functions of time.

    h_k = act( s_k(t) * (W_k h_{k-1}) + c_k(t) ),    F = W_o h_L + w_o

    with s_k and c_k affine in `time_features` (and in the condition), zero-initialised output, and
    the exact trace of dF/dx: closed for one and two hidden layers,
    tr J = s_1^T [(W_1 W_o) * W_2^T] s_2, from both sides of the middle one for three (two matrix products
    a feature, of weights that are multiplied once for all rows), by tangents of the inner layers beyond.

    Parameters
    ----------
    n_features : int
        Number of columns of x.
    n_conditions : int
        Number of columns of the condition; 0 for none.
    hidden_layer_sizes : tuple of int
        Widths of the hidden layers.
    activation : {"silu", "tanh", "softplus"}
        The activation, which is smooth, because the divergence of the field is integrated.
    generator : torch.Generator
        The source of the initial weights.
    n_inputs : int, default=None
        Number of columns of the input of the layers, where these are features of x; None for x itself.
    """

    def __init__(
        self,
        n_features: int,
        n_conditions: int,
        hidden_layer_sizes: Sequence[int],
        activation: str,
        generator: torch.Generator | None = None,
        n_inputs: int | None = None,
    ) -> None:
        super().__init__(n_inputs or n_features, n_features, hidden_layer_sizes, activation, generator)
        self.sides = [m for m in hidden_layer_sizes for _ in range(2)]
        n_told = N_TIME_FEATURES + n_conditions
        modulation = _uniform((sum(self.sides), n_told), 0.3 / math.sqrt(n_told), generator).data
        # The last column belongs to a constant: scales start around 1 and shifts around 0.
        start = torch.cat([torch.full((m, 1), 1.0 - k % 2) for k, m in enumerate(self.sides)])
        self.modulation = nn.Parameter(torch.cat([modulation, start], 1))

    def prepare(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor | None, Tensor]:
        """The features of time with the condition and a constant, and x itself."""
        inputs = time_features(t)
        if condition is not None:
            inputs = torch.cat([inputs.expand(condition.shape[0], -1), condition], -1)
        return torch.cat([inputs, torch.ones_like(inputs[..., :1])], -1), x

    def modulate(self, features: Tensor | None, dtype: torch.dtype) -> Modulation:
        """Scales and shifts, which are affine in the features."""
        assert features is not None
        parts = (features @ self.modulation.T.to(dtype)).split(self.sides, -1)
        return list(zip(parts[::2], parts[1::2], strict=True))

    def modulations(self, times: Tensor) -> list:
        """Scales and shifts of the layers at each of the times, without a condition."""
        return by_time(self.modulate(self.features_at(times), times.dtype))

    def features_at(self, times: Tensor) -> Tensor:
        """What scales and shifts are affine in at each of the times, without a condition."""
        inputs = time_features(times)
        none = torch.zeros((len(times), self.modulation.shape[1] - inputs.shape[1] - 1), dtype=times.dtype)
        return torch.cat([inputs, none.to(times), torch.ones_like(inputs[:, :1])], 1)

    def modulated_given(self, condition: Tensor | None) -> Modulated:
        """F for rows of a condition, whose part of the scales and shifts is computed once."""
        if condition is None:
            return self.modulated
        return joined(self.modulated, self.modulation_by(condition))

    def modulation_by(self, condition: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What rows of a condition add to the scales and shifts of each layer."""
        own = self.modulation[:, N_TIME_FEATURES:-1].to(condition.dtype)
        parts = (condition @ own.T).split(self.sides, -1)
        return list(zip(parts[::2], parts[1::2], strict=True))

    def backward_modulation(self, k: int, features: Tensor | None, scale: Tensor | None, shift: Tensor) -> None:
        """Add the sums over rows of the products with the features."""
        gradient = self.modulation.grad
        assert features is not None and scale is not None and gradient is not None
        ours = gradient.split(self.sides)
        _add_over_rows(ours[2 * k], scale, features)
        _add_over_rows(ours[2 * k + 1], shift, features)


@registered("networks.MLP")
class MLP(Perceptron):
    """A plain perceptron of the columns (x, t, condition), without modulation.

    h_k = act(W_k h_{k-1} + c_k),    F = W_o h_L + w_o

    Its trace is exact, and its training step is as fast as that of `FiLMNetwork`. The latter learns more in the same
    number of steps; this one is for comparisons with networks of other libraries.

    Parameters
    ----------
    n_features, n_conditions, hidden_layer_sizes, activation, generator
        As in `FiLMNetwork`.
    """

    def __init__(
        self,
        n_features: int,
        n_conditions: int,
        hidden_layer_sizes: Sequence[int],
        activation: str = "silu",
        generator: torch.Generator | None = None,
    ) -> None:
        n_inputs = n_features + 1 + n_conditions
        super().__init__(n_inputs, n_features, hidden_layer_sizes, activation, generator)
        self.sides = list(hidden_layer_sizes)
        self.shifts = nn.Parameter(torch.zeros(sum(self.sides)))

    def prepare(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor | None, Tensor]:
        """None, and the columns (x, t, condition) side by side."""
        columns = [x, t.reshape(-1, 1).expand(len(x), 1), *([] if condition is None else [condition])]
        return None, torch.cat(columns, 1)

    def modulate(self, features: Tensor | None, dtype: torch.dtype) -> Modulation:
        """Shifts without scales."""
        return [(None, c) for c in self.shifts.to(dtype).split(self.sides)]

    def backward_modulation(self, k: int, features: Tensor | None, scale: Tensor | None, shift: Tensor) -> None:
        """The sum over rows."""
        gradient = self.shifts.grad
        assert gradient is not None
        ours = gradient.split(self.sides)[k]
        ours += shift.sum(0)
