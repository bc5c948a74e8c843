"""The mean of several networks of the same shape, each trained from a start of its own."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._utils.names import registered
from ._divergence import Field
from ._perceptrons import FiLMNetwork, Modulated, TimeModulated


@registered("networks.AveragedNetwork")
class AveragedNetwork(Field, TimeModulated):
    """The mean of several networks.

    F(t, x) = (1 / m) sum_k F_k(t, x)

    Its trace is the mean of theirs. As a velocity is a conditional expectation, the mean of estimates of it from
    independent trainings has a smaller error than each of them.

    Parameters
    ----------
    members : sequence of FiLMNetwork
        The networks F_k.
    """

    def __init__(self, members: Sequence[FiLMNetwork]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    @property
    def output(self) -> Tensor:
        """The matrix of the output of the first member, whose shape is that of all."""
        return self._first.output

    @property
    def _first(self) -> Any:
        return self.members[0]

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """The value F(t, x), for t of shape () or (n,)."""
        return _mean([member(t, x, condition) for member in self.members])

    def value_and_trace(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The value F(t, x) and the trace of dF/dx, of shapes (n, d) and (n,)."""
        found: list[Any] = [member.value_and_trace(t, x, condition) for member in self.members]  # type: ignore[operator]
        return _mean([value for value, _ in found]), _mean([trace for _, trace in found])

    def velocity_and_divergence(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same as `value_and_trace`, for a mean that is a field itself."""
        return self.value_and_trace(t, x, condition)

    def modulations(self, times: Tensor) -> list:
        """The modulations of all members at each of the times, without a condition."""
        parts: list[Any] = [member.modulations(times) for member in self.members]  # type: ignore[operator]
        return list(zip(*parts, strict=True))

    def modulated(self, modulation: Any, h: Tensor) -> Tensor:
        """F(h) from one of these."""
        return self._by_members([member.modulated for member in self.members], modulation, h)

    def modulated_given(self, condition: Tensor | None) -> Modulated:
        """F for rows of a condition, of which all that can be is computed once."""
        own: list[Any] = [member.modulated_given(condition) for member in self.members]  # type: ignore[operator]
        return lambda modulation, h: self._by_members(own, modulation, h)

    def _by_members(self, functions: Sequence[Any], modulation: Any, h: Tensor) -> Tensor:
        return _mean([of(part, h) for of, part in zip(functions, modulation, strict=True)])


def count_networks(field: nn.Module) -> int:
    """The number of networks of whose mean a field is made; 1 for a single one."""
    return max((len(part.members) for part in field.modules() if isinstance(part, AveragedNetwork)), default=1)


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean(0)
