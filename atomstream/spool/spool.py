"""The spool: a root folder with the streams of all processes on this computer, and their common disk quota."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from atomstream.config import SPOOL_MIN_FREE_BYTES, normalise_endpoint
from atomstream.errors import SpoolError
from atomstream.records import ChunkCounts, StreamSpec
from atomstream.spool.adoption import adopt_streams
from atomstream.spool.disk_errors import disk_errors
from atomstream.spool.paths import (
    JOURNAL,
    MANIFEST,
    QUARANTINE,
    USAGE,
    endpoint_folder,
    endpoint_folders,
    is_own_name,
    records_in,
    recycled_in,
    stream_folder,
    stream_folders,
)
from atomstream.spool.quota import Quota, Usage, usage_of
from atomstream.spool.recovery import (
    create_stream_folder,
    is_unlocked,
    load_journal_state,
    load_manifest,
    open_stream_folder,
)
from atomstream.spool.stream_spool import StreamSpool
from atomstream.spool.stream_state import Geometry, JournalState, LateRegistration, StreamManifest
from atomstream.system.files import FileSystem
from atomstream.system.log_privacy import get_logger
from atomstream.system.own_files import exposure_of, is_plain_file, make_private

_log = get_logger("atomstream.spool")


class StreamStatus(ChunkCounts):
    """Status of one stream; ``chunks_on_disk`` counts the pending chunks that have a record."""

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
    """Status of the whole spool; ``bytes`` and the counts include the streams of all processes."""

    dir: str
    bytes: int
    max_bytes: int
    min_free_bytes: int
    free_bytes: int
    streams: list[StreamStatus]


@dataclass(frozen=True, slots=True)
class SpooledStream:
    """A stream's folder in the spool. ``manifest`` is None if it can't be read; ``problem`` is then the reason."""

    folder: Path
    manifest: StreamManifest | None
    locked: bool
    problem: str = ""


class Spool:
    """The spool under ``root``; any number of processes may share it. The folder is created if necessary.

    Args:
        max_bytes: limit for the records of all processes together (None: 20 GB or 10 % of the free disk space,
            whichever is smaller).
        min_free_bytes: space that is left free on the disk.
        retention_s: age limit for :meth:`StreamSpool.expire` (None: no record is removed because of its age).

    Raises:
        SpoolError: the folder can't be created or written.
    """

    def __init__(
        self,
        root: Path,
        *,
        max_bytes: int | None = None,
        min_free_bytes: int = SPOOL_MIN_FREE_BYTES,
        retention_s: float | None = None,
        disk: FileSystem | None = None,
    ) -> None:
        self.root: Final = root
        self.retention_s: Final = retention_s
        self._disk = disk or FileSystem()
        with disk_errors("make its folder", root):
            self._disk.make_folder(root)
            for folder in endpoint_folders(root):
                make_private(folder)
            make_private(root, is_own_name)
            if exposure := exposure_of(root):
                _log.warning(
                    "The spool's folder %s %s. Choose another one, or make it private (chmod 700).",
                    root,
                    exposure,
                )
            self._quota = Quota(self._disk, root, max_bytes, min_free_bytes)
        self._recount_unlocked_streams()

    @property
    def max_bytes(self) -> int:
        """Limit for the bytes of all records together."""
        return self._quota.max_bytes

    def available_bytes(self) -> int:
        """Bytes of records that can still be written within the limits. Raises SpoolError."""
        with self._quota.lock.held(), disk_errors("compute its free space", self.root):
            below_limit = self._quota.max_bytes - self._quota.used_bytes()
            return max(0, min(below_limit, self._quota.free_bytes() - self._quota.min_free_bytes))

    def create_stream(
        self,
        endpoint: str,
        spec: StreamSpec,
        geometry: Geometry | None = None,
        late: LateRegistration | None = None,
    ) -> StreamSpool:
        """Create the folder of a new stream and lock it. ``late`` is given if it is not registered on the server yet.

        Raises:
            SpoolLockedError: another process holds it. SpoolError: it exists, or the disk failed.
        """
        manifest = StreamManifest(normalise_endpoint(endpoint), spec, geometry, late)
        with self._quota.lock.held():
            folder = self.folder_of(endpoint, spec.data_id)
            return create_stream_folder(self._disk, folder, self._quota, manifest)

    def open_stream(self, endpoint: str, data_id: str) -> StreamSpool:
        """Open and lock a stream that an earlier process created.

        Raises:
            SpoolLockedError: another process holds it. SpoolError: it does not exist, or can't be read.
        """
        folder = self.folder_of(endpoint, data_id)
        if not _is_stream(folder):
            raise SpoolError(
                f"The spool {self.root} has no stream {data_id} of {normalise_endpoint(endpoint)}."
            )
        with self._quota.lock.held():
            return open_stream_folder(self._disk, folder, self._quota)

    def streams(self, endpoint: str | None = None) -> list[SpooledStream]:
        """All streams in the spool, or those of one endpoint, sorted by folder.

        Raises:
            SpoolError: the disk failed.
        """
        with self._quota.lock.held():
            return [self._read_stream(folder) for folder in self._folders(endpoint)]

    def recoverable(self, endpoint: str) -> list[SpooledStream]:
        """The streams of an endpoint that are not locked and whose manifest can be read."""
        return [stream for stream in self.streams(endpoint) if stream.manifest and not stream.locked]

    def adopt(self, old: str, new: str) -> list[str]:
        """Assign the unregistered streams of the endpoint ``old`` to ``new``; returns their ids.

        Streams that a process uses are left out. Raises SpoolError if the root can't be locked.
        """
        with self._quota.lock.held():
            return adopt_streams(self._disk, self._quota, old, new)

    def status(self) -> SpoolStatus:
        """Status of all streams, read from their files and journals. Raises SpoolError."""
        streams = [_stream_status(self._disk, stream) for stream in self.streams()]
        return {
            "dir": str(self.root),
            "bytes": self._quota.used_bytes(),
            "max_bytes": self._quota.max_bytes,
            "min_free_bytes": self._quota.min_free_bytes,
            "free_bytes": self._quota.free_bytes(),
            **_sum(streams),
            "streams": streams,
        }

    def folder_of(self, endpoint: str, data_id: str) -> Path:
        """Path for a stream's folder, whether or not it exists."""
        return self.root / endpoint_folder(endpoint) / stream_folder(data_id)

    def _read_stream(self, folder: Path) -> SpooledStream:
        locked = False
        try:
            locked = not is_unlocked(folder)
            return SpooledStream(folder, load_manifest(self._disk, folder), locked)
        except SpoolError as error:
            return SpooledStream(folder, None, locked, str(error))

    def _folders(self, endpoint: str | None) -> Iterator[Path]:
        wanted = None if endpoint is None else endpoint_folder(endpoint)
        for folder in stream_folders(self.root):
            if _is_stream(folder) and wanted in (None, folder.parent.name):
                yield folder

    def _recount_unlocked_streams(self) -> None:
        # The ``usage`` files are not synced, so they may be wrong after a power cut. Recycled files of a process
        # that died would use space until their stream is opened.
        with self._quota.lock.held():
            for folder in stream_folders(self.root):
                with suppress(
                    SpoolError
                ):  # this stream can't be locked; the list of streams names the reason
                    self._recount_stream(folder)

    def _recount_stream(self, folder: Path) -> None:
        if (folder / USAGE).exists() and is_unlocked(folder):
            for recycled in recycled_in(folder):
                with suppress(OSError):
                    self._disk.unlink(recycled)
            Usage(self._disk, folder).recount()


