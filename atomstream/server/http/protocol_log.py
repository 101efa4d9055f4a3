"""The log of the HTTP library's protocol errors, without what was received.

aiohttp logs each malformed request with a traceback that quotes the line, header or body that it could not read: keys,
signed URLs and cookies are in it, and a request of 16 bytes makes 500 bytes of log. Here such a request is counted
(:class:`Tally`), and nothing of it is quoted.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from aiohttp.http_exceptions import HttpProcessingError

from atomstream.server.http.tally import Tally
from atomstream.system.log_privacy import get_logger

_LOGGER: Final = "atomstream.server.http.protocol"

_QUOTING: Final = ("aiohttp.internal", "aiohttp.websocket")
"""Loggers of aiohttp that quote cookies and headers of requests."""


class MalformedRequests(logging.Filter):
    """Removes the records about malformed requests from a logger, and counts them."""

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self._tally = tally

    def filter(self, record: logging.LogRecord) -> bool:
        """False for a record about a malformed request."""
        error = record.exc_info[1] if record.exc_info else None
        if not is_malformed(error):
            return True
        args = record.args
        address = args[0] if isinstance(args, tuple) and len(args) == 1 else None
        self._tally.note(address if isinstance(address, str) else None)
        return False


class WithoutQuotes(logging.Filter):
    """Replaces each text in a record's arguments by its length."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always True."""
        if isinstance(record.args, tuple):
            record.args = tuple(map(_unquoted, record.args))
        return True


def _unquoted(value: object) -> object:
    if isinstance(value, (bytes, str)):
        return f"<{len(value)} characters>"
    return value if isinstance(value, (int, float)) else f"<{type(value).__name__}>"


_WITHOUT_QUOTES: Final = WithoutQuotes()


def is_malformed(error: BaseException | None) -> bool:
    """Whether a client caused ``error`` by bytes that are not HTTP, or that end too early."""
    return isinstance(error, (HttpProcessingError, UnicodeError, asyncio.IncompleteReadError))


class ProtocolLog:
    """The logger for the requests of one server, see the module's docstring. Close it when the server stops."""

    def __init__(self) -> None:
        # One logger for each server: its filter counts this server's requests only.
        self.logger = logging.Logger(_LOGGER)
        self.logger.parent = get_logger("atomstream.server")
        self._tally = Tally(
            get_logger("atomstream.server").warning,
            "a malformed request was refused (400)",
            "malformed requests were refused",
        )
        self.logger.addFilter(MalformedRequests(self._tally))
        for one in get_logger(_LOGGER).filters:
            self.logger.addFilter(one)
        for name in _QUOTING:
            get_logger(name).addFilter(_WITHOUT_QUOTES)

    def close(self) -> None:
        """Log the requests that were counted and not logged yet."""
        self._tally.close()
