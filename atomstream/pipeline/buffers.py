"""Buffers for the frames of chunks, reused; see :mod:`atomstream.pipeline.spares`."""

from __future__ import annotations

import threading
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from atomstream.pipeline.pages import fresh, populate
from atomstream.pipeline.spares import Buffer, Spare, Spares

_NOTABLE: Final = 8 << 20
"""Smaller buffers are not worth a thread."""


class BufferPool:
    """Flat uint8 buffers for the frames of chunks; any thread may take and give."""

    def __init__(self, spares: Spares) -> None:
        self._spares = spares

    def take(self, nbytes: int) -> Buffer:
        """A buffer of exactly ``nbytes``, a touched one where there is one."""
        spare = self._spares.take("frames", nbytes)
        return self._fresh(nbytes) if spare is None else spare.memory

    def _fresh(self, nbytes: int) -> Buffer:
        """An untouched buffer whose pages come while it fills; the next one is prepared after it."""
        buffer: Buffer = fresh(nbytes)
        if nbytes >= _NOTABLE:
            threading.Thread(target=self._touch, args=(buffer,), name="atomstream-pages", daemon=True).start()
        return buffer

    def _touch(self, buffer: Buffer) -> None:
        if populate(buffer):
            self.prepare(buffer.nbytes)

    def give(self, buffer: Buffer) -> None:
        """Take ``buffer`` back; nobody else may hold a view of it any more."""
        self._spares.give(Spare("frames", buffer, buffer.nbytes))

    def prepare(self, nbytes: int) -> None:
        """Have one touched buffer of ``nbytes`` free, as far as there is room for it."""
        if self._spares.room_for("frames", nbytes):
            buffer: Buffer = fresh(nbytes)
            populate(buffer)
            self.give(buffer)


def as_frames(buffer: Buffer, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The first frames of a flat buffer as an (N, H, W) array; a view."""
    count = int(np.prod(shape)) * dtype.itemsize
    return buffer[:count].view(dtype).reshape(shape)
