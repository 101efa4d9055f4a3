"""Commands to a running analysis: missing frames, rotation changes and the user's regions."""

from __future__ import annotations

import numpy as np

from atomstream.analysis.marks import apply_mark
from atomstream.analysis.online import begin_trace, end_block, flush_light, tracked_boxes, watch_step
from atomstream.analysis.rotation import RotationTracker
from atomstream.analysis.shapes import Box, Line, Region
from atomstream.analysis.stream_state import AnalysisState
from atomstream.analysis.tracking import Tracker
from atomstream.analysis.undeclared_rotation import TurnDetector
from atomstream.counted import counted
from atomstream.errors import ConfigError
from atomstream.results import Event

MAX_GAP_S = 20.0
"""Longest gap, in s, that is written to the growth trace as missing samples."""

SPECULAR_SET = "the specular box was set"


def skip_indices(state: AnalysisState, count: int) -> None:
    """Skip ``count`` frame indices. Whether frames are missing there follows from the next frame."""
    state.next_index += count
    state.skipped += count


def end_skip(state: AnalysisState, time_s: float | None = None, frame_id: int = -1) -> None:
    """Decide about skipped indices at the next frame, with its time in s (None: not known) and counter (-1: not known).

    A chunk that is shorter than the others leaves indices without frames, and none is missing. The number of missing
    frames is that of the camera's counter, else that of the times, else the number of indices.
    """
    slots, state.skipped = state.skipped, 0
    if not slots:
        return
    count = state.missing.counter.missing_before(frame_id, state.fps)
    if count is None and time_s is not None and state.last_index >= 0:
        count = max(0, round((time_s - state.now_s) / state.time_gaps.period(state.fps)) - 1)
    _apply_gap(state, slots, slots if count is None else count)


def _apply_gap(state: AnalysisState, slots: int, n_frames: int) -> None:
    """Go over ``slots`` indices in which ``n_frames`` are missing: NaN in the traces, and a ``gap`` event."""
    state.pending_frames, state.pending_times = [], []
    if state.trackers is not None and state.block_features:
        end_block(state)
    if not n_frames:
        return
    # The gap begins after the last frame; index / fps is wrong for frames that carry their own times.
    start_s = state.now_s + 1.0 / state.fps if state.last_index >= 0 else 0.0
    words = counted(n_frames, "frame is missing", "frames are missing")
    state.new_events.append(Event(start_s, "gap", words, float(n_frames)))
    state.missing.skip()
    state.time_gaps.skip()
    if state.trackers is None:
        return
    trackers = state.trackers
    flush_light(state)
    count = min(n_frames, round(MAX_GAP_S * state.fps))
    trackers.growth.trace.skip_missing(start_s + np.arange(count) / state.fps)
    trackers.restart("gap")
    step, first = watch_step(state), state.next_index - slots
    trackers.turns.skip((state.next_index - 1) // step - (first - 1) // step)
    if trackers.rotation:
        trackers.rotation.skip(n_frames)


def apply_rotation(state: AnalysisState, rpm: float, time_s: float | None = None) -> None:
    """Change the rotation speed (1/min, 0: at rest) at ``time_s`` (s, default: the last frame's time).

    A new segment begins there, and rotation tracking starts or stops at the next frame. A change that comes after a
    later one is a mark only: the later speed holds.
    """
    event = Event(state.now_s if time_s is None else time_s, "rotation", f"rotation at {rpm:g} rpm", rpm)
    apply_mark(state, event)
    if any(
        mark.value is not None and mark.at_s > event.at_s for mark in state.marks if mark.kind == event.kind
    ):
        return
    turn_at(state, rpm)


def turn_at(state: AnalysisState, rpm: float) -> None:
    """Track the rotation at ``rpm`` (1/min, 0: at rest) from the next frame on."""
    state.rpm = rpm
    if state.trackers is not None:
        if state.trackers.rotation is not None:
            # The new azimuths are unrelated to the old ones, so view numbers are not used again.
            state.next_view_id = state.trackers.rotation.next_view_id
        state.trackers.rotation = (
            RotationTracker.for_speed(rpm, state.fps, state.next_view_id) if rpm else None
        )
        state.trackers.restart("rotation")
        state.trackers.turns = TurnDetector()


def apply_regions(state: AnalysisState, regions: list[Region]) -> None:
    """Replace the user's regions. Raises ConfigError if two have the same name.

    A box that did not change keeps the position to which it was tracked. A changed specular box begins a segment.
    """
    names = [r.name for r in regions]
    if len(set(names)) != len(names):
        raise ConfigError(f"regions: names must be unique, got {sorted(names)}")
    if state.trackers is not None and state.block_features:
        end_block(state)
    before = state.boxes
    state.boxes = [r for r in regions if isinstance(r, Box)]
    state.lines = [r for r in regions if isinstance(r, Line)]
    state.box_trackers = {
        b.name: state.box_trackers[b.name] if b in before else Tracker(b)
        for b in state.boxes
        if b.tracked and b.name != "specular"
    }
    specular = next((b for b in state.boxes if b.name == "specular" and b not in before), None)
    if specular is not None and state.trackers is not None:
        begin_trace(state, state.now_s, SPECULAR_SET)
        state.trackers.spot = Tracker(specular)


def current_regions(state: AnalysisState) -> tuple[Region, ...]:
    """Return the regions at their present positions: specular box, streak band, then the user's."""
    regions: list[Region] = []
    if state.trackers is not None:
        first, last = state.trackers.pattern.band
        width = float(state.shape[1])
        regions = [state.trackers.spot.box]
        regions.append(
            Box(0.5 * (width - 1), 0.5 * (first + last - 1), width, float(last - first), "streaks")
        )
    return (*regions, *tracked_boxes(state), *state.lines)
