"""The facade in scripts of their own: Ctrl-C, the interpreter's exit, forks (P22)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.paths import REPO
from tests.streaming.hosted import KEY, Hosted, held
from tests.streaming.stream_helpers import make_async, noise
from tests.system.tuning_marks import needs

CHILD = Path(__file__).parent / "facade_child.py"
SLACK_S = 2.0
"""What a busy machine may add to a promised time; without the promise it would be minutes, or for ever."""


class Script:
    """A running child script; its lines are JSON."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.said: list[dict[str, Any]] = []

    async def says(self, what: str) -> dict[str, Any]:
        """The next line that is about ``what``."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.said.append(json.loads(line))
            if self.said[-1]["what"] == what:
                return self.said[-1]
        raise AssertionError(f"ended before it said {what!r}: {self.said}, {await self.errors()}")

    async def errors(self) -> str:
        """All that it wrote to stderr; once it has ended."""
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode()

    def go_on(self) -> None:
        """Let it go past its wait for a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")

    async def ended(self) -> float:
        """Its end, on the clock that its lines tell."""
        assert await self.process.wait() == 0, await self.errors()
        return time.monotonic()


@asynccontextmanager
async def script(mode: str, service: Hosted, spool: Path) -> AsyncIterator[Script]:
    """A child script, killed at the end where it still runs."""
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CHILD), mode, service.url, KEY, str(spool),
        stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment,
    )  # fmt: skip
    try:
        yield Script(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C can't be sent to one process alone on Windows")
@pytest.mark.parametrize("call", ["push", "push_frame", "run", "flush", "finalize"])
async def test_ctrl_c_comes_through_and_loses_nothing(service: Hosted, no_disk: Path, call: str) -> None:
    """Ctrl-C ends a blocked call within half a second; what was accepted is delivered afterwards."""
    service.faults["put"].append(held(go_on := asyncio.Event()))
    async with script(call, service, no_disk) as child:
        data_id = (await child.says("started"))["data_id"]
        if call != "flush":  # nothing tells from outside that a flush waits
            await child.says("blocked")
        sent_s = time.monotonic()
        child.process.send_signal(signal.SIGINT)
        assert (await child.says("interrupted"))["at_s"] - sent_s < 0.5 + SLACK_S
        go_on.set()
        child.go_on()
        report = (await child.says("report"))["report"]
        await child.ended()
    assert (report["chunks_spooled"], report["chunks_uploaded"], report["lost"]) == (1, 1, [])
    np.testing.assert_array_equal(service.frames(data_id, 0), noise(0))


async def test_an_exit_without_close_leaves_all_in_the_spool(service: Hosted, tmp_path: Path) -> None:
    """A script that ends without close or finalize, in an outage, exits soon; the next streamer delivers."""
    go_on = asyncio.Event()
    service.verdict = lambda kind, data_id, index: None if go_on.is_set() else held(go_on)
    async with script("exit1", service, tmp_path / "spool") as child:
        data_id = (await child.says("started"))["data_id"]
        end = await child.says("end")
        assert await child.ended() - end["at_s"] < 5.0 + SLACK_S
        errors = await child.errors()
    assert "was closed with 6 chunks in the spool" in errors
    assert "at exit:" not in errors
    go_on.set()
    async with make_async(service.url, KEY, spool_dir=tmp_path / "spool") as later:
        while (await later.spool_status())["chunks_pending"]:
            await asyncio.sleep(0.01)
    for k in range(5):
        np.testing.assert_array_equal(service.frames(data_id, k), noise(k))
    np.testing.assert_array_equal(service.frames(data_id, 5), noise(5)[:1])


@pytest.mark.slow
async def test_an_exit_without_disk_or_network_is_bounded(service: Hosted, no_disk: Path) -> None:
    """Several streamers left open, with neither spool nor server, hold the exit up for 5 s altogether."""
    never = asyncio.Event()
    service.verdict = lambda kind, data_id, index: held(never)
    async with script("exit3", service, no_disk) as child:
        end = await child.says("end")
        took_s = await child.ended() - end["at_s"]
        never.set()
        assert took_s < 5.0 + SLACK_S
        errors = await child.errors()
    assert errors.count("they are lost") >= 1
    assert "at exit:" not in errors


async def test_an_exit_delivers_what_it_can(service: Hosted, no_disk: Path) -> None:
    """With no spool but a server that answers, what was pushed before the exit is delivered in it."""
    async with script("exit1", service, no_disk) as child:
        data_id = (await child.says("started"))["data_id"]
        await child.ended()
    assert {index for stream, index in service.bodies if stream == data_id} == set(range(6))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
async def test_a_forked_child_is_told_and_its_parent_goes_on(service: Hosted, tmp_path: Path) -> None:
    """In a forked child each verb is a ClosedError and its exit harmless; the parent streams on."""
    async with script("fork", service, tmp_path / "spool") as child:
        data_id = (await child.says("started"))["data_id"]
        assert (await child.says("forked"))["status"] == 0
        report = (await child.says("report"))["report"]
        await child.ended()
    refused = [one for one in child.said if one["what"] == "refused"]
    assert [one["kind"] for one in refused] == ["ClosedError"] * 7
    assert all("forked" in one["sentence"] for one in refused)
    assert (report["chunks_uploaded"], report["lost"]) == (2, [])
    for k in range(2):
        np.testing.assert_array_equal(service.frames(data_id, k), noise(k))


@needs("gc")
async def test_garbage_is_walked_over_before_the_capture(service: Hosted, tmp_path: Path) -> None:
    """No full collection of garbage, which takes longer than a frame period, falls into a stream's first minutes."""
    async with script("capture", service, tmp_path / "spool") as child:
        generations = (await child.says("walked"))["generations"]
        await child.ended()
    assert generations.count(1) > 10  # when the next one looks whether a full collection is due
    assert 2 not in generations


async def test_nothing_is_imported_while_a_stream_runs(service: Hosted, tmp_path: Path) -> None:
    """All that a stream of an asyncio application needs was imported before it: an import holds the loop."""
    async with script("async", service, tmp_path / "spool") as child:
        assert (await child.says("imported"))["modules"] == []
        await child.ended()
