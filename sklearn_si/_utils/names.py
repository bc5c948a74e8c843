"""Names under which saved files mention classes and functions."""

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["BY_NAME", "NAMES", "registered"]

T = TypeVar("T")

# What files may name, and the names of it; `persistence` adds the classes of other libraries.
BY_NAME: dict[str, Any] = {}
NAMES: dict[Any, str] = {}


def registered(name: str) -> Callable[[T], T]:
    """A decorator by which a class or a function gets the name under which files mention it.

    The name says what a thing is and not where it stands, so that files outlive moves of the code.

    Parameters
    ----------
    name : str
        Unique, for example "InterpolantFlow" or "networks.FiLMNetwork".
    """

    def register(value: T) -> T:
        if name in BY_NAME:
            raise ValueError(f"{name!r} is the name of {BY_NAME[name]!r} already: files could not tell them apart.")
        BY_NAME[name], NAMES[value] = value, name
        return value

    return register
