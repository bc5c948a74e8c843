"""What test_distributed.py runs in each of two processes: fits of shards, and what comes of them in a file a rank."""

import contextlib
import io
import json
import os
import pathlib
import signal
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import torch
from sklearn.preprocessing import PowerTransformer
from torch import distributed as dist

from sklearn_si import (
    InterpolantClassifier,
    InterpolantDiffusion,
    InterpolantFlow,
    InterpolantRegressor,
    MultimarginalFlow,
    SchroedingerBridge,
    TransformedDensity,
)
from sklearn_si._training import checkpoint as _checkpoint
from sklearn_si._training import optimizer as _weights
from sklearn_si.distributed import alone, current_group
from sklearn_si.exceptions import ProcessGroupError
from sklearn_si.networks import MLP
from sklearn_si.outliers import DensityOutlierDetector
from sklearn_si.resampling import DensityRatioWeights, TableResampler
from sklearn_si.tables import InterpolantImputer, TableCodec, TableSynthesizer

folder = pathlib.Path(sys.argv[1])
dist.init_process_group("gloo")
rank = dist.get_rank()
RNG = np.random.default_rng(0)
X = RNG.normal(size=(801, 2)) @ np.array([[1.0, 0.5], [0.0, 2.0]])
X[:400] += 3.0  # sorted, so that the shards have different distributions
TEST = X[::5]
SMALL = {"hidden_layer_sizes": (16,), "random_state": 0}
mine = np.array_split(X, 2)[rank]


class Failing:
    """A callback that fails in the middle of training."""

    def setup(self, estimator, context):
        pass

    teardown = setup

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        if context.task_name == "round":
            raise RuntimeError("no room left")


class Asking(Failing):
    """A callback that asks for the model."""

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        assert fitted_estimator is None or np.isfinite(fitted_estimator.score(TEST))


def weights(model):
    return torch.cat([v.double().flatten() for v in model.network_.state_dict().values()]).tolist()


def refused(call):
    try:
        call()
    except ProcessGroupError as error:
        return str(error)
    return None


