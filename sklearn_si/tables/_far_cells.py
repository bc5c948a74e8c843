"""Known numbers far outside of those of fit: they tell what the nearest end of its range tells, with a warning."""

import dataclasses
import warnings

import numpy as np

from .._utils.callers import users_level

__all__ = ["bounded", "bounded_rests"]

# A number further out than this share of the range of fit is far: beyond it, nothing was learned.
_FAR = 0.5


def bounded(codec, readings, name):
    """Readings with far numbers at the nearest end of the range of fit; a warning names their columns."""
    targets = {relation.target: relation.bounds[0] for relation in codec.relations_.linear}
    members = {j for relation in codec.relations_.joint for j in relation.members}
    kept, told = list(readings), []
    for j, (column, reading) in enumerate(zip(codec.columns_, readings, strict=True)):
        if j not in members and _is_number_of(column, reading):
            kept[j], farthest = _within(reading, targets.get(j, _ends(column)), _spikes(column))
            if farthest is not None:
                low, high = targets.get(j, _ends(column))
                held, low, high = (_described(x, codec.table_.series[j]) for x in (farthest, low, high))
                told.append(f"{column.name!r} ({held}; fit saw {low} to {high})")
    if told:
        warnings.warn(
            f"Columns of {name} hold values far outside of those of fit: {', '.join(told)}. They are kept, and the "
            "other cells are drawn as beside the nearest end of that range: check them, or fit on rows that reach as "
            "far.",
            UserWarning,
            stacklevel=users_level(),
        )
    return kept


def bounded_rests(codec, modelled, name):
    """The same of what relations leave of their columns: numbers that are each in range may be far apart."""
    kept = list(modelled)
    for relation in codec.relations_.linear:
        column, reading = codec.columns_[relation.target], modelled[relation.target]
        if _is_number_of(column, reading):
            low, high = _ends(column)
            kept[relation.target], farthest = _within(reading, (low, high), _spikes(column))
            # of rows that break a relation another warning tells
            if farthest is not None and not relation.breaks(farthest):
                held, low, high = (_difference(x, codec.table_.series[relation.target]) for x in (farthest, low, high))
                warnings.warn(
                    f"The columns of {relation.constraint} in {name} hold values that are further apart than those of "
                    f"fit ({held}; fit saw {low} to {high}). They are kept, and the other cells are drawn as beside "
                    "the nearest end of that range.",
                    UserWarning,
                    stacklevel=users_level(),
                )
    return kept


def _is_number_of(column, reading):
    """Whether a reading holds numbers of a column that has a range."""
    ranged = column.kind == "continuous" or (column.kind == "discrete" and len(column.levels) > 0)
    return reading is not None and ranged and reading.is_number and reading.quantity == column.quantity


def _ends(column):
    """The least and the largest ordinary number of a column; sentinels and spikes are none."""
    if column.is_continuous:
        return tuple(end + (column.origin or 0) for end in column.bounds)
    return column.levels[0], column.levels[-1]


def _spikes(column):
    return column.levels + (column.origin or 0) if column.is_continuous else column.levels


def _within(reading, ends, spikes):
    """A reading without far numbers, and the one that was farthest out, or None."""
    values, (low, high) = reading.values, ends
    numbers = values.astype(np.float64)
    excess = np.where(reading.gaps == 0, np.maximum(float(low) - numbers, numbers - float(high)), 0.0)
    far = (excess > _FAR * (float(high) - float(low))) & ~np.isin(values, spikes)
    if not far.any():
        return reading, None
    kept = np.where(far, np.where(numbers < low, low, high), values)
    return dataclasses.replace(reading, values=kept), values[np.where(far, excess, 0.0).argmax()]


def _described(x, series):
    if series.unit is None:
        return f"{x:.6g}"
    return str(np.array([x]).astype(np.int64).view("{}8[{}]".format(*series.unit))[0])


def _difference(x, series):
    if series.unit is None:
        return f"{x:.6g}"
    return f"{np.timedelta64(int(x), series.unit[1]) / np.timedelta64(1, 'D'):.6g} days"
