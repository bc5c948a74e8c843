"""The classes and functions that a file may name; `persistence.load` builds no others."""

import dataclasses
import functools
import importlib
import inspect
import math
import os
import re
import zoneinfo
from collections.abc import Callable

import numpy as np
from sklearn import (
    decomposition,
    dummy,
    feature_selection,
    impute,
    linear_model,
    mixture,
    neighbors,
    pipeline,
    preprocessing,
)
from torch import nn

from .._utils.names import BY_NAME, NAMES
from ._cells import arrow_parts, build_arrow, build_cell, cell_parts, is_foreign_cell
from ._functions import numeric_functions

__all__ = ["BY_NAME", "NAMES", "Rebuilt", "is_cell", "is_key", "is_state", "recipe_of"]

# Largest number of levels of a column name.
_MOST_LEVELS = 8
# Numbers in such a name are smaller than this.
_MOST_OF_A_NAME = 2**16
_FOREIGN = (
    decomposition.PCA, dummy.DummyRegressor, feature_selection.VarianceThreshold, impute.SimpleImputer,
    linear_model.RidgeCV, mixture.BayesianGaussianMixture, mixture.GaussianMixture, pipeline.Pipeline,
    preprocessing.FunctionTransformer, preprocessing.MaxAbsScaler, preprocessing.MinMaxScaler,
    preprocessing.OneHotEncoder, preprocessing.PowerTransformer,
    preprocessing.QuantileTransformer, preprocessing.RobustScaler, preprocessing.StandardScaler,
    nn.Linear, nn.ModuleDict, nn.ModuleList, nn.ParameterList,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Rebuilt:
    """How an object that has no Python state is described by parts, and built from them.

    Parameters
    ----------
    name : str
        Its name in files.
    parts, build : callable
        Functions from the object to its parts, and back.
    """

    name: str
    parts: Callable
    build: Callable


def is_key(value):
    """Whether a value may be a key: of a plain type, and with a hash that cannot be chosen to collide with others."""
    if value is None or type(value) in (str, bool):
        return True
    if type(value) is tuple:  # a name of several levels: words, or numbers too small to be chosen for their hashes
        plain = all(type(v) is str or (type(v) in (int, np.int64) and 0 <= v < _MOST_OF_A_NAME) for v in value)
        return plain and len(value) <= _MOST_LEVELS
    if isinstance(value, (int, float, np.integer, np.floating)):
        # Larger integers are hashed modulo this prime.
        return not 2**61 - 1 <= abs(value) < math.inf
    return False


def is_cell(value):
    """Whether a value may be a cell of an array of objects.

    Arrays may not: the interpreter crashes when numpy frees some thousands of arrays that contain each other.
    """
    return (
        value is None
        or isinstance(value, (str, bool, int, float, np.generic))
        or _is_missing(value)
        or is_foreign_cell(value)
    )


@functools.lru_cache(maxsize=4096)
def is_state(cls, name):
    """Whether a state may set an attribute: a new one, a default or a cache of the class, but not a method.

    Names such as `__array_interface__` would tell numpy from which address to read numbers.
    """
    if name.startswith("__"):
        return False
    found = inspect.getattr_static(cls, name, None)
    plain = found is None or isinstance(found, (bool, functools.cached_property))
    return plain or (dataclasses.is_dataclass(cls) and name in {field.name for field in dataclasses.fields(cls)})


def _is_missing(value):
    return type(value).__name__ in ("NAType", "NaTType")


def _kernel_parts(kernel):
    data, _, _, _ = kernel.tree_.get_arrays() if hasattr(kernel, "tree_") else (None,) * 4
    state = {name: value for name, value in vars(kernel).items() if name != "tree_"}
    return {"state": state, "data": None if data is None else np.array(data)}


def _build_kernel(parts):
    kernel = neighbors.KernelDensity()
    for name, value in parts["state"].items():
        if not is_state(neighbors.KernelDensity, name):
            raise ValueError(f"The state of a KernelDensity sets {name!r:.100}, which save never does.")
        vars(kernel)[name] = value
    if parts["data"] is not None:
        _expect(type(parts["data"]) is np.ndarray and isinstance(kernel.leaf_size, (int, np.integer)))
        _expect(isinstance(kernel.metric, str))
        kernel.tree_ = neighbors.KDTree(parts["data"], leaf_size=kernel.leaf_size, metric=kernel.metric)
    return kernel


def _kernel_applies(value):
    # Sample weights and other trees are not described by their arrays.
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
        _expect(type(parts["categories"]) is np.ndarray and type(parts["ordered"]) is bool)
        # pandas hashes the categories.
        _expect(sum(not is_key(value) for value in parts["categories"].ravel().tolist()) < _ODD_CATEGORIES)
        return pd.CategoricalDtype(parts["categories"], ordered=parts["ordered"])
    match = _PANDAS_DTYPE.fullmatch(parts["name"])
    if not match or not _is_zone(match["zone"]):
        raise ValueError(f"{parts['name']!r} is not a dtype of a column.")
    dtype = pd.api.types.pandas_dtype(parts["name"])
    # before pandas 3, the text of which is "str", columns of text held objects
    return np.dtype(object) if isinstance(dtype, np.dtype) else dtype


def _is_zone(name):
    """Whether the system has a time zone; for an unknown one, zoneinfo would import a module of that name."""
    if name is None or _OFFSET.fullmatch(name) or not any(os.path.isdir(root) for root in zoneinfo.TZPATH):
        return True
    return any(os.path.isfile(os.path.join(root, name)) for root in zoneinfo.TZPATH)


def _build_missing(name):
    _expect(type(name) is str)
    pd = importlib.import_module("pandas")
    return {"NAType": pd.NA, "NaTType": pd.NaT}[name]


def _narwhals_parts(dtype):
    names = ("time_unit", "time_zone", "categories", "precision", "scale")
    return {"name": type(dtype).__name__, **{n: getattr(dtype, n) for n in names if hasattr(dtype, n)}}


def _build_narwhals(parts):
    nw = importlib.import_module("narwhals.stable.v2")
    settings = {name: value for name, value in parts.items() if name != "name"}
    categories = settings.get("categories", ())
    _expect(type(categories) is tuple and all(type(category) is str for category in categories))
    plain = [value for name, value in parts.items() if name != "categories"]
    _expect(all(value is None or type(value) in (str, int) for value in plain) and type(parts["name"]) is str)
    if parts["name"] not in _NARWHALS_DTYPES:
        raise ValueError(f"{parts['name']!r} is not a dtype of a column.")
    return getattr(nw, parts["name"])(**settings)


def _expect(condition):
    if not condition:
        raise ValueError("An object is described by parts of other types than those that save writes.")


def _module_of(value):
    return type(value).__module__.split(".")[0]


# Largest number of categories that are no valid keys (such as huge numbers), so that equal hashes do no harm.
_ODD_CATEGORIES = 1000
# Time zones of dateutil are excluded, because they may be paths of files.
_PANDAS_DTYPE = re.compile(
    r"(U?Int|Float)\d+|boolean|str|string|Sparse\[[\w, .-]{1,40}\]"
    r"|period\[\d{0,4}[A-Za-z]{1,3}(-[A-Z]{3})?\]"
    r"|interval\[(u?int|float|datetime|timedelta)64(\[\w+\])?, (left|right|both|neither)\]"
    r"|(datetime|timedelta)64\[\w+(, (?P<zone>(?!dateutil)\w[\w/+:-]*))?\]",
    re.ASCII,
)
_OFFSET = re.compile(r"UTC([+-]\d\d:\d\d(:\d\d)?)?", re.ASCII)
_NARWHALS_DTYPES = (
    "Boolean", "Categorical", "Date", "Datetime", "Decimal", "Duration", "Enum", "Float32", "Float64", "Int8", "Int16",
    "Int32", "Int64", "Object", "String", "Time", "UInt8", "UInt16", "UInt32", "UInt64", "Unknown",
)  # fmt: skip
# A test whether a recipe applies to a value, and the recipe, in the order of the tests.
_RECIPES = (
    (_kernel_applies, Rebuilt("sklearn.KernelDensity", _kernel_parts, _build_kernel)),
    (is_foreign_cell, Rebuilt("cell", cell_parts, build_cell)),
    (
        lambda v: _module_of(v) == "pandas" and type(v).__name__ == "ArrowDtype",
        Rebuilt("pandas.ArrowDtype", arrow_parts, build_arrow),
    ),
    (_is_missing, Rebuilt("missing", lambda v: type(v).__name__, _build_missing)),
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
    """The recipe that describes an object without a Python state; None if there is none."""
    return next((recipe for applies, recipe in _RECIPES if applies(value)), None)


# The classes and recipes of other libraries; those of this one are registered where they are defined.
_OTHERS = {
    **{f"foreign.{cls.__name__}": cls for cls in _FOREIGN},
    **numeric_functions(),
    "numpy.float32": np.float32, "numpy.float64": np.float64, **{recipe.name: recipe for _, recipe in _RECIPES},
}  # fmt: skip
BY_NAME.update(_OTHERS)
NAMES.update({value: name for name, value in _OTHERS.items() if not isinstance(value, Rebuilt)})
