"""Neural networks and closed-form fields f(t, x, condition) with an exact divergence."""

from ._averaged import AveragedNetwork
from ._divergence import velocity_and_divergence
from ._fields import (
    ComposedVelocity,
    DenoiserOfScore,
    ForecastField,
    GuidedField,
    MixtureVelocity,
    PreconditionedField,
)
from ._perceptrons import ACTIVATIONS, MLP, FiLMNetwork

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "AveragedNetwork",
    "ComposedVelocity",
    "DenoiserOfScore",
    "FiLMNetwork",
    "ForecastField",
    "GuidedField",
    "MixtureVelocity",
    "PreconditionedField",
    "velocity_and_divergence",
]
