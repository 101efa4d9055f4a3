"""The body of one PUT: a shard's pieces as a one-shot stream.

A body that can be replayed would be re-sent by the HTTP library after a reset, behind our back; this one
can't, so attempts are the uploader's alone (promise P16). No block is larger than 1 MiB and the loop gets a
turn after half a MiB, for one 41 MB block stalls the camera's loop for 70 ms (DECISIONS, "The upload body").
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from typing import Final, TypeAlias

from atomstream.errors import ConnectionFailedError, ShardError
from atomstream.protocol import CRC_HEADER
from atomstream.records import Piece

Pieces: TypeAlias = Iterable[Piece] | AsyncIterable[Piece]

BLOCK_BYTES: Final = 1 << 20

TURN_BYTES: Final = 512 << 10
"""A turn after each MiB held the loop 1 ms longer; turns after less cost more than they give."""

SMALL_BYTES: Final = 64 << 10
"""Pieces below this are gathered: a write costs more than copying them."""


class UploadBody:
    """An async iterator of blocks over ``pieces``, which together have ``nbytes`` bytes; large ones are not copied.

    ``sent`` tells of the blocks handed out so far; ``failure`` is what ``pieces`` itself
    raised (the HTTP library wraps it beyond recognition). ``on_progress`` is called at each block asked for.
    """

    def __init__(self, pieces: Pieces, nbytes: int) -> None:
        self.nbytes = nbytes
        self.sent = 0
        self.failure: Exception | None = None
        self.on_progress: Callable[[], None] = lambda: None
        self._source = aiter(pieces) if isinstance(pieces, AsyncIterable) else _as_async(iter(pieces))
        self._small: list[Piece] = []
        self._small_bytes = 0
        self._large: Piece = b""
        self._ended = False
        self._started = False
        self._until_turn = TURN_BYTES
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def complete(self) -> bool:
        """Whether every byte was handed out."""
        return self.sent == self.nbytes

    def __aiter__(self) -> AsyncIterator[Piece]:
        if self._started:
            raise ConnectionFailedError("The connection broke while a chunk was sent.")
        return self

    async def __anext__(self) -> Piece:
        self._started = True
        self.on_progress()
        block = await self._step()
        if block is None:
            raise StopAsyncIteration
        await self._take_turns(len(block))
        return block

    async def _step(self) -> Piece | None:
        self._idle.clear()
        try:
            block = await self._next_block()
            self._account(block)
        except Exception as error:
            self.failure = error
            raise
        finally:
            self._idle.set()
        return block

    async def aclose(self) -> None:
        """Close ``pieces`` where it can be closed, once the library's writer is out of it."""
        await self._idle.wait()
        close = getattr(self._source, "aclose", None)
        if close is not None:
            await close()

    def _account(self, block: Piece | None) -> None:
        total = self.sent + len(block or b"")
        if total > self.nbytes or (block is None and total < self.nbytes):
            raise ShardError(f"A shard of {self.nbytes} bytes was to be sent, but its pieces hold {total}.")
        if block is not None:
            self.sent = total

    async def _take_turns(self, nbytes: int) -> None:
        self._until_turn -= nbytes
        if self._until_turn <= 0:
            self._until_turn = TURN_BYTES
            await asyncio.sleep(0)

    async def _next_block(self) -> Piece | None:
        while not self._large and not self._ended and self._small_bytes <= BLOCK_BYTES - SMALL_BYTES:
            await self._pull()
        if self._small:  # gathered before the large piece came, so it goes first
            block, self._small, self._small_bytes = b"".join(self._small), [], 0
            return block
        return self._cut() if self._large else None

    async def _pull(self) -> None:
        piece = await anext(self._source, None)
        if piece is None:
            self._ended = True
        elif len(piece) < SMALL_BYTES:
            if piece:
                self._small.append(piece)
            self._small_bytes += len(piece)
        else:
            self._large = piece

    def _cut(self) -> Piece:
        if len(self._large) <= BLOCK_BYTES:
            block, self._large = self._large, b""
            return block
        view = memoryview(self._large)
        self._large = view[BLOCK_BYTES:]
        return view[:BLOCK_BYTES]


async def _as_async(pieces: Iterable[Piece]) -> AsyncIterator[Piece]:
    for piece in pieces:
        yield piece


def stated_crc32c(headers: Mapping[str, str]) -> int | None:
    """The CRC-32C of the body that the server states it received, or None.

    None too where the header holds something else, such as the composite that S3 gives for many parts.
    """
    value = headers.get(CRC_HEADER, "").strip()
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    return int.from_bytes(raw, "big") if len(raw) == 4 else None
