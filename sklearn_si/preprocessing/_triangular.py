"""A triangular map: each column centred and scaled by functions of the columns before it."""

import dataclasses
import math
import time
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor
from torch.nn.functional import linear, silu

from .._utils.names import registered
from ._maps import AffineMap, fit_one_sample_map

# Units of each of the two hidden layers.
_WIDTH = 32
# Bound of the logarithm of a scale.
_LARGEST_LOG_SCALE = 6.0
# Rows of a gradient step, the learning rate, and the norm to which gradients are clipped.
_BATCH = 512
_RATE = 0.01
_LARGEST_NORM = 1.0
# Decay of the first and the second moments, and what is added to the roots of the latter.
_BETA1 = 0.9
_BETA2 = 0.999
_EPSILON = 1e-8
# Weights are averaged over this share of the steps so far, and at least ten.
_AVERAGING = 0.1
# Share of the rows by which orders and steps are compared, and the most of them.
_HELD_OUT = 0.1
_MOST_HELD_OUT = 2000
# Share of the steps after which the orders are compared.
_SHORT = 0.15
# Times that the held-out rows are scored in the rest.
_ROUNDS = 12
# Rows of a bin of a column, and its most bins, where pairs of columns are compared.
_ROWS_OF_A_BIN = 50
_MOST_BINS = 16
# Rows by which they are.
_ROWS_OF_PAIRS = 5000
# Rows that are mapped at a time.
_BLOCK = 8192


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long a triangular map is fitted.

    Parameters
    ----------
    steps : int
        Gradient steps.
    seconds : float, default=None
        If given, the limit of time, whatever the steps.
    """

    steps: int = 500
    seconds: float | None = None


def masks_of(d: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The masks of a masked autoregressive network of two hidden layers, and of what leads past them.

    Output k sees inputs 0 to k - 1 (Germain et al. 2015, arXiv 1502.03509, section 3).
    """
    inputs, hidden = torch.arange(d), torch.arange(width) % max(1, d - 1)
    first = hidden[:, None] >= inputs
    second = hidden[:, None] >= hidden
    last = inputs.repeat(2)[:, None] > hidden
    return first.double(), second.double(), last.double(), (inputs[:, None] > inputs).double()


class _Masked:
    """Locations and logarithms of scales of each column, as functions of the columns before it."""

    def __init__(self, values: Sequence[Tensor]) -> None:
        self.values = values
        d, width = values[6].shape[0], values[0].shape[0]
        first, second, last, past = (m.to(values[0].dtype) for m in masks_of(d, width))
        self.masks = first, second, last, past

    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor]:
        w1, b1, w2, b2, w3, b3, skip = self.values
        first, second, last, past = self.masks
        hidden = silu(linear(torch.asinh(u), w1 * first, b1))
        hidden = silu(linear(hidden, w2 * second, b2))
        location, log_scale = linear(hidden, w3 * last, b3).chunk(2, 1)
        return location + linear(u, skip * past), _LARGEST_LOG_SCALE * torch.tanh(log_scale / _LARGEST_LOG_SCALE)


