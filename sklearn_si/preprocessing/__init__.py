"""Maps between data units and scaled units, and encoders of conditions."""

from ._maps import AFFINE, MAPS, MARGINAL, AffineMap, MarginalMap, fit_one_sample_map, fit_two_sample_maps

__all__ = [
    "AFFINE",
    "MAPS",
    "MARGINAL",
    "AffineMap",
    "MarginalMap",
    "fit_one_sample_map",
    "fit_two_sample_maps",
]
