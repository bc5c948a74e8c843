"""How many steps `sample` takes, and how they are spread over time: measured on the fitted velocity."""

import warnings

import torch
from torch import Tensor

from ..exceptions import IntegrationWarning
from ..solvers import odeint, time_grid
from .fields import Fields

# Steps of RK4, four evaluations each, from which the first that is accurate enough is taken.
_STEPS = (1, 2, 4, 6, 8, 12, 16, 24, 32)
# Where none of them is: more.
_MANY_STEPS = (32, 64, 128, 256)
# Steps by which the spacings are compared.
_SPACING_STEPS = 4
# Spacings that are tried: none is best everywhere. A one-sided straight path likes equal steps, a path whose noise
# vanishes like a square root likes small ones at its ends.
_SPACINGS = ("uniform", "logit", "quadratic")
# Root mean square error of a coordinate relative to 1 + its size, in scaled units: sliced Wasserstein distances to
# held-out rows are then within noise those of the exact flow (benchmarks/studies/speed.py).
_TOLERANCE = 0.015
# Rows of the measurement.
PILOT_ROWS = 128


@torch.no_grad()
def choose_grid(fields: Fields, x: Tensor, node: float | None) -> tuple[int, str]:
    """The fewest steps, and the spacing of their grid, that transport rows from t = 0 to 1 within the tolerance.

    The error of k steps is taken to be the distance from 2 k steps: halved steps of a fourth-order method have a
    sixteenth of it.

    Parameters
    ----------
    fields : Fields
        The velocity, in scaled units.
    x : Tensor of shape (n, d)
        Rows of the base.
    node : float or None
        The time of a kink in the fields.
    """
    known = {}

    def end(n_steps: int, spacing: str) -> Tensor:
        if (n_steps, spacing) not in known:
            times = time_grid(n_steps, spacing, node=node).to(x)
            known[n_steps, spacing] = odeint(fields.velocity_along(times, "rk4"), x, times, "rk4")
        return known[n_steps, spacing]

    def error(n_steps: int, spacing: str) -> float:
        coarse, fine = end(n_steps, spacing), end(2 * n_steps, spacing)
        distance = ((coarse - fine) / (1 + fine.abs())).square().mean().sqrt()
        return float(distance.nan_to_num(nan=torch.inf))

    spacing = min(_SPACINGS, key=lambda spacing: error(_SPACING_STEPS, spacing))
    # with one or two steps the error is not yet of the order of the method: they are for straight paths
    allowed = {n_steps: _TOLERANCE if n_steps >= _SPACING_STEPS else _TOLERANCE / 5 for n_steps in _STEPS[:-1]}
    for n_steps, tolerance in allowed.items():
        if error(n_steps, spacing) <= tolerance:
            return n_steps, spacing
    # rough fields: what is best for few steps says nothing of many
    spacing = min(_SPACINGS, key=lambda spacing: error(_MANY_STEPS[0], spacing))
    for n_steps in _MANY_STEPS:
        if error(n_steps, spacing) <= _TOLERANCE:
            return n_steps, spacing
    warnings.warn(
        f"The ODE from t = 0 to 1 is not smooth: {n_steps} steps of RK4, which `sample` takes, and twice as many end "
        f"{error(n_steps, spacing):.2g} apart (root mean square, relative to 1 + the size in scaled units). Look at "
        "the rows drawn, use solver='dopri5-adaptive', or fit longer.",
        IntegrationWarning,
        stacklevel=2,
    )
    return n_steps, spacing
