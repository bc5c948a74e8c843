"""A bridge whose target has a density of its own, which needs none of the base."""

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._utils.names import registered
from .._utils.tensors import as_array, as_tensor, evaluation_dtype
from .fitted import FittedModel
from .levels import ASSUMED
from .likelihood import GRID_SPACING, ode_log_density
from .nested import networks_within, own_networks, with_networks_within
from .settings import Evaluation
from .transport import transport_rows
from .units import returned


@registered("ModelWithTarget")
@dataclasses.dataclass(frozen=True, eq=False)
class ModelWithTarget(FittedModel):
    """A bridge with a model of its target alone.

    log rho_t(x) = log rho_1(X_{t,1}(x)) + int_t^1 div b(u, X_{t,u}(x)) du

    (2303.08797, (2.53), from the other end), with log rho_1 that of the model of the target.

    Parameters
    ----------
    target_model : FittedModel
        Of one sample, with the same codec of the condition.
    """

    target_model: Any = None  # type: ignore[misc]  # a field of this class, and none of the one above

    @classmethod
    def of(cls, bridge: FittedModel, target: FittedModel) -> "ModelWithTarget":
        """A bridge, with the model of its target."""
        values = {field.name: getattr(bridge, field.name) for field in dataclasses.fields(FittedModel)}
        return cls(**values, target_model=target)

    @property
    def transported(self) -> FittedModel:
        """The bridge alone, whose density is that of its base where it is moved to."""
        return FittedModel(**{field.name: getattr(self, field.name) for field in dataclasses.fields(FittedModel)})

    @property
    def has_gradient(self) -> bool:
        """Whether log-densities at all times can be differentiated: the map of the target may leave tensors."""
        return False

    def networks(self) -> dict[str, Any]:
        """The networks by the name of their field; those of the target with its name before it."""
        return super().networks() | networks_within({"target": self.target_model})

    def with_networks(self, networks: dict[str, Any]) -> FittedModel:
        """The same model with other networks of these names."""
        target = with_networks_within({"target": self.target_model}, networks)["target"]
        return dataclasses.replace(self, **own_networks(networks), target_model=target)

    def at_target(self, X: np.ndarray, time: Tensor, evaluation: Evaluation, condition: object) -> tuple[Any, Any, Any]:
        """Rows of a time moved to the target; what that adds to the log-density there; and the errors of both, a row.

        log rho_t(x) - log rho_1(X_{t,1}(x)),    in data units
        """
        device, t = evaluation.device, float(time)
        dtype = evaluation_dtype(X.dtype, device)
        fields = self.fields(X.dtype, device, condition, len(X), evaluation.guidance)
        x = as_tensor(self.units.to_scaled(X, time), dtype, device)
        end, missed = transport_rows(fields, x, t, 1.0, evaluation.tolerance, GRID_SPACING)
        asked = 1.0, _nothing, evaluation.tolerance, GRID_SPACING, ASSUMED
        change, error = ode_log_density(fields, x, t, *asked)
        with np.errstate(over="ignore", invalid="ignore"):
            moved = self.target_map.inverse_transform(as_array(end, np.float64))
            moved = returned(moved, X.dtype, self.support)
            jacobian = self.target_map.log_abs_det_jacobian(X) - self.target_map.log_abs_det_jacobian(moved)
        return moved, as_array(change, np.float64) + jacobian, as_array(torch.maximum(error, missed), np.float64)


def _nothing(x: Tensor, level: Any) -> tuple[Tensor, Tensor]:
    """No terms, and no error, at the end of the path."""
    return torch.zeros_like(x[:, :1]), torch.zeros_like(x[:, 0])
