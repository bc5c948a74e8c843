"""How finely a log-density is solved first, and what its indicators of error are worth: as measured after a fit."""

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from .._utils.names import registered
from .likelihood_error import Margin

# Doublings: beyond 18 * 2^8 steps the error is rounding, or the field is not smooth.
MAX_LEVEL = 8


class Level(NamedTuple):
    """Steps of the path, and nodes of the integral of the divergence along it."""

    n_steps: int
    n_nodes: int

    @classmethod
    def of(cls, n_steps: int) -> "Level":
        """So many steps, and twice as many nodes."""
        return cls(n_steps, 2 * n_steps)

    def doublings(self, most: int = MAX_LEVEL) -> list["Level"]:
        """The levels of a refinement, this one first."""
        return [Level(self.n_steps * 2**k, self.n_nodes * 2**k) for k in range(most + 1)]

    def union(self, other: "Level") -> "Level":
        """The finer of both in either respect."""
        return Level(max(self.n_steps, other.n_steps), max(self.n_nodes, other.n_nodes))


@registered("LikelihoodCalibration")
@dataclasses.dataclass(frozen=True)
class LikelihoodCalibration:
    """First levels by tolerance, and factors between indicators and true errors.

    Parameters
    ----------
    first : tuple of (float, int, int)
        Tolerances in nats, from the loosest on, with the steps and nodes of the first solve from each of them on.
    path_margins : tuple of (int, (float, float))
        By number of steps, what the embedded errors of the steps are multiplied by, and what is added.
    quadrature_margins : tuple of (int, (float, float))
        By number of nodes, the same of what their last Legendre coefficients tell.
    gap_share : float
        Error of a refined row over its distance from the level before.
    rounding : (float, float) or None
        What the indicator of rounding in single precision is multiplied by, and what is added; None where first solves
        are in double precision.
    second : tuple of (float, int, int)
        The same of the second solve, of rows that miss the tolerance in the first; without it, or where it is the
        first one, all is doubled. Both state their errors by the margins, which were measured for them; finer ones
        by their distances from them.
    reach : float
        The largest squared length of the rows of the measurement. Beyond it stated errors grow in proportion.
    spacing : str
        Spacing of the steps, a key of `TIME_GRIDS`.
    is_measured : bool
        Whether this was measured on a fitted model. What is assumed of every model holds of steps whose errors are
        weighted by the score function, and of no others.
    of_rounding_alone : bool
        Whether the errors that are stated are those of single precision, beside the distance between two levels.
    """

    first: tuple[tuple[float, int, int], ...]
    path_margins: tuple[tuple[int, tuple[float, float]], ...] = ()
    quadrature_margins: tuple[tuple[int, tuple[float, float]], ...] = ()
    gap_share: float = 0.25
    rounding: tuple[float, float] | None = None
    second: tuple[tuple[float, int, int], ...] = ()
    reach: float = float("inf")
    spacing: str = "logit"
    is_measured: bool = True
    of_rounding_alone: bool = False

    def at(self, tolerance: float) -> "LikelihoodCalibration":
        """What holds for a tolerance: below the last, the distances between levels alone were measured."""
        if not self.is_measured and tolerance < _LEAST_ROUNDED:
            return dataclasses.replace(self, rounding=None)
        if tolerance >= self.first[-1][0]:
            return self
        share = max(ASSUMED.gap_share, _FINER * self.gap_share)
        return dataclasses.replace(ASSUMED, gap_share=share, spacing=self.spacing, rounding=None)

    def start(self, tolerance: float) -> Level:
        """The level of the first solve."""
        return _level_from(self.first, tolerance)

    def measured(self, tolerance: float) -> list[Level]:
        """The levels whose errors are stated by the margins: of the first solve, and of the second if it is known."""
        known = [_level_from(levels, tolerance) for levels in (self.first, self.second) if levels]
        return [*dict.fromkeys(known)]

    def of_rounding(self) -> "LikelihoodCalibration":
        """The same for levels whose other errors are told by distances."""
        return dataclasses.replace(self, of_rounding_alone=True)

    def stated_rounding(self, indicator: Tensor) -> Tensor:
        """The stated error of single precision."""
        assert self.rounding is not None
        return Margin(*self.rounding).stated(indicator)

    def stated(self, level: Level, path: Tensor, quadrature: Tensor) -> Tensor:
        """The stated error at a level, from both indicators."""
        if self.of_rounding_alone:
            return torch.zeros_like(path)
        of_path = Margin(*dict(self.path_margins).get(level.n_steps, _PATH_MARGIN))
        of_nodes = Margin(*dict(self.quadrature_margins).get(level.n_nodes, _QUADRATURE_MARGIN))
        return of_path.stated(path) + of_nodes.stated(quadrature)


def _level_from(levels: tuple[tuple[float, int, int], ...], tolerance: float) -> Level:
    return next(Level(*level) for least, *level in levels if tolerance >= least)


# Stated over estimated error of the path and of the quadrature, such that 99 % of rows are within it for models that
# are not stiff, and 98 % for the stiffest (benchmarks/studies/ablation.md, "Nothing measured").
_PATH_MARGIN = Margin(40.0, 0.0)
_QUADRATURE_MARGIN = Margin(4.0, 0.0)
# Error of a refined row over its distance from the level before, likewise.
_ASSUMED_SHARE = 0.5
# Factor of a measured one where finer levels than those of the measurement are compared.
_FINER = 2.0
# Stated over estimated error of single precision: three times what was measured on the roughest of twelve models.
_ROUNDING_MARGIN = Margin(30.0, 0.0)
# Least tolerance, in nats, at which single precision is tried without a measurement.
_LEAST_ROUNDED = 1e-3
# First solves of a fifth-order method for a model of which nothing was measured (benchmarks/studies/ablation.md).
ASSUMED = LikelihoodCalibration(
    ((0.1, 8, 16), (0.01, 12, 24), (0.0, 18, 36)),
    gap_share=_ASSUMED_SHARE,
    rounding=_ROUNDING_MARGIN,
    is_measured=False,
)
