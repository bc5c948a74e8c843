"""The values of a table given its codes and any of the values: an interpolant flow around a normal distribution."""

import warnings

import numpy as np
import torch
from scipy.special import ndtr
from sklearn.base import clone
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import RidgeCV

from .._training.recipe import split_rows
from .._utils.callers import users_level
from .._utils.input_checks import nameless
from .._utils.names import registered
from .._utils.tensors import SAMPLE_STREAM
from .._utils.weights import effective_rows, part_of_weights, resampled
from ..exceptions import IntegrationError, IntegrationWarning
from ..preprocessing._patterns import ABSENT, ASKED, GIVEN, ConditionalNormals, conditional_normals, covariance_of
from ._bins import SmoothBins

__all__ = ["ValueModel"]

# Rows of the training set of the flow, copies of a row under other masks counted.
_ROWS = 40_000
# Largest number of copies of a row.
_COPIES = 32
# Mass beyond the bounds of a column from which a straight line is no map for it: numbers would pile up at its ends.
_CUT_OFF = 0.01
# Masks that are drawn.
_MASKS = 256
# Rows from which the normal distribution is estimated.
_MOMENT_ROWS = 20_000
# Ridges that are tried.
_RIDGES = np.logspace(-1, 4, 6)
# Patterns of missing values whose matrices are computed at a time.
_PATTERNS_PER_BLOCK = 2048
# Largest number of levels of a column by which covariances may differ.
_GROUPS = 20
# Rows by which that column is chosen.
_CHOICE_ROWS = 5000
# Folds of the cross-validation that chooses it.
_FOLDS = 5
# Weights of the pooled covariance in that of a group, in rows per column, that are tried.
_WEIGHTS = (1.0, 4.0, 16.0)
# Rows that become infinite in each of their draws, and their share, up to which the others are drawn all the same.
_FEW_LOST = 10
_LOST_SHARE = 0.01


def split_originals(n_originals):
    """A split of copies of rows by which no held-out row is a copy of a training row.

    Parameters
    ----------
    n_originals : int
        Row i is a copy of row i modulo this number.
    """

    def split(n, fraction, rng):
        train, held = split_rows(n_originals, fraction, rng)
        copies = np.arange(0, n, n_originals)[:, None]
        # a held-out row is judged as whole rows are drawn, and under a mask
        return (copies + train).ravel(), None if held is None else (copies[:2] + held).T.ravel()

    return split


def straightened(columns, valued, readings, codes, values, told, rng):
    """The values, with a straight line for the map of those columns whose distribution given the codes it suits better.

    `columns` are changed in place, those of numbers `valued`; `told` are the features of the codes, and the codes.
    """

    def density(values):
        slopes = sum(np.mean(columns[j].log_slope(readings[j])) for j in valued)
        return held_out_density(values[:, valued], *told) + slopes

    best = density(values)
    for j in valued:
        curved = columns[j]
        if not isinstance(curved.bins, SmoothBins) or curved.n_bins > 1:
            continue
        straight, changed = curved.straight(readings[j], codes[:, j]), values.copy()
        if _cut_off(straight) > _CUT_OFF + 2 / len(values):
            continue
        columns[j] = straight
        # a number that is that of another column has no value of its own
        changed[:, j] = np.where(np.isnan(values[:, j]), np.nan, straight.encode(readings[j], rng)[1])
        score = density(changed)
        if score > best:
            best, values = score, changed
        else:
            columns[j] = curved
    return values


def _cut_off(column):
    """The mass of a normal distribution beyond the bounds of a column, where drawn numbers are cut off."""
    ends = column.bins.forward(np.array(column.bounds, dtype=np.float64), np.zeros(2, dtype=np.int64))[0]
    return ndtr(ends[0]) + ndtr(-ends[1])


