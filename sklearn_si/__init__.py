"""Stochastic interpolants as scikit-learn estimators."""

from . import outliers, resampling, tables  # noqa: F401 - so that their files can be loaded
from ._estimators.bridge import SchroedingerBridge
from ._estimators.diffusion import InterpolantDiffusion
from ._estimators.flow import InterpolantFlow
from ._estimators.multimarginal import MultimarginalFlow
from ._estimators.prediction.classifier import InterpolantClassifier
from ._estimators.prediction.regressor import InterpolantRegressor
from ._estimators.tilting import TiltedFlow
from ._version import __version__  # noqa: F401 - the usual place to look for it
from .compose import TransformedDensity
from .persistence import load, save

__all__ = [
    "InterpolantClassifier",
    "InterpolantDiffusion",
    "InterpolantFlow",
    "InterpolantRegressor",
    "MultimarginalFlow",
    "SchroedingerBridge",
    "TiltedFlow",
    "TransformedDensity",
    "load",
    "save",
]
