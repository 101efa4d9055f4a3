"""Thinning: removing some frames of a stored stream for good, while all others keep their numbers.

The entries of removed frames in a shard's index become absent, which the Zarr specification provides for: readers see
the fill value 0 there, as for a missing chunk. So the arrays keep their lengths, and times, results and marks still
belong to the same frame numbers. The array ``frame_kept`` is 1 for each frame that is still there.

The order makes every moment of a kill harmless: first ``frame_kept`` becomes durable, then each shard is replaced by
one rename. So a frame with the value 1 is always there; one with 0 may be there until the thinning is continued.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import google_crc32c
import numpy as np
import numpy.typing as npt

from atomstream.errors import ShardError
from atomstream.index_ranges import IndexSet
from atomstream.server.archive.archive_files import ArchiveFiles
from atomstream.server.archive.chunk_index import ChunkIndex
from atomstream.server.archive.column import COLUMN_CHUNK, Column
from atomstream.server.archive.shard_file import ShardFile, body_crc32c, pack_trailer, read_trailer
from atomstream.shard import ABSENT, Index, contiguous_index, index_nbytes, pack_index, pack_meta, pad_index

KEPT: Final = "frame_kept"
"""The array of the group, along ``time``."""
ABOUT_KEY: Final = "thinning"
"""The field of the description, and the group's attribute."""
_ABOUT: Final = {"long_name": "1: the frame is stored; 0: it was removed, or never stored"}
_REACH: Final = 1 << 17
"""Largest number of frames on each side in which :meth:`ThinnedFrames.nearest` searches a kept one."""

Mask: TypeAlias = npt.NDArray[np.bool_]


