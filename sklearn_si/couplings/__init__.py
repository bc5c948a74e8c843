"""Couplings: how rows of the base and rows of the target are paired in training."""

from collections.abc import Callable

from ._base import Coupling, OwnCoupling, Pairs, independent, paired
from ._base import Independent as Independent
from ._base import NearestImage as NearestImage
from ._base import OwnPairs as OwnPairs
from ._base import Paired as Paired
from ._base import Samples as Samples
from ._plans import conditional_covariance as conditional_covariance
from ._plans import entropic_plan, optimal_pairs
from ._plans import gaussian_matrix as gaussian_matrix
from ._semidiscrete import SemidiscretePlan, semidiscrete_plan
from ._transport import Entropic, Optimal

__all__ = [
    "COUPLINGS",
    "Coupling",
    "Entropic",
    "Optimal",
    "SemidiscretePlan",
    "entropic_plan",
    "independent",
    "optimal_pairs",
    "paired",
    "semidiscrete_plan",
]

COUPLINGS: dict[str, Coupling] = {
    "independent": independent,
    "paired": paired,
    "optimal": Optimal(),
    "entropic": Entropic(),
}


def as_coupling(coupling: "str | Coupling | Callable[..., Pairs]") -> Coupling:
    """The checked coupling for an estimator's parameter `coupling`.

    Raises
    ------
    ValueError
        When it is a class in place of an instance, or has invalid parameters.
    """
    if isinstance(coupling, type):
        raise ValueError(
            f"Got the class coupling={coupling.__name__}, but expected an instance: {coupling.__name__}()."
        )
    if isinstance(coupling, str):
        return COUPLINGS[coupling]
    found = coupling if isinstance(coupling, Coupling) else OwnCoupling(coupling)
    found.check()
    return found
