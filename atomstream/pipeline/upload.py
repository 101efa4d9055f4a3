"""One encoded chunk that is to be uploaded, where its bytes are, and the interface that delivers it.

This is the boundary between the pipeline and the network.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, Protocol

from atomstream.pipeline.memory_limiter import Permit
from atomstream.records import Piece, Receipt, ShardInfo, StreamSpec
from atomstream.spool import StreamSpool
from atomstream.system.scheduling import split_piece
from atomstream.system.tracing import OpenSpans

CUT_BYTES: Final = 512 << 10
"""Largest piece in bytes: about as much as a socket accepts at once. The rest of a larger write would be copied, and
moved at each send."""


class Payload(Protocol):
    """The bytes of a shard, in memory or on disk."""

    def open(self) -> AsyncGenerator[Piece, None]:
        """A new iterator over the bytes for one attempt. It can be read once only, so no library can replay it."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class MemoryPayload:
    """The pieces that the encoder made. They are neither joined nor copied."""

    pieces: tuple[Piece, ...]

    async def open(self) -> AsyncGenerator[Piece, None]:
        """The pieces in parts of at most ``CUT_BYTES``, so that progress is counted while a large piece is sent."""
        for piece in self.pieces:
            for part in split_piece(piece, CUT_BYTES):
                yield part


@dataclass(frozen=True, slots=True, eq=False)
class SpoolPayload:
    """A record of the spool. A thread of ``readers`` reads it in small windows and checks its CRC-32C.

    A damaged record raises RecordCorruptError during the iteration, before the last window is returned. So the
    server never gets a complete body with wrong bytes.
    """

    spool: StreamSpool
    index: int
    readers: Executor

    async def open(self) -> AsyncGenerator[Piece, None]:
        """The windows in order; only one is in memory at a time."""
        windows = self.spool.read_windows(self.index)
        reading = self.readers.submit(next, windows, b"")
        try:
            while window := await asyncio.wrap_future(reading):
                yield window
                reading = self.readers.submit(next, windows, b"")
        finally:
            # After a cancellation a thread may still be reading: close the file only when it has finished.
            reading.add_done_callback(lambda _: _close(windows))


def _close(windows: Iterator[bytes]) -> None:
    close = getattr(windows, "close", None)
    if close is not None:
        close()


def _ignore_sent(upload: Upload, nbytes: int) -> None:
    """The default of ``Upload.on_sent``: progress is not counted."""


@dataclass(slots=True, eq=False)
class Upload:
    """One encoded chunk that waits for its upload or is being uploaded.

    ``permit`` reserves its memory; it is None once the bytes are on disk only. ``durable`` is True once the spool
    has the chunk: then its memory may be freed, and it is never dropped. ``on_sent(upload, nbytes)`` is called as its
    bytes are sent. If an attempt starts from the beginning, it is called with a negative number first.
    """

    spec: StreamSpec
    info: ShardInfo
    payload: Payload
    permit: Permit | None = None
    durable: bool = False
    recovered: bool = False
    attempts: int = field(default=0)
    sent: int = 0
    spans: OpenSpans | None = None
    """Contains the span of the chunk; None for one of an earlier process."""
    on_sent: Callable[[Upload, int], None] = _ignore_sent

    @property
    def index(self) -> int:
        """The index of the chunk in its stream."""
        return self.info.index

    def __lt__(self, other: Upload) -> bool:
        return self.info.index < other.info.index

    async def open(self) -> AsyncGenerator[Piece, None]:
        """The bytes for one attempt. A piece counts as sent when the next one is requested."""
        self._count(-self.sent)
        async with aclosing(self.payload.open()) as pieces:
            async for piece in pieces:
                yield piece
                self._count(len(piece))

    def _count(self, nbytes: int) -> None:
        self.sent += nbytes
        self.on_sent(self, nbytes)

    def release(self) -> None:
        """Release the memory permit. Repeated calls have no effect."""
        if self.permit is not None:
            self.permit.release()
            self.permit = None


class UploadTransport(Protocol):
    """Delivers uploads to a server, one attempt per call."""

    async def deliver(self, upload: Upload) -> Receipt:
        """Request a new upload URL, send the bytes, and return what the server confirmed.

        Raises:
            ServiceError: the request failed. StreamGoneError: the server has no such stream.
            RecordCorruptError: the record on disk is damaged.
        """
        ...
