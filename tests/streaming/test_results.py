"""Results at the client: every batch once, also across restarts; polling for a server without a feed; marks."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from atomstream import AsyncRHEEDStreamer, RHEEDStreamer
from atomstream.errors import ConfigError, NotFoundError, StreamError
from atomstream.sources import GrowthSpec, Simulator
from atomstream.streaming import ResultBatch
from tests.live_helpers import damage
from tests.live_server import LiveServer, Serve, ThreadedServer

FPS, CHUNK, RATE = 30.0, 60, 0.8
UNKNOWN = "9b2d6a5e-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def frames() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Eight seconds of a simulated growth."""
    return np.asarray(Simulator(GrowthSpec(240, 320, FPS, 3, rate_ml_s=RATE)).frames(0, 240))


def streamer_for(server: Any, tmp_path: Path, **settings: Any) -> AsyncRHEEDStreamer:
    """A client of this server."""
    return AsyncRHEEDStreamer(server.api_key, server.url, spool_dir=tmp_path / "spool", **settings)


async def push_all(
    streamer: AsyncRHEEDStreamer, data_id: str, frames: Any, first: int = 0, last: int = 4
) -> None:
    """Chunks ``first`` .. ``last - 1``, with their capture times."""
    for index in range(first, last):
        await streamer.push(
            data_id, index, frames[index * CHUNK :][:CHUNK], 1.7e12 + 1000.0 * index * CHUNK / FPS
        )


def covered(batches: list[ResultBatch]) -> list[int]:
    """Indices of the frames in the batches."""
    return [frame for batch in batches for frame in range(batch.start, batch.start + batch.count)]


async def test_results_until_the_analysis_has_ended(serve: Serve, tmp_path: Path, frames: Any) -> None:
    """results() yields every frame once, with rate and sigma, and ends after finalize."""
    async with streamer_for(await serve(), tmp_path) as streamer:
        data_id = await streamer.initialize(FPS, 0.0, CHUNK)
        await push_all(streamer, data_id, frames)
        await streamer.finalize(data_id)
        batches = [batch async for batch in streamer.results(data_id)]
    assert covered(batches) == list(range(240))
    last = batches[-1]
    assert last.final
    assert last.growth_rate_ml_s == pytest.approx(RATE, abs=0.01)
    assert last.growth_rate_sigma is not None
    assert "growth_rate_ml_s=0." in repr(last)
    assert np.isfinite(batches[3]["specular_intensity"]).all()
    assert batches[0].growth_rate_ml_s is None
    assert batches[0].value("growth_rate_ml_s").why
    np.testing.assert_allclose(batches[2].time_s, batches[2].start / FPS + np.arange(batches[2].count) / FPS)


@pytest.mark.slow
async def test_results_go_through_a_restart(serve: Serve, tmp_path: Path, frames: Any) -> None:
    """If the server restarts, the iteration continues; no frame is repeated or lost."""
    server: LiveServer = await serve()
    async with streamer_for(server, tmp_path) as streamer:
        data_id = await streamer.initialize(FPS, 0.0, CHUNK)
        await push_all(streamer, data_id, frames, 0, 2)
        batches: list[ResultBatch] = []
        restarted: asyncio.Task[None] | None = None
        async for batch in streamer.results(data_id):
            batches.append(batch)
            if restarted is None and batch.start + batch.count >= CHUNK:
                restarted = asyncio.create_task(_restart_and_end(server, streamer, data_id, frames))
        assert restarted is not None
        await restarted
    assert covered(batches) == list(range(240))
    assert [batch.seq for batch in batches] == sorted({batch.seq for batch in batches})


async def _restart_and_end(
    server: LiveServer, streamer: AsyncRHEEDStreamer, data_id: str, frames: Any
) -> None:
    await server.stop()
    await server.start()
    await push_all(streamer, data_id, frames, 2, 4)
    await streamer.finalize(data_id)


def test_blocking_twin(serve_in_thread: Callable[..., ThreadedServer], tmp_path: Path, frames: Any) -> None:
    """The blocking streamer yields the same results, an iteration can be stopped early, and latest() works."""
    server = serve_in_thread()
    with RHEEDStreamer(server.api_key, server.url, spool_dir=tmp_path / "spool") as streamer:
        data_id = streamer.initialize(FPS, 0.0, CHUNK)
        assert streamer.latest(data_id) is None
        for index in range(2):
            streamer.push(data_id, index, frames[index * CHUNK :][:CHUNK], 1.7e12 + 2000.0 * index)
        for batch in streamer.results(data_id):
            if batch.start + batch.count >= 30:
                break
        streamer.calibrate(data_id, layer_thickness_nm=0.3905)
        marked = streamer.mark(data_id, "Ga open", kind="shutter", time_ms_utc=1.7e12 + 3000.0)
        streamer.finalize(data_id)
        rest = list(streamer.results(data_id, after=batch.seq))
        assert covered(rest) == list(range(batch.start + batch.count, 120))
        deadline = time.monotonic() + 60.0
        # The first batch of latest() may be an older one; later ones follow.
        while (newest := streamer.latest(data_id)) is None or newest.seq < rest[-1].seq:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert rest[-1].value("growth_rate_nm_s").unit == "nm/s"
    assert "calibration" not in rest[-1].value("growth_rate_nm_s").why
    assert marked.time_s == pytest.approx(3.0)
    assert newest.seq == rest[-1].seq


