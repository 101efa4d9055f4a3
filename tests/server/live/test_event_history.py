"""Corrections of the user's events: the log keeps all versions, and of two concurrent edits of one version the second
is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from atomstream.errors import ConfigError
from atomstream.server.live.annotation_records import (
    CalibrationRecord,
    CorrectedEvent,
    EventEntry,
    NewMark,
    TimedEvent,
)
from atomstream.server.live.annotations import Annotations
from atomstream.server.live.event_history import (
    EventChanges,
    EventConflictError,
    EventHistory,
    EventMissingError,
)
from atomstream.server.live.worker import AnalyzerSession
from atomstream.server.live.worker_messages import StreamSettings

FIRST = EventEntry("a", "note", "Ga opne", 1000.0, None)


def test_a_correction_and_its_history_survive_a_restart(tmp_path: Path) -> None:
    """What an event is now, what it was, and what an analyzer needs of it are the same after a restart."""
    path = tmp_path / "inputs.log"
    annotations = Annotations(path)
    annotations.add_event(NewMark("note", "Ga opne", 1000.0, id="a"))
    annotations.correct_event("a", 1, EventChanges(label="Ga open", kind="shutter"))
    annotations.correct_event("a", 2, EventChanges(value=580.0, unit="°C"))
    annotations.add_event(NewMark("note", "gone", 2000.0, id="b"))
    annotations.correct_event("b", 1, EventChanges(deleted=True))
    for again in range(2):
        (event,) = annotations.events(0.0)
        assert (event.label, event.kind, event.value, event.unit, event.version) == (
            *("Ga open", "shutter"),
            *(580.0, "°C", 3),
        )
        assert [one.label for one in annotations.book.history("a")] == ["Ga opne", "Ga open", "Ga open"]
        assert [one.deleted for one in annotations.book.history("b")] == [False, True]
        # The analysis receives no values; it receives shutters and deletions.
        note, gone = TimedEvent("note", "Ga opne", None, 1.0, "a"), TimedEvent("note", "gone", None, 2.0, "b")
        assert annotations.for_analysis(0, 0.0) == [
            note,
            CorrectedEvent(note, TimedEvent("shutter", "Ga open", None, 1.0, "a")),
            gone,
            CorrectedEvent(gone, None),
        ]
        annotations.close()
        if not again:
            annotations = Annotations(path)


def test_the_second_correction_of_a_version_is_refused() -> None:
    """The refusal has the present content of the event; a repeat of the first correction is not a conflict."""
    book = EventHistory()
    book.note(FIRST)
    first = book.correction("a", 1, EventChanges(label="by one"))
    second = book.correction("a", 1, EventChanges(label="by another"))
    assert first is not None
    assert second is not None
    book.note(first)
    book.note(second)  # as on another server, which had not seen the first one
    assert book.holds(first)
    assert not book.holds(second)
    assert [one.label for one in book.history("a")] == ["Ga opne", "by one"]
    with pytest.raises(EventConflictError) as refused:
        book.correction("a", 1, EventChanges(label="by another"))
    assert refused.value.current == first
    assert book.correction("a", 1, EventChanges(label="by one")) is None
    with pytest.raises(EventMissingError):
        book.correction("b", 1, EventChanges())


def test_an_analyzer_receives_only_kinds_it_accepts() -> None:
    """A change of a note to a kind that it does not accept is not sent to it; the deletion names the note as it was
    sent."""
    book = EventHistory()
    book.note(FIRST)
    for changes in (EventChanges(label="x"), EventChanges(kind="temperature"), EventChanges(deleted=True)):
        entry = book.correction("a", len(book.history("a")), changes)
        assert entry is not None
        book.note(entry)
    needed = [book.for_analysis(state, 0.0) for state in book.history("a")]
    first = TimedEvent("note", "Ga opne", None, 1.0, "a")
    assert needed == [first, None, None, CorrectedEvent(first, None)]


def test_a_deleted_event_comes_back() -> None:
    """A restored event has its earlier content and place in the list; an analyzer gets it as a new one."""
    book = EventHistory()
    book.note(FIRST)
    for deleted in (True, False):
        entry = book.correction("a", len(book.history("a")), EventChanges(deleted=deleted))
        assert entry is not None
        book.note(entry)
        assert [one.label for one in book.events(0.0)] == ([] if deleted else ["Ga opne"])
    assert book.for_analysis(book.history("a")[-1], 0.0) == TimedEvent("note", "Ga opne", None, 1.0, "a")


def test_too_many_corrections_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of a stream does not grow without a limit."""
    monkeypatch.setattr("atomstream.server.live.event_history.MAX_CHANGES", 0)
    book = EventHistory()
    book.note(FIRST)
    with pytest.raises(ConfigError, match="corrections"):
        book.correction("a", 1, EventChanges(label="x"))


def test_a_correction_holds_without_what_is_damaged_before_it(tmp_path: Path) -> None:
    """A flipped bit in the log costs one entry: a later correction has the complete content."""
    path = tmp_path / "inputs.log"
    annotations = Annotations(path)
    annotations.add_event(NewMark("note", "one", 1000.0, id="a"))
    annotations.correct_event("a", 1, EventChanges(label="two"))
    annotations.correct_event("a", 2, EventChanges(label="three"))
    annotations.close()
    raw = path.read_bytes()
    for at in (raw.index(b"one"), raw.index(b"two")):
        damaged = bytearray(raw)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        annotations = Annotations(path)
        assert [event.label for event in annotations.events(0.0)] == ["three"]
        annotations.close()


def test_a_mark_that_waits_in_a_worker_is_replaced() -> None:
    """A mark that is corrected before its time has come is applied with its new content only."""
    settings = StreamSettings(20.0, 0.0, 40, CalibrationRecord(), None)
    session = AnalyzerSession(settings)
    first = TimedEvent("note", "M", None, 5.0, "a")
    session.annotate([first, TimedEvent("shutter", "B", None, 6.0, "b")])
    session.annotate([CorrectedEvent(first, TimedEvent("shutter", "M", None, 7.0, "a"))])
    session.annotate([CorrectedEvent(TimedEvent("shutter", "B", None, 6.0, "b"), None)])
    assert [(one.kind, one.time_s) for one in session._events] == [("shutter", 7.0)]
