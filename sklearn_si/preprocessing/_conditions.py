"""Encoders of conditions: columns of numbers, dates and categories as numbers that a network reads."""

import collections
import dataclasses
import warnings

import numpy as np

from .._utils.callers import users_level
from .._utils.columns import Reading
from .._utils.frame_names import is_frame, is_pandas, is_row, narwhals_series, row_by_name
from .._utils.frames import Table
from .._utils.input_checks import is_nameless
from .._utils.kinds import as_cells
from .._utils.names import registered
from ._condition_warnings import told_of_text, warn_of_codes, warn_of_filled
from ._splines import MonotoneSpline, fit_spline

__all__ = ["CONDITION_KINDS", "Columns", "ConditionCodec", "columns_of", "joined"]

CONDITION_KINDS = ("categorical", "continuous")

# Largest number of categories that an error lists.
_FEW = 10
# Deviations from the mean beyond which a value is an outlier, and from which the line of a column that has some bends;
# share of the rows on either side that such a line does not follow.
_OUTLIER = 5.0
_BEND = 3.0
_TAIL = 0.01
# Least scale of a column of rare values, as a share of their (root mean square) distance from the common one.
_LEAST_SCALE_OF_RARE = 0.25
# How far beyond the values of fit the map of a quantity goes, in its own units (those of a deviation).
_BEYOND = 0.5
# A condition further out than this share of the range of fit is told to the user.
_FAR = 0.5


@registered("preprocessing.ConditionCodec")
class ConditionCodec:
    """Encode columns of any type as numbers that a network reads, which are bounded for all later conditions.

    Quantities pass through a smooth monotone map that saturates beyond the values of fit, classes are one-hot; a column
    of its own says where a value is missing, and a last one, where it is asked for, that there is no condition.

    Parameters
    ----------
    droppable : bool
        Whether a column says that the condition was dropped, as classifier-free guidance needs.
    kinds : dict or None, default=None
        How some columns are read, by name or number: "categorical" or "continuous".
    input_name : str, default="condition"
        What messages call the columns.
    fills : bool, default=False
        Whether later rows may miss values in columns that were complete in fit, and hold classes that it has not seen.
        They are read, with a warning, as the mean or as the most frequent class (a class that is not known as a missing
        value, where fit saw some). Else they are refused.
    """

    # that of files of the first format
    fills = False

    def __init__(self, droppable, kinds=None, input_name="condition", fills=False):
        self.droppable, self.kinds, self._input_name, self.fills = droppable, kinds, input_name, fills

    @property
    def input_name(self):
        """What messages call the columns; files of the first format do not say it."""
        return vars(self).get("_input_name", "condition")

    def fit(self, condition):
        """Learn the kinds, the maps and the categories of the columns."""
        return self.fit_columns(columns_of(condition, self.input_name))

    def fit_columns(self, columns):
        """Learn from columns that were read before."""
        self.table_ = columns.table
        names, readings = columns.table.names, columns.readings
        kinds = self._checked_kinds(names)
        pairs = zip(columns.table.series, readings, strict=True)
        self.codecs_ = [_fitted(series, reading, kinds.get(series.name), self.input_name) for series, reading in pairs]
        self.kinds_ = [codec.kind for codec in self.codecs_]
        warn_of_codes([name for name in names if name not in kinds], self.codecs_, columns, self.input_name)
        self.n_outputs_ = sum(codec.n_outputs for codec in self.codecs_) + self.droppable
        return self

    def _checked_kinds(self, names):
        kinds = self.kinds or {}
        unknown = [name for name in kinds if name not in names and not (isinstance(name, int) and name < len(names))]
        if unknown:
            raise ValueError(
                f"condition_kinds names {unknown}, but expected names of columns of {self.input_name}, {list(names)}, "
                "or their places from 0."
            )
        for name, kind in kinds.items():
            if kind not in CONDITION_KINDS:
                raise ValueError(
                    f"Got condition_kinds[{name!r}]={kind!r}, but expected one of {', '.join(CONDITION_KINDS)}."
                )
        return {name if name in names else names[name]: kind for name, kind in kinds.items()}

    def transform(self, condition, n_rows):
        """The encoded columns, of shape (n_rows, n_outputs); a single row is used for all."""
        readings = self._readings(condition)
        n = len(readings[0].gaps)
        if n not in (1, n_rows):
            raise ValueError(
                f"{self.input_name} has {n} rows, but expected one for all or one for each of {n_rows} rows."
            )
        pairs = list(zip(self.codecs_, readings, strict=True))
        if self.fills:
            warn_of_filled(pairs, self.input_name)
        parts = [codec.transform(reading, self.fills) for codec, reading in pairs]
        self._warn_of_far(readings)
        values = np.hstack([*parts, np.zeros((n, int(self.droppable)))])
        return np.repeat(values, n_rows, axis=0) if n == 1 else values

    def _readings(self, condition):
        """The columns of fit in later rows."""
        if not self.fills and self.table_.has_names and is_row(condition, self.table_.names):
            condition = row_by_name(condition, self.table_.names, self.input_name)
        if isinstance(condition, dict):
            condition = self.table_.frame_of(condition, self.input_name)
        X, is_single = _as_table(condition, self.input_name)
        n_columns = X.shape[1]
        if not self.table_.has_names and n_columns != len(self.codecs_):
            raise ValueError(f"{self.input_name} has {n_columns} columns, but fit was given {len(self.codecs_)}.")
        return self.table_.readings(X, self.input_name, quiet=is_single)

    def _warn_of_far(self, readings):
        """Warn of the columns that hold values far outside the range of fit."""
        if is_nameless():
            return
        pairs = zip(self.codecs_, readings, strict=True)
        far = [codec.told(held) for codec, reading in pairs if (held := codec.farthest(reading)) is not None]
        if far:
            warnings.warn(
                f"Columns of {self.input_name} hold values far outside those of fit: {', '.join(far)}. They are "
                "treated like values just beyond that range: check them, or fit on rows that reach as far.",
                UserWarning,
                stacklevel=users_level(),
            )


