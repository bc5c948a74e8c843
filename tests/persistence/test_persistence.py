"""Files without code: what is saved comes back, and what was tampered with is refused."""

import io
import json
import os
import pathlib
import pickle
import tracemalloc
import zipfile

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.feature_selection import VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sklearn_si
from sklearn_si import InterpolantDiffusion, InterpolantFlow, SchroedingerBridge, TransformedDensity
from sklearn_si._estimators import distillation
from sklearn_si.exceptions import LoadError
from sklearn_si.persistence import _registry as _persisted
from sklearn_si.tables import InterpolantImputer, TableCodec, TableSynthesizer

RNG = np.random.default_rng(0)
X0, X1 = RNG.normal(size=(80, 2)), RNG.normal(1.0, size=(80, 2))
SMALL = {"max_iter": 3, "hidden_layer_sizes": (8,), "ode_tol": 0.05, "random_state": 0}
FRAME = pd.DataFrame({
    "x": X0[:, 0], "k": pd.Categorical(["u", "v", None, "u"] * 20), "n": pd.array([1, None, 3, 2] * 20, dtype="Int64"),
    "o": ["a", None, "b", "a"] * 20,
    "d": pd.to_datetime(["2020-01-01", "2020-02-05", None, "2021-01-01"] * 20).tz_localize("Europe/Berlin"),
})  # fmt: skip

