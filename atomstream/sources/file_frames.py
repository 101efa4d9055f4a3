"""Frames of one size at equal distances in a file, as an array that is read piece by piece.

The file is read with ordinary reads, and not mapped into memory: a mapped file that gets shorter, or a disk that
fails, ends the whole process by a signal; a read gives an error that can be reported with its place.
"""

from __future__ import annotations

import math
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .chunk_memory import ChunkMemory
from .damage import FrameDamage, read_error

Array = npt.NDArray[Any]


class FileFrames:
    """Read-only array on disk: item k of the first axis begins at byte ``offset + k * stride``.

    ``shape`` is (n, ...) in C order, ``stride`` the distance of items in bytes (default: their size). Slices of the
    first axis are read as one piece. Raises :class:`FrameDamage` from item access if the file is shorter.
    """

    def __init__(
        self,
        path: Path,
        dtype: npt.DTypeLike,
        shape: tuple[int, ...],
        offset: int,
        stride: int | None = None,
    ) -> None:
        self.path = path
        self.dtype = np.dtype(dtype)
        self.shape = shape
        self.offset = offset
        """Byte at which the first item begins."""
        self.item_bytes = math.prod(shape[1:]) * self.dtype.itemsize
        """Bytes of one item."""
        self._stride = self.item_bytes if stride is None else stride
        self._file: FileIO | None = None
        self._memory = ChunkMemory()

    def close(self) -> None:
        """Close the file; the next access opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._memory.clear()

    def available_bytes(self) -> int:
        """Return how many bytes the file has behind the beginning of the first item."""
        return max(0, self.path.stat().st_size - self.offset)

    def new_block(self, count: int) -> Array:
        """Return an array for ``count`` items, of undefined content; if possible in the memory of an earlier array that
        is no longer in use."""
        return self._memory.array((count, *self.shape[1:]), self.dtype)

    def item_at(self, place: int) -> Array:
        """Return one item that begins at this byte of the file, wherever the others are."""
        out = np.empty(self.shape[1:], self.dtype)
        self.read_into(out, place)
        return out

    def read_into(self, out: Array, place: int) -> None:
        """The same, into a contiguous array of :attr:`dtype` that has as many bytes: no second copy is made."""
        self._fill(out, place)

    def __getitem__(self, key: Any) -> Array:
        keys = key if isinstance(key, tuple) else (key,)
        whole = all(isinstance(k, slice) and k == slice(None) for k in keys[1:])
        if keys and whole and isinstance(keys[0], int | np.integer | slice):
            return self._items(keys[0])
        return self._within(keys)

    def _items(self, key: int | np.integer[Any] | slice) -> Array:
        if not isinstance(key, slice):
            item: Array = self._block(int(key), int(key) + 1)[0]
            return item
        begin, end, step = key.indices(self.shape[0])
        if step != 1:
            return np.stack([self._block(k, k + 1)[0] for k in range(begin, end, step)])
        return self._block(begin, max(begin, end))

    def _within(self, keys: tuple[Any, ...]) -> Array:
        """Return the part for keys other than whole items: with a single read if it is one piece of the file, else
        through a memory map."""
        leading: list[int] = []
        for axis, k in enumerate(keys):
            if not isinstance(k, int | np.integer):
                break
            leading.append(int(k) % self.shape[axis])
        inner = keys[len(leading) :]
        plain = all(isinstance(k, slice) and k == slice(None) for k in inner[1:])
        if leading and plain and self._stride == self.item_bytes and len(leading) < len(self.shape):
            # (T, Z, Y, X) at one T: consecutive items of the inner axes, read as one piece.
            size = self.shape[len(leading) :]
            first = int(np.ravel_multi_index(leading, self.shape[: len(leading)]))
            bytes_of = math.prod(size) * self.dtype.itemsize
            part = FileFrames(self.path, self.dtype, size, self.offset + first * bytes_of)
            part._file = self._opened()
            block: Array = part[inner[0]] if inner else part[:]
            return block
        if self._stride != self.item_bytes:
            raise NotImplementedError("frames with bytes between them are read one after the other")
        mapped = np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
        return np.array(mapped[keys], order="C", subok=False)

    def _opened(self) -> FileIO:
        if self._file is None:
            try:
                self._file = FileIO(self.path, "r")
            except OSError as error:
                raise read_error(error, self.path.name) from error
        return self._file

    def _block(self, begin: int, end: int) -> Array:
        out = self.new_block(end - begin)
        if not out.size:
            return out
        if self._stride == self.item_bytes:
            self._fill(out, self.offset + begin * self._stride)
        else:
            for k in range(begin, end):
                self._fill(out[k - begin : k - begin + 1], self.offset + k * self._stride)
        return out

    def _fill(self, out: Array, start: int) -> None:
        file = self._opened()
        view = memoryview(out.reshape(-1).view(np.uint8).data)
        done = 0
        try:
            file.seek(start)
            while done < len(view):
                count = file.readinto(view[done:])
                if not count:
                    raise FrameDamage("the file ends within this frame", self.path.name, start + done)
                done += count
        except OSError as error:
            raise read_error(error, self.path.name, start + done) from error


def whole_items(size: int, offset: int, item_bytes: int, stride: int | None = None) -> int:
    """Return how many items lie completely in a file of ``size`` bytes."""
    if size < offset + item_bytes:
        return 0
    return 1 + (size - offset - item_bytes) // (stride or item_bytes)
