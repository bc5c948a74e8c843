"""Circular columns of tables: numbers of one period, cut open where there are few of them."""

import dataclasses

import numpy as np

from .names import registered

# Arcs among which the sparsest is looked for.
_ARCS = 48
# Digits of a period that numbers keep when they are wound back.
_DIGITS = 13


@registered("frames.Circle")
@dataclasses.dataclass
class Circle:
    """A circle that is cut open, so that numbers on it are those of a line from the cut on.

    Parameters
    ----------
    low, high : float
        Two numbers that are the same point.
    cut : float
        Where the line begins.
    """

    low: float
    high: float
    cut: float

    @classmethod
    def of(cls, low, high, values):
        """The circle of a column, cut in the middle of its sparsest arc."""
        period = float(high - low)
        places = np.mod(np.asarray(values, dtype=np.float64) - low, period)
        counts, edges = np.histogram(places, _ARCS, (0.0, period))
        # an arc counts with its neighbours
        near = counts + (np.roll(counts, 1) + np.roll(counts, -1)) / 2
        k = int(np.argmin(near))
        return cls(low, high, float(low + (edges[k] + edges[k + 1]) / 2))

    @property
    def period(self):
        """The length of the circle, a whole number where it is one."""
        period = self.high - self.low
        return int(period) if float(period).is_integer() else period

    def unrolled(self, reading, what):
        """A reading with its numbers from the cut on; an error names the column whose numbers are outside."""
        values, present = reading.values, reading.gaps == 0
        if not reading.is_number:
            raise ValueError(
                f"{what} is declared as circular, but it holds {reading.quantity}: leave it out of `kinds`."
            )
        # single precision may round an end outwards
        rounding = np.finfo(np.float32).eps * max(abs(self.low), abs(self.high))
        outside = present & ((values < self.low - rounding) | (values > self.high + rounding))
        if outside.any():
            raise ValueError(
                f"{int(outside.sum())} of {len(values)} values in {what} are outside its period from {self.low:g} to "
                f"{self.high:g}, such as {values[outside][0]:g}: take them modulo the period, or declare another one."
            )
        low = type(self.period)(self.low) if float(self.low).is_integer() else self.low
        values = np.where((values >= self.high) | (values < self.low), low, values)
        moved = np.where(present & (values < self.cut), values + self.period, values)
        return dataclasses.replace(reading, values=moved)

    def wrapped(self, values):
        """Numbers within the period, whole ones and decimals without the error of winding."""
        if values.dtype.kind == "i" and isinstance(self.period, int) and float(self.low).is_integer():
            return int(self.low) + np.mod(values - int(self.low), self.period)
        places = np.mod(values - self.low, self.period)
        digits = _DIGITS - int(np.ceil(np.log10(max(abs(self.low), abs(self.high)))))
        wound = np.round(self.low + places, max(0, digits))
        return np.where(wound >= self.high, self.low, np.maximum(wound, self.low))


def declared_circle(kind):
    """The ends of the period that a kind ("circular", low, high) declares; None for other kinds."""
    if not isinstance(kind, (tuple, list)) or len(kind) != 3 or kind[0] != "circular":
        return None
    try:
        low, high = (float(end) for end in kind[1:])
    except (TypeError, ValueError):
        return None
    return (low, high) if low < high and np.isfinite(high - low) else None
