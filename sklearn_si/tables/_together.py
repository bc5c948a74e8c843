"""The networks of the codes together: the mean of several, and the shares of what they draw."""

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._utils.names import registered
from ._chain import ROWS_PER_BLOCK, one_of

__all__ = ["CALIBRATION_SHARE", "MeanNetwork", "calibrate"]

# Share of the time of the codes that their calibration may take.
CALIBRATION_SHARE = 0.1
# Rows that are drawn for it, fewer where they have many cells.
_CALIBRATION_ROWS = 16384
_CALIBRATION_CELLS = 400_000
_FEWEST_CALIBRATION_ROWS = 2048
# Rows below which shares would be told by chance alone.
_TOO_FEW = 256
# Rounds of it, and the largest shift of a round in nats.
_CALIBRATION_ROUNDS = 20
_LARGEST_SHIFT = 1.0


@registered("tables.MeanNetwork")
class MeanNetwork(nn.Module):
    """Several networks of the same codes, whose log-probabilities are averaged.

    log p(c_k | cells) = mean_m log p_m(c_k | cells) + shift, up to a constant. What each of them has learned of the
    chances of its own batches and held-out rows is averaged out.

    Parameters
    ----------
    members : list of MaskedNetwork
    """

    log_shares: Tensor
    shift: Tensor
    members: Any

    def __init__(self, members):
        super().__init__()
        self.members, self.sizes = nn.ModuleList(members), members[0].sizes
        self.register_buffer("log_shares", members[0].log_shares.clone())
        self.register_buffer("shift", torch.zeros_like(members[0].shift))

    def logits(self, j: int, codes: Tensor, values: Tensor) -> Tensor:
        """Log-probabilities of the codes of one column, up to a constant; if nothing is visible, those of the rows."""
        logs = torch.stack([member.column(j, codes, values) for member in self.members])
        return logs.mean(0) + self.shift[self.codes_of(j)]

    def column(self, j: int, codes: Tensor, values: Tensor) -> Tensor:
        """The log-probabilities of the codes of one column."""
        return torch.log_softmax(self.logits(j, codes, values), 1)

    def codes_of(self, j):
        """Where the codes of one column stand among those of all."""
        return self.members[0].codes_of(j)


@torch.no_grad()
def calibrate(network, n_values, generator, seconds=None):
    """Shift the logits of each column so that drawn rows have the shares of the rows of fit.

    Errors of one column's probabilities become inputs of the next one's: rows are drawn column by column, and each
    column's shift solves mean softmax(logits + shift) = shares (iterative proportional fitting) before it is drawn.
    With a limit of seconds, fewer rows are drawn as soon as the columns before show that all would take longer, but no
    fewer than tell a share; columns for which no time is left keep the probabilities that were learned.
    """
    n_columns, device = len(network.sizes), network.log_shares.device
    n = int(np.clip(_CALIBRATION_CELLS // n_columns, _FEWEST_CALIBRATION_ROWS, _CALIBRATION_ROWS))
    codes = torch.full((n, n_columns), -1, device=device)
    values = torch.full((n, n_values), torch.nan, device=device)
    start = time.perf_counter()
    for j in range(n_columns):
        took = time.perf_counter() - start
        if seconds is not None and took > seconds:
            return
        if j == 1:
            start += took  # the first column waits for what the others find at hand
        elif j > 1 and seconds is not None:
            share = (j - 1) * (seconds - took) / (took * (n_columns - j))
            kept = max(int(len(codes) * min(1.0, share)), _TOO_FEW)
            codes, values = codes[:kept], values[:kept]
        rows = network.codes_of(j)
        shift, log_shares = network.shift[rows], network.log_shares[rows]
        logits = torch.cat(
            [
                network.logits(j, *block)
                for block in zip(codes.split(ROWS_PER_BLOCK), values.split(ROWS_PER_BLOCK), strict=True)
            ]
        )
        for _ in range(_CALIBRATION_ROUNDS if j else 0):
            drawn = torch.log_softmax(logits + shift, 1).exp().mean(0)
            shift += (log_shares - drawn.clamp(min=1e-12).log()).clamp(-_LARGEST_SHIFT, _LARGEST_SHIFT)
        codes[:, j] = one_of(torch.log_softmax(logits + shift, 1), generator)
