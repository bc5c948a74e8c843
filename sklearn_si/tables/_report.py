"""What to look at before a synthetic table is used: a report on its likeness and on signals of copying."""

import importlib
from typing import Any

import numpy as np

from .._utils.frame_names import is_pandas
from .._utils.frames import Table
from ..metrics import (
    c2st,
    closest_record,
    coverage,
    marginal_distances,
    maximum_mean_discrepancy,
    membership_auc,
    pair_trends,
    sliced_wasserstein,
    train_on_synthetic,
)
from ..metrics._encoder import TableEncoder
from ._giveaways import find_giveaways

__all__ = ["TableReport"]

# Rows that are compared where the distance of every pair counts.
_ROWS = 5000
# Columns that are drawn.
_PICTURES = 24
# Bins of a histogram.
_BARS = 30


class TableReport:
    """A synthetic table beside a real one: how alike they are, and how near to copies.

    Parameters
    ----------
    real : frame or array-like of shape (n_rows, n_columns)
        The rows that the model was fitted to.
    synthetic : frame or array-like of shape (n_synthetic, n_columns)
        What it draws.
    holdout : frame or array-like of shape (n_holdout, n_columns), default=None
        Real rows that it never saw. With them likeness is measured against these, and signals of copying are given:
        without them neither a perfect score nor a distance means much, and the report says so.
    target : object, default=None
        A column to predict: how well from training on synthetic rows (needs `holdout`).
    model : estimator, default=None
        The fitted model, for the attack on its density (needs `holdout`).
    random_state : int, RandomState instance or None, default=0
        Seed of rows and classifiers.

    Attributes
    ----------
    measures : dict
        Name of the measure to (value, value of real rows in the place of the synthetic ones or None, what it says).
    marginals : dict
        Distance of each column (`marginal_distances`).
    pairs : ndarray of shape (n_columns, n_columns)
        Distances of the pairs (`pair_trends`).
    giveaways : Giveaways
        What gives the synthetic table away: `columns` and `pairs` that a classifier uses, `rows` that it detects most
        surely, `values` drawn too often or too seldom, and relations of the real rows that are `broken`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si.tables import TableReport
    >>> X, Y, Z = np.random.default_rng(0).normal(size=(3, 200, 2))
    >>> report = TableReport(X, Y, Z)
    >>> sorted(report.measures)[:3]
    ['C2ST', 'MMD', 'closest record']
    """

    def __init__(self, real, synthetic, holdout=None, *, target=None, model=None, random_state=0):
        self.real, self.synthetic, self.holdout = real, synthetic, holdout
        self.names = [str(name) for name in Table.of(real, "real").names]
        against = real if holdout is None else holdout
        self.marginals, self.pairs = marginal_distances(against, synthetic), pair_trends(against, synthetic)
        self.measures = {}
        self._measure_likeness(against, random_state)
        self.giveaways = find_giveaways(real, synthetic, against, random_state)
        if holdout is not None:
            self._measure_use(target, random_state)
            self._measure_copying(model)

    def _measure_likeness(self, against, random_state):
        rows = {"synthetic": self.synthetic, "real": None if self.holdout is None else self.real}
        encoder = TableEncoder(against)
        points = {k: None if t is None else encoder.for_distances(t)[:_ROWS] for k, t in rows.items()}
        there = encoder.for_distances(against)[:_ROWS]

        def both(measure, tables=rows):
            return tuple(None if tables[k] is None else measure(tables[k]) for k in ("synthetic", "real"))

        n = len(there)
        few = {k: None if t is None else _head(t, n) for k, t in rows.items()}
        self.measures["marginals"] = (
            *both(lambda t: _mean_of(marginal_distances(against, t))),
            ("mean distance of the columns' distributions (KS, TV); 0 is equal"),
        )
        self.measures["pairs"] = (
            *both(lambda t: _mean_off_diagonal(pair_trends(against, t))),
            ("mean distance of the dependence of two columns; 0 is equal"),
        )
        self.measures["C2ST"] = (
            *both(lambda t: c2st(against, t, random_state=random_state)),
            ("gradient boosting cannot tell the tables apart: 1, always can: 0"),
        )
        self.measures["coverage"] = (
            *both(lambda t: coverage(_head(against, n), t), few),
            ("share of real rows with a synthetic row near them"),
        )
        self.measures["sliced W2"] = (
            *both(lambda p: sliced_wasserstein(p, there, standardize=False), points),
            ("distance of the distributions, numbers to [0, 1]; 0 is equal"),
        )
        self.measures["MMD"] = (
            *both(lambda p: maximum_mean_discrepancy(p, there), points),
            ("squared distance of the distributions by a kernel; 0 is equal"),
        )

    def _measure_use(self, target, random_state):
        if target is not None:
            result = train_on_synthetic(
                self.synthetic, self.holdout, target=target, train=self.real, random_state=random_state
            )
            self.measures[f"{result.metric} of {target}"] = (
                result.synthetic, result.real, "trained on synthetic rows, tested on held-out ones",
            )  # fmt: skip

    def _measure_copying(self, model):
        few = _head(self.synthetic, _ROWS)
        copying = closest_record(self.real, few, self.holdout)
        self.measures["closest record"] = (
            copying.share, 0.5, "share of rows nearer to training rows than to held-out ones; above: signal of risk",
        )  # fmt: skip
        self.measures["copies"] = (
            copying.copies, copying.holdout_copies, "share of rows that equal a training row; above: signal of risk",
        )  # fmt: skip
        if model is not None:
            auc = membership_auc(model, _head(self.real, _ROWS), _head(self.holdout, _ROWS))
            self.measures["membership AUC"] = (
                auc, 0.5, "the density tells training rows from held-out ones; above: signal of risk",
            )  # fmt: skip

    def __str__(self):
        """The measures, one a line, and what they are measured against."""
        width = max(len(name) for name in self.measures)
        lines = [f"{'':<{width}}  synthetic      real"]
        for name, (value, reference, meaning) in self.measures.items():
            beside = f"{reference:>8.4f}" if reference is not None else "       -"
            lines.append(f"{name:<{width}}   {value:>8.4f}  {beside}  {meaning}")
        worst = sorted(self.marginals, key=self.marginals.get, reverse=True)[:3]
        lines.append("columns that differ most: " + ", ".join(f"{name} {self.marginals[name]:.3f}" for name in worst))
        lines.extend(self.giveaways.lines())
        if self.holdout is None:
            lines.append(
                "Without held-out rows the reference is what the model was fitted to: nothing is said of copying."
            )
        else:
            lines.append("Signals of copying are signals: none of them guarantees that rows cannot be traced.")
        return "\n".join(lines)

    def __repr__(self):
        """The same as text."""
        return str(self)

    def to_frame(self):
        """The measures as a pandas frame.

        Returns
        -------
        frame : pandas.DataFrame
            Columns "synthetic", "real" and "meaning", a row for each measure.
        """
        pd = importlib.import_module("pandas")
        return pd.DataFrame.from_dict(self.measures, orient="index", columns=["synthetic", "real", "meaning"])

    def plot(self):
        """A page of pictures: each column's distribution in both tables, and the distances of all pairs.

        Returns
        -------
        figure : matplotlib.figure.Figure
        """
        plt = importlib.import_module("matplotlib.pyplot")
        encoder = TableEncoder(self.real)
        both = zip(encoder.columns(self.real), encoder.columns(self.synthetic), strict=True)
        pairs = [_in_years(series, *pair) for series, pair in zip(encoder.table.series, both, strict=True)][:_PICTURES]
        n_rows = -(-(len(pairs) + 1) // 4)
        figure, axes = plt.subplots(n_rows, 4, figsize=(16, 3 * n_rows), layout="constrained", squeeze=False)
        for j, (axis, pair) in enumerate(zip(axes.flat, pairs, strict=False)):
            if encoder.is_number[j]:
                _draw_numbers(axis, *pair)
            else:
                _draw_levels(axis, encoder.levels[j], *pair)
            axis.set_title(f"{self.names[j]}  ({self.marginals[encoder.names[j]]:.3f})", fontsize=10)
        axes.flat[0].legend(fontsize=8)
        _draw_pairs(figure, axes.flat[len(pairs)], self.pairs)
        for axis in axes.flat[len(pairs) + 1 :]:
            axis.set_axis_off()
        return figure


def _head(table, n):
    return table.iloc[:n] if is_pandas(table) else table[:n]


def _mean_of(distances):
    return float(np.mean(list(distances.values())))


def _mean_off_diagonal(distances):
    n = len(distances)
    return float(distances.sum() / (n * (n - 1))) if n > 1 else 0.0


def _in_years(series, *columns):
    """Dates as years, other columns as they are."""
    if not series.is_date or series.dtype.kind != "M":
        return columns
    unit: Any = getattr(series.dtype, "unit", None) or np.datetime_data(series.dtype)[0]
    return tuple(1970 + values * (np.timedelta64(1, unit) / np.timedelta64(31_556_952, "s")) for values in columns)


def _draw_numbers(axis, real, synthetic):
    both = np.concatenate([real, synthetic])
    both = both[np.isfinite(both)]
    edges = np.linspace(both.min(), both.max(), _BARS + 1) if len(both) else np.linspace(0, 1, _BARS + 1)
    for values, style in ((real, {"alpha": 0.4}), (synthetic, {"histtype": "step", "linewidth": 1.5})):
        kept = values[np.isfinite(values)]
        label = "synthetic" if "histtype" in style else "real"
        axis.hist(kept, edges, weights=np.full(len(kept), 1 / max(1, len(values))), label=label, **style)
    axis.set_ylabel("share of rows", fontsize=8)
    axis.tick_params(labelsize=8)


def _draw_levels(axis, levels, real, synthetic):
    levels, places = levels[:10], np.arange(min(10, len(levels)))
    for values, shift, label in ((real, -0.2, "real"), (synthetic, 0.2, "synthetic")):
        axis.bar(places + shift, [(values == k).mean() for k in places], 0.4, label=label)
    axis.set_xticks(places, [str(level)[:12] for level in levels], rotation=60, ha="right", fontsize=7)
    axis.set_ylabel("share of rows", fontsize=8)
    axis.tick_params(axis="y", labelsize=8)


def _draw_pairs(figure, axis, distances):
    image = axis.imshow(distances, vmin=0, vmax=max(0.1, distances.max()), cmap="viridis")
    figure.colorbar(image, ax=axis)
    axis.set_title("distance of pairs of columns", fontsize=10)
    axis.set_xlabel("column", fontsize=8)
    axis.set_ylabel("column", fontsize=8)
