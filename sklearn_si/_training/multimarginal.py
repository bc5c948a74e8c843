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
from .._utils.input_checks import nameless
from .._utils.tensors import BASE_STREAM, FIT_STREAM, as_array, as_tensor, make_generator, resolve_device
from ..networks._simplex import SimplexNetwork, SimplexVelocity, SplinePath
from ..preprocessing import AffineMap
from ..preprocessing._maps import constant_columns, fit_axes
from .base_density import fit_base_density
from .batches import make_task
from .checkpoint import NO_CHECKPOINT
from .loop import History, Scores, Settings, count_rounds, train
from .losses import TIME_DISTRIBUTIONS, Regression
from .paired_pools import POOL, PairedPools, paired_rows, path_energy_matrix
from .recipe import Recipe, layer_widths
from .turning import frames_of, rotations_of
from .validation_split import split_rows
from .weighting import joined_weights

# Gradient steps of max_iter="auto": of two samples, and for each further one.
_STEPS = 3000
_STEPS_MORE = 1000
# Gradient steps where `max_time` is the limit.
_NO_LIMIT = 10**9
# Points in a gradient step of batch_size="auto".
_BATCH = 512
# Stale rounds of n_iter_no_change="auto".
_STALE_ROUNDS = 20
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
# Pools of these at the most: small ones hold the same rows again.
_MOST_POOLS = 8
# Rows of the other samples that are moved to the first one, for its density.
_MOST_MOVED = 20_000
# Accuracy of these rows.
_MOVED_TOLERANCE = 1e-2
# What is told where the last part of a fit is interrupted.
_WITHOUT_DENSITY = "in the density of its first sample: `score_samples` has none to start from."


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
    conditions: list[np.ndarray] | None = None  # encoded, a row for each row
    codec: Any = None  # what encoded them
    weights: list[np.ndarray | None] | None = None  # of mean one; None where all rows weigh the same
    tasks: Any = NO_TASKS
    checkpoint: Any = NO_CHECKPOINT
    began: float = dataclasses.field(default_factory=time.perf_counter)

    def left(self, max_time: float) -> float:
        """Seconds that a limit leaves."""
        spent = time.perf_counter() - self.began + self.checkpoint.seconds
        return max(max_time - spent, 0.02 * max_time)

    def weight(self, k: int) -> np.ndarray | None:
        """The weights of a sample; None where all rows weigh the same."""
        return None if self.weights is None else self.weights[k]


def common_scaling(
    samples: list[np.ndarray], kind: str | None, weights: list[np.ndarray | None] | None = None
) -> AffineMap:
    """One map for all samples, which count alike: by the deviations of columns within samples, or by their axes."""
    d = samples[0].shape[1]
    if kind is None:
        return AffineMap(np.zeros(d), np.ones(d))
    of_rows = weights or [None] * len(samples)
    masses = [np.ones(len(X)) if w is None else w for X, w in zip(samples, of_rows, strict=True)]
    centres = [np.average(X, axis=0, weights=w).astype(np.float64) for X, w in zip(samples, masses, strict=True)]
    # rows of a sample of few rows are repeated in size, not in number
    shares = [np.sqrt(w / w.sum())[:, None] for w in masses]
    within = np.concatenate([(X - m) * share for X, m, share in zip(samples, centres, shares, strict=True)])
    scale = np.sqrt(np.square(within).sum(axis=0) / len(samples))
    varies = np.setdiff1d(np.arange(d), constant_columns(np.concatenate(samples), scale))
    scale = np.where(np.isin(np.arange(d), varies), scale, 1.0)
    matrix = np.diag(scale)
    if kind == "whiten" and len(varies):
        rows = within[:, varies] / scale[varies] * (len(within) / len(samples)) ** 0.5
        matrix[np.ix_(varies, varies)] = scale[varies, None] * fit_axes(rows)
    return AffineMap(np.mean(centres, axis=0), matrix if kind == "whiten" else scale)


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


def regression_at(
    of: SimplexVelocity, alpha: Tensor, c: Tensor, rows: Tensor, conditions: Tensor | None = None
) -> Regression:
    """The regression of sum_k c_k g_k on sum_k c_k x_k at x = sum_k alpha_k x_k (2310.03695, equation (7)).

    Parameters
    ----------
    of : SimplexVelocity
    alpha, c : Tensor of shape (n, m)
    rows : Tensor of shape (m, n, d)
        Rows of all samples that belong together.
    conditions : Tensor of shape (m, n, n_conditions), default=None
        Theirs, which are nearly the same: that of a point of the path is their mean by its weights.
    """
    x = torch.einsum("nk,knd->nd", alpha, rows)
    target = torch.einsum("nk,knd->nd", c, rows)
    mean, rate, slope, sd, direction, size = of.coefficients(alpha, c)
    centred = x - mean
    offset = (rate + slope * centred - target) / size
    told = [alpha, direction] + ([] if conditions is None else [torch.einsum("nk,knc->nc", alpha, conditions)])
    return Regression(alpha[:, 0], centred / sd, torch.cat(told, 1), offset, 1 / size)


