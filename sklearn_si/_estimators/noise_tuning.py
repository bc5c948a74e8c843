"""The noise level of a fitted model, chosen by drawn rows without a refit."""

import dataclasses
import math
import numbers
from typing import Any

import numpy as np
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from .._utils.figures import Figures
from ..metrics import energy_distance
from .model_access import AsksModel

# Levels that are judged unless others are given: the ODE, and two a doubling of the paper's range.
_LEVELS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
# Steps at a level are those of the estimator times max(1, level), and no more than this.
_MOST_STEPS = 1000
# Rows that are drawn and compared at the most: distances of all pairs cost as much as the drawing beyond.
_MOST_ROWS = 2000


class NoiseTuningMethods(AsksModel):
    """The choice of the noise level after training."""

    noise_level: float
    n_steps: Any

    def _start_rows(self, start: Any, n_samples: int) -> np.ndarray:
        """The rows that a forecast starts from: one for all, or one for each."""
        raise NotImplementedError  # a leaf that forecasts has them

    def tune_noise_level(self, X, levels=None, scoring="energy", n_draws=10, *, condition=None, random_state=None):
        """Choose the noise level by comparing drawn rows with held-out rows, without a refit.

        score(level) = mean over draws k of -D^2(rows drawn at that level with the random numbers k, X)

        (D^2 is the squared energy distance; 2303.08797, section 7, compares levels by drawn rows). The draws of all
        levels share their random numbers. The number of steps grows with the level, so that no level is judged by its
        discretisation. The model takes the smallest level that is within one standard error of the best one, because
        less noise needs fewer steps, and as many steps as that level was judged with; another call begins again with
        the `n_steps` that you have set. That standard error is of the
        mean difference of the two over draws with equal random numbers, of which little is left in it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Held-out rows of the target, in data units; the first 2000 are used.
        levels : array-like of float, default=None
            Levels of at least 0, in scaled units; None is 0, 0.1, 0.25, 0.5, 1, 2, 4 and 8.
        scoring : "energy" or callable, default="energy"
            Minus the squared energy distance in standard deviations of X, or scoring(drawn, X) -> float, of which more
            is better.
        n_draws : int, default=10
            Draws at each level, each of as many rows as X has; at least 2.
        condition : array-like, default=None
            The condition of each row of X, if the model was fitted with a condition. With start="condition", the row
            from which each row of X followed; pairs of both are then compared.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws; None means the estimator's own.

        Returns
        -------
        result : Bunch
            `levels`, `scores` and `standard_errors` (over the draws), `difference_errors` (of the score of each level
            less that of the best one), `n_steps` of each level, the level of the highest score `best`, and the level
            that was taken, `chosen`.

        Raises
        ------
        ValueError
            When a level is not a finite number of at least 0, when `scoring` is neither "energy" nor callable, or when
            the model does not know its score function.
        """
        model = self._ready()
        _check_draws(n_draws)
        _check_scoring(scoring)
        X = self._validate_rows(X)
        if model.is_forecast:
            scoring = _of_pairs(scoring, self._start_rows(condition, len(X))[:_MOST_ROWS])
        given = {} if condition is None else {"condition": _first_rows(condition, len(X))}
        X = X[:_MOST_ROWS]
        levels, before = _checked_levels(levels), (self.noise_level, self.n_steps)
        first, score = self._seed_of(random_state), energy_score if scoring == "energy" else scoring
        given_steps = self._given_steps()
        steps, scores = [self._steps_at(level, given_steps) for level in levels], []
        try:
            for level, n_steps in zip(levels, steps, strict=True):
                self.set_params(noise_level=level, n_steps=n_steps)
                draws = (self._rows_of(len(X), first + k, given) for k in range(n_draws))
                scores.append([_finite_score(score(rows, X), level) for rows in draws])
        finally:
            self.set_params(noise_level=before[0], n_steps=before[1])
        result = _judged(levels, np.array(scores), steps)
        taken = given_steps if given_steps == "auto" else steps[levels.index(result.chosen)]
        self.set_params(noise_level=result.chosen, n_steps=taken)
        self._tuned_steps = taken, given_steps
        return result

    def _given_steps(self):
        """The steps that the user has set: those before the last call, where it has set the present ones."""
        taken, given = vars(self).get("_tuned_steps", (None, None))
        return given if taken == self.n_steps else self.n_steps

    def _rows_of(self, n, seed, given):
        return np.asarray(self.sample(n, random_state=seed % 2**31, **given))

    def _steps_at(self, level, given_steps):
        """Steps with which a level is judged."""
        if level == 0:
            return given_steps
        if given_steps == "auto":
            sampling = dataclasses.replace(self._sampling(), noise_level=level, n_steps="auto")
            return sampling.even_steps if self.model_.is_forecast else sampling.grid(None)[0]
        own = int(given_steps)
        return max(own, min(_MOST_STEPS, math.ceil(own * max(1.0, level))))


def _of_pairs(scoring, X0):
    """A scoring of forecasts: it compares pairs of a start row and what followed it."""
    score = energy_score if scoring == "energy" else scoring

    def of_pairs(rows, X):
        starts = np.broadcast_to(X0, X.shape)
        return score(np.hstack([starts, rows]), np.hstack([starts, X]))

    return of_pairs


def energy_score(rows, X):
    """Minus the squared energy distance, in standard deviations of X."""
    return -energy_distance(rows, X)


def _first_rows(condition, n_rows):
    """The condition of the rows that are used; what has another length is left for `sample` to judge."""
    if n_rows <= _MOST_ROWS or np.ndim(condition) == 0 or _num_samples(condition) != n_rows:
        return condition
    return _safe_indexing(condition, np.arange(_MOST_ROWS))


def _checked_levels(levels):
    """The levels in increasing order."""
    try:
        found = np.unique(_LEVELS if levels is None else np.asarray(levels, dtype=np.float64))
    except (TypeError, ValueError):
        found = np.array([])
    if not len(found) or not np.isfinite(found).all() or found.min() < 0:
        raise ValueError(f"Got levels={levels!r}, but expected one or more finite numbers of at least 0.")
    return found.tolist()


def _finite_score(score, level):
    """A score as a number; one that is not finite cannot be compared."""
    if not np.isfinite(score):
        raise ValueError(
            f"scoring gave {score!r} at noise level {level:g}, but expected a finite number, of which more is better."
        )
    return float(score)


def _judged(levels, scores, steps):
    """The result from the scores of each level (rows) and draw (columns)."""
    mean, best = scores.mean(1), int(np.argmax(scores.mean(1)))
    behind = scores[best] - scores  # draws of equal random numbers
    error, of_difference = (part.std(1, ddof=1) / scores.shape[1] ** 0.5 for part in (scores, behind))
    near = int(np.flatnonzero(behind.mean(1) <= of_difference)[0])
    return Figures(
        levels=np.array(levels), scores=mean, standard_errors=error, difference_errors=of_difference, n_steps=steps,
        best=levels[best], chosen=levels[near],
    )  # fmt: skip


def _check_scoring(scoring):
    """The one name that there is, or a function."""
    if not callable(scoring) and scoring != "energy":
        raise ValueError(
            f"Got scoring={scoring!r}, but expected 'energy' or a function of drawn rows and X that returns a number, "
            "of which more is better."
        )


def _check_draws(n_draws):
    """An integer of at least 2."""
    if not isinstance(n_draws, numbers.Integral) or n_draws < 2:
        raise ValueError(f"Got n_draws={n_draws!r}, but expected an integer of at least 2.")
