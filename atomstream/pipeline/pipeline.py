"""The path of a chunk, in order: gate -> encoder -> uploader; this file alone knows it.

A chunk's memory has one owner at a time: the intake until it is accepted, the encoder's job until it is a
shard, the parcel until its receipt. Nothing goes back a stage: what is refused stays where it is and is
retried there, its permit keeps the gate closed, and ``push`` feels that as back-pressure.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable

from atomstream.config import ClientSettings
from atomstream.errors import StreamGoneError, UnknownStreamError
from atomstream.pipeline.buffers import BufferPool
from atomstream.pipeline.encoder import Encoder, Job
from atomstream.pipeline.filler import Filler
from atomstream.pipeline.gate import Gate
from atomstream.pipeline.intake import Intake
from atomstream.pipeline.meter import Meter
from atomstream.pipeline.parcel import Courier, Parcel
from atomstream.pipeline.stream import Stream
from atomstream.pipeline.uploader import Uploader
from atomstream.records import Piece, Receipt, Shard, StreamSpec

log = logging.getLogger("atomstream.pipeline")


class Pipeline:
    """All streams of one streamer share its stages. Made and closed on one loop, which owns the uploader.

    ``failure`` is the first thing that should not have happened; every verb raises it from then on.
    """

    def __init__(self, settings: ClientSettings, courier: Courier) -> None:
        self.settings = settings
        self.failure: BaseException | None = None
        self.meter = Meter(time.perf_counter)
        self.streams: dict[str, Stream] = {}
        self.fillers: dict[str, Filler] = {}
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self.gate = Gate(settings.buffer_bytes)
        self.pool = BufferPool(self.gate)
        self.encoder = Encoder(settings.encoder_threads, settings.compression_level, self._encoded)
        self.uploader = Uploader(courier, self, settings.upload_concurrency)
        self.intake = Intake(settings, self.gate, self.pool, self.encoder, self._drop_oldest)

    def open(self, spec: StreamSpec) -> Stream:
        """Add a stream."""
        stream = Stream(spec)
        self.gate.open(spec.data_id)
        self.streams[spec.data_id] = stream
        self.fillers[spec.data_id] = Filler(stream, self.gate, self.pool, self.encoder)
        return stream

    def stream(self, data_id: str) -> Stream:
        """The stream of that id, in working order.

        Raises:
            UnknownStreamError: it was not initialized here. StreamGoneError: the server lost it. Else the
            pipeline's first failure, itself.
        """
        if self.failure is not None:
            raise self.failure
        stream = self.streams.get(data_id)
        if stream is None:
            raise UnknownStreamError(
                f"No stream {data_id!r} here: use the data_id that initialize() of this streamer returned.",
                data_id=data_id,
            )
        return stream

    def retire(self, stream: Stream) -> None:
        """The stream has ended: its share of the gate goes to the others."""
        self.gate.close(stream.spec.data_id)

    async def close(self) -> None:
        """Stop all stages; what is still pending stays undelivered."""
        await self.uploader.close()
        await asyncio.to_thread(self.encoder.stop)
        self.intake.close()
        self.pool.clear()

    # -- encoder -> uploader ------------------------------------------------------------------------------

    def _encoded(self, job: Job, outcome: Shard | BaseException) -> None:
        """In an encoder thread: the raw frames' memory goes back, the shard moves on."""
        if job.buffer is not None:
            self.pool.give(job.buffer)
        stream = self.streams[job.chunk.data_id]
        if not isinstance(outcome, Shard):
            self._lose(stream, job, outcome)
            return
        job.permit.shrink(outcome.nbytes)
        self.meter.encoded(outcome)
        stream.permits[outcome.index] = job.permit
        stream.ledger.encoded(outcome.index, outcome.digest)
        self._on_loop(lambda: self.uploader.offer(_parcel(stream.spec, outcome)))

    def _lose(self, stream: Stream, job: Job, error: BaseException) -> None:
        job.permit.release()
        stream.ledger.settle(job.chunk.index, "quarantined", f"it could not be encoded: {error!r}")
        self.broken(error)

    def _on_loop(self, call: Callable[[], None]) -> None:
        # The loop may have been closed by an application that never closed its streamer.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)

    def _drop_oldest(self, stream: Stream) -> bool:
        """Give up the oldest chunk that is not yet being encoded; where there is none, the oldest encoded one
        that is not on its way (DECISIONS leaves that case open; without it an outage would stop the camera).
        """
        reason = "the oldest made room (on_full='drop_oldest')"
        job = self.encoder.take_back_lowest(stream.spec.data_id)
        if job is not None:
            job.permit.release()
            if job.buffer is not None:
                self.pool.give(job.buffer)
            self.intake.count_drop(stream, job.chunk.index, reason)
            return True
        parcel = self.uploader.drop_lowest(stream.spec.data_id)
        if parcel is not None:
            self.intake.count_drop(stream, parcel.index, reason)
            self._release(stream, parcel)
        return parcel is not None

    # -- what the uploader tells (Outcomes) ---------------------------------------------------------------

    def stored(self, parcel: Parcel, receipt: Receipt) -> None:
        """The server has it: the ledger moves the watermark and the memory is free."""
        stream = self.streams[parcel.spec.data_id]
        self.meter.stored(parcel)
        stream.ledger.settle(receipt.index, "stored")
        self._release(stream, parcel)

    def refused(self, parcel: Parcel, reason: str) -> None:
        """The server will never take it: it is reported, and its frames are given up."""
        stream = self.streams[parcel.spec.data_id]
        log.error("Stream %s: chunk %d was refused: %s", parcel.spec.data_id, parcel.index, reason)
        stream.ledger.settle(parcel.index, "quarantined", reason)
        self._release(stream, parcel)

    def gone(self, parcel: Parcel, others: list[Parcel], error: StreamGoneError) -> None:
        """One error stops the stream; the next caller gets it."""
        stream = self.streams[parcel.spec.data_id]
        if stream.failure is None:
            log.error("%s", error)
            stream.failure = error
        for lost in (parcel, *others):
            stream.ledger.settle(lost.index, "quarantined", str(error))
            self._release(stream, lost)

    def broken(self, error: BaseException) -> None:
        """Remember the first failure and wake everybody who waits."""
        if self.failure is None:
            self.failure = error
            log.critical("atomstream failed: %r", error)
        for stream in list(self.streams.values()):
            stream.ledger.pulse.ring()

    def _release(self, stream: Stream, parcel: Parcel) -> None:
        permit = stream.permits.pop(parcel.index, None)
        if permit is not None:
            permit.release()


def _parcel(spec: StreamSpec, shard: Shard) -> Parcel:
    return Parcel(
        spec=spec,
        index=shard.index,
        dims=shard.dims,
        dtype=shard.dtype,
        stamp=shard.stamp,
        nbytes=shard.nbytes,
        open_body=lambda: _in_memory(shard.pieces),
    )


async def _in_memory(pieces: tuple[Piece, ...]) -> AsyncIterator[Piece]:
    for piece in pieces:
        yield piece
