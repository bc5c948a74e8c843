"""Save and load fitted estimators without executing anything that a file says."""

from ._archive import FORMAT, load, save

__all__ = [
    "FORMAT",
    "load",
    "save",
]
