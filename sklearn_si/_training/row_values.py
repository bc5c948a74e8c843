"""Log-likelihoods of rows that are asked for again under the same weights: a solve costs thirty gradient steps."""

import collections
import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

# Values that are kept: of the last weights and of the best ones, for training and validation rows.
_KEPT = 8


class RowValues:
    """The last values of rows, by the rows and by the weights and buffers under which they were computed.

    A training asks for those of its last and best weights when a round is validated, when it may have overfitted, and
    when it ends. Runs share them where they share the rows.
    """

    def __init__(self) -> None:
        self._known: collections.OrderedDict[tuple[bytes, bytes], Tensor] = collections.OrderedDict()

    def of(self, networks: nn.Module, rows: np.ndarray, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """A function that computes the values of rows where they are not known.

        Parameters
        ----------
        networks : Module
            What the values depend on.
        rows : ndarray of int
        compute : callable
            compute() -> Tensor of shape (n,), without gradients.
        """
        numbers = np.asarray(rows).tobytes()

        @torch.no_grad()
        def values() -> Tensor:
            key = numbers, _digest(networks)
            if key not in self._known:
                self._known[key] = compute()
            self._known.move_to_end(key)
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
            return self._known[key].clone()

        return values


def _digest(networks: nn.Module) -> bytes:
    """What tells the weights and buffers of networks from others."""
    told = hashlib.blake2b(digest_size=16)
    for name, value in networks.state_dict().items():
        told.update(f"{name} {tuple(value.shape)}".encode())
        told.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return told.digest()
