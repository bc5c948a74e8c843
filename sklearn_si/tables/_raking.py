"""A fitted synthesizer reweighted to new margins: iterative proportional fitting of drawn rows."""

import math
import numbers
import warnings
from typing import Any

import numpy as np
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_is_fitted

from .._utils.callers import users_level
from .._utils.cells import is_missing
from .._utils.figures import Figures
from .._utils.frame_names import is_frame, is_pandas
from .._utils.input_checks import check_count
from .._utils.names import registered
from .._utils.reweighted import Reweighted
from .._utils.tensors import draw_seed
from .._utils.weights import systematic_rows
from ._margins import Margin, is_range, ordered
from ._raked_given import sample_given

__all__ = ["RakedSynthesizer"]

# Rows that are drawn to fit the factors.
_ROWS = 20_000
# Largest difference of a share from its total after the fit of the factors, and of a total from 1 in sum.
_ROUNDING = 1e-6
# Rounds of iterative proportional fitting.
_ROUNDS = 2000
# Rows that are drawn for each row that is kept, at the most.
_MOST_TIMES = 10
# Rows that are drawn for a sample, at the least: with fewer, the margins of what is kept are those of few rows.
_LEAST_ROWS = 1000
# Relative difference of the sums of two totals by which they contradict each other.
_UNEQUAL = 1e-3
# Effective share of the drawn rows below which a warning says that few rows have most of the weight.
_LEAST_SHARE = 0.1
# Relative excess of rounded shares over 1 in sum, up to which they are shares.
_ROUNDED = 0.02
# Levels that an error lists.
_FEW = 20


def proportional_factors(
    labels: list[np.ndarray], margins: list[Margin], start: list[np.ndarray] | None = None
) -> list[np.ndarray]:
    """Factors of the groups of each margin with which weighted rows have all shares.

    w_i = prod_m f_m[label_m(i)],    f_m[k] <- f_m[k] share_m[k] / sum over rows of group k of w

    in turn for each margin m (Deming & Stephan 1940): of all weights with these shares, those nearest to equal ones in
    Kullback-Leibler divergence (Csiszar 1975). The weights have mean one.

    Raises
    ------
    ValueError
        When a share is asked for of a group without a row, or when no weights have all shares.
    """
    n, wanted = len(labels[0]), [_wanted(own, margin) for own, margin in zip(labels, margins, strict=True)]
    factors = [np.ones(len(shares)) for shares in wanted] if start is None else [f.copy() for f in start]
    worst = np.inf
    for _ in range(_ROUNDS):
        before = worst
        worst = 0.0
        for own, shares, factor in zip(labels, wanted, factors, strict=True):
            weight = _weights(labels, factors)
            now = np.bincount(own, weight, len(shares)) / n
            worst = max(worst, float(np.abs(now - shares).max()))
            factor *= np.divide(shares, now, out=np.zeros_like(now), where=now > 0)
        if worst <= _ROUNDING:
            return factors
        if worst > before * (1 - 1e-6):
            break
    _refuse_contradiction(labels, wanted, margins, factors)
    return factors


def _weights(labels: list[np.ndarray], factors: list[np.ndarray]) -> np.ndarray:
    return np.prod([factor[own] for own, factor in zip(labels, factors, strict=True)], axis=0)


def _wanted(own: np.ndarray, margin: Margin) -> np.ndarray:
    """The shares of a margin, with those of cells that no total names as they are among themselves."""
    shares, count = margin.shares.copy(), np.bincount(own, minlength=len(margin.shares))
    rest = 1 - shares[:-1].sum()
    shares[-1] = rest if rest > _ROUNDING else 0.0
    empty = np.flatnonzero((shares > 0) & (count == 0))
    if len(empty):
        raise ValueError(
            f"totals[{margin._told()}] gives {margin.named(int(empty[0]))} the share {shares[empty[0]]:.3g}, but none "
            f"of {len(own)} drawn rows is in it: let all totals of a column add up to 1, leave out a level that the "
            "model does not draw, or raise n_rows."
        )
    return shares


