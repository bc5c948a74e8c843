"""Control of the KL by the errors of the fields, and a report on the calibration of a fitted model."""

import numpy as np
import torch
from scipy import stats
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from .._model.fields import TIME_LAWS
from .._training.batches import Sampler
from .._utils.input_checks import nameless
from .._utils.tensors import (
    PATH_STREAM,
    as_array,
    as_tensor,
    make_generator,
    normal,
)
from ..couplings import COUPLINGS, independent, paired
from ..exceptions import IntegrationError
from ..preprocessing import AffineMap
from ..solvers import odeint, time_grid

# Times at which the errors of the fields are averaged: Gauss-Legendre nodes of (0, 1).
_N_TIMES = 24
# Times of the Fisher term, whose gradients are dear, and rows at each.
_N_FISHER_TIMES, _N_FISHER_ROWS = 8, 200
# Bins of time in the report; rows and paths behind the dearer of its lines.
_N_BINS, _N_ROWS, _N_PATHS = 8, 500, 16


class Report(Bunch):
    """A Bunch that prints as its verdicts, one line each."""

    def __str__(self):
        """The verdicts, one a line."""
        width = max(len(name) for name in self.verdicts)
        return "\n".join(f"{name:<{width}}  {line}" for name, line in self.verdicts.items())


