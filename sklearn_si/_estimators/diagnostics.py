"""Bounds of the Kullback-Leibler divergence by errors of the fields, and a report on the calibration of a model."""

from typing import Any

import numpy as np
import torch
from scipy import stats
from sklearn.utils.validation import check_is_fitted

from .._model.densities import chain_log_density, log_density, log_density_gradient
from .._model.fields import Fields
from .._model.lost_rows import warn_missed
from .._model.units import DataUnits
from .._training.batches import Sampler
from .._training.losses import TIME_DISTRIBUTIONS
from .._utils.figures import Figures
from .._utils.input_checks import nameless, validate_rows
from .._utils.tensors import PATH_STREAM, as_array, as_tensor, make_generator, normal
from ..couplings import OwnPairs
from ..exceptions import IntegrationError
from ..preprocessing import AffineMap
from ..preprocessing._support import on_line
from ..solvers import odeint, sdeint, time_grid
from .fields import time_of
from .model_access import AsksModel

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
# p-value up to which rows are said not to be normal.
_SIGNIFICANCE = 0.01
# Standard errors within which an expectation is said to be zero.
_ERRORS = 3
# Paths of each row behind the bound of the SDE.
_N_PATHS = 16


class Report(Figures):
    """Figures that are printed as the verdicts on them, one line each."""

    def __str__(self):
        """The verdicts, one line each."""
        width = max(len(name) for name in self.verdicts)
        return "\n".join(f"{name:<{width}}  {line}" for name, line in self.verdicts.items())

    __repr__ = __str__


