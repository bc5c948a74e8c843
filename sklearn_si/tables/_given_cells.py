"""The cells of a table that are given: what they tell the model, and how they stay as they are in what it draws."""

import dataclasses
import warnings

import numpy as np

from .._utils.callers import users_level
from .._utils.frame_names import is_frame
from ._far_cells import bounded, bounded_rests

__all__ = ["Known", "is_given", "known_cells", "nothing_known", "overlaid", "written"]


@dataclasses.dataclass
class Known:
    """What is known of some rows.

    Parameters
    ----------
    codes, values : ndarray of shape (n_rows, n_columns)
        As they are modelled; -1 and NaN where nothing is known.
    readings : list of Reading or None
        The cells as they stand in the table.
    allowed : dict
        Of columns that stand for several, the codes that agree with what is known, of shape (n_rows, n_codes).
    """

    codes: np.ndarray
    values: np.ndarray
    readings: list
    allowed: dict

    def rows(self, places):
        """The same of some rows, any number of times."""
        n = len(self.codes)
        readings = [
            None
            if r is None
            else dataclasses.replace(r, values=np.resize(r.values, n)[places], gaps=np.resize(r.gaps, n)[places])
            for r in self.readings
        ]
        allowed = {j: mask[places] for j, mask in self.allowed.items()}
        return Known(self.codes[places], self.values[places], readings, allowed)


def nothing_known(n, n_columns):
    """Rows of which nothing is known."""
    codes = np.full((n, n_columns), -1)
    return Known(codes, np.full(codes.shape, np.nan), [None] * n_columns, {})


def known_cells(codec, X, name, gaps=False, without=()):
    """What is known of the rows of a table; missing values are not, unless they count as a level."""
    relations, n_columns = codec.relations_, codec.n_features_in_
    raw = codec._cells_of(X, name, is_frame(X))
    for j in without:
        raw[j] = None
    if all(reading is None for reading in raw):
        return nothing_known(len(X), n_columns)
    readings = bounded_rests(codec, relations.forward(bounded(codec, raw, name), asked=not gaps), name)
    if all(reading is None for reading in readings):
        n = next(len(reading.gaps) for reading in raw if reading is not None)
        known = nothing_known(n, n_columns)
    else:
        codes, values = codec._encoded(readings, None, name)
        known = Known(codes, values, raw, {})
    known.readings = raw
    owned = {relation.target for relation in relations.linear} | {r.members[0] for r in relations.joint}
    for j, column in enumerate(codec.columns_):
        if readings[j] is None:
            continue
        unseen = (known.codes[:, j] < 0) & (readings[j].gaps == 0)
        if column.kind == "discrete" and unseen.any():
            # a number that fit has not seen is kept, and tells what its nearest neighbour tells
            known.codes[unseen, j] = column.nearest(readings[j].values[unseen])
            unseen[:] = False
        if unseen.any() and name == "given" and j not in owned:
            column._refuse_unseen(readings[j].values[unseen], "error", name)
        elif unseen.any() and j not in owned:
            _warn_of_unseen(column, readings[j].values[unseen], name)
        if not gaps and len(column.gap_kinds):
            known.codes[np.isin(known.codes[:, j], column.gap_codes), j] = -1
    _restrict(relations, known, name)
    _warn_of_broken(relations, raw, name)
    return known


def _warn_of_unseen(column, values, name):
    levels = list(dict.fromkeys(values.tolist()))[:5]
    warnings.warn(
        f"Column {column.name!r} of {name} holds {levels}, which fit has not seen: such cells are kept and tell "
        "nothing about the others. Correct them, or fit on a table that has them.",
        UserWarning,
        stacklevel=users_level(),
    )


def _restrict(relations, known, name):
    """Which combinations agree with the cells of columns that are modelled as one."""
    for relation in relations.joint:
        for k, j in enumerate(relation.members):
            reading = known.readings[j]
            if reading is not None and name == "given":
                seen = {combination[k][0] for combination in relation.combinations}
                new = [v for v in reading.values[reading.gaps == 0].tolist() if v not in seen]
                if new:
                    raise ValueError(
                        f"Column {relation.constraint.columns[k]!r} of given holds {list(dict.fromkeys(new))[:5]}, "
                        "which fit has not seen: give a level that it has seen, or fit on a table that has them."
                    )
        allowed = relation.allowed(known.readings, len(known.codes))
        if allowed is not None:
            known.allowed[relation.members[0]] = allowed


def _warn_of_broken(relations, raw, name):
    for relation, _, rows in relations.broken(raw):
        parts = [raw[j] for j in relation.columns]
        n = int((rows & (sum(part.gaps > 0 for part in parts) == 0)).sum())
        if n:
            warnings.warn(
                f"{n} of {len(rows)} rows of {name} break {relation.constraint}: their cells are kept as they are.",
                UserWarning,
                stacklevel=5,
            )


def is_given(reading, n):
    """In which of n rows a column has a cell that is known; None is a column without any."""
    return np.zeros(n, dtype=bool) if reading is None else np.resize(reading.gaps == 0, n)


def overlaid(cells, readings):
    """Pairs of values and of which are missing, with the cells that are known."""
    return [_overlaid(pair, reading) for pair, reading in zip(cells, readings, strict=True)]


def _overlaid(pair, reading):
    values, gaps = pair
    if reading is None:
        return pair
    kept = is_given(reading, len(gaps))
    return np.where(kept, np.resize(reading.values, len(gaps)), values), np.where(kept, 0, gaps)


def written(series, cells, readings, gap_kinds):
    """Columns as they are written: those of which cells are known hold these as they stand in the table."""
    return [
        (one if reading is None else one.holding(reading)).write(*pair, kinds)
        for pair, one, reading, kinds in zip(cells, series, readings, gap_kinds, strict=True)
    ]