def _refuse_contradiction(
    labels: list[np.ndarray], wanted: list[np.ndarray], margins: list[Margin], factors: list[np.ndarray]
) -> None:
    n, weight = len(labels[0]), _weights(labels, factors)
    differences = [
        np.bincount(own, weight, len(shares)) / n - shares for own, shares in zip(labels, wanted, strict=True)
    ]
    worst = max(range(len(differences)), key=lambda m: np.abs(differences[m]).max())
    k = int(np.abs(differences[worst]).argmax())
    if abs(differences[worst][k]) <= 1e-4:
        return
    raise ValueError(
        f"No weights of the drawn rows have all totals: {margins[worst].named(k)} of column {margins[worst]._told()} "
        f"has the share {wanted[worst][k] + differences[worst][k]:.3g} instead of {wanted[worst][k]:.3g} after the "
        "last round. Totals may contradict each other through levels that never stand together: leave one of them "
        "out, or raise n_rows."
    )


@registered("tables.RakedSynthesizer")
class RakedSynthesizer(Reweighted):
    """A fitted synthesizer whose rows have other margins: what `TableSynthesizer.rake` returns.

    q(x) = p(x) prod_m f_m(x) / Z

    with p the fitted distribution and a factor for each group of each margin: of all distributions with these margins
    the one nearest to p in Kullback-Leibler divergence (Csiszar 1975, "I-divergence geometry of probability
    distributions and minimization problems").

    Parameters
    ----------
    synthesizer : TableSynthesizer
        The fitted model.
    margins : list of Margin
        The columns, groups and shares.
    factors : list of ndarray
        Of each margin, the factor of each group.
    report : Bunch
        As `report_`.

    Attributes
    ----------
    report_ : Bunch
        `shares`, a list of dicts with the `column`, the `level`, its share in the `model`, and its share as `asked`;
        `effective_share`, (sum w)^2 / (n sum w^2), how many rows as good as drawn ones a weighted row is worth;
        `largest_weight`; `log_normaliser_error`, the standard error of log Z in nats.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si.tables import TableSynthesizer
    >>> rng = np.random.default_rng(0)
    >>> X = np.column_stack([rng.choice(["a", "b"], size=300), rng.integers(3, size=300)]).astype(object)
    >>> raked = TableSynthesizer(max_iter=50, random_state=0).fit(X).rake({0: {"a": 0.9, "b": 0.1}})
    >>> round(float((raked.sample(1000)[:, 0] == "a").mean()), 2)
    0.9
    """

    def __init__(self, synthesizer: Any, margins: list[Margin], factors: list[np.ndarray], report: Figures) -> None:
        self.synthesizer, self.margins, self.factors, self.report = synthesizer, margins, factors, report

    def __repr__(self) -> str:
        columns = ", ".join(margin._told() for margin in self.margins)
        share = self.report_.effective_share
        return f"RakedSynthesizer({self._of(self.synthesizer)}, totals of {columns}; effective share {share:.3g})"

    def weights(self, X: Any) -> np.ndarray:
        """The weight q(x) / p(x) of rows of the fitted model; their mean over its draws is one.

        Parameters
        ----------
        X : table like that of fit

        Returns
        -------
        weights : ndarray of shape (n_samples,)
        """
        cells = cells_of(X, self.synthesizer.codec_.table_.names, self._columns())
        return _weights([margin.labels(cells) for margin in self.margins], self.factors)

    def score_samples(self, X: Any) -> np.ndarray:
        """Log-density of rows: that of the fitted model, and the log of their weight.

        Parameters
        ----------
        X : table like that of fit

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            In nats, up to `report_.log_normaliser_error`; -inf where a total is 0.
        """
        with np.errstate(divide="ignore"):
            return self.synthesizer.score_samples(X) + np.log(self.weights(X))

    def sample(self, n_samples: int | None = None, *, given: Any = None, random_state: Any = None) -> Any:
        """Draw rows with the new margins.

        Rows of the fitted model are drawn, as many as the largest weight asks for (at most ten for each that is kept),
        and kept with probabilities in proportion to their weights by systematic sampling: the margins of what is kept
        are within a row or so of their totals, and no row is kept twice unless a weight is so large that a warning
        says so.

        Parameters
        ----------
        n_samples : int or None, default=None
            Number of rows; None is one, or one for each row of `given`.
        given : frame, dict or pandas Series, default=None
            Cells that are fixed, as in `TableSynthesizer.sample`: the others follow q(x | given). For each row of
            several, ten candidates or more (ten times the largest weight, at most a hundred) are drawn from
            p(x | given), and one is kept in proportion to the weights.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw; None is that of the synthesizer.

        Returns
        -------
        X : table like that of fit

        Raises
        ------
        ValueError
            As `TableSynthesizer.sample`, and when the totals rule out a row of `given`.
        """
        seed = draw_seed(self.synthesizer.random_state if random_state is None else random_state)
        if given is not None and not (isinstance(given, dict) and not given):
            return sample_given(self, n_samples, given, seed)
        n = check_count(1 if n_samples is None else n_samples, "n_samples")
        times = min(_MOST_TIMES, math.ceil(1.2 * self.report_.largest_weight))
        X = self.synthesizer.sample(max(_LEAST_ROWS, times * n), random_state=seed)
        cells = cells_of(X, self.synthesizer.codec_.table_.names, self._columns())
        labels = [margin.labels(cells) for margin in self.margins]
        rows = systematic_rows(labels, self._weights_of_draw(labels), n, np.random.default_rng([seed, 1]))
        repeated = n - len(np.unique(rows))
        if repeated:
            warnings.warn(
                f"{repeated} of {n} rows are repeated: the totals weigh some rows up to "
                f"{self.report_.largest_weight:.3g} times, and at most {_MOST_TIMES} rows are drawn for each that is "
                "kept.",
                UserWarning,
                stacklevel=users_level(),
            )
        kept = _safe_indexing(X, rows)
        return kept.reset_index(drop=True) if is_pandas(kept) else kept

    def _weights_of_draw(self, labels: list[np.ndarray]) -> np.ndarray:
        """The weights of drawn rows, fitted to these rows anew where they are enough for it."""
        try:
            return _weights(labels, proportional_factors(labels, self.margins, self.factors))
        except ValueError:
            return _weights(labels, self.factors)

    def _columns(self) -> list[Any]:
        return list(dict.fromkeys(name for margin in self.margins for name in margin.columns))


