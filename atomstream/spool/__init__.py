"""The spool: what a client holds on disk until the server has it; blocking, and safe against crashes.

Start at :class:`Spool` (root.py) for the whole and :class:`StreamSpool` for one stream.
"""

from __future__ import annotations

from atomstream.spool.journal import Entry, EntryKind, Journal
from atomstream.spool.locks import load_locks
from atomstream.spool.record import RecordHead, Written
from atomstream.spool.record_store import SpooledChunk
from atomstream.spool.recovery import Aside, DiskRefused, Finding, scrub
from atomstream.spool.spool import ChunkCounts, FoundStream, Spool, SpoolStatus, StreamStatus, counts_of
from atomstream.spool.stream_spool import StreamSpool
from atomstream.spool.stream_state import Geometry, StreamHistory, StreamManifest
from atomstream.system.files import Disk

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
