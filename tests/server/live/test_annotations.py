"""Annotations of a user: stored, sent to subscribers at once, and used by the analysis."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atomstream.analysis import Box, analyze
from atomstream.protocol import CALIBRATION_LIMITS
from atomstream.server import dashboard
from atomstream.server.live.annotations import Annotations
from tests.live_helpers import (
    CHUNK,
    FPS,
    analysed,
    batches,
    batches_until,
    feed,
    follow,
    growth,
    next_message,
    send_chunks,
)
from tests.live_server import Serve
from tests.wire_client import START_MS, WireClient

BOX = {
    "type": "box",
    "name": "Left Streak",
    "x": 80.0,
    "y": 150.0,
    "width": 12.0,
    "height": 40.0,
    "tracked": False,
}
LINE = {"type": "line", "name": "across", "x0": 10.0, "y0": 120.0, "x1": 110.0, "y1": 120.0, "width": 5.0}


async def test_mark_is_stored_sent_and_begins_a_segment(serve: Serve) -> None:
    """A shutter mark is sent on the feed at once, listed, survives a restart, and begins a segment at its time."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        mark = {"label": "Ga open", "kind": "shutter", "time_ms_utc": START_MS + 4000}
        async with feed(client, data_id) as socket:
            status, event = await client.ask("POST", f"/rheed/stream/{data_id}/events", mark)
            assert status == 200
            assert (await next_message(socket, "event"))["event"]["id"] == event["id"]
        assert event["time_s"] is None  # no frame yet, so no origin of the times
        last = batches(await analysed(client, data_id, growth()))[-1]
    assert [(s["label"], s["start_s"]) for s in last["segments"]] == [("start", 0.0), ("Ga open", 4.0)]
    await server.stop()
    await server.start()
    async with WireClient(server) as client:
        _, listed = await client.ask("GET", f"/rheed/stream/{data_id}/events")
    (kept,) = [event for event in listed if event["by"] == "user"]
    assert (kept["label"], kept["kind"], kept["time_s"]) == ("Ga open", "shutter", 4.0)


async def test_a_repeated_mark_is_one(serve: Serve) -> None:
    """The same id again, sent by a client that lost the reply, changes nothing."""
    async with WireClient(await serve()) as client:
        data_id = await client.create()
        mark = {"label": "x", "id": "6b7c1c1e-3a50-4a4e-9f5c-0d6d1d6c7f10"}
        first = await client.ask("POST", f"/rheed/stream/{data_id}/events", mark)
        assert await client.ask("POST", f"/rheed/stream/{data_id}/events", mark) == first
        assert len((await client.ask("GET", f"/rheed/stream/{data_id}/events"))[1]) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"label": "x" * 201},
        {"label": "x", "kind": "Two words"},
        {"label": "x", "time_ms_utc": -1},
        {"label": "x", "kind": "rotation"},
        {"label": "x", "kind": "rotation", "value": 1e9},
        {"label": 5},
        [],
    ],
)
async def test_invalid_marks_are_refused(serve: Serve, body: Any) -> None:
    """An invalid mark is a 400 with a sentence, and changes nothing."""
    async with WireClient(await serve()) as client:
        data_id = await client.create()
        status, reply = await client.ask("POST", f"/rheed/stream/{data_id}/events", body)
        assert status == 400
        assert reply["detail"]
        assert (await client.ask("GET", f"/rheed/stream/{data_id}/events"))[1] == []


