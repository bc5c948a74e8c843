"""The one training loop: gradient steps in rounds, validation, the best weights kept."""

import dataclasses
import math
import time
import warnings
from collections.abc import Callable

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from ._objectives import LOSSES, draw_times
from ._tensors import normal
from .exceptions import FitDivergedError
from .networks import drop_condition

# Gradient steps of one validation round, and the steps from which it is twice and four times as long: a validation
# costs as much as some twenty steps.
ROUND, _LONGER_ROUNDS = 100, (2000, 6000)
_WARM_UP = 200
# Growth of the gap between training and held-out rows, in nats, that is overfitting.
_WIDER_GAP = 0.1
# Weights are averaged over about 2 % of the steps taken so far (at least 10 steps):
# the average is what is validated and kept.
_AVERAGING = 0.02


@dataclasses.dataclass
class Settings:
    """Parameters of one training run, named as in the estimators."""

    batch_size: int
    learning_rate_init: float
    max_iter: int
    max_time: float | None
    tol: float
    n_iter_no_change: float
    early_stopping: bool
    verbose: int
    time_law: str


@dataclasses.dataclass
class History:
    """What a run leaves behind."""

    n_iter: int = 0
    loss_curve: list = dataclasses.field(default_factory=list)
    validation_scores: list = dataclasses.field(default_factory=list)
    best_score: float = -math.inf
    interrupted: bool = False
    converged: bool = False
    overfitted: bool = False
    best_round: int = 0  # from 1; 0 is the start


class Sampler:
    """Draws training batches (x0, x1, z, condition) from rows in scaled units.

    Parameters
    ----------
    x0 : Tensor or None
        Rows of the base; None for the standard normal law.
    x1 : Tensor
        Rows of the target.
    condition : Tensor or None
        One row for each row of x1.
    coupling : callable
        As in `sklearn_si.couplings`.
    latent_noise : bool
        Whether z is drawn.
    dropout : float, default=0.0
        Share of the rows whose condition is dropped.
    """

    def __init__(self, x0, x1, condition, coupling, latent_noise, dropout=0.0):
        self.x0, self.x1, self.condition = x0, x1, condition
        self.coupling, self.latent_noise, self.dropout = coupling, latent_noise, dropout
        self._orders = {}

    def _slice(self, name, n, batch, generator):
        """The next row numbers of a permuted pass; small samples are drawn with replacement."""
        device = self.x1.device
        if n < 2 * batch:
            return torch.randint(n, (batch,), generator=generator, device=device)
        order, start = self._orders.get(name, (None, n))
        if start + batch > n:
            order, start = torch.randperm(n, generator=generator, device=device), 0
        self._orders[name] = order, start + batch
        return order[start : start + batch]

    def draw(self, batch, generator):
        """One batch, paired by the coupling."""
        rows = self._slice("target", len(self.x1), batch, generator)
        x1, condition = self.x1[rows], None if self.condition is None else self.condition[rows]
        if self.x0 is None:
            x0 = normal(x1.shape, generator, like=x1)
        elif getattr(self.coupling, "row_by_row", False):
            x0 = self.x0[rows]
        else:
            x0 = self.x0[self._slice("base", len(self.x0), batch, generator)]
        x0, x1, condition = self.coupling(x0, x1, condition, generator)
        z = normal(x1.shape, generator, like=x1) if self.latent_noise else None
        if self.dropout > 0:
            kept = torch.rand((batch, 1), generator=generator, device=x1.device) >= self.dropout
            condition = torch.where(kept, condition, drop_condition(condition))
        return x0, x1, z, condition


def _antithetic(interpolant, t, x0, x1, z, condition):
    """Every point twice, with the noise of opposite sign, so that singular factors cancel."""
    t, x1 = torch.cat([t, t]), torch.cat([x1, x1])
    condition = None if condition is None else torch.cat([condition, condition])
    if interpolant.kind == "one-sided":
        return t, torch.cat([x0, -x0]), x1, None, condition
    return t, torch.cat([x0, x0]), x1, torch.cat([z, -z]), condition