class DiagnosticMethods(AsksModel):
    """Bounds of the Kullback-Leibler divergence, the noise level that minimises them, and a report on calibration."""

    def kl_bound(self, X0, X1=None, *, reference):
        """Upper bounds of KL(target || SDE model) from the errors of the fields, relative to a reference.

        unsplit = int 1 / (4 epsilon) E|Db + epsilon Ds|^2 dt

        split = int (E|Db|^2 / epsilon + epsilon E|Ds|^2) / 2 dt

        (2303.08797, (2.42) and (2.45)), with Db and Ds the errors of velocity and score, and epsilon(t) of the current
        `noise_level` and `noise_schedule`. In (2.45) the constants are corrected: differences of losses that are
        defined with a factor 1/2 are multiplied by 1/epsilon and by epsilon, not by half of these.

        Parameters
        ----------
        X0 : array-like of shape (n_samples_0, n_features)
            Held-out rows of fit's first argument, in data units.
        X1 : array-like of shape (n_samples_1, n_features), default=None
            Held-out rows of the target, in data units; needed after a fit of two samples.
        reference : object
            An object with `velocity(X, t)` and `score_function(X, t)` in data units: the exact fields, or a better
            fitted model, for which the result is a distance between models and not a bound.

        Returns
        -------
        result : Bunch
            `unsplit` and `split` in nats; `velocity_error` and `score_error`, the mean squared errors at each of
            `times`, in scaled units.

        Raises
        ------
        ValueError
            When noise_level is 0, where the bounds are infinite, or when the score function is not known.
        """
        times, weights, db, ds, cross = self._field_errors(X0, X1, reference, "kl_bound")
        level = self._sampling().noise_level
        if level == 0:
            raise ValueError("kl_bound bounds the SDE model and is infinite at noise_level=0: set a positive one.")
        epsilon = level * self._schedule_at(times)
        unsplit = (weights * (db / epsilon + 2 * cross + epsilon * ds)).sum() / 4
        split = (weights * (db / epsilon + epsilon * ds)).sum() / 2
        return Figures(unsplit=unsplit, split=split, times=times, velocity_error=db, score_error=ds)

    def optimal_noise_level(self, X0, X1=None, *, reference):
        """The noise level that minimises the split bound of `kl_bound`.

        level* = (int E|Db|^2 / schedule dt / int schedule E|Ds|^2 dt)^(1/2)

        (2303.08797, (2.49), there for a constant schedule), for the current `noise_schedule`.

        Parameters
        ----------
        X0, X1, reference
            As in `kl_bound`.

        Returns
        -------
        result : Bunch
            `noise_level`, the best value of the parameter of that name, and `in_time`, the best value at each of
            `times` alone; at times without an error of the score function it is `noise_level`.

        Raises
        ------
        ValueError
            When the score function is that of the reference, so that every noise level is as good.
        """
        times, weights, db, ds, _ = self._field_errors(X0, X1, reference, "optimal_noise_level")
        schedule, errs = self._schedule_at(times), ds > 0
        if not errs.any():
            raise ValueError(
                "The score function has no error against the reference, so that no noise level is better than another: "
                "pass a reference of another fit, or of exact fields."
            )
        level = np.sqrt((weights * db / schedule).sum() / (weights * ds * schedule).sum())
        in_time = np.sqrt(np.divide(db, ds, out=np.ones_like(db), where=errs)) / schedule
        return Figures(noise_level=float(level), times=times, in_time=np.where(errs, in_time, level))

    def fisher_divergence(self, X0, X1=None, *, reference=None):
        """Fisher divergence between the density of the ODE model and the path, which the losses do not control.

        FI = int E|grad log rho_hat_t(x_t) - s(t, x_t)|^2 dt

        (2303.08797, (2.39)), with rho_hat the density of the ODE. With the exact fields as reference,
        KL(target || ODE model) <= (FI int E|Db|^2 dt)^(1/2). Without a reference, s is the learned score function, and
        the result measures how far it disagrees with the density of the ODE.

        Parameters
        ----------
        X0 : array-like of shape (n_samples_0, n_features)
            Held-out rows of fit's first argument, in data units; the first 200 are used.
        X1 : array-like of shape (n_samples_1, n_features), default=None
            Held-out rows of the target, in data units; needed after a fit of two samples.
        reference : object, default=None
            As in `kl_bound`; None is the estimator itself.

        Returns
        -------
        result : Bunch
            `value` and its `standard_error` over rows, and `in_time`, its integrand at each of `times` (all in inverse
            scaled units squared); `relative` and `relative_error`, their ratios to the Fisher information of the ODE
            model; `n_rows`, the number of rows; and, with a reference, `kl_bound` in nats.

        Raises
        ------
        ValueError
            When there is no reference and the score function is not known.
        NoDensityError
            When the model has no density, or one that cannot be differentiated.
        """
        check_is_fitted(self)
        if reference is None:
            self.model_.require_score("fisher_divergence without a reference")
        else:
            _check_reference(reference)
        return fisher_divergence(self.model_, *self._held_out(X0, X1), self._evaluation(), reference)

    def diagnose(self, X0, X1=None):
        """Report whether the fields are calibrated, transformed rows are normal and the solver is accurate.

        E[b . (b - dx_t/dt)] = 0,    E[eta . (eta - z)] = 0

        at a minimum of the losses (2209.15571, (11)). This is necessary and not sufficient: a field may be calibrated
        on average and wrong at each row.

        Parameters
        ----------
        X0 : array-like of shape (n_samples_0, n_features)
            Held-out rows of fit's first argument, in data units.
        X1 : array-like of shape (n_samples_1, n_features), default=None
            Held-out rows of the target, in data units; needed after a fit of two samples.

        Returns
        -------
        report : Bunch
            It prints one verdict per line, with the number of rows and a standard error over rows. Its entries are
            `loss`, the loss of the velocity in each bin of time (around `times`); `velocity_calibration` and
            `denoiser_calibration`, the expectations above, in scaled units; after a fit of one sample `latent_ks`, the
            p-value of a Kolmogorov-Smirnov test of normality for each transformed column, and `mahalanobis_ks`, that of
            their squared lengths; `nll`, the mean negative log-density in nats, and `solver_error`, its largest
            estimated error; with noise, `nll_sde_bound`, the upper bound for the SDE chain; and `fisher_divergence`,
            relative to the Fisher information, where the score and both densities are known. Of a bridge whose target
            has a density of its own, `transport_gap`, the mean of that at transported rows of X0 minus its mean at rows
            of X1, and `density_gap`, its mean difference from the density of transported rows, if both were fitted:
            errors of the fits, which no solver's bound covers. Standard errors end in `_error` (`nll_error`, ...); that
            of `nll_sde_bound` is the Monte Carlo error of its paths.

        Raises
        ------
        ValueError
            When the model forecasts (start="condition"), or X1 is missing after a fit of two samples.
        """
        check_is_fitted(self)
        self.model_.refuse_forecast("diagnose")
        return diagnose(self.model_, *self._held_out(X0, X1), self._sampling(), self._evaluation())

    def _held_out(self, X0: Any, X1: Any) -> tuple[Any, Any]:
        model = self.model_
        X0 = self._in_support(self._validate_rows(X0), model.target_grid if X1 is None else model.base_grid, "X0")
        if self.model_.base_map is not None and X1 is None:
            raise ValueError("The model was fitted to two samples: pass held-out rows of both, X0 and X1.")
        return X0, None if X1 is None else self._in_support(validate_rows(self, X1, "X1"), model.target_grid, "X1")

    def _schedule_at(self, times):
        fields, schedule = self.model_.fields(np.float64, torch.device("cpu")), self._sampling().noise_schedule
        return np.array([float(fields.schedule(schedule, torch.tensor(t).double())) for t in times])

    def _field_errors(self, X0, X1, reference, what):
        check_is_fitted(self)
        self.model_.require_score(what)
        _check_reference(reference)
        return field_errors(self.model_, *self._held_out(X0, X1), self._evaluation(), reference)


