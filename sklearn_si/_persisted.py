"""What a file may name: the classes and functions that `persistence.load` puts together, and no others."""

import dataclasses
import importlib
import inspect
import re
from collections.abc import Callable

import numpy as np
from sklearn import decomposition, dummy, linear_model, mixture, neighbors, preprocessing
from torch import nn

__all__ = ["BY_NAME", "NAMES", "Rebuilt", "recipe_of"]

# Modules of this library all of whose own classes may be named.
_MODULES = (
    "_base_density", "_bridge", "_bridge_fields", "_conditions", "_diffusion", "_distillation", "_flow", "_gammas",
    "_learned_paths", "_marginals", "_perceptrons", "_potentials", "_series", "compose", "couplings", "interpolants",
    "networks", "preprocessing", "tables._codec", "tables._columns", "tables._imputer", "tables._masked",
    "tables._synthesizer", "tables._values",
)  # fmt: skip
# Modules whose functions are parts of what is saved.
_FUNCTION_MODULES = ("_gammas", "couplings")
_FOREIGN = (
    decomposition.PCA, dummy.DummyRegressor, linear_model.RidgeCV, mixture.BayesianGaussianMixture,
    mixture.GaussianMixture, preprocessing.MinMaxScaler, preprocessing.OneHotEncoder,
    preprocessing.PowerTransformer, preprocessing.QuantileTransformer, preprocessing.RobustScaler,
    preprocessing.StandardScaler, nn.Linear, nn.ModuleDict, nn.ModuleList, nn.ParameterList,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Rebuilt:
    """How an object that has no state of its own is described by parts, and built from them.

    Parameters
    ----------
    name : str
    parts, build : callable
    """

    name: str
    parts: Callable
    build: Callable


def _classes():
    for name in _MODULES:
        module = importlib.import_module(f"sklearn_si.{name}")
        for cls in vars(module).values():
            if inspect.isclass(cls) and cls.__module__ == module.__name__:
                yield f"{name}.{cls.__qualname__}", cls


def _functions():
    for name in _FUNCTION_MODULES:
        module = importlib.import_module(f"sklearn_si.{name}")
        for function in vars(module).values():
            if inspect.isfunction(function) and function.__module__ == module.__name__:
                yield f"{name}.{function.__qualname__}", function


def _kernel_parts(kernel):
    data, _, _, _ = kernel.tree_.get_arrays() if hasattr(kernel, "tree_") else (None,) * 4
    state = {name: value for name, value in vars(kernel).items() if name != "tree_"}
    return {"state": state, "data": None if data is None else np.array(data)}


def _build_kernel(parts):
    kernel = neighbors.KernelDensity()
    vars(kernel).update(parts["state"])
    if parts["data"] is not None:
        kernel.tree_ = neighbors.KDTree(parts["data"], leaf_size=kernel.leaf_size, metric=kernel.metric)
    return kernel


def _kernel_applies(value):
    # weights and other trees are not told by their arrays
    if type(value) is not neighbors.KernelDensity:
        return False
    tree = getattr(value, "tree_", None)
    return tree is None or (type(tree) is neighbors.KDTree and getattr(tree, "sample_weight", None) is None)


def _pandas_dtype_parts(dtype):
    categories = getattr(dtype, "categories", None)
    if categories is None:
        return {"name": str(dtype), "categories": None, "ordered": None}
    return {"name": "category", "categories": np.array(categories, dtype=object), "ordered": bool(dtype.ordered)}


def _build_pandas_dtype(parts):
    pd = importlib.import_module("pandas")
    if parts["categories"] is not None:
        return pd.CategoricalDtype(parts["categories"], ordered=parts["ordered"])
    if not _PANDAS_DTYPE.fullmatch(parts["name"]):
        raise ValueError(f"{parts['name']!r} is no dtype of a column.")
    return pd.api.types.pandas_dtype(parts["name"])


def _build_missing(name):
    pd = importlib.import_module("pandas")
    return {"NAType": pd.NA, "NaTType": pd.NaT}[name]


def _narwhals_parts(dtype):
    names = ("time_unit", "time_zone")
    return {"name": type(dtype).__name__, **{n: getattr(dtype, n) for n in names if hasattr(dtype, n)}}


def _build_narwhals(parts):
    nw = importlib.import_module("narwhals.stable.v1")
    settings = {name: value for name, value in parts.items() if name != "name"}
    if parts["name"] not in _NARWHALS_DTYPES:
        raise ValueError(f"{parts['name']!r} is no dtype of a column.")
    return getattr(nw, parts["name"])(**settings)


def _module_of(value):
    return type(value).__module__.split(".")[0]


_PANDAS_DTYPE = re.compile(r"(U?Int|Float)\d+|boolean|str|string|(datetime|timedelta)64\[\w+(, [\w/+:-]+)?\]")
_NARWHALS_DTYPES = (
    "Boolean", "Categorical", "Date", "Datetime", "Duration", "Float32", "Float64", "Int8", "Int16", "Int32", "Int64",
    "Object", "String", "Time", "UInt8", "UInt16", "UInt32", "UInt64",
)  # fmt: skip
# What a recipe applies to, in order.
_RECIPES = (
    (_kernel_applies, Rebuilt("sklearn.KernelDensity", _kernel_parts, _build_kernel)),
    (
        lambda v: type(v).__name__ in ("NAType", "NaTType"),
        Rebuilt("missing", lambda v: type(v).__name__, _build_missing),
    ),
    (
        lambda v: (_module_of(v) == "pandas" and str(v) == "category") or _is_pandas_dtype(v),
        Rebuilt("pandas.dtype", _pandas_dtype_parts, _build_pandas_dtype),
    ),
    (
        lambda v: _module_of(v) == "narwhals" and type(v).__name__ in _NARWHALS_DTYPES,
        Rebuilt("narwhals.dtype", _narwhals_parts, _build_narwhals),
    ),
)


def _is_pandas_dtype(value):
    return _module_of(value) == "pandas" and bool(_PANDAS_DTYPE.fullmatch(str(value)))


def recipe_of(value):
    """The recipe that describes an object without a state of its own; None where there is none."""
    return next((recipe for applies, recipe in _RECIPES if applies(value)), None)


BY_NAME = {
    **dict(_classes()), **dict(_functions()), **{f"foreign.{cls.__name__}": cls for cls in _FOREIGN},
    "numpy.float32": np.float32, "numpy.float64": np.float64, **{recipe.name: recipe for _, recipe in _RECIPES},
}  # fmt: skip
NAMES = {value: name for name, value in BY_NAME.items() if not isinstance(value, Rebuilt)}
