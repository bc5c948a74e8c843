"""Checks of the users' input, before those of scikit-learn."""

import contextlib
import contextvars
import numbers

import numpy as np
from sklearn.utils.validation import _check_feature_names, check_array, validate_data

from .frame_names import in_order, names_of
from .kinds import check_cells, columns_at_fault, told
from .many_samples import refuse_list

DTYPES = (np.float64, np.float32)
# Names of single precision in numpy, polars, pandas with missing values, and pyarrow.
_SINGLE = ("float32", "Float32", "float[pyarrow]")
# What the checks of scikit-learn say of rows that are not plain numbers, and what was expected in their place.
_NAN = "contains NaN"
_NUMBERS = "\nExpected finite numbers: "
_WAYS_OUT = {
    _NAN: f"{_NUMBERS}leave those rows out, or fill the missing values (InterpolantImputer). TableSynthesizer learns "
    "from rows that have them, and InterpolantRegressor reads them in X.",
    "contains infinity": f"{_NUMBERS}leave those rows out, or rescale the columns.",
    "could not convert string": f"{_NUMBERS}drop these columns, or encode them (OneHotEncoder). TableSynthesizer "
    "learns columns of text, `condition=` accepts them, and InterpolantRegressor reads them in X.",
    "float() argument must be": f"{_NUMBERS}convert these columns, or drop them.",
    "unique column names": "\nRename the columns, or pass X.to_numpy().",
}

_nameless = contextvars.ContextVar("sklearn_si_nameless", default=False)


@contextlib.contextmanager
def nameless():
    """A context for arrays that the library made from a user's frame, in which missing names cause no warning."""
    token = _nameless.set(True)
    try:
        yield
    finally:
        _nameless.reset(token)


def is_nameless():
    """Whether the context of `nameless` is active."""
    return _nameless.get()


def dtypes_of(X):
    """The dtypes that rows may keep: single precision if all columns of a frame have it, in any library."""
    # A frame has one dtype for each column; arrays have no `dtypes`.
    dtypes = getattr(X, "dtypes", ())
    if np.ndim(dtypes) == 1 and len(dtypes) and all(str(dtype) in _SINGLE for dtype in dtypes):
        return np.float32
    return DTYPES


def validate_rows(estimator, X, name="X", allow_nan=False):
    """Rows as an array with the columns of fit: those of X must be in the order of fit, others are found by name."""
    finite = "allow-nan" if allow_nan else True
    X = check_cells(X if name == "X" else in_order(X, _names(estimator), name), name)
    with naming_columns(X, finite):
        if name == "X" and not _nameless.get():
            return validate_data(estimator, X, dtype=dtypes_of(X), reset=False, ensure_all_finite=finite)
        if not _nameless.get():
            _check_feature_names(estimator, X, reset=False)
        X = check_array(X, dtype=dtypes_of(X), input_name=name, ensure_all_finite=finite)
    if X.shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"{name} has {X.shape[1]} features, but expected {estimator.n_features_in_} as in X0 of fit: pass the same "
            "columns."
        )
    return X


def checked_target(y, has_infinite=False):
    """The target of a regression as numbers, in one or two dimensions; infinite ones where these make sense."""
    if y is None:
        raise ValueError("A regression requires y to be passed, but the target y is None.")
    if np.isscalar(y):
        raise ValueError(
            f"Got y={y!r}, but expected a value for each row, (n_samples,) or (n_samples, n_outputs): for one value at "
            f"all rows pass numpy.full(len(X), {y!r})."
        )
    y = check_cells(y, "y")
    try:
        with naming_columns(y):
            Y = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y", ensure_all_finite=not has_infinite)
    except ValueError as error:
        if "could not convert string" not in str(error):
            raise
        message = f"y has text, but expected numbers: for classes use InterpolantClassifier. {error}"
        raise ValueError(message) from error
    if Y.ndim not in (1, 2):
        raise ValueError(f"y has {Y.ndim} dimensions, but expected (n_samples,) or (n_samples, n_outputs).")
    if np.isnan(Y).any():
        raise ValueError(f"Input y contains NaN{_WAYS_OUT[_NAN]}")
    return Y


def check_finite_columns(X, positions, names, name):
    """Raise a ValueError that names the columns, of some, in which values are missing."""
    bad = [j for j in positions if np.isnan(X[:, j]).any()]
    if bad:
        raise ValueError(
            f"{name} has NaN in the columns {[names[j] for j in bad]} ({int(np.isnan(X[:, bad]).any(1).sum())} rows), "
            "which the question needs: leave those rows out, or name other columns in given= and columns=."
        )


def column_positions(columns, names, parameter):
    """The positions of the columns that a parameter lists, by name or by position; none for None."""
    if columns is None:
        return []
    if isinstance(columns, str):
        raise ValueError(f"Got {parameter}={columns!r}, but expected a list of columns, such as [{columns!r}].")
    if isinstance(columns, dict) or not np.iterable(columns):
        raise ValueError(
            f"Got {parameter}={columns!r}, but expected a list of columns, whose cells are those of X; values of their "
            "own are for sample(given=)."
        )
    found = [column_position(column, names, parameter) for column in columns]
    repeated = [names[j] for j in sorted({j for j in found if found.count(j) > 1})]
    if repeated:
        raise ValueError(f"{parameter} names the columns {repeated} more than once.")
    return found


