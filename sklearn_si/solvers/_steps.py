"""Runge-Kutta methods as tables, steppers of SDEs, and solutions on a grid of times."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, overload

import torch
from torch import Tensor

from .._utils.tensors import normal

# The right-hand side f(t, x) of an ODE.
Field = Callable[[Tensor, Tensor], Tensor]
# The drift(t, x, e) of an SDE, where e is the value of epsilon at that time.
Drift = Callable[[Tensor, Tensor, Tensor], Tensor]
Time = TypeVar("Time", float, Tensor)


@dataclasses.dataclass(frozen=True)
class ButcherTableau:
    """The coefficients of an explicit Runge-Kutta method.

    k_i = f(t + c_i h, x + h sum_j a_ij k_j),    x' = x + h sum_i b_i k_i

    (Hairer, Norsett & Wanner 1993, "Solving ordinary differential equations I", chapter II.1)

    Parameters
    ----------
    order : int
        Order of convergence.
    c, b : tuple of float
        Nodes and weights.
    a : tuple of tuple of float
        Coefficients of the stages, row i of length i.
    error : tuple of float, default=()
        Weights of the embedded error estimate of a step, one for each slope k_i and one for the slope at the new state.
    dense : tuple of tuple of float, default=()
        Weights of the same slopes in the state at the fraction u of the step, as coefficients of u, u^2, ...

    Examples
    --------
    >>> from sklearn_si.solvers import ODE_SOLVERS
    >>> ODE_SOLVERS["midpoint"].order
    2
    """

    order: int
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    error: tuple[float, ...] = ()
    dense: tuple[tuple[float, ...], ...] = ()


ODE_SOLVERS = {
    "euler": ButcherTableau(1, (0.0,), ((),), (1.0,)),
    "midpoint": ButcherTableau(2, (0.0, 0.5), ((), (0.5,)), (0.0, 1.0)),
    "heun": ButcherTableau(2, (0.0, 1.0), ((), (1.0,)), (0.5, 0.5)),
    "rk4": ButcherTableau(
        4, (0.0, 0.5, 0.5, 1.0), ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)
    ),
    "dopri5": ButcherTableau(
        5,
        (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0),
        (
            (),
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        ),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        # The solution of order 5 minus that of order 4.
        error=(71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
        # Dense output of order 4: Shampine, "Some practical Runge-Kutta formulas", Math. Comp. 46 (1986).
        dense=(
            (1, -8048581381 / 2820520608, 8663915743 / 2820520608, -12715105075 / 11282082432),
            (0, 0, 0, 0),
            (0, 131558114200 / 32700410799, -68118460800 / 10900136933, 87487479700 / 32700410799),
            (0, -1754552775 / 470086768, 14199869525 / 1410260304, -10690763975 / 1880347072),
            (0, 127303824393 / 49829197408, -318862633887 / 49829197408, 701980252875 / 199316789632),
            (0, -282668133 / 205662961, 2019193451 / 616988883, -1453857185 / 822651844),
            (0, 40617522 / 29380423, -110615467 / 29380423, 69997945 / 29380423),
        ),
    ),
}


class OnGrid:
    """A right-hand side that knows a grid of times, which the host looks up: no step then waits for a GPU.

    Parameters
    ----------
    f : callable
        The right-hand side, which takes times on the CPU beside rows on any device.
    """

    def __init__(self, f: Callable[..., Tensor]) -> None:
        self.f = f

    def __call__(self, t: Tensor, x: Tensor, *more: Tensor) -> Tensor:
        """The right-hand side."""
        return self.f(t, x, *more)


def _times_for(f: Any, times: Tensor, x: Tensor) -> Tensor:
    """The times in the dtype of the rows, and on their device unless the right-hand side looks them up."""
    return times.to("cpu", x.dtype) if isinstance(f, OnGrid) else times.to(x)


def combine(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    """The weighted sum of slopes, without those of weight zero."""
    # It is the integer 0 if all weights are zero, which can be added to tensors.
    return sum(w * k for w, k in zip(weights, slopes, strict=True) if w != 0.0)  # type: ignore[return-value]


def runge_kutta_step(
    tableau: ButcherTableau,
    f: Callable[[Time, Tensor], Tensor],
    t: Time,
    h: Time,
    x: Tensor,
    first: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """One step of an explicit Runge-Kutta method: the new state and the slopes. A known first slope may be passed."""
    slopes = [f(t, x) if first is None else first]
    for c, a in zip(tableau.c[1:], tableau.a[1:], strict=True):
        slopes.append(f(t + c * h, x + h * combine(a, slopes)))
    return x + h * combine(tableau.b, slopes), slopes


def dense_state(tableau: ButcherTableau, u: float, h: float | Tensor, x: Tensor, slopes: list[Tensor]) -> Tensor:
    """The state at the fraction u of a step of length h from x; the last of the slopes is that at the new state."""
    return x + h * combine([sum(c * u**k for k, c in enumerate(row, 1)) for row in tableau.dense], slopes)


@overload
def odeint(
    f: Field, x: Tensor, times: Tensor, method: str | ButcherTableau = ..., *, dense: Literal[False] = ...
) -> Tensor: ...
@overload
def odeint(
    f: Field, x: Tensor, times: Tensor, method: str | ButcherTableau = ..., *, dense: Literal[True]
) -> tuple[Tensor, Tensor]: ...
def odeint(
    f: Field, x: Tensor, times: Tensor, method: str | ButcherTableau = "rk4", *, dense: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Solve an ODE on a grid of times, with fixed steps.

    dx/dt = f(t, x),    x(times[0]) = x

    by an explicit Runge-Kutta method (see `ButcherTableau`).

    Parameters
    ----------
    f : callable
        The right-hand side f(t, x), with t of shape () and x of shape (n, d).
    x : Tensor of shape (n, d)
        The state at times[0].
    times : Tensor of shape (k,)
        The grid, increasing or decreasing.
    method : str or ButcherTableau
        The method; a name is looked up in `ODE_SOLVERS`.
    dense : bool, default=False
        Whether to return the states and slopes at all times.

    Returns
    -------
    state : Tensor of shape (n, d), or pair of tensors of shape (k, n, d)
        The state at times[-1], or the states and slopes at all times with ``dense=True``.

    Examples
    --------
    >>> import torch
    >>> from sklearn_si.solvers import odeint
    >>> x = odeint(lambda t, x: x, torch.ones(1, 1, dtype=torch.float64), torch.linspace(0, 1, 33))
    >>> round(x.item(), 5)
    2.71828
    """
    tableau = ODE_SOLVERS[method] if isinstance(method, str) else method
    times = _times_for(f, times, x)
    states, slopes = [x], []
    for t, t_next in itertools.pairwise(times):
        x, stages = runge_kutta_step(tableau, f, t, t_next - t, x)
        if dense:
            states.append(x)
            slopes.append(stages[0])
    if not dense:
        return x
    return torch.stack(states), torch.stack([*slopes, f(times[-1], x)])


