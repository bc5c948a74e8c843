"""Numbers that equal those of another column in many rows: codes that say so."""

import dataclasses

import numpy as np

from ._bins import GridBins

__all__ = ["decide_ties", "equal_numbers", "find_ties", "impossible_ties", "mark_ties", "restore_ties", "tied"]

# Least share of the rows, and rows, in which a number equals that of another column; multiple of what chance gives.
_SHARE = 0.01
_ROWS = 30
_EXCESS = 5
# The width of the cell of a number that lies on no grid.
_SMALL = 1e-9
# Columns of numbers beyond which none are compared.
_MOST_COLUMNS = 60


def find_ties(columns, readings, excluded):
    """Pairs (target, source) of continuous columns, in an order in which no source is a later target."""
    places = [j for j, c in enumerate(columns) if c.is_continuous and j not in excluded][:_MOST_COLUMNS]
    found = []
    for j in places:
        for k in places:
            # what relations leave of a column (the excluded ones) is no number of its own
            if j != k and readings[j].quantity == readings[k].quantity:
                n_equal = int(equal_numbers(columns[j], readings[j], readings[k]).sum())
                # a source off the grid of the target would lead it off its grid, or be lost in rounding
                n_kept = n_equal * _share_on_grid(columns[j], readings[k]) if n_equal else 0
                if n_kept >= max(_ROWS, _SHARE * len(readings[j].gaps), _EXCESS * _by_chance(readings[j], readings[k])):
                    found.append((-n_kept, j, k))
    ties: dict = {}
    for _, j, k in sorted(found):
        if j not in ties and j not in _chain(ties, k):
            ties[j] = k
    # a source that is a target itself is made before
    return sorted(ties.items(), key=lambda tie: len(_chain(ties, tie[1])))


def _chain(ties, j):
    """The columns from which one takes its numbers, itself first."""
    chain = [j]
    while chain[-1] in ties:
        chain.append(ties[chain[-1]])
    return chain


def equal_numbers(column, target, source):
    """Whether ordinary numbers of a column equal those of another."""
    equal = (target.gaps == 0) & (source.gaps == 0) & (target.values == source.values)
    return equal & ~np.isin(target.values, column.levels + (column.origin or 0))


def _range(column):
    """The least and the largest ordinary number of a column."""
    return tuple(bound + (column.origin or 0) for bound in column.bounds)


def _share_on_grid(column, source):
    """The share of the numbers of another column, within the range of a column, that are on its grid."""
    numbers, (low, high) = source.values[source.gaps == 0], _range(column)
    inside = numbers[(numbers >= low) & (numbers <= high)]
    return float((column.on_grid(inside) == inside).mean()) if len(inside) else 0.0


def _by_chance(target, source):
    """The rows in which two columns would be equal if they were independent."""
    # integers beyond 2^53 equal each other as floats: they are counted as they are compared
    common = np.result_type(target.values, source.values)
    first, n_first = np.unique(target.values[target.gaps == 0].astype(common), return_counts=True)
    second, n_second = np.unique(source.values[source.gaps == 0].astype(common), return_counts=True)
    _, a, b = np.intersect1d(first, second, assume_unique=True, return_indices=True)
    return float((n_first[a] * n_second[b].astype(np.float64)).sum()) / len(target.gaps)


def tied(column, codes, rows):
    """The column with one more code, before those of missing values, for the rows that are tied."""
    counts = np.bincount(codes[~rows], minlength=column.n_codes) / len(codes)
    first = column.n_codes - len(column.gap_kinds)
    shares = np.insert(counts, first, rows.mean())
    if shares.min() <= 0:
        return None  # an interval or a spike would be empty
    return dataclasses.replace(column, shares=shares, has_tie=True)


def mark_ties(ties, columns, readings, codes, values):
    """Give tied cells their code, in place."""
    for j, k in ties:
        if readings[j] is not None and readings[k] is not None:
            rows = equal_numbers(columns[j], readings[j], readings[k]) & columns[j].is_value(codes[:, j])
            codes[rows, j], values[rows, j] = columns[j].tie_code, np.nan


