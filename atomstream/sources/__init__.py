"""Sources of frames: simulator, files, and real-time pacing. Optional packages are imported only when needed."""

from __future__ import annotations

from .arrays import ArraySource
from .convert import to_uint8
from .frame_source import FrameSource, SourceChunk
from .opening import open_source
from .pacing import Schedule, apaced, paced
from .sim_growth import Truth
from .sim_spec import GrowthSpec, no_signal_specs
from .simulator import Simulator

__all__ = [
    "ArraySource",
    "FrameSource",
    "GrowthSpec",
    "Schedule",
    "Simulator",
    "SourceChunk",
    "Truth",
    "apaced",
    "no_signal_specs",
    "open_source",
    "paced",
    "to_uint8",
]
