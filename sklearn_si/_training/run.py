"""One training run: maps, tensors, networks, loss and validation."""

import contextlib
import copy
import dataclasses
import functools
import itertools
import time

import numpy as np
import torch
from torch import nn

from .._model.fields import REGRESSIONS, Fields
from .._model.likelihood import (
    GRID_LAW,
    STEPS,
    density_parts,
    middle_parts,
    standard_normal_parts,
)
from .._model.step_choice import PILOT_ROWS, choose_grid
from .._utils.process import seeded_globally
from .._utils.tensors import (
    BASE_STREAM,
    FIT_STREAM,
    GRID_STREAM,
    as_array,
    as_tensor,
    make_generator,
    normal,
    resolve_device,
)
from ..couplings import paired
from ..distributed import SHARED_ROWS, Single, strided
from ..networks import (
    ComposedVelocity,
    DenoiserOfScore,
    FiLMNetwork,
    ForecastField,
    MixtureVelocity,
    PreconditionedField,
)
from ..networks._fields import StraightScales
from ..networks._perceptrons import Perceptron
from ..preprocessing import fit_one_sample_map, fit_two_sample_maps
from ..solvers import odeint, time_grid
from .batches import Batches, Sampler, held_out_loss
from .lazy_rows import is_large_map, part_of, scaled_rows
from .loop import History, count_rounds, train
from .path_learning import MOVING_SHARE, STEPS_BETWEEN, Ascent

# Units of the narrowest layer from which bfloat16 pays (measured: at 64 it costs 8 % of the steps).
_WIDE_ENOUGH = 128
# Pairs from which the covariance of the ends of a coupling is estimated.
_MOMENT_ROWS = 4096
# Rows carried back at a time, and at the most.
_CHUNK, _MOST_CARRIED = 4096, 50_000
# Runs of a fit that a process may number before it takes the random numbers of the next one.
_RANKS_APART = 1000
# Rows on which a round is validated, fewer where a fit has less than so many seconds, and times that two-sample losses
# are averaged over.
VALIDATION_ROWS, _FEW_VALIDATION_ROWS, _SHORT, _VALIDATION_DRAWS = 256, 64, 10.0, 4096


def _spread_rows(X, train):
    """The training rows, or all rows where a column (of few distinct values) is constant in the former."""
    rows = X[train[strided(len(train), SHARED_ROWS)]]
    return X if (rows == rows[0]).all(axis=0).any() else rows


@functools.cache
def has_bf16():
    """Whether the processor multiplies bfloat16 numbers by instructions of its own."""
    # older releases of torch do not say
    known = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def can_race(plan):
    """Whether runs can be compared by the log-likelihood of held-out rows."""
    return not plan.two_samples and plan.held1 is not None and plan.fields == ("velocity",)


