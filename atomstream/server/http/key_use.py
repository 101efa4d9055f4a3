"""When each API key was used last, in ``key-use.json``: written at most once a minute, and lost at worst for that."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from atomstream.system.files import LOCAL, FileSystem, write_private
from atomstream.system.own_files import read_plain

KEY_USE_FILE: Final = "key-use.json"
WRITE_S: Final = 60.0


def read_key_use(data_dir: Path) -> dict[str, float]:
    """The time (Unix s) of each key's last use, by the id of the key; empty if the file can't be read."""
    try:
        return msgspec.json.decode(read_plain(data_dir / KEY_USE_FILE), type=dict[str, float])
    except (OSError, msgspec.MsgspecError, UnicodeError, RecursionError):
        return {}


class KeyUse:
    """The times of the last use of a running server's keys. ``clock`` is Unix time in s."""

    def __init__(
        self, data_dir: Path, clock: Callable[[], float] = time.time, file_system: FileSystem = LOCAL
    ) -> None:
        self._path = data_dir / KEY_USE_FILE
        self._clock = clock
        self._file_system = file_system
        self._used = read_key_use(data_dir)
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
            write_private(self._path, msgspec.json.encode(dict(self._used)), self._file_system)
