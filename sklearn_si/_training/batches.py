"""Training batches: rows drawn and paired, and made into regressions, many batches at a time."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .._utils.tensors import normal
from .._utils.weights import rows_by_weight
from ..couplings import Coupling, Optimal, Pairs
from ..interpolants import Interpolant
from ..networks._fields import drop_condition
from ..networks._perceptrons import Perceptron
from .lazy_rows import Rows
from .losses import REGRESSIONS, Regression, draw_times, learner
from .weighting import pass_of

# The points (t, x0, x1, z, condition) of some batches; z and the condition may be None.
Points = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]

# Numbers in the rows of the batches that are made at once: the cost of a call is spread over many rows, which still
# fit in cache.
_BLOCK = 2**16
# Rows of a batch that share one time: what the network computes from time is computed once for them.
_ROWS_PER_TIME = 4
# Fewest distinct times of a batch for which rows share them.
_FEWEST_TIMES = 32


class Sampler:
    """Draws training batches (x0, x1, z, condition) from rows in scaled units.

    Parameters
    ----------
    x0 : Tensor or None
        Rows of the base; None for the standard normal distribution.
    x1 : Tensor
        Rows of the target.
    condition : Tensor or None
        One row for each row of x1.
    coupling : Coupling
        As in `sklearn_si.couplings`.
    latent_noise : bool
        Whether z is drawn.
    dropout : float, default=0.0
        Share of the rows whose condition is dropped.
    weights : tuple of (Tensor or None), default=(None, None)
        Of the rows of base and target, by which these are drawn; a coupling row by row has one, that of the target.
    """

    def __init__(
        self,
        x0: Tensor | Rows | None,
        x1: Tensor | Rows,
        condition: Tensor | None,
        coupling: Coupling,
        latent_noise: bool,
        dropout: float = 0.0,
        weights: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> None:
        self.x0, self.x1, self.condition = x0, x1, condition
        self.weights = dict(zip(("base", "target"), weights, strict=True))
        self.coupling, self.latent_noise, self.dropout = coupling, latent_noise, dropout
        self._orders: dict[str, tuple[Any, int]] = {}
        self._pool: Pairs | None = None
        self._left = 0

    def state(self) -> dict[str, Any]:
        """Where in its passes it is; what it holds is never changed in place."""
        return {"orders": dict(self._orders), "pool": self._pool, "left": self._left}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        device = self.x1.device
        self._orders = {n: (order.to(device), start) for n, (order, start) in state["orders"].items()}
        pool = state["pool"]
        self._pool = pool and tuple(None if x is None else x.to(device) for x in pool)
        self._left = state["left"]

    def _slices(self, name: str, n: int, batch: int, batches: int, generator: torch.Generator) -> Tensor:
        """The next row numbers of permuted passes, batch by batch; small samples are drawn with replacement."""
        device, weight = self.x1.device, self.weights.get(name)
        if n < 2 * batch and weight is not None:
            return rows_by_weight(weight, batches * batch, generator)
        if n < 2 * batch:
            return torch.randint(n, (batches * batch,), generator=generator, device=device)
        parts: list[Tensor] = []
        missing = batches
        while missing:
            order, start = self._orders.get(name, (None, n))
            if start + batch > n:
                order, start = self._pass(name, n, generator), 0
            taken = min(missing, (n - start) // batch)
            self._orders[name] = order, start + taken * batch
            parts.append(order[start : start + taken * batch])
            missing -= taken
        return torch.cat(parts)

    def _pass(self, name: str, n: int, generator: torch.Generator) -> Tensor:
        """Row numbers of one pass in random order: each once, or as often as its weight says."""
        return pass_of(n, self.weights.get(name), generator)

    def draw(
        self, batch: int, generator: torch.Generator, batches: int = 1
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Some batches, one after the other, each paired by the coupling, or drawn from a pool of pairs."""
        if self.coupling.pooled:
            x0, x1, condition = _joined([*self._from_pools(batch, generator, batches)])
        else:
            x0, x1, condition = self._coupled(self._rows(batch, generator, batches), batch, generator)
        z = normal(x1.shape, generator, like=x1) if self.latent_noise else None
        if self.dropout > 0:
            assert condition is not None
            kept = torch.rand((len(x1), 1), generator=generator, device=x1.device) >= self.dropout
            condition = torch.where(kept, condition, drop_condition(condition))
        return x0, x1, z, condition

    def _from_pools(self, batch: int, generator: torch.Generator, batches: int) -> Iterator[Pairs]:
        """Batches of permuted passes over pairs that are made for many of them, pool after pool."""
        while batches:
            pool = self._pool
            if pool is None or self._left <= 0:
                if pool is None or not self._found_again:
                    self._pool = pool = self._pairs(generator)
                    self._orders.pop("pool", None)
                self._left = self.coupling.passes * len(pool[1])
            some = min(batches, max(1, self._left // batch))
            rows = self._slices("pool", len(pool[1]), batch, some, generator)
            self._left -= some * batch
            batches -= some
            x0, x1, condition = pool
            condition = None if condition is None else condition.index_select(0, rows)
            yield x0.index_select(0, rows), x1.index_select(0, rows), condition

    def _pairs(self, generator: torch.Generator) -> Pairs:
        """Pairs of as many rows as the coupling takes at a time; of all rows, where they are not many more."""
        assert self.x0 is not None
        if self.coupling.has_rows:
            return self.coupling.make_pool(generator)
        if self._whole:
            return self.coupling(self.x0[:], self.x1[:], self.condition, generator)
        size = min(self.coupling.batch_size, len(self.x0), len(self.x1))
        ends = ("base", len(self.x0)), ("target", len(self.x1))
        rows0, rows1 = (self._pass(name, n, generator)[:size] for name, n in ends)
        condition = None if self.condition is None else self.condition[rows1]
        return self.coupling(self.x0[rows0], self.x1[rows1], condition, generator)

    @property
    def pairing(self) -> str | None:
        """What a plan pairs at a time: "semidiscrete" and "whole" are all rows; None where there is no plan."""
        if not self.coupling.pooled:
            return None
        return "semidiscrete" if self.coupling.has_rows else "whole" if self._whole else "batches"

    @property
    def shares_times(self) -> bool:
        """Whether what the network computes from time may be the same for several rows."""
        return self.condition is None

    @property
    def _found_again(self) -> bool:
        """Whether the next pool would be the same as this one: an exact plan of all rows."""
        if self.coupling.has_rows:
            return self.coupling.fixed
        return self._whole and isinstance(self.coupling, Optimal)

    @property
    def _whole(self) -> bool:
        if self.x0 is None or any(weight is not None for weight in self.weights.values()):
            return False  # the rows of a pool are drawn by weight
        return len(self.x0) == len(self.x1) <= 2 * self.coupling.batch_size

    def _rows(self, batch: int, generator: torch.Generator, batches: int) -> Pairs:
        """The next rows of both samples, with those of the condition."""
        rows = self._slices("target", len(self.x1), batch, batches, generator)
        x1 = self.x1.index_select(0, rows)
        condition = None if self.condition is None else self.condition.index_select(0, rows)
        if self.x0 is None:
            x0 = normal(x1.shape, generator, like=x1)
        else:
            if not self.coupling.row_by_row:
                rows = self._slices("base", len(self.x0), batch, batches, generator)
            x0 = self.x0.index_select(0, rows)
        return x0, x1, condition

    def _coupled(self, rows: Pairs, batch: int, generator: torch.Generator) -> Pairs:
        if self.coupling.as_drawn:
            return rows
        pieces = zip(*(_split(part, batch, len(rows[1])) for part in rows), strict=True)
        return _joined([self.coupling(x0, x1, condition, generator) for x0, x1, condition in pieces])


def _split(part: Tensor | None, size: int, n: int) -> Sequence[Tensor | None]:
    return [None] * (n // size) if part is None else part.split(size)


def _joined(pieces: Sequence[Sequence[Tensor | None]]) -> Any:
    """Tensors of several batches one after the other; what is None stays so."""
    return tuple(None if parts[0] is None else torch.cat(parts) for parts in zip(*pieces, strict=True))


def _antithetic(
    interpolant: Interpolant, t: Tensor, x0: Tensor, x1: Tensor, z: Tensor | None, condition: Tensor | None
) -> Points:
    """Every point twice, with the noise of opposite sign, so that singular factors cancel; points on axis -2 of x1."""
    t, x1 = torch.cat([t, t], x1.ndim - 2), torch.cat([x1, x1], -2)
    condition = None if condition is None else torch.cat([condition, condition], -2)
    if interpolant.path_type == "one-sided":
        return t, torch.cat([x0, -x0], -2), x1, None, condition
    assert z is not None
    return t, torch.cat([x0, x0], -2), x1, torch.cat([z, -z], -2), condition


def draw_points(
    networks: nn.ModuleDict,
    interpolant: Interpolant,
    time_distribution: str,
    sampler: Sampler,
    batch: int,
    generator: torch.Generator,
    batches: int = 1,
    rows_per_time: int = 1,
) -> Points:
    """The points (t, x0, x1, z, condition) of some batches; in mirrored pairs where a loss needs them."""
    singular = interpolant.singular_target or "score" in networks
    n = max(1, batch // 2) if singular else batch
    times = draw_times(time_distribution, n, generator, sampler.x1.device, batches, rows_per_time)
    points = (times.to(sampler.x1.dtype), *sampler.draw(n, generator, batches))
    if not singular:
        return points
    batched: Any = [None if p is None else p.unflatten(0, (batches, n)) for p in points]
    both: Any = tuple(None if p is None else p.flatten(0, 1) for p in _antithetic(interpolant, *batched))
    return both


class PathSteps(Protocol):
    """What takes steps of a learned path between blocks of batches."""

    steps_between: int  # batches of a block

    def step(self) -> None:
        """One step."""

    def state(self) -> dict[str, Any]:
        """A copy of all that changes."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state."""


class Batches:
    """The losses of all learned fields on fresh batches, and their gradients.

    Batches are drawn in blocks, and whatever does not depend on the weights is computed for a block at once: points,
    targets, closed forms, features of time. Where rows are paired by a coupling that takes its time, the next block is
    drawn in a thread of its own while the networks are trained on this one; `close`, or a with statement, ends it.

    Parameters
    ----------
    networks : ModuleDict
        The learned fields by name.
    interpolant : Interpolant
    time_distribution : str
        The distribution of t, a key of `TIME_DISTRIBUTIONS`.
    sampler : Sampler
    batch : int
        Points of a batch.
    generator : torch.Generator
    low : bool, default=False
        Whether matrices are multiplied in bfloat16.
    path : PathSteps, default=None
        What takes a step of a learned path before each block, and says how many batches a block has.
    """

    def __init__(
        self,
        networks: nn.ModuleDict,
        interpolant: Interpolant,
        time_distribution: str,
        sampler: Sampler,
        batch: int,
        generator: torch.Generator,
        low: bool = False,
        path: "PathSteps | None" = None,
    ) -> None:
        self.networks, self.interpolant, self.time_distribution = networks, interpolant, time_distribution
        self.sampler, self.batch, self.generator, self.low = sampler, batch, generator, low
        singular = interpolant.singular_target or "score" in networks
        self.points = 2 * max(1, batch // 2) if singular else batch  # of a batch, mirror images counted
        self.rows_per_time = self._count_rows_per_time(self.points // 2 if singular else batch)
        large = max(1, _BLOCK // (self.points * sampler.x1.shape[1]))
        self.path, self.size = path, large if path is None else path.steps_between
        self.block: list[_ManualGradTask | _AutogradTask] = []
        self.began: dict[str, Any] = {}  # where the random numbers were before the block was drawn
        self.next = self.size
        # networks of others may draw from the global generator, as their couplings may: the order must not change
        ours = all(isinstance(learner(field), Perceptron) for field in networks.values())
        ahead = ours and path is None and not sampler.coupling.as_drawn
        self._thread = ThreadPoolExecutor(1, "sklearn_si-coupling") if ahead else None
        self._ahead: Future[_Block] | None = None

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the thread that draws ahead, if there is one."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def _count_rows_per_time(self, n: int) -> int:
        shares = self.sampler.shares_times and n % _ROWS_PER_TIME == 0 and n >= _ROWS_PER_TIME * _FEWEST_TIMES
        # the drift of a forecast has the start row among its features
        return _ROWS_PER_TIME if shares and "forecast" not in self.networks else 1

    def state(self, ended: bool) -> dict[str, Any]:
        """Where the random numbers were before this block, and where in it the training is."""
        path = {} if self.path is None else {"path": self.path.state()}
        return path if ended else {**path, **self.began, "next": self.next}

    def set_state(self, state: dict[str, Any]) -> None:
        """Draw the block of a state once more, and go on there."""
        if self.path is not None:
            self.path.set_state(state["path"])
        if "next" in state:
            self.generator.set_state(state["generator"])
            self.sampler.set_state(state["sampler"])
            (self.block, self.began), self.next = self._tasks(), state["next"]

    def _draw_block(self) -> "_Block":
        """The next batches, after a step of the path."""
        if self.path is not None:
            self.path.step()
        return self._tasks()

    @torch.no_grad()
    def _tasks(self) -> "_Block":
        """The tasks of the fields on the next batches, and where the random numbers were before."""
        began = {"generator": self.generator.get_state(), "sampler": self.sampler.state()}
        points = draw_points(
            self.networks,
            self.interpolant,
            self.time_distribution,
            self.sampler,
            self.batch,
            self.generator,
            self.size,
            self.rows_per_time,
        )
        tasks = [
            make_task(learner(field), REGRESSIONS[name](field, self.interpolant, *points), self.rows_per_time, self.low)
            for name, field in self.networks.items()
        ]
        return tasks, began

    def _next_block(self) -> "_Block":
        if self._thread is None:
            return self._draw_block()
        block = (self._ahead or self._thread.submit(self._draw_block)).result()
        self._ahead = self._thread.submit(self._draw_block)
        return block

    def loss(self) -> Tensor:
        """The sum of the losses on a fresh batch; its gradients are added to those of the parameters, or await them.

        Those of our own networks are written by hand and added at once; where the loss requires a gradient, that of
        the other networks is left to its `backward`.
        """
        if self.next == self.size:
            (self.block, self.began), self.next = self._next_block(), 0
        rows = slice(self.next * self.points, (self.next + 1) * self.points)
        self.next += 1
        return sum(task.loss(rows) for task in self.block)  # type: ignore[return-value]  # never of nothing


_Block = tuple[list["_ManualGradTask | _AutogradTask"], dict[str, Any]]


@torch.no_grad()
def make_task(
    network: nn.Module, regression: Regression, rows_per_time: int = 1, low: bool = False
) -> "_ManualGradTask | _AutogradTask":
    """The regression of a network, whose `loss` of some rows adds its gradients where the network is a perceptron."""
    if not isinstance(network, Perceptron):
        return _AutogradTask(network, regression, low)
    features, inputs = network.prepare(regression.t, regression.y, regression.condition)
    dtype = torch.bfloat16 if low else inputs.dtype
    features = None if features is None else features.to(dtype)
    return _ManualGradTask(network, regression, features, inputs.to(dtype), rows_per_time)


class _ManualGradTask:
    """A regression of a perceptron."""

    def __init__(
        self, network: Perceptron, regression: Regression, features: Tensor | None, inputs: Tensor, rows_per_time: int
    ) -> None:
        self.network, self.regression, self.inputs, self.rows_per_time = network, regression, inputs, rows_per_time
        self.features = features
        self.shared = None if features is None else features[::rows_per_time].contiguous()

    def loss(self, rows: slice) -> Tensor:
        """The loss on some rows; its gradients are added to those of the parameters."""
        features = shared = None
        if self.features is not None and self.shared is not None:
            features = self.features[rows]
            shared = self.shared[rows.start // self.rows_per_time : rows.stop // self.rows_per_time]
        output, cache = self.network.forward_with_cache(shared, self.inputs[rows], self.rows_per_time)
        loss, gradient = self.regression.rows(rows).loss_and_gradient(output)
        self.network.backward(cache, features, gradient, self.rows_per_time)
        return loss


class _AutogradTask:
    """A regression of a network that autograd differentiates."""

    def __init__(self, network: nn.Module, regression: Regression, low: bool) -> None:
        self.network, self.regression, self.low = network, regression, low

    def loss(self, rows: slice) -> Tensor:
        """The loss on some rows."""
        regression = self.regression.rows(rows)
        with torch.autocast(regression.y.device.type, torch.bfloat16, enabled=self.low):
            output = self.network(regression.t, regression.y, regression.condition)
        return regression.loss(output)


def held_out_loss(
    networks: nn.ModuleDict,
    interpolant: Interpolant,
    time_distribution: str,
    sampler: Sampler,
    n: int,
    generator: torch.Generator,
) -> Callable[[], Tensor]:
    """A function that gives the sum of the losses of all learned fields on n points, the same at each call."""
    with torch.no_grad():
        points = draw_points(networks, interpolant, time_distribution, sampler, n, generator)
        regressions = {name: REGRESSIONS[name](field, interpolant, *points) for name, field in networks.items()}

    @torch.no_grad()
    def loss() -> Tensor:
        losses = (r.loss(learner(networks[name])(r.t, r.y, r.condition)) for name, r in regressions.items())
        return sum(losses)  # type: ignore[return-value]  # never of nothing

    return loss