def _euler_maruyama(
    drift: Drift, epsilon: Callable[[Tensor], Tensor], t: Tensor, h: Tensor, x: Tensor, noise: Tensor
) -> Tensor:
    # Epsilon is that at the middle of the step, in the drift as in the noise. This is the chain whose exact density is
    # computed for likelihood="sde".
    e = epsilon(t + h / 2)
    return x + h * drift(t, x, e) + torch.sqrt(2 * e * h.abs()) * noise


def _stochastic_heun(
    drift: Drift, epsilon: Callable[[Tensor], Tensor], t: Tensor, h: Tensor, x: Tensor, noise: Tensor
) -> Tensor:
    noise_increment = torch.sqrt(2 * epsilon(t + h / 2) * h.abs()) * noise
    slope = drift(t, x, epsilon(t))
    end = x + h * slope + noise_increment
    return x + h / 2 * (slope + drift(t + h, end, epsilon(t + h))) + noise_increment


SDE_SOLVERS: dict[str, Callable[..., Tensor]] = {"euler-maruyama": _euler_maruyama, "stochastic-heun": _stochastic_heun}
SOLVERS = {**ODE_SOLVERS, **SDE_SOLVERS}


def sdeint(
    drift: Drift,
    epsilon: Callable[[Tensor], Tensor],
    x: Tensor,
    times: Tensor,
    generator: torch.Generator,
    method: str = "stochastic-heun",
    *,
    dense: bool = False,
) -> Tensor:
    """Solve an SDE on a grid of times, with fixed steps.

    dX = drift(t, X, epsilon(t)) dt + sqrt(2 epsilon(t)) dW

    (arXiv 2303.08797, Theorem 2.8; Kloeden & Platen 1992, "Numerical solution of stochastic differential equations").

    Parameters
    ----------
    drift : callable
        The drift(t, x, e), where e is the value of epsilon at that time: b + e s forward in time, b - e s backward.
    epsilon : callable
        The diffusion epsilon(t), of shape ().
    x : Tensor of shape (n, d)
        The state at times[0].
    times : Tensor of shape (k,)
        The grid, increasing or decreasing.
    generator : torch.Generator
        The source of the noise.
    method : {"euler-maruyama", "stochastic-heun"}
        The method, of weak order 1 or 2. Both are for additive noise, which does not depend on the state.
    dense : bool, default=False
        Whether to return the states at all times.

    Returns
    -------
    state : Tensor of shape (n, d) or (k, n, d)
        The state at times[-1], or the states at all times with ``dense=True``.

    Examples
    --------
    >>> import torch
    >>> from sklearn_si.solvers import sdeint
    >>> noise = torch.Generator().manual_seed(0)
    >>> times = torch.linspace(0, 1, 5)
    >>> x = sdeint(lambda t, x, e: -x, lambda t: torch.ones(()), torch.zeros(1000, 1), times, noise, dense=True)
    >>> x.shape
    torch.Size([5, 1000, 1])
    """
    step = SDE_SOLVERS[method]
    times = _times_for(drift, times, x)
    states = [x]
    for t, t_next in itertools.pairwise(times):
        x = step(drift, epsilon, t, t_next - t, x, normal(x.shape, generator, like=x))
        if dense:
            states.append(x)
    return torch.stack(states) if dense else x
