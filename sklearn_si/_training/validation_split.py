"""Which rows a network is trained on and which rows it is validated on."""

import numpy as np

from .._utils.tensors import FIT_STREAM

# Validation rows at the least, where this is not more than a fifth of the rows.
_LEAST_VALIDATION_ROWS = 50

# Rows on which a round is validated.
VALIDATION_ROWS = 256
# Rows on which a round of a short fit is validated.
_FEW_VALIDATION_ROWS = 64
# Cells of validation rows for each second of `max_time`: the cost of a divergence grows with the columns.
_CELLS_A_SECOND = 1000
# Fewest validation rows of wide tables.
_FEWEST_VALIDATION_ROWS = 16
# Seconds of `max_time` below which a fit is short.
_SHORT = 10.0

# Numbers of the training rows and of the validation rows (None without a fraction).
Split = tuple[np.ndarray, np.ndarray | None]


def split_rows(n: int, fraction: float | None, rng: np.random.Generator) -> Split:
    """Numbers of the training rows and of the validation rows, drawn at random; without a fraction all train.

    Parameters
    ----------
    n : int
        Number of rows.
    fraction : float or None
        Share of the rows that are held out.
    rng : numpy Generator
    """
    if fraction is None:
        return np.arange(n), None
    order, n_val = rng.permutation(n), n_held_out(n, fraction)
    return order[n_val:], order[:n_val]


def n_held_out(n, fraction):
    """Number of validation rows of n rows: a share of them, of few rows at least a fifth, and never all but one."""
    # a score of few rows is mostly noise
    return min(n - 2, max(1, round(fraction * n), min(_LEAST_VALIDATION_ROWS, n // 5)))


def most_validation_rows(max_time, n_features):
    """The largest number of rows on which a round is validated; a limit of time leaves few of a short or wide fit.

    Parameters
    ----------
    max_time : float or None
        Seconds of the fit.
    n_features : int
    """
    if max_time is None:
        return VALIDATION_ROWS
    affordable = int(_CELLS_A_SECOND * max_time / n_features)
    return min(_FEW_VALIDATION_ROWS if max_time < _SHORT else VALIDATION_ROWS, max(_FEWEST_VALIDATION_ROWS, affordable))


def split_samples(recipe, coupling, base, target, seed):
    """Numbers of the training rows of base and target, and of their validation rows."""
    rng = np.random.default_rng([seed, FIT_STREAM])
    # A sample of two rows has none to spare: one row has no spread.
    enough = min(len(sample) for sample in (base, target) if sample is not None) > 2
    fraction = recipe.validation_fraction if recipe.early_stopping and enough else None
    target_train, target_val = recipe.split(len(target), fraction, rng)
    if base is None:
        base_train = base_val = None
    elif coupling.row_by_row:
        base_train, base_val = target_train, target_val
    else:
        base_train, base_val = split_rows(len(base), fraction, rng)
    return base_train, target_train, base_val, target_val
