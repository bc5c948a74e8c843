"""Couplings: how rows of the base and rows of the target are paired in training."""

import copy
import math
import numbers
import warnings
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from ._utils.names import registered
from .interpolants import Interpolant

__all__ = ["COUPLINGS", "Coupling", "Entropic", "Optimal", "entropic_plan", "independent", "optimal_pairs", "paired"]

# Rows of the base, rows of the target, and the conditions of the latter.
Pairs = tuple[Tensor, Tensor, Tensor | None]

# Largest number of Sinkhorn iterations.
_MOST_STEPS = 5000
# Iterations by matrix products between two iterations in logarithms, after which the error is checked.
_PRODUCTS = 20
# Share of the variances that is added to the diagonal of a covariance, so that it is regular with few rows.
_RIDGE = 1e-6


class Coupling:
    """How rows of the two samples are paired in training.

    (x0, x1) ~ a joint distribution whose marginals are the base rho0 and the target rho1

    (arXiv 2303.08797, Definition 2.1; minibatch couplings are from arXiv 2302.00482). A subclass defines `__call__`,
    and its attributes say how the training loop draws the rows that it passes.
    """

    # Whether row i of the base belongs to row i of the target, so that the same row numbers are drawn from both.
    row_by_row = False
    # Whether batches are drawn from pools of pairs, because pairing costs more than a training step.
    pooled = False
    # Number of rows that a pooled coupling pairs at a time.
    batch_size: int
    # Number of times that a pooled coupling's pairs are used.
    passes: int
    # Whether the pairs are the rows as they were drawn, so that there is nothing to call.
    as_drawn = False

    def check(self) -> None:
        """Raise a ValueError if the parameters are invalid."""

    def tied_to(self, interpolant: Interpolant) -> "Coupling":
        """The coupling for this interpolant, which may determine its parameters."""
        return self

    def __call__(self, x0: Tensor, x1: Tensor, condition: Tensor | None, generator: torch.Generator) -> Pairs:
        """The pairs that are made from equally many rows of both samples, in scaled units."""
        return x0, x1, condition


@registered("couplings.Independent")
class Independent(Coupling):
    """Pair rows at random: the product rho0 x rho1 of the base and the target.

    The training loop draws both rows independently, so nothing is left to do.
    """

    as_drawn = True


@registered("couplings.NearestImage")
class NearestImage(Coupling):
    """Pair rows at random on circles: normal rows become those of the base, targets the images nearest to them.

    Parameters
    ----------
    path : TorusPath
    """

    def __init__(self, path: Interpolant) -> None:
        self.path = path

    def __call__(self, x0: Tensor, x1: Tensor, condition: Tensor | None, generator: torch.Generator) -> Pairs:
        """Rows of the base, and the nearest images of x1."""
        x0 = self.path.base_from_normal(x0)
        return x0, self.path.nearest(x0, x1), condition


@registered("couplings.Paired")
class Paired(Coupling):
    """Pair row i of the base with row i of the target, as they are given."""

    as_drawn = True
    row_by_row = True


@registered("couplings.OwnCoupling")
class OwnCoupling(Coupling):
    """Pair rows by a user's function.

    Parameters
    ----------
    function : callable
        Maps (x0, x1, condition, generator), in scaled units, to pairs (x0, x1, condition).
    """

    def __init__(self, function: Callable[..., Pairs]) -> None:
        self.function = function

    def __call__(self, x0: Tensor, x1: Tensor, condition: Tensor | None, generator: torch.Generator) -> Pairs:
        """The pairs of the user's function."""
        return self.function(x0, x1, condition, generator)


@registered("couplings.OwnPairs")
class OwnPairs(Coupling):
    """Pair rows of the base with the end points of a fitted model's process that starts from them.

    Parameters
    ----------
    noise_level : float
        The diffusion of the process, in scaled units; 0 is the ODE.
    """

    def __init__(self, noise_level: float) -> None:
        self.noise_level = noise_level


independent, paired = Independent(), Paired()


