"""How wrong the log-density of an ensemble is: by a fit to its own draws, and by where it takes held-out rows."""

import dataclasses
import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from .._model.ensemble import ErrorScale
from .._model.fields import Fields
from .._model.likelihood import GRID_SPACING, VALIDATION_LEVEL, density_parts
from .._model.sampling import generate
from .._model.settings import Sampling
from .._utils.tensors import MEMBER_STREAM, as_array, as_tensor, make_generator, normal
from ..exceptions import FitDivergedError
from ..solvers import odeint, time_grid
from .masked_run import make_run
from .mixture_init import Budget, find_mixture
from .weighting import by_weight

# Largest number of rows to which the mixture of a member is fitted.
_MIXTURE_ROWS = 20_000
# Largest number of rows that are drawn for the fit to draws.
_DRAWN_ROWS = 100_000
# Rows by which spread and error are judged.
_JUDGED_ROWS = 500
# Part of the seed of the fit to draws, where members have their number.
_DRAWS = 10_000
# Time of the search for a mixture of rows at the base, in units of that of a member; seconds where steps are the limit.
SHARE_OF_MIXTURE = 0.25
_MIXTURE_SECONDS = 1.0
# Training and held-out rows by which it is fitted and chosen, at the most, and the fewest of the latter.
_BASE_ROWS = (20_000, 3000)
_FEWEST_HELD = 100
# Steps of the way to the base.
_STEPS_TO_BASE = 20
# Errors of its gain on held-out rows by which it must lead.
_SURE = 2.0
# Rows that are drawn at a time.
_BLOCK_ROWS = 4096


def mixture_of(first, base, own):
    """The closed form of a run that has the kind of a first one's, fitted to the rows of a problem in its own units."""
    if first.mixture is None:
        return None
    rows = by_weight(own.target_weight, own.target_train, _MIXTURE_ROWS, own.seed)
    same_axes = base.target_map is first.target_map
    return first.mixture.refitted(as_array(base.x1[rows], np.float64), own.seed, same_axes)


def error_scale(recipe, problem, settings, models, runs):
    """What turns the spread of members into half-widths.

    A further network is trained to rows that the ensemble has drawn, as the members were to theirs. Of these rows the
    true log-density is known, and how far it misses that, in units of the spread of the members, tells what the spread
    does not: what fits of this kind miss alike (the parametric bootstrap: Efron & Tibshirani 1993, "An introduction to
    the bootstrap", chapter 6). Draws are smoother than the rows, and what the members have not learned yet is not in
    them. Held-out rows tell some of that: a member takes them to the base, where they are normal if its density is
    right, and a mixture that is surely better there than the normal distribution says how far it is wrong. The larger
    of both counts.

    Parameters
    ----------
    recipe : Recipe
    problem : Problem
        Of the ensemble.
    settings : Settings
        Of a member.
    models, runs : list of FittedModel, list of Run
        The members, and what they were learned by.
    """
    held = problem.target_train if problem.target_val is None else problem.target_val
    rows = by_weight(problem.target_weight, held, _JUDGED_ROWS, problem.seed)
    condition = None if runs[0].condition is None else runs[0].condition[rows]
    X = problem.target[rows]
    values = _log_densities(models, runs, X, condition)
    scale = ErrorScale(float(np.nanmedian(values.std(0, ddof=1))))
    if problem.interrupted or any(run.history.interrupted for run in runs[1:]):
        return scale
    with problem.interruptible(lambda: True, "in the fits that tell the error of its log-densities, which is assumed."):
        found = [_misses_of_draws(recipe, problem, settings, (models, runs), scale)]
        found.append(_misses_at_base(problem, settings, runs[0], (rows, values), scale))
        scale = scale.measured([misses for misses in found if misses is not None])
    return scale


def _misses_of_draws(recipe, problem, settings, ensemble, scale):
    """Errors of a fit to draws over the scale of the spread there, a row; None where it diverged."""
    models, runs = ensemble
    own, judged = _drawn(problem, models, runs)
    first = runs[0]
    maps = (None, first.target_map) if first.has_data_units else None
    base = make_run(recipe, own, first.kind, maps=maps)
    run = _trained(recipe, problem, settings, (first, base, own))
    if run is None:
        return None
    condition = None if run.condition is None else run.condition[judged]
    X = own.target[judged]
    known = _log_densities(models, runs, X, condition)
    return _in_units(run, X, condition, known, scale)


def _misses_at_base(problem, settings, first, judged, scale):
    """Errors by a mixture of rows at the base, over the scale of the spread, a row; None where it says nothing.

    log p(x) - log p_1(x) = log q(z) - log N(z; 0, I)

    with z where the flow of the first member takes x, q the distribution of z, and p the true one of x.
    """
    rows, known = judged
    held = problem.target_val
    if problem.interpolant.path_type != "one-sided" or first.recipe.circular or held is None:
        return None
    if len(held) < _FEWEST_HELD:
        return None
    parts = zip((problem.target_train, held), _BASE_ROWS, strict=True)
    train, val = (_at_base(first, by_weight(problem.target_weight, part, most, problem.seed)) for part, most in parts)
    limit = settings.max_time
    budget = Budget(_MIXTURE_SECONDS if limit is None else SHARE_OF_MIXTURE * limit, limit is not None)
    found = find_mixture(train, val, (np.zeros(len(train)), np.zeros(len(val))), problem.seed, budget, _BASE_ROWS)
    if found is None or not np.isfinite(found.scores).all():
        return None
    gain = found.scores - _standard_normal(val)
    if gain.mean() < _SURE * gain.std() / len(gain) ** 0.5:
        return None
    z = _at_base(first, rows)
    return np.abs(found.mixture.score_samples(z) - _standard_normal(z)) / scale.of_spread(known)


