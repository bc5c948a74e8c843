"""What the pages say is there, their code runs, and their words are those of the field."""

import ast
import functools
import importlib
import importlib.util
import re
from pathlib import Path

import joblib
import matplotlib as mpl
import pytest

from sklearn_si._estimators import diagnostics, distillation, rectification
from sklearn_si._estimators.prediction import trees

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").exists())
DOCS = ROOT / "docs"
# What the code of a page needs that an installation may lack.
NEEDS = {"following": "sklearn.callback", "many_machines": "distributed"}
# Rows and trees of what a page calls, where it shows no figure.
FEW = [(distillation, "_PAIRS", 4096), (rectification, "_PAIRS", 2048), (diagnostics, "_N_FISHER_ROWS", 10),
       (diagnostics, "_N_FISHER_TIMES", 2), (trees, "_N_TREES", 30), (trees, "_N_SCALE_TREES", 10)]  # fmt: skip
# Characters of a line of code that fit the box of a page.
WIDTH = 88


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


names, snippets = load(DOCS / "_public_names.py"), load(DOCS / "_snippets.py")
style = load(ROOT / "tools" / "check_style.py")
PAGES = [page for page in snippets.pages() if snippets.blocks(page)]


def test_the_api_page_has_every_public_name():
    assert names.missing() == []


def test_the_api_page_has_no_name_that_is_gone():
    public = {f"{module}.{name}" for module in names.public_modules() for name in names.public_names(module)}
    assert names.documented(names.PAGE.read_text(encoding="utf-8")) <= public


def test_a_missing_name_is_noticed(tmp_path, monkeypatch):
    text = names.PAGE.read_text(encoding="utf-8").replace("   energy_distance\n", "")
    (tmp_path / "api.rst").write_text(text, encoding="utf-8")
    monkeypatch.setattr(names, "PAGE", tmp_path / "api.rst")
    assert names.missing() == ["sklearn_si.metrics.energy_distance"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_of_a_page_compiles_and_imports_what_there_is(page):
    for line, block in snippets.blocks(page):
        for node in ast.walk(ast.parse(block, f"{page.name}, line {line}")):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("sklearn_si"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in snippets.PIECES], ids=lambda page: page.stem)
def test_code_of_a_page_runs(page, tmp_path, monkeypatch):
    if page.stem in NEEDS:
        pytest.importorskip(NEEDS[page.stem])
    for constructor, defaults in snippets.short_fits():
        monkeypatch.setattr(constructor, "__defaults__", defaults)
    for module, name, few in FEW:
        monkeypatch.setattr(module, name, few)
    monkeypatch.chdir(tmp_path)
    if page.stem == "many_machines":
        # processes are started by test_concurrency.py and test_workflows.py
        distributed = importlib.import_module("distributed")
        threads = functools.partial(distributed.LocalCluster, processes=False, dashboard_address=None)
        monkeypatch.setattr(distributed, "LocalCluster", threads)
    with mpl.rc_context({"backend": "agg"}), joblib.parallel_config("threading"):
        snippets.run(page, max_iter=30)
        importlib.import_module("matplotlib.pyplot").close("all")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_of_a_page_fits_its_box(page):
    long = [line for _, block in snippets.blocks(page) for line in block.splitlines() if len(line) > WIDTH]
    assert long == []


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("plot_*.py")), ids=lambda path: path.stem)
def test_code_of_the_gallery_fits_its_box(example):
    _, _, code = example.read_text(encoding="utf-8").split('"""', 2)
    assert [line for line in code.splitlines() if len(line) > WIDTH and not line.startswith("#")] == []


def test_an_example_of_the_gallery_runs_with_few_rows_and_steps(monkeypatch):
    """It asked a bridge for a parameter that it has no more, which only the build of a release had noticed."""
    for constructor, defaults in snippets.short_fits(5):
        monkeypatch.setattr(constructor, "__defaults__", defaults)
    code = (ROOT / "examples" / "plot_bridges.py").read_text(encoding="utf-8")
    code = code.replace("2000", "200").replace("1000", "100")
    with mpl.rc_context({"backend": "agg"}):
        exec(compile(code, "plot_bridges.py", "exec"), {"__name__": "plot_bridges"})
        importlib.import_module("matplotlib.pyplot").close("all")


def test_the_readme_is_short():
    assert len(snippets.README.read_text(encoding="utf-8")) <= 7000


def test_the_texts_use_the_words_of_the_field(capsys):
    assert style.main([]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rows of the same law", "law"),
        ("The laws\nof both", "laws"),
        ("rows are carried\nto X1", "carried"),
        ("the mass\nof the levels", "mass of the levels"),
        ("dates and gaps", "gaps"),
    ],
)
def test_words_of_no_field_are_found(text, words):
    assert words in [found for _, found, _ in style.findings(text)]


@pytest.mark.parametrize("text", ["the law of large numbers", "a power law", "lawful", "held-out rows", "a gap"])
def test_words_of_the_field_are_not_found(text):
    assert style.findings(text) == []


def promised():
    """The tests that the page of promises names."""
    return re.findall(r"``(test_\w+\.py)::(test_\w+)``", (DOCS / "guide" / "promises.rst").read_text(encoding="utf-8"))


def test_every_promise_has_a_test_that_there_is():
    assert len(promised()) > 30
    files = {path.name: path for path in (ROOT / "tests").rglob("test_*.py")}
    for file, name in promised():
        assert re.search(rf"^def {name}\(", files[file].read_text(encoding="utf-8"), re.M), (file, name)


def test_every_promise_names_a_test():
    page = (DOCS / "guide" / "promises.rst").read_text(encoding="utf-8")
    rows = re.findall(r"^   \* - (.+?)(?=^   \* - |^\S|^$)", page, re.M | re.S)
    assert len(rows) > 30
    for row in rows:
        assert row.startswith("Promise") or re.search(r"\n     - ``test_", row), row
