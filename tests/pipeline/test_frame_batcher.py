"""push_frame: frames are gathered into chunks, gaps end a chunk, no frame is lost at the seal."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import numpy as np
import pytest

from atomstream.errors import StreamFinalizedError
from atomstream.pipeline.frame_batcher import Frame
from atomstream.pipeline.pipeline import Pipeline
from atomstream.pipeline.stream import StreamState
from tests.pipeline.transports import STAMP, FakeTransport, drained, frames, settings, spec


@pytest.fixture
async def transport() -> FakeTransport:
    return FakeTransport()


@pytest.fixture
async def pipeline(transport: FakeTransport) -> AsyncIterator[Pipeline]:
    made = Pipeline(settings(), transport)
    yield made
    await made.close()


def make_frame(
    frame: np.ndarray, ms: float | None = None, number: int | None = None, angle: float | None = None
) -> Frame:
    return Frame(frame, ms, number, angle, lambda: STAMP)


def opened(pipeline: Pipeline, chunk_size: int = 4) -> StreamState:
    return pipeline.open(spec(chunk_size=chunk_size))


async def test_frames_are_gathered_into_chunks(pipeline: Pipeline, transport: FakeTransport) -> None:
    """Frames become chunks of chunk_size; flush sends the last, short one."""
    stream = opened(pipeline)
    all_frames = frames(0, 10)
    for frame in all_frames:
        assert pipeline.try_push_frame(stream, make_frame(frame))
    assert pipeline.frames_gathered(stream) == 2
    pipeline.send_gathered(stream)
    await drained(stream)
    stored = [transport.stored["s", k] for k in range(3)]
    assert [len(chunk) for chunk in stored] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(stored), all_frames)


@pytest.mark.parametrize(
    "view",
    [
        np.asfortranarray,
        lambda a: a[::-1, ::-1],
        lambda a: np.repeat(a, 2, axis=1)[:, ::2],
        lambda a: a.T,
    ],
)
async def test_any_strides(pipeline: Pipeline, transport: FakeTransport, view: object) -> None:
    """A frame with any strides arrives with equal pixels (P1)."""
    stream = opened(pipeline, chunk_size=1)
    frame = view(frames(3, 1)[0])  # type: ignore[operator]
    pipeline.try_push_frame(stream, make_frame(frame))
    await drained(stream)
    np.testing.assert_array_equal(transport.stored["s", 0][0], frame)


async def test_sixteen_bit_frames_of_either_byte_order(pipeline: Pipeline, transport: FakeTransport) -> None:
    """uint16 frames arrive equal, also big-endian ones."""
    stream = opened(pipeline, chunk_size=2)
    values = np.arange(30, dtype=np.uint16).reshape(6, 5) * 2000
    pipeline.try_push_frame(stream, make_frame(values))
    pipeline.try_push_frame(stream, make_frame(values.astype(">u2")))
    await drained(stream)
    np.testing.assert_array_equal(transport.stored["s", 0], [values, values])


PERIOD_MS = 1000 / 120


@pytest.mark.parametrize(
    ("marks", "lengths", "gaps"),
    [
        ([dict(number=k) for k in (1, 2, 3, 6, 7)], [4, 1], 1),
        ([dict(ms=PERIOD_MS * k) for k in (0, 1, 2, 5, 6)], [4, 1], 1),
        ([dict(ms=PERIOD_MS * k) for k in (0, 1.3, 1.9, 3.2)], [4], 0),
        ([dict(number=k) for k in (1, 2, 3, 99, 100)], [3, 2], 1),
        ([dict(ms=PERIOD_MS * k) for k in (0, 1, 2, 600, 601)], [3, 2], 1),
        ([dict(number=k) for k in (50, 51, 0, 1)], [2, 2], 0),
        ([dict(ms=PERIOD_MS * k) for k in (9, 10, 0, 1)], [2, 2], 0),
        ([dict(number=k, ms=PERIOD_MS * k) for k in (0, 2, 3, 4, 5, 6, 7)], [4, 3], 1),
        ([dict(number=7, ms=PERIOD_MS * k) for k in (0, 1, 2, 4, 5, 6)], [4, 2], 1),
        ([dict(ms=PERIOD_MS * k) for k in (0, 3, 4, 5, 6)], [4, 1], 1),
        ([dict(number=k) for k in (3, 65535, 5, 6)], [4], 0),
        ([dict(number=k) for k in (65534, 65535, 0, 1)], [4], 0),
    ],
)
async def test_gaps_are_counted_and_large_ones_end_a_chunk(
    pipeline: Pipeline,
    transport: FakeTransport,
    marks: list[dict[str, float]],
    lengths: list[int],
    gaps: int,
) -> None:
    """Gaps in ids, or else in times, are counted; jitter is not. A gap of a whole chunk or a restart ends a chunk."""
    stream = pipeline.open(replace(spec(chunk_size=4), announced=False))
    for mark in marks:
        pipeline.try_push_frame(stream, make_frame(frames(0, 1)[0], **mark))  # type: ignore[arg-type]
    pipeline.send_gathered(stream)
    await drained(stream)
    assert [len(transport.stored["s", k]) for k in range(stream.ledger.next_index)] == lengths
    assert stream.frame_gaps == gaps


async def test_a_chunk_stays_whole_where_the_server_gets_the_times(
    pipeline: Pipeline, transport: FakeTransport
) -> None:
    """An atomstream server stores the time of each frame, so not even a long gap or a step back ends a chunk."""
    stream = opened(pipeline)
    for number, ms in ((0, 0.0), (1, 8.0), (900, 7500.0), (3, 20.0)):
        pipeline.try_push_frame(stream, make_frame(frames(0, 1)[0], ms, number))
    await drained(stream)
    assert len(transport.stored["s", 0]) == 4
    assert stream.frame_gaps == 1


@pytest.mark.parametrize(
    ("mark", "logged"),
    [
        (lambda k: dict(number=0), ""),
        (lambda k: dict(number=65535), ""),
        (lambda k: dict(number=2**32 - 1), ""),
        (lambda k: dict(number=-1), ""),
        (lambda k: dict(number=4 * k), ""),
        (lambda k: dict(number=(65500 + k) % 65536), ""),
        (lambda k: dict(number=(65500 + k) % 65535 + 1), ""),
        (lambda k: dict(number=(2**32 - 60 + 4 * k) % 2**32), ""),
        (lambda k: dict(number=None if k % 3 else k), ""),
        (lambda k: dict(ms=1000 * k / 30), "30 frames come in a second, not fps=120"),
        (lambda k: dict(ms=10_000 * k), "0.1 frames come in a second, not fps=120"),
        (lambda k: dict(number=0, ms=1000 * k / 30), "30 frames come in a second"),
        (lambda k: dict(ms=1000.0 * k / 500), "500 frames come in a second"),
    ],
)
async def test_numbers_of_any_driver_keep_chunks_whole(
    pipeline: Pipeline,
    transport: FakeTransport,
    mark: Callable[[int], dict[str, float]],
    logged: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Constant, stepping, wrapping and unknown ids, and another frame rate, are not gaps; a rate is logged once."""
    stream = opened(pipeline, chunk_size=20)
    for k in range(100):
        pipeline.try_push_frame(stream, make_frame(frames(0, 1)[0], **mark(k)))  # type: ignore[arg-type]
    await drained(stream)
    assert [len(transport.stored["s", k]) for k in range(stream.ledger.next_index)] == [20] * 5
    assert stream.frame_gaps == 0
    assert [logged in record.getMessage() for record in caplog.records] == ([True] if logged else [])


