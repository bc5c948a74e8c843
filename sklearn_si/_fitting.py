"""From the parameters of an estimator and its samples to fitted attributes."""

import dataclasses
import itertools
import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from ._base_density import check_base, fit_base_density
from ._conditions import ConditionCodec
from ._likelihood import GRID_LAW, flow_with_divergence, standard_normal_log_density
from ._objectives import FIELDS, LOSSES, Fields
from ._tensors import BASE_STREAM, FIT_STREAM, as_array, as_tensor, draw_seed, make_generator, resolve_device
from ._training import History, Sampler, Settings, loss_of, train
from .couplings import COUPLINGS
from .interpolants import make_interpolant
from .networks import (
    ComposedVelocity,
    DenoiserOfScore,
    FiLMNetwork,
    ForecastField,
    PreconditionedField,
    StraightScales,
)
from .preprocessing import check_has_density, fit_one_sample_map, fit_two_sample_maps
from .solvers import odeint, time_grid

# Rows on which a round is validated, and times two-sample losses are averaged over.
_VALIDATION_ROWS, _VALIDATION_DRAWS = 256, 4096
# Gradient steps of max_iter="auto": without max_time, and with it, where time is the limit.
_STEPS, _NO_LIMIT = 3000, 10**9
# Share of the steps that each candidate of preprocessing="auto" gets before the choice.
_RACE = 0.1


@dataclasses.dataclass
class Plan:
    """What a fit works on: validated samples, the interpolant, the split, the seed."""

    X0: np.ndarray | None  # the base; None for the standard normal
    X1: np.ndarray
    interpolant: object
    coupling: object
    seed: int
    condition: np.ndarray | None  # encoded, one row for each row of X1
    codec: object  # what encoded it
    fields: tuple  # names of the learned fields, keys of LOSSES
    train0: np.ndarray | None
    train1: np.ndarray
    held0: np.ndarray | None
    held1: np.ndarray | None

    @property
    def two_samples(self):
        """Whether the base is a sample."""
        return self.X0 is not None


def make_plan(estimator, X0, X1, condition):
    """Check the parameters against the samples and split off validation rows."""
    base, target = (None, X0) if X1 is None else (X0, X1)
    forecast = _check_start(estimator, X1, condition)
    interpolant = make_interpolant(
        estimator.interpolant, estimator.gamma, estimator.gamma_scale,
        two_samples=base is not None, latent_noise=estimator._learns_denoiser,
    )  # fmt: skip
    coupling = "paired" if forecast else estimator.coupling
    _check_coupling(coupling, base, target)
    fields = ("forecast",) if forecast else _learned_fields(estimator, interpolant)
    codec, encoded = _encode(estimator, condition, len(target))
    if forecast or interpolant.kind == "mirror":
        pass  # transport only: no density is promised
    elif base is None:
        check_has_density(target)
    elif estimator.base_density is not None:
        check_has_density(target, "X1", "drop them, or set base_density=None if transport is all that is needed")
    coupling = COUPLINGS[coupling] if isinstance(coupling, str) else coupling
    seed = draw_seed(estimator.random_state)
    rng = np.random.default_rng([seed, FIT_STREAM])
    # A sample of two rows has none to spare: one row has no spread.
    enough = min(len(sample) for sample in (base, target) if sample is not None) > 2
    fraction = estimator.validation_fraction if estimator.early_stopping and enough else None
    train1, held1 = _split(len(target), fraction, rng)
    if base is None:
        train0 = held0 = None
    elif getattr(coupling, "row_by_row", False):
        train0, held0 = train1, held1
    else:
        train0, held0 = _split(len(base), fraction, rng)
    return Plan(base, target, interpolant, coupling, seed, encoded, codec, fields, train0, train1, held0, held1)


def _check_start(estimator, X1, condition):
    """Whether the model starts from given rows; the parameters that it rules out."""
    if getattr(estimator, "start", "base") == "base":
        return False
    if X1 is None or condition is not None:
        raise ValueError(
            "start='condition' takes pairs, fit(X0, X1) with row i of X0 the start of row i of X1, and no other "
            "condition."
        )
    if estimator.interpolant != "linear" or estimator.gamma not in ("auto", "brownian") or estimator.fields != "auto":
        raise ValueError(
            "start='condition' needs interpolant='linear', gamma='auto' and fields='auto': got "
            f"{estimator.interpolant!r}, {estimator.gamma!r} and {estimator.fields!r}."
        )
    return True


