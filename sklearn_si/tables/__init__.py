"""Mixed-type tables: numbers, categories, dates and missing values; a codec, a synthesizer, an imputer and a report."""

from ._codec import TableCodec
from ._constraints import FixedCombinations, Inequality, Sum
from ._imputer import InterpolantImputer
from ._missing import MISSING
from ._raking import RakedSynthesizer
from ._report import TableReport
from ._synthesizer import TableSynthesizer

__all__ = [
    "MISSING",
    "FixedCombinations",
    "Inequality",
    "InterpolantImputer",
    "RakedSynthesizer",
    "Sum",
    "TableCodec",
    "TableReport",
    "TableSynthesizer",
]
