"""Frames from the caller to the pipeline: check the arguments, add the capture time, then copy and accept.

Both streamers use this class. ``start_push`` and ``try_push_frame`` may be called from any thread, without the event
loop; the blocking streamer tries them first, because a change to the loop's thread costs more than the copy of a frame.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable
from concurrent.futures import Future
from contextlib import aclosing
from typing import Any, Final

from atomstream.errors import StreamFinalizedError
from atomstream.frame_counter import frame_numbers
from atomstream.pipeline.admission import PushRequest
from atomstream.pipeline.frame_batcher import Frame
from atomstream.pipeline.pipeline import Pipeline
from atomstream.pipeline.stream import StreamState
from atomstream.records import FrameMeta, Timestamp
from atomstream.streaming import validation
from atomstream.streaming.stream_request import ChunkArguments, FrameArguments
from atomstream.streaming.validation import iterate, split

_CALLER: Final = 5
"""Calls between a warning and the caller of ``push``: they are shown with the caller's line where it is in reach."""


class FrameInput:
    """Methods that push frames. Arguments and errors are those of ``AsyncRHEEDStreamer``.

    ``timestamp(duration_s, explicit_ms)`` makes the capture time of frames that took ``duration_s`` seconds and end
    now, or keeps ``explicit_ms`` (UTC ms) if that is not None.
    """

    def __init__(self, pipeline: Pipeline, timestamp: Callable[[float, float | None], Timestamp]) -> None:
        self._pipeline = pipeline
        self._timestamp = timestamp
        self._loop = asyncio.get_running_loop()

    def open_stream(self, data_id: str) -> StreamState:
        """Return the stream if it accepts frames. Any thread may call this.

        Raises:
            UnknownStreamError: this streamer has no such stream.
            StreamFinalizedError: it was finalized.
            StreamGoneError: the server has no such stream any more.
        """
        stream = self._pipeline.stream(data_id)
        stream.failure.raise_if_set()
        if stream.ledger.sealed:
            raise StreamFinalizedError(
                f"Stream {data_id} was finalized: it accepts no more frames. Initialize a new stream.",
                data_id=data_id,
            )
        return stream

    async def push(self, chunk: ChunkArguments) -> None:
        """Push one chunk; waits while the memory limit is reached, if ``on_full`` is "wait"."""
        stream, request = self._request(chunk)
        await self._pipeline.push(stream, request)

    def start_push(self, chunk: ChunkArguments) -> Future[bool] | None:
        """Start :meth:`push` in a copying thread, if the chunk fits into memory now. Any thread may call this.

        The frames must not change until the future is done. Its result is True if the chunk was accepted. If it is
        False, or if this returns None, nothing was accepted: the caller then awaits :meth:`push`, which waits for
        memory or raises the error.
        """
        stream, request = self._request(chunk)
        if self._loop.is_closed():  # the application ended its loop without closing the streamer
            return None
        return self._pipeline.start_push(stream, request)

    def _request(self, chunk: ChunkArguments) -> tuple[StreamState, PushRequest]:
        stream = self.open_stream(chunk.data_id)
        index = validation.check_index(chunk.chunk_idx, stream.ledger.next_index)
        array = validation.check_chunk(chunk.frames, stream.spec)
        stream.check_geometry(array.shape[1:], array.dtype.newbyteorder("="))
        meta = validation.check_meta(len(array), chunk.frame_times_ms, chunk.frame_ids, chunk.angles_deg)
        explicit_ms = validation.check_capture_ms(chunk.capture_start_ms_utc)
        first_ms = _first_time_ms(explicit_ms, meta)
        self._check_date(stream, first_ms)
        duration_s = _camera_frames(len(array), meta, stream.spec.fps) / stream.spec.fps
        timestamp = self._timestamp(duration_s, first_ms)
        return stream, PushRequest(index, array, timestamp, meta, chunk.copy)

    async def push_frame(self, one: FrameArguments) -> None:
        """Push one frame into the chunk that is being filled; waits while the memory limit is reached."""
        stream, checked = self._checked_frame(one)
        await self._pipeline.push_frame(stream, checked)

    def try_push_frame(self, one: FrameArguments) -> bool:
        """Push one frame without waiting. Any thread may call this.

        Returns False if there is no memory for a new chunk now; then the frame was not accepted.
        """
        stream, checked = self._checked_frame(one)
        return self._pipeline.try_push_frame(stream, checked)

    def _checked_frame(self, one: FrameArguments) -> tuple[StreamState, Frame]:
        stream = self.open_stream(one.data_id)
        explicit_ms = validation.check_capture_ms(one.capture_ms_utc, "capture_ms_utc")
        self._check_date(stream, explicit_ms)
        return stream, Frame(
            frame=validation.check_frame(one.frame, stream.spec),
            capture_ms=explicit_ms,
            frame_id=None if one.frame_id is None else validation.check_frame_id(one.frame_id),
            angle_deg=None if one.angle_deg is None else validation.check_angle(one.angle_deg),
            make_timestamp=lambda: self._timestamp(1.0 / stream.spec.fps, explicit_ms),
        )

    def _check_date(self, stream: StreamState, capture_ms: float | None) -> None:
        """Warn once if the first given capture time of the stream is probably not in milliseconds."""
        if capture_ms is None or stream.date_checked:
            return
        stream.date_checked = True
        validation.warn_if_too_early(capture_ms, stream.spec.data_id, stacklevel=_CALLER)

    async def run(self, data_id: str, frames_iter: Iterable[Any] | AsyncIterable[Any]) -> None:
        """Push every item of ``frames_iter``; a synchronous one is iterated in its own thread."""
        self.open_stream(data_id)
        async with aclosing(iterate(frames_iter)) as items:
            async for item in items:
                await self.push_item(data_id, item)

    async def push_item(self, data_id: str, item: Any) -> None:
        """Push one item of :meth:`run`: frames, or ``(frames, capture_start_ms_utc)``."""
        frames, start_ms = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
        stream = self.open_stream(data_id)
        array = validation.check_item(frames, stream.spec)
        explicit_ms = validation.check_capture_ms(start_ms)
        self._check_date(stream, explicit_ms)
        if array.ndim == 2:
            await self.push_frame(FrameArguments(data_id, array, explicit_ms))
            return
        stream.check_geometry(array.shape[1:], array.dtype.newbyteorder("="))
        self._pipeline.send_gathered(stream)
        timestamp = self._timestamp(len(array) / stream.spec.fps, explicit_ms)
        for part, part_timestamp in split(array, timestamp, stream.spec):
            await self._pipeline.push(stream, PushRequest(None, part, part_timestamp, FrameMeta()))


def _camera_frames(stored: int, meta: FrameMeta, fps: float) -> int:
    """Frames that the camera took from the first to the last one of a chunk, with those that it dropped between."""
    return stored if meta.ids is None else int(frame_numbers(meta.ids, fps)[-1]) + 1


def _first_time_ms(explicit_ms: float | None, meta: FrameMeta) -> float | None:
    return meta.times_ms[0] if explicit_ms is None and meta.times_ms else explicit_ms
