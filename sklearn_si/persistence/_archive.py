"""Save and load fitted estimators without executing code from a file."""

import contextlib
import inspect
import json
import math
import os
import re
import secrets
import struct
import zipfile
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch

from .._utils.figures import Figures
from .._version import __version__
from ..exceptions import LoadError
from ._functions import advice_about, is_nameable
from ._registry import (
    BY_NAME,
    NAMES,
    Rebuilt,
    is_cell,
    is_key,
    is_state,
    recipe_of,
)

__all__ = ["FORMAT", "load", "save"]

# The version of the file format, frozen with sklearn_si 0.1.0: files of older versions can be loaded, and a change that
# older versions cannot read raises it (docs/support.rst).
FORMAT = 1
# Largest description that is read, in bytes.
_LARGEST_TREE = 256 * 2**20
# Deepest nesting of objects that is read.
_DEEPEST = 200
_TREE = "tree.json"
# What numpy writes before an array of save: no tuples of fields, no objects, nothing to be evaluated.
_DTYPE = r"[<>|][biufcmMSU][0-9]{0,9}(?:\[[0-9]{0,9}[a-zA-Z]{1,7}\])?"
_SHAPE = r"\(((?:[0-9]{1,19}(?:, [0-9]{1,19})*,?)?)\)"
_HEADER = re.compile(rf"{{'descr': '({_DTYPE})', 'fortran_order': (True|False), 'shape': {_SHAPE}, }} *\n")
_MAGIC = b"\x93NUMPY\x01\x00"
_LARGEST_CHARACTER = 0x10FFFF
# Objects that are met again count as often as they are met: what is said briefly must not take forever to print.
# Largest number of objects read, repeats counted, in units of the objects in the description ...
REPEATED = 4
# ... and objects that are always allowed.
FREE = 100_000
# Parameters of estimators that name places on the machine that fits.
_PLACES = ("checkpoint", "memory")
_DICTS = {dict: "dict", OrderedDict: "ordered", Bunch: "bunch", Figures: "bunch"}


def save(estimator, path):
    """Write an estimator to a file that can be loaded without executing code.

    The file is an uncompressed zip archive of a JSON description and of arrays in numpy's format. It contains no
    pickle. It is written under a temporary name in the same folder and then renamed, so that a crash leaves an older
    file intact.

    Parameters
    ----------
    estimator : estimator
        An estimator of this library, fitted or not, or a Pipeline. Its parts may be GaussianMixture, KernelDensity and
        the transformers of scikit-learn that the guide lists (as `base_density`, or as the steps of a Pipeline).
    path : str or path-like
        The file to write.

    Raises
    ------
    ValueError
        When the estimator contains an object that the file cannot describe, such as a function of your own or an
        object of another library. The message names the attribute and says what to do.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import sklearn_si
    >>> X = np.random.default_rng(0).normal(size=(50, 2))
    >>> flow = sklearn_si.InterpolantFlow(max_iter=3, random_state=0).fit(X)
    >>> path = os.path.join(tempfile.mkdtemp(), "flow.si")
    >>> sklearn_si.save(flow, path)
    >>> bool((sklearn_si.load(path).sample(3) == flow.sample(3)).all())
    True
    """
    write(estimator, path, type(estimator).__name__)


def load(path):
    """Read an estimator from a file that `save` wrote.

    Nothing in the file is executed: classes and functions come from a list in this library, and arrays are read without
    pickle. Each entry is read once and has the length that it announces (compressed entries are rejected), so that the
    memory is at most a few times that of the arrays plus about thirty times that of the description. `SECURITY.md` says
    which attacks are not prevented.

    Parameters
    ----------
    path : str or path-like
        A file that `save` wrote.

    Returns
    -------
    estimator : estimator
        The estimator as it was saved, on the CPU. Its `checkpoint` is not set, because that is a path on the machine
        that saved it.

    Raises
    ------
    LoadError
        When the file is not such an archive, is truncated or changed, has entries that `save` does not write, names a
        class that is not on the list, or has a newer version of the format.
    OSError
        When the file cannot be opened.
    """
    estimator = read(path)
    if not isinstance(estimator, BaseEstimator):
        raise LoadError(
            f"{os.fspath(path)!r} holds no estimator: pass a file that save wrote. (If it is the checkpoint of a fit, "
            "call the same fit again to resume it.)"
        )
    return estimator


