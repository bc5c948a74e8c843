"""Columns of which the cells stand together as in the rows of fit: they are modelled as one."""

import dataclasses

import numpy as np

from .._utils.names import registered
from ._constraints import FixedCombinations

__all__ = ["JointRelation", "bind_joint"]


@registered("tables.JointRelation")
@dataclasses.dataclass
class JointRelation:
    """Columns whose cells are modelled as one: which of the seen combinations they are.

    Parameters
    ----------
    constraint : FixedCombinations
    members : list of int
    combinations : list of tuple
        Of each combination the cells: pairs of a value (None at a gap) and the number of the kind of gap (0 for none).
    kinds : list of tuple
        The kinds of gap of each member.
    n_unseen : float
        Combinations of seen cells that were not seen.
    """

    constraint: FixedCombinations
    members: list
    combinations: list
    kinds: list
    n_unseen: float

    @property
    def columns(self):
        """The places of its columns."""
        return self.members

    @property
    def log_room(self):
        """The log of the number of combinations that were not seen."""
        return np.log(self.n_unseen)

    def levels(self, j):
        """The levels of a member, and which of them each combination has, of shape (n_combinations, n_levels)."""
        k = self.members.index(j)
        found = [combination[k][0] for combination in self.combinations]
        order = sorted({v for v in found if v is not None}, key=lambda v: (type(v).__name__, v))
        numbers = all(type(v) in (int, float) for v in order)
        levels = np.empty(len(order), dtype=object)
        levels[:] = order
        member = np.array([[v == level for level in order] for v in found], dtype=np.float64)
        return (levels.astype(type(order[0])) if numbers else levels), member

    @property
    def gapped(self):
        """The places of the combinations in which a cell is missing."""
        return [place for place, row in enumerate(self.combinations) if any(gap for _, gap in row)]

    def labels(self, readings):
        """The place of each row's combination, -1 for one that was not seen."""
        place = {combination: k for k, combination in enumerate(self.combinations)}
        cells = [_cells(readings[j], kinds) for j, kinds in zip(self.members, self.kinds, strict=True)]
        return np.array([place.get(row, -1) for row in zip(*cells, strict=True)], dtype=np.int64)

    def unseen(self, readings, j):
        """The rows in which a member holds a cell, or lacks one, as it does in no combination."""
        k = self.members.index(j)
        seen = {combination[k] for combination in self.combinations}
        return np.array([cell not in seen for cell in _cells(readings[j], self.kinds[k])], dtype=bool)

    def allowed(self, readings, n):
        """Of n rows, the combinations that agree with the cells that they have; None where no cell is known."""
        fits = np.ones((n, len(self.combinations)), dtype=bool)
        for k, (j, kinds) in enumerate(zip(self.members, self.kinds, strict=True)):
            if readings[j] is None:
                continue
            place: dict = {}
            column = np.array([place.setdefault(c[k], len(place)) for c in self.combinations])
            cells = _cells(readings[j], kinds)
            own = np.array([place.get(cell, -1) for cell in cells])
            known = np.resize(readings[j].gaps == 0, n)
            fits &= ~known[:, None] | (np.resize(own, n)[:, None] == column)
        return None if np.all(fits) else np.where(np.any(fits, axis=1)[:, None], fits, True)


def _cells(reading, kinds):
    """Cells that can be compared: (value, 0), or (None, number of the kind of gap among some)."""
    names = [str(kind) for kind in kinds]
    gaps = np.array([0, *(names.index(str(kind)) + 1 if str(kind) in names else -1 for kind in reading.kinds)])
    numbers = gaps[reading.gaps].tolist()
    return [(None, g) if g else (value, 0) for value, g in zip(reading.values.tolist(), numbers, strict=True)]


def bind_joint(constraint, names, readings, gap_kinds):
    """The relation of a constraint in a table, with the combinations that its rows have."""
    members = [names.index(name) for name in constraint.columns]
    kinds = [gap_kinds[j] for j in members]
    cells = [_cells(readings[j], kinds[k]) for k, j in enumerate(members)]
    combinations = list(dict.fromkeys(zip(*cells, strict=True)))
    possible = float(np.prod([float(len(set(column))) for column in cells]))
    return JointRelation(constraint, members, combinations, kinds, max(1.0, possible - len(combinations)))
