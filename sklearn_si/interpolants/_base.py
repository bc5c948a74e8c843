"""The base of all interpolants: alpha, beta, gamma and what follows from them."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .._utils.process import forward_tangents
from .._utils.tensors import column
from ._gammas import GAMMAS, Gamma

# A variance of an end, of each feature or of all.
Ends = Tensor | float

# Below this latent noise (in scaled units, data of variance one) the network's
# output is scaled like a score, above it like a denoiser; it keeps the scale of
# the residual bounded where gamma_dot is not.
NOISE_FLOOR = 0.05


def _derivative(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    with forward_tangents():
        return torch.func.jvp(function, (t,), (torch.ones_like(t),))[1]


class Interpolant:
    """A stochastic interpolant, linear in space unless `mean` is overridden.

    x_t = I(t, x0, x1) + gamma(t) z,    I = alpha(t) x0 + beta(t) x1    (2303.08797, Def. 2.1, sec. 4)

    A subclass gives `alpha` and `beta` (or `mean`, for an I that is not linear in
    space) and may give `gamma`; derivatives are taken by `torch.func.jvp` and are
    overridden where a closed form is cheaper or where autograd is singular.

    Parameters
    ----------
    gamma : Gamma, str or None, default=None
        The latent noise; a name is looked up in `GAMMAS`.
    gamma_scale : float, default=1.0
        The factor a of gamma^2.

    Examples
    --------
    >>> import torch
    >>> from sklearn_si.interpolants import Linear
    >>> Linear(gamma="brownian").gamma(torch.tensor(0.5))
    tensor(0.5000)
    """

    path_type = "two-sided"
    # The time at which x_t is normal whatever the ends are, so that densities can start there.
    gaussian_time: float | None = None
    # Whether the path has weights of its own, which are learned with the fields.
    is_learned = False

    def __init__(self, gamma: Gamma | str | None = None, gamma_scale: float = 1.0) -> None:
        self.noise = GAMMAS[gamma] if isinstance(gamma, str) else gamma
        self.gamma_scale = gamma_scale

    def two_sided(self) -> "Interpolant":
        """The path between two ends, each of which may be a sample, that this one is or is made of."""
        return self

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of x0."""
        raise TypeError(f"{type(self).__name__} gives neither alpha(t) nor mean(t, x0, x1)")

    def beta(self, t: Tensor) -> Tensor:
        """Weight of x1."""
        raise TypeError(f"{type(self).__name__} gives neither beta(t) nor mean(t, x0, x1)")

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
        """Time derivative of gamma; may be infinite at the ends."""
        if not self.has_noise:
            return torch.zeros_like(t)
        if self.noise is None:
            return _derivative(self.gamma, t)
        return math.sqrt(self.gamma_scale) * self.noise.derivative(t)

    def gamma_gamma_dot(self, t: Tensor) -> Tensor:
        """The product gamma gamma_dot, finite at the ends."""
        if self.noise is None:
            return self.gamma(t) * self.gamma_dot(t) if self.has_noise else torch.zeros_like(t)
        return self.gamma_scale * self.noise.product(t)

    def alpha_alpha_dot(self, t: Tensor) -> Tensor:
        """The product alpha alpha_dot, finite at the ends."""
        return self.alpha(t) * self.alpha_dot(t)

    def wronskian(self, t: Tensor) -> Tensor:
        """W = alpha beta_dot - beta alpha_dot."""
        return self.alpha(t) * self.beta_dot(t) - self.beta(t) * self.alpha_dot(t)

    @property
    def has_noise(self) -> bool:
        """Whether gamma is not identically zero."""
        return self.noise is not None or type(self).gamma is not Interpolant.gamma

    @property
    def is_linear(self) -> bool:
        """Whether I is linear in space, so that alpha and beta say all of it."""
        return type(self).mean is Interpolant.mean

    @property
    def singular_target(self) -> bool:
        """Whether the regression target of the velocity has a factor that is infinite at an end."""
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
        return not bool(torch.isfinite(self.gamma_dot(ends)).all())

    def mean(self, t: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """I(t, x0, x1), for times of shape () or (n,) and rows of shape (n, d)."""
        return column(self.alpha(t), x0) * x0 + column(self.beta(t), x0) * x1

    def mean_dot(self, t: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """The time derivative of I at fixed ends."""
        if self.is_linear:
            return column(self.alpha_dot(t), x0) * x0 + column(self.beta_dot(t), x0) * x1
        return _derivative(lambda s: self.mean(s, x0, x1), t)

    def point(self, t: Tensor, x0: Tensor, x1: Tensor, z: Tensor | None = None) -> Tensor:
        """x_t = I(t, x0, x1) + gamma(t) z."""
        x = self.mean(t, x0, x1)
        return x if z is None else x + column(self.gamma(t), x0) * z

    def point_dot(self, t: Tensor, x0: Tensor, x1: Tensor, z: Tensor | None = None) -> Tensor:
        """dx_t/dt = dI/dt + gamma_dot(t) z, the regression target of the velocity."""
        v = self.mean_dot(t, x0, x1)
        return v if z is None else v + column(self.gamma_dot(t), x0) * z

    def variance(self, t: Tensor, v0: Ends, v1: Ends, c: Tensor | None = None) -> Tensor:
        """Variance of x_t, a feature: alpha^2 v0 + beta^2 v1 + gamma^2 + 2 alpha beta c."""
        a, b = self.alpha(t), self.beta(t)
        own = a**2 * v0 + b**2 * v1 + self.gamma(t) ** 2
        return own if c is None else own + 2 * a * b * c

    def covariance_dot(self, t: Tensor, v0: Ends, v1: Ends, c: Tensor | None = None) -> Tensor:
        """Covariance of dx_t/dt with x_t, a feature: half the derivative of `variance`."""
        own = self.alpha_alpha_dot(t) * v0 + self.beta(t) * self.beta_dot(t) * v1 + self.gamma_gamma_dot(t)
        if c is None:  # alpha_dot alone may be infinite where alpha alpha_dot is not
            return own
        return own + (self.alpha_dot(t) * self.beta(t) + self.beta_dot(t) * self.alpha(t)) * c

    def residual_scale(self, t: Tensor, v0: Ends, v1: Ends) -> Tensor:
        """Size of dx_t/dt given x_t for Gaussian ends, bounded where gamma_dot is not.

        sd^2 = [v0 v1 W_ab^2 + v0 W_ag^2 + v1 W_bg^2] / variance, with W_fg = f g_dot - g f_dot
        and gamma_dot replaced by gamma gamma_dot / sqrt(gamma^2 + floor^2).
        """
        a, b = self.alpha(t), self.beta(t)
        total = v0 * v1 * self.wronskian(t) ** 2
        if self.has_noise:
            g = torch.sqrt(self.gamma(t) ** 2 + NOISE_FLOOR**2)
            g_dot = self.gamma_gamma_dot(t) / g
            total = total + v0 * (a * g_dot - g * self.alpha_dot(t)) ** 2 + v1 * (b * g_dot - g * self.beta_dot(t)) ** 2
        return torch.sqrt(total / self.variance(t, v0, v1))
