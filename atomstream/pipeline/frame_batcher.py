"""``push_frame``'s buffer: frames are copied straight into the chunk that fills, on the caller's thread.

Owned by a lock, so a camera's callback thread adds frames without crossing to the loop; a thread is crossed
once a chunk, when the full buffer goes to the encoder. A single frame is copied through a memoryview, under
the GIL: numpy's own copy releases it, and getting it back took 5 ms beside a busy thread (DECISIONS, "push").
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
from atomstream.pipeline.memory_limiter import MemoryLimiter, Permit
from atomstream.pipeline.stream import StreamState
from atomstream.records import Chunk, FrameMeta, Timestamp

GAP_PERIODS = 1.5
"""Frames further apart than this many frame periods have lost one between them."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One frame as the camera brings it; ``stamp`` is made when it starts a chunk."""

    frame: npt.NDArray[Any]
    capture_ms: float | None
    frame_id: int | None
    angle_deg: float | None
    stamp: Callable[[], Timestamp]


@dataclass(slots=True)
class _Filling:
    """The chunk that fills now."""

    permit: Permit
    buffer: Buffer
    flat: memoryview
    stamp: Timestamp
    count: int = 0
    times: list[float] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    angles: list[float] = field(default_factory=list)


class FrameBatcher:
    """Gathers one stream's single frames into chunks of ``chunk_size``."""

    def __init__(self, stream: StreamState, gate: MemoryLimiter, pool: BufferPool, encoder: Encoder) -> None:
        self._stream = stream
        self._gate = gate
        self._pool = pool
        self._encoder = encoder
        self._lock = threading.Lock()
        self._filling: _Filling | None = None
        self._spare: Permit | None = None
        self._discard = 0
        self._last: Frame | None = None
        self._sealed = False

    @property
    def frames_held(self) -> int:
        """Frames in the buffer that fills now."""
        return 0 if self._filling is None else self._filling.count

    def nbytes_needed(self, frame: npt.NDArray[Any]) -> int:
        """What a buffer for this stream's chunks is charged."""
        return self._stream.charge(self._stream.spec.chunk_size, frame.nbytes, self._gate.limit)

    def try_add(self, shot: Frame) -> bool:
        """Add one frame; False where a new buffer is needed and the gate has no room for it now.

        Raises:
            ValueError: another height, width or dtype than the stream's.
            StreamFinalizedError: the stream takes no more.
        """
        with self._lock:
            self._check(shot)
            if self._follows_gap(shot):
                self._stream.frame_gaps += 1
                self._submit()
            if self._discard:
                self._discard -= 1
                self._last = shot
                return True
            if self._filling is None and not self._begin(shot):
                return False
            self._copy(shot)
            self._last = shot
            if self._filling is not None and self._filling.count == self._stream.spec.chunk_size:
                self._submit()
            return True

    def bring(self, permit: Permit) -> None:
        """Bring a permit that was waited for; the next frame begins its chunk with it."""
        with self._lock:
            if self._spare is not None or self._filling is not None or self._sealed:
                permit.release()
            else:
                self._spare = permit

    def discard_chunk(self) -> None:
        """Let the frames of one whole chunk go by: its index was counted as dropped."""
        with self._lock:
            self._discard = self._stream.spec.chunk_size

    def flush(self) -> None:
        """Send what has been gathered as a short chunk."""
        with self._lock:
            self._submit()

    def seal(self) -> None:
        """Flush, and take no more frames, as one step: no frame can slip in between."""
        with self._lock:
            self._submit()
            self._sealed = True
            if self._spare is not None:
                self._spare.release()
                self._spare = None

    def _check(self, shot: Frame) -> None:
        if self._sealed:
            raise StreamFinalizedError(
                f"Stream {self._stream.spec.data_id} was finalized: it takes no more frames.",
                data_id=self._stream.spec.data_id,
            )
        height, width = shot.frame.shape
        self._stream.fix_geometry((height, width), shot.frame.dtype.newbyteorder("="))

    def _follows_gap(self, shot: Frame) -> bool:
        last = self._last
        if last is None:
            return False
        if shot.frame_id is not None and last.frame_id is not None:
            return shot.frame_id != last.frame_id + 1
        if shot.capture_ms is None or last.capture_ms is None:
            return False
        period_ms = 1000.0 / self._stream.spec.fps
        return not 0.0 <= shot.capture_ms - last.capture_ms <= GAP_PERIODS * period_ms

    def _begin(self, shot: Frame) -> bool:
        permit, self._spare = self._spare, None
        if permit is None:
            permit = self._gate.try_enter(
                self._stream.spec.data_id, self.nbytes_needed(shot.frame), filling=True
            )
        if permit is None:
            return False
        buffer = self._pool.take(shot.frame.nbytes * self._stream.spec.chunk_size)
        self._filling = _Filling(permit, buffer, memoryview(buffer.data), shot.stamp())
        return True

    def _copy(self, shot: Frame) -> None:
        filling, frame = self._filling, shot.frame
        if filling is None:
            raise AssertionError("a frame was copied without a buffer")
        start = filling.count * frame.nbytes
        if frame.flags.c_contiguous and frame.dtype.isnative:
            filling.flat[start : start + frame.nbytes] = memoryview(frame.data).cast("B")
        else:
            target = filling.buffer[start : start + frame.nbytes].view(frame.dtype.newbyteorder("="))
            np.copyto(target.reshape(frame.shape), frame)
        filling.count += 1
        for values, value in (
            (filling.times, shot.capture_ms),
            (filling.ids, shot.frame_id),
            (filling.angles, shot.angle_deg),
        ):
            if value is not None:
                values.append(value)  # type: ignore[arg-type]

    def _submit(self) -> None:
        filling, self._filling = self._filling, None
        geometry = self._stream.geometry
        if filling is None or geometry is None:
            return
        index = self._stream.ledger.accept()
        if index is None:
            raise AssertionError("the next index was taken already")
        (height, width), dtype = geometry
        frames = as_frames(filling.buffer, (filling.count, height, width), dtype)
        chunk = Chunk(self._stream.spec.data_id, index, frames, filling.stamp, _meta(filling))
        filling.flat.release()
        filling.permit.filled()
        self._encoder.submit(
            EncodeJob(chunk, filling.permit, filling.buffer, with_meta=self._stream.spec.announced)
        )


def _meta(filling: _Filling) -> FrameMeta:
    # A field that only some frames brought can't be told apart from noise: it is left out.
    n = filling.count
    return FrameMeta(
        times_ms=tuple(filling.times) if len(filling.times) == n else None,
        ids=tuple(filling.ids) if len(filling.ids) == n else None,
        angles_deg=tuple(filling.angles) if len(filling.angles) == n else None,
    )
