"""The page "Compare": which growths belong together, alignment on mark and layer, the band and where it is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zarr

from atomstream.results import Event
from atomstream.server.archive.column import COLUMN_CHUNK
from atomstream.server.archive.downsampling import ColumnReader
from atomstream.server.dashboard.comparison import Source, _compared, opening_s, read_track
from atomstream.server.live.growth_summary import SummaryReader, summary_of
from atomstream.server.live.messages import CurrentResults, MeasurementRecord, SegmentRecord
from tests.live_server import LiveServer, Serve
from tests.server.live.cluster_parts import until_over
from tests.wire_client import START_MS, WireClient, make_frames

FPS = 10.0


def source(folder: Path, name: str, zero_s: float | None, **columns: Any) -> Source:
    """A growth of these columns at ``FPS``, as the archive has it."""
    group = folder / name
    count = len(next(iter(columns.values())))
    columns["time"] = np.arange(count) / FPS
    for column, values in columns.items():
        array = zarr.create_array(
            group / column, shape=(count,), chunks=(COLUMN_CHUNK,), dtype="float64", compressors=None
        )
        array[:] = values
    return Source(name, name, group, count, zero_s, "")


def test_alignment_on_a_mark_and_on_layers(tmp_path: Path) -> None:
    """Time 0 is the mark; the layers count from it, over segments; before it there are none."""
    counts = np.concatenate([np.zeros(50), np.arange(100) / 10.0, np.arange(100) / 10.0])
    made = source(tmp_path, "a", 5.0, oscillations_counted=counts, specular_intensity=np.arange(250.0))
    by_mark = read_track(ColumnReader(), made, "specular_intensity", "mark")
    assert (by_mark.position[0], by_mark.values[0]) == (-5.0, 0.0)
    assert by_mark.position[-1] == pytest.approx(19.9)
    by_layer = read_track(ColumnReader(), made, "specular_intensity", "layer")
    assert by_layer.time_s[0] == 5.0
    assert (by_layer.position[0], by_layer.position[-1]) == (0.0, pytest.approx(19.8))
    by_start = read_track(ColumnReader(), made, "specular_intensity", "start")
    assert by_start.position[0] == -5.0  # the mark's time is used as it was found


def test_a_growth_that_leaves_what_is_normal(tmp_path: Path) -> None:
    """The reply has the place and the time of this growth, which began later than the others."""
    alike = [source(tmp_path, f"e{k}", 2.0, growth_rate_ml_s=np.full(400, 1.0 + 0.01 * k)) for k in range(3)]
    rate = np.full(400, 1.01)
    rate[250:] = 1.5
    today = source(tmp_path, "today", 5.0, growth_rate_ml_s=rate)
    reply = _compared(ColumnReader(), today, alike[0], alike, "growth_rate_ml_s", "mark", 400)
    assert (reply["band_of"], reply["ghost_name"]) == (3, "e0")
    assert reply["left"]["x"] == pytest.approx(20.0, abs=0.2)
    assert reply["left"]["time_s"] == pytest.approx(25.0, abs=0.2)
    assert len(reply["x"]) == len(reply["today"]) == len(reply["ghost"]) == len(reply["low"])
    few = _compared(ColumnReader(), today, alike[0], alike[:2], "growth_rate_ml_s", "mark", 400)
    assert (few["left"], few.get("low")) == (None, None)
    assert "needs 3" in few["band_why"]
    empty = source(tmp_path, "empty", None, growth_rate_ml_s=np.empty(0))
    assert _compared(ColumnReader(), empty, None, [], "growth_rate_ml_s", "layer", 400)["x"] == []


def test_layers_that_are_counted_at_each_fit(tmp_path: Path) -> None:
    """A count that grows in steps of several layers leaves no gaps between the values over the layers."""
    counts = np.repeat(np.arange(0.0, 40.0, 0.8), 8)
    growths = [
        source(
            tmp_path, f"g{k}", 0.0, oscillations_counted=counts, growth_rate_ml_s=np.full(400, 1.0 + 0.1 * k)
        )
        for k in range(3)
    ]
    reply = _compared(ColumnReader(), growths[0], growths[1], growths, "growth_rate_ml_s", "layer", 400)
    for name in ("today", "ghost", "low", "high", "time"):
        assert None not in reply[name], name


def test_the_opening_is_the_first_mark_of_a_growth() -> None:
    """A note, a pause, an event of the analysis and a mark without a time are not an opening."""
    events = [
        Event(1.0, "note", by="user"),
        Event(2.0, "pause", by="user"),
        Event(2.5, "shutter"),
        Event(None, "laser", by="user"),
        Event(4.0, "growth", by="user"),
        Event(3.0, "shutter", by="user"),
    ]
    assert opening_s(events) == 3.0
    assert opening_s(events[:4]) is None


def test_the_summary_of_a_growth() -> None:
    """The rate is that of the segment that is known best, if none is determined at present; short ones do not count."""
    none = MeasurementRecord(None, why="x")

    def segment(value: float | None, sigma: float | None, cycles: float) -> SegmentRecord:
        return SegmentRecord(0, 0.0, 1.0, "", MeasurementRecord(value, sigma, "1/s"), cycles, none, none)

    results = CurrentResults(
        {
            "growth_rate_ml_s": MeasurementRecord(None, unit="monolayer/s", why="x"),
            "layers_total": MeasurementRecord(12.0, 0.5, "monolayer"),
        },
        [
            segment(1.0, 0.001, 3.0),
            segment(0.5, 0.01, 20.0),
            segment(0.4, 0.002, 9.0),
            segment(None, None, 9.0),
        ],
    )
    summary = summary_of(results)
    assert summary.rate is not None
    assert (summary.rate.value, summary.relative_error) == (0.4, pytest.approx(0.005))
    assert summary.rate.unit == "monolayer/s"  # as that of a growth whose rate is determined
    pulsed = msgspec.structs.replace(results, values={**results.values, "layers_total": none})
    assert (found := summary_of(pulsed).rate) is not None
    assert found.unit == "1/s"  # oscillations are not layers there
    assert summary.layers == MeasurementRecord(12.0, 0.5, "monolayer")
    assert summary.thickness_nm is None
    assert summary_of(CurrentResults()).rate is None


async def stream(client: WireClient, name: str, *, ended: bool = True, **patch: Any) -> str:
    """A short stream with these attributes or this sample."""
    data_id = await client.create(name)
    await client.send(data_id, 0, make_frames(4))
    if patch:
        assert (await client.ask("PATCH", f"/rheed/stream/{data_id}", patch))[0] == 200
    if ended:
        await client.end(data_id)
    return data_id


async def test_which_growths_belong_together(serve: Serve) -> None:
    """A growth is compared with those of its sample, else of its recipe, else with none; the reply states which."""
    server: LiveServer = await serve()
    async with WireClient(server) as client:
        first = await stream(client, "A", sample_name="Wafer 1", attributes={"recipe": "GaN 7"})
        await stream(client, "runs", ended=False, sample_name="Wafer 1")
        other = await stream(client, "B", attributes={"recipe": "GaN 7"})
        today = await stream(client, "C", ended=False, sample_name="Wafer 1")
        alone = await stream(client, "D", ended=False)

        async def growths(data_id: str) -> Any:
            return (await client.ask("GET", f"/dashboard/streams/{data_id}/growths"))[1]

        found = await growths(today)
        assert [one["data_id"] for one in found["growths"]] == [first]
        assert (found["best"], found["rule"]) == (first, "of the same sample, Wafer 1")
        found = await growths(other)
        assert [one["data_id"] for one in found["growths"]] == [first]
        assert found["rule"] == "of the same recipe, GaN 7"
        found = await growths(alone)
        assert (found["best"], found["alike"]) == (None, False)
        assert {one["data_id"] for one in found["growths"]} == {first, other}
        await until_over(await server.context.results.of(first))
        assert SummaryReader().read(server.folder(first)) is not None

        path = f"/dashboard/streams/{today}/comparison"
        mark = {"label": "open", "kind": "shutter", "time_ms_utc": START_MS}
        await client.ask("POST", f"/rheed/stream/{first}/events", mark)
        status, reply = await client.ask("GET", f"{path}?name=specular_intensity")
        assert (status, reply["ghost_id"], reply["band_of"]) == (200, first, 1)
        assert "C: aligned on its first frame" in reply["notes"][0]
        assert "needs 3" in reply["band_why"]
        assert (await client.ask("GET", f"{path}?with={other}&align=layer"))[1]["ghost_name"] == "B"
        for wrong in ("align=x", "name=../x", "points=1", "with=x"):
            assert (await client.ask("GET", f"{path}?{wrong}"))[0] in (400, 404), wrong
        unknown = "11111111-1111-4111-8111-111111111111"
        assert (await client.ask("GET", f"{path}?with={unknown}"))[0] == 404
