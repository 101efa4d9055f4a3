"""State of the analysis of one stream, and of the trackers that follow its pattern.

The state holds plain records only, so that :mod:`~atomstream.analysis.serialization` can store and restore it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from atomstream.analysis.calibration import Calibration
from atomstream.analysis.change import ChangeTracker, Clusters, Components, Cusum
from atomstream.analysis.common_light import CommonLight
from atomstream.analysis.counts import Counts
from atomstream.analysis.diffraction_orders import FractionalOrderDetector
from atomstream.analysis.fading import BrightPictures, FadeDetector
from atomstream.analysis.failures import Failures
from atomstream.analysis.grey_levels import ClipDetector
from atomstream.analysis.growth import FoundSegment, GrowthTracker
from atomstream.analysis.illumination import IlluminationTracker
from atomstream.analysis.laser import Laser
from atomstream.analysis.lattice import Peak, StreakComb
from atomstream.analysis.layer_count import LayerCounter
from atomstream.analysis.linear_part import Model
from atomstream.analysis.missing_frames import MissingFrames
from atomstream.analysis.oscillation_result import Oscillation
from atomstream.analysis.pattern import Pattern
from atomstream.analysis.peak_shape import Width
from atomstream.analysis.regions import BoxTrace, FrameFeatures
from atomstream.analysis.repeated_events import RepeatedEvents
from atomstream.analysis.rotation import RotationTracker
from atomstream.analysis.saturation import FullScale, Saturation
from atomstream.analysis.segments import SegmentLog
from atomstream.analysis.shapes import Box, Line
from atomstream.analysis.spot_choice import SpotChooser
from atomstream.analysis.sudden_change import SuddenChangeTracker
from atomstream.analysis.surface import SurfaceTracker
from atomstream.analysis.time_gaps import TimeGaps
from atomstream.analysis.trace import Decimator, IntensityTrace
from atomstream.analysis.tracking import Tracker
from atomstream.analysis.undeclared_rotation import PictureHistory, TurnDetector
from atomstream.analysis.varpro import Fit
from atomstream.frame_counter import FrameCounter
from atomstream.records import Frames
from atomstream.results import F32, F64, Event, Measurement, Segment, View

BLOCK_S = 0.1
"""Length of a block: after each, positions are tracked and traces are extended."""

SLOW_BLOCK_S = 0.5
"""Interval of slow blocks: after each, the fits are repeated."""


Restart: TypeAlias = Literal["light", "pattern", "gap", "rotation", "turning", "spot"]
"""Why trackers discard the earlier pictures: the light or the pattern changed, frames are missing, the rotation was
set, the pattern rotates, or another spot or box is the specular one."""


@dataclass(slots=True)
class PatternTrackers:
    """Trackers of the spot, streaks, light, growth, change and rotation; they exist once a pattern was found.

    ``rotation`` follows a stated rotation; without one ``turns`` looks for it.
    """

    pattern: Pattern
    spot: Tracker
    surface: SurfaceTracker
    light: IlluminationTracker
    growth: GrowthTracker
    change: ChangeTracker
    sudden: SuddenChangeTracker
    turns: TurnDetector
    chooser: SpotChooser
    common: CommonLight
    rotation: RotationTracker | None = None

    @property
    def rotation_hz(self) -> float:
        """Rotation speed in turns a second; 0 at rest."""
        return self.rotation.hz if self.rotation else 0.0

    @property
    def no_rate_reason(self) -> str:
        """Why the pattern allows no growth rate, "" if it does: it rotates, and the speed is not known."""
        return self.rotation.reason if self.rotation else self.turns.reason or self.common.reason

    def restart(self, why: Restart) -> None:
        """Discard the earlier pictures: they can't be compared with later ones, for the reason ``why``.

        Without this, a step of the light, a gap or another spot would be reported as a change of the film.
        """
        if why == "light":
            self.sudden.light_changed(self.light.dark)  # a change of the pattern during it is still reported
        elif why != "pattern":
            self.sudden.restart()
        if why != "gap":  # slow comparisons continue over gaps, which may be frequent
            self.change.restart()
            self.chooser.restart()
            self.common.restart()
        self.surface.restart_orders()
        if self.rotation is not None:
            self.rotation.discard_turn()


@dataclass(slots=True)
class AnalysisState:
    """State of the analysis of one stream.

    Settings: ``fps``, ``rpm``, ``calibration``, ``layer_unit``, ``growth_is_continuous``. Position: ``next_index``,
    ``last_index`` (frame numbers), ``now_s`` (time of the last frame). ``trackers`` is None until a pattern was
    found; until then frames wait in ``pending_frames``. ``clip`` finds where the sensor clips, ``white`` is its largest
    value if its greys are inverted, else 0. ``block_features`` are the features of the current block,
    ``slow_block_sum`` the sum of ``slow_block_frames`` frames of the current slow block. ``boxes``, ``box_trackers``
    and ``lines`` are the user's regions. ``new_events`` go out with the next batch; ``held_values`` are written to
    the per-frame columns until the next slow block; ``failures`` are the steps whose last run raised an error.
    ``skipped`` is the number of frame indices without a frame after the last frame: the next frame decides whether they
    are missing frames, or room in a short chunk. ``missing`` and ``dropouts`` hold small gaps and short changes of the
    light that are reported together, ``time_gaps`` finds gaps by the times of frames.
    """

    fps: float
    rpm: float
    calibration: Calibration
    layer_unit: str = ""
    growth_is_continuous: bool = True
    next_index: int = 0
    last_index: int = -1
    now_s: float = 0.0
    no_pattern_reason: str = "no frames yet"
    shape: tuple[int, ...] = ()
    clip: ClipDetector = field(default_factory=ClipDetector)
    white: int = 0
    trackers: PatternTrackers | None = None
    next_search_index: int = 0
    pending_frames: list[Frames] = field(default_factory=list)
    pending_times: list[F64] = field(default_factory=list)
    block_features: list[FrameFeatures] = field(default_factory=list)
    slow_block_sum: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    slow_block_frames: int = 0
    boxes: list[Box] = field(default_factory=list)
    box_trackers: dict[str, Tracker] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    line_profiles: dict[str, F64] = field(default_factory=dict)
    segment_log: SegmentLog = field(default_factory=lambda: SegmentLog([]))
    segments: tuple[Segment, ...] = ()
    marks: list[Event] = field(default_factory=list)
    new_events: list[Event] = field(default_factory=list)
    held_values: dict[str, float] = field(default_factory=dict)
    saturation: Saturation = field(default_factory=Saturation)
    next_view_id: int = 0
    failures: Failures = field(default_factory=Failures)
    missing: MissingFrames = field(default_factory=MissingFrames)
    time_gaps: TimeGaps = field(default_factory=TimeGaps)
    skipped: int = 0
    dropouts: RepeatedEvents = field(default_factory=RepeatedEvents)

    @property
    def clip_level(self) -> int:
        """Smallest grey level that counts as saturated."""
        return min(self.clip.level, self.saturation.scale.level)

    @property
    def block_frames(self) -> int:
        """Number of frames in a block, at least 1."""
        return max(1, round(BLOCK_S * self.fps))

    @property
    def blocks_per_slow_block(self) -> int:
        """Number of blocks from one slow block to the next, at least 1."""
        return max(1, round(SLOW_BLOCK_S * self.fps / self.block_frames))

    def in_slow_block(self, index: int) -> bool:
        """Return True if frame ``index`` lies in a slow block."""
        return index // self.block_frames % self.blocks_per_slow_block == self.blocks_per_slow_block - 1


_RECORDS: tuple[type, ...] = (
    *(
        AnalysisState,
        PatternTrackers,
        ClipDetector,
        FullScale,
        Saturation,
        SpotChooser,
        CommonLight,
        Calibration,
        Pattern,
        Box,
        Line,
        Tracker,
        BoxTrace,
        FrameFeatures,
        BrightPictures,
        FadeDetector,
    ),
    *(SurfaceTracker, StreakComb, Peak, Width, FractionalOrderDetector, IlluminationTracker, RotationTracker),
    *(
        GrowthTracker,
        Counts,
        LayerCounter,
        FoundSegment,
        Laser,
        IntensityTrace,
        Decimator,
        Oscillation,
        Fit,
        Model,
        SegmentLog,
    ),
    *(
        ChangeTracker,
        Clusters,
        Components,
        Cusum,
        SuddenChangeTracker,
        TurnDetector,
        PictureHistory,
        FrameCounter,
        MissingFrames,
        TimeGaps,
        RepeatedEvents,
    ),
    *(Measurement, Event, Segment, View, Failures),
)

STATE_CLASSES: dict[str, type] = {record.__name__: record for record in _RECORDS}
"""All record classes that a stored state may contain, by name."""
