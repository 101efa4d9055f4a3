"""Signals of instruments by the hosted service's protocol: checked, stored durably, and returned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from atomstream.server.context import visible_in
from atomstream.server.http.responses import HttpError
from atomstream.server.people.rights import Principal, Right
from atomstream.server.signals import registry
from atomstream.server.signals import stream as signal_stream
from atomstream.server.upkeep.backup import back_up
from atomstream.server.upkeep.check import check
from atomstream.server.upkeep.restore import choose_backup, restore
from tests.live_server import LiveServer, Serve
from tests.wire_client import WireClient

T = 1_735_689_600.0


async def begin(client: WireClient, **more: Any) -> str:
    """Create a stream of signals; returns its data_id."""
    status, reply = await client.ask("POST", "/tool-state/stream/initialize", {"points_per_chunk": 3, **more})
    assert status == 200, reply
    return str(reply["data_id"])


async def push(client: WireClient, data_id: str, index: int, **channels: Any) -> tuple[int, Any]:
    """Send a chunk of channels, each ``(timestamps, values)`` or ``(timestamps, values, units)``."""
    bodies = {
        name: dict(zip(("timestamps", "values", "units"), parts, strict=False))
        for name, parts in channels.items()
    }
    body = {"data_id": data_id, "chunk_index": index, "channels": bodies}
    return await client.ask("POST", "/tool-state/stream/chunk/multi", body)


async def series(client: WireClient, data_id: str, **query: Any) -> dict[str, Any]:
    """The properties of a stream."""
    status, reply = await client.ask("GET", f"/tool-state/{data_id}/timeseries/", params=query)
    assert status == 200
    return dict(reply["properties"])


async def restarted(server: LiveServer) -> None:
    """Stop the server and start it again."""
    await server.stop()
    await server.start()


async def test_chunks_come_back_after_a_restart(serve: Serve) -> None:
    """Single and several channels, null values, channels that begin later: all are returned, also by a new process."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await begin(client, stream_name="Chamber log", project_id=None)
        one = {
            "data_id": data_id,
            "chunk_index": 0,
            "channel_name": "T",
            "units": "°C",
            "timestamps": [T, T + 1],
            "values": [500, None],
        }
        assert (await client.ask("POST", "/tool-state/stream/chunk", one))[0] == 200
        assert (await push(client, data_id, 1, T=([T + 2], [502.5]), p=([T + 2.25], [1e-9], "mbar")))[
            0
        ] == 200
        assert (await client.ask("POST", f"/tool-state/stream/{data_id}/finalize"))[0] == 200
    expected = {
        "T": {
            "relative_time_seconds": [0.0, 1.0, 2.0],
            "unix_timestamp_ms": [1000 * T, 1000 * T + 1000, 1000 * T + 2000],
            "values": [500.0, None, 502.5],
            "units": "°C",
        },
        "p": {
            "relative_time_seconds": [2.25],
            "unix_timestamp_ms": [1000 * T + 2250],
            "values": [1e-9],
            "units": "mbar",
        },
    }
    for _ in range(2):
        async with WireClient(server) as client:
            assert await series(client, data_id) == expected
            assert list(await series(client, data_id, channel="p")) == ["p"]
            assert (await series(client, data_id, last_n=1))["T"]["values"] == [502.5]
        await restarted(server)


async def test_an_index_has_one_content_in_each_channel(serve: Serve) -> None:
    """An equal repeat changes nothing. Other points for the same index, or another unit, are refused as a whole."""
    async with WireClient(await serve()) as client:
        data_id = await begin(client)
        for repeated in (False, True):
            status, reply = await push(client, data_id, 0, a=([T], [1.0], "V"))
            assert (status, reply["repeated"]) == (200, repeated)
        assert (await push(client, data_id, 0, b=([T], [5.0])))[
            0
        ] == 200  # the peer counts each channel from 0
        status, reply = await push(client, data_id, 0, c=([T], [7.0]), a=([T], [2.0], "V"))
        assert status == 409
        assert "stored already, with other points" in reply["detail"]
        status, reply = await push(client, data_id, 1, a=([T], [2.0], "mV"))
        assert status == 409
        assert "'V'" in reply["detail"]
        found = await series(client, data_id)
    assert {name: one["values"] for name, one in found.items()} == {"a": [1.0], "b": [5.0]}


