"""Control of the KL by the errors of the fields, and a report on the calibration of a fitted model."""

from typing import Any

import numpy as np
import torch
from scipy import stats
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from .._model.densities import chain_log_density, log_density, log_density_gradient
from .._model.fields import Fields
from .._model.fitted import warn_missed
from .._model.units import DataUnits
from .._training.batches import Sampler
from .._training.losses import TIME_DISTRIBUTIONS
from .._utils.input_checks import nameless, validate_rows
from .._utils.tensors import PATH_STREAM, as_array, as_tensor, make_generator, normal
from ..couplings import OwnPairs
from ..exceptions import IntegrationError
from ..preprocessing import AffineMap
from ..solvers import odeint, sdeint, time_grid
from .fields import time_of
from .questions import AsksModel

# Times at which the errors of the fields are averaged: Gauss-Legendre nodes of (0, 1).
_N_TIMES = 24
# Times of the Fisher divergence: few, because each takes gradients of log-densities.
_N_FISHER_TIMES = 8
# Rows at each of these times.
_N_FISHER_ROWS = 200
# Steps of the process that makes the pairs of a model that was trained on its own.
_N_PAIR_STEPS = 50
# Bins of time in the report.
_N_BINS = 8
# Rows behind its likelihoods.
_N_ROWS = 500
# Paths of each row behind the bound of the SDE.
_N_PATHS = 16


class Report(Bunch):
    """A Bunch that prints as its verdicts, one line each."""

    def __str__(self):
        """The verdicts, one a line."""
        width = max(len(name) for name in self.verdicts)
        return "\n".join(f"{name:<{width}}  {line}" for name, line in self.verdicts.items())


