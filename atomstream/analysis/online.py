"""The engine's inside: what is known of a stream, and what each frame, block and slow block does to it.

A *piece* is what comes in one call, cut at block boundaries; a *block* is 0.1 s of frames, at fixed indices, after
which positions are tracked and traces fed; a *slow block* ends each 0.5 s, after which things are fitted. Because
blocks lie at fixed indices, results do not depend on how frames arrive.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np

from atomstream.analysis.calibration import Calibration
from atomstream.analysis.change import ChangeTracker, Clusters, Components, Cusum
from atomstream.analysis.diffraction_orders import FractionalOrderDetector
from atomstream.analysis.growth import GrowthTracker, PhaseCounter
from atomstream.analysis.illumination import IlluminationTracker
from atomstream.analysis.lattice import Peak, StreakComb
from atomstream.analysis.oscillation_result import Oscillation
from atomstream.analysis.pattern import Pattern, find_pattern, healed
from atomstream.analysis.peak_shape import Width
from atomstream.analysis.regions import (
    Box,
    BoxTrace,
    FrameFeatures,
    Line,
    Region,
    Tracker,
    compute,
    line_profile,
    saturation_level,
)
from atomstream.analysis.rotation import RotationTracker
from atomstream.analysis.scalars import current_values, update_held_values
from atomstream.analysis.segments import SegmentLog
from atomstream.analysis.stream_state import AnalysisState, PatternTrackers
from atomstream.analysis.surface import SurfaceTracker
from atomstream.analysis.trace import Decimator, IntensityTrace
from atomstream.analysis.varpro import Fit
from atomstream.errors import ConfigError
from atomstream.records import Frames
from atomstream.results import F64, FRAME_COLUMNS, Batch, Event, Measurement, Segment, View

# Gathers the per-frame columns of one call, and the values as they stand at its end, into a batch.


class BatchBuilder:
    """One call's results. Columns are filled as pieces pass; held values with what was known at that time."""

    def __init__(self, stage: AnalysisState) -> None:
        self._stage = stage
        self._pieces: list[dict[str, F64]] = []

    def nothing(self, times: F64, frames: Frames, why: str) -> None:
        """Add frames in which nothing could be measured."""
        self._stage.why = why
        whole = (frames >= self._stage.saturation).mean(axis=(1, 2))
        self._pieces.append(
            {"time_seconds": times, "saturated_fraction": np.asarray(whole, dtype=np.float64)}
        )

    def frames(self, features: FrameFeatures, scene: PatternTrackers) -> None:
        """Add a piece's frames."""
        n, surface = len(features), scene.surface
        specular = features.boxes["specular"]
        piece = {name: np.full(n, value) for name, value in self._stage.held.items()}
        piece |= {
            "time_seconds": features.times,
            "specular_intensity": specular.intensity,
            "specular_background": specular.background,
            "saturated_fraction": specular.saturated,
            "specular_x": np.full(n, scene.spot.x),
            "specular_y": np.full(n, scene.spot.y),
        }
        if scene.rotation is None:
            for name, order in (("first_order_intensity", 1.0), ("half_order_intensity", 0.5)):
                left, right = surface.pair(features.profiles, order)
                piece |= {name: 0.5 * (left + right), f"{name}_l": left, f"{name}_r": right}
        else:
            piece["azimuth_angle"] = scene.rotation.last_angles
        piece |= {f"region:{k}": trace.intensity for k, trace in features.boxes.items() if k != "specular"}
        self._pieces.append(piece)

    def renew(self) -> None:
        """Give the block's last frame the values that the block itself has just brought."""
        for name, value in self._stage.held.items():
            column = self._pieces[-1].setdefault(name, np.full(len(self._pieces[-1]["time_seconds"]), np.nan))
            column[-1] = value

    def batch(self) -> Batch:
        """Make the batch; takes the stage's fresh events."""
        stage = self._stage
        count = sum(len(p["time_seconds"]) for p in self._pieces)
        names = [*FRAME_COLUMNS, *sorted({k for p in self._pieces for k in p} - set(FRAME_COLUMNS))]
        columns = {name: self._column(name) for name in names}
        events, stage.fresh = tuple(stage.fresh), []
        scene = stage.scene
        return Batch(
            start=stage.next_index - sum(map(len, stage.waiting)) - count,
            count=count,
            frames=columns,
            values=current_values(stage),
            events=events,
            segments=stage.segments,
            views=scene.rotation.views() if scene and scene.rotation else (),
            profile=scene.surface.smooth if scene else np.empty(0),
            lines=dict(stage.line_profiles),
        )

    def _column(self, name: str) -> F64:
        parts = [p[name] if name in p else np.full(len(p["time_seconds"]), np.nan) for p in self._pieces]
        return np.concatenate(parts) if parts else np.empty(0)


