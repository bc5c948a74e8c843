"""A fitted model reweighted to a reward, without a new fit of its fields."""

import math
import warnings
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from .._utils.callers import users_level
from .._utils.containers import in_container
from .._utils.figures import Figures
from .._utils.input_checks import check_count
from .._utils.names import registered
from .._utils.reweighted import Reweighted
from .._utils.tensors import draw_seed
from .._utils.weights import systematic_rows
from .model_access import AsksModel

# Rows that are drawn to learn where the reward leads.
_ROWS = 10_000
# Rounds in which the proposal in the base is adapted, and the rows of each.
_ROUNDS = 8
_ROWS_OF_A_ROUND = 2000
# Share of the rows that the weights are worth from which the proposal is good enough.
_GOOD = 0.8
# Share of the rows that the weights of a round are worth at the least: a reward that asks for more is flattened.
_LEAST_SHARE = 0.1
# Share of the proposal that is the base itself, so that no weight is larger than its inverse times that of the base.
_OF_BASE = 0.1
# Factor of the covariance of the proposal: one that is too narrow costs more than one that is too wide.
_WIDER = 1.1
# Rows that are drawn for each that is kept, at the most.
_MOST_TIMES = 10
# Columns that an error names.
_FEW_NAMES = 30
# Rows that the weights are worth below which a tilt is told to be unreliable.
_FEW = 100


class Proposal:
    """Where rows of the base are drawn: of the base itself, and of a normal distribution that follows a reward.

    Parameters
    ----------
    mean : ndarray of shape (d,)
    covariance : ndarray of shape (d, d)
    """

    def __init__(self, mean: np.ndarray, covariance: np.ndarray) -> None:
        self.mean, self.covariance = mean, covariance

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """N rows of the base."""
        d = len(self.mean)
        own = self.mean + rng.standard_normal((n, d)) @ np.linalg.cholesky(self.covariance).T
        return np.where(rng.random(n)[:, None] < _OF_BASE, rng.standard_normal((n, d)), own)

    def log_weight(self, Z: np.ndarray) -> np.ndarray:
        """The log of the density of the base over that of the proposal."""
        base = -0.5 * (np.square(Z).sum(1) + Z.shape[1] * math.log(2 * math.pi))
        own = multivariate_normal(self.mean, self.covariance).logpdf(Z).reshape(len(Z))
        return base - np.logaddexp(math.log(_OF_BASE) + base, math.log(1 - _OF_BASE) + own)


def effective_share(log_weight: np.ndarray) -> float:
    """(sum w)^2 / (n sum w^2): how much of their number rows of these weights are worth."""
    if np.isneginf(log_weight).all():
        return 0.0
    return float(np.exp(2 * logsumexp(log_weight) - logsumexp(2 * log_weight)) / len(log_weight))


def flattened(log_weight: np.ndarray, reward: np.ndarray, least: float) -> np.ndarray:
    """Log-weights with as much of the reward as leaves them worth a least share of the rows."""
    low, high = 0.0, 1.0
    if effective_share(log_weight + reward) >= least:
        return log_weight + reward
    finite = np.where(np.isneginf(reward), -1e300, reward)
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if effective_share(log_weight + middle * finite) >= least else (low, middle)
    return log_weight + low * finite


def adapted_proposal(image: Callable[[np.ndarray], np.ndarray], d: int, rng: np.random.Generator) -> Proposal | None:
    """The proposal whose weights are worth the most, by rounds of importance sampling; None for the base itself.

    Each round takes the moments of weighted rows of the base as those of the next proposal (Rubinstein & Kroese 2004,
    "The cross-entropy method"), with a reward that is flattened where the weights would be worth too little.

    Parameters
    ----------
    image : callable
        image(Z) -> the reward of the rows that rows of the base lead to.
    d : int
        Number of columns.
    rng : numpy Generator
    """
    proposal, best, share = None, None, 0.0
    for _ in range(_ROUNDS):
        Z = rng.standard_normal((_ROWS_OF_A_ROUND, d)) if proposal is None else proposal.draw(_ROWS_OF_A_ROUND, rng)
        log_weight = np.zeros(len(Z)) if proposal is None else proposal.log_weight(Z)
        reward = image(Z)
        found = effective_share(log_weight + reward)
        if found > share:
            best, share = proposal, found
        if found >= _GOOD:
            break
        flat = flattened(log_weight, reward, _LEAST_SHARE)
        weight = np.exp(flat - logsumexp(flat))
        mean = weight @ Z
        covariance = (Z - mean).T @ ((Z - mean) * weight[:, None])
        # of few rows the axes are chance
        trust = 1 / (1 + d * np.square(weight).sum())
        covariance = trust * covariance + (1 - trust) * np.eye(d)
        proposal = Proposal(mean, _WIDER * covariance + 1e-6 * np.eye(d))
    return best


