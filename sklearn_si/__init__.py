"""Stochastic interpolants as scikit-learn estimators."""

from ._bridge import SchroedingerBridge
from ._diffusion import InterpolantDiffusion
from ._flow import InterpolantFlow
from .compose import TransformedDensity

__all__ = ["InterpolantDiffusion", "InterpolantFlow", "SchroedingerBridge", "TransformedDensity"]
__version__ = "0.1.0"
