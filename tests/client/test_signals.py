"""Signals of instruments and thinned streams through the reading client."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atomstream import AsyncClient, AsyncTimeseriesStreamer
from atomstream.client.signal import signals_of
from atomstream.errors import ConfigError, NotFoundError, ServerBusyError
from tests.live_server import Serve
from tests.server.retention.test_retention import FRAMES, kept_of, thinned_stream
from tests.wire_client import WireClient

T = 1_735_689_600.0


async def test_signals_are_found_and_read(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams of signals are listed, alone or in one order with those of frames, and their points come back."""
    server = await serve()
    async with WireClient(server) as wire:
        frames = [await wire.create(f"Growth {number}") for number in range(3)]
    async with AsyncTimeseriesStreamer(
        server.api_key, server.url, spool_dir=tmp_path, clock_sync=False
    ) as streamer:
        made = [
            await streamer.initialize(f"Chamber {number}", physical_sample="GaN-1", tags=["night"])
            for number in range(3)
        ]
        await streamer.push(made[0], 0, "T", [T + 1, T], [501.0, None], "°C")
        await streamer.push(made[0], 0, "p", [T], [1e-9])
        await streamer.flush(made[0])
    async with AsyncClient(server.api_key, server.url) as client:
        monkeypatch.setattr("atomstream.service.reading_api.PAGE", 2)
        assert [one.data_id for one in await client.search()] == frames[::-1]
        found = await client.search(kind="signals")
        assert [(one.data_id, one.kind) for one in found] == [(data_id, "signals") for data_id in made[::-1]]
        assert (found[0].name, found[0].sample, found[0].tags) == ("Chamber 2", "GaN-1", ("night",))
        assert [one.data_id for one in await client.search(kind="all")] == [*made[::-1], *frames[::-1]]
        for conditions, names in (
            ({"keywords": "chamber 1"}, ["Chamber 1"]),
            ({"keywords": ["NIGHT", "gan"], "data_ids": made[:1]}, ["Chamber 0"]),
            ({"physical_sample_ids": ["99999999-9999-4999-8999-999999999999"]}, []),
            ({"status": "success"}, []),
        ):
            assert [one.name for one in await client.search(kind="all", **conditions)] == names  # type: ignore[arg-type]
        signals = await client.signals(made[0])
        assert (signals["T"].times.tolist(), signals["T"].units) == ([T, T + 1], "°C")
        assert np.isnan(signals["T"].values[0])
        assert signals["T"].values[1] == 501.0
        assert set(await client.signals(made[0], ["p"])) == {"p"}
        with pytest.raises(NotFoundError):
            await client.signals(frames[0])
        with pytest.raises(ConfigError, match="not one of frames, signals, all"):
            await client.search(kind="xps")  # type: ignore[arg-type]


@pytest.mark.parametrize("reply", [{"T": None}, {"T": {"unix_timestamp_ms": [1.0], "values": []}}])
def test_a_malformed_reply(reply: object) -> None:
    """A malformed reply is an error of the server, not of the program that reads it."""
    with pytest.raises(ServerBusyError, match="invalid form"):
        signals_of("x", reply)  # type: ignore[arg-type]


async def test_the_frames_of_a_thinned_stream(serve: Serve) -> None:
    """``kept`` names the frames that are left, and indexing with it gives these alone."""
    from atomstream.client.stream_data import StreamData

    server, data_id = await thinned_stream(serve)
    async with AsyncClient(server.api_key, server.url) as client:
        (entry,) = await client.search(data_ids=[data_id])
        columns = await client.columns(data_id, ["frame_kept"])
        (info, analysis) = entry, await client.analysis(data_id)
        chunks = {index: await client.chunk(data_id, index) for index in range(4)}
    assert np.flatnonzero(columns["frame_kept"]).tolist() == kept_of(server, data_id)

    class Read:
        """The client's replies, read before."""

    data = StreamData(info, Read(), lambda _verb: columns)  # type: ignore[arg-type]
    data._analysis = analysis
    monkey = data.frames
    monkey._read = chunks.get
    assert np.flatnonzero(monkey.kept).tolist() == kept_of(server, data_id)
    np.testing.assert_array_equal(monkey[monkey.kept], FRAMES[kept_of(server, data_id)])
