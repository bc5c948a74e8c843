"""Targets of a resampler: which classes get how many new rows, and labels in the form in which they were given."""

import importlib
import numbers

import numpy as np
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from .._utils.frame_names import is_pandas, narwhals_frame, narwhals_series
from .._utils.labels import checked_labels

# Names of strategies, and which of the classes (with their counts) they mean.
STRATEGIES = {
    "auto": lambda counts: _but(counts, max),
    "not majority": lambda counts: _but(counts, max),
    "not minority": lambda counts: _but(counts, min),
    "minority": lambda counts: [min(counts, key=counts.get)],
    "all": lambda counts: list(counts),
}


def _but(counts, extreme):
    left_out = extreme(counts, key=counts.get)
    return [label for label in counts if label != left_out]


def _whole(n, label):
    """A number of rows as an int."""
    if isinstance(n, bool) or not isinstance(n, numbers.Real) or not float(n).is_integer():
        raise ValueError(f"sampling_strategy asks for {n!r} rows of class {label!r}, but expected a whole number.")
    return int(float(n))


class Targets:
    """Checked labels, and how to give them back.

    Parameters
    ----------
    y : array-like, series or frame
        Labels, one for each row: in one column, or as indicators of the classes.

    Attributes
    ----------
    labels : ndarray of shape (n_samples,)
    counts : dict
        Number of rows by class.
    """

    def __init__(self, y):
        self.given, values = y, checked_labels(y)
        kind = type_of_target(values)
        check_classification_targets(values if values.ndim == 1 or values.shape[1] > 1 else values.ravel())
        self.is_indicator = values.ndim == 2 and values.shape[1] > 1
        if kind.startswith("multi") and self.is_indicator and (kind != "multilabel-indicator" or _several(values)):
            raise ValueError(
                "Multilabel and multioutput targets are not supported: pass one column of labels, or indicators of "
                "which each row has exactly one."
            )
        self.labels = values.argmax(1) if self.is_indicator else values.ravel()
        classes, counts = np.unique(self.labels, return_counts=True)
        self.counts = dict(zip(classes.tolist(), counts.tolist(), strict=True))
        if len(self.counts) < 2:
            raise ValueError(f"y has one class, {classes[0]!r}, but at least two are needed to balance them.")

    def new_rows(self, strategy):
        """The number of new rows by class."""
        strategy = strategy(self.given) if callable(strategy) else strategy
        most = max(self.counts.values())
        if isinstance(strategy, str):
            return {label: most - self.counts[label] for label in STRATEGIES[strategy](self.counts)}
        if isinstance(strategy, numbers.Real):
            return self._by_ratio(float(strategy), most)
        unknown = [label for label in strategy if label not in self.counts]
        if unknown:
            raise ValueError(f"sampling_strategy names the classes {unknown}, but y has {list(self.counts)}.")
        strategy = {label: _whole(n, label) for label, n in strategy.items()}
        low = {label: n for label, n in strategy.items() if n < self.counts[label]}
        if low:
            raise ValueError(
                f"sampling_strategy asks for {low} rows, but y has { ({k: self.counts[k] for k in low}) } of these "
                "classes: give the number of rows with the new ones, at least as many as there are."
            )
        return {label: n - self.counts[label] for label, n in strategy.items()}

    def _by_ratio(self, ratio, most):
        if len(self.counts) > 2:
            raise ValueError(
                f"Got sampling_strategy={ratio:g} for {len(self.counts)} classes, but a ratio of the rare class to the "
                "frequent one needs two: pass a dict of numbers of rows by class."
            )
        rare = min(self.counts, key=lambda label: self.counts[label])
        wanted = int(ratio * most)
        if wanted < self.counts[rare]:
            raise ValueError(
                f"Got sampling_strategy={ratio:g}, but the ratio is {self.counts[rare] / most:.3g} already: give more."
            )
        return {rare: wanted - self.counts[rare]}

    def with_new(self, new):
        """The labels given, followed by new ones, in the form given."""
        new = np.asarray(new, dtype=self.labels.dtype)
        if self.is_indicator:
            new = new[:, None] == np.arange(np.asarray(self.given).shape[1])
        return appended(self.given, new)


def _several(values):
    return bool((np.asarray(values).sum(1) != 1).any())


def appended(given, new):
    """Rows followed by others, in the form of the former; arrays are cast to it."""
    if is_pandas(given, "Index") or is_pandas(given, "Categorical"):
        pd = importlib.import_module("pandas")
        column = appended(pd.Series(given), new)
        return pd.Index(column, name=given.name) if is_pandas(given, "Index") else column.array
    if isinstance(given, tuple):
        return tuple(appended(list(given), new))
    if is_pandas(given, "Series") or is_pandas(given):
        pd = importlib.import_module("pandas")
        if not isinstance(new, type(given)):
            new = _as_pandas(pd, given, new)
        return pd.concat([given, new], ignore_index=True)
    frame = narwhals_frame(given) if narwhals_series(given) is None else narwhals_series(given)
    if frame is not None:
        nw = importlib.import_module("narwhals.stable.v2")
        if isinstance(new, np.ndarray):
            return _appended_by_narwhals(nw, frame, new)
        return nw.concat([frame, nw.from_native(new)]).to_native()
    values = np.asarray(given)
    joined = np.concatenate([values, np.reshape(new, (-1, *values.shape[1:])).astype(values.dtype)])
    return joined.tolist() if isinstance(given, list) else joined


def _appended_by_narwhals(nw, given, new):
    """A series or a frame of narwhals followed by an array, in the library and the dtypes of the former."""
    is_series = isinstance(given, nw.Series)
    frame = given.to_frame() if is_series else given
    columns = [
        nw.new_series(name, cells.tolist(), backend=frame.implementation).cast(dtype).to_frame()
        for (name, dtype), cells in zip(frame.schema.items(), np.reshape(new, (len(new), -1)).T, strict=True)
    ]
    joined = nw.concat([frame, nw.concat(columns, how="horizontal")])
    return (joined[given.name] if is_series else joined).to_native()


def _as_pandas(pd, given, new):
    if is_pandas(given, "Series"):
        return pd.Series(new, name=given.name).astype(given.dtype)
    return pd.DataFrame(np.reshape(new, (len(new), -1)), columns=given.columns).astype(given.dtypes.to_dict())
