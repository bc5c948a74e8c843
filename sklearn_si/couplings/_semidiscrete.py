"""The plan between any base and a finite sample: one dual potential over all rows of the sample."""

import dataclasses
import math
import time
import warnings

import torch
from torch import Tensor

from .._utils.callers import users_level
from ._plans import gaussian_matrix, usual

# Numbers in the scores of a batch: so many rows are scored at once that these stay near the cache.
_CELLS = 2**22
# Rows of a batch at the most and at the least.
_MOST_ROWS = 1024
_FEWEST_ROWS = 16
# Scores by which the number of passes over the longer sample is chosen, from the fewest to the most.
_SCORES = 2.4e9
_FEWEST_PASSES = 4
_MOST_PASSES = 64
# Batches of a pass over a short sample: prices are then seldom out of date.
_BATCHES = 64
# First and last step of the height of a row when it is chosen once, in units of the gap between the two best scores.
_FIRST_STEP = 1.0
_LAST_STEP = 0.15
# Share of outliers beside which the steps are those of most rows: without them a map that is far from linear was
# learned better by longer ones (an error of pairs of .16 in place of .21).
_MANY_OUTLIERS = 0.005
# How often the last step is then found anew.
_LOOKS = 8
# Rows from which the gap is estimated.
_ROWS_OF_A_GAP = 256
# Share of the ascent at its end over which potentials are averaged.
_AVERAGED = 0.25
# Share of the mass of the base below which a plan is said to transport next to nothing; above its inverse it is none.
_LEAST_KEPT = 1e-3
# Largest exponent of a mass.
_MOST = 30.0