class DiagnosticMethods(AsksModel):
    """KL bounds, the noise level that minimises them, and a report on the calibration."""

    def kl_bound(self, X0, X1=None, *, reference):
        """Upper bounds of KL(target || SDE model) from the errors of the fields, relative to a reference.

        un-split  int 1 / (4 epsilon) E|Db + epsilon Ds|^2 dt    (2303.08797, (2.42))

        split     int (E|Db|^2 / epsilon + epsilon E|Ds|^2) / 2 dt

        with Db, Ds the errors of velocity and score. The split form is (2.45) with its constants corrected: gaps of
        losses with their halves are multiplied by 1/epsilon and epsilon, not by half of that. Both are for the
        `noise_level` and `noise_schedule` that are set, epsilon(t) inside the integrals.

        Parameters
        ----------
        X0 : array-like of shape (n_samples_0, n_features)
            Held-out rows of fit's first argument.
        X1 : array-like of shape (n_samples_1, n_features), default=None
            Held-out rows of the target, after a fit of two samples.
        reference : object
            Has `velocity(X, t)` and `score_function(X, t)` in data units: exact fields, or a stronger
            fitted model, for which the result is a difference and no bound.

        Returns
        -------
        result : Bunch
            `unsplit`, `split` (nats), and `velocity_error`, `score_error` with `times`: the mean
            squares along time, in scaled units.
        """
        times, weights, db, ds, cross = self._field_errors(X0, X1, reference, "kl_bound")
        level = self._sampling().noise_level
        if level == 0:
            raise ValueError("kl_bound bounds the SDE model and is infinite at noise_level=0: set a positive one.")
        epsilon = level * self._schedule_at(times)
        unsplit = (weights * (db / epsilon + 2 * cross + epsilon * ds)).sum() / 4
        split = (weights * (db / epsilon + epsilon * ds)).sum() / 2
        return Bunch(unsplit=unsplit, split=split, times=times, velocity_error=db, score_error=ds)

    def optimal_noise_level(self, X0, X1=None, *, reference):
        """The noise level that minimises the bound of `kl_bound`, constant and in time.

        epsilon* = (gap_b / gap_s)^(1/2)    (2303.08797, (2.49)), pointwise in time as well; with a schedule,
        level* = (int E|Db|^2 / schedule dt / int schedule E|Ds|^2 dt)^(1/2).

        Parameters
        ----------
        X0, X1, reference
            As in `kl_bound`.

        Returns
        -------
        result : Bunch
            `noise_level` in units of the parameter under the current schedule, and `in_time`, its best value
            at each of `times`.
        """
        times, weights, db, ds, _ = self._field_errors(X0, X1, reference, "optimal_noise_level")
        schedule = self._schedule_at(times)
        level = np.sqrt((weights * db / schedule).sum() / (weights * ds * schedule).sum())
        return Bunch(noise_level=float(level), times=times, in_time=np.sqrt(db / ds) / schedule)

    def fisher_divergence(self, X0, X1=None, *, reference=None):
        """Fisher divergence between the ODE model and the path, which the losses do not control.

        FI = int E|grad log rho_hat_t(x_t) - s(t, x_t)|^2 dt    (2303.08797, (2.39))

        KL(target || ODE model) <= (FI int E|Db|^2 dt)^(1/2) with exact fields as reference. Without a reference the
        score is the learned one, and the result says how far the density of the ODE and the score disagree.

        Parameters
        ----------
        X0 : array-like of shape (n_samples_0, n_features)
            Held-out rows of fit's first argument; the first 200 are used.
        X1 : array-like of shape (n_samples_1, n_features), default=None
            Held-out rows of the target, after a fit of two samples.
        reference : object, default=None
            As in `kl_bound`; None is the estimator itself.

        Returns
        -------
        result : Bunch
            `value` and its `standard_error` over rows, `in_time` at `times` (all in scaled units), `relative` to the
            Fisher information of the ODE model, and, with a reference, `kl_bound` in nats.
        """
        check_is_fitted(self)
        if reference is None:
            self.model_.require_score("fisher_divergence without a reference")
        else:
            _check_reference(reference)
        return fisher_divergence(self.model_, *self._held_out(X0, X1), self._evaluation(), reference)

    def diagnose(self, X0, X1=None):
        """Report on held-out rows whether the fields are calibrated, the latent normal and the solver exact.

        At a minimiser of the losses E[b . (b - dx_t/dt)] = 0 and E[eta . (eta - z)] = 0 (2209.15571, (11)): necessary,
        not sufficient, and free of charge.

        Parameters
        ----------
        X0 : array-like of shape (n_samples_0, n_features)
            Held-out rows of fit's first argument.
        X1 : array-like of shape (n_samples_1, n_features), default=None
            Held-out rows of the target, after a fit of two samples.

        Returns
        -------
        report : Bunch
            Prints as one verdict a line. `times`, `loss` (by bin of time), `velocity_calibration` and
            `denoiser_calibration` with their standard errors (`..._error`), `latent_ks` (p-value a column) and
            `mahalanobis_ks` (one sample), `nll` and `solver_error`, `nll_sde_bound` where there is noise, and
            `fisher_divergence` (relative) where the score and the density of both ends are known.
        """
        check_is_fitted(self)
        self.model_.refuse_forecast("diagnose")
        return diagnose(self.model_, *self._held_out(X0, X1), self._sampling(), self._evaluation())

    def _held_out(self, X0: Any, X1: Any) -> tuple[Any, Any]:
        X0 = self._validate_rows(X0)
        if self.model_.base_map is not None and X1 is None:
            raise ValueError("The model was fitted to two samples: pass held-out rows of both, X0 and X1.")
        return X0, None if X1 is None else validate_rows(self, X1, "X1")

    def _schedule_at(self, times):
        fields, schedule = self.model_.fields(np.float64, torch.device("cpu")), self._sampling().noise_schedule
        return np.array([float(fields.schedule(schedule, torch.tensor(t).double())) for t in times])

    def _field_errors(self, X0, X1, reference, what):
        check_is_fitted(self)
        self.model_.require_score(what)
        _check_reference(reference)
        return field_errors(self.model_, *self._held_out(X0, X1), self._evaluation(), reference)


