"""Thinning of a stream whose shards are in a store that several servers share.

As in a folder, ``frame_kept`` is stored before the first shard is changed. Each shard is then replaced by one put, and
only if it is the object that was read: so two servers that thin one stream, or an upload that replaces a damaged
shard, can't undo each other's work. Servers that have copies of the shards drop them when they read the description.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from atomstream.errors import ShardError
from atomstream.index_ranges import IndexSet
from atomstream.server.archive.archive_files import ArchiveFiles
from atomstream.server.archive.chunk_index import ChunkIndex
from atomstream.server.archive.shared_stream import ChunkObject, SharedStream
from atomstream.server.archive.thinning import ABOUT_KEY, Mask, ThinnedFrames
from atomstream.server.ports.store import ObjectMissingError


class SharedThinnedFrames(ThinnedFrames):
    """See :class:`ThinnedFrames`; ``shared`` has the shards. Methods may also raise StoreUnavailableError.

    ``send()`` copies ``frame_kept`` and its documents to the store, ``fetch()`` copies them from there.
    """

    def __init__(
        self,
        index: ChunkIndex,
        files: ArchiveFiles,
        stripes: Sequence[threading.Lock],
        shared: SharedStream,
        send: Callable[[], None],
        fetch: Callable[[], None],
    ) -> None:
        super().__init__(index, files, stripes)
        self._shared = shared
        self._send = send
        self._fetch = fetch
        self._all_there = False
        self._removed = IndexSet()
        """Chunks that were treated with another one of their object."""

    def plan(self, wanted: Callable[[int, int], Mask]) -> int:
        """As in the base class, and in the store."""
        self._all_there = not self.exists  # nothing was removed yet: no shard needs to be read
        try:
            total = super().plan(wanted)
        finally:
            self._all_there = False
        self._send()
        return total

    def present(self, index: int) -> Mask:
        """As in the base class, from the store."""
        geometry = self._index.geometry
        assert geometry is not None
        if self._all_there:
            return np.ones(self._index.size(index), dtype=bool)
        try:
            return self._shared.present(index, geometry)
        except ObjectMissingError as error:
            raise ShardError(str(error)) from None

    def _remove(self, index: int, planned: IndexSet) -> int:
        if index in self._removed:  # with another chunk of its object
            self._removed.discard(index)
            return 0
        if self._shared.grid.n_chunks == 1:  # else the whole object is read in any case
            first, there = self._first(index), self.present(index)
            if not (there & ~self.read(first, first + len(there))).any():
                return 0
        try:
            found = self._shared.chunk_object(index)
        except ObjectMissingError as error:
            raise ShardError(str(error)) from None
        shards, others = {}, IndexSet()
        if (shard := self._thinned_shard(found, index)) is not None:
            shards[index] = shard
        for other in found.chunks:
            if other != index and other in planned:
                with suppress(ShardError):  # it is noted when its turn comes
                    if (shard := self._thinned_shard(found, other)) is not None:
                        shards[other] = shard
                    others.add(other)
        if not shards:
            self._removed = others
            return 0
        nbytes = self._shared.replace(found, shards)
        self._removed = others
        for other in shards:  # they are fetched again when they are read
            self._files.file_system.unlink(self._index.shard_path(other))
        return len(found.data) - nbytes

    def _thinned_shard(self, found: ChunkObject, index: int) -> bytes | None:
        """The shard of a chunk without removed frames; None if it has none of them."""
        copy, disk = self._files.temporary_path(), self._files.file_system
        try:
            disk.write_atomic(copy, [found.shard(index)], durable=False)
            pieces = self._thinned(index, copy)
        finally:
            disk.unlink(copy)
        return None if pieces is None else b"".join(pieces)

    def repair(self, about: Mapping[str, Any]) -> None:
        """As in the base class; from the store if it has the array."""
        if is_planned(about) and not self.exists:
            self._fetch()
        super().repair(about)

    def note_stored(self, index: int) -> None:
        """As in the base class, and in the store."""
        super().note_stored(index)
        if self.exists:
            self._send()

    def note_followed(self, index: int) -> None:
        """Another server has stored a chunk of a thinned stream: note which of its frames are there, here only."""
        super().note_stored(index)


def is_planned(about: Mapping[str, Any]) -> bool:
    """Whether a description names a thinning whose ``frame_kept`` is stored."""
    noted = about.get(ABOUT_KEY)
    return isinstance(noted, dict) and bool(noted.get("planned"))
