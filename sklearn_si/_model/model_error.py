"""What a log-density may be wrong by because of the fit: an interval from the spread of the members of an ensemble."""

import numpy as np
from scipy import stats
from torch import Tensor

from .densities import members_log_density, mixed
from .ensemble import EnsembleModel
from .settings import Evaluation

# Probability with which an interval is to hold the log-density.
COVERAGE = 0.9
# Weight of the typical squared spread beside that of a row, and factor of the half-width: what the members have in
# common, and no spread shows, is taken to be as large as what it shows (benchmarks/results/model_error.txt).
_TYPICAL = 1.0
_SHARED = 2.0**0.5


def log_density_interval(
    model: EnsembleModel, X: np.ndarray, time: Tensor, evaluation: Evaluation, condition: object = None
) -> tuple[np.ndarray, np.ndarray]:
    """Log-density of an ensemble at validated rows, and the half-width of a 90 % interval of the true one, in nats.

    sqrt(2) t_{2 (m - 1)}(0.95) sqrt((s(x)^2 + s_0^2) / 2) + error of the solver

    with s(x) the standard deviation of the m members' log-densities at the row, and s_0 its typical value at held-out
    rows, which counts as much as the row's own at t = 1 (a moderated variance: Smyth 2004, "Linear models and empirical
    Bayes methods for assessing differential expression"); t is Student's quantile for so many degrees of freedom.

    Parameters
    ----------
    model : EnsembleModel
    X, time, evaluation, condition
        As in `log_density`.

    Returns
    -------
    log_density, half_width : ndarray of shape (n,)
    """
    values, errors = members_log_density(model, X, time, evaluation, condition)
    value, error = mixed(values, errors, X.dtype)
    typical = model.typical_spread if float(time) == 1 else None
    return value, (half_width(values, typical) + error).astype(X.dtype, copy=False)


def half_width(values: np.ndarray, typical_spread: float | None) -> np.ndarray:
    """The half-width from the log-densities of members, of shape (n_members, n), without the error of the solver.

    A typical spread of None, at other times than that of the target, leaves the rows' own.
    """
    weight = 0.0 if typical_spread is None else _TYPICAL
    freedom = (1 + weight) * (len(values) - 1)
    variance = (values.var(0, ddof=1) + weight * (typical_spread or 0.0) ** 2) / (1 + weight)
    return _SHARED * stats.t(freedom).ppf(0.5 + COVERAGE / 2) * np.sqrt(variance)
