"""Stochastic interpolants: alpha, beta, gamma, their derivatives, and the named families."""

import math

import torch
from torch import Tensor

from .._utils.names import registered
from ._base import NOISE_FLOOR, Ends, Interpolant
from ._gammas import GAMMAS, Gamma
from ._learned import LearnedInterpolant, LearnedSchedule

__all__ = [
    "GAMMAS",
    "INTERPOLANTS",
    "EncodingDecoding",
    "EncodingDecodingPreserving",
    "Gamma",
    "GaussianBase",
    "Interpolant",
    "LearnedInterpolant",
    "LearnedSchedule",
    "Linear",
    "Mirror",
    "Trigonometric",
    "TrigonometricPreserving",
    "VariancePreserving",
    "make_interpolant",
]


@registered("interpolants.Linear")
class Linear(Interpolant):
    """The straight path: alpha = 1 - t, beta = t.

    Examples
    --------
    >>> import torch
    >>> from sklearn_si.interpolants import Linear
    >>> Linear().mean(torch.tensor(0.25), torch.zeros(1, 2), torch.ones(1, 2))
    tensor([[0.2500, 0.2500]])
    """

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of x0: 1 - t."""
        return 1 - t

    def beta(self, t: Tensor) -> Tensor:
        """Weight of x1: t."""
        return t

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Time derivative of alpha: -1."""
        return -torch.ones_like(t)

    def beta_dot(self, t: Tensor) -> Tensor:
        """Time derivative of beta: 1."""
        return torch.ones_like(t)

    def wronskian(self, t: Tensor) -> Tensor:
        """The Wronskian W = 1."""
        return torch.ones_like(t)


@registered("interpolants.Trigonometric")
class Trigonometric(Interpolant):
    """The trigonometric path: alpha = cos(pi t / 2), beta = sin(pi t / 2).

    Its variance is constant if the base and the target are independent and of equal variance.
    """

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of x0: cos(pi t / 2)."""
        # cos(pi/2) is 6e-17 in floats; the sine form is exactly zero at t = 1.
        return torch.sin(math.pi / 2 * (1 - t))

    def beta(self, t: Tensor) -> Tensor:
        """Weight of x1: sin(pi t / 2)."""
        return torch.sin(math.pi / 2 * t)

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Time derivative of alpha."""
        return -math.pi / 2 * torch.sin(math.pi / 2 * t)

    def beta_dot(self, t: Tensor) -> Tensor:
        """Time derivative of beta."""
        return math.pi / 2 * torch.sin(math.pi / 2 * (1 - t))

    def wronskian(self, t: Tensor) -> Tensor:
        """The Wronskian W = pi / 2."""
        return torch.full_like(t, math.pi / 2)


@registered("interpolants.TrigonometricPreserving")
class TrigonometricPreserving(Trigonometric):
    """The trigonometric path times sqrt(1 - gamma^2), so that the variance stays constant with latent noise.

    alpha^2 + beta^2 + gamma^2 = 1    (arXiv 2303.08797, equation (4.10))
    """

    def _shrink(self, t: Tensor) -> Tensor:
        return torch.sqrt(1 - self.gamma(t) ** 2)

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of x0: sqrt(1 - gamma^2) cos(pi t / 2)."""
        return self._shrink(t) * super().alpha(t)

    def beta(self, t: Tensor) -> Tensor:
        """Weight of x1: sqrt(1 - gamma^2) sin(pi t / 2)."""
        return self._shrink(t) * super().beta(t)

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Time derivative of alpha."""
        r = self._shrink(t)
        return r * super().alpha_dot(t) - self.gamma_gamma_dot(t) / r * super().alpha(t)

    def beta_dot(self, t: Tensor) -> Tensor:
        """Time derivative of beta."""
        r = self._shrink(t)
        return r * super().beta_dot(t) - self.gamma_gamma_dot(t) / r * super().beta(t)

    def wronskian(self, t: Tensor) -> Tensor:
        """The Wronskian W = (pi / 2) (1 - gamma^2)."""
        return math.pi / 2 * (1 - self.gamma(t) ** 2)


@registered("interpolants.EncodingDecoding")
class EncodingDecoding(Interpolant):
    """The path from the base to pure noise and from there to the target.

    alpha = cos^2(pi t) for t < 1/2 and beta = cos^2(pi t) for t > 1/2, zero elsewhere; gamma = sin^2(pi t)

    (arXiv 2303.08797, equation (4.11)). x_{1/2} = z is exactly normal. Other than the paper says, the variance is not
    preserved: it is 1/2 at t = 1/4. `EncodingDecodingPreserving` preserves it.
    """

    gaussian_time = 0.5

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of x0: cos^2(pi t) for t < 1/2, else 0."""
        return torch.where(t < 0.5, torch.cos(math.pi * t) ** 2, torch.zeros_like(t))

    def beta(self, t: Tensor) -> Tensor:
        """Weight of x1: cos^2(pi t) for t > 1/2, else 0."""
        return torch.where(t > 0.5, torch.cos(math.pi * t) ** 2, torch.zeros_like(t))

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Time derivative of alpha."""
        return torch.where(t < 0.5, -math.pi * torch.sin(2 * math.pi * t), torch.zeros_like(t))

    def beta_dot(self, t: Tensor) -> Tensor:
        """Time derivative of beta."""
        return torch.where(t > 0.5, -math.pi * torch.sin(2 * math.pi * t), torch.zeros_like(t))