def cells_of(X: Any, names: list[Any], columns: list[Any]) -> dict[Any, list[Any]]:
    """The cells of some columns of a table, as Python objects."""
    if isinstance(X, np.ndarray):
        return {name: X[:, names.index(name)].tolist() for name in columns}
    if not is_frame(X):
        return {name: [row[names.index(name)] for row in X] for name in columns}
    return {name: X[name].tolist() if is_pandas(X) else X[name].to_list() for name in columns}


def read_totals(totals: Any, names: list[Any], levels: Any) -> list[Margin]:
    """The margins of totals, with their shares."""
    if not isinstance(totals, dict) or not totals:
        raise ValueError(
            f"Got totals={totals!r}, but expected a dict from each column to a dict (or a pandas Series) from each "
            "level to its share or count."
        )
    read = [_read_margin(key, total, names, levels) for key, total in totals.items()]
    counts = [(margin, size) for margin, size in read if size is not None]
    for margin, size in counts[1:]:
        if abs(size - counts[0][1]) > _UNEQUAL * counts[0][1]:
            raise ValueError(
                f"The totals of column {counts[0][0]._told()} add up to {counts[0][1]:g}, but those of column "
                f"{margin._told()} to {size:g}: give counts of the same population, or shares."
            )
    return [margin for margin, _ in read]


