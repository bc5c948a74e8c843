"""Schroedinger bridges in closed form: plans whose potential is a mixture of quadratic exponentials."""

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.cluster import KMeans
from torch import Tensor, nn

from .._utils.names import registered
from ..couplings import conditional_covariance

# Largest number of rows of each end that a mixture is fitted to.
_MOST_ROWS = 16_384
# Rows of each end to which mixtures are fitted while their number of components is chosen.
_TRIAL_ROWS = 2048
# Rows of each end by which the number is chosen.
_VALIDATION_ROWS = 1000
# Fewest rows of each end for each component.
_LEAST_ROWS = 20
# Nats by which more components must lead.
_LEAST_GAIN = 0.01
# Numbers of components that are tried.
_COMPONENTS = (1, 4, 16)
# Steps of L-BFGS in the fit that is kept.
_STEPS = 100
# Steps of L-BFGS in the fits that are compared.
_TRIAL_STEPS = 50
# Least S_k along a column, in units of the S of two normal distributions: where rows repeat, the best component
# would be a point, and its density infinite.
_FLOOR = 0.01
# Share of the time for what is tried before the fit that is kept.
_TRIAL_SHARE = 0.4
# Products that a core does in a second, steps included, of a row, a component and two columns: 2e9 in 64 columns on a
# core that has nothing else to do.
_CELLS_A_SECOND = 1.2e9
# Steps that the time has to leave for.
_LEAST_STEPS = 25
# Starts from different clusters.
_STARTS = 4
# Steps after which the best start is chosen.
_SHORT = 15


# Log-weights, shifts and Cholesky factors of a mixture.
Parts = tuple[Tensor, Tensor, Tensor]


