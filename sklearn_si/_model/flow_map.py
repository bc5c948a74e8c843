"""The flow map: the solution of the ODE from one time of a grid to the next, as a network."""

from torch import Tensor, nn

from .._utils.names import registered
from ..networks import FiLMNetwork


@registered("model.FlowMap")
class FlowMap(nn.Module):
    """The solution of the ODE from one time of a grid to the next, as a network around a linear map.

    X_{s,t}(x) = A_s x + c_s + r_s F(s, x),    X_{s,u} = X_{t,u} o X_{s,t}

    (flow maps: Boffi, Albergo & Vanden-Eijnden 2024, arXiv 2406.07507, here fitted to solutions of the ODE itself).

    Parameters
    ----------
    network : FiLMNetwork
        The network F.
    times : Tensor of shape (n_steps + 1,)
        The grid.
    matrices, shifts, sizes : Tensor of shape (n_steps, d, d), (n_steps, d) and (n_steps,)
        A, c, and r, the size of what they leave.
    """

    times: Tensor
    matrices: Tensor
    shifts: Tensor
    sizes: Tensor

    def __init__(self, network: FiLMNetwork, times: Tensor, matrices: Tensor, shifts: Tensor, sizes: Tensor) -> None:
        super().__init__()
        self.network = network
        for name, value in {"times": times, "matrices": matrices, "shifts": shifts, "sizes": sizes}.items():
            self.register_buffer(name, value)

    def linear(self, k: int, x: Tensor) -> Tensor:
        """A x + c of step k."""
        return x @ self.matrices[k] + self.shifts[k]

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Rows at the last time, from rows at the first."""
        for k, size in enumerate(self.sizes):
            x = self.linear(k, x) + size * self.network(self.times[k], x, condition)
        return x
