"""finalize waits, reports exactly what was stored and abandons no chunk; also flush and close."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path

import numpy as np
import pytest

from atomstream import AsyncRHEEDStreamer
from atomstream.errors import ConfigError, DrainTimeoutError, StreamFinalizedError, StreamGoneError
from atomstream.testing import MemoryService
from tests.live_server import Serve
from tests.streaming.scripted_faults import KEY, answers, held
from tests.streaming.stream_helpers import (
    CHUNK,
    assert_sums,
    begin,
    make_async,
    noise,
    stored,
    stream_stats,
    until,
)

pytestmark = pytest.mark.usefixtures("hurried")


async def test_repeated_finalize_returns_the_same_report(
    service: MemoryService, streamer: AsyncRHEEDStreamer
) -> None:
    """Repeated and concurrent calls of finalize return the same report and end the stream once."""
    data_id = await begin(streamer, 0, 1)
    first, second = await asyncio.gather(streamer.finalize(data_id), streamer.finalize(data_id))
    third = await streamer.finalize(data_id)
    assert first == second == third
    assert (first["closed"], first["drained"], first["chunks_uploaded"]) == (True, True, 2)
    assert [attempt.step for attempt in service.attempts].count("end") == 1


async def test_an_empty_stream_ends(service: MemoryService, streamer: AsyncRHEEDStreamer) -> None:
    """A stream without frames is ended like any other."""
    data_id = await begin(streamer)
    report = await streamer.finalize(data_id)
    assert (report["chunks_spooled"], report["closed"], report["lost"]) == (0, True, [])
    assert service.ended(data_id)


async def test_the_end_is_sent_after_the_last_chunk(
    service: MemoryService, streamer: AsyncRHEEDStreamer
) -> None:
    """/end is not sent before each chunk is stored or given up."""
    data_id = await begin(streamer, *range(6))
    await streamer.finalize(data_id)
    kinds = [kind for kind, _, _ in service.attempts]
    assert kinds[-1] == "end"
    assert kinds.count("put") == 6


async def test_the_drain_timeout_has_the_report(service: MemoryService, streamer: AsyncRHEEDStreamer) -> None:
    """DrainTimeoutError has the counts and the cause; the stream accepts no more pushes and its uploads continue."""
    service.fault_for = lambda attempt: (
        answers(503) if (attempt.step, attempt.chunk_idx) == ("put", 1) else None
    )
    data_id = await begin(streamer, 0, 1)
    while not (await stream_stats(streamer, data_id))["standing_still"]:
        await asyncio.sleep(0.005)
    with pytest.raises(
        DrainTimeoutError, match=r"finalize waited 0.01 s, but 1 chunk is.*HTTP 503"
    ) as caught:
        await streamer.finalize(data_id, drain_timeout_s=0.01)
    assert ".." not in str(caught.value)
    report = caught.value.report
    assert (report["chunks_pending"], report["drained"], report["closed"]) == (1, False, False)
    assert caught.value.data_id == data_id
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(StreamFinalizedError, match=f"{data_id} was finalized"):
        await streamer.push(data_id, 2, noise(2))
    service.fault_for = lambda attempt: None
    await until(lambda: service.ended(data_id))  # without a caller that waits
    report = await streamer.finalize(data_id)
    assert (report["chunks_uploaded"], report["closed"], report["lost"]) == (2, True, [])


async def test_zero_timeout_returns_at_once(service: MemoryService, streamer: AsyncRHEEDStreamer) -> None:
    """drain_timeout_s=0 only asks for the state; a later finalize completes."""
    service.faults["put"].append(held(go_on := asyncio.Event()))
    data_id = await begin(streamer, 0)
    with pytest.raises(DrainTimeoutError):
        await streamer.finalize(data_id, drain_timeout_s=0)
    go_on.set()
    assert (await streamer.finalize(data_id))["closed"]


@pytest.mark.parametrize("wrong", [float("nan"), -1.0, "soon"])
async def test_timeouts_are_numbers(streamer: AsyncRHEEDStreamer, wrong: float) -> None:
    """An invalid timeout is refused, and the stream is not ended by it."""
    data_id = await begin(streamer)
    for verb in (streamer.finalize, streamer.flush):
        with pytest.raises((ConfigError, TypeError), match="timeout"):
            await verb(data_id, wrong)
    await streamer.push(data_id, 0, noise(0))
    await streamer.finalize(data_id)


async def test_a_busy_end_is_retried(service: MemoryService, streamer: AsyncRHEEDStreamer) -> None:
    """A 503 to /end, as the hosted service sends during its first analysis, only takes time."""
    service.faults["end"].extend([answers(503)] * 4)
    report = await streamer.finalize(await begin(streamer, 0))
    assert report["closed"]
    assert [kind for kind, _, _ in service.attempts].count("end") == 5


async def test_a_refused_repeat_of_the_end_is_an_end(
    service: MemoryService, streamer: AsyncRHEEDStreamer
) -> None:
    """A 4xx to a repeated /end means that the first one had arrived (docs/decisions/0001-ledger-is-the-state.md)."""
    service.faults["end"].extend([answers(500), answers(404)])
    assert (await streamer.finalize(await begin(streamer, 0)))["closed"]


async def test_a_refused_end_is_an_error(service: MemoryService, streamer: AsyncRHEEDStreamer) -> None:
    """A 4xx to the first /end is an error that names the stream; chunks stay counted as stored."""
    service.faults["end"].append(answers(422, '{"detail": "no such end"}'))
    data_id = await begin(streamer, 0)
    with pytest.raises(StreamGoneError, match=f"refused to end stream {data_id}.*no such end"):
        await streamer.finalize(data_id)
    assert (await stream_stats(streamer, data_id))["chunks_stored"] == 1


async def test_a_refused_end_is_reported_once(service: MemoryService, streamer: AsyncRHEEDStreamer) -> None:
    """After this one error, finalize returns the report: the chunks are stored, the stream is not closed."""
    data_id = await begin(streamer, 0)
    service.faults["end"].append(answers(404, '{"detail": "gone"}'))
    with pytest.raises(StreamGoneError):
        await streamer.finalize(data_id)
    report = await streamer.finalize(data_id)
    assert report["chunks_uploaded"] == 1
    assert not report["closed"]


async def test_a_mistyped_index_is_refused(streamer: AsyncRHEEDStreamer) -> None:
    """An index far above the next one is an error; the report does not list ten million missing indices."""
    data_id = await begin(streamer, 0)
    with pytest.raises(ConfigError, match="above the stream's next index"):
        await streamer.push(data_id, 10_000_000, noise(1))
    assert (await streamer.finalize(data_id))["lost"] == []


async def test_indices_never_pushed_are_lost(service: MemoryService, streamer: AsyncRHEEDStreamer) -> None:
    """Skipped indices are listed in the report and in one warning, once, at the caller's line."""
    data_id = await begin(streamer, 0, 2, 5)
    with pytest.warns(RuntimeWarning, match=r"3 missing chunks: 1 \(never pushed\); 3") as warned:
        report = await streamer.finalize(data_id)
    assert [one.filename for one in warned] == [__file__]
    assert report["lost"] == [(1, "never pushed"), (3, "never pushed"), (4, "never pushed")]
    assert (report["chunks_spooled"], report["chunks_uploaded"]) == (3, 3)
    assert_sums(report)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert await streamer.finalize(data_id) == report


