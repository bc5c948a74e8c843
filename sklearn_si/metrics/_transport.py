"""The cost of a transport between samples, and the least cost there could be."""

import numbers

import numpy as np
from scipy.integrate import trapezoid
from sklearn.utils import _safe_indexing, check_array
from sklearn.utils.validation import _num_samples

from .._utils.figures import Figures
from .._utils.input_checks import nameless
from .._utils.kinds import check_cells
from ._plans import squared_transport_cost
from ._weights import check_weights, same_columns, weighted_rows


def wasserstein_distance(
    X, reference, *, sample_weight=None, reference_weight=None, method="auto", return_method=False
):
    """Wasserstein distance of order 2 between two samples, by an exact optimal transport plan.

    W2^2 = min over plans P of sum_ij P_ij |X_i - reference_j|^2

    (Villani 2009, "Optimal transport: old and new", Definition 6.1) where a plan is a non-negative matrix whose row and
    column sums are the normalized weights of the rows of `X` and of `reference`. For equally many rows without weights
    the optimal plan is a permutation.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Rows.
    reference : array-like of shape (n_reference, n_features)
        Rows to compare with, not necessarily as many.
    sample_weight, reference_weight : array-like of shape (n_samples,) or (n_reference,), default=None
        Weights of the rows of `X` and of `reference`: only their ratios matter. A row of weight 3 is the same as three
        such rows, and a row of weight 0 is left out. None weighs all rows alike.
    method : {"auto", "sorted", "assignment", "highs", "pot"}, default="auto"
        How the plan is found; all are exact. "sorted" is for one column. "assignment" (scipy) is for equally many rows
        without weights, some thousands. "highs" is the linear programme of scipy, and "pot" the network simplex of
        POT, an optional dependency (``pip install 'sklearn-si[transport]'``). "auto" takes the first of them that fits:
        "highs" up to 4e6 pairs of rows (2,000 of each), beyond them "pot".
    return_method : bool, default=False
        Whether to return the name of the method that found the plan as well.

    Returns
    -------
    distance : float
        W2 in data units. Two samples of the same distribution have a positive distance: compare with the distance
        between two samples of the reference of the same sizes.
    method : str
        Only with ``return_method=True``.

    Raises
    ------
    ValueError
        When the numbers of columns differ, a value is not finite, weights are not finite and non-negative with a
        positive one among them, a method does not fit the samples, or the samples are too large for it.

    Examples
    --------
    >>> from sklearn_si.metrics import wasserstein_distance
    >>> wasserstein_distance([[0.0], [1.0]], [[5.0], [4.0]])
    4.0
    >>> wasserstein_distance([[0.0, 0.0]], [[3.0, 4.0], [0.0, 0.0]], reference_weight=[1, 3], return_method=True)
    (2.5, 'highs')
    """
    X, reference = same_columns(X, reference)
    X, x_weights = weighted_rows(X, sample_weight, "X", "sample_weight")
    reference, weights = weighted_rows(reference, reference_weight, "reference", "reference_weight")
    cost, method = squared_transport_cost(X, reference, x_weights, weights, method)
    distance = float(np.sqrt(cost))
    return (distance, method) if return_method else distance


