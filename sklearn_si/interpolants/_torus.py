"""The path of rows some of whose columns are circular: straight lines to the nearest image."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .._utils.names import registered
from ._named import Linear

# The period of a circle, in radians.
PERIOD = 2 * math.pi


@registered("interpolants.TorusPath")
class TorusPath(Linear):
    """The straight path on a product of circles and lines, from a uniform base on the circles.

    x_t = x0 + t (x1 - x0), with the displacement of a circular column wrapped into [-pi, pi)

    (the geodesic of a flat torus; Chen & Lipman 2024, "Flow matching on general geometries", arXiv 2302.03660, (13)).
    The states are not wrapped on the way: fields that are periodic do not notice.

    Parameters
    ----------
    circular : sequence of int
        Positions of the circular columns, in radians.

    Examples
    --------
    >>> import torch
    >>> from sklearn_si.interpolants import TorusPath
    >>> TorusPath([0]).nearest(torch.tensor([[3.0, 3.0]]), torch.tensor([[-3.0, -3.0]]))
    tensor([[ 3.2832, -3.0000]])
    """

    def __init__(self, circular: Sequence[int]) -> None:
        super().__init__()
        self.circles = tuple(int(j) for j in circular)

    @property
    def circular(self) -> tuple[int, ...]:
        """Positions of the columns that are angles, in radians."""
        return self.circles

    def nearest(self, x0: Tensor, x1: Tensor) -> Tensor:
        """The images of rows x1 that are nearest to rows x0."""
        x1, columns = x1.clone(), list(self.circular)
        x1[:, columns] = x0[:, columns] + _wrapped(x1[:, columns] - x0[:, columns])
        return x1

    def wrapped(self, x: Tensor) -> Tensor:
        """Rows with their circular columns in [-pi, pi)."""
        x, columns = x.clone(), list(self.circular)
        x[:, columns] = _wrapped(x[:, columns])
        return x

    def base_from_normal(self, z: Tensor) -> Tensor:
        """Rows of the base from those of a standard normal: 2 pi Phi(z) - pi on the circles."""
        z, columns = z.clone(), list(self.circular)
        z[:, columns] = PERIOD * torch.special.ndtr(z[:, columns]) - math.pi
        return z

    def normal_from_base(self, x: Tensor) -> Tensor:
        """The inverse of `base_from_normal`."""
        x, columns = self.wrapped(x), list(self.circular)
        x[:, columns] = torch.special.ndtri((x[:, columns] / PERIOD + 0.5).clamp(1e-12, 1 - 1e-12))
        return x

    def base_log_density(self, x: Tensor) -> Tensor:
        """The log-density of the base at each row: uniform on the circles, standard normal on the lines."""
        straight = [j for j in range(x.shape[1]) if j not in self.circular]
        own = -0.5 * (x[:, straight].square().sum(1) + len(straight) * math.log(2 * math.pi))
        return own - len(self.circular) * math.log(PERIOD)


def _wrapped(angle: Tensor) -> Tensor:
    return torch.remainder(angle + math.pi, PERIOD) - math.pi