async def test_losses_are_sent_to_our_server(serve: Serve) -> None:
    """Our server receives the indices that will not come, and the archive lists them."""
    server = await serve()
    async with make_async(server.url, server.api_key) as streamer:
        data_id = await begin(streamer, 0, 3)
        with pytest.warns(RuntimeWarning, match="never pushed"):
            await streamer.finalize(data_id)
    assert server.archive(data_id).about["lost"] == "1-2"
    frames = stored(server, data_id)
    np.testing.assert_array_equal(frames[3 * CHUNK :], noise(3))
    assert not frames[CHUNK : 3 * CHUNK].any()


async def test_push_after_finalize_is_a_typed_error(streamer: AsyncRHEEDStreamer) -> None:
    """Each push method raises an error that the stream was finalized."""
    data_id = await begin(streamer, 0)
    await streamer.finalize(data_id)
    for push in (
        lambda: streamer.push(data_id, 0, noise(0)),
        lambda: streamer.push(data_id, 1, noise(1)),
        lambda: streamer.push_frame(data_id, noise(1)[0]),
        lambda: streamer.run(data_id, [noise(1)]),
        lambda: streamer.run(data_id, []),
    ):
        with pytest.raises(StreamFinalizedError, match="finalized"):
            await push()


async def test_a_push_that_waits_when_the_stream_is_finalized(service: MemoryService, no_disk: Path) -> None:
    """A push that waits for memory while finalize is called raises the typed error and uses no index."""
    service.faults["put"].append(held(go_on := asyncio.Event()))
    async with make_async(service.url, KEY, buffer_bytes=1, spool_dir=no_disk) as streamer:
        data_id = await begin(streamer, 0)
        pushing = asyncio.create_task(streamer.push(data_id, 1, noise(1)))
        while not (await streamer.stats())["pushes_waiting"]:
            await asyncio.sleep(0.005)
        finalizing = asyncio.create_task(streamer.finalize(data_id))
        while not (await stream_stats(streamer, data_id))["finalized"]:
            await asyncio.sleep(0.005)
        go_on.set()
        with pytest.raises(StreamFinalizedError):
            await pushing
        assert (await finalizing)["chunks_spooled"] == 1


