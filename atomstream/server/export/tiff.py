"""A stack of frames as TIFF, with their full bit depth.

Written here and not by a library: the directories of an hour of frames have 100 MB, which libraries keep in memory.
Layout of the file: header, directory of the first page, its texts, the pixels of all pages, the other directories. The
offsets of TIFF have 32 bits, so longer files are BigTIFF. The description is in the form of tifffile, from which it
and napari read shape and axes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from atomstream.errors import ConfigError
from atomstream.plain_text import plain_text
from atomstream.server.archive.records import Geometry
from atomstream.server.export.growth import Growth

CLASSIC_BYTES: Final = 1 << 32
"""Files that may be as long as this are BigTIFF."""

PAGES: Final = 1 << 14
"""Directories that are made at once."""

_ASCII, _SHORT, _LONG, _LONG8 = 2, 3, 4, 16
_DESCRIPTION: Final = 270
_STRIP_OFFSETS: Final = 273
_SOFTWARE: Final = 305


def write_tiff(growth: Growth, path: Path) -> None:
    """Write the frames as uncompressed grey pages, uint8 or uint16.

    Raises:
        ConfigError: the stream has no frames.
    """
    geometry, pages = growth.archive.geometry, growth.n_exported
    if geometry is None or not pages:
        raise ConfigError("The stream has no frames.")
    description = {
        "shape": [pages, geometry.height, geometry.width],
        "axes": "TYX",
        "fps": growth.metadata.fps / growth.step,
        "Name": plain_text(growth.metadata.name),
    }
    stack = _Stack(pages, geometry, {_DESCRIPTION: json.dumps(description), _SOFTWARE: "atomstream"})
    with path.open("wb") as file, closing(growth.pieces(pixels=True, columns=False)) as pieces:
        file.write(stack.begin())
        for piece in pieces:
            if piece.frames is not None:
                file.write(piece.frames.reshape(-1).view(np.uint8).data)
        for directories in stack.rest():
            file.write(directories)


class _Stack:
    """The bytes of a stack beside its pixels, which follow :meth:`begin`."""

    def __init__(self, pages: int, geometry: Geometry, texts: Mapping[int, str]) -> None:
        itemsize = np.dtype(geometry.dtype).itemsize
        self._pages = pages
        self._page_nbytes = geometry.height * geometry.width * itemsize
        self._texts = {tag: text.encode("ascii") + b"\0" for tag, text in texts.items()}
        most = pages * (self._page_nbytes + 256) + sum(map(len, self._texts.values())) + 1024
        self._big = most >= CLASSIC_BYTES
        self._offset = np.dtype("<u8" if self._big else "<u4")
        offset_type = _LONG8 if self._big else _LONG
        self._tags: list[tuple[int, int, int, int]] = [
            (256, _LONG, 1, geometry.width),
            (257, _LONG, 1, geometry.height),
            (258, _SHORT, 1, 8 * itemsize),
            (259, _SHORT, 1, 1),  # not compressed
            (262, _SHORT, 1, 1),  # 0 is black
            (_STRIP_OFFSETS, offset_type, 1, 0),
            (277, _SHORT, 1, 1),  # one value for each pixel
            (278, _LONG, 1, geometry.height),  # one strip
            (279, offset_type, 1, self._page_nbytes),
            (339, _SHORT, 1, 1),  # unsigned
        ]
        self._header = (
            struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) if self._big else struct.pack("<2sHI", b"II", 42, 8)
        )
        texts_at = len(self._header) + self._directory(len(self._tags) + len(texts)).itemsize
        self._pixels_at = _aligned(texts_at + sum(map(len, self._texts.values())))
        self._rest_at = _aligned(self._pixels_at + pages * self._page_nbytes)

    def begin(self) -> bytes:
        """The bytes before the pixels."""
        tags, texts_at = list(self._tags), len(self._header)
        texts_at += self._directory(len(tags) + len(self._texts)).itemsize
        for tag, text in self._texts.items():
            tags.append((tag, _ASCII, len(text), texts_at))
            texts_at += len(text)
        first = self._directories(range(1), sorted(tags))
        begin = self._header + first.tobytes() + b"".join(self._texts.values())
        return begin.ljust(self._pixels_at, b"\0")

    def rest(self) -> Iterator[bytes]:
        """The bytes after the pixels: padding, then the directories of all pages but the first."""
        yield bytes(self._rest_at - self._pixels_at - self._pages * self._page_nbytes)
        for first in range(1, self._pages, PAGES):
            yield self._directories(range(first, min(first + PAGES, self._pages)), self._tags).tobytes()

    def _directories(self, pages: range, tags: list[tuple[int, int, int, int]]) -> npt.NDArray[Any]:
        numbers = np.arange(pages.start, pages.stop, dtype=np.uint64)
        made = np.zeros(len(pages), self._directory(len(tags)))
        made["count"] = len(tags)
        made["tags"] = np.array(tags, self._tag)
        strip = [tag for tag, *_ in tags].index(_STRIP_OFFSETS)
        made["tags"]["value"][:, strip] = self._pixels_at + numbers * self._page_nbytes
        # Directory n is behind n - 1 others after the pixels; that of page 0 is at the start of the file.
        following = self._rest_at + numbers * self._directory(len(self._tags)).itemsize
        made["next"] = np.where(numbers + 1 < self._pages, following, 0)
        return made

    @property
    def _tag(self) -> np.dtype[Any]:
        return np.dtype([("tag", "<u2"), ("type", "<u2"), ("count", self._offset), ("value", self._offset)])

    def _directory(self, n_tags: int) -> np.dtype[Any]:
        count = "<u8" if self._big else "<u2"
        return np.dtype([("count", count), ("tags", self._tag, (n_tags,)), ("next", self._offset)])


def _aligned(position: int) -> int:
    return position + -position % 16