def loss_of(networks: nn.ModuleDict, interpolant, law: str, sampler: Sampler, batch: int, generator) -> Tensor:
    """The sum of the losses of all learned fields on one fresh batch of `batch` points."""
    singular = interpolant.singular_target or "score" in networks
    n = max(1, batch // 2) if singular else batch
    points = (draw_times(law, n, generator, sampler.x1.device), *sampler.draw(n, generator))
    if singular:
        points = _antithetic(interpolant, *points)
    return sum(LOSSES[name](network, interpolant, *points) for name, network in networks.items())


def _rate(step: int, elapsed: float, settings: Settings) -> float:
    """Warm-up, then a cosine to zero at the end of the steps or of the time, whichever is nearer."""
    progress = step / settings.max_iter
    warm_up = (step + 1) / min(_WARM_UP, max(1, settings.max_iter // 10))
    if settings.max_time is not None:
        progress = max(progress, elapsed / settings.max_time)
        warm_up = max(warm_up, 10 * elapsed / settings.max_time)
    warm_up = min(1.0, warm_up)
    return warm_up * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


class _Average:
    """A running mean of weights over a window that grows with the steps taken."""

    def __init__(self, parameters):
        self.parameters = parameters
        self.means = [p.detach().clone() for p in parameters]
        self.steps = 0

    def update(self):
        """Take the weights of one more step into the mean."""
        self.steps += 1
        weight = 1 / min(self.steps, 10 + _AVERAGING * self.steps)
        torch._foreach_lerp_(self.means, [p.detach() for p in self.parameters], weight)

    def score(self, validate):
        """The score of the means; -inf for NaN, which compares with nothing."""
        self.swap()
        try:
            score = float(validate())
        finally:
            self.swap()
        return -math.inf if math.isnan(score) else score

    def score_of(self, weights, validate):
        """The score of other weights."""
        own, self.means = self.means, weights
        try:
            return self.score(validate)
        finally:
            self.means = own

    def swap(self):
        """Exchange the means and the live weights; the second call undoes the first."""
        for p, m in zip(self.parameters, self.means, strict=True):
            p.data, m.data = m.data, p.data


class _Best:
    """The weights and buffers of the highest score."""

    def __init__(self, networks):
        self.networks, self.parameters = networks, list(networks.parameters())
        self.score, self.weights, self.buffers = -math.inf, None, None

    def offer(self, score, weights):
        """Keep a copy if the score is the highest."""
        if score > self.score:
            self.score, self.weights = score, [w.detach().clone() for w in weights]
            self.buffers = [b.clone() for b in self.networks.buffers()]

    @torch.no_grad()
    def restore(self, last):
        """Put what was kept into the networks; the last weights if nothing was."""
        for p, value in zip(self.parameters, last if self.weights is None else self.weights, strict=True):
            p.copy_(value)
            p.grad = None
        for b, value in zip(self.networks.buffers(), self.buffers or (), strict=self.buffers is not None):
            b.copy_(value)


def train(
    networks: nn.ModuleDict,
    loss: Callable,
    validate: Callable | None,
    settings: Settings,
    *,
    start_score: Callable | float | None = None,
    fit_score: Callable | None = None,
) -> History:
    """Minimise the loss and leave the best (validated) averaged weights in the networks.

    Parameters
    ----------
    networks : ModuleDict
        What is trained, in place.
    loss : callable
        loss() -> scalar tensor, on a fresh batch.
    validate : callable or None
        validate() -> float, higher is better, on held-out rows; None keeps the last weights.
    settings : Settings
        Steps, times, rates.
    start_score : callable or float, default=None
        The score of the weights before training, or what gives it: they are kept if no round scores higher.
    fit_score : callable, default=None
        fit_score() -> float, the same as `validate` on training rows: if given, training ends where it overfits.

    Returns
    -------
    History

    Raises
    ------
    FitDivergedError
        When the loss stops being finite.
    """
    networks.requires_grad_(True)
    best = _Best(networks)
    average, history = _Average(best.parameters), History()
    on_cpu_or_cuda = best.parameters[0].device.type in ("cpu", "cuda")
    optimizer = torch.optim.Adam(best.parameters, lr=settings.learning_rate_init, fused=on_cpu_or_cuda)
    # the first optimizer of a process loads modules for a second: not at the cost of this run
    stale, start = 0, time.perf_counter()
    try:
        if start_score is not None:
            best.offer(average.score(start_score) if callable(start_score) else start_score, average.means)
        while not _finished(history, stale, start, settings):
            networks.train()
            _round(loss, best.parameters, optimizer, average, history, start, settings)
            networks.eval()
            if validate is not None:
                score = average.score(validate)
                history.validation_scores.append(score)
                stale = 0 if score > best.score + settings.tol else stale + 1
                history.best_round = len(history.validation_scores) if score > best.score else history.best_round
                best.offer(score, average.means)
            _report(history, settings)
            if fit_score is not None and _lies_far_back(history, stale):
                # on a plateau of the rate neither rises: what overfits, rises alone and by more than noise
                rise = average.score(fit_score) - average.score_of(best.weights, fit_score)
                history.overfitted = rise > 0 and rise + best.score - score > _WIDER_GAP
    except KeyboardInterrupt:
        history.interrupted = True
        warnings.warn(
            f"Training was interrupted after {history.n_iter} steps: the best weights so far are kept.",
            ConvergenceWarning,
            stacklevel=2,
        )
    # without a limit of stale rounds it is enough that the last was not the best
    patience = 1 if math.isinf(settings.n_iter_no_change) else settings.n_iter_no_change
    history.converged = history.overfitted or stale >= patience
    history.best_score = best.score
    best.restore(average.means)
    networks.requires_grad_(False).eval()
    return history


def _lies_far_back(history, stale):
    """Whether the best round lies behind by three rounds and a third of what led to it; said once in three rounds."""
    rounds = len(history.validation_scores)
    return stale > 0 and stale % 3 == 0 and stale >= 3 + (rounds - stale) / 3


def _finished(history, stale, start, settings):
    if history.overfitted:
        return True
    out_of_time = settings.max_time is not None and time.perf_counter() - start >= settings.max_time
    patience_lost = settings.early_stopping and stale >= settings.n_iter_no_change
    return history.n_iter >= settings.max_iter or patience_lost or (out_of_time and history.n_iter > 0)


def _round(loss, parameters, optimizer, average, history, start, settings):
    """One round of gradient steps; raises if the loss stopped being finite in it."""
    losses, longer = [], sum(history.n_iter >= steps for steps in _LONGER_ROUNDS)
    for _ in range(min(ROUND * 2**longer, settings.max_iter - history.n_iter)):
        elapsed = time.perf_counter() - start
        if settings.max_time is not None and elapsed >= settings.max_time and losses:
            break
        optimizer.param_groups[0]["lr"] = settings.learning_rate_init * _rate(history.n_iter, elapsed, settings)
        value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        average.update()
        history.n_iter += 1
        losses.append(value.detach())
    losses = torch.stack(losses)
    if not bool(torch.isfinite(losses).all()):
        step = history.n_iter - len(losses) + int((~torch.isfinite(losses)).int().argmax())
        raise FitDivergedError(
            f"The training loss stopped being finite at step {step}. Try a smaller learning_rate_init than "
            f"{settings.learning_rate_init:g}, preprocessing='standardize', or look for extreme values in the data."
        )
    history.loss_curve.append(float(losses.mean()))


def _report(history, settings):
    if settings.verbose:
        score = f", validation score {history.validation_scores[-1]:.4f}" if history.validation_scores else ""
        print(f"step {history.n_iter}: loss {history.loss_curve[-1]:.4f}{score}")
