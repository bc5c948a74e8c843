"""Log-densities of each cell given the other cells of its row, by quadrature over one column at a time."""

import numpy as np

from ..preprocessing._support import ends_within

# Nodes of the first grid of a column, half of them at quantiles and half evenly spaced.
_FIRST_NODES = 14
# Nodes that each refinement adds for each row by shares of its mass, and on either side of its peak, in widths of the
# latter ...
_ADDED_NODES = 5
_AROUND = (0.2, 0.5, 0.9, 1.7)
# ... and the number of refinements.
_REFINEMENTS = 3
# Where the grid of a row goes beyond a column if its mass lies at an end, in ranges of the column: a strange cell may
# move the others far.
_BEYOND = (0.25, 0.75, 2.0, 5.0, 20.0, 100.0)
# Nats below the largest value at which the end of a column has none of the mass.
_FAR_BELOW = 15.0
# Rows of one call of the density.
_ROWS_PER_CALL = 2**15
# Log-density of what has none.
_NOTHING = -1e30


def cell_log_densities(log_density, X, reference, support=None):
    """Log p(x_j | the other cells) = log p(x) - log int p(x with v in the place of x_j) dv.

    Parameters
    ----------
    log_density : callable
        Rows -> log-densities.
    X : ndarray of shape (n, d)
    reference : ndarray of shape (m, d)
        Rows whose ranges and quantiles place the first nodes.
    support : Support, default=None
        Where the columns live: no node lies outside.

    Returns
    -------
    values : ndarray of shape (n, d)
    """
    if support is not None:
        images = support.transform(X), support.transform(reference)
        if all(np.isfinite(rows).all() for rows in images):
            return _on_the_line(log_density, X, *images, support)
    ends = [ends_within(support, j) for j in range(X.shape[1])]
    return _cell_log_densities(log_density, X, reference, ends)


def _on_the_line(log_density, X, images, reference, support):
    """The same where columns have bounds, by nodes on the line: at a bound a density may be infinite."""

    def of_images(rows):
        inner = support.inside(support.inverse_transform(rows))
        return log_density(inner) - support.log_abs_det_jacobian(inner)

    ends = [(-np.pi, np.pi) if circular else (-np.inf, np.inf) for circular in support.circular]
    return _cell_log_densities(of_images, images, reference, ends) + support.log_slopes(X)


def _cell_log_densities(log_density, X, reference, ends):
    firsts = [_first_nodes(reference[:, j], *ends[j]) for j in range(X.shape[1])]
    return np.column_stack([_of_column(log_density, X, j, first) for j, first in enumerate(firsts)])


def _first_nodes(values, least, largest):
    """Nodes within a column, and beyond it as far as its support reaches."""
    low, high = values.min(), values.max()
    beyond = np.array(_BEYOND) * (high - low or 1.0)
    half = _FIRST_NODES // 2
    inside = np.concatenate([np.quantile(values, (np.arange(half) + 0.5) / half), np.linspace(low, high, half)])
    outer = np.clip(np.concatenate([low - beyond, high + beyond]), least, largest)
    return np.unique(inside), np.setdiff1d(outer, inside)


def _of_column(log_density, X, j, first):
    """The values of one column: its cells are nodes themselves, and each refinement follows the mass of its row."""
    own, (inside, beyond) = X[:, j].astype(np.float64), first
    nodes = np.column_stack([own, np.tile(inside, (len(X), 1))])
    values = _at_nodes(log_density, X, j, nodes)
    of_cells = values[:, 0].copy()
    # the ends of the column cost most, since they are far out: only where they matter among the nodes within it
    at_end = np.maximum(values[:, 1], values[:, -1]) > values[:, 1:].max(1) - _FAR_BELOW
    outer, of_outer = np.tile(beyond, (len(X), 1)), np.full((len(X), len(beyond)), _NOTHING)
    if at_end.any() and len(beyond):
        of_outer[at_end] = _at_nodes(log_density, X[at_end], j, outer[at_end])
    nodes, values = _sorted(np.hstack([nodes, outer]), np.hstack([values, of_outer]))
    ends = nodes[:, :1], nodes[:, -1:]  # of all nodes: the mass may lie beyond the column
    for _ in range(_REFINEMENTS):
        added = np.clip(_where_the_mass_is(nodes, values), *ends)
        nodes, values = _sorted(np.hstack([nodes, added]), np.hstack([values, _at_nodes(log_density, X, j, added)]))
    parts = _of_intervals(nodes, values)
    largest = parts.max(1)
    return of_cells - (largest + np.log(np.exp(parts - largest[:, None]).sum(1)))