def _read_margin(key: Any, total: Any, names: list[Any], levels: Any) -> tuple[Margin, float | None]:
    columns = (key,) if key in names or not isinstance(key, tuple) else key
    unknown = [name for name in columns if name not in names]
    if unknown:
        raise ValueError(f"totals names the column {unknown[0]!r}, but expected one of {names[:_FEW]}.")
    total = _levels_of_series(total, key) if is_pandas(total, "Series") else total
    if not isinstance(total, dict) or not total:
        raise ValueError(
            f"Got totals[{key!r}]={total!r}, but expected a dict, or a pandas Series as of value_counts, from each "
            "level to its share or count."
        )
    bad = [v for v in total.values() if isinstance(v, bool) or not isinstance(v, numbers.Real)]
    if bad or not all(math.isfinite(v) and v >= 0 for v in total.values()):
        wrong = bad[0] if bad else next(v for v in total.values() if not (math.isfinite(v) and v >= 0))
        raise ValueError(f"totals[{key!r}] has {wrong!r}, but expected finite numbers of at least 0.")
    groups = [group if len(columns) > 1 else (group,) for group in total]
    for group in groups:
        if not isinstance(group, tuple) or len(group) != len(columns):
            raise ValueError(
                f"totals[{key!r}] names {group!r}, but expected one level for each of the columns {list(columns)}."
            )
        for name, level in zip(columns, group, strict=True):
            _refuse_unseen(name, level, levels(name))
    values = np.array(list(total.values()), dtype=np.float64)
    size = float(values.sum())
    if size == 0:
        raise ValueError(f"The totals of column {key!r} are all 0, but expected one above 0.")
    is_count = size > 1 + _ROUNDING
    if is_count and size > 1 + _ROUNDED and max(values) <= 1 and (values % 1).any():
        raise ValueError(
            f"totals[{key!r}] adds up to {size:g}: expected shares with a sum of at most 1, or counts, of which none "
            "that is above 0 is below 1."
        )
    return Margin(columns, groups, np.append(values / size if is_count else values, np.nan)), size if is_count else None


def _levels_of_series(total: Any, key: Any) -> dict[Any, Any]:
    """A pandas Series of shares or counts, whose index holds the levels, as a dict."""
    if not total.index.is_unique:
        repeated = total.index[total.index.duplicated()].tolist()
        raise ValueError(
            f"totals[{key!r}] has the levels {repeated[:_FEW]} more than once: pass counts of the column, as of "
            "value_counts(), or add up the totals of each level."
        )
    return {plain_cell(level): plain_cell(value) for level, value in total.items()}


def _refuse_unseen(name: Any, level: Any, seen: list[Any] | None) -> None:
    if isinstance(level, tuple) and not (is_range(level) and _is_in_order(*map(ordered, level))):
        raise ValueError(
            f"totals[{name!r}] names {level!r}, but expected a range (low, high) of two numbers or two dates, of which "
            "low is below high and either may be None."
        )
    if seen is None or isinstance(level, tuple) or is_missing(level):
        return
    if not any(value == level for value in seen):
        raise ValueError(
            f"totals[{name!r}] names the level {level!r}, which fit has not seen: expected some of {seen[:_FEW]}."
        )


def _is_in_order(low: tuple[str | None, Any], high: tuple[str | None, Any]) -> bool:
    return low[1] is None or high[1] is None or (low[0] == high[0] and low[1] < high[1])


