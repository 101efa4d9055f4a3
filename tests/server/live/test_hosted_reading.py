"""Further reading of the hosted service's client: samples of a project, series of a sample, changepoints."""

from __future__ import annotations

import io

import h5py
import numpy as np
import pytest
from PIL import Image

from atomstream.results import ANALYSIS_KINDS, Event
from atomstream.server.routes.hosted import CHANGES, MAX_STREAMS, is_change
from atomstream.server.routes.hosted_files import png
from tests.live_helpers import FPS, analysed, growth
from tests.live_server import Serve
from tests.wire_client import START_MS, WireClient, make_frames

NOBODY = "99999999-9999-4999-8999-999999999999"


async def in_project(client: WireClient, sample: str, *data_ids: str) -> tuple[str, str]:
    """Put streams on a new sample in a new project; returns the ids of project and sample."""
    _, project = await client.ask("POST", "/projects/", {"name": f"Project of {sample}"})
    _, made = await client.ask("POST", "/physical_samples/", {"name": sample})
    body = {"physical_sample_id": made["id"], "set_active": True}
    await client.ask("POST", f"/projects/{project['id']}/configuration/tracking_samples", body)
    for_all = {"data_ids": list(data_ids), "physical_sample_id": made["id"]}
    assert (await client.ask("POST", "/data_entries/physical_sample", for_all))[0] == 200
    return project["id"], made["id"]


async def test_a_sample_with_its_series_and_changes(serve: Serve) -> None:
    """A project lists its samples; a sample has the values of its streams by time; changepoints are the events."""
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        await analysed(client, data_id, growth(120))
        project_id, sample_id = await in_project(client, "GaN 7", data_id)
        await in_project(client, "another")
        _, listed = await client.ask("GET", f"/projects/{project_id}/physical_samples")
        assert [(one["id"], one["name"], one["num_data_items"]) for one in listed] == [
            (sample_id, "GaN 7", 1)
        ]
        one = {"physical_sample_id": sample_id}
        assert (await client.ask("GET", "/physical_samples/", params=one))[1] == listed
        path = f"/physical_samples/{sample_id}/timeseries/"
        repeated = [("property_names", "specular_intensity")] * 3  # takes no more memory than once
        _, found = await client.ask("GET", path, params=repeated)
        (series,) = found["properties"]
        _, reply = await client.ask("GET", f"/rheed/timeseries/{data_id}/")
        points = reply["series_by_angle"][0]["series"]
        assert series["property_name"] == "specular_intensity"
        assert series["property_values"] == [point["specular_intensity"] for point in points]
        assert series["unix_times"][0] == pytest.approx(START_MS / 1000.0)
        assert series["real_time_seconds"] == pytest.approx(
            [point["time_seconds"] for point in points], abs=1e-6
        )
        assert series["constituent_data_ids"] == [data_id]
        _, changes = await client.ask("GET", "/changepoints/", params={"data_ids": [data_id, NOBODY]})
        _, events = await client.ask("GET", f"/rheed/stream/{data_id}/events")
        expected = [(event["kind"], event["time_s"]) for event in events if event["kind"] in CHANGES]
        assert [(c["property_name"], c["window_start_elapsed"]) for c in changes["changepoints"]] == expected
        for part, nothing in (("process_steps", {"steps": []}), ("annotations/", [])):
            assert await client.ask("GET", f"/physical_samples/{sample_id}/{part}") == (200, nothing)
            assert (await client.ask("GET", f"/physical_samples/{NOBODY}/{part}"))[0] == 404


async def test_what_is_not_there(serve: Serve) -> None:
    """Unknown samples and projects are 404, a list of no or too many streams is 400."""
    async with WireClient(await serve()) as client:
        assert (await client.ask("GET", f"/projects/{NOBODY}/physical_samples"))[0] == 404
        assert (await client.ask("GET", f"/physical_samples/{NOBODY}/timeseries/"))[0] == 404
        assert (await client.ask("GET", "/changepoints/"))[0] == 400
        many = {"data_ids": [f"{k:08}" for k in range(MAX_STREAMS + 1)]}
        assert (await client.ask("GET", "/changepoints/", params=many))[0] == 400
        _, sample_id = await in_project(client, "empty", await client.create())
        found = await client.ask("GET", f"/physical_samples/{sample_id}/timeseries/")
        assert found == (200, {"properties": []})


async def test_downloads_and_single_frames(serve: Serve) -> None:
    """The URL of a download leads to a file with all frames; a frame is a PNG with the counts; others are 404."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        place = f"/data_entries/raw_data/{data_id}"
        wanted = {"return_as": "url-download"}
        assert (await client.ask("GET", place, params=wanted))[0] == 404
        frames = make_frames(4)
        await client.send(data_id, 0, frames)
        _, found = await client.ask("GET", place, params=wanted)
        assert found["file_name"] == f"atomstream-{data_id}.h5"
        async with client.session.get(found["url"]) as reply:
            body = await reply.read()
        with h5py.File(io.BytesIO(body)) as file:
            np.testing.assert_array_equal(file["entry/data/frames"], frames)
        _, video = await client.ask("GET", place.replace("raw", "processed"), params=wanted)
        assert video["url"].endswith("?to=mp4")
        async with client.session.get(f"{server.url}/rheed/images/{data_id}/frames/2") as reply:
            image = await reply.read()
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(image))), frames[2])
        for path in (f"{data_id}/frames/4", f"{NOBODY}/frames/0", f"{NOBODY}/fingerprint"):
            assert (await client.ask("GET", f"/rheed/images/{path}"))[0] == 404
        for path in (f"/rheed/images/{data_id}/frames/-1", f"{place}?return_as=stream"):
            assert (await client.ask("GET", path))[0] == 400


def test_a_png_of_sixteen_bits() -> None:
    """A frame of more than 8 bits keeps its counts."""
    frame = np.arange(35, dtype=np.uint16).reshape(5, 7) * 1000
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(frame)))), frame)


async def test_growth_instruments(serve: Serve) -> None:
    """Instruments are added, listed and deleted; the number of a deleted one is not given again."""
    new = {"label": "Main MBE", "name": "Veeco GEN10", "type": "mbe", "serial_id": "SN-1"}
    async with WireClient(await serve()) as client:
        path = "/instruments/synthesis"
        assert await client.ask("GET", path) == (200, [])
        _, first = await client.ask("POST", path, new)
        assert await client.ask("GET", path) == (200, [first])
        assert (first["source_name"], first["source_manufacturer"], first["source_model"]) == (
            "Main MBE",
            "Veeco",
            "GEN10",
        )
        assert (await client.ask("POST", path, {**new, "type": "oven"}))[0] == 400
        for number, status in (("7", 404), ("x", 400), ("1", 200), ("1", 404)):
            assert (await client.ask("DELETE", path, params={"synthesis_instrument_ids": number}))[
                0
            ] == status
        assert await client.ask("GET", path) == (200, [])
        assert (await client.ask("POST", path, new))[1]["synth_source_id"] == 2


def test_which_events_are_changes() -> None:
    """Changes of the sample are; events of the light, of missing frames and of the user are not."""
    assert set(ANALYSIS_KINDS) > CHANGES
    assert is_change(Event(3.0, "change", value=4.5))
    assert not is_change(Event(3.0, "dark"))
    assert not is_change(Event(3.0, "change", by="user"))
    assert not is_change(Event(None, "change"))
