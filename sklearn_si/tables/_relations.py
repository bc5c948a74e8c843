"""Relations in the form in which a table is modelled: what is left of a column once others are known."""

import dataclasses
from typing import Any

import numpy as np

from .._utils.frames import Reading
from .._utils.names import registered
from ._columns import find_lattice
from ._constraints import FixedCombinations, Inequality, Sum, find_constraints
from ._given_cells import is_given, overlaid
from ._joint import bind_joint
from ._rounding import at_least, at_most, floored, held, lowered, rounded

__all__ = ["Relations", "bind"]


@registered("tables.LinearRelation")
@dataclasses.dataclass
class LinearRelation:
    """A column of which the sum of others is taken away: r = target - sum of sources, at least 0, or 0.

    Parameters
    ----------
    constraint : Inequality or Sum
    target : int
    sources : list of int
    stand_ins : list
        What stands for a source without a value.
    least : float or None
        The least rest of an inequality; None for a sum, whose rest is 0.
    power, fine : int or None
        10 to the number of decimals of the target, and the most of all columns; None where there is no such number.
    bounds : tuple
        The least and the largest of the target, and of each source.
    tolerance : float
        Rests of a sum up to this size are rounding.
    source_power : int or None
        10 to the number of decimals of the first source.
    dtypes : tuple of str
        Those that hold the numbers of the target and of each source: double or single precision.
    """

    constraint: Inequality | Sum
    target: int
    sources: list
    stand_ins: list
    least: float | None
    power: int | None
    fine: int | None
    bounds: tuple
    tolerance: float
    source_power: int | None = None
    dtypes: tuple = ()

    @property
    def columns(self):
        """The places of its columns."""
        return [self.target, *self.sources]

    @property
    def log_room(self):
        """The log of the width over which the mass of rows that break it is spread."""
        low, high = self.bounds[0]
        return np.log(float(high) - float(low) + (1 / self.power if self.power else 0.0))

    def base(self, cells):
        """The sum of the sources, from pairs of values and of which are missing."""
        parts = [np.where(cells[j][1] > 0, s, cells[j][0]) for j, s in zip(self.sources, self.stand_ins, strict=True)]
        return np.sum(parts, axis=0)

    def rest(self, target, base):
        """What is left of the target, with the decimals of the columns."""
        rest = rounded(target - base, self.fine)
        return np.where(np.abs(rest) <= self.tolerance, 0, rest) if self.least is None else rest

    def possible(self, rest, cells):
        """Drawn rests as they can be: where no source is missing, none but those of rows that keep the relation."""
        present = sum(cells[j][1] > 0 for j in self.sources) == 0
        return np.where(present, 0 * rest if self.least is None else np.maximum(rest, self.least), rest)

    def made(self, rest, base):
        """The target, with its decimals and within its bounds as far as the relation allows."""
        made = rounded(base + rest, self.power)
        if self.least is not None and self.power is None:
            made = np.maximum(held(made, self.dtypes[0]), self.above(base))
        elif self.least is not None and self.power is not None:
            made = np.where(self.breaks(self.rest(made, base)), made + 1 / self.power, made)
        made = rounded(made, self.power)
        inside = np.clip(made, *self.bounds[0])
        return np.where(self.breaks(self.rest(inside, base)), made, inside)

    @property
    def _is_strict(self):
        return isinstance(self.constraint, Inequality) and self.constraint.strict

    def above(self, base):
        """The least targets of an inequality beside some sums of sources."""
        if self.power is not None:
            return base + self.least
        return at_least(base.astype(np.float64), self.dtypes[0], self._is_strict)

    def below(self, target):
        """The largest source of an inequality beside some targets."""
        if self.source_power is not None:
            return floored(target - self.least, self.source_power)
        return at_most(target.astype(np.float64), self.dtypes[1], self._is_strict)

    def breaks(self, rest):
        """Whether rests are those of rows that break the relation."""
        return rest != 0 if self.least is None else rest < self.least


