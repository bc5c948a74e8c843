"""How the velocities between many samples are learned: rows paired along a chain, random weights and directions."""

import dataclasses
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._model.multimarginal import MultimarginalModel
from .._model.settings import Evaluation
from .._utils.callbacks import NO_TASKS
from .._utils.tensors import BASE_STREAM, FIT_STREAM, as_tensor, make_generator, resolve_device
from ..couplings import optimal_pairs
from ..networks._simplex import SimplexNetwork, SimplexVelocity, SplinePath, cardinal_splines
from ..preprocessing import AffineMap
from ..preprocessing._maps import constant_columns, fit_axes
from .base_density import fit_base_density
from .batches import make_task
from .checkpoint import NO_CHECKPOINT
from .loop import History, Scores, Settings, count_rounds, train
from .losses import TIME_DISTRIBUTIONS, Regression
from .recipe import Recipe, layer_widths
from .validation_split import split_rows

# Gradient steps of max_iter="auto": of two samples, and for each further one.
_STEPS = 3000
_STEPS_MORE = 1000
# Gradient steps where `max_time` is the limit.
_NO_LIMIT = 10**9
# Points in a gradient step of batch_size="auto".
_BATCH = 512
# Stale rounds of n_iter_no_change="auto".
_STALE_ROUNDS = 20
# Rows of each sample that are paired at a time; samples of one length of up to twice as many are paired as a whole.
_POOL = 1024
# How often the rows of a pool are used, for each pairing that it takes.
_PASSES = 16
# Sweeps in which each sample is paired anew with what the others say of it.
_SWEEPS = 2
# Weight of the bending of paths beside their action, at snapshots one unit of time apart. In five simulations W1 at a
# held-out time was within .001 of that without it, and a sixth of it where two clusters pass through each other.
_SHARE_OF_BENDING = 0.5
# Rows that share weights and direction: what the network computes from them is computed once.
_ROWS_PER_WEIGHT = 4
# Batches that are drawn at once.
_BLOCK = 32
# Share of the points on straight paths between weights, where the samples have times: the others are on the curve.
_SHARE_OF_CHORDS = 0.25
# Points of the validation loss.
_VALIDATION_POINTS = 4096
# Rows from which means and covariances are estimated, at the least.
_MOMENT_ROWS = 4096
# Rows of the other samples that are moved to the first one, for its density.
_MOST_MOVED = 20_000
# Accuracy of these rows.
_MOVED_TOLERANCE = 1e-2


@dataclasses.dataclass
class ManySamples:
    """What a fit works on: validated samples with their labels and times, and where its seed comes from."""

    samples: list[np.ndarray]
    labels: list[Any]
    times: np.ndarray | None
    seed: int
    names: Any = None
    pairing: str = "optimal"
    follow: bool = True  # whether the first and the last are what their order says
    tasks: Any = NO_TASKS
    checkpoint: Any = NO_CHECKPOINT
    began: float = dataclasses.field(default_factory=time.perf_counter)

    def left(self, max_time: float) -> float:
        """Seconds that a limit leaves."""
        return max(max_time - (time.perf_counter() - self.began), 0.02 * max_time)


def common_scaling(samples: list[np.ndarray], kind: str | None) -> AffineMap:
    """One map for all samples, which count alike: by the deviations of columns within samples, or by their axes."""
    d = samples[0].shape[1]
    if kind is None:
        return AffineMap(np.zeros(d), np.ones(d))
    centres = [X.mean(axis=0, dtype=np.float64) for X in samples]
    # rows of a sample of few rows are repeated in size, not in number
    within = np.concatenate([(X - m) / len(X) ** 0.5 for X, m in zip(samples, centres, strict=True)])
    scale = np.sqrt(np.square(within).sum(axis=0) / len(samples))
    varies = np.setdiff1d(np.arange(d), constant_columns(np.concatenate(samples), scale))
    scale = np.where(np.isin(np.arange(d), varies), scale, 1.0)
    matrix = np.diag(scale)
    if kind == "whiten" and len(varies):
        rows = within[:, varies] / scale[varies] * (len(within) / len(samples)) ** 0.5
        matrix[np.ix_(varies, varies)] = scale[varies, None] * fit_axes(rows)
    return AffineMap(np.mean(centres, axis=0), matrix if kind == "whiten" else scale)


