"""How the error of a log-density along the ODE is stated: of the path, of the quadrature, and of rounding."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..networks import GuidedField
from .fields import Fields

# Relative rounding of single precision.
_EPSILON = 2.0**-24
# Nats beyond which the error that the first solve states of itself is no estimate: its steps are too long.
_TRUSTED = 0.5
# Stated over estimated error of the quadrature of the divergence, such that 99 % of rows are within it
# (benchmarks/studies/ablation.md).
_QUADRATURE_MARGIN = 3.0


class Margin(NamedTuple):
    """How an error is stated from what indicates it."""

    factor: float
    floor: float

    def stated(self, indicator: Tensor) -> Tensor:
        """The stated error."""
        return self.floor + self.factor * indicator


def quadrature_error(values: Tensor) -> Tensor:
    """What Gauss's quadrature misses, from values at the n nodes of [0, 1], of shape (n, rows).

    It misses coefficients a_k (orthonormal, Legendre) from k = 2 n on. If they fall like a power of k, or like one of
    a number, a_2n is a_n times a_n / a_{n/2}; and it is no larger than a_n.
    """
    n = len(values)
    nodes, weights = np.polynomial.legendre.leggauss(n)
    basis = np.polynomial.legendre.legvander(nodes, n - 1) * np.sqrt(2 * np.arange(n) + 1) * weights[:, None] / 2
    coefficients = torch.as_tensor(basis.T).to(values) @ values
    last = coefficients[-3:].abs().amax(0)
    middle = coefficients[n // 2 - 2 : n // 2 + 2].square().mean(0).sqrt()
    return last * (_QUADRATURE_MARGIN * last / middle).clamp(max=1.0)


def rounding_indicator(x: Tensor, end: Tensor, variation: Tensor) -> Tensor:
    """What rounding to single precision may amount to in nats, up to a factor that is measured.

    The divergence is rounded along the path, and the row in proportion to its size, where the score grows as well.
    """
    return _EPSILON * (variation + x.square().sum(1) + end.square().sum(1))


def weighs_by_score(fields: Fields) -> bool:
    """Whether the embedded errors of the steps are known in nats."""
    # a guided score is not that of the guided model's density, and would weigh the errors wrongly
    return fields.has_score and not isinstance(fields.velocity_network, GuidedField)


def step_error(fields: Fields, t: Tensor, rate: float, x: Tensor, slope: Tensor, embedded: Tensor) -> Tensor:
    """|s . e| at the end of a step, with e its embedded error and s the score; |e| where s is not known.

    Parameters
    ----------
    fields : Fields
    t, rate : Tensor of shape (), float
        The time, and its derivative by the parameter of the steps.
    x, slope, embedded : Tensor of shape (n, d)
        The rows there, their derivative by that parameter, and e.
    """
    if weighs_by_score(fields):
        return (fields.score(t, x, slope / rate) * embedded).sum(1).abs()
    return embedded.norm(dim=1)


def trusted(error: Tensor) -> Tensor:
    """A stated error; infinite where it is so large that it is no estimate."""
    return torch.where(error <= _TRUSTED, error, torch.inf)
