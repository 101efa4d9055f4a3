"""The worker applies marks and rotations at their own times: the page compares these with the begin of the count."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from atomstream.server.live.annotation_records import CalibrationRecord, TimedEvent
from atomstream.server.live.messages import AnalyzerBatch
from atomstream.server.live.worker import AnalyzerSession
from atomstream.server.live.worker_messages import StreamSettings
from tests.live_helpers import growth

FPS = 60.0


@cache
def times() -> np.ndarray:
    """Times of the frames in s."""
    return np.arange(180) / FPS


def fed(session: AnalyzerSession, first: int, last: int) -> AnalyzerBatch:
    """Analyse the frames ``first`` to ``last`` - 1; returns the last batch."""
    return list(session.feed(first, growth(180)[first:last], times()[first:last]))[-1]


@pytest.fixture
def session() -> AnalyzerSession:
    """The analysis of a stream at rest."""
    return AnalyzerSession(StreamSettings(FPS, 0.0, 60, CalibrationRecord()))


def begins(batch: AnalyzerBatch) -> tuple[float | None, float | None]:
    """Where the count since the last mark begins, and the segment, in s."""
    return batch.values["counted_since_s"].value, batch.segments[-1].start_s


def test_a_rotation_has_its_own_time(session: AnalyzerSession) -> None:
    """A change of the rotation in the middle of a part of frames counts from its time on."""
    fed(session, 0, 60)
    session.annotate([TimedEvent("rotation", "rotation at 5 rpm", 5.0, 1.25)])
    assert begins(fed(session, 60, 120)) == (1.25, 1.25)


def test_a_mark_among_the_first_frames(session: AnalyzerSession) -> None:
    """A mark right after the begin of the recording, before the pattern was searched."""
    session.annotate([TimedEvent("note", "M", None, 0.2), TimedEvent("shutter", "open", None, 0.15)])
    assert begins(fed(session, 0, 60)) == (0.2, 0.15)


def test_marks_that_come_out_of_order(session: AnalyzerSession) -> None:
    """A mark that was sent again later than one of a later time leaves count and segment of that one."""
    fed(session, 0, 60)
    session.annotate([TimedEvent("shutter", "B", None, 1.6)])
    fed(session, 60, 120)
    session.annotate([TimedEvent("shutter", "A", None, 0.8)])
    batch = fed(session, 120, 180)
    assert begins(batch) == (1.6, 1.6)
    assert [segment.label for segment in batch.segments] == ["start", "A", "B"]
