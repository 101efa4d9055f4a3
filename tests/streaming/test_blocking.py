"""The blocking streamer for scripts, threads and notebooks (P21, P22)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import atomstream
from atomstream import RHEEDStreamer
from atomstream.errors import (
    ChunkConflictError,
    ClosedError,
    ConfigError,
    ConnectionFailedError,
    UnknownStreamError,
)
from tests.live_server import ThreadedServer
from tests.streaming.stream_helpers import CHUNK, FPS, assert_arrived, assert_sums, noise, stored

START_MS = 1_735_689_600_000.0


@pytest.fixture
def server(serve_in_thread: Callable[..., ThreadedServer]) -> ThreadedServer:
    return serve_in_thread()


@pytest.fixture
def streamer(server: ThreadedServer) -> Iterator[RHEEDStreamer]:
    with RHEEDStreamer(server.api_key, server.url, spool_min_free_bytes=0) as made:
        yield made


def begin(streamer: RHEEDStreamer, **more: Any) -> str:
    return streamer.initialize(fps=FPS, rotations_per_min=0.0, chunk_size=CHUNK, **more)


def test_a_script_that_pushes(server: ThreadedServer, streamer: RHEEDStreamer) -> None:
    """The guide's push mode: chunks by index, then finalize, and the archive equals them."""
    data_id = begin(streamer, stream_name="Growth 001", physical_sample="GaN-2025-001", tags=["night"])
    for k in range(3):
        streamer.push(data_id, k, noise(k))
    report = streamer.finalize(data_id)
    assert_sums(report)
    assert (report["chunks_uploaded"], report["closed"]) == (3, True)
    assert_arrived(server, data_id, [0, 1, 2])


def test_a_push_needs_no_loop(server: ThreadedServer, streamer: RHEEDStreamer) -> None:
    """While the streamer's event loop is busy, chunks are accepted if there is memory for them."""
    data_id = begin(streamer)
    reached, go_on = threading.Event(), threading.Event()

    async def hold() -> None:
        reached.set()
        go_on.wait(60)

    holding = streamer._loop_thread.start(hold)
    assert reached.wait(60)
    try:
        for k in range(3):
            streamer.push(data_id, k, noise(k))
    finally:
        go_on.set()
    holding.result(60)
    streamer.finalize(data_id)
    assert_arrived(server, data_id, [0, 1, 2])


def test_a_script_that_never_closes_its_streamer(server: ThreadedServer) -> None:
    """Without close the streamer still works, and is closed with the interpreter (see test_processes)."""
    streamer = RHEEDStreamer(server.api_key, server.url, spool_min_free_bytes=0)
    data_id = begin(streamer)
    streamer.run(data_id, (noise(k) for k in range(2)))
    streamer.finalize(data_id)
    assert_arrived(server, data_id, [0, 1])
    atomstream.streaming.blocking_streamer._close_all()
    with pytest.raises(ClosedError):
        streamer.stats()


def test_run_takes_what_a_generator_yields(server: ThreadedServer, streamer: RHEEDStreamer) -> None:
    """Chunks, larger items, single frames and tuples with a time, mixed: all frames arrive in order (P5)."""
    data_id = begin(streamer)
    frames = noise(9, n=30)

    def items() -> Iterator[Any]:
        yield frames[:4]
        yield frames[4:15], START_MS  # more than two chunks
        yield from frames[15:18]
        yield frames[18:20]  # ends the chunk that the single ones had begun
        yield frames[20], START_MS + 9_000
        yield from frames[21:29]
        yield frames[29:]

    streamer.run(data_id, items())
    report = streamer.finalize(data_id)
    sizes = server.archive(data_id).chunks()
    assert list(sizes.values()) == [4, 4, 4, 3, 3, 2, 4, 4, 1, 1]
    assert (report["chunks_uploaded"], report["lost"]) == (10, [])
    starts = [server.archive(data_id).stamps(k).start_unix_ms for k in (1, 2, 3)]
    assert starts == [START_MS, START_MS + 2_000, START_MS + 4_000]
    every = stored(server, data_id)
    np.testing.assert_array_equal(
        np.concatenate([every[k * CHUNK : k * CHUNK + n] for k, n in sizes.items()]), frames
    )


