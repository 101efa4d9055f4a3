"""``atomstream.testing``: what users write their own tests with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientSession, web

from atomstream import AsyncRHEEDStreamer, RHEEDStreamer
from atomstream.errors import ConfigError, DrainTimeoutError, ServiceError
from atomstream.sources import GrowthSpec, Simulator
from atomstream.testing import Attempt, MemoryService, SimulatedCamera, running_server
from tests.paths import REPO
from tests.scripts import run_python
from tests.streaming.stream_helpers import hurry
from tests.test_imports import loaded_after

pytest_plugins = ["pytester"]

SPEC = GrowthSpec(height=16, width=24, fps=4.0)
CHUNK = 8


def frames_of(seed: int, n: int = CHUNK) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 16, 20), dtype=np.uint8)


def streamer_to(service: MemoryService, spool: Path, **settings: Any) -> AsyncRHEEDStreamer:
    return AsyncRHEEDStreamer(
        service.api_key, service.url, spool_dir=spool, spool_min_free_bytes=0, clock_sync=False, **settings
    )


async def begin(streamer: AsyncRHEEDStreamer, *seeds: int) -> str:
    """A new stream with one chunk of random frames for each seed."""
    data_id = await streamer.initialize(4.0, 0.0, CHUNK)
    for index, seed in enumerate(seeds):
        await streamer.push(data_id, index, frames_of(seed))
    return data_id


async def test_the_service_keeps_what_it_is_sent(tmp_path: Path) -> None:
    """In an event loop the service returns chunks, their frames and the end of the stream as they were sent."""
    async with MemoryService() as service, streamer_to(service, tmp_path) as streamer:
        data_id = await begin(streamer, 1, 2)
        assert not service.ended(data_id)
        await streamer.finalize(data_id)
        assert service.data_ids == [data_id]
        assert service.chunk_indices(data_id) == [0, 1]
        assert service.ended(data_id)
    np.testing.assert_array_equal(service.chunk(data_id, 1), frames_of(2))
    np.testing.assert_array_equal(service.frames(data_id), np.concatenate([frames_of(1), frames_of(2)]))


def test_the_service_serves_blocking_programs(tmp_path: Path) -> None:
    """In ``with`` it runs in a thread; a camera that drops frames delivers the others, in order."""
    camera = SimulatedCamera(SPEC, n_frames=20, dropped={5, 6})
    with MemoryService() as service:
        with RHEEDStreamer(service.api_key, service.url, spool_dir=tmp_path) as streamer:
            data_id = streamer.initialize(SPEC.fps, 0.0, CHUNK)
            for frame in camera:
                streamer.push_frame(data_id, frame.pixels, frame.time_ms_utc, frame.frame_id)
            streamer.finalize(data_id)
        sizes = [len(service.chunk(data_id, index)) for index in service.chunk_indices(data_id)]
    assert sizes == [8, 8, 2]  # a gap that is shorter than a chunk ends no chunk
    np.testing.assert_array_equal(service.frames(data_id), camera.delivered_frames)


async def test_a_stream_without_chunks_has_no_frames(tmp_path: Path) -> None:
    """``frames`` of an empty stream is an empty array, not an error."""
    async with MemoryService() as service, streamer_to(service, tmp_path) as streamer:
        assert service.frames(await begin(streamer)).shape == (0, 0, 0)


async def test_what_is_not_stored_is_a_key_error(tmp_path: Path) -> None:
    """A chunk or a stream that the service does not have is a KeyError, and asking for it stores nothing."""
    async with MemoryService() as service, streamer_to(service, tmp_path) as streamer:
        data_id = await begin(streamer, 1)
        await streamer.flush(data_id)
        with pytest.raises(KeyError):
            service.chunk(data_id, 1)
        assert service.chunk_indices(data_id) == [0]
        assert service.uploads(data_id, 1) == []
        for read in (service.chunk_indices, service.frames, service.ended):
            with pytest.raises(KeyError):
                read("unknown")
        async with ClientSession() as session:
            url = f"{service.url}/blob/unknown/frames.zarr/frames/c/0/0/0"
            async with session.put(url, data=b"x") as reply:
                assert reply.status == 404
    assert service.data_ids == [data_id]


async def test_a_chunk_that_was_announced_is_not_stored(tmp_path: Path) -> None:
    """A chunk whose upload URL was requested but not used yet is a KeyError."""
    async with MemoryService() as service, streamer_to(service, tmp_path) as streamer:
        service.hold_uploads()
        data_id = await begin(streamer, 1)
        with pytest.raises(DrainTimeoutError):
            await streamer.flush(data_id, timeout_s=0.1)
        with pytest.raises(KeyError):
            service.chunk(data_id, 0)
        assert service.chunk_indices(data_id) == []
        service.release_uploads()
        await streamer.flush(data_id)
        assert service.chunk_indices(data_id) == [0]


async def test_uploads_that_fail_are_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary faults, with and without an answer, cost attempts and no frames."""
    hurry(monkeypatch)
    async with MemoryService() as service, streamer_to(service, tmp_path) as streamer:
        service.fail_next(2)
        service.break_next()
        service.fail_next(step="url", status=429, Retry_After="0")
        data_id = await begin(streamer, 1)
        report = await streamer.finalize(data_id)
    assert report["chunks_uploaded"] == 1
    assert [one.method for one in service.requests].count("PUT") == 4
    np.testing.assert_array_equal(service.frames(data_id), frames_of(1))


