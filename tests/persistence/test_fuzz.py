"""Mutants of saved files are refused or load, and touch nothing; benchmarks/checks/fuzz.py runs many more."""

import pathlib
import time

import pytest

import sklearn_si
from fuzzing import Guard, mutant
from sklearn_si.exceptions import LoadError

FILES = [file.read_bytes() for file in sorted((pathlib.Path(__file__).parents[1] / "golden").glob("*.si"))]


@pytest.fixture(scope="module")
def guard():
    return Guard()


def test_mutants_are_refused_or_load_and_touch_nothing(guard, tmp_path):
    path, outcomes = tmp_path / "mutant.si", {"loaded": 0, "refused": 0}
    for number in range(200):
        kind, data = mutant(f"0 {number}", FILES)
        path.write_bytes(data)
        began = time.perf_counter()
        with guard(path):
            try:
                model = sklearn_si.load(path)
            except LoadError:
                model = None
        seconds = time.perf_counter() - began
        outcomes["refused" if model is None else "loaded"] += 1
        assert guard.violations == [], (number, kind)
        assert seconds < 5, (number, kind)
    assert min(outcomes.values()) > 20  # what is always refused, or never, tests nothing
    assert [file.name for file in tmp_path.iterdir()] == ["mutant.si"]


def test_the_guard_sees_what_it_should(guard, tmp_path):
    with guard(tmp_path / "mutant.si"):
        for forbidden in (
            lambda: pathlib.Path("/etc/passwd").read_text(),
            lambda: (tmp_path / "planted").write_text("x"),
            lambda: compile("1", "from a file", "eval"),
            lambda: (tmp_path / "planted").mkdir(),
            lambda: __import__("subprocess").run(["true"]),
            lambda: __import__("socket").socket(),
        ):
            with pytest.raises(PermissionError, match="while a mutant is loaded"):
                forbidden()
    assert len(guard.violations) == 6
    assert list(tmp_path.iterdir()) == []
