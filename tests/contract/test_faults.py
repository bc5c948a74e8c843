"""The faults that benchmarks/checks/mutants.py plants: each has its place in today's sources, and tests about it."""

import importlib.util
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHECKS = ROOT / "benchmarks" / "checks"
if not CHECKS.exists():
    pytest.skip("the source distribution has no benchmarks", allow_module_level=True)


def load(name):
    spec = importlib.util.spec_from_file_location(f"checks_{name}", CHECKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    # where dataclasses look for it
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


faults, places = load("faults"), load("places")
STEMS = [path.stem for path in (ROOT / "tests").rglob("test_*.py")]


@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: fault.name)
def test_every_fault_has_one_place_and_tests_about_it(fault):
    source = (ROOT / "sklearn_si" / fault.file).read_text(encoding="utf-8")
    faulty = places.replaced(source, fault.place, fault.old, fault.new)
    assert faulty != source
    compile(faulty, fault.file, "exec")
    assert [STEMS.count(f"test_{name}") for name in fault.tests] == [1] * len(fault.tests)


def test_names_of_faults_are_unique():
    names = [fault.name for fault in faults.FAULTS]
    assert len(names) > 100
    assert len(set(names)) == len(names)


SOURCE = """
TABLE = {"a": lambda u: 1 - (1 - u) ** 2}

def step(x):
    return x + 1

class Path:
    def step(self, x):
        # \u03b1 counts bytes
        y = ("\u03b1",
             2 * x + 1)[1]
        if x:
            y = y + 1
            self.y = y
        return y
"""


@pytest.mark.parametrize(
    ("place", "old", "new", "expected"),
    [
        ("Path.step", "2*x", "3 * x", "             (3 * x) + 1)[1]"),
        ("step", "x + 1", "x", "    return (x)"),
        ("TABLE", "(1 - u) ** 2", "1 - u", 'TABLE = {"a": lambda u: 1 - (1 - u)}'),
        ("Path.step", "y = y + 1\nself.y = y", "y = 0\nself.y = 1", "            y = 0\n            self.y = 1"),
        ("Path.step", "self.y = y", "pass", "            pass"),
    ],
)
def test_a_place_is_found_by_function_and_syntax(place, old, new, expected):
    faulty = places.replaced(SOURCE, place, old, new)
    assert f"\n{expected}\n" in faulty
    assert len(set(SOURCE.split("\n")) - set(faulty.split("\n"))) == old.count("\n") + 1


@pytest.mark.parametrize(
    ("place", "old", "words"),
    [("step", "x + 2", "0 times"), ("Path.step", "y", "times 'y'"), ("Path.stop", "y", "0 definitions of 'stop'")],
)
def test_a_place_that_is_not_there_once_is_an_error(place, old, words):
    with pytest.raises(LookupError, match=words):
        places.replaced(SOURCE, place, old, "0")
