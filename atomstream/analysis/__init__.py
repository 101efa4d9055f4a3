"""Analysis of RHEED films: growth rate, lattice, widths, orders, change, each with its uncertainty.

Online, frames are fed as they come (:class:`Analyzer`); a whole array goes through :func:`analyze`. Pure numpy
and scipy, no I/O.
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
