"""The chain of a TIFF's pages, and a view of the file that ends before a broken link.

Each page has a directory, which states where the next one is. A camera program that ends in the middle of a recording
leaves a link to a place behind the end of the file, or to bytes that are not a directory. Parsers of TIFF then refuse
the whole file or leave out the rest without an error.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Final

_WIDTH, _HEIGHT = 256, 257
"""Tags that every page has."""

_MOST_TAGS: Final = 4096


@dataclass(frozen=True, slots=True)
class BrokenLink:
    """Where the chain of pages ends too early."""

    pages: int
    """Pages before it."""
    at: int
    """Byte of the link."""
    size: int
    """Bytes of the link."""
    target: int
    """Where it leads."""
    reason: str


@dataclass(frozen=True, slots=True)
class _Form:
    order: str
    count: str
    entry: int
    link: str

    @property
    def count_size(self) -> int:
        return struct.calcsize(self.count)

    @property
    def link_size(self) -> int:
        return struct.calcsize(self.link)


def broken_link(path: Path) -> BrokenLink | None:
    """Return the first link that leads to no page; None if all pages exist, or if the file is not a TIFF."""
    with FileIO(path) as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(16)
        form = _form(head)
        if form is None:
            return None
        at = 8 if form.link_size == 8 else 4
        if len(head) < at + form.link_size:
            return BrokenLink(0, at, form.link_size, 0, "the file ends within its header")
        (target,) = struct.unpack_from(form.order + form.link, head, at)
        seen: set[int] = set()
        while target:
            if target in seen:
                return BrokenLink(
                    len(seen), at, form.link_size, target, "its place leads back to an earlier page"
                )
            directory, reason = _directory(file, form, target, size)
            if reason:
                return BrokenLink(len(seen), at, form.link_size, target, reason)
            seen.add(target)
            at = target + len(directory)
            file.seek(at)
            link = file.read(form.link_size)
            if len(link) < form.link_size:  # some programs leave out the last link
                return None
            (target,) = struct.unpack(form.order + form.link, link)
        return None


def _form(head: bytes) -> _Form | None:
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 4:
        return None
    (kind,) = struct.unpack_from(order + "H", head, 2)
    if kind == 42:
        return _Form(order, "H", 12, "I")
    return _Form(order, "Q", 20, "Q") if kind == 43 else None


def _directory(file: FileIO, form: _Form, target: int, size: int) -> tuple[bytes, str]:
    """Return the bytes of the directory at ``target`` and ""; or b"" and the reason why it is not valid."""
    if target + form.count_size > size:
        return b"", "the file ends before it"
    file.seek(target)
    head = file.read(form.count_size)
    (count,) = struct.unpack(form.order + form.count, head)
    if not 0 < count <= _MOST_TAGS:
        return b"", "there is no directory of a page"
    if target + form.count_size + count * form.entry > size:
        return b"", "the file ends within its directory"
    entries = file.read(count * form.entry)
    tags = {struct.unpack_from(form.order + "H", entries, k * form.entry)[0] for k in range(count)}
    if not {_WIDTH, _HEIGHT} <= tags:
        return b"", "there is no directory of a page"
    return head + entries, ""


class EndedBefore(FileIO):
    """A file whose broken link reads as zero, which is the end of the chain.

    With ``padding``, :meth:`seek` reports the end of the file this number of bytes too late, for parsers that refuse a
    file which is shorter than it states; a read behind the true end returns fewer bytes than were requested.
    """

    def __init__(self, path: Path, link: BrokenLink | None, padding: int = 0) -> None:
        super().__init__(path)
        self._begin, self._end = (0, 0) if link is None else (link.at, link.at + link.size)
        self._padding = padding

    def seek(self, position: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place; see :meth:`io.IOBase.seek`."""
        if whence == os.SEEK_END:
            size = os.fstat(self.fileno()).st_size
            return super().seek(size + self._padding + position)
        return super().seek(position, whence)

    def readinto(self, buffer: Any) -> int:
        """Read into ``buffer``; see :meth:`io.RawIOBase.readinto`."""
        start = self.tell()
        count = super().readinto(buffer) or 0
        view = memoryview(buffer).cast("B")
        first, last = max(self._begin - start, 0), min(self._end - start, count)
        if first < last:
            view[first:last] = bytes(last - first)
        return count

    def read(self, size: int | None = -1) -> bytes:
        """Read bytes; see :meth:`io.RawIOBase.read`."""
        if size is None or size < 0:
            size = max(0, os.fstat(self.fileno()).st_size - self.tell())
        buffer = bytearray(size)
        count = self.readinto(buffer)
        return bytes(buffer[:count])
