"""What is said to a running engine: marks, gaps, a new rotation, the user's regions, the end."""

from __future__ import annotations

import numpy as np

from atomstream.analysis import stage as inside
from atomstream.analysis.collect import Collector
from atomstream.analysis.events import Event
from atomstream.analysis.regions import Box, Line, Region, Tracker
from atomstream.analysis.rotation import RotationTracker
from atomstream.analysis.stage import Stage
from atomstream.errors import ConfigError

MAX_GAP_S = 20.0
SHUTTERED_AFTER = 4
"""So many shutter marks, with no rate between any two: the growth is shuttered, its period the recipe's."""


def take_gap(stage: Stage, n_frames: int) -> None:
    """Pass over missing frames: they become NaN in the traces, and an event."""
    # from the last frame on: where frames have times of their own, index / fps is no time
    start_s = stage.now_s + 1.0 / stage.fps if stage.next_index else 0.0
    stage.fresh.append(Event(start_s, "gap", f"{n_frames} frames are missing", float(n_frames)))
    stage.next_index += n_frames
    stage.waiting, stage.waiting_times = [], []
    if stage.scene is None:
        return
    if stage.block:
        inside.end_block(stage)
    scene = stage.scene
    count = min(n_frames, round(MAX_GAP_S * stage.fps))
    scene.growth.trace.skip(start_s + np.arange(count) / stage.fps)
    if scene.rotation:
        scene.rotation.skip(n_frames)


def take_mark(stage: Stage, event: Event) -> None:
    """Note a mark; cut the growth where its kind says so."""
    stage.marks.append(event)
    stage.fresh.append(event)
    if not event.cuts or stage.scene is None:
        return
    growth = stage.scene.growth
    if event.kind == "shutter" and _is_shuttered(stage):
        stage.continuous = False
        growth.begin = min(
            growth.begin, [m.time_s for m in stage.marks if m.kind == "shutter"][-SHUTTERED_AFTER]
        )
        return
    stage.book.cut(event.time_s, event.label or event.kind, growth)
    stage.segments = stage.book.all(max(stage.now_s, event.time_s), growth)


def _is_shuttered(stage: Stage) -> bool:
    if not stage.continuous:
        return True
    shutters = [m for m in stage.marks if m.kind == "shutter"]
    if len(shutters) < SHUTTERED_AFTER:
        return False
    since = shutters[-SHUTTERED_AFTER].time_s
    rates = [s.rate.determined for s in stage.book.done if s.start_s >= since]
    assert stage.scene is not None
    return not any(rates) and not stage.scene.growth.latest.determined


def take_rotation(stage: Stage, rpm: float) -> None:
    """Change the rotation: a new segment, and another way to look at the picture."""
    stage.rpm = rpm
    take_mark(stage, Event(stage.now_s, "rotation", f"rotation at {rpm:g} rpm", rpm))
    if stage.scene is not None:
        if stage.scene.rotation is not None:
            stage.next_view = stage.scene.rotation.next_view  # the sample stops and starts anywhere
        stage.scene.rotation = RotationTracker.at(rpm, stage.fps, stage.next_view) if rpm else None
        stage.scene.change.restart()


def take_regions(stage: Stage, regions: list[Region]) -> None:
    """Replace the user's regions; names must differ."""
    names = [r.name for r in regions]
    if len(set(names)) != len(names):
        raise ConfigError(f"regions: each needs a name of its own, not {sorted(names)}")
    if stage.scene is not None and stage.block:
        inside.end_block(stage)
    stage.boxes = [r for r in regions if isinstance(r, Box)]
    stage.lines = [r for r in regions if isinstance(r, Line)]
    stage.trackers = {b.name: Tracker(b) for b in stage.boxes if b.tracked and b.name != "specular"}
    specular = [b for b in stage.boxes if b.name == "specular"]
    if specular and stage.scene is not None:
        stage.scene.spot = Tracker(specular[0])


def regions(stage: Stage) -> tuple[Region, ...]:
    """Regions as they stand: specular, streak band, then the user's."""
    own: list[Region] = []
    if stage.scene is not None:
        first, last = stage.scene.pattern.band
        width = float(stage.shape[1])
        own = [stage.scene.spot.box]
        own.append(Box(0.5 * (width - 1), 0.5 * (first + last - 1), width, float(last - first), "streaks"))
    return (*own, *inside.user_boxes(stage), *stage.lines)


def finish(stage: Stage, out: Collector) -> None:
    """Close what is open; without a pattern, give up the frames that wait for one."""
    if stage.waiting:
        inside.search_now(stage, *inside.take_waiting(stage), out)
    if stage.scene is None:
        return
    if stage.block:
        inside.end_block(stage)
    stage.scene.growth.tick(stage.now_s, stage.scene.rotation_hz)
    stage.segments = stage.book.all(stage.now_s, stage.scene.growth)