@registered("tables.ValueModel")
class ValueModel:
    """The distribution of values v given features f of the codes, and given any part of the values.

    v = B f + r,    r ~ N(0, C_g):    u = C_{M|O}^{-1/2} (r_M - C_MO C_OO^-1 r_O) ~ N(0, I) up to what the flow learns

    with g the level of one column, if cross-validation finds that its groups differ in their covariances, O the values
    that are given and M those that are asked for; values that are absent are in neither. The flow learns the
    distribution of u given f, the pattern and v_O: one row of the table gives several rows for it, every second one
    under a mask that is drawn. Coordinates outside M are normal numbers of no meaning.

    Parameters
    ----------
    flow : InterpolantFlow
        What is cloned.
    """

    def __init__(self, flow):
        self.flow = flow

    def fit(self, values, features, codes, rng, tasks, checkpoint, seconds_left=lambda: None, weight=None):
        """Fit to values (NaN where absent), and to codes with their features.

        Parameters
        ----------
        values : ndarray of shape (n, d)
        features : ndarray of shape (n, n_features)
        codes : ndarray of int of shape (n, n_codes)
        rng : numpy Generator
        tasks : Tasks
            What callbacks are told of the fit.
        checkpoint : Checkpoint
            Where the flow keeps its trainings.
        seconds_left : callable
            The time limit of the flow once its rows are there; None for none.
        weight : ndarray of shape (n,), default=None
            Weights of the rows.
        """
        n, d = values.shape
        self.centres_ = _centres(values, features, weight)
        residuals = values - self._centre(features)
        some = np.arange(n)[:_MOMENT_ROWS]
        if weight is not None:
            some = resampled(weight, min(_MOMENT_ROWS, round(effective_rows(n, weight))), rng, _FOLDS)
        self.covariances_, self.group_column_ = _covariances(residuals[some], codes[some])
        copies = 1 if d == 1 else int(np.clip(round(_ROWS / n), 2, _COPIES))
        states = self._masks(np.isnan(values), copies, rng)
        rows = np.tile(np.arange(n), copies)
        u, condition = self._standardised(values[rows], features[rows], codes[rows], states, residuals[rows], rng)
        self.flow_ = clone(self.flow).set_params(base_density=None, checkpoint=None)
        checkpoint.follow(self.flow_, "values")
        seconds = seconds_left()
        self.flow_.set_params(**({} if seconds is None else {"max_time": seconds}))
        with tasks.part("values", self.flow_), nameless():
            row_weights = None if weight is None else weight[rows]
            self.flow_._fit_part(u, condition=condition, sample_weight=row_weights, split=split_originals(n))
        return self

    def _centre(self, features):
        return _predicted(self.centres_, features)

    @staticmethod
    def _masks(absent, copies, rng):
        """The states of all values in all copies: every second one gives some of them, any number."""
        n, d = absent.shape
        states = np.full((copies, n, d), ASKED)
        pool = [rng.permutation(d) < rng.integers(1, d) for _ in range(_MASKS if copies > 1 else 0)]
        for k in range(1, copies, 2):
            states[k][np.array(pool)[rng.integers(_MASKS, size=n)]] = GIVEN
        states[:, absent] = ABSENT
        return states.reshape(copies * n, d)

    def _standardised(self, values, features, codes, states, residuals, rng):
        """The flow's rows and their conditions; normal numbers (0 without rng) in coordinates not asked for."""
        gaussian, which = self._normals(states, codes)
        given, asked = states == GIVEN, states == ASKED
        known = np.where(given, residuals, 0.0)
        rest = np.where(asked, residuals - _apply(gaussian.gain[which], known), 0.0)
        u = _apply(gaussian.inverse_root[which], rest)
        noise = 0.0 if rng is None else rng.standard_normal(u.shape)
        return np.where(asked, u, noise), self._condition(values, features, states)

    @staticmethod
    def _condition(values, features, states):
        given = states == GIVEN
        shown = np.where(given, np.clip(values, -5, 5), 0.0)
        parts = [features, shown, given, states == ABSENT]
        condition = np.concatenate(parts, axis=1).astype(np.float64)
        return condition

    def _normals(self, states, codes):
        """The normal distributions of the distinct pairs of group and pattern of states, and the one of each row."""
        last = len(self.covariances_) - 1  # of rows of unknown groups, and of all rows together
        groups = np.full(len(states), last)
        if self.group_column_ is not None:
            groups = np.where(codes[:, self.group_column_] < 0, last, codes[:, self.group_column_])
        pairs, which = np.unique(np.column_stack([groups, states]), axis=0, return_inverse=True)
        parts = np.split(pairs, range(_PATTERNS_PER_BLOCK, len(pairs), _PATTERNS_PER_BLOCK))
        normals = [
            conditional_normals(torch.as_tensor(self.covariances_[part[:, 0]]), torch.as_tensor(part[:, 1:]))
            for part in parts
        ]
        joined = (torch.cat(parts).numpy() for parts in zip(*normals, strict=True))
        return ConditionalNormals(*joined), which.reshape(-1)

    def sample(self, values, features, codes, states, random_state):
        """Values with those that are asked for drawn given the others."""
        gaussian, which = self._normals(states, codes)
        condition = self._condition(values, features, states)
        u = self._drawn(condition, random_state)
        centre = self._centre(features)
        given, asked = states == GIVEN, states == ASKED
        known = np.where(given, values - centre, 0.0)
        drawn = centre + _apply(gaussian.gain[which], known) + _apply(gaussian.root[which], np.where(asked, u, 0.0))
        return np.where(asked, drawn, values)

    def _drawn(self, condition, seed):
        """Rows of the flow; a few that become infinite in each draw follow the normal distribution around it."""
        n, d = len(condition), self.covariances_.shape[-1]
        try:
            with nameless():
                return self.flow_.sample(n, condition=condition, random_state=seed)
        except IntegrationError as error:
            lost = np.zeros(n, dtype=bool)
            lost[np.asarray(error.rows, dtype=int)] = True
            if not lost.any() or lost.sum() > max(_FEW_LOST, _LOST_SHARE * n):
                raise
        warnings.warn(
            f"{int(lost.sum())} of {n} rows became infinite or NaN in each draw of their values, which follow the "
            "normal distribution given their categories instead. Fit longer if these are many.",
            IntegrationWarning,
            stacklevel=users_level(),
        )
        u = np.random.default_rng([seed, SAMPLE_STREAM]).standard_normal((n, d))
        if not lost.all():
            u[~lost] = self._drawn(condition[~lost], (seed + 1) % 2**32)
        return u

    def log_density(self, values, features, codes, states):
        """The log-density of what is asked for given the rest."""
        gaussian, which = self._normals(states, codes)
        filled = np.where(np.isnan(values), 0.0, values)
        u, condition = self._standardised(filled, features, codes, states, filled - self._centre(features), None)
        idle = (states != ASKED).sum(1)
        with nameless():
            value = self.flow_.score_samples(u, condition=condition)
        return value + 0.5 * np.log(2 * np.pi) * idle - gaussian.log_det[which]


