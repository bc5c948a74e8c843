"""Max-min: steps of a learned path for fixed fields, in turn with steps of the fields for a fixed path."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._utils.tensors import column
from ..distributed import Single
from ..interpolants._learned import LearnedInterpolant, LearnedSchedule
from .batches import Sampler, draw_points
from .loop import Settings

# Steps of the fields between two steps of the path.
STEPS_BETWEEN = 5
# Share of all steps in which the path is learned; in the others it is fixed, and the fields are fitted to it.
MOVING_SHARE = 1 / 3
# Memory of the means of the gradients and of their squares in Adam, and what is added to the root of the latter.
_MEMORIES = (0.5, 0.99)
_EPSILON = 1e-8
# Entries of `action_curve_`.
_ENTRIES = 20


def remaining(settings: Settings) -> Settings:
    """The settings of the steps, or of the time, that a path leaves to its fields."""
    left = 1 - MOVING_SHARE
    seconds = None if settings.max_time is None else left * settings.max_time
    return dataclasses.replace(settings, max_iter=max(1, round(left * settings.max_iter)), max_time=seconds)


class Ascent:
    """Steps of the path for fixed fields, which raise the value of the max-min.

    Parameters
    ----------
    interpolant : Interpolant
        One that has `parameters` and their `rate`.
    networks : ModuleDict
        The fields.
    sampler : Sampler
    batch : int
    generator : torch.Generator
    progress : callable
        progress(k) -> the share that is over before step k; the rate falls with it to zero.
    group : Single or Group, default=Single()
        The processes whose gradients are averaged.

    Attributes
    ----------
    actions : list of float
        E |v(t, x_t)|^2 (of u = b + epsilon s with a latent noise) before each step.
    """

    steps_between = STEPS_BETWEEN

    def __init__(
        self,
        interpolant: LearnedInterpolant | LearnedSchedule,
        networks: nn.ModuleDict,
        sampler: Sampler,
        batch: int,
        generator: torch.Generator,
        progress: Callable[[int], float],
        group: Single = Single(),  # noqa: B008 (it has no state)
    ) -> None:
        self.group = group
        self.interpolant, self.networks = interpolant, networks
        self.sampler, self.batch, self.generator = sampler, batch, generator
        for parameter in interpolant.parameters():
            parameter.requires_grad_(True)
        self.progress = progress
        self.moments = [[torch.zeros_like(p) for p in interpolant.parameters()] for _ in _MEMORIES]
        self.actions: list[float] = []

    def state(self) -> dict[str, Any]:
        """A copy of all that changes."""
        parameters = [parameter.detach().clone() for parameter in self.interpolant.parameters()]
        moments = [[m.clone() for m in some] for some in self.moments]
        points = self.generator.get_state()
        return {"parameters": parameters, "moments": moments, "actions": list(self.actions), "points": points}

    @torch.no_grad()
    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        for parameter, value in zip(self.interpolant.parameters(), state["parameters"], strict=True):
            parameter.copy_(value)
        self.moments = [[m.clone() for m in some] for some in state["moments"]]
        self.actions = list(state["actions"])
        self.generator.set_state(state["points"])

    def step(self) -> None:
        """One step."""
        points = draw_points(self.networks, self.interpolant, "uniform", self.sampler, self.batch, self.generator)
        wanted = [parameter.requires_grad for parameter in self.networks.parameters()]
        self.networks.requires_grad_(False)
        try:
            with torch.enable_grad():
                half_action, work = self._terms(*points)
                gradients = torch.autograd.grad(work - half_action, self.interpolant.parameters())
            gradients = tuple(self.group.average(gradient.contiguous()) for gradient in gradients)
        finally:
            for parameter, flag in zip(self.networks.parameters(), wanted, strict=True):
                parameter.requires_grad_(flag)
        self._move(gradients)
        self.actions.append(self.group.mean_over_rows(2 * half_action.item()))

    @torch.no_grad()
    def _move(self, gradients: Sequence[Tensor]) -> None:
        """A step of Adam (Kingma & Ba 2015, algorithm 1); to load torch's own takes longer than a short fit may."""
        k = len(self.actions)
        rate = self.interpolant.rate * max(0.0, 1 - self.progress(k))
        (first, second), (slow, fast) = self.moments, (1 - memory ** (k + 1) for memory in _MEMORIES)
        for p, g, m, v in zip(self.interpolant.parameters(), gradients, first, second, strict=True):
            m.lerp_(g, 1 - _MEMORIES[0])
            v.lerp_(g * g, 1 - _MEMORIES[1])
            p.addcdiv_(m / slow, (v / fast).sqrt_().add_(_EPSILON), value=-rate)

    def _terms(
        self, t: Tensor, x0: Tensor, x1: Tensor, z: Tensor | None, condition: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        path = self.interpolant
        x, target = path.point(t, x0, x1, z), path.mean_dot(t, x0, x1)
        u = self.networks["velocity"](t, x, condition)
        if z is not None:
            # u = b + epsilon s; gamma_dot - epsilon / gamma = -sqrt(2 epsilon t / (1 - t))
            epsilon = path.gamma_scale / 2
            u = u - epsilon * self.networks["denoiser"](t, x, condition) / column(path.gamma(t), x)
            target = target - column(torch.sqrt(2 * epsilon * t / (1 - t)), x) * z
        return 0.5 * u.square().sum(1).mean(), (target * u).sum(1).mean()

    def close(self) -> list[float]:
        """Leave the path as it is; the action, averaged over twentieths of the steps."""
        for parameter in self.interpolant.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None
            self.group.share(parameter.data)  # the same in all processes, whatever their processors make of a sum
        return [float(part.mean()) for part in np.array_split(self.actions, min(_ENTRIES, len(self.actions)))]
