"""What is in the spool, for ``spool_status()`` and ``atomstream spool list``: told by files and journals alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from atomstream.errors import SpoolError
from atomstream.spool.bounds import Bounds, usage_of
from atomstream.spool.disk import Disk
from atomstream.spool.history import StreamHistory
from atomstream.spool.names import QUARANTINE, records_in
from atomstream.spool.opening import history_of

if TYPE_CHECKING:
    from atomstream.spool.root import FoundStream


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


def spool_status(disk: Disk, bounds: Bounds, found: Sequence[FoundStream]) -> SpoolStatus:
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


def counts_of(history: StreamHistory, on_disk: int = 0) -> ChunkCounts:
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


def _stream_status(disk: Disk, stream: FoundStream) -> StreamStatus:
    history = StreamHistory()
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
        **counts_of(history, on_disk),
    }


def _pending_on_disk(folder: Path, history: StreamHistory) -> int:
    settled = {index for index, state in history.states.items() if state != "pending"}
    return len(records_in(folder).keys() - settled)


def _sum(streams: Sequence[ChunkCounts]) -> ChunkCounts:
    total = counts_of(StreamHistory())
    for stream in streams:
        for key in total:
            total[key] += stream[key]  # type: ignore[literal-required]
    return total
