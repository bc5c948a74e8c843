"""Where columns live: maps to the line, their Jacobians, bounds that rounding keeps, and declarations."""

import numpy as np
import pytest
from scipy import stats

from sklearn_si.preprocessing import AffineMap, Support, SupportedMap
from sklearn_si.preprocessing._grids import ColumnGrid
from sklearn_si.preprocessing._support import read_support, same_support

# Declarations, bounds, and points within.
DECLARED = {
    "positive": ("positive", (0.0, np.inf), np.array([1e-300, 1e-3, 1.0, 7.5, 1e300])),
    "above": ((-3.0, None), (-3.0, np.inf), np.array([-2.999, 0.0, 1e8])),
    "below": ((None, 10), (-np.inf, 10.0), np.array([-1e8, 0.0, 9.999])),
    "above, infinite": ((2, np.inf), (2.0, np.inf), np.array([2.1, 5.0])),
    "share": ((0, 1), (0.0, 1.0), np.array([1e-12, 0.2, 0.5, 0.8, 1 - 1e-12])),
    "degrees": ([-40.0, 60.0], (-40.0, 60.0), np.array([-39.0, 10.0, 59.9])),
    "far": ((1e9, 1e9 + 100), (1e9, 1e9 + 100), 1e9 + np.array([0.1, 50.0, 99.0])),
    "real": ("real", (-np.inf, np.inf), np.array([-5.0, 0.0, 1e9])),
    "none": ((None, None), (-np.inf, np.inf), np.array([-5.0, 0.0])),
}


def support_of_one(low, high):
    return Support(np.array([low]), np.array([high]))


@pytest.mark.parametrize("name", DECLARED)
def test_a_declaration_is_read(name):
    declared, bounds, _ = DECLARED[name]
    found = read_support({"b": declared}, ["a", "b"])
    if not np.isfinite(bounds).any():
        assert found is None
        return
    np.testing.assert_array_equal([found.low, found.high], [[-np.inf, bounds[0]], [np.inf, bounds[1]]])
    everywhere = read_support(declared, ["a", "b"])
    np.testing.assert_array_equal([everywhere.low, everywhere.high], [[bounds[0]] * 2, [bounds[1]] * 2])
    assert not same_support(found, everywhere) and same_support(found, read_support({1: declared}, ["a", "b"]))


@pytest.mark.parametrize("name", DECLARED)
def test_there_and_back_with_the_derivatives_of_finite_differences(name):
    _, bounds, x = DECLARED[name]
    support, X = support_of_one(*bounds), x[:, None]
    Y = support.transform(X)
    np.testing.assert_allclose(support.inverse_transform(Y), X, rtol=1e-8, atol=1e-12)
    # elsewhere a difference of neighbours is that of their rounding
    room = np.minimum(X - bounds[0], bounds[1] - X)
    known = (np.abs(X) < 1e7) & (room >= 1e-4 * (1 + np.abs(X))) & (np.abs(X) > 1e-9) | (X == 0)
    inside, room = X[known][:, None], room[known][:, None]
    h = 1e-4 * np.minimum(room, 1.0)
    slope = (support.transform(inside + h) - support.transform(inside - h)) / (2 * h)
    np.testing.assert_allclose(support.slopes(inside), slope, rtol=1e-5)
    bend = (support.log_slopes(inside + h) - support.log_slopes(inside - h)) / (2 * h)
    np.testing.assert_allclose(support.curvatures(inside), bend, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(
    ("declared", "distribution"),
    [("positive", stats.lognorm(0.7)), ((0, 1), stats.uniform()), ((-2, 5), stats.uniform(-2, 7))],
)
def test_these_columns_become_normal(declared, distribution):
    """The density of the normal times the Jacobian is that of the column."""
    support = read_support(declared, ["x"])
    x = distribution.ppf(np.linspace(0.001, 0.999, 31))[:, None]
    z = support.transform(x)[:, 0]
    log_density = stats.norm(scale=0.7 if declared == "positive" else 1.0).logpdf(z) + support.log_abs_det_jacobian(x)
    np.testing.assert_allclose(log_density, distribution.logpdf(x[:, 0]), atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bounds", [
    (0.0, np.inf), (-np.inf, 0.0), (0.1, 0.3), (-3.0, np.inf), (1e9, 1e9 + 100), (0.0, 1e-30), (-1e30, 1.0),
    (0.0, 1e39),
])  # fmt: skip
def test_no_rounding_leaves_the_support(bounds, dtype):
    """0.1 in single precision is above 0.1, and 1e9 + 1 is 1e9 there."""
    support = support_of_one(*bounds)
    line = np.array([-1e4, -800.0, -40.0, -9.0, -1.0, 0.0, 1.0, 9.0, 40.0, 80.0])[:, None]
    x = support.inside(support.inverse_transform(line), dtype).astype(dtype).astype(np.float64)
    x = x[np.isfinite(x)]
    assert len(x) >= 8 and (x > bounds[0]).all() and (x < bounds[1]).all()
    support.check(x[:, None], "X", ["x"])