def column_position(column, names, parameter):
    """The position of a column, given by its name or by its position."""
    for j, name in enumerate(names):
        if isinstance(column, str) == isinstance(name, str) and not isinstance(column, bool) and column == name:
            return j
    if isinstance(column, (int, np.integer)) and not isinstance(column, bool) and 0 <= column < len(names):
        return int(column)
    raise ValueError(
        f"{parameter} names the column {column!r}, but expected one of {list(names)}, or a position from 0 to "
        f"{len(names) - 1}."
    )


def validate_points(estimator, X, name):
    """Rows as an array with as many columns as in fit; columns with the names of fit are put in its order."""
    X = check_cells(by_names(estimator, X, name), name)
    with naming_columns(X):
        X = check_array(X, dtype=dtypes_of(X), input_name=name)
    if X.shape[1] != estimator.n_features_in_:
        who = type(estimator).__name__
        raise ValueError(f"{name} has {X.shape[1]} features, but {who} expects {estimator.n_features_in_}.")
    return X


def by_names(estimator, X, name):
    """Rows whose columns are in the order of fit if they have its names; other rows as they are."""
    names, own = _names(estimator), names_of(X)
    foreign = names is not None and own is not None and not set(own) & set(names)
    return X if foreign else in_order(X, names, name)


def _names(estimator):
    # of any library: in a Pipeline the names are a property
    return getattr(estimator, "feature_names_in_", None)


def names_of_fit(estimator):
    """The names of the columns of fit, or their positions where it saw none."""
    names = _names(estimator)
    return list(range(estimator.n_features_in_) if names is None else names)


def validate_sample(estimator, X, name="X"):
    """The rows of a fit as an array of finite numbers."""
    X = check_cells(X, name)
    with naming_columns(X):
        return validate_data(estimator, X, dtype=dtypes_of(X), ensure_min_samples=2)


def validate_samples(estimator, X0, X1):
    """The samples of a fit: two arrays, or one array and None."""
    has_two = is_sample(X1, "X1")
    name = "X0" if has_two else "X"
    refuse_list(X0, name, estimator)
    X0 = validate_sample(estimator, X0, name)
    if not has_two:
        check_labels(X1, X0)
        return X0, None
    X1 = validate_rows(estimator, X1, "X1")
    if len(X1) < 2:
        raise ValueError(f"Found array with {len(X1)} sample(s) in X1, while a minimum of 2 is required.")
    return X0, X1


@contextlib.contextmanager
def naming_columns(X, finite=True):
    """A context in which the checks of scikit-learn name the columns at which they stumble, and say what to do."""
    try:
        yield
    except (TypeError, ValueError) as error:
        message, way_out = str(error), _way_out(str(error))
        # where words are refused, cells that are missing are not what the message is about
        allowed = finite if "NaN" in message or "infinity" in message else False
        bad = columns_at_fault(X, lambda cells: _is_refused(cells, allowed), with_arrays=bool(way_out))
        # what follows the first line about NaN recommends classifiers of another library
        message = message.split("\n")[0] if bad and _NAN in message else message
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{message}{told(bad)}{way_out}") from error


def _is_refused(cells, finite):
    """Whether cells are something else than numbers, which are finite or missing as they may be."""
    try:
        check_array(cells.reshape(-1, 1), dtype=np.float64, ensure_all_finite=finite)
    except (TypeError, ValueError):
        return True
    return False


def _way_out(message):
    """What was expected in place of rows that are not plain numbers, and what to do; nothing for other messages."""
    return next((way_out for part, way_out in _WAYS_OUT.items() if part in message), "")


def check_count(n, name):
    """The checked integer of at least 1, as an int."""
    if not isinstance(n, numbers.Integral) or isinstance(n, bool) or n < 1:
        raise ValueError(f"Got {name}={n!r}, but expected an integer of at least 1.")
    return int(n)


def is_sample(X, name):
    """Whether the second argument is a sample, which it is if it has two dimensions."""
    if X is None:
        return False
    ndim = X.ndim if hasattr(X, "ndim") else np.ndim(np.asarray(X))
    if ndim not in (1, 2):
        raise ValueError(
            f"{name} has {ndim} dimensions, but expected a sample of shape (n_samples, n_features), or labels of shape "
            "(n_samples,), which are ignored: reshape it, or leave it out."
        )
    return ndim == 2


def check_labels(y, X0):
    """Raise a ValueError for a 1-D second argument that may have been meant as a sample."""
    if y is None:
        return
    if X0.shape[1] == 1:
        raise ValueError(
            "X1 is 1-D and X0 has one column (n_features = 1), so X1 may be a sample or labels: pass "
            "X1.reshape(-1, 1) for a bridge, or leave it out."
        )
    n_labels = len(np.asarray(y))
    if n_labels != len(X0):
        raise ValueError(
            f"X1 is 1-D with {n_labels} entries while X0 has {len(X0)} rows, so it is neither labels nor a sample: "
            "pass a 2-D X1 for a bridge, or leave it out."
        )


@contextlib.contextmanager
def all_or_nothing(estimator, kind=BaseException):
    """A context in which an error of some kind leaves the estimator as it was, with all it had of an earlier fit."""
    before = dict(vars(estimator))
    try:
        yield
    except kind:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise
