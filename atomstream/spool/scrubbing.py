"""The check of what an earlier process left: every record read whole before it is handed on (promise P11).

A generator, so that whoever drives it lets others have the disk after each window.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from atomstream.errors import SpoolError
from atomstream.spool.record_folder import SpooledChunk
from atomstream.spool.stream_spool import StreamSpool

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Aside:
    """A record that is damaged or can't be read; it is in quarantine."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class DiskRefused:
    """A record could be neither read nor put aside, so it is the disk that fails; asking on tries it again."""


Finding: TypeAlias = SpooledChunk | Aside | DiskRefused
"""What became of one record; a :class:`SpooledChunk` is whole."""


def scrub(stream: StreamSpool) -> Iterator[Finding | None]:
    """Check the records that wait now, lowest index first, both checksums of each.

    Yields None after each window read, so holds one window, and a finding after each record; a damaged record
    is in quarantine by then, and in the journal and the log. Records that are settled meanwhile are passed over.
    """
    for index in stream.pending():
        yield from _checked(stream, index)


def _checked(stream: StreamSpool, index: int) -> Iterator[Finding | None]:
    while stream.holds(index):
        try:
            chunk = stream.chunk(index)
            for _ in stream.windows(index):
                yield None
        except SpoolError as error:
            if stream.holds(index):
                yield _put_aside(stream, index, str(error))
        else:
            yield chunk
            return


def _put_aside(stream: StreamSpool, index: int, reason: str) -> Aside | DiskRefused:
    try:
        stream.quarantine(index, reason)
    except SpoolError as error:
        _log.warning("%s Chunk %d of stream %s is tried again.", error, index, stream.data_id)
        return DiskRefused()
    _log.error("Stream %s: chunk %d was put into quarantine: %s", stream.data_id, index, reason)
    return Aside(index, reason)
