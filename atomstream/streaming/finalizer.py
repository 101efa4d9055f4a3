"""The end of a stream: drain, tell the server, report the truth.

Sticky (DECISIONS, "Finalize"): from the first call on the stream takes nothing more, and one task of its own
waits for the drain and sends ``/end``, however many callers wait for it or gave up waiting.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Callable, Coroutine
from typing import Any, Final

import anyio

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

log = logging.getLogger("atomstream.finalize")

DEFAULT_DRAIN_S: Final = 600.0
WARN_EVERY_S: Final = 10.0


class Finalizer:
    """One stream's end; made at the first ``finalize``."""

    def __init__(self, pipeline: Pipeline, api: ServiceApi, stream: StreamState) -> None:
        self._pipeline = pipeline
        self._api = api
        self._stream = stream
        self._told_losses = False
        self._task = asyncio.get_running_loop().create_task(self._run(), name="atomstream-ending")

    async def wait(self, timeout_s: float | None) -> StreamReport:
        """The final report.

        Raises:
            DrainTimeoutError: time ran out; the stream goes on draining and is ended by itself.
            StreamGoneError: the server does not know the stream.
        """
        limit = DEFAULT_DRAIN_S if timeout_s is None else timeout_s
        watch = asyncio.get_running_loop().create_task(self._warn_while_waiting())
        try:
            await asyncio.wait([self._task], timeout=limit)
        finally:
            watch.cancel()
        if self._stream.ledger.closed:
            await asyncio.wait([self._task])  # ended: only the journal's word of it is left
        if not self._task.done():
            raise drain_timeout(self._stream, f"finalize waited {limit:g} s", self._cause())
        if self._task.cancelled():
            raise ClosedError(
                f"The streamer was closed while stream {self._stream.spec.data_id} was finalized."
            )
        self._task.result()
        return self._stream.ledger.report()

    async def over(self) -> None:
        """Return once the stream is ended, however long it takes; quietly."""
        await asyncio.wait([self._task])

    async def close(self) -> None:
        """Stop waiting for the drain; the stream stays as it is."""
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.exception()  # looked at, or the loop would call it never retrieved

    @property
    def done(self) -> bool:
        """Whether nothing more will happen."""
        return self._task.done()

    def warn_once(self, report: StreamReport, stacklevel: int) -> None:
        """One RuntimeWarning that names what is missing, at the first report only."""
        if report["lost"] and not self._told_losses:
            self._told_losses = True
            warnings.warn(_loss_sentence(self._stream, report), RuntimeWarning, stacklevel=stacklevel + 1)

    async def _run(self) -> None:
        stream, ledger = self._stream, self._stream.ledger
        await self._journal(lambda spool: spool.journal.append_durable(JournalEntry("finalizing")))
        await self._pipeline.wait_for(stream, lambda: ledger.pending == 0 and not stream.reconciling)
        if not stream.failure:
            await self._send_end()
        if not stream.failure:
            ledger.close()
            await self._journal(_ended)
            stream.spool = None
        self._pipeline.retire(stream)

    async def _journal(self, step: Callable[[StreamSpool], object]) -> None:
        """A step of the stream's folder; where the disk fails, a later process ends the stream once more."""
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
        # A process before this one may have sent it already.
        attempt = 1 if self._stream.recovered else 0
        while True:
            try:
                await self._api.end_stream(data_id, lost, announced=self._stream.spec.announced)
                return
            except RejectedError as error:
                if attempt:
                    # The first one may have arrived, and only its answer been lost.
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
        log.info("Ending stream %s is tried again: %s", self._stream.spec.data_id, error)
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
        standing = self._pipeline.stall_reason(self._stream)
        if self._stream.reconciling and not pending:
            return "the server has not yet said what it has of this stream, which an earlier process left."
        if not pending:
            return "all chunks are stored, the server has not yet acknowledged the end."
        return f"{pending} chunks are not yet stored{': ' + standing.rstrip('.') if standing else ''}."


def _ended(spool: StreamSpool) -> None:
    try:
        spool.journal.append_durable(JournalEntry("ended"))
        spool.remove_if_ended()
    finally:
        spool.close()


async def bounded(
    work: Coroutine[Any, Any, None], timeout_s: float | None, on_timeout: Callable[[], Exception]
) -> None:
    """Await ``work``, at most ``timeout_s`` seconds."""
    try:
        with anyio.fail_after(timeout_s):
            await work
    except TimeoutError as error:
        if isinstance(error, DrainTimeoutError):
            raise
        raise on_timeout() from None


def drain_timeout(stream: StreamState, what: str, cause: str) -> DrainTimeoutError:
    """The error for a wait that ran out, with the report as it is now."""
    report = stream.ledger.report()
    return DrainTimeoutError(
        f"Stream {stream.spec.data_id}: {what}, but {cause} Nothing was discarded: uploads go on while this "
        "streamer lives, then by the next one on the same spool; call finalize() again to wait for them.",
        data_id=stream.spec.data_id,
        report=report,
    )


def _loss_sentence(stream: StreamState, report: StreamReport) -> str:
    named = "; ".join(f"{index} ({reason})" for index, reason in report["lost"][:5])
    more = f" and {len(report['lost']) - 5} more" if len(report["lost"]) > 5 else ""
    return (
        f"Stream {stream.spec.data_id} ended with {len(report['lost'])} missing chunk(s): {named}{more}. "
        f"{report['chunks_uploaded']} chunks are stored."
    )
