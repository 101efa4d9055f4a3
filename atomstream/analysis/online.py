"""The steps of the online analysis: what is computed for each piece, block and slow block of frames.

A *piece* is the part of one call's frames that lies in one block. A *block* is 0.1 s of frames; after it, positions
are tracked and traces are extended. A *slow block* ends every 0.5 s; after it, the fits are repeated. Blocks begin
at fixed frame numbers, so the results do not depend on how the frames are cut into calls.
"""

from __future__ import annotations

import dataclasses
import math
from typing import cast

import numpy as np

from atomstream.analysis.batch_builder import BatchBuilder
from atomstream.analysis.change import ChangeTracker
from atomstream.analysis.common_light import CommonLight, outside_of
from atomstream.analysis.counts import Counts
from atomstream.analysis.grey_levels import ClipDetector, inverted, white_level
from atomstream.analysis.growth import GrowthTracker
from atomstream.analysis.illumination import IlluminationTracker, sampled_pixels
from atomstream.analysis.marks import apply_earlier_marks
from atomstream.analysis.pattern import Pattern, find_pattern, is_inverted, without_hot_pixels
from atomstream.analysis.regions import (
    BoxTrace,
    FrameFeatures,
    bin_factor,
    block_means,
    compute_features,
    line_profile,
    measure_box,
)
from atomstream.analysis.rotation import RotationTracker
from atomstream.analysis.saturation import Saturation
from atomstream.analysis.scalars import update_held_values
from atomstream.analysis.shapes import Box
from atomstream.analysis.spot_choice import SpotChooser
from atomstream.analysis.stream_state import AnalysisState, PatternTrackers
from atomstream.analysis.sudden_change import SuddenChangeTracker
from atomstream.analysis.surface import SurfaceTracker
from atomstream.analysis.trace import IntensityTrace
from atomstream.analysis.tracking import Tracker
from atomstream.analysis.undeclared_rotation import PICTURES_HZ, TurnDetector
from atomstream.records import Frames
from atomstream.results import F32, F64, Event

RETRY_S = 1.0
"""Interval of the search for a pattern while none is found."""

NO_PATTERN = "no spot is brighter than the background: no beam, or the picture is saturated or noise"


OTHER_SPOT_LABEL = "another spot"
OTHER_SPOT = "the spot so far never changed, another one does: it is taken as the specular spot from now on"

INVERTED = "dark spots on a bright background: the camera's greys are inverted, and are inverted back"


def feed_frames(state: AnalysisState, frames: Frames, times: F64, out: BatchBuilder) -> None:
    """Analyse frames (N, H, W) that follow the last ones, with their times (N,) in s."""
    while len(frames):
        state.shape = tuple(frames.shape[1:])
        count = state.block_frames - state.next_index % state.block_frames
        piece, piece_times = frames[:count], times[:count]
        if state.white:
            piece = inverted(piece, state.white)
        state.next_index += len(piece)
        state.last_index = state.next_index - 1
        state.now_s = float(piece_times[-1])
        is_block_end = state.next_index % state.block_frames == 0
        if state.trackers is None:
            _collect_for_search(state, piece, piece_times, is_block_end, out)
        else:
            _feed_piece(state, piece, piece_times, is_block_end, out)
        frames, times = frames[count:], times[count:]


def _collect_for_search(
    state: AnalysisState, frames: Frames, times: F64, is_block_end: bool, out: BatchBuilder
) -> None:
    """Keep the frames until the end of the block, then search for the pattern in their mean."""
    first = state.next_index - len(frames)
    if first < state.next_search_index and not state.pending_frames:
        out.add_unmeasured(times, frames, NO_PATTERN)
        return
    state.pending_frames.append(frames.copy())
    state.pending_times.append(times)
    if not is_block_end:
        return
    search_pattern(state, *pop_pending(state), out)


def pop_pending(state: AnalysisState) -> tuple[Frames, F64]:
    """Remove and return the frames that wait for a pattern search, with their times."""
    frames = cast("Frames", np.concatenate(state.pending_frames))
    times = np.concatenate(state.pending_times)
    state.pending_frames, state.pending_times = [], []
    return frames, times


