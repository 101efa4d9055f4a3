"""What earlier processes left in the spool: checked, delivered, ended where it was being finalized, and said so.

Each record is read whole before it is handed on, so a damaged one is told at once, also while the server is away,
and costs only itself (promise P11). The upload checks it once more.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import anyio

from atomstream.errors import RejectedError, SpoolError, SpoolLockedError
from atomstream.index_ranges import IndexSet
from atomstream.pipeline.pipeline import Pipeline
from atomstream.pipeline.spool_writer import RETRY_S
from atomstream.pipeline.stream import StreamState
from atomstream.retry import retrying
from atomstream.service.api import ServiceApi
from atomstream.spool import (
    DiskFailed,
    Quarantined,
    Spool,
    SpooledChunk,
    StreamSpool,
    VerifyResult,
    verify_records,
)

log = logging.getLogger("atomstream.spool")


class SpoolRecovery:
    """Opens streams of the spool in the pipeline; all disk work is done in the depot's thread.

    ``end(stream)`` is called for a recovered stream that was being finalized, ``resolve(stream, indices)`` for
    each: the earlier process had taken those indices, which are not on disk, and may have delivered them.
    """

    def __init__(
        self, pipeline: Pipeline, spool: Spool, endpoint: str, end: Callable[[StreamState], None],
        resolve: Callable[[StreamState, list[int]], None],
    ) -> None:  # fmt: skip
        self._pipeline = pipeline
        self._spool = spool
        self._endpoint = endpoint
        self._end = end
        self._resolve = resolve

    async def run(self) -> None:
        """Take over every stream of this endpoint that nobody holds and that has something left to do."""
        try:
            found = await self._pipeline.run_on_disk(lambda: self._spool.recoverable(self._endpoint))
        except SpoolError as error:
            log.warning("%s", error)
            return
        for stream in found:
            if stream.manifest is not None and self._pipeline.find(stream.manifest.spec.data_id) is None:
                await self._try_take_over(stream.manifest.spec.data_id)

    async def _try_take_over(self, data_id: str) -> None:
        try:
            spool = await self._pipeline.run_on_disk(lambda: self._opened_if_unfinished(data_id))
        except SpoolLockedError:
            return  # another process was quicker
        except SpoolError as error:
            log.warning("%s", error)
            return
        if spool is not None:
            await self.take_over(spool)

    def _opened_if_unfinished(self, data_id: str) -> StreamSpool | None:
        spool = self._spool.open_stream(self._endpoint, data_id)
        history = spool.journal_state
        if spool.pending() or spool.missing or (history.finalizing and not history.ended):
            return spool
        if not spool.remove_if_ended():
            spool.close()
        return None

    async def open(self, data_id: str) -> StreamState:
        """Take over one stream, finished or not, to go on with it.

        Raises:
            SpoolLockedError: another process holds it. SpoolError: it is not there, or can't be read.
        """
        spool = await self._pipeline.run_on_disk(lambda: self._spool.open_stream(self._endpoint, data_id))
        return await self.take_over(spool)

    async def take_over(self, spool: StreamSpool) -> StreamState:
        """Put the records of an opened folder on their way, each as soon as it has been checked."""
        stream = self._pipeline.recover(spool)
        log.warning(
            "Stream %s (%s) was left by an earlier process: %d chunks are on their way%s.",
            stream.spec.data_id,
            stream.spec.name,
            len(spool.pending()),
            f", {len(spool.missing)} were only in its memory" if spool.missing else "",
        )
        self._resolve(stream, spool.missing)
        self._check_on(stream, spool, verify_records(spool))
        if spool.journal_state.finalizing:
            self._end(stream)
        return stream

    def _check_on(
        self,
        stream: StreamState,
        spool: StreamSpool,
        findings: Iterator[VerifyResult | None],
        in_s: float = 0.0,
    ) -> None:
        # One window a job, queued behind all that waits: a live chunk has the disk after at most a window.
        self._pipeline.submit_to_disk(lambda: self._step(stream, spool, findings), in_s)

    def _step(self, stream: StreamState, spool: StreamSpool, findings: Iterator[VerifyResult | None]) -> None:
        if self._pipeline.failure is not None:
            return  # closed: what was not checked stays on disk as it is
        try:
            finding = next(findings)
        except StopIteration:
            return
        if isinstance(finding, Quarantined):
            stream.ledger.resolve(finding.index, "quarantined", finding.reason)
        elif isinstance(finding, SpooledChunk):
            self._pipeline.deliver_recovered(stream, spool, finding)
        self._check_on(stream, spool, findings, RETRY_S if isinstance(finding, DiskFailed) else 0.0)


# What the server has of a stream that an earlier process left: asked once, at its recovery.
#
# That process may have been killed between the server's 200 and its journal, or between a push and its entry, which
# waits for the disk while the chunk is sent. Only the server can tell; a hosted one can't, so there what was in memory
# counts as dropped.

PATIENCE_S: Final = 2.0
"""For the answer, at ``resume``: some attempts, while a server that starts beside its client comes up."""


class ServerReconciliation:
    """Which chunks of one stream the server has; ``missing`` were accepted before and are not on disk."""

    def __init__(
        self, pipeline: Pipeline, api: ServiceApi, stream: StreamState, missing: Sequence[int]
    ) -> None:
        self._pipeline = pipeline
        self._api = api
        self._stream = stream
        self._missing = missing
        self._answered = asyncio.Event()
        self._too_late = False
        stream.reconciling = True

    async def run(self) -> None:
        """Settle what is missing and learn what was not known; in an outage that waits, as the stream's end does."""
        stored = await self._stored()
        self._pipeline.resolve(self._stream, self._missing, stored)
        if self._too_late:
            await self._all_pushed()
        self._pipeline.merge_remote_state(self._stream, stored)
        self._stream.reconciling = False
        self._stream.ledger.changed.notify_all()
        self._answered.set()

    async def wait(self) -> None:
        """Return at the answer, or when there is none in time: then the journal's word must do for the next index."""
        try:
            with anyio.fail_after(PATIENCE_S):
                await self._answered.wait()
        except TimeoutError:
            self._too_late = True

    async def _all_pushed(self) -> None:
        # The journal's next index was given out meanwhile. To learn now that the server has it would make a push of
        # other frames under it look like a repetition; so the server refuses that chunk, and it is kept and told.
        ledger = self._stream.ledger
        await ledger.changed.wait_for(lambda: ledger.sealed and ledger.pending == 0)

    async def _stored(self) -> IndexSet:
        if not self._stream.spec.announced:
            return IndexSet()
        try:
            return await retrying(
                lambda: self._api.stored_chunks(self._stream.spec.data_id),
                attempts=sys.maxsize,  # as the uploads: an outage or a key that is refused for now ends some time
                may_repeat=self._may_repeat,
            )
        except RejectedError:  # no such stream, or a server without this call
            return IndexSet()

    def _may_repeat(self, error: BaseException) -> bool:
        if isinstance(error, RejectedError):
            return False
        log.log(
            logging.WARNING if self._missing else logging.INFO,
            "Stream %s: %s Until it answers, %d chunks that an earlier process had only in memory count as pending.",
            self._stream.spec.data_id,
            error,
            len(self._missing),
        )
        return True
