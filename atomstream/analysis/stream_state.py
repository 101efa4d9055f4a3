""""""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from atomstream.analysis.calibration import Calibration
from atomstream.analysis.change import ChangeTracker
from atomstream.analysis.growth import GrowthTracker
from atomstream.analysis.illumination import IlluminationTracker
from atomstream.analysis.pattern import Pattern
from atomstream.analysis.regions import Box, FrameFeatures, Line, Tracker
from atomstream.analysis.rotation import RotationTracker
from atomstream.analysis.segments import SegmentLog
from atomstream.analysis.surface import SurfaceTracker
from atomstream.records import Frames
from atomstream.results import F32, F64, Event, Segment

BLOCK_S = 0.1

SLOW_S = 0.5


@dataclass(slots=True)
class PatternTrackers:
    """What exists once a pattern was found: the trackers of its spot, streaks, light, growth, rotation, change."""

    pattern: Pattern
    spot: Tracker
    surface: SurfaceTracker
    light: IlluminationTracker
    growth: GrowthTracker
    change: ChangeTracker
    rotation: RotationTracker | None = None

    @property
    def rotation_hz(self) -> float:
        """Turns a second, 0 at rest."""
        return self.rotation.hz if self.rotation else 0.0


@dataclass(slots=True)
class AnalysisState:
    """Everything known of a stream."""

    fps: float
    rpm: float
    calibration: Calibration
    layer_unit: str = ""
    continuous: bool = True
    next_index: int = 0
    last_index: int = -1
    now_s: float = 0.0
    why: str = "no frames yet"
    shape: tuple[int, ...] = ()
    saturation: int = 255
    scene: PatternTrackers | None = None
    search_from: int = 0
    waiting: list[Frames] = field(default_factory=list)
    waiting_times: list[F64] = field(default_factory=list)
    block: list[FrameFeatures] = field(default_factory=list)
    slow_sum: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    slow_frames: int = 0
    boxes: list[Box] = field(default_factory=list)
    trackers: dict[str, Tracker] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    line_profiles: dict[str, F64] = field(default_factory=dict)
    book: SegmentLog = field(default_factory=lambda: SegmentLog([]))
    segments: tuple[Segment, ...] = ()
    marks: list[Event] = field(default_factory=list)
    fresh: list[Event] = field(default_factory=list)
    held: dict[str, float] = field(default_factory=dict)
    saturated: float = 0.0
    last_block_s: float = math.nan
    next_view: int = 0

    @property
    def block_frames(self) -> int:
        """Frames in a block."""
        return max(1, round(BLOCK_S * self.fps))

    @property
    def slow_blocks(self) -> int:
        """Blocks from one slow block to the next."""
        return max(1, round(SLOW_S * self.fps / self.block_frames))

    def is_slow(self, index: int) -> bool:
        """Whether frame ``index`` lies in a slow block."""
        return index // self.block_frames % self.slow_blocks == self.slow_blocks - 1
