"""The public names of the library, and those that the API page lacks."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import sklearn_si

PAGE = Path(__file__).resolve().parent / "api.rst"


def public_modules():
    """Names of the modules without an underscore, the package itself first."""
    found = [m.name for m in pkgutil.walk_packages(sklearn_si.__path__, "sklearn_si.")]
    return ["sklearn_si", *(name for name in found if "._" not in name)]


def public_names(module):
    """Names in `__all__`; where a module has none, its own public classes and functions."""
    module = importlib.import_module(module)
    if hasattr(module, "__all__"):
        return list(module.__all__)
    own = vars(module).items()
    kinds = (inspect.isclass, inspect.isfunction)
    return [
        name
        for name, value in own
        if not name.startswith("_") and any(kind(value) for kind in kinds) and value.__module__ == module.__name__
    ]


def documented(text):
    """Full names that a page documents: entries under `currentmodule`, and roles with a full name."""
    names, module = set(), None
    for line in text.splitlines():
        if found := re.match(r"\.\. currentmodule:: (\S+)", line):
            module = found[1]
        elif found := re.match(r"(?:   |\.\. py:data:: )(\w+)$", line):
            names.add(f"{module}.{found[1]}")
        elif found := re.match(r"Here as well: (.*)", line):
            names.update(f"{module}.{name}" for name in re.findall(r"`~\S*?(\w+)`", found[1]))
    return names


def missing():
    """Full names of public things that the API page lacks."""
    there = documented(PAGE.read_text(encoding="utf-8"))
    return [f"{m}.{n}" for m in public_modules() for n in public_names(m) if f"{m}.{n}" not in there]
