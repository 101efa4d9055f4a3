"""The time of the last use of each API key, in ``key-use.json``: written once a minute, so a crash loses one minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from atomstream.server.catalogue_errors import CatalogueUnavailableError
from atomstream.server.documents import Documents, documents_in
from atomstream.system.files import LOCAL, FileSystem

KEY_USE_FILE: Final = "key-use.json"
WRITE_S: Final = 60.0


def read_key_use(place: Path | Documents) -> dict[str, float]:
    """The time (Unix s) of each key's last use, by the id of the key; empty if the file can't be read."""
    try:
        return _decode(documents_in(place).read(KEY_USE_FILE))
    except (OSError, CatalogueUnavailableError):
        return {}


def _decode(content: bytes | None) -> dict[str, float]:
    try:
        return {} if content is None else msgspec.json.decode(content, type=dict[str, float])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return {}


class KeyUse:
    """The times of the last use of a running server's keys. ``clock`` is Unix time in s."""

    def __init__(
        self,
        place: Path | Documents,
        clock: Callable[[], float] = time.time,
        file_system: FileSystem = LOCAL,
    ) -> None:
        self._documents = documents_in(place, file_system)
        self._clock = clock
        self._used = read_key_use(self._documents)
        self._written_at = clock()
        self._changed = False
        self._lock = threading.Lock()

    def note(self, key_id: str) -> None:
        """The key was used now."""
        self._used[key_id] = self._clock()
        self._changed = True

    def last(self, key_id: str) -> float | None:
        """The time of the last use in Unix s; None if it is not known."""
        return self._used.get(key_id)

    def write(self, *, now: bool = False) -> None:
        """Write the file, if something has changed and the last time is a minute ago, or with ``now``. Blocks."""
        with self._lock:
            if not self._changed or (not now and self._clock() - self._written_at < WRITE_S):
                return
            self._changed, self._written_at = False, self._clock()
            try:
                if self._documents.is_shared:
                    self._documents.change(KEY_USE_FILE, self._merge)
                else:
                    self._documents.write(KEY_USE_FILE, msgspec.json.encode(dict(self._used)))
            except BaseException:
                self._changed = True
                raise

    def _merge(self, content: bytes | None) -> bytes:
        """The later time of each key: that of this server, or of another one that shares the documents."""
        stored = _decode(content)
        merged = {
            key_id: max(stored.get(key_id, 0.0), self._used.get(key_id, 0.0))
            for key_id in (*stored, *self._used)
        }
        self._used.update(merged)
        return msgspec.json.encode(merged)
