"""Signals of a sample beside its frames: arrays in the archive, marks by rules, and the route of the page."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import zarr

from atomstream.server.signals import beside_frames
from atomstream.server.signals.alignment import column_names, held
from atomstream.server.signals.beside_frames import BesideFrames, sampled, write_columns
from atomstream.server.signals.chunks import Points
from tests.live_helpers import analysed, analysis_status, send_chunks
from tests.live_server import LiveServer, Serve
from tests.server.signals.test_tool_state import begin, push
from tests.wire_client import START_MS, WireClient

T = START_MS / 1000.0
FPS = 4.0
FRAMES = np.random.default_rng(2).integers(0, 255, (24, 16, 16), dtype=np.uint8)
RULES = ['shutter>0.5 -> mark "shutter open"', "shutter<0.5 -> shutter closed"]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write without waiting for more."""
    monkeypatch.setattr(beside_frames, "PERIOD_S", 0.0)


async def sample(client: WireClient, *data_ids: str) -> None:
    """Link streams to one new sample."""
    _, made = await client.ask("POST", "/physical_samples/", {"name": "GaN"})
    sample_id = made["id"] if "id" in made else made["detail"]["physical_sample_id"]
    body = {"data_ids": list(data_ids), "physical_sample_id": sample_id}
    assert (await client.ask("POST", "/data_entries/physical_sample", body))[0] == 200


async def signals(client: WireClient, data_id: str) -> None:
    """Six seconds of temperature at 1 Hz, and a shutter that opens at 2 s and closes at 4.5 s."""
    times = [T - 1 + k for k in range(8)]
    await push(client, data_id, 0, **{"T (sub)": (times, [500.0 + k for k in range(8)], "°C")})
    await push(client, data_id, 1, shutter=([T - 5, T + 2, T + 4.5], [0.0, 1.0, 0.0]))


async def stream_of_frames(client: WireClient) -> str:
    return await client.create(fps_capture_rate=FPS)


def columns(server: LiveServer, data_id: str) -> dict[str, Any]:
    """The arrays of signals as zarr-python reads them."""
    group = zarr.open_group(server.folder(data_id) / "frames.zarr", mode="r")
    return {name: array for name, array in group.arrays() if name.startswith("signal_")}


EXPECTED_T = np.repeat(501.0 + np.arange(6), 4)
EXPECTED_SHUTTER = np.where((np.arange(24) >= 8) & (np.arange(24) < 18), 1.0, 0.0)


@pytest.mark.parametrize("order", ["signals first", "frames first", "linked last"])
async def test_arrays_in_the_archive_hold_the_values_at_each_frame(serve: Serve, order: str) -> None:
    """Whatever arrives first, each frame has the newest value before it, and the array has the unit."""
    server = await serve()
    async with WireClient(server) as client:
        frames, tool = await stream_of_frames(client), await begin(client, marks=RULES)
        if order != "linked last":
            await sample(client, frames, tool)
        if order == "signals first":
            await signals(client, tool)
        await send_chunks(client, frames, FRAMES, chunk=4, fps=FPS)
        if order != "signals first":
            await signals(client, tool)
        if order == "linked last":
            await sample(client, frames, tool)
        await server.context.beside_frames.settled()
        found = columns(server, frames)
        assert found["signal_t_sub"].attrs["units"] == "°C"
        np.testing.assert_array_equal(found["signal_t_sub"][:], EXPECTED_T)
        np.testing.assert_array_equal(found["signal_shutter"][:], EXPECTED_SHUTTER)
        status = await analysis_status(client, frames)
        assert status["columns"]["signal_t_sub"] == "°C"
        url = f"{server.url}/rheed/stream/{frames}/export?to=csv"
        async with client.session.get(url) as reply:
            assert "signal_t_sub [°C]" in (await reply.text()).splitlines()[0].split(",")
        marks = [
            (one["kind"], one["label"], one["time_s"]) for one in status["events"] if one["by"] == "user"
        ]
        assert marks == [("shutter", "shutter open", 2.0), ("shutter", "shutter closed", 4.5)]


async def test_the_end_and_a_repeated_analysis_keep_them(serve: Serve) -> None:
    """At the end all arrays are written once more; analysing again neither clears them nor repeats a mark."""
    server = await serve()
    async with WireClient(server) as client:
        frames, tool = await stream_of_frames(client), await begin(client, marks=RULES)
        await sample(client, frames, tool)
        await signals(client, tool)
        await analysed(client, frames, FRAMES, chunk=4, fps=FPS)
        server.archive(frames).results.write(0, {"signal_t_sub": np.zeros(24, np.float32)}, {})
        server.context.beside_frames.note(frames)
        await server.context.beside_frames.settled()
        np.testing.assert_array_equal(columns(server, frames)["signal_t_sub"][:], EXPECTED_T)
        before = (await analysis_status(client, frames))["events"]
        results = await server.context.results.of(frames)
        assert results.reanalyse()
        while not results.is_over:
            await results.changed.wait()
        np.testing.assert_array_equal(columns(server, frames)["signal_t_sub"][:], EXPECTED_T)
        assert len([one for one in before if one["by"] == "user"]) == 2


