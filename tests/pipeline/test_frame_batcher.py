"""push_frame's buffer: chunks fill by themselves, gaps close them, nothing slips past the seal."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator

import numpy as np
import pytest

from atomstream.errors import StreamFinalizedError
from atomstream.pipeline.frame_batcher import Frame, FrameBatcher
from atomstream.pipeline.pipeline import Pipeline
from atomstream.pipeline.stream import StreamState
from tests.pipeline.transports import STAMP, Courier, frames, settings, spec


@pytest.fixture
async def courier() -> Courier:
    return Courier()


@pytest.fixture
async def pipeline(courier: Courier) -> AsyncIterator[Pipeline]:
    made = Pipeline(settings(), courier)
    yield made
    await made.close()


def shot(
    frame: np.ndarray, ms: float | None = None, number: int | None = None, angle: float | None = None
) -> Frame:
    return Frame(frame, ms, number, angle, lambda: STAMP)


def opened(pipeline: Pipeline, chunk_size: int = 4) -> tuple[StreamState, FrameBatcher]:
    stream = pipeline.open(spec(chunk_size=chunk_size))
    return stream, pipeline.fillers["s"]


async def drained(stream: StreamState) -> None:
    await stream.ledger.pulse.until(lambda: stream.ledger.pending == 0)


async def test_chunks_fill_by_themselves(pipeline: Pipeline, courier: Courier) -> None:
    """Frames become chunks of chunk_size; the last short one goes at flush."""
    stream, filler = opened(pipeline)
    all_frames = frames(0, 10)
    for frame in all_frames:
        assert filler.try_add(shot(frame))
    assert filler.frames_held == 2
    filler.flush()
    await drained(stream)
    stored = [courier.stored["s", k] for k in range(3)]
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
async def test_any_strides(pipeline: Pipeline, courier: Courier, view: object) -> None:
    """A frame of any strides arrives as it looks (P1)."""
    stream, filler = opened(pipeline, chunk_size=1)
    frame = view(frames(3, 1)[0])  # type: ignore[operator]
    filler.try_add(shot(frame))
    await drained(stream)
    np.testing.assert_array_equal(courier.stored["s", 0][0], frame)


async def test_sixteen_bit_frames_of_either_byte_order(pipeline: Pipeline, courier: Courier) -> None:
    """uint16 frames arrive equal, big-endian ones too."""
    stream, filler = opened(pipeline, chunk_size=2)
    values = np.arange(30, dtype=np.uint16).reshape(6, 5) * 2000
    filler.try_add(shot(values))
    filler.try_add(shot(values.astype(">u2")))
    await drained(stream)
    np.testing.assert_array_equal(courier.stored["s", 0], [values, values])


@pytest.mark.parametrize(
    ("marks", "lengths"),
    [
        ([dict(number=k) for k in (1, 2, 3, 9, 10)], [3, 2]),
        ([dict(ms=1000 / 120 * k) for k in (0, 1, 2, 6, 7)], [3, 2]),
        ([dict(ms=1000 / 120 * k) for k in (0, 1.3, 1.9, 3.2)], [4]),
        ([dict(number=k) for k in (5, 5)], [1, 1]),
    ],
)
async def test_a_gap_ends_a_chunk_early(
    pipeline: Pipeline, courier: Courier, marks: list[dict[str, float]], lengths: list[int]
) -> None:
    """A gap in ids or times is counted and closes the chunk; jitter is not a gap."""
    stream, filler = opened(pipeline, chunk_size=240)
    for mark in marks:
        filler.try_add(shot(frames(0, 1)[0], **mark))  # type: ignore[arg-type]
    filler.flush()
    await drained(stream)
    assert [len(courier.stored["s", k]) for k in range(len(lengths))] == lengths
    assert stream.frame_gaps == len(lengths) - 1


async def test_another_shape_is_refused(pipeline: Pipeline) -> None:
    """The stream's first frame fixes height and width; a refused frame changes nothing."""
    _, filler = opened(pipeline)
    filler.try_add(shot(frames(0, 1)[0]))
    with pytest.raises(ValueError, match="fixed by its first chunk"):
        filler.try_add(shot(frames(0, 1, (7, 7))[0]))
    assert filler.frames_held == 1


async def test_nothing_slips_past_the_seal(pipeline: Pipeline, courier: Courier) -> None:
    """Frames from a camera thread are either in a chunk or refused with a typed error."""
    stream, filler = opened(pipeline)
    taken = 0

    def camera() -> None:
        nonlocal taken
        try:
            while True:
                assert filler.try_add(shot(frames(0, 1)[0]))
                taken += 1
        except StreamFinalizedError:
            return

    thread = threading.Thread(target=camera)
    thread.start()
    await stream.ledger.pulse.until(lambda: stream.ledger.next_index > 2)
    filler.seal()
    stream.ledger.seal()
    thread.join()
    await drained(stream)
    assert sum(map(len, courier.stored.values())) == taken


async def test_no_room_is_said_not_waited_for(courier: Courier) -> None:
    """Without room for a new buffer try_add says so and takes nothing."""
    pipeline = Pipeline(settings(buffer_bytes=1), courier)
    stream, filler = opened(pipeline, chunk_size=1)
    courier.hold()
    assert filler.try_add(shot(frames(0, 1)[0]))
    assert not filler.try_add(shot(frames(1, 1)[0]))
    courier.release()
    await drained(stream)
    assert len(courier.stored) == 1
    await pipeline.close()


async def test_a_discarded_chunk_keeps_the_cadence(pipeline: Pipeline, courier: Courier) -> None:
    """When a chunk is dropped, exactly its frames go by, so later ones keep their place in time."""
    stream, filler = opened(pipeline, chunk_size=2)
    pipeline.intake.refuse(stream, None)
    filler.discard_chunk()
    for frame in frames(0, 4):
        assert filler.try_add(shot(frame))
    await drained(stream)
    np.testing.assert_array_equal(courier.stored["s", 1], frames(0, 4)[2:])