@registered("interpolants.EncodingDecodingPreserving")
class EncodingDecodingPreserving(Interpolant):
    """The encoding-decoding path with cos in place of cos^2, which preserves the variance with gamma = sin(pi t)."""

    gaussian_time = 0.5

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of x0: cos(pi t) for t < 1/2, else 0."""
        return torch.where(t < 0.5, torch.cos(math.pi * t), torch.zeros_like(t))

    def beta(self, t: Tensor) -> Tensor:
        """Weight of x1: -cos(pi t) for t > 1/2, else 0."""
        return torch.where(t > 0.5, -torch.cos(math.pi * t), torch.zeros_like(t))

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Time derivative of alpha, which jumps at t = 1/2."""
        return torch.where(t < 0.5, -math.pi * torch.sin(math.pi * t), torch.zeros_like(t))

    def beta_dot(self, t: Tensor) -> Tensor:
        """Time derivative of beta, which jumps at t = 1/2."""
        return torch.where(t > 0.5, math.pi * torch.sin(math.pi * t), torch.zeros_like(t))


@registered("interpolants.VariancePreserving")
class VariancePreserving(Interpolant):
    """The variance-preserving path of score-based diffusion, for a standard normal base only.

    alpha = sqrt(1 - t^2),    beta = t    (arXiv 2303.08797, section 5)
    """

    path_type = "one-sided"

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of the base: sqrt(1 - t^2)."""
        return torch.sqrt((1 - t) * (1 + t))

    def beta(self, t: Tensor) -> Tensor:
        """Weight of the target: t."""
        return t

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Time derivative of alpha, which is infinite at t = 1."""
        return -t / self.alpha(t)

    def beta_dot(self, t: Tensor) -> Tensor:
        """Time derivative of beta: 1."""
        return torch.ones_like(t)

    def alpha_alpha_dot(self, t: Tensor) -> Tensor:
        """The product alpha alpha_dot = -t."""
        return -t

    def wronskian(self, t: Tensor) -> Tensor:
        """The Wronskian W = 1 / sqrt(1 - t^2)."""
        return 1 / self.alpha(t)

    def residual_scale(self, t: Tensor, v0: Ends, v1: Ends) -> Tensor:
        """The Wronskian, bounded at t = 1, times the standard deviation of x_t given the target."""
        bounded = 1 / torch.sqrt(self.alpha(t) ** 2 + NOISE_FLOOR**2)
        return bounded * torch.sqrt(v0 * v1 / self.variance(t, v0, v1))


@registered("interpolants.Mirror")
class Mirror(Interpolant):
    """The path from a distribution to itself: x_t = x1 + gamma(t) z, so that alpha = 0 and beta = 1.

    (arXiv 2303.08797, section 3.3)
    """

    path_type = "mirror"

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of x0: 0."""
        return torch.zeros_like(t)

    def beta(self, t: Tensor) -> Tensor:
        """Weight of x1: 1."""
        return torch.ones_like(t)

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Time derivative of alpha: 0."""
        return torch.zeros_like(t)

    def beta_dot(self, t: Tensor) -> Tensor:
        """Time derivative of beta: 0."""
        return torch.zeros_like(t)