@registered("preprocessing.TriangularMap")
class TriangularMap:
    """Each column centred and scaled by functions of the columns before it, between two maps by column.

    z_k = (u_k - m_k(u_1, ..., u_{k-1})) exp(-s_k(u_1, ..., u_{k-1})),    x' = g(z),    u = f(x)

    One layer of a masked autoregressive flow (Papamakarios et al. 2017, arXiv 1705.07057, section 3.1), with f to mean
    0 and standard deviation 1, and g to a normal distribution of each column.

    Parameters
    ----------
    inner : AffineMap
        The map f.
    order : ndarray of int
        The columns in their order.
    weights : list of ndarray
        Of the network that gives m and s.
    outer : AffineMap or MarginalMap
        The map g.
    """

    def __init__(self, inner, order, weights, outer):
        self.inner, self.order, self.weights, self.outer = inner, order, weights, outer

    def __repr__(self) -> str:
        return f"TriangularMap({self.n_features} columns in the order {self.order.tolist()}, then {self.outer})"

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return self.inner.n_features

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Rows in scaled units, in float64."""
        return self.outer.transform(self._forward(X)[0])

    def inverse_transform(self, X: np.ndarray) -> np.ndarray:
        """Rows in data units, in float64."""
        z = torch.from_numpy(np.ascontiguousarray(self.outer.inverse_transform(X)))
        network = self._network()
        u = torch.cat([_solved(network, block) for block in z.split(_BLOCK)]).numpy()
        return self.inner.inverse_transform(u[:, np.argsort(self.order)])

    def log_abs_det_jacobian(self, X: np.ndarray) -> np.ndarray:
        """The value log |det dx'/dx| at each row, for rows in data units."""
        z, log_det = self._forward(X)
        return log_det - self.inner.log_abs_det + self.outer.log_abs_det_jacobian(z)

    def pull_back_score(self, score: np.ndarray, X: np.ndarray) -> np.ndarray:
        """The gradient of a log-density in data units at rows in data units, from that in scaled units."""
        u = torch.from_numpy(self._ordered(X)).requires_grad_()
        with torch.enable_grad():
            z, log_det = _residuals(self._network(), u)
            on_z = torch.from_numpy(self.outer.pull_back_score(score, z.detach().numpy()))
            (gradient,) = torch.autograd.grad((z * on_z).sum() + log_det.sum(), u)
        return self.inner.pull_back(gradient.numpy()[:, np.argsort(self.order)])

    def _network(self) -> _Masked:
        return _Masked([torch.from_numpy(w) for w in self.weights])

    def _ordered(self, X: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(self.inner.transform(X)[:, self.order])

    @torch.no_grad()
    def _forward(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        network = self._network()
        parts = [_residuals(network, block) for block in torch.from_numpy(self._ordered(X)).split(_BLOCK)]
        z, log_det = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
        return z, log_det


def _residuals(network: _Masked, u: Tensor) -> tuple[Tensor, Tensor]:
    """The rows z, and log |det dz/du|."""
    location, log_scale = network(u)
    return (u - location) * torch.exp(-log_scale), -log_scale.sum(1)


@torch.no_grad()
def _solved(network: _Masked, z: Tensor) -> Tensor:
    """The rows u that lead to z, column by column."""
    u = torch.zeros_like(z)
    for k in range(z.shape[1]):
        location, log_scale = network(u)
        u[:, k] = location[:, k] + torch.exp(log_scale[:, k]) * z[:, k]
    return u


def units_of(X: np.ndarray, weight: np.ndarray | None) -> AffineMap:
    """The map to columns of mean 0 and standard deviation 1."""
    found = fit_one_sample_map(X, "standardize", weight)
    assert isinstance(found, AffineMap)
    return found


def triangular_with(
    X: np.ndarray, weight: np.ndarray | None, order: np.ndarray, weights: list[np.ndarray]
) -> TriangularMap:
    """The map with what `fit_residuals` has found, which ends with marginal maps of the residuals."""
    zero = np.zeros(X.shape[1])
    bare = TriangularMap(units_of(X, weight), order, weights, AffineMap(zero, zero + 1.0))
    bare.outer = fit_one_sample_map(bare.transform(X), "marginal", weight)
    return bare


# The order of the columns and the weights of the network.
Found = tuple[np.ndarray, list[np.ndarray]]


def fit_residuals(
    U: np.ndarray, weight: np.ndarray | None, effort: Effort, seed: int, start: Found | None = None
) -> Found:
    """The order of columns and the weights of the network of highest likelihood, where residuals are normal.

    Parameters
    ----------
    U : ndarray of shape (n_samples, n_features)
        Rows of columns with mean 0 and standard deviation 1.
    weight : ndarray of shape (n_samples,) or None
        Weights of the rows.
    effort : Effort
    seed : int
        Of starts and batches.
    start : tuple, default=None
        What was found before, from which training continues.
    """
    generator = torch.Generator().manual_seed(seed % 2**63)
    rows = torch.randperm(len(U), generator=generator).numpy()
    n_held = max(1, min(_MOST_HELD_OUT, round(_HELD_OUT * len(U))))
    held, train = rows[:n_held], rows[n_held:]
    clock, orders = _Clock(effort), _orders(U[train]) if start is None else [start[0]]
    fits = [_Fit(U, weight, (train, held), order, generator) for order in orders]
    if start is not None:
        fits[0].continue_from(start[1])
    for fit in fits if len(fits) > 1 else []:
        fit.train(clock, 0.0, _SHORT, len(fits))
    best = max(fits, key=lambda fit: fit.best_score)
    best.train(clock, min(_SHORT, clock.spent()), 1.0, 1)
    return best.order, [w.double().numpy() for w in best.best]


class _Clock:
    """The share of an effort that was spent."""

    def __init__(self, effort: Effort) -> None:
        self.effort, self.began, self.steps = effort, time.perf_counter(), 0.0

    def spent(self) -> float:
        """By the clock where time is the limit, else by steps."""
        if self.effort.seconds is None:
            return self.steps / self.effort.steps
        return (time.perf_counter() - self.began) / self.effort.seconds


class _Fit:
    """The training of a network for one order of the columns."""

    def __init__(self, U, weight, parts, order, generator):
        self.order, self.generator = order, generator
        train, held = parts
        self.u, self.held = (torch.from_numpy(U[part][:, order]).float() for part in (train, held))
        self.weights = [None if weight is None else torch.from_numpy(weight[part]).float() for part in (train, held)]
        d = U.shape[1]
        width = max(_WIDTH, d)

        def uniform(n, fan):
            return (2 * torch.rand((n, fan), generator=generator) - 1) / fan**0.5

        self.values = [
            uniform(width, d) * d**0.5, torch.zeros(width), uniform(width, width) * 1.7, torch.zeros(width),
            torch.zeros(2 * d, width), torch.zeros(2 * d), torch.zeros(d, d),
        ]  # fmt: skip
        self._start()
        for value in self.values:
            value.requires_grad_()
        self.first, self.second = ([torch.zeros_like(value) for value in self.values] for _ in range(2))
        self.means, self.steps = [value.detach().clone() for value in self.values], 0
        self.best_score, self.best = -math.inf, self.means
        self.validate()

    @torch.no_grad()
    def continue_from(self, weights):
        """Begin at weights that were found before."""
        for own, mean, value in zip(self.values, self.means, weights, strict=True):
            own.copy_(torch.from_numpy(value))
            mean.copy_(own)
        self.validate()

    def _start(self):
        """Linear regressions of each column on those before it, by a covariance that is shrunk for few rows."""
        u, weight = self.u.double(), self.weights[0]
        w = torch.ones(len(u), dtype=torch.double) if weight is None else weight.double()
        w = w / w.sum()
        mean = w @ u
        centred = u - mean
        rows = (centred * (len(u) * w).sqrt()[:, None]).numpy()
        covariance = torch.from_numpy(ledoit_wolf(rows, assume_centered=True)[0])
        covariance += 1e-3 * torch.eye(u.shape[1], dtype=torch.double)
        factor = torch.linalg.cholesky(covariance)
        scale = factor.diagonal()
        # (u - mean) = factor e: e_k scale_k = (u - mean)_k - sum_j skip_kj (u - mean)_j
        inverse = torch.linalg.inv(factor) * scale[:, None]
        skip = torch.eye(u.shape[1], dtype=torch.double) - inverse
        self.values[6].copy_(skip)
        share = (torch.log(scale) / _LARGEST_LOG_SCALE).clamp(-0.99, 0.99)
        self.values[5].copy_(torch.cat([inverse @ mean, _LARGEST_LOG_SCALE * torch.atanh(share)]))

    def loss(self, u, weight, values):
        """Minus the mean log-likelihood, but for a constant."""
        z, log_det = _residuals(_Masked(values), u)
        values = 0.5 * (z * z).sum(1) - log_det
        return values.mean() if weight is None else (values * weight).sum() / weight.sum()

    @torch.no_grad()
    def validate(self):
        """Score the held-out rows, and keep the weights if it is the highest."""
        score = -float(self.loss(self.held, self.weights[1], self.means))
        if score > self.best_score:
            self.best_score, self.best = score, [value.clone() for value in self.means]

    def train(self, clock, start, end, share):
        """Gradient steps from one share of the effort to another, of which it has one part in `share`."""
        stop, checks = clock.spent() + (end - start) / share, 0
        first = clock.spent()
        while (now := clock.spent()) < stop:
            done = (now - first) / (stop - first)
            progress = start + (end - start) * done if share == 1 else 0.0
            if done * _ROUNDS > checks + 1:
                checks += 1
                self.validate()
            self.step(_RATE * 0.5 * (1 + math.cos(math.pi * progress)))
            clock.steps += 1
        self.validate()

    def step(self, rate):
        """One step of Adam (Kingma & Ba 2015, algorithm 1)."""
        rows = torch.randint(len(self.u), (min(_BATCH, len(self.u)),), generator=self.generator)
        weight = self.weights[0]
        loss = self.loss(self.u[rows], None if weight is None else weight[rows], self.values)
        gradients = torch.autograd.grad(loss, self.values)
        self.steps += 1
        with torch.no_grad():
            # torch.optim would import a compiler, which takes as long as the fit of a small table
            norm = torch.stack(torch._foreach_norm(gradients)).norm()
            torch._foreach_mul_(gradients, (_LARGEST_NORM / (norm + 1e-6)).clamp(max=1.0))
            torch._foreach_lerp_(self.first, gradients, 1 - _BETA1)
            torch._foreach_mul_(self.second, _BETA2)
            torch._foreach_addcmul_(self.second, gradients, gradients, 1 - _BETA2)
            spreads = torch._foreach_sqrt(self.second)
            torch._foreach_mul_(spreads, (1 - _BETA2**self.steps) ** -0.5)
            torch._foreach_add_(spreads, _EPSILON)
            torch._foreach_addcdiv_(self.values, self.first, spreads, -rate / (1 - _BETA1**self.steps))
            torch._foreach_lerp_(self.means, self.values, 1 / min(self.steps, 10 + _AVERAGING * self.steps))


def _orders(U: np.ndarray) -> list[np.ndarray]:
    """Orders to try: as the columns are, reversed, and those first that tell more of others than others of them."""
    d = U.shape[1]
    natural = np.arange(d)
    lead = _gains_of_pairs(U[:_ROWS_OF_PAIRS])
    by_lead = np.argsort(-(lead.sum(1) - lead.sum(0)), kind="stable")
    orders = [natural, by_lead, natural[::-1].copy()]
    return [order for k, order in enumerate(orders) if not any(np.array_equal(order, o) for o in orders[:k])]


def _gains_of_pairs(U: np.ndarray) -> np.ndarray:
    """Log-likelihood, in nats a row, that means and deviations within bins of column i bring for column j."""
    n, d = U.shape
    bins = max(1, min(_MOST_BINS, n // _ROWS_OF_A_BIN))
    gains = np.zeros((d, d))
    for i in range(d):
        parts = np.array_split(np.argsort(U[:, i], kind="stable"), bins)
        within = np.array([np.log(U[part].std(0) + 1e-6) * len(part) for part in parts]).sum(0) / n
        gains[i] = np.log(U.std(0) + 1e-6) - within
        gains[i, i] = 0.0
    return gains
