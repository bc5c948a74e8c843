"""The velocity of any columns given any others: one network, told what is given and what is asked for."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .._utils.names import registered
from .._utils.tensors import column
from ..interpolants import Interpolant
from ._divergence import Field
from ._fields import PreconditionedField, ResidualField
from ._perceptrons import FiLMNetwork, Modulated

__all__ = ["MaskedVelocity"]


@registered("networks.ToldNetwork")
class ToldNetwork(FiLMNetwork):
    """A perceptron whose layers are scaled and shifted by time, and whose first layer sees beside x what is told.

    h_1 = act( s_1(t) * (W_x x + W_c told) + c_1(t) ),    and the other layers as in `FiLMNetwork`

    Scales by what is told would cost as much as all layers, and rows that share a time could not share their scales.

    Parameters
    ----------
    n_features, n_told : int
        Number of columns of x, and of what is told.
    hidden_layer_sizes, activation, generator
        As in `FiLMNetwork`.
    """

    def __init__(
        self,
        n_features: int,
        n_told: int,
        hidden_layer_sizes: Sequence[int],
        activation: str,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(n_features, 0, hidden_layer_sizes, activation, generator)
        first = self.weights[0]
        bound = math.sqrt(3 / n_told)
        of_told = torch.empty((len(first), n_told)).uniform_(-bound, bound, generator=generator)
        first.data = torch.cat([first.data, of_told], 1)

    @property
    def widths(self) -> list[int]:
        """Widths of the hidden layers."""
        return [len(w) for w in self.weights]

    def prepare(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor | None, Tensor]:
        """The features of time with a constant, and x with what is told beside it."""
        features, x = super().prepare(t, x)
        return features, x if condition is None else torch.cat([x, condition.to(x.dtype)], 1)

    def modulated_given(self, condition: Tensor | None) -> Modulated:
        """F with what is told beside x."""
        if condition is None:
            return self.modulated
        return lambda modulation, x: self.modulated(modulation, torch.cat([x, condition.to(x.dtype)], 1))


@registered("networks.MaskedVelocity")
class MaskedVelocity(ResidualField):
    """The velocity of columns that are asked for, in units in which they are standard normal given what is given.

    b_j(t, x | told) = c_skip(t) x_j + c_out(t) F_j(t, c_in(t) x_A, told) for j in A,    c_skip(t) x_j for the others

    With F = 0 it is exact for a normal distribution; columns that are not asked for stay standard normal. The
    condition begins with what is told of the columns: values where they are given, which of them are given, which are
    asked for, in three parts of n_features each.

    Parameters
    ----------
    interpolant : Interpolant
        A one-sided path.
    network : ToldNetwork
        The network F.
    """

    network: ToldNetwork

    def __init__(self, interpolant: Interpolant, network: ToldNetwork) -> None:
        super().__init__()
        self.interpolant, self.network = interpolant, network

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return len(self.network.output)

    def asked(self, condition: Tensor) -> Tensor:
        """1 for columns that are asked for, and 0 for the others, of shape (n, d)."""
        return condition[:, 2 * self.n_features : 3 * self.n_features]

    def _variances(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The variance of a coordinate of x_t, and half its derivative."""
        one = torch.ones((), dtype=t.dtype, device=t.device)
        return self.interpolant.variance(t, one, one), self.interpolant.covariance_dot(t, one, one)

    def output_scale(self, t: Tensor) -> Tensor:
        """The factor c_out, of the shape of t."""
        one = torch.ones((), dtype=t.dtype, device=t.device)
        return self.interpolant.residual_scale(t, one, one)

    def preconditioning(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The velocity between standard normal ends, c_out, and x in units of its standard deviation."""
        variance, rate = self._variances(t)
        return column(rate / variance, x) * x, column(self.output_scale(t), x), x / column(variance.sqrt(), x)

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """The velocity, of shape (n, d)."""
        assert condition is not None  # it says what is asked for
        asked = self.asked(condition)
        closed, c_out, y = self.preconditioning(t, x)
        return torch.addcmul(closed, c_out * asked, self.network(t, y * asked, condition))

    def velocity_and_divergence(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The velocity and its divergence by tangents; `restricted` has it in closed form."""
        return Field.velocity_and_divergence(self, t, x, condition)

    def instants(self, times: Tensor, condition: Tensor | None = None) -> None:
        """What is given is needed beside the times."""

    def restricted(self, columns: Tensor) -> PreconditionedField:
        """The velocity of some columns alone, those that are asked for, as a field of so many features."""
        of, first, d = self.network, self.network.weights[0].detach(), self.n_features
        network = ToldNetwork(len(columns), first.shape[1] - d, of.widths, of.activation, torch.Generator())
        _share(network, of, torch.cat([first[:, columns], first[:, d:]], 1), of.modulation.detach())
        network.output.data, network.bias.data = of.output.detach()[columns].clone(), of.bias.detach()[columns].clone()
        return self._around(network, len(columns))

    def joint(self, told: Tensor) -> PreconditionedField:
        """The velocity of all columns given nothing; what is left of the condition is that of the user.

        Parameters
        ----------
        told : Tensor of shape (n_told,)
            What is told of such rows, the same of all: it becomes a part of the shifts of the first layer.
        """
        of, first, d = self.network, self.network.weights[0].detach(), self.n_features
        own = d + len(told)
        n_own, width = first.shape[1] - own, len(first)
        settings = of.widths, of.activation, torch.Generator()
        network = ToldNetwork(d, n_own, *settings) if n_own else FiLMNetwork(d, 0, *settings)
        modulation = of.modulation.detach().clone()
        # s (W x + w) + c = s W x + (c + s w)
        modulation[width : 2 * width] += (first[:, d:own] @ told.to(first))[:, None] * modulation[:width]
        _share(network, of, torch.cat([first[:, :d], first[:, own:]], 1), modulation)
        network.output.data, network.bias.data = of.output.detach().clone(), of.bias.detach().clone()
        return self._around(network, d)

    def _around(self, network: FiLMNetwork, d: int) -> PreconditionedField:
        network = network.to(self.network.output)
        one = torch.ones(d).to(network.output)
        return PreconditionedField(self.interpolant, network, "velocity", one, one).requires_grad_(False).eval()


def _share(network: FiLMNetwork, of: FiLMNetwork, first: Tensor, modulation: Tensor) -> None:
    """Give a network the inner layers of another, with a first layer and a modulation of its own."""
    for new, old in zip(network.weights, of.weights, strict=True):
        new.data = old.detach().clone()
    network.weights[0].data, network.modulation.data = first.clone(), modulation.clone()