def test_rows_that_are_no_numbers_stay_so():
    """They are drawn again; a bound in their place would hide them."""
    X = np.array([[np.nan, 1.0], [np.inf, 1.0], [-1.0, -np.inf]])
    inside = Support(np.zeros(2), np.full(2, np.inf)).inside(X)
    assert np.isnan(inside[0, 0]) and np.isinf(inside[1, 0]) and inside[2, 0] > 0 and np.isinf(inside[2, 1])


def test_what_is_outside_is_refused_by_name():
    support = read_support({"share": (0, 1)}, ["age", "share"])
    support.check(np.array([[-5.0, 0.5]]), "X", ["age", "share"])
    outside = r"1 of 2 values in column 'share' of X0 are outside its support \(0, 1\), such as 1.5 in row 1: leave"
    with pytest.raises(ValueError, match=outside):
        support.check(np.array([[1.0, 0.5], [1.0, 1.5]]), "X0", ["age", "share"])
    on_bound = np.array([[1.0, 0.5], [1.0, 0.0]])
    with pytest.raises(ValueError, match=r"column 'share' of X are on a bound of its support .* dequantize="):
        support.check(on_bound, "X", ["age", "share"])
    support.check(on_bound, "X", ["age", "share"], dequantized=[1])
    with pytest.raises(ValueError, match="are outside its support"):
        support.check(np.array([[1.0, -0.1]]), "X", ["age", "share"], dequantized=[1])


@pytest.mark.parametrize(
    ("declared", "match"),
    [
        ("negative", "Got support='negative' for all columns, but expected 'real', 'positive', a pair"),
        ({"a": (1, 0)}, r"Got support=\(1, 0\) for column 'a', but expected 'real'"),
        ({"a": (1, 1)}, r"Got support=\(1, 1\) for column 'a'"),
        ({"a": (0, np.nan)}, r"Got support=\(0, nan\) for column 'a'"),
        ({"a": (0, True)}, r"Got support=\(0, True\) for column 'a'"),
        ({"a": (0, "1")}, r"Got support=\(0, '1'\) for column 'a'"),
        ({"a": (0, 1, 2)}, r"Got support=\(0, 1, 2\) for column 'a'"),
        ({"a": 3.0}, "Got support=3.0 for column 'a'"),
        (
            {"c": "positive"},
            r"support names the column 'c', but expected one of \['a', 'b'\], or a position",
        ),
        ({2: "positive"}, "support names the column 2"),
        ({"a": "positive", 0: "real"}, "names a column twice"),
        ((-1e308, 1e308), "for all columns, but expected"),
    ],
)
def test_declarations_that_say_nothing_are_refused(declared, match):
    with pytest.raises(ValueError, match=match):
        read_support(declared, ["a", "b"])


def test_cells_of_repeated_values_end_at_a_bound():
    grid = ColumnGrid.of(np.array([0.0, 1.0, 2.0, 4.0]), 0.0, 4.5)
    np.testing.assert_array_equal(grid.edges, [0.0, 0.5, 1.5, 3.0, 4.5])
    centre, off = grid.centre(np.array([0.0, 4.0]))
    np.testing.assert_array_equal(centre, [0.25, 3.75])
    assert not off.any()


def test_a_map_after_a_support_pulls_scores_back():
    """d/dx of log N(h(g(x))) + log |J| by finite differences."""
    support = Support(np.array([0.0, -1.0, -np.inf]), np.array([np.inf, 2.0, np.inf]))
    scaling = SupportedMap(support, AffineMap(np.array([0.3, -0.2, 1.0]), np.diag([0.5, 2.0, 1.0]) + 0.1))
    X = np.array([[0.3, 1.5, -4.0], [5.0, -0.7, 2.0]])

    def log_density(X):
        return stats.norm.logpdf(scaling.transform(X)).sum(1) + scaling.log_abs_det_jacobian(X)

    gradient = scaling.pull_back_score(-scaling.transform(X), X)
    h = 1e-6
    numeric = np.column_stack([(log_density(X + h * e) - log_density(X - h * e)) / (2 * h) for e in np.eye(3)])
    np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(scaling.inverse_transform(scaling.transform(X)), X)
    assert "0 in (0, inf), 1 in (-1, 2)" in repr(scaling)
