"""Given rows that become infinite or NaN: NaN with a warning that names them, or an error."""

import warnings

import numpy as np
import torch
from torch import Tensor

from .._utils.callers import users_level
from ..exceptions import IntegrationError, IntegrationWarning

# What to do about given rows; the advice for rows that are drawn is another one.
_ADVICE = "such rows lie far outside the rows of fit (leave them out), or the fit has not converged (fit longer)"
# Rows that a warning names at the most.
_NAMED = 20


def settled(values: np.ndarray, what: str, strict: bool) -> np.ndarray:
    """Values by row, of which those that are not finite become NaN with a warning, or an error.

    Parameters
    ----------
    values : ndarray of shape (n, ...)
        Changed in place.
    what : str
        What was done, for the message.
    strict : bool
        Whether such a row is an error.
    """
    lost = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(1))
    if not len(lost):
        return values
    message = f"{len(lost)} of {len(values)} rows became infinite or NaN while {what}"
    if strict:
        raise IntegrationError(f"{message}: {_ADVICE}.", lost)
    values[lost] = np.nan
    named = ", ".join(map(str, lost[:_NAMED].tolist())) + (", ..." if len(lost) > _NAMED else "")
    warnings.warn(
        f"{message} and are NaN in the result: {_ADVICE}. Rows: {named}.", IntegrationWarning, stacklevel=users_level()
    )
    return values


def unknown_where_lost(error: Tensor, values: np.ndarray) -> Tensor:
    """The stated errors of values by row, NaN where the values are."""
    lost = torch.as_tensor(np.isnan(values.reshape(len(values), -1)).any(1), device=error.device)
    return error.masked_fill(lost, torch.nan)


def warn_missed(error: Tensor, tolerance: float) -> None:
    """Warn of rows whose stated error is above the tolerance."""
    known = error[torch.isfinite(error)]  # rows that became infinite or NaN are told of by themselves
    missed = int((known > tolerance).sum())
    if missed:
        warnings.warn(
            f"{missed} of {len(error)} rows are not within ode_tol={tolerance:g} (worst stated error "
            f"{float(known.max()):.2g}): the field is not smooth there, or the tolerance is below the rounding "
            "of the rows' dtype; use float64 rows or a larger ode_tol.",
            IntegrationWarning,
            stacklevel=users_level(),
        )
