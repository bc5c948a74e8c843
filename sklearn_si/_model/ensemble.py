"""Several models of one distribution: the mixture of their distributions."""

import dataclasses
from typing import Any

import numpy as np
import torch

from .._utils.names import registered
from .._utils.weights import taken
from .densities import log_density, shares_of_members
from .fitted import FittedModel
from .settings import Evaluation

# What joins the name of a network with the number of its member.
_MARK = ":"


@registered("EnsembleModel")
@dataclasses.dataclass(frozen=True, eq=False)
class EnsembleModel(FittedModel):
    """The mixture of models with the same path and the same maps, in equal shares.

    rho_t = (1 / m) sum_k rho_t^(k),    b = sum_k w_k b^(k),    w_k(t, x) = rho_t^(k)(x) / sum_j rho_t^(j)(x)

    and so for all fields that are conditional expectations. A draw is one of a member that is chosen at random.

    Parameters
    ----------
    others : tuple of FittedModel
        The members after the first, whose own fields are those of this model.
    typical_spread : float
        The median over held-out rows of the standard deviation of the members' log-densities, in nats.
    """

    others: tuple = ()
    typical_spread: float = 0.0

    @classmethod
    def of(cls, models: list[FittedModel], typical_spread: float) -> FittedModel:
        """The mixture of some models; of one, the model itself."""
        first, *others = models
        if not others:
            return first
        values = {field.name: getattr(first, field.name) for field in dataclasses.fields(FittedModel)}
        return cls(**values, others=tuple(others), typical_spread=typical_spread)

    @property
    def members(self) -> tuple[FittedModel, ...]:
        """The models, each by itself."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(FittedModel)}
        return FittedModel(**values), *self.others

    def networks(self) -> dict[str, Any]:
        """The networks of all members by the name of their field; those of others with their number before it."""
        of_others = {f"{k}{_MARK}{n}": net for k, m in enumerate(self.others) for n, net in m.networks().items()}
        return super().networks() | of_others

    def with_networks(self, networks: dict[str, Any]) -> FittedModel:
        """The same model with other networks of these names."""
        own = {name: value for name, value in networks.items() if _MARK not in name}
        parts: list[dict] = [{} for _ in self.others]
        for name in networks.keys() - own.keys():
            number, field = name.split(_MARK)
            parts[int(number)][field] = networks[name]
        others = tuple(m.with_networks(part) for m, part in zip(self.others, parts, strict=True))
        return dataclasses.replace(self, **own, others=others)

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

    def sample(self, n: int, sampling: Any, generator: torch.Generator, condition: Any = None, guidance: float = 1.0):
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
    ):
        """One field of the mixture at one time, in data units."""
        values = [member.field(X, time, evaluate, to_data, evaluation, condition) for member in self.members]
        logs = [log_density(member, X, time, evaluation, condition)[0] for member in self.members]
        shares = shares_of_members(np.array(logs, np.float64))
        return np.einsum("kn,kn...->n...", shares, np.array(values)).astype(X.dtype, copy=False)
