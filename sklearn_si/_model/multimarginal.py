"""A fitted model of many samples: along each path of weights it is a fitted model of two."""

import dataclasses
from typing import Any

import numpy as np
import torch

from .._utils.input_checks import nameless
from .._utils.names import registered
from ..interpolants import Linear
from ..networks._simplex import Chord, PathVelocity, SimplexVelocity, SplinePath, WeightPath
from ..persistence._pickling import HoldsNetworks
from ..preprocessing import AffineMap
from .densities import log_density
from .fitted import FittedModel
from .levels import ASSUMED
from .settings import Evaluation, Sampling
from .target_density import ModelWithTarget

# Of log-densities along a spline, whose third derivative jumps at the snapshots: the error of a level over its distance
# from the one before, such that 99 % of rows are within it between normal distributions.
_ACROSS_KNOTS = dataclasses.replace(ASSUMED, gap_share=2.0)
# Rows of a sample from which those of a condition are drawn, at the least, and as a share of its rows: all that have
# the condition, or else those nearest to it.
_FEWEST_ALIKE = 10
_SHARE_ALIKE = 0.02
# The time at the end of a path.
_END = torch.ones((), dtype=torch.float64)


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
    condition_codec : ConditionCodec or None
        What encodes a condition.
    conditions : list of ndarray of shape (n_samples_k, n_outputs) or None
        The encoded conditions of the rows of fit.
    weights : list of (ndarray or None), or None
        By which the rows of each sample are drawn.
    rotations : ndarray of shape (n - 1, n_features, n_features) or None
        How neighbouring samples turn, in scaled units.
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
    condition_codec: Any = None
    conditions: list[np.ndarray] | None = None
    weights: list[np.ndarray | None] | None = None
    rotations: np.ndarray | None = None

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

    def along(self, path: WeightPath, start: int = 0, *, encoded: bool = False) -> FittedModel:
        """The model of two ends that a path of weights makes of this one, with the rows of a sample as its base.

        Parameters
        ----------
        path : WeightPath
        start : int, default=0
            The number of the sample.
        encoded : bool, default=False
            Whether conditions come as the codec has encoded them.
        """
        assert isinstance(self.velocity, SimplexVelocity)
        field = PathVelocity(self.velocity, path)
        codec = self.condition_codec
        return FittedModel(
            interpolant=Linear(),
            learned={},
            velocity=field,
            denoiser=None,
            base_map=self.scaling,
            target_map=self.scaling,
            base_sample=self.samples[start],
            base_weight=None if self.weights is None else self.weights[start],
            base_density=self.base_density,
            condition_codec=_Encoded() if encoded and codec is not None else codec,
            dtype=self.dtype,
            seed=self.seed,
            likelihood_calibration=None if isinstance(path, Chord) else _ACROSS_KNOTS,
        )

    def encoded(self, condition: Any, n: int) -> np.ndarray | None:
        """The encoded condition, a row for each; None for a model without one."""
        found = self.along(self.path(self.position(0), self.position(1))).encoded(
            condition, n, torch.float64, torch.device("cpu")
        )
        return None if found is None else found.numpy()

    def log_density(
        self, X: np.ndarray, position: Any, evaluation: Evaluation, condition: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Log-density of rows at a position, and its stated error."""
        if self.condition_codec is None:
            return log_density(self.along(self.path(self.position(0), position)), X, _END, evaluation, condition)
        given, back = self.encoded(condition, len(X)), self.along(self.path(position, self.position(0)), encoded=True)
        if self.base_density is None:
            back.base_parts()  # which says that there is none
        both = ModelWithTarget.of(back, self.base_density.model_)
        with nameless():  # the columns of an encoded condition are not the user's
            return log_density(both, X, torch.zeros_like(_END), evaluation, given)

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

    def sample(self, n: int, position: Any, generator: torch.Generator, condition: Any = None) -> np.ndarray:
        """Rows at a position, in data units: rows of the samples beside it, moved along the ODE."""
        starts, shares = self.starts(position)
        paths = [self.path(self.position(k), position) for k in starts]
        return self._drawn(n, starts, shares, paths, generator, condition)

    def barycenter(self, weights: np.ndarray, n: int, generator: torch.Generator, condition: Any = None) -> np.ndarray:
        """Rows of sum_k w_k x_k, in data units: rows of each sample as often as it weighs, moved along the ODE."""
        starts = np.flatnonzero(weights > 0)
        if len(starts) == 1:  # of one sample alone
            starts = np.delete(np.arange(len(weights)), starts)
        shares = weights[starts] if weights[starts].any() else np.full(len(starts), 1 / len(starts))
        paths: list[WeightPath] = [Chord(self.vertex(int(k)), weights) for k in starts]
        return self._drawn(n, starts, shares / shares.sum(), paths, generator, condition)

    def _drawn(
        self,
        n: int,
        starts: np.ndarray,
        shares: np.ndarray,
        paths: list[WeightPath],
        generator: torch.Generator,
        condition: Any,
    ) -> np.ndarray:
        given = self.encoded(condition, n)
        of_starts = torch.as_tensor(shares, device=generator.device)
        drawn = torch.multinomial(of_starts, n, replacement=True, generator=generator)
        chosen, X = drawn.cpu().numpy(), np.empty((n, self.scaling.n_features), self.dtype)
        for k, start in enumerate(starts):
            rows = np.flatnonzero(chosen == k)
            if not len(rows):
                continue
            along = self.along(paths[k], start, encoded=True)
            if given is None:
                X[rows] = along.sample(len(rows), Sampling(), generator)
            else:
                numbers = self._alike(start, given[rows], generator)
                begin = self.samples[start][numbers].astype(self.dtype, copy=False)
                X[rows] = along.resample(begin, Sampling(), generator, given[rows], 1.0)
        return X

    def _alike(self, start: int, given: np.ndarray, generator: torch.Generator) -> np.ndarray:
        """Numbers of rows of a sample that have the conditions given, or are among those nearest to them."""
        assert self.conditions is not None
        own, weight = self.conditions[start], None if self.weights is None else self.weights[start]
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator, device=generator.device))
        rng, numbers = np.random.default_rng(seed), np.empty(len(given), np.int64)
        wanted, which = np.unique(given, axis=0, return_inverse=True)
        few = min(len(own), max(_FEWEST_ALIKE, round(_SHARE_ALIKE * len(own)))) - 1
        for k, one in enumerate(wanted):
            distance = np.square(own - one).sum(1)
            near = np.flatnonzero(distance <= np.partition(distance, few)[few])
            chances = None if weight is None else weight[near] / weight[near].sum()
            asking = np.flatnonzero(which.ravel() == k)
            numbers[asking] = rng.choice(near, len(asking), p=chances)
        return numbers


class _Encoded:
    """The codec of conditions that are encoded already."""

    droppable = False

    def transform(self, condition: np.ndarray, n_rows: int) -> np.ndarray:
        """The same condition."""
        return condition