@dataclasses.dataclass
class Columns:
    """The columns of a condition.

    Parameters
    ----------
    table : Table
        Names and dtypes.
    readings : list of Reading
        What they hold.
    """

    table: Table
    readings: list

    @property
    def names(self):
        """Names of the columns."""
        return self.table.names


def columns_of(condition, input_name="condition"):
    """The columns of an array, a series or a frame, each with its own type."""
    X, _ = _as_table(condition, input_name)
    table = Table.of(X, input_name)
    table.owner = "the model"
    return Columns(table, table.readings(X, input_name))


def joined(parts):
    """The concatenated columns of several parts of a sample, which have the same names.

    Parameters
    ----------
    parts : list of Columns
    """
    readings = [_joined(column) for column in zip(*(part.readings for part in parts), strict=True)]
    return Columns(parts[0].table, readings)


def _joined(readings):
    kinds = tuple({str(kind): kind for reading in readings for kind in reading.kinds}.values())
    names, gaps = [str(kind) for kind in kinds], []
    for reading in readings:
        codes = np.array([0, *(1 + names.index(str(kind)) for kind in reading.kinds)])
        gaps.append(codes[reading.gaps])
    values = np.concatenate([reading.values for reading in readings])
    return Reading(values, np.concatenate(gaps), kinds, readings[0].quantity)


def _as_table(condition, input_name):
    """A condition as a frame or a 2-D array, and whether it is a single cell, which needs no name."""
    if is_pandas(condition, "Series"):
        is_named = condition.name is not None
        condition = condition.to_frame() if is_named else condition.to_frame(0)
    series = narwhals_series(condition)
    if series is not None:
        condition = series.to_frame().to_native()
    is_single = False
    if not is_frame(condition):
        condition, is_single = _as_rows(condition, input_name)
    if 0 in condition.shape:
        raise ValueError(f"{input_name} is empty: expected at least one row and one column.")
    return condition, is_single


def _as_rows(condition, input_name):
    """A scalar, a list or an array as a 2-D array."""
    values = as_cells(condition, input_name)
    if values.dtype.kind == "c":
        raise ValueError(
            f"{input_name} holds complex numbers: pass their parts, or their sizes and angles, as columns."
        )
    if values.ndim > 2:
        raise ValueError(f"{input_name} has {values.ndim} dimensions: expected (n_rows,) or (n_rows, n_columns).")
    return values if values.ndim == 2 else values.reshape(-1, 1), values.ndim == 0


def _fitted(series, reading, kind, input_name):
    """The codec of a column: of classes or of quantities."""
    name, is_words = series.name, not reading.is_number
    if kind == "continuous" and is_words and (reading.gaps == 0).any():
        held = reading.values[reading.gaps == 0][0]
        raise ValueError(
            f"Column {name!r} of {input_name} is 'continuous' in condition_kinds, but it holds {held!r}, which is no "
            "number: leave it out, or convert it."
        )
    if is_words or kind == "categorical":
        return _Classes(name, reading, input_name)
    return _Quantity(name, reading, series.unit, input_name)


