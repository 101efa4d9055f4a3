"""The body of a PUT: the same bytes in bounded blocks, once."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomstream.errors import ConnectionFailedError, ShardError
from atomstream.records import Piece
from atomstream.service.upload_body import BLOCK_BYTES, SMALL_BYTES, UploadBody, stated_crc32c

sizes = st.one_of(
    st.integers(0, 300),
    st.sampled_from([SMALL_BYTES - 1, SMALL_BYTES, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1]),
    st.integers(0, 3 * BLOCK_BYTES),
)


def piece(size: int, seed: int) -> bytes:
    """Bytes that differ by place and piece."""
    return (bytes(range(256)) * (size // 256 + 2))[seed % 256 :][:size]


async def stream(pieces: list[Piece]) -> AsyncIterator[Piece]:
    """The pieces, one at a time."""
    for one in pieces:
        yield one


@given(st.lists(sizes, max_size=8), st.booleans(), st.booleans())
def test_body_is_the_pieces_in_blocks(lengths: list[int], views: bool, streamed: bool) -> None:
    """Whatever the pieces, the blocks joined are equal to them, and none is over 1 MiB."""
    pieces: list[Piece] = [piece(size, k) for k, size in enumerate(lengths)]
    expected = b"".join(pieces)
    if views:
        pieces = [memoryview(one) for one in pieces]

    async def run() -> None:
        body = UploadBody(stream(pieces) if streamed else pieces, len(expected))
        blocks = [block async for block in body]
        await body.aclose()
        assert b"".join(blocks) == expected
        assert all(0 < len(block) <= BLOCK_BYTES for block in blocks)
        assert (body.sent, body.complete) == (len(expected), True)

    asyncio.run(run())


async def test_small_pieces_are_gathered() -> None:
    """10 000 small pieces leave in a few blocks, and a large one is not joined to them."""
    large = b"L" * SMALL_BYTES
    pieces = [*[b"s" * 1000] * 10_000, large, b"tail"]
    blocks = [block async for block in UploadBody(pieces, sum(map(len, pieces)))]
    assert len(blocks) <= 14
    assert blocks[-2] is large
    assert blocks[-1] == b"tail"


async def test_the_loop_gets_its_turn_each_mebibyte() -> None:
    """While a large shard goes out, other tasks run at least once a MiB."""
    turns = 0
    done = asyncio.Event()

    async def other() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    body = UploadBody([memoryview(bytes(8 * BLOCK_BYTES))], 8 * BLOCK_BYTES)
    async for _ in body:
        pass
    done.set()
    await task
    assert turns >= 8


@pytest.mark.parametrize("stated", [9, 11])
async def test_wrong_length_is_an_error(stated: int) -> None:
    """Pieces that hold more or fewer bytes than stated never make a request that looks whole."""
    body = UploadBody([b"12345", b"67890"], stated)
    with pytest.raises(ShardError, match="its pieces hold 10"):
        _ = [block async for block in body]
    assert isinstance(body.failure, ShardError)


async def test_body_can_not_be_replayed() -> None:
    """A second iteration fails, so nothing below us can send a body twice."""
    body = UploadBody([b"x"], 1)
    _ = [block async for block in body]
    with pytest.raises(ConnectionFailedError):
        aiter(body)


def test_stated_checksum_is_read() -> None:
    """S3's header is four bytes, big endian, in base64; anything else is no statement."""
    header = "x-amz-checksum-crc32c"
    text = base64.b64encode((0x01020304).to_bytes(4, "big")).decode()
    assert stated_crc32c({header: text}) == 0x01020304
    for odd in ("", "AAAA", text + "-3", "?", "é"):
        assert stated_crc32c({header: odd}) is None
    assert stated_crc32c({}) is None
