"""What the interpolant estimators share: parameters and fit."""

import copy
import dataclasses
import numbers
import os
from typing import Any, ClassVar

import joblib
import torch
from sklearn.base import _fit_context, clone
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from .._model.lost_rows import warn_missed
from .._model.sampling import DENOISED, check_noise
from .._model.settings import Sampling
from .._training.base_density import BASE_DENSITIES, densities_of
from .._training.loop import History
from .._training.losses import FIELDS, TIME_DISTRIBUTIONS
from .._training.paths import on_circles
from .._training.problem import fit_problem, make_problem, share_problem
from .._training.recipe import Recipe
from .._training.repeats import dequantized_ends, warn_repeats
from .._training.warm_start import WarmStart
from .._utils.callbacks import Tasks
from .._utils.input_checks import all_or_nothing, validate_samples
from .._utils.row_numbers import numbered, rows_of_fit
from .._utils.weights import weighted_samples
from ..couplings import COUPLINGS, Coupling, as_coupling
from ..distributed import current_group
from ..interpolants import GAMMAS, INTERPOLANTS, Interpolant
from ..networks import ACTIVATIONS
from ..preprocessing import MAPS
from ..preprocessing._support import check_ends, circles_of, images, read_support
from ..solvers import SOLVERS
from .distillation import DistillationMethods
from .in_group import fit_by_first
from .memory import FitMemory, open_memory
from .model_estimator import ModelEstimator
from .noise_tuning import NoiseTuningMethods
from .rectification import RectificationMethods
from .resume import open_checkpoint, told_params
from .tilting import TiltingMethods


class _CouplingNames(StrOptions):
    """The names of couplings; an error says what else may be given."""

    def __str__(self) -> str:
        return f"{super().__str__()}, an object such as sklearn_si.couplings.Optimal(method='batches')"


