"""Eigenvalues of a covariance of many columns, corrected for what few rows do to them."""

import numpy as np

# Largest eigenvalue over the least, beyond which it is rounding.
_CONDITION = 1e10
# Half the width of the kernel, in units of its bandwidth.
_HALF_WIDTH = 5**0.5
# Eigenvalues at which the density of all is estimated at a time.
_BLOCK = 256


def shrunk_eigenvalues(values: np.ndarray, n_rows: float) -> np.ndarray | None:
    """The variances to expect of new rows along the axes of a sample's covariance.

    d_i = l_i / ((pi c l_i f(l_i))^2 + (1 - c - pi c l_i Hf(l_i))^2),    c = n_features / n_rows

    with f a kernel estimate of the density of the sample's eigenvalues l and Hf its Hilbert transform (Ledoit & Wolf
    2020, "Analytical nonlinear shrinkage of large-dimensional covariance matrices", Annals of Statistics 48, (4.1) to
    (4.7)). The largest sample eigenvalues are too large, and the least ones too small, by a factor that grows with c.

    Parameters
    ----------
    values : ndarray of shape (n_features,)
        Eigenvalues of the sample's covariance, in rising order.
    n_rows : float
        The number of (equal) rows, not near n_features.

    Returns
    -------
    ndarray of shape (n_features,), or None
        None where rows or columns depend on each other linearly, or where there are no more than eleven rows: the
        kernels then reach beyond zero, and the estimate does not hold.
    """
    d, width = len(values), n_rows ** (-1 / 3)
    # the rest belongs to axes along which no row differs from the mean
    own = values[max(0, d - int(n_rows)) :]
    if own[0] < own[-1] / _CONDITION or _HALF_WIDTH * width >= 1:
        return None
    density, transform = _kernel_estimates(own, width)
    if d <= n_rows:
        c = d / n_rows
        return own / ((np.pi * c * own * density) ** 2 + (1 - c - np.pi * c * own * transform) ** 2)
    s = _HALF_WIDTH
    logarithm = np.log((1 + s * width) / (1 - s * width))
    at_zero = (3 / (10 * width**2) + 3 / (4 * s * width) * (1 - 1 / (5 * width**2)) * logarithm) / np.pi
    null = 1 / (np.pi * (d - len(own)) / len(own) * at_zero * np.mean(1 / own))
    found = own / (np.pi**2 * own**2 * (density**2 + transform**2))
    return np.concatenate([np.full(d - len(own), null), found])


def _kernel_estimates(values: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """The density of eigenvalues at each of them by kernels of Epanechnikov, and its Hilbert transform."""
    parts = [_at(block, values, width) for block in np.array_split(values, -(-len(values) // _BLOCK))]
    density, transform = (np.concatenate(part) for part in zip(*parts, strict=True))
    return density, transform


def _at(points: np.ndarray, values: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    bandwidth, s = width * values, _HALF_WIDTH
    x = (points[:, None] - values) / bandwidth
    kernel = 3 / (4 * s) * np.maximum(1 - x**2 / 5, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        curved = (1 - x**2 / 5) * np.log(np.abs((s - x) / (s + x)))
    hilbert = -3 / (10 * np.pi) * x + 3 / (4 * s * np.pi) * np.where(np.abs(x) == s, 0.0, curved)
    return (kernel / bandwidth).mean(1), (hilbert / bandwidth).mean(1)
