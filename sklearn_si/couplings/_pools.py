"""Pools of pairs of a semidiscrete plan, whose marginals are those of the samples."""

import torch
from torch import Tensor

from ._base import Coupling, Pairs, Samples
from ._plans import optimal_pairs
from ._semidiscrete import SemidiscretePlan

# Rows that are paired exactly at a time, of those whose choice was taken.
_REPAIRED = 1024
# Largest number of rows of a pool.
_MOST_PAIRS = 2**16


class SemidiscretePairs(Coupling):
    """Pairs of the rows of two samples by a plan between all of them.

    Parameters
    ----------
    plan : SemidiscretePlan
        Of extended rows, with the scaled condition beside them where there is one.
    rows : Samples
        The rows between which it is.
    scale : float, default=1.0
        What conditions are multiplied by in extended rows.
    draws : int, default=1
        Partners of a row of an entropic plan.
    """

    pooled = True
    has_rows = True
    passes = 4

    def __init__(self, plan: SemidiscretePlan, rows: Samples, scale: float = 1.0, draws: int = 1) -> None:
        self.plan, self.rows, self.scale, self.draws = plan, rows, scale, draws
        self.changes_marginals = plan.unbalanced is not None
        weighted = rows.weight0 is not None or rows.weight1 is not None
        self.fixed = not (plan.epsilon or self.changes_marginals or weighted or rows.condition is not None)
        # a condition of the base is drawn anew for each pair: here it is the mean one
        self.base_weight = product(self.start_masses(rows.x0), rows.weight0)

    def make_pool(self, generator: torch.Generator) -> Pairs:
        """Fresh pairs: rows of the base as often as they weigh, and their partners."""
        samples, plan = self.rows, self.plan
        n = self.n_pairs
        rows0 = spread(len(samples.x0), self.base_weight, n, generator)
        x0 = extended(samples.x0[rows0], drawn_conditions(samples, n, generator), self.scale)
        if plan.epsilon:
            rows1 = plan.partners(x0, generator, self.draws).flatten()
            rows0 = rows0.repeat_interleave(self.draws)
        else:
            rows1 = by_masses(x0, plan, self.target_weight, generator)
        condition = None if samples.condition is None else samples.condition[rows1]
        return samples.x0[rows0], samples.x1[rows1], condition

    def missed_share(self) -> float:
        """Total variation between the rows of the target that rows of the base choose, and the masses of these."""
        rows, plan = self.rows, self.plan
        x0 = extended(rows.x0, drawn_conditions(rows, len(rows.x0), torch.Generator(rows.x0.device)), self.scale)
        chosen = torch.bincount(plan.partners(x0)[:, 0], rows.weight0, minlength=len(rows.x1)).double()
        return float((chosen / chosen.sum() - plan.log_masses.double().exp()).abs().sum() / 2)

    @property
    def target_weight(self) -> Tensor | None:
        """The masses of the rows of the target in the plan."""
        return product(self.plan.target_masses(), self.rows.weight1)

    @property
    def n_pairs(self) -> int:
        """Rows of a pool, before more partners than one are drawn."""
        return min(max(len(self.rows.x0), len(self.rows.x1)), _MOST_PAIRS)

    def start_masses(self, x0: Tensor) -> Tensor | None:
        """The factors of the masses of rows of the base, under the mean condition; None where marginals are kept."""
        rows = self.rows
        mean = None if rows.condition is None else rows.condition.mean(0).expand(len(x0), -1)
        return self.plan.base_masses(extended(x0, mean, self.scale))

    def held_out(self, rows: Samples, generator: torch.Generator) -> "HeldOutPairs":
        """Pairs of validation rows with the rows of the other sample in training."""
        return HeldOutPairs(self, rows, generator)


class HeldOutPairs(Coupling):
    """Pairs of validation rows of either sample with training rows of the other, by the potentials of these.

    Validation rows choose beside training rows of their own sample, so that rows of the other sample are partners as
    often as in training.

    Parameters
    ----------
    trained : SemidiscretePairs
    rows : Samples
        The validation rows.
    generator : torch.Generator
        Of conditions of the base.
    """

    pooled = True
    has_rows = True
    passes = 1

    def __init__(self, trained: SemidiscretePairs, rows: Samples, generator: torch.Generator) -> None:
        self.trained, self.rows = trained, rows
        samples, plan = trained.rows, trained.plan
        conditions = drawn_conditions(samples, len(samples.x0), generator)
        self.reverse = plan.reverse(extended(samples.x0, conditions, trained.scale), samples.weight0)

    def make_pool(self, generator: torch.Generator) -> Pairs:
        """Half of the pairs from rows of the base, half from those of the target."""
        rows, trained = self.rows, self.trained
        n, samples, scale = max(len(rows.x0), len(rows.x1)), trained.rows, trained.scale
        x0 = extended(rows.x0, drawn_conditions(rows, len(rows.x0), generator), scale)
        x1 = extended(rows.x1, rows.condition, scale)
        rows0 = spread(len(x0), product(trained.plan.base_masses(x0), rows.weight0), n, generator)
        rows1 = spread(len(x1), product(self.reverse.base_masses(x1), rows.weight1), n, generator)
        weights = trained.base_weight, trained.target_weight
        many0, many1 = (
            spread(len(x), w, trained.n_pairs, generator) for x, w in zip(samples[:2], weights, strict=True)
        )
        beside0 = extended(samples.x0[many0], drawn_conditions(samples, len(many0), generator), scale)
        beside1 = extended(samples.x1, samples.condition, scale)[many1]
        to1 = _chosen_beside(trained.plan, x0[rows0], beside0, weights[1], generator)
        to0 = _chosen_beside(self.reverse, x1[rows1], beside1, weights[0], generator)
        condition = None
        if rows.condition is not None and samples.condition is not None:
            condition = torch.cat([samples.condition[to1], rows.condition[rows1]])
        ends = torch.cat([rows.x0[rows0], samples.x0[to0]]), torch.cat([samples.x1[to1], rows.x1[rows1]])
        return *ends, condition


