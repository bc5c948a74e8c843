"""Conditions: rows beside the target's rows, as columns that a network reads."""

import numpy as np
from sklearn.preprocessing import OneHotEncoder

from .._utils.input_checks import check_cells
from .._utils.names import registered

# How missing values of numpy, Python and pandas print.
_MISSING = ("nan", "None", "<NA>", "NaT")

# Categories that an error tells.
_FEW = 10

# Least scale of a column of rare values, as a share of their (root mean square) distance from the common one.
_LEAST_SCALE_OF_RARE = 0.25


@registered("preprocessing.ConditionCodec")
class ConditionCodec:
    """Numeric columns standardised, all others one-hot; a last column for "no condition" where it is asked for.

    The standard deviation that a column is divided by is no less than a quarter of the distance of its rare values from
    its common one.

    Parameters
    ----------
    droppable : bool
        Whether a column says that the condition was dropped, as classifier-free guidance needs.
    kinds : dict or None, default=None
        How some columns are read, by name or number: "categorical" or "continuous".
    """

    def __init__(self, droppable, kinds=None):
        self.droppable, self.kinds = droppable, kinds

    def fit(self, condition):
        """Learn the kinds, the scales and the categories of the columns."""
        return self.fit_columns(columns_of(condition))

    def fit_columns(self, columns):
        """Learn from columns that were taken apart before."""
        self.kinds_ = ["number" if _is_numeric(c) else "category" for c in columns]
        self.codecs_ = [
            _Number(c) if k == "number" else _category(c) for k, c in zip(self.kinds_, columns, strict=True)
        ]
        self.n_outputs_ = self._encode(columns).shape[1] + self.droppable
        return self

    def transform(self, condition, n_rows):
        """Encoded columns, of shape (n_rows, n_outputs); one row stands for all."""
        columns = columns_of(condition)
        if len(columns) != len(self.codecs_):
            raise ValueError(f"condition has {len(columns)} columns, but fit was given {len(self.codecs_)}.")
        if len(columns[0]) not in (1, n_rows):
            raise ValueError(
                f"condition has {len(columns[0])} rows, but expected one for all or one for each of {n_rows} rows."
            )
        values = self._encode(columns)
        if self.droppable:
            values = np.hstack([values, np.zeros((len(values), 1))])
        return np.repeat(values, n_rows, axis=0) if len(values) == 1 else values

    def _encode(self, columns):
        return np.hstack([
            codec.transform(_numbers(c)) if kind == "number" else _one_hot(codec, _words(c), j)
            for j, (kind, codec, c) in enumerate(zip(self.kinds_, self.codecs_, columns, strict=True))
        ])  # fmt: skip


@registered("preprocessing.Number")
class _Number:
    def __init__(self, values):
        values = _numbers(values)
        self.mean, scale = values.mean(), max(values.std(), _least_scale(values))
        self.scale = scale if scale > 0 else 1.0

    def transform(self, values):
        """The numbers in units of their deviation, as one column."""
        return (values - self.mean) / self.scale


def _least_scale(values):
    """The least scale of a column that most rows agree on: its few other values lie at 1 / .25 from these.

    An indicator of one row in 10,000 has a standard deviation of .01. Divided by it, that row would lie a hundred units
    from all others, where the network has learned from it alone.
    """
    others = values[values != np.median(values)] - np.median(values)
    rare = 0 < 2 * len(others) < len(values)
    return _LEAST_SCALE_OF_RARE * float(np.sqrt(np.mean(others**2))) if rare else 0.0


def _one_hot(codec, words, j):
    known = codec.categories_[0].tolist()
    unknown = sorted(set(words[:, 0].tolist()) - set(known), key=str)
    if unknown:
        raise ValueError(
            f"Column {j} of condition holds {unknown[:5]}, which fit has not seen (unknown categories): it knows "
            f"{known[:_FEW]}{' and more' if len(known) > _FEW else ''}."
        )
    return codec.transform(words)


def _category(values):
    return OneHotEncoder(sparse_output=False).fit(_words(values))


def columns_of(condition):
    """The columns of an array, a series or a frame, one by one: a frame's keep their kinds."""
    if hasattr(condition, "columns") and hasattr(condition, "iloc"):
        series = [check_cells(condition.iloc[:, [j]], "condition").iloc[:, 0] for j in range(condition.shape[1])]
        columns = [_values(s) for s in series]
    else:
        values = _values(check_cells(condition, "condition"))
        if values.ndim > 2:
            raise ValueError(f"condition has {values.ndim} dimensions: expected (n_rows,) or (n_rows, n_columns).")
        columns = list((values if values.ndim == 2 else values.reshape(-1, 1)).T)
    if any(np.iscomplexobj(column) for column in columns):
        raise ValueError("condition holds complex numbers: pass their parts, or their sizes and angles, as columns.")
    if not columns or not len(columns[0]):
        raise ValueError("condition is empty: expected at least one row and one column.")
    return columns


def _values(condition):
    """An array, of objects for pandas' categories: they are not numbers even where their names are."""
    return np.asarray(condition, dtype=object if str(getattr(condition, "dtype", "")) == "category" else None)


def _is_numeric(values):
    return np.asarray(values).dtype.kind in "iuf"


def _numbers(values):
    values = np.asarray(values, dtype=np.float64)[:, None]
    if not np.isfinite(values).all():
        raise ValueError("condition holds NaN or infinite numbers: fill or drop those rows.")
    return values


def _words(values):
    values = np.asarray(values)
    if values.dtype.kind == "O" and any(not isinstance(v, str) and str(v) in _MISSING for v in values):
        raise ValueError("condition holds missing values: fill or drop those rows, or name them as a category.")
    return values.astype(str)[:, None]
