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
    """The straight path: alpha = 1 - t, beta = t."""

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
        """W = 1."""
        return torch.ones_like(t)


@registered("interpolants.Trigonometric")
class Trigonometric(Interpolant):
    """The path of constant variance between ends of equal variance: alpha = cos(pi t/2), beta = sin(pi t/2)."""

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
        """W = pi / 2."""
        return torch.full_like(t, math.pi / 2)


@registered("interpolants.TrigonometricPreserving")
class TrigonometricPreserving(Trigonometric):
    """The trigonometric path times sqrt(1 - gamma^2): alpha^2 + beta^2 + gamma^2 = 1 (2303.08797, (4.10))."""

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
        """W = (pi / 2) (1 - gamma^2)."""
        return math.pi / 2 * (1 - self.gamma(t) ** 2)


@registered("interpolants.EncodingDecoding")
class EncodingDecoding(Interpolant):
    """Base to noise to target: alpha = cos^2(pi t) before t = 1/2, beta = cos^2(pi t) after (2303.08797, (4.11)).

    With gamma = sin^2(pi t), x_{1/2} = z is exactly normal. The variance is not
    preserved (it is 1/2 at t = 1/4), whatever the paper says.
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
    """Encoding-decoding with cos in place of cos^2: with gamma = sin(pi t) the variance is preserved."""

    gaussian_time = 0.5

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of x0: cos(pi t) for t < 1/2, else 0."""
        return torch.where(t < 0.5, torch.cos(math.pi * t), torch.zeros_like(t))

    def beta(self, t: Tensor) -> Tensor:
        """Weight of x1: -cos(pi t) for t > 1/2, else 0."""
        return torch.where(t > 0.5, -torch.cos(math.pi * t), torch.zeros_like(t))

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Time derivative of alpha; it jumps at t = 1/2."""
        return torch.where(t < 0.5, -math.pi * torch.sin(math.pi * t), torch.zeros_like(t))

    def beta_dot(self, t: Tensor) -> Tensor:
        """Time derivative of beta; it jumps at t = 1/2."""
        return torch.where(t > 0.5, math.pi * torch.sin(math.pi * t), torch.zeros_like(t))


@registered("interpolants.VariancePreserving")
class VariancePreserving(Interpolant):
    """The path of score-based diffusion: alpha = sqrt(1 - t^2), beta = t, for a Gaussian base only."""

    path_type = "one-sided"

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of the base: sqrt(1 - t^2)."""
        return torch.sqrt((1 - t) * (1 + t))

    def beta(self, t: Tensor) -> Tensor:
        """Weight of the target: t."""
        return t

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Time derivative of alpha; infinite at t = 1."""
        return -t / self.alpha(t)

    def beta_dot(self, t: Tensor) -> Tensor:
        """Time derivative of beta: 1."""
        return torch.ones_like(t)

    def alpha_alpha_dot(self, t: Tensor) -> Tensor:
        """Alpha alpha_dot = -t."""
        return -t

    def wronskian(self, t: Tensor) -> Tensor:
        """W = 1 / sqrt(1 - t^2)."""
        return 1 / self.alpha(t)

    def residual_scale(self, t: Tensor, v0: Ends, v1: Ends) -> Tensor:
        """W bounded at t = 1, times the spread of x_t given the target."""
        bounded = 1 / torch.sqrt(self.alpha(t) ** 2 + NOISE_FLOOR**2)
        return bounded * torch.sqrt(v0 * v1 / self.variance(t, v0, v1))


@registered("interpolants.Mirror")
class Mirror(Interpolant):
    """From a law to itself: x_t = x1 + gamma(t) z, so alpha = 0 and beta = 1 (2303.08797, sec. 3.3)."""

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
    """An interpolant with a standard normal base, its latent noise absorbed in alpha.

    alpha_eff^2 = alpha^2 + gamma^2    (2303.08797, sec. 3.2: same law of x_t at each time)

    so that one field gives all the others:
    eta = (beta_dot x - beta b) / W and s = -eta / alpha.

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
        """The path that the latent noise and the base were taken together of."""
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
        """Time derivative of alpha; may be infinite at t = 1."""
        if not self.path.has_noise:
            return self.path.alpha_dot(t)
        return self.alpha_alpha_dot(t) / self.alpha(t)

    def beta_dot(self, t: Tensor) -> Tensor:
        """Time derivative of beta."""
        return self.path.beta_dot(t)

    def alpha_alpha_dot(self, t: Tensor) -> Tensor:
        """Alpha alpha_dot + gamma gamma_dot of the path."""
        return self.path.alpha_alpha_dot(t) + self.path.gamma_gamma_dot(t)

    def alpha_wronskian(self, t: Tensor) -> Tensor:
        """Alpha W = alpha^2 beta_dot - beta alpha alpha_dot, finite everywhere."""
        a2 = self.path.alpha(t) ** 2 + self.path.gamma(t) ** 2
        return a2 * self.beta_dot(t) - self.beta(t) * self.alpha_alpha_dot(t)

    def inverse_wronskian(self, t: Tensor) -> Tensor:
        """1 / W, finite everywhere: at t = 1 it is a limit."""
        if not self.path.has_noise:
            return self.path.alpha(t) if isinstance(self.path, VariancePreserving) else 1 / self.path.wronskian(t)
        # 0/0 at t = 1 where gamma gamma_dot vanishes there: then W is a limit from times where
        # rounding has not begun. (Under a brownian gamma 1/W itself vanishes, like sqrt(1 - t).)
        eps = torch.finfo(t.dtype).eps
        inside = torch.where(self.alpha_wronskian(t) > eps**0.75, t, t.clamp(max=1 - eps**0.5))
        return self.alpha(inside) / self.alpha_wronskian(inside)

    @property
    def singular_target(self) -> bool:
        """Whether alpha_dot is infinite at t = 1."""
        return not bool(torch.isfinite(self.alpha_dot(torch.ones((), dtype=torch.float64))))

    def residual_scale(self, t: Tensor, v0: Ends, v1: Ends) -> Tensor:
        """The path's own scale, bounded where alpha_dot is not."""
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

