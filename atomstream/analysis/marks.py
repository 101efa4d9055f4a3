"""Marks of the user in a running analysis: new segments of growth, and the count of oscillations since the last mark.

Marks may come late, in any order of their times, and before a pattern was found. The analysis counts since the mark
with the latest time, whichever came last.
"""

from __future__ import annotations

from atomstream.analysis.stream_state import AnalysisState
from atomstream.results import Event

SHUTTERED_AFTER = 4
"""After this many shutter marks without a rate between any two, the growth counts as shuttered: the oscillation
period is then the period of the recipe."""


def apply_mark(state: AnalysisState, event: Event) -> None:
    """Add the user's mark; marks of the kinds in ``SEGMENT_KINDS`` begin a new segment.

    Without a pattern there is no growth to divide yet: :func:`apply_earlier_marks` does so when one is found.
    """
    state.marks.append(event)
    state.marks.sort(key=lambda mark: mark.at_s)
    state.new_events.append(event)
    if state.trackers is not None:
        _divide_growth(state, event)


def apply_earlier_marks(state: AnalysisState, start_s: float) -> None:
    """Apply the marks after ``start_s`` (s), where the growth begins, that came before its pattern was found."""
    for event in state.marks:
        if event.at_s > start_s:
            _divide_growth(state, event)


def _divide_growth(state: AnalysisState, event: Event) -> None:
    """Begin the count since the last mark, and a segment if the mark begins one."""
    assert state.trackers is not None
    growth, log = state.trackers.growth, state.segment_log
    if event.begins_segment:
        if event.kind == "shutter" and _is_shuttered(state):
            state.growth_is_continuous = False
            shutters = [m for m in state.marks if m.kind == "shutter"]
            growth.segment_start_s = min(growth.segment_start_s, shutters[-SHUTTERED_AFTER:][0].at_s)
        else:
            if log.finished and event.at_s < growth.counter.start_s:  # a later mark or spot ended one
                log.divide(event.at_s, event.label or event.kind)
            else:
                log.cut(event.at_s, event.label or event.kind, growth)
            state.segments = log.segments(max(state.now_s, event.at_s), growth)
    growth.counts.begin_mark(event.at_s)


def _is_shuttered(state: AnalysisState) -> bool:
    if not state.growth_is_continuous:
        return True
    shutters = [m for m in state.marks if m.kind == "shutter"]
    if len(shutters) < SHUTTERED_AFTER:
        return False
    since_s = shutters[-SHUTTERED_AFTER].at_s
    rates = [s.rate.determined for s in state.segment_log.finished if s.start_s >= since_s]
    assert state.trackers is not None
    return not any(rates) and not state.trackers.growth.latest.determined
