"""The container in which methods return rows: an array, or the frame that `set_output` asks for."""

from sklearn.utils._set_output import _wrap_data_with_container

from .frame_names import is_pandas

__all__ = ["in_container"]


def in_container(estimator, rows, given=None):
    """Rows in the container that `set_output` of an estimator asks for.

    Parameters
    ----------
    estimator : estimator
    rows : ndarray of shape (n, d)
    given : object, default=None
        What the method was given: the index of a pandas frame is kept, if each row belongs to one of it.
    """
    corresponds = is_pandas(given) and len(given) == len(rows)
    return _wrap_data_with_container("transform", rows, given if corresponds else rows, estimator)
