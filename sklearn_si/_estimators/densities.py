"""Log-densities of a fitted model, with their errors."""

import numbers

import numpy as np
import torch
from sklearn.utils import Bunch
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from .._model.densities import chain_log_density, density_ratio, log_density, log_density_gradient
from .._utils.input_checks import is_sample, validate_rows
from .fields import time_of
from .questions import AsksModel

# Paths a row behind `score_samples` with likelihood="sde".
_N_PATHS = 64
# The time of the target.
_END = torch.ones((), dtype=torch.float64)


class DensityMethods(AsksModel):
    """Log-densities of the ODE model and of the SDE chain, their gradient, ratio and cross-entropy."""

    def score_samples(self, X, *, t=1.0, condition=None, return_error=False):
        """Log-density at each row, in the units of X: of the target, or of x_t at any time.

        log rho_t(x) = log rho_0(X_{t,0}(x)) - int_0^t div b(u, X_{t,u}(x)) du    (2303.08797, (2.53))

        With an encoding-decoding path the middle, where x_t is normal, takes the place of the base. With
        likelihood="sde" it is the density of the Euler-Maruyama chain of `n_steps` steps (`log_density_bound`).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        t : float, default=1.0
            Time of the density, in [0, 1].
        condition : array-like, default=None
            One row for all or one for each, if the model was fitted with a condition.
        return_error : bool, default=False
            Return the stated errors as well: of the solver, or of the Monte Carlo mean with likelihood="sde".

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            In nats, within `ode_tol` of the model's exact value; rows that could not be brought
            under it are counted in an `IntegrationWarning`. A row that becomes infinite or NaN is NaN, and another
            `IntegrationWarning` names it.
        error : ndarray of shape (n_samples,)
            With return_error=True, the second of a pair.

        Raises
        ------
        NoDensityError
            After a fit of two samples with base_density=None, and for mirror and forecasting models.
        """
        self._ready()
        value, error = self._log_density(self._validate_rows(X), condition, time_of(t), strict=False)
        return (value, error) if return_error else value

    def score(self, X, y=None, sample_weight=None, *, condition=None):
        """Mean log-likelihood of the rows of y if it is a (2-D) sample, else of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows; after fit(X0, X1) and with a sample y, rows of the base, which are not scored.
        y : array-like of shape (n_samples, n_features), default=None
            Rows of the target, if it has two dimensions; else ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the mean.
        condition : array-like, default=None
            One row for all or one for each, if the model was fitted with a condition.

        Returns
        -------
        score : float
            In nats a row.

        Raises
        ------
        IntegrationError
            When a row becomes infinite or NaN: a mean over the others would be that of other rows.
        """
        self._ready()
        X = validate_rows(self, y, "y") if is_sample(y, "y") else self._validate_rows(X)
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, X)
        return float(np.average(self._log_density(X, condition)[0], weights=weight))

    def log_density_bound(self, X, *, n_paths=64, condition=None):
        """Lower bound of the log-density of the Euler-Maruyama chain, whatever the errors of the fields.

        E[log w] <= log E[w] = log rho(x), w the weights of backward paths: the density is that of the very
        chain that solver="euler-maruyama" samples (the stochastic Heun chain is another one), without
        divergence and without error of step size. The Jensen bound of 2303.08797, (2.67), is far looser.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        n_paths : int, default=64
            Paths a row; all rows share their noise.
        condition : array-like, default=None
            One row for all or one for each, if the model was fitted with a condition.

        Returns
        -------
        result : Bunch
            `bound` (exact lower bound in expectation), its `standard_error`, `effective_sample_size` and
            `weight_std` (of the log-weights), and the importance-weighted `point` with its Monte Carlo `error`;
            each of shape (n_samples,).
        """
        self._ready()
        X = self._validate_rows(X)
        if not isinstance(n_paths, numbers.Integral) or n_paths < 2:
            raise ValueError(f"Got n_paths={n_paths!r}, but expected an integer of at least 2.")
        return Bunch(**self._chain(X, condition, int(n_paths), strict=False))

    def log_density_gradient(self, X, *, t=1.0, condition=None):
        """Gradient of the log-density of the ODE model, by differentiation of the solver itself.

        It is the score of the model's own density, which the learned score function need not be where the
        fields are imperfect: their distance is the Fisher term of 2303.08797, (2.39).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        t : float, default=1.0
            Time of the density, in [0, 1].
        condition : array-like, default=None
            One row for all or one for each, if the model was fitted with a condition.

        Returns
        -------
        gradient : ndarray of shape (n_samples, n_features)
            In inverse data units.
        """
        check_is_fitted(self)
        X, time = self._validate_rows(X), time_of(t)
        return log_density_gradient(self.model_, X, time, self._evaluation(strict=False), condition)

    def density_ratio(self, X, *, condition=None, return_error=False):
        """Log rho_1(x) - log rho_0(x) at fixed x, needing the density of neither end.

        d/dt log rho_t(x) = -(div b + b . s)(t, x), integrated over t in [0, 1].

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, in data units.
        condition : array-like, default=None
            One row for all or one for each, if the model was fitted with a condition.
        return_error : bool, default=False
            Return the stated errors of the quadrature as well.

        Returns
        -------
        ratio : ndarray of shape (n_samples,)
            In nats. It is that of the learned fields: unlike `score_samples` it has an error of first order in theirs.
        """
        model = self._ready()
        model.require_score("density_ratio")
        ratio, error = density_ratio(model, self._validate_rows(X), self._evaluation(strict=False), condition)
        return (ratio, error) if return_error else ratio

    def cross_entropy(self, X, *, condition=None):
        """Cross-entropy of the law of X relative to the model: minus the mean log-density, with its error.

        H = -E log rho_model(x), of the ODE model or (likelihood="sde") of the Euler-Maruyama chain.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Held-out rows.
        condition : array-like, default=None
            One row for all or one for each, if the model was fitted with a condition.

        Returns
        -------
        result : Bunch
            `value` (nats a row), `standard_error` over rows; with likelihood="sde" also `upper_bound`, minus the
            mean of the lower bounds, which holds in expectation whatever the number of paths.
        """
        self._ready()
        X = self._validate_rows(X)
        if not self._scores_chain():
            return _cross_entropy(self._log_density(X, condition)[0])
        chain = self._chain(X, condition, _N_PATHS)
        return _cross_entropy(chain["point"], upper_bound=-float(chain["bound"].mean()))

    def _scores_chain(self):
        """Whether the density is that of the SDE chain, and not of the ODE."""
        return False

    def _log_density(self, X, condition=None, time=_END, strict=True):
        """Log-density of validated rows in data units, and its stated error."""
        X = self._centred(X, self.model_.grid_at(float(time)))
        if not self._scores_chain():
            return log_density(self.model_, X, time, self._evaluation(strict), condition)
        if time != 1:
            raise ValueError(
                f"Got t={float(time):g} with likelihood='sde', whose chain ends at t = 1: use likelihood='ode'."
            )
        chain = self._chain(X, condition, _N_PATHS, strict)
        return chain["point"], chain["error"]

    def _chain(self, X, condition, n_paths, strict=True):
        """The summary of path weights at validated rows."""
        X = self._centred(X, self.model_.target_grid)
        return chain_log_density(self.model_, X, self._sampling(), self._evaluation(strict), n_paths, condition)


def _cross_entropy(density, **others):
    """Minus the mean of log-densities, and its standard error; rows far out may have squares that are no numbers."""
    density = density.astype(np.float64)
    size = max(1.0, float(np.abs(density).max()))
    error = size * (density / size).std() / len(density) ** 0.5
    return Bunch(value=-float(size * (density / size).mean()), standard_error=float(error), **others)
