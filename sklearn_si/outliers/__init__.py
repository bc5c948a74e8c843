"""Outliers by density, with p-values, and the cells by which a row is one."""

from ._detector import DensityOutlierDetector

__all__ = ["DensityOutlierDetector"]
