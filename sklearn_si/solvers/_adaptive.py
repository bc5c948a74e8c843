"""A solver that chooses the steps of each row by itself, and the check of what a solver has left."""

import torch
from torch import Tensor

from ..exceptions import IntegrationError
from ._steps import ODE_SOLVERS, Field, combine, runge_kutta_step


def require_finite(x: Tensor, what: str) -> Tensor:
    """Return x if it is finite; otherwise raise an IntegrationError that names the rows."""
    bad = (~torch.isfinite(x.reshape(x.shape[0], -1)).all(1)).nonzero()[:, 0].cpu().numpy()
    if len(bad):
        raise IntegrationError(
            f"{len(bad)} of {x.shape[0]} rows became infinite or NaN while {what}: are these rows far outside the "
            "training data? If not, fit longer, lower noise_level or raise n_steps.",
            bad,
        )
    return x


_DOPRI5 = ODE_SOLVERS["dopri5"]
# Steps (accepted or rejected) after which a row is given up: a field that needs more is not smooth.
_MAX_ADAPTIVE_STEPS = 2000


def odeint_adaptive(f: Field, x: Tensor, start: float, stop: float, tolerance: float) -> Tensor:
    """Solve an ODE with adaptive steps, which each row chooses for itself.

    dx/dt = f(t, x),    x(start) = x

    by the method of Dormand & Prince (1980, "A family of embedded Runge-Kutta formulae", J. Comput. Appl. Math. 6) of
    order 5 with an error estimate of order 4. The steps of a row depend on its own error alone, so that its solution
    does not depend on the other rows.

    Parameters
    ----------
    f : callable
        The right-hand side f(t, x), with t of shape (n,) and x of shape (n, d).
    x : Tensor of shape (n, d)
        The states at `start`.
    start, stop : float
        First and last time.
    tolerance : float
        Largest error of one step in each coordinate, relative to 1 + its absolute value.

    Returns
    -------
    state : Tensor of shape (n, d)
        The states at `stop`.

    Raises
    ------
    IntegrationError
        When rows are not at `stop` after 2,000 steps, or their steps become too short for their dtype.

    Examples
    --------
    >>> import torch
    >>> from sklearn_si.solvers import odeint_adaptive
    >>> x = odeint_adaptive(lambda t, x: x, torch.ones(1, 1, dtype=torch.float64), 0.0, 1.0, 1e-8)
    >>> round(x.item(), 6)
    2.718282
    """
    t = torch.full_like(x[:, 0], start)
    h = torch.full_like(t, (stop - start) / 16)
    slope = f(t, x)

    def timed(t: Tensor, x: Tensor) -> Tensor:
        return f(t[:, 0], x)

    given_up = torch.zeros_like(t, dtype=torch.bool)
    for _ in range(_MAX_ADAPTIVE_STEPS):
        h = torch.where((t + h - stop) * (stop - start) > 0, stop - t, h)
        new, slopes = runge_kutta_step(_DOPRI5, timed, t[:, None], h[:, None], x, slope)
        slopes.append(f(t + h, new))
        size = tolerance * (1 + torch.maximum(x.abs(), new.abs()))
        error = (h[:, None] * combine(_DOPRI5.error, slopes) / size).abs().amax(1).nan_to_num(nan=torch.inf)
        taken = error <= 1
        x, slope = torch.where(taken[:, None], new, x), torch.where(taken[:, None], slopes[-1], slope)
        t = torch.where(taken, t + h, t)
        t = torch.where((t - stop).abs() < 1e-12, stop, t)
        if bool(((t == stop) | given_up).all()):
            break
        h = h * (0.9 * error.clamp(min=1e-10) ** -0.2).clamp(0.2, 5.0)
        # The field is not smooth, or not finite, where the step becomes too short.
        given_up = given_up | ((t + h == t) & (t != stop))
    late = (t != stop).nonzero()[:, 0].cpu().numpy()
    if not len(late):
        return x
    raise IntegrationError(
        f"{len(late)} of {len(x)} rows did not reach t = {stop:g} in {_MAX_ADAPTIVE_STEPS} steps, or their steps "
        "became too short for their dtype: raise ode_tol, or use a fixed-step solver.",
        late,
    )
