"""The stored frame that is nearest to a time."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from atomstream.server.archive.downsampling import ColumnReader
from atomstream.server.archive.stream_archive import StreamArchive

MAX_REACH: Final = 1 << 17
"""Most values that are read to find one frame, by its time or its azimuth."""


def nearest_frame(archive: StreamArchive, reader: ColumnReader, fps: float, time_s: float) -> int | None:
    """Number of the stored frame that is nearest to ``time_s``; of the newest one for infinity. None: no frames.

    The frame rate gives a first guess; the stored times around it decide. Blocks.
    """
    runs = archive.frame_runs()
    if not len(runs):
        return None
    if not math.isfinite(time_s):
        return int(runs.frames(np.array([len(runs) - 1], dtype=np.int64))[0])
    guess = min(runs.rank(min(max(0, round(min(time_s, 1e12) * fps)), 1 << 62)), len(runs) - 1)
    reach = min(max(64, len(runs) // 50), MAX_REACH)
    around = np.arange(max(0, guess - reach), min(len(runs), guess + reach), dtype=np.int64)
    frames = runs.frames(around)
    times = reader.values_at(archive.folder / "frames.zarr" / "time", frames)
    if not np.isfinite(times).any():
        return int(runs.frames(np.array([guess], dtype=np.int64))[0])
    return int(frames[np.nanargmin(np.abs(times - time_s))])