@registered("interpolants.GaussianBase")
class GaussianBase(Interpolant):
    """An interpolant with a standard normal base, whose latent noise is absorbed into alpha.

    alpha_eff^2 = alpha^2 + gamma^2    (arXiv 2303.08797, section 3.2)

    leaves the distribution of x_t the same at each time, because x0 and z are both standard normal. One field then
    gives all the others: eta = (beta_dot x - beta b) / W and s = -eta / alpha, with the Wronskian
    W = alpha beta_dot - beta alpha_dot.

    Parameters
    ----------
    path : Interpolant
        A spatially linear interpolant with alpha(1) = 0.
    """

    path_type = "one-sided"

    def __init__(self, path: Interpolant) -> None:
        super().__init__()
        self.path = path
        self.gaussian_time = path.gaussian_time

    def two_sided(self) -> Interpolant:
        """The interpolant whose base and latent noise were merged."""
        return self.path

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of the base: sqrt(alpha^2 + gamma^2) of the path."""
        if not self.path.has_noise:
            return self.path.alpha(t)
        return torch.sqrt(self.path.alpha(t) ** 2 + self.path.gamma(t) ** 2)

    def beta(self, t: Tensor) -> Tensor:
        """Weight of the target."""
        return self.path.beta(t)

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Time derivative of alpha, which may be infinite at t = 1."""
        if not self.path.has_noise:
            return self.path.alpha_dot(t)
        return self.alpha_alpha_dot(t) / self.alpha(t)

    def beta_dot(self, t: Tensor) -> Tensor:
        """Time derivative of beta."""
        return self.path.beta_dot(t)

    def alpha_alpha_dot(self, t: Tensor) -> Tensor:
        """The sum alpha alpha_dot + gamma gamma_dot of the path."""
        return self.path.alpha_alpha_dot(t) + self.path.gamma_gamma_dot(t)

    def alpha_wronskian(self, t: Tensor) -> Tensor:
        """The product alpha W = alpha^2 beta_dot - beta alpha alpha_dot, which is finite everywhere."""
        a2 = self.path.alpha(t) ** 2 + self.path.gamma(t) ** 2
        return a2 * self.beta_dot(t) - self.beta(t) * self.alpha_alpha_dot(t)

    def inverse_wronskian(self, t: Tensor) -> Tensor:
        """The inverse 1 / W of the Wronskian, which is finite everywhere; at t = 1 it is a limit."""
        if not self.path.has_noise:
            return self.path.alpha(t) if isinstance(self.path, VariancePreserving) else 1 / self.path.wronskian(t)
        # The quotient is 0/0 at t = 1 where gamma gamma_dot vanishes there. The limit is taken from the last times
        # at which rounding does no harm. (With the brownian gamma 1/W itself vanishes like sqrt(1 - t).)
        eps = torch.finfo(t.dtype).eps
        inside = torch.where(self.alpha_wronskian(t) > eps**0.75, t, t.clamp(max=1 - eps**0.5))
        return self.alpha(inside) / self.alpha_wronskian(inside)

    @property
    def singular_target(self) -> bool:
        """Whether alpha_dot is infinite at t = 1."""
        return not bool(torch.isfinite(self.alpha_dot(torch.ones((), dtype=torch.float64))))

    def residual_scale(self, t: Tensor, v0: Ends, v1: Ends) -> Tensor:
        """The scale of the path, bounded where alpha_dot is not."""
        return self.path.residual_scale(t, v0, v1)


INTERPOLANTS = {
    "linear": Linear,
    "trigonometric": Trigonometric,
    "trigonometric-preserving": TrigonometricPreserving,
    "encoding-decoding": EncodingDecoding,
    "encoding-decoding-preserving": EncodingDecodingPreserving,
    "vp": VariancePreserving,
    "mirror": Mirror,
    "learned": LearnedInterpolant,
    "learned-schedule": LearnedSchedule,
}

# What gamma="auto" means for the interpolants that need latent noise.
_NEEDED_GAMMA = {
    "mirror": "brownian",
    "encoding-decoding": "sine-squared",
    "encoding-decoding-preserving": "sine",
}


def make_interpolant(
    interpolant: str | Interpolant, gamma: str | None, gamma_scale: float, *, two_samples: bool, latent_noise: bool
) -> Interpolant:
    """Build the interpolant that an estimator's parameters describe.

    Parameters
    ----------
    interpolant : str or Interpolant
        A name of `INTERPOLANTS`, or an instance, which brings its own gamma.
    gamma : str or None
        A name of `GAMMAS`, "auto" or None.
    gamma_scale : float
        The factor of gamma(t)^2.
    two_samples : bool
        Whether the base is a sample; otherwise it is the standard normal distribution.
    latent_noise : bool
        Whether gamma="auto" means "brownian" between two samples.

    Returns
    -------
    interpolant : Interpolant

    Raises
    ------
    ValueError
        When the interpolant, its gamma and the number of samples do not fit together.
    """
    if isinstance(interpolant, Interpolant):
        if gamma != "auto":
            raise ValueError(
                f"Got gamma={gamma!r} with an Interpolant instance, which brings its own gamma: leave gamma='auto'."
            )
        path, name = interpolant, type(interpolant).__name__
    else:
        if gamma is None and interpolant in _NEEDED_GAMMA:
            raise ValueError(f"interpolant={interpolant!r} needs latent noise, but got gamma=None: use gamma='auto'.")
        if gamma == "auto":
            gamma = _NEEDED_GAMMA.get(interpolant, "brownian" if two_samples and latent_noise else None)
        path, name = INTERPOLANTS[interpolant](gamma, gamma_scale), interpolant
    if two_samples and path.path_type != "two-sided":
        raise ValueError(
            f"interpolant={name!r} is for one sample, but fit was given two: use interpolant='linear', or fit(X)."
        )
    if isinstance(path, TrigonometricPreserving):
        _check_shrink(path)
    if two_samples or path.path_type == "mirror":
        return path
    if path.is_learned:
        raise ValueError(
            f"interpolant={name!r} is learned between two samples, but fit was given one: use interpolant='linear', "
            "or fit(X0, X1)."
        )
    if not path.is_linear:
        raise ValueError(
            f"{name} is not linear in space, but a standard normal base needs an interpolant that is: call "
            "fit(X0, X1) with rows of the base, or define alpha and beta in place of mean."
        )
    return GaussianBase(path)


def _check_shrink(path: Interpolant) -> None:
    largest = float(path.gamma(torch.linspace(0, 1, 101)).max())
    if largest >= 1:
        raise ValueError(
            f"interpolant='trigonometric-preserving' needs gamma < 1 at all times, but got a largest value of "
            f"{largest:.3g}: lower gamma_scale."
        )
