"""Removes secrets from log records: API keys, signed upload URLs, session cookies, passwords.

:func:`get_logger` makes the loggers of this package. Each has a filter that runs before any handler, so it does not
matter where an application sends its log. The libraries below (aiohttp, asyncio) log what they received, such as a
malformed header line; :func:`protect_libraries` gives their loggers the same filter.

Two rules find a secret: its value, if it was registered in this process (:func:`hide`), and the place where secrets
are, such as
``X-API-KEY: ...`` or ``signature=...``.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import traceback
from types import TracebackType
from typing import Final
from urllib.parse import quote

HIDDEN: Final = "***"

MIN_SECRET_CHARS: Final = 8
"""Shorter values are not hidden: they are not secrets, and they are parts of ordinary words."""

_MAX_KNOWN: Final = 1000

_LIBRARIES: Final = (
    "aiohttp.access",
    "aiohttp.client",
    "aiohttp.internal",
    "aiohttp.server",
    "aiohttp.web",
    "aiohttp.websocket",
    "asyncio",
)

_RULES: Final = (
    # API keys of an atomstream server, anywhere.
    (re.compile(r"\batst_[\w-]{6,}"), f"atst_{HIDDEN}"),
    # A header line, up to its end; also inside a quoted or escaped text.
    (
        re.compile(
            r"(?i)\b(x-api-key|(?:proxy-)?authorization|(?:set-)?cookie)\b"
            r"(?P<mark>[\"']?\s*[:=,]\s*)(?=\S)(?:(?!\\r|\\n)[^\r\n])*"
        ),
        rf"\1\g<mark>{HIDDEN}",
    ),
    # Parameters of a query or of a form.
    (
        re.compile(
            r"(?i)\b(ticket|signature|sig|api[_-]?key|access[_-]?token|token|password|secret|"
            r"x-amz-(?:signature|credential|security-token))=[^&\s\"'<>,;)]+"
        ),
        rf"\1={HIDDEN}",
    ),
    # Members of a JSON object, also one whose text ends early.
    (
        re.compile(
            r"(?i)(\\?[\"'](?:key|api[_-]?key|token|password|secret|ticket|signature)\\?[\"']\s*:\s*)\\?[\"'][^\"'\\]*"
        ),
        rf'\1"{HIDDEN}',
    ),
    (re.compile(r"(://[^/\s:@]*):[^/\s@]+@"), rf"\1:{HIDDEN}@"),
    (re.compile(r"(?i)\b(atomstream_session\w*)=[^;\s\"',]+"), rf"\1={HIDDEN}"),
)

_HINTS: Final = (
    *(
        "atst_",
        "key",
        "cookie",
        "authorization",
        "ticket",
        "sig",
        "token",
        "password",
        "secret",
        "credential",
    ),
    *("atomstream_session", "://"),
)
"""Quick search for any text that a rule can match. Most lines have none, and the rules take ten times as long."""

_known: dict[str, tuple[str, ...]] = {}
_lock = threading.Lock()


def hide(secret: str) -> None:
    """Remove ``secret`` from all log records of this process from now on, in its usual spellings too."""
    if len(secret) < MIN_SECRET_CHARS:
        return
    spellings = {secret, quote(secret, safe=""), repr(secret)[1:-1], json.dumps(secret)[1:-1]}
    with _lock:
        _known.pop(secret, None)
        _known[secret] = tuple(sorted(spellings, key=len, reverse=True))
        while len(_known) > _MAX_KNOWN:
            _known.pop(next(iter(_known)))


def redact(text: str) -> str:
    """``text`` with every secret replaced by ``***``."""
    for spellings in list(_known.values()):
        for one in spellings:
            if one in text:
                text = text.replace(one, HIDDEN)
    lower = text.lower()
    if not any(hint in lower for hint in _HINTS):
        return text
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


class RedactingFilter(logging.Filter):
    """Applies :func:`redact` to the message, the traceback and the stack of each record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record where it has a secret; always True."""
        try:
            message = record.getMessage()
        except Exception:  # arguments that do not fit: logging itself reports them, with the arguments
            record.msg, record.args = "a log message could not be formatted", ()
            return True
        clean = redact(message)
        if clean != message:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[1] is not None:
            self._clean_traceback(record)
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        return True

    @staticmethod
    def _clean_traceback(record: logging.LogRecord) -> None:
        assert record.exc_info is not None
        text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        clean = redact(text)
        if clean != text:  # without exc_info a handler can't format the exception again
            record.exc_info, record.exc_text = None, clean


_FILTER: Final = RedactingFilter()


def get_logger(name: str) -> logging.Logger:
    """The logger of that name, with the filter."""
    logger = logging.getLogger(name)
    logger.addFilter(_FILTER)  # adding the same filter again has no effect
    return logger


def protect_libraries() -> None:
    """Give the loggers of aiohttp and asyncio the filter. Their messages are otherwise unchanged."""
    for name in _LIBRARIES:
        get_logger(name)


def print_redacted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """``sys.excepthook`` of the commands: prints an unexpected exception without secrets."""
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))