RETRY_S = 1.0
"""How long to wait before looking again for a pattern that was not there."""

NO_PATTERN = "no spot stands out of the background: no beam, or the picture is saturated or noise"


def take(stage: AnalysisState, frames: Frames, times: F64, out: BatchBuilder) -> None:
    """Take frames (N, H, W) that follow the last ones, with their times (N,)."""
    while len(frames):
        stage.shape = tuple(frames.shape[1:])
        count = stage.block_frames - stage.next_index % stage.block_frames
        piece, piece_times = frames[:count], times[:count]
        stage.next_index += len(piece)
        stage.last_index = stage.next_index - 1
        stage.now_s = float(piece_times[-1])
        ends = stage.next_index % stage.block_frames == 0
        if stage.scene is None:
            _search(stage, piece, piece_times, ends, out)
        else:
            _piece(stage, piece, piece_times, ends, out)
        frames, times = frames[count:], times[count:]


def _search(stage: AnalysisState, frames: Frames, times: F64, ends: bool, out: BatchBuilder) -> None:
    """Look for the pattern in the mean of a block; its frames wait until the answer is there."""
    first = stage.next_index - len(frames)
    if first < stage.search_from and not stage.waiting:
        out.nothing(times, frames, NO_PATTERN)
        return
    stage.waiting.append(frames.copy())
    stage.waiting_times.append(times)
    if not ends:
        return
    search_now(stage, *take_waiting(stage), out)


def take_waiting(stage: AnalysisState) -> tuple[Frames, F64]:
    """Take out the frames that wait for a pattern, with their times."""
    frames = cast("Frames", np.concatenate(stage.waiting))
    times = np.concatenate(stage.waiting_times)
    stage.waiting, stage.waiting_times = [], []
    return frames, times


def search_now(stage: AnalysisState, held: Frames, held_times: F64, out: BatchBuilder) -> None:
    """Look for the pattern in these frames; analyse them where it is there, pass them over where not."""
    stage.saturation = saturation_level(held)
    pattern = find_pattern(held.mean(axis=0))
    if pattern is None:
        wait = round(RETRY_S * stage.fps / stage.block_frames) * stage.block_frames
        stage.search_from = stage.next_index + wait
        out.nothing(held_times, held, NO_PATTERN)
        return
    stage.scene = _open(stage, pattern, held_times)
    _piece(stage, held, held_times, stage.next_index % stage.block_frames == 0, out)


def _open(stage: AnalysisState, pattern: Pattern, times: F64) -> PatternTrackers:
    """Set up the trackers on a pattern just found."""
    # no wider: the diffuse wings beside a streak oscillate against it
    width, height = 1.4 * pattern.fwhm_x, 1.2 * pattern.fwhm_y
    box = Box(round(pattern.x), round(pattern.y), max(5.0, width), max(5.0, height), "specular", tracked=True)
    replaced = [b for b in stage.boxes if b.name == "specular"]
    growth = GrowthTracker(IntensityTrace.at(stage.fps, times))
    growth.cut(float(times[0]))
    rotation = RotationTracker.at(stage.rpm, stage.fps) if stage.rpm else None
    return PatternTrackers(
        pattern,
        Tracker(replaced[0] if replaced else box),
        SurfaceTracker(pattern),
        IlluminationTracker(float(stage.saturation)),
        growth,
        ChangeTracker(),
        rotation,
    )


def _piece(stage: AnalysisState, frames: Frames, times: F64, ends: bool, out: BatchBuilder) -> None:
    scene = _scene(stage)
    boxes = [scene.spot.box, *user_boxes(stage)]
    features = compute(frames, times, scene.pattern, boxes, stage.saturation)
    if scene.rotation:
        scene.rotation.piece(frames, features, scene.spot.x)
    out.frames(features, scene)
    stage.block.append(features)
    if stage.is_slow(stage.next_index - 1):
        total = frames.sum(axis=0, dtype=np.uint32).astype(np.float32)
        stage.slow_sum = total if stage.slow_frames == 0 else stage.slow_sum + total
        stage.slow_frames += len(frames)
    if ends:
        end_block(stage)
        out.renew()


