"""Memory that is kept for reuse: already touched, it costs no page faults.

A fresh 74 MB array costs more in page faults than the copy into it; fresh memory for its compressed frames a seventh
of all that encoding costs [measured]. All that is kept counts against the gate's limit plus one chunk (promise P7):
after each take and give only what still fits beside the permits in use stays. The one chunk is for the buffer that
comes back while the push that waited for it holds its permit already: to drop it there and touch a fresh one costs
an eighth of all processor time at full speed. A chunk that waits for the encoder holds a permit for its shard too, of
which no byte exists yet: until then that much may be kept as well, and is what the shard will lie in.
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
from atomstream.system.memory import MAPPED_BYTES, allocate, discard, free_async, populate

Buffer = npt.NDArray[np.uint8]

Kind = Literal["frames", "shard"]

MOST_KEPT: Final[dict[Kind, int]] = {"frames": 3, "shard": 32}
"""Of frames: one being copied into, one at each encoder of a small machine. Of shards: four chunks in eight slices."""


@dataclass(slots=True, eq=False)
class PooledBuffer:
    """Memory for reuse; ``touched`` bytes of it are resident, from its start. ``worn`` memory is not kept again."""

    kind: Kind
    memory: Buffer
    touched: int
    worn: bool = False


class FreeList:
    """What is free of all kinds; any thread may take and give.

    Giving never waits for the lock, for a finalizer gives too, and the garbage collector may run it in the very
    thread that holds the lock. ``promised()`` counts the bytes under permit that nothing holds yet.
    """

    def __init__(self, gate: MemoryLimiter, promised: Callable[[], int] = lambda: 0) -> None:
        self._gate = gate
        self._promised = promised
        self._lock = threading.Lock()
        self._returned: deque[PooledBuffer] = deque()
        self._free: list[PooledBuffer] = []
        self._closed = False

    @property
    def nbytes(self) -> int:
        """Bytes held for reuse now."""
        with self._sorted_out():
            self._trim()
            return sum(spare.touched for spare in self._free)

    def take(self, kind: Kind, nbytes: int) -> PooledBuffer | None:
        """Memory of exactly ``nbytes`` of that kind, where there is some."""
        with self._sorted_out():
            match = next((s for s in self._free if s.kind == kind and s.memory.nbytes == nbytes), None)
            if match is not None:
                self._free.remove(match)
            return match

    def give(self, spare: PooledBuffer) -> None:
        """Take memory back; nobody else may hold a view of it any more."""
        self._returned.append(spare)
        self._absorb()

    def room_for(self, kind: Kind, nbytes: int) -> bool:
        """Whether there is none of that kind and size, and room for one that is touched beforehand."""
        with self._sorted_out():
            sizes = [(spare.kind, spare.memory.nbytes) for spare in self._free]
            return (kind, nbytes) not in sizes and self._fit([*(s.touched for s in self._free), nbytes])

    def close(self) -> None:
        """Let go of all, and of what still comes back. Not for the loop's thread: half a GB takes a while."""
        self._closed = True
        self._absorb()
        with self._sorted_out():
            for spare in self._free:
                discard(spare.memory)
            self._free.clear()

    @contextmanager
    def _sorted_out(self) -> Iterator[None]:
        with self._lock:
            self._sort_out()
            yield
            self._trim()  # afterwards: what is wanted just now must not go for what is not
        self._absorb()

    def _absorb(self) -> None:
        # Whoever holds the lock looks again once it has let it go, so nothing that came meanwhile stays unseen.
        while self._returned and self._lock.acquire(blocking=False):
            try:
                self._sort_out()
                self._trim()
            finally:
                self._lock.release()

    def _sort_out(self) -> None:
        while self._returned:
            spare = self._returned.popleft()
            if spare.worn or self._closed:
                free_async(spare.memory)
            else:
                self._free.append(spare)

    def _trim(self) -> None:
        for kind, most in MOST_KEPT.items():
            mine = [spare for spare in self._free if spare.kind == kind]
            for spare in mine[: max(0, len(mine) - most)]:
                self._free.remove(spare)
                free_async(spare.memory)
        while not self._fit([spare.touched for spare in self._free]):
            free_async(self._free.pop(0).memory)

    def _fit(self, sizes: list[int]) -> bool:
        room = self._gate.limit - self._gate.used
        if (
            room >= 0 and sizes
        ):  # below, a chunk larger than the limit is in alone, and is the one chunk itself
            room += max(sizes)
        return sum(sizes) <= max(0, room) + self._promised()


