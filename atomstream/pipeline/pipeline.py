"""The path of a chunk, in order: gate -> encoder -> spool -> uploader; this file alone knows it.

A chunk's memory has one owner at a time: the intake until it is accepted, the encoder's job until it is a
shard, the parcel until its receipt (or its eviction to disk). Nothing goes back a stage: what is refused stays
where it is and is retried there, its permit keeps the gate closed, and ``push`` feels that as back-pressure.
The uploader does not wait for the disk: a parcel goes from memory while its record is being written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from atomstream.config import ClientSettings
from atomstream.errors import ClosedError, StreamGoneError, UnknownStreamError
from atomstream.pipeline.admission import Admission
from atomstream.pipeline.buffer_pool import BufferPool, FreeList, ScratchPool
from atomstream.pipeline.encoder import EncodeJob, Encoder
from atomstream.pipeline.frame_batcher import FrameBatcher
from atomstream.pipeline.ledger import Ledger
from atomstream.pipeline.memory_limiter import MemoryLimiter
from atomstream.pipeline.rate_meter import NOTABLE_BACKLOG, ThroughputMeter
from atomstream.pipeline.spool_writer import DiskExecutor, SpoolWriter
from atomstream.pipeline.stream import StreamState
from atomstream.pipeline.upload import MemoryPayload, Upload, UploadTransport
from atomstream.pipeline.uploader import Uploader
from atomstream.records import Receipt, Shard, StreamSpec
from atomstream.spool import StreamSpool
from atomstream.system.scheduling import wait_for_threads

log = logging.getLogger("atomstream.pipeline")


class Pipeline:
    """All streams of one streamer share its stages. Made and closed on one loop, which owns the uploader.

    ``failure`` is the first thing that should not have happened; every verb raises it from then on.
    """

    def __init__(self, settings: ClientSettings, courier: UploadTransport) -> None:
        self.settings = settings
        self.failure: BaseException | None = None
        self._failing = threading.Lock()
        self.meter = ThroughputMeter(time.perf_counter)
        self.streams: dict[str, StreamState] = {}
        self.fillers: dict[str, FrameBatcher] = {}
        self._loop = asyncio.get_running_loop()
        self.gate = MemoryLimiter(settings.buffer_bytes)
        self.spares = FreeList(self.gate, lambda: self.encoder.promised)
        self.pool = BufferPool(self.spares)
        self.depot = DiskExecutor(self.broken)
        self.keeper = SpoolWriter(self.depot, settings.upload_concurrency, self._kept)
        self.encoder = Encoder(
            settings.encoder_threads, settings.compression_level, self._encoded, self.uplink_lags,
            ScratchPool(self.spares),
        )  # fmt: skip
        self.uploader = Uploader(courier, self, settings.upload_concurrency)
        self.intake = Admission(
            settings,
            self.gate,
            self.pool,
            self.encoder,
            self.keeper,
            self._encoded,
            self._drop_oldest,
            self._evict_one,
        )

    def open(self, spec: StreamSpec, spool: StreamSpool | None = None) -> StreamState:
        """Add a new stream; ``spool`` is its folder, None where the disk refused it."""
        stream = self._add(spec, spool, recovered=False)
        self.gate.open(spec.data_id)
        return stream

    def recover(self, spool: StreamSpool) -> StreamState:
        """Add a stream that an earlier process left: its history counts, its records go on their way."""
        history = spool.journal_state
        stream = self._add(spool.manifest.spec, spool, recovered=True)
        stream.ledger.restore(history.states, history.digests, history.reasons)
        geometry = spool.manifest.geometry
        if geometry is not None:
            stream.fix_geometry((geometry.height, geometry.width), np.dtype(geometry.dtype))
        if history.finalizing:
            stream.ledger.seal()
        return stream

    def resolve(self, stream: StreamState, missing: Iterable[int], stored: Sequence[range]) -> None:
        """Settle chunks that were in memory only when their process ended; those in ``stored`` had arrived before."""
        for index in missing:
            if not any(index in one for one in stored):
                self.intake.count_drop(stream, index, "it was in memory only when its process ended")
            elif stream.ledger.settle(index, "stored"):
                self.keeper.forget(stream, index)

    def learn(self, stream: StreamState, stored: Sequence[range]) -> None:
        """Count chunks that the server has and the journal has not: sent while their entries waited for the disk."""
        learnt = stream.ledger.learn(stored)
        if learnt:
            self.keeper.learnt(stream, learnt)
            log.warning(
                "Stream %s: the server has %d chunks that the process before was killed too early to note; the next "
                "index is %d.",
                stream.spec.data_id,
                len(learnt),
                stream.ledger.next_index,
            )

    def deliver_recovered(self, parcels: list[Upload]) -> None:
        """Send a recovered stream's records; live streams keep at least half of the upload slots."""
        for parcel in parcels:
            parcel.on_sent = self.meter.sent
            self.uploader.offer(parcel)

    def _add(self, spec: StreamSpec, spool: StreamSpool | None, *, recovered: bool) -> StreamState:
        ledger = Ledger(spec.data_id, lambda index: self.keeper.accepted(stream, index))
        stream = StreamState(spec, ledger, spool, recovered)
        self.streams[spec.data_id] = stream
        self.fillers[spec.data_id] = FrameBatcher(stream, self.gate, self.pool, self.encoder)
        return stream

    def stream(self, data_id: str) -> StreamState:
        """The stream of that id, in working order.

        Raises:
            UnknownStreamError: it was not initialized here. Else the pipeline's first failure, itself.
        """
        if self.failure is not None:
            raise self.failure
        stream = self.streams.get(data_id)
        if stream is None:
            raise UnknownStreamError(
                f"No stream {data_id!r} here: use the data_id that initialize() or resume() of this streamer "
                "returned.",
                data_id=data_id,
            )
        return stream

    def uplink_lags(self) -> bool:
        """Whether chunks pile up because the network takes fewer than come in; from any thread."""
        return self.uploader.backlog >= NOTABLE_BACKLOG and self.meter.rates().backlog_grows

    def retire(self, stream: StreamState) -> None:
        """The stream has ended: its share of the gate goes to the others."""
        self.gate.close(stream.spec.data_id)

    def let_go(self, stream: StreamState) -> None:
        """Forget a recovered stream whose chunks are settled; its folder is free for others from now on."""
        self.streams.pop(stream.spec.data_id, None)
        self.fillers.pop(stream.spec.data_id, None)
        spool, stream.spool = stream.spool, None
        if spool is not None:
            self.depot.submit(spool.close)

    def purged(self, stream: StreamState, indices: list[int]) -> None:
        """Chunks that grew too old were removed from disk; they are not sent any more."""
        for parcel in self.uploader.take_back(stream.spec.data_id, indices):
            self.keeper.let_go(parcel)
        for index in indices:
            stream.ledger.settle(index, "purged", "older than spool_retention_s")
        log.warning("Stream %s: %d chunks grew too old and were purged.", stream.spec.data_id, len(indices))

    async def close(self) -> None:
        """Stop all stages; what is still pending stays in the spool, or undelivered. Who waits is told."""
        if self.failure is None:
            self.failure = ClosedError("The streamer was closed.")
        self.gate.shut()
        for stream in self.streams.values():
            stream.ledger.pulse.ring()
        await self.uploader.close()
        await wait_for_threads(self.encoder.stop())
        self.depot.submit(self.spares.close)  # to free its memory takes the system 10 ms, not the loop's
        for stream in self.streams.values():
            if stream.spool is not None:
                self.depot.submit(stream.spool.close)
        await wait_for_threads(self.depot.stop())
        self.intake.close()
        self.keeper.close()

    # -- encoder -> spool, uploader -----------------------------------------------------------------------

    def _encoded(self, job: EncodeJob, outcome: Shard | BaseException) -> None:
        """In an encoder thread, which must not die of a mistake in silence: who waits would wait for ever."""
        try:
            self._hand_on(job, outcome)
        except BaseException as error:
            self._lose(self.streams[job.chunk.data_id], job, error)

    def _hand_on(self, job: EncodeJob, outcome: Shard | BaseException) -> None:
        """The raw frames' memory goes back, the shard moves on."""
        job.permit.shrink(outcome.info.nbytes if isinstance(outcome, Shard) else 0)
        if job.buffer is not None:
            self.pool.give(job.buffer)
        stream = self.streams[job.chunk.data_id]
        if not isinstance(outcome, Shard):
            self._lose(stream, job, outcome)
            return
        self.meter.encoded(outcome)
        stream.ledger.encoded(outcome.info.index, outcome.info.digest)
        parcel = _parcel(stream, job, outcome)
        parcel.on_sent = self.meter.sent
        self._on_loop(lambda: self.uploader.offer(parcel))
        self.keeper.keep(stream, parcel, outcome)

    def _lose(self, stream: StreamState, job: EncodeJob, error: BaseException) -> None:
        self.broken(error)  # first, and here, not on the loop: who sees the chunk settled then sees why
        stream.ledger.settle(job.chunk.index, "quarantined", f"it could not be encoded: {error!r}")

    def _kept(self, stream: StreamState, parcel: Upload) -> None:
        """In the depot's thread: the chunk is on disk as well."""
        stream.ledger.mark_durable(parcel.index)
        self._on_loop(lambda: self._may_leave_memory(stream, parcel))

    def _may_leave_memory(self, stream: StreamState, parcel: Upload) -> None:
        parcel.durable = True
        if self.gate.waiting and parcel in self.uploader.evictable():
            self.keeper.evict(stream, parcel)

    def _on_loop(self, call: Callable[[], None]) -> None:
        # The loop may have been closed by an application that never closed its streamer.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)

    def _drop_oldest(self, stream: StreamState) -> bool:
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
            self.keeper.let_go(parcel)
        return parcel is not None

    def _evict_one(self, stream: StreamState) -> bool:
        """Free the memory of one chunk that is on disk as well, of this stream first; the last to go first."""
        parcels = self.uploader.evictable()
        mine = [parcel for parcel in parcels if parcel.spec.data_id == stream.spec.data_id]
        for parcel in mine or parcels:
            self.keeper.evict(self.streams[parcel.spec.data_id], parcel)
            return True
        return False

    # -- what the uploader tells (Outcomes) ---------------------------------------------------------------

    def stored(self, parcel: Upload, receipt: Receipt) -> None:
        """The server has it: the ledger moves the watermark and the memory is free."""
        stream = self.streams[parcel.spec.data_id]
        self.meter.stored(parcel)
        stream.ledger.settle(receipt.index, "stored")
        self.keeper.forget(stream, receipt.index)
        self.keeper.let_go(parcel)

    def refused(self, parcel: Upload, reason: str) -> None:
        """It can't be delivered: it is reported, and kept in the spool's quarantine where there is one."""
        stream = self.streams[parcel.spec.data_id]
        log.error("Stream %s: chunk %d was refused: %s", parcel.spec.data_id, parcel.index, reason)
        self._quarantine(stream, parcel, reason)

    def _quarantine(self, stream: StreamState, parcel: Upload, reason: str) -> None:
        stream.ledger.settle(parcel.index, "quarantined", reason)
        self.keeper.quarantine(stream, parcel, reason)
        self.keeper.let_go(parcel)

    def gone(self, parcel: Upload, others: list[Upload], error: StreamGoneError) -> None:
        """One error stops the stream; the next caller gets it."""
        stream = self.streams[parcel.spec.data_id]
        if stream.failure is None:
            log.error("%s", error)
            stream.failure = error
        for lost in (parcel, *others):
            self._quarantine(stream, lost, str(error))

    def broken(self, error: BaseException) -> None:
        """Remember the first failure and wake everybody who waits; from any thread."""
        with self._failing:
            first = self.failure is None
            if first:
                self.failure = error
        if first:
            log.critical("atomstream failed: %r", error)
        for stream in list(self.streams.values()):
            stream.ledger.pulse.ring()


def _parcel(stream: StreamState, job: EncodeJob, shard: Shard) -> Upload:
    return Upload(
        spec=stream.spec,
        index=shard.info.index,
        dims=shard.info.dims,
        dtype=shard.info.dtype,
        stamp=shard.info.timestamp,
        nbytes=shard.info.nbytes,
        crc32c=shard.info.crc32c,
        body=MemoryPayload(shard.pieces),
        permit=job.permit,
    )
