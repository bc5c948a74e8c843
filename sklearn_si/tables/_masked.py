"""The codes of a table by a masked interpolant: a network that reads any part of a row and foretells the rest."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor, nn

from .._training.checkpoint import NO_CHECKPOINT
from .._training.loop import Scores, Settings, count_rounds, train
from .._training.run import has_bf16
from .._training.weighting import pass_of
from .._utils.callbacks import NO_TASKS
from .._utils.names import registered
from .._utils.tensors import normal

__all__ = [
    "ROWS_OF_A_WIDE_NETWORK",
    "MaskedEffort",
    "MaskedNetwork",
    "MaskedRows",
    "auto_sizes",
    "fit_masked",
    "mask_rows",
]

# Rows in a gradient step.
_BATCH = 512
# Rows on which a round is validated.
_VALIDATION_ROWS = 2000
# Width from which matrix products in bfloat16 pay in training.
_WIDE_ENOUGH = 128
# Rows, and codes of all columns together, from which the network is wide: with fewer rows it overfits, and with fewer
# codes nothing is gained (C2ST-XGB of halves and of whole tables: default, shoppers, adult).
ROWS_OF_A_WIDE_NETWORK = 20_000
_CODES_OF_A_WIDE_NETWORK = 1000
# How far a column may be trusted to depend on what is visible: 0 is independence, 1 the network as it is.
_TRUST = (0.0, 0.25, 0.5, 0.75, 1.0)
# Held-out rows below which a gain of full trust must exceed chance: a network that has few rows to learn from overfits
# more often than not.
_MANY_JUDGES = 1000
# Octaves of the waves by which neighbouring levels of an ordered column are alike.
_OCTAVES = 7
# Octaves of the waves by which neighbouring values are alike.
_VALUE_OCTAVES = 4


@registered("tables.MaskedNetwork")
class MaskedNetwork(nn.Module):
    """Logits of all codes from the visible cells of a row.

    h_0 = sum over visible cells of E[cell] + W (numbers of visible cells),    h_k = h_{k-1} + V_k act(U_k |h_{k-1}|)

    logits = log shares + a (b + W_o |h_L|) + c,    |h| = h over its root mean square

    a is one number a column, from 0 to 1, that held-out rows choose: columns without a part in the others stay apart,
    while training goes on for those that have one. With W_o = 0, where training starts, the columns are independent.
    The rows of E and W_o of an ordered column are free vectors and a smooth function of the level's rank and normal
    score, so that neighbouring levels learn from each other, and the few rows of a tail from all others.

    Parameters
    ----------
    shares : list of ndarray
        Of each column, the shares of its codes.
    ranks : list of ndarray
        Of each column, the rank of each code among the rows (a share; NaN for codes without an order).
    n_values : int
        Columns of values.
    width, depth : int
    generator : torch.Generator
    """

    starts: Tensor
    hidden: Tensor
    numbers: Tensor
    waves: Tensor
    wave_inputs: Tensor
    wave_outputs: Tensor
    wave_rows: Tensor
    log_shares: Tensor
    trust: Tensor
    shift: Tensor

    def __init__(self, shares, ranks, n_values, width, depth, generator):
        super().__init__()
        sizes = [len(s) for s in shares]
        self.sizes = sizes
        # one more embedding a column: that it is hidden
        starts = np.cumsum([0, *(size + 1 for size in sizes)])
        self.register_buffer("starts", torch.as_tensor(starts[:-1]))
        self.register_buffer("hidden", torch.as_tensor(sizes))
        self.register_buffer("numbers", torch.cat([torch.as_tensor([*_scores(r), 0.0]) for r in ranks]).float())
        self.ordered = [j for j, r in enumerate(ranks) if np.isfinite(r).any()]
        n_numbers = len(self.ordered) + (3 + 2 * _VALUE_OCTAVES) * n_values

        def uniform(*shape, fan_in):
            bound = fan_in**-0.5
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))

        self.embedding = nn.Parameter(normal((int(starts[-1]), width), generator, dtype=torch.float32) * 0.3)
        n_ordered, longest = len(self.ordered), max((sizes[j] for j in self.ordered), default=0)
        waves = np.zeros((n_ordered, longest, 2 * _OCTAVES + 2))
        for k, j in enumerate(self.ordered):
            waves[k, : sizes[j]] = _waves(ranks[j])
        self.register_buffer("waves", torch.as_tensor(waves, dtype=torch.float32))
        # where the codes of ordered columns stand among all embeddings, all outputs and the padded waves
        ends, inputs, outputs, rows = np.cumsum([0, *sizes]), [], [], []
        for k, j in enumerate(self.ordered):
            place = np.arange(sizes[j])
            inputs.append(starts[j] + place)
            outputs.append(ends[j] + place)
            rows.append(k * longest + place)
        self.register_buffer("wave_inputs", _concatenated(inputs))
        self.register_buffer("wave_outputs", _concatenated(outputs))
        self.register_buffer("wave_rows", _concatenated(rows))
        shape = n_ordered, waves.shape[2], width
        self.wave_embedding = nn.Parameter(normal(shape, generator, dtype=torch.float32) * 0.1)
        self.wave_output = nn.Parameter(torch.zeros(shape))
        self.reading = uniform(width, n_numbers, fan_in=max(1, n_numbers)) if n_numbers else None
        self.blocks = nn.ParameterList()
        for _ in range(depth):
            self.blocks.append(uniform(width, width, fan_in=width))
            self.blocks.append(nn.Parameter(torch.zeros(width)))
            self.blocks.append(uniform(width, width, fan_in=width))
        self.output = nn.Parameter(torch.zeros(sum(sizes), width))
        self.register_buffer("log_shares", torch.cat([torch.as_tensor(np.log(s)) for s in shares]).float())
        self.bias = nn.Parameter(torch.zeros(sum(sizes)))
        self.register_buffer("trust", torch.ones(len(sizes)))
        self.register_buffer("shift", torch.zeros(sum(sizes)))
        self.dropout, self.masks, self.low = 0.0, None, False

    def trunk(self, codes: Tensor, values: Tensor) -> Tensor:
        """The last hidden layer, for codes (-1 is hidden) and values (NaN is hidden, +inf is absent)."""
        place = self.starts + torch.where(codes < 0, self.hidden, codes)
        embedding = self._waved(self.embedding, self.wave_embedding, self.wave_inputs)
        h = nn.functional.embedding_bag(place, embedding, mode="sum")
        if self.reading is not None:
            numbers = [self.numbers[place[:, self.ordered]]] if self.ordered else []
            if values.shape[1]:
                numbers += _numbers(values)
            h = h + torch.cat(numbers, 1) @ self.reading.T
        for first, shift, second in zip(self.blocks[::3], self.blocks[1::3], self.blocks[2::3], strict=True):
            step = nn.functional.silu(torch.addmm(shift, _normed(h), first.T))
            h = h + self._dropped(step) @ second.T
        return self._dropped(_normed(h))

    def _dropped(self, h):
        if not self.dropout or not self.training:
            return h
        kept = torch.rand(h.shape, generator=self.masks, device=h.device) >= self.dropout
        return h * kept / (1 - self.dropout)

    def told(self, codes: Tensor, values: Tensor) -> Tensor:
        """What the visible cells add to the logits of the codes of all columns, taken at its word."""
        with torch.autocast(codes.device.type, torch.bfloat16, enabled=self.low and self.training):
            told = self.trunk(codes, values) @ self._outputs().T
        return self.bias + told

    def forward(self, codes: Tensor, values: Tensor) -> list[Tensor]:
        """The log-probabilities of the codes of every column; in training, with full trust."""
        told = self.told(codes, values)
        if not self.training:
            told = told * self.trust.repeat_interleave(torch.as_tensor(self.sizes, device=told.device))
        return [torch.log_softmax(part, 1) for part in (self.log_shares + told).split(self.sizes, 1)]

    @torch.no_grad()
    def choose_trust(self, codes, values, truth, asked, share):
        """Trust each column as far as it foretells the cells asked for best.

        Where many rows judge, it is trusted fully unless less gains by more than chance. `share` is that of the rows
        which are distinct.
        """
        chance = min(1.0, share * len(codes) / _MANY_JUDGES)
        log_shares = self.log_shares.split(self.sizes)
        for j, told in enumerate(self.told(codes, values).split(self.sizes, 1)):
            rows = asked[:, j].nonzero()[:, 0]
            if len(rows) < 2:
                continue
            logits = torch.stack([log_shares[j] + a * told[rows] for a in _TRUST])
            true = truth[rows, j].expand(len(_TRUST), -1)
            losses = nn.functional.cross_entropy(logits.transpose(1, 2), true, reduction="none")
            best = int(losses.mean(1).argmin())
            gain = losses[-1] - losses[best]
            self.trust[j] = _TRUST[best] if gain.mean() > chance * gain.std() / (share * len(rows)) ** 0.5 else 1.0

    def logits(self, j: int, codes: Tensor, values: Tensor) -> Tensor:
        """Log-probabilities of the codes of one column, up to a constant; if nothing is visible, those of the rows."""
        rows = self.codes_of(j)
        told = torch.addmm(self.bias[rows], self.trunk(codes, values), self._outputs()[rows].T)
        nothing = ((codes < 0).all(1) & torch.isnan(values).all(1))[:, None]
        return self.log_shares[rows] + torch.where(nothing, 0.0, self.trust[j] * told + self.shift[rows])

    def column(self, j: int, codes: Tensor, values: Tensor) -> Tensor:
        """The log-probabilities of the codes of one column."""
        return torch.log_softmax(self.logits(j, codes, values), 1)

    def codes_of(self, j):
        """Where the codes of one column stand among those of all."""
        start = sum(self.sizes[:j])
        return slice(start, start + self.sizes[j])

    def _outputs(self):
        return self._waved(self.output, self.wave_output, self.wave_outputs)

    def _waved(self, free, weights, places):
        """Free vectors of all codes, and smooth functions of the rank added to those of ordered ones."""
        smooth = torch.bmm(self.waves, weights).flatten(0, 1)
        return free.index_add(0, places, smooth[self.wave_rows].to(free.dtype))


def auto_sizes(n, n_codes):
    """Width and depth for n rows of columns with so many codes together."""
    is_wide = n >= ROWS_OF_A_WIDE_NETWORK and n_codes >= _CODES_OF_A_WIDE_NETWORK
    return (64, 1) if n < 1000 else (128, 2) if n < 5000 else (512, 2) if is_wide else (256, 2)


def _scores(ranks):
    """Normal scores of ranks, 0 where there is none."""
    return ndtri(np.nan_to_num(ranks, nan=0.5))


def _waves(ranks):
    """Of each code of an ordered column, waves of its rank among the rows and powers of its normal score.

    They are 0 for a code without a rank. Weights of the powers are a normal distribution of the score, by which the
    codes of a long tail, whose ranks are all alike, learn from the rows before them.
    """
    phase, score = np.pi * ranks[:, None] * 2.0 ** np.arange(_OCTAVES), ndtri(ranks)[:, None]
    return np.nan_to_num(np.concatenate([np.sin(phase), np.cos(phase), score / 2, (score**2 - 1) / 4], axis=1))


def _numbers(values):
    """What the network reads of values: themselves, whether they are known or absent, waves of their rank."""
    known = torch.isfinite(values)
    shown = torch.where(known, values, 0.0)
    octaves = 2.0 ** torch.arange(_VALUE_OCTAVES, device=values.device)
    phase = (torch.pi * torch.special.ndtr(shown)[:, :, None] * octaves).flatten(1)
    told = known.to(shown)
    waves = [f(phase) * told.repeat_interleave(_VALUE_OCTAVES, 1) for f in (torch.sin, torch.cos)]
    # large numbers alone would tell a few rows from others
    return [shown.clamp(-5, 5), told, torch.isinf(values).to(shown), *waves]


def _concatenated(parts):
    return torch.as_tensor(np.concatenate([np.empty(0, dtype=np.int64), *parts]))


def _normed(h: Tensor) -> Tensor:
    return h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-6)


def mask_rows(n, n_codes, n_values, generator, device="cpu"):
    """Which cells of n rows are visible, and which column is asked first.

    Half of the rows show the first k columns in order, as whole rows are drawn; the others show any cells (as many as a
    uniform number says) and, in every second one, the first k columns beside them.

    Returns
    -------
    codes, values : Tensor of bool of shapes (n, n_codes) and (n, n_values)
        Whether a cell is visible.
    step : Tensor of shape (n,)
        k; column k is hidden.
    """

    def uniform(*shape):
        return torch.rand(shape, generator=generator, device=device)

    step = (uniform(n) * n_codes).long().clamp(max=n_codes - 1)
    before = torch.arange(n_codes, device=device) < step[:, None]
    share, any_cells = uniform(n, 1), torch.arange(n, device=device) % 2 == 1
    given = any_cells[:, None] & (uniform(n, n_codes) < share)
    prefix = before & (torch.arange(n, device=device) % 4 != 3)[:, None]
    codes = given | prefix
    codes[torch.arange(n, device=device), step] = False
    values = any_cells[:, None] & (uniform(n, n_values) < share)
    return codes, values, step


class MaskedLoss:
    """The cross-entropy of hidden codes: that of the next column, and the mean over all that are hidden.

    Parameters
    ----------
    network : MaskedNetwork
    codes : Tensor of shape (n, n_codes)
        -1 where a cell is not known: neither shown nor asked for.
    values : Tensor of shape (n, n_values)
        NaN is not known, +inf absent.
    owners : list of int
        For each column of values, the column of its codes (-1: it has a single one): a value is shown with its code.
    """

    def __init__(self, network, codes, values, owners):
        self.network, self.codes, self.values = network, codes, values
        self.coded = [k for k, owner in enumerate(owners) if owner >= 0]
        self.owners = [owner for owner in owners if owner >= 0]

    def at(self, rows, generator, trust=None):
        """The loss of some rows under fresh masks, and that of the next column alone.

        Trust is chosen before, if a number says what share of the rows is distinct.
        """
        codes, values = self.codes[rows], self.values[rows]
        shown, shown_values, step = mask_rows(len(codes), codes.shape[1], values.shape[1], generator, codes.device)
        shown_values[:, self.coded] &= shown[:, self.owners]
        inputs, asked = torch.where(shown, codes, -1), (~shown & (codes >= 0)).float()
        seen = inputs, torch.where(shown_values, values, torch.nan)
        if trust is not None:
            self.network.choose_trust(*seen, codes, asked, trust)
        logs = self.network(*seen)
        picked = torch.stack([
            log.gather(1, code.clamp(min=0)[:, None])[:, 0] for log, code in zip(logs, codes.T, strict=True)
        ], 1)  # fmt: skip
        missed = -(picked * asked)
        row = torch.arange(len(codes), device=codes.device)
        following = missed[row, step]
        return following.mean() + (missed.sum(1) / asked.sum(1).clamp(min=1)).mean(), following.mean()


@dataclasses.dataclass(frozen=True)
class MaskedRows:
    """The rows of a table whose codes are learned.

    Parameters
    ----------
    codes, values : Tensor of shape (n, n_columns) and (n, n_valued)
    held : Tensor of int or None
        Rows that choose the best weights and do not train; None for none.
    weight : array-like of shape (n,), default=None
        By which batches and the rows that validate are drawn.
    owners : sequence, default=()
        As in `MaskedLoss`.
    """

    codes: Tensor
    values: Tensor
    held: Tensor | None
    weight: Any = None
    owners: Sequence = ()

    @property
    def trained(self) -> Tensor:
        """The numbers of the rows that train."""
        kept = torch.ones(len(self.codes), dtype=torch.bool, device=self.codes.device)
        if self.held is not None:
            kept[self.held] = False
        return kept.nonzero()[:, 0]


@dataclasses.dataclass(frozen=True)
class MaskedEffort:
    """What the training of a network of the codes takes: steps, seconds, its learning rate and its dropout."""

    max_iter: int
    max_time: float | None
    learning_rate: float
    dropout: float = 0.0
    verbose: int = 0

    def settings(self, batch: int, validates: bool) -> Settings:
        """Those of the training loop."""
        return Settings(
            batch_size=batch, learning_rate_init=self.learning_rate, max_iter=self.max_iter, max_time=self.max_time,
            tol=0.0, n_iter_no_change=8, early_stopping=validates, verbose=self.verbose, time_distribution="uniform",
        )  # fmt: skip


def fit_masked(network, rows, effort, generator, tasks=NO_TASKS, checkpoint=NO_CHECKPOINT):
    """Train a network of the codes in place.

    Parameters
    ----------
    network : MaskedNetwork
    rows : MaskedRows
    effort : MaskedEffort
    generator : torch.Generator
    tasks : Tasks, default=NO_TASKS
        That callbacks follow.
    checkpoint : Checkpoint, default=NO_CHECKPOINT
    """
    weight = rows.weight
    if weight is not None:
        weight = torch.as_tensor(weight, dtype=torch.float64, device=rows.codes.device)
    trained = rows.trained
    batch = min(_BATCH, max(32, len(trained) // 2))
    loss, orders = MaskedLoss(network, rows.codes, rows.values, rows.owners), _Passes(trained, batch, generator, weight)
    network.dropout, network.masks = effort.dropout, generator
    network.low = has_bf16() and network.output.shape[1] >= _WIDE_ENOUGH
    validate = None if rows.held is None else _validation(loss, rows, weight, generator)
    settings = effort.settings(batch, rows.held is not None)
    with tasks.run("codes", count_rounds(settings)) as tell:
        history = train(
            nn.ModuleDict({"masked": network}), lambda: loss.at(orders.next(), generator)[0],
            Scores(validate, start=validate), settings,
            after_round=None if tell is None else lambda history, kept: tell(history, None),
            record=checkpoint.training({"masks": generator}, orders),
        )  # fmt: skip
    network.dropout, network.masks, network.low = 0.0, None, False
    return history


def _validation(loss, rows, weight, generator):
    """A function that gives the score of held-out rows under the same masks at each call."""
    some = _drawn_rows(rows.held, weight, generator)
    n_distinct = len(torch.unique(some))
    some = some.repeat(max(1, _VALIDATION_ROWS // len(some)))
    device = rows.codes.device
    seed = int(torch.randint(2**31, (1,), generator=generator, device=device))

    @torch.no_grad()
    def validate():
        masks = torch.Generator(device=device).manual_seed(seed)
        return -loss.at(some, masks, trust=n_distinct / len(some))[1] * rows.codes.shape[1]

    return validate


def _drawn_rows(held, weight, generator):
    """The rows that validate: the first of those held out, or some drawn by weight."""
    rows = held if weight is None else held[pass_of(len(held), weight[held], generator)]
    return rows[:_VALIDATION_ROWS]


class _Passes:
    """Batches of permuted passes over some rows."""

    def __init__(self, rows, batch, generator, weight=None):
        self.rows, self.batch, self.generator, self.order, self.place = rows, batch, generator, rows, math.inf
        self.weight = None if weight is None else weight[rows]

    def next(self):
        """The rows of the next batch."""
        if self.place + self.batch > len(self.rows):
            order = pass_of(len(self.rows), self.weight, self.generator)
            self.order, self.place = self.rows[order], 0
        self.place += self.batch
        return self.order[self.place - self.batch : self.place]

    def state(self, ended):
        """Where in a pass it is."""
        return {"order": self.order, "place": self.place}

    def set_state(self, state):
        """Go on from there."""
        self.order, self.place = state["order"].to(self.rows.device), state["place"]
