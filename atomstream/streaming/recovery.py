"""Recovery of what earlier processes left in the spool: records are checked and uploaded, streams are ended.

Each record is read completely and its CRC-32C checked before it is queued for upload. So a damaged record is reported
at once, even while the server is not reachable, and the other records are not affected. The upload checks it again.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator, Sequence
from typing import Final

import anyio

from atomstream.config import ClientSettings
from atomstream.counted import counted
from atomstream.errors import RejectedError, SpoolError, SpoolLockedError, UnknownStreamError
from atomstream.index_ranges import IndexSet
from atomstream.pipeline.ledger import Ledger
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
from atomstream.streaming.background import TaskSupervisor
from atomstream.streaming.finalizer import Finalizers
from atomstream.streaming.late_registration import LateRegistrations
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.spool")

RESUME_WAIT_S: Final = 2.0
"""How long ``resume`` waits for the server's list of chunks: enough for a server that starts at the same time."""


def open_spool(settings: ClientSettings) -> Spool:
    """Open the spool folder; the caller runs this in the disk thread.

    Raises:
        SpoolError: the folder can't be made or used.
    """
    return Spool(
        settings.spool_dir,
        max_bytes=settings.spool_max_bytes,
        min_free_bytes=settings.spool_min_free_bytes,
        retention_s=settings.spool_retention_s,
    )


