"""Memory that is kept for reuse. Its pages are already resident, so it causes no page faults.

Why it exists (measured): the page faults of a new 74 MB array cost more than the copy into it. New memory for the
compressed frames costs a seventh of the whole encoding.

Free memory counts against the memory limit plus one chunk. After each acquire and release, only as much is kept as
fits into the limit together with the permits in use. The additional chunk is for a buffer that comes back while the
push that waited for it already holds its permit. To discard it there and touch a new one costs an eighth of all
processor time at full speed. A chunk that waits for the encoder also holds a permit for its shard, of which no byte
exists yet. Until then as much memory may be kept in addition; the shard will use it.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from atomstream.pipeline.memory_limiter import MemoryLimiter
from atomstream.shard import EncodedSlice
from atomstream.system.memory import MAPPED_BYTES, allocate, populate

Buffer = npt.NDArray[np.uint8]

Kind = Literal["frames", "shard"]

MOST_KEPT: Final[dict[Kind, int]] = {"frames": 3, "shard": 32}
"""Frames: one being copied into, one at each encoder of a small machine. Shards: four chunks in eight slices."""

_PREPARE_BYTES: Final = 8 << 20
"""Smaller buffers are not prepared in a separate thread."""

_MAX_WASTE: Final = 1 / 8
"""The share of a scratch buffer that compressed frames may leave unused."""

_MIN_WASTE_BYTES: Final = 64 << 10
"""Less unused memory than this is never worth a copy."""


@dataclass(slots=True, eq=False)
class PooledBuffer:
    """Memory for reuse. Its first ``touched`` bytes are resident. ``discarded`` memory is not kept again."""

    kind: Kind
    memory: Buffer
    touched: int
    discarded: bool = False


class FreeList:
    """The free memory of all kinds. Any thread may acquire and release.

    ``release`` never waits for the lock: finalizers call it too, and the garbage collector may run one in the thread
    that holds the lock. ``reserved_bytes()`` returns the bytes under permit for which no memory exists yet.
    """

    def __init__(self, limiter: MemoryLimiter, reserved_bytes: Callable[[], int] = lambda: 0) -> None:
        self._limiter = limiter
        self._reserved_bytes = reserved_bytes
        self._lock = threading.Lock()
        self._released: deque[PooledBuffer] = deque()
        self._free: list[PooledBuffer] = []
        self._closed = False

    @property
    def nbytes(self) -> int:
        """Resident bytes that are kept for reuse now."""
        with self._locked():
            self._trim()
            return sum(buffer.touched for buffer in self._free)

    def acquire(self, kind: Kind, nbytes: int) -> PooledBuffer | None:
        """Memory of exactly ``nbytes`` of this kind; None if there is none."""
        with self._locked():
            match = next((b for b in self._free if b.kind == kind and b.memory.nbytes == nbytes), None)
            if match is not None:
                self._free.remove(match)
            return match

    def release(self, buffer: PooledBuffer) -> None:
        """Keep memory for reuse. No other view of it may exist."""
        self._released.append(buffer)
        self._absorb()

    def room_for(self, kind: Kind, nbytes: int) -> bool:
        """True if there is no free memory of this kind and size, and room to prepare one."""
        with self._locked():
            sizes = [(buffer.kind, buffer.memory.nbytes) for buffer in self._free]
            return (kind, nbytes) not in sizes and self._fit([*(b.touched for b in self._free), nbytes])

    def close(self) -> None:
        """Free all memory, and all that is released later. Takes time (half a GB): not for the loop's thread."""
        self._closed = True
        self._absorb()
        with self._locked():
            self._free.clear()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock:
            self._sort_released()
            yield
            self._trim()  # afterwards: memory that is needed now must not be removed in favour of other memory
        self._absorb()

    def _absorb(self) -> None:
        # Each thread that held the lock checks again after its release, so nothing that was released meanwhile stays
        # in the queue.
        while self._released and self._lock.acquire(blocking=False):
            try:
                self._sort_released()
                self._trim()
            finally:
                self._lock.release()

    def _sort_released(self) -> None:
        while self._released:
            buffer = self._released.popleft()
            if not (buffer.discarded or self._closed):
                self._free.append(buffer)

    def _trim(self) -> None:
        for kind, most in MOST_KEPT.items():
            same_kind = [buffer for buffer in self._free if buffer.kind == kind]
            for buffer in same_kind[: max(0, len(same_kind) - most)]:
                self._free.remove(buffer)
        while not self._fit([buffer.touched for buffer in self._free]):
            del self._free[0]

    def _fit(self, sizes: list[int]) -> bool:
        room = self._limiter.limit - self._limiter.used
        # If room is negative, a single chunk above the limit is in memory: it is itself the one additional chunk.
        if room >= 0 and sizes:
            room += max(sizes)
        return sum(sizes) <= max(0, room) + self._reserved_bytes()