@registered("TiltedFlow")
class TiltedFlow(Reweighted):
    """A fitted flow or diffusion reweighted to a reward: what `tilt` returns.

    q(x) = p(x) exp(r(x)) / Z,    Z = E_p[exp(r)]

    Rows of the base are drawn by the reward of the rows that they lead to (arXiv 2512.21829), from a normal proposal
    that was adapted to it; importance weights make up for what the proposal misses, so that the error of Z and of
    the draws is that of a finite number of rows, and is stated.

    Parameters
    ----------
    flow : estimator
        The fitted model.
    reward : callable
        reward(X) -> r of shape (n_samples,), in nats, for an array X.
    condition : array-like or None
        The condition of all rows.
    proposal : Proposal or None
        Where rows of the base are drawn; None is the base itself.
    report : Bunch
        As `report_`.

    Attributes
    ----------
    report_ : Bunch
        `log_normaliser`, log Z in nats, and its standard error `log_normaliser_error`; `effective_size`, the number of
        rows that the weights of `n_rows` draws are worth, and `effective_share`, their share; `largest_weight`, in
        units of the mean weight.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si import InterpolantFlow
    >>> X = np.random.default_rng(0).normal(size=(500, 2))
    >>> flow = InterpolantFlow(max_iter=50, random_state=0).fit(X)
    >>> tilted = flow.tilt(lambda X: X[:, 0])
    >>> bool(tilted.sample(2000)[:, 0].mean() > 0.8)
    True
    """

    def __init__(self, flow: Any, reward: Any, condition: Any, proposal: Any, report: Figures) -> None:
        self.flow, self.reward, self.condition, self.proposal = flow, reward, condition, proposal
        self.report = report

    def __repr__(self) -> str:
        reward = name_of_function(self.reward)
        share = self.report_.effective_share
        return f"TiltedFlow({self._of(self.flow)}, reward={reward}; effective share {share:.3g})"

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> Any:
        """Draw rows of the tilted distribution, by importance resampling.

        As many rows are drawn as the largest weight asks for (at most ten for each that is kept), and kept in
        proportion to their weights; a row is kept twice only where a weight is larger than that, which a warning says.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw; None is that of the flow.

        Returns
        -------
        X : ndarray or frame of shape (n_samples, n_features)
            In data units.
        """
        n = check_count(n_samples, "n_samples")
        seed = draw_seed(self.flow.random_state if random_state is None else random_state)
        times = min(_MOST_TIMES, math.ceil(1.2 * self.report_.largest_weight))
        rng = np.random.default_rng([seed, 0])
        X, log_weight = drawn(self.flow, self.reward, self.condition, self.proposal, max(times * n, 100), rng)
        rows = systematic_rows([], np.exp(log_weight - log_weight.max()), n, rng)
        repeated = n - len(np.unique(rows))
        if repeated:
            warnings.warn(
                f"{repeated} of {n} rows are repeated: the reward weighs some rows up to "
                f"{self.report_.largest_weight:.3g} times the mean, and at most {_MOST_TIMES} rows are drawn for each "
                "that is kept.",
                UserWarning,
                stacklevel=users_level(),
            )
        return in_container(self.flow, X[rows])

    def score_samples(self, X: Any, *, return_error: bool = False) -> Any:
        """Log-density of the tilted distribution: log p(x) + r(x) - log Z.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in data units.
        return_error : bool, default=False
            Whether to return stated errors too.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            In nats; -inf where the reward is.
        error : ndarray of shape (n_samples,)
            That of the solver and the standard error of log Z, if return_error=True.
        """
        value, error = self.flow.score_samples(X, condition=self.condition, return_error=True)
        reward = rewards(self.flow, self.reward, np.asarray(self.flow._validate_rows(X)))
        value = value + reward - self.report_.log_normaliser
        return (value, error + self.report_.log_normaliser_error) if return_error else value


def name_of_function(function: Any) -> str:
    """A function in one line, without its place in memory."""
    return function.__qualname__ if isinstance(function, FunctionType) else type(function).__name__


