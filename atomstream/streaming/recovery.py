"""What earlier processes left in the spool: delivered, ended where it was being finalized, and said so."""

from __future__ import annotations

import logging
from collections.abc import Callable

from atomstream.errors import RecordCorruptError, SpoolError, SpoolLockedError
from atomstream.pipeline.parcel import Parcel
from atomstream.pipeline.pipeline import Pipeline
from atomstream.pipeline.stream import Stream
from atomstream.spool import Spool, SpooledChunk, StreamSpool

log = logging.getLogger("atomstream.spool")


class Recovery:
    """Opens streams of the spool in the pipeline; all disk work is done in the depot's thread.

    ``end(stream)`` is called for a recovered stream that was being finalized.
    """

    def __init__(
        self, pipeline: Pipeline, spool: Spool, endpoint: str, end: Callable[[Stream], None]
    ) -> None:
        self._pipeline = pipeline
        self._spool = spool
        self._endpoint = endpoint
        self._end = end

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
        """Put the records of an opened folder on their way."""
        heads = await self._pipeline.depot.run(lambda: _heads(spool))
        stream = self._pipeline.recover(spool)
        for index, reason in heads.damaged:
            stream.ledger.settle(index, "quarantined", reason)
        self._pipeline.deliver_recovered([self._parcel(stream, spool, chunk) for chunk in heads.whole])
        log.warning(
            "Stream %s (%s) was left by an earlier process: %d chunks are on their way%s.",
            stream.spec.data_id,
            stream.spec.name,
            len(heads.whole),
            f", {len(spool.missing)} were only in its memory and are lost" if spool.missing else "",
        )
        if spool.history.finalizing:
            self._end(stream)
        return stream

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


class _Heads:
    """The records of a stream: those whose header is whole, and those set aside."""

    def __init__(self) -> None:
        self.whole: list[SpooledChunk] = []
        self.damaged: list[tuple[int, str]] = []


def _heads(spool: StreamSpool) -> _Heads:
    heads = _Heads()
    for index in spool.pending():
        try:
            heads.whole.append(spool.chunk(index))
        except RecordCorruptError as error:
            log.error("%s", error)
            spool.quarantine(index, str(error))
            heads.damaged.append((index, str(error)))
    return heads
