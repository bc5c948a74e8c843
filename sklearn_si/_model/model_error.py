"""What a log-density may be wrong by because of the fit: an interval from the spread of the members of an ensemble."""

import numpy as np
from torch import Tensor

from .densities import members_log_density, mixed
from .ensemble import EnsembleModel
from .settings import Evaluation


def log_density_interval(
    model: EnsembleModel, X: np.ndarray, time: Tensor, evaluation: Evaluation, condition: object = None
) -> tuple[np.ndarray, np.ndarray]:
    """Log-density of an ensemble at validated rows, and the half-width of a 90 % interval of the true one, in nats.

    As `ErrorScale` has it from the spread of the members, plus the error of the solver.

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
    return value, (model.error_scale.half_width(values, float(time) == 1) + error).astype(X.dtype, copy=False)
