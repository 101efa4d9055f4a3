"""The path of a chunk through real stages: admission, policies, order, retries, failures."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from atomstream.errors import (
    AuthenticationError,
    ChunkConflictError,
    ClosedError,
    RejectedError,
    ServerBusyError,
    StreamFinalizedError,
    StreamGoneError,
)
from atomstream.pipeline.admission import PushRequest
from atomstream.pipeline.pipeline import Pipeline
from atomstream.pipeline.upload import Upload
from tests.pipeline.transports import (
    META,
    ONE,
    STAMP,
    FakeTransport,
    MakePipeline,
    chunk_request,
    drained,
    frames,
    push_all,
    settings,
    spec,
)


async def test_chunks_arrive_equal(make: MakePipeline, transport: FakeTransport) -> None:
    """Every pushed chunk arrives with its index and frames, and no memory is held afterwards."""
    pipeline = make()
    stream = pipeline.open(spec())
    for k in range(12):
        await pipeline.push(stream, chunk_request(k))
    await drained(stream)
    for k in range(12):
        np.testing.assert_array_equal(transport.stored["s", k], frames(k))
    assert pipeline.statistics().memory_used == 0
    assert stream.ledger.watermark == 11


async def test_the_array_may_be_reused_at_once(make: MakePipeline, transport: FakeTransport) -> None:
    """Changes to the array after push has returned do not reach the server (P4)."""
    pipeline = make()
    stream = pipeline.open(spec())
    transport.hold()
    array = frames(1)
    await pipeline.push(stream, PushRequest(0, array, STAMP, META))
    array[:] = 0
    transport.release()
    await drained(stream)
    np.testing.assert_array_equal(transport.stored["s", 0], frames(1))


async def test_copy_false_does_not_copy(
    make: MakePipeline, transport: FakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """copy=False uses the caller's memory: no buffer is acquired."""
    pipeline = make()
    monkeypatch.setattr("atomstream.pipeline.buffer_pool.BufferPool.acquire", _no_memory)
    stream = pipeline.open(spec())
    await pipeline.push(stream, chunk_request(0, copy=False))
    await drained(stream)
    np.testing.assert_array_equal(transport.stored["s", 0], frames(0))


async def test_lowest_index_first(make: MakePipeline, transport: FakeTransport) -> None:
    """Chunks that were pushed out of order are sent in order, as far as they are available."""
    pipeline = make(upload_concurrency=1)
    stream = pipeline.open(spec())
    transport.hold()
    for k in (9, 4, 7, 1):
        await pipeline.push(stream, chunk_request(k))
    while pipeline.statistics().upload_backlog < 4:
        await asyncio.sleep(0)
    transport.release()
    await drained(stream)
    first, *rest = [index for _, index in transport.order]
    assert rest == sorted(rest)
    assert {first, *rest} == {1, 4, 7, 9}


async def test_no_more_uploads_than_allowed(make: MakePipeline, transport: FakeTransport) -> None:
    """At most upload_concurrency attempts run at once."""
    pipeline = make(upload_concurrency=3)
    stream = pipeline.open(spec())
    transport.hold()
    for k in range(9):
        await pipeline.push(stream, chunk_request(k))
    while pipeline.statistics().upload_backlog < 9:
        await asyncio.sleep(0)
    transport.release()
    await drained(stream)
    assert transport.most_at_once == 3


async def test_an_equal_repeat_does_nothing(make: MakePipeline, transport: FakeTransport) -> None:
    """A second push of an index with equal frames, of any strides, sends nothing (P5)."""
    pipeline = make()
    stream = pipeline.open(spec())
    await pipeline.push(stream, chunk_request(0))
    await pipeline.push(stream, PushRequest(0, np.asfortranarray(frames(0)), STAMP, META))
    await drained(stream)
    assert transport.attempts == [("s", 0)]
    assert stream.ledger.report()["chunks_spooled"] == 1


async def test_another_content_for_an_index_is_a_conflict(
    make: MakePipeline, transport: FakeTransport
) -> None:
    """A second push of an index with other frames raises; the first frames stay (P5)."""
    pipeline = make()
    stream = pipeline.open(spec())
    await pipeline.push(stream, chunk_request(0))
    with pytest.raises(ChunkConflictError, match="Chunk 0 of stream s was pushed before"):
        await pipeline.push(stream, chunk_request(0, seed=5))
    await drained(stream)
    np.testing.assert_array_equal(transport.stored["s", 0], frames(0))


