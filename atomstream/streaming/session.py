"""What runs behind a streamer, from its first verb to ``close``: service, clock, spool, pipeline and endings.

Made on the loop of the first verb and owned by it. Its tasks belong to nobody's task group, so a streamer may
be entered in one task and left in another.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

from atomstream.config import ClientSettings
from atomstream.errors import (
    ClosedError,
    NotFoundError,
    SpoolError,
    StreamFinalizedError,
    StreamGoneError,
    UnknownStreamError,
)
from atomstream.pipeline.ledger import Ledger
from atomstream.pipeline.pipeline import Pipeline
from atomstream.pipeline.stream import StreamState
from atomstream.pipeline.upload import Upload
from atomstream.records import ClockStatus, Receipt, StreamReport, StreamSpec, Timestamp
from atomstream.service.api import ServiceApi
from atomstream.service.clock import ReferenceClock
from atomstream.service.results_api import ResultsApi
from atomstream.spool import Spool, SpoolStatus, StreamSpool
from atomstream.streaming.finalizer import Finalizer, bounded, drain_timeout
from atomstream.streaming.recovery import ServerReconciliation, SpoolRecovery
from atomstream.streaming.registration import InitializeRequest, register
from atomstream.streaming.result_batch import ResultBatch
from atomstream.streaming.statistics import no_spool_status, watch_forecast
from atomstream.streaming.subscription import NEWEST, LatestResult, ResultSubscription
from atomstream.streaming.warm_up import get_loop_ready

# Background tasks of a streamer: started anywhere, ended together, never silent when they fail.

log = logging.getLogger("atomstream")


class TaskSupervisor:
    """A set of tasks that nobody awaits; one that fails is logged, for none of them carries frames."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """Run ``work`` until it ends or :meth:`close`."""
        task = asyncio.get_running_loop().create_task(work, name=f"atomstream {what}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Cancel what still runs and await its end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed: %r", task.get_name(), error)


# Delivers one parcel over the service: a fresh URL, the body, the server's word. One attempt.


class ServiceUploader:
    """The pipeline's :class:`~atomstream.pipeline.upload.UploadTransport` over HTTP."""

    def __init__(self, api: ServiceApi) -> None:
        self._api = api

    async def deliver(self, upload: Upload) -> Receipt:
        """Upload ``upload``.

        Raises:
            ServiceError: as mapped by the service. StreamGoneError: the API does not know the stream.
        """
        data_id = upload.spec.data_id
        try:
            url = await self._api.upload_url(upload.spec, upload.info)
        except NotFoundError as error:
            raise StreamGoneError(
                f"The server no longer knows stream {data_id} (HTTP {error.status}): {error} "
                "Its chunks can't be delivered; what was stored before stays stored.",
                data_id=data_id,
                index=upload.index,
            ) from error
        what = f"upload chunk {upload.index} of stream {data_id}"
        crc32c = await self._api.put_shard(
            url, upload.open(), upload.info.nbytes, crc32c=upload.info.crc32c, what=what
        )
        return Receipt(data_id, upload.index, upload.info.nbytes, crc32c)


# Gives up chunks that grew older than ``spool_retention_s``, where that was asked for.

spool_log = logging.getLogger("atomstream.spool")

MOST_OFTEN_S: Final = 1.0

SELDOM_S: Final = 60.0


async def watch_age(pipeline: Pipeline, retention_s: float) -> None:
    """Look at the oldest record of each stream now and then, for as long as the streamer lives."""
    while True:
        for stream in pipeline.streams:
            if stream.spool is not None:
                indices = await _expired(pipeline, stream.spool, retention_s)
                if indices:
                    pipeline.mark_purged(stream, indices)
        await asyncio.sleep(min(SELDOM_S, max(MOST_OFTEN_S, retention_s / 10)))


async def _expired(pipeline: Pipeline, spool: StreamSpool, retention_s: float) -> list[int]:
    try:
        return await pipeline.run_on_disk(lambda: spool.expire(retention_s))
    except SpoolError as error:
        spool_log.warning("%s", error)
        return []


