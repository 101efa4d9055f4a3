"""How a stream stands, told while it runs: a live line on a terminal, a line each few seconds elsewhere."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Final, Self

from atomstream.cli.console import Console
from atomstream.streaming import RHEEDStreamer
from atomstream.streaming.status import StreamerStats

TERMINAL_S: Final = 0.2
LOG_S: Final = 5.0


class Progress:
    """Shows ``streamer``'s stats from a thread of its own, for as long as the block lasts.

    ``frames_sent`` is set by whoever reads the source; ``n_frames`` is how many there will be, where known.
    """

    def __init__(self, console: Console, streamer: RHEEDStreamer, data_id: str, n_frames: int | None) -> None:
        self._console = console
        self._streamer = streamer
        self._data_id = data_id
        self._n_frames = n_frames
        self._stop = threading.Event()
        self._began = time.perf_counter()
        self._thread = threading.Thread(target=self._watch, name="atomstream-progress", daemon=True)
        self.frames_sent = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._console.clear()

    def _watch(self) -> None:
        terminal = self._console.is_terminal
        while not self._stop.wait(TERMINAL_S if terminal else LOG_S):
            line = self._line(self._streamer.stats())
            (self._console.show if terminal else self._console.say)(line)

    def _line(self, stats: StreamerStats) -> str:
        seconds = time.perf_counter() - self._began
        return progress_line(stats, self._data_id, seconds, self.frames_sent, self._n_frames)


def progress_line(
    stats: StreamerStats, data_id: str, seconds: float, frames_sent: int, n_frames: int | None
) -> str:
    """One line: time, frames, what the uplink carries, what waits, and up to which chunk all is settled."""
    stream = stats["streams"][data_id]
    frames = f"{frames_sent}/{n_frames}" if n_frames else str(frames_sent)
    # The meter's rates are means of 10 s, which say too little before that.
    rate = frames_sent / seconds if seconds < 10.0 else stats["frames_in_per_s"]
    sent = stats["bytes_stored"] / seconds if seconds < 10.0 else stats["bytes_out_per_s"]
    parts = [
        f"{seconds:6.1f} s",
        f"{frames} frames",
        f"{rate:.0f} fps",
        f"{sent / 1e6:.1f} MB/s",
        f"backlog {stream['chunks_pending']} chunks",
        f"memory {stats['buffer_bytes_used'] / 1e6:.0f} MB",
        f"watermark {stream['watermark']}",
    ]
    if stream["standing_still"]:
        parts.append(f"waiting: {stream['standing_still']}")
    return "  ".join(parts)