def fits():
    report = {"rows": len(mine)}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        flow = InterpolantFlow(max_iter=200, verbose=1, **SMALL).fit(mine)
    report["flow"] = {"weights": weights(flow), "n_iter": flow.n_iter_, "score": flow.score(TEST)}
    report["scores"] = flow.validation_scores_
    report["printed"] = printed.getvalue()
    # rank 1 has no seed of its own to follow: the first process' is everybody's
    timed = InterpolantFlow(hidden_layer_sizes=(16,), max_time=0.5, random_state=None).fit(mine)
    report["timed"] = {"weights": weights(timed), "n_iter": timed.n_iter_}
    labels = np.full(len(mine), "ab"[rank])
    given = InterpolantFlow(max_iter=20, **SMALL).fit(mine, condition=labels)
    report["given"] = {"weights": weights(given), "columns": given.condition_codec_.n_outputs_}
    bridge = InterpolantDiffusion(max_iter=20, **SMALL).fit(mine, mine[: len(mine) // 2] + 1.0)
    report["bridge"] = {"weights": weights(bridge), "score": bridge.score(TEST), "rows": len(bridge.base_sample_)}
    shard = RNG.normal(size=(1400, 2)) if rank == 0 else RNG.normal(size=(200, 2)) + 8.0
    drifted = []
    plain = _weights.AdamWithEMA.release
    _weights.AdamWithEMA.release = lambda self, together: (drifted.append(self.flat.tolist()), plain(self, together))
    unequal = InterpolantFlow(max_iter=300, **SMALL).fit(shard)
    _weights.AdamWithEMA.release = plain
    # what each process has trained, before the first one's weights are taken
    report["unequal"] = {"trained": drifted, "far": float((unequal.sample(4000)[:, 0] > 4).mean())}
    if hasattr(unequal, "set_callbacks"):
        told = InterpolantFlow(max_iter=100, **SMALL)
        told = told if rank else told.set_callbacks(Asking())
        report["callback in one"] = told.fit(mine).n_iter_
        failing = InterpolantFlow(max_iter=100, **SMALL)
        failing = failing if rank else failing.set_callbacks(Failing())
        try:
            failing.fit(mine)
        except Exception as error:
            report["failing callback"] = f"{type(error).__name__}: {error}"
    with alone():
        with ThreadPoolExecutor(1) as pool:
            report["group of a thread"] = pool.submit(current_group).result().size
        report["alone"] = InterpolantFlow(max_iter=3, **SMALL).fit(mine[:, : 1 + rank]).n_features_in_
    report["refused"] = [
        refused(lambda: InterpolantFlow(**SMALL).fit(mine[:, : 1 + rank])),
        refused(lambda: InterpolantFlow(max_iter=5 + rank, hidden_layer_sizes=(16,)).fit(mine)),
        refused(lambda: InterpolantFlow(**SMALL).fit(pd.DataFrame(mine, columns=["a", "b"][:: 1 - 2 * rank]))),
        refused(
            lambda: (
                InterpolantFlow(**SMALL).fit(mine, condition=np.arange(2 * len(mine)).reshape(-1, 2) % 2 > 0)
                if rank
                else InterpolantFlow(**SMALL).fit(mine, condition=mine[:, 0])
            )
        ),
        refused(lambda: TableSynthesizer().fit(pd.DataFrame(mine, columns=["a", "b"][:: 1 - 2 * rank]))),
        refused(lambda: TableSynthesizer(max_iter=5 + rank).fit(mine)),
        refused(lambda: TransformedDensity(PowerTransformer(), InterpolantFlow(max_iter=5 + rank)).fit(mine)),
        refused(lambda: TableResampler().fit_resample(mine, mine[:, 0] > 0)),
    ]
    poisoned = mine.copy()
    poisoned[0, 0] = np.nan if rank else 0.0
    try:
        InterpolantFlow(**SMALL).fit(poisoned)
    except ValueError as error:
        report["poisoned"] = f"{type(error).__name__}: {error}"
    try:
        TableSynthesizer().fit(pd.DataFrame(mine, columns=["a", "a"]))
    except ValueError as error:
        report["failed alone"] = f"{type(error).__name__}: {error}"
    report["every"] = every_estimator()
    made = {type(make()).__name__ for make, _, _ in EVERY.values()}
    report["kinds"] = [*made, type(flow).__name__, type(bridge).__name__]
    report["mapped"] = mapped()
    report["failing step"] = failing_step()
    report["resumed"] = resumed()
    report["stopped"] = stopped_while_waiting()
    (folder / f"{rank}.json").write_text(json.dumps(report))


TINY = {"max_iter": 20, "hidden_layer_sizes": (4,), "random_state": 0}
FLOW = InterpolantFlow(max_iter=20, hidden_layer_sizes=(4,))
Y = X[:, 0] + RNG.normal(size=len(X))
LABELS = np.where(Y > 1.0, "above", "below")
FRAME = pd.DataFrame({"a": X[:, 0], "kind": pd.Categorical(LABELS), "b": np.where(Y > 3, np.nan, X[:, 1])})
OTHER = 0.5 * X + 1.0
WEIGHT = 1.0 + (X[:, 0] > 2.0)
SYNTHESIZER = TableSynthesizer(flow=FLOW, hidden_layer_sizes=(4, 1), max_iter=20, random_state=0)


def shard(rows):
    """The part of this process; categories are those that it has seen."""
    if isinstance(rows, pd.DataFrame):
        part = rows.iloc[(len(rows) * rank) // 2 : (len(rows) * (rank + 1)) // 2]
        return part.assign(kind=part["kind"].cat.remove_unused_categories())
    return np.array_split(rows, 2)[rank]


# For each estimator: how it is made, the rows of its fit by argument, and a number that it answers with.
EVERY = {
    "bridge": (
        lambda: SchroedingerBridge(0.5, "mixture", n_components=2, base_density="normal", **TINY),
        {"X0": X, "X1": OTHER}, lambda m: m.score(OTHER),
    ),
    "many samples": (
        lambda: MultimarginalFlow(base_density="normal", **TINY), {"X": [X, OTHER, X + 1.0]},
        lambda m: m.score_samples(OTHER[:50], time=1).mean(),
    ),
    "many samples, given": (
        lambda: MultimarginalFlow(base_density=None, **TINY),
        {"X": [X, OTHER], "condition": [LABELS, LABELS], "sample_weight": [WEIGHT, 1.0 / WEIGHT]},
        lambda m: m.transform(X[:50], 0, 1, condition=LABELS[:50]).mean(),
    ),
    "table": (lambda: SYNTHESIZER, {"X": FRAME}, lambda m: m.score(FRAME[:100])),
    "imputer": (
        lambda: InterpolantImputer(SYNTHESIZER, random_state=0), {"X": FRAME},
        lambda m: m.synthesizer_.score(FRAME[:100]),
    ),
    "codec": (lambda: TableCodec(random_state=0), {"X": FRAME}, lambda m: m.transform(FRAME[:100]).mean()),
    "regressor": (
        lambda: InterpolantRegressor(FLOW, "normal", random_state=0), {"X": FRAME, "y": Y},
        lambda m: m.predict_log_density(FRAME[:50], Y[:50]).mean(),
    ),
    "classifier": (
        lambda: InterpolantClassifier(FLOW, random_state=0), {"X": X, "y": LABELS},
        lambda m: m.predict_log_proba(X[:50]).mean(),
    ),
    "detector": (
        lambda: DensityOutlierDetector(InterpolantFlow(**TINY), random_state=0), {"X": X},
        lambda m: m.p_values(X[:50]).mean(),
    ),
    "ratio": (
        lambda: DensityRatioWeights(max_iter=1, random_state=0), {"X_source": X, "X_target": OTHER},
        lambda m: m.log_ratio(X[:50]).mean(),
    ),
    "ensemble": (lambda: InterpolantFlow(n_estimators=2, **TINY), {"X0": X}, lambda m: m.score(TEST)),
    "weights": (lambda: InterpolantFlow(**TINY), {"X0": X, "sample_weight": WEIGHT}, lambda m: m.score(TEST)),
    # these train together, so that their scores are near those of one process, and not the same
    "transformed": (
        lambda: TransformedDensity(PowerTransformer(), InterpolantFlow(**SMALL, max_iter=60)), {"X0": X},
        lambda m: m.score(TEST),
    ),
    "learned": (
        lambda: InterpolantFlow(interpolant="learned", base_density=None, max_iter=30, **SMALL), {"X0": X, "X1": OTHER},
        lambda m: m.transform(TEST).mean(),
    ),
}  # fmt: skip


def every_estimator():
    """The answers of all estimators: of this group, and of the first process alone after a fit to all rows."""
    answers = {}
    for name, (make, rows, ask) in EVERY.items():
        parts = {
            k: [shard(x) for x in rows_k] if isinstance(rows_k, list) else shard(rows_k) for k, rows_k in rows.items()
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of short fits
            answers[name] = [float(ask(make().fit(**parts)))]
            if rank == 0:
                with alone():
                    answers[name].append(float(ask(make().fit(**rows))))
    return answers


def mapped():
    """Whether the parts of a file give the model that the same rows in memory give."""
    path = folder / f"rows{rank}.npy"
    np.save(path, mine)
    models = [InterpolantFlow(**TINY).fit(rows) for rows in (mine, np.load(path, mmap_mode="r"))]
    return weights(models[0]) == weights(models[1])


class Breaking(MLP):
    """A network that fails in the second process."""

    calls = 0

    def forward(self, t, x, condition=None):
        type(self).calls += 1
        if rank and self.calls == 40:
            raise RuntimeError("no room left")
        return super().forward(t, x, condition)


def failing_step():
    """What both processes tell when a step of one fails."""
    try:
        InterpolantFlow(network=lambda d, k: Breaking(d, k, (4,)), preprocessing="standardize", max_iter=200).fit(mine)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def at_step(number, action):
    """Do something in a step of training."""
    plain = _weights.AdamWithEMA.step

    def step(self, rate):
        if self.steps == number:
            action()
        plain(self, rate)

    _weights.AdamWithEMA.step = step
    try:
        yield
    finally:
        _weights.AdamWithEMA.step = plain


class Killed(BaseException):
    """As if the process had ended."""


def die():
    raise Killed


def resumed():
    """Fits that are cut off in both processes, or stopped by Ctrl-C in one, and then continued from their file."""
    _checkpoint._LEAST_SECONDS, _checkpoint._SHARE = 0.0, 1e9
    settings = {"preprocessing": "standardize", "max_iter": 300, "hidden_layer_sizes": (8,), "random_state": 0}
    whole = InterpolantFlow(**settings).fit(mine)
    report = {"whole": weights(whole)}
    # only the first process has a folder
    settings["checkpoint"] = str(folder / "first" / "fit.ckpt") if rank == 0 else "/nowhere/fit.ckpt"
    (folder / "first").mkdir(exist_ok=True)
    with at_step(150, die), contextlib.suppress(Killed):
        InterpolantFlow(**settings).fit(mine)
    report["kept"] = (folder / "first" / "fit.ckpt").exists()
    report["cut off"] = weights(InterpolantFlow(**settings).fit(mine))
    interrupt = (lambda: os.kill(os.getpid(), signal.SIGINT)) if rank else (lambda: None)
    with at_step(150, interrupt), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        stopped = InterpolantFlow(**settings).fit(mine)
    report["stopped after"], report["stopped"] = stopped.n_iter_, weights(stopped)
    report["told"] = [str(w.message) for w in told]
    report["interrupted"] = weights(InterpolantFlow(**settings).fit(mine))
    report["gone"] = not list((folder / "first").iterdir())
    return report


def stopped_while_waiting():
    """Ctrl-C in a process that waits for the first one ends the fit of that, and both have its model."""
    if rank:
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MultimarginalFlow(base_density=None, max_iter=10**7, n_iter_no_change=10**6, hidden_layer_sizes=(4,))
        return weights_of(model.fit([mine, mine + 1.0]))


def weights_of(model):
    return [float(p.double().sum()) for p in model.model_.velocity.state_dict().values()]


def lost():
    """The second process dies in the middle of a fit."""
    if rank:
        plain = _weights.AdamWithEMA.step

        def step(self, rate):
            if self.steps == 150:
                os._exit(1)
            plain(self, rate)

        _weights.AdamWithEMA.step = step
    began = time.perf_counter()
    file = folder / "lost.ckpt"
    message = refused(lambda: InterpolantFlow(max_iter=100_000, checkpoint=file, **SMALL).fit(mine))
    lost = {"error": message, "seconds": time.perf_counter() - began, "kept": file.exists()}
    (folder / "lost.json").write_text(json.dumps(lost))
    os._exit(0)  # the group cannot be taken down in order


fits()
lost()
