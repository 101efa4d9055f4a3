"""The running parts behind a streamer, from its first verb to ``close``: HTTP client, clock, spool and pipeline.

A session belongs to the event loop in which it was made. Its tasks are in no task group, so a streamer may be entered
in one task and left in another.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from atomstream.arguments import check_attributes, check_calibration
from atomstream.checks import checked_text, number_in_range
from atomstream.config import ClientSettings
from atomstream.counted import counted
from atomstream.errors import (
    ClosedError,
    NotFoundError,
    RejectedError,
    ServiceError,
    SpoolError,
    StreamFinalizedError,
    StreamGoneError,
)
from atomstream.pipeline.pipeline import Pipeline
from atomstream.pipeline.stream import StreamState
from atomstream.pipeline.upload import Upload
from atomstream.records import ClockStatus, Json, Receipt, StreamReport, StreamSpec, Timestamp
from atomstream.results import Event, event_from
from atomstream.service.api import ServiceApi
from atomstream.service.clock import ReferenceClock
from atomstream.spool import LateRegistration, Spool, SpoolStatus, StreamSpool
from atomstream.streaming.annotations import new_mark, send_attributes, send_calibration, send_mark
from atomstream.streaming.background import TaskSupervisor, expire_old_chunks
from atomstream.streaming.finalizer import Finalizers, bounded, drain_timeout
from atomstream.streaming.frame_input import FrameInput
from atomstream.streaming.late_registration import (
    LateRegistrations,
    local_signals,
    local_stream,
    server_is_unreachable,
)
from atomstream.streaming.recovery import SpoolRecovery, open_spool
from atomstream.streaming.registration import StreamRegistration, register, register_signals
from atomstream.streaming.result_batch import ResultBatch
from atomstream.streaming.signal_chunk import addressed, text_of_shard
from atomstream.streaming.signal_request import SignalsRequest
from atomstream.streaming.signals_input import SignalsInput
from atomstream.streaming.statistics import StreamerStats, no_spool_status, stats_of, watch_forecast
from atomstream.streaming.stream_request import InitializeRequest
from atomstream.streaming.subscription import LATEST_ONLY, LatestResult, ResultSubscription
from atomstream.streaming.validation import check_capture_ms
from atomstream.streaming.warm_up import warm_up_loop
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream")

T = TypeVar("T")


class StreamingSession:
    """Makes, connects and stops the running parts; construct it inside the loop, then await :meth:`started`.

    ``frames`` has the verbs that push frames, ``signals`` those that push signals. All other methods must be called in
    the session's loop.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._late = LateRegistrations(self._run_on_disk)
        self._api = ServiceApi(
            settings.endpoint,
            settings.api_key,
            request_timeout_s=settings.request_timeout_s,
            upload_timeout_s=settings.upload_timeout_s,
            connections=0,  # the uploader limits them: an upload must not wait for the connection of a stalled one
            server_id=self._late.server_id,
        )
        self._clock = ReferenceClock(self._api)
        self._pipeline = Pipeline(settings, ServiceUploader(self._api, self._late))
        self.frames = FrameInput(self._pipeline, self.timestamp)
        self.signals = SignalsInput(self._pipeline, self.frames, self.timestamp)
        self._finalizers = Finalizers(self._pipeline, self._api, self._late)
        self._tasks = TaskSupervisor()
        self._latest: dict[str, LatestResult] = {}
        self._spool: Spool | None = None
        self._recovery = SpoolRecovery(self._pipeline, self._api, self._tasks, self._finalizers, self._late)
        self._opening = self._loop.create_task(self._open_spool(), name="atomstream-open-spool")

    async def started(self) -> None:
        """Return once the spool is open. Its streams are recovered in the background."""
        self.check_loop()
        warm_up_loop()
        await asyncio.shield(self._opening)

    async def _open_spool(self) -> None:
        settings = self._settings
        try:
            self._spool = await self._pipeline.run_on_disk(lambda: open_spool(settings))
        except SpoolError as error:
            log.warning("%s Frames are kept in memory only.", error)
        else:
            self._recovery.start(self._spool, settings.endpoint)
            if settings.spool_retention_s is not None:
                self._tasks.start(expire_old_chunks(self._pipeline, settings.spool_retention_s), "retention")
        self._tasks.start(watch_forecast(self._pipeline, self._spool), "forecast")

    def check_loop(self) -> None:
        """Check that the caller runs in this session's loop.

        Raises:
            ClosedError: it runs in another loop.
        """
        if asyncio.get_running_loop() is not self._loop:
            raise ClosedError(
                "This AsyncRHEEDStreamer belongs to another event loop; make one in each loop, or use the blocking "
                "RHEEDStreamer from anywhere."
            )

    # -- streams ------------------------------------------------------------------------------------------

    async def initialize(self, request: InitializeRequest) -> str:
        """Create a stream on the server and open it in the pipeline; returns its ``data_id``.

        If the server can't be reached, the stream gets a local id and is registered by its first upload.
        """
        return (
            await self._open(
                register(self._api, request),
                lambda: local_stream(request.checked(), self._settings.endpoint),
            )
        ).data_id

    async def _open(
        self,
        registration: Awaitable[StreamRegistration],
        local: Callable[[], tuple[StreamSpec, LateRegistration]],
    ) -> StreamSpec:
        """Register a stream and open it in the pipeline; ``local`` makes its local form, if the server is away."""
        try:
            spec = (await registration).spec
        except ServiceError as error:
            if self._settings.when_unreachable == "raise" or not server_is_unreachable(error):
                raise
            return await self._open_locally(*local(), error)
        if self._settings.clock_sync:
            await self._clock.start()
        self._pipeline.open(spec, await self._claim_folder(spec))
        log.info("Stream %r is open: %s", spec.name, spec.data_id)
        return spec

    async def _open_locally(
        self, spec: StreamSpec, late: LateRegistration, error: ServiceError
    ) -> StreamSpec:
        """Open a stream under a local id. Without a spool it could be lost at the end of this process: raise."""
        spool, endpoint = self._spool, self._settings.endpoint
        if spool is None:
            raise error
        try:
            folder = await self._run_on_disk(lambda: spool.create_stream(endpoint, spec, late=late))
        except SpoolError as disk_error:
            log.warning("%s So the stream can't begin while the server is unreachable.", disk_error)
            raise error from None
        self._late.add(folder)
        self._pipeline.open(spec, folder)
        log.warning(
            "%s Stream %r begins under the local id %s: what is pushed is kept in the spool, and the stream is "
            "registered and sent when the server answers.",
            error,
            spec.name,
            spec.data_id,
        )
        if self._settings.clock_sync:
            await self._clock.start()
        return spec

    async def _run_on_disk(self, call: Callable[[], T]) -> T:
        return await self._pipeline.run_on_disk(call)

    def server_id(self, data_id: str) -> str | None:
        """Return the id of an open stream on the server; None if it is not registered yet."""
        return self._late.find_server_id(self._pipeline.stream(data_id).spec.data_id)

    async def initialize_signals(self, request: SignalsRequest) -> str:
        """Create a stream of signals on the server and open it in the pipeline; returns its ``data_id``."""
        spec = await self._open(
            register_signals(self._api, request),
            lambda: local_signals(request.checked(), self._settings.endpoint),
        )
        if request.marks and not spec.announced:
            log.warning(
                "Stream %s: this server does not support rules for marks; the points are sent without them.",
                spec.data_id,
            )
        return spec.data_id

    async def _claim_folder(self, spec: StreamSpec) -> StreamSpool | None:
        spool = self._spool
        if spool is None:
            return None
        try:
            return await self._pipeline.run_on_disk(
                lambda: spool.create_stream(self._settings.endpoint, spec)
            )
        except SpoolError as error:
            log.warning("%s Stream %s is kept in memory only.", error, spec.data_id)
            return None

    async def resume(self, data_id: str) -> int:
        """Continue a stream of the spool; returns its next chunk index."""
        stream = await self._recovery.resume(checked_text("data_id", data_id))
        if stream.ledger.sealed:
            raise StreamFinalizedError(
                f"Stream {data_id} was finalized before: it accepts no more frames. Its other chunks are delivered.",
                data_id=data_id,
            )
        self._pipeline.make_live(stream)  # now: a recovered stream is closed as soon as it is delivered
        if self._settings.clock_sync:
            await self._clock.start()
        await self._recovery.wait_reconciled(data_id)
        return stream.ledger.next_index

    async def flush(self, data_id: str, timeout_s: float | None) -> None:
        """Wait until each chunk pushed before this call is resolved: stored, or reported as lost."""
        self.check_loop()
        timeout_s = _checked_timeout(timeout_s)
        stream = self._pipeline.stream(data_id)
        stream.failure.raise_if_set()
        await bounded(self._pipeline.flush(stream), timeout_s, lambda: self._flush_timeout(stream, timeout_s))

    def _flush_timeout(self, stream: StreamState, timeout_s: float | None) -> Exception:
        reason = self._pipeline.stall_reason(stream)
        waiting = counted(stream.ledger.pending, "chunk is", "chunks are")
        cause = f"{waiting} not yet stored{': ' + reason.rstrip('.') if reason else ''}."
        return drain_timeout(stream, f"flush waited {timeout_s} s", cause)

    async def finalize(self, data_id: str, timeout_s: float | None) -> StreamReport:
        """Accept no more frames, wait for the uploads, end the stream on the server, and report."""
        self.check_loop()
        timeout_s = _checked_timeout(timeout_s)
        stream = self._pipeline.stream(data_id)
        finalizer = self._finalizers.get(data_id)
        if finalizer is None:
            self._pipeline.seal(stream)
            finalizer = self._finalizers.start(stream)
        report = await finalizer.wait(timeout_s)
        stream.failure.raise_if_undelivered()
        return report

    def warn_about_losses(self, data_id: str, report: StreamReport, stacklevel: int) -> None:
        """Give one RuntimeWarning if chunks are missing. ``stacklevel`` 1 is the caller of this method."""
        finalizer = self._finalizers.get(data_id)
        if finalizer is not None:
            finalizer.warn_once(report, stacklevel + 1)

    def timestamp(self, duration_s: float, explicit_ms: float | None) -> Timestamp:
        """Return ``explicit_ms`` unchanged; if it is None, the reference clock's time now minus ``duration_s``."""
        if explicit_ms is not None:
            return Timestamp(explicit_ms)
        now, offset, uncertainty = self._clock.now_ms()
        return Timestamp(now - 1000.0 * duration_s, offset, uncertainty)

    # -- results ------------------------------------------------------------------------------------------

    def subscribe(self, data_id: str, after: int) -> ResultSubscription:
        """Make a subscription to the stream's results that follow batch number ``after``."""
        return ResultSubscription(self._api.results, data_id, after, self._announced(data_id))

    def latest(self, data_id: str) -> ResultBatch | None:
        """Return the latest batch received. The first call starts the subscription."""
        latest = self._latest.get(checked_text("data_id", data_id))
        if latest is None or (latest.batch is None and not latest.running):
            latest = LatestResult(self.subscribe(data_id, LATEST_ONLY), data_id)
            self._latest[data_id] = latest
            self._tasks.start(latest.run(), f"latest result of {data_id}")
        return latest.batch

    async def mark(
        self, data_id: str, label: str, kind: str, time_ms_utc: float | None, value: float | None = None
    ) -> Event:
        """Store an event of the stream on the server; ``time_ms_utc`` None is now."""
        explicit_ms = check_capture_ms(time_ms_utc, "time_ms_utc")
        event = new_mark(label, kind, self.timestamp(0.0, explicit_ms).start_ms, value)
        if self._late.is_pending(data_id):
            await self._late.keep_event(data_id, event)
            return event_from({**event, "time_s": None, "by": "user"})
        return await send_mark(self._api.results, data_id, event, self._announced(data_id))

    async def calibrate(self, data_id: str, values: dict[str, float | str | None]) -> None:
        """Replace the stream's calibration on the server."""
        if self._late.is_pending(data_id):
            await self._late.keep_calibration(data_id, check_calibration(values))
            return
        await send_calibration(self._api.results, data_id, values, self._announced(data_id))

    async def set_attributes(self, data_id: str, attributes: Mapping[str, Json]) -> None:
        """Add attributes to the stream on the server."""
        if self._late.is_pending(data_id):
            await self._late.keep_attributes(data_id, check_attributes(attributes))
            return
        await send_attributes(self._api, data_id, attributes, self._announced(data_id))

    def _announced(self, data_id: str) -> bool | None:
        """Whether the stream's server is an atomstream server; None if this session did not open the stream."""
        stream = self._pipeline.find(data_id)
        return None if stream is None else self._late.announced(stream.spec)

    # -- status and close ---------------------------------------------------------------------------------

    def clock_status(self) -> ClockStatus | None:
        """Return the last measurement of the clock; None before the first."""
        return self._clock.status()

    async def spool_status(self) -> SpoolStatus:
        """Read what the spool holds from its folder."""
        spool = self._spool
        if spool is None:
            return no_spool_status(Path(self._settings.spool_dir))
        return await self._pipeline.run_on_disk(spool.status)

    def stats(self) -> StreamerStats:
        """Return counts, rates and free memory now."""
        return stats_of(self._settings, self._pipeline)

    async def close(self, drain_s: float) -> None:
        """Wait up to ``drain_s`` seconds until all chunks are on disk or delivered, then stop all parts."""
        self.check_loop()
        await asyncio.wait([self._opening])
        try:
            await self._wait_until_safe(drain_s)
        finally:
            await self._tasks.close()
            await self._finalizers.close()
            await self._pipeline.close()
            await self._clock.close()
            await self._api.close()

    async def _wait_until_safe(self, drain_s: float) -> None:
        streams = self._pipeline.streams
        for stream in streams:
            self._pipeline.send_gathered(stream)
        waits = [asyncio.ensure_future(self._safe(stream)) for stream in streams]
        if waits:
            _, late = await asyncio.wait(waits, timeout=drain_s)
            for wait in late:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        for stream in streams:
            _warn_about_rest(stream, drain_s)

    async def _safe(self, stream: StreamState) -> None:
        if stream.spool is not None:
            # Even after another failure: the disk may still accept what is in memory.
            await stream.ledger.changed.wait_for(lambda: stream.ledger.in_memory_only == 0)
            return
        await self._pipeline.drain(stream)
        finalizer = self._finalizers.get(stream.spec.data_id)
        if finalizer is not None:
            await finalizer.wait(None)


