"""Which map and which closed form a network is trained around, chosen by short runs on validation rows."""

import copy
import dataclasses
import time

import numpy as np

from ._runs import Run

# Share of the steps that each candidate of preprocessing="auto" gets before the choice; how many times the gain of the
# last doubling of the steps is still to come.
_RACE, _GAINS_TO_COME = 0.07, 1.2


def train_best(estimator, plan, settings):
    """A trained run; with preprocessing="auto" for one sample, the best on validation rows of several."""
    kind = estimator.preprocessing
    one_sample = not plan.two_samples and plan.held1 is not None and plan.fields == ("velocity",)
    if kind != "auto" or not one_sample:
        run = Run(estimator, plan, "standardize" if kind == "auto" else kind)
        run.train(settings)
        return run
    race = Race(estimator, plan, settings)
    # one column has nothing to whiten; a foreign network, or a condition, has no mixture's closed form
    kinds = ("standardize", "whiten")[: plan.X1.shape[1]]
    run = race.run(max(kinds, key=lambda kind: race.score(_RACE, kind)))
    if estimator.network == "mlp" and plan.codec is None:
        run = race.against_mixture(run)
    race.finish(run)
    # of equals the longest, which is the last
    return max(reversed(race.runs), key=lambda run: run.history.best_score)


class Race:
    """Short runs on a share of the steps (or of the time), then a long one with what won."""

    def __init__(self, estimator, plan, settings):
        self.estimator, self.plan, self.settings = estimator, plan, settings
        self.began, self.runs, self.interrupted = time.perf_counter(), [], False

    def score(self, share, *start, **kwargs):
        """The validation score of a run on a share of the steps."""
        if self.interrupted:
            return -np.inf
        run, settings = Run(self.estimator, self.plan, *start, **kwargs), self.settings
        limit = None if settings.max_time is None else share * settings.max_time
        short = dataclasses.replace(
            settings, max_iter=max(1, int(share * settings.max_iter)), max_time=limit, verbose=0
        )
        history = run.train(short)
        self.runs.append(run)
        self.interrupted = history.interrupted
        return history.best_score

    def run(self, kind):
        """The run of one kind of map."""
        return next((run for run in self.runs if run.kind == kind), self.runs[0])

    def against_mixture(self, run):
        """The run, or one around a Gaussian mixture where that promises to end higher.

        A mixture starts high and ends early: the other's end is foreseen from what twice the steps bring it.
        """
        first = run.history.best_score
        score = self.score(_RACE, "whiten", "fit")
        if score <= first or self.interrupted:
            return run
        rival = self.runs[-1]
        second = self.score(2 * _RACE, None, maps=run.maps)
        return self.runs[-1] if second + _GAINS_TO_COME * (second - first) > score else rival

    def finish(self, run):
        """Train copies of the run's networks to the end, with a learning rate that starts again."""
        if self.interrupted:
            return
        settings = self.settings
        if settings.max_time is not None:
            left = settings.max_time - (time.perf_counter() - self.began)
            settings = dataclasses.replace(settings, max_time=max(_RACE * settings.max_time, left))
        networks = copy.deepcopy(dict(run.networks))
        last = Run(self.estimator, self.plan, None, run.mixture, maps=run.maps, networks=networks)
        last.train(settings)
        self.runs.append(last)
