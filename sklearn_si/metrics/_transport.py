"""What a transport costs, beside what it could cost at the least."""

import numbers

import numpy as np
import torch
from scipy.integrate import trapezoid
from sklearn.utils import Bunch, check_array

from .._utils.input_checks import nameless
from ..couplings import optimal_pairs


def wasserstein_distance(X, reference):
    """Wasserstein distance of order 2 between two samples of equal size, by their exact plan.

    W2^2 = min over permutations p of mean_i |X_i - reference_p(i)|^2

    Parameters
    ----------
    X, reference : array-like of shape (n_samples, n_features)
        Rows, equally many: some thousands, for the time grows with their cube.

    Returns
    -------
    distance : float
        In the units of the data. Two samples of one law are not at 0.

    Raises
    ------
    ValueError
        When the numbers of rows or of columns differ, or a value is not finite.

    Examples
    --------
    >>> from sklearn_si.metrics import wasserstein_distance
    >>> wasserstein_distance([[0.0], [1.0]], [[5.0], [4.0]])
    4.0
    """
    X, reference = (check_array(rows, dtype=np.float64) for rows in (X, reference))
    if X.shape != reference.shape:
        raise ValueError(
            f"wasserstein_distance needs samples of one shape, but got {X.shape} and {reference.shape}: draw as many "
            "rows."
        )
    pairs = optimal_pairs(torch.tensor(X.copy()), torch.tensor(reference.copy()))
    return float(np.sqrt(((X - reference[pairs]) ** 2).sum(1).mean()))


def path_energy(model, X0, *, n_times=51, condition=None):
    """The energy of the deterministic paths of a bridge: int_0^1 E|b(t, X_t)|^2 dt along its ODE.

    At least the mean squared distance that rows are moved, which is at least W2^2 (Benamou & Brenier 2000).

    Parameters
    ----------
    model : estimator
        Fitted to two samples.
    X0 : array-like of shape (n_samples, n_features)
        Rows of the base.
    n_times : int, default=51
        Times of the trapezoidal rule.
    condition : array-like, default=None
        One row for all or one for each, if the model was fitted with a condition.

    Returns
    -------
    energy : float
        In the units of the data, squared.

    Raises
    ------
    ValueError
        When n_times is less than 2.

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
    times = np.linspace(0.0, 1.0, n_times)
    states = model.trajectory(X0, n_times, condition=condition)
    at = zip(states, times, strict=True)
    with nameless():
        powers = [(model.velocity(x, float(t), condition=condition) ** 2).sum(1).mean() for x, t in at]
    return float(trapezoid(powers, times))


def transport_report(model, X0, X1, *, condition=None):
    """How well and at what cost a bridge carries one sample to another.

    Parameters
    ----------
    model : estimator
        Fitted to two samples; `transform` carries rows of the first.
    X0, X1 : array-like of shape (n_samples, n_features)
        Held-out rows of both ends, equally many.
    condition : array-like, default=None
        One row for all or one for each, if the model was fitted with a condition.

    Returns
    -------
    report : Bunch
        In data units (distance) and their squares (all that follows `floor`); the smaller the better. `distance`: W2
        between X1 and carried rows (of a `SchroedingerBridge`: draws of the plan); `floor`: W2 between halves of X1,
        what a law seems to be from itself in samples of half as many rows, so that a good bridge comes below it;
        `displacement`: mean squared distance that rows are moved; `shortest`: W2^2 between X0 and X1, the least
        displacement that reaches X1; `path_energy`: that of the velocity along its ODE (of a `SchroedingerBridge` below
        the displacement of its draws, which have noise); `normalized_path_energy` |path_energy - shortest| / shortest,
        nan where there is no way to go.

    Raises
    ------
    ValueError
        When the numbers of rows differ.
    """
    given = {} if condition is None else {"condition": condition}
    plan = getattr(model, "sample_plan", None)
    moved = np.asarray(model.transform(X0, **given) if plan is None else plan(X0, random_state=0))
    energy = path_energy(model, X0, condition=condition)
    X0, X1 = (check_array(rows, dtype=np.float64) for rows in (X0, X1))
    shortest, half = wasserstein_distance(X0, X1) ** 2, len(X1) // 2
    return Bunch(
        distance=wasserstein_distance(moved, X1),
        floor=wasserstein_distance(X1[:half], X1[half : 2 * half]),
        displacement=float(((moved - X0) ** 2).sum(1).mean()),
        shortest=shortest,
        path_energy=energy,
        normalized_path_energy=abs(energy - shortest) / shortest if shortest > 0 else np.nan,
    )


def plan_moments(bridge, X, *, n_draws=256, direction="forward", random_state=0):
    """Mean and covariance of the partners of each row under the plan of a `SchroedingerBridge`.

    Parameters
    ----------
    bridge : SchroedingerBridge
        A fitted one.
    X : array-like of shape (n_samples, n_features)
        Rows of one end.
    n_draws : int, default=256
        Draws behind each row.
    direction : {"forward", "backward"}, default="forward"
        From the base to the target, or back.
    random_state : int, RandomState instance or None, default=0
        Seed of the draws.

    Returns
    -------
    moments : Bunch
        `mean` of shape (n_samples, n_features) and `covariance` of shape (n_samples, n_features, n_features).

    Raises
    ------
    ValueError
        When n_draws is less than 2.
    """
    if not isinstance(n_draws, numbers.Integral) or n_draws < 2:
        raise ValueError(f"Got n_draws={n_draws!r}, but expected an integer of at least 2.")
    X = check_array(X, dtype=[np.float64, np.float32])
    draws = bridge.sample_plan(np.repeat(X, int(n_draws), 0), direction=direction, random_state=random_state)
    draws = np.asarray(draws, np.float64).reshape(len(X), n_draws, -1)
    centred = draws - draws.mean(1, keepdims=True)
    covariance = np.einsum("nki,nkj->nij", centred, centred) / (n_draws - 1)
    return Bunch(mean=draws.mean(1), covariance=covariance)
