"""A fitted model of many samples: along each path of weights it is a fitted model of two."""

import dataclasses
from typing import Any

import numpy as np
import torch

from .._utils.names import registered
from ..interpolants import Linear
from ..networks._simplex import Chord, PathVelocity, SimplexVelocity, SplinePath, WeightPath
from ..persistence._pickling import HoldsNetworks
from ..preprocessing import AffineMap
from .fitted import FittedModel
from .levels import ASSUMED
from .settings import Sampling

# Of log-densities along a spline, whose third derivative jumps at the snapshots: the error of a level over its distance
# from the one before, such that 99 % of rows are within it between normal distributions.
_ACROSS_KNOTS = dataclasses.replace(ASSUMED, gap_share=2.0)


@registered("MultimarginalModel")
@dataclasses.dataclass(frozen=True, eq=False)
class MultimarginalModel(HoldsNetworks):
    """What a fit of many samples leaves.

    Parameters
    ----------
    velocity : SimplexVelocity
        The velocities in all directions, in scaled units.
    scaling : AffineMap
        From data units to scaled units, one for all samples: a mean of rows in data units is that of scaled rows.
    samples : list of ndarray of shape (n_samples_k, n_features)
        The rows of fit, in the order of their times.
    labels : list
        The names of the samples.
    times : ndarray of shape (n,) or None
        The times of the samples; None where they have no order.
    base_density : estimator or None
        The density of the first sample, in data units.
    dtype : dtype
        Of the rows that are drawn.
    seed : int
        Of the fit.
    follow : bool
        Whether the samples have an order, so that there are a first and a last one.
    """

    velocity: Any
    scaling: AffineMap
    samples: list[np.ndarray]
    labels: list[Any]
    times: np.ndarray | None
    base_density: Any = None
    dtype: Any = np.float64
    seed: int = 0
    follow: bool = True

    def networks(self) -> dict[str, Any]:
        """The networks, for files and pickles."""
        return {"velocity": self.velocity}

    def with_networks(self, networks: dict[str, Any]) -> "MultimarginalModel":
        """The same model with other networks."""
        return dataclasses.replace(self, **networks)

    def vertex(self, k: int) -> np.ndarray:
        """The weights of one sample alone."""
        return np.eye(len(self.samples))[k]

    def path(self, source: Any, target: Any) -> WeightPath:
        """The path between two times, or, where there are none, between two samples by their numbers."""
        if self.times is None:
            return Chord(self.vertex(source), self.vertex(target))
        return SplinePath(self.times, source, target)

    def position(self, k: int) -> Any:
        """Where a sample stands: its time, or its number where there are none."""
        return k if self.times is None else float(self.times[k])

    def along(self, path: WeightPath, base_sample: np.ndarray | None = None) -> FittedModel:
        """The model of two ends that a path of weights makes of this one."""
        assert isinstance(self.velocity, SimplexVelocity)
        field = PathVelocity(self.velocity, path)
        return FittedModel(
            interpolant=Linear(),
            learned={},
            velocity=field,
            denoiser=None,
            base_map=self.scaling,
            target_map=self.scaling,
            base_sample=self.samples[0] if base_sample is None else base_sample,
            base_density=self.base_density,
            dtype=self.dtype,
            seed=self.seed,
            likelihood_calibration=None if isinstance(path, Chord) else _ACROSS_KNOTS,
        )

    def starts(self, position: Any) -> tuple[np.ndarray, np.ndarray]:
        """The samples from which rows are drawn for a position, by their numbers, and the shares of these.

        Those before and after a time, the nearer one more often; where there are no times, all others alike.
        """
        if self.times is None:
            others = np.delete(np.arange(len(self.samples)), position)
            return others, np.full(len(others), 1 / len(others))
        after = int(np.searchsorted(self.times, position, side="right"))
        before = int(np.searchsorted(self.times, position, side="left")) - 1
        if before < 0 or after == len(self.times):
            return np.array([after if before < 0 else before]), np.ones(1)
        share = (position - self.times[before]) / (self.times[after] - self.times[before])
        return np.array([before, after]), np.array([1 - share, share])

    def sample(self, n: int, position: Any, generator: torch.Generator) -> np.ndarray:
        """Rows at a position, in data units: rows of the samples beside it, moved along the ODE."""
        starts, shares = self.starts(position)
        paths = [self.path(self.position(k), position) for k in starts]
        return self._drawn(n, starts, shares, paths, generator)

    def barycenter(self, weights: np.ndarray, n: int, generator: torch.Generator) -> np.ndarray:
        """Rows of sum_k w_k x_k, in data units: rows of each sample as often as it weighs, moved along the ODE."""
        starts = np.flatnonzero(weights > 0)
        if len(starts) == 1:  # of one sample alone
            starts = np.delete(np.arange(len(weights)), starts)
        shares = weights[starts] if weights[starts].any() else np.full(len(starts), 1 / len(starts))
        paths: list[WeightPath] = [Chord(self.vertex(int(k)), weights) for k in starts]
        return self._drawn(n, starts, shares / shares.sum(), paths, generator)

    def _drawn(
        self, n: int, starts: np.ndarray, shares: np.ndarray, paths: list[WeightPath], generator: torch.Generator
    ) -> np.ndarray:
        of_starts = torch.as_tensor(shares, device=generator.device)
        drawn = torch.multinomial(of_starts, n, replacement=True, generator=generator)
        chosen, X = drawn.cpu().numpy(), np.empty((n, self.scaling.n_features), self.dtype)
        for k, start in enumerate(starts):
            rows = np.flatnonzero(chosen == k)
            if len(rows):
                X[rows] = self.along(paths[k], self.samples[start]).sample(len(rows), Sampling(), generator)
        return X
