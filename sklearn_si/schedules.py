"""Bridges to score-based diffusion: one model with a Gaussian base, read in other conventions."""

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


# The inverse of alpha / beta, where it is elementary and the path has no latent noise.
_TIME_OF_SIGMA = {
    Linear: lambda sigma: 1 / (1 + sigma),
    Trigonometric: _trigonometric_time,
    TrigonometricPreserving: _trigonometric_time,
    VariancePreserving: lambda sigma: 1 / torch.hypot(torch.ones_like(sigma), sigma),
}

# Halvings of [0, 1]: down to t = 1e-14 the root is then exact to its own rounding in float64.
_HALVINGS = 100


def sigma_of_time(interpolant: GaussianBase, t: Tensor) -> Tensor:
    """The noise of an interpolant in units of its signal.

    sigma = alpha / beta,    x_t = beta (x1 + sigma z)    (2303.08797, sec. 3.2; 2206.00364, (1))

    Parameters
    ----------
    interpolant : GaussianBase
        A one-sided interpolant.
    t : Tensor of shape () or (n,)
        Times in [0, 1].

    Returns
    -------
    Tensor of the shape of t
        Infinite where beta vanishes.

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
    """The time at which alpha / beta = sigma, the inverse of `sigma_of_time`.

    t = 1 / (1 + sigma) for the linear path, (2 / pi) atan(1 / sigma) for the trigonometric one,
    1 / sqrt(1 + sigma^2) for "vp"; else by bisection of alpha - sigma beta.

    Parameters
    ----------
    interpolant : GaussianBase
        A one-sided interpolant with falling alpha / beta.
    sigma : Tensor of shape () or (n,)
        Noise levels, from 0 to infinity.

    Returns
    -------
    Tensor of the shape of sigma

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
        # not "alpha > sigma beta": inf * 0 is "later" too, where beta is zero on an interval
        later = ~(interpolant.alpha(middle) <= sigma * interpolant.beta(middle))
        low, high = torch.where(later, middle, low), torch.where(later, high, middle)
    return (low + high) / 2


def vp_time(interpolant: GaussianBase, t: Tensor) -> tuple[Tensor, Tensor]:
    """The time tau of the Ornstein-Uhlenbeck process with the same signal-to-noise ratio, and its scale c.

    y_tau = e^{-tau} x1 + sqrt(1 - e^{-2 tau}) z = c x_t in law (2303.08797, sec. 5.1), so that
    tau = log(1 + sigma^2) / 2 and c = 1 / sqrt(alpha^2 + beta^2).

    Parameters
    ----------
    interpolant : GaussianBase
        A one-sided interpolant.
    t : Tensor of shape () or (n,)
        Times in [0, 1].

    Returns
    -------
    tau, c : Tensor of the shape of t
        Tau is infinite where beta vanishes, and 0 at t = 1.

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
    """The denoiser D that samplers in the EDM convention ask for.

    D(y, sigma) = E[x1 | x1 + sigma z = y] = eta_1(t, beta y),    eta_1 = (alpha b - alpha_dot x) / W

    (2206.00364, (2)-(3); 2303.08797, (4.16)-(4.20)), with numerator and denominator times alpha, which
    keeps both finite at t = 1.

    Parameters
    ----------
    fields : Fields
        The fields of a model with a Gaussian base.

    Returns
    -------
    callable
        D(y, sigma) for y of shape (n, d) and sigma a float or of shape () or (n,); D(y, 0) = y.

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

    s_VE(y; sigma) = beta s(t, beta y) = (D(y, sigma) - y) / sigma^2    (2011.13456, sec. 3.4)

    Parameters
    ----------
    fields : Fields
        The fields of a model with a Gaussian base.

    Returns
    -------
    callable
        s(y, sigma) for y of shape (n, d) and sigma > 0 a float or of shape () or (n,).

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

    s_VP(y; tau) = s(t, y / c) / c, with t and c as in `vp_time`    (2303.08797, sec. 5.1; 2011.13456, sec. 3.4)

    Parameters
    ----------
    fields : Fields
        The fields of a model with a Gaussian base.

    Returns
    -------
    callable
        s(y, tau) for y of shape (n, d) and tau > 0 a float or of shape () or (n,).

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
    """The velocity of another one-sided schedule, from the same fields: no training.

    With (alpha', beta')(t') = c (alpha, beta)(t), that is of equal sigma, x' = c x in law, hence

    b'(t', x') = alpha'_dot eta_z(t, x' / c) + beta'_dot eta_1(t, x' / c)

    (2509.01629: the posterior means of z and x1 do not know the schedule).

    Parameters
    ----------
    fields : Fields
        The fields of a model with a Gaussian base.
    to : GaussianBase
        The other interpolant.

    Returns
    -------
    callable
        b'(t, x) for t of shape () or (n,) and x of shape (n, d). At t = 1 it is infinite if alpha'_dot
        is and alpha_dot is not: there b' needs the score of the target, and b does not contain it.

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
    """Alpha W, and where it is above the rounding of t: it may vanish at t = 1."""
    value = interpolant.alpha_wronskian(t)
    return value, value > torch.finfo(t.dtype).eps / 4


def _target_mean(interpolant: GaussianBase, t: Tensor, x: Tensor, b: Tensor) -> Tensor:
    """eta_1 = E[x1 | x_t] = (alpha^2 b - alpha alpha_dot x) / (alpha W), at t = 1 its limit x."""
    denominator, regular = _denominator(interpolant, t)
    of_b = torch.where(regular, interpolant.alpha(t) ** 2 / denominator, torch.zeros_like(t))
    of_x = torch.where(regular, -interpolant.alpha_alpha_dot(t) / denominator, 1 / interpolant.beta(t))
    return column(of_b, x) * b + column(of_x, x) * x


def _score(interpolant: GaussianBase, t: Tensor, x: Tensor, b: Tensor) -> Tensor:
    """S = (beta b - beta_dot x) / (alpha W)."""
    return (column(interpolant.beta(t), x) * b - column(interpolant.beta_dot(t), x) * x) / column(
        interpolant.alpha_wronskian(t), x
    )


def _require_gaussian_base(interpolant: Interpolant) -> GaussianBase:
    if not isinstance(interpolant, GaussianBase):
        raise TypeError(
            f"Got the {interpolant.path_type} interpolant {type(interpolant).__name__}, but expected a Gaussian base, "
            "whose one field gives the others: fit one sample, or use GaussianBase(path)."
        )
    return interpolant


def _require_falling(interpolant: GaussianBase) -> None:
    grid = torch.linspace(0, 1, 201, dtype=torch.float64)
    alpha, beta = interpolant.alpha(grid), interpolant.beta(grid)
    # alpha / beta at neighbours, without the division by beta(0) = 0
    if (alpha[:-1] * beta[1:] < alpha[1:] * beta[:-1]).any():
        raise ValueError(
            f"alpha / beta of {type(interpolant.path).__name__} does not fall everywhere, so a noise level has more "
            "than one time: lower gamma_scale."
        )
