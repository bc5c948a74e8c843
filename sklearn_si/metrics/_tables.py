"""Distances between mixed-type tables: marginals, pairs, classifiers, coverage, and signals of copied rows."""

import numpy as np
from scipy import stats
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.utils import check_random_state

from .._utils.figures import Figures
from ._encoder import LARGEST, TableEncoder

__all__ = [
    "c2st",
    "closest_record",
    "coverage",
    "marginal_distances",
    "membership_auc",
    "pair_trends",
    "train_on_synthetic",
]

# Bins of a column of numbers in the contingency table of a pair of columns.
_BINS = 10


class Filled(TransformerMixin, BaseEstimator):
    """Columns that hold nothing in the training rows as zeros: trees find no thresholds in them."""

    def fit(self, X, y=None):
        """Find the columns."""
        self.empty_ = np.isnan(X).all(axis=0)
        return self

    def transform(self, X):
        """Fill them."""
        return np.where(self.empty_, 0.0, X)


def _trees(encoder, target_is_number, random_state, drop=None):
    levels = ~np.delete(encoder.is_number, drop) if drop is not None else ~encoder.is_number
    kind = HistGradientBoostingRegressor if target_is_number else HistGradientBoostingClassifier
    return make_pipeline(Filled(), kind(categorical_features=levels, random_state=random_state))


def c2st(real, synthetic, *, cv=5, random_state=0):
    """Classifier two-sample test: 1 if gradient boosting cannot tell two tables apart, 0 if it always can.

    C2ST = 1 - |2 AUC - 1|

    (Lopez-Paz & Oquab 2017, "Revisiting classifier two-sample tests", with the area under the ROC curve in place of the
    accuracy). The AUC is that of cross-validated predictions of HistGradientBoostingClassifier, on equal numbers of
    rows of both tables. A linear classifier would not see the dependence of columns.

    Parameters
    ----------
    real, synthetic : frame or array-like of shape (n_rows, n_columns)
        Mixed-type tables with the same columns; missing values are allowed. Of the longer table, as many rows as the
        shorter has are drawn at random. For a fair result, pass real rows that the model was not fitted to.
    cv : int, default=5
        Number of folds.
    random_state : int, RandomState instance or None, default=0
        Seed of the drawn rows, the folds and the trees.

    Returns
    -------
    c2st : float
        C2ST in [0, 1].

    Raises
    ------
    ValueError
        When the columns differ, or there are fewer rows than folds.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si.metrics import c2st
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.normal(size=(2, 300, 2))
    >>> c2st(X, Y + 3.0) < 0.05 < 0.7 < c2st(X, Y)
    True
    """
    rng, encoder = check_random_state(random_state), TableEncoder(real)
    tables = [encoder.for_trees(real), encoder.for_trees(synthetic)]
    n = min(len(rows) for rows in tables)
    if n < cv:
        raise ValueError(
            f"The shorter table has {n} rows, but {cv} folds need at least {cv}: pass more rows, or a smaller cv."
        )
    rows = np.concatenate([table[rng.permutation(len(table))[:n]] for table in tables])
    y = np.repeat([0, 1], n)
    seed = rng.randint(2**31 - 1)
    folds = StratifiedKFold(cv, shuffle=True, random_state=seed)
    p = cross_val_predict(_trees(encoder, False, seed), rows, y, cv=folds, method="predict_proba")[:, 1]
    return float(1 - abs(2 * roc_auc_score(y, p) - 1))


