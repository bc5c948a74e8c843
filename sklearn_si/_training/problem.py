"""From a recipe and samples to a problem, and from a problem to a fitted model."""

import contextlib
import dataclasses
import math
import time
import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from .._model.calibration import SHARE_OF_WORK
from .._utils.callbacks import NO_TASKS
from .._utils.weights import effective_rows
from ..couplings import Coupling, Independent, NearestImage, Paired, as_coupling
from ..distributed import Single
from ..interpolants import GAMMAS, Interpolant
from ..preprocessing._conditions import ConditionCodec, columns_of, joined
from ..preprocessing._maps import check_has_density, check_range, check_two_sample_kind
from .base_density import WAY_OUT, check_base, densities_of, fit_base_density
from .calibrated import calibrated
from .checkpoint import NO_CHECKPOINT
from .loop import ROUND, History, Settings
from .losses import FIELDS
from .masked_run import check_conditionals
from .members import check_members, n_trainings, with_members
from .paths import make_path
from .preprocessing_choice import train_best
from .ratio_of_samples import SHARE_OF_RATIO, learns_ratio, with_ratio
from .rounds import rounds_of
from .run import has_likelihood_validation
from .target_density import share_of_transport, wanted_densities, with_target
from .validation_split import split_samples
from .warm_start import WarmStart, warm_run

# Gradient steps of max_iter="auto" for two samples.
_STEPS = 3000
# Gradient steps where `max_time` is the limit.
_NO_LIMIT = 10**9
# Gradient steps of max_iter="auto" for one sample of 1,000 training rows ...
_STEPS_OF_1000 = 600
# ... which grow with this power of the number of rows (5,800 for 50,000) ...
_POWER = 0.58
# ... from this number on ...
_FEWEST = 400
# ... up to this one.
_MOST = 30_000
# Points in a gradient step of batch_size="auto".
_BATCH = 512
# Points in a step for one sample of many rows.
_LARGE_BATCH = 1024
# Training rows that are many.
_MANY_ROWS = 10_000
# Share of `max_time` that a part of a fit has at the least, when the parts before it took longer than theirs.
_LEAST_SHARE = 0.02
# Stale rounds of n_iter_no_change="auto", where no other rule ends the training.
_STALE_ROUNDS = 20
# Steps after which a fit with a condition is validated first: of 300 rows with 50 codes the best weights came after 40
# steps, and those of the hundredth step had lost .4 nats.
_FIRST_ROUND = 10


@dataclasses.dataclass
class Problem:
    """What a fit works on: validated samples, the interpolant, the split, the seed."""

    base: np.ndarray | None  # None for the standard normal
    target: np.ndarray
    interpolant: Interpolant
    coupling: Coupling
    seed: int
    condition: np.ndarray | None  # encoded, one row for each row of the target
    codec: ConditionCodec | None  # what encoded it
    fields: tuple[str, ...]  # names of the learned fields, keys of REGRESSIONS
    base_train: np.ndarray | None
    target_train: np.ndarray
    base_val: np.ndarray | None
    target_val: np.ndarray | None
    warm: WarmStart | None = None
    tasks: Any = NO_TASKS  # what callbacks are told
    density: Any = None  # of the base, where it is fitted before the fields
    awaits_density: bool = False  # whether it is fitted after them
    group: Any = dataclasses.field(default_factory=Single)  # the processes that fit it together
    checkpoint: Any = NO_CHECKPOINT
    interrupted: bool = False  # by the user, between two trainings
    n_steps: int = 0  # of all its trainings
    limits: tuple = (1, None)  # steps and seconds of a long training
    began: float = dataclasses.field(default_factory=time.perf_counter)  # when the fit did
    base_grid: Any = None  # of repeated values that have noise in the samples
    target_grid: Any = None
    base_weight: np.ndarray | None = None  # of the rows, of mean one; None where all weigh the same
    target_weight: np.ndarray | None = None
    names: Any = None  # of the columns
    support: Any = None  # where the columns live; the samples are then on the line already
    trainings: list = dataclasses.field(default_factory=list)  # the name and the history of each, in order

    def begun(self, name):
        """The empty history of the next training, which is kept if that diverges as well."""
        self.trainings.append((name, History()))
        return self.trainings[-1][1]

    def rounds(self):
        """The rounds of all trainings in order, after those that a warm start continues from."""
        return rounds_of(self.trainings, [] if self.warm is None else self.warm.history.rounds)

    def left(self, max_time):
        """Seconds that a limit leaves to the rest of the fit; a little at least, so that every part takes a step."""
        seconds = self.group.mean(time.perf_counter() - self.began) + self.checkpoint.seconds
        return max(max_time - seconds, _LEAST_SHARE * max_time)

    def limited(self, settings, began):
        """The settings with what is left of their time after a moment; a little at least, as in `left`."""
        if settings.max_time is None:
            return settings
        spent = self.group.mean(time.perf_counter() - began)
        return dataclasses.replace(settings, max_time=max(settings.max_time - spent, _LEAST_SHARE * settings.max_time))

    @property
    def two_samples(self):
        """Whether the base is a sample."""
        return self.base is not None

    @property
    def n_effective(self):
        """The number of equal rows that would tell as much of the target as its training rows."""
        if self.target_weight is None:
            return self.group.total(len(self.target_train))
        return effective_rows(len(self.target_train), self.target_weight[self.target_train])

    @property
    def is_weighted(self):
        """Whether some rows weigh more than others."""
        return self.base_weight is not None or self.target_weight is not None

    @property
    def is_forecast(self):
        """Whether the process starts from given rows."""
        return self.fields == ("forecast",)

    @contextlib.contextmanager
    def interruptible(self, is_learned, told):
        """As that of the checkpoint, which says what the arguments are; in a group, Ctrl-C waits for a training."""

        def can_be_kept():
            self.interrupted = self.group.size == 1 and bool(is_learned())
            return self.interrupted

        with self.checkpoint.interruptible(can_be_kept, told):
            yield