class DiagnosticMethods:
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
        times, weights, db, ds, cross = self._field_errors(X0, X1, reference)
        if self.noise_level == 0:
            raise ValueError("kl_bound bounds the SDE model and is infinite at noise_level=0: set a positive one.")
        epsilon = self.noise_level * self._schedule_at(times)
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
        times, weights, db, ds, _ = self._field_errors(X0, X1, reference)
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
            self._require_score("fisher_divergence without a reference")
        else:
            _check_reference(reference)
        pairs = [None if X is None else X[:_N_FISHER_ROWS] for X in self._held_out(X0, X1)]
        scale, rows = self._scale, []
        times, weights, points = self._path_points(*pairs, _N_FISHER_TIMES)
        for t, X in zip(times, points, strict=True):
            with nameless():
                own = self.log_density_gradient(X, t=t)
                score = (self if reference is None else reference).score_function(X, t)
                db = 0 if reference is None else self.velocity(X, t) - reference.velocity(X, t)
            gaps = scale.push_forward(own - score), scale.push_forward(own), scale.transform(db + 0 * X)
            with np.errstate(over="ignore"):
                rows.append([(gap**2).sum(1) for gap in gaps])
        gap, information, db = np.swapaxes(_finite(np.array(rows)), 0, 1)
        by_row, in_time = weights @ gap, gap.mean(1)
        result = Bunch(
            value=float(by_row.mean()),
            standard_error=float(by_row.std() / len(by_row) ** 0.5),
            times=times,
            in_time=in_time,
            relative=float(by_row.mean() / (weights @ information).mean()),
        )
        if reference is not None:
            result.kl_bound = float(np.sqrt(result.value * (weights @ db).mean()))
        return result

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
        self._refuse_forecast("diagnose")
        X0, X1 = self._held_out(X0, X1)
        report = Report(verdicts={})
        with nameless():
            _calibration(self, X0, X1, report)
            _latent(self, X0 if X1 is None else None, report)
            _likelihoods(self, X0 if X1 is None else X1, report)
            _consistency(self, X0, X1, report)
        return report

    def _held_out(self, X0, X1):
        X0 = self._validate_rows(X0)
        if self.base_preprocessing_ is not None and X1 is None:
            raise ValueError("The model was fitted to two samples: pass held-out rows of both, X0 and X1.")
        return X0, None if X1 is None else self._validate_rows(X1)

    def _schedule_at(self, times):
        fields = self._fields(np.float64, torch.device("cpu"))
        return np.array([float(fields.schedule(self.noise_schedule, torch.tensor(t).double())) for t in times])

    def _scaled_pairs(self, X0, X1):
        """Rows of both ends in scaled units, of one length, drawn by the seed of the fit."""
        generator = make_generator(self.seed_, PATH_STREAM)
        target = as_tensor(self.preprocessing_.transform(X0 if X1 is None else X1), torch.float64, "cpu")
        if X1 is None:
            base = normal(target.shape, generator, like=target)
            pairs = self._coupled(base, target, generator) if hasattr(self, "rectification_report_") else (base, target)
            return *pairs, generator
        base = as_tensor(self.base_preprocessing_.transform(X0), torch.float64, "cpu")
        n = max(len(base), len(target))
        rows = [torch.randperm(n, generator=generator) % len(side) for side in (base, target)]
        if getattr(self.coupling, "row_by_row", self.coupling == "paired"):
            rows[1] = rows[0]
        return *self._coupled(base[rows[0]], target[rows[1]], generator), generator

    def _coupled(self, x0, x1, generator):
        """Rows of both ends in scaled units, paired as in training."""
        if hasattr(self, "rectification_report_"):
            return x0, odeint(self._fields(np.float64, x0.device).velocity, x0, time_grid(50, "uniform"), "dopri5")
        coupling = COUPLINGS[self.coupling] if isinstance(self.coupling, str) else self.coupling
        coupling = coupling.tied_to(self.interpolant_) if hasattr(coupling, "tied_to") else coupling
        if coupling in (independent, paired) or getattr(coupling, "row_by_row", False):
            return x0, x1
        n, batch = len(x0), min(len(x0), 512)
        drawn = Sampler(x0, x1, None, coupling, False).draw(batch, generator, -(-n // batch))
        return drawn[0][:n], drawn[1][:n]

    @torch.no_grad()
    def _path_points(self, X0, X1, n_times):
        """Gauss-Legendre times and weights, and rows of the path at each time, in data units."""
        x0, x1, generator = self._scaled_pairs(X0, X1)
        z = normal(x0.shape, generator, like=x0) if self.interpolant_.has_noise else None
        nodes, weights = np.polynomial.legendre.leggauss(n_times)
        times, weights = ((nodes + 1) / 2).tolist(), weights / 2
        moments = [torch.tensor(t, dtype=torch.float64) for t in times]
        return (
            times,
            weights,
            [self._to_data(as_array(self.interpolant_.point(t, x0, x1, z), float), t) for t in moments],
        )

    def _field_errors(self, X0, X1, reference):
        """Nodes and weights of time, and the mean |Db|^2, |Ds|^2 and Db . Ds at them, in scaled units."""
        check_is_fitted(self)
        self._require_score("kl_bound")
        _check_reference(reference)
        times, weights, points = self._path_points(*self._held_out(X0, X1), _N_TIMES)
        scale = self._scale
        errors = []
        for t, X in zip(times, points, strict=True):
            with nameless():
                db = scale.transform(self.velocity(X, t) - reference.velocity(X, t))
                ds = scale.push_forward(self.score_function(X, t) - reference.score_function(X, t))
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
    x0, x1, generator = model._scaled_pairs(X0, X1)
    repeat = max(1, 4000 // len(x0))
    x0, x1 = x0.repeat(repeat, 1), x1.repeat(repeat, 1)
    if model.base_preprocessing_ is None:  # a fresh base row for every repeat
        x0 = normal(x1.shape, generator, like=x1)
    path, n = model.interpolant_, len(x0)
    z = normal(x0.shape, generator, like=x0) if path.has_noise else None
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    t = TIME_LAWS["uniform"](u)[torch.randperm(n, generator=generator)].clamp(1e-3, 1 - 1e-3)
    fields = model._fields(np.float64, torch.device("cpu"))
    # Every point twice with the noise of opposite sign: the singular factors of the targets cancel.
    pairs = [(x0, x1, z), (-x0 if path.kind == "one-sided" else x0, x1, None if z is None else -z)]
    with torch.no_grad():
        velocity, loss, denoiser = zip(*(_residuals(fields, t, *pair) for pair in pairs), strict=True)
    bins = (t * _N_BINS).long()
    loss = torch.stack(loss).mean(0)
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
    noise = x0 if path.kind == "one-sided" else z
    check = None if eta is None else (eta * (eta - noise)).sum(1)
    return (b * (b - target)).sum(1), (b - target).square().sum(1), check


def _verdict_of_mean(report, name, values):
    mean, error = values.mean(), values.std() / len(values) ** 0.5
    report[f"{name}_calibration"], report[f"{name}_calibration_error"] = mean, error
    word = "calibrated" if abs(mean) < 3 * error else "NOT calibrated: fit longer"
    report.verdicts[f"E[f . (f - target)], {name}"] = f"{mean:.3g} +- {error:.2g}: {word}"


def _latent(model, X, report):
    """Normality of transformed rows: a KS test a column, and one of their squared lengths."""
    if X is None or model.interpolant_.kind == "mirror":
        return
    Z = model.transform(X)
    report.latent_ks = np.array([stats.kstest(column, "norm").pvalue for column in Z.T])
    report.mahalanobis_ks = stats.kstest((Z**2).sum(1), stats.chi2(Z.shape[1]).cdf).pvalue
    # Bonferroni: the least of d p-values
    worst = min(1.0, report.latent_ks.min() * len(report.latent_ks))
    for name, p in (("columns", worst), ("lengths", report.mahalanobis_ks)):
        word = "normal" if p > 0.01 else "NOT normal: the flow misses part of the law"
        report.verdicts[f"latent, {name}"] = f"KS p = {p:.2g}: {word}"


def _likelihoods(model, X, report):
    """Negative log-likelihood of the ODE with its solver error, and the bound of the SDE chain."""
    if model.interpolant_.kind == "mirror" or (model.base_sample_ is not None and model.base_density_ is None):
        return
    X = X[:_N_ROWS]
    value, error = model._ode_log_density(X, None, 1.0)
    report.nll, report.solver_error = -float(value.mean()), float(error.max())
    word = "met" if report.solver_error <= model.ode_tol else "MISSED by some rows"
    report.verdicts["NLL, ODE"] = f"{report.nll:.4f} nats; worst solver error {report.solver_error:.2g}: ode_tol {word}"
    if model.noise_level > 0:
        chain = model._chain(X, None, _N_PATHS)
        report.nll_sde_bound = -float(chain["bound"].mean())
        # rows share their noise: their Monte Carlo errors do not average out
        report.nll_sde_bound_error = float(chain["standard_error"].mean())
        gap = report.nll_sde_bound - report.nll
        word = "velocity and score agree" if gap < 0.1 else "velocity and score disagree, or n_steps is small"
        value = f"{report.nll_sde_bound:.4f} +- {report.nll_sde_bound_error:.2g} nats, {gap:+.3f}"
        report.verdicts["NLL, bound of the SDE"] = f"{value}: {word}"


def _consistency(model, X0, X1, report):
    """Distance of the score from the gradient of the ODE's own log-density, relative to the latter."""
    has_score = model.interpolant_.kind == "one-sided" or model.denoiser_network_ is not None
    if model.interpolant_.kind == "mirror" or not has_score or not model._has_gradient:
        return
    if not isinstance(model.preprocessing_, AffineMap):
        return  # the path has no data units
    report.fisher_divergence = model.fisher_divergence(X0, X1).relative
    word = "velocity and score agree" if report.fisher_divergence < 0.1 else "velocity and score disagree"
    report.verdicts["Fisher divergence"] = f"{report.fisher_divergence:.2g} of the Fisher information: {word}"
