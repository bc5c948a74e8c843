"""Rows of a table with other margins that keep given cells: candidates, of which weights choose."""

import math
from typing import Any

import numpy as np
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from .._utils.frame_names import is_pandas, row_by_name
from .._utils.input_checks import check_count
from .._utils.weights import systematic_rows

__all__ = ["sample_given"]

# Candidates for each row of given: this many times the largest weight, and at the most.
_PER_WEIGHT = 10
_MOST_CANDIDATES = 100
# Candidates of a single row, at the least.
_LEAST_CANDIDATES = 200
# Rows that an error lists.
_FEW = 10


def sample_given(raked: Any, n_samples: int | None, given: Any, seed: int) -> Any:
    """Rows that keep given cells, the others distributed as in a raked table.

    q(x | given) ~ p(x | given) prod_m f_m(x)    by importance resampling (Rubin 1987)

    Parameters
    ----------
    raked : RakedSynthesizer
    n_samples : int or None
    given : frame, array-like, dict or pandas Series
    seed : int
    """
    table = raked.synthesizer.codec_.table_
    given = row_by_name(given, table.names, "given")
    given = table.frame_of(given) if isinstance(given, dict) else given
    k = _num_samples(given)
    n = k if n_samples is None else check_count(n_samples, "n_samples")
    if k == 0:
        raise ValueError("given is empty: leave it out, or give some cells.")
    if k not in (1, n):
        raise ValueError(f"Got n_samples={n}, but given has {k} rows: leave n_samples out.")
    per_row = min(_MOST_CANDIDATES, math.ceil(_PER_WEIGHT * raked.report_.largest_weight))
    rng = np.random.default_rng([seed, 2])
    if k == 1:
        X = raked.synthesizer.sample(max(_LEAST_CANDIDATES, per_row * n), given=given, random_state=seed)
        weight = _checked(raked.weights(X)[None])[0]
        rows = systematic_rows([], weight, n, rng)
    else:
        X = raked.synthesizer.sample(given=_safe_indexing(given, np.repeat(np.arange(k), per_row)), random_state=seed)
        reached = np.cumsum(_checked(raked.weights(X).reshape(k, per_row)), axis=1)
        chosen = (reached <= rng.uniform(size=(k, 1)) * reached[:, -1:]).sum(axis=1)
        rows = np.arange(k) * per_row + np.minimum(chosen, per_row - 1)
    kept = _safe_indexing(X, rows)
    if k > 1 or not is_pandas(kept):
        return kept
    return kept.set_axis(given.index, axis=0) if n == 1 and is_pandas(given) else kept.reset_index(drop=True)


def _checked(weights: np.ndarray) -> np.ndarray:
    """The weights of the candidates of each row, of which some are not zero."""
    lost = np.flatnonzero(weights.max(axis=1) == 0)
    if len(lost):
        raise ValueError(
            f"The totals give all candidates of the rows {lost[:_FEW].tolist()} of given the weight 0: give cells of "
            "which the totals have a share, or draw from the model before it was raked (.synthesizer)."
        )
    return weights
