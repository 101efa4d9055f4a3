"""A chunk lands: copied once, accepted, told to its caller, handed to the encoder. In two threads of its own.

Before its acceptance a chunk leaves no trace; from then on it is the ledger's. Both happen in one thread right
after the copy, so a cancelled ``push`` either used no index or left a whole chunk behind (promise P21).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import anyio
import numpy as np

from atomstream.pipeline.buffers import BufferPool, as_frames
from atomstream.pipeline.copying import copy_together
from atomstream.pipeline.encoder import Encoder, Job
from atomstream.pipeline.gate import Permit
from atomstream.pipeline.stream import Stream
from atomstream.records import Chunk, FrameMeta, Frames, Stamp

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """A chunk as the caller brings it; ``index`` None means the stream's next one."""

    index: int | None
    frames: Frames
    stamp: Stamp
    meta: FrameMeta
    copy: bool = True


class Landing:
    """Where chunks that have a permit come in; the permit goes on with the chunk, or is given back.

    ``failed(job, error)`` takes over a chunk that was accepted but could not be queued.
    """

    def __init__(
        self, pool: BufferPool, encoder: Encoder, failed: Callable[[Job, BaseException], None]
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

    def land(self, stream: Stream, offer: Offer, permit: Permit, tell: Callable[[int | None], None]) -> None:
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
        self._hand_on(Job(chunk, permit, buffer, with_meta=stream.spec.announced), lambda: tell(index))

    def _hand_on(self, job: Job, tell: Callable[[], None]) -> None:
        try:
            self._encoder.queue(job)  # before its caller may push more, which may have to drop it
        except BaseException as error:
            self._failed(job, error)
            raise
        tell()
        self._encoder.wake()

    async def landed(self, stream: Stream, offer: Offer, permit: Permit) -> int | None:
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
