"""The map of a model that answers for any columns given any others: by column, then by what is given."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._utils.names import registered
from ._patterns import ABSENT, ASKED, GIVEN, ConditionalNormals, conditional_normals
from ._support import Support, on_line, supported

__all__ = ["MaskedMap"]

# Scaled units beyond which a given value tells the network less and less.
_BEND = 4.0
# Octaves of the waves of a given value's rank, by which values that are near are told apart.
OCTAVES = 3
# Beyond the range of fit by more than this share of it, a given cell is far.
_FAR = 0.5


@registered("preprocessing.MaskedMap")
class MaskedMap:
    """A map of each column, and after it the normal distribution of what is asked for given what is given.

    v_j = g_j(x_j),    u = R^-1 (v_A - G v_B)    (`ConditionalNormals`, from the covariance of v)

    for columns A that are asked for and B that are given. No column is mixed with one that is not known: this is what
    rules whitening of all columns out.

    Parameters
    ----------
    columns : AffineMap, MarginalMap or SupportedMap
        g, a map of each column.
    covariance : ndarray of shape (n_features, n_features)
        That of v.
    ends : ndarray of shape (2, n_features) or None, default=None
        The least and the largest v of fit.
    """

    ends: np.ndarray | None = None  # of files that do not say it

    def __init__(self, columns: Any, covariance: np.ndarray, ends: np.ndarray | None = None) -> None:
        self.columns, self.covariance, self.ends = columns, covariance, ends

    def __repr__(self) -> str:
        return f"MaskedMap({self.columns})"

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return self.columns.n_features

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Rows v, in float64."""
        return self.columns.transform(X)

    def inverse_transform(self, V: np.ndarray) -> np.ndarray:
        """Rows in data units from rows v, in float64."""
        return self.columns.inverse_transform(V)

    def bounded(self, V: np.ndarray) -> np.ndarray:
        """Rows v with cells far outside those of fit where that begins: half the range of fit beyond its ends."""
        if self.ends is None:
            return V
        low, high = self.ends
        return np.clip(V, low - _FAR * (high - low), high + _FAR * (high - low))

    def is_far(self, X: np.ndarray) -> np.ndarray:
        """Which cells of rows in data units, of which some may be missing (NaN), are as far out as that."""
        middle = self.inverse_transform(np.zeros((1, self.n_features)))
        V = self.transform(np.where(np.isnan(X), middle, X))
        return (self.bounded(V) != V) & ~np.isnan(X)

    def range_of_fit(self) -> np.ndarray:
        """The least and the largest row of fit, in data units, of shape (2, n_features)."""
        assert self.ends is not None  # what `is_far` says is asked before
        return np.sort(self.inverse_transform(self.ends), axis=0)

    def log_slopes(self, X: np.ndarray) -> np.ndarray:
        """The log-derivative of each column, of the shape of X, for rows in data units."""
        return self.columns.log_slopes(X)

    def normals(self, states: Tensor) -> ConditionalNormals:
        """The distributions of patterns of states, of shape (k, d), in double precision."""
        sigma = torch.as_tensor(self.covariance, dtype=torch.float64, device=states.device)
        return conditional_normals(sigma.expand(len(states), *sigma.shape), states)

    def within(self, support: Support | None) -> "MaskedMap":
        """The map of rows in a support, from that of rows on the line."""
        return MaskedMap(supported(support, self.columns), self.covariance, self.ends)

    def on_line(self) -> "MaskedMap":
        """The map of rows on the line."""
        return MaskedMap(on_line(self.columns), self.covariance, self.ends)

    def joint(self) -> Any:
        """The map of rows on the line of which everything is asked for to u."""
        states = torch.full((1, self.n_features), ASKED)
        return self.columns.followed_by(np.zeros(self.n_features), self.normals(states).root[0].numpy())


def whitened(v: Tensor, normals: ConditionalNormals, states: Tensor) -> Tensor:
    """The u of rows v, and 0 in columns that are not asked for.

    Parameters
    ----------
    v : Tensor of shape (k, n, d)
        Rows of each pattern.
    normals : ConditionalNormals
        Those of the patterns.
    states : Tensor of shape (k, d)
    """
    asked = (states == ASKED).to(v)
    one = torch.eye(v.shape[-1], dtype=v.dtype, device=v.device)
    matrix = normals.inverse_root.to(v) @ (asked[:, :, None] * (one - normals.gain.to(v)))
    # absent columns have no part in the others: their gain and their root are those of nothing
    known = v * (states != ABSENT).to(v)[:, None]
    return torch.where(asked[:, None] > 0, known @ matrix.mT, 0.0)


def told(v: Tensor, states: Tensor) -> Tensor:
    """What the network is told of rows: given values, pulled in where they are large, and the state of each column.

    In parts of d columns each: values, which are given, which are asked for, and waves of the ranks of those given.

    Parameters
    ----------
    v : Tensor of shape (..., d)
    states : Tensor of a shape that broadcasts with v
    """
    states = states.expand(v.shape)
    given = (states == GIVEN).to(v)
    size = v.abs()
    shown = torch.sign(v) * (size.clamp(max=_BEND) + torch.log1p((size - _BEND).clamp(min=0)))
    return torch.cat([torch.where(given > 0, shown, 0.0), given, (states == ASKED).to(v), *_waves(v, given)], -1)


def told_of_whole_rows(d: int) -> Tensor:
    """The same of rows of which everything is asked for, of shape (n_told,)."""
    return told(torch.zeros(d), torch.full((d,), ASKED))


def _waves(v: Tensor, given: Tensor) -> list[Tensor]:
    phase = torch.pi * torch.special.ndtr(v)
    return [given * f(phase * 2.0**k) for k in range(OCTAVES) for f in (torch.sin, torch.cos)]
