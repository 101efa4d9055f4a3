"""The state of one open stream that the stages of the pipeline share."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from atomstream.errors import StreamGoneError
from atomstream.pipeline.ledger import Ledger
from atomstream.records import Chunk, StreamSpec
from atomstream.shard import encoded_bound
from atomstream.spool import StreamSpool
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.stream")


class StreamFailure:
    """The error that stopped a stream, and whether a caller has received it.

    It works like the exception of a future: set once, raised to any number of callers. ``finalize`` raises it only
    if no other call did so before; otherwise it returns its report.
    """

    def __init__(self) -> None:
        self._error: StreamGoneError | None = None
        self._delivered = False

    def __bool__(self) -> bool:
        return self._error is not None

    def set(self, error: StreamGoneError) -> bool:
        """Keep ``error``, unless there is one already. Returns True if it was kept."""
        if self._error is not None:
            return False
        self._error = error
        return True

    def raise_if_set(self) -> None:
        """Raise the error, if there is one, and mark it as delivered. Any thread may call this."""
        if self._error is not None:
            self._delivered = True
            raise self._error

    def raise_if_undelivered(self) -> None:
        """Raise the error, if there is one that no caller has received yet."""
        if not self._delivered:
            self.raise_if_set()


class StreamState:
    """One open stream.

    ``spool`` is its folder, or None if the disk could not provide one; only the disk thread works on it.
    ``recovered`` is True while the stream only delivers what an earlier process left. ``reconciling`` is True until
    the server has answered which chunks of such a stream it has. ``date_checked`` is True once the first capture time
    was compared with the calendar.
    """

    def __init__(
        self, spec: StreamSpec, ledger: Ledger, spool: StreamSpool | None = None, recovered: bool = False
    ) -> None:
        self.spec = spec
        self.ledger = ledger
        self.spool = spool
        self.recovered = recovered
        self.reconciling = False
        self.failure = StreamFailure()
        self.frame_gaps = 0
        self.date_checked = False
        self._memory_warned = False
        self._lock = threading.Lock()
        self._geometry: tuple[tuple[int, int], np.dtype[Any]] | None = None

    @property
    def geometry(self) -> tuple[tuple[int, int], np.dtype[Any]] | None:
        """(H, W) and dtype of the first accepted chunk; None before it."""
        return self._geometry

    def check_geometry(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        """Check that frames of ``shape`` (H, W) and ``dtype`` fit to this stream.

        Raises:
            ValueError: they differ from the stream's first chunk.
        """
        if self._geometry is not None and self._geometry != (shape, dtype):
            (height, width), kind = self._geometry
            raise ValueError(
                f"Stream {self.spec.data_id} has frames of {height}x{width} {kind}, fixed by its first chunk; "
                f"got {shape[0]}x{shape[1]} {dtype}. Nothing was sent. Initialize a new stream for another format."
            )

    def fix_geometry(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        """Check the geometry as :meth:`check_geometry` does. The first chunk sets it for the whole stream.

        Raises:
            ValueError: they differ from the stream's first chunk.
        """
        with self._lock:
            self.check_geometry(shape, dtype)
            self._geometry = shape, dtype

    def begin_span(self, chunk: Chunk, parent: Any = None) -> None:
        """Begin the span of a chunk that was just accepted (:mod:`atomstream.system.tracing`)."""
        self.ledger.spans.begin(
            chunk.index, parent, data_id=self.spec.data_id, index=chunk.index, frames=len(chunk.frames)
        )

    def memory_needed(self, n_frames: int, frame_nbytes: int, limit: int) -> int:
        """Bytes to reserve for a chunk. Warns once if ``limit`` is too small for two such chunks."""
        nbytes = memory_needed(n_frames, frame_nbytes)
        if 2 * nbytes > limit and not self._memory_warned:
            self._memory_warned = True
            log.warning(
                "Stream %s: a chunk of %d frames needs %.0f MB of memory while it is encoded, and buffer_bytes is "
                "%.0f MB. Only one chunk fits at a time, so a camera may have to wait. Give buffer_bytes=%d or more, "
                "or a smaller chunk_size.",
                self.spec.data_id,
                n_frames,
                nbytes / 1e6,
                limit / 1e6,
                3 * nbytes,
            )
        return nbytes


def memory_needed(n_frames: int, frame_nbytes: int) -> int:
    """Bytes to reserve for a chunk at its admission: its raw frames and the largest possible shard."""
    return n_frames * frame_nbytes + encoded_bound(n_frames, frame_nbytes)
