"""How the two models of a table are learned: the codes first, the values with the time that is left."""

import dataclasses
import time

import numpy as np
import torch

from .._estimators.flow import InterpolantFlow
from .._training.loop import History
from .._training.validation_split import n_held_out
from .._utils.tensors import FIT_STREAM, make_generator, resolve_device
from ._masked import MaskedNetwork, auto_sizes, fit_masked
from ._values import ValueModel

__all__ = ["Budget", "CodedRows", "fit_codes", "fit_values", "joined_rounds", "refuse_support"]

# Passes over the rows of max_iter="auto", with their bounds in steps.
_PASSES = 120
_FEWEST = 1000
_MOST = 6000
# Rows of a step.
_BATCH = 512
# Rows of a table from which some are held out.
_FEWEST_TO_SPARE = 5
# Share of the time for the codes, where there are values as well.
_CODE_SHARE = 0.5
# Share of its time that the flow spends on its training; the rest is for choosing its steps.
_TRAINING_SHARE = 0.9
# Largest rate of the default flow: at its own 1e-2 the values of some tables diverge.
_RATE = 1e-3


@dataclasses.dataclass
class Budget:
    """Seconds of a fit, from its first line on.

    Parameters
    ----------
    max_time : float or None
    began : float
        What the clock showed.
    """

    max_time: float | None
    began: float

    def left(self, share=1.0):
        """A share of the seconds that are left; a hundredth of all where none are; None without a limit."""
        if self.max_time is None:
            return None
        rest = self.max_time - (time.perf_counter() - self.began)
        return max(share * rest, 0.01 * self.max_time)


@dataclasses.dataclass
class CodedRows:
    """The rows of a table, as both models learn them.

    Parameters
    ----------
    codes : ndarray of int of shape (n_rows, n_columns)
    values : ndarray of shape (n_rows, n_columns)
    weight : ndarray of shape (n_rows,) or None
        None where all rows weigh the same.
    """

    codes: np.ndarray
    values: np.ndarray
    weight: np.ndarray | None


def refuse_support(flow):
    """Raise where the flow has a support, which would be that of normal scores."""
    if flow is not None and flow.support != "real":
        raise ValueError(
            f"Got flow with support={flow.support!r}, but it models the columns of a table as normal scores: leave it "
            "out. A table keeps the range of each column by itself, and takes circles as kinds={name: ('circular', "
            "low, high)}."
        )


def fit_codes(estimator, layout, rows, budget, tasks, checkpoint):
    """The network of the codes, and the history of its training."""
    if not layout.coded:
        return None, History()
    n, device, seed = len(rows.codes), resolve_device(estimator.device), checkpoint.seed
    generator = make_generator(seed, FIT_STREAM, device)
    columns, sizes = [layout.columns[j] for j in layout.coded], estimator.hidden_layer_sizes
    width, depth = sizes if sizes != "auto" else auto_sizes(n, sum(column.n_codes for column in columns))
    network = MaskedNetwork(
        [column.shares for column in columns], [column.ranks for column in columns], len(layout.valued), width,
        depth, make_generator(seed, FIT_STREAM + 1),
    ).to(device)  # fmt: skip
    codes, values = layout.tensors(rows.codes, rows.values, device)
    order = torch.randperm(n, generator=make_generator(seed, FIT_STREAM + 2, device), device=device)
    n_held = n_held_out(n, estimator.validation_fraction) if n >= _FEWEST_TO_SPARE else 0
    steps = estimator.max_iter
    if steps == "auto":
        steps = int(np.clip(_PASSES * n / _BATCH, _FEWEST, _MOST)) if budget.max_time is None else 10**9
    history = fit_masked(
        network, codes, values, order[:n_held] if n_held else None, weight=rows.weight, owners=layout.owners,
        max_iter=steps, max_time=budget.left(_CODE_SHARE if layout.valued else 1.0),
        learning_rate=estimator.learning_rate_init,
        generator=generator, verbose=estimator.verbose, dropout=estimator.dropout, tasks=tasks,
        checkpoint=checkpoint,
    )  # fmt: skip
    return network, history


def fit_values(estimator, layout, rows, budget, tasks, checkpoint, interrupted):
    """The model of the values; after an interrupt little more than their normal distribution."""
    flow, seed = estimator.flow, checkpoint.seed
    if flow is None:
        fraction = estimator.validation_fraction
        flow = InterpolantFlow(preprocessing="standardize", learning_rate_init=_RATE, validation_fraction=fraction)
    settings = {"random_state": seed, "verbose": estimator.verbose, "device": estimator.device}
    steps = 1 if interrupted else estimator.max_iter
    settings |= {} if steps == "auto" else {"max_iter": steps}
    model = ValueModel(InterpolantFlow(**{**flow.get_params(deep=False), **settings}))
    rng, features = np.random.default_rng([seed, FIT_STREAM]), layout.features(rows.codes)
    return model.fit(
        rows.values[:, layout.valued], features, rows.codes[:, layout.coded], rng, tasks, checkpoint,
        lambda: budget.left(_TRAINING_SHARE), rows.weight,
    )  # fmt: skip


def joined_rounds(history, model):
    """The rounds of the trainings of both models, in order."""
    rounds = [{"training": "codes", **one} for one in history.rounds]
    of_values = [] if model is None else model.flow_.history_
    return rounds + [{**one, "training": f"values: {one['training']}"} for one in of_values]