@registered("bridge.MixturePotential")
class MixturePotential(nn.Module):
    """The bridge from any distribution at t = 0 whose plan has mixtures of normal distributions as conditionals.

    plan(x1 | x0) ~ exp(x0 . x1 / 2 epsilon) sum_k a_k N(x1; r_k, 2 epsilon S_k)
                  = sum_k w_k(x0) N(x1; r_k + S_k x0, 2 epsilon S_k)

    Every such plan is that of a Schroedinger bridge between its own ends (arXiv 2310.01174), with the drift
    u(t, x) = sum_k w_k(t, x) (1 - t + t S_k)^-1 (r_k + (S_k - 1) x), which is finite up to t = 1.

    Parameters
    ----------
    epsilon : float
        The diffusion.
    centre : Tensor of shape (d,)
        What is taken from x0 and x1 alike before the formulas; the plan does not depend on it.
    log_weights : Tensor of shape (k,)
    shifts : Tensor of shape (k, d)
        r_k, of centred rows.
    matrices : Tensor of shape (k, d, d)
        S_k, symmetric and positive.
    """

    centre: Tensor
    log_weights: Tensor
    axes: Tensor
    shifts: Tensor
    values: Tensor

    def __init__(self, epsilon: float, centre: Tensor, log_weights: Tensor, shifts: Tensor, matrices: Tensor) -> None:
        super().__init__()
        self.epsilon = epsilon
        values, axes = torch.linalg.eigh(matrices)
        self.register_buffer("centre", centre)
        self.register_buffer("log_weights", log_weights)
        # coordinates along the axes of each component, side by side: (d, k * d)
        self.register_buffer("axes", axes.permute(1, 0, 2).flatten(1))
        self.register_buffer("shifts", torch.einsum("kij,ki->kj", axes, shifts))
        self.register_buffer("values", values.clamp(min=1e-12))

    @property
    def frames(self) -> Tensor:
        """The axes of each component, as columns, of shape (k, d, d)."""
        return self.axes.unflatten(1, self.values.shape).permute(1, 0, 2)

    @property
    def matrices(self) -> Tensor:
        """S_k."""
        return self.frames @ (self.values[..., None] * self.frames.transpose(1, 2))

    @property
    def centred_shifts(self) -> Tensor:
        """r_k."""
        return torch.einsum("kij,kj->ki", self.frames, self.shifts)

    def spread_at(self, t: Tensor) -> Tensor:
        """1 - t + t S_k along the axes, of shape (..., k, d)."""
        t = t[..., None, None]
        return 1 - t + t * self.values

    def components(self, spread: Tensor, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior weights (n, k), and the drifts of the components along their axes (n, k, d)."""
        y = ((x - self.centre) @ self.axes).unflatten(-1, self.values.shape)
        displacement = self.shifts + (self.values - 1) * y
        energy = (y * (self.shifts + displacement) - t[..., None, None] * self.shifts.square()) / spread
        logits = self.log_weights - 0.5 * spread.log().sum(-1) + energy.sum(-1) / (4 * self.epsilon)
        return torch.softmax(logits, -1), displacement / spread

    def from_axes(self, weights: Tensor, values: Tensor) -> Tensor:
        """The weighted sum over components of vectors along their axes."""
        return (weights[..., None] * values).flatten(-2) @ self.axes.T

    def drift(self, t: Tensor, x: Tensor, spread: Tensor | None = None) -> Tensor:
        """u(t, x)."""
        return self.from_axes(*self.components(self.spread_at(t) if spread is None else spread, t, x))

    def drift_and_divergence(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """u(t, x) and its exact divergence: u is 2 epsilon times the gradient of a log-sum of exponentials."""
        spread = self.spread_at(t)
        weights, drifts = self.components(spread, t, x)
        u = self.from_axes(weights, drifts)
        trace = (weights * ((self.values - 1) / spread).sum(-1)).sum(-1)
        variance = (weights * drifts.square().sum(-1)).sum(-1) - u.square().sum(-1)
        return u, trace + variance / (2 * self.epsilon)

    def mean(self, x0: Tensor) -> Tensor:
        """E[x1 | x0] of the plan."""
        return x0 + self.drift(torch.zeros((), dtype=x0.dtype, device=x0.device), x0)

    def draw(self, x0: Tensor, generator: torch.Generator) -> Tensor:
        """X1 drawn from the plan, a row for each row of x0."""
        zero = torch.zeros((), dtype=x0.dtype, device=x0.device)
        weights, drifts = self.components(self.spread_at(zero), zero, x0)
        chosen = torch.multinomial(weights, 1, generator=generator)[:, 0]
        noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device=x0.device)
        moved = drifts[torch.arange(len(x0)), chosen] + (2 * self.epsilon * self.values[chosen]).sqrt() * noise
        frames, partners = self.frames, x0.clone()
        for k in range(len(self.values)):
            rows = chosen == k
            partners[rows] += moved[rows] @ frames[k].T
        return partners


def normal_potential(
    mean0: np.ndarray, covariance0: np.ndarray, mean1: np.ndarray, covariance1: np.ndarray, epsilon: float
) -> MixturePotential:
    """The bridge between two normal distributions, in double precision: one component."""
    matrix = conditional_covariance(covariance0, covariance1, epsilon) / (2 * epsilon)
    parts = (mean0, np.zeros(1), (mean1 - mean0)[None], matrix[None])
    return MixturePotential(epsilon, *(torch.as_tensor(part, dtype=torch.float64) for part in parts))


def fit_potential(
    x0: Tensor, x1: Tensor, epsilon: float, n_components: int, generator: torch.Generator, seconds: float | None = None
) -> MixturePotential:
    """The potential whose plan is nearest to that of the Schroedinger bridge between two samples.

    min_a,r,S  E log sum_k a_k exp[(x0 . S_k x0 + 2 r_k . x0) / 4 epsilon] - E log sum_k a_k N(x1; r_k, 2 epsilon S_k)

    which is KL(bridge || plan) up to a constant (arXiv 2310.01174). With one component the minimiser is that of two
    normal distributions with the moments of the samples; more components start from clusters of x1.

    Parameters
    ----------
    x0, x1 : Tensor of shape (n, d)
        Rows of both ends.
    epsilon : float
    n_components : int or "auto"
        "auto" tries 1, 4, 16 and takes what is best on held-out rows.
    generator : torch.Generator
    seconds : float, default=None
        A limit on the time. Fewer rows are then taken where a step of all would take long, and the best mixture within
        it is returned, which is at the least the start from clusters.

    Returns
    -------
    MixturePotential
        In double precision.
    """
    clock = Clock(seconds)
    x0, x1 = (x[torch.randperm(len(x), generator=generator, device=x.device)].cpu().double() for x in (x0, x1))
    if n_components == "auto":
        n_components = _choose_components(x0, x1, epsilon, generator, clock)
    return _fit(x0, x1, epsilon, n_components, generator, clock=clock)


class Clock:
    """What is left of a limit of time, in seconds; None is no limit."""

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds, self.end = seconds, math.inf if seconds is None else time.perf_counter() + seconds

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return time.perf_counter() > self.end

    def part(self, share: float) -> "Clock":
        """One that ends after a share of what is left."""
        return self if self.seconds is None else Clock(share * max(self.end - time.perf_counter(), 0.0))

    def rows(self, n_components: int, n_features: int) -> int:
        """The largest number of rows of which enough steps can be taken."""
        if self.seconds is None:
            return _MOST_ROWS
        left = max(self.end - time.perf_counter(), 0.0)
        affordable = left * _CELLS_A_SECOND / (_LEAST_STEPS * n_components * n_features**2)
        return min(_MOST_ROWS, max(_LEAST_ROWS * n_components, round(affordable)))


def _choose_components(x0: Tensor, x1: Tensor, epsilon: float, generator: torch.Generator, clock: "Clock") -> int:
    """The number of components that is best on held-out rows; more are tried as long as they gain."""
    val = min(_VALIDATION_ROWS, min(len(x0), len(x1)) // 5)
    kept = slice(val, val + _TRIAL_ROWS)
    best, chosen, clock = math.inf, 1, clock.part(_TRIAL_SHARE)
    for k in _COMPONENTS:
        if clock.is_over:
            break
        if _LEAST_ROWS * k > min(len(x0), len(torch.unique(x1[kept], dim=0))):
            break
        potential = _fit(x0[kept], x1[kept], epsilon, k, generator, _TRIAL_STEPS, clock.part(_TRIAL_SHARE))
        loss = float(_losses(potential, x0[:val], x1[:val]).mean())
        if not loss < best - _LEAST_GAIN:
            break
        best, chosen = loss, k
    return chosen


def _moments(x: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance, whose diagonal is raised by a millionth and by what a column has at the least."""
    covariance = torch.cov(x.T).reshape(x.shape[1], x.shape[1])
    return x.mean(0), covariance + torch.diag(1e-6 * covariance.diagonal() + least)


def _fit(
    x0: Tensor, x1: Tensor, epsilon: float, n_components: int, generator: torch.Generator, steps: int = _STEPS,
    clock: Clock = Clock(),  # noqa: B008
) -> MixturePotential:  # fmt: skip
    least = 1e-9 * (x0.var(0) + x1.var(0)) + 1e-30
    (m0, c0), (m1, c1) = _moments(x0, least), _moments(x1, least)
    n_components = min(n_components, len(torch.unique(x1[:_MOST_ROWS], dim=0)))
    if n_components == 1:
        return normal_potential(m0.numpy(), c0.numpy(), m1.numpy(), c1.numpy(), epsilon)
    most = clock.rows(n_components, x0.shape[1])
    x0, x1 = x0[:most] - m0, x1[:most] - m0
    # different clusterings lead to different minima: the best after a few steps is fitted to the end
    few = x0[:_TRIAL_ROWS], x1[:_TRIAL_ROWS]
    floor = torch.diag(_FLOOR * (c1.diagonal() / c0.diagonal()).sqrt())
    short, found = clock.part(_TRIAL_SHARE), []
    for _ in range(_STARTS):
        start = _clusters(x1, c0, epsilon, n_components, generator, least)
        found.append(_descend(*few, epsilon, start, _SHORT, floor, short))
        if short.is_over:
            break
    _, start = min(found, key=lambda pair: pair[0])
    weights, shifts, factors = _descend(x0, x1, epsilon, start, steps, floor, clock)[1]
    return MixturePotential(epsilon, m0, weights, shifts, factors @ factors.transpose(1, 2) + floor)


def _clusters(
    x1: Tensor, c0: Tensor, epsilon: float, n_components: int, generator: torch.Generator, least: Tensor
) -> Parts:
    """Weights, shifts and Cholesky factors of a start: what a normal base needs to reach each cluster of x1."""
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator, device=generator.device))
    labels = torch.as_tensor(KMeans(n_components, n_init=1, random_state=seed).fit(x1.numpy()).labels_)
    weights = torch.bincount(labels, minlength=n_components).double().clamp(min=1)
    centres = torch.stack([x1[labels == k].mean(0) for k in range(n_components)])
    within = _moments(x1 - centres[labels], least)[1]
    matrix = torch.as_tensor(conditional_covariance(c0.numpy(), within.numpy(), epsilon) / (2 * epsilon))
    # a cluster may be one point
    matrix = matrix + torch.diag(_FLOOR * (x1.var(0) / c0.diagonal()).sqrt() + 1e-12)
    factors = torch.linalg.cholesky(matrix).expand(n_components, -1, -1)
    return (weights / weights.sum()).log(), centres, factors


