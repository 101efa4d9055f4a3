"""What earlier processes left in the spool: checked, delivered, ended where it was being finalized, and said so.

Each record is read whole before it is handed on, so a damaged one is told at once, also while the server is away,
and costs only itself (promise P11). The upload checks it once more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress

from atomstream.errors import SpoolError, SpoolLockedError
from atomstream.pipeline.keeper import AGAIN_S
from atomstream.pipeline.parcel import Parcel
from atomstream.pipeline.pipeline import Pipeline
from atomstream.pipeline.stream import Stream
from atomstream.spool import Aside, DiskRefused, Finding, Spool, SpooledChunk, StreamSpool, scrub

log = logging.getLogger("atomstream.spool")


class Recovery:
    """Opens streams of the spool in the pipeline; all disk work is done in the depot's thread.

    ``end(stream)`` is called for a recovered stream that was being finalized, ``resolve(stream, indices)`` for
    each: the earlier process had taken those indices, which are not on disk, and may have delivered them.
    """

    def __init__(
        self, pipeline: Pipeline, spool: Spool, endpoint: str, end: Callable[[Stream], None],
        resolve: Callable[[Stream, list[int]], None],
    ) -> None:  # fmt: skip
        self._pipeline = pipeline
        self._spool = spool
        self._endpoint = endpoint
        self._end = end
        self._resolve = resolve
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Take over every stream of this endpoint that nobody holds and that has something left to do."""
        try:
            found = await self._pipeline.depot.run(lambda: self._spool.recoverable(self._endpoint))
        except SpoolError as error:
            log.warning("%s", error)
            return
        for stream in found:
            if stream.manifest is not None and stream.manifest.spec.data_id not in self._pipeline.streams:
                await self._try_take_over(stream.manifest.spec.data_id)

    async def _try_take_over(self, data_id: str) -> None:
        try:
            spool = await self._pipeline.depot.run(lambda: self._opened_if_unfinished(data_id))
        except SpoolLockedError:
            return  # another process was quicker
        except SpoolError as error:
            log.warning("%s", error)
            return
        if spool is not None:
            await self.take_over(spool)

    def _opened_if_unfinished(self, data_id: str) -> StreamSpool | None:
        spool = self._spool.open_existing(self._endpoint, data_id)
        history = spool.history
        if spool.pending() or spool.missing or (history.finalizing and not history.ended):
            return spool
        if not spool.remove_if_done():
            spool.close()
        return None

    async def open(self, data_id: str) -> Stream:
        """Take over one stream, finished or not, to go on with it.

        Raises:
            SpoolLockedError: another process holds it. SpoolError: it is not there, or can't be read.
        """
        spool = await self._pipeline.depot.run(lambda: self._spool.open_existing(self._endpoint, data_id))
        return await self.take_over(spool)

    async def take_over(self, spool: StreamSpool) -> Stream:
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
        self._check_on(stream, spool, scrub(spool))
        if spool.history.finalizing:
            self._end(stream)
        return stream

    def _check_on(
        self, stream: Stream, spool: StreamSpool, findings: Iterator[Finding | None], in_s: float = 0.0
    ) -> None:
        # One window a job, queued behind all that waits: a live chunk has the disk after at most a window.
        self._pipeline.depot.submit_later(lambda: self._step(stream, spool, findings), in_s)

    def _step(self, stream: Stream, spool: StreamSpool, findings: Iterator[Finding | None]) -> None:
        if self._pipeline.failure is not None:
            return  # closed: what was not checked stays on disk as it is
        try:
            finding = next(findings)
        except StopIteration:
            return
        if isinstance(finding, Aside):
            stream.ledger.settle(finding.index, "quarantined", finding.reason)
        elif isinstance(finding, SpooledChunk):
            self._hand_on(stream, self._parcel(stream, spool, finding))
        self._check_on(stream, spool, findings, AGAIN_S if isinstance(finding, DiskRefused) else 0.0)

    def _hand_on(self, stream: Stream, parcel: Parcel) -> None:
        def offer() -> None:
            if not stream.ledger.is_settled(parcel.index):  # purged for its age meanwhile
                self._pipeline.deliver_recovered([parcel])

        with suppress(RuntimeError):  # the loop was closed: the next process delivers it
            self._loop.call_soon_threadsafe(offer)

    def _parcel(self, stream: Stream, spool: StreamSpool, chunk: SpooledChunk) -> Parcel:
        head = chunk.head
        return Parcel(
            spec=stream.spec,
            index=chunk.index,
            dims=head.dims,
            dtype=head.dtype,
            stamp=head.stamp,
            nbytes=head.nbytes,
            crc32c=head.crc32c,
            body=self._pipeline.keeper.on_disk(spool, chunk.index),
            durable=True,
            recovered=True,
        )
