"""The index of a stream's stored chunks, and the timestamp columns and metadata documents derived from them.

All of it follows from the shard files. So a crash may leave it behind them but never ahead, and
:meth:`ChunkIndex.recover` brings it up to date.
"""

from __future__ import annotations

import errno
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final, Generic, TypeAlias, TypeVar

from atomstream import protocol
from atomstream.counted import counted
from atomstream.errors import ConflictError, ShardError, StreamError
from atomstream.index_ranges import IndexSet
from atomstream.server.archive.column import COLUMN_CHUNK
from atomstream.server.archive.frame_runs import FrameRuns
from atomstream.server.archive.records import ChunkTimes, Geometry
from atomstream.server.archive.shard_file import read_trailer
from atomstream.server.archive.timestamp_columns import (
    COUNTS,
    NAMES,
    drop_invalid,
    recorded_chunks,
    recorded_origin,
    sync_stamps,
    write_stamps,
)
from atomstream.server.archive.zarr_group import DOCUMENT, FRAMES, ZarrGroup
from atomstream.system.files import DISK_FULL_ERRNOS
from atomstream.system.log_privacy import get_logger

T = TypeVar("T")


class _Batch(Generic[T]):
    def __init__(self) -> None:
        self.items: list[T] = []
        self.done = False
        self.error: BaseException | None = None


class GroupCommit(Generic[T]):
    """Group commit: callers that arrive during a write share the next one.

    Calls ``write(items)`` from one thread at a time, each item in exactly one call. A reply 200 means that the chunk
    is readable, so each commit waits for a write of the metadata that covers it. One write for each commit would be
    too many for a slow disk, and a timer would delay replies. This way a caller waits for at most two writes.
    """

    def __init__(self, write: Callable[[list[T]], None]) -> None:
        self._write = write
        self._state_lock = threading.Condition()
        self._gathering: _Batch[T] = _Batch()
        self._busy = False

    def submit(self, item: T) -> None:
        """Return after a ``write`` that got ``item``; raises what that raised."""
        with self._state_lock:
            batch = self._gathering
            batch.items.append(item)
            while self._busy and not batch.done:
                self._state_lock.wait(0.2)  # in slices: Windows locks ignore Ctrl-C otherwise
            if not batch.done:
                self._busy = True
                self._gathering = _Batch()
        if not batch.done:  # no other thread can write this batch now
            self._lead(batch)
        if batch.error is not None:
            raise batch.error

    def _lead(self, batch: _Batch[T]) -> None:
        try:
            self._write(batch.items)
        except BaseException as error:  # every caller of the batch raises it
            batch.error = error
        with self._state_lock:
            batch.done = True
            self._busy = False
            self._state_lock.notify_all()


log = get_logger(__name__)

Stamps: TypeAlias = Mapping[int, ChunkTimes | None]

SYNC_PERIOD_S: Final = 0.5
"""Least time, in s, between two syncs of the columns and writes of their documents; chunks may arrive ten times a
second. After a power cut, the timestamps of what was not synced are read from the shards again."""

_HEALED_AT_ONCE: Final = 512

FREE_FILES: Final = 128
FRAMES_PER_FILE: Final = 8
"""A stream's arrays along ``time`` may have ``FREE_FILES`` files each, and one more for so many stored frames. A file
has ``COLUMN_CHUNK`` values, also if only one of them is known: single frames far apart would make gigabytes."""

_TRIED: Final = 4
"""Shards that are read to find out which of two geometries is right."""

NO_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, *DISK_FULL_ERRNOS})
"""Error numbers that do not mean a damaged file: the process can't open more files, or the disk is full."""