class SimplexBatches:
    """The losses on fresh batches, many of which are drawn at once."""

    def __init__(
        self, of: SimplexVelocity, pools: PairedPools, times: np.ndarray | None, batch: int, generator: torch.Generator
    ) -> None:
        self.of, self.pools, self.times, self.generator = of, pools, times, generator
        # rows of one set of weights share what the network computes from it, unless each has a condition
        self.sharing = _ROWS_PER_WEIGHT if pools.conditions is None else 1
        self.batch, self.next = self.sharing * max(1, batch // self.sharing), _BLOCK
        self.task: Any = None
        self.began: dict[str, Any] = {}  # where the random numbers were before the block was drawn

    @torch.no_grad()
    def _draw(self) -> Any:
        self.began = {"generator": self.generator.get_state(), "pools": self.pools.state()}
        n, m = self.batch // self.sharing, len(self.pools.rows)
        blocks = [draw_weights(n, self.times, m, self.generator) for _ in range(_BLOCK)]
        alpha, c = (torch.cat(some).repeat_interleave(self.sharing, 0) for some in zip(*blocks, strict=True))
        regression = regression_at(self.of, alpha, c, *self.pools.draw(len(alpha)))
        return make_task(self.of.network, regression, self.sharing)

    def state(self, ended: bool) -> dict[str, Any]:
        """Where the random numbers were before this block, and where in it the training is."""
        return {} if ended else {**self.began, "next": self.next}

    def set_state(self, state: dict[str, Any]) -> None:
        """Draw the block of a state once more, and go on there."""
        if "next" in state:
            self.generator.set_state(state["generator"])
            self.pools.set_state(state["pools"])
            self.task, self.next = self._draw(), state["next"]

    def loss(self) -> Tensor:
        """The loss of a fresh batch, whose gradients are added to those of the parameters."""
        if self.next == _BLOCK:
            self.task, self.next = self._draw(), 0
        rows = slice(self.next * self.batch, (self.next + 1) * self.batch)
        self.next += 1
        return self.task.loss(rows)


@torch.no_grad()
def held_out_score(
    of: SimplexVelocity, pools: PairedPools, times: np.ndarray | None, generator: torch.Generator
) -> Any:
    """A function that gives minus the loss on fixed points of held-out rows."""
    alpha, c = draw_weights(_VALIDATION_POINTS, times, len(pools.rows), generator)
    regression = regression_at(of, alpha, c, *pools.draw(_VALIDATION_POINTS))

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
    if pools.is_whole:
        rows = pools.fresh()[0] if pools.weights[0] is None else pools.draw(_MOMENT_ROWS)[0]
    else:
        n_pools = min(_MOST_POOLS, -(-_MOMENT_ROWS // pools.size))
        rows = torch.cat([pools.fresh()[0] for _ in range(n_pools)], 1)
    means = torch.stack([_mean(x, weight) for x, weight in zip(pools.rows, pools.weights, strict=True)])
    centred = rows - rows.mean(1, keepdim=True)
    covariances = torch.einsum("knd,lnd->dkl", centred, centred) / rows.shape[1]
    generator = make_generator(seed, FIT_STREAM + 100)
    n_conditions = 0 if pools.conditions is None else pools.conditions[0].shape[1]
    widths = layer_widths(recipe.hidden_layer_sizes, d)
    network = SimplexNetwork(d, m, widths, recipe.activation, generator, n_conditions)
    return SimplexVelocity(network, means.cpu(), covariances.cpu()).to(device)


def _mean(x: Tensor, weight: Tensor | None) -> Tensor:
    return x.mean(0) if weight is None else (weight / weight.sum()).to(x) @ x


def _paired_as_a_whole(
    rows: list[Tensor], problem: ManySamples, frames: list[Tensor] | None
) -> tuple[list[Tensor], str]:
    """The rows of all samples, and how they are paired: samples of one length that is not long are paired at once."""
    sizes = {len(x) for x in rows}
    drawn = problem.conditions is not None or problem.weights is not None
    if problem.pairing != "optimal" or drawn or len(sizes) > 1 or max(sizes) > 2 * POOL:
        return rows, problem.pairing
    return list(paired_rows(rows, path_energy_matrix(problem.times, len(rows)), frames)), "paired"


def _rotations(rows: list[Tensor], problem: ManySamples) -> list[Tensor] | None:
    """How neighbouring samples turn, where rows are paired by distance in the order of time; else None."""
    if problem.pairing != "optimal" or problem.times is None:
        return None
    device = rows[0].device
    generator = make_generator(problem.seed, FIT_STREAM + 300, device)
    return rotations_of(rows, problem.times, _tensors(problem.weights, len(rows), torch.float64, device), generator)


def _tensors(arrays: Any, n: int, dtype: torch.dtype, device: torch.device) -> list[Tensor | None]:
    """What there is of each sample, as tensors."""
    return [None if a is None else as_tensor(a, dtype, device) for a in arrays or [None] * n]


def _split(
    rows: list[Tensor], pairing: str, frames: list[Tensor] | None, recipe: Recipe, problem: ManySamples
) -> tuple[PairedPools, PairedPools | None]:
    """The pools of training rows and of validation rows; paired rows are held out together."""
    rng, sizes = np.random.default_rng([problem.seed, FIT_STREAM]), [len(x) for x in rows]
    device = rows[0].device
    fraction = recipe.validation_fraction if recipe.early_stopping and min(sizes) > 2 else None
    parts = [split_rows(n, fraction, rng) for n in (sizes[:1] if pairing == "paired" else sizes)]
    kept, held = zip(*(parts * len(rows) if pairing == "paired" else parts), strict=True)
    given = _tensors(problem.conditions, len(rows), torch.float32, device)
    masses = _tensors(problem.weights, len(rows), torch.float64, device)
    pools = []
    for stream, numbers in enumerate((kept, held), 1):
        generator = make_generator(problem.seed, FIT_STREAM + stream, device)
        some, conditions, weights = (_taken(of_samples, numbers) for of_samples in (rows, given, masses))
        with_conditions = conditions if problem.conditions is not None else None
        pools.append(PairedPools(some, problem.times, pairing, generator, with_conditions, weights, frames))
    return pools[0], None if fraction is None else pools[1]


def _taken(of_samples: Any, numbers: Any) -> list[Any]:
    """Some rows of each sample; what is None stays so, and no numbers are all rows."""
    pairs = zip(of_samples, numbers, strict=True)
    return [x if x is None or own is None else x[own] for x, own in pairs]


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
    scaling = common_scaling(problem.samples, kind, problem.weights)
    scaled = [as_tensor(scaling.transform(X), torch.float32, device) for X in problem.samples]
    rotations = _rotations(scaled, problem)
    frames = None if rotations is None else frames_of(rotations)
    pools, held = _split(*_paired_as_a_whole(scaled, problem, frames), frames, recipe, problem)
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
        condition_codec=problem.codec,
        conditions=problem.conditions,
        weights=problem.weights,
        rotations=None if rotations is None else np.stack([as_array(turn, np.float64) for turn in rotations]),
    )
    density = None
    with problem.checkpoint.interruptible(lambda: True, _WITHOUT_DENSITY):
        density = _base_density(recipe, problem, model)
    return dataclasses.replace(model, base_density=density), _record(history)


def _trained(of: SimplexVelocity, batches: SimplexBatches, validate: Any, settings: Settings, problem: Any) -> History:
    networks = nn.ModuleDict({"velocity": of})
    with problem.tasks.run("train", count_rounds(settings)) as tell:
        after_round = None if tell is None else lambda history, kept: tell(history, None)
        record = problem.checkpoint.training({"points": batches.generator}, batches)
        scores = Scores(validate, validate)
        return train(networks, batches.loss, scores, settings, after_round=after_round, record=record)


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
    rows, numbers = [problem.samples[0]], [np.arange(len(problem.samples[0]))]
    if recipe.base_density == "flow":
        moved, theirs = _moved(problem, model, resolve_device(recipe.device))
        rows, numbers = rows + moved, numbers + theirs
    weights = zip(problem.weights or [None] * len(rows), numbers, strict=False)
    conditions = zip(problem.conditions or [], numbers, strict=False)
    given = None if problem.conditions is None else np.concatenate([c[own] for c, own in conditions])
    weight, everything = joined_weights(*weights), np.concatenate(rows)
    with nameless():
        return fit_base_density(recipe.base_density, recipe, problem, everything, weight, condition=given)


def _moved(
    problem: ManySamples, model: MultimarginalModel, device: torch.device
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Rows of the other samples, as many as the first one has in all, moved to it, and their numbers.

    Those that are lost are left out.
    """
    rng, first = np.random.default_rng([problem.seed, BASE_STREAM]), problem.samples[0]
    n = -(-min(len(first), _MOST_MOVED) // (len(problem.samples) - 1))
    evaluation = Evaluation(device, _MOVED_TOLERANCE, strict=False)
    farthest = 2 * np.linalg.norm(model.scaling.transform(first) - model.scaling.transform(first).mean(0), axis=1).max()
    centre, moved, numbers = model.scaling.transform(first).mean(0), [], []
    for k, X in enumerate(problem.samples[1:], 1):
        own = rng.permutation(len(X))[:n]
        back = model.along(model.path(model.position(k), model.position(0)), encoded=True)
        given = None if problem.conditions is None else problem.conditions[k][own]
        rows = back.transport(X[own].astype(first.dtype, copy=False), True, evaluation, given)[0]
        near = np.linalg.norm(model.scaling.transform(rows) - centre, axis=1) <= farthest
        near &= np.isfinite(rows).all(1)
        moved.append(rows[near])
        numbers.append(own[near])
    return moved, numbers
