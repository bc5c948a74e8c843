"""The density of a base: normal, uniform on circles, or a flow of its own."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._utils.tensors import as_tensor
from ..interpolants import Interpolant
from ..preprocessing import AffineMap
from .levels import Level
from .likelihood import Parts


def normal_parts(path: Interpolant) -> Parts:
    """Terms of the density of the base of one sample: standard normal, and uniform on circles."""

    def parts(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        value = path.base_log_density(x)[:, None]
        return value, torch.zeros_like(value[:, 0])

    return parts


def flow_parts(base: Any, base_map: AffineMap) -> Parts:
    """Terms of the density of a base that is a flow: its own solve at the same level, in tensors throughout."""
    inner = base.target_map
    # x -> data units -> the scaled units of the base's own flow: one affine map
    matrix = inner.transform(inner.centre + base_map.without_centre().inverse_transform(np.eye(len(inner.centre))))
    shift = inner.transform(base_map.centre[None])[0]
    jacobian = float(inner.log_abs_det_jacobian(shift[None])[0] - base_map.log_abs_det_jacobian(shift[None])[0])

    def parts(x: Tensor, level: Level) -> tuple[Tensor, Tensor | None]:
        moved = x @ as_tensor(matrix, x.dtype, x.device) + as_tensor(shift, x.dtype, x.device)
        own, error = base.density_parts(moved, level)
        return torch.cat([own, torch.full_like(own[:, :1], jacobian)], 1), error

    return parts
