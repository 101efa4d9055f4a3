"""Admission of pushed chunks: reserve memory (or apply ``on_full``), copy the frames, accept.

Before its acceptance a chunk is recorded nowhere; from then on the ledger lists it. Acceptance happens in the copying
thread right after the copy. So a cancelled ``push`` has either used no index or delivered a whole chunk. See
docs/decisions/0006-push-copies.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import anyio
import numpy as np
import numpy.typing as npt

from atomstream.config import ClientSettings
from atomstream.counted import counted
from atomstream.errors import BufferFullError, ChunkConflictError, ClosedError
from atomstream.pipeline.buffer_pool import BufferPool, as_frames
from atomstream.pipeline.encoder import EncodeJob, Encoder
from atomstream.pipeline.memory_limiter import MemoryLimiter, Permit, Waiter
from atomstream.pipeline.spool_writer import SpoolWriter
from atomstream.pipeline.stream import StreamState
from atomstream.records import Chunk, FrameMeta, Frames, Timestamp
from atomstream.shard import ShardEncoder
from atomstream.system import tracing
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.admission")

T = TypeVar("T")

RECHECK_S: Final = 0.5
"""Seconds after which a waiting push searches for evictable chunks again."""

SHARED_COPY_BYTES: Final = 16 << 20
"""Smaller copies use one thread: waking a second one would take longer than it saves."""


@dataclass(frozen=True, slots=True, eq=False)
class PushRequest:
    """A chunk as the caller passed it. ``index`` None means the stream's next index.

    With ``copy`` False the frames are used in place; the caller must not change them.
    """

    index: int | None
    frames: Frames
    timestamp: Timestamp
    meta: FrameMeta
    copy: bool = True
    parent: Any = field(default_factory=tracing.current)
    """The caller's trace context; None without OpenTelemetry."""


