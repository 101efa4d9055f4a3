"""Large records go to the disk past the page cache, where the system lets them.

Copying 32 MB into fresh pages of the cache, and throwing those out when the record goes, takes twice the processor time
of a copy into one small window that the disk reads itself [measured, ext4]; and a backlog of hours does not drive
everything else out of the machine's cache.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import numpy as np
import numpy.typing as npt

from atomstream.records import Piece
from atomstream.system import tuning
from atomstream.system.scheduling import STEP_BYTES, CoopYield

WINDOW_BYTES: Final = STEP_BYTES
ALIGNMENT: Final = 4096
"""Of memory, length and position: the largest that disks ask for."""

Window = npt.NDArray[np.uint8]


class DirectWriter:
    """One window of memory, made at the first large write; whoever comes meanwhile writes as usual."""

    def __init__(self) -> None:
        self._busy = threading.Lock()
        self._window: Window | None = None

    def write(self, fd: int, pieces: Sequence[Piece]) -> int:
        """Write as much of ``pieces`` as goes this way, from the file's position on; the bytes written.

        Less than all where the system refuses, at a short write, and for the unaligned end: the usual way goes on
        from there, and hears what is wrong. 0 for small ones, where there is nothing to win.
        """
        if not tuning.enabled("direct_io"):
            return 0
        if sum(map(len, pieces)) < WINDOW_BYTES or not self._busy.acquire(blocking=False):
            return 0
        try:
            with _bypass_cache(fd) as possible:
                return self._write_windows(fd, pieces) if possible else 0
        finally:
            self._busy.release()

    def _write_windows(self, fd: int, pieces: Sequence[Piece]) -> int:
        if self._window is None:
            self._window = _aligned(WINDOW_BYTES)
        written, coop = 0, CoopYield()
        for filled in _fill(self._window, pieces):
            coop.yield_if_due()
            wanted = filled // ALIGNMENT * ALIGNMENT
            try:
                taken = os.writev(fd, [self._window[:wanted].data]) if wanted else 0
            except OSError:
                return written
            written += taken
            if taken < filled:
                break
        return written


def _aligned(nbytes: int) -> Window:
    memory = np.empty(nbytes + ALIGNMENT, dtype=np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + nbytes]


def _fill(window: Window, pieces: Sequence[Piece]) -> Iterator[int]:
    """Copy the pieces' bytes into the window, again and again; how many are in it each time it is full, and last."""
    at = 0
    for piece in pieces:
        left = np.frombuffer(piece, dtype=np.uint8)
        while len(left):
            part, left = left[: len(window) - at], left[len(window) - at :]
            np.copyto(window[at : at + len(part)], part)  # without the GIL
            at += len(part)
            if at == len(window):
                yield at
                at = 0
    if at:
        yield at


@contextmanager
def _bypass_cache(fd: int) -> Iterator[bool]:
    if sys.platform != "linux" or os.lseek(fd, 0, os.SEEK_CUR) % ALIGNMENT:
        yield False
        return
    import fcntl

    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT)
    except OSError:  # this file system has no such way
        yield False
        return
    try:
        yield True
    finally:
        with suppress(OSError):  # a write that still minds says so itself
            fcntl.fcntl(fd, fcntl.F_SETFL, flags)
