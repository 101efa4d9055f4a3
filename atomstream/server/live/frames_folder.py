"""The folder of the frames that a server shares with its workers, and what a killed server left of its own.

A server that dies by SIGKILL leaves its folder, and in ``/dev/shm`` that is memory until the machine restarts. Each
folder has a lock that its server holds and death releases: the next server removes those that nobody holds.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

PREFIX: Final = "atomstream-frames-"
LOCK: Final = "alive.lock"
_MEMORY: Final = Path("/dev/shm")


class FramesFolder:
    """A folder of its own in memory where the system has such a place, else among the temporary files.

    Raises:
        OSError: there is no room for one.
    """

    def __init__(self, place: Path | None = None) -> None:
        place = place or (_MEMORY if os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir()))
        remove_leftovers(place)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        self._lock = _lock_of(self.path)
        self._lock.acquire(timeout=0)

    def remove(self) -> None:
        """Remove it with what is in it."""
        self._lock.release()
        _remove(self.path)


def remove_leftovers(place: Path) -> None:
    """Remove the folders in ``place`` whose servers are dead; others, and what is not ours to remove, stay."""
    for folder in place.glob(f"{PREFIX}*"):
        if not (folder / LOCK).exists():  # one in the making, or another program's
            continue
        lock = _lock_of(folder)
        with contextlib.suppress(Timeout, OSError):
            lock.acquire(timeout=0)
            lock.release()
            _remove(folder)


def _lock_of(folder: Path) -> FileLock:
    # Made in a thread and released in another one.
    return FileLock(folder / LOCK, thread_local=False)


def _remove(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            path.unlink(missing_ok=True)
        folder.rmdir()
