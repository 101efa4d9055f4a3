"""One stream's files: shards that arrive at any time, in a Zarr group that is readable all the while.

Under ``DIR/streams/<data_id>/``::

    stream.json          what the stream is (its ``about``); with the shards, the truth
    frames.zarr/         a Zarr v3 group: frames (time, y, x), time, chunk_start_unix_ms, chunk_frames, ...
    incoming/            bodies being received and documents being written

A commit goes: check and decode, seal and fsync the temporary file, rename, fsync the folders, columns, shape.
Only then it returns, so a 200 means durable and readable. A repeat runs every step again, which heals what
a crash left between two of them. :meth:`StreamArchive.open` does the same for what was never repeated:
columns and documents are derived from the shards, and are made again where they lag. So columns are synced
at most twice a second; which chunks that covers is noted beside them.

For the server: one :class:`StreamArchive` a stream, in one process (a lock on DIR is the caller's), shared by
all worker threads. Every method blocks. ``OSError`` is the disk's, and the same request may be tried again.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from atomstream import config
from atomstream.errors import AtomstreamError, ConflictError, RejectedError
from atomstream.index_ranges import IndexSet
from atomstream.protocol import MAX_LOST
from atomstream.records import Frames
from atomstream.server.archive.archive_files import ArchiveFiles
from atomstream.server.archive.chunk_index import ChunkIndex
from atomstream.server.archive.metadata import ABOUT, lost_in, plain
from atomstream.server.archive.metadata import read_about_file as read_about
from atomstream.server.archive.records import ChunkTimes, CommitResult, Geometry, UploadClaims
from atomstream.server.archive.result_columns import ResultArrays
from atomstream.server.archive.shard_file import Frame, ShardFile, compare, seal
from atomstream.server.archive.timestamp_columns import NAMES, ORIGIN
from atomstream.server.archive.zarr_group import COLUMN_DTYPES, FRAMES, ZarrGroup
from atomstream.system.files import LOCAL, FileSystem

__all__ = ["ChunkTimes", "CommitResult", "StreamArchive", "UploadClaims", "iter_archives"]

log = logging.getLogger(__name__)
Observe: TypeAlias = Callable[[int, int, Frame], None]
COSMETIC_PERIOD_S: Final = 0.5
"""Changes of attributes alone reach the group's documents at most twice a second."""
_STRIPES: Final = 64
_STREAM_DIMENSIONS: Final = ("time", "chunk")
_VALUE_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")