def train_on_synthetic(synthetic, test, *, target, train=None, random_state=0):
    """How well gradient boosting that was trained on synthetic rows predicts a column of real rows.

    score = AUC (or R^2) on `test` after training on `synthetic`, to compare with that after training on `train`

    (train on synthetic, test on real: Esteban et al. 2017, arXiv 1706.02633).

    Parameters
    ----------
    synthetic : frame or array-like of shape (n_synthetic, n_columns)
        Rows to train on.
    test : frame or array-like of shape (n_test, n_columns)
        Held-out real rows.
    target : object
        Name of the column (number, for arrays) that is predicted from the others.
    train : frame or array-like of shape (n_train, n_columns), default=None
        Real rows to train on, for comparison; None is for no comparison.
    random_state : int, RandomState instance or None, default=0
        Seed of the trees.

    Returns
    -------
    result : Bunch
        `synthetic` and `real` (NaN without `train`): the scores on `test`. `metric` names the score: "R2" for a column
        of numbers with more than 20 different values, otherwise "AUC", the area under the ROC curve (mean over the
        categories, each against the rest, if there are more than two). If the column has a single value in the rows to
        train on, or in those to test on, the AUC is 0.5 and R^2 is 0.

    Raises
    ------
    ValueError
        When there is no such column.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si.metrics import train_on_synthetic
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(400, 2))
    >>> X[:, 1] = X[:, 0] > 0
    >>> result = train_on_synthetic(X[:200], X[200:], target=1, train=X[:200])
    >>> result.metric, bool(result.synthetic > 0.95)
    ('AUC', True)
    """
    encoder = TableEncoder(test if train is None else train)
    if target not in encoder.names:
        raise ValueError(f"Got target={target!r}, but expected one of the columns {encoder.names}.")
    j = encoder.names.index(target)
    is_number = encoder.is_number[j] and len(np.unique(encoder.columns(test)[j])) > 20
    judge = _Judge(encoder, j, is_number, test, random_state)
    return Figures(
        synthetic=judge.score(synthetic), real=np.nan if train is None else judge.score(train),
        metric="R2" if is_number else "AUC",
    )  # fmt: skip


class _Judge:
    """Scores of trees that predict a column of held-out rows, after training on any table."""

    def __init__(self, encoder, j, is_number, test, random_state):
        self.encoder, self.j, self.is_number, self.random_state = encoder, j, is_number, random_state
        self.X, self.y = self._split(test)

    def _split(self, table):
        rows = self.encoder.for_trees(table)
        y = rows[:, self.j] if self.is_number else np.nan_to_num(rows[:, self.j], nan=-2.0)
        kept = np.abs(y) < LARGEST  # neither missing nor infinite
        return np.delete(rows, self.j, axis=1)[kept], y[kept]

    def score(self, table):
        """The score on the held-out rows of trees that are trained on the table."""
        X, y = self._split(table)
        if len(np.unique(y)) < 2 or len(np.unique(self.y)) < 2:
            return 0.0 if self.is_number else 0.5  # of a single value nothing can be learned, or told apart
        trees = _trees(self.encoder, self.is_number, self.random_state, self.j).fit(X, y)
        if self.is_number:
            return float(r2_score(self.y, trees.predict(self.X)))
        p = np.zeros((len(self.y), len(trees.classes_)))
        p[:] = trees.predict_proba(self.X)
        areas = [
            roc_auc_score(self.y == k, p[:, c]) for c, k in enumerate(trees.classes_) if 0 < (self.y == k).mean() < 1
        ]
        return float(np.mean(areas)) if areas else 0.5


def marginal_distances(real, synthetic):
    """Distance between the marginal distributions of each column of two tables.

    KS = sup_x |F(x) - G(x)| for numbers,    TV = sum_k |p_k - q_k| / 2 for categories

    (Kolmogorov-Smirnov distance and total variation). A missing value counts as a category; for numbers, the
    difference of the shares of missing values is taken if it is larger than KS.

    Parameters
    ----------
    real, synthetic : frame or array-like of shape (n_rows, n_columns)
        Mixed-type tables with the same columns.

    Returns
    -------
    distances : dict
        Maps the name of each column to its distance in [0, 1]: 0 for equal distributions.

    Raises
    ------
    ValueError
        When the columns differ.

    Examples
    --------
    >>> from sklearn_si.metrics import marginal_distances
    >>> marginal_distances([["a", 1], ["b", 2]], [["a", 1], ["a", 2]])
    {0: 0.5, 1: 0.0}
    """
    encoder = TableEncoder(real)
    pairs = zip(encoder.columns(real), encoder.columns(synthetic), strict=True)
    return {
        name: _number_distance(a, b) if is_number else _total_variation(_shares(a), _shares(b))
        for name, is_number, (a, b) in zip(encoder.names, encoder.is_number, pairs, strict=True)
    }


