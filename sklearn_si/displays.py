"""Plots of a fitted estimator: its losses, paths, density, samples, calibration and noise levels."""

import copy
import importlib

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._utils.input_checks import by_names, nameless
from .metrics._encoder import TableEncoder

__all__ = [
    "CalibrationDisplay",
    "DensityDisplay",
    "LossCurveDisplay",
    "NoiseLevelDisplay",
    "SampleComparisonDisplay",
    "TrajectoryDisplay",
]

# Largest number of columns that are shown in pairs.
_COLUMNS = 4
# Largest number of rows in a scatter plot.
_POINTS = 1000
# Largest number of columns that a title names.
_NAMES = 6
# Grid points on each side of a density map that is alone in its figure.
_GRID = 60
# Grid points on each side of a density map among others.
_SMALL_GRID = 30
# Largest error of the plotted log-densities, in nats: colours do not show smaller differences.
_ODE_TOL = 0.05
# Nats below the largest log-density at which the colours end.
_NATS = 12.0


def _pyplot():
    try:
        return importlib.import_module("matplotlib.pyplot")
    except ModuleNotFoundError as error:
        raise ValueError("Displays need matplotlib, which is not installed: pip install 'sklearn-si[plot]'.") from error


def _axis(ax):
    """An axis, and its figure; a new one if none is given."""
    if ax is None:
        _, ax = _pyplot().subplots(layout="constrained")
    return ax, ax.figure


def _names(estimator, n):
    return list(getattr(estimator, "feature_names_in_", [f"x{j}" for j in range(n)]))