async def test_a_gap_is_logged_once(pipeline: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    """The first of many gaps is logged, with its frame; all are counted, and at most every second chunk is short."""
    stream = opened(pipeline, chunk_size=20)
    for k in range(200):
        pipeline.try_push_frame(stream, make_frame(frames(0, 1)[0], number=k + 50 * (k // 10)))
    await drained(stream)
    assert stream.frame_gaps == 19
    assert stream.ledger.next_index <= 20
    (record,) = caplog.records
    assert "50 frames are missing before frame 60 " in record.getMessage()


async def test_a_frame_that_waits_for_memory_is_examined_once(transport: FakeTransport) -> None:
    """A frame that ends a chunk and then has to wait for memory for the next one counts as one gap, and is kept."""
    pipeline = Pipeline(settings(buffer_bytes=1), transport)
    stream = opened(pipeline)
    transport.hold()
    first, second, last = (make_frame(frames(0, 1)[0], number=number) for number in (5, 6, 900))
    assert pipeline.try_push_frame(stream, first)
    assert pipeline.try_push_frame(stream, second)
    assert not pipeline.try_push_frame(stream, last)
    assert not pipeline.try_push_frame(stream, last)
    transport.release()
    await pipeline.push_frame(stream, last)
    pipeline.send_gathered(stream)
    await drained(stream)
    assert [len(chunk) for chunk in transport.stored.values()] == [2, 1]
    assert stream.frame_gaps == 1
    await pipeline.close()


async def test_another_shape_is_rejected(pipeline: Pipeline) -> None:
    """The first frame of a stream defines height and width; a rejected frame changes nothing."""
    stream = opened(pipeline)
    pipeline.try_push_frame(stream, make_frame(frames(0, 1)[0]))
    with pytest.raises(ValueError, match="fixed by its first chunk"):
        pipeline.try_push_frame(stream, make_frame(frames(0, 1, (7, 7))[0]))
    assert pipeline.frames_gathered(stream) == 1


async def test_no_frame_is_lost_at_the_seal(pipeline: Pipeline, transport: FakeTransport) -> None:
    """Frames of a camera thread are either in a chunk or rejected with a typed error."""
    stream = opened(pipeline)
    taken = 0

    def camera() -> None:
        nonlocal taken
        try:
            while True:
                assert pipeline.try_push_frame(stream, make_frame(frames(0, 1)[0]))
                taken += 1
        except StreamFinalizedError:
            return

    thread = threading.Thread(target=camera)
    thread.start()
    await stream.ledger.changed.wait_for(lambda: stream.ledger.next_index > 2)
    pipeline.seal(stream)
    thread.join()
    await drained(stream)
    assert sum(map(len, transport.stored.values())) == taken


async def test_try_push_frame_does_not_wait(transport: FakeTransport) -> None:
    """Without memory for a new buffer try_push_frame returns False and keeps nothing."""
    pipeline = Pipeline(settings(buffer_bytes=1), transport)
    stream = opened(pipeline, chunk_size=1)
    transport.hold()
    assert pipeline.try_push_frame(stream, make_frame(frames(0, 1)[0]))
    assert not pipeline.try_push_frame(stream, make_frame(frames(1, 1)[0]))
    transport.release()
    await drained(stream)
    assert len(transport.stored) == 1
    await pipeline.close()


async def test_a_dropped_chunk_keeps_the_cadence(transport: FakeTransport) -> None:
    """When a chunk is dropped, exactly its frames are discarded, so later frames keep their place in time."""
    pipeline = Pipeline(settings(buffer_bytes=1, on_full="drop_newest"), transport)
    stream = opened(pipeline, chunk_size=2)
    transport.hold()
    for frame in frames(0, 4):
        await pipeline.push_frame(stream, make_frame(frame))
    assert stream.ledger.counts()["dropped"] == 1
    transport.release()
    await drained(stream)
    for frame in frames(1, 2):
        await pipeline.push_frame(stream, make_frame(frame))
    await drained(stream)
    assert sorted(transport.stored) == [("s", 0), ("s", 2)]
    np.testing.assert_array_equal(transport.stored["s", 2], frames(1, 2))
    await pipeline.close()
