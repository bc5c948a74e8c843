"""Maps between a standard normal and the target given the codes of a row: a flow, around a location and a scale."""

import dataclasses
from typing import Any

import numpy as np
import torch
from sklearn.base import clone

from ..._model.densities import log_density
from ..._model.lost_rows import warn_missed
from ..._model.settings import Evaluation
from ..._utils.input_checks import nameless
from ..._utils.names import registered
from ..._utils.tensors import blocks
from .trees import fit_location_scale

# Points that one call moves: the memory beside input and output does not grow with their number.
_BLOCK_POINTS = 2**16
_END = torch.ones((), dtype=torch.float64)


@registered("prediction.Member")
@dataclasses.dataclass
class Member:
    """One map y = mu(x) + sigma(x) T(z | x), with T a flow, or y = T(z | x).

    log p(y | x) = log p_T((y - mu) / sigma | x) - sum log sigma

    Parameters
    ----------
    flow : InterpolantFlow
        Fitted to the standardised target.
    boosted : list of LocationScale
        One for each column of the target; empty without them.
    centre, scale : ndarray of shape (n_outputs,)
        Of the target, which put the locations into units that the network reads.
    """

    flow: Any
    boosted: list
    centre: np.ndarray
    scale: np.ndarray

    def given(self, codes):
        """The location, the log-scale and the condition of the flow of coded rows."""
        if not self.boosted:
            return Given(np.zeros((len(codes), 1)), np.zeros((len(codes), 1)), codes)
        pairs = [model.predict(codes) for model in self.boosted]
        return self._joined(codes, *(np.column_stack(part) for part in zip(*pairs, strict=True)))

    def _joined(self, codes, location, log_scale):
        told = np.hstack([codes, (location - self.centre) / self.scale, log_scale - np.log(self.scale)])
        return Given(location, log_scale, told)

    def to_normal(self, given, Y, device, looser=1.0):
        """The points of the standard normal that are moved to given targets, at so many times the flow's tolerance.

        A looser one is far above the error of single precision.
        """
        scaled = (Y - given.location) * np.exp(-given.log_scale)
        return self._moved(given, scaled if looser == 1.0 else scaled.astype(np.float32), True, device, looser)

    def from_normal(self, given, Z, device):
        """Targets to which points of the standard normal are moved."""
        moved = self._moved(given, Z, False, device)
        return given.location + np.exp(given.log_scale) * moved

    def at_base(self, given, Z, device):
        """Targets to which points of the standard normal are moved by the steps that draws take."""
        with nameless():
            moved = self.flow.model_.from_base(Z, device, given.told)
        return given.location + np.exp(given.log_scale) * moved

    def _moved(self, given, points, forward, device, looser=1.0):
        evaluation = Evaluation(device, looser * self.flow.ode_tol, 1.0, False)
        moved, missed = np.empty(points.shape), []
        with nameless():
            for rows in blocks(len(points), _BLOCK_POINTS):
                moved[rows], error = self.flow.model_.transport(points[rows], forward, evaluation, given.told[rows])
                missed.append(error)
        warn_missed(torch.cat(missed), evaluation.tolerance)
        return moved

    def log_density(self, given, Y, device):
        """Log p(y | x) in the units of y."""
        evaluation = Evaluation(device, self.flow.ode_tol, 1.0, False)
        scaled = (Y - given.location) * np.exp(-given.log_scale)
        with nameless():
            value, _ = log_density(self.flow.model_, scaled, _END, evaluation, given.told)
        return value - np.broadcast_to(given.log_scale, Y.shape).sum(1) if self.boosted else value


@dataclasses.dataclass
class Given:
    """What a member knows of some rows.

    Parameters
    ----------
    location, log_scale : ndarray of shape (n_rows, n_outputs or 1)
    told : ndarray of shape (n_rows, n_conditions)
        The condition of the flow.
    """

    location: np.ndarray
    log_scale: np.ndarray
    told: np.ndarray

    def repeated(self, times):
        """Each row so many times in succession."""
        return Given(*(np.repeat(part, times, axis=0) for part in (self.location, self.log_scale, self.told)))

    def rows(self, rows):
        """Some of the rows."""
        return Given(self.location[rows], self.log_scale[rows], self.told[rows])


@dataclasses.dataclass
class Rows:
    """The rows of a fit, coded.

    Parameters
    ----------
    codes : ndarray of shape (n_rows, n_codes)
    Y : ndarray of shape (n_rows, n_outputs)
    weight : ndarray of shape (n_rows,) or None
    train, val : ndarray of int
        Which of them train, and which validate.
    """

    codes: np.ndarray
    Y: np.ndarray
    weight: np.ndarray | None
    train: np.ndarray
    val: np.ndarray


def learn_member(flow, rows, is_boosted, seed, max_time):
    """Fit one map.

    Parameters
    ----------
    flow : InterpolantFlow
        What is cloned and fitted.
    rows : Rows
    is_boosted : bool
        Whether the base has a location and a scale by boosting.
    seed : int
    max_time : float or None
        Seconds for the flow.
    """
    train, weight = rows.train, rows.weight
    member = Member(None, [], rows.Y[train].mean(0), rows.Y[train].std(0))
    if is_boosted:
        given = _boosted(member, rows, seed)
        target = (rows.Y - given.location) * np.exp(-given.log_scale)
    else:
        given, target = member.given(rows.codes), rows.Y
    flow = clone(flow).set_params(random_state=seed, max_time=max_time)
    with nameless():
        flow._fit_part(target, condition=given.told, sample_weight=weight, split=lambda n, f, rng: (train, rows.val))
    member.flow = flow
    return member


def _boosted(member, rows, seed):
    """Learn the location and the scale of a member from the rows that train; the others know them as later rows do."""
    parts = []
    for j in range(rows.Y.shape[1]):
        weight = None if rows.weight is None else rows.weight[rows.train]
        model, *own = fit_location_scale(rows.codes[rows.train], rows.Y[rows.train, j], weight, seed)
        both = model.predict(rows.codes)
        for values, unseen in zip(both, own, strict=True):
            values[rows.train] = unseen
        member.boosted.append(model)
        parts.append(both)
    return member._joined(rows.codes, *(np.column_stack(part) for part in zip(*parts, strict=True)))


def validation_values(member, rows, device):
    """Log-likelihoods of the rows that validate, in nats."""
    return member.log_density(member.given(rows.codes[rows.val]), rows.Y[rows.val], device)