def make_problem(recipe, X0, X1, condition, checkpoint, warm=None, weights=(None, None), names=None):
    """Check a recipe against the samples and split off validation rows.

    Parameters
    ----------
    recipe : Recipe
    X0, X1 : ndarray
        The samples of fit; the last given is the target.
    condition : array-like or None
    checkpoint : Checkpoint
    warm : WarmStart, default=None
    weights : tuple of (ndarray or None)
        Of the rows of base and target, of mean one; None where all weigh the same.
    names : sequence, default=None
        Of the columns, for errors; None says their numbers.
    """
    base, target = (None, X0) if X1 is None else (X0, X1)
    check_range(X0, "X" if base is None else "X0", names)
    if base is not None:
        check_range(X1, "X1", names)
    if recipe.forecasts:
        _check_forecast(recipe, X1, condition)
    interpolant = make_path(recipe, base is not None)
    coupling = _coupling(recipe, base, target, interpolant)
    if base is not None:
        check_two_sample_kind(recipe.preprocessing)
    _check_learned(recipe, interpolant)
    fields = ("forecast",) if recipe.forecasts else _learned_fields(recipe, interpolant)
    if recipe.conditionals is not None:
        check_conditionals(recipe, base, target, interpolant)
        fields = ("masked",)
    check_members(recipe, base, interpolant)
    codec, encoded = _encode(recipe, condition, len(target))
    _check_densities(recipe, interpolant, base, target, names)
    base_train, target_train, base_val, target_val = split_samples(recipe, coupling, base, target, checkpoint.seed)
    return Problem(
        base=base,
        target=target,
        interpolant=interpolant,
        coupling=coupling,
        seed=checkpoint.seed,
        condition=encoded,
        codec=codec,
        fields=fields,
        base_train=base_train,
        target_train=target_train,
        base_val=base_val,
        target_val=target_val,
        warm=warm,
        checkpoint=checkpoint,
        base_weight=weights[0],
        target_weight=weights[1],
        names=names,
    )


def _check_densities(recipe, interpolant, base, target, names):
    """Refuse rows that have no density, where one is promised."""
    if recipe.forecasts or interpolant.path_type == "mirror":
        return  # transport only
    if base is None:
        check_has_density(target, names=names)
    elif densities_of(recipe.base_density, recipe.target_density) != (None, False):
        check_has_density(target, "X1", WAY_OUT, names)


def _check_forecast(recipe, X1, condition):
    """The parameters that a process from given rows rules out."""
    if X1 is None or condition is not None:
        raise ValueError(
            "start='condition' takes pairs, fit(X0, X1) with row i of X0 the start of row i of X1, and no other "
            "condition."
        )
    if recipe.interpolant != "linear" or recipe.gamma not in ("auto", "brownian") or recipe.fields != "auto":
        raise ValueError(
            "start='condition' needs interpolant='linear', gamma='auto' and fields='auto': got "
            f"{recipe.interpolant!r}, {recipe.gamma!r} and {recipe.fields!r}."
        )


