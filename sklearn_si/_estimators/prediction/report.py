"""A report on predicted distributions: coverage, uniformity of PIT values, CRPS and sharpness on held-out rows."""

import numpy as np
from scipy import stats

from ..._utils.tensors import REPEATS_STREAM, draw_seed
from ..diagnostics import Report

# Coverages of the intervals of a report.
COVERAGES = (0.5, 0.8, 0.9, 0.95)
# Levels of the quantiles by which the CRPS is taken.
_LEVELS = (np.arange(50) + 0.5) / 50
# Share of PIT values at either end that a report counts.
_TAIL = 0.1
# The p-value below which PIT values are said not to be uniform, and the standard errors beyond which a coverage is off.
_SIGNIFICANCE = 0.01
_ERRORS = 2.6


def predictive_report(model, X, y):
    """The report on a fitted regressor.

    Parameters
    ----------
    model : InterpolantRegressor
    X : frame or array-like of shape (n_samples, n_features)
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
    """
    if len(y) < 2:
        raise ValueError(f"Got {len(y)} row, but diagnose needs at least 2 for a standard error.")
    report = Report(verdicts={}, n_samples=len(y), coverages=np.array(COVERAGES))
    bounds = np.stack([model.predict_interval(X, coverage) for coverage in COVERAGES], axis=1)
    low, high = bounds[:, :, 0], bounds[:, :, 1]
    report.observed = ((low <= y[:, None]) & (y[:, None] <= high)).mean(0)
    report.observed_error = np.sqrt(report.observed * (1 - report.observed) / len(y))
    report.sharpness, report.sharpness_error = _mean(high - low)
    report.pit = pit_values(model, X, y)
    report.pit_below, report.pit_below_error = _mean(report.pit < _TAIL)
    report.pit_above, report.pit_above_error = _mean(report.pit > 1 - _TAIL)
    report.pit_pvalue = np.apply_along_axis(lambda u: stats.kstest(u, "uniform").pvalue, 0, report.pit)[()]
    report.crps, report.crps_error = _mean(crps(_quantiles(model, X), y))
    logs = model.predict_log_density(X, y)
    report.log_density, report.log_density_error = _mean(logs)
    for j in range(model.n_outputs_):
        one = {name: value[..., j] for name, value in report.items() if y.ndim > 1 and np.ndim(value)}
        tail = f", output {j}" if model.n_outputs_ > 1 else ""
        _add_verdicts(report, {**report, **one}, tail, j in model.grid_.columns)
    report.verdicts["log-density"] = _told_log_density(logs)
    return report


def _told_log_density(logs):
    """The mean of the log-densities and its error; where some are -inf, how many, and those of the other rows."""
    possible = logs[np.isfinite(logs)]
    if len(possible) < 2:
        return f"-inf ({len(logs) - len(possible)} of {len(logs)} rows cannot be)"
    value, error = _mean(possible)
    told = f"{value:.3f} +- {error:.3f} ({len(possible)} rows)"
    n_lost = len(logs) - len(possible)
    return told if not n_lost else f"-inf: {n_lost} of {len(logs)} rows cannot be; {told} without them"


def pit_values(model, X, y):
    """P(Y < y) + U P(Y = y), U ~ U(0, 1), for each row: uniform if the model is right (Dawid 1984)."""
    upper = model.predict_cdf(X, y)
    if not model.grid_.columns:
        return upper
    lower = model.predict_cdf(X, np.nextafter(y, -np.inf))
    rng = np.random.default_rng([draw_seed(model.random_state), REPEATS_STREAM])
    return lower + rng.random(y.shape) * (upper - lower)


def _quantiles(model, X):
    """Quantiles at many levels, of one output with the accuracy of draws."""
    if model.n_outputs_ > 1:
        return model.predict_quantiles(X, _LEVELS)
    values = model._mixture().coarse_quantiles(model._codes(X), _LEVELS)
    return model._shaped_values(model._to_data(values[..., None]))


def crps(values, y):
    """The continuous ranked probability score of each row, by its quantiles at 50 levels."""
    levels = _LEVELS.reshape(1, -1, *[1] * (values.ndim - 2))
    above = values - y[:, None]
    return 2 * (((above > 0) - levels) * above).mean(1)


def _mean(values):
    """The mean over rows, and its standard error."""
    with np.errstate(invalid="ignore"):  # a mean of -inf, of which a warning has told, has no error
        return values.mean(0), values.std(0, ddof=1) / len(values) ** 0.5


def _add_verdicts(report, one, tail, has_steps):
    """A line for each finding on one output, whose part of the report is `one`."""
    for k, coverage in enumerate(COVERAGES):
        value, error = one["observed"][k], one["observed_error"][k]
        expected = np.sqrt(coverage * (1 - coverage) / report.n_samples)
        word = _verdict((value - coverage) / expected, has_steps)
        width = f"{one['sharpness'][k]:.4g} +- {one['sharpness_error'][k]:.2g}"
        report.verdicts[f"{coverage:.0%} intervals{tail}"] = f"hold {value:.3f} +- {error:.3f}: {word}; width {width}"
    ends = [f"{one[f'pit_{side}']:.3f} +- {one[f'pit_{side}_error']:.3f}" for side in ("below", "above")]
    word = "uniform" if one["pit_pvalue"] >= _SIGNIFICANCE else "NOT uniform"
    p = f"KS p = {one['pit_pvalue']:.2g}, {'at least' if word == 'uniform' else 'below'} {_SIGNIFICANCE:g}"
    report.verdicts[f"PIT{tail}"] = f"below .1: {ends[0]}, above .9: {ends[1]}, {p}: {word}"
    report.verdicts[f"CRPS{tail}"] = f"{one['crps']:.4g} +- {one['crps_error']:.2g}"


def _verdict(excess, has_steps):
    """What a coverage says that differs from the one asked for by so many standard errors."""
    if excess < -_ERRORS:
        return "TOO NARROW"
    # intervals of few values cannot hold less than the value in the middle
    return "TOO WIDE" if excess > _ERRORS and not has_steps else "as it should be"
