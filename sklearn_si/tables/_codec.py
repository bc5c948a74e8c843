"""Tables of any kinds of columns as codes and values, or as one matrix with a density; and back."""

import dataclasses
import numbers
from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_array, check_is_fitted

from .._estimators.in_group import fit_by_first
from .._utils.circles import Circle, declared_circle
from .._utils.columns import WORDS
from .._utils.frames import Table
from .._utils.links import LinkedEstimator
from .._utils.names import registered
from ._column_fit import Resolution, fit_column, resolution_of
from ._columns import KINDS
from ._given_cells import is_given, overlaid, written
from ._relations import bind
from ._ties import equal_numbers, find_ties, mark_ties, restore_ties, tied

__all__ = ["TableCodec"]


@registered("tables.TableCodec")
class TableCodec(LinkedEstimator, TransformerMixin, BaseEstimator):
    """Encode a mixed-type table as a matrix of numbers that has a density, and decode it without loss.

    discrete: z = Phi^-1(F(k-1) + u p_k), u ~ U(0, 1)        continuous: z = g(x + h (u - 1/2))

    with p_k the share of code k among the rows and F their cumulative sums (uniform dequantisation, Theis, van den Oord
    & Bethge 2016, arXiv 1511.01844, with cells as wide as the codes are frequent), g a smooth monotone map to a normal
    distribution and h the distance of neighbours on the grid of the numbers. Each column has a code, which says which
    category, spike or kind of missing value a cell is. A continuous column also has a value, where the code is
    "ordinary".

    Kinds are found: text, booleans, categories and objects are "categorical"; numbers and dates with at most 1000
    distinct values, each of 10 rows or more in the mean, are "discrete"; all others are "continuous": numbers far more
    frequent than usual ones (zeros, caps) become spikes with codes of their own, decimals and whole numbers are
    dequantised and rounded back, and what is given back keeps to the range seen.

    Parameters
    ----------
    kinds : dict or None, default=None
        The kind of some columns, by name (by number for an array): "categorical", "discrete", "continuous", or
        ("circular", low, high) of angles, hours of the day and other numbers whose two ends are one point.
    min_frequency : int, float or None, default=None
        Levels of categorical columns in fewer rows (than this share of them) have one code together, and what is given
        back is one of them, drawn in proportion to its rows. None keeps every level apart.
    unseen : {"error", "unknown"}, default="error"
        A level that fit has not seen is refused, or read as not known (`encode` gives -1, `transform` a draw).
        May be changed after fit.
    dequantize : bool, default=True
        Whether u is drawn; else it is 1/2, and the rows of `transform` lie on a grid. May be changed after fit.
    random_state : int, RandomState instance or None, default=None
        Seed of u. An int gives the same matrix at each call. May be changed after fit.

    Attributes
    ----------
    columns_ : list of Column
        The codec of each column: kind, levels, kinds of gap.
    n_codes_ : list of int
        Number of codes of each column.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of str
        Names of the columns, where fit was given a frame with names that are strings.

    Notes
    -----
    With q the density of a model of z, the mass of the discrete columns and the density of the continuous ones obey

    log P(k, x) >= E_u[log q(z)] + sum_discrete E_u[log(p_k / phi(z))] + sum_continuous log g'(x)

    (Jensen; phi the normal density). `TableSynthesizer` needs no bound: it models the codes themselves.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si.tables import TableCodec
    >>> X = np.array([["red", 1.5], ["blue", 2.0], [None, 0.5], ["red", 3.5]], dtype=object)
    >>> codec = TableCodec(random_state=0).fit(X)
    >>> bool((codec.inverse_transform(codec.transform(X)) == X).all())
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        "kinds": [dict, None],
        "min_frequency": [
            Interval(numbers.Integral, 1, None, closed="left"), Interval(numbers.Real, 0, 1, closed="neither"), None,
        ],
        "unseen": [StrOptions({"error", "unknown"})],
        "dequantize": ["boolean"],
        "random_state": ["random_state"],
    }  # fmt: skip

    def __init__(self, kinds=None, min_frequency=None, unseen="error", dequantize=True, random_state=None):
        self.kinds, self.min_frequency, self.unseen = kinds, min_frequency, unseen
        self.dequantize, self.random_state = dequantize, random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn kinds, levels, missing values, grids and maps of the columns.

        Parameters
        ----------
        X : frame or array-like of shape (n_samples, n_columns)
            A pandas frame, a frame that narwhals knows (polars, pyarrow), or an array.
        y : None
            Ignored.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            When X is no table, has no rows or repeats a name, when `kinds` names an unknown column or kind, or asks for
            numbers where there are none.
        """
        return fit_by_first(self, self._fit, X=X)

    def _fit(self, X, binned=False, constraints=None):
        """Fit, with numbers in intervals that have codes if `binned`, and with relations between columns."""
        table = Table.of(X)
        if len(set(table.names)) < len(table.names):
            repeated = sorted({str(name) for name in table.names if table.names.count(name) > 1})
            raise ValueError(f"X has several columns of the names {repeated}: rename them, so that each is one.")
        readings = table.readings(X)
        n = len(readings[0].gaps) if readings else len(X)
        if not readings or n == 0:
            what = "sample" if readings else "feature"
            raise ValueError(
                f"Found array with 0 {what}(s) (shape=({n}, {len(readings)})) while a minimum of 1 is required."
            )
        kinds, circles = self._checked_kinds(table.names)
        for j, ends in circles.items():
            series, reading = table.series[j], readings[j]
            series.circle = Circle.of(ends[0], ends[1], reading.values[reading.gaps == 0] if reading.is_number else [])
            readings[j] = series.circle.unrolled(reading, f"column {series.name!r} of X")
        least = self.min_frequency
        least = least if least is None or isinstance(least, numbers.Integral) else least * n
        self.relations_ = bind(constraints, table.series, readings, kinds)
        readings = self.relations_.forward(readings)
        kinds = {**kinds, **{table.names[r.members[0]]: "categorical" for r in self.relations_.joint}}
        resolution = resolution_of(n) if binned else Resolution()
        self.columns_ = [
            _fitted_column(series, reading, kinds.get(series.name), least, resolution)
            for series, reading in zip(table.series, readings, strict=True)
        ]
        self.ties_ = self._tie(readings) if binned else []
        table.owner = type(self).__name__
        self.table_, self.n_features_in_ = table, len(readings)
        self.n_codes_ = [column.n_codes for column in self.columns_]
        self.__dict__.pop("feature_names_in_", None)
        if table.backend != "numpy" and all(isinstance(name, str) for name in table.names):
            self.feature_names_in_ = np.array(table.names, dtype=object)
        return self

    def _tie(self, readings):
        """Give columns whose numbers are often those of others a code that says so; pairs of the two."""
        columns, kept = self.columns_, []
        for j, k in find_ties(columns, readings, [relation.target for relation in self.relations_.linear]):
            codes = columns[j].encode(readings[j], None)[0]
            rows = equal_numbers(columns[j], readings[j], readings[k]) & columns[j].is_value(codes)
            column = tied(columns[j], codes, rows)
            if column is not None:
                columns[j] = column
                kept.append((j, k))
        return kept

    def _checked_kinds(self, names):
        kinds = self.kinds or {}
        unknown = [name for name in kinds if name not in names]
        if unknown:
            raise ValueError(f"kinds names {unknown}, which are not among the columns {list(names)}.")
        circles = {names.index(name): declared_circle(kind) for name, kind in kinds.items() if kind not in KINDS}
        for j, ends in circles.items():
            if ends is None:
                raise ValueError(
                    f"Got kinds[{names[j]!r}]={kinds[names[j]]!r}, but expected one of {', '.join(KINDS)}, or "
                    "('circular', low, high) with low < high."
                )
        return {name: kind for name, kind in kinds.items() if kind in KINDS}, circles

    def encode(self, X, *, partial=False, random_state=None):
        """Codes and values of the rows, apart.

        Parameters
        ----------
        X : table like that of fit
        partial : bool, default=False
            Whether X, a frame, may have some of the columns only: the cells of the others are not known.
        random_state : int, RandomState instance or None, default=None
            Seed of the dequantisation of the values; None means the codec's own.

        Returns
        -------
        codes : ndarray of int64 of shape (n_samples, n_columns)
            Code of each cell; -1 where it is not known (an unseen level, a gap where fit saw none).
        values : ndarray of shape (n_samples, n_columns)
            z of continuous columns, NaN where the code says all.

        Raises
        ------
        ValueError
            When the columns are not those of fit, or a level was not seen (`unseen="error"`).
        """
        check_is_fitted(self)
        rng = self._rng(random_state) if self.dequantize else None
        return self._encoded(self._readings(X, partial), rng)

    def _encoded(self, readings, rng, input_name="X"):
        n = next(len(reading.gaps) for reading in readings if reading is not None)
        codes = np.full((n, len(readings)), -1)
        values = np.full(codes.shape, np.nan)
        for j, (column, reading) in enumerate(zip(self.columns_, readings, strict=True)):
            if reading is not None:
                codes[:, j], values[:, j] = column.encode(reading, rng, self.unseen, input_name)
        mark_ties(self.ties_, self.columns_, readings, codes, values)
        return codes, values

    def _readings(self, X, partial=False, input_name="X"):
        """What each column holds as it is modelled; None for one that X lacks."""
        return self.relations_.forward(self._cells_of(X, input_name, partial))

    def _cells_of(self, X, input_name="X", partial=False):
        """What each column holds as it stands in a table; None for one that X lacks.

        Where a column of numbers has nothing but missing cells, which objects may stand for, there are numbers as well.
        """
        readings = self.table_.readings(X, input_name, partial)
        return [
            dataclasses.replace(reading, values=np.zeros(len(reading.gaps), dtype=np.int64), quantity=column.quantity)
            if reading is not None and not reading.is_number and column.quantity != WORDS and reading.gaps.all()
            else reading
            for reading, column in zip(readings, self.columns_, strict=True)
        ]

    def decode(self, codes, values, *, random_state=None):
        """The table of some codes and values, in the kind, with the names and the dtypes of that of fit.

        Parameters
        ----------
        codes : ndarray of int of shape (n_samples, n_columns)
        values : ndarray of shape (n_samples, n_columns)
        random_state : int, RandomState instance or None, default=None
            Seed of the draws of rare levels.

        Returns
        -------
        X : frame or ndarray of shape (n_samples, n_columns)
        """
        check_is_fitted(self)
        return self._decoded(codes, values, self._rng(random_state), [None] * self.n_features_in_)

    def _decoded(self, codes, values, rng, readings, index=None, with_ends=False):
        """The table, with the cells that a reading has as they are there, and an index (of a pandas frame)."""
        cells = [column.decode(codes[:, j], values[:, j], rng, with_ends) for j, column in enumerate(self.columns_)]
        known = [is_given(reading, len(codes)) for reading in readings]
        restore_ties(self.ties_, self.columns_, codes, overlaid(cells, readings), cells, known)
        cells = self.relations_.backward(cells, readings)
        return self.table_.build(written(self.table_.series, cells, readings, self.relations_.gap_kinds), index)

    def transform(self, X):
        """The rows as numbers with a density: for each column its code's z, if it has several, and its value.

        Parameters
        ----------
        X : table like that of fit

        Returns
        -------
        Z : ndarray of shape (n_samples, n_outputs)
            Where a code says all, the value of a continuous column is a normal number.
        """
        check_is_fitted(self)
        rng = self._rng(None)
        codes, values = self.encode(X, random_state=rng)
        middle = _Middle()
        outputs = []
        for j, column in enumerate(self.columns_):
            known = np.where(codes[:, j] < 0, rng.choice(column.n_codes, len(codes), p=column.shares), codes[:, j])
            if column.n_codes > 1:
                outputs.append(column.spread(known, rng if self.dequantize else middle))
            if column.is_continuous:
                filled = rng.standard_normal(len(codes)) if self.dequantize else np.zeros(len(codes))
                outputs.append(np.where(np.isnan(values[:, j]), filled, values[:, j]))
        return np.column_stack(outputs) if outputs else np.empty((len(codes), 0))

    def inverse_transform(self, Z):
        """The table of rows of numbers.

        Parameters
        ----------
        Z : array-like of shape (n_samples, n_outputs)

        Returns
        -------
        X : frame or ndarray of shape (n_samples, n_columns)
            As the table of fit: names, order, dtypes, levels, kinds of gap.
        """
        check_is_fitted(self)
        n_outputs = len(self.get_feature_names_out())
        Z = np.asarray(Z) if n_outputs == 0 else check_array(Z, dtype=np.float64, input_name="Z")
        if Z.shape[1] != n_outputs:
            raise ValueError(f"Z has {Z.shape[1]} columns, but transform gives {n_outputs}.")
        codes = np.zeros((len(Z), self.n_features_in_), dtype=np.int64)
        values, place = np.full(codes.shape, np.nan), 0
        for j, column in enumerate(self.columns_):
            if column.n_codes > 1:
                codes[:, j], place = column.gather(Z[:, place]), place + 1
            if column.is_continuous:
                values[:, j], place = Z[:, place], place + 1
        return self.decode(codes, values)

    def get_feature_names_out(self, input_features=None):
        """Names of the columns of `transform`: "name" of values, "name_code" of codes beside them.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        names : ndarray of str
        """
        check_is_fitted(self)
        names = []
        for column in self.columns_:
            name = f"x{column.name}" if self.table_.backend == "numpy" else str(column.name)
            if column.n_codes > 1:
                names.append(f"{name}_code" if column.is_continuous else name)
            if column.is_continuous:
                names.append(name)
        return np.array(names, dtype=object)

    def log_abs_det_jacobian(self, X):
        """The sum of log g'(x) over the ordinary values of each row.

        Parameters
        ----------
        X : table like that of fit

        Returns
        -------
        log_abs_det : ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        return self._log_slopes(self._readings(X))

    def _log_slopes(self, readings, places=None, codes=None):
        """The sum of the log-derivatives of some columns; of cells whose codes are given as -1, nothing."""
        places = range(len(readings)) if places is None else places
        slopes = {j: self.columns_[j].log_slope(readings[j]) for j in places}
        return sum(
            s if codes is None else np.where(self.columns_[j].is_value(codes[:, j]), s, 0.0) for j, s in slopes.items()
        )

    def _rng(self, random_state):
        return check_random_state(self.random_state if random_state is None else random_state)

    def __sklearn_tags__(self):
        """Any columns, missing values allowed; dequantisation is random."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.categorical = tags.input_tags.string = True
        tags.non_deterministic = True
        return tags


def _fitted_column(series, reading, kind, least, resolution):
    try:
        return fit_column(
            series.name, reading, kind, own_levels=series.own_levels, ordered=series.is_ordered,
            dtype=series.float_dtype, min_frequency=least, resolution=resolution,
        )  # fmt: skip
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        raise ValueError(
            f"Column {series.name!r} of X holds cells that are no numbers, words or dates ({error}): take them apart "
            "into columns of their own, or drop the column."
        ) from error


@registered("tables.Middle")
class _Middle:
    """In place of random numbers, the middle of their interval."""

    @staticmethod
    def uniform(low, high, size):
        """The middle."""
        return np.full(size, (low + high) / 2)