def search_pattern(state: AnalysisState, frames: Frames, times: F64, out: BatchBuilder) -> None:
    """Search for the pattern in the mean of ``frames``; analyse them if it was found, else skip them."""
    state.clip, state.saturation = ClipDetector.for_frames(frames), Saturation.for_frames(frames)
    white = 0 if state.white or not is_inverted(frames.mean(axis=0)) else white_level(frames)
    turned = inverted(frames, white) if white else frames
    pattern = find_pattern(turned.mean(axis=0))
    if pattern is None:
        wait = round(RETRY_S * state.fps / state.block_frames) * state.block_frames
        state.next_search_index = state.next_index + wait
        out.add_unmeasured(times, frames, NO_PATTERN)
        return
    if white:
        state.white, frames = white, turned
        state.new_events.append(Event(float(times[0]), "inverted", INVERTED))
    state.trackers = _start_trackers(state, pattern, times)
    apply_earlier_marks(state, float(times[0]))
    _feed_piece(state, frames, times, state.next_index % state.block_frames == 0, out)


def _start_trackers(state: AnalysisState, pattern: Pattern, times: F64) -> PatternTrackers:
    """Create the trackers for a pattern just found."""
    # A wider box would include the diffuse wings of the streak, which oscillate in antiphase.
    width, height = 1.4 * pattern.fwhm_x, 1.2 * pattern.fwhm_y
    box = Box(round(pattern.x), round(pattern.y), max(5.0, width), max(5.0, height), "specular", tracked=True)
    replaced = [b for b in state.boxes if b.name == "specular"]
    growth = GrowthTracker(IntensityTrace.for_frames(state.fps, times))
    growth.counts = Counts.from_start(float(times[0]))
    growth.start_segment(float(times[0]))
    rotation = RotationTracker.for_speed(state.rpm, state.fps) if state.rpm else None
    return PatternTrackers(
        pattern,
        Tracker(replaced[0] if replaced else box),
        SurfaceTracker(pattern),
        IlluminationTracker(float(state.clip_level), state.fps),
        growth,
        ChangeTracker(),
        SuddenChangeTracker(),
        TurnDetector(),
        SpotChooser(),
        CommonLight(),
        rotation,
    )


def _feed_piece(
    state: AnalysisState, frames: Frames, times: F64, is_block_end: bool, out: BatchBuilder
) -> None:
    trackers = _trackers(state)
    y0, y1, x0, x1 = trackers.spot.box.bounds(*frames.shape[1:])
    state.clip.add(frames[:, y0:y1, x0:x1])
    boxes = {"specular": trackers.spot.measure(frames, state.clip_level, 1.0 / state.fps)}
    for box in tracked_boxes(state):
        if box.name in state.box_trackers:
            boxes[box.name] = state.box_trackers[box.name].measure(frames, state.clip_level, 1.0 / state.fps)
        else:
            boxes[box.name] = measure_box(frames, box, state.clip_level)
    features = compute_features(frames, times, trackers.pattern, boxes)
    if trackers.rotation:
        trackers.rotation.feed(frames, features, trackers.spot.x)
    else:
        _watch_for_turns(state, frames, float(times[0]))
    out.add_frames(features, trackers)
    state.block_features.append(features)
    if state.in_slow_block(state.next_index - 1):
        total = frames.sum(axis=0, dtype=np.uint32).astype(np.float32)
        state.slow_block_sum = total if state.slow_block_frames == 0 else state.slow_block_sum + total
        state.slow_block_frames += len(frames)
    if is_block_end:
        state.saturation.add_picture(frames[-1], state.clip.level, state.block_frames / state.fps)
        end_block(state)
        out.update_last_frame()


def _watch_for_turns(state: AnalysisState, frames: Frames, time_s: float) -> None:
    """Give the first frame of a block, about five a second, to the detector of an undeclared rotation."""
    trackers, first = _trackers(state), state.next_index - len(frames)
    if first % watch_step(state) == 0:
        widths = (trackers.pattern.fwhm_y, trackers.pattern.fwhm_x)
        trackers.turns.feed(time_s, frames[0], trackers.spot.box, widths, dark=trackers.light.dark)


def watch_step(state: AnalysisState) -> int:
    """Return the number of frames from one picture of the detector of an undeclared rotation to the next."""
    return max(1, round(state.fps / state.block_frames / PICTURES_HZ)) * state.block_frames


def tracked_boxes(state: AnalysisState) -> list[Box]:
    """Return the user's boxes at their present positions, without one that replaces the specular box."""
    regions = [b for b in state.boxes if b.name != "specular"]
    return [state.box_trackers[b.name].box if b.name in state.box_trackers else b for b in regions]


def _trackers(state: AnalysisState) -> PatternTrackers:
    assert state.trackers is not None
    return state.trackers


