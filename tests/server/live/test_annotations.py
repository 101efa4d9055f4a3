"""Annotations of a user: stored, sent to subscribers at once, and used by the analysis."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from atomstream.analysis import Box, analyze
from atomstream.protocol import CALIBRATION_LIMITS
from atomstream.server import dashboard
from atomstream.server.live.annotation_records import (
    AzimuthChanges,
    AzimuthEntry,
    BoxRecord,
    CalibrationEntry,
    CalibrationRecord,
    LineRecord,
    LostEntry,
    NewMark,
    RegionsEntry,
    TimedEvent,
)
from atomstream.server.live.annotations import Annotations
from atomstream.server.routes.annotations import CalibrationBody
from atomstream.system.record_log import RecordLog
from tests.live_helpers import (
    CHUNK,
    FPS,
    RATE,
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
        mark = {"label": "Ga open", "kind": "shutter", "time_ms_utc": START_MS + 2000}
        async with feed(client, data_id) as socket:
            status, event = await client.ask("POST", f"/rheed/stream/{data_id}/events", mark)
            assert status == 200
            assert (await next_message(socket, "event"))["event"]["id"] == event["id"]
        assert event["time_s"] is None  # no frame yet, so no origin of the times
        last = batches(await analysed(client, data_id, growth()))[-1]
    assert [(s["label"], s["start_s"]) for s in last["segments"]] == [("start", 0.0), ("Ga open", 2.0)]
    await server.stop()
    await server.start()
    async with WireClient(server) as client:
        _, listed = await client.ask("GET", f"/rheed/stream/{data_id}/events")
    (kept,) = [event for event in listed if event["by"] == "user"]
    assert (kept["label"], kept["kind"], kept["time_s"]) == ("Ga open", "shutter", 2.0)


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
    assert len(rows) >= 7
    assert start < 1.0


async def test_a_waterfall_has_no_rows_before_the_first_result(serve: Serve) -> None:
    """A page asks for it before there are frames: that is not an error. A line that does not exist is one."""
    async with WireClient(await serve()) as client:
        data_id = await client.create()
        path = f"{client.server.url}/rheed/stream/{data_id}/profiles"
        assert (await client.ask("PUT", f"/rheed/stream/{data_id}/regions", {"regions": [LINE]}))[0] == 200
        for line, status in (("streaks", 200), ("across", 200), ("nowhere", 404)):
            async with client.session.get(path, params={"line": line}) as reply:
                assert reply.status == status
                if status == 200:
                    assert reply.headers["Atomstream-Rows"] == "0"
                    assert await reply.read() == b""


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
async def test_too_many_events_are_refused(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream has a limited number of events; a repeat of a stored one is answered as before."""
    monkeypatch.setattr("atomstream.server.live.event_history.MAX_EVENTS", 1)
    async with WireClient(await serve()) as client:
        path = f"/rheed/stream/{await client.create()}/events"
        body = {"label": "a", "id": "00000000-0000-4000-8000-000000000000"}
        assert [(await client.ask("POST", path, body))[0] for _ in range(2)] == [200, 200]
        assert (await client.ask("POST", path, {"label": "b"}))[0] == 409
        assert len((await client.ask("GET", path))[1]) == 1