class Run:
    """One training run under one preprocessing: maps, tensors, networks, loss and validation.

    Parameters
    ----------
    estimator, plan
        What is fitted, to what.
    kind : str or None
        The preprocessing.
    mixture : tuple, default=None
        The Gaussian mixture around which the network is built.
    like : Run, default=None
        One whose maps and rows it shares.
    maps : tuple of maps, default=None
        Maps that were fitted before.
    networks : dict, default=None
        What it goes on from, in place; None builds new ones.
    number : int, default=0
        Of several runs of a fit: each draws points of its own.
    """

    def __init__(self, estimator, plan, kind, mixture=None, *, like=None, maps=None, networks=None, number=0):
        self.estimator, self.plan, self.kind, self.mixture, self.history = estimator, plan, kind, mixture, None
        self.earlier = History()  # of the fits that a warm start goes on from
        self.steps = 0  # of the runs that it goes on from
        self.action_curve = None  # of a learned path
        self.pairs = None  # of training rows and of held-out rows, where they are no longer drawn from the samples
        self.device = resolve_device(estimator.device)
        number += _RANKS_APART * plan.group.rank
        self.generator = make_generator(plan.seed, FIT_STREAM + 1000 * number, self.device)
        # of its own, because batches may be drawn ahead in another thread
        self.masks = make_generator(plan.seed, FIT_STREAM + 300 + 1000 * number, self.device)
        if like is None:
            self.base_map, self.target_map = maps or self._fit_maps(kind)
            self.x0 = self._scaled(plan.X0, self.base_map)
            self.x1 = self._scaled(plan.X1, self.target_map)
            self.condition = None if plan.condition is None else as_tensor(plan.condition, torch.float32, self.device)
        else:
            for name in ("base_map", "target_map", "x0", "x1", "condition"):
                setattr(self, name, getattr(like, name))
        self.networks = nn.ModuleDict(networks or self._build_networks()).to(self.device).eval()

    def _fit_maps(self, kind):
        plan = self.plan
        target = plan.group.rows(_spread_rows(plan.X1, plan.train1))
        if not plan.two_samples:
            return None, fit_one_sample_map(target, kind)
        base = plan.group.rows(_spread_rows(plan.X0, plan.train0))
        return fit_two_sample_maps(base, target, kind, common_centre=not plan.interpolant.is_linear)

    def log_jacobian(self, rows):
        """The log |det dx'/dx| of the map at some rows of X1."""
        return self.target_map.log_abs_det_jacobian(self.plan.X1[rows])

    def _scaled(self, X, scaling):
        return None if X is None else scaled_rows(X, scaling, self.device)

    def some(self, x, rows):
        """Some rows of all processes, in scaled units."""
        group = self.plan.group
        x = x[rows[strided(len(rows), SHARED_ROWS)]]
        return x if group.size == 1 else torch.as_tensor(group.rows(as_array(x, np.float32)), device=self.device)

    @property
    def widths(self):
        """Widths of the hidden layers of our own networks."""
        return _widths(self.estimator.hidden_layer_sizes, self.x1.shape[1])

    def _build_networks(self):
        plan = self.plan
        if hasattr(plan.interpolant, "build"):
            plan.group.refuse("A learned interpolant")
            plan.interpolant = copy.deepcopy(plan.interpolant)  # the user's own instance stays as it is
            plan.interpolant.build(self.x1.shape[1], plan.seed, self.device)
        if hasattr(self.estimator, "_build_networks"):
            return self.estimator._build_networks(self)
        some1 = self.some(self.x1, plan.train1)
        v1, some0 = some1.var(0, correction=0), None if self.x0 is None else self.some(self.x0, plan.train0)
        v0 = torch.ones_like(v1) if some0 is None else some0.var(0, correction=0)
        c = None
        if getattr(plan.coupling, "row_by_row", False):
            c = _covariance(some0, some1)
        elif getattr(plan.coupling, "pooled", False):
            pairs = make_generator(plan.seed, FIT_STREAM + 400, self.device)
            c = _covariance(*self._sampler(plan.train0, plan.train1).draw(_MOMENT_ROWS, pairs)[:2])
            c = plan.group.average(c)
        return {name: self._build_network(name, v0, v1, c) for name in plan.fields}

    def _build_network(self, target, v0, v1, c):
        estimator, plan, d = self.estimator, self.plan, self.x1.shape[1]
        n_conditions = d if target == "forecast" else 0 if plan.codec is None else plan.codec.n_outputs_
        # a stream of its own for each field, the same whatever the others are
        generator = make_generator(plan.seed, FIT_STREAM + 100 * list(REGRESSIONS).index(target))
        if estimator.network != "mlp":
            with seeded_globally(plan.seed):
                return estimator.network(d, n_conditions)
        network = FiLMNetwork(d, n_conditions, self.widths, estimator.activation, generator)
        if target == "forecast":
            return ForecastField(network, estimator.gamma_scale / 2)
        if self.mixture is not None:
            return MixtureVelocity(plan.interpolant, network, *self.mixture)
        path = plan.interpolant if plan.interpolant.is_linear else StraightScales(plan.interpolant)
        ends = (v.clamp(min=1e-6).cpu() for v in (v0, v1))
        return PreconditionedField(path, network, target, *ends, None if c is None else c.cpu())

    def learn_path(self, settings):
        """Train the fields and the path between the ends in turn, for a share of the steps."""
        plan, sampler = self.plan, self._sampler(self.plan.train0, self.plan.train1)
        steps = max(1, round(MOVING_SHARE * settings.max_iter))
        seconds = None if settings.max_time is None else MOVING_SHARE * settings.max_time
        moving = dataclasses.replace(settings, max_iter=steps, max_time=seconds, early_stopping=False)
        began = time.perf_counter()

        def progress(k):
            elapsed = 0.0 if seconds is None else (time.perf_counter() - began) / seconds
            return max(k * STEPS_BETWEEN / steps, elapsed)

        law, batch = settings.time_law, settings.batch_size
        generator = make_generator(plan.seed, FIT_STREAM + 900, self.device)
        ascent = Ascent(plan.interpolant, self.networks, sampler, batch, generator, progress)
        batches = Batches(
            self.networks, plan.interpolant, law, sampler, batch, self.generator, path=ascent, size=STEPS_BETWEEN
        )
        with batches, self._foreign_randomness(), self._told("path", moving) as after_round:
            record = self._record(batches)
            self.history = train(self.networks, batches.loss, None, moving, after_round=after_round, record=record)
        self.action_curve = ascent.close()

    def keep_history(self):
        """Count the last training among those that the next one goes on from."""
        before, last = self.earlier, self.history
        self.earlier = History(before.n_iter + last.n_iter, before.loss_curve + last.loss_curve)
        self.history = History()

    @contextlib.contextmanager
    def _told(self, name, settings):
        """What is to be called after each round, so that callbacks learn of it."""
        with self.plan.tasks.run(name, count_rounds(settings)) as tell:

            def after_round(history, kept):
                def attributes():
                    with kept():
                        return self.snapshot(history)

                return tell(history, None if self.plan.awaits_density else attributes)

            yield None if tell is None else after_round

    def snapshot(self, history):
        """The fitted attributes as if training had ended now."""
        run = copy.copy(self)
        run.plan = dataclasses.replace(self.plan, group=Single())  # the others may not ask for it
        run.networks = copy.deepcopy(self.networks).requires_grad_(False).eval()
        for layer in run.networks.modules():
            if isinstance(layer, Perceptron):
                layer.dropout, layer.masks = 0.0, None
        return run.attributes(history, self.plan.density)

    def train(self, settings, *, name="train", dropout=None, start_score=None):
        """Train the networks in place; the history is kept.

        `name` is that of the task, for callbacks; `dropout` is the estimator's own unless given; `start_score` saves
        validating the start where it is known.
        """
        estimator, plan = self.estimator, self.plan
        sampler = self._sampler(plan.train0, plan.train1)
        if dropout is None:
            dropout = 0.0 if estimator.dropout == "auto" else estimator.dropout
        law, batch, low = settings.time_law, settings.batch_size, self._low_precision()
        batches = Batches(self.networks, plan.interpolant, law, sampler, batch, self.generator, low)
        told = self._told(name, settings)
        with batches, self._dropping(dropout), self._foreign_randomness(), told as after_round:
            validate = self._validation(settings)
            fit_score = self.likelihood_of(plan.train1) if can_race(plan) else None
            # the start, a closed form or an earlier run, may be the best there is
            start_score = start_score or validate
            self.history = train(
                self.networks, batches.loss, validate, settings, start_score=start_score, fit_score=fit_score,
                after_round=after_round, group=plan.group, record=self._record(batches),
            )  # fmt: skip
        return self.history

    def _record(self, batches):
        """Where the training that now begins is kept."""
        generators = {"points": self.generator, "masks": self.masks}
        if self.estimator.network != "mlp":
            generators["foreign"] = torch.default_generator
        return self.plan.checkpoint.training(generators, batches)

    def _low_precision(self):
        """Whether products of matrices in training are in bfloat16 (weights, sums and validation never are)."""
        bf16 = self.estimator.bf16
        if bf16 != "auto":
            return bf16
        # where it was measured to pay: one sample, our own network, layers wide enough, instructions for it
        ours = can_race(self.plan) and self.estimator.network == "mlp" and self.device.type == "cpu"
        return ours and min(self.widths) >= _WIDE_ENOUGH and has_bf16()

    @contextlib.contextmanager
    def _dropping(self, dropout):
        """Within it, the layers of our own networks drop a share of their units."""
        layers = [m for m in self.networks.modules() if isinstance(m, Perceptron)]
        if dropout and not layers:
            raise ValueError(
                f"Got dropout={dropout:g}, but the network is a factory's own: give it dropout of its own, or leave "
                "dropout='auto'."
            )
        try:
            for layer in layers:
                layer.dropout, layer.masks = dropout, self.masks
            yield
        finally:
            for layer in layers:
                layer.dropout, layer.masks = 0.0, None

    @contextlib.contextmanager
    def _foreign_randomness(self):
        """Within it, layers of a factory that draw from the global generator follow the seed and leave it alone."""
        if self.estimator.network == "mlp":
            yield
            return
        with seeded_globally(self.plan.seed):
            yield

    def _sampler(self, rows0, rows1):
        if self.pairs is not None:
            x0, x1 = self.pairs["train" if rows0 is self.plan.train0 else "held"]
            return Sampler(x0, x1, None, paired, self.plan.interpolant.has_noise)
        x0 = None if self.x0 is None else part_of(self.x0, rows0)
        condition = None if self.condition is None else self.condition[rows1]
        dropout = self.estimator.condition_dropout
        return Sampler(
            x0, part_of(self.x1, rows1), condition, self.plan.coupling, self.plan.interpolant.has_noise, dropout
        )

    def _validation(self, settings):
        """The score of a round: log-likelihood for a normal base, else minus the loss."""
        plan = self.plan
        if plan.held1 is None:
            return None
        if can_race(plan):
            return self.likelihood_of(plan.held1)
        sampler = self._sampler(plan.held0, plan.held1)

        # the same points at every round: differences between rounds are the model's alone
        generator = make_generator(plan.seed, FIT_STREAM + 200, self.device)
        loss = held_out_loss(self.networks, plan.interpolant, settings.time_law, sampler, _VALIDATION_DRAWS, generator)
        return lambda: plan.group.mean_over_rows(-loss())

    def likelihood_of(self, rows, most=None):
        """A function that gives the mean log-density of rows in data units, by a coarse grid (to .01 nats)."""
        few = self.estimator.max_time is not None and self.estimator.max_time < _SHORT
        most = most or (_FEW_VALIDATION_ROWS if few else VALIDATION_ROWS)
        rows, path = rows[:most], self.plan.interpolant
        condition = None if self.condition is None else self.condition[rows]
        fields = Fields(path, self.networks["velocity"], condition=condition)
        middle = getattr(getattr(path, "path", path), "crossing", None)
        anchor, parts = (0.0, standard_normal_parts) if middle is None else (middle, middle_parts(path, middle))
        x, jacobian = self.x1[rows], float(np.mean(self.log_jacobian(rows)))

        @torch.no_grad()
        def likelihood():
            value, _ = density_parts(fields, x, 1.0, STEPS, GRID_LAW, anchor, parts)
            return self.plan.group.mean_over_rows(float(value.sum(1).mean()) + jacobian)

        return likelihood

    @torch.no_grad()
    def base_rows(self):
        """The rows of X0 with as many rows of X1 carried back to t = 0, in data units.

        Both are draws of the base, and a density that has seen X0 alone is steep where the flow misses its support
        by little: held-out log-likelihoods of X1 were lower by 0.3 to 2.5 nats.
        """
        plan, rng = self.plan, np.random.default_rng([self.plan.seed, BASE_STREAM])
        velocity, denoiser = compose(plan.interpolant, dict(self.networks))
        base = self.x0[strided(len(self.x0), SHARED_ROWS)]
        back, farthest = [], 2 * base.norm(dim=1).max()
        most = min(len(base), len(plan.X1), _MOST_CARRIED)
        for rows in torch.as_tensor(rng.permutation(len(plan.X1))[:most]).split(_CHUNK):
            condition = None if self.condition is None else self.condition[rows]
            fields = Fields(plan.interpolant, velocity, denoiser, condition)
            x = odeint(fields.velocity, self.x1[rows], time_grid(20, GRID_LAW, 1.0, 0.0), "dopri5")
            # rows that the flow throws out of the base's support tell of its errors, not of the base
            back.append(x[x.norm(dim=1) <= farthest])
        back = self.base_map.inverse_transform(as_array(torch.cat(back), np.float64))
        base = plan.X0[strided(len(plan.X0), SHARED_ROWS)] if is_large_map(plan.X0) else plan.X0
        return np.concatenate([base, back.astype(plan.X0.dtype, copy=False)])

    def _stored_rows(self):
        """A copy (the caller may write in his own) of the rows that `sample` starts from; None for a normal base."""
        rows = self.plan.X1 if self.plan.interpolant.kind == "mirror" else self.plan.X0
        if rows is None:
            return None
        rows = rows[strided(len(rows), SHARED_ROWS)] if is_large_map(rows) else rows
        return self.plan.group.rows(rows).copy()

    def _sampling_grid(self, velocity):
        """Steps and law for `sample`, measured on rows of the base; None where it solves no ODE from the base."""
        path = self.plan.interpolant
        if path.kind == "mirror" or self.plan.fields == ("forecast",):
            return None
        generator = make_generator(self.plan.seed, GRID_STREAM, self.device)
        rows = torch.randint(len(self.x1), (PILOT_ROWS,), generator=generator, device=self.device)
        condition = None if self.condition is None else self.condition[rows]
        if self.x0 is None:
            x = normal((PILOT_ROWS, self.x1.shape[1]), generator, like=self.x1)
        else:
            x = self.x0[torch.randint(len(self.x0), (PILOT_ROWS,), generator=generator, device=self.device)]
        node = getattr(getattr(path, "path", path), "crossing", None)
        return self.plan.group.first(lambda: choose_grid(Fields(path, velocity, condition=condition), x, node))

    def attributes(self, history: History, density):
        """The fitted attributes of the estimator."""
        plan = self.plan
        loss_curve = self.earlier.loss_curve + history.loss_curve
        scores = self.earlier.validation_scores + history.validation_scores
        velocity, denoiser = compose(plan.interpolant, dict(self.networks))
        grid = None
        with plan.interruptible(lambda: True, "in the choice of steps for `sample`, which takes 16."):
            grid = self._sampling_grid(velocity)
        learned = {} if self.action_curve is None else {"action_curve_": self.action_curve}
        return learned | {
            "network_": velocity,
            "denoiser_network_": denoiser,
            "_learned_": dict(self.networks),
            "condition_codec_": plan.codec,
            "seed_": plan.seed,
            "interpolant_": plan.interpolant,
            "preprocessing_": self.target_map,
            "base_preprocessing_": self.base_map,
            "base_density_": density,
            "base_sample_": self._stored_rows(),
            "sampling_grid_": grid,
            "dtype_": np.result_type(plan.X1, plan.X1 if plan.X0 is None else plan.X0),
            "n_iter_": max(1, self.earlier.n_iter + history.n_iter),
            "loss_": loss_curve[-1] if loss_curve else np.nan,
            "loss_curve_": loss_curve,
            "validation_scores_": scores or None,
            "best_validation_score_": history.best_score if history.validation_scores else None,
        }