class ThinnedFrames:
    """Which frames of one stream were kept, and the removal of others. Blocks; thread-safe.

    ``stripes`` are the archive's locks of its chunks.
    """

    def __init__(self, index: ChunkIndex, files: ArchiveFiles, stripes: Sequence[threading.Lock]) -> None:
        self._index = index
        self._files = files
        self._stripes = stripes

    @property
    def exists(self) -> bool:
        """Whether frames of this stream may have been removed."""
        return self._index.group.shape_of(KEPT) == ("time", "int32")

    def _column(self) -> Column:
        return self._index.group.column(KEPT, "time", "int32", 0, _ABOUT)

    def plan(self, wanted: Callable[[int, int], Mask]) -> int:
        """Write ``frame_kept``, durably: 1 for frames that are there and in ``wanted(first, n)``, a mask (n,).

        Returns their number. Nothing is removed yet.

        A damaged shard is noted, and its frames count as not there.

        Raises:
            OSError: from the disk.
        """
        total = 0
        pieces: list[tuple[int, npt.NDArray[np.int32]]] = []
        for index, n_frames in sorted(self._index.chunks().items()):
            first = self._first(index)
            try:
                kept = wanted(first, n_frames)
                if kept.any():
                    kept = kept & self.present(index)[:n_frames]
            except (ShardError, FileNotFoundError) as error:
                self._index.note_unreadable(index, error)
                continue
            total += int(kept.sum())
            pieces.append((first, kept.astype(np.int32)))
            if sum(len(values) for _, values in pieces) >= COLUMN_CHUNK:
                self._write(pieces)
                pieces = []
        self._write(pieces)
        self._index.publish()
        with self._index.writing:
            self._index.group.write_document(KEPT)
            self._files.file_system.sync_folder(self._index.group.folder / KEPT)
            self._files.file_system.sync_folder(self._index.group.folder)
        return total

    def _write(self, pieces: Iterable[tuple[int, npt.NDArray[np.int32]]]) -> None:
        with self._index.writing:
            self._files.check_not_deleted()
            self._column().write(pieces)

    def _first(self, index: int) -> int:
        assert self._index.geometry is not None
        return index * self._index.geometry.chunk_size

    def read(self, start: int, stop: int) -> Mask:
        """Whether each of these frames was kept; all True in a stream of which none was removed."""
        if not self.exists:
            return np.ones(max(0, stop - start), dtype=bool)
        return np.asarray(self._column().read(start, stop) != 0)

    def present(self, index: int) -> Mask:
        """Which frames of a stored chunk are in its shard, (N,)."""
        geometry = self._index.geometry
        assert geometry is not None
        path = self._index.shard_path(index)
        trailer = read_trailer(path, geometry.dtype, geometry.chunk_size)
        if not trailer.thinned:  # absent frames of an upload are black ones
            return np.ones(trailer.stamps.dims[0], dtype=bool)
        with ShardFile(path, trailer.stamps.dims, geometry.dtype, geometry.chunk_size) as shard:
            return np.asarray(shard.layout.index[:, 0] != ABSENT)

    def remove(self, index: int, planned: IndexSet | None = None) -> int:
        """Remove the frames of one chunk that ``frame_kept`` does not name; returns the bytes that became free.

        Those of other ``planned`` chunks that are in the same object may be removed with them.

        Raises:
            ShardError: the shard is damaged; it was not changed. OSError: from the disk; the same.
        """
        with self._stripes[index % len(self._stripes)]:
            self._files.check_not_deleted()
            return self._remove(index, planned or IndexSet())

    def _remove(self, index: int, planned: IndexSet) -> int:
        path = self._index.shard_path(index)
        pieces = self._thinned(index, path)
        if pieces is None:
            return 0
        before = path.stat().st_size
        self._replace(index, pieces)
        return before - path.stat().st_size

    def _thinned(self, index: int, path: Path) -> list[bytes] | None:
        """The shard of a chunk, which is in the file ``path``, without removed frames; None if it has none of them."""
        geometry = self._index.geometry
        assert geometry is not None
        slots, dtype, first = geometry.chunk_size, geometry.dtype, self._first(index)
        trailer = read_trailer(path, dtype, slots)
        n_frames = trailer.stamps.dims[0]
        keep = self.read(first, first + n_frames)
        with ShardFile(path, trailer.stamps.dims, dtype, slots) as shard:
            there = shard.layout.index[:, 0] != ABSENT
            if not (there & ~keep).any() and (trailer.thinned or keep.all()):
                return None
            if body_crc32c(shard, n_frames) != trailer.crc32c:
                raise ShardError(f"{path} does not match its checksum; it was not thinned.")
            parts = _parts(shard, there & keep)
        table = parts.table
        body = [*parts.content, pack_index(table)]
        crc = 0
        for piece in body:
            crc = google_crc32c.extend(crc, piece)
        nbytes = sum(map(len, parts.content)) + index_nbytes(n_frames)
        trailing = pack_trailer(trailer.stamps, slots, nbytes, crc, thinned=True)
        return [*parts.content, trailing, pack_index(pad_index(table, slots))]

    def _replace(self, index: int, pieces: Sequence[bytes]) -> None:
        disk, path = self._files.file_system, self._index.shard_path(index)
        temporary = self._files.temporary_path()
        try:
            handle = disk.create(temporary)
            try:
                disk.write(handle, pieces)
                disk.sync(handle)
            finally:
                disk.close(handle)
            self._files.check_not_deleted()
            disk.rename(temporary, path)
        finally:
            disk.unlink(temporary)
        disk.sync_folder(path.parent)

    def repair(self, about: Mapping[str, Any]) -> None:
        """At the opening: make the array again if the description has a thinning and its document is lost.

        Raises:
            OSError: from the disk.
        """
        planned = isinstance(about.get(ABOUT_KEY), dict) and about[ABOUT_KEY].get("planned")
        if planned and not self.exists and self._index.geometry is not None:
            self._files.note_damage(self._index.group.folder / KEPT, "it was made again, from the chunks")
            self.plan(lambda _first, n: np.ones(n, dtype=bool))

    def attributes(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """The group's attributes about a thinning; none for a stream of which every frame was kept."""
        noted = about.get(ABOUT_KEY)
        if not isinstance(noted, dict):
            return {}
        every = noted.get("every")
        text = (
            "all frames were removed"
            if not every
            else f"one frame in {every} was kept, and those near events"
        )
        return {
            ABOUT_KEY: f"{text}; the array {KEPT} names those that are left",
            "thinned_every": every,
            "thinned_around_s": noted.get("around_s"),
            "thinned_at": noted.get("since"),
            "frames_left": noted.get("frames_left"),
        }

    def note_stored(self, index: int) -> None:
        """A chunk of a thinned stream was uploaded, again or late: note which of its frames are there."""
        if self.exists:
            self._write([(self._first(index), self.present(index).astype(np.int32))])

    def nearest(self, frame: int) -> int | None:
        """The kept frame nearest to the stored frame ``frame``; None if no kept frame is near it."""
        if not self.exists:
            return frame
        reach = 64
        while reach <= _REACH:
            start = max(0, frame - reach)
            (kept,) = np.nonzero(self.read(start, min(frame + reach + 1, self._index.n_frames())))
            if len(kept):
                return int(start + kept[np.argmin(np.abs(kept + start - frame))])
            reach *= 8
        return None


class _Kept(NamedTuple):
    """The frames that stay: the bytes before the trailer, and the index of all frames."""

    content: list[bytes]
    table: Index


def _parts(shard: ShardFile, keep: Mask) -> _Kept:
    """Per-frame data of all frames, then the encoded frames in ``keep`` as they are."""
    old = shard.layout.index
    head = pack_meta(shard.layout.meta) if shard.layout.meta else b""
    frames = [shard.fetch(int(offset), int(nbytes)) for offset, nbytes in old[keep].tolist()]
    table = np.full(old.shape, ABSENT, dtype=np.uint64)
    if frames:
        table[keep] = contiguous_index(len(head), [len(frame) for frame in frames])
    return _Kept([head, *frames], table)
