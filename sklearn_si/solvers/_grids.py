"""Grids of times, and how their steps are spread."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

# The spacing of a grid: an increasing function from u in [0, 1] to (t in [0, 1], dt/du).
TIME_GRIDS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "uniform": lambda u: (u, torch.ones_like(u)),
    # Steps become shorter towards t = 1, where a model of one sample meets the data.
    "quadratic": lambda u: (1 - (1 - u) ** 2, 2 * (1 - u)),
    # Steps become shorter towards t = 0 and t = 1, where a bridge meets the data.
    "sine": lambda u: (torch.sin(math.pi / 2 * u) ** 2, math.pi / 2 * torch.sin(math.pi * u)),
    # Steps are uniform in log((t + c) / (1 - t + c)), from which the networks' time features are made.
    "logit": lambda u: _logit_spacing(u, 0.03),
    "logit-wide": lambda u: _logit_spacing(u, 0.15),
    # For fields that change fastest next to the ends, as those of long trainings and of curved paths may.
    "logit-narrow": lambda u: _logit_spacing(u, 0.01),
    "logit-tight": lambda u: _logit_spacing(u, 0.004),
}


def _logit_spacing(u: Tensor, c: float) -> tuple[Tensor, Tensor]:
    size = math.log((1 + c) / c)
    s = torch.sigmoid(size * (2 * u - 1))
    return ((1 + 2 * c) * s - c).clamp(0.0, 1.0), 2 * (1 + 2 * c) * size * s * (1 - s)


# The distance in time that a grid keeps from a kink of the field: two neighbouring numbers in float32.
KINK = 1e-7


def grid_map(s: Tensor, spacing: str, start: float, stop: float) -> tuple[Tensor, Tensor]:
    """Times at the parameters s in [0, 1] of a grid from start to stop, and their derivatives."""
    u, rate = TIME_GRIDS[spacing](s if stop >= start else 1 - s)
    u = u if stop >= start else 1 - u
    return start + (stop - start) * u, (stop - start) * rate


def time_grid(n_steps: int, spacing: str, start: float = 0.0, stop: float = 1.0, node: float | None = None) -> Tensor:
    """A grid of times, in float64.

    t_k = start + (stop - start) tau(k / n_steps)    with the function tau of the spacing

    Parameters
    ----------
    n_steps : int
        Number of steps.
    spacing : str
        A name of `TIME_GRIDS`.
    start, stop : float
        First and last time.
    node : float or None, default=None
        A time at which the field has a kink or a jump. If it lies between start and stop, two times at a distance of
        1e-7 on either side of it replace the nearest inner time, so that no stage of a step falls on the wrong side. A
        single step becomes two.

    Returns
    -------
    times : Tensor of shape (n_steps + 1,), or (n_steps + 2,) with a node inside

    Examples
    --------
    >>> from sklearn_si.solvers import time_grid
    >>> time_grid(4, "quadratic", 1.0, 0.0)
    tensor([1.0000, 0.9375, 0.7500, 0.4375, 0.0000], dtype=torch.float64)
    """
    node = node if node is not None and min(start, stop) < node < max(start, stop) else None
    n_steps = n_steps if node is None else max(n_steps, 2)
    times, _ = grid_map(torch.linspace(0, 1, n_steps + 1, dtype=torch.float64), spacing, start, stop)
    times[0], times[-1] = start, stop  # the map may be off by a rounding error
    if node is not None:
        k = 1 + int((times[1:-1] - node).abs().argmin())
        sides = torch.tensor([-KINK, KINK], dtype=torch.float64) * (1 if stop > start else -1)
        times = torch.cat([times[:k], node + sides, times[k + 1 :]])
    return times