def test_a_second_run_goes_on(server: ThreadedServer, streamer: RHEEDStreamer) -> None:
    """run and push_frame go on from the stream's next index, after pushes too (P5)."""
    data_id = begin(streamer)
    streamer.run(data_id, [noise(0), noise(1)])
    streamer.run(data_id, [noise(2)])
    streamer.push(data_id, 3, noise(3))
    streamer.run(data_id, iter([noise(4)]))
    for frame in noise(5):
        streamer.push_frame(data_id, frame)
    streamer.finalize(data_id)
    assert_arrived(server, data_id, [0, 1, 2, 3, 4, 5])


def test_a_generator_that_raises(server: ThreadedServer, streamer: RHEEDStreamer) -> None:
    """run raises the generator's error unchanged; frames from before the error are delivered."""
    data_id = begin(streamer)

    def broken() -> Iterator[Any]:
        yield noise(0)
        raise OSError("camera unplugged")

    with pytest.raises(OSError, match="camera unplugged"):
        streamer.run(data_id, broken())
    streamer.run(data_id, [noise(1)])
    streamer.finalize(data_id)
    assert_arrived(server, data_id, [0, 1])


@pytest.mark.parametrize("wrong", [7, None, noise])
def test_run_needs_an_iterable(streamer: RHEEDStreamer, wrong: Any) -> None:
    """run of something that is not iterable raises TypeError."""
    with pytest.raises(TypeError, match="run\\(\\) takes an iterable of frames"):
        streamer.run(begin(streamer), wrong)


def test_an_async_iterable_needs_the_async_streamer(streamer: RHEEDStreamer) -> None:
    """The blocking run iterates in the calling thread: an asynchronous iterable raises TypeError."""

    async def frames() -> AsyncIterator[Any]:
        yield noise(0)

    with pytest.raises(TypeError, match="iterable"):
        streamer.run(begin(streamer), frames())  # type: ignore[arg-type]


@pytest.mark.parametrize("items", [[], [noise(0)]])
def test_run_on_no_stream_is_an_error_at_once(streamer: RHEEDStreamer, items: list[Any]) -> None:
    """A wrong data_id raises an error before the first frame is taken from the camera."""
    begin(streamer)
    taken = []

    def camera() -> Iterator[Any]:
        for item in items:
            taken.append(item)
            yield item

    with pytest.raises(UnknownStreamError):
        streamer.run("nobody", camera())
    assert taken == []


def test_run_is_iterated_on_the_callers_thread(streamer: RHEEDStreamer) -> None:
    """Camera handles belong to the thread that opened them: the generator runs in it."""
    threads = set()

    def camera() -> Iterator[Any]:
        threads.add(threading.get_ident())
        yield noise(0)

    streamer.run(begin(streamer), camera())
    assert threads == {threading.get_ident()}


def test_many_threads_push_to_many_streams(server: ThreadedServer, streamer: RHEEDStreamer) -> None:
    """Eight threads on three streams, through small buffers: every chunk arrives at its index."""
    streams = [begin(streamer) for _ in range(3)]
    jobs = [(data_id, k) for k in range(16) for data_id in streams]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda job: streamer.push(job[0], job[1], noise(job[1])), jobs))
        reports = list(pool.map(streamer.finalize, streams))
    for data_id, report in zip(streams, reports, strict=True):
        assert report["chunks_uploaded"] == 16
        assert_arrived(server, data_id, list(range(16)))


