"""The async streamer in applications: tasks that come and go, other loops, cancellation, policies (P8, P21)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atomstream import AsyncRHEEDStreamer
from atomstream.errors import BufferFullError, ClosedError, ConfigError
from atomstream.testing import MemoryService
from tests.live_server import Serve, ThreadedServer
from tests.streaming.scripted_faults import KEY, answers, held
from tests.streaming.stream_helpers import (
    CHUNK,
    FPS,
    all_calls,
    assert_arrived,
    assert_sums,
    begin,
    make_async,
    noise,
    stored,
    stream_stats,
)

pytestmark = pytest.mark.usefixtures("hurried")


async def in_task(verb: Callable[[], Any]) -> Any:
    """Await ``verb()`` in a task that ends with it."""
    return await asyncio.create_task(verb())


async def waits(streamer: AsyncRHEEDStreamer) -> None:
    """Wait until a push waits for memory."""
    while not (await streamer.stats())["pushes_waiting"]:
        await asyncio.sleep(0.005)


async def test_each_verb_in_a_task_of_its_own(serve: Serve) -> None:
    """The streamer may be entered in one task, used in others and left in another, as fixtures and frameworks do."""
    server = await serve()
    streamer = make_async(server.url, server.api_key)
    assert await in_task(streamer.__aenter__) is streamer
    data_id = await in_task(lambda: streamer.initialize(FPS, 0.0, CHUNK))
    for k in range(3):
        await in_task(lambda k=k: streamer.push(data_id, k, noise(k)))
    await in_task(lambda: streamer.finalize(data_id))
    await in_task(lambda: streamer.__aexit__(None, None, None))
    assert_arrived(server, data_id, [0, 1, 2])


async def test_an_error_leaves_the_context_as_it_is(service: MemoryService) -> None:
    """An exception inside the context is raised unchanged, not in a group, and the streamer is closed."""
    streamer = make_async(service.url, KEY)

    async def application() -> None:
        async with streamer:
            await begin(streamer, 0)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await application()
    with pytest.raises(ClosedError):
        await streamer.stats()


async def test_many_tasks_push_at_once(serve: Serve) -> None:
    """Forty simultaneous pushes to three streams, with room for three chunks: all chunks arrive."""
    server = await serve()
    async with make_async(server.url, server.api_key, buffer_bytes=9_000) as streamer:
        streams = [await begin(streamer) for _ in range(3)]
        await asyncio.gather(
            *(streamer.push(data_id, k, noise(k)) for data_id in streams for k in reversed(range(13)))
        )
        for data_id in streams:
            assert (await streamer.finalize(data_id))["chunks_uploaded"] == 13
            assert_arrived(server, data_id, list(range(13)))


def test_another_event_loop_is_an_error(serve_in_thread: Callable[..., ThreadedServer]) -> None:
    """Each method called from another event loop raises an error; the streamer still works in its own loop."""
    server = serve_in_thread()
    first = asyncio.new_event_loop()
    streamer = make_async(server.url, server.api_key)
    data_id = first.run_until_complete(begin(streamer, 0))
    for verb in (*all_calls(streamer, data_id), streamer.close):
        with pytest.raises(ClosedError, match="another event loop"):
            asyncio.run(in_task(verb))
    first.run_until_complete(streamer.push(data_id, 1, noise(1)))
    assert first.run_until_complete(streamer.finalize(data_id))["chunks_uploaded"] == 2
    first.run_until_complete(streamer.close())
    first.run_until_complete(first.shutdown_default_executor())
    first.close()
    assert_arrived(server, data_id, [0, 1])


async def test_run_takes_async_iterables(serve: Serve) -> None:
    """An async generator of chunks, frames and tuples is streamed like a sync one."""
    server = await serve()
    frames = noise(3, n=2 * CHUNK + 1)

    async def camera() -> AsyncIterator[Any]:
        yield frames[:CHUNK], 1_735_689_600_000.0
        await asyncio.sleep(0)
        for frame in frames[CHUNK:]:
            yield frame

    async with make_async(server.url, server.api_key) as streamer:
        data_id = await begin(streamer)
        await streamer.run(data_id, camera())
        await streamer.finalize(data_id)
    np.testing.assert_array_equal(stored(server, data_id), frames)


async def test_a_sync_iterable_may_block(service: MemoryService) -> None:
    """A synchronous generator runs in its own thread, so it does not block the event loop."""
    may_go, threads = threading.Event(), []

    def camera() -> Iterator[Any]:
        for k in range(2):
            threads.append(threading.get_ident())
            yield noise(k)
        assert may_go.wait(60)
        threads.append(threading.get_ident())
        yield noise(2)

    async with make_async(service.url, KEY) as streamer:
        data_id = await begin(streamer)
        running = asyncio.create_task(streamer.run(data_id, camera()))
        while (await stream_stats(streamer, data_id))["chunks_stored"] < 2:  # while the camera blocks
            await asyncio.sleep(0.005)
        may_go.set()
        await running
        assert (await streamer.finalize(data_id))["chunks_uploaded"] == 3
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()


async def test_a_failed_run_leaves_no_thread(service: MemoryService) -> None:
    """If a frame is refused, run raises the error, and the iterating thread ends at once."""
    async with make_async(service.url, KEY) as streamer:
        data_id = await begin(streamer)
        with pytest.raises(ValueError, match="got 3x3") as caught:  # refers to the traceback
            await streamer.run(data_id, iter([noise(0), noise(1, shape=(3, 3)), noise(2)]))
        left = [thread for thread in threading.enumerate() if thread.name.startswith("atomstream-run")]
        for thread in left:
            thread.join(60)
        assert not any(thread.is_alive() for thread in left), caught
        assert (await streamer.finalize(data_id))["chunks_uploaded"] == 1


async def test_close_with_nonsense_closes_nothing(service: MemoryService) -> None:
    """close() with an invalid timeout raises an error and closes nothing; it can be called again."""
    streamer = make_async(service.url, KEY)
    data_id = await begin(streamer, 0)
    with pytest.raises(ConfigError, match="drain_timeout_s"):
        await streamer.close(float("nan"))
    await streamer.finalize(data_id)
    await streamer.close()


async def test_cancelling_a_push_that_waits(service: MemoryService, no_disk: Path) -> None:
    """A push that is cancelled before its acceptance uses no index; the next push gets it (P21)."""
    service.faults["put"].append(held(go_on := asyncio.Event()))
    async with make_async(service.url, KEY, buffer_bytes=1, spool_dir=no_disk) as streamer:
        data_id = await begin(streamer, 0)
        waiting = asyncio.create_task(streamer.push(data_id, 1, noise(99)))
        await waits(streamer)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go_on.set()
        await streamer.push(data_id, 1, noise(1))
        report = await streamer.finalize(data_id)
    assert (report["chunks_spooled"], report["lost"]) == (2, [])
    np.testing.assert_array_equal(service.chunk(data_id, 1), noise(1))


async def test_cancelling_a_run(service: MemoryService, no_disk: Path) -> None:
    """A cancelled run loses no accepted frames, and another run continues after it (P21)."""
    service.faults["put"].append(held(go_on := asyncio.Event()))
    async with make_async(service.url, KEY, buffer_bytes=1, spool_dir=no_disk) as streamer:
        data_id = await begin(streamer)
        running = asyncio.create_task(streamer.run(data_id, (noise(k) for k in range(5))))
        await waits(streamer)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        go_on.set()
        await streamer.run(data_id, [noise(7)])
        report = await streamer.finalize(data_id)
    assert (report["chunks_uploaded"], report["lost"]) == (2, [])
    np.testing.assert_array_equal(service.chunk(data_id, 0), noise(0))
    np.testing.assert_array_equal(service.chunk(data_id, 1), noise(7))


async def test_single_frames_and_chunks_of_one_stream_share_the_room(
    service: MemoryService, no_disk: Path
) -> None:
    """If the push_frame buffer of a stream uses all memory, push sends this buffer instead of waiting forever."""
    async with make_async(service.url, KEY, buffer_bytes=1, spool_dir=no_disk) as streamer:
        data_id = await begin(streamer)
        await streamer.push_frame(data_id, noise(0)[0])
        await asyncio.wait_for(streamer.push(data_id, 5, noise(5)), 60)
        with pytest.warns(RuntimeWarning, match="never pushed"):
            report = await streamer.finalize(data_id)
    assert report["chunks_uploaded"] == 2


async def test_streams_that_gather_frames_do_not_block_each_other(
    service: MemoryService, no_disk: Path
) -> None:
    """Half-filled push_frame buffers of other streams with paused cameras leave room for one chunk."""
    async with make_async(service.url, KEY, buffer_bytes=1, spool_dir=no_disk) as streamer:
        paused = [await begin(streamer) for _ in range(3)]
        for data_id in paused:
            await asyncio.wait_for(streamer.push_frame(data_id, noise(0)[0]), 60)
        live = await begin(streamer)
        for k in range(3):
            await asyncio.wait_for(streamer.push(live, k, noise(k)), 60)
        for data_id in (live, *paused):
            assert (await streamer.finalize(data_id))["lost"] == []


@pytest.mark.parametrize("on_full", ["drop_newest", "drop_oldest"])
async def test_frames_that_find_no_room_are_dropped_by_policy(
    service: MemoryService, no_disk: Path, on_full: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """With a drop policy push and push_frame never wait; each drop is counted, logged and reported (P8)."""
    service.fault_for = lambda attempt: answers(503)
    settings = {"buffer_bytes": 8_000, "spool_dir": no_disk, "on_full": on_full}
    async with make_async(service.url, KEY, **settings) as streamer:
        data_id = await begin(streamer, *range(12))
        for frame in noise(20, n=4 * CHUNK):
            await streamer.push_frame(data_id, frame)
        service.fault_for = lambda attempt: None
        with pytest.warns(RuntimeWarning, match="dropped"):
            report = await streamer.finalize(data_id)
    assert_sums(report)
    assert report["chunks_dropped"] == len(report["lost"]) > 0
    assert all(on_full in reason for _, reason in report["lost"]), report["lost"]
    assert caplog.text.count("was dropped") == report["chunks_dropped"]
    kept = set(service.chunk_indices(data_id))
    assert len(kept) == report["chunks_uploaded"]
    assert kept.isdisjoint(index for index, _ in report["lost"])


async def test_no_room_can_be_an_error(service: MemoryService, no_disk: Path) -> None:
    """on_full='raise' and full_timeout_s raise BufferFullError; no index is used and nothing is lost (P8)."""
    for policy in ({"on_full": "raise"}, {"full_timeout_s": 0.05}):
        service.fault_for = lambda attempt: answers(503)
        async with make_async(service.url, KEY, buffer_bytes=1, spool_dir=no_disk, **policy) as streamer:
            data_id = await begin(streamer, 0)
            with pytest.raises(BufferFullError, match="used no index"):
                await streamer.push(data_id, 1, noise(1))
            with pytest.raises(BufferFullError, match="used no index"):
                await streamer.push_frame(data_id, noise(1)[0])
            service.fault_for = lambda attempt: None
            await streamer.flush(data_id)
            await streamer.push(data_id, 1, noise(1))
            assert (await streamer.finalize(data_id))["chunks_uploaded"] == 2


async def test_a_failed_time_server_fails_nothing_else(
    service: MemoryService, caplog: pytest.LogCaptureFixture
) -> None:
    """Without reference time, chunks have uncorrected times and no clock values; one warning reports it."""
    streamer = make_async(service.url, KEY, clock_sync=True)
    service.fail_next(100, step="time", status=500)
    async with streamer:
        data_id = await begin(streamer, 0, 1)
        assert await streamer.clock_status() is None
        assert (await streamer.finalize(data_id))["chunks_uploaded"] == 2
    forms = [one.body for one in service.requests if one.path.endswith("/upload_urls/")]
    assert forms
    assert not any(b"clock_" in form for form in forms)
    assert caplog.text.count("Reference time could not be measured") == 1


@pytest.mark.parametrize("method", ["__aenter__", "spool_status"])
def test_a_loop_of_another_library_is_refused(tmp_path: Path, method: str) -> None:
    """In an application of trio, where no event loop of asyncio runs, the error names both and what to do."""
    streamer = AsyncRHEEDStreamer("key", "http://127.0.0.1:9", spool_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"needs asyncio.*trio\.to_thread"):
        getattr(streamer, method)().send(None)
