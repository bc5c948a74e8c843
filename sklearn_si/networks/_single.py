"""Fields in double precision around a network in single precision, whose rows do not depend on each other.

A product of matrices in single precision differs with the place of a row in its batch where the result is narrow, and
so do activations in the rest of a vector of numbers. Here widths are padded with zeros, and rows are evaluated in
blocks of a few lengths: a row then has the same value in every batch, which `is_alike` tests on the machine at hand.
"""

import copy
import functools
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ._averaged import AveragedNetwork
from ._fields import ResidualField
from ._perceptrons import ACTIVATIONS, FiLMNetwork, Modulated, TimeModulated, by_time, joined

# The scale and the shift of each layer.
Scaled = list[tuple[Tensor, Tensor]]

# Columns of x and of the output, and units of a layer, are padded to multiples of these: the widths of torch's kernels.
_COLUMNS = 16
_UNITS = 32
# Rows are padded to a multiple of this.
_ROWS = 32
# Numbers in one layer of a block: torch divides more among threads, at places that are no multiples of a vector.
_NUMBERS = 2**15


def with_single_precision(field: nn.Module) -> nn.Module | None:
    """A field in double precision with its network in single precision; None where it has none that can be taken so.

    Parameters
    ----------
    field : Module
        In double precision.
    """
    if not isinstance(field, ResidualField):
        return None
    network: nn.Module = field.network
    networks = list(network.members) if isinstance(network, AveragedNetwork) else [network]
    rounded = [_rounded(part) for part in networks]
    if any(part is None for part in rounded):
        return None
    copied = copy.copy(field)
    copied._modules = dict(field._modules)
    copied.network = AveragedNetwork(rounded) if len(rounded) > 1 else rounded[0]  # type: ignore[assignment, arg-type]
    return copied


def _rounded(network: nn.Module) -> "SinglePrecisionNetwork | None":
    """A network in single precision; None where it cannot be taken so."""
    if type(network) is not FiLMNetwork or network.weights[0].shape[1] != len(network.output):
        return None  # or the inputs are features of x
    weight = network.output
    if weight.device.type != "cpu" or weight.dtype != torch.float64:
        return None
    rounded = SinglePrecisionNetwork(network)
    return rounded if is_alike(rounded) else None


def is_alike(network: "SinglePrecisionNetwork") -> bool:
    """Whether rows have the same values, to the bit, in batches of any length and at any place of them."""
    key = (network.n_features, tuple(network.widths), network.activation, torch.get_num_threads())
    if key not in _ALIKE:
        _ALIKE[key] = _compare(network)
    return _ALIKE[key]


# What `is_alike` has found, by shape and number of threads.
_ALIKE: dict[tuple, bool] = {}


@torch.no_grad()
def _compare(network: "SinglePrecisionNetwork") -> bool:
    generator = torch.Generator().manual_seed(0)
    block = network.block
    x = 2 * torch.randn((block + 3 * _ROWS + 5, network.n_features), generator=generator, dtype=torch.float64)
    features = torch.randn(network.film.modulation.shape[1], generator=generator, dtype=torch.float64)
    modulation = network.modulation(features)

    def values(x: Tensor) -> Tensor:
        value, trace = network.traced(modulation, x)
        return torch.cat([network.modulated(modulation, x), value, trace[:, None]], 1)

    whole = values(x)
    order = torch.randperm(len(x), generator=generator)
    parts = [slice(0, 1), slice(3, 10), slice(20, 20 + _ROWS), slice(41, 141), slice(block - 7, block + 60)]
    same = [torch.equal(values(x[part]), whole[part]) for part in parts]
    return torch.equal(values(x[order]), whole[order]) and all(same)


