"""Words and numbers for people: kinds of marks, times on the command line, the state in one line."""

from __future__ import annotations

from typing import Any

import pytest

from atomstream.cli.record import parse_time
from atomstream.errors import ConfigError
from atomstream.record.marks import Mark, kind_of
from atomstream.record.saved_time import SavedTime
from atomstream.record.snapshot import clock_text, outcome_text, state_line


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("Ga open", "shutter"),
        ("As VALVE 40 %", "shutter"),
        ("Laser on", "laser"),
        ("laser shutter", "laser"),
        ("growth starts", "growth"),
        ("anneal 600 °C", "pause"),
        ("Mark 3", "note"),
        ("reopened the door", "note"),
        ("プルームが見える", "note"),
    ],
)
def test_the_kind_of_a_mark(label: str, kind: str) -> None:
    """The kind of a mark follows from whole words of its label; other labels are notes."""
    assert kind_of(label) == Mark(label).kind == kind


def test_marks_that_are_none() -> None:
    """A label must have characters, and not too many."""
    for label in ("", "  ", "x" * 201):
        with pytest.raises(ConfigError, match="label"):
            Mark(label)


def test_times_on_the_command_line() -> None:
    """Seconds, minutes and hours; anything else is refused."""
    found = [parse_time(text) for text in ("0", "90", "90s", " 10 min ", "1.5h")]
    assert found == [0.0, 90.0, 90.0, 600.0, 5400.0]
    for text in ("", "-1s", "5days", "1e9999", "nan", "10 min 3"):
        with pytest.raises(ConfigError, match="is not a time"):
            parse_time(text)


def test_the_state_in_one_line() -> None:
    """Recording, frames lost, saved up to, and how long the disk suffices."""
    values: dict[str, Any] = {
        "state": "recording",
        "recording": {"seconds": 3725.9, "lost": 2, "saved_ms": 1_735_689_600_000.0},
        "disk": {"seconds_left": 3.2 * 86_400},
    }
    saved = clock_text(1_735_689_600_000.0)
    assert state_line(values) == f"recording 1:02:05, 2 frames lost, saved up to {saved}, disk for 3.2 days"
    values["recording"]["saved_ms"] = None
    values["disk"]["seconds_left"] = None
    assert state_line(values) == "recording 1:02:05, 2 frames lost, nothing saved yet"


def test_how_a_recording_ended() -> None:
    """Saved, ended by an error with what is saved, or nothing: an empty or failed recording is not called saved."""
    values: dict[str, Any] = {
        "name": "GaN",
        "problem": "",
        "seconds": 83.2,
        "frames": 1660,
        "saved_frames": 1660,
        "lost": 2,
    }
    assert outcome_text(values) == "GaN is saved: 0:01:23, 1660 frames, 2 lost"
    values |= {"problem": "The disk failed.", "saved_frames": 40}
    assert (
        outcome_text(values) == "GaN was ended by an error: The disk failed. 40 of its 1660 frames are saved."
    )
    values |= {"frames": 0, "saved_frames": 0}
    assert outcome_text(values) == "GaN was ended by an error: The disk failed. Nothing was recorded."
    values["problem"] = ""
    assert outcome_text(values) == "Nothing was recorded for GaN: no frame came."


def test_saved_is_what_is_on_the_disk_or_the_server() -> None:
    """Frames that are still gathered, or in chunks in memory only, are not saved."""
    saved = SavedTime()

    def update(pushed: int, accepted: int, in_memory: int, gathering: int) -> tuple[int, float | None]:
        for count in range(update.last + 1, pushed + 1):  # type: ignore[attr-defined]  # its own counter
            saved.pushed(count, 100.0 * count)
        update.last = pushed  # type: ignore[attr-defined]
        stats: Any = {
            "chunks_accepted": accepted,
            "chunks_in_memory_only": in_memory,
            "frames_gathering": gathering,
        }
        saved.update(stats)
        return saved.frames, saved.time_ms

    update.last = 0  # type: ignore[attr-defined]
    assert update(5, 0, 0, 5) == (0, None)
    assert update(12, 1, 1, 2) == (0, None)
    assert update(15, 1, 0, 5) == (10, 1000.0)
    assert update(32, 3, 2, 2) == (10, 1000.0)
    assert update(32, 3, 0, 2) == (30, 3000.0)
    assert update(33, 4, 0, 0) == (33, 3300.0)
