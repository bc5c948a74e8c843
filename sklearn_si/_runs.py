"""One training run: maps, tensors, networks, loss and validation."""

import itertools

import numpy as np
import torch
from torch import nn

from ._likelihood import GRID_LAW, density_parts, middle_parts, standard_normal_parts
from ._objectives import LOSSES, Fields
from ._tensors import BASE_STREAM, FIT_STREAM, as_array, as_tensor, make_generator, resolve_device
from ._training import History, Sampler, loss_of, train
from .networks import (
    ComposedVelocity,
    DenoiserOfScore,
    FiLMNetwork,
    ForecastField,
    MixtureVelocity,
    PreconditionedField,
    StraightScales,
)
from .preprocessing import fit_one_sample_map, fit_two_sample_maps
from .solvers import odeint, time_grid

# Rows carried back at a time.
_CHUNK = 4096
# Rows on which a round is validated, and times two-sample losses are averaged over.
_VALIDATION_ROWS, _VALIDATION_DRAWS = 256, 4096


def _spread_rows(X, train):
    """The training rows, or all rows where a column (of few distinct values) is constant in the former."""
    rows = X[train]
    return X if (rows == rows[0]).all(axis=0).any() else rows


class Run:
    """One training run under one preprocessing: maps, tensors, networks, loss and validation."""

    def __init__(self, estimator, plan, kind, mixture=None, maps=None, networks=None):
        self.estimator, self.plan, self.kind, self.history = estimator, plan, kind, None
        self.earlier = History()  # of the fits that a warm start goes on from
        self.device = resolve_device(estimator.device)
        self.generator = make_generator(plan.seed, FIT_STREAM, self.device)
        self.maps = self.base_map, self.target_map = maps or self._fit_maps(kind)
        self.x0 = self._scaled(plan.X0, self.base_map)
        self.x1 = self._scaled(plan.X1, self.target_map)
        self.condition = None if plan.condition is None else as_tensor(plan.condition, torch.float32, self.device)
        self.mixture = mixture
        self.until_overfit = False
        self.dropout = 0.0 if estimator.dropout == "auto" else estimator.dropout
        self.networks = nn.ModuleDict(networks or self._build_networks()).to(self.device).eval()

    def _fit_maps(self, kind):
        plan = self.plan
        target = _spread_rows(plan.X1, plan.train1)
        if not plan.two_samples:
            return None, fit_one_sample_map(target, kind)
        base = _spread_rows(plan.X0, plan.train0)
        return fit_two_sample_maps(base, target, kind, common_centre=not plan.interpolant.is_linear)

    @property
    def log_jacobian(self):
        """The log |det dx'/dx| of the map at each row of X1."""
        return self.target_map.log_abs_det_jacobian(self.plan.X1)

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
        if self.mixture is not None:
            return MixtureVelocity(plan.interpolant, network, *self.mixture)
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

        layers = [m for m in self.networks.modules() if isinstance(m, FiLMNetwork)] if self.dropout else []
        for layer in layers:
            layer.dropout, layer.masks = self.dropout, self.generator
        # the start, a closed form or an earlier run, may be the best there is
        fit_score = (lambda: self._mean_likelihood(plan.train1)) if self.until_overfit else None
        validate = self._validation(settings)
        self.history = train(self.networks, loss, validate, settings, keep_start=True, fit_score=fit_score)
        for layer in layers:
            layer.dropout, layer.masks = 0.0, None
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
            return lambda: self._mean_likelihood(plan.held1)
        sampler = self._sampler(plan.held0, plan.held1)

        @torch.no_grad()
        def score():
            # the same points at every round: differences between rounds are the model's alone
            generator = make_generator(plan.seed, FIT_STREAM + 200, self.device)
            return -loss_of(self.networks, plan.interpolant, settings.time_law, sampler, _VALIDATION_DRAWS, generator)

        return score

    @torch.no_grad()
    def _mean_likelihood(self, rows):
        """Mean log-density of rows in data units, by the coarsest grid (right to .01 nats)."""
        rows = rows[:_VALIDATION_ROWS]
        condition = None if self.condition is None else self.condition[rows]
        fields = Fields(self.plan.interpolant, self.networks["velocity"], condition=condition)
        path = self.plan.interpolant
        middle = getattr(getattr(path, "path", path), "crossing", None)
        anchor, parts = (0.0, standard_normal_parts) if middle is None else (middle, middle_parts(path, middle))
        value, _ = density_parts(fields, self.x1[rows], 1.0, 0, GRID_LAW, anchor, parts)
        return float(value.sum(1).mean()) + float(np.mean(self.target_map.log_abs_det_jacobian(self.plan.X1[rows])))

    @torch.no_grad()
    def base_rows(self):
        """The rows of X0 with as many rows of X1 carried back to t = 0, in data units.

        Both are draws of the base, and a density that has seen X0 alone is steep where the flow misses its support
        by little: held-out log-likelihoods of X1 were lower by 0.3 to 2.5 nats.
        """
        plan, rng = self.plan, np.random.default_rng([self.plan.seed, BASE_STREAM])
        velocity, denoiser = compose(plan.interpolant, dict(self.networks))
        back, farthest = [], 2 * self.x0.norm(dim=1).max()
        for rows in torch.as_tensor(rng.permutation(len(plan.X1))[: len(plan.X0)]).split(_CHUNK):
            condition = None if self.condition is None else self.condition[rows]
            fields = Fields(plan.interpolant, velocity, denoiser, condition)
            x = odeint(fields.velocity, self.x1[rows], time_grid(20, GRID_LAW, 1.0, 0.0), "dopri5")
            # rows that the flow throws out of the base's support tell of its errors, not of the base
            back.append(x[x.norm(dim=1) <= farthest])
        back = self.base_map.inverse_transform(as_array(torch.cat(back), np.float64))
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
        if n_features <= 3:
            return (64, 64, 64)
        return (128, 128, 128) if n_features <= 24 else (256, 256)
    widths = tuple(itertools.chain(np.atleast_1d(sizes).tolist()))
    if not widths or any(not isinstance(w, int) or w < 1 for w in widths):
        raise ValueError(f"Got hidden_layer_sizes={sizes!r}, but expected one or more integers of at least 1.")
    return widths