class RakingMethods:
    """Other margins for a fitted synthesizer."""

    codec_: Any
    sample: Any
    levels: Any

    def rake(self, totals, *, n_rows=_ROWS, random_state=None):
        """Reweight the fitted model to new margins, without a new fit.

        q = argmin KL(q || p) over all distributions with these margins    (iterative proportional fitting)

        Parameters
        ----------
        totals : dict
            For each column a dict from each level to its share or count: ``{"sex": {"f": 0.52, "m": 0.48}}``, or a
            pandas Series of them, such as ``census["sex"].value_counts(normalize=True)``. Counts (with a sum above 1)
            are divided by their sum; levels that shares of a smaller sum leave out keep their proportions in what is
            left. None is the level of missing cells, and a tuple (low, high) holds the numbers (or dates) low <= x <
            high; a key of several columns, ``("sex", "region")``, has tuples of levels.
        n_rows : int, default=20000
            Number of rows that are drawn to fit the weights.
        random_state : int, RandomState instance or None, default=None
            Seed of these rows; None is the estimator's own.

        Returns
        -------
        raked : RakedSynthesizer
            With `sample`, `score_samples`, `weights` and `report_`.

        Raises
        ------
        ValueError
            When totals name a column or a level that fit has not seen, contradict each other, or ask for rows that the
            model does not draw.
        """
        check_is_fitted(self)
        n_rows = check_count(n_rows, "n_rows")
        names = self.codec_.table_.names
        margins = read_totals(totals, names, self._known_levels)
        X = self.sample(n_rows, random_state=random_state)
        cells = cells_of(X, names, [name for margin in margins for name in margin.columns])
        labels = [margin.labels(cells) for margin in margins]
        _warn_of_left_out(labels, margins)
        factors = proportional_factors(labels, margins)
        report = _report(labels, margins, factors)
        _warn_of_few(report, n_rows)
        return RakedSynthesizer(self, margins, factors, report)

    def _known_levels(self, name):
        """The levels of a column that fit has seen, as Python objects; None where they cannot be listed."""
        try:
            return [plain_cell(level) for level in self.levels(name)]
        except ValueError:
            return None


def _warn_of_left_out(labels: list[np.ndarray], margins: list[Margin]) -> None:
    """Warn of cells that totals of sum one do not name, and so rule out."""
    for own, margin in zip(labels, margins, strict=True):
        left = float((own == len(margin.groups)).mean())
        if left and _wanted(own, margin)[-1] == 0:
            warnings.warn(
                f"totals[{margin._told()}] leaves out cells that {left:.2%} of the drawn rows have, and gives all of "
                "the population to others: such rows get the weight 0. Name all levels (None is that of missing "
                "cells), or give shares with a sum below 1.",
                UserWarning,
                stacklevel=users_level(),
            )


def _warn_of_few(report: Figures, n_rows: int) -> None:
    """Warn where the totals are so far from the model that few drawn rows have most of the weight."""
    if report.effective_share < _LEAST_SHARE:
        warnings.warn(
            f"The totals are far from the model: the {n_rows} drawn rows are worth "
            f"{report.effective_share * n_rows:.3g} of equal weight (effective share {report.effective_share:.2g}), so "
            "that rows of large weight will be repeated. Totals nearer to report_.shares['model'], or a fit on rows "
            "that have more of them, do better.",
            UserWarning,
            stacklevel=users_level(),
        )


def plain_cell(level: Any) -> Any:
    """A level as a plain Python value."""
    return level.item() if isinstance(level, np.generic) else level


def _report(labels: list[np.ndarray], margins: list[Margin], factors: list[np.ndarray]) -> Figures:
    weight, shares = _weights(labels, factors), []
    for own, margin in zip(labels, margins, strict=True):
        now, wanted = np.bincount(own, minlength=len(margin.shares)) / len(own), _wanted(own, margin)
        name = margin.columns[0] if len(margin.columns) == 1 else margin.columns
        levels = [group[0] if len(group) == 1 else group for group in margin.groups]
        told = zip(levels, now.tolist(), wanted.tolist(), strict=False)
        shares += [{"column": name, "level": level, "model": a, "asked": b} for level, a, b in told]
    return Figures(
        shares=shares,
        effective_share=float(weight.sum() ** 2 / (len(weight) * np.square(weight).sum())),
        largest_weight=float(weight.max()),
        log_normaliser_error=float(weight.std() / weight.mean() / len(weight) ** 0.5),
    )