async def test_points_in_any_order_are_sorted_by_time(serve: Serve) -> None:
    """A clock that steps back, and chunks out of order, lose no point."""
    async with WireClient(await serve()) as client:
        data_id = await begin(client)
        await push(client, data_id, 1, a=([T + 5, T + 3], [5.0, 3.0]))
        await push(client, data_id, 0, a=([T, T + 4, T], [0.0, 4.0, 0.5]))
        found = (await series(client, data_id))["a"]
    assert found["values"] == [0.0, 0.5, 3.0, 4.0, 5.0]
    assert found["relative_time_seconds"] == [0.0, 0.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (([T], ["open"]), "Times and values are numbers"),
        (([T], [True]), "Times and values are numbers"),
        (([T, T], [1.0]), "2 timestamps and 1 values"),
        (([1000 * T], [1.0]), "is it in milliseconds"),
        (([-1.0], [1.0]), "not in seconds since 1970"),
        (([T], [1.0], "x" * 40), "The chunk is not valid"),
        (([None], [1.0]), "Times and values are numbers"),
    ],
)
async def test_wrong_points_are_refused_and_named(serve: Serve, parts: Any, words: str) -> None:
    """Another type, another number of values, another unit of time: 400, and nothing is stored."""
    async with WireClient(await serve()) as client:
        data_id = await begin(client)
        status, reply = await push(client, data_id, 0, good=([T], [1.0]), shutter=parts)
        assert status == 400
        assert words in reply["detail"]
        assert await series(client, data_id) == {}


async def test_limits_of_channels_and_points(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many channels, points or an unknown stream are refused; a chunk without points stores nothing."""
    async with WireClient(await serve()) as client:
        data_id = await begin(client)
        assert (await push(client, data_id, 0, a=([], [])))[0] == 200
        many = {f"c{k}": ([T], [1.0]) for k in range(257)}
        assert (await push(client, data_id, 0, **many))[0] == 400
        half = {f"d{k}": ([T], [1.0]) for k in range(200)}
        assert (await push(client, data_id, 0, **half))[0] == 200
        assert (await push(client, data_id, 1, **{f"e{k}": ([T], [1.0]) for k in range(100)}))[0] == 413
        monkeypatch.setattr(signal_stream, "MAX_POINTS", 201 * 13)
        status, reply = await push(client, data_id, 2, d0=([T, T + 1], [1.0, 2.0]))
        assert status == 413
        assert "Initialize a new one" in reply["detail"]
        assert (await push(client, "0" * 36, 0, a=([T], [1.0])))[0] == 404
        assert (await client.ask("POST", "/tool-state/stream/initialize", {"marks": ["nothing"]}))[0] == 400


async def test_a_damaged_description_costs_only_its_stream(serve: Serve) -> None:
    """The server starts, the other streams are there, and half of a record at the end of a log is cut off."""
    server = await serve()
    async with WireClient(server) as client:
        bad, good = await begin(client), await begin(client)
        await push(client, good, 0, a=([T], [1.0]))
    await server.stop()
    folder = server.folder(good).parents[1] / "signals"
    (folder / f"{bad}.json").write_text("{")
    log = folder / f"{good}.log"
    log.write_bytes(log.read_bytes() + b"\x40\x00\x00\x00half")
    await server.start()
    async with WireClient(server) as client:
        assert (await series(client, good))["a"]["values"] == [1.0]
        assert (await push(client, good, 1, a=([T + 1], [2.0])))[0] == 200
        assert (await client.ask("GET", f"/tool-state/{bad}/timeseries/"))[0] == 404


async def test_points_in_memory_are_limited(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams that were used longest ago are read from the disk again."""
    monkeypatch.setattr(registry, "MAX_POINTS_OPEN", 20)  # each stream counts 14
    server = await serve()
    async with WireClient(server) as client:
        ids = [await begin(client) for _ in range(3)]
        for k, data_id in enumerate(ids):
            await push(client, data_id, 0, a=([T, T + 1], [float(k), 0.0]))
        assert len(server.context.tool_signals._open) == 2
        for k, data_id in enumerate(ids):
            assert (await series(client, data_id))["a"]["values"] == [float(k), 0.0]


async def test_signals_are_backed_up_and_checked(serve: Serve, tmp_path: Path) -> None:
    """A backup has all points, a restored data folder serves them, and a damaged log is named."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await begin(client, stream_name="Chamber")
        await push(client, data_id, 0, a=([T], [1.5]))
    data_dir = server.folder(data_id).parents[1]
    back_up(data_dir, tmp_path / "backup")
    await server.stop()
    restore(choose_backup(tmp_path / "backup"), tmp_path / "restored")
    assert check(tmp_path / "restored").damaged == []
    again = await serve(data_dir=tmp_path / "restored", api_key=server.api_key)
    async with WireClient(again) as client:
        assert (await series(client, data_id))["a"]["values"] == [1.5]
    await again.stop()
    log = tmp_path / "restored" / "signals" / f"{data_id}.log"
    log.write_bytes(log.read_bytes()[:-3] + b"???")
    assert [line.partition(":")[0] for line in check(tmp_path / "restored").damaged] == [
        f"signals/{data_id}.log"
    ]


async def test_a_person_sees_the_signals_of_their_projects_only(serve: Serve) -> None:
    """A key of a project can neither write nor read the signals of another one."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await begin(client)
        await push(client, data_id, 0, a=([T], [1.0]))
        principal = Principal("guest", Right.WRITE, frozenset({"p"}), "user:1:1")
        with pytest.raises(HttpError, match="404"):
            await visible_in(server.context)(principal, data_id)
