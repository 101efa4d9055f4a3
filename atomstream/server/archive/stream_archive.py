"""The archive of one stream: shards arrive in any order, in a Zarr group that is readable at any time.

Under ``DIR/streams/<data_id>/``::

    stream.json          the description of the stream; everything else follows from it and the shards
    frames.zarr/         a Zarr v3 group: frames (time, y, x), time, chunk_start_unix_ms, chunk_frames, ...
    incoming/            temporary files: bodies being received and documents being written

The steps of a commit: check and decode the body, seal and fsync the temporary file, rename it, fsync the folders, write
the columns, write the new shape. The commit returns after all of them, so a reply 200 means durable and readable. A
repeated upload runs every step again, which completes a commit that a crash interrupted. :meth:`StreamArchive.open`
does the same without an upload: columns and documents are rebuilt from the shards where they are behind. Therefore
columns are synced at most twice a second; an attribute of the group lists the chunks whose columns are durable.

The server has one :class:`StreamArchive` for each stream, shared by all worker threads of one process; the caller
locks DIR. Every method blocks. ``OSError`` comes from the disk, and the same request may be repeated.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from atomstream import protocol
from atomstream.errors import ConflictError, RejectedError, ShardError
from atomstream.index_ranges import IndexSet
from atomstream.protocol import MAX_LOST
from atomstream.records import Frames
from atomstream.server.archive.archive_files import SET_ASIDE, ArchiveFiles
from atomstream.server.archive.chunk_index import ChunkIndex
from atomstream.server.archive.damage import StreamDamage
from atomstream.server.archive.frame_runs import FrameRuns, Numbers
from atomstream.server.archive.metadata import (
    ABOUT,
    ORIGIN,
    RUNNING,
    geometry_in,
    lost_in,
    named_attributes,
    plain,
)
from atomstream.server.archive.metadata import read_about_file as read_about
from atomstream.server.archive.records import ChunkTimes, CommitResult, Geometry, UploadClaims
from atomstream.server.archive.result_columns import ResultArrays, check_values
from atomstream.server.archive.shard_file import Frame, ShardFile, compare, seal
from atomstream.server.archive.small_arrays import SmallArray, SmallArrays
from atomstream.server.archive.thinning import ThinnedFrames
from atomstream.server.archive.timestamp_columns import NAMES
from atomstream.server.archive.zarr_group import ZarrGroup
from atomstream.system.files import LOCAL, FileSystem
from atomstream.system.log_privacy import get_logger
from atomstream.system.own_files import refuse_linked_folders

__all__ = ["ChunkTimes", "CommitResult", "StreamArchive", "UploadClaims"]

log = get_logger(__name__)
Observe: TypeAlias = Callable[[int, int, Frame], None]
COSMETIC_PERIOD_S: Final = 0.5
"""Least time, in s, between two writes of the group's documents if only attributes have changed."""
MAX_LOST_RANGES: Final = 10_000
"""Most ranges of lost chunks: each description of the stream lists them."""
MAX_ATTRIBUTE_CHARS: Final = 64_000
"""Longest list of missing chunks in the group's attributes, which are written for each chunk; the rest is left out."""
_STRIPES: Final = 64
_STREAM_DIMENSIONS: Final = ("time", "chunk")


_FOLDERS: Final = (SET_ASIDE, "incoming", "frames.zarr/frames/c", "analysis")
"""Folders of an archive that a link may not replace: files in them are written, renamed and removed."""


