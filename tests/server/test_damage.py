"""Damaged files cost only themselves: everything else of the server goes on, and the damage is named."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.live_server import LiveServer, Serve
from tests.server.damage_cases import FOLDER, STREAM
from tests.wire_client import WireClient, make_frames, shard_bytes

FRAMES = make_frames(12)
KEY = "k" * 43
NAMES = ("damaged", "ended", "open")
KINDS = list(STREAM)
GROUPS = [KINDS[start::4] for start in range(4)]
HARMLESS = {
    "analysis gone", "counts cut", "counts document: synced a list", "counts gone", "description: lost a list",
    "description: geometry of zeros", "description: geometry huge",
    "description: lost long", "description: tags twice", "description: zero in the name",
    "group document of wrong types", "incoming with a folder", "inputs: NaN", "results: NaN", "running noise",
    "running: analyse again", "state: wrong types", "time document: attributes gone", "description: other values",
}  # fmt: skip
"""Kinds that cost nothing, or that are made again without a loss: they need not be named."""
UNNOTICED = {"time column noise"}
"""Columns have no checksums: other values of the right length are served, and shards are not compared with them."""
MENDED = {kind for kind in STREAM if kind.startswith(("a shard", "foreign files"))}
"""The repeated chunk replaces the damaged one, and the note about it ends."""
Template = tuple[Path, dict[str, str]]


async def make_template(folder: Path) -> dict[str, str]:
    """A data folder with three streams of three chunks with results; returns their ids by name."""
    server = LiveServer(folder, api_key=KEY)
    await server.start()
    assert server.running is not None
    ids: dict[str, str] = {}
    async with WireClient(server) as client:
        for name in NAMES:
            data_id = ids[name] = await client.create(name)
            for index in range(3):
                assert (await client.send(data_id, index, FRAMES[4 * index : 4 * index + 4]))[0] == 200
            event = {"label": "mark", "kind": "note"}
            assert (await client.ask("POST", f"/rheed/stream/{data_id}/events", event))[0] == 200
        await client.end(ids["ended"])
        for data_id in ids.values():
            results = await server.context.results.of(data_id)
            while results._store.log.analysed < 12:
                await asyncio.sleep(0.01)
            results._store.log.checkpoint(force=True)
    await server.stop()
    return ids


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    """The folder of :func:`make_template`, made in a thread because the test's loop exists already."""
    folder, ids = tmp_path_factory.mktemp("template") / "data", dict[str, str]()
    thread = threading.Thread(target=lambda: ids.update(asyncio.run(make_template(folder))))
    thread.start()
    thread.join()
    yield folder, ids
    shutil.rmtree(folder)


