"""The pages under buffers: the faults of a fresh one and the freeing of an old one, where nobody waits for them.

Clearing one huge page holds whoever touches it first for 0.2 ms, on a virtual machine for 7 ms: each seventh
frame of a fresh ``push_frame`` buffer felt that [measured]. Writing to pages beforehand would race with frames
that are copied meanwhile; Linux can fault pages in without changing them, so there it is done while they fill.
Elsewhere pages are small, and a frame's own faults cost it some 0.05 ms.
"""

from __future__ import annotations

import _thread
import ctypes
import mmap
import os
import sys
from collections import deque
from contextlib import suppress
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from atomstream.system import tuning
from atomstream.system.scheduling import STEP_BYTES, CoopYield

_PAGE: Final = 4096
_POPULATE_WRITE: Final = 23  # MADV_POPULATE_WRITE of Linux 5.14; an older kernel refuses it, harmlessly
_DONTNEED: Final = 4
_NOTABLE: Final = 8 << 20
"""A smaller buffer is freed in less than a millisecond."""
MAPPED_BYTES: Final = 128 << 10
"""Smaller memory is the C library's: a system has 65530 maps for a process (Linux)."""
_HUGE: Final = 4 << 20
"""From here on numpy asks for huge pages, too."""

_doomed: deque[npt.NDArray[np.uint8]] = deque()
_sweeping = _thread.allocate_lock()


def allocate(nbytes: int) -> npt.NDArray[np.uint8]:
    """Memory whose pages come as they are written, and go back to the system with the last view of it.

    The C library keeps what is freed, and hands it out again with all its pages, needed or not, however large (up
    to 32 MB in glibc, once as much was freed): beside a slow disk a client held 126 MB, and 84 so [measured].
    """
    if sys.platform != "win32" and nbytes >= MAPPED_BYTES and tuning.enabled("mmap"):
        with suppress(OSError):  # too many maps: the C library may have some room yet
            memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if nbytes >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
                with suppress(OSError):  # a kernel without huge pages
                    memory.madvise(mmap.MADV_HUGEPAGE)
            return np.frombuffer(memory, dtype=np.uint8)
    return np.empty(nbytes, dtype=np.uint8)


def populate(buffer: npt.NDArray[np.uint8]) -> bool:
    """Fault all of ``buffer`` in and leave its bytes as they are; False where the system can't.

    Releases the GIL. Others may write to the buffer meanwhile.
    """
    if not tuning.enabled("prefault"):
        return False
    start, end = _pages(buffer)
    coop, at = CoopYield(), start
    while at < end:
        coop.yield_if_due()
        # Up to a huge page's end, which is cleared at one go.
        upto = min(end, (at // STEP_BYTES + 1) * STEP_BYTES)
        if not _advise(at, upto, _POPULATE_WRITE):
            return False
        at = upto
    return start < end


def discard(buffer: npt.NDArray[np.uint8]) -> bool:
    """Give the pages of ``buffer``, whose bytes are lost, back to the system; False where that can't be.

    Releases the GIL, which to free a large array does not.
    """
    return tuning.enabled("discard") and _advise(*_pages(buffer), _DONTNEED)


def free_async(buffer: npt.NDArray[np.uint8]) -> None:
    """Have the pages of ``buffer`` given back by a thread: 250 MB hold whoever drops the last name for 10 to 24 ms.

    Never waits, not even for that thread to begin, for a finalizer may call this anywhere.
    """
    if buffer.nbytes < _NOTABLE or not tuning.enabled("discard") or _madvise() is None:
        return
    _doomed.append(buffer)
    if _sweeping.acquire(blocking=False):
        try:
            _thread.start_new_thread(_sweep, ())
        except RuntimeError:  # no thread to be had: then who drops it frees it
            _doomed.clear()
            _sweeping.release()


def _sweep() -> None:
    # One thread at a time: to start another waits in the system for what the first one does to the same memory.
    while True:
        while _doomed:
            discard(_doomed.popleft())
        _sweeping.release()
        # Whoever came meanwhile found the sweep going on.
        if not _doomed or not _sweeping.acquire(blocking=False):
            return


def _forked() -> None:
    # The thread that swept stayed in the parent: what it held back would never be freed here.
    _doomed.clear()
    if _sweeping.locked():
        _sweeping.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _pages(buffer: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """Where the first whole page of ``buffer`` begins, and where the last one ends."""
    start = buffer.ctypes.data
    return -(-start // _PAGE) * _PAGE, (start + buffer.nbytes) // _PAGE * _PAGE


def _advise(start: int, end: int, advice: int) -> bool:
    madvise = _madvise()
    return madvise is not None and start < end and madvise(start, end - start, advice) == 0


@cache
def _madvise() -> Any:
    if sys.platform != "linux":
        return None
    try:
        call = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):  # a libc without it
        return None
    call.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return call
