"""Stored shard files: reading, sealing and comparing them.

A stored shard is the received body, then a trailer with the chunk's timestamps, then the index padded to
``chunk_size`` entries. The trailer is a zstd skippable frame, which every Zarr reader skips. Because it is inside the
file, one rename makes pixels, frame count and timestamps durable together, and everything else in the group can be
rebuilt from these files.
"""

from __future__ import annotations

import dataclasses
import errno
import math
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Literal, NamedTuple, TypeAlias

import google_crc32c
import numpy as np
import numpy.typing as npt

from atomstream import protocol
from atomstream.errors import ShardError
from atomstream.records import FrameMeta
from atomstream.server.archive.records import ChunkTimes, UploadClaims
from atomstream.shard import (
    ABSENT,
    Dims,
    DtypeName,
    Fetch,
    ShardLayout,
    decode_frames,
    index_nbytes,
    iter_frames,
    pack_index,
    pad_index,
)
from atomstream.system.files import LOCAL, FileSystem
from atomstream.system.own_files import open_file

Frame: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Comparison: TypeAlias = Literal["equal", "different", "damaged"]

_TRAILER: Final = struct.Struct("<II4s4I5dQI")
END_NBYTES: Final = _TRAILER.size + 4
"""Bytes of the trailer."""
_MAGIC: Final = 0x184D2A5B  # the skippable magic after the one of per-frame data (RFC 8878, 3.1.2)
_TAG: Final = b"ATS1"
_THINNED_TAG: Final = b"ATT1"
_WINDOW: Final = 1 << 20


class Trailer(NamedTuple):
    """What the archive adds to a shard: timestamps, and the length and CRC-32C of the received body.

    A ``thinned`` shard has lost frames on purpose: then length and CRC-32C are those of a body without them.
    """

    stamps: ChunkTimes
    nbytes: int
    crc32c: int
    thinned: bool = False


class ShardFile:
    """A checked shard file, read in windows.

    The file is not memory-mapped: with a map, an I/O error of the disk would end the server process (SIGBUS).
    ``slots`` is the stream's ``chunk_size`` for a stored shard, None for a received body.

    Raises:
        ShardError: index or per-frame data are malformed.
    """

    def __init__(self, path: Path, dims: Dims, dtype: DtypeName, slots: int | None = None) -> None:
        self._file: BinaryIO = _open(path)
        self._black_frame: Frame | None = None
        try:
            nbytes = os.fstat(self._file.fileno()).st_size
            self.layout = ShardLayout.fetch(self.fetch, nbytes, dims, dtype, slots)
        except BaseException:
            self._file.close()
            raise
        self.content_nbytes = nbytes - index_nbytes(slots or dims[0]) - (END_NBYTES if slots else 0)

    def __enter__(self) -> ShardFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self._file.close()

    def fetch(self, offset: int, nbytes: int) -> bytes:
        """Bytes of the file from ``offset`` on; fewer than ``nbytes`` at its end."""
        self._file.seek(offset)
        return self._file.read(nbytes)

    def frames(self, only: range | None = None) -> Iterator[tuple[int, Frame]]:
        """(k, read-only (H, W)) of each frame, or of those in ``only``; frames without data are black.

        Raises:
            ShardError: a frame is damaged.
        """
        wanted = only if only is not None else range(self.layout.dims[0])
        expected = iter(wanted)
        fetch = self.fetch if len(wanted) < 2 else _ReadAhead(self.fetch, self.content_nbytes)
        for k, frame in iter_frames(fetch, self.layout, wanted):
            for absent in expected:
                if absent == k:
                    break
                yield absent, self._black()
            yield k, frame
        for absent in expected:
            yield absent, self._black()

    def read_into(self, wanted: Sequence[int], out: Frame, threads: int = 1) -> None:
        """Decode frames of a stored shard into ``out``, (len(wanted), H, W); those without data are black.

        Faster than :meth:`frames`, and only for shards that were checked when they were stored.

        Raises:
            ShardError: a frame is damaged.
        """
        decode_frames(self.fetch, self.layout, wanted, out, threads)

    def _black(self) -> Frame:
        if self._black_frame is None:
            self._black_frame = np.zeros(self.layout.dims[1:], dtype=self.layout.dtype)
            self._black_frame.setflags(write=False)
        return self._black_frame


