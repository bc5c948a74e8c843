"""Questions about any columns given any others, to a model that was trained under masks."""

from typing import Any

import numpy as np
import torch

from .._utils.tensors import as_array, blocks
from ..networks._masked import MaskedVelocity
from ..preprocessing import AffineMap
from ..preprocessing._masked import MaskedMap, told, whitened
from ..preprocessing._patterns import ABSENT, ASKED, GIVEN
from .densities import log_density
from .fitted import FittedModel
from .settings import Evaluation, Sampling
from .units import returned

# The time of the target.
_END = torch.ones((), dtype=torch.float64)
# Rows that are drawn at a time: each has a matrix of its own.
_ROWS_PER_BLOCK = 4096


class _Told:
    """A condition that is encoded already."""

    droppable = False

    def transform(self, condition: np.ndarray, n_rows: int) -> np.ndarray:
        """The condition itself, a row for each."""
        return condition


def conditional_log_density(
    model: FittedModel, X: np.ndarray, states: np.ndarray, evaluation: Evaluation, condition: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Log p(x_A | x_B) of the ODE model at rows, and its stated error.

    log p(x_A | x_B) = log p(u | told) - log |det R| + sum_{j in A} log g_j'(x_j)    (`MaskedMap`)

    with log p(u | told) by the change of variables along the ODE of the columns A alone (2303.08797, (2.53)). Given
    cells that are far outside those of fit tell what the nearest cell that is not tells (`MaskedMap.bounded`).

    Parameters
    ----------
    model : FittedModel
        One with a `masked_map`.
    X : ndarray of shape (n, d)
        In data units; cells of absent columns do not count.
    states : ndarray of int of shape (d,)
        ASKED for the columns A, GIVEN for B, ABSENT for the others, which are integrated out.
    evaluation : Evaluation
    condition : array-like or None
        The user's own.

    Returns
    -------
    log_density, error : ndarray of shape (n,)
        In nats.
    """
    (columns, field), pattern = _masked(model), torch.as_tensor(states)[None]
    X = np.where(states == ABSENT, _centre(columns), X).astype(X.dtype, copy=False)
    asked = np.flatnonzero(states == ASKED)
    V = columns.transform(X)
    v, normals = torch.as_tensor(np.where(states == GIVEN, columns.bounded(V), V)), columns.normals(pattern)
    u = whitened(v[None], normals, pattern)[0][:, asked].numpy()
    part = _part(model, field.restricted(torch.as_tensor(asked)), len(asked))
    encoded = _joined(as_array(told(v, pattern), np.float64), _own(model, condition, len(X)))
    value, error = log_density(part, u.astype(X.dtype), _END, evaluation, encoded)
    with np.errstate(over="ignore", invalid="ignore"):
        slopes = columns.log_slopes(X)[:, asked].sum(1) - float(normals.log_det[0])
    return (value + slopes).astype(X.dtype), error


def complete(
    model: FittedModel, X: np.ndarray, sampling: Sampling, generator: torch.Generator, condition: Any = None
) -> np.ndarray:
    """Rows whose missing cells (NaN) are drawn given the others, each row by itself.

    v_A = G v_B + R u,    u by the ODE or SDE of the columns A, of each row its own

    Parameters
    ----------
    model, condition
        As in `conditional_log_density`.
    X : ndarray of shape (n, d)
        In data units.
    sampling : Sampling
    generator : torch.Generator
    """
    missing = np.isnan(X)
    filled, encoded = np.where(missing, _centre(_masked(model)[0]), X), _own(model, condition, len(X))
    drawn = np.empty(X.shape, np.result_type(X, model.dtype))
    for rows in blocks(len(X), _ROWS_PER_BLOCK):
        own = None if encoded is None else encoded[rows]
        drawn[rows] = _completed(model, filled[rows], missing[rows], sampling, generator, own)
    return np.where(missing, drawn, X)


def _completed(
    model: FittedModel,
    filled: np.ndarray,
    missing: np.ndarray,
    sampling: Sampling,
    generator: torch.Generator,
    own: np.ndarray | None,
) -> np.ndarray:
    """Filled rows whose missing cells are drawn."""
    columns, field = _masked(model)
    states = np.where(missing, ASKED, GIVEN)
    patterns, numbers = np.unique(states, axis=0, return_inverse=True)
    normals, which = columns.normals(torch.as_tensor(patterns)), torch.as_tensor(numbers.reshape(-1))
    asked, v = torch.as_tensor(missing), torch.as_tensor(columns.bounded(columns.transform(filled)))
    encoded = _joined(as_array(told(v, torch.as_tensor(states)), np.float64), own)
    part = _part(model, field, columns.n_features)
    u = torch.as_tensor(part.sample(len(v), sampling, generator, encoded).astype(np.float64))
    known, u = torch.where(asked, 0.0, v), torch.where(asked, u, 0.0)
    drawn = (normals.gain[which] @ known[..., None] + normals.root[which] @ u[..., None])[..., 0]
    X = columns.inverse_transform(torch.where(asked, drawn, v).numpy())
    return returned(X, np.result_type(filled, model.dtype), model.support, model.target_grid)


def _centre(columns: MaskedMap) -> np.ndarray:
    """A row in the middle, for cells that do not count."""
    return columns.inverse_transform(np.zeros((1, columns.n_features)))[0]


def _masked(model: FittedModel) -> tuple[MaskedMap, MaskedVelocity]:
    """The map and the field of a model that was trained under masks."""
    field = model.learned["masked"]
    assert model.masked_map is not None  # the estimator has asked
    assert isinstance(field, MaskedVelocity)
    return model.masked_map, field


def _own(model: FittedModel, condition: Any, n: int) -> np.ndarray | None:
    """The user's condition, encoded."""
    own = model.encoded(condition, n, torch.float64, torch.device("cpu"))
    return None if own is None else own.numpy()


def _joined(known: np.ndarray, own: np.ndarray | None) -> np.ndarray:
    return known if own is None else np.concatenate([known, own], 1)


def _part(model: FittedModel, field: Any, n_features: int) -> FittedModel:
    """A model of u, with what is told as its condition."""
    # what was measured or distilled for whole rows is left out
    return FittedModel(
        interpolant=model.interpolant,
        learned={},
        velocity=field,
        denoiser=None,
        base_map=None,
        target_map=AffineMap(np.zeros(n_features), np.ones(n_features)),
        condition_codec=_Told(),
        dtype=model.dtype,
        seed=model.seed,
        activation=model.activation,
    )
