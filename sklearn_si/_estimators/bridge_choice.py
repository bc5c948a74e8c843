"""The closed forms of a bridge, and whether they are enough: held-out rows against partners drawn from them."""

import numpy as np
import torch
from scipy.spatial.distance import cdist

from .._training.weighting import by_weight
from .._utils.tensors import FIT_STREAM, as_array, make_generator
from ..preprocessing import fit_two_sample_maps
from .bridge_fields import PlanPairs, bridge_fields, train_rows
from .bridge_potentials import fit_potential

# Share of `max_time` in which the closed forms are fitted, where they are all.
_MIXTURE_SHARE = 0.7
# The same, where networks may follow.
_SHARE_BESIDE_NETWORKS = 0.3

# The entropic penalty, 4 epsilon, of epsilon="auto", as a share of the mean squared distance of rows of both ends
# around their means.
_SHARE_OF_DISTANCE = 0.05

# Rows of each of the two samples that are compared.
_MOST_ROWS = 500
# Random splits of both samples together, beside which their distance is seen.
_SPLITS = 199
# Share of the splits that may be nearer to each other than the two samples.
_LEVEL = 0.99


def chosen_epsilon(epsilon, X0, X1, kind, weights):
    """The diffusion: as given, or for "auto" such that the entropic penalty is a twentieth of the mean cost.

    4 epsilon = E|(x0 - m0) - (x1 - m1)|^2 / 20    (in scaled units, over independent rows)

    Parameters
    ----------
    epsilon : float or "auto"
    X0, X1 : ndarray of shape (n, d)
        In data units.
    kind : {"auto", "standardize", "whiten"} or None
        Of the maps to scaled units.
    weights : tuple of (ndarray or None)
    """
    if epsilon != "auto":
        return epsilon
    maps = fit_two_sample_maps(X0, X1, "standardize" if kind == "auto" else kind, weights=weights)
    spread = 0.0
    for scaling, X, weight in zip(maps, (X0, X1), weights, strict=True):
        x = scaling.transform(X)
        spread += float(np.average(np.square(x - np.average(x, axis=0, weights=weight)), axis=0, weights=weight).sum())
    return _SHARE_OF_DISTANCE * spread / 4


def column_moments(X, weight):
    """Mean and deviation of each column, by weight where rows have weights."""
    if weight is None:
        return X.mean(0), X.std(0)
    mean = np.average(X, axis=0, weights=weight)
    return mean, np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weight))


def built_fields(run, epsilon, method, n_components):
    """The fields of a run around the closed forms between its rows, by name; its plan then pairs rows by these.

    Parameters
    ----------
    run : Run
    epsilon : float
    method : {"auto", "network", "mixture"}
    n_components : int or "auto"
    """
    potentials = None
    limited = run.recipe.max_time is not None
    if method != "mixture":  # whose judges are the other rows
        potentials = _fitted(run, train_rows(run), epsilon, n_components, _SHARE_BESIDE_NETWORKS)
    if method == "auto":
        assert potentials is not None
        method = "mixture" if is_enough(run, *potentials) else "network"
    if potentials is None:
        potentials = _fitted(run, _all_rows(run), epsilon, n_components, _MIXTURE_SHARE)
    elif method == "mixture" and not limited:  # what is kept has seen all rows
        potentials = _fitted(run, _all_rows(run), epsilon, len(potentials[0].log_weights), _MIXTURE_SHARE)
    potential, reverse = (one.float() for one in potentials)
    run.problem.coupling = PlanPairs(potential, reverse)
    return bridge_fields(run, potential, reverse, with_networks=method == "network")


def _fitted(run, rows, epsilon, n_components, share):
    """The potentials of the plan between some rows and of its reverse."""
    generator = make_generator(run.problem.seed, FIT_STREAM + 500, run.device)
    limit = run.recipe.max_time
    seconds = None if limit is None else share * limit / 2
    x0, x1 = rows
    potential = fit_potential(x0, x1, epsilon, n_components, generator, seconds)
    return potential, fit_potential(x1, x0, epsilon, len(potential.log_weights), generator, seconds)


def _all_rows(run):
    """All rows of both ends, in scaled units; drawn by weight where they have weights."""
    problem = run.problem
    if not problem.is_weighted:
        return run.x0, run.x1
    x0 = run.some(run.x0, np.arange(len(run.x0)), problem.base_weight)
    return x0, run.some(run.x1, np.arange(len(run.x1)), problem.target_weight)


def is_enough(run, potential, reverse):
    """Whether held-out rows of either end cannot be told from partners of held-out rows of the other.

    E = 2 E|X - Y| - E|X - X'| - E|Y - Y'|    (the energy distance, in scaled units)

    of partners X of rows of one end and rows Y of the other; it is compared with that of random splits of both together
    (a permutation test at the level .01, for each direction). Without held-out rows those of training are used.

    Parameters
    ----------
    run : Run
    potential, reverse : MixturePotential
        Of the plan from base to target, and of its reverse.
    """
    problem = run.problem
    held = problem.target_val is not None
    numbers = (problem.base_val, problem.target_val) if held else (problem.base_train, problem.target_train)
    ends = zip((run.x0, run.x1), numbers, (problem.base_weight, problem.target_weight), strict=True)
    x0, x1 = (x[by_weight(weight, rows, _MOST_ROWS, problem.seed)].cpu().double() for x, rows, weight in ends)
    generator, rng = make_generator(problem.seed, FIT_STREAM + 800), np.random.default_rng([problem.seed, FIT_STREAM])
    potential, reverse = potential.cpu().double(), reverse.cpu().double()
    return _alike(potential.draw(x0, generator), x1, rng) and _alike(reverse.draw(x1, generator), x0, rng)


def _alike(x: torch.Tensor, y: torch.Tensor, rng: np.random.Generator) -> bool:
    rows = np.concatenate([as_array(x, np.float64), as_array(y, np.float64)])
    distances, is_first = cdist(rows, rows), np.arange(len(rows)) < len(x)
    splits = np.stack([is_first, *(rng.permutation(is_first) for _ in range(_SPLITS))], 1).astype(float)
    own, *others = _energy(distances, splits)
    return bool(own <= np.quantile(others, _LEVEL))


def _energy(distances: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """Energy distances of the rows that are 1 in each column from those that are 0, up to their own pairs."""
    rest = 1 - splits
    to_first, to_rest = distances @ splits, distances @ rest
    n, m = splits.sum(0), rest.sum(0)
    within = (splits * to_first).sum(0) / n**2 + (rest * to_rest).sum(0) / m**2
    return 2 * (splits * to_rest).sum(0) / (n * m) - within
