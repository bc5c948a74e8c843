"""Exact optimal transport between two weighted samples, by the method that suits their sizes."""

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import linprog
from scipy.spatial.distance import cdist

from ..couplings import optimal_pairs
from ._weights import squared_distance_on_line

# Pairs of rows up to which "auto" takes HiGHS for unequal weights: 2,000 rows of each sample take 11 s with 2 columns
# and 1 s with 10.
_HIGHS_PAIRS = 4_000_000
# Largest number of pairs of rows: their costs take 0.8 GB.
_MOST_PAIRS = 100_000_000
# Partners of each row in the first linear programme, those of least cost.
_FIRST_PARTNERS = 15
# Partners that each row gains in every later programme.
_MORE_PARTNERS = 5
# Reduced cost, in units of the mean cost, below which a pair would shorten the transport.
_PRICE = 1e-9
# Smallest share of the total mass that is distinguished from 0: sums of its multiples up to one are exact in double
# precision.
_MASS_UNIT = 2.0**-44
# Largest number of linear programmes: five to seven were needed for 2,000 rows.
_MOST_ROUNDS = 100
# Largest number of steps of POT's network simplex.
_POT_STEPS = 10_000_000


def squared_transport_cost(X, Y, x_weights, y_weights, method="auto"):
    """W2^2 between two samples with positive weights, and the name of the method that found it."""
    method = _chosen(method, X, Y, x_weights, y_weights)
    cost = _SOLVERS[method](X, Y, x_weights / x_weights.sum(), y_weights / y_weights.sum())
    if not np.isfinite(cost):
        raise ValueError(
            "The squared distances of the rows are beyond the range of floating-point numbers: divide the columns of "
            "both samples by the same constant."
        )
    return max(float(cost), 0.0), method


def _chosen(method, X, Y, x_weights, y_weights):
    """The method to use; it raises if the requested one does not fit, or if the samples are too large."""
    if method not in METHODS:
        raise ValueError(f"Got method={method!r}, but expected one of {list(METHODS)}.")
    pairs = len(X) * len(Y)
    equal = len(X) == len(Y) and np.ptp(x_weights) == 0 and np.ptp(y_weights) == 0
    if method == "sorted" and X.shape[1] > 1:
        raise ValueError(f"method='sorted' needs one column, but got {X.shape[1]}: use method='auto'.")
    if method == "assignment" and not equal:
        raise ValueError(
            f"method='assignment' needs equally many rows without weights, but got {len(X)} and {len(Y)} rows"
            f"{'' if len(X) != len(Y) else ' with weights'}: use method='auto'."
        )
    if method == "auto":
        method = "sorted" if X.shape[1] == 1 else "assignment" if equal else "highs" if pairs <= _HIGHS_PAIRS else "pot"
    if method != "sorted" and pairs > _MOST_PAIRS:
        raise ValueError(
            f"{len(X)} and {len(Y)} rows make {pairs:.2g} pairs, but the exact plan is found among {_MOST_PAIRS:.0e} "
            "at most: draw fewer rows at random from both, or use sliced_wasserstein."
        )
    return method


def _by_sorting(X, Y, a, b):
    return squared_distance_on_line(X[:, 0], Y[:, 0], a, b)


def _by_assignment(X, Y, a, b):
    pairs = optimal_pairs(torch.tensor(X.copy()), torch.tensor(Y.copy()))
    return ((X - Y[pairs]) ** 2).sum(1).mean()


def _by_highs(X, Y, a, b):
    """The linear programme over plans with the marginals a and b, by column generation.

    At an optimum every reduced cost c_ij - u_i - v_j is at least 0, with u and v the duals of the marginals. The
    programme starts with few pairs. Pairs whose reduced cost is negative are added until there are none, which proves
    that the plan is optimal among all pairs.
    """
    a, b, cost = _on_grid(a), _on_grid(b), cdist(X, Y, "sqeuclidean")
    # The scale is the cost of independent pairs, which an outlier of little weight does not determine.
    size = a @ cost @ b
    if not 0 < size < np.inf:
        return size
    kept = _staircase(X, Y, a, b)
    # A shift of either sample changes no plan, so the near pairs are sought after both are centred.
    _keep_cheapest(kept, cdist(X - a @ X, Y - b @ Y, "sqeuclidean"), _FIRST_PARTNERS)
    for _ in range(_MOST_ROUNDS):
        plan, u, v, pairs = _restricted_plan(cost / size, kept, a, b)
        reduced = np.where(kept, np.inf, cost / size - u[:, None] - v)
        wanted = reduced < -_PRICE
        if not wanted.any():
            return plan @ cost[pairs]
        gained = np.zeros_like(kept)
        _keep_cheapest(gained, reduced, _MORE_PARTNERS)
        kept |= gained & wanted
    raise ValueError(f"HiGHS found no plan that is optimal among all pairs after {_MOST_ROUNDS} rounds: {_WAY_OUT}.")


