"""Plots of real rows beside generated ones."""

import numpy as np

from ..metrics._encoder import TableEncoder
from ._axes import COLUMNS, POINTS, finite_range, listed, pyplot, require, with_margin


class SampleComparisonDisplay:
    """Histograms and scatter plots of the columns of real rows beside those of generated rows.

    Panel (i, j) plots column i against column j: real rows above the diagonal, generated rows below it. A column has
    one range in all panels, so that a panel and its mirror image can be compared. Text and categories are shown by
    number, the most frequent category first; missing values are left out.

    Parameters
    ----------
    real, generated : frame or array-like of shape (n_rows, n_columns)
        The first four columns are shown. The title names the others: to see them, pass a part of the columns.

    Attributes
    ----------
    names, left_out : list of str
        The columns that are shown, and those that are not.
    axes_, figure_ : ndarray of matplotlib axes, and figure
        The plot, after `plot` was called.
    """

    def __init__(self, real, generated):
        encoder = TableEncoder(real)
        names = [str(name) for name in encoder.names]
        self.names, self.left_out = names[:COLUMNS], names[COLUMNS:]
        self.real, self.generated = (encoder.for_trees(rows)[:, :COLUMNS] for rows in (real, generated))

    @classmethod
    def from_estimator(cls, estimator, X, *, n_samples=1000, random_state=0):
        """Plot rows that are drawn from a fitted estimator beside given rows.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator with `sample`.
        X : frame or array-like of shape (n_rows, n_columns)
            Real rows.
        n_samples : int, default=1000
            Number of rows to draw.
        random_state : int, default=0
            Seed of the draw.

        Returns
        -------
        display : SampleComparisonDisplay
        """
        require(estimator, "sample", "SampleComparisonDisplay", "pass a density, such as InterpolantFlow")
        return cls(X, estimator.sample(n_samples, random_state=random_state)).plot()

    def plot(self):
        """Draw the panels.

        Returns
        -------
        self : object
        """
        d = len(self.names)
        size = (2.6 * d + 1, 2.4 * d + 0.8)
        self.figure_, self.axes_ = pyplot().subplots(d, d, figsize=size, layout="constrained", squeeze=False)
        ranges = [finite_range(np.concatenate([self.real[:, j], self.generated[:, j]])) for j in range(d)]
        for i in range(d):
            for j in range(d):
                self._draw(self.axes_[i, j], i, j, ranges)
                self.axes_[i, j].set_xlabel(self.names[j] if i == d - 1 else "")
                self.axes_[i, j].set_ylabel("density" if i == j else self.names[i] if j == 0 else "")
        self.axes_[0, 0].legend(fontsize=8)
        if self.left_out:
            self.figure_.suptitle(f"not shown: {listed(self.left_out)}")
        return self

    def _draw(self, axis, i, j, ranges):
        sides = ((self.real, "real", "C0"), (self.generated, "generated", "C1"))
        if i == j:
            low, high = ranges[i]
            edges = np.linspace(low, high, 31)
            for rows, label, color in sides:
                kept = rows[np.isfinite(rows[:, i]), i]
                axis.hist(kept, edges, density=True, histtype="step", color=color, label=label)
            axis.set_xlim(with_margin(ranges[i]))
            return
        rows, _, color = sides[0] if i < j else sides[1]
        axis.scatter(rows[:POINTS, j], rows[:POINTS, i], s=3, color=color, alpha=0.5, linewidths=0)
        axis.set(xlim=with_margin(ranges[j]), ylim=with_margin(ranges[i]))
