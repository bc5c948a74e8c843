"""Cells of repeated values: which columns repeat themselves, noise within cells, and the way back."""

import numpy as np
import pytest

from sklearn_si.preprocessing._grids import (
    ColumnGrid,
    Grid,
    chosen_columns,
    describe_repeats,
    repeated_columns,
)


def test_cells_end_halfway_and_the_outer_ones_are_symmetric():
    grid = ColumnGrid.of(np.array([4.0, 0.0, 1.0, 1.0, 4.0]))
    np.testing.assert_array_equal(grid.values, [0.0, 1.0, 4.0])
    np.testing.assert_array_equal(grid.edges, [-0.5, 0.5, 2.5, 5.5])
    np.testing.assert_array_equal(grid.widths, [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(grid.snap(np.array([-9.0, -0.5, 0.4, 0.6, 2.4, 2.6, 99.0])), [0, 0, 0, 1, 1, 4, 4])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("step, offset", [(1.0, 0.0), (0.1, 3.0), (5.0, -200.0)])
def test_noise_stays_within_its_cell_and_snaps_back(dtype, step, offset):
    rng = np.random.default_rng(0)
    X = np.column_stack([offset + step * rng.poisson(3.0, 500), rng.normal(size=500)]).astype(dtype)
    grid = Grid.of(X, [0])
    noisy = grid.scatter(X, np.random.default_rng(1))
    assert noisy.dtype == dtype and len(np.unique(noisy[:, 0])) > 450
    np.testing.assert_array_equal(noisy[:, 1], X[:, 1])
    np.testing.assert_array_equal(grid.snap(noisy), X)
    np.testing.assert_array_equal(noisy, grid.scatter(X, np.random.default_rng(1)))


def test_noise_is_uniform_within_the_cell():
    grid = ColumnGrid.of(np.array([0.0, 1.0, 5.0]))
    noisy = grid.scatter(np.ones(4000), np.random.default_rng(0).random(4000))
    counts = np.histogram(noisy, bins=10, range=(0.5, 3.0))[0]
    assert counts.sum() == 4000 and abs(counts - 400).max() < 80


def test_the_mass_of_the_cells_is_one_where_the_density_is_that_of_the_dequantised_variable():
    """P(k) / width_k in cell k: sum over cells of density times width."""
    x = np.random.default_rng(0).choice([0.0, 1.0, 2.0, 10.0], p=[0.4, 0.3, 0.2, 0.1], size=20_000)
    grid = ColumnGrid.of(x)
    noisy = grid.scatter(x, np.random.default_rng(1).random(len(x)))
    density = np.histogram(noisy, bins=grid.edges, density=True)[0]
    np.testing.assert_allclose(density * grid.widths, [0.4, 0.3, 0.2, 0.1], atol=0.015)


def test_the_mean_log_density_within_a_cell_is_below_the_log_of_its_mass_by_its_width():
    grid = ColumnGrid.of(np.arange(-5.0, 6.0))
    u = (np.arange(200) + 0.5) / 200
    for k, value in enumerate(grid.values):
        x = grid.scatter(np.full(200, value), u)
        log_q = -(x**2) / 2 - np.log(2 * np.pi) / 2
        assert log_q.mean() < np.log(np.exp(log_q).mean() * grid.widths[k] / grid.widths[k])


def test_values_that_differ_by_rounding_are_one():
    grid = ColumnGrid.of(np.array([0.3, 0.1 + 0.2, 0.1, 0.2]))
    assert len(grid.values) == 3 and grid.widths.min() > 0.09


def test_centres_of_values_and_values_between():
    X = np.array([[0.0, 7.0], [1.0, 7.5], [4.0, 8.0], [1.3, 9.0], [60.0, 1.0]])
    centred, off = Grid.of(X[:3], [0]).centre(X)
    np.testing.assert_array_equal(centred[:, 0], [0.0, 1.5, 4.0, 1.3, 60.0])
    np.testing.assert_array_equal(centred[:, 1], X[:, 1])
    assert list(off) == [0] and off[0].tolist() == [False, False, False, True, True]
    # a value in single precision is that of the grid
    single = np.array([[0.1], [0.2]], dtype=np.float32)
    assert Grid.of(np.array([[0.1], [0.2], [0.4]]), [0]).centre(single)[1] == {}


def columns_of(*columns):
    return np.column_stack([np.asarray(column, dtype=float) for column in columns])


def test_which_columns_repeat_themselves():
    rng = np.random.default_rng(0)
    n = 2000
    smooth = rng.normal(size=n)
    X = columns_of(
        smooth,
        np.where(rng.random(n) < 0.06, 0.0, smooth),  # a spike of 6 %
        np.where(rng.random(n) < 0.03, 0.0, smooth),  # of 3 %
        rng.integers(0, 2, n),
        rng.permutation(np.repeat(np.arange(80), 25)),  # 80 values, each of 1.25 %
        np.round(smooth, 3),  # more than a thousand values
        np.full(n, 3.0),
    )
    found = repeated_columns(X)
    assert [c.position for c in found] == [1, 3, 4]
    assert found[0].value == 0.0 and 0.05 < found[0].share < 0.07 and found[2].n_distinct == 80
    text = describe_repeats(found, list("abcdefg"))
    assert text.startswith("column 'b' (6% of the rows are 0, ") and "'e' (1% of the rows are " in text


@pytest.mark.parametrize("n, expected", [(6, 0), (9, 1), (40, 1)])
def test_a_few_rows_that_agree_are_no_pattern(n, expected):
    X = np.random.default_rng(0).normal(size=(n, 2))
    X[::2, 1] = 0.0
    assert len(repeated_columns(X)) == expected
    X[:, 1] = np.random.default_rng(1).normal(size=n)
    X[:4, 1] = 2.0
    assert repeated_columns(X) == []


def test_many_columns_are_not_all_named():
    X = np.random.default_rng(0).integers(0, 3, size=(100, 8))
    text = describe_repeats(repeated_columns(X), [f"c{j}" for j in range(8)])
    assert "'c4'" in text and "'c5'" not in text and text.endswith("and 3 more")


def test_columns_are_chosen_by_name_position_or_themselves():
    rng = np.random.default_rng(0)
    X = columns_of(rng.normal(size=200), rng.integers(0, 3, 200), rng.integers(0, 3, 200))
    names = ["size", "rooms", "floors"]
    assert chosen_columns(None, X, names) == []
    assert chosen_columns("auto", X, names) == [1, 2]
    assert chosen_columns(["floors", 1, np.int64(1)], X, names) == [1, 2]
    # a name that is a number is a name first
    assert chosen_columns([2], X, [2, 0, 1]) == [0]


@pytest.mark.parametrize(
    "dequantize, match",
    [
        ("rooms", r"Got dequantize='rooms', but expected None, 'auto' or a list of columns, such as \['rooms'\]"),
        (
            ["room"],
            r"names the column 'room', but expected one of \['size', 'rooms', 'one'\], or a position from 0 to 2",
        ),
        ([3], r"names the column 3,"),
        ([-1], r"names the column -1,"),
        ([True], r"names the column True,"),
        (["one"], r"names the column 'one', which holds one value \(4\)"),
    ],
)
def test_columns_that_cannot_be_chosen_are_refused(dequantize, match):
    X = columns_of(np.arange(9.0), np.arange(9.0), np.full(9, 4.0))
    with pytest.raises(ValueError, match=match):
        chosen_columns(dequantize, X, ["size", "rooms", "one"])
