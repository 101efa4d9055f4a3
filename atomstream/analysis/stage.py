"""The engine's inside: what is known of a stream, and what each frame, block and slow block does to it.

A *piece* is what comes in one call, cut at block boundaries; a *block* is 0.1 s of frames, at fixed indices, after
which positions are tracked and traces fed; a *slow block* ends each 0.5 s, after which things are fitted. Because
blocks lie at fixed indices, results do not depend on how frames arrive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from atomstream.analysis import fast
from atomstream.analysis.antialias import Decimator
from atomstream.analysis.arrays import F32, F64
from atomstream.analysis.batch import View
from atomstream.analysis.calibration import Calibration
from atomstream.analysis.change import ChangeTracker
from atomstream.analysis.clusters import Clusters
from atomstream.analysis.collect import Collector
from atomstream.analysis.components import Components
from atomstream.analysis.cusum import Cusum
from atomstream.analysis.events import Event
from atomstream.analysis.fast import Features
from atomstream.analysis.finding import Pattern, find_pattern
from atomstream.analysis.fractional import FractionalWatch
from atomstream.analysis.growth import GrowthTracker, PhaseCounter
from atomstream.analysis.hot import healed
from atomstream.analysis.lattice import Comb, Peak
from atomstream.analysis.light import LightTracker
from atomstream.analysis.regions import Box, BoxTrace, Line, Tracker, line_profile, saturation_level
from atomstream.analysis.results import hold
from atomstream.analysis.rotation import RotationTracker
from atomstream.analysis.segments import Segment, SegmentBook
from atomstream.analysis.slowtrace import SlowTrace
from atomstream.analysis.surface import SurfaceTracker
from atomstream.analysis.values import Value
from atomstream.analysis.varpro import Fit
from atomstream.analysis.verdict import Oscillation
from atomstream.analysis.widths import Width
from atomstream.records import Frames

BLOCK_S = 0.1
SLOW_S = 0.5
RETRY_S = 1.0
"""How long to wait before looking again for a pattern that was not there."""

NO_PATTERN = "no spot stands out of the background: no beam, or the picture is saturated or noise"


@dataclass(slots=True)
class Scene:
    """What exists once a pattern was found: the trackers of its spot, streaks, light, growth, rotation, change."""

    pattern: Pattern
    spot: Tracker
    surface: SurfaceTracker
    light: LightTracker
    growth: GrowthTracker
    change: ChangeTracker
    rotation: RotationTracker | None = None

    @property
    def rotation_hz(self) -> float:
        """Turns a second, 0 at rest."""
        return self.rotation.hz if self.rotation else 0.0


@dataclass(slots=True)
class Stage:
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
    scene: Scene | None = None
    search_from: int = 0
    waiting: list[Frames] = field(default_factory=list)
    waiting_times: list[F64] = field(default_factory=list)
    block: list[Features] = field(default_factory=list)
    slow_sum: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    slow_frames: int = 0
    boxes: list[Box] = field(default_factory=list)
    trackers: dict[str, Tracker] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    line_profiles: dict[str, F64] = field(default_factory=dict)
    book: SegmentBook = field(default_factory=lambda: SegmentBook([]))
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


def take(stage: Stage, frames: Frames, times: F64, out: Collector) -> None:
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


def _search(stage: Stage, frames: Frames, times: F64, ends: bool, out: Collector) -> None:
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


def take_waiting(stage: Stage) -> tuple[Frames, F64]:
    """Take out the frames that wait for a pattern, with their times."""
    frames = cast("Frames", np.concatenate(stage.waiting))
    times = np.concatenate(stage.waiting_times)
    stage.waiting, stage.waiting_times = [], []
    return frames, times


def search_now(stage: Stage, held: Frames, held_times: F64, out: Collector) -> None:
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


def _open(stage: Stage, pattern: Pattern, times: F64) -> Scene:
    """Set up the trackers on a pattern just found."""
    # no wider: the diffuse wings beside a streak oscillate against it
    width, height = 1.4 * pattern.fwhm_x, 1.2 * pattern.fwhm_y
    box = Box(round(pattern.x), round(pattern.y), max(5.0, width), max(5.0, height), "specular", tracked=True)
    replaced = [b for b in stage.boxes if b.name == "specular"]
    growth = GrowthTracker(SlowTrace.at(stage.fps, times))
    growth.cut(float(times[0]))
    rotation = RotationTracker.at(stage.rpm, stage.fps) if stage.rpm else None
    return Scene(
        pattern,
        Tracker(replaced[0] if replaced else box),
        SurfaceTracker(pattern),
        LightTracker(float(stage.saturation)),
        growth,
        ChangeTracker(),
        rotation,
    )


def _piece(stage: Stage, frames: Frames, times: F64, ends: bool, out: Collector) -> None:
    scene = _scene(stage)
    boxes = [scene.spot.box, *user_boxes(stage)]
    features = fast.compute(frames, times, scene.pattern, boxes, stage.saturation)
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


def user_boxes(stage: Stage) -> list[Box]:
    """Return the user's boxes where they are now (the one that replaces our specular box left out)."""
    own = [b for b in stage.boxes if b.name != "specular"]
    return [stage.trackers[b.name].box if b.name in stage.trackers else b for b in own]


def _scene(stage: Stage) -> Scene:
    assert stage.scene is not None
    return stage.scene


def end_block(stage: Stage) -> None:
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


def _end_slow(stage: Stage, times: F64) -> None:
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
    hold(stage)


CLASSES: dict[str, type] = {
    c.__name__: c
    for c in (
        *(Stage, Scene, Calibration, Event, Features, Pattern, Box, BoxTrace, Line, Tracker, SurfaceTracker),
        *(LightTracker, GrowthTracker, SlowTrace, Decimator, PhaseCounter, Oscillation, Fit, Value, Segment),
        *(
            SegmentBook,
            ChangeTracker,
            Clusters,
            Components,
            Cusum,
            RotationTracker,
            View,
            Comb,
            Peak,
            Width,
            FractionalWatch,
        ),
    )
}
"""Every record that an engine's state may hold."""
