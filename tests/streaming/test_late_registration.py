"""``initialize`` while the server is unreachable: a local id, frames in the spool, registration when the server is
back.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from atomstream import AsyncRHEEDStreamer, RHEEDStreamer
from atomstream.errors import AuthenticationError, ConnectionFailedError, DrainTimeoutError, ServerBusyError
from atomstream.results import Event
from atomstream.service.api import ServiceApi
from atomstream.testing import MemoryService
from tests.live_server import LiveServer
from tests.streaming.proxy import Proxy, proxied
from tests.streaming.scripted_faults import KEY
from tests.streaming.stream_helpers import CHUNK, FPS, assert_arrived, begin, make_async, noise

Serve = Callable[..., Awaitable[LiveServer]]

pytestmark = pytest.mark.usefixtures("hurried")


@pytest.fixture
def made(server: LiveServer, line: Proxy, tmp_path: Path) -> Callable[..., AsyncRHEEDStreamer]:
    """Streamers to ``server`` over ``line``, all with the same spool."""

    def make(**settings: Any) -> AsyncRHEEDStreamer:
        return make_async(line.url, server.api_key, spool_dir=tmp_path, **settings)

    return make


def manifest_of(spool: Path, data_id: str) -> dict[str, Any]:
    (folder,) = spool.glob(f"*/{data_id}")
    manifest: dict[str, Any] = json.loads((folder / "stream.json").read_text())
    return manifest


async def catalogue(server: LiveServer) -> list[dict[str, Any]]:
    """The entries of the server's list of streams."""
    async with (
        aiohttp.ClientSession(headers=server.headers) as session,
        session.get(f"{server.url}/data_entries/") as reply,
    ):
        entries: list[dict[str, Any]] = await reply.json()
    return entries


async def test_frames_arrive_when_the_server_is_back(
    server: LiveServer, line: Proxy, made: Callable[..., AsyncRHEEDStreamer]
) -> None:
    """All frames are stored under the server's id, with name, sample and marks; the caller keeps the local id."""
    async with made() as streamer:
        local = await streamer.initialize(FPS, 0.0, CHUNK, "Growth 7", "STO-1", tags=["night"])
        assert local.startswith("local-")
        assert await streamer.server_id(local) is None
        for k in range(3):
            await streamer.push(local, k, noise(k), frame_ids=range(CHUNK * k, CHUNK * (k + 1)))
        await streamer.calibrate(local, beam_energy=15.0)
        await streamer.set_attributes(local, {"substrate": "STO (001)"})
        await streamer.set_attributes(local, {"crop": [0, 0, 16, 20]})
        early = await streamer.mark(local, "Ga open", kind="shutter")
        assert (early.label, early.by, early.time_s) == ("Ga open", "user", None)
        await line.listen()
        report = await streamer.finalize(local)
        remote = await streamer.server_id(local)
        assert remote is not None
        late = await streamer.mark(local, "Ga closed", kind="shutter")
        assert late.by == early.by
    assert (report["chunks_uploaded"], report["lost"], report["closed"]) == (3, [], True)
    assert_arrived(server, remote, [0, 1, 2])
    kept = {"substrate": "STO (001)", "crop": [0, 0, 16, 20]}
    assert server.archive(remote).about["attributes"] == kept
    assert [event.label for event in await marks(server, remote)] == ["Ga open", "Ga closed"]
    (entry,) = await catalogue(server)
    assert (entry["data_id"], entry["raw_name"]) == (remote, "Growth 7")
    assert entry["physical_sample_name"] == "STO-1"


async def marks(server: LiveServer, data_id: str) -> list[Event]:
    """The events of a user that the server has."""
    results = await server.context.results.of(data_id)
    return [event for event in results.events() if event.by == "user"]


async def test_a_later_process_registers_the_stream(
    server: LiveServer, line: Proxy, made: Callable[..., AsyncRHEEDStreamer], tmp_path: Path
) -> None:
    """The request is in the spool: another streamer registers the stream, sends it and can go on with it."""
    async with made() as first:
        local = await begin(first, 0, 1)
    assert manifest_of(tmp_path, local)["late"]["server_id"] == ""
    await line.listen()
    async with made() as second:
        assert await second.resume(local) == 2
        await second.push(local, 2, noise(2))
        report = await second.finalize(local)
        remote = await second.server_id(local)
    assert report["chunks_uploaded"] == 3
    assert remote is not None
    assert_arrived(server, remote, [0, 1, 2])
    assert len(await catalogue(server)) == 1