class StreamingSession:
    """The running parts; construct it inside the loop, then await :meth:`started`."""

    def __init__(self, settings: ClientSettings) -> None:
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._api = ServiceApi(
            settings.endpoint,
            settings.api_key,
            request_timeout_s=settings.request_timeout_s,
            upload_timeout_s=settings.upload_timeout_s,
            connections=0,  # the uploader bounds them: a slot must not wait for a hung one's connection
        )
        self._clock = ReferenceClock(self._api)
        self.pipeline = Pipeline(settings, ServiceUploader(self._api))
        self.endings: dict[str, Finalizer] = {}
        self._spool: Spool | None = None
        self._recovery: SpoolRecovery | None = None
        self._recovered = asyncio.Event()
        self._background = TaskSupervisor()
        self._newest: dict[str, LatestResult] = {}
        self._questions: dict[str, ServerReconciliation] = {}
        self._opening = self._loop.create_task(self._open_spool(), name="atomstream-open-spool")

    async def started(self) -> None:
        """Return once the spool is open; what it holds is recovered in the background."""
        self.check_loop()
        get_loop_ready()
        await asyncio.shield(self._opening)

    async def _open_spool(self) -> None:
        settings = self._settings
        try:
            self._spool = await self.pipeline.run_on_disk(lambda: _spool(settings))
        except SpoolError as error:
            log.warning("%s Frames are kept in memory only.", error)
        else:
            self._recovery = SpoolRecovery(
                self.pipeline, self._spool, settings.endpoint, self._end_recovered, self._resolve
            )
            self._background.start(self._recover(self._recovery), "recovery")
            if settings.spool_retention_s is not None:
                self._background.start(watch_age(self.pipeline, settings.spool_retention_s), "retention")
        self._background.start(watch_forecast(self.pipeline, self._spool), "forecast")

    async def _recover(self, recovery: SpoolRecovery) -> None:
        try:
            await recovery.run()
        finally:
            self._recovered.set()
        for stream in [stream for stream in self.pipeline.streams if stream.recovered]:
            self._background.start(self._let_go_when_settled(stream), "recovered stream")

    async def _let_go_when_settled(self, stream: StreamState) -> None:
        data_id = stream.spec.data_id
        if data_id in self.endings:
            await self.endings[data_id].over()
        await self.pipeline.drain(stream)
        if stream.recovered:  # resume() made it a live one meanwhile otherwise
            log.warning("Stream %s: %s", data_id, _what_became(stream.ledger))
            self.pipeline.release(stream)

    def _end_recovered(self, stream: StreamState) -> None:
        self.endings[stream.spec.data_id] = Finalizer(self.pipeline, self._api, stream)

    def _resolve(self, stream: StreamState, missing: list[int]) -> None:
        question = ServerReconciliation(self.pipeline, self._api, stream, missing)
        self._questions[stream.spec.data_id] = question
        self._background.start(question.run(), "recovered chunks")

    # -- streams ------------------------------------------------------------------------------------------

    async def initialize(self, request: InitializeRequest) -> str:
        """Create a stream and open it in the pipeline."""
        spec = (await register(self._api, request)).spec
        if self._settings.clock_sync:
            await self._clock.start()
        self.pipeline.open(spec, await self._claim(spec))
        log.info("Stream %r is open: %s", spec.name, spec.data_id)
        return spec.data_id

    async def _claim(self, spec: StreamSpec) -> StreamSpool | None:
        spool = self._spool
        if spool is None:
            return None
        try:
            return await self.pipeline.run_on_disk(lambda: spool.create_stream(self._settings.endpoint, spec))
        except SpoolError as error:
            log.warning("%s Stream %s is kept in memory only.", error, spec.data_id)
            return None

    async def resume(self, data_id: str) -> int:
        """Make a stream of the spool a live one; its next index."""
        if self._recovery is not None:
            await self._recovered.wait()  # it may just be taking over this very stream
        stream = self.pipeline.find(data_id) or await self._open_left(data_id)
        if stream.ledger.sealed:
            raise StreamFinalizedError(
                f"Stream {data_id} was finalized before: it takes no more frames. What is left of it is delivered.",
                data_id=data_id,
            )
        self.pipeline.make_live(stream)  # at once: a recovered stream is released as soon as it is delivered
        if self._settings.clock_sync:
            await self._clock.start()
        if data_id in self._questions:
            await self._questions[data_id].wait()
        return stream.ledger.next_index

    async def _open_left(self, data_id: str) -> StreamState:
        if self._recovery is None:
            raise UnknownStreamError(f"There is no spool to resume stream {data_id} from.", data_id=data_id)
        try:
            return await self._recovery.open(data_id)
        except SpoolError as error:
            raise UnknownStreamError(
                f"Stream {data_id} can't be resumed: {error}", data_id=data_id
            ) from error

    def stamp(self, duration_s: float, given_ms: float | None) -> Timestamp:
        """``given_ms`` as it is; else now minus ``duration_s``, corrected by what is known of the clock."""
        if given_ms is not None:
            return Timestamp(given_ms)
        now, offset, uncertainty = self._clock.now_ms()
        return Timestamp(now - 1000.0 * duration_s, offset, uncertainty)

    # -- results ------------------------------------------------------------------------------------------

    @property
    def results(self) -> ResultsApi:
        """The calls about results and events."""
        return self._api.results

    def announced(self, data_id: str) -> bool | None:
        """Whether the stream's server said that it is an atomstream server; None for a stream of somebody else's."""
        stream = self.pipeline.find(data_id)
        return None if stream is None else stream.spec.announced

    def latest(self, data_id: str) -> ResultBatch | None:
        """The newest batch so far; follows the stream from the first call on."""
        newest = self._newest.get(data_id)
        if newest is None or (newest.batch is None and not newest.running):
            newest = LatestResult(
                ResultSubscription(self.results, data_id, NEWEST, self.announced(data_id)), data_id
            )
            self._newest[data_id] = newest
            self._background.start(newest.run(), f"newest result of {data_id}")
        return newest.batch

    async def flush(self, stream: StreamState, timeout_s: float | None) -> None:
        """Settle everything accepted before this call."""
        self.check_loop()
        await bounded(self.pipeline.flush(stream), timeout_s, lambda: self._flush_timeout(stream, timeout_s))

    def _flush_timeout(self, stream: StreamState, timeout_s: float | None) -> Exception:
        standing = self.pipeline.stall_reason(stream)
        cause = f"{stream.ledger.pending} chunks are not yet stored{': ' + standing.rstrip('.') if standing else ''}."
        return drain_timeout(stream, f"flush waited {timeout_s} s", cause)

    async def finalize(self, stream: StreamState, timeout_s: float | None) -> StreamReport:
        """Seal, drain, end, report."""
        self.check_loop()
        data_id = stream.spec.data_id
        if data_id not in self.endings:
            self.pipeline.seal(stream)
            self.endings[data_id] = Finalizer(self.pipeline, self._api, stream)
        report = await self.endings[data_id].wait(timeout_s)
        stream.failure.raise_if_undelivered()
        return report

    # -- how it stands, and the end -----------------------------------------------------------------------

    def clock_status(self) -> ClockStatus | None:
        """As measured last."""
        return self._clock.status()

    async def spool_status(self) -> SpoolStatus:
        """What the disk says."""
        spool = self._spool
        if spool is None:
            return no_spool_status(Path(self._settings.spool_dir))
        return await self.pipeline.run_on_disk(spool.status)

    async def close(self, drain_s: float) -> None:
        """See that nothing is lost, then stop everything."""
        self.check_loop()
        await asyncio.wait([self._opening])
        try:
            await self._make_safe(drain_s)
        finally:
            await self._background.close()
            for ending in self.endings.values():
                await ending.close()
            await self.pipeline.close()
            await self._clock.close()
            await self._api.close()

    async def _make_safe(self, drain_s: float) -> None:
        streams = self.pipeline.streams
        for stream in streams:
            self.pipeline.send_gathered(stream)
        waits = [asyncio.ensure_future(self._safe(stream)) for stream in streams]
        if waits:
            _, late = await asyncio.wait(waits, timeout=drain_s)
            for wait in late:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        for stream in streams:
            _warn_of_rest(stream, drain_s)

    async def _safe(self, stream: StreamState) -> None:
        if stream.spool is not None:
            # Whatever failed elsewhere: the disk may still take what is in memory.
            await stream.ledger.changed.wait_for(lambda: stream.ledger.in_memory_only == 0)
            return
        await self.pipeline.drain(stream)
        ending = self.endings.get(stream.spec.data_id)
        if ending is not None:
            await ending.wait(None)

    @property
    def loop_closed(self) -> bool:
        """Whether its loop is gone: an application ended without closing its streamer."""
        return self._loop.is_closed()

    def check_loop(self) -> None:
        """See that this is the engine's own loop.

        Raises:
            ClosedError: it is another one.
        """
        if asyncio.get_running_loop() is not self._loop:
            raise ClosedError(
                "This AsyncRHEEDStreamer belongs to another event loop; make one in each loop, or use the blocking "
                "RHEEDStreamer from anywhere."
            )


