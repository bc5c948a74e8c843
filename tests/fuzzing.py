"""Mutants of saved files and the guard under which they are loaded: `test_fuzz.py`, `benchmarks/checks/fuzz.py`."""

import contextlib
import copy
import io
import json
import os
import pathlib
import random
import struct
import sys
import sysconfig
import warnings
import zipfile

import numpy as np

from sklearn_si.persistence._registry import BY_NAME

KINDS = (
    "seen", "float", "list", "tuple", "set", "dict", "ordered", "bunch", "scalar", "dtype", "device", "array",
    "objects", "tensor", "named", "rebuilt", "object", "number", "state", "from", "shape", "parameter",
)  # fmt: skip
NAMES = (*BY_NAME, "os.system", "builtins.eval", "subprocess.Popen", "importlib.import_module", "", "__class__")
# Text that is a script where a picture does not escape it.
PLANTED = "<script>planted"
ATTRIBUTES = (
    "__class__", "__dict__", "__reduce__", "__init__", "__del__", "__getattr__", "__eq__", "__hash__", "__repr__",
    "__array__", "__array_interface__", "__array_struct__", "__len__", "__torch_function__", "__sklearn_tags__",
    "_doc_link_template", "_get_doc_link", "_repr_html_", "_repr_mimebundle_", "_parameters", "_modules", "_buffers",
    "_forward_hooks", "_networks", "_parameter_constraints", "_packed_networks", "device", "training", "forward",
    "sample", "score_samples", "predict", "get_params", "fit", "n_jobs", "path", "callbacks", "checkpoint",
    "feature_names_in_", PLANTED + "_",
)  # fmt: skip
# Where numpy would look for numbers in the memory.
POINTER = {
    "dict": [
        ["data", {"tuple": [1, False]}], ["shape", {"tuple": [2, 2]}], ["typestr", "<f8"], ["version", 3],
    ]
}  # fmt: skip
VALUES = (
    None, True, False, 0, 1, -1, 7, 2**31, 2**61 - 1, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e308, 5e-324, float("nan"),
    "", "x", "\ud800", "cuda:0", PLANTED, "a" * 3000, "../../etc/passwd", "/tmp/planted", [], {}, [[]], {"list": []},
    {"dict": []}, {"tuple": [1, 2]}, {"float": "nan"}, {"float": "-inf"}, {"float": "1" * 5000}, {"seen": 0},
    {"seen": -1}, {"set": [1, "a"]}, {"set": [{"list": []}]}, {"device": "cuda"}, {"dict": [[{"list": []}, 1]]},
    {"dict": [[{"seen": 0}, 1]]}, {"named": "numpy.float64", "number": 0}, {"bunch": [["keys", 1]]}, POINTER,
    {"objects": [], "shape": [0, 2**62], "number": 0}, {"objects": [{"seen": 0}], "shape": [1], "number": 1},
    {"rebuilt": "missing", "from": "NAType", "number": 0}, {"rebuilt": "missing", "from": {"seen": 0}, "number": 0},
)  # fmt: skip
DTYPES = (
    "|O", "O", "|V8", "<f8", ">f8", "<f2", "<f16", "<c16", "|b1", "|i1", "<u8", "|S0", "|S9", "<U0", "<U3",
    "<U536870911", "<U2147483647", "<M8[ns]", "<M8", "<M8[25s]", "<m8[999999999999s]", "<M8[generic]", "i4,i4",
    "(2,)f8", "T", "?", "datetime64[ns]", "<f8\x00", "float64; import os", "",
)  # fmt: skip
SHAPES = (
    [], [0], [1], [-1], [2], [0, 2**62], [2**40], [2**63], [10**30], [1] * 33, [1] * 65, [-2, -4], [True], [0.5], "ab",
    None, [[1]], [2, 3],
)  # fmt: skip
ZONES = (
    "Int64", "Float32", "boolean", "str", "string", "period[D]", "Sparse[int]", "interval[int64]", "timedelta64[s]",
    "datetime64[ns, Europe/Berlin]", "datetime64[ns, dateutil//etc/passwd]", "datetime64[ns, /etc/passwd]", "Int999",
    "datetime64[ns, ../../etc/passwd]", "datetime64[ns, :/etc/passwd]", "string[pyarrow]", "object", "Datetime", "List",
    "__class__", "dependencies", "datetime64[ns, UTC+01:00]", "datetime64[ns, nowhere/at/all]",
)  # fmt: skip


def entries(data):
    """The entries of an archive, by name."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(pairs, compression=zipfile.ZIP_STORED):
    """An archive of pairs of a name and of bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of entries of the same name
        for name, data in pairs:
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return stream.getvalue()