async def test_too_many_names_of_regions_are_refused(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each name makes an array of the archive for ever, so a stream has a limited number; earlier names stay usable."""
    monkeypatch.setattr("atomstream.server.live.stream_results.MAX_ARRAYS", 2)
    async with WireClient(await serve()) as client:
        path = f"/rheed/stream/{await client.create()}/regions"

        async def put(*names: str) -> int:
            boxes = [{"type": "box", "name": name, "x": 5, "y": 5, "width": 3, "height": 3} for name in names]
            return (await client.ask("PUT", path, {"regions": boxes}))[0]

        assert await put("a", "b") == 200
        assert await put("a", "b", "c") == 400


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
    assert last["values"]["growth_rate_nm_s"]["value"] == pytest.approx(RATE * 0.3905, rel=0.01)


async def test_rotation_is_an_event(serve: Serve) -> None:
    """A change of rotation is listed once, as an event of the user, and begins a segment."""
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        turn = {
            "label": "rotation at 6 rpm",
            "kind": "rotation",
            "value": 6.0,
            "time_ms_utc": START_MS + 1000,
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
    assert results[-1]["values"]["growth_rate_nm_s"]["value"] == pytest.approx(RATE * 0.3905, rel=0.01)
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
    assert final["values"]["growth_rate_nm_s"]["value"] == pytest.approx(RATE * 0.3905, rel=0.01)


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


def test_the_body_becomes_the_record() -> None:
    """The route stores the record and sends it to the analysis, with the values of the body."""
    values = {"beam_energy": 20.0, "layer_unit": "unit cell"}
    record = msgspec.convert(values, CalibrationBody).checked()
    assert record == CalibrationRecord(**values)
    assert type(record) is CalibrationRecord
    assert msgspec.to_builtins(record) == values


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
        annotations.add_event(NewMark("mark", f"mark {number}", 1000.0 * number, id=f"id-{number}"))
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
        assert [entry.label for entry in for_analysis if isinstance(entry, TimedEvent)] == found
        for copy in tmp_path.glob("*.damaged-*"):
            copy.unlink()


RECORDED_LOG = bytes.fromhex(
    "6174736c6f67310a6c00000036c4647e86a477686174a56576656e74a26964d92436623763316331652d336135302d346134652d"
    "396635632d306436643164366337663130a46b696e64a773687574746572a56c6162656ca74761206f70656eab74696d655f6d73"
    "5f757463cb4278bcfe56800000a576616c7565c0c000000020bab80782a477686174a7726567696f6e73a7726567696f6e739287"
    "a474797065a3626f78a46e616d65a873706563756c6172a178cb4024000000000000a179cb4034800000000000a57769647468cb"
    "4020000000000000a6686569676874cb4018000000000000a7747261636b6564c387a474797065a46c696e65a46e616d65a36375"
    "74a27830cb3ff0000000000000a27930cb4000000000000000a27831cb403e000000000000a27931cb4000000000000000a57769"
    "647468cb3ff000000000000049000000a48f38f882a477686174ab63616c6962726174696f6eab63616c6962726174696f6e82ab"
    "6265616d5f656e65726779cb4034000000000000aa6c617965725f756e6974a9756e69742063656c6c2a000000081d059e83a477"
    "686174a7617a696d757468a7766965775f6964a133a47361696481a56c6162656ca55b3131305d270000005bfa16b783a4776861"
    "74a7617a696d757468a7766965775f6964a133a47361696481a7656e61626c6564c2"
)
"""``inputs.log`` of version 0.1.0: a mark, regions, a calibration, and two changes of one azimuth."""


def test_the_recorded_log(tmp_path: Path) -> None:
    """The log of an earlier version is read, and the same annotations are still written as the same bytes."""
    path = tmp_path / "inputs.log"
    path.write_bytes(RECORDED_LOG)
    annotations = Annotations(path)
    regions = [
        BoxRecord("specular", 10.0, 20.5, 8.0, 6.0, tracked=True),
        LineRecord("cut", 1.0, 2.0, 30.0, 2.0),
    ]
    calibration = CalibrationRecord(beam_energy=20.0, layer_unit="unit cell")
    (event,) = annotations.events(1_700_000_000_000.0 - 1500.0)
    assert (event.kind, event.label, event.time_s, event.value) == ("shutter", "Ga open", 1.5, None)
    assert (annotations.regions, annotations.calibration) == (regions, calibration)
    assert annotations.labels() == {"3": AzimuthChanges(enabled=False, label="[110]")}
    assert annotations.for_analysis(0, 1_700_000_000_000.0) == [
        TimedEvent("shutter", "Ga open", None, 0.0, event.id),
        RegionsEntry(regions),
        CalibrationEntry(calibration),
    ]
    annotations.close()
    new = Annotations(tmp_path / "new" / "inputs.log")
    new.add_event(NewMark("shutter", "Ga open", 1_700_000_000_000.0, id=event.id))
    new.append(RegionsEntry(regions))
    new.append(CalibrationEntry(calibration))
    new.append(AzimuthEntry("3", AzimuthChanges(label="[110]")))
    new.append(AzimuthEntry("3", AzimuthChanges(enabled=False)))
    new.close()
    assert (tmp_path / "new" / "inputs.log").read_bytes() == RECORDED_LOG


@pytest.mark.parametrize(
    "stored",
    [
        {"what": "event"},
        {"what": "event", "id": 5, "kind": "note", "label": "", "time_ms_utc": 0.0, "value": None},
        {"what": "regions", "regions": [{"type": "circle"}]},
        {"what": "calibration", "calibration": {"beam_energy": "x"}},
        {"what": "azimuth", "view_id": "3", "said": 5},
        {"what": "something"},
        {},
    ],
    ids=str,
)
def test_an_entry_of_another_shape_is_ignored(
    stored: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged and keeps its number; the annotations before and after it are used."""
    path = tmp_path / "inputs.log"
    annotations = Annotations(path)
    annotations.add_event(NewMark("note", "before", 1.0))
    annotations.close()
    log = RecordLog(path)
    log.append(stored)
    log.close()
    annotations = Annotations(path)
    annotations.add_event(NewMark("note", "after", 2.0))
    assert [event.label for event in annotations.events(None)] == ["before", "after"]
    assert isinstance(annotations.entries[1], LostEntry)
    assert len(annotations.for_analysis(1, 0.0)) == 1
    annotations.close()
    assert "an annotation of a stream is ignored" in caplog.text


async def test_a_repeated_setting_is_stored_once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log does not grow by repeats; beyond a number of changes they are refused, and nothing is changed."""
    monkeypatch.setattr("atomstream.server.live.annotations.MAX_SETTINGS", 4)
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        path = f"/rheed/stream/{data_id}"
        box = {"type": "box", "name": "a", "x": 1.0, "y": 1.0, "width": 2.0, "height": 2.0}
        for _ in range(5):
            assert (await client.ask("PUT", f"{path}/regions", {"regions": [box]}))[0] == 200
            assert (await client.ask("PUT", f"{path}/calibration", {"beam_energy": 20.0}))[0] == 200
        log = server.folder(data_id) / "analysis" / "inputs.log"
        length = log.stat().st_size
        status, reply = await client.ask("PUT", f"{path}/regions", {"regions": [box | {"x": 2.0}]})
        assert (status, reply["detail"].endswith("Nothing was changed.")) == (400, True)
        assert (await client.ask("PUT", f"{path}/calibration", {"beam_energy": 21.0}))[0] == 200
        assert (await client.ask("PUT", f"{path}/calibration", {"beam_energy": 22.0}))[0] == 409
        assert (await client.ask("GET", f"{path}/regions"))[1]["regions"][0]["x"] == 1.0
        assert length < log.stat().st_size < length + 100