async def test_finalized_and_closed_while_unreachable(
    server: LiveServer, line: Proxy, made: Callable[..., AsyncRHEEDStreamer]
) -> None:
    """A stream that began and ended without the server is registered, delivered and ended by the next streamer."""
    async with made() as first:
        local = await begin(first, 0)
        with pytest.raises(DrainTimeoutError):
            await first.finalize(local, drain_timeout_s=0.05)
    await line.listen()
    entries: list[dict[str, Any]] = []
    async with made():
        while not entries or entries[0]["pipeline_status"] == "stream_active":
            await asyncio.sleep(0.01)
            entries = await catalogue(server)
    assert_arrived(server, entries[0]["data_id"], [0])


async def test_created_once_although_a_link_failed(
    server: LiveServer,
    line: Proxy,
    made: Callable[..., AsyncRHEEDStreamer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A transient error after the creation repeats only the links, also in the next process."""
    link = ServiceApi.link_sample
    failures = iter([True, True, False])

    async def fails_twice(self: ServiceApi, data_id: str, sample_id: str) -> None:
        if next(failures, False):
            raise ServerBusyError("busy", status=503)
        await link(self, data_id, sample_id)

    monkeypatch.setattr(ServiceApi, "link_sample", fails_twice)
    async with made() as streamer:
        local = await streamer.initialize(FPS, 0.0, CHUNK, physical_sample="STO-1")
        await streamer.push(local, 0, noise(0))
        await line.listen()
        await streamer.finalize(local)
    (entry,) = await catalogue(server)
    assert entry["physical_sample_name"] == "STO-1"


async def test_an_unknown_sample_does_not_hold_back_frames(
    server: LiveServer,
    line: Proxy,
    made: Callable[..., AsyncRHEEDStreamer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A UUID that does not exist on the server is reported in the log; the frames are stored without it."""
    unknown = "7d3c4a0e-5a56-4b7e-9b1f-5d6f4c1e2a90"
    async with made() as streamer:
        local = await streamer.initialize(FPS, 0.0, CHUNK, physical_sample=unknown, project_id=unknown)
        await streamer.push(local, 0, noise(0))
        await line.listen()
        report = await streamer.finalize(local)
        remote = await streamer.server_id(local)
    assert report["chunks_uploaded"] == 1
    assert remote is not None
    assert_arrived(server, remote, [0])
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert any(unknown in text for text in errors), errors


def test_the_blocking_streamer_too(tmp_path: Path) -> None:
    """The blocking twin begins locally as well; ``server_id`` is known after the frames have arrived."""
    with MemoryService() as service:
        url = service.url
    with RHEEDStreamer(KEY, url, spool_dir=tmp_path, spool_min_free_bytes=0, clock_sync=False) as streamer:
        local = streamer.initialize(FPS, 0.0, CHUNK)
        streamer.push(local, 0, noise(0))
        assert streamer.server_id(local) is None
    assert manifest_of(tmp_path, local)["late"]["complete"] is False


async def test_wide_pixels_for_a_server_that_takes_bytes_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uint16 accepted while the kind of the server was unknown is kept and reported; uint8 streams are not hurt."""
    async with MemoryService() as service, proxied(service.url) as line:
        await line.refuse()
        async with make_async(line.url, KEY, spool_dir=tmp_path) as streamer:
            wide = await streamer.initialize(FPS, 0.0, CHUNK)
            narrow = await streamer.initialize(FPS, 0.0, CHUNK)
            await streamer.push(wide, 0, noise(0).astype(np.uint16))
            await streamer.push(narrow, 0, noise(1))
            await line.listen()
            assert (await streamer.finalize(narrow))["chunks_uploaded"] == 1
            with pytest.warns(RuntimeWarning, match="uint16"):
                report = await streamer.finalize(wide)
    assert report["chunks_failed"] == 1


async def test_on_request_the_error_is_raised(made: Callable[..., AsyncRHEEDStreamer]) -> None:
    """``when_unreachable="raise"``: as for a server that must be there."""
    async with made(when_unreachable="raise") as streamer:
        with pytest.raises(ConnectionFailedError):
            await streamer.initialize(FPS, 0.0, CHUNK)


async def test_without_a_spool_the_error_is_raised(server: LiveServer, line: Proxy, no_disk: Path) -> None:
    """Frames of such a stream would only be in memory, and no later process could register it."""
    async with make_async(line.url, server.api_key, spool_dir=no_disk) as streamer:
        with pytest.raises(ConnectionFailedError):
            await streamer.initialize(FPS, 0.0, CHUNK)


async def test_a_wrong_key_is_an_error(server: LiveServer, tmp_path: Path) -> None:
    """A server that answers 401 is reachable: the error is raised, and nothing is kept for a later registration."""
    async with make_async(server.url, "atst_" + "0" * 43, spool_dir=tmp_path) as streamer:
        with pytest.raises(AuthenticationError):
            await streamer.initialize(FPS, 0.0, CHUNK)
    assert not list(tmp_path.glob("*/local-*"))
