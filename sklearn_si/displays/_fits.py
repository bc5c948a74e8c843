"""Plots of a fit: its losses, its calibration, its noise levels."""

import numpy as np
from sklearn.base import is_regressor
from sklearn.utils.validation import check_is_fitted

from .._estimators.model_estimator import ModelEstimator
from .._utils.input_checks import by_names
from ._axes import OneAxisDisplay, pyplot, require

# Bins of a histogram of PIT values.
_PIT_BINS = 10


class LossCurveDisplay(OneAxisDisplay):
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
        if not isinstance(estimator, ModelEstimator):
            raise ValueError(
                f"LossCurveDisplay needs a fitted flow, diffusion or bridge of this library, but got a "
                f"{type(estimator).__name__}: pass the one within it, if there is one."
            )
        check_is_fitted(estimator)
        one_sample = estimator.base_preprocessing_ is None
        name = "held-out log-likelihood (nats)" if one_sample else "minus the held-out loss"
        return cls(estimator.loss_curve_, estimator.validation_scores_, name).plot(ax=ax)

    def _draw(self, ax):
        """Draw the curves."""
        rounds = np.arange(1, len(self.loss) + 1)
        (line,) = ax.plot(rounds, self.loss, color="C0", label="training loss")
        ax.set(xlabel="round", ylabel="training loss")
        lines = [line]
        if self.scores is not None and len(self.scores):
            beside = ax.twinx()
            lines += beside.plot(rounds[-len(self.scores) :], self.scores, color="C1", label=self.score_name)
            beside.set_ylabel(self.score_name)
        # The legend is above the plot, because the curves may be anywhere in it.
        ax.legend(handles=lines, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)


class CalibrationDisplay:
    """Plot of the results of `diagnose`: of a density, or of a regressor that predicts a distribution.

    Of a density, the loss at each time, and the calibration of each field,

    E[b . (b - dx_t/dt)] = 0,    E[eta . (eta - z)] = 0    at the minimiser of the losses

    (arXiv 2209.15571, equation (11)), in squared scaled units. Of an `InterpolantRegressor`, the coverage of its
    intervals, and the histogram of its PIT values P(Y <= y | x), which is flat if the model is right. Error bars are
    two standard errors.

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
            Held-out rows of the first sample that fit was given, in data units; of a regressor, its X.
        X1 : array-like of shape (n_samples_1, n_features), default=None
            Held-out rows of the second sample, if there is one; of a regressor, its y.

        Returns
        -------
        display : CalibrationDisplay
        """
        require(estimator, "diagnose", "CalibrationDisplay", "pass an estimator of this library that has it")
        if is_regressor(estimator):
            return cls(estimator.diagnose(X0, X1)).plot()
        X0, X1 = by_names(estimator, X0, "X0"), X1 if X1 is None else by_names(estimator, X1, "X1")
        return cls(estimator.diagnose(X0, X1)).plot()

    def plot(self):
        """Draw the losses and the calibrations, or the coverages and the histogram.

        Returns
        -------
        self : object
        """
        self.figure_, self.axes_ = pyplot().subplots(1, 2, figsize=(8, 3.5), layout="constrained")
        if "pit" in self.report:
            self._plot_coverages(self.axes_[0])
            self._plot_pit(self.axes_[1])
        else:
            self._plot_fields()
        return self

    def _plot_coverages(self, ax):
        """The shares of rows in intervals against the coverages that were asked for, for each output."""
        asked, n = self.report.coverages, len(self.report.coverages)
        ax.plot([0, 1], [0, 1], color="0.6", lw=1)
        pairs = zip(self.report.observed.reshape(n, -1).T, self.report.observed_error.reshape(n, -1).T, strict=True)
        for j, (values, errors) in enumerate(pairs):
            ax.errorbar(asked, values, 2 * errors, fmt="o-", capsize=3, label=f"output {j}")
        ax.set(xlabel="coverage that was asked for", ylabel="share of rows inside", xlim=(0.4, 1.0), ylim=(0.3, 1.02))
        if self.report.observed.size > n:
            ax.legend()

    def _plot_pit(self, ax):
        """The histogram of PIT values, with the height and twice the error of a flat one."""
        pit = self.report.pit.reshape(len(self.report.pit), -1)
        edges = np.linspace(0, 1, _PIT_BINS + 1)
        error = 2 * np.sqrt((1 - 1 / _PIT_BINS) / (len(pit) / _PIT_BINS))
        ax.axhspan(1 - error, 1 + error, color="0.9")
        for j, values in enumerate(pit.T):
            ax.hist(
                values, edges, density=True, histtype="stepfilled" if pit.shape[1] == 1 else "step", label=j, alpha=0.7
            )
        ax.axhline(1, color="0.6", lw=1)
        ax.set(xlabel="P(Y <= y | x)", ylabel="density of held-out rows")

    def _plot_fields(self):
        """The losses and the calibrations of the fields."""
        times = np.asarray(self.report.times)
        self.axes_[0].bar(times, self.report.loss, 0.9 * (times[1] - times[0]))
        self.axes_[0].set(xlabel="t", ylabel="held-out loss of the velocity (scaled units)")
        names = [name for name in ("velocity", "denoiser") if f"{name}_calibration" in self.report]
        values = [self.report[f"{name}_calibration"] for name in names]
        errors = [2 * self.report[f"{name}_calibration_error"] for name in names]
        self.axes_[1].axhline(0, color="0.6", lw=1)
        self.axes_[1].errorbar(names, values, errors, fmt="o", capsize=4)
        self.axes_[1].set(xlabel="field", ylabel="calibration (0 at the minimiser)", xlim=(-0.5, len(names) - 0.5))


class NoiseLevelDisplay(OneAxisDisplay):
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

    def _draw(self, ax):
        """Draw the curve, on an axis that is linear up to the smallest positive level and logarithmic beyond."""
        ax.errorbar(self.levels, self.scores, yerr=self.standard_errors, fmt="o-", capsize=3, label="score")
        ax.axvline(self.chosen, color="C1", linestyle="--", label=f"chosen: {self.chosen:g}")
        positive = [level for level in self.levels if level > 0]
        if positive:
            ax.set_xscale("symlog", linthresh=min(positive))
        ax.set(xlabel="noise level (scaled units)", ylabel="score of drawn rows (0: perfect on average)")
        ax.legend()
