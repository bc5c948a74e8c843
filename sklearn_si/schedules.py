"""Conversions of a model with a standard normal base to other schedules and to the conventions of diffusion models."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ._model.fields import Fields
from ._utils.tensors import column
from .interpolants import (
    GaussianBase,
    Interpolant,
    Linear,
    Trigonometric,
    TrigonometricPreserving,
    VariancePreserving,
)

__all__ = [
    "convert_velocity",
    "edm_denoiser",
    "sigma_of_time",
    "time_of_sigma",
    "ve_score",
    "vp_score",
    "vp_time",
]


def _trigonometric_time(sigma: Tensor) -> Tensor:
    return 2 / math.pi * torch.atan2(torch.ones_like(sigma), sigma)


# The inverse of alpha / beta for paths without latent noise, where it has a closed form.
_TIME_OF_SIGMA = {
    Linear: lambda sigma: 1 / (1 + sigma),
    Trigonometric: _trigonometric_time,
    TrigonometricPreserving: _trigonometric_time,
    VariancePreserving: lambda sigma: 1 / torch.hypot(torch.ones_like(sigma), sigma),
}

# Number of times that [0, 1] is halved: every root above 1e-14 is then exact up to its rounding in float64.
_HALVINGS = 100


def sigma_of_time(interpolant: GaussianBase, t: Tensor) -> Tensor:
    """The ratio of noise to signal of an interpolant at given times.

    sigma = alpha / beta,    x_t = beta (x1 + sigma z)

    (arXiv 2303.08797, section 3.2; arXiv 2206.00364, equation (1))

    Parameters
    ----------
    interpolant : GaussianBase
        A one-sided interpolant.
    t : Tensor of shape () or (n,)
        Times in [0, 1].

    Returns
    -------
    sigma : Tensor of the shape of t
        In scaled units; infinite where beta is 0.

    Raises
    ------
    TypeError
        When the interpolant has no standard normal base.

    Examples
    --------
    >>> import torch
    >>> from sklearn_si.interpolants import GaussianBase, Linear
    >>> from sklearn_si.schedules import sigma_of_time
    >>> sigma_of_time(GaussianBase(Linear()), torch.tensor([0.0, 0.2, 1.0]))
    tensor([inf, 4., 0.])
    """
    _require_gaussian_base(interpolant)
    return interpolant.alpha(t) / interpolant.beta(t)


def time_of_sigma(interpolant: GaussianBase, sigma: Tensor) -> Tensor:
    """The time at which an interpolant has a given ratio of noise to signal: the inverse of `sigma_of_time`.

    alpha(t) / beta(t) = sigma

    (arXiv 2303.08797, section 3.2). The time is 1 / (1 + sigma) for the linear path, (2 / pi) atan(1 / sigma) for the
    trigonometric one, and 1 / sqrt(1 + sigma^2) for "vp". For other paths it is found by bisection.

    Parameters
    ----------
    interpolant : GaussianBase
        A one-sided interpolant whose alpha / beta decreases.
    sigma : Tensor of shape () or (n,)
        Noise levels from 0 to infinity, in scaled units.

    Returns
    -------
    t : Tensor of the shape of sigma

    Raises
    ------
    TypeError
        When the interpolant has no standard normal base.
    ValueError
        When alpha / beta does not decrease.

    Examples
    --------
    >>> import torch
    >>> from sklearn_si.interpolants import GaussianBase, Linear
    >>> from sklearn_si.schedules import time_of_sigma
    >>> time_of_sigma(GaussianBase(Linear()), torch.tensor([torch.inf, 4.0, 0.0]))
    tensor([0.0000, 0.2000, 1.0000])
    """
    _require_gaussian_base(interpolant)
    path = interpolant.path
    if type(path) in _TIME_OF_SIGMA and not path.has_noise:
        return _TIME_OF_SIGMA[type(path)](sigma)
    _require_falling(interpolant)
    low, high = torch.zeros_like(sigma), torch.ones_like(sigma)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        # The negation counts inf * 0 = nan as "later", for a beta that is zero on an interval.
        later = ~(interpolant.alpha(middle) <= sigma * interpolant.beta(middle))
        low, high = torch.where(later, middle, low), torch.where(later, high, middle)
    return (low + high) / 2


def vp_time(interpolant: GaussianBase, t: Tensor) -> tuple[Tensor, Tensor]:
    """The time and the scale of the variance-preserving process with the same signal-to-noise ratio.

    tau = log(1 + sigma^2) / 2,    c = 1 / sqrt(alpha^2 + beta^2)

    (arXiv 2303.08797, section 5.1), so that y_tau = e^{-tau} x1 + sqrt(1 - e^{-2 tau}) z, which is an
    Ornstein-Uhlenbeck process, has the distribution of c x_t.

    Parameters
    ----------
    interpolant : GaussianBase
        A one-sided interpolant.
    t : Tensor of shape () or (n,)
        Times in [0, 1].

    Returns
    -------
    tau, c : Tensor of the shape of t
        Time and scale. The time is infinite where beta is 0, and 0 at t = 1.

    Raises
    ------
    TypeError
        When the interpolant has no standard normal base.

    Examples
    --------
    >>> import torch
    >>> from sklearn_si.interpolants import GaussianBase, Linear
    >>> from sklearn_si.schedules import vp_time
    >>> vp_time(GaussianBase(Linear()), torch.tensor(0.5))
    (tensor(0.3466), tensor(1.4142))
    """
    tau = torch.log1p(sigma_of_time(interpolant, t) ** 2) / 2
    return tau, 1 / torch.hypot(interpolant.alpha(t), interpolant.beta(t))


def edm_denoiser(fields: Fields) -> Callable[[Tensor, Tensor], Tensor]:
    """The denoiser D in the convention of EDM, for samplers that expect it.

    D(y, sigma) = E[x1 | x1 + sigma z = y] = eta_1(t, beta y),    eta_1 = (alpha b - alpha_dot x) / W

    (arXiv 2206.00364, equations (2) and (3); arXiv 2303.08797, equations (4.16) to (4.20)), with the Wronskian
    W = alpha beta_dot - beta alpha_dot. Numerator and denominator are multiplied by alpha, so that both are finite at
    t = 1.

    Parameters
    ----------
    fields : Fields
        The fields of a model with a standard normal base, in scaled units.

    Returns
    -------
    denoiser : callable
        D(y, sigma) for y of shape (n, d) and sigma a float or a tensor of shape () or (n,); D(y, 0) = y.

    Raises
    ------
    TypeError
        When the model has no standard normal base.

    Examples
    --------
    >>> import torch
    >>> from sklearn_si._model.fields import Fields
    >>> from sklearn_si.interpolants import GaussianBase, Linear
    >>> from sklearn_si.schedules import edm_denoiser
    >>> def normal_target(t, x, condition=None):
    ...     return (2 * t - 1) / (t**2 + (1 - t) ** 2) * x
    >>> denoise = edm_denoiser(Fields(GaussianBase(Linear()), normal_target))
    >>> denoise(torch.tensor([[2.0, 4.0]]), 1.0)
    tensor([[1., 2.]])
    """
    interpolant = _require_gaussian_base(fields.interpolant)

    def denoise(y: Tensor, sigma: Tensor) -> Tensor:
        t = time_of_sigma(interpolant, _like(sigma, y))
        x = column(interpolant.beta(t), y) * y
        return _target_mean(interpolant, t, x, fields.velocity(t, x))

    return denoise


def ve_score(fields: Fields) -> Callable[[Tensor, Tensor], Tensor]:
    """The score function of the variance-exploding process y = x1 + sigma z.

    s_VE(y; sigma) = beta s(t, beta y) = (D(y, sigma) - y) / sigma^2    (arXiv 2011.13456, section 3.4)

    Parameters
    ----------
    fields : Fields
        The fields of a model with a standard normal base, in scaled units.

    Returns
    -------
    score : callable
        s(y, sigma) for y of shape (n, d) and sigma > 0, a float or a tensor of shape () or (n,).

    Raises
    ------
    TypeError
        When the model has no standard normal base.

    Examples
    --------
    >>> import torch
    >>> from sklearn_si._model.fields import Fields
    >>> from sklearn_si.interpolants import GaussianBase, Linear
    >>> from sklearn_si.schedules import ve_score
    >>> def normal_target(t, x, condition=None):
    ...     return (2 * t - 1) / (t**2 + (1 - t) ** 2) * x
    >>> ve_score(Fields(GaussianBase(Linear()), normal_target))(torch.tensor([[2.0, 4.0]]), 1.0)
    tensor([[-1., -2.]])
    """
    interpolant = _require_gaussian_base(fields.interpolant)

    def score(y: Tensor, sigma: Tensor) -> Tensor:
        t = time_of_sigma(interpolant, _like(sigma, y))
        beta = column(interpolant.beta(t), y)
        return beta * _score(interpolant, t, beta * y, fields.velocity(t, beta * y))

    return score


def vp_score(fields: Fields) -> Callable[[Tensor, Tensor], Tensor]:
    """The score function of the variance-preserving process y = e^{-tau} x1 + sqrt(1 - e^{-2 tau}) z.

    s_VP(y; tau) = s(t, y / c) / c,    with t and c as in `vp_time`

    (arXiv 2303.08797, section 5.1; arXiv 2011.13456, section 3.4)

    Parameters
    ----------
    fields : Fields
        The fields of a model with a standard normal base, in scaled units.

    Returns
    -------
    score : callable
        s(y, tau) for y of shape (n, d) and tau > 0, a float or a tensor of shape () or (n,).

    Raises
    ------
    TypeError
        When the model has no standard normal base.

    Examples
    --------
    >>> import torch
    >>> from sklearn_si._model.fields import Fields
    >>> from sklearn_si.interpolants import GaussianBase, Linear
    >>> from sklearn_si.schedules import vp_score
    >>> def normal_target(t, x, condition=None):
    ...     return (2 * t - 1) / (t**2 + (1 - t) ** 2) * x
    >>> score = vp_score(Fields(GaussianBase(Linear()), normal_target))
    >>> score(torch.tensor([[2.0, 4.0]]), 0.5).round(decimals=3)
    tensor([[-2., -4.]])
    """
    interpolant = _require_gaussian_base(fields.interpolant)

    def score(y: Tensor, tau: Tensor | float) -> Tensor:
        t = time_of_sigma(interpolant, torch.sqrt(torch.expm1(2 * _like(tau, y))))
        c = column(vp_time(interpolant, t)[1], y)
        return _score(interpolant, t, y / c, fields.velocity(t, y / c)) / c

    return score


def convert_velocity(fields: Fields, to: GaussianBase) -> Callable[[Tensor, Tensor], Tensor]:
    """The velocity for another one-sided schedule, from the fields of a model and without training.

    b'(t', x') = alpha'_dot eta_z(t, x' / c) + beta'_dot eta_1(t, x' / c)

    (arXiv 2509.01629), where (alpha', beta') at time t' is c times (alpha, beta) at time t, so that both have the same
    sigma, and x' has the distribution of c x. The posterior means eta_z of z and eta_1 of x1 do not depend on the
    schedule.

    Parameters
    ----------
    fields : Fields
        The fields of a model with a standard normal base, in scaled units.
    to : GaussianBase
        The other interpolant.

    Returns
    -------
    velocity : callable
        b'(t, x) for t of shape () or (n,) and x of shape (n, d). At t = 1 it is infinite if alpha'_dot is infinite and
        alpha_dot is finite, because b' contains the score of the target there, which b does not determine.

    Raises
    ------
    TypeError
        When one of the interpolants has no standard normal base.

    Examples
    --------
    >>> import torch
    >>> from sklearn_si._model.fields import Fields
    >>> from sklearn_si.interpolants import GaussianBase, Linear, Trigonometric
    >>> from sklearn_si.schedules import convert_velocity
    >>> def normal_target(t, x, condition=None):
    ...     return (2 * t - 1) / (t**2 + (1 - t) ** 2) * x
    >>> fields = Fields(GaussianBase(Linear()), normal_target)
    >>> convert_velocity(fields, GaussianBase(Trigonometric()))(torch.tensor(0.5), torch.tensor([[2.0, 4.0]]))
    tensor([[0., 0.]])
    """
    interpolant = _require_gaussian_base(fields.interpolant)
    _require_gaussian_base(to)

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        other, t = t, time_of_sigma(interpolant, sigma_of_time(to, t))
        c = torch.hypot(to.alpha(other), to.beta(other)) / torch.hypot(interpolant.alpha(t), interpolant.beta(t))
        x = x / column(c, x)
        b = fields.velocity(t, x)
        # alpha'_dot eta_z = (alpha'_dot / W)(beta_dot x - beta b), and alpha' = c alpha
        denominator, regular = _denominator(interpolant, t)
        rate = torch.where(
            regular,
            to.alpha_alpha_dot(other) / (c * denominator),
            to.alpha_dot(other) * interpolant.inverse_wronskian(t),
        )
        noise = column(interpolant.beta_dot(t), x) * x - column(interpolant.beta(t), x) * b
        return column(rate, x) * noise + column(to.beta_dot(other), x) * _target_mean(interpolant, t, x, b)

    return velocity


def _like(value: Tensor | float, x: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=x.dtype, device=x.device)


def _denominator(interpolant: GaussianBase, t: Tensor) -> tuple[Tensor, Tensor]:
    """The product alpha W, and where it exceeds the rounding of t; it may be 0 at t = 1."""
    value = interpolant.alpha_wronskian(t)
    return value, value > torch.finfo(t.dtype).eps / 4


def _target_mean(interpolant: GaussianBase, t: Tensor, x: Tensor, b: Tensor) -> Tensor:
    """The mean target eta_1 = E[x1 | x_t] = (alpha^2 b - alpha alpha_dot x) / (alpha W), or its limit x at t = 1."""
    denominator, regular = _denominator(interpolant, t)
    of_b = torch.where(regular, interpolant.alpha(t) ** 2 / denominator, torch.zeros_like(t))
    of_x = torch.where(regular, -interpolant.alpha_alpha_dot(t) / denominator, 1 / interpolant.beta(t))
    return column(of_b, x) * b + column(of_x, x) * x


def _score(interpolant: GaussianBase, t: Tensor, x: Tensor, b: Tensor) -> Tensor:
    """The score s = (beta b - beta_dot x) / (alpha W)."""
    return (column(interpolant.beta(t), x) * b - column(interpolant.beta_dot(t), x) * x) / column(
        interpolant.alpha_wronskian(t), x
    )


def _require_gaussian_base(interpolant: Interpolant) -> GaussianBase:
    if not isinstance(interpolant, GaussianBase):
        raise TypeError(
            f"Got the {interpolant.path_type} interpolant {type(interpolant).__name__}, but expected one with a "
            "standard normal base, whose velocity determines the other fields: fit one sample, or use "
            "GaussianBase(path)."
        )
    return interpolant


def _require_falling(interpolant: GaussianBase) -> None:
    grid = torch.linspace(0, 1, 201, dtype=torch.float64)
    alpha, beta = interpolant.alpha(grid), interpolant.beta(grid)
    # This compares alpha / beta at neighbouring times, without a division by beta(0) = 0.
    if (alpha[:-1] * beta[1:] < alpha[1:] * beta[:-1]).any():
        raise ValueError(
            f"alpha / beta of {type(interpolant.path).__name__} does not decrease everywhere, so a noise level has "
            "more than one time: lower gamma_scale."
        )
