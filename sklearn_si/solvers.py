"""Solvers of ODEs and SDEs, grids of times, and refinement of the solution row by row."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeVar, overload

import torch
from torch import Tensor

from ._utils.tensors import normal
from .exceptions import IntegrationError

__all__ = [
    "ODE_SOLVERS",
    "SDE_SOLVERS",
    "SOLVERS",
    "TIME_GRIDS",
    "ButcherTableau",
    "denoising_steps",
    "odeint",
    "odeint_adaptive",
    "refine",
    "sdeint",
    "time_grid",
]


# The right-hand side f(t, x) of an ODE.
Field = Callable[[Tensor, Tensor], Tensor]
# The drift(t, x, e) of an SDE, where e is the value of epsilon at that time.
Drift = Callable[[Tensor, Tensor, Tensor], Tensor]
Time = TypeVar("Time", float, Tensor)


class DenoisingPath(Protocol):
    """A path x_t = alpha(t) z + beta(t) x1, as the denoiser recursion needs it."""

    @property
    def path_type(self) -> str:
        """The type of the path, "one-sided" for a standard normal base."""

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of the base."""

    def beta(self, t: Tensor) -> Tensor:
        """Weight of x1."""


class DenoisingFields(Protocol):
    """The fields of a model that the denoiser recursion needs."""

    @property
    def interpolant(self) -> DenoisingPath:
        """The path."""

    def denoiser(self, t: Tensor, x: Tensor) -> Tensor:
        """The denoiser eta(t, x) = E[z | x_t = x]."""

    def target(self, t: Tensor, x: Tensor) -> Tensor:
        """The mean target eta_1(t, x) = E[x1 | x_t = x]."""


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
    times = times.to(x)
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
    times = times.to(x)
    states = [x]
    for t, t_next in itertools.pairwise(times):
        x = step(drift, epsilon, t, t_next - t, x, normal(x.shape, generator, like=x))
        if dense:
            states.append(x)
    return torch.stack(states) if dense else x


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
    times[-1] = stop  # start + (stop - start) * 1 may be off by a rounding error
    if node is not None:
        k = 1 + int((times[1:-1] - node).abs().argmin())
        sides = torch.tensor([-KINK, KINK], dtype=torch.float64) * (1 if stop > start else -1)
        times = torch.cat([times[:k], node + sides, times[k + 1 :]])
    return times


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


def denoising_steps(fields: DenoisingFields, x: Tensor, times: Tensor) -> Tensor:
    """Solve the ODE of a model with a standard normal base by the denoiser recursion.

    x_{j+1} = alpha_{j+1} eta(t_j, x_j) + beta_{j+1} eta_1(t_j, x_j)

    (arXiv 2303.08797, equations (5.13) and (5.14)), where eta = E[z | x_t] and eta_1 = E[x1 | x_t].

    Parameters
    ----------
    fields : DenoisingFields
        The fields of a one-sided interpolant.
    x : Tensor of shape (n, d)
        The state at times[0].
    times : Tensor of shape (k,)
        The grid.

    Returns
    -------
    state : Tensor of shape (n, d)
        The state at times[-1].

    Raises
    ------
    ValueError
        When the interpolant is not one-sided.
    """
    path = fields.interpolant
    if path.path_type != "one-sided":
        raise ValueError(
            f"solver='denoising' needs a standard normal base, but the interpolant is {path.path_type!r}: fit one "
            "sample, or use solver='auto'."
        )
    for t, t_next in itertools.pairwise(times.to(x)):
        x = path.alpha(t_next) * fields.denoiser(t, x) + path.beta(t_next) * fields.target(t, x)
    return x


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


# The solver's own estimate of the error of the first level is about ten times too large, so that it can be trusted
# alone. This margin is taken away when there is a second level to compare with.
_OWN_MARGIN = 10.0


def refine(solve: Callable, n_rows: int, tolerance: float, levels: Sequence) -> tuple[Tensor, Tensor]:
    """Solve each row at finer and finer levels until its estimated error is within the tolerance.

    error_k = max(g_k / 4, g_{k-1} / 32),    g_k = |solution at level k - solution at level k - 1|

    Half the step reduces the error of a fifth-order method by a factor of 32; the rest is margin. The second term
    guards against accidental agreement of two levels. The error of the first level is the solver's own estimate, and
    g_0 is a tenth of it; if there is none, each row is solved at three levels at least. Only the rows that miss the
    tolerance are solved again, and the decision on a row uses its own values alone, so that its solution does not
    depend on the other rows.

    Parameters
    ----------
    solve : callable
        A function (rows, level) -> (parts of shape (m, k), size of shape (m,) or 1, error of shape (m,) or None). The
        distance between two levels is that of their parts, divided by the size.
    n_rows : int
        Number of rows.
    tolerance : float
        Largest allowed error.
    levels : sequence
        The levels, beginning with the coarsest.

    Returns
    -------
    parts : Tensor of shape (n_rows, k)
        The parts of each row at its finest level.
    error : Tensor of shape (n_rows,)
        The estimated error of each row.
    """
    parts, _, own = solve(torch.arange(n_rows), levels[0])
    first = 2 if own is None else 1
    error = torch.full_like(parts[:, 0], torch.inf) if own is None else own.nan_to_num(nan=torch.inf)
    missed = ~(error <= tolerance) & torch.isfinite(parts).all(1)
    last_gap = torch.zeros_like(error[missed]) if own is None else error[missed] / _OWN_MARGIN
    rows, coarse = missed.nonzero()[:, 0], parts[missed]
    for k, level in enumerate(levels[1:], 1):
        if not len(rows):
            break
        fine, size, _ = solve(rows.cpu(), level)
        gap = torch.nan_to_num((fine - coarse).norm(dim=1) / size, nan=torch.inf)
        stated = torch.maximum(gap / 4, last_gap / 32)
        parts[rows], error[rows] = fine, stated
        missed = (stated > tolerance) | (k < first)
        # A distance that grows from level to level is rounding error, to which finer grids would only add.
        missed &= (gap <= last_gap) | (k < 4)
        missed &= torch.isfinite(fine).all(1)
        rows, coarse, last_gap = rows[missed], fine[missed], gap[missed]
    return parts, error