def _covariance(x0, x1):
    """That of paired rows, a feature."""
    return ((x0 - x0.mean(0)) * (x1 - x1.mean(0))).mean(0)


def compose(interpolant, learned):
    """The velocity and the denoiser (or None) from the learned fields."""
    denoiser = learned.get("denoiser")
    if "score" in learned:
        denoiser = DenoiserOfScore(interpolant, learned["score"])
    if "velocity" in learned or "forecast" in learned:
        return learned.get("velocity", learned.get("forecast")), denoiser
    if not hasattr(denoiser, "as_score"):
        raise ValueError(
            "A network factory gives the denoiser without its score, so the velocity cannot be composed from it at "
            "both ends: use fields='b+eta' or network='mlp'."
        )
    return ComposedVelocity(interpolant, denoiser.as_score(), learned.get("drift")), denoiser


def _widths(sizes, n_features):
    """Widths of the hidden layers; "auto": three layers while tangents are cheap, then two wide ones."""
    if isinstance(sizes, str):
        if n_features <= 3:
            return (64, 64, 64)
        return (128, 128, 128) if n_features <= 24 else (256, 256)
    widths = tuple(itertools.chain(np.atleast_1d(sizes).tolist()))
    if not widths or any(not isinstance(w, int) or w < 1 for w in widths):
        raise ValueError(f"Got hidden_layer_sizes={sizes!r}, but expected one or more integers of at least 1.")
    return widths