def count_chunks(state: JournalState, on_disk: int = 0) -> ChunkCounts:
    """The counts for a journal's state. Records that a damaged journal does not mention count as pending."""
    counts = state.counts()
    pending = max(counts["pending"], on_disk)
    lost = counts["quarantined"] + counts["dropped"] + counts["purged"]
    return {
        "chunks_spooled": counts["stored"] + lost + pending,
        "chunks_uploaded": counts["stored"],
        "chunks_dropped": counts["dropped"],
        "chunks_failed": counts["quarantined"],
        "chunks_purged": counts["purged"],
        "chunks_not_uploaded": lost + pending,
        "chunks_pending": pending,
    }


def _is_stream(folder: Path) -> bool:
    return is_plain_file(folder / MANIFEST) or is_plain_file(folder / JOURNAL)


def _stream_status(disk: FileSystem, stream: SpooledStream) -> StreamStatus:
    state = JournalState()
    with suppress(SpoolError):
        state = load_journal_state(disk, stream.folder)
    on_disk = _pending_on_disk(stream.folder, state)
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
        "finalizing": state.finalizing,
        "ended": state.ended,
        "problem": stream.problem,
        **count_chunks(state, on_disk),
    }


def _pending_on_disk(folder: Path, state: JournalState) -> int:
    resolved = {index for index, chunk_state in state.states.items() if chunk_state != "pending"}
    return len(records_in(folder).keys() - resolved)


def _sum(streams: Sequence[ChunkCounts]) -> ChunkCounts:
    total = count_chunks(JournalState())
    for stream in streams:
        for key in total:
            total[key] += stream[key]  # type: ignore[literal-required]  # a loop variable is not a literal
    return total