def _learned_fields(estimator, interpolant):
    """Names of the fields to learn: what the interpolant needs, or what `fields` says where it leaves a choice."""
    name = estimator.fields
    if interpolant.kind == "mirror":
        if name != "auto":
            raise ValueError(f"Got fields={name!r}, but interpolant='mirror' learns the denoiser alone: use 'auto'.")
        return ("denoiser",)
    if interpolant.kind == "one-sided":
        if name not in ("auto", "b"):
            raise ValueError(
                f"Got fields={name!r}, but with a normal base the velocity gives all other fields: use 'auto'."
            )
        return ("velocity",)
    name = ("b+eta" if estimator._learns_denoiser else "b") if name == "auto" else name
    if name != "b" and not interpolant.has_noise:
        raise ValueError(
            f"fields={name!r} needs a latent noise, but gamma is None: use gamma='brownian' or fields='b'."
        )
    return FIELDS[name]


def _encode(estimator, condition, n_rows):
    """The codec of the condition and its encoded rows, (None, None) without one."""
    droppable = estimator.condition_dropout > 0
    if estimator.guidance != 1 and not droppable:
        raise ValueError(
            f"Got guidance={estimator.guidance:g}, which needs a model trained with dropped conditions: set "
            "condition_dropout (0.1 is usual) and fit with condition=."
        )
    if condition is None:
        if droppable:
            raise ValueError(f"Got condition_dropout={estimator.condition_dropout:g}, but fit was given no condition.")
        return None, None
    codec = ConditionCodec(droppable).fit(condition)
    encoded = codec.transform(condition, n_rows)
    return codec, encoded


def _check_coupling(coupling, base, target):
    if coupling != "paired":
        return
    if base is None:
        raise ValueError("coupling='paired' pairs the rows of two samples, but fit was given one: pass X1 as well.")
    if len(base) != len(target):
        raise ValueError(
            f"coupling='paired' pairs row i with row i, but X0 has {len(base)} rows and X1 has {len(target)}: "
            "use coupling='independent'."
        )


def _split(n, fraction, rng):
    """Numbers of the training rows and of the held-out rows (None without a fraction)."""
    if fraction is None:
        return np.arange(n), None
    order = rng.permutation(n)
    held = min(n - 2, max(1, round(fraction * n)))
    return order[held:], order[:held]


def fit_plan(estimator, plan):
    """Fit base density, preprocessing and networks; the fitted attributes as a dict."""
    settings = _settings(estimator, plan)
    # an encoding-decoding path passes through a normal law, from which either end's density follows
    known_middle = getattr(plan.interpolant, "crossing", None) is not None
    wants_density = plan.two_samples and plan.fields != ("forecast",) and not known_middle
    spec, density = estimator.base_density if wants_density else None, None
    check_base(spec, plan.X0)
    if spec == "flow" and settings.max_time is not None:
        settings.max_time /= 2
    if spec != "flow":
        density = fit_base_density(spec, estimator, plan.X0, plan.seed)
    run = _warm_run(estimator, plan) or _choose_run(estimator, plan, settings)
    # An interrupt of the short runs has ended the fit: there is nothing left to train.
    history = run.history or run.train(settings)
    if not history.converged and estimator.early_stopping and estimator.tol > 0 and not history.interrupted:
        warnings.warn(
            f"The validation score was still rising by more than tol={estimator.tol:g} after {history.n_iter} steps: "
            "raise max_iter or max_time.",
            ConvergenceWarning,
            stacklevel=4,
        )
    if spec == "flow":
        density = fit_base_density(spec, estimator, run.base_rows(), plan.seed)
    return run.attributes(history, density)


def _settings(estimator, plan):
    law = estimator.time_law
    if law == "auto":
        law = "logit-normal" if plan.two_samples else "data-end"
    names = [f.name for f in dataclasses.fields(Settings) if f.name != "time_law"]
    values = {name: getattr(estimator, name) for name in names}
    if values["max_iter"] == "auto":
        values["max_iter"] = _STEPS if estimator.max_time is None else _NO_LIMIT
    return Settings(**values, time_law=law)


def _choose_run(estimator, plan, settings):
    """The run to train: with preprocessing="auto", the winner of short runs on validation rows."""
    kind = estimator.preprocessing
    if kind != "auto":
        return _Run(estimator, plan, kind)
    if plan.two_samples or plan.X1.shape[1] == 1 or plan.held1 is None or plan.fields != ("velocity",):
        return _Run(estimator, plan, "standardize")
    short = dataclasses.replace(
        settings,
        max_iter=max(1, int(_RACE * settings.max_iter)),
        max_time=None if settings.max_time is None else _RACE * settings.max_time,
        verbose=0,
    )
    scores = {}
    for kind in ("standardize", "whiten"):
        run = _Run(estimator, plan, kind)
        scores[kind] = run.train(short).best_score
        if run.history.interrupted:
            return run
    if settings.max_time is not None:
        settings.max_time *= 1 - len(scores) * _RACE
    return _Run(estimator, plan, max(scores, key=scores.get))