def _objective(
    x0: Tensor,
    x1: Tensor,
    epsilon: float,
    log_weights: Tensor,
    shifts: Tensor,
    factors: Tensor,
    floor: Tensor | float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The loss a row of each end, of S_k = L_k L_k^T + floor."""
    if isinstance(floor, Tensor):
        factors = torch.linalg.cholesky(factors @ factors.transpose(1, 2) + floor)
    log_weights = log_weights - torch.logsumexp(log_weights, 0)
    pushed = torch.einsum("nd,kde->nke", x0, factors)
    from0 = torch.logsumexp(log_weights + (pushed.square().sum(-1) + 2 * x0 @ shifts.T) / (4 * epsilon), 1)
    inverse = torch.linalg.solve_triangular(factors, torch.eye(x0.shape[1], dtype=x0.dtype), upper=False)
    white = torch.einsum("ked,nkd->nke", inverse, x1[:, None] - shifts)
    log_determinant = factors.diagonal(dim1=1, dim2=2).abs().log().sum(1)
    constant = 0.5 * x0.shape[1] * math.log(4 * math.pi * epsilon)
    to1 = torch.logsumexp(log_weights - white.square().sum(-1) / (4 * epsilon) - log_determinant, 1) - constant
    return from0, to1


def _losses(potential: MixturePotential, x0: Tensor, x1: Tensor) -> Tensor:
    """Terms of the loss of held-out rows, as many as the shorter end has."""
    factors = torch.linalg.cholesky(potential.matrices)
    ends = x0 - potential.centre, x1 - potential.centre
    from0, to1 = _objective(*ends, potential.epsilon, potential.log_weights, potential.centred_shifts, factors)
    n = min(len(from0), len(to1))
    return from0[:n] - to1[:n]


def _descend(
    x0: Tensor, x1: Tensor, epsilon: float, start: Parts, steps: int, floor: Tensor | float = 0.0,
    clock: Clock = Clock(),  # noqa: B008
) -> tuple[float, Parts]:  # fmt: skip
    """The loss after some steps of L-BFGS, or within the time, and its weights, shifts and factors."""
    lower = torch.tril_indices(x0.shape[1], x0.shape[1])
    shapes = [start[0].shape, start[1].shape, (len(start[0]), lower.shape[1])]
    sizes = [math.prod(shape) for shape in shapes]
    flat = torch.cat([start[0], start[1].flatten(), start[2][:, lower[0], lower[1]].flatten()])

    def parts(vector: Tensor) -> Parts:
        weights, shifts, entries = (v.reshape(s) for v, s in zip(vector.split(sizes), shapes, strict=True))
        factors = torch.zeros((len(weights), x0.shape[1], x0.shape[1]), dtype=x0.dtype)
        factors[:, lower[0], lower[1]] = entries
        return weights, shifts, factors

    def value_and_gradient(vector: np.ndarray) -> tuple[float, np.ndarray]:
        with torch.enable_grad():
            point = torch.tensor(vector, requires_grad=True)
            weights, shifts, factors = parts(point)
            from0, to1 = _objective(x0, x1, epsilon, weights, shifts, factors, floor)
            loss = from0.mean() - to1.mean()
            (gradient,) = torch.autograd.grad(loss, point)
        return loss.item(), gradient.numpy()

    value, vector = _lbfgs(value_and_gradient, flat.numpy(), steps, clock)
    weights, shifts, factors = parts(torch.as_tensor(vector))
    return value, (weights - torch.logsumexp(weights, 0), shifts, factors)


class _OutOfTimeError(Exception):
    """The end of a minimisation that has no more time."""


def _lbfgs(
    value_and_gradient: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray, steps: int, clock: Clock
) -> tuple[float, np.ndarray]:
    """The least value that L-BFGS finds in some steps or in the time, and where it is."""
    best: tuple[float, np.ndarray] = (math.inf, start)

    def told(vector: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best
        if best[0] < math.inf and clock.is_over:
            raise _OutOfTimeError
        value, gradient = value_and_gradient(vector)
        if value < best[0]:
            best = value, vector.copy()
        return value, gradient

    try:
        found = minimize(told, start, jac=True, method="L-BFGS-B", options={"maxiter": steps})
    except _OutOfTimeError:
        return best
    return found.fun, found.x
