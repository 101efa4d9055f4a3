"""A stream of signals begins while the server is unreachable, as one of frames: a local id, registered when it is
back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atomstream import AsyncTimeseriesStreamer, TimeseriesStreamer
from atomstream.errors import ConnectionFailedError
from atomstream.spool.stream_state import StreamManifest
from atomstream.streaming.late_registration import local_signals
from atomstream.streaming.signal_request import SignalsRequest
from tests.live_server import LiveServer
from tests.streaming.proxy import Proxy
from tests.streaming.test_timeseries import T, stored

pytestmark = pytest.mark.usefixtures("hurried")

Made = Callable[..., AsyncTimeseriesStreamer]


@pytest.fixture
def made(server: LiveServer, line: Proxy, tmp_path: Path) -> Made:
    """Streamers to ``server`` over ``line``, all with the same spool."""

    def make(**settings: Any) -> AsyncTimeseriesStreamer:
        return AsyncTimeseriesStreamer(
            server.api_key,
            line.url,
            3,
            spool_dir=tmp_path,
            spool_min_free_bytes=0,
            clock_sync=False,
            **settings,
        )

    return make


async def test_points_arrive_when_the_server_is_back(server: LiveServer, line: Proxy, made: Made) -> None:
    """All points are stored under the server's id, with name, sample and rules; the caller keeps the local id."""
    rule = 'open>0.5 -> mark "shutter open"'
    async with made() as streamer:
        local = await streamer.initialize("Chamber log", physical_sample="GaN-1", marks=[rule])
        assert local.startswith("local-")
        assert await streamer.server_id(local) is None
        await streamer.push(local, None, "T", [T, T + 1], [500, 501], "°C")
        await streamer.push_multi(local, None, {"T": ([T + 2], [502], "°C"), "open": ([T], [1])})
        await line.listen()
        report = await streamer.finalize(local)
        remote = await streamer.server_id(local)
    assert (report["chunks_uploaded"], report["lost"], report["closed"]) == (2, [], True)
    assert remote is not None
    assert await stored(server, remote) == {
        "T": [(0.0, 500.0), (1.0, 501.0), (2.0, 502.0)],
        "open": [(0.0, 1.0)],
    }
    about = server.context.tool_signals.about(remote)
    assert about.sample is not None
    assert (about.name, about.sample.name, about.status) == ("Chamber log", "GaN-1", "success")
    assert list(about.marks) == [rule]


async def test_a_later_process_sends_them(server: LiveServer, line: Proxy, made: Made) -> None:
    """The request is in the spool: another streamer registers the stream once, goes on with it and ends it."""
    async with made() as first:
        local = await first.initialize("Chamber log")
        await first.push(local, 0, "p", [T], [1e-9], "mbar")
    await line.listen()
    async with made() as second:
        assert await second.resume(local) == 1
        await second.push(local, 1, "p", [T + 1], [2e-9])
        await second.finalize(local)
        remote = await second.server_id(local)
        assert remote is not None
    assert await stored(server, remote) == {"p": [(0.0, 1e-9), (1.0, 2e-9)]}
    assert len(server.context.tool_signals) == 1


async def test_an_unknown_project_does_not_hold_back_the_points(
    server: LiveServer, line: Proxy, made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    """The stream is registered without the project, and the log states it."""
    caplog.set_level(logging.ERROR)
    async with made() as streamer:
        local = await streamer.initialize("Log", project_id="99999999-9999-4999-8999-999999999999")
        await streamer.push(local, 0, "p", [T], [1.0])
        await line.listen()
        report = await streamer.finalize(local)
    assert report["chunks_uploaded"] == 1
    assert "was registered without a part of the request" in caplog.text


async def test_it_can_be_refused(made: Made, tmp_path: Path) -> None:
    """With ``when_unreachable="raise"``, also of the blocking streamer, nothing begins."""
    async with made(when_unreachable="raise") as streamer:
        with pytest.raises(ConnectionFailedError):
            await streamer.initialize("Log")
    assert not list(tmp_path.glob("*/local-*"))


def test_the_manifest_keeps_the_request() -> None:
    """The fields of the spool give the same description again; wrong ones are refused."""
    request = SignalsRequest(60, "Log", 7, "GaN-1", None, ["night"], ['T>500 -> mark "hot"'])
    spec, late = local_signals(request.checked(), "http://lab:8765")
    manifest = StreamManifest("http://lab:8765", spec, late=late)
    assert StreamManifest.from_fields(manifest.to_fields()) == manifest
    fields = manifest.to_fields()
    fields["late"]["signals"]["points_per_chunk"] = -1
    with pytest.raises(Exception, match="missing or wrong"):
        StreamManifest.from_fields(fields)


def test_both_streamers_have_the_argument() -> None:
    """The blocking streamer passes it on."""
    streamer = TimeseriesStreamer("atst_" + "x" * 40, "http://127.0.0.1:9", when_unreachable="raise")
    with streamer, pytest.raises(ConnectionFailedError):
        streamer.initialize("Log")