def path_energy_matrix(times: np.ndarray | None, m: int) -> np.ndarray:
    """The matrix B of the energy sum_kl B_kl x_k . x_l that pairing lowers.

    Without times it is sum_{k < l} |x_k - x_l|^2, whose plan is that of Wasserstein barycenters (Agueh & Carlier 2011).
    With times, in units of their mean distance, it is the action of straight lines between neighbours and a share of
    the bending of the spline, int |x''|^2 dt, by which rows keep their direction (Benamou, Gallouet & Vialard,
    arXiv 1801.04144).
    """
    if times is None:
        return m * np.eye(m) - 1
    knots = (times - times[0]) / (times[-1] - times[0]) * (m - 1)
    h, steps = np.diff(knots), np.diff(np.eye(m), axis=0)
    # the second derivative is linear between knots
    second = 2 * np.concatenate([cardinal_splines(knots)[1], np.zeros((1, m))])
    a, b = second[:-1], second[1:]
    bending = np.einsum("k,kl,kj->lj", h / 6, a, 2 * a + b) + np.einsum("k,kl,kj->lj", h / 6, b, a + 2 * b)
    return np.einsum("k,kl,kj->lj", 1 / h, steps, steps) + _SHARE_OF_BENDING * bending


def paired_rows(rows: list[Tensor], energy: np.ndarray) -> Tensor:
    """Equally many rows of all samples, paired by optimal transport, of shape (m, n, d).

    Each sample is paired with the one before it. Then, where there are three or more, each in turn is paired anew with
    what the energy makes of the others, which never raises it.
    """
    paired = [rows[0]]
    for x in rows[1:]:
        paired.append(_nearest(paired[-1], x))
    for _ in range(_SWEEPS if len(rows) > 2 else 0):
        for k, x in enumerate(paired):
            others = [-float(energy[k, j]) * y for j, y in enumerate(paired) if j != k]
            paired[k] = _nearest(torch.stack(others).sum(0) / float(energy[k, k]), x)
    return torch.stack(paired)


def _nearest(x0: Tensor, x1: Tensor) -> Tensor:
    """The rows of x1 in the order in which optimal transport pairs them with those of x0."""
    return x1[torch.as_tensor(optimal_pairs(x0, x1), device=x1.device)]


