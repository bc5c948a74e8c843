"""Distances of samples of unequal length and of weighted rows: closed forms, repeated rows, linear programmes."""

import sys
import types

import numpy as np
import pytest
from scipy import sparse, stats
from scipy.optimize import linprog
from scipy.spatial.distance import cdist

from sklearn_si import InterpolantFlow, SchroedingerBridge, metrics
from sklearn_si.metrics import (
    energy_distance,
    maximum_mean_discrepancy,
    path_energy,
    sliced_wasserstein,
    transport_report,
    wasserstein_distance,
)

DISTANCES = ["energy_distance", "maximum_mean_discrepancy", "sliced_wasserstein", "wasserstein_distance"]


def normal(n, d=2, *, seed=0, mean=0.0):
    return np.random.default_rng(seed).normal(size=(n, d)) + mean


def counts(n, seed=0):
    return np.random.default_rng(seed).integers(0, 4, n)


def whole_programme(X, Y, a, b):
    """W2 by one linear programme over all pairs."""
    n, m = len(X), len(Y)
    sums = sparse.vstack([sparse.kron(sparse.eye(n), np.ones((1, m))), sparse.kron(np.ones((1, n)), sparse.eye(m))])
    marginals = np.concatenate([a / a.sum(), b / b.sum()])[:-1]  # the last follows from the others
    return np.sqrt(linprog(cdist(X, Y, "sqeuclidean").ravel(), A_eq=sums.tocsr()[:-1], b_eq=marginals).fun)


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_whole_weights_are_repeated_rows(name, d):
    distance, X, Y, w, v = (
        getattr(metrics, name),
        normal(23, d, mean=0.3),
        normal(17, d, seed=1),
        counts(23),
        counts(17, 1),
    )
    weighted = distance(X, Y, sample_weight=w, reference_weight=v)
    assert type(weighted) is float
    assert weighted == pytest.approx(distance(np.repeat(X, w, 0), np.repeat(Y, v, 0)), rel=1e-9, abs=1e-12)
    assert distance(X, Y, sample_weight=w) == pytest.approx(distance(np.repeat(X, w, 0), Y), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", DISTANCES)
def test_rows_of_no_weight_are_left_out(name):
    distance, X, Y = getattr(metrics, name), normal(23, mean=0.3), normal(17, seed=1)
    w, v = np.random.default_rng(2).random((2, 23))
    w[::3], v[:4] = 0.0, 0.0
    outlying = X.copy()
    outlying[::3] = 1e9
    expected = distance(X[w > 0], Y[v[:17] > 0], sample_weight=w[w > 0], reference_weight=v[:17][v[:17] > 0])
    assert distance(outlying, Y, sample_weight=w, reference_weight=v[:17]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", DISTANCES)
def test_relative_weights_have_no_unit_and_equal_ones_are_none(name):
    distance, X, Y, w = getattr(metrics, name), normal(23, mean=0.3), normal(17, seed=1), 0.1 + counts(23)
    once = distance(X, Y, sample_weight=w)
    assert distance(X, Y, sample_weight=w / w.sum()) == pytest.approx(once, rel=1e-9)
    assert distance(X, Y, sample_weight=1e300 * w) == pytest.approx(once, rel=1e-9)
    assert distance(X, Y, sample_weight=[1 / 23] * 23) == pytest.approx(distance(X, Y), rel=1e-9)


def test_on_a_line_they_are_those_of_scipy():
    X, Y, w, v = normal(40, 1), normal(31, 1, seed=1, mean=0.5), 0.1 + counts(40), 0.1 + counts(31, 1)
    x, y, a, b = X[:, 0], Y[:, 0], w / w.sum(), v / v.sum()
    # scipy has order 1 only; between samples that a shift joins, both orders are the shift
    assert wasserstein_distance(X, X + 2.5, sample_weight=w, reference_weight=w) == pytest.approx(2.5)
    assert stats.wasserstein_distance(x, x + 2.5, w, w) == pytest.approx(2.5)
    # scipy's is the square root of a V-statistic: the pairs of rows with themselves are among those of a mean
    squared = stats.energy_distance(x, y, a, b) ** 2
    parts = [(p @ cdist(Z, Z) @ p, (p**2).sum()) for p, Z in ((a, X), (b, Y))]
    expected = squared + sum(mean - mean / (1 - own) for mean, own in parts)
    got = energy_distance(X, Y, standardize=False, sample_weight=w, reference_weight=v)
    assert got == pytest.approx(expected, rel=1e-9)


def test_order_two_on_a_line_of_two_points():
    # half of the mass moves by 1 and a quarter by 3
    assert wasserstein_distance([[0.0], [1.0]], [[1.0], [4.0]], reference_weight=[3, 1]) == pytest.approx(
        np.sqrt(0.5 * 1 + 0.25 * 0 + 0.25 * 9)
    )


@pytest.mark.parametrize("n, m, d", [(300, 200, 2), (97, 130, 5), (60, 60, 3), (1, 9, 2), (5, 1, 2)])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_plan_on_few_pairs_is_that_on_all(n, m, d, weighted):
    if n * m > 50_000 and weighted:
        n, m = 200, 150
    X, Y = normal(n, d), normal(m, d, seed=1, mean=0.7)
    a, b = np.random.default_rng(3).random((2, max(n, m))) ** 3 if weighted else np.ones((2, max(n, m)))
    weights = {"sample_weight": a[:n], "reference_weight": b[:m]} if weighted else {}
    found, method = wasserstein_distance(X, Y, method="highs", return_method=True, **weights)
    assert method == "highs" and found == pytest.approx(whole_programme(X, Y, a[:n], b[:m]), rel=1e-6)


def test_the_methods_agree_where_several_fit():
    X, Y = normal(80, 1), normal(80, 1, seed=1, mean=1.0)
    values = [wasserstein_distance(X, Y, method=name) for name in ("sorted", "assignment", "highs", "auto")]
    assert values == pytest.approx([values[0]] * 4, rel=1e-6)


@pytest.mark.parametrize("scale, shift", [(1e-8, 0.0), (1.0, 1e7), (1e9, 0.0)])
def test_the_units_of_the_rows_do_not_matter_to_the_programme(scale, shift):
    X, Y = normal(60), normal(41, seed=1, mean=2.0)
    expected = wasserstein_distance(X, Y)
    assert wasserstein_distance(scale * X + shift, scale * Y + shift) == pytest.approx(scale * expected, rel=1e-6)


def test_what_auto_chooses():
    def chosen(X, Y, **weights):
        return wasserstein_distance(X, Y, return_method=True, **weights)[1]

    assert chosen(normal(9, 1), normal(5, 1)) == "sorted"
    assert chosen(normal(9), normal(9)) == chosen(normal(9), normal(9), sample_weight=[0.2] * 9) == "assignment"
    assert chosen(normal(9), normal(5)) == chosen(normal(9), normal(9), sample_weight=np.arange(9)) == "highs"


def fake_pot(warning=None):
    """POT's function, by our linear programme."""
    module = types.ModuleType("ot")

    def emd2(a, b, cost, numItermax, log):
        n, m = cost.shape
        sums = [sparse.kron(sparse.eye(n), np.ones((1, m))), sparse.kron(np.ones((1, n)), sparse.eye(m))]
        found = linprog(cost.ravel(), A_eq=sparse.vstack(sums).tocsr()[:-1], b_eq=np.concatenate([a, b])[:-1])
        return found.fun, {"warning": warning}

    module.emd2 = emd2
    return module


def test_pot_is_handed_what_it_expects(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", fake_pot())
    X, Y, w = normal(20), normal(15, seed=1), 0.1 + counts(20)
    found, method = wasserstein_distance(X, Y, sample_weight=w, method="pot", return_method=True)
    assert method == "pot" and found == pytest.approx(wasserstein_distance(X, Y, sample_weight=w), rel=1e-6)
    monkeypatch.setitem(sys.modules, "ot", fake_pot("numItermax reached before optimality"))
    with pytest.raises(ValueError, match=r"POT found no optimal plan \(numItermax reached"):
        wasserstein_distance(X, Y, method="pot")


def test_pot_itself_agrees():
    pytest.importorskip("ot")
    X, Y, w = normal(200), normal(150, seed=1, mean=1.0), 0.1 + counts(200)
    expected = wasserstein_distance(X, Y, sample_weight=w, method="highs")
    assert wasserstein_distance(X, Y, sample_weight=w, method="pot") == pytest.approx(expected, rel=1e-6)


def test_samples_that_are_too_large_are_refused_with_the_ways_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)  # as if it were not installed
    with pytest.raises(ValueError, match=r"2200 and 2100 rows.*needs POT.*sklearn-si\[transport\].*fewer rows"):
        wasserstein_distance(normal(2200), normal(2100))
    with pytest.raises(ValueError, match=r"20000 and 19999 rows make 4e\+08 pairs.*draw fewer rows"):
        wasserstein_distance(normal(20_000), normal(19_999))
    assert wasserstein_distance(normal(20_000, 1), normal(19_999, 1)) < 0.1


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize(
    "weights, match",
    [
        ([1.0, -1.0, 1.0], r"sample_weight is -1 at row 1 of X .*give 0 to a row that is to be left out"),
        ([1.0, np.nan, 1.0], r"sample_weight is nan at row 1 of X \(1 such rows\)"),
        ([1.0, 1.0, np.inf], r"sample_weight is inf at row 2"),
        ([1.0, 1.0], r"sample_weight has the shape \(2,\), but expected \(3,\): one weight for each row of X"),
        ([[1.0], [1.0], [1.0]], r"sample_weight has the shape \(3, 1\)"),
        ([0.0, 0.0, 0.0], r"sample_weight is 0 at every row of X"),
        (["a", "b", "c"], r"sample_weight has a value that is not a number"),
    ],
)
def test_weights_are_checked(name, weights, match):
    with pytest.raises(ValueError, match=match):
        getattr(metrics, name)(normal(3), normal(4), sample_weight=weights)
    with pytest.raises(
        ValueError, match=match.replace("sample_weight", "reference_weight").replace("of X", "of reference")
    ):
        getattr(metrics, name)(normal(4), normal(3), reference_weight=weights)


@pytest.mark.parametrize("name", ["energy_distance", "maximum_mean_discrepancy", "sliced_wasserstein"])
def test_one_row_that_is_left_makes_no_pair(name):
    with pytest.raises(ValueError, match=r"at least 2"):
        getattr(metrics, name)(normal(3), normal(4), sample_weight=[0, 1, 0])
    value = getattr(metrics, name)(normal(3), normal(4), sample_weight=[0, 2, 0])
    assert value == pytest.approx(getattr(metrics, name)(normal(3)[[1, 1]], normal(4)), rel=1e-9)


@pytest.mark.parametrize(
    "method, match",
    [
        ("sorted", r"method='sorted' needs one column, but got 2"),
        ("assignment", r"method='assignment' needs equally many rows without weights, but got 5 and 4 rows"),
        ("emd", r"Got method='emd', but expected one of \['auto', 'sorted'"),
    ],
)
def test_a_method_that_does_not_fit_is_refused(method, match):
    with pytest.raises(ValueError, match=match):
        wasserstein_distance(normal(5), normal(4), method=method)


def test_distances_beyond_the_numbers_are_refused():
    for n in (4, 5):
        with pytest.raises(ValueError, match=r"beyond the range|infinite|invalid numeric"):
            wasserstein_distance(1e200 * normal(5), normal(n))


def test_unweighted_estimates_of_importance_weights_are_unbiased():
    """Weights q / p turn draws of N(0, 1) into a sample of N(0.5, 1), whose distance from itself is 0 in the mean."""
    values = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        X, Y = rng.normal(size=(60, 1)), rng.normal(0.5, 1.0, size=(60, 1))
        w = np.exp(0.5 * X[:, 0] - 0.125)
        values.append(energy_distance(X, Y, standardize=False, sample_weight=w))
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values)) + 0.005


