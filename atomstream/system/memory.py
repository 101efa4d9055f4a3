"""Memory pages of large buffers: page faults happen in other threads than the capture thread.

Measured: the first touch of a huge page takes 0.2 ms, on a virtual machine 7 ms, because the kernel clears it. That
delayed every seventh frame of a new ``push_frame`` buffer. Linux can populate pages without changing their content
(MADV_POPULATE_WRITE), so a thread does it while frames are already copied into the buffer. On other systems pages are
small; there the faults cost a frame about 0.05 ms.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from contextlib import suppress
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from atomstream.system import tuning
from atomstream.system.scheduling import STEP_BYTES, CoopYield

_PAGE_BYTES: Final = 4096
_POPULATE_WRITE: Final = 23  # MADV_POPULATE_WRITE, from Linux 5.14 on; an older kernel returns an error
MAPPED_BYTES: Final = 128 << 10
"""Least size, in bytes, of a buffer with its own memory map. Linux allows a process 65530 maps only."""
_HUGE_PAGES_FROM: Final = 4 << 20
"""Least size, in bytes, of a buffer with huge pages; numpy uses the same limit."""


def allocate(nbytes: int) -> npt.NDArray[np.uint8]:
    """A new buffer in a separate memory map: its pages return to the system with the last view of it.

    The C library (glibc) keeps freed blocks of up to 32 MB with all their pages. Measured with a slow disk: a client
    held 126 MB with them, and 84 MB with memory maps.
    """
    if sys.platform != "win32" and nbytes >= MAPPED_BYTES and tuning.enabled("mmap"):
        with suppress(OSError):  # too many maps: the C library may have memory left
            memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if nbytes >= _HUGE_PAGES_FROM and hasattr(mmap, "MADV_HUGEPAGE"):
                with suppress(OSError):  # a kernel without huge pages
                    memory.madvise(mmap.MADV_HUGEPAGE)
            return np.frombuffer(memory, dtype=np.uint8)
    return np.empty(nbytes, dtype=np.uint8)


def populate(buffer: npt.NDArray[np.uint8]) -> bool:
    """Make all pages of ``buffer`` resident without changing its bytes; False where the system can't.

    Releases the GIL. Other threads may write to the buffer meanwhile.
    """
    if not tuning.enabled("prefault"):
        return False
    start, end = _pages(buffer)
    coop, at = CoopYield(), start
    while at < end:
        coop.yield_if_due()
        # Up to the end of a huge page, which the kernel clears in one step.
        upto = min(end, (at // STEP_BYTES + 1) * STEP_BYTES)
        if not _advise(at, upto, _POPULATE_WRITE):
            return False
        at = upto
    return start < end


def _pages(buffer: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """Addresses of the start of the first whole page of ``buffer`` and of the end of the last one."""
    start = buffer.ctypes.data
    return -(-start // _PAGE_BYTES) * _PAGE_BYTES, (start + buffer.nbytes) // _PAGE_BYTES * _PAGE_BYTES


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
