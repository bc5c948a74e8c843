"""Methods of the density benchmark: function(train, valid, budget, seed) -> (X -> log-densities, note).

Whatever a method chooses, it chooses inside its budget of seconds, on one thread. Rows come scaled.
GaussianMixture: components, kind of covariance, its regularisation and the number of EM iterations by validation, then
restarts of the best settings until the time is up. KernelDensity: a normal kernel on scaled and on whitened columns,
the bandwidth by validation.
"""

import copy
import itertools
import time
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from density_flows import autoregressive_flow, continuous_flow, flow_matching, identity, spline_flow, whitening
from sklearn_si import InterpolantFlow

COMPONENTS = (1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200, 300)
KINDS, FLOORS = ("full", "tied", "diag"), (1e-4, 1e-3, 1e-2, 1e-6)


def ours(train, valid, budget, seed):
    """InterpolantFlow at its defaults; it holds out validation rows of its own."""
    flow = InterpolantFlow(max_time=budget, random_state=seed, device="cpu").fit(np.concatenate([train, valid]))
    note = f"{flow.n_iter_} steps, best validation {flow.best_validation_score_:.3f}"
    return flow.score_samples, note


class Mixtures:
    """Fits of GaussianMixture until a deadline; the best on validation is kept."""

    def __init__(self, train, valid, deadline, seed):
        self.train, self.valid, self.deadline, self.seed = train, valid, deadline, seed
        self.scores, self.best, self.score, self.last = {}, None, -np.inf, {}

    def time_is_up(self, settings=None):
        """Whether the deadline has passed, or would before the first iterations with these settings are done."""
        components, kind, _ = settings or (1, "diag", 0)
        seconds, before = self.last.get(kind, (0.0, 1))
        expected = seconds * components / before if settings else 0.0
        return time.perf_counter() + expected >= self.deadline

    def fit(self, components, kind, floor, seed=0):
        """EM, a few iterations at a time, while the time lasts and the validation score rises; return the score."""
        settings = {"covariance_type": kind, "reg_covar": floor, "random_state": self.seed + seed}
        model = GaussianMixture(components, max_iter=5, warm_start=True, **settings)
        score, stale = -np.inf, 0
        while stale < 3 and not self.time_is_up():
            began = time.perf_counter()
            model.fit(self.train)
            new = model.score(self.valid)
            if score == -np.inf:
                self.last[kind] = time.perf_counter() - began, components
            stale = 0 if new > score + 1e-4 else stale + 1
            score = max(score, new)
            if new > self.score:
                self.best, self.score = copy.deepcopy(model), new
            if model.converged_:
                break
        key = components, kind, floor
        self.scores[key] = max(score, self.scores.get(key, -np.inf))
        return score


def gaussian_mixture(train, valid, budget, seed):
    """More components while they help, then other regularisations, numbers nearby and restarts of the best."""
    fits, worse = Mixtures(train, valid, time.perf_counter() + budget, seed), dict.fromkeys(KINDS, 0)
    top = dict.fromkeys(KINDS, -np.inf)
    for components, kind in itertools.product(COMPONENTS, KINDS):
        settings = components, kind, FLOORS[0]
        if worse[kind] == 3 or components > len(train) // 2 or fits.time_is_up(settings):
            continue
        score = fits.fit(*settings)
        worse[kind] = 0 if score > top[kind] else worse[kind] + 1
        top[kind] = max(score, top[kind])
    for restart in itertools.count(1):
        leaders = sorted(fits.scores, key=fits.scores.get)[: -4 if restart % 2 else -2 : -1]
        options = [(k, kind, floor) for k, kind, _ in leaders for floor in FLOORS]
        options += [
            (k + by, kind, f) for k, kind, f in leaders for by in (-max(1, k // 6), max(1, k // 6)) if k + by > 0
        ]
        fresh = [o for o in dict.fromkeys(options) if o not in fits.scores] if restart % 2 else leaders[:1]
        for settings in fresh:
            if not fits.time_is_up(settings):
                fits.fit(*settings, seed=restart)
        if all(fits.time_is_up(settings) for settings in leaders[:1]) or restart == 200:
            break
    m = fits.best
    note = f"{m.n_components} components, {m.covariance_type}, {m.reg_covar:g}; {len(fits.scores)} settings"
    return m.score_samples, note


def kernel_density(train, valid, budget, seed):
    """A coarse grid of bandwidths on both inputs, then finer ones around the best while the time lasts."""
    deadline, scores, slowest = time.perf_counter() + budget, {}, 0.0
    maps = {"scaled": identity(train), "whitened": whitening(train)}
    rows, tables = valid[:500], {name: affine(train) for name, affine in maps.items()}
    grid = [(name, 10.0**power) for power in np.arange(-0.5, -2.01, -0.25) for name in maps]
    grid += [(name, 10.0**power) for power in (-0.25, 0.0) for name in maps]
    while grid and time.perf_counter() + slowest < deadline:
        began, (name, h) = time.perf_counter(), grid.pop(0)
        scores[name, h] = KernelDensity(bandwidth=h).fit(tables[name]).score(maps[name](rows)) / len(rows)
        scores[name, h] += maps[name].log_det
        slowest = max(slowest, time.perf_counter() - began)
        if not grid and len(scores) < 60:
            name, h = max(scores, key=scores.get)
            below, above = (max((b for n, b in scores if n == name and b < h), default=h / 2), h)
            higher = min((b for n, b in scores if n == name and b > h), default=2 * h)
            grid = [(name, (below * above) ** 0.5), (name, (higher * above) ** 0.5)] if higher / below > 1.02 else []
    name, h = max(scores, key=scores.get)
    model, affine = KernelDensity(bandwidth=h).fit(tables[name]), maps[name]
    note = f"{name}, bandwidth {h:.4g}, {len(scores)} tried"
    return lambda X: model.score_samples(affine(X)) + affine.log_det, note


def quiet(method):
    """The method without the warnings of EM that was stopped on purpose."""

    def run(train, valid, budget, seed):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return method(train, valid, budget, seed)

    return run


METHODS = {
    "ours": ours,
    "nsf": spline_flow,
    "maf": autoregressive_flow,
    "cnf": continuous_flow,
    "fm": flow_matching,
    "gmm": quiet(gaussian_mixture),
    "kde": kernel_density,
}
