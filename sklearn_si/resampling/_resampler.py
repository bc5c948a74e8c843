"""Further rows of rare classes, drawn from a model of the table."""

import dataclasses
import importlib
import numbers
from typing import ClassVar

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, clone
from sklearn.utils import InputTags, Tags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_feature_names, check_consistent_length

from .._utils.frame_names import is_frame, is_pandas, narwhals_frame
from .._utils.kinds import as_cells
from .._utils.links import LinkedEstimator
from .._utils.names import registered
from .._utils.tensors import draw_seed
from ..distributed import current_group
from ..tables import TableSynthesizer
from ._targets import STRATEGIES, Targets, appended


@dataclasses.dataclass
class SamplerTags:
    """What imbalanced-learn asks of a sampler: whether it tells which rows it has chosen."""

    sample_indices: bool = False


@dataclasses.dataclass
class SamplerInputTags(InputTags):
    """What imbalanced-learn asks of the input of a sampler: whether frames are accepted."""

    dataframe: bool = True


@dataclasses.dataclass
class ResamplerTags(Tags):
    """Tags with those of a sampler."""

    sampler_tags: SamplerTags = dataclasses.field(default_factory=SamplerTags)


@registered("TableResampler")
class TableResampler(LinkedEstimator, OneToOneFeatureMixin, BaseEstimator):
    """Draw further rows of rare classes from p(x | y), in tables with columns of any kind.

    A TableSynthesizer learns the columns together with the class, with weights by which all classes count the same:
    rare classes have learned from the frequent ones what they share with them. The new rows follow the given ones.
    The interface is that of imbalanced-learn, in whose Pipeline a resampler changes the rows of training alone.

    Parameters
    ----------
    estimator : TableSynthesizer or None, default=None
        What learns the table; a clone of it is fitted. None is TableSynthesizer().
    sampling_strategy : str, float, dict or callable, default="auto"
        Which classes get how many rows. "minority", "not minority", "not majority" (which is "auto") and "all" name
        classes, each of which gets as many rows as the most frequent one has. A number in (0, 1] is the ratio of the
        rare class to the frequent one after resampling, for two classes. A dict gives the numbers of rows after
        resampling by class, and a callable makes such a dict from y.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws, and of an estimator whose own `random_state` is None.

    Attributes
    ----------
    sampling_strategy_ : dict
        The number of new rows by class.
    estimator_ : TableSynthesizer
        The fitted model of the table.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of str
        Names of the columns, if fit was given a frame.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si.resampling import TableResampler
    >>> from sklearn_si.tables import TableSynthesizer
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(60, 2)), np.repeat([0, 1], [50, 10])
    >>> resampler = TableResampler(TableSynthesizer(max_iter=10), random_state=0)
    >>> X_new, y_new = resampler.fit_resample(X + y[:, None], y)
    >>> np.bincount(y_new)
    array([50, 50])
    """

    _parameter_constraints: ClassVar[dict] = {
        "estimator": [TableSynthesizer, None],
        "sampling_strategy": [
            StrOptions(set(STRATEGIES)), Interval(numbers.Real, 0, 1, closed="right"), dict, callable,
        ],
        "random_state": ["random_state"],
    }  # fmt: skip

    def __init__(self, estimator=None, sampling_strategy="auto", random_state=None):
        self.estimator = estimator
        self.sampling_strategy = sampling_strategy
        self.random_state = random_state

    def fit(self, X, y):
        """Check the table and the classes, and count the rows to draw.

        Parameters
        ----------
        X : frame or array-like of shape (n_samples, n_features)
            Rows with columns of any kind.
        y : array-like of shape (n_samples,)
            Their classes.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            When y has one class alone or is no classification target, or when `sampling_strategy` does not fit to it.
        """
        self._checked(X, y)
        return self

    def _checked(self, X, y):
        self._validate_params()
        if sparse.issparse(X):
            raise TypeError("X is a sparse matrix, but a table of cells is needed: pass X.toarray().")
        rows = X if is_frame(X) else as_cells(X, "X")
        if len(np.shape(rows)) != 2:
            raise ValueError(f"X has the shape {np.shape(rows)}, but expected (n_samples, n_features): reshape it.")
        targets = Targets(y)
        check_consistent_length(rows, targets.labels)
        _check_feature_names(self, rows, reset=True)
        self.n_features_in_ = rows.shape[1]
        self.sampling_strategy_ = targets.new_rows(self.sampling_strategy)
        return rows, targets

    def fit_resample(self, X, y):
        """Learn the table, and append rows that are drawn from it.

        Parameters
        ----------
        X : frame or array-like of shape (n_samples, n_features)
            Rows with columns of any kind.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Their classes, or indicators of them.

        Returns
        -------
        X_resampled : frame or array of shape (n_samples + n_new, n_features)
            The rows of X, followed by new ones, in the container and the dtypes of X.
        y_resampled : array-like of shape (n_samples + n_new,)
            Their classes, in the form of y.

        Raises
        ------
        ValueError
            As `fit`, and when `TableSynthesizer.fit` raises.
        """
        current_group().refuse(
            "TableResampler returns rows beside those of its table, which in a group is a part of the whole: resample "
            "the whole table before the processes share it, or each part by itself"
        )
        rows, targets = self._checked(X, y)
        seed = draw_seed(self.random_state)
        classes = list(targets.counts)
        words = {label: f"class {k}" for k, label in enumerate(classes)}
        of_rows = np.array([words[label] for label in targets.labels.tolist()], dtype=object)
        table, name = _with_column(rows, of_rows)
        estimator = clone(self.estimator) if self.estimator is not None else TableSynthesizer()
        if estimator.random_state is None:
            estimator.set_params(random_state=seed)
        share = {label: 1 / n for label, n in targets.counts.items()}
        weight = np.array([share[label] for label in targets.labels.tolist()])
        self.estimator_ = estimator.fit(table, sample_weight=weight)
        resampled, labels = rows, []
        for k, label in enumerate(classes):
            n = self.sampling_strategy_.get(label, 0)
            if n:
                drawn = estimator.sample(n, given=_given(rows, name, words[label]), random_state=seed + k)
                resampled = appended(resampled, _without_column(drawn, name))
                labels += [label] * n
        return (resampled.tolist() if isinstance(X, list) else resampled), targets.with_new(labels)

    def __sklearn_tags__(self):
        """The tags of scikit-learn, and those that imbalanced-learn adds: words and missing values are accepted."""
        tags = super().__sklearn_tags__()
        inputs = SamplerInputTags(string=True, categorical=True, allow_nan=True)
        known = {f.name: getattr(tags, f.name) for f in dataclasses.fields(tags)}
        tags = ResamplerTags(**{**known, "input_tags": inputs})
        tags.target_tags.required = True
        return tags


def _with_column(rows, column):
    """A table with one more column at its end, and the name of that."""
    if isinstance(rows, np.ndarray):
        return np.column_stack([rows.astype(object), column]), rows.shape[1]
    name = "class"
    while name in list(rows.columns):
        name += "_"
    if is_pandas(rows):
        return rows.assign(**{name: column}), name
    nw, frame = importlib.import_module("narwhals.stable.v2"), narwhals_frame(rows)
    series = nw.new_series(name, column.tolist(), backend=frame.implementation)
    return frame.with_columns(series).to_native(), name


def _given(rows, name, word):
    """What `sample` is given: the class, and no other cell."""
    if not isinstance(rows, np.ndarray):
        return {name: word}
    cells = np.full((1, rows.shape[1] + 1), None, dtype=object)
    cells[0, -1] = word
    return cells


def _without_column(rows, name):
    """A table without one of its columns."""
    if isinstance(rows, np.ndarray):
        return np.delete(rows, name, axis=1)
    return rows.drop(columns=name) if is_pandas(rows) else rows.drop(name)
