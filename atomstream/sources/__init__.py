"""Sources of frames: simulator, files, and real-time pacing. Optional packages are imported only when needed."""

from __future__ import annotations

from .arrays import ArraySource
from .convert import to_uint8
from .damage import DamagedSourceError
from .following import Growing, follow_source
from .frame_source import FrameSource, Gap, SourceChunk
from .opening import open_source, open_sources
from .pacing import Schedule, apaced, paced
from .read_ahead import ReadAhead
from .sim_growth import Truth
from .sim_spec import GrowthSpec, no_signal_specs
from .simulator import Simulator

__all__ = [
    "ArraySource",
    "DamagedSourceError",
    "FrameSource",
    "Gap",
    "Growing",
    "GrowthSpec",
    "ReadAhead",
    "Schedule",
    "Simulator",
    "SourceChunk",
    "Truth",
    "apaced",
    "follow_source",
    "no_signal_specs",
    "open_source",
    "open_sources",
    "paced",
    "to_uint8",
]
