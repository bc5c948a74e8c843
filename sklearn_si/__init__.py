"""Stochastic interpolants as scikit-learn estimators."""

from ._diffusion import InterpolantDiffusion
from ._flow import InterpolantFlow

__all__ = ["InterpolantDiffusion", "InterpolantFlow"]
__version__ = "0.1.0"