def _chosen_beside(
    plan: SemidiscretePlan, x: Tensor, beside: Tensor, masses: Tensor | None, generator: torch.Generator
) -> Tensor:
    """Partners of some rows, which choose together with others."""
    if plan.epsilon:
        return plan.partners(x, generator)[:, 0]
    return by_masses(torch.cat([x, beside]), plan, masses, generator)[: len(x)]


def by_masses(x0: Tensor, plan: SemidiscretePlan, masses: Tensor | None, generator: torch.Generator) -> Tensor:
    """A partner of each row, such that rows of the target are partners as often as their masses say."""
    m = len(plan.x1)
    quota = torch.bincount(spread(m, masses, len(x0), generator), minlength=m)
    return settled(x0, plan, plan.partners(x0)[:, 0], quota, generator)


def product(mass: Tensor | None, weight: Tensor | None) -> Tensor | None:
    """The product of masses and weights, where None is one."""
    if mass is None or weight is None:
        return weight if mass is None else mass
    return mass * weight.to(mass)


def drawn_conditions(rows: Samples, n: int, generator: torch.Generator) -> Tensor | None:
    """Conditions of rows of the base, which are independent of these."""
    if rows.condition is None:
        return None
    return rows.condition[spread(len(rows.condition), rows.weight1, n, generator)]


def extended(x: Tensor, condition: Tensor | None, scale: float) -> Tensor:
    """Rows with their scaled conditions, so that squared distances are those of both."""
    return x if condition is None else torch.cat([x, scale * condition.to(x)], 1)


def spread(n: int, weight: Tensor | None, size: int, generator: torch.Generator) -> Tensor:
    """Row numbers in random order: each as often as its share of the size says, rounded up or down at random."""
    device = generator.device
    reached = (
        torch.arange(1, n + 1, dtype=torch.float64, device=device) if weight is None else weight.double().cumsum(0)
    )
    start = torch.rand(1, generator=generator, dtype=torch.float64, device=device)
    places = (torch.arange(size, dtype=torch.float64, device=device) + start) / size * reached[-1]
    if weight is None and size < n:
        return torch.randperm(n, generator=generator, device=device)[:size]
    rows = torch.searchsorted(reached, places, right=True).clamp(max=n - 1)
    return rows[torch.randperm(size, generator=generator, device=device)]


def settled(x0: Tensor, plan: SemidiscretePlan, chosen: Tensor, quota: Tensor, generator: torch.Generator) -> Tensor:
    """Partners such that each row of the target is one as often as its quota says.

    Rows that chose a row of the target which others took before, in random order, are paired by the optimal plan with
    the rows that are left, batch by batch.

    Parameters
    ----------
    x0 : Tensor of shape (n, d)
    plan : SemidiscretePlan
    chosen : Tensor of shape (n,)
        The row of the target that each row chooses.
    quota : Tensor of shape (m,)
        How often each row of the target is to be one's partner, n in all.
    generator : torch.Generator
    """
    order = torch.randperm(len(chosen), generator=generator, device=chosen.device)
    by_partner = order[torch.sort(chosen[order], stable=True).indices]
    counts = torch.bincount(chosen, minlength=len(quota))
    first = (counts.cumsum(0) - counts)[chosen[by_partner]]
    place = torch.arange(len(chosen), device=chosen.device) - first
    late = by_partner[place >= quota[chosen[by_partner]]]
    late = late[torch.randperm(len(late), generator=generator, device=late.device)]
    left = torch.arange(len(quota), device=quota.device).repeat_interleave((quota - counts).clamp(min=0))
    left = left[torch.randperm(len(left), generator=generator, device=left.device)]
    result = chosen.clone()
    for rows, partners in zip(late.split(_REPAIRED), left.split(_REPAIRED), strict=True):
        pairs = torch.as_tensor(optimal_pairs(x0[rows], plan.x1[partners]), device=partners.device)
        result[rows] = partners[pairs]
    return result