def decide_ties(ties, columns, codes, values, readings, score, rng):
    """Draw whether numbers that are known equal those of their sources, where these are unknown; in place.

    By Bayes' rule, P(tied | v) is P(tied) p_source(v) over the sum of that and P(not tied) p_target(v), each given the
    codes that are known.

    Parameters
    ----------
    ties, columns, codes, values, readings
        As in `mark_ties`; codes of -1 are unknown.
    score : callable
        score(codes, k) -> log-mass of the known codes of some rows, times the probability that column k has a value
        where it must have one.
    rng : numpy Generator
    """
    for j, k in ties:
        if readings[j] is None:
            continue
        target, source = columns[j], columns[k]
        numbers = np.resize(readings[j].values, len(codes))
        rows = target.is_value(codes[:, j]) & (codes[:, k] < 0) & _is_number_of(source, numbers)
        rows = np.flatnonzero(rows)
        if not len(rows):
            continue
        reading = dataclasses.replace(readings[j], values=numbers[rows], gaps=np.zeros(len(rows), dtype=np.int64))
        apart, equal = codes[rows], codes[rows]
        own_code, own = target.encode(reading, None)
        source_code, z = source.encode(reading, None)
        equal[:, j], equal[:, k] = target.tie_code, source_code
        gain = score(equal, k) + _log_cells(source, reading, source_code, z)
        gain -= score(apart, k) + _log_cells(target, reading, own_code, own)
        drawn = np.log(rng.uniform(size=len(rows))) < -np.logaddexp(0, -gain)
        codes[rows[drawn]], values[rows[drawn], j], values[rows[drawn], k] = equal[drawn], np.nan, z[drawn]


def _is_number_of(column, numbers):
    """Which numbers a column could hold: those on its grid, within its range."""
    low, high = _range(column)
    with np.errstate(invalid="ignore"):
        return (numbers >= low) & (numbers <= high) & (column.on_grid(numbers) == numbers)


def _log_cells(column, reading, codes, z):
    """The log-mass of numbers given their codes; where they lie on no grid, of a small cell around them."""
    grid = column.bins if isinstance(column.bins, GridBins) else column.lattice
    width = _SMALL if grid is None else grid.spacing
    log_density = column.log_slope(reading) - 0.5 * z**2 - 0.5 * np.log(2 * np.pi)
    return np.where(column.is_value(codes), log_density + np.log(width), 0.0)


def impossible_ties(ties, columns, codes, known):
    """The places of drawn ties whose source has turned out to be a missing value, for each tied column."""
    for j, k in ties:
        rows = (codes[:, j] == columns[j].tie_code) & np.isin(codes[:, k], columns[k].gap_codes) & (known[:, j] < 0)
        if rows.any():
            yield j, np.flatnonzero(rows)


def restore_ties(ties, columns, codes, overlaid, cells, known):
    """Put numbers of tied cells that are not known into `cells`, from their sources, which may be known ones."""
    for j, k in reversed(ties):
        # a source that is not known, of a target that is
        rows = (codes[:, j] == columns[j].tie_code) & known[j] & ~known[k]
        cells[k] = np.where(rows, overlaid[j][0], cells[k][0]).astype(cells[k][0].dtype), cells[k][1]
        overlaid[k] = np.where(rows, cells[k][0], overlaid[k][0]), overlaid[k][1]
    for j, k in ties:
        rows = (codes[:, j] == columns[j].tie_code) & ~known[j]
        if not rows.any():
            continue
        # a source without a value has none to give: the middle of the column stands in
        middle = columns[j].bins.centres[columns[j].n_bins // 2] + (columns[j].origin or 0)
        source = np.where(overlaid[k][1] == 0, overlaid[k][0], middle)
        made = columns[j].on_grid(np.clip(source, *_range(columns[j])))
        numbers = np.where(rows, made, cells[j][0]).astype(cells[j][0].dtype)
        cells[j] = numbers, cells[j][1]
        overlaid[j] = np.where(rows, numbers, overlaid[j][0]), overlaid[j][1]