def _sorted(nodes, values):
    order = np.argsort(nodes, axis=1, kind="stable")
    return np.take_along_axis(nodes, order, 1), np.take_along_axis(values, order, 1)


def _at_nodes(log_density, X, j, nodes):
    """Log-densities of the rows with each of their nodes in one column."""
    n, k = nodes.shape
    found = np.empty(n * k)
    flat = nodes.ravel()
    for start in range(0, n * k, _ROWS_PER_CALL):
        stop = min(start + _ROWS_PER_CALL, n * k)
        rows = X[np.arange(start, stop) // k].copy()
        rows[:, j] = flat[start:stop]
        found[start:stop] = log_density(rows)
    return np.where(np.isfinite(found), found, _NOTHING).reshape(n, k)


def _of_intervals(nodes, values):
    """Logarithms of the integrals between neighbouring nodes, of a density whose logarithm is linear there."""
    a, b = values[:, :-1], values[:, 1:]
    high, step = np.maximum(a, b), np.abs(b - a)
    # (1 - e^-step) / step
    mean = np.where(step > 1e-8, -np.expm1(-step) / np.where(step > 1e-8, step, 1.0), 1.0)
    with np.errstate(divide="ignore"):
        return high + np.log(mean) + np.log(np.diff(nodes, axis=1))


def _where_the_mass_is(nodes, values):
    """New nodes for each row: at evenly spaced shares of its mass, and around its largest value."""
    parts = _of_intervals(nodes, values)
    shares = np.exp(parts - parts.max(1, keepdims=True))
    reached = np.cumsum(shares, axis=1)
    wanted = (np.arange(_ADDED_NODES) + 0.5) / _ADDED_NODES * reached[:, -1:]
    places = (reached[:, None, :] < wanted[:, :, None]).sum(2).clip(max=parts.shape[1] - 1)
    before = np.take_along_axis(np.hstack([np.zeros((len(nodes), 1)), reached]), places, 1)
    inside = (wanted - before) / np.take_along_axis(shares, places, 1).clip(min=1e-300)
    low, high = np.take_along_axis(nodes, places, 1), np.take_along_axis(nodes, places + 1, 1)
    by_mass = low + np.clip(inside, 0.02, 0.98) * (high - low)
    # beside a peak a density whose logarithm is linear up to a far node has too little mass, and would get no nodes
    peak = values.argmax(1)[:, None]
    width = np.exp(parts.max(1, keepdims=True) - np.take_along_axis(values, peak, 1)) * reached[:, -1:]
    centre, width = _summit(nodes, values, peak, width)
    around = np.array(_AROUND)
    return np.hstack([by_mass, centre, centre + width * np.concatenate([-around, around])])


def _summit(nodes, values, peak, width):
    """The top of the parabola through the highest node and its neighbours, and its width: exact for a normal density.

    Where the parabola has no top, they are the highest node and the width that is given. A peak between two far nodes
    would not be found by the shares of the mass, whose logarithm is linear there.
    """
    middle = np.clip(peak, 1, nodes.shape[1] - 2)
    (x0, x1, x2), (y0, y1, y2) = ([np.take_along_axis(a, middle + k, 1) for k in (-1, 0, 1)] for a in (nodes, values))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        left, right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
        bend = (right - left) / (x2 - x0)
        top = (x0 + x1) / 2 - left / (2 * bend)
        spread = np.sqrt(-np.pi / bend)
    found = np.isfinite(top) & np.isfinite(spread) & (y0 > _NOTHING) & (y1 > _NOTHING) & (y2 > _NOTHING)
    return np.where(found, top, np.take_along_axis(nodes, peak, 1)), np.where(found, spread, width)