def fisher_divergence(model, X0, X1, evaluation, reference):
    """The Fisher divergence on held-out rows; a reference of None means the model's own score function."""
    X0, X1 = (None if X is None else X[:_N_FISHER_ROWS] for X in (X0, X1))
    units, rows = model.units, []
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
        in_scaled = units.score_to_scaled(own - score, X), units.score_to_scaled(own, X)
        gaps = *in_scaled, units.velocity_to_scaled(db + 0 * X, X)
        with np.errstate(over="ignore"):
            rows.append([(gap**2).sum(1) for gap in gaps])
    gap, information, db = np.swapaxes(_finite(np.array(rows)), 0, 1)
    by_row, fisher_information = weights @ gap, (weights @ information).mean()
    error = by_row.std() / len(by_row) ** 0.5
    result = Figures(
        value=float(by_row.mean()),
        standard_error=float(error),
        times=times,
        in_time=gap.mean(1),
        relative=float(by_row.mean() / fisher_information),
        relative_error=float(error / fisher_information),
        n_rows=len(by_row),
    )
    if reference is not None:
        result.kl_bound = float(np.sqrt(result.value * (weights @ db).mean()))
    return result


def diagnose(model, X0, X1, sampling, evaluation):
    """The report of `diagnose` on held-out rows."""
    report = Report(verdicts={})
    _calibration(model, X0, X1, report)
    _latent(model, X0 if X1 is None else None, evaluation, report)
    _likelihoods(model, X0 if X1 is None else X1, sampling, evaluation, report)
    if model.target_model is not None:
        _transported(model, X0, X1, evaluation, report)
    _consistency(model, X0, X1, evaluation, report)
    return report


def _velocity(model, X, t, evaluation):
    return model.field(X, time_of(t), Fields.velocity, DataUnits.velocity_to_data, evaluation)


def _score(model, X, t, evaluation):
    return model.field(X, time_of(t), Fields.score, DataUnits.score_to_data, evaluation)


