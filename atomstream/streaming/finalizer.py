"""The end of a stream: wait for the uploads, end it on the server, and report what arrived.

From the first call of ``finalize`` the stream accepts no frames. One task per stream waits for the uploads and sends
``/end``. It continues when callers stop waiting for it.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Coroutine
from typing import Any, Final

import anyio

from atomstream.counted import counted
from atomstream.errors import (
    AuthenticationError,
    ClosedError,
    DrainTimeoutError,
    RejectedError,
    ServiceError,
    SpoolError,
    StreamGoneError,
)
from atomstream.pipeline.pipeline import Pipeline
from atomstream.pipeline.stream import StreamState
from atomstream.records import StreamReport
from atomstream.retry import delay_s
from atomstream.service.api import ServiceApi
from atomstream.spool import JournalEntry, StreamSpool
from atomstream.streaming.late_registration import LateRegistrations
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.finalize")

DEFAULT_DRAIN_S: Final = 600.0
WARN_EVERY_S: Final = 10.0


class Finalizers:
    """The finalizers of a session's streams, at most one per stream."""

    def __init__(self, pipeline: Pipeline, api: ServiceApi, late: LateRegistrations) -> None:
        self._pipeline = pipeline
        self._api = api
        self._late = late
        self._by_id: dict[str, Finalizer] = {}

    def get(self, data_id: str) -> Finalizer | None:
        """Return the stream's finalizer; None if it was not started."""
        return self._by_id.get(data_id)

    def start(self, stream: StreamState) -> Finalizer:
        """Start to finalize a stream whose ledger is sealed."""
        finalizer = Finalizer(self._pipeline, self._api, self._late, stream)
        self._by_id[stream.spec.data_id] = finalizer
        return finalizer

    async def wait_done(self, data_id: str) -> None:
        """Return when the stream's finalizer has finished, or at once if there is none; raises nothing."""
        finalizer = self._by_id.get(data_id)
        if finalizer is not None:
            await finalizer.wait_done()

    async def close(self) -> None:
        """Cancel all finalizers; the streams remain unchanged in the spool and on the server."""
        for finalizer in self._by_id.values():
            await finalizer.close()


