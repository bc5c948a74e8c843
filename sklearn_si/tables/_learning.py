"""How the two models of a table are learned: the codes first, the values with the time that is left."""

import dataclasses
import time

import numpy as np
import torch

from .._estimators.flow import InterpolantFlow
from .._training.loop import History
from .._training.rounds import joined, rounds_of
from .._training.validation_split import n_held_out
from .._utils.tensors import FIT_STREAM, make_generator, resolve_device
from ._masked import ROWS_OF_A_WIDE_NETWORK, MaskedEffort, MaskedNetwork, MaskedRows, auto_sizes, fit_masked
from ._together import CALIBRATION_SHARE, MeanNetwork, calibrate
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
# Rows from which two networks of the codes are averaged, up to those of a wide one (shoppers: .17 nats of held-out
# rows, C2ST-XGB of the codes .907 -> .921; titanic, penguins: nothing).
_FEWEST_FOR_TWO = 1000
# Codes of all columns together from which a second network would take minutes.
_MOST_CODES_FOR_TWO = 2000
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
    """The network of the codes, and the histories of its trainings."""
    if not layout.coded:
        return None, []
    n, device, seed = len(rows.codes), resolve_device(estimator.device), checkpoint.seed
    generator = make_generator(seed, FIT_STREAM, device)
    order = torch.randperm(n, generator=make_generator(seed, FIT_STREAM + 2, device), device=device)
    codes, values = layout.tensors(rows.codes, rows.values, device)
    training, calibration = _parts(budget.left(_CODE_SHARE if layout.valued else 1.0))
    until = _Deadline(training)
    n_codes = sum(layout.columns[j].n_codes for j in layout.coded)
    n_members = _n_members(estimator, n, n_codes)
    networks: list[MaskedNetwork] = []
    histories: list[History] = []
    n_held = n_held_out(n, estimator.validation_fraction) if n >= _FEWEST_TO_SPARE else 0
    settings: dict = {"max_iter": _steps(estimator, n, n_members > 1), "learning_rate": estimator.learning_rate_init}
    settings |= {"dropout": estimator.dropout, "verbose": estimator.verbose}
    while len(networks) < n_members and until.allows_another(len(networks)):
        networks.append(_new_network(estimator, layout, n, make_generator(seed, FIT_STREAM + 1 + 10 * len(networks))))
        # each holds out other rows, so that all are learned from
        held = order.roll(-n_held * len(histories))[:n_held] if n_held else None
        own = MaskedRows(codes, values, held, rows.weight, layout.owners)
        effort = MaskedEffort(max_time=until.left(), **settings)
        history = fit_masked(networks[-1].to(device), own, effort, generator, tasks, checkpoint)
        histories.append(history)
        if history.by_user:
            break
    network = networks[0] if len(networks) == 1 else MeanNetwork(networks)
    try:
        calibrate(network, len(layout.valued), generator, calibration)
    except KeyboardInterrupt:
        # what was learned is kept, with the shifts that were found so far
        histories[-1].by_user = True
    return network, histories


def _parts(seconds):
    """The seconds of the trainings, and those of the calibration; None without a limit."""
    return (None, None) if seconds is None else ((1 - CALIBRATION_SHARE) * seconds, CALIBRATION_SHARE * seconds)


class _Deadline:
    """The seconds that some trainings may take together; None for no limit."""

    def __init__(self, seconds):
        self.seconds, self.began = seconds, time.perf_counter()

    def left(self):
        """Seconds that are left; None without a limit."""
        return None if self.seconds is None else max(self.seconds - self._spent(), 0.01 * self.seconds)

    def allows_another(self, n):
        """Whether there is time for one more training like the n before."""
        return self.seconds is None or self._spent() * (n + 1) <= self.seconds * max(n, 1)

    def _spent(self):
        return time.perf_counter() - self.began


def _n_members(estimator, n, n_codes):
    """The number of networks that are averaged."""
    are_some = _FEWEST_FOR_TWO <= n < ROWS_OF_A_WIDE_NETWORK and n_codes < _MOST_CODES_FOR_TWO
    return 2 if estimator.max_iter == "auto" and are_some else 1


def _steps(estimator, n, has_members):
    """Steps of a training of the codes; where time alone is the limit, as many as it has."""
    if estimator.max_iter != "auto":
        return estimator.max_iter
    is_limited = estimator.max_time is None or has_members
    return int(np.clip(_PASSES * n / _BATCH, _FEWEST, _MOST)) if is_limited else 10**9


def _new_network(estimator, layout, n, generator):
    columns, sizes = [layout.columns[j] for j in layout.coded], estimator.hidden_layer_sizes
    width, depth = sizes if sizes != "auto" else auto_sizes(n, sum(column.n_codes for column in columns))
    shares, ranks = [column.shares for column in columns], [column.ranks for column in columns]
    return MaskedNetwork(shares, ranks, len(layout.valued), width, depth, generator)


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


def joined_rounds(histories, model):
    """The rounds of the trainings of both models, in order."""
    names = ["codes", *(f"codes {k}" for k in range(2, len(histories) + 1))]
    rounds = rounds_of(zip(names, histories, strict=False))
    return joined(rounds, [] if model is None else model.flow_.history_, "values: ")
