"""One training run: maps, tensors, networks, loss and validation."""

import contextlib
import copy
import dataclasses
import functools
import time
from typing import Any

import numpy as np
import torch
from torch import nn

from .._model.base_parts import normal_parts
from .._model.fields import Fields
from .._model.fitted import FittedModel
from .._model.likelihood import GRID_SPACING, VALIDATION_LEVEL, density_parts, middle_parts
from .._model.step_choice import PILOT_ROWS, choose_grid
from .._training.losses import REGRESSIONS
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
from ..networks import FiLMNetwork, ForecastField, MixtureVelocity, PreconditionedField
from ..networks._fields import StraightScales
from ..networks._perceptrons import Perceptron
from ..networks._torus import torus_velocity
from ..preprocessing import WHITENING, AffineMap, fit_two_sample_maps
from ..solvers import odeint, time_grid
from .batches import Batches, Sampler, held_out_loss
from .composed import compose, normal_transition
from .gains import gains_of
from .lazy_rows import part_of, scaled_rows
from .loop import History, Scores, count_rounds, train
from .path_learning import MOVING_SHARE, STEPS_BETWEEN, Ascent, remaining
from .plans import coupling_of, has_optimal_start, optimal_velocity, pair_covariance, start_weights
from .recipe import layer_widths
from .row_values import RowValues
from .triangular import one_sample_map
from .validation_split import most_validation_rows
from .weighting import (
    by_weight,
    first_rows,
    joined_weights,
    mean_by_weight,
    pilot_rows,
    spread_rows,
    stored_numbers,
    stored_rows,
    tensors_of,
)

# Units of the narrowest layer from which bfloat16 pays (measured: at 64 it costs 8 % of the steps).
_WIDE_ENOUGH = 128
# Pairs from which the covariance of the ends of a coupling is estimated.
_MOMENT_ROWS = 4096
# Rows that are transported to the base at a time.
_ROWS_PER_SOLVE = 4096
# The same, where time is the limit: it is looked at after each block.
_ROWS_IN_A_HURRY = 512
# Share of `max_time` in which rows of the target are transported to t = 0, for the density of the base.
_CARRIED_SHARE = 0.1
# Largest number of rows that are transported to the base.
_MOST_TRANSPORTED = 50_000
# Runs of a fit that a process may number before it takes the random numbers of the next one.
_RANKS_APART = 1000
# Learned fields of which the log-likelihood of held-out rows follows.
JUDGED = (("velocity",), ("masked",))
# Points (pairs, times) of the validation loss of two samples.
_VALIDATION_DRAWS = 4096


@functools.cache
def has_bf16():
    """Whether the processor multiplies bfloat16 numbers by instructions of its own."""
    # older releases of torch do not say
    known: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def has_likelihood_validation(problem):
    """Whether runs can be compared by the log-likelihood of held-out rows."""
    return not problem.two_samples and problem.target_val is not None and problem.fields in JUDGED


