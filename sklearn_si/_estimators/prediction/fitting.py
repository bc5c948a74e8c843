"""How the maps of a regressor are learned: the target that is checked, the rows that train, the base that is chosen."""

import dataclasses
import time
from typing import Any

import numpy as np

from ..._training.validation_split import n_held_out
from ..._utils.frame_names import is_pandas, names_of, narwhals_series
from ..._utils.tensors import CALIBRATION_STREAM, FIT_STREAM
from ..._utils.weights import effective_rows, part_of_weights
from ...preprocessing._grids import Grid
from ..flow import InterpolantFlow
from .calibration import (
    CALIBRATION_SHARE,
    LEAST_ROWS_TO_CALIBRATE,
    Calibration,
    marginal_scores,
)
from .members import Rows, learn_member, validation_values
from .mixture import Mixture
from .scores import ScoreGrid
from .trees import LEAST_ROWS, N_FOLDS

# The bases that are fitted, by the parameter `base`.
BASES = {"auto": ("normal", "boosting"), "normal": ("normal",), "boosting": ("boosting",)}
# Values of a target up to which each has its share as a cell, and the mean is the sum over all of them.
FEW_VALUES = 64


@dataclasses.dataclass
class Search:
    """What decides which maps are learned.

    Parameters
    ----------
    flow : InterpolantFlow or None
    base : {"auto", "normal", "boosting"}
    n_estimators : int
    validation_fraction : float
    max_time : float or None
        Seconds, counted from
    began : float
        which `time.perf_counter` has shown.
    device : torch.device
    seed : int
    """

    flow: Any
    base: str
    n_estimators: int
    validation_fraction: float
    max_time: float | None
    began: float
    device: Any
    seed: int

    def learn(self, codes, Y, weight):
        """The maps, the base that was chosen, and the validation scores of the bases."""
        refuse_members_of_flow(self.flow)
        chosen, scores = BASES[self.base], {}
        members: list[Any] = []
        for k in range(self.n_estimators):
            rng = np.random.default_rng([self.seed, FIT_STREAM, k])
            order, n_held = rng.permutation(len(Y)), n_held_out(len(Y), self.validation_fraction)
            rows = Rows(codes, Y, weight, order[n_held:], order[:n_held])
            fitted = self._with_bases(rows, chosen, k)
            if k == 0:
                values = {name: validation_values(m, rows, self.device) for name, m in fitted.items()}
                chosen, scores = chosen_bases(values, part_of_weights(weight, rows.val))
            members += [fitted[name] for name in chosen]
        return members, "both" if len(chosen) > 1 else chosen[0], scores

    def _seconds(self, shares):
        """The time of the next map, one of so many; None without a limit."""
        if self.max_time is None:
            return None
        left = self.max_time - (time.perf_counter() - self.began)
        return max(left, self.max_time / 20) / shares

    def _with_bases(self, rows, bases, k):
        """One map by each base that is in question."""
        if len(rows.train) < LEAST_ROWS and self.base == "auto":
            bases = ("normal",)
        if len(rows.train) < N_FOLDS and self.base == "boosting":
            raise ValueError(
                f"Got {len(rows.train)} training rows, but base='boosting' needs at least {N_FOLDS}, one a fold: pass "
                "more rows, or use base='normal'."
            )
        flow, fitted = InterpolantFlow() if self.flow is None else self.flow, {}
        # after the first choice all maps have the same bases; until then one is what is expected
        shares = len(bases) + (self.n_estimators - k - 1) * (len(bases) if k else 1)
        for place, name in enumerate(bases):
            fitted[name] = learn_member(flow, rows, name == "boosting", self.seed + k, self._seconds(shares - place))
        return fitted