def rewards(flow: Any, reward: Callable[[np.ndarray], Any], X: np.ndarray) -> np.ndarray:
    """The checked rewards of some rows."""
    try:
        # a copy: a reward may work in place
        found = np.asarray(reward(np.array(X)))
    except (AttributeError, IndexError) as error:
        names = vars(flow).get("feature_names_in_", ())
        if not len(names):
            raise
        raise ValueError(
            f"The reward failed ({error}). It is given an array, also after a fit to a frame: take columns by their "
            f"position, such as X[:, 0]; they are {list(names)[:_FEW_NAMES]}."
        ) from error
    if found.shape != (len(X),):
        raise ValueError(
            f"The reward returned an array of shape {found.shape} for {len(X)} rows, but expected ({len(X)},): one "
            "number in nats for each row."
        )
    found = found.astype(np.float64)
    bad = np.flatnonzero(np.isnan(found) | np.isposinf(found))
    if len(bad):
        raise ValueError(
            f"The reward is {found[bad[0]]} at the row {X[bad[0]].tolist()} ({len(bad)} such rows), but expected a "
            "number, or -inf where no row shall be."
        )
    return found


def drawn(
    flow: Any, reward: Any, condition: Any, proposal: Proposal | None, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the model and their log-weights, which are those of the reward and of the proposal."""
    if proposal is None:
        seed = int(rng.integers(2**31 - 1))
        X = flow._draw_rows(n, condition, seed)
        return X, rewards(flow, reward, X)
    Z = proposal.draw(n, rng)
    X = flow.model_.from_base(Z, flow._evaluation().device, condition)
    return X, rewards(flow, reward, X) + proposal.log_weight(Z)


class TiltingMethods(AsksModel):
    """Rewards for a fitted model."""

    def tilt(self, reward, *, condition=None, n_rows=_ROWS, random_state=None):
        """Reweight the fitted model to a reward, without a new fit.

        q(x) = p(x) exp(r(x)) / Z    (the distribution of largest mean reward minus its KL divergence from p)

        With a normal base and without noise, rows of the base are drawn from a normal proposal that is adapted to the
        reward of the rows they lead to; else rows of the model are weighted as they are.

        Parameters
        ----------
        reward : callable
            reward(X) -> r of shape (n_samples,), in nats; X is an array of shape (n_samples, n_features) in data units,
            also after a fit to a frame. -inf rules a row out.
        condition : array-like, default=None
            One row, if the model was fitted with a condition.
        n_rows : int, default=10000
            Number of rows from which the normalising constant is estimated.
        random_state : int, RandomState instance or None, default=None
            Seed of these rows; None is the estimator's own.

        Returns
        -------
        tilted : TiltedFlow
            With `sample`, `score_samples` and `report_`.

        Raises
        ------
        ValueError
            When the reward is not one number for each row, is NaN or infinite, or rules out every row that is drawn.
        """
        model, n_rows = self._ready(), check_count(n_rows, "n_rows")
        if not callable(reward):
            raise ValueError(f"Got reward={reward!r}, but expected a function of rows, one number for each.")
        model.refuse_forecast("tilt")
        rng, proposal = np.random.default_rng([self._seed_of(random_state), 1]), None
        is_normal = model.base_sample is None and not model.interpolant.circular
        if is_normal and self._sampling().noise_level == 0 and self._guidance() == 1:
            device = self._evaluation().device
            proposal = adapted_proposal(
                lambda Z: rewards(self, reward, model.from_base(Z, device, condition)), model.n_features, rng
            )
        _, log_weight = drawn(self, reward, condition, proposal, n_rows, rng)
        return TiltedFlow(self, reward, condition, proposal, _report(log_weight))

    def _draw_rows(self, n, condition, seed):
        """Rows of the model as an array."""
        return np.asarray(self.sample(n, condition=condition, random_state=seed))


def _report(log_weight: np.ndarray) -> Figures:
    """What weights are worth, and the normalising constant."""
    if np.isneginf(log_weight).all():
        raise ValueError(
            f"The reward is -inf at each of {len(log_weight)} rows that the model drew: it rules out all that the "
            "model knows. Give a reward that is finite somewhere, or raise n_rows."
        )
    n, share = len(log_weight), effective_share(log_weight)
    log_mean = float(logsumexp(log_weight) - math.log(n))
    if share * n < _FEW:
        warnings.warn(
            f"The weights of {n} rows are worth {share * n:.1f}: the reward asks for rows that the model hardly draws. "
            "Take a smaller reward, or raise n_rows.",
            UserWarning,
            stacklevel=users_level(),
        )
    return Figures(
        log_normaliser=log_mean,
        log_normaliser_error=math.sqrt(max(1 / share - 1, 0.0) / n),
        effective_size=share * n,
        effective_share=share,
        largest_weight=float(np.exp(log_weight.max() - log_mean)),
    )