def _standard_normal(z):
    """Log-densities of rows of a standard normal distribution."""
    return -0.5 * (z**2 + np.log(2 * np.pi)).sum(1)


@torch.no_grad()
def _at_base(run, rows):
    """Where the flow of a run takes rows of the target at t = 0."""
    condition = None if run.condition is None else run.condition[rows]
    velocity = Fields(run.problem.interpolant, run.networks["velocity"], condition=condition).velocity
    grid = time_grid(_STEPS_TO_BASE, GRID_SPACING, 1.0, 0.0)
    return as_array(odeint(velocity, run.x1[rows], grid, "dopri5"), np.float64)


def _trained(recipe, problem, settings, parts):
    """A run of the kind of a first one with the maps of a base on a problem of its own; None where it diverged."""
    first, base, own = parts
    run = make_run(recipe, own, first.kind, mixture_of(first, base, own), like=base)
    try:
        run.train(settings, name="member", dropout=first.dropout)
    except FitDivergedError as error:
        warnings.warn(
            f"A fit that tells the error of log-densities diverged, so that it is assumed: {error}",
            ConvergenceWarning,
            stacklevel=8,
        )
        return None
    problem.n_steps += own.n_steps
    return run


def _in_units(run, X, condition, known, scale):
    """How far the log-densities of a run are from those of an ensemble, over the scale of its spread, a row."""
    found = _log_densities([run.fitted(run.history, None)[0]], [run], X, condition)[0]
    of_ensemble = np.logaddexp.reduce(known, axis=0) - np.log(len(known))
    return np.abs(found - of_ensemble) / scale.of_spread(known)


def _drawn(problem, models, runs):
    """A problem of rows that the ensemble has drawn, and the numbers of its rows that neither train nor validate."""
    rng = np.random.default_rng([problem.seed, MEMBER_STREAM, _DRAWS])
    n, val = len(problem.target), problem.target_val
    share = min(1.0, _DRAWN_ROWS / n)
    parts = [part[: round(share * len(part))] for part in (problem.target_train, [] if val is None else val)]
    parts.append(rng.integers(n, size=_JUDGED_ROWS))
    numbers = np.concatenate(parts).astype(int)
    ends = np.cumsum([len(part) for part in parts])
    train, held, judged = (np.arange(end - len(part), end) for end, part in zip(ends, parts, strict=True))
    target = _draw(models, runs, numbers, rng)
    lost = ~np.isfinite(target).all(1)
    target[lost] = problem.target[numbers[lost]]
    return dataclasses.replace(
        problem, target=target, target_train=train, target_val=None if val is None else held, warm=None, n_steps=0,
        condition=None if problem.condition is None else problem.condition[numbers], seed=int(rng.integers(2**31)),
        target_weight=None if problem.target_weight is None else problem.target_weight[numbers],
    ), judged  # fmt: skip


@torch.no_grad()
def _draw(models, runs, numbers, rng):
    """Rows on the line, each by a member chosen at random, given the condition of the row of fit with its number."""
    X = np.empty((len(numbers), runs[0].x1.shape[1]))
    chosen = rng.integers(len(runs), size=len(numbers))
    generator = make_generator(int(rng.integers(2**31)), MEMBER_STREAM, runs[0].device)
    for k, (model, run) in enumerate(zip(models, runs, strict=True)):
        rows = np.flatnonzero(chosen == k)
        for some in np.array_split(rows, max(1, len(rows) // _BLOCK_ROWS)):
            path = model.interpolant
            x = path.base_from_normal(normal((len(some), X.shape[1]), generator, like=run.x1[:1]))
            condition = None if run.condition is None else run.condition[numbers[some]]
            fields = Fields(path, model.velocity, model.denoiser, condition)
            x = generate(fields, x, Sampling(), model.sampling_grid, None, generator)
            X[some] = run.target_map.inverse_transform(as_array(x, np.float64))
    return X.astype(runs[0].problem.target.dtype, copy=False)


@torch.no_grad()
def _log_densities(models, runs, X, condition):
    """Log-densities of members at rows on the line, of shape (n_members, n)."""
    values = []
    for model, run in zip(models, runs, strict=True):
        x = as_tensor(run.target_map.transform(X), torch.float32, run.device)
        fields = Fields(model.interpolant, model.velocity, model.denoiser, condition)
        parts, _ = density_parts(fields, x, 1.0, VALIDATION_LEVEL, GRID_SPACING, *model.anchor())
        values.append(as_array(parts.sum(1), np.float64) + run.target_map.log_abs_det_jacobian(X))
    return np.array(values)
