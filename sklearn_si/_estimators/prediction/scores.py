"""Targets that repeat values on the scale of a normal distribution."""

import numpy as np
from scipy.special import ndtri

from ..._utils.names import registered
from ...preprocessing._grids import ColumnGrid

# Least distance of a point from the ends of the unit interval, where normal scores are infinite.
_MARGIN = 1e-12


@registered("prediction.ScoreGrid")
class ScoreGrid:
    """The values of a target, each with a cell of the normal distribution that has its share of the rows.

    z = Phi^-1(F(y-) + u (F(y) - F(y-))),    u ~ U(0, 1)

    with F the distribution function of the rows of fit (randomised normal scores: Dunn & Smyth 1996, "Randomized
    quantile residuals"). Over all rows z is normal, without a jump at the end of a cell that a flow would smooth: the
    mass of a frequent value would then leak into the cell of a rare one beside it.

    Parameters
    ----------
    values : ndarray of shape (n_values,)
        At least two, ascending.
    shares : ndarray of shape (n_values,)
        Of the rows, positive.
    """

    def __init__(self, values, shares):
        self.values, self.shares = values, shares
        self._cells, self._below = ColumnGrid(values), np.concatenate([[0.0], np.cumsum(shares)[:-1]])
        self.edges = ndtri(np.append(self._below, 1.0))
        self.widths = self._cells.widths

    @classmethod
    def of(cls, y, weight):
        """The values of a column, values that differ by rounding as one, and their shares by weight."""
        cells = ColumnGrid.of(y)
        shares = np.bincount(cells.cells(y), weight, minlength=len(cells.values))
        return cls(cells.values, shares / shares.sum())

    def cells(self, y):
        """The number of the value that is nearest to each number."""
        return self._cells.cells(y)

    def scatter(self, y, uniform):
        """Normal scores of values, at a share `uniform` of their cells."""
        cells = self.cells(y)
        return ndtri(np.clip(self._below[cells] + uniform * self.shares[cells], _MARGIN, 1 - _MARGIN))

    def snap(self, z):
        """The value whose cell contains each normal score."""
        return self.values[np.searchsorted(self.edges[1:-1], z, side="right")]
