"""Boosted trees as arrays: the location and the scale of a target, each row's by trees that have not seen it."""

import contextlib

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import KFold

from ..._utils.names import registered
from ..._utils.process import one_openmp_thread
from ..._utils.tensors import blocks

# Folds of the rows of training: each has trees that were learned from the other rows.
N_FOLDS = 5
# Fewer rows than this are too few to learn a location and a scale from the rest of them.
LEAST_ROWS = 20
# Trees at the most, their leaves and their learning rate; a share of the rows stops them where these are many, and the
# error out of fold where they are few (with 50 trees in any case, errors of small tables were larger by 2 to 25 %).
_N_TREES = 200
_LEAVES = 16
_RATE = 0.06
_STOP_FRACTION = 0.1
_ROWS_TO_STOP = 400
# Trees of a scale are fewer and coarser: absolute residuals are noisy.
_N_SCALE_TREES = 60
_SCALE_LEAVES = 8
# Least size of a residual before its logarithm, and least and largest scale, all in units of the median ones.
_LEAST_RESIDUAL = 0.1
_LEAST_SCALE = 0.05
_LARGEST_SCALE = 20.0
# Cells of X up to which trees are grown by one thread.
_SMALL = 2**20
# Pairs of a row and a tree that are evaluated at a time.
_CELLS = 2**18


@registered("prediction.Trees")
class Trees:
    """Fitted regression trees as arrays, so that files need no code.

    f(x) = baseline + sum_k value[k, leaf of x in tree k]

    Parameters
    ----------
    baseline : float
    nodes : dict of ndarray of shape (n_trees, n_nodes)
        By name: the `feature` and the `threshold` of each split, whether missing values go `left_if_missing`, the
        children `left` and `right` (a leaf is its own child), and the `value` of each leaf.
    depth : int
        Of the deepest tree.
    """

    def __init__(self, baseline, nodes, depth):
        self.baseline, self.nodes, self.depth = baseline, nodes, depth

    @classmethod
    def of(cls, boosting, most=None):
        """The (first) trees of a fitted HistGradientBoostingRegressor without categorical columns."""
        tables = [tree.nodes for (tree,) in boosting._predictors[:most]]
        size = max((len(table) for table in tables), default=1)
        shape = len(tables), size
        itself = np.broadcast_to(np.arange(size), shape)
        nodes = {
            "feature": np.zeros(shape, np.int64), "threshold": np.zeros(shape), "value": np.zeros(shape),
            "left_if_missing": np.zeros(shape, bool), "left": itself.copy(), "right": itself.copy(),
        }  # fmt: skip
        for k, table in enumerate(tables):
            split = np.flatnonzero(table["is_leaf"] == 0)
            nodes["value"][k, : len(table)] = table["value"]
            for name, field in (("feature", "feature_idx"), ("threshold", "num_threshold"), ("left", "left"),
                                ("right", "right"), ("left_if_missing", "missing_go_to_left")):  # fmt: skip
                nodes[name][k, split] = table[field][split]
        depth = max((int(table["depth"].max()) for table in tables), default=0)
        return cls(float(np.ravel(boosting._baseline_prediction)[0]), nodes, depth)

    def predict(self, X):
        """The value of each row."""
        size = max(1, _CELLS // max(1, len(self.nodes["value"])))
        parts = [self._block(X[rows]) for rows in blocks(len(X), size)]
        return np.concatenate(parts) if parts else np.empty(0)

    def _block(self, X):
        n, trees, rows = self.nodes, np.arange(len(self.nodes["value"]))[:, None], np.arange(len(X))
        at = np.zeros((len(trees), len(X)), np.int64)
        for _ in range(self.depth):
            x = X[rows, n["feature"][trees, at]]
            goes_left = np.where(np.isnan(x), n["left_if_missing"][trees, at], x <= n["threshold"][trees, at])
            at = np.where(goes_left, n["left"][trees, at], n["right"][trees, at])
        return self.baseline + n["value"][trees, at].sum(0)


@registered("prediction.LocationScale")
class LocationScale:
    """Location mu(x) and scale sigma(x) of one target, by the means over trees of several folds.

    Parameters
    ----------
    locations, scales : list of Trees
        One of each for a fold; those of the scale give its logarithm.
    limits : tuple of (float, float)
        Least and largest log-scale.
    """

    def __init__(self, locations, scales, limits):
        self.locations, self.scales, self.limits = locations, scales, limits

    def predict(self, X):
        """Mu and log sigma of rows that no fold has seen."""
        location = np.mean([trees.predict(X) for trees in self.locations], axis=0)
        return location, self._limited(np.mean([trees.predict(X) for trees in self.scales], axis=0))

    def _limited(self, log_scale):
        return np.clip(log_scale, *self.limits)


def fit_location_scale(X, y, weight, seed):
    """A location and a scale by boosting, and those of the rows themselves, each by trees that have not seen it.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_codes)
    y : ndarray of shape (n_samples,)
    weight : ndarray of shape (n_samples,) or None
    seed : int

    Returns
    -------
    model : LocationScale
    location, log_scale : ndarray of shape (n_samples,)
    """
    folds = list(KFold(N_FOLDS, shuffle=True, random_state=seed).split(X))
    locations, location = _out_of_fold(X, y, weight, folds, seed, _N_TREES, _LEAVES)
    size = np.abs(y - location)
    middle = np.median(size[size > 0]) if (size > 0).any() else 1.0
    # logarithms keep single large residuals from ruling the scale
    log_size = np.log(size + _LEAST_RESIDUAL * middle)
    scales, log_scale = _out_of_fold(X, log_size, weight, folds, seed, _N_SCALE_TREES, _SCALE_LEAVES)
    centre = float(np.median(log_scale))
    model = LocationScale(locations, scales, (centre + np.log(_LEAST_SCALE), centre + np.log(_LARGEST_SCALE)))
    return model, location, model._limited(log_scale)


def _out_of_fold(X, y, weight, folds, seed, n_trees, n_leaves):
    """The trees of each fold, and their values at the rows of the fold."""
    stops = len(folds[0][0]) >= _ROWS_TO_STOP
    with one_openmp_thread() if X.size <= _SMALL else contextlib.nullcontext():
        return _grown(X, y, weight, folds, seed, n_trees, n_leaves, stops)


def _grown(X, y, weight, folds, seed, n_trees, n_leaves, stops):
    fitted = [
        HistGradientBoostingRegressor(
            max_iter=n_trees, max_leaf_nodes=n_leaves, learning_rate=_RATE, early_stopping=stops,
            validation_fraction=_STOP_FRACTION, random_state=seed,
        ).fit(X[train], y[train], None if weight is None else weight[train])
        for train, _ in folds
    ]  # fmt: skip
    predicted = np.empty(len(y))
    if stops:
        for boosting, (_, rest) in zip(fitted, folds, strict=True):
            predicted[rest] = boosting.predict(X[rest])
        return [Trees.of(boosting) for boosting in fitted], predicted
    # few rows can spare none to stop by: all folds have as many trees as leave the least squares out of fold
    stages = np.empty((n_trees, len(y)))
    for boosting, (_, rest) in zip(fitted, folds, strict=True):
        stages[:, rest] = list(boosting.staged_predict(X[rest]))
    best = int(np.average((stages - y) ** 2, axis=1, weights=weight).argmin())
    return [Trees.of(boosting, best + 1) for boosting in fitted], stages[best]
