"""Frames of a video file that a program is still writing: AVI, Matroska, MPEG-TS and others that have no index.

The decoder waits at the present end of the file for the bytes that are missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from atomstream.errors import ConfigError

from .containers import MP4_SUFFIXES, has_index
from .damage import DamagedSourceError
from .frame_source import Gap, SourceChunk, Times, optional_package
from .growth import Growth
from .options import ReadOptions
from .video import VideoSource


class GrowingVideo:
    """Frames of a video that grows, in order, each once. The times are those of the video, or, if it states no rate
    or another one than ``fps``, of its frames being read. :meth:`chunks` can be called once.
    """

    n_frames: int | None = None

    def __init__(self, path: Path, options: ReadOptions, growth: Growth, *, fps: float | None) -> None:
        options.refuse_dataset(str(path))
        if path.suffix.casefold() in MP4_SUFFIXES and not has_index(path):
            raise ConfigError(
                f"{path} can't be followed: an MP4 has its index at the end. AVI, MKV and MPEG-TS can be"
            )
        self._source = VideoSource(path, options, growth)
        self._growth = growth
        self.name = self._source.name
        self.frame_shape = self._source.frame_shape
        self.dtype = self._source.dtype
        self.fps = self._source.fps
        same_rate = fps is None or self.fps is None or abs(self.fps / fps - 1.0) <= 0.01
        self._own_times = self.fps is not None and same_rate and not options.ignore_times
        self._period_s = 1.0 / (fps or self.fps or 1.0)
        present, length_s = _present(path)
        self._present = present
        self._before_s = length_s if self._own_times else max(0, present - 1) * self._period_s
        self._opened_at = growth.clock()
        self._last_s = -1.0

    @property
    def gaps(self) -> list[Gap]:
        """Frames that can't be read; see :class:`FrameSource`."""
        return self._source.gaps

    def age_s(self) -> float:
        """Return how long ago the first frame was taken, in s, by the times of :meth:`chunks`."""
        return self._growth.clock() - self._opened_at + self._before_s

    def stop(self) -> None:
        """End the following; :meth:`chunks` then yields the rest."""
        self._growth.stop()

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._growth.stopped

    def chunks(self, chunk_size: int) -> Iterator[SourceChunk]:
        """Yield all frames in order, at most ``chunk_size`` at a time, until the file grows no more."""
        following = 0
        try:
            for chunk in self._source.chunks(chunk_size):
                assert chunk.indices is not None
                following = int(chunk.indices[-1]) + 1
                yield chunk if self._own_times else self._seen(chunk)
        except DamagedSourceError as error:
            if not self._growth.stopped or error.gap.frame < following:
                raise
        if self._growth.stopped:  # the frame that is being written is not damage
            self._source.gaps = [gap for gap in self._source.gaps if gap.frame < following]

    def _seen(self, chunk: SourceChunk) -> SourceChunk:
        assert chunk.indices is not None
        return SourceChunk(chunk.frames, self._times(chunk.indices), chunk.indices)

    def _times(self, numbers: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Times:
        times: Times = np.multiply(numbers, self._period_s, dtype=np.float64)
        new = numbers >= self._present
        if new.any():
            now = max(self.age_s(), self._last_s)
            step = min(self._period_s, (now - max(self._last_s, self._before_s)) / int(new.sum()))
            times[new] = now - step * (int(numbers[-1]) - numbers[new])
        self._last_s = float(times[-1])
        return times


def _present(path: Path) -> tuple[int, float]:
    """Return how many frames the file has now, and the time in s from the first one to the last one."""
    av = optional_package("av", "video", "Reading video")
    count, first, last = 0, None, 0.0
    with av.open(str(path.absolute())) as container:
        try:
            for packet in container.demux(container.streams.video[0]):
                if packet.size:
                    count += 1
                    time = None if packet.dts is None else float(packet.dts * packet.time_base)
                    first = time if first is None else first
                    last = last if time is None else time
        except av.error.FFmpegError:  # in the middle of what is being written
            pass
    return count, last - (first or 0.0)
