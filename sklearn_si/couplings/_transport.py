"""Couplings that pair rows by how far they are from each other."""

import copy
import math
import numbers

import torch
from torch import Tensor

from .._utils.names import registered
from ..interpolants import Interpolant
from ._base import Coupling, Pairs, Samples
from ._plans import entropic_plan, optimal_pairs
from ._pools import SemidiscretePairs, drawn_conditions, extended
from ._semidiscrete import semidiscrete_plan

_METHODS = ("auto", "batches", "semidiscrete")
# Rows of the shorter sample from which one plan of all rows is better than batches.
_FEWEST_ROWS = 2048
# Largest total variation between the rows of the target that are chosen and their masses at which the plan of all rows
# is preferred: above it the ascent has not come far enough (a map that is far from linear, of 20,000 rows in 2 columns,
# had .5, and an error of .18 instead of .04; between normal distributions it is .31 at the most).
_MOST_MISSED = 0.35
# Columns up to which one plan of all rows was better than batches: in 2 and 5, errors of maps between normal
# distributions fell from .034 and .021 to .010 and .019; in 20 both had .055, and of a nonlinear map batches had .073,
# the plan .078.
_MOST_COLUMNS = 12
# Largest product of the numbers of rows of both samples.
_MOST_SCORES = 2**30


@registered("couplings.Optimal")
class Optimal(Coupling):
    """Pair rows by the plan of least mean squared distance: minibatch optimal transport.

    argmin over permutations p of sum_i |x0_i - x1_p(i)|^2    (distances in scaled units)

    (arXiv 2302.00482). The plan is exact within a batch. The pairs follow the optimal plan of the two distributions up
    to a bias that falls with the batch size, slowly in many dimensions. The base and the target are unbiased in any
    case. With a condition c of the target, conditions c0 are drawn at random for the base rows, and w |c0 - c1|^2 is
    added to the cost: a base row is then independent of the condition, and conditional models are not biased.

    Parameters
    ----------
    batch_size : int, default=1024
        Number of rows that are paired at a time. Two samples of equal length, at most twice this number, are paired as
        a whole.
    passes : int, default=16
        Number of times that the pairs of a batch are used in training, before new ones are made.
    condition_weight : float, default=10.0
        The weight w, in units of the mean squared distance of x over that of c.
    method : {"auto", "batches", "semidiscrete"}, default="auto"
        "batches" pairs `batch_size` rows at a time. "semidiscrete" learns one potential of all training rows of the
        target before the training (`semidiscrete_plan`, arXiv 2509.25519), by which each row of the base has one
        partner, without the bias of batches. "auto" is the latter where it was measured to be better.
    unbalanced : float, default=None
        The penalty rho on the marginals, in squared scaled units: mass may vanish from rows that are farther than about
        its square root from all others, and appear at such rows. It needs method="semidiscrete" or "auto", and
        base_density=None, as the ends of the flow are no longer the samples. None keeps the marginals.

    Examples
    --------
    >>> import torch
    >>> from sklearn_si.couplings import Optimal
    >>> x0, x1, _ = Optimal()(torch.tensor([[0.0], [1.0]]), torch.tensor([[5.0], [4.0]]), None, None)
    >>> x1[:, 0]
    tensor([4., 5.])
    """

    pooled = True

    def __init__(
        self,
        batch_size: int = 1024,
        passes: int = 16,
        condition_weight: float = 10.0,
        method: str = "auto",
        unbalanced: float | None = None,
    ) -> None:
        self.batch_size, self.passes, self.condition_weight = batch_size, passes, condition_weight
        self.method, self.unbalanced = method, unbalanced

    def check(self) -> None:
        """Raise a ValueError if the parameters are invalid."""
        _check_counts(self, batch_size=2, passes=1)
        _check_method(self)

    @property
    def changes_marginals(self) -> bool:  # type: ignore[override]
        """Whether mass may appear and vanish."""
        return self.unbalanced is not None

    @property
    def needs_all_rows(self) -> bool:  # type: ignore[override]
        """Whether one plan of all rows was asked for."""
        return self.method == "semidiscrete" or self.unbalanced is not None

    def planned(self, rows: Samples, generator: torch.Generator, seconds: float | None = None) -> Coupling:
        """Pairs by one plan of all rows, where that is asked for or better."""
        why = _why_batches(self, rows)
        if why:
            return _in_batches(self, why)
        pairs = _planned(self, rows, generator, seconds)
        missed = pairs.missed_share()
        pairs.told = f"one plan of all rows, whose potential misses {missed:.0%} of the masses"
        if self.needs_all_rows or missed <= _MOST_MISSED:
            return pairs
        return _in_batches(self, f"{pairs.told}, and {_MOST_MISSED:.0%} is the most")

    def __call__(self, x0: Tensor, x1: Tensor, condition: Tensor | None, generator: torch.Generator) -> Pairs:
        """The rows of x0, and the rows of x1 and of its condition that they are paired with."""
        penalty = _condition_cost(x0, x1, condition, self.condition_weight, generator)
        rows = torch.as_tensor(optimal_pairs(x0, x1, penalty), device=x1.device)
        return x0, x1[rows], None if condition is None else condition[rows]


