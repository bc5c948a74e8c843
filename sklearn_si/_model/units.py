"""Data units and scaled units along the path: x_t = c(t) + D x_t'."""

import dataclasses
from typing import Any

import numpy as np
from torch import Tensor

from ..interpolants import Interpolant
from ..preprocessing import AffineMap
from ..preprocessing._grids import Grid
from ..preprocessing._support import Support, on_line, support_of, supported


@dataclasses.dataclass(frozen=True)
class DataUnits:
    """The maps between data units and scaled units at every time of the path.

    g(x_t) = c(t) + D x_t',    c = alpha m0 + beta m1

    g' b = c_dot + D b',    s = g' D^-T s' + g'' / g',    eta is the same

    with g the map of the support of each column to the line, which is the identity for real columns.

    Parameters
    ----------
    path : Interpolant
    base_map : AffineMap, SupportedMap or None
        That of the base; None for a normal base, whose rows are those of N(0, D D^T) on the line.
    target_map : AffineMap, MarginalMap or SupportedMap
        That of the target.
    """

    path: Interpolant
    base_map: Any
    target_map: Any

    @property
    def affine(self) -> AffineMap:
        """The map of the target from the line, if it is affine: else only t = 1 has data units."""
        affine = on_line(self.target_map)
        if not isinstance(affine, AffineMap):
            raise ValueError(
                "Fields, trajectories and densities at t < 1 have no data units after a map that is not affine "
                "(preprocessing='marginal', 'marginal-whiten' or 'triangular', or 'auto' where it chose one of them): "
                "fit with preprocessing='whiten'."
            )
        return affine

    @property
    def support(self) -> Support | None:
        """Where the columns live, at all times of the path; None where all are real."""
        return support_of(self.target_map)

    @property
    def scale(self) -> AffineMap:
        """The map D x' of the line."""
        return self.affine.without_centre()

    @property
    def base(self) -> Any:
        """The map of the base: the bridge's own, or D alone for a normal base."""
        return supported(self.support, self.scale) if self.base_map is None else self.base_map

    def centre(self, time: Tensor, derivative: bool = False) -> np.ndarray:
        """c(t) = alpha m0 + beta m1, or its derivative."""
        path, m1 = self.path, self.affine.centre
        if not path.is_linear:
            return 0 * m1 if derivative else m1
        beta = float(path.beta_dot(time) if derivative else path.beta(time))
        if self.base_map is None:
            return beta * m1
        alpha = float(path.alpha_dot(time) if derivative else path.alpha(time))
        return alpha * on_line(self.base_map).centre + beta * m1

    def to_scaled(self, X: np.ndarray, time: Tensor) -> np.ndarray:
        """Rows at a time in scaled units."""
        if time == 1 and self.base_map is None:
            return self.target_map.transform(X)
        X = X if self.support is None else self.support.transform(X)
        return self.scale.transform(X - self.centre(time))

    def to_data(self, x: np.ndarray, time: Tensor) -> np.ndarray:
        """Rows at a time in data units."""
        X = self.scale.inverse_transform(x) + self.centre(time)
        return X if self.support is None else self.support.inside(self.support.inverse_transform(X))

    def velocity_to_data(self, b: np.ndarray, time: Tensor, X: np.ndarray) -> np.ndarray:
        """Velocities at rows X in data units a unit of time."""
        b = self.scale.inverse_transform(b) + self.centre(time, derivative=True)
        return b if self.support is None else b / self.support.slopes(X)

    def score_to_data(self, s: np.ndarray, time: Tensor, X: np.ndarray) -> np.ndarray:
        """Scores at rows X in inverse data units."""
        return supported(self.support, self.scale).pull_back_score(s, X)

    def velocity_to_scaled(self, b: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Differences of velocities at rows X in scaled units."""
        return self.scale.transform(b if self.support is None else b * self.support.slopes(X))

    def score_to_scaled(self, s: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Differences of scores at rows X in inverse scaled units."""
        return self.scale.push_forward(s if self.support is None else s / self.support.slopes(X))

    def target_to_data(self, x: np.ndarray, time: Tensor, X: np.ndarray) -> np.ndarray:
        """Rows of the target in data units."""
        return self.target_map.inverse_transform(x)

    def unchanged(self, eta: np.ndarray, time: Tensor, X: np.ndarray) -> np.ndarray:
        """What is the same in both units: the denoiser."""
        return eta


def returned(X: np.ndarray, dtype: Any, support: Support | None, grid: Grid | None = None) -> np.ndarray:
    """Rows in data units in a dtype, within their support after rounding, and with the values of a grid."""
    if support is not None:
        X = support.inside(X, dtype)
    return (X if grid is None else grid.snap(X)).astype(dtype, copy=False)
