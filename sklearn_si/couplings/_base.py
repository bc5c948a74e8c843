"""What a coupling is, and those that pair rows without looking at them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .._utils.names import registered
from ..interpolants import Interpolant

# Rows of the base, rows of the target, and the conditions of the latter.
Pairs = tuple[Tensor, Tensor, Tensor | None]


class Samples(NamedTuple):
    """Rows of base and target in scaled units, conditions of the latter, and weights of both (None: all weigh 1)."""

    x0: Tensor
    x1: Tensor
    condition: Tensor | None = None
    weight0: Tensor | None = None
    weight1: Tensor | None = None


class Coupling:
    """How rows of the two samples are paired in training.

    (x0, x1) ~ a joint distribution whose marginals are the base rho0 and the target rho1

    (arXiv 2303.08797, Definition 2.1; minibatch couplings are from arXiv 2302.00482). A subclass defines `__call__`,
    and its attributes say how the training loop draws the rows that it passes.
    """

    # Whether row i of the base belongs to row i of the target, so that the same row numbers are drawn from both.
    row_by_row = False
    # Whether batches are drawn from pools of pairs, because pairing costs more than a training step.
    pooled = False
    # Number of rows that a pooled coupling pairs at a time.
    batch_size: int
    # Number of times that a pooled coupling's pairs are used.
    passes: int
    # Whether the pairs are the rows as they were drawn, so that there is nothing to call.
    as_drawn = False
    # Whether it has rows of its own, of which it makes pools by `make_pool`.
    has_rows = False
    # Whether every pool of its rows would be the same.
    fixed = False
    # Whether the marginals of the pairs are not those of the samples.
    changes_marginals = False
    # How rows are paired, in words, where a plan says it.
    told = ""
    # Whether one plan of all rows was asked for, which needs them in memory, and in one process.
    needs_all_rows = False

    def check(self) -> None:
        """Raise a ValueError if the parameters are invalid."""

    def tied_to(self, interpolant: Interpolant) -> "Coupling":
        """The coupling for this interpolant, which may determine its parameters."""
        return self

    def planned(self, rows: "Samples", generator: torch.Generator, seconds: float | None = None) -> "Coupling":
        """The coupling for the training rows, of which it may make a plan before the training."""
        return self

    def held_out(self, rows: "Samples", generator: torch.Generator) -> "Coupling":
        """The coupling for validation rows."""
        return self

    def start_masses(self, x0: Tensor) -> Tensor | None:
        """The factors of the masses of rows of the base, where these are not kept; else None."""
        return None

    def make_pool(self, generator: torch.Generator) -> Pairs:
        """Pairs of its own rows."""
        raise NotImplementedError

    def __call__(self, x0: Tensor, x1: Tensor, condition: Tensor | None, generator: torch.Generator) -> Pairs:
        """The pairs that are made from equally many rows of both samples, in scaled units."""
        return x0, x1, condition


@registered("couplings.Independent")
class Independent(Coupling):
    """Pair rows at random: the product rho0 x rho1 of the base and the target.

    The training loop draws both rows independently, so nothing is left to do.
    """

    as_drawn = True


@registered("couplings.NearestImage")
class NearestImage(Coupling):
    """Pair rows at random on circles: normal rows become those of the base, targets the images nearest to them.

    Parameters
    ----------
    path : TorusPath
    """

    def __init__(self, path: Interpolant) -> None:
        self.path = path

    def __call__(self, x0: Tensor, x1: Tensor, condition: Tensor | None, generator: torch.Generator) -> Pairs:
        """Rows of the base, and the nearest images of x1."""
        x0 = self.path.base_from_normal(x0)
        return x0, self.path.nearest(x0, x1), condition


@registered("couplings.Paired")
class Paired(Coupling):
    """Pair row i of the base with row i of the target, as they are given."""

    as_drawn = True
    row_by_row = True


@registered("couplings.OwnCoupling")
class OwnCoupling(Coupling):
    """Pair rows by a user's function.

    Parameters
    ----------
    function : callable
        Maps (x0, x1, condition, generator), in scaled units, to pairs (x0, x1, condition).
    """

    def __init__(self, function: Callable[..., Pairs]) -> None:
        self.function = function

    def __call__(self, x0: Tensor, x1: Tensor, condition: Tensor | None, generator: torch.Generator) -> Pairs:
        """The pairs of the user's function."""
        return self.function(x0, x1, condition, generator)


@registered("couplings.OwnPairs")
class OwnPairs(Coupling):
    """Pair rows of the base with the end points of a fitted model's process that starts from them.

    Parameters
    ----------
    noise_level : float
        The diffusion of the process, in scaled units; 0 is the ODE.
    """

    def __init__(self, noise_level: float) -> None:
        self.noise_level = noise_level


independent, paired = Independent(), Paired()