def write(value, path, place):
    """Write a value to a temporary file beside `path`, and rename the file when it is on the disk."""
    writer = Writer()
    tree = {"format": FORMAT, "library": __version__, "root": writer.node(value, place)}
    path = os.fsdecode(path)
    beside = f"{path}.{secrets.token_hex(8)}"
    try:
        with open(beside, "xb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                # Entries have no time, so that two files of the same model are equal bit by bit.
                archive.writestr(zipfile.ZipInfo(_TREE), json.dumps(tree, allow_nan=False))
                for name, array in writer.arrays.items():
                    with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as entry:
                        np.lib.format.write_array(entry, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        if os.path.exists(beside):
            os.unlink(beside)
    _sync_folder(path)


def _sync_folder(path):
    """Write the entry of a file in its folder to the disk, on systems that can do so."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # not supported by some file systems
            os.fsync(folder)
    finally:
        os.close(folder)


def read(path):
    """The value in a file that `write` wrote."""
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return Reader(archive, os.fstat(file.fileno()).st_size).root()
        except LoadError:
            raise
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError, struct.error) as error:
            raise LoadError(
                f"{os.fspath(path)!r} is not a file of sklearn_si.save, or is damaged ({error}): save the model again."
            ) from error
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
            raise LoadError(f"{os.fspath(path)!r} holds what save does not write: {error!r:.300}") from error


def _check(allowed, values, place):
    for value in values:
        if not allowed(value):
            raise ValueError(
                f"{place} has {value!r} of class {type(value).__name__} as a key or a cell, which a file without code "
                "cannot describe: use text or a number of everyday size, or pickle the estimator for readers who trust "
                "you."
            )


class Writer:
    """Converts objects to the nodes of a JSON tree; arrays are kept apart, and repeated objects refer to the first."""

    def __init__(self):
        self.arrays, self.numbers, self.kept, self.open = {}, {}, [], set()

    def node(self, value, place):
        """The node of a value; `place` names the attribute in errors."""
        if value is None or isinstance(value, (bool, str)) or type(value) is int:
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if id(value) in self.open:
            raise ValueError(f"{place} contains itself, which a file cannot describe: remove the reference.")
        if id(value) in self.numbers:
            return {"seen": self.numbers[id(value)]}
        return self._described(value, place)

    def _remember(self, value):
        number = len(self.numbers)
        self.numbers[id(value)] = number
        self.kept.append(value)  # so that no other object takes its id
        return number

    def _described(self, value, place):
        kind = type(value)
        if kind in (list, tuple, set):
            items = sorted(value, key=repr) if kind is set else value
            _check(is_key, items if kind is set else (), place)
            return {kind.__name__: [self.node(v, f"{place}[{k}]") for k, v in enumerate(items)]}
        if kind in _DICTS:
            _check(is_key, value, place)
            pairs = [[self.node(k, place), self.node(v, f"{place}[{k!r}]")] for k, v in value.items()]
            return {_DICTS[kind]: pairs}
        if isinstance(value, np.generic):
            return {"scalar": self._array(np.asarray(value))}
        if isinstance(value, np.dtype):
            return {"dtype": value.str}
        if isinstance(value, torch.device):
            return {"device": str(value)}
        number = self._remember(value)
        if kind is np.ndarray:
            return {"number": number, **self._array_node(value, place)}
        if isinstance(value, torch.Tensor):
            values = value.detach().cpu()
            return {
                "number": number, "tensor": self._array(values.numpy()),
                "parameter": isinstance(value, torch.nn.Parameter),
            }  # fmt: skip
        self.open.add(id(value))
        node = {"number": number, **self._object(value, place)}
        self.open.remove(id(value))
        return node

    def _array_node(self, value, place):
        if value.dtype == object:
            _check(is_cell, value.ravel(), place)
            cells = [self.node(v, f"{place}[{k}]") for k, v in enumerate(value.ravel().tolist())]
            return {"objects": cells, "shape": list(value.shape)}
        return {"array": self._array(value)}

    def _array(self, value):
        name = f"{len(self.arrays)}.npy"
        # The memory order is kept, because the rounding of sums depends on it.
        self.arrays[name] = value if value.flags.f_contiguous else np.asarray(value, order="C")
        return name

    def _object(self, value, place):
        if is_nameable(value) and value in NAMES:
            return {"named": NAMES[value]}
        recipe = recipe_of(value)
        if recipe is not None:
            return {"rebuilt": recipe.name, "from": self.node(recipe.parts(value), place)}
        name = None if isinstance(value, type) else NAMES.get(type(value))
        if name is None:
            raise ValueError(
                f"{place} holds {value!r} of class {type(value).__module__}.{type(value).__qualname__}, which a file "
                f"without code cannot describe: {advice_about(value)}."
            )
        # our own estimators have a state that is not packed; before python 3.11 few objects have `__getstate__`
        own = getattr(value, "_plain_state", None) or getattr(value, "__getstate__", None)
        # An object without attributes has no state.
        state = vars(value) if own is None or isinstance(value, torch.nn.Module) else own() or {}
        if isinstance(value, BaseEstimator):  # where a fit writes is not for a file to say
            state = {k: None if k in _PLACES else v for k, v in state.items() if k != "_sklearn_version"}
        kind: Any = type(value)
        for attribute in state:
            if not is_state(kind, attribute):
                raise ValueError(
                    f"{place} has an attribute {attribute!r} in place of what its class defines: remove it."
                )
        return {"object": name, "state": self.node(dict(state), place)}


class Reader:
    """Reads the objects of an archive."""

    def __init__(self, archive, size):
        self.archive, self.seen, self.taken = archive, {}, set()
        names = archive.namelist()
        if len(set(names)) < len(names) or _TREE not in names:
            raise LoadError("The archive has no description, or entries of the same name: it is not a file of save.")
        total = 0
        for entry in archive.infolist():
            plain = entry.filename == _TREE or (entry.filename.endswith(".npy") and entry.filename[:-4].isdigit())
            if not plain or entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise LoadError(f"The archive has the entry {entry.filename!r}, which save does not write.")
            total += entry.file_size
        if total > size:
            raise LoadError("The entries of the archive are longer than the file: it is damaged.")

    def root(self):
        """The value at the root of the tree."""
        if self.archive.getinfo(_TREE).file_size > _LARGEST_TREE:
            raise LoadError("The description of the archive is larger than any that save writes.")
        text = self.archive.read(_TREE)
        tree = json.loads(text)
        if not isinstance(tree, dict) or not isinstance(tree.get("format"), int):
            raise LoadError("The description of the archive names no format: it is not a file of save.")
        if tree["format"] > FORMAT:
            raise LoadError(
                f"The file has format {tree['format']}, written by sklearn_si {tree.get('library')!s:.20}; this "
                f"version reads formats up to {FORMAT}: update sklearn_si."
            )
        self.left = FREE + REPEATED * len(text)
        return self.value(tree["root"], 0)

    def value(self, node, depth):
        """The value that a node describes."""
        self._spend(1)
        if node is None or isinstance(node, (bool, int, float, str)):
            return node
        if depth > _DEEPEST or not isinstance(node, dict):
            raise LoadError("The description of the archive is nested deeper than any that save writes, or is no tree.")
        for kind, read in self._KINDS.items():
            if kind in node:
                return read(self, node, depth + 1)
        raise LoadError(f"The archive holds a node of unknown kind {sorted(node)[:3]!s:.100}.")

    def _spend(self, nodes):
        self.left -= nodes
        if self.left < 0:
            raise LoadError("The description of the archive repeats its objects more often than any that save writes.")

    def _remembered(self, node, value, nodes=1):
        self.seen[node["number"]] = value, nodes
        return value

    def _seen(self, node, depth):
        value, nodes = self.seen[node["seen"]]
        self._spend(nodes)
        return value

    def _list(self, node, depth):
        return [self.value(v, depth) for v in node["list"]]

    def _tuple(self, node, depth):
        return tuple(self.value(v, depth) for v in node["tuple"])

    def _set(self, node, depth):
        return {self._key(v, depth) for v in node["set"]}

    def _key(self, node, depth):
        key = self.value(node, depth)
        if not is_key(key):
            raise LoadError(f"The archive has a key of class {type(key).__name__}, which save does not write.")
        return key

    def _pairs(self, pairs, depth):
        return {self._key(k, depth): self.value(v, depth) for k, v in pairs}

    def _read(self, name):
        if name in self.taken:
            raise LoadError(f"The description of the archive names the entry {name!r:.100} twice.")
        self.taken.add(name)
        data = self.archive.read(name)
        start = len(_MAGIC) + 2 + int.from_bytes(data[len(_MAGIC) : len(_MAGIC) + 2], "little")
        header = _HEADER.fullmatch(data[len(_MAGIC) + 2 : start].decode("latin1"))
        if not data.startswith(_MAGIC) or header is None:
            raise LoadError(f"The entry {name!r} is no array that save writes: it holds objects, or is damaged.")
        dtype, shape = np.dtype(header[1]), tuple(int(n) for n in re.findall("[0-9]+", header[3]))
        # This is checked before memory is allocated for the array.
        if math.prod(shape) * dtype.itemsize != len(data) - start:
            raise LoadError(f"The entry {name!r} is not as long as the array that it announces.")
        values = np.frombuffer(memoryview(data)[start:], dtype)
        if not _is_sound(values):
            raise LoadError(f"The entry {name!r} holds bytes that are no values of its dtype {dtype}.")
        return values.reshape(shape, order="F" if header[2] == "True" else "C").copy(order="K")

    def _scalar(self, node, depth):
        value = self._read(node["scalar"])[()]
        if not isinstance(value, np.generic):
            raise LoadError(f"The entry {node['scalar']!r} holds more than the one number that it stands for.")
        return value

    def _dtype(self, node, depth):
        if node["dtype"] != "|O" and not re.fullmatch(_DTYPE, node["dtype"]):
            raise LoadError(f"The archive has the dtype {node['dtype']!r:.100}, which save does not write.")
        return np.dtype(node["dtype"])

    def _array(self, node, depth):
        return self._remembered(node, self._read(node["array"]))

    def _objects(self, node, depth):
        cells, left = np.empty(len(node["objects"]), dtype=object), self.left
        for k, cell in enumerate(node["objects"]):
            value = self.value(cell, depth)
            if not is_cell(value):
                raise LoadError(
                    f"An array of objects has a cell of class {type(value).__name__}, not text or a number."
                )
            cells[k] = value
        return self._remembered(node, cells.reshape(node["shape"]), left - self.left)

    def _tensor(self, node, depth):
        tensor = torch.from_numpy(self._read(node["tensor"]))
        tensor = torch.nn.Parameter(tensor, requires_grad=False) if node["parameter"] else tensor
        return self._remembered(node, tensor)

    def _named(self, node, depth):
        value = self._listed(node["named"])
        if isinstance(value, Rebuilt):
            raise LoadError(f"{node['named']!r:.100} is not a name by itself.")
        return self._remembered(node, value)

    def _rebuilt(self, node, depth):
        recipe = self._listed(node["rebuilt"])
        if not isinstance(recipe, Rebuilt):
            raise LoadError(f"{node['rebuilt']!r:.100} is not rebuilt from parts.")
        left, parts = self.left, self.value(node["from"], depth)
        return self._remembered(node, recipe.build(parts), left - self.left)

    def _object(self, node, depth):
        cls = self._listed(node["object"])
        if not isinstance(cls, type):
            raise LoadError(f"{node['object']!r} is no class.")
        left = self.left
        state = self.value(node["state"], depth)
        if type(state) is not dict or not all(isinstance(name, str) for name in state):
            raise LoadError(f"The state of an object of class {node['object']!r} is no dictionary of names.")
        for name in state:
            if not is_state(cls, name):
                raise LoadError(
                    f"The state of an object of class {node['object']!r} sets {name!r:.100}: save never does."
                )
        device = state.get("device")
        if isinstance(device, str) and device.startswith("cuda") and not torch.cuda.is_available():
            state["device"] = "auto"
        # where a fit writes is for the reader to say
        state.update({name: None for name in _PLACES if name in state})
        if issubclass(cls, BaseEstimator):  # parameters that are newer than the file
            for parameter in inspect.signature(cls).parameters.values():
                if parameter.default is not parameter.empty:
                    state.setdefault(parameter.name, parameter.default)
        # mypy mistakes it for `type.__new__`.
        value = cls.__new__(cls)  # type: ignore[call-overload]
        vars(value).update(state)
        # It is stored only now, so that no object can contain itself.
        return self._remembered(node, value, left - self.left)

    def _listed(self, name):
        if name not in BY_NAME:
            raise LoadError(f"The file names {name!r:.100}, which is not on the list of what may be loaded.")
        return BY_NAME[name]

    _KINDS = {  # noqa: RUF012
        "seen": _seen,
        "float": lambda self, node, depth: float(node["float"]),
        "list": _list,
        "tuple": _tuple,
        "set": _set,
        "dict": lambda self, node, depth: self._pairs(node["dict"], depth),
        "ordered": lambda self, node, depth: OrderedDict(self._pairs(node["ordered"], depth)),
        "bunch": lambda self, node, depth: Figures(**self._pairs(node["bunch"], depth)),
        "scalar": _scalar,
        "dtype": _dtype,
        "device": lambda self, node, depth: torch.device("cpu"),
        "array": _array,
        "objects": _objects,
        "tensor": _tensor,
        "named": _named,
        "rebuilt": _rebuilt,
        "object": _object,
    }


def _is_sound(values):
    """Whether all bytes are valid for their dtype, which numpy does not check for booleans and text."""
    if values.dtype.kind == "b":
        return bool((values.view(np.uint8) <= 1).all())
    if values.dtype.kind == "U":
        return bool((values.view(values.dtype.byteorder + "u4") <= _LARGEST_CHARACTER).all())
    return True