class StreamArchive:
    """The archive of one stream; see the module's text. Made by :meth:`create` or :meth:`open`."""

    def __init__(self, folder: Path, about: dict[str, Any], file_system: FileSystem = LOCAL) -> None:
        self.folder = folder
        self._about = about
        self.files = ArchiveFiles(folder / "incoming", file_system)
        self._file_system = file_system
        self._lost = lost_in(about)
        self._index = ChunkIndex(ZarrGroup(folder / "frames.zarr", self.files, NAMES), self._attributes)
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]
        self.results = ResultArrays(self._index)

    @classmethod
    def create(cls, folder: Path, about: Mapping[str, Any], file_system: FileSystem = LOCAL) -> StreamArchive:
        """Begin the archive of a new stream; ``about`` must be JSON-able and is what ``reindex`` goes by.

        Raises:
            FileExistsError: there is one already. TypeError, ValueError: ``about`` is not JSON.
        """
        if (folder / ABOUT).exists():
            raise FileExistsError(f"{folder} holds a stream already.")
        json.dumps(about, allow_nan=False)
        archive = cls(folder, dict(about), file_system)
        file_system.make_folder(archive._index.group.folder, durable=False)
        archive.flush_metadata()
        archive._write_about()  # last: a folder with it is a stream, one without is what a crash left
        file_system.sync_folder(folder.parent)
        return archive

    @classmethod
    def open(cls, folder: Path, file_system: FileSystem = LOCAL) -> StreamArchive:
        """Open an archive, and make good what a crash left undone: nothing that was answered is lost.

        Raises:
            StreamError: ``stream.json`` is missing or damaged. OSError: the disk's.
        """
        archive = cls(folder, read_about(folder), file_system)
        archive.files.remove_leftovers()
        archive._index.recover()
        return archive

    @property
    def about(self) -> dict[str, Any]:
        """What the stream is; a copy. ``lost`` has the indices given up and not stored, as ``"3-5,9"``."""
        return {**self._about, "lost": str(self._index.not_stored(self._lost))}

    def update_about(self, **changes: Any) -> None:
        """Change the description, durably; the group's attributes follow at most twice a second.

        (At the latest with the next commit or :meth:`flush_metadata`.)

        Raises:
            TypeError, ValueError: not JSON. OSError: the disk's.
        """
        json.dumps(changes, allow_nan=False)
        with self._index.writing:
            self._about = {**self._about, **changes}
            self._lost = lost_in(self._about)
            self._write_about()
            self._publish_soon()
            self._index.sync_if_due()

    def incoming(self) -> Path:
        """A fresh file name, on the archive's file system, for a body being received; removed if left over."""
        return self.files.temporary_path()

    def commit(
        self, ticket: UploadClaims, body: Path, crc32c: int, observe: Observe | None = None
    ) -> CommitResult:
        """Store the shard in the file ``body`` (from :meth:`incoming`), which is consumed in every case.

        ``crc32c`` is the body's, as received. ``observe(index, k, frame)`` sees each decoded frame (H, W),
        read-only, in order, black ones too; not those of an equal repeat. After an error it may see them
        again; what it raises ends the commit, with nothing stored.

        Raises:
            ShardError: the bytes are no valid shard of the ticket's shape (400).
            ConflictError: other frames are stored under the index, or the geometry differs (409).
            OSError: the disk's: the same upload may be tried again.
        """
        try:
            ticket.check()
            nbytes = body.stat().st_size
            place = self._index.place(ticket.index)
            with self._stripes[ticket.index % _STRIPES]:
                fresh = self._settle(ticket, body, crc32c, observe)
                if fresh is None:
                    self._file_system.sync_file(place)
                self._file_system.sync_folders(place.parent, self._index.group.shards)
                stamps = fresh or self._index.read_stamps(ticket.index)
            self._index.record(ticket.index, stamps)
        finally:
            self._file_system.unlink(body)
        return CommitResult(ticket.index, ticket.dims[0], nbytes, crc32c, fresh is None, stamps)

    @property
    def origin_unix_ms(self) -> float | None:
        """UTC milliseconds that the seconds of ``time`` count from; None before the first chunk."""
        return self._index.origin_ms

    @property
    def geometry(self) -> Geometry | None:
        """What all chunks have in common; None before the first chunk."""
        return self._index.geometry

    def shard_file(self, index: int) -> Path:
        """Where the shard of a chunk is or would be."""
        return self._index.place(index)

    def stored(self) -> IndexSet:
        """The indices of the chunks stored; a copy, which costs what its ranges cost."""
        return self._index.stored()

    def frames_stored(self) -> int:
        """Frames of all stored chunks together, holes not counted."""
        return self._index.frames_stored()

    def chunks(self) -> dict[int, int]:
        """Index -> number of frames, of each chunk stored. As long as the stream: not for the event loop."""
        return self._index.chunks()

    def n_frames(self) -> int:
        """Length of the array ``frames``: the largest k * chunk_size + N_k, holes included."""
        return self._index.n_frames()

    def missing_ranges(self) -> list[tuple[int, int]]:
        """(first, last) of each run of missing indices below the highest stored one."""
        return self._index.missing_ranges()

    def missing(self) -> IndexSet:
        """The missing indices below the highest stored one."""
        return self._index.missing()

    def stamps(self, index: int) -> ChunkTimes | None:
        """Stamps and per-frame data of a stored chunk, None where it is missing.

        Raises:
            ShardError: the stored shard is damaged. OSError: the disk's.
        """
        return self._index.read_stamps(index) if self._index.size(index) else None

    def mark_lost(self, indices: IndexSet) -> None:
        """List indices that the client gave up; one that arrives all the same leaves the list by itself.

        Raises:
            RejectedError: an index out of range, or too many of them.
        """
        with self._index.writing:
            lost = self._lost | indices
            if len(lost) > MAX_LOST or lost.end > config.MAX_CHUNK_INDEX + 1:
                limits = f"at most {MAX_LOST} indices, in 0 .. {config.MAX_CHUNK_INDEX}"
                raise RejectedError(f"These lost chunks can't be listed: {limits}.", status=400)
            self.update_about(lost=str(lost))

    def flush_metadata(self) -> None:
        """Write documents and attributes now, whatever the throttle says."""
        self._index.publish()

    def finish(self) -> None:
        """:meth:`flush_metadata`, with columns and the documents' names synced too. Late chunks may still come."""
        with self._index.writing:
            self.flush_metadata()
            self._index.sync()
            self._index.group.sync()

    def frames(self, start: int, stop: int) -> Frames:
        """Decoded frames ``start`` .. ``stop`` (a slice's rules), shape (n, H, W); missing ones are black.

        Raises:
            ShardError: a stored shard is damaged. OSError: the disk's.
        """
        geometry = self._index.geometry
        if geometry is None:
            return np.zeros((0, 0, 0), dtype=np.uint8)
        start, stop, _ = slice(start, stop).indices(self.n_frames())
        shape = (max(0, stop - start), geometry.height, geometry.width)
        out: Frames = np.zeros(shape, dtype=geometry.dtype)
        size = geometry.chunk_size
        for index in range(start // size, -(-stop // size)):
            first = index * size
            wanted = range(max(start - first, 0), min(stop - first, self._index.size(index)))
            for k, frame in self._chunk_frames(index, geometry, wanted):
                out[first + k - start] = frame
        return out

    def write_values(
        self,
        name: str,
        start: int,
        values: npt.NDArray[Any],
        dimension: str = "time",
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Write results (1-D numbers) at ``start`` into an array beside the frames, made at its first use.

        Along ``time`` and ``chunk`` the array is as long as the stream; along any other dimension as far as
        was written, which readers see at most half a second later. What was never written is NaN (0 for integers).

        Raises:
            ValueError: a name that is taken or unfit, or values that are not numbers in one dimension.
        """
        _check_values(name, dimension, start, values)
        with self._index.writing:
            group = self._index.group
            fresh = not group.has(name)
            fill = np.nan if values.dtype.kind == "f" else 0
            group.column(name, dimension, values.dtype.name, fill, attributes).write([(start, values)])
            if dimension not in _STREAM_DIMENSIONS:
                group.lengths[dimension] = max(group.lengths[dimension], start + len(values))
            self.flush_metadata() if fresh else self._publish_soon()

    def _settle(
        self, ticket: UploadClaims, body: Path, crc32c: int, observe: Observe | None
    ) -> ChunkTimes | None:
        """Have the chunk in its place, and return its stamps; None where an equal one was there already."""
        place, known = self._index.place(ticket.index), self._index.geometry
        if known not in (None, Geometry.of(ticket)):
            raise self._other_geometry(ticket)
        with ShardFile(body, ticket.dims, ticket.dtype) as shard:
            verdict = compare(place, shard, ticket.chunk_size) if place.exists() else "damaged"
            if verdict == "different":
                raise self._conflict(ticket, "is stored already, with other frames")
            if verdict == "equal":
                return None
            for k, frame in shard.frames():
                if observe is not None:
                    observe(ticket.index, k, frame)
        seal(body, ticket, crc32c, self._file_system)
        if not self._index.claim(Geometry.of(ticket)):
            raise self._other_geometry(ticket)
        self._file_system.make_folder(place.parent, durable=False)
        self._file_system.rename(body, place)
        return ticket.stamps(shard.layout.meta)

    def _other_geometry(self, ticket: UploadClaims) -> ConflictError:
        return self._conflict(ticket, f"is {Geometry.of(ticket)}, but the stream is {self._index.geometry}")

    def _conflict(self, ticket: UploadClaims, what: str) -> ConflictError:
        stream = f"Chunk {ticket.index} of stream {self.folder.name}"
        return ConflictError(f"{stream} {what}. What is stored is kept as it is.", status=409)

    def _chunk_frames(self, index: int, geometry: Geometry, wanted: range) -> Iterator[tuple[int, Frame]]:
        if not wanted:
            return
        dims = (self._index.size(index), geometry.height, geometry.width)
        with ShardFile(self._index.place(index), dims, geometry.dtype, geometry.chunk_size) as shard:
            yield from shard.frames(wanted)

    def _attributes(self) -> dict[str, Any]:
        about = self.about
        return {
            **{key: plain(value) for key, value in about.items()},
            "lost": None,
            ORIGIN: self._index.origin_ms,
            "missing_chunks": str(self._index.missing()),
            "lost_chunks": about["lost"],
        }

    def _publish_soon(self) -> None:
        if time.monotonic() - self._index.group.published_at >= COSMETIC_PERIOD_S:
            self.flush_metadata()

    def _write_about(self) -> None:
        about = json.dumps(self._about, indent=2).encode()
        self.files.write_atomic(self.folder / ABOUT, about, durable=True)


def iter_archives(streams_dir: Path) -> Iterator[StreamArchive]:
    """Open one archive after the other. Folders that hold no stream are passed over, and nothing is removed.

    One that can't be opened is logged as a warning and passed over too.
    """
    for folder in sorted(streams_dir.iterdir()) if streams_dir.is_dir() else ():
        if not (folder / ABOUT).is_file():
            continue
        try:
            archive = StreamArchive.open(folder)
        except (AtomstreamError, OSError) as error:
            log.warning("%s is left out, its files stay as they are: %s", folder, error)
        else:
            yield archive


def _check_values(name: str, dimension: str, start: int, values: npt.NDArray[Any]) -> None:
    if not _VALUE_NAME.fullmatch(name) or name in NAMES or name == FRAMES:
        raise ValueError(
            f"{name!r} can't name an array of results: a-z, 0-9, _, and none of the archive's own."
        )
    if not _VALUE_NAME.fullmatch(dimension):
        raise ValueError(f"{dimension!r} can't name a dimension.")
    if values.ndim != 1 or values.dtype.name not in COLUMN_DTYPES or start < 0:
        raise ValueError(f"{name}: results must be 1-D {', '.join(COLUMN_DTYPES)}, at start >= 0.")
