"""Further reading of the hosted service's client: samples of a project, series of a sample, changepoints."""

from __future__ import annotations

import pytest

from atomstream.results import ANALYSIS_KINDS, Event
from atomstream.server.routes.hosted import CHANGES, MAX_STREAMS, is_change
from tests.live_helpers import FPS, analysed, growth
from tests.live_server import Serve
from tests.wire_client import START_MS, WireClient

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
        _, found = await client.ask("GET", path, params={"property_names": "specular_intensity"})
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
        assert (await client.ask("GET", "/instruments/synthesis"))[1] == []


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


def test_which_events_are_changes() -> None:
    """Changes of the sample are; events of the light, of missing frames and of the user are not."""
    assert set(ANALYSIS_KINDS) > CHANGES
    assert is_change(Event(3.0, "change", value=4.5))
    assert not is_change(Event(3.0, "dark"))
    assert not is_change(Event(3.0, "change", by="user"))
    assert not is_change(Event(None, "change"))
