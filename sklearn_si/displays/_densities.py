"""Plots of paths and of log-densities."""

import numpy as np

from .._utils.input_checks import by_names, nameless
from .._utils.kinds import check_cells
from ._axes import COLUMNS, POINTS, OneAxisDisplay, coarse, column_names, pyplot, require

# Grid points on each side of a density map that is alone in its figure.
_GRID = 60
# Grid points on each side of a density map among others.
_SMALL_GRID = 30
# Nats below the largest log-density at which the colours end.
_NATS = 12.0


class TrajectoryDisplay(OneAxisDisplay):
    """Plot of the paths of rows along the ODE or the SDE of a model.

    Parameters
    ----------
    paths : ndarray of shape (n_times, n_samples, n_shown)
        One or two columns of the paths, in data units. A single column is plotted against time.
    times : ndarray of shape (n_times,)
        Times from 0 to 1.
    names : list of str
        Names of the columns.

    Attributes
    ----------
    ax_, figure_ : matplotlib axis and figure
        The plot, after `plot` was called.
    """

    def __init__(self, paths, times, names):
        self.paths, self.times, self.names = paths, times, names

    @classmethod
    def from_estimator(cls, estimator, X, *, n_times=50, columns=(0, 1), noise_level=0, random_state=0, ax=None):
        """Plot the paths of some rows of the base, from t = 0 to t = 1.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator with `trajectory`.
        X : array-like of shape (n_samples, n_features)
            Rows at t = 0, in data units.
        n_times : int, default=50
            Number of times.
        columns : tuple of two ints, default=(0, 1)
            Positions of the columns to show.
        noise_level : float, default=0
            Noise level of the paths, in scaled units; 0 is the ODE.
        random_state : int, default=0
            Seed of the noise.
        ax : matplotlib axis, default=None
            The axis to draw on; None makes a new figure.

        Returns
        -------
        display : TrajectoryDisplay
        """
        require(estimator, "trajectory", "TrajectoryDisplay", "pass a flow, a diffusion or a bridge of this library")
        paths = np.asarray(estimator.trajectory(X, n_times, noise_level=noise_level, random_state=random_state))
        columns = list(columns)[: paths.shape[2]]
        names = [column_names(estimator, paths.shape[2])[j] for j in columns]
        return cls(paths[:, :, columns], np.linspace(0, 1, n_times), names).plot(ax=ax)

    def _draw(self, ax):
        """Draw the paths."""
        if len(self.names) == 1:
            ax.plot(self.times, self.paths[:, :, 0], color="0.5", lw=0.5)
            ax.set(xlabel="t", ylabel=self.names[0])
            return
            ax.plot(*self.paths.transpose(2, 0, 1), color="0.7", lw=0.5, zorder=1)
        for rows, label in ((self.paths[0], "t = 0"), (self.paths[-1], "t = 1")):
            ax.scatter(*rows.T, s=6, label=label, zorder=2)
        ax.set(xlabel=self.names[0], ylabel=self.names[1])
        ax.legend()


class DensityDisplay:
    """Plot of the log-density: a curve for one column, a heat map for two, and one for each pair of more columns.

    With more than two columns, each heat map shows a section log p(x_i, x_j, the medians of the other columns) minus
    its maximum, in nats.

    Parameters
    ----------
    estimator : estimator
        A fitted estimator with `score_samples`.
    X : array-like of shape (n_samples, n_features)
        Rows in data units, which determine the range of the plot.
    names : list of str
        Names of the columns.

    Attributes
    ----------
    axes_, figure_ : ndarray of matplotlib axes, and figure
        The plot, after `plot` was called.
    """

    def __init__(self, estimator, X, names):
        self.estimator, self.X, self.names = estimator, np.asarray(check_cells(X, "X"), dtype=np.float64), names

    @classmethod
    def from_estimator(cls, estimator, X, *, resolution="auto"):
        """Plot the log-density of a fitted estimator around given rows.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator with `score_samples`.
        X : array-like of shape (n_samples, n_features)
            Rows in data units, which determine the range of the plot.
        resolution : int or "auto", default="auto"
            Number of grid points on each side; "auto" is 60, or 30 if there are several panels.

        Returns
        -------
        display : DensityDisplay
        """
        require(estimator, "score_samples", "DensityDisplay", "pass a density, such as InterpolantFlow")
        X = by_names(estimator, X, "X")
        return cls(estimator, X, column_names(estimator, np.shape(X)[1])).plot(resolution=resolution)

    def plot(self, *, resolution="auto"):
        """Draw the log-density.

        Parameters
        ----------
        resolution : int or "auto", default="auto"
            As in `from_estimator`.

        Returns
        -------
        self : object
        """
        d = min(self.X.shape[1], COLUMNS)
        low, high = np.quantile(self.X, [0.005, 0.995], axis=0)
        margin = 0.15 * (high - low)
        if resolution == "auto":
            resolution = _GRID if d <= 2 else _SMALL_GRID
        grids = np.linspace(low - margin, high + margin, resolution).T
        n = max(1, d - 1)
        size = (6, 4.5) if n == 1 else (3.4 * n, 3.2 * n)
        self.figure_, self.axes_ = pyplot().subplots(n, n, figsize=size, layout="constrained", squeeze=False)
        if d == 1:
            with nameless():
                self.axes_[0, 0].plot(grids[0], coarse(self.estimator).score_samples(grids[0][:, None]))
            self.axes_[0, 0].set(xlabel=self.names[0], ylabel="log-density (nats)")
            return self
        for i in range(1, d):
            for j in range(n):
                self._map(self.axes_[i - 1, j], j, i, grids) if j < i else self.axes_[i - 1, j].set_axis_off()
        if d < self.X.shape[1]:
            self.figure_.suptitle(f"the first {d} of {self.X.shape[1]} columns; the others are at their medians")
        return self

    def _map(self, axis, j, i, grids):
        first, second = np.meshgrid(grids[j], grids[i])
        rows = np.tile(np.median(self.X, axis=0), (first.size, 1))
        rows[:, j], rows[:, i] = first.ravel(), second.ravel()
        with nameless():
            value = coarse(self.estimator).score_samples(rows).reshape(first.shape)
        above_two = self.X.shape[1] > 2
        value = value - value.max() if above_two else value
        image = axis.pcolormesh(first, second, value, vmin=value.max() - _NATS, vmax=value.max(), shading="gouraud")
        if not above_two:
            axis.scatter(*self.X[:POINTS].T, s=2, color="white", alpha=0.4, linewidths=0)
        label = "log-density minus its maximum (nats)" if above_two else "log-density (nats)"
        self.figure_.colorbar(image, ax=axis, label=label)
        axis.set(xlabel=self.names[j], ylabel=self.names[i])
