"""The one training loop: gradient steps in rounds, validation, the best weights kept."""

import dataclasses
import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from ..distributed import Single
from ..exceptions import FitDivergedError
from .checkpoint import NO_RECORD
from .gains import Gains
from .optimizer import AdamWithEMA

# Fewest gradient steps of one validation round, but for first ones: a validation costs as much as some thirty steps.
ROUND = 100
# Steps over which the learning rate warms up.
_WARM_UP = 200
# Loss of a step, in units of the lowest loss (or of the first, or of 1), above which a training counts as exploded.
_FAR_ABOVE = 1e6
# Median loss of a round, in the same units, above which a training counts as exploded; a single step may have such a
# loss because of heavy tails.
_EXPLODED = 10.0
# Nats below the best score at which a training counts as exploded.
_LARGEST_FALL = 100.0
# How often a training continues from its best weights after a round that exploded.
_RETRIES = 3
# Factor of its learning rate each time.
_LOWER = 0.1
# Why a training ended, as its last round and the last line of verbose=1 say it.
STOPPED = {
    "max_iter": "it has taken all of its steps",
    "max_time": "its time is over",
    "n_iter_no_change": "the validation score has not risen for n_iter_no_change rounds",
    "overfitting": "it overfits, held-out rows no longer gain",
    "interrupted": "it was stopped",
    "diverged": "it diverged",
}


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
    time_distribution: str
    growth: float = 0.06  # steps of a round, as a share of the steps so far, if these are more than `ROUND`
    optimizer: type[AdamWithEMA] = AdamWithEMA
    first_round: int = ROUND  # steps of the first round; rounds double until they have `ROUND` steps


@dataclasses.dataclass
class History:
    """What a run leaves behind."""

    n_iter: int = 0
    loss_curve: list = dataclasses.field(default_factory=list)
    validation_scores: list = dataclasses.field(default_factory=list)
    best_score: float = -math.inf
    interrupted: bool = False  # by the user or by a callback
    converged: bool = False
    overfitted: bool = False
    best_step: int = 0  # steps after which the score was highest
    stale: int = 0  # rounds since the score rose
    tried: list = dataclasses.field(default_factory=list)  # step and learning rate of each explosion
    ended: bool = False
    by_user: bool = False  # whether it was interrupted by the user
    first_loss: float | None = None  # of the first step
    rounds: list = dataclasses.field(default_factory=list)  # a dict each, those that were taken back included
    seconds: float = 0.0  # of the last validation, where time is a limit

    def mark(self, stopped: str) -> None:
        """Let the last round say why the training ended."""
        if self.rounds:
            self.rounds[-1]["stopped"] = stopped


