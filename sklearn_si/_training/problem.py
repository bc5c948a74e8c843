"""From the parameters of an estimator and its samples to fitted attributes."""

import contextlib
import dataclasses
import math
import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from .._model.fields import FIELDS
from .._utils.callbacks import NO_TASKS
from .._utils.tensors import FIT_STREAM
from ..couplings import COUPLINGS
from ..distributed import Single
from ..exceptions import ProcessGroupError
from ..interpolants import GAMMAS, make_interpolant
from ..preprocessing._conditions import ConditionCodec, columns_of
from ..preprocessing._maps import check_has_density, check_range, check_two_sample_kind
from .base_density import check_base, fit_base_density
from .checkpoint import NO_CHECKPOINT, open_checkpoint, told_params
from .loop import History, Settings
from .run import Run, can_race
from .selection import train_best

# Gradient steps of max_iter="auto": of two samples, and with max_time, where time is the limit. Of one sample it is a
# power of the number of training rows: 600 for 1,000 rows, 5,800 for 50,000, 30,000 at the most.
_STEPS, _NO_LIMIT = 3000, 10**9
_STEPS_OF_1000, _POWER, _FEWEST, _MOST = 600, 0.58, 400, 30_000
# Points in a step of batch_size="auto": more for one sample of many rows.
_BATCH, _LARGE_BATCH, _MANY_ROWS = 512, 1024, 10_000
# Stale rounds of n_iter_no_change="auto", where no other rule ends the training.
_STALE_ROUNDS = 20
# Rows held out at the least, where this is not more than a fifth of them.
_HELD = 50


@dataclasses.dataclass
class Plan:
    """What a fit works on: validated samples, the interpolant, the split, the seed."""

    X0: np.ndarray | None  # the base; None for the standard normal
    X1: np.ndarray
    interpolant: object
    coupling: object
    seed: int
    condition: np.ndarray | None  # encoded, one row for each row of X1
    codec: object  # what encoded it
    fields: tuple  # names of the learned fields, keys of LOSSES
    train0: np.ndarray | None
    train1: np.ndarray
    held0: np.ndarray | None
    held1: np.ndarray | None
    tasks: object = NO_TASKS  # what callbacks are told
    density: object = None  # of the base, where it is fitted before the fields
    awaits_density: bool = False  # whether it is fitted after them
    group: Any = dataclasses.field(default_factory=Single)  # the processes that fit it together
    checkpoint: Any = NO_CHECKPOINT
    interrupted: bool = False  # by the user, between two trainings

    @property
    def two_samples(self):
        """Whether the base is a sample."""
        return self.X0 is not None

    @contextlib.contextmanager
    def interruptible(self, is_learned, told):
        """As that of the checkpoint, which says what the arguments are; in a group, Ctrl-C ends the fit."""

        def can_be_kept():
            self.interrupted = self.group.size == 1 and bool(is_learned())
            return self.interrupted

        with self.checkpoint.interruptible(can_be_kept, told):
            yield


def open_fit(estimator, X0, X1, condition, group):
    """The checkpoint of a fit."""
    samples, before = {"X0": X0, "X1": X1, "condition": condition}, None
    if estimator.warm_start and hasattr(estimator, "network_"):
        before = [values.cpu().numpy() for values in estimator.network_.state_dict().values()]
    checkpoint = open_checkpoint(estimator, samples, before)
    if checkpoint.is_kept:
        group.refuse("A model with a checkpoint")
    return checkpoint


