"""What the uploader carries, and who delivers it: the seam between the pipeline and the network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from atomstream.pipeline.memory_limiter import Permit
from atomstream.records import Piece, Receipt, StreamSpec, Timestamp
from atomstream.spool import StreamSpool
from atomstream.system.scheduling import split_piece

# Where a parcel's bytes are: in memory, or in the spool; each attempt opens them afresh.

CUT_BYTES: Final = 512 << 10
"""About what a socket takes at once: the rest of a larger write would be copied, and moved at each send."""


class Payload(Protocol):
    """A shard's bytes."""

    def open(self) -> AsyncGenerator[Piece, None]:
        """A fresh one-shot iterator over them: nothing in between can replay it (promise P16)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class MemoryPayload:
    """The pieces as the encoder made them; nothing is joined or copied."""

    pieces: tuple[Piece, ...]

    async def open(self) -> AsyncGenerator[Piece, None]:
        """The pieces in small cuts, so that what has left is known as it leaves."""
        for piece in self.pieces:
            for part in split_piece(piece, CUT_BYTES):
                yield part


@dataclass(frozen=True, slots=True, eq=False)
class SpoolPayload:
    """A record of the spool, read through small windows in a thread, its CRC-32C checked as it goes.

    Raises RecordCorruptError while iterated, before the last window is handed out (promise P11).
    """

    spool: StreamSpool
    index: int
    readers: Executor

    async def open(self) -> AsyncGenerator[Piece, None]:
        """One window after the other; never more than one in memory."""
        windows = self.spool.read_windows(self.index)
        reading = self.readers.submit(next, windows, b"")
        try:
            while window := await asyncio.wrap_future(reading):
                yield window
                reading = self.readers.submit(next, windows, b"")
        finally:
            # Who is cancelled leaves a thread that still reads: its file is closed once it is out of there.
            reading.add_done_callback(lambda _: _close(windows))


def _close(windows: Iterator[bytes]) -> None:
    close = getattr(windows, "close", None)
    if close is not None:
        close()


def _tell_nobody(parcel: Upload, nbytes: int) -> None:
    """Nobody follows how a parcel's bytes leave."""


@dataclass(slots=True, eq=False)
class Upload:
    """One encoded chunk, ready to go, wherever its bytes are.

    ``permit`` is what it holds of the gate's memory, None once its bytes are on disk only. ``durable`` says
    that the spool has it: then it may leave memory, and is never dropped. ``on_sent(parcel, nbytes)`` learns how
    its bytes leave, and takes them back (a negative number) when an attempt begins anew.
    """

    spec: StreamSpec
    index: int
    dims: tuple[int, int, int]
    dtype: Literal["uint8", "uint16"]
    stamp: Timestamp
    nbytes: int
    crc32c: int
    body: Payload
    permit: Permit | None = None
    durable: bool = False
    recovered: bool = False
    attempts: int = field(default=0)
    sent: int = 0
    on_sent: Callable[[Upload, int], None] = _tell_nobody

    def __lt__(self, other: Upload) -> bool:
        return self.index < other.index

    async def open(self) -> AsyncGenerator[Piece, None]:
        """The bytes for one attempt; a piece counts as sent once the next one is asked for."""
        self._count(-self.sent)
        async with aclosing(self.body.open()) as pieces:
            async for piece in pieces:
                yield piece
                self._count(len(piece))

    def _count(self, nbytes: int) -> None:
        self.sent += nbytes
        self.on_sent(self, nbytes)

    def release(self) -> None:
        """Give its memory back; harmless when repeated."""
        if self.permit is not None:
            self.permit.release()
            self.permit = None


class UploadTransport(Protocol):
    """Delivers one parcel in one attempt.

    Raises:
        ServiceError: as mapped by the service; ``StreamGoneError`` where the server does not know the stream.
        RecordCorruptError: its record on disk is damaged.
    """

    async def deliver(self, parcel: Upload) -> Receipt:
        """Ask for a fresh URL, send the body, return the server's word."""
        ...