def end_block(state: AnalysisState) -> None:
    """End the block: move the regions, extend the traces and, at the end of a slow block, repeat the fits."""
    trackers, parts = _trackers(state), state.block_features
    state.block_features = []
    times = np.concatenate([p.times for p in parts])
    profiles = np.concatenate([p.profiles for p in parts])
    pictures = np.concatenate([p.pictures for p in parts])
    elapsed = len(times) / trackers.growth.trace.fps
    state.clip.end_block()
    trackers.light.saturation = float(state.clip_level)
    specular = _concatenated([p.boxes["specular"] for p in parts])
    state.saturation.update(
        {name: _mean_saturated(parts, name) for name in parts[-1].boxes if name in parts[0].boxes}, elapsed
    )
    state.saturation.keep_only(set(parts[-1].boxes))
    for tracker in (trackers.spot, *state.box_trackers.values()):
        tracker.end_block(elapsed, trackers.light.is_steady)
    now = float(times[-1])
    if trackers.turns.reason:
        trackers.restart("turning")
    if trackers.light.is_steady and not (trackers.rotation or trackers.turns.reason):
        with state.failures.contained("streaks", now):
            new_orders = trackers.surface.update_block(profiles, trackers.spot.x, elapsed)
            state.new_events += [
                Event(now, "fractional_order", f"1/{k} order appeared", 1.0 / k) for k in new_orders
            ]
        with state.failures.contained("sudden changes", now):
            _report_sudden(state, trackers.sudden.feed(times, profiles, trackers.pattern, state.fps))
    with state.failures.contained("light", now):
        _watch_light(state, specular, pictures)
        corrected, events = trackers.light.feed(times, specular.intensity, specular.motion, pictures)
        _report_light(state, events)
        trackers.growth.feed(corrected)
    if state.slow_block_frames:
        _end_slow_block(state, times)


def _mean_saturated(parts: list[FrameFeatures], name: str) -> float:
    """Return the mean share of saturated pixels of a box in consecutive pieces."""
    return float(np.concatenate([part.boxes[name].saturated for part in parts]).mean())


def _watch_light(state: AnalysisState, specular: BoxTrace, pictures: F32) -> None:
    """Compare spot, other streaks and background, while the light is steady and nothing rotates."""
    trackers, (height, width) = _trackers(state), state.shape
    if trackers.rotation or not trackers.light.is_steady:
        return
    rows, columns = (
        np.arange(n)[part] for n, part in zip(state.shape, sampled_pixels(height, width), strict=True)
    )
    outside = outside_of(trackers.spot.box, (height, width), rows, columns)
    trackers.common.feed(specular.intensity, pictures, outside)


def flush_light(state: AnalysisState) -> None:
    """Extend the traces by the samples that wait for the frames after them, because none follow."""
    trackers = _trackers(state)
    with state.failures.contained("light", state.now_s):
        corrected, events = trackers.light.flush()
        _report_light(state, events)
        trackers.growth.feed(corrected)


def begin_trace(state: AnalysisState, time_s: float, label: str) -> None:
    """Begin a new trace, and with it a segment, at ``time_s`` (s): another spot or box is measured from now on.

    What is known of the laser and of the growth rate is kept.
    """
    flush_light(state)  # the frames that wait belong to the old trace
    trackers = _trackers(state)
    old = trackers.growth
    fresh = GrowthTracker(IntensityTrace.for_frames(old.trace.stated_fps, old.trace.raw_t[-16:]))
    fresh.laser, fresh.known_hz = old.laser, old.known_hz
    state.segment_log.cut(time_s, label, old)
    fresh.counts = old.counts
    fresh.start_segment(time_s)
    fresh.count_note = f"counted from {time_s:.1f} s on, when this spot was chosen"
    trackers.growth = fresh
    state.saturation.shares.pop("specular", None)
    trackers.restart("spot")
    state.segments = state.segment_log.segments(time_s, fresh)


def _report_light(state: AnalysisState, events: list[Event]) -> None:
    """Report changes of the light; short ones that repeat are reported together."""
    if events:
        _trackers(state).restart("light")
    for event in events:
        state.new_events += state.dropouts.add(event, state.now_s) if event.kind == "dropout" else [event]
    state.new_events += state.dropouts.due(state.now_s)


def _report_sudden(state: AnalysisState, changes: list[Event]) -> None:
    """Report changes from frame to frame; the slow comparison begins again, so that it does not report them too."""
    state.new_events += changes
    if changes:
        _trackers(state).restart("pattern")


