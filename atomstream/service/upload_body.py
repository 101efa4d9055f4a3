"""The body of one PUT request: the pieces of a shard as a stream that can be read once.

aiohttp would send a body that can be read twice again after a connection reset, without notice. This body can't be
read twice, so only the uploader repeats attempts, and every attempt is counted and delayed. No block is larger than
1 MiB, and other tasks run after each half MiB: a single block of 41 MB stops the camera's event loop for 70 ms
(measured; see docs/decisions/0005-upload-body.md).
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
"""The largest block, in bytes."""

YIELD_BYTES: Final = 512 << 10
"""Other tasks run after this many bytes. With 1 MiB the loop was blocked 1 ms longer; less costs more than it gains."""

SMALL_BYTES: Final = 64 << 10
"""Smaller pieces are joined: one write costs more than copying them."""


class UploadBody:
    """An async iterator over ``pieces`` in blocks. Large pieces are not copied.

    ``nbytes`` is the size of all pieces; ``sent`` is the number of bytes handed out so far. ``failure`` is an error
    that ``pieces`` raised (aiohttp would hide it). ``on_progress`` is called when a block is requested.
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
        self._until_yield = YIELD_BYTES
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def complete(self) -> bool:
        """True if every byte was handed out."""
        return self.sent == self.nbytes

    def __aiter__(self) -> AsyncIterator[Piece]:
        if self._started:
            raise ConnectionFailedError("The connection broke while a chunk was sent.")
        return self

    async def __anext__(self) -> Piece:
        self._started = True
        self.on_progress()
        block = await self._next_checked()
        if block is None:
            raise StopAsyncIteration
        await self._yield_to_loop(len(block))
        return block

    async def _next_checked(self) -> Piece | None:
        self._idle.clear()
        try:
            block = await self._next_block()
            self._check_size(block)
        except Exception as error:
            self.failure = error
            raise
        finally:
            self._idle.set()
        return block

    async def aclose(self) -> None:
        """Close ``pieces`` if it can be closed, after aiohttp's writer has left it."""
        await self._idle.wait()
        close = getattr(self._source, "aclose", None)
        if close is not None:
            await close()

    def _check_size(self, block: Piece | None) -> None:
        total = self.sent + len(block or b"")
        if total > self.nbytes or (block is None and total < self.nbytes):
            raise ShardError(f"A shard should have {self.nbytes} bytes, but its pieces have {total}.")
        if block is not None:
            self.sent = total

    async def _yield_to_loop(self, nbytes: int) -> None:
        self._until_yield -= nbytes
        if self._until_yield <= 0:
            self._until_yield = YIELD_BYTES
            await asyncio.sleep(0)

    async def _next_block(self) -> Piece | None:
        while not self._large and not self._ended and self._small_bytes <= BLOCK_BYTES - SMALL_BYTES:
            await self._pull()
        if self._small:  # these precede the large piece
            block, self._small, self._small_bytes = b"".join(self._small), [], 0
            return block
        return self._next_part() if self._large else None

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

    def _next_part(self) -> Piece:
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
    """The CRC-32C of the received body that the server states in its reply, or None.

    Also None if the header contains anything else, for example the composite checksum of S3 for several parts.
    """
    value = headers.get(CRC_HEADER, "").strip()
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    return int.from_bytes(raw, "big") if len(raw) == 4 else None