# Buffers for the frames of chunks, reused; see :mod:`atomstream.pipeline.buffer_pool`.

_NOTABLE: Final = 8 << 20
"""Smaller buffers are not worth a thread."""


class BufferPool:
    """Flat uint8 buffers for the frames of chunks; any thread may take and give."""

    def __init__(self, spares: FreeList) -> None:
        self._spares = spares

    def take(self, nbytes: int) -> Buffer:
        """A buffer of exactly ``nbytes``, a touched one where there is one."""
        spare = self._spares.take("frames", nbytes)
        return self._fresh(nbytes) if spare is None else spare.memory

    def _fresh(self, nbytes: int) -> Buffer:
        """An untouched buffer whose pages come while it fills; the next one is prepared after it."""
        buffer: Buffer = allocate(nbytes)
        if nbytes >= _NOTABLE:
            threading.Thread(target=self._touch, args=(buffer,), name="atomstream-pages", daemon=True).start()
        return buffer

    def _touch(self, buffer: Buffer) -> None:
        if populate(buffer):
            self.prepare(buffer.nbytes)

    def give(self, buffer: Buffer) -> None:
        """Take ``buffer`` back; nobody else may hold a view of it any more."""
        self._spares.give(PooledBuffer("frames", buffer, buffer.nbytes))

    def prepare(self, nbytes: int) -> None:
        """Have one touched buffer of ``nbytes`` free, as far as there is room for it."""
        if self._spares.room_for("frames", nbytes):
            buffer: Buffer = allocate(nbytes)
            populate(buffer)
            self.give(buffer)


def as_frames(buffer: Buffer, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The first frames of a flat buffer as an (N, H, W) array; a view."""
    count = int(np.prod(shape)) * dtype.itemsize
    return buffer[:count].view(dtype).reshape(shape)


# Memory that encoders write compressed frames to: it comes back by itself once nobody holds a view of it.
#
# A shard's bytes go to the socket and to the disk at their own times, in pieces that the network library may hold
# for a while: so the last view decides, not a count of ours. Pages that were never needed are never touched.

_WASTE: Final = 1 / 8

_WORTH_CUTTING: Final = 64 << 10


class ScratchBuffer:
    """Memory for one run of compressed frames; ``view`` is all of it."""

    def __init__(self, spare: PooledBuffer, view: memoryview) -> None:
        self._spare = spare
        self.view = view

    def keep(self, run: EncodedSlice) -> EncodedSlice:
        """``run``, which was packed here, so that it holds hardly more memory than its bytes (promise P7).

        Where earlier runs touched much more of this memory than it needs, it is copied out, and that
        memory goes. All of a small slab counts as touched, for the C library hands out what others used before.
        """
        used, spare = len(run.piece), self._spare
        mapped = spare.memory.nbytes >= MAPPED_BYTES
        spare.touched = max(spare.touched, used) if mapped else spare.memory.nbytes
        if spare.touched - used <= max(_WORTH_CUTTING if mapped else 0, used * _WASTE):
            return run
        spare.worn = True
        return replace(run, piece=bytes(run.piece))


class ScratchPool:
    """Lends slabs; any thread may ask."""

    def __init__(self, spares: FreeList) -> None:
        self._spares = spares

    def lend(self, nbytes: int) -> ScratchBuffer:
        """A slab of ``nbytes``, touched already where there is one; it is free again with its last view."""
        spare = self._spares.take("shard", nbytes) or PooledBuffer("shard", allocate(nbytes), 0)
        lease = spare.memory[:]  # an array of its own: all views of the slab hold it, and nothing else does
        weakref.finalize(lease, self._spares.give, spare).atexit = False
        return ScratchBuffer(spare, lease.data)