def _choose_spot(state: AnalysisState, picture: F32, times: F64) -> None:
    """Take another spot as the specular one if it changes while the chosen one never does."""
    trackers, height, width = _trackers(state), *picture.shape
    if any(box.name == "specular" for box in state.boxes):
        return  # the user has chosen
    binning = bin_factor(height, width)
    place = trackers.chooser.feed(block_means(picture, binning), binning, trackers.spot.box)
    pattern = find_pattern(picture.astype(np.float64), place) if place else None
    if pattern is None:
        return
    begin_trace(state, float(times[-1]), OTHER_SPOT_LABEL)
    fresh = _start_trackers(state, pattern, times)
    trackers.pattern, trackers.spot, trackers.surface = fresh.pattern, fresh.spot, fresh.surface
    state.new_events.append(Event(float(times[-1]), "spot", OTHER_SPOT))


def _concatenated(traces: list[BoxTrace]) -> BoxTrace:
    """Join one box's traces of consecutive pieces."""
    if len(traces) == 1:
        return traces[0]
    return BoxTrace(
        *(np.concatenate([getattr(trace, f.name) for trace in traces]) for f in dataclasses.fields(BoxTrace))
    )


def _end_slow_block(state: AnalysisState, times: F64) -> None:
    trackers, now = _trackers(state), float(times[-1])
    picture = (state.slow_block_sum / np.float32(state.slow_block_frames)).astype(np.float32)
    state.slow_block_frames = 0
    with state.failures.contained("rotation", now):
        if trackers.rotation is None and trackers.turns.update():
            state.new_events.append(
                Event(now, "rotation_seen", trackers.turns.reason, trackers.turns.turning_hz or math.nan)
            )
        # Streaks that brighten at some azimuths may look like steps of the light, again and again.
        if trackers.rotation is not None and not trackers.light.dark:
            missing = trackers.growth.trace.clock().missing_share
            trackers.rotation.fps = trackers.growth.trace.camera_fps() * (1.0 - missing)
            state.new_events += trackers.rotation.update(
                now, trackers.pattern, trackers.spot, trackers.change
            )
    if trackers.light.is_steady and trackers.rotation is None:
        _update_surface(state, times, picture)
    state.line_profiles = {line.name: line_profile(picture.astype(np.float64), line) for line in state.lines}
    trackers.growth.veto = trackers.no_rate_reason
    _update_growth(state, now)
    update_held_values(state)


def _update_surface(state: AnalysisState, times: F64, picture: F32) -> None:
    """Measure streaks and changes in the mean picture (H, W) of a slow block of a sample at rest."""
    trackers, now = _trackers(state), float(times[-1])
    if trackers.turns.reason:
        return
    with state.failures.contained("streak widths", now):
        trackers.surface.update_slow_block(
            without_hot_pixels(picture, trackers.pattern.hot_pixels), trackers.spot.y
        )
    with state.failures.contained("changes", now):
        drift_px = (trackers.spot.y - trackers.pattern.y, trackers.spot.x - trackers.pattern.x)
        changes = trackers.change.feed(now, picture, drift_px, trackers.pattern)
        # A change that also shows from frame to frame is reported when it is over, at its right time.
        state.new_events += [] if trackers.sudden.goes_on else changes
    with state.failures.contained("spot choice", now):
        _choose_spot(state, picture, times)


def _update_growth(state: AnalysisState, now: float) -> None:
    """Repeat the fit of the growth rate; add the segments whose end it found, with their events."""
    trackers = _trackers(state)
    with state.failures.contained("growth rate", now):
        trackers.growth.update(now, trackers.rotation_hz)
        for segment in trackers.growth.pop_found():
            state.segment_log.add(segment, trackers.growth.trace)
            state.new_events.append(Event(segment.end_s, segment.next_kind, state.segment_log.label))
        state.segments = state.segment_log.segments(now, trackers.growth)


def finish(state: AnalysisState, out: BatchBuilder) -> None:
    """End the analysis: search once more in frames that still wait, end the open block and repeat the fit."""
    state.new_events += [*state.missing.report(state.fps), *state.time_gaps.report(state.fps)]
    if state.pending_frames:
        search_pattern(state, *pop_pending(state), out)
    if state.trackers is None:
        return
    if state.block_features:
        end_block(state)
    flush_light(state)
    state.new_events += state.dropouts.report()
    with state.failures.contained("sudden changes", state.now_s):
        _report_sudden(state, state.trackers.sudden.finish())
    _update_growth(state, state.now_s)
