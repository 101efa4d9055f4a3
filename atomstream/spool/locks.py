"""Locks between processes: one for each stream's folder, and one for the root folder of the spool.

The operating system releases them when their process ends. filelock is used instead of bare flock: after SIGKILL
of its owner, a flock is still held by a forked child. A stream's lock is only tried while the root lock is held.
So a check whether a stream is free never disturbs another process that opens the stream, and a lock file can be
removed together with its folder.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from atomstream.errors import SpoolError
from atomstream.spool.disk_errors import disk_errors
from atomstream.system.own_files import FILE_MODE, prepare_for_library

if TYPE_CHECKING:
    from filelock import BaseFileLock

_ROOT_TIMEOUT_S: Final = 20.0
_POLL_S: Final = 0.002


class StreamLock:
    """The lock of one stream's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = _file_lock(path)

    def acquire(self) -> bool:
        """Try to lock without waiting; returns False if another owner holds the lock.

        Raises:
            SpoolError: the lock file could not be opened.
        """
        from filelock import Timeout

        with disk_errors("lock the stream's folder", self.path):
            prepare_for_library(self.path)
            try:
                self._lock.acquire(timeout=0)
            except Timeout:  # it is a subclass of OSError
                return False
        return True

    def release(self) -> None:
        """Unlock; does nothing if the lock is not held."""
        self._lock.release(force=True)


class RootLock:
    """The lock of the whole spool, between threads and between processes; held for milliseconds only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._threads = threading.Lock()
        self._lock = _file_lock(path)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock inside the context.

        Raises:
            SpoolError: another process has held it for 20 s, or the lock file could not be opened.
        """
        with self._threads:
            self._acquire()
            try:
                yield
            finally:
                self._lock.release()

    def _acquire(self) -> None:
        from filelock import Timeout

        with disk_errors("lock its folder", self.path):
            prepare_for_library(self.path)
            try:
                self._lock.acquire(timeout=_ROOT_TIMEOUT_S, poll_interval=_POLL_S)
            except Timeout:  # it is a subclass of OSError
                raise SpoolError(
                    f"Another process has held the spool's lock ({self.path}) for {_ROOT_TIMEOUT_S:g} s; it may be "
                    "suspended. Nothing is lost. Stop or resume that process, or choose another spool_dir."
                ) from None


def load_locks() -> None:
    """Import the lock library before the event loop needs it."""
    _file_lock(Path("unused"))  # creates no file until it is acquired


def _file_lock(path: Path) -> BaseFileLock:
    from filelock import (
        FileLock,  # imported here because it takes 60 ms, and only processes with a spool need it
    )

    # Not thread-local: the lock may be released by another thread than the one that acquired it.
    return FileLock(path, thread_local=False, mode=FILE_MODE)