def fisher_divergence(model, X0, X1, evaluation, reference):
    """The Fisher divergence on held-out rows; a reference of None is the model itself."""
    X0, X1 = (None if X is None else X[:_N_FISHER_ROWS] for X in (X0, X1))
    scale, rows = model.units.scale, []
    times, weights, points = path_points(model, X0, X1, _N_FISHER_TIMES)
    for t, X in zip(times, points, strict=True):
        moment = time_of(t)
        own = log_density_gradient(model, X, moment, evaluation)
        if reference is None:
            score, db = _score(model, X, t, evaluation), 0 * X
        else:
            with nameless():
                score = reference.score_function(X, t)
                db = _velocity(model, X, t, evaluation) - reference.velocity(X, t)
        gaps = scale.push_forward(own - score), scale.push_forward(own), scale.transform(db + 0 * X)
        with np.errstate(over="ignore"):
            rows.append([(gap**2).sum(1) for gap in gaps])
    gap, information, db = np.swapaxes(_finite(np.array(rows)), 0, 1)
    by_row = weights @ gap
    result = Bunch(
        value=float(by_row.mean()),
        standard_error=float(by_row.std() / len(by_row) ** 0.5),
        times=times,
        in_time=gap.mean(1),
        relative=float(by_row.mean() / (weights @ information).mean()),
    )
    if reference is not None:
        result.kl_bound = float(np.sqrt(result.value * (weights @ db).mean()))
    return result


def diagnose(model, X0, X1, sampling, evaluation):
    """The report on held-out rows."""
    report = Report(verdicts={})
    _calibration(model, X0, X1, report)
    _latent(model, X0 if X1 is None else None, evaluation, report)
    _likelihoods(model, X0 if X1 is None else X1, sampling, evaluation, report)
    _consistency(model, X0, X1, evaluation, report)
    return report


def _velocity(model, X, t, evaluation):
    return model.field(X, time_of(t), Fields.velocity, DataUnits.velocity_to_data, evaluation)


def _score(model, X, t, evaluation):
    return model.field(X, time_of(t), Fields.score, DataUnits.score_to_data, evaluation)


def scaled_pairs(model, X0, X1):
    """Rows of both ends in scaled units, of one length and paired as in training, and the generator they came from."""
    generator = make_generator(model.seed, PATH_STREAM)
    target = as_tensor(model.target_map.transform(X0 if X1 is None else X1), torch.float64, "cpu")
    if X1 is None:
        base = normal(target.shape, generator, like=target)
        return *_coupled(model, base, target, generator), generator
    base = as_tensor(model.base_map.transform(X0), torch.float64, "cpu")
    n = max(len(base), len(target))
    rows = [torch.randperm(n, generator=generator) % len(side) for side in (base, target)]
    if model.coupling.row_by_row:
        rows[1] = rows[0]
    return *_coupled(model, base[rows[0]], target[rows[1]], generator), generator


