"""Merges the short chunks of a stream in a store into objects of several chunks, while the stream grows.

An object is merged when all its chunks are there, or when so many later ones are there that the missing ones may be
lost, or at the end. Then the chunks' own objects are removed. Each step may be repeated, and a process that ends after
any of them leaves each chunk readable:

1. If chunks are missing, a note is stored that the object is incomplete.
2. The object is created, only if there is none. If there is one, the chunks that it lacks are appended, only to the
   version that was read. So two processes that merge the same chunks can't remove each other's.
3. The own objects of those chunks are removed that the stored object has.
4. If the object has all chunks, the note is removed.

A process that was killed between 2 and 3 leaves chunks twice; the next one finds them in the list of the objects.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from atomstream.errors import ShardError
from atomstream.index_ranges import IndexSet
from atomstream.server.archive.merged_chunks import Grid, is_whole, merged
from atomstream.server.archive.mirror import GROUP
from atomstream.server.archive.records import Geometry
from atomstream.server.archive.shared_stream import SharedStream
from atomstream.server.archive.zarr_group import FRAMES
from atomstream.server.ports.store import (
    ObjectExistsError,
    ObjectMissingError,
    StaleObjectError,
    StoreUnavailableError,
)
from atomstream.system.own_files import read_plain

WAIT: Final = 5
"""Number of later objects that must have chunks before an object with missing chunks is merged."""
_TRIES: Final = 20


class ChunkMerger:
    """Merges the chunks of ``shared``. Blocks; not thread-safe. Raises StoreUnavailableError.

    ``stored()`` are the chunks that are known, ``cached(index)`` is the path of a copy of a shard, which may be missing
    or damaged.
    """

    def __init__(
        self, shared: SharedStream, stored: Callable[[], IndexSet], cached: Callable[[int], Path]
    ) -> None:
        self._shared = shared
        self._stored = stored
        self._cached = cached
        self._listed = False
        self._merged = IndexSet()
        self._complete = IndexSet()
        self._tried: dict[int, IndexSet] = {}
        """The chunks that were there when an incomplete object was merged."""
        self._noted = IndexSet()
        """Objects that are noted as incomplete in the store."""
        self._length = 0

    @property
    def length(self) -> int:
        """The number of objects from the first one on that readers of the growing store may read."""
        return self._length

    def merge(self, geometry: Geometry, *, final: bool) -> None:
        """Merge what is to be merged now; with ``final`` all, because the stream has ended."""
        grid = self._shared.grid
        if grid.n_chunks == 1:
            return
        if final or not self._listed:
            self.reload()
        stored = self._stored()
        wanted = IndexSet.from_ranges(
            (grid.object_of(first), grid.object_of(last)) for first, last in stored.ranges()
        )
        for number in wanted - self._complete:
            chunks = _within(stored, grid, number)
            late = final or wanted.end > number + WAIT
            if (len(chunks) == grid.n_chunks or late) and self._tried.get(number) != chunks:
                self._merge(grid, number, chunks, geometry)
        waiting = wanted - self._merged - IndexSet(self._tried)
        self._length = max(self._length, waiting.first if waiting else wanted.end)

    def reload(self) -> None:
        """Read from the store what is merged, and remove what an earlier process has left."""
        listing, grid = self._shared.listing(), self._shared.grid
        self._merged = listing.merged
        self._complete = listing.merged - IndexSet(listing.incomplete)
        self._noted = IndexSet(listing.incomplete)
        self._tried = {}
        numbers = IndexSet(grid.object_of(index) for index in listing.single)
        for number in numbers & listing.merged:
            with suppress(ObjectMissingError, ShardError):
                places = self._shared.merged_layout(number).parts
                self._remove_single(number, places, listing.single)
        self._length = max(self._length, self._published(grid))
        self._listed = True

    def _published(self, grid: Grid) -> int:
        """The number of objects that the documents in the store cover."""
        with suppress(ObjectMissingError, ValueError, KeyError, TypeError, IndexError):
            group = json.loads(self._shared.store.fetch(self._shared.key(GROUP)))
            n_frames = int(group["consolidated_metadata"]["metadata"][FRAMES]["shape"][0])
            return n_frames // (grid.n_chunks * grid.chunk_size)
        return 0

    # -- one object --------------------------------------------------------------------------------------

    def _merge(self, grid: Grid, number: int, chunks: IndexSet, geometry: Geometry) -> None:
        places = None if number in self._merged else self._create(grid, number, chunks, geometry)
        if places is None:
            places = self._append(grid, number, chunks, geometry)
        if places:
            self._merged.add(number)
            self._remove_single(number, places, chunks)
        if len(places) < grid.n_chunks:
            self._tried[number] = chunks
            return
        if number in self._noted:
            self._shared.mark_complete(number)
            self._noted.discard(number)
        self._complete.add(number)

    def _create(self, grid: Grid, number: int, chunks: IndexSet, geometry: Geometry) -> set[int] | None:
        """Create an object; returns the places of its chunks, None if there is one already."""
        shards = self._shards(chunks, geometry)
        if len(shards) < grid.n_chunks:
            if not shards:
                return set()
            self._shared.mark_incomplete(number)
            self._noted.add(number)
        try:
            self._shared.store.put(self._shared.merged_key(number), merged(grid, shards), create_only=True)
        except ObjectExistsError:
            return None
        self._shared.note_merged(number)
        return set(shards)

    def _append(self, grid: Grid, number: int, chunks: IndexSet, geometry: Geometry) -> set[int]:
        """Append the chunks that are missing in an object; returns the positions of all its chunks."""
        for _ in range(_TRIES):
            try:
                there = self._shared.merged_layout(number).parts
                missing = IndexSet(index for index in chunks if index % grid.n_chunks not in there)
                shards = self._shards(missing, geometry)
                if not shards:
                    return set(there)
                found = self._shared.merged_object(number)
            except (ObjectMissingError, ShardError):  # deleted, or damaged: nothing is removed
                return set()
            assert found.layout is not None
            new = {place: shard for place, shard in shards.items() if place not in found.layout.parts}
            try:
                pieces = merged(grid, new, (found.layout, found.data))
                self._shared.store.put(found.key, pieces, if_match=found.etag)
            except StaleObjectError:
                continue
            return {*found.layout.parts, *new}
        key = self._shared.merged_key(number)
        raise StoreUnavailableError(f"{key} is replaced by many processes at once; it is merged later.", key)

    def _shards(self, chunks: Iterable[int], geometry: Geometry) -> dict[int, bytes]:
        """The shards of these chunks by their places; those that can't be read, or are damaged, are left out."""
        found = {}
        for index in chunks:
            shard = self._shard(index, geometry)
            if shard is not None:
                found[index % self._shared.grid.n_chunks] = shard
        return found

    def _shard(self, index: int, geometry: Geometry) -> bytes | None:
        with suppress(OSError):
            shard = read_plain(self._cached(index))
            if is_whole(shard, geometry):
                return shard
        with suppress(ObjectMissingError, ShardError):
            shard = self._shared.chunk(index)
            if is_whole(shard, geometry):
                return shard
        return None

    def _remove_single(self, number: int, places: Iterable[int], chunks: IndexSet) -> None:
        """Remove the own objects of those of ``chunks`` that a stored object has."""
        first = self._shared.grid.chunks_of(number).start
        self._shared.remove_single(first + place for place in sorted(places) if first + place in chunks)


def _within(stored: IndexSet, grid: Grid, number: int) -> IndexSet:
    """Those of the stored chunks that belong to an object."""
    chunks = grid.chunks_of(number)
    return stored & IndexSet.from_ranges([(chunks.start, chunks.stop - 1)])
