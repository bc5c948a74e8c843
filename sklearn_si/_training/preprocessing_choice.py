"""Which map, which closed form and how much dropout a network is trained with, chosen on validation rows."""

import copy
import dataclasses
import math
import time
from typing import Any

from ..exceptions import FitDivergedError
from ..preprocessing import AFFINE, MARGINAL, TRIANGULAR
from .averaging import average_more, can_average
from .closed_score import closed_score
from .gains import row_scores
from .masked_run import make_run
from .mixture_init import FOLDS, Budget, ClosedForm, find_mixture, refit
from .run import has_likelihood_validation, train_run
from .triangular import is_worth_trying, longer_map
from .validation_split import VALIDATION_ROWS
from .weighting import by_weight

# Share of the steps that each map gets before the choice, in a fit of 20 s or of 1,000 steps; in longer ones the share
# falls with the square root of the length (benchmarks/studies/ablation.md, "The map of the columns").
_SHORT_RUN_SHARE = 0.05
# Seconds of the fit from which on the share falls.
_SECONDS = 20.0
# Steps of the fit from which on the share falls, where time is no limit.
_STEPS = 1000
# Seconds of the fit below which the start of a short run is validated in closed form or not at all.
_HURRY = 10.0
# Share of the time in which Gaussian mixtures are tried, where the fit has a limit of time.
_MIXTURE_SHARE = 0.08
# Largest cost of the search for a mixture where it has none, in estimated seconds.
_MIXTURE_SECONDS = 1.0
# Estimated seconds of that search for each step of the fit.
_SECONDS_A_STEP = 1e-3
# Largest number of rows that the mixture is fitted to in the end.
_MIXTURE_ROWS = 20_000
# These rows for each second of the search.
_ROWS_A_SECOND = 20_000
# The score of a run is extrapolated by so many times the gain of its last doubling of steps (see "The map of
# the columns" in benchmarks/studies/ablation.md).
_GAINS_TO_COME = 1.2
# The largest such multiple: a mixture that leads by more needs no further comparison.
_MOST_TO_COME = 3.0
# The multiple after one more doubling of the steps, where a mixture is the rival: more than before, because the run
# around the mixture still wins in the end if the network disappoints.
_LAST_GAINS = 2.0
# Nats by which a map of each column must lead, because fields have no data units after it.
_PRICE_OF_FIELDS = 0.02
# Nats below the highest score within which a run is a finalist.
_NEAR = 0.1
# Largest number of finalists, which are compared once more.
_FINALISTS = 2
# Validation rows of that comparison.
_FINAL_ROWS = 1000
# Share of the time that it is given.
_FINAL_SHARE = 0.03
# A run that was best after b steps is followed by one with dropout _DROPOUT_BY_STEP / b: the earlier a run overfits,
# the more is dropped (benchmarks/studies/ablation.md, "Dropout, and when a run overfits").
_DROPOUT_BY_STEP = 120
# Largest first dropout.
_DROPOUT_LIMIT = 0.3
# Factor of the dropout from one run to the next, as long as more dropout helps.
_MORE = 1.7
# Share of the steps (or of the time) that must be left for one more run.
_LEAST_LEFT = 0.15
# Growth of a round, in units of the steps so far: short runs are validated after 100 steps, and each time that their
# number has doubled.
_FEW_ROUNDS = 1.0


def train_best(recipe, problem, settings):
    """A trained run; for one sample, the best on validation rows of several."""
    kind = recipe.preprocessing
    if not has_likelihood_validation(problem):
        began = time.perf_counter()
        run = make_run(recipe, problem, "standardize" if kind == "auto" else kind)
        if recipe.train is None:  # else that sees to the time itself
            settings = problem.limited(settings, began)
        told = "between its trainings: what the last left is kept."
        with problem.interruptible(lambda: run.history is not None, told):
            (recipe.train or train_run)(run, settings)
        return run
    selection = Selection(recipe, problem, settings)
    with problem.interruptible(lambda: selection.runs, "between its runs: the best so far is kept."):
        if kind == "auto":
            selection.choose_start()
        else:
            selection.start = make_run(recipe, problem, kind)
        selection.finish()
    return selection.winner()


def _score(run):
    """The highest score of a run."""
    return run.history.best_score


