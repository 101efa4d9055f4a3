"""Output on stderr: messages, and on a terminal one live progress line below them.

Threads, loggers and warnings all write through one console, so that messages do not break the live line. If stderr
is not a terminal there is no live line, and log files contain no control characters.
"""

from __future__ import annotations

import logging
import shutil
import sys
import threading
import time
import warnings
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from atomstream.system.log_privacy import redact

if TYPE_CHECKING:
    from atomstream.streaming import RHEEDStreamer
    from atomstream.streaming.statistics import StreamerStats


class Console:
    """stderr with one live line; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant: a Ctrl-C handler may write between two writes
        self._live = ""

    @property
    def is_terminal(self) -> bool:
        """True if stderr is a terminal, so that a live line can be shown."""
        return sys.stderr.isatty()

    def write(self, text: str) -> None:
        """Write a message above the live line."""
        with self._lock:
            self._write(self._erased() + text + "\n" + self._live)

    def show_live(self, text: str) -> None:
        """Replace the live line, cut to the width of the terminal; only if :attr:`is_terminal`."""
        width = shutil.get_terminal_size().columns - 1
        with self._lock:
            erased, self._live = self._erased(), text[:width]
            self._write(erased + self._live)

    def clear_live(self) -> None:
        """Remove the live line."""
        with self._lock:
            erased, self._live = self._erased(), ""
            self._write(erased)

    def redirect_messages(self) -> None:
        """Show warnings and messages of the ``atomstream`` loggers (level WARNING) on this console."""
        warnings.showwarning = self._show_warning
        handler = _ConsoleHandler(self)
        handler.setFormatter(logging.Formatter("atomstream: %(message)s"))
        logging.getLogger("atomstream").addHandler(handler)

    def _erased(self) -> str:
        # Blanks instead of an escape sequence, which older Windows consoles print literally.
        return "\r" + " " * len(self._live) + "\r" if self._live else ""

    def _write(self, text: str) -> None:
        with suppress(OSError):  # stderr was closed; the frames must still be delivered
            sys.stderr.write(text)
            sys.stderr.flush()

    def _show_warning(self, message: Warning | str, *_: Any, **__: Any) -> None:
        self.write(f"atomstream: {redact(str(message))}")


class _ConsoleHandler(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.write(self.format(record))


console = Console()
"""The console of this process."""


# Progress of a stream: a live line on a terminal, else a line every few seconds.

TERMINAL_S: Final = 0.2
"""Interval of the live line in s."""

LOG_S: Final = 5.0
"""Interval of progress lines in s if stderr is not a terminal."""

RATE_S: Final = 5.0
"""Time in s over which the frame rate is averaged."""


class Progress:
    """Shows the statistics of ``streamer`` from a thread, for the duration of a ``with`` block.

    The caller updates ``frames_sent``. ``n_frames`` is the expected number of frames, None if unknown.
    """

    def __init__(self, console: Console, streamer: RHEEDStreamer, data_id: str, n_frames: int | None) -> None:
        self._console = console
        self._streamer = streamer
        self._data_id = data_id
        self._n_frames = n_frames
        self._stop = threading.Event()
        self._began = time.perf_counter()
        self._recent: deque[tuple[float, int]] = deque([(self._began, 0)])
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
        self._console.clear_live()

    def _watch(self) -> None:
        terminal = self._console.is_terminal
        while not self._stop.wait(TERMINAL_S if terminal else LOG_S):
            line = self._line(self._streamer.stats())
            (self._console.show_live if terminal else self._console.write)(line)

    def _line(self, stats: StreamerStats) -> str:
        now, sent = time.perf_counter(), self.frames_sent
        parts = [
            f"{now - self._began:6.1f} s",
            f"{sent}/{self._n_frames} frames" if self._n_frames else f"{sent} frames",
            f"{self._rate(now, sent):.0f} fps",
            *status_parts(stats, self._data_id),
        ]
        return "  ".join(parts)

    def _rate(self, now: float, sent: int) -> float:
        # The window begins and ends with a chunk: a window of fixed length would contain parts of chunks.
        if sent != self._recent[-1][1]:
            self._recent.append((now, sent))
        while len(self._recent) > 2 and self._recent[0][0] < now - RATE_S:
            self._recent.popleft()
        (first, sent_first), (last, sent_last) = self._recent[0], self._recent[-1]
        return (sent_last - sent_first) / max(last - first, 1e-3) if now - last < RATE_S else 0.0


def status_parts(stats: StreamerStats, data_id: str) -> list[str]:
    """Return upload rate, backlog, memory and watermark as text."""
    stream = stats["streams"][data_id]
    waiting = stream["chunks_pending"]
    parts = [
        f"{stats['bytes_out_per_s'] / 1e6:.1f} MB/s",
        f"backlog {waiting} chunk{'' if waiting == 1 else 's'}",
        f"memory {stats['buffer_bytes_used'] / 1e6:.0f} MB",
        f"watermark {stream['watermark']}",
    ]
    if stream["standing_still"]:
        parts.append(f"waiting: {stream['standing_still']}")
    return parts
