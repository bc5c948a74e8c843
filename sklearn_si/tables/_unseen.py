"""Cells that fit has not seen: levels it does not know, and missing values where there were none."""

from typing import Any

import numpy as np

__all__ = ["told_unseen", "unseen_cells", "unseen_rows"]

# Levels of a column that a warning lists.
_FEW = 5


def unseen_rows(codec: Any, X: Any) -> tuple[np.ndarray, str]:
    """Which rows of a table hold a cell that fit has not seen, and the columns of such cells as text for a warning."""
    raw = codec._cells_of(X)
    codes, _ = codec._encoded(codec.relations_.forward(raw), None)
    unseen = unseen_cells(codec, raw, codes)
    return np.asarray(unseen.any(1)), told_unseen(codec, raw, unseen)


def unseen_cells(codec: Any, raw: list[Any], codes: np.ndarray) -> np.ndarray:
    """Whether each cell of some rows is one that fit has not seen, of shape (n_rows, n_columns).

    Parameters
    ----------
    codec : TableCodec
    raw : list of Reading
        What each column holds as it stands in the table.
    codes : ndarray of shape (n_rows, n_columns)
        The codes of the cells as they are modelled, -1 where these are not known.
    """
    unseen, relations = codes < 0, codec.relations_
    for relation, j, broken in relations.broken(raw):
        if relation in relations.linear:  # a row that breaks it is judged by that
            unseen[:, j] &= ~broken
            continue
        for member in relation.members:
            unseen[:, member] = relation.unseen(raw, member)
    return unseen


def told_unseen(codec: Any, raw: list[Any], unseen: np.ndarray) -> str:
    """The columns that hold such cells, with some of these, as text for a warning; empty where there are none."""
    told = []
    for j in np.flatnonzero(unseen.any(0)):
        series, gaps = codec.table_.series[j], raw[j].gaps > 0
        levels = list(dict.fromkeys(_plain(raw[j].values[unseen[:, j] & ~gaps], series)))[:_FEW]
        parts = ([str(levels)] if levels else []) + (["missing values"] if (unseen[:, j] & gaps).any() else [])
        told.append(f"{series.name!r} ({' and '.join(parts)})")
    return ", ".join(told)


def _plain(values: np.ndarray, series: Any) -> list[Any]:
    """Cells as they are written in a message."""
    if series.unit is None:
        return [v if isinstance(v, (str, int, float)) else str(v) for v in values.tolist()]
    return [str(date) for date in values.astype(np.int64).view("{}8[{}]".format(*series.unit))]