def _warm_run(estimator, plan):
    """With warm_start, a run that goes on from the fitted networks and maps; else None."""
    if not (estimator.warm_start and hasattr(estimator, "network_")):
        return None
    _check_warm_start(estimator, plan)
    maps = estimator.base_preprocessing_, estimator.preprocessing_
    run = _Run(estimator, plan, None, maps=maps, networks=dict(estimator._learned_))
    run.earlier = History(estimator.n_iter_, estimator.loss_curve_, estimator.validation_scores_ or [])
    return run


def _check_warm_start(estimator, plan):
    """Refuse rows that the fitted networks cannot go on with."""
    n_old, n_new = estimator.preprocessing_.n_features, plan.X1.shape[1]
    way_out = "set warm_start=False, or fit a clone."
    if n_old != n_new:
        raise ValueError(
            f"warm_start=True goes on from networks of {n_old} features, but X0 has {n_new} features: {way_out}"
        )
    if plan.two_samples != (estimator.base_preprocessing_ is not None):
        old, new = ("one", "two") if plan.two_samples else ("two", "one")
        raise ValueError(
            f"warm_start=True goes on from a fit of {old} sample(s), but fit was given {new} sample(s): {way_out}"
        )
    n_old = 0 if estimator.condition_codec_ is None else estimator.condition_codec_.n_outputs_
    n_new = 0 if plan.codec is None else plan.codec.n_outputs_
    if n_old != n_new or set(estimator._learned_) != set(plan.fields):
        raise ValueError(
            f"warm_start=True goes on from fields {tuple(estimator._learned_)} with {n_old} encoded condition columns, "
            f"but this fit needs {plan.fields} with {n_new}: {way_out}"
        )


def _spread_rows(X, train):
    """The training rows, or all rows where a column (of few distinct values) is constant in the former."""
    rows = X[train]
    return X if (rows == rows[0]).all(axis=0).any() else rows