class Admission:
    """The first stage of the pipeline. Its methods run on the loop, except :meth:`start_push` (any thread).

    ``on_encode_failed(job, error)`` handles an accepted chunk that could not be queued for the encoder.
    ``drop_oldest(stream)`` drops the oldest chunk of the stream that may be dropped; ``evict_one(stream)`` frees the
    memory of a chunk that is also on disk. Both return False if there was none.
    """

    def __init__(
        self, settings: ClientSettings, limiter: MemoryLimiter, buffers: BufferPool, encoder: Encoder,
        spool_writer: SpoolWriter, on_encode_failed: Callable[[EncodeJob, BaseException], None],
        drop_oldest: Callable[[StreamState], bool], evict_one: Callable[[StreamState], bool],
    ) -> None:  # fmt: skip
        self._settings = settings
        self._limiter = limiter
        self._spool_writer = spool_writer
        self._drop_oldest = drop_oldest
        self._evict_one = evict_one
        self._copier = ChunkCopier(buffers, encoder, on_encode_failed)

    def close(self) -> None:
        """End the copying threads. Waits for them."""
        self._copier.close()

    # -- pushing ------------------------------------------------------------------------------------------

    async def push(self, stream: StreamState, request: PushRequest) -> int | None:
        """Accept one chunk. Returns its index, or None if the index was pushed before with equal frames.

        Raises:
            BufferFullError: no memory, by ``on_full`` or ``full_timeout_s``.
            ChunkConflictError: the index was pushed before with other frames.
            StreamFinalizedError: the stream accepts no more chunks.
        """
        if request.index is not None and stream.ledger.contains(request.index):
            await self._compare(stream, request.index, request.frames)
            return None
        nbytes = stream.memory_needed(len(request.frames), request.frames[0].nbytes, self._limiter.limit)
        permit = await self.acquire(stream, nbytes)
        if permit is None:
            return self.drop_newest(stream, request.index)
        index = await self._copier.run(stream, request, permit)
        if index is None and request.index is not None:
            # Another push of the same index was accepted while this one waited or copied.
            await self._compare(stream, request.index, request.frames)
        if index is not None and self._settings.durability == "disk":
            await stream.ledger.changed.wait_for(lambda: stream.ledger.is_safe(index))
        return index

    def start_push(self, stream: StreamState, request: PushRequest) -> Future[bool] | None:
        """Begin :meth:`push` of a new chunk without the loop, from any thread. The future is True once it is accepted.

        The future is False if the push would have to wait, or if the index was accepted meanwhile. In these cases,
        and if this method returns None, call :meth:`push`. Errors are those of :meth:`push`. The future can't be
        cancelled: what has begun continues.
        """
        if (
            self._settings.durability != "memory"
            or request.index is None
            or stream.ledger.contains(request.index)
        ):
            return None
        nbytes = stream.memory_needed(len(request.frames), request.frames[0].nbytes, self._limiter.limit)
        if not self._limiter.has_room(stream.spec.data_id, nbytes):
            return None
        accepted: Future[bool] = Future()
        accepted.set_running_or_notify_cancel()  # from now on it can't be cancelled
        try:
            self._copier.submit(lambda: self._run_started(stream, request, nbytes, accepted))
        except RuntimeError:  # closed meanwhile: push raises the right error
            return None
        return accepted

    def _run_started(
        self, stream: StreamState, request: PushRequest, nbytes: int, accepted: Future[bool]
    ) -> None:
        try:
            permit = self._limiter.try_acquire(stream.spec.data_id, nbytes)
            if permit is None:
                accepted.set_result(False)
            else:
                self._copier.copy_and_accept(
                    stream, request, permit, lambda index: accepted.set_result(index is not None)
                )
        except BaseException as error:
            if accepted.done():
                raise
            accepted.set_exception(error)

    async def _compare(self, stream: StreamState, index: int, frames: Frames) -> None:
        """Check that ``frames`` equal the frames that were pushed with ``index`` before.

        Raises:
            ChunkConflictError: they differ.
        """
        get = stream.ledger.get
        await stream.ledger.changed.wait_for(lambda: _can_compare(get(index)))
        record = get(index)
        if record is None or record.digest is None:
            log.warning(
                "Stream %s: chunk %d was resolved before; this push changes nothing.",
                stream.spec.data_id,
                index,
            )
            return
        if await self._copier.run_in_thread(lambda: ShardEncoder().digest(frames)) != record.digest:
            raise ChunkConflictError(
                f"Chunk {index} of stream {stream.spec.data_id} was pushed before with other frames. The first "
                "ones stay; these were not accepted. Use the next index, or run(), which counts the indices.",
                data_id=stream.spec.data_id,
                index=index,
            )

    # -- memory -------------------------------------------------------------------------------------------

    async def acquire(self, stream: StreamState, nbytes: int, *, filling: bool = False) -> Permit | None:
        """A permit for ``nbytes``; None if this chunk is to be dropped (by ``on_full``).

        Raises:
            BufferFullError: no memory, by ``on_full`` or ``full_timeout_s``.
        """
        name = stream.spec.data_id
        permit = self._limiter.try_acquire(name, nbytes, filling=filling)
        while permit is None and self._evict_one(stream):
            permit = self._limiter.try_acquire(name, nbytes, filling=filling)
        if permit is not None or self._settings.on_full == "drop_newest":
            return permit
        if self._settings.on_full == "raise":
            raise self._full(stream, "on_full='raise'")
        if self._settings.on_full == "drop_oldest":
            return self._acquire_by_dropping(stream, nbytes, filling)
        return await self._wait(stream, nbytes, filling)

    def _acquire_by_dropping(self, stream: StreamState, nbytes: int, filling: bool) -> Permit | None:
        while self._drop_oldest(stream):
            permit = self._limiter.try_acquire(stream.spec.data_id, nbytes, filling=filling)
            if permit is not None:
                return permit
        return None

    async def _wait(self, stream: StreamState, nbytes: int, filling: bool) -> Permit:
        loop = asyncio.get_running_loop()
        granted = asyncio.Event()
        waiter = self._limiter.enqueue(
            stream.spec.data_id, nbytes, lambda: _call_on_loop(loop, granted.set), filling=filling
        )
        try:
            with anyio.fail_after(self._settings.full_timeout_s):
                await self._wait_for_grant(granted, stream)
        except TimeoutError:
            self._limiter.cancel(waiter)
            raise self._full(stream, f"full_timeout_s={self._settings.full_timeout_s:g} ran out") from None
        except BaseException:
            self._limiter.cancel(waiter)
            raise
        return _permit_of(waiter)

    async def _wait_for_grant(self, granted: asyncio.Event, stream: StreamState) -> None:
        # An upload whose attempt has failed may be evicted, but nothing notifies this task: it polls now and then.
        while not granted.is_set():
            while self._evict_one(stream):
                await asyncio.sleep(0)  # the grant arrives through the loop
                if granted.is_set():
                    return
            with anyio.move_on_after(RECHECK_S):
                await granted.wait()

    def _full(self, stream: StreamState, why: str) -> BufferFullError:
        return BufferFullError(
            f"No room for another chunk of stream {stream.spec.data_id} ({why}): "
            f"{self._limiter.used / 1e6:.0f} of {self._limiter.limit / 1e6:.0f} MB are held, "
            f"{counted(stream.ledger.pending, 'chunk waits', 'chunks wait')} for the server. "
            "This chunk was not accepted and used no index; "
            "what was accepted is safe.",
            data_id=stream.spec.data_id,
        )

    # -- dropping -----------------------------------------------------------------------------------------

    def drop_newest(self, stream: StreamState, index: int | None) -> int | None:
        """Count a chunk for which there is no memory as accepted and dropped. Returns its index, None if known."""
        chosen = stream.ledger.accept(index)
        if chosen is not None:
            self.count_drop(stream, chosen, f"no room (on_full={self._settings.on_full!r})")
        return chosen

    def count_drop(self, stream: StreamState, index: int, reason: str) -> None:
        """Resolve ``index`` as dropped, journal and log it."""
        if stream.ledger.resolve(index, "dropped", reason):
            self._spool_writer.discard(stream, index, "dropped", reason)
            log.warning("Stream %s: chunk %d was dropped: %s.", stream.spec.data_id, index, reason)


