"""What a model of many samples is asked: rows of any time, maps between any two, densities."""

import itertools

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from .._model.lost_rows import warn_missed
from .._model.settings import Evaluation
from .._utils.containers import in_container
from .._utils.frame_names import names_of
from .._utils.input_checks import check_count, validate_points, validate_rows
from .._utils.tensors import SAMPLE_STREAM, draw_seed, make_generator, resolve_device
from .._utils.weights import check_weights
from .many_samples import checked_weights, position_of


class SimplexMethods(BaseEstimator):
    """The methods of an estimator whose fit leaves a `MultimarginalModel`."""

    def transform(self, X, source=None, target=None, *, condition=None):
        """Move rows of one sample, or of one time, to another along the ODE.

        dX/ds = sum_k alpha_k'(s) g_k(alpha(s), X)    (arXiv 2310.03695, (6))

        The map is deterministic, and the map from `target` to `source` is its inverse.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of `source`, in data units.
        source, target : label or float, default=None
            Labels of samples (`labels_`), or, in a model with times, any times from the first to the last. None are the
            first and the last; samples without an order have neither, and are to be named.
        condition : array-like, default=None
            The condition, if the model was fitted with one: one row for all, or one for each.

        Returns
        -------
        X_t : ndarray or frame of shape (n_samples, n_features)
            The moved rows, in data units, each with an error of at most `ode_tol`; rows that miss it are counted in an
            `IntegrationWarning`. A row that becomes infinite or NaN is NaN, and another warning names it.

        Raises
        ------
        ValueError
            When there is no such label, the time is not between the first and the last, or a frame has not the columns
            of fit in its order.
        """
        model = self._ready()
        path = model.path(self._position(source, "source", 0), self._position(target, "target", -1))
        # arrays of any time, such as this method's own, need no names; those of a frame are those of fit in its order
        rows = validate_points(self, X, "X") if names_of(X) is None else validate_rows(self, X)
        return in_container(self, self._moved(rows, path, condition), X)

    def trajectory(self, X, times, *, condition=None):
        """The rows at several times, from rows at the first of them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows at times[0], in data units.
        times : array-like of shape (n_times,)
            Times from the first to the last of fit, in any order.
        condition : array-like, default=None
            The condition, if the model was fitted with one: one row for all, or one for each.

        Returns
        -------
        paths : ndarray of shape (n_times, n_samples, n_features)
            In data units; each step is within `ode_tol`.

        Raises
        ------
        ValueError
            When the model has no times.
        """
        model = self._ready()
        if model.times is None:
            raise ValueError(
                "trajectory needs an order of the samples, but fit was given no times: fit([X0, ..., XK], times=...), "
                "or move rows between two samples with transform."
            )
        if not np.iterable(times) or not len(times := list(times)):
            raise ValueError(f"Got times={times!r}, but expected a list of times.")
        moments = [self._position(t, "times", 0) for t in times]
        paths = [validate_points(self, X, "X")]
        for before, after in itertools.pairwise(moments):
            paths.append(self._moved(paths[-1], model.path(before, after), condition))
        return np.stack(paths)

    def sample(self, n_samples=1, *, time=None, condition=None, random_state=None):
        """Draw rows of a sample, or of any time.

        Rows of the samples before and after `time`, those of the nearer one more often, are drawn with replacement and
        moved along the ODE; without times, rows of all other samples alike. Given a condition they are rows that have
        it, or else the 2 % of rows (at least ten) of the nearest conditions.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        time : label or float, default=None
            As `target` in `transform`; None is the last sample.
        condition : array-like, default=None
            The condition, if the model was fitted with one: one row for all, or one for each.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw. None is the estimator's own `random_state`; if that is None too, each call draws other
            rows.

        Returns
        -------
        X : ndarray or frame of shape (n_samples, n_features)
            Rows in data units. A row that becomes infinite or NaN is drawn again, at most three times.

        Raises
        ------
        ValueError
            As in `transform`.
        IntegrationError
            When more than 1 % of the rows become infinite or NaN in each of their four draws.
        """
        model, n_samples = self._ready(), check_count(n_samples, "n_samples")
        X = model.sample(n_samples, self._position(time, "time", -1), self._generator(random_state), condition)
        return in_container(self, X, condition)

    def barycenter(self, weights, n_samples=1, *, condition=None, random_state=None):
        """Draw rows of a mean of the samples: of x(w) = sum_k w_k x_k.

        Under the plan of coupling="optimal" without times, its distribution minimises sum_k w_k W2(rho, rho_k)^2 (Agueh
        & Carlier 2011, "Barycenters in the Wasserstein space"), up to the bias of batches.

        Parameters
        ----------
        weights : array-like of shape (n_labels,) or dict
            The weight of each sample, in the order of `labels_`, or by label (0 where it is left out); none is
            negative, and their sum is 1.
        n_samples : int, default=1
            Number of rows.
        condition : array-like, default=None
            The condition, if the model was fitted with one: one row for all, or one for each.
        random_state : int, RandomState instance or None, default=None
            As in `sample`.

        Returns
        -------
        X : ndarray or frame of shape (n_samples, n_features)
            Rows in data units.

        Raises
        ------
        ValueError
            When the weights are not one for each sample, negative, or do not add up to 1.
        """
        model, n_samples = self._ready(), check_count(n_samples, "n_samples")
        weights = checked_weights(weights, model.labels)
        X = model.barycenter(weights, n_samples, self._generator(random_state), condition)
        return in_container(self, X, condition)

    def score_samples(self, X, *, time=None, condition=None, return_error=False):
        """Log-density of a sample, or of any time, at each row.

        log rho_t(x) = log rho_0(X_0) - int_0^1 div b(s, X_s) ds,    X_1 = x

        along the path from the first sample, whose density is that of `base_density` (2303.08797, (2.53)).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in data units.
        time : label or float, default=None
            As `target` in `transform`; None is the last sample.
        condition : array-like, default=None
            The condition, if the model was fitted with one: one row for all, or one for each.
        return_error : bool, default=False
            Whether to return the estimated errors of the solver too.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            In nats, within `ode_tol` of the exact value for the learned velocity; rows that miss it are counted in an
            `IntegrationWarning`. A row that becomes infinite or NaN is NaN, with a warning that names it.
        error : ndarray of shape (n_samples,)
            Estimated errors in nats, if return_error=True.

        Raises
        ------
        NoDensityError
            After a fit with base_density=None.
        """
        value, error = self._log_density(validate_rows(self, X), time, condition, strict=False)
        return (value, error) if return_error else value

    def score(self, X, y=None, *, time=None, condition=None, sample_weight=None):
        """Mean log-likelihood of rows of a sample, or of any time.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in data units.
        y : None
            Ignored.
        time : label or float, default=None
            As `target` in `transform`; None is the last sample.
        condition : array-like, default=None
            The condition, if the model was fitted with one: one row for all, or one for each.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        score : float
            In nats per row; higher is better.
        """
        value = self._log_density(validate_rows(self, X), time, condition, strict=True)[0]
        weight = None if sample_weight is None else check_weights(sample_weight, len(value), "X", "sample_weight")
        return float(np.average(value, weights=weight))

    # -- how they are answered

    def _ready(self):
        check_is_fitted(self)
        self._validate_params()
        return self.model_

    def _generator(self, random_state):
        seed = draw_seed(self.random_state if random_state is None else random_state)
        return make_generator(seed, SAMPLE_STREAM, resolve_device(self.device))

    def _moved(self, X, path, condition):
        evaluation = Evaluation(resolve_device(self.device), self.ode_tol, strict=False)
        moved, error = self.model_.along(path).transport(X, True, evaluation, condition)
        warn_missed(error, self.ode_tol)
        return moved

    def _log_density(self, X, time, condition, strict):
        model, position = self._ready(), self._position(time, "time", -1)
        evaluation = Evaluation(resolve_device(self.device), self.ode_tol, strict=strict)
        return model.log_density(X, position, evaluation, condition)

    def _position(self, given, name, default):
        return position_of(self.model_, given, name, default)