def path_energy(model, X0, *, n_times=51, condition=None, sample_weight=None):
    """The kinetic energy of the paths of a bridge's ODE.

    int_0^1 E|b(t, X_t)|^2 dt >= E|X_1 - X_0|^2 >= W2^2

    (Benamou & Brenier 2000, "A computational fluid mechanics solution to the Monge-Kantorovich mass transfer problem",
    Numer. Math. 84): the energy is at least the mean squared distance that the rows are moved, with equality for
    straight paths of constant speed, and that is at least the squared Wasserstein distance of order 2.

    Parameters
    ----------
    model : estimator
        A model that was fitted to two samples.
    X0 : array-like of shape (n_samples, n_features)
        Rows of the base, in data units.
    n_times : int, default=51
        Number of times of the trapezoidal rule.
    condition : array-like, default=None
        One row for all or one for each, if the model was fitted with a condition.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows in the mean, as in `wasserstein_distance`.

    Returns
    -------
    energy : float
        The energy in squared data units.

    Raises
    ------
    ValueError
        When n_times is less than 2, or weights are not finite and non-negative with a positive one among them.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si import InterpolantFlow
    >>> from sklearn_si.metrics import path_energy
    >>> X0 = np.random.default_rng(0).normal(size=(200, 1))
    >>> flow = InterpolantFlow(coupling="paired", base_density=None, max_iter=20, random_state=0).fit(X0, X0 + 2.0)
    >>> abs(path_energy(flow, X0) - 4.0) < 0.5
    True
    """
    if not isinstance(n_times, numbers.Integral) or n_times < 2:
        raise ValueError(f"Got n_times={n_times!r}, but expected an integer of at least 2.")
    X0, weights, condition = _weighted_starts(X0, sample_weight, condition)
    times = np.linspace(0.0, 1.0, n_times)
    states = model.trajectory(X0, n_times, condition=condition)
    at = zip(states, times, strict=True)
    with nameless():
        speeds = [(model.velocity(x, float(t), condition=condition) ** 2).sum(1) for x, t in at]
    powers = [np.average(squares, weights=weights) for squares in speeds]
    return float(trapezoid(powers, times))


def _weighted_starts(X0, weights, condition):
    """The rows of the base whose weight is positive, their weights, and their conditions."""
    if weights is None:
        return X0, None, condition
    n_rows = _num_samples(X0)
    weights = check_weights(weights, n_rows, "X0", "sample_weight")
    kept = np.flatnonzero(weights)
    if len(kept) < n_rows:
        X0 = _safe_indexing(X0, kept)
        if condition is not None and n_rows > 1 and np.ndim(condition) and _num_samples(condition) == n_rows:
            condition = _safe_indexing(condition, kept)
    return X0, weights[kept], condition


def transport_report(model, X0, X1, *, condition=None, sample_weight=None, reference_weight=None, method="auto"):
    """How well a bridge transports one sample to another, and at what cost.

    distance = W2(transported rows of X0, X1),    displacement = E|X_1 - X_0|^2 >= shortest = W2^2(X0, X1)

    A good bridge has a `distance` near or below `floor`, and a bridge that solves the optimal transport problem has a
    `displacement` and a `path_energy` near `shortest` (see `wasserstein_distance` and `path_energy`).

    Parameters
    ----------
    model : estimator
        A model that was fitted to two samples; `transform` transports rows of the first.
    X0 : array-like of shape (n_samples, n_features)
        Held-out rows of the base.
    X1 : array-like of shape (n_reference, n_features)
        Held-out rows of the target, at least two and not necessarily as many.
    condition : array-like, default=None
        One row for all or one for each row of `X0`, if the model was fitted with a condition.
    sample_weight, reference_weight : array-like of shape (n_samples,) or (n_reference,), default=None
        Weights of the rows of `X0`, which they keep when they are transported, and of `X1`, as in
        `wasserstein_distance`.
    method : {"auto", "sorted", "assignment", "highs", "pot"}, default="auto"
        How the plans are found, as in `wasserstein_distance`.

    Returns
    -------
    report : Bunch
        Smaller is better for all numbers.

        - `distance`: W2 between X1 and the transported rows, in data units. The transported rows of a
          `SchroedingerBridge` are draws of its plan.
        - `floor`: W2 between the two halves of X1, in data units. It is the distance that two samples of the same
          distribution have, at half as many rows, so that a good bridge comes below it.
        - `displacement`: mean squared distance that rows are moved, in squared data units.
        - `shortest`: W2^2 between X0 and X1, in squared data units, the least displacement that reaches X1.
        - `path_energy`: energy of the velocity along its ODE, in squared data units. For a `SchroedingerBridge` it is
          below the displacement, because the draws of the plan have noise.
        - `normalized_path_energy`: |path_energy - shortest| / shortest, without unit; nan if `shortest` is 0.
        - `method`: name of the method that found `distance` and `shortest`.

    Raises
    ------
    ValueError
        When X1 has fewer than two rows, or `wasserstein_distance` refuses the rows, their weights or the method.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si import InterpolantFlow
    >>> from sklearn_si.metrics import transport_report
    >>> X0 = np.random.default_rng(0).normal(size=(200, 1))
    >>> flow = InterpolantFlow(coupling="paired", base_density=None, max_iter=20, random_state=0).fit(X0, X0 + 2.0)
    >>> report = transport_report(flow, X0, X0 + 2.0)
    >>> round(report.shortest, 3), bool(abs(report.displacement - 4.0) < 0.5)
    (4.0, True)
    """
    X0, weights, condition = _weighted_starts(X0, sample_weight, condition)
    given = {} if condition is None else {"condition": condition}
    plan = getattr(model, "sample_plan", None)
    moved = np.asarray(model.transform(X0, **given) if plan is None else plan(X0, random_state=0))
    energy = path_energy(model, X0, condition=condition, sample_weight=weights)
    X0, X1 = same_columns(X0, X1)
    X1, x1_weights = weighted_rows(X1, reference_weight, "X1", "reference_weight")
    both = {"sample_weight": weights, "reference_weight": x1_weights, "method": method}
    shortest = wasserstein_distance(X0, X1, **both) ** 2
    distance, method = wasserstein_distance(moved, X1, return_method=True, **both)
    return Figures(
        distance=distance,
        floor=_distance_of_halves(X1, x1_weights),
        displacement=float(np.average(((moved - X0) ** 2).sum(1), weights=weights)),
        shortest=shortest,
        path_energy=energy,
        normalized_path_energy=abs(energy - shortest) / shortest if shortest > 0 else np.nan,
        method=method,
    )


