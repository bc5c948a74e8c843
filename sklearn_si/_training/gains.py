"""How much one state of the weights is better than another, from differences of the same rows."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from .._utils.tensors import as_array
from ..distributed import Single
from .optimizer import AdamWithEMA
from .weighting import first_rows, mean_by_weight, n_effective_of

# Growth of the lead of training rows over validation rows that is overfitting, in nats ...
_WIDER_LEAD = 0.1
# ... where it is also so many of its standard errors.
_SURE = 2.0
# Validation rows by which the last weights of a training are compared with the best, at the most ...
_MOST_LAST_ROWS = 1000
# ... which are those of a round, and as many again for each so many seconds of the fit.
_SECONDS_FOR_LAST = 10.0


@dataclasses.dataclass(frozen=True)
class RowScores:
    """Log-likelihoods of some rows, one by one.

    Parameters
    ----------
    values : callable
        values() -> Tensor of shape (n,), under the weights that the networks have.
    rows : ndarray of int
        Their numbers.
    weight : ndarray or None
        Weights of all rows.
    group : Single or Group
        The processes that train together, each with rows of its own.
    """

    values: Callable[[], Tensor]
    rows: np.ndarray
    weight: np.ndarray | None
    group: Single

    def gain(self, optimizer: AdamWithEMA, after: Tensor, before: Tensor) -> tuple[float, float]:
        """The mean of what weights gain on others, in nats, and its standard error: that of paired differences."""
        return self.moments(self._under(optimizer, after) - self._under(optimizer, before))

    def lead(self, other: "RowScores") -> tuple[float, float]:
        """The same of the models of two runs, at the same rows."""
        return self.moments(as_array(self.values(), np.float64) - as_array(other.values(), np.float64))

    def moments(self, values: np.ndarray) -> tuple[float, float]:
        """The mean of values at the rows, and its standard error."""
        parts = (mean_by_weight(part, self.weight, self.rows) for part in (values, values**2))
        mean, square = (self.group.mean_over_rows(part) for part in parts)
        n = self.group.total(n_effective_of(self.weight, self.rows))
        return mean, (max(0.0, square - mean**2) / n) ** 0.5

    def _under(self, optimizer: AdamWithEMA, weights: Tensor) -> np.ndarray:
        with optimizer.live(weights):
            return as_array(self.values(), np.float64)


@dataclasses.dataclass(frozen=True)
class Gains:
    """What a training asks of training and held-out rows beside a score of each round.

    The score of a round is a mean over few rows. Of rows with heavy tails it moves by more than .1 nats from round to
    round, whatever the model: what counts is how the same rows change, in units of the error of their mean.

    Parameters
    ----------
    training, validation : RowScores
        Of as many rows as score a round.
    last : RowScores
        Of as many validation rows as there is time for once.
    """

    training: RowScores
    validation: RowScores
    last: RowScores

    def overfits(self, optimizer: AdamWithEMA) -> bool:
        """Whether training rows have gained since the best round, and more than held-out rows for certain."""
        assert optimizer.best is not None
        # on a plateau of the rate neither gains: what overfits, gains alone
        rise, error = self.training.gain(optimizer, optimizer.ema, optimizer.best)
        if rise <= 0:
            return False
        held_out, other = self.validation.gain(optimizer, optimizer.ema, optimizer.best)
        return rise - held_out > max(_WIDER_LEAD, _SURE * (error**2 + other**2) ** 0.5)

    def prefers_last(self, optimizer: AdamWithEMA) -> bool:
        """Whether the weights at the end of the schedule are within an error of the best ones, or better.

        Of many rounds one scores highest by chance; the last has the lowest rate.
        """
        assert optimizer.best is not None
        gain, error = self.last.gain(optimizer, optimizer.ema, optimizer.best)
        return gain > -error


def row_scores(run: Any, rows: np.ndarray, most: int) -> RowScores:
    """The log-likelihoods of the first of some rows, at most so many, under the networks of a run."""
    weight = run.problem.target_weight
    rows = first_rows(weight, rows, most)
    return RowScores(run.row_likelihoods(rows), rows, weight, run.problem.group)


def gains_of(run: Any) -> Gains:
    """What a run asks of rows one by one."""
    few, limit = run.n_validation_rows(), run.recipe.max_time
    train, held = run.problem.target_train, run.problem.target_val
    many = few if limit is None else few * (1 + int(limit / _SECONDS_FOR_LAST))
    return Gains(*(row_scores(run, *of) for of in ((train, few), (held, few), (held, min(_MOST_LAST_ROWS, many)))))