class BaseInterpolant(TiltingMethods, NoiseTuningMethods, DistillationMethods, RectificationMethods, ModelEstimator):
    """Parameters, fit and transport of a stochastic interpolant.

    A leaf says whether it learns a denoiser beside the velocity (`_learns_denoiser`).
    """

    _parameter_constraints: ClassVar[dict] = {
        "interpolant": [StrOptions(set(INTERPOLANTS)), Interpolant],
        "gamma": [StrOptions({"auto", *GAMMAS}), None],
        "gamma_scale": [Interval(numbers.Real, 0, None, closed="neither")],
        "coupling": [_CouplingNames(set(COUPLINGS)), callable],
        "preprocessing": [StrOptions({"auto", *MAPS}), None],
        "base_density": [StrOptions(set(BASE_DENSITIES)), HasMethods(["fit", "score_samples"]), None],
        "target_density": [StrOptions({"auto", "flow", "transport"})],
        "noise_level": [Interval(numbers.Real, 0, None, closed="left")],
        "noise_schedule": [StrOptions({"gamma", "constant", "optimal"}), callable],
        "n_steps": [StrOptions({"auto"}), Interval(numbers.Integral, 1, None, closed="left")],
        "solver": [StrOptions({"auto", "denoising", "distilled", "dopri5-adaptive", DENOISED, *SOLVERS}), callable],
        "ode_tol": [Interval(numbers.Real, 0, None, closed="neither")],
        "time_distribution": [StrOptions({"auto", *TIME_DISTRIBUTIONS})],
        "fields": [StrOptions({"auto", *FIELDS})],
        "guidance": [Interval(numbers.Real, 0, None, closed="left")],
        "condition_dropout": [Interval(numbers.Real, 0, 1, closed="left")],
        "condition_kinds": [dict, None],
        "dequantize": [StrOptions({"auto"}), "array-like", None],
        "support": [StrOptions({"real", "positive"}), tuple, list, dict],
        "network": [StrOptions({"mlp"}), callable],
        "hidden_layer_sizes": [StrOptions({"auto"}), "array-like", Interval(numbers.Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "dropout": [StrOptions({"auto"}), Interval(numbers.Real, 0, 1, closed="left")],
        "n_estimators": [Interval(numbers.Integral, 1, None, closed="left")],
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
        "memory": [str, os.PathLike, joblib.Memory, None],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    _learns_denoiser = False

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X0, X1=None, *, condition=None, sample_weight=None):
        """Fit a model of one sample, or a bridge between two samples.

        b = argmin E|b(t, x_t) - dx_t/dt|^2,    eta = argmin E|eta(t, x_t) - z|^2

        (2303.08797, (2.13) and (2.19); which of these fields are learned is the parameter `fields`).

        Parameters
        ----------
        X0 : array-like of shape (n_samples_0, n_features)
            The sample whose distribution is learned; with X1, the base of the bridge. In data units, like all rows.
        X1 : array-like of shape (n_samples_1, n_features), default=None
            The target of the bridge, if it has two dimensions. One-dimensional values are ignored, because pipelines
            pass labels in this place.
        condition : array-like of shape (n_samples,) or (n_samples, n_conditions), default=None
            One row for each row of the last sample given: the distribution of the target is then learned given the
            condition. Numbers and dates are continuous; strings, booleans and categories become one-hot columns;
            `condition_kinds` overrides this. Columns of frames are found by their names in each later call.
        sample_weight : array-like of shape (n_samples,) or tuple of two, default=None
            Weights of the rows of the last sample given, finite and not negative; only their ratios count. With two
            samples also a pair (weights of X0, weights of X1), each of which may be None; where rows are paired, one
            weight for each pair. Rows of weight zero are left out before any other check. The other rows are drawn in
            training in proportion to their weights, and scaling, validation scores and `base_density` follow them.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            When the rows have no density (constant or linearly dependent columns), when parameters contradict each
            other, when weights are negative, not finite, all zero or not one for each row, or when a one-dimensional X1
            could have been meant as a sample.
        ProcessGroupError
            When several processes fit together, and they differ in parameters or columns, or one of them fails.
        FitDivergedError
            When the training loss stops being finite, and does so again at lower learning rates.
        CheckpointError
            When the file at `checkpoint` is damaged or belongs to another fit.
        OSError
            When the file at `checkpoint` cannot be written.
        """
        group = current_group()
        # the rows of all processes have to be in one: weights are relative to each other, members draw their own, and
        # a plan is of all rows
        one_plan = isinstance(self.coupling, Coupling) and self.coupling.needs_all_rows
        if group.any(one_plan or sample_weight is not None or self.n_estimators > 1 or self.memory is not None):
            rows = {"X0": X0, "X1": X1, "condition": condition, "sample_weight": sample_weight}
            return fit_by_first(self, self._fit_to_all, **rows)
        return self._fit_to_all(X0, X1, condition, sample_weight)

    def _fit_to_all(self, X0, X1, condition, sample_weight):
        with all_or_nothing(self, Exception):  # an interrupt keeps what was learned
            return self._fit(X0, X1, condition, sample_weight, {}, self._warn_repeats)

    @_fit_context(prefer_skip_nested_validation=True)
    def _fit_part(self, X0, X1=None, *, condition=None, sample_weight=None, **steps):
        """Fit as a part of another estimator, with other steps of the recipe than the parameters give.

        Parameters
        ----------
        X0, X1, condition, sample_weight
            As in `fit`.
        **steps
            Fields of `Recipe`, for example `split`.
        """
        return self._fit(X0, X1, condition, sample_weight, steps)

    def _fit(self, X0, X1, condition, sample_weight, steps, before=None):
        group = current_group()
        with group.together():
            X0, X1, condition, row_weights = weighted_samples(X0, X1, condition, sample_weight, self._pairs_rows())
            X0, X1 = validate_samples(self, X0, X1)
            if before is not None:
                before(X0, X1)
            warm = self._warm_start()
            weights = warm and [values.cpu().numpy() for values in warm.model.velocity.state_dict().values()]
            samples = {"X0": X0, "X1": X1, "condition": condition, "sample_weight": row_weights}
            named = samples | {"names": list(vars(self).get("feature_names_in_", ()))}
            memory = FitMemory() if steps else open_memory(self, named, weights)
        recipe = dataclasses.replace(self._recipe(), **steps)
        with open_checkpoint(self, samples, weights, group) as checkpoint, group.deferring():
            with group.together(), numbered(rows_of_fit(sample_weight, X1 is not None, self._pairs_rows())):
                support, X0, X1, *grids = self._supported_ends(X0, X1, checkpoint.seed, group)
                base, target = images(support, X0, X1)
                recipe = on_circles(recipe, circles_of(support))
                names = self._column_names()
                problem = make_problem(recipe, base, target, condition, checkpoint, warm, row_weights, names)
            problem.group, problem.support = group, support
            problem.base_grid, problem.target_grid = grids
            if group.size > 1:
                names = list(vars(self).get("feature_names_in_", ()))
                share_problem(recipe, problem, condition, names, told_params(self))
            return self._learn(recipe, problem, X0, X1, condition, memory)

    def _supported_ends(self, X0, X1, seed, group):
        """The support, both samples within it and dequantised, and the grids of both."""
        names = self._column_names()
        support = read_support(self.support, names)
        ends = dequantized_ends(X0, X1, self.dequantize, names, seed, group, self._forecasts(), support)
        if support is not None:
            check_ends(support, X0, X1, ends[2:], names)
        return support, *ends

    def _learn(self, recipe, problem, X0, X1, condition, memory):
        """Fit to a problem, or recall what an equal fit has left, and keep the model."""
        weights = problem.base_weight, problem.target_weight
        given = {"condition": condition, "sample_weight": weights[1] if weights[0] is None else weights}
        problem.tasks = Tasks(self, X0, X1, {name: rows for name, rows in given.items() if rows is not None} or None)
        if not problem.is_forecast:
            check_noise(self._sampling(), problem.interpolant, problem.fields != ("velocity",))
        if memory.recall(self):
            self._renew_base()
            problem.tasks.end({"model_": self.model_})
            return self
        model, record = fit_problem(recipe, problem)
        self._take(model, record)
        memory.keep(self)
        problem.tasks.end({"model_": model, **record})
        return self

    def _warm_start(self):
        """The fit from which a warm start continues; None without one."""
        if not self.warm_start or not self.__sklearn_is_fitted__():
            return None
        rounds = vars(self).get("history_", [])  # which models of older files lack
        scores = self.validation_scores_ or []
        return WarmStart(self.model_, History(self.n_iter_, self.loss_curve_, scores, rounds=rounds))

    def _recipe(self) -> Recipe:
        """The recipe of training that the parameters describe."""
        names = {field.name for field in dataclasses.fields(Recipe)}
        params = {name: value for name, value in self.get_params(deep=False).items() if name in names}
        return Recipe(
            **params, learns_denoiser=self._learns_denoiser, forecasts=self._forecasts(), base_flow=self._base_flow
        )

    def _warn_repeats(self, X0, X1):
        """Warn of columns that have no density, at the ends of which one is promised."""
        if self._forecasts() or self.interpolant == "mirror" or (X1 is not None and self._needs_no_density()):
            return
        ways_out = (
            "Set dequantize='auto' (or a list of columns), which adds noise within the cells of the values, or use "
            "sklearn_si.tables.TableSynthesizer, which gives repeated values a mass."
        )
        samples = {"X": X0} if X1 is None else {"X0": X0, "X1": X1}
        warn_repeats(samples, self._column_names(), self.dequantize, ways_out)

    def _needs_no_density(self) -> bool:
        """Whether no density is fitted to the ends of a bridge."""
        return densities_of(self.base_density, self.target_density) == (None, False)

    def _forecasts(self) -> bool:
        """Whether the process starts from rows that are given as the condition."""
        return False

    def _pairs_rows(self) -> bool:
        """Whether row i of X0 belongs to row i of X1."""
        return self._forecasts() or as_coupling(self.coupling).row_by_row

    def _base_flow(self, max_time: float | None) -> Any:
        """The estimator of the density of the base with base_density="flow"."""
        density = clone(self).set_params(
            interpolant="linear", gamma="auto", gamma_scale=1.0, coupling="independent", preprocessing="auto",
            base_density=None, noise_level=0.0, noise_schedule="gamma", fields="auto", guidance=1.0,
            condition_dropout=0.0, condition_kinds=None, dequantize=None, support="real", warm_start=False,
            max_time=max_time, checkpoint=None, memory=None, n_estimators=1,
        )  # fmt: skip
        vars(density).pop("_skl_callbacks", None)  # those of the bridge, which a clone shares: they propagate, or not
        return density

    @property
    def estimators_(self) -> list:
        """The members of an ensemble, as fitted estimators with n_estimators=1; of another fit, the only one."""
        members = []
        for model in self.model_.members:
            members.append(copy.copy(self).set_params(n_estimators=1))
            members[-1].model_ = model
        return members

    @property
    def target_density_(self) -> Any:
        """The density of a bridge's target, as a fitted estimator of one sample; None where it has none of its own."""
        if self.model_.target_model is None:
            return None
        density = copy.copy(self)
        density.model_ = self.model_.target_model
        return density

    def _sampling(self) -> Sampling:
        return Sampling(self.noise_level, self.noise_schedule, self.solver, self.n_steps, self.ode_tol)

    def _guidance(self) -> float:
        return self.guidance

    def _asks_distilled(self) -> bool:
        return self.solver == "distilled"

    def transform(self, X, *, condition=None):
        """Move rows to the other end of the path along the ODE: X to a standard normal, or X0 to X1.

        dX_t/dt = b(t, X_t),    from t = 1 to 0 (one sample) or from t = 0 to 1 (two samples)

        (2303.08797, (2.32)). The map is deterministic, and `inverse_transform` is its inverse.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of the distribution of fit's first argument, in data units.
        condition : array-like, default=None
            The condition, if the model was fitted with one: one row for all rows of X, or one for each.

        Returns
        -------
        X_t : ndarray of shape (n_samples, n_features)
            The moved rows: in units of the standard normal (one sample) or in data units (two samples). Their error is
            within `ode_tol`, relative to 1 + their size in scaled units; rows that miss it are counted in an
            `IntegrationWarning`. A row that becomes infinite or NaN is NaN, and an `IntegrationWarning` names it.

        Raises
        ------
        ValueError
            When the model forecasts (start="condition"): it has no map.
        """
        self._ready()
        return self._transport(self._validate_rows(X), True, condition)

    def inverse_transform(self, X, *, condition=None):
        """Move rows back along the ODE: the inverse of `transform`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of the end that `transform` leads to, in the units that it returns.
        condition : array-like, default=None
            The condition, if the model was fitted with one: one row for all rows of X, or one for each.

        Returns
        -------
        X_t : ndarray or frame of shape (n_samples, n_features)
            Rows of the distribution of fit's first argument, in data units and in the container that `set_output` asks
            for; their errors are as in `transform`.

        Raises
        ------
        ValueError
            When the model forecasts (start="condition"): it has no map.
        """
        self._ready()
        return self._wrapped(self._transport(self._points(X, "X"), False, condition), X)

    def _transport(self, X, forward, condition):
        self.model_.refuse_forecast("transform")
        if forward or self.model_.base_map is not None or self.model_.is_mirror:  # else they are normal
            X = self._placed(X, self.model_.transport_grids(forward)[0])
        moved, error = self.model_.transport(X, forward, self._evaluation(strict=False), condition)
        warn_missed(error, self.ode_tol)
        return moved
