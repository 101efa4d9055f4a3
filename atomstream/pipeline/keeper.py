"""Keeps chunks on disk while they wait for the server: the spool's stage between encoder and uploader.

The order of steps is the promise: a record is whole and synced before its chunk counts as durable, and its
end is in the journal before it goes (DECISIONS, "State"). Where the disk fails the stream goes on from memory,
with a warning, and the disk is asked again later (promise P13).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Literal

from atomstream.errors import SpoolError
from atomstream.pipeline.bodies import InMemory, OnDisk
from atomstream.pipeline.depot import Depot
from atomstream.pipeline.parcel import Parcel
from atomstream.pipeline.stream import Stream
from atomstream.records import Shard
from atomstream.spool import Entry, Geometry, StreamSpool

log = logging.getLogger("atomstream.spool")

AGAIN_S: Final = 5.0
WARN_EVERY_S: Final = 30.0


class Keeper:
    """Disk jobs for chunks, in the depot's thread; its verbs only submit and never wait.

    ``kept(stream, parcel)`` is called in the depot's thread once a parcel's record is durable.
    """

    def __init__(self, depot: Depot, readers: int, kept: Callable[[Stream, Parcel], None]) -> None:
        self._depot = depot
        self._kept = kept
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="atomstream-read")
        self._lock = threading.Lock()
        self._warned_at = float("-inf")
        self.unkept = 0
        """Chunks whose record could not be written yet."""

    def close(self) -> None:
        """Let the reading threads end."""
        self._readers.shutdown(wait=True)

    def accepted(self, stream: Stream, index: int) -> None:
        """Journal that a chunk was taken."""
        if stream.spool is not None:
            self._journal(stream.spool, Entry("accepted", index))

    def keep(self, stream: Stream, parcel: Parcel, shard: Shard) -> None:
        """Write the chunk's record as soon as the disk gets to it; then it is durable."""
        spool = stream.spool
        if spool is not None:
            self._depot.submit(lambda: self._put(stream, spool, parcel, shard))

    def _put(self, stream: Stream, spool: StreamSpool, parcel: Parcel, shard: Shard) -> None:
        try:
            _describe(spool, shard)
            written = spool.put(shard)
        except SpoolError as error:
            self._warn(error)
            self.unkept += 1
            self._depot.submit_later(lambda: self._put_again(stream, spool, parcel, shard), AGAIN_S)
            return
        if written is not None:
            self._kept(stream, parcel)

    def _put_again(self, stream: Stream, spool: StreamSpool, parcel: Parcel, shard: Shard) -> None:
        self.unkept -= 1
        if not stream.ledger.is_settled(parcel.index):
            self._put(stream, spool, parcel, shard)

    def let_go(self, parcel: Parcel) -> None:
        """Give a parcel's memory back; harmless when repeated."""
        parcel.body = InMemory(())
        parcel.release()

    def evict(self, stream: Stream, parcel: Parcel) -> None:
        """On the loop: from now on the chunk is read back from disk; its memory is free."""
        if stream.spool is not None and parcel.durable and parcel.permit is not None:
            self.let_go(parcel)
            parcel.body = self.on_disk(stream.spool, parcel.index)

    def on_disk(self, spool: StreamSpool, index: int) -> OnDisk:
        """The bytes of a record."""
        return OnDisk(spool, index, self._readers)

    def forget(self, stream: Stream, index: int) -> None:
        """The server has the chunk: journal it, then remove its record."""
        self._settle(stream, lambda spool: spool.forget(index))

    def learnt(self, stream: Stream, indices: list[int]) -> None:
        """Journal that the server has chunks of which the journal did not know."""

        def note(spool: StreamSpool) -> None:
            for index in indices:
                spool.journal.append(Entry("stored", index))

        self._settle(stream, note)

    def discard(self, stream: Stream, index: int, kind: Literal["dropped", "purged"], reason: str) -> None:
        """The chunk was given up by policy."""
        self._settle(stream, lambda spool: spool.discard(index, kind, reason))

    def quarantine(self, stream: Stream, parcel: Parcel, reason: str) -> None:
        """Put the chunk's record aside under its name, for a person to look at."""
        self._settle(stream, lambda spool: spool.quarantine(parcel.index, reason))

    def _settle(self, stream: Stream, step: Callable[[StreamSpool], None]) -> None:
        spool = stream.spool
        if spool is not None:
            self._depot.submit(lambda: self._try(lambda: step(spool)))

    def _journal(self, spool: StreamSpool, entry: Entry) -> None:
        self._depot.submit(lambda: self._try(lambda: spool.journal.append(entry)))

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except SpoolError as error:
            self._warn(error)

    def _warn(self, error: SpoolError) -> None:
        with self._lock:
            now = time.monotonic()
            if now < self._warned_at + WARN_EVERY_S:
                log.info("%s", error)
                return
            self._warned_at = now
        log.warning("%s", error)


def _describe(spool: StreamSpool, shard: Shard) -> None:
    """Write down height, width and dtype with the stream's first chunk."""
    if spool.manifest.geometry is None:
        _, height, width = shard.dims
        geometry = Geometry(height, width, shard.dtype)
        spool.describe(type(spool.manifest)(spool.manifest.endpoint, spool.manifest.spec, geometry))