def make_plan(estimator, X0, X1, condition, checkpoint):
    """Check the parameters against the samples and split off validation rows."""
    base, target = (None, X0) if X1 is None else (X0, X1)
    check_range(X0, "X" if base is None else "X0")
    if base is not None:
        check_range(X1, "X1")
    forecast = _check_start(estimator, X1, condition)
    interpolant = make_interpolant(
        estimator.interpolant, estimator.gamma, estimator.gamma_scale,
        two_samples=base is not None, latent_noise=estimator._learns_denoiser,
    )  # fmt: skip
    coupling = "paired" if forecast else estimator.coupling
    _check_coupling(coupling, base, target)
    coupling = COUPLINGS[coupling] if isinstance(coupling, str) else coupling
    if hasattr(coupling, "tied_to"):
        coupling = coupling.tied_to(interpolant)
    if base is not None:
        check_two_sample_kind(estimator.preprocessing)
    _check_learned(estimator, interpolant)
    fields = ("forecast",) if forecast else _learned_fields(estimator, interpolant)
    codec, encoded = _encode(estimator, condition, len(target))
    if forecast or interpolant.kind == "mirror":
        pass  # transport only: no density is promised
    elif base is None:
        check_has_density(target)
    elif estimator.base_density is not None:
        check_has_density(target, "X1", "drop them, or set base_density=None if transport is all that is needed")
    seed = checkpoint.seed
    rng = np.random.default_rng([seed, FIT_STREAM])
    # A sample of two rows has none to spare: one row has no spread.
    enough = min(len(sample) for sample in (base, target) if sample is not None) > 2
    fraction = estimator.validation_fraction if estimator.early_stopping and enough else None
    train1, held1 = estimator._split_rows(len(target), fraction, rng)
    if base is None:
        train0 = held0 = None
    elif getattr(coupling, "row_by_row", False):
        train0, held0 = train1, held1
    else:
        train0, held0 = split(len(base), fraction, rng)
    rows = train0, train1, held0, held1
    return Plan(base, target, interpolant, coupling, seed, encoded, codec, fields, *rows, checkpoint=checkpoint)


def _check_start(estimator, X1, condition):
    """Whether the model starts from given rows; the parameters that it rules out."""
    if getattr(estimator, "start", "base") == "base":
        return False
    if X1 is None or condition is not None:
        raise ValueError(
            "start='condition' takes pairs, fit(X0, X1) with row i of X0 the start of row i of X1, and no other "
            "condition."
        )
    if estimator.interpolant != "linear" or estimator.gamma not in ("auto", "brownian") or estimator.fields != "auto":
        raise ValueError(
            "start='condition' needs interpolant='linear', gamma='auto' and fields='auto': got "
            f"{estimator.interpolant!r}, {estimator.gamma!r} and {estimator.fields!r}."
        )
    return True


def _check_learned(estimator, interpolant):
    """Refuse a noise whose max-min is not written down: 2303.08797, (3.39), ties gamma to the diffusion."""
    if not hasattr(interpolant, "build") or not interpolant.has_noise:
        return
    if interpolant.noise is not GAMMAS["brownian"] or not estimator._learns_denoiser:
        raise ValueError(
            "A learned interpolant takes gamma=None (InterpolantFlow), or gamma='brownian' with InterpolantDiffusion: "
            f"got gamma={estimator.gamma!r} in {type(estimator).__name__}."
        )
    if estimator.fields not in ("auto", "b+eta"):
        raise ValueError(f"A learned interpolant with noise learns b+eta: got fields={estimator.fields!r}, use 'auto'.")


def _learned_fields(estimator, interpolant):
    """Names of the fields to learn: what the interpolant needs, or what `fields` says where it leaves a choice."""
    name = estimator.fields
    if interpolant.kind == "mirror":
        if name != "auto":
            raise ValueError(f"Got fields={name!r}, but interpolant='mirror' learns the denoiser alone: use 'auto'.")
        return ("denoiser",)
    if interpolant.kind == "one-sided":
        if name not in ("auto", "b"):
            raise ValueError(
                f"Got fields={name!r}, but with a normal base the velocity gives all other fields: use 'auto'."
            )
        return ("velocity",)
    name = ("b+eta" if estimator._learns_denoiser else "b") if name == "auto" else name
    if name != "b" and not interpolant.has_noise:
        raise ValueError(
            f"fields={name!r} needs a latent noise, but gamma is None: use gamma='brownian' or fields='b'."
        )
    return FIELDS[name]


