"""Rows of many samples that are put together in training: pools of them, paired by optimal transport."""

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._utils.weights import pass_by_weight, rows_by_weight
from ..couplings import optimal_pairs
from ..networks._simplex import cardinal_splines

# Rows of each sample that are paired at a time; samples of one length of up to twice as many are paired as a whole.
POOL = 1024
# How often the rows of a pool are used, for each pairing that it takes.
_PASSES = 16
# Sweeps in which each sample is paired anew with what the others say of it.
_SWEEPS = 2
# Weight of the bending of paths beside their action, at snapshots one unit of time apart. In five simulations W1 at a
# held-out time was within .001 of that without it, and a sixth of it where two clusters pass through each other.
_SHARE_OF_BENDING = 0.5
# Weight of the squared distance of conditions, in units of the mean squared distance of x over that of c.
_CONDITION_WEIGHT = 10.0
# Rows of a sample among which those of a wanted condition are looked for.
_MOST_LIKE = 4096
# Wanted conditions that are looked for at a time.
_AT_ONCE = 1024
# Distance of conditions that counts as none, as a share of their spread.
_SAME = 1e-6

# Rows of all samples, of shape (m, n, d), and their conditions, of shape (m, n, c); None without.
Together = tuple[Tensor, Tensor | None]


def path_energy_matrix(times: np.ndarray | None, m: int) -> np.ndarray:
    """The matrix B of the energy sum_kl B_kl x_k . x_l that pairing lowers.

    Without times it is sum_{k < l} |x_k - x_l|^2, whose plan is that of Wasserstein barycenters (Agueh & Carlier 2011).
    With times, in units of their mean distance, it is the action of straight lines between neighbours and a share of
    the bending of the spline, int |x''|^2 dt, by which rows keep their direction (Benamou, Gallouet & Vialard,
    arXiv 1801.04144).
    """
    if times is None:
        return m * np.eye(m) - 1
    knots = (times - times[0]) / (times[-1] - times[0]) * (m - 1)
    h, steps = np.diff(knots), np.diff(np.eye(m), axis=0)
    # the second derivative is linear between knots
    second = 2 * np.concatenate([cardinal_splines(knots)[1], np.zeros((1, m))])
    a, b = second[:-1], second[1:]
    bending = np.einsum("k,kl,kj->lj", h / 6, a, 2 * a + b) + np.einsum("k,kl,kj->lj", h / 6, b, a + 2 * b)
    return np.einsum("k,kl,kj->lj", 1 / h, steps, steps) + _SHARE_OF_BENDING * bending


def paired_rows(rows: list[Tensor], energy: np.ndarray, frames: list[Tensor] | None = None) -> Tensor:
    """Equally many rows of all samples, paired by optimal transport, of shape (m, n, d).

    Each sample is paired with the one before it. Then, where there are three or more, each in turn is paired anew with
    what the energy makes of the others, which never raises it.

    Parameters
    ----------
    rows : list of Tensor of shape (n, d)
    energy : ndarray of shape (m, m)
        Of `path_energy_matrix`.
    frames : list of Tensor of shape (d', d'), default=None
        Rotations of the first d' columns of each sample, around its mean, before distances are measured.
    """
    seen = rows if frames is None else [_turned(x, frame) for x, frame in zip(rows, frames, strict=True)]
    order = [torch.arange(len(rows[0]), device=rows[0].device)]
    for before, x in itertools.pairwise(seen):
        order.append(_nearest(before[order[-1]], x))
    paired = [x[own] for x, own in zip(seen, order, strict=True)]
    for _ in range(_SWEEPS if len(rows) > 2 else 0):
        for k, x in enumerate(seen):
            others = [-float(energy[k, j]) * y for j, y in enumerate(paired) if j != k]
            order[k] = _nearest(torch.stack(others).sum(0) / float(energy[k, k]), x)
            paired[k] = x[order[k]]
    return torch.stack([x[own] for x, own in zip(rows, order, strict=True)])


def _turned(x: Tensor, frame: Tensor) -> Tensor:
    """Rows around their mean in another frame; columns beyond those of the frame stay."""
    d, centred = len(frame), x - x.mean(0)
    return torch.cat([centred[:, :d] @ frame, centred[:, d:]], 1)


def _nearest(x0: Tensor, x1: Tensor) -> Tensor:
    """Numbers of the rows of x1 in the order in which optimal transport pairs them with those of x0."""
    return torch.as_tensor(optimal_pairs(x0, x1), device=x1.device)


