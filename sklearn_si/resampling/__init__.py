"""Weights of rows for covariate shift, and further rows of rare classes."""

from ._ratio_weights import DensityRatioWeights
from ._resampler import TableResampler

__all__ = ["DensityRatioWeights", "TableResampler"]
