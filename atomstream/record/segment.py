"""A part of the dashcam: about a second of consecutive frames, raw in memory or compressed in a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
import zstandard

from atomstream.cameras import CameraFrame
from atomstream.system.own_files import create_plain

SEGMENT_BYTES: Final = 32 << 20
SEGMENT_S: Final = 1.0
"""Largest size in bytes and largest duration in s of a segment."""

LEVEL: Final = 1
"""zstd level. Frames are written once and mostly never read."""


class Segment:
    """Consecutive frames; ``first`` is the number of the first one in the dashcam. Guarded by the dashcam's lock."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.raw: list[CameraFrame] | None = []
        self.raw_bytes = 0
        self.stored_bytes = 0
        self._stamps: list[tuple[int | None, float]] = []
        self._path: Path | None = None
        self._shape: tuple[int, ...] = ()
        self._dtype = np.dtype(np.uint8)

    @property
    def end(self) -> int:
        """Number after the last frame."""
        return self.first + len(self._stamps)

    @property
    def times_ms(self) -> tuple[float, float]:
        """Times of the first and the last frame in UTC ms; there is at least one frame."""
        return self._stamps[0][1], self._stamps[-1][1]

    def accepts(self, frame: CameraFrame) -> bool:
        """Whether this frame can be added: the segment is in memory, not full, and its frames have this shape."""
        if self.raw is None:
            return False
        if not self.raw:
            return True
        pixels = self.raw[0].pixels
        return (
            self.raw_bytes + frame.pixels.nbytes <= SEGMENT_BYTES
            and (frame.time_ms_utc or 0.0) - self.times_ms[0] < 1000.0 * SEGMENT_S
            and (pixels.shape, pixels.dtype) == (frame.pixels.shape, frame.pixels.dtype)
        )

    def add(self, frame: CameraFrame) -> None:
        """Add a frame that :meth:`accepts` has accepted."""
        assert self.raw is not None
        self.raw.append(frame)
        self.raw_bytes += frame.pixels.nbytes
        self._stamps.append((frame.frame_id, frame.time_ms_utc or 0.0))

    def number_at(self, time_ms: float) -> int:
        """Number of the first frame that is not before ``time_ms`` (UTC); ``end`` if all are."""
        later = (k for k, (_, time) in enumerate(self._stamps) if time >= time_ms)
        return self.first + next(later, len(self._stamps))

    def write(self, path: Path) -> int:
        """Write the frames to ``path``, compressed, and return the bytes. The frames stay in memory.

        Raises:
            OSError: the disk failed; nothing is left of the file.
        """
        raw = self.raw
        if not raw:  # deleted meanwhile
            return 0
        stack = np.stack([frame.pixels for frame in raw])
        self._shape, self._dtype = stack.shape, stack.dtype
        data = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(stack.data)
        fd = create_plain(path)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        except OSError:
            os.close(fd)
            with suppress(OSError):
                path.unlink()
            raise
        os.close(fd)
        return len(data)

    def move_to_disk(self, path: Path, nbytes: int) -> None:
        """Release the frames in memory; they are in the file ``path`` of ``nbytes`` bytes."""
        self.raw, self._path, self.stored_bytes = None, path, nbytes

    def frames(self) -> Sequence[CameraFrame]:
        """The frames, read from the file if they are there.

        Raises:
            OSError: the file can't be read.
            ValueError: it is damaged.
        """
        if self.raw is not None:
            return tuple(self.raw)
        assert self._path is not None
        try:
            size = int(np.prod(self._shape)) * self._dtype.itemsize
            data = zstandard.ZstdDecompressor().decompress(self._path.read_bytes(), max_output_size=size)
            stack = np.frombuffer(data, self._dtype).reshape(self._shape)
        except zstandard.ZstdError as error:
            raise ValueError(f"{self._path} is damaged ({error})") from error
        return [
            CameraFrame(pixels, number, time)
            for pixels, (number, time) in zip(stack, self._stamps, strict=True)
        ]

    def remove(self) -> None:
        """Delete the file, if there is one. An error leaves it for the next start of a recorder."""
        self.raw = []
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()