# What gamma="auto" means where the interpolant needs a noise of its own.
_NEEDED_GAMMA = {
    "mirror": "brownian",
    "encoding-decoding": "sine-squared",
    "encoding-decoding-preserving": "sine",
}


def make_interpolant(
    interpolant: str | Interpolant, gamma: str | None, gamma_scale: float, *, two_samples: bool, latent_noise: bool
) -> Interpolant:
    """The interpolant of an estimator's parameters.

    Parameters
    ----------
    interpolant : str or Interpolant
        A name of `INTERPOLANTS`, or an instance, which brings its own gamma.
    gamma : str or None
        A name of `GAMMAS`, "auto" or None.
    gamma_scale : float
        The factor of gamma^2.
    two_samples : bool
        Whether the base is a sample; else it is the standard normal law.
    latent_noise : bool
        Whether "auto" means "brownian" between two samples.
    """
    if isinstance(interpolant, Interpolant):
        if gamma != "auto":
            raise ValueError(
                f"Got gamma={gamma!r} with an Interpolant instance, which brings its own gamma: leave gamma='auto'."
            )
        path, name = interpolant, type(interpolant).__name__
    else:
        if gamma is None and interpolant in _NEEDED_GAMMA:
            raise ValueError(f"interpolant={interpolant!r} needs a latent noise: got gamma=None, use gamma='auto'.")
        if gamma == "auto":
            gamma = _NEEDED_GAMMA.get(interpolant, "brownian" if two_samples and latent_noise else None)
        path, name = INTERPOLANTS[interpolant](gamma, gamma_scale), interpolant
    if two_samples and path.path_type != "two-sided":
        raise ValueError(f"interpolant={name!r} is for one sample, but fit was given two: use 'linear'.")
    if isinstance(path, TrigonometricPreserving):
        _check_shrink(path)
    if two_samples or path.path_type == "mirror":
        return path
    if path.is_learned:
        raise ValueError(f"interpolant={name!r} is learned between two samples, but fit was given one: use 'linear'.")
    if not path.is_linear:
        raise ValueError(
            f"{name} is not linear in space, which a normal base needs: fit(X0, X1) with rows of the base, or give "
            "alpha and beta."
        )
    return GaussianBase(path)


def _check_shrink(path: Interpolant) -> None:
    largest = float(path.gamma(torch.linspace(0, 1, 101)).max())
    if largest >= 1:
        raise ValueError(
            f"interpolant='trigonometric-preserving' needs gamma < 1 everywhere, got {largest:.3g}: lower gamma_scale."
        )