def held_out_density(values, features, codes):
    """The cross-validated mean log-density of values given codes under the best normal one, up to a constant."""
    rows = ~np.isnan(values).any(1)
    values, features = values[rows][:_CHOICE_ROWS], features[rows][:_CHOICE_ROWS]
    if len(values) < 5 * _FOLDS:
        return 0.0
    residuals = values - _predicted(_centres(values, features), features)
    return _chosen_groups(residuals, codes[rows][:_CHOICE_ROWS])[0]


def _centres(values, features, weight=None):
    """Ridge regressions of each column of values on the features."""
    models = []
    for v in values.T:
        rows = np.flatnonzero(~np.isnan(v))[:_MOMENT_ROWS]
        model = RidgeCV(_RIDGES) if len(rows) > 4 and features.shape[1] else DummyRegressor()
        models.append(model.fit(features[rows], v[rows], sample_weight=part_of_weights(weight, rows)))
    return models


def _predicted(models, features):
    return np.column_stack([model.predict(features) for model in models])


def _apply(matrices, rows):
    return np.einsum("nij,nj->ni", matrices, rows)


def _covariances(residuals, codes):
    """The covariances of the groups of one column and, last, that of all rows; and the column, None where none is."""
    complete = ~np.isnan(residuals).any(1)
    _, column, weight = _chosen_groups(residuals[complete][:_CHOICE_ROWS], codes[complete][:_CHOICE_ROWS])
    pooled = covariance_of(residuals)
    if column is None:
        return pooled[None], None
    return _of_groups(residuals, codes[:, column], pooled, weight, codes[:, column].max() + 1), column


def _chosen_groups(rows, labels):
    """The held-out density, column and weight of the groups that differ most in their covariances; None for none."""
    best, column, weight = _held_out_density(rows, None, None), None, None
    for j in range(labels.shape[1]):
        for w in _WEIGHTS if 1 < labels[:, j].max(initial=0) + 1 <= _GROUPS else ():
            score = _held_out_density(rows, labels[:, j], w)
            if score > best:
                best, column, weight = score, j, w
    return best, column, weight


def _of_groups(residuals, labels, pooled, weight, n_groups):
    """The covariance of each group, drawn towards that of all rows the more the fewer rows it has; and the latter."""
    found = []
    for k in range(n_groups):
        rows = residuals[labels == k]
        share = len(rows) / (len(rows) + weight * residuals.shape[1])
        own = covariance_of(rows) if len(rows) > 1 else pooled
        found.append(share * own + (1 - share) * pooled)
    return np.stack([*found, pooled])


def _held_out_density(rows, labels, weight):
    """The mean log-density of held-out rows, up to a constant; too few rows have no groups."""
    n = len(rows)
    if n < 5 * _FOLDS:
        return -np.inf if labels is not None else 0.0
    folds, total = np.arange(n) % _FOLDS, 0.0
    for fold in range(_FOLDS):
        train, held = rows[folds != fold], rows[folds == fold]
        pooled = covariance_of(train)
        groups, covariances = np.zeros(len(held), dtype=int), pooled[None]
        if labels is not None:
            covariances = _of_groups(train, labels[folds != fold], pooled, weight, labels.max() + 1)
            groups = np.where(labels[folds == fold] < 0, len(covariances) - 1, labels[folds == fold])
        factors = np.linalg.cholesky(covariances)
        z = np.linalg.solve(factors[groups], held[:, :, None])[:, :, 0]
        total -= 0.5 * (z**2).sum() + np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(1)[groups].sum()
    return total / n
