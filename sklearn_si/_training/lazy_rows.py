"""Rows in scaled units: a tensor, or made when they are asked for where memory may not hold them all."""

import mmap
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._utils.tensors import as_tensor
from ..preprocessing import AffineMap, MarginalMap

# Bytes of a memory-mapped array beyond which its rows are scaled when they are asked for.
_LARGE = 2**27


def is_large_map(X: np.ndarray) -> bool:
    """Whether an array is (a view of) a large file in memory."""
    owner: Any = X
    while isinstance(getattr(owner, "base", None), np.ndarray):
        owner = owner.base
    return X.nbytes > _LARGE and isinstance(getattr(owner, "base", None), mmap.mmap)


class Rows:
    """Some rows of an array in scaled units, of which only those that are asked for are in memory.

    It stands where a tensor of rows would: `len`, `shape`, `dtype`, `device`, `x[rows]` and `index_select(0, rows)`.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        In data units.
    scaling : AffineMap or MarginalMap
    device : torch.device
    numbers : ndarray of int, default=None
        Which rows; None for all.
    """

    dtype = torch.float32

    def __init__(
        self, X: np.ndarray, scaling: AffineMap | MarginalMap, device: torch.device, numbers: np.ndarray | None = None
    ) -> None:
        self.X, self.scaling, self.device, self.numbers = X, scaling, device, numbers

    def __len__(self) -> int:
        return len(self.X if self.numbers is None else self.numbers)

    @property
    def shape(self) -> tuple[int, int]:
        """As of a tensor."""
        return len(self), self.X.shape[1]

    def part(self, rows: Any) -> "Rows":
        """Some of the rows, not yet made."""
        return Rows(self.X, self.scaling, self.device, rows if self.numbers is None else self.numbers[rows])

    def __getitem__(self, rows: Any) -> Tensor:
        rows = rows.cpu().numpy() if isinstance(rows, Tensor) else rows
        rows = rows if self.numbers is None else self.numbers[rows]
        return as_tensor(self.scaling.transform(self.X[rows]), self.dtype, self.device)

    def index_select(self, dim: int, rows: Any) -> Tensor:
        """As of a tensor, along the first axis."""
        return self[rows]


def scaled_rows(X: np.ndarray, scaling: AffineMap | MarginalMap, device: torch.device) -> Tensor | Rows:
    """The rows of an array in scaled units, as a tensor or as `Rows`."""
    if is_large_map(X):
        return Rows(X, scaling, device)
    return as_tensor(scaling.transform(X), torch.float32, device)


def part_of(x: Tensor | Rows, rows: Any) -> Tensor | Rows:
    """Some rows, in memory only if all are."""
    return x.part(rows) if isinstance(x, Rows) else x[rows]
