"""The objects of one stream in a store that several servers share.

Below ``streams/<data_id>/`` they have the names of the files of an archive: ``stream.json``, and the Zarr group
``frames.zarr`` with its shards, documents and columns. A shard is created once. The description is replaced only if
it is the one that was read. All else can be made again from these.

Short chunks are merged into one object of several chunks (:mod:`.merged_chunks`), if the description states how many.
Each new chunk is first stored as its own object, ``frames/c/<index>/0/0``. Later it is copied into the merged one,
``frames/c.<number>.0.0``, and then removed. Whoever looks for a chunk looks for its own object first and for the merged
one afterwards: so it is found at each moment. A merged object never loses a chunk, and what it has is what counts.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from atomstream.errors import ConflictError, ShardError, StreamError
from atomstream.index_ranges import IndexSet
from atomstream.protocol import MAX_CHUNK_INDEX
from atomstream.records import Piece
from atomstream.server.archive.merged_chunks import Grid, MergedObject, merged
from atomstream.server.archive.metadata import ABOUT, MERGED, ORIGIN, geometry_in, is_stream_id, merged_in
from atomstream.server.archive.records import ChunkTimes, Geometry
from atomstream.server.archive.shard_file import END_NBYTES, Trailer, trailer_of
from atomstream.server.ports.store import (
    ObjectExistsError,
    ObjectMissingError,
    StaleObjectError,
    Store,
    StoreUnavailableError,
    attempts,
)
from atomstream.shard import ABSENT, Fetch, ShardLayout, index_nbytes
from atomstream.system.own_files import LONGEST

T = TypeVar("T")
STREAMS: Final = "streams"
_SHARDS: Final = "frames.zarr/frames/c/"
_MERGED: Final = "frames.zarr/frames/c."
_INCOMPLETE: Final = "incomplete/"
"""The folder of empty objects, named by the number of a merged object: it may lack some of its chunks. The list of the
objects does not show that."""
_TRIES: Final = 5
_HEAD_NBYTES: Final = 64 << 10
"""Size, in bytes, of the request for the start of a shard, which has the data per frame."""
_FIRST_COUNTS: Final = ("geometry",)
"""Fields of a description that are set once: another value is refused."""
_FIRST_STAYS: Final = (ORIGIN, MERGED)
"""Fields that are set once. Each server computes its own value; the first one that is stored is used by all."""


@dataclass(slots=True)
class Listing:
    """Objects of a stream in the store: the indices of its chunks, their total bytes, and the names of the other
    objects."""

    chunks: IndexSet = field(default_factory=IndexSet)
    chunk_nbytes: int = 0
    others: list[str] = field(default_factory=list)
    single: IndexSet = field(default_factory=IndexSet)
    """The chunks that have an object of their own."""
    merged: IndexSet = field(default_factory=IndexSet)
    """The numbers of the merged objects."""
    incomplete: dict[int, IndexSet] = field(default_factory=dict)
    """The chunks of those merged objects that may lack some."""


class ChunkObject:
    """An object of the store that has one or several chunks, of one version (``etag``)."""

    def __init__(self, key: str, etag: str, data: bytes, number: int, layout: MergedObject | None) -> None:
        self.key = key
        self.etag = etag
        self.data = data
        self.number = number
        """The index of its only chunk, or the number of the merged object."""
        self.layout = layout

    @property
    def chunks(self) -> list[int]:
        """The indices of its chunks."""
        if self.layout is None:
            return [self.number]
        first = self.layout.grid.chunks_of(self.number).start
        return [first + place for place in sorted(self.layout.parts)]

    def shard(self, index: int) -> bytes:
        """The shard of one of its chunks."""
        if self.layout is None:
            return self.data
        place = index - self.layout.grid.chunks_of(self.number).start
        part = self.layout.parts[place]
        return self.layout.shard(place, self.data[part.offset : part.offset + part.nbytes])


class SharedStream:
    """The objects of the stream ``data_id`` in ``store``. Blocks; thread-safe.

    Every method may raise StoreUnavailableError: the same call may succeed later.
    """

    def __init__(self, store: Store, data_id: str) -> None:
        self.store = store
        self.data_id = data_id
        self._folder = f"{STREAMS}/{data_id}"
        self.grid = Grid(1, 1)
        """How many chunks are in an object, by the description as it was read last."""
        self._lock = threading.Lock()
        self._seen = IndexSet()
        """Numbers of merged objects that were there: they stay."""

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
            if self.read_about() != dict(about):  # equal: stored by an earlier attempt whose reply was lost
                raise FileExistsError(f"{self.store.name} holds a stream {self.data_id} already.") from None
        self.note_description(about)

    def read_about(self) -> dict[str, Any]:
        """The present description.

        Raises:
            ObjectMissingError: there is no such stream. StreamError: it is damaged.
        """
        return self._parse(self.store.get(self.key(ABOUT)).data)

    def exists(self) -> bool:
        """Whether the store has its description."""
        try:
            self.store.head(self.key(ABOUT))
        except ObjectMissingError:
            return False
        return True

    def change_about(self, before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        """Apply those of ``changes`` that differ from ``before``, the description as it was read; returns the new one.

        Other fields, and the origin of time, keep the values that other servers have set meanwhile.

        Raises:
            ConflictError: another server has set a different geometry.
            ObjectMissingError: the stream was deleted. StreamError: its description is damaged.
        """
        wanted = {name: value for name, value in changes.items() if before.get(name) != value}
        for _ in attempts(self.store, self.key(ABOUT)):
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
            self.note_description(changed)
            return changed
        raise AssertionError

    def note_description(self, about: Mapping[str, Any]) -> None:
        """Use the number of chunks in an object that a description states."""
        geometry = geometry_in(about)
        if geometry is not None:  # both are set at once, and stay
            self.grid = Grid(merged_in(about), geometry.chunk_size)

    def _parse(self, raw: bytes) -> dict[str, Any]:
        try:
            about = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise StreamError(f"{self.key(ABOUT)} is damaged: {error}.", data_id=self.data_id) from None
        if not isinstance(about, dict):
            raise StreamError(f"{self.key(ABOUT)} does not describe a stream.", data_id=self.data_id)
        self.note_description(about)
        return about

    # -- chunks ------------------------------------------------------------------------------------------

    def create_chunk(self, index: int, shard: bytes) -> bool:
        """Store a sealed shard; False if there is one with this index already, which stays."""
        key = self._shard(index)
        try:
            self.store.put(key, shard, create_only=True)
        except ObjectExistsError:
            return False
        if self.grid.n_chunks > 1 and self._is_merged(index):
            # The first one was removed after it had been merged; this one is nothing but a repetition.
            self.store.delete(key)
            return False
        return True

    def _is_merged(self, index: int) -> bool:
        """Whether a merged object has this chunk."""
        try:
            layout = self.merged_layout(self.grid.object_of(index))
        except (ObjectMissingError, ShardError):
            return False
        return index % self.grid.n_chunks in layout.parts

    def replace_chunk(self, index: int, shard: bytes) -> None:
        """Replace the present shard.

        Raises:
            StaleObjectError: it was replaced meanwhile. ObjectMissingError: there is none. ShardError: the object in
            which it is merged is damaged.
        """
        self.replace(self.chunk_object(index), {index: shard})

    def replace(self, found: ChunkObject, shards: Mapping[int, bytes]) -> int:
        """Replace these chunks in an object, if it still is the one that was read; returns its new size in bytes.

        Raises:
            StaleObjectError: it was replaced or removed meanwhile.
        """
        if found.layout is None:
            pieces = [shards[found.number]]
        else:
            grid = found.layout.grid
            all_shards = {index: shards.get(index) or found.shard(index) for index in found.chunks}
            pieces = merged(grid, {index % grid.n_chunks: shard for index, shard in all_shards.items()})
        self.store.put(found.key, pieces, if_match=found.etag)
        return sum(map(len, pieces))

    def chunk(self, index: int) -> bytes:
        """The bytes of a shard; raises ObjectMissingError."""
        return self.chunk_object(index).shard(index)

    def chunk_pieces(self, index: int) -> Iterator[Piece]:
        """The bytes of a shard in pieces, requested with the first one; raises ObjectMissingError."""
        if self.grid.n_chunks == 1:
            yield from self.store.pieces(self._shard(index))
        else:
            yield self.chunk(index)

    def chunk_object(self, index: int) -> ChunkObject:
        """The object that has a chunk.

        Raises:
            ObjectMissingError: the chunk is not stored. ShardError: the merged object is damaged.
        """

        def alone() -> ChunkObject:
            key = self._shard(index)
            found = self.store.get(key, most=LONGEST)
            return ChunkObject(key, found.etag, found.data, index, None)

        def together() -> ChunkObject:
            found = self.merged_object(self.grid.object_of(index))
            self._part(found.layout, index)
            return found

        return self._look(index, alone, together)

    def merged_object(self, number: int) -> ChunkObject:
        """A merged object. Raises ObjectMissingError, and ShardError for a damaged one."""
        key = self.merged_key(number)
        found = self.store.get(key, most=LONGEST)
        layout = MergedObject.read(found.data[-self.grid.tail_nbytes :], self.grid, key)
        self.note_merged(number)
        return ChunkObject(key, found.etag, found.data, number, layout)

    def merged_layout(self, number: int) -> MergedObject:
        """Which chunks a merged object has, from its end. Raises as :meth:`merged_object`."""
        key = self.merged_key(number)
        layout = MergedObject.read(self.store.fetch(key, -self.grid.tail_nbytes), self.grid, key)
        self.note_merged(number)
        return layout

    def note_merged(self, number: int) -> None:
        """There is a merged object of this number: from now on its chunks are looked for there first."""
        with self._lock:
            self._seen.add(number)

    def _part(self, layout: MergedObject | None, index: int) -> int:
        """The place of a chunk in a merged object; raises ObjectMissingError."""
        place = index % self.grid.n_chunks
        if layout is None or place not in layout.parts:
            raise ObjectMissingError(
                f"There is no chunk {index} in stream {self.data_id}.", self._shard(index)
            )
        return place

    def _look(self, index: int, alone: Callable[[], T], together: Callable[[], T]) -> T:
        """What ``alone()`` finds in the chunk's own object, or ``together()`` in the merged one."""
        if self.grid.n_chunks == 1:
            return alone()
        with self._lock:
            seen = self.grid.object_of(index) in self._seen
        if seen:
            with suppress(ObjectMissingError, ShardError):  # it was not merged yet, or is stored again
                return together()
        try:
            return alone()
        except ObjectMissingError:
            return together()

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
        return self._look(
            index, lambda: self._ends_alone(index, geometry), lambda: self._ends_merged(index, geometry)
        )

    def _ends_alone(self, index: int, geometry: Geometry) -> tuple[Trailer, Fetch, int]:
        key = self._shard(index)
        nbytes = self.store.head(key).size
        tail_nbytes = min(nbytes, index_nbytes(geometry.chunk_size) + END_NBYTES)
        tail = self.store.fetch(key, -tail_nbytes)
        head = self.store.fetch(key, 0, min(nbytes, _HEAD_NBYTES))
        return self._trailer(key, 0, nbytes - tail_nbytes, head, tail, geometry)

    def _ends_merged(self, index: int, geometry: Geometry) -> tuple[Trailer, Fetch, int]:
        number = self.grid.object_of(index)
        key = self.merged_key(number)
        for _ in range(_TRIES):
            etag = self.store.head(key).etag
            layout = self.merged_layout(number)
            part = layout.parts[self._part(layout, index)]
            head = self.store.fetch(key, part.offset, min(part.nbytes, _HEAD_NBYTES))
            if self.store.head(key).etag == etag:  # else it was replaced between the requests
                return self._trailer(key, part.offset, part.nbytes, head, part.end, geometry)
        raise StoreUnavailableError(f"{key} is being replaced; read it again.", key)

    def _trailer(
        self, key: str, start: int, end: int, head: bytes, tail: bytes, geometry: Geometry
    ) -> tuple[Trailer, Fetch, int]:
        """As :meth:`_ends`: the shard begins at byte ``start`` of the object with ``head``; after ``end`` bytes follows
        ``tail``."""

        def fetch(offset: int, count: int) -> bytes:
            if offset >= end:
                return tail[offset - end : offset - end + count]
            if offset + count <= len(head):
                return head[offset : offset + count]
            return self.store.fetch(key, start + offset, count)

        nbytes = end + len(tail)
        return trailer_of(fetch, nbytes, key, geometry.dtype, geometry.chunk_size), fetch, nbytes

    def _shard(self, index: int) -> str:
        return self.key(f"{_SHARDS}{index}/0/0")

    # -- merging -----------------------------------------------------------------------------------------

    def merged_key(self, number: int) -> str:
        """The key of a merged object."""
        return self.key(f"{_MERGED}{number}.0.0")

    def mark_incomplete(self, number: int) -> None:
        """Note that a merged object may lack chunks. Before such an object is stored."""
        self.store.put(self.key(f"{_INCOMPLETE}{number}"), b"")

    def mark_complete(self, number: int) -> None:
        """Remove the note: the stored object has all its chunks, and keeps them."""
        self.store.delete(self.key(f"{_INCOMPLETE}{number}"))

    def remove_single(self, chunks: Iterable[int]) -> None:
        """Remove the own objects of these chunks. Only of chunks that a stored merged object has."""
        self.store.delete_all([self._shard(index) for index in chunks])

    # -- all objects -------------------------------------------------------------------------------------

    def listing(self) -> Listing:
        """All objects of the stream. One request for 1000 objects."""
        found, start = Listing(), len(self._folder) + 1
        if self.grid.n_chunks > 1:
            # First: a chunk that is merged meanwhile is in one of the two lists, or in both.
            found.single = self.single_chunks()
        incomplete = set()
        for key, nbytes in self.store.sizes(self._folder):
            name = key[start:]
            index, number = _index_in(name), _number_in(name)
            if index is not None:
                found.single.add(index)
                found.chunk_nbytes += nbytes
            elif number is not None:
                found.merged.add(number)
                found.chunk_nbytes += nbytes
            elif name.startswith(_INCOMPLETE):
                incomplete.add(name.removeprefix(_INCOMPLETE))
            elif not name.startswith((_SHARDS, _MERGED)):
                found.others.append(name)
        found.chunks = found.single.copy()
        if found.merged and self.grid.n_chunks == 1:
            with suppress(ObjectMissingError):
                self.read_about()
        for number in found.merged:
            self._add_merged(found, number, whole=str(number) not in incomplete)
        return found

    def _add_merged(self, found: Listing, number: int, *, whole: bool) -> None:
        chunks = self.grid.chunks_of(number)
        if whole:
            self.note_merged(number)
            found.chunks.add_range(chunks.start, chunks.stop - 1)
            return
        try:
            places = self.merged_layout(number).parts
        except (ObjectMissingError, ShardError):  # its own reader notes the damage
            places = {}
        found.incomplete[number] = IndexSet(chunks.start + place for place in places)
        found.chunks |= found.incomplete[number]

    def single_chunks(self) -> IndexSet:
        """The chunks that have an object of their own."""
        start = len(self._folder) + 1
        names = (key[start:] for key in self.store.keys(self.key(_SHARDS.rstrip("/"))))
        return IndexSet(index for name in names if (index := _index_in(name)) is not None)

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
    return _whole_number(number) if name.startswith(_SHARDS) and rest == "0/0" else None


def _number_in(name: str) -> int | None:
    """The number of the merged object of this name; None for another object."""
    number, _, rest = name.removeprefix(_MERGED).partition(".")
    return _whole_number(number) if name.startswith(_MERGED) and rest == "0.0" else None


def _whole_number(text: str) -> int | None:
    if not (text.isascii() and text.isdecimal()):
        return None
    number = int(text) if len(text) < 12 else -1
    return number if str(number) == text and number <= MAX_CHUNK_INDEX else None