class Finalizer:
    """Finalizes one stream; starts its task at once."""

    def __init__(
        self, pipeline: Pipeline, api: ServiceApi, late: LateRegistrations, stream: StreamState
    ) -> None:
        self._pipeline = pipeline
        self._api = api
        self._late = late
        self._stream = stream
        self._losses_reported = False
        self._task = asyncio.get_running_loop().create_task(self._run(), name="atomstream-finalize")

    async def wait(self, timeout_s: float | None) -> StreamReport:
        """Wait until the stream has ended and return its report; None waits up to ``DEFAULT_DRAIN_S``.

        Raises:
            DrainTimeoutError: the timeout elapsed; uploads continue, and the stream is ended after them.
            ClosedError: the streamer was closed.
        """
        limit = DEFAULT_DRAIN_S if timeout_s is None else timeout_s
        watch = asyncio.get_running_loop().create_task(self._warn_while_waiting())
        try:
            await asyncio.wait([self._task], timeout=limit)
        finally:
            watch.cancel()
        if self._stream.ledger.closed:
            await asyncio.wait(
                [self._task]
            )  # the stream has ended: only its journal entry is not yet written
        if not self._task.done():
            raise drain_timeout(self._stream, f"finalize waited {limit:g} s", self._cause())
        if self._task.cancelled():
            raise ClosedError(
                f"The streamer was closed while stream {self._stream.spec.data_id} was finalized."
            )
        self._task.result()
        return self._stream.ledger.report()

    async def wait_done(self) -> None:
        """Return when the task has ended, without a limit of time; raises nothing."""
        await asyncio.wait([self._task])

    async def close(self) -> None:
        """Cancel the task and wait for its end."""
        self._task.cancel()
        await self.wait_done()
        if not self._task.cancelled():
            self._task.exception()  # retrieved, or asyncio would log that it never was

    def warn_once(self, report: StreamReport, stacklevel: int) -> None:
        """Give one RuntimeWarning that lists the missing chunks, at the first report only."""
        if report["lost"] and not self._losses_reported:
            self._losses_reported = True
            warnings.warn(_loss_message(self._stream, report), RuntimeWarning, stacklevel=stacklevel + 1)

    async def _run(self) -> None:
        stream, ledger = self._stream, self._stream.ledger
        await self._in_folder(lambda spool: spool.journal.append_durable(JournalEntry("finalizing")))
        await self._pipeline.wait_for(stream, lambda: ledger.pending == 0 and not stream.reconciling)
        if not stream.failure:
            await self._send_end()
        if not stream.failure:
            ledger.close()
            await self._in_folder(_record_end)
            stream.spool = None
        self._pipeline.retire(stream)

    async def _in_folder(self, step: Callable[[StreamSpool], object]) -> None:
        """Run ``step`` on the spool folder in the disk thread. If it fails, a later process ends the stream again."""
        spool = self._stream.spool
        if spool is None:
            return
        try:
            await self._pipeline.run_on_disk(lambda: step(spool))
        except SpoolError as error:
            log.warning("%s", error)

    async def _send_end(self) -> None:
        data_id = self._stream.spec.data_id
        lost = [loss.index for loss in self._stream.ledger.losses()]
        # An earlier process may have sent it already: then a refusal means that the stream has ended.
        attempt = 1 if self._stream.recovered else 0
        while True:
            try:
                spec = await self._late.registered(self._stream.spec, self._api)
                if spec.kind == "signals":
                    await self._api.end_signals(spec.data_id)
                    return
                await self._api.end_stream(spec.data_id, lost, announced=spec.announced)
                return
            except StreamGoneError as error:
                self._stream.failure.set(error)
                return
            except RejectedError as error:
                if attempt:
                    # The first request may have arrived and only its reply been lost.
                    log.info("Stream %s had ended already: %s", data_id, error)
                    return
                self._stream.failure.set(
                    StreamGoneError(f"The server refused to end stream {data_id}: {error}", data_id=data_id)
                )
                return
            except ServiceError as error:
                await self._pause(error, attempt)
            attempt += 1

    async def _pause(self, error: ServiceError, attempt: int) -> None:
        if not error.retriable and not isinstance(error, AuthenticationError):
            raise error
        log.info("The end of stream %s will be sent again: %s", self._stream.spec.data_id, error)
        await anyio.sleep(delay_s(attempt, error.retry_after_s))

    async def _warn_while_waiting(self) -> None:
        waited = 0.0
        while True:
            await anyio.sleep(WARN_EVERY_S)
            waited += WARN_EVERY_S
            log.warning(
                "Stream %s: still finalizing after %.0f s: %s",
                self._stream.spec.data_id,
                waited,
                self._cause(),
            )

    def _cause(self) -> str:
        pending = self._stream.ledger.pending
        reason = self._pipeline.stall_reason(self._stream)
        if self._stream.reconciling and not pending:
            return (
                "the server has not yet reported its chunks of this stream, which an earlier process opened."
            )
        if not pending:
            return "all chunks are stored, the server has not yet acknowledged the end."
        waiting = counted(pending, "chunk is", "chunks are")
        return f"{waiting} not yet stored{': ' + reason.rstrip('.') if reason else ''}."


def _record_end(spool: StreamSpool) -> None:
    try:
        spool.journal.append_durable(JournalEntry("ended"))
        spool.remove_if_ended()
    finally:
        spool.close()


async def bounded(
    work: Coroutine[Any, Any, None], timeout_s: float | None, on_timeout: Callable[[], Exception]
) -> None:
    """Await ``work`` for at most ``timeout_s`` seconds (None: no limit), then raise ``on_timeout()``."""
    try:
        with anyio.fail_after(timeout_s):
            await work
    except TimeoutError as error:
        if isinstance(error, DrainTimeoutError):
            raise
        raise on_timeout() from None


def drain_timeout(stream: StreamState, what: str, cause: str) -> DrainTimeoutError:
    """Make the error for an elapsed timeout; it carries the report as of now."""
    report = stream.ledger.report()
    return DrainTimeoutError(
        f"Stream {stream.spec.data_id}: {what}, but {cause} Nothing was discarded: uploads continue while this "
        "streamer is open, then by the next one on the same spool; call finalize() again to wait for them.",
        data_id=stream.spec.data_id,
        report=report,
    )


def _loss_message(stream: StreamState, report: StreamReport) -> str:
    listed = "; ".join(f"{index} ({reason})" for index, reason in report["lost"][:5])
    more = f" and {len(report['lost']) - 5} more" if len(report["lost"]) > 5 else ""
    return (
        f"Stream {stream.spec.data_id} ended with {counted(len(report['lost']), 'missing chunk')}: {listed}{more}. "
        f"{counted(report['chunks_uploaded'], 'chunk is', 'chunks are')} stored."
    )
