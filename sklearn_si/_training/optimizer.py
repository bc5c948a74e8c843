"""The weights of a training run as one vector: gradients, Adam, their running mean, and the best."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..distributed import Single

# Weights are averaged over about a tenth of the steps taken so far (at least 10 steps): the average is what is
# validated and kept (benchmarks/studies/ablation.md, "The mean of weights").
_AVERAGING = 0.1
# Decay of the first moments (Kingma & Ba 2015).
_BETA1 = 0.9
# Decay of the second moments.
_BETA2 = 0.999
# Added to the root of the second moments.
_EPSILON = 1e-8
# Norm to which gradients are clipped.
LARGEST_NORM = 1.0


class AdamWithEMA:
    """All parameters of some networks as views of one vector, and of their gradients as views of another.

    An update is then a few operations on vectors, whatever the number of parameters.

    Parameters
    ----------
    networks : Module
        What is trained, in place.
    group : Single or Group, default=Single()
        The processes whose gradients are averaged.
    """

    def __init__(self, networks: nn.Module, group: Single = Single()) -> None:  # noqa: B008 (it has no state)
        self.group = group
        self.networks, self.parameters = networks, list(networks.parameters())
        dtypes = {p.dtype for p in self.parameters}
        if len(dtypes) != 1:
            raise ValueError(f"A network factory gives parameters of dtypes {sorted(map(str, dtypes))}: give them one.")
        # a factory may draw its weights from a generator that no seed reaches
        self.flat = group.share(torch.cat([p.detach().flatten() for p in self.parameters]))
        self.gradient, self.ema = torch.zeros_like(self.flat), self.flat.clone()
        self._first, self._second = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self.steps, self.score = 0, -math.inf
        self.last_finite: tuple[Tensor, list[Tensor]] | None = None
        self.best: Tensor | None = None
        self.buffers: list[Tensor] | None = None
        sizes = [p.numel() for p in self.parameters]
        for p, value, gradient in zip(self.parameters, self.flat.split(sizes), self.gradient.split(sizes), strict=True):
            p.data, p.grad = value.view(p.shape), gradient.view(p.shape)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step of Adam (Kingma & Ba 2015, algorithm 1) along the clipped gradient, which starts again from zero."""
        self.steps += 1
        gradient = self.group.average(self.gradient)
        norm = torch.dot(gradient, gradient).sqrt_()
        gradient.mul_((LARGEST_NORM / (norm + 1e-6)).clamp_(max=1.0))
        self._first.lerp_(gradient, 1 - _BETA1)
        self._second.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
        spread = torch.sqrt(self._second, out=gradient)
        spread.mul_((1 - _BETA2**self.steps) ** -0.5).add_(_EPSILON)
        self.flat.addcdiv_(self._first, spread, value=-rate / (1 - _BETA1**self.steps))
        self._update_ema()
        gradient.zero_()

    @torch.no_grad()
    def _update_ema(self) -> None:
        """Take the weights of the last step into the mean, over a window that grows with the steps."""
        self.ema.lerp_(self.flat, 1 / min(max(1, self.steps), 10 + _AVERAGING * self.steps))

    @torch.no_grad()
    def swap(self, other: Tensor) -> None:
        """Exchange the live weights with others; the second call undoes the first."""
        live = self.flat.clone()
        self.flat.copy_(other)
        other.copy_(live)

    @contextlib.contextmanager
    def live(self, weights: Tensor) -> Iterator[None]:
        """Within it, the networks have these weights, and the best ones their buffers."""
        kept = self.buffers or [] if weights is self.best else []
        now = [b.clone() for b in self.networks.buffers()] if kept else []
        self._set_buffers(kept)
        self.swap(weights)
        try:
            yield
        finally:
            self.swap(weights)
            self._set_buffers(now)

    @torch.no_grad()
    def _set_buffers(self, values: Sequence[Tensor]) -> None:
        for b, value in zip(self.networks.buffers(), values, strict=bool(values)):
            b.copy_(value)

    def score_of(self, weights: Tensor, validate: Callable[[], float]) -> float:
        """The score of some weights; -inf for NaN, which compares with nothing."""
        with self.live(weights):
            score = float(validate())
        return -math.inf if math.isnan(score) else score

    @property
    def kept(self) -> Tensor:
        """What `release` leaves in the networks: the best weights, or the means if none were offered."""
        return self.ema if self.best is None else self.best

    def keep_if_best(self, score: float) -> None:
        """Keep a copy of the means, and of the buffers, if the score is the highest."""
        if score > self.score:
            self.score, self.best = score, self.ema.clone()
            self.buffers = [b.clone() for b in self.networks.buffers()]

    def keep_last(self, score: float) -> None:
        """Keep a copy of the means, whatever their score."""
        self.score = -math.inf
        self.keep_if_best(score)

    def is_finite(self) -> bool:
        """Whether all weights are finite; if they are, a training that blows up may go on from them."""
        if not bool(torch.isfinite(self.flat).all() & torch.isfinite(self.ema).all()):
            return False
        if self.best is None:
            self.last_finite = self.ema.clone(), [b.clone() for b in self.networks.buffers()]
        return True

    @torch.no_grad()
    def restart(self) -> bool:
        """Go on from the best weights, or from the last sound ones, as from a start; whether there are any."""
        kept = (self.best, self.buffers) if self.best is not None else self.last_finite
        if kept is None:
            return False
        values, buffers = kept
        for vector in (self.flat, self.ema):
            vector.copy_(values)
        for vector in (self.gradient, self._first, self._second):
            vector.zero_()
        self.steps = 0
        self._set_buffers(buffers or [])
        return True

    def state(self, ended: bool) -> dict[str, Any]:
        """A copy of all that changes; of a training that has ended, of what it leaves."""
        buffers = [b.clone() for b in self.networks.buffers()]
        if ended:
            return {"kept": self.kept.clone(), "buffers": self.buffers or buffers, "score": self.score}
        vectors = [v.clone() for v in (self.flat, self.ema, self._first, self._second)]
        return {
            "vectors": vectors, "best": self.best, "buffers": self.buffers, "live": buffers, "score": self.score,
            "steps": self.steps, "sound": self.last_finite,
        }  # fmt: skip

    @torch.no_grad()
    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.score = state["score"]
        if "kept" in state:
            self.ema.copy_(state["kept"])
            self._set_buffers(state["buffers"])
            self.best, self.buffers = self.ema, state["buffers"]
            return
        for vector, value in zip((self.flat, self.ema, self._first, self._second), state["vectors"], strict=True):
            vector.copy_(value)
        device = self.flat.device
        self.best = None if state["best"] is None else state["best"].to(device)
        self.buffers, self.steps, self.last_finite = state["buffers"], state["steps"], state["sound"]
        self._set_buffers(state["live"])

    @torch.no_grad()
    def release(self, together: bool = True) -> None:
        """Leave in the networks what was kept (the means if nothing was), each parameter on its own.

        `together`, in a group, what the first process has; not after an error of one.
        """
        kept, buffers = self.kept.clone(), self.buffers or [b.clone() for b in self.networks.buffers()]
        if together:
            # the same in all processes, whatever their processors make of a sum
            kept, buffers = self.group.share(kept), self.group.first(lambda: buffers)
        self.flat.copy_(kept)
        for p in self.parameters:
            p.data, p.grad = p.data.clone(), None
        self._set_buffers(buffers)
