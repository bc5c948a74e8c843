"""The cell that asks for a missing value, where missing values themselves ask for a draw."""

from typing import Any

import numpy as np

from .._utils.frame_names import is_pandas, row_by_name
from ._given_cells import Known, known_cells

__all__ = ["MISSING", "known_of_given"]


class _Missing:
    """The one value `MISSING`."""

    def __repr__(self) -> str:
        return "MISSING"

    def __reduce__(self) -> str:
        return "MISSING"


MISSING = _Missing()


def known_of_given(codec: Any, given: Any) -> tuple[Any, Known]:
    """The cells that `sample` is given as a table, and what is known of its rows.

    Parameters
    ----------
    codec : TableCodec
    given : frame, array-like, dict of columns or cells, or pandas Series of the cells of one row
    """
    given, missing = _without_missing(row_by_name(given, codec.table_.names, "given"))
    given = codec.table_.frame_of(given) if isinstance(given, dict) else given
    known = known_cells(codec, given, "given")
    _ask_for_missing(codec, known, missing)
    return given, known


def _without_missing(given: Any) -> tuple[Any, dict[Any, np.ndarray]]:
    """Given cells with None in place of `MISSING`, and by column (its name, in an array its number) where that was.

    Parameters
    ----------
    given : frame, array-like or dict of columns or cells
    """
    if isinstance(given, dict):
        return _of_dict(given)
    if is_pandas(given):
        return _of_frame(given)
    if isinstance(given, (list, tuple)) and any(MISSING in row for row in given if isinstance(row, (list, tuple))):
        given = np.array(given, dtype=object)
    if not isinstance(given, np.ndarray) or given.dtype != object or given.ndim != 2:
        return given, {}
    rows = np.array([_asked(row) for row in given], dtype=bool).reshape(given.shape)
    cells = given.copy()
    cells[rows] = None
    return cells, {j: rows[:, j] for j in np.flatnonzero(rows.any(0)).tolist()}


def _of_dict(given: dict) -> tuple[Any, dict[Any, np.ndarray]]:
    columns = {
        name: list(cell) if hasattr(cell, "__len__") and not isinstance(cell, (str, bytes)) else [cell]
        for name, cell in given.items()
    }
    found = {name: _asked(cells) for name, cells in columns.items()}
    asked = {name: rows for name, rows in found.items() if rows.any()}
    return {**given, **{name: _replaced(columns[name]) for name in asked}}, asked


def _of_frame(given: Any) -> tuple[Any, dict[Any, np.ndarray]]:
    places = [j for j in range(given.shape[1]) if str(given.dtypes.iloc[j]) == "object"]
    found = {j: _asked(given.iloc[:, j].tolist()) for j in places}
    asked = {given.columns[j]: rows for j, rows in found.items() if rows.any()}
    if not asked:
        return given, asked
    cells = given.copy()
    for name in asked:
        cells[name] = _replaced(given[name])
    return cells, asked


def _asked(cells: Any) -> np.ndarray:
    return np.array([cell is MISSING for cell in cells], dtype=bool)


def _replaced(cells: Any) -> list:
    return [None if cell is MISSING else cell for cell in cells]


def _ask_for_missing(codec: Any, known: Any, asked: dict[Any, np.ndarray]) -> None:
    """Give the cells that are asked to be missing the code of that, in place.

    Raises
    ------
    ValueError
        When fit saw no missing values in the column, or a relation ties it to others.
    """
    names, relations = codec.table_.names, codec.relations_
    for name, rows in asked.items():
        j = names.index(name)
        column = codec.columns_[j]
        tying = [r.constraint for r in relations.linear if j in r.columns]
        tying += [r.constraint for r in relations.joint if j in r.members]
        if tying:
            raise ValueError(
                f"given asks for MISSING in column {name!r}, but {tying[0]} ties it to others: leave the cell out, or "
                "fit with constraints=None."
            )
        if not len(column.gap_kinds):
            raise ValueError(
                f"given asks for MISSING in column {name!r}, but fit saw no missing values there: leave the cell out, "
                "or fit on rows that have some."
            )
        gaps = column.gap_codes
        known.codes[np.broadcast_to(rows, len(known.codes)), j] = gaps[np.argmax(column.shares[gaps])]
