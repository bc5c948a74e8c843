"""Log-densities of a fitted model, with their errors."""

import numbers
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from .._model.densities import chain_log_density, density_ratio, log_density, log_density_gradient
from .._model.model_error import log_density_interval
from .._model.ratio import WITHOUT_PARTNER, weights_report
from .._utils.figures import Figures
from .._utils.input_checks import is_sample, validate_rows
from .._utils.weights import check_weights
from .fields import time_of
from .model_access import AsksModel

# Paths for each row of `score_samples` with likelihood="sde".
_N_PATHS = 64
# The time of the target.
_END = torch.ones((), dtype=torch.float64)


class DensityMethods(AsksModel):
    """Log-densities of the ODE model and of the SDE chain, their gradient, ratio and cross-entropy."""

    def score_samples(self, X, *, t=1.0, condition=None, return_error=False):
        """Log-density of the target at each row, or of x_t at an earlier time.

        log rho_t(x) = log rho_0(X_{t,0}(x)) - int_0^t div b(u, X_{t,u}(x)) du

        (2303.08797, (2.53)), with X_{t,u} the flow of the ODE from time t to u, plus the log-determinant of the
        preprocessing: the density is that of the rows in data units. On an encoding-decoding path the integral starts
        in the middle, where x_t is normal. With likelihood="sde" it is the density of the Euler-Maruyama chain of
        `n_steps` steps (see `log_density_bound`).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in data units.
        t : float, default=1.0
            Time of the density, in [0, 1]; 1 is the target.
        condition : array-like, default=None
            The condition, if the model was fitted with one: one row for all rows of X, or one for each.
        return_error : bool or "model", default=False
            Whether to return error estimates too: of the solver, or of the Monte Carlo mean with likelihood="sde".
            "model", after a fit with `n_estimators` above 1, asks for the half-width of a 90 % interval of the
            log-density of the distribution that the rows of fit were drawn from.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            In nats, within `ode_tol` of the exact value for the learned velocity; rows that miss it are counted in an
            `IntegrationWarning`. A row that becomes infinite or NaN is NaN, and another `IntegrationWarning` names it.
            A row on a bound of the `support` or outside has -inf, and a warning counts such rows.
        error : ndarray of shape (n_samples,)
            Estimated errors in nats, if return_error=True; half-widths in nats, if it is "model".

        Raises
        ------
        NoDensityError
            After a fit of two samples with base_density=None, and for mirror and forecasting models.
        ValueError
            When return_error is "model" after a fit with n_estimators=1.
        """
        self._ready()
        X, time = self._validate_rows(X), time_of(t)
        of_model = _asks_of_model(return_error)

        def ask(rows):
            if of_model:
                return self._interval(rows, condition, time)
            return self._log_density(rows, condition, time, strict=False)

        value, error = self._where_possible(X, self.model_.grid_at(float(time)), ask)
        return (value, error) if return_error else value

    def score(self, X, y=None, sample_weight=None, *, condition=None):
        """Mean log-likelihood of the rows of y if y is a sample (2-D), else of the rows of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in data units. With a sample y, rows of the base, which are not scored.
        y : array-like of shape (n_samples, n_features), default=None
            Rows of the target, if y has two dimensions; else y is ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the mean.
        condition : array-like, default=None
            The condition, if the model was fitted with one: one row for all rows of X, or one for each.

        Returns
        -------
        score : float
            In nats per row; higher is better. It is -inf, with a warning, if a row with a weight lies on a bound of the
            `support` or outside.

        Raises
        ------
        IntegrationError
            When a row becomes infinite or NaN: a mean over the others would be that of other rows.
        """
        self._ready()
        X = validate_rows(self, y, "y") if is_sample(y, "y") else self._validate_rows(X)
        weight = None if sample_weight is None else check_weights(sample_weight, len(X), "X", "sample_weight")
        value, _ = self._where_possible(X, self.model_.target_grid, lambda rows: self._log_density(rows, condition))
        return mean_of_logs(value, weight)

    def log_density_bound(self, X, *, n_paths=64, condition=None):
        """Lower bound of the log-density of the Euler-Maruyama chain, which holds for any error of the fields.

        E[log w] <= log E[w] = log rho(x),    w = rho_0(x_0) prod_k p(x_{k+1} | x_k) / q(x_k | x_{k+1})

        with paths x_K = x, ..., x_0 drawn backward by q, and p the steps of the chain. The density is exactly that of
        the rows that solver="euler-maruyama" draws (those of "stochastic-heun" have another): no divergence is needed,
        and there is no error of step size. After 2303.08797, Thm. 2.26; the Jensen bound there, (2.67), is far looser.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in data units.
        n_paths : int, default=64
            Number of paths for each row; all rows share their noise.
        condition : array-like, default=None
            The condition, if the model was fitted with one: one row for all rows of X, or one for each.

        Returns
        -------
        result : Bunch
            `bound`, the mean log w (in expectation a lower bound of the log-density), and its `standard_error`;
            `point`, the log of the mean w, and its Monte Carlo `error`; `weight_std`, the standard deviation of log w;
            all in nats. `effective_sample_size` is the number of paths that the weights are worth. Each is of shape
            (n_samples,).

        Raises
        ------
        ValueError
            When noise_level is 0, or when the score function is not known.
        """
        self._ready()
        X = self._validate_rows(X)
        if not isinstance(n_paths, numbers.Integral) or n_paths < 2:
            raise ValueError(f"Got n_paths={n_paths!r}, but expected an integer of at least 2.")
        return Figures(**self._chain(X, condition, int(n_paths), strict=False))

    def log_density_gradient(self, X, *, t=1.0, condition=None):
        """Gradient of the log-density of the ODE model, by differentiation of the solver.

        grad_x log rho_t(x)    (rho_t as in `score_samples`)

        It differs from the learned `score_function` by errors of the fields; `fisher_divergence` measures how much
        (2303.08797, (2.39)).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in data units.
        t : float, default=1.0
            Time of the density, in [0, 1]; 1 is the target.
        condition : array-like, default=None
            The condition, if the model was fitted with one: one row for all rows of X, or one for each.

        Returns
        -------
        gradient : ndarray of shape (n_samples, n_features)
            In inverse data units.

        Raises
        ------
        NoDensityError
            When the density of the base cannot be differentiated.
        """
        check_is_fitted(self)
        time = time_of(t)
        X = self._in_support(self._validate_rows(X), self.model_.grid_at(float(time)))
        return log_density_gradient(self.model_, X, time, self._evaluation(strict=False), condition)

    def density_ratio(self, X, *, condition=None, return_error=False):
        """Log-ratio of the densities of target and base at the same row, for which neither density is needed.

        argmin E_0 log(1 + e^r) + E_1 log(1 + e^-r),    r(x) = log rho_1(x) - log rho_0(x)

        (Sugiyama, Suzuki & Kanamori 2012, "Density ratio estimation in machine learning", chapter 4). After a fit of
        two samples without a condition, this loss of rows that were left out blends quadratic functions, differences of
        Gaussian mixtures and networks. In all other cases the learned fields give

        r(x) = -int_0^1 (div b + b . s)(t, x) dt

        (the continuity equation 2303.08797, (2.9), divided by rho_t), with an error of first order in those of the
        fields.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, in data units.
        condition : array-like, default=None
            The condition, if the model was fitted with one: one row for all rows of X, or one for each.
        return_error : bool, default=False
            Whether to return estimated errors too.

        Returns
        -------
        ratio : ndarray of shape (n_samples,)
            In nats; above 0 where the target is denser than the base.
        error : ndarray of shape (n_samples,)
            In nats, if return_error=True: the standard error by the jackknife over five parts of the rows of fit; where
            the fields give the ratio, the error of the quadrature.

        Raises
        ------
        ValueError
            When the score function is not known. When the samples hardly overlap: more than 95 % of the rows of each
            have no partners, that is, lie where their own sample is more than a hundred times as dense as the other.
        """
        model = self._ready()
        model.require_score("density_ratio")
        X = self._in_support(self._validate_rows(X), model.target_grid)
        ratio, error = density_ratio(model, X, self._evaluation(strict=False), condition)
        return (ratio, error) if return_error else ratio

    def importance_weights(self, X, *, condition=None):
        """Weights of rows of the base with which they stand for the target, and what they are worth.

        w(x) = rho_1(x) / rho_0(x),    E_0[w f] = E_1[f],    n_eff = (sum w)^2 / sum w^2

        (Kish 1965, "Survey sampling", for the effective number of rows; w is the exponential of `density_ratio`).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of the base, in data units.
        condition : array-like, default=None
            As in `density_ratio`.

        Returns
        -------
        result : Bunch
            `weights`, `log_ratio` and its `error` in nats, ndarrays of shape (n_samples,). `mean_weight`, which is 1
            but for errors of the ratio and of the sample; `effective_size`, the number of rows that the weights are
            worth. `without_partners`, the share of the rows where the base is more than a hundred times as dense as the
            target.

        Raises
        ------
        ValueError
            As in `density_ratio`.
        """
        ratio, error = self.density_ratio(X, condition=condition, return_error=True)
        without = float(np.mean(ratio < -WITHOUT_PARTNER))
        report = weights_report(ratio.astype(np.float64))
        return Figures(weights=np.exp(ratio), log_ratio=ratio, error=error, without_partners=without, **report)

    def cross_entropy(self, X, *, condition=None):
        """Cross-entropy of the distribution of X relative to the model: minus the mean log-density, with its error.

        H = -E log rho(x),    rho as in `score_samples`

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Held-out rows, in data units.
        condition : array-like, default=None
            The condition, if the model was fitted with one: one row for all rows of X, or one for each.

        Returns
        -------
        result : Bunch
            `value` in nats per row, and its `standard_error` over rows. With likelihood="sde" also `upper_bound`, minus
            the mean of `log_density_bound`, which holds in expectation for any number of paths.
        """
        self._ready()
        X = self._validate_rows(X)
        if not self._scores_chain():
            return _cross_entropy(self._log_density(X, condition)[0])
        chain = self._chain(X, condition, _N_PATHS)
        return _cross_entropy(chain["point"], upper_bound=-float(chain["bound"].mean()))

    def _interval(self, X, condition, time):
        """Log-density of validated rows, and the half-width of its interval, which speaks of the fit."""
        model: Any = self.model_.target_model if self.model_.target_model is not None and time == 1 else self.model_
        n_members = len(model.members)
        if n_members == 1 or self._scores_chain():
            got = "one" if n_members == 1 else f"{n_members}, of SDE chains (likelihood='sde')"
            raise ValueError(
                f"return_error='model' compares the ODEs of several members, but this model has {got}: fit an "
                "InterpolantFlow or an InterpolantDiffusion with n_estimators=5 to one sample, with likelihood='ode'. "
                "(return_error=True tells the error of the solver.)"
            )
        X = self._placed(X, self.model_.grid_at(float(time)))
        return log_density_interval(model, X, time, self._evaluation(strict=False), condition)

    def _scores_chain(self):
        """Whether the density is that of the SDE chain, and not that of the ODE."""
        return False

    def _log_density(self, X, condition=None, time=_END, strict=True):
        """Log-density of validated rows in data units, and its estimated error."""
        X = self._placed(X, self.model_.grid_at(float(time)))
        if not self._scores_chain():
            return log_density(self.model_, X, time, self._evaluation(strict), condition)
        if time != 1:
            raise ValueError(
                f"Got t={float(time):g} with likelihood='sde', whose chain ends at t = 1: use likelihood='ode'."
            )
        chain = self._chain(X, condition, _N_PATHS, strict)
        return chain["point"], chain["error"]

    def _chain(self, X, condition, n_paths, strict=True):
        """The summary of the path weights of validated rows."""
        X = self._placed(X, self.model_.target_grid)
        return chain_log_density(self.model_, X, self._sampling(), self._evaluation(strict), n_paths, condition)


def _asks_of_model(return_error):
    """Whether the error is that of the fit; another text would pass for True."""
    if isinstance(return_error, str) and return_error != "model":
        raise ValueError(f"Got return_error={return_error!r}, but expected False, True or 'model'.")
    return isinstance(return_error, str)


def mean_of_logs(value, weight=None):
    """The weighted mean of log-densities, some of which may be -inf; those without a weight do not count."""
    counts = np.ones(len(value), dtype=bool) if weight is None else weight > 0
    return float(np.average(value[counts], weights=None if weight is None else weight[counts]))


def _cross_entropy(density, **others):
    """Minus the mean of log-densities, and its standard error; scaled, since squares of large values may overflow."""
    density = density.astype(np.float64)
    size = max(1.0, float(np.abs(density).max()))
    error = size * (density / size).std() / len(density) ** 0.5
    return Figures(value=-float(size * (density / size).mean()), standard_error=float(error), **others)
