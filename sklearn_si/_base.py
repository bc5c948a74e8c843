"""What all interpolant estimators share: parameters, fit, sample, transform, score."""

import abc
import copy
import datetime
import numbers
import warnings
from typing import ClassVar

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    DensityMixin,
    OneToOneFeatureMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.utils import check_array
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils._set_output import _wrap_data_with_container
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from . import _fitting
from ._base_density import BASE_DENSITIES
from ._likelihood import carry, density_parts, ode_log_density, standard_normal_parts
from ._objectives import TIME_LAWS, Fields
from ._tensors import (
    SAMPLE_STREAM,
    as_array,
    as_tensor,
    cast_module,
    draw_seed,
    evaluation_dtype,
    make_generator,
    normal,
    resolve_device,
)
from .couplings import COUPLINGS
from .exceptions import IntegrationWarning, NoDensityError
from .interpolants import GAMMAS, INTERPOLANTS, Interpolant
from .networks import ACTIVATIONS
from .solvers import ODE_SOLVERS, SOLVERS, odeint, require_finite, sdeint, time_grid

# Rows of one chunk in sampling: it stays in cache (measured: 3.3x over 65,536).
_CHUNK = 4096
_DTYPES = (np.float64, np.float32)
# How the names of such columns begin, in numpy, pandas, pyarrow and polars.
_DATED_DTYPES = ("date", "time", "period", "duration")
_DATED_TYPES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64)
_SDE_WITHOUT_NOISE = {"euler-maruyama": "euler", "stochastic-heun": "heun"}


