"""A data folder of version 0.1, whose server was killed: this version starts on it and loses nothing."""

from __future__ import annotations

import asyncio
import json
import tarfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from atomstream.server.upkeep.backup import back_up
from atomstream.server.upkeep.check import check
from tests.live_helpers import analysis_status, follow
from tests.live_server import LiveServer, Serve
from tests.paths import REPO
from tests.wire_client import Address, WireClient, make_frames


@pytest.fixture
def upgraded(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """The folder, and what the server of 0.1 answered before it was killed."""
    with tarfile.open(REPO / "tests" / "data" / "data_folder_0.1.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "data", json.loads((tmp_path / "expected.json").read_text())


def without(entry: dict[str, Any], *names: str) -> dict[str, Any]:
    """``entry`` without these fields."""
    return {name: value for name, value in entry.items() if name not in names}


async def check_stream(client: WireClient, server: LiveServer, expected: dict[str, Any], number: int) -> None:
    """List entry, marks, regions, calibration and frames are those of 0.1."""
    data_id = expected["ids"][number]
    (entry,) = (one for one in expected["entries"] if one["data_id"] == data_id)
    assert without(await client.entry(data_id), "last_updated") == without(entry, "last_updated")
    now, before = await analysis_status(client, data_id), expected["status"][data_id]
    for name in ("regions", "calibration"):
        assert now[name] == before[name], name
    # 0.2 adds a unit and a version to each mark.
    assert now["events"] == [{**mark, "unit": "", "version": 1} for mark in before["events"]]
    assert zlib.crc32(server.frames(data_id).tobytes()) == expected["crc32"][number]


async def test_everything_of_0_1_is_there(serve: Serve, upgraded: tuple[Path, dict[str, Any]]) -> None:
    """The key opens the server; streams, names, marks and results are those of 0.1; the running stream goes on."""
    folder, expected = upgraded
    assert check(folder).damaged == []
    server = await serve(data_dir=folder)
    finished, running = expected["ids"]
    async with WireClient(Address(server.url, expected["api_key"])) as client:
        await check_stream(client, server, expected, 0)
        await check_stream(client, server, expected, 1)
        now, before = await analysis_status(client, finished), expected["status"][finished]
        assert (now["status"], now["frames_analysed"], now["values"]) == ("ended", 160, before["values"])
        assert (await client.ask("GET", f"/rheed/timeseries/{finished}/"))[1] == expected["series"][finished]
        assert len(await follow(client, finished)) >= before["seq"] - 1
        for path, names in (
            ("/projects/", ["Oxides"]),
            ("/physical_samples/", ["STO 12"]),
            ("/tags/", ["pld", "Ärger"]),
        ):
            assert sorted(one["name"] for one in (await client.ask("GET", path))[1]) == names
        for index in (2, 3):
            origin = (await analysis_status(client, running))["origin_unix_ms"]
            times = {
                "start_unix_ms_utc": f"{origin + 2000 * index:.0f}",
                "end_unix_ms_utc": f"{origin + 2000 * index + 2000:.0f}",
            }
            status, _ = await client.send(running, index, make_frames(40, 32, 40), 40, **times)
            assert status == 200
        assert (await client.end(running))[0] == 200
        await follow(client, running)
        after = await analysis_status(client, running)
        assert (after["status"], after["frames_analysed"]) == ("ended", 160)
        assert [event["label"] for event in after["events"] if event["by"] == "user"] == ["shutter"]
        report = await asyncio.to_thread(back_up, folder, folder.parent / "backups")
        assert (report.streams, report.problems) == (2, [])
    assert (await asyncio.to_thread(check, folder)).damaged == []