@registered("couplings.Entropic")
class Entropic(Coupling):
    """Pair rows by the entropic plan: the joint distribution of start and end of a Schroedinger bridge.

    argmin over plans P of E_P|x0 - x1|^2 + 4 epsilon KL(P || rho0 x rho1)    (distances in scaled units)

    (Peyre & Cuturi 2019, "Computational optimal transport", arXiv 1803.00567, equation (4.2)). With a linear I and
    gamma^2 = 2 epsilon t (1 - t), the interpolant of these pairs has the marginals of the Schroedinger bridge of
    diffusion epsilon, and b + epsilon s is its drift. The plan between two batches is found by Sinkhorn's algorithm in
    logarithms, and pairs are drawn from it.

    Parameters
    ----------
    epsilon : float or None, default=None
        The diffusion, in squared scaled units per unit of time. None takes gamma_scale / 2 from an interpolant with the
        brownian gamma.
    batch_size, passes, condition_weight
        As in `Optimal`.
    draws : int, default=4
        Number of partners that are drawn for each row of the base.
    method, unbalanced
        As in `Optimal`; "auto" pairs in batches.

    Examples
    --------
    >>> import torch
    >>> from sklearn_si.couplings import Entropic
    >>> x0, x1 = torch.zeros(3, 2), torch.ones(3, 2)
    >>> start, end, _ = Entropic(epsilon=1.0)(x0, x1, None, torch.Generator())
    >>> start.shape, end.shape
    (torch.Size([12, 2]), torch.Size([12, 2]))
    """

    def __init__(
        self,
        epsilon: float | None = None,
        batch_size: int = 1024,
        passes: int = 4,
        condition_weight: float = 10.0,
        draws: int = 4,
        method: str = "auto",
        unbalanced: float | None = None,
    ) -> None:
        self.epsilon, self.batch_size, self.passes = epsilon, batch_size, passes
        self.condition_weight, self.draws = condition_weight, draws
        self.method, self.unbalanced = method, unbalanced

    pooled = True

    @property
    def changes_marginals(self) -> bool:  # type: ignore[override]
        """Whether mass may appear and vanish."""
        return self.unbalanced is not None

    @property
    def needs_all_rows(self) -> bool:  # type: ignore[override]
        """Whether one plan of all rows was asked for."""
        return self.method == "semidiscrete" or self.unbalanced is not None

    def planned(self, rows: Samples, generator: torch.Generator, seconds: float | None = None) -> Coupling:
        """Pairs by one plan of all rows, where that is asked for."""
        if not self.needs_all_rows:
            return _in_batches(self, "method='auto' of Entropic")
        pairs = _planned(self, rows, generator, seconds)
        pairs.told = "one entropic plan of all rows"
        return pairs

    def check(self) -> None:
        """Raise a ValueError if the parameters are invalid."""
        _check_counts(self, batch_size=2, passes=1, draws=1)
        _check_method(self)
        if self.epsilon is not None and not self.epsilon > 0:
            raise ValueError(f"Got Entropic(epsilon={self.epsilon!r}), but expected None or a number above 0.")

    def tied_to(self, interpolant: Interpolant) -> "Entropic":
        """The coupling with the epsilon of the interpolant, gamma^2 = 2 epsilon t (1 - t)."""
        if self.epsilon is not None:
            return self
        middle = torch.tensor([0.25, 0.5], dtype=torch.float64)
        a = interpolant.gamma(middle) ** 2 / (middle * (1 - middle))
        if not interpolant.has_noise or not bool(torch.isclose(a[0], a[1])):
            raise ValueError(
                "coupling='entropic' takes its epsilon from the brownian gamma, gamma^2 = gamma_scale t (1 - t): use "
                "gamma='brownian' (InterpolantDiffusion's default), or pass couplings.Entropic(epsilon)."
            )
        tied = copy.copy(self)
        tied.epsilon = float(a[0]) / 2
        return tied

    def __call__(self, x0: Tensor, x1: Tensor, condition: Tensor | None, generator: torch.Generator) -> Pairs:
        """The pairs that are drawn from the plan, `draws` for each row of x0."""
        if self.epsilon is None:
            raise ValueError(
                "Entropic() was called with epsilon=None: pass a number above 0, or use coupling='entropic' in an "
                "estimator, which takes it from gamma."
            )
        penalty = _condition_cost(x0, x1, condition, self.condition_weight, generator)
        plan = entropic_plan(x0, x1, self.epsilon, penalty)
        rows = torch.multinomial(plan, self.draws, replacement=True, generator=generator).flatten()
        return x0.repeat_interleave(self.draws, 0), x1[rows], None if condition is None else condition[rows]


