"""Any columns given any others: the questions that a fit under masks answers."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .._model.conditionals import complete, conditional_log_density
from .._utils.columns import WORDS
from .._utils.frame_names import is_frame, names_of, row_by_name
from .._utils.frames import Table, reading_of, rows_of_array
from .._utils.input_checks import check_count, check_finite_columns, column_positions, validate_rows
from .._utils.kinds import as_cells
from .._utils.tensors import SAMPLE_STREAM, make_generator
from ..preprocessing._patterns import ABSENT, ASKED, GIVEN
from .far_rows import warn_of_far_cells
from .fields import time_of
from .model_access import AsksModel


class ConditionalMethods(AsksModel):
    """Draws and log-densities of some columns given others, after a fit with conditionals="any"."""

    def sample(self, n_samples=None, *, given=None, condition=None, random_state=None):
        """Draw rows of the target; those of `given` keep the cells that it has.

        dX = b dt,    or    dX = (b + epsilon s) dt + sqrt(2 epsilon) dW,    from t = 0 to 1

        (2303.08797, (2.32) with noise_level=0, (2.33) above it), from a row of the base: standard normal after a fit of
        one sample, a random row of X0 after a fit of two. With `given`, the columns that are missing in a row are drawn
        by the field that was learned for them given the others.

        Parameters
        ----------
        n_samples : int or None, default=None
            Number of rows; None is one, or one for each row of `given`.
        given : frame, array-like of shape (n_rows, n_features), dict or pandas Series, default=None
            Cells that are kept, after a fit with conditionals="any"; missing ones (NaN) are drawn. Columns of a frame
            or a dict are found by name, as are the cells of a Series, which is one row, and those that it lacks are
            drawn; those of an array by position. One row is used for all draws.
        condition : array-like, default=None
            The condition, if the model was fitted with one: one row for all draws, or one for each.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw. None is the estimator's own `random_state`; if that is None too, each call draws other
            rows.

        Returns
        -------
        X : ndarray or frame of shape (n_samples, n_features)
            Rows in data units, in the dtype of the rows given to fit (with `given`, in one that holds its cells as
            well). A row that becomes infinite or NaN is drawn again, at most three times; such rows are counted in an
            `IntegrationWarning`.

        Warns
        -----
        UserWarning
            When given cells are far outside those of fit: they are kept, and the others are drawn as beside a cell half
            the range of fit beyond its end.

        Raises
        ------
        ValueError
            When `given` has unknown columns or cells that are no finite numbers, and when the model was not fitted with
            conditionals="any".
        IntegrationError
            When more than 1 % of the rows become infinite or NaN in each of their four draws.
        """
        if given is None:
            n_samples = 1 if n_samples is None else n_samples
            return super().sample(n_samples, condition=condition, random_state=random_state)
        model = self._ready()
        self._require_conditionals("given")
        sampling = self._sampling()
        model.check_sampling(sampling)
        if sampling.solver == "distilled":
            raise ValueError("solver='distilled' draws whole rows: use solver='auto' with given=.")
        X = self._repeated(self._cells(given), n_samples)
        self._check_given(X, "given")
        generator = make_generator(self._seed_of(random_state), SAMPLE_STREAM, self._evaluation().device)
        drawn = complete(model, self._centred_cells(X), sampling, generator, condition)
        return self._wrapped(np.where(np.isnan(X), drawn, X), given)

    def score_samples(self, X, *, t=1.0, given=None, columns=None, condition=None, return_error=False):
        """Log-density of the target at each row, of some of its columns given others, or of x_t at an earlier time.

        log rho_t(x) = log rho_0(X_{t,0}(x)) - int_0^t div b(u, X_{t,u}(x)) du

        (2303.08797, (2.53)), with X_{t,u} the flow of the ODE from time t to u, plus the log-determinant of the
        preprocessing: the density is that of the rows in data units. On an encoding-decoding path the integral starts
        in the middle, where x_t is normal. After a fit with conditionals="any" also log p(x_A | x_B), by the field of
        the columns A alone, with the columns B as its condition.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in data units. Cells of columns that are neither asked for nor given may be missing (NaN).
        t : float, default=1.0
            Time of the density, in [0, 1]; 1 is the target. Other times know no `given` and no `columns`.
        given : list, default=None
            The columns B that are given: names after a fit to a frame, else positions. None is no column.
        columns : list, default=None
            The columns A whose density is asked for; None is all that are not given. The others are integrated out: the
            model was trained for that as well.
        condition : array-like, default=None
            The condition, if the model was fitted with one: one row for all rows of X, or one for each.
        return_error : bool or "model", default=False
            Whether to return error estimates of the solver too. "model", after a fit with `n_estimators` above 1, asks
            for the half-width of a 90 % interval of the log-density of the distribution that the rows of fit were drawn
            from (see :doc:`/guide/likelihood`).

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            In nats, within `ode_tol` of the exact value for the learned velocity; rows that miss it are counted in an
            `IntegrationWarning`. A row that becomes infinite or NaN is NaN, and another `IntegrationWarning` names it.
            A row whose cells that are asked for lie on a bound of the `support` or outside has -inf, and a warning
            counts such rows; given cells must lie within. Given cells far outside those of fit count as in
            `sample`.
        error : ndarray of shape (n_samples,)
            Estimated errors in nats, if return_error=True; half-widths in nats, if it is "model".

        Raises
        ------
        NoDensityError
            After a fit of two samples with base_density=None, and for mirror models.
        ValueError
            When `given` or `columns` name unknown columns or the same one, or a column that they name misses values;
            and when the model was not fitted with conditionals="any". When return_error is "model" after a fit with
            n_estimators=1, or with `given` or `columns`.
        """
        if given is None and columns is None:
            return super().score_samples(X, t=t, condition=condition, return_error=return_error)
        model = self._ready()
        self._require_conditionals("given" if columns is None else "columns")
        if time_of(t) != 1:
            raise ValueError(f"Got t={t:g} with given= or columns=, which are known at the target alone: leave t=1.")
        states = self._states(given, columns)
        X = self._known_rows(X, states)
        if isinstance(return_error, str):
            raise ValueError(
                f"Got return_error={return_error!r} with given= or columns=, whose model has one member: expected True "
                "(the error of the solver) or False."
            )
        value, error = self._where_possible(
            self._supported(X, states),
            model.target_grid,
            lambda rows: conditional_log_density(
                model, self._centred_cells(rows), states, self._evaluation(strict=False), condition
            ),
        )
        return (value, error) if return_error else value

    def _supported(self, X, states):
        """Rows without the cells that do not count; raises where a given one lies outside the support."""
        X = np.where(states == ABSENT, np.nan, X).astype(X.dtype, copy=False)
        self._check_given(np.where(states == GIVEN, X, np.nan), "X")
        return X

    def _check_given(self, cells, name):
        """Raise where a given cell lies outside the support of its column; warn where it is far from those of fit."""
        support, grid = self.model_.support, self.model_.target_grid
        if support is not None:
            support.check(cells, name, self._column_names(), () if grid is None else grid.columns)
        warn_of_far_cells(cells, self.model_.masked_map, self._column_names(), name)

    def _require_conditionals(self, name):
        """Raise where the model was not trained under masks, or is asked for guided answers."""
        check_is_fitted(self)
        if self.model_.masked_map is None:
            raise ValueError(
                f"Got {name}=, but the model has learned whole rows alone: set conditionals='any' and fit again. (For "
                "fixed columns, fit(X[others], condition=X[columns]) learns one conditional distribution.)"
            )
        if self._guidance() != 1:
            raise ValueError(f"Got guidance={self._guidance():g} with {name}=, which has no guided field: set it to 1.")

    def _states(self, given, columns):
        """The state of each column in a question."""
        names = self._column_names()
        known = column_positions(given, names, "given")
        asked = [j for j in range(len(names)) if j not in known] if columns is None else None
        asked = column_positions(columns, names, "columns") if asked is None else asked
        both = [names[j] for j in asked if j in known]
        if both:
            raise ValueError(
                f"Columns {both} are in given and in columns: their density given themselves has no meaning."
            )
        if not asked:
            raise ValueError("No column is asked for: leave some out of given, or name some in columns.")
        states = np.full(len(names), ABSENT)
        states[known], states[asked] = GIVEN, ASKED
        return states

    def _known_rows(self, X, states):
        """Rows that have the cells of a question; other cells may be missing."""
        X = validate_rows(self, X, allow_nan=True)
        names = self._column_names()
        check_finite_columns(X, [j for j in range(len(names)) if states[j] != ABSENT], names, "X")
        return X

    def _cells(self, given):
        """The cells of `given` in the columns of fit; NaN where nothing is given."""
        names = self._column_names()
        given = row_by_name(given, names, "given")
        if isinstance(given, dict):
            cells_of = {name: reading_of(cells, name, "given") for name, cells in given.items()}
            return self._assembled({name: _numbers(r, series, name) for name, (r, series) in cells_of.items()})
        rows = given if is_frame(given) else rows_of_array(np.atleast_2d(as_cells(given, "given")), "given")
        table = Table.of(rows, "given")
        own = names if names_of(rows) is None else table.names
        if len(own) != len(table.series):
            raise ValueError(
                f"given has {len(table.series)} columns, but expected the {len(names)} of fit, with NaN in cells that "
                "are to be drawn; or a frame or dict of some columns, by name."
            )
        read = zip(own, table.readings(rows, "given"), table.series, strict=True)
        return self._assembled({name: _numbers(reading, series, name) for name, reading, series in read})

    def _assembled(self, columns):
        """Cells by name as rows of all columns."""
        names = self._column_names()
        n = max(map(len, columns.values()), default=0)
        if n == 0:
            raise ValueError("given is empty: leave it out, or give some cells.")
        X = np.full((n, len(names)), np.nan, np.result_type(*columns.values()))
        for place, (name, cells) in zip(column_positions(list(columns), names, "given"), columns.items(), strict=True):
            if len(cells) not in (1, n):
                raise ValueError(f"Column {name!r} of given has {len(cells)} cells, but expected 1 or {n}.")
            X[:, place] = cells
        return X

    def _repeated(self, X, n_samples):
        n_samples = None if n_samples is None else check_count(n_samples, "n_samples")
        if n_samples is not None and len(X) not in (1, n_samples):
            raise ValueError(f"Got n_samples={n_samples}, but given has {len(X)} rows: leave n_samples out.")
        return np.repeat(X, n_samples or 1, axis=0) if len(X) == 1 else X

    def _centred_cells(self, X):
        """Rows with repeated values at the centres of their cells; missing ones stay missing."""
        grid, missing = self.model_.target_grid, np.isnan(X)
        if grid is None:
            return X
        filled = X.copy()
        for j, column in grid.columns.items():
            filled[missing[:, j], j] = column.values[0]
        return np.where(missing, np.nan, self._centred(np.where(np.isnan(filled), 0, filled), grid))


def _numbers(reading, series, name):
    """The numbers of a column, NaN where they are missing; none of them is infinite."""
    present, missing = reading.values[reading.gaps == 0], reading.gaps > 0
    is_flag = not reading.is_number and all(isinstance(cell, (bool, np.bool_)) for cell in present)
    if not is_flag and reading.quantity != "numbers":
        held = repr(present[0]) if reading.quantity == WORDS else reading.quantity
        raise ValueError(f"Column {name!r} of given holds {held}, but expected numbers.")
    single = series.float_dtype is not None and series.float_dtype.itemsize <= np.dtype(np.float32).itemsize
    values = np.full(len(missing), np.nan, np.float32 if single else np.float64)
    values[~missing] = present.astype(values.dtype)
    if np.isinf(values).any():
        raise ValueError(f"Column {name!r} of given holds infinite numbers: replace them, or NaN draws them.")
    return values
