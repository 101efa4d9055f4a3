"""Memory of the chunks that a reader makes: used again once no array refers to it any more.

Why: the system clears each page of new memory when it is touched first. For the frames of an uncompressed video that
took half of the reading time.
"""

from __future__ import annotations

import math
import weakref
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_KNOWN: Final = 3
"""Chunks whose memory is kept: one being read, one read ahead, one being sent. Further ones are freed as usual."""


class ChunkMemory:
    """Makes arrays of undefined content. One thread at a time may call its methods."""

    def __init__(self) -> None:
        self._known: list[tuple[npt.NDArray[np.uint8], weakref.ref[Any]]] = []
        """Memory, and the array that was made of it last. All views of that array keep it alive."""

    def array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return a C-contiguous array that shares its memory with no other array that is still in use."""
        kind = np.dtype(dtype)
        nbytes = math.prod(shape) * kind.itemsize
        if not nbytes:
            return np.empty(shape, kind)
        memory = self._unused(nbytes)
        # frombuffer: its result refers to a memoryview, not to an array. Views therefore refer to the result itself
        # (numpy skips arrays which are views of others), and it lives as long as they do.
        whole = np.frombuffer(memory.data, kind)
        self._known.append((memory, weakref.ref(whole)))
        del self._known[:-_KNOWN]
        return whole.reshape(shape)

    def clear(self) -> None:
        """Keep nothing for later use. Arrays that were made stay valid."""
        self._known.clear()

    def _unused(self, nbytes: int) -> npt.NDArray[np.uint8]:
        for place, (memory, array) in enumerate(self._known):
            if array() is None and memory.nbytes == nbytes:
                del self._known[place]
                return memory
        self._known = [each for each in self._known if each[1]() is not None]  # of another size
        return np.empty(nbytes, np.uint8)
