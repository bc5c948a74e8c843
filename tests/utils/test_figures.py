"""Results with several entries, as they are printed."""

import pickle

import numpy as np

import sklearn_si
from sklearn_si import InterpolantFlow
from sklearn_si._utils.figures import Figures
from sklearn_si.metrics import transport_report
from sklearn_si.tables import TableSynthesizer


def test_each_entry_has_a_line():
    figures = Figures(
        distance=0.123456, n=12, method="sorted", nothing=None, few=np.array([1.0, 2.5]), steps=[4, 8],
        many=np.linspace(-1, 2, 60).reshape(20, 3), names=np.array(["a"] * 9), none=np.zeros(0),
        shares=[{"level": "f", "asked": 0.25}, {"level": "m", "asked": 0.75}],
    )  # fmt: skip
    assert repr(figures).split("\n") == [
        "distance  0.1235", "n         12", "method    sorted", "nothing   None", "few       [1, 2.5]",
        "steps     [4, 8]", "many      20 x 3 numbers from -1 to 2", "names     9 values", "none      []",
        "shares    level f, asked 0.25", "          level m, asked 0.75",
    ]  # fmt: skip
    assert str(Figures()) == "" and repr(pickle.loads(pickle.dumps(figures))) == repr(figures)


def test_reports_are_readable_also_of_a_file(tmp_path):
    rng = np.random.default_rng(0)
    X0 = rng.normal(size=(40, 1))
    flow = InterpolantFlow(coupling="paired", base_density=None, max_iter=3, hidden_layer_sizes=(4,), random_state=0)
    printed = repr(transport_report(flow.fit(X0, X0 + 2), X0, X0 + 2))
    assert printed.startswith("distance ") and len(printed.split("\n")) == 7
    X = rng.choice(["a", "b"], size=(60, 2)).astype(object)
    raked = TableSynthesizer(max_iter=2, random_state=0).fit(X).rake({0: {"a": 0.9, "b": 0.1}}, n_rows=200)
    assert "column 0, level a, model " in repr(raked.report_) and ", asked 0.9" in repr(raked.report_)
    sklearn_si.save(raked, tmp_path / "raked.si")
    assert repr(sklearn_si.load(tmp_path / "raked.si").report_) == repr(raked.report_)
