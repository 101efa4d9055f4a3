"""What the uploader carries, and who delivers it: the seam between the pipeline and the network."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal, Protocol

from atomstream.pipeline.bodies import Body
from atomstream.pipeline.gate import Permit
from atomstream.records import Piece, Receipt, Stamp, StreamSpec


def _tell_nobody(parcel: Parcel, nbytes: int) -> None:
    """Nobody follows how a parcel's bytes leave."""


@dataclass(slots=True, eq=False)
class Parcel:
    """One encoded chunk, ready to go, wherever its bytes are.

    ``permit`` is what it holds of the gate's memory, None once its bytes are on disk only. ``durable`` says
    that the spool has it: then it may leave memory, and is never dropped. ``on_sent(parcel, nbytes)`` learns how
    its bytes leave, and takes them back (a negative number) when an attempt begins anew.
    """

    spec: StreamSpec
    index: int
    dims: tuple[int, int, int]
    dtype: Literal["uint8", "uint16"]
    stamp: Stamp
    nbytes: int
    crc32c: int
    body: Body
    permit: Permit | None = None
    durable: bool = False
    recovered: bool = False
    attempts: int = field(default=0)
    sent: int = 0
    on_sent: Callable[[Parcel, int], None] = _tell_nobody

    def __lt__(self, other: Parcel) -> bool:
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


class Courier(Protocol):
    """Delivers one parcel in one attempt.

    Raises:
        ServiceError: as mapped by the service; ``StreamGoneError`` where the server does not know the stream.
        RecordCorruptError: its record on disk is damaged.
    """

    async def deliver(self, parcel: Parcel) -> Receipt:
        """Ask for a fresh URL, send the body, return the server's word."""
        ...