def _checked_timeout(value: float | None) -> float | None:
    return None if value is None else number_in_range("timeout", value, 0.0, 1e9)


def _warn_about_rest(stream: StreamState, drain_s: float) -> None:
    ledger, data_id = stream.ledger, stream.spec.data_id
    if ledger.in_memory_only:
        warnings.warn(
            f"Stream {data_id} was closed with {counted(ledger.in_memory_only, 'chunk')} neither on disk nor "
            f"delivered after {drain_s:g} s; they are lost.",
            RuntimeWarning,
            stacklevel=2,
        )
    elif ledger.pending:
        log.warning(
            "Stream %s was closed with %d chunks in the spool: the next streamer on the same spool delivers them, or "
            "'atomstream spool resume'.",
            data_id,
            ledger.pending,
        )


class ServiceUploader:
    """Uploads one chunk over HTTP: requests an upload URL, then sends the body. One attempt, without retry."""

    def __init__(self, api: ServiceApi, late: LateRegistrations) -> None:
        self._api = api
        self._late = late

    async def deliver(self, upload: Upload) -> Receipt:
        """Upload the chunk and return the server's receipt. A stream with a local id is registered first.

        Raises:
            ServiceError: the server refused it or was not reached.
            StreamGoneError: the server has no such stream.
        """
        data_id = upload.spec.data_id
        if upload.spec.kind == "signals":
            return await self._deliver_signals(upload)
        spec = await self._late.registered(upload.spec, self._api)
        if upload.info.dtype == "uint16" and not spec.announced:
            raise RejectedError(
                f"Chunk {upload.index} of stream {data_id} has uint16 frames, and {self._api.endpoint} accepts "
                "only uint8: it is not an atomstream server."
            )
        try:
            url = await self._api.upload_url(spec, upload.info)
        except NotFoundError as error:
            raise _gone(upload, error) from error
        what = f"upload chunk {upload.index} of stream {data_id}"
        crc32c = await self._api.put_shard(
            url, upload.open(), upload.info.nbytes, crc32c=upload.info.crc32c, what=what
        )
        return Receipt(data_id, upload.index, upload.info.nbytes, crc32c)

    async def _deliver_signals(self, upload: Upload) -> Receipt:
        shard = b"".join([bytes(piece) async for piece in upload.open()])
        text, several = text_of_shard(shard, upload.info.dims)
        spec = await self._late.registered(upload.spec, self._api)
        text = addressed(text, spec.data_id)
        what = f"send chunk {upload.index} of the signals {upload.spec.data_id}"
        try:
            await self._api.send_signals(text, several=several, what=what)
        except NotFoundError as error:
            raise _gone(upload, error) from error
        return Receipt(upload.spec.data_id, upload.index, upload.info.nbytes, None)


def _gone(upload: Upload, error: NotFoundError) -> StreamGoneError:
    data_id = upload.spec.data_id
    return StreamGoneError(
        f"The server no longer has stream {data_id} (HTTP {error.status}): {error} "
        "Its chunks can't be delivered; those that were not uploaded are kept and reported.",
        data_id=data_id,
        index=upload.index,
    )
