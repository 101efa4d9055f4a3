"""Damaged files of a server: each is logged once, and listed on the pages until it is repaired.

A note has the file, as a path inside the stream's folder, and a sentence for people. The notes of the data folder's
files beside the streams are listed under the name ``""``.
"""

from __future__ import annotations

import threading
from typing import Final, NamedTuple

from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")

MAX_FILES: Final = 50
"""Most notes of one stream; the rest is counted."""
MAX_STREAMS: Final = 10_000
"""Most streams with notes."""


class DamageNote(NamedTuple):
    """A damaged file, and the consequence in a sentence."""

    file: str
    what: str


class DamageLog:
    """The damage that was found since the start of the server. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._notes: dict[str, dict[str, str]] = {}
        self._more: dict[str, int] = {}

    def of(self, name: str) -> StreamDamage:
        """The notes about the stream ``name``, or about the other files of the data folder (``""``)."""
        return StreamDamage(self, name)

    def add(self, name: str, file: str, what: str) -> None:
        """Note that ``file`` is damaged; logged unless the same was noted before."""
        with self._lock:
            if name not in self._notes and len(self._notes) >= MAX_STREAMS:
                return
            notes = self._notes.setdefault(name, {})
            if notes.get(file) == what:
                return
            if file not in notes and len(notes) >= MAX_FILES:
                self._more[name] = self._more.get(name, 0) + 1
                return
            notes[file] = what
        where = f"stream {name}: " if name else ""
        log.warning("%s%s: %s", where, file, what)

    def remove(self, name: str, file: str) -> None:
        """Remove the note about a file that was replaced by an undamaged one."""
        with self._lock:
            notes = self._notes.get(name)
            if notes is not None and notes.pop(file, None) is not None and not notes:
                del self._notes[name]
                self._more.pop(name, None)

    def notes(self, name: str) -> list[DamageNote]:
        """The notes about one stream; the last one counts those that were left out."""
        with self._lock:
            found = [DamageNote(*note) for note in self._notes.get(name, {}).items()]
            more = self._more.get(name, 0)
        return (
            [*found, DamageNote("", f"{more} more files are damaged; the log names them")] if more else found
        )

    def names(self) -> list[str]:
        """The streams with notes."""
        with self._lock:
            return list(self._notes)


class StreamDamage:
    """Notes on the damaged files of one stream, kept in a :class:`DamageLog`; a new one is made if none is given."""

    def __init__(self, damage_log: DamageLog | None = None, name: str = "") -> None:
        self._log = damage_log or DamageLog()
        self.name = name

    def add(self, file: str, what: str) -> None:
        """Note that ``file`` is damaged."""
        self._log.add(self.name, file, what)

    def remove(self, file: str) -> None:
        """Remove the note about ``file``."""
        self._log.remove(self.name, file)

    def notes(self) -> list[DamageNote]:
        """All notes about this stream."""
        return self._log.notes(self.name)
