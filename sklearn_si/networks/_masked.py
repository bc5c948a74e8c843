"""The velocity of any columns given any others: one network, told what is given and what is asked for."""

import torch
from torch import Tensor

from .._utils.names import registered
from .._utils.tensors import column
from ..interpolants import Interpolant
from ._divergence import Field
from ._fields import PreconditionedField, ResidualField
from ._perceptrons import N_TIME_FEATURES, FiLMNetwork

__all__ = ["MaskedVelocity"]


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
    network : FiLMNetwork
        The network F.
    """

    def __init__(self, interpolant: Interpolant, network: FiLMNetwork) -> None:
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

    def instants(self, times: Tensor) -> None:
        """What is given is needed beside the times."""

    def restricted(self, columns: Tensor, constant: Tensor | None = None) -> PreconditionedField:
        """The velocity of some columns alone, as a field of so many features.

        Parameters
        ----------
        columns : Tensor of int
            Those that are asked for.
        constant : Tensor of shape (3 d,), default=None
            What is told of all rows alike: the field then has no such condition.
        """
        of = self.network
        n_conditions = of.modulation.shape[1] - N_TIME_FEATURES - 1
        n_left = n_conditions - (0 if constant is None else len(constant))
        widths = [len(w) for w in of.weights]
        # the weights that it starts from are replaced
        network = FiLMNetwork(len(columns), n_left, widths, of.activation, torch.Generator())
        network = network.to(of.output)
        modulation = of.modulation.detach()
        if constant is not None:
            some = slice(N_TIME_FEATURES, N_TIME_FEATURES + len(constant))
            shift = modulation[:, some] @ constant.to(modulation)
            modulation = torch.cat([modulation[:, : some.start], modulation[:, some.stop :]], 1)
            modulation[:, -1] += shift
        network.modulation.data = modulation.clone()
        for new, old in zip(network.weights, of.weights, strict=True):
            new.data = old.detach().clone()
        network.weights[0].data = of.weights[0].detach()[:, columns].clone()
        network.output.data, network.bias.data = of.output.detach()[columns].clone(), of.bias.detach()[columns].clone()
        one = torch.ones(len(columns)).to(of.output)
        return PreconditionedField(self.interpolant, network, "velocity", one, one).requires_grad_(False).eval()

    def joint(self) -> PreconditionedField:
        """The velocity of all columns given nothing; what is left of the condition is that of the user."""
        d = self.n_features
        constant = torch.cat([torch.zeros(2 * d), torch.ones(d)])
        return self.restricted(torch.arange(d), constant)
