"""Plots of predicted distributions."""

import importlib

import numpy as np
from sklearn.utils.validation import assert_all_finite, check_consistent_length, column_or_1d

from .._utils.columns import Reading
from .._utils.frames import Table
from ._axes import OneAxisDisplay, require

# Levels of the quantiles that bound the bands of a fan, and the one of its line.
_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
# Places along a column of numbers; categories at the most.
_PLACES = 100
_CATEGORIES = 30
# Opacity of each band.
_ALPHA = 0.25


class PredictiveDisplay(OneAxisDisplay):
    """Fan of the quantiles of y along one column of X, with the other columns held where they are typical.

    The other columns are at the median of their numbers, or at their most frequent category. The bands lie between the
    quantiles that are as far from the middle.

    Parameters
    ----------
    places : array-like of shape (n_places,)
        Values of the column.
    quantiles : ndarray of shape (n_places, n_levels)
        Quantiles of y at each of them.
    levels : array-like of shape (n_levels,)
        Ascending, and symmetric about .5.
    name : str
        Of the column.
    points : tuple of (array-like, array-like), default=None
        Values of the column and of y in rows that are shown as points.

    Attributes
    ----------
    ax_, figure_ : matplotlib axis and figure
        The plot, after `plot` was called.
    """

    def __init__(self, places, quantiles, levels=_LEVELS, name="x", points=None):
        self.places, self.quantiles, self.levels, self.name, self.points = places, quantiles, levels, name, points

    @classmethod
    def from_estimator(cls, estimator, X, y=None, *, column=0, levels=_LEVELS, ax=None):
        """Plot the fan of a fitted regressor.

        Parameters
        ----------
        estimator : estimator
            A fitted regressor of one output with `predict_quantiles`.
        X : frame or array-like of shape (n_samples, n_features)
            Rows that say what is typical, and over which range the column goes.
        y : array-like of shape (n_samples,), default=None
            Their targets, which are shown as points.
        column : str or int, default=0
            The column along which the fan goes, by name or position.
        levels : array-like of shape (n_levels,)
            Levels of the quantiles, symmetric about .5.
        ax : matplotlib axis, default=None
            The axis to draw on; None makes a new figure.

        Returns
        -------
        display : PredictiveDisplay

        Raises
        ------
        ValueError
            When the estimator has no `predict_quantiles`, when X has no such column, when the levels are not symmetric,
            or when the regressor has several outputs.
        """
        instead = "pass an InterpolantRegressor (of a Pipeline its last step, with X as the other steps transform it)"
        require(estimator, "predict_quantiles", "PredictiveDisplay", instead)
        levels = np.asarray(levels, dtype=np.float64)
        if levels.ndim != 1 or not np.allclose(np.sort(levels), 1 - np.sort(levels)[::-1]):
            raise ValueError(f"Got levels={levels.tolist()}, but expected levels that are symmetric about .5.")
        levels = np.sort(levels)
        if y is not None:
            y = column_or_1d(y, dtype=np.float64)
            assert_all_finite(y, input_name="y")
            check_consistent_length(X, y)
        table = Table.of(X)
        place = _place_of(column, table.names)
        readings = table.readings(X)
        seen, shown = _seen(readings[place], table.names[place], table.series[place].unit)
        at = _typical_rows(X, table, readings, place, seen)
        quantiles = np.asarray(estimator.predict_quantiles(at, levels))
        if quantiles.ndim != 2:
            raise ValueError(
                f"The regressor has {quantiles.shape[-1]} outputs, but a fan shows one: fit a regressor to one column "
                "of y, as a 1-D array."
            )
        points = None if y is None else (_shown(readings[place], shown), y)
        return cls(shown, quantiles, levels, str(table.names[place]), points).plot(ax=ax)

    def _draw(self, ax):
        """Draw the fan: bands along numbers and dates, and bars at categories."""
        along, is_number = np.asarray(self.places), np.asarray(self.places).dtype.kind in "iufM"
        at = along if is_number else np.arange(len(along))
        if self.points is not None:
            ax.scatter(self.points[0], self.points[1], s=4, color="0.6", label="rows", zorder=0)
        for low in range(len(self.levels) // 2):
            high = len(self.levels) - 1 - low
            ends, label = self.quantiles[:, [low, high]].T, f"{self.levels[high] - self.levels[low]:.0%}"
            if is_number:
                ax.fill_between(at, *ends, color="C0", alpha=_ALPHA, lw=0, label=label)
            else:
                ax.bar(at, ends[1] - ends[0], bottom=ends[0], color="C0", alpha=_ALPHA, label=label)
        if len(self.levels) % 2:
            middle = self.quantiles[:, len(self.levels) // 2]
            ax.plot(at, middle, color="C0", ls="-" if is_number else "", marker="" if is_number else "_", ms=20)
        if not is_number:
            ax.set_xticks(at, [str(place) for place in along])
        ax.set(xlabel=self.name, ylabel="y")
        ax.legend()


def _place_of(column, names):
    """The position of a column by its name, or otherwise by a number."""
    if column in names:
        return names.index(column)
    if isinstance(column, (int, np.integer)) and not isinstance(column, bool) and 0 <= column < len(names):
        return int(column)
    raise ValueError(f"Got column={column!r}, but X has the columns {list(names)}: pass a name, or a position from 0.")


def _seen(reading: Reading, name, unit):
    """Rows of X whose cells the fan goes through, or None for a range of numbers; and the places, as they are shown.

    `unit` has the code and the unit of dates, None for other columns.
    """
    known = np.flatnonzero(reading.gaps == 0)
    if not len(known):
        raise ValueError(f"Column {name!r} of X holds missing values alone, so that a fan has no range.")
    if reading.is_number and reading.quantity == "numbers":
        values = reading.values[known]
        return None, np.linspace(values.min(), values.max(), _PLACES)
    if reading.is_number and unit is not None and unit[0] == "M":
        dates, first = np.unique(reading.values[known], return_index=True)
        some = np.unique(np.linspace(0, len(dates) - 1, _PLACES).round().astype(int))
        return known[first[some]], dates[some].astype(np.int64).astype(f"M8[{unit[1]}]")
    text = np.array([str(reading.values[row]) for row in known])
    levels, first, counts = np.unique(text, return_index=True, return_counts=True)
    most = np.sort(np.argsort(-counts, kind="stable")[:_CATEGORIES])
    return known[first[most]], levels[most]


def _shown(reading, places):
    """The cells of a column as they are drawn."""
    if places.dtype.kind == "f":
        return np.where(reading.gaps == 0, reading.values, np.nan).astype(np.float64)
    if places.dtype.kind == "M":
        return np.where(reading.gaps == 0, reading.values, np.iinfo(np.int64).min).astype(np.int64).astype(places.dtype)
    known = {place: k for k, place in enumerate(places.tolist())}
    return np.array([known.get(str(cell), np.nan) for cell in reading.values], dtype=np.float64)


def _typical_rows(X, table, readings, place, seen):
    """Rows along a column; in each other column the cell of X that is nearest to its median, or the most frequent."""
    n = _PLACES if seen is None else len(seen)
    rows = [np.repeat(_typical_row(reading), n) for reading in readings]
    if seen is not None:
        rows[place] = seen
    numbers = None
    if seen is None:
        low, high = _range(readings[place])
        numbers = np.linspace(low, high, n)
    if table.backend == "numpy":
        X = np.asarray(X)
        columns = [X[own, j] for j, own in enumerate(rows)]
        columns[place] = columns[place] if numbers is None else numbers
        return np.column_stack(columns)
    if table.backend == "pandas":
        pd = importlib.import_module("pandas")
        series = {j: X.iloc[own, j].reset_index(drop=True) for j, own in enumerate(rows)}
        series |= {} if numbers is None else {place: pd.Series(numbers)}
        return pd.concat(series, axis=1).set_axis(X.columns, axis=1)
    nw = importlib.import_module("narwhals.stable.v2")
    frame = nw.from_native(X, eager_only=True)
    columns = [frame[name][own.tolist()] for name, own in zip(frame.columns, rows, strict=True)]
    if numbers is not None:
        columns[place] = nw.new_series(frame.columns[place], numbers, nw.Float64, backend=table.library)
    return nw.concat([column.to_frame() for column in columns], how="horizontal").to_native()


def _range(reading):
    values = reading.values[reading.gaps == 0]
    return values.min(), values.max()


def _typical_row(reading):
    """The row whose cell is typical of its column."""
    known = np.flatnonzero(reading.gaps == 0)
    if not len(known):
        return 0
    values = reading.values[known]
    if reading.is_number:
        return known[np.argsort(values, kind="stable")[len(values) // 2]]
    _, first, counts = np.unique(np.array([str(cell) for cell in values]), return_index=True, return_counts=True)
    return known[first[counts.argmax()]]