async def test_a_chunk_that_is_refused_is_reported(tmp_path: Path) -> None:
    """A final fault costs the chunk that it answers, and no other."""
    async with MemoryService() as service, streamer_to(service, tmp_path, upload_concurrency=1) as streamer:
        service.fail_next(status=400)
        data_id = await begin(streamer, 1, 2)
        with pytest.warns(RuntimeWarning, match="1 missing chunk"):
            report = await streamer.finalize(data_id)
    assert report["chunks_failed"] == 1
    assert len(service.chunk_indices(data_id)) == 1


async def test_a_creation_that_is_refused_is_an_error(tmp_path: Path) -> None:
    """``step="create"`` fails ``initialize``; nothing was made."""
    async with MemoryService() as service, streamer_to(service, tmp_path) as streamer:
        service.fail_next(step="create", status=400)
        with pytest.raises(ServiceError, match="a fault that the test asked for"):
            await begin(streamer)
    assert service.data_ids == []


async def test_uploads_can_be_held(tmp_path: Path) -> None:
    """While uploads are held nothing is stored and ``push`` returns; after the release all arrives."""
    async with MemoryService() as service, streamer_to(service, tmp_path) as streamer:
        service.hold_uploads()
        data_id = await begin(streamer, 1, 2)
        with pytest.raises(DrainTimeoutError):
            await streamer.finalize(data_id, drain_timeout_s=0.1)
        assert service.chunk_indices(data_id) == []
        service.release_uploads()
        assert (await streamer.finalize(data_id))["chunks_uploaded"] == 2


async def test_the_service_can_be_slow(tmp_path: Path) -> None:
    """A delayed upload is not stored before its delay has passed."""
    async with MemoryService() as service, streamer_to(service, tmp_path) as streamer:
        service.delay_s = 1000.0
        data_id = await begin(streamer, 1)
        with pytest.raises(DrainTimeoutError):
            await streamer.flush(data_id, timeout_s=0.1)
        assert service.chunk_indices(data_id) == []


