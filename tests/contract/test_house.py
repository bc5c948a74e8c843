"""The shape of the code: few entries at the top, short files and functions, few parameters, imports at the top."""

import ast
import pathlib
import statistics

import pytest

import sklearn_si

HOUSE = pathlib.Path(sklearn_si.__file__).parent
PYPROJECT = pathlib.Path(__file__).resolve().parents[2] / "pyproject.toml"
FILES = {str(path.relative_to(HOUSE)): path.read_text(encoding="utf-8") for path in sorted(HOUSE.rglob("*.py"))}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

# Entries of the folder, lines of a file, lines of the median function and of the longest, parameters of a function.
MOST_ENTRIES, MOST_LINES, MEDIAN, LONGEST, MOST_PARAMETERS = 22, 500, 8, 40, 8
# Functions that are longer, and why.
LONG_FUNCTIONS = {
    "_estimators/diffusion.py: InterpolantDiffusion.__init__": "a parameter a line",
    "tables/_masked.py: MaskedNetwork.__init__": "a layer a line",
}
# Functions with more parameters, and why; constructors of estimators have what users may set.
LONG_SIGNATURES = {
    "_estimators/bridge.py: SchroedingerBridge.__init__": "an estimator",
    "_estimators/diffusion.py: InterpolantDiffusion.__init__": "an estimator",
    "_estimators/flow.py: InterpolantFlow.__init__": "an estimator",
    "_estimators/multimarginal.py: MultimarginalFlow.__init__": "an estimator",
    "_estimators/prediction/classifier.py: InterpolantClassifier.__init__": "an estimator",
    "_estimators/prediction/regressor.py: InterpolantRegressor.__init__": "an estimator",
    "tables/_synthesizer.py: TableSynthesizer.__init__": "an estimator",
    "tables/_column_fit.py: _fit_continuous": "the facts of a column; to become a small value",
}
# What may be missing from an installation, and is therefore imported where it is used.
OPTIONAL = {"matplotlib", "narwhals", "ot", "pandas"}


def functions(node, names=()):
    """The functions below a node, with their qualified names."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (*FUNCTIONS, ast.ClassDef)):
            inside = (*names, child.name)
            if isinstance(child, FUNCTIONS):
                yield ".".join(inside), child
            yield from functions(child, inside)
        else:
            yield from functions(child, names)


ALL = {f"{file}: {name}": node for file, text in FILES.items() for name, node in functions(ast.parse(text))}


def n_lines(function):
    """Lines of the body, without the docstring."""
    body = function.body[ast.get_docstring(function) is not None :]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def n_parameters(function):
    """Parameters but self."""
    a = function.args
    names = [arg.arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def imported(node):
    """The modules that a statement imports, or a call of import_module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return ["." * node.level + (node.module or "")]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        return [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
    return []


def test_few_entries_stand_at_the_top():
    entries = {path.name for path in HOUSE.iterdir()} - {"__pycache__"}
    assert len(entries) <= MOST_ENTRIES, sorted(entries)


def test_files_are_short():
    assert {file for file, text in FILES.items() if text.count("\n") > MOST_LINES} == set()


def test_the_median_function_is_short():
    assert statistics.median(map(n_lines, ALL.values())) < MEDIAN


def test_no_function_is_long_but_those_with_a_reason():
    assert {name for name, node in ALL.items() if n_lines(node) > LONGEST} == set(LONG_FUNCTIONS)


def test_no_function_has_many_parameters_but_those_with_a_reason():
    assert {name for name, node in ALL.items() if n_parameters(node) > MOST_PARAMETERS} == set(LONG_SIGNATURES)


def test_functions_import_optional_dependencies_alone():
    found = {
        (name, module)
        for name, function in ALL.items()
        for node in ast.walk(function)
        for module in imported(node)
        if module.partition(".")[0] not in OPTIONAL
    }
    assert found == set()


@pytest.mark.parametrize("file", FILES)
def test_a_module_imports_neither_the_whole_package_nor_for_type_checks_alone(file):
    modules = {module for node in ast.walk(ast.parse(FILES[file])) for module in imported(node)}
    up_to_the_package = "." * (1 + file.count("/"))
    assert file == "__init__.py" or not modules & {"sklearn_si", up_to_the_package}
    assert "TYPE_CHECKING" not in FILES[file]


def test_every_folder_is_a_package_that_the_wheel_holds():
    folders = {path.parent for path in HOUSE.rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
    # setuptools finds what has an __init__; a list by hand would forget a new room
    assert '[tool.setuptools.packages.find]\ninclude = ["sklearn_si*"]' in PYPROJECT.read_text(encoding="utf-8")
