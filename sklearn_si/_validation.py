"""Checks of what users hand over, before scikit-learn's own."""

import datetime

import numpy as np

DTYPES = (np.float64, np.float32)
# How the names of such columns begin, in numpy, pandas, pyarrow and polars.
_DATED_DTYPES = ("date", "time", "period", "duration")
_DATED_TYPES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64)


def is_sample(X, name):
    """Whether a second argument is a sample: if and only if it has two dimensions."""
    if X is None:
        return False
    ndim = X.ndim if hasattr(X, "ndim") else np.ndim(np.asarray(X))
    if ndim not in (1, 2):
        raise ValueError(
            f"{name} has {ndim} dimensions: expected a sample of shape (n_samples, n_features), or labels of shape "
            "(n_samples,), which are ignored."
        )
    return ndim == 2


def check_labels(y, X0):
    """Refuse a 1-D second argument that could have been meant as a sample."""
    if y is None:
        return
    if X0.shape[1] == 1:
        raise ValueError(
            "X1 is 1-D and X0 has one column (n_features = 1), so it cannot be told whether X1 is a sample or labels: "
            "pass X1.reshape(-1, 1) for a bridge, or leave it out."
        )
    n_labels = len(np.asarray(y))
    if n_labels != len(X0):
        raise ValueError(
            f"X1 is 1-D with {n_labels} entries while X0 has {len(X0)} rows, so it is neither labels nor a sample: "
            "pass a 2-D X1 for a bridge, or leave it out."
        )


def reject_dates(X, name):
    """Refuse dates and time differences, which would become 1.6e15 in silence."""
    values = X if hasattr(X, "dtype") or hasattr(X, "dtypes") else np.asarray(X)
    dtypes = list(values.dtypes) if np.ndim(getattr(values, "dtypes", None)) else [values.dtype]
    dated = any(str(dtype).lower().startswith(_DATED_DTYPES) for dtype in dtypes)
    if not dated and any(str(dtype) == "object" for dtype in dtypes):
        dated = any(isinstance(value, _DATED_TYPES) for value in np.asarray(values, dtype=object).flat)
    if dated:
        raise ValueError(
            f"{name} holds dates or time differences, which are not numbers of a known unit: convert them first, "
            "for example to days since a date of your choice."
        )
    return X
