"""What all interpolant estimators share: parameters, fit, sample, transform, score."""

import abc
import numbers
import os
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
    clone,
)
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils._set_output import _wrap_data_with_container
from sklearn.utils.validation import check_is_fitted

from .._model.fields import FIELDS, TIME_LAWS, Fields
from .._model.likelihood import GRID_LAW, carry
from .._model.sampling import (
    DENOISED,
    check_noise,
    draw_rows,
    forecast,
    generate,
)
from .._training import problem as _fitting
from .._training.base_density import BASE_DENSITIES
from .._training.path_learning import remaining
from .._utils.callbacks import FollowedEstimator, Tasks
from .._utils.input_checks import check_count, validate_rows, validate_samples
from .._utils.links import LinkedEstimator
from .._utils.tensors import (
    SAMPLE_STREAM,
    as_array,
    as_tensor,
    blocks,
    cast_module,
    draw_seed,
    evaluation_dtype,
    make_generator,
    normal,
    resolve_device,
)
from ..couplings import COUPLINGS
from ..distributed import current_group
from ..exceptions import IntegrationWarning, NoDensityError, rows_from
from ..interpolants import GAMMAS, INTERPOLANTS, Interpolant
from ..networks import ACTIVATIONS, GuidedField
from ..networks._fields import drop_condition
from ..persistence._pickling import PackedNetworks
from ..preprocessing import MAPS
from ..solvers import SOLVERS, require_finite
from .densities import DensityMethods
from .diagnostics import DiagnosticMethods
from .distillation import DistillationMethods
from .fields import FieldMethods
from .rectification import RectificationMethods

# Rows of one block of those that are carried, which bounds the memory beside input and output.
_BLOCK = 2**16
# n_steps="auto": of the SDE, and of the ODE by a stepper that no grid was measured for.
_SDE_STEPS, _ODE_STEPS = 100, 16


def _finite_rows(X, dtype):
    """Rows in data units in their dtype; a heavy tail may lead beyond its largest number."""
    with np.errstate(over="ignore"):
        X = X.astype(dtype, copy=False)
    require_finite(torch.as_tensor(X), f"returning to data units, in {np.dtype(dtype)}")
    return X