def _number_distance(a, b):
    missing = abs(np.isnan(a).mean() - np.isnan(b).mean())
    a, b = a[~np.isnan(a)], b[~np.isnan(b)]
    if not len(a) or not len(b):
        return float(max(missing, float(len(a) != len(b))))
    return float(max(missing, stats.ks_2samp(a, b, method="asymp").statistic))


def _shares(codes):
    """The share of each value; missing values are -2."""
    values, counts = np.unique(np.nan_to_num(codes, nan=-2.0), return_counts=True)
    return dict(zip(values.tolist(), (counts / len(codes)).tolist(), strict=True))


def _total_variation(p, q):
    return float(sum(abs(p.get(k, 0.0) - q.get(k, 0.0)) for k in {*p, *q}) / 2)


def pair_trends(real, synthetic):
    """Distance between the dependence of each pair of columns in two tables.

    |rho - rho'| / 2 for two columns of numbers,    TV = sum_kl |p_kl - q_kl| / 2 for other pairs

    with Spearman's rank correlations rho, and the shares p_kl and q_kl of the cells of the contingency tables; there,
    numbers are binned at the deciles of `real`.

    Parameters
    ----------
    real, synthetic : frame or array-like of shape (n_rows, n_columns)
        Mixed-type tables with the same columns.

    Returns
    -------
    distances : ndarray of shape (n_columns, n_columns)
        A symmetric matrix of distances in [0, 1], with zeros on the diagonal.

    Raises
    ------
    ValueError
        When the columns differ.

    Examples
    --------
    >>> from sklearn_si.metrics import pair_trends
    >>> pair_trends([["a", "c"], ["b", "d"]], [["a", "d"], ["b", "c"]])
    array([[0., 1.],
           [1., 0.]])
    """
    encoder = TableEncoder(real)
    a, b = encoder.columns(real), encoder.columns(synthetic)
    cut = [_cut(x, y) if number else (x, y) for x, y, number in zip(a, b, encoder.is_number, strict=True)]
    distances = np.zeros((len(a), len(a)))
    for i in range(len(a)):
        for j in range(i):
            if encoder.is_number[i] and encoder.is_number[j]:
                distances[i, j] = abs(_rank_correlation(a[i], a[j]) - _rank_correlation(b[i], b[j])) / 2
            else:
                tables = [_shares(_joint(cut[i][k], cut[j][k])) for k in (0, 1)]
                distances[i, j] = _total_variation(*tables)
    return distances + distances.T


def _cut(real, synthetic):
    present = np.clip(real[~np.isnan(real)], -LARGEST, LARGEST)
    edges = np.unique(np.quantile(present, np.linspace(0, 1, _BINS + 1)[1:-1])) if len(present) else np.array([0.0])
    return tuple(np.where(np.isnan(x), np.nan, np.searchsorted(edges, x, side="right")) for x in (real, synthetic))


def _joint(a, b):
    return np.nan_to_num(a, nan=-2.0) * 1000 + np.nan_to_num(b, nan=-2.0)


def _rank_correlation(a, b):
    both = ~np.isnan(a) & ~np.isnan(b)
    if both.sum() < 3:
        return 0.0
    ranks = stats.rankdata(a[both]), stats.rankdata(b[both])
    return 0.0 if min(np.ptp(r) for r in ranks) == 0 else float(np.corrcoef(*ranks)[0, 1])


def coverage(real, synthetic, *, n_neighbors=5):
    """The share of real rows near which there is a synthetic row.

    coverage = mean over real rows i of [min_j |x_i - y_j| <= NND_k(x_i)]

    (Naeem et al. 2020, arXiv 2002.09797, equation (8)), where NND_k is the distance to the k-th nearest real row. The
    distance is that of Gower: numbers are scaled to [0, 1] by the range of `real`, and two different categories are at
    distance 1. Coverage is low if the synthetic rows leave out parts of the distribution.

    Parameters
    ----------
    real, synthetic : frame or array-like of shape (n_rows, n_columns)
        Mixed-type tables with the same columns.
    n_neighbors : int, default=5
        The number k of neighbours.

    Returns
    -------
    coverage : float
        A share in [0, 1], near 1 - 2^-k for two samples of the same distribution with equally many rows.

    Raises
    ------
    ValueError
        When the columns differ, or there are no more than `n_neighbors` real rows.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si.metrics import coverage
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.normal(size=(2, 500, 2))
    >>> coverage(X, Y[Y[:, 0] > 0]) < 0.7 < 0.9 < coverage(X, Y)
    True
    """
    encoder = TableEncoder(real)
    rows, new = encoder.for_distances(real), encoder.for_distances(synthetic)
    if len(rows) <= n_neighbors:
        raise ValueError(
            f"Got {len(rows)} real rows, but n_neighbors={n_neighbors} needs at least {n_neighbors + 1}: pass more "
            "rows, or a smaller n_neighbors."
        )
    radius = _nearest(rows, rows, n_neighbors + 1)[:, -1]
    return float((_nearest(new, rows)[:, 0] <= radius).mean())


