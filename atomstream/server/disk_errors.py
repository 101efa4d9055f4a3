"""Errors of a disk: which of them mean that it is full, and how they are logged."""

from __future__ import annotations

import errno
import logging
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from atomstream.errors import AtomstreamError
from atomstream.system.files import DISK_FULL_ERRNOS

_FULL: Final = DISK_FULL_ERRNOS - {errno.EFBIG}
_EXPECTED: Final = frozenset({*_FULL, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM})
"""Error numbers whose cause is the disk or its permissions: a traceback adds no information."""


def _causes(error: BaseException) -> list[BaseException]:
    """``error`` and the errors that it wraps: SQLAlchemy keeps that of SQLite in ``orig``."""
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in found:
        found.append(following)
        following = getattr(following, "orig", None) or following.__cause__
    return found


def is_disk_full(error: BaseException) -> bool:
    """Whether ``error`` means that there is no space left on the disk, or in the user's quota."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in _FULL:
            return True
        if (
            isinstance(cause, sqlite3.Error)
            and getattr(cause, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
        ):
            return True
    return False


_SQLITE: Final = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
    | {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
)


def is_disk_error(error: BaseException) -> bool:
    """Whether the cause is the disk, the files on it or their permissions, and not this program."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in _EXPECTED:
            return True
        if isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", 0) & 0xFF in _SQLITE:
            return True
    return False


def describe(error: BaseException) -> str:
    """The error in one line, from the system's own words."""
    cause = _causes(error)[-1]
    if isinstance(cause, OSError) and cause.strerror:
        return f"{cause.strerror} ({cause.filename})" if cause.filename else cause.strerror
    return str(cause) or type(cause).__name__


FULL_EVERY_S: Final = 60.0
"""While the disk is full, each message about it is logged at most once in this time, in s."""
_full_logged_at: dict[str, float] = {}


def log_failure(log: logging.Logger, error: BaseException, message: str, *values: object) -> None:
    """Log that something failed: in one line if the disk, or a damaged stream, is the cause; else with the place."""
    if is_disk_full(error):
        now = time.monotonic()
        if now - _full_logged_at.get(message, -FULL_EVERY_S) < FULL_EVERY_S:
            return
        _full_logged_at[message] = now
    if isinstance(error, AtomstreamError) or is_disk_error(error):
        log.error(f"{message}: %s", *values, describe(error))
    else:
        log.error(message, *values, exc_info=error)


def log_unavailable(log: logging.Logger, error: BaseException) -> None:
    """Log that a store can't be reached, at most once in ``FULL_EVERY_S``."""
    now = time.monotonic()
    if now - _full_logged_at.get("away", -FULL_EVERY_S) >= FULL_EVERY_S:
        _full_logged_at["away"] = now
        log.error("%s", error)


LEAST_FREE: Final = 8 << 20
"""With fewer bytes free, the disk counts as full: the files of one chunk may need as many."""
REMEMBERED_S: Final = 10.0


class DiskState:
    """Whether there is room on the disk of the data folder. Used in the server's loop."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._refused_at: float | None = None

    def note_full(self) -> None:
        """A write was refused, because the disk or the user's quota is full."""
        self._refused_at = self._clock()

    def note_stored(self) -> None:
        """A write has succeeded."""
        self._refused_at = None

    def free_bytes(self) -> int | None:
        """Bytes that are free for this process; None if the system does not report it."""
        try:
            return shutil.disk_usage(self._folder).free
        except OSError:
            return None

    def problem(self) -> str:
        """A sentence about a full disk, with the free space; empty if there is room."""
        free = self.free_bytes()
        recent = self._refused_at is not None and self._clock() - self._refused_at < REMEMBERED_S
        if not recent and (free is None or free >= LEAST_FREE):
            return ""
        room = "" if free is None else f" ({free / 1e6:.1f} MB are free)"
        what = "disk" if free is None or free < LEAST_FREE else "disk (or the user's quota)"
        return (
            f"The {what} of the server is full{room}. Frames are not stored until there is room; clients keep them "
            "and send them again."
        )