def _spool(settings: ClientSettings) -> Spool:
    return Spool(
        settings.spool_dir,
        max_bytes=settings.spool_max_bytes,
        min_free_bytes=settings.spool_min_free_bytes,
        retention_s=settings.spool_retention_s,
    )


def _warn_of_rest(stream: StreamState, drain_s: float) -> None:
    ledger, data_id = stream.ledger, stream.spec.data_id
    if ledger.in_memory_only:
        warnings.warn(
            f"Stream {data_id} was closed with {ledger.in_memory_only} chunk(s) neither on disk nor delivered after "
            f"{drain_s:g} s; they are lost.",
            RuntimeWarning,
            stacklevel=2,
        )
    elif ledger.pending:
        log.warning(
            "Stream %s was closed with %d chunks in the spool: the next streamer on it delivers them, or "
            "'atomstream spool resume'.",
            data_id,
            ledger.pending,
        )


def _what_became(ledger: Ledger) -> str:
    """One sentence of the truth about what an earlier process left."""
    aside = ledger.counts()["quarantined"]
    if not aside:
        return "all that an earlier process left is delivered."
    chunks = "1 chunk" if aside == 1 else f"{aside} chunks"
    return (
        f"what an earlier process left is delivered but for {chunks} in quarantine; `atomstream spool list` shows "
        "them, and why."
    )
