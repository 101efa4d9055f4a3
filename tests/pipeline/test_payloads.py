"""The payload of an upload, and what happens to its source when an attempt ends early."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from atomstream.pipeline.upload import CUT_BYTES, MemoryPayload, SpoolPayload


class SlowRecord:
    """A record whose second window is read only after ``go_on``. ``closed`` is set when its file is closed."""

    def __init__(self) -> None:
        self.reading = threading.Event()
        self.go_on = threading.Event()
        self.closed = threading.Event()

    def read_windows(self, index: int) -> Iterator[bytes]:
        try:
            yield b"first"
            self.reading.set()
            self.go_on.wait(60)
            yield b"second"
        finally:
            self.closed.set()


@pytest.fixture
def readers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


async def send(body: SpoolPayload, sent: list[Any]) -> None:
    pieces = body.open()
    try:
        while (piece := await anext(pieces, None)) is not None:
            sent.append(piece)
    finally:
        await pieces.aclose()


def on_disk(record: SlowRecord, readers: ThreadPoolExecutor) -> SpoolPayload:
    return SpoolPayload(SimpleNamespace(read_windows=record.read_windows), 0, readers)  # type: ignore[arg-type]


async def test_cancelled_while_a_thread_reads(readers: ThreadPoolExecutor) -> None:
    """An attempt that is cancelled during a read ends as cancelled, and its file is closed afterwards."""
    record, sent = SlowRecord(), list[Any]()
    attempt = asyncio.create_task(send(on_disk(record, readers), sent))
    await asyncio.to_thread(record.reading.wait, 60)
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert not record.closed.is_set()
    record.go_on.set()
    assert await asyncio.to_thread(record.closed.wait, 60)
    assert sent == [b"first"]


async def test_all_windows_are_read_then_closed(readers: ThreadPoolExecutor) -> None:
    """Every window is read once, then the file is closed."""
    record, sent = SlowRecord(), list[Any]()
    record.go_on.set()
    await send(on_disk(record, readers), sent)
    assert sent == [b"first", b"second"]
    assert record.closed.is_set()


async def test_large_pieces_are_split() -> None:
    """A piece of many MB is sent in small parts of the same memory, in order."""
    piece = bytes(range(256)) * (3 * CUT_BYTES // 256) + b"end"
    cuts = [cut async for cut in MemoryPayload((b"head", piece)).open()]
    assert b"".join(cuts) == b"head" + piece
    assert max(map(len, cuts)) <= CUT_BYTES