class BufferPool:
    """Flat uint8 buffers for the raw frames of chunks. Any thread may acquire and release."""

    def __init__(self, free_list: FreeList) -> None:
        self._free_list = free_list

    def acquire(self, nbytes: int) -> Buffer:
        """A buffer of exactly ``nbytes``. Its pages are resident if a free one is available."""
        buffer = self._free_list.acquire("frames", nbytes)
        return self._new(nbytes) if buffer is None else buffer.memory

    def _new(self, nbytes: int) -> Buffer:
        """A new buffer. A thread makes its pages resident while it is being filled, then prepares the next one."""
        buffer: Buffer = allocate(nbytes)
        if nbytes >= _PREPARE_BYTES:
            threading.Thread(target=self._touch, args=(buffer,), name="atomstream-pages", daemon=True).start()
        return buffer

    def _touch(self, buffer: Buffer) -> None:
        if populate(buffer):
            self.prepare(buffer.nbytes)

    def release(self, buffer: Buffer) -> None:
        """Keep ``buffer`` for reuse. No other view of it may exist."""
        self._free_list.release(PooledBuffer("frames", buffer, buffer.nbytes))

    def prepare(self, nbytes: int) -> None:
        """Add one resident buffer of ``nbytes`` to the free ones, if there is none and the limit allows it."""
        if self._free_list.room_for("frames", nbytes):
            buffer: Buffer = allocate(nbytes)
            populate(buffer)
            self.release(buffer)


def as_frames(buffer: Buffer, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The start of a flat buffer as an (N, H, W) array; a view."""
    count = int(np.prod(shape)) * dtype.itemsize
    return buffer[:count].view(dtype).reshape(shape)


class ScratchPool:
    """Memory that encoders write compressed frames to. Any thread may acquire.

    The memory returns to the free list when its last view is deleted. The pieces of a shard go to the socket and to
    the disk at different times, and the HTTP library may hold them for a while. So the last view decides, not a
    counter. Pages that are never written stay untouched.
    """

    def __init__(self, free_list: FreeList) -> None:
        self._free_list = free_list

    def acquire(self, nbytes: int) -> ScratchBuffer:
        """Memory of ``nbytes``, with resident pages if free memory is available."""
        buffer = self._free_list.acquire("shard", nbytes) or PooledBuffer("shard", allocate(nbytes), 0)
        lease = buffer.memory[:]  # an array object that only the views of this memory refer to
        weakref.finalize(lease, self._free_list.release, buffer).atexit = False
        return ScratchBuffer(buffer, lease.data)


class ScratchBuffer:
    """Memory for one encoded slice. ``view`` is all of it."""

    def __init__(self, buffer: PooledBuffer, view: memoryview) -> None:
        self._buffer = buffer
        self.view = view

    def trim(self, encoded: EncodedSlice) -> EncodedSlice:
        """Return ``encoded``, which was written here, so that it holds hardly more memory than its own size.

        If earlier slices have touched much more of this memory than it needs, its bytes are copied and this memory
        is discarded. All of a small buffer counts as touched, because the C library returns memory that was used
        before.
        """
        used, buffer = len(encoded.piece), self._buffer
        mapped = buffer.memory.nbytes >= MAPPED_BYTES
        buffer.touched = max(buffer.touched, used) if mapped else buffer.memory.nbytes
        if buffer.touched - used <= max(_MIN_WASTE_BYTES if mapped else 0, used * _MAX_WASTE):
            return encoded
        buffer.discarded = True
        return replace(encoded, piece=bytes(encoded.piece))
