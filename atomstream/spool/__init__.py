"""The spool: what a client holds on disk until the server has it; blocking, and safe against crashes.

Start at :class:`Spool` (root.py) for the whole and :class:`StreamSpool` for one stream.
"""

from __future__ import annotations

from atomstream.spool.age import Written
from atomstream.spool.disk import Disk
from atomstream.spool.entries import Entry, EntryKind
from atomstream.spool.history import StreamHistory
from atomstream.spool.journal import Journal
from atomstream.spool.locks import load_locks
from atomstream.spool.manifest import Geometry, StreamManifest
from atomstream.spool.record import RecordHead
from atomstream.spool.record_folder import SpooledChunk
from atomstream.spool.root import FoundStream, Spool
from atomstream.spool.scrubbing import Aside, DiskRefused, Finding, scrub
from atomstream.spool.status import ChunkCounts, SpoolStatus, StreamStatus, counts_of
from atomstream.spool.stream_spool import StreamSpool

__all__ = [
    "Aside",
    "ChunkCounts",
    "Disk",
    "DiskRefused",
    "Entry",
    "EntryKind",
    "Finding",
    "FoundStream",
    "Geometry",
    "Journal",
    "RecordHead",
    "Spool",
    "SpoolStatus",
    "SpooledChunk",
    "StreamHistory",
    "StreamManifest",
    "StreamSpool",
    "StreamStatus",
    "Written",
    "counts_of",
    "load_locks",
    "scrub",
]