@dataclasses.dataclass(eq=False)
class SemidiscretePlan:
    """The optimal plan from any distribution to a finite sample, as a potential of its rows.

    max over g of sum_i a_i min_j (|x0_i - x1_j|^2 - g_j) + sum_j b_j g_j

    (arXiv 2509.25519; Genevay, Cuturi, Peyre & Bach 2016, arXiv 1605.08527). A row x0 is paired with the row of the
    largest score <x0, x1_j> - h_j, where h_j = (|x1_j|^2 - g_j) / 2; with an epsilon, with a row drawn by the weights
    b_j exp((g_j - |x0 - x1_j|^2) / 4 epsilon). With a penalty on the marginals the masses of the rows are
    a_i exp(-f_i / rho) and b_j exp(-g_j / rho).

    Parameters
    ----------
    x1 : Tensor of shape (m, d)
        Rows of the target, from which `centre1` was taken.
    heights : Tensor of shape (m,)
        h_j, of rows of base and target without their centres.
    log_masses : Tensor of shape (m,)
        log b_j.
    centre0, centre1 : Tensor of shape (d,)
        What is taken from the rows of base and target; the same where the marginals are not kept.
    epsilon : float, default=0.0
        The diffusion of the entropic plan; 0 is the optimal plan.
    unbalanced : float, default=None
        The penalty rho, in squared units of the rows; None keeps the marginals.
    """

    x1: Tensor
    heights: Tensor
    log_masses: Tensor
    centre0: Tensor
    centre1: Tensor
    epsilon: float = 0.0
    unbalanced: float | None = None

    @property
    def potential(self) -> Tensor:
        """The dual potential g of the rows of the target, in squared units."""
        return self.x1.square().sum(1) - 2 * self.heights - 2 * self.x1 @ (self.centre0 - self.centre1)

    def logits(self, x0: Tensor) -> Tensor:
        """Scores of all rows of the target for some rows of the base; of an entropic plan, log-weights of partners."""
        x0 = x0 - self.centre0
        if not self.epsilon:
            return torch.addmm(-self.heights, x0, self.x1.T)
        offset = self.log_masses - self.heights / (2 * self.epsilon)
        return torch.addmm(offset, x0, self.x1.T, alpha=1 / (2 * self.epsilon))

    def conjugate(self, x0: Tensor) -> Tensor:
        """The potential f of rows of the base: the (soft) minimum over the target of |x0 - x1_j|^2 - g_j."""
        return torch.cat([self.soft_minimum(some, self.logits(some)) for some in x0.split(self.rows_at_once)])

    def soft_minimum(self, x0: Tensor, logits: Tensor) -> Tensor:
        """The potential f of rows from their logits."""
        apart, x0 = self.centre0 - self.centre1, x0 - self.centre0
        return x0.square().sum(1) + 2 * x0 @ apart + apart.square().sum() - 2 * self.best(logits)

    def best(self, logits: Tensor) -> Tensor:
        """The (soft) maximum of the scores of each row."""
        return 2 * self.epsilon * torch.logsumexp(logits, 1) if self.epsilon else logits.amax(1)

    @property
    def rows_at_once(self) -> int:
        """Rows of the base that are scored together."""
        return max(_FEWEST_ROWS, min(_MOST_ROWS, _CELLS // len(self.x1)))

    def base_masses(self, x0: Tensor) -> Tensor | None:
        """The factors exp(-f / rho) of the masses of rows of the base; None where the marginals are kept."""
        return None if self.unbalanced is None else _factor(self.conjugate(x0), self.unbalanced)

    def target_masses(self) -> Tensor | None:
        """The factors exp(-g / rho) of the masses of rows of the target; None where the marginals are kept."""
        return None if self.unbalanced is None else _factor(self.potential, self.unbalanced)

    def partners(self, x0: Tensor, generator: torch.Generator | None = None, draws: int = 1) -> Tensor:
        """Numbers of partners of rows of the base, of shape (n, draws): the best ones, or draws of an entropic plan."""
        found = []
        for some in x0.split(self.rows_at_once):
            logits = self.logits(some)
            if self.epsilon:
                found.append(torch.multinomial(torch.softmax(logits, 1), draws, replacement=True, generator=generator))
            else:
                found.append(logits.argmax(1)[:, None].expand(-1, draws))
        return torch.cat(found)

    def reverse(self, x0: Tensor, weight: Tensor | None = None) -> "SemidiscretePlan":
        """The plan from any distribution to rows of the base, by their own potential."""
        rows = x0 - self.centre0
        best = torch.cat([self.best(self.logits(some)) for some in x0.split(self.rows_at_once)])
        masses = _masses(weight, x0).log()
        return dataclasses.replace(
            self, x1=rows, heights=best, log_masses=masses, centre0=self.centre1, centre1=self.centre0
        )

    def dual(self, x0: Tensor) -> float:
        """The value of the dual at this potential, for equal masses of rows of the base: at most the cost."""
        masses = self.log_masses.exp()
        value = self.conjugate(x0).double().mean() + (masses * self.potential).double().sum()
        return float(value)


def semidiscrete_plan(
    x0: Tensor,
    x1: Tensor,
    epsilon: float = 0.0,
    *,
    weights: tuple[Tensor | None, Tensor | None] = (None, None),
    unbalanced: float | None = None,
    passes: int | None = None,
    seconds: float | None = None,
    generator: torch.Generator | None = None,
) -> SemidiscretePlan:
    """Learn the potential of a finite sample by averaged stochastic ascent.

    h_j <- h_j + step (mass of the rows of a batch that choose x1_j - what it should be)

    (arXiv 2509.25519; the gradient of the semi-dual, arXiv 1605.08527). The first potential is that of two normal
    distributions with the moments of the samples; with a penalty on the marginals, the squared distance of each row
    from the nearest row of the base. Memory is linear in the rows.

    Parameters
    ----------
    x0 : Tensor of shape (n, d)
        Rows of the base, in scaled units when called in training.
    x1 : Tensor of shape (m, d)
        Rows of the target, in the same units.
    epsilon : float, default=0.0
        The diffusion of an entropic plan, in the same units squared; 0 is the optimal plan.
    weights : tuple of (Tensor or None), default=(None, None)
        Masses of the rows of both samples; None where all are the same.
    unbalanced : float, default=None
        The penalty rho of the Kullback-Leibler divergences of the marginals, in the same units squared, so that rows
        that are farther than about its square root from all others lose their mass. None keeps the marginals.
    passes : int, default=None
        Passes over the longer sample; None takes from 4 (25,000 rows of both) to 64 (6,000 rows).
    seconds : float, default=None
        A limit on the time.
    generator : torch.Generator, default=None
        Of the order of the rows.

    Returns
    -------
    plan : SemidiscretePlan

    Examples
    --------
    >>> import torch
    >>> from sklearn_si.couplings import semidiscrete_plan
    >>> x0, x1 = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[7.0], [5.0], [6.0]])
    >>> semidiscrete_plan(x0, x1).partners(x0)[:, 0]
    tensor([1, 2, 0])
    """
    masses = _masses(weights[1], x1)
    # a plan that keeps the marginals does not change when either sample is shifted
    centre1 = x1.mean(0)
    centre0 = x0.mean(0) if unbalanced is None else centre1
    rows = x1 - centre1
    log_masses = masses.clamp(min=torch.finfo(masses.dtype).tiny).log()
    plan = SemidiscretePlan(rows, torch.zeros_like(masses), log_masses, centre0, centre1, epsilon, unbalanced)
    plan.heights = _first_heights(plan, x0, weights)
    if len(x1) > 1:
        _Ascent(plan, x0, weights[0], masses, generator or torch.default_generator).run(passes, seconds)
    if unbalanced is not None:
        _check_masses(plan, x0, weights[0])
    return plan


def _check_masses(plan: SemidiscretePlan, x0: Tensor, weight: Tensor | None) -> None:
    """Warn where the penalty is so small that next to no mass is transported, or that no plan was found."""
    factors = plan.base_masses(x0)
    assert factors is not None
    kept = float(factors @ _masses(weight, x0))
    if not _LEAST_KEPT < kept < 1 / _LEAST_KEPT:
        what = "keeps next to no mass" if kept < 1 else "found no plan"
        warnings.warn(
            f"Unbalanced transport {what}: nearly all rows are further from the other sample than the square root of "
            f"unbalanced={plan.unbalanced:g}, in scaled units, and the pairs mean little. Raise `unbalanced`, or set "
            "it to None to keep all mass.",
            UserWarning,
            stacklevel=users_level(),
        )


def _masses(weight: Tensor | None, x: Tensor) -> Tensor:
    if weight is None:
        return torch.full((len(x),), 1 / len(x), dtype=x.dtype, device=x.device)
    return (weight / weight.sum()).to(x)


def _first_heights(plan: SemidiscretePlan, x0: Tensor, weights: tuple[Tensor | None, Tensor | None]) -> Tensor:
    """The potential of two normal distributions; that of the nearest rows where the marginals are not kept."""
    x1 = plan.x1
    if plan.unbalanced is not None:
        nearest = [torch.cdist(some, x0 - plan.centre0).square().amin(1) for some in x1.split(plan.rows_at_once)]
        return (x1.square().sum(1) - torch.cat(nearest)) / 2
    # x1 . A x1 / 2 with the optimal map A from the target to the base
    matrix = gaussian_matrix(x1, x0, (weights[1], weights[0])).to(x1)
    mean1, mean0 = _mean(x1, weights[1]), _mean(x0, weights[0]) - plan.centre0
    centred = x1 - mean1
    return 0.5 * ((centred @ matrix) * centred).sum(1) + x1 @ mean0


def _mean(x: Tensor, weight: Tensor | None) -> Tensor:
    return x.mean(0) if weight is None else (weight / weight.sum()).to(x) @ x


def _factor(potential: Tensor, unbalanced: float) -> Tensor:
    return torch.exp((-potential / unbalanced).clamp(-_MOST, _MOST))


def _share_of_outliers(x: Tensor) -> float:
    return 1 - float(usual(x.detach().cpu().double().numpy()).mean())


class _Ascent:
    """Steps of the potential by batches of the base."""

    def __init__(
        self, plan: SemidiscretePlan, x0: Tensor, weight: Tensor | None, masses: Tensor, generator: torch.Generator
    ) -> None:
        self.plan, self.x0, self.weight, self.masses, self.generator = plan, x0, weight, masses, generator
        self.n = max(len(x0), len(plan.x1))
        self.has_outliers = any(_share_of_outliers(x) > _MANY_OUTLIERS for x in (x0, plan.x1))
        self.size = max(1, min(plan.rows_at_once, len(x0) // _BATCHES))

    def batches(self, passes: int | None) -> int:
        """Batches of some passes."""
        if passes is None:
            affordable = _SCORES / (self.n * len(self.plan.x1))
            passes = round(min(max(affordable, _FEWEST_PASSES), _MOST_PASSES))
        return max(1, passes * self.n // self.size)

    def rows(self) -> Tensor:
        """Numbers of the rows of one pass over the base."""
        n, device = len(self.x0), self.x0.device
        if self.weight is None:
            return torch.randperm(n, generator=self.generator, device=device)
        return torch.multinomial(self.weight, n, replacement=True, generator=self.generator)

    def run(self, passes: int | None, seconds: float | None) -> None:
        """Learn the heights in place."""
        steps, began, rows = self.batches(passes), time.perf_counter(), self.rows()[:0]
        mean, counted = torch.zeros_like(self.plan.heights), 0
        first, last = self._steps()
        for k in range(steps):
            if self.has_outliers and k % max(1, steps // _LOOKS) == 0:
                last = self._steps()[1]
            if len(rows) < self.size:
                rows = self.rows()
            some, rows = rows[: self.size], rows[self.size :]
            elapsed = 0.0 if seconds is None else (time.perf_counter() - began) / seconds
            progress = max(k / steps, elapsed)
            self._step(self.x0[some], first * (last / first) ** min(progress, 1.0))
            if progress >= 1 - _AVERAGED:
                mean, counted = mean + self.plan.heights, counted + 1
            if elapsed >= 1:
                break
        if counted:
            self.plan.heights = mean / counted

    def _steps(self) -> tuple[float, float]:
        """The first step and the last one, by the distances of the two best scores of some rows.

        Both are as long as their mean says. Outliers, whose scores are far apart, raise it, and have far to go: beside
        them the last step is that of most rows, by the median, which falls on the way. Steps are at least in units of
        the temperature of an entropic plan.
        """
        plan, some = self.plan, self.x0[:_ROWS_OF_A_GAP]
        best = torch.addmm(-plan.heights, some - plan.centre0, plan.x1.T).topk(2, 1).values
        gaps, least = best[:, 0] - best[:, 1], max(plan.epsilon / 2, 1e-12)
        first = last = float(gaps.mean())
        if self.has_outliers:  # the mean of an exponential distribution is its median over log 2
            last = float(gaps.median()) / math.log(2)
        return _FIRST_STEP * max(first, least), _LAST_STEP * max(last, least)

    def _step(self, x0: Tensor, step: float) -> None:
        plan = self.plan
        logits = plan.logits(x0)
        wanted, chosen = len(x0) * self.masses, self._chosen(logits, x0)
        if plan.unbalanced is not None:
            wanted = wanted * _factor(plan.potential, plan.unbalanced)
            # f + c and g - c have the same scores: c makes the masses of both sides the same
            balance = torch.log((chosen.sum() / wanted.sum()).clamp(1e-12, 1e12)) / 2
            plan.heights = plan.heights + plan.unbalanced * balance / 2
            chosen, wanted = chosen * torch.exp(-balance), wanted * torch.exp(balance)
        plan.heights = plan.heights + step * (chosen - wanted)

    def _chosen(self, logits: Tensor, x0: Tensor) -> Tensor:
        """The mass by which the rows of a batch choose each row of the target."""
        plan = self.plan
        mass = None
        if plan.unbalanced is not None:
            mass = _factor(plan.soft_minimum(x0, logits), plan.unbalanced)
        if plan.epsilon:
            weights = torch.softmax(logits, 1)
            return weights.sum(0) if mass is None else mass @ weights
        return torch.bincount(logits.argmax(1), mass, minlength=len(plan.x1)).to(x0.dtype)