@pytest.fixture(scope="module")
def bridge():
    X = normal(300)
    shifted = X + np.array([3.0, 0.0])
    return InterpolantFlow(coupling="paired", base_density=None, max_iter=20, random_state=0).fit(X, shifted)


def test_a_report_of_unequal_samples(bridge):
    report = transport_report(bridge, normal(120, seed=1), normal(90, seed=2, mean=[3.0, 0.0]))
    assert report.method == "highs"
    assert report.displacement == pytest.approx(9.0, rel=0.1) and report.path_energy == pytest.approx(9.0, rel=0.1)
    assert report.distance < 2 * report.floor
    assert transport_report(bridge, normal(90, seed=1), normal(90, seed=2)).method == "assignment"


def test_a_report_of_weighted_samples_is_that_of_repeated_rows(bridge):
    X0, X1, w = normal(40, seed=1), normal(30, seed=2, mean=[3.0, 0.0]), counts(40)
    X0[w == 0] = 40.0
    weighted = transport_report(bridge, X0, X1, sample_weight=w)
    repeated = transport_report(bridge, np.repeat(X0, w, 0), X1)
    for key in ("distance", "floor", "displacement", "shortest", "path_energy", "normalized_path_energy"):
        assert weighted[key] == pytest.approx(repeated[key], rel=1e-5, abs=1e-9), key
    weighed_down = transport_report(
        bridge, X0[w > 0], np.concatenate([X1, X1 + 50]), reference_weight=[1] * 30 + [0] * 30
    )
    assert weighed_down.shortest == pytest.approx(transport_report(bridge, X0[w > 0], X1).shortest, rel=1e-6)