async def test_unknown_stream(serve: Serve, tmp_path: Path) -> None:
    """A stream that the server does not have is one clear error, for results and marks."""
    async with streamer_for(await serve(), tmp_path) as streamer:
        with pytest.raises(NotFoundError):
            [batch async for batch in streamer.results(UNKNOWN)]
        with pytest.raises(NotFoundError):
            await streamer.mark(UNKNOWN, "here")


async def test_marks_are_checked_before_they_are_sent(serve: Serve, tmp_path: Path) -> None:
    """An invalid kind, label or rpm raises an error before anything is sent."""
    async with streamer_for(await serve(), tmp_path) as streamer:
        for wrong in ({"kind": "Two words"}, {"label": "x" * 201}, {"time_ms_utc": -1e20}):
            with pytest.raises(ConfigError):
                await streamer.mark(UNKNOWN, **{"label": "x", **wrong})
        with pytest.raises(ConfigError):
            await streamer.set_rotation(UNKNOWN, -1.0)
        with pytest.raises(TypeError):
            await streamer.mark(UNKNOWN, 5)  # type: ignore[arg-type]


async def test_calibrated_from_python(serve: Serve, tmp_path: Path, frames: Any) -> None:
    """calibrate() before the first chunk gives all rates in nm/s too; invalid values raise errors."""
    async with streamer_for(await serve(), tmp_path) as streamer:
        data_id = await streamer.initialize(FPS, 0.0, CHUNK)
        await streamer.calibrate(data_id, layer_thickness_nm=0.3905, layer_unit="unit cell")
        with pytest.raises(TypeError, match="px_per_mm"):
            await streamer.calibrate(data_id, px_per_mm="seven")  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="layer_unit"):
            await streamer.calibrate(data_id, layer_unit="")
        with pytest.raises(ConfigError, match=r"beam_energy=20000\.0 .* 1 \.\. 200 keV"):
            await streamer.calibrate(data_id, beam_energy=20000.0)
        await push_all(streamer, data_id, frames)
        await streamer.finalize(data_id)
        batches = [batch async for batch in streamer.results(data_id)]
    assert batches[-1].value("growth_rate_nm_s").value == pytest.approx(RATE * 0.3905, rel=0.02)
    assert not any("calibration" in batch.value("growth_rate_nm_s").why for batch in batches)


