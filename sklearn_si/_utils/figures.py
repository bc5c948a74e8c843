"""Results with several entries, which are printed as a line for each."""

from typing import Any

import numpy as np
from sklearn.utils import Bunch

__all__ = ["Figures"]

# Entries of a list or of an array that are printed; of longer ones their range.
_MOST_SHOWN = 8


class Figures(Bunch):
    """A Bunch that is printed as its entries, one line each; long arrays by their shape and range."""

    def __str__(self) -> str:
        """The entries, one line each."""
        width = max(map(len, self), default=0)
        lines = [(name, line) for name, value in self.items() for line in _lines(value)]
        # a name stands once before the lines of a list
        names = [name if not k or lines[k - 1][0] != name else "" for k, (name, _) in enumerate(lines)]
        return "\n".join(f"{name:<{width}}  {line}" for name, (_, line) in zip(names, lines, strict=True))

    __repr__ = __str__


def _lines(value: Any) -> list[str]:
    """The lines of an entry: one for each dict of a list, else one."""
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        return [", ".join(f"{name} {_told(cell)}" for name, cell in one.items()) for one in value]
    return [_told(value)]


def _told(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}"
    if isinstance(value, list) and 0 < len(value) <= _MOST_SHOWN:
        return f"[{', '.join(map(_told, value))}]"
    array = np.asarray(value) if isinstance(value, (list, np.ndarray)) else None
    if array is None or array.ndim == 0:
        return str(value)
    if array.ndim == 1 and array.size <= _MOST_SHOWN:
        return f"[{', '.join(_told(one) for one in array)}]"
    shape = " x ".join(map(str, array.shape))
    if array.dtype.kind not in "fiu":
        return f"{shape} values"
    return f"{shape} numbers from {array.min():.4g} to {array.max():.4g}"