def _check_counts(coupling: Optimal | Entropic, **least: int) -> None:
    for name, smallest in least.items():
        value = vars(coupling)[name]
        if not isinstance(value, numbers.Integral) or value < smallest:
            raise ValueError(
                f"Got {name}={value!r} in {type(coupling).__name__}, but expected an integer of at least {smallest}."
            )


def _check_method(coupling: Optimal | Entropic) -> None:
    name = type(coupling).__name__
    if coupling.method not in _METHODS:
        raise ValueError(f"Got method={coupling.method!r} in {name}, but expected one of {list(_METHODS)}.")
    rho = coupling.unbalanced
    if rho is None:
        return
    if isinstance(rho, bool) or not isinstance(rho, numbers.Real) or not 0 < rho < math.inf:
        raise ValueError(f"Got unbalanced={rho!r} in {name}, but expected None or a finite number above 0.")
    if coupling.method == "batches":
        raise ValueError(
            f"Got unbalanced={rho:g} with method='batches' in {name}, but the masses of rows follow from the potential "
            "of all: use method='semidiscrete'."
        )


def _why_batches(coupling: Optimal, rows: Samples) -> str:
    """Why rows are paired in batches; nothing where one plan of all is made."""
    if coupling.needs_all_rows:
        return ""
    if coupling.method == "batches":
        return "as method='batches' asks"
    n, m, d = len(rows.x0), len(rows.x1), rows.x1.shape[1]
    if d > _MOST_COLUMNS:
        return f"{d} columns, and {_MOST_COLUMNS} are the most for one plan of all rows"
    if min(n, m) < _FEWEST_ROWS:
        return f"{min(n, m)} training rows, and {_FEWEST_ROWS} are the fewest for one plan of all rows"
    return "more rows than one plan takes" if n * m > _MOST_SCORES else ""


def _in_batches(coupling: "Optimal | Entropic", why: str) -> "Optimal | Entropic":
    """The coupling, which says why it pairs in batches."""
    found = copy.copy(coupling)
    found.told = f"batches of {coupling.batch_size} rows ({why})"
    return found


def _planned(
    coupling: Optimal | Entropic, rows: Samples, generator: torch.Generator, seconds: float | None
) -> SemidiscretePairs:
    scale = 1.0
    if rows.condition is not None:
        spread = rows.condition.double().var(0).sum().clamp(min=1e-12)
        distance = (rows.x0.double().var(0).sum() + rows.x1.double().var(0).sum()) / 2
        scale = float((coupling.condition_weight * distance / spread).sqrt())
    x0 = extended(rows.x0, drawn_conditions(rows, len(rows.x0), generator), scale)
    x1 = extended(rows.x1, rows.condition, scale)
    epsilon, draws = (coupling.epsilon, coupling.draws) if isinstance(coupling, Entropic) else (0.0, 1)
    plan = semidiscrete_plan(
        x0, x1, epsilon or 0.0, weights=(rows.weight0, rows.weight1), unbalanced=coupling.unbalanced,
        seconds=seconds, generator=generator,
    )  # fmt: skip
    return SemidiscretePairs(plan, rows, scale, draws)


def _condition_cost(
    x0: Tensor, x1: Tensor, condition: Tensor | None, weight: float, generator: torch.Generator
) -> Tensor | None:
    """The cost of pairing rows of different conditions, of shape (n, m), with random conditions for x0; or None."""
    if condition is None:
        return None
    given = condition[torch.randint(len(condition), (len(x0),), generator=generator, device=condition.device)]
    if len(x0) == len(condition):  # each condition is then used once
        given = condition[torch.randperm(len(condition), generator=generator, device=condition.device)]
    penalty = torch.cdist(given.double(), condition.double()).square()
    distance = (x0.double().var(0).sum() + x1.double().var(0).sum()) if len(x0) > 1 else torch.ones(())
    return weight * distance / penalty.mean().clamp(min=1e-12) * penalty
