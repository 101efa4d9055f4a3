"""What ``push`` does when the memory limit is reached: it waits, raises or drops (``on_full``)."""

from __future__ import annotations

import asyncio

import pytest

from atomstream.errors import BufferFullError
from tests.pipeline.transports import ONE, FakeTransport, MakePipeline, chunk_request, drained, push_all, spec


async def test_push_waits_for_the_network(make: MakePipeline, transport: FakeTransport) -> None:
    """If the server does not answer, push waits once the memory limit is reached, and continues with the server."""
    pipeline = make(buffer_bytes=ONE + 2000)
    stream = pipeline.open(spec())
    transport.hold()
    pushing = asyncio.create_task(push_all(pipeline, stream, 40))
    while not pipeline.statistics().pushes_waiting:
        await asyncio.sleep(0)
    assert not pushing.done()
    transport.release()
    await pushing
    await drained(stream)
    assert len(transport.stored) == 40


async def test_a_wait_can_have_a_timeout(make: MakePipeline, transport: FakeTransport) -> None:
    """full_timeout_s ends the wait with an error; no index is used (P8)."""
    pipeline = make(buffer_bytes=ONE, full_timeout_s=0.01)
    stream = pipeline.open(spec())
    transport.hold()
    await pipeline.push(stream, chunk_request(0))
    with pytest.raises(BufferFullError, match=r"full_timeout_s=0\.01 ran out"):
        await pipeline.push(stream, chunk_request(1))
    assert not stream.ledger.contains(1)
    transport.release()
    await drained(stream)


async def test_raise_uses_no_index(make: MakePipeline, transport: FakeTransport) -> None:
    """on_full='raise' raises at once; the same index is accepted once there is memory (P8)."""
    pipeline = make(buffer_bytes=ONE, on_full="raise")
    stream = pipeline.open(spec())
    transport.hold()
    await pipeline.push(stream, chunk_request(0))
    with pytest.raises(BufferFullError, match="on_full='raise'"):
        await pipeline.push(stream, chunk_request(1))
    transport.release()
    await drained(stream)
    await pipeline.push(stream, chunk_request(1))
    await drained(stream)
    assert stream.ledger.report()["lost"] == []


async def test_drop_newest_counts_dropped_chunks(
    make: MakePipeline, transport: FakeTransport, caplog: pytest.LogCaptureFixture
) -> None:
    """on_full='drop_newest' drops chunks without memory; they are counted, logged and reported (P8)."""
    pipeline = make(buffer_bytes=ONE, on_full="drop_newest")
    stream = pipeline.open(spec())
    transport.hold()
    for k in range(3):
        await pipeline.push(stream, chunk_request(k))
    transport.release()
    await drained(stream)
    report = stream.ledger.report()
    assert sorted(transport.stored) == [("s", 0)]
    assert report["chunks_dropped"] == 2
    assert [index for index, _ in report["lost"]] == [1, 2]
    assert "chunk 1 was dropped" in caplog.text


async def test_drop_oldest_keeps_the_newest(make: MakePipeline, transport: FakeTransport) -> None:
    """on_full='drop_oldest' drops the lowest chunks that are not being sent; push never waits (P8)."""
    pipeline = make(buffer_bytes=ONE + 700, on_full="drop_oldest", upload_concurrency=1)
    stream = pipeline.open(spec())
    transport.hold()
    for k in range(20):
        await pipeline.push(stream, chunk_request(k))
        while pipeline.statistics().encode_backlog:
            await asyncio.sleep(0)
    transport.release()
    await drained(stream)
    report = stream.ledger.report()
    assert ("s", 19) in transport.stored
    assert report["chunks_dropped"] > 0
    assert report["chunks_dropped"] + len(transport.stored) == 20


async def test_a_dropped_index_stays_dropped(make: MakePipeline, transport: FakeTransport) -> None:
    """A second push of a dropped index neither sends nor raises."""
    pipeline = make(buffer_bytes=ONE, on_full="drop_newest")
    stream = pipeline.open(spec())
    transport.hold()
    for k in range(2):
        await pipeline.push(stream, chunk_request(k))
    transport.release()
    await drained(stream)
    await pipeline.push(stream, chunk_request(1))
    assert sorted(transport.stored) == [("s", 0)]


async def test_memory_stays_bounded(make: MakePipeline, transport: FakeTransport) -> None:
    """Permits and free buffers together never exceed buffer_bytes plus one chunk (P7)."""
    limit = 5 * ONE
    pipeline = make(buffer_bytes=limit)
    streams = [pipeline.open(spec(name)) for name in "abc"]
    highest = 0
    for k in range(60):
        await pipeline.push(streams[k % 3], chunk_request(k // 3))
        highest = max(highest, pipeline.statistics().memory_used + pipeline._free_list.nbytes)
    for stream in streams:
        await drained(stream)
    assert highest <= limit + ONE


async def test_a_limit_for_one_chunk_is_warned_of(
    make: MakePipeline, transport: FakeTransport, caplog: pytest.LogCaptureFixture
) -> None:
    """If buffer_bytes holds one chunk only, the first push warns once and names a better value (P8)."""
    pipeline = make(buffer_bytes=ONE)
    stream = pipeline.open(spec())
    for k in range(2):
        await pipeline.push(stream, chunk_request(k))
    await drained(stream)
    assert caplog.text.count(f"Give buffer_bytes={3 * ONE} or more") == 1
