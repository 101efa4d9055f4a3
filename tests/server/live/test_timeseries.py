"""Requests of the hosted service's client for results: exactly its shape, fast, during and after the stream."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from tests.live_helpers import (
    CHUNK,
    FPS,
    SPEC,
    analysed,
    batches,
    batches_until,
    column,
    feed,
    follow,
    growth,
    send_chunks,
)
from tests.live_server import Serve
from tests.wire_client import START_MS, WireClient

POINT = {
    *("frame_number", "time_seconds", "relative_time_seconds", "unix_timestamp_ms", "specular_intensity"),
    *("first_order_intensity", "first_order_intensity_l", "first_order_intensity_r"),
    *("half_order_intensity", "half_order_intensity_l", "half_order_intensity_r"),
    *("specular_fwhm_1", "first_order_fwhm_1", "spot_count", "lattice_spacing", "referenced_strain"),
    *(
        "nearest_neighbor_strain",
        "oscillation_period",
        "reconstruction_intensity",
        "cluster_id",
        "cluster_std",
    ),
}


async def test_series_of_a_running_stream(serve: Serve) -> None:
    """During the stream the series has the analysed frames, in the protocol's shape, equal to the feed."""
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=FPS, azimuth_label="[110]")
        assert (await client.ask("GET", f"/rheed/timeseries/{data_id}/"))[1]["series_by_angle"][0][
            "series"
        ] == []
        async with feed(client, data_id) as socket:
            await send_chunks(client, data_id, growth(), [0, 1])
            found = await batches_until(socket, 2 * CHUNK)
            status, reply = await client.ask("GET", f"/rheed/timeseries/{data_id}/")
    (entry,) = reply["series_by_angle"]
    assert status == 200
    assert set(entry) == {"angle", "view_id", "interval_id", "azimuth_label", "series"}
    assert (entry["angle"], entry["azimuth_label"]) == (0.0, "[110]")
    assert all(set(point) == POINT for point in entry["series"])
    assert [point["frame_number"] for point in entry["series"]] == list(range(2 * CHUNK))
    assert [point["specular_intensity"] for point in entry["series"]] == column(
        found, "specular_intensity"
    ).tolist()
    last = entry["series"][-1]
    assert last["relative_time_seconds"] == pytest.approx((2 * CHUNK - 1) / FPS)
    assert last["unix_timestamp_ms"] == pytest.approx(START_MS + 1000 * (2 * CHUNK - 1) / FPS)
    assert last["referenced_strain"] is None
    assert last["nearest_neighbor_strain"] is None  # the protocol does not define it: docs/accuracy.md


async def test_parameters(serve: Serve) -> None:
    """last_n, elapsed_seconds, property_names and low-level features work as specified."""
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        await analysed(client, data_id, growth(120))

        async def ask(**query: str | list[str]) -> list[dict[str, float]]:
            _, reply = await client.ask("GET", f"/rheed/timeseries/{data_id}/", params=query)
            (entry,) = reply["series_by_angle"]
            return list(entry["series"])

        assert [point["frame_number"] for point in await ask(last_n="7")] == list(range(113, 120))
        assert len(await ask(elapsed_seconds="1")) == 60
        assert len(await ask(elapsed_seconds="1", last_n="5")) == 5
        names = await ask(last_n="1", property_names=["lattice_spacing", "spot_count"])
        assert set(names[0]) == {*list(POINT)[:0], "frame_number", "time_seconds", "relative_time_seconds",
                                 "unix_timestamp_ms", "lattice_spacing", "spot_count"}  # fmt: skip
        low = await ask(last_n="1", include_low_level_features="true")
        assert "growth_rate_ml_s" in low[0]["low_level_features"]  # type: ignore[operator]
        for wrong in ("0", "-3", "many", "nan"):
            assert (await client.ask("GET", f"/rheed/timeseries/{data_id}/", params={"last_n": wrong}))[
                0
            ] == 400