def as_coupling(coupling: "str | Coupling | Callable[..., Pairs]") -> Coupling:
    """The checked coupling for an estimator's parameter `coupling`.

    Raises
    ------
    ValueError
        When it is a class in place of an instance, or has invalid parameters.
    """
    if isinstance(coupling, type):
        raise ValueError(
            f"Got the class coupling={coupling.__name__}, but expected an instance: {coupling.__name__}()."
        )
    if isinstance(coupling, str):
        return COUPLINGS[coupling]
    found = coupling if isinstance(coupling, Coupling) else OwnCoupling(coupling)
    found.check()
    return found


@registered("couplings.Optimal")
class Optimal(Coupling):
    """Pair rows by the plan of least mean squared distance: minibatch optimal transport.

    argmin over permutations p of sum_i |x0_i - x1_p(i)|^2    (distances in scaled units)

    (arXiv 2302.00482). The plan is exact within a batch. The pairs follow the optimal plan of the two distributions up
    to a bias that falls with the batch size, slowly in many dimensions. The base and the target are unbiased in any
    case. With a condition c of the target, conditions c0 are drawn at random for the base rows, and w |c0 - c1|^2 is
    added to the cost: a base row is then independent of the condition, and conditional models are not biased.

    Parameters
    ----------
    batch_size : int, default=1024
        Number of rows that are paired at a time. Two samples of equal length, at most twice this number, are paired as
        a whole.
    passes : int, default=16
        Number of times that the pairs of a batch are used in training, before new ones are made.
    condition_weight : float, default=10.0
        The weight w, in units of the mean squared distance of x over that of c.

    Examples
    --------
    >>> import torch
    >>> from sklearn_si.couplings import Optimal
    >>> x0, x1, _ = Optimal()(torch.tensor([[0.0], [1.0]]), torch.tensor([[5.0], [4.0]]), None, None)
    >>> x1[:, 0]
    tensor([4., 5.])
    """

    pooled = True

    def __init__(self, batch_size: int = 1024, passes: int = 16, condition_weight: float = 10.0) -> None:
        self.batch_size, self.passes, self.condition_weight = batch_size, passes, condition_weight

    def check(self) -> None:
        """Raise a ValueError if the parameters are invalid."""
        _check_counts(self, batch_size=2, passes=1)

    def __call__(self, x0: Tensor, x1: Tensor, condition: Tensor | None, generator: torch.Generator) -> Pairs:
        """The rows of x0, and the rows of x1 and of its condition that they are paired with."""
        penalty = _condition_cost(x0, x1, condition, self.condition_weight, generator)
        rows = torch.as_tensor(optimal_pairs(x0, x1, penalty), device=x1.device)
        return x0, x1[rows], None if condition is None else condition[rows]