class BaseInterpolant(
    FieldMethods,
    DensityMethods,
    DiagnosticMethods,
    DistillationMethods,
    RectificationMethods,
    PackedNetworks,
    FollowedEstimator,
    LinkedEstimator,
    OneToOneFeatureMixin,
    TransformerMixin,
    DensityMixin,
    BaseEstimator,
    abc.ABC,
):
    """Fit, sample, transform and score of a stochastic interpolant.

    A leaf says whether it learns a denoiser beside the velocity (`_learns_denoiser`).
    """

    # X0 and X1 travel by position; a router must not treat them as metadata.
    __metadata_request__fit: ClassVar[dict] = {"X0": "$UNUSED$", "X1": "$UNUSED$"}

    _parameter_constraints: ClassVar[dict] = {
        "interpolant": [StrOptions(set(INTERPOLANTS)), Interpolant],
        "gamma": [StrOptions({"auto", *GAMMAS}), None],
        "gamma_scale": [Interval(numbers.Real, 0, None, closed="neither")],
        "coupling": [StrOptions(set(COUPLINGS)), callable],
        "preprocessing": [StrOptions({"auto", *MAPS}), None],
        "base_density": [StrOptions(set(BASE_DENSITIES)), HasMethods(["fit", "score_samples"]), None],
        "noise_level": [Interval(numbers.Real, 0, None, closed="left")],
        "noise_schedule": [StrOptions({"gamma", "constant", "optimal"}), callable],
        "n_steps": [StrOptions({"auto"}), Interval(numbers.Integral, 1, None, closed="left")],
        "solver": [StrOptions({"auto", "denoising", "distilled", "dopri5-adaptive", DENOISED, *SOLVERS}), callable],
        "ode_tol": [Interval(numbers.Real, 0, None, closed="neither")],
        "time_law": [StrOptions({"auto", *TIME_LAWS})],
        "fields": [StrOptions({"auto", *FIELDS})],
        "guidance": [Interval(numbers.Real, 0, None, closed="left")],
        "condition_dropout": [Interval(numbers.Real, 0, 1, closed="left")],
        "condition_kinds": [dict, None],
        "network": [StrOptions({"mlp"}), callable],
        "hidden_layer_sizes": [StrOptions({"auto"}), "array-like", Interval(numbers.Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "dropout": [StrOptions({"auto"}), Interval(numbers.Real, 0, 1, closed="left")],
        "bf16": [StrOptions({"auto"}), "boolean"],
        "batch_size": [StrOptions({"auto"}), Interval(numbers.Integral, 1, None, closed="left")],
        "learning_rate_init": [Interval(numbers.Real, 0, None, closed="neither")],
        "max_iter": [StrOptions({"auto"}), Interval(numbers.Integral, 1, None, closed="left")],
        "max_time": [Interval(numbers.Real, 0, None, closed="neither"), None],
        "tol": [Interval(numbers.Real, 0, None, closed="left")],
        "n_iter_no_change": [StrOptions({"auto"}), Interval(numbers.Integral, 1, None, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(numbers.Real, 0, 1, closed="neither")],
        "warm_start": ["boolean"],
        "device": [str, torch.device],
        "checkpoint": [str, os.PathLike, None],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    _networks: ClassVar[tuple[str, ...]] = ("network_", "denoiser_network_", "flow_map_", "_learned_")
    _learns_denoiser = False
    # Whether preprocessing="auto" of one sample leaves maps of the columns out.
    _affine_only = False

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X0, X1=None, *, condition=None):
        """Fit the model to one sample, or to a bridge between two.

        Parameters
        ----------
        X0 : array-like of shape (n_samples_0, n_features)
            The sample whose density is learned; with X1, the base of the bridge.
        X1 : array-like of shape (n_samples_1, n_features), default=None
            The target of a bridge, if it has two dimensions. One-dimensional values are what
            pipelines hand over as labels: they are ignored.
        condition : array-like of shape (n_samples,) or (n_samples, n_conditions), default=None
            One row for each row of the last sample given: the law of the target is then learned given it.
            Numbers and dates are quantities; strings, booleans and categories become one-hot columns
            (`condition_kinds` says otherwise). Columns of frames are found by their names at each later call.

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
            When the training loss stops being finite, and does so again at lower rates.
        CheckpointError
            When the file at `checkpoint` is damaged or of another fit.
        OSError
            When the file cannot be written.
        """
        group = current_group()
        with group.together():
            X0, X1 = validate_samples(self, X0, X1)
            checkpoint = _fitting.open_fit(self, X0, X1, condition, group)
        with checkpoint:
            return self._fit(X0, X1, condition, group, checkpoint)

    def _fit(self, X0, X1, condition, group, checkpoint):
        """The fit to validated samples."""
        with group.together():
            plan = _fitting.make_plan(self, X0, X1, condition, checkpoint)
        plan.group = group
        if group.size > 1:
            _fitting.share_plan(self, plan, condition)
        plan.tasks = Tasks(self, X0, X1, None if condition is None else {"condition": condition})
        check_noise(self, plan.interpolant, plan.fields not in (("velocity",), ("forecast",)))
        state = _fitting.fit_plan(self, plan)
        # a map distilled from an earlier fit is not that of this one
        for name in ("flow_map_", "distillation_report_", "rectification_report_", "action_curve_"):
            vars(self).pop(name, None)
        for name, value in state.items():
            setattr(self, name, value)
        plan.tasks.end(state)
        return self

    def fit_transform(self, X, y=None, *, condition=None):
        """Fit, and carry the rows of the first argument to the other end.

        Parameters
        ----------
        X, y : array-like
            X0 and X1 of `fit`, under the names that scikit-learn's transformers have here.
        condition : array-like, default=None
            As in `fit`; it goes to `transform` as well, row by row, and so needs as many rows as X.

        Returns
        -------
        X_t : ndarray of shape (n_samples, n_features)
            The carried rows.
        """
        return self.fit(X, y, condition=condition).transform(X, condition=condition)

    def sample(self, n_samples=1, *, condition=None, random_state=None):
        """Draw rows of the target law.

        dX = b dt (noise_level 0) or dX = (b + epsilon s) dt + sqrt(2 epsilon) dW, from t = 0 to 1
        (2303.08797, (2.32), (2.33)).

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        condition : array-like, default=None
            One row for all or one for each, if the model was fitted with a condition; with
            start="condition", the start rows.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw; None means the estimator's own, and with None in both the rows are
            fresh at each call.

        Returns
        -------
        X : ndarray or frame of shape (n_samples, n_features)
            Rows in data units, in the dtype of the rows given to fit. A row that leaves the finite numbers is drawn
            again, at most three times; such rows are counted in an `IntegrationWarning`.

        Raises
        ------
        IntegrationError
            When more than 1 % of the rows leave the finite numbers in each of their four draws.
        """
        check_is_fitted(self)
        self._validate_params()
        n_samples = check_count(n_samples, "n_samples")
        generator = self._sample_generator(random_state)
        if self._forecasts:
            X = forecast(self, condition, n_samples, generator)
            return _wrap_data_with_container("transform", X, X, self)
        # the error of the measured steps is far above that of single precision
        dtype = np.float32 if self._measured_grid or self.solver == "distilled" else self.dtype_
        fields = self._fields(dtype, generator.device, condition, n_samples)
        X = self._move(fields, lambda rows: self._base_rows(len(rows), generator, dtype), n_samples, generator)
        return _wrap_data_with_container("transform", X, X, self)

    def resample(self, X, *, condition=None, random_state=None):
        """Move rows to fresh ones of their own law, by the SDE of a mirror model.

        dX = (epsilon - gamma gamma_dot) s dt + sqrt(2 epsilon) dW    (2303.08797, sec. 3.3)

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows; the larger `noise_level`, the further they move. At noise_level 0 they stay.
        condition : array-like, default=None
            One row for all or one for each, if the model was fitted with a condition.
        random_state : int, RandomState instance or None, default=None
            Seed of the noise; None means the estimator's own.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_features)

        Raises
        ------
        ValueError
            When the model is not of interpolant="mirror".
        """
        check_is_fitted(self)
        self._validate_params()
        if self.interpolant_.kind != "mirror":
            raise ValueError(
                "resample needs interpolant='mirror': other models carry rows to another law (`transform`)."
            )
        X = self._validate_rows(X)
        generator = self._sample_generator(random_state)
        fields = self._fields(X.dtype, generator.device, condition, len(X))
        x = as_tensor(self.preprocessing_.transform(X), evaluation_dtype(X.dtype, generator.device), generator.device)
        return self._move(fields, lambda rows: x[rows], len(X), generator, given=x).astype(X.dtype, copy=False)

    def transform(self, X, *, condition=None):
        """Carry rows of fit's first argument to the other end, along the ODE.

        One sample: data to standard normal. Two samples: X0 to X1.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of the law of fit's first argument.
        condition : array-like, default=None
            One row for all or one for each, if the model was fitted with a condition.

        Returns
        -------
        X_t : ndarray of shape (n_samples, n_features)
            Carried rows, within `ode_tol` (relative) of the exact flow.
        """
        check_is_fitted(self)
        self._validate_params()
        X = self._validate_rows(X)
        if self.base_preprocessing_ is None:
            return self._carry(X, condition, self.preprocessing_, None, 1.0, 0.0)
        return self._carry(X, condition, self.base_preprocessing_, self.preprocessing_, 0.0, 1.0)

    def inverse_transform(self, X, *, condition=None):
        """Carry rows back: the inverse of `transform`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of the end that `transform` reaches.
        condition : array-like, default=None
            One row for all or one for each, if the model was fitted with a condition.

        Returns
        -------
        X_t : ndarray of shape (n_samples, n_features)
            Rows of the law of fit's first argument.
        """
        check_is_fitted(self)
        self._validate_params()
        X = self._points(X, "X")
        if self.base_preprocessing_ is None:
            return self._carry(X, condition, None, self.preprocessing_, 0.0, 1.0)
        return self._carry(X, condition, self.preprocessing_, self.base_preprocessing_, 1.0, 0.0)

    _split_rows = staticmethod(_fitting.split)

    def _train(self, run, settings):
        """Train the one run of a fit that compares none; a path that is learned comes first."""
        if hasattr(run.plan.interpolant, "build"):
            run.learn_path(settings)
            if run.history.interrupted:
                return
            run.keep_history()
            settings = remaining(settings)
        run.train(settings)

    def _base_flow(self, max_time):
        """The estimator of the density of the base with base_density="flow"."""
        return clone(self).set_params(
            interpolant="linear", gamma="auto", gamma_scale=1.0, coupling="independent", preprocessing="auto",
            base_density=None, noise_level=0.0, noise_schedule="gamma", fields="auto", guidance=1.0,
            condition_dropout=0.0, condition_kinds=None, warm_start=False, max_time=max_time, checkpoint=None,
        )  # fmt: skip

    def __sklearn_tags__(self):
        """Floats of both sizes are kept; X must be dense and finite."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def __sklearn_is_fitted__(self):
        """Whether `fit` has run."""
        return hasattr(self, "network_")

    def _validate_rows(self, X):
        return validate_rows(self, X)

    def _fields(self, array_dtype, device, condition=None, n_rows=1):
        """The fields in the dtype of some rows, with their encoded condition."""
        dtype = evaluation_dtype(np.dtype(array_dtype), device)
        if self.guidance != 1 and not getattr(self.condition_codec_, "droppable", False):
            raise ValueError(
                f"Got guidance={self.guidance:g}, but the model was not fitted with dropped conditions: fit with "
                "condition= and condition_dropout > 0, or leave guidance=1."
            )
        networks = []
        for network in (self.network_, self.denoiser_network_):
            network = None if network is None else cast_module(network, dtype, device)
            networks.append(network if network is None or self.guidance == 1 else GuidedField(network, self.guidance))
        return Fields(self.interpolant_, *networks, self._encoded(condition, n_rows, dtype, device))

    def _encoded(self, condition, n_rows, dtype, device):
        codec = getattr(self, "condition_codec_", None)
        if codec is None:
            if condition is not None:
                raise ValueError("Got a condition, but the model was fitted without one: call fit(..., condition=).")
            return None
        if condition is None:
            if not codec.droppable:
                raise ValueError(
                    "The model was fitted with a condition: pass condition=, or fit with condition_dropout > 0, "
                    "which learns the law without one as well."
                )
            return drop_condition(torch.zeros((n_rows, codec.n_outputs_), dtype=dtype, device=device))
        return as_tensor(codec.transform(condition, n_rows), dtype, device)

    def _grid(self):
        """The law of the solver's grids, and the time of a kink in the fields."""
        path = getattr(self.interpolant_, "path", self.interpolant_)
        return GRID_LAW, getattr(path, "crossing", None)

    @property
    def _sampling_steps(self):
        """Steps of `sample`, and the law of their grid where the ODE is solved."""
        if self.n_steps != "auto":
            return self.n_steps, GRID_LAW
        if self.noise_level > 0:
            return _SDE_STEPS, GRID_LAW
        return self._measured_grid or (_ODE_STEPS, GRID_LAW)

    @property
    def _measured_grid(self):
        """The grid that `fit` measured, where `sample` follows it; else None."""
        follows = self.n_steps == "auto" and self.noise_level == 0 and self.solver in ("auto", "rk4")
        return getattr(self, "sampling_grid_", None) if follows else None

    @property
    def _forecasts(self):
        """Whether the process starts from given rows, and so has neither a base law nor a density."""
        return getattr(self, "start", "base") == "condition"

    def _refuse_forecast(self, what):
        if self._forecasts:
            raise NoDensityError(
                f"{what} has no meaning with start='condition': the process starts from a given row, has noise, and "
                "knows no law of the start rows. Use sample(n, condition=row)."
            )

    def _sample_generator(self, random_state):
        """The generator of one call, on the device of the computation."""
        check_noise(self, self.interpolant_, self.denoiser_network_ is not None)
        seed = draw_seed(self.random_state if random_state is None else random_state)
        return make_generator(seed, SAMPLE_STREAM, resolve_device(self.device))

    def _base_rows(self, n, generator, dtype):
        """Rows at t = 0 in scaled units: normal, or drawn with replacement from the stored sample."""
        device = generator.device
        dtype = evaluation_dtype(np.dtype(dtype), device)
        if self.base_sample_ is None:
            return normal((n, self.n_features_in_), generator, dtype=dtype, device=device)
        rows = torch.randint(len(self.base_sample_), (n,), generator=generator, device=device)
        base_map = self.base_preprocessing_ or self.preprocessing_  # a mirror has one map for both ends
        return as_tensor(base_map.transform(self.base_sample_[rows.cpu().numpy()]), dtype, device)

    def _move(self, fields, start_rows, n, generator, given=None):
        """N rows at t = 1, in data units: chunk by chunk from start_rows(numbers)."""

        def draw(rows):
            x = generate(self, fields.rows(rows), start_rows(rows), generator)
            return self.preprocessing_.inverse_transform(as_array(x, np.float64))

        given = fields.condition if given is None else given
        adaptive = {"advice": "raise ode_tol, or use a fixed-step solver"} if self.solver == "dopri5-adaptive" else {}
        return draw_rows(draw, (n, self.n_features_in_), self.dtype_, given=given, **adaptive)

    @torch.no_grad()
    def _carry(self, X, condition, map_in, map_out, start, stop):
        self._refuse_forecast("transform")
        if self.interpolant_.kind == "mirror":
            return X.copy()  # its ODE starts and ends at the same point
        device = resolve_device(self.device)
        dtype = evaluation_dtype(X.dtype, device)
        fields = self._fields(X.dtype, device, condition, len(X))
        law, node = self._grid()
        moved, errors = np.empty(X.shape, X.dtype), []
        for rows in blocks(len(X), _BLOCK):
            x = as_tensor(X[rows] if map_in is None else map_in.transform(X[rows]), dtype, device)
            x, error = carry(fields.rows(rows), x, start, stop, self.ode_tol, law, node)
            with rows_from(rows.start):
                x = as_array(require_finite(x, "following the ODE"), np.float64)
            with np.errstate(over="ignore"):
                moved[rows] = x if map_out is None else map_out.inverse_transform(x)
            errors.append(error)
        self._warn_missed(torch.cat(errors))
        return _finite_rows(moved, X.dtype)

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
