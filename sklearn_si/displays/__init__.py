"""Plots of a fitted estimator: its losses, paths, density, predictions, samples, calibration and noise levels."""

from ._densities import DensityDisplay, TrajectoryDisplay
from ._fits import CalibrationDisplay, LossCurveDisplay, NoiseLevelDisplay
from ._predictions import PredictiveDisplay
from ._samples import SampleComparisonDisplay

__all__ = [
    "CalibrationDisplay",
    "DensityDisplay",
    "LossCurveDisplay",
    "NoiseLevelDisplay",
    "PredictiveDisplay",
    "SampleComparisonDisplay",
    "TrajectoryDisplay",
]
