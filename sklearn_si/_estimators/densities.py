"""Log-densities of a fitted model, with their errors."""

import numbers

import numpy as np
import torch
from sklearn.utils import Bunch
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from .._model.likelihood import (
    density_parts,
    log_density_ratio,
    middle_parts,
    ode_log_density,
    standard_normal_parts,
)
from .._model.sde_likelihood import path_log_weights, summarise
from .._utils.input_checks import is_sample
from .._utils.tensors import (
    PATH_STREAM,
    as_array,
    as_tensor,
    blocks,
    evaluation_dtype,
    make_generator,
    resolve_device,
)
from ..exceptions import NoDensityError, rows_from
from ..preprocessing import AffineMap
from ..solvers import require_finite

# Paths a row behind `score_samples` with likelihood="sde".
_N_PATHS = 64
# Steps by which gradients of log-densities are taken, and rows of one chunk.
_GRADIENT_STEPS, _GRADIENT_ROWS = 48, 256
# Rows that are scored at a time: the memory beside input and output does not grow with their number.
_BLOCK = 2**16


class DensityMethods:
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
            under it are counted in an `IntegrationWarning`.
        error : ndarray of shape (n_samples,)
            With return_error=True, the second of a pair.

        Raises
        ------
        NoDensityError
            After a fit of two samples with base_density=None, and for mirror and forecasting models.
        """
        check_is_fitted(self)
        self._validate_params()
        value, error = self._log_density(self._validate_rows(X), condition, float(self._time(t)))
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
        """
        check_is_fitted(self)
        self._validate_params()
        X = self._validate_rows(y if is_sample(y, "y") else X)
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
        check_is_fitted(self)
        self._validate_params()
        X = self._validate_rows(X)
        if not isinstance(n_paths, numbers.Integral) or n_paths < 2:
            raise ValueError(f"Got n_paths={n_paths!r}, but expected an integer of at least 2.")
        return Bunch(**self._chain(X, condition, int(n_paths)))

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
        X, time = self._validate_rows(X), self._time(t)
        x, fields = self._scaled_rows(X, time, condition)
        anchor, parts = self._anchor()
        if not self._has_gradient:
            raise NoDensityError(
                f"The gradient needs a base density that can be differentiated, but it is a "
                f"{type(self.base_density_).__name__}: fit with base_density='flow'."
            )
        gradients = []
        for rows in torch.arange(len(x)).split(_GRADIENT_ROWS):
            with torch.enable_grad():
                at = x[rows].requires_grad_()
                some = fields.rows(rows)
                value, _ = density_parts(some, at, float(time), _GRADIENT_STEPS, self._grid()[0], anchor, parts)
                gradients.append(torch.autograd.grad(value.sum(), at)[0])
        gradient = require_finite(torch.cat(gradients), "differentiating a log-density")
        return self.preprocessing_.pull_back_score(as_array(gradient, np.float64), X).astype(X.dtype, copy=False)

    @property
    def _has_gradient(self):
        """Whether the log-density of the base can be differentiated: normal, a flow, or not needed."""
        if self._grid()[1] is not None or self.base_sample_ is None:
            return True
        base = self.base_density_
        return hasattr(base, "_density_parts") and isinstance(base.preprocessing_, AffineMap)

    @torch.no_grad()
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
        check_is_fitted(self)
        self._validate_params()
        self._require_score("density_ratio")
        self._refuse_forecast("density_ratio")
        X = self._validate_rows(X)
        _, fields = self._scaled_rows(X, self._time(1.0), condition)
        device, dtype = resolve_device(self.device), evaluation_dtype(X.dtype, resolve_device(self.device))
        scale = self._scale

        def points(rows, t):
            frame = scale.transform(self._centre(t, derivative=True)[None])[0]
            return (as_tensor(a, dtype, device) for a in (self._to_scaled(X[rows.numpy()], t), frame))

        value, error = log_density_ratio(fields, points, self._grid()[0], self.ode_tol, len(X))
        ratio = as_array(require_finite(value, "computing a density ratio"), X.dtype)
        self._warn_missed(error)
        return (ratio, as_array(error, X.dtype)) if return_error else ratio

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
        check_is_fitted(self)
        self._validate_params()
        X = self._validate_rows(X)
        if getattr(self, "likelihood", "ode") == "ode":
            value, _ = self._log_density(X, condition)
            return _cross_entropy(value)
        chain = self._chain(X, condition, _N_PATHS)
        return _cross_entropy(chain["point"], upper_bound=-float(chain["bound"].mean()))

    def _log_density(self, X, condition=None, t=1.0):
        """Log-density of validated rows in data units, and its stated error."""
        if getattr(self, "likelihood", "ode") == "sde":
            if t != 1:
                raise ValueError(f"Got t={t:g} with likelihood='sde', whose chain ends at t = 1: use likelihood='ode'.")
            chain = self._chain(X, condition, _N_PATHS)
            return chain["point"], chain["error"]
        return self._ode_log_density(X, condition, t)

    @torch.no_grad()
    def _ode_log_density(self, X, condition, t):
        self._require_density()
        device, time = resolve_device(self.device), self._time(t)
        fields, dtype = self._fields(X.dtype, device, condition, len(X)), evaluation_dtype(X.dtype, device)
        anchor, parts = self._anchor()
        density, errors = np.empty(len(X), X.dtype), []
        for rows in blocks(len(X), _BLOCK):
            x = as_tensor(self._to_scaled(X[rows], time), dtype, device)
            value, error = ode_log_density(fields.rows(rows), x, t, anchor, parts, self.ode_tol, self._grid()[0])
            with rows_from(rows.start):
                scaled = as_array(require_finite(value, "computing log-densities"), np.float64)
            density[rows] = scaled + self.preprocessing_.log_abs_det_jacobian(X[rows])
            errors.append(error)
        error = torch.cat(errors)
        self._warn_missed(error)
        return density, as_array(error, X.dtype)

    @torch.no_grad()
    def _chain(self, X, condition, n_paths):
        """The summary of path weights at validated rows, in data units."""
        self._refuse_forecast("the density of the chain")
        self._require_score("the density of the SDE chain")
        if self.noise_level == 0:
            raise ValueError(
                "The density of the SDE chain needs noise: got noise_level=0, use likelihood='ode' or raise it."
            )
        x, fields = self._scaled_rows(X, self._time(1.0), condition)
        parts = self._base_parts()
        generator = make_generator(self.seed_, PATH_STREAM, x.device)
        weights = path_log_weights(
            fields, x, self.noise_level, self.noise_schedule, self._sampling_steps[0], n_paths, parts, generator
        )
        require_finite(weights.T, "weighting the paths of the SDE")
        jacobian = self.preprocessing_.log_abs_det_jacobian(X)
        summary = {name: as_array(value, np.float64) for name, value in summarise(weights).items()}
        for name in ("point", "bound"):
            summary[name] = summary[name] + jacobian
        return {name: value.astype(X.dtype, copy=False) for name, value in summary.items()}

    def _scaled_rows(self, X, time, condition):
        """Rows at one time in scaled units, as tensors, and the fields in their dtype."""
        self._require_density()
        device = resolve_device(self.device)
        x = as_tensor(self._to_scaled(X, time), evaluation_dtype(X.dtype, device), device)
        return x, self._fields(X.dtype, device, condition, len(X))

    def _require_density(self):
        self._refuse_forecast("a log-density")
        if self.interpolant_.kind == "mirror":
            raise NoDensityError("interpolant='mirror' knows no density at either end: use 'linear'.")

    def _anchor(self):
        """The time at which the density is known, and its terms there as a function of tensors in scaled units."""
        middle = self._grid()[1]
        if middle is None:
            return 0.0, self._base_parts()
        return middle, middle_parts(self.interpolant_, middle)

    def _density_parts(self, x, n_steps):
        """Terms of the log-density of rows in scaled units, by so many steps, and their error."""
        fields = self._fields(np.float32 if x.dtype == torch.float32 else np.float64, x.device)
        anchor, parts = self._anchor()
        return density_parts(fields, x, 1.0, n_steps, self._grid()[0], anchor, parts)

    def _base_parts(self):
        """Terms of the log-density of the base and their error, as a function of tensors in scaled units."""
        if self.base_sample_ is None:
            return standard_normal_parts
        if self.base_density_ is None and self._grid()[1] is not None:
            raise NoDensityError(
                "An encoding-decoding model takes its densities from the middle and fits none to its base, which the "
                "SDE chain would need: use likelihood='ode', or interpolant='linear'."
            )
        if self.base_density_ is None:
            raise NoDensityError(
                "The density of the base is unknown: fit was called with base_density=None. Fit with "
                "base_density='flow', 'normal' or a density estimator such as GaussianMixture."
            )
        base, base_map = self.base_density_, self.base_preprocessing_
        if hasattr(base, "_density_parts") and isinstance(base.preprocessing_, AffineMap):
            return _flow_parts(base, base_map)

        def parts(x, n_steps):
            X = base_map.inverse_transform(as_array(x, np.float64))
            value = as_tensor(base.score_samples(X) - base_map.log_abs_det_jacobian(X), x.dtype, x.device)
            return value[:, None], torch.zeros_like(value)

        return parts


def _flow_parts(base, base_map):
    """Terms of the density of a base that is a flow: its own solve by as many steps, in tensors throughout."""
    inner = base.preprocessing_
    # x -> data units -> the scaled units of the base's own flow: one affine map
    matrix = inner.transform(inner.centre + base_map.without_centre().inverse_transform(np.eye(len(inner.centre))))
    shift = inner.transform(base_map.centre[None])[0]
    jacobian = float(inner.log_abs_det_jacobian(shift[None])[0] - base_map.log_abs_det_jacobian(shift[None])[0])

    def parts(x, n_steps):
        moved = x @ as_tensor(matrix, x.dtype, x.device) + as_tensor(shift, x.dtype, x.device)
        own, error = base._density_parts(moved, n_steps)
        return torch.cat([own, torch.full_like(own[:, :1], jacobian)], 1), error

    return parts


def _cross_entropy(density, **others):
    """Minus the mean of log-densities, and its standard error; rows far out may have squares that are no numbers."""
    density = density.astype(np.float64)
    size = max(1.0, float(np.abs(density).max()))
    error = size * (density / size).std() / len(density) ** 0.5
    return Bunch(value=-float(size * (density / size).mean()), standard_error=float(error), **others)
