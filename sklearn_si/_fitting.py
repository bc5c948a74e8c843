"""From the parameters of an estimator and its samples to fitted attributes."""

import dataclasses
import itertools
import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from ._base_density import fit_base_density
from ._likelihood import flow_with_divergence, standard_normal_log_density
from ._objectives import Fields
from ._tensors import FIT_STREAM, as_tensor, draw_seed, make_generator, resolve_device
from ._training import History, Sampler, Settings, loss_of, train
from .couplings import COUPLINGS
from .interpolants import make_interpolant
from .networks import FiLMNetwork, PreconditionedField
from .preprocessing import check_has_density, fit_one_sample_map, fit_two_sample_maps

# Rows on which a round is validated, and times two-sample losses are averaged over.
_VALIDATION_ROWS, _VALIDATION_DRAWS = 256, 4096
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
    train0: np.ndarray | None
    train1: np.ndarray
    held0: np.ndarray | None
    held1: np.ndarray | None

    @property
    def two_samples(self):
        return self.X0 is not None


def make_plan(estimator, X0, X1):
    """Check the parameters against the samples and split off validation rows."""
    base, target = (None, X0) if X1 is None else (X0, X1)
    interpolant = make_interpolant(
        estimator.interpolant, estimator.gamma, estimator.gamma_scale,
        two_samples=base is not None, latent_noise=estimator._learns_denoiser,
    )  # fmt: skip
    _check_coupling(estimator.coupling, base, target)
    if base is None:
        check_has_density(target)
    elif estimator.base_density is not None:
        check_has_density(target, "X1", "drop them, or set base_density=None if transport is all that is needed")
    coupling = COUPLINGS[estimator.coupling] if isinstance(estimator.coupling, str) else estimator.coupling
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
    return Plan(base, target, interpolant, coupling, seed, train0, train1, held0, held1)


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
    density = fit_base_density(estimator.base_density, estimator, plan.X0, plan.seed) if plan.two_samples else None
    if density is not None and settings.max_time is not None and estimator.base_density == "flow":
        settings.max_time /= 2
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
    return run.attributes(history, density)


def _settings(estimator, plan):
    law = estimator.time_law
    if law == "auto":
        law = "logit-normal" if plan.two_samples else "data-end"
    names = [f.name for f in dataclasses.fields(Settings) if f.name != "time_law"]
    return Settings(**{name: getattr(estimator, name) for name in names}, time_law=law)


def _choose_run(estimator, plan, settings):
    """The run to train: with preprocessing="auto", the winner of short runs on validation rows."""
    kind = estimator.preprocessing
    if kind != "auto":
        return _Run(estimator, plan, kind)
    if plan.two_samples or plan.X1.shape[1] == 1 or plan.held1 is None:
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
    networks = {"velocity": estimator.network_, "denoiser": estimator.denoiser_network_}
    kept = {name: module for name, module in networks.items() if module is not None}
    maps = estimator.base_preprocessing_, estimator.preprocessing_
    run = _Run(estimator, plan, None, maps=maps, networks=kept)
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
        estimator, plan = self.estimator, self.plan
        targets = ["velocity"]
        if plan.two_samples and estimator._learns_denoiser:
            targets.append("denoiser")
        v1 = self.x1[plan.train1].var(0, correction=0)
        v0 = torch.ones_like(v1) if self.x0 is None else self.x0[plan.train0].var(0, correction=0)
        c = None
        if getattr(plan.coupling, "row_by_row", False):
            a, b = self.x0[plan.train0], self.x1[plan.train1]
            c = ((a - a.mean(0)) * (b - b.mean(0))).mean(0)
        return {name: self._build_network(name, v0, v1, c) for name in targets}

    def _build_network(self, target, v0, v1, c):
        estimator, d = self.estimator, self.x1.shape[1]
        generator = make_generator(self.plan.seed, FIT_STREAM if target == "velocity" else FIT_STREAM + 100)
        if estimator.network != "mlp":
            with torch.random.fork_rng(devices=[]):
                # not torch.manual_seed, which seeds CUDA's generators as well and for good
                torch.default_generator.manual_seed(self.plan.seed)
                return estimator.network(d, 0)
        network = FiLMNetwork(d, 0, _widths(estimator.hidden_layer_sizes, d), estimator.activation, generator)
        ends = (v.clamp(min=1e-6).cpu() for v in (v0, v1))
        return PreconditionedField(self.plan.interpolant, network, target, *ends, None if c is None else c.cpu())

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
        return Sampler(x0, self.x1[rows1], None, self.plan.coupling, self.plan.interpolant.has_noise)

    def _validation(self, settings):
        """The score of a round: log-likelihood for one sample, minus the loss for two."""
        plan = self.plan
        if plan.held1 is None:
            return None
        if not plan.two_samples:
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
        """Mean log-density of held-out rows in data units, by 16 steps (right to .01 nats)."""
        rows = self.plan.held1[:_VALIDATION_ROWS]
        fields = Fields(self.plan.interpolant, self.networks["velocity"])
        end, divergence = flow_with_divergence(fields, self.x1[rows], 1.0, 0.0, 2, "sine")
        value = standard_normal_log_density(end) + divergence
        return float(value.mean()) + float(np.mean(self.target_map.log_abs_det_jacobian(self.plan.X1[rows])))

    def attributes(self, history: History, density):
        """The fitted attributes of the estimator."""
        plan = self.plan
        loss_curve = self.earlier.loss_curve + history.loss_curve
        scores = self.earlier.validation_scores + history.validation_scores
        networks = dict(self.networks)
        return {
            "network_": networks["velocity"],
            "denoiser_network_": networks.get("denoiser"),
            "interpolant_": plan.interpolant,
            "preprocessing_": self.target_map,
            "base_preprocessing_": self.base_map,
            "base_density_": density,
            "base_sample_": None if plan.X0 is None else plan.X0.copy(),  # the caller may write in his own
            "dtype_": np.result_type(plan.X1, plan.X1 if plan.X0 is None else plan.X0),
            "n_iter_": max(1, self.earlier.n_iter + history.n_iter),
            "loss_": loss_curve[-1] if loss_curve else np.nan,
            "loss_curve_": loss_curve,
            "validation_scores_": scores or None,
            "best_validation_score_": history.best_score if history.validation_scores else None,
        }


def _widths(sizes, n_features):
    """Widths of the hidden layers; "auto": three layers while tangents are cheap, then two wide ones."""
    if isinstance(sizes, str):
        return (128, 128, 128) if n_features <= 24 else (256, 256)
    widths = tuple(itertools.chain(np.atleast_1d(sizes).tolist()))
    if not widths or any(not isinstance(w, int) or w < 1 for w in widths):
        raise ValueError(f"Got hidden_layer_sizes={sizes!r}, but expected one or more integers of at least 1.")
    return widths
