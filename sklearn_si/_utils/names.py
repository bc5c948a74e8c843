"""The names of classes and functions in saved files."""

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["BY_NAME", "NAMES", "registered"]

T = TypeVar("T")

# Classes and functions that files may name, and their names; `persistence` adds those of other libraries.
BY_NAME: dict[str, Any] = {}
NAMES: dict[Any, str] = {}


def registered(name: str) -> Callable[[T], T]:
    """A decorator that gives a class or a function its name in saved files.

    The name says what a thing is and not where it stands, so that files outlive moves of the code.

    Parameters
    ----------
    name : str
        Unique, for example "InterpolantFlow" or "networks.FiLMNetwork".
    """

    def register(value: T) -> T:
        if name in BY_NAME:
            raise ValueError(f"The name {name!r} already belongs to {BY_NAME[name]!r}: choose another name.")
        BY_NAME[name], NAMES[value] = value, name
        return value

    return register