async def test_the_key_can_be_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``refuse_key`` the stream pauses; it continues when the key is accepted again."""
    hurry(monkeypatch)
    async with MemoryService() as service, streamer_to(service, tmp_path) as streamer:
        data_id = await streamer.initialize(4.0, 0.0, CHUNK)
        service.refuse_key = True
        await streamer.push(data_id, 0, frames_of(1))
        with pytest.raises(DrainTimeoutError):
            await streamer.flush(data_id, timeout_s=0.1)
        service.refuse_key = False
        assert (await streamer.finalize(data_id))["chunks_uploaded"] == 1


async def test_a_server_in_the_loop_restarts_in_place(tmp_path: Path) -> None:
    """``async with running_server``: after a stop and a start its URL, key and archives are the same."""
    async with running_server(tmp_path / "data") as server:
        async with AsyncRHEEDStreamer(server.api_key, server.url, spool_dir=tmp_path / "spool") as streamer:
            data_id = await begin(streamer, 3)
            before = server.url, server.api_key
            await server.stop()
            await server.start()
            assert (server.url, server.api_key) == before
            await streamer.finalize(data_id)
        np.testing.assert_array_equal(server.frames(data_id), frames_of(3))


def test_a_server_for_blocking_programs(tmp_path: Path) -> None:
    """``with running_server()``: settings are passed on, and its temporary folder is removed at the end."""
    with running_server(api_key="lab-key-0123456789-abcdefghij") as server:
        assert server.api_key == "lab-key-0123456789-abcdefghij"
        with RHEEDStreamer("lab-key-0123456789-abcdefghij", server.url, spool_dir=tmp_path) as streamer:
            data_id = streamer.initialize(4.0, 0.0, CHUNK)
            streamer.push(data_id, 0, frames_of(4))
            streamer.finalize(data_id)
        np.testing.assert_array_equal(server.frames(data_id), frames_of(4))
        assert server.folder(data_id).is_dir()
    assert not server.data_dir.exists()


def test_the_camera_counts_and_times_dropped_frames() -> None:
    """Counter and clock go on over dropped frames; the pixels are the simulator's."""
    camera = SimulatedCamera(SPEC, n_frames=6, dropped={2}, start_ms_utc=1000.0)
    frames = list(camera)
    assert [frame.frame_id for frame in frames] == [0, 1, 3, 4, 5]
    assert [frame.time_ms_utc for frame in frames] == [1000.0, 1250.0, 1750.0, 2000.0, 2250.0]
    expected = Simulator(SPEC).frames(0, 6)[[0, 1, 3, 4, 5]]
    np.testing.assert_array_equal(np.stack([frame.pixels for frame in frames]), expected)
    np.testing.assert_array_equal(camera.delivered_frames, expected)


@pytest.mark.parametrize("real_time", [False, True])
async def test_the_camera_in_an_event_loop(real_time: bool) -> None:
    """``async for`` delivers the same frames, at once or at the camera's pace."""
    film = frames_of(5, 4)
    camera = SimulatedCamera(film, fps=1000.0, dropped={0}, real_time=real_time)
    frames = [frame async for frame in camera]
    np.testing.assert_array_equal(np.stack([frame.pixels for frame in frames]), film[1:])


def test_the_camera_captures_arrays() -> None:
    """``capture`` continues where the last one ended; at the end there are fewer frames, then none."""
    film = frames_of(6, 5)
    camera = SimulatedCamera(film, fps=1000.0, real_time=True)
    np.testing.assert_array_equal(camera.capture(3), film[:3])
    np.testing.assert_array_equal(camera.capture(3), film[3:])
    assert camera.capture(3).shape == (0, 16, 20)


def test_the_camera_calls_back_in_a_thread() -> None:
    """``start`` calls back with each frame; ``wait`` raises what a callback raised."""
    film = frames_of(7, 3)
    numbers: list[int] = []
    camera = SimulatedCamera(film)
    camera.start(lambda frame: numbers.append(frame.frame_id))
    camera.wait()
    assert numbers == [0, 1, 2]

    def fail(frame: object) -> None:
        raise ValueError("the callback's own")

    failing = SimulatedCamera(film)
    failing.start(fail)
    with pytest.raises(ValueError, match="the callback's own"):
        failing.wait()