def _check_learned(recipe, interpolant):
    """Refuse a noise whose max-min is not written down: 2303.08797, (3.39), ties gamma to the diffusion."""
    if not interpolant.is_learned or not interpolant.has_noise:
        return
    if interpolant.noise is not GAMMAS["brownian"] or not recipe.learns_denoiser:
        raise ValueError(
            "A learned interpolant takes gamma=None (InterpolantFlow), or gamma='brownian' with InterpolantDiffusion: "
            f"got gamma={recipe.gamma!r}."
        )
    if recipe.fields not in ("auto", "b+eta"):
        raise ValueError(f"A learned interpolant with noise learns b+eta: got fields={recipe.fields!r}, use 'auto'.")


def _learned_fields(recipe, interpolant):
    """Names of the fields to learn: what the interpolant needs, or what `fields` says where it leaves a choice."""
    name = recipe.fields
    if interpolant.path_type == "mirror":
        if name != "auto":
            raise ValueError(f"Got fields={name!r}, but interpolant='mirror' learns the denoiser alone: use 'auto'.")
        return ("denoiser",)
    if interpolant.path_type == "one-sided":
        if name not in ("auto", "b"):
            raise ValueError(
                f"Got fields={name!r}, but with a normal base the velocity gives all other fields: use 'auto'."
            )
        return ("velocity",)
    name = ("b+eta" if recipe.learns_denoiser else "b") if name == "auto" else name
    if name != "b" and not interpolant.has_noise:
        raise ValueError(
            f"fields={name!r} needs a latent noise, but gamma is None: use gamma='brownian' or fields='b'."
        )
    return FIELDS[name]


def _encode(recipe, condition, n_rows):
    """The codec of the condition and its encoded rows, (None, None) without one."""
    droppable = recipe.condition_dropout > 0
    if recipe.guidance != 1 and not droppable:
        raise ValueError(
            f"Got guidance={recipe.guidance:g}, which needs a model trained with dropped conditions: set "
            "condition_dropout (0.1 is usual) and fit with condition=."
        )
    if condition is None:
        if droppable:
            raise ValueError(f"Got condition_dropout={recipe.condition_dropout:g}, but fit was given no condition.")
        if recipe.condition_kinds:
            raise ValueError(f"Got condition_kinds={recipe.condition_kinds!r}, but fit was given no condition.")
        return None, None
    codec = ConditionCodec(droppable, recipe.condition_kinds).fit(condition)
    encoded = codec.transform(condition, n_rows)
    return codec, encoded


def _coupling(recipe, base, target, interpolant):
    """The coupling of a recipe, checked against the samples and tied to the path."""
    if interpolant.circular:
        return NearestImage(interpolant)
    chosen = "paired" if recipe.forecasts else recipe.coupling
    coupling = as_coupling(chosen)
    # x0 must tell nothing of x1: else the velocity does not give the score
    if base is None and not isinstance(coupling, Independent):
        raise ValueError(
            f"coupling={chosen!r} pairs the rows of two samples, but fit was given one: pass X1 as well. (With a "
            "base of normal rows, fit(X0, X) and base_density='standard_normal'.)"
        )
    if isinstance(coupling, Paired) and len(base) != len(target):
        raise ValueError(
            f"coupling='paired' pairs row i with row i, but X0 has {len(base)} rows and X1 has {len(target)}: "
            "use coupling='independent'."
        )
    if coupling.changes_marginals and densities_of(recipe.base_density, recipe.target_density) != (None, False):
        raise ValueError(
            f"{type(coupling).__name__}(unbalanced=...) lets mass appear and vanish, so that the rows of X0 and X1 are "
            "not drawn from the ends of the flow, and no density of the base leads to that of X1: set "
            "base_density=None."
        )
    return coupling.tied_to(interpolant)


def _facts(recipe, problem, names, told):
    """What has to be the same in all processes."""
    warm = problem.warm
    facts = {"features": problem.target.shape[1], "samples": 1 + problem.two_samples, "fields": problem.fields}
    facts |= {"held-out rows": problem.target_val is not None, "names": names}
    facts["condition"] = None if problem.codec is None else (problem.codec.table_.names, problem.codec.kinds_)
    facts |= told
    weights = warm and [float(p.double().sum()) for p in warm.model.velocity.state_dict().values()]
    facts["fitted before"] = warm and (weights, repr(vars(warm.model.target_map)))
    return facts


def share_problem(recipe, problem, condition, names, told):
    """Agree with the other processes of the group on what has to be the same in all.

    Parameters
    ----------
    recipe : Recipe
    problem : Problem
        Changed in place.
    condition : array-like or None
        That of fit.
    names : list of str
        Names of the columns.
    told : dict
        The parameters, as texts.
    """
    problem.group.agree(_facts(recipe, problem, names, told))
    problem.group.weigh(len(problem.target_train))
    problem.seed = problem.group.first(lambda: problem.seed)
    if problem.codec is not None:
        share_codec(recipe, problem, condition)