class _Coded:
    """The check for missing values, which both codecs share."""

    name: object
    has_missing: bool

    @property
    def input_name(self):
        """What messages call the columns; files of the first format do not say it."""
        return vars(self).get("_input_name", "condition")

    def n_filled(self, reading):
        """Rows that miss a value where fit has seen none missing."""
        return 0 if self.has_missing else int((reading.gaps > 0).sum())

    def _check_missing(self, missing):
        if missing.any() and not self.has_missing:
            raise ValueError(
                f"Column {self.name!r} of {self.input_name} holds missing values, and fit has seen none there: fill or "
                "drop those rows, or fit on rows of which some miss it."
            )


@registered("preprocessing.Line")
@dataclasses.dataclass
class _Line:
    """z = (x - centre) / scale; with a bend b, beyond it sign(z) (b + log(1 + |z| - b)).

    Parameters
    ----------
    centre, scale : float
    bend : float or None, default=None
        Where the line bends; None for nowhere.
    """

    centre: float
    scale: float
    bend: float | None = None

    def forward(self, x):
        """The z of some x."""
        z = (x - self.centre) / self.scale
        if self.bend is None:
            return z
        size = np.abs(z)
        return np.sign(z) * (np.minimum(size, self.bend) + np.log1p(np.maximum(size - self.bend, 0)))


@registered("preprocessing.Scores")
@dataclasses.dataclass
class _Scores:
    """The normal scores of a column, by a monotone spline.

    Parameters
    ----------
    spline : MonotoneSpline
    """

    spline: MonotoneSpline

    def forward(self, x):
        """The z of some x."""
        return self.spline.forward(x)[0]


@registered("preprocessing.Quantity")
class _Quantity(_Coded):
    """A number in units of its standard deviation; outliers are pulled in, and values beyond those of fit saturate.

    z = g(x),  and beyond the largest value x_n of fit  g(x_n) + s tanh((g(x) - g(x_n)) / s);  below the least likewise

    with g a straight line. A column with outliers gets two maps: a line that follows the bulk and bends beyond it,
    which keeps what is linear, and normal scores, which spread out what lies close together.

    Parameters
    ----------
    name : object
    reading : Reading
    unit : tuple or None, default=None
        The code and the unit of dates and time differences.
    input_name : str, default="condition"
    """

    kind = "number"

    def __init__(self, name, reading, unit=None, input_name="condition"):
        self.name, self.quantity, self.unit, self._input_name = name, reading.quantity, unit, input_name
        x = self._checked(reading)
        self.has_missing = bool((reading.gaps > 0).any())
        # of dates, differences are what floats hold
        self.origin = x.min() if len(x) and self.quantity != "numbers" else 0
        x = (x - self.origin).astype(np.float64)
        self.low, self.high = (float(x.min()), float(x.max())) if len(x) else (0.0, 0.0)
        if not np.isfinite(x.std() if len(x) else 0.0):
            raise ValueError(f"Column {name!r} of {input_name} holds numbers whose squares overflow: rescale it.")
        self.maps = _maps_of(x)

    @property
    def n_outputs(self):
        """Number of columns."""
        return max(1, len(self.maps)) + self.has_missing

    def _checked(self, reading):
        """The numbers that are there, as int64 or float64."""
        x = reading.values[reading.gaps == 0]
        if x.dtype.kind == "f" and np.isinf(x).any():
            raise ValueError(
                f"Column {self.name!r} of {self.input_name} holds infinite numbers: replace or drop those rows."
            )
        return x

    def transform(self, reading, fills=False):
        """The number by each map (0 if it is missing), and an indicator of missing values if fit has seen some."""
        missing = reading.gaps > 0
        if not fills:
            self._check_missing(missing)
        reading.check_quantity(self.quantity, self.name, self.input_name)
        x = (self._checked(reading) - self.origin).astype(np.float64)
        values = np.zeros((len(missing), self.n_outputs))
        for k, g in enumerate(self.maps):
            values[~missing, k] = self._mapped(g, x)
        if self.has_missing:
            values[:, -1] = missing
        return values

    def _mapped(self, g, x):
        with np.errstate(over="ignore"):
            z, (low, high) = g.forward(x), g.forward(np.array([self.low, self.high]))
            inside = np.clip(z, low, high)
            return inside + _BEYOND * np.tanh((z - inside) / _BEYOND)

    def unknown(self, reading):
        """Nothing, because all numbers are known."""
        return []

    def farthest(self, reading):
        """The value that lies furthest outside the range of fit, if it lies far outside; otherwise None."""
        x = reading.values[reading.gaps == 0]
        if not reading.is_number or not len(x) or not self.maps:
            return None
        x = (x - self.origin).astype(np.float64)
        excess = np.maximum(self.low - x, x - self.high)
        return float(x[excess.argmax()]) if excess.max() > _FAR * (self.high - self.low) else None

    def told(self, x):
        """A value and the range of fit, as text for a warning."""
        held, low, high = (self._described(value) for value in (x, self.low, self.high))
        return f"{self.name!r} ({held}; fit saw {low} to {high})"

    def _described(self, x):
        if self.unit is None:
            return f"{x + self.origin:.6g}"
        return str(np.array([x + self.origin]).astype(np.int64).view("{}8[{}]".format(*self.unit))[0])