class PairedPools:
    """Rows of all samples that belong together, from pools that are paired at a time.

    Parameters
    ----------
    rows : list of Tensor of shape (n_samples_k, d)
        In scaled units.
    times : ndarray or None
    pairing : {"optimal", "independent", "paired"}
    generator : torch.Generator
    """

    def __init__(self, rows: list[Tensor], times: np.ndarray | None, pairing: str, generator: torch.Generator) -> None:
        self.rows, self.pairing, self.generator = rows, pairing, generator
        self.energy = path_energy_matrix(times, len(rows))
        self.is_whole, longest = pairing == "paired", max(len(x) for x in rows)
        self.size = min(_POOL, longest) if pairing == "optimal" else longest
        self.pool: Tensor | None = None
        self.left = 0

    @property
    def n_pairings(self) -> int:
        """How many assignments a pool takes."""
        m = len(self.rows)
        return m - 1 + (_SWEEPS * m if m > 2 else 0)

    def fresh(self) -> Tensor:
        """A pool of paired rows, of shape (m, size, d)."""
        if self.pairing == "paired":
            return torch.stack(self.rows)
        rows = [x[self._some(len(x))] for x in self.rows]
        return torch.stack(rows) if self.pairing == "independent" else paired_rows(rows, self.energy)

    def _some(self, n: int) -> Tensor:
        """Numbers of as many rows as a pool has: each once, or equally often where there are fewer."""
        device, parts = self.rows[0].device, []
        for _ in range(-(-self.size // n)):
            parts.append(torch.randperm(n, generator=self.generator, device=device))
        return torch.cat(parts)[: self.size]

    def draw(self, n: int) -> Tensor:
        """Rows that belong together, of shape (m, n, d)."""
        if self.pool is None or (self.left <= 0 and not self.is_whole):
            self.pool = self.fresh()
            self.left = self.size * (_PASSES * self.n_pairings if self.pairing == "optimal" else 1)
        self.left -= n
        chosen = torch.randint(self.size, (n,), generator=self.generator, device=self.pool.device)
        return self.pool[:, chosen]


def draw_weights(n: int, times: np.ndarray | None, m: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Weights and directions at which the velocity is learned, of shape (n, m): on the curve, and on straight paths."""
    n_chords = n if times is None else round(_SHARE_OF_CHORDS * n)
    parts = [_on_chords(n_chords, m, generator)]
    if times is not None:
        parts.append(_on_curve(n - n_chords, times, generator))
    alpha, c = (torch.cat(some) for some in zip(*parts, strict=True))
    order = torch.randperm(n, generator=generator, device=generator.device)
    return alpha[order].float(), c[order].float()


def _moments_of_time(n: int, generator: torch.Generator) -> Tensor:
    """Stratified times between two ends, in double precision."""
    u = torch.rand(n, generator=generator, device=generator.device, dtype=torch.float64)
    u = (torch.arange(n, device=u.device) + u) / max(n, 1)
    return TIME_DISTRIBUTIONS["logit-normal"](u)


def _on_chords(n: int, m: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points of straight paths from one sample: every second to another sample, the others to any mean of them."""
    device = generator.device
    s = _moments_of_time(n, generator)[:, None]
    start = torch.randint(m, (n,), generator=generator, device=device)
    other = (start + torch.randint(1, m, (n,), generator=generator, device=device)) % m
    gaps = -torch.rand((n, m), generator=generator, device=device, dtype=torch.float64).clamp(min=1e-12).log()
    stop = gaps / gaps.sum(1, keepdim=True)
    one = torch.eye(m, dtype=torch.float64, device=device)
    stop[::2] = one[other[::2]]
    # the times are sorted: which points lead to a sample must not depend on them
    s = s[torch.randperm(n, generator=generator, device=device)]
    return (1 - s) * one[start] + s * stop, stop - one[start]


def _on_curve(n: int, times: np.ndarray, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points of the curve through all samples, equally many between each two neighbours."""
    s = _moments_of_time(n, generator)
    piece = torch.randint(len(times) - 1, (n,), generator=generator, device=generator.device)
    knots = torch.as_tensor((times - times[0]) / (times[-1] - times[0]), device=generator.device)
    moments = knots[piece] + s * (knots[piece + 1] - knots[piece])
    return SplinePath(times, times[0], times[-1]).to(generator.device).weights(moments)


def regression_at(of: SimplexVelocity, alpha: Tensor, c: Tensor, rows: Tensor) -> Regression:
    """The regression of sum_k c_k g_k on sum_k c_k x_k at x = sum_k alpha_k x_k (2310.03695, equation (7)).

    Parameters
    ----------
    of : SimplexVelocity
    alpha, c : Tensor of shape (n, m)
    rows : Tensor of shape (m, n, d)
        Rows of all samples that belong together.
    """
    x = torch.einsum("nk,knd->nd", alpha, rows)
    target = torch.einsum("nk,knd->nd", c, rows)
    mean, rate, slope, sd, direction, size = of.coefficients(alpha, c)
    centred = x - mean
    offset = (rate + slope * centred - target) / size
    return Regression(alpha[:, 0], centred / sd, torch.cat([alpha, direction], 1), offset, 1 / size)


class SimplexBatches:
    """The losses on fresh batches, many of which are drawn at once."""

    def __init__(
        self, of: SimplexVelocity, pools: PairedPools, times: np.ndarray | None, batch: int, generator: torch.Generator
    ) -> None:
        self.of, self.pools, self.times, self.generator = of, pools, times, generator
        self.batch, self.task, self.next = _ROWS_PER_WEIGHT * max(1, batch // _ROWS_PER_WEIGHT), None, _BLOCK

    @torch.no_grad()
    def _draw(self) -> Any:
        n, m = self.batch // _ROWS_PER_WEIGHT, len(self.pools.rows)
        blocks = [draw_weights(n, self.times, m, self.generator) for _ in range(_BLOCK)]
        alpha, c = (torch.cat(some).repeat_interleave(_ROWS_PER_WEIGHT, 0) for some in zip(*blocks, strict=True))
        regression = regression_at(self.of, alpha, c, self.pools.draw(len(alpha)))
        return make_task(self.of.network, regression, _ROWS_PER_WEIGHT)

    def loss(self) -> Tensor:
        """The loss of a fresh batch, whose gradients are added to those of the parameters."""
        if self.next == _BLOCK:
            self.task, self.next = self._draw(), 0
        rows = slice(self.next * self.batch, (self.next + 1) * self.batch)
        self.next += 1
        assert self.task is not None
        return self.task.loss(rows)


@torch.no_grad()
def held_out_score(
    of: SimplexVelocity, pools: PairedPools, times: np.ndarray | None, generator: torch.Generator
) -> Any:
    """A function that gives minus the loss on fixed points of held-out rows."""
    alpha, c = draw_weights(_VALIDATION_POINTS, times, len(pools.rows), generator)
    regression = regression_at(of, alpha, c, pools.draw(_VALIDATION_POINTS))

    @torch.no_grad()
    def score() -> float:
        output = of.network(regression.t, regression.y, regression.condition)
        return -float(regression.loss(output))

    return score


def _settings(recipe: Recipe, m: int) -> Settings:
    """The parameters of training, with what "auto" stands for."""
    steps, limit = recipe.max_iter, recipe.max_time
    if steps == "auto":
        steps = _STEPS + _STEPS_MORE * (m - 2) if limit is None else _NO_LIMIT
    return Settings(
        batch_size=_BATCH if recipe.batch_size == "auto" else recipe.batch_size,
        learning_rate_init=recipe.learning_rate_init,
        max_iter=steps,
        max_time=limit if limit is None or recipe.base_density != "flow" else limit / 2,
        tol=recipe.tol,
        n_iter_no_change=_STALE_ROUNDS if recipe.n_iter_no_change == "auto" else recipe.n_iter_no_change,
        early_stopping=recipe.early_stopping,
        verbose=recipe.verbose,
        time_distribution="logit-normal",
    )


def _built(recipe: Recipe, seed: int, pools: PairedPools, device: torch.device) -> SimplexVelocity:
    """The velocity before training: that of normal samples with the moments of paired rows."""
    m, d = len(pools.rows), pools.rows[0].shape[1]
    rows = torch.cat([pools.fresh() for _ in range(1 if pools.is_whole else -(-_MOMENT_ROWS // pools.size))], 1)
    means = torch.stack([x.mean(0) for x in pools.rows])
    centred = rows - rows.mean(1, keepdim=True)
    covariances = torch.einsum("knd,lnd->dkl", centred, centred) / rows.shape[1]
    generator = make_generator(seed, FIT_STREAM + 100)
    network = SimplexNetwork(d, m, layer_widths(recipe.hidden_layer_sizes, d), recipe.activation, generator)
    return SimplexVelocity(network, means.cpu(), covariances.cpu()).to(device)


def _paired_as_a_whole(rows: list[Tensor], problem: ManySamples) -> tuple[list[Tensor], str]:
    """The rows of all samples, and how they are paired: samples of one length that is not long are paired at once."""
    sizes = {len(x) for x in rows}
    if problem.pairing != "optimal" or len(sizes) > 1 or max(sizes) > 2 * _POOL:
        return rows, problem.pairing
    return list(paired_rows(rows, path_energy_matrix(problem.times, len(rows)))), "paired"


def _split(
    rows: list[Tensor], pairing: str, recipe: Recipe, problem: ManySamples
) -> tuple[PairedPools, PairedPools | None]:
    """The pools of training rows and of validation rows; paired rows are held out together."""
    rng, sizes = np.random.default_rng([problem.seed, FIT_STREAM]), [len(x) for x in rows]
    fraction = recipe.validation_fraction if recipe.early_stopping and min(sizes) > 2 else None
    parts = [split_rows(n, fraction, rng) for n in (sizes[:1] if pairing == "paired" else sizes)]
    kept, held = zip(*(parts * len(rows) if pairing == "paired" else parts), strict=True)
    pools = []
    for stream, numbers in enumerate((kept, held), 1):
        generator = make_generator(problem.seed, FIT_STREAM + stream, rows[0].device)
        some = [x if own is None else x[own] for x, own in zip(rows, numbers, strict=True)]
        pools.append(PairedPools(some, problem.times, pairing, generator))
    return pools[0], None if fraction is None else pools[1]


def fit_many(recipe: Recipe, problem: ManySamples) -> tuple[MultimarginalModel, dict[str, Any]]:
    """Fit the velocities between many samples, and the density of the first one.

    Parameters
    ----------
    recipe : Recipe
    problem : ManySamples

    Returns
    -------
    model : MultimarginalModel
    record : dict
        How the training went, by the name of the fitted attribute.
    """
    device, settings = resolve_device(recipe.device), _settings(recipe, len(problem.samples))
    kind = "standardize" if recipe.preprocessing == "auto" else recipe.preprocessing
    scaling = common_scaling(problem.samples, kind)
    scaled = [as_tensor(scaling.transform(X), torch.float32, device) for X in problem.samples]
    pools, held = _split(*_paired_as_a_whole(scaled, problem), recipe, problem)
    of = _built(recipe, problem.seed, pools, device)
    generator = make_generator(problem.seed, FIT_STREAM + 200, device)
    validate = None if held is None else held_out_score(of, held, problem.times, generator)
    batches = SimplexBatches(of, pools, problem.times, settings.batch_size, pools.generator)
    history = _trained(of, batches, validate, settings, problem)
    model = MultimarginalModel(
        velocity=of.cpu(),
        scaling=scaling,
        samples=problem.samples,
        labels=problem.labels,
        times=problem.times,
        dtype=np.result_type(*problem.samples),
        seed=problem.seed,
        follow=problem.follow,
    )
    density = _base_density(recipe, problem, model)
    return dataclasses.replace(model, base_density=density), _record(history)


def _trained(of: SimplexVelocity, batches: SimplexBatches, validate: Any, settings: Settings, problem: Any) -> History:
    networks = nn.ModuleDict({"velocity": of})
    with problem.tasks.run("train", count_rounds(settings)) as tell:
        after_round = None if tell is None else lambda history, kept: tell(history, None)
        return train(networks, batches.loss, Scores(validate, validate), settings, after_round=after_round)


def _record(history: History) -> dict[str, Any]:
    return {
        "n_iter_": max(1, history.n_iter),
        "loss_": history.loss_curve[-1] if history.loss_curve else np.nan,
        "loss_curve_": history.loss_curve,
        "validation_scores_": history.validation_scores or None,
        "best_validation_score_": history.best_score if history.validation_scores else None,
        "history_": [{"training": "train", **one} for one in history.rounds],
    }


def _base_density(recipe: Recipe, problem: ManySamples, model: MultimarginalModel) -> Any:
    """The density of the first sample: a flow sees rows of the others too, which are moved there."""
    rows = problem.samples[0]
    if recipe.base_density == "flow":
        rows = np.concatenate([rows, *_moved(problem, model, resolve_device(recipe.device))])
    return fit_base_density(recipe.base_density, recipe, problem, rows)


def _moved(problem: ManySamples, model: MultimarginalModel, device: torch.device) -> list[np.ndarray]:
    """Rows of the other samples, as many as the first one has in all, moved to it; those that are lost left out."""
    rng, first = np.random.default_rng([problem.seed, BASE_STREAM]), problem.samples[0]
    n = -(-min(len(first), _MOST_MOVED) // (len(problem.samples) - 1))
    evaluation = Evaluation(device, _MOVED_TOLERANCE, strict=False)
    farthest = 2 * np.linalg.norm(model.scaling.transform(first) - model.scaling.transform(first).mean(0), axis=1).max()
    centre, moved = model.scaling.transform(first).mean(0), []
    for k, X in enumerate(problem.samples[1:], 1):
        X = X[rng.permutation(len(X))[:n]]
        back = model.along(model.path(model.position(k), model.position(0)))
        rows = back.transport(X.astype(first.dtype, copy=False), True, evaluation)[0]
        near = np.linalg.norm(model.scaling.transform(rows) - centre, axis=1) <= farthest
        moved.append(rows[near & np.isfinite(rows).all(1)])
    return moved