def _encode(estimator, condition, n_rows):
    """The codec of the condition and its encoded rows, (None, None) without one."""
    droppable = estimator.condition_dropout > 0
    if estimator.guidance != 1 and not droppable:
        raise ValueError(
            f"Got guidance={estimator.guidance:g}, which needs a model trained with dropped conditions: set "
            "condition_dropout (0.1 is usual) and fit with condition=."
        )
    if condition is None:
        if droppable:
            raise ValueError(f"Got condition_dropout={estimator.condition_dropout:g}, but fit was given no condition.")
        if estimator.condition_kinds:
            raise ValueError(f"Got condition_kinds={estimator.condition_kinds!r}, but fit was given no condition.")
        return None, None
    codec = ConditionCodec(droppable, estimator.condition_kinds).fit(condition)
    encoded = codec.transform(condition, n_rows)
    return codec, encoded


def _check_coupling(coupling, base, target):
    if isinstance(coupling, type):
        raise ValueError(
            f"Got the class coupling={coupling.__name__}, but expected an instance: {coupling.__name__}()."
        )
    if hasattr(coupling, "check"):
        coupling.check()
    # x0 must tell nothing of x1: else the velocity does not give the score
    if base is None and coupling not in ("independent", COUPLINGS["independent"]):
        raise ValueError(
            f"coupling={coupling!r} pairs the rows of two samples, but fit was given one: pass X1 as well. (With a "
            "base of normal rows, fit(X0, X) and base_density='standard_normal'.)"
        )
    if coupling == "paired" and len(base) != len(target):
        raise ValueError(
            f"coupling='paired' pairs row i with row i, but X0 has {len(base)} rows and X1 has {len(target)}: "
            "use coupling='independent'."
        )