@registered("couplings.Entropic")
class Entropic(Coupling):
    """Pair rows by the entropic plan: the joint distribution of start and end of a Schroedinger bridge.

    argmin over plans P of E_P|x0 - x1|^2 + 4 epsilon KL(P || rho0 x rho1)    (distances in scaled units)

    (Peyre & Cuturi 2019, "Computational optimal transport", arXiv 1803.00567, equation (4.2)). With a linear I and
    gamma^2 = 2 epsilon t (1 - t), the interpolant of these pairs has the marginals of the Schroedinger bridge of
    diffusion epsilon, and b + epsilon s is its drift. The plan between two batches is found by Sinkhorn's algorithm in
    logarithms, and pairs are drawn from it.

    Parameters
    ----------
    epsilon : float or None, default=None
        The diffusion, in squared scaled units per unit of time. None takes gamma_scale / 2 from an interpolant with the
        brownian gamma.
    batch_size, passes, condition_weight
        As in `Optimal`.
    draws : int, default=4
        Number of partners that are drawn for each row of the base.

    Examples
    --------
    >>> import torch
    >>> from sklearn_si.couplings import Entropic
    >>> x0, x1 = torch.zeros(3, 2), torch.ones(3, 2)
    >>> start, end, _ = Entropic(epsilon=1.0)(x0, x1, None, torch.Generator())
    >>> start.shape, end.shape
    (torch.Size([12, 2]), torch.Size([12, 2]))
    """

    def __init__(
        self,
        epsilon: float | None = None,
        batch_size: int = 1024,
        passes: int = 4,
        condition_weight: float = 10.0,
        draws: int = 4,
    ) -> None:
        self.epsilon, self.batch_size, self.passes = epsilon, batch_size, passes
        self.condition_weight, self.draws = condition_weight, draws

    pooled = True

    def check(self) -> None:
        """Raise a ValueError if the parameters are invalid."""
        _check_counts(self, batch_size=2, passes=1, draws=1)
        if self.epsilon is not None and not self.epsilon > 0:
            raise ValueError(f"Got Entropic(epsilon={self.epsilon!r}), but expected None or a number above 0.")

    def tied_to(self, interpolant: Interpolant) -> "Entropic":
        """The coupling with the epsilon of the interpolant, gamma^2 = 2 epsilon t (1 - t)."""
        if self.epsilon is not None:
            return self
        middle = torch.tensor([0.25, 0.5], dtype=torch.float64)
        a = interpolant.gamma(middle) ** 2 / (middle * (1 - middle))
        if not interpolant.has_noise or not bool(torch.isclose(a[0], a[1])):
            raise ValueError(
                "coupling='entropic' takes its epsilon from the brownian gamma, gamma^2 = gamma_scale t (1 - t): use "
                "gamma='brownian' (InterpolantDiffusion's default), or pass couplings.Entropic(epsilon)."
            )
        tied = copy.copy(self)
        tied.epsilon = float(a[0]) / 2
        return tied

    def __call__(self, x0: Tensor, x1: Tensor, condition: Tensor | None, generator: torch.Generator) -> Pairs:
        """The pairs that are drawn from the plan, `draws` for each row of x0."""
        if self.epsilon is None:
            raise ValueError(
                "Entropic() was called with epsilon=None: pass a number above 0, or use coupling='entropic' in an "
                "estimator, which takes it from gamma."
            )
        penalty = _condition_cost(x0, x1, condition, self.condition_weight, generator)
        plan = entropic_plan(x0, x1, self.epsilon, penalty)
        rows = torch.multinomial(plan, self.draws, replacement=True, generator=generator).flatten()
        return x0.repeat_interleave(self.draws, 0), x1[rows], None if condition is None else condition[rows]


def _check_counts(coupling: Optimal | Entropic, **least: int) -> None:
    for name, smallest in least.items():
        value = vars(coupling)[name]
        if not isinstance(value, numbers.Integral) or value < smallest:
            raise ValueError(
                f"Got {name}={value!r} in {type(coupling).__name__}, but expected an integer of at least {smallest}."
            )


def _condition_cost(
    x0: Tensor, x1: Tensor, condition: Tensor | None, weight: float, generator: torch.Generator
) -> Tensor | None:
    """The cost of pairing rows of different conditions, of shape (n, m), with random conditions for x0; or None."""
    if condition is None:
        return None
    given = condition[torch.randint(len(condition), (len(x0),), generator=generator, device=condition.device)]
    if len(x0) == len(condition):  # each condition is then used once
        given = condition[torch.randperm(len(condition), generator=generator, device=condition.device)]
    penalty = torch.cdist(given.double(), condition.double()).square()
    distance = (x0.double().var(0).sum() + x1.double().var(0).sum()) if len(x0) > 1 else torch.ones(())
    return weight * distance / penalty.mean().clamp(min=1e-12) * penalty


def _gaussian_map(covariance0: np.ndarray, covariance1: np.ndarray) -> np.ndarray:
    """The matrix of the optimal map between two centred normal distributions."""
    values, axes = np.linalg.eigh(covariance0)
    root = (axes * np.sqrt(values)) @ axes.T
    inverse = (axes / np.sqrt(values)) @ axes.T
    values, axes = np.linalg.eigh(root @ covariance1 @ root)
    return inverse @ (axes * np.sqrt(values.clip(min=0))) @ axes.T @ inverse