def _maps_of(x):
    """The maps of the numbers; none if all of them are equal."""
    if not len(x) or x.max() == x.min():
        return []
    line = _Line(x.mean(), max(x.std(), _least_scale(x)))
    if np.abs(line.forward(np.array([x.min(), x.max()]))).max() <= _OUTLIER:
        return [line]
    bulk = np.clip(x, *np.quantile(x, [_TAIL, 1 - _TAIL]))
    scale = max(bulk.std(), _least_scale(bulk))
    bent = _Line(bulk.mean(), scale, _BEND) if scale > 0 else dataclasses.replace(line, bend=_BEND)
    return [bent, _Scores(fit_spline(x))]


def _least_scale(values):
    """The least scale of a column that most rows agree on: its few other values lie at 1 / .25 from these.

    An indicator of one row in 10,000 has a standard deviation of .01. Divided by it, that row would lie a hundred units
    from all others, where the network has learned from it alone.
    """
    others = values[values != np.median(values)] - np.median(values)
    rare = 0 < 2 * len(others) < len(values)
    return _LEAST_SCALE_OF_RARE * float(np.sqrt(np.mean(others**2))) if rare else 0.0


@registered("preprocessing.Classes")
class _Classes(_Coded):
    """One column for each class that fit has seen.

    Parameters
    ----------
    name : object
    reading : Reading
    input_name : str, default="condition"
    """

    kind = "category"
    # the place of the most frequent class; files of the first format do not say it
    most_frequent = None

    def __init__(self, name, reading, input_name="condition"):
        self.name, self.quantity, self._input_name = name, reading.quantity, input_name
        self.has_missing = bool((reading.gaps > 0).any())
        counts: collections.Counter = collections.Counter()
        try:
            counts.update(reading.values[reading.gaps == 0].tolist())
            self.levels = _in_turn(set(counts))
        except TypeError as error:
            raise ValueError(
                f"Column {name!r} of {input_name} holds cells that are no numbers, words or dates ({error}): take them "
                "apart into columns of their own, or drop the column."
            ) from error
        self.most_frequent = int(np.argmax([counts[level] for level in self.levels])) if counts else 0

    @property
    def n_outputs(self):
        """Number of columns."""
        return len(self.levels) + self.has_missing

    def transform(self, reading, fills=False):
        """The one-hot columns of the classes."""
        missing = reading.gaps > 0
        if not fills:
            self._check_missing(missing)
            self._check_known(reading)
        at = np.full(len(missing), -1)
        at[~missing] = self._places(reading.values[~missing].tolist())
        at[at < 0] = len(self.levels) if self.has_missing else self.most_frequent or 0
        return np.eye(max(1, self.n_outputs))[at][:, : self.n_outputs]

    def _places(self, cells):
        """The position of each cell among the classes, by its value, not its text; -1 where it is none."""
        known = {level: k for k, level in enumerate(self.levels.tolist())}
        return np.array([known.get(cell, -1) for cell in cells], dtype=np.int64)

    def unknown(self, reading):
        """The classes that fit has not seen."""
        cells = reading.values[reading.gaps == 0].tolist()
        pairs = zip(cells, self._places(cells), strict=True)
        return sorted({cell for cell, place in pairs if place < 0}, key=str)

    def _check_known(self, reading):
        unknown = self.unknown(reading)
        if unknown:
            some = self.levels.tolist()[:_FEW]
            more = " and more" if len(self.levels) > _FEW else ""
            raise ValueError(
                f"Column {self.name!r} of {self.input_name} holds {unknown[:5]}, which fit has not seen (unknown "
                f"categories): it knows {some}{more}.{told_of_text(unknown, self.levels.tolist())}"
            )

    def farthest(self, reading):
        """None, because classes have no range."""
        return


def _in_turn(levels):
    """The distinct cells in an order that does not depend on the rows."""
    try:
        order = sorted(levels)
    except TypeError:
        order = sorted(levels, key=lambda level: (type(level).__name__, str(level)))
    array = np.empty(len(order), dtype=object)
    array[:] = order
    return array
