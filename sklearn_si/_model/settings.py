"""What comes with a question to a fitted model: how rows are drawn, and how exactly fields are followed."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch

from .fields import Schedule
from .likelihood import GRID_SPACING
from .sde import is_bounded

# Steps of n_steps="auto" along the SDE by methods of weak order 1, and of weak order 2. On exact fields of a mixture
# with components of .03 deviations the errors of both are far below those of learned fields.
_SDE_STEPS = 100
_HEUN_STEPS = 32
# The noise level from which on these numbers grow in proportion: what is damped fast needs short steps.
_FREE_LEVEL = 2.0
# The largest of them.
_MOST_STEPS = 1000
# Steps of n_steps="auto" along the ODE, by a stepper that no grid was measured for.
_ODE_STEPS = 16


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How rows are drawn.

    Parameters
    ----------
    noise_level : float, default=0.0
        Size of the diffusion; 0 is the ODE.
    noise_schedule : str or callable, default="gamma"
        epsilon(t) for a noise level of one.
    solver : str or callable, default="auto"
        The stepper.
    n_steps : int or "auto", default="auto"
        Steps of the grid.
    tolerance : float, default=1e-3
        Of steps that adapt to each row.
    """

    noise_level: float = 0.0
    noise_schedule: Schedule = "gamma"
    solver: str | Callable[..., Any] = "auto"
    n_steps: int | str = "auto"
    tolerance: float = 1e-3

    def grid(self, measured: tuple[int, str] | None) -> tuple[int, str]:
        """The number of steps and the spacing of their grid, where the fit has measured one or not."""
        if self.n_steps != "auto":
            return int(self.n_steps), GRID_SPACING
        if self.noise_level > 0:
            return self._sde_steps, GRID_SPACING
        return (measured if self.follows_measured else None) or (_ODE_STEPS, GRID_SPACING)

    @property
    def _sde_steps(self) -> int:
        if not is_bounded(self.noise_schedule):
            return _SDE_STEPS
        steps = _SDE_STEPS if self.solver == "euler-maruyama" else _HEUN_STEPS
        return min(_MOST_STEPS, math.ceil(steps * max(1.0, self.noise_level / _FREE_LEVEL)))

    @property
    def even_steps(self) -> int:
        """Steps of a uniform grid, of forecasts and trajectories, for which more of them are needed."""
        return _SDE_STEPS if self.n_steps == "auto" else int(self.n_steps)

    @property
    def follows_measured(self) -> bool:
        """Whether the steps are those that the fit has measured."""
        return self.n_steps == "auto" and self.noise_level == 0 and self.solver in ("auto", "rk4")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Where fields are evaluated, and how exactly they are followed.

    Parameters
    ----------
    device : torch.device
        Where.
    tolerance : float, default=1e-3
        Error allowed in log-densities (nats) and in rows that are transported (relative).
    guidance : float, default=1.0
        Weight of the condition.
    strict : bool, default=True
        Whether a row that becomes infinite or NaN is an error; else its result is NaN, with a warning.
    one_pass : bool, default=False
        Whether distilled maps serve densities and transported rows where there are some.
    """

    device: torch.device
    tolerance: float = 1e-3
    guidance: float = 1.0
    strict: bool = True
    one_pass: bool = False