def user_boxes(stage: AnalysisState) -> list[Box]:
    """Return the user's boxes where they are now (the one that replaces our specular box left out)."""
    own = [b for b in stage.boxes if b.name != "specular"]
    return [stage.trackers[b.name].box if b.name in stage.trackers else b for b in own]


def _scene(stage: AnalysisState) -> PatternTrackers:
    assert stage.scene is not None
    return stage.scene


def end_block(stage: AnalysisState) -> None:
    """Close the block: move the regions, feed the traces, and at a slow block fit."""
    scene, parts = _scene(stage), stage.block
    stage.block = []
    times = np.concatenate([p.times for p in parts])
    profiles = np.concatenate([p.profiles for p in parts])
    pictures = np.concatenate([p.pictures for p in parts])
    elapsed = len(times) / scene.growth.trace.fps
    specular = _joined([p.boxes["specular"] for p in parts])
    # crests clip, troughs do not: what clipped in the last seconds counts
    stage.saturated = max(float(specular.saturated.mean()), stage.saturated * math.exp(-elapsed / 5.0))
    if not scene.light.dark:
        scene.spot.update(specular, elapsed)
        for name, tracker in stage.trackers.items():
            tracker.update(_joined([p.boxes[name] for p in parts if name in p.boxes]), elapsed)
        if scene.rotation is None:
            appeared = scene.surface.block(profiles, scene.spot.x, elapsed)
            stage.fresh += [
                Event(float(times[-1]), "fractional_order", f"1/{k} order appeared", 1.0 / k)
                for k in appeared
            ]
    lit, events = scene.light.feed(times, specular.intensity, pictures)
    stage.fresh += events
    if events:
        scene.change.restart()
        if scene.rotation:
            scene.rotation.drop_turn()
    scene.growth.feed(lit)
    if stage.slow_frames:
        _end_slow(stage, times)


def _joined(traces: list[BoxTrace]) -> BoxTrace:
    """One box's traces of consecutive pieces as one; the mean crop weighted by frames."""
    if len(traces) == 1:
        return traces[0]
    counts = np.array([len(t.intensity) for t in traces], dtype=np.float64)
    shares = counts / counts.sum()
    mean = np.sum([s * t.mean for s, t in zip(shares, traces, strict=True)], axis=0)
    return BoxTrace(
        np.concatenate([t.intensity for t in traces]),
        np.concatenate([t.background for t in traces]),
        np.concatenate([t.saturated for t in traces]),
        np.asarray(mean),
        traces[0].origin,
    )


def _end_slow(stage: AnalysisState, times: F64) -> None:
    scene, now = _scene(stage), float(times[-1])
    picture = (stage.slow_sum / np.float32(stage.slow_frames)).astype(np.float32)
    stage.slow_frames = 0
    if not scene.light.dark:
        if scene.rotation is None:
            scene.surface.slow(healed(picture, scene.pattern.hot), scene.spot.y)
            moved = (scene.spot.y - scene.pattern.y, scene.spot.x - scene.pattern.x)
            stage.fresh += scene.change.feed(now, picture, moved)
        else:
            scene.rotation.fps = scene.growth.trace.camera_fps()
            stage.fresh += scene.rotation.slow(now, scene)
    stage.line_profiles = {line.name: line_profile(picture.astype(np.float64), line) for line in stage.lines}
    scene.growth.tick(now, scene.rotation_hz)
    stage.segments = stage.book.all(now, scene.growth)
    update_held_values(stage)


CLASSES: dict[str, type] = {
    c.__name__: c
    for c in (
        *(
            AnalysisState,
            PatternTrackers,
            Calibration,
            Event,
            FrameFeatures,
            Pattern,
            Box,
            BoxTrace,
            Line,
            Tracker,
            SurfaceTracker,
        ),
        *(
            IlluminationTracker,
            GrowthTracker,
            IntensityTrace,
            Decimator,
            PhaseCounter,
            Oscillation,
            Fit,
            Measurement,
            Segment,
        ),
        *(
            SegmentLog,
            ChangeTracker,
            Clusters,
            Components,
            Cusum,
            RotationTracker,
            View,
            StreakComb,
            Peak,
            Width,
            FractionalOrderDetector,
        ),
    )
}
"""Every record that an engine's state may hold."""


# What is said to a running engine: marks, gaps, a new rotation, the user's regions, the end.