class SpoolRecovery:
    """Opens the streams of one endpoint that earlier processes left in the spool, and delivers them.

    A recovered stream is closed when all its chunks are resolved, unless :meth:`resume` made it a live one before.
    If it was being finalized, it is also ended on the server. All disk work runs in the pipeline's disk thread.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        api: ServiceApi,
        tasks: TaskSupervisor,
        finalizers: Finalizers,
        late: LateRegistrations,
    ) -> None:
        self._pipeline = pipeline
        self._api = api
        self._tasks = tasks
        self._finalizers = finalizers
        self._late = late
        self._spool: Spool | None = None
        self._endpoint = ""
        self._all_opened = asyncio.Event()
        self._reconciliations: dict[str, ServerReconciliation] = {}

    def start(self, spool: Spool, endpoint: str) -> None:
        """Recover the streams of ``endpoint`` in the background."""
        self._spool = spool
        self._endpoint = endpoint
        self._tasks.start(self._run(spool), "recovery")

    async def resume(self, data_id: str) -> StreamState:
        """Return a stream of the spool, or one that is open already, and open it first if necessary.

        Raises:
            UnknownStreamError: it is not in the spool, or can't be read, or there is no spool.
            SpoolLockedError: another process has it open.
        """
        if self._spool is not None:
            await self._all_opened.wait()  # the background task may be opening this very stream
        stream = self._pipeline.find(data_id)
        return stream if stream is not None else await self._open(data_id)

    async def wait_reconciled(self, data_id: str) -> None:
        """Wait, for a limited time, until the server has reported which chunks of a recovered stream it has."""
        if data_id in self._reconciliations:
            await self._reconciliations[data_id].wait()

    # -- opening ------------------------------------------------------------------------------------------

    async def _run(self, spool: Spool) -> None:
        try:
            await self._open_all(spool)
        finally:
            self._all_opened.set()
        for stream in [stream for stream in self._pipeline.streams if stream.recovered]:
            self._tasks.start(self._close_when_delivered(stream), "recovered stream")

    async def _open_all(self, spool: Spool) -> None:
        try:
            found = await self._pipeline.run_on_disk(lambda: spool.recoverable(self._endpoint))
        except SpoolError as error:
            log.warning("%s", error)
            return
        for stream in found:
            if stream.manifest is not None and self._pipeline.find(stream.manifest.spec.data_id) is None:
                await self._open_unfinished(spool, stream.manifest.spec.data_id)

    async def _open_unfinished(self, spool: Spool, data_id: str) -> None:
        try:
            folder = await self._pipeline.run_on_disk(lambda: self._folder_if_unfinished(spool, data_id))
        except SpoolLockedError:
            return  # another process has opened it
        except SpoolError as error:
            log.warning("%s", error)
            return
        if folder is not None:
            self._recover(folder)

    def _folder_if_unfinished(self, spool: Spool, data_id: str) -> StreamSpool | None:
        folder = spool.open_stream(self._endpoint, data_id)
        history = folder.journal_state
        if folder.pending() or folder.missing or (history.finalizing and not history.ended):
            return folder
        if not folder.remove_if_ended():
            folder.close()
        return None

    async def _open(self, data_id: str) -> StreamState:
        spool = self._spool
        if spool is None:
            raise UnknownStreamError(f"There is no spool to resume stream {data_id} from.", data_id=data_id)
        try:
            folder = await self._pipeline.run_on_disk(lambda: spool.open_stream(self._endpoint, data_id))
        except SpoolError as error:
            raise UnknownStreamError(
                f"Stream {data_id} can't be resumed: {error}", data_id=data_id
            ) from error
        return self._recover(folder)

    def _recover(self, folder: StreamSpool) -> StreamState:
        """Add the stream to the pipeline, and start to check and upload its records."""
        stream = self._pipeline.recover(folder)
        self._late.add(folder)
        log.warning(
            "Stream %s (%s) was left by an earlier process: %d chunks are being uploaded%s.",
            stream.spec.data_id,
            stream.spec.name,
            len(folder.pending()),
            f", {len(folder.missing)} were only in its memory" if folder.missing else "",
        )
        reconciliation = ServerReconciliation(self._pipeline, self._api, self._late, stream, folder.missing)
        self._reconciliations[stream.spec.data_id] = reconciliation
        self._tasks.start(reconciliation.run(), "recovered chunks")
        self._check_records(stream, folder, verify_records(folder))
        if folder.journal_state.finalizing:
            self._finalizers.start(stream)
        return stream

    async def _close_when_delivered(self, stream: StreamState) -> None:
        await self._finalizers.wait_done(stream.spec.data_id)
        await self._pipeline.drain(stream)
        if stream.recovered:  # False if resume() has made it a live stream
            log.warning("Stream %s: %s", stream.spec.data_id, _outcome(stream.ledger))
            self._pipeline.release(stream)

    # -- records ------------------------------------------------------------------------------------------

    def _check_records(
        self,
        stream: StreamState,
        folder: StreamSpool,
        results: Iterator[VerifyResult | None],
        delay_s: float = 0.0,
    ) -> None:
        # One read window per job, queued behind the waiting jobs: a new chunk waits for the disk one window at most.
        self._pipeline.submit_to_disk(lambda: self._check_window(stream, folder, results), delay_s)

    def _check_window(
        self, stream: StreamState, folder: StreamSpool, results: Iterator[VerifyResult | None]
    ) -> None:
        if self._pipeline.failure is not None:
            return  # closed: records that were not checked stay on disk
        try:
            result = next(results)
        except StopIteration:
            return
        if isinstance(result, Quarantined):
            stream.ledger.resolve(result.index, "quarantined", result.reason)
        elif isinstance(result, SpooledChunk):
            self._pipeline.deliver_recovered(stream, folder, result)
        self._check_records(stream, folder, results, RETRY_S if isinstance(result, DiskFailed) else 0.0)


def _outcome(ledger: Ledger) -> str:
    """Describe in one sentence whether the chunks of a recovered stream were delivered."""
    quarantined = ledger.counts()["quarantined"]
    if not quarantined:
        return "all chunks that an earlier process left are delivered."
    return (
        f"the chunks that an earlier process left are delivered, except {counted(quarantined, 'chunk')} in quarantine; "
        "`atomstream spool list` shows the reasons."
    )


class ServerReconciliation:
    """Asks the server which chunks of a recovered stream it has, and corrects the stream's ledger accordingly.

    The earlier process may have been killed after the server had stored a chunk and before the journal recorded it.
    ``missing`` are chunks that were accepted and are not on disk. Only an atomstream server can answer. With the
    hosted service the missing chunks count as dropped.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        api: ServiceApi,
        late: LateRegistrations,
        stream: StreamState,
        missing: Sequence[int],
    ) -> None:
        self._pipeline = pipeline
        self._api = api
        self._late = late
        self._stream = stream
        self._missing = missing
        self._answered = asyncio.Event()
        self._timed_out = False
        stream.reconciling = True

    async def run(self) -> None:
        """Get the server's list and apply it; during an outage this waits, and so does the end of the stream."""
        stored = await self._stored()
        self._pipeline.resolve(self._stream, self._missing, stored)
        if self._timed_out:
            await self._wait_until_sealed()
        self._pipeline.merge_remote_state(self._stream, stored)
        self._stream.reconciling = False
        self._stream.ledger.changed.notify_all()
        self._answered.set()

    async def wait(self) -> None:
        """Return when the server has answered, or after ``RESUME_WAIT_S``: the next index is then the journal's."""
        try:
            with anyio.fail_after(RESUME_WAIT_S):
                await self._answered.wait()
        except TimeoutError:
            self._timed_out = True

    async def _wait_until_sealed(self) -> None:
        # The caller has already received the journal's next index. If the ledger now recorded that the server has a
        # chunk with that index, a push of other frames would look like a repetition and be ignored. So the push is
        # uploaded, the server refuses it, and the chunk is kept in quarantine and reported.
        ledger = self._stream.ledger
        await ledger.changed.wait_for(lambda: ledger.sealed and ledger.pending == 0)

    async def _stored(self) -> IndexSet:
        server_id = self._late.find_server_id(self._stream.spec.data_id)
        if server_id is None or not self._late.announced(self._stream.spec):
            return IndexSet()  # a stream that is not registered has no chunks on the server
        if self._stream.spec.kind == "signals":
            return IndexSet()  # an equal repeat of such a chunk changes nothing
        try:
            return await retrying(
                lambda: self._api.stored_chunks(server_id),
                attempts=sys.maxsize,  # like uploads: an outage or a refused key may end at any time
                may_repeat=self._may_repeat,
            )
        except RejectedError:  # no such stream, or an older server that has no such list
            return IndexSet()

    def _may_repeat(self, error: BaseException) -> bool:
        if isinstance(error, RejectedError):
            return False
        log.log(
            logging.WARNING if self._missing else logging.INFO,
            "Stream %s: %s Until the server answers, %d chunks of the earlier process stay pending.",
            self._stream.spec.data_id,
            error,
            len(self._missing),
        )
        return True
