"""The paths x_t = I(t, x0, x1) + gamma(t) z."""

from ._base import Interpolant
from ._gammas import GAMMAS, Gamma
from ._learned import LearnedInterpolant, LearnedSchedule
from ._named import (
    INTERPOLANTS,
    EncodingDecoding,
    EncodingDecodingPreserving,
    GaussianBase,
    Linear,
    Mirror,
    Trigonometric,
    TrigonometricPreserving,
    VariancePreserving,
    make_interpolant,
)
from ._torus import TorusPath

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
    "TorusPath",
    "Trigonometric",
    "TrigonometricPreserving",
    "VariancePreserving",
    "make_interpolant",
]
