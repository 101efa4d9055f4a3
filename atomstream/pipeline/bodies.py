"""Where a parcel's bytes are: in memory, or in the spool; each attempt opens them afresh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, Protocol

from atomstream.records import Piece
from atomstream.shard import cut
from atomstream.spool import StreamSpool

CUT_BYTES: Final = 512 << 10
"""About what a socket takes at once: the rest of a larger write would be copied, and moved at each send."""


class Body(Protocol):
    """A shard's bytes."""

    def open(self) -> AsyncGenerator[Piece, None]:
        """A fresh one-shot iterator over them: nothing in between can replay it (promise P16)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class InMemory:
    """The pieces as the encoder made them; nothing is joined or copied."""

    pieces: tuple[Piece, ...]

    async def open(self) -> AsyncGenerator[Piece, None]:
        """The pieces in small cuts, so that what has left is known as it leaves."""
        for piece in self.pieces:
            for part in cut(piece, CUT_BYTES):
                yield part


@dataclass(frozen=True, slots=True, eq=False)
class OnDisk:
    """A record of the spool, read through small windows in a thread, its CRC-32C checked as it goes.

    Raises RecordCorruptError while iterated, before the last window is handed out (promise P11).
    """

    spool: StreamSpool
    index: int
    readers: Executor

    async def open(self) -> AsyncGenerator[Piece, None]:
        """One window after the other; never more than one in memory."""
        windows = self.spool.windows(self.index)
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
