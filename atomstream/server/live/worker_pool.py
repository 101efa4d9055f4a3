"""The worker processes of one server. They start on demand, and again after a crash.

A worker whose start fails is tried three times in a row. Then the streams show the reason, and the next try is made
after a minute, by a stream that is still being recorded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from atomstream.errors import ConfigError
from atomstream.server.live import worker_messages
from atomstream.server.live.messages import AnalyzerBatch
from atomstream.server.live.worker_messages import (
    MEMORY_VARIABLE,
    AnyJob,
    BatchReply,
    DoneReply,
    ErrorReply,
    ReadyReply,
    Reply,
)
from atomstream.system.child_end import end_child
from atomstream.system.child_process import child_command, child_environment
from atomstream.system.log_privacy import get_logger

OnBatch: TypeAlias = Callable[[AnalyzerBatch], Awaitable[None]]
log = get_logger("atomstream.server")
JOB_S: Final = 120.0
"""A job that sends no message for this time, in s, counts as hanging: its worker is killed, as if it had crashed."""
START_S: Final = 120.0
"""A worker that is not ready after this time, in s, counts as hanging, or as another program."""
START_TRIES: Final = 3
"""Number of failed starts in a row after which no worker is started for ``RETRY_S``."""
RETRY_S: Final = 60.0
COMMAND: tuple[str, ...] | None = None
"""Command line of a worker, which reads jobs from its standard input. None: the usual one."""
MODULE: Final = "atomstream.server.live.worker_entry"
ONE_THREAD: Final = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""A worker's environment: the pool has as many workers as there are cores to spare."""


class WorkerDiedError(Exception):
    """The worker ended before its job was done; the state of its streams is lost."""


class WorkerStartError(WorkerDiedError):
    """No worker could be started. ``final``: it was tried several times, and is not tried again for some time."""

    def __init__(self, text: str, final: bool) -> None:
        super().__init__(text)
        self.final = final


class StartFailures:
    """Failed starts of the workers of one pool, which all fail for the same reason if one does.

    ``clock`` returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.reason = ""
        """Why no worker could be started at last; empty if one could."""
        self._clock = clock
        self._count = 0
        self._last = 0.0

    def check(self) -> None:
        """Raise WorkerStartError if a start has failed too often to be tried now."""
        if self._count >= START_TRIES and self._clock() - self._last < RETRY_S:
            raise WorkerStartError(self.reason, final=True)

    def succeeded(self) -> None:
        """A worker was started."""
        if self.reason:
            log.warning("The analysis works again: a worker process was started.")
        self.reason, self._count = "", 0

    def failed(self, why: str) -> WorkerStartError:
        """Count a failed start, log it, and return the error to raise."""
        self._count, self._last = self._count + 1, self._clock()
        final = self._count >= START_TRIES
        self.reason = f"no worker process for the analysis can be started: {why}"
        if final and self._count == START_TRIES:
            log.error(
                "No worker process for the analysis can be started, %d tries failed: %s. Frames are stored, but not "
                "analysed. It is tried again after %g s if a stream needs it. When the cause is removed, restart "
                "the server; finished streams are analysed on request (POST .../reanalyse, or their page).",
                START_TRIES,
                why,
                RETRY_S,
            )
        elif not final:
            log.warning("A worker process for the analysis could not be started: %s.", why)
        return WorkerStartError(self.reason, final)


class JobFailedError(Exception):
    """The job failed: ``kind`` "shard" (the chunk can't be read) or "analysis" (an error in our code)."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class WorkerProcess:
    """One worker. ``life`` counts its starts: a stream that was opened before a restart is not open after it."""

    def __init__(self, memory_bytes: int = 0, failures: StartFailures | None = None) -> None:
        self.life = 0
        self._memory_bytes = memory_bytes
        self._failures = failures or StartFailures()
        self.streams = 0
        """Number of streams that use it."""
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    @property
    def is_running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the process if it does not run; raises WorkerStartError."""
        async with self._turn:
            await self._start()

    async def _start(self) -> asyncio.subprocess.Process:
        process = self._process
        if process is None or process.returncode is not None:
            self._failures.check()
            await self._kill()  # closes the pipes of one that died
            process = await self._started()
            self._failures.succeeded()
            self._process = process
            self.life += 1
        return process

    async def _started(self) -> asyncio.subprocess.Process:
        try:
            command = COMMAND or child_command(MODULE)
            environment = {**child_environment(), **ONE_THREAD, MEMORY_VARIABLE: str(self._memory_bytes)}
            process = await _spawned(command, environment)
        except (OSError, ConfigError) as error:
            raise self._failures.failed(str(error)) from error
        try:
            why = await _why_not_ready(process)
        except BaseException:
            await end_child(process)
            raise
        if why:
            await end_child(process)
            raise self._failures.failed(why)
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
                done = await self._exchange(process, job, on_batch)
            except BaseException:  # else its remaining messages would be taken for those of the next job
                await self._kill()
                raise
        if isinstance(done, ErrorReply):
            log.debug("a job failed: %s", done.trace or done.text)
            raise JobFailedError(done.kind, done.text)
        return done

    async def _exchange(
        self, process: asyncio.subprocess.Process, job: AnyJob, on_batch: OnBatch | None
    ) -> DoneReply | ErrorReply:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("the worker was started without pipes")
        try:
            process.stdin.write(worker_messages.pack(job))
            await process.stdin.drain()
            while True:
                async with asyncio.timeout(JOB_S):
                    message = await worker_messages.receive(process.stdout)
                if isinstance(message, ReadyReply):
                    continue
                if not isinstance(message, BatchReply):
                    return message
                if on_batch is not None:
                    await on_batch(message.batch)
        except (asyncio.IncompleteReadError, BrokenPipeError, ConnectionResetError, TimeoutError) as error:
            raise WorkerDiedError(f"the worker ended or hangs ({type(error).__name__})") from None

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await end_child(process)

    async def close(self) -> None:
        """Kill the process."""
        await self._kill()


async def _spawned(command: tuple[str, ...], environment: dict[str, str]) -> asyncio.subprocess.Process:
    """Start a process with pipes. If this is cancelled, the process is ended first, so that it leaves nothing."""
    spawning = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
            limit=1 << 22,
            start_new_session=True,  # Ctrl-C reaches only the server, which ends its workers
        )
    )
    try:
        return await asyncio.shield(spawning)
    except asyncio.CancelledError:
        await asyncio.wait([spawning])
        if not spawning.cancelled() and spawning.exception() is None:
            await end_child(spawning.result())
        raise


async def _why_not_ready(process: asyncio.subprocess.Process) -> str:
    """Wait until the worker is ready; return why it is not, empty if it is."""
    if process.stdout is None:
        raise AssertionError("the worker was started without pipes")
    try:
        async with asyncio.timeout(START_S):
            reply: Reply = await worker_messages.receive(process.stdout)
    except TimeoutError:
        return f"it was not ready within {START_S:g} s"
    except asyncio.IncompleteReadError:
        code = await process.wait()
        return f"it ended with code {code} before it was ready; its messages are in the output of the server"
    except ValueError:
        return "another program was started in its place; its messages are in the output of the server"
    if isinstance(reply, ErrorReply):
        return reply.text
    return ""


class WorkerPool:
    """``count`` workers. A stream stays with its worker. ``memory_bytes`` bounds the memory of each (0: no bound)."""

    def __init__(self, count: int, memory_bytes: int = 0) -> None:
        self.failures = StartFailures()
        self._workers = [WorkerProcess(memory_bytes, self.failures) for _ in range(count)]

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