def share_codec(recipe, problem, condition):
    """Encode the condition by the rows of all processes."""
    columns = joined(problem.group.objects(columns_of(condition)))
    codec = ConditionCodec(problem.codec.droppable, problem.codec.kinds)
    problem.codec = codec.fit_columns(columns)
    problem.condition = problem.codec.transform(condition, len(problem.target))


def fit_problem(recipe, problem):
    """Fit base density, preprocessing and networks.

    Parameters
    ----------
    recipe : Recipe
    problem : Problem

    Returns
    -------
    model : FittedModel
    record : dict
        How the training went, by the name of the fitted attribute.
    """
    settings = _settings(recipe, problem)
    if settings.max_time is not None:
        settings.max_time *= 1 - SHARE_OF_WORK - (SHARE_OF_RATIO if learns_ratio(problem) else 0)
        settings.max_time /= 1 if problem.two_samples else n_trainings(recipe)
    spec, has_target = wanted_densities(recipe, problem)
    rows = None if (spec, has_target) == (None, False) else problem.group.rows(problem.base)
    check_base("flow" if has_target else spec, rows, problem.names)
    is_flow, problem.awaits_density = spec == "flow", spec == "flow" or has_target
    share = share_of_transport(spec, has_target)
    if settings.max_time is not None:
        settings.max_time *= share
    problem.limits = settings.max_iter, settings.max_time
    if not is_flow:
        weight = problem.base_weight
        problem.density = problem.group.first(lambda: fit_base_density(spec, recipe, problem, rows, weight))
    with problem.group.together():
        run = warm_run(recipe, problem)
    if run is None:
        run = train_best(recipe, problem, settings)
    else:
        with problem.interruptible(lambda: True, "before its training: the networks are those of the fit before."):
            run.train(settings)
    history = run.history or History(converged=True)
    _warn_unconverged(recipe, problem, history)
    density = problem.density
    if is_flow:
        with problem.interruptible(lambda: True, "in the density of its base: `score_samples` has none to start from."):
            with problem.group.together():
                rows, weight = run.base_rows()
            density = fit_base_density(spec, recipe, problem, rows, weight, share)
    model, record = run.fitted(history, density)
    model = with_ratio(problem, model, settings.max_iter, recipe.max_time)
    model = calibrated(run, model, settings.batch_size * problem.n_steps)
    model = with_members(recipe, problem, settings, run, model)
    model = with_target(recipe, problem, model, fit_problem) if has_target else model
    return model, record | {"history_": problem.rounds()}


def _warn_unconverged(recipe, problem, history):
    """Warn of a score that was still rising, where a tolerance was asked for."""
    wanted = recipe.early_stopping and recipe.tol > 0
    if wanted and not (history.converged or history.interrupted or problem.interrupted):
        warnings.warn(
            f"The validation score was still rising by more than tol={recipe.tol:g} after {history.n_iter} steps: "
            "raise max_iter or max_time.",
            ConvergenceWarning,
            stacklevel=5,
        )


def _settings(recipe, problem):
    times = recipe.time_distribution
    if times == "auto":
        times = "logit-normal" if problem.two_samples else "data-end"
    own = ("time_distribution", "growth", "first_round", "optimizer")
    names = [f.name for f in dataclasses.fields(Settings) if f.name not in own]
    values = {name: getattr(recipe, name) for name in names}
    judged = has_likelihood_validation(problem)
    if values["max_iter"] == "auto":
        values["max_iter"] = _auto_steps(problem) if recipe.max_time is None else _NO_LIMIT
    if values["batch_size"] == "auto":
        many = problem.n_effective >= _MANY_ROWS
        values["batch_size"] = _LARGE_BATCH if judged and many else _BATCH
    values["batch_size"] = max(1, values["batch_size"] // problem.group.size)
    if values["n_iter_no_change"] == "auto":
        values["n_iter_no_change"] = math.inf if judged else _STALE_ROUNDS
    patient = recipe.n_iter_no_change == "auto"  # a given patience counts rounds of the usual length
    first = _FIRST_ROUND if judged and patient and problem.codec is not None else ROUND
    return Settings(**values, time_distribution=times, first_round=first)


def _auto_steps(problem):
    if problem.interpolant.is_learned:
        return _STEPS * 3 // 2  # a third of them with the path
    if problem.two_samples or problem.interpolant.path_type != "one-sided":
        return _STEPS
    steps = round(_STEPS_OF_1000 * (problem.n_effective / 1000) ** _POWER)
    return min(max(steps, _FEWEST), _MOST)
