"""What the uploader carries, and who delivers it: the seam between the pipeline and the network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from atomstream.records import Piece, Receipt, Stamp, StreamSpec


@dataclass(slots=True, eq=False)
class Parcel:
    """One encoded chunk, ready to go, wherever its bytes are.

    ``open_body`` gives a fresh one-shot iterator of the shard's bytes for each attempt: nothing in between
    can replay it, so that attempts are ours alone (promise P16).
    """

    spec: StreamSpec
    index: int
    dims: tuple[int, int, int]
    dtype: Literal["uint8", "uint16"]
    stamp: Stamp
    nbytes: int
    open_body: Callable[[], AsyncIterator[Piece]]
    recovered: bool = False
    attempts: int = field(default=0)

    def __lt__(self, other: Parcel) -> bool:
        return self.index < other.index


class Courier(Protocol):
    """Delivers one parcel in one attempt.

    Raises:
        ServiceError: as mapped by the service; ``StreamGoneError`` where the server does not know the stream.
    """

    async def deliver(self, parcel: Parcel) -> Receipt:
        """Ask for a fresh URL, send the body, return the server's word."""
        ...
