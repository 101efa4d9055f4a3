"""The spool: encoded chunks on disk until the server has stored them. Blocking and crash-safe.

:class:`Spool` is the whole spool, :class:`StreamSpool` the folder of one stream.
"""

from __future__ import annotations

from atomstream.spool.journal import EntryKind, Journal, JournalEntry
from atomstream.spool.locks import load_locks
from atomstream.spool.record import RecordHeader, WriteTime
from atomstream.spool.record_store import SpooledChunk
from atomstream.spool.recovery import DiskFailed, Quarantined, VerifyResult, verify_records
from atomstream.spool.spool import Spool, SpooledStream, SpoolStatus, StreamStatus, count_chunks
from atomstream.spool.stream_spool import StreamSpool
from atomstream.spool.stream_state import (
    Geometry,
    JournalState,
    LateRegistration,
    LateSignals,
    StreamManifest,
)
from atomstream.system.files import FileSystem

__all__ = [
    "DiskFailed",
    "EntryKind",
    "FileSystem",
    "Geometry",
    "Journal",
    "JournalEntry",
    "JournalState",
    "LateRegistration",
    "LateSignals",
    "Quarantined",
    "RecordHeader",
    "Spool",
    "SpoolStatus",
    "SpooledChunk",
    "SpooledStream",
    "StreamManifest",
    "StreamSpool",
    "StreamStatus",
    "VerifyResult",
    "WriteTime",
    "count_chunks",
    "load_locks",
    "verify_records",
]
