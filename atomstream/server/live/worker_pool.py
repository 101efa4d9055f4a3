"""The worker processes of one server: started when needed, started again when they die."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

from atomstream.results import Plain
from atomstream.server.live import messages as framing

Take: TypeAlias = Callable[[Plain], Awaitable[None]]
log = logging.getLogger("atomstream.server")
JOB_S: Final = 120.0
"""A job that says nothing for so long hangs: its worker is ended, and the job counts as one that crashed it."""
STOP_S: Final = 5.0
ONE_THREAD: Final = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""A worker's environment: the pool has as many workers as there are cores to spare."""


class WorkerDiedError(Exception):
    """The worker ended before its job was done; what it knew of its streams is gone."""


class JobFailedError(Exception):
    """The job failed: ``kind`` "shard" (the chunk can't be read) or "analysis" (a fault of ours)."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class WorkerProcess:
    """One worker. ``life`` counts its starts: a stream opened in an earlier life is not open in this one."""

    def __init__(self) -> None:
        self.life = 0
        self.streams = 0
        """How many streams were given to it."""
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Have it running."""
        async with self._turn:
            await self._start()

    async def _start(self) -> asyncio.subprocess.Process:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "atomstream.server.live.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, **ONE_THREAD, "PYTHONPATH": _python_path()},
                limit=1 << 22,
                start_new_session=True,  # a Ctrl-C is for the server, which ends it in order
            )
            self.life += 1
        return process

    async def do(self, job: Plain, life: int | None = None, take: Take | None = None) -> Plain:
        """Do ``job`` once its turn comes: each batch goes to ``take``, the last message is returned.

        ``life`` is the one that the job's stream was opened in; None for a job that opens one.

        Raises:
            WorkerDiedError: it died, or had died before. JobFailedError: see there.
        """
        async with self._turn:
            process = await self._start()
            if life not in (None, self.life):
                raise WorkerDiedError("the worker was started anew")
            try:
                done = await self._talk(process, job, take)
            except BaseException:  # left in the middle: its rest would be taken for the next job's
                await self._kill()
                raise
        if "error" in done:
            log.debug("a job failed: %s", done.get("trace", done["text"]))
            raise JobFailedError(done["error"], done["text"])
        return done

    async def _talk(self, process: asyncio.subprocess.Process, job: Plain, take: Take | None) -> Plain:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("the worker has pipes")
        try:
            process.stdin.write(framing.pack(job))
            await process.stdin.drain()
            while True:
                async with asyncio.timeout(JOB_S):
                    message = await framing.receive(process.stdout)
                if "done" in message:
                    return message
                if take is not None:
                    await take(message["batch"])
        except (asyncio.IncompleteReadError, BrokenPipeError, ConnectionResetError, TimeoutError) as error:
            raise WorkerDiedError(f"the worker ended or hangs ({type(error).__name__})") from None

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await end_process(process)

    async def close(self) -> None:
        """End it."""
        await self._kill()


async def end_process(process: asyncio.subprocess.Process) -> None:
    """Kill a worker, which holds nothing that must be kept, and wait until it is gone and its pipes are closed."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
    with suppress(ConnectionError):
        await process.communicate()


def _python_path() -> str:
    """Where the child finds this very package, wherever it was imported from."""
    here = str(Path(__file__).parents[3])
    return os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))


class WorkerPool:
    """``count`` workers; a stream stays with the one it was given."""

    def __init__(self, count: int) -> None:
        self._workers = [WorkerProcess() for _ in range(count)]

    def give(self) -> WorkerProcess:
        """The worker with the fewest streams; call :meth:`give_back` when the stream is done."""
        worker = min(self._workers, key=lambda worker: worker.streams)
        worker.streams += 1
        return worker

    async def warm_up(self) -> None:
        """Have one more worker running than have streams, if there may be: a start takes it a second."""
        idle = [worker for worker in self._workers if not worker.streams]
        if idle:
            await idle[0].start()

    def give_back(self, worker: WorkerProcess) -> None:
        """A stream is done with its worker."""
        worker.streams -= 1

    async def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            await worker.close()
