import ast
import importlib
import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"


def load(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


names, snippets = load("_public_names"), load("_snippets")
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


def promised():
    """The tests that the page of promises names."""
    return re.findall(r"``(test_\w+\.py)::(test_\w+)``", (DOCS / "guide" / "promises.rst").read_text(encoding="utf-8"))


def test_every_promise_has_a_test_that_there_is():
    assert len(promised()) > 30
    folder = Path(__file__).resolve().parent
    for file, name in promised():
        assert re.search(rf"^def {name}\(", (folder / file).read_text(encoding="utf-8"), re.M), (file, name)


def test_every_promise_names_a_test():
    page = (DOCS / "guide" / "promises.rst").read_text(encoding="utf-8")
    rows = re.findall(r"^   \* - (.+?)(?=^   \* - |^\S|^$)", page, re.M | re.S)
    assert len(rows) > 30
    for row in rows:
        assert row.startswith("Promise") or re.search(r"\n     - ``test_", row), row
