"""A transformer that fills missing values by draws from a model of whole rows."""

import numbers
from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, _fit_context
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.validation import check_is_fitted, validate_data

from .._estimators.in_group import fit_by_first
from .._utils.callbacks import FollowedEstimator, Tasks
from .._utils.frame_names import is_frame
from .._utils.frames import Table, index_of
from .._utils.kinds import check_cells
from .._utils.links import LinkedEstimator
from .._utils.names import registered
from .._utils.tensors import draw_seed
from ._synthesizer import TableSynthesizer

__all__ = ["InterpolantImputer"]


@registered("tables.InterpolantImputer")
class InterpolantImputer(FollowedEstimator, LinkedEstimator, OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Fill missing values by draws given the known cells of the row, from one model of all columns.

    x_missing ~ P(x_missing | x_observed)

    (`TableSynthesizer.impute`). Draws keep the spread and the dependence of the columns, which conditional means do
    not; several of them tell how uncertain a result is that is computed from completed rows (Rubin 1987, "Multiple
    imputation for nonresponse in surveys"). Values are taken to be missing at random: whether a cell is a gap may
    depend on what the row has.

    Parameters
    ----------
    synthesizer : TableSynthesizer or None, default=None
        What is cloned and fitted; None is a TableSynthesizer with its defaults.
    average : int, default=1
        Draws that are averaged: 1 is a draw; more come near to the conditional mean of numbers, and to the most
        frequent level elsewhere, which predicts better and spreads less. May be changed after fit.
    keep_empty_features : bool, default=False
        Whether columns of an array that hold nothing but missing values in fit are kept, filled with 0, or dropped.
        May be changed after fit.
    random_state : int, RandomState instance or None, default=None
        Seed of training and of the draws; an int gives the same rows at each call.

    Attributes
    ----------
    synthesizer_ : TableSynthesizer
        The model.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of str
        Names of the columns, where fit was given a frame.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si.tables import InterpolantImputer, TableSynthesizer
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> X[::5, 1] = np.nan
    >>> imputer = InterpolantImputer(TableSynthesizer(max_iter=20), random_state=0)
    >>> bool(np.isfinite(imputer.fit_transform(X)).all())
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        "synthesizer": [HasMethods(["fit", "impute"]), None],
        "average": [Interval(numbers.Integral, 1, None, closed="left")],
        "keep_empty_features": ["boolean"],
        "random_state": ["random_state"],
    }

    def __init__(self, synthesizer=None, average=1, keep_empty_features=False, random_state=None):
        self.synthesizer, self.average = synthesizer, average
        self.keep_empty_features, self.random_state = keep_empty_features, random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Fit the model to rows with missing values.

        Parameters
        ----------
        X : frame or array-like of shape (n_samples, n_features)
            Columns of any kind in a frame, numbers in an array; NaN, None and the like are missing values.
        y : None
            Ignored.

        Returns
        -------
        self : object
        """
        return fit_by_first(self, self._fit_to_all, X=X)

    def _fit_to_all(self, X):
        X = self._checked(X, reset=True)
        self._seed = draw_seed(self.random_state)
        synthesizer = TableSynthesizer() if self.synthesizer is None else self.synthesizer
        settings = {**synthesizer.get_params(deep=False), "random_state": self._seed}
        self.synthesizer_, tasks = type(synthesizer)(**settings), Tasks(self, X)
        with tasks.part("synthesizer", self.synthesizer_):
            self.synthesizer_.fit(X)
        tasks.end()
        self._is_frame = Table.of(X).backend != "numpy"
        columns = self.synthesizer_.codec_.columns_
        self._empty = [j for j, c in enumerate(columns) if len(c.gap_kinds) == c.n_codes]

    def _checked(self, X, reset=False):
        if is_frame(X):
            return validate_data(self, X, reset=reset, skip_check_array=True)
        X = check_cells(X, "X")
        try:
            return validate_data(self, X, reset=reset, dtype=(np.float64, np.float32), ensure_all_finite="allow-nan")
        except ValueError as error:
            if "could not convert string" not in str(error):
                raise
            raise ValueError(
                f"{error}: in X, which is not a frame, all cells are numbers here. Pass a frame, such as "
                "pandas.DataFrame(X), whose columns may hold words."
            ) from error

    def transform(self, X):
        """Rows without missing values.

        Parameters
        ----------
        X : frame or array-like of shape (n_samples, n_features)

        Returns
        -------
        X_t : frame or ndarray of shape (n_samples, n_features)
            Cells that were there are unchanged, and so is the index of a pandas frame. In a frame, columns that held
            nothing but missing values in fit keep them.
        """
        check_is_fitted(self)
        X = self._checked(X)
        tables = self.synthesizer_.impute(X, n_draws=self.average, random_state=self._seed)
        completed = tables if self.average == 1 else self._averaged(X, tables)
        if self._is_frame or not self._empty:
            return completed
        if not self.keep_empty_features:
            return np.delete(completed, self._empty, axis=1)
        completed[:, self._empty] = np.where(np.isnan(completed[:, self._empty]), 0.0, completed[:, self._empty])
        return completed

    def _averaged(self, X, tables):
        """Of every cell, the mean of its draws if it holds numbers, else the most frequent."""
        table = Table.of(tables[0])
        drawn, codec = zip(*(table.readings(t) for t in tables), strict=True), self.synthesizer_.codec_
        members = {j for relation in codec.relations_.joint for j in relation.members}
        targets = {relation.target for relation in codec.relations_.linear}
        cells, kinds = [], []
        for j, (column, readings) in enumerate(zip(codec.columns_, drawn, strict=True)):
            stacked = np.stack([reading.values for reading in readings])
            if not readings[0].is_number or j in members:
                values = _mode(stacked)
            else:
                values = _mean(stacked, None if j in targets else column)
            cells.append((values, readings[0].gaps))
            kinds.append(readings[0].kinds)
        cells = codec.relations_.mended(cells, codec._cells_of(X))
        written = [series.write(*pair, k) for series, pair, k in zip(table.series, cells, kinds, strict=True)]
        return table.build(written, index_of(X))

    def get_feature_names_out(self, input_features=None):
        """Names of the columns that `transform` gives.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the columns of an array.

        Returns
        -------
        names : ndarray of str
        """
        names = super().get_feature_names_out(input_features)
        dropped = [] if self._is_frame or self.keep_empty_features else self._empty
        return np.delete(names, dropped)

    def __sklearn_tags__(self):
        """The tags of scikit-learn: missing values, text and categories are allowed."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.categorical = tags.input_tags.string = True
        tags.non_deterministic = True
        return tags


def _mean(stacked, column):
    """The mean of each column of draws, on a value that fit has seen where these are few; cells that agree stay."""
    if column is not None and column.kind == "categorical":
        return _mode(stacked)
    values, first = stacked[0].copy(), stacked[0]
    differ = (stacked != first).any(axis=0)
    with np.errstate(invalid="ignore"):  # from infinity to infinity
        mean = (stacked[:, differ] - first[differ]).mean(axis=0)
    if column is None:
        values[differ] = first[differ] + (np.rint(mean).astype(np.int64) if values.dtype.kind == "i" else mean)
    elif column.kind == "discrete":
        values[differ] = column.levels[column.nearest(first[differ] + mean)]
    else:
        values[differ] = column.on_grid(
            first[differ] + (np.rint(mean).astype(np.int64) if values.dtype.kind == "i" else mean)
        )
    infinite = np.isinf(stacked).any(axis=0)
    values[infinite] = _mode(stacked[:, infinite])
    return values


def _mode(stacked):
    """The most frequent value of each column; of equals the first."""
    modes = stacked[0].copy()
    for j in np.flatnonzero((stacked != stacked[0]).any(axis=0)):
        values = stacked[:, j].tolist()
        modes[j] = max(values, key=values.count)
    return modes
