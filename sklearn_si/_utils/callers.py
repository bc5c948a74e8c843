"""The line of the user's code that a warning refers to."""

import sys

# Packages with decorators whose stack frames lie between a method of this library and its caller.
_BETWEEN = ("sklearn_si", "sklearn", "torch", "contextlib")


def users_level() -> int:
    """The `stacklevel` at which a warning of the calling function names the line outside this library."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in _BETWEEN:
        frame, level = frame.f_back, level + 1
    return level
