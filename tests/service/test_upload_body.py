"""The body of a PUT: the same bytes in bounded blocks, readable once."""

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
    """Bytes that depend on position and piece."""
    return (bytes(range(256)) * (size // 256 + 2))[seed % 256 :][:size]


async def stream(pieces: list[Piece]) -> AsyncIterator[Piece]:
    """The pieces as an async iterator."""
    for one in pieces:
        yield one


@given(st.lists(sizes, max_size=8), st.booleans(), st.booleans())
def test_body_is_the_pieces_in_blocks(lengths: list[int], views: bool, streamed: bool) -> None:
    """For any pieces, the joined blocks equal the joined pieces, and no block is larger than 1 MiB."""
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


async def test_small_pieces_are_joined() -> None:
    """10 000 small pieces are sent in a few blocks, and a large one is not joined to them."""
    large = b"L" * SMALL_BYTES
    pieces = [*[b"s" * 1000] * 10_000, large, b"tail"]
    blocks = [block async for block in UploadBody(pieces, sum(map(len, pieces)))]
    assert len(blocks) <= 14
    assert blocks[-2] is large
    assert blocks[-1] == b"tail"


async def test_other_tasks_run_during_an_upload() -> None:
    """While a large shard is sent, other tasks run at least once per MiB."""
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
    """Pieces with more or fewer bytes than stated never give a complete request."""
    body = UploadBody([b"12345", b"67890"], stated)
    with pytest.raises(ShardError, match="its pieces have 10"):
        _ = [block async for block in body]
    assert isinstance(body.failure, ShardError)


async def test_body_can_be_read_once_only() -> None:
    """A second iteration fails, so the HTTP library can't send a body twice."""
    body = UploadBody([b"x"], 1)
    _ = [block async for block in body]
    with pytest.raises(ConnectionFailedError):
        aiter(body)


def test_stated_checksum_is_parsed() -> None:
    """The header of S3 is base64 of four big-endian bytes. Anything else gives None."""
    header = "x-amz-checksum-crc32c"
    text = base64.b64encode((0x01020304).to_bytes(4, "big")).decode()
    assert stated_crc32c({header: text}) == 0x01020304
    for odd in ("", "AAAA", text + "-3", "?", "é"):
        assert stated_crc32c({header: odd}) is None
    assert stated_crc32c({}) is None
