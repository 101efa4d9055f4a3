"""What is stored of a stream: chunks, geometry and origin, and the group's columns and documents after them.

Everything here is derived from the shards, so a crash may leave it behind them but never ahead, and
:meth:`ChunkIndex.recover` makes it good.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final, Generic, TypeAlias, TypeVar

from atomstream import config
from atomstream.errors import ShardError, StreamError
from atomstream.index_ranges import IndexSet
from atomstream.server.archive.records import ChunkTimes, Geometry
from atomstream.server.archive.shard_file import read_trailer
from atomstream.server.archive.timestamp_columns import (
    recorded_chunks,
    recorded_origin,
    sync_stamps,
    write_stamps,
)
from atomstream.server.archive.zarr_group import FRAMES, ZarrGroup

# Group commit: callers that arrive while a write is under way share the next one.
#
# A 200 promises that the chunk is readable, so each commit has to wait until the metadata covers it; waiting
# for a clock instead would delay answers, and writing once for each would not keep up with a slow disk. So
# nobody waits for longer than the write under way plus one, and the rate of writes follows the disk's.

T = TypeVar("T")


class _Batch(Generic[T]):
    def __init__(self) -> None:
        self.items: list[T] = []
        self.done = False
        self.error: BaseException | None = None


class GroupCommit(Generic[T]):
    """Calls ``write(items)`` from one thread at a time, each item in exactly one call."""

    def __init__(self, write: Callable[[list[T]], None]) -> None:
        self._write = write
        self._state = threading.Condition()
        self._gathering: _Batch[T] = _Batch()
        self._busy = False

    def submit(self, item: T) -> None:
        """Return once a ``write`` that was given ``item`` has ended; raise what it raised."""
        with self._state:
            batch = self._gathering
            batch.items.append(item)
            while self._busy and not batch.done:
                self._state.wait(0.2)  # in slices: Windows locks ignore Ctrl-C otherwise
            if not batch.done:
                self._busy = True
                self._gathering = _Batch()
        if not batch.done:  # nobody else can write it now
            self._lead(batch)
        if batch.error is not None:
            raise batch.error

    def _lead(self, batch: _Batch[T]) -> None:
        try:
            self._write(batch.items)
        except BaseException as error:  # its followers must hear of it, whatever it is
            batch.error = error
        with self._state:
            batch.done = True
            self._busy = False
            self._state.notify_all()


log = logging.getLogger(__name__)

Stamps: TypeAlias = Mapping[int, ChunkTimes | None]

SYNC_PERIOD_S: Final = 0.5
"""Columns are synced, and their own documents written, so often and not with each of ten chunks a second: after a
power cut the stamps of so much are read from the shards again."""

_HEALED_AT_ONCE: Final = 512


class ChunkIndex:
    """Knows which chunks are stored, and records more; thread-safe.

    ``attributes()`` gives the group's attributes whenever its documents are written; it is called with
    ``writing`` held.
    """

    def __init__(self, group: ZarrGroup, attributes: Callable[[], Mapping[str, Any]]) -> None:
        self.group = group
        self.geometry: Geometry | None = None
        self.origin_ms: float | None = None
        self.writing = threading.RLock()
        """Held over disk writes of columns and documents; always taken before ``_state``."""
        # _state is held for moments only: who asks how the stream stands never waits for a disk.
        self._state = threading.Lock()
        self._attributes = attributes
        # Ten hours of short chunks are 360 000 chunks: so their indices are kept as ranges, and a size only of those
        # that are not full.
        self._partial: dict[int, int] = {}
        self._stored = IndexSet()
        self._unsynced: set[int] = set()
        self._touched: defaultdict[str, set[Path]] = defaultdict(set)
        self._synced_at = -math.inf
        # The promise of a 200 comes before the wish to write metadata rarely: each commit waits for a
        # write of the documents that covers it, and those that come together share one.
        self._recorder: GroupCommit[tuple[int, ChunkTimes]] = GroupCommit(self._record)

    def place(self, index: int) -> Path:
        """The file of a chunk's shard."""
        return self.group.shards / str(index) / "0" / "0"

    def claim(self, geometry: Geometry) -> bool:
        """Make ``geometry`` the stream's where it has none yet; False where it has another one.

        Raises:
            OSError: the disk's.
        """
        with self.writing:
            if self.geometry is None:
                self.group.add_frames(geometry)
                self.geometry = geometry
            return self.geometry == geometry

    def record(self, index: int, stamps: ChunkTimes) -> None:
        """Return once the chunk's stamps are in the columns and the documents cover it.

        Raises:
            OSError: the disk's; recording again is harmless.
        """
        self._recorder.submit((index, stamps))

    def publish(self) -> None:
        """Write the documents that changed."""
        with self.writing:
            self.group.publish(self._attributes())

    def sync(self) -> None:
        """Have the columns on the disk, and their own documents at their present length.

        Raises:
            OSError: the disk's; syncing again is harmless.
        """
        with self.writing:
            if not self._touched:
                return
            with self._state:
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
        with self._state:
            return self._stored.copy()

    def frames_stored(self) -> int:
        """Frames of all stored chunks together."""
        with self._state:
            if self.geometry is None:
                return 0
            size = self.geometry.chunk_size
            return size * (len(self._stored) - len(self._partial)) + sum(self._partial.values())

    def chunks(self) -> dict[int, int]:
        """Index -> number of frames, of each chunk stored. As long as the stream: not for the event loop."""
        with self._state:
            return {index: self._size(index) for index in self._stored}

    def size(self, index: int) -> int:
        """Frames stored of one chunk, 0 where it is missing."""
        with self._state:
            return self._size(index)

    def _size(self, index: int) -> int:
        if self.geometry is None or index not in self._stored:
            return 0
        return self._partial.get(index, self.geometry.chunk_size)

    def n_frames(self) -> int:
        """The largest k * chunk_size + N_k."""
        with self._state:
            return self._n_frames()

    def missing_ranges(self) -> list[tuple[int, int]]:
        """(first, last) of each run of missing indices below the highest stored one."""
        return self.missing().ranges()

    def missing(self) -> IndexSet:
        """The missing indices below the highest stored one."""
        with self._state:
            return self._stored.gaps()

    def not_stored(self, indices: IndexSet) -> IndexSet:
        """Those of ``indices`` that are not stored."""
        with self._state:
            return indices - self._stored

    def recover(self) -> None:
        """Take up what is on the disk: trust the columns where they are whole, else read the shards again.

        Only shards whose columns were not synced are read, a handful after a crash.

        Raises:
            StreamError: the metadata of ``frames`` is lost. OSError: the disk's.
        """
        with self.writing:
            self.group.load()
            found = set(_indices_in(self.group.shards))
            if not found:  # documents without any shard fix nothing
                self.group.documents.pop(FRAMES, None)
            self.geometry = self.group.geometry()
            if found and self.geometry is None:
                raise StreamError(
                    f"{self.group.folder} holds {len(found)} chunks, but the metadata of `frames` is lost: "
                    "restore frames/zarr.json from a copy. Nothing was changed.",
                    data_id=self._name,
                )
            self._take_up(found)
            self.publish()
            self.sync()

    def _take_up(self, found: set[int]) -> None:
        self.origin_ms = recorded_origin(self.group)
        counted, synced = recorded_chunks(self.group) if self.origin_ms is not None else ({}, set())
        self._remember({index: counted[index] for index in found & synced})
        if vanished := counted.keys() - found:
            self._write_columns(dict.fromkeys(vanished))
        unread = self._read_stamps(sorted(found - synced))
        while batch := dict(islice(unread, _HEALED_AT_ONCE)):
            log.info("stream %s: taking up %d chunks from their files", self._name, len(batch))
            self._write_columns(batch)
            self._unsynced.update(batch)
            self._remember({index: stamps.dims[0] for index, stamps in batch.items()})

    def _read_stamps(self, indices: list[int]) -> Iterator[tuple[int, ChunkTimes]]:
        """Of each shard that can be read; others are left where they are, and count as missing."""
        assert self.geometry is not None or not indices
        for index in indices:
            try:
                yield index, self.read_stamps(index)
            except FileNotFoundError:
                continue  # a crash came between the folder and the rename
            except ShardError as error:
                log.warning("stream %s: chunk %d counts as missing: %s", self._name, index, error)

    def read_stamps(self, index: int) -> ChunkTimes:
        """Stamps and per-frame data of a stored chunk, from its file.

        Raises:
            ShardError: the file is damaged. FileNotFoundError: there is none.
        """
        assert self.geometry is not None
        return read_trailer(self.place(index), self.geometry.dtype, self.geometry.chunk_size).stamps

    @property
    def _name(self) -> str:
        return self.group.folder.parent.name

    def _record(self, entries: list[tuple[int, ChunkTimes]]) -> None:
        """Columns, then what we know, then the documents: one call at a time, for all commits that wait."""
        self._write_columns(dict(entries))
        if any(index in self._stored and index not in self._unsynced for index, _ in entries):
            self._synced_at = -math.inf  # stored anew: what is noted as synced may have changed
        self._unsynced.update(index for index, _ in entries)
        self._remember({index: stamps.dims[0] for index, stamps in entries})
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

    def _extrapolated_origin(self, chunks: Stamps) -> float:
        # Where frame 0 was or should have been captured, by the lowest chunk of the first that came. It stays:
        # were it moved when chunk 0 arrives late, every time written so far would have to be.
        assert self.geometry is not None
        index, stamps = min((index, stamps) for index, stamps in chunks.items() if stamps is not None)
        return stamps.start_unix_ms - index * self.geometry.chunk_size * 1000.0 / stamps.fps

    def _remember(self, sizes: Mapping[int, int]) -> None:
        with self._state:
            for index, size in sizes.items():
                self._stored.add(index)
                self._partial.pop(index, None)
                if self.geometry is not None and size != self.geometry.chunk_size:
                    self._partial[index] = size
            self.group.lengths.update(time=self._n_frames(), chunk=self._stored.end)

    def _n_frames(self) -> int:
        if self.geometry is None or not self._stored:
            return 0
        last = self._stored.end - 1
        return last * self.geometry.chunk_size + self._size(last)


def _indices_in(shards: Path) -> Iterator[int]:
    for path in shards.iterdir() if shards.is_dir() else ():
        name = path.name
        if (
            name.isascii()
            and name.isdecimal()
            and str(int(name)) == name
            and int(name) <= config.MAX_CHUNK_INDEX
        ):
            yield int(name)
