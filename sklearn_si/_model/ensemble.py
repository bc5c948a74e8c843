"""Several models of one distribution: the mixture of their distributions."""

import dataclasses
from typing import Any

import numpy as np
import torch
from scipy import stats

from .._utils.names import registered
from .._utils.weights import taken
from .densities import log_density, shares_of_members
from .fitted import FittedModel
from .nested import networks_within, own_networks, with_networks_within
from .settings import Evaluation

# Probability with which an interval is to hold the log-density.
COVERAGE = 0.9


@registered("ErrorScale")
@dataclasses.dataclass(frozen=True)
class ErrorScale:
    """How half-widths follow from the spread of members.

    f sqrt((s(x)^2 + s_0^2) / 2)

    with s(x) the standard deviation of the members' log-densities at a row, and s_0 its typical value at held-out rows,
    which counts as much as the row's own (a moderated variance: Smyth 2004, "Linear models and empirical Bayes methods
    for assessing differential expression").

    Parameters
    ----------
    typical_spread : float
        s_0, in nats: the median over held-out rows.
    factor : float or None
        f, as measured by a fit to draws of the ensemble and by held-out rows at the base; None where there was none.
    """

    typical_spread: float
    factor: float | None = None

    def of_spread(self, values: np.ndarray, is_target: bool = True) -> np.ndarray:
        """The moderated deviation of log-densities of members, of shape (n_members, n); at the target's time alone."""
        variance = values.var(0, ddof=1)
        return np.sqrt((variance + self.typical_spread**2) / 2 if is_target else variance)

    def measured(self, misses: list[np.ndarray]) -> "ErrorScale":
        """With the largest factor that errors of some kinds have, in units of the moderated deviation."""
        factors = [float(np.quantile(some[np.isfinite(some)], COVERAGE)) for some in misses]
        return dataclasses.replace(self, factor=max(factors, default=None))

    def half_width(self, values: np.ndarray, is_target: bool) -> np.ndarray:
        """The half-width of intervals, from log-densities of members of shape (n_members, n)."""
        # Student's quantile at twice the freedom of the members, and as much again for what they miss alike
        assumed = 2**0.5 * stats.t(2 * (len(values) - 1)).ppf(0.5 + COVERAGE / 2)
        # a fit to draws tells it within a third: it widens intervals, and never narrows them
        return max(assumed, self.factor or 0.0) * self.of_spread(values, is_target)


@registered("EnsembleModel")
@dataclasses.dataclass(frozen=True, eq=False)
class EnsembleModel(FittedModel):
    """The mixture of models with the same path and the same kind of map, in equal shares.

    rho_t = (1 / m) sum_k rho_t^(k),    b = sum_k w_k b^(k),    w_k(t, x) = rho_t^(k)(x) / sum_j rho_t^(j)(x)

    and so for all fields that are conditional expectations. A draw is one of a member that is chosen at random.

    Parameters
    ----------
    others : tuple of FittedModel
        The members after the first, whose own fields are those of this model.
    error_scale : ErrorScale
        What turns the spread of the members' log-densities into half-widths.
    """

    others: tuple = ()
    error_scale: ErrorScale = ErrorScale(0.0)

    @classmethod
    def of(cls, models: list[FittedModel], error_scale: ErrorScale) -> FittedModel:
        """The mixture of some models."""
        first, *others = models
        values = {field.name: getattr(first, field.name) for field in dataclasses.fields(FittedModel)}
        return cls(**values, others=tuple(others), error_scale=error_scale)

    @property
    def members(self) -> tuple[FittedModel, ...]:
        """The models, each by itself."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(FittedModel)}
        return FittedModel(**values), *self.others

    def networks(self) -> dict[str, Any]:
        """The networks of all members by the name of their field; those of others with their number before it."""
        return super().networks() | networks_within(self._numbered())

    def with_networks(self, networks: dict[str, Any]) -> FittedModel:
        """The same model with other networks of these names."""
        others = with_networks_within(self._numbered(), networks)
        return dataclasses.replace(self, **own_networks(networks), others=tuple(others.values()))

    def _numbered(self) -> dict[str, Any]:
        return {str(number): member for number, member in enumerate(self.others)}

    def fields(self, *args: Any, **kwargs: Any) -> Any:
        """Refused, with all that follows them: the fields of a mixture need its densities (`field`)."""
        return self._refuse("Following its fields")

    def from_base(self, *args: Any, **kwargs: Any) -> Any:
        """Refused."""
        return self._refuse("A map from the base")

    def transport(self, *args: Any, **kwargs: Any) -> Any:
        """Refused."""
        return self._refuse("A map between data and base")

    def _refuse(self, what: str) -> None:
        raise ValueError(
            f"{what} needs one flow, but this model is the mixture of {len(self.members)} (n_estimators), which has no "
            "ODE of its own: ask one of its members, model.estimators_[0], or fit with n_estimators=1."
        )

    def sample(
        self, n: int, sampling: Any, generator: torch.Generator, condition: Any = None, guidance: float = 1.0
    ) -> np.ndarray:
        """Rows of the target, in data units: each of a member that is chosen at random."""
        members = self.members
        chosen = torch.randint(len(members), (n,), generator=generator, device=generator.device).cpu().numpy()
        X = np.empty((n, self.n_features), self.dtype)
        for k, member in enumerate(members):
            rows = np.flatnonzero(chosen == k)
            if len(rows):
                X[rows] = member.sample(len(rows), sampling, generator, taken(condition, rows, n), guidance)
        return X

    def field(
        self, X: np.ndarray, time: Any, evaluate: Any, to_data: Any, evaluation: Evaluation, condition: Any = None
    ) -> Any:
        """One field of the mixture at one time, in data units."""
        values = [member.field(X, time, evaluate, to_data, evaluation, condition) for member in self.members]
        logs = [log_density(member, X, time, evaluation, condition)[0] for member in self.members]
        shares = shares_of_members(np.array(logs, np.float64))
        return np.einsum("kn,kn...->n...", shares, np.array(values)).astype(X.dtype, copy=False)