def _covariance(x: np.ndarray) -> np.ndarray:
    covariance = np.atleast_2d(np.cov(x.T)) if len(x) > 1 else np.zeros((x.shape[1],) * 2)
    return covariance + np.diag(_RIDGE * np.diag(covariance) + 1e-12 * np.trace(covariance) + 1e-30)


def _quadratic(x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return ((x @ matrix) * x).sum(1)


def optimal_pairs(x0: Tensor, x1: Tensor, penalty: Tensor | None = None) -> np.ndarray:
    """The rows of x1 that the rows of x0 are paired with, so that the total squared distance is least.

    argmin over permutations p of sum_i |x0_i - x1_p(i)|^2 + penalty_{i, p(i)}

    A cost that a row has with every partner alike does not change the plan. The Kantorovich potentials of two normal
    distributions with the moments of the samples are subtracted from the cost, which makes the solver two to ten times
    faster.

    Parameters
    ----------
    x0, x1 : Tensor of shape (n, d)
        Equally many rows, in scaled units when called in training.
    penalty : Tensor of shape (n, n), default=None
        A cost that is added to the squared distances.

    Returns
    -------
    rows : ndarray of shape (n,)
        Row numbers p of x1.

    Raises
    ------
    ValueError
        When the samples have different numbers of rows.
    """
    if len(x0) != len(x1):
        raise ValueError(
            f"Optimal pairs need equally many rows, but got {len(x0)} and {len(x1)}: draw as many from both samples."
        )
    # The plan does not change when either sample is shifted.
    rows0, rows1 = (x.detach().cpu().double().numpy() for x in (x0, x1))
    rows0, rows1 = rows0 - rows0.mean(0), rows1 - rows1.mean(0)
    s0, s1 = _covariance(rows0), _covariance(rows1)
    cost = _quadratic(rows0, _gaussian_map(s0, s1))[:, None] + _quadratic(rows1, _gaussian_map(s1, s0))
    cost = cost - 2 * rows0 @ rows1.T
    if penalty is not None:
        cost = cost + penalty.cpu().numpy()
    return linear_sum_assignment(cost)[1]


@torch.no_grad()
def entropic_plan(x0: Tensor, x1: Tensor, epsilon: float, penalty: Tensor | None = None, tol: float = 1e-3) -> Tensor:
    """The entropic transport plan between two samples.

    argmin over plans P of sum_ij P_ij |x0_i - x1_j|^2 + 4 epsilon KL(P || product of the marginals)

    by Sinkhorn's algorithm, u = a / (K v) and v = b / (K^T u) (Peyre & Cuturi 2019, arXiv 1803.00567, equation (4.15)).
    From time to time u and v are absorbed into the exponents of K, so that nothing overflows for a small epsilon. The
    first potentials are those of two normal distributions.

    Parameters
    ----------
    x0 : Tensor of shape (n, d)
        Rows of the base, in scaled units when called in training.
    x1 : Tensor of shape (m, d)
        Rows of the target, in the same units.
    epsilon : float
        The diffusion of the bridge, in the same units squared.
    penalty : Tensor of shape (n, m), default=None
        A cost that is added to the squared distances.
    tol : float, default=1e-3
        The total variation between the first marginal of the plan and equal weights at which the iterations end.

    Returns
    -------
    plan : Tensor of shape (n, m)
        In double precision and with total mass 1; the sums of the columns are exactly 1 / m.

    Warns
    -----
    ConvergenceWarning
        When the tolerance was not reached after 5,000 iterations.

    Examples
    --------
    >>> import torch
    >>> from sklearn_si.couplings import entropic_plan
    >>> entropic_plan(torch.tensor([[0.0], [9.0]]), torch.tensor([[0.0], [9.0]]), 0.1).round(decimals=4)
    tensor([[0.5000, 0.0000],
            [0.0000, 0.5000]], dtype=torch.float64)
    """
    x0, x1 = x0.double() - x0.double().mean(0), x1.double() - x1.double().mean(0)
    f, g = _gaussian_potentials(x0, x1, epsilon)
    log_kernel = (x0 @ x1.T) / (2 * epsilon) - _half_squares(x0, epsilon)[:, None] - _half_squares(x1, epsilon)
    if penalty is not None:
        log_kernel = log_kernel - penalty.to(log_kernel) / (4 * epsilon)
    log_a, log_b = (-math.log(n) for n in log_kernel.shape)
    for _ in range(_MOST_STEPS // _PRODUCTS):
        f = log_a - torch.logsumexp(log_kernel + g, 1)
        g = log_b - torch.logsumexp(log_kernel + f[:, None], 0)
        kernel = torch.exp(log_kernel + f[:, None] + g)
        # The sums of the columns are exact after the second update.
        missed = float((kernel.sum(1) - math.exp(log_a)).abs().sum() / 2)
        if missed <= tol:
            return kernel
        u, v = _products(kernel, math.exp(log_a), math.exp(log_b))
        f, g = f + u.log(), g + v.log()
    warnings.warn(
        f"Sinkhorn's algorithm did not converge in {_MOST_STEPS} iterations: the marginals of the plan differ from "
        f"equal weights by {missed:.2g} (total variation), because epsilon={epsilon:g} is small for these distances. "
        "Use coupling='optimal', or a larger epsilon.",
        ConvergenceWarning,
        stacklevel=2,
    )
    return kernel


def _half_squares(x: Tensor, epsilon: float) -> Tensor:
    return x.square().sum(1) / (4 * epsilon)


def _products(kernel: Tensor, a: float, b: float) -> tuple[Tensor, Tensor]:
    """Iterations by matrix products alone, which end before u or v leaves the range of floating-point numbers."""
    u, v = torch.ones_like(kernel[:, 0]), torch.ones_like(kernel[0])
    for _ in range(_PRODUCTS):
        new_u = a / (kernel @ v)
        new_v = b / (kernel.T @ new_u)
        extreme = torch.cat([new_u, new_v]).log().abs().amax()
        if not bool(extreme < 100):
            break
        u, v = new_u, new_v
    return u, v


def _gaussian_potentials(x0: Tensor, x1: Tensor, epsilon: float) -> list[Tensor]:
    """Potentials of the entropic plan between two centred normal distributions, at the rows of both samples."""
    s0, s1 = (_covariance(x.cpu().numpy()) for x in (x0, x1))
    conditional = [conditional_covariance(*pair, epsilon) for pair in ((s1, s0), (s0, s1))]
    one = np.eye(len(s0))
    potentials = []
    for x, s, c in zip((x0, x1), (s0, s1), conditional, strict=True):
        matrix = np.linalg.inv(c) - np.linalg.inv(s) - one / (2 * epsilon)
        potentials.append(-0.5 * ((x @ torch.as_tensor(matrix).to(x)) * x).sum(1))
    return potentials


def conditional_covariance(s0: np.ndarray, s1: np.ndarray, epsilon: float) -> np.ndarray:
    """The covariance of x1 given x0 in the Schroedinger bridge of diffusion epsilon between N(., s0) and N(., s1).

    It is 2 epsilon times the symmetric matrix S of E[x1 | x0] = m1 + S (x0 - m0).
    """
    values, axes = np.linalg.eigh(s0)
    root, inverse = (axes * np.sqrt(values)) @ axes.T, (axes / np.sqrt(values)) @ axes.T
    values, axes = np.linalg.eigh(root @ s1 @ root)
    # S = S0^(-1/2) [(S0^(1/2) S1 S0^(1/2) + epsilon^2)^(1/2) - epsilon] S0^(-1/2), computed without cancellation.
    values = values.clip(min=0)
    inner = values / (np.sqrt(values + epsilon**2) + epsilon)
    return 2 * epsilon * (inverse @ (axes * inner) @ axes.T @ inverse)


COUPLINGS: dict[str, Coupling] = {
    "independent": independent,
    "paired": paired,
    "optimal": Optimal(),
    "entropic": Entropic(),
}
