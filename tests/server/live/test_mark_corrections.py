"""Marks corrected over HTTP: feed, list, segments, archive and the answers to two people who edit the same mark."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.live_helpers import (
    FPS,
    analysed,
    analysis_status,
    batches,
    feed,
    follow,
    growth,
    next_message,
    send_chunks,
)
from tests.live_server import Serve
from tests.server.live.cluster_parts import until_over
from tests.wire_client import START_MS, WireClient

ID = "6b7c1c1e-3a50-4a4e-9f5c-0d6d1d6c7f10"


async def test_a_mark_is_corrected_and_deleted(serve: Serve) -> None:
    """Each change is on the feed and in the list, the history has all versions, and a restart changes nothing."""
    server = await serve()
    async with WireClient(server) as client:
        path = f"/rheed/stream/{(data_id := await client.create())}/events"
        _, mark = await client.ask("POST", path, {"label": "Ga shutter opne", "id": ID})
        assert (mark["kind"], mark["version"]) == ("shutter", 1)  # by its words
        async with feed(client, data_id) as socket:
            await next_message(socket, "event")
            wanted = {"version": 1, "label": "T reached", "kind": None, "value": 580.0, "unit": "°C"}
            status, reply = await client.ask("PATCH", f"{path}/{ID}", wanted)
            assert (status, reply["event"]["kind"]) == (200, "note")
            assert (await next_message(socket, "event"))["event"] == reply["event"]
            assert await client.ask("PATCH", f"{path}/{ID}", wanted) == (200, reply)  # a repeat
            status, reply = await client.ask("DELETE", f"{path}/{ID}?version=2")
            assert (status, reply["deleted"]) == (200, True)
            assert (await next_message(socket, "event"))["deleted"] is True
        assert (await client.ask("GET", path))[1] == []
    await server.stop()
    await server.start()
    async with WireClient(server) as client:
        assert (await client.ask("GET", path))[1] == []
        _, report = await client.ask("GET", f"{path}/{ID}")
        assert [one["label"] for one in report["history"]] == ["Ga shutter opne", "T reached", "T reached"]
        assert (await client.ask("POST", path, {"label": "Ga shutter opne", "id": ID}))[0] == 410
        status, reply = await client.ask("PATCH", f"{path}/{ID}", {"version": 3, "deleted": False})
        assert (status, reply["event"]["value"], reply["event"]["version"]) == (200, 580.0, 4)
        assert [event["label"] for event in (await client.ask("GET", path))[1]] == ["T reached"]


async def test_two_people_edit_the_same_mark(serve: Serve) -> None:
    """The second person gets the present content of the mark, and can then replace it; nothing is lost."""
    async with WireClient(await serve()) as client:
        path = f"/rheed/stream/{await client.create()}/events"
        await client.ask("POST", path, {"label": "x", "id": ID})
        assert (await client.ask("PATCH", f"{path}/{ID}", {"version": 1, "label": "Ga open"}))[0] == 200
        status, reply = await client.ask("PATCH", f"{path}/{ID}", {"version": 1, "label": "Al open"})
        assert status == 409
        assert "'Ga open'" in reply["detail"]
        assert "version 2" in reply["detail"]
        assert (await client.ask("DELETE", f"{path}/{ID}?version=1"))[0] == 409
        assert (await client.ask("PATCH", f"{path}/{ID}", {"version": 2, "label": "Al open"}))[0] == 200
        assert (await client.ask("DELETE", f"{path}/{ID}?version=3"))[0] == 200
        status, reply = await client.ask("PATCH", f"{path}/{ID}", {"version": 3, "label": "In open"})
        assert status == 410
        assert "deleted meanwhile" in reply["detail"]
        _, report = await client.ask("GET", f"{path}/{ID}")
        assert [one["label"] for one in report["history"]] == ["x", "Ga open", "Al open", "Al open"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"label": "x"}, 400),
        ({"version": 0, "label": "x"}, 400),
        ({"version": 1, "label": "x" * 201}, 400),
        ({"version": 1, "kind": "Two words"}, 400),
        ({"version": 1, "kind": "rotation"}, 400),
        ({"version": 1, "time_ms_utc": -1}, 400),
        ({"version": 1, "unit": "x" * 33}, 400),
        ({"version": 1, "unknown": 1}, 400),
        ([], 400),
    ],
)
async def test_invalid_corrections_are_refused(serve: Serve, body: Any, status: int) -> None:
    """An invalid correction is refused with a sentence and changes nothing; a mark that does not exist is a 404."""
    async with WireClient(await serve()) as client:
        path = f"/rheed/stream/{await client.create()}/events"
        _, mark = await client.ask("POST", path, {"label": "x", "id": ID})
        found, reply = await client.ask("PATCH", f"{path}/{ID}", body)
        assert found == status
        assert reply["detail"]
        assert (await client.ask("GET", path))[1] == [mark]
        assert (await client.ask("DELETE", f"{path}/{ID}"))[0] == 400
        other = f"{path}/{uuid.uuid4()}"
        assert (await client.ask("PATCH", other, {"version": 1}))[0] == 404
        assert (await client.ask("GET", other))[0] == 404


@pytest.mark.slow
async def test_segments_follow_a_moved_and_a_deleted_mark(serve: Serve) -> None:
    """A finished stream is analysed again; archive and segments then have the mark at its new time."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        path = f"/rheed/stream/{data_id}/events"
        for number, at in enumerate((1000, 2000)):
            body = {"label": f"open {number}", "time_ms_utc": START_MS + at, "id": f"{ID[:-1]}{number}"}
            assert (await client.ask("POST", path, body))[0] == 200
        await analysed(client, data_id, growth())
        moved = {"version": 1, "time_ms_utc": START_MS + 3000}
        assert (await client.ask("PATCH", f"{path}/{ID[:-1]}0", moved))[0] == 200
        assert (await client.ask("DELETE", f"{path}/{ID[:-1]}1?version=1"))[0] == 200
        await until_over(await server.context.results.of(data_id))
        message = batches(await follow(client, data_id))[-1]
        assert message["reanalysis"] is True
        assert [(one["label"], one["start_s"]) for one in message["segments"]] == [
            ("start", 0.0),
            ("open 0", 3.0),
        ]
        group = server.archive(data_id).folder / "frames.zarr"
        events = [
            event for event in (await analysis_status(client, data_id))["events"] if event["by"] == "user"
        ]
        assert [(one["label"], one["time_s"]) for one in events] == [("open 0", 3.0)]
    import zarr

    times = zarr.open_array(group / "mark_time", mode="r")[:]
    kinds = zarr.open_array(group / "mark_kind", mode="r")[:]
    assert [time for time, kind in zip(times, kinds, strict=True) if kind == "shutter"] == [3.0]


@pytest.mark.slow
async def test_a_mark_corrected_while_the_stream_runs(serve: Serve) -> None:
    """Segments and counts follow with the next frames; after the end all frames are analysed again."""
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        path = f"/rheed/stream/{data_id}/events"
        await client.ask("POST", path, {"label": "open", "time_ms_utc": START_MS + 1000, "id": ID})
        async with feed(client, data_id) as socket:
            await send_chunks(client, data_id, growth(), [0, 1])
            while len((await next_message(socket, "batch"))["segments"]) < 2:
                pass
            await client.ask("DELETE", f"{path}/{ID}?version=1")
            await send_chunks(client, data_id, growth(), [2, 3])
            while len((found := await next_message(socket, "batch"))["segments"]) > 1:
                pass
            assert found["values"]["counted_since_s"]["value"] == 0.0
            await client.end(data_id)
            await next_message(socket, "end")
        last = batches(await follow(client, data_id))[-1]
        assert last["reanalysis"] is True
        assert [one["label"] for one in last["segments"]] == ["start"]
        assert not [
            event
            for event in (await analysis_status(client, data_id))["events"]
            if event["kind"] == "shutter"
        ]
