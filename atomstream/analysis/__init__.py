"""RHEED analysis: growth rate, lattice, streak widths, fractional orders and changes, each with its uncertainty.

:class:`Analyzer` works online on frames as they arrive; :func:`analyze` takes a whole array. The package uses numpy
and scipy only and does no I/O.
"""

from __future__ import annotations

from atomstream.analysis.analyze import Analysis, analyze
from atomstream.analysis.analyzer import Analyzer
from atomstream.analysis.calibration import Calibration
from atomstream.analysis.regions import Box, Line
from atomstream.results import UNITS, Batch, Event, Measurement, Segment, View

__all__ = [
    "UNITS",
    "Analysis",
    "Analyzer",
    "Batch",
    "Box",
    "Calibration",
    "Event",
    "Line",
    "Measurement",
    "Segment",
    "View",
    "analyze",
]
