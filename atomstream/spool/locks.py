"""Locks between processes, released by death: one a stream, and one for the spool's root.

filelock, for its lock is not kept by a forked child after its owner's SIGKILL, which a bare flock is.
A stream's lock is only ever tried while the root's is held. So a look whether a stream is free can never be
in the way of somebody who takes it, and a lock file can be removed with its folder.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from atomstream.errors import SpoolError
from atomstream.spool.disk_errors import disk_errors

if TYPE_CHECKING:
    from filelock import BaseFileLock

_ROOT_WAIT_S: Final = 20.0
_POLL_S: Final = 0.002


class StreamLock:
    """The lock on one stream's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = _file_lock(path)

    def acquire(self) -> bool:
        """Take it if it is free.

        Raises:
            SpoolError: the disk refused.
        """
        from filelock import Timeout

        with disk_errors("lock the stream's folder", self.path):
            try:
                self._lock.acquire(timeout=0)
            except Timeout:  # an OSError too
                return False
        return True

    def release(self) -> None:
        """Let it go; nothing where it is not held."""
        self._lock.release(force=True)


class RootLock:
    """The lock on the whole spool, held for moments only: between threads and between processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._threads = threading.Lock()
        self._lock = _file_lock(path)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it.

        Raises:
            SpoolError: another process has held it for 20 s (is it stopped?), or the disk refused.
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
            try:
                self._lock.acquire(timeout=_ROOT_WAIT_S, poll_interval=_POLL_S)
            except Timeout:  # an OSError too
                raise SpoolError(
                    f"Another process has held the spool's lock ({self.path}) for {_ROOT_WAIT_S:g} s; it may be "
                    "stopped. Nothing is lost; end or continue that process, or choose another spool_dir."
                ) from None


def load_locks() -> None:
    """Have the library here before the first lock, which may be made in a running loop."""
    _file_lock(Path("unused"))  # touches no file until it is acquired


def _file_lock(path: Path) -> BaseFileLock:
    from filelock import FileLock  # 60 ms to import: only a process with a streamer pays for it

    # Not per thread: whoever holds it may release it from any thread.
    return FileLock(path, thread_local=False)