class SinglePrecisionNetwork(nn.Module, TimeModulated):
    """F(t, x, condition) of a FiLM network: double in, double out, layers in single precision.

    What depends on time and condition, and the sums of the trace, are computed in double precision.

    Parameters
    ----------
    network : FiLMNetwork
        In double precision.
    """

    def __init__(self, network: FiLMNetwork) -> None:
        super().__init__()
        self.film, self.activation, self.n_features = network, network.activation, len(network.output)
        self.sizes = [w.shape[0] for w in network.weights]
        self.widths = [_up(n, _UNITS) for n in self.sizes]
        self.block = max(_ROWS, _NUMBERS // max(self.widths) // _ROWS * _ROWS)
        columns = _up(self.n_features, _COLUMNS)
        shapes = zip(self.widths, [columns, *self.widths[:-1]], strict=True)
        self.layers = [_padded(w.detach(), shape) for w, shape in zip(network.weights, shapes, strict=True)]
        self.output = _padded(network.output.detach(), (columns, self.widths[-1]))
        self.bias = network.bias.detach()

    @property
    def weights(self) -> nn.ParameterList:
        """Those of the network in double precision."""
        return self.film.weights

    def modulations(self, times: Tensor) -> list[Scaled]:
        """As those of the network, in single precision."""
        return by_time(self.modulation(self.film.features_at(times)))

    def modulated_given(self, condition: Tensor | None) -> Modulated:
        """F for rows of a condition, whose part of the modulation is computed once."""
        if condition is None:
            return self.modulated
        pairs = zip(self.film.modulation_by(condition), self.widths, strict=True)
        return joined(self.modulated, [(_wide(s, width), _wide(c, width)) for (s, c), width in pairs])

    def _modulation_at(self, t: Tensor, x: Tensor, condition: Tensor | None) -> Scaled:
        features, _ = self.film.prepare(t, x, condition)
        assert features is not None
        return self.modulation(features)

    def modulation(self, features: Tensor) -> Scaled:
        """The same from the features of time and condition, of one row for all or of each row."""
        pairs = zip(self.film.modulate(features, features.dtype), self.widths, strict=True)
        return [(_wide(s, width), _wide(c, width)) for (s, c), width in pairs if s is not None]

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """F(t, x), for t of shape () or (n,)."""
        return self.modulated(self._modulation_at(t, x, condition), x)

    def modulated(self, modulation: Scaled, h: Tensor) -> Tensor:
        """F from what `modulations` gave."""
        act, values = ACTIVATIONS[self.activation][0], []
        for rows, y, layers in self._blocks(modulation, h):
            for w, (s, c) in zip(self.layers, layers, strict=True):
                y = act(torch.addcmul(c, y @ w.T, s))
            values.append((y @ self.output.T)[:rows, : self.n_features])
        return torch.cat(values).double() + self.bias

    def value_and_trace(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """F(t, x) and the trace of dF/dx, of shapes (n, d) and (n,)."""
        return self.traced(self._modulation_at(t, x, condition), x)

    def traced(self, modulation: Scaled, x: Tensor) -> tuple[Tensor, Tensor]:
        """The same from the modulation."""
        act, values, traces = ACTIVATIONS[self.activation][1], [], []
        for rows, h, layers in self._blocks(modulation, x):
            slopes = []
            for w, (s, c) in zip(self.layers, layers, strict=True):
                h, slope = act(torch.addcmul(c, h @ w.T, s))
                slopes.append(slope * s)
            values.append((h @ self.output.T)[:rows, : self.n_features])
            traces.append(self._trace(slopes)[:rows])
        return torch.cat(values).double() + self.bias, torch.cat(traces)

    def _blocks(self, modulation: Scaled, x: Tensor) -> Iterator[tuple[int, Tensor, Scaled]]:
        """Number, padded rows and modulation of the rows of each block."""
        for start in range(0, len(x), self.block):
            some = x[start : start + self.block]
            rows = torch.zeros((_up(len(some), _ROWS), self.layers[0].shape[1]), dtype=torch.float32)
            rows[: len(some), : self.n_features] = some
            yield len(some), rows, [(_rows(s, start, rows), _rows(c, start, rows)) for s, c in modulation]

    @functools.cached_property
    def _products(self) -> list[Tensor]:
        """What the trace takes of the weights alone."""
        first, last, d = self.layers[0][:, : self.n_features], self.output[: self.n_features], self.n_features
        if len(self.layers) == 1:
            return [(last.T * first).sum(1)]
        if len(self.layers) == 2:
            return [(first @ last) * self.layers[1].T]
        _, inner, outer = self.layers
        left = (first.T[:, None, :] * inner).reshape(d * len(inner), -1)
        right = (last[:, None, :] * outer.T).reshape(d * len(inner), -1)
        return [left, right]

    def _trace(self, slopes: list[Tensor]) -> Tensor:
        if len(slopes) == 1:
            return (slopes[0] * self._products[0]).sum(1, dtype=torch.float64)
        if len(slopes) == 2:
            return ((slopes[0] @ self._products[0]) * slopes[1]).sum(1, dtype=torch.float64)
        left, right = self._products
        both = (slopes[0] @ left.T).mul_(slopes[2] @ right.T)
        return (both.view(len(both), self.n_features, -1).sum(1) * slopes[1]).sum(1, dtype=torch.float64)


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def _padded(matrix: Tensor, shape: tuple[int, int]) -> Tensor:
    """A matrix in single precision, with zeros beyond its rows and columns."""
    wide = torch.zeros(shape, dtype=torch.float32)
    wide[: matrix.shape[0], : matrix.shape[1]] = matrix
    return wide


def _wide(values: Tensor, width: int) -> Tensor:
    """Values of the units of a layer in single precision, with zeros for those that were added."""
    return nn.functional.pad(values.float(), (0, width - values.shape[-1]))


def _rows(values: Tensor | None, start: int, rows: Tensor) -> Tensor:
    """The part of a block, where there is a row of values for each row."""
    assert values is not None
    if values.ndim == 1:
        return values
    some = values[start : start + len(rows)]
    return nn.functional.pad(some, (0, 0, 0, len(rows) - len(some)))