class LossCurveDisplay:
    """Plot of the training loss and the validation score of each round.

    The loss is the sum of the losses of the learned fields (arXiv 2303.08797, equations (2.13) and (2.19)), in squared
    scaled units.

    Parameters
    ----------
    loss : array-like of shape (n_rounds,)
        Mean training loss of each round.
    scores : array-like of shape (n_rounds,) or None, default=None
        Validation scores of the last rounds.
    score_name : str, default="validation score"
        Label of the scores, with their unit.

    Attributes
    ----------
    ax_, figure_ : matplotlib axis and figure
        The plot, after `plot` was called.
    """

    def __init__(self, loss, scores=None, score_name="validation score"):
        self.loss, self.scores, self.score_name = loss, scores, score_name

    @classmethod
    def from_estimator(cls, estimator, *, ax=None):
        """Plot the curves of a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator with `loss_curve_` and `validation_scores_`.
        ax : matplotlib axis, default=None
            The axis to draw on; None makes a new figure.

        Returns
        -------
        display : LossCurveDisplay
        """
        check_is_fitted(estimator)
        one_sample = getattr(estimator, "base_preprocessing_", None) is None
        name = "held-out log-likelihood (nats)" if one_sample else "minus the held-out loss"
        return cls(estimator.loss_curve_, estimator.validation_scores_, name).plot(ax=ax)

    def plot(self, *, ax=None):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib axis, default=None
            The axis to draw on; None makes a new figure.

        Returns
        -------
        self : object
        """
        self.ax_, self.figure_ = _axis(ax)
        rounds = np.arange(1, len(self.loss) + 1)
        (line,) = self.ax_.plot(rounds, self.loss, color="C0", label="training loss")
        self.ax_.set(xlabel="round", ylabel="training loss")
        lines = [line]
        if self.scores is not None and len(self.scores):
            beside = self.ax_.twinx()
            lines += beside.plot(rounds[-len(self.scores) :], self.scores, color="C1", label=self.score_name)
            beside.set_ylabel(self.score_name)
        # The legend is above the plot, because the curves may be anywhere in it.
        self.ax_.legend(handles=lines, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
        return self


class TrajectoryDisplay:
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
        paths = np.asarray(estimator.trajectory(X, n_times, noise_level=noise_level, random_state=random_state))
        columns = list(columns)[: paths.shape[2]]
        names = [_names(estimator, paths.shape[2])[j] for j in columns]
        return cls(paths[:, :, columns], np.linspace(0, 1, n_times), names).plot(ax=ax)

    def plot(self, *, ax=None):
        """Draw the paths.

        Parameters
        ----------
        ax : matplotlib axis, default=None
            The axis to draw on; None makes a new figure.

        Returns
        -------
        self : object
        """
        self.ax_, self.figure_ = _axis(ax)
        if len(self.names) == 1:
            self.ax_.plot(self.times, self.paths[:, :, 0], color="0.5", lw=0.5)
            self.ax_.set(xlabel="t", ylabel=self.names[0])
            return self
        self.ax_.plot(*self.paths.transpose(2, 0, 1), color="0.7", lw=0.5, zorder=1)
        for rows, label in ((self.paths[0], "t = 0"), (self.paths[-1], "t = 1")):
            self.ax_.scatter(*rows.T, s=6, label=label, zorder=2)
        self.ax_.set(xlabel=self.names[0], ylabel=self.names[1])
        self.ax_.legend()
        return self


def _coarse(estimator):
    """The estimator itself, or a copy whose log-densities are accurate enough for a plot."""
    if not hasattr(estimator, "ode_tol"):
        return estimator
    return copy.copy(estimator).set_params(ode_tol=max(_ODE_TOL, estimator.ode_tol))


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
        self.estimator, self.X, self.names = estimator, np.asarray(X, dtype=np.float64), names

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
        X = by_names(estimator, X, "X")
        return cls(estimator, X, _names(estimator, np.shape(X)[1])).plot(resolution=resolution)

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
        d = min(self.X.shape[1], _COLUMNS)
        low, high = np.quantile(self.X, [0.005, 0.995], axis=0)
        margin = 0.15 * (high - low)
        if resolution == "auto":
            resolution = _GRID if d <= 2 else _SMALL_GRID
        grids = np.linspace(low - margin, high + margin, resolution).T
        n = max(1, d - 1)
        size = (6, 4.5) if n == 1 else (3.4 * n, 3.2 * n)
        self.figure_, self.axes_ = _pyplot().subplots(n, n, figsize=size, layout="constrained", squeeze=False)
        if d == 1:
            with nameless():
                self.axes_[0, 0].plot(grids[0], _coarse(self.estimator).score_samples(grids[0][:, None]))
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
            value = _coarse(self.estimator).score_samples(rows).reshape(first.shape)
        above_two = self.X.shape[1] > 2
        value = value - value.max() if above_two else value
        image = axis.pcolormesh(first, second, value, vmin=value.max() - _NATS, vmax=value.max(), shading="gouraud")
        if not above_two:
            axis.scatter(*self.X[:_POINTS].T, s=2, color="white", alpha=0.4, linewidths=0)
        label = "log-density minus its maximum (nats)" if above_two else "log-density (nats)"
        self.figure_.colorbar(image, ax=axis, label=label)
        axis.set(xlabel=self.names[j], ylabel=self.names[i])


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
        self.names, self.left_out = names[:_COLUMNS], names[_COLUMNS:]
        self.real, self.generated = (encoder.for_trees(rows)[:, :_COLUMNS] for rows in (real, generated))

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
        return cls(X, estimator.sample(n_samples, random_state=random_state)).plot()

    def plot(self):
        """Draw the panels.

        Returns
        -------
        self : object
        """
        d = len(self.names)
        size = (2.6 * d + 1, 2.4 * d + 0.8)
        self.figure_, self.axes_ = _pyplot().subplots(d, d, figsize=size, layout="constrained", squeeze=False)
        ranges = [_range(np.concatenate([self.real[:, j], self.generated[:, j]])) for j in range(d)]
        for i in range(d):
            for j in range(d):
                self._draw(self.axes_[i, j], i, j, ranges)
                self.axes_[i, j].set_xlabel(self.names[j] if i == d - 1 else "")
                self.axes_[i, j].set_ylabel("density" if i == j else self.names[i] if j == 0 else "")
        self.axes_[0, 0].legend(fontsize=8)
        if self.left_out:
            self.figure_.suptitle(f"not shown: {_listed(self.left_out)}")
        return self

    def _draw(self, axis, i, j, ranges):
        sides = ((self.real, "real", "C0"), (self.generated, "generated", "C1"))
        if i == j:
            low, high = ranges[i]
            edges = np.linspace(low, high, 31)
            for rows, label, color in sides:
                kept = rows[np.isfinite(rows[:, i]), i]
                axis.hist(kept, edges, density=True, histtype="step", color=color, label=label)
            axis.set_xlim(_with_margin(ranges[i]))
            return
        rows, _, color = sides[0] if i < j else sides[1]
        axis.scatter(rows[:_POINTS, j], rows[:_POINTS, i], s=3, color=color, alpha=0.5, linewidths=0)
        axis.set(xlim=_with_margin(ranges[j]), ylim=_with_margin(ranges[i]))


def _range(values):
    """The smallest and the largest finite value, which are moved apart if they are equal."""
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    return (low, high) if high > low else (low, low + max(1e-9, 1e-9 * abs(low)))


def _with_margin(limits):
    low, high = limits
    margin = 0.05 * (high - low)
    return low - margin, high + margin


def _listed(names):
    """The first names, and how many more there are."""
    more = len(names) - _NAMES
    return ", ".join(names[:_NAMES]) + (f" and {more} more" if more > 0 else "")


class CalibrationDisplay:
    """Plot of the results of `diagnose`: the loss at each time, and the calibration of each field.

    E[b . (b - dx_t/dt)] = 0,    E[eta . (eta - z)] = 0    at the minimiser of the losses

    (arXiv 2209.15571, equation (11)), in squared scaled units. Error bars are two standard errors.

    Parameters
    ----------
    report : Bunch
        The result of `diagnose`.

    Attributes
    ----------
    axes_, figure_ : ndarray of matplotlib axes, and figure
        The plot, after `plot` was called.
    """

    def __init__(self, report):
        self.report = report

    @classmethod
    def from_estimator(cls, estimator, X0, X1=None):
        """Plot the calibration of a fitted estimator on held-out rows.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator with `diagnose`.
        X0 : array-like of shape (n_samples_0, n_features)
            Held-out rows of the first sample that fit was given, in data units.
        X1 : array-like of shape (n_samples_1, n_features), default=None
            Held-out rows of the second sample, if there is one.

        Returns
        -------
        display : CalibrationDisplay
        """
        X0, X1 = by_names(estimator, X0, "X0"), X1 if X1 is None else by_names(estimator, X1, "X1")
        return cls(estimator.diagnose(X0, X1)).plot()

    def plot(self):
        """Draw the losses and the calibrations.

        Returns
        -------
        self : object
        """
        self.figure_, self.axes_ = _pyplot().subplots(1, 2, figsize=(8, 3.5), layout="constrained")
        times = np.asarray(self.report.times)
        self.axes_[0].bar(times, self.report.loss, 0.9 * (times[1] - times[0]))
        self.axes_[0].set(xlabel="t", ylabel="held-out loss of the velocity (scaled units)")
        names = [name for name in ("velocity", "denoiser") if f"{name}_calibration" in self.report]
        values = [self.report[f"{name}_calibration"] for name in names]
        errors = [2 * self.report[f"{name}_calibration_error"] for name in names]
        self.axes_[1].axhline(0, color="0.6", lw=1)
        self.axes_[1].errorbar(names, values, errors, fmt="o", capsize=4)
        self.axes_[1].set(xlabel="field", ylabel="calibration (0 at the minimiser)", xlim=(-0.5, len(names) - 0.5))
        return self


class NoiseLevelDisplay:
    """Plot of the score of each noise level with its standard error, and of the chosen level.

    score = -D^2(drawn rows, held-out rows)    (the energy distance; see `sklearn_si.metrics.sample_scorer`)

    The mean score of a perfect model is 0, and values above 0 are noise.

    Parameters
    ----------
    levels, scores, standard_errors : array-like of shape (n_levels,)
        As in the result of `InterpolantDiffusion.tune_noise_level`; the levels are in scaled units.
    chosen : float
        The chosen level.

    Attributes
    ----------
    ax_, figure_ : matplotlib axis and figure
        The plot, after `plot` was called.
    """

    def __init__(self, levels, scores, standard_errors, chosen):
        self.levels, self.scores, self.standard_errors, self.chosen = levels, scores, standard_errors, chosen

    @classmethod
    def from_result(cls, result, *, ax=None):
        """Plot a result of `InterpolantDiffusion.tune_noise_level`.

        Parameters
        ----------
        result : Bunch
            The result.
        ax : matplotlib axis, default=None
            The axis to draw on; None makes a new figure.

        Returns
        -------
        display : NoiseLevelDisplay
        """
        return cls(result.levels, result.scores, result.standard_errors, result.chosen).plot(ax=ax)

    def plot(self, *, ax=None):
        """Draw the curve, on an axis that is linear up to the smallest positive level and logarithmic beyond.

        Parameters
        ----------
        ax : matplotlib axis, default=None
            The axis to draw on; None makes a new figure.

        Returns
        -------
        self : object
        """
        self.ax_, self.figure_ = _axis(ax)
        self.ax_.errorbar(self.levels, self.scores, yerr=self.standard_errors, fmt="o-", capsize=3, label="score")
        self.ax_.axvline(self.chosen, color="C1", linestyle="--", label=f"chosen: {self.chosen:g}")
        positive = [level for level in self.levels if level > 0]
        if positive:
            self.ax_.set_xscale("symlog", linthresh=min(positive))
        self.ax_.set(xlabel="noise level (scaled units)", ylabel="score of drawn rows (0: perfect on average)")
        self.ax_.legend()
        return self