def scaled_pairs(model, X0, X1):
    """Equally many rows of both ends in scaled units, paired as in training, and the generator that drew them."""
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
    times = time_grid(_N_PAIR_STEPS, "uniform").to(x0)
    if noise_level == 0:
        return odeint(fields.velocity_along(times, "dopri5"), x0, times, "dopri5")
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
    units, errors = model.units, []
    for t, X in zip(times, points, strict=True):
        with nameless():
            b, s = reference.velocity(X, t), reference.score_function(X, t)
        db = units.velocity_to_scaled(_velocity(model, X, t, evaluation) - b, X)
        ds = units.score_to_scaled(_score(model, X, t, evaluation) - s, X)
        with np.errstate(over="ignore", invalid="ignore"):
            errors.append([(db**2).sum(1).mean(), (ds**2).sum(1).mean(), (db * ds).sum(1).mean()])
    return np.array(times), weights, *_finite(np.array(errors)).T


def _finite(squares):
    if not np.isfinite(squares).all():
        raise IntegrationError(
            "Fields are so large at some rows that their squares are not finite: leave out rows far outside the "
            "training data."
        )
    return squares


def _check_reference(reference):
    """Raise if a reference has no fields to compare with."""
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
    # Every point is taken twice, with noise of opposite sign, so that singular factors of the targets cancel.
    pairs = [(x0, x1, z), (-x0 if path.path_type == "one-sided" else x0, x1, None if z is None else -z)]
    with torch.no_grad():
        velocity, losses, denoiser = zip(*(_residuals(fields, t, *pair) for pair in pairs), strict=True)
    bins = (t * _N_BINS).long()
    loss = torch.stack(losses).mean(0)
    report.times = (np.arange(_N_BINS) + 0.5) / _N_BINS
    report.loss = np.array([float(loss[bins == k].mean()) for k in range(_N_BINS)])
    for name, values in (("velocity", velocity), ("denoiser", denoiser)):
        if values[0] is not None:
            # repeats of one row are not independent: the error is that of the means of rows
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
    word = f"within {_ERRORS} errors of 0, calibrated"
    if not abs(mean) < _ERRORS * error:
        word = f"beyond {_ERRORS} errors of 0, NOT calibrated: fit longer"
    report.verdicts[f"E[f . (f - target)], {name}"] = f"{mean:.3g} +- {error:.2g} ({len(values)} rows): {word}"


def _latent(model, X, evaluation, report):
    """Normality of transformed rows: a Kolmogorov-Smirnov test for each column, and one of their squared lengths."""
    if X is None or model.is_mirror:
        return
    Z, error = model.transport(X, True, evaluation)
    warn_missed(error, evaluation.tolerance)
    # uniform angles are tested as normal ones
    Z = as_array(model.interpolant.normal_from_base(as_tensor(Z, torch.float64, "cpu")), np.float64)
    report.latent_ks = np.array([stats.kstest(column, "norm").pvalue for column in Z.T])
    report.mahalanobis_ks = stats.kstest((Z**2).sum(1), stats.chi2(Z.shape[1]).cdf).pvalue
    # Bonferroni: the smallest of d p-values
    worst = min(1.0, report.latent_ks.min() * len(report.latent_ks))
    for name, p in (("columns", worst), ("lengths", report.mahalanobis_ks)):
        word = "normal" if p > _SIGNIFICANCE else "NOT normal: the flow misses part of the distribution"
        beside = f"{'above' if p > _SIGNIFICANCE else 'at most'} {_SIGNIFICANCE:g}"
        report.verdicts[f"latent, {name}"] = f"KS p = {p:.2g}, {beside} ({len(Z)} rows): {word}"


