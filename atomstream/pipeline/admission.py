"""How a pushed chunk gets in: wait at the gate, or do what ``on_full`` says, then :mod:`land <.landing>`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import anyio
import numpy as np
import numpy.typing as npt

from atomstream.config import ClientSettings
from atomstream.errors import BufferFullError, ChunkConflictError, ClosedError
from atomstream.pipeline.buffer_pool import BufferPool, as_frames
from atomstream.pipeline.encoder import EncodeJob, Encoder
from atomstream.pipeline.memory_limiter import MemoryLimiter, Permit, Waiter
from atomstream.pipeline.spool_writer import SpoolWriter
from atomstream.pipeline.stream import StreamState
from atomstream.records import Chunk, FrameMeta, Frames, Timestamp
from atomstream.shard import ShardEncoder

# One copy of a chunk, by two threads where a second one is free: it halves the time that ``push`` holds its caller.
#
# In halves and not finer: beside a busy Python thread each numpy copy waits up to a switch interval (5 ms) for the GIL
# to come back (DECISIONS, "push").

SHARED_BYTES: Final = 16 << 20
"""Below this waking a second thread takes longer than it saves."""


def copy_together(target: npt.NDArray[Any], source: npt.NDArray[Any], helpers: Executor) -> None:
    """Copy ``source`` (N, ...) into ``target`` of its shape; a thread of ``helpers`` takes a half if it comes in time.

    Never waits for a helper that has not begun.
    """
    half = len(source) // 2
    if source.nbytes < SHARED_BYTES or not half:
        np.copyto(target, source)
        return
    left = deque([slice(0, half), slice(half, len(source))])

    def work() -> None:
        while left:
            try:
                part = left.popleft()
            except IndexError:  # the other thread took the last one
                return
            np.copyto(target[part], source[part])

    helper = _asked(helpers, work)
    try:
        work()
    finally:  # it may be in the middle of its half, and the caller's array must not change under it
        if helper is not None and not helper.cancel():
            helper.result()


def _asked(helpers: Executor, work: Any) -> Future[None] | None:
    try:
        return helpers.submit(work)
    except RuntimeError:  # shut down meanwhile, by a close() beside this copy
        return None


# A chunk lands: copied once, accepted, told to its caller, handed to the encoder. In two threads of its own.
#
# Before its acceptance a chunk leaves no trace; from then on it is the ledger's. Both happen in one thread right
# after the copy, so a cancelled ``push`` either used no index or left a whole chunk behind (promise P21).

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class PushRequest:
    """A chunk as the caller brings it; ``index`` None means the stream's next one."""

    index: int | None
    frames: Frames
    stamp: Timestamp
    meta: FrameMeta
    copy: bool = True


class ChunkCopier:
    """Where chunks that have a permit come in; the permit goes on with the chunk, or is given back.

    ``failed(job, error)`` takes over a chunk that was accepted but could not be queued.
    """

    def __init__(
        self, pool: BufferPool, encoder: Encoder, failed: Callable[[EncodeJob, BaseException], None]
    ) -> None:
        self._pool = pool
        self._encoder = encoder
        self._failed = failed
        self._copiers = ThreadPoolExecutor(2, thread_name_prefix="atomstream-copy")
        # Both start here: else in a camera's thread, whose priority and cores they would have for ever.
        together = threading.Barrier(2)
        for _ in range(2):
            self._copiers.submit(together.wait)

    def close(self) -> None:
        """Let the copying threads end."""
        self._copiers.shutdown(wait=True)

    def begin(self, work: Callable[[], None]) -> None:
        """Do ``work`` in a copying thread.

        Raises:
            RuntimeError: closed meanwhile.
        """
        self._copiers.submit(work)

    def land(
        self, stream: StreamState, offer: PushRequest, permit: Permit, tell: Callable[[int | None], None]
    ) -> None:
        """In a thread: copy, accept, queue for the encoder, tell the caller, wake the encoder.

        In this order: once encoders are at work on all cores, who was waiting for this waits milliseconds more.
        """
        frames, buffer = offer.frames, None
        try:
            if offer.copy or not frames.flags.c_contiguous:
                buffer = self._pool.take(frames.nbytes)
                target = as_frames(buffer, frames.shape, frames.dtype.newbyteorder("="))
                copy_together(target, frames, self._copiers)
                frames = target
            stream.fix_geometry(frames.shape[1:], frames.dtype.newbyteorder("="))
            index = stream.ledger.accept(offer.index)
        except BaseException:
            self._give_back(permit, buffer)
            raise
        if index is None:
            self._give_back(permit, buffer)
            tell(None)
            return
        chunk = Chunk(stream.spec.data_id, index, frames, offer.stamp, offer.meta)
        self._hand_on(EncodeJob(chunk, permit, buffer, with_meta=stream.spec.announced), lambda: tell(index))

    def _hand_on(self, job: EncodeJob, tell: Callable[[], None]) -> None:
        try:
            self._encoder.queue(job)  # before its caller may push more, which may have to drop it
        except BaseException as error:
            self._failed(job, error)
            raise
        tell()
        self._encoder.wake()

    async def landed(self, stream: StreamState, offer: PushRequest, permit: Permit) -> int | None:
        """Land in a copying thread; a cancellation arrives only once that has told what became of the chunk."""
        loop = asyncio.get_running_loop()
        told: asyncio.Future[int | None] = loop.create_future()

        def work() -> None:
            try:
                self.land(stream, offer, permit, lambda index: soon(loop, lambda: told.set_result(index)))
            except BaseException as error:
                failure = error  # the name in the clause ends with it, before the loop gets there
                soon(loop, lambda: None if told.done() else told.set_exception(failure))

        self.begin(work)
        return await _shielded(told)

    def _give_back(self, permit: Permit, buffer: np.ndarray | None) -> None:
        permit.release()
        if buffer is not None:
            self._pool.give(buffer)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run ``work`` in a copying thread; a cancellation arrives only after it has ended."""
        return await _shielded(asyncio.get_running_loop().run_in_executor(self._copiers, work))


async def _shielded(future: asyncio.Future[T]) -> T:
    """The future's result; a cancellation arrives only after it is done."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with contextlib.suppress(asyncio.CancelledError), anyio.CancelScope(shield=True):
                await asyncio.wait([future])
        raise


def soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Do ``call`` in the loop; never, where that was closed and nobody waits on it any more."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call)


log = logging.getLogger("atomstream.intake")

LOOK_AGAIN_S: Final = 0.5


class Admission:
    """The front half of the pipeline; its verbs run on the loop but for :meth:`start_push`, which any thread may call.

    ``failed(job, error)`` takes over an accepted chunk that could not be queued for the encoder,
    ``drop_oldest(stream)`` gives up the stream's oldest chunk that may be and says whether there was one;
    ``evict_one(stream)`` frees the memory of a chunk that is on disk as well, and says so too.
    """

    def __init__(
        self, settings: ClientSettings, gate: MemoryLimiter, pool: BufferPool, encoder: Encoder,
        keeper: SpoolWriter, failed: Callable[[EncodeJob, BaseException], None],
        drop_oldest: Callable[[StreamState], bool], evict_one: Callable[[StreamState], bool],
    ) -> None:  # fmt: skip
        self._settings = settings
        self._gate = gate
        self._keeper = keeper
        self._drop_oldest = drop_oldest
        self._evict_one = evict_one
        self._landing = ChunkCopier(pool, encoder, failed)

    def close(self) -> None:
        """Let the copying threads end."""
        self._landing.close()

    async def push(self, stream: StreamState, offer: PushRequest) -> int | None:
        """Take one chunk in; its index, or None where it was known already and is equal.

        Raises:
            BufferFullError, ChunkConflictError, StreamFinalizedError: see their docstrings.
        """
        if offer.index is not None and stream.ledger.knows(offer.index):
            await self._compare(stream, offer.index, offer.frames)
            return None
        nbytes = stream.charge(len(offer.frames), offer.frames[0].nbytes, self._gate.limit)
        permit = await self.enter(stream, nbytes)
        if permit is None:
            return self.refuse(stream, offer.index)
        index = await self._landing.landed(stream, offer, permit)
        if index is None and offer.index is not None:
            # Another push of the same index was accepted while this one waited or copied.
            await self._compare(stream, offer.index, offer.frames)
        if index is not None and self._settings.durability == "disk":
            await stream.ledger.pulse.until(lambda: stream.ledger.is_safe(index))
        return index

    def start_push(self, stream: StreamState, offer: PushRequest) -> Future[bool] | None:
        """Begin :meth:`push` of a new chunk without the loop, from any thread: whether it was taken.

        False where it would have had to wait, or its index became known meanwhile: then ask :meth:`push`, as where
        this returns None. Errors as there. What was begun goes on, whatever becomes of its future.
        """
        if self._settings.durability != "memory" or offer.index is None or stream.ledger.knows(offer.index):
            return None
        nbytes = stream.charge(len(offer.frames), offer.frames[0].nbytes, self._gate.limit)
        if not self._gate.has_room(stream.spec.data_id, nbytes):
            return None
        taken: Future[bool] = Future()
        taken.set_running_or_notify_cancel()  # from here on nobody can take it back
        try:
            self._landing.begin(lambda: self._take(stream, offer, nbytes, taken))
        except RuntimeError:  # shut down meanwhile: push says what is to be said
            return None
        return taken

    def _take(self, stream: StreamState, offer: PushRequest, nbytes: int, taken: Future[bool]) -> None:
        try:
            permit = self._gate.try_enter(stream.spec.data_id, nbytes)
            if permit is None:
                taken.set_result(False)
            else:
                self._landing.land(stream, offer, permit, lambda index: taken.set_result(index is not None))
        except BaseException as error:
            if taken.done():
                raise
            taken.set_exception(error)

    async def enter(self, stream: StreamState, nbytes: int, *, filling: bool = False) -> Permit | None:
        """A permit for ``nbytes``; None where the policy is to drop the newest.

        Raises:
            BufferFullError: by policy, or because ``full_timeout_s`` ran out.
        """
        name = stream.spec.data_id
        permit = self._gate.try_enter(name, nbytes, filling=filling)
        while permit is None and self._evict_one(stream):
            permit = self._gate.try_enter(name, nbytes, filling=filling)
        if permit is not None or self._settings.on_full == "drop_newest":
            return permit
        if self._settings.on_full == "raise":
            raise self._full(stream, "on_full='raise'")
        if self._settings.on_full == "drop_oldest":
            return self._enter_by_dropping(stream, nbytes, filling)
        return await self._wait(stream, nbytes, filling)

    def _enter_by_dropping(self, stream: StreamState, nbytes: int, filling: bool) -> Permit | None:
        while self._drop_oldest(stream):
            permit = self._gate.try_enter(stream.spec.data_id, nbytes, filling=filling)
            if permit is not None:
                return permit
        return None

    async def _wait(self, stream: StreamState, nbytes: int, filling: bool) -> Permit:
        loop = asyncio.get_running_loop()
        granted = asyncio.Event()
        waiter = self._gate.queue(
            stream.spec.data_id, nbytes, lambda: soon(loop, granted.set), filling=filling
        )
        try:
            with anyio.fail_after(self._settings.full_timeout_s):
                await self._granted(granted, stream)
        except TimeoutError:
            self._gate.leave(waiter)
            raise self._full(stream, f"full_timeout_s={self._settings.full_timeout_s:g} ran out") from None
        except BaseException:
            self._gate.leave(waiter)
            raise
        return _granted(waiter)

    async def _granted(self, granted: asyncio.Event, stream: StreamState) -> None:
        # What comes back from a failed attempt may be evicted then, and nobody says so: looked at now and then.
        while not granted.is_set():
            while self._evict_one(stream):
                await asyncio.sleep(0)  # the grant arrives by the loop
                if granted.is_set():
                    return
            with anyio.move_on_after(LOOK_AGAIN_S):
                await granted.wait()

    def _full(self, stream: StreamState, why: str) -> BufferFullError:
        return BufferFullError(
            f"No room for another chunk of stream {stream.spec.data_id} ({why}): "
            f"{self._gate.used / 1e6:.0f} of {self._gate.limit / 1e6:.0f} MB are held, "
            f"{stream.ledger.pending} chunks wait for the server. This chunk was not taken and used no index; "
            "what was accepted is safe.",
            data_id=stream.spec.data_id,
        )

    def refuse(self, stream: StreamState, index: int | None) -> int | None:
        """Count a chunk that found no room as accepted and dropped."""
        chosen = stream.ledger.accept(index)
        if chosen is not None:
            self.count_drop(stream, chosen, f"no room (on_full={self._settings.on_full!r})")
        return chosen

    def count_drop(self, stream: StreamState, index: int, reason: str) -> None:
        """Settle ``index`` as dropped and say so."""
        if stream.ledger.settle(index, "dropped", reason):
            self._keeper.discard(stream, index, "dropped", reason)
            log.warning("Stream %s: chunk %d was dropped: %s.", stream.spec.data_id, index, reason)

    async def _compare(self, stream: StreamState, index: int, frames: Frames) -> None:
        """See that ``frames`` are what ``index`` holds (promise P5).

        Raises:
            ChunkConflictError: they are not.
        """
        entry = stream.ledger.entry
        await stream.ledger.pulse.until(lambda: _known(entry(index)))
        known = entry(index)
        if known is None or known.digest is None:
            log.warning("Stream %s: chunk %d was settled before and stays so.", stream.spec.data_id, index)
            return
        if await self._landing.in_thread(lambda: ShardEncoder().digest(frames)) != known.digest:
            raise ChunkConflictError(
                f"Chunk {index} of stream {stream.spec.data_id} was pushed before with other frames. The first "
                "ones stay; these were not taken. Use the next index, or run(), which counts by itself.",
                data_id=stream.spec.data_id,
                index=index,
            )


def _granted(waiter: Waiter) -> Permit:
    if waiter.permit is None:
        raise ClosedError("The streamer was closed while this push waited for room; the chunk was not taken.")
    return waiter.permit


def _known(entry: object) -> bool:
    state, digest = getattr(entry, "state", "dropped"), getattr(entry, "digest", None)
    return digest is not None or state != "pending"