def test_conditions_stay_with_the_rows_that_are_kept():
    X0, group = normal(200), np.repeat([0.0, 1.0], 100)
    model = InterpolantFlow(coupling="paired", base_density=None, max_iter=150, random_state=0)
    model.fit(X0, X0 + np.outer(4 * group, [1, 0]), condition=group)
    w = np.tile([1, 1, 1, 1, 0], 40)
    expected = path_energy(model, X0[w > 0], condition=group[w > 0])
    assert path_energy(model, X0, condition=group, sample_weight=w) == pytest.approx(expected, rel=1e-9)
    report = transport_report(model, X0, X0 + 1, condition=group, sample_weight=w)
    assert report.displacement == pytest.approx(
        transport_report(model, X0[w > 0], X0 + 1, condition=group[w > 0]).displacement
    )


def test_a_report_of_a_plan_takes_unequal_samples():
    X0, X1 = normal(300), normal(250, seed=1, mean=1.0)
    model = SchroedingerBridge(0.5, "mixture", n_components=1, base_density=None, random_state=0).fit(X0, X1)
    report = transport_report(model, X0[:60], X1[:50], sample_weight=np.arange(60))
    assert report.method == "highs" and report.distance < 1.5
    with pytest.raises(ValueError, match="X1 has one row with a positive weight"):
        transport_report(model, X0[:60], X1[:50], reference_weight=[1] + [0] * 49)


def test_a_discrepancy_keeps_the_units_of_constant_columns():
    X, Y = normal(50), normal(40, seed=1)
    X[:, 1], Y[:, 1] = 0.1, 0.1
    assert maximum_mean_discrepancy(X, Y) == pytest.approx(maximum_mean_discrepancy(X[:, :1], Y[:, :1]), abs=1e-9)


def test_sliced_distances_of_weighted_rows_on_one_direction_are_exact():
    X, Y, w = normal(30, 1), normal(20, 1, seed=1), 0.1 + counts(30)
    one = sliced_wasserstein(X, Y, standardize=False, sample_weight=w)
    assert one == pytest.approx(wasserstein_distance(X, Y, sample_weight=w), rel=1e-9)