def test_threads_that_push_one_index(server: ThreadedServer, streamer: RHEEDStreamer) -> None:
    """If several threads push different frames with one index, one succeeds and the others get an error (P5)."""
    data_id = begin(streamer)

    def push(seed: int) -> int | None:
        try:
            streamer.push(data_id, 0, noise(seed))
        except ChunkConflictError:
            return None
        return seed

    with ThreadPoolExecutor(4) as pool:
        won = [seed for seed in pool.map(push, range(4)) if seed is not None]
    assert len(won) == 1
    streamer.finalize(data_id)
    assert_arrived(server, data_id, won)


def test_frames_from_a_cameras_callback(server: ThreadedServer, streamer: RHEEDStreamer) -> None:
    """push_frame works in a thread of the camera; its ids and angles are stored with the frames."""
    data_id = begin(streamer)
    frames = noise(3, n=3 * CHUNK)

    def camera() -> None:
        for k, frame in enumerate(frames):
            streamer.push_frame(data_id, frame, START_MS + 500.0 * k, frame_id=100 + k, angle_deg=1.5 * k)

    thread = threading.Thread(target=camera)
    thread.start()
    thread.join()
    streamer.finalize(data_id)
    np.testing.assert_array_equal(stored(server, data_id), frames)
    stamps = [server.archive(data_id).stamps(k) for k in range(3)]
    assert [stamp.start_unix_ms for stamp in stamps] == [START_MS + 2_000.0 * k for k in range(3)]
    meta = [stamp.meta for stamp in stamps]
    assert sum((one.ids for one in meta), ()) == tuple(range(100, 112))
    assert sum((one.angles_deg for one in meta), ()) == tuple(1.5 * k for k in range(12))
    assert sum((one.times_ms for one in meta), ()) == tuple(START_MS + 500.0 * k for k in range(12))


def test_a_lost_frame_is_counted(server: ThreadedServer, streamer: RHEEDStreamer) -> None:
    """A gap in the camera's counter is counted; the chunk stays whole, and its frames keep their times."""
    data_id = begin(streamer)
    for frame_id, frame in zip([0, 1, 5, 6, 7, 8], noise(1, n=6), strict=True):
        streamer.push_frame(data_id, frame, frame_id=frame_id)
    assert streamer.stats()["streams"][data_id]["frame_gaps"] == 1
    streamer.finalize(data_id)
    archive = server.archive(data_id)
    assert archive.chunks() == {0: 4, 1: 2}
    stamps = archive.stamps(0)
    assert stamps is not None
    assert np.diff(stamps.times_unix_ms()).tolist() == [500.0, 2000.0, 500.0]


def test_inside_a_running_loop(server: ThreadedServer) -> None:
    """The blocking methods work inside a running event loop, as in a notebook, and the loop continues after them."""

    async def cell() -> str:
        with RHEEDStreamer(server.api_key, server.url, spool_min_free_bytes=0) as streamer:
            data_id = begin(streamer)
            streamer.push(data_id, 0, noise(0))
            streamer.run(data_id, (frames for frames in [noise(1)]))
            streamer.push_frame(data_id, noise(2)[0])
            streamer.finalize(data_id)
        await asyncio.sleep(0)
        return data_id

    data_id = asyncio.run(cell())
    np.testing.assert_array_equal(stored(server, data_id), np.concatenate([noise(0), noise(1), noise(2)[:1]]))


