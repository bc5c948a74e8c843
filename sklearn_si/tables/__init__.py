"""Tables as people have them: mixed columns, gaps, conditions, and a report."""

from ._codec import TableCodec
from ._synthesizer import TableSynthesizer

__all__ = ["TableCodec", "TableSynthesizer"]
