"""Analysis of RHEED films: growth rate, lattice, widths, orders, change, each with its uncertainty.

Online, frames are fed as they come (:class:`Analyzer`); a whole array goes through :func:`analyze`. Pure numpy
and scipy, no I/O.
"""

from __future__ import annotations

from atomstream.analysis.batch import UNITS, Batch, View
from atomstream.analysis.calibration import Calibration
from atomstream.analysis.engine import Analyzer
from atomstream.analysis.events import Event
from atomstream.analysis.offline import Analysis, analyze
from atomstream.analysis.regions import Box, Line
from atomstream.analysis.segments import Segment
from atomstream.analysis.values import Value

__all__ = [
    "UNITS",
    "Analysis",
    "Analyzer",
    "Batch",
    "Box",
    "Calibration",
    "Event",
    "Line",
    "Segment",
    "Value",
    "View",
    "analyze",
]