@registered("tables.Relations")
@dataclasses.dataclass
class Relations:
    """All relations of a table, in an order in which no source is a later target.

    Parameters
    ----------
    linear : list of LinearRelation
    joint : list of JointRelation
    gap_kinds : list of tuple
        The kinds of gap of the columns as they are written.
    n_rows : int
        Rows of fit.
    """

    linear: list
    joint: list
    gap_kinds: list
    n_rows: int

    def __bool__(self):
        return bool(self.linear or self.joint)

    @property
    def constraints(self):
        """The relations as users say them."""
        return [relation.constraint for relation in [*self.joint, *self.linear]]

    def joint_of(self, j):
        """The relation of which a column stands for all members."""
        return next(relation for relation in self.joint if relation.members[0] == j)

    def forward(self, readings, asked=False):
        """Readings as they are modelled; if missing values are `asked` for, a rest is unknown without its sources."""
        modelled = list(readings)
        for relation in self.linear:
            parts = [readings[j] for j in (relation.target, *relation.sources)]
            modelled[relation.target] = None if any(p is None for p in parts) else _rest(relation, *parts, asked=asked)
        for relation in self.joint:
            first, *others = relation.members
            known = all(readings[j] is not None for j in relation.members)
            if known:
                n = len(readings[first].gaps)
                hidden = sum(readings[j].gaps > 0 for j in relation.members) > 0 if asked else np.zeros(n, dtype=bool)
                modelled[first] = Reading(relation.labels(readings), hidden.astype(np.int64), (None,))
            else:
                modelled[first] = None
            for j in others:
                modelled[j] = None if readings[j] is None else _nothing(len(readings[j].gaps))
        return modelled

    def backward(self, cells, readings):
        """Pairs of values and of which are missing as they are written, from the modelled ones and the known cells."""
        cells = list(cells)
        for relation in self.joint:
            place = cells[relation.members[0]][0]
            for k, j in enumerate(relation.members):
                values = np.array(
                    [relation.combinations[p][k] for p in range(len(relation.combinations))], dtype=object
                )
                values, gaps = values[:, 0], values[:, 1].astype(np.int64)
                present = [v for v in values if v is not None]
                numbers = all(type(v) in (int, float) for v in present) and present
                filled = np.array([present[0] if v is None else v for v in values], dtype=None if numbers else object)
                cells[j] = filled[place], gaps[place]
        drawn = {relation.target: cells[relation.target] for relation in self.linear}
        return self._settled(overlaid(cells, readings), drawn, readings)

    def _settled(self, cells, drawn, readings):
        """Cells of which the unknown ones keep all relations, from the drawn rest of each target."""
        for relation in self.linear:
            for j, dtype in zip(relation.columns, relation.dtypes, strict=True):
                values, gaps = cells[j]
                cells[j] = np.where(is_given(readings[j], len(gaps)), values, held(values, dtype)), gaps
        rests = {r.target: r.possible(drawn[r.target][0], cells) for r in self.linear}
        drawn = {target: (rest, drawn[target][1]) for target, rest in rests.items()}
        ceilings = self._ceilings(cells, readings)
        targets = {relation.target for relation in self.linear}
        for j in ceilings.keys() - targets:
            values, gaps = cells[j]
            cells[j] = np.where(is_given(readings[j], len(gaps)), values, lowered(values, ceilings[j])), gaps
        settled = {j: np.zeros(len(cells[j][1]), dtype=bool) for r in self.linear for j in r.columns}
        for relation in self.linear:
            self._make(relation, cells, drawn[relation.target], readings, ceilings, settled)
            self._divide(relation, cells, drawn[relation.target], readings, ceilings, settled)
        # sources may have changed since their targets were made
        for relation in self.linear:
            self._make(relation, cells, drawn[relation.target], readings, ceilings, settled)
        return cells

    def _ceilings(self, cells, readings):
        """For each low column the most that known high ones leave it, with the rows in which they do."""
        found: dict = {}
        for relation in reversed(self.linear):
            if relation.least is None:
                continue
            high, (low,) = relation.target, relation.sources
            known = is_given(readings[high], len(cells[high][1]))
            value, bounded = found.get(high, (cells[high][0], known))
            most, bounded = relation.below(np.where(known, cells[high][0], value)), known | bounded
            other, also = found.get(low, (most, bounded))
            least = np.where(also & bounded, np.minimum(most, other), np.where(bounded, most, other))
            found[low] = least, also | bounded
        return {j: ceiling for j, ceiling in found.items() if ceiling[1].any()}

    @staticmethod
    def _make(relation, cells, drawn, readings, ceilings, settled):
        """The target from its sources, unless it is known, or another relation has settled it and this one holds."""
        (rest, gaps), own, base = drawn, cells[relation.target][0], relation.base(cells)
        given, made = is_given(readings[relation.target], len(gaps)), relation.made(rest, base)
        made = made if relation.least is None else lowered(made, ceilings.get(relation.target))
        kept = given | (settled[relation.target] & ~relation.breaks(relation.rest(own, base)))
        cells[relation.target] = np.where(kept, own, made), np.where(given, 0, gaps)

    def _divide(self, relation, cells, drawn, readings, ceilings, settled):
        """Sources that are not known from the target that is.

        A source of an inequality takes what the drawn rest leaves of the target if nothing else speaks against it, and
        stays as it is otherwise; the sources of a sum take what they can, and then the first of them what is left.
        """
        (rest, gaps), target = drawn, cells[relation.target][0]
        is_sum, given = relation.least is None, is_given(readings[relation.target], len(gaps))
        for bounded in (True, False) if is_sum else (True,):
            for j, bounds in zip(relation.sources, relation.bounds[1:], strict=True):
                free = given & ~is_given(readings[j], len(gaps)) & (cells[j][1] == 0)
                wanted = rounded(cells[j][0] + target - rest - relation.base(cells), relation.fine)
                low, high = self._limits(j, bounds, cells, ceilings)
                if not is_sum:
                    free &= ~settled[j] & (gaps == 0) & (wanted >= low) & (wanted <= high)
                elif bounded:
                    wanted = np.clip(wanted, low, high)
                if free.any():
                    cells[j] = np.where(free, wanted, cells[j][0]), cells[j][1]
                    settled[j] |= free

    def _limits(self, j, bounds, cells, ceilings):
        """The least and the largest number that a column may have, by its range and by its inequalities."""
        low, high = bounds
        if j in ceilings:
            most, rows = ceilings[j]
            high = np.where(rows, np.minimum(most, high), high)
        for relation in self.linear:
            if relation.target == j and relation.least is not None:
                low = np.maximum(low, relation.above(relation.base(cells)))
        return low, high

    def mended(self, cells, readings):
        """Cells that were averaged, with those that are not known made anew so that all relations are kept."""
        cells, drawn = list(cells), {}
        for relation in self.linear:
            values, gaps = cells[relation.target]
            base = relation.base(cells)
            rest = np.maximum(relation.rest(values, base), relation.least) if relation.least is not None else 0 * base
            drawn[relation.target] = rest, gaps
        return self._settled(cells, drawn, readings)

    def pending(self, readings, n):
        """The rows in which a target is known, and a source is not."""
        rows = np.zeros(n, dtype=bool)
        for relation in self.linear:
            missing = sum(~is_given(readings[j], n) for j in relation.sources) > 0
            rows |= is_given(readings[relation.target], n) & missing
        return rows

    def distance(self, cells, drawn, readings):
        """How far the targets that drawn rows imply are from the known ones, in units of their range."""
        total: Any = 0.0
        for relation in self.linear:
            base = relation.base(cells)
            known = is_given(readings[relation.target], len(base))
            low, high = relation.bounds[0]
            far = np.abs(drawn[relation.target][0] + base - cells[relation.target][0])
            total = total + np.where(known, far / max(float(high) - float(low), 1e-300), 0.0)
        return total

    def broken(self, readings):
        """For each relation its rows that break it, with the place of its modelled column."""
        found = []
        for relation in self.joint:
            parts = [readings[j] for j in relation.members]
            if all(p is not None for p in parts):
                found.append((relation, relation.members[0], relation.labels(readings) < 0))
        for relation in self.linear:
            parts = [readings[j] for j in (relation.target, *relation.sources)]
            if all(p is not None for p in parts):
                rest = _rest(relation, *parts)
                present = sum(p.gaps > 0 for p in parts) == 0
                found.append((relation, relation.target, present & relation.breaks(rest.values)))
        return found


