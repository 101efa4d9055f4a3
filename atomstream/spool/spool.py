"""The spool as a whole: its root folder, the streams in it, and the bounds that all processes share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict

from atomstream.config import MIB, normalise_endpoint
from atomstream.errors import SpoolError
from atomstream.records import StreamSpec
from atomstream.spool.disk_errors import disk_errors
from atomstream.spool.paths import (
    JOURNAL,
    MANIFEST,
    QUARANTINE,
    USAGE,
    endpoint_folder,
    records_in,
    spares_in,
    stream_folder,
    stream_folders,
)
from atomstream.spool.quota import Quota, Usage, usage_of
from atomstream.spool.recovery import begin, enter, history_of, is_free, manifest_of
from atomstream.spool.stream_spool import StreamSpool
from atomstream.spool.stream_state import Geometry, JournalState, StreamManifest
from atomstream.system.files import FileSystem

# What is in the spool, for ``spool_status()`` and ``atomstream spool list``: told by files and journals alone.


class ChunkCounts(TypedDict):
    """How many chunks are in each state, by the names of the report."""

    chunks_spooled: int
    chunks_uploaded: int
    chunks_dropped: int
    chunks_failed: int
    chunks_purged: int
    chunks_not_uploaded: int
    chunks_pending: int


class StreamStatus(ChunkCounts):
    """One stream in the spool; ``chunks_on_disk`` of its pending chunks have a record."""

    data_id: str
    endpoint: str
    name: str
    folder: str
    bytes: int
    chunks_on_disk: int
    chunks_quarantined_on_disk: int
    locked: bool
    finalizing: bool
    ended: bool
    problem: str


class SpoolStatus(ChunkCounts):
    """The spool as a whole; ``bytes`` counts the records of all processes, the counts are sums over streams."""

    dir: str
    bytes: int
    max_bytes: int
    min_free_bytes: int
    free_bytes: int
    streams: list[StreamStatus]


def spool_status(disk: FileSystem, bounds: Quota, found: Sequence[SpooledStream]) -> SpoolStatus:
    """Look at every stream of ``found``."""
    streams = [_stream_status(disk, stream) for stream in found]
    return {
        "dir": str(bounds.root),
        "bytes": bounds.used_bytes(),
        "max_bytes": bounds.max_bytes,
        "min_free_bytes": bounds.min_free_bytes,
        "free_bytes": bounds.free_bytes(),
        **_sum(streams),
        "streams": streams,
    }


def count_chunks(history: JournalState, on_disk: int = 0) -> ChunkCounts:
    """The counts of a history; records on disk that a torn journal does not name count as pending."""
    states = history.counts()
    pending = max(states["pending"], on_disk)
    lost = states["quarantined"] + states["dropped"] + states["purged"]
    return {
        "chunks_spooled": states["stored"] + lost + pending,
        "chunks_uploaded": states["stored"],
        "chunks_dropped": states["dropped"],
        "chunks_failed": states["quarantined"],
        "chunks_purged": states["purged"],
        "chunks_not_uploaded": lost + pending,
        "chunks_pending": pending,
    }


def _stream_status(disk: FileSystem, stream: SpooledStream) -> StreamStatus:
    history = JournalState()
    with suppress(SpoolError):
        history = history_of(disk, stream.folder)
    on_disk = _pending_on_disk(stream.folder, history)
    manifest = stream.manifest
    return {
        "data_id": manifest.spec.data_id if manifest else stream.folder.name,
        "endpoint": manifest.endpoint if manifest else "",
        "name": manifest.spec.name if manifest else "",
        "folder": str(stream.folder),
        "bytes": usage_of(stream.folder),
        "chunks_on_disk": on_disk,
        "chunks_quarantined_on_disk": len(records_in(stream.folder / QUARANTINE)),
        "locked": stream.locked,
        "finalizing": history.finalizing,
        "ended": history.ended,
        "problem": stream.problem,
        **count_chunks(history, on_disk),
    }


def _pending_on_disk(folder: Path, history: JournalState) -> int:
    settled = {index for index, state in history.states.items() if state != "pending"}
    return len(records_in(folder).keys() - settled)


def _sum(streams: Sequence[ChunkCounts]) -> ChunkCounts:
    total = count_chunks(JournalState())
    for stream in streams:
        for key in total:
            total[key] += stream[key]  # type: ignore[literal-required]
    return total


@dataclass(frozen=True, slots=True)
class SpooledStream:
    """A stream's folder in the spool; ``manifest`` is None where it can't be read, and ``problem`` says why."""

    folder: Path
    manifest: StreamManifest | None
    locked: bool
    problem: str = ""


class Spool:
    """The spool under ``root``, which is made if need be; any number of processes may share it.

    ``max_bytes`` bounds the records of all of them together (None: 20 GB or a tenth of the free disk, the
    smaller); ``min_free_bytes`` are left free on the disk; ``retention_s`` is for
    :meth:`StreamSpool.expire` (None: nothing is ever removed for its age).

    Raises:
        SpoolError: the folder can't be made or written.
    """

    def __init__(
        self,
        root: Path,
        *,
        max_bytes: int | None = None,
        min_free_bytes: int = 512 * MIB,
        retention_s: float | None = None,
        disk: FileSystem | None = None,
    ) -> None:
        self.root: Final = root
        self.retention_s: Final = retention_s
        self._disk = disk or FileSystem()
        with disk_errors("make its folder", root):
            self._disk.make_folder(root)
            self._bounds = Quota(self._disk, root, max_bytes, min_free_bytes)
        self._recount_free_streams()

    @property
    def max_bytes(self) -> int:
        """The bound of all records together."""
        return self._bounds.max_bytes

    def available_bytes(self) -> int:
        """Bytes of records that still fit, by the bound and by the disk. Raises SpoolError."""
        with self._bounds.lock.held(), disk_errors("look for room", self.root):
            by_bound = self._bounds.max_bytes - self._bounds.used_bytes()
            return max(0, min(by_bound, self._bounds.free_bytes() - self._bounds.min_free_bytes))

    def create_stream(self, endpoint: str, spec: StreamSpec, geometry: Geometry | None = None) -> StreamSpool:
        """Make and hold the folder of a new stream.

        Raises:
            SpoolLockedError: another process holds it. SpoolError: it is there already, or the disk refused.
        """
        manifest = StreamManifest(normalise_endpoint(endpoint), spec, geometry)
        with self._bounds.lock.held():
            return begin(self._disk, self.folder_of(endpoint, spec.data_id), self._bounds, manifest)

    def open_stream(self, endpoint: str, data_id: str) -> StreamSpool:
        """Take over a stream that an earlier process left.

        Raises:
            SpoolLockedError: another process holds it. SpoolError: it is not there, or can't be read.
        """
        folder = self.folder_of(endpoint, data_id)
        if not _is_stream(folder):
            raise SpoolError(
                f"The spool {self.root} has no stream {data_id} of {normalise_endpoint(endpoint)}."
            )
        with self._bounds.lock.held():
            return enter(self._disk, folder, self._bounds)

    def streams(self, endpoint: str | None = None) -> list[SpooledStream]:
        """All streams in the spool, of one endpoint if given, in the order of their folders.

        Raises:
            SpoolError: the disk refused.
        """
        with self._bounds.lock.held():
            return [self._look(folder) for folder in self._folders(endpoint)]

    def recoverable(self, endpoint: str) -> list[SpooledStream]:
        """The streams of an endpoint that nobody holds and that can be opened."""
        return [stream for stream in self.streams(endpoint) if stream.manifest and not stream.locked]

    def status(self) -> SpoolStatus:
        """What is in the spool, by its files and journals. Raises SpoolError."""
        return spool_status(self._disk, self._bounds, self.streams())

    def folder_of(self, endpoint: str, data_id: str) -> Path:
        """Where a stream is, or would be."""
        return self.root / endpoint_folder(endpoint) / stream_folder(data_id)

    def _look(self, folder: Path) -> SpooledStream:
        locked = not is_free(folder)
        try:
            return SpooledStream(folder, manifest_of(self._disk, folder), locked)
        except SpoolError as error:
            return SpooledStream(folder, None, locked, str(error))

    def _folders(self, endpoint: str | None) -> Iterator[Path]:
        wanted = None if endpoint is None else endpoint_folder(endpoint)
        for folder in stream_folders(self.root):
            if _is_stream(folder) and wanted in (None, folder.parent.name):
                yield folder

    def _recount_free_streams(self) -> None:
        # A power cut may leave any number in ``usage``, for it is not synced: whoever starts counts anew. Spare files
        # of a process that died would take their room until their stream is opened.
        with self._bounds.lock.held():
            for folder in stream_folders(self.root):
                if (folder / USAGE).exists() and is_free(folder):
                    for spare in spares_in(folder):
                        with suppress(OSError):
                            self._disk.unlink(spare)
                    Usage(self._disk, folder).recount()


def _is_stream(folder: Path) -> bool:
    return (folder / MANIFEST).exists() or (folder / JOURNAL).exists()