def split(n, fraction, rng):
    """Numbers of the training rows and of the held-out rows (None without a fraction)."""
    if fraction is None:
        return np.arange(n), None
    order = rng.permutation(n)
    # few rows judge badly: up to _HELD of them, or a fifth, are held out at the least
    held = min(n - 2, max(1, round(fraction * n), min(_HELD, n // 5)))
    return order[held:], order[:held]


def _facts(estimator, plan):
    """What has to be the same in all processes."""
    facts = {"features": plan.X1.shape[1], "samples": 1 + plan.two_samples, "fields": plan.fields}
    facts |= {"held-out rows": plan.held1 is not None, "names": list(getattr(estimator, "feature_names_in_", ()))}
    facts["condition"] = None if plan.codec is None else tuple(plan.codec.kinds_)
    facts |= told_params(estimator)
    warm = estimator.warm_start and hasattr(estimator, "network_")
    weights = [float(p.double().sum()) for p in estimator.network_.state_dict().values()] if warm else None
    facts["fitted before"] = warm and (weights, repr(vars(estimator.preprocessing_)))
    return facts


def share_plan(estimator, plan, condition):
    """Agree with the other processes of the group on what has to be the same in all."""
    facts = _facts(estimator, plan)
    others = plan.group.objects(facts)
    unlike = sorted({name for other in others for name in facts if other.get(name) != facts[name]})
    if plan.group.any(bool(unlike)):
        raise ProcessGroupError(
            f"The {plan.group.size} processes of the torch.distributed group fit different models: they differ in "
            f"{unlike}. Give all the same parameters and rows of the same columns, or fit within "
            "`with sklearn_si.distributed.alone():`."
        )
    plan.group.weigh(len(plan.train1))
    plan.seed = plan.group.first(lambda: plan.seed)
    if plan.codec is not None:
        parts = plan.group.objects(columns_of(condition))
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        plan.codec = ConditionCodec(plan.codec.droppable, plan.codec.kinds).fit_columns(columns)
        plan.condition = plan.codec.transform(condition, len(plan.X1))


def fit_plan(estimator, plan):
    """Fit base density, preprocessing and networks; the fitted attributes as a dict."""
    settings = _settings(estimator, plan)
    # an encoding-decoding path passes through a normal law, from which either end's density follows
    known_middle = getattr(plan.interpolant, "crossing", None) is not None
    wants_density = plan.two_samples and plan.fields != ("forecast",) and not known_middle
    spec, density = estimator.base_density if wants_density else None, None
    rows = None if spec is None else plan.group.rows(plan.X0)
    check_base(spec, rows)
    plan.awaits_density = spec == "flow"
    if spec == "flow" and settings.max_time is not None:
        settings.max_time /= 2
    if spec != "flow":
        density = plan.group.first(
            lambda: fit_base_density(spec, estimator, rows, plan.seed, plan.tasks, plan.checkpoint)
        )
        plan.density = density
    with plan.group.together():
        run = _warm_run(estimator, plan)
    if run is None:
        run = train_best(estimator, plan, settings)
    else:
        with plan.interruptible(lambda: True, "before its training: the networks are those of the fit before."):
            run.train(settings)
    history = run.history or History(converged=True)
    if (
        not history.converged
        and estimator.early_stopping
        and estimator.tol > 0
        and not (history.interrupted or plan.interrupted)
    ):
        warnings.warn(
            f"The validation score was still rising by more than tol={estimator.tol:g} after {history.n_iter} steps: "
            "raise max_iter or max_time.",
            ConvergenceWarning,
            stacklevel=4,
        )
    if spec == "flow":
        with plan.interruptible(lambda: True, "in the density of its base: `score_samples` has none to start from."):
            with plan.group.together():
                rows = run.base_rows()
            density = fit_base_density(spec, estimator, rows, plan.seed, plan.tasks, plan.checkpoint)
    return run.attributes(history, density)


def _settings(estimator, plan):
    law = estimator.time_law
    if law == "auto":
        law = "logit-normal" if plan.two_samples else "data-end"
    names = [f.name for f in dataclasses.fields(Settings) if f.name not in ("time_law", "growth")]
    values = {name: getattr(estimator, name) for name in names}
    if values["max_iter"] == "auto":
        values["max_iter"] = _auto_steps(plan) if estimator.max_time is None else _NO_LIMIT
    if values["batch_size"] == "auto":
        many = plan.group.total(len(plan.train1)) >= _MANY_ROWS
        values["batch_size"] = _LARGE_BATCH if can_race(plan) and many else _BATCH
    values["batch_size"] = max(1, values["batch_size"] // plan.group.size)
    if values["n_iter_no_change"] == "auto":
        values["n_iter_no_change"] = math.inf if can_race(plan) else _STALE_ROUNDS
    return Settings(**values, time_law=law)


def _auto_steps(plan):
    if hasattr(plan.interpolant, "build"):
        return _STEPS * 3 // 2  # a third of them with the path
    if plan.two_samples or plan.interpolant.kind != "one-sided":
        return _STEPS
    steps = round(_STEPS_OF_1000 * (plan.group.total(len(plan.train1)) / 1000) ** _POWER)
    return min(max(steps, _FEWEST), _MOST)


def _warm_run(estimator, plan):
    """With warm_start, a run that goes on from the fitted networks and maps; else None."""
    if not (estimator.warm_start and hasattr(estimator, "network_")):
        return None
    _check_warm_start(estimator, plan)
    if hasattr(plan.interpolant, "build"):  # the path goes on as it was left
        plan.interpolant = estimator.interpolant_
    maps = estimator.base_preprocessing_, estimator.preprocessing_
    run = Run(estimator, plan, None, maps=maps, networks=dict(estimator._learned_))
    run.earlier = History(estimator.n_iter_, estimator.loss_curve_, estimator.validation_scores_ or [])
    return run


def _check_warm_start(estimator, plan):
    """Refuse rows that the fitted networks cannot go on with."""
    n_old, n_new = estimator.preprocessing_.n_features, plan.X1.shape[1]
    way_out = "set warm_start=False, or fit a clone."
    if n_old != n_new:
        raise ValueError(
            f"warm_start=True goes on from networks of {n_old} features, but X0 has {n_new} features: {way_out}"
        )
    if plan.two_samples != (estimator.base_preprocessing_ is not None):
        old, new = ("one", "two") if plan.two_samples else ("two", "one")
        raise ValueError(
            f"warm_start=True goes on from a fit of {old} sample(s), but fit was given {new} sample(s): {way_out}"
        )
    n_old = 0 if estimator.condition_codec_ is None else estimator.condition_codec_.n_outputs_
    n_new = 0 if plan.codec is None else plan.codec.n_outputs_
    if n_old != n_new or set(estimator._learned_) != set(plan.fields):
        raise ValueError(
            f"warm_start=True goes on from fields {tuple(estimator._learned_)} with {n_old} encoded condition columns, "
            f"but this fit needs {plan.fields} with {n_new}: {way_out}"
        )
