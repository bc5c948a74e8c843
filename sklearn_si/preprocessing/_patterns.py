"""Which columns are given and which are asked for, and the normal distributions of the latter given the former."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["ABSENT", "ASKED", "GIVEN", "ConditionalNormals", "conditional_normals", "covariance_of"]

# States of a value: it is to be drawn, it is known, or it is neither.
ASKED = 0
GIVEN = 1
ABSENT = 2

# Share of the mean variance that is added to each variance, so that the distribution has a density.
LEAST = 1e-6
# Rounds of expectation and maximisation.
_ROUNDS = 30
# Largest shrinkage of the off-diagonal entries.
_MOST_SHRINKAGE = 0.5
# Shrinkage of the off-diagonal entries where there are as many rows as columns, over one half.
_SHRINKAGE = 0.1


class ConditionalNormals(NamedTuple):
    """For each pattern of states, the normal distribution of what is asked for given what is given.

    v_A | v_B ~ N(G v_B, R R^T),    u = R^-1 (v_A - G v_B) ~ N(0, I)

    Parameters
    ----------
    gain : Tensor (or ndarray) of shape (k, d, d)
        G, zero on columns that are not given.
    root, inverse_root : Tensor (or ndarray) of shape (k, d, d)
        The symmetric R and its inverse, the identity where nothing is asked for.
    log_det : Tensor (or ndarray) of shape (k,)
        log |det R|.
    """

    gain: Any
    root: Any
    inverse_root: Any
    log_det: Any


def conditional_normals(covariances: Tensor, states: Tensor) -> ConditionalNormals:
    """The normal distributions of what is asked for given what is given, for each pattern of states.

    Parameters
    ----------
    covariances : Tensor of shape (k, d, d)
    states : Tensor of int of shape (k, d)
    """
    given, asked = states == GIVEN, states == ASKED
    one = torch.eye(covariances.shape[-1], dtype=covariances.dtype, device=covariances.device)
    both = given[:, :, None] & given[:, None, :]
    known = torch.where(both, covariances, one)
    cross = torch.where(given[:, :, None], covariances, 0.0)
    gain = torch.linalg.solve(known, cross).mT  # zero on columns that are not given
    rest = covariances - gain @ cross
    both = asked[:, :, None] & asked[:, None, :]
    values, axes = torch.linalg.eigh(torch.where(both, rest, one))
    least = LEAST * covariances.diagonal(dim1=-2, dim2=-1).mean()
    values = values.clamp(min=float(least))
    root = (axes * values.sqrt()[:, None, :]) @ axes.mT
    inverse = (axes * values.rsqrt()[:, None, :]) @ axes.mT
    return ConditionalNormals(gain, root, inverse, 0.5 * values.log().sum(1))


def covariance_of(residuals: np.ndarray) -> np.ndarray:
    """The covariance of centred rows with missing values (NaN), shrunk as the number of rows asks.

    By expectation and maximisation: each round fills the missing values by their conditional means and adds the
    conditional covariances (Dempster, Laird & Rubin 1977).
    """
    n = len(residuals)
    absent = np.isnan(residuals)
    filled = np.where(absent, 0.0, residuals)
    covariance = np.diag(np.maximum((filled**2).sum(0) / np.maximum((~absent).sum(0), 1), LEAST))
    if not absent.any():
        return shrunk(filled.T @ filled / n, n)
    patterns, which = np.unique(np.where(absent, ASKED, GIVEN), axis=0, return_inverse=True)
    which = which.reshape(-1)
    counts = np.bincount(which)
    for _ in range(_ROUNDS):
        alike = torch.as_tensor(covariance).expand(len(patterns), *covariance.shape)
        normals = conditional_normals(alike, torch.as_tensor(patterns))
        gain, root = normals.gain.numpy(), normals.root.numpy()
        spread = root @ root * (patterns == ASKED)[:, :, None]
        completed = np.where(absent, np.einsum("nij,nj->ni", gain[which], filled), filled)
        covariance = shrunk((completed.T @ completed + np.einsum("k,kij->ij", counts, spread)) / n, n)
    return covariance


def shrunk(covariance: np.ndarray, n: float) -> np.ndarray:
    """With few rows, off-diagonal entries a little smaller; the diagonal never nil."""
    d, scale = len(covariance), np.sqrt(np.maximum(covariance.diagonal(), LEAST))
    correlation = covariance / np.outer(scale, scale)
    share = min(_MOST_SHRINKAGE, d / (n + d) * _SHRINKAGE)
    correlation = (1 - share) * correlation + share * np.eye(d)
    return correlation * np.outer(scale, scale) + LEAST * scale.mean() ** 2 * np.eye(d)
