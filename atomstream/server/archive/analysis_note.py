"""Notes in a store that a process analyses the frames of an ended stream again.

A server that removes frames looks for them. A process that was killed leaves its note, so a note counts only as long
as it is renewed.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from atomstream.server.archive.shared_stream import SharedStream
from atomstream.server.ports.store import ObjectMissingError

AGAIN: Final = "again"
"""The folder of the notes of a stream; each process has its own."""
RENEW_S: Final = 60.0
STALE_S: Final = 600.0
"""A note that was not renewed for so many seconds counts no more."""
_PROCESS: Final = uuid.uuid4().hex


class AnalysisNote:
    """The notes of the stream ``shared``; ``clock`` is the wall clock in s. Blocks. Raises StoreUnavailableError."""

    def __init__(self, shared: SharedStream, clock: Callable[[], float] = time.time) -> None:
        self._shared = shared
        self._clock = clock
        self._key = shared.key(f"{AGAIN}/{_PROCESS}")

    def renew(self) -> None:
        """Note that this process analyses the stream again."""
        self._shared.store.put(self._key, f"{self._clock():.0f}".encode())

    def remove(self) -> None:
        """Remove the note of this process."""
        self._shared.store.delete(self._key)

    def any(self) -> bool:
        """True if a process analyses the stream again, this one included."""
        return any(self._is_fresh(name) for name in self._shared.names(AGAIN))

    def _is_fresh(self, name: str) -> bool:
        with suppress(ObjectMissingError, ValueError):  # it was removed meanwhile, or it is not a note
            renewed = float(self._shared.store.fetch(self._shared.key(name)))
            return abs(self._clock() - renewed) < STALE_S
        return False