async def test_two_pushes_of_one_index_at_once(make: MakePipeline, transport: FakeTransport) -> None:
    """Of concurrent pushes of one index one is accepted; the others are equal or raise."""
    pipeline = make()
    stream = pipeline.open(spec())
    results = await asyncio.gather(
        *(pipeline.push(stream, chunk_request(0, seed=seed)) for seed in (1, 1, 2)), return_exceptions=True
    )
    await drained(stream)
    assert stream.ledger.report()["chunks_spooled"] == 1
    assert sum(isinstance(result, ChunkConflictError) for result in results) in (1, 2)


async def test_waiting_for_room_uses_no_index_when_cancelled(
    make: MakePipeline, transport: FakeTransport
) -> None:
    """A push that is cancelled while it waits for memory leaves no trace, and the next one is served (P21)."""
    pipeline = make(buffer_bytes=ONE)
    stream = pipeline.open(spec())
    transport.hold()
    await pipeline.push(stream, chunk_request(0))
    waiting = asyncio.create_task(pipeline.push(stream, chunk_request(1)))
    while not pipeline.statistics().pushes_waiting:
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    transport.release()
    await pipeline.push(stream, chunk_request(2))
    await drained(stream)
    assert sorted(transport.stored) == [("s", 0), ("s", 2)]
    assert pipeline.statistics().memory_used == 0


async def test_a_cancelled_push_is_complete_or_absent(make: MakePipeline, transport: FakeTransport) -> None:
    """A push cancelled at any moment has either used no index or delivered an equal chunk (P21)."""
    pipeline = make()
    stream = pipeline.open(spec(chunk_size=64))
    big = frames(3, 64, (64, 64))
    for k in range(40):
        task = asyncio.create_task(pipeline.push(stream, PushRequest(k, big, STAMP, META)))
        for _ in range(k % 5):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    await drained(stream)
    assert {index for _, index in transport.stored} == {k for k in range(40) if stream.ledger.contains(k)}
    assert all(np.array_equal(stored, big) for stored in transport.stored.values())
    assert pipeline.statistics().memory_used == 0


async def test_transient_errors_are_repeated(make: MakePipeline, transport: FakeTransport) -> None:
    """Transient errors delay a chunk but lose nothing."""
    pipeline = make()
    stream = pipeline.open(spec())
    failures = iter([ServerBusyError("503", status=503), ServerBusyError("garbled")])

    def verdict(upload: Upload) -> None:
        for failure in failures:
            raise failure

    transport.verdict = verdict
    await pipeline.push(stream, chunk_request(0))
    await drained(stream)
    assert transport.attempts == [("s", 0)] * 3


async def test_a_rejected_chunk_does_not_affect_others(make: MakePipeline, transport: FakeTransport) -> None:
    """A 4xx quarantines one chunk; the others are sent (P16)."""
    pipeline = make()
    stream = pipeline.open(spec())

    def verdict(upload: Upload) -> None:
        if upload.index == 1:
            raise RejectedError("422: no", status=422)

    transport.verdict = verdict
    await push_all(pipeline, stream, 3)
    await drained(stream)
    assert stream.ledger.report()["lost"] == [(1, "quarantined: 422: no")]
    assert pipeline.statistics().memory_used == 0


async def test_a_refused_key_pauses_the_stream(make: MakePipeline, transport: FakeTransport) -> None:
    """After a 401 every chunk is kept; all arrive when the key works again (P16)."""
    pipeline = make()
    stream = pipeline.open(spec())
    refused = iter([None])

    def verdict(upload: Upload) -> None:
        for _ in refused:
            raise AuthenticationError("401", status=401)

    transport.verdict = verdict
    await push_all(pipeline, stream, 3)
    await drained(stream)
    assert len(transport.stored) == 3
    assert stream.ledger.report()["chunks_failed"] == 0


async def test_a_deleted_stream_stops_with_one_error(make: MakePipeline, transport: FakeTransport) -> None:
    """A 404 for a stream resolves all its chunks and does not affect other streams."""
    pipeline = make(upload_concurrency=1)
    gone, other = pipeline.open(spec("gone")), pipeline.open(spec("other"))

    def verdict(upload: Upload) -> None:
        if upload.spec.data_id == "gone":
            raise StreamGoneError("404", data_id="gone")

    transport.verdict = verdict
    for k in range(3):
        await pipeline.push(gone, chunk_request(k))
        await pipeline.push(other, chunk_request(k))
    await drained(gone)
    await drained(other)
    with pytest.raises(StreamGoneError):
        gone.failure.raise_if_set()
    assert gone.ledger.report()["chunks_failed"] == 3
    assert other.ledger.report()["chunks_uploaded"] == 3


