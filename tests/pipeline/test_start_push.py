"""start_push from any thread: accepted if there is memory, without the loop; otherwise nothing happens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future

import numpy as np
import pytest

from atomstream.errors import StreamFinalizedError
from atomstream.pipeline.admission import PushRequest
from atomstream.pipeline.encoder import EncodeJob, Encoder
from atomstream.pipeline.memory_limiter import MemoryLimiter
from atomstream.pipeline.pipeline import Pipeline
from atomstream.pipeline.stream import StreamState
from tests.pipeline.transports import META, STAMP, FakeTransport, drained, frames, spec

MakePipeline = Callable[..., Pipeline]


def chunk_request(index: int | None, seed: int = 0) -> PushRequest:
    return PushRequest(index, frames(seed), STAMP, META)


def started(pipeline: Pipeline, stream: StreamState, of: PushRequest) -> Future[bool]:
    taken = pipeline.start_push(stream, of)
    assert taken is not None
    return taken


async def test_a_chunk_is_accepted_while_the_loop_is_blocked(
    make: MakePipeline, transport: FakeTransport
) -> None:
    """With enough memory the loop is not needed, and the frames arrive equal."""
    pipeline = make()
    stream = pipeline.open(spec())
    for k in range(5):  # waited for in the loop's own thread, so the loop can't have helped
        assert started(pipeline, stream, chunk_request(k, seed=k)).result(timeout=60)
    assert stream.ledger.next_index == 5
    await drained(stream)
    for k in range(5):
        np.testing.assert_array_equal(transport.stored["s", k], frames(k))
    assert pipeline.statistics().memory_used == 0


async def test_a_push_that_would_wait_is_not_started(make: MakePipeline) -> None:
    """For a known index, for the next index and with durability="disk", start_push returns None."""
    pipeline = make()
    stream = pipeline.open(spec())
    assert started(pipeline, stream, chunk_request(0)).result(timeout=60)
    assert pipeline.start_push(stream, chunk_request(0)) is None
    assert pipeline.start_push(stream, chunk_request(None)) is None
    durable = make(durability="disk")
    assert durable.start_push(durable.open(spec()), chunk_request(0)) is None
    await drained(stream)


async def test_without_memory_nothing_is_accepted(
    make: MakePipeline, transport: FakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without memory no index is used and nothing is held; push() accepts the chunk once there is memory."""
    pipeline = make(buffer_bytes=1)
    stream = pipeline.open(spec())
    transport.hold()
    assert started(pipeline, stream, chunk_request(0)).result(timeout=60)
    held = pipeline.statistics().memory_used
    assert pipeline.start_push(stream, chunk_request(1)) is None
    monkeypatch.setattr(MemoryLimiter, "has_room", lambda *_: True)  # as if it had gone meanwhile
    assert not started(pipeline, stream, chunk_request(1)).result(timeout=60)
    assert not stream.ledger.contains(1)
    assert pipeline.statistics().memory_used <= held
    waiting = asyncio.create_task(pipeline.push(stream, chunk_request(1)))
    transport.release()
    assert await waiting == 1
    await drained(stream)


async def test_one_index_from_many_threads(make: MakePipeline) -> None:
    """Of several simultaneous pushes one is accepted, and the others release their memory."""
    pipeline = make()
    stream = pipeline.open(spec())
    together = threading.Barrier(4)
    found: list[bool | None] = []

    def push() -> None:
        together.wait(60)
        taken = pipeline.start_push(stream, chunk_request(0))
        found.append(None if taken is None else taken.result(timeout=60))

    threads = [threading.Thread(target=push) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found.count(True) == 1
    await drained(stream)
    assert pipeline.statistics().memory_used == 0


async def test_errors_are_set_on_the_future(make: MakePipeline) -> None:
    """A finalized stream and another format give the same errors as push(), and nothing is held."""
    pipeline = make()
    stream = pipeline.open(spec())
    assert started(pipeline, stream, chunk_request(0)).result(timeout=60)
    other = PushRequest(1, frames(1)[:, :3], STAMP, META)
    with pytest.raises(ValueError, match="fixed by its first chunk"):
        started(pipeline, stream, other).result(timeout=60)
    stream.ledger.seal()
    with pytest.raises(StreamFinalizedError):
        started(pipeline, stream, chunk_request(1)).result(timeout=60)
    await drained(stream)
    assert pipeline.statistics().memory_used == 0


async def test_the_future_is_done_before_encoders_wake(
    make: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once encoders use all cores, a waiting caller would wait milliseconds longer."""
    pipeline = make()
    stream = pipeline.open(spec())
    wake, known = Encoder.wake_threads, []
    taken: list[Future[bool]] = []
    ready, woken = threading.Event(), threading.Event()

    def watched(encoder: Encoder) -> None:
        assert ready.wait(60)
        known.append(taken[0].done())
        woken.set()
        wake(encoder)

    monkeypatch.setattr(Encoder, "wake_threads", watched)
    taken.append(started(pipeline, stream, chunk_request(0)))
    ready.set()
    assert woken.wait(60)
    assert known == [True]
    await drained(stream)


async def test_a_started_push_can_not_be_cancelled(make: MakePipeline, transport: FakeTransport) -> None:
    """A caller that stops waiting cancels nothing: the chunk is accepted and arrives (P21)."""
    pipeline = make()
    stream = pipeline.open(spec())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.wrap_future(started(pipeline, stream, chunk_request(0))), 0)
    await stream.ledger.changed.wait_for(lambda: stream.ledger.contains(0))
    await drained(stream)
    np.testing.assert_array_equal(transport.stored["s", 0], frames(0))
    assert pipeline.statistics().memory_used == 0


def _started_and_awaited(pipeline: Pipeline) -> Callable[[StreamState, PushRequest], Awaitable[bool]]:
    return lambda stream, of: asyncio.wrap_future(started(pipeline, stream, of))


def _refused(encoder: Encoder, job: EncodeJob) -> None:
    raise RuntimeError("no encoder")


@pytest.mark.parametrize("begin", ["start_push", "push"])
async def test_an_error_of_the_encoder_queue_is_raised(
    make: MakePipeline, monkeypatch: pytest.MonkeyPatch, begin: str
) -> None:
    """An error after the acceptance reaches this caller and the next one, and the memory is released (P22)."""
    pipeline = make()
    stream = pipeline.open(spec())
    monkeypatch.setattr(Encoder, "enqueue", _refused)
    push = pipeline.push if begin == "push" else _started_and_awaited(pipeline)
    with pytest.raises(RuntimeError, match="no encoder"):
        await push(stream, chunk_request(0))
    await stream.ledger.changed.wait_for(lambda: pipeline.failure is not None)
    assert stream.ledger.counts()["quarantined"] == 1
    assert pipeline.statistics().memory_used == 0


async def test_after_close_nothing_is_started(make: MakePipeline) -> None:
    """After close start_push returns None."""
    pipeline = make()
    stream = pipeline.open(spec())
    await pipeline.close()
    assert pipeline.start_push(stream, chunk_request(0)) is None