def _nothing(n):
    return Reading(np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64), ())


def _rest(relation, target, *sources, asked=False):
    cells = {j: (r.values, r.gaps) for j, r in zip(relation.sources, sources, strict=True)}
    rest, gaps, kinds = relation.rest(target.values, relation.base(cells)), target.gaps, target.kinds
    lost = sum(r.gaps > 0 for r in sources) > 0
    if asked and lost.any():
        gaps, kinds = np.where(lost & (target.gaps == 0), 1, target.gaps), target.kinds or (None,)
    return dataclasses.replace(target, values=rest, gaps=gaps, kinds=kinds)


def bind(constraints, series, readings, kinds):
    """The relations of a table, from what the user says ("auto", None or a list) and from its rows."""
    names = [s.name for s in series]
    gap_kinds = [_seen_kinds(reading) for reading in readings]
    if isinstance(constraints, str):
        constraints = find_constraints(names, series, readings, kinds)
    relations = Relations([], [], gap_kinds, len(readings[0].gaps))
    for constraint in constraints or ():
        _check_names(constraint, names)
        if isinstance(constraint, FixedCombinations):
            relations.joint.append(bind_joint(constraint, names, readings, gap_kinds))
        else:
            relations.linear.append(_bind_linear(constraint, names, series, readings))
    _check_owners(relations)
    relations.linear = _in_order(relations.linear)
    for relation, _, rows in relations.broken(readings):
        if rows.any():
            raise ValueError(
                f"{relation.constraint} does not hold in {int(rows.sum())} of {len(rows)} rows of X (the first is row "
                f"{int(np.flatnonzero(rows)[0])}): leave it out, or mend these rows."
            )
    return relations


