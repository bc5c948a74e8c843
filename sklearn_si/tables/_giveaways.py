"""What gives a synthetic table away: columns, pairs, rows, values, and relations that are broken."""

import dataclasses
import itertools

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from .._utils.frames import Table
from ..metrics._encoder import TableEncoder
from ._constraints import find_constraints
from ._relations import bind

__all__ = ["Giveaways", "find_giveaways"]

# Rows of each table that the classifier sees.
_ROWS = 5000
# Columns of which the pairs are looked at, and what is told of each kind.
_COLUMNS = 4
_TOLD = 5
# Trees of the classifier of all columns, and of one of two columns.
_TREES = 100
_FEW_TREES = 40
# Share of the real rows from which a value is looked at, and distance of its shares in standard errors.
_SHARE = 0.002
_FAR = 5.0


@dataclasses.dataclass
class Giveaways:
    """What a classifier and simple counts find of a synthetic table.

    Parameters
    ----------
    columns : dict
        Of each column, how much the area under the curve falls where its cells are shuffled.
    pairs : dict
        Of pairs of the columns that count most, C2ST of these two columns alone.
    rows : dict
        Of the synthetic rows that are detected most surely (by number), the probability that they are synthetic.
    values : list of tuple
        (column, value, share of the real rows, share of the synthetic rows) of values drawn too often or too seldom.
    broken : dict
        Of each relation that holds in the real rows, the synthetic rows that break it.
    """

    columns: dict
    pairs: dict
    rows: dict
    values: list
    broken: dict

    def lines(self):
        """The most telling ones as lines of text."""
        first = [f"{name} {fall:.3f}" for name, fall in list(self.columns.items())[:_TOLD]]
        found = ["columns that give it away (fall of the AUC without them): " + ", ".join(first)]
        pairs = [f"{a} and {b} {value:.3f}" for (a, b), value in list(self.pairs.items())[:_TOLD]]
        if pairs:
            found.append("pairs of columns that do (C2ST of these two alone): " + ", ".join(pairs))
        rows = ", ".join(f"{row} ({p:.2f})" for row, p in list(self.rows.items())[:_TOLD])
        found.append(f"rows that are detected most surely: {rows}")
        for name, value, real, made in self.values[:_TOLD]:
            found.append(f"value {value!r} of {name}: {real:.2%} of the real rows, {made:.2%} of the synthetic ones")
        for constraint, n in self.broken.items():
            found.append(f"{n} rows break {constraint}")
        return found


def find_giveaways(real, synthetic, against, random_state):
    """The giveaways of a synthetic table: relations and values by all real rows, the rest by those of `against`."""
    rng, encoder = np.random.default_rng(random_state), TableEncoder(against)
    a, b = encoder.for_trees(against), encoder.for_trees(synthetic)
    n = min(len(a), len(b), _ROWS)
    chosen = rng.permutation(len(b))[:n]
    rows = np.concatenate([a[rng.permutation(len(a))[:n]], b[chosen]])
    y = np.repeat([0, 1], n)
    p, falls = _probabilities(rows, y, _TREES, rng, shuffled=True)
    names = [str(name) for name in encoder.names]
    columns = dict(sorted(zip(names, falls.tolist(), strict=True), key=lambda pair: -pair[1]))
    pairs = {}
    for j, k in itertools.combinations(np.argsort(-falls, kind="stable")[:_COLUMNS], 2):
        of_two, _ = _probabilities(rows[:, [j, k]], y, _FEW_TREES, rng)
        pairs[names[j], names[k]] = 1 - (2 * max(0.5, roc_auc_score(y, of_two)) - 1)
    surest = np.argsort(-p[n:], kind="stable")[:10]
    detected = {int(chosen[row]): float(p[n + row]) for row in surest}
    pairs = dict(sorted(pairs.items(), key=lambda pair: pair[1]))
    return Giveaways(columns, pairs, detected, _values(real, synthetic), _broken(real, synthetic))


def _probabilities(rows, y, n_trees, rng, shuffled=False):
    """Out of two folds the probability of class 1, and how much the AUC falls by shuffling each column."""
    order, p = rng.permutation(len(y)), np.empty(len(y))
    falls = np.zeros(rows.shape[1])
    for fold in (order[::2], order[1::2]):
        others = np.setdiff1d(order, fold)
        # trees cannot be fitted to a column without a single value
        rows = np.where(np.isfinite(rows[others]).any(0), rows, 0.0)
        trees = HistGradientBoostingClassifier(max_iter=n_trees, early_stopping=False, random_state=0)
        trees.fit(rows[others], y[others])
        p[fold] = trees.predict_proba(rows[fold])[:, 1]
        for j in range(rows.shape[1]) if shuffled else ():
            mixed = rows[fold].copy()
            mixed[:, j] = rng.permutation(mixed[:, j])
            falls[j] += (roc_auc_score(y[fold], p[fold]) - roc_auc_score(y[fold], trees.predict_proba(mixed)[:, 1])) / 2
    return p, falls


def _values(real, synthetic):
    """Values of which the shares differ by many standard errors, the farthest first."""
    table, found = Table.of(real, "real"), []
    both = zip(table.names, table.readings(real, "real"), table.readings(synthetic, "synthetic"), strict=True)
    for name, first, second in both:
        counts = [_counts(reading) for reading in (first, second)]
        sizes = [max(1, len(reading.gaps)) for reading in (first, second)]
        for value in counts[0] if counts[0] is not None and counts[1] is not None else ():
            shares = [count.get(value, 0) / size for count, size in zip(counts, sizes, strict=True)]
            pooled = sum(count.get(value, 0) for count in counts) / sum(sizes)
            error = np.sqrt(max(pooled * (1 - pooled), 1e-12) * (1 / sizes[0] + 1 / sizes[1]))
            if shares[0] >= _SHARE and abs(shares[0] - shares[1]) > _FAR * error:
                found.append((abs(shares[0] - shares[1]) / error, (str(name), value, *shares)))
    return [value for _, value in sorted(found, key=lambda pair: -pair[0])]


def _counts(reading):
    """The rows of each value."""
    present = reading.values[reading.gaps == 0]
    if reading.is_number:
        return dict(zip(*(part.tolist() for part in np.unique(present, return_counts=True)), strict=True))
    counts: dict = {}
    try:
        for value in present:
            counts[value] = counts.get(value, 0) + 1
    except TypeError:
        return None
    return counts


def _broken(real, synthetic):
    """Relations that hold in all real rows, and how many synthetic rows break them."""
    table = Table.of(real, "real")
    readings = table.readings(real, "real")
    constraints = find_constraints(table.names, table.series, readings, {})
    relations = bind(constraints, table.series, readings, {})
    made = table.readings(synthetic, "synthetic")
    return {relation.constraint: int(rows.sum()) for relation, _, rows in relations.broken(made)}
