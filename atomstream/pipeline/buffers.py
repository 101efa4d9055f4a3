"""Pooled, already touched buffers: a fresh 74 MB array costs more in page faults than the copy into it.

The pool's free buffers count against the gate's limit plus one chunk (promise P7): after each
:meth:`BufferPool.take` and :meth:`BufferPool.give` it keeps only what still fits beside the permits in use. The
one chunk is for the buffer that comes back while the push that waited for it holds its permit already: to drop
it there and touch a fresh one costs an eighth of all processor time at full speed.
"""

from __future__ import annotations

import threading
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from atomstream.pipeline.gate import Gate
from atomstream.pipeline.pages import populate

Buffer = npt.NDArray[np.uint8]

MOST_FREE: Final = 3
"""Free buffers kept: one being copied into, one at each encoder of a small machine."""
_NOTABLE: Final = 8 << 20
"""Smaller buffers are not worth a thread."""


class BufferPool:
    """Flat uint8 buffers for the frames of chunks, reused; any thread may take and give."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._lock = threading.Lock()
        self._free: list[Buffer] = []

    @property
    def free_bytes(self) -> int:
        """Bytes held for reuse now."""
        with self._lock:
            return sum(buffer.nbytes for buffer in self._free)

    def take(self, nbytes: int) -> Buffer:
        """A buffer of exactly ``nbytes``, a touched one where there is one."""
        with self._lock:
            match = next((k for k, buffer in enumerate(self._free) if buffer.nbytes == nbytes), None)
            buffer = self._free.pop(match) if match is not None else None
            self._trim()
        return self._fresh(nbytes) if buffer is None else buffer

    def _fresh(self, nbytes: int) -> Buffer:
        """An untouched buffer whose pages come while it fills; the next one is prepared after it."""
        buffer: Buffer = np.empty(nbytes, dtype=np.uint8)
        if nbytes >= _NOTABLE:
            threading.Thread(target=self._touch, args=(buffer,), name="atomstream-pages", daemon=True).start()
        return buffer

    def _touch(self, buffer: Buffer) -> None:
        if populate(buffer):
            self.prepare(buffer.nbytes)

    def give(self, buffer: Buffer) -> None:
        """Take ``buffer`` back; nobody else may hold a view of it any more."""
        with self._lock:
            self._free.append(buffer)
            self._trim()

    def prepare(self, nbytes: int) -> None:
        """Have one touched buffer of ``nbytes`` free, as far as there is room for it."""
        with self._lock:
            sizes = [buffer.nbytes for buffer in self._free]
            if nbytes in sizes or not self._fit([*sizes, nbytes]):
                return
        buffer: Buffer = np.empty(nbytes, dtype=np.uint8)
        populate(buffer)
        self.give(buffer)

    def clear(self) -> None:
        """Let go of all free buffers."""
        with self._lock:
            self._free.clear()

    def _trim(self) -> None:
        while len(self._free) > MOST_FREE or not self._fit([buffer.nbytes for buffer in self._free]):
            self._free.pop(0)

    def _fit(self, sizes: list[int]) -> bool:
        room = self._gate.limit - self._gate.used
        if (
            room >= 0 and sizes
        ):  # below, a chunk larger than the limit is in alone, and is the one chunk itself
            room += max(sizes)
        return sum(sizes) <= max(0, room)


def as_frames(buffer: Buffer, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The first frames of a flat buffer as an (N, H, W) array; a view."""
    count = int(np.prod(shape)) * dtype.itemsize
    return buffer[:count].view(dtype).reshape(shape)
