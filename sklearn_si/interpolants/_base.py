"""The base class of all interpolants: alpha, beta, gamma and what follows from them."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .._utils.process import forward_tangents
from .._utils.tensors import column
from ._gammas import GAMMAS, Gamma

# The variance of the base or of the target: one of each feature, or one for all.
Ends = Tensor | float

# Below this latent noise (in scaled units, data of variance one) the output of the network is scaled like a score,
# above it like a denoiser. It keeps the scale of the residual bounded where gamma_dot is not.
NOISE_FLOOR = 0.05


def _derivative(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    with forward_tangents():
        return torch.func.jvp(function, (t,), (torch.ones_like(t),))[1]


class Interpolant:
    """A stochastic interpolant: a random path from a row x0 of the base to a row x1 of the target.

    x_t = I(t, x0, x1) + gamma(t) z,    I = alpha(t) x0 + beta(t) x1,    z ~ N(0, 1)

    (arXiv 2303.08797, Definition 2.1 and section 4), for times t from 0 to 1. The path is linear in space unless `mean`
    is overridden. To define an interpolant of your own, write a subclass with `alpha` and `beta` (or with `mean`, for
    an I that is not linear in space), and with `gamma` if it is not in `GAMMAS`. Derivatives are taken by
    `torch.func.jvp`; override them where a closed form is cheaper or where autograd is singular.

    Parameters
    ----------
    gamma : Gamma, str or None, default=None
        The latent noise, in scaled units; a name is looked up in `GAMMAS`. None is for no latent noise.
    gamma_scale : float, default=1.0
        The factor of gamma(t)^2.

    Examples
    --------
    >>> import torch
    >>> from sklearn_si.interpolants import Linear
    >>> Linear(gamma="brownian").gamma(torch.tensor(0.5))
    tensor(0.5000)
    """

    path_type = "two-sided"
    # The time at which x_t is normal for every base and target, so that densities can start there.
    gaussian_time: float | None = None
    # Whether the path has weights of its own that are learned together with the fields.
    is_learned = False

    def __init__(self, gamma: Gamma | str | None = None, gamma_scale: float = 1.0) -> None:
        self.noise = GAMMAS[gamma] if isinstance(gamma, str) else gamma
        self.gamma_scale = gamma_scale

    def two_sided(self) -> "Interpolant":
        """The interpolant between two samples that this one is made from; itself, if it is one."""
        return self

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of x0."""
        raise TypeError(f"{type(self).__name__} has neither alpha(t) nor mean(t, x0, x1): define one of them.")

    def beta(self, t: Tensor) -> Tensor:
        """Weight of x1."""
        raise TypeError(f"{type(self).__name__} has neither beta(t) nor mean(t, x0, x1): define one of them.")

    def gamma(self, t: Tensor) -> Tensor:
        """Weight of the latent noise z."""
        if self.noise is None:
            return torch.zeros_like(t)
        return math.sqrt(self.gamma_scale) * self.noise.value(t)

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Time derivative of alpha."""
        return _derivative(self.alpha, t)

    def beta_dot(self, t: Tensor) -> Tensor:
        """Time derivative of beta."""
        return _derivative(self.beta, t)

    def gamma_dot(self, t: Tensor) -> Tensor:
        """Time derivative of gamma, which may be infinite at t = 0 and 1."""
        if not self.has_noise:
            return torch.zeros_like(t)
        if self.noise is None:
            return _derivative(self.gamma, t)
        return math.sqrt(self.gamma_scale) * self.noise.derivative(t)

    def gamma_gamma_dot(self, t: Tensor) -> Tensor:
        """The product gamma gamma_dot, which is finite at t = 0 and 1."""
        if self.noise is None:
            return self.gamma(t) * self.gamma_dot(t) if self.has_noise else torch.zeros_like(t)
        return self.gamma_scale * self.noise.product(t)

    def alpha_alpha_dot(self, t: Tensor) -> Tensor:
        """The product alpha alpha_dot, which is finite at t = 0 and 1."""
        return self.alpha(t) * self.alpha_dot(t)

    def wronskian(self, t: Tensor) -> Tensor:
        """The Wronskian W = alpha beta_dot - beta alpha_dot."""
        return self.alpha(t) * self.beta_dot(t) - self.beta(t) * self.alpha_dot(t)

    @property
    def has_noise(self) -> bool:
        """Whether gamma is not identically zero."""
        return self.noise is not None or type(self).gamma is not Interpolant.gamma

    @property
    def is_linear(self) -> bool:
        """Whether I is linear in space, so that alpha and beta determine it."""
        return type(self).mean is Interpolant.mean

    @property
    def singular_target(self) -> bool:
        """Whether the regression target of the velocity has a factor that is infinite at t = 0 or 1."""
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
        return not bool(torch.isfinite(self.gamma_dot(ends)).all())

    def mean(self, t: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """I(t, x0, x1), for times of shape () or (n,) and rows of shape (n, d)."""
        return column(self.alpha(t), x0) * x0 + column(self.beta(t), x0) * x1

    def mean_dot(self, t: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """The time derivative of I(t, x0, x1) for fixed x0 and x1."""
        if self.is_linear:
            return column(self.alpha_dot(t), x0) * x0 + column(self.beta_dot(t), x0) * x1
        return _derivative(lambda s: self.mean(s, x0, x1), t)

    def point(self, t: Tensor, x0: Tensor, x1: Tensor, z: Tensor | None = None) -> Tensor:
        """The point of the path at time t: x_t = I(t, x0, x1) + gamma(t) z."""
        x = self.mean(t, x0, x1)
        return x if z is None else x + column(self.gamma(t), x0) * z

    def point_dot(self, t: Tensor, x0: Tensor, x1: Tensor, z: Tensor | None = None) -> Tensor:
        """The regression target of the velocity: dx_t/dt = dI/dt + gamma_dot(t) z."""
        v = self.mean_dot(t, x0, x1)
        return v if z is None else v + column(self.gamma_dot(t), x0) * z

    @property
    def circular(self) -> tuple[int, ...]:
        """Positions of the columns that are angles, in radians."""
        return ()

    def nearest(self, x0: Tensor, x1: Tensor) -> Tensor:
        """The images of rows x1 that are nearest to rows x0: themselves, but on circles."""
        return x1

    def wrapped(self, x: Tensor) -> Tensor:
        """Rows with angles within their period: themselves, but on circles."""
        return x

    def base_from_normal(self, z: Tensor) -> Tensor:
        """Rows of the base of one sample from those of a standard normal: themselves, but on circles."""
        return z

    def normal_from_base(self, x: Tensor) -> Tensor:
        """The inverse of `base_from_normal`."""
        return x

    def base_log_density(self, x: Tensor) -> Tensor:
        """The log-density of the base of one sample at each row: standard normal, but on circles."""
        return -0.5 * (x.square().sum(1) + x.shape[1] * math.log(2 * math.pi))

    def variance(self, t: Tensor, v0: Ends, v1: Ends, c: Tensor | None = None) -> Tensor:
        """The variance of x_t in each feature: alpha^2 v0 + beta^2 v1 + gamma^2 + 2 alpha beta c."""
        a, b = self.alpha(t), self.beta(t)
        own = a**2 * v0 + b**2 * v1 + self.gamma(t) ** 2
        return own if c is None else own + 2 * a * b * c

    def covariance_dot(self, t: Tensor, v0: Ends, v1: Ends, c: Tensor | None = None) -> Tensor:
        """The covariance of dx_t/dt and x_t in each feature: half the time derivative of `variance`."""
        own = self.alpha_alpha_dot(t) * v0 + self.beta(t) * self.beta_dot(t) * v1 + self.gamma_gamma_dot(t)
        if c is None:  # alpha_dot alone may be infinite where alpha alpha_dot is not
            return own
        return own + (self.alpha_dot(t) * self.beta(t) + self.beta_dot(t) * self.alpha(t)) * c

    def residual_scale(self, t: Tensor, v0: Ends, v1: Ends) -> Tensor:
        """The standard deviation of dx_t/dt given x_t for a Gaussian base and target, bounded where gamma_dot is not.

        sd^2 = [v0 v1 W_ab^2 + v0 W_ag^2 + v1 W_bg^2] / variance, with W_fg = f g_dot - g f_dot
        where gamma_dot is replaced by gamma gamma_dot / sqrt(gamma^2 + floor^2).
        """
        a, b = self.alpha(t), self.beta(t)
        total = v0 * v1 * self.wronskian(t) ** 2
        if self.has_noise:
            g = torch.sqrt(self.gamma(t) ** 2 + NOISE_FLOOR**2)
            g_dot = self.gamma_gamma_dot(t) / g
            total = total + v0 * (a * g_dot - g * self.alpha_dot(t)) ** 2 + v1 * (b * g_dot - g * self.beta_dot(t)) ** 2
        return torch.sqrt(total / self.variance(t, v0, v1))