def _rate(step: int, elapsed: float, settings: Settings) -> float:
    """Warm-up, then a cosine to zero at the end of the steps or of the time, whichever is nearer."""
    progress = step / settings.max_iter
    warm_up = (step + 1) / min(_WARM_UP, max(1, settings.max_iter // 10))
    if settings.max_time is not None:
        progress = max(progress, elapsed / settings.max_time)
        warm_up = max(warm_up, 10 * elapsed / settings.max_time)
    warm_up = min(1.0, warm_up)
    return warm_up * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


@dataclasses.dataclass(frozen=True)
class Scores:
    """By what weights are compared; of all scores, higher is better.

    Parameters
    ----------
    validation : callable, default=None
        validation() -> float, on validation rows; None keeps the last weights.
    start : callable or float, default=None
        The score of the weights before training, or a function that returns it: they are kept if no round scores
        higher.
    gains : Gains, default=None
        If given, training ends when it overfits, and leaves its last weights unless the best ones are surely better.
    """

    validation: Callable[[], float] | None = None
    start: Callable[[], float] | float | None = None
    gains: Gains | None = None


def train(
    networks: nn.ModuleDict,
    loss: Callable,
    scores: Scores,
    settings: Settings,
    *,
    after_round: Callable | None = None,
    group: Single = Single(),  # noqa: B008 (it has no state)
    record: Any = NO_RECORD,
    history: History | None = None,
) -> History:
    """Minimise the loss by Adam, and leave the averaged weights with the best validation score in the networks.

    Parameters
    ----------
    networks : ModuleDict
        The networks, which are trained in place.
    loss : callable
        loss() -> scalar tensor, on a fresh batch. If it requires a gradient, `backward` is called; else it has already
        added its gradients to those of the parameters.
    scores : Scores
        By what weights are compared.
    settings : Settings
        Steps, times, learning rates.
    after_round : callable, default=None
        after_round(history, kept) -> bool, whether to stop; within `with kept():` the networks have the weights that
        training would leave in them if it stopped now.
    group : Single or Group, default=Single()
        The processes that train together: all have the same `max_iter` and the same scores, and each has losses of its
        own rows.
    record : Record, default=NO_RECORD
        Where the state is saved at the end of each round, and from which an interrupted training continues.
    history : History, default=None
        An empty one that is filled, for who wants to read it after an error too.

    Returns
    -------
    History

    Raises
    ------
    FitDivergedError
        When the loss stops being finite, and does so again at lower rates from the best weights.

    Notes
    -----
    A round also goes back to the best weights, at a tenth of the rate and up to three times, when its median loss is
    ten times the lowest or its score is 100 nats below the best.
    """
    networks.requires_grad_(True)
    optimizer, history = settings.optimizer(networks, group), history or History()
    try:
        clock = _Clock(settings.max_time, group, record.resume(optimizer, history))
        start = scores.start
        if start is not None and not history.ended and not history.n_iter:
            optimizer.keep_if_best(optimizer.score_of(optimizer.ema, start) if callable(start) else start)
        optimizer.is_finite()  # which keeps finite weights to return to
        if settings.verbose and history.n_iter and not history.ended:
            print(f"Continues from the checkpoint, after step {history.n_iter}")
        stopped = None
        while not history.ended and (stopped := _reason_to_stop(history, clock, settings)) is None:
            if _validated_round(loss, scores.validation, optimizer, history, clock, settings):
                _look_back(optimizer, history, settings, scores.gains, after_round)
                record.keep(optimizer, history, clock.elapsed())
            if group.asked_to_stop():
                _end_by_user(history, record)
        if not history.ended and scores.gains is not None:
            _choose_last(optimizer, history, settings, scores.gains)
        history.ended = True
        _tell_end(history, stopped, settings, group)
        record.keep(optimizer, history, clock.elapsed())
    except KeyboardInterrupt:
        if group.size > 1:
            raise  # the other processes are at another step
        _end_by_user(history, record)
    finally:
        optimizer.release(history.ended)
        networks.requires_grad_(False).eval()
    # without a limit of stale rounds it is enough that the last was not the best
    patience = 1 if math.isinf(settings.n_iter_no_change) else settings.n_iter_no_change
    history.converged = history.overfitted or history.stale >= patience
    history.best_score = optimizer.score
    return history


def _end_by_user(history: History, record: Any) -> None:
    history.interrupted = history.ended = history.by_user = True
    history.mark("interrupted")
    warnings.warn(
        f"Training was interrupted after {history.n_iter} steps: the best weights so far are kept."
        + record.interrupted(),
        ConvergenceWarning,
        stacklevel=3,
    )


class _Clock:
    """Seconds since the start, the same in all processes; nobody asks where time is no limit."""

    def __init__(self, limit: float | None, group: Single, seconds: float = 0.0) -> None:
        self.limit, self.group, self.start = limit, group, time.perf_counter() - seconds

    def elapsed(self) -> float:
        """Seconds since the start; 0 without a limit."""
        return 0.0 if self.limit is None else self.group.mean(time.perf_counter() - self.start)

    def is_over(self) -> bool:
        """Whether the time is up."""
        return self.limit is not None and self.elapsed() >= self.limit


def _validated_round(
    loss: Callable,
    validate: Callable | None,
    optimizer: AdamWithEMA,
    history: History,
    clock: _Clock,
    settings: Settings,
) -> bool:
    """One round and its validation; False if it exploded, and the weights are the best ones again."""
    began = history.n_iter
    optimizer.networks.train()
    blown = _round(loss, optimizer, history, clock, settings)
    optimizer.networks.eval()
    since = clock.elapsed()
    score = optimizer.score_of(optimizer.ema, validate) if blown is None and validate is not None else None
    history.seconds = clock.elapsed() - since if score is not None else history.seconds
    history.rounds[-1]["validation_score"] = score
    if score is not None and _has_fallen(score, optimizer.score, history):
        blown = history.n_iter, f"held-out score fell by {optimizer.score - score:.3g}"
        history.n_iter = began
        history.loss_curve.pop()
    history.rounds[-1]["taken_back"] = blown is not None
    if blown is not None:
        _back_off(optimizer, history, settings, *blown)
    elif score is not None:
        rising = _keep_score(optimizer, history, score, settings.tol)
        history.stale = 0 if rising else history.stale + 1
    return blown is None


def _look_back(
    optimizer: AdamWithEMA,
    history: History,
    settings: Settings,
    gains: Gains | None,
    after_round: Callable | None,
) -> None:
    """What follows a round: its line of output, whether it overfits, and the callbacks."""
    group = optimizer.group
    if settings.verbose and group.rank == 0:
        _report(history)
    if gains is not None and optimizer.best is not None and should_check_overfitting(history):
        history.overfitted = gains.overfits(optimizer)
    with group.together():
        stop = after_round is not None and after_round(history, lambda: optimizer.live(optimizer.kept))
    history.interrupted = group.any(stop)


def _has_fallen(score: float, best: float, history: History) -> bool:
    """Whether the score of a round is so far below the best that its training has exploded."""
    return math.isfinite(best) and best - score > _LARGEST_FALL and len(history.tried) < _RETRIES


def _keep_score(optimizer: AdamWithEMA, history: History, score: float, tol: float) -> bool:
    """Keep the weights of a round if their score is the best; whether it rises by more than tol."""
    history.validation_scores.append(score)
    rising = score > optimizer.score + tol
    history.best_step = history.n_iter if score > optimizer.score else history.best_step
    optimizer.keep_if_best(score)
    return rising


def _choose_last(optimizer: AdamWithEMA, history: History, settings: Settings, gains: Gains) -> None:
    """Keep the weights at the end of the schedule in place of the best ones, unless these are surely better."""
    ended = not (history.overfitted or history.interrupted or history.stale >= settings.n_iter_no_change)
    if ended and history.stale and optimizer.best is not None and gains.prefers_last(optimizer):
        optimizer.keep_last(history.validation_scores[-1])
        history.best_step = history.n_iter


def should_check_overfitting(history: History) -> bool:
    """Whether the best step lies behind by three short rounds and a third of its own steps; said once in three."""
    behind = history.n_iter - history.best_step
    return history.stale > 0 and history.stale % 3 == 0 and behind >= 3 * ROUND + history.best_step / 3


def _reason_to_stop(history: History, clock: _Clock, settings: Settings) -> str | None:
    """Why the training ends now, a key of `STOPPED`; None if it goes on."""
    if history.interrupted or history.overfitted:
        return "interrupted" if history.interrupted else "overfitting"
    if settings.early_stopping and history.stale >= settings.n_iter_no_change:
        return "n_iter_no_change"
    if history.n_iter >= settings.max_iter:
        return "max_iter"
    return "max_time" if history.n_iter > 0 and clock.is_over() else None


def _tell_end(history: History, stopped: str | None, settings: Settings, group: Single) -> None:
    """Mark the last round with the reason for the end, and print it; nothing where the training had ended before."""
    if stopped is None:
        return
    history.mark(stopped)
    if settings.verbose and group.rank == 0:
        print(f"Ended after step {history.n_iter}: {STOPPED[stopped]}")


def _length(n_iter: int, settings: Settings) -> int:
    """Steps of the round that follows so many steps."""
    shortest = min(ROUND, max(settings.first_round, n_iter))
    return min(max(shortest, int(settings.growth * n_iter)), settings.max_iter - n_iter)


def count_rounds(settings: Settings) -> int | None:
    """Rounds of a training that runs to its last step; None where its time is the limit."""
    if settings.max_time is not None:
        return None
    n_iter = rounds = 0
    while n_iter < settings.max_iter:
        n_iter, rounds = n_iter + _length(n_iter, settings), rounds + 1
    return rounds


def _round(
    loss: Callable[[], Tensor], optimizer: AdamWithEMA, history: History, clock: _Clock, settings: Settings
) -> tuple[int, str] | None:
    """One round of gradient steps; the step at which it blew up, if it did, and how."""
    losses: list[Tensor] = []
    rate = _largest_rate(history, settings)
    for _ in range(_length(history.n_iter, settings)):
        elapsed = clock.elapsed()
        if settings.max_time is not None and elapsed + history.seconds >= settings.max_time and losses:
            break
        value = loss()
        if value.requires_grad:
            value.backward()
        optimizer.step(rate * _rate(history.n_iter, elapsed, settings))
        history.n_iter += 1
        losses.append(value.detach())
    optimizer.group.raise_kept()
    values = optimizer.group.average(torch.stack(losses))
    history.rounds.append(_entry(history.n_iter, rate, float(values.mean())))
    finite = bool(torch.isfinite(values).all()) and optimizer.is_finite()
    first = float(values[0]) if history.first_loss is None else history.first_loss
    lowest = min([first, *history.loss_curve])
    # a loss may be negative or near zero, where "ten times" means nothing
    above = (values - lowest) / max(1.0, abs(first), abs(lowest))
    bad = ~torch.isfinite(values) | (above > _FAR_ABOVE)
    exploded = bool(bad.any()) or float(above.median()) > _EXPLODED - 1
    if not finite or (exploded and len(history.tried) < _RETRIES):
        history.n_iter -= len(values)
        # weights may be lost in the last step, whose loss is not
        step = history.n_iter + (int(bad.int().argmax()) if bool(bad.any()) else len(values))
        return step, "training loss " + ("rose beyond all bounds" if finite else "stopped being finite")
    history.first_loss = first
    history.loss_curve.append(float(values.mean()))
    return None


def _entry(n_iter: int, rate: float, loss: float) -> dict[str, Any]:
    """What the history says of a round, before it is validated."""
    entry = {"n_iter": n_iter, "learning_rate": rate, "loss": loss, "validation_score": None, "taken_back": False}
    return {**entry, "stopped": None}


def _largest_rate(history: History, settings: Settings) -> float:
    return settings.learning_rate_init * _LOWER ** len(history.tried)


def _back_off(optimizer: AdamWithEMA, history: History, settings: Settings, step: int, how: str) -> None:
    """Take a round back that blew up: from the best weights at a lower rate; raises when that was tried before."""
    rate = _largest_rate(history, settings)
    history.tried.append((step, rate))
    if len(history.tried) > _RETRIES or not optimizer.restart():
        history.mark("diverged")
        tried = ", ".join(f"{rate:g} (step {step})" for step, rate in history.tried)
        raise FitDivergedError(
            f"The {how} at step {step}, and so it did each time that training went on from the best "
            f"weights so far: learning rates {tried} were tried. Try a smaller learning_rate_init than {rate:g}, "
            "preprocessing='standardize', or look for extreme values in the data."
        )
    warnings.warn(
        f"The {how} at step {step} with the rate {rate:g}: training continues from the best weights so "
        f"far with {_LOWER * rate:g}. A smaller learning_rate_init than {settings.learning_rate_init:g} saves the "
        "detour.",
        ConvergenceWarning,
        stacklevel=4,
    )


def _report(history: History) -> None:
    score = f", validation score {history.validation_scores[-1]:.4f}" if history.validation_scores else ""
    print(f"step {history.n_iter}: loss {history.loss_curve[-1]:.4f}{score}")