@pytest.mark.slow
async def test_views_of_a_rotating_stream(serve: Serve) -> None:
    """A rotating stream has a series per view, one point per turn; its label can be set, and it can be excluded."""
    spec = dataclasses.replace(SPEC, rpm=12.0)
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=FPS, rotations_per_min=12.0)
        last = batches(await analysed(client, data_id, growth(660, spec)))[-1]
        _, views = await client.ask("GET", f"/rheed/{data_id}/azimuths")
        assert len(views) == len(last["views"]) > 0
        assert {view["view_id"] for view in views} == {str(view["view_id"]) for view in last["views"]}
        path = f"/rheed/{data_id}/azimuths/{views[0]['view_id']}"
        status, changed = await client.ask("PATCH", path, {"label": "[110]"})
        assert (status, changed["azimuth_label"]) == (200, "[110]")
        asked = {"include_low_level_features": "true"}
        _, reply = await client.ask("GET", f"/rheed/timeseries/{data_id}/", params=asked)
        low = reply["series_by_angle"][0]["series"][-1]["low_level_features"]
        assert low["azimuth_angle"] == pytest.approx(views[0]["annotation"]["angle_deg"])
        assert low["lattice_spacing_sigma"] > 0
        _, reply = await client.ask("GET", f"/rheed/timeseries/{data_id}/")
        assert [e["azimuth_label"] for e in reply["series_by_angle"]] == ["[110]"] + [None] * (len(views) - 1)
        assert all(set(point) == POINT for entry in reply["series_by_angle"] for point in entry["series"])
        await client.ask("PATCH", path, {"enabled": False})
        _, reply = await client.ask("GET", f"/rheed/timeseries/{data_id}/")
        assert len(reply["series_by_angle"]) == len(views) - 1
        assert (await client.ask("PATCH", f"/rheed/{data_id}/azimuths/none-such", {"label": "x"}))[0] == 404
    json.dumps(reply, allow_nan=False)


async def test_azimuth_of_a_stationary_stream(serve: Serve) -> None:
    """A stream of a stationary sample has one view, over all its frames, whose label can be set."""
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        assert (await client.ask("GET", f"/rheed/{data_id}/azimuths"))[1] == []
        await analysed(client, data_id, growth(120))
        _, (view,) = await client.ask("GET", f"/rheed/{data_id}/azimuths")
        assert (view["start_frame"], view["end_frame"], view["azimuth_label"]) == (0, 119, None)
        await client.ask("PATCH", f"/rheed/{data_id}/azimuths/{view['view_id']}", {"label": "[100]"})
        _, reply = await client.ask("GET", f"/rheed/timeseries/{data_id}/", params={"last_n": "1"})
        assert reply["series_by_angle"][0]["azimuth_label"] == "[100]"


def labelled(views: list[dict[str, Any]]) -> dict[str, float]:
    """The azimuth of each view that has a label."""
    return {v["azimuth_label"]: v["annotation"]["angle_deg"] for v in views if v["azimuth_label"]}


@pytest.mark.slow
async def test_a_label_stays_with_its_azimuth(serve: Serve) -> None:
    """A label stays with its azimuth after a restart of the server and a reanalysis of all frames."""
    spec = dataclasses.replace(SPEC, rpm=60.0)
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create(fps_capture_rate=FPS, rotations_per_min=60.0)
        path = f"/rheed/{data_id}/azimuths"
        async with feed(client, data_id) as socket:
            await send_chunks(client, data_id, growth(300, spec), [0, 2])  # a chunk of one turn is missing
            await send_chunks(client, data_id, growth(300, spec), [3])
            await batches_until(socket, 4 * CHUNK)
        _, views = await client.ask("GET", path)
        for number, view in enumerate(views):
            await client.ask("PATCH", f"{path}/{view['view_id']}", {"label": f"label {number}"})
        before = labelled((await client.ask("GET", path))[1])
    await server.stop()
    await server.start()
    async with WireClient(server) as client:
        assert labelled((await client.ask("GET", path))[1]) == before
        await send_chunks(client, data_id, growth(300, spec), [4, 1])
        await client.end(data_id)
        await follow(client, data_id)
        after = labelled((await client.ask("GET", path))[1])
    assert len(before) >= 4
    assert after == pytest.approx(before, abs=2.5)