def raw(rng, data, other):
    """Bytes flipped, cut, inserted, doubled, or those of two files."""
    data, place = bytearray(data), rng.randrange(len(data))
    way = rng.randrange(6)
    if way == 0:
        for _ in range(rng.choice((1, 2, 8, 64))):
            data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
    elif way == 1:
        del data[place : rng.choice((len(data), place + rng.randrange(1, 200)))]
    elif way == 2:
        data[place:place] = rng.randbytes(rng.randrange(1, 100))
    elif way == 3:
        data[place:place] = data[place : place + rng.randrange(1, 5000)]
    elif way == 4:
        data = data[:place] + other[rng.randrange(len(other)) :]
    else:  # the directory at the end, and what stands last
        for _ in range(rng.choice((1, 3))):
            data[-rng.randrange(1, min(len(data), 600))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
    return bytes(data)


def directory(rng, data, other):
    """Entries renamed, doubled, compressed, of lying sizes, or very many."""
    pairs = list(entries(data).items())
    k, way = rng.randrange(len(pairs)), rng.randrange(8)
    name, held = pairs[k]
    if way == 0:
        names = ("../evil.npy", "/tmp/evil.npy", "a.py", "\u00b2.npy", "0.npy\x00.py", "", "TREE.JSON", "-1.npy")
        pairs[k] = rng.choice((*names, "C:\\x.npy", "1" * 60000 + ".npy")), held
    elif way == 1:
        pairs.append((rng.choice(pairs)[0], held))
    elif way == 2:
        compression = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
        return packed([*pairs, ("99999.npy", bytes(10**6))], compression)
    elif way == 3:
        pairs += [(f"{10**6 + j}.npy", b"") for j in range(2000)]
    elif way == 4:
        del pairs[k]
    elif way == 5:
        pairs[k] = name, dict(pairs)[rng.choice(pairs)[0]]
    elif way == 6:  # a field of the directory of another value: method, flags, checksum, sizes, lengths, offset
        packing = bytearray(packed(pairs))
        found = [j for j in range(len(packing) - 46) if packing[j : j + 4] == b"PK\x01\x02"]
        at, field = rng.choice(found), rng.choice(((8, "H"), (10, "H"), (16, "I"), (20, "I"), (24, "I"), (28, "H")))
        at += rng.choice((field[0], field[0], 30, 42))
        largest = 256 ** struct.calcsize(field[1]) - 1
        struct.pack_into("<" + field[1], packing, at, rng.choice((0, 1, 8, largest, largest - 1, largest // 2)))
        return bytes(packing)
    else:
        return rng.choice((b"", b"PK\x03\x04", rng.randbytes(100))) + data + rng.randbytes(rng.choice((0, 10, 70000)))
    return packed(pairs)


def _slots(node, found):
    """All places of a tree: (container, key)."""
    for key in range(len(node)) if isinstance(node, list) else list(node):
        found.append((node, key))
        if isinstance(node[key], (list, dict)):
            _slots(node[key], found)
    return found


def _laughs(rng):
    """A chain of objects each of which holds the last twice."""
    kind, depth = rng.choice(("InterpolantFlow", "interpolants.Gamma", "couplings.Optimal")), rng.randrange(5, 150)
    names = ("base_density", "network") if kind == "InterpolantFlow" else ("name", "value")
    chain, held = [], 0
    for number in range(10**6, 10**6 + depth):
        state = {"dict": [[name, held] for name in names]}
        chain.append({"number": number, "object": kind, "state": state})
        held = {"seen": number}
    return rng.choice(({"list": chain}, {"tuple": [*chain, {"set": [held]}]}, {"dict": [["x", {"list": chain}]]}))


def _value(rng, slots):
    """What to put in a place."""
    way = rng.randrange(12)
    if way < 5:
        return copy.deepcopy(rng.choice(VALUES))
    if way == 5:
        return {"seen": rng.randrange(60)}
    if way == 6:
        return {"named": rng.choice(NAMES), "number": rng.randrange(10**6)}
    if way == 7:
        return _laughs(rng)
    if way == 8:
        names = [[rng.choice(ATTRIBUTES), _value(rng, slots)] for _ in range(2)]
        return {"number": rng.randrange(10**6), "object": rng.choice(NAMES), "state": {"dict": names}}
    node, key = rng.choice(slots)
    return copy.deepcopy(node[key])


def _change_tree(rng, tree, other):
    slots = _slots(tree, [])
    node, key = rng.choice(slots)
    way = rng.randrange(10)
    if way == 0:
        node[key] = _value(rng, _slots(other, []))
    elif way == 1:
        del node[key]
    elif way == 2 and isinstance(node, list):
        node[key:key] = [copy.deepcopy(node[key])] * rng.choice((1, 1, 300))
    elif way == 3 and isinstance(node, dict):
        node[rng.choice(KINDS)] = node.pop(key)
    elif way == 4:
        for _ in range(rng.choice((1, 5, 150, 250))):
            node[key] = {rng.choice(("list", "tuple")): [node[key]]}
    else:
        _change_kind(rng, slots)


_PLACES = (
    "object", "object", "named", "dict", "dict", "dict", "dtype", "shape", "from", "array", "scalar", "objects",
    "number", "seen", "tensor",
)  # fmt: skip


def _change_kind(rng, slots):
    """A change of a place of one kind: names, states, dtypes, shapes, recipes, repeats, cells."""
    wanted = rng.choice(_PLACES)
    found = [(node, key) for node, key in slots if key == wanted]
    if not found:
        return
    node, key = rng.choice(found)
    if wanted in ("object", "named"):
        node[key] = rng.choice(NAMES)
    elif wanted == "dict" and isinstance(node[key], list):
        if node[key] and rng.random() < 0.6:
            rng.choice(node[key])[rng.choice((0, 1, 1, 1))] = _value(rng, slots)
        else:
            node[key].append([rng.choice(ATTRIBUTES), rng.choice((copy.deepcopy(POINTER), _value(rng, slots)))])
    elif wanted == "dtype":
        node[key] = rng.choice(DTYPES)
    elif wanted == "shape":
        node[key] = copy.deepcopy(rng.choice(SHAPES))
    elif wanted == "from":
        pairs = node[key]["dict"] if isinstance(node[key], dict) and "dict" in node[key] else None
        if pairs and rng.random() < 0.8:
            pair = rng.choice(pairs)
            pair[-1] = rng.choice(ZONES) if rng.random() < 0.7 else _value(rng, slots)
        else:
            node[key] = _value(rng, slots)
    elif wanted in ("array", "scalar", "tensor"):
        node[key] = rng.choice((f"{rng.randrange(40)}.npy", "tree.json", 0, None, "../x"))
    elif wanted == "objects" and isinstance(node[key], list):
        node[key].append(_value(rng, slots))
    else:
        node[key] = rng.choice((0, 1, rng.randrange(100), -1, "a", None, [], 2**70))


def tree(rng, data, other):
    """The description with nodes replaced, deleted, doubled, of another kind, renamed, nested, repeated."""
    held = entries(data)
    described, foreign = (json.loads(d["tree.json"]) for d in (held, entries(other)))
    for _ in range(rng.choice((1, 1, 2, 4))):
        # what an earlier change has broken, or nested deeper than python goes
        with contextlib.suppress(AttributeError, TypeError, IndexError, KeyError, ValueError, RecursionError):
            _change_tree(rng, described, foreign)
    try:
        return packed({**held, "tree.json": json.dumps(described)}.items())
    except (RecursionError, ValueError):  # deep, or a part of itself
        return text(rng, data, other)


def text(rng, data, other):
    """The text of the description with characters changed, numbers of many digits, brackets."""
    held = entries(data)
    described = bytearray(held["tree.json"])
    for _ in range(rng.choice((1, 3))):
        place = rng.randrange(len(described))
        put = (b"9" * 5000, b"[" * 2000, b'{"list":[' * 500, b"NaN", b"1e999999", b"\xff", b'"', b"\\ud800", b"-", b"e")
        described[place : place + rng.choice((0, 1, 5))] = rng.choice(put)
    if rng.random() < 0.1:
        described = described.decode("latin1").encode(rng.choice(("utf-16", "utf-32", "utf-8")))
    return packed({**held, "tree.json": bytes(described)}.items())


def arrays(rng, data, other):
    """An array with another header, other bytes, or of another dtype and shape."""
    held = entries(data)
    names = [name for name in held if name != "tree.json"]
    if not names:
        return text(rng, data, other)
    name = rng.choice(names)
    array, way = bytearray(held[name]), rng.randrange(7)
    end = array.find(b"\n") + 1
    header, numbers = bytes(array[10:end]), bytes(array[end:])
    if way < 3:
        shape = rng.choice(SHAPES)
        new = {"descr": rng.choice((*DTYPES, [("a", "<f8")])), "fortran_order": rng.choice((True, False, 1, "x")),
               "shape": tuple(shape) if isinstance(shape, list) else shape}  # fmt: skip
        old = str(header, "latin1").strip()
        for key in rng.sample(sorted(new), rng.choice((1, 1, 2, 3))):
            start = old.find(f"'{key}': ")
            stop = old.find(", '", start) if key != "shape" else len(old) - 3
            old = old[:start] + f"'{key}': {new[key]!r}" + old[stop:]
        header = old.encode("latin1", "replace") + b"\n"
    elif way == 3:
        header = bytearray(header)
        put = (b"-" * 9000, b"(" * 300, b"__import__('os')", b"'", b"\x00", b"L", b"{}", b"1" * 5000, b" " * 60000)
        place = rng.randrange(len(header))
        header = bytes(header[:place]) + rng.choice(put) + bytes(header[place:])
    elif way == 4:
        numbers = rng.choice((b"", b"\xff" * len(numbers), numbers[:-1], rng.randbytes(len(numbers)), numbers * 2))
    elif way == 5:
        made = (
            np.zeros(()), np.full((3, 2), np.nan), np.zeros(3, "i8,f8"), np.array(["a", "bc"]), np.array([b"x"]),
            np.zeros((0, 5)), np.array(["2020"], "M8[D]"), np.ones((2, 2, 2), ">i4"), np.array([True, False]),
            np.array([1j]), np.zeros(4, "f2"), np.arange(6.0).reshape(2, 3, order="F"), np.full(3, 10**18),
            np.zeros(2, "V8"), np.full(4, np.inf, "f4"), np.array([-5, 10**9]),
        )  # fmt: skip
        stream = io.BytesIO()
        np.lib.format.write_array(stream, rng.choice(made), allow_pickle=False)
        array = bytearray(stream.getvalue())
        if rng.random() < 0.3:
            array[-1] = 0xFF
        return packed({**held, name: bytes(array)}.items())
    else:
        array[rng.randrange(min(len(array), 12))] = rng.randrange(256)
        return packed({**held, name: bytes(array)}.items())
    made = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) % 2**16) + header + numbers
    return packed({**held, name: made}.items())


MUTATIONS = {f.__name__: f for f in (raw, directory, tree, text, arrays)}
_SHARES = (1, 1, 6, 1, 2)


def mutant(seed, files):
    """The kind and the bytes of the mutant of a seed, from the bytes of files."""
    rng = random.Random(seed)
    (kind,) = rng.choices(list(MUTATIONS), _SHARES)
    data, other = (files[rng.randrange(len(files))] for _ in range(2))
    return kind, MUTATIONS[kind](rng, data, other)


# Files of the interpreter, of packages, and of time zones: their names come from the code.
_CODE = {*sysconfig.get_paths().values(), sys.base_prefix, str(pathlib.Path(__file__).parents[1])}
_OURS = tuple(os.path.realpath(path) for path in (*_CODE, "/usr/share/zoneinfo"))
_NEVER = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.startfile", "subprocess.Popen",
    "pty.spawn", "socket.", "pickle.find_class", "ctypes.", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link",
    "os.symlink", "os.truncate", "os.chmod", "os.chown", "os.putenv", "os.kill", "shutil.", "tempfile.", "urllib.",
    "ftplib.", "http.", "smtplib.", "webbrowser.", "builtins.input", "cpython.run", "mmap.__new__", "signal.",
)  # fmt: skip


def _is_ours(path):
    # a relative path would be one of the folder that the tests run in
    return os.path.isabs(path) and os.path.realpath(path).startswith(_OURS)


def _in_import():
    # annotations and named tuples of a module that is imported late; which modules may be is seen at the end
    frame = sys._getframe()
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


class Guard:
    """What happens while a mutant is loaded, seen by the interpreter's audit.

    `with guard(path):` allows reading the file at the path, and what the interpreter and the packages read of their
    own. All else is noted in `violations`, and not done.
    """

    def __init__(self):
        self.path, self.violations = None, []
        sys.addaudithook(self._hook)

    @contextlib.contextmanager
    def __call__(self, path):
        """Watch."""
        self.path, self.violations, before = os.fspath(path), [], set(sys.modules)
        try:
            yield self
        finally:
            self.path = None
        # packages import some of their own parts late
        tops = {name.split(".")[0] for name in before} | set(sys.stdlib_module_names)
        late = {name for name in set(sys.modules) - before if name.split(".")[0] not in tops}
        self.violations += [f"import of {name}" for name in sorted(late)]

    def _hook(self, event, args):
        if self.path is not None and self._forbidden(event, args):
            self.violations.append(f"{event} {str(args)[:200]}")
            raise PermissionError(f"{event} while a mutant is loaded")

    def _forbidden(self, event, args):
        if event == "open":
            name, mode, flags = args
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or set(str(mode)) & set("wax+")
            if isinstance(name, int) or (os.fspath(name) == self.path and not writes):
                return False
            return bool(writes) or not _is_ours(os.fsdecode(name))
        if event in ("compile", "exec"):
            place = getattr(args[0], "co_filename", None) if event == "exec" else args[1]
            place = os.fsdecode(place) if isinstance(place, (str, bytes)) else ""
            return not place.startswith("<frozen") and not _is_ours(place) and not _in_import()
        return event.startswith(_NEVER)
