"""Functions in files: those that only compute are named, and no others."""

import zipfile

import numpy as np
import pytest
import scipy.special
import scipy.stats
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklearn_si import load, save
from sklearn_si.exceptions import LoadError


@pytest.mark.parametrize(
    "func, inverse",
    [(np.log1p, np.expm1), (scipy.special.logit, scipy.special.expit), (np.nan_to_num, None), (None, None)],
    ids=["numpy", "scipy", "no ufunc", "identity"],
)
def test_pipelines_with_functions_of_numpy_and_scipy(func, inverse, tmp_path):
    rows = np.random.default_rng(0).uniform(0.1, 0.9, size=(60, 2))
    step = FunctionTransformer(func, inverse_func=inverse, feature_names_out="one-to-one", check_inverse=False)
    model = make_pipeline(step, StandardScaler(), GaussianMixture()).fit(rows)
    save(model, tmp_path / "m.si")
    again = load(tmp_path / "m.si")
    np.testing.assert_array_equal(again.score_samples(rows), model.score_samples(rows))
    assert again[0].func is func and again[0].inverse_func is inverse


@pytest.mark.parametrize(
    "func",
    [lambda X: X, np.load, np.fromfile, np.apply_along_axis, np.savetxt, scipy.stats.zscore],
    ids=lambda f: f.__name__,
)
def test_functions_that_could_do_more_than_compute_are_not_in_files(func, tmp_path):
    with pytest.raises(ValueError, match=r"func'\] holds .*, or a ufunc of numpy or scipy.special such as numpy.log1p"):
        save(make_pipeline(FunctionTransformer(func), StandardScaler()), tmp_path / "m.si")
    assert not (tmp_path / "m.si").exists()


def test_a_function_is_no_class_in_a_file(tmp_path):
    save(FunctionTransformer(np.log), tmp_path / "m.si")
    with zipfile.ZipFile(tmp_path / "m.si") as archive:
        tree = archive.read("tree.json").decode()
    other = tree.replace('"foreign.FunctionTransformer"', '"numpy.log"')
    assert other != tree
    with zipfile.ZipFile(tmp_path / "n.si", "w") as archive:
        archive.writestr("tree.json", other)
    with pytest.raises(LoadError, match=r"'numpy.log' is no class"):
        load(tmp_path / "n.si")
