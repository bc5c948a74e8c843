"""Log-densities and transported rows by distilled maps, with stated errors: the ODE solves what they cannot."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .._utils.names import registered
from .._utils.tensors import cast_module
from ..networks._steps import StepNetwork
from .fields import Fields
from .flow_map import FlowMap
from .likelihood import GRID_SPACING, standard_normal_log_density
from .transport import transport_rows


@registered("model.StatedErrors")
class StatedErrors(nn.Module):
    """Errors of a distilled map as a function of the row and of what the map makes of it.

    e(x) = c exp(G((u - m) / s)) where |x|^2 <= reach,    infinite beyond

    with u the row, its image and what else the map says, G fitted to a high quantile of the log errors of rows that the
    map has not seen, and c such that e covers those of others (split conformal prediction: Lei et al. 2018, arXiv
    1604.04173).

    Parameters
    ----------
    network : StepNetwork
        The function G, with a column for each kind of error.
    factors : Tensor of shape (n_kinds,)
        c of each kind.
    reach : Tensor of shape ()
        The largest squared length of a row that was seen.
    means, sizes : Tensor of shape (n_inputs,)
        m and s.
    """

    factors: Tensor
    reach: Tensor
    means: Tensor
    sizes: Tensor

    def __init__(self, network: StepNetwork, factors: Tensor, reach: Tensor, means: Tensor, sizes: Tensor) -> None:
        super().__init__()
        self.network = network
        for name, value in {"factors": factors, "reach": reach, "means": means, "sizes": sizes}.items():
            self.register_buffer(name, value)

    def forward(self, inputs: Tensor, condition: Tensor | None, n_features: int) -> Tensor:
        """The stated errors of shape (n, n_kinds), in double precision; the row is the first columns of the inputs."""
        # those of an older file are functions of the row and its image alone
        is_older = "means" not in self._buffers
        scaled = inputs[:, : 2 * n_features] if is_older else (inputs - self.means) / self.sizes
        logs = self.network.in_blocks(scaled, condition)
        distance = inputs[:, :n_features].square().sum(1, keepdim=True)
        return torch.where(distance <= self.reach, self.factors.double() * logs.double().exp(), torch.inf)


@registered("model.DensityMap")
class DensityMap(nn.Module):
    """The flow back to the base with its log-density, in few evaluations a row.

    (x_{k+1}, a_k) = A_k x_k + c_k + r_k F_k(x_k),    log rho_1(x_0) = log rho_0(x_K) + sum_k a_k

    with x_0 the row and x_K that of the base (the joint map of state and divergence: arXiv 2512.02636). Each a_k stands
    for minus the integral of the divergence over a step; the last one holds log rho_0 too, where this is not normal.

    Parameters
    ----------
    networks : sequence of StepNetwork
        F of each step.
    matrices, shifts, sizes : Tensor of shape (n_steps, d, d + 1), (n_steps, d + 1) and (n_steps, d + 1)
        A, c, and r, the size of what they leave.
    is_normal : bool
        Whether rho_0 is the standard normal density.

    Attributes
    ----------
    errors : StatedErrors
        Of the log-density and of the row of the base.
    map_errors : StatedErrors
        Of the distilled flow map in the other direction.
    """

    matrices: Tensor
    shifts: Tensor
    sizes: Tensor
    errors: StatedErrors
    map_errors: StatedErrors

    def __init__(
        self, networks: list[StepNetwork], matrices: Tensor, shifts: Tensor, sizes: Tensor, is_normal: bool
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.is_normal = is_normal
        for name, value in {"matrices": matrices, "shifts": shifts, "sizes": sizes}.items():
            self.register_buffer(name, value)

    def steps(self, x: Tensor, evaluate: Callable[[Any, Tensor], Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The rows after each step, and what it adds to the log-density, by an evaluation of the networks."""
        states, changes = [], []
        linear = zip(self.networks, self.matrices, self.shifts, self.sizes, strict=True)
        for network, matrix, shift, size in linear:
            value = x @ matrix.to(x.dtype) + shift.to(x.dtype) + size.to(x.dtype) * evaluate(network, x).to(x.dtype)
            x = value[:, :-1]
            states.append(x)
            changes.append(value[:, -1])
        return states, changes

    def log_density(self, base: Tensor, changes: list[Tensor]) -> Tensor:
        """The log-density of rows from where they are at the base, and what the steps add."""
        total: Tensor = sum(changes[1:], start=changes[0])
        return total + standard_normal_log_density(base) if self.is_normal else total

    @torch.no_grad()
    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of the base, log-densities, and what their errors are a function of, in single precision.

        The sums are taken in double precision around networks in single precision.
        """
        states, changes = self.steps(x.double(), lambda network, y: network.in_blocks(y, condition))
        indicators = torch.cat([x, states[-1], torch.stack(changes, 1)], 1).float()
        return states[-1], self.log_density(states[-1], changes), indicators


def distilled_log_density(density_map: DensityMap, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
    """Log-densities of rows in scaled units at t = 1 by a map, and their stated errors."""
    own: Any = cast_module(density_map, torch.float32, x.device)
    _, value, indicators = own(x, condition)
    return value.to(x.dtype), own.errors(indicators, condition, x.shape[1])[:, 0].to(x.dtype)


@torch.no_grad()
def distilled_rows(
    density_map: DensityMap, flow_map: FlowMap | None, x: Tensor, condition: Tensor | None, to_base: bool
) -> tuple[Tensor, Tensor]:
    """Rows in scaled units at the other end by the distilled maps, and their stated errors, relative to 1 + their size.

    Parameters
    ----------
    density_map, flow_map : DensityMap, FlowMap
        From t = 1 to 0, and from 0 to 1.
    x : Tensor of shape (n, d)
    condition : Tensor or None
    to_base : bool
        Whether the rows go from t = 1 to 0.
    """
    own: Any = cast_module(density_map, torch.float32, x.device)
    if to_base:
        y, _, indicators = own(x, condition)
        return y.to(x.dtype), own.errors(indicators, condition, x.shape[1])[:, 1].to(x.dtype)
    assert flow_map is not None  # it is distilled before the other one
    given = None if condition is None else condition.float()
    y = cast_module(flow_map, torch.float32, x.device)(x.float(), given)
    indicators = torch.cat([x.float(), y], 1)
    return y.to(x.dtype), own.map_errors(indicators, condition, x.shape[1])[:, 0].to(x.dtype)


def moved_rows(
    fields: Fields,
    x: Tensor,
    ends: tuple[float, float],
    node: float | None,
    tolerance: float,
    maps: tuple[DensityMap, FlowMap | None] | None,
) -> tuple[Tensor, Tensor]:
    """Rows in scaled units at the other end, with their stated errors: by distilled maps within these, or by the ODE.

    Parameters
    ----------
    fields, x, node, tolerance
        As in `transport_rows`.
    ends : tuple of (float, float)
        Times, 0 and 1 or 1 and 0.
    maps : tuple of (DensityMap, FlowMap) or None
        The distilled maps; None for the ODE alone.
    """

    def solve(rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        return transport_rows(fields.rows(rows), x[rows], *ends, tolerance, GRID_SPACING, node)

    if maps is None:
        return solve(slice(None))
    return with_unsolved(*distilled_rows(*maps, x, fields.condition, ends[1] == 0), tolerance, solve)


def check_guidance(distilled: float, guidance: float) -> None:
    """Refuse another weight of the condition than that of the distillation."""
    if distilled != guidance:
        raise ValueError(
            f"The flow map was distilled with guidance={distilled:g}, but guidance is {guidance:g}: "
            "call distill(condition=) again, or use solver='auto'."
        )


def with_unsolved(
    value: Tensor, error: Tensor, tolerance: float, solve: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Values with their errors; rows of larger errors than the tolerance by `solve`, from their numbers."""
    rows = (~((error <= tolerance) & torch.isfinite(error))).nonzero()[:, 0]
    if len(rows):
        exact, its_error = solve(rows)
        value[rows], error[rows] = exact.to(value.dtype), its_error.to(error.dtype)
    return value, error