class StreamArchive:
    """The archive of one stream, see the module's docstring; made by :meth:`create` or :meth:`open`."""

    is_cache: ClassVar[bool] = False
    """True if the chunks are in a store, and the folder has only some of their files. These are not synced: they are
    checked when they are read, and fetched again where a power cut has damaged them."""

    def __init__(
        self,
        folder: Path,
        about: dict[str, Any],
        file_system: FileSystem = LOCAL,
        damage: StreamDamage | None = None,
    ) -> None:
        self.folder = folder
        self._about = about
        self.files = ArchiveFiles(folder / "incoming", file_system, damage)
        self._file_system = file_system
        self._lost = lost_in(about)
        self._index = self._make_index(ZarrGroup(folder / "frames.zarr", self.files, NAMES))
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]
        self.results = ResultArrays(self._index)
        self._small = SmallArrays(self._index)
        self.thinned = self._make_thinned()
        """Which frames were kept when the stream was thinned."""

    def _make_thinned(self) -> ThinnedFrames:
        return ThinnedFrames(self._index, self.files, self._stripes)

    def _make_index(self, group: ZarrGroup) -> ChunkIndex:
        return ChunkIndex(group, self._attributes)

    @classmethod
    def create(
        cls,
        folder: Path,
        about: Mapping[str, Any],
        file_system: FileSystem = LOCAL,
        damage: StreamDamage | None = None,
    ) -> StreamArchive:
        """Create the archive of a new stream; ``about`` is its description, for ``stream.json``.

        Raises:
            FileExistsError: the folder has a stream already. TypeError, ValueError: ``about`` is not JSON.
        """
        if (folder / ABOUT).exists():
            raise FileExistsError(f"{folder} holds a stream already.")
        json.dumps(about, allow_nan=False)
        archive = cls(folder, dict(about), file_system, damage)
        archive._create()
        return archive

    def _create(self) -> None:
        self._file_system.make_folder(self._index.group.folder, durable=False)
        self.flush_metadata()
        self._write_about()  # last: a folder without it is the remains of a crash
        self._file_system.sync_folder(self.folder.parent)

    @classmethod
    def open(
        cls, folder: Path, file_system: FileSystem = LOCAL, damage: StreamDamage | None = None
    ) -> StreamArchive:
        """Open an archive and complete what a crash interrupted; every chunk that was answered with 200 is there.

        Damaged files, except ``stream.json``, are made again or count as missing; ``damage`` notes them.

        Raises:
            StreamError: ``stream.json`` is missing or damaged. OSError: from the disk.
        """
        cls._refuse_links(folder)
        archive = cls(folder, read_about(folder), file_system, damage)
        archive._recover()
        return archive

    @staticmethod
    def _refuse_links(folder: Path) -> None:
        for name in _FOLDERS:
            refuse_linked_folders(folder / name, folder)

    def _recover(self) -> None:
        for name in _FOLDERS:
            self.files.clear_way(self.folder / name, folder=True)
        if not self._index.group.folder.exists():
            self.files.note_damage(self._index.group.folder, "it is missing, and all frames with it")
        self.files.remove_leftovers()
        self._index.recover(geometry_in(self._about))
        self.thinned.repair(self._about)

    @property
    def description(self) -> dict[str, Any]:
        """The description as it was written last, not to be changed. Costs nothing, unlike :attr:`about`."""
        return self._about

    @property
    def about(self) -> dict[str, Any]:
        """A copy of the description; its ``lost`` (``"3-5,9"``) lists the chunks that the client has lost."""
        return {**self._about, "lost": str(self._index.not_stored(self._lost))}

    def update_about(self, **changes: Any) -> None:
        """Change the description, durably; the group's attributes are updated at most twice a second.

        (At the latest with the next commit or :meth:`flush_metadata`.)

        Raises:
            TypeError, ValueError: not JSON. OSError: from the disk.
        """
        json.dumps(changes, allow_nan=False)
        with self._index.writing:
            self.files.check_not_deleted()
            self._about = {**self._about, **changes}
            self._lost = lost_in(self._about)
            self._write_about()
            self._publish_soon()
            self._index.sync_if_due()

    def refresh_about(self) -> bool:
        """Read the description again where another server may have changed it; True if one has."""
        return False

    def note_analysed_again(self) -> None:
        """Note for servers that share the store that this process analyses the stream again; without a store, do
        nothing."""

    def remove_analysis_note(self) -> None:
        """Remove what :meth:`note_analysed_again` has noted."""

    def is_analysed_again(self) -> bool:
        """True while an analysis of the stream runs or is to be continued, as its files note. Blocks."""
        return (self.folder / RUNNING).exists()

    def incoming(self) -> Path:
        """A new file name, on the archive's file system, for a body; the next :meth:`open` removes a leftover file."""
        return self.files.temporary_path()

    def commit(
        self, claims: UploadClaims, body: Path, crc32c: int, observe: Observe | None = None
    ) -> CommitResult:
        """Store the shard in the file ``body`` (from :meth:`incoming`); the file is removed in every case.

        ``crc32c`` is that of the received body. ``observe(index, k, frame)`` is called with each decoded frame
        (H, W), read-only, in order, black ones too; not for an equal repeat. After an error it may be called
        again for the same frames. An exception from it ends the commit, and nothing is stored.

        Raises:
            ShardError: the bytes are not a valid shard of the claimed shape (400).
            ConflictError: other frames are stored under the index, or the geometry differs (409).
            OSError: from the disk; the same upload may be repeated.
        """
        try:
            claims.check()
            nbytes = body.stat().st_size
            path = self._index.shard_path(claims.index)
            with self._stripes[claims.index % _STRIPES]:
                self.files.check_not_deleted()
                new = self._store(claims, body, crc32c, observe)
                if not self.is_cache:  # in a cache the store has the chunk durably
                    if new is None:
                        self._file_system.sync_file(path)
                    self._file_system.sync_folders(path.parent, self._index.group.shards)
                stamps = new or self._index.read_stamps(claims.index)
            known = new is None and self._index.size(claims.index) > 0
            if not self.files.deleted:  # of a deleted stream the chunk was deleted too
                self._index.add(claims.index, stamps)
                self.thinned.note_stored(claims.index)
        finally:
            self._file_system.unlink(body)
        return CommitResult(claims.index, claims.dims[0], nbytes, crc32c, new is None, stamps, known)

    @property
    def origin_unix_ms(self) -> float | None:
        """The zero of ``time`` in UTC milliseconds; None before the first chunk."""
        return self._index.origin_ms

    @property
    def geometry(self) -> Geometry | None:
        """Chunk size, frame shape and dtype; None before the first chunk."""
        return self._index.geometry

    def shard_file(self, index: int) -> Path:
        """Path of a chunk's shard file, whether or not it exists."""
        return self._index.shard_path(index)

    def local_shard(self, index: int) -> Path:
        """Path of the shard file of a stored chunk, to be read. Blocks where it has to be fetched from elsewhere.

        Raises:
            ShardError: it can't be fetched, because it is missing there.
        """
        return self.shard_file(index)

    def follow(self, *, all_chunks: bool = False) -> list[int]:
        """Add the chunks that other servers have stored since; returns their indices. Here there are none."""
        return []

    def merge_chunks(self) -> None:
        """Merge all short chunks of an ended stream into larger objects. In a folder each chunk is a file."""

    def note_unreadable(self, index: int, why: str) -> None:
        """Note that the shard of a chunk is damaged, as its reader found."""
        self._index.note_unreadable(index, why)

    def stored(self) -> IndexSet:
        """The indices of the stored chunks, as a copy; its cost is proportional to the number of ranges."""
        return self._index.stored()

    def frames_stored(self) -> int:
        """Frames of all stored chunks together, holes not counted."""
        return self._index.frames_stored()

    def chunks(self) -> dict[int, int]:
        """Number of frames of each stored chunk, by index. Large for long streams: do not call it on the event loop."""
        return self._index.chunks()

    def frame_runs(self) -> FrameRuns:
        """Which frames are stored. Do not call it on the event loop."""
        return self._index.frame_runs()

    def n_frames(self) -> int:
        """Length of the array ``frames``: the largest k * chunk_size + N_k, holes included."""
        return self._index.n_frames()

    def missing_ranges(self) -> list[tuple[int, int]]:
        """(first, last) of each range of missing indices below the highest stored one."""
        return self._index.missing_ranges()

    def missing(self) -> IndexSet:
        """The missing indices below the highest stored one."""
        return self._index.missing()

    def stamps(self, index: int) -> ChunkTimes | None:
        """Times and per-frame data of a stored chunk, None if it is missing.

        Raises:
            ShardError: the stored shard is damaged. OSError: from the disk.
        """
        return self._index.read_stamps(index) if self._index.size(index) else None

    def mark_lost(self, indices: IndexSet) -> None:
        """Add the indices of chunks that the client has lost; one that arrives later is no longer listed.

        Raises:
            RejectedError: an index out of range, or too many of them.
        """
        with self._index.writing:
            lost = self._lost | indices
            too_many = len(lost) > MAX_LOST or len(lost.ranges()) > MAX_LOST_RANGES
            if too_many or lost.end > protocol.MAX_CHUNK_INDEX + 1:
                limits = f"at most {MAX_LOST} indices in {MAX_LOST_RANGES} ranges, in 0 .. {protocol.MAX_CHUNK_INDEX}"
                raise RejectedError(f"These lost chunks can't be listed: {limits}.", status=400)
            self.update_about(lost=str(lost))

    def flush_metadata(self) -> None:
        """Write documents and attributes now, without waiting for the time limit."""
        self._index.publish()

    def delete(self, target: Path) -> None:
        """Move the folder to ``target``, on the same file system, durably; this is the moment of the deletion.

        Waits for commits and writes that run; later ones raise ArchiveDeletedError.

        Raises:
            OSError: from the disk; the stream is then not deleted.
        """
        with ExitStack() as stack:
            for stripe in self._stripes:
                stack.enter_context(stripe)
            stack.enter_context(self._index.writing)
            self._file_system.make_folder(target.parent)
            self._file_system.rename(self.folder, target)
            self.files.deleted = True
        self._file_system.sync_folder(target.parent)
        self._file_system.sync_folder(self.folder.parent)

    def finish(self) -> None:
        """Make all documents and columns durable. Late chunks may still be committed afterwards."""
        self._small.sync()  # before the lock below: other code acquires the small arrays' lock first, then that one
        with self._index.writing:
            self.files.check_not_deleted()
            self.flush_metadata()
            self._index.sync()
            self._index.group.sync()

    def frames(self, start: int, stop: int) -> Frames:
        """Decoded frames ``start`` .. ``stop`` (a slice's rules), shape (n, H, W); missing ones are black.

        Raises:
            ShardError: a stored shard is damaged. OSError: from the disk.
        """
        start, stop, _ = slice(start, stop).indices(self.n_frames())
        return self.frames_at(np.arange(start, stop, dtype=np.int64))

    def frames_at(self, numbers: Numbers, threads: int = 1) -> Frames:
        """Decoded frames with these ascending numbers, shape (n, H, W); missing ones are black.

        ``threads`` is the number of threads that decode.

        Raises:
            ShardError: a stored shard is damaged. OSError: from the disk.
        """
        geometry = self._index.geometry
        if geometry is None:
            return np.zeros((0, 0, 0), dtype=np.uint8)
        out: Frames = np.zeros((len(numbers), geometry.height, geometry.width), dtype=geometry.dtype)
        indices = numbers // geometry.chunk_size
        bounds = [0, *(np.flatnonzero(np.diff(indices)) + 1).tolist(), len(numbers)]
        for first, stop in itertools.pairwise(bounds if len(numbers) else ()):
            index = int(indices[first])
            places = (numbers[first:stop] - index * geometry.chunk_size).tolist()
            there = bisect_left(places, self._index.size(index))
            if there:
                self._read_chunk(index, geometry, places[:there], out[first : first + there], threads)
        return out

    def write_values(
        self,
        name: str,
        start: int,
        values: npt.NDArray[Any],
        dimension: str = "time",
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Write results (1-D numbers) at ``start`` into an array of the group, created at its first use.

        Along ``time`` and ``chunk`` the array is as long as the stream. Along any other dimension it ends where
        values end, which readers see at most half a second later. The fill value is NaN, 0 for integers.

        Raises:
            ValueError: an invalid or reserved name, or values that are not one-dimensional numbers.
        """
        check_values(name, dimension, start, values)
        with self._index.writing:
            group = self._index.group
            new = not group.has(name)
            fill = np.nan if values.dtype.kind == "f" else 0
            group.column(name, dimension, values.dtype.name, fill, attributes).write([(start, values)])
            if dimension not in _STREAM_DIMENSIONS:
                group.lengths[dimension] = max(group.lengths[dimension], start + len(values))
            self.flush_metadata() if new else self._publish_soon()

    def write_small(self, arrays: Iterable[SmallArray]) -> None:
        """Replace small arrays of the group; readers see them at once.

        :meth:`finish` makes them durable.

        Raises:
            OSError: from the disk; writing again is harmless. ArchiveDeletedError: the stream was deleted.
        """
        self._small.write(arrays)
        self.flush_metadata()

    def small_rows(self, name: str) -> int:
        """The length of a small array; 0 if there is none."""
        shape = self._index.group.documents.get(name, {}).get("shape") or [0]
        return int(shape[0])

    def _store(
        self, claims: UploadClaims, body: Path, crc32c: int, observe: Observe | None
    ) -> ChunkTimes | None:
        """Store the chunk and return its times; None if an equal one was stored already."""
        path, geometry = self._index.shard_path(claims.index), self._index.geometry
        if geometry not in (None, Geometry.of(claims)):
            raise self._other_geometry(claims)
        with ShardFile(body, claims.dims, claims.dtype) as shard:
            comparison = compare(path, shard, claims.chunk_size) if path.is_file() else "damaged"
            if comparison == "different":
                raise self._conflict(claims, "is stored already, with other frames")
            if comparison == "equal":
                return None
            self.check_density(claims)
            for k, frame in shard.frames():
                if observe is not None:
                    observe(claims.index, k, frame)
        seal(body, claims, crc32c, self._file_system, synced=not self.is_cache)
        is_new = self._share(claims, body)
        if not self._index.set_geometry(Geometry.of(claims)):
            raise self._other_geometry(claims)
        self.files.clear_way(path)
        self._file_system.make_folder(path.parent, durable=False, inside=self._index.group.shards)
        self._file_system.rename(body, path)
        return claims.stamps(shard.layout.meta) if is_new else None

    def check_density(self, claims: UploadClaims) -> None:
        """Refuse a chunk far from all others; raises ConflictError (see :meth:`ChunkIndex.check_density`)."""
        self._index.check_density(claims.index, claims.dims[0], claims.chunk_size)

    def _share(self, claims: UploadClaims, body: Path) -> bool:
        """Store the sealed shard where other servers find it, before it counts as stored.

        False if one with equal frames is there already, which has then replaced ``body``. This archive is the only
        one, and shares nothing.
        """
        return True

    def _other_geometry(self, claims: UploadClaims) -> ConflictError:
        return self._conflict(claims, f"is {Geometry.of(claims)}, but the stream is {self._index.geometry}")

    def _conflict(self, claims: UploadClaims, what: str) -> ConflictError:
        stream = f"Chunk {claims.index} of stream {self.folder.name}"
        return ConflictError(f"{stream} {what}. The stored chunks are not changed.", status=409)

    def _read_chunk(
        self, index: int, geometry: Geometry, places: list[int], out: Frame, threads: int
    ) -> None:
        """Decode the frames at these ascending ``places`` of a stored chunk into ``out``."""
        dims = (self._index.size(index), geometry.height, geometry.width)
        path = self.local_shard(index)
        try:
            with ShardFile(path, dims, geometry.dtype, geometry.chunk_size) as shard:
                shard.read_into(places, out, threads)
        except ShardError as error:
            self._index.note_unreadable(index, error)
            raise
        except FileNotFoundError:
            missing = ShardError(f"{path} is missing.")
            self._index.note_unreadable(index, missing)
            raise missing from None

    def _attributes(self) -> dict[str, Any]:
        about = self.about
        return {
            **{key: plain(value) for key, value in about.items()},
            **named_attributes(about.get("attributes")),
            "attributes": None,
            "lost": None,
            ORIGIN: self._index.origin_ms,
            "missing_chunks": self._index.missing().text(MAX_ATTRIBUTE_CHARS),
            "lost_chunks": about["lost"],
            **self.thinned.attributes(about),
        }

    def _publish_soon(self) -> None:
        if time.monotonic() - self._index.group.published_at >= COSMETIC_PERIOD_S:
            self.flush_metadata()

    def _write_about(self) -> None:
        about = json.dumps(self._about, indent=2).encode()
        self.files.write_atomic(self.folder / ABOUT, about, durable=True)