def _nearest(rows, queries, k=1):
    """The L1 distances from the queries to their k nearest rows."""
    return NearestNeighbors(n_neighbors=k, metric="manhattan").fit(rows).kneighbors(queries)[0]


def closest_record(train, synthetic, holdout):
    """Whether synthetic rows are nearer to training rows than to rows that the model has not seen.

    share = P(d(y, train) < d(y, holdout)) + P(d(y, train) = d(y, holdout)) / 2

    for synthetic rows y, their distance d to the nearest row, and as many training rows as there are held-out rows. The
    distance is that of Gower, as in `coverage`. A model that copies its training rows has a share near 1, and one that
    has learned the distribution near 1/2. The share is a signal of risk and no guarantee: a model may disclose rare
    rows at a share of 1/2.

    Parameters
    ----------
    train, synthetic, holdout : frame or array-like of shape (n_rows, n_columns)
        Rows that the model was fitted to, rows that it drew, and real rows that it has not seen.

    Returns
    -------
    result : Bunch
        `share`, as above. `copies` is the share of synthetic rows that equal a training row, and `holdout_copies` the
        share of held-out rows that do. `train_distance` and `holdout_distance` are the medians of the distances from
        synthetic rows to the nearest training and held-out rows; each column contributes between 0 and 1.

    Raises
    ------
    ValueError
        When the columns differ.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si.metrics import closest_record
    >>> X, Y = np.random.default_rng(0).normal(size=(2, 200, 2))
    >>> closest_record(X, X, Y).share
    1.0
    """
    encoder = TableEncoder(train)
    a, y, b = (encoder.for_distances(table) for table in (train, synthetic, holdout))
    n = min(len(a), len(b))
    rng = np.random.RandomState(0)
    some = a[rng.permutation(len(a))[:n]]
    to_train, to_holdout = _nearest(some, y)[:, 0], _nearest(b[:n], y)[:, 0]
    share = (to_train < to_holdout).mean() + 0.5 * (to_train == to_holdout).mean()
    return Figures(
        share=float(share), copies=float((_nearest(a, y)[:, 0] == 0).mean()),
        holdout_copies=float((_nearest(a, b)[:, 0] == 0).mean()),
        train_distance=float(np.median(to_train)), holdout_distance=float(np.median(to_holdout)),
    )  # fmt: skip


def membership_auc(model, train, holdout):
    """How well the log-density of a model tells training rows from rows that the model has not seen.

    AUC = P(log p(x) > log p(x')) + P(log p(x) = log p(x')) / 2    for x from `train` and x' from `holdout`

    (the loss-threshold attack of Yeom et al. 2018, arXiv 1709.01604). It is near 1/2 if the density discloses nothing
    about membership, and 1 if it identifies every training row. It is a signal of risk and no guarantee: stronger
    attacks exist.

    Parameters
    ----------
    model : estimator
        A fitted model with `score_samples`.
    train, holdout : frame or array-like of shape (n_rows, n_columns)
        Rows that the model was fitted to, and rows of the same distribution that it was not.

    Returns
    -------
    auc : float
        The area under the ROC curve, in [0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.neighbors import KernelDensity
    >>> from sklearn_si.metrics import membership_auc
    >>> X, Y = np.random.default_rng(0).normal(size=(2, 100, 2))
    >>> membership_auc(KernelDensity(bandwidth=0.01).fit(X), X, Y) > 0.99
    True
    """
    scores = np.concatenate([model.score_samples(train), model.score_samples(holdout)])
    return float(roc_auc_score(np.repeat([1, 0], [len(train), len(holdout)]), scores))
