"""Static files of pages (no build step, no external resources), sent with a strict Content-Security-Policy.

Pages contain no data and need no key; their scripts request the data. They use only scripts, styles and fonts of
their server and cannot be embedded in a frame.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from aiohttp import web

DASHBOARD: Final = Path(__file__).resolve().parents[1] / "server" / "dashboard" / "static"
"""The dashboard's files: its styles, fonts and general scripts are those of all pages."""

SHARED_BODY: Final = web.ResponseKey("shared_body", bool)
"""True in a reply whose body is in memory once for all requests."""
TYPES: Final = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "font-src 'self'",
        "connect-src 'self'",
        "manifest-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        # Trusted types: the browser refuses to create elements from strings, so names stay text.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    # Revalidated each time (304 if unchanged), so that browsers get the new pages after an update.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file: content, MIME type and a tag that changes with the content."""

    body: bytes
    content_type: str
    etag: str


@cache
def _shell() -> str:
    return (Path(__file__).parent / "shell.html").read_text(encoding="utf-8")


def in_shell(page: str, *, scripts: bool = True) -> str:
    """The complete HTML of a page: its own head and ``<body>``, inside the parts that all pages share.

    ``page`` is the text of a page's file. What stands before its ``<body>`` (title, styles, scripts) is put into the
    ``<head>`` of the document. With ``scripts=False`` the script that sets the theme is left out, because the
    Content-Security-Policy of such a page forbids scripts.
    """
    head, start, body = page.partition("<body")
    shell = _shell() if scripts else re.sub(r"<script.*</script>\n", "", _shell())
    return shell.replace("{{head}}", head.strip()).replace("{{body}}", (start + body).strip())


def load_files(folder: Path, change_page: Callable[[str], str] = str) -> dict[str, StaticFile]:
    """All files of the known types, by their path below ``folder``.

    Pages are complete documents (:func:`in_shell`), changed by ``change_page``.
    """
    paths = [path for path in folder.rglob("*") if path.suffix in TYPES]
    return {path.relative_to(folder).as_posix(): _load(path, change_page) for path in paths}


def _load(path: Path, change_page: Callable[[str], str]) -> StaticFile:
    body = path.read_bytes()
    if path.suffix == ".html":
        body = change_page(in_shell(body.decode())).encode()
    return StaticFile(body, TYPES[path.suffix], hashlib.sha256(body).hexdigest()[:20])


def reply_with(request: web.Request, file: StaticFile) -> web.Response:
    """The reply that sends a file; 304 if the browser has it."""
    headers = {**HEADERS, "ETag": f'"{file.etag}"'}
    if any(tag.value == file.etag for tag in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    charset = None if file.content_type == "font/woff2" else "utf-8"
    reply = web.Response(body=file.body, content_type=file.content_type, charset=charset, headers=headers)
    reply[SHARED_BODY] = True
    return reply