class ChunkIndex:
    """The list of the stored chunks, to which new ones are added; thread-safe.

    ``attributes()`` returns the group's attributes; it is called for each write of the documents, with the lock
    ``writing`` held.
    """

    def __init__(self, group: ZarrGroup, attributes: Callable[[], Mapping[str, Any]]) -> None:
        self.group = group
        self.geometry: Geometry | None = None
        self.origin_ms: float | None = None
        self.writing = threading.RLock()
        """The lock for disk writes of columns and documents; always acquired before ``_state_lock``."""
        # _state_lock is never held during a disk write, so reading the stream's status does not wait for the disk.
        self._state_lock = threading.Lock()
        self._attributes = attributes
        self._files = group.files
        # Ten hours of short chunks are 360 000 chunks: so their indices are kept as ranges, and a size only of those
        # that are not full.
        self._partial: dict[int, int] = {}
        self._stored = IndexSet()
        self._column_files = IndexSet()
        self._unsynced: set[int] = set()
        self._touched: defaultdict[str, set[Path]] = defaultdict(set)
        self._synced_at = -math.inf
        self._recorder: GroupCommit[tuple[int, ChunkTimes]] = GroupCommit(self._record)

    def shard_path(self, index: int) -> Path:
        """Path of a chunk's shard file, whether or not it exists."""
        return self.group.shards / str(index) / "0" / "0"

    def set_geometry(self, geometry: Geometry) -> bool:
        """Set the stream's geometry if it has none yet; False if it has a different one.

        Raises:
            OSError: from the disk.
        """
        with self.writing:
            if self.geometry is None:
                self.group.add_frames(geometry)
                self.geometry = geometry
            return self.geometry == geometry

    def add(self, index: int, stamps: ChunkTimes) -> None:
        """Return after the chunk's timestamps are in the columns and the documents cover it.

        Raises:
            OSError: from the disk; calling it again is harmless.
        """
        self._recorder.submit((index, stamps))

    def publish(self) -> None:
        """Write the documents that changed."""
        with self.writing:
            self.group.publish(self._attributes())

    def sync(self) -> None:
        """Make the columns durable, and write their own documents with the present length.

        Raises:
            OSError: from the disk; calling it again is harmless.
        """
        with self.writing:
            if not self._touched:
                return
            with self._state_lock:
                covered, stored = set(self._unsynced), str(self._stored)
            sync_stamps(self.group, self._touched, stored)
            self._touched.clear()
            self._unsynced = self._unsynced - covered
            self._synced_at = time.monotonic()

    def sync_if_due(self) -> None:
        """:meth:`sync`, at most once in ``SYNC_PERIOD_S``."""
        if time.monotonic() - self._synced_at >= SYNC_PERIOD_S:
            self.sync()

    def stored(self) -> IndexSet:
        """The indices of the chunks stored; a copy."""
        with self._state_lock:
            return self._stored.copy()

    def frames_stored(self) -> int:
        """Frames of all stored chunks together."""
        with self._state_lock:
            return self._frames_stored()

    def _frames_stored(self) -> int:
        if self.geometry is None:
            return 0
        size = self.geometry.chunk_size
        return size * (len(self._stored) - len(self._partial)) + sum(self._partial.values())

    def chunks(self) -> dict[int, int]:
        """Number of frames of each stored chunk, by index. Large for long streams: do not call it on the event loop."""
        with self._state_lock:
            return {index: self._size(index) for index in self._stored}

    def size(self, index: int) -> int:
        """Number of frames of one chunk, 0 if it is missing."""
        with self._state_lock:
            return self._size(index)

    def _size(self, index: int) -> int:
        if self.geometry is None or index not in self._stored:
            return 0
        return self._partial.get(index, self.geometry.chunk_size)

    def check_density(self, index: int, n_frames: int, chunk_size: int) -> None:
        """Refuse a chunk whose frames are so far from all others that the arrays would be far larger than the frames.

        Raises:
            ConflictError: 409, the stored frames have too many holes already.
        """
        first, last = _column_files(index, n_frames, chunk_size)
        with self._state_lock:
            files, stored = self._column_files, self._frames_stored()
            new = sum(number not in files for number in range(first, last + 1))
            room = FREE_FILES + stored // FRAMES_PER_FILE
            if not new or len(files) + new <= room:
                return
        raise ConflictError(
            f"Chunk {index} of stream {self._name} is far from the others: with {counted(stored, 'frame')} stored in "
            f"{counted(len(files), 'place')}, the arrays of results would be many times as large as the frames. "
            "The stored chunks are not changed. Number the chunks one after the other, and choose a chunk_size (now "
            f"{chunk_size}) near "
            "the frames that each chunk has.",
            status=409,
        )

    def frame_runs(self) -> FrameRuns:
        """Which frames are stored. The cost grows with the number of ranges and short chunks: do not call it on the
        event loop."""
        with self._state_lock:
            stored, partial = self._stored.copy(), dict(self._partial)
        return FrameRuns.of_chunks(stored, self.geometry.chunk_size if self.geometry else 1, partial)

    def n_frames(self) -> int:
        """Length of ``frames``: the largest k * chunk_size + N_k."""
        with self._state_lock:
            return self._n_frames()

    def missing_ranges(self) -> list[tuple[int, int]]:
        """(first, last) of each range of missing indices below the highest stored one."""
        return self.missing().ranges()

    def missing(self) -> IndexSet:
        """The missing indices below the highest stored one."""
        with self._state_lock:
            return self._stored.gaps()

    def not_stored(self, indices: IndexSet) -> IndexSet:
        """Those of ``indices`` that are not stored."""
        with self._state_lock:
            return indices - self._stored

    def recover(self, described: Geometry | None = None) -> None:
        """Read the state from the disk at opening, and repair columns and documents from the shards.

        Only the shards whose columns were not synced are read: a few after a crash. ``described`` is the geometry in
        the stream's description, in case the document of ``frames`` is damaged.

        Raises:
            StreamError: the metadata of ``frames`` is lost. OSError: from the disk.
        """
        with self.writing:
            self.group.load()
            found = self._find_chunks()
            if found:
                self._find_geometry(found, described)
            else:  # without any shard the geometry is still free
                self.group.drop(FRAMES)
            self._load_chunks(found)
            try:
                self.publish()
                self.sync()
            except OSError as error:
                if error.errno not in DISK_FULL_ERRNOS:
                    raise
                # The stream can be read. The next chunk, or the next start, writes them again.
                log.warning("stream %s: its documents can't be written, the disk is full", self._name)

    def _find_chunks(self) -> set[int]:
        """The indices of all chunks that are stored."""
        return set(_indices_in(self.group.shards))

    def _find_geometry(self, found: set[int], described: Geometry | None) -> None:
        recorded = self.group.geometry()
        self.geometry = recorded
        differs = described is not None and described != recorded
        if differs and (recorded is None or not self._fits(found) or self._fits(found, described)):
            self.geometry = described
        if self.geometry is None:
            raise StreamError(
                f"{self.group.folder} holds {counted(len(found), 'chunk')}, but the metadata of `frames` is lost: "
                "restore frames/zarr.json from a copy. Nothing was changed.",
                data_id=self._name,
            )
        if self.geometry != recorded:
            path = self.group.folder / FRAMES / DOCUMENT
            self._files.note_damage(path, "it does not describe the frames; it was written again")
            self.group.drop(FRAMES)
            self.group.add_frames(self.geometry)

    def _fits(self, found: set[int], geometry: Geometry | None = None) -> bool:
        """Whether one of the first shards can be read with this geometry."""
        before, self.geometry = self.geometry, geometry or self.geometry
        try:
            return next(self._read_stamps(sorted(found)[:_TRIED]), None) is not None
        finally:
            self.geometry = before

    def _load_chunks(self, found: set[int]) -> None:
        for name in drop_invalid(self.group):
            self._files.note_damage(
                self.group.folder / name / DOCUMENT, "it was written again, from the chunks"
            )
        self.origin_ms = self._recorded_origin() if self.geometry is not None else None
        # A new document would make the old files visible again, with old values for chunks that are not read again.
        lost = [name for name in sorted(NAMES) if self.group.remove_orphans(name)]
        counted: dict[int, int] = {}
        synced: set[int] = set()
        if self.origin_ms is not None and self.geometry is not None:
            counted, synced = recorded_chunks(self.group, self.geometry.chunk_size)
            if any(not 1 <= count <= self.geometry.chunk_size for count in counted.values()):
                what = "it had impossible numbers of frames; those were read from the chunks again"
                self._files.note_damage(self.group.folder / COUNTS, what)
        if lost:
            synced = set()
        self._add_sizes({index: counted[index] for index in found & synced})
        if vanished := counted.keys() - found:
            self._write_columns(dict.fromkeys(vanished))
        unread = self._read_stamps(sorted(found - synced))
        while batch := dict(islice(unread, _HEALED_AT_ONCE)):
            log.info("stream %s: reading the times of %d chunks from their shards", self._name, len(batch))
            self._write_columns(batch)
            self._unsynced.update(batch)
            self._add_sizes({index: stamps.dims[0] for index, stamps in batch.items()})

    def _read_stamps(self, indices: list[int]) -> Iterator[tuple[int, ChunkTimes]]:
        """Timestamps of each shard that can be read; other shards stay where they are and count as missing."""
        assert self.geometry is not None or not indices
        for index in indices:
            try:
                yield index, self.read_stamps(index)
            except FileNotFoundError:
                continue  # a crash after its folder was made, and before its file was renamed into it
            except ShardError as error:
                self.note_unreadable(index, error)
            except OSError as error:
                if error.errno in NO_RESOURCES:
                    raise
                self.note_unreadable(index, error)

    def note_unreadable(self, index: int, error: Exception | str) -> None:
        """Note that the shard of a chunk is damaged."""
        path = self.shard_path(index)
        why = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        self._files.note_damage(path, f"chunk {index} can't be read: {why.replace(str(path), 'the file')}")

    def read_stamps(self, index: int) -> ChunkTimes:
        """Timestamps and per-frame data of a stored chunk, read from its file.

        Raises:
            ShardError: the file is damaged. FileNotFoundError: there is none.
        """
        assert self.geometry is not None
        path = self.shard_path(index)
        stamps = read_trailer(path, self.geometry.dtype, self.geometry.chunk_size).stamps
        if stamps.dims[1:] != (self.geometry.height, self.geometry.width):
            raise ShardError(f"{path} has frames of another shape than the stream.")
        return stamps

    @property
    def _name(self) -> str:
        return self.group.folder.parent.name

    def _record(self, entries: list[tuple[int, ChunkTimes]]) -> None:
        """Write columns, then the index, then the documents; one call at a time, for all waiting commits."""
        self._write_columns(dict(entries))
        if any(index in self._stored and index not in self._unsynced for index, _ in entries):
            self._synced_at = -math.inf  # stored again: its columns do not count as synced any more
        self._unsynced.update(index for index, _ in entries)
        self._add_sizes({index: stamps.dims[0] for index, stamps in entries})
        for index, _ in entries:
            self._files.note_repaired(self.shard_path(index))
        self.publish()
        self.sync_if_due()

    def _write_columns(self, chunks: Stamps) -> None:
        assert self.geometry is not None
        with self.writing:
            if self.origin_ms is None:
                self.origin_ms = self._extrapolated_origin(chunks)
            touched = write_stamps(self.group, self.geometry.chunk_size, self.origin_ms, chunks)
            for name, paths in touched.items():
                self._touched[name].update(paths)

    def _recorded_origin(self) -> float | None:
        return recorded_origin(self.group)

    def _extrapolated_origin(self, chunks: Stamps) -> float:
        # The time of frame 0, computed from the lowest chunk of the first commit. It never changes: else all times
        # written so far would have to change when chunk 0 arrives late.
        assert self.geometry is not None
        index, stamps = min((index, stamps) for index, stamps in chunks.items() if stamps is not None)
        return extrapolated_origin(index, self.geometry.chunk_size, stamps.start_unix_ms, stamps.fps)

    def _add_sizes(self, sizes: Mapping[int, int]) -> None:
        with self._state_lock:
            for index, size in sizes.items():
                self._stored.add(index)
                self._partial.pop(index, None)
                if self.geometry is None:
                    continue
                self._column_files.add_range(*_column_files(index, size, self.geometry.chunk_size))
                if size != self.geometry.chunk_size:
                    self._partial[index] = size
            self.group.lengths.update(time=self._n_frames(), chunk=self._stored.end)

    def _n_frames(self) -> int:
        if self.geometry is None or not self._stored:
            return 0
        last = self._stored.end - 1
        return last * self.geometry.chunk_size + self._size(last)


def _column_files(index: int, n_frames: int, chunk_size: int) -> tuple[int, int]:
    """The numbers of the first and last file of an array along ``time`` that have the frames of a chunk."""
    start = index * chunk_size
    return start // COLUMN_CHUNK, (start + max(1, n_frames) - 1) // COLUMN_CHUNK


def extrapolated_origin(index: int, chunk_size: int, start_unix_ms: float, fps: float) -> float:
    """The time of frame 0 in UTC ms, from the start of chunk ``index``, as if no frame was dropped before it."""
    return start_unix_ms - index * chunk_size * 1000.0 / fps


def _indices_in(shards: Path) -> Iterator[int]:
    for path in shards.iterdir() if shards.is_dir() else ():
        name = path.name
        if (
            name.isascii()
            and name.isdecimal()
            and str(int(name)) == name
            and int(name) <= protocol.MAX_CHUNK_INDEX
        ):
            yield int(name)