async def test_a_stuck_stream_does_not_slow_another(make: MakePipeline, transport: FakeTransport) -> None:
    """While the chunks of one stream always fail, all chunks of another stream are delivered (P17)."""
    pipeline = make(upload_concurrency=1, buffer_bytes=100 * ONE)
    stuck, live = pipeline.open(spec("stuck")), pipeline.open(spec("live"))

    def verdict(upload: Upload) -> None:
        if upload.spec.data_id == "stuck":
            raise ServerBusyError("503", status=503)

    transport.verdict = verdict
    for k in range(10):
        await pipeline.push(stuck, chunk_request(k))
        await pipeline.push(live, chunk_request(k))
    await drained(live)
    assert stuck.ledger.pending == 10


async def test_a_sealed_stream_accepts_nothing(make: MakePipeline, transport: FakeTransport) -> None:
    """A push after the seal raises and releases its memory (P5)."""
    pipeline = make()
    stream = pipeline.open(spec())
    stream.ledger.seal()
    with pytest.raises(StreamFinalizedError):
        await pipeline.push(stream, chunk_request(0))
    assert pipeline.statistics().memory_used == 0


async def test_the_failure_is_set_before_its_chunk_is_resolved(
    make: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected error is the pipeline's failure before its chunk is resolved, so every wait sees it."""
    pipeline, go, resolved = make(), threading.Event(), threading.Event()
    stream = pipeline.open(spec())
    resolve = stream.ledger.resolve

    def wrong(*_: object) -> None:
        assert go.wait(60)
        raise ZeroDivisionError("a mistake of ours")

    def resolve_and_report(index: int, *rest: Any) -> None:
        resolve(index, *rest)
        resolved.set()

    monkeypatch.setattr("atomstream.pipeline.rate_meter.ThroughputMeter.encoded", wrong)
    monkeypatch.setattr(stream.ledger, "resolve", resolve_and_report)
    await pipeline.push(stream, chunk_request(0))
    go.set()
    assert resolved.wait(
        10
    )  # this blocks the loop, so nothing that was only scheduled on it has happened yet
    assert isinstance(pipeline.failure, ZeroDivisionError)


async def test_a_failed_encoding_reaches_the_caller(
    make: MakePipeline, transport: FakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in an encoder thread is the pipeline's failure; the next call raises it (P22)."""
    monkeypatch.setattr("atomstream.pipeline.encoder.ShardEncoder.compress", _no_memory)
    pipeline = make()
    stream = pipeline.open(spec())
    await pipeline.push(stream, chunk_request(0))
    await drained(stream)
    with pytest.raises(MemoryError, match="none left"):
        pipeline.stream("s")
    assert pipeline.statistics().memory_used == 0


def _no_memory(*args: object, **rest: object) -> None:
    raise MemoryError("none left")


async def test_close_ends_waiting_pushes(transport: FakeTransport) -> None:
    """A push that waits for memory when the streamer is closed raises a typed error and uses no index."""
    pipeline = Pipeline(settings(buffer_bytes=ONE), transport)
    stream = pipeline.open(spec())
    transport.hold()
    await pipeline.push(stream, chunk_request(0))
    waiting = asyncio.create_task(pipeline.push(stream, chunk_request(1)))
    while not pipeline.statistics().pushes_waiting:
        await asyncio.sleep(0)
    await pipeline.close()
    with pytest.raises(ClosedError, match="the chunk was not accepted"):
        await waiting
    assert not stream.ledger.contains(1)


async def test_hanging_uploads_leave_a_slot_for_other_streams(
    make: MakePipeline, transport: FakeTransport
) -> None:
    """While uploads of one stream hang in every slot, another stream is still delivered (P17)."""
    pipeline = make(upload_concurrency=2)
    hung, live = pipeline.open(spec("hung")), pipeline.open(spec("live"))
    transport.hang = {"hung"}
    for k in range(4):
        await pipeline.push(hung, chunk_request(k))
    while transport.at_once < 2:
        await asyncio.sleep(0)
    for k in range(3):
        await pipeline.push(live, chunk_request(k))
    await drained(live)
    assert hung.ledger.pending == 4
    assert transport.most_at_once == 3
