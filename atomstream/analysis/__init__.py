"""RHEED analysis: growth rate, lattice, streak widths, fractional orders and changes, each with its uncertainty.

:class:`Analyzer` works online on frames as they arrive; :func:`analyze` takes a whole array. Both are imported at their
first use: the server, which leaves the analysis to its worker processes, so does not import scipy. The package uses
numpy and scipy only and does no I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atomstream.analysis.calibration import Calibration
from atomstream.analysis.shapes import Box, Line
from atomstream.results import UNITS, Batch, Event, Measurement, Segment, View

if TYPE_CHECKING:
    from atomstream.analysis.analyzer import Analyzer
    from atomstream.analysis.whole_array import Analysis, analyze

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


def __getattr__(name: str) -> Any:
    """Import the analysis at its first use (PEP 562); its import may take 1 s."""
    if name == "Analyzer":
        from atomstream.analysis.analyzer import Analyzer

        return Analyzer
    if name in {"Analysis", "analyze"}:
        from atomstream.analysis import whole_array

        return getattr(whole_array, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