class Selection:
    """Short runs on a share of the steps (or of the time), then long ones from what won."""

    def __init__(self, recipe, problem, settings):
        self.recipe, self.problem, self.settings = recipe, problem, settings
        self.began, self.runs = time.perf_counter() - problem.checkpoint.seconds, []
        self.start: Any = None  # the run that the others are compared with, and that the long ones copy
        self.failure: Any = None  # of the last run that diverged
        self.steps = 0  # of the long runs
        self.n_short = 0  # runs before these
        length = settings.max_iter / _STEPS if settings.max_time is None else settings.max_time / _SECONDS
        self.share = _SHORT_RUN_SHARE * min(1.0, length**-0.5)

    @property
    def interrupted(self):
        """Whether the user has stopped a run, or the selection between two of them."""
        return self.problem.interrupted or any(run.history.interrupted for run in self.runs)

    def best(self):
        """The run of the highest score; of equals the longest, which is the last."""
        return max(reversed(self.runs), key=_score)

    def winner(self):
        """The best of the long runs; a short one where it surely leads.

        Scores of a round are of few rows. Of several short runs one scores higher by chance than a long one that is
        better by .02 nats: so it must lead by more than the error of its lead.
        """
        long = self.runs[self.n_short :]
        if not long or self.interrupted:
            return self._best_of(self.runs)
        best, rival = self._best_of(long), max(self.runs[: self.n_short], key=_score, default=None)
        if rival is not None and _score(rival) > _score(best) and self._leads(rival, best):
            best = rival
        # what more steps brought nothing for, has converged
        best.history.converged |= best is not self.runs[-1]
        return best

    def _leads(self, rival, best):
        """Whether a run leads another by more than the error of its lead; more validation rows than score a round."""
        n_rows = max(rival.n_validation_rows(), self._final_rows())
        rows = self.problem.target_val
        with self.problem.interruptible(lambda: True, "in its last choice: the longer training is kept."):
            lead, error = row_scores(rival, rows, n_rows).lead(row_scores(best, rows, n_rows))
            return lead > error
        return False

    def _best_of(self, runs):
        """The best of the runs near the highest score, by more validation rows than score a round."""
        ranked = sorted(enumerate(runs), key=lambda pair: (-_score(pair[1]), -pair[0]))
        near = _score(ranked[0][1]) - _NEAR
        finalists = [run for _, run in ranked if _score(run) >= near][:_FINALISTS]
        scores = [_score(run) for run in finalists]
        n_rows = min(self.problem.group.total(len(self.problem.target_val)), self._final_rows())
        if len(finalists) > 1 and n_rows > VALIDATION_ROWS and not self.interrupted:
            with self.problem.interruptible(lambda: True, "in its last choice: the best by fewer rows is kept."):
                scores = [run.likelihood_of(self.problem.target_val, n_rows)() for run in finalists]
        return finalists[scores.index(max(scores))]

    def _final_rows(self):
        """The rows by which the last choice is made: as many as the time that is left allows."""
        seconds = max(run.history.seconds for run in self.runs)
        if self.settings.max_time is None or not seconds:
            return _FINAL_ROWS
        left = max(0.0, self.left()) * self.settings.max_time
        return int(min(_FINAL_ROWS, VALIDATION_ROWS * left / (_FINALISTS * seconds)))

    def choose_start(self):
        """The map, and whether the network is built around a Gaussian mixture."""
        # one column has nothing to whiten; an angle cannot be rotated, and under masks no column may be mixed with one
        # that is not known
        by_column = self.problem.target.shape[1] == 1 or self.recipe.conditionals is not None or self.recipe.circular
        for kind in AFFINE[:1] if by_column else AFFINE:
            self.short_run(make_run(self.recipe, self.problem, kind))
        if not self.recipe.affine_only:
            # what follows the columns' own maps is what suits the columns themselves
            whiten = bool(self.runs) and self.best().kind == AFFINE[1]
            run = make_run(self.recipe, self.problem, MARGINAL[whiten])
            if not run.has_data_units:
                self.short_run(run)
        if not self.runs:
            raise self.failure
        if is_worth_trying(self.recipe, self.problem):
            self.triangular_run()
        leaders = sorted(self.runs, key=lambda run: -run.history.best_score)[:2]
        extrapolated_score, self.start = max((self.extend(run) for run in leaders), key=lambda look: look[0])
        # a foreign network, a condition, a mask, or an angle has no mixture's closed form
        ours = self.recipe.network == "mlp" and self.recipe.conditionals is None and not self.recipe.circular
        if ours and self.problem.codec is None and not self.interrupted:
            rival = self.mixture_run()
            if rival is not None and rival.history.best_score > self.extend_once_more(extrapolated_score, rival):
                self.start = rival
        if self.start.kind == TRIANGULAR and not self.interrupted:
            self.longer_triangular()

    def triangular_run(self):
        """A short run behind a triangular map, where its closed form leads what the others have reached."""
        if self.interrupted:
            return
        run = make_run(self.recipe, self.problem, TRIANGULAR)
        score = closed_score(run)
        if score is not None and score > _score(self.best()):
            self.short_run(run)

    def longer_triangular(self):
        """The start with a triangular map that was fitted for longer, where its closed form leads what was reached."""
        maps = None, longer_map(self.problem, self.start.target_map)
        run = make_run(self.recipe, self.problem, TRIANGULAR, maps=maps)
        score = closed_score(run)
        if score is not None and score > _score(self.best()):
            self.start = run

    def extend(self, run, shares=1, gains=_GAINS_TO_COME):
        """The extrapolated final score of a run, and the run after it was trained for as long again."""
        longer = self.short_run(self.continuation(run), run.history.best_score, shares) or run
        score = longer.history.best_score
        extrapolated_score = score + gains * (score - run.history.best_score)
        return extrapolated_score - (0 if run.has_data_units else _PRICE_OF_FIELDS), longer

    def extend_once_more(self, extrapolated_score, rival):
        """The extrapolated score after twice the steps, where that may still decide against a mixture."""
        gain = (extrapolated_score - self.start.history.best_score) / _GAINS_TO_COME
        if rival.history.best_score > self.start.history.best_score + _MOST_TO_COME * gain:
            return extrapolated_score
        extrapolated_score, self.start = self.extend(self.start, 2, _LAST_GAINS)
        return extrapolated_score

    def continuation(self, run):
        """A run from the weights of another."""
        networks, number = copy.deepcopy(dict(run.networks)), len(self.runs)
        longer = make_run(self.recipe, self.problem, run.kind, run.mixture, like=run, networks=networks, number=number)
        longer.steps, longer.kept_steps = run.steps, run.kept_steps
        if run.history is not None:
            longer.steps += run.history.n_iter
            longer.kept_steps += run.history.best_step
        return longer

    def short_run(self, run, start_score=None, shares=1):
        """The run, trained on shares of the steps; None where it diverged or the user has stopped one."""
        if self.interrupted:
            return None
        settings, share = self.settings, shares * self.share
        if start_score is None and not run.steps:
            start_score = closed_score(run)
        if start_score is None and run.mixture is None and settings.max_time is not None and settings.max_time < _HURRY:
            start_score = -math.inf
        short = dataclasses.replace(
            settings,
            max_iter=max(1, int(share * settings.max_iter)),
            max_time=None if settings.max_time is None else share * settings.max_time,
            verbose=0,
            growth=_FEW_ROUNDS,
        )
        done = self.trained(run, short, name="compare", start_score=start_score)
        self.tell_comparison(run, done)
        return done

    def tell_comparison(self, run, done):
        """The line of a short run that verbose=1 prints."""
        if self.settings.verbose and self.problem.group.rank == 0:
            told = "diverged"
            if done is not None:
                steps = run.steps + run.history.n_iter
                told = f"validation score {_score(run):.4f} after {steps} steps"
            print(f"Compared: {run.kind}{'' if run.mixture is None else ' around a mixture'}, {told}")

    def trained(self, run, settings, **kwargs):
        """The run, trained and entered; None where it diverged."""
        try:
            run.train(settings, **kwargs)
        except FitDivergedError as failure:
            self.failure = failure
            return None
        self.runs.append(run)
        return run

    def mixture_run(self):
        """A short run around the best mixture, in the units of the start or of an affine map; None if none leads."""
        runs = [self.start]
        if not self.start.has_data_units:
            runs += [run for run in self.runs if run.kind == AFFINE[1]][:1]
        best = self.best_mixture(runs)
        if best is None:
            return None
        return self.short_run(
            make_run(self.recipe, self.problem, best[0].kind, best[1], like=best[0], number=len(self.runs))
        )

    def mixture_seconds(self):
        """Seconds for the search of a mixture: a share of the time, or what as many steps are worth."""
        if self.settings.max_time is not None:
            return _MIXTURE_SHARE * self.settings.max_time
        return min(_MIXTURE_SECONDS, _SECONDS_A_STEP * self.settings.max_iter)

    def best_mixture(self, runs):
        """The run in whose units it lives and the best mixture; None if none leads."""
        problem = self.problem
        most = int(min(_MIXTURE_ROWS, max(1000, _ROWS_A_SECOND * self.mixture_seconds())))
        parts, samples, jacobians = (problem.target_train, problem.target_val), [], []
        rows = [by_weight(problem.target_weight, part, most, problem.seed, FOLDS) for part in parts]
        for run in runs:
            samples.append([problem.group.rows(run.x1[r].cpu().double().numpy(), most) for r in rows])
            jacobians.append([problem.group.rows(run.log_jacobian(r), most) for r in rows])
        found = problem.group.first(lambda: problem.checkpoint.made("mixture", lambda: self.search(samples, jacobians)))
        if found is None:
            return None
        run, mixture = runs[found[0]], ClosedForm(*found[1:])
        start = make_run(self.recipe, problem, run.kind, mixture, like=run)
        # one that starts behind what the network has reached, gains less
        score = closed_score(start)
        score = start.likelihood_of(problem.target_val)() if score is None else score
        leads = score > self.start.history.best_score
        return (run, mixture) if leads else None

    def search(self, samples, jacobians):
        """Of the samples (training and held-out rows in the units of a run), the best, and its mixture: parts, kind."""
        finds, seed = [], self.problem.seed
        for number, (rows, logs) in enumerate(zip(samples, jacobians, strict=True)):
            budget = Budget(self.mixture_seconds() / len(samples), bool(self.settings.max_time))
            train, val = rows
            found = find_mixture(train, val, logs, seed, budget)
            if found is not None:
                finds.append((found.scores.mean(), number, found, budget))
        if not finds:
            return None
        _, number, found, budget = max(finds, key=lambda find: find[0])
        return number, refit(found, samples[number][0], seed, budget).parts, found.kind

    def finish(self):
        """Train copies of the start's networks to the end; with dropout where a run without it overfits."""
        if self.interrupted:
            return
        self.n_short = len(self.runs)
        dropout, best = 0.0 if self.recipe.dropout == "auto" else self.recipe.dropout, -math.inf
        while True:
            run = self.long_run(dropout)
            if run is None and not self.steps:
                raise self.failure
            if run is None or not self.goes_on(run, best):
                break
            best = run.history.best_score
            dropout = min(0.5, _MORE * dropout) if dropout else self.first_dropout(run)
            if self.settings.verbose and self.problem.group.rank == 0:
                print(f"It overfits: again with dropout {dropout:.2f}")
        if run is not None and run.history.overfitted and can_average(self):
            average_more(self)

    def goes_on(self, run, best):
        """Whether a run with more dropout follows."""
        ours = self.recipe.dropout == "auto" and self.recipe.network == "mlp"
        better = run.history.overfitted and run.history.best_score > best
        return ours and better and self.left() > _LEAST_LEFT

    def first_dropout(self, run):
        """The dropout after a run without; the steps of its start count as well."""
        return min(_DROPOUT_LIMIT, _DROPOUT_BY_STEP / max(1, run.steps + run.history.best_step))

    def long_run(self, dropout):
        """A run on what is left, from the best weights of the last, with a rate that starts again."""
        last = self.runs[-1] if self.steps else self.start
        done = self.steps if self.settings.max_time is None else 0
        settings = self.settings_of_long_run(max_iter=self.settings.max_iter - done)
        score = closed_score(last) if last.history is None else last.history.best_score
        run = self.trained(self.continuation(last), settings, dropout=dropout, start_score=score)
        self.steps += run.history.n_iter if run is not None else 0
        return run

    def settings_of_long_run(self, max_iter):
        """Those of a training that may take what is left of the time, or so many steps."""
        limit = self.settings.max_time
        if limit is None:
            return dataclasses.replace(self.settings, max_iter=max_iter)
        seconds = max(_SHORT_RUN_SHARE, self.left() - _FINAL_SHARE) * limit
        return dataclasses.replace(self.settings, max_iter=max_iter, max_time=seconds)

    def left(self):
        """The share of the time, or of the steps of long runs, that is left."""
        if self.settings.max_time is None:
            return 1 - self.steps / self.settings.max_iter
        return 1 - self.problem.group.mean(time.perf_counter() - self.began) / self.settings.max_time
