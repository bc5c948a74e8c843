"""Data units and scaled units along the path: x_t = c(t) + D x_t'."""

import dataclasses
from typing import Any

import numpy as np
from torch import Tensor

from ..interpolants import Interpolant
from ..preprocessing import AffineMap


@dataclasses.dataclass(frozen=True)
class DataUnits:
    """The maps between data units and scaled units at every time of the path.

    x_t = c(t) + D x_t',    c = alpha m0 + beta m1    (b = c_dot + D b', s = D^-T s', eta is the same)

    Parameters
    ----------
    path : Interpolant
    base_map : AffineMap or None
        That of the base; None for a normal base, whose rows are those of N(0, D D^T) in data units.
    target_map : AffineMap or MarginalMap
        That of the target.
    """

    path: Interpolant
    base_map: Any
    target_map: Any

    @property
    def affine(self) -> AffineMap:
        """The map of the target, if it is affine: else only t = 1 has data units."""
        if not isinstance(self.target_map, AffineMap):
            raise ValueError(
                "Fields, trajectories and densities at t < 1 have no data units after a map of each column "
                "(preprocessing='marginal' or 'marginal-whiten', or 'auto' where it chose one of them): fit with "
                "preprocessing='whiten'."
            )
        return self.target_map

    @property
    def scale(self) -> AffineMap:
        """The map x = D x'."""
        return self.affine.without_centre()

    @property
    def base(self) -> AffineMap:
        """The map of the base: the bridge's own, or D alone for a normal base."""
        return self.scale if self.base_map is None else self.base_map

    def centre(self, time: Tensor, derivative: bool = False) -> np.ndarray:
        """c(t) = alpha m0 + beta m1, or its derivative."""
        path, m1 = self.path, self.affine.centre
        if not path.is_linear:
            return 0 * m1 if derivative else m1
        beta = float(path.beta_dot(time) if derivative else path.beta(time))
        if self.base_map is None:
            return beta * m1
        alpha = float(path.alpha_dot(time) if derivative else path.alpha(time))
        return alpha * self.base_map.centre + beta * m1

    def to_scaled(self, X: np.ndarray, time: Tensor) -> np.ndarray:
        """Rows at a time in scaled units."""
        if time == 1 and self.base_map is None:
            return self.target_map.transform(X)
        return self.scale.transform(X - self.centre(time))

    def to_data(self, x: np.ndarray, time: Tensor) -> np.ndarray:
        """Rows at a time in data units."""
        return self.scale.inverse_transform(x) + self.centre(time)

    def velocity_to_data(self, b: np.ndarray, time: Tensor) -> np.ndarray:
        """Velocities in data units a unit of time."""
        return self.scale.inverse_transform(b) + self.centre(time, derivative=True)

    def score_to_data(self, s: np.ndarray, time: Tensor) -> np.ndarray:
        """Scores in inverse data units."""
        return self.scale.pull_back(s)

    def target_to_data(self, x: np.ndarray, time: Tensor) -> np.ndarray:
        """Rows of the target in data units."""
        return self.target_map.inverse_transform(x)

    def unchanged(self, eta: np.ndarray, time: Tensor) -> np.ndarray:
        """What is the same in both units: the denoiser."""
        return eta
