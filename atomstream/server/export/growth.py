"""One stream as the exports read it: its description, its results, and its stored frames in pieces."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from atomstream.config import usable_cores
from atomstream.errors import ConfigError
from atomstream.records import Frames
from atomstream.results import F64, TIME
from atomstream.server.archive.abandoned import check_wanted
from atomstream.server.archive.downsampling import ColumnReader, column_dimension
from atomstream.server.archive.frame_runs import FrameRuns, Numbers
from atomstream.server.archive.frame_search import nearest_frame
from atomstream.server.archive.metadata import StreamMetadata
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.live.messages import AnalysisStatus

PIECE_BYTES: Final = 16 << 20
"""Pixels in one piece; a piece has at least one frame."""

ROWS: Final = 1 << 14
"""Most frames in a piece of values without pixels."""

THREADS: Final = min(4, usable_cores())
"""Threads that decode frames for one export. zstd runs without the interpreter lock, so they delay no event loop."""

_TIMES: Final = frozenset({"time", TIME})


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Consecutive exported frames. ``numbers`` (n,) are frame numbers, ``time_s`` (n,) seconds from the start."""

    numbers: Numbers
    time_s: F64
    columns: dict[str, F64]
    frames: Frames | None = None
    """(n, H, W); None if pixels are not exported."""


@dataclass(frozen=True, slots=True, eq=False)
class Growth:
    """What an export writes. ``step`` n exports every n-th stored frame; frames that were never received are left out.

    Its methods read from the disk, and end early once the request was cancelled (``check``).
    """

    metadata: StreamMetadata
    status: AnalysisStatus
    archive: StreamArchive
    reader: ColumnReader
    runs: FrameRuns
    """Which frames are stored. All that is exported is of this moment, also while the stream goes on."""
    step: int = 1
    at_s: float = math.inf
    """Time of a snapshot in s; infinity: the newest frame."""
    check: Callable[[], None] = check_wanted
    """Called before each piece. It may raise to end the export."""

    @property
    def group(self) -> Path:
        """The Zarr group of the archive."""
        return self.archive.folder / "frames.zarr"

    @property
    def n_exported(self) -> int:
        """Number of frames that are exported."""
        return -(-len(self.runs) // self.step)

    @property
    def origin(self) -> datetime | None:
        """Time of the first frame (UTC); None before the first chunk, or if it is damaged."""
        return _utc(self.status.origin_unix_ms)

    @property
    def layer_nm(self) -> float | None:
        """Thickness of one layer in nm; None without a calibration."""
        return self.status.calibration.layer_thickness_nm

    def columns(self) -> dict[str, str]:
        """Name and unit of each result that has a value per frame, in the order of the analysis."""
        return {
            name: unit
            for name, unit in self.status.columns.items()
            if name not in _TIMES and column_dimension(self.group / name) == "time"
        }

    def check_pixels(self) -> None:
        """Raises ConfigError if frames were removed by the rules of retention."""
        if self.archive.thinned.exists:
            raise ConfigError(
                "Frames of this stream were removed by the rules of retention: an export would have black pictures in "
                "their place. Export the results alone (pixels=0, or CSV). Zarr readers find the frames that are left "
                "by the array frame_kept."
            )

    def pieces(self, *, pixels: bool, columns: bool = True) -> Generator[Piece, None, None]:
        """The exported frames in order, in pieces of bounded size.

        A thread reads and decodes the next piece meanwhile, so two are in memory.

        Raises:
            ConfigError: with ``pixels``, if frames were removed by the rules of retention.
        """
        if pixels:
            self.check_pixels()
        geometry = self.archive.geometry if pixels else None
        rows = ROWS
        if geometry is not None:
            rows = max(
                1, PIECE_BYTES // (geometry.height * geometry.width * np.dtype(geometry.dtype).itemsize)
            )
        names = list(self.columns()) if columns else []
        context = copy_context()

        def read(first: int) -> Piece:
            self.check()
            ranks = np.arange(first, min(first + rows, self.n_exported), dtype=np.int64) * self.step
            numbers = self.runs.frames(ranks)
            return Piece(
                numbers,
                self.reader.values_at(self.group / "time", numbers),
                {name: self.reader.values_at(self.group / name, numbers) for name in names},
                None if geometry is None else self.archive.frames_at(numbers, THREADS),
            )

        with ThreadPoolExecutor(1, thread_name_prefix="atomstream-export-read") as reader:
            ahead: deque[Future[Piece]] = deque()
            for first in range(0, self.n_exported, rows):
                ahead.append(reader.submit(context.run, read, first))
                if len(ahead) > 1:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def frame_at(self, rank: int) -> Frames | None:
        """One stored frame (H, W), counted from 0, or from the end if negative; None if there is none.

        For one that was removed, the nearest that is left.
        """
        if not len(self.runs):
            return None
        number = self.archive.thinned.nearest(
            int(self.runs.frames(np.array([rank % len(self.runs)], dtype=np.int64))[0])
        )
        if number is None:
            return None
        frame: Frames = self.archive.frames(number, number + 1)[0]
        return frame

    def frame_near(self, time_s: float) -> tuple[int, Frames] | None:
        """Number and pixels (H, W) of the frame nearest to ``time_s`` of those that are left; None if there is none."""
        nearest = nearest_frame(self.archive, self.reader, self.metadata.fps, time_s)
        number = None if nearest is None else self.archive.thinned.nearest(nearest)
        if number is None:
            return None
        return number, self.archive.frames(number, number + 1)[0]


def utc_text(unix_ms: float | None) -> str:
    """An ISO 8601 time in UTC with milliseconds; empty if there is none, or it is damaged."""
    time = _utc(unix_ms)
    return "" if time is None else time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _utc(unix_ms: float | None) -> datetime | None:
    """A time; None for one that is in no calendar, as in a damaged column."""
    try:
        return None if unix_ms is None else datetime.fromtimestamp(unix_ms / 1e3, UTC)
    except (OverflowError, OSError, ValueError):
        return None
