"""The blocking streamer in user scripts: Ctrl-C, exit of the interpreter, forks."""

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

from atomstream.testing import MemoryService
from tests.paths import REPO
from tests.streaming.scripted_faults import KEY, held
from tests.streaming.stream_helpers import make_async, noise
from tests.system.tuning_marks import needs

CHILD = Path(__file__).parent / "facade_child.py"
SLACK_S = 2.0
"""Added to each documented limit, for a busy machine; without the limit the call would take minutes or not return."""


class Script:
    """A running child script; it prints lines of JSON."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []

    async def next_line(self, what: str) -> dict[str, Any]:
        """The next line about ``what``."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.lines.append(json.loads(line))
            if self.lines[-1]["what"] == what:
                return self.lines[-1]
        raise AssertionError(f"it exited before the line {what!r}: {self.lines}, {await self.errors()}")

    async def errors(self) -> str:
        """All of its stderr, once it has exited."""
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode()

    def resume(self) -> None:
        """Send the line for which the script waits."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")

    async def ended(self) -> float:
        """The time of its exit, on the clock of its lines."""
        assert await self.process.wait() == 0, await self.errors()
        return time.monotonic()


@asynccontextmanager
async def script(mode: str, service: MemoryService, spool: Path) -> AsyncIterator[Script]:
    """Starts child scripts; kills them at the end if they still run."""
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


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send Ctrl-C to a single process")
@pytest.mark.parametrize("call", ["push", "push_frame", "run", "flush", "finalize"])
async def test_ctrl_c_interrupts_and_loses_nothing(service: MemoryService, no_disk: Path, call: str) -> None:
    """Ctrl-C interrupts a blocked call within half a second; accepted chunks are delivered afterwards."""
    service.faults["put"].append(held(go_on := asyncio.Event()))
    async with script(call, service, no_disk) as child:
        data_id = (await child.next_line("started"))["data_id"]
        if call != "flush":  # the child cannot detect that a flush waits
            await child.next_line("blocked")
        sent_s = time.monotonic()
        child.process.send_signal(signal.SIGINT)
        assert (await child.next_line("interrupted"))["at_s"] - sent_s < 0.5 + SLACK_S
        go_on.set()
        child.resume()
        report = (await child.next_line("report"))["report"]
        await child.ended()
    assert (report["chunks_spooled"], report["chunks_uploaded"], report["lost"]) == (1, 1, [])
    np.testing.assert_array_equal(service.chunk(data_id, 0), noise(0))


async def test_an_exit_without_close_leaves_all_in_the_spool(service: MemoryService, tmp_path: Path) -> None:
    """During an outage a script without close or finalize exits soon; the next streamer delivers its chunks."""
    go_on = asyncio.Event()
    service.fault_for = lambda attempt: None if go_on.is_set() else held(go_on)
    async with script("exit1", service, tmp_path / "spool") as child:
        data_id = (await child.next_line("started"))["data_id"]
        end = await child.next_line("end")
        assert await child.ended() - end["at_s"] < 5.0 + SLACK_S
        errors = await child.errors()
    assert "was closed with 6 chunks in the spool" in errors
    assert "at exit:" not in errors
    go_on.set()
    async with make_async(service.url, KEY, spool_dir=tmp_path / "spool") as later:
        while (await later.spool_status())["chunks_pending"]:
            await asyncio.sleep(0.01)
    for k in range(5):
        np.testing.assert_array_equal(service.chunk(data_id, k), noise(k))
    np.testing.assert_array_equal(service.chunk(data_id, 5), noise(5)[:1])


@pytest.mark.slow
async def test_an_exit_without_disk_or_network_is_bounded(service: MemoryService, no_disk: Path) -> None:
    """Several open streamers without spool and server delay the exit by at most 5 s in total."""
    never = asyncio.Event()
    service.fault_for = lambda attempt: held(never)
    async with script("exit3", service, no_disk) as child:
        end = await child.next_line("end")
        took_s = await child.ended() - end["at_s"]
        never.set()
        assert took_s < 5.0 + SLACK_S
        errors = await child.errors()
    assert errors.count("they are lost") >= 1
    assert "at exit:" not in errors


async def test_an_exit_delivers_what_it_can(service: MemoryService, no_disk: Path) -> None:
    """Without a spool but with a server, chunks pushed before the exit are delivered during the exit."""
    async with script("exit1", service, no_disk) as child:
        data_id = (await child.next_line("started"))["data_id"]
        await child.ended()
    assert service.chunk_indices(data_id) == list(range(6))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
async def test_a_forked_child_gets_errors_and_its_parent_continues(
    service: MemoryService, tmp_path: Path
) -> None:
    """In a forked child each method raises ClosedError and the exit is harmless; the parent continues to stream."""
    async with script("fork", service, tmp_path / "spool") as child:
        data_id = (await child.next_line("started"))["data_id"]
        assert (await child.next_line("forked"))["status"] == 0
        report = (await child.next_line("report"))["report"]
        await child.ended()
    refused = [one for one in child.lines if one["what"] == "refused"]
    assert [one["kind"] for one in refused] == ["ClosedError"] * 7
    assert all("forked" in one["sentence"] for one in refused)
    assert (report["chunks_uploaded"], report["lost"]) == (2, [])
    for k in range(2):
        np.testing.assert_array_equal(service.chunk(data_id, k), noise(k))


@needs("gc")
async def test_garbage_is_collected_before_the_capture(service: MemoryService, tmp_path: Path) -> None:
    """No full garbage collection, which takes longer than a frame period, occurs in the first minutes of a stream."""
    async with script("capture", service, tmp_path / "spool") as child:
        generations = (await child.next_line("walked"))["generations"]
        await child.ended()
    assert generations.count(1) > 10  # after ten of these, Python checks if a full collection is due
    assert 2 not in generations


async def test_nothing_is_imported_while_a_stream_runs(service: MemoryService, tmp_path: Path) -> None:
    """Modules that an asyncio stream needs are imported before it starts: an import blocks the event loop."""
    async with script("async", service, tmp_path / "spool") as child:
        assert (await child.next_line("imported"))["modules"] == []
        await child.ended()
