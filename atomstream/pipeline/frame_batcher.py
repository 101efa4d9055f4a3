"""Gathers single frames of ``push_frame`` into chunks. Each frame is copied once, in the caller's thread.

A lock protects the buffer, so the callback thread of a camera can add frames without the event loop. Other threads are
involved once per chunk, when the full buffer goes to the encoder. A single frame is copied through a memoryview, which
keeps the GIL. numpy's own copy would release the GIL, and getting it back took 5 ms while another thread was busy
(measured; docs/decisions/0006-push-copies.md).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from atomstream.errors import StreamFinalizedError
from atomstream.pipeline.buffer_pool import Buffer, BufferPool, as_frames
from atomstream.pipeline.encoder import EncodeJob, Encoder
from atomstream.pipeline.frame_gaps import FrameGaps
from atomstream.pipeline.memory_limiter import MemoryLimiter, Permit
from atomstream.pipeline.stream import StreamState
from atomstream.records import Chunk, FrameMeta, Timestamp
from atomstream.system import tracing


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One frame (H, W) from a camera. ``make_timestamp()`` is called only if it is the first of a chunk."""

    frame: npt.NDArray[Any]
    capture_ms: float | None
    frame_id: int | None
    angle_deg: float | None
    make_timestamp: Callable[[], Timestamp]


@dataclass(slots=True)
class _Filling:
    """The chunk that is being gathered."""

    permit: Permit
    buffer: Buffer
    flat: memoryview
    timestamp: Timestamp
    count: int = 0
    times: list[float] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    angles: list[float] = field(default_factory=list)
    parent: Any = field(default_factory=tracing.current)


class FrameBatcher:
    """Gathers the single frames of one stream into chunks of ``chunk_size``. Any thread may call its methods."""

    def __init__(
        self, stream: StreamState, limiter: MemoryLimiter, buffers: BufferPool, encoder: Encoder
    ) -> None:
        self._stream = stream
        self._limiter = limiter
        self._buffers = buffers
        self._encoder = encoder
        self._lock = threading.Lock()
        self._filling: _Filling | None = None
        self._reserved: Permit | None = None
        self._frames_to_discard = 0
        self._gaps = FrameGaps(stream.spec)
        self._examined = False
        self._sealed = False

    @property
    def frames_held(self) -> int:
        """The number of frames in the chunk that is being gathered."""
        return 0 if self._filling is None else self._filling.count

    def nbytes_needed(self, frame: npt.NDArray[Any]) -> int:
        """Bytes to reserve for a whole chunk of such frames."""
        return self._stream.memory_needed(self._stream.spec.chunk_size, frame.nbytes, self._limiter.limit)

    def try_add(self, frame: Frame) -> bool:
        """Add one frame. Returns False if it needs a new buffer and there is no memory for it now.

        Raises:
            ValueError: height, width or dtype differ from the stream's.
            StreamFinalizedError: the stream accepts no more frames.
        """
        with self._lock:
            self._check(frame)
            if not self._frames_to_discard and self._filling is None and not self._begin(frame):
                return False
            if self._ends_chunk(frame) and self.frames_held:
                self._submit()
                if not self._frames_to_discard and not self._begin(frame):
                    self._examined = True
                    return False
            self._examined = False
            if self._frames_to_discard:
                self._frames_to_discard -= 1
                return True
            self._copy(frame)
            if self._filling is not None and self._filling.count == self._stream.spec.chunk_size:
                self._submit()
            return True

    def add_permit(self, permit: Permit) -> None:
        """Provide a permit that a push has waited for. The next frame begins its chunk with it."""
        with self._lock:
            if self._reserved is not None or self._filling is not None or self._sealed:
                permit.release()
            else:
                self._reserved = permit

    def discard_chunk(self) -> None:
        """Discard the next ``chunk_size`` frames: their chunk index was counted as dropped."""
        with self._lock:
            self._frames_to_discard = self._stream.spec.chunk_size

    def flush(self) -> None:
        """Send the frames gathered so far as a short chunk."""
        with self._lock:
            self._submit()

    def seal(self) -> None:
        """Flush and accept no more frames. Both happen under the lock, so no frame is lost between them."""
        with self._lock:
            self._submit()
            self._sealed = True
            if self._reserved is not None:
                self._reserved.release()
                self._reserved = None

    def _check(self, frame: Frame) -> None:
        if self._sealed:
            raise StreamFinalizedError(
                f"Stream {self._stream.spec.data_id} was finalized: it accepts no more frames.",
                data_id=self._stream.spec.data_id,
            )
        height, width = frame.frame.shape
        self._stream.fix_geometry((height, width), frame.frame.dtype.newbyteorder("="))

    def _ends_chunk(self, frame: Frame) -> bool:
        if self._examined:  # this frame was examined before: it waited for memory for its chunk
            return False
        ends = self._gaps.ends_chunk(frame.frame_id, frame.capture_ms)
        self._stream.frame_gaps = self._gaps.count
        return ends

    def _begin(self, frame: Frame) -> bool:
        permit, self._reserved = self._reserved, None
        if permit is None:
            permit = self._limiter.try_acquire(
                self._stream.spec.data_id, self.nbytes_needed(frame.frame), filling=True
            )
        if permit is None:
            return False
        buffer = self._buffers.acquire(frame.frame.nbytes * self._stream.spec.chunk_size)
        self._filling = _Filling(permit, buffer, memoryview(buffer.data), frame.make_timestamp())
        return True

    def _copy(self, frame: Frame) -> None:
        filling, pixels = self._filling, frame.frame
        if filling is None:
            raise AssertionError("a frame was copied without a buffer")
        start = filling.count * pixels.nbytes
        if pixels.flags.c_contiguous and pixels.dtype.isnative:
            filling.flat[start : start + pixels.nbytes] = memoryview(pixels.data).cast("B")
        else:
            target = filling.buffer[start : start + pixels.nbytes].view(pixels.dtype.newbyteorder("="))
            np.copyto(target.reshape(pixels.shape), pixels)
        filling.count += 1
        filling.ids.append(-1 if frame.frame_id is None else frame.frame_id)
        for values, value in ((filling.times, frame.capture_ms), (filling.angles, frame.angle_deg)):
            if value is not None:
                values.append(value)

    def _submit(self) -> None:
        filling, self._filling = self._filling, None
        geometry = self._stream.geometry
        if filling is None or geometry is None:
            return
        index = self._stream.ledger.accept()
        if index is None:
            raise AssertionError("the next index was accepted before")
        (height, width), dtype = geometry
        frames = as_frames(filling.buffer, (filling.count, height, width), dtype)
        chunk = Chunk(self._stream.spec.data_id, index, frames, filling.timestamp, _meta(filling))
        self._stream.begin_span(chunk, filling.parent)
        filling.flat.release()
        filling.permit.mark_filled()
        self._encoder.submit(
            EncodeJob(chunk, filling.permit, filling.buffer, with_meta=self._stream.spec.announced)
        )


def _meta(filling: _Filling) -> FrameMeta:
    # A time or an angle that only some frames have could not be assigned to them: the whole column is omitted.
    n = filling.count
    return FrameMeta(
        times_ms=tuple(filling.times) if len(filling.times) == n else None,
        ids=tuple(filling.ids) if max(filling.ids) >= 0 else None,
        angles_deg=tuple(filling.angles) if len(filling.angles) == n else None,
    )
