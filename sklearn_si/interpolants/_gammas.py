"""The functions gamma(t) of the interpolants, which scale their latent noise."""

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from .._utils.names import registered


@registered("interpolants.Gamma")
@dataclasses.dataclass(frozen=True)
class Gamma:
    """The size gamma(t) of the latent noise: its value, its derivative and their product.

    gamma(0) = gamma(1) = 0,    gamma(t) > 0 between (arXiv 2303.08797, Definition 2.1 and Table 8)

    The product has a closed form of its own, because it stays finite at t = 0 and 1 where the derivative may not.

    Parameters
    ----------
    value, derivative, product : callable
        gamma(t), d gamma / dt and gamma d gamma / dt for a tensor of times, in scaled units. Pass functions that are
        defined in a module, not lambdas, so that a fitted estimator can be pickled.

    Examples
    --------
    >>> import torch
    >>> from sklearn_si.interpolants import GAMMAS
    >>> GAMMAS["quadratic"].value(torch.tensor(0.5))  # t (1 - t)
    tensor(0.2500)
    """

    value: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]
    product: Callable[[Tensor], Tensor]


@registered("interpolants.brownian")
def _brownian(t: Tensor) -> Tensor:
    return torch.sqrt(t * (1 - t))


@registered("interpolants.brownian_dot")
def _brownian_dot(t: Tensor) -> Tensor:
    return (1 - 2 * t) / (2 * _brownian(t))


@registered("interpolants.brownian_product")
def _brownian_product(t: Tensor) -> Tensor:
    return (1 - 2 * t) / 2


@registered("interpolants.quadratic")
def _quadratic(t: Tensor) -> Tensor:
    return t * (1 - t)


@registered("interpolants.quadratic_dot")
def _quadratic_dot(t: Tensor) -> Tensor:
    return 1 - 2 * t


@registered("interpolants.quadratic_product")
def _quadratic_product(t: Tensor) -> Tensor:
    return t * (1 - t) * (1 - 2 * t)


@registered("interpolants.sine")
def _sine(t: Tensor) -> Tensor:
    return torch.sin(math.pi * t)


@registered("interpolants.sine_dot")
def _sine_dot(t: Tensor) -> Tensor:
    return math.pi * torch.cos(math.pi * t)


@registered("interpolants.sine_product")
def _sine_product(t: Tensor) -> Tensor:
    return math.pi / 2 * torch.sin(2 * math.pi * t)


@registered("interpolants.sine_squared")
def _sine_squared(t: Tensor) -> Tensor:
    return torch.sin(math.pi * t) ** 2


@registered("interpolants.sine_squared_dot")
def _sine_squared_dot(t: Tensor) -> Tensor:
    return math.pi * torch.sin(2 * math.pi * t)


@registered("interpolants.sine_squared_product")
def _sine_squared_product(t: Tensor) -> Tensor:
    return _sine_squared(t) * _sine_squared_dot(t)


_STEEPNESS = 10.0  # f of the sigmoid noise


@registered("interpolants.sigmoid")
def _sigmoid(t: Tensor) -> Tensor:
    f = _STEEPNESS
    ends = 1 / (1 + math.exp(f / 2 - 1)) - 1 / (1 + math.exp(f / 2 + 1))
    return torch.sigmoid(f * (t - 0.5) + 1) - torch.sigmoid(f * (t - 0.5) - 1) - ends


@registered("interpolants.sigmoid_dot")
def _sigmoid_dot(t: Tensor) -> Tensor:
    f = _STEEPNESS
    plus, minus = torch.sigmoid(f * (t - 0.5) + 1), torch.sigmoid(f * (t - 0.5) - 1)
    return f * (plus * (1 - plus) - minus * (1 - minus))


@registered("interpolants.sigmoid_product")
def _sigmoid_product(t: Tensor) -> Tensor:
    return _sigmoid(t) * _sigmoid_dot(t)


GAMMAS = {
    "brownian": Gamma(_brownian, _brownian_dot, _brownian_product),
    "quadratic": Gamma(_quadratic, _quadratic_dot, _quadratic_product),
    "sine": Gamma(_sine, _sine_dot, _sine_product),
    "sine-squared": Gamma(_sine_squared, _sine_squared_dot, _sine_squared_product),
    "sigmoid": Gamma(_sigmoid, _sigmoid_dot, _sigmoid_product),
}
