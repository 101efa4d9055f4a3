"""Workers are ready before they are needed, and one dead is one started again."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from atomstream.server.live.messages import CloseJob
from atomstream.server.live.worker_pool import WorkerDiedError, WorkerPool


def children() -> set[psutil.Process]:
    """This process' own, running."""
    return {child for child in psutil.Process().children() if child.is_running()}


async def test_one_more_worker_than_have_streams() -> None:
    """With each stream that has a worker one more is made ready, up to their number."""
    pool, before = WorkerPool(2), children()
    try:
        await pool.warm_up()
        (first,) = children() - before
        taken = pool.acquire()
        await taken.start()
        assert children() - before == {first}  # the stream has the worker that was ready
        await pool.warm_up()
        both = children() - before
        assert len(both) == 2
        pool.acquire()
        await pool.warm_up()
        assert children() - before == both
    finally:
        await pool.close()
    assert children() == before


async def test_a_worker_that_died() -> None:
    """A job for a stream that it knew says so; the next start is another life."""
    pool, before = WorkerPool(1), children()
    try:
        worker = pool.acquire()
        await worker.start()
        (process,) = children() - before
        life = worker.life
        process.kill()
        with pytest.raises(WorkerDiedError):
            await worker.do(CloseJob("a"), life)
        await worker.start()
        assert worker.life == life + 1
    finally:
        await pool.close()


def test_a_worker_loads_no_more_than_it_needs() -> None:
    """Neither database nor HTTP: a first result waits for these imports."""
    code = "import sys, atomstream.server.live.worker; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert {"scipy", "numpy"} <= (modules := set(loaded.stdout.split()))
    assert not {"aiohttp", "sqlalchemy", "zarr", "pandas", "xarray"} & modules