def _distance_of_halves(X1, weights):
    """W2 between the first and the second half of the rows."""
    half = len(X1) // 2
    if half < 1:
        raise ValueError("X1 has one row with a positive weight, but its halves are compared: pass at least two rows.")
    first, second = slice(half), slice(half, 2 * half)
    return wasserstein_distance(X1[first], X1[second], sample_weight=weights[first], reference_weight=weights[second])


def plan_moments(bridge, X, *, n_draws=256, direction="forward", random_state=0):
    """Conditional mean and covariance of the partner of each row, under the plan of a `SchroedingerBridge`.

    mean = E[x1 | x0],    covariance = Cov(x1 | x0)    (x0 and x1 change places for ``direction="backward"``)

    They are estimated from draws of `SchroedingerBridge.sample_plan`, which names the source of the plan.

    Parameters
    ----------
    bridge : SchroedingerBridge
        A fitted bridge.
    X : array-like of shape (n_samples, n_features)
        Rows of the base ("forward") or of the target ("backward"), in data units.
    n_draws : int, default=256
        Number of partners that are drawn for each row.
    direction : {"forward", "backward"}, default="forward"
        From the base to the target, or back.
    random_state : int, RandomState instance or None, default=0
        Seed of the draws.

    Returns
    -------
    moments : Bunch
        `mean` of shape (n_samples, n_features), in data units, and `covariance` of shape (n_samples, n_features,
        n_features), in squared data units.

    Raises
    ------
    ValueError
        When n_draws is less than 2.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si import SchroedingerBridge
    >>> from sklearn_si.metrics import plan_moments
    >>> X0 = np.random.default_rng(0).normal(size=(200, 1))
    >>> bridge = SchroedingerBridge(max_iter=20, random_state=0).fit(X0, X0 + 2.0)
    >>> moments = plan_moments(bridge, X0[:3], n_draws=10)
    >>> moments.mean.shape, moments.covariance.shape
    ((3, 1), (3, 1, 1))
    """
    if not isinstance(n_draws, numbers.Integral) or n_draws < 2:
        raise ValueError(f"Got n_draws={n_draws!r}, but expected an integer of at least 2.")
    X = check_array(check_cells(X, "X"), dtype=[np.float64, np.float32], input_name="X")
    draws = bridge.sample_plan(np.repeat(X, int(n_draws), 0), direction=direction, random_state=random_state)
    draws = np.asarray(draws, np.float64).reshape(len(X), n_draws, -1)
    centred = draws - draws.mean(1, keepdims=True)
    covariance = np.einsum("nki,nkj->nij", centred, centred) / (n_draws - 1)
    return Figures(mean=draws.mean(1), covariance=covariance)