def _seen_kinds(reading):
    counts = np.bincount(reading.gaps, minlength=len(reading.kinds) + 1)[1:]
    return tuple(kind for kind, count in zip(reading.kinds, counts, strict=True) if count)


def _check_names(constraint, names):
    if not isinstance(constraint, (FixedCombinations, Inequality, Sum)):
        raise ValueError(
            f"Got {constraint!r} among the constraints, but expected Inequality(low, high), Sum(total, parts) or "
            "FixedCombinations(columns)."
        )
    columns = list(constraint.columns)
    unknown = [name for name in columns if name not in names]
    if unknown:
        raise ValueError(f"{constraint} names {unknown}, which are not among the columns {names}.")
    if len(set(columns)) < max(2, len(columns)):
        raise ValueError(f"{constraint} needs two columns or more, each named once.")


def _check_owners(relations):
    """No column may be determined twice, and none of a combination may be part of a sum or an inequality."""
    targets = [relation.target for relation in relations.linear]
    members = [j for relation in relations.joint for j in relation.members]
    sources = {j for relation in relations.linear for j in relation.sources}
    for relation in [*relations.linear, *relations.joint]:
        own = [relation.target] if isinstance(relation, LinearRelation) else relation.members
        if any((targets + members).count(j) > 1 or (j in members and j in sources) for j in own):
            raise ValueError(
                f"{relation.constraint} determines a column that another constraint determines as well: leave one of "
                "them out."
            )


def _in_order(linear):
    """Relations in an order in which each target is made before it is a source."""
    ordered, rest = [], list(linear)
    while rest:
        targets = {relation.target for relation in rest}
        ready = [relation for relation in rest if not targets & set(relation.sources)]
        if not ready:
            raise ValueError(f"The constraints {[r.constraint for r in rest]} go round in a circle: leave one out.")
        ordered += ready
        rest = [relation for relation in rest if relation not in ready]
    return ordered


def _bind_linear(constraint, names, series, readings):
    target, *sources = [names.index(name) for name in _target_first(constraint)]
    for j in (target, *sources):
        if not readings[j].is_number or not _alike(series, readings, j, target):
            raise ValueError(
                f"{constraint} needs columns of numbers, or columns of dates of one dtype, but column {names[j]!r} is "
                f"of dtype {series[j].dtype}, and {names[target]!r} of dtype {series[target].dtype}: convert them."
            )
    present = [readings[j].values[readings[j].gaps == 0] for j in (target, *sources)]
    if any(len(p) == 0 for p in present):
        raise ValueError(f"{constraint} has a column without a value: leave it out.")
    lattices = [find_lattice(p) for p in present]
    powers: list[Any] = [x.power if x is not None else None for x in lattices]
    power, fine = powers[0], None if None in powers else max(powers)
    bounds = tuple((p.min(), p.max()) for p in present)
    stand_ins = [p[np.argsort(p, kind="stable")[len(p) // 2]] for p in present[1:]]
    size = sum(np.abs(p.astype(np.float64)).max() for p in present)
    tolerance = max(0.5 / power if power and present[0].dtype.kind == "f" else 0.0, 1e-9 * size)
    least: Any = None if isinstance(constraint, Sum) else 0
    if least is not None and constraint.strict:
        least = 1 if fine == 1 else 1 / fine if fine else np.finfo(float).tiny
    dtypes = tuple(str(series[j].float_dtype or np.dtype(np.float64)) for j in (target, *sources))
    return LinearRelation(
        constraint, target, sources, stand_ins, least, power, fine, bounds, tolerance, powers[1], dtypes
    )


def _alike(series, readings, j, k):
    """Whether the numbers of two columns are of one sort and one unit."""
    same = series[j].dtype == series[k].dtype
    return readings[j].quantity == readings[k].quantity and (readings[j].quantity == "numbers" or same)


def _target_first(constraint):
    if isinstance(constraint, Sum):
        return constraint.columns
    return constraint.high, constraint.low
