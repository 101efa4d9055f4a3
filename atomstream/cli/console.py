"""What a person sees on stderr: sentences, and on a terminal one live line below them.

Threads, loggers and warnings all speak through one console, so that nothing tears the live line. Where stderr
is no terminal there is no live line, and so no control character in a log file.
"""

from __future__ import annotations

import logging
import shutil
import sys
import threading
import warnings
from contextlib import suppress
from typing import Any


class Console:
    """stderr with one live line; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a Ctrl-C may arrive between two writes, and its handler speaks too
        self._live = ""

    @property
    def is_terminal(self) -> bool:
        """Whether a live line can be shown."""
        return sys.stderr.isatty()

    def say(self, text: str) -> None:
        """One sentence, above the live line."""
        with self._lock:
            self._write(self._erased() + text + "\n" + self._live)

    def show(self, text: str) -> None:
        """Replace the live line; call only where :attr:`is_terminal`."""
        width = shutil.get_terminal_size().columns - 1
        with self._lock:
            erased, self._live = self._erased(), text[:width]
            self._write(erased + self._live)

    def clear(self) -> None:
        """Take the live line away."""
        with self._lock:
            erased, self._live = self._erased(), ""
            self._write(erased)

    def take_over_messages(self) -> None:
        """Let warnings and the ``atomstream`` loggers speak here, as sentences."""
        warnings.showwarning = self._show_warning
        handler = _ConsoleHandler(self)
        handler.setFormatter(logging.Formatter("atomstream: %(message)s"))
        logging.getLogger("atomstream").addHandler(handler)

    def _erased(self) -> str:
        # Blanks rather than an escape sequence: older Windows consoles print those.
        return "\r" + " " * len(self._live) + "\r" if self._live else ""

    def _write(self, text: str) -> None:
        with suppress(OSError):  # nobody reads it any more; frames still have to be delivered
            sys.stderr.write(text)
            sys.stderr.flush()

    def _show_warning(self, message: Warning | str, *_: Any, **__: Any) -> None:
        self.say(f"atomstream: {message}")


class _ConsoleHandler(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.say(self.format(record))


console = Console()
"""The process has one stderr, and so one of these."""