def chosen_bases(values, weight):
    """The bases whose maps are mixed, and the mean log-likelihood of each base.

    The mixture of both, unless one leads it by a standard error: their errors differ, so that on rows that nothing had
    seen it was better than either where they are near each other. Of the two, a normal base has to lead by a standard
    error: a network alone is stopped by the same rows, which flatters it, and it goes astray where trees do not.

    Parameters
    ----------
    values : dict of ndarray of shape (n_rows,)
        Log-likelihoods of the rows that validate, by the name of the base.
    weight : ndarray of shape (n_rows,) or None
    """
    scores = {name: float(np.average(own, weights=weight)) for name, own in values.items()}
    if len(values) < 2:
        return tuple(values), scores
    best = "normal" if _leads(values["normal"], values["boosting"], weight) else "boosting"
    mixed = np.logaddexp(values["normal"], values["boosting"]) - np.log(2)
    return ((best,) if _leads(values[best], mixed, weight) else BASES["auto"]), scores


def _leads(values, others, weight):
    """Whether the mean of some values is higher by its standard error."""
    lead = values - others
    mean = np.average(lead, weights=weight)
    variance = np.average((lead - mean) ** 2, weights=weight)
    return mean > np.sqrt(variance / max(1.0, effective_rows(len(lead), weight) - 1))


def rows_to_calibrate(n, is_wanted, seed):
    """Numbers of the rows that learn, and of those that calibrate, which neither train nor validate."""
    if not is_wanted:
        return np.arange(n), np.arange(0)
    if n < LEAST_ROWS_TO_CALIBRATE:
        raise ValueError(
            f"Got {n} rows, but calibrate=True needs at least {LEAST_ROWS_TO_CALIBRATE}, a fifth of which calibrate: "
            "pass more rows, or leave calibrate=False."
        )
    order = np.random.default_rng([seed, CALIBRATION_STREAM]).permutation(n)
    n_kept = n_held_out(n, CALIBRATION_SHARE)
    return np.sort(order[n_kept:]), np.sort(order[:n_kept])


def calibrations(mixture, codes, Y, weight, largest):
    """The maps of the scores, one for each output."""
    if Y.shape[1] == 1:
        return [Calibration(mixture.scores(codes, Y[:, 0]), weight, largest)]
    at, _ = mixture.nodes(codes, Y.shape[1])
    return [Calibration(marginal_scores(at[..., j], Y[:, j]), weight, largest) for j in range(Y.shape[1])]


def calibrated(members, device, codes, Y, weight, kept):
    """The calibrations by the rows that are kept for it; None without any."""
    if not len(kept):
        return None
    own, largest = (None, 1.0) if weight is None else (weight[kept], weight.max())
    return calibrations(Mixture(members, device), codes[kept], Y[kept], own, largest)


def scored_grid(grid, Y, weight):
    """The cells of a single column of few values by its normal scores; any other grid as it is."""
    # shares of many values, each of few rows, would be noise in the density
    if Y.shape[1] == 1 and grid.columns and len(grid.columns[0].values) <= FEW_VALUES:
        return Grid({0: ScoreGrid.of(Y[:, 0], weight)})
    return grid


def target_names(y):
    """The names of the columns of y; None where they have none."""
    series = y if is_pandas(y, "Series") else narwhals_series(y)
    names = names_of(y) if series is None else [series.name]
    return None if names == [None] else names


def refuse_members_of_flow(flow):
    """Raise where the flow inside is an ensemble, whose members have no common map."""
    if flow is not None and flow.n_estimators != 1:
        raise ValueError(
            f"Got flow with n_estimators={flow.n_estimators}, but a regressor moves rows along one map of each member: "
            "set n_estimators= of the InterpolantRegressor."
        )


def refuse_constant(Y, names=None):
    """Raise where a column, of a name or a number, holds one value, or where there are too few rows."""
    if len(Y) < 3:
        raise ValueError(f"Got n_samples={len(Y)}, while a minimum of 3 is required to learn a distribution.")
    constant = np.flatnonzero(np.ptp(Y, axis=0) == 0)
    if len(constant):
        name = constant[0] if names is None else repr(names[constant[0]])
        raise ValueError(
            f"Column {name} of y holds one value ({Y[0, constant[0]]:g}), which has no distribution to learn: "
            "leave it out."
        )
