"""A recording's chunks, paced, stamped and pushed."""

from __future__ import annotations

import time
from collections.abc import Iterable

from atomstream.cli.playback import SourceBrokeError
from atomstream.sources import FrameSource, SourceChunk, paced, to_uint8
from atomstream.streaming import RHEEDStreamer

FPS_TOLERANCE = 0.01
"""A file whose own rate differs by more from the camera's was written for watching: its times mean nothing."""


class Replay:
    """Pushes ``source`` as chunks of the stream ``data_id``, taken at ``fps`` frames a second.

    Stamps: in real time and without times of its own, a chunk was captured just now, and the streamer stamps it.
    Otherwise frames lie on one time line, which begins now (paced) or ends now (as fast as it goes).
    """

    def __init__(
        self,
        streamer: RHEEDStreamer,
        data_id: str,
        source: FrameSource,
        fps: float,
        levels: tuple[float, float] | None,
    ) -> None:
        self._streamer = streamer
        self._data_id = data_id
        self._source = source
        self._fps = fps
        self._levels = levels
        self._pace = True
        self._uses_times = source.fps is None or abs(source.fps / fps - 1.0) <= FPS_TOLERANCE
        self._start_ms: float | None = None
        self._chunks_sent = 0
        self._frames_sent = 0

    def chunks(self, chunk_size: int, *, pace: bool) -> Iterable[SourceChunk]:
        """All chunks, each when a camera would have had it whole, or at once."""
        self._pace = pace
        chunks = self._source.chunks(chunk_size)
        return paced(chunks, self._fps) if pace else chunks

    def send(self, chunk: SourceChunk) -> int:
        """Push one chunk; its number of frames.

        Raises:
            SourceBrokeError: these pixels can't be sent to this server.
        """
        frames = to_uint8(chunk.frames, *self._levels) if self._levels else chunk.frames
        start_ms, times_ms = self._stamps(chunk)
        try:
            self._streamer.push(
                self._data_id, self._chunks_sent, frames, start_ms, frame_times_ms=times_ms, copy=False
            )
        except TypeError as error:  # uint16 towards a server that takes 8 bits
            raise SourceBrokeError(f"{error} Here: --levels LOW HIGH.") from error
        self._chunks_sent += 1
        self._frames_sent += len(frames)
        return len(frames)

    def _stamps(self, chunk: SourceChunk) -> tuple[float | None, list[float] | None]:
        if self._start_ms is None:
            self._start_ms = self._time_line_start(len(chunk.frames))
        if chunk.times_s is not None and self._uses_times:
            times_ms = (self._start_ms + 1000.0 * chunk.times_s).tolist()
            return times_ms[0], times_ms
        if self._pace:
            return None, None
        return self._start_ms + 1000.0 * self._frames_sent / self._fps, None

    def _time_line_start(self, first_frames: int) -> float:
        clock = self._streamer.clock_status()
        now_ms = 1000.0 * time.time() + (clock["offset_ms"] if clock else 0.0)
        past = first_frames if self._pace else self._source.n_frames or 0
        return now_ms - 1000.0 * past / self._fps
