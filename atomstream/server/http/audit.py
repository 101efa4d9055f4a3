"""The audit lines of the log: who ended, renamed, moved or deleted which stream."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from atomstream.protocol import API_KEY_HEADER
from atomstream.server.http.api_keys import fingerprint
from atomstream.system.log_privacy import get_logger

log: Final = get_logger("atomstream.server.audit")


def audit(request: web.Request, done: str, data_id: str) -> None:
    """Log one line: what was ``done`` to the stream, from which address, and by which key.

    The line has the first eight hexadecimal digits of the key's SHA-256; ``keys.json`` has the whole hash.
    """
    key = request.headers.get(API_KEY_HEADER, "").strip()
    who = f"key {fingerprint(key).hex()[:8]}" if key else "a browser session"
    log.info("stream %s %s by %s from %s", data_id, done, who, request.remote)
