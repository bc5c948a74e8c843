"""Files that earlier versions have written: each loads, and answers as it did."""

import inspect
import json
import pathlib
import warnings

import numpy as np
import pytest

import sklearn_si
from golden.questions import DRAWN_WITHIN, DRAWS, QUESTIONS, answers
from sklearn_si import outliers, resampling, tables
from sklearn_si.persistence import FORMAT
from sklearn_si.persistence._archive import Reader
from sklearn_si.persistence._registry import BY_NAME

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
FORMATS = sorted(GOLDEN.glob("format*"))
FILES = [file for folder in FORMATS for file in sorted(folder.glob("*.si"))]
# What a file cannot hold, because its fit is given a function.
NOT_IN_FILES = {"TiltedFlow"}
# Kinds of nodes of format 1.
KINDS = {
    "seen", "float", "list", "tuple", "set", "dict", "ordered", "bunch", "scalar", "dtype", "device", "array",
    "objects", "tensor", "named", "rebuilt", "object",
}  # fmt: skip


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_a_file_of_an_earlier_version_answers_as_it_did(file):
    expected = json.loads((file.parent / "answers.json").read_text())[file.stem]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the versions of scikit-learn
        found = answers(file.stem, sklearn_si.load(file))
    assert found.keys() == expected.keys()
    for question, values in expected.items():
        if np.asarray(values).dtype.kind == "U":
            assert found[question] == values
        elif question == DRAWS:
            np.testing.assert_allclose(found[question], values, atol=DRAWN_WITHIN)
        else:  # networks are of single precision, and platforms round their sums in other orders
            np.testing.assert_allclose(found[question], values, rtol=1e-3, atol=1e-4)


def test_every_kind_of_model_has_a_file():
    held = {type(sklearn_si.load(file)).__name__ for file in FILES}
    found = set()
    for module in (sklearn_si, outliers, resampling, tables):
        public = {name: vars(module)[name] for name in module.__all__}
        found |= {name for name, value in public.items() if inspect.isclass(value) and "get_params" in dir(value)}
    assert found - held == NOT_IN_FILES
    assert {file.stem for file in FILES} == set(QUESTIONS)


@pytest.mark.parametrize("folder", FORMATS, ids=lambda folder: folder.name)
def test_no_name_of_a_format_is_gone(folder):
    # a class that takes another name keeps the one that files say
    assert set((folder / "names.txt").read_text().split("\n")) - {""} <= set(BY_NAME)


def test_the_format_is_frozen():
    # whoever adds a kind of node raises FORMAT, so that older versions say that they are too old
    assert FORMAT == 1
    assert set(Reader._KINDS) == KINDS
    assert [folder.name for folder in FORMATS] == [f"format{k + 1}" for k in range(FORMAT)]