async def test_missing_results_are_warned_about_once(
    serve: Serve, tmp_path: Path, frames: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Missing chunks give one warning per reason, with the chunks, the reason and what to do."""
    server: LiveServer = await serve(analysis_shared_bytes=0)  # so that the shard itself has to be read
    async with streamer_for(server, tmp_path) as streamer:
        data_id = await streamer.initialize(FPS, 0.0, CHUNK)
        for index in (1, 3):  # not analysed before the missing chunk 0, and damaged until then
            await push_all(streamer, data_id, frames, index, index + 1)
            await streamer.flush(data_id)
            damage(server, data_id, index)
        for index in (0, 2):
            await push_all(streamer, data_id, frames, index, index + 1)
        await streamer.finalize(data_id)
        for _ in range(2):
            assert covered([batch async for batch in streamer.results(data_id)])
        whole = await streamer.initialize(FPS, 0.0, CHUNK)
        await push_all(streamer, whole, frames)
        await streamer.finalize(whole)
        caplog.clear()
        assert covered([batch async for batch in streamer.results(whole)]) == list(range(240))
        assert "do not include chunks" not in caplog.text
        assert covered([batch async for batch in streamer.results(data_id)])
    messages = [
        record.getMessage() for record in caplog.records if "do not include chunks" in record.getMessage()
    ]
    assert len(messages) == 1
    assert f"stream {data_id} do not include chunks 1, 3" in messages[0].replace("1,3", "1, 3")
    assert "analysed again" in messages[0]


async def test_late_chunks_are_warned_about(
    serve: Serve, tmp_path: Path, frames: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A chunk that arrives after the analysis has gone on without it gives a warning while the stream runs."""
    server: LiveServer = await serve(gap_wait_s=0.05)
    async with streamer_for(server, tmp_path) as streamer:
        data_id = await streamer.initialize(FPS, 0.0, CHUNK)
        await push_all(streamer, data_id, frames, 0, 1)
        await push_all(streamer, data_id, frames, 2, 3)
        seen = 0
        async for batch in streamer.results(data_id):
            seen = max(seen, batch.start + batch.count)
            if seen == 3 * CHUNK and "do not include chunks" not in caplog.text:
                seen = 0
                await push_all(streamer, data_id, frames, 1, 2)
                await streamer.flush(data_id)
                await push_all(streamer, data_id, frames, 3, 4)
                await streamer.finalize(data_id)
    messages = [
        record.getMessage() for record in caplog.records if "do not include chunks" in record.getMessage()
    ]
    assert len(messages) == 1
    assert f"stream {data_id} do not include chunks 1: they arrived after" in messages[0]


class PolledService:
    """A server without feed and announcement, like the hosted service, with one time series that grows."""

    def __init__(self) -> None:
        self.points = 3
        self.status = "stream_active"
        self.asked: list[str] = []

    def app(self) -> web.Application:
        """The application with the few paths of the service."""
        app = web.Application()
        app.router.add_post("/rheed/stream/", self.create)
        app.router.add_get("/rheed/timeseries/{data_id}/", self.series)
        app.router.add_get("/data_entries/", self.entries)
        return app

    async def create(self, _request: web.Request) -> web.Response:
        return web.json_response(UNKNOWN)

    async def series(self, request: web.Request) -> web.Response:
        self.asked.append(request.query_string)
        points = [
            {
                "frame_number": n,
                "relative_time_seconds": n / 10,
                "specular_intensity": 5.0 * n,
                "lattice_spacing": None,
            }
            for n in range(self.points)
        ]
        self.points, before = min(8, self.points + 2), self.points
        if before == 7:
            self.status = "success"
        return web.json_response({"series_by_angle": [{"angle": 0.0, "series": points}]})

    async def entries(self, _request: web.Request) -> web.Response:
        return web.json_response([{"data_id": UNKNOWN, "pipeline_status": self.status}])


class PolledServer:
    """Address and key of a running :class:`PolledService`."""

    def __init__(self, url: str, hosted: PolledService) -> None:
        self.url = url
        self.hosted = hosted
        self.api_key = "some-key"


@pytest.fixture
async def hosted() -> AsyncIterator[PolledServer]:
    """A running :class:`PolledService` on the loopback interface."""
    made = PolledService()
    runner = web.AppRunner(made.app())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield PolledServer(f"http://127.0.0.1:{runner.addresses[0][1]}", made)
    await runner.cleanup()


@pytest.fixture
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client poll for results without a pause between two requests."""
    monkeypatch.setattr("atomstream.streaming.subscription.POLL_S", 0.0)


@pytest.mark.usefixtures("quick_polls")
@pytest.mark.parametrize("own", [True, False])
async def test_polling_where_there_is_no_feed(hosted: PolledServer, tmp_path: Path, own: bool) -> None:
    """For a server without a feed the series is polled: each point once, until the stream has ended."""
    async with streamer_for(hosted, tmp_path, clock_sync=False) as streamer:
        if own:
            assert await streamer.initialize(FPS, 0.0, CHUNK) == UNKNOWN
        batches = [batch async for batch in streamer.results(UNKNOWN)]
    assert covered(batches) == list(range(8))
    assert np.concatenate([batch["specular_intensity"] for batch in batches]).tolist() == [
        5.0 * n for n in range(8)
    ]
    assert batches[0].value("specular_intensity").value == 10.0
    assert batches[0].lattice_spacing is None
    assert hosted.hosted.asked[0] == ""
    assert hosted.hosted.asked[1] == "last_n=1000"


async def test_no_events_without_announcement(hosted: PolledServer, tmp_path: Path) -> None:
    """For a server that did not announce itself, marks, calibration and attributes raise an error and send nothing."""
    async with streamer_for(hosted, tmp_path, clock_sync=False) as streamer:
        with warnings.catch_warnings():
            data_id = await streamer.initialize(FPS, 0.0, CHUNK)
        with pytest.raises(StreamError, match="stores no events"):
            await streamer.mark(data_id, "here")
        with pytest.raises(StreamError, match="stores no events"):
            await streamer.set_rotation(data_id, 12.0)
        with pytest.raises(StreamError, match="accepts no calibration"):
            await streamer.calibrate(data_id, beam_energy=20.0)
        with pytest.raises(StreamError, match="stores no attributes"):
            await streamer.set_attributes(data_id, {"camera": "sim"})
        with pytest.raises(TypeError, match="crop"):
            await streamer.set_attributes(data_id, {"crop": {"x": 1}})