class _ReadAhead:
    """Reads a file in windows of 1 MiB, for many small ranges in ascending order up to ``end``."""

    def __init__(self, fetch: Callable[[int, int], bytes], end: int) -> None:
        self._fetch = fetch
        self._end = end
        self._start = 0
        self._window = memoryview(b"")

    def __call__(self, offset: int, nbytes: int) -> memoryview:
        """Bytes from ``offset`` on; fewer than ``nbytes`` at the end of the file."""
        first = offset - self._start
        if first < 0 or first + nbytes > len(self._window):
            ahead = min(_WINDOW, self._end - offset)
            self._window = memoryview(self._fetch(offset, max(nbytes, ahead)))
            self._start, first = offset, 0
        return self._window[first : first + nbytes]


def _open(path: Path) -> BinaryIO:
    try:
        return open_file(path, "rb")
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise ShardError(f"{path} is not a regular file and is not opened.") from None


def seal(
    body: Path, claims: UploadClaims, crc32c: int, file_system: FileSystem = LOCAL, *, synced: bool = True
) -> None:
    """Turn the file of a checked body into a stored shard, in place; durably with ``synced``."""
    n, slots = claims.dims[0], claims.chunk_size
    with open_file(body, "rb") as file:
        nbytes = file.seek(0, os.SEEK_END)
        content = nbytes - index_nbytes(n)
        file.seek(content)
        index = np.frombuffer(file.read(n * 16), dtype="<u8").reshape(n, 2)
    end = pack_trailer(claims.stamps(FrameMeta()), slots, nbytes, crc32c) + pack_index(
        pad_index(index, slots)
    )
    fd = file_system.open_existing(body)
    try:
        file_system.write_at(fd, content, end)
        file_system.truncate(fd, content + len(end))
        if synced:
            file_system.sync(fd)
    finally:
        file_system.close(fd)


def read_trailer(path: Path, dtype: DtypeName, slots: int) -> Trailer:
    """The trailer of a stored shard, per-frame data included.

    Raises:
        ShardError: there is none, or it is damaged.
    """
    with _open(path) as file:

        def fetch(offset: int, nbytes: int) -> bytes:
            file.seek(offset)
            return file.read(nbytes)

        return trailer_of(fetch, file.seek(0, os.SEEK_END), str(path), dtype, slots)


def trailer_of(fetch: Fetch, nbytes: int, name: str, dtype: DtypeName, slots: int) -> Trailer:
    """The trailer of a stored shard of ``nbytes`` bytes, of which ``fetch(offset, nbytes)`` returns parts.

    Raises:
        ShardError: there is none, or it is damaged; ``name`` names the shard.
    """
    position = nbytes - index_nbytes(slots) - END_NBYTES
    if position < 0:
        raise ShardError(f"{name} is too short to be a stored shard.")
    trailer = _unpack_trailer(bytes(fetch(position, END_NBYTES)), name, slots)
    layout = ShardLayout.fetch(fetch, nbytes, trailer.stamps.dims, dtype, slots)
    return trailer._replace(stamps=dataclasses.replace(trailer.stamps, meta=layout.meta))