def _coupled(model, x0, x1, generator):
    """Rows of both ends in scaled units, paired as in training."""
    coupling = model.coupling
    if isinstance(coupling, OwnPairs):
        return x0, _own_ends(model, x0, coupling.noise_level, generator)
    if coupling.as_drawn or coupling.row_by_row:
        return x0, x1
    n, batch = len(x0), min(len(x0), 512)
    drawn = Sampler(x0, x1, None, coupling, False).draw(batch, generator, -(-n // batch))
    return drawn[0][:n], drawn[1][:n]


def _own_ends(model, x0, noise_level, generator):
    """The ends of the model's own process from rows of the base."""
    fields = model.fields(np.float64, x0.device)
    if noise_level == 0:
        return odeint(fields.velocity, x0, time_grid(_N_PAIR_STEPS, "uniform"), "dopri5")
    times = time_grid(_N_PAIR_STEPS, "uniform").to(x0)
    drift, epsilon = fields.sde(noise_level, "constant", times)
    return sdeint(drift, epsilon, x0, times, generator)


@torch.no_grad()
def path_points(model, X0, X1, n_times):
    """Gauss-Legendre times and weights, and rows of the path at each time, in data units."""
    x0, x1, generator = scaled_pairs(model, X0, X1)
    path = model.interpolant
    z = normal(x0.shape, generator, like=x0) if path.has_noise else None
    nodes, weights = np.polynomial.legendre.leggauss(n_times)
    times, weights = ((nodes + 1) / 2).tolist(), weights / 2
    moments = [torch.tensor(t, dtype=torch.float64) for t in times]
    points = [model.units.to_data(as_array(path.point(t, x0, x1, z), float), t) for t in moments]
    return times, weights, points


def field_errors(model, X0, X1, evaluation, reference):
    """Nodes and weights of time, and the mean |Db|^2, |Ds|^2 and Db . Ds at them, in scaled units."""
    times, weights, points = path_points(model, X0, X1, _N_TIMES)
    scale, errors = model.units.scale, []
    for t, X in zip(times, points, strict=True):
        with nameless():
            b, s = reference.velocity(X, t), reference.score_function(X, t)
        db = scale.transform(_velocity(model, X, t, evaluation) - b)
        ds = scale.push_forward(_score(model, X, t, evaluation) - s)
        with np.errstate(over="ignore", invalid="ignore"):
            errors.append([(db**2).sum(1).mean(), (ds**2).sum(1).mean(), (db * ds).sum(1).mean()])
    return np.array(times), weights, *_finite(np.array(errors)).T


def _finite(squares):
    if not np.isfinite(squares).all():
        raise IntegrationError(
            "Fields are so large at some rows that their squares are no numbers: leave out rows far outside the "
            "training data."
        )
    return squares


def _check_reference(reference):
    """Refuse what has no fields to compare with."""
    missing = [name for name in ("velocity", "score_function") if not callable(getattr(reference, name, None))]
    if missing:
        raise ValueError(
            f"Got reference={reference!r} without the methods {missing}, but expected an object with velocity(X, t) "
            "and score_function(X, t) in data units: a fitted model, or one of your own with the true fields."
        )


def _calibration(model, X0, X1, report):
    """Losses by time, and E[f . (f - target)] with standard errors, in scaled units."""
    x0, x1, generator = scaled_pairs(model, X0, X1)
    repeat = max(1, 4000 // len(x0))
    x0, x1 = x0.repeat(repeat, 1), x1.repeat(repeat, 1)
    if model.base_map is None:  # a fresh base row for every repeat
        x0 = normal(x1.shape, generator, like=x1)
    path, n = model.interpolant, len(x0)
    z = normal(x0.shape, generator, like=x0) if path.has_noise else None
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    t = TIME_DISTRIBUTIONS["uniform"](u)[torch.randperm(n, generator=generator)].clamp(1e-3, 1 - 1e-3)
    fields = model.fields(np.float64, torch.device("cpu"), None, n)
    # Every point twice with the noise of opposite sign: the singular factors of the targets cancel.
    pairs = [(x0, x1, z), (-x0 if path.path_type == "one-sided" else x0, x1, None if z is None else -z)]
    with torch.no_grad():
        velocity, losses, denoiser = zip(*(_residuals(fields, t, *pair) for pair in pairs), strict=True)
    bins = (t * _N_BINS).long()
    loss = torch.stack(losses).mean(0)
    report.times = (np.arange(_N_BINS) + 0.5) / _N_BINS
    report.loss = np.array([float(loss[bins == k].mean()) for k in range(_N_BINS)])
    for name, values in (("velocity", velocity), ("denoiser", denoiser)):
        if values[0] is not None:
            # repeats of one row are not independent: the error is that of the rows' means
            _verdict_of_mean(report, name, torch.stack(values).mean(0).reshape(repeat, -1).mean(0).numpy())


def _residuals(fields, t, x0, x1, z):
    path = fields.interpolant
    xt, target = path.point(t, x0, x1, z), path.point_dot(t, x0, x1, z)
    b = fields.velocity(t, xt)
    eta = fields.denoiser(t, xt, b) if fields.has_score else None
    noise = x0 if path.path_type == "one-sided" else z
    check = None if eta is None else (eta * (eta - noise)).sum(1)
    return (b * (b - target)).sum(1), (b - target).square().sum(1), check


def _verdict_of_mean(report, name, values):
    mean, error = values.mean(), values.std() / len(values) ** 0.5
    report[f"{name}_calibration"], report[f"{name}_calibration_error"] = mean, error
    word = "calibrated" if abs(mean) < 3 * error else "NOT calibrated: fit longer"
    report.verdicts[f"E[f . (f - target)], {name}"] = f"{mean:.3g} +- {error:.2g}: {word}"


def _latent(model, X, evaluation, report):
    """Normality of transformed rows: a KS test a column, and one of their squared lengths."""
    if X is None or model.is_mirror:
        return
    Z, error = model.transport(X, True, evaluation)
    warn_missed(error, evaluation.tolerance)
    report.latent_ks = np.array([stats.kstest(column, "norm").pvalue for column in Z.T])
    report.mahalanobis_ks = stats.kstest((Z**2).sum(1), stats.chi2(Z.shape[1]).cdf).pvalue
    # Bonferroni: the least of d p-values
    worst = min(1.0, report.latent_ks.min() * len(report.latent_ks))
    for name, p in (("columns", worst), ("lengths", report.mahalanobis_ks)):
        word = "normal" if p > 0.01 else "NOT normal: the flow misses part of the distribution"
        report.verdicts[f"latent, {name}"] = f"KS p = {p:.2g}: {word}"


def _likelihoods(model, X, sampling, evaluation, report):
    """Negative log-likelihood of the ODE with its solver error, and the bound of the SDE chain."""
    if model.is_mirror or (model.base_sample is not None and model.base_density is None):
        return
    X = X[:_N_ROWS]
    value, error = log_density(model, X, time_of(1.0), evaluation)
    report.nll, report.solver_error = -float(value.mean()), float(error.max())
    word = "met" if report.solver_error <= evaluation.tolerance else "MISSED by some rows"
    report.verdicts["NLL, ODE"] = f"{report.nll:.4f} nats; worst solver error {report.solver_error:.2g}: ode_tol {word}"
    if sampling.noise_level > 0:
        chain = chain_log_density(model, X, sampling, evaluation, _N_PATHS)
        report.nll_sde_bound = -float(chain["bound"].mean())
        # rows share their noise: their Monte Carlo errors do not average out
        report.nll_sde_bound_error = float(chain["standard_error"].mean())
        gap = report.nll_sde_bound - report.nll
        word = "velocity and score agree" if gap < 0.1 else "velocity and score disagree, or n_steps is small"
        bound = f"{report.nll_sde_bound:.4f} +- {report.nll_sde_bound_error:.2g} nats, {gap:+.3f}"
        report.verdicts["NLL, bound of the SDE"] = f"{bound}: {word}"


def _consistency(model, X0, X1, evaluation, report):
    """Distance of the score from the gradient of the ODE's own log-density, relative to the latter."""
    if model.is_mirror or not model.has_score or not model.has_gradient:
        return
    if not isinstance(model.target_map, AffineMap):
        return  # the path has no data units
    report.fisher_divergence = fisher_divergence(model, X0, X1, evaluation, None).relative
    word = "velocity and score agree" if report.fisher_divergence < 0.1 else "velocity and score disagree"
    report.verdicts["Fisher divergence"] = f"{report.fisher_divergence:.2g} of the Fisher information: {word}"
