"""Output on stderr: messages, and on a terminal one live progress line below them.

Threads, loggers and warnings all write through one console, so that messages do not break the live line. If stderr
is not a terminal there is no live line, and log files contain no control characters.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import threading
import time
import warnings
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from atomstream.counted import counted
from atomstream.system.log_privacy import redact

if TYPE_CHECKING:
    from atomstream.streaming import RHEEDStreamer
    from atomstream.streaming.statistics import StreamerStats


class Console:
    """stderr with one live line; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant: a Ctrl-C handler may write between two writes
        self._live = ""
        self._handler: logging.Handler | None = None
        self._as_json = False

    @property
    def is_terminal(self) -> bool:
        """True if stderr is a terminal, so that a live line can be shown."""
        return sys.stderr.isatty()

    def write(self, text: str) -> None:
        """Write a message above the live line."""
        self.write_line(json_line("INFO", "atomstream", text) if self._as_json else text)

    def write_line(self, line: str) -> None:
        """Write a line that has its final format."""
        with self._lock:
            self._write(self._erased() + line + "\n" + self._live)

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
        self._handler = handler

    def set_log(self, log_format: str, level: str) -> None:
        """Show messages from ``level`` on ("debug" to "error"), as "text" or as "json": one object a line.

        Call it after :meth:`redirect_messages`. As JSON, what :meth:`write` and the libraries write are objects too.
        """
        handler, number = self._handler, logging.getLevelNamesMapping()[level.upper()]
        if handler is None or (log_format, level) == ("text", "warning"):  # the state after redirect_messages
            return
        handler.setLevel(number)
        logging.getLogger("atomstream").setLevel(number)
        if log_format == "json":
            self._as_json = True
            handler.setFormatter(JsonFormatter())
            for name in ("aiohttp", "asyncio"):
                logging.getLogger(name).addHandler(handler)

    def _erased(self) -> str:
        # Blanks instead of an escape sequence, which older Windows consoles print literally.
        return "\r" + " " * len(self._live) + "\r" if self._live else ""

    def _write(self, text: str) -> None:
        with suppress(OSError):  # stderr was closed; the frames must still be delivered
            sys.stderr.write(text)
            sys.stderr.flush()

    def _show_warning(self, message: Warning | str, *_: Any, **__: Any) -> None:
        text = redact(str(message))
        self.write_line(json_line("WARNING", "atomstream", text) if self._as_json else f"atomstream: {text}")


class _ConsoleHandler(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.write_line(self.format(record))


def json_line(
    level: str,
    logger: str,
    message: str,
    at_s: float | None = None,
    exception: str = "",
    audit: dict[str, str] | None = None,
) -> str:
    """A log line as JSON: ``time`` (UTC, ISO 8601), ``level``, ``logger``, ``message``.

    With ``exception`` if there is one, and ``audit`` (who did what) in lines of the audit log.
    """
    moment = datetime.fromtimestamp(time.time() if at_s is None else at_s, UTC)
    shown = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level,
        "logger": logger,
        "message": message,
    }
    more = {**({"exception": exception} if exception else {}), **({"audit": audit} if audit else {})}
    return json.dumps({**shown, **more}, ensure_ascii=False)


class JsonFormatter(logging.Formatter):
    """Formats a record by :func:`json_line`; its secrets have been removed by the filters of its logger."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        trace = record.exc_text or (self.formatException(record.exc_info) if record.exc_info else "")
        audit = getattr(record, "audit", None)
        return json_line(record.levelname, record.name, record.getMessage(), record.created, trace, audit)


console = Console()
"""The console of this process."""


# Progress of a stream: a live line on a terminal, else a line every few seconds.

TERMINAL_S: Final = 0.2
"""Interval of the live line in s."""

FIRST_LOG_S: Final = 1.0
LOG_S: Final = 5.0
"""Time in s to the first progress line if stderr is not a terminal, and the longest interval after it: the intervals
are doubled up to it.
"""

LOG_WIDTH: Final = 80
"""Longest progress line if stderr is not a terminal."""

LEAST_CUT: Final = 20
"""Least length, in characters, of a text that is cut; shorter ones are left out."""

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
        interval_s = TERMINAL_S if terminal else FIRST_LOG_S
        while not self._stop.wait(interval_s):
            if not terminal:
                interval_s = min(2.0 * interval_s, LOG_S)
            line = self._line(self._streamer.stats())
            (self._console.show_live if terminal else self._console.write)(line)

    def _line(self, stats: StreamerStats) -> str:
        now, sent = time.perf_counter(), self.frames_sent
        parts = [
            f"{now - self._began:6.1f} s",
            f"{sent}/{self._n_frames} frames" if self._n_frames else counted(sent, "frame"),
            f"{self._rate(now, sent):.0f} fps",
            *status_parts(stats, self._data_id),
        ]
        return fitted(
            parts, shutil.get_terminal_size().columns - 1 if self._console.is_terminal else LOG_WIDTH
        )

    def _rate(self, now: float, sent: int) -> float:
        # The window begins and ends with a chunk: a window of fixed length would contain parts of chunks.
        if sent != self._recent[-1][1]:
            self._recent.append((now, sent))
        while len(self._recent) > 2 and self._recent[0][0] < now - RATE_S:
            self._recent.popleft()
        (first, sent_first), (last, sent_last) = self._recent[0], self._recent[-1]
        return (sent_last - sent_first) / max(last - first, 1e-3) if now - last < RATE_S else 0.0


def printable(text: str) -> str:
    """``text`` with ? in place of control characters: names come from others, and must not command the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def fitted(parts: list[str], width: int) -> str:
    """Join the parts by two blanks, within ``width`` characters: a long part is cut, others may be left out."""
    line = parts[0]
    for part in parts[1:]:
        room = width - len(line) - 2
        if len(part) > room >= LEAST_CUT:
            part = f"{part[: room - 1]}…"
        if len(part) <= room:
            line = f"{line}  {part}"
    return line[:width]


def status_parts(stats: StreamerStats, data_id: str) -> list[str]:
    """Return waiting and finished chunks, upload rate and memory as text, the most important first."""
    stream = stats["streams"][data_id]
    waiting = stream["chunks_pending"]
    parts = [counted(waiting, "chunk waits", "chunks wait")]
    if stream["watermark"] >= 0:
        parts.append(f"0 to {stream['watermark']} done")
    if stream["standing_still"]:
        parts.insert(0, f"waiting: {stream['standing_still']}")
    parts += [f"{stats['bytes_out_per_s'] / 1e6:.1f} MB/s", f"{stats['buffer_bytes_used'] / 1e6:.0f} MB held"]
    return parts
