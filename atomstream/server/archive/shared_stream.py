"""The objects of one stream in a store that several servers share.

Below ``streams/<data_id>/`` they have the names of the files of an archive: ``stream.json``, and the Zarr group
``frames.zarr`` with its shards, documents and columns. A shard is created once. The description is replaced only if
it is the one that was read. All else can be made again from these.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from atomstream.errors import ConflictError, StreamError
from atomstream.index_ranges import IndexSet
from atomstream.protocol import MAX_CHUNK_INDEX
from atomstream.records import Piece
from atomstream.server.archive.metadata import ABOUT, ORIGIN, is_stream_id
from atomstream.server.archive.records import ChunkTimes, Geometry
from atomstream.server.archive.shard_file import END_NBYTES, Trailer, trailer_of
from atomstream.server.ports.store import (
    ObjectExistsError,
    StaleObjectError,
    Store,
    StoredObject,
)
from atomstream.shard import ABSENT, Fetch, ShardLayout, index_nbytes

STREAMS: Final = "streams"
_SHARDS: Final = "frames.zarr/frames/c/"
_HEAD_NBYTES: Final = 64 << 10
"""Size, in bytes, of the request for the start of a shard, which has the data per frame."""
_FIRST_COUNTS: Final = ("geometry",)
"""Fields of a description that are set once: another value is refused."""
_FIRST_STAYS: Final = (ORIGIN,)
"""Fields that are set once. Each server computes its own value; the first one that is stored is used by all."""


@dataclass(slots=True)
class Listing:
    """Objects of a stream in the store: the indices of its chunks, their total bytes, and the names of the other
    objects."""

    chunks: IndexSet = field(default_factory=IndexSet)
    chunk_nbytes: int = 0
    others: list[str] = field(default_factory=list)


class SharedStream:
    """The objects of the stream ``data_id`` in ``store``. Blocks; thread-safe.

    Every method may raise StoreUnavailableError: the same call may succeed later.
    """

    def __init__(self, store: Store, data_id: str) -> None:
        self.store = store
        self.data_id = data_id
        self._folder = f"{STREAMS}/{data_id}"

    def key(self, name: str) -> str:
        """The key of the object with this name in the stream's folder."""
        return f"{self._folder}/{name}"

    # -- the description ---------------------------------------------------------------------------------

    def create_about(self, about: Mapping[str, Any]) -> None:
        """Create the description of a new stream.

        Raises:
            FileExistsError: there is another stream with this id.
        """
        try:
            self.store.put(self.key(ABOUT), _packed(about), create_only=True)
        except ObjectExistsError:
            if self.read_about() != dict(about):  # else an earlier attempt, whose reply was lost
                raise FileExistsError(f"{self.store.name} holds a stream {self.data_id} already.") from None

    def read_about(self) -> dict[str, Any]:
        """The present description.

        Raises:
            ObjectMissingError: there is no such stream. StreamError: it is damaged.
        """
        return self._parse(self.store.get(self.key(ABOUT)).data)

    def change_about(self, before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        """Apply those of ``changes`` that differ from ``before``, the description as it was read; returns the new one.

        Other fields, and the origin of time, keep the values that other servers have set meanwhile.

        Raises:
            ConflictError: another server has set a different geometry.
            ObjectMissingError: the stream was deleted. StreamError: its description is damaged.
        """
        wanted = {name: value for name, value in changes.items() if before.get(name) != value}
        while True:
            found = self.store.get(self.key(ABOUT))
            present = self._parse(found.data)
            for name in _FIRST_COUNTS:
                if name in wanted and present.get(name) not in (None, wanted[name]):
                    raise ConflictError(
                        f"The {name} of stream {self.data_id} is {present[name]}, not {wanted[name]}. Nothing was "
                        "changed.",
                        status=409,
                    )
            stays = {name for name in _FIRST_STAYS if present.get(name) is not None}
            changed = {**present, **{name: value for name, value in wanted.items() if name not in stays}}
            if changed == present:
                return present
            try:
                self.store.put(self.key(ABOUT), _packed(changed), if_match=found.etag)
            except StaleObjectError:
                continue
            return changed

    def _parse(self, raw: bytes) -> dict[str, Any]:
        try:
            about = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise StreamError(f"{self.key(ABOUT)} is damaged: {error}.", data_id=self.data_id) from None
        if not isinstance(about, dict):
            raise StreamError(f"{self.key(ABOUT)} does not describe a stream.", data_id=self.data_id)
        return about

    # -- chunks ------------------------------------------------------------------------------------------

    def create_chunk(self, index: int, shard: bytes) -> bool:
        """Store a sealed shard; False if there is one with this index already, which stays."""
        try:
            self.store.put(self._shard(index), shard, create_only=True)
        except ObjectExistsError:
            return False
        return True

    def replace_chunk(self, index: int, shard: bytes, etag: str | None = None) -> None:
        """Replace the present shard, or the one with this etag.

        Raises:
            StaleObjectError: it was replaced meanwhile. ObjectMissingError: there is none.
        """
        self.store.put(self._shard(index), shard, if_match=etag or self.store.head(self._shard(index)).etag)

    def chunk(self, index: int) -> bytes:
        """The bytes of a shard; raises ObjectMissingError."""
        return self.store.fetch(self._shard(index))

    def chunk_pieces(self, index: int) -> Iterator[Piece]:
        """The bytes of a shard in pieces, requested with the first one; raises ObjectMissingError."""
        return self.store.pieces(self._shard(index))

    def chunk_object(self, index: int) -> StoredObject:
        """A shard with its etag; raises ObjectMissingError."""
        return self.store.get(self._shard(index))

    def stamps(self, index: int, geometry: Geometry) -> ChunkTimes:
        """Times and per-frame data of a chunk, from the two ends of its shard.

        Raises:
            ObjectMissingError: it is not stored. ShardError: it is damaged.
        """
        return self._ends(index, geometry)[0].stamps

    def present(self, index: int, geometry: Geometry) -> npt.NDArray[np.bool_]:
        """Which frames of a chunk are in its shard, (N,): all but those that were removed. Raises as :meth:`stamps`."""
        trailer, fetch, nbytes = self._ends(index, geometry)
        if not trailer.thinned:  # absent frames of an upload are black ones
            return np.ones(trailer.stamps.dims[0], dtype=bool)
        layout = ShardLayout.fetch(fetch, nbytes, trailer.stamps.dims, geometry.dtype, geometry.chunk_size)
        return np.asarray(layout.index[:, 0] != ABSENT)

    def _ends(self, index: int, geometry: Geometry) -> tuple[Trailer, Fetch, int]:
        """The trailer of a shard, what reads parts of the shard, and its bytes."""
        key = self._shard(index)
        nbytes = self.store.head(key).size
        tail_nbytes = min(nbytes, index_nbytes(geometry.chunk_size) + END_NBYTES)
        tail = self.store.fetch(key, -tail_nbytes)
        head = self.store.fetch(key, 0, min(nbytes, _HEAD_NBYTES))

        def fetch(offset: int, count: int) -> bytes:
            if offset >= nbytes - tail_nbytes:
                start = offset - (nbytes - tail_nbytes)
                return tail[start : start + count]
            if offset + count <= len(head):
                return head[offset : offset + count]
            return self.store.fetch(key, offset, count)

        return trailer_of(fetch, nbytes, key, geometry.dtype, geometry.chunk_size), fetch, nbytes

    def _shard(self, index: int) -> str:
        return self.key(f"{_SHARDS}{index}/0/0")

    # -- all objects -------------------------------------------------------------------------------------

    def listing(self) -> Listing:
        """All objects of the stream. One request for 1000 objects."""
        found, start = Listing(), len(self._folder) + 1
        for key, nbytes in self.store.sizes(self._folder):
            name = key[start:]
            index = _index_in(name)
            if index is not None:
                found.chunks.add(index)
                found.chunk_nbytes += nbytes
            elif not name.startswith(_SHARDS):
                found.others.append(name)
        return found

    def names(self, folder: str) -> list[str]:
        """The names of the objects below a folder of the stream, such as ``analysis``."""
        start = len(self._folder) + 1
        return [key[start:] for key in self.store.keys(self.key(folder))]

    def delete(self) -> None:
        """Remove the description, and then all else."""
        self.store.delete(self.key(ABOUT))
        for name in list(self._names()):
            self.store.delete(self.key(name))

    def _names(self) -> Iterator[str]:
        start = len(self._folder) + 1
        return (key[start:] for key in self.store.keys(self._folder))


def stream_ids(store: Store) -> list[str]:
    """The streams in a store. One request for 1000 streams."""
    return [name for name in store.children(STREAMS) if is_stream_id(name)]


def _packed(about: Mapping[str, Any]) -> bytes:
    return json.dumps(about, indent=2, allow_nan=False).encode()


def _index_in(name: str) -> int | None:
    """The index of the chunk whose shard has this name; None for another object."""
    number, _, rest = name.removeprefix(_SHARDS).partition("/")
    if not name.startswith(_SHARDS) or rest != "0/0" or not (number.isascii() and number.isdecimal()):
        return None
    index = int(number) if len(number) < 12 else -1
    return index if str(index) == number and index <= MAX_CHUNK_INDEX else None
