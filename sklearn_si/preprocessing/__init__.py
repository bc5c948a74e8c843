"""Maps between data units and scaled units, supports of columns, and encoders of conditions."""

from ._maps import (
    AFFINE,
    MAPS,
    MARGINAL,
    TRIANGULAR,
    WHITENING,
    AffineMap,
    MarginalMap,
    fit_one_sample_map,
    fit_two_sample_maps,
)
from ._support import Support, SupportedMap
from ._triangular import TriangularMap

__all__ = [
    "AFFINE",
    "MAPS",
    "MARGINAL",
    "TRIANGULAR",
    "WHITENING",
    "AffineMap",
    "MarginalMap",
    "Support",
    "SupportedMap",
    "TriangularMap",
    "fit_one_sample_map",
    "fit_two_sample_maps",
]
