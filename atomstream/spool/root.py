"""The spool as a whole: its root folder, the streams in it, and the bounds that all processes share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from atomstream.config import MIB, normalise_endpoint
from atomstream.errors import SpoolError
from atomstream.records import StreamSpec
from atomstream.spool.bounds import Account, Bounds
from atomstream.spool.disk import Disk, disk_errors
from atomstream.spool.manifest import Geometry, StreamManifest
from atomstream.spool.names import (
    JOURNAL,
    MANIFEST,
    USAGE,
    endpoint_folder,
    spares_in,
    stream_folder,
    stream_folders,
)
from atomstream.spool.opening import begin, enter, is_free, manifest_of
from atomstream.spool.status import SpoolStatus, spool_status
from atomstream.spool.stream_spool import StreamSpool


@dataclass(frozen=True, slots=True)
class FoundStream:
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
        disk: Disk | None = None,
    ) -> None:
        self.root: Final = root
        self.retention_s: Final = retention_s
        self._disk = disk or Disk()
        with disk_errors("make its folder", root):
            self._disk.make_folder(root)
            self._bounds = Bounds(self._disk, root, max_bytes, min_free_bytes)
        self._recount_free_streams()

    @property
    def max_bytes(self) -> int:
        """The bound of all records together."""
        return self._bounds.max_bytes

    def room_bytes(self) -> int:
        """Bytes of records that still fit, by the bound and by the disk. Raises SpoolError."""
        with self._bounds.lock.held(), disk_errors("look for room", self.root):
            by_bound = self._bounds.max_bytes - self._bounds.used_bytes()
            return max(0, min(by_bound, self._bounds.free_bytes() - self._bounds.min_free_bytes))

    def claim(self, endpoint: str, spec: StreamSpec, geometry: Geometry | None = None) -> StreamSpool:
        """Make and hold the folder of a new stream.

        Raises:
            SpoolLockedError: another process holds it. SpoolError: it is there already, or the disk refused.
        """
        manifest = StreamManifest(normalise_endpoint(endpoint), spec, geometry)
        with self._bounds.lock.held():
            return begin(self._disk, self.folder_of(endpoint, spec.data_id), self._bounds, manifest)

    def open_existing(self, endpoint: str, data_id: str) -> StreamSpool:
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

    def found(self, endpoint: str | None = None) -> list[FoundStream]:
        """All streams in the spool, of one endpoint if given, in the order of their folders.

        Raises:
            SpoolError: the disk refused.
        """
        with self._bounds.lock.held():
            return [self._look(folder) for folder in self._folders(endpoint)]

    def recoverable(self, endpoint: str) -> list[FoundStream]:
        """The streams of an endpoint that nobody holds and that can be opened."""
        return [stream for stream in self.found(endpoint) if stream.manifest and not stream.locked]

    def status(self) -> SpoolStatus:
        """What is in the spool, by its files and journals. Raises SpoolError."""
        return spool_status(self._disk, self._bounds, self.found())

    def folder_of(self, endpoint: str, data_id: str) -> Path:
        """Where a stream is, or would be."""
        return self.root / endpoint_folder(endpoint) / stream_folder(data_id)

    def _look(self, folder: Path) -> FoundStream:
        locked = not is_free(folder)
        try:
            return FoundStream(folder, manifest_of(self._disk, folder), locked)
        except SpoolError as error:
            return FoundStream(folder, None, locked, str(error))

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
                    Account(self._disk, folder).recount()


def _is_stream(folder: Path) -> bool:
    return (folder / MANIFEST).exists() or (folder / JOURNAL).exists()
