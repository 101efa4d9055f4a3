"""The worker processes of one server. They start on demand, and again after a crash."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

from atomstream.server.live import worker_messages
from atomstream.server.live.messages import AnalyzerBatch
from atomstream.server.live.worker_messages import (
    MEMORY_VARIABLE,
    AnyJob,
    BatchReply,
    DoneReply,
    ErrorReply,
)
from atomstream.system.log_privacy import get_logger

OnBatch: TypeAlias = Callable[[AnalyzerBatch], Awaitable[None]]
log = get_logger("atomstream.server")
JOB_S: Final = 120.0
"""A job without any message for so long is taken to hang: its worker is killed, as if it had crashed."""
COMMAND: Final = (sys.executable, "-m", "atomstream.server.live.worker")
"""Command line of a worker; it reads jobs from its standard input."""
ONE_THREAD: Final = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""A worker's environment: the pool has as many workers as there are cores to spare."""


class WorkerDiedError(Exception):
    """The worker ended before its job was done; the state of its streams is lost."""


class JobFailedError(Exception):
    """The job failed: ``kind`` "shard" (the chunk can't be read) or "analysis" (an error in our code)."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class WorkerProcess:
    """One worker. ``life`` counts its starts: a stream that was opened before a restart is not open after it."""

    def __init__(self, memory_bytes: int = 0) -> None:
        self.life = 0
        self._memory_bytes = memory_bytes
        self.streams = 0
        """Number of streams that use it."""
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    @property
    def is_running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the process if it does not run."""
        async with self._turn:
            await self._start()

    async def _start(self) -> asyncio.subprocess.Process:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await asyncio.create_subprocess_exec(
                *COMMAND,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={
                    **os.environ,
                    **ONE_THREAD,
                    MEMORY_VARIABLE: str(self._memory_bytes),
                    "PYTHONPATH": _python_path(),
                },
                limit=1 << 22,
                start_new_session=True,  # Ctrl-C reaches only the server, which ends its workers
            )
            self.life += 1
        return process

    async def do(self, job: AnyJob, life: int | None = None, on_batch: OnBatch | None = None) -> DoneReply:
        """Run ``job`` after those before it: each batch goes to ``on_batch``, the last message is returned.

        ``life`` is the one that the job's stream was opened in; None for a job that opens one.

        Raises:
            WorkerDiedError: it died, or had died before. JobFailedError: see there.
        """
        async with self._turn:
            process = await self._start()
            if life not in (None, self.life):
                raise WorkerDiedError("the worker was restarted")
            try:
                done = await self._talk(process, job, on_batch)
            except BaseException:  # else its remaining messages would be taken for those of the next job
                await self._kill()
                raise
        if isinstance(done, ErrorReply):
            log.debug("a job failed: %s", done.trace or done.text)
            raise JobFailedError(done.kind, done.text)
        return done

    async def _talk(
        self, process: asyncio.subprocess.Process, job: AnyJob, on_batch: OnBatch | None
    ) -> DoneReply | ErrorReply:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("the worker has pipes")
        try:
            process.stdin.write(worker_messages.pack(job))
            await process.stdin.drain()
            while True:
                async with asyncio.timeout(JOB_S):
                    message = await worker_messages.receive(process.stdout)
                if not isinstance(message, BatchReply):
                    return message
                if on_batch is not None:
                    await on_batch(message.batch)
        except (asyncio.IncompleteReadError, BrokenPipeError, ConnectionResetError, TimeoutError) as error:
            raise WorkerDiedError(f"the worker ended or hangs ({type(error).__name__})") from None

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await end_process(process)

    async def close(self) -> None:
        """Kill the process."""
        await self._kill()


async def end_process(process: asyncio.subprocess.Process) -> None:
    """Kill a worker, which stores nothing, and wait until it has ended and its pipes are closed."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
    with suppress(ConnectionError):
        await process.communicate()


def _python_path() -> str:
    """Python path on which the child finds this package."""
    here = str(Path(__file__).parents[3])
    return os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))


class WorkerPool:
    """``count`` workers. A stream stays with its worker. ``memory_bytes`` bounds the memory of each (0: no bound)."""

    def __init__(self, count: int, memory_bytes: int = 0) -> None:
        self._workers = [WorkerProcess(memory_bytes) for _ in range(count)]

    def __len__(self) -> int:
        return len(self._workers)

    def running(self) -> int:
        """Number of processes that run."""
        return sum(worker.is_running for worker in self._workers)

    def starts(self) -> int:
        """Number of starts, those after a crash included."""
        return sum(worker.life for worker in self._workers)

    def acquire(self) -> WorkerProcess:
        """The worker with the fewest streams; call :meth:`release` when the stream is done."""
        worker = min(self._workers, key=lambda worker: worker.streams)
        worker.streams += 1
        return worker

    async def warm_up(self) -> None:
        """Start the workers that streams will need, and one more if the count permits: a start takes about a second."""
        idle = [worker for worker in self._workers if not worker.streams]
        for worker in (*(worker for worker in self._workers if worker.streams), *idle[:1]):
            await worker.start()

    def release(self, worker: WorkerProcess) -> None:
        """A stream does not use the worker any more."""
        worker.streams -= 1

    async def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            await worker.close()