async def test_the_last_short_chunk_is_sent_at_flush_and_at_the_end(
    service: MemoryService, streamer: AsyncRHEEDStreamer
) -> None:
    """flush and finalize send the frames collected by push_frame as a short chunk."""
    data_id = await begin(streamer)
    frames = noise(1, n=2 * CHUNK)
    for frame in frames[: CHUNK + 1]:
        await streamer.push_frame(data_id, frame)
    await streamer.flush(data_id)
    for frame in frames[CHUNK + 1 :]:
        await streamer.push_frame(data_id, frame)
    report = await streamer.finalize(data_id)
    parts = [service.chunk(data_id, k) for k in range(report["chunks_uploaded"])]
    assert [len(part) for part in parts] == [CHUNK, 1, CHUNK - 1]
    np.testing.assert_array_equal(np.concatenate(parts), frames)


async def test_flush_waits_for_all_pushed_chunks(
    service: MemoryService, streamer: AsyncRHEEDStreamer
) -> None:
    """flush returns once all chunks pushed before it are stored; the stream stays open."""
    data_id = await begin(streamer, 0, 1, 2)
    await streamer.flush(data_id)
    assert service.chunk_indices(data_id) == [0, 1, 2]
    await streamer.push(data_id, 3, noise(3))
    assert (await streamer.finalize(data_id))["chunks_uploaded"] == 4


async def test_a_flush_timeout_loses_nothing(service: MemoryService, streamer: AsyncRHEEDStreamer) -> None:
    """DrainTimeoutError of flush has the report, and a later flush completes."""
    service.faults["put"].append(held(go_on := asyncio.Event()))
    data_id = await begin(streamer, 0)
    with pytest.raises(DrainTimeoutError, match=r"flush waited 0\.01 s") as caught:
        await streamer.flush(data_id, 0.01)
    assert caught.value.report["chunks_pending"] == 1
    go_on.set()
    await streamer.flush(data_id)
    await streamer.push(data_id, 1, noise(1))
    assert (await streamer.finalize(data_id))["chunks_uploaded"] == 2


async def test_a_cancelled_finalize_cancels_no_upload(
    service: MemoryService, streamer: AsyncRHEEDStreamer
) -> None:
    """Cancelling the wait cancels neither the uploads nor the end of the stream."""
    service.faults["put"].append(held(go_on := asyncio.Event()))
    data_id = await begin(streamer, 0)
    waiting = asyncio.create_task(streamer.finalize(data_id))
    while not (await stream_stats(streamer, data_id))["finalized"]:
        await asyncio.sleep(0.005)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    await until(lambda: service.ended(data_id))


async def test_finalize_timeout_while_the_end_is_not_acknowledged(
    service: MemoryService, streamer: AsyncRHEEDStreamer
) -> None:
    """If all chunks are stored but /end is not acknowledged, the error of finalize states both."""
    service.fault_for = lambda attempt: answers(503) if attempt.step == "end" else None
    data_id = await begin(streamer, 0)
    await streamer.flush(data_id)
    with pytest.raises(DrainTimeoutError, match="not yet acknowledged the end") as caught:
        await streamer.finalize(data_id, 0.05)
    assert (caught.value.report["drained"], caught.value.report["closed"]) == (True, False)
    service.fault_for = lambda attempt: None
    assert (await streamer.finalize(data_id))["closed"]
