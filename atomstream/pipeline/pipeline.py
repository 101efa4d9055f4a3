"""The path of a chunk: memory limiter -> encoder -> spool writer -> uploader. Only this file contains the whole path.

The memory of a chunk has one owner at a time. Until the chunk is accepted, this is the admission stage; then the
encoder's job, until the chunk is a shard; then the upload, until the server has confirmed it or its bytes were
evicted to disk.

No stage returns a chunk to the stage before it. A failed step is repeated where it failed. Meanwhile the chunk keeps
its memory permit, so ``push`` has to wait: this is the back-pressure. The uploader does not wait for the disk: an
upload is sent from memory while its record is still being written.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TypeVar

import numpy as np

from atomstream.checks import checked_text
from atomstream.config import ClientSettings
from atomstream.errors import ClosedError, StreamGoneError, UnknownStreamError
from atomstream.index_ranges import IndexSet
from atomstream.pipeline.admission import Admission, PushRequest
from atomstream.pipeline.buffer_pool import BufferPool, FreeList, ScratchPool
from atomstream.pipeline.encoder import EncodeJob, Encoder
from atomstream.pipeline.frame_batcher import Frame, FrameBatcher
from atomstream.pipeline.ledger import Ledger
from atomstream.pipeline.memory_limiter import MemoryLimiter
from atomstream.pipeline.rate_meter import NOTABLE_BACKLOG, PipelineStatistics, ThroughputMeter
from atomstream.pipeline.spool_writer import DiskExecutor, SpoolWriter
from atomstream.pipeline.stream import StreamState
from atomstream.pipeline.upload import MemoryPayload, Upload, UploadTransport
from atomstream.pipeline.uploader import Uploader, UploadObserver
from atomstream.records import Receipt, Shard, StreamSpec
from atomstream.spool import SpooledChunk, StreamSpool
from atomstream.system.log_privacy import get_logger
from atomstream.system.scheduling import wait_for_threads

log = get_logger("atomstream.pipeline")

T = TypeVar("T")


class Pipeline:
    """All streams of one streamer, and the stages that they share.

    Construct and close it on one event loop, which then runs the uploader. Call its methods on that loop, except
    where a method names another thread. ``failure`` is the first unexpected error; from then on :meth:`stream` and all
    waits raise it.
    """

    def __init__(self, settings: ClientSettings, transport: UploadTransport) -> None:
        self.settings = settings
        self.failure: BaseException | None = None
        self._failure_lock = threading.Lock()
        self._streams: dict[str, StreamState] = {}
        self._batchers: dict[str, FrameBatcher] = {}
        self._loop = asyncio.get_running_loop()
        self._meter = ThroughputMeter(time.perf_counter)
        self._limiter = MemoryLimiter(settings.buffer_bytes)
        self._free_list = FreeList(self._limiter, lambda: self._encoder.reserved_bytes)
        self._buffers = BufferPool(self._free_list)
        self._disk = DiskExecutor(self._fail)
        self._spool_writer = SpoolWriter(self._disk, settings.upload_concurrency, self._on_durable)
        self._encoder = Encoder(
            settings.encoder_threads, settings.compression_level, self._on_encoded, self.uplink_lags,
            ScratchPool(self._free_list),
        )  # fmt: skip
        self._uploader = Uploader(
            transport,
            UploadObserver(self._on_stored, self._on_rejected, self._on_stream_gone, self._fail),
            settings.upload_concurrency,
        )
        self._admission = Admission(
            settings,
            self._limiter,
            self._buffers,
            self._encoder,
            self._spool_writer,
            self._on_encoded,
            self._drop_oldest,
            self._evict_one,
        )

    # -- streams ------------------------------------------------------------------------------------------

    @property
    def streams(self) -> list[StreamState]:
        """The streams that are open now, recovered ones included."""
        return list(self._streams.values())

    def find(self, data_id: str) -> StreamState | None:
        """The open stream with this id, or None."""
        return self._streams.get(data_id)

    def stream(self, data_id: str) -> StreamState:
        """The open stream with this id. Any thread may call this.

        Raises:
            UnknownStreamError: there is no such stream here. BaseException: the first failure of the pipeline.
        """
        if self.failure is not None:
            raise self.failure
        stream = self._streams.get(checked_text("data_id", data_id))
        if stream is None:
            raise UnknownStreamError(
                f"No stream {data_id!r} here: use the data_id that initialize() or resume() of this streamer "
                "returned.",
                data_id=data_id,
            )
        return stream

    def open(self, spec: StreamSpec, spool: StreamSpool | None = None) -> StreamState:
        """Add a new stream. ``spool`` is its folder, or None if the disk could not provide one."""
        stream = self._add(spec, spool, recovered=False)
        self._limiter.add_stream(spec.data_id)
        return stream

    def recover(self, spool: StreamSpool) -> StreamState:
        """Add a stream that an earlier process left, with the chunk states of its journal."""
        history = spool.journal_state
        stream = self._add(spool.manifest.spec, spool, recovered=True)
        stream.ledger.restore(history.states, history.digests, history.reasons)
        geometry = spool.manifest.geometry
        if geometry is not None:
            stream.fix_geometry((geometry.height, geometry.width), np.dtype(geometry.dtype))
        if history.finalizing:
            stream.ledger.seal()
        return stream

    def make_live(self, stream: StreamState) -> None:
        """Let a recovered stream take new chunks, with a share of the memory like any other stream."""
        stream.recovered = False
        self._limiter.add_stream(stream.spec.data_id)

    def _add(self, spec: StreamSpec, spool: StreamSpool | None, *, recovered: bool) -> StreamState:
        ledger = Ledger(spec.data_id, lambda index: self._spool_writer.journal_accepted(stream, index))
        stream = StreamState(spec, ledger, spool, recovered)
        self._streams[spec.data_id] = stream
        self._batchers[spec.data_id] = FrameBatcher(stream, self._limiter, self._buffers, self._encoder)
        return stream

    def seal(self, stream: StreamState) -> None:
        """Send the frames gathered so far as a last, short chunk. From now on the stream accepts no frames."""
        self._batchers[stream.spec.data_id].seal()
        stream.ledger.seal()

    def retire(self, stream: StreamState) -> None:
        """Give the memory share of a stream that has ended to the other streams."""
        self._limiter.remove_stream(stream.spec.data_id)

    def release(self, stream: StreamState) -> None:
        """Remove a recovered stream whose chunks are all resolved. Other processes may then use its folder."""
        self._streams.pop(stream.spec.data_id, None)
        self._batchers.pop(stream.spec.data_id, None)
        spool, stream.spool = stream.spool, None
        if spool is not None:
            self._disk.submit(spool.close)

    async def close(self) -> None:
        """Stop all stages. Pending chunks stay in the spool; those in memory only are lost. Ends all waits."""
        if self.failure is None:
            self.failure = ClosedError("The streamer was closed.")
        self._limiter.close()
        for stream in self._streams.values():
            stream.ledger.changed.notify_all()
        await self._uploader.close()
        await wait_for_threads(self._encoder.stop())
        self._disk.submit(self._free_list.close)  # freeing its memory takes 10 ms: not on the event loop
        for stream in self._streams.values():
            if stream.spool is not None:
                self._disk.submit(stream.spool.close)
        await wait_for_threads(self._disk.stop())
        self._admission.close()
        self._spool_writer.close()

    # -- frames in ----------------------------------------------------------------------------------------

    async def push(self, stream: StreamState, request: PushRequest) -> int | None:
        """Accept one chunk (see :meth:`Admission.push`). Returns its index, or None for an equal repeat."""
        return await self._admission.push(stream, request)

    def start_push(self, stream: StreamState, request: PushRequest) -> Future[bool] | None:
        """Begin :meth:`push` without the event loop, from any thread (see :meth:`Admission.start_push`)."""
        return self._admission.start_push(stream, request)

    async def push_frame(self, stream: StreamState, frame: Frame) -> None:
        """Add one frame to the chunk that is being gathered. Waits for memory, or applies ``on_full``."""
        batcher = self._batchers[stream.spec.data_id]
        while not batcher.try_add(frame):
            permit = await self._admission.acquire(stream, batcher.nbytes_needed(frame.frame), filling=True)
            if permit is None:
                self._admission.drop_newest(stream, None)
                batcher.discard_chunk()
            else:
                batcher.add_permit(permit)

    def try_push_frame(self, stream: StreamState, frame: Frame) -> bool:
        """Add one frame without waiting, from any thread; False if there is no memory for a new chunk now."""
        return self._batchers[stream.spec.data_id].try_add(frame)

    def send_gathered(self, stream: StreamState) -> None:
        """Send the frames gathered so far as a short chunk. Any thread may call this."""
        self._batchers[stream.spec.data_id].flush()

    # -- waiting ------------------------------------------------------------------------------------------

    async def flush(self, stream: StreamState) -> None:
        """Wait until every chunk and frame pushed before this call is resolved.

        Raises:
            StreamGoneError: the server has no such stream. BaseException: the pipeline failed.
        """
        self.send_gathered(stream)
        end = stream.ledger.next_index
        await self.wait_for(stream, lambda: stream.ledger.resolved_below(end))
        stream.failure.raise_if_set()

    async def drain(self, stream: StreamState) -> None:
        """Wait until no accepted chunk of the stream is pending.

        Raises:
            BaseException: the first failure of the pipeline.
        """
        await self.wait_for(stream, lambda: stream.ledger.pending == 0)

    async def wait_for(self, stream: StreamState, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds. It is checked after each change of the stream's ledger.

        Raises:
            BaseException: the first failure of the pipeline; waiting longer would be pointless.
        """
        await stream.ledger.changed.wait_for(lambda: condition() or self.failure is not None)
        if self.failure is not None:
            raise self.failure

    # -- numbers ------------------------------------------------------------------------------------------

    def statistics(self) -> PipelineStatistics:
        """The current numbers of all streams together."""
        meter = self._meter
        return PipelineStatistics(
            frames_encoded=meter.frames_encoded,
            frames_stored=meter.frames_stored,
            raw_bytes_encoded=meter.raw_bytes_encoded,
            bytes_encoded=meter.bytes_encoded,
            bytes_stored=meter.bytes_stored,
            rates=meter.rates(),
            memory_used=self._limiter.used,
            memory_limit=self._limiter.limit,
            pushes_waiting=self._limiter.waiting_count,
            encode_backlog=self._encoder.backlog,
            uploads_in_flight=self._uploader.in_flight,
            upload_backlog=self._uploader.backlog,
        )

    def frames_gathered(self, stream: StreamState) -> int:
        """Frames in the chunk that ``push_frame`` is filling."""
        return self._batchers[stream.spec.data_id].frames_held

    def stall_reason(self, stream: StreamState) -> str:
        """Why uploads of the stream are paused; empty if they are not."""
        return self._uploader.stall_reason(stream.spec.data_id)

    def uplink_lags(self) -> bool:
        """True if chunks accumulate because the network is slower than the camera. Any thread may call this."""
        return self._uploader.backlog >= NOTABLE_BACKLOG and self._meter.rates().backlog_grows

    @property
    def upload_failure(self) -> str:
        """Why uploads fail at present, of any stream; empty if they do not."""
        return self._uploader.failure

    @property
    def unwritten_chunks(self) -> int:
        """Chunks that the disk refused to take; their writes are repeated."""
        return self._spool_writer.unwritten

    # -- disk and recovery --------------------------------------------------------------------------------

    async def run_on_disk(self, call: Callable[[], T]) -> T:
        """Run ``call`` in the disk thread, after all disk jobs submitted before; returns its result."""
        return await self._disk.run(call)

    def submit_to_disk(self, job: Callable[[], None], delay_s: float = 0.0) -> None:
        """Run ``job`` in the disk thread after ``delay_s`` seconds. Dropped if the pipeline closes before."""
        self._disk.submit_later(job, delay_s)

    def deliver_recovered(self, stream: StreamState, spool: StreamSpool, chunk: SpooledChunk) -> None:
        """Upload a record of a recovered stream. Any thread may call this.

        Live streams keep at least half of the upload slots.
        """
        upload = Upload(
            stream.spec,
            chunk.header.info,
            self._spool_writer.payload(spool, chunk.index),
            durable=True,
            recovered=True,
            on_sent=self._meter.sent,
        )

        def submit() -> None:
            if not stream.ledger.is_resolved(upload.index):  # it may have been purged for its age meanwhile
                self._uploader.submit(upload)

        self._on_loop(submit)

    def resolve(self, stream: StreamState, missing: Iterable[int], stored: IndexSet) -> None:
        """Resolve chunks that only the memory of an earlier process held.

        Those in ``stored`` reached the server before that process ended; the others count as dropped.
        """
        for index in missing:
            if index not in stored:
                self._admission.count_drop(stream, index, "it was in memory only when its process ended")
            elif stream.ledger.resolve(index, "stored"):
                self._spool_writer.remove_stored(stream, index)

    def merge_remote_state(self, stream: StreamState, stored: IndexSet) -> None:
        """Count chunks that the server has and the journal does not list.

        An earlier process sent them while their journal entries still waited for the disk.
        """
        added = stream.ledger.add_stored(stored)
        if added:
            self._spool_writer.journal_stored(stream, added)
            log.warning(
                "Stream %s: the server has %d chunks that are not in the journal, because the previous process "
                "was killed before it recorded them. The next index is %d.",
                stream.spec.data_id,
                len(added),
                stream.ledger.next_index,
            )

    def mark_purged(self, stream: StreamState, indices: list[int]) -> None:
        """Mark chunks as dropped whose records were removed from disk because of their age."""
        for upload in self._uploader.remove(stream.spec.data_id, indices):
            self._spool_writer.release_memory(upload)
        for index in indices:
            stream.ledger.resolve(index, "purged", "older than spool_retention_s")
        log.warning(
            "Stream %s: %d chunks exceeded the age limit and were purged.", stream.spec.data_id, len(indices)
        )

    # -- encoder -> spool writer, uploader ----------------------------------------------------------------

    def _on_encoded(self, job: EncodeJob, result: Shard | BaseException) -> None:
        """Pass the result of an encoder on. Runs in an encoder thread.

        An unexpected error must not end that thread silently: then waits would never end.
        """
        try:
            self._pass_on(job, result)
        except BaseException as error:
            self._encoding_failed(self._streams[job.chunk.data_id], job, error)

    def _pass_on(self, job: EncodeJob, result: Shard | BaseException) -> None:
        """Release the memory of the raw frames and start the upload and the record of the shard."""
        job.permit.shrink(result.info.nbytes if isinstance(result, Shard) else 0)
        if job.buffer is not None:
            self._buffers.release(job.buffer)
        stream = self._streams[job.chunk.data_id]
        if not isinstance(result, Shard):
            self._encoding_failed(stream, job, result)
            return
        self._meter.encoded(result)
        stream.ledger.set_digest(result.info.index, result.info.digest)
        stream.ledger.spans.note(result.info.index, "encoded", nbytes=result.info.nbytes)
        upload = Upload(
            stream.spec, result.info, MemoryPayload(result.pieces), job.permit, on_sent=self._meter.sent,
            spans=stream.ledger.spans,
        )  # fmt: skip
        self._on_loop(lambda: self._uploader.submit(upload))
        self._spool_writer.write(stream, upload, result)

    def _encoding_failed(self, stream: StreamState, job: EncodeJob, error: BaseException) -> None:
        # Set the failure first and in this thread, not on the loop: a caller that sees the chunk resolved must also
        # see the failure.
        self._fail(error)
        stream.ledger.resolve(job.chunk.index, "quarantined", f"it could not be encoded: {error!r}")

    def _on_durable(self, stream: StreamState, upload: Upload) -> None:
        """The record of an upload is on disk. Runs in the disk thread."""
        stream.ledger.mark_durable(upload.index)
        stream.ledger.spans.note(upload.index, "on disk")
        self._on_loop(lambda: self._allow_eviction(stream, upload))

    def _allow_eviction(self, stream: StreamState, upload: Upload) -> None:
        upload.durable = True
        if self._limiter.waiting_count and upload in self._uploader.evictable():
            self._spool_writer.evict(stream, upload)

    def _on_loop(self, call: Callable[[], None]) -> None:
        # The loop is closed if an application ended without closing its streamer.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)

    # -- making room --------------------------------------------------------------------------------------

    def _drop_oldest(self, stream: StreamState) -> bool:
        """Drop the oldest chunk that no encoder has begun, else the oldest encoded one that is not being sent.

        The second case matters in an outage: without it the camera would have to stop.
        """
        reason = "the oldest made room (on_full='drop_oldest')"
        job = self._encoder.remove_lowest(stream.spec.data_id)
        if job is not None:
            job.permit.release()
            if job.buffer is not None:
                self._buffers.release(job.buffer)
            self._admission.count_drop(stream, job.chunk.index, reason)
            return True
        upload = self._uploader.remove_lowest(stream.spec.data_id)
        if upload is not None:
            self._admission.count_drop(stream, upload.index, reason)
            self._spool_writer.release_memory(upload)
        return upload is not None

    def _evict_one(self, stream: StreamState) -> bool:
        """Free the memory of one chunk that is also on disk: the last one to be sent, of this stream first."""
        uploads = self._uploader.evictable()
        mine = [upload for upload in uploads if upload.spec.data_id == stream.spec.data_id]
        for upload in mine or uploads:
            self._spool_writer.evict(self._streams[upload.spec.data_id], upload)
            return True
        return False

    # -- results of uploads (UploadObserver) --------------------------------------------------------------

    def _on_stored(self, upload: Upload, receipt: Receipt) -> None:
        stream = self._streams[upload.spec.data_id]
        self._meter.stored(upload)
        stream.ledger.resolve(receipt.index, "stored")
        self._spool_writer.remove_stored(stream, receipt.index)
        self._spool_writer.release_memory(upload)

    def _on_rejected(self, upload: Upload, reason: str) -> None:
        stream = self._streams[upload.spec.data_id]
        log.error("Stream %s: chunk %d was refused: %s", upload.spec.data_id, upload.index, reason)
        self._quarantine(stream, upload, reason)

    def _on_stream_gone(self, upload: Upload, others: list[Upload], error: StreamGoneError) -> None:
        stream = self._streams[upload.spec.data_id]
        if stream.failure.set(error):
            log.error("%s", error)
        for lost in (upload, *others):
            self._quarantine(stream, lost, str(error))

    def _quarantine(self, stream: StreamState, upload: Upload, reason: str) -> None:
        stream.ledger.resolve(upload.index, "quarantined", reason)
        self._spool_writer.quarantine(stream, upload, reason)
        self._spool_writer.release_memory(upload)

    def _fail(self, error: BaseException) -> None:
        """Keep the first unexpected error and end all waits. Any thread may call this."""
        with self._failure_lock:
            first = self.failure is None
            if first:
                self.failure = error
        if first:
            log.critical("atomstream failed: %r", error)
        for stream in list(self._streams.values()):
            stream.ledger.changed.notify_all()