def tracebacks(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The messages that were logged with a traceback, which are for faults of the program alone."""
    return [one.getMessage() for one in caplog.records if one.exc_info and one.levelno > logging.DEBUG]


def copy_damaged(data: Path, source: str, kind: str) -> str:
    """Add a stream that is a copy of ``source`` with this damage; returns its id."""
    data_id = str(uuid.uuid4())
    folder = data / "streams" / data_id
    shutil.copytree(data / "streams" / source, folder)
    about = json.loads((folder / "stream.json").read_text())
    (folder / "stream.json").write_text(json.dumps({**about, "data_id": data_id, "name": kind}))
    STREAM[kind](folder)
    return data_id


@pytest.mark.parametrize("kinds", GROUPS, ids=range(4))
async def test_a_damaged_stream_costs_only_itself(
    serve: Serve, tmp_path: Path, template: Template, kinds: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The server starts, serves the other streams, times them and stops, whatever is damaged in one."""
    data, ids = tmp_path / "data", template[1]
    shutil.copytree(template[0], data)
    damaged = {kind: copy_damaged(data, ids["damaged"], kind) for kind in kinds}
    server = await serve(data_dir=data, api_key=KEY)
    async with WireClient(server) as client:
        for kind, data_id in damaged.items():
            answers = await use_all(client, data_id)
            assert set(answers.values()) <= {200, 404, 409, 503}, (kind, answers)
        await all_others_go_on(server, client, ids)
        _, problems = await client.ask("GET", "/dashboard/problems")
    unnamed = {kind for kind, data_id in damaged.items() if data_id not in problems["streams"]}
    assert unnamed <= HARMLESS | MENDED | UNNOTICED
    await server.stop()
    assert not tracebacks(caplog), caplog.text[-3000:]


@pytest.mark.parametrize(
    "name", ["analysis/results.log", "analysis/inputs.log", "analysis/profiles", "frames.zarr/time/c/0"]
)
async def test_a_file_that_may_not_be_read(
    serve: Serve, tmp_path: Path, template: Template, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named, and requests that need it are answered by 503; once it may be read, all is as before."""
    data = tmp_path / "data"
    shutil.copytree(template[0], data)
    data_id = template[1]["ended"]
    denied, opened = {str(data / "streams" / data_id / name)}, os.open

    def checked(path: Any, *arguments: Any, **more: Any) -> int:
        if str(path) in denied:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *arguments, **more)

    monkeypatch.setattr(os, "open", checked)
    server = await serve(data_dir=data, api_key=KEY)
    paths = [f"/rheed/stream/{data_id}/{what}" for what in ("analysis", "chunks", "events")]
    async with WireClient(server) as client:
        statuses = [(await client.ask("GET", path))[0] for path in paths]
        assert statuses[:2] == [503, 200]
        _, problems = await client.ask("GET", "/dashboard/problems")
        assert any(one.startswith(f"{name}: it can't be read") for one in problems["streams"][data_id])
        denied.clear()
        assert [(await client.ask("GET", path))[0] for path in paths] == [200] * 3
        _, problems = await client.ask("GET", "/dashboard/problems")
        assert name.startswith("frames") or data_id not in problems["streams"]


@pytest.mark.parametrize("kind", FOLDER)
async def test_a_damaged_data_folder_costs_only_what_is_damaged(
    serve: Serve, tmp_path: Path, template: Template, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged file beside the streams has no effect on the other data."""
    data, ids = tmp_path / "data", template[1]
    shutil.copytree(template[0], data)
    FOLDER[kind](data)
    server = await serve(data_dir=data, api_key=KEY)
    async with WireClient(server) as client:
        await all_others_go_on(server, client, ids)
        assert (await client.ask("POST", "/tags/", {"name": "new"}))[0] == 200
    await server.stop()
    assert not tracebacks(caplog), caplog.text[-3000:]


async def all_others_go_on(server: LiveServer, client: WireClient, ids: dict[str, str]) -> None:
    """The undamaged streams are equal, take chunks, are listed, answer everything and are timed."""
    assert np.array_equal(server.frames(ids["ended"]), FRAMES)
    status, entries = await client.ask("GET", "/data_entries/")
    assert status == 200, entries
    assert {"ended", "open"} <= {entry["raw_name"] for entry in entries}
    await client.create("new")
    assert server.running is not None
    lifecycle = server.context.lifecycle
    assert ids["open"] in lifecycle._last_activity
    clock, lifecycle._clock = lifecycle._clock, lambda: clock() + 200.0
    lifecycle._wake.set()
    while (await client.entry(ids["open"]))["pipeline_status"] != "stream_interrupted":
        await asyncio.sleep(0.01)
    lifecycle._clock = clock
    for name in ("open", "ended"):
        answers = await use_all(client, ids[name])
        assert set(answers.values()) == {200}, answers


async def use_all(client: WireClient, data_id: str) -> dict[str, int]:
    """The status of each kind of request about a stream: reading, a repeated and a new chunk, an event, the end."""
    answers = {}
    for path in (
        f"/dashboard/streams/{data_id}", f"/rheed/stream/{data_id}/analysis", f"/rheed/stream/{data_id}/chunks",
        f"/dashboard/streams/{data_id}/series?name=specular_intensity", f"/rheed/stream/{data_id}/events",
        f"/rheed/timeseries/{data_id}/", f"/rheed/{data_id}/azimuths", f"/rheed/stream/{data_id}/regions",
        f"/dashboard/streams/{data_id}/growths", f"/rheed/stream/{data_id}/signals",
    ):  # fmt: skip
        answers[path.replace(data_id, "ID")] = (await client.ask("GET", path))[0]
    for name in ("export?to=csv", "profiles", "columns"):
        async with client.session.get(f"{client.server.url}/rheed/stream/{data_id}/{name}") as reply:
            answers[name] = reply.status
    for index, frames in ((1, FRAMES[4:8]), (3, FRAMES[:4])):
        status, reply = await client.ask_url(data_id, index, (4, 8, 12))
        if status == 200:
            status, _, _ = await client.put(reply[0]["url"], shard_bytes(frames))
        answers[f"put {index}"] = status
    event = {"label": "another", "kind": "note"}
    answers["event"] = (await client.ask("POST", f"/rheed/stream/{data_id}/events", event))[0]
    answers["end"] = (await client.end(data_id))[0]
    return answers


@pytest.mark.parametrize("kind", ["a shard emptied", "a shard cut", "a shard a folder", "a shard gone"])
async def test_a_bad_chunk_is_named_before_it_is_read(
    serve: Serve, tmp_path: Path, template: Template, kind: str
) -> None:
    """A damaged chunk's file is reported as soon as the stream is opened, until the chunk is sent again."""
    data = tmp_path / "data"
    shutil.copytree(template[0], data)
    data_id = copy_damaged(data, template[1]["damaged"], kind)
    server = await serve(data_dir=data, api_key=KEY)
    async with WireClient(server) as client:
        _, info = await client.ask("GET", f"/dashboard/streams/{data_id}")
        named = any(problem.startswith("frames.zarr/frames/c/1/0/0: chunk 1") for problem in info["problems"])
        assert named or (kind == "a shard gone" and info["missing"] == ["1"])
        assert (await client.send(data_id, 1, FRAMES[4:8]))[0] == 200
        _, info = await client.ask("GET", f"/dashboard/streams/{data_id}")
        assert not any("chunk 1" in problem for problem in info["problems"])
