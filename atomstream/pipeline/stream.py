"""One open stream inside the pipeline: what it is, what became of its chunks, what it holds in memory."""

from __future__ import annotations

import logging
import threading
from typing import Any

import numpy as np

from atomstream.errors import StreamGoneError
from atomstream.pipeline.ledger import Ledger
from atomstream.records import StreamSpec
from atomstream.shard import encoded_bound
from atomstream.spool import StreamSpool

log = logging.getLogger("atomstream.stream")


class StreamState:
    """State that the stages share; each field names its owner.

    ``ledger`` owns itself; geometry is fixed once under a lock; ``spool`` is None where the disk refused it,
    and its steps are the keeper's. ``asking``: the server has yet to say what it has of this recovered stream.
    """

    def __init__(
        self, spec: StreamSpec, ledger: Ledger, spool: StreamSpool | None = None, recovered: bool = False
    ) -> None:
        self.spec = spec
        self.ledger = ledger
        self.spool = spool
        self.recovered = recovered
        self.asking = False
        self.failure: StreamGoneError | None = None
        self.frame_gaps = 0
        self._told_tight = False
        self._lock = threading.Lock()
        self._geometry: tuple[tuple[int, int], np.dtype[Any]] | None = None

    @property
    def geometry(self) -> tuple[tuple[int, int], np.dtype[Any]] | None:
        """(H, W) and dtype as fixed by the first chunk; None before it."""
        return self._geometry

    def check_geometry(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        """See that frames of ``shape`` (H, W) and ``dtype`` belong to this stream.

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
        """Check, and fix what the first accepted chunk brings.

        Raises:
            ValueError: as :meth:`check_geometry`.
        """
        with self._lock:
            self.check_geometry(shape, dtype)
            self._geometry = shape, dtype

    def charge(self, n_frames: int, frame_nbytes: int, limit: int) -> int:
        """What a chunk is charged at the gate; says once where ``limit`` is too tight for two of them."""
        nbytes = charge(n_frames, frame_nbytes)
        if 2 * nbytes > limit and not self._told_tight:
            self._told_tight = True
            log.warning(
                "Stream %s: a chunk of %d frames wants %.0f MB of memory while it is encoded, and buffer_bytes is "
                "%.0f MB: one at a time, so a camera may have to wait. Give buffer_bytes=%d or more, or a smaller "
                "chunk_size.",
                self.spec.data_id,
                n_frames,
                nbytes / 1e6,
                limit / 1e6,
                3 * nbytes,
            )
        return nbytes


def charge(n_frames: int, frame_nbytes: int) -> int:
    """Bytes that a chunk is charged at admission: its raw frames and the most that its shard can take."""
    return n_frames * frame_nbytes + encoded_bound(n_frames, frame_nbytes)
