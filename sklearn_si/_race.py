"""Which map, which closed form and how much dropout a network is trained with, chosen on validation rows."""

import copy
import dataclasses
import math
import time
import warnings

from sklearn.exceptions import ConvergenceWarning

from ._closed_forms import fit_mixture
from ._runs import Run
from .exceptions import FitDivergedError

# Share of the steps that each map gets before the choice; share of the time in which Gaussian mixtures are tried; how
# many times the gain of the last doubling of the steps is still to come.
_RACE, _MIXTURE_SHARE, _GAINS_TO_COME = 0.05, 0.08, 1.2
# A run with dropout follows one that was best after b rounds: the earlier it overfits, the more is dropped. Then, as
# long as this helps and this share of the steps is left, one with more.
_DROPOUT_BY_ROUND, _DROPOUT_LIMIT, _MORE, _LEAST_LEFT = 1.2, 0.3, 1.7, 0.15
# Seconds for which mixtures are tried where the fit has no limit.
_MIXTURE_SECONDS = 1.0


def can_race(plan):
    """Whether runs can be compared by the log-likelihood of held-out rows."""
    return not plan.two_samples and plan.held1 is not None and plan.fields == ("velocity",)


def train_best(estimator, plan, settings):
    """A trained run; for one sample, the best on validation rows of several."""
    kind = estimator.preprocessing
    if not can_race(plan):
        run = Run(estimator, plan, "standardize" if kind == "auto" else kind)
        run.train(settings)
        return run
    race = Race(estimator, plan, settings)
    if kind == "auto":
        race.choose_start()
    else:
        race.start = Run(estimator, plan, kind)
    race.finish()
    return race.best()


class Race:
    """Short runs on a share of the steps (or of the time), then long ones from what won."""

    def __init__(self, estimator, plan, settings):
        self.estimator, self.plan, self.settings = estimator, plan, settings
        self.began, self.runs, self.start, self.failure = time.perf_counter(), [], None, None
        self.steps = 0  # of the long runs

    @property
    def interrupted(self):
        """Whether the user has stopped a run."""
        return any(run.history.interrupted for run in self.runs)

    def best(self):
        """The run of the highest score; of equals the longest, which is the last."""
        return max(reversed(self.runs), key=lambda run: run.history.best_score)

    def choose_start(self):
        """The map, and whether the network is built around a Gaussian mixture."""
        maps = self.estimator._race_maps
        # one column has nothing to whiten
        affine = maps[:2] if self.plan.X1.shape[1] > 1 else maps[:1]
        for kind in affine:
            self.short_run(_RACE, kind)
        whiten = self.best().kind == "whiten" if self.runs else False
        if "marginal" in maps:
            # what follows the columns' own maps is what suits the columns themselves
            self.short_run(_RACE, "marginal-whiten" if whiten else "marginal")
        if not self.runs:
            raise self.failure
        leaders = sorted(self.runs, key=lambda run: -run.history.best_score)[:2]
        promise, self.start = max((self.second_look(run) for run in leaders), key=lambda look: look[0])
        # a foreign network, or a condition, has no mixture's closed form
        if self.estimator.network == "mlp" and self.plan.codec is None and not self.interrupted:
            rival = self.mixture_run()
            if rival is not None and rival.history.best_score > promise:
                self.start = rival

    def second_look(self, run):
        """The score that a start promises to end with, and its run gone on with for as long again."""
        networks = copy.deepcopy(dict(run.networks))
        longer = self.short_run(_RACE, run.kind, maps=run.maps, networks=networks) or run
        score = longer.history.best_score
        return score + _GAINS_TO_COME * (score - run.history.best_score), longer

    def short_run(self, share, *start, **kwargs):
        """A run on a share of the steps; None where it diverged or the user has stopped one."""
        if self.interrupted:
            return None
        settings = self.settings
        short = dataclasses.replace(
            settings,
            max_iter=max(1, int(share * settings.max_iter)),
            max_time=None if settings.max_time is None else share * settings.max_time,
            verbose=0,
        )
        return self.trained(Run(self.estimator, self.plan, *start, **kwargs), short)

    def trained(self, run, settings):
        """The run, trained and entered; None where it diverged."""
        try:
            run.train(settings)
        except FitDivergedError as failure:
            self.failure = failure
            return None
        self.runs.append(run)
        return run

    def mixture_run(self):
        """A short run around the best mixture, in the units of the start or of an affine map; None if none leads."""
        plan, limit = self.plan, self.settings.max_time
        limit = _MIXTURE_SECONDS if limit is None else _MIXTURE_SHARE * limit
        runs = [self.start]
        if self.start.kind.startswith("marginal"):
            runs = [self.start, next((run for run in self.runs if run.kind == "whiten"), self.runs[0])]
        limit /= len(runs)
        try:
            fits = [fit_mixture(r.x1, r.log_jacobian, plan.train1, plan.held1, plan.seed, limit) for r in runs]
        except KeyboardInterrupt:
            self.start.history.interrupted = True
            warnings.warn(
                "The choice of a closed form was interrupted: the best short run is kept.",
                ConvergenceWarning,
                stacklevel=2,
            )
            return None
        pairs = [pair for pair in zip(fits, runs, strict=True) if pair[0] is not None]
        if not pairs:
            return None
        mixture, run = max(pairs, key=lambda pair: pair[0].score)
        if mixture.held_score < self.start.history.best_score:
            return None  # it starts behind what the network has reached, and gains less
        return self.short_run(_RACE, run.kind, mixture.parts, maps=run.maps)

    def finish(self):
        """Train copies of the start's networks to the end; with dropout where a run without it overfits."""
        if self.interrupted:
            return
        automatic = self.estimator.dropout == "auto"
        dropout, best = 0.0 if automatic else self.estimator.dropout, -math.inf
        while True:
            run = self.long_run(dropout, until_overfit=automatic and self.settings.early_stopping)
            if run is None:
                break
            score = run.history.best_score
            if not run.history.overfitted or score <= best or self.left() < _LEAST_LEFT:
                break
            # the rounds of the start count as well
            before = [] if self.start.history is None else self.start.history.validation_scores
            best, rounds = score, run.history.rounds_to_best + 2 * len(before)
            dropout = min(0.5, _MORE * dropout) if dropout else min(_DROPOUT_LIMIT, _DROPOUT_BY_ROUND / rounds)
        if not self.runs:
            raise self.failure

    def long_run(self, dropout, until_overfit):
        """A run on what is left, from the best weights of the last, with a rate that starts again."""
        settings, start = self.settings, self.runs[-1] if self.steps else self.start
        if settings.max_time is None:
            steps = settings.max_iter - self.steps
            settings = dataclasses.replace(settings, max_iter=steps)
        else:
            seconds = max(_RACE, self.left()) * settings.max_time
            settings = dataclasses.replace(settings, max_time=seconds)
        networks = copy.deepcopy(dict(start.networks))
        run = Run(self.estimator, self.plan, start.kind, start.mixture, maps=start.maps, networks=networks)
        run.dropout, run.until_overfit = dropout, until_overfit
        run = self.trained(run, settings)
        self.steps += run.history.n_iter if run is not None else 0
        return run

    def left(self):
        """The share of the time, or of the steps of long runs, that is left."""
        if self.settings.max_time is None:
            return 1 - self.steps / self.settings.max_iter
        return 1 - (time.perf_counter() - self.began) / self.settings.max_time