def test_a_failure_in_the_background_reaches_the_caller(
    streamer: RHEEDStreamer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in a background thread is raised unchanged by the next call, not only logged (P22)."""

    def no_memory(*args: object, **rest: object) -> None:
        raise MemoryError("none left")

    monkeypatch.setattr("atomstream.pipeline.encoder.ShardEncoder.compress", no_memory)
    data_id = begin(streamer)
    streamer.push(data_id, 0, noise(0))
    with pytest.raises(MemoryError, match="none left"):
        streamer.finalize(data_id)
    with pytest.raises(MemoryError, match="none left"):
        streamer.push(data_id, 1, noise(1))


def test_a_stage_that_dies_reaches_the_caller(
    streamer: RHEEDStreamer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error between encoder and uploader ends a wait with that error (P22)."""

    def wrong(*args: object, **rest: object) -> None:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr("atomstream.pipeline.rate_meter.ThroughputMeter.encoded", wrong)
    data_id = begin(streamer)
    streamer.push(data_id, 0, noise(0))
    with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
        streamer.finalize(data_id, drain_timeout_s=20.0)


def test_closing_twice_and_using_it_after(server: ThreadedServer) -> None:
    """close() may be called several times and from several threads; all other methods then raise ClosedError."""
    streamer = RHEEDStreamer(server.api_key, server.url, spool_min_free_bytes=0)
    data_id = begin(streamer)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: streamer.close(), range(4)))
    streamer.close()
    for verb in (
        lambda: streamer.push(data_id, 0, noise(0)),
        lambda: streamer.push_frame(data_id, noise(0)[0]),
        lambda: streamer.run(data_id, [noise(0)]),
        lambda: streamer.finalize(data_id),
        streamer.stats,
    ):
        with pytest.raises(ClosedError, match="closed"):
            verb()


def test_closing_ends_a_push_that_waits(server: ThreadedServer, tmp_path: Any) -> None:
    """A thread that waits for room gets ClosedError when another one closes the streamer."""
    (tmp_path / "file").touch()
    streamer = RHEEDStreamer(server.api_key, server.url, spool_dir=tmp_path / "file" / "no", buffer_bytes=1)
    data_id = begin(streamer)
    server.stop()
    streamer.push(data_id, 0, noise(0))
    with ThreadPoolExecutor(1) as pool:
        pushing = pool.submit(streamer.push, data_id, 1, noise(1))
        while not streamer.stats()["pushes_waiting"]:
            time.sleep(0.01)
        with pytest.warns(RuntimeWarning, match="lost"):
            streamer.close(drain_timeout_s=0.1)
        with pytest.raises(ClosedError, match="closed"):
            pushing.result(timeout=60)


def test_a_wrong_server_is_one_clear_sentence(tmp_path: Any) -> None:
    """No server, an invalid key or an invalid endpoint raises an error at once, which names what to do."""
    with pytest.raises(ConfigError, match="API key"):
        RHEEDStreamer()
    with pytest.raises(ConfigError, match="endpoint"):
        RHEEDStreamer("k", "localhost:8765")
    with pytest.raises(ConfigError, match="ATOMSTREAM_ENDPOINT"):
        RHEEDStreamer("atst_abc")
    with (
        RHEEDStreamer(
            "k", "http://127.0.0.1:9", spool_dir=tmp_path, clock_sync=False, when_unreachable="raise"
        ) as streamer,
        pytest.raises(ConnectionFailedError, match=r"no connection to http://127\.0\.0\.1:9"),
    ):
        begin(streamer)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"buffer_bytes": 0}, "buffer_bytes=0"),
        ({"buffer_bytes": 1.5}, "buffer_bytes"),
        ({"on_full": "explode"}, "on_full='explode'.*'wait'"),
        ({"durability": "tape"}, "durability='tape'"),
        ({"compression_level": 99}, "compression_level=99"),
        ({"encoder_threads": 0}, "encoder_threads=0"),
        ({"upload_concurrency": -1}, "upload_concurrency=-1"),
        ({"full_timeout_s": float("nan")}, "full_timeout_s"),
        ({"upload_timeout_s": 0}, "upload_timeout_s"),
        ({"buffer_byte": 1}, "buffer_byte"),
    ],
)
def test_invalid_settings(wrong: dict[str, Any], sentence: str) -> None:
    """A setting out of range, of the wrong type or misspelt raises an error with its name."""
    with pytest.raises((ConfigError, TypeError), match=sentence):
        RHEEDStreamer("k", "http://127.0.0.1:9", **wrong)