def _likelihoods(model, X, sampling, evaluation, report):
    """Negative log-likelihood of the ODE with its standard and solver error, and the bound of the SDE chain."""
    is_known = model.base_sample is None or model.base_density is not None or model.target_model is not None
    if model.is_mirror or not is_known:
        return
    X = X[:_N_ROWS]
    value, error = log_density(model, X, time_of(1.0), evaluation)
    report.nll, report.solver_error = -float(value.mean()), float(error.max())
    report.nll_error = _standard_error(value)
    word = "met" if report.solver_error <= evaluation.tolerance else "MISSED by some rows"
    nll = f"{report.nll:.4f} +- {report.nll_error:.2g} nats ({len(X)} rows)"
    report.verdicts["NLL, ODE"] = f"{nll}; worst solver error {report.solver_error:.2g}: ode_tol {word}"
    if sampling.noise_level > 0 and (model.base_sample is None or model.base_density is not None):
        chain = chain_log_density(model, X, sampling, evaluation, _N_PATHS)
        report.nll_sde_bound = -float(chain["bound"].mean())
        # rows share their noise, so their Monte Carlo errors do not average out
        report.nll_sde_bound_error = float(chain["standard_error"].mean())
        gap = report.nll_sde_bound - report.nll
        word = "velocity and score agree (by less than 0.1 nats)"
        if not gap < 0.1:
            word = "velocity and score disagree (by 0.1 nats or more), or n_steps is small"
        bound = f"{report.nll_sde_bound:.4f} +- {report.nll_sde_bound_error:.2g} nats ({len(X)} rows, {_N_PATHS} paths)"
        report.verdicts["NLL, bound of the SDE"] = f"{bound}, {gap:+.3f} from the ODE: {word}"


def _transported(model, X0, X1, evaluation, report):
    """How far the density of the target is from that of transported rows, at held-out rows of both ends."""
    X0, X1 = X0[:_N_ROWS], X1[:_N_ROWS]
    moved, _ = model.transport(X0, True, evaluation)
    moved = moved if model.target_grid is None else model.target_grid.centre(moved)[0]
    own, of_moved = (log_density(model.target_model, X, time_of(1.0), evaluation)[0] for X in (X1, moved))
    report.transport_gap = float(of_moved.mean() - own.mean())
    report.transport_gap_error = float(np.hypot(_standard_error(own), _standard_error(of_moved)))
    agree = abs(report.transport_gap) < _ERRORS * report.transport_gap_error
    gap = f"{report.transport_gap:+.3f} +- {report.transport_gap_error:.2g} nats ({len(X0)} and {len(X1)} rows)"
    word = f"they agree within {_ERRORS} errors" if agree else f"they DISAGREE by {_ERRORS} errors or more: fit longer"
    report.verdicts["log-density, transported X0 minus X1"] = f"{gap}: {word}"
    if model.base_density is None:
        return
    difference = own - log_density(model.transported, X1, time_of(1.0), evaluation)[0]
    report.density_gap, report.density_gap_error = float(difference.mean()), _standard_error(difference)
    report.verdicts["log-density, target's own minus transported"] = (
        f"{report.density_gap:+.3f} +- {report.density_gap_error:.2g} nats ({len(X1)} rows): errors of both fits"
    )


def _consistency(model, X0, X1, evaluation, report):
    """Distance of the score function from the gradient of the ODE's log-density, relative to the latter."""
    if model.is_mirror or not model.has_score or not model.has_gradient:
        return
    if not isinstance(on_line(model.target_map), AffineMap):
        return  # the path has no data units
    found = fisher_divergence(model, X0, X1, evaluation, None)
    report.fisher_divergence, report.fisher_divergence_error = found.relative, found.relative_error
    word = "agree (less than 0.1)" if report.fisher_divergence < 0.1 else "disagree (0.1 or more)"
    share = f"{report.fisher_divergence:.2g} +- {report.fisher_divergence_error:.1g}"
    report.verdicts["Fisher divergence"] = (
        f"{share} of the Fisher information ({found.n_rows} rows): velocity and score {word}"
    )


def _standard_error(values):
    values = values.astype(np.float64)
    return float(values.std() / len(values) ** 0.5)
