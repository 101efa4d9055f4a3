"""Background tasks of a session: their supervision, and the expiry of old chunks in the spool."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from atomstream.errors import SpoolError
from atomstream.pipeline.pipeline import Pipeline
from atomstream.spool import StreamSpool
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream")
spool_log = get_logger("atomstream.spool")

MIN_EXPIRY_INTERVAL_S: Final = 1.0
MAX_EXPIRY_INTERVAL_S: Final = 60.0


class TaskSupervisor:
    """A set of asyncio tasks that nothing awaits. A failed task is only logged, because none of them handles frames."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run ``work`` in the current loop until it ends or :meth:`close` cancels it."""
        task = asyncio.get_running_loop().create_task(work, name=f"atomstream {name}")
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    async def close(self) -> None:
        """Cancel the running tasks and wait until they have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed: %r", task.get_name(), error)


async def expire_old_chunks(pipeline: Pipeline, retention_s: float) -> None:
    """Remove chunks older than ``retention_s`` seconds from the spool, until cancelled (``spool_retention_s``)."""
    while True:
        for stream in pipeline.streams:
            if stream.spool is not None:
                indices = await _expired(pipeline, stream.spool, retention_s)
                if indices:
                    pipeline.mark_purged(stream, indices)
        await asyncio.sleep(min(MAX_EXPIRY_INTERVAL_S, max(MIN_EXPIRY_INTERVAL_S, retention_s / 10)))


async def _expired(pipeline: Pipeline, spool: StreamSpool, retention_s: float) -> list[int]:
    try:
        return await pipeline.run_on_disk(lambda: spool.expire(retention_s))
    except SpoolError as error:
        spool_log.warning("%s", error)
        return []