MAX_GAP_S = 20.0

SHUTTERED_AFTER = 4
"""So many shutter marks, with no rate between any two: the growth is shuttered, its period the recipe's."""


def take_gap(stage: AnalysisState, n_frames: int) -> None:
    """Pass over missing frames: they become NaN in the traces, and an event."""
    # from the last frame on: where frames have times of their own, index / fps is no time
    start_s = stage.now_s + 1.0 / stage.fps if stage.next_index else 0.0
    stage.fresh.append(Event(start_s, "gap", f"{n_frames} frames are missing", float(n_frames)))
    stage.next_index += n_frames
    stage.waiting, stage.waiting_times = [], []
    if stage.scene is None:
        return
    if stage.block:
        end_block(stage)
    scene = stage.scene
    count = min(n_frames, round(MAX_GAP_S * stage.fps))
    scene.growth.trace.skip(start_s + np.arange(count) / stage.fps)
    if scene.rotation:
        scene.rotation.skip(n_frames)


def take_mark(stage: AnalysisState, event: Event) -> None:
    """Note a mark; cut the growth where its kind says so."""
    stage.marks.append(event)
    stage.fresh.append(event)
    if not event.begins_segment or stage.scene is None:
        return
    growth = stage.scene.growth
    if event.kind == "shutter" and _is_shuttered(stage):
        stage.continuous = False
        growth.begin = min(
            growth.begin, [m.at_s for m in stage.marks if m.kind == "shutter"][-SHUTTERED_AFTER]
        )
        return
    stage.book.cut(event.at_s, event.label or event.kind, growth)
    stage.segments = stage.book.all(max(stage.now_s, event.at_s), growth)


def _is_shuttered(stage: AnalysisState) -> bool:
    if not stage.continuous:
        return True
    shutters = [m for m in stage.marks if m.kind == "shutter"]
    if len(shutters) < SHUTTERED_AFTER:
        return False
    since = shutters[-SHUTTERED_AFTER].at_s
    rates = [s.rate.determined for s in stage.book.done if s.start_s >= since]
    assert stage.scene is not None
    return not any(rates) and not stage.scene.growth.latest.determined


def take_rotation(stage: AnalysisState, rpm: float) -> None:
    """Change the rotation: a new segment, and another way to look at the picture."""
    stage.rpm = rpm
    take_mark(stage, Event(stage.now_s, "rotation", f"rotation at {rpm:g} rpm", rpm))
    if stage.scene is not None:
        if stage.scene.rotation is not None:
            stage.next_view = stage.scene.rotation.next_view  # the sample stops and starts anywhere
        stage.scene.rotation = RotationTracker.at(rpm, stage.fps, stage.next_view) if rpm else None
        stage.scene.change.restart()


def take_regions(stage: AnalysisState, regions: list[Region]) -> None:
    """Replace the user's regions; names must differ."""
    names = [r.name for r in regions]
    if len(set(names)) != len(names):
        raise ConfigError(f"regions: each needs a name of its own, not {sorted(names)}")
    if stage.scene is not None and stage.block:
        end_block(stage)
    stage.boxes = [r for r in regions if isinstance(r, Box)]
    stage.lines = [r for r in regions if isinstance(r, Line)]
    stage.trackers = {b.name: Tracker(b) for b in stage.boxes if b.tracked and b.name != "specular"}
    specular = [b for b in stage.boxes if b.name == "specular"]
    if specular and stage.scene is not None:
        stage.scene.spot = Tracker(specular[0])


def current_regions(stage: AnalysisState) -> tuple[Region, ...]:
    """Regions as they stand: specular, streak band, then the user's."""
    own: list[Region] = []
    if stage.scene is not None:
        first, last = stage.scene.pattern.band
        width = float(stage.shape[1])
        own = [stage.scene.spot.box]
        own.append(Box(0.5 * (width - 1), 0.5 * (first + last - 1), width, float(last - first), "streaks"))
    return (*own, *user_boxes(stage), *stage.lines)


def finish(stage: AnalysisState, out: BatchBuilder) -> None:
    """Close what is open; without a pattern, give up the frames that wait for one."""
    if stage.waiting:
        search_now(stage, *take_waiting(stage), out)
    if stage.scene is None:
        return
    if stage.block:
        end_block(stage)
    stage.scene.growth.tick(stage.now_s, stage.scene.rotation_hz)
    stage.segments = stage.book.all(stage.now_s, stage.scene.growth)