class Run:
    """One training run under one preprocessing: maps, tensors, networks, loss and validation.

    Parameters
    ----------
    recipe, problem
        What is fitted, to what.
    kind : str or None
        The preprocessing.
    mixture : ClosedForm, default=None
        The Gaussian mixture around which the network is built.
    like : Run, default=None
        One whose maps and rows it shares.
    maps : tuple of maps, default=None
        Maps that were fitted before.
    networks : dict, default=None
        What it continues from, in place; None builds new ones.
    number : int, default=0
        Of several runs of a fit: each draws points of its own.
    """

    def __init__(self, recipe, problem, kind, mixture=None, *, like=None, maps=None, networks=None, number=0):
        self.recipe, self.problem, self.kind, self.mixture = recipe, problem, kind, mixture
        self.history: Any = None  # of its last training
        self.dropout = 0.0  # likewise
        self.earlier = History()  # of the fits that a warm start continues from
        self.steps = self.kept_steps = 0  # of the runs that it continues from; and those up to the weights they left
        self.action_curve = None  # of a learned path
        self.plan = self.pairing = None  # the coupling of the training rows, and what its plan pairs at a time
        self.pairs = None  # of training rows and of held-out rows, where they are no longer drawn from the samples
        self.device = resolve_device(recipe.device)
        number += _RANKS_APART * problem.group.rank
        self.generator = make_generator(problem.seed, FIT_STREAM + 1000 * number, self.device)
        # of its own, because batches may be drawn ahead in another thread
        self.masks = make_generator(problem.seed, FIT_STREAM + 300 + 1000 * number, self.device)
        if like is None:
            self.row_values = RowValues()
            self.base_map, self.target_map = maps or self._fit_maps(kind)
            self.x0 = self._scaled(problem.base, self.base_map)
            self.x1 = self._scaled(problem.target, self.target_map)
            c = problem.condition
            self.condition = None if c is None else as_tensor(c, torch.float32, self.device)
        else:
            for name in ("base_map", "target_map", "x0", "x1", "condition", "row_values"):
                setattr(self, name, getattr(like, name))
        self.networks = nn.ModuleDict(networks or self._build_networks()).to(self.device).eval()

    def _fit_maps(self, kind):
        problem = self.problem
        target, w1 = spread_rows(problem.target, problem.target_train, problem.target_weight)
        target = problem.group.rows(target)
        if not problem.two_samples:
            return None, one_sample_map(problem, target, kind, w1, self.recipe.circular)
        base, w0 = spread_rows(problem.base, problem.base_train, problem.base_weight)
        is_common = problem.coupling.changes_marginals or not problem.interpolant.is_linear
        return fit_two_sample_maps(problem.group.rows(base), target, kind, common_centre=is_common, weights=(w0, w1))

    def log_jacobian(self, rows):
        """The log |det dx'/dx| of the map at some rows of X1."""
        return self.target_map.log_abs_det_jacobian(self.problem.target[rows])

    @property
    def has_data_units(self):
        """Whether the map is affine, so that fields have data units."""
        return isinstance(self.target_map, AffineMap)

    def joint_rows(self, rows):
        """Some rows of the target in the units of the fitted model, in double precision."""
        return self.x1[rows].double()

    def _scaled(self, X, scaling):
        return None if X is None else scaled_rows(X, scaling, self.device)

    def some(self, x, rows, weight=None):
        """Some rows of all processes, in scaled units; drawn by weight where they have weights."""
        group = self.problem.group
        rows = by_weight(weight, rows, len(rows), self.problem.seed)
        x = x[rows[strided(len(rows), SHARED_ROWS)]]
        return x if group.size == 1 else torch.as_tensor(group.rows(as_array(x, np.float32)), device=self.device)

    @property
    def widths(self):
        """Widths of the hidden layers of our own networks."""
        return layer_widths(self.recipe.hidden_layer_sizes, self.x1.shape[1])

    def _build_networks(self):
        problem = self.problem
        if problem.interpolant.is_learned:
            problem.interpolant = copy.deepcopy(problem.interpolant)  # the user's own instance stays as it is
            problem.interpolant.build(self.x1.shape[1], problem.seed, self.device)
        if self.recipe.build_networks is not None:
            return self.recipe.build_networks(self)
        some0, some1 = None, self.some(self.x1, problem.target_train, problem.target_weight)
        if self.x0 is not None:
            some0 = self.some(self.x0, problem.base_train, problem.base_weight)
        c = pair_covariance(self, some0, some1, _MOMENT_ROWS)
        return {name: self._build_network(name, some0, some1, c) for name in problem.fields}

    def _build_network(self, target, x0, x1, c):
        recipe, problem, d = self.recipe, self.problem, self.x1.shape[1]
        # one after whitening, which has shrunk what few rows tell of them
        v1 = x1.var(0, correction=0) if x0 is not None or self.kind not in WHITENING else torch.ones_like(x1[0])
        v0 = torch.ones_like(v1) if x0 is None else x0.var(0, correction=0)
        n_conditions = d if target == "forecast" else 0 if problem.codec is None else problem.codec.n_outputs_
        # a stream of its own for each field, the same whatever the others are
        generator = make_generator(problem.seed, FIT_STREAM + 100 * list(REGRESSIONS).index(target))
        if recipe.network != "mlp":
            with seeded_globally(problem.seed):
                return recipe.network(d, n_conditions)
        if recipe.circular:
            v1 = v1.clamp(min=1e-6).cpu()
            return torus_velocity(problem.interpolant, v1, n_conditions, self.widths, recipe.activation, generator)
        network = FiLMNetwork(d, n_conditions, self.widths, recipe.activation, generator)
        if target == "forecast":
            return ForecastField(network, recipe.gamma_scale / 2, normal_transition(self))
        if has_optimal_start(self):
            return optimal_velocity(self, network, x0, x1)
        if self.mixture is not None:
            return MixtureVelocity(problem.interpolant, network, *self.mixture.parts)
        path = problem.interpolant if problem.interpolant.is_linear else StraightScales(problem.interpolant)
        v0, v1 = (v.clamp(min=1e-6).cpu() for v in (v0, v1))
        return PreconditionedField(path, network, target, v0, v1, None if c is None else c.cpu())

    def learn_path(self, settings):
        """Train the fields and the path between the ends in turn, for a share of the steps."""
        began, problem = time.perf_counter(), self.problem
        sampler = self.sampler_of(problem.base_train, problem.target_train)
        steps = max(1, round(MOVING_SHARE * settings.max_iter))
        seconds = None if settings.max_time is None else MOVING_SHARE * settings.max_time
        moving = dataclasses.replace(settings, max_iter=steps, max_time=seconds, early_stopping=False)

        def progress(k):
            elapsed = 0.0 if seconds is None else problem.group.mean(time.perf_counter() - began) / seconds
            return max(k * STEPS_BETWEEN / steps, elapsed)

        times, batch = settings.time_distribution, settings.batch_size
        rank = _RANKS_APART * problem.group.rank
        generator = make_generator(problem.seed, FIT_STREAM + 900 + 1000 * rank, self.device)
        ascent = Ascent(problem.interpolant, self.networks, sampler, batch, generator, progress, problem.group)
        batches = Batches(self.networks, problem.interpolant, times, sampler, batch, self.generator, path=ascent)
        with batches, self._foreign_randomness(), self._told("path", moving) as after_round:
            record = self._record(batches)
            self.history = train(
                self.networks, batches.loss, Scores(), problem.limited(moving, began),
                after_round=after_round, group=problem.group, record=record, history=problem.begun("path"),
            )  # fmt: skip
        self.action_curve = ascent.close()

    def keep_history(self):
        """Count the last training among those that the next one continues from."""
        before, last = self.earlier, self.history
        self.earlier = History(before.n_iter + last.n_iter, before.loss_curve + last.loss_curve)
        self.history = History()

    @contextlib.contextmanager
    def _told(self, name, settings):
        """What is to be called after each round, so that callbacks learn of it."""
        with self.problem.tasks.run(name, count_rounds(settings)) as tell:

            def after_round(history, kept):
                def attributes():
                    with kept():
                        return self.snapshot(history)

                return tell(history, None if self.problem.awaits_density else attributes)

            yield None if tell is None else after_round

    def snapshot(self, history):
        """The fitted attributes as if training had ended now."""
        run = copy.copy(self)
        run.problem = dataclasses.replace(self.problem, group=Single())  # the others may not ask for it
        run.networks = copy.deepcopy(self.networks).requires_grad_(False).eval()
        for layer in run.networks.modules():
            if isinstance(layer, Perceptron):
                layer.dropout, layer.masks = 0.0, None
        model, record = run.fitted(history, self.problem.density)
        return {"model_": model, **record}

    def train(self, settings, *, name="train", dropout=None, start_score=None):
        """Train the networks in place; the history is kept.

        `name` is that of the task, for callbacks; `dropout` is the recipe's own unless given; `start_score` saves
        validating the start where it is known.
        """
        recipe, problem, began = self.recipe, self.problem, time.perf_counter()
        sampler = self.sampler_of(problem.base_train, problem.target_train)
        own = 0.0 if recipe.dropout == "auto" else recipe.dropout
        self.dropout = own if dropout is None else dropout
        times, batch, low = settings.time_distribution, settings.batch_size, self._low_precision()
        batches = Batches(self.networks, problem.interpolant, times, sampler, batch, self.generator, low)
        told = self._told(name, settings)
        with batches, self._dropping(self.dropout), self._foreign_randomness(), told as after_round:
            validate = self._validation(settings)
            gains = gains_of(self) if name != "compare" and has_likelihood_validation(problem) else None
            scores = Scores(validate, start_score or validate, gains)  # the start may be the best there is
            self.history = train(
                self.networks, problem.group.guarded(batches.loss), scores, problem.limited(settings, began),
                after_round=after_round, group=problem.group, record=self._record(batches), history=problem.begun(name),
            )  # fmt: skip
        problem.n_steps += self.history.n_iter
        return self.history

    def _record(self, batches):
        """Where the training that now begins is kept."""
        generators = {"points": self.generator, "masks": self.masks}
        if self.recipe.network != "mlp":
            generators["foreign"] = torch.default_generator
        return self.problem.checkpoint.training(generators, batches)

    def _low_precision(self):
        """Whether products of matrices in training are in bfloat16 (weights, sums and validation never are)."""
        bf16 = self.recipe.bf16
        if bf16 != "auto":
            return bf16
        # where it was measured to pay: one sample, our own network, layers wide enough, instructions for it
        ours = has_likelihood_validation(self.problem) and self.recipe.network == "mlp" and self.device.type == "cpu"
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
        if self.recipe.network == "mlp":
            yield
            return
        with seeded_globally(self.problem.seed):
            yield

    def sampler_of(self, rows0, rows1):
        """The source of batches of some rows of both samples."""
        if self.pairs is not None:
            x0, x1 = self.pairs["train" if rows0 is self.problem.base_train else "val"]
            return Sampler(x0, x1, None, paired, self.problem.interpolant.has_noise)
        x0 = None if self.x0 is None else part_of(self.x0, rows0)
        condition = None if self.condition is None else self.condition[rows1]
        problem, dropout = self.problem, self.recipe.condition_dropout
        weights = tensors_of(problem, rows0, rows1, self.device)
        x1, latent_noise = part_of(self.x1, rows1), problem.interpolant.has_noise
        coupling = coupling_of(self, rows0 is problem.base_train, (x0, x1, condition, *weights))
        sampler = self.make_sampler(x0, x1, condition, coupling, latent_noise, dropout, weights)
        self.pairing = sampler.pairing if rows0 is problem.base_train else self.pairing
        return sampler

    def make_sampler(self, *args):
        """The source of batches, with the parameters of `Sampler`."""
        return Sampler(*args)

    def _validation(self, settings):
        """The score of a round: log-likelihood for a normal base, else minus the loss."""
        problem = self.problem
        if problem.target_val is None:
            return None
        if has_likelihood_validation(problem):
            return self.likelihood_of(problem.target_val)
        sampler = self.sampler_of(problem.base_val, problem.target_val)
        # the same points at every round: differences between rounds are the model's alone
        generator = make_generator(problem.seed, FIT_STREAM + 200, self.device)
        times, path = settings.time_distribution, problem.interpolant
        loss = held_out_loss(self.networks, path, times, sampler, _VALIDATION_DRAWS, generator)
        return problem.group.averaged(lambda: -float(loss()))

    def likelihood_of(self, rows, most=None):
        """A function that gives the mean log-density of rows in data units, by a coarse grid (to .01 nats)."""
        weight, group = self.problem.target_weight, self.problem.group
        values = self.row_likelihoods(rows := first_rows(weight, rows, self.n_validation_rows(most)))
        return group.averaged(lambda: mean_by_weight(values(), weight, rows))

    def row_likelihoods(self, rows):
        """A function that gives the log-density of each of some rows in data units, by a coarse grid."""
        path = self.problem.interpolant
        condition = None if self.condition is None else self.condition[rows]
        fields = Fields(path, self.networks["velocity"], condition=condition)
        middle = path.gaussian_time
        anchor, parts = (0.0, normal_parts(path)) if middle is None else (middle, middle_parts(path, middle))
        x, jacobian = self.x1[rows], torch.as_tensor(self.log_jacobian(rows))

        def likelihoods():
            value = density_parts(fields, x, 1.0, VALIDATION_LEVEL, GRID_SPACING, anchor, parts, None)[0].sum(1)
            return value.double().cpu() + jacobian

        return self.row_values.of(self.networks, rows, likelihoods)

    def n_validation_rows(self, most=None):
        """The largest number of rows that are scored, unless it is given."""
        return most or most_validation_rows(self.recipe.max_time, self.x1.shape[1])

    @torch.no_grad()
    def base_rows(self):
        """The rows of X0 with as many rows of X1 transported to t = 0, in data units, and their weights (or None).

        Both are draws of the base, and a density that has seen X0 alone is steep where the flow misses its support
        by little: held-out log-likelihoods of X1 were lower by 0.3 to 2.5 nats.
        """
        problem, rng = self.problem, np.random.default_rng([self.problem.seed, BASE_STREAM])
        velocity, denoiser = compose(problem.interpolant, dict(self.networks))
        base = self.x0[strided(len(self.x0), SHARED_ROWS)]
        back: list[torch.Tensor] = []
        kept: list[torch.Tensor] = []
        farthest = 2 * base.norm(dim=1).max()
        most = min(len(base), len(problem.target), _MOST_TRANSPORTED)
        limit, began = self.recipe.max_time, time.perf_counter()
        size = _ROWS_PER_SOLVE if limit is None else _ROWS_IN_A_HURRY
        for rows in torch.as_tensor(rng.permutation(len(problem.target))[:most]).split(size):
            if back and limit is not None and time.perf_counter() - began > _CARRIED_SHARE * limit:
                break
            condition = None if self.condition is None else self.condition[rows]
            fields = Fields(problem.interpolant, velocity, denoiser, condition)
            x = odeint(fields.velocity, self.x1[rows], time_grid(20, GRID_SPACING, 1.0, 0.0), "dopri5")
            # rows that the flow throws out of the base's support tell of its errors, not of the base
            near = x.norm(dim=1) <= farthest
            back.append(x[near])
            kept.append(rows[near.cpu()])
        moved = self.base_map.inverse_transform(as_array(torch.cat(back), np.float64))
        stored = stored_numbers(problem.base)
        numbers = np.arange(len(problem.base))[stored]
        weights = joined_weights((problem.base_weight, numbers), (problem.target_weight, torch.cat(kept).numpy()))
        return np.concatenate([problem.base[stored], moved.astype(problem.base.dtype, copy=False)]), weights

    def _sampling_grid(self, velocity):
        """Steps and spacing for `sample`, measured on rows of the base; None where it solves no ODE from the base."""
        path = self.problem.interpolant
        if path.path_type == "mirror" or self.problem.is_forecast:
            return None
        generator = make_generator(self.problem.seed, GRID_STREAM, self.device)
        rows = pilot_rows(len(self.x1), self.problem.target_weight, PILOT_ROWS, generator)
        condition = None if self.condition is None else self.condition[rows]
        if self.x0 is None:
            x = path.base_from_normal(normal((PILOT_ROWS, self.x1.shape[1]), generator, like=self.x1))
        else:
            weight = start_weights(self, self.problem.base_weight)
            x = self.x0[pilot_rows(len(self.x0), weight, PILOT_ROWS, generator)]
        node = path.gaussian_time
        return self.problem.group.first(lambda: choose_grid(Fields(path, velocity, condition=condition), x, node))

    def fitted(self, history: History, density: Any) -> tuple[FittedModel, dict[str, Any]]:
        """The fitted model, and how its training went, by the name of the fitted attribute."""
        problem = self.problem
        velocity, denoiser = compose(problem.interpolant, dict(self.networks))
        grid = None
        with problem.interruptible(lambda: True, "in the choice of steps for `sample`, which takes 16."):
            grid = self._sampling_grid(velocity)
        base_sample, base_weight = stored_rows(problem)
        model = FittedModel(
            interpolant=problem.interpolant,
            learned=dict(self.networks),
            velocity=velocity,
            denoiser=denoiser,
            base_map=self.base_map,
            target_map=self.target_map,
            base_sample=base_sample,
            base_weight=start_weights(self, base_weight),
            base_density=density,
            condition_codec=problem.codec,
            coupling=problem.coupling,
            dtype=np.result_type(problem.target, problem.target if problem.base is None else problem.base),
            seed=problem.seed,
            sampling_grid=grid,
            activation=self.recipe.activation,
            forecast_noise=self.recipe.gamma_scale / 2 if problem.is_forecast else None,
            base_grid=problem.base_grid,
            target_grid=problem.target_grid,
        )
        return model.within(problem.support), self._record_of(history)

    def _record_of(self, history: History) -> dict[str, Any]:
        """How the training went, with that of the fits that a warm start has continued from."""
        loss_curve = self.earlier.loss_curve + history.loss_curve
        scores = self.earlier.validation_scores + history.validation_scores
        learned = {} if self.action_curve is None else {"action_curve_": self.action_curve}
        learned |= {} if self.pairing is None else {"coupling_method_": self.pairing}
        return learned | {
            "n_iter_": max(1, self.earlier.n_iter + history.n_iter),
            "loss_": loss_curve[-1] if loss_curve else np.nan,
            "loss_curve_": loss_curve,
            "validation_scores_": scores or None,
            "best_validation_score_": history.best_score if history.validation_scores else None,
            "history_": self.problem.rounds(),
        }


def train_run(run, settings):
    """Train the one run of a fit that compares none; a path that is learned comes first."""
    if run.problem.interpolant.is_learned:
        run.learn_path(settings)
        if run.history.interrupted:
            return
        run.keep_history()
        settings = remaining(settings)
    run.train(settings)