class BaseInterpolant(OneToOneFeatureMixin, TransformerMixin, DensityMixin, BaseEstimator, abc.ABC):
    """Fit, sample, transform and score of a stochastic interpolant.

    A leaf says whether it learns a denoiser beside the velocity (`_learns_denoiser`).
    """

    _doc_link_module = "sklearn_si"
    # X0 and X1 travel by position; a router must not treat them as metadata.
    __metadata_request__fit: ClassVar[dict] = {"X0": "$UNUSED$", "X1": "$UNUSED$"}

    _parameter_constraints: ClassVar[dict] = {
        "interpolant": [StrOptions(set(INTERPOLANTS)), Interpolant],
        "gamma": [StrOptions({"auto", *GAMMAS}), None],
        "gamma_scale": [Interval(numbers.Real, 0, None, closed="neither")],
        "coupling": [StrOptions(set(COUPLINGS)), callable],
        "preprocessing": [StrOptions({"auto", "standardize", "whiten"}), None],
        "base_density": [StrOptions(set(BASE_DENSITIES)), HasMethods(["fit", "score_samples"]), None],
        "noise_level": [Interval(numbers.Real, 0, None, closed="left")],
        "noise_schedule": [StrOptions({"gamma", "constant"})],
        "n_steps": [Interval(numbers.Integral, 1, None, closed="left")],
        "solver": [StrOptions({"auto", *SOLVERS}), callable],
        "ode_tol": [Interval(numbers.Real, 0, None, closed="neither")],
        "time_law": [StrOptions({"auto", *TIME_LAWS})],
        "network": [StrOptions({"mlp"}), callable],
        "hidden_layer_sizes": [StrOptions({"auto"}), "array-like", Interval(numbers.Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "batch_size": [Interval(numbers.Integral, 1, None, closed="left")],
        "learning_rate_init": [Interval(numbers.Real, 0, None, closed="neither")],
        "max_iter": [Interval(numbers.Integral, 1, None, closed="left")],
        "max_time": [Interval(numbers.Real, 0, None, closed="neither"), None],
        "tol": [Interval(numbers.Real, 0, None, closed="left")],
        "n_iter_no_change": [Interval(numbers.Integral, 1, None, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(numbers.Real, 0, 1, closed="neither")],
        "warm_start": ["boolean"],
        "device": [str, torch.device],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    _learns_denoiser = False

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X0, X1=None):
        """Fit the model to one sample, or to a bridge between two.

        Parameters
        ----------
        X0 : array-like of shape (n_samples_0, n_features)
            The sample whose density is learned; with X1, the base of the bridge.
        X1 : array-like of shape (n_samples_1, n_features), default=None
            The target of a bridge, if it has two dimensions. One-dimensional values are what
            pipelines hand over as labels: they are ignored.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            When the rows have no density (constant or dependent columns), when a parameter does not
            fit the other ones, or when a 1-D X1 could have been meant as a sample.
        FitDivergedError
            When the training loss stops being finite.
        """
        X0, X1 = self._validate_samples(X0, X1)
        plan = _fitting.make_plan(self, X0, X1)
        self._check_noise(plan.interpolant)
        state = _fitting.fit_plan(self, plan)
        for name, value in state.items():
            setattr(self, name, value)
        return self

    def sample(self, n_samples=1, *, random_state=None):
        """Draw rows of the target law.

        dX = b dt (noise_level 0) or dX = (b + epsilon s) dt + sqrt(2 epsilon) dW, from t = 0 to 1
        (2303.08797, (2.32), (2.33)).

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw; None means the estimator's own, and with None in both the rows are
            fresh at each call.

        Returns
        -------
        X : ndarray or frame of shape (n_samples, n_features)
            Rows in data units, in the dtype of the rows given to fit.
        """
        check_is_fitted(self)
        self._validate_params()
        if not isinstance(n_samples, numbers.Integral) or isinstance(n_samples, bool) or n_samples < 1:
            raise ValueError(f"Got n_samples={n_samples!r}, but expected an integer of at least 1.")
        self._check_noise(self.interpolant_)
        device = resolve_device(self.device)
        seed = draw_seed(self.random_state if random_state is None else random_state)
        generator = make_generator(seed, SAMPLE_STREAM, device)
        fields = self._fields(self.dtype_, device)
        parts = []
        for size in _chunk_sizes(int(n_samples)):
            x = self._generate(fields, self._base_rows(size, generator, self.dtype_, device), generator)
            parts.append(self.preprocessing_.inverse_transform(as_array(x, np.float64)))
        X = np.concatenate(parts).astype(self.dtype_, copy=False)
        return _wrap_data_with_container("transform", X, X, self)

    def score_samples(self, X):
        """Log-density of the target at each row, in the units of X.

        log rho_1(x) = log rho_0(X_{1,0}(x)) - int_0^1 div b(t, X_{1,t}(x)) dt    (2303.08797, (2.53))

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            In nats, within `ode_tol` of the model's exact value; rows that could not be brought
            under it are counted in an `IntegrationWarning`.

        Raises
        ------
        NoDensityError
            After a fit of two samples with base_density=None.
        """
        check_is_fitted(self)
        self._validate_params()
        return self._score_samples(self._validate_rows(X))

    def score(self, X, y=None, sample_weight=None):
        """Mean log-likelihood of the rows of y if it is a (2-D) sample, else of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows; after fit(X0, X1) and with a sample y, rows of the base, which are not scored.
        y : array-like of shape (n_samples, n_features), default=None
            Rows of the target, if it has two dimensions; else ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the mean.

        Returns
        -------
        score : float
            In nats a row.
        """
        check_is_fitted(self)
        self._validate_params()
        X = self._validate_rows(y if _is_sample(y, "y") else X)
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, X)
        return float(np.average(self._score_samples(X), weights=weight))

    def transform(self, X):
        """Carry rows of fit's first argument to the other end, along the ODE.

        One sample: data to standard normal. Two samples: X0 to X1.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of the law of fit's first argument.

        Returns
        -------
        X_t : ndarray of shape (n_samples, n_features)
            Carried rows, within `ode_tol` (relative) of the exact flow.
        """
        check_is_fitted(self)
        self._validate_params()
        X = self._validate_rows(X)
        if self.base_preprocessing_ is None:
            return self._carry(X, self.preprocessing_, None, 1.0, 0.0)
        return self._carry(X, self.base_preprocessing_, self.preprocessing_, 0.0, 1.0)

    def inverse_transform(self, X):
        """Carry rows back: the inverse of `transform`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of the end that `transform` reaches.

        Returns
        -------
        X_t : ndarray of shape (n_samples, n_features)
            Rows of the law of fit's first argument.
        """
        check_is_fitted(self)
        self._validate_params()
        X = check_array(_reject_dates(X, "X"), dtype=_DTYPES)
        if X.shape[1] != self.n_features_in_:
            raise ValueError(f"X has {X.shape[1]} features, but {type(self).__name__} expects {self.n_features_in_}.")
        if self.base_preprocessing_ is None:
            return self._carry(X, None, self.preprocessing_, 0.0, 1.0)
        return self._carry(X, self.preprocessing_, self.base_preprocessing_, 1.0, 0.0)

    def __sklearn_tags__(self):
        """Floats of both sizes are kept; X must be dense and finite."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def __sklearn_is_fitted__(self):
        """Whether `fit` has run."""
        return hasattr(self, "network_")

    def __getstate__(self):
        """The state with its networks on the CPU, so that a model fitted on a GPU loads anywhere."""
        state = dict(super().__getstate__())
        for name in ("network_", "denoiser_network_"):
            if state.get(name) is not None:
                state[name] = copy.deepcopy(state[name]).cpu()
        return state

    def _validate_samples(self, X0, X1):
        X0 = validate_data(self, _reject_dates(X0, "X0"), dtype=_DTYPES, ensure_min_samples=2)
        if not _is_sample(X1, "X1"):
            _check_labels(X1, X0)
            return X0, None
        X1 = validate_data(self, _reject_dates(X1, "X1"), dtype=_DTYPES, ensure_min_samples=2, reset=False)
        return X0, X1

    def _validate_rows(self, X):
        return validate_data(self, _reject_dates(X, "X"), dtype=_DTYPES, reset=False)

    def _check_noise(self, interpolant):
        if self.noise_level > 0 and not (self._learns_denoiser or interpolant.kind == "one-sided"):
            raise ValueError(
                f"Got noise_level={self.noise_level:g} after a fit of two samples, but the velocity alone does not "
                "give the score function there: use InterpolantDiffusion, or noise_level=0."
            )

    def _fields(self, array_dtype, device):
        dtype = evaluation_dtype(np.dtype(array_dtype), device)
        denoiser = self.denoiser_network_
        return Fields(
            self.interpolant_,
            cast_module(self.network_, dtype, device),
            None if denoiser is None else cast_module(denoiser, dtype, device),
        )

    def _grid(self):
        """The law of the solver's grids, and the time of a kink in the fields."""
        # Measured on fitted models: at equal steps the mean error of a log-density is 1/4 (one sample)
        # to 1/80 (a bridge) of that of the grid crowded at t = 1 alone.
        law = "sine"
        path = getattr(self.interpolant_, "path", self.interpolant_)
        return law, getattr(path, "crossing", None)

    def _base_rows(self, n, generator, array_dtype, device):
        """Rows at t = 0 in scaled units: normal, or drawn with replacement from the stored sample."""
        dtype = evaluation_dtype(np.dtype(array_dtype), device)
        if self.base_sample_ is None:
            return normal((n, self.n_features_in_), generator, dtype=dtype, device=device)
        rows = torch.randint(len(self.base_sample_), (n,), generator=generator, device=device)
        return as_tensor(self.base_preprocessing_.transform(self.base_sample_[rows.cpu().numpy()]), dtype, device)

    @torch.no_grad()
    def _generate(self, fields, x, generator):
        """Rows at t = 1 from rows at t = 0, by the ODE or the SDE."""
        law, node = self._grid()
        times = time_grid(self.n_steps, "uniform" if self.noise_level > 0 else law, node=node).to(x)
        solver = self.solver
        if self.noise_level > 0:
            solver = "stochastic-heun" if solver == "auto" else solver
            if callable(solver) or solver in ODE_SOLVERS:
                raise ValueError(
                    f"solver={self.solver!r} integrates the ODE, but noise_level={self.noise_level:g} > 0 asks for "
                    "the SDE: use solver='auto', 'euler-maruyama' or 'stochastic-heun', or noise_level=0."
                )
            drift, epsilon = fields.sde(self.noise_level, self.noise_schedule, times)
            x = sdeint(drift, epsilon, x, times, generator, solver)
        elif callable(solver):
            x = solver(fields.velocity, x, times)
        else:
            solver = "rk4" if solver == "auto" else _SDE_WITHOUT_NOISE.get(solver, solver)
            x = odeint(fields.velocity, x, times, solver)
        return require_finite(x, "sampling")

    @torch.no_grad()
    def _carry(self, X, map_in, map_out, start, stop):
        device = resolve_device(self.device)
        dtype = evaluation_dtype(X.dtype, device)
        x = as_tensor(X if map_in is None else map_in.transform(X), dtype, device)
        law, node = self._grid()
        x, error = carry(self._fields(X.dtype, device), x, start, stop, self.ode_tol, law, node)
        x = as_array(require_finite(x, "following the ODE"), np.float64)
        self._warn_missed(error)
        return (x if map_out is None else map_out.inverse_transform(x)).astype(X.dtype, copy=False)

    @torch.no_grad()
    def _score_samples(self, X):
        device = resolve_device(self.device)
        x = as_tensor(self.preprocessing_.transform(X), evaluation_dtype(X.dtype, device), device)
        law, node = self._grid()
        fields = self._fields(X.dtype, device)
        value, error = ode_log_density(fields, x, 1.0, self._base_parts(), self.ode_tol, law, node)
        value = as_array(require_finite(value, "computing log-densities"), np.float64)
        self._warn_missed(error)
        return (value + self.preprocessing_.log_abs_det_jacobian(X)).astype(X.dtype, copy=False)

    def _density_parts(self, x, level):
        """Terms of the log-density of rows in scaled units, by the solver's grid of one level."""
        fields = self._fields(np.float32 if x.dtype == torch.float32 else np.float64, x.device)
        law, node = self._grid()
        return density_parts(fields, x, 1.0, level, law, self._base_parts(), node)

    def _base_parts(self):
        """Terms of the log-density of the base, as a function of tensors in scaled units."""
        if self.base_sample_ is None:
            return standard_normal_parts
        if self.base_density_ is None:
            raise NoDensityError(
                "The density of the base is unknown: fit was called with base_density=None. Fit with "
                "base_density='flow', 'normal' or a density estimator such as GaussianMixture."
            )
        base, base_map = self.base_density_, self.base_preprocessing_

        def parts(x, level):
            X = base_map.inverse_transform(as_array(x, np.float64))
            jacobian = -base_map.log_abs_det_jacobian(X)
            if not isinstance(base, BaseInterpolant):
                return as_tensor(base.score_samples(X) + jacobian, x.dtype, x.device)[:, None]
            inner = as_tensor(base.preprocessing_.transform(X), x.dtype, x.device)
            jacobian = as_tensor(jacobian + base.preprocessing_.log_abs_det_jacobian(X), x.dtype, x.device)
            return torch.cat([base._density_parts(inner, level), jacobian[:, None]], 1)

        return parts

    def _warn_missed(self, error):
        missed = int((error > self.ode_tol).sum())
        if missed:
            warnings.warn(
                f"{missed} of {len(error)} rows are not within ode_tol={self.ode_tol:g} (worst stated error "
                f"{float(error.max()):.2g}): the field is not smooth there, or the tolerance is below the rounding "
                "of the rows' dtype; use float64 rows or a larger ode_tol.",
                IntegrationWarning,
                stacklevel=5,
            )


def _chunk_sizes(n):
    full, rest = divmod(n, _CHUNK)
    return [_CHUNK] * full + [rest] * (rest > 0)


def _is_sample(X, name):
    """Whether a second argument is a sample: if and only if it has two dimensions."""
    if X is None:
        return False
    ndim = X.ndim if hasattr(X, "ndim") else np.ndim(np.asarray(X))
    if ndim not in (1, 2):
        raise ValueError(
            f"{name} has {ndim} dimensions: expected a sample of shape (n_samples, n_features), or labels of shape "
            "(n_samples,), which are ignored."
        )
    return ndim == 2


def _check_labels(y, X0):
    """Refuse a 1-D second argument that could have been meant as a sample."""
    if y is None:
        return
    if X0.shape[1] == 1:
        raise ValueError(
            "X1 is 1-D and X0 has one column (n_features = 1), so it cannot be told whether X1 is a sample or labels: "
            "pass X1.reshape(-1, 1) for a bridge, or leave it out."
        )
    n_labels = len(np.asarray(y))
    if n_labels != len(X0):
        raise ValueError(
            f"X1 is 1-D with {n_labels} entries while X0 has {len(X0)} rows, so it is neither labels nor a sample: "
            "pass a 2-D X1 for a bridge, or leave it out."
        )


def _reject_dates(X, name):
    """Refuse dates and time differences, which would become 1.6e15 in silence."""
    values = X if hasattr(X, "dtype") or hasattr(X, "dtypes") else np.asarray(X)
    dtypes = list(values.dtypes) if np.ndim(getattr(values, "dtypes", None)) else [values.dtype]
    dated = any(str(dtype).lower().startswith(_DATED_DTYPES) for dtype in dtypes)
    if not dated and any(str(dtype) == "object" for dtype in dtypes):
        dated = any(isinstance(value, _DATED_TYPES) for value in np.asarray(values, dtype=object).flat)
    if dated:
        raise ValueError(
            f"{name} holds dates or time differences, which are not numbers of a known unit: convert them first, "
            "for example to days since a date of your choice."
        )
    return X
