"""Frames from files of raw pixels: .raw, .bin, and the .img and .imm files of kSA 400 (k-Space Associates).

Raw files do not state how they are to be read, so the caller states it (:mod:`.geometry`). Files of kSA 400 have a
header whose layout is not published. Its signature and length are known from converters of its users (PARADIM's
project Chameleon), and so are the places of the frame's size. The size is accepted only if the length of the file
fits exactly; everything else needs a geometry.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from atomstream.errors import ConfigError
from atomstream.records import Frames
from atomstream.system.log_privacy import get_logger

from .damage import IndexedFrames
from .file_frames import FileFrames, whole_items
from .frame_source import EmptySourceError, Gap
from .geometry import HELP, Geometry, parse_geometry
from .options import ReadOptions
from .pixels import PixelFormat, PixelReader

logger = get_logger(__name__)

HEADER_FOR_EACH: Final = frozenset({".img", ".imm"})
"""Files with a header before each frame."""

RAW_SUFFIXES: Final = frozenset({".raw", ".bin"}) | HEADER_FOR_EACH

_KSA_SIGNATURE: Final = slice(39, 45)
_KSA_HEADERS: Final = {b"KSA00F": 640, b"KSA00J": 685}
"""Bytes of the header before each frame."""

_KSA_SIZES: Final = (("<H", 48, 320), (">H", 49, 321))
"""Type and places of width and height, little-endian or, as in the converters, big-endian: for 1024 they are equal."""


class RawSource(IndexedFrames):
    """Frames of equal size at equal distances, read by a stated geometry."""

    fps: float | None = None

    def __init__(self, path: Path, geometry: Geometry, options: ReadOptions) -> None:
        self._geometry = geometry
        size = path.stat().st_size
        before, each = _headers(path, geometry, size)
        step = each + geometry.frame_bytes
        whole = whole_items(size, before + each, geometry.frame_bytes, step)
        if not whole:
            raise EmptySourceError(
                f"{path} has {size} bytes, fewer than one frame of {geometry.frame_bytes} bytes with its header: "
                "the file is cut off, or --geometry is not the one of the file"
            )
        super().__init__(str(path), whole, skip_damaged=options.skip_damaged)
        self.exact = replace(geometry, header=before, each=each)
        """The geometry with the places of the headers, which do not depend on the length of the file any more."""
        self._file = FileFrames(path, geometry.dtype, (whole, *geometry.item), before + each, step)
        self._pixels = PixelReader(str(path), PixelFormat(geometry.sample, bits=geometry.bits), options)
        self.dtype = self._pixels.dtype
        self.frame_shape = self._pixels.frame_shape(geometry.height, geometry.width)
        rest = size - before - whole * step
        if rest:
            reason = f"the file ends within this frame, after {rest} of {step} bytes (if --geometry is right)"
            self.lost_tail = Gap(whole, 1, path.name, before + whole * step, reason)

    def _read(self, part: slice) -> Frames:
        block = self._geometry.pixels(self.name, self._file[part], part.start)
        return self._pixels.frames(block, part.start)

    def _close(self) -> None:
        self._file.close()


def open_raw(path: Path, options: ReadOptions) -> RawSource:
    """Open a raw file with the stated geometry, or with that of its kSA header."""
    options.refuse_dataset(str(path))
    if options.geometry is not None:
        return RawSource(path, parse_geometry(options.geometry), options)
    geometry = _ksa_geometry(path)
    if geometry is None:
        raise ConfigError(
            f"{path} holds raw pixels, and does not state how they are to be read: give --geometry {HELP}"
        )
    logger.info("%s: %dx%d pixels, from its kSA header", path, geometry.width, geometry.height)
    return RawSource(path, geometry, options)


def _headers(path: Path, geometry: Geometry, size: int) -> tuple[int, int]:
    """Return the bytes before all frames, and those before each. Raises ConfigError if they contradict the file."""
    if geometry.each is not None:
        return geometry.header, geometry.each
    header, frame = geometry.header, geometry.frame_bytes
    once = size > header and (size - header) % frame == 0
    every = size % (header + frame) == 0
    several = size >= 2 * (header + frame)
    for_each = path.suffix.casefold() in HEADER_FOR_EACH
    if header and several and once != every and once == for_each:
        form = f"+{header}+0" if once else f"+0+{header}"
        found = "once, before the first frame" if once else "before each frame"
        raise ConfigError(
            f"{path} has {size} bytes, which fit exactly if the {header} bytes are there {found}: state it in "
            f"--geometry by {form} (bytes before the first frame, and before each) instead of +{header}"
        )
    return (0, header) if for_each else (header, 0)


def _ksa_geometry(path: Path) -> Geometry | None:
    """Return the geometry in a header of kSA 400; None for other files, and if the file's length contradicts it."""
    with path.open("rb") as file:
        head = file.read(max(_KSA_HEADERS.values()))
    header = _KSA_HEADERS.get(head[_KSA_SIGNATURE])
    if header is None or len(head) < header:
        return None
    size = path.stat().st_size
    for form, at_width, at_height in _KSA_SIZES:
        width, height = (struct.unpack_from(form, head, at)[0] for at in (at_width, at_height))
        for bits, dtype in ((16, np.dtype("<u2")), (8, np.dtype(np.uint8))):
            step = header + width * height * dtype.itemsize
            if width and height and size % step == 0:
                return Geometry(height, width, bits, dtype, None, 0, header)
    return None
