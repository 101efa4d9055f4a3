"""Workers are started before they are needed, and a dead one is replaced."""

from __future__ import annotations

import asyncio
import os
import selectors
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from atomstream.server.live import worker_pool
from atomstream.server.live.worker_messages import CloseJob
from atomstream.server.live.worker_pool import (
    RETRY_S,
    StartFailures,
    WorkerDiedError,
    WorkerPool,
    WorkerProcess,
    WorkerStartError,
)
from tests import worker_template
from tests.fake_clock import Clock


@pytest.fixture(params=["a new process", "forked from the template"])
def command(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test both ways to start a worker: that of a server, and that of the other tests."""
    if request.param == "a new process":
        monkeypatch.setattr(worker_pool, "COMMAND", None)
    elif not worker_template.SUPPORTED:
        pytest.skip("this system cannot pass the pipes to another process")
    else:
        worker_template.use_template()


def children() -> set[psutil.Process]:
    """The running child processes of this process."""
    return {child for child in psutil.Process().children() if child.is_running()}


@pytest.mark.usefixtures("command")
async def test_one_spare_worker() -> None:
    """For each stream that gets a worker another one is started, up to the limit."""
    pool, before = WorkerPool(2), children()
    try:
        await pool.warm_up()
        (first,) = children() - before
        taken = pool.acquire()
        await taken.start()
        assert children() - before == {first}  # the stream got the worker that was ready
        await pool.warm_up()
        both = children() - before
        assert len(both) == 2
        pool.acquire()
        await pool.warm_up()
        assert children() - before == both
    finally:
        await pool.close()
    assert children() == before


@pytest.mark.usefixtures("command")
async def test_a_worker_that_died() -> None:
    """A job for a stream of the dead worker raises an error with the cause; the next start has another life number."""
    pool, before = WorkerPool(1), children()
    try:
        worker = pool.acquire()
        await worker.start()
        (process,) = children() - before
        life = worker.life
        process.kill()
        assert worker._process is not None
        assert worker._process.stdout is not None
        assert await worker._process.stdout.read() == b""  # a forked one ends a moment after its client
        with pytest.raises(WorkerDiedError):
            await worker.do(CloseJob("a"), life)
        await worker.start()
        assert worker.life == life + 1
    finally:
        await pool.close()


@pytest.mark.usefixtures("command")
async def test_cancelling_the_end_of_a_worker_closes_its_pipes() -> None:
    """A job may be cancelled a second time while its worker is being ended: the worker ends, and no pipe stays open."""
    worker, before = WorkerProcess(0, StartFailures()), children()
    await worker.start()
    process = worker._process
    assert process is not None
    ending = asyncio.create_task(worker.close())
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdin.is_closing()
    assert process.stdout.at_eof()
    assert children() == before


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("raise SystemExit(3)", "it ended with code 3 before it was ready"),
        ("print('Welcome to the growth program')", "another program was started in its place"),
        ("import os; os.write(1, b'\\x01\\x00\\x00\\x00x')", "another program was started in its place"),
    ],
)
async def test_a_worker_that_cannot_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, program: str, why: str
) -> None:
    """After three tries the reason is logged and nothing more is started for a minute; then it may work again."""
    working = worker_pool.COMMAND
    monkeypatch.setattr(worker_pool, "COMMAND", (sys.executable, "-S", "-c", program))
    clock, before = Clock(), children()
    failures = StartFailures(lambda: clock.now)
    worker = WorkerProcess(failures=failures)
    for final in (False, False, True):
        with pytest.raises(WorkerStartError, match=why) as raised:
            await worker.start()
        assert raised.value.final is final
    assert children() == before
    monkeypatch.setattr(worker_pool, "COMMAND", ("/nowhere",))
    with pytest.raises(WorkerStartError, match=why):  # not tried
        await worker.start()
    assert [record.levelname for record in caplog.records].count("ERROR") == 1
    clock.now += RETRY_S
    with pytest.raises(WorkerStartError, match="nowhere") as raised:
        await worker.start()
    assert raised.value.final
    clock.now += RETRY_S
    monkeypatch.setattr(worker_pool, "COMMAND", working)
    try:
        await worker.start()
        assert failures.reason == ""
    finally:
        await worker.close()


async def test_scripts_in_the_present_folder_are_not_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A worker starts in a folder with scripts named as libraries; one on PYTHONPATH is named in the error."""
    for name in ("types.py", "scipy.py", "numpy.py", "atomstream.py"):
        (tmp_path / name).write_text("import my_instrument_driver\n")
    monkeypatch.setattr(worker_pool, "COMMAND", None)
    monkeypatch.setenv("PYTHONPATH", os.pathsep)
    monkeypatch.chdir(tmp_path)
    worker = WorkerProcess()
    try:
        await worker.start()
    finally:
        await worker.close()
    shadow = tmp_path / "lab"
    shadow.mkdir()
    (shadow / "scipy.py").write_text("import my_instrument_driver\n")
    monkeypatch.setenv("PYTHONPATH", "lab")
    with pytest.raises(WorkerStartError, match=r"No module named 'my_instrument_driver' \(.*scipy\.py\)"):
        await worker.start()


def test_the_template_outlives_a_client_that_died() -> None:
    """If a client was killed before the exit code of its worker could be sent, the template goes on."""
    if not worker_template.SUPPORTED:
        pytest.skip("this system cannot pass the pipes to another process")
    ours, theirs = socket.socketpair()
    with selectors.DefaultSelector() as ready, subprocess.Popen([sys.executable, "-c", ""]) as worker:
        fork = worker_template.Fork(ready, ours, worker.pid)
        theirs.close()
        fork._worker_ended(None)  # waits for the end of the worker
        assert not ready.get_map()
    assert ours.fileno() == -1


def test_the_template_ignores_a_client_without_a_request() -> None:
    """A client that was killed before it sent its request gets no worker."""
    if not worker_template.SUPPORTED:
        pytest.skip("this system cannot pass the pipes to another process")
    ours, theirs = socket.socketpair()
    theirs.close()
    listener: Any = SimpleNamespace(accept=lambda: (ours, None))
    before = children()
    worker_template.Template._accept(worker_template.Template.__new__(worker_template.Template), listener)
    assert children() == before
    assert ours.fileno() == -1


def test_a_worker_loads_no_more_than_it_needs() -> None:
    """A worker imports neither database nor HTTP modules: the first result would wait for these imports."""
    code = "import sys, atomstream.server.live.worker; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert {"scipy", "numpy"} <= (modules := set(loaded.stdout.split()))
    assert not {"aiohttp", "sqlalchemy", "zarr", "pandas", "xarray"} & modules
