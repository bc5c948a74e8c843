"""Maps between data units and scaled units, supports of columns, and encoders of conditions."""

from ._maps import AFFINE, MAPS, MARGINAL, AffineMap, MarginalMap, fit_one_sample_map, fit_two_sample_maps
from ._support import Support, SupportedMap

__all__ = [
    "AFFINE",
    "MAPS",
    "MARGINAL",
    "AffineMap",
    "MarginalMap",
    "Support",
    "SupportedMap",
    "fit_one_sample_map",
    "fit_two_sample_maps",
]
