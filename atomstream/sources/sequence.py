"""Several files in a row as one recording, as cameras and recorders split a long one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from atomstream.errors import ConfigError
from atomstream.system.log_privacy import get_logger

from .damage import ChunkBuilder, DamagedSourceError, raise_at_end
from .frame_source import FrameSource, Gap, Indices, SourceChunk, Times, checked_chunk_size
from .ordering import ordered

logger = get_logger(__name__)

_SAME_RATE: Final = 0.01
"""Largest relative difference of the frame rates of files that belong together."""


def warn_of_order(paths: Sequence[Path]) -> None:
    """Warn of files that are in the order of their characters (part10 before part2), but not of their numbers.

    A shell gives the names of ``part*.avi`` in that order. It is kept, because a caller may mean it.
    """
    names = [path.name for path in paths]
    natural = ordered(paths)
    if names == sorted(names) and natural != list(paths) and len({path.parent for path in paths}) == 1:
        first = next(here.name for here, there in zip(paths, natural, strict=True) if here != there)
        logger.warning(
            "The files are read in the order in which they were given, as a shell sorts names: %s comes before files "
            "with smaller numbers. If their numbers are their order, give them in that order, or the folder alone",
            first,
        )


class SourceSequence:
    """Sources of one size and type, one after the other.

    The times of a file begin one frame after the last one of the file before, because files seldom state how long
    the pause between them was. Raises :class:`ConfigError` if the files do not belong together.
    """

    def __init__(self, parts: Sequence[FrameSource]) -> None:
        first = parts[0]
        for part in parts[1:]:
            if (part.frame_shape, part.dtype) != (first.frame_shape, first.dtype):
                raise ConfigError(
                    f"{part.name} has frames {part.frame_shape} {part.dtype}, but {first.name} {first.frame_shape} "
                    f"{first.dtype}; a stream's frames are all of one size: stream them one by one"
                )
        self.parts = parts
        self.name = f"{len(parts)} files, {first.name} to {parts[-1].name}"
        self.frame_shape: tuple[int, int] = first.frame_shape
        self.dtype: np.dtype[Any] = first.dtype
        self.fps = self._rate()
        counts = [part.n_frames for part in parts]
        self.n_frames: int | None = sum(n or 0 for n in counts) if all(counts) else None
        self.gaps: list[Gap] = []

    def _rate(self) -> float | None:
        rates = {part.fps for part in self.parts}
        known = [rate for rate in rates if rate is not None]
        if len(known) != len(rates) or max(known) > min(known) * (1 + _SAME_RATE):
            return None
        return self.parts[0].fps

    def chunks(self, chunk_size: int) -> Iterator[SourceChunk]:
        """Yield the frames of all files, at most ``chunk_size`` at a time, only the last chunk shorter."""
        step = checked_chunk_size(chunk_size)
        builder = ChunkBuilder(step)
        self.gaps = []
        frames_before, time_before, raises = 0, 0.0, False
        for number, part in enumerate(self.parts):
            ended = _Ends(frames_before, time_before, self.fps)
            read_on = False
            try:
                for chunk in part.chunks(step):
                    yield from ended.add(builder, chunk)
            except DamagedSourceError as error:
                read_on = error.read_on
                if not read_on:
                    yield from builder.rest()
                    raise self._with_later(error, number, frames_before) from error
            raises = raises or read_on
            self.gaps += [_moved(gap, frames_before) for gap in part.gaps]
            frames_before, time_before = ended.after(part)
        yield from builder.rest()
        raise_at_end(self.gaps, None if raises else True)

    def _with_later(self, error: DamagedSourceError, number: int, before: int) -> DamagedSourceError:
        later = [part.n_frames for part in self.parts[number + 1 :]]
        known = error.behind is not None and all(later)
        behind = (error.behind or 0) + sum(n or 0 for n in later) if known else None
        return DamagedSourceError(_moved(error.gap, before), behind=behind)


class _Ends:
    """The numbers and times of one file within the sequence."""

    def __init__(self, frames_before: int, time_before: float, fps: float | None) -> None:
        self._frames = frames_before
        self._time = time_before
        self._fps = fps
        self._count = 0
        self._last_time: float | None = None

    def add(self, builder: ChunkBuilder, chunk: SourceChunk) -> Iterator[SourceChunk]:
        count = len(chunk.frames)
        indices: Indices = np.arange(self._count, self._count + count)
        if chunk.indices is not None:
            indices = chunk.indices
        times: Times | None = None
        if chunk.times_s is not None:
            times = chunk.times_s + self._time
            self._last_time = float(times[-1])
        self._count = int(indices[-1]) + 1
        indices = indices + self._frames
        begin = 0
        while begin < count:
            part = slice(begin, min(count, begin + builder.wanted))
            begin = part.stop
            yield from builder.add(chunk.frames[part], indices[part], None if times is None else times[part])

    def after(self, part: FrameSource) -> tuple[int, float]:
        """Return the number and the time at which the next file begins."""
        frames = self._count
        if part.gaps and part.gaps[-1].frames is not None:
            frames = max(frames, part.gaps[-1].frame + part.gaps[-1].frames)
        missing = frames - self._count
        step = 1.0 / self._fps if self._fps else 0.0
        last = self._time if self._last_time is None else self._last_time
        return self._frames + frames, last + (1 + missing) * step


def _moved(gap: Gap, frames_before: int) -> Gap:
    return Gap(gap.frame + frames_before, gap.frames, gap.file, gap.byte, gap.reason)
