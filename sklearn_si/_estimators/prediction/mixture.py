"""Questions to a mixture of maps: distribution functions, densities, quantiles by the maps or by root finding."""

import numpy as np
from scipy.special import log_ndtr, logsumexp, ndtri, ndtri_exp
from scipy.stats import norm, qmc

from ..._utils.tensors import blocks

# Rounds of root finding for a quantile of a mixture.
_ROUNDS = 7
# Base nodes of a mean of one output: equally spaced, so that a jump of the map (between two humps of y) shifts the mean
# by no more than a fiftieth of it; Gauss-Hermite nodes are a third of a deviation apart or more.
_NODES = 128
# The outermost of them, in standard deviations of the base.
_REACH = 6.0
# Base nodes of several outputs, of a scrambled Sobol sequence.
_JOINT_NODES = 128
_SOBOL_SEED = 0
# Points that are moved together.
_POINTS = 2**16


def base_nodes(n_outputs):
    """Points of the standard normal that stand for it, the same for every row, of shape (n_nodes, n_outputs); weights.

    E f(z) = sum_k w_k f(z_k)
    """
    if n_outputs == 1:
        nodes = np.linspace(-_REACH, _REACH, _NODES)
        weights = norm.pdf(nodes)
        return nodes[:, None], weights / weights.sum()
    sobol = qmc.Sobol(n_outputs, scramble=True, seed=_SOBOL_SEED)
    nodes = ndtri(np.clip(sobol.random(_JOINT_NODES), 1e-9, 1 - 1e-9))
    return nodes, np.full(_JOINT_NODES, 1 / _JOINT_NODES)


def at_nodes(maps, codes, nodes, device):
    """Targets at base nodes, of all maps: of shape (n_rows, n_maps * n_nodes, n_outputs).

    Parameters
    ----------
    maps : list of (Member, callable)
        Each member with that method of it, `at_base` or `from_normal`, which moves the nodes.
    """
    step = max(1, _POINTS // len(nodes))
    return np.concatenate([
        np.hstack([_spread(member, move, codes[rows], nodes, device) for member, move in maps])
        for rows in blocks(len(codes), step)
    ])  # fmt: skip


def _spread(member, move, codes, nodes, device):
    n, (k, d) = len(codes), nodes.shape
    given = member.given(codes).repeated(k)
    return move(given, np.tile(nodes, (n, 1)), device).reshape(n, k, d)


def masses(members, codes, edges, device):
    """Probabilities of the cells between successive edges, of one output, of shape (n_rows, n_edges + 1)."""
    return np.concatenate([
        _masses(members, codes[rows], edges, device) for rows in blocks(len(codes), max(1, _POINTS // len(edges)))
    ])  # fmt: skip


def _masses(members, codes, edges, device):
    given = [member.given(codes).repeated(len(edges)) for member in members]
    below = np.exp(_log_cdf(members, given, np.tile(edges, len(codes)), device)).reshape(len(codes), -1)
    # neighbours may differ by the error of the solver
    mass = np.diff(below, prepend=0.0, append=1.0, axis=1).clip(min=0.0)
    return mass / mass.sum(1, keepdims=True)


def log_density(members, codes, Y, device):
    """Log p(y | x) of the mixture."""
    values = [member.log_density(member.given(codes), Y, device) for member in members]
    return logsumexp(values, axis=0) - np.log(len(members))


def log_cdf(members, codes, y, device, upper=False):
    """Log P(Y <= y | x) of one output, or log P(Y > y | x); y = -inf and inf are allowed."""
    known = np.isfinite(y)
    value = np.where((y > 0) == upper, -np.inf, 0.0)
    if known.any():
        value[known] = _log_cdf(members, [m.given(codes[known]) for m in members], y[known], device, upper)
    return value


def _log_cdf(members, given, y, device, upper=False):
    z = [member.to_normal(own, y[:, None], device)[:, 0] for member, own in zip(members, given, strict=True)]
    return logsumexp(log_ndtr(-np.array(z) if upper else np.array(z)), axis=0) - np.log(len(members))


def log_mass(members, codes, low, high, device):
    """Log P(low < Y <= high | x) of one output, by the tail that loses fewer digits."""
    below = log_cdf(members, codes, high, device), log_cdf(members, codes, low, device)
    above = log_cdf(members, codes, low, device, True), log_cdf(members, codes, high, device, True)
    with np.errstate(divide="ignore"):
        return np.where(below[0] < np.log(0.5), _log_difference(*below), _log_difference(*above))


def _log_difference(a, b):
    """log(exp(a) - exp(b)), where a >= b up to rounding."""
    return a + np.log1p(-np.exp(np.minimum(b - a, 0.0)))


def quantiles(members, codes, levels, device):
    """Quantiles of one output, of shape (n_rows, n_levels): by the map of one member, by root finding for several."""
    order = np.argsort(levels)
    nodes = norm.ppf(np.asarray(levels)[order])[:, None]
    found = np.stack([at_nodes([(m, m.from_normal)], codes, nodes, device)[..., 0] for m in members])
    value = found[0] if len(members) == 1 else _between(members, codes, np.asarray(levels)[order], found, device)
    rising = np.empty(value.shape)
    rising[:, order] = np.maximum.accumulate(value, axis=1)  # neighbours may differ by the error of the solver
    return rising


def _between(members, codes, levels, found, device):
    """The quantiles of a mixture, which lie between those of its members: by regula falsi in normal scores.

    Of the root of Phi^-1(F(y)) = Phi^-1(u), whose left side is nearly linear in y; the Illinois rule halves the value
    of an end that was kept twice.
    """
    n, k = found.shape[1:]
    low, high = found.min(0).ravel(), found.max(0).ravel()
    target = np.tile(ndtri(levels), n)
    given = [member.given(codes).repeated(k) for member in members]

    def above(y):
        return ndtri_exp(_log_cdf(members, given, y, device)) - target

    ends, kept = [np.minimum(above(low), 0.0), np.maximum(above(high), 0.0)], np.zeros(n * k)
    y = (low + high) / 2
    for _ in range(_ROUNDS):
        width = ends[1] - ends[0]
        y = np.where(width > 0, (low * ends[1] - high * ends[0]) / np.where(width > 0, width, 1.0), low)
        value = above(y)
        left = value < 0
        ends[0] = np.where(left, value, np.where(kept > 0, ends[0] / 2, ends[0]))
        ends[1] = np.where(left, np.where(kept < 0, ends[1] / 2, ends[1]), value)
        low, high, kept = np.where(left, y, low), np.where(left, high, y), np.where(left, -1.0, 1.0)
    return y.reshape(n, k)
