"""Save and load fitted estimators without executing anything that a file says."""

from ._archive import FORMAT, load, save
from ._pruning import prune

__all__ = [
    "FORMAT",
    "load",
    "prune",
    "save",
]