@pytest.mark.slow
async def test_regions_reach_back_to_the_first_frame(serve: Serve) -> None:
    """Regions set during a stream have their trace and profile from the first frame on, and continue live."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        async with feed(client, data_id) as socket:
            await send_chunks(client, data_id, growth(), [0, 1])
            await batches_until(socket, 2 * CHUNK)
            status, reply = await client.ask(
                "PUT", f"/rheed/stream/{data_id}/regions", {"regions": [BOX, LINE]}
            )
            assert (status, reply["columns"]) == (200, {"Left Streak": "region_left_streak"})
            assert {region["name"] for region in reply["detected_regions"]} == {"specular", "streaks"}
            while not (await next_message(socket, "regions"))["complete"]:
                pass
            await send_chunks(client, data_id, growth(), [2, 3])
            await client.end(data_id)
            await next_message(socket, "end")
        trace = server.archive(data_id).results.read(["region_left_streak"], 0, 4 * CHUNK)[
            "region_left_streak"
        ]
        async with client.session.get(
            f"{server.url}/rheed/stream/{data_id}/profiles", params={"line": "across"}
        ) as fall:
            rows = np.frombuffer(await fall.read(), "<f4").reshape(int(fall.headers["Atomstream-Rows"]), -1)
            start = float(fall.headers["Atomstream-Start-S"])
    offline = analyze(growth(), FPS, regions=[Box(80.0, 150.0, 12.0, 40.0, "Left Streak")])
    np.testing.assert_array_equal(trace, offline.frames["region:Left Streak"].astype("<f4"))
    assert rows.shape[1] == 101
    assert len(rows) >= 14
    assert start < 1.0


async def test_invalid_regions_are_refused(serve: Serve) -> None:
    """Regions with equal names, without size or of another kind are a 400, and the earlier ones stay."""
    async with WireClient(await serve()) as client:
        data_id = await client.create()
        path = f"/rheed/stream/{data_id}/regions"
        await client.ask("PUT", path, {"regions": [LINE]})
        for wrong in (
            [BOX, {**BOX, "name": "left-streak"}],
            [{**BOX, "width": 0.0}],
            [{**BOX, "type": "circle"}],
            [{**LINE, "width": 1e6}],
            [{**BOX, "name": ""}],
        ):
            assert (await client.ask("PUT", path, {"regions": wrong}))[0] == 400
        assert (await client.ask("GET", path))[1]["regions"] == [LINE]


@pytest.mark.slow
async def test_calibration_gives_lengths(serve: Serve) -> None:
    """With a calibration the lattice parameter is in Å, as in the simulated crystal."""
    known = {
        "beam_energy": 20.0,
        "screen_sample_distance": 300.0,
        "px_per_mm": 3.5,
        "layer_thickness_nm": 0.3905,
    }
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        path = f"/rheed/stream/{data_id}/calibration"
        assert (await client.ask("PUT", path, {"beam_energy": -1}))[0] == 400
        assert (await client.ask("PUT", path, known))[0] == 200
        last = batches(await analysed(client, data_id, growth()))[-1]
    assert last["values"]["lattice_parameter"]["value"] == pytest.approx(3.905, rel=0.01)
    assert last["values"]["growth_rate_nm_s"]["value"] == pytest.approx(0.8 * 0.3905, rel=0.01)


async def test_rotation_is_an_event(serve: Serve) -> None:
    """A change of rotation is listed once, as an event of the user, and begins a segment."""
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        turn = {
            "label": "rotation at 6 rpm",
            "kind": "rotation",
            "value": 6.0,
            "time_ms_utc": START_MS + 2000,
        }
        await client.ask("POST", f"/rheed/stream/{data_id}/events", turn)
        messages = await analysed(client, data_id, growth(120))
        _, listed = await client.ask("GET", f"/rheed/stream/{data_id}/events")
        assert (await follow(client, data_id))[-1]["type"] == "end"
    assert [event["by"] for event in listed if event["kind"] == "rotation"] == ["user"]
    assert len(batches(messages)[-1]["segments"]) == 2


async def test_a_stream_is_created_with_its_calibration(serve: Serve) -> None:
    """Calibration values in the metadata of a stream are used from its first chunk on; invalid ones create nothing."""
    known = {"layer_thickness_nm": 0.3905, "layer_unit": "unit cell", "beam_energy": 20.0}
    server = await serve()
    async with WireClient(server) as client:
        body = {"data_item_name": "a", "rotations_per_min": 0.0, "fps_capture_rate": FPS}
        for wrong in ({"beam_energy": 20000.0}, {"beam_energy": "20"}, {"volts": 20.0}):
            status, reply = await client.ask("POST", "/rheed/stream/", {**body, "calibration": wrong})
            assert status == 400
            assert next(iter(wrong)) in reply["detail"]
        assert (await client.ask("GET", "/data_entries/"))[1] == []
        data_id = await client.create(fps_capture_rate=FPS, calibration=known)
        path = f"/rheed/stream/{data_id}/calibration"
        assert known.items() <= (await client.ask("GET", path))[1].items()
        results = batches(await analysed(client, data_id, growth()))
    whys = [batch["values"].get("growth_rate_nm_s", {}).get("why", "") for batch in results]
    assert not any("calibration" in why for why in whys)
    assert results[-1]["values"]["growth_rate_nm_s"]["value"] == pytest.approx(0.8 * 0.3905, rel=0.01)
    assert results[-1]["values"]["oscillations_counted"]["unit"] != ""


@pytest.mark.slow
async def test_calibration_after_the_end(serve: Serve) -> None:
    """The calibration of a finished stream starts a reanalysis: all results then have lengths."""
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        first = await analysed(client, data_id, growth())
        path = f"/rheed/stream/{data_id}/calibration"
        assert (await client.ask("PUT", path, {"layer_thickness_nm": 0.3905}))[0] == 200
        (final,) = batches(await follow(client, data_id, after=first[-1]["seq"]))
    assert final["values"]["growth_rate_nm_s"]["value"] == pytest.approx(0.8 * 0.3905, rel=0.01)


@pytest.mark.parametrize(
    "wrong", [{"beam_energy": 20000.0}, {"px_per_mm": 0.0}, {"miller_n": -1.0}, {"incidence_deg": 45.0}]
)
async def test_invalid_calibrations_are_refused(serve: Serve, wrong: dict[str, float]) -> None:
    """A number in the wrong unit is refused with its name and range, and nothing is changed."""
    async with WireClient(await serve()) as client:
        path = f"/rheed/stream/{await client.create(fps_capture_rate=FPS)}/calibration"
        status, reply = await client.ask("PUT", path, wrong)
        assert status == 400
        assert next(iter(wrong)) in reply["detail"]
        assert (await client.ask("GET", path))[1] == {}


def test_the_page_has_the_same_ranges() -> None:
    """The dialog of the stream's page accepts the same values as the server."""
    page = (Path(dashboard.__file__).parent / "static" / "stream.html").read_text(encoding="utf-8")
    fields = re.findall(r'name="(\w+)" data-low="([\d.]+)" data-high="([\d.]+)"', page)
    assert {name: (float(low), float(high)) for name, low, high in fields} == {
        name: bounds[:2] for name, bounds in CALIBRATION_LIMITS.items()
    }


def test_a_damaged_annotation_costs_no_later_one(tmp_path: Path) -> None:
    """One flipped bit anywhere in the annotation log of a stream loses at most one of the user's events."""
    path = tmp_path / "inputs.log"
    annotations = Annotations(path)
    for number in range(5):
        annotations.add_event("mark", f"mark {number}", 1000.0 * number, None, f"id-{number}")
    annotations.close()
    raw = path.read_bytes()
    for at in range(0, len(raw), 3):
        damaged = bytearray(raw)
        damaged[at] ^= 0x20
        path.write_bytes(damaged)
        reopened = Annotations(path)
        found = [event.label for event in reopened.events(0.0)]
        for_analysis = reopened.for_analysis(0, 0.0)
        reopened.close()
        assert len(found) >= 4, at
        assert [entry["label"] for entry in for_analysis] == found
        for copy in tmp_path.glob("*.damaged-*"):
            copy.unlink()
