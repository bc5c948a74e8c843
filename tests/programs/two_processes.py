"""What test_distributed.py runs in each of two processes: fits of shards, and what comes of them in a file a rank."""

import contextlib
import io
import json
import os
import pathlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import torch
from torch import distributed as dist

from sklearn_si import InterpolantDiffusion, InterpolantFlow, SchroedingerBridge
from sklearn_si._training import optimizer as _weights
from sklearn_si.distributed import alone, current_group
from sklearn_si.exceptions import ProcessGroupError
from sklearn_si.tables import TableSynthesizer

folder = pathlib.Path(sys.argv[1])
dist.init_process_group("gloo")
rank = dist.get_rank()
RNG = np.random.default_rng(0)
X = RNG.normal(size=(801, 2)) @ np.array([[1.0, 0.5], [0.0, 2.0]])
X[:400] += 3.0  # sorted, so that the shards have different laws
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
        flow = InterpolantFlow(max_iter=300, verbose=1, **SMALL).fit(mine)
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
        refused(lambda: SchroedingerBridge(**SMALL).fit(mine, mine)),
        refused(lambda: TableSynthesizer().fit(mine)),
        refused(lambda: InterpolantFlow(interpolant="learned", **SMALL).fit(mine, mine)),
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
        refused(lambda: InterpolantFlow(**SMALL).fit(mine, sample_weight=mine[:, 0] ** 2)),
    ]
    poisoned = mine.copy()
    poisoned[0, 0] = np.nan if rank else 0.0
    try:
        InterpolantFlow(**SMALL).fit(poisoned)
    except ValueError as error:
        report["poisoned"] = f"{type(error).__name__}: {error}"
    (folder / f"{rank}.json").write_text(json.dumps(report))


def lost():
    """The second process dies in the middle of a fit."""
    if rank:
        plain = _weights.AdamWithEMA.step

        def step(self, rate):
            if self.steps == 50:
                os._exit(1)
            plain(self, rate)

        _weights.AdamWithEMA.step = step
    began = time.perf_counter()
    message = refused(lambda: InterpolantFlow(max_iter=100_000, **SMALL).fit(mine))
    (folder / "lost.json").write_text(json.dumps({"error": message, "seconds": time.perf_counter() - began}))
    os._exit(0)  # the group cannot be taken down in order


fits()
lost()