def compare(stored: Path, new: ShardFile, slots: int) -> Comparison:
    """Whether the shard at ``stored`` has the same frames as ``new``: compares bytes first, then pixels.

    Frames that were removed from it on purpose are not compared.

    ``"damaged"`` if the stored one can't be read, so that the new upload may replace it.

    Raises:
        ShardError: ``new`` is damaged.
    """
    dims, dtype = new.layout.dims, new.layout.dtype
    try:
        trailer = read_trailer(stored, dtype, slots)
        if trailer.stamps.dims != dims:
            return "different"
        old = ShardFile(stored, dims, dtype, slots)
    except ShardError:
        return "damaged"
    with old:
        if trailer.thinned:
            return _compare_frames(old, new, [offset == ABSENT for offset, _ in old.layout.index.tolist()])
        return "equal" if _same_bytes(old, new) else _compare_frames(old, new, [False] * dims[0])


def _same_bytes(old: ShardFile, new: ShardFile) -> bool:
    if old.content_nbytes != new.content_nbytes or not np.array_equal(old.layout.index, new.layout.index):
        return False
    windows = range(0, old.content_nbytes, _WINDOW)
    sizes = (min(_WINDOW, old.content_nbytes - start) for start in windows)
    return all(old.fetch(start, n) == new.fetch(start, n) for start, n in zip(windows, sizes, strict=True))


def _compare_frames(old: ShardFile, new: ShardFile, removed: Sequence[bool]) -> Comparison:
    stored = old.frames()
    for k, frame in new.frames():
        try:
            _, before = next(stored)
        except ShardError:
            return "damaged"
        if not (removed[k] or np.array_equal(before, frame)):
            return "different"
    return "equal"


def body_crc32c(shard: ShardFile, n_frames: int, note: Callable[[int], None] = lambda _nbytes: None) -> int:
    """The CRC-32C of the body of a stored shard, to be compared with its trailer; ``note(nbytes)`` at each piece read.

    Raises:
        OSError: from the disk.
    """
    crc = 0
    for start in range(0, shard.content_nbytes, _WINDOW):
        piece = shard.fetch(start, min(_WINDOW, shard.content_nbytes - start))
        crc = google_crc32c.extend(crc, piece)
        note(len(piece))
    return int(google_crc32c.extend(crc, pack_index(shard.layout.index[:n_frames])))


def pack_trailer(stamps: ChunkTimes, slots: int, nbytes: int, crc32c: int, *, thinned: bool = False) -> bytes:
    """The bytes of a :class:`Trailer`."""
    times = (stamps.fps, stamps.start_unix_ms, stamps.end_unix_ms)
    clock = (stamps.clock_offset_ms, stamps.clock_uncertainty_ms)
    packed = _TRAILER.pack(
        _MAGIC,
        END_NBYTES - 8,
        _THINNED_TAG if thinned else _TAG,
        *stamps.dims,
        slots,
        *times,
        *(math.nan if value is None else value for value in clock),
        nbytes,
        crc32c,
    )
    return packed + struct.pack("<I", google_crc32c.value(packed))


def _unpack_trailer(raw: bytes, name: str, slots: int) -> Trailer:
    packed, check = raw[: _TRAILER.size], raw[_TRAILER.size :]
    if len(check) != 4 or struct.unpack("<I", check)[0] != google_crc32c.value(packed):
        raise ShardError(f"{name} has no valid trailer: it is damaged, or not a shard file.")
    _, _, tag, n, height, width, _, fps, start, end, offset, uncertainty, nbytes, crc = _TRAILER.unpack(
        packed
    )
    if tag not in (_TAG, _THINNED_TAG):
        raise ShardError(f"{name} was written by another version of atomstream ({tag!r}).")
    if not (protocol.MIN_FPS <= fps <= protocol.MAX_FPS and math.isfinite(start) and math.isfinite(end)):
        raise ShardError(f"{name} has impossible times: {fps} frames/s from {start} to {end} ms.")
    if not 1 <= n <= slots:
        raise ShardError(f"{name} has {n} frames; a chunk of this stream has at most {slots}.")
    offset, uncertainty = (None if math.isnan(value) else value for value in (offset, uncertainty))
    stamps = ChunkTimes((n, height, width), fps, start, end, offset, uncertainty)
    return Trailer(stamps, nbytes, crc, tag == _THINNED_TAG)