class PairedPools:
    """Rows of all samples that belong together, from pools that are paired at a time.

    With conditions, the rows of a pool have the conditions that the samples have together, so that what is learned
    given a condition does not depend on how often a sample has it, and rows of like conditions are paired.

    Parameters
    ----------
    rows : list of Tensor of shape (n_samples_k, d)
        In scaled units.
    times : ndarray or None
    pairing : {"optimal", "independent", "paired"}
    generator : torch.Generator
    conditions : list of Tensor of shape (n_samples_k, c), default=None
    weights : list of (Tensor or None), default=None
        By which the rows of each sample are drawn.
    frames : list of Tensor of shape (d, d), default=None
        As in `paired_rows`.
    """

    def __init__(
        self,
        rows: list[Tensor],
        times: np.ndarray | None,
        pairing: str,
        generator: torch.Generator,
        conditions: list[Tensor] | None = None,
        weights: list[Tensor | None] | None = None,
        frames: list[Tensor] | None = None,
    ) -> None:
        self.rows, self.pairing, self.generator = rows, pairing, generator
        self.frames = frames
        self.conditions, self.weights = conditions, weights or [None] * len(rows)
        self.energy = path_energy_matrix(times, len(rows))
        self.is_whole, longest = pairing == "paired", max(len(x) for x in rows)
        self.size = min(POOL, longest) if pairing == "optimal" else longest
        self.scale = 1.0 if conditions is None else _scale_of_conditions(rows, conditions)
        self.pool: Together | None = None
        self.left = 0

    @property
    def n_pairings(self) -> int:
        """How many assignments a pool takes."""
        m = len(self.rows)
        return m - 1 + (_SWEEPS * m if m > 2 else 0)

    def state(self) -> dict[str, Any]:
        """Where in its pool it is."""
        return {"pool": self.pool, "left": self.left}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        device, pool = self.rows[0].device, state["pool"]
        self.pool = pool and tuple(None if part is None else part.to(device) for part in pool)
        self.left = state["left"]

    def fresh(self) -> Together:
        """A pool of paired rows, of shape (m, size, d), and their conditions."""
        if self.is_whole:
            return torch.stack(self.rows), None if self.conditions is None else torch.stack(self.conditions)
        numbers = self._numbers()
        rows = [x[own] for x, own in zip(self.rows, numbers, strict=True)]
        if self.conditions is None:
            if self.pairing == "independent":
                return torch.stack(rows), None
            return paired_rows(rows, self.energy, self.frames), None
        given = [c[own] for c, own in zip(self.conditions, numbers, strict=True)]
        if self.pairing == "independent":
            return torch.stack(rows), torch.stack(given)
        extended = [torch.cat([x, self.scale * c], 1) for x, c in zip(rows, given, strict=True)]
        both = paired_rows(extended, self.energy, self.frames)
        x, c = both.split([rows[0].shape[1], given[0].shape[1]], 2)
        return x, c / self.scale

    def _numbers(self) -> list[Tensor]:
        """Numbers of the rows of a pool, for each sample."""
        if self.conditions is None:
            return [self._some(k, self.size) for k in range(len(self.rows))]
        each = -(-self.size // len(self.rows))
        wanted = torch.cat([c[self._some(k, each)] for k, c in enumerate(self.conditions)])[: self.size]
        return [self._like(wanted, k) for k in range(len(self.rows))]

    def _some(self, k: int, size: int) -> Tensor:
        """Numbers of some rows of a sample: each as often as its weight says, one sample of few rows several times."""
        n, device, weight, parts = len(self.rows[k]), self.rows[0].device, self.weights[k], []
        for _ in range(-(-size // n)):
            if weight is None:
                parts.append(torch.randperm(n, generator=self.generator, device=device))
            else:
                parts.append(pass_by_weight(weight, self.generator))
        return torch.cat(parts)[:size]

    def _like(self, wanted: Tensor, k: int) -> Tensor:
        """Numbers of rows of a sample of the wanted conditions, or of those nearest to them."""
        assert self.conditions is not None
        some = self._some(k, min(len(self.rows[k]), _MOST_LIKE))
        given, found = self.conditions[k][some], []
        same = _SAME * (1 + float(given.abs().amax()))
        for part in wanted.split(_AT_ONCE):
            distance = torch.cdist(part, given)
            is_near = distance <= distance.amin(1, keepdim=True) + same
            chances = torch.rand(distance.shape, generator=self.generator, device=distance.device)
            found.append(some[torch.where(is_near, chances, -1.0).argmax(1)])
        return torch.cat(found)

    def draw(self, n: int) -> Together:
        """Rows that belong together, of shape (m, n, d), and their conditions, of shape (m, n, c)."""
        if self.pool is None or (self.left <= 0 and not self.is_whole):
            self.pool = self.fresh()
            self.left = self.size * (_PASSES * self.n_pairings if self.pairing == "optimal" else 1)
        self.left -= n
        rows, conditions = self.pool
        weight = self.weights[0] if self.is_whole else None
        if weight is not None:  # in other pools rows are as often as they weigh
            chosen = rows_by_weight(weight, n, self.generator)
        else:
            chosen = torch.randint(rows.shape[1], (n,), generator=self.generator, device=rows.device)
        return rows[:, chosen], None if conditions is None else conditions[:, chosen]


def _scale_of_conditions(rows: list[Tensor], conditions: list[Tensor]) -> float:
    """What conditions are multiplied by beside rows, so that squared distances are those of both."""
    spread = torch.cat(conditions).double().var(0).sum().clamp(min=1e-12)
    distance = torch.stack([x.double().var(0, correction=0).sum() for x in rows]).mean()
    return float((_CONDITION_WEIGHT * distance / spread).sqrt().clamp(min=1e-6))