# name -> a fitted estimator, by a function: they are made when they are needed
MODELS = {
    "flow": lambda: InterpolantFlow(**SMALL).fit(X0),
    "marginal": lambda: InterpolantFlow(preprocessing="marginal", **SMALL).fit(np.exp(2 * X0)),
    "diffusion": lambda: InterpolantDiffusion(**SMALL).fit(X0, X1),
    "optimal": lambda: InterpolantFlow(coupling="optimal", **SMALL).fit(X0, X1),
    "learned": lambda: InterpolantFlow(interpolant="learned", base_density=None, **SMALL).fit(X0, X1),
    "mixture base": lambda: InterpolantFlow(base_density=GaussianMixture(2, random_state=0), **SMALL).fit(X0, X1),
    "kernel base": lambda: InterpolantFlow(base_density=KernelDensity(bandwidth=0.4), **SMALL).fit(X0, X1),
    "mirror": lambda: InterpolantFlow(interpolant="mirror", **SMALL).fit(X0),
    "distilled": lambda: InterpolantFlow(**SMALL).fit(X0).distill(max_iter=3).set_params(solver="distilled"),
    "bridge": lambda: SchroedingerBridge(method="network", n_components=1, n_rounds=0, **SMALL).fit(X0, X1),
    "transformed": lambda: TransformedDensity(StandardScaler(), InterpolantFlow(**SMALL)).fit(X0),
    "table": lambda: TableSynthesizer(max_iter=3, random_state=0).fit(FRAME),
    "polars table": lambda: TableSynthesizer(max_iter=3, random_state=0).fit(
        pl.DataFrame({"a": X0[:, 0], "k": ["u", "v"] * 40})
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def few_pairs(monkeypatch):
    """Maps are distilled from few rows: how good they are does not matter here."""
    monkeypatch.setattr(distillation, "_PAIRS", 2048)


def equal(a, b):
    return a.equals(b) if hasattr(a, "equals") else np.array_equal(a, b)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.si"


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_draws_and_scores_the_same(name, path):
    model = MODELS[name]()
    sklearn_si.save(model, path)
    again = sklearn_si.load(path)
    assert type(again) is type(model)
    drawn = model.sample(7, random_state=1)
    assert equal(again.sample(7, random_state=1), drawn)
    if name not in ("mirror", "learned"):
        np.testing.assert_array_equal(again.score_samples(drawn), model.score_samples(drawn))
    # a second file is the first one, array by array
    sklearn_si.save(again, path.with_suffix(".2"))
    assert read(path) == read(path.with_suffix(".2"))


def read(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_conditions_codecs_and_imputers_come_back(path):
    condition = np.array(["a", "b"] * 40)
    flow = InterpolantFlow(condition_dropout=0.2, guidance=2.0, **SMALL).fit(X0, condition=condition)
    sklearn_si.save(flow, path)
    assert equal(sklearn_si.load(path).sample(3, condition=["a"]), flow.sample(3, condition=["a"]))
    codec = TableCodec(random_state=0).fit(FRAME)
    sklearn_si.save(codec, path)
    assert equal(sklearn_si.load(path).transform(FRAME), codec.transform(FRAME))
    imputer = InterpolantImputer(TableSynthesizer(max_iter=3), random_state=0).fit(FRAME)
    sklearn_si.save(imputer, path)
    assert equal(sklearn_si.load(path).transform(FRAME), imputer.transform(FRAME))


def test_what_is_not_fitted_can_be_saved_and_what_was_loaded_can_be_fitted(path):
    sklearn_si.save(InterpolantFlow(**SMALL), path)
    again = sklearn_si.load(path)
    assert again.get_params() == InterpolantFlow(**SMALL).get_params()
    assert equal(again.fit(X0).sample(3), MODELS["flow"]().sample(3))
    sklearn_si.save(again.set_params(warm_start=True), path)
    assert sklearn_si.load(path).fit(X0).n_iter_ > again.n_iter_


def test_files_of_the_first_format_keep_loading():
    folder = pathlib.Path(__file__).parents[1] / "golden"
    for name in ("flow", "table"):
        model = sklearn_si.load(folder / f"{name}_format1.si")
        expected = np.load(folder / f"{name}_format1.npy")
        rows = X0[:5] if name == "flow" else FRAME.head(5)
        np.testing.assert_allclose(model.score_samples(rows), expected, rtol=1e-4)


def test_parameters_that_are_newer_than_a_file_take_their_defaults(path):
    flow = MODELS["flow"]()
    del flow.dropout, flow.checkpoint
    sklearn_si.save(flow, path)
    assert sklearn_si.load(path).get_params() == InterpolantFlow(**SMALL).get_params()


def test_a_model_of_another_device_loads_on_the_cpu(path):
    flow = MODELS["flow"]()
    flow.device = "cuda:0"
    sklearn_si.save(flow, path)
    if not torch.cuda.is_available():
        assert sklearn_si.load(path).device == "auto"


def test_where_a_fit_writes_is_not_for_a_file_to_say(path):
    sklearn_si.save(InterpolantFlow(checkpoint="/home/somebody/.profile", **SMALL), path)
    assert sklearn_si.load(path).checkpoint is None


def square(x):
    return x**2


@pytest.mark.parametrize(
    "model, message",
    [
        (InterpolantFlow(noise_schedule=square), r"InterpolantFlow\['noise_schedule'\] holds <function square"),
        (InterpolantFlow(base_density=KMeans()), r"InterpolantFlow\['base_density'\] holds KMeans"),
        (InterpolantFlow(random_state=np.random.RandomState(0)), "holds RandomState"),
        (KMeans(), "KMeans holds KMeans"),
    ],
)
def test_what_cannot_be_described_is_refused_by_its_place(model, message, path):
    with pytest.raises(ValueError, match=message):
        sklearn_si.save(model, path)
    assert list(path.parent.iterdir()) == []


def test_a_failed_save_leaves_the_last_good_file(path):
    sklearn_si.save(InterpolantFlow(**SMALL), path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="cannot describe"):
        sklearn_si.save(InterpolantFlow(noise_schedule=square), path)
    assert path.read_bytes() == before
    with pytest.raises(OSError, match="No such file"):
        sklearn_si.save(InterpolantFlow(), path.parent / "nowhere" / "model.si")


class Planted:
    def __reduce__(self):
        return os.mkdir, ("planted",)


def tampered(path, change, compression=zipfile.ZIP_STORED):
    """The archive at a path with its entries changed."""
    entries = read(path)
    change(entries)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def edit_tree(old, new):
    def change(entries):
        assert old in entries["tree.json"]
        entries["tree.json"] = entries["tree.json"].replace(old, new)

    return change


def add(name, data):
    return lambda entries: entries.update({name: data})


def pickled_array():
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.array([Planted()], dtype=object), allow_pickle=True)
    return stream.getvalue()


def announced(shape):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return stream.getvalue() + bytes(16)


NESTED = b'{"format": 1, "root": ' + b'{"list": [' * 5000 + b"]}" * 5000 + b"}"
TAMPERED = {
    "a pickle in place of an array": (add("0.npy", pickle.dumps(Planted())), "is no array that save writes"),
    "an array of pickles": (add("0.npy", pickled_array()), "holds objects"),
    "an array that announces terabytes": (add("0.npy", announced((2**40,))), "not as long as the array"),
    "an entry outside": (add("../evil.npy", b"x"), r"entry '../evil.npy', which save does not write"),
    "an absolute path": (add("/tmp/evil.npy", b"x"), "which save does not write"),
    "an entry of another kind": (add("code.py", b"x"), "entry 'code.py'"),
    "an unknown class": (edit_tree(b"InterpolantFlow", b"os.system"), "'os.system', which is not on the list"),
    "a class that is imported": (edit_tree(b"InterpolantFlow", b"subprocess.Popen"), "not on the list"),
    "a function as a class": (edit_tree(b"InterpolantFlow", b"interpolants.brownian"), "is no class"),
    "a recipe as a class": (edit_tree(b"InterpolantFlow", b"missing"), "is no class"),
    "a newer format": (edit_tree(b'"format": 1', b'"format": 2'), "format 2, written by sklearn_si .*: update"),
    "no format": (edit_tree(b'"format"', b'"f"'), "names no format"),
    "no tree": (lambda e: e.pop("tree.json"), "no description"),
    "no JSON": (add("tree.json", b"{"), "holds what save does not write"),
    "a missing array": (lambda e: e.pop("1.npy"), "holds what save does not write"),
    "a state that is no dictionary": (edit_tree(b'"state": {"dict"', b'"state": {"list"'), "is no tree"),
    "deep nesting": (add("tree.json", NESTED), "not a file of sklearn_si.save|nested"),
    "an unknown node": (add("tree.json", b'{"format": 1, "root": {"code": "x"}}'), "node of unknown kind"),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERED)
def test_tampered_files_are_refused_and_nothing_is_executed(name, path, monkeypatch):
    monkeypatch.chdir(path.parent)
    sklearn_si.save(MODELS["flow"](), path)
    change, message = TAMPERED[name]
    tampered(path, change)
    with pytest.raises(LoadError, match=message):
        sklearn_si.load(path)
    assert [p.name for p in path.parent.iterdir()] == ["model.si"]


def described(path, root, arrays=()):
    """A file of a description and of arrays: it says what an attacker likes, in the form of save."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tree.json", json.dumps({"format": 1, "root": root}))
        for number, array in enumerate(arrays):
            stream = io.BytesIO()
            if isinstance(array, np.ndarray):
                np.lib.format.write_array(stream, array, allow_pickle=False)
            archive.writestr(f"{number}.npy", stream.getvalue() or array)


def an_object(number=0, kind="InterpolantFlow", **state):
    return {"number": number, "object": kind, "state": {"dict": [list(pair) for pair in state.items()]}}


def rebuilt(recipe, **parts):
    return {"number": 99, "rebuilt": recipe, "from": {"dict": [list(pair) for pair in parts.items()]}}


def nested_arrays(depth):
    cells = [{"number": k, "objects": [{"seen": k - 1} if k else 1], "shape": [1]} for k in range(depth)]
    return {"list": cells}


def laughs(depth):
    """Each flow has the one before twice: 2^depth to print, a line each to say."""
    flows = [an_object()]
    for k in range(1, depth):
        flows.append(an_object(k, base_density={"seen": k - 1}, interpolant={"seen": k - 1}))
    return an_object(depth, kept={"list": flows[:-1]}, base_density=flows[-1])


def kernels(depth):
    """As `laughs`, of what is rebuilt."""
    chain = []
    for k in range(depth):
        before = {"seen": k - 1} if k else 1
        state = {"dict": [["bandwidth", before], ["kernel", before]]}
        chain.append({**rebuilt("sklearn.KernelDensity", state=state, data=None), "number": k})
    return chain


INDEPENDENT = {"number": 50, "named": "interpolants.brownian"}
ADDRESS = {"dict": [["data", {"tuple": [1, False]}], ["shape", {"tuple": [2]}], ["typestr", "<f8"], ["version", 3]]}
ONES = np.ones(3)
HEADER, ARRAY = announced((2,)), {"number": 0, "array": "0.npy"}
# name -> a description, arrays, and why it is refused
ATTACKS = {
    "an address in the memory": (an_object(__array_interface__=ADDRESS), (), "sets '__array_interface__'"),
    "a class set": (an_object(__class__=INDEPENDENT), (), "sets '__class__'"),
    "a method replaced": (an_object(sample=INDEPENDENT), (), "sets 'sample'"),
    "a link of the picture": (an_object(kind="foreign.PCA", _doc_link_module="x"), (), "sets '_doc_link_module'"),
    "a method of a density replaced": (
        rebuilt("sklearn.KernelDensity", state={"dict": [["fit", INDEPENDENT]]}, data=None), (), "sets 'fit'",
    ),
    "an object that holds itself": (an_object(base_density={"seen": 0}), (), "holds what save does not write"),
    "objects that repeat": (laughs(60), (), "repeats its objects"),
    "densities that repeat": ({"list": kernels(60)}, (), "repeats its objects"),
    "arrays in arrays": (nested_arrays(30_000), (), "has a cell of class ndarray"),
    "an object as a key": ({"dict": [[an_object(), 1]]}, (), "a key of class InterpolantFlow"),
    "a tuple as a key": ({"dict": [[{"tuple": [1, 2**40]}, 1]]}, (), "a key of class tuple"),
    "keys of one hash": ({"dict": [[k * (2**61 - 1), 0] for k in range(30_000)]}, (), "a key of class int"),
    "items of one hash": ({"set": [k * (2**61 - 1) for k in range(30_000)]}, (), "a key of class int"),
    "an array told twice": ({"list": [{"number": k, "array": "0.npy"} for k in range(2)]}, [ONES], "twice"),
    "more than a number": ({"scalar": "0.npy"}, [ONES], "more than the one number"),
    "a truth value of 2": (ARRAY, [np.array([2], "u1").view(bool)], "no values of its dtype"),
    "no character": (ARRAY, [np.array([2**31], "u4").view("<U1")], "no values of its dtype"),
    "fields": (ARRAY, [np.zeros(2, "f8,i8")], "is no array that save writes"),
    "a header to evaluate": (ARRAY, [HEADER.replace(b"(2,)", b"()*2")], "no array that save writes"),
    "a negative shape": (ARRAY, [HEADER.replace(b"(2,)", b"(-2)")], "no array that save writes"),
    "a dtype of fields": ({"dtype": "i4,i4"}, (), "the dtype 'i4,i4'"),
    "a time zone of a file": (
        rebuilt("pandas.dtype", name="datetime64[ns, dateutil//etc/passwd]", categories=None, ordered=None), (),
        "is not a dtype of a column",
    ),
    "an estimator as categories": (
        rebuilt("pandas.dtype", name="category", categories=an_object(), ordered=False), (), "other types than",
    ),
    "an estimator as a unit": (rebuilt("narwhals.dtype", name="Datetime", time_unit=an_object()), (), "other types"),
    "an estimator as a gap": ({"number": 1, "rebuilt": "missing", "from": an_object()}, (), "other types than"),
    "a metric of a function": (
        rebuilt("sklearn.KernelDensity", state={"dict": [["leaf_size", 4], ["metric", INDEPENDENT]]},
                data={"number": 1, "array": "0.npy"}),
        [np.ones((3, 2))], "other types than",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_descriptions_of_an_attacker_are_refused(name, path):
    root, arrays, message = ATTACKS[name]
    described(path, root, arrays)
    with pytest.raises(LoadError, match=message) as error:
        sklearn_si.load(path)
    assert len(str(error.value)) < 1000


def test_what_is_refused_on_loading_is_refused_on_saving(path):
    itself = InterpolantFlow()
    itself.base_density = itself
    for model, message in (
        (itself, "contains itself, which a file cannot describe"),
        (InterpolantFlow(base_density={(1, 2**40): 3}), "as a key or a cell"),
        (InterpolantFlow(random_state=np.array([ONES, None], dtype=object)), "as a key or a cell"),
    ):
        with pytest.raises(ValueError, match=message):
            sklearn_si.save(model, path)
    shadowed = InterpolantFlow()
    shadowed.sample = 3
    with pytest.raises(ValueError, match="'sample' in place of what its class defines"):
        sklearn_si.save(shadowed, path)


def test_a_hole_in_a_file_is_damage(path):
    sklearn_si.save(MODELS["flow"](), path)
    data = path.read_bytes()
    for start in (0, 100, len(data) // 2):
        path.write_bytes(data[:start] + data[start + 2000 :])
        with pytest.raises(LoadError, match=r"damaged|does not write"):
            sklearn_si.load(path)


def test_bombs_take_no_memory(path):
    sklearn_si.save(MODELS["flow"](), path)
    tampered(path, add("0.npy", bytes(50_000_000)), zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    with pytest.raises(LoadError, match="which save does not write"):
        sklearn_si.load(path)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_cut_files_are_refused(path):
    sklearn_si.save(MODELS["flow"](), path)
    data = path.read_bytes()
    for share in (0.0, 0.3, 0.9, 0.999):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(LoadError, match=r"not a file of sklearn_si\.save, or is damaged"):
            sklearn_si.load(path)


def test_flipped_bytes_are_refused_or_change_nothing(path):
    model = MODELS["flow"]()
    sklearn_si.save(model, path)
    data, expected = path.read_bytes(), model.sample(3)
    for place in np.random.default_rng(0).integers(len(data), size=150):
        changed = bytearray(data)
        changed[place] ^= 0x55
        path.write_bytes(bytes(changed))
        try:
            again = sklearn_si.load(path)
        except LoadError:
            continue
        # dates and flags of entries are not guarded by a checksum, and are not used
        assert equal(again.sample(3), expected)


def test_the_description_is_plain_json(path):
    sklearn_si.save(MODELS["flow"](), path)
    tree = json.loads(read(path)["tree.json"])
    assert (tree["format"], tree["library"]) == (1, sklearn_si.__version__)


ZONES = [("Europe/Berlin", True), ("UTC", True), ("UTC-03:30", True), ("Europe/X", False)]


@pytest.mark.parametrize(("zone", "is_known"), ZONES)
def test_zones_are_those_of_the_system(zone, is_known, path, monkeypatch):
    """An unknown one would be looked for in a module of its name."""
    dtype = pd.DatetimeTZDtype(tz="UTC")
    asked, build = [], pd.api.types.pandas_dtype
    monkeypatch.setattr(pd.api.types, "pandas_dtype", lambda name: asked.append(name) or build(name))
    parts = {"name": str(dtype).replace("UTC", zone), "categories": None, "ordered": None}
    if is_known:
        assert str(_persisted._build_pandas_dtype(parts)) == f"datetime64[ns, {zone}]"
        return
    with pytest.raises(ValueError, match="is not a dtype of a column"):
        _persisted._build_pandas_dtype(parts)
    assert asked == []


def test_files_of_one_model_are_the_same_to_the_bit(path, monkeypatch):
    flow = MODELS["flow"]()
    sklearn_si.save(flow, path)
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *args: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    sklearn_si.save(flow, path.with_suffix(".2"))
    assert path.read_bytes() == path.with_suffix(".2").read_bytes()


def test_a_pipeline_of_scikit_learn_is_saved(tmp_path):
    steps = (
        SimpleImputer(),
        VarianceThreshold(),
        StandardScaler(),
        PCA(whiten=True),
        "passthrough",
        InterpolantFlow(**SMALL),
    )
    pipe = make_pipeline(*steps).set_output(transform="pandas").fit(pd.DataFrame(X0, columns=["a", "b"]))
    sklearn_si.save(pipe, tmp_path / "pipe.si")
    again = sklearn_si.load(tmp_path / "pipe.si")
    frame = pd.DataFrame(X1, columns=["a", "b"])
    frame.loc[3, "b"] = np.nan
    assert again.score(frame) == pipe.score(frame)
    assert again.transform(frame).equals(pipe.transform(frame))
    assert list(again.named_steps) == list(pipe.named_steps)
    with pytest.raises(ValueError, match="KMeans"):
        sklearn_si.save(make_pipeline(KMeans(2), InterpolantFlow(**SMALL)), tmp_path / "other.si")


def test_text_of_pandas_3_is_text_before_it(path, monkeypatch):
    """There "str" is a dtype of numpy, and words were converted to floats."""
    frame = pd.DataFrame({"word": ["a", "b", None, "a"] * 20, "x": np.arange(80.0)})
    frame["word"] = frame.word.astype("str") if pd.__version__ >= "3" else frame.word
    model = TableSynthesizer(max_iter=3, random_state=0).fit(frame)
    sklearn_si.save(model, path)
    true = pd.api.types.pandas_dtype
    monkeypatch.setattr(pd.api.types, "pandas_dtype", lambda name: np.dtype("U") if name == "str" else true(name))
    drawn = sklearn_si.load(path).sample(given={"x": [1.0, 2.0]}, random_state=0)
    assert set(drawn.word.dropna()) <= {"a", "b"}
    again = sklearn_si.load(path).impute(frame.astype({"word": object}), random_state=0)
    assert set(again.word) == {"a", "b"}
