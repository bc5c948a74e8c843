"""How estimators ask their fitted model, and the parts of the model as fitted attributes."""

import abc
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from .._model.fitted import FittedModel, HasModel
from .._model.settings import Evaluation, Sampling
from .._utils.callers import users_level
from .._utils.containers import in_container
from .._utils.input_checks import names_of_fit, validate_points, validate_rows
from .._utils.tensors import draw_seed, resolve_device
from ..networks._averaged import count_networks
from ..preprocessing._grids import Grid
from ..preprocessing._support import possible_rows

# What follows for rows that a support excludes.
_IMPOSSIBLE = "their density is zero, and its logarithm -inf; leave them out, or fit with a wider support"


class AsksModel(HasModel, BaseEstimator, abc.ABC):
    """An estimator whose fit leaves a `FittedModel`; its methods check what they are given and ask the model.

    A leaf says how rows are drawn (`_sampling`) and how fields are followed (`_evaluation`) by its parameters of the
    moment: these are the parameters that may change after fit.
    """

    model_: FittedModel
    n_features_in_: int
    random_state: Any
    device: Any
    ode_tol: float

    @abc.abstractmethod
    def _sampling(self) -> Sampling:
        """How rows are drawn."""

    def _evaluation(self, strict: bool = True) -> Evaluation:
        """How fields are followed; `strict` says whether a row that becomes infinite or NaN is an error, or NaN."""
        return Evaluation(resolve_device(self.device), self.ode_tol, self._guidance(), strict, self._asks_distilled())

    def _guidance(self) -> float:
        """The weight of the condition."""
        return 1.0

    def _asks_distilled(self) -> bool:
        """Whether distilled maps serve densities and transported rows, after a `distill` that has learned them."""
        return False

    def _ready(self) -> FittedModel:
        """The fitted model, once the parameters have been checked."""
        check_is_fitted(self)
        self._validate_params()
        return self.model_

    def __sklearn_is_fitted__(self) -> bool:
        """Whether `fit` has run."""
        return "model_" in vars(self)

    def _wrapped(self, rows: np.ndarray, given: Any = None) -> Any:
        """Rows in the container that `set_output` asks for, with the index of those given to which they belong."""
        return in_container(self, rows, given)

    def _validate_rows(self, X: Any) -> np.ndarray:
        return validate_rows(self, X)

    def _points(self, X: Any, name: str) -> np.ndarray:
        return validate_points(self, X, name)

    def _column_names(self) -> list:
        """Names of the columns, or their numbers where fit saw none."""
        return names_of_fit(self)

    def _centred(self, X: np.ndarray, grid: Grid | None) -> np.ndarray:
        """Rows with repeated values at the centres of their cells, where the model has a grid of them."""
        if grid is None:
            return X
        centred, off = grid.centre(X)
        if off:
            names = self._column_names()
            told = ", ".join(
                f"column {names[j]!r} ({rows.sum()} rows, such as {X[rows, j][0]:g})" for j, rows in off.items()
            )
            warnings.warn(
                f"Values that fit did not see: {told}. Their repeated values were given cells by "
                "dequantize=, and other values are taken where they are.",
                UserWarning,
                stacklevel=users_level(),
            )
        return centred

    def _placed(self, X: np.ndarray, grid: Grid | None, name: str = "X") -> np.ndarray:
        """Rows with repeated values at the centres of their cells, refused where one lies outside the support."""
        support = self.model_.support
        if support is None:
            return self._centred(X, grid)
        support.check(X, name, self._column_names(), () if grid is None else grid.columns)
        X = self._centred(X, grid)
        support.check(X, name, self._column_names())
        return X

    def _in_support(self, X: np.ndarray, grid: Grid | None = None, name: str = "X") -> np.ndarray:
        """Rows as they are where all columns are real, else as `_placed` has them."""
        return X if self.model_.support is None else self._placed(X, grid, name)

    def _where_possible(
        self, X: np.ndarray, grid: Grid | None, ask: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Log-densities of rows and their errors: -inf, which is exact, for rows on a bound of the support or outside.

        A warning counts these rows. Another row is asked for in the place of each, so that conditions stay with theirs.
        """
        support = self.model_.support
        if support is None:
            return ask(X)
        repeated = () if grid is None else grid.columns
        possible = possible_rows(support, X, "X", self._column_names(), repeated, _IMPOSSIBLE)
        if possible.all():
            return ask(X)
        other = X[possible][:1] if possible.any() else self._row_within(grid).astype(X.dtype)
        value, error = ask(np.where(possible[:, None], X, other))
        return np.where(possible, value, -np.inf), np.where(possible, error, 0.0)

    def _row_within(self, grid: Grid | None) -> np.ndarray:
        """A row in the middle of the support, of shape (1, n_features)."""
        row = self.model_.target_map.inverse_transform(np.zeros((1, self.n_features_in_)))
        for j, column in ({} if grid is None else grid.columns).items():
            row[:, j] = column.values[len(column.values) // 2]
        return row

    def _seed_of(self, random_state: Any) -> int:
        """The seed of one draw."""
        return draw_seed(self.random_state if random_state is None else random_state)

    @property
    def network_(self) -> Any:
        """The velocity b(t, x), in scaled units."""
        return self.model_.velocity

    @property
    def n_networks_(self) -> int:
        """The number of networks of whose mean the velocity is made."""
        return count_networks(self.model_.velocity)

    @property
    def denoiser_network_(self) -> Any:
        """The denoiser eta(t, x), where the velocity does not give it; else None."""
        return self.model_.denoiser

    @property
    def interpolant_(self) -> Any:
        """The path."""
        return self.model_.interpolant

    @property
    def preprocessing_(self) -> Any:
        """The map from data units to scaled units at the target."""
        return self.model_.target_map

    @property
    def base_preprocessing_(self) -> Any:
        """The map from data units to scaled units at the base; None for a normal base."""
        return self.model_.base_map

    @property
    def base_density_(self) -> Any:
        """The density of the base of a bridge; None where none was fitted."""
        return self.model_.base_density

    @property
    def base_sample_(self) -> Any:
        """The rows from which `sample` starts; None for a normal base."""
        return self.model_.base_sample

    @property
    def condition_codec_(self) -> Any:
        """What encodes the condition; None without one."""
        return self.model_.condition_codec

    @property
    def sampling_grid_(self) -> tuple[int, str] | None:
        """Steps of RK4 and the spacing of their grid that are enough for the ODE from t = 0 to 1."""
        return self.model_.sampling_grid

    @property
    def seed_(self) -> int:
        """The seed of the fit."""
        return self.model_.seed

    @property
    def dtype_(self) -> Any:
        """The dtype of the rows that `sample` returns."""
        return self.model_.dtype