def _permit_of(waiter: Waiter) -> Permit:
    if waiter.permit is None:
        raise ClosedError(
            "The streamer was closed while this push waited for room; the chunk was not accepted."
        )
    return waiter.permit


def _can_compare(record: object) -> bool:
    state, digest = getattr(record, "state", "dropped"), getattr(record, "digest", None)
    return digest is not None or state != "pending"


class ChunkCopier:
    """Two threads that copy and accept chunks which have a permit. The permit moves on with the chunk.

    ``on_encode_failed(job, error)`` handles a chunk that was accepted but could not be queued for the encoder.
    """

    def __init__(
        self,
        buffers: BufferPool,
        encoder: Encoder,
        on_encode_failed: Callable[[EncodeJob, BaseException], None],
    ) -> None:
        self._buffers = buffers
        self._encoder = encoder
        self._on_encode_failed = on_encode_failed
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="atomstream-copy")
        # Start both threads here. A thread inherits priority and cores of its creator, which would otherwise be a
        # camera's thread.
        both_started = threading.Barrier(2)
        for _ in range(2):
            self._threads.submit(both_started.wait)

    def close(self) -> None:
        """End the threads. Waits for them."""
        self._threads.shutdown(wait=True)

    def submit(self, work: Callable[[], None]) -> None:
        """Run ``work`` in a copying thread.

        Raises:
            RuntimeError: the copier is closed.
        """
        self._threads.submit(work)

    def copy_and_accept(
        self,
        stream: StreamState,
        request: PushRequest,
        permit: Permit,
        on_accepted: Callable[[int | None], None],
    ) -> None:
        """Copy, accept, queue for the encoder, report the index, wake the encoder. Call this in a copying thread.

        The order matters: once the encoders use all cores, a caller that waits for the index would wait milliseconds
        longer. ``on_accepted`` gets None if the index was accepted before.
        """
        frames, buffer = request.frames, None
        try:
            if request.copy or not frames.flags.c_contiguous:
                buffer = self._buffers.acquire(frames.nbytes)
                target = as_frames(buffer, frames.shape, frames.dtype.newbyteorder("="))
                copy_together(target, frames, self._threads)
                frames = target
            stream.fix_geometry(frames.shape[1:], frames.dtype.newbyteorder("="))
            index = stream.ledger.accept(request.index)
        except BaseException:
            self._release(permit, buffer)
            raise
        if index is None:
            self._release(permit, buffer)
            on_accepted(None)
            return
        chunk = Chunk(stream.spec.data_id, index, frames, request.timestamp, request.meta)
        stream.begin_span(chunk, request.parent)
        job = EncodeJob(chunk, permit, buffer, with_meta=stream.spec.announced)
        self._enqueue(job, lambda: on_accepted(index))

    def _enqueue(self, job: EncodeJob, on_accepted: Callable[[], None]) -> None:
        try:
            self._encoder.enqueue(
                job
            )  # before the caller may push the next chunk, which may have to drop this one
        except BaseException as error:
            self._on_encode_failed(job, error)
            raise
        on_accepted()
        self._encoder.wake_threads()

    def _release(self, permit: Permit, buffer: np.ndarray | None) -> None:
        permit.release()
        if buffer is not None:
            self._buffers.release(buffer)

    async def run(self, stream: StreamState, request: PushRequest, permit: Permit) -> int | None:
        """:meth:`copy_and_accept` in a copying thread. A cancellation takes effect only after it has finished."""
        loop = asyncio.get_running_loop()
        accepted: asyncio.Future[int | None] = loop.create_future()

        def work() -> None:
            try:
                self.copy_and_accept(
                    stream,
                    request,
                    permit,
                    lambda index: _call_on_loop(loop, lambda: accepted.set_result(index)),
                )
            except BaseException as error:
                failure = (
                    error  # Python deletes the name "error" after the except clause, before the loop uses it
                )
                _call_on_loop(loop, lambda: None if accepted.done() else accepted.set_exception(failure))

        self.submit(work)
        return await _uncancelled(accepted)

    async def run_in_thread(self, work: Callable[[], T]) -> T:
        """Run ``work`` in a copying thread. A cancellation takes effect only after it has finished."""
        return await _uncancelled(asyncio.get_running_loop().run_in_executor(self._threads, work))


