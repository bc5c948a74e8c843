"""Functions of numpy and scipy that a file may name: those that only compute numbers from numbers."""

import types
from typing import Any

import numpy as np
import scipy.special

# Functions of numpy that are no ufuncs, and neither read, write nor call anything.
_MORE = (
    "abs", "angle", "around", "clip", "cumprod", "cumsum", "diff", "fix", "flip", "fliplr", "imag", "nan_to_num",
    "real", "round", "sinc", "sort", "square", "unwrap",
)  # fmt: skip
_KINDS = (type, types.FunctionType, types.BuiltinFunctionType, np.ufunc, type(np.clip))


def is_nameable(value):
    """Whether a value is a class or a function, which files describe by a name."""
    return isinstance(value, _KINDS)


def numeric_functions():
    """The ufuncs of numpy and of scipy.special, and some more of numpy, by their names in files."""
    found: dict = {}
    for place, module in (("numpy", np), ("scipy.special", scipy.special)):
        for name in sorted(vars(module)):
            value: Any = vars(module)[name]
            if isinstance(value, np.ufunc) or (module is np and name in _MORE):
                # the older of two names, which more versions know
                own: str = value.__name__
                known = own if vars(module).get(own) is value else name
                found.setdefault(value, f"{place}.{known}")
    return {name: value for value, name in found.items()}


def advice_about(value):
    """What to do about an object that a file cannot describe."""
    if is_nameable(value):
        return (
            "use a name in place of it, or a ufunc of numpy or scipy.special such as numpy.log1p (other functions are "
            "not in files, because loading one must be safe), or pickle the estimator for readers who trust you"
        )
    return "use a name in place of your own function or object, or pickle the estimator for readers who trust you"