def test_what_the_camera_refuses() -> None:
    """More frames than the array has, and a second frame rate beside a growth's own, are errors."""
    with pytest.raises(ConfigError, match="the array has 3 frames"):
        SimulatedCamera(frames_of(8, 3), n_frames=4)
    with pytest.raises(ConfigError, match="its own frame rate"):
        SimulatedCamera(SPEC, fps=10.0)


USERS_TESTS = """
import numpy as np
from atomstream import RHEEDStreamer

def stream():  # the program under test
    with RHEEDStreamer() as streamer:
        data_id = streamer.initialize(4.0, 0.0, 8)
        streamer.push(data_id, 0, np.ones((8, 16, 20), np.uint8))
        streamer.finalize(data_id)
    return data_id

def test_with_service(atomstream_service):
    assert (atomstream_service.frames(stream()) == 1).all()

def test_with_server(atomstream_server):
    assert (atomstream_server.frames(stream()) == 1).all()
"""


@pytest.mark.slow
def test_the_fixtures(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaded as a plugin it gives both fixtures, and streamers without arguments use them."""
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    pytester.makeconftest('pytest_plugins = ["atomstream.testing"]\n')
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(USERS_TESTS)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=2)


def test_it_is_loaded_on_request_only() -> None:
    """The streamers do not load it, and it does not need pytest."""
    script = (
        "import sys\nsys.modules['pytest'] = None\nimport atomstream.testing as testing\n"
        "assert 'aiohttp' not in sys.modules and 'atomstream.server' not in sys.modules\n"
        "assert testing.MemoryService and not hasattr(testing, 'atomstream_server')\n"
    )
    assert loaded_after("import atomstream.streaming", ["atomstream.testing"]) == []
    done = run_python("-c", script)
    assert done.returncode == 0, done.stderr


async def test_it_can_be_used_twice(tmp_path: Path) -> None:
    """After its end a service can be started again and keeps what it had; stopping twice is harmless."""
    service = MemoryService()
    for seed in (1, 2):
        async with service, streamer_to(service, tmp_path / str(seed)) as streamer:
            await streamer.finalize(await begin(streamer, seed))
        await service.stop()
    assert len(service.data_ids) == 2


async def test_faults_for_single_chunks(tmp_path: Path) -> None:
    """A fault for one chunk affects no other; attempts, uploads and ids are those of the test."""
    async with MemoryService() as service, streamer_to(service, tmp_path) as streamer:
        service.next_ids.append("6b7c1c1e-3a50-4a4e-9f5c-0d6d1d6c7f10")
        refused = web.json_response({"detail": "not this one"}, status=422)
        service.fault_for = lambda attempt: (lambda request: refused) if attempt[::2] == ("put", 1) else None
        data_id = await begin(streamer, 1, 2, 3)
        with pytest.warns(RuntimeWarning, match="not this one"):
            report = await streamer.finalize(data_id)
        assert data_id == "6b7c1c1e-3a50-4a4e-9f5c-0d6d1d6c7f10"
        assert (report["chunks_uploaded"], report["chunks_failed"]) == (2, 1)
        assert sorted(service.attempts) == sorted(
            [Attempt(step, data_id, index) for step in ("url", "put") for index in range(3)]
            + [Attempt("end", data_id, -1)]
        )
        assert [len(service.uploads(data_id, index)) for index in range(3)] == [1, 0, 1]


async def test_a_fault_of_the_clock() -> None:
    """The request for the server's time can fail too, and it is recorded with its time of arrival."""
    async with MemoryService() as service:
        service.fail_next(step="time", status=500)
        async with ClientSession() as session:
            for expected in (500, 200):
                async with session.get(f"{service.url}/gateway/time") as reply:
                    assert reply.status == expected
        arrived = [request.received_s for request in service.requests]
        assert arrived == sorted(arrived)