async def _uncancelled(future: asyncio.Future[T]) -> T:
    """The result of ``future``. A cancellation takes effect only after the future is done."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with contextlib.suppress(asyncio.CancelledError), anyio.CancelScope(shield=True):
                await asyncio.wait([future])
        raise


def _call_on_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Run ``call`` on the loop. If the loop was closed, no task waits any more and nothing is called."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call)


def copy_together(target: npt.NDArray[Any], source: npt.NDArray[Any], helpers: Executor) -> None:
    """Copy ``source`` (N, ...) to ``target`` of the same shape. A second thread copies one half if it is free.

    This halves the time that ``push`` takes. It never waits for a helper that has not started. Halves and not smaller
    parts: while another Python thread is busy, each numpy copy waits up to one switch interval (5 ms) for the GIL.
    """
    half = len(source) // 2
    if source.nbytes < SHARED_COPY_BYTES or not half:
        np.copyto(target, source)
        return
    parts = deque([slice(0, half), slice(half, len(source))])

    def work() -> None:
        while parts:
            try:
                part = parts.popleft()
            except IndexError:  # the other thread took the last part
                return
            np.copyto(target[part], source[part])

    helper = _submit(helpers, work)
    try:
        work()
    finally:  # the helper may still read the caller's array, which may change after this function has returned
        if helper is not None and not helper.cancel():
            helper.result()


def _submit(helpers: Executor, work: Any) -> Future[None] | None:
    try:
        return helpers.submit(work)
    except RuntimeError:  # close() was called during this copy
        return None
