"""What runs behind a streamer, from its first stream to ``close``: service, clock, pipeline and endings.

Made on the loop of the first verb and owned by it. Its tasks belong to nobody's task group, so a streamer may
be entered in one task and left in another.
"""

from __future__ import annotations

import asyncio
import logging
import warnings

from atomstream.config import ClientSettings
from atomstream.errors import ClosedError, StreamGoneError
from atomstream.pipeline.pipeline import Pipeline
from atomstream.pipeline.stream import Stream
from atomstream.records import ClockStatus, Stamp, StreamReport
from atomstream.service.api import ServiceApi
from atomstream.service.clock import ReferenceClock
from atomstream.streaming.arguments import InitializeRequest
from atomstream.streaming.courier import ServiceCourier
from atomstream.streaming.ending import Ending, bounded, drain_timeout, wait_for
from atomstream.streaming.forecast import Forecast
from atomstream.streaming.registration import register

log = logging.getLogger("atomstream")


class Engine:
    """The running parts; construct it inside the loop."""

    def __init__(self, settings: ClientSettings) -> None:
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._api = ServiceApi(
            settings.endpoint,
            settings.api_key,
            request_timeout_s=settings.request_timeout_s,
            upload_timeout_s=settings.upload_timeout_s,
            connections=settings.upload_concurrency,
        )
        self._clock = ReferenceClock(self._api)
        self.pipeline = Pipeline(settings, ServiceCourier(self._api))
        self.endings: dict[str, Ending] = {}
        self._told: set[str] = set()
        self._forecast = Forecast(self.pipeline)

    async def initialize(self, request: InitializeRequest) -> str:
        """Create a stream and open it in the pipeline."""
        self._check_loop()
        spec = (await register(self._api, request)).spec
        if self._settings.clock_sync:
            await self._clock.start()
        self.pipeline.open(spec)
        log.info("Stream %r is open: %s", spec.name, spec.data_id)
        return spec.data_id

    def stamp(self, duration_s: float, given_ms: float | None) -> Stamp:
        """``given_ms`` as it is; else now minus ``duration_s``, corrected by what is known of the clock."""
        if given_ms is not None:
            return Stamp(given_ms)
        now, offset, uncertainty = self._clock.now_ms()
        return Stamp(now - 1000.0 * duration_s, offset, uncertainty)

    def clock_status(self) -> ClockStatus | None:
        """As measured last."""
        return self._clock.status()

    def told(self, stream: Stream) -> StreamGoneError:
        """The stream's failure, remembered as told to a caller."""
        if stream.failure is None:
            raise AssertionError("the stream has not failed")
        self._told.add(stream.spec.data_id)
        return stream.failure

    async def flush(self, stream: Stream, timeout_s: float | None) -> None:
        """Settle everything accepted before this call."""
        self._check_loop()
        self.pipeline.fillers[stream.spec.data_id].flush()
        until = stream.ledger.next_index
        work = wait_for(self.pipeline, stream, lambda: stream.ledger.settled_below(until))
        await bounded(work, timeout_s, lambda: self._flush_timeout(stream, timeout_s))
        if stream.failure is not None:
            raise self.told(stream)

    def _flush_timeout(self, stream: Stream, timeout_s: float | None) -> Exception:
        standing = self.pipeline.uploader.standing_still(stream.spec.data_id)
        cause = f"{stream.ledger.pending} chunks are not yet stored{': ' + standing if standing else ''}."
        return drain_timeout(stream, f"flush waited {timeout_s} s", cause)

    async def finalize(self, stream: Stream, timeout_s: float | None) -> StreamReport:
        """Seal, drain, end, report."""
        self._check_loop()
        data_id = stream.spec.data_id
        if data_id not in self.endings:
            self.pipeline.fillers[data_id].seal()
            stream.ledger.seal()
            self.endings[data_id] = Ending(self.pipeline, self._api, stream)
        report = await self.endings[data_id].wait(timeout_s)
        if stream.failure is not None and data_id not in self._told:
            raise self.told(stream)
        return report

    async def close(self, drain_s: float) -> None:
        """Drain for a while, then stop everything."""
        self._check_loop()
        try:
            await self._drain(drain_s)
        finally:
            await self._forecast.close()
            for ending in self.endings.values():
                await ending.close()
            await self.pipeline.close()
            await self._clock.close()
            await self._api.close()

    async def _drain(self, drain_s: float) -> None:
        for filler in self.pipeline.fillers.values():
            filler.flush()
        waits = [asyncio.ensure_future(self._drained(stream)) for stream in self.pipeline.streams.values()]
        if not waits:
            return
        _, late = await asyncio.wait(waits, timeout=drain_s)
        for wait in late:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        undelivered = sum(stream.ledger.pending for stream in self.pipeline.streams.values())
        if undelivered:
            warnings.warn(
                f"The streamer was closed with {undelivered} chunk(s) not delivered after {drain_s:g} s; "
                "they are lost.",
                RuntimeWarning,
                stacklevel=2,
            )

    async def _drained(self, stream: Stream) -> None:
        await wait_for(self.pipeline, stream, lambda: stream.ledger.pending == 0)
        ending = self.endings.get(stream.spec.data_id)
        if ending is not None:
            await ending.wait(None)

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise ClosedError(
                "This AsyncRHEEDStreamer belongs to another event loop; make one in each loop, or use the blocking "
                "RHEEDStreamer from anywhere."
            )