class _Run:
    """One training run under one preprocessing: maps, tensors, networks, loss and validation."""

    def __init__(self, estimator, plan, kind, maps=None, networks=None):
        self.estimator, self.plan, self.history = estimator, plan, None
        self.earlier = History()  # of the fits that a warm start goes on from
        self.device = resolve_device(estimator.device)
        self.generator = make_generator(plan.seed, FIT_STREAM, self.device)
        self.base_map, self.target_map = maps or self._fit_maps(kind)
        self.x0 = self._scaled(plan.X0, self.base_map)
        self.x1 = self._scaled(plan.X1, self.target_map)
        self.condition = None if plan.condition is None else as_tensor(plan.condition, torch.float32, self.device)
        self.networks = nn.ModuleDict(networks or self._build_networks()).to(self.device)

    def _fit_maps(self, kind):
        plan = self.plan
        target = _spread_rows(plan.X1, plan.train1)
        if not plan.two_samples:
            return None, fit_one_sample_map(target, kind)
        base = _spread_rows(plan.X0, plan.train0)
        return fit_two_sample_maps(base, target, kind, common_centre=not plan.interpolant.is_linear)

    def _scaled(self, X, scaling):
        if X is None:
            return None
        return as_tensor(scaling.transform(X), torch.float32, self.device)

    def _build_networks(self):
        plan = self.plan
        v1 = self.x1[plan.train1].var(0, correction=0)
        v0 = torch.ones_like(v1) if self.x0 is None else self.x0[plan.train0].var(0, correction=0)
        c = None
        if getattr(plan.coupling, "row_by_row", False):
            a, b = self.x0[plan.train0], self.x1[plan.train1]
            c = ((a - a.mean(0)) * (b - b.mean(0))).mean(0)
        return {name: self._build_network(name, v0, v1, c) for name in plan.fields}

    def _build_network(self, target, v0, v1, c):
        estimator, plan, d = self.estimator, self.plan, self.x1.shape[1]
        n_conditions = d if target == "forecast" else 0 if plan.codec is None else plan.codec.n_outputs_
        # a stream of its own for each field, the same whatever the others are
        generator = make_generator(plan.seed, FIT_STREAM + 100 * list(LOSSES).index(target))
        if estimator.network != "mlp":
            with torch.random.fork_rng(devices=[]):
                # not torch.manual_seed, which seeds CUDA's generators as well and for good
                torch.default_generator.manual_seed(plan.seed)
                return estimator.network(d, n_conditions)
        widths = _widths(estimator.hidden_layer_sizes, d)
        network = FiLMNetwork(d, n_conditions, widths, estimator.activation, generator)
        if target == "forecast":
            return ForecastField(network, estimator.gamma_scale / 2)
        path = plan.interpolant if plan.interpolant.is_linear else StraightScales(plan.interpolant)
        ends = (v.clamp(min=1e-6).cpu() for v in (v0, v1))
        return PreconditionedField(path, network, target, *ends, None if c is None else c.cpu())

    def train(self, settings):
        """Train the networks in place; the history is kept."""
        estimator, plan = self.estimator, self.plan
        sampler = self._sampler(plan.train0, plan.train1)
        batch = estimator.batch_size

        def loss():
            return loss_of(self.networks, plan.interpolant, settings.time_law, sampler, batch, self.generator)

        self.history = train(self.networks, loss, self._validation(settings), settings)
        return self.history

    def _sampler(self, rows0, rows1):
        x0 = None if self.x0 is None else self.x0[rows0]
        condition = None if self.condition is None else self.condition[rows1]
        dropout = self.estimator.condition_dropout
        return Sampler(x0, self.x1[rows1], condition, self.plan.coupling, self.plan.interpolant.has_noise, dropout)

    def _validation(self, settings):
        """The score of a round: log-likelihood for a normal base, else minus the loss."""
        plan = self.plan
        if plan.held1 is None:
            return None
        if plan.fields == ("velocity",) and not plan.two_samples:
            return self._held_out_likelihood
        sampler = self._sampler(plan.held0, plan.held1)

        @torch.no_grad()
        def score():
            # the same points at every round: differences between rounds are the model's alone
            generator = make_generator(plan.seed, FIT_STREAM + 200, self.device)
            return -loss_of(self.networks, plan.interpolant, settings.time_law, sampler, _VALIDATION_DRAWS, generator)

        return score

    @torch.no_grad()
    def _held_out_likelihood(self):
        """Mean log-density of held-out rows in data units, by the coarsest grid (right to .01 nats)."""
        rows = self.plan.held1[:_VALIDATION_ROWS]
        condition = None if self.condition is None else self.condition[rows]
        fields = Fields(self.plan.interpolant, self.networks["velocity"], condition=condition)
        end, divergence, _ = flow_with_divergence(fields, self.x1[rows], 1.0, 0.0, 0, GRID_LAW)
        value = standard_normal_log_density(end) + divergence
        return float(value.mean()) + float(np.mean(self.target_map.log_abs_det_jacobian(self.plan.X1[rows])))

    @torch.no_grad()
    def base_rows(self):
        """The rows of X0 with as many rows of X1 carried back to t = 0, in data units.

        Both are draws of the base, and a density that has seen X0 alone is steep where the flow misses its support
        by little: held-out log-likelihoods of X1 were lower by 0.3 to 2.5 nats.
        """
        plan, rng = self.plan, np.random.default_rng([self.plan.seed, BASE_STREAM])
        rows = torch.as_tensor(rng.permutation(len(plan.X1))[: len(plan.X0)])
        condition = None if self.condition is None else self.condition[rows]
        velocity, denoiser = compose(plan.interpolant, dict(self.networks))
        fields = Fields(plan.interpolant, velocity, denoiser, condition)
        back = odeint(fields.velocity, self.x1[rows], time_grid(20, GRID_LAW, 1.0, 0.0), "dopri5")
        back = self.base_map.inverse_transform(as_array(back[torch.isfinite(back).all(1)], np.float64))
        return np.concatenate([plan.X0, back.astype(plan.X0.dtype, copy=False)])

    def _stored_rows(self):
        """A copy (the caller may write in his own) of the rows that `sample` starts from; None for a normal base."""
        rows = self.plan.X1 if self.plan.interpolant.kind == "mirror" else self.plan.X0
        return None if rows is None else rows.copy()

    def attributes(self, history: History, density):
        """The fitted attributes of the estimator."""
        plan = self.plan
        loss_curve = self.earlier.loss_curve + history.loss_curve
        scores = self.earlier.validation_scores + history.validation_scores
        velocity, denoiser = compose(plan.interpolant, dict(self.networks))
        return {
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
            "dtype_": np.result_type(plan.X1, plan.X1 if plan.X0 is None else plan.X0),
            "n_iter_": max(1, self.earlier.n_iter + history.n_iter),
            "loss_": loss_curve[-1] if loss_curve else np.nan,
            "loss_curve_": loss_curve,
            "validation_scores_": scores or None,
            "best_validation_score_": history.best_score if history.validation_scores else None,
        }


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
        return (128, 128, 128) if n_features <= 24 else (256, 256)
    widths = tuple(itertools.chain(np.atleast_1d(sizes).tolist()))
    if not widths or any(not isinstance(w, int) or w < 1 for w in widths):
        raise ValueError(f"Got hidden_layer_sizes={sizes!r}, but expected one or more integers of at least 1.")
    return widths
