"""How far a recording is saved: the time of the last frame that is on disk, or on the server."""

from __future__ import annotations

from collections import deque

from atomstream.streaming.statistics import StreamStats


class SavedTime:
    """Follows the chunks of one stream.

    A chunk that is in memory only would be lost if this computer lost its power. Chunks are written in order, so all
    frames before the oldest of them are saved.
    """

    def __init__(self) -> None:
        self._ends: deque[tuple[int, int, float]] = deque()
        self._pushed: deque[tuple[int, float]] = deque()
        self.frames = 0
        """Number of frames that are saved."""
        self.time_ms: float | None = None
        """Time of the last saved frame in UTC ms; None if no frame is saved."""

    def pushed(self, count: int, time_ms: float) -> None:
        """Note that the frame number ``count`` (from 1), captured at ``time_ms``, was pushed."""
        self._pushed.append((count, time_ms))

    def update(self, stats: StreamStats) -> None:
        """Note the present statistics of the stream."""
        accepted = stats["chunks_accepted"]
        if self._pushed and (not self._ends or self._ends[-1][0] < accepted):
            in_chunks = self._pushed[-1][0] - stats["frames_gathering"]
            last: tuple[int, float] | None = None
            while self._pushed and self._pushed[0][0] <= in_chunks:
                last = self._pushed.popleft()
            if last is not None:
                self._ends.append((accepted, *last))
        safe = accepted - stats["chunks_in_memory_only"]
        while self._ends and self._ends[0][0] <= safe:
            _, self.frames, self.time_ms = self._ends.popleft()
