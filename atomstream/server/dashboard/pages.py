"""The pages and what they are made of: plain files of the package, told to a browser with strict rules.

Pages hold no data, so they need no key; what they show they ask for. They run no script and apply no style
but those of this server, load nothing from elsewhere and stand in nobody's frame.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from aiohttp import web

from atomstream.server.http.responses import HttpError
from atomstream.server.streams.registry import checked_id

STATIC = Path(__file__).parent / "static"
TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
POLICY = "; ".join(
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
        # Text of strangers becomes text alone: the browser itself refuses to make elements out of a string.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    # Asked again each time (304 where nothing changed), so that an update of the server reaches open browsers.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file: its bytes, MIME type and a tag that changes with it."""

    body: bytes
    content_type: str
    etag: str


@cache
def static_files() -> dict[str, StaticFile]:
    """All files by their paths below ``static``; what is not in here is not served."""
    paths = [path for path in STATIC.rglob("*") if path.suffix in TYPES]
    return {path.relative_to(STATIC).as_posix(): _load(path) for path in paths}


def _load(path: Path) -> StaticFile:
    body = path.read_bytes()
    return StaticFile(body, TYPES[path.suffix], hashlib.sha256(body).hexdigest()[:20])


async def list_page(request: web.Request) -> web.Response:
    """``GET /``: the streams."""
    return _reply(request, "streams.html")


async def login_page(request: web.Request) -> web.Response:
    """``GET /login``."""
    return _reply(request, "login.html")


async def stream_page(request: web.Request) -> web.Response:
    """``GET /streams/{data_id}``: one stream; the same page for each."""
    checked_id(request.match_info["data_id"])
    return _reply(request, "stream.html")


async def static_file(request: web.Request) -> web.Response:
    """``GET /dashboard/static/{path}``."""
    path = request.match_info["path"]
    if path not in static_files() or path.endswith(".html"):
        raise HttpError(404, "There is no such file.")
    return _reply(request, path)


def _reply(request: web.Request, name: str) -> web.Response:
    file = static_files()[name]
    headers = {**HEADERS, "ETag": f'"{file.etag}"'}
    if any(tag.value == file.etag for tag in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    charset = None if file.content_type == "font/woff2" else "utf-8"
    return web.Response(body=file.body, content_type=file.content_type, charset=charset, headers=headers)
