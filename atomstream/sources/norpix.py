"""Frames from .seq files of StreamPix (Norpix): uncompressed grey frames, each followed by its time.

The places in the header are those of Norpix' description of the format, as free readers of it document them. All
numbers are little-endian.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

import numpy as np

from atomstream.errors import ConfigError
from atomstream.records import Frames

from .damage import FrameDamage, IndexedFrames
from .file_frames import FileFrames, whole_items
from .frame_source import EmptySourceError, Gap, Times
from .options import ReadOptions
from .pixels import PixelFormat, PixelReader

_MAGIC: Final = 0xFEED
_HEADER: Final = struct.Struct("<I24sii512s9Id")
"""Magic number, name, version, size of the header, description, nine numbers of the image, frame rate."""

_GREY: Final = 100
_FORMATS: Final = {
    0: "unknown", 101: "a Bayer mosaic", 102: "JPEG", 200: "colour (BGR)", 300: "colour planes", 400: "colour (RGB)",
    500: "colour (BGRx)",
}  # fmt: skip
_FIRST_LONG_VERSION: Final = 5
"""From this version on (StreamPix 6) the header has 8192 bytes, and times have microseconds."""


class NorpixSource(IndexedFrames):
    """Frames of a .seq file, with the time at which each was taken."""

    def __init__(self, path: Path, options: ReadOptions) -> None:
        name = str(path)
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
        if len(head) < _HEADER.size or struct.unpack_from("<I", head)[0] != _MAGIC:
            raise ConfigError(f"{name} can't be read as .seq: it has no header of StreamPix (Norpix)")
        _, _, version, _, _, *image, rate = _HEADER.unpack(head)
        width, height, depth, bits, image_bytes, kind, allocated, _, step = image
        self._check_kind(name, kind, depth, bits)
        offset = 8192 if version >= _FIRST_LONG_VERSION else 1024
        dtype = np.dtype("<u2") if depth == 16 else np.dtype(np.uint8)
        pixel_bytes = width * height * dtype.itemsize
        if not pixel_bytes or image_bytes < pixel_bytes or step < image_bytes:
            raise ConfigError(
                f"{name} can't be read as .seq: its header states {width}x{height} pixels of {depth} bits in "
                f"{image_bytes} bytes, each frame {step} bytes after the other"
            )
        whole = whole_items(path.stat().st_size, offset, image_bytes, step)
        if not whole:
            raise EmptySourceError(f"{name} is empty: no frame in it is complete")
        whole = min(whole, allocated) if allocated else whole
        super().__init__(name, whole, skip_damaged=options.skip_damaged)
        self.fps = rate if 0 < rate < 1e9 else None
        self._pixels = PixelReader(
            name, PixelFormat(dtype, bits=bits if 0 < bits <= depth else depth), options
        )
        self.dtype = self._pixels.dtype
        self.frame_shape = self._pixels.frame_shape(height, width)
        self._file = FileFrames(path, dtype, (whole, height, width), offset, step)
        self._stamps = FileFrames(path, np.uint8, (whole, 8), offset + image_bytes, step)
        self._long = version >= _FIRST_LONG_VERSION
        if step >= image_bytes + 8 and not options.ignore_times:
            self._times = self._read_times(whole)
        if allocated > whole:
            end = offset + whole * step
            self.lost_tail = Gap(whole, allocated - whole, path.name, end, "the file ends there")

    @staticmethod
    def _check_kind(name: str, kind: int, depth: int, bits: int) -> None:
        if kind != _GREY:
            what = _FORMATS.get(kind, f"a format with the number {kind}")
            raise ConfigError(
                f"{name} holds {what}; uncompressed grey frames of .seq files can be read: export it from StreamPix "
                "as TIFF or AVI (uncompressed, grey)"
            )
        if depth not in (8, 16):
            raise ConfigError(f"{name} holds pixels of {depth} bits ({bits} used); 8 and 16 can be read")

    def _read_times(self, count: int) -> Times | None:
        """Return the times in s from the first one; None if they are not set or run backwards."""
        try:
            stamps = self._stamps[0:count]
        except FrameDamage:  # the last frame is complete, but not its time
            return None
        finally:
            self._stamps.close()
        seconds = stamps[:, :4].copy().view("<u4")[:, 0].astype(np.int64)
        parts = stamps[:, 4:].copy().view("<u2").astype(np.int64)
        micros = 1000 * parts[:, 0] + (parts[:, 1] if self._long else 0)
        times = (seconds - seconds[0]) + (micros - micros[0]) / 1e6
        return times if len(times) > 1 and (np.diff(times) > 0).all() else None

    def _read(self, part: slice) -> Frames:
        return self._pixels.frames(self._file[part], part.start)

    def _close(self) -> None:
        self._file.close()


def open_norpix(path: Path, options: ReadOptions) -> NorpixSource:
    """Open a .seq file of StreamPix."""
    options.refuse_dataset(str(path))
    return NorpixSource(path, options)