_WAY_OUT = "use method='pot' (pip install 'sklearn-si[transport]') or draw fewer rows"


def _on_grid(masses):
    """The masses as multiples of `_MASS_UNIT` that sum to exactly one, so that rounding leaves a feasible programme."""
    units = np.rint(masses / _MASS_UNIT)
    units[np.argmax(units)] += 1 / _MASS_UNIT - units.sum()
    return units * _MASS_UNIT


def _restricted_plan(cost, kept, a, b):
    """The optimal plan on the kept pairs, its two duals, and the pairs."""
    i, j = pairs = np.nonzero(kept)
    n, columns = len(a), np.arange(len(i))
    marginals = sparse.csr_matrix(
        (np.ones(2 * len(i)), (np.concatenate([i, n + j]), np.concatenate([columns, columns]))),
        shape=(n + len(b), len(i)),
    )
    # The last sum follows from the others. As a constraint, its rounding would make the programme infeasible.
    sums = np.concatenate([a, b])[:-1]
    # About the mean mass of a row: the solver's tolerances are small beside the masses. A power of two is exact.
    unit = 2.0 ** -np.rint(np.log2(len(a) * len(b)) / 2)
    programme = {"c": cost[pairs], "A_eq": marginals[:-1], "b_eq": sums / unit}
    result = linprog(**programme, method="highs-ipm")
    if result.status != 0:  # presolve mistakes masses near its tolerance for a contradiction
        result = linprog(**programme, method="highs-ds", options={"presolve": False})
    if result.status != 0:
        raise ValueError(f"HiGHS found no plan ({result.message}): {_WAY_OUT}.")
    duals = np.append(result.eqlin.marginals, 0.0)
    return result.x * unit, duals[:n], duals[n:], pairs


def _staircase(X, Y, a, b):
    """The pairs of a feasible plan: the one that is optimal along the direction of the largest variance."""
    both = np.concatenate([X - a @ X, Y - b @ Y])
    direction = np.linalg.eigh(both.T @ both)[1][:, -1]
    orders = [np.argsort(rows @ direction, kind="stable") for rows in (X, Y)]
    reached = [np.cumsum(weights[order]) for weights, order in zip((a, b), orders, strict=True)]
    levels = np.union1d(*reached)
    middle = levels - np.diff(levels, prepend=0.0) / 2
    i, j = (order[np.minimum(np.searchsorted(r, middle), len(r) - 1)] for r, order in zip(reached, orders, strict=True))
    kept = np.zeros((len(a), len(b)), dtype=bool)
    kept[i, j] = True
    return kept


def _keep_cheapest(kept, cost, k):
    """Mark the k cheapest partners of each row of both samples."""
    n, m = cost.shape
    few = min(k, m)
    kept[np.repeat(np.arange(n), few), np.argpartition(cost, few - 1, axis=1)[:, :few].ravel()] = True
    few = min(k, n)
    kept[np.argpartition(cost, few - 1, axis=0)[:few].ravel(), np.tile(np.arange(m), few)] = True


def _by_pot(X, Y, a, b):
    """The network simplex of POT (Python Optimal Transport), an optional dependency."""
    try:
        import ot
    except ImportError as error:
        raise ValueError(
            f"The exact plan between {len(X)} and {len(Y)} rows of unequal weight needs POT, which is not installed: "
            "pip install 'sklearn-si[transport]', draw as many rows of both, draw fewer rows at random (at most "
            f"{_HIGHS_PAIRS:.0e} pairs), or use sliced_wasserstein."
        ) from error
    cost, log = ot.emd2(a, b, cdist(X, Y, "sqeuclidean"), numItermax=_POT_STEPS, log=True)
    if log["warning"] is not None:
        raise ValueError(f"POT found no optimal plan ({log['warning']}): draw fewer rows, or use sliced_wasserstein.")
    return cost


_SOLVERS = {"sorted": _by_sorting, "assignment": _by_assignment, "highs": _by_highs, "pot": _by_pot}
METHODS = ("auto", *_SOLVERS)