async def test_a_server_that_stops_meanwhile_writes_them(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the server interrupts the task that was just writing: the values are written nevertheless."""
    began, go_on = threading.Event(), threading.Event()

    def hold_first(*arguments: Any) -> Any:
        if not began.is_set():
            began.set()
            assert go_on.wait(30.0)
            return None
        return write_columns(*arguments)

    server = await serve()
    async with WireClient(server) as client:
        frames, tool = await stream_of_frames(client), await begin(client)
        await sample(client, frames, tool)
        await send_chunks(client, frames, FRAMES, chunk=4, fps=FPS)
        await server.context.beside_frames.settled()
        monkeypatch.setattr(beside_frames, "write_columns", hold_first)
        await push(
            client,
            tool,
            0,
            **{"T (sub)": ([T - 1 + k for k in range(8)], [500.0 + k for k in range(8)], "°C")},
        )
        assert await asyncio.to_thread(began.wait, 30.0)
    await server.stop()
    go_on.set()
    np.testing.assert_array_equal(columns(server, frames)["signal_t_sub"][:], EXPECTED_T)


async def test_a_full_disk_delays_them(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk refuses is written later, and not only when the next point or frame arrives."""
    monkeypatch.setattr(beside_frames, "RETRY_S", 0.0)
    refused: list[None] = []

    def full_once(*arguments: Any) -> Any:
        if not refused:
            refused.append(None)
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_columns(*arguments)

    monkeypatch.setattr(beside_frames, "write_columns", full_once)
    server = await serve()
    async with WireClient(server) as client:
        frames, tool = await stream_of_frames(client), await begin(client)
        await sample(client, frames, tool)
        await signals(client, tool)
        await send_chunks(client, frames, FRAMES, chunk=4, fps=FPS)
        await server.context.beside_frames.settled()
        assert refused
        np.testing.assert_array_equal(columns(server, frames)["signal_t_sub"][:], EXPECTED_T)


async def test_the_route_of_the_page(serve: Serve) -> None:
    """The points of the sample during the stream, on its time axis; a stream without a sample has none."""
    server = await serve()
    async with WireClient(server) as client:
        frames, tool = await stream_of_frames(client), await begin(client)
        await send_chunks(client, frames, FRAMES, chunk=4, fps=FPS)
        assert (await client.ask("GET", f"/rheed/stream/{frames}/signals"))[1]["channels"] == []
        await sample(client, frames, tool)
        await signals(client, tool)
        _, reply = await client.ask("GET", f"/rheed/stream/{frames}/signals")
        shutter = next(one for one in reply["channels"] if one["name"] == "shutter")
        assert shutter["time_seconds"] == [-5.0, 2.0, 4.5]
        assert shutter["values"] == [0.0, 1.0, 0.0]
        _, reply = await client.ask(
            "GET", f"/rheed/stream/{frames}/signals", params={"after": "1", "before": "3"}
        )
        assert reply["channels"][0]["values"] == [502.0, 503.0, 504.0]


class BeginsMeanwhile(MagicMock):
    """A registry with one stream, whose channel gets its first points, and its unit, after the second reading."""

    reads = 0

    def of_sample(self, sample_id: str) -> list[Any]:
        return [MagicMock(data_id="tool", rules=lambda: ())]

    async def read(self, data_id: str, call: Callable[[Any], Any]) -> Any:
        self.reads += 1
        begun = self.reads > 2
        points = Points(np.array([1.0]), np.array([580.0]))
        stream = MagicMock()
        stream.lengths.return_value = {"T": 1} if begun else {}
        stream.units.return_value = {"T": "°C"} if begun else {}
        stream.points.return_value = {"T": points} if begun else {}
        return call(stream)


async def test_a_channel_that_begins_meanwhile_has_its_unit() -> None:
    """Units and points are of the same moment: an array would keep the unit with which it was made."""
    registry = BeginsMeanwhile()
    beside = BesideFrames(MagicMock(), MagicMock(), registry, MagicMock(), MagicMock())
    assert [one.units for one in await beside.channels("sample")] == []
    assert [one.units for one in await beside.channels("sample")] == ["°C"]


def test_a_value_holds_until_the_next_one() -> None:
    """Before the first point there means no value; after the last one it holds for a while; NaN means no value."""
    points = Points(np.array([10.0, 11.0, 12.0]), np.array([1.0, np.nan, 3.0]))
    found = held(points, np.array([9.9, 10.0, 10.9, 11.5, 12.0, 71.0, 73.0, np.nan]))
    np.testing.assert_array_equal(found, [np.nan, 1.0, 1.0, np.nan, 3.0, 3.0, np.nan, np.nan])
    single = Points(np.array([10.0]), np.array([7.0]))
    np.testing.assert_array_equal(held(single, np.array([9.0, 1e9])), [np.nan, 7.0])
    assert np.isnan(held(Points(np.zeros(0), np.zeros(0)), np.array([1.0]))).all()


def test_names_of_arrays() -> None:
    """Any channel name gives a valid and different name of an array."""
    names = column_names(["Ga shutter", "ga-shutter", "°", "Größe", "x" * 100])
    assert list(names.values())[:4] == [
        "signal_ga_shutter",
        "signal_ga_shutter_2",
        "signal_channel",
        "signal_groe",
    ]
    assert all(len(name) <= 64 for name in names.values())


def test_a_short_event_is_not_left_out_of_a_sample_of_points() -> None:
    """Of 10 000 points a few are shown; the one opening of the shutter is among them."""
    values = np.zeros(10_000)
    values[7777] = 1.0
    shown = sampled(Points(np.arange(10_000.0), values), 0.0, 1e9, 100)
    assert len(shown) <= 102
    assert shown.values.max() == 1.0
    assert (np.diff(shown.times) > 0).all()
