"""Marks that a user removes again while the analysis runs: segments are joined, and counts begin at the mark before.

The frames before are not seen again, so a joined segment is the sum of what was known of its parts. A moved mark is one
that is removed and set at another time.
"""

from __future__ import annotations

import math
from dataclasses import replace

from atomstream.analysis.commands import turn_at
from atomstream.analysis.counts import SAME_TIME_S
from atomstream.analysis.stream_state import AnalysisState
from atomstream.results import Event, Measurement, Segment, measured, undetermined

WHY_JOINED = "two segments were joined when the mark between them was removed"


def remove_mark(state: AnalysisState, event: Event, stated_rpm: float) -> bool:
    """Remove the user's mark ``event``; False if there is none with its label, kind and time.

    ``stated_rpm`` (1/min) holds again if the last change of the rotation is removed.
    """
    found = next((mark for mark in state.marks if _is_same(mark, event)), None)
    if found is None:
        return False
    state.marks.remove(found)
    if found.kind == "rotation":
        speeds = [mark.value for mark in state.marks if mark.kind == "rotation" and mark.value is not None]
        turn_at(state, speeds[-1] if speeds else stated_rpm)
    if state.trackers is None:
        return True
    growth = state.trackers.growth
    still_cut = any(mark.begins_segment and _at(mark.at_s, found.at_s) for mark in state.marks)
    if found.begins_segment and not still_cut:
        _join(state, found.at_s)
        state.segments = state.segment_log.segments(state.now_s, growth)
    growth.counts.remove_mark(found.at_s, max((mark.at_s for mark in state.marks), default=None))
    return True


def _is_same(mark: Event, event: Event) -> bool:
    # The label of a change of the rotation is made from its speed.
    same_label = mark.label == event.label or mark.kind == "rotation"
    return same_label and mark.kind == event.kind and _at(mark.at_s, event.at_s)


def _at(one_s: float, other_s: float) -> bool:
    return abs(one_s - other_s) < SAME_TIME_S


def _join(state: AnalysisState, time_s: float) -> None:
    """Join the two segments that meet at ``time_s`` (s), if there are two."""
    assert state.trackers is not None
    log, growth = state.segment_log, state.trackers.growth
    finished = log.finished
    if _at(growth.segment_start_s, time_s):
        if finished and _at(finished[-1].end_s, time_s):
            last = finished[-1]
            log.finished, log.label = finished[:-1], last.label
            growth.segment_start_s = last.start_s
            count = last.counted.value
            if count is not None:
                growth.counts.segment.continue_from(last.start_s, count, last.counted.sigma or 0.0)
        return
    for k in range(1, len(finished)):
        if _at(finished[k].start_s, time_s) and _at(finished[k - 1].end_s, time_s):
            parts = [*finished[: k - 1], _joined(finished[k - 1], finished[k]), *finished[k + 1 :]]
            log.finished = [replace(part, number=number) for number, part in enumerate(parts)]
            return


def _joined(first: Segment, second: Segment) -> Segment:
    better = min((first, second), key=_rate_error)
    return replace(
        first,
        end_s=second.end_s,
        rate=better.rate,
        cycles=better.cycles,
        counted=_sum(first.counted, second.counted),
        recovery=undetermined(WHY_JOINED, first.recovery.unit),
    )


def _rate_error(segment: Segment) -> float:
    return math.inf if segment.rate.value is None else segment.rate.sigma or 0.0


def _sum(first: Measurement, second: Measurement) -> Measurement:
    if first.value is None or second.value is None:
        return second if first.value is None else first
    sigma = math.hypot(first.sigma or 0.0, second.sigma or 0.0)
    notes = dict.fromkeys(note for note in (first.note, second.note) if note)
    return measured(first.value + second.value, sigma, first.unit, "; ".join(notes))
